// Groups by the values of fields: levels, missing values, ids and fields of documents, and what has no meaning here.
import { describe, expect, it } from 'vitest';
import type { JsonObject } from '../../../functions/core/resources/documents/service.ts';
import { getDocuments } from '../../../functions/core/resources/documents/service.ts';
import type { App } from '../app.ts';
import { makeApp } from '../app.ts';
import { expectError } from '../expect.ts';
import { events, jobFor, runCluster } from './run.ts';
import { featureUri, seedBatch, seedCollection } from './seed.ts';

const base = '/v1/namespaces/{ns}/clusters';

const noClusterer = () => Promise.reject(new Error('groups by values need no clusterer'));

async function seeded(rows: readonly JsonObject[]) {
  const app = await makeApp();
  const collection = await seedCollection(app);
  await seedBatch(
    app,
    collection,
    rows.map((fields, i) => ({
      id: `doc_${i}`,
      fields: { text: `text ${i}`, ...fields },
      vector: [1, i, 0, 0],
    })),
  );
  return { app, collection };
}

async function grouped(app: App, collectionId: string, config: object, more: object = {}) {
  const made = await app.call('POST', base, {
    cluster_name: 'by-value',
    collection_id: collectionId,
    cluster_type: 'attribute',
    attribute_config: config,
    ...more,
  });
  expect(made.status, JSON.stringify(made.body)).toBe(200);
  const run = await finish(app, made.body.cluster_id, made.body.last_run_id);
  return { made: made.body, run };
}

async function finish(app: App, clusterId: string, runId: string) {
  await runCluster(app, jobFor(app, clusterId, runId), { clusterer: noClusterer });
  app.ports.clock.advance(1000);
  return (await app.call('GET', `${base}/${clusterId}/executions/${runId}`)).body;
}

async function fieldsOf(app: App, collectionId: string, ids: readonly string[]) {
  const refs = ids.map((document_id) => ({ collection_id: collectionId, document_id }));
  return (await getDocuments(app.ctx, refs)).map((document) => document?.fields);
}

interface Shown {
  readonly cluster_id: string;
  readonly label: string;
  readonly num_members: number;
}
const shown = (centroids: readonly Shown[]) => centroids.map((c) => [c.cluster_id, c.label, c.num_members]);

const news: readonly JsonObject[] = [
  { topic: 'sport', lang: 'en' },
  { topic: 'sport', lang: 'en' },
  { topic: 'sport', lang: 'de' },
  { topic: 'food', lang: 'en' },
  { lang: 'en' },
];

describe('groups by values', () => {
  it('have a name from their value, tell the documents, and state that there is no map', async () => {
    const { app, collection } = await seeded(news);
    const { made, run } = await grouped(app, collection.id, { attributes: ['topic'] });
    expect(made).toMatchObject({
      cluster_type: 'attribute',
      feature_uri: null,
      feature_uris: [],
      vector_config: null,
      attribute_config: { attributes: ['topic'], hierarchical_grouping: false, missing_values: 'group' },
      algorithm: { name: 'attribute_based', params: {} },
    });
    expect(run).toMatchObject({
      status: 'completed',
      num_clusters: 3,
      num_points: 5,
      label_source: 'values',
      metrics: { noise_ratio: 0, silhouette_score: null },
      message:
        'Found 3 groups by topic in 5 documents. 1 document lacks a value, which counts as a value of its own. Groups by values have no map.',
    });
    expect(shown(run.centroids)).toEqual([
      ['cl_0', 'sport', 3],
      ['cl_1', 'food', 1],
      ['cl_2', 'no topic', 1],
    ]);
    expect(run.centroids[0]).toMatchObject({
      label_source: 'values',
      keywords: ['sport'],
      summary: '3 of 5 documents have topic "sport".',
      attributes: { topic: 'sport' },
    });
    expect(run.centroids[0].representative_ids.toSorted()).toEqual(['doc_0', 'doc_1', 'doc_2']);
    const [sport, none] = await fieldsOf(app, collection.id, ['doc_0', 'doc_4']);
    expect(sport).toMatchObject({ cluster_id: 'cl_0', cluster_label: 'sport' });
    expect(none).toMatchObject({ cluster_id: 'cl_2', cluster_label: 'no topic' });
    const map = await app.call('GET', `${base}/by-value/visualization`);
    expect(map.body).toMatchObject({
      method: 'none',
      points: [],
      centroids: [],
      unplaced_points: 5,
      warnings: ['groups by values have no map'],
    });
    const groups = (await app.call('GET', `${base}/by-value/groups?members_limit=2&members_offset=1`)).body;
    expect(groups.groups[0].members.map((m: { document_id: string }) => m.document_id)).toEqual([
      'doc_1',
      'doc_2',
    ]);
    expect(events(app, 'cluster.execution.completed')).toHaveLength(1);
  });

  it('of several fields have parents by their first fields, whose members are those of their children', async () => {
    const { app, collection } = await seeded(news);
    const { run } = await grouped(app, collection.id, {
      attributes: ['topic', 'metadata.lang'],
      hierarchical_grouping: true,
      missing_values: 'skip',
    });
    expect(run).toMatchObject({
      num_clusters: 5,
      num_points: 5,
      message: expect.stringContaining(
        '3 groups by topic, metadata.lang in 5 documents, under 2 parents. 1 document lacks a value and belongs to none.',
      ),
    });
    const places = run.centroids.map((c: Record<string, unknown>) => [
      c.label,
      c.level,
      c.num_members,
      c.parent_cluster_id,
    ]);
    expect(places).toEqual([
      ['sport', 0, 3, null],
      ['food', 0, 1, null],
      ['sport / en', 1, 2, 'cl_0'],
      ['food / en', 1, 1, 'cl_1'],
      ['sport / de', 1, 1, 'cl_0'],
    ]);
    const groups = (await app.call('GET', `${base}/by-value/groups`)).body;
    const members = Object.fromEntries(
      groups.groups.map((g: { label: string; members: { document_id: string }[] }) => [
        g.label,
        g.members.map((m) => m.document_id),
      ]),
    );
    expect(members).toMatchObject({
      sport: ['doc_0', 'doc_1', 'doc_2'],
      'sport / de': ['doc_2'],
      'no cluster': ['doc_4'],
    });
    // A parent names the documents of its children, in files too.
    const path = `${base}/by-value/executions/${run.run_id}/export?cluster_label=sport&format=json`;
    const exported = await app.call('GET', path);
    expect(exported.body).toMatchObject({ document_count: 3, cluster_label: 'sport' });
    const [de, none] = await fieldsOf(app, collection.id, ['doc_2', 'doc_4']);
    expect(de).toMatchObject({ cluster_label: 'sport / de' });
    expect(none).not.toHaveProperty('cluster_id');
  });

  it('keep their ids by value, by their documents where a value is renamed, and give no id twice', async () => {
    const { app, collection } = await seeded(news);
    const { made } = await grouped(app, collection.id, { attributes: ['topic'] });
    const again = async () => {
      const started = await app.call('POST', `${base}/by-value/execute`);
      return shown((await finish(app, made.cluster_id, started.body.run_id)).centroids);
    };
    expect(await again()).toEqual([
      ['cl_0', 'sport', 3],
      ['cl_1', 'food', 1],
      ['cl_2', 'no topic', 1],
    ]);
    const path = `/v1/namespaces/{ns}/collections/${collection.id}/documents`;
    for (const i of [0, 1, 2]) await app.call('PATCH', `${path}/doc_${i}`, { topic: 'sports' });
    await app.call('PATCH', `${path}/doc_4`, { topic: 'food' });
    expect(await again()).toEqual([
      ['cl_0', 'sports', 3],
      ['cl_1', 'food', 2],
    ]);
    await app.call('PATCH', `${path}/doc_4`, { topic: 'space' });
    expect(await again()).toEqual([
      ['cl_0', 'sports', 3],
      ['cl_1', 'food', 1],
      ['cl_3', 'space', 1],
    ]);
    expect((await fieldsOf(app, collection.id, ['doc_4']))[0]).toMatchObject({ cluster_label: 'space' });
  });

  it('say all that is wrong with a definition', async () => {
    const { app, collection } = await seeded(news);
    const refused = async (more: object) => {
      const reply = await app.call('POST', base, { collection_id: collection.id, ...more });
      expect(reply.status).toBe(422);
      return reply.body.error.details.validation_errors.map((e: { location: string[] }) =>
        e.location.join('.'),
      );
    };
    expect(await refused({ cluster_type: 'attribute' })).toEqual(['body.attribute_config']);
    expect(
      await refused({
        attribute_config: { attributes: ['a'] },
        cluster_type: 'vector',
        feature_uri: featureUri,
      }),
    ).toEqual(['body.cluster_type', 'body.feature_uri']);
    expect(await refused({ algorithm: { name: 'attribute_based', params: { attributes: [] } } })).toContain(
      'body.algorithm.params.attributes',
    );
    expect(
      await refused({
        attribute_config: { attributes: ['a', 'a'] },
        auto_mode: 'assign',
        schedule: { interval_seconds: 300, mode: 'assign' },
      }),
    ).toEqual(['body.attribute_config.attributes.1', 'body.auto_mode', 'body.schedule.mode']);
  });

  it('can be written as the algorithm attribute_based, and cannot become clusters of vectors', async () => {
    const { app, collection } = await seeded(news);
    const made = await app.call('POST', base, {
      cluster_name: 'by-value',
      collection_id: collection.id,
      algorithm: { name: 'attribute_based', params: { attributes: ['lang'] } },
    });
    expect(made.body).toMatchObject({
      cluster_type: 'attribute',
      attribute_config: { attributes: ['lang'] },
    });
    const changed = await app.call('PATCH', `${base}/by-value`, {
      attribute_config: { attributes: ['topic'], missing_values: 'skip' },
    });
    expect(changed.body.attribute_config).toMatchObject({ attributes: ['topic'], missing_values: 'skip' });
    expectError(
      await app.call('PATCH', `${base}/by-value`, { algorithm: { name: 'kmeans' } }),
      'cluster_invalid',
    );
    expectError(
      await app.call('POST', `${base}/by-value/execute`, { mode: 'assign' }),
      'cluster_base_missing',
    );
  });

  it('over no documents, or with values that are all different beyond measure, end in words', async () => {
    const app = await makeApp();
    const collection = await seedCollection(app);
    const { run, made } = await grouped(app, collection.id, { attributes: ['topic'] });
    expect(run).toMatchObject({
      status: 'completed',
      num_clusters: 0,
      message: expect.stringContaining('no documents yet'),
    });
    expect(made.status).toBe('PENDING');
  });

  it('of a sample say how many documents were chosen, the same ones each time', async () => {
    const { app, collection } = await seeded(news);
    const { run, made } = await grouped(app, collection.id, { attributes: ['lang'] }, { sample_size: 3 });
    expect(run).toMatchObject({
      num_points: 3,
      source_documents: 5,
      message: expect.stringContaining('3 of 5 documents were chosen'),
    });
    const second = await app.call('POST', `${base}/by-value/execute`);
    expect((await finish(app, made.cluster_id, second.body.run_id)).centroids).toEqual(run.centroids);
  });
});
