// Taxonomies out of cluster runs: nodes with centroids that live on by themselves, in one level or several.
import { describe, expect, it } from 'vitest';
import type { App } from '../app.ts';
import { makeApp } from '../app.ts';
import { fakeClusterer, jobFor, runCluster } from '../clusters/run.ts';
import { axisDocuments, featureUri, seedBatch, seedCollection } from '../clusters/seed.ts';
import { expectError, faults } from '../expect.ts';
import { runAll } from './runs.ts';

const base = '/v1/namespaces/{ns}';

async function makeCluster(
  app: App,
  collectionId: string,
  name: string,
  options: Parameters<typeof runCluster>[2] = {},
): Promise<{ cluster: string; run: string }> {
  const made = await app.call('POST', `${base}/clusters`, {
    cluster_name: name,
    collection_id: collectionId,
    feature_uri: featureUri,
    algorithm: { name: 'hdbscan', params: { min_cluster_size: 2 } },
  });
  expect(made.status, JSON.stringify(made.body)).toBe(200);
  const { cluster_id, last_run_id } = made.body;
  await runCluster(app, jobFor(app, cluster_id, last_run_id), options);
  app.ports.clock.advance(1_000);
  return { cluster: cluster_id, run: last_run_id };
}

/** Groups a and b are one coarse group, c is another. */
const coarse: NonNullable<Parameters<typeof runCluster>[2]>['clusterer'] = async (app, event) => {
  await fakeClusterer(app, event);
  const key = new URL(event.result_url).pathname.replace(/^\//, '');
  const result = JSON.parse(Buffer.from(await app.ports.blobs.get(key)).toString('utf8'));
  const [first, second, third] = result.clusters;
  const joined = {
    ...first,
    label: 'both',
    num_members: first.num_members + second.num_members,
    centroid_vector: [1, 1, 0, 0],
  };
  result.clusters = [joined, { ...third, cluster_id: 'cl_1', label: 'other' }];
  for (const member of result.members) member.cluster_id = member.cluster_id === 'cl_2' ? 'cl_1' : 'cl_0';
  await app.ports.blobs.put(key, JSON.stringify({ ...result, num_clusters: 2 }));
};

async function world() {
  const app = await makeApp();
  const collection = await seedCollection(app);
  await seedBatch(app, collection, axisDocuments({ a: 4, b: 3, c: 2 }));
  const fine = await makeCluster(app, collection.id, 'fine');
  return { app, collection, fine };
}

const documentOf = async (app: App, collectionId: string, id: string) =>
  (await app.call('GET', `${base}/collections/${collectionId}/documents/${id}`)).body;

describe('a taxonomy out of one run', () => {
  it('gives each document the label of its nearest centroid, by its own vector, and says why', async () => {
    const { app, collection, fine } = await world();
    const made = await app.call('POST', `${base}/clusters/fine/taxonomy`, {
      taxonomy_name: 'found',
      run_id: fine.run,
      threshold: 0.9,
      target_field: 'auto_topic',
      enrichment_fields: [{ source: 'keywords', target: 'auto_keywords' }],
      execution_mode: 'materialize',
    });
    expect(made.status, JSON.stringify(made.body)).toBe(201);
    expect(made.body).toMatchObject({
      taxonomy_type: 'flat',
      retriever_id: null,
      targets: ['auto_topic', 'auto_keywords'],
      config: { centroids: { count: 3, levels: 1, runs: [{ cluster_id: fine.cluster, run_id: fine.run }] } },
    });
    await seedBatch(app, collection, [
      { id: 'doc_new', fields: { text: 'x', topic: 'new' }, vector: [0.1, 1, 0, 0] },
      { id: 'doc_far', fields: { text: 'y', topic: 'new' }, vector: [1, 1, 1, 1] },
    ]);
    await runAll(app);
    const near = await documentOf(app, collection.id, 'doc_new');
    expect(near).toMatchObject({
      auto_topic: 'referee, league',
      auto_keywords: ['referee', 'league', 'goal'],
    });
    expect(near._internal.enrichments).toContainEqual(
      expect.objectContaining({
        field: 'auto_topic',
        matched_document_id: 'cl_1',
        score: 0.995037,
        margin: 0.895533,
        runner_up: { document_id: 'cl_0', value: 'quantum, entangled', score: 0.099504 },
      }),
    );
    expect(await documentOf(app, collection.id, 'doc_far')).not.toHaveProperty('auto_topic');
    const nodes = await app.call('GET', `${base}/taxonomies/found/nodes`);
    expect(nodes.body.results[0]).toMatchObject({
      node_id: 'cl_0',
      level: 1,
      num_members: 4,
      collection_id: null,
    });
    // The taxonomy has its own copy.
    expect((await app.call('DELETE', `${base}/clusters/fine`)).status).toBe(200);
    const vector = await app.call('POST', `${base}/taxonomies/found/execute`, {
      inputs: { vector: [0, 0, 2, 0] },
    });
    expect(vector.body.matches[0]).toMatchObject({ fields: { auto_topic: 'yeast, oven' }, score: 1 });
  });

  it('reads the text that the plugin reads, and says what lacks both text and vector', async () => {
    const { app } = await world();
    const made = await app.call('POST', `${base}/clusters/fine/taxonomy`, { taxonomy_name: 'found' });
    expect(made.body.input_mappings).toEqual([expect.objectContaining({ input_key: 'text', path: 'text' })]);
    const asked = await app.call('POST', `${base}/taxonomies/found/execute`, { documents: [{ topic: 'a' }] });
    expect(asked.body.matches[0].assignments).toEqual([]);
    expect(asked.body.warnings).toEqual([
      'Nothing could be compared for documents with neither a vector of the feature nor a text in "text".',
    ]);
  });

  it('is refused without a completed run, for unknown fields, and where nothing can vote', async () => {
    const { app, collection } = await world();
    const waiting = await app.call('POST', `${base}/clusters`, {
      cluster_name: 'waiting',
      collection_id: collection.id,
      feature_uri: featureUri,
      algorithm: { name: 'hdbscan' },
    });
    const from = (cluster: string, more: object = {}) =>
      app.call('POST', `${base}/clusters/${cluster}/taxonomy`, { taxonomy_name: 'x', ...more });
    expectError(await from(waiting.body.cluster_id), 'cluster_run_not_found');
    expectError(await from('nobody'), 'cluster_not_found');
    expectError(await from('fine', { run_id: 'run_nobody' }), 'cluster_run_not_found');
    expect(faults(await from('fine', { enrichment_fields: [{ source: 'centroid', target: 'c' }] }))).toEqual([
      'body.enrichment_fields.0: field_unknown',
    ]);
    expect(faults(await from('fine', { level_fields: [] }))).toEqual(['body.level_fields: missing']);
    const voted = await app.call('POST', `${base}/taxonomies`, {
      taxonomy_name: 'x',
      cluster_ids: ['fine'],
      top_k: 3,
    });
    expect(faults(voted)).toEqual(['body.top_k: not_supported']);
  });
});

describe('a taxonomy out of several runs', () => {
  it('has levels by the overlap of members, and documents go down them', async () => {
    const { app, collection } = await world();
    await makeCluster(app, collection.id, 'coarse', { clusterer: coarse });
    const made = await app.call('POST', `${base}/taxonomies`, {
      taxonomy_name: 'levels',
      inference_strategy: 'cluster',
      cluster_ids: ['coarse', 'fine'],
      level_fields: ['area', 'theme'],
    });
    expect(made.status, JSON.stringify(made.body)).toBe(200);
    expect(made.body.taxonomy_type).toBe('hierarchical');
    const nodes = await app.call('GET', `${base}/taxonomies/levels/nodes`);
    expect(
      nodes.body.results.map((node: Record<string, unknown>) => [
        node.node_id,
        node.parent_node_id,
        node.label,
      ]),
    ).toEqual([
      ['1.cl_0', null, 'both'],
      ['1.cl_1', null, 'other'],
      ['2.cl_0', '1.cl_0', 'quantum, entangled'],
      ['2.cl_1', '1.cl_0', 'referee, league'],
      ['2.cl_2', '1.cl_1', 'yeast, oven'],
    ]);
    const { matches } = (
      await app.call('POST', `${base}/taxonomies/levels/execute`, { document_ids: ['doc_b0', 'doc_c1'] })
    ).body;
    expect(matches.map((match: { fields: unknown }) => match.fields)).toEqual([
      { area: 'both', theme: 'referee, league' },
      { area: 'other', theme: 'yeast, oven' },
    ]);
    expect(matches[0].assignments.map((one: { level: number }) => one.level)).toEqual([1, 2]);
  });
});
