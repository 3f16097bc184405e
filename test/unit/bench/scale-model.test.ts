// The model behind `npm run bench:scale`: prices as billed, bounds kept, crossovers where the estimates cross.
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { Inputs, Measure } from '../../../bench/scale-model.ts';
import {
  backends,
  bestBackend,
  bestRanges,
  estimate,
  limits,
  s3VectorsQuery,
} from '../../../bench/scale-model.ts';

const inputs: Inputs = {
  codeBytesPerS: 13e9,
  rowsReranked: 28,
  lambdaReadBytesPerS: 10e9,
  networkBytesPerS: 75e6,
  initMs: 250,
  invokeMs: 15,
  s3FirstByteMs: 25,
  lanceBytesPerS: 0.27e9,
  s3VectorsMs: { warm: 100, cold: 1_000 },
  spreadVectors: false,
};

const rows = fc.double({ min: 4, max: 9, noNaN: true }).map((power) => Math.round(10 ** power));
const dims = fc.integer({ min: 1, max: 4_096 });
const measures: readonly Measure[] = ['warmMs', 'coldMs', 'per1000'];

describe('prices', () => {
  test("a million queries of AWS's own example, 250,000 vectors of 5.17 KiB in the index, cost $5.87", () => {
    expect(1e6 * s3VectorsQuery(250_000, 5.17 * 1024)).toBeCloseTo(5.87, 2);
  });

  test('the steps of the price join: one more vector never costs more than the first', () => {
    const first = s3VectorsQuery(1, 1_000) - s3VectorsQuery(0, 1_000);
    for (const at of [1e5, 1e7]) {
      const more = s3VectorsQuery(at + 1, 1_000) - s3VectorsQuery(at, 1_000);
      expect(more).toBeGreaterThan(0);
      expect(more).toBeLessThanOrEqual(first * (1 + 1e-6));
    }
  });
});

describe('estimates', () => {
  test('more vectors are never faster, and never cheaper to keep, within one way of doing it', () => {
    fc.assert(
      fc.property(rows, dims, fc.constantFrom(...backends), (count, dimensions, backend) => {
        const [less, more] = [count, count * 2].map((some) => estimate(backend, some, dimensions, inputs));
        if (less === undefined || more === undefined) return;
        expect(more.storageMonth).toBeGreaterThan(less.storageMonth);
        if (less.functions === more.functions && less.rerankFrom === more.rerankFrom) {
          expect(more.warmMs).toBeGreaterThanOrEqual(less.warmMs);
          expect(more.coldMs).toBeGreaterThanOrEqual(less.coldMs);
          expect(more.per1000).toBeGreaterThanOrEqual(less.per1000);
        }
      }),
    );
  });

  test('nothing needs more functions than a stage can have, nor longer than the gateway waits', () => {
    fc.assert(
      fc.property(rows, dims, fc.constantFrom(...backends), (count, dimensions, backend) => {
        const found = estimate(backend, count, dimensions, inputs);
        expect(found?.functions ?? 0).toBeLessThanOrEqual(limits.functionsMax);
        expect(found?.warmMs ?? 0).toBeLessThanOrEqual(limits.answerMs);
      }),
    );
  });

  test('one function scans by itself exactly as long as it takes the codes, and from memory alone as long as vectors fit too', () => {
    const perRow = 384 + 16;
    const most = Math.floor(limits.scanBytes / perRow);
    expect(estimate('scan', most, 384, inputs)).toMatchObject({ functions: 1, rerankFrom: 'store' });
    expect(estimate('scan', most + 1, 384, inputs)).toBeUndefined();
    const inMemory = Math.floor(limits.arenaBytes / (perRow + 4 * 384));
    expect(estimate('scan', inMemory, 384, inputs)).toMatchObject({ rerankFrom: 'memory' });
    expect(estimate('scan', inMemory + 1, 384, inputs)).toMatchObject({ rerankFrom: 'store' });
  });

  test('several functions hold codes and vectors as long as there are enough of them', () => {
    expect(estimate('fan-out', 1e7, 384, inputs)).toMatchObject({ functions: 17, rerankFrom: 'memory' });
    expect(estimate('fan-out', 1e8, 384, inputs)).toMatchObject({
      functions: 34,
      rerankFrom: 'store',
    });
  });

  test('spreading what one function takes by its codes would save the reads from S3', () => {
    const spread = { ...inputs, spreadVectors: true };
    const alone = estimate('scan', 1e6, 384, inputs)!;
    const shared = estimate('fan-out', 1e6, 384, spread)!;
    expect(estimate('fan-out', 1e6, 384, inputs)).toBeUndefined();
    expect(alone).toMatchObject({ functions: 1, rerankFrom: 'store' });
    expect(shared).toMatchObject({ functions: 2, rerankFrom: 'memory' });
    expect(shared.per1000).toBeLessThan(alone.per1000);
    expect(shared.warmMs).toBeLessThan(alone.warmMs);
  });

  test('a scan is as fast as the slower of kernel and memory', () => {
    const warm = (codeBytesPerS: number) =>
      estimate('scan', 100_000, 384, { ...inputs, codeBytesPerS })!.warmMs;
    expect(warm(20e9)).toBe(warm(10e9));
    expect(warm(5e9)).toBeGreaterThan(warm(10e9));
  });

  test('only S3 Vectors answers approximately', () => {
    const found = backends.map((backend) => {
      const exact = [1e5, 1e7].map((count) => estimate(backend, count, 384, inputs)?.exact);
      return [backend, ...new Set(exact.filter((one) => one !== undefined))];
    });
    expect(found).toEqual([
      ['scan', true],
      ['fan-out', true],
      ['s3-vectors', false],
      ['lancedb', true],
    ]);
  });

  test('an index is given to several functions only if one cannot take it', () => {
    fc.assert(
      fc.property(rows, dims, (count, dimensions) => {
        const one = estimate('scan', count, dimensions, inputs);
        const several = estimate('fan-out', count, dimensions, inputs);
        expect(one !== undefined && several !== undefined).toBe(false);
        expect(several?.functions ?? 2).toBeGreaterThanOrEqual(2);
      }),
    );
  });
});

describe('crossovers', () => {
  test.each(measures)(
    'by %s: each range begins with the best backend, and ends one vector later than the one before',
    (measure) => {
      for (const dimensions of [128, 384, 768]) {
        const ranges = bestRanges(measure, dimensions, inputs);
        expect(ranges[0]!.from).toBe(1e4);
        for (const [i, { from, backend }] of ranges.entries()) {
          expect(bestBackend(measure, from, dimensions, inputs)).toBe(backend);
          if (i > 0) expect(bestBackend(measure, from - 1, dimensions, inputs)).not.toBe(backend);
        }
      }
    },
  );

  test('a slower kernel makes S3 Vectors the cheaper choice earlier', () => {
    const from = (some: Inputs) =>
      bestRanges('per1000', 384, some).find(({ backend }) => backend === 's3-vectors')?.from ?? 1e9;
    // Otherwise the reads from S3 decide, and not the kernel.
    const spread = { ...inputs, spreadVectors: true };
    expect(from({ ...spread, codeBytesPerS: 2e9 })).toBeLessThan(from(spread));
  });
});
