// Runs that let new documents join the groups of the last full run: by request, after batches, and what they refuse.
import { describe, expect, it } from 'vitest';
import { setCrashHook } from '../../../functions/core/crash.ts';
import { followRuns } from '../../../functions/core/resources/clusters/workflow.ts';
import { getDocuments } from '../../../functions/core/resources/documents/service.ts';
import type { App } from '../app.ts';
import { makeApp } from '../app.ts';
import { expectError } from '../expect.ts';
import { events, fakeClusterer, jobFor, runCluster } from './run.ts';
import type { SeedDocument } from './seed.ts';
import { axisDocuments, featureUri, seedBatch, seedCollection } from './seed.ts';

const base = '/v1/namespaces/{ns}/clusters';
const body = (collectionId: string, more: object = {}) => ({
  cluster_name: 'themes',
  collection_id: collectionId,
  feature_uri: featureUri,
  algorithm: { name: 'hdbscan', params: { min_cluster_size: 3 } },
  ...more,
});

/** Two groups (axes a and b) that a full run has found, and documents that it has not seen. */
async function grouped(more: object = {}) {
  const app = await makeApp();
  const collection = await seedCollection(app);
  await seedBatch(app, collection, axisDocuments({ a: 4, b: 3 }));
  const made = await app.call('POST', base, body(collection.id, more));
  expect(made.status).toBe(200);
  await runCluster(app, jobFor(app, made.body.cluster_id, made.body.last_run_id));
  app.ports.clock.advance(1000);
  return { app, collection, cluster: made.body.cluster_id as string, full: made.body.last_run_id as string };
}

const near = (id: string, vector: readonly number[]): SeedDocument => ({
  id,
  fields: { text: `new ${id}`, topic: 'new' },
  vector,
});

async function assign(app: App, cluster: string, request: object = {}) {
  const started = await app.call('POST', `${base}/${cluster}/execute`, { mode: 'assign', ...request });
  expect(started.body).toMatchObject({ status: 'pending', mode: 'assign' });
  const prepared = await runCluster(app, jobFor(app, started.body.cluster_id, started.body.run_id), {
    clusterer: () => Promise.reject(new Error('an assigning run needs no clusterer')),
  });
  expect(prepared).toEqual({ rows: 0, request: null });
  app.ports.clock.advance(1000);
  return (await app.call('GET', `${base}/${cluster}/executions/${started.body.run_id}`)).body;
}

async function fieldsOf(app: App, collectionId: string, ids: readonly string[]) {
  const refs = ids.map((document_id) => ({ collection_id: collectionId, document_id }));
  return (await getDocuments(app.ctx, refs)).map((document) => document?.fields);
}

describe('a run that assigns', () => {
  it('tells new documents the nearest group, counts them in, and leaves those that are near to none', async () => {
    const { app, collection, cluster, full } = await grouped();
    await seedBatch(app, collection, [
      near('doc_n1', [0.9, 0.1, 0, 0]),
      near('doc_n2', [0.1, 2, 0, 0]),
      near('doc_n3', [0, 0, 1, 0.1]),
      near('doc_n4', [0, 0, 0, 0]),
    ]);
    const run = await assign(app, cluster);
    expect(run).toMatchObject({
      status: 'completed',
      mode: 'assign',
      base_run_id: full,
      assignment_threshold: 0.5,
      assignment: { documents: 4, assigned: 2 },
      num_clusters: 2,
      num_points: 11,
      label_source: 'ctfidf',
      message: `2 of 4 new documents joined the groups of the run ${full}. 2 are less near than 0.5 to any and belong to none.`,
    });
    expect(run.metrics.noise_ratio).toBeCloseTo(2 / 11, 5);
    expect(
      run.centroids.map((c: Record<string, unknown>) => [c.cluster_id, c.num_members, c.num_assigned]),
    ).toEqual([
      ['cl_0', 5, 1],
      ['cl_1', 4, 1],
    ]);
    const [n1, n2, n3, a0] = await fieldsOf(app, collection.id, ['doc_n1', 'doc_n2', 'doc_n3', 'doc_a0']);
    expect(n1).toMatchObject({ cluster_id: 'cl_0', cluster_label: 'quantum, entangled' });
    expect(n2).toMatchObject({ cluster_id: 'cl_1' });
    expect(n3).not.toHaveProperty('cluster_id');
    expect(a0).toMatchObject({ cluster_id: 'cl_0' });
    const groups = (await app.call('GET', `${base}/${cluster}/groups`)).body;
    expect(groups).toMatchObject({ run_id: run.run_id, total_documents: 11 });
    const members = groups.groups[0].members as { document_id: string; assigned?: boolean }[];
    expect(members.filter((member) => member.assigned).map((member) => member.document_id)).toEqual([
      'doc_n1',
    ]);
    const map = (await app.call('GET', `${base}/${cluster}/visualization`)).body;
    // The new member stands at the centre of its group; what belongs to none has no place.
    expect(map).toMatchObject({ total_points: 11, num_points: 9, unplaced_points: 2 });
    const placed = map.points.find((point: { document_id: string }) => point.document_id === 'doc_n1');
    const centre = map.centroids.find((one: { cluster_id: string }) => one.cluster_id === 'cl_0');
    expect(placed).toMatchObject({ x: centre.x, y: centre.y, assigned: true });
    expect(events(app, 'cluster.execution.completed')).toHaveLength(2);
  });

  it('looks at each document once, and again when its vector is a new one', async () => {
    const { app, collection, cluster } = await grouped();
    await seedBatch(app, collection, [near('doc_n1', [1, 0, 0, 0])]);
    expect(await assign(app, cluster)).toMatchObject({ assignment: { documents: 1, assigned: 1 } });
    expect(await assign(app, cluster)).toMatchObject({
      assignment: { documents: 0, assigned: 0 },
      message: expect.stringContaining('no new documents'),
      num_points: 8,
    });
    await seedBatch(app, collection, [near('doc_n1', [0, 1, 0, 0]), near('doc_a0', [0, 0, 0, 1])]);
    const third = await assign(app, cluster);
    expect(third).toMatchObject({ assignment: { documents: 2, assigned: 1 }, num_points: 8 });
    expect(third.centroids.map((c: { num_members: number }) => c.num_members)).toEqual([3, 4]);
    const [n1, a0] = await fieldsOf(app, collection.id, ['doc_n1', 'doc_a0']);
    expect(n1).toMatchObject({ cluster_id: 'cl_1' });
    expect(a0).not.toHaveProperty('cluster_id');
  });

  it('takes documents that were deleted out of its counts, and the threshold of the request', async () => {
    const { app, collection, cluster } = await grouped();
    await seedBatch(app, collection, [near('doc_n1', [0.8, 0.6, 0, 0])]);
    const path = `/v1/namespaces/{ns}/collections/${collection.id}/documents/doc_a3`;
    expect((await app.call('DELETE', path)).status).toBe(200);
    const run = await assign(app, cluster, { assignment_threshold: 0.9 });
    expect(run).toMatchObject({ assignment: { documents: 1, assigned: 0 }, num_points: 7 });
    expect(run.centroids.map((c: { num_members: number }) => c.num_members)).toEqual([3, 3]);
  });

  it('only looks at documents that pass the filter', async () => {
    const { app, collection, cluster } = await grouped();
    await seedBatch(app, collection, [near('doc_n1', [1, 0, 0, 0])]);
    const filters = { field: 'topic', operator: 'eq', value: 'other' };
    expect(await assign(app, cluster, { filters })).toMatchObject({ assignment: { documents: 0 } });
  });

  it('is refused before a full run is completed, after one without clusters, and with what it cannot use', async () => {
    const app = await makeApp();
    const collection = await seedCollection(app);
    const made = await app.call('POST', base, body(collection.id));
    const execute = (request: object) =>
      app.call('POST', `${base}/themes/execute`, { mode: 'assign', ...request });
    expectError(await execute({}), 'cluster_base_missing');
    await runCluster(app, jobFor(app, made.body.cluster_id, made.body.last_run_id));
    expectError(await execute({}), 'cluster_base_missing');
    await seedBatch(app, collection, axisDocuments({ a: 2 }));
    app.ports.clock.advance(1000);
    const again = await app.call('POST', `${base}/themes/execute`);
    await runCluster(app, jobFor(app, made.body.cluster_id, again.body.run_id));
    const none = await execute({});
    expectError(none, 'cluster_base_missing');
    expect(none.body.error.message).toContain('found no clusters');
    const wrong = await execute({ sample_size: 10, vis_n_components: 3 });
    expectError(wrong, 'cluster_invalid');
    expect(
      wrong.body.error.details.validation_errors.map((e: { location: string[] }) => e.location.at(-1)),
    ).toEqual(['sample_size', 'vis_n_components']);
  });

  it('that dies at any crash point and is repeated ends as if it had not died, with one event', async () => {
    for (const point of [
      'cluster.prepare.after_files',
      'cluster.commit.after_files',
      'cluster.commit.after_documents',
    ]) {
      const { app, collection, cluster } = await grouped();
      await seedBatch(app, collection, [near('doc_n1', [1, 0, 0, 0]), near('doc_n2', [0, 1, 0, 0])]);
      const started = await app.call('POST', `${base}/${cluster}/execute`, { mode: 'assign' });
      const job = jobFor(app, cluster, started.body.run_id);
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
      const run = await app.call('GET', `${base}/${cluster}/executions/${job.run_id}`);
      expect(run.body).toMatchObject({
        status: 'completed',
        assignment: { documents: 2, assigned: 2 },
        num_points: 9,
      });
      const [n1] = await fieldsOf(app, collection.id, ['doc_n1']);
      expect(n1).toMatchObject({ cluster_id: 'cl_0' });
      expect(events(app, 'cluster.execution.completed')).toHaveLength(2);
    }
  });

  it('joins the groups of the newest full run, also of one that ended while it waited', async () => {
    const { app, collection, cluster, full } = await grouped();
    await seedBatch(app, collection, [near('doc_n1', [1, 0, 0, 0])]);
    const waiting = await app.call('POST', `${base}/${cluster}/execute`, { mode: 'assign' });
    expect(waiting.body.base_run_id).toBe(full);
    app.ports.clock.advance(1000);
    const second = await app.call('POST', `${base}/${cluster}/execute`);
    await runCluster(app, jobFor(app, cluster, second.body.run_id));
    await runCluster(app, jobFor(app, cluster, waiting.body.run_id));
    const run = await app.call('GET', `${base}/${cluster}/executions/${waiting.body.run_id}`);
    expect(run.body).toMatchObject({
      base_run_id: second.body.run_id,
      assignment: { documents: 0, assigned: 0 },
    });
    // The full run is the newer one, so it is the one that answers show.
    expect((await app.call('GET', `${base}/${cluster}/groups`)).body.run_id).toBe(second.body.run_id);
  });

  it('beside another one loses nothing: whoever is later takes up what the other has written', async () => {
    const { app, collection, cluster } = await grouped();
    await seedBatch(app, collection, [near('doc_n1', [1, 0, 0, 0])]);
    const jobs = [];
    for (let i = 0; i < 3; i++) {
      const started = await app.call('POST', `${base}/${cluster}/execute`, { mode: 'assign' });
      jobs.push(jobFor(app, cluster, started.body.run_id));
      app.ports.clock.advance(1000);
      await seedBatch(app, collection, [near(`doc_m${i}`, [0, 1, 0, 0])]);
    }
    await Promise.all(jobs.map((job) => runCluster(app, job)));
    const runs = await Promise.all(
      jobs.map(async ({ run_id }) => (await app.call('GET', `${base}/${cluster}/executions/${run_id}`)).body),
    );
    expect(runs.map((run) => run.status)).toEqual(['completed', 'completed', 'completed']);
    await assign(app, cluster);
    const groups = (await app.call('GET', `${base}/${cluster}/groups`)).body;
    expect(groups.groups.map((g: { num_members: number }) => g.num_members)).toEqual([5, 6]);
    const told = await fieldsOf(app, collection.id, ['doc_n1', 'doc_m0', 'doc_m1', 'doc_m2']);
    expect(told.map((fields) => fields!.cluster_id)).toEqual(['cl_0', 'cl_1', 'cl_1', 'cl_1']);
  });

  it('looks at every collection of its definition, each in its own version', async () => {
    const app = await makeApp();
    const [one, two] = [await seedCollection(app, 'one'), await seedCollection(app, 'two')];
    await seedBatch(app, one, axisDocuments({ a: 4 }));
    await seedBatch(app, two, axisDocuments({ a: 0, b: 3 }));
    const made = await app.call('POST', base, {
      ...body(one.id),
      collection_id: undefined,
      collection_ids: [one.id, two.id],
    });
    await runCluster(app, jobFor(app, made.body.cluster_id, made.body.last_run_id));
    app.ports.clock.advance(1000);
    await seedBatch(app, one, [near('doc_n1', [0, 1, 0, 0])]);
    await seedBatch(app, two, [near('doc_n2', [1, 0, 0, 0]), near('doc_n1', [1, 0, 0, 0])]);
    expect(await assign(app, 'themes')).toMatchObject({
      assignment: { documents: 3, assigned: 3 },
      num_points: 10,
    });
    const [[n1], [other, n2]] = [
      await fieldsOf(app, one.id, ['doc_n1']),
      await fieldsOf(app, two.id, ['doc_n1', 'doc_n2']),
    ];
    expect([n1!.cluster_id, other!.cluster_id, n2!.cluster_id]).toEqual(['cl_1', 'cl_0', 'cl_0']);
  });

  it('keeps the ids by the full run: the next full run is given the clusterer its result', async () => {
    const { app, collection, cluster, full } = await grouped();
    await seedBatch(app, collection, [near('doc_n1', [1, 0, 0, 0])]);
    await assign(app, cluster);
    const again = await app.call('POST', `${base}/${cluster}/execute`);
    const prepared = await runCluster(app, jobFor(app, cluster, again.body.run_id));
    expect(prepared.request!.previous!.result_url).toContain(full);
    expect(prepared.rows).toBe(8);
  });

  it('under euclid joins what is no further out than the furthest member of the group', async () => {
    const app = await makeApp();
    const collection = await seedCollection(app, 'places', 'flat_embed');
    const at = (id: string, x: number, y: number) => near(id, [x, y, 0, 0]);
    await seedBatch(app, collection, [
      at('doc_1', 100, 0),
      at('doc_2', 104, 0),
      at('doc_3', 102, 0),
      at('doc_4', 0, 100),
      at('doc_5', 0, 100),
      at('doc_6', 0, 100),
    ]);
    const made = await app.call(
      'POST',
      base,
      body(collection.id, { feature_uri: 'mixpeek://flat_embed@1.0.0/place' }),
    );
    expect(made.status).toBe(200);
    await runCluster(app, jobFor(app, made.body.cluster_id, made.body.last_run_id), {
      // The fake's centroids are directions; these are places.
      clusterer: async (_, event) => {
        expect(event.metric).toBe('euclid');
        await fakeClusterer(app, event, { 0: [102, 0, 0, 0], 1: [0, 100, 0, 0] });
      },
    });
    app.ports.clock.advance(1000);
    // The furthest member is 2 from its centroid, so 1 is half of that and 3 is beyond it.
    await seedBatch(app, collection, [
      at('doc_7', 101, 0),
      at('doc_8', 105, 0),
      at('doc_9', 0, 101),
      at('doc_x', 0, 100),
    ]);
    const run = await assign(app, 'themes');
    expect(run).toMatchObject({ assignment: { documents: 4, assigned: 2 } });
    const told = await fieldsOf(app, collection.id, ['doc_7', 'doc_8', 'doc_9', 'doc_x']);
    expect(told.map((fields) => fields!.cluster_id)).toEqual(['cl_0', undefined, undefined, 'cl_1']);
  });

  it('compares several features at once, and only documents that have all of them', async () => {
    const app = await makeApp();
    const collection = await seedCollection(app, 'pairs', 'pair_embed');
    const [left, right] = ['mixpeek://pair_embed@1.0.0/left', 'mixpeek://pair_embed@1.0.0/right'];
    const pair = (id: string, l: readonly number[], r: readonly number[] | undefined): SeedDocument => ({
      id,
      fields: { text: id, topic: 'pair' },
      vectors: { [left]: l, ...(r ? { [right]: r } : {}) },
    });
    await seedBatch(app, collection, [
      ...[0, 1, 2].map((i) => pair(`doc_a${i}`, [3, 0, 0, 0], [0.5, 0])),
      ...[0, 1, 2].map((i) => pair(`doc_b${i}`, [0, 3, 0, 0], [0, 0.5])),
      pair('doc_lonely', [1, 0, 0, 0], undefined),
    ]);
    const made = await app.call('POST', base, {
      cluster_name: 'pairs',
      collection_id: collection.id,
      feature_uris: [left, right],
      algorithm: { name: 'hdbscan', params: { min_cluster_size: 3 } },
      vector_config: { multi_feature_strategy: 'weighted', feature_weights: { [left]: 1, [right]: 0.25 } },
    });
    expect(made.body).toMatchObject({
      feature_uris: [left, right],
      vector_config: { feature_weights: { [right]: 0.25 }, normalize_features: true },
    });
    let seen: Float32Array | undefined;
    const prepared = await runCluster(app, jobFor(app, made.body.cluster_id, made.body.last_run_id), {
      clusterer: async (_, event) => {
        const bytes = await app.ports.blobs.get(new URL(event.vectors_url).pathname.slice(1));
        seen = new Float32Array(bytes.slice().buffer);
        // Unit vectors of each feature, times the root of its weight.
        await fakeClusterer(app, event, { 0: [1, 0, 0, 0, 0.5, 0], 1: [0, 1, 0, 0, 0, 0.5] });
      },
    });
    expect(prepared.request).toMatchObject({ rows: 6, dims: 6, metric: 'cosine' });
    expect([...seen!.subarray(0, 6)]).toEqual([1, 0, 0, 0, 0.5, 0]);
    app.ports.clock.advance(1000);
    await seedBatch(app, collection, [
      pair('doc_n1', [0, 9, 0, 0], [0, 9]),
      pair('doc_n2', [1, 0, 0, 0], undefined),
    ]);
    // A change of the definition is for the next full run: the centroids are of the one before.
    const weights = { vector_config: { feature_weights: { [left]: 0.001, [right]: 1 } } };
    expect((await app.call('PATCH', `${base}/pairs`, weights)).status).toBe(200);
    expect(await assign(app, 'pairs', { assignment_threshold: 0.99 })).toMatchObject({
      assignment: { documents: 1, assigned: 1 },
    });
    expect((await fieldsOf(app, collection.id, ['doc_n1']))[0]).toMatchObject({ cluster_id: 'cl_1' });
  });
});

describe('after a batch', () => {
  it('a definition that assigns does so, and runs fully while there is nothing to join', async () => {
    const app = await makeApp();
    const collection = await seedCollection(app);
    const made = await app.call('POST', base, body(collection.id, { auto_mode: 'assign' }));
    expect(made.body).toMatchObject({ auto_mode: 'assign', auto_execute_on_batch: true });
    await runCluster(app, jobFor(app, made.body.cluster_id, made.body.last_run_id));
    const modes = [];
    const batches = [
      axisDocuments({ a: 4, b: 3 }),
      [near('doc_n1', [1, 0, 0, 0])],
      [near('doc_n2', [0, 1, 0, 0])],
    ];
    for (const documents of batches) {
      app.ports.clock.advance(1000);
      const batch = await seedBatch(app, collection, documents);
      const { runs } = await followRuns(app.ctx, batch);
      expect(runs).toHaveLength(1);
      await runCluster(app, runs[0]!, { clusterer: fakeClusterer });
      const run = (await app.call('GET', `${base}/themes/executions/${runs[0]!.run_id}`)).body;
      expect(run).toMatchObject({ status: 'completed', trigger: 'batch', batch_id: batch.batch_id });
      modes.push([run.mode, run.num_points]);
    }
    expect(modes).toEqual([
      ['full', 7],
      ['assign', 8],
      ['assign', 9],
    ]);
    const [n1, n2] = await fieldsOf(app, collection.id, ['doc_n1', 'doc_n2']);
    expect([n1!.cluster_id, n2!.cluster_id]).toEqual(['cl_0', 'cl_1']);
  });
});
