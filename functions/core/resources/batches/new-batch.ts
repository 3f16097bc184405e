// A batch that is being asked for: its row, its task, and the writes that make it run.
import { isoTime } from '../../clock.ts';
import type { NsCtx } from '../../context.ts';
import { now } from '../../context.ts';
import { newId } from '../../ids.ts';
import { announce, enqueue } from '../../store/outbox.ts';
import type { Write } from '../../store/table.ts';
import { createTask } from '../tasks/service.ts';
import type { DedupStrategy, StoredBatch } from './store.ts';
import { jobOf } from './store.ts';

export interface BatchOptions {
  readonly dedup_strategy?: DedupStrategy | undefined;
  readonly max_failure_share?: number | undefined;
  readonly batch_name?: string | undefined;
  readonly metadata?: StoredBatch['metadata'] | undefined;
}

export function newBatch(
  ctx: NsCtx,
  bucketId: string,
  collectionIds: readonly string[],
  options: BatchOptions,
): StoredBatch {
  const time = isoTime(now(ctx));
  return {
    batch_id: newId('batch', ctx.ports.clock, ctx.ports.random),
    bucket_id: bucketId,
    batch_name: options.batch_name ?? null,
    origin: 'trigger',
    status: 'PENDING',
    lifecycle: 'accepted',
    lifecycle_reason: null,
    collection_ids: collectionIds,
    dedup_strategy: options.dedup_strategy ?? 'skip',
    max_failure_share: options.max_failure_share ?? null,
    objects_key: null,
    object_count: 0,
    attempt: 1,
    sequences: {},
    plan: null,
    committed_attempt: null,
    progress: { total: 0, processed: 0, failed: 0, skipped: 0 },
    error_summary: {},
    failure_reason: null,
    failure_detail: null,
    post_processing: [],
    task_id: newId('task', ctx.ports.clock, ctx.ports.random),
    request_id: ctx.requestId,
    trigger_digest: null,
    retry_mode: 'all',
    metadata: options.metadata ?? {},
    revision: 1,
    created_at: time,
    updated_at: time,
    submitted_at: time,
    started_at: null,
    completed_at: null,
  };
}

/** The writes that make a batch run: its job for the starter, and the event. */
export function submission(ctx: NsCtx, batch: StoredBatch): Write[] {
  const job = jobOf(ctx, batch);
  return [
    enqueue(ctx, job, `${batch.batch_id}-${batch.attempt}`),
    announce(ctx, 'batch.submitted', { type: 'batch', id: batch.batch_id }, batch.attempt, {
      bucket_id: batch.bucket_id,
      collection_ids: batch.collection_ids,
      attempt: batch.attempt,
    }),
  ];
}

/** The write of the task that stands for a batch. */
export function taskOf(
  ctx: NsCtx,
  batch: StoredBatch,
  type:
    | 'api_buckets_batches_process'
    | 'api_collections_trigger'
    | 'api_collections_upgrade'
    | 'api_buckets_batches_submit'
    | 'api_buckets_batches_retry',
): Write {
  return createTask(ctx, {
    task_id: batch.task_id,
    task_type: type,
    namespace_id: ctx.ns.namespaceId,
    target: { kind: 'batch', bucket_id: batch.bucket_id, batch_id: batch.batch_id },
  });
}
