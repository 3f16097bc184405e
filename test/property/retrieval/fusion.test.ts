// Fusion against formulas written down naively, over random lists with ties and overlaps.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { fuse, type RankedList } from '../../../functions/core/retrieval/fusion.ts';

const hit = fc.record({
  document_id: fc.constantFrom('a', 'b', 'c', 'd', 'e', 'f'),
  collection_id: fc.constant('c'),
  score: fc.constantFrom(-2, -0.5, 0, 0.25, 0.5, 0.5, 1, 7),
});
const lists = fc.array(
  fc.record({
    weight: fc.constantFrom(0, 0.25, 0.5, 1),
    hits: fc.uniqueArray(hit, { selector: ({ document_id }) => document_id, maxLength: 6 }),
  }),
  { minLength: 2, maxLength: 4 },
);

/** Rank of a document in a list, from 1, by counting who is before it. */
const rank = (list: RankedList, id: string) => {
  const own = list.hits.find(({ document_id }) => document_id === id);
  if (!own) return undefined;
  const before = list.hits.filter(
    (each) => each.score > own.score || (each.score === own.score && each.document_id < id),
  );
  return before.length + 1;
};

const naive: Record<'rrf' | 'weighted' | 'max', (all: readonly RankedList[], id: string) => number> = {
  rrf: (all, id) =>
    all.reduce((sum, list) => {
      const place = rank(list, id);
      return place === undefined ? sum : sum + list.weight / (60 + place);
    }, 0),
  weighted: (all, id) => {
    const weights = all.reduce((sum, { weight }) => sum + weight, 0);
    return all.reduce((sum, { hits, weight }) => {
      const own = hits.find(({ document_id }) => document_id === id);
      if (!own || weights === 0) return sum;
      const scores = hits.map(({ score }) => score);
      const [low, high] = [Math.min(...scores), Math.max(...scores)];
      return sum + (weight * (high > low ? (own.score - low) / (high - low) : 1)) / weights;
    }, 0);
  },
  max: (all, id) =>
    Math.max(
      ...all.flatMap(({ hits }) => hits.filter((h) => h.document_id === id).map(({ score }) => score)),
    ),
};

describe.each(['rrf', 'weighted', 'max'] as const)('%s', (method) => {
  it('gives each document its naive score, once, best first, ties by id', () => {
    fc.assert(
      fc.property(lists, (all) => {
        const fused = fuse(all, method);
        const ids = fused.map(({ document_id }) => document_id);
        expect(ids.toSorted()).toEqual(
          [...new Set(all.flatMap(({ hits }) => hits.map((h) => h.document_id)))].sort(),
        );
        for (const { document_id, score } of fused)
          expect(score).toBeCloseTo(naive[method](all, document_id), 12);
        for (const [index, next] of fused.slice(1).entries()) {
          const previous = fused[index]!;
          const inOrder = previous.score > next.score || previous.document_id < next.document_id;
          expect(previous.score).toBeGreaterThanOrEqual(next.score);
          expect(inOrder).toBe(true);
        }
      }),
      { numRuns: 200 },
    );
  });

  it('does not depend on the order of the hits inside a list', () => {
    fc.assert(
      fc.property(lists, (all) => {
        const turned = all.map(({ hits, weight }) => ({ weight, hits: hits.toReversed() }));
        expect(fuse(turned, method)).toEqual(fuse(all, method));
      }),
      { numRuns: 100 },
    );
  });
});
