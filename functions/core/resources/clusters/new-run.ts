// The rows that make a run of a definition, whoever asks for it.
import { isoTime } from '../../clock.ts';
import type { NsCtx } from '../../context.ts';
import { now } from '../../context.ts';
import { newId } from '../../ids.ts';
import { enqueue } from '../../store/outbox.ts';
import type { Write } from '../../store/table.ts';
import { featureOf, findCollection } from '../collections/service.ts';
import { createTask } from '../tasks/service.ts';
import type { ClusterPlan, StoredCluster, StoredRun } from './store.ts';
import { changeState, findRun, insertRun, jobOf, readState } from './store.ts';

/** A run that has not ended after this is failed: the workflow's own limit is two hours. */
export const runDeadlineMs = 135 * 60_000;

/** What a run is to do, and why. */
export interface RunCause
  extends Pick<StoredRun, 'trigger' | 'batch_id' | 'mode' | 'base_run_id' | 'assignment_threshold'> {
  readonly run_id?: string;
}

/** The writes that make a run: its row, its task, and that it is the last one. */
export function newRun(
  ctx: NsCtx,
  clusterId: string,
  plan: ClusterPlan,
  cause: RunCause,
): { readonly run: StoredRun; readonly writes: Write[] } {
  const { run_id: runId = newId('run', ctx.ports.clock, ctx.ports.random), ...rest } = cause;
  const time = isoTime(now(ctx));
  const run: StoredRun = {
    ...rest,
    run_id: runId,
    cluster_id: clusterId,
    task_id: newId('task', ctx.ports.clock, ctx.ports.random),
    status: 'pending',
    run_name: null,
    plan: planOf(plan),
    input: null,
    num_clusters: 0,
    num_points: 0,
    metrics: null,
    sampling: null,
    assignment: null,
    label_source: null,
    label_overrides: {},
    llm_labeling_errors: [],
    message: null,
    degenerate_detail: null,
    error_message: null,
    failure_reason: null,
    has_result: false,
    request_id: ctx.requestId,
    created_at: time,
    started_at: null,
    completed_at: null,
    updated_at: time,
  };
  const writes = [
    insertRun(ctx, run, now(ctx) + runDeadlineMs),
    createTask(ctx, {
      task_id: run.task_id,
      task_type: 'engine_cluster_build',
      namespace_id: ctx.ns.namespaceId,
      target: { kind: 'cluster_run', cluster_id: clusterId, run_id: runId },
    }),
    changeState(ctx, clusterId, { last_run_id: runId, last_task_id: run.task_id, last_executed_at: time }),
  ];
  return { run, writes };
}

/** The plan alone, of a definition. */
function planOf(plan: ClusterPlan): ClusterPlan {
  return {
    cluster_type: plan.cluster_type,
    collection_ids: plan.collection_ids,
    feature_uri: plan.feature_uri,
    feature_uris: plan.feature_uris,
    feature_weights: plan.feature_weights,
    normalize_features: plan.normalize_features,
    attributes: plan.attributes,
    hierarchical_grouping: plan.hierarchical_grouping,
    missing_values: plan.missing_values,
    algorithm: plan.algorithm,
    algorithm_params: plan.algorithm_params,
    preprocessing_steps: plan.preprocessing_steps,
    cluster_space: plan.cluster_space,
    vis_method: plan.vis_method,
    vis_n_components: plan.vis_n_components,
    llm_labeling: plan.llm_labeling,
    filters: plan.filters,
    sample_size: plan.sample_size,
    enrich_source: plan.enrich_source,
    enrichment_fields: plan.enrichment_fields,
  };
}

/** The write that puts a run into the queue. */
export function enqueueRun(ctx: NsCtx, run: StoredRun): Write {
  return enqueue(ctx, jobOf(ctx, run), run.run_id);
}

export const fullMode = { mode: 'full', base_run_id: null, assignment_threshold: null } as const;

/** The run that new documents can join, or why there is none. */
export async function baseOf(
  ctx: NsCtx,
  cluster: StoredCluster,
): Promise<{ readonly base: StoredRun } | { readonly why: string }> {
  if (cluster.cluster_type === 'attribute')
    return {
      why: 'Groups by values have no centroids that documents could join; a full run is as fast. Run mode "full".',
    };
  const state = await readState(ctx, cluster.id);
  const base = state?.base_run_id ? await findRun(ctx, cluster.id, state.base_run_id) : undefined;
  if (!base?.has_result || base.status !== 'completed')
    return { why: 'No full run over documents is completed yet. Run mode "full" first.' };
  if (base.num_clusters === 0)
    return {
      why: `The last full run, ${base.run_id}, found no clusters that documents could join. Run mode "full".`,
    };
  for (const range of base.input?.ranges ?? []) {
    const collection = await findCollection(ctx, range.collection_id);
    if (!collection) continue;
    const before = range.feature_uris ?? base.plan.feature_uris;
    const uris = base.plan.feature_uris.map((uri) => featureOf(collection, uri)?.feature_uri);
    if (JSON.stringify(before) !== JSON.stringify(uris))
      return {
        why: `The vectors of ${collection.name} were made anew since the run ${base.run_id}, so they cannot be compared with its groups. Run mode "full".`,
      };
  }
  return { base };
}

/** What a run that nobody watches does: it assigns where that is wanted and possible, else it does everything. */
export async function chooseMode(
  ctx: NsCtx,
  cluster: StoredCluster,
  wanted: 'full' | 'assign',
): Promise<Pick<StoredRun, 'mode' | 'base_run_id' | 'assignment_threshold'>> {
  if (wanted === 'full') return fullMode;
  const found = await baseOf(ctx, cluster);
  if ('why' in found) return fullMode;
  return {
    mode: 'assign',
    base_run_id: found.base.run_id,
    assignment_threshold: cluster.assignment_threshold,
  };
}
