// Turns queries, texts or files, into vectors by the plugin that made the documents' vectors; what was embedded lately
// is kept.
import type { NsCtx } from '../../context.ts';
import { AppError } from '../../errors.ts';
import { newId } from '../../ids.ts';
import type { FunctionCaller } from '../../ports.ts';
import type { QueryContent } from '../../retrieval/index.ts';
import { LruCache } from '../../store/lru-cache.ts';
import { canonicalJson } from '../collections/service.ts';
import { callRunner, tenantOf } from '../plugins/run.ts';
import type { StoredPlugin } from '../plugins/service.ts';
import { isDeployed } from '../plugins/service.ts';

/** The feature that queries are embedded for. */
export interface EmbedTarget {
  readonly plugin: StoredPlugin;
  readonly feature_name: string;
  readonly dims: number;
  /** Parameters of the extractor in the collections that are searched. */
  readonly parameters: Readonly<Record<string, unknown>>;
}

/** Why the plugin made no vector of one query. */
export interface TextFailure {
  readonly code: string;
  readonly message: string;
  readonly retryable: boolean;
}

/** A vector; `undefined` where the plugin makes none of the query; or what went wrong with this query alone. */
export type Embedded = { readonly vector: Float32Array | undefined } | { readonly failure: TextFailure };

/** What the runner answers; see functions/plugin-runner/handler.py. */
interface RunnerReply {
  readonly error?: TextFailure;
  readonly outputs?: readonly {
    readonly row: number;
    readonly ordinal: number;
    readonly features: Readonly<Record<string, number | null>>;
  }[];
  readonly vectors?: Readonly<
    Record<string, { readonly dims: number; readonly count: number; readonly data_base64: string }>
  >;
  readonly failures?: readonly (TextFailure & { readonly row: number })[];
}

/** Rows of one call end at this many bytes of queries, so that the payload stays below the service's 6 MB. */
const queryBytesPerCall = 2_000_000;
/** Larger files go by a URL of a temporary object: a row holds them in base64, for the runner and as `data`. */
const inlineFileBytesMax = 700_000;
const fileUrlSeconds = 300;
/** The answer comes in the reply itself, which the runner keeps below 4 MB. */
const replyBytesPerCall = 3_000_000;
const rowsPerCallMax = 1_000;
const callsAtOnce = 4;

const cacheBytesMax = 16 * 2 ** 20;
/** Only what people type is worth keeping; hundreds of queries at once are documents that a taxonomy classifies. */
const cachedQueriesMax = 50;

const caches = new WeakMap<FunctionCaller, LruCache<Float32Array | undefined>>();

function cacheOf(ctx: NsCtx): LruCache<Float32Array | undefined> {
  const found = caches.get(ctx.ports.runner) ?? new LruCache<Float32Array | undefined>(cacheBytesMax);
  caches.set(ctx.ports.runner, found);
  return found;
}

type EmbedQuery = string | QueryContent;

/** What tells queries apart; files by their bytes, wherever they came from. */
const queryKey = (query: EmbedQuery) =>
  typeof query === 'string' ? `text ${query}` : `file ${query.mime_type} ${query.digest}`;

/** About how many bytes a query has in a call. */
const queryBytes = (query: EmbedQuery) =>
  typeof query === 'string'
    ? Buffer.byteLength(query)
    : query.bytes.length <= inlineFileBytesMax
      ? query.bytes.length * (8 / 3)
      : 4_000;

/**
 * Embeds queries, each in its place in the result.
 *
 * @param queries texts of at most 32 kB, files of at most 10 MB
 * @throws AppError plugin_not_deployed, and for failures that concern all texts plugin_failed, plugin_timeout,
 *   plugin_unavailable
 */
export async function embedQueries(
  ctx: NsCtx,
  target: EmbedTarget,
  queries: readonly EmbedQuery[],
  deadlineMs: number,
): Promise<Embedded[]> {
  const { plugin } = target;
  if (!isDeployed(plugin)) {
    throw new AppError('plugin_not_deployed', {
      detail: `The query must be embedded by ${plugin.id}, which is not deployed. Deploy it by POST .../plugins/${plugin.id}/deploy.`,
    });
  }
  // Before the cache: others wait for what is asked for here, and must not get the refusal of this request.
  await ctx.entered;
  if (queries.length > cachedQueriesMax) return callAll(ctx, target, queries, deadlineMs);

  const cache = cacheOf(ctx);
  const key = canonicalJson([
    tenantOf(ctx),
    plugin.archive_sha256,
    plugin.deployment,
    target.feature_name,
    target.parameters,
  ]);
  // The cache asks for each missing query at once and before anything is awaited; one call then serves them all.
  const missing: EmbedQuery[] = [];
  let settle: (embedded: Promise<Embedded[]>) => void = () => {};
  const called = new Promise<Embedded[]>((resolve) => {
    settle = resolve;
  });
  const wanted = queries.map(async (query): Promise<Embedded> => {
    const name = `${key} ${queryKey(query)}`;
    try {
      const vector = await cache.get(name, async () => {
        const place = missing.push(query) - 1;
        const embedded = (await called)[place]!;
        if ('failure' in embedded) throw new FailedText(embedded.failure);
        return { value: embedded.vector, bytes: 200 + name.length * 2 + target.dims * 4 };
      });
      return { vector };
    } catch (error) {
      if (error instanceof FailedText) return { failure: error.failure };
      throw error;
    }
  });
  settle(missing.length === 0 ? Promise.resolve([]) : callAll(ctx, target, missing, deadlineMs));
  return Promise.all(wanted);
}

/** Carries the failure of one query through the cache, which keeps no failures. */
class FailedText extends Error {
  readonly failure: TextFailure;
  constructor(failure: TextFailure) {
    super(failure.message);
    this.failure = failure;
  }
}

/** Cuts queries into calls that fit into payload and reply. */
function cut(queries: readonly EmbedQuery[], dims: number): EmbedQuery[][] {
  const rowsMax = Math.max(1, Math.min(rowsPerCallMax, Math.floor(replyBytesPerCall / (dims * 6 + 200))));
  const calls: EmbedQuery[][] = [];
  let bytes = 0;
  for (const query of queries) {
    const own = queryBytes(query) + 200;
    const last = calls.at(-1);
    if (last && last.length < rowsMax && bytes + own <= queryBytesPerCall) {
      last.push(query);
      bytes += own;
    } else {
      calls.push([query]);
      bytes = own;
    }
  }
  return calls;
}

async function callAll(
  ctx: NsCtx,
  target: EmbedTarget,
  queries: readonly EmbedQuery[],
  deadlineMs: number,
): Promise<Embedded[]> {
  const calls = cut(queries, target.dims);
  const answers: Embedded[][] = [];
  for (let i = 0; i < calls.length; i += callsAtOnce) {
    answers.push(
      ...(await Promise.all(
        calls.slice(i, i + callsAtOnce).map((call) => callOnce(ctx, target, call, deadlineMs)),
      )),
    );
  }
  return answers.flat();
}

async function callOnce(
  ctx: NsCtx,
  target: EmbedTarget,
  queries: readonly EmbedQuery[],
  deadlineMs: number,
): Promise<Embedded[]> {
  const { plugin, feature_name, dims, parameters } = target;
  const leftMs = deadlineMs - ctx.ports.clock.now();
  if (leftMs <= 0) throw new AppError('retriever_timeout');
  const reply = (await callRunner(
    ctx,
    plugin,
    {
      operation: 'embed',
      features: [{ name: feature_name, dims }],
      parameters,
      rows: await Promise.all(
        queries.map(async (query, row) => ({
          row,
          document_id: `query_${row}`,
          feature_extractor_id: plugin.id,
          ...(typeof query === 'string' ? textColumns(query) : await fileColumns(ctx, query)),
        })),
      ),
      // A realtime service is given texts; files go through the steps that read files.
      realtime: plugin.deployment === 'deployed' && queries.every((query) => typeof query === 'string'),
      deadline_ms: leftMs,
    },
    { timeoutMs: leftMs },
  )) as RunnerReply;
  if (typeof reply !== 'object' || reply === null)
    throw new AppError('plugin_unavailable', { internal: 'the answer of the runner is no object' });
  if (reply.error) throw embedFault(plugin.id, reply.error);
  return readVectors(reply, target, queries.length);
}

function textColumns(text: string) {
  return { data: text, blob_type: 'text', mime_type: 'text/plain', size_bytes: Buffer.byteLength(text) };
}

const blobTypes: readonly (readonly [RegExp, string])[] = [
  [/^image\//, 'image'],
  [/^audio\//, 'audio'],
  [/^video\//, 'video'],
  [/^application\/pdf$/, 'pdf'],
];

/** A file as the objects of a batch come: a local file, whose URL or content is in `data` besides. */
async function fileColumns(ctx: NsCtx, { bytes, mime_type, url }: QueryContent) {
  const columns = {
    blob_type: blobTypes.find(([pattern]) => pattern.test(mime_type))?.[1] ?? 'binary',
    mime_type,
    size_bytes: bytes.length,
  };
  if (bytes.length <= inlineFileBytesMax) {
    const blob_base64 = Buffer.from(bytes).toString('base64');
    return { ...columns, blob_base64, data: url ?? `data:${mime_type};base64,${blob_base64}` };
  }
  const { blobs, clock, random } = ctx.ports;
  // A rule of the bucket deletes it in a day.
  const key = `queries/${ctx.ns.namespaceId}/${newId('execution', clock, random)}`;
  await blobs.put(key, bytes, { contentType: mime_type });
  const blob_url = await blobs.presignGet(key, fileUrlSeconds);
  return { ...columns, blob_url, data: url ?? blob_url };
}

function readVectors(
  reply: RunnerReply,
  { plugin, feature_name, dims }: EmbedTarget,
  rows: number,
): Embedded[] {
  const broken = (what: string) =>
    new AppError('plugin_failed', {
      detail: `${plugin.id} could not embed the query.`,
      internal: `the runner's reply ${what}`,
    });
  const block = reply.vectors?.[feature_name];
  const { outputs, failures = [] } = reply;
  if (!Array.isArray(outputs) || !Array.isArray(failures) || typeof block?.data_base64 !== 'string')
    throw broken('has no outputs, failures or vectors');
  if (block.dims !== dims) throw broken(`has no vectors of ${feature_name} with ${dims} numbers`);
  const bytes = Buffer.from(block.data_base64, 'base64');
  if (bytes.length !== block.count * dims * 4)
    throw broken(`has ${bytes.length} bytes for ${block.count} vectors`);
  const embedded: Embedded[] = Array.from({ length: rows }, () => ({ vector: undefined }));
  const isPlace = (place: number, count: number) => Number.isInteger(place) && place >= 0 && place < count;
  for (const { row, code, message, retryable } of failures as Required<RunnerReply>['failures']) {
    if (!isPlace(row, rows)) throw broken('names a row that is not there');
    embedded[row] = {
      failure: { code: String(code), message: String(message), retryable: retryable === true },
    };
  }
  for (const { row, ordinal, features } of outputs as Required<RunnerReply>['outputs']) {
    const place = features[feature_name];
    // A query of which the plugin makes several outputs is searched for by the first.
    if (ordinal !== 0 || place === null || place === undefined) continue;
    if (!isPlace(row, rows) || !isPlace(place, block.count))
      throw broken('names a row or a vector that is not there');
    const vector = new Float32Array(dims);
    for (let i = 0; i < dims; i++) vector[i] = bytes.readFloatLE((place * dims + i) * 4);
    if (!vector.every(Number.isFinite)) throw broken('has a number that is not finite');
    embedded[row] = { vector };
  }
  return embedded;
}

const timeouts: ReadonlySet<string> = new Set(['plugin_timeout', 'plugin_not_probed', 'plugin_load_timeout']);
const ours: ReadonlySet<string> = new Set(['bad_request', 'result_too_large', 'archive_hash_mismatch']);

/** The error of a query that its plugin could not embed, from the runner's code. */
export function embedFault(pluginIdOfQuery: string, failure: TextFailure): AppError {
  const extra = { plugin_error: failure.code };
  if (ours.has(failure.code))
    return new AppError('internal_error', { internal: `runner: ${failure.code}: ${failure.message}` });
  if (timeouts.has(failure.code)) {
    return new AppError('plugin_timeout', {
      detail: `${pluginIdOfQuery} did not embed the query in time: ${failure.message}`,
      extra,
    });
  }
  if (failure.retryable) {
    return new AppError('plugin_unavailable', {
      detail: `${pluginIdOfQuery} cannot embed the query at the moment.`,
      internal: `runner: ${failure.code}: ${failure.message}`,
      extra,
      retryAfterSeconds: 5,
    });
  }
  return new AppError('plugin_failed', {
    detail: `${pluginIdOfQuery} failed on the query: ${failure.message}`,
    extra,
  });
}
