// Batches: objects of a bucket through the extractors of collections. Tutorial step 5.
import * as z from 'zod';
import { route } from '../../http/route.ts';
import { ListBody, ListQuery, listReply, Metadata, Timestamp } from '../../http/schemas.ts';

const Status = z.enum(['DRAFT', 'PENDING', 'PROCESSING', 'COMPLETED', 'FAILED', 'CANCELED']);
const Identifier = z.string().min(1).max(200);

const options = {
  dedup_strategy: z.enum(['skip', 'replace', 'force']).optional().meta({
    description:
      'skip (the default) leaves out objects that were done before in the same version by the same plugins; replace and force do them again',
  }),
  max_failure_share: z
    .number()
    .min(0)
    .max(1)
    .optional()
    .meta({ description: "instead of the collections' own" }),
  batch_name: z.string().min(1).max(256).optional(),
  metadata: Metadata.optional(),
};

export const TriggerBody = z.strictObject({
  collection_ids: z
    .array(Identifier)
    .max(20)
    .nullish()
    .meta({ description: 'left out: every enabled collection that reads the bucket' }),
  idempotency_key: z.string().optional(),
  ...options,
});

export const TriggerCollectionBody = z.strictObject({
  include_buckets: z
    .array(Identifier)
    .max(20)
    .nullish()
    .meta({ description: 'left out: every bucket of the collection' }),
  idempotency_key: z.string().optional(),
  ...options,
});

const ObjectIds = z.array(Identifier).min(1).max(10_000);

export const DraftBody = z.strictObject({
  object_ids: ObjectIds,
  collection_ids: z.array(Identifier).max(20).nullish(),
  ...options,
});

export const AddObjectsBody = z.strictObject({ object_ids: ObjectIds });

export const SubmitBody = z.strictObject({ include_processing_history: z.boolean().optional() });

export const CancelBody = z.strictObject({ reason: z.string().max(500).optional() });

export const RetryBody = z.strictObject({
  retry_mode: z.enum(['all', 'transient_only']).optional().meta({
    description:
      'all (the default) runs every failed object again; transient_only those that may pass without a change',
  }),
  max_failure_share: z.number().min(0).max(1).optional(),
});

export const UpgradeCollectionBody = z.strictObject({
  feature_extractor_name: z.string().min(1).max(64).meta({ description: 'the plugin whose version changes' }),
  version: z
    .string()
    .regex(/^v?\d{1,6}(\.\d{1,6}){0,2}$/, 'a version is three numbers, such as 1.1.0')
    .meta({ description: 'the version that takes over; it must be deployed' }),
  from_version: z
    .string()
    .regex(/^v?\d{1,6}(\.\d{1,6}){0,2}$/, 'a version is three numbers, such as 1.0.0')
    .optional()
    .meta({ description: 'the version that ends, where the collection uses several of the plugin' }),
  parameters: z
    .record(z.string(), z.json())
    .optional()
    .meta({ description: 'left out: those that the collection has' }),
  feature_mapping: z
    .record(z.string().min(1).max(100), z.string().min(1).max(100))
    .optional()
    .meta({ description: 'feature of the old version -> feature of the new one, where the names differ' }),
  max_failure_share: options.max_failure_share,
  idempotency_key: z.string().optional(),
});

const LogListQuery = z.strictObject({
  ...ListQuery.shape,
  failed_only: z.stringbool().optional().meta({ description: 'calls in which a row failed' }),
  object_id: Identifier.optional().meta({ description: 'calls that got this object, with its own failures' }),
});

const Progress = z
  .object({
    total: z.int(),
    processed: z.int(),
    failed: z.int(),
    skipped: z.int(),
    percent: z.number(),
  })
  .meta({ id: 'BatchProgress', description: 'objects, counted once in each collection' });

export const Batch = z
  .object({
    batch_id: z.string(),
    bucket_id: z.string(),
    namespace_id: z.string(),
    batch_name: z.string().nullable(),
    type: z.literal('BUCKET'),
    status: Status,
    lifecycle: z.enum([
      'accepted',
      'queued',
      'admitted',
      'extracting',
      'committing',
      'enriching',
      'clustering',
      'alerting',
      'finished',
    ]),
    lifecycle_reason: z.string().nullable(),
    collection_ids: z.array(z.string()),
    object_ids: z.array(z.string()).meta({ description: 'of a draft, at most 1,000' }),
    object_count: z.int(),
    dedup_strategy: z.enum(['skip', 'replace', 'force']),
    max_failure_share: z.number().nullable(),
    progress: Progress,
    error_summary: z.record(z.string(), z.int()),
    failed_object_count: z.int(),
    failure_reason: z.string().nullable(),
    error: z.string().nullable(),
    post_processing: z.array(
      z.object({
        step: z.string(),
        id: z.string().nullable(),
        status: z.literal('failed'),
        error: z.string(),
        message: z.string(),
      }),
    ),
    task_id: z.string(),
    retry_of: z
      .string()
      .nullable()
      .meta({ description: 'the completed batch whose failed objects this one runs again' }),
    upgrade: z
      .object({
        from_feature_extractor_id: z.string(),
        feature_extractor_id: z.string(),
        feature_aliases: z.record(z.string(), z.string()),
        bucket_ids: z.array(z.string()),
      })
      .nullable()
      .meta({ description: 'the plugin version that takes over at the commit' }),
    attempt: z.int(),
    request_id: z.string(),
    metadata: Metadata,
    version: z.int(),
    created_at: Timestamp,
    updated_at: Timestamp,
    submitted_at: Timestamp.nullable(),
    started_at: Timestamp.nullable(),
    completed_at: Timestamp.nullable(),
  })
  .meta({ id: 'Batch' });
export type Batch = z.output<typeof Batch>;

export const Failure = z
  .object({
    object_id: z.string(),
    collection_id: z.string(),
    chunk: z.int().nullable(),
    feature_extractor_id: z.string().nullable(),
    property: z.string().nullable(),
    code: z.string(),
    message: z.string(),
    traceback: z.string().nullable().meta({ description: "the plugin's own frames, where it raised" }),
    retryable: z.boolean(),
    error: z.string(),
    error_type: z.enum(['transient', 'permanent']),
  })
  .meta({ id: 'BatchFailure' });
export type Failure = z.output<typeof Failure>;

export const BatchLog = z
  .object({
    batch_id: z.string(),
    attempt: z.int(),
    collection_id: z.string(),
    chunk: z.int(),
    feature_extractor_id: z.string(),
    plugin_id: z.string(),
    created_at: Timestamp,
    rows: z.int().meta({ description: 'rows that the plugin was called with' }),
    failed: z.int().meta({ description: 'rows of these that failed' }),
    logs: z.string().meta({ description: 'standard output and error of the plugin, at most 64 kB' }),
    warnings: z.array(z.string()),
    failures: z
      .array(
        z.object({
          object_id: z.string(),
          property: z.string().nullable(),
          code: z.string(),
          message: z.string(),
          traceback: z.string().nullable(),
        }),
      )
      .meta({ description: 'the first 20; .../failures lists all' }),
    timings: z.record(z.string(), z.number()).meta({ description: 'milliseconds, as the runner measured' }),
  })
  .meta({ id: 'BatchLog', description: 'one call of a plugin for one chunk of a batch' });
export type BatchLog = z.output<typeof BatchLog>;

const TriggeredCollection = z
  .object({
    batch_id: z.string(),
    batch_ids: z.array(z.string()),
    task_id: z.string(),
    task_ids: z.array(z.string()),
    collection_id: z.string(),
    source_bucket_ids: z.array(z.string()),
    status: Status,
    total_tiers: z.literal(1),
    message: z.string(),
  })
  .meta({ id: 'TriggeredCollection' });

const BatchListBody = z.strictObject({
  ...ListBody.shape,
  status: Status.nullish(),
  collection_id: Identifier.nullish(),
});

const tag = 'batches';
const base = '/v1/namespaces/{namespace}/buckets/{bucket}/batches';
const notFound = ['bucket_not_found', 'batch_not_found'] as const;

export const routes = {
  triggerBatch: route({
    operation: 'triggerBatch',
    method: 'POST',
    path: `${base}/trigger`,
    tag,
    summary: 'Run everything in a bucket through its collections',
    description:
      'The same request again returns the batch that is not yet planned; else a new one is made, which waits for the running one.',
    rate: 'compute',
    status: 202,
    body: TriggerBody,
    bodyOptional: true,
    reply: Batch,
    errors: ['bucket_not_found', 'collection_not_found', 'collection_source_mismatch'],
    example: { body: { collection_ids: ['text_embed_articles'] } },
  }),
  triggerCollection: route({
    operation: 'triggerCollection',
    method: 'POST',
    path: '/v1/namespaces/{namespace}/collections/{collection}/trigger',
    tag,
    summary: 'Run the buckets of a collection through it',
    rate: 'compute',
    status: 202,
    body: TriggerCollectionBody,
    bodyOptional: true,
    reply: TriggeredCollection,
    errors: ['bucket_not_found', 'collection_not_found', 'collection_source_mismatch'],
  }),
  createBatch: route({
    operation: 'createBatch',
    method: 'POST',
    path: base,
    tag,
    summary: 'Draft a batch of chosen objects',
    rate: 'data',
    body: DraftBody,
    reply: Batch,
    errors: ['bucket_not_found', 'collection_not_found', 'collection_source_mismatch', 'object_not_found'],
  }),
  listBatches: route({
    operation: 'listBatches',
    method: 'GET',
    path: base,
    tag,
    summary: 'List the batches of a bucket, newest first',
    query: ListQuery,
    reply: listReply(Batch),
    errors: ['bucket_not_found'],
  }),
  searchBatches: route({
    operation: 'searchBatches',
    method: 'POST',
    path: `${base}/list`,
    tag,
    summary: 'List batches by status, filter and order',
    permission: 'read',
    query: ListQuery,
    body: BatchListBody,
    bodyOptional: true,
    reply: listReply(Batch),
    errors: ['bucket_not_found'],
  }),
  getBatch: route({
    operation: 'getBatch',
    method: 'GET',
    path: `${base}/{batch}`,
    tag,
    summary: 'Read a batch with its progress',
    reply: Batch,
    errors: notFound,
  }),
  listBatchFailures: route({
    operation: 'listBatchFailures',
    method: 'GET',
    path: `${base}/{batch}/failures`,
    tag,
    summary: 'List what failed in a batch, with the causes',
    query: ListQuery,
    reply: listReply(Failure),
    errors: notFound,
  }),
  listBatchLogs: route({
    operation: 'listBatchLogs',
    method: 'GET',
    path: `${base}/{batch}/logs`,
    tag,
    summary: 'Read what the plugins printed in a batch, with warnings and tracebacks',
    description:
      'One entry for each chunk and plugin, the newest attempt first. Logs of failed and cancelled batches are kept too. Values of secrets are masked.',
    rate: 'data',
    query: LogListQuery,
    reply: listReply(BatchLog),
    errors: notFound,
  }),
  listPluginLogs: route({
    operation: 'listPluginLogs',
    method: 'GET',
    path: '/v1/namespaces/{namespace}/plugins/{plugin}/logs',
    tag,
    summary: 'Read what a plugin printed in the batches of the last seven days, newest first',
    rate: 'data',
    query: LogListQuery,
    reply: listReply(BatchLog),
    errors: ['plugin_not_found'],
  }),
  upgradeCollection: route({
    operation: 'upgradeCollection',
    method: 'POST',
    path: '/v1/namespaces/{namespace}/collections/{collection}/upgrade',
    tag,
    summary: 'Run a collection anew with another version of its plugin, then switch over at once',
    description:
      'The batch runs all objects of the buckets of the collection with the new version. Until its commit, searches use the old vectors; the commit puts documents, vectors and the extractor of the new version in their place together. URIs of old features go on working and name the new ones. Documents keep their ids. Where an object failed within the tolerated share, or is gone, its document stays as it was, but has no vector of the new version until a batch makes one: the next trigger does. The same request again, before the commit, is answered by the same batch.',
    rate: 'compute',
    status: 202,
    body: UpgradeCollectionBody,
    reply: Batch,
    errors: ['collection_not_found', 'collection_busy', 'plugin_not_deployed'],
    example: { body: { feature_extractor_name: 'text_embed', version: '1.1.0' } },
  }),
  addBatchObjects: route({
    operation: 'addBatchObjects',
    method: 'POST',
    path: `${base}/{batch}/objects`,
    tag,
    summary: 'Add objects to a draft',
    rate: 'data',
    body: AddObjectsBody,
    reply: Batch,
    errors: [...notFound, 'object_not_found', 'batch_wrong_state', 'batch_changed'],
  }),
  submitBatch: route({
    operation: 'submitBatch',
    method: 'POST',
    path: `${base}/{batch}/submit`,
    tag,
    summary: 'Let a draft run',
    rate: 'compute',
    body: SubmitBody,
    bodyOptional: true,
    reply: Batch,
    errors: [
      ...notFound,
      'collection_not_found',
      'collection_source_mismatch',
      'batch_wrong_state',
      'batch_changed',
    ],
  }),
  cancelBatch: route({
    operation: 'cancelBatch',
    method: 'POST',
    path: `${base}/{batch}/cancel`,
    tag,
    summary: 'Stop a batch: nothing of it becomes visible',
    body: CancelBody,
    bodyOptional: true,
    reply: Batch,
    errors: [...notFound, 'batch_wrong_state'],
  }),
  retryBatch: route({
    operation: 'retryBatch',
    method: 'POST',
    path: `${base}/{batch}/retry`,
    tag,
    summary: 'Run what failed in a batch again',
    description:
      'A failed batch becomes a next attempt of itself: what was good is taken as it is, and all of it is committed together. Of a completed batch with tolerated failures, a new batch (`retry_of`) runs the failed objects as they are now; the same request again, while that runs, is answered by it.',
    rate: 'compute',
    body: RetryBody,
    bodyOptional: true,
    example: { body: { retry_mode: 'transient_only' } },
    reply: Batch,
    errors: [
      ...notFound,
      'collection_not_found',
      'collection_source_mismatch',
      'batch_wrong_state',
      'batch_changed',
    ],
  }),
};
