// The transitions of a batch: admitted, planned, committed, finished or failed. Each is one transaction and safe to
// repeat; whatever dies in between is picked up where it stopped (architecture, section 12; decisions, section 1).
import { requestSync } from '../../backends/index-tasks.ts';
import { isoTime } from '../../clock.ts';
import type { NsCtx } from '../../context.ts';
import { now } from '../../context.ts';
import { crash } from '../../crash.ts';
import type { ErrorCode } from '../../errors.ts';
import { AppError, isAppError } from '../../errors.ts';
import type { EventType } from '../../events.ts';
import { BlobMissing, getJson } from '../../store/blobs.ts';
import { announce } from '../../store/outbox.ts';
import type { Attribute, Key, Write } from '../../store/table.ts';
import { ConditionFailed } from '../../store/table.ts';
import {
  abortSequence,
  commitIndex,
  type IndexChange,
  readHeads,
  SequenceLost,
} from '../../store/vector-index.ts';
import type { StoredCollection } from '../collections/service.ts';
import { countDocuments, findCollection, listCollections } from '../collections/service.ts';
import type { Receipt } from '../documents/service.ts';
import { listReceipts, readOutcomes } from '../documents/service.ts';
import { findPlugin, isDeployed } from '../plugins/service.ts';
import { finishChunk } from './chunk.ts';
import type { PlanFile } from './files.ts';
import { batchKeys } from './files.ts';
import { noteLifecycle } from './lifecycle.ts';
import { batchMs, runningBatch } from './plan.ts';
import type { BatchJob, BatchStatus, PostProcessing, Progress, StoredBatch } from './store.ts';
import {
  documentsMax,
  findBatch,
  isActive,
  isCommitted,
  jobOf,
  lostMessageMs,
  runningMax,
  watchAttributes,
  watchMembers,
  watchUntil,
} from './store.ts';
import { cutOverOf, targetOf } from './upgrade.ts';

export { runChunk } from './chunk.ts';
export type { ChunkPointer } from './files.ts';
export type { PlanResult } from './plan.ts';
export { planBatch } from './plan.ts';
export type { BatchJob } from './store.ts';

/** A plugin may be deployed this long after the batch was asked for (API rules, section 8). */
const deployMs = 5 * 60_000;
/** A lock is dead when its batch must have ended long ago. */
const lockMs = batchMs + 15 * 60_000;
const writeTries = 20;

/** A sum over the receipts of an attempt; never a counter, so that no repetition can count twice. */
export interface Tally {
  readonly progress: Progress;
  readonly errors: Readonly<Record<string, number>>;
}

/** @param failures of the plan itself, by code */
export function tallyOf(
  batch: StoredBatch,
  receipts: readonly Receipt[],
  failures: PlanFile['failures'] = [],
): Tally {
  const errors: Record<string, number> = {};
  const add = (code: string, count: number) => {
    errors[code] = (errors[code] ?? 0) + count;
  };
  let processed = 0;
  let failed = batch.plan?.failed ?? 0;
  let skipped = batch.plan?.skipped ?? 0;
  for (const receipt of receipts) {
    processed += receipt.counts.processed;
    failed += receipt.counts.failed;
    skipped += receipt.counts.skipped;
    for (const [code, count] of Object.entries(receipt.errors)) add(code, count);
  }
  for (const failure of failures) add(failure.code, 1);
  // A draft knows its objects before it is planned.
  return {
    progress: { total: batch.plan?.total ?? batch.progress.total, processed, failed, skipped },
    errors,
  };
}

/** The receipts of the attempt that the batch's plan belongs to. */
export async function receiptsOf(ctx: NsCtx, batch: StoredBatch): Promise<Receipt[]> {
  if (batch.plan === null || batch.plan.attempt !== batch.attempt) return [];
  return listReceipts(ctx, batch.batch_id, batch.attempt);
}

const batchKey = (ctx: NsCtx, batch: StoredBatch) => ctx.ns.batch(batch.bucket_id, batch.batch_id);

/** The change of a batch from the state that was read. */
function batchWrite(
  ctx: NsCtx,
  batch: StoredBatch,
  set: Record<string, Attribute>,
  remove: readonly string[] = [],
): Write {
  return {
    update: batchKey(ctx, batch),
    set: { ...set, updated_at: isoTime(now(ctx)), revision: batch.revision + 1 },
    ...(remove.length > 0 ? { remove } : {}),
    if: [{ attribute: 'revision', eq: batch.revision }],
  };
}

const slots = (ctx: NsCtx) => Array.from({ length: runningMax }, (_, place) => ctx.ns.runningSlot(place));

/**
 * A place for a batch among those of its namespace that run: its own, a free one, or that of a batch that must have
 * ended long ago; undefined: all are taken.
 */
async function slotFor(ctx: NsCtx, batch: StoredBatch): Promise<Key | undefined> {
  const keys = slots(ctx);
  const rows = await ctx.ports.table.getMany(keys);
  const own = rows.findIndex((row) => row?.batch_id === batch.batch_id);
  const free = rows.findIndex((row) => !row || String(row.until) < isoTime(now(ctx)));
  return keys[own >= 0 ? own : free];
}

/** The writes that give back those of the batch's locks that it still holds. */
async function unlock(ctx: NsCtx, batch: StoredBatch): Promise<Write[]> {
  const keys = [...batch.collection_ids.map((id) => ctx.ns.running(id)), ...slots(ctx)];
  const locks = await ctx.ports.table.getMany(keys);
  return keys
    .filter((_, i) => locks[i]?.batch_id === batch.batch_id && locks[i]?.attempt === batch.attempt)
    .map(
      (key): Write => ({
        delete: key,
        if: [
          { attribute: 'batch_id', eq: batch.batch_id },
          { attribute: 'attempt', eq: batch.attempt },
        ],
      }),
    );
}

/** Why a batch ended without making anything visible. */
export interface Failure {
  readonly reason: string;
  readonly detail: string;
}

/** Ends a batch that did not commit: status, sequences, locks and event in one transaction. */
async function end(
  ctx: NsCtx,
  job: BatchJob,
  status: Extract<BatchStatus, 'FAILED' | 'CANCELED'> | ((batch: StoredBatch) => 'FAILED' | 'CANCELED'),
  failure: Failure,
  from: (batch: StoredBatch) => boolean,
): Promise<StoredBatch | undefined> {
  for (let attempt = 0; attempt < writeTries; attempt++) {
    const batch = await findBatch(ctx, job.bucket_id, job.batch_id);
    if (!batch || batch.attempt !== job.attempt || !from(batch)) return undefined;
    const to = typeof status === 'function' ? status(batch) : status;
    const { progress, errors } = tallyOf(batch, await receiptsOf(ctx, batch));
    const heads = await readHeads(ctx, batch.collection_ids);
    const aborts = heads
      .map((head) => abortSequence(ctx, head, batch))
      .filter((write) => write !== undefined);
    const pending =
      batch.trigger_digest === null
        ? undefined
        : ctx.ns.pendingTrigger(batch.bucket_id, batch.trigger_digest);
    const guard = pending && (await ctx.ports.table.get(pending));
    const time = isoTime(now(ctx));
    const ended = {
      status: to,
      lifecycle: 'finished' as const,
      progress,
      error_summary: errors,
      failure_reason: failure.reason,
      failure_detail: failure.detail.slice(0, 1_000),
      completed_at: time,
    };
    const event: EventType = to === 'CANCELED' ? 'batch.canceled' : 'batch.failed';
    const metadata = {
      bucket_id: batch.bucket_id,
      attempt: batch.attempt,
      status: to,
      failure_reason: failure.reason,
    };
    const cause = `${batch.attempt}`;
    try {
      await ctx.ports.table.write([
        batchWrite(ctx, batch, { ...ended, progress: { ...progress } }, [
          ...watchMembers,
          'lifecycle_reason',
        ]),
        ...aborts,
        ...(await unlock(ctx, batch)),
        announce(ctx, event, { type: 'batch', id: batch.batch_id }, cause, metadata),
        // A triggered batch that was cancelled is FAILED, and yet it is news to whoever listens for cancellations.
        ...(failure.reason === 'canceled' && to === 'FAILED'
          ? [announce(ctx, 'batch.canceled', { type: 'batch', id: batch.batch_id }, cause, metadata)]
          : []),
        ...(pending && guard?.batch_id === batch.batch_id
          ? [{ delete: pending, if: [{ attribute: 'batch_id', eq: batch.batch_id }] } satisfies Write]
          : []),
      ]);
      return { ...batch, ...ended };
    } catch (error) {
      if (!(error instanceof ConditionFailed)) throw error;
    }
  }
  throw new AppError('index_contended', {
    detail: `The batch ${job.batch_id} is being changed by too many at once.`,
    retryAfterSeconds: 1,
  });
}

/** What the starter does with a job: start its workflow, put it back for a while, or forget it. */
export type Admission = 'start' | 'wait' | 'drop';

/**
 * Decides whether a batch may start now. `start` means that it holds the locks of all of its collections.
 *
 * Needs no rights but those on the table. A batch past its deadline, or whose plugin was not deployed in time, is
 * failed here; the sweeper sends such jobs again.
 */
export async function admitBatch(ctx: NsCtx, job: BatchJob): Promise<Admission> {
  const batch = await findBatch(ctx, job.bucket_id, job.batch_id);
  if (!batch || batch.attempt !== job.attempt || !isActive(batch)) return 'drop';
  const nowMs = now(ctx);
  if (batch.status === 'PROCESSING') {
    if (batch.started_at !== null && Date.parse(batch.started_at) + batchMs <= nowMs)
      await expireBatch(ctx, job);
    return 'drop';
  }
  const fail = async (reason: ErrorCode, detail: string): Promise<Admission> => {
    await end(ctx, job, 'FAILED', { reason, detail }, (found) => found.status === 'PENDING');
    return 'drop';
  };
  const collections: StoredCollection[] = [];
  for (const id of batch.collection_ids) {
    const collection = await findCollection(ctx, id);
    if (!collection)
      return fail('collection_not_found', `The collection ${id} was deleted before the batch began.`);
    try {
      collections.push(targetOf(batch, collection));
    } catch (error) {
      if (!isAppError(error, 'batch_wrong_state')) throw error;
      return fail('batch_wrong_state', error.detail);
    }
  }
  for (const pluginId of new Set(collections.flatMap((c) => c.feature_extractors.map((e) => e.plugin_id)))) {
    const plugin = await findPlugin(ctx, pluginId);
    if (plugin && isDeployed(plugin)) continue;
    const waitedMs = nowMs - Date.parse(batch.submitted_at ?? batch.created_at);
    if (waitedMs < deployMs) return wait(ctx, job, batch, `waits for the plugin ${pluginId} to be deployed`);
    return fail(
      'plugin_not_deployed',
      `The plugin ${pluginId} was not deployed within ${deployMs / 60_000} minutes. Deploy it, then retry the batch.`,
    );
  }
  const lockUntil = isoTime(nowMs + lockMs);
  const slot = await slotFor(ctx, batch);
  if (!slot) {
    return wait(ctx, job, batch, `waits for one of the ${runningMax} batches of this namespace that run`);
  }
  const locks = [...batch.collection_ids.map((id) => ctx.ns.running(id)), slot].map(
    (key): Write => ({
      put: {
        ...key,
        batch_id: batch.batch_id,
        bucket_id: batch.bucket_id,
        attempt: batch.attempt,
        until: lockUntil,
      },
      if: [
        {
          anyOf: [
            { absent: true },
            {
              allOf: [
                { attribute: 'batch_id', eq: batch.batch_id },
                { attribute: 'attempt', eq: batch.attempt },
              ],
            },
            // Its batch must have ended long ago; what it left open is aborted when this one takes its sequence.
            { attribute: 'until', lt: isoTime(nowMs) },
          ],
        },
      ],
    }),
  );
  try {
    await ctx.ports.table.write([
      // Looked at again soon: the workflow may not have been started, if this process dies now.
      batchWrite(ctx, batch, { lifecycle: 'admitted', ...watchAttributes(job, watchUntil(ctx)) }, [
        'lifecycle_reason',
      ]),
      ...locks,
    ]);
    crash('batch.admit.after_locks');
    return 'start';
  } catch (error) {
    if (!(error instanceof ConditionFailed)) throw error;
    const busy = error.failures.find(({ index }) => index > 0 && index <= batch.collection_ids.length);
    // Somebody changed the batch, or took the place, just now; the next look sees what it is.
    if (!busy) return 'wait';
    return wait(
      ctx,
      job,
      batch,
      `waits for the batch ${String(busy.item?.batch_id ?? 'before it')} of the same collection`,
    );
  }
}

async function wait(ctx: NsCtx, job: BatchJob, batch: StoredBatch, reason: string): Promise<Admission> {
  if (
    batch.lifecycle === 'queued' &&
    batch.lifecycle_reason === reason &&
    Date.parse(batch.updated_at) + lostMessageMs / 2 > now(ctx)
  ) {
    return 'wait';
  }
  try {
    await ctx.ports.table.write([
      batchWrite(ctx, batch, {
        lifecycle: 'queued',
        lifecycle_reason: reason,
        ...watchAttributes(job, watchUntil(ctx)),
      }),
    ]);
  } catch (error) {
    if (!(error instanceof ConditionFailed)) throw error;
  }
  return 'wait';
}

/** Fails a batch whose time is over; one that committed is finished instead, since its documents can be seen. */
export async function expireBatch(ctx: NsCtx, job: BatchJob): Promise<void> {
  const batch = await findBatch(ctx, job.bucket_id, job.batch_id);
  if (batch && batch.attempt === job.attempt && isCommitted(batch)) {
    return finishBatch(ctx, job, [
      {
        step: 'finish',
        id: null,
        status: 'failed',
        error: 'batch_deadline',
        message: 'The steps after the commit did not end in time.',
      },
    ]);
  }
  const detail = `The batch did not finish within ${batchMs / 3_600_000} hours.`;
  await end(ctx, job, 'FAILED', { reason: 'batch_deadline', detail }, isActive);
}

/** What the steps after the commit are told. */
export interface CommitResult {
  readonly committed: boolean;
  readonly collection_ids: readonly string[];
  readonly documents: number;
}

/** The share of failed objects that a collection's batch may have. */
function toleratedShare(batch: StoredBatch, collection: StoredCollection | undefined): number {
  return batch.max_failure_share ?? collection?.max_failure_share ?? 0;
}

/**
 * Makes everything that the batch produced visible at once, in all of its collections, or nothing.
 *
 * Counts the receipts against the plan first: each planned object has a document, a recorded failure, a skip, or gave
 * no output. Rows that a worker left unwritten are written here.
 *
 * @throws AppError batch_chunks_missing, batch_too_many_failures, batch_wrong_state (cancelled, taken over),
 *   collection_not_found, quota_exceeded (documents), index_contended
 */
export async function commitBatch(
  ctx: NsCtx,
  job: BatchJob,
  limits: { readonly documentsMax: number } = { documentsMax },
): Promise<CommitResult> {
  const batch = await runningBatch(ctx, job);
  const receipts = await receiptsOf(ctx, batch);
  const documents = receipts.reduce((sum, receipt) => sum + receipt.counts.documents, 0);
  const result: CommitResult = { committed: true, collection_ids: batch.collection_ids, documents };
  if (isCommitted(batch)) return result;
  await noteLifecycle(ctx, job, 'committing');
  if (batch.plan === null || batch.plan.attempt !== job.attempt) {
    throw new AppError('batch_chunks_missing', { detail: 'The batch has no plan.' });
  }
  const plan = await getJson<PlanFile>(ctx.ports.blobs, batch.plan.plan_key);
  const byChunk = new Map(receipts.map((receipt) => [receipt.chunk, receipt]));
  const missing = plan.chunks.filter((pointer) => !byChunk.has(pointer.chunk));
  if (missing.length > 0) {
    const first = missing
      .slice(0, 5)
      .map((pointer) => pointer.chunk)
      .join(', ');
    throw new AppError('batch_chunks_missing', {
      detail: `${missing.length} of ${plan.chunks.length} chunks left no result (${first}). Retry the batch: only what is missing runs again.`,
    });
  }
  await checkShares(ctx, batch, plan, receipts);
  for (const pointer of plan.chunks) {
    if (!byChunk.get(pointer.chunk)!.rows_written)
      await finishChunk(ctx, pointer, byChunk.get(pointer.chunk)!);
  }
  const written = await receiptsOf(ctx, batch);
  const { progress, errors } = tallyOf(batch, written, plan.failures);
  if (progress.processed + progress.failed + progress.skipped !== progress.total) {
    throw new AppError('batch_chunks_missing', {
      detail: `Of ${progress.total} planned objects only ${progress.processed + progress.failed + progress.skipped} are accounted for.`,
    });
  }
  const outcomes = await readOutcomes(ctx, written);
  const changes = batch.collection_ids.map(
    (collectionId): IndexChange => ({
      collection_id: collectionId,
      additions: written.flatMap((receipt, i) =>
        receipt.collection_id === collectionId ? outcomes[i]!.segments : [],
      ),
      document_delta: written.reduce(
        (sum, r) => sum + (r.collection_id === collectionId ? r.document_delta : 0),
        0,
      ),
      sequence: { batch_id: batch.batch_id, attempt: batch.attempt },
    }),
  );
  await checkDocuments(
    ctx,
    changes.reduce((sum, change) => sum + change.document_delta, 0),
    limits.documentsMax,
  );
  crash('batch.commit.before');
  for (let attempt = 0; attempt < writeTries; attempt++) {
    const current = await runningBatch(ctx, job);
    if (isCommitted(current)) return result;
    const cutOver = batch.upgrade && (await cutOverOf(ctx, batch.upgrade));
    const wanted =
      cutOver === undefined
        ? changes
        : changes.map((change) =>
            change.collection_id === batch.upgrade!.collection_id
              ? { ...change, drop: cutOver.drop }
              : change,
          );
    try {
      await commitIndex(ctx, wanted, {
        token: `${batch.batch_id}.${batch.attempt}`,
        crashPoint: 'batch.commit',
        writes: [
          ...(cutOver?.writes ?? []),
          batchWrite(ctx, current, {
            committed_attempt: batch.attempt,
            lifecycle: 'enriching',
            progress: { ...progress },
            error_summary: errors,
          }),
          ...(await requestSync(ctx, batch.collection_ids)),
          ...changes
            .filter((change) =>
              written.some((r) => r.collection_id === change.collection_id && r.counts.documents > 0),
            )
            .map((change) =>
              announce(
                ctx,
                'collection.documents.written',
                { type: 'collection', id: change.collection_id },
                `${batch.batch_id}.${batch.attempt}`,
                {
                  batch_id: batch.batch_id,
                  documents: written.reduce(
                    (sum, r) => sum + (r.collection_id === change.collection_id ? r.counts.documents : 0),
                    0,
                  ),
                },
              ),
            ),
        ],
      });
      return result;
    } catch (error) {
      if (error instanceof SequenceLost) {
        const after = await findBatch(ctx, job.bucket_id, job.batch_id);
        if (after && isCommitted(after)) return result;
        throw new AppError('batch_wrong_state', {
          detail: 'Another batch has taken over the collection; nothing was committed.',
          cause: error,
        });
      }
      // The batch changed since it was read: cancelled, which `runningBatch` tells, or only looked at by the sweeper.
      if (!(error instanceof ConditionFailed)) throw error;
    }
  }
  throw new AppError('index_contended', {
    detail: `The batch ${job.batch_id} is being changed by too many at once.`,
    retryAfterSeconds: 1,
  });
}

/**
 * Counts the documents of the namespace where a batch adds some. Batches that commit at the same moment may pass the
 * limit together, once.
 *
 * @throws AppError quota_exceeded
 */
async function checkDocuments(ctx: NsCtx, added: number, max: number): Promise<void> {
  if (added <= 0) return;
  const counts = await countDocuments(ctx, await listCollections(ctx));
  const there = counts.reduce((sum, count) => sum + count, 0);
  if (there + added <= max) return;
  throw new AppError('quota_exceeded', {
    detail: `A namespace holds at most ${max} documents. It has ${there}, and the batch would add ${added}: delete some, or use another namespace.`,
  });
}

/** @throws AppError batch_too_many_failures */
async function checkShares(
  ctx: NsCtx,
  batch: StoredBatch,
  plan: PlanFile,
  receipts: readonly Receipt[],
): Promise<void> {
  for (const id of batch.collection_ids) {
    const collection = await findCollection(ctx, id);
    const own = receipts.filter((receipt) => receipt.collection_id === id);
    const unrunnable = new Set(
      plan.failures.filter((failure) => failure.collection_id === id).map((failure) => failure.object_id),
    ).size;
    const failed = own.reduce((sum, receipt) => sum + receipt.counts.failed, unrunnable);
    const tried = own.reduce((sum, receipt) => sum + receipt.counts.processed, failed);
    const share = toleratedShare(batch, collection);
    if (failed === 0 || failed / tried <= share) continue;
    const codes = Object.entries(tallyOf(batch, own).errors).sort((a, b) => b[1] - a[1]);
    throw new AppError('batch_too_many_failures', {
      detail: `${failed} of ${tried} objects failed in ${collection?.name ?? id}, more than the tolerated ${Math.round(share * 100)} %. Most frequent: ${codes
        .slice(0, 3)
        .map(([code, count]) => `${code} (${count})`)
        .join(', ')}. See .../batches/${batch.batch_id}/failures.`,
    });
  }
}

/** Says that the batch is done. Its documents are visible since the commit; what failed afterwards is listed. */
export async function finishBatch(
  ctx: NsCtx,
  job: BatchJob,
  postProcessing: readonly PostProcessing[] = [],
): Promise<void> {
  for (let attempt = 0; attempt < writeTries; attempt++) {
    const batch = await findBatch(ctx, job.bucket_id, job.batch_id);
    if (!batch || batch.attempt !== job.attempt || batch.status !== 'PROCESSING') return;
    if (!isCommitted(batch))
      throw new AppError('batch_wrong_state', {
        detail: `The batch ${job.batch_id} has not been committed.`,
      });
    crash('batch.finish.before');
    const time = isoTime(now(ctx));
    const { total, processed, failed, skipped } = batch.progress;
    const metadata = {
      bucket_id: batch.bucket_id,
      attempt: batch.attempt,
      status: 'COMPLETED',
      progress: { total, processed, failed, skipped },
      collection_ids: batch.collection_ids,
    };
    try {
      await ctx.ports.table.write([
        batchWrite(
          ctx,
          batch,
          {
            status: 'COMPLETED',
            lifecycle: 'finished',
            completed_at: time,
            post_processing: postProcessing
              .slice(0, 50)
              .map((one) => ({ ...one, message: one.message.slice(0, 500) })),
          },
          [...watchMembers, 'lifecycle_reason'],
        ),
        ...(await unlock(ctx, batch)),
        announce(ctx, 'batch.completed', { type: 'batch', id: batch.batch_id }, batch.attempt, metadata),
        ...batch.collection_ids.map((id) =>
          announce(
            ctx,
            'collection.documents.batch_completed',
            { type: 'collection', id },
            `${batch.batch_id}.${batch.attempt}`,
            {
              ...metadata,
              batch_id: batch.batch_id,
            },
          ),
        ),
      ]);
      crash('batch.finish.after');
      return;
    } catch (error) {
      if (!(error instanceof ConditionFailed)) throw error;
    }
  }
  throw new AppError('index_contended', {
    detail: `The batch ${job.batch_id} is being changed by too many at once.`,
    retryAfterSeconds: 1,
  });
}

/**
 * Ends a batch that could not commit, and keeps its good results for a retry. Called for a batch that has ended
 * already it only keeps; for one that has committed it finishes, since its documents can be seen.
 */
export async function failBatch(ctx: NsCtx, job: BatchJob, failure: Failure): Promise<void> {
  const batch = await findBatch(ctx, job.bucket_id, job.batch_id);
  if (!batch || batch.attempt !== job.attempt) return;
  if (isActive(batch) && isCommitted(batch)) {
    return finishBatch(ctx, job, [
      { step: 'finish', id: null, status: 'failed', error: failure.reason, message: failure.detail },
    ]);
  }
  if (isActive(batch))
    await end(ctx, job, 'FAILED', failure, (found) => isActive(found) && !isCommitted(found));
  crash('batch.fail.after_state');
  await keepResults(ctx, batch);
}

/** Copies the segments of a failed attempt to where they stay for days: the index bucket sweeps what nobody names. */
async function keepResults(ctx: NsCtx, batch: StoredBatch): Promise<void> {
  const { blobs, index } = ctx.ports;
  const receipts = await receiptsOf(ctx, batch);
  for (const outcome of await readOutcomes(ctx, receipts)) {
    await Promise.all(
      outcome.segments.map(async ({ segment }) => {
        const key = batchKeys.kept(ctx, batch.batch_id, batch.attempt, segment.key);
        if (await blobs.head(key)) return;
        try {
          await blobs.put(key, await index.get(segment.key), { contentType: 'application/octet-stream' });
        } catch (error) {
          // Swept already: a retry then runs these rows again.
          if (!(error instanceof BlobMissing)) throw error;
        }
      }),
    );
  }
}

/**
 * Stops a batch: nothing of it becomes visible after the answer.
 *
 * @throws AppError batch_wrong_state when it has ended, or has been committed
 */
export async function stopBatch(ctx: NsCtx, batch: StoredBatch): Promise<StoredBatch> {
  const stopped = await end(
    ctx,
    jobOf(ctx, batch),
    (found) => (found.origin === 'draft' ? 'CANCELED' : 'FAILED'),
    { reason: 'canceled', detail: 'The batch was cancelled by a request.' },
    (found) => (isActive(found) || found.status === 'DRAFT') && !isCommitted(found),
  );
  if (stopped) return stopped;
  const found = await findBatch(ctx, batch.bucket_id, batch.batch_id);
  throw new AppError('batch_wrong_state', {
    detail:
      found && isActive(found)
        ? 'The documents of this batch are visible already; it can no longer be cancelled.'
        : `The batch is ${found?.status ?? 'gone'} and cannot be cancelled.`,
  });
}
