// A stored segment with one wrong byte: it is refused by a typed error that names it, or the byte changes no answer.
import { isDeepStrictEqual } from 'node:util';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { encodeSegment } from '../../../functions/core/vectors/encode-segment.ts';
import { VectorError } from '../../../functions/core/vectors/errors.ts';
import type { SegmentRef } from '../../../functions/core/vectors/manifest.ts';
import { openStoredSegment } from '../../../functions/core/vectors/open-segment.ts';
import { search } from '../../../functions/core/vectors/search.ts';
import type { SegmentDescription } from '../../../functions/core/vectors/segment-format.ts';
import { columnsOf, openSnapshot, vectorOf } from '../../../functions/core/vectors/snapshot.ts';
import { type Metric, metrics } from '../../../functions/core/vectors/vector.ts';
import { makeVectorMemory } from '../../../functions/core/vectors/vector-memory.ts';

const name = 'ns/col/seg/damaged.vseg';
const rows = 40;
const dims = 20;

/** Everything that can be asked of the segment, read as from a bucket: by ranges, then by a scan. */
async function ask(bytes: Uint8Array, description: SegmentDescription, metric: Metric) {
  const readInto = async (at: number, target: Uint8Array) => {
    target.set(bytes.subarray(at, at + target.length));
  };
  const segment = await openStoredSegment({ readInto }, name, description, 0);
  const ref: SegmentRef = { ...description, key: name, base_seq: 0 };
  const snapshot = openSnapshot({ dims, metric, segments: [ref] }, new Map([[name, segment]]));
  const memory = { ...makeVectorMemory(65_536), rowsWithoutScan: 0 };
  const ids = Array.from({ length: rows }, (_, i) => `doc_${i}`);
  const single = [];
  for (const id of ids) single.push([await vectorOf(snapshot, id, memory), columnsOf(snapshot, id)]);
  const query = Array.from({ length: dims }, (_, i) => Math.sin(i));
  const found = await search(snapshot, { queries: [query], k: 10 }, memory);
  return { single, matches: found.matches };
}

test('one wrong byte anywhere is refused, naming the object, or changes nothing', async () => {
  const segments = metrics.flatMap((metric) =>
    [true, false].map((codes) => {
      const encoded = encodeSegment({
        kind: 'data',
        dims,
        metric,
        codes,
        rows: Array.from({ length: rows }, (_, i) => ({
          id: `doc_${i}`,
          vector: Array.from({ length: dims }, (_unused, j) => Math.sin(i * 31 + j * 7)),
          columns: new Map<string, string | number>([
            ['colour', i % 3 === 0 ? 'red' : 'blue'],
            ['n', i],
          ]),
        })),
      });
      return { ...encoded, metric };
    }),
  );
  const intact = await Promise.all(
    segments.map(({ bytes, description, metric }) => ask(bytes, description, metric)),
  );
  let refused = 0;
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 0, max: segments.length - 1 }),
      fc.nat(),
      fc.integer({ min: 1, max: 255 }),
      async (which, place, change) => {
        const { bytes, description, metric } = segments[which]!;
        const damaged = bytes.slice();
        damaged[place % damaged.length]! ^= change;
        try {
          const answer = await ask(damaged, description, metric);
          expect(isDeepStrictEqual(answer, intact[which])).toBe(true);
        } catch (error) {
          if (!(error instanceof VectorError)) throw error;
          expect(error.objectName).toBe(name);
          refused += 1;
        }
      },
    ),
    { numRuns: 600 },
  );
  // Most bytes belong to something; the rest are gaps and padding.
  expect(refused).toBeGreaterThan(200);
});
