// How a document's fields are named and read: one flat table of dotted names, the same for filters and index columns.

/** One value that a condition compares with: JSON without lists and objects. */
export type Scalar = string | number | boolean | null;

/** What a field of a document holds. Lists are flat; a list of lists is read as one list. */
export type FieldValue = Scalar | readonly Scalar[];

/** A document as a flat table, dotted name to value. A field that is not in it is missing. */
export type Fields = ReadonlyMap<string, FieldValue>;

/** Longest field name, in UTF-16 units: names stand in segment headers and manifests. */
export const fieldLengthMax = 256;

/** Objects nested more deeply than this are not read; request bodies end at the same depth (api rules, section 12). */
const depthMax = 32;

const prototypeNames = new Set(['__proto__', 'constructor', 'prototype']);
const aliases = ['metadata.', 'payload.'];

/**
 * The one name of a field: `metadata.x` and `payload.x` are other spellings of `x`.
 *
 * A prefix is taken off as often as it stands there, so the result never begins with one.
 */
export function canonicalField(field: string): string {
  let name = field;
  for (;;) {
    const alias = aliases.find((prefix) => name.startsWith(prefix) && name.length > prefix.length);
    if (alias === undefined) return name;
    name = name.slice(alias.length);
  }
}

/**
 * Why a canonical name cannot be used as a field, or undefined if it can.
 *
 * Refused: empty parts (`a..b`), names of the prototype chain, `_internal` (ours, not the user's), over-long names.
 */
export function fieldFault(field: string): string | undefined {
  if (field.length === 0) return 'A field name may not be empty.';
  if (field.length > fieldLengthMax)
    return `A field name may have ${fieldLengthMax} characters, got ${field.length}.`;
  const parts = field.split('.');
  if (parts.some((part) => part.length === 0))
    return 'A field name may not have an empty part between its dots.';
  if (parts[0] === '_internal') return 'Fields under `_internal` are not open to filters.';
  const forbidden = parts.find((part) => prototypeNames.has(part));
  if (forbidden !== undefined) return `\`${forbidden}\` may not be part of a field name.`;
  return undefined;
}

/**
 * What one field of a document holds, undefined if it is missing.
 *
 * For many fields of one document `flattenFields` is cheaper.
 */
export function fieldValue(document: unknown, field: string): FieldValue | undefined {
  return flattenFields(document).get(canonicalField(field));
}

interface Entry {
  values: Scalar[];
  list: boolean;
}

/**
 * Flattens a document to dotted names: `{a: {b: 1}}` is `a.b`. The index stores exactly these columns, and
 * conditions read documents through the same table, so both always agree.
 *
 * Fields inside a list of objects become lists (`people.name`); an empty list or object keeps its name with an
 * empty list, so that it counts as existing. The root wins over `metadata` and `payload`. Names that no condition
 * may address are left out, as are values that JSON does not have; numbers that are not finite are null.
 *
 * @param document a JSON object; anything else has no fields
 */
export function flattenFields(document: unknown): Map<string, FieldValue> {
  const raw = new Map<string, Entry>();
  if (isObject(document)) {
    for (const [key, value] of Object.entries(document)) {
      if (!prototypeNames.has(key)) walk(value, key, 1, false, raw);
    }
  }
  const fields = new Map<string, FieldValue>();
  const renamed: [string, Entry][] = [];
  for (const [path, entry] of raw) {
    const name = canonicalField(path);
    if (fieldFault(name) !== undefined) continue;
    if (name === path) fields.set(name, contentOf(entry));
    else renamed.push([name, entry]);
  }
  for (const [name, entry] of renamed) {
    if (!fields.has(name)) fields.set(name, contentOf(entry));
  }
  return fields;
}

/** Whether anything was found at or under `path`. */
function walk(
  value: unknown,
  path: string,
  depth: number,
  inList: boolean,
  raw: Map<string, Entry>,
): boolean {
  const scalar = scalarOf(value);
  if (scalar !== undefined) {
    add(raw, path, scalar, inList);
    return true;
  }
  if (typeof value !== 'object' || value === null || depth >= depthMax) return false;
  let found = false;
  if (Array.isArray(value)) {
    for (const element of value) found = walk(element, path, depth + 1, true, raw) || found;
  } else {
    for (const [key, inner] of Object.entries(value)) {
      if (prototypeNames.has(key)) continue;
      found = walk(inner, `${path}.${key}`, depth + 1, inList, raw) || found;
    }
  }
  // Inside a list, the list itself decides whether it was empty all through.
  if (!found && !inList && !raw.has(path)) raw.set(path, { values: [], list: true });
  return found || !inList;
}

function add(raw: Map<string, Entry>, path: string, value: Scalar, inList: boolean): void {
  const entry = raw.get(path);
  if (entry === undefined) raw.set(path, { values: [value], list: inList });
  // `{"a.b": 1, "a": {"b": 2}}` names one field twice: the first one holds.
  else if (inList && entry.list) entry.values.push(value);
}

function contentOf(entry: Entry): FieldValue {
  return entry.list ? entry.values : entry.values[0]!;
}

function scalarOf(value: unknown): Scalar | undefined {
  if (value === null || typeof value === 'string' || typeof value === 'boolean') return value;
  if (typeof value === 'number') return Number.isFinite(value) ? value : null;
  return undefined;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
