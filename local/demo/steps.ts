// The tutorial's nine steps over the public API, on the sample articles; then a second batch, so that the alert and the
// webhooks have something to say. Everything here is what a user's own script would do.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { projectFolder, projectPython } from '../emulator.ts';
import type { Client, Json } from './client.ts';
import { bar, step } from './progress.ts';
import type { Heard, Receiver } from './receiver.ts';
import type { Article, Samples } from './samples.ts';
import { chooseThreshold } from './threshold.ts';

const plugin = 'ngram_embed';
const version = '1.0.0';
const pluginId = 'ngram_embed_1_0_0';
const featureUri = `mixpeek://${plugin}@${version}/ngram_embed_v1_embedding`;
const pollMs = 150;
/** No step of the demonstration takes a tenth of this; past it something is broken. */
const deadlineMs = 180_000;

async function until<T>(what: string, probe: () => Promise<T | undefined>): Promise<T> {
  const end = performance.now() + deadlineMs;
  for (;;) {
    const found = await probe();
    if (found !== undefined) return found;
    if (performance.now() > end) throw new Error(`${what} did not happen within ${deadlineMs / 1000} s`);
    await new Promise((resolve) => setTimeout(resolve, pollMs));
  }
}

/** Packs a plugin folder as the tutorial's `zip -r` does, without needing zip on the machine. */
function packPlugin(name: string): Buffer {
  const folder = mkdtempSync(join(tmpdir(), 'granary-plugin-'));
  try {
    const archive = join(folder, `${name}.zip`);
    const files = ['__init__.py', 'manifest.py', 'pipeline.py'].map((file) => join(name, file));
    const script =
      'import sys, zipfile\nwith zipfile.ZipFile(sys.argv[1], "w", zipfile.ZIP_DEFLATED) as z:\n  [z.write(f, f) for f in sys.argv[2:]]';
    execFileSync(projectPython, ['-c', script, archive, ...files], { cwd: join(projectFolder, 'examples') });
    return readFileSync(archive);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

export interface SearchResult {
  readonly query: string;
  readonly expected: string;
  readonly hits: readonly { readonly title: string; readonly score: number; readonly topic: string }[];
}

export interface DemoResult {
  readonly namespaceId: string;
  readonly searches: readonly SearchResult[];
  readonly threshold: number;
  readonly topics: {
    readonly total: number;
    readonly assigned: number;
    readonly right: number;
    readonly table: ReadonlyMap<string, ReadonlyMap<string, number>>;
  };
  readonly clusters: readonly {
    readonly id: string;
    readonly label: string;
    readonly members: number;
    readonly topic: string;
    readonly onTopic: number;
  }[];
  readonly labelSource: string;
  readonly points: readonly { readonly x: number; readonly y: number; readonly cluster: string }[];
  readonly newTopics: readonly {
    readonly title: string;
    readonly assigned: string | null;
    readonly topic: string;
  }[];
  readonly heard: readonly Heard[];
  readonly retrieverId: string;
  readonly collectionId: string;
}

/** Keeps this many namespaces of earlier demonstrations; older ones are deleted, since an organisation has 20 at most. */
const demosKept = 2;
const demoPrefix = 'newsroom-';

export async function makeNamespace(client: Client): Promise<string> {
  return step('namespace', async () => {
    const { results } = (await client.call('GET', '/v1/namespaces?limit=100')) as Json;
    const old = results.filter((ns: Json) => ns.namespace_name.startsWith(demoPrefix)).slice(demosKept);
    for (const ns of old) await client.call('DELETE', `/v1/namespaces/${ns.namespace_id}`);
    const name = `${demoPrefix}${Date.now().toString(36)}`;
    const made = await client.call('POST', '/v1/namespaces', {
      namespace_name: name,
      description: 'made by npm start',
    });
    return [name, made.namespace_id as string];
  });
}

function toObject(article: Article) {
  const { id, title, text, topic } = article;
  return {
    blobs: [{ property: 'text', type: 'text', data: text }],
    metadata: { article: id, title, ...(topic === undefined ? {} : { topic }) },
  };
}

async function putObjects(client: Client, bucket: string, articles: readonly Article[]): Promise<number> {
  let count = 0;
  for (let i = 0; i < articles.length; i += 100) {
    const made = await client.call('POST', `${bucket}/objects/batch`, {
      objects: articles.slice(i, i + 100).map(toObject),
    });
    if (made.failed_count > 0)
      throw new Error(`objects were refused: ${JSON.stringify(made.failed).slice(0, 500)}`);
    count += made.succeeded_count;
  }
  return count;
}

async function runBatch(client: Client, bucket: string, collectionId: string, name: string): Promise<Json> {
  return step(name, async (shown) => {
    const { batch_id } = await client.call('POST', `${bucket}/batches/trigger`, {
      collection_ids: [collectionId],
    });
    const batch = await until(`the end of batch ${batch_id}`, async () => {
      const found = await client.call('GET', `${bucket}/batches/${batch_id}`);
      const { total, processed } = found.progress;
      // Before the plan nobody knows how many there are, and a bar of nothing would say that it stands still.
      const progress = total > 0 ? `[${bar(processed / total)}] ${processed}/${total} ` : '';
      shown.note(`${progress}${found.lifecycle}`);
      return found.status === 'COMPLETED' || found.status === 'FAILED' ? found : undefined;
    });
    if (batch.status !== 'COMPLETED')
      throw new Error(`the batch failed: ${JSON.stringify(batch.error_summary ?? batch.failure_reason)}`);
    const problems = (batch.post_processing ?? []).filter((entry: Json) => entry.error);
    if (problems.length > 0) throw new Error(`work after the batch failed: ${JSON.stringify(problems)}`);
    const { processed, failed, skipped } = batch.progress;
    return [`${processed} processed, ${failed} failed, ${skipped} skipped`, batch];
  });
}

async function listDocuments(client: Client, collection: string): Promise<Json[]> {
  const documents: Json[] = [];
  let cursor: string | undefined;
  do {
    const page = await client.call('POST', `${collection}/documents/list`, {
      limit: 500,
      ...(cursor ? { cursor } : {}),
    });
    documents.push(...page.results);
    cursor = page.pagination.next_cursor ?? undefined;
  } while (cursor);
  return documents;
}

/** Steps 1 to 9, and the second batch. */
export async function runDemo(
  client: Client,
  namespaceId: string,
  samples: Samples,
  receiver: Receiver,
): Promise<DemoResult> {
  const ns = `/v1/namespaces/${namespaceId}`;
  const topicOf = (id: string, articles: readonly Article[]) =>
    articles.find((article) => article.id === id)?.topic ?? samples.trueTopics.get(id) ?? '?';
  const all = [...samples.articles, ...samples.newArticles];

  const archive = await step('1 plugin files', async () => {
    const packed = packPlugin(plugin);
    return [`examples/${plugin} packed, ${packed.length} bytes`, packed];
  });
  await step('2 upload and confirm', async () => {
    const upload = await client.call('POST', `${ns}/plugins/uploads`, {
      name: plugin,
      version,
      file_size_bytes: archive.length,
    });
    const put = await fetch(upload.presigned_url, {
      method: 'PUT',
      headers: { 'Content-Type': 'application/zip' },
      body: new Uint8Array(archive),
    });
    if (!put.ok) throw new Error(`the upload was refused: ${put.status} ${await put.text()}`);
    const confirmed = await client.call('POST', `${ns}/plugins/uploads/${upload.upload_id}/confirm`);
    return [`${confirmed.plugin_id}, validation ${confirmed.validation_status}`, undefined];
  });
  await step('3 deploy', async () => {
    const deployed = await client.call('POST', `${ns}/plugins/${pluginId}/deploy?deployment_type=batch_only`);
    return [deployed.status, undefined];
  });
  const bucket = await step('4 bucket and objects', async () => {
    const made = await client.call('POST', `${ns}/buckets`, {
      name: 'articles',
      bucket_schema: { properties: { text: { type: 'text', required: true } } },
    });
    const path = `${ns}/buckets/${made.bucket_id}`;
    const count = await putObjects(client, path, samples.articles);
    const labelled = samples.articles.filter((article) => article.topic !== undefined).length;
    return [`${count} articles, ${labelled} of them labelled with a topic`, path];
  });
  const bucketId = bucket.split('/').at(-1)!;
  const collectionId = await step('5 collection', async () => {
    const made = await client.call('POST', `${ns}/collections`, {
      name: 'ngram_embed_articles',
      feature_extractors: [{ feature_extractor_name: plugin, version }],
      source: { type: 'bucket', bucket_ids: [bucketId] },
    });
    return [made.collection_id as string, made.collection_id as string];
  });
  const collection = `${ns}/collections/${collectionId}`;
  await runBatch(client, bucket, collectionId, '5 batch');

  const retrieverId = await step('6 retriever', async () => {
    const made = await client.call('POST', `${ns}/retrievers`, {
      name: 'text_search',
      stages: [
        {
          stage_name: 'vector_search',
          stage_type: 'filter',
          config: {
            stage_id: 'feature_search',
            parameters: { searches: [{ feature_uri: featureUri, query: '{{INPUT.query}}' }] },
          },
        },
      ],
    });
    return [made.retriever_id as string, made.retriever_id as string];
  });
  const execute = (query: string, more: Record<string, unknown> = {}): Promise<Json> =>
    client.call('POST', `${ns}/retrievers/${retrieverId}/execute`, { input: { query }, ...more });
  const searches = await step('6 search', async (shown) => {
    const results: SearchResult[] = [];
    for (const { query, topic } of samples.queries) {
      shown.note(query);
      const { results: hits } = await execute(query);
      results.push({
        query,
        expected: topic,
        hits: hits
          .slice(0, 3)
          .map((hit: Json) => ({ title: hit.title, score: hit.score, topic: topicOf(hit.article, all) })),
      });
    }
    return [`${results.length} queries`, results];
  });

  const threshold = await step('7 threshold', async (shown) => {
    // On the labelled third alone: each of them looks for its nearest other labelled article.
    const labelled = samples.articles.filter((article) => article.topic !== undefined);
    const hits = [];
    for (const [i, article] of labelled.entries()) {
      shown.note(`[${bar(i / labelled.length)}] ${i}/${labelled.length}`);
      const { results } = await execute(article.text, {
        filters: {
          AND: [
            { field: 'topic', operator: 'exists', value: true },
            { field: 'article', operator: 'ne', value: article.id },
          ],
        },
        limit: 1,
      });
      const [top] = results;
      if (top) hits.push({ score: top.score as number, right: top.topic === article.topic });
    }
    const chosen = chooseThreshold(hits);
    return [`${chosen.toFixed(4)}, from ${hits.length} labelled articles`, chosen];
  });
  await step('7 taxonomy', async () => {
    const made = await client.call('POST', `${ns}/taxonomies`, {
      taxonomy_name: 'article-topics',
      taxonomy_type: 'flat',
      retriever_id: retrieverId,
      collection_id: collectionId,
      input_mappings: [{ source: 'payload.text', target: 'query' }],
      enrichment_fields: [{ source: 'payload.topic', target: 'auto_topic' }],
      threshold,
      execution_mode: 'materialize',
    });
    const run = await until('the end of the taxonomy run', async () => {
      const { last_run: last } = await client.call('GET', `${ns}/taxonomies/${made.taxonomy_id}`);
      return last && (last.status === 'COMPLETED' || last.status === 'FAILED') ? last : undefined;
    });
    if (run.status !== 'COMPLETED') throw new Error(`the taxonomy run failed: ${run.error}`);
    return [`${made.taxonomy_id}, run ${run.status}`, undefined];
  });
  const topics = await step('7 topics', async () => {
    const table = new Map<string, Map<string, number>>();
    let [total, assigned, right] = [0, 0, 0];
    for (const document of await listDocuments(client, collection)) {
      if (document.topic !== undefined) continue;
      const truth = topicOf(document.article, all);
      const given = (document.auto_topic as string | undefined) ?? 'none';
      total++;
      if (given !== 'none') assigned++;
      if (given === truth) right++;
      const row = table.get(truth) ?? new Map<string, number>();
      table.set(truth, row);
      row.set(given, (row.get(given) ?? 0) + 1);
    }
    return [
      `${assigned} of ${total} unlabelled articles got a topic, ${right} of those the right one`,
      { total, assigned, right, table },
    ];
  });

  const clustering = await step('8 clusters', async (shown) => {
    const made = await client.call('POST', `${ns}/clusters`, {
      cluster_name: 'article-themes',
      collection_id: collectionId,
      feature_uri: featureUri,
      algorithm: { name: 'hdbscan', params: { min_cluster_size: 5 } },
      llm_labeling: { enabled: true },
      dimension_reduction: { method: 'umap', n_components: 2 },
    });
    const run = await until('the end of the cluster run', async () => {
      const found = await client.call(
        'GET',
        `${ns}/clusters/${made.cluster_id}/executions/${made.last_run_id}`,
      );
      shown.note(found.status);
      return found.status === 'completed' || found.status === 'failed' ? found : undefined;
    });
    if (run.status !== 'completed') throw new Error(`the cluster run failed: ${run.error_message}`);
    const map = await client.call(
      'GET',
      `${ns}/clusters/${made.cluster_id}/visualization?run_id=${made.last_run_id}`,
    );
    const documents = await listDocuments(client, collection);
    const clusters = run.centroids.map((centroid: Json) => {
      const counts = new Map<string, number>();
      for (const document of documents.filter((d) => d.cluster_id === centroid.cluster_id)) {
        const topic = topicOf(document.article, all);
        counts.set(topic, (counts.get(topic) ?? 0) + 1);
      }
      const [topic = '?', onTopic = 0] = [...counts].sort((a, b) => b[1] - a[1])[0] ?? [];
      return {
        id: centroid.cluster_id,
        label: centroid.label,
        members: centroid.num_members,
        topic,
        onTopic,
      };
    });
    const points = map.points.map((point: Json) => ({ x: point.x, y: point.y, cluster: point.cluster_id }));
    return [
      `${run.num_clusters} clusters over ${run.num_points} documents`,
      { clusters, points, labelSource: run.label_source as string },
    ];
  });

  await step('9 alert and webhook', async () => {
    const alert = await client.call('POST', `${ns}/alerts`, {
      alert_name: 'quantum-articles',
      collection_id: collectionId,
      condition: { field: 'metadata.auto_topic', operator: 'eq', value: 'quantum' },
      notification: { type: 'webhook', url: `${receiver.url}/alert` },
    });
    receiver.trust('/alert', alert.notification.signing_secret);
    const webhook = await client.call('POST', `${ns}/webhooks`, {
      webhook_name: 'pipeline-events',
      url: `${receiver.url}/events`,
      events: ['batch.completed', 'batch.failed'],
    });
    receiver.trust('/events', webhook.signing_secret);
    return [`${alert.alert_id}, ${webhook.webhook_id}`, undefined];
  });
  await putObjects(client, bucket, samples.newArticles);
  await runBatch(client, bucket, collectionId, 'second batch, new articles');
  const newTopics = (await listDocuments(client, collection))
    .filter((document) => document.article.startsWith('n'))
    .map((document) => ({
      title: document.title as string,
      assigned: (document.auto_topic as string | undefined) ?? null,
      topic: topicOf(document.article, all),
    }));
  const heard = await step('deliveries', async () => {
    const got = await until('the alert and the webhook', async () => {
      const paths = new Set(receiver.heard.map((one) => one.path));
      return paths.has('/alert') && paths.has('/events') ? receiver.heard : undefined;
    });
    return [
      `${got.length} received, ${got.filter((one) => one.verified).length} with a valid signature`,
      [...got],
    ];
  });

  return {
    namespaceId,
    searches,
    threshold,
    topics,
    ...clustering,
    newTopics,
    heard,
    retrieverId,
    collectionId,
  };
}
