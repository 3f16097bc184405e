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
import { announce } from '../../store/outbox.ts';
import type { Parent } from '../../store/resource-store.ts';
import type { Attribute, Write } from '../../store/table.ts';
import { ConditionFailed } from '../../store/table.ts';
import type { FeatureOf, StoredCollection } from '../collections/service.ts';
import { featureOf, featuresOf, findCollection } from '../collections/service.ts';
import { algorithmFaults, attributeAlgorithm, withoutIgnored } from './algorithms.ts';
import type { CreateClusterBody, EnrichBody, ExecuteClusterBody, UpdateClusterBody } from './contract.ts';
import { exportResult } from './export.ts';
import { baseOf, chooseMode, enqueueRun, fullMode, newRun } from './new-run.ts';
import type { ResultDocument, ResultGroups } from './results.ts';
import { eachDocument, readDocuments, readGroups, withOverrides } from './results.ts';
import { cronFaults, nextTime } from './schedule.ts';
import type {
  ClusterJob,
  ClusterPlan,
  ClusterState,
  ScheduleRow,
  StoredCluster,
  StoredLabeling,
  StoredRun,
  StoredSchedule,
} from './store.ts';
import {
  changeEndedRun,
  changeLabels,
  changeRun,
  clusterStore,
  defaultEnrichment,
  definitionExists,
  findRun,
  findRuns,
  listRuns as listRunRows,
  putSchedule,
  readSchedules,
  readState,
  readStates,
  removeRuns,
  removeSchedule,
  renameRun,
} from './store.ts';
import { readTold, takeAway } from './tell-documents.ts';

export { runDeadlineMs } from './new-run.ts';
export type { ClusterState, StoredCluster, StoredRun } from './store.ts';

/** Documents from which a request can take away what they were told, before it answers. */
const removalsMax = 20_000;
/** The clusterer takes vectors of so many numbers. */
const dimsMax = 4096;

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
  /** When it runs by itself; undefined: it does not. */
  readonly next: ScheduleRow | undefined;
}

type Path = readonly (string | number)[];

interface Sources {
  readonly collections: readonly StoredCollection[];
  /** Canonical. */
  readonly featureUris: readonly string[];
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
  const uris: string[] = [];
  const features: FeatureOf[] = [];
  for (const [i, text] of body.feature_uris.entries()) {
    const found = featureFaults(collections, text, at(body.at.features, i), faults);
    const uri = found?.feature_uri ?? text;
    if (uris.includes(uri)) {
      faults.push({
        type: 'feature_repeated',
        location: at(body.at.features, i),
        message: `the feature ${uri.slice(0, 200)} is named twice`,
      });
    }
    uris.push(uri);
    if (found) features.push(found);
  }
  const dims = features.reduce((sum, feature) => sum + feature.dims, 0);
  if (dims > dimsMax) {
    faults.push({
      type: 'features_too_long',
      location: ['body', ...body.at.features],
      message: `the vectors of these features together have ${dims} numbers; at most ${dimsMax} can be clustered`,
    });
  }
  return { collections, featureUris: uris };
}

/** The feature as the first collection has it; a fault for each collection that does not. */
function featureFaults(
  collections: readonly StoredCollection[],
  text: string,
  location: Path,
  faults: FieldFault[],
): FeatureOf | undefined {
  if (!parseFeatureUri(text).uri) {
    faults.push({
      type: 'feature_uri_malformed',
      location,
      message: `"${text.slice(0, 120)}" is not a feature URI`,
      fix: 'write mixpeek://<plugin>@<version>/<feature>',
    });
    return undefined;
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
  return found;
}

/** Weights by canonical URI; a fault for each that names none of the features. */
function weightsOf(
  given: Readonly<Record<string, number>> | null | undefined,
  uris: readonly string[],
  faults: FieldFault[],
): Record<string, number> {
  const weights: Record<string, number> = {};
  for (const [text, weight] of Object.entries(given ?? {})) {
    const uri = uris.find((one) => one === text || sameFeature(one, text));
    if (uri !== undefined) weights[uri] = weight;
    else
      faults.push({
        type: 'feature_unknown',
        location: ['body', 'vector_config', 'feature_weights', text.slice(0, 200)],
        message: 'the definition does not cluster by this feature',
        fix: `its features: ${uris.join(', ')}`,
      });
  }
  return weights;
}

const sameFeature = (a: string, b: string) =>
  JSON.stringify(parseFeatureUri(a).uri) === JSON.stringify(parseFeatureUri(b).uri);

type Settings = UpdateClusterBody;

/** Faults of the settings that create and update share. */
function settingFaults(
  ctx: NsCtx,
  body: Pick<Settings, 'filters' | 'schedule' | 'attribute_config' | 'auto_mode'>,
  type: StoredCluster['cluster_type'],
): FieldFault[] {
  const faults = filterFaults(body.filters);
  if (body.schedule?.cron)
    faults.push(...cronFaults(body.schedule.cron, ['body', 'schedule', 'cron'], now(ctx)));
  const attributes = body.attribute_config?.attributes ?? [];
  for (const [i, attribute] of attributes.entries()) {
    if (attributes.indexOf(attribute) !== i)
      faults.push({
        type: 'attribute_repeated',
        location: ['body', 'attribute_config', 'attributes', i],
        message: `"${attribute.slice(0, 80)}" is named twice`,
      });
  }
  if (body.attribute_config?.aggregation_method)
    ctx.warnings.push(
      'there is one way to group by values, so attribute_config.aggregation_method is ignored',
    );
  if (type === 'attribute') {
    const assigns = [
      ...(body.auto_mode === 'assign' ? [['body', 'auto_mode']] : []),
      ...(body.schedule?.mode === 'assign' ? [['body', 'schedule', 'mode']] : []),
    ];
    for (const location of assigns)
      faults.push({
        type: 'mode_wrong',
        location,
        message: 'groups by values have no centroids that documents could join',
        fix: 'write "full", which is as fast',
      });
  }
  return faults;
}

/** The parameters as they are stored; those that change nothing are named in a warning. */
function storedParams(
  ctx: NsCtx,
  algorithm: string,
  params: Readonly<Record<string, unknown>>,
): ClusterPlan['algorithm_params'] {
  const { params: kept, ignored } = withoutIgnored(algorithm, params);
  if (ignored.length > 0)
    ctx.warnings.push(`these parameters of ${algorithm} change nothing here: ${ignored.join(', ')}`);
  return kept as ClusterPlan['algorithm_params'];
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
  const { collections, featureUris } = await resolveSources(ctx, body, faults);
  const weights = weightsOf(body.feature_weights, featureUris, faults);
  const params = storedParams(ctx, body.algorithm, body.params ?? {});
  if (body.cluster_type === 'vector')
    faults.push(
      ...algorithmFaults(body.algorithm, params, {
        name: ['body', ...body.at.algorithm],
        params: ['body', ...body.at.params],
      }),
    );
  faults.push(...settingFaults(ctx, body, body.cluster_type));
  if (faults.length > 0) throw invalid('cluster_invalid', faults);
  warnIgnored(ctx, body.llm_labeling);

  const id = newId('cluster', ctx.ports.clock, ctx.ports.random);
  const plan: ClusterPlan = {
    cluster_type: body.cluster_type,
    collection_ids: collections.map((collection) => collection.id),
    feature_uri: featureUris[0] ?? null,
    feature_uris: featureUris,
    feature_weights: weights,
    normalize_features: body.normalize_features ?? true,
    attributes: body.attribute_config?.attributes ?? [],
    hierarchical_grouping: body.attribute_config?.hierarchical_grouping ?? false,
    missing_values: body.attribute_config?.missing_values ?? 'group',
    algorithm: body.algorithm,
    algorithm_params: params,
    preprocessing_steps: storedSteps(body.preprocessing_steps),
    cluster_space: storedSpace(body.cluster_space),
    vis_method: body.vis_method ?? 'umap',
    vis_n_components: body.vis_n_components ?? 2,
    llm_labeling: storedLabeling(body.llm_labeling),
    filters: body.filters ? JSON.stringify(body.filters) : null,
    sample_size: body.sample_size ?? null,
    enrich_source: body.enrich_source ?? true,
    enrichment_fields: body.enrichment_fields ?? defaultEnrichment,
  };
  const { run, writes } = newRun(ctx, id, plan, { trigger: 'create', batch_id: null, ...fullMode });
  const cluster = await clusterStore.create(
    ctx,
    {
      ...plan,
      id,
      name: body.name ?? `clusters-${id.slice(-11)}`,
      parents: collections.map((collection): Parent => ({ kind: 'COLLECTION', id: collection.id })),
      description: body.description ?? null,
      schedule: body.schedule ?? null,
      auto_mode: body.auto_mode ?? 'full',
      assignment_threshold: body.assignment_threshold ?? defaultThreshold,
      auto_execute_on_batch: body.auto_execute_on_batch ?? (body.auto_mode ?? null) !== null,
      auto_execute_min_documents: body.auto_execute_min_documents ?? null,
      auto_execute_cooldown_seconds: body.auto_execute_cooldown_seconds ?? 0,
      metadata: (body.metadata ?? {}) as StoredCluster['metadata'],
    },
    [...writes, enqueueRun(ctx, run), ...scheduleWrites(ctx, id, body.schedule)],
  );
  return view(ctx, cluster);
}

const defaultThreshold = 0.5;

const storedSteps = (steps: Settings['preprocessing_steps']): ClusterPlan['preprocessing_steps'] =>
  (steps ?? []).map(({ step, params }) => ({
    step,
    params: Object.fromEntries(Object.entries(params).filter(([, value]) => value !== undefined)),
  }));

const storedSpace = (space: Settings['cluster_space']): ClusterPlan['cluster_space'] => ({
  method: space?.method ?? 'auto',
  n_components: space?.n_components ?? null,
});

/** The write that sets or ends a schedule; none if it was not said. */
function scheduleWrites(ctx: NsCtx, id: string, schedule: StoredSchedule | null | undefined): Write[] {
  if (schedule === undefined) return [];
  const next = schedule && nextTime(schedule, now(ctx));
  return next
    ? [putSchedule(ctx, id, { next_run_at: isoTime(next), skipped: null })]
    : [removeSchedule(ctx, id)];
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
  const scheduled = known.flatMap(({ cluster }) => (cluster.schedule ? [cluster.id] : []));
  const rows = scheduled.length > 0 ? await readSchedules(ctx, scheduled) : [];
  const next = new Map(scheduled.map((id, i) => [id, rows[i]]));
  return known.flatMap((entry, i) =>
    runs[i] ? [{ ...entry, last: runs[i], next: next.get(entry.cluster.id) }] : [],
  );
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
  const params = storedParams(ctx, algorithm, body.params ?? kept);
  const faults: FieldFault[] = [];
  const byValues = before.cluster_type === 'attribute';
  if (!byValues)
    faults.push(
      ...algorithmFaults(algorithm, params, {
        name: ['body', ...body.at.algorithm],
        params: ['body', ...body.at.params],
      }),
    );
  const typeFault = (location: Path, message: string) =>
    faults.push({
      type: 'cluster_type_fixed',
      location: ['body', ...location],
      message,
      fix: 'make another definition',
    });
  if (byValues && algorithm !== attributeAlgorithm)
    typeFault(body.at.algorithm, 'groups by values cannot become clusters of vectors');
  if (!byValues && body.attribute_config)
    typeFault(['attribute_config'], 'clusters of vectors cannot become groups by values');
  const weights = weightsOf(body.feature_weights, before.feature_uris, faults);
  faults.push(...settingFaults(ctx, body, before.cluster_type));
  if (faults.length > 0) throw invalid('cluster_invalid', faults);
  warnIgnored(ctx, body.llm_labeling);
  const set = <K extends keyof StoredCluster>(key: K, value: StoredCluster[K] | undefined) =>
    value === undefined ? {} : ({ [key]: value } as Pick<StoredCluster, K>);
  const after = await clusterStore.update(
    ctx,
    before,
    {
      ...set('name', body.name),
      ...set('description', body.description),
      algorithm,
      algorithm_params: byValues ? {} : params,
      ...set('attributes', body.attribute_config?.attributes),
      ...set('hierarchical_grouping', body.attribute_config?.hierarchical_grouping),
      ...set('missing_values', body.attribute_config?.missing_values),
      ...set('normalize_features', body.normalize_features),
      ...set('feature_weights', body.feature_weights === undefined ? undefined : weights),
      ...set(
        'preprocessing_steps',
        body.preprocessing_steps === undefined ? undefined : storedSteps(body.preprocessing_steps),
      ),
      ...set('cluster_space', body.cluster_space === undefined ? undefined : storedSpace(body.cluster_space)),
      ...set(
        'enrichment_fields',
        body.enrichment_fields === undefined ? undefined : (body.enrichment_fields ?? defaultEnrichment),
      ),
      ...set('schedule', body.schedule),
      ...set('auto_mode', body.auto_mode === undefined ? undefined : (body.auto_mode ?? 'full')),
      ...set(
        'assignment_threshold',
        body.assignment_threshold === undefined ? undefined : (body.assignment_threshold ?? defaultThreshold),
      ),
      ...set('vis_method', body.vis_method),
      ...set('vis_n_components', body.vis_n_components),
      ...set('llm_labeling', body.llm_labeling === undefined ? undefined : storedLabeling(body.llm_labeling)),
      ...set(
        'filters',
        body.filters === undefined ? undefined : body.filters === null ? null : JSON.stringify(body.filters),
      ),
      ...set('sample_size', body.sample_size),
      ...set('enrich_source', body.enrich_source),
      ...set('auto_execute_on_batch', body.auto_execute_on_batch ?? (body.auto_mode ? true : undefined)),
      ...set('auto_execute_min_documents', body.auto_execute_min_documents),
      ...set('auto_execute_cooldown_seconds', body.auto_execute_cooldown_seconds ?? undefined),
      ...set('metadata', body.metadata as { readonly [name: string]: Attribute } | undefined),
    },
    scheduleWrites(ctx, before.id, body.schedule),
  );
  return view(ctx, after);
}

/**
 * Deletes a definition with its runs and their files. A run that is under way ends without effect; documents keep
 * what earlier runs wrote into them.
 *
 * @param options.removeEnrichments take away first what documents were told
 * @throws AppError cluster_not_found, cluster_changed, request_stale, cluster_in_use, cluster_too_many_documents
 */
export async function deleteCluster(
  ctx: NsCtx,
  idOrName: string,
  options: { readonly ifMatch?: number | undefined; readonly removeEnrichments?: boolean } = {},
): Promise<StoredCluster> {
  const cluster = await clusterStore.get(ctx, idOrName);
  checkVersion(options.ifMatch, cluster.revision);
  if (options.removeEnrichments) {
    // Asked before anything is taken away: a definition that others need stays as it is.
    const { total } = await clusterStore.dependants(ctx, cluster.id);
    if (total === 0) await removeTold(ctx, cluster);
  }
  await clusterStore.remove(ctx, cluster, [removeSchedule(ctx, cluster.id)]);
  await removeRuns(ctx, cluster.id);
  return cluster;
}

async function removeTold(ctx: NsCtx, cluster: StoredCluster): Promise<void> {
  const state = await readState(ctx, cluster.id);
  const told = state?.told_run_id ? await findRun(ctx, cluster.id, state.told_run_id) : undefined;
  if (!state || !told) return;
  if (told.num_points > removalsMax) {
    throw new AppError('cluster_too_many_documents', {
      detail: `The run ${told.run_id} told ${told.num_points} documents; at most ${removalsMax} can be changed while a request waits. POST .../enrich {"remove": true} first, and delete the definition when that run is completed.`,
    });
  }
  const before = await readTold(ctx, state, cluster.id);
  await takeAway(
    ctx,
    { run: told, of: told, ranges: [], fields: before.fields, groups: [], before },
    before.clusters,
  );
}

/**
 * Makes a run of a definition as it is now, with the changes of the request for this run alone.
 *
 * @returns the run, which has not begun
 * @throws AppError cluster_not_found, cluster_invalid, cluster_base_missing (mode assign without a full run)
 */
export async function executeCluster(
  ctx: NsCtx,
  idOrName: string,
  body: ExecuteClusterBody,
): Promise<StoredRun> {
  const cluster = await clusterStore.get(ctx, idOrName);
  const faults = filterFaults(body.filters);
  const assigns = body.mode === 'assign';
  if (!assigns && (body.assignment_threshold ?? null) !== null)
    ctx.warnings.push('assignment_threshold is of runs with mode "assign", and was ignored');
  for (const key of assigns ? (['sample_size', 'vis_n_components', 'llm_labeling'] as const) : []) {
    if (body[key] !== undefined && body[key] !== null)
      faults.push({
        type: 'wrong_value',
        location: ['body', key],
        message: `a run that assigns takes no ${key}: it uses the groups of the last full run`,
        fix: 'leave it out, or run mode "full"',
      });
  }
  if (faults.length > 0) throw invalid('cluster_invalid', faults);
  warnIgnored(ctx, body.llm_labeling);
  let mode: Parameters<typeof newRun>[3] = { trigger: 'execute', batch_id: null, ...fullMode };
  if (assigns) {
    const found = await baseOf(ctx, cluster);
    if ('why' in found) throw new AppError('cluster_base_missing', { detail: found.why });
    mode = {
      trigger: 'execute',
      batch_id: null,
      mode: 'assign',
      base_run_id: found.base.run_id,
      assignment_threshold: body.assignment_threshold ?? cluster.assignment_threshold,
    };
  }
  return queueRun(
    ctx,
    cluster,
    {
      ...cluster,
      ...(body.filters ? { filters: JSON.stringify(body.filters) } : {}),
      ...(body.sample_size ? { sample_size: body.sample_size } : {}),
      ...(body.vis_n_components ? { vis_n_components: body.vis_n_components } : {}),
      ...(body.llm_labeling ? { llm_labeling: storedLabeling(body.llm_labeling) } : {}),
    },
    mode,
  );
}

async function queueRun(
  ctx: NsCtx,
  cluster: StoredCluster,
  plan: ClusterPlan,
  cause: Parameters<typeof newRun>[3],
): Promise<StoredRun> {
  const { run, writes } = newRun(ctx, cluster.id, plan, cause);
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
 * Makes a run that tells the documents once more what a run found, or takes away what they were told.
 *
 * @throws AppError cluster_not_found, cluster_run_not_found (no such run, or it has no result)
 */
export async function enrichFromRun(ctx: NsCtx, idOrName: string, body: EnrichBody): Promise<StoredRun> {
  const cluster = await clusterStore.get(ctx, idOrName);
  if (body.remove) {
    return queueRun(ctx, cluster, cluster, {
      trigger: 'enrich',
      batch_id: null,
      mode: 'remove',
      base_run_id: null,
      assignment_threshold: null,
    });
  }
  const base = await completedRun(ctx, cluster, body.run_id ?? undefined);
  if (!base.has_result)
    throw new AppError('cluster_run_not_found', {
      detail: `The run ${base.run_id} has no result that documents could be told.`,
    });
  return queueRun(
    ctx,
    cluster,
    {
      ...base.plan,
      enrichment_fields: body.source_enrichment_config ?? cluster.enrichment_fields,
    },
    {
      trigger: 'enrich',
      batch_id: null,
      mode: 'enrich',
      base_run_id: base.run_id,
      assignment_threshold: null,
    },
  );
}

/**
 * Ends a run as failed, once. A run that has ended stays as it is.
 *
 * @returns whether this call ended it
 */
export async function endRun(
  ctx: NsCtx,
  job: Pick<ClusterJob, 'cluster_id' | 'run_id'>,
  end: Pick<StoredRun, 'error_message' | 'failure_reason'>,
): Promise<boolean> {
  const run = await findRun(ctx, job.cluster_id, job.run_id);
  if (!run || !isOpen(run)) return false;
  const time = isoTime(now(ctx));
  try {
    await ctx.ports.table.write([
      changeRun(ctx, run, { ...end, status: 'failed', completed_at: time, updated_at: time }),
      announce(ctx, 'cluster.execution.failed', { type: 'cluster', id: job.cluster_id }, job.run_id, {
        run_id: job.run_id,
        error: end.error_message,
      }),
    ]);
    return true;
  } catch (error) {
    if (!(error instanceof ConditionFailed)) throw error;
    const again = await findRun(ctx, job.cluster_id, job.run_id);
    if (again && isOpen(again)) throw error;
    return false;
  }
}

const isOpen = (run: StoredRun) => run.status === 'pending' || run.status === 'processing';

/**
 * Cancels a run that has not ended: it is failed with the reason `canceled`, and its steps change nothing any more. A
 * run that was cancelled before is answered as it is.
 *
 * @throws AppError cluster_not_found, cluster_run_not_found, cluster_run_wrong_state (it has ended)
 */
export async function cancelRun(ctx: NsCtx, idOrName: string, runId: string): Promise<StoredRun> {
  const cluster = await clusterStore.get(ctx, idOrName);
  const run = await findRun(ctx, cluster.id, runId);
  if (!run) throw runNotFound(cluster, runId);
  await endRun(
    ctx,
    { cluster_id: cluster.id, run_id: run.run_id },
    { error_message: 'The run was cancelled.', failure_reason: 'canceled' },
  );
  const after = (await findRun(ctx, cluster.id, runId)) ?? run;
  if (after.failure_reason !== 'canceled') {
    throw new AppError('cluster_run_wrong_state', {
      detail: `The run ${run.run_id} has ended as ${after.status}, so there is nothing to cancel.`,
      extra: { run_status: after.status },
    });
  }
  return after;
}

/** Gives a run a name; null takes it away. @throws AppError cluster_not_found, cluster_run_not_found */
export async function nameRun(
  ctx: NsCtx,
  idOrName: string,
  runId: string,
  name: string | null,
): Promise<{ readonly run: StoredRun; readonly groups: ResultGroups | undefined }> {
  const cluster = await clusterStore.get(ctx, idOrName);
  const run = await findRun(ctx, cluster.id, runId);
  if (!run) throw runNotFound(cluster, runId);
  await ctx.ports.table.write([renameRun(ctx, run, name)]);
  return getRun(ctx, cluster.id, runId);
}

const labelTries = 5;
const overridesMax = 200;

/**
 * Gives clusters of a completed run names that count before all others, in this run, in the newest one if documents
 * have joined the same groups since, and in the runs that follow; null takes such a name away.
 *
 * @throws AppError cluster_not_found, cluster_run_not_found, cluster_run_wrong_state (no result yet), request_invalid
 *   (a cluster that the run does not have, two equal names), cluster_changed
 */
export async function labelClusters(
  ctx: NsCtx,
  idOrName: string,
  runId: string,
  labels: Readonly<Record<string, string | null>>,
): Promise<{ readonly run: StoredRun; readonly groups: ResultGroups | undefined }> {
  const cluster = await clusterStore.get(ctx, idOrName);
  for (let attempt = 0; attempt < labelTries; attempt++) {
    const run = await findRun(ctx, cluster.id, runId);
    if (!run) throw runNotFound(cluster, runId);
    if (run.status !== 'completed' || !run.has_result) {
      throw new AppError('cluster_run_wrong_state', {
        detail: `The run ${run.run_id} has no clusters to name.`,
        extra: { run_status: run.status },
      });
    }
    const groups = await readGroups(ctx, run.run_id);
    checkLabels(groups, run, labels);
    const state = await readState(ctx, cluster.id);
    if (!state)
      throw new AppError('cluster_not_found', { detail: `The cluster ${cluster.id} was deleted meanwhile.` });
    const named = [run, ...(await joinedSince(ctx, run, state.completed_run_id))];
    for (const other of named.slice(1)) checkLabels(groups, other, labels);
    try {
      await ctx.ports.table.write([
        definitionExists(ctx, cluster.id),
        ...named.map((one) =>
          changeEndedRun(ctx, one, {
            label_overrides: merged(one.label_overrides, labels),
            updated_at: isoTime(Math.max(now(ctx), Date.parse(one.updated_at) + 1)),
          }),
        ),
        changeLabels(ctx, cluster.id, state, { label_overrides: merged(state.label_overrides, labels) }),
      ]);
      ctx.warnings.push('documents say the new names after the next run, or after POST .../enrich');
      return getRun(ctx, cluster.id, runId);
    } catch (error) {
      if (!(error instanceof ConditionFailed)) throw error;
    }
  }
  throw new AppError('cluster_changed', {
    detail: `The names of ${cluster.name} are being changed by others; try again.`,
    retryAfterSeconds: 1,
  });
}

/**
 * The newest run, where it is another one whose documents joined the groups of this one: its groups are the same, and
 * it is what documents are told from.
 */
async function joinedSince(
  ctx: NsCtx,
  run: StoredRun,
  newestId: string | null | undefined,
): Promise<StoredRun[]> {
  if (!newestId || newestId === run.run_id) return [];
  const newest = await findRun(ctx, run.cluster_id, newestId);
  const isSame = newest?.mode === 'assign' && newest.base_run_id === (run.base_run_id ?? run.run_id);
  return newest && isSame && newest.has_result ? [newest] : [];
}

function merged(
  before: Readonly<Record<string, string>>,
  labels: Readonly<Record<string, string | null>>,
): Record<string, string> {
  const after: Record<string, string> = { ...before };
  for (const [id, label] of Object.entries(labels)) {
    if (label === null) delete after[id];
    else after[id] = label;
  }
  return after;
}

function checkLabels(
  groups: ResultGroups,
  run: StoredRun,
  labels: Readonly<Record<string, string | null>>,
): void {
  const faults: FieldFault[] = [];
  const ids = new Set(groups.groups.map((group) => group.cluster_id));
  for (const id of Object.keys(labels)) {
    if (ids.has(id)) continue;
    faults.push({
      type: 'cluster_unknown',
      location: ['body', 'labels', id],
      message: `the run ${run.run_id} has no cluster ${id}`,
      fix: `its clusters: ${[...ids].slice(0, 20).join(', ')}`,
    });
  }
  const after = merged(run.label_overrides, labels);
  if (Object.keys(after).length > overridesMax)
    faults.push({
      type: 'too_many',
      location: ['body', 'labels'],
      message: `a run holds at most ${overridesMax} names of users`,
    });
  const named = withOverrides(groups.groups, after);
  for (const id of Object.keys(labels)) {
    const own = named.find((group) => group.cluster_id === id);
    const twin = named.find((group) => group.label === own?.label && group.cluster_id !== id);
    if (!own || !twin || labels[id] === null) continue;
    faults.push({
      type: 'label_repeated',
      location: ['body', 'labels', id],
      message: `"${own.label}" is the name of ${twin.cluster_id} too`,
    });
  }
  if (faults.length > 0) throw invalid('request_invalid', faults);
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
    ...(await chooseMode(ctx, cluster, cluster.auto_mode)),
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
    groups: run.status === 'completed' && run.has_result ? await namedGroups(ctx, run) : undefined,
  };
}

/** The groups of a run with the names that users gave. */
async function namedGroups(ctx: NsCtx, run: StoredRun): Promise<ResultGroups> {
  const found = await readGroups(ctx, run.run_id);
  return { ...found, groups: withOverrides(found.groups, run.label_overrides) };
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

/** The run of that id, or the newest completed one; it is completed. */
async function completedRun(
  ctx: NsCtx,
  cluster: StoredCluster,
  runId: string | undefined,
): Promise<StoredRun> {
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
  return run;
}

/**
 * The result of a run; without `runId` of the newest completed one. Holds every document: for what is large, use
 * `openResult`.
 *
 * @throws AppError cluster_not_found, cluster_run_not_found (no such run, or it is not completed)
 */
export async function readResult(
  ctx: NsCtx,
  idOrName: string,
  runId: string | undefined,
): Promise<RunResult> {
  const run = await completedRun(ctx, await clusterStore.get(ctx, idOrName), runId);
  if (!run.has_result) return { run, groups: undefined, documents: [] };
  return { run, groups: await namedGroups(ctx, run), documents: await readDocuments(ctx, run.run_id) };
}

/** As `readResult`, with the documents some thousands at a time. @throws as `readResult` */
export async function openResult(
  ctx: NsCtx,
  idOrName: string,
  runId: string | undefined,
): Promise<Omit<RunResult, 'documents'> & { readonly documents: AsyncIterable<readonly ResultDocument[]> }> {
  const run = await completedRun(ctx, await clusterStore.get(ctx, idOrName), runId);
  if (!run.has_result) return { run, groups: undefined, documents: nothing() };
  return { run, groups: await namedGroups(ctx, run), documents: eachDocument(ctx, run.run_id) };
}

async function* nothing(): AsyncGenerator<readonly ResultDocument[]> {}

/**
 * Writes a file of a result, and a URL that reads it for an hour.
 *
 * @param label only the documents of the group with this label or id
 * @throws AppError cluster_not_found, cluster_run_not_found, request_invalid (no such group)
 */
export async function exportRun(
  ctx: NsCtx,
  idOrName: string,
  runId: string,
  options: { readonly format: 'jsonl' | 'csv' | 'json'; readonly label: string | undefined },
) {
  const { run, groups, documents } = await openResult(ctx, idOrName, runId);
  return { run, file: await exportResult(ctx, run, groups, documents, options) };
}
