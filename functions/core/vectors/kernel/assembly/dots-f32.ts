// Inner products of float32 rows and one float32 query, four lanes wide.
import { storeSum } from './lanes';

@inline
function add(sum: v128, query: v128, row: v128): v128 {
  return f32x4.add(sum, f32x4.mul(query, row));
}

@inline
function sum4(a: v128, b: v128, c: v128, d: v128): v128 {
  return f32x4.add(f32x4.add(a, b), f32x4.add(c, d));
}

/** Two rows, `bytes` long (a multiple of 64), four accumulators each. */
export function dotF32x2(p: usize, r: usize, query: usize, bytes: usize, out: usize, out2: usize): void {
  let a0 = f32x4.splat(0), a1 = a0, a2 = a0, a3 = a0, b0 = a0, b1 = a0, b2 = a0, b3 = a0;
  const end = query + bytes;
  do {
    const q0 = v128.load(query), q1 = v128.load(query, 16), q2 = v128.load(query, 32), q3 = v128.load(query, 48);
    a0 = add(a0, q0, v128.load(p));
    a1 = add(a1, q1, v128.load(p, 16));
    a2 = add(a2, q2, v128.load(p, 32));
    a3 = add(a3, q3, v128.load(p, 48));
    b0 = add(b0, q0, v128.load(r));
    b1 = add(b1, q1, v128.load(r, 16));
    b2 = add(b2, q2, v128.load(r, 32));
    b3 = add(b3, q3, v128.load(r, 48));
    query += 64;
    p += 64;
    r += 64;
  } while (query < end);
  storeSum(out, sum4(a0, a1, a2, a3));
  storeSum(out2, sum4(b0, b1, b2, b3));
}

/** Four rows; the sums go side by side. */
export function dotF32x4(p: usize, r: usize, s: usize, t: usize, query: usize, bytes: usize, out: usize): void {
  let a = f32x4.splat(0), b = a, c = a, d = a, a2 = a, b2 = a, c2 = a, d2 = a;
  const end = query + bytes;
  do {
    const q0 = v128.load(query), q1 = v128.load(query, 16), q2 = v128.load(query, 32), q3 = v128.load(query, 48);
    a = add(a, q0, v128.load(p));
    a2 = add(a2, q1, v128.load(p, 16));
    a = add(a, q2, v128.load(p, 32));
    a2 = add(a2, q3, v128.load(p, 48));
    b = add(b, q0, v128.load(r));
    b2 = add(b2, q1, v128.load(r, 16));
    b = add(b, q2, v128.load(r, 32));
    b2 = add(b2, q3, v128.load(r, 48));
    c = add(c, q0, v128.load(s));
    c2 = add(c2, q1, v128.load(s, 16));
    c = add(c, q2, v128.load(s, 32));
    c2 = add(c2, q3, v128.load(s, 48));
    d = add(d, q0, v128.load(t));
    d2 = add(d2, q1, v128.load(t, 16));
    d = add(d, q2, v128.load(t, 32));
    d2 = add(d2, q3, v128.load(t, 48));
    query += 64;
    p += 64;
    r += 64;
    s += 64;
    t += 64;
  } while (query < end);
  storeSum(out, f32x4.add(a, a2));
  storeSum(out + 4, f32x4.add(b, b2));
  storeSum(out + 8, f32x4.add(c, c2));
  storeSum(out + 12, f32x4.add(d, d2));
}
