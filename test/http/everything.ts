// One of everything that a path can name, in one namespace: for tests of every route.
import { evaluateAlerts, executionId } from '../../functions/core/resources/alerts/workflow.ts';
import { fanOut } from '../../functions/core/resources/webhooks/deliver.ts';
import { zipOf } from '../fixtures/zip.ts';
import type { App } from './app.ts';
import { featureUri, seedBatch, seedCollection } from './clusters/seed.ts';

/** By the name of the path parameter; `upload` is one of a bucket, `pluginUpload` one of a plugin. */
export type Everything = Readonly<
  Record<
    | 'namespace'
    | 'key'
    | 'plugin'
    | 'secret'
    | 'bucket'
    | 'object'
    | 'upload'
    | 'pluginUpload'
    | 'collection'
    | 'document'
    | 'batch'
    | 'task'
    | 'retriever'
    | 'taxonomy'
    | 'version'
    | 'cluster'
    | 'run'
    | 'alert'
    | 'execution'
    | 'webhook'
    | 'delivery'
    | 'organizationWebhook'
    | 'organizationDelivery'
    | 'export'
    | 'import',
    string
  >
>;

/** Answers validations; give it to `makeApp` where uploads of plugins are confirmed. */
export const fakeValidator = {
  call: async () => ({
    ok: true,
    errors: [],
    warnings: [],
    manifest: {
      description: null,
      features: [
        { feature_type: 'embedding', feature_name: 'toy', embedding_dim: 2, distance_metric: 'cosine' },
      ],
      input_mappings: {},
      compute_profile: {},
    },
    has_realtime: false,
  }),
};

let made = 0;

/** @throws Error with the answer of the API, when something cannot be made */
export async function makeEverything(app: App): Promise<Everything> {
  const tag = `e${made++}`;
  const ok = async (method: string, path: string, body?: unknown) => {
    const reply = await app.call(method, path, body);
    if (reply.status >= 300) throw new Error(`${method} ${path}: ${JSON.stringify(reply.body)}`);
    return reply.body;
  };
  const ns = '/v1/namespaces/{ns}';
  const stored = await seedCollection(app, `${tag}-collection`);
  const [collection, bucket] = [stored.id, stored.source.bucket_ids[0]!];
  const document = `doc_${tag.padStart(20, '0')}`;
  const object = (await ok('POST', `${ns}/buckets/${bucket}/objects`, { text: 'words' })).object_id;
  const upload = (
    await ok('POST', `${ns}/buckets/${bucket}/uploads`, {
      filename: 'a.txt',
      content_type: 'text/plain',
      blob_property: 'text',
    })
  ).upload_id;
  const asked = await ok('POST', `${ns}/plugins/uploads`, { name: 'second_embed', version: '1.0.0' });
  await app.ports.archives.put(asked.s3_key, zipOf({ 'manifest.py': 'x' }));
  const secret = (await ok('POST', `${ns}/secrets`, { secret_name: tag.toUpperCase(), secret_value: 'hush' }))
    .secret_name;
  const alert = (
    await ok('POST', `${ns}/alerts`, {
      alert_name: tag,
      collection_id: collection,
      condition: { field: 'topic', operator: 'eq', value: 'a' },
      notification: { type: 'webhook', url: 'http://127.0.0.1:9/' },
    })
  ).alert_id;
  const seeded = await seedBatch(app, stored, [
    { id: document, fields: { text: 'words', topic: 'a' }, vector: [1, 0, 0, 0] },
  ]);
  await evaluateAlerts(app.ctx, seeded);
  const batch = (
    await ok('POST', `${ns}/buckets/${bucket}/batches/trigger`, { collection_ids: [collection] })
  ).batch_id;
  const exported = await ok('POST', `${ns}/collections/${collection}/export`, { include_vectors: true });
  const imported = await ok('POST', `${ns}/collections/${collection}/import`, { s3_path: exported.s3_path });
  const search = {
    stage_name: 'search',
    stage_type: 'filter',
    config: {
      stage_id: 'feature_search',
      parameters: { searches: [{ feature_uri: featureUri, query: '{{INPUT.query}}' }] },
    },
  };
  const retriever = (
    await ok('POST', `${ns}/retrievers`, { name: tag, collection_ids: [collection], stages: [search] })
  ).retriever_id;
  const taxonomy = (
    await ok('POST', `${ns}/taxonomies`, {
      taxonomy_name: tag,
      taxonomy_type: 'flat',
      retriever_id: retriever,
      collection_id: collection,
      input_mappings: [{ source: 'text', target: 'query' }],
      enrichment_fields: [{ source: 'topic', target: 'auto_topic' }],
      threshold: 0.5,
      execution_mode: 'on_demand',
    })
  ).taxonomy_id;
  // A number is no id: each tenant's highest version is one that those before do not have.
  let version = 1;
  while (version < made) {
    const more = { threshold: version / 1000, activate: false };
    version = (await ok('POST', `${ns}/taxonomies/${taxonomy}/versions`, more)).version;
  }
  const cluster = await ok('POST', `${ns}/clusters`, {
    cluster_name: tag,
    collection_id: collection,
    feature_uri: featureUri,
    algorithm: { name: 'kmeans', params: { n_clusters: 2 } },
  });
  const tasks = (await ok('GET', '/v1/tasks')).results as { task_id: string }[];
  const hook = { webhook_name: tag, url: 'http://127.0.0.1:9/', events: ['plugin.deployed'] };
  const [webhook, organizationWebhook] = [
    (await ok('POST', `${ns}/webhooks`, hook)).webhook_id,
    (await ok('POST', '/v1/organizations/webhooks', hook)).webhook_id,
  ];
  const deliveries = await fanOut(
    {
      ...app.ports,
      queue: { send: async () => {} },
      send: () => Promise.reject(new Error('nothing is sent')),
    },
    {
      event_id: `evt_${tag}`,
      event_type: 'plugin.deployed',
      occurred_at: new Date(app.ports.clock.now()).toISOString(),
      org_id: app.principal.orgId,
      namespace_id: app.namespace,
      subject: { type: 'plugin', id: 'x' },
      metadata: {},
    },
  );
  const deliveryOf = (id: string) => deliveries.find((ref) => ref.webhook_id === id)!.delivery_id;
  return {
    namespace: app.namespace,
    key: (await ok('POST', '/v1/organizations/api-keys', { name: tag })).key_id,
    plugin: 'toy_embed_1_0_0',
    secret,
    bucket,
    object,
    upload,
    pluginUpload: asked.upload_id,
    collection,
    document,
    batch,
    task: tasks[0]!.task_id,
    retriever,
    taxonomy,
    version: String(version),
    cluster: cluster.cluster_id,
    run: cluster.last_run_id,
    alert,
    execution: executionId(alert, seeded),
    webhook,
    delivery: deliveryOf(webhook),
    organizationWebhook,
    organizationDelivery: deliveryOf(organizationWebhook),
    export: exported.export_id,
    import: imported.import_id,
  };
}
