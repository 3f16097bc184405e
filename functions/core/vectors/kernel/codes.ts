// int8 codes of rows and the int16 code of a query, with the numbers that bound what the codes leave out.
//
// A row x, rotated or not, becomes x^ = s c with |c_j| <= 127; a query q becomes q^ = t e with |e_j| <= Q. With
// rho = |x - x^| and delta = |q - q^|,
//
//     q.x = q^.x^ + (q - q^).x^ + q.(x - x^),   so by Cauchy and Schwarz   |q.x - s t (c.e)| <= delta |x^| + |q| rho.
//
// c.e is a sum of integers below 127 Q padDims <= 2^31 - 1 in magnitude, whatever its order: exact in int32.
import { Rotation, rotationSeed } from './rotation.ts';

/** The largest magnitude of a row's code. */
const codeMax = 127;

/** Above this median of rho/|x| a rotation pays: it brings rho/|x| to about 0.008 whatever the data (at 384 values). */
const residualShareMax = 0.012;

/** As many rows, evenly spread, decide whether to rotate. */
const sampleRows = 1_024;

export interface Codes {
  /** int8[padRows][padDims]. */
  readonly codes: Int8Array<ArrayBuffer>;
  /** f32[padRows]: s, at least max|x_j| / 127. So |x_j - s c_j| <= s / 2, and rho <= s sqrt(padDims) / 2. */
  readonly scales: Float32Array<ArrayBuffer>;
  /** f32[padRows]: rho, rounded up. */
  readonly residuals: Float32Array<ArrayBuffer>;
  /** f32[padRows]: |x^|, rounded up. */
  readonly norms: Float32Array<ArrayBuffer>;
  /** Of the rotation before coding, null for none. */
  readonly rotationSeed: number | null;
}

/**
 * Codes the rows of a segment. They are rotated if they would else have residuals that make a scan by codes useless:
 * a few coordinates much larger than the others.
 *
 * @param vectors [padRows][padDims], finite, zeros from `dims` and from `rows` on
 */
export function encodeCodes(vectors: Float32Array, rows: number, dims: number, padDims: number): Codes {
  const padRows = vectors.length / padDims;
  if (!Number.isInteger(padRows) || rows > padRows || dims > padDims) {
    throw new RangeError(
      `${vectors.length} values are not ${rows} rows of ${dims} values padded to ${padDims}.`,
    );
  }
  const coded = {
    codes: new Int8Array(vectors.length),
    scales: new Float32Array(padRows),
    residuals: new Float32Array(padRows),
    norms: new Float32Array(padRows),
  };
  const rotation = wantsRotation(vectors, rows, padDims) ? new Rotation(rotationSeed, padDims) : undefined;
  const row = new Float64Array(padDims);
  const code = new Int8Array(padDims);
  for (let i = 0; i < rows; i += 1) {
    row.set(vectors.subarray(i * padDims, (i + 1) * padDims));
    rotation?.apply(row);
    const { scale, residual, norm } = encodeRow(row, code);
    coded.codes.set(code, i * padDims);
    coded.scales[i] = scale;
    coded.residuals[i] = residual;
    coded.norms[i] = norm;
  }
  return { ...coded, rotationSeed: rotation === undefined ? null : rotationSeed };
}

function wantsRotation(vectors: Float32Array, rows: number, padDims: number): boolean {
  const shares: number[] = [];
  const row = new Float64Array(padDims);
  const code = new Int8Array(padDims);
  const step = Math.max(1, rows / sampleRows);
  for (let at = 0; at < rows; at += step) {
    const i = Math.floor(at);
    row.set(vectors.subarray(i * padDims, (i + 1) * padDims));
    const { residual } = encodeRow(row, code);
    const norm = normOf(row);
    if (norm > 0) shares.push(residual / norm);
  }
  shares.sort((a, b) => a - b);
  return shares.length > 0 && shares[shares.length >>> 1]! > residualShareMax;
}

function encodeRow(row: Float64Array, code: Int8Array): { scale: number; residual: number; norm: number } {
  const largest = largestOf(row);
  if (largest === 0) {
    code.fill(0);
    return { scale: 0, residual: 0, norm: 0 };
  }
  const scale = roundUp(largest / codeMax);
  let residual = 0;
  let norm = 0;
  for (let j = 0; j < row.length; j += 1) {
    const c = Math.round(row[j]! / scale);
    code[j] = c;
    const decoded = scale * c;
    const left = row[j]! - decoded;
    residual += left * left;
    norm += decoded * decoded;
  }
  return { scale, residual: roundUp(Math.sqrt(residual) * grown), norm: roundUp(Math.sqrt(norm) * grown) };
}

/** A query as codes of padded length. */
export interface QueryCode {
  /** int16[padDims]: e. */
  readonly values: Int16Array<ArrayBuffer>;
  /** t, a float32 value. */
  readonly step: number;
  /** delta, rounded up. */
  readonly residual: number;
}

/** Largest magnitude of a query's code: 14 bits, fewer above 1,032 values so that int32 cannot overflow. */
export function queryCodeMax(padDims: number): number {
  return Math.min(16_383, Math.floor((2 ** 31 - 1) / (codeMax * padDims)));
}

/** Below it a step could vanish in float32; a query that small is all residual, which the bound covers. */
const stepMin = 2 ** -100;

/** @param query float64[padDims], norm at most 2^61, rotated as the rows were */
export function encodeQuery(query: Float64Array): QueryCode {
  return encodeWith(query, largestOf(query) / queryCodeMax(query.length));
}

/** A query for rows that are staged as int16 of length `norm`: it gets that length too. */
export function encodeQueryOfNorm(query: Float64Array, norm: number): QueryCode {
  return encodeWith(query, normOf(query) / norm);
}

function encodeWith(query: Float64Array, wanted: number): QueryCode {
  const step = Math.max(stepMin, roundUp(wanted));
  const values = new Int16Array(query.length);
  let residual = 0;
  for (let j = 0; j < query.length; j += 1) {
    const e = Math.round(query[j]! / step);
    values[j] = e;
    const left = query[j]! - step * e;
    residual += left * left;
  }
  return { values, step, residual: Math.sqrt(residual) * grown };
}

/** More than float64 sums of 4,096 squares can be too small by. */
const grown = 1 + 1e-12;

function largestOf(values: Float64Array): number {
  let largest = 0;
  for (let j = 0; j < values.length; j += 1) largest = Math.max(largest, Math.abs(values[j]!));
  return largest;
}

function normOf(values: Float64Array): number {
  let sum = 0;
  for (let j = 0; j < values.length; j += 1) sum += values[j]! * values[j]!;
  return Math.sqrt(sum);
}

const oneFloat = new Float32Array(1);
const oneWord = new Uint32Array(oneFloat.buffer);

/** The smallest float32 that is at least `value`, which is not negative. */
export function roundUp(value: number): number {
  oneFloat[0] = value;
  if (oneFloat[0] < value) oneWord[0]! += 1;
  return oneFloat[0];
}
