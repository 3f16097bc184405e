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
  cancelRun,
  createCluster,
  deleteCluster,
  enrichFromRun,
  executeCluster,
  exportRun,
  getRun,
  labelClusters,
  listClusters,
  listRuns,
  nameRun,
  openResult,
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

function toCluster(ctx: NsCtx, { cluster, state, last, next }: ClusterView): Cluster {
  const params = cluster.algorithm_params as Json;
  const collectionIds = [...cluster.collection_ids];
  const hasCounts = last.status === 'completed' && last.mode !== 'remove';
  return {
    cluster_id: cluster.id,
    cluster_name: cluster.name,
    name: cluster.name,
    namespace_id: ctx.ns.namespaceId,
    description: cluster.description,
    cluster_type: cluster.cluster_type,
    collection_id: collectionIds[0]!,
    collection_ids: collectionIds,
    input_collections: collectionIds,
    feature_uri: cluster.feature_uri,
    feature_uris: [...cluster.feature_uris],
    algorithm: { name: cluster.algorithm, params },
    algorithm_params: params,
    vector_config:
      cluster.cluster_type === 'vector'
        ? {
            feature_uris: [...cluster.feature_uris],
            clustering_method: cluster.algorithm,
            algorithm_params: params,
            normalize_features: cluster.normalize_features,
            feature_weights: cluster.feature_weights,
            preprocessing_steps: cluster.preprocessing_steps.map(({ step, params: own }) => ({
              step,
              params: own as Json,
            })),
            cluster_space: {
              method: cluster.cluster_space.method,
              n_components: cluster.cluster_space.n_components,
            },
            vis_method: cluster.vis_method,
            vis_n_components: cluster.vis_n_components,
            sample_size: cluster.sample_size,
          }
        : null,
    attribute_config:
      cluster.cluster_type === 'attribute'
        ? {
            attributes: [...cluster.attributes],
            hierarchical_grouping: cluster.hierarchical_grouping,
            missing_values: cluster.missing_values,
          }
        : null,
    dimension_reduction: { method: cluster.vis_method, n_components: cluster.vis_n_components },
    llm_labeling: { ...cluster.llm_labeling, text_fields: [...cluster.llm_labeling.text_fields] },
    filters: cluster.filters === null ? null : (JSON.parse(cluster.filters) as Json),
    enrich_source_collection: cluster.enrich_source,
    source_enrichment_config: {
      field_mappings: cluster.enrichment_fields.map(({ source, target }) => ({
        source_field: source,
        target_field: target,
      })),
    },
    schedule:
      cluster.schedule && next
        ? { ...cluster.schedule, next_run_at: next.next_run_at, last_skipped: next.skipped }
        : null,
    auto_mode: cluster.auto_mode,
    assignment_threshold: cluster.assignment_threshold,
    auto_execute_on_batch: cluster.auto_execute_on_batch,
    auto_execute_min_documents: cluster.auto_execute_min_documents,
    auto_execute_cooldown_seconds: cluster.auto_execute_cooldown_seconds,
    status: taskStatus[last.status],
    last_run_id: state.last_run_id,
    task_id: state.last_task_id,
    last_execution_task_id: state.last_task_id,
    num_clusters: hasCounts ? last.num_clusters : null,
    num_documents_clustered: hasCounts ? last.num_points : null,
    last_executed_at: state.last_executed_at,
    metadata: cluster.metadata as Json,
    version: cluster.revision,
    created_at: cluster.created_at,
    updated_at: cluster.updated_at,
  };
}

function toCentroid(group: ResultGroup, withVector: boolean) {
  const { centroid_vector, keywords, representative_ids, reach: _, attributes, ...rest } = group;
  return {
    ...rest,
    ...(attributes ? { attributes: attributes as Json } : {}),
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
    run_name: run.run_name,
    mode: run.mode,
    base_run_id: run.base_run_id,
    assignment_threshold: run.assignment_threshold,
    assignment: run.assignment,
    trigger: run.trigger,
    batch_id: run.batch_id,
    num_clusters: run.num_clusters,
    num_points: run.num_points,
    source_documents: run.input?.source_documents ?? 0,
    metrics: run.metrics as Json | null,
    sampling: run.sampling as Json | null,
    centroids: groups
      ? groups.groups.map((group) => toCentroid(group, withVectors))
      : hasEnded && !run.has_result
        ? []
        : null,
    label_source: run.label_source,
    llm_labeling_errors: [...run.llm_labeling_errors],
    label_overrides: run.label_overrides,
    message: run.message,
    degenerate_detail: run.degenerate_detail as Json | null,
    error_message: run.error_message,
    failure_reason: run.failure_reason,
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

type Documents = AsyncIterable<readonly ResultDocument[]>;

/**
 * Members of each group, surest first, from `offset` on and `limit` at most; and how many documents there are. Groups
 * with parents have their members, and so have the parents.
 */
async function membersOf(
  documents: Documents,
  groups: ResultGroups | undefined,
  limit: number,
  offset: number,
) {
  const parents = new Map(
    (groups?.groups ?? []).map((group) => [group.cluster_id, group.parent_cluster_id ?? undefined]),
  );
  const best = new Map<string, ResultDocument[]>();
  const surest = (a: ResultDocument, b: ResultDocument) =>
    b.probability - a.probability || (a.document_id < b.document_id ? -1 : 1);
  const kept = offset + limit;
  let total = 0;
  for await (const some of documents) {
    for (const document of some) {
      total += 1;
      if (limit === 0) continue;
      for (let id: string | undefined = document.cluster_id; id !== undefined; id = parents.get(id)) {
        const own = best.get(id) ?? [];
        best.set(id, own);
        own.push(document);
        // Now and then those go that cannot be shown any more.
        if (own.length >= 4 * kept + 1000) own.sort(surest).splice(kept);
      }
    }
  }
  return {
    total,
    of: (clusterId: string) =>
      (best.get(clusterId) ?? [])
        .sort(surest)
        .slice(offset, kept)
        .map(({ document_id, collection_id, probability, assigned }) => ({
          document_id,
          collection_id,
          probability,
          ...(assigned ? { assigned } : {}),
        })),
  };
}

async function toGroups(
  run: StoredRun,
  groups: ResultGroups | undefined,
  documents: Documents,
  query: {
    readonly members_limit: number;
    readonly members_offset: number;
    readonly cluster_id?: string | undefined;
  },
) {
  const members = await membersOf(documents, groups, query.members_limit, query.members_offset);
  const shown = (groups?.groups ?? []).map((group) => ({
    ...toCentroid(group, false),
    is_noise: false,
    members: members.of(group.cluster_id),
  }));
  const loose = groups?.noise_members ?? 0;
  if (loose > 0) {
    shown.push({
      cluster_id: noise,
      num_members: loose,
      label: 'no cluster',
      label_source: run.label_source === 'values' ? 'values' : 'ctfidf',
      summary: 'Documents that belong to none of the clusters.',
      keywords: [],
      representative_ids: [],
      is_noise: true,
      members: members.of(noise),
    });
  }
  return {
    cluster_id: run.cluster_id,
    run_id: run.run_id,
    total_groups: shown.length,
    total_documents: members.total,
    groups: shown.filter((group) => query.cluster_id === undefined || group.cluster_id === query.cluster_id),
  };
}

const rounded = (value: number) => Math.round(value * 1e5) / 1e5;

/** Points of a map that a request holds: twice as many as it may show. */
const pointsHeld = 40_000;

type Placed = ResultDocument & { readonly x: number; readonly y: number };
const isPlaced = (document: ResultDocument): document is Placed =>
  document.x !== undefined && document.y !== undefined;

/** The map of a run: of its points every n-th, so that a part looks like the whole, and where its groups are. */
async function toMap(
  run: StoredRun,
  groups: ResultGroups | undefined,
  documents: Documents,
  query: { readonly max_points: number; readonly compact: boolean; readonly centroids_only: boolean },
) {
  const places = new Map(
    (groups?.groups ?? []).map((group, i) => [group.cluster_id, { i, label: group.label }]),
  );
  const sums = new Map<string, { x: number; y: number; z: number; count: number }>();
  const points: Placed[] = [];
  let placed = 0;
  let unplaced = 0;
  // Where there are too many to hold, every second one goes, and of the rest every second one comes.
  let every = 1;
  const max = query.centroids_only ? 0 : query.max_points;
  for await (const some of documents) {
    for (const document of some) {
      if (!isPlaced(document)) {
        unplaced += 1;
        continue;
      }
      const { cluster_id, x, y, z = 0, assigned } = document;
      if (!assigned) {
        const sum = sums.get(cluster_id) ?? { x: 0, y: 0, z: 0, count: 0 };
        sums.set(cluster_id, { x: sum.x + x, y: sum.y + y, z: sum.z + z, count: sum.count + 1 });
      }
      if (placed++ % every !== 0 || max === 0) continue;
      points.push(document);
      if (points.length <= pointsHeld) continue;
      every *= 2;
      points.splice(0, points.length, ...points.filter((_, i) => i % 2 === 0));
    }
  }
  const shown = max === 0 ? [] : thinned(points, max);
  return {
    cluster_id: run.cluster_id,
    run_id: run.run_id,
    method: groups?.method ?? run.plan.vis_method,
    n_components: groups?.n_components ?? run.plan.vis_n_components,
    total_points: placed + unplaced,
    num_points: shown.length,
    unplaced_points: unplaced,
    points: shown.map(({ probability: _, ...point }) =>
      query.compact
        ? [
            point.x,
            point.y,
            ...(point.z === undefined ? [] : [point.z]),
            places.get(point.cluster_id)?.i ?? -1,
          ]
        : { ...point, label: places.get(point.cluster_id)?.label ?? null },
    ),
    centroids: (groups?.groups ?? []).flatMap((group) => {
      const sum = sums.get(group.cluster_id);
      if (!sum) return [];
      return [
        {
          cluster_id: group.cluster_id,
          label: group.label,
          num_members: group.num_members,
          x: rounded(sum.x / sum.count),
          y: rounded(sum.y / sum.count),
          ...(groups!.n_components === 3 ? { z: rounded(sum.z / sum.count) } : {}),
        },
      ];
    }),
  };
}

function thinned<T>(points: readonly T[], max: number): T[] {
  if (points.length <= max) return [...points];
  return Array.from({ length: max }, (_, i) => points[Math.floor((i * points.length) / max)]!);
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
  deleteCluster: async ({ ctx, params, query, ifMatch }) => {
    const cluster = await deleteCluster(ctx, params.cluster!, {
      ifMatch,
      removeEnrichments: query.remove_enrichments,
    });
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
  enrichFromCluster: async ({ ctx, params, body }) => toRun(await enrichFromRun(ctx, params.cluster!, body)),
  cancelClusterExecution: async ({ ctx, params }) =>
    toRun(await cancelRun(ctx, params.cluster!, params.run!)),
  patchClusterLabels: async ({ ctx, params, body }) => {
    const { run, groups } = await labelClusters(ctx, params.cluster!, params.run!, body.labels);
    return toRun(run, groups);
  },
  renameClusterExecution: async ({ ctx, params, body }) => {
    const { run, groups } = await nameRun(ctx, params.cluster!, params.run!, body.run_name);
    return toRun(run, groups);
  },
  exportClusterExecution: async ({ ctx, params, query }) => {
    const { run, file } = await exportRun(ctx, params.cluster!, params.run!, {
      format: query.format,
      label: query.cluster_label,
    });
    return {
      cluster_id: run.cluster_id,
      run_id: run.run_id,
      format: query.format,
      cluster_label: query.cluster_label ?? null,
      document_count: file.documents,
      file_size_bytes: file.bytes,
      download_url: file.url,
      expires_at: file.expires_at,
    };
  },
  listClusterGroups: async ({ ctx, params, query }) => {
    const { run, groups, documents } = await openResult(ctx, params.cluster!, query.run_id);
    return toGroups(run, groups, documents, query);
  },
  visualizeCluster: async ({ ctx, params, query }) => {
    const { run, groups, documents } = await openResult(ctx, params.cluster!, query.run_id);
    if (groups?.method === 'none') ctx.warnings.push('groups by values have no map');
    return toMap(run, groups, documents, query);
  },
};
