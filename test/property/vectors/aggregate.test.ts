// Groups of documents and their numbers are what going through the documents one by one gives.
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { parse } from '../../../functions/core/conditions/parse.ts';
import type { Measure } from '../../../functions/core/vectors/aggregate.ts';
import { aggregate, measureFunctions } from '../../../functions/core/vectors/aggregate.ts';
import { ExactSum } from '../../../functions/core/vectors/exact-sum.ts';
import { history, play } from './document-history.ts';
import { conditionTree, type Document, type Json, lookUp, naiveEvaluate, naiveOrder } from './model.ts';

const field = fc.constantFrom('a', 'b', 'n', 'metadata.m', 'a.x', 'nowhere');
const measure: fc.Arbitrary<Measure> = fc.oneof(
  fc.constant({ function: 'count' as const }),
  fc.record({ function: fc.constantFrom(...measureFunctions), field }),
);

/** A float64 as a whole number of the smallest float64, 2^-1074. */
function wholeOf(x: number): bigint {
  const view = new DataView(new ArrayBuffer(8));
  view.setFloat64(0, x);
  const bits = view.getBigUint64(0);
  const exponent = (bits >> 52n) & 0x7ffn;
  const fraction = bits & 0xfffffffffffffn;
  const size = exponent === 0n ? fraction : (fraction | (1n << 52n)) << (exponent - 1n);
  return x < 0 ? -size : size;
}

/** The sum in whole numbers, rounded once to the nearest float64. */
function naiveSum(numbers: readonly number[]): number {
  const sum = numbers.reduce((total, x) => total + wholeOf(x), 0n);
  const size = sum < 0n ? -sum : sum;
  const shift = BigInt(Math.max(0, size.toString(2).length - 64));
  // The lowest bit stands for all that is cut off, so that the conversion rounds as it would with them.
  const cut = (size & ((1n << shift) - 1n)) === 0n ? 0n : 1n;
  const top = Number((size >> shift) | cut) * (sum < 0n ? -1 : 1);
  const power = Number(shift) - 1074;
  return top * 2 ** Math.trunc(power / 2) * 2 ** (power - Math.trunc(power / 2));
}

function naiveMeasure({ function: name, field: of }: Measure, documents: readonly Document[]): Json {
  if (of === undefined) return documents.length;
  const held = documents.map((each) => (lookUp(each, of).values ?? []).filter((value) => value !== null));
  const values = held.flat();
  const numbers = values.filter((value) => typeof value === 'number');
  const sum = naiveSum(numbers);
  const sorted = values.toSorted(naiveOrder);
  switch (name) {
    case 'count':
      return held.filter((own) => own.length > 0).length;
    case 'count_distinct':
      return new Set(values).size;
    case 'sum':
      return sum;
    case 'avg':
      return numbers.length > 0 ? sum / numbers.length : null;
    case 'min':
      return sorted[0] ?? null;
    case 'max':
      return sorted.at(-1) ?? null;
  }
}

/** JSON has no undefined. */
const keyOf = (values: readonly unknown[]) =>
  JSON.stringify(values.map((value) => (value === undefined ? {} : value)));

test('each document is in the group of each of its values, and each group has the numbers of its documents', () => {
  fc.assert(
    fc.property(
      history,
      fc.option(conditionTree, { nil: undefined }),
      fc.array(field, { minLength: 1, maxLength: 3 }),
      fc.array(measure, { minLength: 1, maxLength: 4 }),
      (steps, tree, groupBy, measures) => {
        const { snapshots, now } = play(steps);
        const documents = [...now.values()].filter((each) => tree === undefined || naiveEvaluate(tree, each));
        const expected = new Map<string, Document[]>();
        for (const each of documents) {
          let places: (Json | undefined)[][] = [[]];
          for (const name of groupBy) {
            const { values } = lookUp(each, name);
            const own = values === undefined ? [undefined] : [...new Set(values)];
            places = places.flatMap((place) => own.map((value) => [...place, value]));
          }
          for (const place of places)
            expected.set(keyOf(place), [...(expected.get(keyOf(place)) ?? []), each]);
        }
        const found = aggregate(snapshots.at(-1)!, {
          groupBy,
          measures,
          filter: tree && parse(tree),
          groupsMax: 10_000,
        });
        expect(found.rows).toBe(documents.length);
        expect(found.groups.length).toBe(expected.size);
        for (const { values, measured } of found.groups) {
          const own = expected.get(keyOf(values));
          expect(own).toBeDefined();
          expect(measured).toEqual(measures.map((one) => naiveMeasure(one, own!)));
        }
      },
    ),
    { numRuns: 300 },
  );
});

test('a sum is exact, rounded once, and the same in any order', () => {
  const number = fc.oneof(
    fc.double({ noNaN: true, noDefaultInfinity: true, min: -1e300, max: 1e300 }),
    fc.constantFrom(1e16, -1e16, 1, -1, 0.1, 2 ** 53, 2 ** -53, 1e300, -1e300, Number.MIN_VALUE),
  );
  fc.assert(
    fc.property(fc.array(number, { maxLength: 12 }), (numbers) => {
      const sumOf = (list: readonly number[]) => {
        const sum = new ExactSum();
        for (const each of list) sum.add(each);
        return sum.value();
      };
      expect(sumOf(numbers) === naiveSum(numbers)).toBe(true);
      expect(sumOf(numbers.toReversed()) === sumOf(numbers)).toBe(true);
    }),
    { numRuns: 2_000 },
  );
  const large = new ExactSum();
  for (let i = 0; i < 3; i += 1) large.add(Number.MAX_VALUE);
  expect(large.value()).toBeUndefined();
});

test('more groups than allowed are refused', () => {
  fc.assert(
    fc.property(history, field, (steps, name) => {
      const snapshot = play(steps).snapshots.at(-1)!;
      const request = { groupBy: [name], measures: [{ function: 'count' as const }] };
      const { length } = aggregate(snapshot, { ...request, groupsMax: 1_000 }).groups;
      expect(aggregate(snapshot, { ...request, groupsMax: length }).groups).toHaveLength(length);
      if (length === 0) return;
      expect(() => aggregate(snapshot, { ...request, groupsMax: length - 1 })).toThrow(
        expect.objectContaining({ code: 'query_invalid' }),
      );
    }),
    { numRuns: 50 },
  );
});
