// The parts of a taxonomy's definition as they are written: both forms of each, one out.
import * as z from 'zod';

const Id = z.string().min(1).max(100);
const FieldPath = z.string().min(1).max(256);
type Issues = z.RefinementCtx;

/** Adds the fault of two members that say different things. */
export const differ = (ctx: Issues, path: (string | number)[], other: string) =>
  ctx.addIssue({
    code: 'custom',
    path,
    message: `this and "${other}" mean the same and differ`,
    params: { fix: 'send one of them' },
  });

/** Adds the fault of a member that must be there. */
export const missing = (ctx: Issues, path: (string | number)[], what: string, fix?: string) =>
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

const mergeModes = ['replace', 'append'] as const;

/** `{source, target}`, or `{field_path, target_field, merge_mode}`; the target is named like the source if left out. */
const EnrichmentField = z
  .strictObject({
    source: FieldPath.nullish(),
    target: FieldPath.nullish(),
    field_path: FieldPath.nullish(),
    target_field: FieldPath.nullish(),
    merge_mode: z.enum(mergeModes, { error: 'must be "replace" or "append"' }).nullish(),
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
    return { field_path, target_field, merge_mode: body.merge_mode ?? ('replace' as const) };
  });

export const Mappings = z.array(Mapping).min(1).max(20);
export const EnrichmentFields = z.array(EnrichmentField).min(1).max(20);
export const Threshold = z.number().min(-1).max(1).nullish().meta({
  description:
    'lowest cosine at which a document takes over anything; null: the nearest reference always counts',
});

const Link = z
  .union([FieldPath, z.strictObject({ field: FieldPath, parent_field: FieldPath.nullish() })])
  .transform((link) =>
    typeof link === 'string'
      ? { field: link, parent_field: link }
      : { field: link.field, parent_field: link.parent_field ?? link.field },
  )
  .meta({
    description:
      'field that a reference of this node shares with its reference at the parent: only those under the matched parent are compared',
  });

const nodeShape = {
  node_id: Id.nullish(),
  retriever_id: Id.nullish(),
  label: z.string().max(200).nullish(),
  summary: z.string().max(1000).nullish(),
  keywords: z.array(z.string().max(100)).max(50).nullish(),
  enrichment_fields: EnrichmentFields.nullish(),
  input_mappings: Mappings.nullish(),
  threshold: Threshold,
  link: Link.nullish(),
};

/** A level of `hierarchical_nodes`: named by its collection, unless it has a name of its own. */
const CollectionNode = z
  .strictObject({
    ...nodeShape,
    collection_id: Id,
    parent_collection_id: Id.nullish(),
    parent_node_id: Id.nullish(),
  })
  .superRefine((body, ctx) => {
    if (body.parent_node_id && body.parent_collection_id && body.parent_node_id !== body.parent_collection_id)
      differ(ctx, ['parent_collection_id'], 'parent_node_id');
  })
  .transform((body) => toNode(body, body.node_id ?? body.collection_id));

/** A level of `hierarchy`. */
const NamedNode = z
  .strictObject({ ...nodeShape, node_id: Id, collection_id: Id, parent_node_id: Id.nullish() })
  .transform((body) => toNode({ ...body, parent_collection_id: null }, body.node_id));

function toNode(
  body: z.output<z.ZodObject<typeof nodeShape>> & {
    readonly collection_id: string;
    readonly parent_node_id?: string | null | undefined;
    readonly parent_collection_id?: string | null | undefined;
  },
  id: string,
) {
  return {
    id,
    parent: body.parent_node_id ?? body.parent_collection_id ?? null,
    collection: body.collection_id,
    retriever: body.retriever_id ?? undefined,
    label: body.label ?? null,
    summary: body.summary ?? null,
    keywords: body.keywords ?? [],
    enrichment_fields: body.enrichment_fields ?? undefined,
    input_mappings: body.input_mappings ?? undefined,
    /** undefined: that of the taxonomy. */
    threshold: body.threshold,
    link: body.link ?? null,
  };
}

/** A node as a request describes it, in one form. */
export type GivenNode = ReturnType<typeof toNode>;

const Nodes = (node: typeof CollectionNode | typeof NamedNode) => z.array(node).min(1).max(50);

export const inferenceStrategies = ['schema', 'cluster'] as const;

/** Members of a definition that may stand at the root of a body or in its `config`. */
export const ruleShape = {
  taxonomy_type: z.enum(['flat', 'hierarchical']).optional(),
  retriever_id: Id.nullish(),
  input_mappings: Mappings.nullish(),
  enrichment_fields: EnrichmentFields.nullish(),
  threshold: Threshold,
  vote: z.enum(['best', 'majority', 'weighted']).nullish().meta({
    description:
      'who decides: the nearest reference, the most frequent class among the top_k nearest, or the class with the largest sum of similarities; best if left out, weighted if top_k is above 1',
  }),
  top_k: z.int().min(1).max(50).nullish().meta({
    description: 'references that vote; 1, or 5 where a vote of several is asked for, if left out',
  }),
  min_share: z
    .number()
    .min(0)
    .max(1)
    .nullish()
    .meta({ description: 'share of the votes that the winner needs' }),
  hierarchical_nodes: Nodes(CollectionNode).nullish(),
  hierarchy: Nodes(NamedNode).nullish(),
  path_field: FieldPath.nullish().meta({
    description: 'field of the references with a path such as "electronics/phones"; levels are built from it',
  }),
  path_fields: z
    .array(FieldPath)
    .min(2)
    .max(10)
    .nullish()
    .meta({ description: 'fields of the references that name one level each, from the top' }),
  path_separator: z.string().min(1).max(10).nullish().meta({ description: '"/" if left out' }),
  path_target: FieldPath.nullish().meta({
    description: 'target of the path; auto_ and the name of path_field if left out',
  }),
  level_fields: z
    .array(FieldPath)
    .max(10)
    .nullish()
    .meta({ description: 'targets of the levels from the top; <path_target>_1 and so on if left out' }),
  level_thresholds: z
    .array(z.number().min(-1).max(1))
    .max(10)
    .nullish()
    .meta({ description: 'thresholds of the levels from the top; deeper ones have the last' }),
  inference_strategy: z
    .enum(inferenceStrategies, {
      error:
        'must be "schema" (with path_fields) or "cluster" (with cluster_ids); levels by a model are not built',
    })
    .nullish(),
  inference_collections: z
    .null({ error: 'hierarchies are inferred from path_field, path_fields or cluster_ids' })
    .optional(),
  cluster_ids: z
    .array(Id)
    .min(1)
    .max(5)
    .nullish()
    .meta({ description: 'cluster definitions, coarsest first: their last runs become the levels' }),
  cluster_overlap_threshold: z.number().min(0).max(1).nullish().meta({
    description: 'share of a fine cluster that must lie in a coarse one to stand below it; 0.7 if left out',
  }),
};

export const Config = z.strictObject({
  ...ruleShape,
  source_collection: z
    .strictObject({ collection_id: Id, enrichment_fields: EnrichmentFields.nullish() })
    .nullish(),
});

/** Root and `config` of a body, as they were sent. */
export type LooseRules = z.output<z.ZodObject<typeof ruleShape>> & {
  readonly collection_id?: string | null | undefined;
  readonly config?: z.output<typeof Config> | null | undefined;
};

type Path = readonly (string | number)[];

/** One fact that both forms can state: where it stands, and what it says. */
export interface Fact<T> {
  readonly at: Path;
  readonly value: T | undefined;
}

interface Candidate {
  readonly at: Path;
  readonly value: unknown;
}

const names = Object.keys(ruleShape) as (keyof typeof ruleShape)[];

function candidatesOf(body: LooseRules): Record<string, Candidate[]> {
  const { config } = body;
  const found: Record<string, Candidate[]> = {
    collection_id: [
      { at: ['collection_id'], value: body.collection_id },
      {
        at: ['config', 'source_collection', 'collection_id'],
        value: config?.source_collection?.collection_id,
      },
    ],
  };
  for (const name of names) {
    found[name] = [
      { at: [name], value: body[name] },
      ...(name === 'enrichment_fields'
        ? [
            {
              at: ['config', 'source_collection', name],
              value: config?.source_collection?.enrichment_fields,
            },
          ]
        : []),
      { at: ['config', name], value: config?.[name] },
    ];
  }
  return found;
}

const isGiven = ({ value }: Candidate) => value !== undefined && value !== null;

/** Adds a fault for each fact that root and `config` state differently, and for parts that exclude each other. */
export function checkRules(body: LooseRules, ctx: Issues): void {
  const candidates = candidatesOf(body);
  for (const entries of Object.values(candidates)) {
    const given = entries.filter(isGiven);
    const other = given.find(({ value }) => JSON.stringify(value) !== JSON.stringify(given[0]!.value));
    if (other) differ(ctx, [...other.at], given[0]!.at.join('.'));
  }
  const given = (name: string) => candidates[name]!.find(isGiven);
  const shapes = ['hierarchical_nodes', 'hierarchy', 'path_field', 'path_fields', 'cluster_ids'];
  const [first, ...others] = shapes.flatMap((name) => given(name) ?? []);
  for (const other of others) {
    ctx.addIssue({
      code: 'custom',
      path: [...other.at],
      message: `this and "${first!.at.join('.')}" describe the hierarchy in two ways`,
      params: { fix: 'send one of them' },
    });
  }
  const type = given('taxonomy_type');
  if (type?.value === 'flat' && first && !given('cluster_ids')) {
    ctx.addIssue({
      code: 'custom',
      path: [...type.at],
      message: `a flat taxonomy has no "${first.at.at(-1)}"`,
      params: { fix: 'write "hierarchical", or leave taxonomy_type out' },
    });
  }
  if (type?.value === 'hierarchical' && !first) {
    missing(
      ctx,
      [...type.at.slice(0, -1), 'hierarchical_nodes'],
      'a list of nodes',
      'send hierarchical_nodes, hierarchy, path_field, path_fields or cluster_ids',
    );
  }
  const strategy = given('inference_strategy');
  const needs = { schema: 'path_fields', cluster: 'cluster_ids' } as const;
  const needed = strategy && needs[strategy.value as keyof typeof needs];
  if (needed && !given(needed)) missing(ctx, [...strategy.at.slice(0, -1), needed], 'what to infer from');
  const pathOnly = ['path_separator', 'path_target', 'level_thresholds'];
  for (const name of pathOnly) {
    const stray = given(name);
    if (stray && first && !first.at.at(-1)!.toString().startsWith('path_')) {
      ctx.addIssue({
        code: 'custom',
        path: [...stray.at],
        message: 'belongs to path_field and path_fields',
        params: { fix: 'leave it out' },
      });
    }
  }
  const best = given('vote');
  const many = given('top_k');
  if (best?.value === 'best' && many && many.value !== 1) {
    ctx.addIssue({
      code: 'custom',
      path: [...many.at],
      message: 'the vote "best" asks one reference',
      params: { fix: 'send vote "majority" or "weighted", or leave top_k out' },
    });
  }
}

/** Every fact of a body, with its place. */
export function factsOf(body: LooseRules) {
  const candidates = candidatesOf(body);
  const fact = <T>(name: string): Fact<T> => {
    const entries = candidates[name]!;
    const found = entries.find(isGiven);
    return { at: (found ?? entries[0]!).at, value: found?.value as T | undefined };
  };
  type Rules = z.output<z.ZodObject<typeof ruleShape>>;
  const of = <K extends keyof Rules>(name: K) => fact<NonNullable<Rules[K]>>(name);
  const threshold = of('threshold');
  const said = body.threshold !== undefined || body.config?.threshold !== undefined;
  const nodes = of('hierarchical_nodes');
  return {
    taxonomy_type: of('taxonomy_type'),
    retriever: of('retriever_id'),
    collection: fact<string>('collection_id'),
    input_mappings: of('input_mappings'),
    enrichment_fields: of('enrichment_fields'),
    /** `value` null: no threshold, on purpose; undefined: nothing was said. */
    threshold: { at: threshold.at, value: threshold.value ?? (said ? null : undefined) } as Fact<
      number | null
    >,
    vote: of('vote'),
    top_k: of('top_k'),
    min_share: of('min_share'),
    nodes: (nodes.value ? nodes : of('hierarchy')) as Fact<GivenNode[]>,
    path_field: of('path_field'),
    path_fields: of('path_fields'),
    path_separator: of('path_separator'),
    path_target: of('path_target'),
    level_fields: of('level_fields'),
    level_thresholds: of('level_thresholds'),
    cluster_ids: of('cluster_ids'),
    cluster_overlap_threshold: of('cluster_overlap_threshold'),
  };
}

/** Everything that a body says about the rules; `undefined` values mean that it says nothing. */
export type Facts = ReturnType<typeof factsOf>;

/** Whether a body says anything about the rules. */
export function saysAnything(facts: Facts): boolean {
  return Object.values(facts).some(({ value }) => value !== undefined);
}
