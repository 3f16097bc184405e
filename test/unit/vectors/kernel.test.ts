// The scan kernel: its inner products against plain arithmetic, its selection at the limits, its memory, its build.
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { allBits, clearBit, noBits, setBit } from '../../../functions/core/vectors/bits.ts';
import { toBfloat16 } from '../../../functions/core/vectors/kernel/bfloat16.ts';
import { CandidateScan } from '../../../functions/core/vectors/kernel/candidate-scan.ts';
import { queryCodeMax } from '../../../functions/core/vectors/kernel/codes.ts';
import { Kernel } from '../../../functions/core/vectors/kernel/kernel.ts';
import type { ResidentRows } from '../../../functions/core/vectors/kernel/resident.ts';
import { compileKernel } from '../../../layers/kernel.ts';
import {
  bell,
  bestOf,
  generator,
  place,
  type Storage,
  scoresOf,
  storages,
  tableOf,
  vectorsOf,
} from '../../property/vectors/kernel-rows.ts';

const kernel = Kernel.create({ arenaBytes: 64 * 2 ** 20 });
const everyQuantity = [16, 32, 48, 96, 384, 1_040, 4_096];

type Two = (p: number, r: number, query: number, bytes: number, out: number, out2: number) => void;
type Four = (p: number, r: number, s: number, t: number, query: number, bytes: number, out: number) => void;
const inner = kernel.run as unknown as {
  readonly dotF32x2: Two;
  readonly dotF32x4: Four;
  readonly dotBf16x2: Two;
  readonly dotBf16x4: Four;
  readonly dotI8x2: Two;
  readonly dotI8x4: Four;
  dotI16x2x4(row: number, query: number, bytes: number, out: number, outStride: number): void;
  stageF32(row: number, bytes: number, factor: number, out: number): void;
  stageBf16(row: number, bytes: number, factor: number, out: number): void;
};

/** Writes arrays one after the other, each on a boundary of 64 bytes. @returns their addresses and the next one */
function put(...arrays: readonly (Float32Array | Int16Array | Uint16Array | Int8Array)[]): number[] {
  let at = kernel.arenaAt;
  const addresses: number[] = [];
  for (const array of arrays) {
    kernel.bytes.set(new Uint8Array(array.buffer, array.byteOffset, array.byteLength), at);
    addresses.push(at);
    at = Math.ceil((at + array.byteLength) / 64) * 64;
  }
  return [...addresses, at];
}

const readFloats = (at: number, n: number): number[] =>
  Array.from(new Float32Array(kernel.bytes.buffer, at, n));
const readIntegers = (at: number, n: number): number[] =>
  Array.from(new Int32Array(kernel.bytes.buffer, at, n));

function dot(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let sum = 0;
  for (let j = 0; j < a.length; j += 1) sum += a[j]! * b[j]!;
  return sum;
}

describe('inner products', () => {
  it('of float32 rows are as near to the true ones as the bound says', () => {
    for (const dims of everyQuantity) {
      const random = generator(dims);
      const [query, ...rows] = Array.from({ length: 5 }, () =>
        Float32Array.from({ length: dims }, () => bell(random)),
      );
      const at = put(query!, ...rows);
      inner.dotF32x2(at[1]!, at[2]!, at[0]!, dims * 4, at[5]!, at[5]! + 4);
      inner.dotF32x4(at[1]!, at[2]!, at[3]!, at[4]!, at[0]!, dims * 4, at[5]! + 8);
      const m = dims / 4 + 8;
      for (const [i, sum] of readFloats(at[5]!, 6).entries()) {
        const row = rows[i < 2 ? i : i - 2]!;
        const bound = ((m * 2 ** -24) / (1 - m * 2 ** -24)) * Math.sqrt(dot(query!, query!) * dot(row, row));
        expect(Math.abs(sum - dot(query!, row))).toBeLessThanOrEqual(bound);
      }
    }
  });

  it('of bfloat16 rows are those of the values they stand for', () => {
    for (const dims of everyQuantity) {
      const random = generator(dims);
      // Small integers: every sum is exact, so a value in the wrong place shows.
      const small = (): Float32Array =>
        Float32Array.from({ length: dims }, () => Math.floor(random() * 17) - 8);
      const [query, ...rows] = Array.from({ length: 5 }, small);
      const turned = query!.map((_, i) => query![(i & ~7) + ((i & 3) << 1) + ((i & 4) >> 2)]!);
      const at = put(turned, ...rows.map((row) => toBfloat16(row)));
      inner.dotBf16x2(at[1]!, at[2]!, at[0]!, dims * 2, at[5]!, at[5]! + 4);
      inner.dotBf16x4(at[1]!, at[2]!, at[3]!, at[4]!, at[0]!, dims * 2, at[5]! + 8);
      const wanted = rows.map((row) => dot(query!, row));
      expect(readFloats(at[5]!, 6)).toEqual([wanted[0], wanted[1], ...wanted]);
    }
  });

  it('of int8 codes are exact, also where all are as large as they can be', () => {
    for (const dims of everyQuantity) {
      const random = generator(dims);
      const most = queryCodeMax(dims);
      const extreme = (sign: (j: number) => number) =>
        Int16Array.from({ length: dims }, (_, j) => most * sign(j));
      const queries = [
        Int16Array.from({ length: dims }, () => Math.floor((random() * 2 - 1) * most)),
        extreme(() => 1),
        extreme(() => -1),
        extreme((j) => (j % 2 === 0 ? 1 : -1)),
      ];
      const rows = [
        Int8Array.from({ length: dims }, () => Math.floor(random() * 255) - 127),
        new Int8Array(dims).fill(127),
        new Int8Array(dims).fill(-127),
        Int8Array.from({ length: dims }, (_, j) => (j % 2 === 0 ? 127 : -127)),
      ];
      for (const query of queries) {
        const at = put(query, ...rows);
        inner.dotI8x2(at[1]!, at[2]!, at[0]!, dims, at[5]!, at[5]! + 4);
        inner.dotI8x4(at[1]!, at[2]!, at[3]!, at[4]!, at[0]!, dims, at[5]! + 8);
        const wanted = rows.map((row) => dot(query, row));
        expect(readIntegers(at[5]!, 6)).toEqual([wanted[0], wanted[1], ...wanted]);
      }
      const both = new Int16Array(2 * dims);
      for (const [i, row] of rows.slice(0, 2).entries()) both.set(row, i * dims);
      const four = new Int16Array(4 * dims);
      for (const [i, query] of queries.entries()) four.set(query, i * dims);
      const at = put(both, four);
      inner.dotI16x2x4(at[0]!, at[1]!, 2 * dims, at[2]!, 16);
      for (const [i, query] of queries.entries()) {
        expect(readIntegers(at[2]! + 16 * i, 2)).toEqual([dot(query, rows[0]!), dot(query, rows[1]!)]);
      }
    }
  });

  it('of staged rows: each value is the nearest integer, and none leaves int16', () => {
    for (const dims of everyQuantity) {
      const random = generator(dims);
      const wide = vectorsOf('scales', 1, dims, random)[0]!.map((value, j) => (j === 0 ? value * 50 : value));
      for (const [stage, row, place] of [
        [inner.stageF32, wide, (j: number) => (j & ~7) | ((j & 3) << 1) | ((j & 4) >> 2)],
        [inner.stageBf16, toBfloat16(wide), (j: number) => j],
      ] as const) {
        const values =
          stage === inner.stageF32
            ? wide
            : new Float32Array(Uint32Array.from(row, (half) => half << 16).buffer);
        const factor = Math.fround(kernel.run.layout.STAGE_NORM / Math.sqrt(dot(values, values)));
        const at = put(row);
        stage(at[0]!, row.byteLength, factor, at[1]!);
        const staged = new Int16Array(kernel.bytes.buffer, at[1]!, dims);
        for (let j = 0; j < dims; j += 1) {
          expect(Math.abs(values[j]! * factor - staged[place(j)]!)).toBeLessThanOrEqual(0.502);
        }
      }
    }
  });
});

/** The rows 0 to n-1 as a table whose scores by dot with (1, 0, ...) are `scoreOf(row)`. */
function ladder(rows: number, scoreOf: (row: number) => number): Float32Array[] {
  return Array.from({ length: rows }, (_, i) => Float32Array.of(scoreOf(i), 1));
}
const along = Float32Array.of(1, 0);
const rowsFound = (scan: CandidateScan, query = 0): number[] =>
  scan
    .candidates(query)
    .map(({ row }) => row)
    .sort((a, b) => a - b);

describe('CandidateScan', () => {
  it('drops what better rows have passed, so that rows in ascending order do not overflow it', () => {
    for (const storage of storages) {
      const table = tableOf(
        ladder(60_000, (i) => 1 + i / 64),
        2,
        storage,
      );
      const { resident } = place(kernel, kernel.arenaAt, table, 'dot', storage);
      const scores = scoresOf(table, 'dot', along);
      for (const queries of [1, 2]) {
        const wanted = Array.from({ length: queries }, () => along);
        const scan = new CandidateScan(
          kernel,
          'dot',
          2,
          wanted,
          wanted.map(() => 5),
          Number.NEGATIVE_INFINITY,
        );
        expect(scan.scan(0, resident, undefined)).toEqual(wanted.map(() => true));
        for (let q = 0; q < queries; q += 1) {
          const found = new Set(rowsFound(scan, q));
          for (const row of bestOf(scores, 5, Number.NEGATIVE_INFINITY, undefined))
            expect(found).toContain(row);
          // bfloat16 makes 1,024 neighbours equal.
          expect(found.size).toBeLessThan(storage === 'f32' ? 100 : 3_000);
        }
      }
    }
  });

  it('gives a part up where too many rows could be the best, and goes on with the next', () => {
    for (const storage of storages) {
      const equal = place(
        kernel,
        kernel.arenaAt,
        tableOf(
          ladder(40_000, () => 1),
          2,
          storage,
        ),
        'cosine',
        storage,
      );
      const other = place(
        kernel,
        equal.end,
        tableOf(
          ladder(100, (i) => i - 50),
          2,
          storage,
        ),
        'cosine',
        storage,
      );
      for (const selected of [undefined, allBits(40_000)]) {
        const queries = [along, Float32Array.of(0, 0)];
        const scan = new CandidateScan(kernel, 'cosine', 2, queries, [3, 3], Number.NEGATIVE_INFINITY);
        expect(scan.scan(0, equal.resident, selected)).toEqual([false, false]);
        expect(scan.scan(1, other.resident, undefined)).toEqual([true, true]);
        // The best of the second part, which lie almost along the query.
        const found = scan.candidates(0);
        expect(found.every(({ part }) => part === 1)).toBe(true);
        expect(found.map(({ row }) => row)).toContain(99);
        // All rows are equally far from the zero vector.
        expect(scan.candidates(1)).toHaveLength(100);
      }
    }
  });

  it('tries the vectors where the codes are too rough', () => {
    // The rows differ only in a coordinate that the large one leaves no room for, rotated or not.
    const vectors = ladder(30_000, (i) => 2 ** -12 * (i % 29_989)).map((row) =>
      Float32Array.of(row[0]!, 1_000),
    );
    const table = tableOf(vectors, 2);
    const coded = place(kernel, kernel.arenaAt, table, 'dot', 'i8');
    const plain = place(kernel, coded.end, table, 'dot', 'f32');
    const both: ResidentRows = { ...coded.resident, vectors: plain.resident.vectors };
    const best = bestOf(scoresOf(table, 'dot', along), 4, Number.NEGATIVE_INFINITY, undefined);
    for (const queries of [[along], [along, along, Float32Array.of(0, 1)]]) {
      const k = queries.map(() => 4);
      const rough = new CandidateScan(kernel, 'dot', 2, queries, k, Number.NEGATIVE_INFINITY);
      expect(rough.scan(0, coded.resident, undefined)[0]).toBe(false);
      const scan = new CandidateScan(kernel, 'dot', 2, queries, k, Number.NEGATIVE_INFINITY);
      const done = scan.scan(0, both, undefined);
      // All rows are equal to the third query, so no scan can choose among them.
      expect(done).toEqual([true, true, false].slice(0, queries.length));
      for (const row of best) expect(rowsFound(scan)).toContain(row);
    }
  });

  it('lets other scans come between its own, with heaps and candidates kept apart', () => {
    const random = generator(3);
    const tables = [0, 1, 2].map(() => tableOf(vectorsOf('random', 500, 24, random), 24));
    let at = kernel.arenaAt;
    const residents = tables.map((table) => {
      const { resident, end } = place(kernel, at, table, 'euclid', 'f32');
      at = end;
      return resident;
    });
    const queries = Array.from({ length: 4 }, () => Float32Array.from({ length: 24 }, () => bell(random)));
    const make = (query: Float32Array): CandidateScan =>
      new CandidateScan(kernel, 'euclid', 24, [query, query], [7, 300], Number.NEGATIVE_INFINITY);
    const alone = queries.map((query) => {
      const scan = make(query);
      for (const [part, resident] of residents.entries()) scan.scan(part, resident, undefined);
      return [scan.candidates(0), scan.candidates(1)];
    });
    const scans = queries.map(make);
    for (const [part, resident] of residents.entries())
      for (const scan of scans) scan.scan(part, resident, undefined);
    expect(scans.map((scan) => [scan.candidates(0), scan.candidates(1)])).toEqual(alone);
    expect(alone[0]![1]!.length).toBeGreaterThanOrEqual(300);
  });

  it('carries the k-th best over to the next part, and never offers the padding of one', () => {
    for (const storage of storages) {
      const good = place(
        kernel,
        kernel.arenaAt,
        tableOf(
          ladder(9, (i) => 1_000 + i),
          2,
          storage,
        ),
        'dot',
        storage,
      );
      // The best of the negative rows would be the zeros that pad them.
      const bad = place(
        kernel,
        good.end,
        tableOf(
          ladder(9, (i) => -1 - i),
          2,
          storage,
        ),
        'dot',
        storage,
      );
      const one = new CandidateScan(kernel, 'dot', 2, [along], [9], Number.NEGATIVE_INFINITY);
      expect(one.scan(0, bad.resident, undefined)).toEqual([true]);
      expect(rowsFound(one)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8]);
      const both = new CandidateScan(kernel, 'dot', 2, [along], [9], Number.NEGATIVE_INFINITY);
      both.scan(0, good.resident, undefined);
      both.scan(1, bad.resident, undefined);
      expect(both.candidates(0).map(({ part }) => part)).toEqual(new Array(9).fill(0));
    }
  });

  it('finds all that a list or a full scan with a bitmap lets through, at any share of the rows', () => {
    const random = generator(11);
    const vectors = vectorsOf('clustered', 3_001, 20, random);
    for (const storage of storages) {
      const table = tableOf(vectors, 20, storage);
      const { resident } = place(kernel, kernel.arenaAt, table, 'euclid', storage);
      for (const every of [1, 2, 3, 40, 3_000]) {
        const bits = every === 1 ? allBits(table.rows) : noBits(table.rows);
        for (let i = 0; i < table.rows; i += every) setBit(bits, i);
        if (every === 1) clearBit(bits, 77);
        for (const queries of [1, 5]) {
          const wanted = Array.from({ length: queries }, (_, i) => vectors[i * 100]!);
          const scan = new CandidateScan(
            kernel,
            'euclid',
            20,
            wanted,
            wanted.map(() => 3),
            Number.NEGATIVE_INFINITY,
          );
          const done = scan.scan(4, resident, bits);
          for (const [q, query] of wanted.entries()) {
            if (!done[q]) continue;
            const found = new Set(rowsFound(scan, q));
            const best = bestOf(scoresOf(table, 'euclid', query), 3, Number.NEGATIVE_INFINITY, bits);
            for (const row of best) expect(found).toContain(row);
            for (const row of found) expect((bits[row >>> 5]! >>> (row & 31)) & 1).toBe(1);
          }
          expect(done).toContain(true);
        }
      }
    }
  });

  it('keeps every row whose interval reaches that of the best, also if its float32 score does not', () => {
    // The best comes first. Neighbouring rows differ by one float32 step; the errors of two rows together are many steps wide.
    const table = tableOf(
      ladder(64, (i) => 1 + (63 - i) * 2 ** -23),
      2,
    );
    const g = 12 * 2 ** -24;
    for (const [metric, query, perStep] of [
      ['dot', along, 2 ** -23],
      ['euclid', Float32Array.of(4, 0), 6 * 2 ** -23],
    ] as const) {
      const { resident } = place(kernel, kernel.arenaAt, table, metric, 'f32');
      const scan = new CandidateScan(kernel, metric, 2, [query], [1], Number.NEGATIVE_INFINITY);
      scan.scan(0, resident, undefined);
      const error = (metric === 'dot' ? 1 : 2) * g * query[0]! * Math.SQRT2;
      const reached = Math.floor((0.9 * 2 * error) / perStep);
      expect(reached).toBeGreaterThan(12);
      expect(rowsFound(scan)).toEqual(expect.arrayContaining(Array.from({ length: reached }, (_, i) => i)));
      expect(rowsFound(scan).length).toBeLessThan(1.2 * reached + 2);
    }
  });

  it('does not tell rows apart whose cosine is cut to 1', () => {
    // Codes and query are exact, so nothing but the cut hides that some of these are above 1 by different amounts.
    const dims = 1_020;
    const vectors = Array.from({ length: 16 }, (_, i) => {
      return Float32Array.from({ length: dims }, (_value, j) => (j < i % 2 ? 126 : 127) * 2 ** (i >> 1));
    });
    const table = tableOf(vectors, dims);
    const query = new Float32Array(dims).fill(queryCodeMax(table.padDims));
    const scores = scoresOf(table, 'cosine', query);
    const best = bestOf(scores, 1, Number.NEGATIVE_INFINITY, undefined);
    expect(scores[best[0]!]).toBe(1);
    expect(new Set(best.map((row) => row % 2)).size).toBe(2);
    for (const storage of storages) {
      const { resident } = place(kernel, kernel.arenaAt, table, 'cosine', storage);
      const scan = new CandidateScan(kernel, 'cosine', dims, [query], [1], Number.NEGATIVE_INFINITY);
      expect(scan.scan(0, resident, undefined)).toEqual([true]);
      const found = rowsFound(scan);
      for (const row of best) expect(found).toContain(row);
    }
  });

  it('allows for the rounding of the query to int16', () => {
    // Both rows are their own codes. The query rounds 1.4 steps to 1 where the better row is not 0, and 0.6 steps to 1
    // where the other is, which has twice as many of those.
    const step = 1 / queryCodeMax(16);
    const query = Float32Array.of(1, ...new Array(4).fill(1.4 * step), ...new Array(8).fill(0.6 * step));
    const better = Float32Array.of(127, ...new Array(4).fill(127), ...new Array(8).fill(0));
    const other = Float32Array.of(127, ...new Array(4).fill(0), ...new Array(8).fill(127));
    const table = tableOf([better, other], 13);
    expect(bestOf(scoresOf(table, 'dot', query), 1, Number.NEGATIVE_INFINITY, undefined)).toEqual([0]);
    for (const queries of [[query], [query, query]]) {
      const { resident } = place(kernel, kernel.arenaAt, table, 'dot', 'i8');
      const scan = new CandidateScan(
        kernel,
        'dot',
        13,
        queries,
        queries.map(() => 1),
        Number.NEGATIVE_INFINITY,
      );
      scan.scan(0, resident, undefined);
      expect(rowsFound(scan)).toContain(0);
    }
  });

  it('allows for the rounding of the squared norms that it reads', () => {
    // The first row is nearer by 1, the second looks nearer by 1: one squared norm is rounded up, the other down.
    const dims = 4_096;
    const vectors = [
      [63, 1],
      [66, 0],
    ].map(([a, b]) => {
      const vector = new Float32Array(dims).fill(127);
      vector[0] = a!;
      vector[1] = b!;
      return vector;
    });
    // The rest of the squared norm leaves 1 modulo 4.
    for (const vector of vectors) vector.fill(0, 2, 2 + ((4_094 * 127 ** 2 - 1) % 4));
    const table = tableOf(vectors, dims);
    const squares = vectors.map((vector) => dot(vector, vector));
    expect(squares.map((square) => Math.fround(square) - square)).toEqual([1, -1]);
    const query = new Float32Array(dims);
    query[0] = 64.5;
    query[1] = 1;
    expect(bestOf(scoresOf(table, 'euclid', query), 1, Number.NEGATIVE_INFINITY, undefined)).toEqual([0]);
    for (const storage of storages) {
      const { resident } = place(kernel, kernel.arenaAt, table, 'euclid', storage);
      const scan = new CandidateScan(kernel, 'euclid', dims, [query], [1], Number.NEGATIVE_INFINITY);
      scan.scan(0, resident, undefined);
      expect(rowsFound(scan)).toContain(0);
    }
  });

  it('rules nothing out where k is beyond its heaps, and nothing in above the lowest score wanted', () => {
    const { resident } = place(
      kernel,
      kernel.arenaAt,
      tableOf(
        ladder(50, (i) => i),
        2,
      ),
      'dot',
      'f32',
    );
    const all = new CandidateScan(kernel, 'dot', 2, [along], [1_000_000], Number.NEGATIVE_INFINITY);
    expect(all.scan(0, resident, undefined)).toEqual([true]);
    expect(rowsFound(all)).toHaveLength(50);
    const few = new CandidateScan(kernel, 'dot', 2, [along], [1_000_000], 45);
    few.scan(0, resident, undefined);
    expect(rowsFound(few)).toEqual([45, 46, 47, 48, 49]);
    const none = new CandidateScan(kernel, 'dot', 2, [along], [10], Number.POSITIVE_INFINITY);
    expect(none.scan(0, resident, undefined)).toEqual([true]);
    expect(rowsFound(none)).toEqual([]);
  });

  it('does without rows, and without selected ones', () => {
    const { resident } = place(kernel, kernel.arenaAt, tableOf([], 2), 'dot', 'f32');
    const scan = new CandidateScan(kernel, 'dot', 2, [along], [10], Number.NEGATIVE_INFINITY);
    expect(scan.scan(0, resident, undefined)).toEqual([true]);
    const some = place(
      kernel,
      kernel.arenaAt,
      tableOf(
        ladder(50, (i) => i),
        2,
      ),
      'dot',
      'f32',
    );
    expect(scan.scan(1, some.resident, noBits(50))).toEqual([true]);
    expect(scan.candidates(0)).toEqual([]);
  });

  it('leaves queries that float32 cannot hold to the caller', () => {
    const { resident } = place(
      kernel,
      kernel.arenaAt,
      tableOf(
        ladder(50, (i) => i),
        2,
      ),
      'euclid',
      'f32',
    );
    const far = Float32Array.of(2 ** 100, 0);
    const scan = new CandidateScan(kernel, 'euclid', 2, [far, along], [3, 3], Number.NEGATIVE_INFINITY);
    expect(scan.scan(0, resident, undefined)).toEqual([false, true]);
    expect(scan.candidates(0)).toEqual([]);
  });

  it('says what it was called with, where that cannot be', () => {
    const make = (queries: number, k: number): CandidateScan =>
      new CandidateScan(kernel, 'dot', 2, new Array(queries).fill(along), new Array(k).fill(1), 0);
    expect(() => make(0, 0)).toThrow(/1 to 16 queries/);
    expect(() => make(17, 17)).toThrow(/1 to 16 queries/);
    expect(() => make(2, 1)).toThrow(/got 2 and 1/);
    expect(() => new CandidateScan(kernel, 'dot', 3, [along], [1], 0)).toThrow(/2 values, the rows have 3/);
    const { resident } = place(
      kernel,
      kernel.arenaAt,
      tableOf(
        ladder(8, (i) => i),
        2,
      ),
      'euclid',
      'f32',
    );
    expect(() => make(1, 1).scan(0, resident, undefined)).toThrow(/euclid/);
    const bare = { ...resident, metric: 'dot' as const, vectors: undefined };
    expect(() => make(1, 1).scan(0, bare, undefined)).toThrow(/without codes and without vectors/);
  });
});

describe('Kernel', () => {
  it('has an arena of the size asked for, to the last row of it', () => {
    const small = Kernel.create({ arenaBytes: 8 * 64 + 64 });
    expect(small.arenaAt % 64).toBe(0);
    expect(small.bytes.length).toBeGreaterThanOrEqual(small.arenaAt + small.arenaBytes);
    const storage: Storage = 'f32';
    const { resident, end } = place(
      small,
      small.arenaAt,
      tableOf(
        ladder(8, (i) => i),
        2,
      ),
      'euclid',
      storage,
    );
    expect(end).toBe(small.arenaAt + small.arenaBytes);
    const scan = new CandidateScan(small, 'euclid', 2, [along], [1], Number.NEGATIVE_INFINITY);
    expect(scan.scan(0, resident, undefined)).toEqual([true]);
    expect(rowsFound(scan)).toContain(1);
  });

  it('refuses an arena that 32 bits cannot address', () => {
    for (const arenaBytes of [2 ** 32, -1, 0.5])
      expect(() => Kernel.create({ arenaBytes })).toThrow(RangeError);
  });

  it('is the committed file that its sources compile to', async () => {
    const committed = readFileSync(
      new URL('../../../functions/core/vectors/kernel/kernel.wasm', import.meta.url),
    );
    expect(Buffer.from(await compileKernel()).equals(committed), 'run `npm run kernel`').toBe(true);
    expect(committed.length).toBeLessThan(20_000);
  });
});

describe('a k larger than the heap of the kernel', () => {
  it('rules nothing out for its query, and takes nothing from the query beside it', () => {
    const rows = 24_000;
    const dims = 16;
    const random = generator(11);
    const vectors = Float32Array.from({ length: rows * dims }, () => random() - 0.5);
    const [vectorsAt, auxAt] = put(vectors, new Float32Array(rows));
    const resident: ResidentRows = {
      rows,
      padRows: rows,
      dims,
      padDims: dims,
      metric: 'dot',
      aux: auxAt!,
      vectors: { at: vectorsAt!, dtype: 'f32' },
      normMax: 4,
    };
    const queries = [0, 1, 2].map(() => Float32Array.from({ length: dims }, () => random() - 0.5));
    const scan = new CandidateScan(
      kernel,
      'dot',
      dims,
      queries,
      [21_000, 10, 20_481],
      Number.NEGATIVE_INFINITY,
    );
    const complete = scan.scan(0, resident, undefined);
    expect(complete[1]).toBe(true);
    for (const q of [0, 2]) expect(complete[q] ? scan.candidates(q).length : rows).toBe(rows);
    const scores = Array.from({ length: rows }, (_, row) =>
      dot(queries[1]!, vectors.subarray(row * dims, (row + 1) * dims)),
    );
    const best = Array.from({ length: rows }, (_, row) => row).sort((a, b) => scores[b]! - scores[a]!);
    const found = new Set(scan.candidates(1).map(({ row }) => row));
    expect(best.slice(0, 10).filter((row) => !found.has(row))).toEqual([]);
  });
});
