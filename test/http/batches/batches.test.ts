// Batches and tasks over HTTP: trigger, draft, submit, cancel, retry, lists; what is refused and how it is said.
import { describe, expect, it } from 'vitest';
import { eventsOf, jobFor, jobsOf, makeWorld, runBatch } from '../../unit/batches/world.ts';
import { makeApp } from '../app.ts';
import { expectError, expectSameRefusal, faults } from '../expect.ts';

const buckets = '/v1/namespaces/{ns}/buckets';

describe('trigger', () => {
  it('answers 202 with a batch that waits, a task, a job for the starter and an event', async () => {
    const world = await makeWorld();
    const collection = await world.addCollection('articles');
    const reply = await world.call(
      'POST',
      `${buckets}/articles/batches/trigger`,
      { collection_ids: ['articles'] },
      { 'X-Request-Id': 'req-1' },
    );
    expect(reply.status).toBe(202);
    expect(reply.body).toMatchObject({
      status: 'PENDING',
      lifecycle: 'accepted',
      bucket_id: world.bucketId,
      collection_ids: [collection.id],
      attempt: 1,
      request_id: 'req-1',
      progress: { total: 0, processed: 0, failed: 0, skipped: 0 },
    });
    expect(jobsOf(world)).toEqual([await jobFor(world.ctx, world.bucketId, reply.body.batch_id)]);
    expect(eventsOf(world, 'batch.submitted')).toHaveLength(1);
    const task = await world.call('GET', `/v1/tasks/${reply.body.task_id}`);
    expect(task.body).toMatchObject({
      status: 'PENDING',
      task_type: 'api_buckets_batches_process',
      additional_data: { batch_id: reply.body.batch_id },
    });
  });

  it('takes every enabled collection that reads the bucket when none is named', async () => {
    const world = await makeWorld();
    const one = await world.addCollection('one');
    const two = await world.addCollection('two');
    await world.addCollection('off', ['embedder'], { enabled: false });
    const reply = await world.call('POST', `${buckets}/articles/batches/trigger`);
    expect(reply.body.collection_ids).toEqual([one.id, two.id].toSorted());
  });

  it('refuses unknown ids with 404 and a collection that does not read the bucket with 422', async () => {
    const world = await makeWorld();
    await world.addCollection('articles');
    const other = await makeApp();
    const made = await world.call('POST', buckets, {
      name: 'other',
      bucket_schema: { properties: { text: { type: 'text' } } },
    });
    expectError(
      await world.call('POST', `${buckets}/bkt_00000000000000000000/batches/trigger`, {}),
      'bucket_not_found',
    );
    expectError(
      await world.call('POST', `${buckets}/articles/batches/trigger`, {
        collection_ids: ['col_00000000000000000000'],
      }),
      'collection_not_found',
    );
    const mismatch = await world.call('POST', `${buckets}/${made.body.bucket_id}/batches/trigger`, {
      collection_ids: ['articles'],
    });
    expectError(mismatch, 'collection_source_mismatch');
    expect(mismatch.body.error.message).toContain('articles');
    expectError(await world.call('POST', `${buckets}/other/batches/trigger`), 'collection_source_mismatch');
    expect(
      faults(await world.call('POST', `${buckets}/articles/batches/trigger`, { collections: [] })),
    ).toEqual(['body.collections: extra_forbidden']);
    const random = 'bkt_00000000000000000000';
    expectSameRefusal(
      await other.call('POST', `${buckets}/${world.bucketId}/batches/trigger`, {}),
      world.bucketId,
      await other.call('POST', `${buckets}/${random}/batches/trigger`, {}),
      random,
    );
    expectError(
      await world
        .as({ ...world.principal, permissions: ['read'] })
        .call('POST', `${buckets}/articles/batches/trigger`),
      'key_not_permitted',
    );
  });

  it('of a collection makes one batch for each of its buckets', async () => {
    const world = await makeWorld();
    const second = (
      await world.call('POST', buckets, {
        name: 'second',
        bucket_schema: { properties: { text: { type: 'text' } } },
      })
    ).body.bucket_id;
    const collection = await world.addCollection('both', ['embedder'], {
      source: { type: 'bucket', bucket_ids: [world.bucketId, second] },
    });
    const reply = await world.call('POST', '/v1/namespaces/{ns}/collections/both/trigger');
    expect(reply.status).toBe(202);
    expect(reply.body.batch_ids).toHaveLength(2);
    expect(reply.body).toMatchObject({
      collection_id: collection.id,
      source_bucket_ids: [world.bucketId, second],
      total_tiers: 1,
    });
    const one = await world.call('POST', '/v1/namespaces/{ns}/collections/both/trigger', {
      include_buckets: ['second'],
    });
    expect(one.body.batch_ids).toEqual([reply.body.batch_ids[1]]);
  });

  it('counts the objects once, however many collections read them', async () => {
    const world = await makeWorld();
    await world.addCollection('one');
    await world.addCollection('two');
    await world.addObjects(['a', 'b', 'c']);
    const { batch_id } = (await world.call('POST', `${buckets}/articles/batches/trigger`)).body;
    await runBatch(world.ctx, await jobFor(world.ctx, world.bucketId, batch_id));
    expect((await world.call('GET', `${buckets}/articles/batches/${batch_id}`)).body).toMatchObject({
      status: 'COMPLETED',
      object_count: 3,
      progress: { total: 6, processed: 6 },
    });
  });

  it('of the same request at the same moment makes one batch', async () => {
    const world = await makeWorld();
    await world.addCollection('articles');
    const replies = await Promise.all(
      Array.from({ length: 16 }, () => world.call('POST', `${buckets}/articles/batches/trigger`)),
    );
    expect(new Set(replies.map((reply) => reply.body.batch_id)).size).toBe(1);
    expect(jobsOf(world)).toHaveLength(1);
  });
});

describe('draft, add, submit', () => {
  it('runs exactly the chosen objects', async () => {
    const world = await makeWorld();
    await world.addCollection('articles');
    const ids = await world.addObjects(['a', 'b', 'c', 'd']);
    const draft = await world.call('POST', `${buckets}/articles/batches`, {
      object_ids: [ids[0]!],
      batch_name: 'first',
    });
    expect(draft.status).toBe(200);
    expect(draft.body).toMatchObject({
      status: 'DRAFT',
      object_ids: [ids[0]],
      object_count: 1,
      batch_name: 'first',
    });
    const path = `${buckets}/articles/batches/${draft.body.batch_id}`;
    const added = await world.call('POST', `${path}/objects`, { object_ids: [ids[2]!, ids[0]!] });
    expect(added.body.object_ids).toEqual([ids[0], ids[2]]);
    const submitted = await world.call('POST', `${path}/submit`, { include_processing_history: true });
    expect(submitted.body.status).toBe('PENDING');
    expectError(await world.call('POST', `${path}/objects`, { object_ids: [ids[1]!] }), 'batch_wrong_state');
    await runBatch(world.ctx, await jobFor(world.ctx, world.bucketId, draft.body.batch_id));
    expect((await world.call('GET', path)).body).toMatchObject({
      status: 'COMPLETED',
      progress: { total: 2, processed: 2 },
    });
    const documents = await world.call('POST', '/v1/namespaces/{ns}/collections/articles/documents/list', {
      sort: { field: 'text' },
    });
    expect(documents.body.results.map((document: { text: string }) => document.text)).toEqual(['a', 'c']);
    expectError(await world.call('POST', `${path}/submit`), 'batch_wrong_state');
  });

  it('refuses objects that are not in the bucket, naming each', async () => {
    const world = await makeWorld();
    const [id] = await world.addObjects(['a']);
    const reply = await world.call('POST', `${buckets}/articles/batches`, {
      object_ids: [id, 'obj_x', 'obj_y'],
    });
    expectError(reply, 'object_not_found');
    expect(faults(reply)).toEqual(['body.object_ids.1: object_unknown', 'body.object_ids.2: object_unknown']);
    expect(faults(await world.call('POST', `${buckets}/articles/batches`, { object_ids: [] }))).toHaveLength(
      1,
    );
  });

  it('lists an object that was deleted before the batch ran as a failure', async () => {
    const world = await makeWorld();
    await world.addCollection('articles');
    const ids = await world.addObjects(Array.from({ length: 12 }, (_, i) => `text ${i}`));
    const draft = await world.call('POST', `${buckets}/articles/batches`, { object_ids: ids });
    const path = `${buckets}/articles/batches/${draft.body.batch_id}`;
    await world.call('DELETE', `${buckets}/articles/objects/${ids[3]}`);
    await world.call('POST', `${path}/submit`);
    await runBatch(world.ctx, await jobFor(world.ctx, world.bucketId, draft.body.batch_id));
    expect((await world.call('GET', path)).body).toMatchObject({
      status: 'COMPLETED',
      progress: { total: 12, processed: 11, failed: 1 },
      error_summary: { object_not_found: 1 },
    });
    const failures = await world.call('GET', `${path}/failures`);
    expect(failures.body.results).toMatchObject([
      { object_id: ids[3], code: 'object_not_found', error_type: 'permanent' },
    ]);
  });

  it('ends CANCELED when it is cancelled before it ran', async () => {
    const world = await makeWorld();
    const [id] = await world.addObjects(['a']);
    const draft = await world.call('POST', `${buckets}/articles/batches`, { object_ids: [id!] });
    const path = `${buckets}/articles/batches/${draft.body.batch_id}`;
    const canceled = await world.call('POST', `${path}/cancel`, { reason: 'a mistake' });
    expect(canceled.body).toMatchObject({
      status: 'CANCELED',
      failure_reason: 'canceled',
      object_count: 1,
      progress: { total: 1, processed: 0 },
    });
    expect((await world.call('GET', path)).body).toEqual(canceled.body);
    expectError(await world.call('POST', `${path}/cancel`), 'batch_wrong_state');
  });
});

describe('lists and single reads', () => {
  it('show the newest first, by status and by collection', async () => {
    const world = await makeWorld();
    const collection = await world.addCollection('articles');
    const first = (await world.call('POST', `${buckets}/articles/batches/trigger`)).body.batch_id;
    await runBatch(world.ctx, await jobFor(world.ctx, world.bucketId, first));
    world.ports.clock.advance(1_000);
    const second = (await world.call('POST', `${buckets}/articles/batches/trigger`)).body.batch_id;
    const all = await world.call('GET', `${buckets}/articles/batches`);
    expect(all.body.results.map((batch: { batch_id: string }) => batch.batch_id)).toEqual([second, first]);
    const pending = await world.call('POST', `${buckets}/articles/batches/list`, {
      status: 'PENDING',
      collection_id: collection.id,
    });
    expect(pending.body.results.map((batch: { batch_id: string }) => batch.batch_id)).toEqual([second]);
    const tasks = await world.call('POST', '/v1/tasks/list', { status: 'COMPLETED' });
    expect(tasks.body.results).toHaveLength(1);
    expect((await world.call('GET', '/v1/tasks')).body.total_count).toBe(2);
  });

  it('answer 404 for what is not there or is another’s', async () => {
    const world = await makeWorld();
    await world.addCollection('articles');
    const { batch_id, task_id } = (await world.call('POST', `${buckets}/articles/batches/trigger`)).body;
    const other = await makeApp();
    expectError(
      await world.call('GET', `${buckets}/articles/batches/btch_00000000000000000000`),
      'batch_not_found',
    );
    expectError(
      await other.call('GET', `${buckets}/${world.bucketId}/batches/${batch_id}`),
      'bucket_not_found',
    );
    const random = 'task_00000000000000000000';
    expectSameRefusal(
      await other.call('GET', `/v1/tasks/${task_id}`),
      task_id,
      await other.call('GET', `/v1/tasks/${random}`),
      random,
    );
    const narrowed = world.as({ ...world.principal, namespaceIds: ['ns_00000000000000000000'] });
    expectError(await narrowed.call('GET', `/v1/tasks/${task_id}`), 'task_not_found');
    expect((await narrowed.call('GET', '/v1/tasks')).body.total_count).toBe(0);
  });
});

describe('retry', () => {
  it('is for failed batches only', async () => {
    const world = await makeWorld();
    await world.addCollection('articles');
    await world.addObjects(['a']);
    const { batch_id } = (await world.call('POST', `${buckets}/articles/batches/trigger`)).body;
    const path = `${buckets}/articles/batches/${batch_id}`;
    expectError(await world.call('POST', `${path}/retry`), 'batch_wrong_state');
    await runBatch(world.ctx, await jobFor(world.ctx, world.bucketId, batch_id));
    expectError(await world.call('POST', `${path}/retry`), 'batch_wrong_state');
  });

  it('of a completed batch runs the failed objects alone, as they are now, in a batch of their own', async () => {
    const world = await makeWorld();
    const collection = await world.addCollection('articles');
    const ids = await world.addObjects(Array.from({ length: 20 }, (_, i) => `text ${i}`));
    const isBad = (text: string) => text === 'text 4' || text === 'text 9';
    world.runner.behave = (row) => (isBad(row.data) ? { fail: 'plugin_row_failed' } : {});
    const { batch_id } = (await world.call('POST', `${buckets}/articles/batches/trigger`)).body;
    await runBatch(world.ctx, await jobFor(world.ctx, world.bucketId, batch_id));
    const path = `${buckets}/articles/batches/${batch_id}`;
    const before = (await world.call('GET', path)).body;
    expect(before).toMatchObject({ status: 'COMPLETED', progress: { failed: 2 } });
    // One of them is repaired; the other one fails again, which its batch tolerates, as the first one did.
    await world.rewriteObject(ids[9]!, 'repaired');
    const retried = await world.call('POST', `${path}/retry`);
    expect(retried.body).toMatchObject({
      status: 'PENDING',
      retry_of: batch_id,
      object_count: 2,
      collection_ids: [collection.id],
      max_failure_share: 1,
    });
    const again = await Promise.all(Array.from({ length: 4 }, () => world.call('POST', `${path}/retry`)));
    expect(new Set(again.map((reply) => reply.body.batch_id))).toEqual(new Set([retried.body.batch_id]));
    world.runner.calls.length = 0;
    await runBatch(world.ctx, await jobFor(world.ctx, world.bucketId, retried.body.batch_id));
    expect(world.runner.calls.flatMap((call) => call.rows.map((row) => row.data))).toEqual([
      'text 4',
      'repaired',
    ]);
    expect(
      (await world.call('GET', `${buckets}/articles/batches/${retried.body.batch_id}`)).body,
    ).toMatchObject({ status: 'COMPLETED', progress: { total: 2, processed: 1, failed: 1 } });
    const documents = await world.call('POST', '/v1/namespaces/{ns}/collections/articles/documents/list', {
      limit: 100,
    });
    expect(documents.body.total_count).toBe(19);
    // The first batch is what it was, and can be retried again: what is done by now is left out.
    expect((await world.call('GET', path)).body).toEqual(before);
    world.runner.behave = () => ({});
    world.runner.calls.length = 0;
    const third = await world.call('POST', `${path}/retry`);
    expect(third.body.batch_id).not.toBe(retried.body.batch_id);
    await runBatch(world.ctx, await jobFor(world.ctx, world.bucketId, third.body.batch_id));
    expect(world.runner.calls.flatMap((call) => call.rows.map((row) => row.data))).toEqual(['text 4']);
  });

  it('of a completed batch refuses where nothing of what failed can pass: deleted objects, or none transient', async () => {
    const world = await makeWorld();
    await world.addCollection('articles');
    const ids = await world.addObjects(Array.from({ length: 20 }, (_, i) => `text ${i}`));
    world.runner.behave = (row) => (row.data === 'text 3' ? { fail: 'plugin_row_failed' } : {});
    const draft = await world.call('POST', `${buckets}/articles/batches`, { object_ids: ids });
    await world.call('DELETE', `${buckets}/articles/objects/${ids[7]}`);
    const path = `${buckets}/articles/batches/${draft.body.batch_id}`;
    await world.call('POST', `${path}/submit`);
    await runBatch(world.ctx, await jobFor(world.ctx, world.bucketId, draft.body.batch_id));
    expectError(
      await world.call('POST', `${path}/retry`, { retry_mode: 'transient_only' }),
      'batch_wrong_state',
    );
    expect((await world.call('POST', `${path}/retry`)).body).toMatchObject({ object_count: 1 });
  });

  it('in the mode transient_only leaves failed for good what cannot pass', async () => {
    const world = await makeWorld();
    await world.addCollection('articles');
    await world.addObjects(['good', 'never', 'later']);
    world.runner.behave = (row) =>
      row.data === 'never'
        ? { fail: 'plugin_row_failed' }
        : row.data === 'later'
          ? { fail: 'plugin_timeout', retryable: true }
          : {};
    const { batch_id } = (await world.call('POST', `${buckets}/articles/batches/trigger`)).body;
    await runBatch(world.ctx, await jobFor(world.ctx, world.bucketId, batch_id));
    world.runner.behave = () => ({});
    world.runner.calls.length = 0;
    const path = `${buckets}/articles/batches/${batch_id}`;
    await world.call('POST', `${path}/retry`, { retry_mode: 'transient_only', max_failure_share: 0.5 });
    await runBatch(world.ctx, await jobFor(world.ctx, world.bucketId, batch_id));
    expect((await world.call('GET', path)).body).toMatchObject({
      status: 'COMPLETED',
      progress: { total: 3, processed: 2, failed: 1 },
    });
    expect(world.runner.calls.flatMap((call) => call.rows.map((row) => row.data))).toEqual(['later']);
  });
});
