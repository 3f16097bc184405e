// The real clusterer between the real steps of a run: what one side writes the other reads.
import { execFile } from 'node:child_process';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';
import type { ClustererEvent } from '../../../functions/core/resources/clusters/workflow.ts';
import type { App } from '../app.ts';
import { makeApp } from '../app.ts';
import { jobFor, runCluster } from './run.ts';
import { axisDocuments, featureUri, seedBatch, seedCollection } from './seed.ts';

const root = fileURLToPath(new URL('../../../', import.meta.url));
const program = `import json, sys; sys.path.insert(0, 'functions/clusterer'); import handler; handler.handler(json.loads(sys.argv[1]), None)`;

/** Serves the blob bucket on loopback, as presigned URLs do, while `work` runs. */
async function withBlobServer(app: App, work: (base: string) => Promise<void>): Promise<void> {
  const { blobs } = app.ports;
  const server = createServer(async (request, response) => {
    const key = decodeURIComponent(new URL(request.url!, 'http://host').pathname.slice(1));
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    if (request.method === 'PUT') await blobs.put(key, Buffer.concat(chunks));
    response.end(request.method === 'GET' ? await blobs.get(key) : undefined);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  try {
    await work(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`);
  } finally {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
}

async function realClusterer(app: App, event: ClustererEvent): Promise<void> {
  await withBlobServer(app, async (base) => {
    const text = JSON.stringify(event).replaceAll('memory://blobs/', base);
    await new Promise<void>((resolve, reject) => {
      execFile(`${root}.local/venv/bin/python`, ['-c', program, text], { cwd: root }, (error, _, stderr) =>
        error ? reject(new Error(stderr)) : resolve(),
      );
    });
  });
}

it('finds the groups that are there, names them by their words, and keeps their ids in the next run', async () => {
  const app = await makeApp();
  const collection = await seedCollection(app);
  await seedBatch(app, collection, axisDocuments({ a: 30, b: 25, c: 2 }));
  const clusters = '/v1/namespaces/{ns}/clusters';
  const made = await app.call('POST', clusters, {
    cluster_name: 'themes',
    collection_id: collection.id,
    feature_uri: featureUri,
    algorithm: { name: 'hdbscan', params: { min_cluster_size: 5 } },
    dimension_reduction: { method: 'umap', n_components: 3 },
  });
  await runCluster(app, jobFor(app, made.body.cluster_id, made.body.last_run_id), {
    clusterer: realClusterer,
  });
  const first = await app.call(
    'GET',
    `${clusters}/themes/executions/${made.body.last_run_id}?return_vectors=true`,
  );
  expect(first.body).toMatchObject({
    status: 'completed',
    num_clusters: 2,
    num_points: 57,
    label_source: 'ctfidf',
    degenerate_detail: null,
  });
  expect(first.body.metrics.silhouette_score).toBeGreaterThan(0.5);
  expect(first.body.centroids.map((c: { num_members: number }) => c.num_members)).toEqual([30, 25]);
  expect(first.body.centroids[0].label).toContain('quantum');
  expect(first.body.centroids[1].label).toContain('referee');
  expect(first.body.centroids[0].centroid_vector).toHaveLength(4);
  expect(first.body.sampling).toMatchObject({ rows: 57, clustered: 57, assigned: 0 });
  expect(first.body.centroids[0].mean_cosine_similarity).toBeGreaterThan(0.5);
  expect(first.body.metrics.cluster_size_entropy).toBeGreaterThan(0);
  const groups = await app.call('GET', `${clusters}/themes/groups`);
  expect(groups.body.groups.at(-1)).toMatchObject({ cluster_id: 'noise', num_members: 2 });
  const map = await app.call('GET', `${clusters}/themes/visualization`);
  expect(map.body).toMatchObject({ method: 'umap', n_components: 3, num_points: 57 });
  expect(map.body.points[0]).toHaveProperty('z');

  app.ports.clock.advance(1000);
  // The second group becomes the largest, and keeps its id and its documents their words.
  await seedBatch(
    app,
    collection,
    axisDocuments({ a: 30, b: 60 }).filter(({ id }) => id.startsWith('doc_b')),
  );
  const again = await app.call('POST', `${clusters}/themes/execute`);
  await runCluster(app, jobFor(app, made.body.cluster_id, again.body.run_id), { clusterer: realClusterer });
  const second = await app.call('GET', `${clusters}/themes/executions/${again.body.run_id}`);
  const sizes = Object.fromEntries(
    second.body.centroids.map((c: { cluster_id: string; num_members: number }) => [
      c.cluster_id,
      c.num_members,
    ]),
  );
  expect(sizes).toEqual({ cl_0: 30, cl_1: 60 });

  // What joins the groups by their centroids is what the clusterer would have put there.
  app.ports.clock.advance(1000);
  await seedBatch(app, collection, [
    { id: 'doc_x', fields: { text: 'one more game' }, vector: [0.02, 1, 0.02, 0.02] },
    { id: 'doc_y', fields: { text: 'nothing alike' }, vector: [-1, -1, 0, 0] },
  ]);
  const assign = await app.call('POST', `${clusters}/themes/execute`, { mode: 'assign' });
  await runCluster(app, jobFor(app, made.body.cluster_id, assign.body.run_id));
  const third = await app.call('GET', `${clusters}/themes/executions/${assign.body.run_id}`);
  expect(third.body).toMatchObject({ status: 'completed', assignment: { documents: 2, assigned: 1 } });
  const grown = third.body.centroids.find((c: { cluster_id: string }) => c.cluster_id === 'cl_1');
  expect(grown).toMatchObject({ num_members: 61, num_assigned: 1 });
}, 120_000);

it('says in words that a cluster needs more documents than there are', async () => {
  const app = await makeApp();
  const collection = await seedCollection(app);
  await seedBatch(app, collection, axisDocuments({ a: 1 }));
  const made = await app.call('POST', '/v1/namespaces/{ns}/clusters', {
    cluster_name: 'themes',
    collection_id: collection.id,
    feature_uri: featureUri,
    algorithm: { name: 'hdbscan', params: { min_cluster_size: 3 } },
  });
  await runCluster(app, jobFor(app, made.body.cluster_id, made.body.last_run_id), {
    clusterer: realClusterer,
  });
  const run = await app.call(
    'GET',
    `/v1/namespaces/{ns}/clusters/themes/executions/${made.body.last_run_id}`,
  );
  expect(run.body).toMatchObject({
    status: 'completed',
    num_clusters: 0,
    num_points: 1,
    error_message: null,
    degenerate_detail: { reason: 'too_few_documents' },
  });
  expect(run.body.message).toContain('at least 3 documents');
}, 120_000);
