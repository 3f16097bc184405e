// The index of a collection: immutable segments and manifests in the index bucket, one head item that names the
// current manifest, and the commit that moves the head (vector store design, section 8).
import { setTimeout as pause } from 'node:timers/promises';
import { isoTime } from '../clock.ts';
import type { NsCtx } from '../context.ts';
import { crash } from '../crash.ts';
import { AppError } from '../errors.ts';
import { randomCharacters } from '../ids.ts';
import type { ColumnPatch } from '../vectors/columns.ts';
import { encodeSegment, type SegmentInput } from '../vectors/encode-segment.ts';
import { VectorError } from '../vectors/errors.ts';
import {
  type Addition,
  appendSegments,
  collectableKeys,
  decodeManifest,
  documentsUri,
  emptyManifest,
  encodeManifest,
  forgetRetired,
  keysOf,
  type Manifest,
  type StoredSegment,
} from '../vectors/manifest.ts';
import { openSegment, type Segment } from '../vectors/open-segment.ts';
import { openSnapshot, type Snapshot } from '../vectors/snapshot.ts';
import type { Blobs } from './blobs.ts';
import { BlobMissing } from './blobs.ts';
import { foldDeltas } from './fold-deltas.ts';
import { LruCache } from './lru-cache.ts';
import type { Attribute, Condition, Item, Write } from './table.ts';
import { ConditionFailed } from './table.ts';

export { documentsUri } from '../vectors/manifest.ts';

/** A batch that has a sequence number and is neither committed nor aborted. */
export interface OpenSequence {
  readonly seq: number;
  readonly batch_id: string;
  readonly attempt: number;
}

/** The head item of a collection: what of it can be seen. */
export interface IndexHead {
  readonly collection_id: string;
  /** Compare-and-set counter of the item; 0: there is no item yet. */
  readonly revision: number;
  /** Version of the manifest; 0: nothing was ever committed. */
  readonly version: number;
  readonly manifest_key: string | null;
  /** Document slots of this batch sequence and below are visible, but for the aborted ones. */
  readonly committed_seq: number;
  /** Sequences that ended without a commit, until `sweep` has removed their slots. */
  readonly aborted: readonly { readonly seq: number; readonly at_ms: number }[];
  readonly open: OpenSequence | null;
  /** The sequence that the next batch takes; starts at 1. */
  readonly next_seq: number;
  /** Documents that can be seen, as commits and deletions counted them. */
  readonly document_count: number;
}

/** Whether a slot of this sequence can be seen. */
export function isCommitted(head: IndexHead, seq: number): boolean {
  return seq <= head.committed_seq && !head.aborted.some((entry) => entry.seq === seq);
}

function toHead(collectionId: string, item: Item | undefined): IndexHead {
  return {
    collection_id: collectionId,
    revision: Number(item?.revision ?? 0),
    version: Number(item?.version ?? 0),
    manifest_key: (item?.manifest_key as string | undefined) ?? null,
    committed_seq: Number(item?.committed_seq ?? 0),
    aborted: (item?.aborted as IndexHead['aborted'] | undefined) ?? [],
    open: (item?.open as unknown as OpenSequence | undefined) ?? null,
    next_seq: Number(item?.next_seq ?? 1),
    document_count: Number(item?.document_count ?? 0),
  };
}

/** One consistent read. A collection without a head has version 0 and no documents. */
export async function readHead(ctx: NsCtx, collectionId: string): Promise<IndexHead> {
  return toHead(collectionId, await ctx.ports.table.get(ctx.ns.head(collectionId)));
}

/** As `readHead`, for several collections, in their order. */
export async function readHeads(ctx: NsCtx, collectionIds: readonly string[]): Promise<IndexHead[]> {
  const items = await ctx.ports.table.getMany(collectionIds.map((id) => ctx.ns.head(id)));
  return items.map((item, i) => toHead(collectionIds[i]!, item));
}

/**
 * The write that changes a head from the state that was read. `undefined` members stay.
 *
 * Fails its condition when anything about the head changed since.
 */
export function headWrite(
  ctx: NsCtx,
  head: IndexHead,
  changes: Partial<Omit<IndexHead, 'collection_id' | 'revision'>>,
): Write {
  const unchanged: Condition =
    head.revision === 0
      ? { attribute: 'revision', missing: true }
      : { attribute: 'revision', eq: head.revision };
  const { open, ...rest } = changes;
  return {
    update: ctx.ns.head(head.collection_id),
    set: {
      ...(rest as Record<string, Attribute>),
      ...(open ? { open: { ...open } } : {}),
      revision: head.revision + 1,
    },
    ...(open === null && head.open ? { remove: ['open'] } : {}),
    if: [unchanged],
  };
}

/**
 * The write that gives a batch its sequence. One that is still open belongs to a batch that died: it is aborted, so
 * that it can neither commit later nor become visible under a later watermark.
 *
 * @returns the write, and the sequence; the sequence that this attempt has already if it asks again (then no write).
 */
export function openSequence(
  ctx: NsCtx,
  head: IndexHead,
  batch: { readonly batch_id: string; readonly attempt: number },
): { readonly seq: number; readonly write?: Write } {
  if (head.open && head.open.batch_id === batch.batch_id && head.open.attempt === batch.attempt) {
    return { seq: head.open.seq };
  }
  const seq = head.next_seq;
  const aborted = head.open
    ? [...head.aborted, { seq: head.open.seq, at_ms: ctx.ports.clock.now() }]
    : head.aborted;
  return { seq, write: headWrite(ctx, head, { next_seq: seq + 1, open: { seq, ...batch }, aborted }) };
}

/** The write that ends a sequence without a commit; undefined if it is not open (any more). */
export function abortSequence(
  ctx: NsCtx,
  head: IndexHead,
  batch: { readonly batch_id: string; readonly attempt: number },
): Write | undefined {
  if (head.open?.batch_id !== batch.batch_id || head.open.attempt !== batch.attempt) return undefined;
  const entry = { seq: head.open.seq, at_ms: ctx.ports.clock.now() };
  return headWrite(ctx, head, { open: null, aborted: [...head.aborted, entry] });
}

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

async function loadManifest(ctx: NsCtx, key: string | null): Promise<Manifest> {
  if (key === null) return emptyManifest();
  return cachesOf(ctx.ports.index).manifests.get(key, async () => {
    const bytes = await ctx.ports.index.get(key);
    return { value: decodeManifest(bytes, key), bytes: bytes.byteLength * 3 };
  });
}

async function loadSegment(ctx: NsCtx, ref: StoredSegment): Promise<Segment> {
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
function readFault(error: unknown): unknown {
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

const keyPrefix = (ctx: NsCtx, collectionId: string) => `${ctx.ns.namespaceId}/${collectionId}/`;

/** Everything that the index of a collection ever stored begins with this. */
export const indexPrefix = keyPrefix;

/** A key that nobody has used: time, so that listings sort, and randomness. */
function freshName(ctx: NsCtx): string {
  return ctx.ports.clock.now().toString(36).padStart(9, '0') + randomCharacters(15, ctx.ports.random);
}

/** A fresh key for a segment of a collection. */
export function segmentKey(ctx: NsCtx, collectionId: string): string {
  return `${keyPrefix(ctx, collectionId)}seg/${freshName(ctx)}.vseg`;
}

/**
 * Encodes a segment and stores it under a fresh key. Nobody sees it until a commit names it; what is never named is
 * swept.
 *
 * @throws VectorError vector_invalid, row_invalid, commit_too_large
 */
export async function putSegment(
  ctx: NsCtx,
  collectionId: string,
  input: SegmentInput,
): Promise<StoredSegment> {
  const { bytes, description } = encodeSegment(input);
  const key = segmentKey(ctx, collectionId);
  await ctx.ports.index.put(key, bytes, { contentType: 'application/octet-stream', ifAbsent: true });
  return { ...description, key };
}

/** What a commit does to the index of one collection. */
export interface IndexChange {
  readonly collection_id: string;
  /** Segments that are stored already. */
  readonly additions: readonly Addition[];
  /** Documents that come (positive) or go (negative) with this commit. */
  readonly document_delta: number;
  /** The batch whose sequence becomes visible; the commit is refused if it is not the open one any more. */
  readonly sequence?: { readonly batch_id: string; readonly attempt: number };
}

export interface CommitOptions {
  /** Names this commit for ever: a repetition finds it applied and changes nothing. At most 200 characters. */
  readonly token: string;
  /** Further writes of the same transaction. When one of their conditions fails, nothing is written. */
  readonly writes?: readonly Write[];
  /**
   * The watermark that the caller read: its writes replace what was visible then. When a batch has committed since,
   * nothing is written.
   */
  readonly committedSeq?: number;
  /** Prefix of the crash points that the commit passes. @default 'index.commit' */
  readonly crashPoint?: string;
}

/** Lost races before a commit gives up (reliability, section 3). */
const commitTries = 20;
const tokenKeepMs = 24 * 3600 * 1000;

/** The sequence of the batch was taken over or aborted: it may not commit any more. */
export class SequenceLost extends Error {
  constructor(collectionId: string, batchId: string) {
    super(`the sequence of ${batchId} in ${collectionId} is not open any more`);
    this.name = 'SequenceLost';
  }
}

/**
 * Moves the heads of one or more collections, all or none, together with `options.writes`.
 *
 * Puts the next manifests under fresh keys, then writes one transaction: every head if nobody moved it, a token row
 * for each collection if it is absent, a check that each collection exists, and the caller's writes. Who loses a race
 * reads again, puts its segments on top of the newer manifest (nothing is uploaded twice) and repeats. When an answer
 * was lost, the token tells that the commit is done.
 *
 * @returns `repeated`: the token was there already, so nothing was written now
 * @throws ConditionFailed when a condition of the caller's writes failed: indices are those of `options.writes`; with
 *   no index when the watermark has moved
 * @throws SequenceLost
 * @throws AppError collection_not_found (deleted meanwhile), index_contended, index_unavailable, index_corrupt
 * @throws VectorError feature_mismatch, commit_too_large
 */
export async function commitIndex(
  ctx: NsCtx,
  changes: readonly IndexChange[],
  options: CommitOptions,
): Promise<{ readonly repeated: boolean; readonly versions: readonly number[] }> {
  const { table, index, clock } = ctx.ports;
  const { token, writes: callers = [], crashPoint = 'index.commit' } = options;
  const ids = changes.map((change) => change.collection_id);
  for (let attempt = 0; attempt < commitTries; attempt++) {
    if (attempt > 0) await pause(Math.min(200, 4 * 2 ** Math.min(attempt, 6)) * jitter(ctx));
    const nowMs = clock.now();
    const [tokenRow, ...headRows] = await table.getMany([
      ctx.ns.commitToken(ids[0]!, token),
      ...ids.map((id) => ctx.ns.head(id)),
    ]);
    if (tokenRow && Number(tokenRow.expires_at) >= Math.floor(nowMs / 1000)) {
      const done = tokenRow.versions as Record<string, number>;
      return { repeated: true, versions: ids.map((id) => Number(done[id])) };
    }
    const heads = headRows.map((row, i) => toHead(ids[i]!, row));
    const moved = heads.some((head) => (options.committedSeq ?? head.committed_seq) !== head.committed_seq);
    if (moved) throw new ConditionFailed([]);
    const ours: Write[] = [];
    const versions: number[] = [];
    for (const [i, { sequence }] of changes.entries()) {
      const { open } = heads[i]!;
      if (sequence && (open?.batch_id !== sequence.batch_id || open.attempt !== sequence.attempt)) {
        throw new SequenceLost(ids[i]!, sequence.batch_id);
      }
    }
    const manifests = await Promise.all(heads.map((head) => loadManifest(ctx, head.manifest_key))).catch(
      (error: unknown) => {
        throw readFault(error);
      },
    );
    const puts: Promise<unknown>[] = [];
    for (const [i, change] of changes.entries()) {
      const head = heads[i]!;
      const isSmall =
        change.additions.length > 0 && change.additions.every((addition) => 'every' in addition);
      const before = isSmall ? await fold(ctx, change.collection_id, manifests[i]!) : manifests[i]!;
      const next = appendSegments(forgetOld(before, nowMs), change.additions);
      const manifestKey = `${keyPrefix(ctx, change.collection_id)}man/${String(next.version).padStart(10, '0')}-${freshName(ctx)}.json`;
      puts.push(
        index.put(manifestKey, encodeManifest(next), { contentType: 'application/json', ifAbsent: true }),
      );
      versions.push(next.version);
      ours.push(
        headWrite(ctx, head, {
          version: next.version,
          manifest_key: manifestKey,
          document_count: Math.max(0, head.document_count + change.document_delta),
          ...(change.sequence ? { committed_seq: head.open!.seq, open: null } : {}),
        }),
      );
    }
    await Promise.all(puts);
    crash(`${crashPoint}.after_manifest`);
    const byCollection = Object.fromEntries(ids.map((id, i) => [id, versions[i]!]));
    for (const id of ids) {
      ours.push(
        {
          put: {
            ...ctx.ns.commitToken(id, token),
            versions: byCollection,
            at: isoTime(nowMs),
            expires_at: Math.floor((nowMs + tokenKeepMs) / 1000),
          },
          if: [{ anyOf: [{ absent: true }, { attribute: 'expires_at', lt: Math.floor(nowMs / 1000) }] }],
        },
        { check: ctx.ns.resource('COLLECTION', id), if: [{ present: true }] },
      );
    }
    try {
      await table.write([...callers, ...ours]);
      crash(`${crashPoint}.after_head`);
      return { repeated: false, versions };
    } catch (error) {
      if (!(error instanceof ConditionFailed)) throw error;
      const at = (place: number) => error.of(callers.length + place);
      // The token is there: the write was ours and its answer was lost. The next look returns what it did.
      if (ids.some((_, i) => at(ids.length + 2 * i))) continue;
      for (const [i, id] of ids.entries()) {
        if (at(ids.length + 2 * i + 1)) {
          throw new AppError('collection_not_found', {
            detail: `The collection ${id} was deleted meanwhile.`,
          });
        }
      }
      const callersFailed = error.failures.filter((failure) => failure.index < callers.length);
      if (callersFailed.length > 0) throw new ConditionFailed(callersFailed);
      // Only heads are left: somebody was faster.
    }
  }
  throw new AppError('index_contended', {
    detail: `The index of ${ids.join(', ')} is being written by too many at once; ${commitTries} tries did not get through.`,
    retryAfterSeconds: 2,
  });
}

/** What no version names any more is deleted after this: no reader can still hold it (decisions, section 1). */
const garbageMs = 48 * 3600 * 1000;

/** A manifest that does not list what was retired long ago: the collector deletes what nothing names. */
function forgetOld(manifest: Manifest, nowMs: number): Manifest {
  const old = collectableKeys(manifest, nowMs, garbageMs);
  return old.length === 0 ? manifest : { ...forgetRetired(manifest, old), version: manifest.version };
}

/** Merges small segments when there are many. */
async function fold(ctx: NsCtx, collectionId: string, manifest: Manifest): Promise<Manifest> {
  const { index, clock } = ctx.ports;
  return foldDeltas(manifest, {
    nowMs: clock.now(),
    load: (ref) => loadSegment(ctx, ref),
    put: async ({ bytes, description }) => {
      const key = segmentKey(ctx, collectionId);
      await index.put(key, bytes, { contentType: 'application/octet-stream', ifAbsent: true });
      return { ...description, key };
    },
  }).catch((error: unknown) => {
    throw readFault(error);
  });
}

/**
 * Deletes segments and manifests that were stored more than 48 hours ago and that nothing names: replaced, or left
 * behind by writers that died. Lists first and reads the head after, so what is committed meanwhile is named.
 *
 * @returns how many objects were deleted
 * @throws AppError index_unavailable, index_corrupt, storage_*
 */
export async function collectGarbage(ctx: NsCtx, collectionId: string): Promise<number> {
  const { index, clock } = ctx.ports;
  const before = clock.now() - garbageMs;
  const old: string[] = [];
  let after: string | undefined;
  do {
    const page = await index.list(keyPrefix(ctx, collectionId), after);
    for (const blob of page.blobs) if (blob.modifiedMs < before) old.push(blob.key);
    after = page.next;
  } while (after !== undefined);
  if (old.length === 0) return 0;
  const { head, manifest } = await openIndex(ctx, collectionId);
  const named = keysOf(forgetOld(manifest, clock.now()));
  if (head.manifest_key !== null) named.add(head.manifest_key);
  const gone = old.filter((key) => !named.has(key));
  for (let i = 0; i < gone.length; i += 16)
    await Promise.all(gone.slice(i, i + 16).map((key) => index.delete(key)));
  return gone.length;
}

/** Between a half and one and a half. */
function jitter(ctx: NsCtx): number {
  return 0.5 + ctx.ports.random.bytes(1)[0]! / 255;
}

/** A change of some columns of a document; names as `flattenColumns` makes them. */
export interface RowPatch {
  readonly id: string;
  readonly columns: ColumnPatch;
}

/**
 * Changes columns of documents without touching their vectors: when this has answered, a filtered search sees the new
 * values. Rows that the index does not hold are ignored by it.
 *
 * @throws as `commitIndex`
 */
export async function patchColumns(
  ctx: NsCtx,
  collectionId: string,
  rows: readonly RowPatch[],
  options: CommitOptions,
): Promise<void> {
  const changed = rows.filter((row) => row.columns.size > 0);
  const additions: Addition[] =
    changed.length === 0
      ? []
      : [
          {
            every: true,
            segment: await putSegment(ctx, collectionId, {
              kind: 'columns',
              dims: 0,
              metric: null,
              rows: changed,
            }),
          },
        ];
  await commitIndex(ctx, [{ collection_id: collectionId, additions, document_delta: 0 }], options);
}

/**
 * Deletes documents from every feature: when this has answered, no search finds them.
 *
 * @param documentDelta how many of them could be seen, negative
 * @throws as `commitIndex`
 */
export async function deleteRows(
  ctx: NsCtx,
  collectionId: string,
  ids: readonly string[],
  documentDelta: number,
  options: CommitOptions,
): Promise<void> {
  const tombs = ids.map((id) => ({ id }));
  const segment = await putSegment(ctx, collectionId, {
    kind: 'delta',
    dims: 0,
    metric: null,
    rows: [],
    tombs,
  });
  await commitIndex(
    ctx,
    [{ collection_id: collectionId, additions: [{ every: true, segment }], document_delta: documentDelta }],
    options,
  );
}

/** Every live document of a collection with its columns; undefined if nothing was ever committed. */
export async function documentsSnapshot(ctx: NsCtx, collectionId: string): Promise<Snapshot | undefined> {
  return (await snapshot(ctx, collectionId, documentsUri)).snapshot;
}
