// Segments with more rows than one window of the kernel, and more equal rows than it has room for candidates.
import { beforeAll, describe, expect, test } from 'vitest';
import { type Bits, countBits, noBits, setBit } from '../../../functions/core/vectors/bits.ts';
import { encodeSegment } from '../../../functions/core/vectors/encode-segment.ts';
import { openSegment, type Segment } from '../../../functions/core/vectors/open-segment.ts';
import { type Match, search } from '../../../functions/core/vectors/search.ts';
import { openSnapshot, type Snapshot } from '../../../functions/core/vectors/snapshot.ts';
import { makeVectorMemory } from '../../../functions/core/vectors/vector-memory.ts';

const memory = makeVectorMemory(160 * 2 ** 20);
const { WINDOW_ROWS: windowRows, CANDIDATES_MAX: candidatesMax } = memory.kernel.run.layout;

type Pair = readonly [number, number];

interface Table {
  readonly first: number;
  readonly segment: Segment;
  readonly vectors: Int32Array;
}

/** Ids fall while rows grow, so that of equal rows the last ones are the best. */
const idOf = (row: number) => `doc_${5_000_000 - row}`;

function tableOf(first: number, count: number, coded: boolean, vectorOf: (row: number) => Pair): Table {
  const vectors = new Int32Array(count * 2);
  const rows = Array.from({ length: count }, (_, i) => {
    const vector = vectorOf(first + i);
    vectors.set(vector, i * 2);
    return { id: idOf(first + i), vector };
  });
  const { bytes } = encodeSegment({ kind: 'data', dims: 2, metric: 'dot', rows, codes: coded });
  return { first, segment: openSegment(bytes, `seg/${first}`), vectors };
}

/** @param dead by place of the table, rows that do not live */
function snapshotOf(tables: readonly Table[], dead: readonly (Bits | undefined)[] = []): Snapshot {
  const segments = tables.map(({ first, segment }, i) => {
    const list = dead[i] && { key: `dead/${i}`, bytes: 0, rows: countBits(dead[i]), crc32: 0 };
    const { rows, dims } = segment;
    return {
      ...{
        key: `seg/${first}`,
        kind: 'data' as const,
        bytes: 0,
        rows,
        tombs: 0,
        dims,
        metric: 'dot' as const,
      },
      ...{
        absolute: false,
        seq_max: rows - 1,
        header_len: 0,
        header_crc32: '',
        sections: [],
        base_seq: first,
      },
      ...(list ? { dead: list } : {}),
    };
  });
  const lists = new Map(dead.flatMap((bits, i) => (bits ? [[`dead/${i}`, bits] as const] : [])));
  const open = new Map(tables.map(({ first, segment }) => [`seg/${first}`, segment]));
  return openSnapshot({ dims: 2, metric: 'dot', segments }, open, lists);
}

/** The k best by a walk over all rows from the last to the first, so that of equal ones the best id comes first. */
function naive(
  tables: readonly Table[],
  [x, y]: Pair,
  k: number,
  isDead?: (row: number) => boolean,
): Match[] {
  const best: { row: number; score: number }[] = [];
  for (const { first, vectors } of tables.toReversed()) {
    for (let i = vectors.length / 2 - 1; i >= 0; i -= 1) {
      const score = vectors[i * 2]! * x + vectors[i * 2 + 1]! * y;
      if ((best.length === k && score <= best[k - 1]!.score) || isDead?.(first + i)) continue;
      let place = best.length;
      while (place > 0 && best[place - 1]!.score < score) place -= 1;
      best.splice(place, 0, { row: first + i, score });
      if (best.length > k) best.pop();
    }
  }
  return best.map(({ row, score }) => ({ id: idOf(row), score }));
}

describe('a segment of more rows than a window', () => {
  const count = windowRows + 30_000;
  /** The longest ones stand in the second window. */
  const vectorOf = (row: number): Pair => {
    const more = row > windowRows + 100 && row % 7 === 0 ? 20_000 : 0;
    return [(row % 5) - 2, ((row * 7_919) % 10_007) + more];
  };
  /** A few best, a fifth of all. */
  const queries: readonly Pair[] = [
    [0, 1],
    [1, 0],
    [-700, -3],
  ];
  const tables = new Map<boolean, Table>();
  beforeAll(() => {
    for (const coded of [true, false]) tables.set(coded, tableOf(0, count, coded, vectorOf));
  }, 60_000);

  test.each<[string, ((row: number) => boolean) | undefined]>([
    ['all rows live', undefined],
    ['two of three live', (row) => row % 3 === 0],
    ['one in a thousand lives, and the last', (row) => row % 1_000 !== 0 && row < count - 3],
  ])(
    'is searched to its end, by codes and by vectors: %s',
    async (_, isDead) => {
      let dead: Bits | undefined;
      if (isDead) {
        dead = noBits(count);
        for (let row = 0; row < count; row += 1) if (isDead(row)) setBit(dead, row);
      }
      const expected = queries.map((query) => naive([tables.get(true)!], query, 7, isDead));
      for (const coded of [true, false]) {
        const snapshot = snapshotOf([tables.get(coded)!], [dead]);
        // Alone and in a pass with others: the kernel has another way for each.
        const together = await search(snapshot, { queries, k: 7 }, memory);
        expect(together.matches).toEqual(expected);
        const { matches, reranked } = await search(snapshot, { queries: [queries[0]!], k: 7 }, memory);
        expect(matches).toEqual([expected[0]]);
        expect(reranked).toBeLessThan(count / 20);
      }
    },
    60_000,
  );
});

describe('more equal rows than there is room for candidates', () => {
  const perSegment = 40_000;
  const k = 10_000;
  /** The second value grows from segment to segment. */
  const tables = Array.from({ length: 4 }, (_, i) =>
    tableOf(i * perSegment, perSegment, i % 2 === 0, () => [3, i]),
  );

  test.each<[string, Pair, number]>([
    ['all of all segments', [1, 0], 4],
    ['each segment is better than those before', [0, 1], 1],
    ['each segment is worse than those before', [0, -1], 1],
  ])('give the lowest ids: %s', async (_, query, segments) => {
    expect(perSegment * tables.length).toBeGreaterThan(candidatesMax);
    const snapshot = snapshotOf(tables);
    const expected = naive(tables, query, k);
    const { matches, reranked } = await search(snapshot, { queries: [query, [0, 0]], k }, memory);
    expect(matches).toEqual([expected, naive(tables, [0, 0], k)]);
    const alone = await search(snapshot, { queries: [query], k }, memory);
    expect(alone.matches).toEqual([expected]);
    expect(alone.reranked).toBeLessThanOrEqual(segments * perSegment);
    expect(reranked).toBe(tables.length * perSegment);
  });
});
