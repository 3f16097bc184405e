// Manifests: sequence bases, features, compaction against what came later, retired segments.
import { describe, expect, test } from 'vitest';
import { compactRows } from '../../../functions/core/vectors/compact.ts';
import { encodeSegment, type SegmentInput } from '../../../functions/core/vectors/encode-segment.ts';
import {
  type Addition,
  appendDeltas,
  appendSegments,
  collectableKeys,
  decodeManifest,
  documentsUri,
  emptyManifest,
  encodeManifest,
  forgetRetired,
  keysOf,
  type Manifest,
  replaceSegments,
  type StoredSegment,
} from '../../../functions/core/vectors/manifest.ts';
import { openSegment, type Segment } from '../../../functions/core/vectors/open-segment.ts';
import { columnsOf, openSnapshot, type Snapshot } from '../../../functions/core/vectors/snapshot.ts';

const uri = 'mixpeek://text_embed@1.0.0/embedding';
const base = 2 ** 24;

const objects = new Map<string, Segment>();

function stored(key: string, input: Partial<SegmentInput>): StoredSegment {
  const { bytes, description } = encodeSegment({ kind: 'data', dims: 0, metric: null, rows: [], ...input });
  objects.set(key, openSegment(bytes, key));
  return { ...description, key };
}

const rowsOf = (...ids: string[]) => ids.map((id) => ({ id, vector: [1, 0], columns: new Map([['a', id]]) }));
const data = (key: string, ...ids: string[]): Addition => ({
  uri,
  dims: 2,
  metric: 'cosine',
  segment: stored(key, { dims: 2, metric: 'cosine', rows: rowsOf(...ids) }),
});
const documents = (key: string, ...ids: string[]): Addition => ({
  uri: documentsUri,
  dims: 0,
  metric: null,
  segment: stored(key, { rows: rowsOf(...ids).map(({ id, columns }) => ({ id, columns })) }),
});
const tombs = (key: string, ...ids: string[]) =>
  stored(key, { kind: 'delta', tombs: ids.map((id) => ({ id })) });
const patch = (key: string, id: string, a: string) =>
  stored(key, { kind: 'columns', rows: [{ id, columns: new Map([['a', a]]) }] });
const keys = (manifest: Manifest, feature = uri) =>
  manifest.features[feature]!.segments.map(({ key }) => key);
const snapshotOf = (manifest: Manifest, feature = uri) => openSnapshot(manifest.features[feature]!, objects);
const fails = (code: string, objectName?: string) =>
  expect.objectContaining(objectName === undefined ? { code } : { code, objectName });

describe('appending', () => {
  test('the base of a commit is its version times 2^24, later segments of it come after earlier ones', () => {
    const one = appendSegments(emptyManifest(), [data('k1', 'a', 'b', 'c'), data('k2', 'a')]);
    expect(one.version).toBe(1);
    expect(one.features[uri]!.segments.map(({ base_seq }) => base_seq)).toEqual([base, base + 3]);
    const two = appendSegments(one, [data('k3', 'a')]);
    expect(two.features[uri]!.segments.at(-1)!.base_seq).toBe(2 * base);
    expect(one.features[uri]!.segments).toHaveLength(2);
  });

  test('after a lost race the same segments get other bases and nothing else changes', () => {
    const mine = [data('m1', 'a')];
    const winner = appendSegments(emptyManifest(), [data('w1', 'a')]);
    const lost = appendSegments(emptyManifest(), mine);
    const again = appendSegments(winner, mine);
    const { base_seq, ...rest } = again.features[uri]!.segments.at(-1)!;
    expect(base_seq).toBe(2 * base);
    expect(lost.features[uri]!.segments[0]).toEqual({ ...rest, base_seq: base });
  });

  test('deletions and patches reach every feature, those that the commit makes included', () => {
    const first = appendSegments(emptyManifest(), [data('e1', 'a')]);
    const next = appendSegments(first, [{ every: true, segment: tombs('e2', 'a') }, documents('e3', 'a')]);
    expect([keys(next), keys(next, documentsUri)]).toEqual([
      ['e1', 'e2'],
      ['e2', 'e3'],
    ]);
    expect(snapshotOf(next).liveCount).toBe(0);
    expect(snapshotOf(next, documentsUri).liveCount).toBe(1);
    const patched = appendDeltas(next, [patch('e4', 'a', 'new')]);
    expect(columnsOf(snapshotOf(patched, documentsUri), 'a')).toEqual(new Map([['a', 'new']]));
  });

  test('a patch or a deletion of an id that is not there changes nothing', () => {
    const manifest = appendDeltas(appendSegments(emptyManifest(), [data('n1', 'a')]), [
      patch('n2', 'x', 'y'),
      tombs('n3', 'z'),
    ]);
    expect(snapshotOf(manifest).liveCount).toBe(1);
    expect(columnsOf(snapshotOf(manifest), 'x')).toBeUndefined();
  });

  test('a segment that does not fit its feature is refused, naming it', () => {
    const manifest = appendSegments(emptyManifest(), [data('f1', 'a')]);
    const segment = stored('f2', { dims: 3, metric: 'cosine', rows: [{ id: 'a', vector: [1, 2, 3] }] });
    expect(() => appendSegments(manifest, [{ uri, dims: 3, metric: 'cosine', segment }])).toThrow(
      /3 and cosine/,
    );
    expect(() => appendSegments(manifest, [{ uri, dims: 2, metric: 'dot', segment }])).toThrow(
      fails('feature_mismatch'),
    );
    expect(() => appendSegments(manifest, [{ uri, dims: 2, metric: 'cosine', segment }])).toThrow(
      fails('feature_mismatch', 'f2'),
    );
    expect(() => appendSegments(manifest, [data('f1', 'a')])).toThrow(fails('feature_mismatch', 'f1'));
    const absolute = stored('f3', { absolute: true, rows: [{ id: 'a', seq: 5 }] });
    expect(() => appendDeltas(manifest, [absolute])).toThrow(fails('feature_mismatch', 'f3'));
  });

  test('a commit has 2^24 sequence numbers and not one more', () => {
    const wide = { ...patch('c1', 'a', 'b'), seq_max: base - 1 };
    expect(() => appendDeltas(emptyManifest(), [wide])).not.toThrow();
    expect(() => appendDeltas(emptyManifest(), [wide, patch('c2', 'a', 'b')])).toThrow(
      fails('commit_too_large', 'c2'),
    );
    expect(() => appendDeltas(emptyManifest(), [{ ...wide, seq_max: base }])).toThrow(
      fails('commit_too_large', 'c1'),
    );
  });
});

async function compacted(snapshot: Snapshot, key: string): Promise<StoredSegment[]> {
  const stored: StoredSegment[] = [];
  for await (const { bytes, description } of compactRows(snapshot)) {
    objects.set(key, openSegment(bytes, key));
    stored.push({ ...description, key });
  }
  return stored;
}

describe('compaction', () => {
  test('replaced segments retire when no feature uses them any more', async () => {
    const start = appendSegments(emptyManifest(), [data('r1', 'a', 'b'), documents('r2', 'a', 'b')]);
    const shared = appendDeltas(start, [tombs('r3', 'a')]);
    const compact = async (manifest: Manifest, feature: string, key: string) => {
      const added = await compacted(snapshotOf(manifest, feature), key);
      return replaceSegments(manifest, feature, keys(manifest, feature), added, 1_000);
    };
    const one = await compact(shared, uri, 'r4');
    expect(one.retired).toEqual([{ key: 'r1', since_ms: 1_000 }]);
    const both = await compact(one, documentsUri, 'r5');
    expect(both.retired.map(({ key }) => key).sort()).toEqual(['r1', 'r2', 'r3']);
    expect(keysOf(both)).toEqual(new Set(['r1', 'r2', 'r3', 'r4', 'r5']));
    expect(snapshotOf(both).liveCount).toBe(1);
    expect(collectableKeys(both, 1_999, 1_000)).toEqual([]);
    expect(collectableKeys(both, 2_000, 1_000).sort()).toEqual(['r1', 'r2', 'r3']);
    expect(forgetRetired(both, ['r1', 'r2']).retired.map(({ key }) => key)).toEqual(['r3']);
    expect(both.version).toBe(4);
  });

  test('what was committed during a compaction stays on top of its result', async () => {
    const start = appendSegments(emptyManifest(), [data('d1', 'a', 'b')]);
    const added = await compacted(snapshotOf(start), 'd4');
    const later = appendDeltas(start, [tombs('d2', 'a'), patch('d3', 'b', 'late')]);
    const snapshot = snapshotOf(replaceSegments(later, uri, ['d1'], added, 0));
    expect(snapshot.liveCount).toBe(1);
    expect(columnsOf(snapshot, 'b')).toEqual(new Map([['a', 'late']]));
  });

  test('a row carries the sequence number of its last patch, so an older patch cannot come back over it', async () => {
    const start = appendSegments(emptyManifest(), [data('p1', 'a')]);
    const patched = appendDeltas(start, [patch('p2', 'a', 'old'), patch('p3', 'a', 'new')]);
    const added = await compacted(snapshotOf(patched), 'p4');
    const snapshot = snapshotOf(replaceSegments(patched, uri, ['p1', 'p3'], added, 0));
    expect(columnsOf(snapshot, 'a')).toEqual(new Map([['a', 'new']]));
  });

  test('it starts again if an input is gone, and is refused if it would bring deleted rows back', () => {
    const start = appendDeltas(appendSegments(emptyManifest(), [data('s1', 'a'), data('s2', 'b')]), [
      tombs('s3', 'a'),
    ]);
    expect(() => replaceSegments(start, uri, ['s1', 'gone'], [], 0)).toThrow(
      fails('compaction_stale', 'gone'),
    );
    expect(() => replaceSegments(start, 'mixpeek://no@1.0.0/f', ['s1'], [], 0)).toThrow(
      fails('compaction_stale'),
    );
    expect(() => replaceSegments(start, uri, ['s2', 's3'], [], 0)).toThrow(fails('compaction_partial', 's3'));
    const relative = stored('s4', { dims: 2, metric: 'cosine', rows: rowsOf('b') });
    expect(() => replaceSegments(start, uri, ['s2'], [relative], 0)).toThrow(fails('feature_mismatch', 's4'));
  });
});

describe('stored form', () => {
  test('a manifest survives being stored', () => {
    const manifest = appendSegments(emptyManifest(), [data('j1', 'a'), documents('j2', 'a')]);
    expect(decodeManifest(encodeManifest(manifest), 'man/1.json')).toEqual(manifest);
  });

  test.each([
    ['no JSON', '{'],
    ['another JSON', '{"version": 1}'],
    [
      'a feature without segments',
      '{"version": 1, "features": {"u": {"dims": 1, "metric": "dot"}}, "retired": []}',
    ],
    [
      'an unknown metric',
      '{"version": 1, "features": {"u": {"dims": 1, "metric": "l1", "segments": []}}, "retired": []}',
    ],
    [
      'a segment without key',
      '{"version": 1, "features": {"u": {"dims": 0, "metric": null, "segments": [{}]}}, "retired": []}',
    ],
    ['a negative version', '{"version": -1, "features": {}, "retired": []}'],
  ])('%s is refused, naming the object', (_, text) => {
    expect(() => decodeManifest(new TextEncoder().encode(text), 'man/7.json')).toThrow(
      fails('manifest_corrupt', 'man/7.json'),
    );
  });

  test('a snapshot without one of its segments is refused, naming it', () => {
    const manifest = appendSegments(emptyManifest(), [data('l1', 'a')]);
    expect(() => openSnapshot(manifest.features[uri]!, new Map())).toThrow(fails('segment_missing', 'l1'));
    const other = openSegment(encodeSegment({ kind: 'data', dims: 0, metric: null, rows: [] }).bytes, 'l1');
    expect(() => openSnapshot(manifest.features[uri]!, new Map([['l1', other]]))).toThrow(
      fails('segment_mismatch', 'l1'),
    );
  });
});
