// Facets and distinct values: which values a field has over the filtered rows, and how many documents hold each.
import type { Condition } from '../conditions/condition.ts';
import { canonicalField, type Scalar } from '../conditions/field.ts';
import { parse } from '../conditions/parse.ts';
import { type Bits, clearBit, countBits, hasBit } from './bits.ts';
import { distinctOf } from './column-codec.ts';
import { VectorError } from './errors.ts';
import { selectRows } from './select-rows.ts';
import type { Snapshot } from './snapshot.ts';
import { compareScalars } from './value-order.ts';

/** A value and the number of documents that hold it. */
export interface ValueCount {
  readonly value: Scalar;
  readonly count: number;
}

/** What one field holds over some rows. */
export interface ValueTally {
  /**
   * By value, how many rows hold it. Null is a value; a list counts once for each of its distinct elements, and an
   * empty list for none.
   */
  readonly counts: ReadonlyMap<Scalar, number>;
  /** Rows that do not have the field. */
  readonly missing: number;
  /** Rows that were looked at. */
  readonly rows: number;
}

export interface FacetField {
  /** `metadata.x`, `payload.x` and `x` are the same. */
  readonly key: string;
  /** Values wanted, from 1. */
  readonly limit: number;
}

export interface Facet {
  /** As it was asked for. */
  readonly key: string;
  /** Most frequent first; of equal counts numbers, texts, booleans, null, each ascending (texts by UTF-16 units). */
  readonly values: ValueCount[];
  /** Documents that do not have the field. Those that hold null are counted under the value null. */
  readonly missing_count: number;
  /** Distinct values in all, null among them. */
  readonly total_values: number;
}

/**
 * Counts the values of a field over some live rows, patches applied. Where a segment has a dictionary, codes are
 * counted and each value is looked up once.
 *
 * @param selected one bitmap per part, as `selectRows` gives them
 * @throws VectorError segment_corrupt if the column cannot be opened
 */
export function tallyValues(snapshot: Snapshot, field: string, selected: readonly Bits[]): ValueTally {
  const name = canonicalField(field);
  const counts = new Map<Scalar, number>();
  const add = (value: Scalar, rows: number) => {
    counts.set(value, (counts.get(value) ?? 0) + rows);
  };
  const { unpatched, missing: cleared } = tallyPatches(snapshot, name, selected, add);
  let missing = cleared;
  let rows = 0;
  for (const [i, { segment }] of snapshot.parts.entries()) {
    rows += countBits(selected[i]!);
    const bits = unpatched[i]!;
    const column = segment.column(name);
    if (column === undefined) {
      missing += countBits(bits);
      continue;
    }
    if (column.missing !== undefined) missing += countCommon(bits, column.missing);
    column.tally(bits, add);
  }
  return { counts, missing, rows };
}

/** Counts the values that patches set, and gives the rows that they did not touch. */
function tallyPatches(
  snapshot: Snapshot,
  name: string,
  selected: readonly Bits[],
  add: (value: Scalar, rows: number) => void,
): { unpatched: readonly Bits[]; missing: number } {
  const patched = snapshot.patches.get(name);
  if (patched === undefined) return { unpatched: selected, missing: 0 };
  const unpatched = selected.map((bits) => bits.slice());
  const placeOf = new Map(snapshot.parts.map((part, i) => [part, i]));
  let missing = 0;
  for (const [row, value] of patched) {
    const part = snapshot.partOf(row);
    const bits = unpatched[placeOf.get(part)!]!;
    const local = row - part.firstRow;
    if (!hasBit(bits, local)) continue;
    clearBit(bits, local);
    if (value === undefined) missing += 1;
    else for (const scalar of distinctOf(value)) add(scalar, 1);
  }
  return { unpatched, missing };
}

function countCommon(a: Bits, b: Bits): number {
  return countBits(a.map((word, i) => word & b[i]!));
}

/** Several tallies of one field as one: of the collections that a search covers. */
export function mergeTallies(tallies: readonly ValueTally[]): ValueTally {
  const [first] = tallies;
  if (first !== undefined && tallies.length === 1) return first;
  const counts = new Map<Scalar, number>();
  let missing = 0;
  let rows = 0;
  for (const tally of tallies) {
    for (const [value, count] of tally.counts) counts.set(value, (counts.get(value) ?? 0) + count);
    missing += tally.missing;
    rows += tally.rows;
  }
  return { counts, missing, rows };
}

/** The facet of a tally: its most frequent values. */
export function facetOf({ key, limit }: FacetField, { counts, missing }: ValueTally): Facet {
  return {
    key,
    values: firstOf(entriesOf(counts), limit, byCount),
    missing_count: missing,
    total_values: counts.size,
  };
}

/**
 * Facets over the rows that a filter lets through, all of them and exactly.
 *
 * @throws VectorError query_invalid, segment_corrupt
 */
export function facets(
  snapshot: Snapshot,
  request: { readonly fields: readonly FacetField[]; readonly filter?: Condition | undefined },
): Facet[] {
  for (const { limit } of request.fields) checkCount('limit', limit);
  const selected = selectRows(snapshot, request.filter);
  return request.fields.map((field) => facetOf(field, tallyValues(snapshot, field.key, selected)));
}

export interface DistinctRequest {
  /** `metadata.x`, `payload.x` and `x` are the same. */
  readonly field: string;
  readonly filter?: Condition | undefined;
  /** Only texts that begin so. @default every value */
  readonly prefix?: string | undefined;
  /** Whether letter case counts in `prefix`. @default false */
  readonly caseSensitive?: boolean | undefined;
  /** `value`: numbers, texts, booleans, null, each ascending; `count`: most frequent first. @default 'value' */
  readonly order?: 'value' | 'count' | undefined;
  readonly limit: number;
  readonly offset: number;
}

export interface DistinctValues {
  readonly values: ValueCount[];
  /** How many distinct values there are in all (with `prefix`: that begin so). */
  readonly total: number;
  /** Documents that pass the filter and do not have the field. */
  readonly missing_count: number;
}

/**
 * The distinct values of a field over the rows that a filter lets through, a page of them, with an exact total.
 *
 * @throws VectorError query_invalid, segment_corrupt
 */
export function distinct(snapshot: Snapshot, request: DistinctRequest): DistinctValues {
  const { field, filter, prefix = '', caseSensitive = false, order = 'value', limit, offset } = request;
  checkCount('limit', limit);
  checkCount('offset', offset);
  const tally = tallyValues(snapshot, field, selectRows(snapshot, filter));
  let found = entriesOf(tally.counts);
  if (prefix !== '') {
    const begins = prefixTest(prefix, caseSensitive);
    found = found.filter(({ value }) => begins(value));
  }
  const page = firstOf(found, offset + limit, order === 'count' ? byCount : byValue).slice(offset);
  return { values: page, total: found.length, missing_count: tally.missing };
}

/** The meaning of `starts_with` in filters, so that a value that is found can be filtered for. */
function prefixTest(prefix: string, caseSensitive: boolean): (value: Scalar) => boolean {
  const condition = parse({ field: 'x', operator: 'starts_with', value: prefix }, { caseSensitive });
  if (condition.kind !== 'compare') throw new Error('starts_with is a comparison');
  return condition.test;
}

function checkCount(name: string, count: number): void {
  if (Number.isSafeInteger(count) && count >= 0) return;
  throw new VectorError('query_invalid', `The ${name} is a whole number from 0, got ${count}.`);
}

function entriesOf(counts: ReadonlyMap<Scalar, number>): ValueCount[] {
  return Array.from(counts, ([value, count]) => ({ value, count }));
}

const byValue = (a: ValueCount, b: ValueCount) => compareScalars(a.value, b.value);
const byCount = (a: ValueCount, b: ValueCount) => b.count - a.count || byValue(a, b);

/** The first `n` in order. Of many, most are turned away by one comparison with the last that is kept. */
function firstOf<T>(all: readonly T[], n: number, compare: (a: T, b: T) => number): T[] {
  if (n * 8 >= all.length) return all.toSorted(compare).slice(0, n);
  let kept: T[] = [];
  let last: T | undefined;
  for (const entry of all) {
    if (last !== undefined && compare(entry, last) >= 0) continue;
    kept.push(entry);
    if (kept.length < 2 * n) continue;
    kept = kept.sort(compare).slice(0, n);
    last = kept.at(-1);
  }
  return kept.sort(compare).slice(0, n);
}
