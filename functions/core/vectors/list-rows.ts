// Lists of documents by their columns: filter, sort, offset, limit; and the rows of a feature with their vectors.
import type { Condition } from '../conditions/condition.ts';
import { canonicalField } from '../conditions/field.ts';
import { rowsOf } from './bits.ts';
import type { ColumnValue } from './columns.ts';
import { VectorError } from './errors.ts';
import { selectRows } from './select-rows.ts';
import type { Snapshot } from './snapshot.ts';
import { type VectorMemory, vectorMemory } from './vector-memory.ts';

/** One key of an order. */
export interface SortKey {
  /** `metadata.x`, `payload.x` and `x` are the same. */
  readonly field: string;
  readonly direction: 'asc' | 'desc';
  /** Where rows without the field go, whatever the direction. @default 'last' */
  readonly missing?: 'first' | 'last' | undefined;
}

export interface ListRequest {
  readonly filter?: Condition | undefined;
  /** The first key counts most. */
  readonly sort?: readonly SortKey[] | undefined;
  /** Order of ids: of the whole list without `sort`, else of ties. Ids sort by creation. @default 'desc' */
  readonly idOrder?: 'asc' | 'desc' | undefined;
  /** @default 0 */
  readonly offset?: number | undefined;
  readonly limit: number;
}

/**
 * Ids of the live rows that satisfy the filter, in order, from `offset`, at most `limit`.
 *
 * Numbers come before texts before booleans (`desc` turns that around); texts by UTF-16 units. Of a list its first
 * element that is not null counts; null and an empty list count as missing.
 *
 * @throws VectorError query_invalid if offset or limit is not a whole number from 0
 */
export function listRows(snapshot: Snapshot, request: ListRequest): string[] {
  const { filter, sort = [], idOrder = 'desc', offset = 0, limit } = request;
  if (!Number.isSafeInteger(offset) || offset < 0 || !Number.isSafeInteger(limit) || limit < 0) {
    throw new VectorError(
      'query_invalid',
      `Offset and limit are whole numbers from 0, got ${offset} and ${limit}.`,
    );
  }
  const sign = idOrder === 'asc' ? 1 : -1;
  const found: { readonly id: string; readonly keys: readonly (Comparable | undefined)[] }[] = [];
  const names = sort.map(({ field }) => canonicalField(field));
  for (const [i, bits] of selectRows(snapshot, filter).entries()) {
    const { segment, firstRow } = snapshot.parts[i]!;
    for (const local of rowsOf(bits)) {
      const keys = names.map((name) => sortable(snapshot.valueAt(firstRow + local, name)));
      found.push({ id: segment.id(local), keys });
    }
  }
  found.sort((a, b) => {
    for (const [i, key] of sort.entries()) {
      const order = compareKeys(a.keys[i], b.keys[i], key);
      if (order !== 0) return order;
    }
    return a.id < b.id ? -sign : a.id > b.id ? sign : 0;
  });
  return found.slice(offset, offset + limit).map(({ id }) => id);
}

/** Ids and vectors of rows, for clusters and exports. */
export interface VectorTable {
  readonly ids: string[];
  /** Row-major, `ids.length x dims`, as given (not normalised). */
  readonly vectors: Float32Array;
  readonly dims: number;
}

/**
 * All live rows that satisfy the filter, by ascending id, with their vectors.
 *
 * @throws VectorError query_invalid for a feature without vectors; what reading the vectors throws
 */
export async function vectorTable(
  snapshot: Snapshot,
  filter?: Condition,
  memory: VectorMemory = vectorMemory(),
): Promise<VectorTable> {
  const { dims } = snapshot;
  if (dims === 0) throw new VectorError('query_invalid', 'This feature has no vectors.');
  const selected = selectRows(snapshot, filter).map((bits) => rowsOf(bits));
  const found: { readonly id: string; readonly part: number; readonly n: number }[] = [];
  for (const [part, rows] of selected.entries()) {
    const { segment } = snapshot.parts[part]!;
    for (let n = 0; n < rows.length; n += 1) found.push({ id: segment.id(rows[n]!), part, n });
  }
  found.sort((a, b) => (a.id < b.id ? -1 : 1));
  const places = selected.map((rows) => new Uint32Array(rows.length));
  for (const [i, { part, n }] of found.entries()) places[part]![n] = i;
  const vectors = new Float32Array(found.length * dims);
  for (const [part, rows] of selected.entries()) {
    await snapshot.parts[part]!.segment.vectors!.visit(memory, rows, (values, at, n) => {
      vectors.set(values.subarray(at, at + dims), places[part]![n]! * dims);
    });
  }
  return { ids: found.map(({ id }) => id), vectors, dims };
}

type Comparable = number | string | boolean;

function sortable(value: ColumnValue | undefined): Comparable | undefined {
  const scalar =
    typeof value === 'object' && value !== null ? value.find((element) => element !== null) : value;
  return scalar ?? undefined;
}

const ranks = { number: 0, string: 1, boolean: 2 } as const;

function rankOf(value: Comparable): number {
  return ranks[typeof value as keyof typeof ranks];
}

function compareKeys(a: Comparable | undefined, b: Comparable | undefined, key: SortKey): number {
  if (a === undefined || b === undefined) {
    if (a === b) return 0;
    return (a === undefined) === (key.missing !== 'first') ? 1 : -1;
  }
  const order = rankOf(a) - rankOf(b) || (a < b ? -1 : a > b ? 1 : 0);
  return key.direction === 'asc' ? order : -order;
}
