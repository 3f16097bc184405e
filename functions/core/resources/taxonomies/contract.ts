// Taxonomies: documents take over fields of the reference that is nearest to them. Tutorial step 7; API rules, sections
// 6 and 10.
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
import {
  Config,
  checkRules,
  differ,
  EnrichmentFields,
  factsOf,
  Mappings,
  missing,
  ruleShape,
  Threshold,
} from './definition.ts';

const Name = nameOf('tax_');
const Id = z.string().min(1).max(100);
const FieldPath = z.string().min(1).max(256);
const Version = z.coerce.number().int().min(1).max(1_000_000);

export const executionModes = ['materialize', 'on_demand'] as const;
export type ExecutionMode = (typeof executionModes)[number];
const Mode = z.enum(executionModes).meta({
  description:
    'materialize: applied at create to what is there, and after every batch; on_demand: only by /execute',
});

const Application = z.strictObject({ collection_id: Id, execution_mode: Mode.optional() });

const shape = {
  taxonomy_name: Name.optional(),
  name: Name.optional(),
  description: Description.nullish(),
  collection_id: Id.nullish(),
  ...ruleShape,
  execution_mode: Mode.nullish(),
  applications: z.array(Application).max(10).nullish(),
  config: Config.nullish(),
  metadata: Metadata.nullish(),
};

type Loose = z.output<z.ZodObject<typeof shape>>;

function checkBody(body: Loose, ctx: z.RefinementCtx): void {
  if (body.name !== undefined && body.taxonomy_name !== undefined && body.name !== body.taxonomy_name)
    differ(ctx, ['name'], 'taxonomy_name');
  checkRules(body, ctx);
}

function normalise(body: Loose) {
  return {
    name: body.taxonomy_name ?? body.name,
    description: body.description,
    metadata: body.metadata,
    facts: factsOf(body),
    execution_mode: body.execution_mode ?? undefined,
    applications: body.applications ?? undefined,
  };
}

/** A create or update body in its one form; facts say where the request stated them. */
export type TaxonomyInput = ReturnType<typeof normalise>;

export const CreateTaxonomyBody = z
  .strictObject(shape)
  .superRefine((body, ctx) => {
    checkBody(body, ctx);
    if (body.name === undefined && body.taxonomy_name === undefined)
      missing(ctx, ['taxonomy_name'], 'a name');
    const facts = factsOf(body);
    if (facts.nodes.value || facts.cluster_ids.value || facts.taxonomy_type.value === 'hierarchical') return;
    if (facts.retriever.value === undefined) missing(ctx, ['retriever_id'], 'the id or name of a retriever');
    if (facts.collection.value === undefined)
      missing(ctx, ['collection_id'], 'the id or name of the collection with the references');
    if (facts.input_mappings.value === undefined)
      missing(
        ctx,
        ['input_mappings'],
        'a list of mappings',
        'send [{"source": "payload.text", "target": "query"}]',
      );
    const inferred = facts.path_field.value ?? facts.path_fields.value;
    if (facts.enrichment_fields.value === undefined && inferred === undefined)
      missing(
        ctx,
        ['enrichment_fields'],
        'a list of fields',
        'send [{"source": "payload.topic", "target": "auto_topic"}]',
      );
  })
  .transform((body) => ({ ...normalise(body), name: (body.taxonomy_name ?? body.name)! }));

/** PUT and PATCH alike: what is left out stays. */
export const UpdateTaxonomyBody = z.strictObject(shape).superRefine(checkBody).transform(normalise);

/** What of a definition makes a version, and whether that is to count at once. */
export const CreateVersionBody = z
  .strictObject({
    collection_id: Id.nullish(),
    ...ruleShape,
    config: Config.nullish(),
    note: z.string().max(500).nullish().meta({ description: 'why the version was made' }),
    activate: z
      .boolean()
      .default(true)
      .meta({ description: 'false: it can be tried by ?version=, and counts when it is activated' }),
  })
  .superRefine(checkRules)
  .transform((body) => ({ facts: factsOf(body), note: body.note ?? null, activate: body.activate }));

export const CloneTaxonomyBody = z
  .strictObject({
    taxonomy_name: Name,
    description: Description.nullish(),
    collection_id: Id.nullish(),
    ...ruleShape,
    config: Config.nullish(),
    execution_mode: Mode.default('on_demand'),
  })
  .superRefine(checkRules)
  .transform((body) => ({
    name: body.taxonomy_name,
    description: body.description,
    execution_mode: body.execution_mode,
    facts: factsOf(body),
  }));

export const FromClusterBody = z
  .strictObject({
    taxonomy_name: Name,
    description: Description.nullish(),
    run_id: Id.nullish().meta({ description: 'the newest completed run if left out' }),
    cluster_ids: z
      .array(Id)
      .max(4)
      .nullish()
      .meta({ description: 'finer definitions of the same feature, which become the levels below' }),
    cluster_overlap_threshold: ruleShape.cluster_overlap_threshold,
    threshold: Threshold,
    target_field: FieldPath.nullish().meta({ description: 'target of the label; "auto_topic" if left out' }),
    level_fields: ruleShape.level_fields,
    enrichment_fields: EnrichmentFields.nullish().meta({
      description: 'fields of the cluster: label, keywords, summary, cluster_id, num_members',
    }),
    input_mappings: Mappings.nullish().meta({
      description: 'the field whose text is embedded for documents without a vector, mapped to "text"',
    }),
    execution_mode: Mode.default('on_demand'),
    applications: z.array(Application).max(10).nullish(),
    metadata: Metadata.nullish(),
  })
  .transform((body) => ({
    name: body.taxonomy_name,
    description: body.description,
    metadata: body.metadata,
    execution_mode: body.execution_mode,
    applications: body.applications ?? undefined,
    run_id: body.run_id ?? undefined,
    finer: body.cluster_ids ?? [],
    facts: factsOf({
      cluster_overlap_threshold: body.cluster_overlap_threshold,
      threshold: body.threshold,
      path_target: body.target_field,
      level_fields: body.level_fields,
      enrichment_fields: body.enrichment_fields,
      input_mappings: body.input_mappings,
    }),
  }));

const StoredMapping = z.object({
  input_key: z.string(),
  source_type: z.enum(['payload', 'literal']),
  path: z.string().nullable(),
  override: z.json(),
});
const StoredField = z.object({
  field_path: z.string(),
  target_field: z.string(),
  merge_mode: z.enum(['replace', 'append']),
});

export const runStatuses = ['PENDING', 'PROCESSING', 'COMPLETED', 'FAILED', 'CANCELED'] as const;

export const TaxonomyRun = z
  .object({
    run_id: z.string(),
    task_id: z.string(),
    collection_id: z.string(),
    status: z.enum(runStatuses),
    processed: z.int().meta({ description: 'documents that were looked at' }),
    enriched: z.int().meta({ description: 'of these, documents that have a reference' }),
    changed: z.int().meta({ description: 'of these, documents that were written' }),
    failed: z.int().meta({ description: 'documents whose text the plugin refused' }),
    error: z.string().nullable(),
    warnings: Warnings.meta({
      description: 'why documents got nothing, such as a field that none of them has',
    }),
    created_at: Timestamp,
    completed_at: Timestamp.nullable(),
  })
  .meta({ id: 'TaxonomyRun' });
export type TaxonomyRun = z.output<typeof TaxonomyRun>;

const StoredNode = z.object({
  node_id: z.string(),
  parent_node_id: z.string().nullable(),
  label: z.string().nullable(),
  summary: z.string().nullable(),
  keywords: z.array(z.string()),
  collection_id: z.string(),
  retriever_id: z.string(),
  input_mappings: z.array(StoredMapping),
  enrichment_fields: z.array(StoredField),
  threshold: z.number().nullable(),
  link: z.object({ field: z.string(), parent_field: z.string() }).nullable(),
});

const StoredConfig = z.object({
  taxonomy_type: z.enum(['flat', 'hierarchical']),
  retriever_id: z.string().nullable(),
  input_mappings: z.array(StoredMapping),
  source_collection: z.object({ collection_id: z.string(), enrichment_fields: z.array(StoredField) }),
  enrichment_fields: z.array(StoredField),
  threshold: z.number().nullable(),
  vote: z.enum(['best', 'majority', 'weighted']),
  top_k: z.int(),
  min_share: z.number().nullable(),
  hierarchical_nodes: z.array(StoredNode).optional(),
  path: z
    .object({
      fields: z.array(z.string()),
      separator: z.string(),
      target: z.string(),
      level_fields: z.array(z.string()),
      level_thresholds: z.array(z.number()),
    })
    .optional(),
  centroids: z
    .object({
      count: z.int(),
      levels: z.int(),
      feature_uri: z.string(),
      metric: z.string(),
      runs: z.array(z.object({ cluster_id: z.string(), run_id: z.string() })),
      level_fields: z.array(z.string()),
    })
    .optional(),
});

export const Taxonomy = z
  .object({
    taxonomy_id: z.string(),
    taxonomy_name: z.string(),
    name: z.string(),
    description: z.string().nullable(),
    taxonomy_type: z.enum(['flat', 'hierarchical']),
    retriever_id: z.string().nullable().meta({ description: 'of the root; null: nearest centroids' }),
    collection_id: z.string(),
    input_mappings: z.array(StoredMapping),
    enrichment_fields: z.array(StoredField),
    targets: z.array(z.string()).meta({ description: 'every field that it may write' }),
    threshold: z.number().nullable(),
    execution_mode: Mode,
    applications: z.array(z.object({ collection_id: z.string(), execution_mode: Mode })),
    config: StoredConfig,
    ready: z.boolean().meta({ description: 'no run is waiting or working' }),
    last_run: TaxonomyRun.nullable(),
    task_id: z.string().nullable().meta({ description: 'task of the last run' }),
    task_ids: z
      .array(z.string())
      .optional()
      .meta({ description: 'tasks of the runs that this request began' }),
    metadata: Metadata,
    version: z.int().meta({ description: 'of the configuration; the ETag counts every change' }),
    latest_version: z.int().meta({ description: 'highest version, which need not be the one that counts' }),
    created_at: Timestamp,
    updated_at: Timestamp,
    warnings: z.array(z.string()).optional(),
  })
  .meta({ id: 'Taxonomy' });
export type Taxonomy = z.output<typeof Taxonomy>;

export const TaxonomyVersion = z
  .object({
    taxonomy_id: z.string(),
    version: z.int(),
    is_current: z.boolean(),
    taxonomy_type: z.enum(['flat', 'hierarchical']),
    config: StoredConfig,
    note: z.string().nullable(),
    created_by: z.string().meta({ description: 'id of the key' }),
    created_at: Timestamp,
  })
  .meta({ id: 'TaxonomyVersion' });
export type TaxonomyVersion = z.output<typeof TaxonomyVersion>;

export const TaxonomyNodeView = z
  .object({
    node_id: z.string(),
    parent_node_id: z.string().nullable(),
    level: z.int(),
    label: z.string().nullable(),
    summary: z.string().nullable(),
    keywords: z.array(z.string()),
    collection_id: z.string().nullable().meta({ description: 'where its references are; null: a centroid' }),
    retriever_id: z.string().nullable(),
    threshold: z.number().nullable(),
    num_members: z
      .int()
      .nullable()
      .meta({ description: 'documents of the cluster, or references with the path' }),
  })
  .meta({ id: 'TaxonomyNode' });
export type TaxonomyNodeView = z.output<typeof TaxonomyNodeView>;

const InlineDocument = z.record(z.string().min(1).max(200), z.json());

export const ExecuteTaxonomyBody = z
  .strictObject({
    document_ids: z.array(Id).min(1).max(500).nullish(),
    collection_id: Id.nullish().meta({
      description: 'where the documents are; the source collection if left out',
    }),
    documents: z
      .array(InlineDocument)
      .min(1)
      .max(100)
      .nullish()
      .meta({ description: 'documents that need not be stored' }),
    source_documents: z
      .array(InlineDocument)
      .min(1)
      .max(100)
      .nullish()
      .meta({ description: 'as `documents`' }),
    inputs: InlineDocument.nullish().meta({ description: 'inputs of the retriever, instead of a document' }),
    filters: FilterTree.nullish(),
    limit: z
      .int()
      .min(1)
      .max(500)
      .default(20)
      .meta({ description: 'documents of the collection, where none are named' }),
    join_mode: z
      .literal('on_demand', { error: 'must be "on_demand": what is executed here is not stored' })
      .nullish(),
  })
  .superRefine((body, ctx) => {
    if (body.documents && body.source_documents) differ(ctx, ['source_documents'], 'documents');
    const inline = (body.documents ?? body.source_documents) != null;
    const ways = [body.document_ids != null, inline, body.inputs != null].filter(Boolean).length;
    if (ways > 1) {
      ctx.addIssue({
        code: 'custom',
        path: ['documents'],
        message: 'send one of document_ids, documents and inputs',
      });
    }
    if (body.filters != null && ways > 0) {
      ctx.addIssue({
        code: 'custom',
        path: ['filters'],
        message:
          'filters choose among the documents of a collection, so they need no document_ids, documents or inputs',
      });
    }
  })
  .transform(({ documents, source_documents, join_mode: _, ...rest }) => ({
    ...rest,
    documents: documents ?? source_documents,
  }));

const RunnerUp = z.object({ document_id: z.string(), value: z.json(), score: z.number() }).nullable();

const AssignmentView = z.object({
  node_id: z.string(),
  label: z.string().nullable(),
  level: z.int(),
  document_id: z.string().meta({ description: 'reference that decided; for nearest centroids the node' }),
  collection_id: z.string().nullable(),
  score: z.number(),
  value: z.json(),
  accepted: z.boolean().meta({ description: 'score and votes reach what the taxonomy asks for' }),
  runner_up: RunnerUp.meta({ description: 'nearest reference of the class that came second' }),
  margin: z.number().nullable().meta({ description: 'score minus that of the runner-up' }),
  votes: z.object({ winner: z.number(), total: z.number(), share: z.number() }),
  fields: z.record(z.string(), z.json()),
});
export type AssignmentView = z.output<typeof AssignmentView>;

const Match = z.object({
  document_id: z.string().nullable(),
  taxonomy_id: z.string(),
  node_id: z.string().nullable(),
  matched_document_id: z.string().nullable(),
  matched_collection_id: z.string().nullable(),
  score: z
    .number()
    .nullable()
    .meta({ description: 'of the nearest reference; null: there is none, or nothing to compare' }),
  runner_up: RunnerUp,
  margin: z.number().nullable(),
  fields: z
    .record(z.string(), z.json())
    .meta({ description: 'what is taken over; empty below the threshold' }),
  assignments: z
    .array(AssignmentView)
    .meta({ description: 'the vote at every node and level, with its reason' }),
  decision: z
    .object({ action: z.enum(['accept', 'correct', 'reject']), by: z.string(), at: Timestamp })
    .nullable()
    .meta({ description: 'what a person decided about the document, which then counts' }),
});

const TaxonomyExecution = z.object({
  taxonomy_id: z.string(),
  version: z.int(),
  stats: z.object({ processed_docs: z.int(), enriched: z.int(), errors: z.int() }),
  results: z
    .array(z.record(z.string(), z.json()))
    .meta({ description: 'the documents with what they would take over' }),
  matches: z.array(Match).meta({ description: 'one per document, in their order' }),
  warnings: z.array(z.string()).optional(),
});

/** One labelled example. */
const Example = z
  .strictObject({
    fields: InlineDocument.nullish(),
    inputs: InlineDocument.nullish(),
    expected: z
      .union([z.string().max(1000), z.number(), z.boolean()])
      .nullable()
      .meta({ description: 'the value that is right; null: out of scope, nothing should be taken over' }),
  })
  .superRefine((body, ctx) => {
    if ((body.fields == null) === (body.inputs == null))
      missing(ctx, ['fields'], 'either fields of a document or inputs');
  });

export const objectives = ['balanced', 'f1', 'precision'] as const;

export const EvaluateTaxonomyBody = z
  .strictObject({
    documents: z.array(Example).min(1).max(1000).nullish(),
    collection_id: Id.nullish(),
    label_field: FieldPath.nullish().meta({
      description:
        'field of the stored documents with the right value; documents without it are out of scope',
    }),
    filters: FilterTree.nullish(),
    limit: z.int().min(1).max(1000).default(1000),
    target: FieldPath.nullish().meta({ description: 'which target is judged; the first one if left out' }),
    objective: z.enum(objectives).nullish().meta({
      description:
        'what the suggested threshold is best for: f1 (right ones kept against wrong ones), balanced (in scope kept plus out of scope refused), precision (most kept at target_precision); balanced if any example is out of scope, else f1',
    }),
    target_precision: z.number().min(0).max(1).nullish(),
  })
  .superRefine((body, ctx) => {
    if (body.documents == null && body.collection_id == null)
      missing(ctx, ['documents'], 'labelled documents, or collection_id and label_field');
    if (body.documents != null && body.collection_id != null) {
      ctx.addIssue({
        code: 'custom',
        path: ['documents'],
        message: 'examples are named in two ways, here and by collection_id',
        params: { fix: 'send either documents, or collection_id and label_field' },
      });
    }
    if (body.collection_id != null && body.label_field == null)
      missing(ctx, ['label_field'], 'the field with the right value');
    if (body.objective === 'precision' && body.target_precision == null)
      missing(ctx, ['target_precision'], 'a number from 0 to 1');
  });

const Rate = z.number().nullable();

export const Evaluation = z
  .object({
    taxonomy_id: z.string(),
    version: z.int(),
    target: z.string(),
    evaluated: z.int(),
    in_scope: z.int().meta({ description: 'examples with an expected value' }),
    out_of_scope: z.int(),
    errors: z.int(),
    accuracy: Rate.meta({
      description: 'share of the examples in scope that are right, whatever the threshold',
    }),
    at_threshold: z
      .object({
        threshold: z.number().nullable(),
        coverage: Rate.meta({ description: 'share of the examples in scope that are accepted' }),
        precision: Rate.meta({ description: 'share of the accepted that are right' }),
        recall: Rate.meta({ description: 'share of the examples in scope that are accepted and right' }),
        out_of_scope_refused: Rate,
      })
      .meta({ description: 'with the threshold that the taxonomy has now' }),
    suggested_threshold: z.number().nullable().meta({ description: 'null: none fulfils the objective' }),
    objective: z.enum(objectives),
    at_suggested: z
      .object({
        threshold: z.number().nullable(),
        coverage: Rate,
        precision: Rate,
        recall: Rate,
        out_of_scope_refused: Rate,
      })
      .nullable(),
    per_class: z
      .array(
        z.object({
          value: z.string(),
          support: z.int(),
          predicted: z.int(),
          precision: Rate,
          recall: Rate,
          f1: Rate,
        }),
      )
      .meta({ description: 'without a threshold; most frequent first, 500 at most' }),
    confusions: z
      .array(z.object({ expected: z.string(), predicted: z.string(), count: z.int() }))
      .meta({ description: 'the 50 most frequent mistakes' }),
    curve: z
      .array(
        z.object({
          threshold: z.number(),
          coverage: Rate,
          precision: Rate,
          recall: Rate,
          out_of_scope_refused: Rate,
        }),
      )
      .meta({ description: '50 thresholds at most' }),
    warnings: Warnings,
  })
  .meta({ id: 'TaxonomyEvaluation' });
export type Evaluation = z.output<typeof Evaluation>;

const Review = z
  .object({
    taxonomy_id: z.string(),
    document_id: z.string(),
    collection_id: z.string(),
    action: z.enum(['accept', 'correct', 'reject']),
    values: z.record(z.string(), z.json()),
    is_reference: z.boolean().meta({ description: 'other documents are compared with it from now on' }),
    by: z.string(),
    at: Timestamp,
    revision: z.int(),
    warnings: Warnings,
  })
  .meta({ id: 'TaxonomyReview' });

export const ReviewBody = z
  .strictObject({
    action: z.enum(['accept', 'correct', 'reject']),
    values: z
      .record(FieldPath, z.json())
      .nullish()
      .meta({ description: 'target -> right value; needed to correct' }),
    collection_id: Id.nullish().meta({ description: 'of the document; the source collection if left out' }),
  })
  .superRefine((body, ctx) => {
    const count = Object.keys(body.values ?? {}).length;
    if (body.action === 'correct' && count === 0)
      missing(ctx, ['values'], 'the right values', 'send {"values": {"auto_topic": "physics"}}');
    if (body.action !== 'correct' && count > 0) {
      ctx.addIssue({ code: 'custom', path: ['values'], message: `"${body.action}" takes no values` });
    }
  });

const Doubtful = z.object({
  document_id: z.string(),
  collection_id: z.string(),
  fields: z.record(z.string(), z.json()),
  score: z.number().nullable(),
  margin: z.number().nullable(),
  matched_document_id: z.string().nullable(),
  runner_up: RunnerUp,
  at: Timestamp.nullable(),
});

const ReviewList = z.object({
  taxonomy_id: z.string(),
  collection_id: z.string(),
  results: z.array(Doubtful).meta({ description: 'smallest margin first, then lowest score' }),
  total: z.int().meta({ description: 'undecided assignments that pass the limits' }),
  warnings: Warnings,
});

const ApplyTaxonomyBody = z.strictObject({
  taxonomy_id: Id,
  filters: FilterTree.nullish(),
  filter: FilterTree.nullish().meta({ description: 'as `filters`' }),
});

const AppliedTaxonomy = z.object({ task_id: z.string(), run: TaxonomyRun, warnings: Warnings });

const tag = 'taxonomies';
const base = '/v1/namespaces/{namespace}/taxonomies';
const VersionQuery = z.strictObject({
  version: Version.optional().meta({ description: 'the version that counts if left out' }),
});
const changeErrors = [
  'taxonomy_not_found',
  'taxonomy_name_taken',
  'taxonomy_invalid',
  'taxonomy_changed',
  'request_stale',
  'cluster_not_found',
  'cluster_run_not_found',
] as const;
const classifyErrors = [
  'taxonomy_not_found',
  'taxonomy_version_not_found',
  'taxonomy_invalid',
  'collection_not_found',
  'document_not_found',
  'plugin_not_deployed',
  'plugin_failed',
  'plugin_timeout',
  'plugin_unavailable',
  'index_unavailable',
  'index_corrupt',
  'retriever_timeout',
] as const;

export const routes = {
  createTaxonomy: route({
    operation: 'createTaxonomy',
    method: 'POST',
    path: base,
    tag,
    summary: 'Make a taxonomy; in the mode materialize it is applied at once',
    body: CreateTaxonomyBody,
    reply: Taxonomy,
    errors: [
      'taxonomy_name_taken',
      'taxonomy_invalid',
      'quota_exceeded',
      'cluster_not_found',
      'cluster_run_not_found',
    ],
    example: {
      body: {
        taxonomy_name: 'article-topics',
        taxonomy_type: 'flat',
        retriever_id: 'text_search',
        collection_id: 'text_embed_articles',
        input_mappings: [{ source: 'payload.text', target: 'query' }],
        enrichment_fields: [{ source: 'payload.topic', target: 'auto_topic' }],
        threshold: 0.7,
        execution_mode: 'materialize',
      },
    },
  }),
  listTaxonomies: route({
    operation: 'listTaxonomies',
    method: 'GET',
    path: base,
    tag,
    summary: 'List taxonomies, newest first',
    query: ListQuery,
    reply: listReply(Taxonomy),
  }),
  searchTaxonomies: route({
    operation: 'searchTaxonomies',
    method: 'POST',
    path: `${base}/list`,
    tag,
    summary: 'List taxonomies by search, filter and order',
    permission: 'read',
    query: ListQuery,
    body: ListBody,
    bodyOptional: true,
    reply: listReply(Taxonomy),
  }),
  getTaxonomy: route({
    operation: 'getTaxonomy',
    method: 'GET',
    path: `${base}/{taxonomy}`,
    tag,
    summary: 'Read a taxonomy by id or name, with its last run',
    query: VersionQuery,
    reply: Taxonomy,
    errors: ['taxonomy_not_found', 'taxonomy_version_not_found'],
  }),
  putTaxonomy: route({
    operation: 'putTaxonomy',
    method: 'PUT',
    path: `${base}/{taxonomy}`,
    tag,
    summary: 'Change a taxonomy; a materialised one is applied anew',
    body: UpdateTaxonomyBody,
    reply: Taxonomy,
    errors: changeErrors,
  }),
  patchTaxonomy: route({
    operation: 'patchTaxonomy',
    method: 'PATCH',
    path: `${base}/{taxonomy}`,
    tag,
    summary: 'Change parts of a taxonomy; a materialised one is applied anew',
    body: UpdateTaxonomyBody,
    reply: Taxonomy,
    errors: changeErrors,
  }),
  deleteTaxonomy: route({
    operation: 'deleteTaxonomy',
    method: 'DELETE',
    path: `${base}/{taxonomy}`,
    tag,
    summary: 'Delete a taxonomy; fields that it wrote stay unless asked otherwise',
    query: z.strictObject({
      remove_enrichments: z
        .stringbool()
        .default(false)
        .meta({ description: 'take away what it wrote, as tasks in the background' }),
    }),
    reply: z.object({ ...DeleteReply.shape, task_ids: z.array(z.string()) }),
    errors: ['taxonomy_not_found', 'taxonomy_in_use', 'taxonomy_changed', 'request_stale'],
  }),
  executeTaxonomy: route({
    operation: 'executeTaxonomy',
    method: 'POST',
    path: `${base}/{taxonomy}/execute`,
    tag,
    summary: 'Classify documents without storing anything',
    permission: 'read',
    rate: 'search',
    target: 'query',
    query: VersionQuery,
    body: ExecuteTaxonomyBody,
    bodyOptional: true,
    reply: TaxonomyExecution,
    errors: classifyErrors,
  }),
  listTaxonomyNodes: route({
    operation: 'listTaxonomyNodes',
    method: 'GET',
    path: `${base}/{taxonomy}/nodes`,
    tag,
    summary: 'List the nodes of a taxonomy, level by level',
    target: 'query',
    query: z.strictObject({ ...ListQuery.shape, version: VersionQuery.shape.version }),
    reply: listReply(TaxonomyNodeView),
    errors: ['taxonomy_not_found', 'taxonomy_version_not_found', 'index_unavailable', 'index_corrupt'],
  }),
  createTaxonomyVersion: route({
    operation: 'createTaxonomyVersion',
    method: 'POST',
    path: `${base}/{taxonomy}/versions`,
    tag,
    summary: 'Make a new version of the configuration; what is left out is as in the one that counts',
    status: 201,
    body: CreateVersionBody,
    reply: TaxonomyVersion,
    errors: changeErrors,
    example: { body: { threshold: 0.6, note: 'stricter', activate: false } },
  }),
  listTaxonomyVersions: route({
    operation: 'listTaxonomyVersions',
    method: 'GET',
    path: `${base}/{taxonomy}/versions`,
    tag,
    summary: 'List the versions of a taxonomy, newest first',
    query: ListQuery,
    reply: listReply(TaxonomyVersion),
    errors: ['taxonomy_not_found'],
  }),
  activateTaxonomyVersion: route({
    operation: 'activateTaxonomyVersion',
    method: 'POST',
    path: `${base}/{taxonomy}/versions/{version}/activate`,
    tag,
    summary: 'Let a version count, an older one too; a materialised taxonomy is applied anew',
    reply: Taxonomy,
    errors: [...changeErrors, 'taxonomy_version_not_found'],
  }),
  cloneTaxonomy: route({
    operation: 'cloneTaxonomy',
    method: 'POST',
    path: `${base}/{taxonomy}/clone`,
    tag,
    summary: 'Make a taxonomy like another one, with changes; decisions of people are not copied',
    status: 201,
    query: VersionQuery,
    body: CloneTaxonomyBody,
    reply: Taxonomy,
    errors: [
      'taxonomy_not_found',
      'taxonomy_version_not_found',
      'taxonomy_name_taken',
      'taxonomy_invalid',
      'quota_exceeded',
      'cluster_not_found',
      'cluster_run_not_found',
    ],
    example: { body: { taxonomy_name: 'article-topics-strict', threshold: 0.8 } },
  }),
  createTaxonomyFromCluster: route({
    operation: 'createTaxonomyFromCluster',
    method: 'POST',
    path: '/v1/namespaces/{namespace}/clusters/{cluster}/taxonomy',
    tag,
    summary: 'Make a taxonomy out of the clusters of a run',
    description:
      'Labels, keywords and centroids are copied into the taxonomy, so it lives on when the run or its documents go. A document gets the label of the nearest centroid.',
    status: 201,
    body: FromClusterBody,
    reply: Taxonomy,
    errors: [
      'cluster_not_found',
      'cluster_run_not_found',
      'taxonomy_name_taken',
      'taxonomy_invalid',
      'quota_exceeded',
    ],
    example: { body: { taxonomy_name: 'discovered-topics', threshold: 0.4, target_field: 'auto_topic' } },
  }),
  applyTaxonomy: route({
    operation: 'applyTaxonomy',
    method: 'POST',
    path: '/v1/namespaces/{namespace}/collections/{collection}/apply-taxonomy',
    tag,
    summary: 'Classify the documents of a collection once, in the background',
    rate: 'compute',
    status: 202,
    body: ApplyTaxonomyBody,
    reply: AppliedTaxonomy,
    errors: ['collection_not_found', 'taxonomy_not_found', 'taxonomy_invalid', 'taxonomy_changed'],
    example: { body: { taxonomy_id: 'article-topics' } },
  }),
  evaluateTaxonomy: route({
    operation: 'evaluateTaxonomy',
    method: 'POST',
    path: `${base}/{taxonomy}/evaluate`,
    tag,
    summary: 'Measure a taxonomy on labelled documents and suggest a threshold',
    description:
      'Thresholds are set aside, each example is classified, and the answer says how right that is at every threshold. Nothing is stored. Stored documents are never compared with themselves.',
    permission: 'read',
    rate: 'search',
    target: 'query',
    query: VersionQuery,
    body: EvaluateTaxonomyBody,
    reply: Evaluation,
    errors: classifyErrors,
    example: {
      body: {
        documents: [
          { fields: { text: 'qubits in superposition' }, expected: 'physics' },
          { fields: { text: 'the bus was late' }, expected: null },
        ],
      },
    },
  }),
  listTaxonomyReviews: route({
    operation: 'listTaxonomyReviews',
    method: 'GET',
    path: `${base}/{taxonomy}/review`,
    tag,
    summary: 'List assignments that are in doubt, the most doubtful first',
    target: 'query',
    query: z.strictObject({
      collection_id: Id.optional().meta({ description: 'the source collection if left out' }),
      max_score: z.coerce.number().min(-1).max(1).optional(),
      max_margin: z.coerce.number().min(-2).max(2).optional(),
      limit: z.coerce.number().int().min(1).max(500).default(20),
    }),
    reply: ReviewList,
    errors: ['taxonomy_not_found', 'collection_not_found', 'index_unavailable', 'index_corrupt'],
  }),
  reviewTaxonomyDocument: route({
    operation: 'reviewTaxonomyDocument',
    method: 'POST',
    path: `${base}/{taxonomy}/review/{document}`,
    tag,
    summary: 'Accept, correct or reject what a document was given',
    description:
      'No run overwrites the decision. An accepted or corrected document is a reference from then on, for documents of every collection that the taxonomy classifies.',
    body: ReviewBody,
    reply: Review,
    errors: [
      'taxonomy_not_found',
      'taxonomy_invalid',
      'taxonomy_review_invalid',
      'taxonomy_changed',
      'collection_not_found',
      'document_not_found',
      'document_changed',
      'quota_exceeded',
      'plugin_not_deployed',
      'plugin_failed',
      'plugin_timeout',
      'plugin_unavailable',
      'index_unavailable',
      'index_corrupt',
      'index_contended',
      'retriever_timeout',
    ],
    example: { body: { action: 'correct', values: { auto_topic: 'physics' } } },
  }),
  withdrawTaxonomyReview: route({
    operation: 'withdrawTaxonomyReview',
    method: 'DELETE',
    path: `${base}/{taxonomy}/review/{document}`,
    tag,
    summary: 'Take a decision back; the next run classifies the document again',
    query: z.strictObject({ collection_id: Id.optional() }),
    reply: DeleteReply,
    errors: ['taxonomy_not_found', 'taxonomy_review_not_found', 'taxonomy_changed', 'collection_not_found'],
  }),
};
