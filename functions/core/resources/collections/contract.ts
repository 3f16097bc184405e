// Collections: which plugins run over the objects of which buckets, and what happens after. Tutorial step 5.
import * as z from 'zod';
import { route } from '../../http/route.ts';
import {
  DeleteReply,
  Description,
  ListBody,
  ListQuery,
  listReply,
  Metadata,
  nameOf,
  Timestamp,
} from '../../http/schemas.ts';
import { agree } from '../../http/spellings.ts';

const Name = nameOf('col_');
const Property = z.string().min(1).max(100);

/** Some write the mappings as `[{input_key, path}]`. */
const Mappings = z
  .union([
    z.record(z.string().min(1).max(100), Property),
    z
      .array(
        z.strictObject({
          input_key: z.string().min(1).max(100),
          path: Property,
          source_type: z.literal('payload').optional(),
        }),
      )
      .max(20),
  ])
  .transform(
    (given): Record<string, string> =>
      Array.isArray(given)
        ? Object.fromEntries(given.map(({ input_key, path }) => [input_key, path]))
        : given,
  );

export const ExtractorBody = z
  .strictObject({
    feature_extractor_name: z
      .string()
      .regex(/^[a-zA-Z][a-zA-Z0-9_]{2,63}$/, 'a plugin name is a letter and 2 to 63 letters, digits or "_"'),
    version: z.string().regex(/^v?\d{1,6}(\.\d{1,6}){0,2}$/, 'a version is three numbers, such as 1.0.0'),
    parameters: z.record(z.string(), z.json()).nullish(),
    params: z.record(z.string(), z.json()).nullish(),
    input_mappings: Mappings.nullish(),
  })
  .superRefine((body, ctx) => agree(ctx, body, 'params', 'parameters'))
  .transform(({ params, parameters, ...rest }) => ({ ...rest, parameters: parameters ?? params }))
  .meta({ id: 'FeatureExtractorInput' });

const phase = {
  execution_phase: z.int().min(1).max(4).optional(),
  priority: z.int().min(0).max(1000).optional(),
};

const TaxonomyApplication = z.strictObject({
  taxonomy_id: z.string().min(1).max(200),
  execution_mode: z.enum(['materialize', 'on_demand']).default('materialize'),
  target_collection_id: z.string().max(200).nullish(),
  scroll_filters: z.json().optional(),
  ...phase,
});
const ClusterApplication = z.strictObject({
  cluster_id: z.string().min(1).max(200),
  auto_execute_on_batch: z.boolean().default(true),
  min_document_threshold: z.int().min(1).nullish(),
  cooldown_seconds: z.int().min(0).optional(),
  ...phase,
});
const AlertApplication = z.strictObject({
  alert_id: z.string().min(1).max(200),
  execution_mode: z.enum(['on_ingest', 'scheduled', 'on_demand']).default('on_ingest'),
  input_mappings: z.json().optional(),
  ...phase,
});

const shared = {
  name: Name.optional(),
  collection_name: Name.optional(),
  description: Description.nullish(),
  enabled: z.boolean().optional(),
  metadata: Metadata.optional(),
  max_failure_share: z.number().min(0).max(1).optional().meta({
    description: 'share of failed objects, 0 to 1, up to which a batch still commits; 0.1 if left out',
  }),
  taxonomy_applications: z.array(TaxonomyApplication).max(20).nullish(),
  cluster_applications: z.array(ClusterApplication).max(20).nullish(),
  alert_applications: z.array(AlertApplication).max(20).nullish(),
};

const oneName = (
  body: { readonly name?: string | undefined; readonly collection_name?: string | undefined },
  ctx: z.RefinementCtx,
): void => agree(ctx, body, 'collection_name', 'name');

export const CreateCollectionBody = z
  .strictObject({
    ...shared,
    source: z
      .strictObject({
        type: z.literal('bucket').default('bucket'),
        bucket_ids: z.array(z.string().min(1).max(200)).min(1).max(20).optional(),
        bucket_id: z.string().min(1).max(200).optional(),
      })
      .superRefine((source, ctx) => {
        if (!source.bucket_ids && !source.bucket_id) {
          ctx.addIssue({
            code: 'custom',
            path: ['bucket_ids'],
            message: 'required, a list of bucket ids is expected',
            params: { type: 'missing' },
          });
        }
      })
      .transform((source) => ({ type: source.type, bucket_ids: source.bucket_ids ?? [source.bucket_id!] })),
    feature_extractors: z.array(ExtractorBody).min(1).max(8).optional(),
    feature_extractor: ExtractorBody.optional(),
    // Clients send the schema of the bucket again; the bucket's own one counts.
    input_schema: z.json().optional(),
  })
  .superRefine((body, ctx) => {
    oneName(body, ctx);
    if (body.name === undefined && body.collection_name === undefined) {
      ctx.addIssue({
        code: 'custom',
        path: ['name'],
        message: 'required, a name is expected',
        params: { type: 'missing' },
      });
    }
    if (body.feature_extractors === undefined && body.feature_extractor === undefined) {
      ctx.addIssue({
        code: 'custom',
        path: ['feature_extractors'],
        message: 'required, a list of extractors is expected',
        params: {
          type: 'missing',
          fix: 'send "feature_extractors": [{"feature_extractor_name": "...", "version": "1.0.0"}]',
        },
      });
    }
    const [first] = body.feature_extractors ?? [];
    if (first && body.feature_extractor && JSON.stringify(first) !== JSON.stringify(body.feature_extractor)) {
      ctx.addIssue({
        code: 'custom',
        path: ['feature_extractor'],
        message: '"feature_extractor" is the first of "feature_extractors", and they differ',
        params: { fix: 'send one of them' },
      });
    }
  })
  .transform(({ name, collection_name, feature_extractor, feature_extractors, input_schema, ...rest }) => ({
    ...rest,
    name: (name ?? collection_name)!,
    feature_extractors: feature_extractors ?? [feature_extractor!],
    /** The spelling that was used, for the locations of faults. */
    extractors_key: feature_extractors ? 'feature_extractors' : 'feature_extractor',
  }));

/**
 * PUT and PATCH alike: what is left out stays. The source stays for ever, and extractors until an upgrade: documents hang
 * on them.
 */
export const UpdateCollectionBody = z
  .strictObject(shared)
  .superRefine(oneName)
  .transform(
    ({ name, collection_name, taxonomy_applications, cluster_applications, alert_applications, ...rest }) => {
      const list = <T>(given: T[] | null | undefined) => (given === null ? [] : given);
      return {
        ...rest,
        name: name ?? collection_name,
        taxonomy_applications: list(taxonomy_applications),
        cluster_applications: list(cluster_applications),
        alert_applications: list(alert_applications),
      };
    },
  );

const Extractor = z
  .object({
    feature_extractor_name: z.string(),
    version: z.string(),
    feature_extractor_id: z.string().meta({ description: 'id of the plugin' }),
    input_mappings: z.record(z.string(), z.string()),
    parameters: z.record(z.string(), z.json()),
    params: z.record(z.string(), z.json()),
  })
  .meta({ id: 'FeatureExtractor' });

export const Feature = z
  .object({
    feature_uri: z.string(),
    feature_address: z.string(),
    feature_name: z.string(),
    feature_extractor_name: z.string(),
    version: z.string(),
    embedding_dim: z.int(),
    distance_metric: z.enum(['cosine', 'dot', 'euclid']),
    primary: z.boolean(),
  })
  .meta({ id: 'CollectionFeature' });

const Schema = z.object({ properties: z.record(z.string(), z.record(z.string(), z.json())) });

export const Collection = z
  .object({
    collection_id: z.string(),
    collection_name: z.string(),
    name: z.string(),
    description: z.string().nullable(),
    enabled: z.boolean(),
    source: z.object({ type: z.literal('bucket'), bucket_ids: z.array(z.string()) }),
    feature_extractors: z.array(Extractor),
    feature_extractor: Extractor,
    features: z.array(Feature),
    feature_aliases: z.record(z.string(), z.string()).meta({
      description: 'URIs of features that upgrades have replaced, and the feature that each names now',
    }),
    input_schema: Schema,
    output_schema: Schema,
    max_failure_share: z.number(),
    taxonomy_applications: z.array(z.record(z.string(), z.json())),
    cluster_applications: z.array(z.record(z.string(), z.json())),
    alert_applications: z.array(z.record(z.string(), z.json())),
    document_count: z.int(),
    metadata: Metadata,
    version: z.int(),
    created_at: Timestamp,
    updated_at: Timestamp,
  })
  .meta({ id: 'Collection' });
export type Collection = z.output<typeof Collection>;

const Storage = z.enum(['f32', 'bf16', 'mixed']);

/** What the index of a collection consists of; the numbers of `granary vectors stats`. */
export const CollectionIndex = z
  .object({
    collection_id: z.string(),
    version: z.int().meta({ description: 'grows with each commit; 0: nothing was ever committed' }),
    document_count: z.int().meta({ description: 'documents that can be seen' }),
    features: z.array(
      z.object({
        feature_uri: z.string(),
        dims: z.int(),
        metric: z.enum(['cosine', 'dot', 'euclid']),
        segments: z.int().meta({ description: 'files, those of deletions and patches included' }),
        rows: z.int().meta({ description: 'vectors in files, replaced and deleted ones included' }),
        live_rows: z
          .int()
          .nullable()
          .meta({ description: 'vectors that searches see; null unless `live_rows=true` asks for it' }),
        bytes: z.int(),
        storage: Storage.nullable().meta({ description: 'null: there are no vectors yet' }),
      }),
    ),
  })
  .meta({ id: 'CollectionIndex' });

const tag = 'collections';
const base = '/v1/namespaces/{namespace}/collections';

export const routes = {
  createCollection: route({
    operation: 'createCollection',
    method: 'POST',
    path: base,
    tag,
    summary: 'Make a collection over one or more buckets',
    body: CreateCollectionBody,
    reply: Collection,
    errors: ['collection_name_taken', 'quota_exceeded', 'bucket_not_found', 'plugin_not_found'],
    example: {
      body: {
        name: 'text_embed_articles',
        feature_extractors: [{ feature_extractor_name: 'text_embed', version: '1.0.0' }],
        source: { type: 'bucket', bucket_ids: ['articles'] },
      },
    },
  }),
  listCollections: route({
    operation: 'listCollections',
    method: 'GET',
    path: base,
    tag,
    summary: 'List collections, newest first',
    query: ListQuery,
    reply: listReply(Collection),
  }),
  searchCollections: route({
    operation: 'searchCollections',
    method: 'POST',
    path: `${base}/list`,
    tag,
    summary: 'List collections by search, filter and order',
    permission: 'read',
    query: ListQuery,
    body: ListBody,
    bodyOptional: true,
    reply: listReply(Collection),
  }),
  getCollection: route({
    operation: 'getCollection',
    method: 'GET',
    path: `${base}/{collection}`,
    tag,
    summary: 'Read a collection by id or name',
    reply: Collection,
    errors: ['collection_not_found'],
  }),
  getCollectionFeatures: route({
    operation: 'getCollectionFeatures',
    method: 'GET',
    path: `${base}/{collection}/features`,
    tag,
    summary: 'List the vector features of a collection',
    reply: z.object({ features: z.array(Feature) }),
    errors: ['collection_not_found'],
  }),
  getCollectionIndex: route({
    operation: 'getCollectionIndex',
    method: 'GET',
    path: `${base}/{collection}/index`,
    tag,
    summary: 'Read what the vector index of a collection consists of',
    rate: 'data',
    target: 'query',
    query: z.strictObject({
      live_rows: z
        .stringbool()
        .default(false)
        .meta({ description: 'count the rows that live, which reads the ids of all segments' }),
    }),
    reply: CollectionIndex,
    errors: ['collection_not_found', 'index_unavailable', 'index_corrupt'],
  }),
  putCollection: route({
    operation: 'putCollection',
    method: 'PUT',
    path: `${base}/{collection}`,
    tag,
    summary: 'Change a collection',
    body: UpdateCollectionBody,
    reply: Collection,
    errors: ['collection_not_found', 'collection_name_taken', 'collection_changed', 'request_stale'],
  }),
  patchCollection: route({
    operation: 'patchCollection',
    method: 'PATCH',
    path: `${base}/{collection}`,
    tag,
    summary: 'Change parts of a collection',
    body: UpdateCollectionBody,
    reply: Collection,
    errors: ['collection_not_found', 'collection_name_taken', 'collection_changed', 'request_stale'],
  }),
  deleteCollection: route({
    operation: 'deleteCollection',
    method: 'DELETE',
    path: `${base}/{collection}`,
    tag,
    summary: 'Delete a collection with its documents',
    reply: DeleteReply,
    errors: ['collection_not_found', 'collection_in_use', 'collection_changed'],
  }),
};
