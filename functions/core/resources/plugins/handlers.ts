// Requests about plugins -> service calls -> replies.
import { isoTime } from '../../clock.ts';
import type { NsCtx } from '../../context.ts';
import type { Handlers } from '../../http/handler.ts';
import { Answer } from '../../http/handler.ts';
import type { ListInput } from '../../page.ts';
import { mergeListInput, pageOfAll } from '../../page.ts';
import type { Plugin, routes } from './contract.ts';
import { memoryClassOf } from './run.ts';
import type { StoredFinding, StoredPlugin } from './service.ts';
import {
  confirmPluginUpload,
  createPluginUpload,
  deletePlugin,
  deployPlugin,
  featureUri,
  getPlugin,
  isDeployed,
  listPlugins,
  listVersions,
  testRealtime,
  undeployPlugin,
} from './service.ts';

function deploymentStatus(plugin: StoredPlugin): Plugin['deployment_status'] {
  return plugin.deployment === 'queued' ? 'pending' : plugin.deployment;
}

function toPlugin(ctx: NsCtx, plugin: StoredPlugin): Plugin {
  const features = plugin.features.map((feature) => ({
    feature_type: feature.feature_type,
    feature_name: feature.feature_name,
    embedding_dim: feature.embedding_dim,
    distance_metric: feature.distance_metric,
    feature_uri: featureUri(plugin, feature.feature_name),
  }));
  return {
    plugin_id: plugin.id,
    namespace_id: ctx.ns.namespaceId,
    name: plugin.plugin_name,
    version: plugin.version,
    description: plugin.description,
    features,
    feature_uri: features[0]!.feature_uri,
    input_mappings: plugin.input_mappings,
    compute_profile: plugin.compute_profile as Plugin['compute_profile'],
    code_hash: plugin.archive_sha256,
    archive_bytes: plugin.archive_bytes,
    s3_archive_url: ctx.ports.archives.uri(plugin.archive_key),
    realtime: plugin.has_realtime,
    dependencies: [...(plugin.dependencies ?? [])],
    secrets: [...(plugin.secrets ?? [])],
    container_image: plugin.container_image ?? null,
    memory_class: memoryClassOf(plugin),
    validation_status: 'passed',
    validation_warnings: warningsOf(plugin),
    findings: (plugin.findings ?? []).map(toFinding),
    deployed: isDeployed(plugin),
    deployment_status: deploymentStatus(plugin),
    deployed_at: plugin.deployed_at,
    created_at: plugin.created_at,
    updated_at: plugin.updated_at,
  };
}

function toFinding({ type, file, line, column, message, fix }: StoredFinding): Plugin['findings'][number] {
  return { type, file, line, column, message, fix };
}

function warningsOf({ findings = [], validation_warnings }: StoredPlugin): string[] {
  return [
    ...validation_warnings,
    ...findings.map(({ file, line, column, message }) => `${file}:${line}:${column}: ${message}`),
  ];
}

async function page(ctx: NsCtx, input: ListInput) {
  const rows = (await listPlugins(ctx)).map((plugin) => toPlugin(ctx, plugin));
  const found = await pageOfAll(ctx, 'plugins', rows, input, ['plugin_id', 'name', 'description']);
  return { ...found, success: true as const, plugins: found.results, namespace_id: ctx.ns.namespaceId };
}

function deploymentType(plugin: StoredPlugin): 'batch_only' | 'realtime' | null {
  return plugin.deployment === 'deployed'
    ? 'realtime'
    : plugin.deployment === 'batch_only'
      ? 'batch_only'
      : null;
}

function toDeployment(plugin: StoredPlugin, message: string) {
  const status = plugin.deployment === 'failed' ? ('not_deployed' as const) : plugin.deployment;
  return {
    success: true as const,
    plugin_id: plugin.id,
    status,
    deployment_type: deploymentType(plugin),
    feature_uri: featureUri(plugin, plugin.features[0]!.feature_name),
    message,
  };
}

const statusWords = {
  not_deployed: [
    'NOT_DEPLOYED',
    'The plugin is checked and not in use. Deploy it to use it in a collection.',
  ],
  queued: ['QUEUED', 'The image of the plugin is being prepared. Deploy it again to go on.'],
  batch_only: ['DEPLOYED', 'Collections can use the plugin; queries are embedded by its batch steps.'],
  deployed: ['DEPLOYED', 'Collections can use the plugin; queries are embedded by its realtime.py.'],
  failed: ['FAILED', 'The last deployment could not load the plugin. Its answer held the traceback.'],
} as const;

export const handlers: Handlers<typeof routes> = {
  createPluginUpload: async ({ ctx, body }) => {
    const { upload, presignedUrl } = await createPluginUpload(ctx, body);
    return {
      upload_id: upload.upload_id,
      presigned_url: presignedUrl,
      s3_key: upload.s3_key,
      expires_at: isoTime(upload.ends_at * 1000),
      namespace_id: ctx.ns.namespaceId,
      name: body.name,
      version: body.version,
    };
  },
  confirmPluginUpload: async ({ ctx, params, body }) => {
    const { plugin, uploadId } = await confirmPluginUpload(ctx, params.upload!, body.etag);
    const uris = plugin.features.map((feature) => featureUri(plugin, feature.feature_name));
    return {
      success: true as const,
      upload_id: uploadId,
      plugin_id: plugin.id,
      validation_status: 'passed' as const,
      validation_errors: [],
      validation_warnings: warningsOf(plugin),
      deployment_status: deploymentStatus(plugin),
      feature_uri: uris[0]!,
      feature_uris: uris,
      s3_archive_url: ctx.ports.archives.uri(plugin.archive_key),
      message: `${plugin.id} passed every check. Deploy it next.`,
    };
  },
  listPlugins: ({ ctx, query }) => page(ctx, query),
  searchPlugins: ({ ctx, query, body }) => page(ctx, mergeListInput(query, body)),
  getPlugin: async ({ ctx, params, query }) => {
    const stored = await getPlugin(ctx, params.plugin!);
    const plugin = toPlugin(ctx, stored);
    const versions = (await listVersions(ctx, stored.plugin_name)).map((one) => ({
      plugin_id: one.id,
      version: one.version,
      deployment_status: deploymentStatus(one),
      created_at: one.created_at,
    }));
    const url = query.return_presigned_urls
      ? await ctx.ports.archives.presignGet(stored.archive_key, 3600)
      : null;
    return new Answer(
      { ...plugin, success: true as const, plugin, versions, presigned_download_url: url },
      { etag: stored.revision },
    );
  },
  getPluginStatus: async ({ ctx, params }) => {
    const plugin = await getPlugin(ctx, params.plugin!);
    const [status, message] = statusWords[plugin.deployment];
    return {
      plugin_id: plugin.id,
      namespace_id: ctx.ns.namespaceId,
      status,
      name: plugin.plugin_name,
      version: plugin.version,
      deployed: isDeployed(plugin),
      deployment_type: deploymentType(plugin),
      realtime_enabled: plugin.deployment === 'deployed',
      feature_uri: featureUri(plugin, plugin.features[0]!.feature_name),
      deployed_at: plugin.deployed_at,
      message,
      error: plugin.deployment === 'failed' ? message : null,
    };
  },
  deployPlugin: async ({ ctx, params, query, body }) => {
    const plugin = await deployPlugin(ctx, params.plugin!, query.deployment_type ?? body.deployment_type);
    return toDeployment(plugin, statusWords[plugin.deployment][1]);
  },
  testPluginRealtime: async ({ ctx, params, body }) => ({
    success: true as const,
    ...(await testRealtime(ctx, params.plugin!, body)),
  }),
  undeployPlugin: async ({ ctx, params }) =>
    toDeployment(
      await undeployPlugin(ctx, params.plugin!),
      'The plugin is out of use; documents that it made stay.',
    ),
  deletePlugin: async ({ ctx, params }) => {
    const plugin = await deletePlugin(ctx, params.plugin!);
    return {
      success: true as const,
      plugin_id: plugin.id,
      message: `Plugin ${plugin.id} deleted.`,
      deployment_removed: isDeployed(plugin),
    };
  },
};
