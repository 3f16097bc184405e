// Running retrievers: what a run reads is begun together, so that a warm run waits for the table twice and no more.
import type { NsCtx } from '../../context.ts';
import { invalid } from '../../errors.ts';
import { newId } from '../../ids.ts';
import { makeCursor, readCursor } from '../../page.ts';
import type {
  ExecuteRequest,
  PageTokens,
  Plan,
  RetrieverDefinition,
  RunResult,
} from '../../retrieval/index.ts';
import { explainRetriever, runRetriever, runTimeMsMax } from '../../retrieval/index.ts';
import type { Table } from '../../store/table.ts';
import type { StoredCollection } from '../collections/service.ts';
import { featureOf, findCollection, listCollections } from '../collections/service.ts';
import { RunReads } from './run-reads.ts';
import { IndexSearchPort } from './search-port.ts';
import type { StoredRetriever } from './service.ts';
import { checkDefinition, definitionOf, getRetriever } from './service.ts';

/** A run's result with what names it. */
export interface ExecutionResult extends RunResult {
  readonly retriever_id: string | null;
  readonly execution_id: string;
  readonly time_limit_ms: number;
  readonly plan?: Plan;
}

/** What the last run of a retriever read: where the next one may begin before it has seen the retriever's row. */
interface Hint {
  readonly named: readonly string[];
  readonly collectionIds: readonly string[];
  readonly pluginIds: readonly string[];
}

const hintsMax = 500;
const hints = new WeakMap<Table, Map<string, Hint>>();

function hintsOf(ctx: NsCtx): Map<string, Hint> {
  const found = hints.get(ctx.ports.table) ?? new Map<string, Hint>();
  hints.set(ctx.ports.table, found);
  return found;
}

function remember(known: Map<string, Hint>, key: string, hint: Hint): void {
  known.delete(key);
  known.set(key, hint);
  if (known.size > hintsMax) known.delete(known.keys().next().value!);
}

/** What the runs of one request need. */
interface Prepared {
  readonly retriever: StoredRetriever;
  readonly definition: RetrieverDefinition;
  readonly collections: readonly StoredCollection[];
  readonly reads: RunReads;
}

async function prepare(ctx: NsCtx, idOrName: string): Promise<Prepared> {
  const known = hintsOf(ctx);
  const key = `${ctx.ns.orgId}/${ctx.ns.namespaceId}/${idOrName}`;
  const hint = known.get(key);
  const reads = new RunReads(ctx);
  // A hint that is out of date costs a read for nothing, and nothing else: what is used is checked below.
  for (const id of hint?.collectionIds ?? []) void reads.view(id);
  for (const id of hint?.pluginIds ?? []) void reads.plugin(id);
  const early = hint && hint.named.length > 0 ? findAll(ctx, hint.named) : listCollections(ctx);
  const [retriever, found] = await Promise.all([getRetriever(ctx, idOrName), early]);
  const named = retriever.collection_ids;
  let collections: readonly StoredCollection[];
  if (named.length === 0) {
    collections = hint && hint.named.length > 0 ? await listCollections(ctx) : found;
  } else {
    const lacking = named.filter((id) => !found.some((collection) => collection.id === id));
    const all = lacking.length === 0 ? found : [...found, ...(await findAll(ctx, lacking))];
    collections = all.filter(({ id }) => named.includes(id));
  }
  const definition = definitionOf(retriever);
  const held = definition.feature_uris.flatMap((uri) =>
    collections.flatMap((collection) => {
      const feature = featureOf(collection, uri);
      return feature ? [{ collectionId: collection.id, pluginId: feature.plugin_id }] : [];
    }),
  );
  const searched =
    definition.feature_uris.length > 0
      ? held.map(({ collectionId }) => collectionId)
      : collections.map(({ id }) => id);
  const collectionIds = [...new Set(searched)];
  for (const id of collectionIds) void reads.view(id);
  remember(known, key, {
    named,
    collectionIds,
    pluginIds: [...new Set(held.map(({ pluginId }) => pluginId))],
  });
  return { retriever, definition, collections, reads };
}

async function findAll(ctx: NsCtx, ids: readonly string[]): Promise<StoredCollection[]> {
  return (await Promise.all(ids.map((id) => findCollection(ctx, id)))).filter(
    (collection) => collection !== undefined,
  );
}

/** Cursors that hold for this retriever, these inputs and these filters only. */
function tokensOf(ctx: NsCtx, name: string, request: ExecuteRequest): PageTokens {
  const list = `run ${ctx.ns.namespaceId} ${name}`;
  const { inputs, filters, index_versions } = request;
  const shape = { filters: [inputs, filters ?? null, ...(index_versions ? [index_versions] : [])] };
  return {
    seal: (position) => makeCursor(ctx, list, shape, position),
    open: async (token) => Number(await readCursor(ctx, list, shape, token)),
  };
}

interface RunOptions {
  readonly retrieverId: string | null;
  /** What cursors are bound to. */
  readonly cursorName: string;
  readonly definition: RetrieverDefinition;
  readonly collections: readonly StoredCollection[];
  readonly reads: RunReads;
  readonly maxTimeMs: number | undefined;
  readonly startedMs: number;
}

async function run(ctx: NsCtx, options: RunOptions, request: ExecuteRequest): Promise<ExecutionResult> {
  const { definition, collections, retrieverId } = options;
  const reads = request.index_versions
    ? new RunReads(ctx, checkVersions(request.index_versions, collections))
    : options.reads;
  const time_limit_ms = Math.min(options.maxTimeMs ?? runTimeMsMax, runTimeMsMax);
  const port = new IndexSearchPort(ctx, { collections, reads });
  const result = await runRetriever(
    {
      definition,
      inputs: request.inputs,
      ...(request.filters === undefined ? {} : { filters: request.filters }),
      pagination: request.pagination,
      return_vectors: request.return_vectors,
      return_presigned_urls: request.return_presigned_urls,
      allow_partial: request.allow_partial,
      context: { namespace_id: ctx.ns.namespaceId, retriever_id: retrieverId },
      deadlineMs: options.startedMs + time_limit_ms,
      tokens: tokensOf(ctx, options.cursorName, request),
    },
    port,
    ctx.ports.clock,
  );
  return {
    ...result,
    retriever_id: retrieverId,
    execution_id: newId('execution', ctx.ports.clock, ctx.ports.random),
    time_limit_ms,
    ...(request.explain
      ? { plan: explainRetriever(definition, await countRows(reads, definition, collections)) }
      : {}),
  };
}

/** @throws AppError retriever_input_invalid for a collection that the retriever does not read */
function checkVersions(
  versions: Readonly<Record<string, number>>,
  collections: readonly StoredCollection[],
): Readonly<Record<string, number>> {
  const strange = Object.keys(versions).filter((id) => !collections.some((one) => one.id === id));
  if (strange.length === 0) return versions;
  throw invalid(
    'retriever_input_invalid',
    strange.map((id) => ({
      type: 'value_error',
      location: ['body', 'index_versions', id],
      message: `"${id.slice(0, 100)}" is not the id of a collection that this retriever reads`,
      fix: 'take ids and versions from stage_statistics of an earlier run',
    })),
  );
}

/** How many documents the collections that a definition reads show; counted by their heads. */
async function countRows(
  reads: RunReads,
  definition: RetrieverDefinition,
  collections: readonly StoredCollection[],
): Promise<number> {
  const { feature_uris } = definition;
  const read = collections.filter(
    (collection) => feature_uris.length === 0 || feature_uris.some((uri) => featureOf(collection, uri)),
  );
  const views = await Promise.all(read.map(({ id }) => reads.view(id)));
  return views.reduce((sum, { head }) => sum + head.document_count, 0);
}

function optionsOf({ retriever, ...prepared }: Prepared, startedMs: number): RunOptions {
  return {
    ...prepared,
    retrieverId: retriever.id,
    cursorName: `${retriever.id} ${retriever.revision}`,
    maxTimeMs: retriever.budget_limits.max_time_ms,
    startedMs,
  };
}

/**
 * Runs a stored retriever.
 *
 * Its collections are found anew at each run where it names none; if none holds the feature the run finds nothing and
 * says so in `warnings`.
 *
 * @throws AppError retriever_not_found, retriever_input_invalid, retriever_timeout, index_unavailable, index_corrupt,
 *   plugin_not_deployed, plugin_failed, plugin_timeout, plugin_unavailable, request_bad_cursor
 */
export async function executeRetriever(
  ctx: NsCtx,
  idOrName: string,
  request: ExecuteRequest,
): Promise<ExecutionResult> {
  const startedMs = ctx.ports.clock.now();
  return run(ctx, optionsOf(await prepare(ctx, idOrName), startedMs), request);
}

/** Queries of a batch that run at the same time. */
const batchAtOnce = 5;

/** Runs a stored retriever for many requests over one version of the index; a failure is its query's own. */
export async function executeMany(
  ctx: NsCtx,
  idOrName: string,
  requests: readonly (() => ExecuteRequest)[],
): Promise<{ retriever: StoredRetriever; outcomes: PromiseSettledResult<ExecutionResult>[] }> {
  const startedMs = ctx.ports.clock.now();
  const prepared = await prepare(ctx, idOrName);
  const options = optionsOf(prepared, startedMs);
  const outcomes: PromiseSettledResult<ExecutionResult>[] = [];
  for (let i = 0; i < requests.length; i += batchAtOnce) {
    const block = requests.slice(i, i + batchAtOnce).map(async (request) => run(ctx, options, request()));
    outcomes.push(...(await Promise.allSettled(block)));
  }
  return { retriever: prepared.retriever, outcomes };
}

/** Runs stages that are not stored. @throws AppError retriever_invalid, and as `executeRetriever` */
export async function executeAdHoc(
  ctx: NsCtx,
  body: {
    readonly stages: unknown;
    readonly input_schema?: unknown;
    readonly collections: readonly string[];
    readonly collectionsKey: string;
    readonly maxTimeMs?: number;
  },
  request: ExecuteRequest,
): Promise<ExecutionResult> {
  const startedMs = ctx.ports.clock.now();
  const { definition, collectionIds } = await checkDefinition(
    ctx,
    body,
    body.collections,
    body.collectionsKey,
  );
  const all = await listCollections(ctx);
  return run(
    ctx,
    {
      retrieverId: null,
      cursorName: JSON.stringify([definition.stages, collectionIds]),
      definition,
      collections: collectionIds.length > 0 ? all.filter(({ id }) => collectionIds.includes(id)) : all,
      reads: new RunReads(ctx),
      maxTimeMs: body.maxTimeMs,
      startedMs,
    },
    request,
  );
}

/** What a run would do. */
export async function explain(
  ctx: NsCtx,
  idOrName: string,
): Promise<{ retriever: StoredRetriever; plan: Plan; collectionIds: string[] }> {
  const { retriever, definition, collections, reads } = await prepare(ctx, idOrName);
  const { feature_uris } = definition;
  const read = collections.filter(
    (collection) => feature_uris.length === 0 || feature_uris.some((uri) => featureOf(collection, uri)),
  );
  const plan = explainRetriever(definition, await countRows(reads, definition, collections));
  return { retriever, plan, collectionIds: read.map(({ id }) => id) };
}
