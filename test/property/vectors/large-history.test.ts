// Segments of hundreds of real vectors answer to the last bit like a scan in double precision, after any history.
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { fromBfloat16, toBfloat16 } from '../../../functions/core/vectors/kernel/bfloat16.ts';
import { checkLargeHistory, largeHistory, rounded } from './large-history.ts';

/** `npm run fuzz:vectors` runs many more. */
const histories = 1_000;

test('ids and scores are those of a scan in double precision, for all clouds of vectors, filters and limits', async () => {
  await fc.assert(fc.asyncProperty(largeHistory, checkLargeHistory), { numRuns: histories });
}, 300_000);

test('rounding to bfloat16 is that of arithmetic, for numbers of every size', () => {
  // The exponent is drawn by itself, so that the smallest numbers come up as often as others.
  const anyBits = fc
    .record({ sign: fc.nat(1), exponent: fc.oneof(fc.nat(3), fc.nat(253)), fraction: fc.nat(2 ** 23 - 1) })
    .map(({ sign, exponent, fraction }) => ((sign << 31) | (exponent << 23) | fraction) >>> 0);
  fc.assert(
    fc.property(anyBits, (bits) => {
      const value = new Float32Array(Uint32Array.of(bits).buffer);
      expect(fromBfloat16(toBfloat16(value))[0]! + 0).toBe(rounded(value[0]!) + 0);
    }),
    { numRuns: 5_000 },
  );
});
