// What can be done with a run: name it and its clusters, cancel it, export it, tell documents once more, take it back.
import { describe, expect, it } from 'vitest';
import { commitRun } from '../../../functions/core/resources/clusters/workflow.ts';
import { getDocuments } from '../../../functions/core/resources/documents/service.ts';
import type { App } from '../app.ts';
import { makeApp } from '../app.ts';
import { expectError } from '../expect.ts';
import { events, jobFor, runCluster } from './run.ts';
import { axisDocuments, featureUri, seedBatch, seedCollection } from './seed.ts';

const base = '/v1/namespaces/{ns}/clusters';
const noClusterer = () => Promise.reject(new Error('this run needs no clusterer'));

async function completed(more: object = {}, groups: Record<string, number> = { a: 4, b: 3, c: 1 }) {
  const app = await makeApp();
  const collection = await seedCollection(app);
  await seedBatch(app, collection, axisDocuments(groups));
  const made = await app.call('POST', base, {
    cluster_name: 'themes',
    collection_id: collection.id,
    feature_uri: featureUri,
    algorithm: { name: 'hdbscan', params: { min_cluster_size: 3 } },
    ...more,
  });
  expect(made.status, JSON.stringify(made.body)).toBe(200);
  await runCluster(app, jobFor(app, made.body.cluster_id, made.body.last_run_id));
  app.ports.clock.advance(1000);
  return { app, collection, cluster: made.body.cluster_id as string, run: made.body.last_run_id as string };
}

async function again(app: App, request: object = {}) {
  const started = await app.call('POST', `${base}/themes/execute`, request);
  await runCluster(app, jobFor(app, started.body.cluster_id, started.body.run_id));
  app.ports.clock.advance(1000);
  return (await app.call('GET', `${base}/themes/executions/${started.body.run_id}`)).body;
}

async function enrich(app: App, request?: object) {
  const started = await app.call('POST', `${base}/themes/enrich`, request);
  expect(started.status, JSON.stringify(started.body)).toBe(200);
  await runCluster(app, jobFor(app, started.body.cluster_id, started.body.run_id), {
    clusterer: noClusterer,
  });
  app.ports.clock.advance(1000);
  return (await app.call('GET', `${base}/themes/executions/${started.body.run_id}`)).body;
}

async function fieldsOf(app: App, collectionId: string, ids: readonly string[]) {
  const refs = ids.map((document_id) => ({ collection_id: collectionId, document_id }));
  return (await getDocuments(app.ctx, refs)).map((document) => document?.fields);
}

const labels = (run: { centroids: { label: string; label_source: string }[] }) =>
  run.centroids.map((centroid) => [centroid.label, centroid.label_source]);

describe('names by users', () => {
  it('count before all others, in this run and in those that follow, and null takes them away', async () => {
    const { app, collection, run } = await completed();
    const path = `${base}/themes/executions/${run}/labels`;
    const patched = await app.call('PATCH', path, { labels: { cl_0: 'Physics' } });
    expect(patched.status).toBe(200);
    expect(patched.body).toMatchObject({
      label_overrides: { cl_0: 'Physics' },
      warnings: [expect.stringContaining('after the next run')],
    });
    expect(labels(patched.body)).toEqual([
      ['Physics', 'user'],
      ['referee, league', 'ctfidf'],
    ]);
    expect((await app.call('GET', `${base}/themes/groups`)).body.groups[0].label).toBe('Physics');
    expect((await app.call('GET', `${base}/themes/visualization`)).body.points[0].label).toBe('Physics');
    expect((await fieldsOf(app, collection.id, ['doc_a0']))[0]).toMatchObject({
      cluster_label: 'quantum, entangled',
    });
    const next = await again(app);
    expect(next.label_overrides).toEqual({ cl_0: 'Physics' });
    expect(labels(next)[0]).toEqual(['Physics', 'user']);
    expect((await fieldsOf(app, collection.id, ['doc_a0']))[0]).toMatchObject({ cluster_label: 'Physics' });
    await app.call('PATCH', `${base}/themes/executions/${next.run_id}/labels`, { labels: { cl_0: null } });
    expect(labels(await again(app))[0]).toEqual(['quantum, entangled', 'ctfidf']);
  });

  it('go with a cluster that is gone, so that the next one of its number does not bear them', async () => {
    const { app, run } = await completed();
    await app.call('PATCH', `${base}/themes/executions/${run}/labels`, { labels: { cl_1: 'Games' } });
    const only = { field: 'topic', operator: 'eq', value: 'a' };
    expect((await again(app, { filters: only })).label_overrides).toEqual({});
    expect((await again(app)).label_overrides).toEqual({});
  });

  it('of clusters that are not there, twice the same, or of a run without result are refused', async () => {
    const { app, run } = await completed();
    const path = `${base}/themes/executions/${run}/labels`;
    const wrong = await app.call('PATCH', path, { labels: { cl_7: 'x', cl_0: 'same', cl_1: 'same' } });
    expectError(wrong, 'request_invalid');
    expect(
      wrong.body.error.details.validation_errors.map((e: { location: string[] }) => e.location.at(-1)),
    ).toEqual(['cl_7', 'cl_0', 'cl_1']);
    expectError(await app.call('PATCH', path, { labels: {} }), 'request_invalid');
    expectError(await app.call('PATCH', path, { labels: { noise: 'x' } }), 'request_invalid');
    const pending = await app.call('POST', `${base}/themes/execute`);
    expectError(
      await app.call('PATCH', `${base}/themes/executions/${pending.body.run_id}/labels`, {
        labels: { cl_0: 'x' },
      }),
      'cluster_run_wrong_state',
    );
  });

  it('given at the same moment by several are all kept', async () => {
    const { app, run } = await completed();
    const path = `${base}/themes/executions/${run}/labels`;
    const replies = await Promise.all([
      app.call('PATCH', path, { labels: { cl_0: 'One' } }),
      app.call('PATCH', path, { labels: { cl_1: 'Two' } }),
    ]);
    expect(replies.map((reply) => reply.status)).toEqual([200, 200]);
    expect((await again(app)).label_overrides).toEqual({ cl_0: 'One', cl_1: 'Two' });
  });

  it('a run has a name of its own, whatever its state', async () => {
    const { app, run } = await completed();
    const named = await app.call('PATCH', `${base}/themes/executions/${run}/name`, { run_name: ' first ' });
    expect(named.body).toMatchObject({
      run_name: 'first',
      centroids: [expect.anything(), expect.anything()],
    });
    const list = await app.call('POST', `${base}/themes/executions/list`, {
      filters: { field: 'run_name', operator: 'eq', value: 'first' },
    });
    expect(list.body.total).toBe(1);
    expectError(
      await app.call('PATCH', `${base}/themes/executions/run_00000000000000000000/name`, { run_name: 'x' }),
      'cluster_run_not_found',
    );
    expectError(
      await app.call('PATCH', `${base}/themes/executions/${run}/name`, { run_name: '' }),
      'request_invalid',
    );
  });
});

describe('cancel', () => {
  it('ends a run that goes on: it is failed by cancellation, changes nothing any more, and stays so', async () => {
    const { app, collection, cluster } = await completed();
    await seedBatch(app, collection, axisDocuments({ a: 1, b: 1, c: 5 }));
    const started = await app.call('POST', `${base}/themes/execute`);
    const path = `${base}/themes/executions/${started.body.run_id}`;
    const job = jobFor(app, cluster, started.body.run_id);
    await runCluster(app, job, {
      clusterer: async (_, event) => {
        const { fakeClusterer } = await import('./run.ts');
        await fakeClusterer(app, event);
        const cancelled = await app.call('POST', `${path}/cancel`);
        expect(cancelled.body).toMatchObject({
          status: 'failed',
          failure_reason: 'canceled',
          error_message: 'The run was cancelled.',
        });
      },
    });
    await commitRun(app.ctx, job, null, false);
    expect((await app.call('GET', path)).body).toMatchObject({
      status: 'failed',
      num_points: 0,
      centroids: null,
    });
    expect((await fieldsOf(app, collection.id, ['doc_c0']))[0]).not.toHaveProperty('cluster_id');
    expect((await app.call('POST', `${path}/cancel`)).status).toBe(200);
    expect(events(app, 'cluster.execution.failed')).toHaveLength(1);
    expect((await app.call('GET', `/v1/tasks/${started.body.task_id}`)).body.status).toBe('FAILED');
  });

  it('of a run that has ended is refused', async () => {
    const { app, run } = await completed();
    expectError(await app.call('POST', `${base}/themes/executions/${run}/cancel`), 'cluster_run_wrong_state');
    expectError(
      await app.call('POST', `${base}/themes/executions/run_00000000000000000000/cancel`),
      'cluster_run_not_found',
    );
  });
});

describe('export', () => {
  const file = async (app: App, url: string) =>
    Buffer.from(await app.ports.blobs.get(decodeURIComponent(new URL(url).pathname.slice(1)))).toString(
      'utf8',
    );

  it('has a line for each document, in each format, or those of one group', async () => {
    const { app, collection, run } = await completed();
    const get = async (query: string) => {
      const reply = await app.call('GET', `${base}/themes/executions/${run}/export?${query}`);
      expect(reply.status, JSON.stringify(reply.body)).toBe(200);
      return { ...reply.body, text: await file(app, reply.body.download_url) };
    };
    const lines = await get('format=jsonl');
    expect(lines).toMatchObject({ document_count: 8, format: 'jsonl', cluster_label: null });
    expect(lines.file_size_bytes).toBe(Buffer.byteLength(lines.text));
    const rows = lines.text
      .trim()
      .split('\n')
      .map((line: string) => JSON.parse(line));
    expect(rows[0]).toEqual({
      document_id: 'doc_a0',
      collection_id: collection.id,
      cluster_id: 'cl_0',
      cluster_label: 'quantum, entangled',
      probability: 0.9,
      x: 0,
      y: 0,
    });
    expect(rows.at(-1)).toMatchObject({ cluster_id: 'noise', cluster_label: null });
    const json = await get('format=json');
    expect(JSON.parse(json.text)).toEqual(rows);
    const csv = await get('format=csv');
    expect(csv.text.split('\r\n').slice(0, 2)).toEqual([
      'document_id,collection_id,cluster_id,cluster_label,probability,x,y,z',
      `doc_a0,${collection.id},cl_0,"quantum, entangled",0.9,0,0,`,
    ]);
    for (const label of ['referee, league', 'cl_1'])
      expect(await get(`cluster_label=${encodeURIComponent(label)}`)).toMatchObject({ document_count: 3 });
    expect(await get('cluster_label=noise')).toMatchObject({ document_count: 1 });
  });

  it('makes formulas in csv harmless, refuses a label that no group has, and a run without result', async () => {
    const { app, run } = await completed();
    const path = `${base}/themes/executions/${run}`;
    const names = ['=1+1', '+1', '-1', '@x'];
    for (const name of names) {
      await app.call('PATCH', `${path}/labels`, { labels: { cl_0: name } });
      const reply = await app.call('GET', `${path}/export?format=csv&cluster_label=cl_0`);
      const [, line] = (await file(app, reply.body.download_url)).split('\r\n');
      expect(line!.split(',')[3]).toBe(`'${name}`);
    }
    expectError(await app.call('GET', `${path}/export?cluster_label=nothing`), 'request_invalid');
    expectError(await app.call('GET', `${path}/export?format=xml`), 'request_invalid');
    const pending = await app.call('POST', `${base}/themes/execute`);
    expectError(
      await app.call('GET', `${base}/themes/executions/${pending.body.run_id}/export`),
      'cluster_run_not_found',
    );
  });
});

describe('what documents are told', () => {
  it('is in the fields that the definition names, and old fields go when it names others', async () => {
    const mappings = (targets: Record<string, string>) => ({
      source_enrichment_config: {
        field_mappings: Object.entries(targets).map(([target_field, source_field]) => ({
          source_field,
          target_field,
        })),
      },
    });
    const { app, collection, run } = await completed(
      mappings({
        theme: 'label',
        theme_id: 'cluster_id',
        theme_words: 'keywords',
        theme_score: 'probability',
        theme_run: 'run_id',
      }),
    );
    const [told, loose] = await fieldsOf(app, collection.id, ['doc_a0', 'doc_c0']);
    expect(told).toMatchObject({
      theme: 'quantum, entangled',
      theme_id: 'cl_0',
      theme_words: ['quantum', 'entangled', 'qubits'],
      theme_score: 0.9,
      theme_run: run,
    });
    expect(told).not.toHaveProperty('cluster_id');
    expect(loose).not.toHaveProperty('theme');
    await app.call('PATCH', `${base}/themes`, mappings({ theme: 'cluster_id' }));
    await again(app);
    const [after] = await fieldsOf(app, collection.id, ['doc_a0']);
    expect(after).toMatchObject({ theme: 'cl_0' });
    for (const gone of ['theme_id', 'theme_words', 'theme_score', 'theme_run'])
      expect(after).not.toHaveProperty(gone);
  });

  it.each([
    [{ source_field: 'nothing', target_field: 'a' }, 'source_field'],
    [{ source_field: 'label', target_field: 'document_id' }, 'target_field'],
    [{ source_field: 'label', target_field: '_x' }, 'target_field'],
    [{ source_field: 'label', target_field: 'a.b' }, 'target_field'],
  ])('%j is refused', async (mapping, at) => {
    const app = await makeApp();
    const collection = await seedCollection(app);
    const refused = await app.call('POST', base, {
      collection_id: collection.id,
      feature_uri: featureUri,
      algorithm: { name: 'hdbscan' },
      source_enrichment_config: { field_mappings: [mapping] },
    });
    expectError(refused, 'request_invalid');
    expect(refused.body.error.details.validation_errors[0].location.at(-1)).toBe(at);
  });

  it('can be told once more, of any run and in other fields, and taken away; the groups stay what they are', async () => {
    const { app, collection, run } = await completed({ enrich_source_collection: false });
    expect((await fieldsOf(app, collection.id, ['doc_a0']))[0]).not.toHaveProperty('cluster_id');
    const second = await again(app, { filters: { field: 'topic', operator: 'eq', value: 'a' } });
    const told = await enrich(app, { run_id: run });
    expect(told).toMatchObject({
      status: 'completed',
      mode: 'enrich',
      trigger: 'enrich',
      base_run_id: run,
      num_clusters: 2,
      message: `The documents say the clusters of the run ${run}.`,
    });
    let [a0, b0] = await fieldsOf(app, collection.id, ['doc_a0', 'doc_b0']);
    expect([a0!.cluster_id, b0!.cluster_id]).toEqual(['cl_0', 'cl_1']);
    // What is shown is still the newest result.
    expect((await app.call('GET', `${base}/themes/groups`)).body.run_id).toBe(second.run_id);
    const other = { field_mappings: [{ source_field: 'label', target_field: 'theme' }] };
    await enrich(app, { source_enrichment_config: other });
    [a0, b0] = await fieldsOf(app, collection.id, ['doc_a0', 'doc_b0']);
    expect(a0).toMatchObject({ theme: 'quantum, entangled' });
    expect(a0).not.toHaveProperty('cluster_id');
    for (const gone of ['theme', 'cluster_id', 'cluster_label']) expect(b0).not.toHaveProperty(gone);
    expect(await enrich(app, { remove: true })).toMatchObject({
      mode: 'remove',
      base_run_id: null,
      status: 'completed',
    });
    [a0] = await fieldsOf(app, collection.id, ['doc_a0']);
    expect(a0).not.toHaveProperty('theme');
    expect(a0).toHaveProperty('text');
    expectError(
      await app.call('POST', `${base}/themes/enrich`, { run_id: told.run_id }),
      'cluster_run_not_found',
    );
    expectError(
      await app.call('POST', `${base}/themes/enrich`, { run_id: 'run_x' }),
      'cluster_run_not_found',
    );
  });

  it('brings a name that a user gave to the documents without another run', async () => {
    const { app, collection, run } = await completed();
    await app.call('PATCH', `${base}/themes/executions/${run}/labels`, { labels: { cl_0: 'Physics' } });
    await enrich(app);
    expect(
      (await fieldsOf(app, collection.id, ['doc_a0', 'doc_b0'])).map((fields) => fields!.cluster_label),
    ).toEqual(['Physics', 'referee, league']);
  });

  it('brings a name that was given to the full run, also where documents joined its groups since', async () => {
    const { app, collection, run } = await completed();
    const joined = await again(app, { mode: 'assign' });
    expect(joined.base_run_id).toBe(run);
    await app.call('PATCH', `${base}/themes/executions/${run}/labels`, { labels: { cl_0: 'Physics' } });
    const after = (await app.call('GET', `${base}/themes/executions/${joined.run_id}`)).body;
    expect(after.label_overrides).toEqual({ cl_0: 'Physics' });
    await enrich(app);
    const [fields] = await fieldsOf(app, collection.id, ['doc_a0']);
    expect(fields!.cluster_label).toBe('Physics');
    // And the other way round: the name goes from both.
    await app.call('PATCH', `${base}/themes/executions/${run}/labels`, { labels: { cl_0: null } });
    expect(
      (await app.call('GET', `${base}/themes/executions/${joined.run_id}`)).body.label_overrides,
    ).toEqual({});
  });

  it('goes with the definition if that is asked for, but for what others have said since', async () => {
    const { app, collection } = await completed();
    const path = `/v1/namespaces/{ns}/collections/${collection.id}/documents/doc_a1`;
    await app.call('PATCH', path, { cluster_id: 'mine', cluster_label: 'by hand' });
    expect((await app.call('DELETE', `${base}/themes?remove_enrichments=true`)).status).toBe(200);
    const [a0, a1] = await fieldsOf(app, collection.id, ['doc_a0', 'doc_a1']);
    expect(a0).not.toHaveProperty('cluster_id');
    expect(a0).not.toHaveProperty('cluster_label');
    expect(a1).toMatchObject({ cluster_id: 'mine', cluster_label: 'by hand' });
    const filtered = await app.call(
      'POST',
      `/v1/namespaces/{ns}/collections/${collection.id}/documents/list`,
      {
        filters: { field: 'cluster_id', operator: 'exists', value: true },
      },
    );
    expect(filtered.body.total).toBe(1);
    expect((await app.call('GET', `${base}/themes`)).status).toBe(404);
  });

  it('stays when a definition is deleted as before', async () => {
    const { app, collection } = await completed();
    await app.call('DELETE', `${base}/themes`);
    expect((await fieldsOf(app, collection.id, ['doc_a0']))[0]).toHaveProperty('cluster_id', 'cl_0');
  });

  it('of too many documents is not taken away while a request waits', async () => {
    const { app, cluster, run } = await completed();
    await app.ports.table.write([
      { update: app.ctx.ns.child('CLUSTER', cluster, 'RUN', run), set: { num_points: 20_001 } },
    ]);
    expectError(
      await app.call('DELETE', `${base}/themes?remove_enrichments=true`),
      'cluster_too_many_documents',
    );
    expect((await app.call('GET', `${base}/themes`)).status).toBe(200);
  });
});

describe('groups', () => {
  it('give their members page by page, and one group alone', async () => {
    const { app } = await completed();
    const page = async (query: string) => {
      const { groups } = (await app.call('GET', `${base}/themes/groups?${query}`)).body;
      return groups.map((g: { cluster_id: string; members: { document_id: string }[] }) => [
        g.cluster_id,
        g.members.map((m) => m.document_id),
      ]);
    };
    expect(await page('cluster_id=cl_0&members_limit=3')).toEqual([['cl_0', ['doc_a0', 'doc_a1', 'doc_a2']]]);
    expect(await page('cluster_id=cl_0&members_limit=3&members_offset=3')).toEqual([['cl_0', ['doc_a3']]]);
    expect(await page('cluster_id=noise')).toEqual([['noise', ['doc_c0']]]);
    expect(await page('cluster_id=cl_9')).toEqual([]);
    expect(await page('members_limit=0')).toEqual([
      ['cl_0', []],
      ['cl_1', []],
      ['noise', []],
    ]);
  });
});
