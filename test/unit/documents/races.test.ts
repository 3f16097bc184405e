// Requests about documents beside the commit of a batch that makes the same documents anew.
import { describe, expect, it } from 'vitest';
import { parseCondition } from '../../../functions/core/conditions/parse.ts';
import { triggerBucket } from '../../../functions/core/resources/batches/service.ts';
import {
  admitBatch,
  commitBatch,
  finishBatch,
  planBatch,
  runChunk,
} from '../../../functions/core/resources/batches/workflow.ts';
import { deleteDocuments } from '../../../functions/core/resources/documents/delete-many.ts';
import {
  deleteDocument,
  enrichDocuments,
  getDocuments,
  patchDocument,
} from '../../../functions/core/resources/documents/service.ts';
import { documentsSnapshot, readHead } from '../../../functions/core/store/vector-index.ts';
import { listRows } from '../../../functions/core/vectors/list-rows.ts';
import { indexedIds, jobFor, makeWorld, pointersOf, runBatch } from '../batches/world.ts';

/** A world with one visible document and a batch that is about to replace it. */
async function beforeCommit() {
  const world = await makeWorld();
  const { ctx } = world;
  const collection = await world.addCollection('all');
  await world.addObjects(['a']);
  const first = await triggerBucket(ctx, world.bucketId, undefined, {});
  await runBatch(ctx, await jobFor(ctx, world.bucketId, first.batch_id));
  const second = await triggerBucket(ctx, world.bucketId, undefined, { dedup_strategy: 'force' });
  const job = await jobFor(ctx, world.bucketId, second.batch_id);
  expect(await admitBatch(ctx, job)).toBe('start');
  const plan = await planBatch(ctx, job);
  for (const pointer of await pointersOf(ctx, plan.chunks_key)) await runChunk(ctx, pointer);
  const [id] = await indexedIds(ctx, collection.id);
  const commit = async () => {
    await commitBatch(ctx, job);
    await finishBatch(ctx, job);
  };
  return { world, ctx, collection, id: id!, commit };
}

type Race = Awaited<ReturnType<typeof beforeCommit>>;

/** Lets the batch commit in the middle of a request: when it stores the segment of its change. */
function commitDuringNextSegment({ world, commit }: Race): void {
  const { index } = world.ports;
  const put = index.put.bind(index);
  index.put = async (...parts) => {
    index.put = put;
    await commit();
    return put(...parts);
  };
}

const found = async ({ ctx, collection }: Race, field: string, value: string) => {
  const parsed = parseCondition({ field, operator: 'eq', value });
  if (!parsed.ok) throw new Error('a wrong filter');
  const snapshot = await documentsSnapshot(ctx, collection.id);
  return listRows(snapshot!, {
    filter: parsed.condition,
    limit: 10,
    idOrder: 'asc',
  });
};

const document = async ({ ctx, collection, id }: Race) =>
  (await getDocuments(ctx, [{ collection_id: collection.id, document_id: id }]))[0];

describe('a commit in the middle of a request', () => {
  it('does not swallow a patch: it is in the document and in the index', async () => {
    const race = await beforeCommit();
    commitDuringNextSegment(race);
    await patchDocument(race.ctx, race.collection, race.id, { topic: 'patched' });
    expect((await document(race))?.fields.topic).toBe('patched');
    expect(await found(race, 'topic', 'patched')).toEqual([race.id]);
  });

  it('does not bring documents back that were deleted together, by a filter that they still pass', async () => {
    const race = await beforeCommit();
    commitDuringNextSegment(race);
    const filters = { field: 'text', operator: 'eq', value: 'a' };
    expect(await deleteDocuments(race.ctx, race.collection, { filters })).toMatchObject({
      deleted_count: 1,
      document_ids: [race.id],
    });
    expect(await document(race)).toBeUndefined();
    expect(await indexedIds(race.ctx, race.collection.id)).toEqual([]);
    expect((await readHead(race.ctx, race.collection.id)).document_count).toBe(0);
  });

  it('does not bring a document back that was deleted', async () => {
    const race = await beforeCommit();
    commitDuringNextSegment(race);
    await deleteDocument(race.ctx, race.collection, race.id);
    expect(await document(race)).toBeUndefined();
    expect(await indexedIds(race.ctx, race.collection.id)).toEqual([]);
  });

  it('leaves document and index saying the same after an enrichment', async () => {
    const race = await beforeCommit();
    commitDuringNextSegment(race);
    await enrichDocuments(
      race.ctx,
      race.collection.id,
      [{ document_id: race.id, set: { topic: 'enriched' } }],
      {
        token: 'run-1',
      },
    );
    const shown = (await document(race))?.fields.topic;
    expect(await found(race, 'topic', 'enriched')).toEqual(shown === 'enriched' ? [race.id] : []);
  });
});
