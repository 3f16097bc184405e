// Step 5 on the deployed stack: collections, batches with their progress and failures, and the documents that come of them.
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Client, Json, Setup, Workspace } from '../stack.ts';
import {
  batchEnd,
  listAll,
  listDocuments,
  makeCollection,
  makeWorkspace,
  putTexts,
  runBatch,
  triggerBatch,
  until,
  usePickyPlugin,
  usePlugin,
  wordFeature,
} from '../stack.ts';

let space: Workspace;
let client: Client;

beforeAll(async () => {
  space = await makeWorkspace('batches');
  client = space.client;
  await usePlugin(space);
  await usePickyPlugin(space);
});
afterAll(() => space?.close());

describe('a collection', () => {
  it('is made in both spellings, read by id and name, changed and deleted', async () => {
    const setup = await makeCollection(space, 'life');
    const read = await client.call('GET', `${space.path}/collections/life`);
    expect(read).toMatchObject({
      collection_id: setup.collectionId,
      collection_name: 'life',
      name: 'life',
      document_count: 0,
    });
    expect(read.features).toEqual([
      expect.objectContaining({ feature_uri: wordFeature, embedding_dim: 128 }),
    ]);
    const other = await client.call(
      'POST',
      '/v1/collections',
      {
        collection_name: 'client-form',
        feature_extractor: { feature_extractor_name: 'word_embed', version: 'v1.0.0' },
        source: { type: 'bucket', bucket_id: 'life' },
      },
      { 'X-Namespace': space.namespaceName },
    );
    expect(other.feature_extractor).toEqual(other.feature_extractors[0]);
    expect(
      await client.call('PATCH', `${space.path}/collections/client-form`, { description: 'changed' }),
    ).toMatchObject({ description: 'changed' });
    expect(
      (await client.call('GET', `${space.path}/collections`)).results.map((one: Json) => one.name),
    ).toEqual(expect.arrayContaining(['life', 'client-form']));
    expect((await client.ask('DELETE', `${space.path}/collections/client-form`)).status).toBe(200);
    expect((await client.ask('GET', `${space.path}/collections/client-form`)).status).toBe(404);
  });

  it.each([
    [
      'a plugin that does not exist',
      { feature_extractors: [{ feature_extractor_name: 'absent', version: '1.0.0' }] },
      [404, 422],
    ],
    [
      'a bucket that does not exist',
      { source: { type: 'bucket', bucket_ids: [`bkt_${'0'.repeat(20)}`] } },
      [404],
    ],
    ['no extractor', { feature_extractors: undefined }, [422]],
    ['an unknown key', { colour: 'red' }, [422]],
  ])('is refused with %s', async (_, change, statuses) => {
    const reply = await client.ask('POST', `${space.path}/collections`, {
      name: 'refused',
      feature_extractors: [{ feature_extractor_name: 'word_embed', version: '1.0.0' }],
      source: { type: 'bucket', bucket_ids: ['life'] },
      ...change,
    });
    expect(statuses).toContain(reply.status);
    expect((await client.ask('GET', `${space.path}/collections/refused`)).status).toBe(404);
  });
});

describe('a batch', () => {
  it('makes one document of each object, with its text, metadata, vector and lineage, and counts them', async () => {
    const setup = await makeCollection(space, 'simple');
    const ids = await putTexts(space, setup, [
      { text: 'red apples and green pears', metadata: { topic: 'fruit', price: 3 } },
      { text: 'blue whales sing', metadata: { topic: 'sea', price: 5 } },
      { text: 'owls hunt at night' },
    ]);
    const triggered = await triggerBatch(space, setup);
    expect(triggered).toMatchObject({
      batch_id: expect.stringMatching(/^btch_/),
      status: 'PENDING',
      lifecycle: expect.any(String),
      task_id: expect.any(String),
    });
    const batch = await batchEnd(space, setup, triggered.batch_id);
    expect(batch).toMatchObject({
      status: 'COMPLETED',
      lifecycle: 'finished',
      progress: { total: 3, processed: 3, failed: 0 },
      failed_object_count: 0,
      post_processing: [],
    });
    for (const name of ['created_at', 'submitted_at', 'started_at', 'completed_at'])
      expect(Date.parse(batch[name])).not.toBeNaN();

    const documents = await listDocuments(space, setup, { return_vectors: true });
    expect(documents.map((one) => one._internal.lineage.object_id).sort()).toEqual([...ids].sort());
    const apples = documents.find((one) => one.topic === 'fruit')!;
    expect(apples).toMatchObject({
      text: 'red apples and green pears',
      price: 3,
      metadata: { topic: 'fruit' },
    });
    expect(apples._internal.lineage).toMatchObject({
      bucket_id: setup.bucketId,
      batch_id: batch.batch_id,
      feature_extractor_id: 'word_embed_1_0_0',
    });
    expect(apples.vectors[wordFeature]).toHaveLength(128);
    expect(await client.call('GET', setup.collection)).toMatchObject({ document_count: 3 });
    expect(await client.call('GET', `/v1/tasks/${batch.task_id}`)).toMatchObject({ status: 'COMPLETED' });
  });

  it('of an empty bucket is COMPLETED with nothing in it', async () => {
    const setup = await makeCollection(space, 'empty');
    expect(await runBatch(space, setup)).toMatchObject({ progress: { total: 0, processed: 0, failed: 0 } });
  });

  it('skips objects that were done before, unless it is told to do them again', async () => {
    const setup = await makeCollection(space, 'again');
    await putTexts(space, setup, ['one', 'two']);
    await runBatch(space, setup);
    await putTexts(space, setup, ['three']);
    expect(await runBatch(space, setup)).toMatchObject({ progress: { total: 3, processed: 1, skipped: 2 } });
    expect(await runBatch(space, setup, { dedup_strategy: 'force' })).toMatchObject({
      progress: { total: 3, processed: 3, skipped: 0 },
    });
    expect(await listDocuments(space, setup)).toHaveLength(3);
  });

  it('with a few rows that the plugin refuses completes without them and lists each with its cause', async () => {
    const setup = await makeCollection(space, 'tolerated', {
      plugin: 'picky_embed',
      collection: { max_failure_share: 0.5 },
    });
    const ids = await putTexts(space, setup, ['fine words', 'some poison here', 'more fine words', 'good']);
    const batch = await runBatch(space, setup);
    expect(batch).toMatchObject({ progress: { total: 4, processed: 3, failed: 1 }, failed_object_count: 1 });
    const { results } = await client.call('GET', `${setup.bucket}/batches/${batch.batch_id}/failures`);
    // Of the plugin's own code: the line that raised.
    expect(results[0].traceback).toContain('pipeline.py');
    expect(results[0].traceback).toContain('will not eat this');
    const logs = await client.call('GET', `${setup.bucket}/batches/${batch.batch_id}/logs?failed_only=true`);
    expect(logs.results[0].failures).toMatchObject([{ traceback: results[0].traceback }]);
    expect(results).toEqual([
      expect.objectContaining({
        object_id: ids[1],
        message: expect.stringContaining('will not eat this'),
        error_type: expect.any(String),
      }),
    ]);
    expect((await listDocuments(space, setup)).map((one) => one._internal.lineage.object_id).sort()).toEqual(
      [ids[0], ids[2], ids[3]].sort(),
    );
  });

  it('with more failures than tolerated is FAILED and shows nothing; a retry after a change commits all of it', async () => {
    const setup = await makeCollection(space, 'refused-rows', { plugin: 'picky_embed' });
    const ids = await putTexts(space, setup, ['fine words', 'some poison here', 'poison again']);
    const { batch_id } = await triggerBatch(space, setup);
    const batch = await batchEnd(space, setup, batch_id);
    expect(batch).toMatchObject({ status: 'FAILED', failed_object_count: 2 });
    expect(batch.failure_reason ?? batch.error).toBeTruthy();
    expect(await listDocuments(space, setup)).toEqual([]);
    const failures = await client.call('GET', `${setup.bucket}/batches/${batch_id}/failures`);
    expect(failures.results.map((one: Json) => one.object_id).sort()).toEqual([ids[1], ids[2]].sort());

    await client.call('POST', `${setup.bucket}/batches/${batch_id}/retry`, { max_failure_share: 0.9 });
    const retried = await until('the end of the retry', async () => {
      const found = await client.call('GET', `${setup.bucket}/batches/${batch_id}`);
      return found.attempt === 2 && ['COMPLETED', 'FAILED'].includes(found.status) ? found : undefined;
    });
    expect(retried).toMatchObject({
      status: 'COMPLETED',
      attempt: 2,
      progress: { total: 3, processed: 1, failed: 2 },
    });
    expect((await listDocuments(space, setup)).map((one) => one._internal.lineage.object_id)).toEqual([
      ids[0],
    ]);
  });

  it('can be drafted with chosen objects, filled, submitted and cancelled', async () => {
    const setup = await makeCollection(space, 'drafted');
    const ids = await putTexts(space, setup, ['first', 'second', 'third']);
    const draft = await client.call('POST', `${setup.bucket}/batches`, {
      object_ids: [ids[0]],
      collection_ids: [setup.collectionId],
    });
    expect(draft).toMatchObject({ status: 'DRAFT' });
    const path = `${setup.bucket}/batches/${draft.batch_id}`;
    await client.call('POST', `${path}/objects`, { object_ids: [ids[1]] });
    await client.call('POST', `${path}/submit`);
    expect(await batchEnd(space, setup, draft.batch_id)).toMatchObject({
      status: 'COMPLETED',
      progress: { total: 2, processed: 2 },
    });
    expect((await listDocuments(space, setup)).map((one) => one.text).sort()).toEqual(['first', 'second']);
    expect(await client.refused(409, 'POST', `${path}/submit`)).toMatchObject({ code: 'batch_wrong_state' });
    const other = await client.call('POST', `${setup.bucket}/batches`, {
      object_ids: [ids[2]],
      collection_ids: [setup.collectionId],
    });
    await client.call('POST', `${setup.bucket}/batches/${other.batch_id}/cancel`);
    expect(await client.call('GET', `${setup.bucket}/batches/${other.batch_id}`)).toMatchObject({
      status: 'CANCELED',
    });
    expect(
      (await listAll(space, `${setup.bucket}/batches`, { status: 'COMPLETED' })).map((one) => one.batch_id),
    ).toEqual([draft.batch_id]);
  });

  it('that is cancelled after it was triggered is FAILED, says so, and shows nothing', async () => {
    const setup = await makeCollection(space, 'cancelled');
    await putTexts(space, setup, ['kept out']);
    const { batch_id } = await triggerBatch(space, setup);
    const reply = await client.ask('POST', `${setup.bucket}/batches/${batch_id}/cancel`, {
      reason: 'not today',
    });
    const batch = await batchEnd(space, setup, batch_id);
    // Whoever comes too late is told so, and then the batch is whole.
    if (reply.status === 409) expect(batch.status).toBe('COMPLETED');
    else
      expect({ status: reply.status, batch }).toMatchObject({
        status: 200,
        batch: { status: 'FAILED', failure_reason: 'canceled' },
      });
    expect(await listDocuments(space, setup)).toHaveLength(reply.status === 409 ? 1 : 0);
  });

  it('waits for a running one of its collection, and both are done in the end', async () => {
    const setup = await makeCollection(space, 'in-turn');
    await putTexts(
      space,
      setup,
      Array.from({ length: 30 }, (_, i) => `text ${i}`),
    );
    const first = await triggerBatch(space, setup, { batch_name: 'first' });
    await putTexts(space, setup, ['late']);
    const second = await triggerBatch(space, setup, { dedup_strategy: 'force' });
    for (const { batch_id } of [first, second])
      expect(await batchEnd(space, setup, batch_id)).toMatchObject({ status: 'COMPLETED' });
    expect(await listDocuments(space, setup)).toHaveLength(31);
  });

  it.each([
    ['a collection that does not exist', { collection_ids: [`col_${'0'.repeat(20)}`] }, 404],
    ['a collection that does not read the bucket', { collection_ids: ['elsewhere'] }, 422],
    ['an unknown key', { everything: true }, 422],
  ])('is refused with %s', async (title, body, status) => {
    const setup = await makeCollection(space, `refused-${title.length}`);
    if (
      status === 422 &&
      'collection_ids' in body &&
      (await client.ask('GET', `${space.path}/collections/elsewhere`)).status === 404
    ) {
      await makeCollection(space, 'elsewhere');
    }
    const fault = await client.refused(status, 'POST', `${setup.bucket}/batches/trigger`, body);
    expect(fault.message.length).toBeGreaterThan(10);
    expect((await client.call('GET', `${setup.bucket}/batches`)).results).toEqual([]);
  });

  it('that does not exist, or belongs to another bucket, is 404', async () => {
    const setup = await makeCollection(space, 'absent-batch');
    const path = `${setup.bucket}/batches/btch_${'0'.repeat(20)}`;
    expect((await client.ask('GET', path)).status).toBe(404);
    expect((await client.ask('GET', `${path}/failures`)).status).toBe(404);
    expect((await client.ask('POST', `${path}/cancel`)).status).toBe(404);
    expect((await client.ask('POST', `${path}/retry`)).status).toBe(404);
  });
});

describe('a document', () => {
  let setup: Setup;
  let documents: Json[];
  beforeAll(async () => {
    setup = await makeCollection(space, 'documents');
    await putTexts(
      space,
      setup,
      Array.from({ length: 25 }, (_, i) => ({
        text: `text number ${i}`,
        metadata: { i, even: i % 2 === 0 },
      })),
    );
    await runBatch(space, setup);
    documents = await listDocuments(space, setup);
  });

  it('is read by its id, and listed in pages, by filter and in order', async () => {
    const [one] = documents;
    expect(await client.call('GET', `${setup.collection}/documents/${one.document_id}`)).toMatchObject({
      document_id: one.document_id,
      text: one.text,
    });
    const even = await listDocuments(space, setup, {
      filters: { field: 'metadata.even', operator: 'eq', value: true },
    });
    expect(even.map((found) => found.i).sort((a, b) => a - b)).toEqual(
      Array.from({ length: 13 }, (_, i) => 2 * i),
    );
    const sorted = await client.call('POST', `${setup.collection}/documents/list`, {
      sort: { field: 'i', direction: 'desc' },
      limit: 3,
    });
    expect(sorted.results.map((found: Json) => found.i)).toEqual([24, 23, 22]);
    const paged = await listAll(space, `${setup.collection}/documents`, {}, 10);
    expect(new Set(paged.map((found) => found.document_id)).size).toBe(25);
  });

  it('shows a patch at once, in reads and in filters', async () => {
    const { document_id } = documents[1];
    const path = `${setup.collection}/documents/${document_id}`;
    expect(await client.call('PATCH', path, { mood: 'happy' })).toMatchObject({ mood: 'happy' });
    expect(
      (await listDocuments(space, setup, { filters: { field: 'mood', operator: 'eq', value: 'happy' } })).map(
        (one) => one.document_id,
      ),
    ).toEqual([document_id]);
    await client.call('PATCH', path, { mood: 'sad' });
    expect(
      await listDocuments(space, setup, {
        filters: { field: 'metadata.mood', operator: 'eq', value: 'happy' },
      }),
    ).toEqual([]);
  });

  it('is gone from reads, lists and counts as soon as it is deleted', async () => {
    const { document_id } = documents[2];
    const path = `${setup.collection}/documents/${document_id}`;
    expect((await client.ask('DELETE', path)).status).toBe(200);
    expect((await client.ask('GET', path)).status).toBe(404);
    expect((await client.ask('DELETE', path)).status).toBe(404);
    expect((await listDocuments(space, setup)).map((one) => one.document_id)).not.toContain(document_id);
  });
});
