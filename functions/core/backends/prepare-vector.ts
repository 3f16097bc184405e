// The form in which a vector goes into a backend and into its queries: one that ranks the same and that all of them take.
import { createHash } from 'node:crypto';
import type { Metric } from '../vectors/vector.ts';

/**
 * A cosine depends on directions only, so vectors go out with length 1: squares of very small or large values would
 * leave float32 in a backend's own arithmetic.
 *
 * The zero vector has no direction and backends refuse it. Its cosine with anything is 0 here; a direction that its id
 * decides is about as far from any query, and a hit gets its true score from the segments. As a query, any direction
 * will do: all scores are 0.
 *
 * @param name decides the direction of a zero vector
 */
export function prepareVector(metric: Metric, vector: Float32Array, name: string): Float32Array {
  if (metric !== 'cosine') return vector;
  // Scaled by the largest value first, so that no square overflows or vanishes.
  let largest = 0;
  for (const value of vector) largest = Math.max(largest, Math.abs(value));
  if (largest === 0) return directionOf(name, vector.length);
  let sum = 0;
  for (const value of vector) sum += (value / largest) ** 2;
  const length = Math.sqrt(sum);
  return vector.map((value) => value / largest / length);
}

/** A direction that looks random and is the same for the same name. */
function directionOf(name: string, dims: number): Float32Array {
  const bytes = createHash('shake256', { outputLength: 4 * dims })
    .update(name)
    .digest();
  const values = new Float32Array(dims);
  // The middle of a step, so never zero.
  for (let i = 0; i < dims; i += 1) values[i] = (bytes.readUInt32LE(4 * i) + 0.5) / 2 ** 31 - 1;
  let sum = 0;
  for (const value of values) sum += value * value;
  return values.map((value) => value / Math.sqrt(sum));
}
