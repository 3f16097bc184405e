// Requests about retrievers -> service calls -> replies.
import type { NsCtx } from '../../context.ts';
import type { FieldFault } from '../../errors.ts';
import { invalid, isAppError } from '../../errors.ts';
import type { Handlers } from '../../http/handler.ts';
import { Answer } from '../../http/handler.ts';
import type { ListInput } from '../../page.ts';
import { mergeListInput, pageOfAll } from '../../page.ts';
import type { ExecuteRequest } from '../../retrieval/index.ts';
import { normaliseExecuteBody, parseFeatureUri, stageDefinitions } from '../../retrieval/index.ts';
import type { Execution, Retriever, routes } from './contract.ts';
import type { ExecutionResult } from './execute.ts';
import { executeAdHoc, executeMany, executeRetriever, explain } from './execute.ts';
import type { StoredRetriever } from './service.ts';
import {
  createRetriever,
  definitionOf,
  deleteRetriever,
  getRetriever,
  listRetrievers,
  updateRetriever,
} from './service.ts';

function toRetriever(stored: StoredRetriever): Retriever {
  const definition = definitionOf(stored);
  return {
    retriever_id: stored.id,
    retriever_name: stored.name,
    name: stored.name,
    description: stored.description,
    collection_ids: [...stored.collection_ids],
    collection_identifiers: [...stored.collection_ids],
    stages: definition.stages as unknown as Retriever['stages'],
    input_schema: definition.input_schema as unknown as Retriever['input_schema'],
    budget_limits: stored.budget_limits,
    feature_uris: [...definition.feature_uris],
    feature_dependencies: definition.feature_uris.map((text) => {
      const { uri } = parseFeatureUri(text);
      if (!uri) throw new Error(`the stored definition holds the feature URI ${text}`);
      return {
        scheme: 'mixpeek' as const,
        extractor: uri.extractor_name,
        version: uri.version,
        output: uri.feature_name,
      };
    }),
    tags: [...stored.tags],
    display_config: stored.display_config as Retriever['display_config'],
    visibility: 'private',
    metadata: stored.metadata as Retriever['metadata'],
    version: stored.revision,
    created_at: stored.created_at,
    updated_at: stored.updated_at,
  };
}

async function page(ctx: NsCtx, input: ListInput) {
  const rows = (await listRetrievers(ctx)).map(toRetriever);
  return pageOfAll(ctx, 'retrievers', rows, input, ['retriever_id', 'retriever_name', 'description']);
}

const answer = (stored: StoredRetriever) => new Answer(toRetriever(stored), { etag: stored.revision });

interface Flags {
  readonly return_vectors?: boolean | undefined;
  readonly return_presigned_urls?: boolean | undefined;
}

/** Members of an execute body that only an ad hoc run has. */
const adHocKeys = ['stages', 'input_schema', 'collection_identifiers', 'collection_ids', 'budget_limits'];

/** Reads an execute body; the flags may stand in the query string too. */
function readRequest(body: unknown, flags: Flags, alsoAccepted: readonly string[] = []): ExecuteRequest {
  const request = normaliseExecuteBody(body, alsoAccepted);
  if (request.stream) {
    throw invalid('retriever_input_invalid', [
      {
        type: 'not_supported',
        location: ['body', 'stream'],
        message: 'answers are not streamed yet',
        fix: 'leave "stream" out; the whole answer comes at once',
      },
    ]);
  }
  return {
    ...request,
    return_vectors: request.return_vectors || flags.return_vectors === true,
    return_presigned_urls: request.return_presigned_urls || flags.return_presigned_urls === true,
  };
}

/** Bytes of JSON of the hits of one answer. They stand in it twice, and Lambda's replies end at 6 MB. */
const hitsBytesMax = 2_500_000;

/** @throws AppError retriever_input_invalid that says how many hits fit */
function checkSize(documents: readonly unknown[], at: readonly string[]): void {
  const bytes = Buffer.byteLength(JSON.stringify(documents));
  if (bytes <= hitsBytesMax) return;
  const fit = Math.max(1, Math.floor((documents.length * hitsBytesMax) / bytes));
  throw invalid('retriever_input_invalid', [
    {
      type: 'page_too_large',
      location: ['body', ...at],
      message: `the ${documents.length} hits have ${bytes} bytes, and an answer holds ${hitsBytesMax}`,
      fix: `ask for about ${fit}`,
    },
  ]);
}

function toExecution(ctx: NsCtx, result: ExecutionResult): Execution {
  checkSize(result.documents, ['limit']);
  const documents = result.documents as unknown as Execution['documents'];
  return {
    retriever_id: result.retriever_id,
    execution_id: result.execution_id,
    status: result.status,
    documents,
    results: documents,
    pagination: { ...result.pagination },
    stage_statistics: result.stage_statistics as unknown as Execution['stage_statistics'],
    facets: result.facets.map((facet) => ({ ...facet, values: [...facet.values] })),
    budget: { time_used_ms: result.stage_statistics.total_time_ms, time_limit_ms: result.time_limit_ms },
    warnings: [...ctx.warnings, ...result.warnings],
    ...(result.degraded.length > 0 ? { degraded: [...result.degraded] } : {}),
    ...(result.plan
      ? { explain_plan: result.plan as unknown as NonNullable<Execution['explain_plan']> }
      : {}),
    error: null,
  };
}

/** The parts of an ad hoc body that are not the run's. */
function readAdHoc(rest: Readonly<Record<string, unknown>>) {
  const faults: FieldFault[] = [];
  const wrong = (key: string, message: string, fix: string) =>
    faults.push({ type: 'wrong_value', location: ['body', key], message, fix });
  const lists = (['collection_identifiers', 'collection_ids'] as const).filter((key) => rest[key] != null);
  for (const key of lists) {
    const value = rest[key];
    const right =
      Array.isArray(value) &&
      value.length <= 20 &&
      value.every((item) => typeof item === 'string' && item.length > 0 && item.length <= 100);
    if (!right) wrong(key, 'must be a list of at most 20 ids or names', 'send ["articles"]');
  }
  if (
    lists.length === 2 &&
    JSON.stringify(rest.collection_ids) !== JSON.stringify(rest.collection_identifiers)
  ) {
    wrong(
      'collection_ids',
      '"collection_ids" and "collection_identifiers" mean the same and differ',
      'send one of them',
    );
  }
  const budget = (rest.budget_limits ?? {}) as { max_time_ms?: unknown };
  const { max_time_ms } = budget;
  if (max_time_ms !== undefined && !(Number.isInteger(max_time_ms) && (max_time_ms as number) >= 1)) {
    wrong(
      'budget_limits',
      'max_time_ms must be a whole number of milliseconds',
      'send {"max_time_ms": 5000}',
    );
  }
  if (faults.length > 0) throw invalid('retriever_input_invalid', faults);
  const key = lists[0] ?? 'collection_identifiers';
  return {
    stages: rest.stages,
    input_schema: rest.input_schema,
    collections: (rest[key] ?? []) as readonly string[],
    collectionsKey: key,
    ...(max_time_ms === undefined ? {} : { maxTimeMs: max_time_ms as number }),
  };
}

export const handlers: Handlers<typeof routes> = {
  createRetriever: async ({ ctx, body }) => answer(await createRetriever(ctx, body)),
  listRetrievers: ({ ctx, query }) => page(ctx, query),
  searchRetrievers: ({ ctx, query, body }) => page(ctx, mergeListInput(query, body)),
  listRetrieverStages: async () =>
    stageDefinitions().map((stage) => ({
      ...stage,
      parameter_schema: stage.parameter_schema as Retriever['display_config'],
    })),
  getRetriever: async ({ ctx, params }) => answer(await getRetriever(ctx, params.retriever!)),
  putRetriever: async ({ ctx, params, body, ifMatch }) =>
    answer(await updateRetriever(ctx, params.retriever!, body, ifMatch)),
  patchRetriever: async ({ ctx, params, body, ifMatch }) =>
    answer(await updateRetriever(ctx, params.retriever!, body, ifMatch)),
  deleteRetriever: async ({ ctx, params, ifMatch }) => {
    const retriever = await deleteRetriever(ctx, params.retriever!, ifMatch);
    return { success: true as const, message: `Retriever ${retriever.name} deleted.` };
  },
  executeAdHoc: async ({ ctx, query, body }) => {
    const request = readRequest(body, query, adHocKeys);
    return toExecution(ctx, await executeAdHoc(ctx, readAdHoc(request.rest), request));
  },
  executeRetriever: async ({ ctx, params, query, body }) =>
    toExecution(ctx, await executeRetriever(ctx, params.retriever!, readRequest(body, query))),
  explainRetriever: async ({ ctx, params, body }) => {
    readRequest(body, {});
    const { retriever, plan, collectionIds } = await explain(ctx, params.retriever!);
    return {
      ...(plan as unknown as NonNullable<Execution['explain_plan']>),
      retriever_id: retriever.id,
      retriever_name: retriever.name,
      collection_ids: collectionIds,
    };
  },
  executeRetrieverBatch: async ({ ctx, params, query, body }) => {
    const flags = {
      return_vectors: query.return_vectors ?? body.return_vectors,
      return_presigned_urls: query.return_presigned_urls ?? body.return_presigned_urls,
    };
    const requests = body.queries.map((own) => () => readRequest({ ...body.settings, ...own }, flags));
    const { retriever, outcomes } = await executeMany(ctx, params.retriever!, requests);
    const results = outcomes.map((outcome, query_index) => {
      if (outcome.status === 'fulfilled') return { ...toExecution(ctx, outcome.value), query_index };
      const error: unknown = outcome.reason;
      // What has no code is our fault, and the request's.
      if (!isAppError(error)) throw error;
      const fields = error.fields as unknown as Retriever['display_config'];
      const error_details = { code: error.code, retryable: error.retryable, validation_errors: fields };
      return {
        query_index,
        status: 'failed' as const,
        documents: [],
        results: [],
        error: error.detail,
        error_details,
      };
    });
    checkSize(
      results.flatMap((result) => [...result.documents, ...('facets' in result ? result.facets : [])]),
      ['queries'],
    );
    const failed_queries = results.filter((result) => result.status === 'failed').length;
    return { retriever_id: retriever.id, results, total_queries: results.length, failed_queries };
  },
};
