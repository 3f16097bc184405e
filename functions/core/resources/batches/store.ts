// How batches are stored: a row each in their bucket's partition. Their files are in files.ts.
import type { NsCtx } from '../../context.ts';
import { now } from '../../context.ts';
import type { Job } from '../../events.ts';
import { dueAttributes } from '../../store/keys.ts';
import type { Attribute, Item } from '../../store/table.ts';
import { queryAll } from '../../store/table.ts';
import type { BatchUpgrade } from './upgrade-row.ts';

export type BatchStatus = 'DRAFT' | 'PENDING' | 'PROCESSING' | 'COMPLETED' | 'FAILED' | 'CANCELED';
export type Lifecycle =
  | 'accepted'
  | 'queued'
  | 'admitted'
  | 'extracting'
  | 'committing'
  | 'enriching'
  | 'clustering'
  | 'alerting'
  | 'finished';
export type DedupStrategy = 'skip' | 'replace' | 'force';

/** Batches of a namespace that run at a time, and documents that it shows, at most (API rules, section 12). */
export const runningMax = 5;
export const documentsMax = 1_000_000;
/** Objects that one batch processes, at most (API rules, section 12). */
export const objectsMax = 100_000;

/** One unit is one object in one collection. `processed + failed + skipped = total` at the end. */
export interface Progress {
  readonly total: number;
  readonly processed: number;
  readonly failed: number;
  readonly skipped: number;
}

/** A step after the commit that did not work; the batch is COMPLETED all the same. */
export interface PostProcessing {
  readonly step: string;
  readonly id: string | null;
  readonly status: 'failed';
  readonly error: string;
  readonly message: string;
}

/** What the plan of an attempt says; the plan file has the rest. */
export interface PlanSummary {
  readonly attempt: number;
  readonly chunks: number;
  readonly chunks_key: string;
  readonly plan_key: string;
  readonly total: number;
  readonly skipped: number;
  /** Objects that cannot be run at all: deleted since they were chosen, or failed for good in the attempt before. */
  readonly failed: number;
}

export interface StoredBatch {
  readonly batch_id: string;
  readonly bucket_id: string;
  readonly batch_name: string | null;
  /** `trigger` ends in COMPLETED or FAILED only; `draft` (the client's draft and submit) may end CANCELED. */
  readonly origin: 'trigger' | 'draft';
  readonly status: BatchStatus;
  readonly lifecycle: Lifecycle;
  readonly lifecycle_reason: string | null;
  readonly collection_ids: readonly string[];
  readonly dedup_strategy: DedupStrategy;
  /** Overrides the collections' own; null: theirs. */
  readonly max_failure_share: number | null;
  /** Key of the list of object ids; null: every object of the bucket when the plan is made. */
  readonly objects_key: string | null;
  readonly object_count: number;
  readonly attempt: number;
  /** By collection: the sequence of the current attempt. */
  readonly sequences: { readonly [collectionId: string]: number };
  readonly plan: PlanSummary | null;
  /** Attempt whose documents are visible; null: none. */
  readonly committed_attempt: number | null;
  readonly progress: Progress;
  /** Failures by code. */
  readonly error_summary: { readonly [code: string]: number };
  readonly failure_reason: string | null;
  readonly failure_detail: string | null;
  readonly post_processing: readonly PostProcessing[];
  readonly task_id: string;
  readonly request_id: string;
  /** Digest of the trigger, under which it is found again until it is planned; null for drafts. */
  readonly trigger_digest: string | null;
  readonly retry_mode: 'all' | 'transient_only';
  /** The completed batch whose failed objects this one runs again; absent: none. */
  readonly retry_of?: string;
  /** What the commit changes in the collection; absent: nothing but its documents. */
  readonly upgrade?: BatchUpgrade;
  readonly metadata: { readonly [name: string]: Attribute };
  readonly revision: number;
  readonly created_at: string;
  readonly updated_at: string;
  /** When the current attempt was asked for; null in a draft. */
  readonly submitted_at: string | null;
  readonly started_at: string | null;
  readonly completed_at: string | null;
}

/** Members of the row that are not the batch's. */
const rowMembers = new Set(['pk', 'sk', 'due_pk', 'due_at', 'watch_job']);

export function toBatch(item: Item): StoredBatch {
  return Object.fromEntries(
    Object.entries(item).filter(([name]) => !rowMembers.has(name)),
  ) as unknown as StoredBatch;
}

export function batchItem(ctx: NsCtx, batch: StoredBatch): Item {
  return {
    ...ctx.ns.batch(batch.bucket_id, batch.batch_id),
    ...(batch as unknown as Record<string, Attribute>),
  };
}

export async function findBatch(
  ctx: NsCtx,
  bucketId: string,
  batchId: string,
): Promise<StoredBatch | undefined> {
  const item = await ctx.ports.table.get(ctx.ns.batch(bucketId, batchId));
  return item && toBatch(item);
}

/** Newest first, at most `max`. */
export async function listBatchRows(ctx: NsCtx, bucketId: string, max: number): Promise<StoredBatch[]> {
  const { pk, prefix } = ctx.ns.batches(bucketId);
  const found: StoredBatch[] = [];
  for await (const item of queryAll(ctx.ports.table, pk, { prefix, descending: true })) {
    found.push(toBatch(item));
    if (found.length >= max) break;
  }
  return found;
}

export type BatchJob = Extract<Job, { kind: 'batch' }>;

export function jobOf(
  ctx: NsCtx,
  batch: Pick<StoredBatch, 'bucket_id' | 'batch_id' | 'attempt' | 'request_id'>,
): BatchJob {
  return {
    kind: 'batch',
    org_id: ctx.principal.orgId,
    namespace_id: ctx.ns.namespaceId,
    bucket_id: batch.bucket_id,
    batch_id: batch.batch_id,
    attempt: batch.attempt,
    request_id: batch.request_id,
  };
}

/** Attributes that let the sweeper send the batch's job again at a time: a lost message, a run that died. */
export function watchAttributes(
  job: BatchJob,
  dueAtMs: number,
): { due_pk: string; due_at: string; watch_job: string } {
  return { ...dueAttributes(job.batch_id, new Date(dueAtMs).toISOString()), watch_job: JSON.stringify(job) };
}

/** A message about a batch that waits is believed lost after this; the sweeper sends it again. */
export const lostMessageMs = 10 * 60_000;

/** When a batch that was asked for and not started must be looked at again. */
export function watchUntil(ctx: NsCtx): number {
  return now(ctx) + lostMessageMs;
}

export const isActive = (batch: StoredBatch) => batch.status === 'PENDING' || batch.status === 'PROCESSING';
/** Whether the documents of the current attempt can be seen. */
export const isCommitted = (batch: StoredBatch) => batch.committed_attempt === batch.attempt;

export const watchMembers: readonly string[] = ['due_pk', 'due_at', 'watch_job'];
