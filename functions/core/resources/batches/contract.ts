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
    retryable: z.boolean(),
    error: z.string(),
    error_type: z.enum(['transient', 'permanent']),
  })
  .meta({ id: 'BatchFailure' });
export type Failure = z.output<typeof Failure>;

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
    summary: 'Run what failed in a failed batch again, then commit all of it',
    rate: 'compute',
    body: RetryBody,
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
};
