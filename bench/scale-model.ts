// What a query takes and costs on AWS by number of vectors, for each place where vectors can be searched. Pure arithmetic.

/** What the model is fed with: measured here, or told by AWS. Bytes are of 1 GB = 1e9, prices in dollars of us-east-1. */
export interface Inputs {
  /** Bytes of int8 codes that the kernel scans per second on one core. */
  readonly codeBytesPerS: number;
  /** Rows that an int8 scan scores again, k = 10. */
  readonly rowsReranked: number;
  /** What one vCPU of a Lambda reads at most: the kernel is never faster than that there. */
  readonly lambdaReadBytesPerS: number;
  /** From the network into memory, per function. */
  readonly networkBytesPerS: number;
  /** A fresh function until its first line runs. */
  readonly initMs: number;
  /** One call of a function that is there: way, runtime, and the read of the head. */
  readonly invokeMs: number;
  /** First byte of a read from S3. */
  readonly s3FirstByteMs: number;
  /** What LanceDB scans per second when its files are in S3. */
  readonly lanceBytesPerS: number;
  /** Warm and cold answers of S3 Vectors. */
  readonly s3VectorsMs: { readonly warm: number; readonly cold: number };
  /**
   * Whether an index whose codes fit into one function is spread over several as soon as its vectors do not fit beside
   * them. The planner (functions/core/fan-out/plan.ts) leaves it to one, which reads some rows from S3.
   */
  readonly spreadVectors: boolean;
}

export const prices = {
  lambdaRequest: 2e-7,
  lambdaGigabyteSecond: 1.66667e-5,
  s3Get: 4e-7,
  s3GigabyteMonth: 0.023,
  s3VectorsQuery: 2.5e-6,
  s3VectorsGigabyteMonth: 0.06,
  /** Per TiB of the index, for each query: the first 100,000 vectors, those up to ten million, and all others. */
  s3VectorsTebibyte: [
    { upTo: 1e5, price: 0.004 },
    { upTo: 1e7, price: 0.002 },
    // "Up to 80 % less" above ten million since June 2026.
    { upTo: Number.POSITIVE_INFINITY, price: 0.0004 },
  ],
} as const;

/** What Granary and AWS set as bounds. */
export const limits = {
  /** Memory of `query` and of each scan function (infra/stage.ts). */
  functionMegabytes: 3_008,
  /** Half of it is for codes and vectors (functions/core/vectors/vector-memory.ts). */
  arenaBytes: 3_008 * 2 ** 19,
  /** Codes that one function takes (functions/core/aws/ports.ts). */
  scanBytes: 1.2e9,
  /** Scan functions that a stage can have (infra/stage.ts). */
  functionsMax: 64,
  /** Reads at the same time when rows are scored again (functions/core/vectors/segment-vectors.ts). */
  parallelReads: 16,
  s3VectorsMax: 2e9,
  /** The gateway waits no longer. */
  answerMs: 29_000,
} as const;

export const backends = ['scan', 'fan-out', 's3-vectors', 'lancedb'] as const;
export type Backend = (typeof backends)[number];

export interface Estimate {
  readonly backend: Backend;
  /** Functions that scan for one query. */
  readonly functions: number;
  /** Where rows are scored again from; only for scans of codes. */
  readonly rerankFrom?: 'memory' | 'store';
  readonly warmMs: number;
  /** The first query, when nothing is in memory anywhere. */
  readonly coldMs: number;
  /** Dollars of 1,000 warm queries. */
  readonly per1000: number;
  /** Dollars a month for keeping the vectors. */
  readonly storageMonth: number;
  /** Whether the answer is the true nearest neighbours. */
  readonly exact: boolean;
}

const tebibyte = 2 ** 40;
/** Scale, residual, norm and inverse length of a row that has codes. */
const codeBytesPerRow = 16;
/** Id and filterable columns of a row, for S3 Vectors, which bills them with each query. */
const keyBytesPerRow = 200;

const padded = (dims: number) => Math.ceil(dims / 16) * 16;
const codeBytes = (dims: number) => padded(dims) + codeBytesPerRow;
const vectorBytes = (dims: number) => padded(dims) * 4;
const lambdaCost = (ms: number) =>
  prices.lambdaRequest + (ms / 1000) * (limits.functionMegabytes / 1024) * prices.lambdaGigabyteSecond;

/**
 * One backend for `rows` vectors.
 *
 * @returns undefined where it cannot be used: too large for one function, more functions than an account has, no
 *   answer in time
 */
export function estimate(backend: Backend, rows: number, dims: number, inputs: Inputs): Estimate | undefined {
  const found = estimates[backend](rows, dims, inputs);
  return found === undefined || found.warmMs > limits.answerMs ? undefined : found;
}

type Estimator = (rows: number, dims: number, inputs: Inputs) => Estimate | undefined;

const estimates: Readonly<Record<Backend, Estimator>> = {
  // By itself while one function takes the codes; the vectors are in memory too as long as there is room.
  scan: (rows, dims, inputs) => {
    if (rows * codeBytes(dims) > limits.scanBytes) return undefined;
    const rerankFrom = rerankPlace(rows, dims);
    const rerank = reranking(inputs, dims, rerankFrom);
    const warmMs = inputs.invokeMs + scanMs(rows, dims, inputs) + rerank.ms;
    return {
      backend: 'scan',
      functions: 1,
      rerankFrom,
      warmMs,
      coldMs: inputs.initMs + inputs.invokeMs + coldScanMs(rows, dims, inputs),
      per1000: 1000 * (lambdaCost(warmMs) + rerank.dollars),
      storageMonth: ownStorage(rows, dims),
      exact: true,
    };
  },
  'fan-out': (rows, dims, inputs) => {
    const least = Math.ceil((rows * codeBytes(dims)) / limits.scanBytes);
    const both = Math.ceil((rows * (codeBytes(dims) + vectorBytes(dims))) / limits.scanBytes);
    // As many as hold codes and vectors, where several are needed anyway and there are so many.
    const functions = both <= limits.functionsMax ? both : least;
    if (functions > limits.functionsMax || functions === 1) return undefined;
    if (least === 1 && !inputs.spreadVectors) return undefined;
    const share = rows / functions;
    const rerankFrom = rerankPlace(share, dims);
    // Each function finds its own k best, so each scores its own candidates again.
    const rerank = reranking(inputs, dims, rerankFrom);
    const innerMs = inputs.invokeMs + scanMs(share, dims, inputs) + rerank.ms;
    const warmMs = inputs.invokeMs + innerMs;
    return {
      backend: 'fan-out',
      functions,
      rerankFrom,
      warmMs,
      coldMs: 2 * (inputs.initMs + inputs.invokeMs) + coldScanMs(share, dims, inputs),
      // The function that asks waits meanwhile.
      per1000: 1000 * (lambdaCost(warmMs) + functions * (lambdaCost(innerMs) + rerank.dollars)),
      storageMonth: ownStorage(rows, dims),
      exact: true,
    };
  },
  's3-vectors': (rows, dims, inputs) => {
    if (rows > limits.s3VectorsMax) return undefined;
    const perVector = dims * 4 + keyBytesPerRow;
    return {
      backend: 's3-vectors',
      functions: 0,
      warmMs: inputs.invokeMs + inputs.s3VectorsMs.warm,
      coldMs: inputs.initMs + inputs.s3VectorsMs.cold,
      // The query function waits meanwhile.
      per1000:
        1000 * (s3VectorsQuery(rows, perVector) + lambdaCost(inputs.invokeMs + inputs.s3VectorsMs.warm)),
      storageMonth: ((rows * perVector) / 1e9) * prices.s3VectorsGigabyteMonth,
      exact: false,
    };
  },
  // Its own function, since the package is too large to go beside anything; it reads all vectors for each query.
  lancedb: (rows, dims, inputs) => {
    const bytes = rows * dims * 4;
    const bytesPerS = Math.min(inputs.lanceBytesPerS, inputs.networkBytesPerS);
    const warmMs = 2 * inputs.invokeMs + inputs.s3FirstByteMs + (bytes / bytesPerS) * 1000;
    const reads = Math.ceil(bytes / (8 * 2 ** 20));
    return {
      backend: 'lancedb',
      functions: 1,
      warmMs,
      coldMs: 2 * inputs.initMs + warmMs,
      per1000: 1000 * (2 * lambdaCost(warmMs) + reads * prices.s3Get),
      storageMonth: (bytes / 1e9) * prices.s3GigabyteMonth,
      exact: true,
    };
  },
};

/** Where rows that are scored again come from, in a function that has so many. */
function rerankPlace(rows: number, dims: number): 'memory' | 'store' {
  return rows * (codeBytes(dims) + vectorBytes(dims)) <= limits.arenaBytes ? 'memory' : 'store';
}

function scanMs(rows: number, dims: number, { codeBytesPerS, lambdaReadBytesPerS }: Inputs): number {
  return ((rows * codeBytes(dims)) / Math.min(codeBytesPerS, lambdaReadBytesPerS)) * 1000;
}

/** The first scan: it waits for the codes only, and reads the few rows that it scores again by themselves. */
function coldScanMs(rows: number, dims: number, inputs: Inputs): number {
  const loadMs = ((rows * codeBytes(dims)) / inputs.networkBytesPerS) * 1000;
  return loadMs + scanMs(rows, dims, inputs) + reranking(inputs, dims, 'store').ms;
}

function reranking(
  { rowsReranked, s3FirstByteMs }: Inputs,
  dims: number,
  from: 'memory' | 'store',
): { ms: number; dollars: number } {
  // Scoring a row in double precision takes about as many nanoseconds as it has dimensions.
  const ms = (rowsReranked * dims) / 1e6;
  if (from === 'memory') return { ms, dollars: 0 };
  return {
    ms: ms + Math.ceil(rowsReranked / limits.parallelReads) * s3FirstByteMs,
    dollars: rowsReranked * prices.s3Get,
  };
}

const ownStorage = (rows: number, dims: number) =>
  ((rows * (codeBytes(dims) + vectorBytes(dims))) / 1e9) * prices.s3GigabyteMonth;

/** Dollars of one query of S3 Vectors: the request, and every byte of the index by the steps of the price. */
export function s3VectorsQuery(rows: number, bytesPerVector: number): number {
  let dollars: number = prices.s3VectorsQuery;
  let from = 0;
  for (const { upTo, price } of prices.s3VectorsTebibyte) {
    const inStep = Math.max(0, Math.min(rows, upTo) - from);
    dollars += ((inStep * bytesPerVector) / tebibyte) * price;
    from = upTo;
  }
  return dollars;
}

export type Measure = 'warmMs' | 'coldMs' | 'per1000';

/** From `from` vectors on (up to the next range) `backend` is the best. */
export interface Range {
  readonly from: number;
  readonly backend: Backend;
}

/** The best backend by one measure; undefined if none can be used. */
export function bestBackend(
  measure: Measure,
  rows: number,
  dims: number,
  inputs: Inputs,
  among: readonly Backend[] = backends,
): Backend | undefined {
  let best: Estimate | undefined;
  for (const backend of among) {
    const found = estimate(backend, rows, dims, inputs);
    if (found !== undefined && (best === undefined || found[measure] < best[measure])) best = found;
  }
  return best?.backend;
}

/**
 * Where the best backend changes between two numbers of vectors, to within one vector.
 *
 * Looks at 2,000 numbers between them, by equal factors, and halves between those that differ. A backend that is best
 * for less than 0.6 % of a number of vectors may be passed over.
 */
export function bestRanges(
  measure: Measure,
  dims: number,
  inputs: Inputs,
  among: readonly Backend[] = backends,
  [least, most]: readonly [number, number] = [1e4, 1e9],
): Range[] {
  const best = (rows: number) => bestBackend(measure, rows, dims, inputs, among);
  const ranges: Range[] = [];
  const steps = 2_000;
  let before = least;
  let current = best(least);
  if (current !== undefined) ranges.push({ from: least, backend: current });
  for (let step = 1; step <= steps; step += 1) {
    const rows = Math.round(least * (most / least) ** (step / steps));
    const next = best(rows);
    if (next !== current) {
      let [low, high] = [before, rows];
      while (high - low > 1) {
        const middle = Math.floor((low + high) / 2);
        if (best(middle) === current) low = middle;
        else high = middle;
      }
      const backend = best(high);
      if (backend !== undefined) ranges.push({ from: high, backend });
      current = next;
    }
    before = rows;
  }
  return ranges;
}
