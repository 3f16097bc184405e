// Inner products of bfloat16 rows and one float32 query: a value is the upper half of a float32, so widening is a shift.
//
// Eight stored values are four 32-bit lanes with those at even places in the low halves. The query lies accordingly:
// of each eight values first the four at even, then the four at odd places.
import { storeSum } from './lanes';

@inline
function addEven(sum: v128, query: v128, pairs: v128): v128 {
  return f32x4.add(sum, f32x4.mul(query, i32x4.shl(pairs, 16)));
}

@inline
function addOdd(sum: v128, query: v128, pairs: v128): v128 {
  return f32x4.add(sum, f32x4.mul(query, v128.and(pairs, i32x4.splat(0xffff0000))));
}

/** Two rows, `bytes` long (a multiple of 32). */
export function dotBf16x2(p: usize, r: usize, query: usize, bytes: usize, out: usize, out2: usize): void {
  let a0 = f32x4.splat(0), a1 = a0, a2 = a0, a3 = a0, b0 = a0, b1 = a0, b2 = a0, b3 = a0;
  const end = query + 2 * bytes;
  do {
    const q0 = v128.load(query), q1 = v128.load(query, 16), q2 = v128.load(query, 32), q3 = v128.load(query, 48);
    let x = v128.load(p);
    a0 = addEven(a0, q0, x);
    a1 = addOdd(a1, q1, x);
    x = v128.load(p, 16);
    a2 = addEven(a2, q2, x);
    a3 = addOdd(a3, q3, x);
    x = v128.load(r);
    b0 = addEven(b0, q0, x);
    b1 = addOdd(b1, q1, x);
    x = v128.load(r, 16);
    b2 = addEven(b2, q2, x);
    b3 = addOdd(b3, q3, x);
    query += 64;
    p += 32;
    r += 32;
  } while (query < end);
  storeSum(out, f32x4.add(f32x4.add(a0, a1), f32x4.add(a2, a3)));
  storeSum(out2, f32x4.add(f32x4.add(b0, b1), f32x4.add(b2, b3)));
}

/** Four rows; the sums go side by side. */
export function dotBf16x4(p: usize, r: usize, s: usize, t: usize, query: usize, bytes: usize, out: usize): void {
  let a = f32x4.splat(0), b = a, c = a, d = a, a2 = a, b2 = a, c2 = a, d2 = a;
  const end = query + 2 * bytes;
  do {
    const q0 = v128.load(query), q1 = v128.load(query, 16);
    let x = v128.load(p);
    a = addEven(a, q0, x);
    a2 = addOdd(a2, q1, x);
    x = v128.load(r);
    b = addEven(b, q0, x);
    b2 = addOdd(b2, q1, x);
    x = v128.load(s);
    c = addEven(c, q0, x);
    c2 = addOdd(c2, q1, x);
    x = v128.load(t);
    d = addEven(d, q0, x);
    d2 = addOdd(d2, q1, x);
    query += 32;
    p += 16;
    r += 16;
    s += 16;
    t += 16;
  } while (query < end);
  storeSum(out, f32x4.add(a, a2));
  storeSum(out + 4, f32x4.add(b, b2));
  storeSum(out + 8, f32x4.add(c, c2));
  storeSum(out + 12, f32x4.add(d, d2));
}
