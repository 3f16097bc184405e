// What batches keep in the blob bucket: plans, chunks of frozen objects, failures; and under which keys.
import type { NsCtx } from '../../context.ts';
import type { Attribute } from '../../store/table.ts';
import type { StoredBlob } from '../objects/service.ts';

/** An object as the plan froze it. */
export interface PlannedObject {
  readonly object_id: string;
  /** Its bucket, where that is not the batch's own. */
  readonly bucket_id?: string;
  readonly version: number;
  readonly blobs: readonly StoredBlob[];
  readonly metadata: { readonly [name: string]: Attribute };
}

/** Results of an attempt before that can be taken as they are. */
export interface CarriedResult {
  readonly attempt: number;
  readonly chunk: number;
}

/** The work of one chunk: written once, never changed. */
export interface ChunkFile {
  readonly batch_id: string;
  readonly bucket_id: string;
  readonly attempt: number;
  readonly chunk: number;
  readonly collection_id: string;
  readonly sequence: number;
  /** No batch of the collection was ever committed, so there is nothing to compare with. */
  readonly first: boolean;
  readonly objects: readonly PlannedObject[];
  readonly carry?: CarriedResult;
}

/** The input of one chunk Lambda: an element of the list that the Distributed Map reads. */
export interface ChunkPointer {
  readonly chunk: number;
  readonly key: string;
  readonly collection_id: string;
  readonly org_id: string;
  readonly namespace_id: string;
  readonly bucket_id: string;
  readonly batch_id: string;
  readonly attempt: number;
  readonly request_id: string;
}

/** A failure that is listed to the user. */
export interface RowFailure {
  readonly object_id: string;
  readonly collection_id: string;
  readonly chunk: number | null;
  readonly feature_extractor_id: string | null;
  readonly property: string | null;
  readonly code: string;
  /** At most 1 kB. */
  readonly message: string;
  readonly retryable: boolean;
  /** The plugin's own frames, at most 4,000 characters. Files of before tracebacks were kept have none. */
  readonly traceback?: string | null;
}

/** What one call of a plugin said, beside its results. Its failures stand in the file of the chunk's failures. */
export interface LogFile {
  readonly logs: string;
  readonly warnings: readonly string[];
  readonly timings: { readonly [name: string]: number };
  /** Objects whose rows the call got. */
  readonly object_ids: readonly string[];
}

/** What the plan decided, written once per attempt: who comes second takes the first one's. */
export interface PlanFile {
  readonly chunks: readonly ChunkPointer[];
  /** By collection. */
  readonly totals: { readonly [collectionId: string]: { readonly total: number; readonly skipped: number } };
  readonly failures: readonly RowFailure[];
}

const folder = (ctx: NsCtx, batchId: string, attempt: number) =>
  `batches/${ctx.ns.namespaceId}/${batchId}/${attempt}`;

/** Where an attempt's files are; everything of batches begins with `batches/`, so that one lifecycle rule fits. */
export const batchKeys = {
  plan: (ctx: NsCtx, batchId: string, attempt: number) => `${folder(ctx, batchId, attempt)}/plan.json`,
  chunks: (ctx: NsCtx, batchId: string, attempt: number) => `${folder(ctx, batchId, attempt)}/chunks.json`,
  /** `run` tells two planners apart; only one of them is in the plan file. */
  chunk: (ctx: NsCtx, batchId: string, attempt: number, run: string, chunk: number) =>
    `${folder(ctx, batchId, attempt)}/${run}/chunk-${String(chunk).padStart(6, '0')}.json`,
  /** What a worker writes; `run` tells two workers of one chunk apart. */
  result: (ctx: NsCtx, batchId: string, attempt: number, chunk: number, run: string, name: string) =>
    `${folder(ctx, batchId, attempt)}/result-${String(chunk).padStart(6, '0')}-${run}/${name}.json`,
  /** A segment of a failed attempt, kept for a retry. */
  kept: (ctx: NsCtx, batchId: string, attempt: number, segmentKey: string) =>
    `${folder(ctx, batchId, attempt)}/kept/${segmentKey.split('/').at(-1)}`,
  objects: (ctx: NsCtx, batchId: string, revision: number) =>
    `batches/${ctx.ns.namespaceId}/${batchId}/objects-${revision}.json`,
};
