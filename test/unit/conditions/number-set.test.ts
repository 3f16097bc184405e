// Sets of numbers say of every number what the comparison says that they stand for.
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { NumberSet } from '../../../functions/core/conditions/number-set.ts';

const edges = [
  0,
  -0,
  Number.MIN_VALUE,
  -Number.MIN_VALUE,
  Number.MAX_VALUE,
  -Number.MAX_VALUE,
  1,
  2 ** 53,
  0.1,
];
const finite = fc.oneof(fc.constantFrom(...edges), fc.double({ noNaN: true, noDefaultInfinity: true }));

/** The float64 just above or below, by counting bits. */
function neighbour(x: number, step: 1n | -1n): number {
  const view = new DataView(new ArrayBuffer(8));
  view.setFloat64(0, x);
  view.setBigUint64(0, view.getBigUint64(0) + step);
  return view.getFloat64(0);
}

test('one side of a bound holds exactly the numbers that the operator accepts, next to the bound too', () => {
  const operators = {
    gt: (x: number, y: number) => x > y,
    gte: (x: number, y: number) => x >= y,
    lt: (x: number, y: number) => x < y,
    lte: (x: number, y: number) => x <= y,
  };
  fc.assert(
    fc.property(finite, finite, (bound, other) => {
      const near = [neighbour(bound, 1n), neighbour(bound, -1n)].filter(Number.isFinite);
      for (const [name, holds] of Object.entries(operators)) {
        const set = NumberSet.beside(name as keyof typeof operators, bound);
        for (const x of [bound, -bound, other, ...near, ...edges]) expect(set.has(x)).toBe(holds(x, bound));
      }
    }),
  );
});

test('a set of numbers holds those numbers and no others', () => {
  fc.assert(
    fc.property(fc.array(finite, { maxLength: 6 }), finite, (members, other) => {
      const set = NumberSet.of(members);
      for (const x of [...members, other, ...edges]) expect(set.has(x)).toBe(members.some((y) => x === y));
      expect(set.has(Number.NaN)).toBe(false);
    }),
  );
  expect(NumberSet.none.has(0)).toBe(false);
});
