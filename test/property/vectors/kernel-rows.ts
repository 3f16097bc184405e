// For the tests of the kernel: rows made by chance, put into its memory, and the answer by definition.
import * as fc from 'fast-check';
import { type Bits, hasBit } from '../../../functions/core/vectors/bits.ts';
import { fromBfloat16, toBfloat16 } from '../../../functions/core/vectors/kernel/bfloat16.ts';
import { encodeCodes } from '../../../functions/core/vectors/kernel/codes.ts';
import type { Kernel } from '../../../functions/core/vectors/kernel/kernel.ts';
import type { ResidentRows } from '../../../functions/core/vectors/kernel/resident.ts';
import {
  dotAt,
  inverseNorm,
  type Metric,
  paddedDims,
  paddedRows,
  squaredDistanceAt,
  squaredNormAt,
} from '../../../functions/core/vectors/vector.ts';

export type Storage = 'f32' | 'bf16' | 'i8';
export const storages: readonly Storage[] = ['f32', 'bf16', 'i8'];

/** A small generator with a seed, for data that fast-check would take too long to draw value by value. */
export function generator(seed: number): () => number {
  let state = seed >>> 0 || 1;
  return () => {
    state ^= state << 13;
    state >>>= 0;
    state ^= state >>> 17;
    state ^= state << 5;
    state >>>= 0;
    return state / 2 ** 32;
  };
}

/** About normally distributed. */
export function bell(random: () => number): number {
  return random() + random() + random() + random() - 2;
}

export interface Table {
  readonly rows: number;
  readonly dims: number;
  readonly padDims: number;
  /** [padRows][padDims], the values as stored (rounded for bf16). */
  readonly vectors: Float32Array;
}

export function tableOf(vectors: readonly Float32Array[], dims: number, storage: Storage = 'f32'): Table {
  const padDims = paddedDims(dims);
  const all = new Float32Array(paddedRows(vectors.length) * padDims);
  for (const [i, vector] of vectors.entries()) all.set(vector, i * padDims);
  return {
    rows: vectors.length,
    dims,
    padDims,
    vectors: storage === 'bf16' ? fromBfloat16(toBfloat16(all)) : all,
  };
}

const aligned = (at: number): number => Math.ceil(at / 64) * 64;

/** Writes a table into the arena from `at` on. @returns the rows and the first free byte */
export function place(
  kernel: Kernel,
  at: number,
  table: Table,
  metric: Metric,
  storage: Storage,
): { resident: ResidentRows; end: number } {
  const { rows, dims, padDims, vectors } = table;
  const padRows = vectors.length / padDims;
  let next = aligned(at);
  const put = (data: Float32Array | Uint16Array | Int8Array): number => {
    const here = next;
    if (here + data.byteLength > kernel.arenaAt + kernel.arenaBytes)
      throw new Error('the arena is too small');
    kernel.bytes.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), here);
    next = aligned(here + data.byteLength);
    return here;
  };
  const aux = auxOf(table, metric);
  let normMax = 0;
  for (let i = 0; i < rows; i += 1) {
    normMax = Math.max(normMax, Math.sqrt(squaredNormAt(vectors, i * padDims, padDims)));
  }
  const shape = { rows, padRows, dims, padDims, metric, aux: put(aux), normMax };
  if (storage === 'i8') {
    const { codes, scales, residuals, norms, rotationSeed } = encodeCodes(vectors, rows, dims, padDims);
    const placed = {
      at: put(codes),
      scales: put(scales),
      residuals: put(residuals),
      norms: put(norms),
      rotationSeed,
    };
    return { resident: { ...shape, codes: placed }, end: next };
  }
  const stored = put(storage === 'bf16' ? toBfloat16(vectors) : vectors);
  return { resident: { ...shape, vectors: { at: stored, dtype: storage } }, end: next };
}

export function auxOf({ rows, padDims, vectors }: Table, metric: Metric): Float32Array {
  const aux = new Float32Array(vectors.length / padDims);
  for (let i = 0; i < rows; i += 1) {
    const squared = squaredNormAt(vectors, i * padDims, padDims);
    aux[i] = metric === 'cosine' ? inverseNorm(squared) : metric === 'euclid' ? squared : Number.NaN;
  }
  return aux;
}

/** The score of each row as the search defines it. */
export function scoresOf({ rows, padDims, vectors }: Table, metric: Metric, query: Float32Array): number[] {
  const padded = new Float64Array(padDims);
  padded.set(query);
  const factor = inverseNorm(squaredNormAt(Float32Array.from(padded), 0, padDims));
  return Array.from({ length: rows }, (_, i) => {
    if (metric === 'euclid') return 0 - squaredDistanceAt(padded, 0, vectors, i * padDims, padDims);
    const product = dotAt(padded, 0, vectors, i * padDims, padDims);
    if (metric === 'dot') return product;
    const inverse = Math.fround(inverseNorm(squaredNormAt(vectors, i * padDims, padDims)));
    return Math.max(-1, Math.min(1, product * inverse * factor)) + 0;
  });
}

/** Every row that some order of equal scores puts among the k best. */
export function bestOf(
  scores: readonly number[],
  k: number,
  minScore: number,
  selected: Bits | undefined,
): number[] {
  const rows = scores
    .map((_, i) => i)
    .filter((i) => scores[i]! >= minScore && (!selected || hasBit(selected, i)));
  if (rows.length <= k) return rows;
  const last = [...rows].sort((a, b) => scores[b]! - scores[a]!)[k - 1]!;
  return rows.filter((i) => scores[i]! >= scores[last]!);
}

export type Flavour =
  | 'random'
  | 'clustered'
  | 'duplicates'
  | 'outliers'
  | 'scales'
  | 'tiny'
  | 'sparse'
  | 'integers';
export const flavours: readonly Flavour[] = [
  'random',
  'clustered',
  'duplicates',
  'outliers',
  'scales',
  'tiny',
  'sparse',
  'integers',
];

/** Rows of one kind; norms other than 0 stay within 2^-40 to 2^40. */
export function vectorsOf(
  flavour: Flavour,
  rows: number,
  dims: number,
  random: () => number,
): Float32Array[] {
  const draw = (): Float32Array => Float32Array.from({ length: dims }, () => bell(random));
  const centres = Array.from({ length: 4 }, draw);
  const made: Float32Array[] = [];
  for (let i = 0; i < rows; i += 1) {
    let vector = draw();
    if (flavour === 'clustered') {
      const centre = centres[Math.floor(random() * 4)]!;
      vector = vector.map((value, j) => centre[j]! + value * 1e-4);
    } else if (flavour === 'duplicates' && i > 0 && random() < 0.7) {
      // Exact copies, copies of twice the length, and ones that differ in the last bit.
      const other = made[Math.floor(random() * i)]!;
      const kind = random();
      vector = kind < 0.5 ? other.slice() : other.map((value) => value * (kind < 0.7 ? 2 : 1 + 2 ** -23));
    } else if (flavour === 'outliers') {
      vector[0]! += 30 + random();
      vector[dims >> 1]! -= 20 * random();
    } else if (flavour === 'scales') {
      const factor = 2 ** Math.round(60 * random() - 30);
      vector = vector.map((value) => value * factor);
    } else if (flavour === 'tiny') {
      vector = vector.map((value) => value * 2 ** -36);
      // Some of its values are float32 denormals.
      for (let j = 1; j < dims; j += 3) vector[j] = vector[j]! * 2 ** -105;
    } else if (flavour === 'sparse') {
      vector = vector.map((value) => (random() < 0.9 ? 0 : Math.sign(value)));
    } else if (flavour === 'integers') {
      // int8 codes leave nothing out of these, so only the error of the query is left.
      vector = vector.map((value, j) => (j === 0 ? 127 : Math.round(value * 60)));
    }
    if (random() < 0.02) vector.fill(random() < 0.5 ? 0 : -0);
    const norm = Math.sqrt(vector.reduce((sum, value) => sum + value * value, 0));
    if (norm < 2 ** -40 || norm > 2 ** 40) vector.fill(0);
    made.push(vector);
  }
  return made;
}

export const anyMetric: fc.Arbitrary<Metric> = fc.constantFrom('cosine', 'dot', 'euclid');
export const anyDims: fc.Arbitrary<number> = fc.oneof(
  { arbitrary: fc.integer({ min: 1, max: 70 }), weight: 6 },
  { arbitrary: fc.constantFrom(1, 16, 17, 96, 128, 384, 768), weight: 2 },
  { arbitrary: fc.constantFrom(1_040, 4_095, 4_096), weight: 1 },
);
