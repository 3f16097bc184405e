// The comparison that stands before every figure of `npm run bench:vectors`: it lets through what is right, and nothing else.
import { describe, expect, test } from 'vitest';
import { assertIdentical, assertSameHits } from '../../../bench/vectors/check.ts';
import type { Hit } from '../../../bench/vectors/protocol.ts';

const truth: readonly Hit[] = [
  [7, 0.9],
  [3, 0.8],
  [5, 0.8],
];
const scores = new Map([...truth, [9, 0.7999999], [1, 0.5]]);
const check = (found: readonly Hit[]) => () =>
  assertSameHits('somebody', found, truth, (row) => scores.get(row)!);

describe('somebody found', () => {
  test.each<[string, readonly Hit[]]>([
    ['the truth', truth],
    ['the truth with the rounding of float32', truth.map(([row, score]) => [row, score + 1e-7])],
    ['equal rows in another order', [truth[0]!, truth[2]!, truth[1]!]],
    ['another row that float32 cannot tell from the right one', [truth[0]!, truth[1]!, [9, 0.8]]],
  ])('%s: nothing is wrong', (_, found) => {
    expect(check(found)).not.toThrow();
  });

  test.each<[string, readonly Hit[], RegExp]>([
    ['a worse row', [truth[0]!, truth[1]!, [1, 0.5]], /place 3: row 1 of score 0.5/],
    ['the rows in a wrong order', [truth[1]!, truth[0]!, truth[2]!], /place 1: row 3/],
    ['too few rows', truth.slice(1), /2 rows, 3 are right/],
    ['a row twice', [truth[0]!, truth[1]!, truth[1]!], /row 3 once more/],
    ['a right row with a wrong score', [[7, 0.91], truth[1]!, truth[2]!], /score 0.91/],
  ])('%s: it is said who and where', (_, found, message) => {
    expect(check(found)).toThrow(message);
    expect(check(found)).toThrow(/^somebody/);
  });
});

test('ways of one engine are compared to the last bit', () => {
  expect(() => assertIdentical('a batch', truth, [...truth])).not.toThrow();
  const near = truth.map(([row, score]): Hit => [row, score * (1 + 2 ** -52)]);
  expect(() => assertIdentical('a batch', truth, near)).toThrow(/^a batch differs/);
});
