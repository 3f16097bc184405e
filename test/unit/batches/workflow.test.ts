// A batch from trigger to finish, in process: what it makes, when it can be seen, and what stays when it fails.
import { describe, expect, it } from 'vitest';
import { derivedId } from '../../../functions/core/ids.ts';
import { findBatch } from '../../../functions/core/resources/batches/store.ts';
import {
  admitBatch,
  commitBatch,
  failBatch,
  finishBatch,
  planBatch,
  runChunk,
} from '../../../functions/core/resources/batches/workflow.ts';
import {
  documentsOfBatch,
  getDocuments,
  vectorsOf,
} from '../../../functions/core/resources/documents/service.ts';
import { readHead, snapshot } from '../../../functions/core/store/vector-index.ts';
import { search } from '../../../functions/core/vectors/search.ts';
import type { World } from './world.ts';
import { eventsOf, indexedIds, jobFor, jobsOf, makeWorld, pointersOf, runBatch, vectorFor } from './world.ts';

const texts = (count: number, prefix = 'article') =>
  Array.from({ length: count }, (_, i) => `${prefix} ${i}`);

async function trigger(world: World, body: Record<string, unknown> = {}): Promise<string> {
  const reply = await world.call(
    'POST',
    `/v1/namespaces/{ns}/buckets/${world.bucketId}/batches/trigger`,
    body,
  );
  expect(reply.status).toBe(202);
  return reply.body.batch_id;
}

async function run(world: World, body: Record<string, unknown> = {}): Promise<string> {
  const batchId = await trigger(world, body);
  await runBatch(world.ctx, await jobFor(world.ctx, world.bucketId, batchId));
  return batchId;
}

const read = async (world: World, batchId: string) =>
  (await world.call('GET', `/v1/namespaces/{ns}/buckets/${world.bucketId}/batches/${batchId}`)).body;

describe('a batch that goes well', () => {
  it('makes exactly one document of each of 2,500 objects, in chunks of at most 1,000, with its vector', async () => {
    const world = await makeWorld();
    const collection = await world.addCollection('all');
    const objectIds = await world.addObjects(texts(2_500));
    const batchId = await trigger(world);
    const job = await jobFor(world.ctx, world.bucketId, batchId);
    expect(await admitBatch(world.ctx, job)).toBe('start');
    const plan = await planBatch(world.ctx, job);
    expect(plan.chunks).toBe(3);
    for (const pointer of await pointersOf(world.ctx, plan.chunks_key)) await runChunk(world.ctx, pointer);
    await commitBatch(world.ctx, job);
    await finishBatch(world.ctx, job);

    const batch = await read(world, batchId);
    expect(batch.status).toBe('COMPLETED');
    expect(batch.progress).toEqual({ total: 2_500, processed: 2_500, failed: 0, skipped: 0, percent: 100 });
    const ids = await indexedIds(world.ctx, collection.id);
    expect(ids).toHaveLength(2_500);
    const documents = await getDocuments(
      world.ctx,
      ids.map((document_id) => ({ collection_id: collection.id, document_id })),
    );
    expect(new Set(documents.map((document) => document!.lineage.object_id))).toEqual(new Set(objectIds));
    expect((await readHead(world.ctx, collection.id)).document_count).toBe(2_500);

    const uri = 'mixpeek://embedder@1.0.0/embedder_embedding';
    const view = await snapshot(world.ctx, collection.id, uri);
    const found = await search(view.snapshot!, { queries: [vectorFor('article 1234 0')], k: 1 });
    expect(found.matches[0]![0]!.id).toBe(derivedId('document', collection.id, objectIds[1234]!, 0));
    expect((await vectorsOf(world.ctx, collection, found.matches[0]![0]!.id))[uri]).toHaveLength(4);
    expect(
      world.runner.tenants.every((tenant) => tenant === `${world.principal.orgId}/${world.namespace}`),
    ).toBe(true);
  });

  it('shows nothing before the commit and everything after it', async () => {
    const world = await makeWorld();
    const collection = await world.addCollection('all');
    const [objectId] = await world.addObjects(texts(3));
    const batchId = await trigger(world);
    const job = await jobFor(world.ctx, world.bucketId, batchId);
    await admitBatch(world.ctx, job);
    const plan = await planBatch(world.ctx, job);
    for (const pointer of await pointersOf(world.ctx, plan.chunks_key)) await runChunk(world.ctx, pointer);
    const documentId = derivedId('document', collection.id, objectId!, 0);
    const path = `/v1/namespaces/{ns}/collections/all/documents`;
    expect((await world.call('GET', `${path}/${documentId}`)).status).toBe(404);
    expect((await world.call('GET', path)).body.total_count).toBe(0);
    expect((await read(world, batchId)).progress.processed).toBe(3);
    await commitBatch(world.ctx, job);
    expect((await world.call('GET', `${path}/${documentId}`)).status).toBe(200);
    expect((await world.call('GET', path)).body.total_count).toBe(3);
    expect((await read(world, batchId)).status).toBe('PROCESSING');
  });

  it('names the documents that it made, collection by collection, and announces itself once', async () => {
    const world = await makeWorld();
    const one = await world.addCollection('one');
    const two = await world.addCollection('two');
    await world.addObjects(texts(5));
    const batchId = await run(world);
    const ref = { bucket_id: world.bucketId, batch_id: batchId, attempt: 1 };
    expect((await documentsOfBatch(world.ctx, ref, one.id)).toSorted()).toEqual(
      await indexedIds(world.ctx, one.id),
    );
    expect((await documentsOfBatch(world.ctx, ref, two.id)).toSorted()).toEqual(
      await indexedIds(world.ctx, two.id),
    );
    expect((await read(world, batchId)).progress.total).toBe(10);
    expect(eventsOf(world, 'batch.completed')).toHaveLength(1);
    expect(
      eventsOf(world, 'collection.documents.batch_completed')
        .map((e) => e.subject.id)
        .toSorted(),
    ).toEqual([one.id, two.id].toSorted());
  });

  it('with more unprocessed objects than a batch may have fails with the way out; processed ones do not count', async () => {
    const world = await makeWorld();
    await world.addCollection('all');
    await world.addObjects(texts(3));
    const tooMany = await jobFor(world.ctx, world.bucketId, await trigger(world));
    expect(await admitBatch(world.ctx, tooMany)).toBe('start');
    await expect(planBatch(world.ctx, tooMany, { objectsMax: 2 })).rejects.toMatchObject({
      name: 'batch_too_large',
      message: expect.stringContaining('more than 2 objects'),
    });
    await failBatch(world.ctx, tooMany, { reason: 'batch_too_large', detail: 'x' });
    await run(world);
    await world.addObjects(['one more']);
    const rest = await jobFor(world.ctx, world.bucketId, await trigger(world));
    expect(await admitBatch(world.ctx, rest)).toBe('start');
    expect((await planBatch(world.ctx, rest, { objectsMax: 2 })).chunks).toBe(1);
  });

  it('is completed with a total of 0 when the bucket is empty', async () => {
    const world = await makeWorld();
    await world.addCollection('all');
    const batch = await read(world, await run(world));
    expect(batch.status).toBe('COMPLETED');
    expect(batch.progress.total).toBe(0);
  });

  it('gives a document without a vector to a row without one, and none to a row that the plugin dropped', async () => {
    const world = await makeWorld();
    const collection = await world.addCollection('all');
    const ids = await world.addObjects(['kept', 'blank', 'dropped']);
    world.runner.behave = (row) =>
      row.data === 'blank' ? { vector: null } : row.data === 'dropped' ? { outputs: 0 } : {};
    const batch = await read(world, await run(world));
    expect(batch.status).toBe('COMPLETED');
    expect(batch.progress).toMatchObject({ total: 3, processed: 3, failed: 0 });
    expect(await indexedIds(world.ctx, collection.id)).toEqual(
      [ids[0]!, ids[1]!].map((id) => derivedId('document', collection.id, id, 0)).toSorted(),
    );
    const { snapshot: vectors } = await snapshot(
      world.ctx,
      collection.id,
      'mixpeek://embedder@1.0.0/embedder_embedding',
    );
    expect(vectors!.liveCount).toBe(1);
  });

  it('makes a document of each output of a plugin that makes several, with its own columns', async () => {
    const world = await makeWorld();
    const collection = await world.addCollection('all');
    await world.addObjects(['long text'], { metadata: { source: 'wire' } });
    world.runner.behave = () => ({ outputs: 3, columns: { piece: 'p', document_id: 'mine' } });
    await run(world);
    const list = (await world.call('GET', '/v1/namespaces/{ns}/collections/all/documents')).body;
    expect(list.total_count).toBe(3);
    expect(
      list.results
        .map((d: { _internal: { lineage: { ordinal: number } } }) => d._internal.lineage.ordinal)
        .toSorted(),
    ).toEqual([0, 1, 2]);
    expect(list.results[0]).toMatchObject({
      text: 'long text',
      source: 'wire',
      piece: 'p',
      field_document_id: 'mine',
      collection_id: collection.id,
    });
    expect(list.results[0].metadata).toMatchObject({ text: 'long text', source: 'wire' });
  });

  it('joins the outputs of several extractors into one document', async () => {
    const world = await makeWorld();
    await world.addPlugin('second', [{ name: 'second_embedding', dims: 8 }]);
    const collection = await world.addCollection('both', ['embedder', 'second']);
    await world.addObjects(['a', 'b']);
    await run(world);
    const [id] = await indexedIds(world.ctx, collection.id);
    const vectors = await vectorsOf(world.ctx, collection, id!);
    expect(Object.fromEntries(Object.entries(vectors).map(([uri, v]) => [uri, v.length]))).toEqual({
      'mixpeek://embedder@1.0.0/embedder_embedding': 4,
      'mixpeek://second@1.0.0/second_embedding': 8,
    });
    expect(await indexedIds(world.ctx, collection.id)).toHaveLength(2);
  });

  it('counts objects without the property that the extractor reads as skipped', async () => {
    const world = await makeWorld();
    await world.addCollection('titles', ['embedder'], {
      feature_extractors: [
        {
          feature_extractor_name: 'embedder',
          version: '1.0.0',
          parameters: undefined,
          input_mappings: { text: 'title' },
        },
      ],
    });
    await world.addObjects(['no title']);
    const batch = await read(world, await run(world));
    expect(batch.status).toBe('COMPLETED');
    expect(batch.progress).toMatchObject({ total: 1, processed: 0, failed: 0, skipped: 1 });
  });
});

describe('two batches one after the other', () => {
  it('leave out what was done before, and do it again when asked to', async () => {
    const world = await makeWorld();
    const collection = await world.addCollection('all');
    const ids = await world.addObjects(texts(10));
    await run(world);
    await world.addObjects(texts(5, 'more'));
    await world.rewriteObject(ids[0]!, 'rewritten');
    const second = await read(world, await run(world));
    expect(second.progress).toMatchObject({ total: 15, processed: 6, skipped: 9, failed: 0 });
    expect(await indexedIds(world.ctx, collection.id)).toHaveLength(15);
    const [rewritten] = await getDocuments(world.ctx, [
      { collection_id: collection.id, document_id: derivedId('document', collection.id, ids[0]!, 0) },
    ]);
    expect(rewritten!.fields.text).toBe('rewritten');
    expect(rewritten!.source_version).toBe(2);
    const third = await read(world, await run(world, { dedup_strategy: 'force' }));
    expect(third.progress).toMatchObject({ total: 15, processed: 15, skipped: 0 });
    expect((await readHead(world.ctx, collection.id)).document_count).toBe(15);
  });

  it('end the outputs that an object does not make any more', async () => {
    const world = await makeWorld();
    const collection = await world.addCollection('all');
    const [id] = await world.addObjects(['text']);
    world.runner.behave = () => ({ outputs: 4 });
    await run(world);
    expect(await indexedIds(world.ctx, collection.id)).toHaveLength(4);
    world.runner.behave = () => ({ outputs: 1, vector: null });
    await world.rewriteObject(id!, 'shorter');
    await run(world);
    const first = derivedId('document', collection.id, id!, 0);
    expect(await indexedIds(world.ctx, collection.id)).toEqual([first]);
    const { snapshot: vectors } = await snapshot(
      world.ctx,
      collection.id,
      'mixpeek://embedder@1.0.0/embedder_embedding',
    );
    expect(vectors!.liveCount).toBe(0);
    expect((await readHead(world.ctx, collection.id)).document_count).toBe(1);
    const gone = derivedId('document', collection.id, id!, 2);
    expect((await world.call('GET', `/v1/namespaces/{ns}/collections/all/documents/${gone}`)).status).toBe(
      404,
    );
  });

  it('run one at a time: the second waits until the first has ended', async () => {
    const world = await makeWorld();
    const collection = await world.addCollection('all');
    await world.addObjects(texts(2));
    const first = await jobFor(world.ctx, world.bucketId, await trigger(world));
    expect(await admitBatch(world.ctx, first)).toBe('start');
    expect(await admitBatch(world.ctx, first)).toBe('start');
    const plan = await planBatch(world.ctx, first);
    const second = await jobFor(
      world.ctx,
      world.bucketId,
      await trigger(world, { collection_ids: [collection.id], dedup_strategy: 'force' }),
    );
    expect(await admitBatch(world.ctx, second)).toBe('wait');
    const waiting = await read(world, second.batch_id);
    expect(waiting).toMatchObject({ status: 'PENDING', lifecycle: 'queued' });
    expect(waiting.lifecycle_reason).toContain(first.batch_id);
    for (const pointer of await pointersOf(world.ctx, plan.chunks_key)) await runChunk(world.ctx, pointer);
    await commitBatch(world.ctx, first);
    expect(await admitBatch(world.ctx, second)).toBe('wait');
    await finishBatch(world.ctx, first);
    await runBatch(world.ctx, second);
    expect((await read(world, second.batch_id)).status).toBe('COMPLETED');
    expect(await indexedIds(world.ctx, collection.id)).toHaveLength(2);
  });

  it('are the same batch when the first is not planned yet, and two when it is', async () => {
    const world = await makeWorld();
    await world.addCollection('all');
    const first = await trigger(world);
    expect(await trigger(world)).toBe(first);
    expect(jobsOf(world).filter((job) => job.kind === 'batch')).toHaveLength(1);
    const job = await jobFor(world.ctx, world.bucketId, first);
    await admitBatch(world.ctx, job);
    await planBatch(world.ctx, job);
    expect(await trigger(world)).not.toBe(first);
  });
});

describe('a batch in which objects fail', () => {
  it('is completed with the causes listed when the share is tolerated', async () => {
    const world = await makeWorld();
    await world.addCollection('all');
    await world.addObjects(texts(20));
    world.runner.behave = (row) => (row.data === 'article 7' ? { fail: 'plugin_row_failed' } : {});
    const batchId = await run(world);
    const batch = await read(world, batchId);
    expect(batch.status).toBe('COMPLETED');
    expect(batch.progress).toMatchObject({ total: 20, processed: 19, failed: 1 });
    expect(batch.error_summary).toEqual({ plugin_row_failed: 1 });
    const failures = (
      await world.call('GET', `/v1/namespaces/{ns}/buckets/${world.bucketId}/batches/${batchId}/failures`)
    ).body;
    expect(failures.results).toHaveLength(1);
    expect(failures.results[0]).toMatchObject({
      code: 'plugin_row_failed',
      property: 'text',
      retryable: false,
    });
  });

  it('fails above the tolerated share, shows nothing, and a retry commits the good and the repaired together', async () => {
    const world = await makeWorld();
    const collection = await world.addCollection('all');
    const ids = await world.addObjects(texts(1_500));
    world.runner.behave = (row) =>
      Number(row.data.split(' ')[1]) % 5 === 0 ? { fail: 'plugin_row_failed' } : {};
    const batchId = await run(world);
    const failed = await read(world, batchId);
    expect(failed).toMatchObject({ status: 'FAILED', failure_reason: 'batch_too_many_failures' });
    expect(failed.progress).toMatchObject({ total: 1_500, processed: 1_200, failed: 300 });
    expect(await indexedIds(world.ctx, collection.id)).toEqual([]);
    expect((await world.call('GET', '/v1/namespaces/{ns}/collections/all/documents')).body.total_count).toBe(
      0,
    );
    expect(eventsOf(world, 'batch.failed')).toHaveLength(1);

    world.runner.behave = () => ({});
    world.runner.calls.length = 0;
    // What changes meanwhile does not count: the retry runs on what was frozen.
    await world.rewriteObject(ids[5]!, 'changed later');
    const retried = await world.call(
      'POST',
      `/v1/namespaces/{ns}/buckets/${world.bucketId}/batches/${batchId}/retry`,
    );
    expect(retried.status).toBe(200);
    expect(retried.body).toMatchObject({ status: 'PENDING', attempt: 2 });
    await runBatch(world.ctx, await jobFor(world.ctx, world.bucketId, batchId));
    const done = await read(world, batchId);
    expect(done).toMatchObject({ status: 'COMPLETED', attempt: 2 });
    expect(done.progress).toMatchObject({ total: 1_500, processed: 1_500, failed: 0 });
    expect(world.runner.calls.reduce((sum, call) => sum + call.rows.length, 0)).toBe(300);
    expect(await indexedIds(world.ctx, collection.id)).toHaveLength(1_500);
    const { snapshot: vectors } = await snapshot(
      world.ctx,
      collection.id,
      'mixpeek://embedder@1.0.0/embedder_embedding',
    );
    expect(vectors!.liveCount).toBe(1_500);
    const [document] = await getDocuments(world.ctx, [
      { collection_id: collection.id, document_id: derivedId('document', collection.id, ids[5]!, 0) },
    ]);
    expect(document!.fields.text).toBe('article 5');
    expect((await readHead(world.ctx, collection.id)).document_count).toBe(1_500);
  });

  it('is tried again on kept results when the index has swept them, and on frozen objects when those are gone too', async () => {
    for (const lost of ['index', 'both'] as const) {
      const world = await makeWorld();
      const collection = await world.addCollection('all');
      await world.addObjects(texts(10));
      world.runner.behave = (row) =>
        Number(row.data.split(' ')[1]) % 2 ? { fail: 'plugin_row_failed' } : {};
      const batchId = await run(world);
      for (const { key } of (await world.ports.index.list('')).blobs) await world.ports.index.delete(key);
      if (lost === 'both') {
        for (const { key } of (await world.ports.blobs.list('batches/')).blobs)
          if (key.includes('/kept/')) await world.ports.blobs.delete(key);
      }
      world.runner.behave = () => ({});
      world.runner.calls.length = 0;
      await world.call('POST', `/v1/namespaces/{ns}/buckets/${world.bucketId}/batches/${batchId}/retry`);
      await runBatch(world.ctx, await jobFor(world.ctx, world.bucketId, batchId));
      expect(await read(world, batchId)).toMatchObject({
        status: 'COMPLETED',
        progress: { total: 10, processed: 10 },
      });
      expect(world.runner.calls.reduce((sum, call) => sum + call.rows.length, 0)).toBe(
        lost === 'index' ? 5 : 10,
      );
      const { snapshot: vectors } = await snapshot(
        world.ctx,
        collection.id,
        'mixpeek://embedder@1.0.0/embedder_embedding',
      );
      expect(vectors!.liveCount).toBe(10);
    }
  });

  it('does not bring back, when tried again, what another batch has made newer meanwhile', async () => {
    const world = await makeWorld();
    const collection = await world.addCollection('all');
    const ids = await world.addObjects(texts(4));
    world.runner.behave = (row) => (row.data === 'article 3' ? { fail: 'plugin_row_failed' } : {});
    const batchId = await run(world);
    expect((await read(world, batchId)).status).toBe('FAILED');
    world.runner.behave = () => ({});
    await world.rewriteObject(ids[0]!, 'newer');
    await run(world, { batch_name: 'between' });
    await world.call('POST', `/v1/namespaces/{ns}/buckets/${world.bucketId}/batches/${batchId}/retry`);
    await runBatch(world.ctx, await jobFor(world.ctx, world.bucketId, batchId));
    expect(await read(world, batchId)).toMatchObject({
      status: 'COMPLETED',
      progress: { total: 4, processed: 3, skipped: 1 },
    });
    const documentId = derivedId('document', collection.id, ids[0]!, 0);
    const [document] = await getDocuments(world.ctx, [
      { collection_id: collection.id, document_id: documentId },
    ]);
    expect(document!.fields.text).toBe('newer');
    const { snapshot: vectors } = await snapshot(
      world.ctx,
      collection.id,
      'mixpeek://embedder@1.0.0/embedder_embedding',
    );
    expect((await search(vectors!, { queries: [vectorFor('newer 0')], k: 1 })).matches[0]![0]).toMatchObject({
      id: documentId,
      score: expect.closeTo(1, 5),
    });
    expect((await readHead(world.ctx, collection.id)).document_count).toBe(4);
  });

  it('takes the share of the trigger before that of the collection', async () => {
    const world = await makeWorld();
    await world.addCollection('all');
    await world.addObjects(texts(4));
    world.runner.behave = (row) => (row.data === 'article 0' ? { fail: 'plugin_row_failed' } : {});
    expect((await read(world, await run(world, { max_failure_share: 0.25 }))).status).toBe('COMPLETED');
    await world.addObjects(texts(3, 'b'));
    world.runner.behave = (row) => (row.data.startsWith('b') ? {} : { fail: 'plugin_row_failed' });
    expect((await read(world, await run(world, { max_failure_share: 0.24 }))).status).toBe('FAILED');
  });

  it('names a call that fails as a whole as the cause of each of its rows', async () => {
    const world = await makeWorld();
    await world.addCollection('all');
    await world.addObjects(texts(3));
    world.runner.answer = () => ({
      error: { code: 'plugin_load_failed', message: 'ImportError: no module', retryable: false },
    });
    const batchId = await run(world);
    const batch = await read(world, batchId);
    expect(batch).toMatchObject({ status: 'FAILED', error_summary: { plugin_load_failed: 3 } });
    expect(world.runner.calls).toHaveLength(1);
  });

  it('tries a call again that may go well the second time', async () => {
    const world = await makeWorld();
    await world.addCollection('all');
    await world.addObjects(texts(3));
    world.runner.answer = () =>
      world.runner.calls.length === 1
        ? { error: { code: 'runner_unavailable', message: 'busy', retryable: true } }
        : undefined;
    expect((await read(world, await run(world))).status).toBe('COMPLETED');
    expect(world.runner.calls).toHaveLength(2);
  });

  it('refuses vectors that are not what the plugin declared, row by row or as a whole', async () => {
    const world = await makeWorld();
    await world.addCollection('all');
    await world.addObjects(['nan', 'fine', 'more', 'again']);
    world.runner.behave = (row) => (row.data === 'nan' ? { vector: [1, Number.NaN, 0, 0] } : {});
    const batch = await read(world, await run(world, { max_failure_share: 0.5 }));
    expect(batch).toMatchObject({ status: 'COMPLETED', error_summary: { vector_not_finite: 1 } });
    world.runner.answer = (event) => ({
      outputs: event.rows.map((row) => ({
        row: row.row,
        ordinal: 0,
        columns: {},
        features: { embedder_embedding: row.row },
      })),
      vectors: { embedder_embedding: { dims: 3, count: event.rows.length, data_base64: '' } },
      failures: [],
    });
    const wrong = await read(world, await run(world, { dedup_strategy: 'force' }));
    expect(wrong).toMatchObject({ status: 'FAILED', error_summary: { plugin_protocol_error: 4 } });
  });
});

describe('a batch that cannot end well', () => {
  it('fails when a chunk left no receipt, never completing without its documents', async () => {
    const world = await makeWorld();
    const collection = await world.addCollection('all');
    await world.addObjects(texts(1_200));
    const job = await jobFor(world.ctx, world.bucketId, await trigger(world));
    await admitBatch(world.ctx, job);
    const plan = await planBatch(world.ctx, job);
    const [first] = await pointersOf(world.ctx, plan.chunks_key);
    await runChunk(world.ctx, first!);
    await expect(commitBatch(world.ctx, job)).rejects.toMatchObject({ code: 'batch_chunks_missing' });
    await failBatch(world.ctx, job, { reason: 'batch_chunks_missing', detail: 'x' });
    expect((await read(world, job.batch_id)).status).toBe('FAILED');
    expect(await indexedIds(world.ctx, collection.id)).toEqual([]);

    await world.call('POST', `/v1/namespaces/{ns}/buckets/${world.bucketId}/batches/${job.batch_id}/retry`);
    world.runner.calls.length = 0;
    await runBatch(world.ctx, await jobFor(world.ctx, world.bucketId, job.batch_id));
    expect((await read(world, job.batch_id)).status).toBe('COMPLETED');
    expect(world.runner.calls.reduce((sum, call) => sum + call.rows.length, 0)).toBe(200);
    expect(await indexedIds(world.ctx, collection.id)).toHaveLength(1_200);
  });

  it('ends FAILED with the reason canceled when a running one is cancelled, and commits nothing afterwards', async () => {
    const world = await makeWorld();
    const collection = await world.addCollection('all');
    await world.addObjects(texts(3));
    const job = await jobFor(world.ctx, world.bucketId, await trigger(world));
    await admitBatch(world.ctx, job);
    const plan = await planBatch(world.ctx, job);
    const [pointer] = await pointersOf(world.ctx, plan.chunks_key);
    await runChunk(world.ctx, pointer!);
    const path = `/v1/namespaces/{ns}/buckets/${world.bucketId}/batches/${job.batch_id}`;
    const canceled = await world.call('POST', `${path}/cancel`);
    expect(canceled.body).toMatchObject({ status: 'FAILED', failure_reason: 'canceled' });
    await expect(commitBatch(world.ctx, job)).rejects.toMatchObject({ code: 'batch_wrong_state' });
    await failBatch(world.ctx, job, { reason: 'batch_wrong_state', detail: 'x' });
    expect((await read(world, job.batch_id)).failure_reason).toBe('canceled');
    expect((await runChunk(world.ctx, pointer!)).done).toBe(false);
    expect(await indexedIds(world.ctx, collection.id)).toEqual([]);
    expect((await world.call('POST', `${path}/cancel`)).status).toBe(409);
    expect(
      eventsOf(world, 'batch.failed', 'batch.canceled')
        .map((e) => e.event_type)
        .toSorted(),
    ).toEqual(['batch.canceled', 'batch.failed']);
    // The collection is free for the next one, and a later commit does not make the cancelled one visible.
    expect((await read(world, await run(world))).status).toBe('COMPLETED');
    expect(await indexedIds(world.ctx, collection.id)).toHaveLength(3);
  });

  it('fails when its plugin is not deployed five minutes after it was asked for', async () => {
    const world = await makeWorld();
    await world.addCollection('all');
    await world.ports.table.write([
      { update: world.ctx.ns.resource('PLUGIN', 'embedder_1_0_0'), set: { deployment: 'not_deployed' } },
    ]);
    const job = await jobFor(world.ctx, world.bucketId, await trigger(world));
    expect(await admitBatch(world.ctx, job)).toBe('wait');
    world.ports.clock.advance(4 * 60_000);
    expect(await admitBatch(world.ctx, job)).toBe('wait');
    world.ports.clock.advance(61_000);
    expect(await admitBatch(world.ctx, job)).toBe('drop');
    expect(await read(world, job.batch_id)).toMatchObject({
      status: 'FAILED',
      failure_reason: 'plugin_not_deployed',
    });
  });

  it('is looked at again by the sweeper: soon while it waits to begin, at its deadline while it runs, never afterwards', async () => {
    const world = await makeWorld();
    await world.addCollection('all');
    await world.addObjects(texts(1));
    const dueMinutes = async () => {
      const item = world.ports.table.dump().find((one) => one.sk.startsWith('BTCH#'))!;
      return item.due_at === undefined
        ? undefined
        : Math.round((Date.parse(String(item.due_at)) - world.ports.clock.now()) / 60_000);
    };
    const job = await jobFor(world.ctx, world.bucketId, await trigger(world));
    expect(await dueMinutes()).toBe(10);
    world.ports.clock.advance(5 * 60_000);
    await admitBatch(world.ctx, job);
    expect(await dueMinutes()).toBe(10);
    const plan = await planBatch(world.ctx, job);
    expect(await dueMinutes()).toBe(361);
    for (const pointer of await pointersOf(world.ctx, plan.chunks_key)) await runChunk(world.ctx, pointer);
    await commitBatch(world.ctx, job);
    await finishBatch(world.ctx, job);
    expect(await dueMinutes()).toBeUndefined();
  });

  it('gives its locks to the next batch when it died, and cannot commit any more then', async () => {
    const world = await makeWorld();
    const collection = await world.addCollection('all');
    await world.addObjects(texts(2));
    const dead = await jobFor(world.ctx, world.bucketId, await trigger(world));
    await admitBatch(world.ctx, dead);
    const plan = await planBatch(world.ctx, dead);
    for (const pointer of await pointersOf(world.ctx, plan.chunks_key)) await runChunk(world.ctx, pointer);
    world.ports.clock.advance(7 * 3_600_000);
    const next = await trigger(world, { dedup_strategy: 'force' });
    await runBatch(world.ctx, await jobFor(world.ctx, world.bucketId, next));
    await expect(commitBatch(world.ctx, dead)).rejects.toMatchObject({ code: 'batch_wrong_state' });
    expect((await read(world, next)).status).toBe('COMPLETED');
    expect(await indexedIds(world.ctx, collection.id)).toHaveLength(2);
    expect(await admitBatch(world.ctx, dead)).toBe('drop');
    expect(await read(world, dead.batch_id)).toMatchObject({
      status: 'FAILED',
      failure_reason: 'batch_deadline',
    });
  });

  it('is not called failed once its documents are visible: the fault is listed instead', async () => {
    const world = await makeWorld();
    await world.addCollection('all');
    await world.addObjects(texts(2));
    const job = await jobFor(world.ctx, world.bucketId, await trigger(world));
    await admitBatch(world.ctx, job);
    const plan = await planBatch(world.ctx, job);
    for (const pointer of await pointersOf(world.ctx, plan.chunks_key)) await runChunk(world.ctx, pointer);
    await commitBatch(world.ctx, job);
    expect(
      (
        await world.call(
          'POST',
          `/v1/namespaces/{ns}/buckets/${world.bucketId}/batches/${job.batch_id}/cancel`,
        )
      ).status,
    ).toBe(409);
    await failBatch(world.ctx, job, { reason: 'States.Timeout', detail: 'took too long' });
    const batch = await read(world, job.batch_id);
    expect(batch.status).toBe('COMPLETED');
    expect(batch.post_processing).toEqual([
      { step: 'finish', id: null, status: 'failed', error: 'States.Timeout', message: 'took too long' },
    ]);
    expect((await findBatch(world.ctx, world.bucketId, job.batch_id))!.committed_attempt).toBe(1);
  });

  it('commits nothing into a collection that was deleted meanwhile', async () => {
    const world = await makeWorld();
    const collection = await world.addCollection('all');
    await world.addObjects(texts(2));
    const job = await jobFor(world.ctx, world.bucketId, await trigger(world));
    await admitBatch(world.ctx, job);
    const plan = await planBatch(world.ctx, job);
    for (const pointer of await pointersOf(world.ctx, plan.chunks_key)) await runChunk(world.ctx, pointer);
    expect((await world.call('DELETE', `/v1/namespaces/{ns}/collections/${collection.id}`)).status).toBe(200);
    await expect(commitBatch(world.ctx, job)).rejects.toThrow();
    await failBatch(world.ctx, job, { reason: 'collection_not_found', detail: 'x' });
    expect((await read(world, job.batch_id)).status).toBe('FAILED');
  });
});

describe('chunks at a time', () => {
  it.each([
    ['what the stage allows, where no plugin says anything', {}, {}, 40, 40],
    ['what the plugin wants, where that is less', { max_concurrency: 3 }, {}, 40, 3],
    ['no more than the stage allows', { max_concurrency: 50 }, {}, 4, 4],
    ['the least that any plugin of the batch wants', { max_concurrency: 9 }, { max_concurrency: 2 }, 40, 2],
  ])('are %s', async (_, first, second, stage, wanted) => {
    const world = await makeWorld();
    await world.addPlugin('one', undefined, { compute_profile: first });
    await world.addPlugin('two', undefined, { compute_profile: second });
    await world.addCollection('a', ['one']);
    await world.addCollection('b', ['two']);
    const job = await jobFor(world.ctx, world.bucketId, await trigger(world));
    await admitBatch(world.ctx, job);
    const plan = await planBatch(world.ctx, job, { mapConcurrency: stage });
    expect(plan.max_concurrency).toBe(wanted);
    // The state machine may ask again, and goes on with the same.
    expect(await planBatch(world.ctx, job, { mapConcurrency: stage })).toEqual(plan);
  });

  it('have the rows of one call of the plugin cut as its compute_profile says', async () => {
    const world = await makeWorld();
    await world.addPlugin('small', undefined, { compute_profile: { batch_size: 7 } });
    await world.addCollection('a', ['small']);
    await world.addObjects(['x']);
    await run(world);
    expect(world.runner.calls).toMatchObject([{ batch_size: 7, plugin: { plugin_id: 'small_1_0_0' } }]);
  });
});

describe('a namespace', () => {
  it('runs five batches at a time; a sixth waits until one of them has ended, however it ended', async () => {
    const world = await makeWorld();
    const { ctx } = world;
    const collections = [];
    for (let i = 0; i < 7; i++) collections.push(await world.addCollection(`c${i}`));
    await world.addObjects(['a']);
    const jobs = [];
    for (const { id } of collections)
      jobs.push(await jobFor(ctx, world.bucketId, await trigger(world, { collection_ids: [id] })));
    const admitted = [];
    for (const job of jobs) admitted.push(await admitBatch(ctx, job));
    expect(admitted).toEqual(['start', 'start', 'start', 'start', 'start', 'wait', 'wait']);
    expect(await read(world, jobs[5]!.batch_id)).toMatchObject({
      status: 'PENDING',
      lifecycle: 'queued',
      lifecycle_reason: 'waits for one of the 5 batches of this namespace that run',
    });
    // Asked again it has its place already.
    expect(await admitBatch(ctx, jobs[0]!)).toBe('start');
    const plan = await planBatch(ctx, jobs[0]!);
    for (const pointer of await pointersOf(ctx, plan.chunks_key)) await runChunk(ctx, pointer);
    await commitBatch(ctx, jobs[0]!);
    await finishBatch(ctx, jobs[0]!);
    expect(await admitBatch(ctx, jobs[5]!)).toBe('start');
    expect(await admitBatch(ctx, jobs[6]!)).toBe('wait');
    await planBatch(ctx, jobs[1]!);
    await failBatch(ctx, jobs[1]!, { reason: 'batch_chunks_missing', detail: 'x' });
    expect(await admitBatch(ctx, jobs[6]!)).toBe('start');
  });

  it('lets go of the place of a batch that died without a word', async () => {
    const world = await makeWorld();
    const { ctx } = world;
    const jobs = [];
    for (let i = 0; i < 6; i++) {
      const { id } = await world.addCollection(`c${i}`);
      jobs.push(await jobFor(ctx, world.bucketId, await trigger(world, { collection_ids: [id] })));
    }
    for (const job of jobs.slice(0, 5)) await admitBatch(ctx, job);
    expect(await admitBatch(ctx, jobs[5]!)).toBe('wait');
    world.ports.clock.advance(7 * 3_600_000);
    expect(await admitBatch(ctx, jobs[5]!)).toBe('start');
  });

  it('takes a batch up to its limit of documents and no further; what changes documents only is not counted', async () => {
    const world = await makeWorld();
    const { ctx } = world;
    const { id } = await world.addCollection('articles');
    await world.addObjects(texts(3));
    const commit = async (documentsMax: number, body = {}) => {
      const job = await jobFor(ctx, world.bucketId, await trigger(world, body));
      await admitBatch(ctx, job);
      const plan = await planBatch(ctx, job);
      for (const pointer of await pointersOf(ctx, plan.chunks_key)) await runChunk(ctx, pointer);
      try {
        await commitBatch(ctx, job, { documentsMax });
      } catch (error) {
        await failBatch(ctx, job, { reason: 'quota_exceeded', detail: 'x' });
        throw error;
      }
      await finishBatch(ctx, job);
    };
    await commit(3);
    await commit(3, { dedup_strategy: 'force' });
    await world.addObjects(['one more']);
    await expect(commit(3)).rejects.toMatchObject({ code: 'quota_exceeded' });
    expect(await indexedIds(ctx, id)).toHaveLength(3);
    await commit(4);
    expect(await indexedIds(ctx, id)).toHaveLength(4);
  });
});
