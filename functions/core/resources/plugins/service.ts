// The rules of plugins: what may be uploaded, what confirm checks, what deploy does.
import { createHash } from 'node:crypto';
import type * as z from 'zod';
import { isoTime } from '../../clock.ts';
import type { NsCtx } from '../../context.ts';
import { crash } from '../../crash.ts';
import type { FieldFault } from '../../errors.ts';
import { AppError, invalid, isAppError } from '../../errors.ts';
import { newId } from '../../ids.ts';
import { BlobConflict, BlobMissing } from '../../store/blobs.ts';
import { announce } from '../../store/outbox.ts';
import type { StoredUpload } from '../../store/upload-rows.ts';
import { getUpload, putUpload } from '../../store/upload-rows.ts';
import { archiveLimits, readArchive } from './archive.ts';
import type { CreatePluginUploadBody, Json, RealtimeTestBody } from './contract.ts';
import { callRunner, memoryClassOf, refusalOf } from './run.ts';
import type { StoredFeature, StoredFinding, StoredPlugin } from './store.ts';
import { mayUseImages, pluginStore } from './store.ts';

export type { StoredFinding, StoredPlugin } from './store.ts';

/** Id of a plugin version: `text_embed_1_0_0`. */
export function pluginId(name: string, version: string): string {
  return `${name}_${version.replaceAll('.', '_')}`;
}

/** `mixpeek://<name>@<version>/<feature>`: what a search names. */
export function featureUri(plugin: Pick<StoredPlugin, 'plugin_name' | 'version'>, feature: string): string {
  return `mixpeek://${plugin.plugin_name}@${plugin.version}/${feature}`;
}

export interface PluginUploadTicket {
  readonly upload: StoredUpload;
  readonly presignedUrl: string;
}

/** The declared size is a hint: it is neither signed nor trusted. @throws AppError quota_exceeded */
export async function createPluginUpload(
  ctx: NsCtx,
  body: z.output<typeof CreatePluginUploadBody>,
): Promise<PluginUploadTicket> {
  const uploadId = newId('upload', ctx.ports.clock, ctx.ports.random);
  const seconds = body.presigned_url_expiration;
  const nowMs = ctx.ports.clock.now();
  const upload: StoredUpload = {
    upload_id: uploadId,
    purpose: 'plugin',
    s3_key: `uploads/${ctx.ns.namespaceId}/${uploadId}.zip`,
    content_type: 'application/zip',
    ends_at: Math.floor(nowMs / 1000) + Math.max(seconds, 3600),
    created_at: isoTime(nowMs),
    state: 'pending',
    facts: { name: body.name, version: body.version, description: body.description ?? null },
    result: null,
  };
  await putUpload(ctx, upload);
  return {
    upload,
    presignedUrl: await ctx.ports.archives.presignPut(upload.s3_key, seconds, upload.content_type),
  };
}

interface Validation {
  readonly ok: boolean;
  readonly errors: readonly FieldFault[];
  readonly warnings: readonly FieldFault[];
  readonly manifest: {
    readonly description?: string | null;
    readonly features: readonly StoredFeature[];
    readonly input_mappings?: Readonly<Record<string, string>> | null;
    readonly compute_profile?: StoredPlugin['compute_profile'] | null;
    readonly secrets?: readonly string[] | null;
    readonly container_image?: string | null;
    readonly dependencies?: readonly string[] | null;
  } | null;
  readonly has_realtime: boolean;
}

export interface Confirmation {
  readonly plugin: StoredPlugin;
  readonly uploadId: string;
}

/**
 * Checks the uploaded bytes and makes the plugin version. Bad archives store nothing; a repeat gives the same answer.
 *
 * The copy is made from the very bytes that were checked (by ETag) to a key named by their hash, so replaying the
 * presigned URL afterwards changes nothing.
 *
 * @throws AppError upload_not_found, upload_expired, upload_missing, upload_changed, plugin_invalid, plugin_version_exists
 */
export async function confirmPluginUpload(
  ctx: NsCtx,
  uploadId: string,
  declaredEtag?: string | null,
): Promise<Confirmation> {
  const upload = await getUpload(ctx, 'plugin', uploadId);
  const name = String(upload.facts.name);
  const version = String(upload.facts.version);
  const id = pluginId(name, version);
  if (upload.state === 'confirmed') return { plugin: await getPlugin(ctx, id), uploadId };

  const { archives } = ctx.ports;
  const info = await archives.head(upload.s3_key);
  if (!info) {
    throw new AppError('upload_missing', {
      detail:
        'Nothing has been put to the presigned URL yet. PUT the .zip there with Content-Type: application/zip, then confirm.',
    });
  }
  if (info.bytes > archiveLimits.packedBytesMax) {
    throw invalid('plugin_invalid', [
      {
        type: 'archive_too_large',
        location: ['archive', 0, 0],
        message: `the archive has ${info.bytes} bytes; at most ${archiveLimits.packedBytesMax} are allowed`,
      },
    ]);
  }
  if (declaredEtag && declaredEtag.replaceAll('"', '') !== info.etag.replaceAll('"', '')) {
    throw new AppError('upload_changed', {
      detail: `The uploaded bytes have the ETag ${info.etag}, the confirm names ${declaredEtag}. Upload again.`,
    });
  }
  const bytes = Buffer.from(await readUploaded(ctx, upload.s3_key));
  const sha256 = createHash('sha256').update(bytes).digest('hex');
  const read = await readArchive(bytes);
  if (!read.ok) throw invalid('plugin_invalid', read.faults);
  const validation = await validate(ctx, name, version, read.archive.sources, read.archive.otherFiles);
  const { manifest } = validation;
  if (!validation.ok || !manifest) throw invalid('plugin_invalid', validation.errors);
  const image = manifest.container_image ?? null;
  const imageFault = image === null ? undefined : await imageRefusal(ctx, image);
  if (imageFault !== undefined) {
    throw invalid('plugin_invalid', [
      { type: 'container_image_refused', location: ['manifest.py', 0, 0], message: imageFault },
    ]);
  }

  const before = await pluginStore.find(ctx, id);
  if (before) return { plugin: sameContent(before, sha256), uploadId };

  const archiveKey = `plugins/${ctx.ns.namespaceId}/${sha256}.zip`;
  try {
    await archives.copyFrom(archives, upload.s3_key, archiveKey, info.etag);
  } catch (error) {
    if (error instanceof BlobConflict || error instanceof BlobMissing) {
      throw new AppError('upload_changed', {
        detail: 'The uploaded bytes changed while they were being checked. Confirm again.',
        cause: error,
      });
    }
    throw error;
  }
  crash('plugin.confirm.after_copy');
  const plugin = await createOnce(
    ctx,
    {
      id,
      name: `${name}@${version}`,
      parents: [],
      plugin_name: name,
      version,
      description: (upload.facts.description as string | null) ?? manifest.description ?? null,
      archive_sha256: sha256,
      archive_key: archiveKey,
      archive_bytes: bytes.length,
      root: read.archive.root,
      features: manifest.features,
      input_mappings: manifest.input_mappings ?? {},
      compute_profile: manifest.compute_profile ?? {},
      has_realtime: validation.has_realtime,
      secrets: manifest.secrets ?? [],
      container_image: image,
      dependencies: (manifest.dependencies ?? []).slice(0, dependenciesKept),
      deployment: 'not_deployed',
      deployed_at: null,
      validation_warnings: [],
      findings: validation.warnings.slice(0, findingsKept).map(toFinding),
    },
    sha256,
  );
  await putUpload(ctx, { ...upload, state: 'confirmed', result: { plugin_id: id } });
  return { plugin, uploadId };
}

const findingsKept = 50;
const dependenciesKept = 200;
/** Longer messages are cut, so that the row stays small. */
const messageLengthMax = 300;

function toFinding({ type, location, message, fix }: FieldFault): StoredFinding {
  const [file, line, column] = location;
  return {
    type,
    file: String(file),
    line: Number(line ?? 0),
    column: Number(column ?? 0),
    message: message.slice(0, messageLengthMax),
    fix: fix?.slice(0, messageLengthMax) ?? null,
  };
}

/** Why nothing in this namespace runs in images, with the way to it; undefined where something can. */
async function imagesOff(ctx: NsCtx): Promise<Pick<FieldFault, 'message' | 'fix'> | undefined> {
  if (ctx.ports.imageFunctions === undefined) {
    return {
      message: 'container_image is set, and this stage runs no images (its setting "containerImages" is off)',
      fix: 'remove container_image and put packages that the runtime lacks under vendor/',
    };
  }
  if (await mayUseImages(ctx)) return undefined;
  return {
    message: 'container_image is set, and the plan of this namespace has no container images',
    fix: `let an admin key allow them by PATCH /v1/namespaces/${ctx.ns.namespaceId} {"plan": {"container_images": true}}`,
  };
}

/** Why this namespace cannot run an image here; undefined where it can. */
async function imageRefusal(ctx: NsCtx, image: string): Promise<string | undefined> {
  const off = await imagesOff(ctx);
  if (off) return `${off.message}; ${off.fix}.`;
  return ctx.ports.imageFunctions?.refusal(ctx.ns.namespaceId, image);
}

async function readUploaded(ctx: NsCtx, key: string): Promise<Uint8Array> {
  try {
    return await ctx.ports.archives.get(key);
  } catch (error) {
    if (error instanceof BlobMissing)
      throw new AppError('upload_changed', {
        detail: 'The upload vanished while it was read. Upload again.',
        cause: error,
      });
    throw error;
  }
}

/** Two confirms at once: one makes the row, the other finds it. @throws AppError plugin_version_exists */
async function createOnce(
  ctx: NsCtx,
  plugin: Parameters<typeof pluginStore.create>[1],
  sha256: string,
): Promise<StoredPlugin> {
  try {
    return await pluginStore.create(ctx, plugin);
  } catch (error) {
    if (!isAppError(error, 'plugin_name_taken')) throw error;
    return sameContent(await pluginStore.get(ctx, plugin.id), sha256);
  }
}

function sameContent(plugin: StoredPlugin, sha256: string): StoredPlugin {
  if (plugin.archive_sha256 === sha256) return plugin;
  throw new AppError('plugin_version_exists', {
    detail: `The plugin ${plugin.plugin_name} has a version ${plugin.version} with other content already. Raise "version" in manifest.py and in the upload.`,
    extra: { existing_id: plugin.id },
  });
}

async function validate(
  ctx: NsCtx,
  name: string,
  version: string,
  sources: ReadonlyMap<string, Buffer>,
  otherFiles: readonly string[],
): Promise<Validation> {
  const files = [...sources].map(([path, content]) => ({ path, content_base64: content.toString('base64') }));
  const { runners } = ctx.ports;
  const off = await imagesOff(ctx);
  const allow = {
    egress: runners?.egress !== undefined,
    container_images: off === undefined,
    memory_classes: ['small', 'standard', ...(runners?.large === undefined ? [] : ['large'])],
  };
  const validation = (await ctx.ports.validator.call(
    { name, version, files, other_files: otherFiles, allow },
    { timeoutMs: 60_000 },
  )) as Validation;
  // The validator knows that images are off, and not why.
  const errors = validation.errors.map((fault) =>
    off && fault.type === 'container_image_not_supported' ? { ...fault, ...off } : fault,
  );
  return { ...validation, errors };
}

/** By id (`text_embed_1_0_0`) or as `text_embed@1.0.0`. @throws AppError plugin_not_found */
export async function getPlugin(ctx: NsCtx, idOrName: string): Promise<StoredPlugin> {
  const found = await pluginStore.find(ctx, idOrName);
  if (found) return found;
  const versions = (await pluginStore.list(ctx)).filter((plugin) => plugin.plugin_name === idOrName);
  if (versions.length === 0) return pluginStore.get(ctx, idOrName);
  throw new AppError('plugin_not_found', {
    detail: `"${idOrName}" names a plugin and no version of it. Its versions: ${versions.map(({ id }) => id).join(', ')}.`,
  });
}

export async function findPlugin(ctx: NsCtx, idOrName: string): Promise<StoredPlugin | undefined> {
  return pluginStore.find(ctx, idOrName);
}

/** Newest first. */
export async function listPlugins(ctx: NsCtx): Promise<StoredPlugin[]> {
  return pluginStore.list(ctx);
}

/** The versions of one plugin, newest first. */
export async function listVersions(ctx: NsCtx, pluginName: string): Promise<StoredPlugin[]> {
  return (await pluginStore.list(ctx)).filter((plugin) => plugin.plugin_name === pluginName);
}

/** Whether collections may run it. */
export function isDeployed(plugin: Pick<StoredPlugin, 'deployment'>): boolean {
  return plugin.deployment === 'batch_only' || plugin.deployment === 'deployed';
}

const loadBudgetMs = 60_000;
/** The gateway waits for 29 s. A load that takes longer goes on, and the next deployment finds it done. */
const deployWaitMs = 24_000;

/** What the runner says when a call as a whole fails. @see functions/plugin-runner/_errors.py */
interface RunnerError {
  readonly code: string;
  readonly message: string;
  readonly traceback?: string | null;
}

interface RunnerAnswer {
  readonly error?: RunnerError;
  readonly logs?: unknown;
}

const notThePlugins: ReadonlySet<string> = new Set(['archive_download_failed', 'runner_unavailable']);
const timeouts: ReadonlySet<string> = new Set(['plugin_timeout', 'plugin_load_timeout']);
const oursToMend: ReadonlySet<string> = new Set(['bad_request', 'archive_hash_mismatch']);

/** An answer that says anything at all. What runs users' code may be made to say nothing. */
function answerOf(reply: unknown): RunnerAnswer & Readonly<Record<string, unknown>> {
  if (typeof reply === 'object' && reply !== null && !Array.isArray(reply)) {
    const { error } = reply as RunnerAnswer;
    if (error === undefined || (typeof error?.code === 'string' && typeof error.message === 'string'))
      return reply as RunnerAnswer & Readonly<Record<string, unknown>>;
  }
  throw new AppError('plugin_unavailable', { internal: 'the answer of the runner does not have its form' });
}

/** The error of a call that failed as a whole, with all that helps whoever wrote the plugin. */
function callFault(what: string, { code, message, traceback }: RunnerError, logs: unknown): AppError {
  const internal = `runner: ${code}: ${message}`;
  if (oursToMend.has(code)) return new AppError('internal_error', { internal });
  if (notThePlugins.has(code)) return new AppError('plugin_unavailable', { internal, retryAfterSeconds: 5 });
  return new AppError(timeouts.has(code) ? 'plugin_timeout' : 'plugin_failed', {
    detail: `${what}: ${message}`,
    extra: { plugin_error: code, traceback: traceback ?? null, logs: String(logs ?? '').slice(-2000) },
  });
}

/**
 * Loads the plugin once in the runner and marks it usable. Repeating it is harmless.
 *
 * Without `type`: realtime if the archive has a `realtime.py` and the stage can do it, else for batches only.
 *
 * One in an image of its own may be `queued` while its function is prepared; deploying it again goes on.
 *
 * @throws AppError plugin_not_found, plugin_realtime_unavailable, plugin_not_supported, plugin_secret_missing,
 *   plugin_failed, plugin_timeout, plugin_unavailable
 */
export async function deployPlugin(
  ctx: NsCtx,
  idOrName: string,
  type?: 'batch_only' | 'realtime',
): Promise<StoredPlugin> {
  const plugin = await getPlugin(ctx, idOrName);
  const { realtimePlugins } = ctx.ports.settings;
  const wanted = type ?? (plugin.has_realtime && realtimePlugins ? 'realtime' : 'batch_only');
  if (wanted === 'realtime' && !plugin.has_realtime) {
    throw new AppError('plugin_realtime_unavailable', {
      detail: `${plugin.id} has no realtime.py. Deploy with ?deployment_type=batch_only; text queries work with that too.`,
    });
  }
  if (wanted === 'realtime' && !realtimePlugins) {
    throw new AppError('plugin_realtime_unavailable', {
      detail:
        'This stage does not deploy plugins for realtime inference. Use ?deployment_type=batch_only; text queries work with that too.',
    });
  }
  const target = wanted === 'realtime' ? 'deployed' : 'batch_only';
  if (plugin.deployment === target) return plugin;
  if (!(await isPrepared(ctx, plugin)))
    return plugin.deployment === 'queued'
      ? plugin
      : pluginStore.update(ctx, plugin, { deployment: 'queued' });
  const answered = await callRunner(
    ctx,
    plugin,
    {
      operation: 'check',
      features: plugin.features.map((f) => ({ name: f.feature_name, dims: f.embedding_dim })),
      parameters: {},
      realtime: wanted === 'realtime',
      deadline_ms: loadBudgetMs,
    },
    { timeoutMs: deployWaitMs },
  ).catch((error: unknown) => {
    if (!isAppError(error, 'plugin_timeout')) throw error;
    throw new AppError('plugin_timeout', {
      detail: `${plugin.id} was not loaded within ${deployWaitMs / 1000} s. It goes on loading; deploy it again in a minute.`,
      cause: error,
    });
  });
  const reply = answerOf(answered);
  if (reply.error) {
    const fault = callFault(`${plugin.id} could not be loaded`, reply.error, reply.logs);
    if (fault.code === 'plugin_failed' || fault.code === 'plugin_timeout') {
      await pluginStore.update(ctx, plugin, { deployment: 'failed' }, [
        announce(ctx, 'plugin.failed', { type: 'plugin', id: plugin.id }, plugin.revision, {
          code: reply.error.code,
        }),
      ]);
    }
    throw fault;
  }
  if (reply.ok !== true)
    throw new AppError('plugin_unavailable', { internal: 'the runner said neither yes nor no' });
  crash('plugin.deploy.after_check');
  return pluginStore.update(
    ctx,
    plugin,
    { deployment: target, deployed_at: isoTime(ctx.ports.clock.now()) },
    [
      announce(ctx, 'plugin.deployed', { type: 'plugin', id: plugin.id }, plugin.revision, {
        deployment_type: wanted,
      }),
    ],
  );
}

/**
 * Whether there is a function to call: at once for the runner's own, later for one made of an image.
 *
 * @throws AppError plugin_not_supported, plugin_failed, plugin_unavailable
 */
async function isPrepared(ctx: NsCtx, plugin: StoredPlugin): Promise<boolean> {
  const image = plugin.container_image ?? null;
  const refusal =
    refusalOf(ctx.ports, plugin) ?? (image === null ? undefined : await imageRefusal(ctx, image));
  if (refusal !== undefined)
    throw new AppError('plugin_not_supported', { detail: `${plugin.id} cannot run here: ${refusal}` });
  if (image === null) return true;
  const state = await ctx.ports.imageFunctions!.ensure({
    namespaceId: ctx.ns.namespaceId,
    pluginId: plugin.id,
    image,
    memoryClass: memoryClassOf(plugin),
  });
  crash('plugin.deploy.after_ensure');
  return state === 'ready';
}

async function removeImageFunction(ctx: NsCtx, plugin: StoredPlugin): Promise<void> {
  if (typeof plugin.container_image === 'string')
    await ctx.ports.imageFunctions?.remove(ctx.ns.namespaceId, plugin.id);
}

/** The gateway waits for 29 s; the rest is for the way there and back. */
const realtimeTestMs = 20_000;
const outputsBytesMax = 1_000_000;

/** What a realtime service answered, as JSON. */
export interface RealtimeTest {
  readonly plugin_id: string;
  readonly outputs: Json;
  readonly latency_ms: number;
  readonly logs: string;
}

/**
 * Sends one request to a plugin's realtime.py and gives back what it says, whatever it is.
 *
 * @throws AppError plugin_not_found, plugin_realtime_unavailable, plugin_not_deployed, plugin_secret_missing,
 *   plugin_not_supported, plugin_failed, plugin_timeout, plugin_unavailable
 */
export async function testRealtime(
  ctx: NsCtx,
  idOrName: string,
  body: z.output<typeof RealtimeTestBody>,
): Promise<RealtimeTest> {
  const plugin = await getPlugin(ctx, idOrName);
  if (!plugin.has_realtime) {
    throw new AppError('plugin_realtime_unavailable', {
      detail: `${plugin.id} has no realtime.py beside its manifest.py. Add one in a new version, or search with the plugin: its batch steps embed queries too.`,
    });
  }
  if (plugin.deployment !== 'deployed') {
    throw new AppError('plugin_not_deployed', {
      detail: `${plugin.id} is not deployed for realtime inference (it is ${plugin.deployment}). Deploy it by POST .../plugins/${plugin.id}/deploy?deployment_type=realtime.`,
    });
  }
  const beganMs = ctx.ports.clock.now();
  const answered = await callRunner(
    ctx,
    plugin,
    {
      operation: 'realtime',
      inputs: body.inputs,
      parameters: body.parameters,
      features: plugin.features.map((f) => ({ name: f.feature_name, dims: f.embedding_dim })),
      deadline_ms: realtimeTestMs,
    },
    { timeoutMs: realtimeTestMs + 5_000 },
  );
  const reply = answerOf(answered);
  if (reply.error) throw callFault(`${plugin.id} failed on the request`, reply.error, reply.logs);
  if (reply.answer === undefined)
    throw new AppError('plugin_unavailable', { internal: 'the runner gave neither an answer nor an error' });
  const bytes = Buffer.byteLength(JSON.stringify(reply.answer));
  if (bytes > outputsBytesMax) {
    throw new AppError('plugin_failed', {
      detail: `${plugin.id} answered with ${bytes} bytes of JSON; a test shows ${outputsBytesMax} at most.`,
    });
  }
  return {
    plugin_id: plugin.id,
    outputs: reply.answer as Json,
    latency_ms: Math.max(0, ctx.ports.clock.now() - beganMs),
    logs: String(reply.logs ?? ''),
  };
}

/** @throws AppError plugin_not_found, plugin_changed */
export async function undeployPlugin(ctx: NsCtx, idOrName: string): Promise<StoredPlugin> {
  const before = await getPlugin(ctx, idOrName);
  const plugin =
    before.deployment === 'not_deployed'
      ? before
      : await pluginStore.update(ctx, before, { deployment: 'not_deployed', deployed_at: null });
  // Every time, so that a repetition finishes what a crash left.
  await removeImageFunction(ctx, plugin);
  return plugin;
}

/** @throws AppError plugin_not_found, plugin_in_use with the collections, plugin_changed */
export async function deletePlugin(ctx: NsCtx, idOrName: string): Promise<StoredPlugin> {
  const plugin = await getPlugin(ctx, idOrName);
  // The function of an image goes before the row that tells of it, and only if the row will go.
  const hasFunction = typeof plugin.container_image === 'string';
  const isUsed = hasFunction && (await pluginStore.dependants(ctx, plugin.id)).total > 0;
  await pluginStore.remove(ctx, hasFunction && !isUsed ? await undeployPlugin(ctx, plugin.id) : plugin);
  // The archive is shared by content: another version may have the same bytes, so it stays until nothing names it.
  const others = await pluginStore.list(ctx);
  if (!others.some((other) => other.archive_key === plugin.archive_key))
    await ctx.ports.archives.delete(plugin.archive_key);
  return plugin;
}
