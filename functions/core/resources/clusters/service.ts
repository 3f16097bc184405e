// The rules of clusters: what a definition may say, when it runs, how its results are read.

import { isoTime } from '../../clock.ts';
import { parseCondition } from '../../conditions/index.ts';
import type { NsCtx } from '../../context.ts';
import { now } from '../../context.ts';
import type { FieldFault } from '../../errors.ts';
import { AppError, invalid } from '../../errors.ts';
import { checkVersion } from '../../http/version.ts';
import { derivedId, newId } from '../../ids.ts';
import { parseFeatureUri } from '../../retrieval/feature-uri.ts';
import { enqueue } from '../../store/outbox.ts';
import type { Parent } from '../../store/resource-store.ts';
import type { Attribute, Write } from '../../store/table.ts';
import { ConditionFailed } from '../../store/table.ts';
import type { FeatureOf, StoredCollection } from '../collections/service.ts';
import { featureOf, featuresOf, findCollection } from '../collections/service.ts';
import { createTask } from '../tasks/service.ts';
import { algorithmFaults } from './algorithms.ts';
import type { CreateClusterBody, ExecuteClusterBody, UpdateClusterBody } from './contract.ts';
import type { ResultDocument, ResultGroups } from './results.ts';
import { readDocuments, readGroups } from './results.ts';
import type { ClusterPlan, ClusterState, StoredCluster, StoredLabeling, StoredRun } from './store.ts';
import {
  changeState,
  clusterStore,
  definitionExists,
  findRun,
  findRuns,
  insertRun,
  listRuns as listRunRows,
  readState,
  readStates,
  removeRuns,
} from './store.ts';

export type { ClusterState, RunStatus, StoredCluster, StoredRun } from './store.ts';

/** A run that has not ended after this is failed: the workflow's own limit is two hours. */
export const runDeadlineMs = 135 * 60_000;

const noLabels: StoredLabeling = {
  enabled: false,
  include_summary: true,
  include_keywords: true,
  max_samples_per_cluster: 10,
  sample_text_max_length: 200,
  labeling_context: null,
  text_fields: [],
};

/** A definition with how its last run goes. */
export interface ClusterView {
  readonly cluster: StoredCluster;
  readonly state: ClusterState;
  readonly last: StoredRun;
}

type Path = readonly (string | number)[];

interface Sources {
  readonly collections: readonly StoredCollection[];
  /** Canonical. */
  readonly featureUri: string;
}

/** The collections and the feature that a definition names; every fault is added to `faults`. */
async function resolveSources(ctx: NsCtx, body: CreateClusterBody, faults: FieldFault[]): Promise<Sources> {
  const collections: StoredCollection[] = [];
  const at = (list: Path, i: number): Path => [
    'body',
    ...list,
    ...(list.at(-1)?.toString().endsWith('s') ? [i] : []),
  ];
  for (const [i, idOrName] of body.collection_ids.entries()) {
    const collection = await findCollection(ctx, idOrName);
    if (!collection) {
      faults.push({
        type: 'collection_unknown',
        location: at(body.at.collections, i),
        message: `there is no collection "${idOrName.slice(0, 100)}" in this namespace`,
      });
    } else if (!collections.some((other) => other.id === collection.id)) collections.push(collection);
  }
  if (body.feature_uris.length > 1) {
    faults.push({
      type: 'features_many',
      location: ['body', ...body.at.features],
      message: `a definition clusters by one feature, got ${body.feature_uris.length}`,
      fix: 'make a definition for each feature',
    });
  }
  const text = body.feature_uris[0]!;
  const location = at(body.at.features, 0);
  const parsed = parseFeatureUri(text);
  if (!parsed.uri) {
    faults.push({
      type: 'feature_uri_malformed',
      location,
      message: `"${text.slice(0, 120)}" is not a feature URI`,
      fix: 'write mixpeek://<plugin>@<version>/<feature>',
    });
    return { collections, featureUri: text };
  }
  let found: FeatureOf | undefined;
  for (const collection of collections) {
    const feature = featureOf(collection, text);
    found ??= feature;
    if (feature) continue;
    const has = featuresOf(collection).map((other) => other.feature_uri);
    faults.push({
      type: 'feature_unknown',
      location,
      message: `the collection "${collection.name}" has no feature ${text.slice(0, 200)}`,
      fix: `its features: ${has.join(', ')}`,
    });
  }
  return { collections, featureUri: found?.feature_uri ?? text };
}

function filterFaults(filters: unknown): FieldFault[] {
  if (filters === undefined || filters === null) return [];
  const parsed = parseCondition(filters);
  if (parsed.ok) return [];
  return parsed.faults.map((fault) => ({
    type: fault.type,
    location: ['body', 'filters', ...fault.path],
    message: fault.message,
    ...(fault.fix === undefined ? {} : { fix: fault.fix }),
  }));
}

function warnIgnored(ctx: NsCtx, labeling: { readonly ignored: readonly string[] } | null | undefined): void {
  if (labeling && labeling.ignored.length > 0) {
    ctx.warnings.push(`chosen by the deployment and ignored: ${labeling.ignored.join(', ')}`);
  }
}

function storedLabeling(body: CreateClusterBody['llm_labeling']): StoredLabeling {
  if (!body) return noLabels;
  const { ignored: _, ...labeling } = body;
  return labeling;
}

/**
 * Makes a definition and its first run.
 *
 * @throws AppError cluster_invalid (with every fault), cluster_name_taken, quota_exceeded, collection_not_found (deleted meanwhile)
 */
export async function createCluster(ctx: NsCtx, body: CreateClusterBody): Promise<ClusterView> {
  const faults: FieldFault[] = [];
  const { collections, featureUri } = await resolveSources(ctx, body, faults);
  faults.push(
    ...algorithmFaults(body.algorithm, body.params ?? {}, {
      name: ['body', ...body.at.algorithm],
      params: ['body', ...body.at.params],
    }),
    ...filterFaults(body.filters),
  );
  if (faults.length > 0) throw invalid('cluster_invalid', faults);
  warnIgnored(ctx, body.llm_labeling);

  const id = newId('cluster', ctx.ports.clock, ctx.ports.random);
  const plan: ClusterPlan = {
    collection_ids: collections.map((collection) => collection.id),
    feature_uri: featureUri,
    algorithm: body.algorithm,
    algorithm_params: (body.params ?? {}) as ClusterPlan['algorithm_params'],
    vis_method: body.vis_method ?? 'umap',
    vis_n_components: body.vis_n_components ?? 2,
    llm_labeling: storedLabeling(body.llm_labeling),
    filters: body.filters ? JSON.stringify(body.filters) : null,
    sample_size: body.sample_size ?? null,
    enrich_source: body.enrich_source ?? true,
  };
  const { run, writes } = newRun(ctx, id, plan, { trigger: 'create', batch_id: null });
  const cluster = await clusterStore.create(
    ctx,
    {
      ...plan,
      id,
      name: body.name ?? `clusters-${id.slice(-11)}`,
      parents: collections.map((collection): Parent => ({ kind: 'COLLECTION', id: collection.id })),
      description: body.description ?? null,
      auto_execute_on_batch: body.auto_execute_on_batch ?? false,
      auto_execute_min_documents: body.auto_execute_min_documents ?? null,
      auto_execute_cooldown_seconds: body.auto_execute_cooldown_seconds ?? 0,
      metadata: (body.metadata ?? {}) as StoredCluster['metadata'],
    },
    [...writes, enqueueRun(ctx, run)],
  );
  return view(ctx, cluster);
}

/** The writes that make a run: its row, its task, and that it is the last one. */
function newRun(
  ctx: NsCtx,
  clusterId: string,
  plan: ClusterPlan,
  cause: Pick<StoredRun, 'trigger' | 'batch_id'> & { readonly run_id?: string },
): { readonly run: StoredRun; readonly writes: Write[] } {
  const { run_id: runId = newId('run', ctx.ports.clock, ctx.ports.random), ...rest } = cause;
  const time = isoTime(now(ctx));
  const run: StoredRun = {
    ...rest,
    run_id: runId,
    cluster_id: clusterId,
    task_id: newId('task', ctx.ports.clock, ctx.ports.random),
    status: 'pending',
    plan: planOf(plan),
    input: null,
    num_clusters: 0,
    num_points: 0,
    metrics: null,
    label_source: null,
    llm_labeling_errors: [],
    message: null,
    degenerate_detail: null,
    error_message: null,
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

function planOf(plan: ClusterPlan): ClusterPlan {
  return {
    collection_ids: plan.collection_ids,
    feature_uri: plan.feature_uri,
    algorithm: plan.algorithm,
    algorithm_params: plan.algorithm_params,
    vis_method: plan.vis_method,
    vis_n_components: plan.vis_n_components,
    llm_labeling: plan.llm_labeling,
    filters: plan.filters,
    sample_size: plan.sample_size,
    enrich_source: plan.enrich_source,
  };
}

function enqueueRun(ctx: NsCtx, run: StoredRun): Write {
  const { cluster_id, run_id, request_id } = run;
  return enqueue(
    ctx,
    {
      kind: 'cluster',
      org_id: ctx.principal.orgId,
      namespace_id: ctx.ns.namespaceId,
      cluster_id,
      run_id,
      request_id,
    },
    run_id,
  );
}

/** By id or name, with how the last run goes. @throws AppError cluster_not_found */
export async function viewCluster(ctx: NsCtx, idOrName: string): Promise<ClusterView> {
  return view(ctx, await clusterStore.get(ctx, idOrName));
}

async function view(ctx: NsCtx, cluster: StoredCluster): Promise<ClusterView> {
  const [found] = await views(ctx, [cluster]);
  if (!found)
    throw new AppError('cluster_not_found', { detail: `The cluster ${cluster.id} was deleted meanwhile.` });
  return found;
}

/** Definitions that are deleted in this moment have no state any more and are left out. */
async function views(ctx: NsCtx, clusters: readonly StoredCluster[]): Promise<ClusterView[]> {
  const states = await readStates(
    ctx,
    clusters.map((cluster) => cluster.id),
  );
  const known = clusters.flatMap((cluster, i) => (states[i] ? [{ cluster, state: states[i] }] : []));
  const runs = await findRuns(
    ctx,
    known.map(({ cluster, state }) => ({ cluster_id: cluster.id, run_id: state.last_run_id })),
  );
  return known.flatMap((entry, i) => (runs[i] ? [{ ...entry, last: runs[i] }] : []));
}

/** All of the namespace, newest first; their number is bounded by the quota. */
export async function listClusters(ctx: NsCtx): Promise<ClusterView[]> {
  return views(ctx, await clusterStore.list(ctx));
}

/** @throws AppError cluster_not_found, cluster_invalid, cluster_name_taken, cluster_changed, request_stale */
export async function updateCluster(
  ctx: NsCtx,
  idOrName: string,
  body: UpdateClusterBody,
  ifMatch?: number,
): Promise<ClusterView> {
  const before = await clusterStore.get(ctx, idOrName);
  checkVersion(ifMatch, before.revision);
  const algorithm = body.algorithm ?? before.algorithm;
  // The parameters of another algorithm would not fit, so they go with it.
  const kept = algorithm === before.algorithm ? before.algorithm_params : {};
  const params = body.params ?? kept;
  const faults = [
    ...algorithmFaults(algorithm, params, {
      name: ['body', ...body.at.algorithm],
      params: ['body', ...body.at.params],
    }),
    ...filterFaults(body.filters),
  ];
  if (faults.length > 0) throw invalid('cluster_invalid', faults);
  warnIgnored(ctx, body.llm_labeling);
  const set = <K extends keyof StoredCluster>(key: K, value: StoredCluster[K] | undefined) =>
    value === undefined ? {} : ({ [key]: value } as Pick<StoredCluster, K>);
  const after = await clusterStore.update(ctx, before, {
    ...set('name', body.name),
    ...set('description', body.description),
    algorithm,
    algorithm_params: params as ClusterPlan['algorithm_params'],
    ...set('vis_method', body.vis_method),
    ...set('vis_n_components', body.vis_n_components),
    ...set('llm_labeling', body.llm_labeling === undefined ? undefined : storedLabeling(body.llm_labeling)),
    ...set(
      'filters',
      body.filters === undefined ? undefined : body.filters === null ? null : JSON.stringify(body.filters),
    ),
    ...set('sample_size', body.sample_size),
    ...set('enrich_source', body.enrich_source),
    ...set('auto_execute_on_batch', body.auto_execute_on_batch ?? undefined),
    ...set('auto_execute_min_documents', body.auto_execute_min_documents),
    ...set('auto_execute_cooldown_seconds', body.auto_execute_cooldown_seconds ?? undefined),
    ...set('metadata', body.metadata as { readonly [name: string]: Attribute } | undefined),
  });
  return view(ctx, after);
}

/**
 * Deletes a definition with its runs and their files. A run that is under way ends without effect; documents keep
 * what earlier runs wrote into them.
 *
 * @throws AppError cluster_not_found, cluster_changed, request_stale
 */
export async function deleteCluster(ctx: NsCtx, idOrName: string, ifMatch?: number): Promise<StoredCluster> {
  const cluster = await clusterStore.get(ctx, idOrName);
  checkVersion(ifMatch, cluster.revision);
  await clusterStore.remove(ctx, cluster);
  await removeRuns(ctx, cluster.id);
  return cluster;
}

/**
 * Makes a run of a definition as it is now, with the changes of the request for this run alone.
 *
 * @returns the run, which has not begun
 * @throws AppError cluster_not_found, cluster_invalid
 */
export async function executeCluster(
  ctx: NsCtx,
  idOrName: string,
  body: ExecuteClusterBody,
): Promise<StoredRun> {
  const cluster = await clusterStore.get(ctx, idOrName);
  const faults = filterFaults(body.filters);
  if (faults.length > 0) throw invalid('cluster_invalid', faults);
  warnIgnored(ctx, body.llm_labeling);
  const { run, writes } = newRun(
    ctx,
    cluster.id,
    {
      ...cluster,
      ...(body.filters ? { filters: JSON.stringify(body.filters) } : {}),
      ...(body.sample_size ? { sample_size: body.sample_size } : {}),
      ...(body.vis_n_components ? { vis_n_components: body.vis_n_components } : {}),
      ...(body.llm_labeling ? { llm_labeling: storedLabeling(body.llm_labeling) } : {}),
    },
    { trigger: 'execute', batch_id: null },
  );
  try {
    await ctx.ports.table.write([definitionExists(ctx, cluster.id), ...writes, enqueueRun(ctx, run)]);
  } catch (error) {
    if (!(error instanceof ConditionFailed)) throw error;
    if (error.of(0))
      throw new AppError('cluster_not_found', { detail: `The cluster ${cluster.id} was deleted meanwhile.` });
    // The run's id is fresh, so a row that holds it is ours: the answer of the first try was lost.
  }
  return run;
}

/**
 * Makes the run that follows a batch, once: a repetition finds the one that is there. It is not put into the queue,
 * the batch's workflow starts it itself.
 *
 * @param cooldownSeconds no run if the last one is younger than this
 * @returns undefined if there is no run: too soon, or the definition was deleted meanwhile
 */
export async function followBatch(
  ctx: NsCtx,
  cluster: StoredCluster,
  batch: { readonly batch_id: string; readonly attempt: number },
  cooldownSeconds: number,
): Promise<StoredRun | undefined> {
  const runId = derivedId('run', cluster.id, batch.batch_id, batch.attempt);
  const there = await findRun(ctx, cluster.id, runId);
  if (there) return there;
  if (!(await isCool(ctx, cluster, cooldownSeconds))) return undefined;
  const { run, writes } = newRun(ctx, cluster.id, cluster, {
    trigger: 'batch',
    batch_id: batch.batch_id,
    run_id: runId,
  });
  try {
    await ctx.ports.table.write([definitionExists(ctx, cluster.id), ...writes]);
    return run;
  } catch (error) {
    if (!(error instanceof ConditionFailed)) throw error;
    return error.of(0) ? undefined : findRun(ctx, cluster.id, runId);
  }
}

/** Whether enough time has passed since a definition's last run. */
async function isCool(ctx: NsCtx, cluster: StoredCluster, cooldownSeconds: number): Promise<boolean> {
  if (cooldownSeconds <= 0) return true;
  const state = await readState(ctx, cluster.id);
  return !state || now(ctx) - Date.parse(state.last_executed_at) >= cooldownSeconds * 1000;
}

/** The runs of a definition, newest first. @throws AppError cluster_not_found */
export async function listRuns(ctx: NsCtx, idOrName: string): Promise<StoredRun[]> {
  const cluster = await clusterStore.get(ctx, idOrName);
  return listRunRows(ctx, cluster.id);
}

/** A run with its groups, where it is completed and has any result. @throws AppError cluster_not_found, cluster_run_not_found */
export async function getRun(
  ctx: NsCtx,
  idOrName: string,
  runId: string,
): Promise<{ readonly run: StoredRun; readonly groups: ResultGroups | undefined }> {
  const cluster = await clusterStore.get(ctx, idOrName);
  const run = await findRun(ctx, cluster.id, runId);
  if (!run) throw runNotFound(cluster, runId);
  return {
    run,
    groups: run.status === 'completed' && run.has_result ? await readGroups(ctx, runId) : undefined,
  };
}

const runNotFound = (cluster: StoredCluster, runId: string) =>
  new AppError('cluster_run_not_found', {
    detail: `The cluster "${cluster.name}" has no run "${runId.slice(0, 100)}".`,
  });

/** What a completed run found. */
export interface RunResult {
  readonly run: StoredRun;
  /** Undefined for a run over no documents. */
  readonly groups: ResultGroups | undefined;
  readonly documents: readonly ResultDocument[];
}

/**
 * The result of a run; without `runId` of the newest completed one.
 *
 * @throws AppError cluster_not_found, cluster_run_not_found (no such run, or it is not completed)
 */
export async function readResult(
  ctx: NsCtx,
  idOrName: string,
  runId: string | undefined,
): Promise<RunResult> {
  const cluster = await clusterStore.get(ctx, idOrName);
  const state = await readState(ctx, cluster.id);
  const wanted = runId ?? state?.completed_run_id;
  if (!wanted) {
    throw new AppError('cluster_run_not_found', {
      detail: `No run of the cluster "${cluster.name}" is completed yet. Its last one is ${state?.last_run_id}; read it at .../executions/${state?.last_run_id}.`,
    });
  }
  const run = await findRun(ctx, cluster.id, wanted);
  if (!run) throw runNotFound(cluster, wanted);
  if (run.status !== 'completed') {
    const why = run.status === 'failed' ? `It failed: ${run.error_message}` : 'It has not ended yet.';
    throw new AppError('cluster_run_not_found', {
      detail: `The run ${run.run_id} has no result. ${why}`,
      extra: { run_status: run.status },
    });
  }
  if (!run.has_result) return { run, groups: undefined, documents: [] };
  return { run, groups: await readGroups(ctx, run.run_id), documents: await readDocuments(ctx, run.run_id) };
}
