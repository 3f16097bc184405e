// Numbers that depend on a seed alone, so that two runs measure the same vectors.

/** From 0 to 1, 1 left out (mulberry32). */
export function randomNumbers(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** Of mean 0 and variance 1 (Marsaglia's polar method, which needs no sine). */
export function normalNumbers(seed: number): () => number {
  const random = randomNumbers(seed);
  let spare: number | undefined;
  return () => {
    if (spare !== undefined) {
      const kept = spare;
      spare = undefined;
      return kept;
    }
    for (;;) {
      const x = 2 * random() - 1;
      const y = 2 * random() - 1;
      const squared = x * x + y * y;
      if (squared >= 1 || squared === 0) continue;
      const factor = Math.sqrt((-2 * Math.log(squared)) / squared);
      spare = y * factor;
      return x * factor;
    }
  };
}
