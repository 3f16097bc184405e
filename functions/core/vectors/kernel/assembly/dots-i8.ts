// Inner products of int8 rows and one int16 query, exact in int32: no partial sum reaches 2^31 (see codes.ts).
import { storeIntegerSum } from './lanes';

/** Adds eight products, of the row's int8 values at `row`. */
@inline
function add(sum: v128, query: v128, row: usize): v128 {
  return i32x4.add(sum, i32x4.dot_i16x8_s(query, v128.load_ext<i8>(row)));
}

/** Two rows, `bytes` long (a multiple of 16), four accumulators each. */
export function dotI8x2(p: usize, r: usize, query: usize, bytes: usize, out: usize, out2: usize): void {
  let a0 = i32x4.splat(0), a1 = a0, a2 = a0, a3 = a0, b0 = a0, b1 = a0, b2 = a0, b3 = a0;
  if (bytes & 16) {
    const q0 = v128.load(query), q1 = v128.load(query, 16);
    a0 = add(a0, q0, p);
    a1 = add(a1, q1, p + 8);
    b0 = add(b0, q0, r);
    b1 = add(b1, q1, r + 8);
    query += 32;
    p += 16;
    r += 16;
    bytes -= 16;
  }
  const end = query + 2 * bytes;
  while (query < end) {
    const q0 = v128.load(query), q1 = v128.load(query, 16), q2 = v128.load(query, 32), q3 = v128.load(query, 48);
    a0 = add(a0, q0, p);
    a1 = add(a1, q1, p + 8);
    a2 = add(a2, q2, p + 16);
    a3 = add(a3, q3, p + 24);
    b0 = add(b0, q0, r);
    b1 = add(b1, q1, r + 8);
    b2 = add(b2, q2, r + 16);
    b3 = add(b3, q3, r + 24);
    query += 64;
    p += 32;
    r += 32;
  }
  storeIntegerSum(out, i32x4.add(i32x4.add(a0, a1), i32x4.add(a2, a3)));
  storeIntegerSum(out2, i32x4.add(i32x4.add(b0, b1), i32x4.add(b2, b3)));
}

/** Four rows; the sums go side by side. */
export function dotI8x4(p: usize, r: usize, s: usize, t: usize, query: usize, bytes: usize, out: usize): void {
  let a = i32x4.splat(0), b = a, c = a, d = a;
  const end = query + 2 * bytes;
  do {
    let q = v128.load(query);
    a = add(a, q, p);
    b = add(b, q, r);
    c = add(c, q, s);
    d = add(d, q, t);
    q = v128.load(query, 16);
    a = add(a, q, p + 8);
    b = add(b, q, r + 8);
    c = add(c, q, s + 8);
    d = add(d, q, t + 8);
    query += 32;
    p += 16;
    r += 16;
    s += 16;
    t += 16;
  } while (query < end);
  storeIntegerSum(out, a);
  storeIntegerSum(out + 4, b);
  storeIntegerSum(out + 8, c);
  storeIntegerSum(out + 12, d);
}
