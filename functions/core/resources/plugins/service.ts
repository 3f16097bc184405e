// The rules of plugins: what may be uploaded, what confirm checks, what deploy does.
import { createHash } from 'node:crypto';
import type * as z from 'zod';
import { isoTime } from '../../clock.ts';
import type { NsCtx } from '../../context.ts';
import { crash } from '../../crash.ts';
import type { FieldFault } from '../../errors.ts';
import { AppError, invalid, isAppError } from '../../errors.ts';
import { newId } from '../../ids.ts';
import type { Blobs } from '../../store/blobs.ts';
import { BlobConflict, BlobMissing } from '../../store/blobs.ts';
import { announce } from '../../store/outbox.ts';
import type { StoredUpload } from '../../store/upload-rows.ts';
import { getUpload, putUpload } from '../../store/upload-rows.ts';
import { archiveLimits, readArchive } from './archive.ts';
import type { CreatePluginUploadBody } from './contract.ts';
import type { StoredFeature, StoredPlugin } from './store.ts';
import { pluginStore } from './store.ts';

export type { StoredPlugin } from './store.ts';

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
      deployment: 'not_deployed',
      deployed_at: null,
      validation_warnings: validation.warnings
        .map((w) => `${w.location.join(':')}: ${w.message}`)
        .slice(0, 50),
    },
    sha256,
  );
  await putUpload(ctx, { ...upload, state: 'confirmed', result: { plugin_id: id } });
  return { plugin, uploadId };
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
  return (await ctx.ports.validator.call(
    { name, version, files, other_files: otherFiles },
    { timeoutMs: 60_000 },
  )) as Validation;
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

/** Whether collections may run it. */
export function isDeployed(plugin: Pick<StoredPlugin, 'deployment'>): boolean {
  return plugin.deployment === 'batch_only' || plugin.deployment === 'deployed';
}

/** URLs of archives for the first half of their time; signing one costs as much as reading a row. */
const archiveUrls = new WeakMap<Blobs, Map<string, { readonly url: string; readonly untilMs: number }>>();
const archiveUrlsMax = 1_000;

async function archiveUrlOf(ctx: NsCtx, key: string, seconds: number): Promise<string> {
  const { archives, clock } = ctx.ports;
  const known = archiveUrls.get(archives) ?? new Map<string, { url: string; untilMs: number }>();
  archiveUrls.set(archives, known);
  const name = `${seconds} ${key}`;
  const found = known.get(name);
  if (found && clock.now() < found.untilMs) return found.url;
  const url = await archives.presignGet(key, seconds);
  if (known.size >= archiveUrlsMax) known.clear();
  known.set(name, { url, untilMs: clock.now() + (seconds * 1000) / 2 });
  return url;
}

/** What the runner needs to find and run a plugin. */
export async function runnerPlugin(ctx: NsCtx, plugin: StoredPlugin, presignSeconds: number) {
  return {
    plugin_id: plugin.id,
    sha256: plugin.archive_sha256,
    archive_url: await archiveUrlOf(ctx, plugin.archive_key, presignSeconds),
    root: plugin.root,
    extractor_id: plugin.id,
  };
}

/** The tenant of a runner call. The service's pattern admits no `#`. */
export function tenantOf(ctx: NsCtx): string {
  return `${ctx.principal.orgId}/${ctx.ns.namespaceId}`;
}

const loadBudgetMs = 60_000;

/**
 * Loads the plugin once in the runner and marks it usable. Repeating it is harmless.
 *
 * Without `type`: realtime if the archive has a `realtime.py` and the stage can do it, else for batches only.
 *
 * @throws AppError plugin_not_found, plugin_realtime_unavailable, plugin_failed, plugin_timeout, plugin_unavailable
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
  const reply = (await ctx.ports.runner.call(
    {
      operation: 'check',
      plugin: await runnerPlugin(ctx, plugin, 900),
      features: plugin.features.map((f) => ({ name: f.feature_name, dims: f.embedding_dim })),
      parameters: {},
      realtime: wanted === 'realtime',
      deadline_ms: loadBudgetMs,
    },
    { tenant: tenantOf(ctx), timeoutMs: loadBudgetMs + 10_000 },
  )) as { ok?: boolean; error?: { code: string; message: string }; logs?: string };
  if (reply.error) {
    const failed = await pluginStore.update(ctx, plugin, { deployment: 'failed' }, [
      announce(ctx, 'plugin.failed', { type: 'plugin', id: plugin.id }, plugin.revision, {
        code: reply.error.code,
      }),
    ]);
    throw new AppError('plugin_failed', {
      detail: `${failed.id} could not be loaded: ${reply.error.message}`,
      extra: { plugin_error: reply.error.code, logs: (reply.logs ?? '').slice(-2000) },
    });
  }
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

/** @throws AppError plugin_not_found, plugin_changed */
export async function undeployPlugin(ctx: NsCtx, idOrName: string): Promise<StoredPlugin> {
  const plugin = await getPlugin(ctx, idOrName);
  if (plugin.deployment === 'not_deployed') return plugin;
  return pluginStore.update(ctx, plugin, { deployment: 'not_deployed', deployed_at: null });
}

/** @throws AppError plugin_not_found, plugin_in_use with the collections, plugin_changed */
export async function deletePlugin(ctx: NsCtx, idOrName: string): Promise<StoredPlugin> {
  const plugin = await getPlugin(ctx, idOrName);
  await pluginStore.remove(ctx, plugin);
  // The archive is shared by content: another version may have the same bytes, so it stays until nothing names it.
  const others = await pluginStore.list(ctx);
  if (!others.some((other) => other.archive_key === plugin.archive_key))
    await ctx.ports.archives.delete(plugin.archive_key);
  return plugin;
}
