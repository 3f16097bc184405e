// Exact search: the kernel finds every row that may be among the best, and those few are scored in double precision.
import type { Condition } from '../conditions/condition.ts';
import { andInto, type Bits, countBits, noBits, rowsOf, setBit } from './bits.ts';
import { VectorError } from './errors.ts';
import { CandidateScan } from './kernel/candidate-scan.ts';
import { scorerOf } from './score.ts';
import { segmentBytesTarget } from './segment-format.ts';
import { selectRows } from './select-rows.ts';
import type { Part, Snapshot } from './snapshot.ts';
import { TopK } from './top-k.ts';
import { validateVector } from './vector.ts';
import { type VectorMemory, vectorMemory } from './vector-memory.ts';

/** Most hits of one query. @see api rules, section 12: `top_k` 5,000, doubled for callers that drop some */
export const kMax = 10_000;

/** Queries that share one pass over the rows, so that a row is read from memory once for all of them. */
const queriesPerPass = 16;

/** So small a share of a segment that is not in memory is read row by row. */
const smallShare = 0.02;

/** Segments whose rows are fetched at the same time, while each is asked for so few that they take little memory. */
const partsAtOnce = 16;
const fewRows = 64;

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
  /** Only these parts of the snapshot, by place. @default all */
  readonly parts?: readonly number[] | undefined;
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
  /** Bytes of vectors and codes that were read, each counted once per pass. */
  readonly bytesScanned: number;
  /** Rows that were scored in double precision. */
  readonly reranked: number;
  /** Whether a segment had to be fetched first. */
  readonly cold: boolean;
}

/**
 * Finds the k best rows for each query. Exact under every filter, and the same however rows are spread over
 * segments: rows are ranked by the very score that is given out, then by id.
 *
 * Scores are float64 sums in the pinned order of `dotAt`, over the values as they are stored. A cosine is the inner
 * product times both inverse lengths, cut to -1..1; with a zero vector it is 0. The row's inverse length is rounded to
 * float32, so a cosine is right to about 1e-7. A distance is summed over differences, so equal vectors have exactly 0.
 *
 * The scan itself runs in float32 or over int8 codes and only decides which rows are scored so: those whose score may
 * reach the k-th best, by bounds on the error of that arithmetic. What it leaves out cannot be a hit.
 *
 * @param memory where segments are scanned
 * @throws VectorError query_invalid (k, a feature without vectors), vector_invalid (a query), segment_corrupt,
 *   segment_too_large; and what reading segments throws
 */
export async function search(
  snapshot: Snapshot,
  request: SearchRequest,
  memory: VectorMemory = vectorMemory(),
): Promise<SearchResult> {
  const { k, minScore = Number.NEGATIVE_INFINITY } = request;
  if (!Number.isInteger(k) || k < 1 || k > kMax) {
    throw new VectorError('query_invalid', `k is an integer from 1 to ${kMax}, got ${k}.`);
  }
  if (Number.isNaN(minScore))
    throw new VectorError('query_invalid', 'The lowest score wanted is not a number.');
  if (snapshot.dims === 0)
    throw new VectorError('query_invalid', 'This feature has no vectors to search in.');
  const queries = request.queries.map((query) => validateVector(query, snapshot.dims));
  const selected = selectedParts(snapshot, request);
  const rowsSelected = selected.reduce((sum, { count }) => sum + count, 0);
  // Seen before anything is fetched ahead: the scan finds that in its place.
  const cold = queries.length > 0 && selected.some((one) => isMissing(one, memory));
  const totals = { bytesScanned: 0, reranked: 0, cold };
  const matches: Match[][] = [];
  if (queries.length > 0) prefetch(selected, 0, memory);
  for (let first = 0; first < queries.length; first += queriesPerPass) {
    const block = queries.slice(first, first + queriesPerPass).map((query, i) => ({
      query,
      excluded: excludedRows(snapshot, request.exclude?.[first + i]),
    }));
    const wanted = Math.min(k, Math.max(1, rowsSelected));
    const candidates = await findCandidates(snapshot, selected, block, wanted, minScore, memory, totals);
    const tops = await score(snapshot, candidates, block, wanted, minScore, memory, totals);
    for (const top of tops) {
      matches.push(top.take().map((hit) => ({ id: snapshot.idOf(hit.row), score: hit.score })));
    }
  }
  return { matches, rowsSelected, ...totals };
}

/** Merges the answers of several searches for one query (collections, shards): the k best, ties by ascending id. */
export function mergeMatches(answers: readonly (readonly Match[])[], k: number): Match[] {
  const all = answers.flat();
  all.sort((a, b) => b.score - a.score || (a.id < b.id ? -1 : a.id > b.id ? 1 : 0));
  return all.slice(0, k);
}

interface SelectedPart {
  readonly index: number;
  readonly part: Part;
  /** undefined: all rows of the segment. */
  readonly bits: Bits | undefined;
  readonly count: number;
}

interface Asked {
  readonly query: Float32Array;
  readonly excluded: ReadonlySet<number> | undefined;
}

interface Totals {
  bytesScanned: number;
  reranked: number;
  cold: boolean;
}

/** Rows of one part that must be scored: row of the segment -> bits of the queries that want it. */
type Candidates = ReadonlyMap<number, Map<number, number>>;

async function findCandidates(
  snapshot: Snapshot,
  selected: readonly SelectedPart[],
  block: readonly Asked[],
  k: number,
  minScore: number,
  memory: VectorMemory,
  totals: Totals,
): Promise<Candidates> {
  const found = new Map<number, Map<number, number>>();
  const want = (index: number, row: number, queries: number) => {
    const rows = found.get(index) ?? new Map<number, number>();
    found.set(index, rows);
    rows.set(row, (rows.get(row) ?? 0) | queries);
  };
  const everyQuery = 2 ** block.length - 1;
  const wantAll = ({ index, part, bits }: SelectedPart, queries: number) => {
    if (bits === undefined) for (let row = 0; row < part.segment.rows; row += 1) want(index, row, queries);
    else for (const row of rowsOf(bits)) want(index, row, queries);
  };
  const scanFor = (asked: readonly Asked[]) =>
    new CandidateScan(
      memory.kernel,
      snapshot.metric!,
      snapshot.dims,
      asked.map(({ query }) => query),
      // Excluded rows may be among the best of the scan; they must not push out others.
      asked.map(({ excluded }) => k + (excluded?.size ?? 0)),
      minScore,
    );
  /** Scans one part by its vectors, for some queries. @returns those whose candidates are still too many */
  const findByVectors = async ({ index, part, bits, count }: SelectedPart, queries: readonly number[]) => {
    const vectors = part.segment.vectors!;
    // A scan of its own: the bounds of these rows by their codes are in the other one.
    const again = scanFor(queries.map((q) => block[q]!));
    const complete = await vectors.scan(
      memory,
      (resident, cold) => {
        totals.cold ||= cold;
        totals.bytesScanned += count * vectors.rowBytes;
        return resident === undefined ? [] : again.scan(index, resident, bits);
      },
      'vectors',
    );
    for (const [i, q] of queries.entries()) {
      if (complete[i]) for (const { part: at, row } of again.candidates(i)) want(at, row, 1 << q);
    }
    return queries.filter((_, i) => !complete[i]);
  };
  const scan = scanFor(block);
  for (const [i, one] of selected.entries()) {
    const vectors = one.part.segment.vectors!;
    if (isScoredAtOnce(one, memory)) {
      wantAll(one, everyQuery);
      continue;
    }
    prefetch(selected, i + 1, memory);
    const complete = await vectors.scan(memory, (resident, cold) => {
      totals.cold ||= cold;
      if (resident === undefined) return block.map(() => false);
      totals.bytesScanned += one.count * (vectors.scanBytes / vectors.padRows);
      return scan.scan(one.index, resident, one.bits);
    });
    const open = block.flatMap((_, q) => (complete[q] ? [] : [q]));
    if (open.length === 0) continue;
    // Too many candidates: the codes are too coarse for these vectors. The vectors themselves say more.
    const left = vectors.hasCodes && vectors.vectorsFit(memory) ? await findByVectors(one, open) : open;
    wantAll(
      one,
      left.reduce((bits, q) => bits | (1 << q), 0),
    );
  }
  for (let q = 0; q < block.length; q += 1) {
    for (const { part, row } of scan.candidates(q)) want(part, row, 1 << q);
  }
  return found;
}

async function score(
  snapshot: Snapshot,
  candidates: Candidates,
  block: readonly Asked[],
  k: number,
  minScore: number,
  memory: VectorMemory,
  totals: Totals,
): Promise<TopK[]> {
  const tops = block.map(() => new TopK(k, minScore, (row) => snapshot.idOf(row)));
  const scorers = block.map(({ query }) => scorerOf(snapshot.metric!, query));
  // One segment a search: the others go on being read row by row, which takes one round trip for all of them.
  const budget = { bytes: segmentBytesTarget };
  const scorePart = async ([index, wanted]: readonly [number, Map<number, number>]) => {
    const { segment, firstRow } = snapshot.parts[index]!;
    const rows = Uint32Array.from(wanted.keys()).sort();
    totals.reranked += rows.length;
    totals.bytesScanned += rows.length * segment.vectors!.rowBytes;
    const cold = await segment.vectors!.visit(
      memory,
      rows,
      (values, at, n) => {
        const row = rows[n]!;
        const queries = wanted.get(row)!;
        for (let q = 0; q < block.length; q += 1) {
          if ((queries & (1 << q)) === 0 || block[q]!.excluded?.has(firstRow + row)) continue;
          tops[q]!.offer(scorers[q]!(values, at), firstRow + row);
        }
      },
      budget,
    );
    totals.cold ||= cold;
  };
  // Rows that are not in memory cost a round trip by segment, so segments with few are asked at the same time.
  const parts = [...candidates];
  const few = parts.filter(([, wanted]) => wanted.size <= fewRows);
  for (let i = 0; i < few.length; i += partsAtOnce)
    await Promise.all(few.slice(i, i + partsAtOnce).map(scorePart));
  for (const part of parts) if (part[1].size > fewRows) await scorePart(part);
  return tops;
}

/** Begins to load the next segments while one is scanned, as far as that cannot push out what comes before them. */
function prefetch(selected: readonly SelectedPart[], from: number, memory: VectorMemory): void {
  let bytes = memory.kernel.arenaBytes / 4;
  for (let i = from; i < selected.length; i += 1) {
    const one = selected[i]!;
    const vectors = one.part.segment.vectors!;
    bytes -= vectors.residentBytes;
    if (bytes < 0) return;
    if (isMissing(one, memory)) vectors.prefetch(memory);
  }
}

/** Whether the selected rows of a part are scored without a scan: there are few, or too few to fetch the part for. */
function isScoredAtOnce({ part, count }: SelectedPart, memory: VectorMemory): boolean {
  const { rows, vectors } = part.segment;
  return count <= memory.rowsWithoutScan || (count < rows * smallShare && !vectors!.isResident(memory));
}

/** Whether a scan of the part would have to fetch it first. */
function isMissing(one: SelectedPart, memory: VectorMemory): boolean {
  return !isScoredAtOnce(one, memory) && !one.part.segment.vectors!.isResident(memory);
}

/** Parts with rows to score. */
function selectedParts(snapshot: Snapshot, { filter, include, parts }: SearchRequest): SelectedPart[] {
  const bitmaps = selectRows(snapshot, filter);
  const wanted = include === undefined ? undefined : includedRows(snapshot, include);
  const found: SelectedPart[] = [];
  for (const [index, part] of snapshot.parts.entries()) {
    if (parts !== undefined && !parts.includes(index)) continue;
    const bits = wanted === undefined ? bitmaps[index]! : andInto(wanted[index]!, bitmaps[index]!);
    const count = countBits(bits);
    if (count > 0) found.push({ index, part, bits: count === part.segment.rows ? undefined : bits, count });
  }
  return found;
}

function includedRows(snapshot: Snapshot, include: readonly string[]): Bits[] {
  const wanted: Bits[] = snapshot.parts.map(({ segment }) => noBits(segment.rows));
  for (const id of include) {
    const row = snapshot.rowOf(id);
    if (row === undefined) continue;
    const part = snapshot.partOf(row);
    setBit(wanted[snapshot.parts.indexOf(part)]!, row - part.firstRow);
  }
  return wanted;
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
