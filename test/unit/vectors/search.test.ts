// Search and lists: bounds, extreme values, orders, fields that nobody has.
import { describe, expect, test } from 'vitest';
import { parse } from '../../../functions/core/conditions/parse.ts';
import { diffColumns, flattenColumns } from '../../../functions/core/vectors/columns.ts';
import { encodeSegment } from '../../../functions/core/vectors/encode-segment.ts';
import { listRows, vectorTable } from '../../../functions/core/vectors/list-rows.ts';
import {
  openSegment,
  openStoredSegment,
  type Segment,
} from '../../../functions/core/vectors/open-segment.ts';
import { search } from '../../../functions/core/vectors/search.ts';
import { selectRows, unknownFields } from '../../../functions/core/vectors/select-rows.ts';
import { fieldsOf, openSnapshot, vectorOf } from '../../../functions/core/vectors/snapshot.ts';
import { dimsMax, type Metric, validateVector } from '../../../functions/core/vectors/vector.ts';
import { makeVectorMemory } from '../../../functions/core/vectors/vector-memory.ts';

function snapshotOf(metric: Metric | null, rows: { id: string; vector?: number[]; document?: unknown }[]) {
  const dims = rows[0]?.vector?.length ?? 0;
  const { bytes, description } = encodeSegment({
    kind: 'data',
    dims,
    metric,
    rows: rows.map(({ id, vector, document }) => ({ id, vector, columns: flattenColumns(document) })),
  });
  const segments = [{ ...description, key: 'seg/a', base_seq: 0 }];
  return openSnapshot({ dims, metric, segments }, new Map([['seg/a', openSegment(bytes, 'seg/a')]]));
}

const hits = async (metric: Metric, query: number[], ...vectors: number[][]) => {
  const snapshot = snapshotOf(
    metric,
    vectors.map((vector, i) => ({ id: `doc_${i}`, vector })),
  );
  return (await search(snapshot, { queries: [query], k: 10 })).matches[0]!;
};

describe('scores', () => {
  test('cosine: equal directions have at most 1, opposite at least -1, zero vectors 0', async () => {
    const vectors = Array.from({ length: 40 }, (_, i) => [0.1 * (i + 1), 0.3 * (i + 1), 0.7 * (i + 1)]);
    for (const { score } of await hits('cosine', [0.1, 0.3, 0.7], ...vectors)) {
      expect(score).toBeLessThanOrEqual(1);
      expect(score).toBeGreaterThan(1 - 1e-6);
    }
    expect((await hits('cosine', [1, 1], [0, 0], [-2, -2])).map(({ score }) => score)).toEqual([
      0,
      expect.closeTo(-1, 6),
    ]);
    expect(await hits('cosine', [0, 0], [1, 2])).toEqual([{ id: 'doc_0', score: 0 }]);
  });

  test('cosine holds for the longest and the shortest vectors that float32 has', async () => {
    const long = new Array<number>(dimsMax).fill(3.4e38);
    const short = new Array<number>(dimsMax).fill(1e-45);
    const found = await hits('cosine', long, short, long);
    expect(found.map(({ score }) => score)).toEqual([expect.closeTo(1, 6), expect.closeTo(1, 6)]);
    const [slanted] = await hits('cosine', [1, 1], [1e-45, 0]);
    expect(slanted!.score).toBeCloseTo(Math.SQRT1_2, 6);
  });

  test('euclid: the negative squared distance, exactly 0 for an equal vector far from the origin', async () => {
    expect(await hits('euclid', [1e6, 0.1], [1e6, 0.1], [1e6, 2.1])).toEqual([
      { id: 'doc_0', score: 0 },
      { id: 'doc_1', score: expect.closeTo(-4, 5) },
    ]);
  });

  test('dot: the inner product, not cut', async () => {
    expect((await hits('dot', [2, 3], [10, 1], [-1, 0])).map(({ score }) => score)).toEqual([23, -2]);
  });

  test('ties go to the lower id, whatever the order of the rows', async () => {
    const rows = ['doc_c', 'doc_a', 'doc_e', 'doc_b', 'doc_d'].map((id) => ({ id, vector: [1, 1] }));
    const { matches } = await search(snapshotOf('dot', rows), { queries: [[1, 1]], k: 3 });
    expect(matches[0]!.map(({ id }) => id)).toEqual(['doc_a', 'doc_b', 'doc_c']);
  });
});

describe('requests', () => {
  const snapshot = snapshotOf(
    'dot',
    Array.from({ length: 40 }, (_, i) => ({ id: `doc_${String(i).padStart(2, '0')}`, vector: [i, 1] })),
  );

  test('each of many queries has its own excluded ids, also beyond the first pass', async () => {
    const queries = Array.from({ length: 40 }, () => [1, 0]);
    const exclude = queries.map((_, i) => `doc_${String(39 - i).padStart(2, '0')}`);
    const { matches } = await search(snapshot, { queries, k: 40, exclude });
    matches.forEach((found, i) => {
      expect(found).toHaveLength(39);
      expect(found.map(({ id }) => id)).not.toContain(exclude[i]);
    });
  });

  test('no queries, no answers', async () => {
    expect(await search(snapshot, { queries: [], k: 1 })).toEqual({
      matches: [],
      rowsSelected: 40,
      bytesScanned: 0,
      reranked: 0,
      cold: false,
    });
  });

  test('the first search of a segment is cold, the next is not; scoring a few rows fetches nothing', async () => {
    const memory = makeVectorMemory(2 ** 20);
    const request = { queries: [[1, 0]], k: 3 };
    expect((await search(snapshot, { ...request, include: ['doc_07'] }, memory)).cold).toBe(false);
    expect((await search(snapshot, request, memory)).cold).toBe(true);
    expect((await search(snapshot, request, memory)).cold).toBe(false);
  });

  test('rows that are not in memory are fetched from all segments at once; fetching all vectors is cold', async () => {
    let open = 0;
    let most = 0;
    const segments = new Map<string, Segment>();
    const refs = [];
    for (const part of [0, 1, 2]) {
      const rows = Array.from({ length: 40 }, (_, i) => ({ id: `doc_${part}_${i}`, vector: [i, part] }));
      const { bytes, description } = encodeSegment({ kind: 'data', dims: 2, metric: 'dot', rows });
      const key = `seg/${part}`;
      const readInto = async (at: number, target: Uint8Array) => {
        open += 1;
        most = Math.max(most, open);
        await new Promise((resolve) => setImmediate(resolve));
        target.set(bytes.subarray(at, at + target.length));
        open -= 1;
      };
      refs.push({ ...description, key, base_seq: part * 100 });
      segments.set(key, await openStoredSegment({ readInto }, key, description, 0));
    }
    const stored = openSnapshot({ dims: 2, metric: 'dot', segments: refs }, segments);
    const memory = makeVectorMemory(2 ** 20);
    const request = { queries: [[1, 1]], k: 2, include: ['doc_0_3', 'doc_1_3', 'doc_2_2'] };
    most = 0;
    const first = await search(stored, request, memory);
    expect(first.matches[0]!.map(({ id }) => id)).toEqual(['doc_1_3', 'doc_2_2']);
    expect({ most, cold: first.cold }).toEqual({ most: 3, cold: false });
    // Rows that are asked for again and again are worth having all vectors in memory.
    const cold: boolean[] = [];
    for (let i = 0; i < 12; i += 1) cold.push((await search(stored, request, memory)).cold);
    expect(cold.filter(Boolean)).toHaveLength(1);
    expect(cold[0]).toBe(false);
    most = 0;
    await search(stored, request, memory);
    expect(most).toBe(0);
  });

  test('an empty index answers with nothing', async () => {
    const empty = openSnapshot({ dims: 2, metric: 'cosine', segments: [] }, new Map());
    expect((await search(empty, { queries: [[1, 2]], k: 5 })).matches).toEqual([[]]);
    expect(listRows(empty, { limit: 5 })).toEqual([]);
    expect(await vectorTable(empty)).toEqual({ ids: [], vectors: new Float32Array(0), dims: 2 });
  });

  test.each([
    [{ k: 0 }, /1 to 10000, got 0/],
    [{ k: 10_001 }, /got 10001/],
    [{ k: 1.5 }, /got 1.5/],
    [{ minScore: Number.NaN }, /not a number/],
  ])('%o is refused', async (change, message) => {
    await expect(search(snapshot, { queries: [[1, 1]], k: 1, ...change })).rejects.toThrow(
      expect.objectContaining({ code: 'query_invalid', message: expect.stringMatching(message) }),
    );
  });

  test('k of 10,000 is allowed', async () => {
    expect((await search(snapshot, { queries: [[1, 1]], k: 10_000 })).matches[0]).toHaveLength(40);
  });

  test('a query of another dimension, or one that is not finite, is refused', async () => {
    const fault = (query: number[]) => search(snapshot, { queries: [[1, 1], query], k: 1 });
    await expect(fault([1])).rejects.toThrow(/1 values, the feature needs 2/);
    await expect(fault([1, Number.POSITIVE_INFINITY])).rejects.toThrow(/Value 1 .*Infinity/);
  });

  test('a feature without vectors can be listed, not searched', async () => {
    const documents = snapshotOf(null, [{ id: 'doc_a' }]);
    await expect(search(documents, { queries: [[1]], k: 1 })).rejects.toThrow(
      expect.objectContaining({ code: 'query_invalid' }),
    );
    await expect(vectorTable(documents)).rejects.toThrow(expect.objectContaining({ code: 'query_invalid' }));
    expect(await vectorOf(documents, 'doc_a')).toBeUndefined();
  });
});

describe('lists', () => {
  const snapshot = snapshotOf(null, [
    { id: 'doc_a', document: { n: 2, t: 'b' } },
    { id: 'doc_b', document: { n: 10, t: ['a', 'z'] } },
    { id: 'doc_c', document: { n: 'text', metadata: { t: 'B' } } },
    { id: 'doc_d', document: { n: true, t: [] } },
    { id: 'doc_e', document: { n: null, t: [null, 'c'] } },
    { id: 'doc_f', document: {} },
  ]);
  const order = (...keys: [string, 'asc' | 'desc', ('first' | 'last')?][]) =>
    listRows(snapshot, {
      limit: 10,
      sort: keys.map(([field, direction, missing]) => ({ field, direction, missing })),
    })
      .map((id) => id.at(-1))
      .join('');

  test('without keys the highest id comes first', async () => {
    expect(order()).toBe('fedcba');
    expect(listRows(snapshot, { limit: 2, offset: 1, idOrder: 'asc' })).toEqual(['doc_b', 'doc_c']);
  });

  test('numbers, texts, booleans in this order; missing and null last in both directions unless asked', async () => {
    expect(order(['n', 'asc'])).toBe('abcdfe');
    expect(order(['n', 'desc'])).toBe('dcbafe');
    expect(order(['n', 'desc', 'first'])).toBe('fedcba');
  });

  test('a list is sorted by its first element, an alias of a field is the field, ties go by id', async () => {
    expect(order(['metadata.t', 'asc'])).toBe('cbaefd');
    expect(order(['none', 'asc'], ['n', 'asc'])).toBe('abcdfe');
  });

  test('an offset past the end gives nothing, a negative one is refused', async () => {
    expect(listRows(snapshot, { limit: 5, offset: 6 })).toEqual([]);
    expect(listRows(snapshot, { limit: 0 })).toEqual([]);
    expect(() => listRows(snapshot, { limit: 5, offset: -1 })).toThrow(
      expect.objectContaining({ code: 'query_invalid' }),
    );
  });

  test('fields that no document has are named, parents of fields are known', async () => {
    const nested = snapshotOf(null, [{ id: 'doc_a', document: { a: { b: 1 }, _internal: { x: 1 } } }]);
    expect(fieldsOf(nested)).toEqual(new Set(['a.b']));
    const filter = parse({
      AND: ['a', 'metadata.a.b', 'a.c', 'ab'].map((field) => ({ field, operator: 'exists' })),
    });
    expect(unknownFields(nested, filter)).toEqual(['a.c', 'ab']);
  });

  test('the bitmaps of a filter are made once', async () => {
    const asked = (value: number) => selectRows(snapshot, parse({ field: 'n', value }));
    expect(asked(2)).toBe(asked(2));
    expect(asked(2)).not.toBe(asked(10));
    for (let i = 0; i < 100; i += 1) asked(1_000 + i);
    expect(listRows(snapshot, { filter: parse({ field: 'n', value: 2 }), limit: 5 })).toEqual(['doc_a']);
  });
});

describe('columns and vectors', () => {
  test('a difference of documents names what changed and what went', async () => {
    const before = flattenColumns({ same: [1, 'a'], gone: { x: 1 }, number: 1, list: ['a'] });
    const after = flattenColumns({ same: [1, 'a'], number: '1', list: 'a', fresh: null });
    expect(diffColumns(before, after)).toEqual(
      new Map<string, unknown>([
        ['gone.x', undefined],
        ['number', '1'],
        ['list', 'a'],
        ['fresh', null],
      ]),
    );
    expect(diffColumns(after, after)).toEqual(new Map());
  });

  test.each<[string, unknown, RegExp]>([
    ['a text', '1,2', /list of numbers, got string/],
    ['an empty list', [], /1 to 4096 values, got 0/],
    ['4,097 values', new Array(4_097).fill(0), /got 4097/],
    ['a null inside', [1, null], /Value 1 .*null/],
    ['a text inside', ['1'], /Value 0 .*string/],
  ])('%s is not a vector', (_, vector, message) => {
    expect(() => validateVector(vector)).toThrow(
      expect.objectContaining({ code: 'vector_invalid', message: expect.stringMatching(message) }),
    );
  });

  test('lists, float32 and float64 arrays are vectors and become float32', async () => {
    for (const vector of [[0.1, 2], Float32Array.of(0.1, 2), Float64Array.of(0.1, 2)]) {
      expect(validateVector(vector, 2)).toEqual(Float32Array.of(0.1, 2));
    }
  });
});
