// Stage feature_search: nearest documents by one or several features, fused into one ranking.
import * as z from 'zod';
import { conditionKey } from '../../conditions/index.ts';
import { AppError } from '../../errors.ts';
import { type Fault, kindOf, type Path, under } from '../faults.ts';
import { formatFeatureUri, parseFeatureUri } from '../feature-uri.ts';
import { allOf, checkFilter, dynamicToTemplates, type Filter, parseResolved } from '../filter.ts';
import { type FusionMethod, fuse, fusionMethods, keyOf, type ScoredId } from '../fusion.ts';
import type { DocumentRef, FacetField, FacetScope, QueryContent, ResolvedFeature } from '../ports.ts';
import { mimeTypeFault, type Query, queryBytesMax, querySchema, vectorFault } from '../query.ts';
import { hasTemplate, resolve, type TemplateScope } from '../template.ts';
import { facetsSchema } from './facets-parameter.ts';
import { addFault, numberOrTemplate, resolvedNumber, strict } from './parameters.ts';
import { type Hit, hitsMax, type Stage, type StageContext, type WorkingSet } from './stage.ts';

/** Searches in one stage (api rules, section 12). */
export const searchesMax = 10;
const topKRange = { min: 1, max: hitsMax, integer: true };
const scoreRange = { integer: false };

/** One search as it is stored. Numbers may be templates. */
export interface FeatureSearch {
  readonly feature_uri: string;
  readonly query: Query;
  readonly top_k: number | string;
  readonly weight: number;
  readonly min_score?: number | string | undefined;
  readonly filters?: unknown;
  readonly collection_identifiers?: readonly string[] | undefined;
  /** An optional search whose query comes out empty is left out instead of being a fault. */
  readonly optional: boolean;
}

export interface FeatureSearchParameters {
  readonly searches: readonly FeatureSearch[];
  readonly fusion: FusionMethod;
  readonly final_top_k: number | string;
  readonly filters?: unknown;
  readonly collection_identifiers?: readonly string[] | undefined;
  readonly facets?: readonly FacetField[] | undefined;
}

const featureUriSchema = z
  .unknown()
  .transform((value, ctx): string => {
    const { uri, fault } = parseFeatureUri(value);
    if (uri) return formatFeatureUri(uri);
    addFault(ctx, fault, value);
    return z.NEVER;
  })
  .meta({ description: 'mixpeek://<extractor>@<version>/<feature>', type: 'string' });

const filtersSchema = z
  .unknown()
  .transform(dynamicToTemplates)
  .meta({ description: 'A condition, or a tree of AND, OR and NOT; values may be templates' });

const identifiersSchema = z
  .array(
    z
      .string()
      .min(1)
      .max(100)
      .refine((text) => !hasTemplate(text), 'templates are not possible here'),
  )
  .min(1)
  .max(100);
const off = (what: string) =>
  z.literal(false, { error: `${what} is not supported; leave it out` }).optional();

const searchSchema = strict({
  feature_uri: featureUriSchema,
  query: querySchema,
  top_k: numberOrTemplate(topKRange).default(100),
  weight: z.number().min(0).max(1).default(1),
  min_score: numberOrTemplate(scoreRange).optional(),
  filters: filtersSchema.optional(),
  collection_identifiers: identifiersSchema.optional(),
  optional: z.boolean().default(false),
  on_empty: z.enum(['error', 'skip']).optional(),
  lexical: off('lexical search'),
}).transform(({ on_empty, lexical: _lexical, optional, ...search }): FeatureSearch => {
  return { ...search, optional: on_empty === undefined ? optional : on_empty === 'skip' };
});

const parameters = strict({
  searches: z.array(searchSchema).min(1).max(searchesMax),
  fusion: z.enum(fusionMethods).default('rrf'),
  final_top_k: numberOrTemplate(topKRange).default(25),
  filters: filtersSchema.optional(),
  collection_identifiers: identifiersSchema.optional(),
  facets: facetsSchema.optional(),
  // Nothing is cached between runs, so what these ask for always holds.
  cache_behavior: z.enum(['auto', 'disabled', 'aggressive']).optional(),
  cache_ttl_seconds: z.int().min(0).optional(),
}).transform(
  ({ cache_behavior: _behavior, cache_ttl_seconds: _ttl, ...kept }): FeatureSearchParameters => kept,
);

/** What one of the parallel runs of a stage asks with. */
export interface SearchInput {
  readonly scope: TemplateScope;
  /** Document ids that must not be hits. */
  readonly excludeIds: readonly string[];
  /** Only documents that pass can be hits of this run. */
  readonly filter?: Filter | undefined;
}

/** What one of the parallel runs gets. With faults there are no hits. */
export interface SearchOutcome {
  readonly hits: ScoredId[];
  readonly faults: readonly Fault[];
  /** Every search was optional and empty: nothing was searched. */
  readonly skipped: boolean;
  /** What the searches let through, whether it came among the hits or not. */
  readonly scopes: readonly FacetScope[];
}

/** What an extractor makes a vector of. */
type Embeddable = { readonly text: string } | { readonly content: QueryContent };

const embedKey = (query: Embeddable) =>
  'text' in query ? `text ${query.text}` : `content ${query.content.mime_type} ${query.content.digest}`;

/** A search whose templates have values; the vector comes later if an extractor must make it. */
interface PreparedSearch {
  readonly index: number;
  readonly search: FeatureSearch;
  readonly feature: ResolvedFeature | undefined;
  readonly k: number;
  readonly minScore: number | undefined;
  readonly filter: Filter | undefined;
  readonly query: Embeddable | { readonly vector: Float32Array; readonly excludeId?: string };
}

interface PreparedRun {
  readonly searches: PreparedSearch[];
  readonly finalTopK: number;
  readonly faults: Fault[];
}

const needFault = (type: string, path: Path, message: string, fix?: string): Fault =>
  fix === undefined ? { type, path, message } : { type, path, message, fix };

/** Runs `read` and keeps its faults, if that is what it throws, instead of giving up the other inputs. */
function collecting<T>(faults: Fault[], read: () => T): T | undefined {
  try {
    return read();
  } catch (error) {
    if (!(error instanceof AppError) || error.code !== 'retriever_input_invalid') throw error;
    for (const { type, location, message, fix } of error.fields) {
      faults.push(needFault(type, location.slice(1), message, fix));
    }
    return undefined;
  }
}

/**
 * Runs one feature_search stage for many inputs at once: all texts of a feature are embedded in one call, and inputs
 * with equal filters share one scan.
 *
 * Faults of one input (no query text, wrong dimension) are its own and leave the others alone; what fails for all
 * (index unreadable, extractor not deployed) is thrown.
 *
 * @param input what the searches are restricted to: a selection by filter, or hits of the stage before
 * @returns one outcome per input, in order, hits best first and at most `final_top_k`
 */
export async function searchAll(
  ctx: StageContext,
  stage: FeatureSearchParameters,
  inputs: readonly SearchInput[],
  input: WorkingSet,
): Promise<SearchOutcome[]> {
  const include: DocumentRef[] | undefined =
    input.kind === 'hits'
      ? input.hits.map(({ document_id, collection_id }) => ({ document_id, collection_id }))
      : undefined;
  const features = await resolveFeatures(ctx, stage);
  const outer = allOf(ctx.requestFilter, input.kind === 'selection' ? input.filter : undefined);
  const runs: PreparedRun[] = [];
  for (const { scope, filter } of inputs)
    runs.push(await prepareRun(ctx, stage, features, scope, allOf(outer, filter)));

  // Nothing can be found in nothing, but what is wrong with a request is said all the same.
  if (include?.length === 0) {
    return runs.map(({ faults, searches }) => ({
      hits: [],
      faults,
      skipped: searches.length === 0,
      scopes: scopesOf(searches),
    }));
  }
  const vectors = await embedQueries(ctx, runs);
  const tasks: Task[] = [];
  runs.forEach((run, inputIndex) => {
    if (run.faults.length > 0) return;
    for (const prepared of run.searches) {
      const { feature, query } = prepared;
      if (!feature) continue;
      const { feature_uri } = prepared.search;
      const vector = 'vector' in query ? query.vector : vectors.get(feature_uri)?.get(embedKey(query));
      const path = [...ctx.path, 'searches', prepared.index, 'query'];
      if (!vector) {
        const files =
          feature.made_of === 'text'
            ? ''
            : '; it reads files, which a query gives as {"input_mode": "content", "value": "<base64 or URL>"}';
        run.faults.push(
          needFault('query_without_vector', path, `the extractor makes no vector of this query${files}`),
        );
      } else if (vector.length !== feature.dims) {
        const message = `the query vector has ${vector.length} numbers, ${feature_uri} has ${feature.dims}`;
        run.faults.push(needFault('query_wrong_dimension', path, message));
      } else {
        const own = 'vector' in query && query.excludeId !== undefined ? [query.excludeId] : [];
        const exclude = [...ctx.excludeIds, ...(inputs[inputIndex]?.excludeIds ?? []), ...own];
        tasks.push({ inputIndex, prepared, feature, vector, exclude, hits: [] });
      }
    }
  });
  await search(
    ctx,
    tasks.filter((task) => runs[task.inputIndex]?.faults.length === 0),
    include,
    stage.filters !== undefined,
  );

  const found = new Map(
    tasks.map(({ inputIndex, prepared, hits }) => [`${inputIndex}/${prepared.index}`, hits]),
  );
  return runs.map((run, inputIndex): SearchOutcome => {
    if (run.faults.length > 0) return { hits: [], faults: run.faults, skipped: false, scopes: [] };
    // Every search has its list, be it empty: the scale of the scores does not depend on what happens to exist.
    const lists = stage.searches.map(({ weight }, index) => {
      const asked = run.searches.some((prepared) => prepared.index === index);
      return { hits: found.get(`${inputIndex}/${index}`) ?? [], weight: asked ? weight : 0 };
    });
    const fused = fuse(lists, stage.fusion).slice(0, run.finalTopK);
    return {
      hits: fused,
      faults: [],
      skipped: run.searches.length === 0,
      scopes: scopesOf(run.searches),
    };
  });
}

function scopesOf(searches: readonly PreparedSearch[]): FacetScope[] {
  return searches.flatMap(({ search, feature, filter }) =>
    feature
      ? [
          {
            feature_uri: search.feature_uri,
            collection_ids: feature.collection_ids,
            ...(filter ? { filter } : {}),
          },
        ]
      : [],
  );
}

/** The feature of each search, in order; the caller is told of those that no collection holds. */
async function resolveFeatures(
  ctx: StageContext,
  stage: FeatureSearchParameters,
): Promise<(ResolvedFeature | undefined)[]> {
  const known = new Map<string, Promise<ResolvedFeature | undefined>>();
  const features = await Promise.all(
    stage.searches.map((search) => {
      const identifiers = search.collection_identifiers ?? stage.collection_identifiers;
      const key = JSON.stringify([search.feature_uri, identifiers]);
      const asked = known.get(key) ?? ctx.port.resolveFeature(search.feature_uri, identifiers);
      known.set(key, asked);
      return asked;
    }),
  );
  for (const uri of new Set(
    stage.searches.filter((_, index) => !features[index]).map((s) => s.feature_uri),
  )) {
    ctx.warn(`No collection of this retriever holds the feature ${uri}, so searching it finds nothing.`);
  }
  return features;
}

async function prepareRun(
  ctx: StageContext,
  stage: FeatureSearchParameters,
  features: readonly (ResolvedFeature | undefined)[],
  scope: TemplateScope,
  outer: Filter | undefined,
): Promise<PreparedRun> {
  const faults: Fault[] = [];
  const take = (tree: unknown, path: Path): unknown => {
    const { value, faults: own } = resolve(tree, scope);
    faults.push(...under([...ctx.path, ...path], own));
    return own.length > 0 ? undefined : value;
  };
  const takeNumber = (value: unknown, range: Parameters<typeof resolvedNumber>[1], path: Path) => {
    const resolved = take(value, path);
    if (resolved === undefined) return undefined;
    return collecting(faults, () => resolvedNumber(resolved, range, [...ctx.path, ...path]));
  };
  const takeFilter = (tree: unknown, path: Path): Filter | undefined => {
    if (tree === undefined) return undefined;
    const resolved = take(tree, path);
    if (resolved === undefined) return undefined;
    return collecting(faults, () => parseResolved(resolved, [...ctx.path, ...path]));
  };

  const stageFilter = takeFilter(stage.filters, ['filters']);
  const searches: PreparedSearch[] = [];
  for (const [index, search] of stage.searches.entries()) {
    const path = ['searches', index];
    const query = await prepareQuery(ctx, search, features[index], scope, [...path, 'query'], faults);
    if (!query) continue;
    searches.push({
      index,
      search,
      feature: features[index],
      k: takeNumber(search.top_k, topKRange, [...path, 'top_k']) ?? 1,
      minScore:
        search.min_score === undefined
          ? undefined
          : takeNumber(search.min_score, scoreRange, [...path, 'min_score']),
      filter: allOf(outer, stageFilter, takeFilter(search.filters, [...path, 'filters'])),
      query,
    });
  }
  const finalTopK = takeNumber(stage.final_top_k, topKRange, ['final_top_k']) ?? 1;
  return { searches, finalTopK, faults };
}

/** The query with its values; undefined if it is left out (optional and empty) or faulty. */
async function prepareQuery(
  ctx: StageContext,
  search: FeatureSearch,
  feature: ResolvedFeature | undefined,
  scope: TemplateScope,
  relative: Path,
  faults: Fault[],
): Promise<PreparedSearch['query'] | undefined> {
  const path = [...ctx.path, ...relative];
  const { value, faults: own } = resolve(search.query, scope);
  if (own.length > 0) {
    const onlyMissing = own.every((fault) => fault.type === 'template_unknown_variable');
    if (!(search.optional && onlyMissing)) faults.push(...under(path, own));
    return undefined;
  }
  // `resolve` keeps the shape; only the leaves may have other types now.
  const query = value as { input_mode: Query['input_mode']; [key: string]: unknown };
  if (query.input_mode === 'content' && !feature) return { vector: new Float32Array(0) };
  if (query.input_mode === 'content' && isFile(query, feature?.made_of)) {
    return prepareContent(ctx, search, query, path, faults);
  }
  if (query.input_mode === 'text' || query.input_mode === 'content') {
    const text = query.input_mode === 'text' ? query.text : query.content;
    if (search.optional && (text === null || text === '')) return undefined;
    if (typeof text !== 'string') {
      const fix = Array.isArray(text)
        ? 'for a vector, write {"input_mode": "vector", "vector": …}'
        : undefined;
      faults.push(needFault('query_wrong_type', path, `the query must be a text, got ${kindOf(text)}`, fix));
      return undefined;
    }
    if (text.trim() === '') {
      if (!search.optional) faults.push(needFault('query_empty', path, 'the query text is empty'));
      return undefined;
    }
    const bytes = Buffer.byteLength(text, 'utf8');
    if (bytes > queryBytesMax) {
      const message = `the query text has ${bytes} bytes; at most ${queryBytesMax} are allowed`;
      faults.push(needFault('query_too_long', path, message));
      return undefined;
    }
    return { text };
  }
  if (query.input_mode === 'vector') {
    if (search.optional && query.vector === null) return undefined;
    const message = vectorFault(query.vector);
    if (message === undefined) return { vector: Float32Array.from(query.vector as number[]) };
    faults.push(needFault('query_wrong_type', path, message));
    return undefined;
  }
  const { document_id, collection_id } = query;
  if (search.optional && (document_id === null || document_id === '')) return undefined;
  if (typeof document_id !== 'string' || (collection_id !== undefined && typeof collection_id !== 'string')) {
    const message = `the document must be named by ids, got ${kindOf(document_id)}`;
    faults.push(needFault('query_wrong_type', path, message));
    return undefined;
  }
  // Without the feature anywhere there is nothing to look up, and the search finds nothing.
  if (!feature) return { vector: new Float32Array(0) };
  const ref = collection_id === undefined ? { document_id } : { document_id, collection_id };
  const vector = await ctx.port.vectorOf(search.feature_uri, ref);
  ctx.checkDeadline();
  if (vector) return { vector, excludeId: document_id };
  const message = `there is no document ${JSON.stringify(document_id.slice(0, 100))} with this feature`;
  faults.push(needFault('query_document_unknown', path, message));
  return undefined;
}

/** Whether a `content` query is a file rather than a text: as the feature is, and where it is both, as it looks. */
function isFile(
  { content, mime_type }: Readonly<Record<string, unknown>>,
  madeOf: ResolvedFeature['made_of'] | undefined,
): boolean {
  if (typeof mime_type === 'string') return !/^text\//i.test(mime_type);
  if (madeOf !== 'both') return madeOf === 'binary';
  return typeof content === 'string' && /^\s*(https?:\/\/|data:)/i.test(content);
}

/** The bytes of a query that is a file; undefined if it is left out (optional and empty) or faulty. */
async function prepareContent(
  ctx: StageContext,
  search: FeatureSearch,
  { content, mime_type }: Readonly<Record<string, unknown>>,
  path: Path,
  faults: Fault[],
): Promise<PreparedSearch['query'] | undefined> {
  if (search.optional && (content === null || content === '')) return undefined;
  const refuse = (type: string, message: string, fix?: string) => {
    faults.push(needFault(type, path, message, fix));
    return undefined;
  };
  if (typeof content !== 'string')
    return refuse('query_wrong_type', `the query must be a URL or base64, got ${kindOf(content)}`);
  if (content.trim() === '') return search.optional ? undefined : refuse('query_empty', 'the query is empty');
  const mimeFault = mime_type === undefined || mime_type === null ? undefined : mimeTypeFault(mime_type);
  if (mimeFault !== undefined) return refuse('query_wrong_type', `mime_type: ${mimeFault}`);
  const loaded = await ctx.port.loadContent(
    content.trim(),
    (mime_type as string | null | undefined) ?? undefined,
    ctx.deadlineMs,
  );
  ctx.checkDeadline();
  if (!('fault' in loaded)) return { content: loaded };
  return refuse(loaded.fault.type, loaded.fault.message, loaded.fault.fix);
}

/** Vectors by feature URI and query: one call per feature, each query once. */
async function embedQueries(
  ctx: StageContext,
  runs: readonly PreparedRun[],
): Promise<Map<string, Map<string, Float32Array | undefined>>> {
  const queries = new Map<string, Map<string, string | QueryContent>>();
  for (const run of runs) {
    if (run.faults.length > 0) continue;
    for (const { search, feature, query } of run.searches) {
      if (!feature || 'vector' in query) continue;
      const known = queries.get(search.feature_uri) ?? new Map<string, string | QueryContent>();
      queries.set(
        search.feature_uri,
        known.set(embedKey(query), 'text' in query ? query.text : query.content),
      );
    }
  }
  const embedded = await Promise.all(
    [...queries].map(async ([featureUri, distinct]) => {
      const list = [...distinct.values()];
      const vectors = await ctx.port.embed(featureUri, list, ctx.deadlineMs);
      if (vectors.length !== list.length)
        throw new Error(`embed gave ${vectors.length} for ${list.length} queries`);
      return [
        featureUri,
        new Map([...distinct.keys()].map((key, index) => [key, vectors[index]] as const)),
      ] as const;
    }),
  );
  ctx.checkDeadline();
  return new Map(embedded);
}

interface Task {
  readonly inputIndex: number;
  readonly prepared: PreparedSearch;
  readonly feature: ResolvedFeature;
  readonly vector: Float32Array;
  readonly exclude: readonly string[];
  hits: readonly ScoredId[];
}

/** Fills in the hits of the tasks; those that differ in nothing but vector and exclusions share one scan. */
async function search(
  ctx: StageContext,
  tasks: readonly Task[],
  include: DocumentRef[] | undefined,
  stageFilters: boolean,
): Promise<void> {
  const scans = Map.groupBy(tasks, ({ prepared, feature }) =>
    JSON.stringify([
      prepared.search.feature_uri,
      feature.collection_ids,
      prepared.k,
      prepared.minScore ?? null,
      prepared.filter ? conditionKey(prepared.filter) : null,
    ]),
  );
  const replies = await Promise.all(
    [...scans.values()].map(async (scan) => {
      const { prepared, feature } = scan[0]!;
      const reply = await ctx.port.search({
        feature_uri: prepared.search.feature_uri,
        collection_ids: feature.collection_ids,
        vectors: scan.map((task) => task.vector),
        k: prepared.k,
        allow_partial: ctx.allowPartial,
        deadline_ms: ctx.deadlineMs,
        ...(prepared.filter ? { filter: prepared.filter } : {}),
        ...(include ? { include } : {}),
        ...(scan.some((task) => task.exclude.length > 0)
          ? { exclude: scan.map((task) => task.exclude) }
          : {}),
        ...(prepared.minScore === undefined ? {} : { min_score: prepared.minScore }),
      });
      if (reply.hits.length !== scan.length)
        throw new Error(`search gave ${reply.hits.length} of ${scan.length} lists`);
      scan.forEach((task, index) => {
        task.hits = reply.hits[index] ?? [];
      });
      return { reply, feature, scan };
    }),
  );
  ctx.checkDeadline();
  for (const { reply } of replies) {
    for (const field of reply.unknown_fields ?? [])
      ctx.warn(`No document has the field ${JSON.stringify(field)}.`);
    ctx.degrade(reply.degraded ?? []);
  }
  ctx.note({
    searches: replies.map(({ reply, feature, scan }) => ({
      feature_uri: scan[0]!.prepared.search.feature_uri,
      metric: feature.metric,
      queries: scan.length,
      ...reply.stats,
    })),
  });
  const narrows = tasks.some(({ prepared }) => prepared.search.filters !== undefined);
  if (narrows || stageFilters) return;
  const selected = replies.map(({ reply }) => reply.stats.rows_selected).filter((rows) => rows !== undefined);
  if (selected.length === 1) ctx.note({ rows_selected: selected[0] });
}

export const featureSearch: Stage<FeatureSearchParameters> = {
  stage_id: 'feature_search',
  description: 'Finds the nearest documents by one or several features and fuses the rankings.',
  category: 'filter',
  icon: 'search',
  parameters,
  canStart: true,
  roots: () => ['INPUT', 'CONTEXT', 'STAGE', 'SECRET'],
  check: ({ searches, filters }) => [
    ...(filters === undefined ? [] : checkFilter(filters, ['filters'])),
    ...searches.flatMap((search, index) =>
      search.filters === undefined ? [] : checkFilter(search.filters, ['searches', index, 'filters']),
    ),
  ],
  featureUris: ({ searches }) => searches.map((search) => search.feature_uri),
  mayLack: ({ searches }, [root, index, part]) =>
    root === 'searches' &&
    typeof index === 'number' &&
    part === 'query' &&
    searches[index]?.optional === true,
  outputMax: ({ final_top_k }, input) => {
    const own = typeof final_top_k === 'number' ? final_top_k : hitsMax;
    return input === null ? own : Math.min(own, input);
  },
  async run(ctx, stage, input) {
    const source = input.kind === 'selection' && input.sort.length > 0 ? { ...input, sort: [] } : input;
    const [outcome] = await searchAll(ctx, stage, [{ scope: ctx.scope, excludeIds: [] }], source);
    if (!outcome) throw new Error('one input gives one outcome');
    ctx.fail(outcome.faults);
    const include = input.kind === 'hits' ? { include: input.hits } : {};
    if (outcome.skipped) {
      const filter = allOf(ctx.requestFilter, input.kind === 'selection' ? input.filter : undefined);
      await ctx.facets(stage.facets, { scopes: [filter ? { filter } : {}], ...include });
      ctx.warn('Every search of the stage was optional and had no query, so it let its input through.');
      return input;
    }
    await ctx.facets(stage.facets, { scopes: outcome.scopes, ...include });
    const known = new Map(input.kind === 'hits' ? input.hits.map((hit) => [keyOf(hit), hit]) : []);
    const hits = outcome.hits.map((hit): Hit => {
      const { document, added } = known.get(keyOf(hit)) ?? {};
      return { ...hit, ...(document ? { document } : {}), ...(added ? { added } : {}) };
    });
    return { kind: 'hits', hits };
  },
};
