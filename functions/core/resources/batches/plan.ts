// The plan of a batch: which objects, in which versions, in which chunks. Written once per attempt and never changed.
import { isoTime } from '../../clock.ts';
import type { NsCtx } from '../../context.ts';
import { crash } from '../../crash.ts';
import { AppError } from '../../errors.ts';
import { derivedId, randomCharacters } from '../../ids.ts';
import { BlobConflict, getJson } from '../../store/blobs.ts';
import type { Key, Write } from '../../store/table.ts';
import { ConditionFailed } from '../../store/table.ts';
import type { IndexHead } from '../../store/vector-index.ts';
import { openSequence, readHeads } from '../../store/vector-index.ts';
import type { StoredCollection } from '../collections/service.ts';
import { getCollection } from '../collections/service.ts';
import { listReceipts, newestCommitted, toRow } from '../documents/service.ts';
import type { StoredObject } from '../objects/service.ts';
import { findObjects, isBinary, queryObjects } from '../objects/service.ts';
import { findPlugin } from '../plugins/service.ts';
import { rowsOf } from './extract.ts';
import type { CarriedResult, ChunkFile, ChunkPointer, PlanFile, PlannedObject, RowFailure } from './files.ts';
import { batchKeys } from './files.ts';
import type { BatchJob, PlanSummary, StoredBatch } from './store.ts';
import { findBatch, objectsMax, watchAttributes } from './store.ts';
import { targetOf } from './upgrade.ts';

/** A chunk ends at the first of these (decisions, section 1). */
export const chunkLimits = { rowsMax: 1_000, inputBytesMax: 4_000_000, outputBytesMax: 32_000_000 } as const;

/** A batch ends after this, whatever happens (reliability, section 8). */
export const batchMs = 6 * 3_600_000;

const planTries = 20;
/** Objects that are read at a time. */
const pageRows = 1_000;
/** Chunk files that are written at the same time. */
const parallelPuts = 4;

/** The digest of everything that decides what a collection makes of an object. */
export function contentHashOf(collection: StoredCollection): string {
  return collection.feature_extractors.map((extractor) => extractor.content_hash).join('.');
}

/** The batch of a job, if this attempt of it may still do something. @throws AppError batch_wrong_state */
export async function runningBatch(ctx: NsCtx, job: BatchJob): Promise<StoredBatch> {
  const batch = await findBatch(ctx, job.bucket_id, job.batch_id);
  if (batch && batch.attempt === job.attempt && (batch.status === 'PENDING' || batch.status === 'PROCESSING'))
    return batch;
  throw new AppError('batch_wrong_state', {
    detail: `The batch ${job.batch_id} does not run (any more): ${batch?.failure_reason ?? batch?.status ?? 'it was deleted'}.`,
  });
}

/** Takes a sequence in every collection and says that the batch runs, in one transaction. Repeating changes nothing. */
async function begin(
  ctx: NsCtx,
  job: BatchJob,
): Promise<{ readonly batch: StoredBatch; readonly heads: IndexHead[] }> {
  for (let attempt = 0; attempt < planTries; attempt++) {
    const batch = await runningBatch(ctx, job);
    const heads = await readHeads(ctx, batch.collection_ids);
    const sequences: Record<string, number> = {};
    const writes: Write[] = [];
    for (const head of heads) {
      const { seq, write } = openSequence(ctx, head, { batch_id: job.batch_id, attempt: job.attempt });
      sequences[head.collection_id] = seq;
      if (write) writes.push(write);
    }
    const time = isoTime(ctx.ports.clock.now());
    const pending =
      batch.trigger_digest === null
        ? undefined
        : ctx.ns.pendingTrigger(batch.bucket_id, batch.trigger_digest);
    const guard = pending && (await ctx.ports.table.get(pending));
    writes.push({
      update: ctx.ns.batch(batch.bucket_id, batch.batch_id),
      set: {
        status: 'PROCESSING',
        lifecycle: 'extracting',
        sequences,
        started_at: batch.started_at ?? time,
        updated_at: time,
        ...watchAttributes(job, Date.parse(batch.started_at ?? time) + batchMs + 60_000),
        revision: batch.revision + 1,
      },
      remove: ['lifecycle_reason'],
      if: [{ attribute: 'revision', eq: batch.revision }],
    });
    // From here on a new trigger makes a new batch: what comes now is not in this one's plan.
    if (pending && guard?.batch_id === batch.batch_id) {
      writes.push({ delete: pending, if: [{ attribute: 'batch_id', eq: batch.batch_id }] });
    }
    try {
      await ctx.ports.table.write(writes);
      return { batch: { ...batch, status: 'PROCESSING', sequences, revision: batch.revision + 1 }, heads };
    } catch (error) {
      if (!(error instanceof ConditionFailed)) throw error;
    }
  }
  throw new AppError('index_contended', {
    detail: `The collections of ${job.batch_id} are being changed by too many at once.`,
    retryAfterSeconds: 1,
  });
}

/** Collects objects of one collection into chunk files. */
class ChunkWriter {
  readonly pointers: { readonly collection_id: string; readonly key: string; readonly chunk: number }[] = [];
  readonly #ctx: NsCtx;
  readonly #job: BatchJob;
  readonly #run: string;
  readonly #next: () => number;
  readonly #collection: StoredCollection;
  readonly #sequence: number;
  readonly #first: boolean;
  readonly #outputRowsMax: number;
  #objects: PlannedObject[] = [];
  #bytes = 0;
  #rows = 0;
  #puts: Promise<unknown>[] = [];

  constructor(
    ctx: NsCtx,
    job: BatchJob,
    run: string,
    next: () => number,
    collection: StoredCollection,
    sequence: number,
    first: boolean,
  ) {
    this.#ctx = ctx;
    this.#job = job;
    this.#run = run;
    this.#next = next;
    this.#collection = collection;
    this.#sequence = sequence;
    this.#first = first;
    const dims = collection.feature_extractors
      .flatMap((e) => e.features)
      .reduce((sum, feature) => sum + feature.dims, 0);
    this.#outputRowsMax = Math.max(1, Math.floor(chunkLimits.outputBytesMax / (4 * Math.max(1, dims))));
  }

  async add(object: PlannedObject): Promise<void> {
    // Texts that lie in the blob store are read by the chunk, so they count as if they were here.
    const apart = object.blobs.reduce(
      (sum, blob) => sum + (blob.s3_key !== undefined && !isBinary(blob.type) ? blob.size_bytes : 0),
      0,
    );
    const bytes = Buffer.byteLength(JSON.stringify(object)) + apart;
    const rows = Math.max(
      1,
      ...this.#collection.feature_extractors.map((extractor) => rowsOf(object, extractor).length),
    );
    const rowsMax = Math.min(chunkLimits.rowsMax, this.#outputRowsMax);
    if (
      this.#objects.length > 0 &&
      (this.#rows + rows > rowsMax || this.#bytes + bytes > chunkLimits.inputBytesMax)
    ) {
      await this.flush();
    }
    this.#objects.push(object);
    this.#bytes += bytes;
    this.#rows += rows;
  }

  async flush(carry?: CarriedResult): Promise<void> {
    if (this.#objects.length === 0) return;
    const chunk = this.#next();
    const { batch_id, bucket_id, attempt } = this.#job;
    const key = batchKeys.chunk(this.#ctx, batch_id, attempt, this.#run, chunk);
    const file: ChunkFile = {
      batch_id,
      bucket_id,
      attempt,
      chunk,
      collection_id: this.#collection.id,
      sequence: this.#sequence,
      first: this.#first,
      objects: this.#objects,
      ...(carry ? { carry } : {}),
    };
    this.pointers.push({ collection_id: this.#collection.id, key, chunk });
    this.#objects = [];
    this.#bytes = 0;
    this.#rows = 0;
    this.#puts.push(
      this.#ctx.ports.blobs.put(key, JSON.stringify(file), {
        contentType: 'application/json',
        ifAbsent: true,
      }),
    );
    if (this.#puts.length >= parallelPuts) await this.settle();
  }

  async settle(): Promise<void> {
    const puts = this.#puts;
    this.#puts = [];
    await Promise.all(puts);
  }
}

/** Everything about one collection that the planning of objects needs. */
interface Target {
  readonly collection: StoredCollection;
  readonly head: IndexHead;
  readonly hash: string;
  readonly writer: ChunkWriter;
  /** Objects that one batch processes, at most; those that are skipped do not count. */
  readonly objectsMax: number;
  total: number;
  skipped: number;
}

/** Which of the objects were done before in this collection, in this version and by the same plugins. */
async function doneBefore(
  ctx: NsCtx,
  target: Target,
  objects: readonly PlannedObject[],
  orNewer: boolean,
): Promise<boolean[]> {
  const { collection, head, hash } = target;
  const keys = objects.map((object) =>
    ctx.ns.document(collection.id, derivedId('document', collection.id, object.object_id, 0)),
  );
  const items = await ctx.ports.table.getMany(keys);
  return items.map((item, i) => {
    const slot = item && newestCommitted(toRow(item), head);
    if (!slot) return false;
    const { version } = objects[i]!;
    if (orNewer) return slot.object_version > version;
    return slot.object_version === version && slot.content_hash === hash;
  });
}

async function planObjects(
  ctx: NsCtx,
  targets: readonly Target[],
  batch: StoredBatch,
  objects: readonly PlannedObject[],
): Promise<void> {
  for (const target of targets) {
    target.total += objects.length;
    const looks = batch.dedup_strategy === 'skip' && target.head.committed_seq > 0;
    const done = looks ? await doneBefore(ctx, target, objects, false) : undefined;
    for (const [i, object] of objects.entries()) {
      if (done?.[i]) target.skipped++;
      else await target.writer.add(object);
    }
    if (target.total - target.skipped > target.objectsMax) {
      if (batch.upgrade) {
        throw new AppError('batch_too_large', {
          detail: `The buckets of the collection "${target.collection.name}" hold more than ${target.objectsMax} objects, and an upgrade runs all of them in one batch. Make a second collection with the new version instead.`,
        });
      }
      throw new AppError('batch_too_large', {
        detail: `The bucket holds more than ${target.objectsMax} objects that the collection "${target.collection.name}" has not processed. Make batches of chosen objects: a draft, its objects, then submit.`,
      });
    }
  }
}

const toPlanned = (object: StoredObject, batch: StoredBatch): PlannedObject => ({
  object_id: object.object_id,
  ...(object.bucket_id === batch.bucket_id ? {} : { bucket_id: object.bucket_id }),
  version: object.version,
  blobs: object.blobs,
  metadata: object.metadata,
});

const failureOf = (objectId: string, collectionId: string, code: string, message: string): RowFailure => ({
  object_id: objectId,
  collection_id: collectionId,
  chunk: null,
  feature_extractor_id: null,
  property: null,
  code,
  message,
  retryable: false,
});

/** A first attempt: the bucket's objects, or those that were chosen, as they are now. */
async function planFresh(
  ctx: NsCtx,
  batch: StoredBatch,
  targets: readonly Target[],
  failures: RowFailure[],
): Promise<void> {
  if (batch.objects_key !== null) {
    const ids = await getJson<readonly string[]>(ctx.ports.blobs, batch.objects_key);
    for (let i = 0; i < ids.length; i += pageRows) {
      const wanted = ids.slice(i, i + pageRows);
      const found = await findObjects(ctx, batch.bucket_id, wanted);
      for (const [j, object] of found.entries()) {
        if (object) continue;
        for (const target of targets) {
          target.total++;
          failures.push(
            failureOf(
              wanted[j]!,
              target.collection.id,
              'object_not_found',
              'the object was deleted before the batch ran',
            ),
          );
        }
      }
      await planObjects(
        ctx,
        targets,
        batch,
        found.filter((object) => object !== undefined).map((object) => toPlanned(object, batch)),
      );
    }
    return;
  }
  for (const bucketId of batch.upgrade?.bucket_ids ?? [batch.bucket_id])
    await planBucket(ctx, batch, bucketId, targets);
}

async function planBucket(
  ctx: NsCtx,
  batch: StoredBatch,
  bucketId: string,
  targets: readonly Target[],
): Promise<void> {
  const read = (after?: Key) => queryObjects(ctx, bucketId, { after, limit: pageRows });
  let reading = read();
  for (;;) {
    const page = await reading;
    // The next page comes while this one is planned.
    if (page.next) reading = read(page.next);
    // Whoever awaits it gets its failure; if the planning fails before that, nobody does.
    reading.catch(() => undefined);
    await planObjects(
      ctx,
      targets,
      batch,
      page.objects.map((object) => toPlanned(object, batch)),
    );
    if (!page.next) return;
  }
}

/**
 * A retry: what went well before is taken as it is, what failed or left no result runs again on the frozen data.
 * Objects that another batch has made anew from a newer version in the meantime are left out.
 */
async function planRetry(
  ctx: NsCtx,
  batch: StoredBatch,
  before: PlanSummary,
  targets: readonly Target[],
  failures: RowFailure[],
): Promise<void> {
  const { blobs } = ctx.ports;
  const plan = await getJson<PlanFile>(blobs, before.plan_key);
  const receipts = new Map(
    (await listReceipts(ctx, batch.batch_id, before.attempt)).map((receipt) => [receipt.chunk, receipt]),
  );
  const byId = new Map(targets.map((target) => [target.collection.id, target]));
  for (const failure of plan.failures) {
    const target = byId.get(failure.collection_id);
    if (!target) continue;
    target.total++;
    failures.push(failure);
  }
  for (const [id, { skipped }] of Object.entries(plan.totals)) {
    const target = byId.get(id);
    if (!target) continue;
    target.total += skipped;
    target.skipped += skipped;
  }
  const again: { readonly target: Target; readonly object: PlannedObject }[] = [];
  for (const pointer of plan.chunks) {
    const target = byId.get(pointer.collection_id);
    if (!target) continue;
    const file = await getJson<ChunkFile>(blobs, pointer.key);
    target.total += file.objects.length;
    const superseded = target.head.committed_seq > 0 ? await doneBefore(ctx, target, file.objects, true) : [];
    const fresh = file.objects.filter((_, i) => !superseded[i]);
    target.skipped += file.objects.length - fresh.length;
    const receipt = receipts.get(pointer.chunk);
    const failed =
      receipt?.failures_key === undefined
        ? []
        : await getJson<readonly RowFailure[]>(blobs, receipt.failures_key);
    const faults = new Map<string, RowFailure[]>();
    for (const failure of failed)
      faults.set(failure.object_id, [...(faults.get(failure.object_id) ?? []), failure]);
    // The segments of a chunk hold all of its documents, so one that must not come back needs the chunk to run again.
    const reusable = receipt !== undefined && fresh.length === file.objects.length;
    for (const object of fresh) {
      const own = faults.get(object.object_id);
      if (own === undefined && reusable) await target.writer.add(object);
      else if (own && batch.retry_mode === 'transient_only' && own.every((failure) => !failure.retryable))
        failures.push(...own);
      else again.push({ target, object });
    }
    await target.writer.flush({ attempt: before.attempt, chunk: pointer.chunk });
  }
  for (const { target, object } of again) await target.writer.add(object);
}

/** What the state machine goes on with. */
export interface PlanResult {
  readonly chunks: number;
  /** Key in the blob bucket: a JSON list with one pointer for each chunk. */
  readonly chunks_key: string;
  readonly collection_ids: readonly string[];
  /** Chunks at a time: what the stage allows, or less where a plugin of the batch wants less. */
  readonly max_concurrency: number;
}

/** What the planning of a batch may not exceed. */
export interface PlanLimits {
  readonly objectsMax?: number;
  /** Chunks of one batch that the stage runs at a time. */
  readonly mapConcurrency?: number;
}

/**
 * Chunks at a time. A chunk runs all extractors of its collection one after the other, so there are never more calls of
 * a plugin than chunks.
 */
async function concurrencyOf(
  ctx: NsCtx,
  collections: readonly StoredCollection[],
  stageMax: number,
): Promise<number> {
  const ids = new Set(collections.flatMap((one) => one.feature_extractors.map((e) => e.plugin_id)));
  let lowest = stageMax;
  for (const id of ids) {
    const wanted = (await findPlugin(ctx, id))?.compute_profile.max_concurrency;
    if (typeof wanted === 'number' && Number.isInteger(wanted) && wanted >= 1)
      lowest = Math.min(lowest, wanted);
  }
  return lowest;
}

/**
 * Plans an attempt of a batch. Repeating gives the first one's plan; two planners at once make one plan.
 *
 * @throws AppError batch_wrong_state (cancelled meanwhile), collection_not_found
 */
export async function planBatch(ctx: NsCtx, job: BatchJob, limits: PlanLimits = {}): Promise<PlanResult> {
  const { blobs } = ctx.ports;
  const { batch, heads } = await begin(ctx, job);
  const collections: StoredCollection[] = [];
  for (const head of heads) collections.push(targetOf(batch, await getCollection(ctx, head.collection_id)));
  crash('batch.plan.after_sequence');
  const planKey = batchKeys.plan(ctx, job.batch_id, job.attempt);
  const chunksKey = batchKeys.chunks(ctx, job.batch_id, job.attempt);
  const made = (await blobs.head(planKey))
    ? undefined
    : await writePlan(ctx, job, batch, heads, collections, planKey, limits);
  const plan = made ?? (await getJson<PlanFile>(blobs, planKey));
  crash('batch.plan.after_plan_file');
  await blobs.put(chunksKey, JSON.stringify(plan.chunks), { contentType: 'application/json' });
  const totals = Object.values(plan.totals);
  const summary: PlanSummary = {
    attempt: job.attempt,
    chunks: plan.chunks.length,
    chunks_key: chunksKey,
    plan_key: planKey,
    total: totals.reduce((sum, one) => sum + one.total, 0),
    skipped: totals.reduce((sum, one) => sum + one.skipped, 0),
    failed: new Set(plan.failures.map((failure) => `${failure.collection_id} ${failure.object_id}`)).size,
  };
  try {
    await ctx.ports.table.write([
      {
        update: ctx.ns.batch(batch.bucket_id, batch.batch_id),
        set: {
          plan: { ...summary },
          // A draft counts its own objects; a trigger learns here how many the bucket has for its collections.
          ...(batch.origin === 'draft'
            ? {}
            : { object_count: Math.max(0, ...totals.map(({ total }) => total)) }),
          progress: { total: summary.total, processed: 0, failed: summary.failed, skipped: summary.skipped },
          updated_at: isoTime(ctx.ports.clock.now()),
        },
        add: { revision: 1 },
        if: [
          { attribute: 'status', eq: 'PROCESSING' },
          { attribute: 'attempt', eq: job.attempt },
        ],
      },
    ]);
  } catch (error) {
    if (!(error instanceof ConditionFailed)) throw error;
    await runningBatch(ctx, job);
    throw error;
  }
  return {
    chunks: plan.chunks.length,
    chunks_key: chunksKey,
    collection_ids: batch.collection_ids,
    max_concurrency: await concurrencyOf(ctx, collections, limits.mapConcurrency ?? 1),
  };
}

/** @returns undefined when another planner of the same attempt was faster: then its plan holds. */
async function writePlan(
  ctx: NsCtx,
  job: BatchJob,
  batch: StoredBatch,
  heads: readonly IndexHead[],
  collections: readonly StoredCollection[],
  planKey: string,
  limits: PlanLimits,
): Promise<PlanFile | undefined> {
  const run = randomCharacters(8, ctx.ports.random);
  let chunks = 0;
  const targets: Target[] = [];
  for (const [i, head] of heads.entries()) {
    const collection = collections[i]!;
    const sequence = batch.sequences[collection.id]!;
    const writer = new ChunkWriter(
      ctx,
      job,
      run,
      () => chunks++,
      collection,
      sequence,
      head.committed_seq === 0,
    );
    targets.push({
      collection,
      head,
      hash: contentHashOf(collection),
      writer,
      objectsMax: limits.objectsMax ?? objectsMax,
      total: 0,
      skipped: 0,
    });
  }
  const failures: RowFailure[] = [];
  if (batch.plan === null) await planFresh(ctx, batch, targets, failures);
  else await planRetry(ctx, batch, batch.plan, targets, failures);
  for (const { writer } of targets) {
    await writer.flush();
    await writer.settle();
  }
  crash('batch.plan.after_chunks');
  const { org_id, namespace_id, bucket_id, batch_id, attempt, request_id } = job;
  const pointers: ChunkPointer[] = targets
    .flatMap(({ writer }) => writer.pointers)
    .map((pointer) => ({ ...pointer, org_id, namespace_id, bucket_id, batch_id, attempt, request_id }))
    .sort((a, b) => a.chunk - b.chunk);
  const plan: PlanFile = {
    chunks: pointers,
    totals: Object.fromEntries(
      targets.map(({ collection, total, skipped }) => [collection.id, { total, skipped }]),
    ),
    failures,
  };
  try {
    await ctx.ports.blobs.put(planKey, JSON.stringify(plan), {
      contentType: 'application/json',
      ifAbsent: true,
    });
    return plan;
  } catch (error) {
    if (error instanceof BlobConflict) return undefined;
    throw error;
  }
}
