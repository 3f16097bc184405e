// What batches, failures and deletions leave behind, and that it goes away without anything that is still needed.
import { describe, expect, it } from 'vitest';
import { workflowContext } from '../../../functions/core/context.ts';
import { triggerBucket } from '../../../functions/core/resources/batches/service.ts';
import type { BatchEvent } from '../../../functions/core/resources/batches/steps.ts';
import { batchStep, chunkStep, postProcessingOf } from '../../../functions/core/resources/batches/steps.ts';
import { admitBatch } from '../../../functions/core/resources/batches/workflow.ts';
import {
  clearAborted,
  getDocuments,
  patchDocument,
} from '../../../functions/core/resources/documents/service.ts';
import { readHead } from '../../../functions/core/store/vector-index.ts';
import type { World } from './world.ts';
import { indexedIds, jobFor, makeWorld, pointersOf } from './world.ts';

/** Runs a batch by the names of its steps, as the Lambdas are called. */
async function runBySteps(world: World, options: { readonly force?: boolean } = {}): Promise<string> {
  const { ctx, ports } = world;
  const { batch_id } = await triggerBucket(
    ctx,
    world.bucketId,
    undefined,
    options.force ? { dedup_strategy: 'force' } : {},
  );
  const job = await jobFor(ctx, world.bucketId, batch_id);
  expect(await admitBatch(workflowContext(ports, job), job)).toBe('start');
  const call = (event: object) => batchStep(ports, { ...job, ...event } as BatchEvent);
  try {
    const plan = (await call({ step: 'plan' })) as { chunks_key: string };
    for (const item of await pointersOf(ctx, plan.chunks_key))
      await chunkStep(ports, { job, item }, ports.clock.now() + 300_000);
    await call({ step: 'commit' });
  } catch (error) {
    const Cause = JSON.stringify({
      errorType: (error as Error).name,
      errorMessage: (error as Error).message,
      trace: ['at x'],
    });
    await call({ step: 'fail', error: { Error: (error as Error).name, Cause } });
    return batch_id;
  }
  await call({ step: 'finish', post_errors: {}, cluster_runs: [] });
  return batch_id;
}

describe('the steps by name', () => {
  it('say why a batch failed, with the sentence and without the stack', async () => {
    const world = await makeWorld();
    await world.addCollection('all');
    await world.addObjects(['a']);
    world.runner.behave = () => ({ fail: 'plugin_row_failed' });
    const id = await runBySteps(world);
    const batch = (await world.call('GET', `/v1/namespaces/{ns}/buckets/articles/batches/${id}`)).body;
    expect(batch).toMatchObject({ status: 'FAILED', failure_reason: 'batch_too_many_failures' });
    expect(batch.error).toContain('1 of 1 objects failed');
    expect(JSON.stringify(batch)).not.toContain('at x');
  });

  it('tell nothing of our insides when a batch died of an error that nobody foresaw', async () => {
    const world = await makeWorld();
    await world.addCollection('all');
    const { batch_id } = await triggerBucket(world.ctx, world.bucketId, undefined, {});
    const job = await jobFor(world.ctx, world.bucketId, batch_id);
    await admitBatch(workflowContext(world.ports, job), job);
    const Cause = JSON.stringify({
      errorMessage: 'no object batches/ns_1/btch_1/1/plan.json in arn:aws:s3:::granary-x',
    });
    await batchStep(world.ports, { ...job, step: 'fail', error: { Error: 'BlobMissing', Cause } });
    const batch = (await world.call('GET', `/v1/namespaces/{ns}/buckets/articles/batches/${batch_id}`)).body;
    expect(batch).toMatchObject({ status: 'FAILED', failure_reason: 'internal_error' });
    expect(batch.error).not.toMatch(/plan\.json|arn:/);
    expect(JSON.stringify(world.ports.logged)).toContain('plan.json');
    const after = postProcessingOf({ post_errors: { taxonomies: { Error: 'TypeError', Cause } } });
    expect(after[0]).toMatchObject({ error: 'internal_error' });
    expect(JSON.stringify(after)).not.toContain('arn:');
  });

  it('list no failures of a batch whose files have expired, and say so', async () => {
    const world = await makeWorld();
    await world.addCollection('all');
    await world.addObjects(['a']);
    world.runner.behave = () => ({ fail: 'plugin_row_failed' });
    const id = await runBySteps(world);
    const path = `/v1/namespaces/{ns}/buckets/articles/batches/${id}/failures`;
    expect((await world.call('GET', path)).body.results.length).toBe(1);
    for (const { key } of (await world.ports.blobs.list('batches/')).blobs)
      await world.ports.blobs.delete(key);
    const reply = await world.call('GET', path);
    expect([reply.status, reply.body.results]).toEqual([200, []]);
    expect(reply.body.warnings[0]).toContain('expired');
  });

  it('list what failed after the commit, step by step', () => {
    const Cause = JSON.stringify({ errorMessage: 'no such retriever' });
    expect(
      postProcessingOf({
        post_errors: {
          taxonomies: { Error: 'retriever_not_found', Cause },
          alerts: { Error: 'States.Timeout', Cause: 'too long' },
        },
        cluster_runs: [
          { cluster_id: 'clust_1', run_id: 'run_1', succeeded: true },
          { cluster_id: 'clust_2', run_id: 'run_2', succeeded: false, error: 'cluster_invalid' },
        ],
        alerts: { failures: [{ id: 'alt_1', error: 'alert_invalid', message: 'bad field' }] },
      }),
    ).toEqual([
      {
        step: 'taxonomies',
        id: null,
        status: 'failed',
        error: 'retriever_not_found',
        message: 'no such retriever',
      },
      {
        step: 'clusters',
        id: 'clust_2',
        status: 'failed',
        error: 'cluster_invalid',
        message: 'the run run_2 failed',
      },
      { step: 'alerts', id: null, status: 'failed', error: 'States.Timeout', message: 'too long' },
      { step: 'alerts', id: 'alt_1', status: 'failed', error: 'alert_invalid', message: 'bad field' },
    ]);
  });
});

describe('garbage', () => {
  it('is collected after 48 hours, and everything that is named stays readable', async () => {
    const world = await makeWorld();
    const collection = await world.addCollection('all');
    await world.addObjects(['a', 'b']);
    await runBySteps(world);
    const ids = await indexedIds(world.ctx, collection.id);
    for (let i = 0; i < 100; i++) await patchDocument(world.ctx, collection, ids[0]!, { n: i });
    world.runner.behave = () => ({ fail: 'plugin_row_failed' });
    await runBySteps(world, { force: true });
    world.runner.behave = () => ({});
    const count = async () =>
      (await world.ports.index.list(`${world.namespace}/${collection.id}/`)).blobs.length;
    const before = await count();
    world.ports.clock.advance(47 * 3_600_000);
    await runBySteps(world);
    expect(await count()).toBeGreaterThanOrEqual(before);
    world.ports.clock.advance(2 * 3_600_000);
    await runBySteps(world);
    expect(await count()).toBeLessThan(before / 2);
    expect(await indexedIds(world.ctx, collection.id)).toEqual(ids);
    const found = await world.call('POST', '/v1/namespaces/{ns}/collections/all/documents/list', {
      filters: { field: 'n', operator: 'eq', value: 99 },
    });
    expect(found.body.results.map((document: { document_id: string }) => document.document_id)).toEqual([
      ids[0],
    ]);
  });
});

describe('sequences of failed batches', () => {
  it('are forgotten with their slots a day later, and visible documents stay as they were', async () => {
    const world = await makeWorld();
    const collection = await world.addCollection('all');
    await world.addObjects(['a', 'b']);
    await runBySteps(world);
    const ids = await indexedIds(world.ctx, collection.id);
    await world.addObjects(['c']);
    // Half of the objects fail, so slots are written and the batch aborts.
    world.runner.behave = (row) => (row.data === 'a' ? { fail: 'plugin_row_failed' } : {});
    for (let i = 0; i < 3; i++) await runBySteps(world, { force: true });
    expect((await readHead(world.ctx, collection.id)).aborted).toHaveLength(3);
    const rows = () => world.ports.table.dump().filter((item) => item.sk.startsWith('DOC#'));
    expect(rows()).toHaveLength(3);
    expect(await clearAborted(world.ctx, collection.id, 1)).toBe(0);
    world.ports.clock.advance(25 * 3_600_000);
    expect(await clearAborted(world.ctx, collection.id, 4)).toBe(0);
    expect(await clearAborted(world.ctx, collection.id, 1)).toBe(3);
    expect((await readHead(world.ctx, collection.id)).aborted).toEqual([]);
    expect(rows()).toHaveLength(2);
    const documents = await getDocuments(
      world.ctx,
      ids.map((document_id) => ({ collection_id: collection.id, document_id })),
    );
    expect(documents.map((document) => document?.fields.text).toSorted()).toEqual(['a', 'b']);
  });
});

describe('a deleted collection', () => {
  it('leaves neither rows of documents nor objects of its index', async () => {
    const world = await makeWorld();
    const collection = await world.addCollection('all');
    await world.addObjects(['a', 'b']);
    await runBySteps(world);
    const [id] = await indexedIds(world.ctx, collection.id);
    await patchDocument(world.ctx, collection, id!, { body: 'x'.repeat(100_000) });
    await world.call('DELETE', '/v1/namespaces/{ns}/collections/all');
    expect(world.ports.table.dump().filter((item) => item.pk.includes(collection.id))).toEqual([]);
    expect((await world.ports.index.list('')).blobs).toEqual([]);
    expect((await world.ports.blobs.list('documents/')).blobs).toEqual([]);
  });
});
