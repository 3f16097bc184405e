// Orders of documents by their fields: one meaning for the engine and for an index that sorts columns.
import { canonicalField, type FieldValue, flattenFields } from '../conditions/index.ts';
import type { SortKey } from './ports.ts';

type Comparable = number | string | boolean;

const rankOf = (value: Comparable) => (typeof value === 'number' ? 0 : typeof value === 'string' ? 1 : 2);

/** What a field is sorted by: itself, or the first element of a list; null and empty lists count as missing. */
function sortable(value: FieldValue | undefined): Comparable | undefined {
  const scalar = typeof value === 'object' && value !== null ? value.find((item) => item !== null) : value;
  return scalar ?? undefined;
}

function compareComparable(a: Comparable, b: Comparable): number {
  const difference = rankOf(a) - rankOf(b);
  if (difference !== 0) return difference;
  return a < b ? -1 : a > b ? 1 : 0;
}

/**
 * Order of two values of one field under a key: negative if `a` comes first.
 *
 * Numbers come before texts before booleans (`desc` turns that around); texts by UTF-16 code units. Of a list its
 * first element counts. A missing field, null or an empty list goes where `key.missing` says, in both directions.
 */
export function compareFieldValues(
  a: FieldValue | undefined,
  b: FieldValue | undefined,
  key: SortKey,
): number {
  const left = sortable(a);
  const right = sortable(b);
  if (left === undefined || right === undefined) {
    if (left === right) return 0;
    return (left === undefined) === (key.missing === 'last') ? 1 : -1;
  }
  return key.direction === 'asc' ? compareComparable(left, right) : compareComparable(right, left);
}

/** One thing to sort. `field` gives the value of a canonical field name. */
export interface Sortable {
  readonly document_id: string;
  readonly score: number;
  field(name: string): FieldValue | undefined;
}

/**
 * Order by several keys, the first one first; ties by ascending document id.
 *
 * The key `score` is the hit's score, whatever field of that name the document has; that one is `metadata.score`.
 */
export function compareByKeys(keys: readonly SortKey[]): (a: Sortable, b: Sortable) => number {
  const named = keys.map((key) => ({ key, isScore: key.field === 'score', name: canonicalField(key.field) }));
  return (a, b) => {
    for (const { key, isScore, name } of named) {
      const order = isScore
        ? compareFieldValues(a.score, b.score, key)
        : compareFieldValues(a.field(name), b.field(name), key);
      if (order !== 0) return order;
    }
    return a.document_id < b.document_id ? -1 : a.document_id > b.document_id ? 1 : 0;
  };
}

/** A hit as something to sort; without its document it has a score only. */
export function sortableOf(
  hit: { readonly document_id: string; readonly score: number },
  document: Readonly<Record<string, unknown>> | undefined,
): Sortable {
  const fields = document ? flattenFields(document) : undefined;
  return { document_id: hit.document_id, score: hit.score, field: (name) => fields?.get(name) };
}
