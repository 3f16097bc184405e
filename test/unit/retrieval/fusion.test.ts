// Fusion of ranked lists: formulas, ties, and one list alone.
import { describe, expect, it } from 'vitest';
import { fuse } from '../../../functions/core/retrieval/fusion.ts';

const list = (weight: number, ...pairs: [string, number][]) => ({
  weight,
  hits: pairs.map(([document_id, score]) => ({ document_id, collection_id: 'c', score })),
});
const plain = (lists: Parameters<typeof fuse>[0], method: Parameters<typeof fuse>[1]) =>
  fuse(lists, method).map(({ document_id, score }) => [document_id, score]);

describe('fusion', () => {
  it('keeps the scores of one list alone, whatever the method, best first', () => {
    for (const method of ['rrf', 'weighted', 'max'] as const) {
      expect(plain([list(0.5, ['b', 0.2], ['a', 0.9])], method)).toEqual([
        ['a', 0.9],
        ['b', 0.2],
      ]);
    }
  });

  it('rrf sums weight over 60 plus rank and does not look at scores', () => {
    const fused = plain([list(1, ['a', 9], ['b', 1]), list(0.5, ['b', -3], ['c', -4])], 'rrf');
    expect(fused).toEqual([
      ['b', 1 / 62 + 0.5 / 61],
      ['a', 1 / 61],
      ['c', 0.5 / 62],
    ]);
  });

  it('weighted stretches each list to 0..1 and averages by weight', () => {
    const fused = plain(
      [list(1, ['a', 10], ['b', 5], ['c', 0]), list(0.5, ['b', 0.3], ['d', 0.3])],
      'weighted',
    );
    expect(fused).toEqual(
      [
        ['a', 1 / 1.5],
        ['b', 0.5 / 1.5 + 0.5 / 1.5],
        ['d', 0.5 / 1.5],
        ['c', 0],
      ].toSorted((x, y) => (y[1] as number) - (x[1] as number)),
    );
  });

  it('max takes the best score of any list', () => {
    expect(plain([list(1, ['a', -2], ['b', -5]), list(0.1, ['b', -1])], 'max')).toEqual([
      ['b', -1],
      ['a', -2],
    ]);
  });

  it('orders equal scores by document id, in every method', () => {
    for (const method of ['rrf', 'weighted', 'max'] as const) {
      const ids = plain([list(1, ['z', 1]), list(1, ['m', 1]), list(1, ['a', 1])], method).map(([id]) => id);
      expect(ids).toEqual(['a', 'm', 'z']);
    }
  });

  it('ranks ties inside a list by document id before it fuses', () => {
    expect(plain([list(1, ['b', 1], ['a', 1]), list(1, ['c', 1])], 'rrf')).toEqual([
      ['a', 1 / 61],
      ['c', 1 / 61],
      ['b', 1 / 62],
    ]);
  });

  it('survives weights of zero and no lists', () => {
    expect(plain([list(0, ['b', 1]), list(0, ['a', 1])], 'weighted')).toEqual([
      ['a', 0],
      ['b', 0],
    ]);
    expect(fuse([], 'rrf')).toEqual([]);
  });
});
