// Finds, by kernel, every row that can be among the k best of a search: a filter with a proven error bound.
//
// The final score of a row is a float64 sum that the caller computes (functions/core/vectors/search.ts). The kernel
// knows it only up to an error, so it gives an interval [L, U] that surely contains it. The k-th largest L over the
// rows is tau: a row with U < tau scores strictly less than k others, whatever the errors were, and can be left out.
// The rows that stay are scored by the caller, so the answer, ties included, is that of a full float64 scan.
//
// L and U are "keys", which grow with the score: cosine a (q.x) with the stored inverse norm a, dot q.x,
// euclid 2 q.x - |x|^2. For cosine and dot the query is first multiplied by a power of two, which is exact, so that
// 1 <= |q| < 2: nothing can overflow then. Let X bound the row norms, u = 2^-24.
//
// float32 and bfloat16 rows. A lane adds at most padDims/4 products of float32, then two more additions join the
// lanes: the sum is off by at most g |q| |x| with g = m u / (1 - m u), m = padDims/4 + 8 (the usual bound for sums of
// products, Higham, Accuracy and Stability of Numerical Algorithms, section 3.1). Products below float32's range lose
// at most 2^-150 each: row norms are at least 2^-40, so `slack` covers them.
//
// float32 and bfloat16 rows, several queries. Rows and queries become int16 of length N = 32,000 for the time of the
// pass: c = round(f x) with f = N / |x|, e = round(q / t) with t = |q| / N. A product then costs half as much, and
// |c||e| < 2^31 bounds every partial sum (Cauchy and Schwarz), so int32 is exact. Each place of f x - c is at most 0.502
// (assembly/stage.ts), so with r = 0.502 sqrt(dims), delta = |q - t e| and s = 1/f, float32, the same inequality as for
// codes gives |q.x - s t (c.e)| <= s (|q| r + delta (N + r)), plus 2^-23 of |q|(N + r) s for the rounding of s. Where
// that is too wide, rows that differ little lie far from the origin, each query is tried again by itself.
//
// int8 rows: see codes.ts. The rounding of s t (c.e) and of the rotation, both float64, is far below `slack`.
//
// slack = 1e-9 (of |q||x|) covers all float64 roundings, here and in the final score: those are below
// (4,096 + 10) 2^-53 = 5e-13. Since it is wider than they are, L of one row above U of another means that the first
// row's *final* score is strictly larger. Only cosine's cut to -1..1 could make it equal after all: so L is cut to
// |q| (1 - slack) and U to the negative of that, and rows at either end are never told apart.
//
// Coarse comparison. Most rows are far below tau. Four at a time are compared in float32 with a key that is surely not
// below U - C, with a constant C: for codes it takes rho <= h s, h = sqrt(padDims)/2, instead of reading rho and |x^|.
// Rows that pass get the closer look, in float64 with their own numbers.
import { type Bits, countBits } from '../bits.ts';
import type { Metric } from '../vector.ts';
import { encodeQuery, encodeQueryOfNorm, type QueryCode, roundUp } from './codes.ts';
import type { Kernel, KernelTenant } from './kernel.ts';
import type { ResidentRows } from './resident.ts';
import { Rotation } from './rotation.ts';

export interface Candidate {
  readonly part: number;
  readonly row: number;
}

const metricNumbers: Readonly<Record<Metric, number>> = { cosine: 0, dot: 1, euclid: 2 };
const dtypeNumbers = { f32: 0, bf16: 1, i8: 2 } as const;
type Dtype = keyof typeof dtypeNumbers;

/** Share of |q||x| that covers float64 rounding everywhere. */
const slack = 1e-9;
/** Share of the largest possible key that the coarse comparison may be off by: at most six roundings of 2^-24. */
const coarseShare = 2 ** -21;
/** Longer queries are not scaled down under euclid, and would leave float32's range. */
const euclidNormMax = 2 ** 60;
/** Above this share of selected rows a full scan is faster than a list of rows. */
const fullScanShare = 0.35;
/** More candidates than this share of the rows, and a scan of the vectors costs no more. */
const candidateShareMax = 0.05;
/** So many are never too many: besides the k wanted, those that are collected before tau has grown. */
const candidatesAlways = (k: number): number => 4 * k + 1_024;
/** Stands for plus infinity, with which the kernel cannot calculate. */
const keyMax = 1e300;

interface Query {
  /** Times a power of two (cosine, dot). */
  readonly values: Float64Array;
  readonly norm: number;
  /** The kernel cannot hold it: its candidates are never complete. */
  readonly beyondKernel: boolean;
  readonly k: number;
  readonly minKey: number;
}

/** One search's pass over the rows of any number of parts. Scans of other searches may come between. */
export class CandidateScan implements KernelTenant {
  readonly #kernel: Kernel;
  readonly #metric: Metric;
  readonly #dims: number;
  readonly #queries: readonly Query[];
  readonly #view: DataView;
  /** Query codes by rotation seed. */
  readonly #codes = new Map<number | null, readonly QueryCode[]>();
  /** Query codes for vectors that are staged. */
  #staged: readonly QueryCode[] | undefined;
  /** Copies of state, heap and candidates while another scan uses the scratch space. */
  #saved: readonly Saved[] | undefined;

  /**
   * @param queries 1 to 16, of `dims` finite values
   * @param k by query, how many best rows are wanted; above 20,480 no row can be ruled out
   * @param minScore rows that score less are not wanted, in units of the final score
   */
  constructor(
    kernel: Kernel,
    metric: Metric,
    dims: number,
    queries: readonly Float32Array[],
    k: readonly number[],
    minScore: number,
  ) {
    const { QUERIES_MAX: queriesMax } = kernel.run.layout;
    if (queries.length < 1 || queries.length > queriesMax || k.length !== queries.length) {
      throw new RangeError(
        `A scan has 1 to ${queriesMax} queries, each with its k; got ${queries.length} and ${k.length}.`,
      );
    }
    this.#kernel = kernel;
    this.#metric = metric;
    this.#dims = dims;
    this.#view = new DataView(kernel.bytes.buffer);
    this.#queries = queries.map((values, i) => prepare(metric, dims, values, k[i]!, minScore));
  }

  /**
   * Scans one part: by codes where there are some, else by vectors.
   *
   * @param part a number that `candidates` gives back with the rows
   * @param selected bitmap over the rows, undefined for all
   * @returns by query: whether its candidates of this part are complete. If not, there were too many to be worth it:
   *   every selected row of the part must be scored
   */
  scan(part: number, rows: ResidentRows, selected: Bits | undefined): readonly boolean[] {
    if (rows.dims !== this.#dims || rows.metric !== this.#metric) {
      throw new RangeError(
        `A scan of ${this.#dims} dimensions by ${this.#metric} was given rows of ${rows.dims} by ${rows.metric}.`,
      );
    }
    this.#enter();
    const { layout } = this.#kernel.run;
    const count = selected === undefined ? rows.rows : countBits(selected);
    for (const [q, { k, beyondKernel }] of this.#queries.entries()) {
      const state = this.#stateOf(q);
      const limit = Math.max(candidatesAlways(k), Math.ceil(count * candidateShareMax));
      this.#set(state + layout.Q_LIMIT, Math.min(limit, layout.CANDIDATES_MAX));
      this.#set(state + layout.Q_PART_START, this.#get(state + layout.Q_COUNT));
      this.#set(state + layout.Q_OVERFLOWN, beyondKernel ? 1 : 0);
    }
    if (count > 0) {
      const many = this.#queries.length > 1;
      const { codes, vectors } = rows;
      if (codes === undefined && vectors === undefined) {
        throw new RangeError('Rows without codes and without vectors cannot be scanned.');
      }
      // What is rougher than float32 dots gives up more often; then those have a go, where there are vectors.
      const rough = codes !== undefined || many;
      const before = rough && vectors !== undefined ? this.#queries.map((_, q) => this.#save(q)) : undefined;
      if (codes !== undefined) this.#scanCodes(part, rows, selected);
      else if (many) this.#scanStaged(part, rows, selected);
      else this.#scanFloats(part, rows, selected, 0);
      for (const [q, { norm, beyondKernel }] of this.#queries.entries()) {
        // With a zero query all scores are equal, to whatever precision.
        if (before === undefined || !this.#isOverflown(q) || beyondKernel || norm === 0) continue;
        this.#restore(q, before[q]!);
        this.#scanFloats(part, rows, selected, q);
      }
    }
    return this.#queries.map((_, q) => !this.#isOverflown(q));
  }

  /**
   * Rows of all complete parts whose upper bound reaches the k-th best lower bound; call after the last scan.
   *
   * @returns in no particular order of rows within a part, parts in the order of their scans
   */
  candidates(query: number): readonly Candidate[] {
    this.#enter();
    const { run } = this.#kernel;
    const { layout } = run;
    const count = run.compact(query);
    let at = layout.CANDIDATES_AT + query * layout.CANDIDATE_LIST_BYTES;
    const found: Candidate[] = new Array(count);
    for (let i = 0; i < count; i += 1, at += layout.CANDIDATE_BYTES) {
      found[i] = { row: this.#view.getUint32(at + 8, true), part: this.#view.getUint32(at + 12, true) };
    }
    return found;
  }

  leave(): void {
    this.#saved = this.#queries.map((_, q) => this.#save(q));
  }

  /** Takes possession of the scratch space. */
  #enter(): void {
    const kernel = this.#kernel;
    if (kernel.tenant === this) return;
    kernel.tenant?.leave();
    kernel.tenant = this;
    const { layout } = kernel.run;
    for (const [q, query] of this.#queries.entries()) {
      if (this.#saved !== undefined) {
        this.#restore(q, this.#saved[q]!);
        continue;
      }
      const state = this.#stateOf(q);
      kernel.bytes.fill(0, state, state + layout.QUERY_BYTES);
      // A heap that cannot hold k rules nothing out: without one, tau stays where it began.
      this.#set(state + layout.Q_K, query.k > layout.HEAP_MAX ? 0 : query.k);
      this.#view.setFloat64(state + layout.Q_TAU, query.minKey, true);
    }
    this.#saved = undefined;
  }

  #save(query: number): Saved {
    const { bytes, run } = this.#kernel;
    const { layout } = run;
    const state = this.#stateOf(query);
    const heapAt = layout.HEAPS_AT + query * layout.HEAP_BYTES;
    const listAt = layout.CANDIDATES_AT + query * layout.CANDIDATE_LIST_BYTES;
    return {
      state: bytes.slice(state, state + layout.QUERY_BYTES),
      heap: bytes.slice(heapAt, heapAt + this.#get(state + layout.Q_HEAP_SIZE) * 8),
      list: bytes.slice(listAt, listAt + this.#get(state + layout.Q_COUNT) * layout.CANDIDATE_BYTES),
    };
  }

  #restore(query: number, saved: Saved): void {
    const { bytes, run } = this.#kernel;
    const { layout } = run;
    bytes.set(saved.state, this.#stateOf(query));
    bytes.set(saved.heap, layout.HEAPS_AT + query * layout.HEAP_BYTES);
    bytes.set(saved.list, layout.CANDIDATES_AT + query * layout.CANDIDATE_LIST_BYTES);
  }

  #get(at: number): number {
    return this.#view.getUint32(at, true);
  }

  #set(at: number, value: number): void {
    this.#view.setUint32(at, value, true);
  }

  #isOverflown(query: number): boolean {
    return this.#get(this.#stateOf(query) + this.#kernel.run.layout.Q_OVERFLOWN) !== 0;
  }

  #stateOf(query: number): number {
    const { layout } = this.#kernel.run;
    return layout.STATE_AT + query * layout.QUERY_BYTES;
  }

  /** Scans by codes, all queries at once. */
  #scanCodes(part: number, rows: ResidentRows, selected: Bits | undefined): void {
    const { padDims } = rows;
    const { at, scales, residuals, norms, rotationSeed } = rows.codes!;
    this.#setRows(part, rows, 'i8', at, scales, residuals, norms);
    const codes = this.#codesFor(rotationSeed, padDims);
    this.#uploadIntegers(codes, padDims, undefined);
    const h = (Math.sqrt(padDims) / 2) * nudge;
    for (const [q, { norm }] of this.#queries.entries()) {
      const { step, residual } = codes[q]!;
      const perResidual = norm * (1 + slack) * nudge;
      const perNorm = residual + norm * slack;
      this.#setIntegerBounds(q, rows, {
        step,
        perResidual,
        perNorm,
        perScale: (perResidual + perNorm) * h,
        // Scale times h, at most 1/127 of the row's norm times h, bounds rho.
        range: (norm + residual) * (1 + (3 * h) / 127),
      });
    }
    this.#run(rows, selected, 0, this.#queries.length);
  }

  /** Scans vectors for all queries at once, by way of int16. */
  #scanStaged(part: number, rows: ResidentRows, selected: Bits | undefined): void {
    const { padDims, dims } = rows;
    const { at, dtype } = rows.vectors!;
    const { layout } = this.#kernel.run;
    this.#setRows(part, rows, dtype, at, 0, 0, 0);
    this.#staged ??= this.#queries.map(({ values, beyondKernel }) => {
      const padded = new Float64Array(padDims);
      if (!beyondKernel) padded.set(values);
      return encodeQueryOfNorm(padded, layout.STAGE_NORM);
    });
    this.#uploadIntegers(this.#staged, padDims, dtype === 'f32' ? stagedPlace : undefined);
    const r = 0.502 * Math.sqrt(dims);
    const longest = layout.STAGE_NORM * (1 + 2 ** -13);
    for (const [q, { norm }] of this.#queries.entries()) {
      const { step, residual } = this.#staged[q]!;
      const rounding = 2 ** -23 * (norm + residual) + slack * norm;
      const perScale = (norm * r + (residual + rounding) * (longest + r)) * nudge;
      this.#setIntegerBounds(q, rows, {
        step,
        perResidual: perScale,
        perNorm: 0,
        perScale,
        range: (norm + residual) * (1 + (3 * r) / layout.STAGE_NORM),
      });
    }
    this.#run(rows, selected, 0, this.#queries.length);
  }

  /** Scans vectors for the query in place `q`. */
  #scanFloats(part: number, rows: ResidentRows, selected: Bits | undefined, q: number): void {
    const { padDims, normMax } = rows;
    const { at, dtype } = rows.vectors!;
    const { layout } = this.#kernel.run;
    this.#setRows(part, rows, dtype, at, 0, 0, 0);
    const { values, norm } = this.#queries[q]!;
    const block = new Float32Array(this.#kernel.bytes.buffer, layout.FLOATS_AT + q * padDims * 4, padDims);
    block.fill(0);
    for (let j = 0; j < values.length; j += 1) block[dtype === 'bf16' ? bf16Place(j) : j] = values[j]!;
    const m = padDims / 4 + 8;
    const g = (m * 2 ** -24) / (1 - m * 2 ** -24);
    const share = g * nudge + slack;
    const longest = normMax * nudge;
    if (this.#metric === 'cosine') {
      const e0 = norm * share * nudge;
      this.#setBounds(q, { e0, coarseSlack: e0 + 2 * norm * coarseShare });
    } else if (this.#metric === 'dot') {
      const e0 = norm * longest * share;
      this.#setBounds(q, { e0, coarseSlack: e0 });
    } else {
      const e0 = 2 * slack * norm * norm;
      const e1 = 2 * norm * share;
      const keyRange = 2 * norm * longest + longest * longest;
      const coarseSlack = e0 + (e1 + auxShare * longest) * longest + coarseShare * keyRange;
      this.#setBounds(q, { e0, e1, e2: auxShare, coarseSlack });
    }
    this.#run(rows, selected, q, 1);
  }

  #setRows(
    part: number,
    { rows, padDims, metric, aux }: ResidentRows,
    dtype: Dtype,
    at: number,
    scales: number,
    residuals: number,
    norms: number,
  ): void {
    const { run } = this.#kernel;
    run.setRows(
      dtypeNumbers[dtype],
      metricNumbers[metric],
      rows,
      padDims,
      part,
      at,
      aux,
      scales,
      residuals,
      norms,
    );
  }

  /** Walks over the rows, with one query that in place `query`, else with the first `queries`. */
  #run({ rows, padRows }: ResidentRows, selected: Bits | undefined, query: number, queries: number): void {
    const { run, bytes } = this.#kernel;
    const { layout } = run;
    for (let q = query; q < query + queries; q += 1) run.refresh(q);
    for (let first = 0; first < padRows; first += layout.WINDOW_ROWS) {
      const length = Math.min(layout.WINDOW_ROWS, padRows - first);
      if (selected === undefined) {
        run.scanRange(first, length, query, queries, 0);
        continue;
      }
      const words = selected.subarray(first / 32, Math.ceil(Math.min(rows, first + length) / 32));
      bytes.set(new Uint8Array(words.buffer, words.byteOffset, words.byteLength), layout.BITMAP_AT);
      const chosen = countBits(words);
      if (chosen > fullScanShare * length) run.scanRange(first, length, query, queries, 1);
      else if (chosen > 0) run.scanList(run.listRows(first, words.length), query, queries);
    }
  }

  /** Puts query codes down, padded to a multiple of four queries, which share the loading of a row. */
  #uploadIntegers(
    codes: readonly QueryCode[],
    padDims: number,
    place: ((j: number) => number) | undefined,
  ): void {
    const { bytes, run } = this.#kernel;
    const places = codes.length === 1 ? 1 : Math.ceil(codes.length / 4) * 4;
    const block = new Int16Array(bytes.buffer, run.layout.INTEGERS_AT, places * padDims).fill(0);
    for (const [q, { values }] of codes.entries()) {
      if (place === undefined) block.set(values, q * padDims);
      else for (let j = 0; j < padDims; j += 1) block[q * padDims + place(j)] = values[j]!;
    }
  }

  #setIntegerBounds(q: number, { normMax }: ResidentRows, bounds: IntegerBounds): void {
    const { norm } = this.#queries[q]!;
    const { step, perResidual, perNorm, perScale, range } = bounds;
    // The norm of a row, or that times the inverse norm, which cosine has in its key.
    const longest = (this.#metric === 'cosine' ? 1 : normMax) * nudge;
    const keyRange = range * longest;
    const coarseAdd = roundUp(perScale / step);
    if (this.#metric === 'euclid') {
      const e0 = 2 * slack * norm * norm;
      const coarseSlack =
        e0 +
        (2 * perNorm + auxShare * longest) * longest +
        2 * coarseShare * (2 * keyRange + longest * longest);
      const doubled = { perResidual: 2 * perResidual, perNorm: 2 * perNorm };
      this.#setBounds(q, { e0, e2: auxShare, ...doubled, step, coarseAdd, coarseSlack });
    } else {
      const coarseSlack = (perNorm * longest + 2 * coarseShare * keyRange) / step;
      this.#setBounds(q, {
        e0: 0,
        perResidual,
        perNorm,
        step,
        coarseAdd,
        coarseFactor: 1 / step,
        coarseSlack,
      });
    }
  }

  #codesFor(seed: number | null, padDims: number): readonly QueryCode[] {
    const known = this.#codes.get(seed);
    if (known !== undefined) return known;
    const rotation = seed === null ? undefined : new Rotation(seed, padDims);
    const codes = this.#queries.map(({ values, beyondKernel }) => {
      const row = new Float64Array(padDims);
      if (!beyondKernel) row.set(values);
      rotation?.apply(row);
      return encodeQuery(row);
    });
    this.#codes.set(seed, codes);
    return codes;
  }

  #setBounds(query: number, bounds: Bounds): void {
    const { layout } = this.#kernel.run;
    const state = this.#stateOf(query);
    const set = (offset: number, value: number): void => this.#view.setFloat64(state + offset, value, true);
    set(layout.Q_E0, bounds.e0);
    set(layout.Q_E1, bounds.e1 ?? 0);
    set(layout.Q_E2, bounds.e2 ?? 0);
    set(
      layout.Q_CAP,
      this.#metric === 'cosine' ? this.#queries[query]!.norm * (1 - slack) : Number.POSITIVE_INFINITY,
    );
    set(layout.Q_COARSE_FACTOR, bounds.coarseFactor ?? 1);
    set(layout.Q_COARSE_SLACK, bounds.coarseSlack);
    set(layout.Q_STEP, bounds.step ?? 0);
    set(layout.Q_PER_RESIDUAL, bounds.perResidual ?? 0);
    set(layout.Q_PER_NORM, bounds.perNorm ?? 0);
    this.#view.setFloat32(state + layout.Q_COARSE_ADD, bounds.coarseAdd ?? 0, true);
    this.#view.setFloat32(state + layout.Q_COARSE_STEP, 2 * (bounds.step ?? 0), true);
  }
}

interface IntegerBounds {
  readonly step: number;
  readonly perResidual: number;
  readonly perNorm: number;
  /** Bound of the whole error, but for `perNorm` times the row's norm, per scale. */
  readonly perScale: number;
  /** Bound of the magnitude of a key, for a row of norm 1. */
  readonly range: number;
}

interface Saved {
  readonly state: Uint8Array;
  readonly heap: Uint8Array;
  readonly list: Uint8Array;
}

/** The numbers of a query that assembly/layout.ts describes. */
interface Bounds {
  readonly e0: number;
  readonly e1?: number | undefined;
  readonly e2?: number | undefined;
  readonly perResidual?: number | undefined;
  readonly perNorm?: number | undefined;
  readonly step?: number | undefined;
  readonly coarseAdd?: number | undefined;
  readonly coarseFactor?: number | undefined;
  readonly coarseSlack: number;
}

/** More than the float32 rounding of stored norms, and the float64 rounding of these bounds, comes to. */
const nudge = 1 + 2 ** -20;

/** Error of a key per squared row norm (euclid): the stored one is float32. */
const auxShare = 2 ** -24 * nudge + 2 * slack;

/** Of each eight values first the four at even places: see assembly/dots-bf16.ts. */
function bf16Place(j: number): number {
  return (j & ~7) | ((j & 1) << 2) | ((j & 7) >> 1);
}

/** Of each eight values the first and second four in turn: see assembly/stage.ts. */
function stagedPlace(j: number): number {
  return (j & ~7) | ((j & 3) << 1) | ((j & 4) >> 2);
}

function prepare(metric: Metric, dims: number, given: Float32Array, k: number, minScore: number): Query {
  if (given.length !== dims)
    throw new RangeError(`A query has ${given.length} values, the rows have ${dims}.`);
  let values = Float64Array.from(given);
  let norm = normOf(values);
  let scale = 1;
  if (metric !== 'euclid' && norm > 0) {
    scale = 2 ** -Math.floor(Math.log2(norm));
    values = values.map((value) => value * scale);
    norm *= scale;
  }
  const beyondKernel = metric === 'euclid' && norm > euclidNormMax;
  return {
    values,
    norm,
    beyondKernel,
    k,
    minKey: minKeyOf(metric, norm, scale, minScore),
  };
}

/** No row with a lower upper bound scores `minScore` or more. */
function minKeyOf(metric: Metric, norm: number, scale: number, minScore: number): number {
  if (minScore === Number.NEGATIVE_INFINITY) return minScore;
  // Also where the slack of infinity would be infinite.
  if (minScore === Number.POSITIVE_INFINITY) return keyMax;
  if (metric === 'dot') return Math.min(keyMax, minScore * scale);
  if (metric === 'cosine') return Math.min(keyMax, minScore * norm - slack * norm);
  const squared = norm * norm;
  return Math.min(keyMax, minScore + squared - slack * (squared + Math.abs(minScore)));
}

function normOf(values: Float64Array): number {
  let sum = 0;
  for (let i = 0; i < values.length; i += 1) sum += values[i]! * values[i]!;
  return Math.sqrt(sum);
}
