// A batch whose workers die at every named place and are called again: the same documents as without a death.
import { afterEach, describe, expect, it } from 'vitest';
import { setCrashHook } from '../../../functions/core/crash.ts';
import { derivedId } from '../../../functions/core/ids.ts';
import { triggerBucket } from '../../../functions/core/resources/batches/service.ts';
import { findBatch } from '../../../functions/core/resources/batches/store.ts';
import {
  admitBatch,
  commitBatch,
  failBatch,
  finishBatch,
  planBatch,
  runChunk,
} from '../../../functions/core/resources/batches/workflow.ts';
import { getDocuments } from '../../../functions/core/resources/documents/service.ts';
import { readHead, snapshot } from '../../../functions/core/store/vector-index.ts';
import type { World } from './world.ts';
import { eventsOf, indexedIds, jobFor, makeWorld, pointersOf } from './world.ts';

class Killed extends Error {}

/** Dies at the n-th passage of a point, once. */
function killAt(point: string, passage = 1): () => boolean {
  let left = passage;
  let fired = false;
  setCrashHook((name) => {
    if (name !== point || fired) return;
    left -= 1;
    if (left > 0) return;
    fired = true;
    throw new Killed(point);
  });
  return () => fired;
}

/** Calls again after a death, as the state machine does. */
async function again<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof Killed)) throw error;
    return work();
  }
}

afterEach(() => setCrashHook(undefined));

/** Two collections, so two chunks, each written by several transactions; every seventh object makes two documents. */
async function build(): Promise<{ world: World; objectIds: string[]; collectionIds: string[] }> {
  const world = await makeWorld();
  const one = await world.addCollection('one');
  const two = await world.addCollection('two');
  const objectIds = await world.addObjects(Array.from({ length: 300 }, (_, i) => `text ${i}`));
  world.runner.behave = (row) => ({ outputs: Number(row.data.split(' ')[1]) % 7 === 0 ? 2 : 1 });
  return { world, objectIds, collectionIds: [one.id, two.id] };
}

async function runWithDeaths(world: World): Promise<string> {
  const { ctx } = world;
  const { batch_id } = await again(() => triggerBucket(ctx, world.bucketId, undefined, {}));
  const job = await jobFor(ctx, world.bucketId, batch_id);
  expect(await again(() => admitBatch(ctx, job))).toBe('start');
  const plan = await again(() => planBatch(ctx, job));
  for (const pointer of await pointersOf(ctx, plan.chunks_key)) await again(() => runChunk(ctx, pointer));
  await again(() => commitBatch(ctx, job));
  await again(() => finishBatch(ctx, job));
  return batch_id;
}

async function expectComplete(
  world: World,
  batchId: string,
  objectIds: readonly string[],
  collectionIds: readonly string[],
) {
  const batch = await findBatch(world.ctx, world.bucketId, batchId);
  expect(batch).toMatchObject({
    status: 'COMPLETED',
    progress: { total: 600, processed: 600, failed: 0, skipped: 0 },
  });
  for (const collectionId of collectionIds) {
    const wanted = objectIds.flatMap((id, i) =>
      Array.from({ length: i % 7 === 0 ? 2 : 1 }, (_, ordinal) =>
        derivedId('document', collectionId, id, ordinal),
      ),
    );
    const ids = await indexedIds(world.ctx, collectionId);
    expect(ids).toEqual(wanted.toSorted());
    const documents = await getDocuments(
      world.ctx,
      ids.map((document_id) => ({ collection_id: collectionId, document_id })),
    );
    expect(documents.every((document) => document !== undefined)).toBe(true);
    const { snapshot: vectors } = await snapshot(
      world.ctx,
      collectionId,
      'mixpeek://embedder@1.0.0/embedder_embedding',
    );
    expect(vectors!.liveCount).toBe(wanted.length);
    expect((await readHead(world.ctx, collectionId)).document_count).toBe(wanted.length);
    expect(await world.ports.table.get(world.ctx.ns.running(collectionId))).toBeUndefined();
  }
  expect(
    eventsOf(world, 'batch.completed')
      .map((event) => event.event_id)
      .filter((id, i, all) => all.indexOf(id) === i),
  ).toHaveLength(1);
}

describe('a worker that dies', () => {
  for (const [point, passage] of [
    ['batch.trigger.before_write', 1],
    ['batch.trigger.after_write', 1],
    ['batch.admit.after_locks', 1],
    ['batch.plan.after_sequence', 1],
    ['batch.plan.after_chunks', 1],
    ['batch.plan.after_plan_file', 1],
    ['batch.chunk.after_run', 2],
    ['batch.chunk.after_segments', 1],
    ['batch.chunk.after_results', 2],
    ['batch.chunk.after_receipt', 2],
    ['batch.chunk.between_rows', 4],
    ['batch.chunk.after_rows', 1],
    ['batch.commit.before', 1],
    ['batch.commit.after_manifest', 1],
    ['batch.commit.after_head', 1],
    ['batch.finish.before', 1],
    ['batch.finish.after', 1],
  ] as const) {
    it(`at ${point} and is called again leaves every document once`, async () => {
      const { world, objectIds, collectionIds } = await build();
      const fired = killAt(point, passage);
      const batchId = await runWithDeaths(world);
      expect(fired()).toBe(true);
      setCrashHook(undefined);
      await expectComplete(world, batchId, objectIds, collectionIds);
    });
  }

  it('for good between the receipt and its rows leaves them to the commit', async () => {
    const { world, objectIds, collectionIds } = await build();
    const { ctx } = world;
    const { batch_id } = await triggerBucket(ctx, world.bucketId, undefined, {});
    const job = await jobFor(ctx, world.bucketId, batch_id);
    await admitBatch(ctx, job);
    const plan = await planBatch(ctx, job);
    const pointers = await pointersOf(ctx, plan.chunks_key);
    for (const [i, pointer] of pointers.entries()) {
      if (i === 1) killAt('batch.chunk.after_receipt');
      await runChunk(ctx, pointer).catch((error: unknown) => {
        if (!(error instanceof Killed)) throw error;
      });
      setCrashHook(undefined);
    }
    await commitBatch(ctx, job);
    await finishBatch(ctx, job);
    await expectComplete(world, batch_id, objectIds, collectionIds);
  });

  it('while it fails a batch leaves it FAILED once it is called again, with its locks given back', async () => {
    const { world, collectionIds } = await build();
    const { ctx } = world;
    const { batch_id } = await triggerBucket(ctx, world.bucketId, undefined, {});
    const job = await jobFor(ctx, world.bucketId, batch_id);
    await admitBatch(ctx, job);
    await planBatch(ctx, job);
    killAt('batch.fail.after_state');
    await again(() => failBatch(ctx, job, { reason: 'batch_chunks_missing', detail: 'x' }));
    expect((await findBatch(ctx, world.bucketId, batch_id))!.status).toBe('FAILED');
    for (const id of collectionIds) {
      expect(await world.ports.table.get(ctx.ns.running(id))).toBeUndefined();
      const head = await readHead(ctx, id);
      expect(head.open).toBeNull();
      expect(head.aborted.map(({ seq }) => seq)).toEqual([1]);
    }
    expect(eventsOf(world, 'batch.failed')).toHaveLength(1);
  });
});

describe('a chunk that is delivered twice', () => {
  it('at the same time is done once: one receipt, one set of documents', async () => {
    const { world, objectIds, collectionIds } = await build();
    const { ctx } = world;
    const { batch_id } = await triggerBucket(ctx, world.bucketId, undefined, {});
    const job = await jobFor(ctx, world.bucketId, batch_id);
    await admitBatch(ctx, job);
    const plan = await planBatch(ctx, job);
    const pointers = await pointersOf(ctx, plan.chunks_key);
    await Promise.all(pointers.flatMap((pointer) => [runChunk(ctx, pointer), runChunk(ctx, pointer)]));
    await commitBatch(ctx, job);
    await finishBatch(ctx, job);
    await expectComplete(world, batch_id, objectIds, collectionIds);
  });

  it('after a newer batch has committed changes nothing, whatever it was about to write', async () => {
    const world = await makeWorld();
    const collection = await world.addCollection('all');
    const [objectId] = await world.addObjects(['first']);
    const { ctx } = world;
    const first = await triggerBucket(ctx, world.bucketId, undefined, {});
    const job = await jobFor(ctx, world.bucketId, first.batch_id);
    await admitBatch(ctx, job);
    const plan = await planBatch(ctx, job);
    const [pointer] = await pointersOf(ctx, plan.chunks_key);
    // This worker stops after its receipt, and wakes up when the world has moved on.
    let wake: () => void = () => undefined;
    const asleep = new Promise<void>((resolve) => {
      wake = resolve;
    });
    const { table } = world.ports;
    const write = table.write.bind(table);
    let held = false;
    table.write = async (writes, token) => {
      const isRow = writes.some((one) => 'put' in one && one.put.sk.startsWith('DOC#'));
      if (isRow && !held) {
        held = true;
        await asleep;
      }
      return write(writes, token);
    };
    const late = runChunk(ctx, pointer!);
    while (!held) await new Promise((resolve) => setImmediate(resolve));
    await commitBatch(ctx, job);
    await finishBatch(ctx, job);
    await world.rewriteObject(objectId!, 'second');
    const second = await triggerBucket(ctx, world.bucketId, undefined, {});
    const next = await jobFor(ctx, world.bucketId, second.batch_id);
    await admitBatch(ctx, next);
    const nextPlan = await planBatch(ctx, next);
    for (const one of await pointersOf(ctx, nextPlan.chunks_key)) await runChunk(ctx, one);
    await commitBatch(ctx, next);
    await finishBatch(ctx, next);
    wake();
    await late;
    const [document] = await getDocuments(ctx, [
      { collection_id: collection.id, document_id: derivedId('document', collection.id, objectId!, 0) },
    ]);
    expect(document!.fields.text).toBe('second');
    expect((await readHead(ctx, collection.id)).document_count).toBe(1);
  });
});

describe('a trigger whose answer was lost on the way', () => {
  it('is the batch that it made, even if that has been planned since', async () => {
    const { world } = await build();
    const { ctx } = world;
    const { table } = world.ports;
    const write = table.write.bind(table);
    let made: string | undefined;
    table.write = async (writes, token) => {
      await write(writes, token);
      const batch = writes.flatMap((one) =>
        'put' in one && one.put.sk.startsWith('BTCH#') ? [String(one.put.batch_id)] : [],
      )[0];
      if (!batch || made) return;
      made = batch;
      const job = await jobFor(ctx, world.bucketId, batch);
      await admitBatch(ctx, job);
      await planBatch(ctx, job);
      // What a client library does after a reset: it sends the same again, and meets its own write.
      await write(writes, token);
    };
    const { batch_id } = await triggerBucket(ctx, world.bucketId, undefined, {});
    expect(batch_id).toBe(made);
  });
});
