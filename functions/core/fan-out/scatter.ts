// Asks the scan functions of a feature, each for its segments, and merges what they answer.
import { toTree } from '../conditions/index.ts';
import type { NsCtx } from '../context.ts';
import { AppError } from '../errors.ts';
import type { FunctionCaller } from '../ports.ts';
import { type Match, mergeMatches, type SearchRequest } from '../vectors/search.ts';
import { unknownToAll } from '../vectors/select-rows.ts';
import { hedge, Latencies } from './hedge.ts';
import { encodeVector, type ScanReply, type ScanRequest } from './messages.ts';
import type { Shard } from './plan.ts';

export interface ScatterRequest extends Omit<SearchRequest, 'queries' | 'exclude' | 'parts'> {
  readonly collectionId: string;
  readonly manifestKey: string;
  readonly featureUri: string;
  readonly queries: readonly Float32Array[];
  readonly exclude?: readonly (readonly string[])[] | undefined;
}

export interface ScatterResult {
  /** By query, best first, ties by ascending id: what one function would answer that held everything. */
  readonly matches: readonly (readonly Match[])[];
  readonly rowsSelected: number;
  readonly bytesScanned: number;
  readonly reranked: number;
  readonly cold: boolean;
  /** Calls that were repeated because an answer was late. */
  readonly hedged: number;
  readonly unknownFields: readonly string[];
}

/** Matches in one answer: about 60 bytes each, below the 6 MB of a synchronous answer. */
const matchesPerCall = 60_000;
/** Queries of one call: 16 share a pass over the rows. */
const queriesPerCall = 64;

const latencies = new WeakMap<FunctionCaller, Latencies>();

/**
 * Searches a feature over several functions, all in one version. Exact: a shard that does not answer fails the search.
 *
 * @param functions the scan functions of the stage, by place
 * @throws AppError index_unavailable
 */
export async function scatter(
  ctx: NsCtx,
  request: ScatterRequest,
  shards: readonly Shard[],
  functions: readonly FunctionCaller[],
  timeoutMs: number,
): Promise<ScatterResult> {
  const { queries, k, filter, include, exclude, minScore } = request;
  const size = Math.max(1, Math.min(queriesPerCall, Math.floor(matchesPerCall / k)));
  const result = { rowsSelected: 0, bytesScanned: 0, reranked: 0, cold: false, hedged: 0 };
  const matches: Match[][] = [];
  let unknown: readonly string[] = [];
  for (let first = 0; first < queries.length; first += size) {
    const block = queries.slice(first, first + size);
    const replies = await Promise.all(
      shards.map((shard) => {
        const message: ScanRequest = {
          org_id: ctx.ns.orgId,
          namespace_id: ctx.ns.namespaceId,
          request_id: ctx.requestId,
          collection_id: request.collectionId,
          manifest_key: request.manifestKey,
          feature_uri: request.featureUri,
          segments: shard.segments,
          queries: block.map(encodeVector),
          k,
          ...(filter ? { filter: toTree(filter) } : {}),
          ...(include ? { include } : {}),
          ...(exclude ? { exclude: exclude.slice(first, first + size) } : {}),
          ...(minScore === undefined || minScore === Number.NEGATIVE_INFINITY ? {} : { min_score: minScore }),
        };
        return ask(functions[shard.function]!, message, timeoutMs);
      }),
    );
    for (const { value, hedged } of replies) {
      result.bytesScanned += value.bytes_scanned;
      result.reranked += value.reranked;
      result.cold ||= value.cold;
      if (hedged) result.hedged += 1;
    }
    // Every block selects the same rows.
    result.rowsSelected = replies.reduce((sum, { value }) => sum + value.rows_selected, 0);
    unknown = unknownToAll(replies.map(({ value }) => value.unknown_fields));
    for (let q = 0; q < block.length; q += 1) {
      const lists = replies.map(({ value }) =>
        (value.matches[q] ?? []).map(([id, score]) => ({ id, score })),
      );
      matches.push(mergeMatches(lists, k));
    }
  }
  return { ...result, matches, unknownFields: unknown };
}

async function ask(caller: FunctionCaller, message: ScanRequest, timeoutMs: number) {
  const known = latencies.get(caller) ?? new Latencies();
  latencies.set(caller, known);
  try {
    const call = async () => (await caller.call(message, { timeoutMs })) as ScanReply;
    return await hedge(call, known, () => performance.now());
  } catch (error) {
    throw new AppError('index_unavailable', {
      cause: error,
      internal: `a scan of ${message.segments.length} segments of ${message.collection_id} failed: ${String(error)}`,
    });
  }
}
