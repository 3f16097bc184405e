// Where the vectors of one segment lie in the memory of a kernel.
import type { Metric } from '../vector.ts';

/** Vectors as numbers: rows of `padDims` values, zeros from `dims` on. */
export interface ResidentVectors {
  /** Byte address, a multiple of 64. */
  readonly at: number;
  readonly dtype: 'f32' | 'bf16';
}

/** Vectors as int8 codes, made by `encodeCodes`. Byte addresses, multiples of 64. */
export interface ResidentCodes {
  /** int8[padRows][padDims]. */
  readonly at: number;
  /** f32[padRows]: value of one step of the code. */
  readonly scales: number;
  /** f32[padRows]: length of what the code leaves out, rounded up. */
  readonly residuals: number;
  /** f32[padRows]: length of the decoded row, rounded up. */
  readonly norms: number;
  /** The rotation of the rows before they were coded, null for none. */
  readonly rotationSeed: number | null;
}

/** The rows of one segment. Row norms other than 0 are within 2^-40 to 2^40; else the kernel must not see the segment. */
export interface ResidentRows {
  readonly rows: number;
  /** Multiple of 8. */
  readonly padRows: number;
  readonly dims: number;
  /** Multiple of 16. */
  readonly padDims: number;
  readonly metric: Metric;
  /** Byte address of f32[padRows]: 1/norm (cosine, 0 for a zero vector), squared norm (euclid), anything (dot). */
  readonly aux: number;
  /** [padRows][padDims]; undefined when only codes are resident. */
  readonly vectors?: ResidentVectors | undefined;
  readonly codes?: ResidentCodes | undefined;
  /** Upper bound of the norms of the rows. */
  readonly normMax: number;
}
