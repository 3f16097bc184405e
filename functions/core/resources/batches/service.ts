// The rules of batches: asking for one, drafting one, looking at it, stopping it, trying it again.
import { createHash } from 'node:crypto';
import { isoTime } from '../../clock.ts';
import type { NsCtx } from '../../context.ts';
import { now } from '../../context.ts';
import { crash } from '../../crash.ts';
import type { FieldFault } from '../../errors.ts';
import { AppError, invalid } from '../../errors.ts';
import { scanRowsMax } from '../../page.ts';
import { audit } from '../../store/audit.ts';
import { BlobMissing, getJson } from '../../store/blobs.ts';
import type { Attribute, Write } from '../../store/table.ts';
import { ConditionFailed } from '../../store/table.ts';
import { getBucket } from '../buckets/service.ts';
import type { StoredCollection } from '../collections/service.ts';
import { checkReads, collectionsReading, getCollection } from '../collections/service.ts';
import { listReceipts } from '../documents/service.ts';
import { findObjects } from '../objects/service.ts';
import type { PlanFile, RowFailure } from './files.ts';
import { batchKeys } from './files.ts';
import type { BatchOptions } from './new-batch.ts';
import { newBatch, submission, taskOf } from './new-batch.ts';
import type { StoredBatch } from './store.ts';
import {
  batchItem,
  findBatch,
  isActive,
  jobOf,
  listBatchRows,
  objectsMax,
  toBatch,
  watchAttributes,
  watchUntil,
} from './store.ts';
import { claimUpgrade, targetOf } from './upgrade.ts';
import { receiptsOf, stopBatch, tallyOf } from './workflow.ts';

export type { ChunkPointer, RowFailure } from './files.ts';
export type { LogEntry } from './logs.ts';
export { listBatchLogs, listPluginLogs } from './logs.ts';
export type { BatchOptions } from './new-batch.ts';
export type { BatchJob, StoredBatch } from './store.ts';
export { upgradeCollection } from './upgrade.ts';
/** Heads, tokens and checks of all collections are one transaction; that bounds how many there can be. */
export const collectionsMax = 20;

/** The collections that were named, each of which must read the bucket; without names, all enabled ones that do. */
async function chooseCollections(
  ctx: NsCtx,
  bucketId: string,
  names: readonly string[] | undefined,
): Promise<StoredCollection[]> {
  if (!names || names.length === 0) {
    const reading = await collectionsReading(ctx, bucketId);
    if (reading.length > 0) return reading.slice(0, collectionsMax);
    throw new AppError('collection_source_mismatch', {
      detail:
        'No enabled collection reads this bucket. Make one with this bucket in source.bucket_ids first.',
    });
  }
  const chosen: StoredCollection[] = [];
  for (const name of names) {
    const collection = await getCollection(ctx, name);
    checkReads(collection, bucketId);
    if (!chosen.some((other) => other.id === collection.id)) chosen.push(collection);
  }
  return chosen;
}

async function trigger(
  ctx: NsCtx,
  bucketId: string,
  collections: readonly StoredCollection[],
  options: BatchOptions,
  type: 'api_buckets_batches_process' | 'api_collections_trigger',
): Promise<StoredBatch> {
  const collectionIds = collections.map((collection) => collection.id).sort();
  const { dedup_strategy, max_failure_share, batch_name } = options;
  const asked = [collectionIds, dedup_strategy ?? 'skip', max_failure_share ?? null, batch_name ?? null];
  const digest = createHash('sha256').update(JSON.stringify(asked)).digest('hex').slice(0, 32);
  const batch: StoredBatch = { ...newBatch(ctx, bucketId, collectionIds, options), trigger_digest: digest };
  const guardKey = ctx.ns.pendingTrigger(bucketId, digest);
  for (;;) {
    const guard = await ctx.ports.table.get(guardKey);
    const pending = guard && (await findBatch(ctx, bucketId, String(guard.batch_id)));
    // One that is not planned yet will see everything that is in the bucket now, so it is the answer to this request.
    if (pending?.status === 'PENDING') return pending;
    crash('batch.trigger.before_write');
    try {
      await ctx.ports.table.write([
        {
          put: { ...batchItem(ctx, batch), ...watchAttributes(jobOf(ctx, batch), watchUntil(ctx)) },
          if: [{ absent: true }],
        },
        {
          put: { ...guardKey, batch_id: batch.batch_id },
          if: [guard ? { attribute: 'batch_id', eq: String(guard.batch_id) } : { absent: true }],
        },
        taskOf(ctx, batch, type),
        ...submission(ctx, batch),
        audit(ctx, 'batch.trigger', batch.batch_id),
      ]);
      crash('batch.trigger.after_write');
      return batch;
    } catch (error) {
      if (!(error instanceof ConditionFailed)) throw error;
      // A row of this very id is our own write, whose answer was lost; it may even have been planned since.
      const own = error.of(0)?.item;
      if (own) return toBatch(own);
      // Else somebody else triggered the same; the next look finds theirs.
    }
  }
}

/**
 * Asks for a batch over everything in a bucket. The batch of the same request that is not yet planned is returned
 * again.
 *
 * @param names ids or names; left out: every enabled collection that reads the bucket
 * @throws AppError bucket_not_found, collection_not_found, collection_source_mismatch
 */
export async function triggerBucket(
  ctx: NsCtx,
  bucketName: string,
  names: readonly string[] | undefined,
  options: BatchOptions,
): Promise<StoredBatch> {
  const bucket = await getBucket(ctx, bucketName);
  const collections = await chooseCollections(ctx, bucket.id, names);
  return trigger(ctx, bucket.id, collections, options, 'api_buckets_batches_process');
}

/**
 * Asks for a batch of one collection over each of its buckets.
 *
 * @throws AppError collection_not_found, collection_source_mismatch (a bucket that it does not read)
 */
export async function triggerCollection(
  ctx: NsCtx,
  collectionName: string,
  bucketNames: readonly string[] | undefined,
  options: BatchOptions,
): Promise<{ readonly collection: StoredCollection; readonly batches: readonly StoredBatch[] }> {
  const collection = await getCollection(ctx, collectionName);
  const bucketIds: string[] = [];
  for (const name of bucketNames ?? []) {
    const bucket = await getBucket(ctx, name);
    checkReads(collection, bucket.id);
    bucketIds.push(bucket.id);
  }
  const batches: StoredBatch[] = [];
  for (const bucketId of bucketIds.length > 0 ? new Set(bucketIds) : collection.source.bucket_ids) {
    batches.push(await trigger(ctx, bucketId, [collection], options, 'api_collections_trigger'));
  }
  return { collection, batches };
}

/** Every id must be an object of the bucket; all that are not are named. */
async function checkObjects(ctx: NsCtx, bucketId: string, ids: readonly string[]): Promise<void> {
  const faults: FieldFault[] = [];
  for (let i = 0; i < ids.length; i += 500) {
    const part = ids.slice(i, i + 500);
    const found = await findObjects(ctx, bucketId, part);
    for (const [j, object] of found.entries()) {
      if (object || faults.length >= 20) continue;
      faults.push({
        type: 'object_unknown',
        location: ['body', 'object_ids', i + j],
        message: `there is no object "${part[j]!.slice(0, 60)}" in this bucket`,
      });
    }
  }
  if (faults.length > 0) {
    throw new AppError('object_not_found', {
      detail: `${faults[0]!.location.join('.')}: ${faults[0]!.message}`,
      fields: faults,
    });
  }
}

/**
 * Makes a batch of chosen objects that does not run yet.
 *
 * @throws AppError bucket_not_found, collection_not_found, collection_source_mismatch, object_not_found
 */
export async function draftBatch(
  ctx: NsCtx,
  bucketName: string,
  objectIds: readonly string[],
  names: readonly string[] | undefined,
  options: BatchOptions,
): Promise<StoredBatch> {
  const bucket = await getBucket(ctx, bucketName);
  const collections = names && names.length > 0 ? await chooseCollections(ctx, bucket.id, names) : [];
  const ids = [...new Set(objectIds)];
  await checkObjects(ctx, bucket.id, ids);
  const base = newBatch(ctx, bucket.id, collections.map((collection) => collection.id).sort(), options);
  const key = batchKeys.objects(ctx, base.batch_id, 1);
  const batch: StoredBatch = {
    ...base,
    origin: 'draft',
    status: 'DRAFT',
    submitted_at: null,
    objects_key: key,
    object_count: ids.length,
    progress: { ...base.progress, total: ids.length },
  };
  await ctx.ports.blobs.put(key, JSON.stringify(ids), { contentType: 'application/json' });
  await ctx.ports.table.write([
    { put: batchItem(ctx, batch), if: [{ absent: true }] },
    taskOf(ctx, batch, 'api_buckets_batches_submit'),
    audit(ctx, 'batch.create', batch.batch_id),
  ]);
  return batch;
}

/** By id. @throws AppError bucket_not_found, batch_not_found */
export async function getBatch(ctx: NsCtx, bucketName: string, batchId: string): Promise<StoredBatch> {
  const bucket = await getBucket(ctx, bucketName);
  const batch = await findBatch(ctx, bucket.id, batchId);
  if (!batch)
    throw new AppError('batch_not_found', { detail: `No batch "${batchId.slice(0, 120)}" in this bucket.` });
  return batch;
}

/** The batch with what its receipts say at this moment, while it runs. */
export async function withProgress(ctx: NsCtx, batch: StoredBatch): Promise<StoredBatch> {
  if (batch.status !== 'PROCESSING' || batch.committed_attempt === batch.attempt || batch.plan === null)
    return batch;
  const { progress, errors } = tallyOf(batch, await receiptsOf(ctx, batch));
  return { ...batch, progress: { ...progress }, error_summary: errors };
}

/** Newest first; 10,000 at most, with a warning beyond. @throws AppError bucket_not_found */
export async function listBatches(ctx: NsCtx, bucketName: string): Promise<StoredBatch[]> {
  const bucket = await getBucket(ctx, bucketName);
  const rows = await listBatchRows(ctx, bucket.id, scanRowsMax);
  if (rows.length >= scanRowsMax) ctx.warnings.push(`Only the newest ${scanRowsMax} batches were looked at.`);
  return rows;
}

/** The ids that a draft holds; empty for a batch over a whole bucket. */
export async function objectIdsOf(ctx: NsCtx, batch: StoredBatch, max: number): Promise<string[]> {
  if (batch.objects_key === null) return [];
  return (await getJson<string[]>(ctx.ports.blobs, batch.objects_key)).slice(0, max);
}

function wrongState(batch: StoredBatch, wanted: string): AppError {
  return new AppError('batch_wrong_state', {
    detail: `The batch ${batch.batch_id} is ${batch.status}; ${wanted}.`,
  });
}

async function change(
  ctx: NsCtx,
  batch: StoredBatch,
  set: Record<string, Attribute>,
  alongside: readonly Write[],
  remove?: readonly string[],
): Promise<StoredBatch> {
  const changes = { ...set, updated_at: isoTime(now(ctx)), revision: batch.revision + 1 };
  try {
    await ctx.ports.table.write([
      {
        update: ctx.ns.batch(batch.bucket_id, batch.batch_id),
        set: changes,
        ...(remove ? { remove } : {}),
        if: [{ attribute: 'revision', eq: batch.revision }],
      },
      ...alongside,
    ]);
  } catch (error) {
    if (!(error instanceof ConditionFailed)) throw error;
    throw new AppError('batch_changed', {
      detail: `The batch ${batch.batch_id} changed meanwhile; read it again.`,
    });
  }
  return { ...batch, ...changes } as StoredBatch;
}

/** @throws AppError batch_wrong_state unless it is a draft, object_not_found, request_invalid (too many) */
export async function addObjects(
  ctx: NsCtx,
  bucketName: string,
  batchId: string,
  objectIds: readonly string[],
): Promise<StoredBatch> {
  const batch = await getBatch(ctx, bucketName, batchId);
  if (batch.status !== 'DRAFT') throw wrongState(batch, 'objects can be added to a draft only');
  await checkObjects(ctx, batch.bucket_id, objectIds);
  const ids = [...new Set([...(await objectIdsOf(ctx, batch, objectsMax)), ...objectIds])];
  if (ids.length > objectsMax) {
    throw invalid('request_invalid', [
      {
        type: 'too_large',
        location: ['body', 'object_ids'],
        message: `the batch would have ${ids.length} objects; at most ${objectsMax} are possible`,
        fix: 'make a second batch',
      },
    ]);
  }
  const key = batchKeys.objects(ctx, batch.batch_id, batch.revision + 1);
  await ctx.ports.blobs.put(key, JSON.stringify(ids), { contentType: 'application/json' });
  return change(
    ctx,
    batch,
    { objects_key: key, object_count: ids.length, progress: { ...batch.progress, total: ids.length } },
    [audit(ctx, 'batch.update', batch.batch_id)],
  );
}

/**
 * Lets a draft run.
 *
 * @throws AppError batch_wrong_state unless it is a draft, collection_not_found, collection_source_mismatch
 */
export async function submitBatch(ctx: NsCtx, bucketName: string, batchId: string): Promise<StoredBatch> {
  const batch = await getBatch(ctx, bucketName, batchId);
  // A repeated submit of the same batch is answered like the first one.
  if (batch.origin === 'draft' && (batch.status === 'PENDING' || batch.status === 'PROCESSING')) return batch;
  if (batch.status !== 'DRAFT') throw wrongState(batch, 'only a draft can be submitted');
  const collections = await chooseCollections(ctx, batch.bucket_id, batch.collection_ids);
  const time = isoTime(now(ctx));
  const next: StoredBatch = {
    ...batch,
    status: 'PENDING',
    lifecycle: 'accepted',
    collection_ids: collections.map((collection) => collection.id).sort(),
    submitted_at: time,
    request_id: ctx.requestId,
  };
  const { status, lifecycle, collection_ids, submitted_at, request_id } = next;
  return change(
    ctx,
    batch,
    {
      status,
      lifecycle,
      collection_ids,
      submitted_at,
      request_id,
      ...watchAttributes(jobOf(ctx, next), watchUntil(ctx)),
    },
    [...submission(ctx, next), audit(ctx, 'batch.submit', batch.batch_id)],
  );
}

/** @throws AppError batch_wrong_state */
export async function cancelBatch(ctx: NsCtx, bucketName: string, batchId: string): Promise<StoredBatch> {
  const batch = await getBatch(ctx, bucketName, batchId);
  await stopBatch(ctx, batch);
  await ctx.ports.table.write([audit(ctx, 'batch.cancel', batch.batch_id)]);
  // As it is stored now, so that the version of the answer is the one that a next change must name.
  return getBatch(ctx, bucketName, batchId);
}

export interface RetryOptions {
  readonly retry_mode?: 'all' | 'transient_only' | undefined;
  readonly max_failure_share?: number | undefined;
}

/**
 * Runs a failed batch again: what failed or left no result is run, what was good is taken as it is, and all of it is
 * committed together. Of a completed batch with failures the failed objects are run by a batch of their own.
 *
 * @throws AppError batch_wrong_state while it runs, or if nothing of it failed
 */
export async function retryBatch(
  ctx: NsCtx,
  bucketName: string,
  batchId: string,
  options: RetryOptions,
): Promise<StoredBatch> {
  const batch = await getBatch(ctx, bucketName, batchId);
  if (batch.status === 'COMPLETED') return retryCompleted(ctx, batch, options);
  if (batch.status !== 'FAILED' && batch.status !== 'CANCELED')
    throw wrongState(batch, 'only a batch that has ended can be tried again');
  const collections = await chooseCollections(ctx, batch.bucket_id, batch.collection_ids);
  for (const collection of collections) targetOf(batch, collection);
  const claim = batch.upgrade ? [await claimUpgrade(ctx, collections[0]!, batch)] : [];
  if (batch.plan !== null && !(await ctx.ports.blobs.head(batch.plan.plan_key))) {
    throw wrongState(
      batch,
      'its files have been removed since, as it failed long ago; trigger the bucket again',
    );
  }
  const time = isoTime(now(ctx));
  const next: StoredBatch = {
    ...batch,
    status: 'PENDING',
    lifecycle: 'accepted',
    attempt: batch.attempt + 1,
    retry_mode: options.retry_mode ?? 'all',
    max_failure_share: options.max_failure_share ?? batch.max_failure_share,
    submitted_at: time,
    request_id: ctx.requestId,
  };
  const { status, lifecycle, attempt, retry_mode, max_failure_share, submitted_at, request_id } = next;
  return change(
    ctx,
    batch,
    {
      status,
      lifecycle,
      attempt,
      retry_mode,
      max_failure_share,
      submitted_at,
      request_id,
      failure_reason: null,
      failure_detail: null,
      started_at: null,
      completed_at: null,
      ...watchAttributes(jobOf(ctx, next), watchUntil(ctx)),
    },
    [...submission(ctx, next), ...claim, audit(ctx, 'batch.retry', batch.batch_id)],
  );
}

/**
 * A batch over the objects that failed in a completed one, as they are now. What other batches have made of them since
 * is left out. The documents of the completed batch stay, whatever becomes of this one.
 *
 * A repetition while it runs is answered by the same batch.
 */
async function retryCompleted(ctx: NsCtx, batch: StoredBatch, options: RetryOptions): Promise<StoredBatch> {
  if ((batch.upgrade?.bucket_ids.length ?? 1) > 1) {
    throw wrongState(
      batch,
      'it ran over several buckets; trigger its collection: only objects that the new version has not done are run',
    );
  }
  const guardKey = ctx.ns.pendingTrigger(batch.bucket_id, `retry.${batch.batch_id}`);
  for (;;) {
    const guard = await ctx.ports.table.get(guardKey);
    const before = guard && (await findBatch(ctx, batch.bucket_id, String(guard.batch_id)));
    if (before && isActive(before)) return before;
    let count = 0;
    const collectionIds = new Set<string>();
    const objectIds = new Set<string>();
    try {
      for await (const failures of failureFiles(ctx, batch)) {
        count += failures.length;
        for (const { code, retryable, collection_id, object_id } of failures) {
          if (code === 'object_not_found' || (options.retry_mode === 'transient_only' && !retryable))
            continue;
          collectionIds.add(collection_id);
          objectIds.add(object_id);
        }
      }
    } catch (error) {
      if (!(error instanceof BlobMissing)) throw error;
      throw wrongState(
        batch,
        'its files have been removed since, as it ran long ago; trigger the bucket again',
      );
    }
    if (objectIds.size === 0) {
      throw wrongState(
        batch,
        count === 0 ? 'nothing of it failed' : 'nothing of what failed in it may pass without a change',
      );
    }
    const collections = await chooseCollections(ctx, batch.bucket_id, [...collectionIds]);
    const ids = [...objectIds];
    const base = newBatch(ctx, batch.bucket_id, collections.map(({ id }) => id).sort(), {
      // Each of them was tolerated when it failed among the others.
      max_failure_share: options.max_failure_share ?? 1,
      batch_name: batch.batch_name ?? undefined,
    });
    const key = batchKeys.objects(ctx, base.batch_id, 1);
    const next: StoredBatch = {
      ...base,
      objects_key: key,
      object_count: ids.length,
      retry_of: batch.batch_id,
    };
    await ctx.ports.blobs.put(key, JSON.stringify(ids), { contentType: 'application/json' });
    crash('batch.retry.before_write');
    try {
      await ctx.ports.table.write([
        {
          put: { ...batchItem(ctx, next), ...watchAttributes(jobOf(ctx, next), watchUntil(ctx)) },
          if: [{ absent: true }],
        },
        {
          put: { ...guardKey, batch_id: next.batch_id },
          if: [guard ? { attribute: 'batch_id', eq: String(guard.batch_id) } : { absent: true }],
        },
        taskOf(ctx, next, 'api_buckets_batches_retry'),
        ...submission(ctx, next),
        audit(ctx, 'batch.retry', batch.batch_id),
      ]);
      return next;
    } catch (error) {
      if (!(error instanceof ConditionFailed)) throw error;
      const own = error.of(0)?.item;
      if (own) return toBatch(own);
    }
  }
}

/** The failures of a batch's newest planned attempt, in the order of its chunks, at most 10,000. */
export async function listFailures(ctx: NsCtx, batch: StoredBatch): Promise<RowFailure[]> {
  try {
    const found: RowFailure[] = [];
    for await (const failures of failureFiles(ctx, batch)) {
      found.push(...failures);
      if (found.length < scanRowsMax) continue;
      ctx.warnings.push(`Only the first ${scanRowsMax} failures are listed.`);
      return found.slice(0, scanRowsMax);
    }
    return found;
  } catch (error) {
    if (!(error instanceof BlobMissing)) throw error;
    ctx.warnings.push('The files of this batch have expired, and its list of failures with them.');
    return [];
  }
}

/** Those of the plan, then those of each chunk; one list at a time, since all of them may be much. @throws BlobMissing */
async function* failureFiles(ctx: NsCtx, batch: StoredBatch): AsyncGenerator<readonly RowFailure[]> {
  if (batch.plan === null) return;
  yield (await getJson<PlanFile>(ctx.ports.blobs, batch.plan.plan_key)).failures;
  for (const { failures_key } of await listReceipts(ctx, batch.batch_id, batch.plan.attempt))
    if (failures_key !== undefined) yield getJson<RowFailure[]>(ctx.ports.blobs, failures_key);
}
