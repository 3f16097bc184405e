// Clusters: groups of similar documents, their runs, names and maps. Tutorial step 8.
import * as z from 'zod';
import { route } from '../../http/route.ts';
import {
  DeleteReply,
  Description,
  FilterTree,
  ListBody,
  ListQuery,
  listReply,
  Metadata,
  nameOf,
  Timestamp,
  Warnings,
} from '../../http/schemas.ts';

const Name = nameOf('clust_');
const Id = z.string().min(1).max(200);
const Uri = z.string().min(1).max(400);
const Parameters = z.record(z.string().min(1).max(100), z.json());
const Algorithm = z.string().min(1).max(100);
const Method = z.enum(['umap', 'pca']).meta({ description: 'how vectors are laid out for the map' });
const Components = z.union([z.literal(2), z.literal(3)]);
const SampleSize = z.int().min(2).max(1_000_000);

/** Stage-wide choices that clients may send with a definition; what the stage configures counts. */
const ignoredLabelKeys = ['provider', 'model_name', 'cache_ttl_seconds'] as const;

const Labeling = z
  .strictObject({
    enabled: z.boolean().default(true),
    include_summary: z.boolean().default(true),
    include_keywords: z.boolean().default(true),
    max_samples_per_cluster: z.int().min(1).max(20).default(10),
    sample_text_max_length: z.int().min(50).max(500).default(200),
    labeling_context: z.string().max(2000).nullish(),
    labeling_inputs: z
      .strictObject({
        input_mappings: z
          .array(
            z.strictObject({
              input_key: z.string().max(100).optional(),
              source_type: z.literal('payload').optional(),
              path: z.string().min(1).max(256),
            }),
          )
          .min(1)
          .max(10),
      })
      .nullish(),
    provider: z.string().max(100).nullish(),
    model_name: z.string().max(200).nullish(),
    cache_ttl_seconds: z.int().min(0).max(2_592_000).nullish(),
  })
  .transform((body) => ({
    enabled: body.enabled,
    include_summary: body.include_summary,
    include_keywords: body.include_keywords,
    max_samples_per_cluster: body.max_samples_per_cluster,
    sample_text_max_length: body.sample_text_max_length,
    labeling_context: body.labeling_context ?? null,
    text_fields: (body.labeling_inputs?.input_mappings ?? []).map((mapping) => mapping.path),
    ignored: ignoredLabelKeys
      .filter((key) => body[key] !== undefined && body[key] !== null)
      .map((key) => `llm_labeling.${key}`),
  }))
  .meta({ id: 'ClusterLabelingInput' });

const VectorConfig = z.strictObject({
  feature_uri: Uri.nullish(),
  feature_uris: z.array(Uri).min(1).max(10).nullish(),
  clustering_method: Algorithm.optional(),
  algorithm_params: Parameters.nullish(),
  kmeans_parameters: Parameters.nullish(),
  hdbscan_parameters: Parameters.nullish(),
  sample_size: SampleSize.nullish(),
  vis_n_components: Components.optional(),
  vis_method: Method.optional(),
  enrich_source: z.boolean().optional(),
});

/** What can be changed later; the collections and the feature of a definition stay. */
const settings = {
  cluster_name: Name.optional(),
  name: Name.optional(),
  description: Description.nullish(),
  algorithm: z.strictObject({ name: Algorithm, params: Parameters.nullish() }).optional(),
  algorithm_params: Parameters.nullish(),
  dimension_reduction: z
    .strictObject({ method: Method.default('umap'), n_components: Components.default(2) })
    .nullish(),
  vis_method: Method.optional(),
  vis_n_components: Components.optional(),
  llm_labeling: Labeling.nullish(),
  filters: FilterTree.nullish(),
  sample_size: SampleSize.nullish(),
  enrich_source_collection: z.boolean().optional(),
  auto_execute_on_batch: z.boolean().nullish(),
  auto_execute_min_documents: z.int().min(1).nullish(),
  auto_execute_cooldown_seconds: z.int().min(0).max(2_592_000).nullish(),
  metadata: Metadata.optional(),
};

const createShape = {
  ...settings,
  collection_id: Id.optional(),
  collection_ids: z.array(Id).min(1).max(20).optional(),
  cluster_type: z.literal('vector').optional(),
  feature_uri: Uri.optional(),
  feature_uris: z.array(Uri).min(1).max(10).optional(),
  vector_config: VectorConfig.optional(),
};

type Path = readonly (string | number)[];
interface Said<T> {
  readonly path: Path;
  readonly value: T | null | undefined;
}

const known = <T>({ value }: Said<T>): boolean => value !== undefined && value !== null;

/** The one value of a fact that can be said in several places; different values are a fault at the later place. */
function agreed<T>(
  ctx: z.RefinementCtx,
  places: readonly Said<T>[],
): (Said<T> & { readonly value: T }) | undefined {
  const given = places.filter(known) as (Said<T> & { readonly value: T })[];
  const [first, ...others] = given;
  for (const other of others) {
    if (JSON.stringify(other.value) === JSON.stringify(first!.value)) continue;
    ctx.addIssue({
      code: 'custom',
      path: [...other.path],
      message: `"${other.path.join('.')}" and "${first!.path.join('.')}" mean the same and differ`,
      params: { fix: 'send one of them' },
    });
  }
  return first;
}

const said = <T>(value: T | null | undefined, ...path: Path): Said<T> => ({ path, value });

type SettingsBody = z.output<z.ZodObject<typeof settings>>;
type Vector = z.output<typeof VectorConfig>;

/** Both spellings of the settings -> the stored one; undefined: not said. */
function readSettings(body: SettingsBody, vector: Vector | undefined, ctx: z.RefinementCtx) {
  const method = agreed(ctx, [
    said(body.algorithm?.name, 'algorithm', 'name'),
    said(vector?.clustering_method, 'vector_config', 'clustering_method'),
  ]);
  const params = agreed(ctx, [
    said(body.algorithm?.params, 'algorithm', 'params'),
    said(body.algorithm_params, 'algorithm_params'),
    said(vector?.algorithm_params, 'vector_config', 'algorithm_params'),
    said(vector?.kmeans_parameters, 'vector_config', 'kmeans_parameters'),
    said(vector?.hdbscan_parameters, 'vector_config', 'hdbscan_parameters'),
  ]);
  return {
    name: agreed(ctx, [said(body.cluster_name, 'cluster_name'), said(body.name, 'name')])?.value,
    description: body.description,
    algorithm: method?.value,
    params: params?.value,
    vis_method: agreed(ctx, [
      said(body.dimension_reduction?.method, 'dimension_reduction', 'method'),
      said(body.vis_method, 'vis_method'),
      said(vector?.vis_method, 'vector_config', 'vis_method'),
    ])?.value,
    vis_n_components: agreed(ctx, [
      said(body.dimension_reduction?.n_components, 'dimension_reduction', 'n_components'),
      said(body.vis_n_components, 'vis_n_components'),
      said(vector?.vis_n_components, 'vector_config', 'vis_n_components'),
    ])?.value,
    sample_size:
      agreed(ctx, [
        said(body.sample_size, 'sample_size'),
        said(vector?.sample_size, 'vector_config', 'sample_size'),
      ])?.value ?? (body.sample_size === null ? null : undefined),
    enrich_source: agreed(ctx, [
      said(body.enrich_source_collection, 'enrich_source_collection'),
      said(vector?.enrich_source, 'vector_config', 'enrich_source'),
    ])?.value,
    llm_labeling: body.llm_labeling,
    filters: body.filters,
    auto_execute_on_batch: body.auto_execute_on_batch,
    auto_execute_min_documents: body.auto_execute_min_documents,
    auto_execute_cooldown_seconds: body.auto_execute_cooldown_seconds,
    metadata: body.metadata,
    /** Where the request said it, for the locations of faults. */
    at: {
      algorithm: method?.path ?? ['algorithm', 'name'],
      params: params?.path ?? ['algorithm', 'params'],
    },
  };
}

export const CreateClusterBody = z.strictObject(createShape).transform((body, ctx) => {
  const need = (path: string, what: string) =>
    ctx.addIssue({
      code: 'custom',
      path: [path],
      message: `required, ${what} is expected`,
      params: { type: 'missing' },
    });
  const vector = body.vector_config;
  const collections = agreed(ctx, [
    said(body.collection_ids, 'collection_ids'),
    said(body.collection_id === undefined ? undefined : [body.collection_id], 'collection_id'),
  ]);
  if (!collections) need('collection_id', 'the id or name of a collection');
  const features = agreed(ctx, [
    said(body.feature_uris, 'feature_uris'),
    said(body.feature_uri === undefined ? undefined : [body.feature_uri], 'feature_uri'),
    said(vector?.feature_uris, 'vector_config', 'feature_uris'),
    said(vector?.feature_uri ? [vector.feature_uri] : undefined, 'vector_config', 'feature_uri'),
  ]);
  if (!features)
    need('feature_uri', 'a feature URI such as mixpeek://text_embed@1.0.0/text_embed_v1_embedding');
  const rest = readSettings(body, vector, ctx);
  if (rest.algorithm === undefined)
    need('algorithm', 'an algorithm such as {"name": "hdbscan", "params": {"min_cluster_size": 5}}');
  return {
    ...rest,
    algorithm: rest.algorithm ?? '',
    collection_ids: collections?.value ?? [],
    feature_uris: features?.value ?? [],
    at: { ...rest.at, collections: collections?.path ?? [], features: features?.path ?? [] },
  };
});
export type CreateClusterBody = z.output<typeof CreateClusterBody>;

/** PUT and PATCH alike: what is left out stays; runs that exist keep the definition that they ran with. */
export const UpdateClusterBody = z
  .strictObject({
    ...settings,
    vector_config: VectorConfig.omit({ feature_uri: true, feature_uris: true }).optional(),
  })
  .transform((body, ctx) => ({ ...readSettings(body, body.vector_config, ctx) }));
export type UpdateClusterBody = z.output<typeof UpdateClusterBody>;

/** Changes of the definition for one run. */
export const ExecuteClusterBody = z.strictObject({
  mode: z.literal('full').optional(),
  filters: FilterTree.nullish(),
  sample_size: SampleSize.nullish(),
  vis_n_components: Components.nullish(),
  llm_labeling: Labeling.nullish(),
});
export type ExecuteClusterBody = z.output<typeof ExecuteClusterBody>;

const LabelingReply = z.object({
  enabled: z.boolean(),
  include_summary: z.boolean(),
  include_keywords: z.boolean(),
  max_samples_per_cluster: z.int(),
  sample_text_max_length: z.int(),
  labeling_context: z.string().nullable(),
  text_fields: z
    .array(z.string())
    .meta({ description: 'fields that names are made from; empty: what the extractors read' }),
});

export const Cluster = z
  .object({
    cluster_id: z.string(),
    cluster_name: z.string(),
    name: z.string(),
    namespace_id: z.string(),
    description: z.string().nullable(),
    cluster_type: z.literal('vector'),
    collection_id: z.string(),
    collection_ids: z.array(z.string()),
    input_collections: z.array(z.string()),
    feature_uri: z.string(),
    feature_uris: z.array(z.string()),
    algorithm: z.object({ name: z.string(), params: Parameters }),
    algorithm_params: Parameters,
    vector_config: z.object({
      feature_uris: z.array(z.string()),
      clustering_method: z.string(),
      algorithm_params: Parameters,
      vis_method: Method,
      vis_n_components: Components,
      sample_size: z.int().nullable(),
    }),
    dimension_reduction: z.object({ method: Method, n_components: Components }),
    llm_labeling: LabelingReply,
    filters: z.json().nullable(),
    enrich_source_collection: z.boolean(),
    auto_execute_on_batch: z.boolean(),
    auto_execute_min_documents: z.int().nullable(),
    auto_execute_cooldown_seconds: z.int(),
    status: z.enum(['PENDING', 'PROCESSING', 'COMPLETED', 'FAILED']).meta({ description: 'of the last run' }),
    last_run_id: z.string(),
    task_id: z.string(),
    last_execution_task_id: z.string(),
    num_clusters: z.int().nullable(),
    num_documents_clustered: z.int().nullable(),
    last_executed_at: Timestamp,
    metadata: Metadata,
    version: z.int(),
    created_at: Timestamp,
    updated_at: Timestamp,
    warnings: Warnings,
  })
  .meta({ id: 'Cluster' });
export type Cluster = z.input<typeof Cluster>;

export const runStatuses = ['pending', 'processing', 'completed', 'failed'] as const;
const LabelSource = z.enum(['ctfidf', 'model']);

const Centroid = z
  .object({
    cluster_id: z.string(),
    num_members: z.int(),
    label: z.string(),
    label_source: LabelSource,
    summary: z.string().nullable(),
    keywords: z.array(z.string()),
    representative_ids: z.array(z.string()),
    centroid_vector: z.array(z.number()).optional(),
  })
  .meta({ id: 'ClusterCentroid' });

const Metrics = z
  .looseObject({
    silhouette_score: z.number().nullish(),
    davies_bouldin_index: z.number().nullish(),
    calinski_harabasz_score: z.number().nullish(),
    noise_ratio: z.number().nullish(),
    avg_cluster_size: z.number().nullish(),
  })
  .meta({ id: 'ClusterMetrics' });

const runShape = {
  run_id: z.string(),
  cluster_id: z.string(),
  task_id: z.string(),
  status: z.enum(runStatuses),
  trigger: z.enum(['create', 'execute', 'batch']),
  batch_id: z.string().nullable(),
  num_clusters: z.int(),
  num_points: z.int(),
  source_documents: z
    .int()
    .meta({ description: 'documents that the definition is about; num_points is less for a sample' }),
  metrics: Metrics.nullable(),
  centroids: z
    .array(Centroid)
    .nullable()
    .meta({ description: 'null in lists and in runs that are not completed' }),
  label_source: LabelSource.nullable(),
  llm_labeling_errors: z.array(z.string()),
  message: z.string().nullable(),
  degenerate_detail: z.json().nullable(),
  error_message: z.string().nullable(),
  index_versions: z
    .record(z.string(), z.int())
    .meta({ description: 'version of each collection that the run used' }),
  algorithm: z.object({ name: z.string(), params: Parameters }),
  created_at: Timestamp,
  started_at: Timestamp.nullable(),
  completed_at: Timestamp.nullable(),
};

export const ClusterRun = z.object({ ...runShape, warnings: Warnings }).meta({ id: 'ClusterRun' });
export type ClusterRun = z.input<typeof ClusterRun>;

/** The list, and at the root the newest run once more: clients that expect one run read that. */
const RunList = z.object({ ...listReply(ClusterRun).shape, ...z.object(runShape).partial().shape });

export const ClusterGroups = z
  .object({
    cluster_id: z.string(),
    run_id: z.string(),
    total_groups: z.int(),
    total_documents: z.int(),
    groups: z.array(
      Centroid.extend({
        is_noise: z.boolean(),
        members: z.array(
          z.object({ document_id: z.string(), collection_id: z.string(), probability: z.number() }),
        ),
      }),
    ),
  })
  .meta({ id: 'ClusterGroups' });

const Coordinates = { x: z.number(), y: z.number(), z: z.number().optional() };

export const Visualization = z
  .object({
    cluster_id: z.string(),
    run_id: z.string(),
    method: z.string(),
    n_components: z.int(),
    total_points: z.int(),
    num_points: z.int(),
    points: z
      .array(
        z.union([
          z.object({
            document_id: z.string(),
            collection_id: z.string(),
            cluster_id: z.string(),
            label: z.string().nullable(),
            ...Coordinates,
          }),
          z.array(z.number()),
        ]),
      )
      .meta({
        description: 'objects; with compact=true lists [x, y(, z), place in centroids or -1 for noise]',
      }),
    centroids: z.array(
      z.object({ cluster_id: z.string(), label: z.string(), num_members: z.int(), ...Coordinates }),
    ),
    warnings: Warnings,
  })
  .meta({ id: 'ClusterVisualization' });

const tag = 'clusters';
const base = '/v1/namespaces/{namespace}/clusters';
const one = `${base}/{cluster}` as const;
const definitionErrors = ['cluster_invalid', 'cluster_name_taken', 'quota_exceeded'] as const;
const RunQuery = {
  run_id: z.string().min(1).max(100).optional().meta({ description: 'the last completed run if left out' }),
};

export const routes = {
  createCluster: route({
    operation: 'createCluster',
    method: 'POST',
    path: base,
    tag,
    summary: 'Define clusters and run them for the first time',
    rate: 'compute',
    body: CreateClusterBody,
    reply: Cluster,
    errors: [...definitionErrors, 'collection_not_found'],
    example: {
      body: {
        cluster_name: 'article-themes',
        collection_id: 'articles',
        feature_uri: 'mixpeek://text_embed@1.0.0/text_embed_v1_embedding',
        algorithm: { name: 'hdbscan', params: { min_cluster_size: 5 } },
        dimension_reduction: { method: 'umap', n_components: 2 },
      },
    },
  }),
  listClusters: route({
    operation: 'listClusters',
    method: 'GET',
    path: base,
    tag,
    summary: 'List cluster definitions, newest first',
    query: ListQuery,
    reply: listReply(Cluster),
  }),
  searchClusters: route({
    operation: 'searchClusters',
    method: 'POST',
    path: `${base}/list`,
    tag,
    summary: 'List cluster definitions by search, filter and order',
    permission: 'read',
    query: ListQuery,
    body: ListBody,
    bodyOptional: true,
    reply: listReply(Cluster),
  }),
  getCluster: route({
    operation: 'getCluster',
    method: 'GET',
    path: one,
    tag,
    summary: 'Read a cluster definition by id or name',
    reply: Cluster,
    errors: ['cluster_not_found'],
  }),
  putCluster: route({
    operation: 'putCluster',
    method: 'PUT',
    path: one,
    tag,
    summary: 'Change a cluster definition; the next run uses it',
    body: UpdateClusterBody,
    reply: Cluster,
    errors: [
      'cluster_not_found',
      'cluster_invalid',
      'cluster_name_taken',
      'cluster_changed',
      'request_stale',
    ],
  }),
  patchCluster: route({
    operation: 'patchCluster',
    method: 'PATCH',
    path: one,
    tag,
    summary: 'Change parts of a cluster definition; the next run uses them',
    body: UpdateClusterBody,
    reply: Cluster,
    errors: [
      'cluster_not_found',
      'cluster_invalid',
      'cluster_name_taken',
      'cluster_changed',
      'request_stale',
    ],
  }),
  deleteCluster: route({
    operation: 'deleteCluster',
    method: 'DELETE',
    path: one,
    tag,
    summary: 'Delete a cluster definition with its runs; documents keep what they were told',
    reply: DeleteReply,
    errors: ['cluster_not_found', 'cluster_changed', 'cluster_in_use'],
  }),
  executeCluster: route({
    operation: 'executeCluster',
    method: 'POST',
    path: `${one}/execute`,
    tag,
    summary: 'Run a cluster definition over what is there now',
    rate: 'compute',
    body: ExecuteClusterBody,
    bodyOptional: true,
    reply: ClusterRun,
    errors: ['cluster_not_found', 'cluster_invalid'],
  }),
  listClusterExecutions: route({
    operation: 'listClusterExecutions',
    method: 'GET',
    path: `${one}/executions`,
    tag,
    summary: 'List the runs of a cluster definition, newest first; the newest one stands at the root too',
    query: ListQuery,
    reply: RunList,
    errors: ['cluster_not_found'],
  }),
  searchClusterExecutions: route({
    operation: 'searchClusterExecutions',
    method: 'POST',
    path: `${one}/executions/list`,
    tag,
    summary: 'List the runs of a cluster definition by filter and order',
    permission: 'read',
    query: ListQuery,
    body: ListBody,
    bodyOptional: true,
    reply: listReply(ClusterRun),
    errors: ['cluster_not_found'],
  }),
  getClusterExecution: route({
    operation: 'getClusterExecution',
    method: 'GET',
    path: `${one}/executions/{run}`,
    tag,
    summary: 'Read a run with its clusters',
    query: z.strictObject({
      return_vectors: z.stringbool().default(false).meta({ description: 'add the vector of each centroid' }),
    }),
    reply: ClusterRun,
    errors: ['cluster_not_found', 'cluster_run_not_found'],
  }),
  listClusterGroups: route({
    operation: 'listClusterGroups',
    method: 'GET',
    path: `${one}/groups`,
    tag,
    summary: 'The groups of a run with their members, noise as a group of its own',
    query: z.strictObject({
      ...RunQuery,
      members_limit: z.coerce
        .number()
        .int()
        .min(0)
        .max(1000)
        .default(20)
        .meta({ description: 'members shown of each group, surest first' }),
    }),
    reply: ClusterGroups,
    errors: ['cluster_not_found', 'cluster_run_not_found'],
  }),
  visualizeCluster: route({
    operation: 'visualizeCluster',
    method: 'GET',
    path: `${one}/visualization`,
    tag,
    summary: 'The map of a run: a point for each document',
    query: z.strictObject({
      ...RunQuery,
      max_points: z.coerce.number().int().min(1).max(20_000).default(5000),
      compact: z.stringbool().default(false),
      centroids_only: z.stringbool().default(false),
    }),
    reply: Visualization,
    errors: ['cluster_not_found', 'cluster_run_not_found'],
  }),
};
