// Sums over the lanes of an accumulator.

/** Adds four float32 lanes, two roundings deep. */
@inline
export function storeSum(out: usize, a: v128): void {
  const b = f32x4.add(a, v128.shuffle<f32>(a, a, 2, 3, 0, 1));
  store<f32>(out, f32x4.extract_lane(b, 0) + f32x4.extract_lane(b, 1));
}

/** Adds four int32 lanes. */
@inline
export function storeIntegerSum(out: usize, a: v128): void {
  const b = i32x4.add(a, v128.shuffle<i32>(a, a, 2, 3, 0, 1));
  store<i32>(out, i32x4.extract_lane(b, 0) + i32x4.extract_lane(b, 1));
}
