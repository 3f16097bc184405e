// Manifests: sequence bases, features, compaction against what came later, retired segments.
import { describe, expect, test } from 'vitest';
import { type Bits, countBits } from '../../../functions/core/vectors/bits.ts';
import { compactRows } from '../../../functions/core/vectors/compact.ts';
import { type DeadRowsRef, encodeDeadRows, openDeadRows } from '../../../functions/core/vectors/dead-rows.ts';
import {
  type EncodedSegment,
  encodeSegment,
  type SegmentInput,
} from '../../../functions/core/vectors/encode-segment.ts';
import { deadRowsOf, foldPatches } from '../../../functions/core/vectors/kept-segments.ts';
import {
  type Addition,
  appendDeltas,
  appendSegments,
  applyCompaction,
  type Compaction,
  collectableKeys,
  decodeManifest,
  documentsUri,
  dropFeatures,
  emptyManifest,
  encodeManifest,
  forgetRetired,
  keysOf,
  type Manifest,
  type StoredSegment,
} from '../../../functions/core/vectors/manifest.ts';
import { openSegment, type Segment } from '../../../functions/core/vectors/open-segment.ts';
import { columnsOf, openSnapshot } from '../../../functions/core/vectors/snapshot.ts';

const uri = 'mixpeek://text_embed@1.0.0/embedding';
const base = 2 ** 24;

const objects = new Map<string, Segment>();
const deadLists = new Map<string, Bits>();

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
const snapshotOf = (manifest: Manifest, feature = uri) =>
  openSnapshot(manifest.features[feature]!, objects, deadLists);
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

/** What a compaction makes of a feature that rewrites these segments, by default all of them. */
async function compactionOf(
  manifest: Manifest,
  key: string,
  { feature = uri, rewritten }: { feature?: string; rewritten?: readonly string[] } = {},
): Promise<Compaction> {
  const from = manifest.features[feature]!;
  const snapshot = snapshotOf(manifest, feature);
  const data = from.segments.filter(({ kind }) => kind === 'data');
  const isRewritten = (i: number) => rewritten?.includes(data[i]!.key) ?? true;
  const parts = [...data.keys()].filter(isRewritten);
  const kept = [...data.keys()].filter((i) => !isRewritten(i));
  const added: StoredSegment[] = [];
  const put = ({ bytes, description }: EncodedSegment, name: string) => {
    objects.set(name, openSegment(bytes, name));
    added.push({ ...description, key: name });
  };
  for await (const segment of compactRows(snapshot, undefined, undefined, { parts })) put(segment, key);
  const patches = foldPatches(snapshot, kept);
  if (patches) put(patches, `${key} patches`);
  const dead = new Map<string, DeadRowsRef>();
  for (const i of kept) {
    const bits = deadRowsOf(snapshot, i);
    const { key: of, rows } = data[i]!;
    if (countBits(bits) === 0) continue;
    const { bytes, description } = encodeDeadRows(bits, rows);
    const ref = { ...description, key: `${key} dead in ${of}` };
    deadLists.set(ref.key, openDeadRows(bytes, ref, rows));
    dead.set(of, ref);
  }
  return { from, rewritten: parts.map((i) => data[i]!.key), added, dead };
}

describe('compaction', () => {
  test('replaced segments retire when no feature uses them any more', async () => {
    const start = appendSegments(emptyManifest(), [data('r1', 'a', 'b'), documents('r2', 'a', 'b')]);
    const shared = appendDeltas(start, [tombs('r3', 'a')]);
    const one = applyCompaction(shared, uri, await compactionOf(shared, 'r4'), 1_000);
    expect(one.retired).toEqual([{ key: 'r1', since_ms: 1_000 }]);
    const other = await compactionOf(one, 'r5', { feature: documentsUri });
    const both = applyCompaction(one, documentsUri, other, 1_000);
    expect(both.retired.map(({ key }) => key).sort()).toEqual(['r1', 'r2', 'r3']);
    expect(keysOf(both)).toEqual(new Set(['r1', 'r2', 'r3', 'r4', 'r5']));
    expect(snapshotOf(both).liveCount).toBe(1);
    expect(collectableKeys(both, 1_999, 1_000)).toEqual([]);
    expect(collectableKeys(both, 2_000, 1_000).sort()).toEqual(['r1', 'r2', 'r3']);
    expect(forgetRetired(both, ['r1', 'r2']).retired.map(({ key }) => key)).toEqual(['r3']);
    expect(both.version).toBe(4);
  });

  test('segments that stay list their dead rows, so that the deletions can go and nothing comes back', async () => {
    const start = appendSegments(emptyManifest(), [data('l1', 'a', 'b', 'c'), data('l2', 'b')]);
    const deleted = appendDeltas(start, [tombs('l3', 'a', 'b'), patch('l4', 'c', 'new')]);
    const next = applyCompaction(
      deleted,
      uri,
      await compactionOf(deleted, 'l5', { rewritten: ['l2'] }),
      1_000,
    );
    expect(keys(next)).toEqual(['l5 patches', 'l1']);
    expect(next.features[uri]!.segments[1]!.dead).toMatchObject({ key: 'l5 dead in l1', rows: 2 });
    expect(next.retired.map(({ key }) => key)).toEqual(['l2', 'l3', 'l4']);
    expect(keysOf(next)).toContain('l5 dead in l1');
    expect(snapshotOf(next).liveCount).toBe(1);
    expect(columnsOf(snapshotOf(next), 'c')).toEqual(new Map([['a', 'new']]));
    // A list that grew retires the one before.
    const more = appendDeltas(next, [tombs('l6', 'c')]);
    const last = applyCompaction(more, uri, await compactionOf(more, 'l7', { rewritten: [] }), 2_000);
    expect(keys(last)).toEqual(['l1']);
    expect(last.retired.map(({ key }) => key)).toContain('l5 dead in l1');
    expect(snapshotOf(last).liveCount).toBe(0);
  });

  test('it says up to which sequence number segments are settled among each other', async () => {
    const start = appendSegments(emptyManifest(), [data('u1', 'a', 'b'), data('u2', 'a')]);
    expect(start.features[uri]!.settled_seq).toBeUndefined();
    const compaction = await compactionOf(start, 'u3', { rewritten: ['u2'] });
    const later = appendSegments(start, [data('u4', 'b')]);
    // What came meanwhile is not.
    expect(applyCompaction(later, uri, compaction, 0).features[uri]!.settled_seq).toBe(base + 2);
  });

  test('what was committed during a compaction stays on top of its result', async () => {
    const start = appendSegments(emptyManifest(), [data('d1', 'a', 'b')]);
    const compaction = await compactionOf(start, 'd4');
    const later = appendDeltas(start, [tombs('d2', 'a'), patch('d3', 'b', 'late')]);
    const snapshot = snapshotOf(applyCompaction(later, uri, compaction, 0));
    expect(snapshot.liveCount).toBe(1);
    expect(columnsOf(snapshot, 'b')).toEqual(new Map([['a', 'late']]));
  });

  test.each([
    ['a row that was rewritten', undefined],
    ['a row that stays', []],
  ])(
    '%s has the number of its last patch, so an older patch cannot come back over it',
    async (what, rewritten) => {
      const name = what.replaceAll(' ', '_');
      const start = appendSegments(emptyManifest(), [data(`p1 ${name}`, 'a')]);
      const first = appendDeltas(start, [patch(`p2 ${name}`, 'a', 'old')]);
      const patched = appendDeltas(first, [patch(`p3 ${name}`, 'a', 'new')]);
      const compaction = await compactionOf(
        patched,
        `p4 ${name}`,
        rewritten === undefined ? {} : { rewritten },
      );
      // The older one stays, in a merged form that the compaction has not read.
      const merged = stored(`p5 ${name}`, {
        kind: 'columns',
        absolute: true,
        rows: [{ id: 'a', seq: 2 * base, columns: new Map([['a', 'old']]) }],
      });
      const feature = patched.features[uri]!;
      const segments = feature.segments.map((ref) =>
        ref.key === `p2 ${name}` ? { ...merged, base_seq: 0 } : ref,
      );
      const meanwhile = { ...patched, features: { [uri]: { ...feature, segments } } };
      const next = applyCompaction(meanwhile, uri, compaction, 0);
      expect(keys(next)).toContain(`p5 ${name}`);
      expect(columnsOf(snapshotOf(next), 'a')).toEqual(new Map([['a', 'new']]));
    },
  );

  test('it starts again if an input is gone or others listed more of its rows as dead', async () => {
    const start = appendDeltas(appendSegments(emptyManifest(), [data('s1', 'a', 'c'), data('s2', 'b')]), [
      tombs('s3', 'a'),
    ]);
    const own = await compactionOf(start, 's4');
    const rewrote = applyCompaction(start, uri, await compactionOf(start, 's5', { rewritten: ['s2'] }), 0);
    expect(() => applyCompaction(rewrote, uri, own, 0)).toThrow(fails('compaction_stale', 's1'));
    const partly = await compactionOf(start, 's6', { rewritten: ['s2'] });
    expect(() => applyCompaction(rewrote, uri, partly, 0)).toThrow(fails('compaction_stale', 's1'));
    const all = applyCompaction(start, uri, await compactionOf(start, 's7'), 0);
    expect(() => applyCompaction(all, uri, own, 0)).toThrow(fails('compaction_stale', 's1'));
    expect(() => applyCompaction(start, 'mixpeek://no@1.0.0/f', own, 0)).toThrow(fails('compaction_stale'));
  });

  test('it is refused if it replaces what it did not read, or what it wrote is not compacted', async () => {
    const start = appendSegments(emptyManifest(), [data('q1', 'a'), data('q2', 'b')]);
    const own = await compactionOf(start, 'q3', { rewritten: ['q1'] });
    expect(() => applyCompaction(start, uri, { ...own, rewritten: ['q1', 'q9'] }, 0)).toThrow(
      fails('feature_mismatch', 'q9'),
    );
    const list = { key: 'q4', bytes: 20, rows: 1, crc32: 0 };
    for (const key of ['q1', 'q9']) {
      const both = { ...own, dead: new Map([[key, list]]) };
      expect(() => applyCompaction(start, uri, both, 0)).toThrow(fails('feature_mismatch', key));
    }
    const relative = stored('q5', { dims: 2, metric: 'cosine', rows: rowsOf('b') });
    expect(() => applyCompaction(start, uri, { ...own, added: [relative] }, 0)).toThrow(
      fails('feature_mismatch', 'q5'),
    );
  });
});

describe('dropping features', () => {
  const next = 'mixpeek://text_embed@2.0.0/embedding';

  test('retires what only they used, remembers the last version that held them, and leaves the others', () => {
    const start = appendDeltas(appendSegments(emptyManifest(), [data('f1', 'a'), documents('f2', 'a')]), [
      patch('f3', 'a', 'x'),
    ]);
    const dropped = dropFeatures(start, [uri], 5);
    expect(dropped.version).toBe(start.version);
    expect(Object.keys(dropped.features)).toEqual([documentsUri]);
    // The patch is the other feature's too.
    expect(dropped.retired).toEqual([{ key: 'f1', since_ms: 5 }]);
    expect(dropped.dropped).toEqual({ [uri]: 2 });
    const segment = stored('f4', {
      dims: 3,
      metric: 'dot',
      rows: [{ id: 'a', vector: [1, 2, 3], columns: new Map() }],
    });
    const after = appendSegments(dropped, [{ uri: next, dims: 3, metric: 'dot', segment }]);
    expect(after.version).toBe(3);
    expect(decodeManifest(encodeManifest(after), 'man/3.json')).toEqual(after);
    const again = dropFeatures(after, [next], 9);
    expect(again.dropped).toEqual({ [uri]: 2, [next]: 3 });
  });

  test('that are not there changes nothing', () => {
    const start = appendSegments(emptyManifest(), [data('g1', 'a')]);
    expect(dropFeatures(start, ['mixpeek://no@1.0.0/f', 'constructor'], 1)).toBe(start);
  });

  test('lets a feature of the same URI begin anew, whatever a compaction of the old one was about to do', async () => {
    const start = appendSegments(emptyManifest(), [data('h1', 'a'), data('h2', 'b')]);
    const compaction = await compactionOf(start, 'h3');
    const gone = dropFeatures(start, [uri], 1);
    expect(() => applyCompaction(gone, uri, compaction, 2)).toThrow(fails('compaction_stale'));
    const anew = appendSegments(gone, [data('h4', 'c')]);
    expect(() => applyCompaction(anew, uri, compaction, 2)).toThrow(fails('compaction_stale'));
    const empty = { ...compaction, from: { ...compaction.from, segments: [] }, rewritten: [], added: [] };
    expect(() => applyCompaction(gone, uri, empty, 2)).toThrow(fails('compaction_stale'));
    expect(keys(anew)).toEqual(['h4']);
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
    [
      'a dropped feature without a version',
      '{"version": 1, "features": {}, "retired": [], "dropped": {"u": null}}',
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
