// What may be stored as a vector, and how two vectors are scored: one definition for every path.
import { VectorError } from './errors.ts';

/** How the rows of a feature are ranked. */
export type Metric = 'cosine' | 'dot' | 'euclid';

export const metrics: readonly Metric[] = ['cosine', 'dot', 'euclid'];

/** Largest dimension of a vector. @see api rules, section 12 */
export const dimsMax = 4_096;

/**
 * Checks a vector before it is written or searched for, and gives it as float32.
 *
 * A value too large for float32 is refused like infinity, because that is what it would become.
 *
 * @param dims what the feature has; without it any dimension from 1 to 4,096 will do
 * @throws VectorError vector_invalid, naming the first bad position
 */
export function validateVector(vector: unknown, dims?: number): Float32Array {
  if (!Array.isArray(vector) && !(vector instanceof Float32Array) && !(vector instanceof Float64Array)) {
    throw new VectorError('vector_invalid', `A vector is a list of numbers, got ${typeof vector}.`);
  }
  const length = vector.length;
  if (dims !== undefined && length !== dims) {
    throw new VectorError('vector_invalid', `The vector has ${length} values, the feature needs ${dims}.`);
  }
  if (length < 1 || length > dimsMax) {
    throw new VectorError('vector_invalid', `A vector has 1 to ${dimsMax} values, got ${length}.`);
  }
  const copy = new Float32Array(length);
  for (let i = 0; i < length; i += 1) {
    const value: unknown = vector[i];
    if (typeof value !== 'number' || !Number.isFinite(Math.fround(value))) {
      const got = typeof value === 'number' ? String(value) : value === null ? 'null' : typeof value;
      throw new VectorError(
        'vector_invalid',
        `Value ${i} of the vector is not a finite float32 number: ${got}.`,
      );
    }
    copy[i] = value;
  }
  return copy;
}

/*
 * The pinned order of every sum: four accumulators, the k-th for the indices that leave k modulo 4, added as
 * ((s0 + s1) + s2) + s3. Products and sums are float64, over float32 values. So a row scores the same bits alone, in
 * a batch and behind a filter, and the products themselves are exact. `length` is a multiple of 4: stored rows are
 * padded with zeros, which change no sum.
 */

/** Inner product of `query` at `q` and `rows` at `r`, in the pinned order. */
export function dotAt(query: Float64Array, q: number, rows: Float32Array, r: number, length: number): number {
  let s0 = 0;
  let s1 = 0;
  let s2 = 0;
  let s3 = 0;
  for (let i = 0; i < length; i += 4) {
    s0 += query[q + i]! * rows[r + i]!;
    s1 += query[q + i + 1]! * rows[r + i + 1]!;
    s2 += query[q + i + 2]! * rows[r + i + 2]!;
    s3 += query[q + i + 3]! * rows[r + i + 3]!;
  }
  return s0 + s1 + s2 + s3;
}

/** Squared distance of `query` at `q` and `rows` at `r`, in the pinned order; exactly 0 for equal vectors. */
export function squaredDistanceAt(
  query: Float64Array,
  q: number,
  rows: Float32Array,
  r: number,
  length: number,
): number {
  let s0 = 0;
  let s1 = 0;
  let s2 = 0;
  let s3 = 0;
  for (let i = 0; i < length; i += 4) {
    const d0 = query[q + i]! - rows[r + i]!;
    const d1 = query[q + i + 1]! - rows[r + i + 1]!;
    const d2 = query[q + i + 2]! - rows[r + i + 2]!;
    const d3 = query[q + i + 3]! - rows[r + i + 3]!;
    s0 += d0 * d0;
    s1 += d1 * d1;
    s2 += d2 * d2;
    s3 += d3 * d3;
  }
  return s0 + s1 + s2 + s3;
}

/** Squared length of the vector that begins at `r`, in the pinned order. */
export function squaredNormAt(rows: Float32Array, r: number, length: number): number {
  let s0 = 0;
  let s1 = 0;
  let s2 = 0;
  let s3 = 0;
  for (let i = 0; i < length; i += 4) {
    s0 += rows[r + i]! * rows[r + i]!;
    s1 += rows[r + i + 1]! * rows[r + i + 1]!;
    s2 += rows[r + i + 2]! * rows[r + i + 2]!;
    s3 += rows[r + i + 3]! * rows[r + i + 3]!;
  }
  return s0 + s1 + s2 + s3;
}

/** Inverse length for a cosine; 0 for the zero vector, so that its cosine with anything is 0. */
export function inverseNorm(squaredNorm: number): number {
  return squaredNorm === 0 ? 0 : 1 / Math.sqrt(squaredNorm);
}

/** Row lengths in memory are multiples of 16 values (one cache line of float32). */
export function paddedDims(dims: number): number {
  return Math.ceil(dims / 16) * 16;
}

/** Row counts in memory are multiples of 8. */
export function paddedRows(rows: number): number {
  return Math.ceil(rows / 8) * 8;
}

/**
 * Whether all rows may be scanned in float32: then neither squares nor sums overflow or vanish, and the error bounds
 * of the kernel hold. Rows outside are scanned in float64.
 *
 * @param range shortest and longest length of a row that is not zero; `[0, 0]` if all are
 */
export function isKernelSafe([min, max]: readonly [min: number, max: number]): boolean {
  return max === 0 || (min >= 2 ** -40 && max <= 2 ** 40);
}
