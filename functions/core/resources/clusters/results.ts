// The result files of a cluster run: what the clusterer writes, what commit makes of it, and how both are read.
import type { NsCtx } from '../../context.ts';
import { getJson, getText } from '../../store/blobs.ts';
import type { Json, JsonObject } from '../documents/service.ts';
import { runKeys } from './store.ts';

/** A cluster as the clusterer describes it, largest first. */
export interface RawCluster {
  readonly cluster_id: string;
  readonly num_members: number;
  readonly label: string;
  readonly summary: string;
  readonly keywords: readonly string[];
  readonly centroid_vector: readonly number[];
  readonly representative_ids: readonly string[];
  /** Texts near its centre; corpus text, so hostile. */
  readonly samples: readonly string[];
}

/** The result of the clusterer (functions/clusterer/_run.py). Members and points are in the order of the input. */
export interface RawResult {
  readonly num_clusters: number;
  readonly num_points: number;
  readonly metrics: JsonObject;
  readonly clusters: readonly RawCluster[];
  /** `cluster_id` is `cl_<n>` or `noise`. */
  readonly members: readonly {
    readonly document_id: string;
    readonly cluster_id: string;
    readonly probability: number;
  }[];
  readonly points: readonly {
    readonly document_id: string;
    readonly x: number;
    readonly y: number;
    readonly z?: number;
  }[];
  readonly message: string;
  readonly degenerate_detail: Json;
  readonly pipeline: JsonObject;
}

export const noise = 'noise';

/** A group as answers show it. */
export interface ResultGroup {
  readonly cluster_id: string;
  readonly num_members: number;
  readonly label: string;
  readonly label_source: 'ctfidf' | 'model';
  readonly summary: string | null;
  readonly keywords: readonly string[];
  readonly representative_ids: readonly string[];
  readonly centroid_vector: readonly number[];
}

export interface ResultGroups {
  readonly groups: readonly ResultGroup[];
  readonly noise_members: number;
  readonly method: string;
  readonly n_components: number;
}

/** A line of the documents file. */
export interface ResultDocument {
  readonly document_id: string;
  readonly collection_id: string;
  readonly cluster_id: string;
  readonly probability: number;
  readonly x: number;
  readonly y: number;
  readonly z?: number;
}

/** Names that a model gave to the clusters of a run. */
export interface RunNames {
  readonly names: Readonly<
    Record<
      string,
      { readonly label: string; readonly summary?: string; readonly keywords?: readonly string[] }
    >
  >;
  readonly errors: readonly string[];
}

/** @throws BlobMissing */
export function readRaw(ctx: NsCtx, runId: string): Promise<RawResult> {
  return getJson(ctx.ports.blobs, runKeys.raw(ctx, runId));
}

/** @throws BlobMissing */
export function readNames(ctx: NsCtx, runId: string): Promise<RunNames> {
  return getJson(ctx.ports.blobs, runKeys.names(ctx, runId));
}

/** @throws BlobMissing */
export function readGroups(ctx: NsCtx, runId: string): Promise<ResultGroups> {
  return getJson(ctx.ports.blobs, runKeys.groups(ctx, runId));
}

/** In the order of the input. @throws BlobMissing */
export async function readDocuments(ctx: NsCtx, runId: string): Promise<ResultDocument[]> {
  const text = await getText(ctx.ports.blobs, runKeys.documents(ctx, runId));
  return text.split('\n').flatMap((line) => (line === '' ? [] : [JSON.parse(line) as ResultDocument]));
}

/** Writes both result files; writing them again with the same content does no harm. */
export async function writeResult(
  ctx: NsCtx,
  runId: string,
  groups: ResultGroups,
  documents: readonly ResultDocument[],
): Promise<void> {
  const lines = documents.map((document) => `${JSON.stringify(document)}\n`).join('');
  await ctx.ports.blobs.put(runKeys.documents(ctx, runId), lines, { contentType: 'application/x-ndjson' });
  await ctx.ports.blobs.put(runKeys.groups(ctx, runId), JSON.stringify(groups), {
    contentType: 'application/json',
  });
}
