// When a feature is compacted, what of it is rewritten, and that every plan leaves less to do.
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  compactionReasons,
  compactionRules,
  planCompaction,
  type SegmentState,
} from '../../../functions/core/vectors/compaction-plan.ts';
import type { FeatureManifest, SegmentRef } from '../../../functions/core/vectors/manifest.ts';

const megabyte = 2 ** 20;

const data = (key: string, bytes: number, rows: number, dead = 0): SegmentRef => ({
  key,
  kind: 'data',
  bytes,
  rows,
  tombs: 0,
  dims: 2,
  metric: 'dot',
  absolute: false,
  seq_max: rows,
  header_len: 1,
  header_crc32: '00000000',
  sections: [],
  base_seq: 0,
  ...(dead > 0 ? { dead: { key: `${key}.dead`, bytes: 1, rows: dead, crc32: 0 } } : {}),
});
const delta = (key: string, bytes: number, rows = 0, absolute = false): SegmentRef => ({
  ...data(key, bytes, rows),
  kind: rows > 0 ? 'columns' : 'delta',
  dims: 0,
  metric: null,
  absolute,
});
const featureOf = (...segments: SegmentRef[]): FeatureManifest => ({ dims: 2, metric: 'dot', segments });
const many = (count: number, make: (i: number) => SegmentRef) =>
  Array.from({ length: count }, (_, i) => make(i));
/** All rows live that the manifest does not list as dead. */
const statesOf = (
  feature: FeatureManifest,
  more: Record<string, Partial<SegmentState>> = {},
): SegmentState[] =>
  feature.segments
    .filter(({ kind }) => kind === 'data')
    .map(({ key, bytes, rows, dead }) => ({
      key,
      bytes,
      rows,
      liveRows: rows - (dead?.rows ?? 0),
      patchedRows: 0,
      ...more[key],
    }));
const planOf = (feature: FeatureManifest, more?: Record<string, Partial<SegmentState>>) =>
  planCompaction(feature, statesOf(feature, more));

describe('a feature needs compaction', () => {
  test('when its deltas have more than 64 MB, and not before', () => {
    const full = data('d', 64 * megabyte, 10_000);
    expect(compactionReasons(featureOf(full, delta('t', 64 * megabyte)))).toEqual([]);
    expect(compactionReasons(featureOf(full, delta('t', 64 * megabyte), delta('u', 1)))).toEqual(['deltas']);
  });

  test('when it has more than 16 loose segments; full ones do not count, for merging them changes nothing', () => {
    const full = many(40, (i) => data(`f${i}`, 60 * megabyte, 10_000));
    const loose = [...many(8, (i) => data(`s${i}`, 9_000, 9)), ...many(8, (i) => delta(`t${i}`, 5_000))];
    expect(compactionReasons(featureOf(...full, ...loose))).toEqual([]);
    expect(compactionReasons(featureOf(...full, ...loose, delta('one', 1)))).toEqual(['segments']);
  });

  test('when more than 5 % of a segment are listed as dead, or of all rows by the count of those that live', () => {
    const size = 64 * megabyte;
    expect(compactionReasons(featureOf(data('a', size, 1_000, 50), data('b', size, 1_000)))).toEqual([]);
    expect(compactionReasons(featureOf(data('a', size, 1_000, 51), data('b', size, 1_000)))).toEqual([
      'dead_rows',
    ]);
    const two = featureOf(data('a', size, 1_000), data('b', size, 1_000));
    expect(compactionReasons(two, 1_900)).toEqual([]);
    expect(compactionReasons(two, 1_899)).toEqual(['dead_rows']);
  });

  test('not for dead rows of less than a megabyte', () => {
    expect(compactionReasons(featureOf(data('a', 8_000, 10)), 5)).toEqual([]);
    expect(compactionReasons(featureOf(), 0)).toEqual([]);
  });
});

describe('a plan', () => {
  test('is none for a feature that needs nothing', () => {
    expect(planOf(featureOf(data('a', 1_000, 10), delta('t', 1_000)))).toBeUndefined();
  });

  test('leaves large segments alone that mostly live, and rewrites those with many dead rows', () => {
    const feature = featureOf(
      data('live', 60 * megabyte, 1_000),
      data('few', 60 * megabyte, 1_000),
      data('half', 60 * megabyte, 1_000),
      ...many(17, (i) => delta(`t${i}`, 100)),
    );
    const plan = planOf(feature, { few: { liveRows: 950 }, half: { liveRows: 500 } });
    expect(plan).toMatchObject({ reasons: ['segments', 'dead_rows'], rewrite: ['half'] });
  });

  test('merges the smallest segments and leaves a larger one that they do not outweigh', () => {
    const feature = featureOf(
      data('big', 20 * megabyte, 5_000),
      ...many(17, (i) => data(`s${i}`, 10_000 + i, 10)),
    );
    const { rewrite, inputBytes } = planOf(feature)!;
    expect(rewrite).toEqual(Array.from({ length: 17 }, (_, i) => `s${i}`));
    expect(inputBytes).toBeLessThan(megabyte);
    const outweighed = featureOf(
      data('big', 20 * megabyte, 5_000),
      ...many(17, (i) => data(`s${i}`, 2 * megabyte, 9)),
    );
    expect(planOf(outweighed)!.rewrite).toContain('big');
  });

  test('reads 512 MB of segments at most, the deadest first', () => {
    const feature = featureOf(...many(20, (i) => data(`d${i}`, 64 * megabyte, 1_000)));
    const dead = Object.fromEntries(
      many(20, (i) => data(`d${i}`, 1, 1)).map(({ key }, i) => [key, { liveRows: 900 - i * 10 }]),
    );
    const plan = planOf(feature, dead)!;
    expect(plan.inputBytes).toBe(512 * megabyte);
    expect(plan.rewrite).toEqual(['d12', 'd13', 'd14', 'd15', 'd16', 'd17', 'd18', 'd19']);
  });

  test('takes one segment that is larger than that by itself', () => {
    const plan = planOf(featureOf(data('huge', 900 * megabyte, 1_000, 999), data('b', megabyte, 10, 9)))!;
    expect(plan.rewrite).toEqual(['huge']);
  });

  test('rewrites what most patches concern when they are too many to be carried along', () => {
    const feature = featureOf(
      ...many(10, (i) => data(`d${i}`, 60 * megabyte, 10_000)),
      delta('p', 80 * megabyte, 50_000),
    );
    const patched = Object.fromEntries(
      many(10, (i) => data(`d${i}`, 1, 1)).map(({ key }, i) => [key, { patchedRows: i * 1_000 }]),
    );
    const { rewrite } = planOf(feature, patched)!;
    // 45,000 rows of 1.7 kB, and 32 MB of them may stay: 27,000 rows and more go.
    expect(rewrite).toEqual(['d6', 'd7', 'd8', 'd9']);
  });

  test('rewrites all that patches concern, as far as it may read, when merging them did not make them few enough', () => {
    const feature = featureOf(
      ...many(4, (i) => data(`d${i}`, 60 * megabyte, 10_000)),
      delta('merged', 80 * megabyte, 100, true),
    );
    const plan = planOf(feature, { d1: { patchedRows: 1 }, d2: { patchedRows: 2 } });
    expect(plan?.rewrite).toEqual(['d1', 'd2']);
  });

  test('leaves no reason, or fewer bytes to look at, whatever the feature', () => {
    const segment = fc.record({
      bytes: fc.constantFrom(5_000, megabyte, 20 * megabyte, 40 * megabyte, 64 * megabyte),
      rows: fc.integer({ min: 1, max: 100_000 }),
      deadShare: fc.constantFrom(0, 0.01, 0.06, 0.5, 1),
    });
    fc.assert(
      fc.property(
        fc.array(segment, { maxLength: 60 }),
        fc.array(fc.constantFrom(5_000, megabyte, 30 * megabyte), { maxLength: 40 }),
        (segments, deltas) => {
          let feature = featureOf(
            ...segments.map(({ bytes, rows }, i) => data(`d${i}`, bytes, rows)),
            ...deltas.map((bytes, i) => delta(`t${i}`, bytes)),
          );
          let states = statesOf(
            feature,
            Object.fromEntries(
              segments.map(({ rows, deadShare }, i) => [
                `d${i}`,
                { liveRows: Math.round(rows * (1 - deadShare)) },
              ]),
            ),
          );
          let runs = 0;
          for (let plan = planCompaction(feature, states); plan; plan = planCompaction(feature, states)) {
            runs += 1;
            expect(runs).toBeLessThan(30);
            expect(plan.inputBytes).toBeLessThanOrEqual(compactionRules.inputBytesMax);
            const taken = new Set(plan.rewrite);
            const chosen = states.filter(({ key }) => taken.has(key));
            const rows = chosen.reduce((sum, state) => sum + state.liveRows, 0);
            const bytesPerRow = plan.inputBytes / chosen.reduce((sum, state) => sum + state.rows, 0);
            const rowsMax = Math.max(
              1,
              Math.min(2 ** 18, Math.floor(compactionRules.segmentBytesTarget / bytesPerRow)),
            );
            const written = Array.from({ length: Math.ceil(rows / rowsMax) }, (_, i) => {
              const own = Math.min(rowsMax, rows - i * rowsMax);
              return {
                key: `r${runs}.${i}`,
                bytes: own * bytesPerRow,
                rows: own,
                liveRows: own,
                patchedRows: 0,
              };
            });
            states = [...written, ...states.filter(({ key }) => !taken.has(key))];
            feature = featureOf(
              ...states.map(({ key, bytes, rows: all, liveRows }) => data(key, bytes, all, all - liveRows)),
            );
          }
        },
      ),
      { numRuns: 300 },
    );
  });
});
