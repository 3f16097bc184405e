// Turns query texts into vectors by the plugin that made the documents' vectors; what was embedded lately is kept.
import type { NsCtx } from '../../context.ts';
import { AppError } from '../../errors.ts';
import type { FunctionCaller } from '../../ports.ts';
import { LruCache } from '../../store/lru-cache.ts';
import { canonicalJson } from '../collections/service.ts';
import type { StoredPlugin } from '../plugins/service.ts';
import { isDeployed, runnerPlugin, tenantOf } from '../plugins/service.ts';

/** The feature that texts are embedded for. */
export interface EmbedTarget {
  readonly plugin: StoredPlugin;
  readonly feature_name: string;
  readonly dims: number;
  /** Parameters of the extractor in the collections that are searched. */
  readonly parameters: Readonly<Record<string, unknown>>;
}

/** Why the plugin made no vector of one text. */
export interface TextFailure {
  readonly code: string;
  readonly message: string;
  readonly retryable: boolean;
}

/** A vector; `undefined` where the plugin makes none of the text; or what went wrong with this text alone. */
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

/** Rows of one call end at this many bytes of text, so that the payload stays below the service's 6 MB. */
const textBytesPerCall = 2_000_000;
/** The answer comes in the reply itself, which the runner keeps below 4 MB. */
const replyBytesPerCall = 3_000_000;
const rowsPerCallMax = 1_000;
const callsAtOnce = 4;
/** An archive URL outlives any run. */
const archiveUrlSeconds = 900;

const cacheBytesMax = 16 * 2 ** 20;
/** Only what people type is worth keeping; hundreds of texts at once are documents that a taxonomy classifies. */
const cachedTextsMax = 50;

const caches = new WeakMap<FunctionCaller, LruCache<Float32Array | undefined>>();

function cacheOf(ctx: NsCtx): LruCache<Float32Array | undefined> {
  const found = caches.get(ctx.ports.runner) ?? new LruCache<Float32Array | undefined>(cacheBytesMax);
  caches.set(ctx.ports.runner, found);
  return found;
}

/**
 * Embeds texts, one after the other in their order in the result.
 *
 * @param texts each at most 32 kB
 * @throws AppError plugin_not_deployed, and for failures that concern all texts plugin_failed, plugin_timeout,
 *   plugin_unavailable
 */
export async function embedTexts(
  ctx: NsCtx,
  target: EmbedTarget,
  texts: readonly string[],
  deadlineMs: number,
): Promise<Embedded[]> {
  const { plugin } = target;
  if (!isDeployed(plugin)) {
    throw new AppError('plugin_not_deployed', {
      detail: `The query must be embedded by ${plugin.id}, which is not deployed. Deploy it by POST .../plugins/${plugin.id}/deploy.`,
    });
  }
  if (texts.length > cachedTextsMax) return callRunner(ctx, target, texts, deadlineMs);

  const cache = cacheOf(ctx);
  const key = canonicalJson([
    tenantOf(ctx),
    plugin.archive_sha256,
    plugin.deployment,
    target.feature_name,
    target.parameters,
  ]);
  // The cache asks for each missing text at once and before anything is awaited; one call then serves them all.
  const missing: string[] = [];
  let settle: (embedded: Promise<Embedded[]>) => void = () => {};
  const called = new Promise<Embedded[]>((resolve) => {
    settle = resolve;
  });
  const wanted = texts.map(async (text): Promise<Embedded> => {
    try {
      const vector = await cache.get(`${key} ${text}`, async () => {
        const place = missing.push(text) - 1;
        const embedded = (await called)[place]!;
        if ('failure' in embedded) throw new FailedText(embedded.failure);
        return { value: embedded.vector, bytes: 200 + key.length + text.length * 2 + target.dims * 4 };
      });
      return { vector };
    } catch (error) {
      if (error instanceof FailedText) return { failure: error.failure };
      throw error;
    }
  });
  settle(missing.length === 0 ? Promise.resolve([]) : callRunner(ctx, target, missing, deadlineMs));
  return Promise.all(wanted);
}

/** Carries the failure of one text through the cache, which keeps no failures. */
class FailedText extends Error {
  readonly failure: TextFailure;
  constructor(failure: TextFailure) {
    super(failure.message);
    this.failure = failure;
  }
}

/** Cuts texts into calls that fit into payload and reply. */
function cut(texts: readonly string[], dims: number): string[][] {
  const rowsMax = Math.max(1, Math.min(rowsPerCallMax, Math.floor(replyBytesPerCall / (dims * 6 + 200))));
  const calls: string[][] = [];
  let bytes = 0;
  for (const text of texts) {
    const own = Buffer.byteLength(text) + 200;
    const last = calls.at(-1);
    if (last && last.length < rowsMax && bytes + own <= textBytesPerCall) {
      last.push(text);
      bytes += own;
    } else {
      calls.push([text]);
      bytes = own;
    }
  }
  return calls;
}

async function callRunner(
  ctx: NsCtx,
  target: EmbedTarget,
  texts: readonly string[],
  deadlineMs: number,
): Promise<Embedded[]> {
  const calls = cut(texts, target.dims);
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
  texts: readonly string[],
  deadlineMs: number,
): Promise<Embedded[]> {
  const { plugin, feature_name, dims, parameters } = target;
  const leftMs = deadlineMs - ctx.ports.clock.now();
  if (leftMs <= 0) throw new AppError('retriever_timeout');
  // A plugin runs for nobody but its own namespace.
  await ctx.entered;
  const reply = (await ctx.ports.runner.call(
    {
      operation: 'embed',
      plugin: await runnerPlugin(ctx, plugin, archiveUrlSeconds),
      features: [{ name: feature_name, dims }],
      parameters,
      rows: texts.map((text, row) => ({
        row,
        data: text,
        document_id: `query_${row}`,
        blob_type: 'text',
        mime_type: 'text/plain',
        size_bytes: Buffer.byteLength(text),
        feature_extractor_id: plugin.id,
      })),
      realtime: plugin.deployment === 'deployed',
      deadline_ms: leftMs,
    },
    { tenant: tenantOf(ctx), timeoutMs: leftMs },
  )) as RunnerReply;
  if (reply.error) throw embedFault(plugin.id, reply.error);
  return readVectors(reply, target, texts.length);
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
  if (!block || !reply.outputs || block.dims !== dims)
    throw broken(`has no vectors of ${feature_name} with ${dims} numbers`);
  const bytes = Buffer.from(block.data_base64, 'base64');
  if (bytes.length !== block.count * dims * 4)
    throw broken(`has ${bytes.length} bytes for ${block.count} vectors`);
  const embedded: Embedded[] = Array.from({ length: rows }, () => ({ vector: undefined }));
  for (const { row, code, message, retryable } of reply.failures ?? [])
    embedded[row] = { failure: { code, message, retryable } };
  for (const { row, ordinal, features } of reply.outputs) {
    const place = features[feature_name];
    // A text of which the plugin makes several outputs is searched for by the first.
    if (ordinal !== 0 || place === null || place === undefined) continue;
    if (!(row >= 0 && row < rows && place >= 0 && place < block.count))
      throw broken('names a row or a vector that is not there');
    const vector = new Float32Array(dims);
    for (let i = 0; i < dims; i++) vector[i] = bytes.readFloatLE((place * dims + i) * 4);
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
