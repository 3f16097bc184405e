// Whether programs found the same: no speed counts before that.
import type { Call, Hit } from './protocol.ts';

/**
 * Two sums of float32 products of vectors of length 1, added up in any order, differ by less than this: what comes
 * nearer is a tie, which programs without a rule for ties may order as they like.
 */
const tieMax = 2e-6;

/**
 * Compares what somebody found with the truth: at each place the same row, or another one whose true score is so near
 * that float32 cannot tell them apart.
 *
 * @param trueScore of a row for this query
 * @throws Error naming the first difference
 */
export function assertSameHits(
  who: string,
  found: readonly Hit[],
  truth: readonly Hit[],
  trueScore: (row: number) => number,
): void {
  const differs = (place: number, what: string): never => {
    throw new Error(`${who} found something else at place ${place + 1}: ${what}`);
  };
  if (found.length !== truth.length)
    throw new Error(`${who} found ${found.length} rows, ${truth.length} are right`);
  const rows = new Set<number>();
  for (const [place, [row, score]] of found.entries()) {
    const [rightRow, rightScore] = truth[place]!;
    if (rows.has(row)) differs(place, `row ${row} once more`);
    rows.add(row);
    const real = row === rightRow ? rightScore : trueScore(row);
    if (Math.abs(real - rightScore) > tieMax)
      differs(place, `row ${row} of score ${real}, right is row ${rightRow} of ${rightScore}`);
    if (Math.abs(score - real) > tieMax) differs(place, `row ${row} with score ${score}, which is ${real}`);
  }
}

/** Compares ways of one engine that promise the same bits. @throws Error naming the first difference */
export function assertIdentical(who: string, found: readonly Hit[], other: readonly Hit[]): void {
  const same =
    found.length === other.length &&
    found.every(([row, score], i) => row === other[i]![0] && score === other[i]![1]);
  if (!same) throw new Error(`${who} differs: ${JSON.stringify(found)} and ${JSON.stringify(other)}`);
}

/** The hits of each call, which has one query each. */
export function hitsOf(calls: readonly Call[]): readonly (readonly Hit[])[] {
  return calls.map(({ found }) => found![0]!);
}
