// What the int8 codes leave out is never more than the numbers stored beside them say.
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { fromBfloat16, toBfloat16 } from '../../../functions/core/vectors/kernel/bfloat16.ts';
import { encodeCodes, encodeQuery, queryCodeMax } from '../../../functions/core/vectors/kernel/codes.ts';
import { Rotation } from '../../../functions/core/vectors/kernel/rotation.ts';
import { bell, flavours, generator, tableOf, vectorsOf } from './kernel-rows.ts';

const anyData = fc.record({
  seed: fc.integer({ min: 1, max: 2 ** 31 }),
  dims: fc.oneof(fc.integer({ min: 1, max: 100 }), fc.constantFrom(384, 768, 1_040, 4_096)),
  flavour: fc.constantFrom(...flavours, 'alternating' as const, 'one huge' as const, 'denormal' as const),
});

function rowsOf(flavour: string, dims: number, random: () => number): Float32Array[] {
  const known = flavours.find((name) => name === flavour);
  if (known !== undefined) return vectorsOf(known, 12, dims, random);
  return Array.from({ length: 12 }, (_, i) =>
    Float32Array.from({ length: dims }, (_, j) => {
      if (flavour === 'alternating') return (j % 2 === 0 ? 1 : -1) * (1 + i * 2 ** -20);
      if (flavour === 'one huge') return j === i % dims ? 2 ** 30 * (random() - 0.5) : bell(random);
      return bell(random) * 2 ** -135;
    }),
  );
}

const dot = (a: ArrayLike<number>, b: ArrayLike<number>, from = 0): number => {
  let sum = 0;
  for (let j = 0; j < a.length; j += 1) sum += a[j]! * b[from + j]!;
  return sum;
};

describe('encodeCodes', () => {
  it('bounds the error of every inner product, also of extreme rows and queries', () => {
    fc.assert(
      fc.property(anyData, ({ seed, dims, flavour }) => {
        const random = generator(seed);
        const table = tableOf(rowsOf(flavour, dims, random), dims);
        const { padDims, vectors } = table;
        const coded = encodeCodes(vectors, table.rows, dims, padDims);
        const rotation = coded.rotationSeed === null ? undefined : new Rotation(coded.rotationSeed, padDims);
        const queries = [
          Float64Array.from({ length: padDims }, (_, j) => (j < dims ? bell(random) : 0)),
          Float64Array.from({ length: padDims }, (_, j) => (j < dims ? (j % 2 === 0 ? 1 : -1) : 0)),
          Float64Array.from(vectors.subarray(0, padDims)),
          new Float64Array(padDims),
        ];
        for (const query of queries) {
          const turned = query.slice();
          rotation?.apply(turned);
          const { values, step, residual } = encodeQuery(turned);
          const norm = Math.sqrt(dot(query, query));
          for (let i = 0; i < table.rows; i += 1) {
            const row = vectors.subarray(i * padDims, (i + 1) * padDims);
            const sum = dot(values, coded.codes, i * padDims);
            expect(Math.abs(sum)).toBeLessThan(2 ** 31);
            const bound = norm * coded.residuals[i]! + residual * coded.norms[i]!;
            const slack = 1e-9 * norm * (coded.norms[i]! + coded.residuals[i]!);
            expect(Math.abs(dot(query, row) - coded.scales[i]! * step * sum)).toBeLessThanOrEqual(
              bound + slack,
            );
            // The coarse comparison of the kernel counts on it.
            expect(coded.residuals[i]!).toBeLessThanOrEqual(
              (Math.sqrt(padDims) / 2) * coded.scales[i]! * (1 + 2 ** -20),
            );
          }
        }
      }),
      { numRuns: 150 },
    );
  });

  it('keeps the sum of the largest codes of any length inside int32', () => {
    for (let padDims = 16; padDims <= 4_096; padDims += 16) {
      const most = queryCodeMax(padDims);
      expect(most * 127 * padDims).toBeLessThan(2 ** 31);
      expect(most).toBeGreaterThanOrEqual(4_128);
      expect(most).toBeLessThan(2 ** 14);
    }
  });

  it('rotates rows with a few large coordinates, which brings their residuals to the usual size', () => {
    const random = generator(7);
    const plain = tableOf(vectorsOf('random', 200, 384, random), 384);
    expect(encodeCodes(plain.vectors, 200, 384, 384).rotationSeed).toBeNull();
    const skewed = tableOf(vectorsOf('outliers', 200, 384, random), 384);
    const { rotationSeed, residuals } = encodeCodes(skewed.vectors, 200, 384, 384);
    expect(rotationSeed).not.toBeNull();
    const shares = Array.from(residuals, (residual, i) => {
      const row = skewed.vectors.subarray(i * 384, (i + 1) * 384);
      return residual / (Math.sqrt(dot(row, row)) || 1);
    });
    expect(Math.max(...shares)).toBeLessThan(0.012);
  });

  it('codes zero rows and the padding as zeros', () => {
    const { codes, scales, residuals, norms } = encodeCodes(new Float32Array(8 * 16), 3, 5, 16);
    for (const list of [codes, scales, residuals, norms]) expect(new Set(list)).toEqual(new Set([0]));
  });

  it('refuses a shape that the values do not have', () => {
    expect(() => encodeCodes(new Float32Array(100), 8, 16, 16)).toThrow(RangeError);
    expect(() => encodeCodes(new Float32Array(128), 9, 16, 16)).toThrow(RangeError);
    expect(() => encodeCodes(new Float32Array(128), 8, 17, 16)).toThrow(RangeError);
  });
});

describe('Rotation', () => {
  it('keeps inner products, of any padded length', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 1, max: 2 ** 31 }), (blocks, seed) => {
        const random = generator(seed);
        const rotation = new Rotation(seed, 16 * blocks);
        const [a, b] = [0, 1].map(() => Float64Array.from({ length: 16 * blocks }, () => bell(random))) as [
          Float64Array,
          Float64Array,
        ];
        const before = dot(a, b);
        const scale = Math.sqrt(dot(a, a) * dot(b, b));
        rotation.apply(a);
        rotation.apply(b);
        expect(Math.abs(dot(a, b) - before)).toBeLessThan(1e-13 * scale);
      }),
      { numRuns: 60 },
    );
  });

  it('is the same for the same seed, today and in stored segments', () => {
    const values = Float64Array.from({ length: 48 }, (_, i) => i + 1);
    new Rotation(0x5eedc0de, 48).apply(values);
    const shown = Array.from(values.subarray(0, 4), (value) => Number(value.toFixed(6)));
    expect(shown).toMatchInlineSnapshot(`
      [
        21,
        14.625,
        44.75,
        29.125,
      ]
    `);
  });
});

describe('bfloat16', () => {
  it('rounds to the nearest of the values it has, ties to even', () => {
    fc.assert(
      fc.property(
        fc.float({
          noNaN: true,
          noDefaultInfinity: true,
          min: Math.fround(-3.3e38),
          max: Math.fround(3.3e38),
        }),
        (value) => {
          const rounded = fromBfloat16(toBfloat16(Float32Array.of(value)))[0]!;
          const word = new Uint32Array(Float32Array.of(value).buffer)[0]!;
          const [below, above] = [word & 0xffff0000, (word & 0xffff0000) + 0x10000].map(
            (bits) => new Float32Array(Uint32Array.of(bits).buffer)[0]!,
          ) as [number, number];
          const nearest = Math.min(Math.abs(value - below), Math.abs(value - above));
          expect(Math.abs(value - rounded)).toBe(nearest);
          if (Math.abs(value - below) === Math.abs(value - above)) {
            expect(toBfloat16(Float32Array.of(value))[0]! & 1).toBe(0);
          }
          expect(Object.is(fromBfloat16(toBfloat16(Float32Array.of(rounded)))[0], rounded)).toBe(true);
        },
      ),
    );
  });

  it('refuses what has no finite value, naming the place', () => {
    const largest = new Float32Array(Uint32Array.of(0x7f7f7fff).buffer)[0]!;
    expect(fromBfloat16(toBfloat16(Float32Array.of(largest)))[0]).toBe(
      new Float32Array(Uint32Array.of(0x7f7f0000).buffer)[0],
    );
    for (const value of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY, 3.4028234e38]) {
      expect(() => toBfloat16(Float32Array.of(1, value))).toThrow(/Value 1 /);
    }
  });
});
