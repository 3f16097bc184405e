// How clusters are stored: a row for each definition, a row for each run, what can grow in the blob bucket.
import type { NsCtx } from '../../context.ts';
import type { Job } from '../../events.ts';
import { idPrefixes } from '../../ids.ts';
import { scanRowsMax } from '../../page.ts';
import { dueAttributes } from '../../store/keys.ts';
import type { ResourceStore, StoredResource } from '../../store/resource-store.ts';
import { resourceStore } from '../../store/resource-store.ts';
import type { Attribute, Condition, Item, Write } from '../../store/table.ts';
import { queryAll } from '../../store/table.ts';
import type { enrichmentSources, runModes, runStatuses, runTriggers } from './contract.ts';

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

/** One field that a run writes into documents. */
export interface EnrichmentField {
  readonly source: EnrichmentSource;
  /** Name of the field at the root of documents. */
  readonly target: string;
  readonly [name: string]: Attribute;
}
export type EnrichmentSource = (typeof enrichmentSources)[number];

export interface PreprocessingStep {
  readonly step: string;
  readonly params: Json;
  readonly [name: string]: Attribute;
}

/** What a run does; a run keeps its own copy, so that later changes of the definition do not reach it. */
export interface ClusterPlan {
  readonly cluster_type: 'vector' | 'attribute';
  readonly collection_ids: readonly string[];
  /** The first of `feature_uris`; null for groups by values. */
  readonly feature_uri: string | null;
  /** Features whose vectors are put behind each other; empty for groups by values. */
  readonly feature_uris: readonly string[];
  /** By feature URI, above 0 to 1: the share of the feature in a similarity. Those that are not named have 1. */
  readonly feature_weights: { readonly [uri: string]: number };
  /** Whether the vectors of each feature are made unit vectors before they are put behind each other. */
  readonly normalize_features: boolean;
  /** Fields to group by; empty for clusters of vectors. */
  readonly attributes: readonly string[];
  readonly hierarchical_grouping: boolean;
  /** What becomes of documents without a value: a group of their own, or none. */
  readonly missing_values: 'group' | 'skip';
  readonly algorithm: string;
  /** As given; the clusterer knows the defaults. */
  readonly algorithm_params: Json;
  readonly preprocessing_steps: readonly PreprocessingStep[];
  /** The space to cluster in. */
  readonly cluster_space: {
    readonly method: 'auto' | 'none' | 'umap' | 'pca';
    readonly n_components: number | null;
    readonly [name: string]: Attribute;
  };
  readonly vis_method: 'umap' | 'pca' | 'tsne';
  readonly vis_n_components: 2 | 3;
  readonly llm_labeling: StoredLabeling;
  /** JSON of the filter tree: which documents take part; null: all. */
  readonly filters: string | null;
  /** Documents at most; null: all that fit. */
  readonly sample_size: number | null;
  readonly enrich_source: boolean;
  readonly enrichment_fields: readonly EnrichmentField[];
}

/** When a definition runs by itself; times are UTC. */
export type StoredSchedule = {
  readonly mode: 'full' | 'assign';
  /** 300 or more; null where `cron` says when. */
  readonly interval_seconds: number | null;
  /** `m h dom mon dow` */
  readonly cron: string | null;
  readonly timezone: 'UTC';
};

export interface StoredCluster extends StoredResource, ClusterPlan {
  readonly description: string | null;
  readonly schedule: StoredSchedule | null;
  /** What the runs after batches do. */
  readonly auto_mode: 'full' | 'assign';
  /** Of runs that assign: 0 to 1. */
  readonly assignment_threshold: number;
  readonly auto_execute_on_batch: boolean;
  readonly auto_execute_min_documents: number | null;
  readonly auto_execute_cooldown_seconds: number;
  readonly metadata: Json;
}

const rows = resourceStore<StoredCluster>({
  kind: 'CLUSTER',
  noun: 'cluster',
  idPrefix: idPrefixes.cluster,
  countMax: 100,
  events: { created: 'cluster.created', updated: 'cluster.updated', deleted: 'cluster.deleted' },
});

/** What documents are told if a definition does not say. */
export const defaultEnrichment: readonly EnrichmentField[] = [
  { source: 'cluster_id', target: 'cluster_id' },
  { source: 'cluster_label', target: 'cluster_label' },
];

/** Rows that were written before a member existed have its default. */
function completePlan<T extends ClusterPlan>(plan: T): T {
  const defaults: Partial<ClusterPlan> = {
    cluster_type: 'vector',
    feature_uris: plan.feature_uri === null ? [] : [plan.feature_uri],
    feature_weights: {},
    normalize_features: true,
    attributes: [],
    hierarchical_grouping: false,
    missing_values: 'group',
    preprocessing_steps: [],
    cluster_space: { method: 'auto', n_components: null },
    enrichment_fields: defaultEnrichment,
  };
  return { ...defaults, ...plan };
}

function complete(cluster: StoredCluster): StoredCluster {
  const defaults: Partial<StoredCluster> = { schedule: null, auto_mode: 'full', assignment_threshold: 0.5 };
  return completePlan({ ...defaults, ...cluster });
}

/** A namespace holds at most 100 cluster definitions. */
export const clusterStore: ResourceStore<StoredCluster> = {
  ...rows,
  find: async (ctx, idOrName) => {
    const found = await rows.find(ctx, idOrName);
    return found && complete(found);
  },
  get: async (ctx, idOrName) => complete(await rows.get(ctx, idOrName)),
  list: async (ctx) => (await rows.list(ctx)).map(complete),
};

export type RunStatus = (typeof runStatuses)[number];
/**
 * full: everything is grouped anew. assign: new documents join the groups of the base run. enrich: the documents are
 * told the groups of the base run. remove: what documents were told is taken away.
 */
export type RunMode = (typeof runModes)[number];
export type LabelSource = 'ctfidf' | 'model' | 'values' | 'user';

/** The rows of one collection inside a run's files: they follow each other in the order of this list. */
export interface RunRange {
  readonly collection_id: string;
  /** Version of the collection's index that the rows are of. */
  readonly version: number;
  readonly rows: number;
  /** The features as the collection had them then; runs of older versions of this program do not say. */
  readonly feature_uris?: readonly string[];
  readonly [name: string]: Attribute | undefined;
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
  readonly trigger: (typeof runTriggers)[number];
  readonly batch_id: string | null;
  readonly mode: RunMode;
  /** The run whose groups this one uses; null for a full run. */
  readonly base_run_id: string | null;
  /** Of a run that assigns. */
  readonly assignment_threshold: number | null;
  readonly run_name: string | null;
  readonly plan: ClusterPlan;
  readonly input: RunInput | null;
  readonly num_clusters: number;
  readonly num_points: number;
  readonly metrics: Json | null;
  /** How many rows were clustered, and how many joined afterwards; null where that was not a question. */
  readonly sampling: Json | null;
  /** Of a run that assigns: how many documents were new, and how many of them found a group. */
  readonly assignment: { readonly documents: number; readonly assigned: number } | null;
  readonly label_source: LabelSource | null;
  /** Names that a user gave, by cluster id: they count before all others. */
  readonly label_overrides: { readonly [clusterId: string]: string };
  readonly llm_labeling_errors: readonly string[];
  readonly message: string | null;
  readonly degenerate_detail: Json | null;
  readonly error_message: string | null;
  readonly failure_reason: 'canceled' | null;
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
  /** The newest full run that completed: ids are kept by it, and new documents join its groups. */
  readonly base_run_id: string | null;
  readonly base_run_created_at: string | null;
  /** The run whose groups the documents carry; null: none, or they were taken away. */
  readonly told_run_id: string | null;
  /** When the run was made that told them. */
  readonly told_by_created_at: string | null;
  /** The fields that it used; null: those of its plan. */
  readonly told_fields: readonly EnrichmentField[] | null;
  /** Names that users gave to clusters of the base run: the next run keeps them. */
  readonly label_overrides: { readonly [clusterId: string]: string };
  /** Grows with each change of `label_overrides`. */
  readonly label_revision: number;
  /** The row was written before there was a base; what is said of it here is not in the row. */
  readonly without_base?: true;
}

export type ClusterJob = Extract<Job, { kind: 'cluster' }>;

const runMembers = new Set(['pk', 'sk', 'due_pk', 'due_at', 'watch_job']);

const runKey = (ctx: NsCtx, clusterId: string, runId: string) =>
  ctx.ns.child('CLUSTER', clusterId, 'RUN', runId);
const stateKey = (ctx: NsCtx, clusterId: string) => ctx.ns.child('CLUSTER', clusterId, 'EXEC', 'state');

function toRun(item: Item): StoredRun {
  const run = Object.fromEntries(
    Object.entries(item).filter(([name]) => !runMembers.has(name)),
  ) as unknown as StoredRun;
  const defaults: Partial<StoredRun> = {
    mode: 'full',
    base_run_id: null,
    assignment_threshold: null,
    run_name: null,
    sampling: null,
    assignment: null,
    label_overrides: {},
    failure_reason: null,
  };
  return { ...defaults, ...run, plan: completePlan(run.plan) };
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
  // Before runs could do less than everything, the newest completed one was the base and had told the documents.
  return {
    completed_run_id: null,
    completed_run_created_at: null,
    base_run_id: state.completed_run_id ?? null,
    base_run_created_at: state.completed_run_created_at ?? null,
    told_run_id: state.completed_run_id ?? null,
    told_by_created_at: state.completed_run_created_at ?? null,
    told_fields: null,
    label_overrides: {},
    label_revision: 0,
    ...state,
    ...(state.base_run_id === undefined && state.completed_run_id ? { without_base: true } : {}),
  } as unknown as ClusterState;
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

export function changeState(
  ctx: NsCtx,
  clusterId: string,
  changes: Partial<ClusterState>,
  conditions?: readonly Condition[],
): Write {
  return {
    update: stateKey(ctx, clusterId),
    set: changes as unknown as Json,
    ...(conditions ? { if: conditions } : {}),
  };
}

/** As `changeState`, if nobody has changed the users' names since `before` was read. */
export function changeLabels(
  ctx: NsCtx,
  clusterId: string,
  before: ClusterState,
  changes: Partial<ClusterState>,
): Write {
  return {
    update: stateKey(ctx, clusterId),
    set: { ...changes, label_revision: before.label_revision + 1 } as unknown as Json,
    if: [
      before.label_revision === 0
        ? {
            anyOf: [
              { attribute: 'label_revision', missing: true },
              { attribute: 'label_revision', eq: 0 },
            ],
          }
        : { attribute: 'label_revision', eq: before.label_revision },
    ],
  };
}

/** The write that changes what may be changed of a run that has ended, if it is still as it was read. */
export function changeEndedRun(ctx: NsCtx, run: StoredRun, changes: Partial<StoredRun>): Write {
  return {
    update: runKey(ctx, run.cluster_id, run.run_id),
    set: changes as unknown as Json,
    if: [{ attribute: 'updated_at', eq: run.updated_at }],
  };
}

/** The write that names a run, whatever its state. */
export function renameRun(ctx: NsCtx, run: StoredRun, name: string | null): Write {
  return {
    update: runKey(ctx, run.cluster_id, run.run_id),
    set: { run_name: name },
    if: [{ present: true }],
  };
}

/** When a definition runs by itself the next time. */
export interface ScheduleRow {
  readonly next_run_at: string;
  /** Why the last time was left out; null if it was not. */
  readonly skipped: string | null;
}

const scheduleKey = (ctx: NsCtx, clusterId: string) => ctx.ns.child('CLUSTER', clusterId, 'EXEC', 'schedule');

/** The write that sets the next time; the sweeper sends the job when it has come. */
export function putSchedule(
  ctx: NsCtx,
  clusterId: string,
  row: ScheduleRow,
  before?: Pick<ScheduleRow, 'next_run_at'>,
): Write {
  const job: Job = {
    kind: 'cluster_schedule',
    org_id: ctx.principal.orgId,
    namespace_id: ctx.ns.namespaceId,
    cluster_id: clusterId,
    request_id: ctx.requestId,
  };
  return {
    put: {
      ...scheduleKey(ctx, clusterId),
      ...row,
      ...dueAttributes(clusterId, row.next_run_at),
      watch_job: JSON.stringify(job),
    },
    ...(before ? { if: [{ attribute: 'next_run_at', eq: before.next_run_at }] } : {}),
  };
}

export function removeSchedule(ctx: NsCtx, clusterId: string): Write {
  return { delete: scheduleKey(ctx, clusterId) };
}

/** In the order of the ids. */
export async function readSchedules(
  ctx: NsCtx,
  clusterIds: readonly string[],
): Promise<(ScheduleRow | undefined)[]> {
  const items = await ctx.ports.table.getMany(clusterIds.map((id) => scheduleKey(ctx, id)));
  return items.map(
    (item) =>
      item && {
        next_run_at: String(item.next_run_at),
        skipped: (item.skipped ?? null) as string | null,
      },
  );
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
  await table.writeMany([{ delete: stateKey(ctx, clusterId) }, { delete: scheduleKey(ctx, clusterId) }]);
}

/** What the clusterer reads: of no use when the run has ended, so a lifecycle rule takes it away. */
const inputFolder = (ctx: NsCtx, runId: string) => `runinputs/${ctx.ns.namespaceId}/${runId}/`;
const resultFolder = (ctx: NsCtx, runId: string) => `runs/${ctx.ns.namespaceId}/${runId}/`;

export const runKeys = {
  /** Row-major little-endian float32, `rows x dims`. */
  vectors: (ctx: NsCtx, runId: string) => `${inputFolder(ctx, runId)}vectors.f32`,
  /** A line `{"document_id", "text"}` for each row. */
  texts: (ctx: NsCtx, runId: string) => `${inputFolder(ctx, runId)}texts.jsonl`,
  /** Names that a model gave in earlier runs, by what it was shown. */
  knownNames: (ctx: NsCtx, clusterId: string) => `runinputs/${ctx.ns.namespaceId}/names/${clusterId}.json`,
  /** The clusterer's own result; the next run keeps cluster ids by it. */
  raw: (ctx: NsCtx, runId: string) => `${resultFolder(ctx, runId)}clusterer.json`,
  /** Names that a model gave; the first that is written counts. */
  names: (ctx: NsCtx, runId: string) => `${resultFolder(ctx, runId)}names.json`,
  /** Groups with their names: what a run's answer shows. */
  groups: (ctx: NsCtx, runId: string) => `${resultFolder(ctx, runId)}groups.json`,
  /** A file of a result for whoever asked for it; a lifecycle rule takes it away. */
  export: (ctx: NsCtx, runId: string, name: string) => `exports/${ctx.ns.namespaceId}/${runId}/${name}`,
  /** A line for each document: collection, cluster, place on the map. */
  documents: (ctx: NsCtx, runId: string) => `${resultFolder(ctx, runId)}documents.jsonl`,
};
