// Compaction of an index: rewrites segments, lists dead rows of others, drops deletions and patches. No search, list or
// count changes by it; the version grows by one for each feature that was compacted.
import { setTimeout as pause } from 'node:timers/promises';
import type { NsCtx } from '../context.ts';
import { crash } from '../crash.ts';
import { AppError } from '../errors.ts';
import { countBits } from '../vectors/bits.ts';
import { compactRows } from '../vectors/compact.ts';
import {
  type CompactionPlan,
  type CompactionRules,
  compactionRules,
  planCompaction,
  segmentStates,
} from '../vectors/compaction-plan.ts';
import { type DeadRowsRef, encodeDeadRows } from '../vectors/dead-rows.ts';
import type { EncodedSegment } from '../vectors/encode-segment.ts';
import { VectorError } from '../vectors/errors.ts';
import { deadRowsOf, foldPatches } from '../vectors/kept-segments.ts';
import {
  applyCompaction,
  type Compaction,
  encodeManifest,
  type StoredSegment,
  withHistory,
} from '../vectors/manifest.ts';
import type { Snapshot } from '../vectors/snapshot.ts';
import { type VectorMemory, vectorMemory } from '../vectors/vector-memory.ts';
import { BlobMissing } from './blobs.ts';
import { forgetOld } from './collect-garbage.ts';
import { headWrite, readHead } from './index-head.ts';
import { checkFresh, deadRowsKey, manifestKey, segmentKey } from './index-keys.ts';
import { dueTasks, requestWork, wantedWork } from './index-work.ts';
import { type IndexView, loadManifest, openIndex, reading } from './open-index.ts';
import { ConditionFailed } from './table.ts';

export interface CompactOptions {
  readonly rules?: CompactionRules;
  /** Begins nothing new after this time, in milliseconds since 1970. */
  readonly untilMs?: number;
  readonly memory?: VectorMemory;
}

/** What was done to one feature. */
export interface FeatureCompaction extends Pick<CompactionPlan, 'reasons' | 'inputBytes'> {
  readonly feature_uri: string;
  /** Of the index, with the compaction. */
  readonly version: number;
  /** Data segments that were rewritten, and those that were written for them. */
  readonly rewritten: number;
  readonly written: number;
  /** Segments that keep their rows and got a new dead-row list. */
  readonly listed: number;
}

export interface CompactionReport {
  readonly compactions: readonly FeatureCompaction[];
  /** At this version nothing was left to do; undefined if there is more. */
  readonly doneVersion?: number;
}

/** Times that a run begins anew because others replaced what it read. */
const startsMax = 5;
/** Lost races before a compaction is given up; its inputs are there for the next run. */
const commitTries = 20;

/**
 * Compacts the features of a collection that are worth it, until the input of one run (512 MB) is used up.
 *
 * Memory: ids, sequence numbers and columns of all segments of one feature, as a reader has them; vectors of one
 * segment that is read, in the memory of the kernel; and one segment that is written (64 MB, a few times over).
 *
 * Safe to repeat, to interrupt and to run beside writers, readers and other compactions: what is read is immutable, and
 * each feature is done by one conditional update of the head. Whoever loses that race puts the result on top of the
 * newer version; only when another compaction has replaced the same segments is the work thrown away.
 *
 * @throws AppError index_contended, index_unavailable, index_corrupt, collection_not_found
 */
export async function compactIndex(
  ctx: NsCtx,
  collectionId: string,
  options: CompactOptions = {},
): Promise<CompactionReport> {
  const { rules = compactionRules, untilMs = Number.POSITIVE_INFINITY } = options;
  const compactions: FeatureCompaction[] = [];
  let budget = rules.inputBytesMax;
  let starts = 1;
  for (;;) {
    const view = await openIndex(ctx, collectionId);
    const found = await nextPlan(view, rules);
    if (!found) return { compactions, doneVersion: view.head.version };
    if (budget <= 0 || ctx.ports.clock.now() >= untilMs) return { compactions };
    // The rest of the budget holds for the next feature too.
    const { uri, snapshot } = found;
    const plan =
      compactions.length === 0
        ? found.plan
        : planOf(view, uri, snapshot, { ...rules, inputBytesMax: budget })!;
    try {
      const done = await compactFeature(ctx, collectionId, view, { uri, snapshot, plan }, options);
      compactions.push(done);
      budget -= plan.inputBytes + plan.deltaBytes;
    } catch (error) {
      // Others have replaced what was read, or swept it since we slept: what we stored is swept as well.
      const isStale = error instanceof VectorError && error.code === 'compaction_stale';
      const isGone = error instanceof AppError && error.cause instanceof BlobMissing;
      if (!(isStale || isGone) || starts >= startsMax) throw error;
      starts += 1;
    }
  }
}

interface FeaturePlan {
  readonly uri: string;
  readonly snapshot: Snapshot;
  readonly plan: CompactionPlan;
}

function planOf(
  { manifest }: IndexView,
  uri: string,
  snapshot: Snapshot,
  rules: CompactionRules,
): CompactionPlan | undefined {
  const feature = manifest.features[uri]!;
  return planCompaction(feature, segmentStates(feature, snapshot), rules);
}

/** The first feature that is worth a compaction, by exact counts. */
async function nextPlan(view: IndexView, rules: CompactionRules): Promise<FeaturePlan | undefined> {
  for (const uri of Object.keys(view.manifest.features)) {
    const snapshot = (await view.snapshot(uri))!;
    const plan = planOf(view, uri, snapshot, rules);
    if (plan) return { uri, snapshot, plan };
  }
  return undefined;
}

async function compactFeature(
  ctx: NsCtx,
  collectionId: string,
  view: IndexView,
  { uri, snapshot, plan }: FeaturePlan,
  { rules = compactionRules, memory = vectorMemory() }: CompactOptions,
): Promise<FeatureCompaction> {
  const { index } = ctx.ports;
  const from = view.manifest.features[uri]!;
  const put = async ({ bytes, description }: EncodedSegment): Promise<StoredSegment> => {
    const key = segmentKey(ctx, collectionId);
    await index.put(key, bytes, { contentType: 'application/octet-stream', ifAbsent: true });
    crash('index.compact.after_segment');
    return { ...description, key };
  };
  const rewritten = new Set(plan.rewrite);
  const data = from.segments.filter(({ kind }) => kind === 'data');
  const places = [...data.keys()];
  const parts = places.filter((i) => rewritten.has(data[i]!.key));
  const kept = places.filter((i) => !rewritten.has(data[i]!.key));

  const added: StoredSegment[] = [];
  await reading(async () => {
    const segments = compactRows(snapshot, rules.segmentBytesTarget, memory, { parts });
    for await (const segment of segments) added.push(await put(segment));
  });
  const written = added.length;
  const patches = foldPatches(snapshot, kept);
  if (patches) added.push(await put(patches));
  const dead = new Map<string, DeadRowsRef>();
  for (const i of kept) {
    const bits = deadRowsOf(snapshot, i);
    const count = countBits(bits);
    const { key: segment, rows, dead: known } = data[i]!;
    // Rows only ever die, so an equal number means the same rows.
    if (count === (known?.rows ?? 0)) continue;
    const { bytes, description } = encodeDeadRows(bits, rows);
    const key = deadRowsKey(ctx, collectionId);
    await index.put(key, bytes, { contentType: 'application/octet-stream', ifAbsent: true });
    crash('index.compact.after_dead_rows');
    dead.set(segment, { ...description, key });
  }
  const version = await commitCompaction(ctx, collectionId, uri, {
    from,
    rewritten: plan.rewrite,
    added,
    dead,
  });
  const { reasons, inputBytes } = plan;
  return {
    feature_uri: uri,
    version,
    reasons,
    inputBytes,
    rewritten: parts.length,
    written,
    listed: dead.size,
  };
}

/**
 * Moves the head to a manifest with the compaction, if nobody else does; else puts it on top of what they did.
 *
 * @returns the version that has it
 * @throws VectorError compaction_stale
 * @throws AppError index_contended, index_upload_expired, collection_not_found, index_unavailable, index_corrupt
 */
async function commitCompaction(
  ctx: NsCtx,
  collectionId: string,
  uri: string,
  compaction: Compaction,
): Promise<number> {
  const { table, index, clock } = ctx.ports;
  const { added, dead } = compaction;
  const stored = [...added.map(({ key }) => key), ...[...dead.values()].map(({ key }) => key)];
  /** Versions that we tried to make, by the keys of their manifests. */
  const tried = new Map<string, number>();
  for (let attempt = 0; attempt < commitTries; attempt++) {
    if (attempt > 0) await pause(Math.min(200, 4 * 2 ** Math.min(attempt, 6)) * jitter(ctx));
    const head = await readHead(ctx, collectionId);
    const [manifest, work] = await Promise.all([
      reading(() => loadManifest(ctx, head.manifest_key)),
      table.getMany(dueTasks.map((task) => ctx.ns.indexWork(collectionId, task))),
    ]);
    // A try whose answer was lost may have been made, and followed by others since.
    const made = [head.manifest_key ?? '', ...(manifest.history ?? []).map(({ key }) => key)];
    const ours = made.find((key) => tried.has(key));
    if (ours !== undefined) return tried.get(ours)!;
    const nowMs = clock.now();
    checkFresh(stored, nowMs);
    const compacted = applyCompaction(forgetOld(manifest, nowMs), uri, compaction, nowMs);
    const next = withHistory(compacted, head, nowMs);
    const key = manifestKey(ctx, collectionId, next.version);
    tried.set(key, next.version);
    await index.put(key, encodeManifest(next), { contentType: 'application/json', ifAbsent: true });
    crash('index.compact.after_manifest');
    try {
      await table.write([
        headWrite(ctx, head, { version: next.version, manifest_key: key }),
        { check: ctx.ns.resource('COLLECTION', collectionId), if: [{ present: true }] },
        ...requestWork(ctx, collectionId, wantedWork(next, head.document_count, nowMs), work),
      ]);
    } catch (error) {
      if (!(error instanceof ConditionFailed)) throw error;
      if (error.of(1)) {
        throw new AppError('collection_not_found', {
          detail: `The collection ${collectionId} was deleted meanwhile.`,
        });
      }
      continue;
    }
    crash('index.compact.after_head');
    return next.version;
  }
  throw new AppError('index_contended', {
    detail: `The index of ${collectionId} is being written by too many at once; ${commitTries} tries to compact it did not get through.`,
    retryAfterSeconds: 60,
  });
}

/** Between a half and one and a half. */
function jitter(ctx: NsCtx): number {
  return 0.5 + ctx.ports.random.bytes(1)[0]! / 255;
}
