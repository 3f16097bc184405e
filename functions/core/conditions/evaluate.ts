// Decides whether one document satisfies a condition: the meaning that every other evaluation must reproduce.
import type { Condition } from './condition.ts';
import { type Fields, type FieldValue, flattenFields } from './field.ts';

/** Reads the fields of one document; the index supplies its own over columns. */
export interface FieldReader {
  /** @returns the value of a canonical field, undefined if it is missing */
  readonly value: (field: string) => FieldValue | undefined;
  /** Whether the document has any field whose name begins with `field` and a dot. */
  readonly hasBelow: (field: string) => boolean;
}

/**
 * Whether `document` satisfies `condition`. Total: any JSON value gets an answer, nothing throws.
 *
 * A missing field, or a value of another type, never matches, except for `ne`, `nin`, `exists: false` and
 * `is_null: true` (api rules, section 5). Nothing is coerced. Of a list field any element may match; `ne` and
 * `nin` hold if no element matches their positive form.
 *
 * @param document the document's fields at the root or under `metadata`
 */
export function evaluate(condition: Condition, document: unknown): boolean {
  return matches(condition, readerOf(flattenFields(document)));
}

/** As `evaluate`, over fields that are already flat. */
export function matches(condition: Condition, reader: FieldReader): boolean {
  switch (condition.kind) {
    case 'all':
      return condition.nodes.every((node) => matches(node, reader));
    case 'any':
      return condition.nodes.some((node) => matches(node, reader));
    case 'none':
      return !condition.nodes.some((node) => matches(node, reader));
    case 'compare':
      return anyElement(reader.value(condition.field), condition.test) !== condition.negated;
    case 'presence': {
      const value = reader.value(condition.field);
      const present = value !== undefined || reader.hasBelow(condition.field);
      if (condition.operator === 'exists') return present === condition.value;
      return (!present || anyElement(value, (element) => element === null)) === condition.value;
    }
  }
}

/** A reader over a flat table. */
export function readerOf(table: Fields): FieldReader {
  return {
    value: (field) => table.get(field),
    hasBelow: (field) => {
      const prefix = `${field}.`;
      for (const name of table.keys()) if (name.startsWith(prefix)) return true;
      return false;
    },
  };
}

function anyElement(
  value: FieldValue | undefined,
  test: (element: string | number | boolean | null) => boolean,
): boolean {
  if (value === undefined) return false;
  if (typeof value === 'object' && value !== null) return value.some(test);
  return test(value);
}
