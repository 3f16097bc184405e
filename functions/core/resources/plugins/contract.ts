// Plugins: users' own feature extractors. Upload, confirm, deploy: tutorial steps 1 to 3.
import * as z from 'zod';
import { route } from '../../http/route.ts';
import { ListBody, ListQuery, listReply, Timestamp } from '../../http/schemas.ts';

const PluginName = z
  .string()
  .regex(
    /^[a-zA-Z][a-zA-Z0-9_]{2,63}$/,
    'a plugin name begins with a letter and has 3 to 64 letters, digits and "_"',
  );
const Version = z.string().regex(/^\d{1,6}\.\d{1,6}\.\d{1,6}$/, 'a version has three numbers, such as 1.0.0');

export const CreatePluginUploadBody = z.strictObject({
  name: PluginName,
  version: Version,
  description: z.string().max(500).nullish(),
  file_size_bytes: z
    .int()
    .min(1)
    .max(104_857_600)
    .nullish()
    .meta({ description: 'a hint; the real size is checked at confirm' }),
  presigned_url_expiration: z.int().min(60).max(86_400).default(3600).meta({ description: 'seconds' }),
});

export const PluginUpload = z
  .object({
    upload_id: z.string(),
    presigned_url: z.string(),
    s3_key: z.string(),
    expires_at: Timestamp,
    namespace_id: z.string(),
    name: z.string(),
    version: z.string(),
  })
  .meta({ id: 'PluginUpload' });

export const ConfirmPluginUploadBody = z.strictObject({
  etag: z.string().max(200).nullish(),
  file_size_bytes: z.int().min(1).nullish(),
  message: z.string().max(1000).nullish(),
});

export const ConfirmedPlugin = z
  .object({
    success: z.literal(true),
    upload_id: z.string(),
    plugin_id: z.string(),
    validation_status: z.enum(['pending', 'passed', 'failed']),
    validation_errors: z.array(z.string()),
    validation_warnings: z.array(z.string()),
    deployment_status: z.enum(['deployed', 'pending', 'failed', 'not_deployed', 'batch_only']),
    feature_uri: z.string(),
    feature_uris: z.array(z.string()),
    s3_archive_url: z.string(),
    message: z.string(),
  })
  .meta({ id: 'ConfirmedPlugin' });

const Feature = z.object({
  feature_type: z.literal('embedding'),
  feature_name: z.string(),
  embedding_dim: z.int(),
  distance_metric: z.enum(['cosine', 'dot', 'euclid']),
  feature_uri: z.string(),
});

const DeploymentStatus = z.enum(['deployed', 'pending', 'failed', 'not_deployed', 'batch_only']);

const Finding = z
  .object({
    type: z.string(),
    file: z.string(),
    line: z.int().meta({ description: 'from 1; 0 for the whole file' }),
    column: z.int(),
    message: z.string(),
    fix: z.string().nullable(),
  })
  .meta({ id: 'PluginFinding' });

export const Plugin = z
  .object({
    plugin_id: z.string(),
    namespace_id: z.string(),
    name: z.string(),
    version: z.string(),
    description: z.string().nullable(),
    features: z.array(Feature),
    feature_uri: z.string(),
    input_mappings: z.record(z.string(), z.string()),
    compute_profile: z.record(z.string(), z.json()),
    memory_class: z
      .enum(['small', 'standard', 'large'])
      .meta({ description: 'memory of the plugin itself: 256, 1,024 or 2,048 MB' }),
    dependencies: z.array(z.string()).meta({ description: 'packages that the manifest asks for' }),
    secrets: z.array(z.string()).meta({ description: 'names of the secrets that each call gets' }),
    container_image: z
      .string()
      .nullable()
      .meta({ description: 'image that it runs in; null: the runtime of this stage' }),
    code_hash: z.string().meta({ description: 'SHA-256 of the archive' }),
    archive_bytes: z.int(),
    s3_archive_url: z.string(),
    realtime: z.boolean().meta({ description: 'the archive has a realtime.py' }),
    validation_status: z.literal('passed'),
    validation_warnings: z.array(z.string()),
    findings: z.array(Finding).meta({ description: 'the warnings with their places' }),
    deployed: z.boolean(),
    deployment_status: DeploymentStatus,
    deployed_at: Timestamp.nullable(),
    created_at: Timestamp,
    updated_at: Timestamp,
  })
  .meta({ id: 'Plugin' });
export type Plugin = z.output<typeof Plugin>;

const PluginVersion = z.object({
  plugin_id: z.string(),
  version: z.string(),
  deployment_status: DeploymentStatus,
  created_at: Timestamp,
});

export const RealtimeTestBody = z
  .strictObject({
    inputs: z
      .record(z.string().max(200), z.json())
      .meta({ description: 'what the service gets first, such as {"text": "..."}' }),
    parameters: z.record(z.string().max(200), z.json()).default({}),
  })
  .meta({ id: 'RealtimeTest' });

export type Json = z.output<ReturnType<typeof z.json>>;

export const RealtimeTestReply = z
  .object({
    success: z.literal(true),
    plugin_id: z.string(),
    outputs: z.json().meta({ description: 'what the service answered' }),
    latency_ms: z.number(),
    logs: z.string().meta({ description: 'what it printed' }),
  })
  .meta({ id: 'RealtimeTestReply' });

export const PluginStatus = z
  .object({
    plugin_id: z.string(),
    namespace_id: z.string(),
    status: z.enum(['QUEUED', 'IN_PROGRESS', 'DEPLOYED', 'FAILED', 'NOT_DEPLOYED']),
    name: z.string(),
    version: z.string(),
    deployed: z.boolean(),
    deployment_type: z.enum(['batch_only', 'realtime']).nullable(),
    realtime_enabled: z.boolean(),
    feature_uri: z.string(),
    deployed_at: Timestamp.nullable(),
    message: z.string(),
    error: z.string().nullable(),
  })
  .meta({ id: 'PluginStatus' });

export const Deployment = z
  .object({
    success: z.literal(true),
    plugin_id: z.string(),
    status: z.enum(['queued', 'deployed', 'batch_only', 'not_deployed']),
    deployment_type: z.enum(['batch_only', 'realtime']).nullable(),
    feature_uri: z.string(),
    message: z.string(),
  })
  .meta({ id: 'PluginDeployment' });

export const PluginList = listReply(Plugin).extend({
  success: z.literal(true),
  plugins: z.array(Plugin),
  namespace_id: z.string(),
});

const tag = 'plugins';
const base = '/v1/namespaces/{namespace}/plugins';
const one = `${base}/{plugin}` as const;

export const routes = {
  createPluginUpload: route({
    operation: 'createPluginUpload',
    method: 'POST',
    path: `${base}/uploads`,
    tag,
    summary: 'Ask for a URL to put a plugin archive to',
    rate: 'upload',
    body: CreatePluginUploadBody,
    reply: PluginUpload,
    errors: ['quota_exceeded'],
    example: { body: { name: 'text_embed', version: '1.0.0', file_size_bytes: 5000 } },
  }),
  confirmPluginUpload: route({
    operation: 'confirmPluginUpload',
    method: 'POST',
    path: `${base}/uploads/{upload}/confirm`,
    tag,
    summary: 'Check the uploaded archive and make the plugin',
    description:
      'Reads the manifest without running it, scans the code, and keeps an immutable copy. Repeating it gives the same answer.',
    rate: 'upload',
    body: ConfirmPluginUploadBody,
    bodyOptional: true,
    reply: ConfirmedPlugin,
    errors: [
      'upload_not_found',
      'upload_expired',
      'upload_missing',
      'upload_changed',
      'plugin_invalid',
      'plugin_version_exists',
    ],
  }),
  listPlugins: route({
    operation: 'listPlugins',
    method: 'GET',
    path: base,
    tag,
    summary: 'List plugin versions, newest first',
    query: ListQuery,
    reply: PluginList,
  }),
  searchPlugins: route({
    operation: 'searchPlugins',
    method: 'POST',
    path: `${base}/list`,
    tag,
    summary: 'List plugin versions by search, filter and order',
    permission: 'read',
    query: ListQuery,
    body: ListBody,
    bodyOptional: true,
    reply: PluginList,
  }),
  getPlugin: route({
    operation: 'getPlugin',
    method: 'GET',
    path: one,
    tag,
    summary: 'Read a plugin version, by id or as name@version',
    query: z.strictObject({ return_presigned_urls: z.stringbool().default(false) }),
    reply: Plugin.extend({
      success: z.literal(true),
      plugin: Plugin,
      versions: z.array(PluginVersion).meta({ description: 'of the same name, newest first' }),
      presigned_download_url: z.string().nullable(),
    }),
    errors: ['plugin_not_found'],
  }),
  getPluginStatus: route({
    operation: 'getPluginStatus',
    method: 'GET',
    path: `${one}/status`,
    tag,
    summary: 'Whether a plugin is deployed',
    reply: PluginStatus,
    errors: ['plugin_not_found'],
  }),
  deployPlugin: route({
    operation: 'deployPlugin',
    method: 'POST',
    path: `${one}/deploy`,
    tag,
    summary: 'Make a plugin usable by collections',
    rate: 'compute',
    query: z.strictObject({ deployment_type: z.enum(['batch_only', 'realtime']).optional() }),
    body: z.strictObject({ deployment_type: z.enum(['batch_only', 'realtime']).optional() }),
    bodyOptional: true,
    reply: Deployment,
    errors: [
      'plugin_not_found',
      'plugin_realtime_unavailable',
      'plugin_not_supported',
      'plugin_secret_missing',
      'plugin_failed',
      'plugin_timeout',
      'plugin_unavailable',
    ],
  }),
  testPluginRealtime: route({
    operation: 'testPluginRealtime',
    method: 'POST',
    path: `${one}/realtime/test`,
    tag,
    summary: "Send one request to a plugin's realtime.py",
    description:
      'For plugins that are deployed for realtime inference. It answers within 20 seconds or fails.',
    rate: 'compute',
    body: RealtimeTestBody,
    reply: RealtimeTestReply,
    errors: [
      'plugin_not_found',
      'plugin_realtime_unavailable',
      'plugin_not_deployed',
      'plugin_not_supported',
      'plugin_secret_missing',
      'plugin_failed',
      'plugin_timeout',
      'plugin_unavailable',
    ],
    example: { body: { inputs: { text: 'a query' }, parameters: {} } },
  }),
  undeployPlugin: route({
    operation: 'undeployPlugin',
    method: 'POST',
    path: `${one}/undeploy`,
    tag,
    summary: 'Take a plugin out of use; its documents stay',
    body: z.strictObject({}),
    bodyOptional: true,
    reply: Deployment,
    errors: ['plugin_not_found', 'plugin_changed'],
  }),
  deletePlugin: route({
    operation: 'deletePlugin',
    method: 'DELETE',
    path: one,
    tag,
    summary: 'Delete a plugin version that no collection uses',
    reply: z
      .object({
        success: z.literal(true),
        plugin_id: z.string(),
        message: z.string(),
        deployment_removed: z.boolean(),
      })
      .meta({ id: 'PluginDeletion' }),
    errors: ['plugin_not_found', 'plugin_in_use', 'plugin_changed'],
  }),
};
