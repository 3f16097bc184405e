// Reads the index of a collection: head, manifest, segments; each stored object is read once and kept while there is room.
import type { NsCtx } from '../context.ts';
import { AppError } from '../errors.ts';
import { VectorError } from '../vectors/errors.ts';
import {
  decodeManifest,
  documentsUri,
  emptyManifest,
  type Manifest,
  type StoredSegment,
} from '../vectors/manifest.ts';
import { openSegment, type Segment } from '../vectors/open-segment.ts';
import { openSnapshot, type Snapshot } from '../vectors/snapshot.ts';
import type { Blobs } from './blobs.ts';
import { BlobMissing } from './blobs.ts';
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
}

/** Half of the function's memory, and never more than one function can scan at once (decisions, section 2). */
function cacheBytesMax(): number {
  const functionMegabytes = Number(process.env.AWS_LAMBDA_FUNCTION_MEMORY_SIZE ?? 1024);
  return Math.min(1.2e9, functionMegabytes * 2 ** 20 * 0.5);
}

/** Stored objects never change under their key, so what was read once stays right; kept per bucket. */
const caches = new WeakMap<Blobs, Caches>();

function cachesOf(blobs: Blobs): Caches {
  let found = caches.get(blobs);
  if (!found) {
    const bytes = cacheBytesMax();
    found = {
      manifests: new LruCache(bytes * 0.05),
      segments: new LruCache(bytes * 0.8),
      snapshots: new LruCache(bytes * 0.15),
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

export async function loadSegment(ctx: NsCtx, ref: StoredSegment): Promise<Segment> {
  return cachesOf(ctx.ports.index).segments.get(ref.key, async () => {
    const bytes = await ctx.ports.index.get(ref.key);
    return { value: openSegment(bytes, ref.key, ref), bytes: bytes.byteLength };
  });
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
    const segments = new Map<string, Segment>();
    for (let i = 0; i < feature.segments.length; i += parallelReads) {
      const refs = feature.segments.slice(i, i + parallelReads);
      const opened = await Promise.all(refs.map((ref) => loadSegment(ctx, ref)));
      for (const [j, segment] of opened.entries()) segments.set(refs[j]!.key, segment);
    }
    const snapshot = openSnapshot(feature, segments);
    const rows = snapshot.parts.reduce((sum, part) => sum + part.segment.rows, 0);
    // Hash table, live bits and id texts that searches leave behind; the vectors belong to the segments.
    return { value: snapshot, bytes: 4_096 + rows * 120 };
  });
}

/** What a failed read of a stored object means to a caller. */
export function readFault(error: unknown): unknown {
  if (error instanceof BlobMissing)
    return new AppError('index_unavailable', { cause: error, internal: error.message });
  if (error instanceof VectorError) {
    return new AppError(error.code === 'segment_missing' ? 'index_unavailable' : 'index_corrupt', {
      cause: error,
      internal: error.message,
    });
  }
  return error;
}

/** The current version of a collection's index. @throws AppError index_unavailable, index_corrupt */
export async function openIndex(ctx: NsCtx, collectionId: string): Promise<IndexView> {
  for (let again = false; ; again = true) {
    const head = await readHead(ctx, collectionId);
    try {
      const manifest = await loadManifest(ctx, head.manifest_key);
      return {
        head,
        manifest,
        snapshot: async (uri) => {
          try {
            return await loadSnapshot(ctx, head.manifest_key ?? '', manifest, uri);
          } catch (error) {
            throw readFault(error);
          }
        },
      };
    } catch (error) {
      // The manifest can have been collected between the two reads; then the head names a newer one.
      if (!(error instanceof BlobMissing) || again) throw readFault(error);
    }
  }
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
