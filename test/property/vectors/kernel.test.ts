// The candidates of the kernel always contain the true best rows, whatever the data.
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type Bits, noBits, setBit } from '../../../functions/core/vectors/bits.ts';
import { CandidateScan } from '../../../functions/core/vectors/kernel/candidate-scan.ts';
import { Kernel } from '../../../functions/core/vectors/kernel/kernel.ts';
import {
  anyDims,
  anyMetric,
  bell,
  bestOf,
  flavours,
  generator,
  place,
  scoresOf,
  storages,
  tableOf,
  vectorsOf,
} from './kernel-rows.ts';

const kernel = Kernel.create({ arenaBytes: 48 * 2 ** 20 });

const anySearch = fc.record({
  seed: fc.integer({ min: 1, max: 2 ** 31 }),
  metric: anyMetric,
  storage: fc.constantFrom(...storages),
  dims: anyDims,
  flavour: fc.constantFrom(...flavours),
  parts: fc.array(fc.nat({ max: 300 }), { minLength: 1, maxLength: 3 }),
  /** Share of rows that a filter keeps; above 1 there is no filter. */
  keep: fc.constantFrom(0, 0.02, 0.3, 0.69, 0.8, 1, 2, 2, 2),
  queries: fc.constantFrom(1, 1, 2, 4, 5, 16),
  k: fc.constantFrom(1, 2, 10, 10, 64, 1_000, 30_000),
  queryScale: fc.constantFrom(0, -140, -60, 0, 0, 0, 0, 30, 100),
  minQuantile: fc.constantFrom(2, 2, 2, 0, 0.5, 1),
});

describe('CandidateScan', () => {
  it('finds every row that is among the k best by the float64 score, equal scores included', () => {
    let complete = 0;
    let total = 0;
    fc.assert(
      fc.property(anySearch, (search) => {
        const { metric, storage, dims, k } = search;
        const random = generator(search.seed);
        const rowsMax = dims > 1_000 ? 40 : 300;
        const tables = search.parts.map((rows) =>
          tableOf(vectorsOf(search.flavour, Math.min(rows, rowsMax), dims, random), dims, storage),
        );
        let at = kernel.arenaAt;
        const residents = tables.map((table) => {
          const { resident, end } = place(kernel, at, table, metric, storage);
          at = end;
          return resident;
        });
        const masks = tables.map(({ rows }): Bits | undefined => {
          if (search.keep > 1) return undefined;
          const bits = noBits(rows);
          for (let i = 0; i < rows; i += 1) if (random() < search.keep) setBit(bits, i);
          return bits;
        });
        const queries = Array.from({ length: search.queries }, () => {
          const table = tables[Math.floor(random() * tables.length)]!;
          const scale = 2 ** search.queryScale;
          const kind = random();
          // A query that is a row, one near a row, a random one, zero.
          const row = Math.floor(random() * table.rows) * table.padDims;
          const near = table.vectors.subarray(row, row + dims);
          if (near.length < dims || kind < 0.3)
            return Float32Array.from({ length: dims }, () => bell(random) * scale);
          if (kind < 0.6) return Float32Array.from(near, (value) => value * scale);
          if (kind < 0.95)
            return Float32Array.from(near, (value) => value * (1 + 1e-3 * bell(random)) * scale);
          return new Float32Array(dims);
        }).map((query) => query.map((value) => (Number.isFinite(value) ? value : 1)));
        const scores = queries.map((query) => tables.map((table) => scoresOf(table, metric, query)));
        const flat = scores[0]!.flat().sort((a, b) => a - b);
        const minScore =
          search.minQuantile > 1 || flat.length === 0
            ? Number.NEGATIVE_INFINITY
            : flat[Math.floor(search.minQuantile * (flat.length - 1))]!;
        const scan = new CandidateScan(
          kernel,
          metric,
          dims,
          queries,
          queries.map(() => k),
          minScore,
        );
        const done = residents.map((resident, part) => scan.scan(part, resident, masks[part]));
        for (const [q, byPart] of scores.entries()) {
          const found = new Set(scan.candidates(q).map(({ part, row }) => `${part}/${row}`));
          const wanted: { part: number; row: number; score: number }[] = [];
          for (const [part, list] of byPart.entries()) {
            for (const row of bestOf(list, k, minScore, masks[part]))
              wanted.push({ part, row, score: list[row]! });
          }
          wanted.sort((a, b) => b.score - a.score);
          const last = wanted[k - 1]?.score ?? Number.NEGATIVE_INFINITY;
          for (const { part, row, score } of wanted) {
            if (score < last) break;
            if (done[part]![q]!) expect(found, `part ${part} row ${row}`).toContain(`${part}/${row}`);
          }
          for (const key of found) {
            const [part, row] = key.split('/').map(Number) as [number, number];
            expect(row).toBeLessThan(tables[part]!.rows);
            const bits = masks[part];
            if (bits !== undefined) expect((bits[row >>> 5]! >>> (row & 31)) & 1).toBe(1);
          }
          expect(found.size).toBe(scan.candidates(q).length);
          complete += done.filter((byQuery) => byQuery[q]).length;
          total += done.length;
        }
      }),
      { numRuns: 250 },
    );
    // A filter that always gave up would pass what is above.
    expect(complete / total).toBeGreaterThan(0.8);
  });
});
