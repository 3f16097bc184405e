// A part of a feature, ready to be searched: some of its data segments, with everything newer that concerns them.
import type { NsCtx } from '../context.ts';
import { AppError } from '../errors.ts';
import { type Bits, notInto, setBit } from '../vectors/bits.ts';
import type { FeatureManifest, SegmentRef } from '../vectors/manifest.ts';
import { openStoredIds, type Segment } from '../vectors/open-segment.ts';
import { openSnapshot, type Snapshot } from '../vectors/snapshot.ts';
import type { Blobs } from './blobs.ts';
import { indexPrefix } from './index-keys.ts';
import { LruCache } from './lru-cache.ts';
import { loadDeadRows, loadManifest, loadSegment, readFault } from './open-index.ts';

/** Rows of our segments that one other segment replaces or deletes, by our segment's key. Never changes: both are immutable. */
type Replaced = ReadonlyMap<string, readonly number[]>;

interface Caches {
  readonly replaced: LruCache<Replaced>;
  readonly shards: LruCache<Snapshot>;
}

const caches = new WeakMap<Blobs, Caches>();
const replacedBytesMax = 32 * 2 ** 20;
const shardBytesMax = 256 * 2 ** 20;

function cachesOf(blobs: Blobs): Caches {
  const found = caches.get(blobs) ?? {
    replaced: new LruCache(replacedBytesMax),
    shards: new LruCache(shardBytesMax),
  };
  caches.set(blobs, found);
  return found;
}

/**
 * Opens some data segments of a feature in one version. A row that a newer one in another segment has replaced does
 * not live here either; of those segments the ids alone are read, one after the other, and what they replace is kept.
 *
 * @param keys of data segments of the feature
 * @throws AppError index_unavailable (also for a key that this version does not have), index_corrupt
 */
export async function openShard(
  ctx: NsCtx,
  collectionId: string,
  manifestKey: string,
  uri: string,
  keys: readonly string[],
): Promise<Snapshot> {
  // The request comes from our own code; this keeps a mistake there from reading another tenant's index.
  const prefix = indexPrefix(ctx, collectionId);
  if (![manifestKey, ...keys].every((key) => key.startsWith(prefix))) {
    throw new AppError('index_unavailable', { internal: `a key outside ${prefix} was asked for` });
  }
  try {
    const manifest = await loadManifest(ctx, manifestKey);
    const feature = Object.hasOwn(manifest.features, uri) ? manifest.features[uri]! : undefined;
    if (feature === undefined)
      throw new AppError('index_unavailable', { internal: `${manifestKey} has no ${uri}` });
    // What is asked for and not scanned would be missing from an answer that calls itself exact.
    const known = new Set(feature.segments.flatMap(({ key, kind }) => (kind === 'data' ? [key] : [])));
    const unknown = keys.find((key) => !known.has(key));
    if (unknown !== undefined) {
      throw new AppError('index_unavailable', { internal: `${manifestKey} has no data segment ${unknown}` });
    }
    const name = `${manifestKey} ${uri} ${keys.join(' ')}`;
    return await cachesOf(ctx.ports.index).shards.get(name, async () => {
      const value = await open(ctx, feature, new Set(keys));
      const rows = value.parts.reduce((sum, { segment }) => sum + segment.rows, 0);
      return { value, bytes: 4_096 + rows * 40 };
    });
  } catch (error) {
    throw readFault(error);
  }
}

async function open(ctx: NsCtx, feature: FeatureManifest, wanted: ReadonlySet<string>): Promise<Snapshot> {
  const own = feature.segments.filter(({ key }) => wanted.has(key));
  const deltas = feature.segments.filter(({ kind }) => kind !== 'data');
  const segments = new Map<string, Segment>();
  const dead = new Map<string, Bits>();
  for (const ref of [...own, ...deltas]) {
    const [segment, list] = await Promise.all([loadSegment(ctx, ref), loadDeadRows(ctx, ref)]);
    segments.set(ref.key, segment);
    if (ref.dead && list) dead.set(ref.dead.key, list);
  }
  const alone = openSnapshot({ ...feature, segments: own }, segments, dead);
  // What does not live among ours must not come back when what replaced it is dead too.
  const replaced = new Map(
    alone.parts.map(({ segment, live }) => [segment.objectName, notInto(live.slice(), segment.rows)]),
  );
  for (const other of othersOf(feature, own)) {
    for (const [key, rows] of await replacedBy(ctx, other, alone, own)) {
      const bits = replaced.get(key)!;
      for (const row of rows) setBit(bits, row);
    }
  }
  // What others replace is one more list of dead rows beside the segment.
  const listed = own.map((ref): SegmentRef => {
    const key = `replaced ${ref.key}`;
    dead.set(key, replaced.get(ref.key)!);
    return { ...ref, dead: { key, bytes: 0, rows: 1, crc32: 0 } };
  });
  return openSnapshot({ ...feature, segments: [...listed, ...deltas] }, segments, dead);
}

/**
 * Data segments that can replace rows of ours: those with newer rows than our oldest. What a compaction read is
 * settled among itself: rows that one of those segments replaces in another are in its list of dead rows.
 */
function othersOf(feature: FeatureManifest, own: readonly SegmentRef[]): SegmentRef[] {
  const keys = new Set(own.map(({ key }) => key));
  const settled = feature.settled_seq ?? -1;
  const newest = (ref: SegmentRef) => ref.base_seq + ref.seq_max;
  const oldest = own.reduce((min, ref) => Math.min(min, ref.base_seq), Number.POSITIVE_INFINITY);
  return feature.segments.filter(
    (ref) => ref.kind === 'data' && !keys.has(ref.key) && newest(ref) > settled && newest(ref) >= oldest,
  );
}

async function replacedBy(
  ctx: NsCtx,
  other: SegmentRef,
  alone: Snapshot,
  own: readonly SegmentRef[],
): Promise<Replaced> {
  const { index } = ctx.ports;
  const name = `${other.key} ${own.map(({ key }) => key).join(' ')}`;
  return cachesOf(index).replaced.get(name, async () => {
    const source = { readInto: (at: number, target: Uint8Array) => index.readInto(other.key, at, target) };
    const segment = await openStoredIds(source, other.key, other);
    const value = new Map<string, number[]>();
    let rows = 0;
    const end = (id: string, seq: number) => {
      const row = alone.rowOf(id);
      if (row === undefined) return;
      const part = alone.partOf(row);
      const local = row - part.firstRow;
      if (other.base_seq + seq <= part.baseSeq + part.segment.seq(local)) return;
      const key = part.segment.objectName;
      const list = value.get(key) ?? [];
      value.set(key, list);
      list.push(local);
      rows += 1;
    };
    for (let i = 0; i < segment.rows; i += 1) end(segment.id(i), segment.seq(i));
    // A batch deletes what it does not make any more in the segment of what it makes.
    for (const { id, seq } of segment.tombs) end(id, seq);
    return { value, bytes: 200 + name.length * 2 + rows * 8 };
  });
}
