// Retrievers: stored searches over collections, run with inputs. Tutorial step 6; API rules, sections 6 and 9.
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
  Pagination,
  Timestamp,
} from '../../http/schemas.ts';
import { agree } from '../../http/spellings.ts';

/** `GET .../retrievers/stages` would hide a retriever of that name. */
const Name = nameOf('ret_').refine(
  (name) => name !== 'stages',
  'a retriever cannot be named "stages", which is a path of its own',
);

const Collections = z.array(z.string().min(1).max(100)).max(20).meta({
  description:
    'ids or names; empty: every collection of the namespace that holds the features, found anew at each run',
});

/** Stages and inputs are read by the retrieval engine, which reports every fault itself. */
const Stages = z.array(z.json()).meta({
  id: 'RetrieverStages',
  description:
    'stages in order: {stage_name, stage_type, config: {stage_id, parameters}}; GET /v1/retrievers/stages lists them',
});
const InputSchema = z
  .json()
  .meta({ description: 'inputs by name: {type, required, default, description, enum}' });

const Budget = z.strictObject({
  max_time_ms: z.int().min(1).max(25_000).optional().meta({ description: 'wall-clock time of one run' }),
  max_credits: z
    .number()
    .min(0)
    .optional()
    .meta({ description: 'nothing costs credits here; kept as it is' }),
});

const shared = {
  name: Name.optional(),
  retriever_name: Name.optional(),
  description: Description.nullish(),
  collection_ids: Collections.nullish(),
  collection_identifiers: Collections.nullish(),
  input_schema: InputSchema.optional(),
  budget_limits: Budget.nullish(),
  tags: z.array(z.string().min(1).max(100)).max(50).nullish(),
  display_config: z.json().optional(),
  visibility: z.literal('private', { error: 'retrievers are private here' }).nullish(),
  metadata: Metadata.nullish(),
};

interface Loose {
  readonly name?: string | undefined;
  readonly retriever_name?: string | undefined;
  readonly collection_ids?: readonly string[] | null | undefined;
  readonly collection_identifiers?: readonly string[] | null | undefined;
}

function bothAgree(body: Loose, ctx: z.RefinementCtx): void {
  agree(ctx, body, 'retriever_name', 'name');
  agree(ctx, body, 'collection_identifiers', 'collection_ids');
}

/** Both spellings -> one. `null` of a list means: the empty one. */
function normalise<T extends z.output<z.ZodObject<typeof shared>>>(body: T) {
  const { name, retriever_name, collection_ids, collection_identifiers, visibility: _, ...rest } = body;
  const given = collection_ids ?? collection_identifiers;
  const asked = collection_ids !== undefined || collection_identifiers !== undefined;
  return {
    ...rest,
    name: name ?? retriever_name,
    collections: given ?? (asked ? [] : undefined),
    /** The spelling that was used, for the locations of faults. */
    collections_key: collection_ids ? 'collection_ids' : 'collection_identifiers',
  };
}

export const CreateRetrieverBody = z
  .strictObject({ ...shared, stages: Stages })
  .superRefine((body, ctx) => {
    bothAgree(body, ctx);
    if (body.name === undefined && body.retriever_name === undefined) {
      ctx.addIssue({
        code: 'custom',
        path: ['name'],
        message: 'required, a name is expected',
        params: { type: 'missing' },
      });
    }
  })
  .transform((body) => {
    const { name, collections, ...rest } = normalise(body);
    return { ...rest, name: name!, collections: collections ?? [] };
  });

/** PUT and PATCH alike: what is left out stays. */
export const UpdateRetrieverBody = z
  .strictObject({ ...shared, stages: Stages.optional() })
  .superRefine(bothAgree)
  .transform(normalise);

export const Stage = z
  .object({
    stage_name: z.string(),
    stage_type: z.enum(['filter', 'sort', 'reduce', 'apply', 'enrich']),
    config: z.object({ stage_id: z.string(), parameters: z.json() }),
    description: z.string().optional(),
  })
  .meta({ id: 'RetrieverStage' });

export const Retriever = z
  .object({
    retriever_id: z.string(),
    retriever_name: z.string(),
    name: z.string(),
    description: z.string().nullable(),
    collection_ids: z.array(z.string()),
    collection_identifiers: z.array(z.string()),
    stages: z.array(Stage),
    input_schema: z.record(z.string(), z.record(z.string(), z.json())),
    budget_limits: Budget,
    feature_uris: z.array(z.string()),
    feature_dependencies: z.array(
      z.object({
        scheme: z.literal('mixpeek'),
        extractor: z.string(),
        version: z.string(),
        output: z.string(),
      }),
    ),
    tags: z.array(z.string()),
    display_config: z.json(),
    visibility: z.literal('private'),
    metadata: Metadata,
    version: z.int(),
    created_at: Timestamp,
    updated_at: Timestamp,
    warnings: z.array(z.string()).optional(),
  })
  .meta({ id: 'Retriever' });
export type Retriever = z.output<typeof Retriever>;

const anyBody = z.record(z.string(), z.json());

/** Read by the engine (`normaliseExecuteBody`), which knows the mistakes that people make and names the right form. */
export const ExecuteBody = anyBody.meta({
  id: 'ExecuteRetriever',
  description:
    '`inputs` (or `input`) by name; `filters`; `limit` or `pagination {method: offset|cursor|scroll|keyset, ...}`; `return_vectors`, `return_presigned_urls`, `allow_partial`, `explain`; `index_versions {<collection id>: <version>}` to search an index as it was, by `versions` of an earlier run.',
  example: { inputs: { query: 'quantum computing' }, limit: 10 },
});
export const AdHocExecuteBody = anyBody.meta({
  id: 'ExecuteAdHoc',
  description:
    'as an execution, with `stages`, and optionally `input_schema` and `collection_identifiers`, of a retriever that is not stored',
});
export const BatchExecuteBody = z
  .strictObject({
    queries: z.array(anyBody).min(1).max(50).meta({ description: 'bodies of executions' }),
    settings: anyBody
      .optional()
      .meta({ description: 'members of every query that does not have them itself' }),
    return_vectors: z.boolean().optional(),
    return_presigned_urls: z.boolean().optional(),
  })
  .meta({ id: 'ExecuteRetrieverBatch' });

const flags = z.strictObject({
  return_vectors: z.stringbool().optional().meta({ description: 'add the vectors, by feature URI' }),
  return_presigned_urls: z
    .stringbool()
    .optional()
    .meta({ description: 'add URLs that read the blobs for an hour' }),
});

const Hit = z
  .looseObject({
    document_id: z.string(),
    collection_id: z.string(),
    score: z.number(),
    metadata: z.record(z.string(), z.json()),
  })
  .meta({ id: 'Hit', description: 'a document as its GET gives it, with its score in this run' });

const StageStatistics = z.object({
  input_count: z.int().nullable(),
  output_count: z.int().nullable(),
  duration_ms: z.number(),
  efficiency: z.number().nullable(),
  cache_hit: z.boolean(),
  error: z.string().nullable(),
  metadata: z.record(z.string(), z.json()),
});

const PlannedStage = z.looseObject({
  stage_index: z.int(),
  stage_name: z.string(),
  stage_type: z.string(),
  stage_id: z.string(),
  estimated_input: z.int().nullable(),
  estimated_output: z.int().nullable(),
  estimated_efficiency: z.number().nullable(),
  optimization_notes: z.array(z.string()),
  warnings: z.array(z.string()),
});
const Plan = z.object({
  execution_plan: z.array(PlannedStage),
  total_estimated_stages: z.int(),
  feature_uris: z.array(z.string()),
});

const Facet = z
  .object({
    key: z.string().meta({ description: 'the field, as the stage names it' }),
    stage_name: z.string().meta({ description: 'the stage that asked for it' }),
    values: z.array(
      z.object({
        value: z.union([z.string(), z.number(), z.boolean(), z.null()]),
        count: z.int().meta({ description: 'documents that hold it; a list holds each of its elements' }),
      }),
    ),
    missing_count: z.int().meta({ description: 'documents without the field' }),
    total_values: z.int().meta({ description: 'distinct values, whether they are shown or not' }),
    exact: z.boolean(),
  })
  .meta({
    id: 'Facet',
    description: 'values of a field over every document that the filters let through, most frequent first',
  });

export const Execution = z
  .object({
    retriever_id: z.string().nullable().meta({ description: 'null for a run that is not stored' }),
    execution_id: z.string(),
    status: z.enum(['completed', 'degraded']),
    documents: z.array(Hit),
    results: z.array(Hit).meta({ description: 'the same list as `documents`' }),
    pagination: z.looseObject(Pagination.shape),
    stage_statistics: z.object({ stages: z.record(z.string(), StageStatistics), total_time_ms: z.number() }),
    facets: z.array(Facet),
    budget: z.object({ time_used_ms: z.number(), time_limit_ms: z.number() }),
    warnings: z.array(z.string()),
    degraded: z.array(z.object({ resource: z.string(), reason: z.string() })).optional(),
    explain_plan: Plan.optional(),
    error: z.string().nullable(),
  })
  .meta({ id: 'Execution' });
export type Execution = z.input<typeof Execution>;

const BatchExecution = z.object({
  retriever_id: z.string(),
  results: z.array(
    z.union([
      Execution.extend({ query_index: z.int() }),
      z.object({
        query_index: z.int(),
        status: z.literal('failed'),
        documents: z.array(Hit),
        results: z.array(Hit),
        error: z.string(),
        error_details: z.record(z.string(), z.json()),
      }),
    ]),
  ),
  total_queries: z.int(),
  failed_queries: z.int(),
});

const tag = 'retrievers';
const base = '/v1/namespaces/{namespace}/retrievers';
/** A query may hold a file in base64: 3.6 MB of it. Larger ones go by URL. */
const queryRoom = { bytesMax: 5_000_000, stringBytesMax: 4_900_000 } as const;

const runErrors = [
  'retriever_input_invalid',
  'retriever_timeout',
  'collection_not_found',
  'plugin_not_deployed',
  'plugin_failed',
  'plugin_timeout',
  'plugin_unavailable',
  'plugin_secret_missing',
  'plugin_not_supported',
  'index_version_gone',
  'index_unavailable',
  'index_corrupt',
  'request_bad_cursor',
] as const;

export const routes = {
  createRetriever: route({
    operation: 'createRetriever',
    method: 'POST',
    path: base,
    tag,
    summary: 'Make a retriever',
    body: CreateRetrieverBody,
    reply: Retriever,
    errors: ['retriever_name_taken', 'retriever_invalid', 'quota_exceeded'],
    example: {
      body: {
        name: 'text_search',
        stages: [
          {
            stage_name: 'vector_search',
            stage_type: 'filter',
            config: {
              stage_id: 'feature_search',
              parameters: {
                searches: [
                  {
                    feature_uri: 'mixpeek://text_embed@1.0.0/text_embed_v1_embedding',
                    query: '{{INPUT.query}}',
                  },
                ],
              },
            },
          },
        ],
      },
    },
  }),
  listRetrievers: route({
    operation: 'listRetrievers',
    method: 'GET',
    path: base,
    tag,
    summary: 'List retrievers, newest first',
    query: ListQuery,
    reply: listReply(Retriever),
  }),
  searchRetrievers: route({
    operation: 'searchRetrievers',
    method: 'POST',
    path: `${base}/list`,
    tag,
    summary: 'List retrievers by search, filter and order',
    permission: 'read',
    query: ListQuery,
    body: ListBody,
    bodyOptional: true,
    reply: listReply(Retriever),
  }),
  listRetrieverStages: route({
    operation: 'listRetrieverStages',
    method: 'GET',
    path: `${base}/stages`,
    tag,
    summary: 'List the stages that retrievers can use',
    reply: z.array(
      z.object({
        stage_id: z.string(),
        description: z.string(),
        category: z.enum(['filter', 'sort', 'reduce', 'apply', 'enrich']),
        icon: z.string(),
        parameter_schema: z.json(),
      }),
    ),
  }),
  executeAdHoc: route({
    operation: 'executeAdHoc',
    method: 'POST',
    path: `${base}/execute`,
    tag,
    summary: 'Run stages that are not stored as a retriever',
    permission: 'read',
    rate: 'search',
    target: 'query',
    query: flags,
    body: AdHocExecuteBody,
    bodyRoom: queryRoom,
    reply: Execution,
    errors: ['retriever_invalid', ...runErrors],
  }),
  getRetriever: route({
    operation: 'getRetriever',
    method: 'GET',
    path: `${base}/{retriever}`,
    tag,
    summary: 'Read a retriever by id or name',
    reply: Retriever,
    errors: ['retriever_not_found'],
  }),
  putRetriever: route({
    operation: 'putRetriever',
    method: 'PUT',
    path: `${base}/{retriever}`,
    tag,
    summary: 'Change a retriever',
    body: UpdateRetrieverBody,
    reply: Retriever,
    errors: [
      'retriever_not_found',
      'retriever_name_taken',
      'retriever_invalid',
      'retriever_changed',
      'request_stale',
    ],
  }),
  patchRetriever: route({
    operation: 'patchRetriever',
    method: 'PATCH',
    path: `${base}/{retriever}`,
    tag,
    summary: 'Change parts of a retriever',
    body: UpdateRetrieverBody,
    reply: Retriever,
    errors: [
      'retriever_not_found',
      'retriever_name_taken',
      'retriever_invalid',
      'retriever_changed',
      'request_stale',
    ],
  }),
  deleteRetriever: route({
    operation: 'deleteRetriever',
    method: 'DELETE',
    path: `${base}/{retriever}`,
    tag,
    summary: 'Delete a retriever that no taxonomy or alert uses',
    reply: DeleteReply,
    errors: ['retriever_not_found', 'retriever_in_use', 'retriever_changed', 'request_stale'],
  }),
  executeRetriever: route({
    operation: 'executeRetriever',
    method: 'POST',
    path: `${base}/{retriever}/execute`,
    tag,
    summary: 'Run a retriever',
    permission: 'read',
    rate: 'search',
    target: 'query',
    query: flags,
    body: ExecuteBody,
    bodyRoom: queryRoom,
    bodyOptional: true,
    reply: Execution,
    errors: ['retriever_not_found', ...runErrors],
    example: { body: { input: { query: 'quantum computing' } } },
  }),
  explainRetriever: route({
    operation: 'explainRetriever',
    method: 'POST',
    path: `${base}/{retriever}/execute/explain`,
    tag,
    summary: 'Say what a run would do, without running it',
    permission: 'read',
    rate: 'search',
    target: 'query',
    body: ExecuteBody,
    bodyRoom: queryRoom,
    bodyOptional: true,
    reply: Plan.extend({
      retriever_id: z.string(),
      retriever_name: z.string(),
      collection_ids: z.array(z.string()),
    }),
    errors: ['retriever_not_found', 'retriever_input_invalid'],
  }),
  executeRetrieverBatch: route({
    operation: 'executeRetrieverBatch',
    method: 'POST',
    path: `${base}/{retriever}/execute/batch`,
    tag,
    summary: 'Run a retriever for 1 to 50 queries over one version of the index',
    permission: 'read',
    rate: 'search',
    target: 'query',
    query: flags,
    body: BatchExecuteBody,
    bodyRoom: queryRoom,
    reply: BatchExecution,
    errors: ['retriever_not_found', ...runErrors],
  }),
};
