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
} from '../../http/schemas.ts';

const Name = nameOf('tax_');
const Id = z.string().min(1).max(100);
const FieldPath = z.string().min(1).max(256);

export const executionModes = ['materialize', 'on_demand'] as const;
export type ExecutionMode = (typeof executionModes)[number];
const Mode = z.enum(executionModes).meta({
  description:
    'materialize: applied at create to what is there, and after every batch; on_demand: only by /execute',
});

type Issues = z.RefinementCtx;
const differ = (ctx: Issues, path: (string | number)[], other: string) =>
  ctx.addIssue({
    code: 'custom',
    path,
    message: `this and "${other}" mean the same and differ`,
    params: { fix: 'send one of them' },
  });
const missing = (ctx: Issues, path: (string | number)[], what: string, fix?: string) =>
  ctx.addIssue({
    code: 'custom',
    path,
    message: `required, ${what} is expected`,
    params: { type: 'missing', ...(fix === undefined ? {} : { fix }) },
  });

/** `{source, target}` as the tutorial writes it, or `{input_key, source_type, path}`. */
const Mapping = z
  .strictObject({
    source: FieldPath.nullish(),
    target: z.string().min(1).max(100).nullish(),
    input_key: z.string().min(1).max(100).nullish(),
    path: FieldPath.nullish(),
    source_type: z
      .enum(['payload', 'literal'], {
        error: 'must be "payload" or "literal"; vectors and blobs cannot be mapped yet',
      })
      .nullish(),
    override: z.union([z.string().max(10_000), z.number(), z.boolean()]).nullish(),
  })
  .superRefine((body, ctx) => {
    const key = body.input_key ?? body.target;
    const path = body.path ?? body.source;
    if (!key)
      missing(
        ctx,
        ['input_key'],
        'the name of an input of the retriever',
        'send {"source": "payload.text", "target": "query"}',
      );
    if (body.input_key && body.target && body.input_key !== body.target) differ(ctx, ['target'], 'input_key');
    if (body.path && body.source && body.path !== body.source) differ(ctx, ['source'], 'path');
    const literal =
      body.source_type === 'literal' || (body.source_type == null && !path && body.override != null);
    if (literal && body.override == null) missing(ctx, ['override'], 'the value of a literal');
    if (!literal && !path) missing(ctx, ['path'], 'the field of the document that becomes the input');
  })
  .transform((body) => {
    const path = body.path ?? body.source ?? null;
    const literal = body.source_type === 'literal' || (body.source_type == null && path === null);
    const input_key = (body.input_key ?? body.target)!;
    return literal
      ? { input_key, source_type: 'literal' as const, path: null, override: body.override! }
      : { input_key, source_type: 'payload' as const, path, override: null };
  });

/** `{source, target}`, or `{field_path, target_field, merge_mode}`; the target is named like the source if left out. */
const EnrichmentField = z
  .strictObject({
    source: FieldPath.nullish(),
    target: FieldPath.nullish(),
    field_path: FieldPath.nullish(),
    target_field: FieldPath.nullish(),
    merge_mode: z.literal('replace', { error: 'must be "replace"; lists are not appended to yet' }).nullish(),
  })
  .superRefine((body, ctx) => {
    if (!body.source && !body.field_path)
      missing(
        ctx,
        ['field_path'],
        'a field of the reference',
        'send {"source": "payload.topic", "target": "auto_topic"}',
      );
    if (body.source && body.field_path && body.source !== body.field_path)
      differ(ctx, ['source'], 'field_path');
    if (body.target && body.target_field && body.target !== body.target_field)
      differ(ctx, ['target'], 'target_field');
  })
  .transform((body) => {
    const field_path = (body.field_path ?? body.source)!;
    const target_field = body.target_field ?? body.target ?? field_path.split('.').at(-1)!;
    return { field_path, target_field, merge_mode: 'replace' as const };
  });

const Mappings = z.array(Mapping).min(1).max(20);
const EnrichmentFields = z.array(EnrichmentField).min(1).max(20);
const Threshold = z.number().min(-1).max(1).nullish().meta({
  description:
    'lowest cosine at which a document takes over anything; null: the nearest reference always counts',
});
const Type = z.enum(['flat', 'hierarchical']);
const TopK = z.literal(1, { error: 'must be 1; a document takes over from one reference' }).nullish();

/** Parts of hierarchical taxonomies, read only to say that they are not built. */
const hierarchicalKeys = [
  'hierarchical_nodes',
  'hierarchy',
  'inference_strategy',
  'inference_collections',
  'cluster_ids',
  'path_field',
] as const;
const unread = z.json().optional();
const hierarchicalShape: Record<(typeof hierarchicalKeys)[number], typeof unread> = {
  hierarchical_nodes: unread,
  hierarchy: unread,
  inference_strategy: unread,
  inference_collections: unread,
  cluster_ids: unread,
  path_field: unread,
};

const Config = z.strictObject({
  taxonomy_type: Type.optional(),
  retriever_id: Id.nullish(),
  input_mappings: Mappings.nullish(),
  source_collection: z
    .strictObject({ collection_id: Id, enrichment_fields: EnrichmentFields.nullish() })
    .nullish(),
  enrichment_fields: EnrichmentFields.nullish(),
  threshold: Threshold,
  top_k: TopK,
  ...hierarchicalShape,
});

const Application = z.strictObject({ collection_id: Id, execution_mode: Mode.optional() });

const shape = {
  taxonomy_name: Name.optional(),
  name: Name.optional(),
  description: Description.nullish(),
  taxonomy_type: Type.optional(),
  retriever_id: Id.nullish(),
  collection_id: Id.nullish(),
  input_mappings: Mappings.nullish(),
  enrichment_fields: EnrichmentFields.nullish(),
  threshold: Threshold,
  top_k: TopK,
  execution_mode: Mode.nullish(),
  applications: z.array(Application).max(10).nullish(),
  config: Config.nullish(),
  metadata: Metadata.nullish(),
  ...hierarchicalShape,
};

type Loose = z.output<z.ZodObject<typeof shape>>;

/** One fact that both forms can state: where it stands, and what it says. */
interface Fact<T> {
  readonly at: readonly (string | number)[];
  readonly value: T | undefined;
}

function factOf<T>(
  ...candidates: readonly {
    readonly at: readonly (string | number)[];
    readonly value: T | null | undefined;
  }[]
): Fact<T> {
  const given = candidates.find(({ value }) => value !== undefined && value !== null);
  return given ? { at: given.at, value: given.value as T } : { at: candidates[0]!.at, value: undefined };
}

function candidatesOf({ config, ...body }: Loose) {
  const inConfig = (name: string) => ['config', name];
  return {
    retriever_id: [
      { at: ['retriever_id'], value: body.retriever_id },
      { at: inConfig('retriever_id'), value: config?.retriever_id },
    ],
    collection_id: [
      { at: ['collection_id'], value: body.collection_id },
      {
        at: ['config', 'source_collection', 'collection_id'],
        value: config?.source_collection?.collection_id,
      },
    ],
    input_mappings: [
      { at: ['input_mappings'], value: body.input_mappings },
      { at: inConfig('input_mappings'), value: config?.input_mappings },
    ],
    enrichment_fields: [
      { at: ['enrichment_fields'], value: body.enrichment_fields },
      {
        at: ['config', 'source_collection', 'enrichment_fields'],
        value: config?.source_collection?.enrichment_fields,
      },
      { at: inConfig('enrichment_fields'), value: config?.enrichment_fields },
    ],
    threshold: [
      { at: ['threshold'], value: body.threshold },
      { at: inConfig('threshold'), value: config?.threshold },
    ],
    taxonomy_type: [
      { at: ['taxonomy_type'], value: body.taxonomy_type },
      { at: inConfig('taxonomy_type'), value: config?.taxonomy_type },
    ],
  };
}

function bothAgree(body: Loose, ctx: Issues): void {
  if (body.name !== undefined && body.taxonomy_name !== undefined && body.name !== body.taxonomy_name)
    differ(ctx, ['name'], 'taxonomy_name');
  for (const candidates of Object.values(candidatesOf(body))) {
    const given = candidates.filter(({ value }) => value !== undefined && value !== null);
    const other = given.find(({ value }) => JSON.stringify(value) !== JSON.stringify(given[0]!.value));
    if (other) differ(ctx, other.at, given[0]!.at.join('.'));
  }
}

function isHierarchical(body: Loose): boolean {
  const { taxonomy_type } = candidatesOf(body);
  if (factOf(...taxonomy_type).value === 'hierarchical') return true;
  return hierarchicalKeys.some((key) => body[key] != null || body.config?.[key] != null);
}

function normalise(body: Loose) {
  const facts = candidatesOf(body);
  const threshold = factOf(...facts.threshold);
  const asked = body.threshold !== undefined || body.config?.threshold !== undefined;
  return {
    name: body.taxonomy_name ?? body.name,
    description: body.description,
    metadata: body.metadata,
    hierarchical: isHierarchical(body),
    retriever: factOf(...facts.retriever_id),
    collection: factOf(...facts.collection_id),
    input_mappings: factOf(...facts.input_mappings),
    enrichment_fields: factOf(...facts.enrichment_fields),
    /** `value` null: no threshold, on purpose; undefined: nothing was said. */
    threshold: { at: threshold.at, value: threshold.value ?? (asked ? null : undefined) } as Fact<
      number | null
    >,
    execution_mode: body.execution_mode ?? undefined,
    applications: body.applications ?? undefined,
  };
}

/** A create or update body in its one form; facts say where the request stated them. */
export type TaxonomyInput = ReturnType<typeof normalise>;

export const CreateTaxonomyBody = z
  .strictObject(shape)
  .superRefine((body, ctx) => {
    bothAgree(body, ctx);
    if (body.name === undefined && body.taxonomy_name === undefined)
      missing(ctx, ['taxonomy_name'], 'a name');
    if (isHierarchical(body)) return;
    const facts = normalise(body);
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
    if (facts.enrichment_fields.value === undefined)
      missing(
        ctx,
        ['enrichment_fields'],
        'a list of fields',
        'send [{"source": "payload.topic", "target": "auto_topic"}]',
      );
  })
  .transform((body) => ({ ...normalise(body), name: (body.taxonomy_name ?? body.name)! }));

/** PUT and PATCH alike: what is left out stays. */
export const UpdateTaxonomyBody = z.strictObject(shape).superRefine(bothAgree).transform(normalise);

const StoredMapping = z.object({
  input_key: z.string(),
  source_type: z.enum(['payload', 'literal']),
  path: z.string().nullable(),
  override: z.json(),
});
const StoredField = z.object({
  field_path: z.string(),
  target_field: z.string(),
  merge_mode: z.literal('replace'),
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
    created_at: Timestamp,
    completed_at: Timestamp.nullable(),
  })
  .meta({ id: 'TaxonomyRun' });
export type TaxonomyRun = z.output<typeof TaxonomyRun>;

export const Taxonomy = z
  .object({
    taxonomy_id: z.string(),
    taxonomy_name: z.string(),
    name: z.string(),
    description: z.string().nullable(),
    taxonomy_type: z.literal('flat'),
    retriever_id: z.string(),
    collection_id: z.string(),
    input_mappings: z.array(StoredMapping),
    enrichment_fields: z.array(StoredField),
    threshold: z.number().nullable(),
    execution_mode: Mode,
    applications: z.array(z.object({ collection_id: z.string(), execution_mode: Mode })),
    config: z.object({
      taxonomy_type: z.literal('flat'),
      retriever_id: z.string(),
      input_mappings: z.array(StoredMapping),
      source_collection: z.object({ collection_id: z.string(), enrichment_fields: z.array(StoredField) }),
      enrichment_fields: z.array(StoredField),
      threshold: z.number().nullable(),
    }),
    ready: z.boolean().meta({ description: 'no run is waiting or working' }),
    last_run: TaxonomyRun.nullable(),
    task_id: z.string().nullable().meta({ description: 'task of the last run' }),
    task_ids: z
      .array(z.string())
      .optional()
      .meta({ description: 'tasks of the runs that this request began' }),
    metadata: Metadata,
    version: z.int(),
    created_at: Timestamp,
    updated_at: Timestamp,
    warnings: z.array(z.string()).optional(),
  })
  .meta({ id: 'Taxonomy' });
export type Taxonomy = z.output<typeof Taxonomy>;

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

const Match = z.object({
  document_id: z.string().nullable(),
  taxonomy_id: z.string(),
  matched_document_id: z.string().nullable(),
  matched_collection_id: z.string().nullable(),
  score: z
    .number()
    .nullable()
    .meta({ description: 'of the nearest reference; null: there is none, or nothing to compare' }),
  fields: z
    .record(z.string(), z.json())
    .meta({ description: 'what is taken over; empty below the threshold' }),
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

const tag = 'taxonomies';
const base = '/v1/namespaces/{namespace}/taxonomies';
const changeErrors = [
  'taxonomy_not_found',
  'taxonomy_name_taken',
  'taxonomy_invalid',
  'taxonomy_changed',
  'request_stale',
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
    errors: ['taxonomy_name_taken', 'taxonomy_invalid', 'quota_exceeded'],
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
    reply: Taxonomy,
    errors: ['taxonomy_not_found'],
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
    summary: 'Delete a taxonomy; fields that it wrote stay',
    reply: DeleteReply,
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
    body: ExecuteTaxonomyBody,
    bodyOptional: true,
    reply: TaxonomyExecution,
    errors: [
      'taxonomy_not_found',
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
    ],
  }),
};
