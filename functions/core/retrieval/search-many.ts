// Many inputs through one feature_search at once: one embedding call and one scan instead of one per document.
import type { Clock } from '../clock.ts';
import type { RetrieverDefinition } from './definition.ts';
import type { Filter } from './filter.ts';
import type { Degradation, SearchPort } from './ports.ts';
import { RunContext } from './run-context.ts';
import {
  type FeatureSearch,
  type FeatureSearchParameters,
  featureSearch,
  type SearchOutcome,
  searchAll,
} from './stages/feature-search.ts';

export interface SearchManyRequest {
  /** Parameters of a feature_search stage, as a definition stores them. */
  readonly parameters: FeatureSearchParameters;
  /** One search each. */
  readonly queries: readonly {
    readonly inputs: Readonly<Record<string, unknown>>;
    /** Ids that must not be hits of this query: the document itself, for a taxonomy. */
    readonly exclude_ids?: readonly string[];
    /** Only documents that pass count for this query, beside the filter of all; equal filters share a scan. */
    readonly filter?: Filter;
  }[];
  /** Only documents that pass count, before the top k are taken. */
  readonly filter?: Filter;
  readonly context?: Readonly<Record<string, unknown>>;
  /** Hits per query; replaces `top_k` and `final_top_k` of the stage. */
  readonly top_k?: number;
  /** Milliseconds on the clock. */
  readonly deadlineMs: number;
}

export interface SearchManyResult {
  /** In the order of `queries`. A query with faults (no text, wrong dimension) has no hits; the others go on. */
  readonly outcomes: readonly SearchOutcome[];
  readonly warnings: readonly string[];
  readonly degraded: readonly Degradation[];
  readonly metadata: Readonly<Record<string, unknown>>;
}

/**
 * Searches for many inputs. Hits carry ids and scores only; documents are the caller's to fetch.
 *
 * @throws AppError index_unavailable, retriever_timeout, and what else concerns all queries
 */
export async function searchMany(
  request: SearchManyRequest,
  port: SearchPort,
  clock: Clock,
): Promise<SearchManyResult> {
  const { parameters, queries, filter, context, top_k, deadlineMs } = request;
  const run = new RunContext({
    port,
    clock,
    scope: {},
    requestFilter: filter,
    allowPartial: false,
    deadlineMs,
    excludeIds: [],
  });
  const metadata: Record<string, unknown> = {};
  const ctx = run.forStage(['parameters'], {}, (facts) => Object.assign(metadata, facts));
  const narrowed =
    top_k === undefined
      ? parameters
      : {
          ...parameters,
          final_top_k: top_k,
          searches: parameters.searches.map((search) => ({ ...search, top_k })),
        };
  const outcomes = await searchAll(
    ctx,
    narrowed,
    queries.map(({ inputs, exclude_ids, filter: own }) => ({
      scope: { INPUT: inputs, CONTEXT: context ?? {} },
      excludeIds: exclude_ids ?? [],
      filter: own,
    })),
    { kind: 'selection', sort: [] },
  );
  return { outcomes, warnings: run.warnings, degraded: run.degraded, metadata };
}

/**
 * The parameters and the only search of a retriever that is one feature_search with one search, so that scores are
 * raw similarities and a threshold on them means something; undefined for any other retriever.
 */
export function singleSearchOf(
  definition: Pick<RetrieverDefinition, 'stages'>,
): { parameters: FeatureSearchParameters; search: FeatureSearch } | undefined {
  const [stage, second] = definition.stages;
  if (!stage || second || stage.config.stage_id !== featureSearch.stage_id) return undefined;
  const parsed = featureSearch.parameters.safeParse(stage.config.parameters);
  if (!parsed.success) return undefined;
  const [search, other] = parsed.data.searches;
  return search && !other ? { parameters: parsed.data, search } : undefined;
}
