// Which functions scan a feature: few, evenly, and the same ones for the same segment from query to query.
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { planShards, residentBytes } from '../../../functions/core/fan-out/plan.ts';
import { functionFor } from '../../../functions/core/fan-out/rendezvous.ts';
import { encodeSegment } from '../../../functions/core/vectors/encode-segment.ts';
import type { FeatureManifest, SegmentRef } from '../../../functions/core/vectors/manifest.ts';

const keys = (count: number) => Array.from({ length: count }, (_, i) => `ns/col/seg/${i * 7919}.vseg`);

function segment(key: string, rows: number, codes: boolean): SegmentRef {
  const { description } = encodeSegment({
    kind: 'data',
    dims: 16,
    metric: 'dot',
    rows: Array.from({ length: rows }, (_, i) => ({ id: `${key}${i}`, vector: new Array(16).fill(i + 1) })),
    codes,
  });
  return { ...description, key, base_seq: 0 };
}

describe('rendezvous hashing', () => {
  test('spreads segments over all functions, none has twice its share', () => {
    for (const functions of [2, 5, 16]) {
      const counts = new Array<number>(functions).fill(0);
      for (const key of keys(2_000)) counts[functionFor(key, functions)]! += 1;
      expect(Math.max(...counts)).toBeLessThan((2 * 2_000) / functions);
      expect(Math.min(...counts)).toBeGreaterThan(0);
    }
  });

  test('one function more moves segments to that one only', () => {
    fc.assert(
      fc.property(fc.string(), fc.integer({ min: 1, max: 40 }), (key, functions) => {
        const before = functionFor(key, functions);
        const after = functionFor(key, functions + 1);
        expect(after === before || after === functions).toBe(true);
      }),
    );
  });
});

describe('the plan', () => {
  const feature = (segments: readonly SegmentRef[]): FeatureManifest => ({
    dims: 16,
    metric: 'dot',
    segments,
  });
  const parts = keys(12).map((key) => segment(key, 40, false));
  const each = residentBytes(parts[0]!);

  test('counts codes where there are some, which are a quarter of the vectors', () => {
    const coded = residentBytes(segment('ns/col/seg/c.vseg', 40, true));
    expect(each).toBe(40 * 16 * 4 + 40 * 4);
    expect(coded).toBe(40 * 16 + 4 * 40 * 4);
  });

  test('is one function while it holds everything, and where there are no others', () => {
    expect(planShards(feature(parts), 12 * each, 8)).toBeUndefined();
    expect(planShards(feature(parts), each, 0)).toBeUndefined();
    expect(planShards(feature([]), 1, 8)).toBeUndefined();
  });

  test('gives every data segment to exactly one of as few functions as hold them', () => {
    const delta = encodeSegment({ kind: 'delta', dims: 0, metric: null, rows: [], tombs: [{ id: 'a' }] });
    const all = [...parts, { ...delta.description, key: 'ns/col/seg/delta.vseg', base_seq: 1 }];
    const shards = planShards(feature(all), 4 * each, 8)!;
    expect(shards.length).toBeLessThanOrEqual(3);
    expect(shards.flatMap(({ segments }) => segments).sort()).toEqual(parts.map(({ key }) => key).sort());
    expect(new Set(shards.map((shard) => shard.function)).size).toBe(shards.length);
  });

  test('takes more functions than codes need where vectors then fit beside them, and there are so many', () => {
    const coded = keys(12).map((key) => segment(key, 400, true));
    const codes = coded.reduce((sum, one) => sum + residentBytes(one), 0);
    const functionsOf = (count: number) =>
      Math.max(...planShards(feature(coded), codes / 2, count)!.map((shard) => shard.function)) + 1;
    expect(functionsOf(3)).toBeLessThanOrEqual(2);
    expect(functionsOf(32)).toBeGreaterThan(3);
    expect(planShards(feature(parts), 1, 4)!.every((shard) => shard.function < 4)).toBe(true);
  });
});
