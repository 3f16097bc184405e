// A random rotation: spreads the energy of a few large coordinates over all, so that one scale fits the whole row.

/** Three rounds make any coordinate reach any other, also where the Hadamard blocks are much shorter than the row. */
const rounds = 3;

/** Every segment that is rotated at all uses this one, so that a query is rotated once for all of them. */
export const rotationSeed = 0x5eed_c0de;

/**
 * An orthogonal map of `padDims` values, fixed by its seed: rounds of random signs, a random permutation, and the
 * normalised Hadamard transform in blocks of the largest power of two that divides `padDims`.
 *
 * Inner products and norms stay as they are, up to float64 rounding (below 1e-13 of the product of the norms).
 */
export class Rotation {
  readonly #block: number;
  /** By round, where the value of each place comes from and by what it is multiplied. */
  readonly #sources: readonly Uint16Array[];
  readonly #factors: readonly Float64Array[];
  readonly #spare: Float64Array;

  /** @param padDims multiple of 16, at most 65,536 */
  constructor(seed: number, padDims: number) {
    this.#block = padDims & -padDims;
    const next = randomWords(seed);
    const norm = 1 / Math.sqrt(this.#block);
    const sources: Uint16Array[] = [];
    const factors: Float64Array[] = [];
    for (let round = 0; round < rounds; round += 1) {
      factors.push(Float64Array.from({ length: padDims }, () => ((next() & 1) === 0 ? norm : -norm)));
      sources.push(shuffled(padDims, next));
    }
    this.#sources = sources;
    this.#factors = factors;
    this.#spare = new Float64Array(padDims);
  }

  /** Rotates `values` in place. */
  apply(values: Float64Array): void {
    const spare = this.#spare;
    for (let round = 0; round < rounds; round += 1) {
      const source = this.#sources[round]!;
      const factor = this.#factors[round]!;
      for (let i = 0; i < spare.length; i += 1) spare[i] = values[source[i]!]! * factor[i]!;
      transform(spare, this.#block);
      values.set(spare);
    }
  }
}

/** Hadamard transform of each `block` values, not normalised. */
function transform(values: Float64Array, block: number): void {
  for (let half = 1; half < block; half *= 2) {
    for (let start = 0; start < values.length; start += 2 * half) {
      for (let i = start; i < start + half; i += 1) {
        const a = values[i]!;
        const b = values[i + half]!;
        values[i] = a + b;
        values[i + half] = a - b;
      }
    }
  }
}

/** 0 to n-1 in random order (Fisher and Yates). */
function shuffled(n: number, next: () => number): Uint16Array {
  const order = Uint16Array.from({ length: n }, (_, i) => i);
  for (let i = n - 1; i > 0; i -= 1) {
    const j = Math.floor((next() / 2 ** 32) * (i + 1));
    const value = order[i]!;
    order[i] = order[j]!;
    order[j] = value;
  }
  return order;
}

/** 32-bit words from a counter by the finisher of MurmurHash3: stored codes depend on it, so it never changes. */
function randomWords(seed: number): () => number {
  let counter = seed >>> 0;
  return () => {
    counter = (counter + 0x9e3779b9) >>> 0;
    let word = counter;
    word = Math.imul(word ^ (word >>> 16), 0x85ebca6b);
    word = Math.imul(word ^ (word >>> 13), 0xc2b2ae35);
    return (word ^ (word >>> 16)) >>> 0;
  };
}
