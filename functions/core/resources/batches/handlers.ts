// Requests about batches -> service calls -> replies.
import type { NsCtx } from '../../context.ts';
import type { Handlers } from '../../http/handler.ts';
import { Answer } from '../../http/handler.ts';
import type { ListInput } from '../../page.ts';
import { mergeListInput, pageOfAll } from '../../page.ts';
import { boundedPage } from './bounded-page.ts';
import type { Batch, BatchLog, Failure, routes } from './contract.ts';
import type { LogEntry, RowFailure, StoredBatch } from './service.ts';
import {
  addObjects,
  cancelBatch,
  draftBatch,
  getBatch,
  listBatches,
  listBatchLogs,
  listFailures,
  listPluginLogs,
  objectIdsOf,
  retryBatch,
  submitBatch,
  triggerBucket,
  triggerCollection,
  upgradeCollection,
  withProgress,
} from './service.ts';

const objectIdsShown = 1_000;

function toBatch(ctx: NsCtx, stored: StoredBatch, objectIds: string[] = []): Batch {
  const { total, processed, failed, skipped } = stored.progress;
  const done = processed + failed + skipped;
  return {
    batch_id: stored.batch_id,
    bucket_id: stored.bucket_id,
    namespace_id: ctx.ns.namespaceId,
    batch_name: stored.batch_name,
    type: 'BUCKET',
    status: stored.status,
    lifecycle: stored.lifecycle,
    lifecycle_reason: stored.lifecycle_reason ?? null,
    collection_ids: [...stored.collection_ids],
    object_ids: objectIds,
    object_count: stored.object_count,
    dedup_strategy: stored.dedup_strategy,
    max_failure_share: stored.max_failure_share,
    progress: {
      total,
      processed,
      failed,
      skipped,
      percent: total > 0 ? Math.round((1000 * done) / total) / 10 : stored.status === 'COMPLETED' ? 100 : 0,
    },
    error_summary: { ...stored.error_summary },
    failed_object_count: failed,
    failure_reason: stored.failure_reason,
    error: stored.failure_detail,
    post_processing: stored.post_processing.map((one) => ({ ...one })),
    task_id: stored.task_id,
    retry_of: stored.retry_of ?? null,
    upgrade: stored.upgrade
      ? {
          from_feature_extractor_id: stored.upgrade.from_plugin_id,
          feature_extractor_id: stored.upgrade.extractor.plugin_id,
          feature_aliases: { ...stored.upgrade.renamed },
          bucket_ids: [...stored.upgrade.bucket_ids],
        }
      : null,
    attempt: stored.attempt,
    request_id: stored.request_id,
    metadata: stored.metadata as Batch['metadata'],
    version: stored.revision,
    created_at: stored.created_at,
    updated_at: stored.updated_at,
    submitted_at: stored.submitted_at,
    started_at: stored.started_at,
    completed_at: stored.completed_at,
  };
}

const answer = (ctx: NsCtx, stored: StoredBatch) =>
  new Answer(toBatch(ctx, stored), { etag: stored.revision });

interface Wanted {
  readonly status?: string | null | undefined;
  readonly collection_id?: string | null | undefined;
}

async function page(ctx: NsCtx, bucket: string, input: ListInput, wanted: Wanted = {}) {
  const found = (await listBatches(ctx, bucket))
    .filter((batch) => !wanted.status || batch.status === wanted.status)
    .filter((batch) => !wanted.collection_id || batch.collection_ids.includes(wanted.collection_id));
  const running = await Promise.all(found.map((batch) => withProgress(ctx, batch)));
  const name = `batches ${bucket} ${wanted.status ?? ''} ${wanted.collection_id ?? ''}`;
  return pageOfAll(
    ctx,
    name,
    running.map((batch) => toBatch(ctx, batch)),
    input,
    ['batch_id', 'batch_name', 'status'],
  );
}

function toFailure(stored: RowFailure): Failure {
  return {
    ...stored,
    traceback: stored.traceback ?? null,
    error: stored.message,
    error_type: stored.retryable ? 'transient' : 'permanent',
  };
}

function toLog({ key: _, failures_key: __, ...entry }: LogEntry): BatchLog {
  return {
    ...entry,
    plugin_id: entry.feature_extractor_id,
    warnings: [...entry.warnings],
    failures: entry.failures.map(({ object_id, property, code, message, traceback }) => ({
      object_id,
      property,
      code,
      message,
      traceback: traceback ?? null,
    })),
    timings: { ...entry.timings },
  };
}

/** Options of a body without the members that were left out. */
function optionsOf(body: {
  dedup_strategy?: unknown;
  max_failure_share?: unknown;
  batch_name?: unknown;
  metadata?: unknown;
}) {
  const { dedup_strategy, max_failure_share, batch_name, metadata } = body;
  return { dedup_strategy, max_failure_share, batch_name, metadata } as Parameters<typeof triggerBucket>[3];
}

export const handlers: Handlers<typeof routes> = {
  triggerBatch: async ({ ctx, params, body }) =>
    answer(ctx, await triggerBucket(ctx, params.bucket!, body.collection_ids ?? undefined, optionsOf(body))),
  triggerCollection: async ({ ctx, params, body }) => {
    const { collection, batches } = await triggerCollection(
      ctx,
      params.collection!,
      body.include_buckets ?? undefined,
      optionsOf(body),
    );
    const [first] = batches;
    return {
      batch_id: first!.batch_id,
      batch_ids: batches.map((batch) => batch.batch_id),
      task_id: first!.task_id,
      task_ids: batches.map((batch) => batch.task_id),
      collection_id: collection.id,
      source_bucket_ids: batches.map((batch) => batch.bucket_id),
      status: first!.status,
      total_tiers: 1 as const,
      message:
        batches.length === 1
          ? 'One batch was asked for.'
          : `${batches.length} batches were asked for, one for each bucket.`,
    };
  },
  createBatch: async ({ ctx, params, body }) => {
    const batch = await draftBatch(
      ctx,
      params.bucket!,
      body.object_ids,
      body.collection_ids ?? undefined,
      optionsOf(body),
    );
    return new Answer(toBatch(ctx, batch, await objectIdsOf(ctx, batch, objectIdsShown)), {
      etag: batch.revision,
    });
  },
  listBatches: ({ ctx, params, query }) => page(ctx, params.bucket!, query),
  searchBatches: ({ ctx, params, query, body }) =>
    page(ctx, params.bucket!, mergeListInput(query, body), body),
  getBatch: async ({ ctx, params }) => {
    const batch = await withProgress(ctx, await getBatch(ctx, params.bucket!, params.batch!));
    const ids = batch.status === 'DRAFT' ? await objectIdsOf(ctx, batch, objectIdsShown) : [];
    return new Answer(toBatch(ctx, batch, ids), { etag: batch.revision });
  },
  listBatchFailures: async ({ ctx, params, query }) => {
    const batch = await getBatch(ctx, params.bucket!, params.batch!);
    const failures = await listFailures(ctx, batch);
    const searched = ['object_id', 'code', 'message'];
    return boundedPage(ctx, `failures ${batch.batch_id}`, failures, query, searched, toFailure);
  },
  listBatchLogs: async ({ ctx, params, query }) => {
    const batch = await getBatch(ctx, params.bucket!, params.batch!);
    const page = await listBatchLogs(ctx, batch, query);
    return { ...page, results: page.results.map(toLog) };
  },
  listPluginLogs: async ({ ctx, params, query }) => {
    const page = await listPluginLogs(ctx, params.plugin!, query);
    return { ...page, results: page.results.map(toLog) };
  },
  upgradeCollection: async ({ ctx, params, body }) => {
    const { max_failure_share, idempotency_key: _, parameters, ...request } = body;
    const batch = await upgradeCollection(
      ctx,
      params.collection!,
      { ...request, parameters: parameters as Parameters<typeof upgradeCollection>[2]['parameters'] },
      { max_failure_share },
    );
    return answer(ctx, batch);
  },
  addBatchObjects: async ({ ctx, params, body }) => {
    const batch = await addObjects(ctx, params.bucket!, params.batch!, body.object_ids);
    return new Answer(toBatch(ctx, batch, await objectIdsOf(ctx, batch, objectIdsShown)), {
      etag: batch.revision,
    });
  },
  submitBatch: async ({ ctx, params }) => answer(ctx, await submitBatch(ctx, params.bucket!, params.batch!)),
  cancelBatch: async ({ ctx, params }) => answer(ctx, await cancelBatch(ctx, params.bucket!, params.batch!)),
  retryBatch: async ({ ctx, params, body }) =>
    answer(ctx, await retryBatch(ctx, params.bucket!, params.batch!, body)),
};
