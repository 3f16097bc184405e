// Exact search: every live row that the filter selects is scored, for many queries in one pass.
import type { Condition } from '../conditions/condition.ts';
import { andInto, type Bits, noBits, rowsOf, setBit } from './bits.ts';
import { VectorError } from './errors.ts';
import { selectRows } from './select-rows.ts';
import type { Part, Snapshot } from './snapshot.ts';
import { TopK } from './top-k.ts';
import { dotAt, inverseNorm, squaredDistanceAt, squaredNormAt, validateVector } from './vector.ts';

/** Most hits of one query. @see api rules, section 12: `top_k` 5,000, doubled for callers that drop some */
export const kMax = 10_000;

/** Queries that share one pass over the rows, so that a row is read from memory once for all of them. */
const queriesPerPass = 16;

export interface SearchRequest {
  /** Each with as many values as the feature has dimensions, finite; any length, also zero. */
  readonly queries: readonly (Float32Array | readonly number[])[];
  /** Hits wanted per query, 1 to 10,000. */
  readonly k: number;
  readonly filter?: Condition | undefined;
  /** Only these ids can be hits. */
  readonly include?: readonly string[] | undefined;
  /** By query: ids that must not be hits, such as the document that asks. They take no place among the k. */
  readonly exclude?: readonly (string | readonly string[] | undefined)[] | undefined;
  /** Hits with a lower score are left out. */
  readonly minScore?: number | undefined;
}

export interface Match {
  readonly id: string;
  /** cosine: similarity from -1 to 1; dot: inner product; euclid: negative squared distance. Higher is better. */
  readonly score: number;
}

export interface SearchResult {
  /** By query, best first, ties by ascending id. Fewer than k if fewer rows qualify. */
  readonly matches: Match[][];
  /** Live rows that the filter and `include` let through. */
  readonly rowsSelected: number;
  /** Vector bytes that were read, each counted once per pass. */
  readonly bytesScanned: number;
}

/**
 * Finds the k best rows for each query. Exact under every filter, and the same however rows are spread over
 * segments: rows are ranked by the very score that is given out, then by id.
 *
 * Scores are float64 sums in the pinned order of `dotAt`. A cosine is the inner product times both inverse lengths,
 * cut to -1..1; with a zero vector it is 0. The row's inverse length is stored as float32, so a cosine is right to
 * about 1e-7. A distance is summed over differences, so equal vectors have exactly 0.
 *
 * @throws VectorError query_invalid (k, a feature without vectors), vector_invalid (a query)
 */
export function search(snapshot: Snapshot, request: SearchRequest): SearchResult {
  const { k, minScore = Number.NEGATIVE_INFINITY } = request;
  if (!Number.isInteger(k) || k < 1 || k > kMax) {
    throw new VectorError('query_invalid', `k is an integer from 1 to ${kMax}, got ${k}.`);
  }
  if (Number.isNaN(minScore))
    throw new VectorError('query_invalid', 'The lowest score wanted is not a number.');
  if (snapshot.dims === 0)
    throw new VectorError('query_invalid', 'This feature has no vectors to search in.');
  const queries = request.queries.map((query) => validateVector(query, snapshot.dims));
  const selected = selectedRows(snapshot, request);
  const rowsSelected = selected.reduce((sum, rows) => sum + rows.length, 0);
  const matches: Match[][] = [];
  let bytesScanned = 0;
  for (let first = 0; first < queries.length; first += queriesPerPass) {
    const tops = queries.slice(first, first + queriesPerPass).map((_, i) => {
      const excluded = excludedRows(snapshot, request.exclude?.[first + i]);
      return {
        top: new TopK(Math.min(k, Math.max(1, rowsSelected)), minScore, (row) => snapshot.idOf(row)),
        excluded,
      };
    });
    const block = queries.slice(first, first + queriesPerPass);
    for (const [i, part] of snapshot.parts.entries()) {
      const rows = selected[i]!;
      if (rows.length === 0) continue;
      scan(snapshot, part, rows, block, tops);
      bytesScanned += rows.length * part.segment.padDims * 4;
    }
    for (const { top } of tops) {
      matches.push(top.take().map(({ row, score }) => ({ id: snapshot.idOf(row), score })));
    }
  }
  return { matches, rowsSelected, bytesScanned };
}

/** Merges the answers of several searches for one query (collections, shards): the k best, ties by ascending id. */
export function mergeMatches(answers: readonly (readonly Match[])[], k: number): Match[] {
  const all = answers.flat();
  all.sort((a, b) => b.score - a.score || (a.id < b.id ? -1 : a.id > b.id ? 1 : 0));
  return all.slice(0, k);
}

interface Collector {
  readonly top: TopK;
  readonly excluded: ReadonlySet<number> | undefined;
}

function scan(
  snapshot: Snapshot,
  part: Part,
  rows: Uint32Array,
  queries: readonly Float32Array[],
  collectors: readonly Collector[],
): void {
  const { segment, firstRow } = part;
  const { vectors, padDims } = segment;
  const block = new Float64Array(queries.length * padDims);
  for (const [i, query] of queries.entries()) block.set(query, i * padDims);
  const offer = ({ top, excluded }: Collector, score: number, row: number): void => {
    if (excluded?.has(row) !== true) top.offer(score, row);
  };

  if (snapshot.metric === 'cosine') {
    const rowFactors = segment.inverseNorms();
    const queryFactors = queries.map((query) => inverseNorm(squaredNorm(query, padDims)));
    for (let n = 0; n < rows.length; n += 1) {
      const row = rows[n]!;
      const factor = rowFactors[row]!;
      for (let q = 0; q < collectors.length; q += 1) {
        const product = dotAt(block, q * padDims, vectors, row * padDims, padDims);
        // Cut before ranking: rounding must not put one of two equal directions above the other.
        const score = Math.max(-1, Math.min(1, product * factor * queryFactors[q]!)) + 0;
        const collector = collectors[q]!;
        if (score >= collector.top.floor) offer(collector, score, firstRow + row);
      }
    }
  } else if (snapshot.metric === 'dot') {
    for (let n = 0; n < rows.length; n += 1) {
      const row = rows[n]!;
      for (let q = 0; q < collectors.length; q += 1) {
        const score = dotAt(block, q * padDims, vectors, row * padDims, padDims);
        const collector = collectors[q]!;
        if (score >= collector.top.floor) offer(collector, score, firstRow + row);
      }
    }
  } else {
    for (let n = 0; n < rows.length; n += 1) {
      const row = rows[n]!;
      for (let q = 0; q < collectors.length; q += 1) {
        // 0 minus, so that an equal vector has the score 0 and not -0.
        const score = 0 - squaredDistanceAt(block, q * padDims, vectors, row * padDims, padDims);
        const collector = collectors[q]!;
        if (score >= collector.top.floor) offer(collector, score, firstRow + row);
      }
    }
  }
}

function squaredNorm(query: Float32Array, padDims: number): number {
  const padded = new Float32Array(padDims);
  padded.set(query);
  return squaredNormAt(padded, 0, padDims);
}

/** By part, the rows of its segment to score, ascending. */
function selectedRows(snapshot: Snapshot, { filter, include }: SearchRequest): Uint32Array[] {
  if (filter === undefined && include === undefined)
    return snapshot.parts.map((_, i) => snapshot.liveRowsOf(i));
  const selected = selectRows(snapshot, filter);
  if (include === undefined) return selected.map((bits) => rowsOf(bits));
  const wanted: Bits[] = snapshot.parts.map(({ segment }) => noBits(segment.rows));
  for (const id of include) {
    const row = snapshot.rowOf(id);
    if (row === undefined) continue;
    const part = snapshot.partOf(row);
    setBit(wanted[snapshot.parts.indexOf(part)]!, row - part.firstRow);
  }
  return wanted.map((bits, i) => rowsOf(andInto(bits, selected[i]!)));
}

function excludedRows(
  snapshot: Snapshot,
  exclude: string | readonly string[] | undefined,
): ReadonlySet<number> | undefined {
  if (exclude === undefined) return undefined;
  const rows = new Set<number>();
  for (const id of typeof exclude === 'string' ? [exclude] : exclude) {
    const row = snapshot.rowOf(id);
    if (row !== undefined) rows.add(row);
  }
  return rows.size === 0 ? undefined : rows;
}
