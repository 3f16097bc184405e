// Turns vectors at random: signs, a permutation and a Hadamard transform in blocks, twice. Lengths stay.
import { randomNumbers } from '../random.ts';

/** @returns a function that turns a vector of `dims` values in place */
export function makeRotation(dims: number, seed: number): (vector: Float32Array) => void {
  // Blocks are the largest power of two that divides the dimension.
  const block = dims & -dims;
  const random = randomNumbers(seed);
  const rounds = Array.from({ length: 2 }, () => {
    const order = Uint32Array.from({ length: dims }, (_, i) => i);
    for (let i = dims - 1; i > 0; i -= 1) {
      const other = Math.floor(random() * (i + 1));
      [order[i], order[other]] = [order[other]!, order[i]!];
    }
    return { order, signs: Float32Array.from({ length: dims }, () => (random() < 0.5 ? -1 : 1)) };
  });
  const other = new Float32Array(dims);
  const scale = 1 / Math.sqrt(block);
  return (vector) => {
    for (const { order, signs } of rounds) {
      for (let i = 0; i < dims; i += 1) other[i] = vector[order[i]!]! * signs[i]! * scale;
      for (let half = 1; half < block; half *= 2) {
        for (let i = 0; i < dims; i += 2 * half) {
          for (let k = i; k < i + half; k += 1) {
            const sum = other[k]! + other[k + half]!;
            other[k + half] = other[k]! - other[k + half]!;
            other[k] = sum;
          }
        }
      }
      vector.set(other);
    }
  };
}
