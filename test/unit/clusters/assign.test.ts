// The nearest group of a vector against a naive reference, for every metric; and what has no nearest group.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Assignment, Centroids } from '../../../functions/core/resources/clusters/assign.ts';
import { assignRows } from '../../../functions/core/resources/clusters/assign.ts';

type Metric = Centroids['metric'];

const sum = (values: readonly number[]) => values.reduce((a, b) => a + b, 0);
const product = (a: readonly number[], b: readonly number[]) => sum(a.map((value, i) => value * b[i]!));
const lengthOf = (a: readonly number[]) => Math.sqrt(product(a, a));
const cosine = (a: readonly number[], b: readonly number[]) => product(a, b) / lengthOf(a) / lengthOf(b);
const distance = (a: readonly number[], b: readonly number[]) =>
  Math.sqrt(sum(a.map((value, i) => (value - b[i]!) ** 2)));

/** By the words of the definition, one group after the other. */
function naive(
  metric: Metric,
  row: readonly number[],
  groups: readonly (readonly number[])[],
  reach: readonly number[],
) {
  const nearness = groups.map((group) =>
    metric === 'cosine' ? cosine(row, group) : metric === 'dot' ? product(row, group) : -distance(row, group),
  );
  const most = Math.max(...nearness.filter((value) => !Number.isNaN(value)));
  const best = nearness.indexOf(most);
  if (best < 0) return undefined;
  if (metric !== 'euclid') {
    const score = cosine(row, groups[best]!);
    return Number.isNaN(score) ? undefined : { best, most, nearness, score };
  }
  const far = 2 * reach[best]!;
  const d = distance(row, groups[best]!);
  const score = far === 0 ? (d === 0 ? 1 : 0) : Math.max(0, 1 - d / far);
  return { best, most, nearness, score };
}

const number = fc
  .double({ min: -8, max: 8, noNaN: true })
  .map((value) => Math.fround(Math.round(value * 64) / 64));
const sizes = fc.record({ dims: fc.integer({ min: 1, max: 6 }), groups: fc.integer({ min: 1, max: 5 }) });
const cases = sizes.chain(({ dims, groups }) =>
  fc.record({
    metric: fc.constantFrom<Metric>('cosine', 'dot', 'euclid'),
    dims: fc.constant(dims),
    centroids: fc.array(fc.array(number, { minLength: dims, maxLength: dims }), {
      minLength: groups,
      maxLength: groups,
    }),
    reach: fc.array(fc.double({ min: 0, max: 20, noNaN: true }), { minLength: groups, maxLength: groups }),
    rows: fc.array(fc.array(number, { minLength: dims, maxLength: dims }), { maxLength: 8 }),
    threshold: fc.double({ min: 0, max: 1, noNaN: true }),
  }),
);

const assign = (
  metric: Metric,
  dims: number,
  rows: readonly (readonly number[])[],
  centroids: readonly (readonly number[])[],
  reach: readonly number[],
  threshold: number,
): Assignment[] =>
  assignRows(
    Float32Array.from(rows.flat()),
    { metric, dims, vectors: Float64Array.from(centroids.flat()), reach },
    threshold,
  );

describe('assignment to the nearest group', () => {
  it('is that of a naive reference for every metric, threshold and shape', () => {
    fc.assert(
      fc.property(cases, ({ metric, dims, centroids, reach, rows, threshold }) => {
        // A centroid of zeros has no direction, and no run makes one under these metrics.
        fc.pre(metric === 'euclid' || centroids.every((centroid) => lengthOf(centroid) > 0));
        const found = assign(metric, dims, rows, centroids, reach, threshold);
        expect(found).toHaveLength(rows.length);
        for (const [i, row] of rows.entries()) {
          const wanted = naive(metric, row, centroids, reach);
          const { group, score } = found[i]!;
          if (!wanted) {
            expect({ group, score }).toEqual({ group: -1, score: 0 });
            continue;
          }
          // Rounding may choose among equals, and at the threshold itself either answer is right.
          if (group >= 0) expect(wanted.nearness[group]!).toBeCloseTo(wanted.most, 9);
          if (Math.abs(wanted.score - threshold) > 1e-5 && isAlone(wanted)) {
            expect(score).toBeCloseTo(wanted.score, 9);
            expect(group).toBe(wanted.score >= threshold ? wanted.best : -1);
          }
        }
      }),
      { numRuns: 400 },
    );
  });

  it('takes the earlier of equal groups, and refuses vectors of zeros or of no numbers where direction counts', () => {
    const twice = [
      [1, 0],
      [1, 0],
      [0, 1],
    ];
    const rows = [
      [2, 0],
      [0, 0],
      [Number.NaN, 1],
      [Number.POSITIVE_INFINITY, 1],
    ];
    for (const metric of ['cosine', 'dot'] as const)
      expect(assign(metric, 2, rows, twice, [0, 0, 0], 0).map(({ group }) => group)).toEqual([0, -1, -1, -1]);
    expect(assign('euclid', 2, [[0, 0]], [[0, 0]], [1], 1)).toEqual([{ group: 0, score: 1 }]);
  });

  it('under euclid 0.5 is as far out as the furthest member, whatever the scale of the data', () => {
    for (const scale of [1e-3, 1, 1e5]) {
      const at = (share: number) => assign('euclid', 1, [[share * scale]], [[0]], [scale], 0.5)[0]!;
      expect(at(0.999).group).toBe(0);
      expect(at(1.001).group).toBe(-1);
      expect(at(1).score).toBeCloseTo(0.5, 5);
    }
  });

  it('without groups there is nothing to join', () => {
    expect(assign('cosine', 2, [[1, 0]], [], [], 0)).toEqual([{ group: -1, score: 0 }]);
  });
});

/** Whether no other group is as near: then there is one right answer. */
function isAlone({
  nearness,
  most,
}: {
  readonly nearness: readonly number[];
  readonly most: number;
}): boolean {
  return nearness.filter((value) => Math.abs(value - most) < 1e-9).length === 1;
}
