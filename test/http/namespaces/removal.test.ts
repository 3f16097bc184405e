// What deleting a namespace removes: everything of it, in bounded turns, and nothing of anybody else.
import { describe, expect, it } from 'vitest';
import { setCrashHook } from '../../../functions/core/crash.ts';
import { evaluateAlerts } from '../../../functions/core/resources/alerts/workflow.ts';
import type { NamespaceJob } from '../../../functions/core/resources/namespaces/workflow.ts';
import { objectPrefixes, removeNamespace } from '../../../functions/core/resources/namespaces/workflow.ts';
import type { App } from '../app.ts';
import { makeApp } from '../app.ts';
import { jobFor, runCluster } from '../clusters/run.ts';
import { axisDocuments, featureUri, seedBatch, seedCollection } from '../clusters/seed.ts';

/** A namespace with rows and objects of every kind. */
async function filled(ports?: App['ports']): Promise<App> {
  const app = await makeApp(ports ? { ports } : {});
  const collection = await seedCollection(app);
  const batch = await seedBatch(app, collection, axisDocuments({ a: 4, b: 3 }));
  const object = await app.call(
    'POST',
    `/v1/namespaces/{ns}/buckets/${collection.source.bucket_ids[0]}/objects`,
    { blobs: [{ property: 'text', type: 'text', data: 'x'.repeat(70_000) }] },
  );
  expect(object.status).toBe(200);
  const trigger = await app.call(
    'POST',
    `/v1/namespaces/{ns}/buckets/${collection.source.bucket_ids[0]}/batches/trigger`,
    {},
  );
  expect(trigger.status).toBe(202);
  const cluster = await app.call('POST', '/v1/namespaces/{ns}/clusters', {
    cluster_name: 'themes',
    collection_id: collection.id,
    feature_uri: featureUri,
    algorithm: { name: 'hdbscan', params: { min_cluster_size: 3 } },
  });
  await runCluster(app, jobFor(app, cluster.body.cluster_id, cluster.body.last_run_id));
  const alert = await app.call('POST', '/v1/namespaces/{ns}/alerts', {
    alert_name: 'all',
    collection_id: collection.id,
    condition: { field: 'topic', operator: 'exists' },
    notification: { type: 'webhook', url: 'https://example.com/' },
  });
  expect(alert.status).toBe(200);
  await evaluateAlerts(app.ctx, batch);
  expect(
    (
      await app.call('POST', '/v1/namespaces/{ns}/webhooks', {
        webhook_name: 'w',
        url: 'https://example.com/',
        events: ['batch.completed'],
      })
    ).status,
  ).toBe(201);
  await app.ports.archives.put(`plugins/${app.namespace}/abc.zip`, 'zip');
  await app.ports.archives.put(`uploads/${app.namespace}/upl.zip`, 'zip');
  return app;
}

const jobOf = (app: App): NamespaceJob => ({
  kind: 'namespace_delete',
  org_id: app.principal.orgId,
  namespace_id: app.namespace,
  request_id: 'r',
});

/** Rows that belong to a namespace: by their partition, or as its tasks. Outbox and audit are the organisation's. */
function rowsOf(app: App) {
  return app.ports.table.dump().filter(({ pk, namespace_id: ns, sk }) => {
    if (pk.startsWith('OUTBOX#') || pk.startsWith('AUD#') || pk.startsWith('RATE#') || pk.startsWith('IDEM#'))
      return false;
    return (
      pk.startsWith(`NS#${app.namespace}`) ||
      (sk.startsWith('TASK#') && ns === app.namespace) ||
      pk.startsWith('BTCH#')
    );
  });
}

async function keysOf(app: App): Promise<string[]> {
  const stores = [app.ports.blobs, app.ports.archives, app.ports.index];
  const lists = await Promise.all(stores.map((store) => store.list('')));
  return lists
    .flatMap(({ blobs }) => blobs.map((blob) => blob.key))
    .filter((key) => key.includes(app.namespace));
}

async function removeAll(app: App, itemsPerTurn?: number): Promise<number> {
  for (let turn = 1; ; turn++) {
    const { done } = await removeNamespace(
      app.ctx,
      jobOf(app),
      itemsPerTurn === undefined ? {} : { itemsPerTurn },
    );
    if (done) return turn;
    if (turn > 2_000) throw new Error('the removal does not end');
  }
}

describe('the removal of a namespace', () => {
  it('leaves no row and no object of it, and everything of its neighbour in the same stores', async () => {
    const app = await filled();
    const neighbour = await filled(app.ports);
    const before = {
      rows: rowsOf(neighbour).filter((row) => !row.pk.startsWith('BTCH#')),
      keys: await keysOf(neighbour),
    };
    expect((await app.call('DELETE', `/v1/namespaces/${app.namespace}`)).status).toBe(200);
    expect((await app.call('GET', `/v1/namespaces/${app.namespace}`)).status).toBe(404);
    expect((await keysOf(app)).length).toBeGreaterThan(5);
    await removeAll(app);
    expect(rowsOf(app).filter((row) => !row.pk.startsWith('BTCH#'))).toEqual([]);
    expect(await keysOf(app)).toEqual([]);
    // Receipts name their batch only; one batch's are left, and that is the neighbour's.
    expect(rowsOf(neighbour).filter((row) => row.pk.startsWith('BTCH#'))).toHaveLength(1);
    expect(rowsOf(neighbour).filter((row) => !row.pk.startsWith('BTCH#'))).toEqual(before.rows);
    expect(await keysOf(neighbour)).toEqual(before.keys);
    expect((await neighbour.call('GET', '/v1/namespaces/{ns}/clusters')).body.total).toBe(1);
  });

  it('knows every prefix under which its stores hold objects', async () => {
    const app = await filled();
    const stray = (await keysOf(app)).filter(
      (key) =>
        ![...objectPrefixes.blobs, ...objectPrefixes.archives, ...objectPrefixes.index].some((prefix) =>
          key.startsWith(`${prefix}${app.namespace}/`),
        ),
    );
    expect(stray).toEqual([]);
  });

  it('goes on in small turns, each bounded, until nothing is left, also of receipts', async () => {
    const app = await filled();
    await app.call('DELETE', `/v1/namespaces/${app.namespace}`);
    expect(await removeAll(app, 3)).toBeGreaterThan(10);
    expect(rowsOf(app)).toEqual([]);
    expect(await keysOf(app)).toEqual([]);
  });

  it('stops the batches that wait or run before it takes their rows', async () => {
    const app = await filled();
    await app.call('DELETE', `/v1/namespaces/${app.namespace}`);
    await removeNamespace(app.ctx, jobOf(app), { itemsPerTurn: 1 });
    const batches = app.ports.table
      .dump()
      .filter((row) => row.sk.startsWith('BTCH#') && row.status !== 'COMPLETED');
    expect(batches.map((row) => [row.status, row.failure_reason])).toEqual([['FAILED', 'canceled']]);
  });

  it('dies at any crash point and ends the same when it is repeated', async () => {
    for (const point of ['namespace.delete.after_rows', 'namespace.delete.after_objects']) {
      const app = await filled();
      await app.call('DELETE', `/v1/namespaces/${app.namespace}`);
      setCrashHook((name) => {
        if (name === point) throw new Error('died');
      });
      try {
        await expect(removeAll(app)).rejects.toThrow('died');
      } finally {
        setCrashHook(undefined);
      }
      await removeAll(app);
      expect(rowsOf(app)).toEqual([]);
      expect(await keysOf(app)).toEqual([]);
    }
  });

  it('keeps a tombstone, takes what late workers wrote an hour afterwards, and then leaves the sweeper alone', async () => {
    const app = await filled();
    const collectionId = (await app.call('GET', '/v1/namespaces/{ns}/collections')).body.results[0]
      .collection_id;
    await app.call('DELETE', `/v1/namespaces/${app.namespace}`);
    await removeAll(app);
    const tombstone = async () => (await app.ports.table.get(app.ctx.org.namespace(app.namespace)))!;
    expect(await tombstone()).toMatchObject({
      state: 'deleting',
      deleted_at: expect.any(String),
      watch_job: JSON.stringify(jobOf(app)),
    });
    await app.ports.table.write([
      { put: { ...app.ctx.ns.document(collectionId, 'late'), document_id: 'late' } },
    ]);
    await app.ports.index.put(`${app.namespace}/${collectionId}/seg/late.vseg`, 'late');
    app.ports.clock.advance(3_600_001);
    await removeAll(app);
    expect(rowsOf(app)).toEqual([]);
    expect(await keysOf(app)).toEqual([]);
    expect(await tombstone()).not.toHaveProperty('watch_job');
    expect((await app.call('GET', '/v1/namespaces')).body.total).toBe(0);
    expect((await app.call('GET', '/v1/namespaces/{ns}/buckets')).status).toBe(404);
  });

  it('does nothing to a namespace that nobody deleted', async () => {
    const app = await filled();
    const before = app.ports.table.dump();
    expect(await removeNamespace(app.ctx, jobOf(app))).toEqual({ done: true, removed: 0 });
    expect(app.ports.table.dump()).toEqual(before);
  });
});
