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
import { isReserved } from '../../reserved-fields.ts';

const Name = nameOf('clust_');
const Id = z.string().min(1).max(200);
const Uri = z.string().min(1).max(400);
const Parameters = z.record(z.string().min(1).max(100), z.json());
const Algorithm = z.string().min(1).max(100);
const Method = z.enum(['umap', 'pca', 'tsne']).meta({ description: 'how vectors are laid out for the map' });
const Components = z.union([z.literal(2), z.literal(3)]);
const SampleSize = z.int().min(2).max(1_000_000);
const Threshold = z.number().min(0).max(1).meta({
  description:
    'a new document joins its nearest group if it is at least so near: cosine similarity to the centroid; for the metric euclid 1 is on the centroid and 0.5 as far out as the furthest member of the base run',
});

export const runModes = ['full', 'assign', 'enrich', 'remove'] as const;
export const runTriggers = ['create', 'execute', 'batch', 'schedule', 'enrich'] as const;

/** What a run can write into documents. */
export const enrichmentSources = [
  'cluster_id',
  'cluster_label',
  'cluster_summary',
  'cluster_keywords',
  'cluster_probability',
  'parent_cluster_id',
  'run_id',
] as const;

/** Other spellings of the sources. */
const sourceSpellings: Readonly<Record<string, (typeof enrichmentSources)[number]>> = {
  ...Object.fromEntries(enrichmentSources.map((source) => [source, source])),
  label: 'cluster_label',
  summary: 'cluster_summary',
  keywords: 'cluster_keywords',
  probability: 'cluster_probability',
  score: 'cluster_probability',
};

const EnrichmentConfig = z
  .strictObject({
    field_mappings: z
      .array(
        z.strictObject({
          source_field: z.string().refine((name) => Object.hasOwn(sourceSpellings, name), {
            message: `expected one of ${enrichmentSources.join(', ')}`,
          }),
          target_field: z
            .string()
            .regex(
              /^[A-Za-z][A-Za-z0-9_]{0,63}$/,
              'a field has a letter first and 1 to 64 letters, digits or "_"',
            )
            .refine((name) => !isReserved(name), 'is kept by the service'),
        }),
      )
      .min(1)
      .max(10),
  })
  .superRefine(({ field_mappings }, ctx) => {
    const targets = field_mappings.map((mapping) => mapping.target_field);
    for (const [i, target] of targets.entries()) {
      if (targets.indexOf(target) === i) continue;
      ctx.addIssue({
        code: 'custom',
        path: ['field_mappings', i, 'target_field'],
        message: `"${target}" is written twice`,
        params: { fix: 'give each mapping a field of its own' },
      });
    }
  })
  .transform(({ field_mappings }) =>
    field_mappings.map(({ source_field, target_field }) => ({
      source: sourceSpellings[source_field]!,
      target: target_field,
    })),
  )
  .meta({
    id: 'ClusterEnrichmentInput',
    description: `what documents are told, and in which field. Sources: ${enrichmentSources.join(', ')}`,
  });

const Preprocessing = z.array(
  z.strictObject({
    step: z.enum(['l2_normalize', 'center', 'standardize', 'pca', 'whiten']),
    params: z.strictObject({ n_components: z.int().min(1).max(4096).optional() }).default({}),
  }),
);

const ClusterSpace = z
  .strictObject({
    method: z.enum(['auto', 'none', 'umap', 'pca']).default('auto'),
    n_components: z.int().min(2).max(100).nullish(),
  })
  .meta({
    description: 'the space that is clustered in; auto: few dimensions by umap, or by pca for many rows',
  });

const ScheduleMode = z.enum(['full', 'assign']);

export const ScheduleInput = z
  .strictObject({
    interval_seconds: z
      .int()
      .min(300)
      .max(31 * 86_400)
      .nullish(),
    cron: z.string().min(1).max(200).nullish().meta({
      description: 'five fields: minute, hour, day of month, month, day of week; at least 5 minutes apart',
    }),
    timezone: z.literal('UTC').default('UTC'),
    mode: ScheduleMode.default('full'),
  })
  .superRefine((body, ctx) => {
    if ((body.interval_seconds ?? null) === null && (body.cron ?? null) === null)
      ctx.addIssue({
        code: 'custom',
        path: ['interval_seconds'],
        message: 'a schedule needs "interval_seconds" or "cron"',
        params: { type: 'missing', fix: 'write {"interval_seconds": 3600} or {"cron": "0 3 * * *"}' },
      });
    else if ((body.interval_seconds ?? null) !== null && (body.cron ?? null) !== null)
      ctx.addIssue({
        code: 'custom',
        path: ['cron'],
        message: '"interval_seconds" and "cron" both say when',
        params: { fix: 'send one of them' },
      });
  })
  .transform((body) => ({
    mode: body.mode,
    interval_seconds: body.interval_seconds ?? null,
    cron: body.cron ?? null,
    timezone: body.timezone,
  }))
  .meta({ id: 'ClusterScheduleInput' });

const AttributeConfig = z.strictObject({
  attributes: z.array(z.string().min(1).max(200)).min(1).max(5).optional(),
  hierarchical_grouping: z.boolean().optional(),
  missing_values: z
    .enum(['group', 'skip'])
    .optional()
    .meta({ description: 'documents without a value make a group of their own, or belong to none' }),
  // Clients send it; there is one way.
  aggregation_method: z.string().max(100).nullish(),
});

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
  dbscan_parameters: Parameters.nullish(),
  hdbscan_parameters: Parameters.nullish(),
  multi_feature_strategy: z
    .enum(['concatenate', 'weighted', 'independent'])
    .optional()
    .meta({ description: 'vectors of several features are put behind each other; independent is refused' }),
  normalize_features: z
    .boolean()
    .optional()
    .meta({ description: 'of several features: make unit vectors of each first' }),
  feature_weights: z
    .record(Uri, z.number().gt(0).max(1))
    .nullish()
    .meta({ description: 'of several features: the share of each in a similarity' }),
  output_strategy: z.literal('single').optional(),
  effective_feature_method: z.literal('mean').optional(),
  preprocessing_steps: Preprocessing.max(5).nullish(),
  cluster_space: ClusterSpace.nullish(),
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
  attribute_config: AttributeConfig.optional(),
  preprocessing_steps: Preprocessing.max(5).nullish(),
  cluster_space: ClusterSpace.nullish(),
  dimension_reduction: z
    .strictObject({ method: Method.default('umap'), n_components: Components.default(2) })
    .nullish()
    .meta({ description: 'of the map; see cluster_space for the space that is clustered in' }),
  vis_method: Method.optional(),
  vis_n_components: Components.optional(),
  llm_labeling: Labeling.nullish(),
  filters: FilterTree.nullish(),
  sample_size: SampleSize.nullish(),
  enrich_source_collection: z.boolean().optional(),
  source_enrichment_config: EnrichmentConfig.nullish(),
  schedule: ScheduleInput.nullish().meta({ description: 'runs by itself; null: it does not' }),
  auto_mode: z.enum(['full', 'assign']).nullish().meta({
    description:
      'what the runs after batches do; naming it turns auto_execute_on_batch on, unless that is said',
  }),
  assignment_threshold: Threshold.nullish(),
  auto_execute_on_batch: z.boolean().nullish(),
  auto_execute_min_documents: z.int().min(1).nullish(),
  auto_execute_cooldown_seconds: z.int().min(0).max(2_592_000).nullish(),
  metadata: Metadata.optional(),
};

const createShape = {
  ...settings,
  collection_id: Id.optional(),
  collection_ids: z.array(Id).min(1).max(20).optional(),
  cluster_type: z.enum(['vector', 'attribute']).optional(),
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

/** What groups by values go by: said in its own member, or as the parameters of the algorithm `attribute_based`. */
function readAttributes(
  body: SettingsBody,
  params: (Said<z.output<typeof Parameters>> & { readonly value: z.output<typeof Parameters> }) | undefined,
  ctx: z.RefinementCtx,
): z.output<typeof AttributeConfig> | undefined {
  if (body.algorithm?.name !== 'attribute_based' || !params) return body.attribute_config;
  const parsed = AttributeConfig.safeParse(params.value);
  if (parsed.success)
    return agreed(ctx, [
      said(body.attribute_config, 'attribute_config'),
      said(Object.keys(parsed.data).length > 0 ? parsed.data : undefined, ...params.path),
    ])?.value;
  for (const issue of parsed.error.issues)
    ctx.addIssue({ code: 'custom', path: [...params.path, ...(issue.path as Path)], message: issue.message });
  return body.attribute_config;
}

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
    said(vector?.dbscan_parameters, 'vector_config', 'dbscan_parameters'),
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
    attribute_config: readAttributes(body, params, ctx),
    preprocessing_steps: agreed(ctx, [
      said(body.preprocessing_steps, 'preprocessing_steps'),
      said(vector?.preprocessing_steps, 'vector_config', 'preprocessing_steps'),
    ])?.value,
    cluster_space: agreed(ctx, [
      said(body.cluster_space, 'cluster_space'),
      said(vector?.cluster_space, 'vector_config', 'cluster_space'),
    ])?.value,
    normalize_features: vector?.normalize_features,
    feature_weights: vector?.feature_weights,
    enrichment_fields: body.source_enrichment_config,
    schedule: body.schedule,
    auto_mode: body.auto_mode,
    assignment_threshold: body.assignment_threshold,
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
  const byValues =
    body.cluster_type === 'attribute' ||
    body.attribute_config !== undefined ||
    body.algorithm?.name === 'attribute_based' ||
    vector?.clustering_method === 'attribute_based';
  const features = agreed(ctx, [
    said(body.feature_uris, 'feature_uris'),
    said(body.feature_uri === undefined ? undefined : [body.feature_uri], 'feature_uri'),
    said(vector?.feature_uris, 'vector_config', 'feature_uris'),
    said(vector?.feature_uri ? [vector.feature_uri] : undefined, 'vector_config', 'feature_uri'),
  ]);
  const rest = readSettings(body, vector, ctx);
  if (byValues) {
    const conflict = (path: Path, message: string, fix: string) =>
      ctx.addIssue({ code: 'custom', path: [...path], message, params: { type: 'wrong_value', fix } });
    if (body.cluster_type === 'vector')
      conflict(['cluster_type'], 'groups by values are of the type attribute', 'write "attribute"');
    if (features)
      conflict(
        features.path,
        'groups by values have no feature',
        'leave it out, or leave the attributes out',
      );
    if (rest.algorithm !== undefined && rest.algorithm !== 'attribute_based')
      conflict(rest.at.algorithm, 'groups by values have no such algorithm', 'write "attribute_based"');
    if ((rest.attribute_config?.attributes ?? []).length === 0)
      need('attribute_config', 'the fields to group by, such as {"attributes": ["topic"]}');
  } else {
    if (!features)
      need('feature_uri', 'a feature URI such as mixpeek://text_embed@1.0.0/text_embed_v1_embedding');
    if (rest.algorithm === undefined)
      need('algorithm', 'an algorithm such as {"name": "hdbscan", "params": {"min_cluster_size": 5}}');
  }
  if (vector?.multi_feature_strategy === 'independent')
    ctx.addIssue({
      code: 'custom',
      path: ['vector_config', 'multi_feature_strategy'],
      message: 'features are not clustered one by one in one definition',
      params: { type: 'wrong_value', fix: 'make a definition for each feature, or write "concatenate"' },
    });
  return {
    ...rest,
    cluster_type: byValues ? ('attribute' as const) : ('vector' as const),
    algorithm: byValues ? 'attribute_based' : (rest.algorithm ?? ''),
    params: byValues ? {} : rest.params,
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
  mode: z.enum(['full', 'assign']).optional().meta({
    description: 'assign: documents that no run has grouped yet join the nearest group of the last full run',
  }),
  assignment_threshold: Threshold.nullish(),
  filters: FilterTree.nullish(),
  sample_size: SampleSize.nullish(),
  vis_n_components: Components.nullish(),
  llm_labeling: Labeling.nullish(),
});
export type ExecuteClusterBody = z.output<typeof ExecuteClusterBody>;

/** What is written into documents once more, or taken away. */
export const EnrichBody = z.strictObject({
  run_id: z.string().min(1).max(100).nullish().meta({ description: 'the last completed run if left out' }),
  source_enrichment_config: EnrichmentConfig.nullish().meta({
    description: 'for this run alone; that of the definition if left out',
  }),
  remove: z
    .boolean()
    .default(false)
    .meta({ description: 'take away what documents were told, instead of telling them' }),
});
export type EnrichBody = z.output<typeof EnrichBody>;

export const RunLabelsBody = z.strictObject({
  labels: z
    .record(
      z.string().regex(/^cl_(0|[1-9][0-9]{0,8})$/, 'expected cl_<n>'),
      z.string().trim().min(1).max(120).nullable(),
    )
    .refine((labels) => Object.keys(labels).length > 0, 'name at least one cluster')
    .refine((labels) => Object.keys(labels).length <= 200, 'at most 200 clusters')
    .meta({ description: 'name by cluster id; null takes your name away again' }),
});

export const RunNameBody = z.strictObject({ run_name: z.string().trim().min(1).max(120).nullable() });

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
    cluster_type: z.enum(['vector', 'attribute']),
    collection_id: z.string(),
    collection_ids: z.array(z.string()),
    input_collections: z.array(z.string()),
    feature_uri: z.string().nullable(),
    feature_uris: z.array(z.string()),
    algorithm: z.object({ name: z.string(), params: Parameters }),
    algorithm_params: Parameters,
    vector_config: z
      .object({
        feature_uris: z.array(z.string()),
        clustering_method: z.string(),
        algorithm_params: Parameters,
        normalize_features: z.boolean(),
        feature_weights: z.record(z.string(), z.number()),
        preprocessing_steps: z.array(z.object({ step: z.string(), params: Parameters })),
        cluster_space: z.object({ method: z.string(), n_components: z.int().nullable() }),
        vis_method: Method,
        vis_n_components: Components,
        sample_size: z.int().nullable(),
      })
      .nullable(),
    attribute_config: z
      .object({
        attributes: z.array(z.string()),
        hierarchical_grouping: z.boolean(),
        missing_values: z.enum(['group', 'skip']),
      })
      .nullable(),
    dimension_reduction: z.object({ method: Method, n_components: Components }),
    llm_labeling: LabelingReply,
    filters: z.json().nullable(),
    enrich_source_collection: z.boolean(),
    source_enrichment_config: z.object({
      field_mappings: z.array(z.object({ source_field: z.string(), target_field: z.string() })),
    }),
    schedule: z
      .object({
        mode: ScheduleMode,
        interval_seconds: z.int().nullable(),
        cron: z.string().nullable(),
        timezone: z.literal('UTC'),
        next_run_at: Timestamp,
        last_skipped: z
          .string()
          .nullable()
          .meta({ description: 'why no run was started the last time; null: one was' }),
      })
      .nullable(),
    auto_mode: z.enum(['full', 'assign']),
    assignment_threshold: z.number(),
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
const LabelSource = z
  .enum(['ctfidf', 'model', 'values', 'user'])
  .meta({ description: 'words of the texts, a model, the values that were grouped by, or a user' });

const Centroid = z
  .object({
    cluster_id: z.string(),
    num_members: z.int(),
    label: z.string(),
    label_source: LabelSource,
    summary: z.string().nullable(),
    keywords: z.array(z.string()),
    representative_ids: z.array(z.string()),
    mean_cosine_similarity: z.number().nullish().meta({ description: 'of the members to the centroid' }),
    min_cosine_similarity: z.number().nullish(),
    num_assigned: z
      .int()
      .optional()
      .meta({ description: 'of the members, those that joined after the full run' }),
    parent_cluster_id: z.string().nullish(),
    level: z.int().optional().meta({ description: 'of groups by values: 0 for the first field' }),
    attributes: z
      .record(z.string(), z.json())
      .optional()
      .meta({ description: 'the values that the members share; null: they have none' }),
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
    cluster_size_entropy: z.number().nullish(),
  })
  .meta({ id: 'ClusterMetrics' });

const runShape = {
  run_id: z.string(),
  cluster_id: z.string(),
  task_id: z.string(),
  status: z.enum(runStatuses),
  run_name: z.string().nullable(),
  mode: z.enum(runModes),
  base_run_id: z
    .string()
    .nullable()
    .meta({ description: 'the run whose groups this one uses; null for a full run' }),
  assignment_threshold: z.number().nullable(),
  assignment: z
    .object({ documents: z.int(), assigned: z.int() })
    .nullable()
    .meta({ description: 'new documents that an assigning run looked at, and how many found a group' }),
  trigger: z.enum(runTriggers),
  batch_id: z.string().nullable(),
  num_clusters: z.int(),
  num_points: z.int(),
  source_documents: z
    .int()
    .meta({ description: 'documents that the definition is about; num_points is less for a sample' }),
  metrics: Metrics.nullable(),
  sampling: z.record(z.string(), z.json()).nullable().meta({
    description: 'rows: given; clustered: of these; assigned: joined the nearest cluster; cap: most rows',
  }),
  centroids: z
    .array(Centroid)
    .nullable()
    .meta({ description: 'null in lists and in runs that are not completed' }),
  label_source: LabelSource.nullable(),
  llm_labeling_errors: z.array(z.string()),
  label_overrides: z
    .record(z.string(), z.string())
    .meta({ description: 'names that users gave, by cluster' }),
  message: z.string().nullable(),
  degenerate_detail: z.json().nullable(),
  error_message: z.string().nullable(),
  failure_reason: z.enum(['canceled']).nullable(),
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
          z.object({
            document_id: z.string(),
            collection_id: z.string(),
            probability: z.number(),
            assigned: z.boolean().optional().meta({ description: 'it joined after the full run' }),
          }),
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
    unplaced_points: z.int().meta({ description: 'documents without a place on the map' }),
    points: z
      .array(
        z.union([
          z.object({
            document_id: z.string(),
            collection_id: z.string(),
            cluster_id: z.string(),
            label: z.string().nullable(),
            assigned: z
              .boolean()
              .optional()
              .meta({ description: 'it joined after the full run and stands at the centre of its group' }),
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

export const exportFormats = ['jsonl', 'csv', 'json'] as const;

export const ClusterExport = z
  .object({
    cluster_id: z.string(),
    run_id: z.string(),
    format: z.enum(exportFormats),
    cluster_label: z.string().nullable(),
    document_count: z.int(),
    file_size_bytes: z.int(),
    download_url: z.string().meta({ description: 'reads the file for an hour' }),
    expires_at: Timestamp,
    warnings: Warnings,
  })
  .meta({ id: 'ClusterExport' });

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
    summary:
      'Delete a cluster definition with its runs; documents keep what they were told, unless asked otherwise',
    query: z.strictObject({
      remove_enrichments: z.stringbool().default(false).meta({
        description:
          'take away first what documents were told; up to 20,000 documents, for more POST .../enrich {"remove": true} before',
      }),
    }),
    reply: DeleteReply,
    errors: ['cluster_not_found', 'cluster_changed', 'cluster_in_use', 'cluster_too_many_documents'],
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
    errors: ['cluster_not_found', 'cluster_invalid', 'cluster_base_missing'],
    example: { body: { mode: 'full' } },
  }),
  enrichFromCluster: route({
    operation: 'enrichFromCluster',
    method: 'POST',
    path: `${one}/enrich`,
    tag,
    summary: 'Tell the documents once more what a run found, or take away what they were told',
    description:
      'Answers with a run of its own, which does the work. Names that were given to clusters since, and other fields, reach the documents so.',
    rate: 'compute',
    body: EnrichBody,
    bodyOptional: true,
    reply: ClusterRun,
    errors: ['cluster_not_found', 'cluster_run_not_found'],
    example: {
      body: {
        source_enrichment_config: {
          field_mappings: [{ source_field: 'cluster_label', target_field: 'theme' }],
        },
      },
    },
  }),
  cancelClusterExecution: route({
    operation: 'cancelClusterExecution',
    method: 'POST',
    path: `${one}/executions/{run}/cancel`,
    tag,
    summary: 'End a run that has not ended: it becomes failed and changes nothing any more',
    reply: ClusterRun,
    errors: ['cluster_not_found', 'cluster_run_not_found', 'cluster_run_wrong_state'],
  }),
  patchClusterLabels: route({
    operation: 'patchClusterLabels',
    method: 'PATCH',
    path: `${one}/executions/{run}/labels`,
    tag,
    summary: 'Give clusters of a run names of your own; the same clusters keep them in the runs that follow',
    description: 'Documents say the new names after the next run, or after POST .../enrich.',
    body: RunLabelsBody,
    reply: ClusterRun,
    errors: ['cluster_not_found', 'cluster_run_not_found', 'cluster_run_wrong_state', 'cluster_changed'],
    example: { body: { labels: { cl_0: 'Water' } } },
  }),
  renameClusterExecution: route({
    operation: 'renameClusterExecution',
    method: 'PATCH',
    path: `${one}/executions/{run}/name`,
    tag,
    summary: 'Give a run a name',
    body: RunNameBody,
    reply: ClusterRun,
    errors: ['cluster_not_found', 'cluster_run_not_found'],
    example: { body: { run_name: 'before the relaunch' } },
  }),
  exportClusterExecution: route({
    operation: 'exportClusterExecution',
    method: 'GET',
    path: `${one}/executions/{run}/export`,
    tag,
    summary: 'A file with a line for each document of a run: its group and its place on the map',
    description:
      'In csv a text that a spreadsheet would take for a formula has an apostrophe before it. Files are kept for 7 days.',
    rate: 'compute',
    query: z.strictObject({
      format: z.enum(exportFormats).default('jsonl'),
      cluster_label: z
        .string()
        .min(1)
        .max(200)
        .optional()
        .meta({ description: 'only the documents of the group with this label or id' }),
    }),
    reply: ClusterExport,
    errors: ['cluster_not_found', 'cluster_run_not_found'],
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
      members_offset: z.coerce
        .number()
        .int()
        .min(0)
        .max(100_000)
        .default(0)
        .meta({ description: 'members of each group to leave out before' }),
      cluster_id: z
        .string()
        .min(1)
        .max(20)
        .optional()
        .meta({ description: 'only this group: cl_<n>, or noise' }),
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
