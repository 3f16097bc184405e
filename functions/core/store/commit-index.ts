// The commit that moves the heads of one or more collections (vector store design, section 8).
import { setTimeout as pause } from 'node:timers/promises';
import { isoTime } from '../clock.ts';
import type { NsCtx } from '../context.ts';
import { crash } from '../crash.ts';
import { AppError } from '../errors.ts';
import { encodeSegment, type SegmentInput } from '../vectors/encode-segment.ts';
import {
  type Addition,
  appendSegments,
  dropFeatures,
  encodeManifest,
  type Manifest,
  type StoredSegment,
  withHistory,
} from '../vectors/manifest.ts';
import { forgetOld } from './collect-garbage.ts';
import { foldDeltas } from './fold-deltas.ts';
import { headWrite, toHead } from './index-head.ts';
import { checkFresh, manifestKey, segmentKey } from './index-keys.ts';
import { dueTasks, requestAfterwards, requestWork, wantedWork } from './index-work.ts';
import { loadManifest, loadSegment, readFault } from './open-index.ts';
import type { Item, Write } from './table.ts';
import { ConditionFailed } from './table.ts';

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
  await store(ctx, key, bytes);
  return { ...description, key };
}

async function store(ctx: NsCtx, key: string, bytes: Uint8Array): Promise<void> {
  await ctx.ports.index.put(key, bytes, { contentType: 'application/octet-stream', ifAbsent: true });
}

/** What a commit does to the index of one collection. */
export interface IndexChange {
  readonly collection_id: string;
  /** Segments that are stored already. */
  readonly additions: readonly Addition[];
  /** Features that the additions replace: they are not there from this commit on. */
  readonly drop?: readonly string[];
  /** Documents that come (positive) or go (negative) with this commit. */
  readonly document_delta: number;
  /** The batch whose sequence becomes visible; the commit is refused if it is not the open one any more. */
  readonly sequence?: { readonly batch_id: string; readonly attempt: number };
  /** Segments of `additions` that are not stored yet, by key: they are stored beside the manifest. */
  readonly unstored?: ReadonlyMap<string, Uint8Array>;
  /** Goes into the head: writers are in each other's way now. */
  readonly grouped_at_ms?: number;
}

export interface CommitOptions {
  /** Names this commit for ever: a repetition finds it applied and changes nothing. At most 200 characters. */
  readonly token: string;
  /**
   * Further writes of the same transaction. When one of their conditions fails, nothing is written. One that changes
   * the row of a collection must be conditional on it, and then stands for the check that the collection exists.
   */
  readonly writes?: readonly Write[];
  /**
   * The watermark that the caller read: its writes replace what was visible then. When a batch has committed since,
   * nothing is written.
   */
  readonly committedSeq?: number;
  /** Prefix of the crash points that the commit passes. @default 'index.commit' */
  readonly crashPoint?: string;
  /** Lost races before it gives up. @default 20 */
  readonly tries?: number;
  /** What the caller has just read, for the first try: the row of the token, then the head of each collection. */
  readonly read?: readonly (Item | undefined)[];
}

/** Lost races before a commit gives up (reliability, section 3). */
const commitTries = 20;
/** Writes that a commit adds to its caller's, at most, by collection: head, token, that it exists, and work asked for. */
export const writesPerCollection = 3 + dueTasks.length;
/** What the table takes at once. */
const transactionWritesMax = 100;
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
  const { token, writes: callers = [], crashPoint = 'index.commit', tries = commitTries } = options;
  const ids = changes.map((change) => change.collection_id);
  let stored = false;
  const repeatOf = (row: Item) => {
    const done = row.versions as Record<string, number>;
    return { repeated: true, versions: ids.map((id) => Number(done[id])) };
  };
  for (let attempt = 0; attempt < tries; attempt++) {
    if (attempt > 0) await pause(Math.min(200, 4 * 2 ** Math.min(attempt, 6)) * jitter(ctx));
    const nowMs = clock.now();
    const [tokenRow, ...headRows] =
      (attempt === 0 ? options.read : undefined) ??
      (await table.getMany([ctx.ns.commitToken(ids[0]!, token), ...ids.map((id) => ctx.ns.head(id))]));
    if (isApplied(tokenRow, nowMs)) return repeatOf(tokenRow);
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
    for (const { additions } of changes)
      checkFresh(
        additions.map(({ segment }) => segment.key),
        nowMs,
      );
    const [manifests, work] = await Promise.all([
      Promise.all(heads.map((head) => loadManifest(ctx, head.manifest_key))),
      table.getMany(ids.flatMap((id) => dueTasks.map((task) => ctx.ns.indexWork(id, task)))),
    ]).catch((error: unknown) => {
      throw readFault(error);
    });
    const puts: Promise<unknown>[] = [];
    const requests: Write[] = [];
    for (const [i, change] of changes.entries()) {
      const head = heads[i]!;
      const isSmall =
        change.additions.length > 0 && change.additions.every((addition) => 'every' in addition);
      const before = isSmall ? await fold(ctx, change.collection_id, manifests[i]!) : manifests[i]!;
      const remaining = dropFeatures(forgetOld(before, nowMs), change.drop ?? [], nowMs);
      const appended = appendSegments(remaining, change.additions);
      const next = withHistory(appended, head, nowMs);
      const documentCount = Math.max(0, head.document_count + change.document_delta);
      const present = work.slice(i * dueTasks.length, (i + 1) * dueTasks.length);
      requests.push(
        ...requestWork(ctx, change.collection_id, wantedWork(next, documentCount, nowMs), present),
      );
      const key = manifestKey(ctx, change.collection_id, next.version);
      puts.push(index.put(key, encodeManifest(next), { contentType: 'application/json', ifAbsent: true }));
      for (const [name, bytes] of stored ? [] : (change.unstored ?? [])) puts.push(store(ctx, name, bytes));
      versions.push(next.version);
      ours.push(
        headWrite(ctx, head, {
          version: next.version,
          manifest_key: key,
          document_count: documentCount,
          ...(change.grouped_at_ms === undefined ? {} : { grouped_at_ms: change.grouped_at_ms }),
          ...(change.sequence ? { committed_seq: head.open!.seq, open: null } : {}),
        }),
      );
    }
    await Promise.all(puts);
    stored = true;
    crash(`${crashPoint}.after_manifest`);
    const byCollection = Object.fromEntries(ids.map((id, i) => [id, versions[i]!]));
    for (const id of ids) ours.push(tokenWrite(ctx, id, token, byCollection));
    // An item may be in a transaction once.
    const checked = ids.filter((id) => !callers.some((write) => changesCollection(ctx, write, id)));
    for (const id of checked)
      ours.push({ check: ctx.ns.resource('COLLECTION', id), if: [{ present: true }] });
    try {
      const room = Math.max(0, transactionWritesMax - callers.length - ours.length);
      await table.write([...callers, ...ours, ...requests.slice(0, room)]);
      crash(`${crashPoint}.after_head`);
      // A batch of many collections: what is lost here, the next commit asks for.
      await requestAfterwards(ctx, requests.slice(room));
      return { repeated: false, versions };
    } catch (error) {
      if (!(error instanceof ConditionFailed)) throw error;
      const at = (place: number) => error.of(callers.length + place);
      // The token is there: the write was ours and its answer was lost. The next look returns what it did.
      if (ids.some((_, i) => at(ids.length + i))) continue;
      for (const [i, id] of checked.entries()) {
        if (at(2 * ids.length + i)) {
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
  // The last try may have been the one whose answer was lost.
  const tokenRow = await table.get(ctx.ns.commitToken(ids[0]!, token));
  if (isApplied(tokenRow, clock.now())) return repeatOf(tokenRow);
  throw new AppError('index_contended', {
    detail: `The index of ${ids.join(', ')} is being written by too many at once; ${tries} tries did not get through.`,
    retryAfterSeconds: 2,
  });
}

function changesCollection(ctx: NsCtx, write: Write, collectionId: string): boolean {
  const { pk, sk } = ctx.ns.resource('COLLECTION', collectionId);
  return 'update' in write && write.update.pk === pk && write.update.sk === sk;
}

/** Whether the row of a token says that its commit is done. */
export function isApplied(tokenRow: Item | undefined, nowMs: number): tokenRow is Item {
  return tokenRow !== undefined && Number(tokenRow.expires_at) >= Math.floor(nowMs / 1000);
}

/** The write that says so, refused if it is said already. `versions` by collection. */
export function tokenWrite(
  ctx: NsCtx,
  collectionId: string,
  token: string,
  versions: Readonly<Record<string, number>>,
): Write {
  const nowMs = ctx.ports.clock.now();
  return {
    put: {
      ...ctx.ns.commitToken(collectionId, token),
      versions,
      at: isoTime(nowMs),
      expires_at: Math.floor((nowMs + tokenKeepMs) / 1000),
    },
    if: [{ anyOf: [{ absent: true }, { attribute: 'expires_at', lt: Math.floor(nowMs / 1000) }] }],
  };
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

/** Between a half and one and a half. */
function jitter(ctx: NsCtx): number {
  return 0.5 + ctx.ports.random.bytes(1)[0]! / 255;
}
