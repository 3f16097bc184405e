// Clusters over HTTP: definitions in both spellings, their faults, runs, groups and maps.
import { describe, expect, it } from 'vitest';
import { setCrashHook } from '../../../functions/core/crash.ts';
import { admitRun, failRun, followRuns } from '../../../functions/core/resources/clusters/workflow.ts';
import { getDocuments } from '../../../functions/core/resources/documents/service.ts';
import { documentsSnapshot } from '../../../functions/core/store/vector-index.ts';
import type { App } from '../app.ts';
import { makeApp } from '../app.ts';
import { events, jobFor, queuedJobs, runCluster } from './run.ts';
import { axisDocuments, dims, featureUri, seedBatch, seedCollection } from './seed.ts';

const base = '/v1/namespaces/{ns}/clusters';

const tutorialBody = (collectionId: string, more: object = {}) => ({
  cluster_name: 'article-themes',
  collection_id: collectionId,
  feature_uri: featureUri,
  algorithm: { name: 'hdbscan', params: { min_cluster_size: 3 } },
  llm_labeling: { enabled: true },
  dimension_reduction: { method: 'umap', n_components: 2 },
  ...more,
});

async function seeded(groups: Record<string, number> = { a: 4, b: 3, c: 1 }) {
  const app = await makeApp();
  const collection = await seedCollection(app);
  const batch = await seedBatch(app, collection, axisDocuments(groups));
  return { app, collection, batch };
}

async function createAndRun(app: App, body: object) {
  const made = await app.call('POST', base, body);
  expect(made.body).toMatchObject({ status: 'PENDING' });
  await runCluster(app, jobFor(app, made.body.cluster_id, made.body.last_run_id));
  return made.body;
}

async function fieldsOf(app: App, collectionId: string, ids: readonly string[]) {
  const documents = await getDocuments(
    app.ctx,
    ids.map((document_id) => ({ collection_id: collectionId, document_id })),
  );
  return documents.map((document) => document?.fields);
}

describe('definitions', () => {
  it('a definition in the words of the tutorial runs at create: its answer carries the run and the task', async () => {
    const { app, collection } = await seeded();
    const made = await app.call('POST', base, tutorialBody(collection.id));
    expect(made.status).toBe(200);
    expect(made.body).toMatchObject({
      cluster_name: 'article-themes',
      name: 'article-themes',
      collection_ids: [collection.id],
      feature_uris: [featureUri],
      algorithm: { name: 'hdbscan', params: { min_cluster_size: 3 } },
      vector_config: {
        clustering_method: 'hdbscan',
        algorithm_params: { min_cluster_size: 3 },
        vis_n_components: 2,
      },
      dimension_reduction: { method: 'umap', n_components: 2 },
      llm_labeling: { enabled: true },
      status: 'PENDING',
    });
    expect(made.body.last_run_id).toMatch(/^run_[a-z0-9]{20}$/);
    expect(queuedJobs(app, 'cluster')).toEqual([
      expect.objectContaining({ cluster_id: made.body.cluster_id, run_id: made.body.last_run_id }),
    ]);
    const task = await app.call('GET', `/v1/tasks/${made.body.task_id}`);
    expect(task.body).toMatchObject({ status: 'PENDING', task_type: 'engine_cluster_build' });
  });

  it('the spelling of the client makes the same definition', async () => {
    const { app, collection } = await seeded();
    const made = await app.call(
      'POST',
      '/v1/clusters',
      {
        cluster_name: 'themes',
        collection_ids: [collection.name],
        vector_config: {
          feature_uris: [featureUri],
          clustering_method: 'kmeans',
          algorithm_params: { n_clusters: 2, random_state: 7 },
          vis_n_components: 3,
        },
      },
      { 'X-Namespace': app.namespace },
    );
    expect(made.status).toBe(200);
    expect(made.body).toMatchObject({
      collection_id: collection.id,
      algorithm: { name: 'kmeans', params: { n_clusters: 2, random_state: 7 } },
      dimension_reduction: { n_components: 3 },
    });
  });

  it('a definition with many faults is refused with all of them, and what is right instead', async () => {
    const { app, collection } = await seeded();
    const refused = await app.call(
      'POST',
      base,
      tutorialBody(collection.id, {
        feature_uri: 'mixpeek://toy_embed@1.0.0/other',
        algorithm: { name: 'hdbscan', params: { min_cluster_size: 1, k: 3, alpha: 'x' } },
        filters: { field: 'topic', operator: 'like-ish', value: 1 },
      }),
    );
    expect(refused.status).toBe(422);
    const { code, validation_errors } = refused.body.error.details;
    expect(code).toBe('cluster_invalid');
    expect(
      validation_errors.map((e: { location: string[]; type: string }) => [e.type, e.location.join('.')]),
    ).toEqual([
      ['feature_unknown', 'body.feature_uri'],
      ['parameter_wrong', 'body.algorithm.params.min_cluster_size'],
      ['parameter_unknown', 'body.algorithm.params.k'],
      ['parameter_wrong', 'body.algorithm.params.alpha'],
      ['condition_unknown_operator', 'body.filters.operator'],
    ]);
    expect(validation_errors[0].fix).toContain(featureUri);
    expect(validation_errors[1].message).toContain('a whole number from 2 to 100000');
    expect(validation_errors[2].fix).toContain('min_cluster_size');
  });

  it.each([
    [
      'an unknown algorithm',
      { algorithm: { name: 'leiden', params: {} } },
      'algorithm_unknown',
      /hdbscan, kmeans.*attribute_based/,
    ],
    ['an unknown collection', { collection_id: 'nothing-here' }, 'collection_unknown', undefined],
    ['a feature URI that is none', { feature_uri: 'toy_embedding' }, 'feature_uri_malformed', /mixpeek:\/\//],
  ])('%s is a 422 that says what is right', async (_, more, type, fix) => {
    const { app, collection } = await seeded();
    const refused = await app.call('POST', base, tutorialBody(collection.id, more));
    expect(refused.status).toBe(422);
    const [fault] = refused.body.error.details.validation_errors;
    expect(fault.type).toBe(type);
    if (fix) expect(fault.fix).toMatch(fix);
    expect((await app.call('GET', base)).body.total).toBe(0);
  });

  it('one fact said in two ways with different values is refused', async () => {
    const { app, collection } = await seeded();
    const refused = await app.call(
      'POST',
      base,
      tutorialBody(collection.id, { vector_config: { clustering_method: 'kmeans' } }),
    );
    expect(refused.status).toBe(422);
    expect(refused.body.error.details.validation_errors[0].location).toEqual([
      'body',
      'vector_config',
      'clustering_method',
    ]);
  });

  it('a definition can be listed, read by name, changed and deleted, and its collection cannot go before it', async () => {
    const { app, collection } = await seeded();
    const made = await createAndRun(app, tutorialBody(collection.id));
    expect((await app.call('POST', `${base}/list`, { search: 'themes' })).body.results).toHaveLength(1);
    const changed = await app.call('PATCH', `${base}/article-themes`, {
      cluster_name: 'themes-2',
      algorithm: { name: 'kmeans', params: { n_clusters: 2 } },
      auto_execute_on_batch: true,
    });
    expect(changed.body).toMatchObject({
      name: 'themes-2',
      algorithm: { name: 'kmeans', params: { n_clusters: 2 } },
      auto_execute_on_batch: true,
      status: 'COMPLETED',
    });
    expect(
      (await app.call('PATCH', `${base}/themes-2`, { algorithm_params: { min_cluster_size: 2 } })).body.error
        .details.validation_errors[0].type,
    ).toBe('parameter_unknown');
    expect((await app.call('DELETE', `/v1/namespaces/{ns}/collections/${collection.id}`)).status).toBe(409);
    expect((await app.call('DELETE', `${base}/${made.cluster_id}`)).status).toBe(200);
    expect((await app.call('DELETE', `${base}/${made.cluster_id}`)).status).toBe(404);
    expect(app.ports.table.dump().filter((item) => item.pk.includes('#CLUSTER#'))).toEqual([]);
    expect((await app.ports.blobs.list('run')).blobs).toEqual([]);
    expect((await app.call('DELETE', `/v1/namespaces/{ns}/collections/${collection.id}`)).status).toBe(200);
  });
});

describe('runs', () => {
  it('a run groups the documents, tells them their cluster, and counts what belongs to none', async () => {
    const { app, collection } = await seeded();
    const made = await createAndRun(app, tutorialBody(collection.id));
    const run = await app.call('GET', `${base}/${made.cluster_id}/executions/${made.last_run_id}`);
    expect(run.body).toMatchObject({
      status: 'completed',
      num_clusters: 2,
      num_points: 8,
      label_source: 'ctfidf',
      error_message: null,
    });
    expect(run.body.index_versions).toEqual({ [collection.id]: 1 });
    expect(
      run.body.centroids.map((c: { cluster_id: string; num_members: number; label: string }) => [
        c.cluster_id,
        c.num_members,
        c.label,
      ]),
    ).toEqual([
      ['cl_0', 4, 'quantum, entangled'],
      ['cl_1', 3, 'referee, league'],
    ]);
    expect(run.body.centroids[0]).not.toHaveProperty('centroid_vector');
    const vectors = await app.call(
      'GET',
      `${base}/${made.cluster_id}/executions/${made.last_run_id}?return_vectors=true`,
    );
    expect(vectors.body.centroids[0].centroid_vector).toHaveLength(dims);
    // Labels were asked for and no model is configured: said, not hidden.
    expect(run.body.llm_labeling_errors).toEqual([
      expect.stringContaining('No labelling model is configured'),
    ]);

    expect(await fieldsOf(app, collection.id, ['doc_a0', 'doc_b2', 'doc_c0'])).toEqual([
      expect.objectContaining({ cluster_id: 'cl_0', cluster_label: 'quantum, entangled' }),
      expect.objectContaining({ cluster_id: 'cl_1', cluster_label: 'referee, league' }),
      expect.not.objectContaining({ cluster_id: expect.anything() }),
    ]);
    const filtered = await app.call(
      'POST',
      `/v1/namespaces/{ns}/collections/${collection.id}/documents/list`,
      { filters: { field: 'metadata.cluster_id', operator: 'eq', value: 'cl_1' } },
    );
    expect(filtered.body.total).toBe(3);
    expect(events(app, 'cluster.execution.completed')).toHaveLength(1);
    expect((await app.call('GET', `/v1/tasks/${made.task_id}`)).body.status).toBe('COMPLETED');
  });

  it('groups show their members, and noise is a group of its own', async () => {
    const { app, collection } = await seeded();
    const made = await createAndRun(app, tutorialBody(collection.id));
    const groups = await app.call('GET', `${base}/article-themes/groups?members_limit=2`);
    expect(groups.body).toMatchObject({
      cluster_id: made.cluster_id,
      run_id: made.last_run_id,
      total_groups: 3,
      total_documents: 8,
    });
    expect(
      groups.body.groups.map(
        (g: { cluster_id: string; is_noise: boolean; num_members: number; members: unknown[] }) => [
          g.cluster_id,
          g.is_noise,
          g.num_members,
          g.members.length,
        ],
      ),
    ).toEqual([
      ['cl_0', false, 4, 2],
      ['cl_1', false, 3, 2],
      ['noise', true, 1, 1],
    ]);
  });

  it('the rows of a run are in the order of their texts, whatever their random ids are', async () => {
    const app = await makeApp();
    const collection = await seedCollection(app);
    const [a, b, c] = axisDocuments({ a: 1, b: 1, c: 1 });
    await seedBatch(app, collection, [
      { ...c!, id: 'doc_0' },
      { ...a!, id: 'doc_1' },
      { ...b!, id: 'doc_2' },
    ]);
    await createAndRun(
      app,
      tutorialBody(collection.id, { dimension_reduction: { method: 'pca', n_components: 2 } }),
    );
    const map = await app.call('GET', `${base}/article-themes/visualization`);
    expect(map.body.points.map((point: { document_id: string }) => point.document_id)).toEqual([
      'doc_1',
      'doc_2',
      'doc_0',
    ]);
  });

  it('the map has a point for each document, can be thinned, made compact, and reduced to its centroids', async () => {
    const { app, collection } = await seeded();
    await createAndRun(
      app,
      tutorialBody(collection.id, { dimension_reduction: { method: 'pca', n_components: 3 } }),
    );
    const url = `${base}/article-themes/visualization`;
    const whole = await app.call('GET', url);
    expect(whole.body).toMatchObject({ method: 'pca', n_components: 3, total_points: 8, num_points: 8 });
    expect(whole.body.points[0]).toEqual({
      document_id: 'doc_a0',
      collection_id: collection.id,
      cluster_id: 'cl_0',
      label: 'quantum, entangled',
      x: 0,
      y: 0,
      z: 1,
    });
    expect(whole.body.centroids[0]).toMatchObject({ cluster_id: 'cl_0', x: 0, y: 1.5, z: 1, num_members: 4 });
    const part = await app.call('GET', `${url}?max_points=3&compact=true`);
    expect(part.body.points).toEqual([
      [0, 0, 1, 0],
      [0, 2, 1, 0],
      [1, 5, 1, 1],
    ]);
    const centroids = await app.call('GET', `${url}?centroids_only=true`);
    expect(centroids.body).toMatchObject({ points: [], num_points: 0, total_points: 8 });
    expect((await app.call('GET', `${url}?max_points=20001`)).status).toBe(422);
  });

  it('execute answers with a run that has not ended, and the list has the newest run first and at its root', async () => {
    const { app, collection } = await seeded();
    const made = await createAndRun(app, tutorialBody(collection.id));
    app.ports.clock.advance(1000);
    const started = await app.call('POST', `${base}/article-themes/execute`);
    expect(started.status).toBe(200);
    expect(started.body).toMatchObject({
      status: 'pending',
      trigger: 'execute',
      centroids: null,
      completed_at: null,
    });
    const list = await app.call('GET', `${base}/article-themes/executions`);
    expect(list.body.results.map((r: { run_id: string }) => r.run_id)).toEqual([
      started.body.run_id,
      made.last_run_id,
    ]);
    expect(list.body).toMatchObject({ run_id: started.body.run_id, status: 'pending', total_count: 2 });
    const filtered = await app.call('POST', `${base}/article-themes/executions/list`, {
      filters: { field: 'status', operator: 'eq', value: 'completed' },
    });
    expect(filtered.body.total).toBe(1);
    const unfinished = await app.call('GET', `${base}/article-themes/groups?run_id=${started.body.run_id}`);
    expect(unfinished.status).toBe(404);
    expect(unfinished.body.error.details.code).toBe('cluster_run_not_found');
  });

  it('a run over a collection without documents is completed with no clusters and a sentence', async () => {
    const app = await makeApp();
    const collection = await seedCollection(app);
    const made = await app.call('POST', base, tutorialBody(collection.id));
    const prepared = await runCluster(app, jobFor(app, made.body.cluster_id, made.body.last_run_id));
    expect(prepared).toEqual({ rows: 0, request: null });
    const run = await app.call('GET', `${base}/article-themes/executions/${made.body.last_run_id}`);
    expect(run.body).toMatchObject({
      status: 'completed',
      num_clusters: 0,
      num_points: 0,
      centroids: [],
      message: expect.stringContaining('no documents yet'),
    });
    expect((await app.call('GET', `${base}/article-themes/groups`)).body).toMatchObject({
      total_groups: 0,
      groups: [],
    });
    expect((await app.call('GET', `${base}/article-themes/visualization`)).body).toMatchObject({
      points: [],
      centroids: [],
    });
  });

  it('only documents that pass the filter take part, and a sample is the same each time and said', async () => {
    const { app, collection } = await seeded({ a: 6, b: 6 });
    await createAndRun(
      app,
      tutorialBody(collection.id, { filters: { field: 'topic', operator: 'eq', value: 'a' } }),
    );
    expect((await app.call('GET', `${base}/article-themes/groups`)).body.total_documents).toBe(6);
    const sampled = [];
    for (let i = 0; i < 2; i++) {
      const started = await app.call('POST', `${base}/article-themes/execute`, { sample_size: 4 });
      await runCluster(app, jobFor(app, started.body.cluster_id, started.body.run_id));
      const run = await app.call('GET', `${base}/article-themes/executions/${started.body.run_id}`);
      expect(run.body).toMatchObject({
        num_points: 4,
        source_documents: 6,
        message: expect.stringContaining('4 of 6 documents were chosen'),
      });
      const map = await app.call('GET', `${base}/article-themes/visualization?run_id=${started.body.run_id}`);
      sampled.push(map.body.points.map((p: { document_id: string }) => p.document_id));
    }
    expect(sampled[1]).toEqual(sampled[0]);
  });

  it('the texts that names are made from are those that the extractor read, or those that the definition says', async () => {
    const { app, collection } = await seeded({ a: 3 });
    const texts: string[] = [];
    const capture = async (_: App, event: { texts_url: string }) => {
      texts.push(
        Buffer.from(await app.ports.blobs.get(new URL(event.texts_url).pathname.slice(1))).toString('utf8'),
      );
      throw new Error('enough');
    };
    for (const labeling of [
      { enabled: true },
      { enabled: true, labeling_inputs: { input_mappings: [{ path: 'payload.topic' }] } },
    ]) {
      const made = await app.call(
        'POST',
        base,
        tutorialBody(collection.id, { cluster_name: `t${texts.length}`, llm_labeling: labeling }),
      );
      await expect(
        runCluster(app, jobFor(app, made.body.cluster_id, made.body.last_run_id), { clusterer: capture }),
      ).rejects.toThrow('enough');
    }
    expect(JSON.parse(texts[0]!.split('\n')[0]!)).toEqual({
      document_id: 'doc_a0',
      text: 'quantum entangled qubits number 0',
    });
    expect(JSON.parse(texts[1]!.split('\n')[0]!)).toEqual({ document_id: 'doc_a0', text: 'a' });
  });

  it('a document that becomes noise loses its cluster, one that the run did not see again too, and nobody else does', async () => {
    const { app, collection } = await seeded({ a: 4, b: 3 });
    await createAndRun(app, tutorialBody(collection.id));
    // Somebody else says something about one document meanwhile.
    await app.call('PATCH', `/v1/namespaces/{ns}/collections/${collection.id}/documents/doc_b0`, {
      cluster_id: 'mine',
      cluster_label: 'by hand',
    });
    await app.call('PATCH', `${base}/article-themes`, {
      algorithm_params: { min_cluster_size: 4 },
      filters: { field: 'text', operator: 'contains', value: 'number' },
    });
    app.ports.clock.advance(1000);
    const started = await app.call('POST', `${base}/article-themes/execute`, {
      filters: { NOT: [{ field: 'text', operator: 'ends_with', value: 'number 2' }] },
    });
    await runCluster(app, jobFor(app, started.body.cluster_id, started.body.run_id));
    const [a2, b0, b1, b2] = await fieldsOf(app, collection.id, ['doc_a2', 'doc_b0', 'doc_b1', 'doc_b2']);
    expect(a2).not.toHaveProperty('cluster_id');
    expect(b1).not.toHaveProperty('cluster_id');
    expect(b2).not.toHaveProperty('cluster_label');
    expect(b0).toMatchObject({ cluster_id: 'mine', cluster_label: 'by hand' });
  });

  it('a document that was made anew during the run keeps what is known about its new vector: nothing', async () => {
    const { app, collection } = await seeded({ a: 4 });
    const made = await app.call('POST', base, tutorialBody(collection.id));
    const job = jobFor(app, made.body.cluster_id, made.body.last_run_id);
    const { fakeClusterer } = await import('./run.ts');
    await runCluster(app, job, {
      clusterer: async (_, event) => {
        await fakeClusterer(app, event);
        await seedBatch(app, collection, [
          { id: 'doc_a1', fields: { text: 'something else' }, vector: [0, 0, 0, 1] },
        ]);
      },
    });
    const [a0, a1] = await fieldsOf(app, collection.id, ['doc_a0', 'doc_a1']);
    expect(a0).toHaveProperty('cluster_id', 'cl_0');
    expect(a1).not.toHaveProperty('cluster_id');
  });

  it('an older run that ends after a newer one does not take the documents back', async () => {
    const { app, collection } = await seeded({ a: 4 });
    const made = await app.call('POST', base, tutorialBody(collection.id));
    app.ports.clock.advance(1000);
    const newer = await app.call('POST', `${base}/article-themes/execute`);
    await runCluster(app, jobFor(app, made.body.cluster_id, newer.body.run_id));
    const before = await fieldsOf(app, collection.id, ['doc_a0']);
    await seedBatch(app, collection, axisDocuments({ a: 1, b: 3 }));
    await runCluster(app, jobFor(app, made.body.cluster_id, made.body.last_run_id));
    expect(
      (await app.call('GET', `${base}/article-themes/executions/${made.body.last_run_id}`)).body.message,
    ).toContain('A newer run');
    expect((await app.call('GET', `${base}/article-themes/groups`)).body.run_id).toBe(newer.body.run_id);
    expect(before[0]).toHaveProperty('cluster_id');
  });

  it('a run that dies at any crash point and is repeated ends as if it had not died, with one event', async () => {
    for (const point of [
      'cluster.prepare.after_files',
      'cluster.commit.after_files',
      'document.enrich.after_rows',
      'cluster.commit.after_documents',
    ]) {
      const { app, collection } = await seeded();
      const made = await app.call('POST', base, tutorialBody(collection.id));
      const job = jobFor(app, made.body.cluster_id, made.body.last_run_id);
      let died = false;
      setCrashHook((name) => {
        if (name !== point || died) return;
        died = true;
        throw new Error(`died at ${name}`);
      });
      try {
        await expect(runCluster(app, job)).rejects.toThrow('died at');
      } finally {
        setCrashHook(undefined);
      }
      await runCluster(app, job);
      await runCluster(app, job);
      const run = await app.call('GET', `${base}/article-themes/executions/${job.run_id}`);
      expect(run.body).toMatchObject({ status: 'completed', num_clusters: 2 });
      const snapshot = (await documentsSnapshot(app.ctx, collection.id))!;
      for (const id of ['doc_a0', 'doc_b0']) {
        const [fields] = await fieldsOf(app, collection.id, [id]);
        expect(snapshot.valueAt(snapshot.rowOf(id)!, 'cluster_id')).toBe(fields!.cluster_id);
        expect(fields!.cluster_id).toMatch(/^cl_/);
      }
      expect(events(app, 'cluster.execution.completed')).toHaveLength(1);
    }
  });

  it('repeating prepare uses the files of the first time, although the collection has moved on', async () => {
    const { app, collection } = await seeded({ a: 4 });
    const made = await app.call('POST', base, tutorialBody(collection.id));
    const job = jobFor(app, made.body.cluster_id, made.body.last_run_id);
    const { clusterStep } = await import('../../../functions/core/resources/clusters/steps.ts');
    const first = await clusterStep(app.ports, { ...job, step: 'prepare' }, undefined);
    await seedBatch(app, collection, axisDocuments({ b: 5 }));
    expect(await clusterStep(app.ports, { ...job, step: 'prepare' }, undefined)).toEqual(first);
    expect(first).toMatchObject({
      rows: 4,
      request: { rows: 4, dims, seed: 42, metric: 'cosine', map: { method: 'umap', n_components: 2 } },
    });
  });

  it('the next run of a definition is given the result of the one before, to keep its cluster ids', async () => {
    const { app, collection } = await seeded({ a: 4 });
    const made = await createAndRun(app, tutorialBody(collection.id));
    app.ports.clock.advance(1000);
    const started = await app.call('POST', `${base}/article-themes/execute`);
    const prepared = await runCluster(app, jobFor(app, made.cluster_id, started.body.run_id));
    expect(prepared.request!.previous!.result_url).toContain(made.last_run_id);
  });

  it('a run that fails says why where the text is for users, and otherwise that the fault is ours', async () => {
    const { app, collection } = await seeded();
    const cases = [
      [
        {
          Error: 'InputTooLarge',
          Cause: JSON.stringify({ errorMessage: 'too many rows', errorType: 'InputTooLarge' }),
        },
        'too many rows',
      ],
      [
        {
          Error: 'index_unavailable',
          Cause: JSON.stringify({ errorMessage: 'A part of the vector index cannot be read.' }),
        },
        'A part of the vector index cannot be read.',
      ],
      [
        { Error: 'TypeError', Cause: JSON.stringify({ errorMessage: 'x is undefined in /var/task' }) },
        'The run failed through a fault on our side; its log has the details.',
      ],
      [{ Error: 'States.Timeout', Cause: '' }, expect.stringContaining('took longer')],
    ] as const;
    for (const [i, [error, message]] of cases.entries()) {
      const made = await app.call('POST', base, tutorialBody(collection.id, { cluster_name: `c${i}` }));
      const job = jobFor(app, made.body.cluster_id, made.body.last_run_id);
      await failRun(app.ctx, job, error);
      await failRun(app.ctx, job, { Error: 'again' });
      expect((await app.call('GET', `${base}/c${i}/executions/${job.run_id}`)).body).toMatchObject({
        status: 'failed',
        error_message: message,
      });
      expect((await app.call('GET', `${base}/c${i}`)).body.status).toBe('FAILED');
      expect((await app.call('GET', `/v1/tasks/${made.body.task_id}`)).body.status).toBe('FAILED');
    }
    expect(events(app, 'cluster.execution.failed')).toHaveLength(cases.length);
  });

  it('a run past its deadline is failed instead of started, and one that has ended is not started again', async () => {
    const { app, collection } = await seeded();
    const made = await app.call('POST', base, tutorialBody(collection.id));
    const job = jobFor(app, made.body.cluster_id, made.body.last_run_id);
    expect(await admitRun(app.ctx, job)).toBe(true);
    app.ports.clock.advance(3 * 3600 * 1000);
    expect(await admitRun(app.ctx, job)).toBe(false);
    expect((await app.call('GET', `${base}/article-themes/executions/${job.run_id}`)).body.status).toBe(
      'failed',
    );
    expect(await app.ports.table.due('DUE#0', '9999', 100)).toEqual(
      expect.not.arrayContaining([expect.objectContaining({ run_id: job.run_id })]),
    );
  });

  it('a definition that is deleted during its run leaves no trace of the run in documents or events', async () => {
    const { app, collection } = await seeded();
    const made = await app.call('POST', base, tutorialBody(collection.id));
    const { fakeClusterer } = await import('./run.ts');
    await runCluster(app, jobFor(app, made.body.cluster_id, made.body.last_run_id), {
      clusterer: async (_, event) => {
        await fakeClusterer(app, event);
        await app.call('DELETE', `${base}/article-themes`);
      },
    });
    expect((await fieldsOf(app, collection.id, ['doc_a0']))[0]).not.toHaveProperty('cluster_id');
    expect(events(app, 'cluster.execution.completed')).toEqual([]);
  });
});

describe('after a batch', () => {
  it('definitions that follow the collection get one run per batch, however often the step is repeated', async () => {
    const { app, collection } = await seeded();
    const following = await app.call(
      'POST',
      base,
      tutorialBody(collection.id, { cluster_name: 'follows', auto_execute_on_batch: true }),
    );
    await app.call('POST', base, tutorialBody(collection.id, { cluster_name: 'stays' }));
    await app.call(
      'POST',
      base,
      tutorialBody(collection.id, {
        cluster_name: 'large-only',
        auto_execute_on_batch: true,
        auto_execute_min_documents: 100,
      }),
    );
    await app.call(
      'POST',
      base,
      tutorialBody(collection.id, {
        cluster_name: 'cooling',
        auto_execute_on_batch: true,
        auto_execute_cooldown_seconds: 60,
      }),
    );
    const other = await seedCollection(app, 'others');
    await app.call(
      'POST',
      base,
      tutorialBody(other.id, { cluster_name: 'elsewhere', auto_execute_on_batch: true }),
    );
    const batch = await seedBatch(app, collection, axisDocuments({ b: 2 }));
    const first = await followRuns(app.ctx, batch);
    expect(first.runs).toEqual([
      expect.objectContaining({
        kind: 'cluster',
        cluster_id: following.body.cluster_id,
        org_id: app.principal.orgId,
      }),
    ]);
    expect(await followRuns(app.ctx, batch)).toEqual(first);
    const run = await app.call('GET', `${base}/follows/executions/${first.runs[0]!.run_id}`);
    expect(run.body).toMatchObject({ trigger: 'batch', batch_id: batch.batch_id, status: 'pending' });
    await runCluster(app, first.runs[0]!);
    expect((await app.call('GET', `${base}/follows`)).body).toMatchObject({
      status: 'COMPLETED',
      last_run_id: first.runs[0]!.run_id,
    });
    expect(await followRuns(app.ctx, batch)).toEqual({ runs: [] });
  });

  it('a collection may say itself which definitions follow its batches', async () => {
    const { app, collection } = await seeded();
    const made = await app.call('POST', base, tutorialBody(collection.id));
    const patched = await app.call('PATCH', `/v1/namespaces/{ns}/collections/${collection.id}`, {
      cluster_applications: [{ cluster_id: made.body.cluster_id }],
    });
    expect(patched.status).toBe(200);
    const batch = await seedBatch(app, collection, axisDocuments({ b: 2 }));
    expect((await followRuns(app.ctx, batch)).runs).toHaveLength(1);
  });
});

describe('tenants', () => {
  it("another namespace's or organisation's definition is a 404 like a random id, on every route", async () => {
    const { app, collection } = await seeded();
    const made = await createAndRun(app, tutorialBody(collection.id));
    const stranger = await makeApp({ ports: app.ports });
    const paths: [string, string][] = [
      ['GET', ''],
      ['PATCH', ''],
      ['PUT', ''],
      ['DELETE', ''],
      ['POST', '/execute'],
      ['GET', '/executions'],
      ['POST', '/executions/list'],
      ['GET', `/executions/${made.last_run_id}`],
      ['GET', '/groups'],
      ['GET', '/visualization'],
    ];
    for (const [method, path] of paths) {
      const body = method === 'GET' || method === 'DELETE' ? undefined : {};
      const theirs = await stranger.call(method, `${base}/${made.cluster_id}${path}`, body);
      const random = await stranger.call(method, `${base}/clust_${'0'.repeat(20)}${path}`, body);
      expect([method, path, theirs.status]).toEqual([method, path, 404]);
      expect(theirs.body.error.details.code).toBe(random.body.error.details.code);
    }
    expect((await app.call('GET', `${base}/${made.cluster_id}`)).status).toBe(200);
  });
});
