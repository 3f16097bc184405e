// Runs a retriever: inputs checked, stages in order, one page of documents with what happened on the way.
import type { Clock } from '../clock.ts';
import type { RetrieverDefinition } from './definition.ts';
import { isObject, type Path, throwFaults } from './faults.ts';
import { type Filter, parseResolved } from './filter.ts';
import { checkInputs } from './inputs.ts';
import { offsetOf, type PageInfo, type PageTokens, type Pagination, pageInfo, sizeOf } from './pagination.ts';
import type { Degradation, DocumentOptions, Facet, RetrievedDocument, SearchPort } from './ports.ts';
import { RunContext } from './run-context.ts';
import { findStage } from './stages/index.ts';
import type { Hit, WorkingSet } from './stages/stage.ts';
import { hasTemplate, type TemplateScope } from './template.ts';

/** Time that a run may take (api rules, section 12). */
export const runTimeMsMax = 25_000;

/** How far pages reach into documents that were listed, not searched. */
const listOffsetMax = 10_000;

/** One run. `normaliseExecuteBody` makes the parts that come from a request. */
export interface RunRequest {
  readonly definition: RetrieverDefinition;
  readonly inputs: Readonly<Record<string, unknown>>;
  /** A condition tree that every document must fulfil, taken literally: it may hold no templates. */
  readonly filters?: unknown;
  readonly pagination: Pagination;
  readonly return_vectors?: boolean;
  readonly return_presigned_urls?: boolean;
  /** Answer with what can be read, as `degraded`, where a part of the index cannot. */
  readonly allow_partial?: boolean;
  /** Values of `{{CONTEXT.x}}`, such as the namespace's id. */
  readonly context?: Readonly<Record<string, unknown>>;
  /** Values of `{{SECRET.x}}`. */
  readonly secrets?: Readonly<Record<string, unknown>>;
  /** Documents that must not be found. */
  readonly exclude_ids?: readonly string[];
  /** Milliseconds on the clock. @default `runTimeMsMax` from now */
  readonly deadlineMs?: number;
  readonly tokens?: PageTokens;
  /** Called as stages begin and end: the events of a streamed answer. */
  readonly onEvent?: (event: StageEvent) => void;
}

export interface StageStatistics {
  /** Null where the documents stayed in the index and were not counted. */
  readonly input_count: number | null;
  readonly output_count: number | null;
  readonly duration_ms: number;
  /** Output per input; null where one is not known or there was no input. */
  readonly efficiency: number | null;
  readonly cache_hit: false;
  readonly error: string | null;
  readonly metadata: Readonly<Record<string, unknown>>;
}

export type StageEvent =
  | { readonly event_type: 'stage_start'; readonly stage_name: string; readonly stage_index: number }
  | {
      readonly event_type: 'stage_complete';
      readonly stage_name: string;
      readonly stage_index: number;
      readonly statistics: StageStatistics;
    }
  | {
      readonly event_type: 'stage_error';
      readonly stage_name: string;
      readonly stage_index: number;
      readonly error: string;
    };

/** A document as a hit: its fields, and its score in this run. */
export type HitDocument = RetrievedDocument & { readonly score: number };

/** The values of a field over everything that a stage's filters let through, not only over the page. */
export interface CountedFacet extends Facet {
  /** The stage that asked for it. */
  readonly stage_name: string;
  /** False only where a part of the index could not be read and the request allowed that. */
  readonly exact: boolean;
}

export interface RunResult {
  readonly status: 'completed' | 'degraded';
  /** The page, in the order of the last stage. */
  readonly documents: readonly HitDocument[];
  readonly pagination: PageInfo;
  readonly stage_statistics: {
    readonly stages: Readonly<Record<string, StageStatistics>>;
    readonly total_time_ms: number;
  };
  /** In the order of the stages and of their parameters. */
  readonly facets: readonly CountedFacet[];
  readonly warnings: readonly string[];
  readonly degraded: readonly Degradation[];
}

interface MutableStatistics {
  input_count: number | null;
  output_count: number | null;
  duration_ms: number;
  error: string | null;
  metadata: Record<string, unknown>;
}

const finished = (statistics: MutableStatistics): StageStatistics => {
  const { input_count, output_count } = statistics;
  const efficiency = input_count && output_count !== null ? output_count / input_count : null;
  return { ...statistics, efficiency, cache_hit: false };
};

/** The parameters' place in the definition, for faults. */
const parametersPath = (index: number): Path => ['stages', index, 'config', 'parameters'];

/** Request filters hold no templates, so that text which a program puts into one cannot read other inputs. */
function readRequestFilter(filters: unknown): { filter?: Filter; literal: boolean } {
  if (filters === undefined || filters === null) return { literal: false };
  if (isObject(filters) && Object.keys(filters).length === 0) return { literal: false };
  return { filter: parseResolved(filters, ['filters']), literal: hasTemplate(JSON.stringify(filters)) };
}

/**
 * Runs the stages and answers with one page.
 *
 * Filters, orders and limits that stand before the first search are not carried out on documents: they go to the
 * index, which sees all of them. Documents are read once, where a stage needs fields, and at last for the page.
 * Ties are ordered by document id, so equal runs over equal data give equal pages.
 *
 * @throws AppError retriever_input_invalid for inputs, templates, query vectors and filters, with every fault
 * @throws AppError retriever_timeout, request_bad_cursor, and what the port throws
 */
export async function runRetriever(request: RunRequest, port: SearchPort, clock: Clock): Promise<RunResult> {
  const startedMs = clock.now();
  const { definition } = request;
  const checked = checkInputs(definition.input_schema, definition.input_names, request.inputs);
  throwFaults('retriever_input_invalid', checked.faults);
  const { filter, literal } = readRequestFilter(request.filters);
  const stageScope: Record<string, unknown> = {};
  const scope: TemplateScope = {
    INPUT: checked.inputs,
    CONTEXT: request.context ?? {},
    SECRET: request.secrets ?? {},
    STAGE: stageScope,
  };
  const run = new RunContext({
    port,
    clock,
    scope,
    requestFilter: filter,
    allowPartial: request.allow_partial ?? false,
    deadlineMs: request.deadlineMs ?? startedMs + runTimeMsMax,
    excludeIds: request.exclude_ids ?? [],
  });
  for (const warning of checked.warnings) run.warn(warning);
  if (literal)
    run.warn('The filters of a request are taken literally: the templates in them are not replaced.');

  const statistics = new Map<string, MutableStatistics>();
  let set: WorkingSet = { kind: 'selection', sort: [] };
  let count: number | null = 0;
  const facets: (Facet & { readonly stage_name: string })[] = [];
  // Stages that only narrowed the selection learn their counts from whoever asks the index.
  let pending: { own: MutableStatistics; keepsAll: boolean }[] = [];
  const settle = (rows: unknown) => {
    for (const { own, keepsAll } of typeof rows === 'number' ? pending.toReversed() : []) {
      own.output_count = rows as number;
      // What was there before a filter is not known; before an order it is the same.
      if (!keepsAll) break;
    }
    pending = [];
  };

  for (const [index, config] of definition.stages.entries()) {
    const { stage_name } = config;
    const stage = findStage(config.config.stage_id);
    if (!stage) throw new Error(`the stored stage ${config.config.stage_id} does not exist`);
    request.onEvent?.({ event_type: 'stage_start', stage_name, stage_index: index });
    const stageStartMs = clock.now();
    const own: MutableStatistics = {
      input_count: count,
      output_count: null,
      duration_ms: 0,
      error: null,
      metadata: {},
    };
    statistics.set(stage_name, own);
    try {
      run.checkDeadline();
      const ctx = run.forStage(
        parametersPath(index),
        scope,
        (facts) => Object.assign(own.metadata, facts),
        (counted) => facets.push(...counted.map((facet) => ({ ...facet, stage_name }))),
      );
      set = await stage.run(ctx, config.config.parameters, set);
    } catch (error) {
      own.duration_ms = clock.now() - stageStartMs;
      own.error = error instanceof Error ? error.message : String(error);
      const message = error instanceof Error && 'code' in error ? error.message : 'The stage failed.';
      request.onEvent?.({ event_type: 'stage_error', stage_name, stage_index: index, error: message });
      throw error;
    }
    own.duration_ms = clock.now() - stageStartMs;
    if (set.kind === 'selection') {
      count = null;
      own.metadata.pushed_down = true;
      pending.push({ own, keepsAll: stage.category === 'sort' });
    } else {
      count = set.hits.length;
      own.output_count = count;
      settle(own.metadata.rows_selected);
    }
    stageScope[stage_name] = {
      input_count: own.input_count,
      output_count: own.output_count,
      top_score: set.kind === 'hits' ? (set.hits[0]?.score ?? null) : null,
    };
    request.onEvent?.({
      event_type: 'stage_complete',
      stage_name,
      stage_index: index,
      statistics: finished(own),
    });
  }

  const page = await takePage(run, set, request);
  settle(set.kind === 'selection' ? page.total : undefined);
  const pagination = await pageInfo(
    request.pagination,
    {
      offset: page.offset,
      returned: page.hits.length,
      total: page.total,
      ...(page.hits.length > 0 ? { lastId: page.hits.at(-1)!.document_id } : {}),
    },
    request.tokens,
  );
  const stages = Object.fromEntries([...statistics].map(([name, entry]) => [name, finished(entry)]));
  return {
    status: run.degraded.length > 0 ? 'degraded' : 'completed',
    documents: page.documents,
    pagination,
    stage_statistics: { stages, total_time_ms: clock.now() - startedMs },
    facets: facets.map((facet) => ({ ...facet, exact: run.degraded.length === 0 })),
    warnings: run.warnings,
    degraded: run.degraded,
  };
}

interface Page {
  readonly offset: number;
  readonly total: number | null;
  /** The places of the page, also those whose documents are gone. */
  readonly hits: readonly Hit[];
  readonly documents: readonly HitDocument[];
}

async function takePage(run: RunContext, set: WorkingSet, request: RunRequest): Promise<Page> {
  const { pagination, tokens } = request;
  const size = sizeOf(pagination);
  const offset = await offsetOf(pagination, set.kind === 'hits' ? set.hits : undefined, tokens);
  if (set.kind === 'selection' && offset > listOffsetMax) {
    const message = `a list without a search ends after ${listOffsetMax} documents`;
    throwFaults('retriever_input_invalid', [{ type: 'value_error', path: ['pagination'], message }]);
  }
  let hits: readonly Hit[];
  let total: number | null;
  if (set.kind === 'hits') {
    hits = set.hits.slice(offset, offset + size);
    total = set.hits.length;
  } else {
    const listed = await run.list({
      ...(set.filter ? { filter: set.filter } : {}),
      sort: set.sort,
      offset,
      limit: size,
    });
    ({ hits, total } = listed);
  }
  const wanted: DocumentOptions = {
    return_vectors: request.return_vectors ?? false,
    return_presigned_urls: request.return_presigned_urls ?? false,
  };
  const special = wanted.return_vectors || wanted.return_presigned_urls;
  const loaded = await run.withDocuments(hits, special ? wanted : undefined);
  const documents = loaded.map(({ document_id, collection_id, score, document }): HitDocument => {
    return { ...document, document_id, collection_id, score };
  });
  return { offset, total, hits, documents };
}
