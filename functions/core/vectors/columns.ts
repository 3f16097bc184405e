// The columns of documents beside their vectors: what one row holds, and how two states of a document differ.
import { type Fields, type FieldValue, flattenFields } from '../conditions/field.ts';

/** What one column holds for one row; the same values that conditions compare with. */
export type ColumnValue = FieldValue;

/** The columns of one row, dotted name to value; a name that is not in it is missing for the row. */
export type Columns = Fields;

/** A change of columns: a value replaces, undefined takes the column away, a name that is not in it stays. */
export type ColumnPatch = ReadonlyMap<string, ColumnValue | undefined>;

/**
 * The columns of a document: nested objects become dotted names, `metadata.x` and `payload.x` become `x`,
 * `_internal` is left out. Conditions read documents through the same function.
 */
export function flattenColumns(document: unknown): Map<string, ColumnValue> {
  return flattenFields(document);
}

/** The patch that turns the columns `before` into `after`; empty if nothing changed. */
export function diffColumns(before: Columns, after: Columns): Map<string, ColumnValue | undefined> {
  const patch = new Map<string, ColumnValue | undefined>();
  for (const name of before.keys()) if (!after.has(name)) patch.set(name, undefined);
  for (const [name, value] of after) {
    const old = before.get(name);
    if (old === undefined || !sameValue(old, value)) patch.set(name, value);
  }
  return patch;
}

function sameValue(a: ColumnValue, b: ColumnValue): boolean {
  if (typeof a !== 'object' || typeof b !== 'object' || a === null || b === null) return a === b;
  return a.length === b.length && a.every((element, i) => element === b[i]);
}
