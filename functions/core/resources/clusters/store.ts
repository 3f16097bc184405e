// How clusters are stored: a row for each definition, a row for each run, what can grow in the blob bucket.
import type { NsCtx } from '../../context.ts';
import type { Job } from '../../events.ts';
import { idPrefixes } from '../../ids.ts';
import { scanRowsMax } from '../../page.ts';
import { dueAttributes } from '../../store/keys.ts';
import type { StoredResource } from '../../store/resource-store.ts';
import { resourceStore } from '../../store/resource-store.ts';
import type { Attribute, Item, Write } from '../../store/table.ts';
import { queryAll } from '../../store/table.ts';
import type { runStatuses } from './contract.ts';

type Json = { readonly [name: string]: Attribute };

export interface StoredLabeling {
  readonly enabled: boolean;
  readonly include_summary: boolean;
  readonly include_keywords: boolean;
  readonly max_samples_per_cluster: number;
  readonly sample_text_max_length: number;
  readonly labeling_context: string | null;
  /** Fields that names are made from; empty: what the extractors of the collection read. */
  readonly text_fields: readonly string[];
  readonly [name: string]: Attribute;
}

/** What a run does; a run keeps its own copy, so that later changes of the definition do not reach it. */
export interface ClusterPlan {
  readonly collection_ids: readonly string[];
  readonly feature_uri: string;
  readonly algorithm: string;
  /** As given; the clusterer knows the defaults. */
  readonly algorithm_params: Json;
  readonly vis_method: 'umap' | 'pca';
  readonly vis_n_components: 2 | 3;
  readonly llm_labeling: StoredLabeling;
  /** JSON of the filter tree: which documents take part; null: all. */
  readonly filters: string | null;
  /** Documents at most; null: all that fit. */
  readonly sample_size: number | null;
  readonly enrich_source: boolean;
}

export interface StoredCluster extends StoredResource, ClusterPlan {
  readonly description: string | null;
  readonly auto_execute_on_batch: boolean;
  readonly auto_execute_min_documents: number | null;
  readonly auto_execute_cooldown_seconds: number;
  readonly metadata: Json;
}

/** A namespace holds at most 100 cluster definitions. */
export const clusterStore = resourceStore<StoredCluster>({
  kind: 'CLUSTER',
  noun: 'cluster',
  idPrefix: idPrefixes.cluster,
  countMax: 100,
  events: { created: 'cluster.created', updated: 'cluster.updated', deleted: 'cluster.deleted' },
});

export type RunStatus = (typeof runStatuses)[number];

/** The rows of one collection inside a run's files: they follow each other in the order of this list. */
export interface RunRange {
  readonly collection_id: string;
  /** Version of the collection's index that the rows are of. */
  readonly version: number;
  readonly rows: number;
  readonly [name: string]: Attribute;
}

/** What `prepare` found and stored. */
export interface RunInput {
  readonly rows: number;
  readonly dims: number;
  readonly metric: 'cosine' | 'dot' | 'euclid';
  readonly ranges: readonly RunRange[];
  /** Documents that the plan is about, before sampling. */
  readonly source_documents: number;
  readonly [name: string]: Attribute;
}

export interface StoredRun {
  readonly run_id: string;
  readonly cluster_id: string;
  readonly task_id: string;
  readonly status: RunStatus;
  readonly trigger: 'create' | 'execute' | 'batch';
  readonly batch_id: string | null;
  readonly plan: ClusterPlan;
  readonly input: RunInput | null;
  readonly num_clusters: number;
  readonly num_points: number;
  readonly metrics: Json | null;
  readonly label_source: 'ctfidf' | 'model' | null;
  readonly llm_labeling_errors: readonly string[];
  readonly message: string | null;
  readonly degenerate_detail: Json | null;
  readonly error_message: string | null;
  /** Whether result files exist: a run without rows has none. */
  readonly has_result: boolean;
  readonly request_id: string;
  readonly created_at: string;
  readonly started_at: string | null;
  readonly completed_at: string | null;
  readonly updated_at: string;
}

/** Which run of a definition is the last, kept beside its row so that a run does not change the definition's version. */
export interface ClusterState {
  readonly last_run_id: string;
  readonly last_task_id: string;
  readonly last_executed_at: string;
  /** The newest run that completed, by the time of its creation; null: none yet. */
  readonly completed_run_id: string | null;
  readonly completed_run_created_at: string | null;
}

export type ClusterJob = Extract<Job, { kind: 'cluster' }>;

const runMembers = new Set(['pk', 'sk', 'due_pk', 'due_at', 'watch_job']);

const runKey = (ctx: NsCtx, clusterId: string, runId: string) =>
  ctx.ns.child('CLUSTER', clusterId, 'RUN', runId);
const stateKey = (ctx: NsCtx, clusterId: string) => ctx.ns.child('CLUSTER', clusterId, 'EXEC', 'state');

function toRun(item: Item): StoredRun {
  return Object.fromEntries(
    Object.entries(item).filter(([name]) => !runMembers.has(name)),
  ) as unknown as StoredRun;
}

export function jobOf(ctx: NsCtx, run: Pick<StoredRun, 'cluster_id' | 'run_id' | 'request_id'>): ClusterJob {
  return {
    kind: 'cluster',
    org_id: ctx.principal.orgId,
    namespace_id: ctx.ns.namespaceId,
    cluster_id: run.cluster_id,
    run_id: run.run_id,
    request_id: run.request_id,
  };
}

/** The write that makes a run's row. From `deadlineMs` on the sweeper sends its job again. */
export function insertRun(ctx: NsCtx, run: StoredRun, deadlineMs: number): Write {
  return {
    put: {
      ...runKey(ctx, run.cluster_id, run.run_id),
      ...(run as unknown as Json),
      ...dueAttributes(run.run_id, new Date(deadlineMs).toISOString()),
      watch_job: JSON.stringify(jobOf(ctx, run)),
    },
    if: [{ absent: true }],
  };
}

/** The write that changes a run that has not ended. Its end takes it off the sweeper's list. */
export function changeRun(ctx: NsCtx, run: StoredRun, changes: Partial<StoredRun>): Write {
  const ends = changes.status === 'completed' || changes.status === 'failed';
  return {
    update: runKey(ctx, run.cluster_id, run.run_id),
    set: changes as unknown as Json,
    ...(ends ? { remove: ['due_pk', 'due_at', 'watch_job'] } : {}),
    if: [{ attribute: 'status', in: ['pending', 'processing'] }],
  };
}

export async function findRun(ctx: NsCtx, clusterId: string, runId: string): Promise<StoredRun | undefined> {
  const item = await ctx.ports.table.get(runKey(ctx, clusterId, runId));
  return item && toRun(item);
}

/** Runs by cluster, in the order of the pairs. */
export async function findRuns(
  ctx: NsCtx,
  pairs: readonly { readonly cluster_id: string; readonly run_id: string }[],
): Promise<(StoredRun | undefined)[]> {
  const items = await ctx.ports.table.getMany(pairs.map((pair) => runKey(ctx, pair.cluster_id, pair.run_id)));
  return items.map((item) => item && toRun(item));
}

/** Newest first, 10,000 at most. */
export async function listRuns(ctx: NsCtx, clusterId: string): Promise<StoredRun[]> {
  const { pk, prefix } = ctx.ns.children('CLUSTER', clusterId, 'RUN');
  const found: StoredRun[] = [];
  for await (const item of queryAll(ctx.ports.table, pk, { prefix })) {
    found.push(toRun(item));
    if (found.length >= scanRowsMax) break;
  }
  return found.sort((a, b) =>
    a.created_at < b.created_at ? 1 : a.created_at > b.created_at ? -1 : a.run_id < b.run_id ? 1 : -1,
  );
}

function toState(item: Item | undefined): ClusterState | undefined {
  if (!item) return undefined;
  const { pk: _, sk: __, ...state } = item;
  return { completed_run_id: null, completed_run_created_at: null, ...state } as unknown as ClusterState;
}

export async function readState(ctx: NsCtx, clusterId: string): Promise<ClusterState | undefined> {
  return toState(await ctx.ports.table.get(stateKey(ctx, clusterId)));
}

export async function readStates(
  ctx: NsCtx,
  clusterIds: readonly string[],
): Promise<(ClusterState | undefined)[]> {
  return (await ctx.ports.table.getMany(clusterIds.map((id) => stateKey(ctx, id)))).map(toState);
}

export function changeState(ctx: NsCtx, clusterId: string, changes: Partial<ClusterState>): Write {
  return { update: stateKey(ctx, clusterId), set: changes as unknown as Json };
}

/** The check that the definition of a run exists still. */
export function definitionExists(ctx: NsCtx, clusterId: string): Write {
  return { check: ctx.ns.resource('CLUSTER', clusterId), if: [{ present: true }] };
}

/** Removes the rows and files of all runs of a definition that is gone. Safe to repeat. */
export async function removeRuns(ctx: NsCtx, clusterId: string): Promise<void> {
  const { table, blobs } = ctx.ports;
  const { pk, prefix } = ctx.ns.children('CLUSTER', clusterId, 'RUN');
  for (;;) {
    const { items } = await table.query(pk, { prefix, limit: 100 });
    if (items.length === 0) break;
    for (const item of items) {
      for (const folder of [inputFolder(ctx, toRun(item).run_id), resultFolder(ctx, toRun(item).run_id)]) {
        for (const blob of (await blobs.list(folder)).blobs) await blobs.delete(blob.key);
      }
    }
    await table.writeMany(items.map((item) => ({ delete: { pk: item.pk, sk: item.sk } })));
  }
  await table.writeMany([{ delete: stateKey(ctx, clusterId) }]);
}

/** What the clusterer reads: of no use when the run has ended, so a lifecycle rule takes it away. */
const inputFolder = (ctx: NsCtx, runId: string) => `runinputs/${ctx.ns.namespaceId}/${runId}/`;
const resultFolder = (ctx: NsCtx, runId: string) => `runs/${ctx.ns.namespaceId}/${runId}/`;

export const runKeys = {
  /** Row-major little-endian float32, `rows x dims`. */
  vectors: (ctx: NsCtx, runId: string) => `${inputFolder(ctx, runId)}vectors.f32`,
  /** A line `{"document_id", "text"}` for each row. */
  texts: (ctx: NsCtx, runId: string) => `${inputFolder(ctx, runId)}texts.jsonl`,
  /** The clusterer's own result; the next run keeps cluster ids by it. */
  raw: (ctx: NsCtx, runId: string) => `${resultFolder(ctx, runId)}clusterer.json`,
  /** Names that a model gave; the first that is written counts. */
  names: (ctx: NsCtx, runId: string) => `${resultFolder(ctx, runId)}names.json`,
  /** Groups with their names: what a run's answer shows. */
  groups: (ctx: NsCtx, runId: string) => `${resultFolder(ctx, runId)}groups.json`,
  /** A line for each document: collection, cluster, place on the map. */
  documents: (ctx: NsCtx, runId: string) => `${resultFolder(ctx, runId)}documents.jsonl`,
};
