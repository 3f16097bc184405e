// Requests about clusters -> service calls -> replies.
import type { NsCtx } from '../../context.ts';
import type { Handlers } from '../../http/handler.ts';
import { Answer } from '../../http/handler.ts';
import type { ListInput } from '../../page.ts';
import { mergeListInput, pageOfAll } from '../../page.ts';
import type { Cluster, ClusterRun, routes } from './contract.ts';
import type { ResultDocument, ResultGroup, ResultGroups } from './results.ts';
import { noise } from './results.ts';
import type { ClusterView, StoredRun } from './service.ts';
import {
  createCluster,
  deleteCluster,
  executeCluster,
  getRun,
  listClusters,
  listRuns,
  readResult,
  updateCluster,
  viewCluster,
} from './service.ts';

type Json = Cluster['metadata'];

const taskStatus = {
  pending: 'PENDING',
  processing: 'PROCESSING',
  completed: 'COMPLETED',
  failed: 'FAILED',
} as const;

function toCluster(ctx: NsCtx, { cluster, state, last }: ClusterView): Cluster {
  const params = cluster.algorithm_params as Json;
  const collectionIds = [...cluster.collection_ids];
  return {
    cluster_id: cluster.id,
    cluster_name: cluster.name,
    name: cluster.name,
    namespace_id: ctx.ns.namespaceId,
    description: cluster.description,
    cluster_type: 'vector',
    collection_id: collectionIds[0]!,
    collection_ids: collectionIds,
    input_collections: collectionIds,
    feature_uri: cluster.feature_uri,
    feature_uris: [cluster.feature_uri],
    algorithm: { name: cluster.algorithm, params },
    algorithm_params: params,
    vector_config: {
      feature_uris: [cluster.feature_uri],
      clustering_method: cluster.algorithm,
      algorithm_params: params,
      vis_method: cluster.vis_method,
      vis_n_components: cluster.vis_n_components,
      sample_size: cluster.sample_size,
    },
    dimension_reduction: { method: cluster.vis_method, n_components: cluster.vis_n_components },
    llm_labeling: { ...cluster.llm_labeling, text_fields: [...cluster.llm_labeling.text_fields] },
    filters: cluster.filters === null ? null : (JSON.parse(cluster.filters) as Json),
    enrich_source_collection: cluster.enrich_source,
    auto_execute_on_batch: cluster.auto_execute_on_batch,
    auto_execute_min_documents: cluster.auto_execute_min_documents,
    auto_execute_cooldown_seconds: cluster.auto_execute_cooldown_seconds,
    status: taskStatus[last.status],
    last_run_id: state.last_run_id,
    task_id: state.last_task_id,
    last_execution_task_id: state.last_task_id,
    num_clusters: last.status === 'completed' ? last.num_clusters : null,
    num_documents_clustered: last.status === 'completed' ? last.num_points : null,
    last_executed_at: state.last_executed_at,
    metadata: cluster.metadata as Json,
    version: cluster.revision,
    created_at: cluster.created_at,
    updated_at: cluster.updated_at,
  };
}

function toCentroid(group: ResultGroup, withVector: boolean) {
  const { centroid_vector, keywords, representative_ids, ...rest } = group;
  return {
    ...rest,
    keywords: [...keywords],
    representative_ids: [...representative_ids],
    ...(withVector ? { centroid_vector: [...centroid_vector] } : {}),
  };
}

/** @param groups undefined: centroids are not shown (lists, unfinished runs) */
function toRun(run: StoredRun, groups?: ResultGroups, withVectors = false): ClusterRun {
  const hasEnded = run.status === 'completed';
  return {
    run_id: run.run_id,
    cluster_id: run.cluster_id,
    task_id: run.task_id,
    status: run.status,
    trigger: run.trigger,
    batch_id: run.batch_id,
    num_clusters: run.num_clusters,
    num_points: run.num_points,
    source_documents: run.input?.source_documents ?? 0,
    metrics: run.metrics as Json | null,
    centroids: groups
      ? groups.groups.map((group) => toCentroid(group, withVectors))
      : hasEnded && !run.has_result
        ? []
        : null,
    label_source: run.label_source,
    llm_labeling_errors: [...run.llm_labeling_errors],
    message: run.message,
    degenerate_detail: run.degenerate_detail as Json | null,
    error_message: run.error_message,
    index_versions: Object.fromEntries(
      (run.input?.ranges ?? []).map((range) => [range.collection_id, range.version]),
    ),
    algorithm: { name: run.plan.algorithm, params: run.plan.algorithm_params as Json },
    created_at: run.created_at,
    started_at: run.started_at,
    completed_at: run.completed_at,
  };
}

async function page(ctx: NsCtx, input: ListInput) {
  const rows = (await listClusters(ctx)).map((entry) => toCluster(ctx, entry));
  return pageOfAll(ctx, 'clusters', rows, input, ['cluster_id', 'cluster_name', 'description']);
}

async function pageOfRuns(ctx: NsCtx, idOrName: string, input: ListInput) {
  const rows = (await listRuns(ctx, idOrName)).map((run) => toRun(run));
  return {
    found: await pageOfAll(ctx, `cluster executions ${idOrName}`, rows, input, [
      'run_id',
      'batch_id',
      'message',
    ]),
    newest: rows[0],
  };
}

const answer = (ctx: NsCtx, view: ClusterView) =>
  new Answer(toCluster(ctx, view), { etag: view.cluster.revision });

/** Members of each group, surest first. */
function membersOf(documents: readonly ResultDocument[], limit: number) {
  const byGroup = new Map<string, ResultDocument[]>();
  for (const document of documents) {
    const members = byGroup.get(document.cluster_id) ?? [];
    byGroup.set(document.cluster_id, members);
    members.push(document);
  }
  return (clusterId: string) =>
    (byGroup.get(clusterId) ?? [])
      .toSorted((a, b) => b.probability - a.probability || (a.document_id < b.document_id ? -1 : 1))
      .slice(0, limit)
      .map(({ document_id, collection_id, probability }) => ({ document_id, collection_id, probability }));
}

function toGroups(
  run: StoredRun,
  groups: ResultGroups | undefined,
  documents: readonly ResultDocument[],
  limit: number,
) {
  const members = membersOf(documents, limit);
  const shown = (groups?.groups ?? []).map((group) => ({
    ...toCentroid(group, false),
    is_noise: false,
    members: members(group.cluster_id),
  }));
  const loose = groups?.noise_members ?? 0;
  if (loose > 0) {
    shown.push({
      cluster_id: noise,
      num_members: loose,
      label: 'no cluster',
      label_source: 'ctfidf',
      summary: 'Documents that belong to none of the clusters.',
      keywords: [],
      representative_ids: [],
      is_noise: true,
      members: members(noise),
    });
  }
  return {
    cluster_id: run.cluster_id,
    run_id: run.run_id,
    total_groups: shown.length,
    total_documents: documents.length,
    groups: shown,
  };
}

/** Every n-th point, so that a part of the map looks like the whole. */
function thinned<T>(points: readonly T[], max: number): T[] {
  if (points.length <= max) return [...points];
  return Array.from({ length: max }, (_, i) => points[Math.floor((i * points.length) / max)]!);
}

const rounded = (value: number) => Math.round(value * 1e5) / 1e5;

function centroidsOf(groups: ResultGroups | undefined, documents: readonly ResultDocument[]) {
  const sums = new Map<string, { x: number; y: number; z: number; count: number }>();
  for (const { cluster_id, x, y, z = 0 } of documents) {
    const sum = sums.get(cluster_id) ?? { x: 0, y: 0, z: 0, count: 0 };
    sums.set(cluster_id, { x: sum.x + x, y: sum.y + y, z: sum.z + z, count: sum.count + 1 });
  }
  return (groups?.groups ?? []).map((group) => {
    const { x, y, z, count } = sums.get(group.cluster_id) ?? { x: 0, y: 0, z: 0, count: 1 };
    return {
      cluster_id: group.cluster_id,
      label: group.label,
      num_members: group.num_members,
      x: rounded(x / count),
      y: rounded(y / count),
      ...(groups!.n_components === 3 ? { z: rounded(z / count) } : {}),
    };
  });
}

export const handlers: Handlers<typeof routes> = {
  createCluster: async ({ ctx, body }) => answer(ctx, await createCluster(ctx, body)),
  listClusters: ({ ctx, query }) => page(ctx, query),
  searchClusters: ({ ctx, query, body }) => page(ctx, mergeListInput(query, body)),
  getCluster: async ({ ctx, params }) => answer(ctx, await viewCluster(ctx, params.cluster!)),
  putCluster: async ({ ctx, params, body, ifMatch }) =>
    answer(ctx, await updateCluster(ctx, params.cluster!, body, ifMatch)),
  patchCluster: async ({ ctx, params, body, ifMatch }) =>
    answer(ctx, await updateCluster(ctx, params.cluster!, body, ifMatch)),
  deleteCluster: async ({ ctx, params, ifMatch }) => {
    const cluster = await deleteCluster(ctx, params.cluster!, ifMatch);
    return { success: true as const, message: `Cluster ${cluster.name} deleted.` };
  },
  executeCluster: async ({ ctx, params, body }) => toRun(await executeCluster(ctx, params.cluster!, body)),
  listClusterExecutions: async ({ ctx, params, query }) => {
    const { found, newest } = await pageOfRuns(ctx, params.cluster!, query);
    return { ...newest, ...found };
  },
  searchClusterExecutions: async ({ ctx, params, query, body }) =>
    (await pageOfRuns(ctx, params.cluster!, mergeListInput(query, body))).found,
  getClusterExecution: async ({ ctx, params, query }) => {
    const { run, groups } = await getRun(ctx, params.cluster!, params.run!);
    return toRun(run, groups, query.return_vectors);
  },
  listClusterGroups: async ({ ctx, params, query }) => {
    const { run, groups, documents } = await readResult(ctx, params.cluster!, query.run_id);
    return toGroups(run, groups, documents, query.members_limit);
  },
  visualizeCluster: async ({ ctx, params, query }) => {
    const { run, groups, documents } = await readResult(ctx, params.cluster!, query.run_id);
    const places = new Map(
      (groups?.groups ?? []).map((group, i) => [group.cluster_id, { i, label: group.label }]),
    );
    const points = query.centroids_only ? [] : thinned(documents, query.max_points);
    return {
      cluster_id: run.cluster_id,
      run_id: run.run_id,
      method: groups?.method ?? run.plan.vis_method,
      n_components: groups?.n_components ?? run.plan.vis_n_components,
      total_points: documents.length,
      num_points: points.length,
      points: points.map(({ probability: _, ...point }) =>
        query.compact
          ? [
              point.x,
              point.y,
              ...(point.z === undefined ? [] : [point.z]),
              places.get(point.cluster_id)?.i ?? -1,
            ]
          : { ...point, label: places.get(point.cluster_id)?.label ?? null },
      ),
      centroids: centroidsOf(groups, documents),
    };
  },
};
