// Inner products of staged int16 rows and int16 queries, for many queries at once; exact in int32.
import { storeIntegerSum } from './lanes';

@inline
function add(sum: v128, query: v128, row: v128): v128 {
  return i32x4.add(sum, i32x4.dot_i16x8_s(query, row));
}

/**
 * Two rows against four queries, all `bytes` long and `bytes` apart: each value that is loaded serves several
 * products. Sums of one query lie side by side, those of the next `outStride` bytes further.
 */
export function dotI16x2x4(row: usize, query: usize, bytes: usize, out: usize, outStride: usize): void {
  let a0 = i32x4.splat(0), a1 = a0, a2 = a0, a3 = a0, b0 = a0, b1 = a0, b2 = a0, b3 = a0;
  const end = query + bytes;
  let q0 = query, q1 = q0 + bytes, q2 = q1 + bytes, q3 = q2 + bytes, p = row, r = row + bytes;
  do {
    const x = v128.load(p), y = v128.load(r);
    let q = v128.load(q0);
    a0 = add(a0, q, x);
    b0 = add(b0, q, y);
    q = v128.load(q1);
    a1 = add(a1, q, x);
    b1 = add(b1, q, y);
    q = v128.load(q2);
    a2 = add(a2, q, x);
    b2 = add(b2, q, y);
    q = v128.load(q3);
    a3 = add(a3, q, x);
    b3 = add(b3, q, y);
    q0 += 16;
    q1 += 16;
    q2 += 16;
    q3 += 16;
    p += 16;
    r += 16;
  } while (q0 < end);
  storeIntegerSum(out, a0);
  storeIntegerSum(out + 4, b0);
  out += outStride;
  storeIntegerSum(out, a1);
  storeIntegerSum(out + 4, b1);
  out += outStride;
  storeIntegerSum(out, a2);
  storeIntegerSum(out + 4, b2);
  out += outStride;
  storeIntegerSum(out, a3);
  storeIntegerSum(out + 4, b3);
}
