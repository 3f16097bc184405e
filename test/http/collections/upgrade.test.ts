// A collection that takes another version of its plugin: exactly the old answers until the commit, exactly the new ones
// from it on, whatever fails, dies or runs beside it.
import { afterEach, describe, expect, it } from 'vitest';
import { setCrashHook } from '../../../functions/core/crash.ts';
import type { StoredBatch } from '../../../functions/core/resources/batches/store.ts';
import { findBatch } from '../../../functions/core/resources/batches/store.ts';
import {
  admitBatch,
  commitBatch,
  finishBatch,
  planBatch,
  runChunk,
} from '../../../functions/core/resources/batches/workflow.ts';
import { getCollection } from '../../../functions/core/resources/collections/service.ts';
import { RunReads } from '../../../functions/core/resources/retrievers/run-reads.ts';
import { IndexSearchPort } from '../../../functions/core/resources/retrievers/search-port.ts';
import { rulesFor } from '../../../functions/core/resources/transfers/check-rows.ts';
import { openIndex } from '../../../functions/core/store/vector-index.ts';
import type { World } from '../../unit/batches/world.ts';
import {
  eventsOf,
  indexedIds,
  jobFor,
  jobsOf,
  makeWorld,
  pointersOf,
  runBatch,
  vectorFor,
} from '../../unit/batches/world.ts';
import { makeApp } from '../app.ts';
import { expectError, expectSameRefusal, faults } from '../expect.ts';

const ns = '/v1/namespaces/{ns}';
const uriOf = (version: string, feature = 'embedder_embedding') => `mixpeek://embedder@${version}/${feature}`;
const dimsOf: Record<string, number> = { '1.0.0': 4, '1.1.0': 6, '2.0.0': 3 };
const texts = Array.from({ length: 12 }, (_, i) => `text ${i}`);

class Killed extends Error {}

afterEach(() => setCrashHook(undefined));

/** The vector that a version of the plugin makes of a text. */
const vectorBy = (version: string, text: string) => vectorFor(`${version} ${text}`, dimsOf[version]!);

function cosine(a: readonly number[], b: readonly number[]): number {
  const dot = (x: readonly number[], y: readonly number[]) => x.reduce((sum, v, i) => sum + v * y[i]!, 0);
  return dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
}

/** Texts by their likeness to a query, as a version of the plugin sees it. */
function ranked(version: string, query: string, among: readonly string[] = texts): string[] {
  const score = (text: string) => cosine(vectorBy(version, query), vectorBy(version, text));
  return among.toSorted((a, b) => score(b) - score(a));
}

interface Upgradable extends World {
  readonly collectionId: string;
  readonly objectIds: readonly string[];
  /** Texts of the hits of a search, best first. */
  search(query: string, uri?: string, more?: Record<string, unknown>): Promise<string[]>;
  upgrade(version: string, more?: Record<string, unknown>): Promise<StoredBatch>;
}

/** A collection of twelve documents by version 1.0.0; 1.1.0 and 2.0.0 are deployed, with other dimensions. */
async function build(): Promise<Upgradable> {
  const world = await makeWorld();
  for (const version of ['1.1.0', '2.0.0'])
    await world.addPlugin('embedder', [{ name: 'embedder_embedding', dims: dimsOf[version]! }], { version });
  world.runner.behave = (row, event) => {
    const version = event.plugin.plugin_id.slice('embedder_'.length).replaceAll('_', '.');
    return { vector: vectorBy(version, row.data) };
  };
  const collection = await world.addCollection('articles');
  const objectIds = await world.addObjects(texts);
  await trigger(world);
  const search: Upgradable['search'] = async (query, uri = uriOf('1.0.0'), more = {}) => {
    const reply = await world.call('POST', `${ns}/retrievers/execute`, {
      collection_ids: ['articles'],
      stages: [
        {
          stage_name: 'search',
          config: {
            stage_id: 'feature_search',
            parameters: {
              searches: [{ feature_uri: uri, query: '{{INPUT.query}}', top_k: 100 }],
              final_top_k: 100,
            },
          },
        },
      ],
      inputs: { query },
      pagination: { method: 'offset', page_size: 100 },
      ...more,
    });
    if (reply.status !== 200) throw new Error(JSON.stringify(reply.body));
    return reply.body.results.map((hit: { text: string }) => hit.text);
  };
  const upgrade: Upgradable['upgrade'] = async (version, more = {}) => {
    const reply = await world.call('POST', `${ns}/collections/articles/upgrade`, {
      feature_extractor_name: 'embedder',
      version,
      ...more,
    });
    if (reply.status !== 202) throw new Error(JSON.stringify(reply.body));
    return (await findBatch(world.ctx, reply.body.bucket_id, reply.body.batch_id))!;
  };
  return { ...world, collectionId: collection.id, objectIds, search, upgrade };
}

async function trigger(world: World): Promise<string> {
  const { batch_id } = (await world.call('POST', `${ns}/buckets/articles/batches/trigger`)).body;
  await runBatch(world.ctx, await jobFor(world.ctx, world.bucketId, batch_id));
  return batch_id;
}

const run = async (world: World, batch: StoredBatch) =>
  runBatch(world.ctx, await jobFor(world.ctx, batch.bucket_id, batch.batch_id));
const reread = async (world: World, batch: StoredBatch) =>
  (await findBatch(world.ctx, batch.bucket_id, batch.batch_id))!;

describe('an upgrade', () => {
  it('answers 202 with a batch that waits, its task, its job and its event', async () => {
    const world = await build();
    const reply = await world.call('POST', `${ns}/collections/articles/upgrade`, {
      feature_extractor_name: 'embedder',
      version: 'v1.1',
    });
    expect(reply.status).toBe(202);
    expect(reply.body).toMatchObject({
      status: 'PENDING',
      collection_ids: [world.collectionId],
      dedup_strategy: 'force',
      upgrade: {
        from_feature_extractor_id: 'embedder_1_0_0',
        feature_extractor_id: 'embedder_1_1_0',
        feature_aliases: { [uriOf('1.0.0')]: uriOf('1.1.0') },
        bucket_ids: [world.bucketId],
      },
    });
    expect(jobsOf(world)).toContainEqual(await jobFor(world.ctx, world.bucketId, reply.body.batch_id));
    expect(jobsOf(world)).toHaveLength(2);
    expect(eventsOf(world, 'batch.submitted')).toHaveLength(2);
    expect((await world.call('GET', `/v1/tasks/${reply.body.task_id}`)).body).toMatchObject({
      status: 'PENDING',
      task_type: 'api_collections_upgrade',
    });
  });

  it('leaves every search as it was until its commit, and from then on all of them see the new vectors', async () => {
    const world = await build();
    const { ctx } = world;
    const ids = await indexedIds(ctx, world.collectionId);
    const batch = await world.upgrade('1.1.0');
    const job = await jobFor(ctx, world.bucketId, batch.batch_id);
    const isOld = async () => {
      expect(await world.search('text 3')).toEqual(ranked('1.0.0', 'text 3'));
      expect(await world.search('another')).toEqual(ranked('1.0.0', 'another'));
    };
    await isOld();
    expect(await admitBatch(ctx, job)).toBe('start');
    const plan = await planBatch(ctx, job);
    await isOld();
    for (const pointer of await pointersOf(ctx, plan.chunks_key)) await runChunk(ctx, pointer);
    await isOld();
    await commitBatch(ctx, job);
    const isNew = async (uri: string) => {
      expect(await world.search('text 3', uri)).toEqual(ranked('1.1.0', 'text 3'));
      expect(await world.search('another', uri)).toEqual(ranked('1.1.0', 'another'));
    };
    await isNew(uriOf('1.0.0'));
    await finishBatch(ctx, job);
    await isNew(uriOf('1.0.0'));
    await isNew(uriOf('1.1.0'));
    expect(ranked('1.1.0', 'another')).not.toEqual(ranked('1.0.0', 'another'));
    expect(await indexedIds(ctx, world.collectionId)).toEqual(ids);
    const view = await openIndex(ctx, world.collectionId);
    expect(Object.keys(view.manifest.features).toSorted()).toEqual(['granary://documents', uriOf('1.1.0')]);
    expect((await world.call('GET', `${ns}/collections/articles`)).body).toMatchObject({
      document_count: 12,
      feature_extractors: [{ feature_extractor_id: 'embedder_1_1_0', version: '1.1.0' }],
      features: [{ feature_uri: uriOf('1.1.0'), embedding_dim: 6 }],
      feature_aliases: { [uriOf('1.0.0')]: uriOf('1.1.0') },
    });
    expect(await reread(world, batch)).toMatchObject({
      status: 'COMPLETED',
      progress: { total: 12, processed: 12, failed: 0, skipped: 0 },
    });
  });

  it('lets the old version be deleted after the commit, also where a retriever names it, and not before', async () => {
    const world = await build();
    const made = await world.call('POST', `${ns}/retrievers`, {
      name: 'by_text',
      collection_ids: ['articles'],
      stages: [
        {
          stage_name: 'search',
          config: {
            stage_id: 'feature_search',
            parameters: { searches: [{ feature_uri: uriOf('1.0.0'), query: '{{INPUT.query}}' }] },
          },
        },
      ],
    });
    expect(made.status).toBe(200);
    const batch = await world.upgrade('1.1.0');
    const remove = () => world.call('DELETE', `${ns}/plugins/embedder_1_0_0`);
    expectError(await remove(), 'plugin_in_use');
    await run(world, batch);
    expect((await remove()).status).toBe(200);
    expectError(await world.call('DELETE', `${ns}/plugins/embedder_1_1_0`), 'plugin_in_use');
    const hits = await world.call('POST', `${ns}/retrievers/by_text/execute`, {
      inputs: { query: 'text 3' },
    });
    expect(hits.body.results[0].text).toBe('text 3');
    // And it can be changed although the version that it names is gone.
    const changed = await world.call('PATCH', `${ns}/retrievers/by_text`, {
      stages: made.body.stages,
    });
    expect(changed.status).toBe(200);
  });

  it('keeps a change of the collection that was made while it ran', async () => {
    const world = await build();
    const { ctx } = world;
    const batch = await world.upgrade('1.1.0');
    const job = await jobFor(ctx, world.bucketId, batch.batch_id);
    await admitBatch(ctx, job);
    const plan = await planBatch(ctx, job);
    for (const pointer of await pointersOf(ctx, plan.chunks_key)) await runChunk(ctx, pointer);
    let patched = false;
    setCrashHook((name) => {
      if (name === 'batch.commit.after_manifest' && !patched) {
        patched = true;
        // Between the read of the row and the transaction, as a request of somebody else's would.
        const key = ctx.ns.resource('COLLECTION', world.collectionId);
        const item = world.ports.table.dump().find(({ pk, sk }) => pk === key.pk && sk === key.sk)!;
        Object.assign(item, { description: 'changed', revision: Number(item.revision) + 1 });
        void world.ports.table.writeMany([{ put: item }]);
      }
    });
    await commitBatch(ctx, job);
    expect(patched).toBe(true);
    expect(await getCollection(ctx, 'articles')).toMatchObject({
      description: 'changed',
      feature_extractors: [{ plugin_id: 'embedder_1_1_0' }],
    });
    expect(await world.search('text 3')).toEqual(ranked('1.1.0', 'text 3'));
  });

  it('may follow another, or go back: every older URI names what is there now', async () => {
    const world = await build();
    await run(world, await world.upgrade('1.1.0'));
    await run(world, await world.upgrade('2.0.0'));
    for (const version of ['1.0.0', '1.1.0', '2.0.0'])
      expect(await world.search('text 5', uriOf(version))).toEqual(ranked('2.0.0', 'text 5'));
    expect((await getCollection(world.ctx, 'articles')).feature_aliases).toEqual({
      [uriOf('1.0.0')]: uriOf('2.0.0'),
      [uriOf('1.1.0')]: uriOf('2.0.0'),
    });
    await run(world, await world.upgrade('1.0.0'));
    for (const version of ['1.0.0', '1.1.0', '2.0.0'])
      expect(await world.search('text 5', uriOf(version))).toEqual(ranked('1.0.0', 'text 5'));
    expect((await getCollection(world.ctx, 'articles')).feature_aliases).toEqual({
      [uriOf('1.1.0')]: uriOf('1.0.0'),
      [uriOf('2.0.0')]: uriOf('1.0.0'),
    });
  });

  it('runs the objects of all buckets of the collection in one batch, and says where each came from', async () => {
    const world = await build();
    const second = await world.call('POST', `${ns}/buckets`, {
      name: 'second',
      bucket_schema: { properties: { text: { type: 'text' } } },
    });
    const both = await world.addCollection('both', ['embedder'], {
      source: { type: 'bucket', bucket_ids: ['articles', 'second'] },
    });
    await world.call('POST', `${ns}/buckets/second/objects`, { text: 'elsewhere' });
    const reply = await world.call('POST', `${ns}/collections/both/upgrade`, {
      feature_extractor_name: 'embedder',
      version: '1.1.0',
    });
    const { batch_id } = reply.body;
    await runBatch(world.ctx, await jobFor(world.ctx, world.bucketId, batch_id));
    const documents = await world.call('POST', `${ns}/collections/both/documents/list`, { limit: 100 });
    expect(documents.body.total_count).toBe(13);
    const elsewhere = documents.body.results.find((one: { text: string }) => one.text === 'elsewhere');
    expect(elsewhere._internal.lineage.bucket_id).toBe(second.body.bucket_id);
    // What failed in several buckets is run by a trigger of the collection.
    world.runner.behave = (row) => (row.data === 'text 1' ? { fail: 'plugin_row_failed' } : {});
    const next = await world.call('POST', `${ns}/collections/both/upgrade`, {
      feature_extractor_name: 'embedder',
      version: '2.0.0',
    });
    await runBatch(world.ctx, await jobFor(world.ctx, world.bucketId, next.body.batch_id));
    const retry = await world.call('POST', `${ns}/buckets/articles/batches/${next.body.batch_id}/retry`);
    expectError(retry, 'batch_wrong_state');
    expect(retry.body.error.message).toContain('trigger its collection');
    await run(
      world,
      (
        await world.call('POST', `${ns}/collections/both/upgrade`, {
          feature_extractor_name: 'embedder',
          version: '1.1.0',
        })
      ).body,
    );
    expect((await getCollection(world.ctx, both.id)).feature_extractors[0]!.version).toBe('1.1.0');
  });

  it('of a collection that nothing was ever run over changes its extractor, and its first documents are by the new one', async () => {
    const world = await build();
    await world.addCollection('fresh');
    const upgrade = () =>
      world.call('POST', `${ns}/collections/fresh/upgrade`, {
        feature_extractor_name: 'embedder',
        version: '2.0.0',
      });
    const { batch_id } = (await upgrade()).body;
    await runBatch(world.ctx, await jobFor(world.ctx, world.bucketId, batch_id));
    const found = await world.search('text 0', uriOf('1.0.0'), { collection_ids: ['fresh'] });
    expect(found).toEqual(ranked('2.0.0', 'text 0'));
    const empty = await world.call('POST', `${ns}/buckets`, {
      name: 'empty',
      bucket_schema: { properties: { text: { type: 'text' } } },
    });
    const none = await world.addCollection('none', ['embedder'], {
      source: { type: 'bucket', bucket_ids: ['empty'] },
    });
    const reply = await world.call('POST', `${ns}/collections/none/upgrade`, {
      feature_extractor_name: 'embedder',
      version: '2.0.0',
    });
    await runBatch(world.ctx, await jobFor(world.ctx, empty.body.bucket_id, reply.body.batch_id));
    expect((await getCollection(world.ctx, none.id)).feature_extractors[0]!.version).toBe('2.0.0');
  });

  it('over more objects than one batch takes fails with the way out, and changes nothing', async () => {
    const world = await build();
    const batch = await world.upgrade('1.1.0');
    const job = await jobFor(world.ctx, world.bucketId, batch.batch_id);
    await admitBatch(world.ctx, job);
    await expect(planBatch(world.ctx, job, { objectsMax: 11 })).rejects.toMatchObject({
      code: 'batch_too_large',
      detail: expect.stringContaining('second collection') as string,
    });
    await planBatch(world.ctx, job, { objectsMax: 12 });
    expect(await world.search('text 3')).toEqual(ranked('1.0.0', 'text 3'));
  });

  it('of one of two extractors leaves the features of the other as they are', async () => {
    const world = await build();
    await world.addPlugin('other', [{ name: 'other_embedding', dims: 5 }]);
    const { behave } = world.runner;
    world.runner.behave = (row, event) =>
      event.plugin.plugin_id === 'other_1_0_0' ? { vector: vectorFor(row.data, 5) } : behave(row, event);
    const two = await world.addCollection('two', ['embedder', 'other']);
    await trigger(world);
    const other = 'mixpeek://other@1.0.0/other_embedding';
    const options = { collection_ids: ['two'] };
    const before = await world.search('text 1', other, options);
    const reply = await world.call('POST', `${ns}/collections/two/upgrade`, {
      feature_extractor_name: 'embedder',
      version: '2.0.0',
    });
    await runBatch(world.ctx, await jobFor(world.ctx, world.bucketId, reply.body.batch_id));
    expect(await world.search('text 1', other, options)).toEqual(before);
    expect(await world.search('text 1', uriOf('1.0.0'), options)).toEqual(ranked('2.0.0', 'text 1'));
    expect((await getCollection(world.ctx, two.id)).feature_extractors.map((e) => e.plugin_id)).toEqual([
      'embedder_2_0_0',
      'other_1_0_0',
    ]);
  });

  it('of one of two collections that a search reads gives each the query as its own version embeds it', async () => {
    const world = await build();
    await world.addCollection('behind');
    await trigger(world);
    await run(world, await world.upgrade('1.1.0'));
    const score = (version: string, text: string) =>
      cosine(vectorBy(version, 'text 6'), vectorBy(version, text));
    const wanted = ['1.0.0', '1.1.0']
      .flatMap((version) => texts.map((text) => ({ text, score: score(version, text) })))
      .toSorted((a, b) => b.score - a.score);
    const both = { collection_ids: ['articles', 'behind'] };
    const found = await world.search('text 6', uriOf('1.0.0'), both);
    // The best of both are the very text, with the score 1.
    expect(found).toEqual(wanted.map(({ text }) => text));
    const vector = [...vectorBy('1.0.0', 'text 6')];
    const given = { searches: [{ feature_uri: uriOf('1.0.0'), query: { input_mode: 'vector', vector } }] };
    const reply = await world.call('POST', `${ns}/retrievers/execute`, {
      ...both,
      stages: [{ stage_name: 'search', config: { stage_id: 'feature_search', parameters: given } }],
      inputs: {},
    });
    expect(reply.status).toBe(422);
  });

  it('refuses vectors of the old version from imports, although searches may name them so', async () => {
    const world = await build();
    const before = rulesFor(world.ctx, await getCollection(world.ctx, 'articles'), 'imp', '');
    expect(before.feature(uriOf('1.0.0'))).toMatchObject({ dims: 4 });
    await run(world, await world.upgrade('1.1.0'));
    const after = rulesFor(world.ctx, await getCollection(world.ctx, 'articles'), 'imp', '');
    expect(after.feature(uriOf('1.0.0'))).toBeUndefined();
    expect(after.feature(uriOf('1.1.0'))).toMatchObject({ dims: 6 });
  });

  it('ends documents that the new version does not make, and adds those that only it makes', async () => {
    const world = await build();
    const { behave } = world.runner;
    world.runner.behave = (row, event) => {
      const made = behave(row, event);
      if (event.operation !== 'run') return made;
      return { ...made, outputs: row.data === 'text 1' ? 3 : row.data === 'text 2' ? 0 : 1 };
    };
    await run(world, await world.upgrade('1.1.0'));
    const kept = texts.filter((text) => text !== 'text 2');
    const found = await world.search('text 5');
    expect(found.filter((text, i) => found.indexOf(text) === i)).toEqual(ranked('1.1.0', 'text 5', kept));
    expect(found).toHaveLength(13);
    expect(await indexedIds(world.ctx, world.collectionId)).toHaveLength(13);
    expect((await world.call('GET', `${ns}/collections/articles`)).body.document_count).toBe(13);
  });

  it('maps features whose names differ, as the request says', async () => {
    const world = await build();
    await world.addPlugin('embedder', [{ name: 'renamed', dims: 7 }], { version: '3.0.0' });
    dimsOf['3.0.0'] = 7;
    await run(world, await world.upgrade('3.0.0', { feature_mapping: { embedder_embedding: 'renamed' } }));
    expect(await world.search('text 2')).toEqual(ranked('3.0.0', 'text 2'));
    expect(await world.search('text 2', uriOf('3.0.0', 'renamed'))).toEqual(ranked('3.0.0', 'text 2'));
  });
});

describe('objects that fail in an upgrade', () => {
  it('within the tolerated share keep their documents, are found by no vector, and are run by the next trigger alone', async () => {
    const world = await build();
    const { behave } = world.runner;
    world.runner.behave = (row, event) =>
      row.data === 'text 7' && event.operation === 'run' ? { fail: 'plugin_row_failed' } : behave(row, event);
    const batch = await world.upgrade('1.1.0');
    await run(world, batch);
    expect(await reread(world, batch)).toMatchObject({ status: 'COMPLETED', progress: { failed: 1 } });
    const rest = texts.filter((text) => text !== 'text 7');
    expect(await world.search('text 3')).toEqual(ranked('1.1.0', 'text 3', rest));
    expect(await indexedIds(world.ctx, world.collectionId)).toHaveLength(12);
    world.runner.behave = behave;
    world.runner.calls.length = 0;
    await trigger(world);
    expect(world.runner.calls.flatMap((call) => call.rows.map((row) => row.data))).toEqual(['text 7']);
    expect(await world.search('text 3')).toEqual(ranked('1.1.0', 'text 3'));
  });

  it('are run by the next upgrade and the next trigger, also back at the version that had made them once', async () => {
    const world = await build();
    const { behave } = world.runner;
    world.runner.behave = (row, event) =>
      row.data === 'text 7' && event.operation === 'run' ? { fail: 'plugin_row_failed' } : behave(row, event);
    await run(world, await world.upgrade('1.1.0'));
    await run(world, await world.upgrade('1.0.0'));
    const rest = texts.filter((text) => text !== 'text 7');
    expect(await world.search('text 3')).toEqual(ranked('1.0.0', 'text 3', rest));
    world.runner.behave = behave;
    world.runner.calls.length = 0;
    await trigger(world);
    expect(world.runner.calls.flatMap((call) => call.rows.map((row) => row.data))).toEqual(['text 7']);
    expect(await world.search('text 3')).toEqual(ranked('1.0.0', 'text 3'));
  });

  it('above it leave everything as it was, and a retry makes the rest and cuts over', async () => {
    const world = await build();
    const { behave } = world.runner;
    world.runner.behave = (row, event) =>
      /text [0-4]$/.test(row.data) && event.plugin.plugin_id === 'embedder_1_1_0'
        ? { fail: 'plugin_row_failed' }
        : behave(row, event);
    const batch = await world.upgrade('1.1.0');
    await run(world, batch);
    expect(await reread(world, batch)).toMatchObject({
      status: 'FAILED',
      failure_reason: 'batch_too_many_failures',
    });
    expect(await world.search('text 3')).toEqual(ranked('1.0.0', 'text 3'));
    expect(await getCollection(world.ctx, 'articles')).not.toHaveProperty('feature_aliases');
    world.runner.behave = behave;
    world.runner.calls.length = 0;
    const path = `${ns}/buckets/articles/batches/${batch.batch_id}`;
    expect((await world.call('POST', `${path}/retry`)).status).toBe(200);
    await run(world, await reread(world, batch));
    expect(world.runner.calls.flatMap((call) => call.rows.map((row) => row.data))).toEqual(texts.slice(0, 5));
    expect((await reread(world, batch)).status).toBe('COMPLETED');
    expect(await world.search('text 3')).toEqual(ranked('1.1.0', 'text 3'));
  });

  it('of an upgrade to a version that is deleted meanwhile fail it, and nothing changes', async () => {
    const world = await build();
    const { ctx } = world;
    const batch = await world.upgrade('1.1.0');
    const job = await jobFor(ctx, world.bucketId, batch.batch_id);
    await admitBatch(ctx, job);
    const plan = await planBatch(ctx, job);
    for (const pointer of await pointersOf(ctx, plan.chunks_key)) await runChunk(ctx, pointer);
    expect((await world.call('DELETE', `${ns}/plugins/embedder_1_1_0`)).status).toBe(200);
    await expect(commitBatch(ctx, job)).rejects.toMatchObject({ code: 'plugin_not_found' });
    expect(await world.search('text 3')).toEqual(ranked('1.0.0', 'text 3'));
  });
});

describe('an upgrade whose workers die', () => {
  for (const [point, passage] of [
    ['batch.plan.after_sequence', 1],
    ['batch.plan.after_plan_file', 1],
    ['batch.chunk.after_run', 1],
    ['batch.chunk.after_segments', 1],
    ['batch.chunk.after_results', 1],
    ['batch.chunk.after_receipt', 1],
    ['batch.chunk.between_rows', 1],
    ['batch.chunk.after_rows', 1],
    ['batch.commit.before', 1],
    ['batch.commit.after_manifest', 1],
    ['batch.commit.after_head', 1],
    ['batch.finish.before', 1],
    ['batch.finish.after', 1],
  ] as const) {
    it(`at ${point} shows the old version whole or the new one whole, and ends with the new one`, async () => {
      const world = await build();
      const { ctx } = world;
      const batch = await world.upgrade('1.1.0');
      const job = await jobFor(ctx, world.bucketId, batch.batch_id);
      let left: number = passage;
      let fired = 0;
      setCrashHook((name) => {
        if (name !== point || fired > 0) return;
        left -= 1;
        if (left > 0) return;
        fired += 1;
        throw new Killed(point);
      });
      const isOver = point === 'batch.commit.after_head' || point.startsWith('batch.finish');
      const again = async <T>(work: () => Promise<T>): Promise<T> => {
        try {
          return await work();
        } catch (error) {
          if (!(error instanceof Killed)) throw error;
          const version = isOver ? '1.1.0' : '1.0.0';
          expect(await world.search('text 9')).toEqual(ranked(version, 'text 9'));
          return work();
        }
      };
      await admitBatch(ctx, job);
      const plan = await again(() => planBatch(ctx, job));
      for (const pointer of await pointersOf(ctx, plan.chunks_key)) await again(() => runChunk(ctx, pointer));
      await again(() => commitBatch(ctx, job));
      await again(() => finishBatch(ctx, job));
      expect(fired).toBe(1);
      expect(await world.search('text 9')).toEqual(ranked('1.1.0', 'text 9'));
      expect((await getCollection(ctx, 'articles')).feature_extractors).toMatchObject([
        { plugin_id: 'embedder_1_1_0' },
      ]);
      expect(await indexedIds(ctx, world.collectionId)).toHaveLength(12);
      expect(eventsOf(world, 'collection.updated')).toHaveLength(1);
    });
  }

  it.each(['batch.upgrade.before_write', 'batch.upgrade.after_write'])(
    'at %s before the answer make one batch of the repeated request',
    async (point) => {
      const world = await build();
      let fired = false;
      setCrashHook((name) => {
        if (name !== point || fired) return;
        fired = true;
        throw new Killed(point);
      });
      const body = { feature_extractor_name: 'embedder', version: '1.1.0' };
      expect((await world.call('POST', `${ns}/collections/articles/upgrade`, body)).status).toBe(500);
      const first = await world.upgrade('1.1.0');
      expect((await world.upgrade('1.1.0')).batch_id).toBe(first.batch_id);
      expect(jobsOf(world).filter((job) => job.kind === 'batch')).toHaveLength(2);
    },
  );
});

describe('what runs beside an upgrade', () => {
  it('a search that has read the collection before its commit and the index after it sees the old version whole', async () => {
    const world = await build();
    const { ctx } = world;
    const before = await getCollection(ctx, 'articles');
    const batch = await world.upgrade('1.1.0');
    await run(world, batch);
    const after = await getCollection(ctx, 'articles');
    const find = async (collection: typeof before, reads: RunReads) => {
      const port = new IndexSearchPort(ctx, { collections: [collection], reads });
      const feature = (await port.resolveFeature(uriOf('1.0.0')))!;
      const deadline = ctx.ports.clock.now() + 10_000;
      const [vector] = await port.embed(uriOf('1.0.0'), ['text 4'], deadline);
      const { hits } = await port.search({
        feature_uri: uriOf('1.0.0'),
        collection_ids: feature.collection_ids,
        vectors: [vector!],
        k: 100,
        exclude: [[]],
        allow_partial: false,
        deadline_ms: deadline,
      } as unknown as Parameters<typeof port.search>[0]);
      const documents = await port.documents(hits[0]!, {
        return_vectors: false,
        return_presigned_urls: false,
      } as Parameters<typeof port.documents>[1]);
      return documents.map((document) => (document as unknown as { text: string }).text);
    };
    expect(await find(before, new RunReads(ctx))).toEqual(ranked('1.0.0', 'text 4'));
    expect(await find(after, new RunReads(ctx))).toEqual(ranked('1.1.0', 'text 4'));
    // The other way round: the index was opened before the commit, the collection read after it.
    await run(world, await world.upgrade('2.0.0'));
    const reads = new RunReads(ctx);
    await reads.view(world.collectionId);
    await run(world, await world.upgrade('1.1.0'));
    expect(await find(await getCollection(ctx, 'articles'), reads)).toEqual(ranked('1.1.0', 'text 4'));
  });

  it('searches in any order with the reads and writes of its commit see one version whole, and never the old one again', async () => {
    for (let seed = 1; seed <= 12; seed++) {
      const world = await build();
      const { ctx } = world;
      const batch = await world.upgrade('1.1.0');
      const job = await jobFor(ctx, world.bucketId, batch.batch_id);
      await admitBatch(ctx, job);
      const plan = await planBatch(ctx, job);
      for (const pointer of await pointersOf(ctx, plan.chunks_key)) await runChunk(ctx, pointer);
      // Every call of a store takes some turns of the event loop, other ones for each seed.
      let state = seed;
      const turns = async () => {
        state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
        for (let i = state >>> 29; i > 0; i--) await new Promise((resolve) => setImmediate(resolve));
      };
      for (const store of [world.ports.table, world.ports.index] as unknown as Record<string, unknown>[]) {
        for (const name of ['get', 'getMany', 'query', 'write', 'put'] as const) {
          const call = store[name];
          if (typeof call !== 'function') continue;
          store[name] = async (...given: unknown[]) => {
            await turns();
            const found: unknown = await call.apply(store, given);
            await turns();
            return found;
          };
        }
      }
      const seen: string[] = [];
      let isOver = false;
      const lane = async (uri: string) => {
        const own: string[] = [];
        while (!isOver || own.length === 0) {
          const found = JSON.stringify(await world.search('text 8', uri));
          own.push(found);
          seen.push(found);
        }
        // One caller after the other: once it has seen the new version it never sees the old one.
        const first = own.indexOf(JSON.stringify(ranked('1.1.0', 'text 8')));
        if (first >= 0) expect(new Set(own.slice(first)).size).toBe(1);
      };
      const commit = commitBatch(ctx, job).finally(() => {
        isOver = true;
      });
      await Promise.all([commit, ...Array.from({ length: 6 }, () => lane(uriOf('1.0.0')))]);
      const whole = ['1.0.0', '1.1.0'].map((version) => JSON.stringify(ranked(version, 'text 8')));
      for (const found of seen) expect(whole).toContain(found);
      expect(await world.search('text 8')).toEqual(ranked('1.1.0', 'text 8'));
    }
  });

  it('a search of an index version from before it is refused, as its query can no longer be embedded', async () => {
    const world = await build();
    const { version } = (await openIndex(world.ctx, world.collectionId)).head;
    await run(world, await world.upgrade('1.1.0'));
    await expect(
      world.search('text 3', uriOf('1.0.0'), { index_versions: { [world.collectionId]: version } }),
    ).rejects.toThrow('index_version_gone');
  });

  it('a second upgrade to the same version is the first, to another one is refused', async () => {
    const world = await build();
    const replies = await Promise.all(
      Array.from({ length: 8 }, () =>
        world.call('POST', `${ns}/collections/articles/upgrade`, {
          feature_extractor_name: 'embedder',
          version: '1.1.0',
        }),
      ),
    );
    expect(new Set(replies.map((reply) => reply.body.batch_id)).size).toBe(1);
    const other = { feature_extractor_name: 'embedder', version: '2.0.0' };
    expectError(await world.call('POST', `${ns}/collections/articles/upgrade`, other), 'collection_busy');
    await world.call('POST', `${ns}/buckets/articles/batches/${replies[0]!.body.batch_id}/cancel`);
    expect((await world.call('POST', `${ns}/collections/articles/upgrade`, other)).status).toBe(202);
    // The first one may not come back beside it.
    expectError(
      await world.call('POST', `${ns}/buckets/articles/batches/${replies[0]!.body.batch_id}/retry`),
      'collection_busy',
    );
  });

  it('a batch that runs refuses it, and one that comes later waits and then runs by the new version', async () => {
    const world = await build();
    const { ctx } = world;
    const [added] = await world.addObjects(['text new']);
    const { batch_id } = (await world.call('POST', `${ns}/buckets/articles/batches/trigger`)).body;
    const normal = await jobFor(ctx, world.bucketId, batch_id);
    await admitBatch(ctx, normal);
    const body = { feature_extractor_name: 'embedder', version: '1.1.0' };
    expectError(await world.call('POST', `${ns}/collections/articles/upgrade`, body), 'collection_busy');
    await world.call('POST', `${ns}/buckets/articles/batches/${batch_id}/cancel`);
    const batch = await world.upgrade('1.1.0');
    const job = await jobFor(ctx, world.bucketId, batch.batch_id);
    await admitBatch(ctx, job);
    const plan = await planBatch(ctx, job);
    const later = await world.addObjects(['text later']);
    const next = (await world.call('POST', `${ns}/buckets/articles/batches/trigger`)).body.batch_id;
    const waiting = await jobFor(ctx, world.bucketId, next);
    expect(await admitBatch(ctx, waiting)).toBe('wait');
    for (const pointer of await pointersOf(ctx, plan.chunks_key)) await runChunk(ctx, pointer);
    await commitBatch(ctx, job);
    await finishBatch(ctx, job);
    world.runner.calls.length = 0;
    await runBatch(ctx, waiting);
    expect([added, ...later]).toHaveLength(2);
    const calls = world.runner.calls.filter((call) => call.operation === 'run');
    expect(calls.map((call) => call.plugin.plugin_id)).toEqual(['embedder_1_1_0']);
    expect(calls.flatMap((call) => call.rows.map((row) => row.data))).toEqual(['text later']);
    expect(await world.search('text 3')).toEqual(
      ranked('1.1.0', 'text 3', [...texts, 'text new', 'text later']),
    );
  });

  it('a batch that failed before it does not bring old vectors back when it is tried again', async () => {
    const world = await build();
    const { behave } = world.runner;
    await world.addObjects(['bad', 'good']);
    world.runner.behave = (row, event) =>
      row.data === 'bad' ? { fail: 'plugin_row_failed' } : behave(row, event);
    const failed = await trigger(world);
    expect((await findBatch(world.ctx, world.bucketId, failed))!.status).toBe('FAILED');
    world.runner.behave = behave;
    await run(world, await world.upgrade('1.1.0'));
    world.runner.calls.length = 0;
    await world.call('POST', `${ns}/buckets/articles/batches/${failed}/retry`);
    await runBatch(world.ctx, await jobFor(world.ctx, world.bucketId, failed));
    expect((await findBatch(world.ctx, world.bucketId, failed))!.status).toBe('COMPLETED');
    const view = await openIndex(world.ctx, world.collectionId);
    expect(Object.keys(view.manifest.features)).not.toContain(uriOf('1.0.0'));
    expect(await world.search('text 3')).toEqual(ranked('1.1.0', 'text 3', [...texts, 'bad', 'good']));
  });
});

describe('an upgrade is refused', () => {
  const path = `${ns}/collections/articles/upgrade`;
  const body = { feature_extractor_name: 'embedder', version: '1.1.0' };

  it('for what is not there or is another’s with 404, the same for both', async () => {
    const world = await build();
    const other = await makeApp();
    expectError(await world.call('POST', `${ns}/collections/none/upgrade`, body), 'collection_not_found');
    const random = 'col_00000000000000000000';
    expectSameRefusal(
      await other.call('POST', `${ns}/collections/${world.collectionId}/upgrade`, body),
      world.collectionId,
      await other.call('POST', `${ns}/collections/${random}/upgrade`, body),
      random,
    );
    expectError(
      await world.as({ ...world.principal, permissions: ['read'] }).call('POST', path, body),
      'key_not_permitted',
    );
  });

  it.each([
    ['the version that it has', { version: '1.0.0' }, 'body.version: version_in_use'],
    ['a version that is not there', { version: '9.0.0' }, 'body.version: plugin_unknown'],
    [
      'a plugin that it does not use',
      { feature_extractor_name: 'stranger' },
      'body.feature_extractor_name: extractor_unknown',
    ],
    [
      'a version to end that it does not use',
      { from_version: '3.0.0' },
      'body.from_version: extractor_unknown',
    ],
    [
      'a mapping of an unknown feature',
      { feature_mapping: { nothing: 'embedder_embedding' } },
      'body.feature_mapping.nothing: feature_unknown',
    ],
    [
      'a mapping to a feature that the version lacks',
      { feature_mapping: { embedder_embedding: 'gone' } },
      'body.feature_mapping.embedder_embedding: feature_vanishes',
    ],
  ])('for %s', async (_, more, fault) => {
    const world = await build();
    const reply = await world.call('POST', path, { ...body, ...more });
    expectError(reply, 'request_invalid');
    expect(faults(reply)).toEqual([fault]);
    expect(jobsOf(world)).toHaveLength(1);
  });

  it('for a version that is not deployed, one that loses a feature, and where two versions could be meant', async () => {
    const world = await build();
    await world.addPlugin('embedder', undefined, { version: '4.0.0', deployment: 'not_deployed' });
    await world.addPlugin('embedder', [{ name: 'new_name', dims: 3 }], { version: '5.0.0' });
    expectError(await world.call('POST', path, { ...body, version: '4.0.0' }), 'plugin_not_deployed');
    expect(faults(await world.call('POST', path, { ...body, version: '5.0.0' }))).toEqual([
      'body.feature_mapping: feature_vanishes',
    ]);
    await world.call('POST', `${ns}/collections`, {
      name: 'twice',
      source: { type: 'bucket', bucket_ids: ['articles'] },
      feature_extractors: [
        { feature_extractor_name: 'embedder', version: '1.0.0' },
        { feature_extractor_name: 'embedder', version: '1.1.0' },
      ],
    });
    const twice = `${ns}/collections/twice/upgrade`;
    expect(faults(await world.call('POST', twice, { ...body, version: '2.0.0' }))).toEqual([
      'body.from_version: extractor_ambiguous',
    ]);
    const named = await world.call('POST', twice, { ...body, version: '2.0.0', from_version: '1.1' });
    expect(named.status).toBe(202);
  });
});
