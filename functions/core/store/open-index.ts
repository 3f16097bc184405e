// Reads the index of a collection: head, manifest, segments; each stored object is read once and kept while there is room.
import type { NsCtx } from '../context.ts';
import { AppError } from '../errors.ts';
import type { Bits } from '../vectors/bits.ts';
import { openDeadRows } from '../vectors/dead-rows.ts';
import { VectorError } from '../vectors/errors.ts';
import {
  decodeManifest,
  documentsUri,
  emptyManifest,
  type FeatureManifest,
  type Manifest,
  readableVersions,
  type SegmentRef,
  type StoredSegment,
} from '../vectors/manifest.ts';
import { openStoredSegment, type Segment } from '../vectors/open-segment.ts';
import { isVectorSection } from '../vectors/segment-format.ts';
import { openSnapshot, type Snapshot } from '../vectors/snapshot.ts';
import type { Blobs } from './blobs.ts';
import { BlobConflict, BlobMissing, BlobTooShort } from './blobs.ts';
import { type IndexHead, readHead } from './index-head.ts';
import { LruCache } from './lru-cache.ts';

/** One version of the index of one collection; every answer from it is of that version. */
export interface IndexView {
  readonly head: IndexHead;
  readonly manifest: Manifest;
  /**
   * The rows of a feature, or of `documentsUri`: every document with its columns. Undefined if the collection holds
   * no such feature.
   *
   * @throws AppError index_unavailable (a segment cannot be read), index_corrupt
   */
  snapshot(featureUri: string): Promise<Snapshot | undefined>;
}

interface Caches {
  readonly manifests: LruCache<Manifest>;
  readonly segments: LruCache<Segment>;
  readonly snapshots: LruCache<Snapshot>;
  readonly deadRows: LruCache<Bits>;
}

/** A quarter of the function's memory; vectors have half of it (`vectorMemory`), the program the rest. */
function cacheBytesMax(): number {
  const functionMegabytes = Number(process.env.AWS_LAMBDA_FUNCTION_MEMORY_SIZE ?? 1024);
  return functionMegabytes * 2 ** 20 * 0.25;
}

/** Stored objects never change under their key, so what was read once stays right; kept per bucket. */
const caches = new WeakMap<Blobs, Caches>();

function cachesOf(blobs: Blobs): Caches {
  let found = caches.get(blobs);
  if (!found) {
    const bytes = cacheBytesMax();
    found = {
      manifests: new LruCache(bytes * 0.05),
      segments: new LruCache(bytes * 0.64),
      snapshots: new LruCache(bytes * 0.3),
      deadRows: new LruCache(bytes * 0.01),
    };
    caches.set(blobs, found);
  }
  return found;
}

/** Segments that one snapshot reads at the same time. */
const parallelReads = 8;

export async function loadManifest(ctx: NsCtx, key: string | null): Promise<Manifest> {
  if (key === null) return emptyManifest();
  return cachesOf(ctx.ports.index).manifests.get(key, async () => {
    const bytes = await ctx.ports.index.get(key);
    return { value: decodeManifest(bytes, key), bytes: bytes.byteLength * 3 };
  });
}

/** What an open segment holds beside its vectors: parsed columns, and ids as texts once they were asked for. */
const openBytesPerRow = 80;

export async function loadSegment(ctx: NsCtx, ref: StoredSegment): Promise<Segment> {
  const { index } = ctx.ports;
  return cachesOf(index).segments.get(ref.key, async () => {
    const source = { readInto: (at: number, target: Uint8Array) => index.readInto(ref.key, at, target) };
    const value = await openStoredSegment(source, ref.key, ref);
    const vectors = ref.sections.reduce((sum, { name, len }) => (isVectorSection(name) ? sum + len : sum), 0);
    return { value, bytes: ref.bytes - vectors + ref.rows * openBytesPerRow };
  });
}

/** The dead-row list beside a segment, undefined if it has none. */
export async function loadDeadRows(ctx: NsCtx, { dead, rows }: SegmentRef): Promise<Bits | undefined> {
  if (dead === undefined) return undefined;
  const { index } = ctx.ports;
  return cachesOf(index).deadRows.get(dead.key, async () => {
    const bytes = await index.get(dead.key);
    return { value: openDeadRows(bytes, dead, rows), bytes: bytes.byteLength };
  });
}

/** The rows of a feature with everything that its manifest names read. */
export async function openFeature(ctx: NsCtx, feature: FeatureManifest): Promise<Snapshot> {
  const segments = new Map<string, Segment>();
  const dead = new Map<string, Bits>();
  for (let i = 0; i < feature.segments.length; i += parallelReads) {
    const refs = feature.segments.slice(i, i + parallelReads);
    const opened = await Promise.all(
      refs.map((ref) => Promise.all([loadSegment(ctx, ref), loadDeadRows(ctx, ref)])),
    );
    for (const [j, [segment, list]] of opened.entries()) {
      const ref = refs[j]!;
      segments.set(ref.key, segment);
      if (ref.dead && list) dead.set(ref.dead.key, list);
    }
  }
  return openSnapshot(feature, segments, dead);
}

async function loadSnapshot(
  ctx: NsCtx,
  manifestKey: string,
  manifest: Manifest,
  uri: string,
): Promise<Snapshot | undefined> {
  if (!Object.hasOwn(manifest.features, uri)) return undefined;
  const feature = manifest.features[uri]!;
  return cachesOf(ctx.ports.index).snapshots.get(`${manifestKey} ${uri}`, async () => {
    const snapshot = await openFeature(ctx, feature);
    const rows = snapshot.parts.reduce((sum, part) => sum + part.segment.rows, 0);
    // Hash table, live bits and id texts that searches leave behind; the vectors belong to the segments.
    return { value: snapshot, bytes: 4_096 + rows * 120 };
  });
}

/** What a failed read of a stored object means to a caller. */
export function readFault(error: unknown): unknown {
  if (error instanceof BlobMissing)
    return new AppError('index_unavailable', { cause: error, internal: error.message });
  if (error instanceof BlobTooShort)
    return new AppError('index_corrupt', { cause: error, internal: error.message });
  // The parts of one read were not of one object: somebody is writing where nobody may, or a cache is stale.
  if (error instanceof BlobConflict)
    return new AppError('index_unavailable', { cause: error, internal: error.message });
  if (error instanceof VectorError) {
    const unavailable = error.code === 'segment_missing' || error.code === 'segment_too_large';
    return new AppError(unavailable ? 'index_unavailable' : 'index_corrupt', {
      cause: error,
      internal: error.message,
    });
  }
  return error;
}

/**
 * Reads from an open snapshot: vectors and columns are fetched when they are first used, so damage can show late.
 *
 * @throws AppError index_unavailable, index_corrupt
 */
export async function reading<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw readFault(error);
  }
}

/**
 * One version of a collection's index: the current one, or an older one that is named.
 *
 * Versions can be read for 47 hours after the next one took their place, the last 200 at most. What is read so is the
 * index: ids, vectors and columns. Rows of documents have no versions.
 *
 * @throws AppError index_version_gone, index_unavailable, index_corrupt
 */
export async function openIndex(
  ctx: NsCtx,
  collectionId: string,
  options: { readonly version?: number | undefined } = {},
): Promise<IndexView> {
  for (let again = false; ; again = true) {
    const current = await readHead(ctx, collectionId);
    try {
      const newest = await loadManifest(ctx, current.manifest_key);
      const { version = current.version } = options;
      const key =
        version === current.version ? current.manifest_key : keyOfVersion(ctx, current, newest, version);
      const manifest = key === current.manifest_key ? newest : await loadManifest(ctx, key);
      return {
        // A copy of the vectors may be newer than an old version, and then lacks rows of it.
        head: {
          ...current,
          version,
          manifest_key: key,
          ...(key === current.manifest_key ? {} : { copies: {} }),
        },
        manifest,
        snapshot: (uri) => reading(() => loadSnapshot(ctx, key ?? '', manifest, uri)),
      };
    } catch (error) {
      // The manifest can have been collected between the two reads; then the head names a newer one.
      if (!(error instanceof BlobMissing) || again) throw readFault(error);
    }
  }
}

/** @throws AppError index_version_gone, which says what can be read */
function keyOfVersion(ctx: NsCtx, head: IndexHead, manifest: Manifest, version: number): string {
  const readable = readableVersions(manifest, ctx.ports.clock.now());
  const found = readable.find((past) => past.version === version);
  if (found) return found.key;
  const oldest = readable[0]?.version ?? head.version;
  const kept =
    oldest === head.version
      ? `only its current version, ${head.version}, can be read`
      : `versions ${oldest} to ${head.version} can be read`;
  throw new AppError('index_version_gone', {
    detail: `The index of ${head.collection_id} has no version ${version} any more or not yet: ${kept}. Leave the version out to read the current one.`,
  });
}

/**
 * A feature's rows as of now. When several answers must fit together, use one `openIndex` for all.
 *
 * @returns `snapshot` undefined if the collection holds no such feature
 * @throws AppError index_unavailable, index_corrupt
 */
export async function snapshot(
  ctx: NsCtx,
  collectionId: string,
  featureUri: string,
): Promise<{ readonly snapshot: Snapshot | undefined; readonly version: number }> {
  for (let again = false; ; again = true) {
    const view = await openIndex(ctx, collectionId);
    try {
      return { snapshot: await view.snapshot(featureUri), version: view.head.version };
    } catch (error) {
      // A segment that is gone was compacted away while we read: the newer version has its rows. Once.
      const gone = error instanceof AppError && error.cause instanceof BlobMissing;
      if (!gone || again || (await readHead(ctx, collectionId)).version === view.head.version) throw error;
    }
  }
}

/** Every live document of a collection with its columns; undefined if nothing was ever committed. */
export async function documentsSnapshot(ctx: NsCtx, collectionId: string): Promise<Snapshot | undefined> {
  return (await snapshot(ctx, collectionId, documentsUri)).snapshot;
}
