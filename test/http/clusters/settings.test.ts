// What a definition can say about its algorithm reaches the clusterer, in both spellings; what is refused is said.
import { describe, expect, it } from 'vitest';
import {
  algorithmNames,
  algorithmParameters,
} from '../../../functions/core/resources/clusters/algorithms.ts';
import type { ClustererEvent } from '../../../functions/core/resources/clusters/workflow.ts';
import type { App } from '../app.ts';
import { makeApp } from '../app.ts';
import { fakeClusterer, jobFor, runCluster } from './run.ts';
import { axisDocuments, featureUri, seedBatch, seedCollection } from './seed.ts';

const base = '/v1/namespaces/{ns}/clusters';

async function seeded() {
  const app = await makeApp();
  const collection = await seedCollection(app);
  await seedBatch(app, collection, axisDocuments({ a: 4, b: 3 }));
  return { app, collection: collection.id };
}

/** Makes a definition and gives the event of its first run. */
async function eventOf(
  app: App,
  body: object,
): Promise<{ made: Record<string, unknown>; event: ClustererEvent }> {
  const made = await app.call('POST', base, body);
  expect(made.status, JSON.stringify(made.body)).toBe(200);
  const { request } = await runCluster(app, jobFor(app, made.body.cluster_id, made.body.last_run_id));
  return { made: made.body, event: request! };
}

async function faults(app: App, body: object): Promise<string[]> {
  const refused = await app.call('POST', base, body);
  expect(refused.status).toBe(422);
  return refused.body.error.details.validation_errors.map((e: { location: string[] }) =>
    e.location.join('.'),
  );
}

describe('settings', () => {
  it('name every algorithm that the clusterer has, with each of its parameters', async () => {
    const { app, collection } = await seeded();
    expect(algorithmNames.length).toBeGreaterThanOrEqual(8);
    for (const name of algorithmNames) {
      const params = Object.fromEntries(
        Object.entries(algorithmParameters[name]!).map(([parameter, rule]) => [parameter, rule.default]),
      );
      const { event } = await eventOf(app, {
        cluster_name: name,
        collection_id: collection,
        feature_uri: featureUri,
        algorithm: { name, params },
      });
      expect(event.algorithm).toEqual({ name, params });
    }
  });

  it('of preprocessing, space and map reach the clusterer in either spelling', async () => {
    const { app, collection } = await seeded();
    const steps = [{ step: 'center' }, { step: 'pca', params: { n_components: 3 } }];
    const expected = {
      preprocessing: [
        { step: 'center', params: {} },
        { step: 'pca', params: { n_components: 3 } },
      ],
      reduction: { method: 'pca', n_components: 2 },
      map: { method: 'tsne', n_components: 3 },
    };
    const tutorial = await eventOf(app, {
      cluster_name: 'tutorial',
      collection_id: collection,
      feature_uri: featureUri,
      algorithm: { name: 'kmeans', params: { n_clusters: 2 } },
      preprocessing_steps: steps,
      cluster_space: { method: 'pca', n_components: 2 },
      dimension_reduction: { method: 'tsne', n_components: 3 },
    });
    expect(tutorial.event).toMatchObject(expected);
    expect(tutorial.made.vector_config).toMatchObject({
      preprocessing_steps: expected.preprocessing,
      cluster_space: expected.reduction,
      vis_method: 'tsne',
      vis_n_components: 3,
    });
    const client = await eventOf(app, {
      cluster_name: 'client',
      collection_ids: [collection],
      cluster_type: 'vector',
      vector_config: {
        feature_uris: [featureUri],
        clustering_method: 'dbscan',
        dbscan_parameters: { eps: 0.5, n_jobs: 2 },
        preprocessing_steps: steps,
        cluster_space: { method: 'pca', n_components: 2 },
        vis_method: 'tsne',
        vis_n_components: 3,
        output_strategy: 'single',
        effective_feature_method: 'mean',
      },
    });
    expect(client.event).toMatchObject({ ...expected, algorithm: { name: 'dbscan', params: { eps: 0.5 } } });
    expect(client.made.warnings).toEqual(['these parameters of dbscan change nothing here: n_jobs']);
    const plain = await eventOf(app, {
      collection_id: collection,
      feature_uri: featureUri,
      algorithm: { name: 'hdbscan' },
    });
    expect(plain.event).toMatchObject({
      preprocessing: [],
      reduction: { method: 'auto', n_components: null },
      map: { method: 'umap', n_components: 2 },
    });
  });

  it('can be changed later, one by one', async () => {
    const { app, collection } = await seeded();
    await eventOf(app, {
      cluster_name: 'themes',
      collection_id: collection,
      feature_uri: featureUri,
      algorithm: { name: 'hdbscan' },
      preprocessing_steps: [{ step: 'whiten' }],
    });
    const changed = await app.call('PATCH', `${base}/themes`, {
      cluster_space: { method: 'none' },
      assignment_threshold: 0.8,
      auto_mode: 'assign',
    });
    expect(changed.body).toMatchObject({
      assignment_threshold: 0.8,
      auto_mode: 'assign',
      auto_execute_on_batch: true,
      vector_config: {
        preprocessing_steps: [{ step: 'whiten', params: {} }],
        cluster_space: { method: 'none', n_components: null },
      },
    });
    const reset = await app.call('PATCH', `${base}/themes`, {
      auto_mode: null,
      assignment_threshold: null,
      vector_config: { preprocessing_steps: [] },
    });
    expect(reset.body).toMatchObject({
      auto_mode: 'full',
      assignment_threshold: 0.5,
      vector_config: { preprocessing_steps: [] },
    });
  });

  it('that make no sense are refused, each at its place', async () => {
    const { app, collection } = await seeded();
    const body = (more: object) => ({
      collection_id: collection,
      feature_uri: featureUri,
      algorithm: { name: 'hdbscan' },
      ...more,
    });
    expect(await faults(app, body({ preprocessing_steps: [{ step: 'magic' }] }))).toEqual([
      'body.preprocessing_steps.0.step',
    ]);
    expect(await faults(app, body({ assignment_threshold: 1.1 }))).toEqual(['body.assignment_threshold']);
    expect(await faults(app, body({ vector_config: { multi_feature_strategy: 'independent' } }))).toEqual([
      'body.vector_config.multi_feature_strategy',
    ]);
    expect(
      await faults(app, body({ vector_config: { feature_weights: { 'mixpeek://other@1.0.0/x': 1 } } })),
    ).toEqual(['body.vector_config.feature_weights.mixpeek://other@1.0.0/x']);
    expect(
      await faults(app, { ...body({}), feature_uri: undefined, feature_uris: [featureUri, featureUri] }),
    ).toEqual(['body.feature_uris.1']);
  });
});

describe('a run of an older version of this program', () => {
  it('is read with the defaults of what it does not say, and new runs go on from it', async () => {
    const { app, collection } = await seeded();
    const { made } = await eventOf(app, {
      cluster_name: 'themes',
      collection_id: collection,
      feature_uri: featureUri,
      algorithm: { name: 'hdbscan', params: { min_cluster_size: 3 } },
    });
    // The rows as they were before there were modes, schedules and several features.
    for (const row of app.ports.table.dump()) {
      const { pk, sk } = row;
      const isRun = pk.includes('#CLUSTER#') && sk.startsWith('RUN#');
      if (pk.includes('#CLUSTER#') && sk === 'EXEC#state')
        await app.ports.table.write([
          {
            update: { pk, sk },
            remove: [
              'base_run_id',
              'base_run_created_at',
              'told_run_id',
              'told_by_created_at',
              'told_fields',
            ],
          },
        ]);
      if (!isRun && !sk.startsWith('CLUSTER#')) continue;
      const names = [
        'cluster_type feature_uris feature_weights normalize_features attributes hierarchical_grouping',
        'missing_values preprocessing_steps cluster_space enrichment_fields',
      ];
      const members = names.join(' ').split(' ');
      const older = (plan: object) =>
        Object.fromEntries(Object.entries(plan).filter(([name]) => !members.includes(name)));
      await app.ports.table.write([
        isRun
          ? {
              update: { pk, sk },
              set: { plan: older(row.plan as object) },
              remove: ['mode', 'base_run_id', 'sampling', 'assignment', 'label_overrides', 'failure_reason'],
            }
          : { update: { pk, sk }, remove: [...members, 'schedule', 'auto_mode', 'assignment_threshold'] },
      ]);
    }
    expect((await app.call('GET', `${base}/themes`)).body).toMatchObject({
      cluster_type: 'vector',
      feature_uris: [featureUri],
      schedule: null,
      auto_mode: 'full',
      source_enrichment_config: {
        field_mappings: [{ source_field: 'cluster_id' }, { source_field: 'cluster_label' }],
      },
    });
    const old = await app.call('GET', `${base}/themes/executions/${made.last_run_id}`);
    expect(old.body).toMatchObject({ mode: 'full', base_run_id: null, label_overrides: {}, num_clusters: 2 });
    app.ports.clock.advance(1000);
    const assigned = await app.call('POST', `${base}/themes/execute`, { mode: 'assign' });
    expect(assigned.body).toMatchObject({ mode: 'assign', base_run_id: made.last_run_id });
    await runCluster(app, jobFor(app, String(made.cluster_id), assigned.body.run_id));
    app.ports.clock.advance(1000);
    const again = await app.call('POST', `${base}/themes/execute`);
    const prepared = await runCluster(app, jobFor(app, String(made.cluster_id), again.body.run_id), {
      clusterer: fakeClusterer,
    });
    expect(prepared.request!.previous!.result_url).toContain(made.last_run_id);
  });
});
