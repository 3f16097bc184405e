// Turns rows into int16 once for all queries of a batch. An int16 product costs half of a float32 one.
//
// A float row x becomes c = round(f x) with f = STAGE_NORM / |x|, so |f x - c| <= 0.502 in each place: 0.5 by the
// rounding, and f x itself is off by 2^-24 of at most 32,004. What that means for the bound: candidate-scan.ts.

/** Length of a staged row or query: their inner product stays below 2^30, and so does every partial sum. */
export const STAGE_NORM: u32 = 32000;

/** 1.5 * 2^23: added to a float32 below 2^22, it leaves the rounded integer in the low bits of the sum. */
const ROUND: f32 = 12582912;

@inline
function rounded(values: v128, factor: v128): v128 {
  return f32x4.add(f32x4.mul(values, factor), f32x4.splat(ROUND));
}

/** Joins the low halves of `a` and `b`: a0 b0 a1 b1 a2 b2 a3 b3. */
@inline
function joined(a: v128, b: v128): v128 {
  return v128.or(v128.and(a, i32x4.splat(0xffff)), i32x4.shl(b, 16));
}

/** float32, `bytes` long. Of each eight values: 0 4 1 5 2 6 3 7; the queries lie the same way. */
export function stageF32(row: usize, bytes: usize, factor: f32, out: usize): void {
  const f = f32x4.splat(factor);
  const end = row + bytes;
  do {
    v128.store(out, joined(rounded(v128.load(row), f), rounded(v128.load(row, 16), f)));
    v128.store(out, joined(rounded(v128.load(row, 32), f), rounded(v128.load(row, 48), f)), 16);
    row += 64;
    out += 32;
  } while (row < end);
}

/** bfloat16, `bytes` long; keeps the order. */
export function stageBf16(row: usize, bytes: usize, factor: f32, out: usize): void {
  const f = f32x4.splat(factor);
  const high = i32x4.splat(0xffff0000);
  const end = row + bytes;
  do {
    let x = v128.load(row);
    v128.store(out, joined(rounded(i32x4.shl(x, 16), f), rounded(v128.and(x, high), f)));
    x = v128.load(row, 16);
    v128.store(out, joined(rounded(i32x4.shl(x, 16), f), rounded(v128.and(x, high), f)), 16);
    row += 32;
    out += 32;
  } while (row < end);
}

/** int8 codes, `bytes` long; keeps the order and the values. */
export function stageI8(row: usize, bytes: usize, out: usize): void {
  const end = row + bytes;
  do {
    v128.store(out, v128.load_ext<i8>(row));
    v128.store(out, v128.load_ext<i8>(row + 8), 16);
    row += 16;
    out += 32;
  } while (row < end);
}

/** Squared length of a float32 row, off by less than 2^-13 of it. */
export function squaredNormF32(row: usize, bytes: usize): f32 {
  let a = f32x4.splat(0), b = a, c = a, d = a;
  const end = row + bytes;
  do {
    let x = v128.load(row);
    a = f32x4.add(a, f32x4.mul(x, x));
    x = v128.load(row, 16);
    b = f32x4.add(b, f32x4.mul(x, x));
    x = v128.load(row, 32);
    c = f32x4.add(c, f32x4.mul(x, x));
    x = v128.load(row, 48);
    d = f32x4.add(d, f32x4.mul(x, x));
    row += 64;
  } while (row < end);
  return total(f32x4.add(f32x4.add(a, b), f32x4.add(c, d)));
}

/** The same for a bfloat16 row. */
export function squaredNormBf16(row: usize, bytes: usize): f32 {
  let a = f32x4.splat(0), b = a;
  const high = i32x4.splat(0xffff0000);
  const end = row + bytes;
  do {
    const x = v128.load(row);
    const even = i32x4.shl(x, 16), odd = v128.and(x, high);
    a = f32x4.add(a, f32x4.mul(even, even));
    b = f32x4.add(b, f32x4.mul(odd, odd));
    row += 16;
  } while (row < end);
  return total(f32x4.add(a, b));
}

@inline
function total(a: v128): f32 {
  return f32x4.extract_lane(a, 0) + f32x4.extract_lane(a, 1) + (f32x4.extract_lane(a, 2) + f32x4.extract_lane(a, 3));
}
