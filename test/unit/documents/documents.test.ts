// Documents under many writers: what the rows say and what the index says are the same, and nothing is lost.
import fc from 'fast-check';
import { afterEach, describe, expect, it } from 'vitest';
import type { NsCtx } from '../../../functions/core/context.ts';
import { setCrashHook } from '../../../functions/core/crash.ts';
import { triggerBucket } from '../../../functions/core/resources/batches/service.ts';
import {
  admitBatch,
  commitBatch,
  finishBatch,
  planBatch,
  runChunk,
} from '../../../functions/core/resources/batches/workflow.ts';
import type { StoredCollection } from '../../../functions/core/resources/collections/service.ts';
import {
  deleteDocument,
  enrichDocuments,
  getDocuments,
  patchDocument,
  presentDocument,
} from '../../../functions/core/resources/documents/service.ts';
import { documentsSnapshot } from '../../../functions/core/store/vector-index.ts';
import { flattenColumns } from '../../../functions/core/vectors/columns.ts';
import { columnsOf } from '../../../functions/core/vectors/snapshot.ts';
import type { World } from '../batches/world.ts';
import { indexedIds, jobFor, makeWorld, pointersOf, runBatch } from '../batches/world.ts';

afterEach(() => setCrashHook(undefined));

async function processed(
  count: number,
): Promise<{ world: World; ctx: NsCtx; collection: StoredCollection; ids: string[] }> {
  const world = await makeWorld();
  const collection = await world.addCollection('all');
  await world.addObjects(Array.from({ length: count }, (_, i) => `text ${i}`));
  const { batch_id } = await triggerBucket(world.ctx, world.bucketId, undefined, {});
  await runBatch(world.ctx, await jobFor(world.ctx, world.bucketId, batch_id));
  return { world, ctx: world.ctx, collection, ids: await indexedIds(world.ctx, collection.id) };
}

/** The index shows exactly the visible documents, each with exactly the columns of its fields. */
async function expectSame(ctx: NsCtx, collection: StoredCollection, ids: readonly string[]): Promise<void> {
  const snapshot = await documentsSnapshot(ctx, collection.id);
  const documents = await getDocuments(
    ctx,
    ids.map((document_id) => ({ collection_id: collection.id, document_id })),
  );
  for (const [i, id] of ids.entries()) {
    const columns = snapshot && columnsOf(snapshot, id);
    columns?.delete('_internal.created_at');
    // The two fields that every document has beside its own.
    if (columns) expect(columns.get('document_id')).toBe(id);
    columns?.delete('document_id');
    columns?.delete('collection_id');
    const document = documents[i];
    expect(columns).toEqual(document ? flattenColumns(document.fields) : undefined);
  }
}

describe('changes by requests', () => {
  it('at the same moment on one document are all applied, and rows and index end up the same', async () => {
    const { ctx, collection, ids } = await processed(3);
    await Promise.all(
      Array.from({ length: 8 }, (_, w) => patchDocument(ctx, collection, ids[0]!, { [`writer_${w}`]: w })),
    );
    const [document] = await getDocuments(ctx, [{ collection_id: collection.id, document_id: ids[0]! }]);
    for (let w = 0; w < 8; w++) expect(document!.fields[`writer_${w}`]).toBe(w);
    expect(document!.revision).toBe(9);
    await expectSame(ctx, collection, ids);
  });

  it('while a batch runs are kept on what was visible, and the batch’s newer version wins when it commits', async () => {
    const { world, ctx, collection, ids } = await processed(2);
    const { batch_id } = await triggerBucket(ctx, world.bucketId, undefined, { dedup_strategy: 'force' });
    const job = await jobFor(ctx, world.bucketId, batch_id);
    await admitBatch(ctx, job);
    const plan = await planBatch(ctx, job);
    await patchDocument(ctx, collection, ids[0]!, { note: 'before the chunk' });
    for (const pointer of await pointersOf(ctx, plan.chunks_key)) await runChunk(ctx, pointer);
    await patchDocument(ctx, collection, ids[0]!, { note: 'after the chunk' });
    expect(
      (await getDocuments(ctx, [{ collection_id: collection.id, document_id: ids[0]! }]))[0]!.fields.note,
    ).toBe('after the chunk');
    await commitBatch(ctx, job);
    await finishBatch(ctx, job);
    expect(
      (await getDocuments(ctx, [{ collection_id: collection.id, document_id: ids[0]! }]))[0]!.fields.note,
    ).toBeUndefined();
    await expectSame(ctx, collection, ids);
  });

  it('that die before they are committed have changed nothing', async () => {
    const { ctx, collection, ids } = await processed(1);
    for (const point of ['document.patch.before_commit', 'document.patch.after_manifest']) {
      setCrashHook((name) => {
        if (name === point) throw new Error('killed');
      });
      await expect(patchDocument(ctx, collection, ids[0]!, { note: point })).rejects.toThrow('killed');
      setCrashHook(undefined);
    }
    expect(
      (await getDocuments(ctx, [{ collection_id: collection.id, document_id: ids[0]! }]))[0]!.revision,
    ).toBe(1);
    await expectSame(ctx, collection, ids);
  });

  it('in any order and overlap leave rows and index the same', async () => {
    const step = fc.oneof(
      fc.record({
        kind: fc.constant('patch' as const),
        at: fc.nat(2),
        field: fc.constantFrom('a', 'b'),
        value: fc.integer({ min: 0, max: 3 }),
      }),
      fc.record({ kind: fc.constant('delete' as const), at: fc.nat(2) }),
      fc.record({
        kind: fc.constant('enrich' as const),
        at: fc.nat(2),
        field: fc.constantFrom('a', 'b'),
        value: fc.integer({ min: 4, max: 7 }),
      }),
    );
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.array(step, { minLength: 1, maxLength: 4 }), { minLength: 1, maxLength: 4 }),
        async (rounds) => {
          const { ctx, collection, ids } = await processed(3);
          let token = 0;
          for (const round of rounds) {
            await Promise.allSettled(
              round.map((one) => {
                const id = ids[one.at]!;
                if (one.kind === 'delete') return deleteDocument(ctx, collection, id);
                if (one.kind === 'patch')
                  return patchDocument(ctx, collection, id, { [one.field]: one.value });
                return enrichDocuments(
                  ctx,
                  collection.id,
                  [{ document_id: id, set: { [one.field]: one.value } }],
                  { token: `run-${token++}` },
                );
              }),
            );
            await expectSame(ctx, collection, ids);
          }
        },
      ),
      { numRuns: 25 },
    );
  });
});

describe('enrichments', () => {
  it('set fields with their provenance, and a filter sees them when they have answered', async () => {
    const { ctx, collection, ids } = await processed(120);
    const changes = ids.map((document_id, i) => ({
      document_id,
      set: { auto_topic: i % 2 ? 'odd' : 'even' },
      provenance: [
        {
          taxonomy_id: 'tax_1',
          version: 1,
          field: 'auto_topic',
          value: i % 2 ? 'odd' : 'even',
          score: 0.9,
          matched_document_id: 'doc_x',
        },
      ],
    }));
    expect(await enrichDocuments(ctx, collection.id, changes, { token: 'run-1' })).toEqual({ enriched: 120 });
    await expectSame(ctx, collection, ids);
    const [first] = await getDocuments(ctx, [{ collection_id: collection.id, document_id: ids[0]! }]);
    expect(presentDocument(first!)).toMatchObject({
      auto_topic: 'even',
      metadata: { auto_topic: 'even' },
      _internal: {
        enrichments: [
          {
            taxonomy_id: 'tax_1',
            field: 'auto_topic',
            value: 'even',
            score: 0.9,
            matched_document_id: 'doc_x',
          },
        ],
      },
    });
    // A later run of the same taxonomy takes the place of the earlier one's entries.
    await enrichDocuments(
      ctx,
      collection.id,
      changes.map((c) => ({ ...c, provenance: [{ ...c.provenance[0]!, version: 2 }] })),
      { token: 'run-2' },
    );
    const [again] = await getDocuments(ctx, [{ collection_id: collection.id, document_id: ids[0]! }]);
    expect(again!.enrichments.map((entry) => entry.version)).toEqual([2]);
  });

  it('leave alone what was deleted, what was made anew meanwhile, and names that are kept', async () => {
    const { ctx, collection, ids } = await processed(3);
    await deleteDocument(ctx, collection, ids[0]!);
    const done = await enrichDocuments(
      ctx,
      collection.id,
      [
        { document_id: ids[0]!, set: { topic: 'x' } },
        { document_id: ids[1]!, set: { topic: 'x' }, if_source_version: 7 },
        { document_id: ids[2]!, set: { topic: 'x', _internal: 'bad', document_id: 'bad' } },
        { document_id: 'doc_nobody', set: { topic: 'x' } },
      ],
      { token: 'run' },
    );
    expect(done).toEqual({ enriched: 1 });
    const documents = await getDocuments(
      ctx,
      ids.map((document_id) => ({ collection_id: collection.id, document_id })),
    );
    expect(documents.map((document) => document?.fields.topic)).toEqual([undefined, undefined, 'x']);
    expect(documents[2]!.fields).not.toHaveProperty('_internal');
    await expectSame(ctx, collection, ids);
  });

  it('that die between rows and index are made whole by a repetition', async () => {
    const { ctx, collection, ids } = await processed(60);
    const changes = ids.map((document_id) => ({ document_id, set: { topic: 'x' } }));
    setCrashHook((name) => {
      if (name === 'document.enrich.after_rows') throw new Error('killed');
    });
    await expect(enrichDocuments(ctx, collection.id, changes, { token: 'run' })).rejects.toThrow('killed');
    setCrashHook(undefined);
    await enrichDocuments(ctx, collection.id, changes, { token: 'run' });
    await expectSame(ctx, collection, ids);
    await enrichDocuments(ctx, collection.id, changes, { token: 'run' });
    await expectSame(ctx, collection, ids);
  });

  it('yield in the index to a request that changed the document in between', async () => {
    const { ctx, collection, ids } = await processed(2);
    let patched: Promise<unknown> | undefined;
    setCrashHook((name) => {
      // The rows are written and the index is not: a request comes right here.
      if (name === 'document.enrich.after_rows') {
        setCrashHook(undefined);
        patched = patchDocument(ctx, collection, ids[0]!, { topic: 'by hand' });
      }
    });
    await enrichDocuments(ctx, collection.id, [{ document_id: ids[0]!, set: { topic: 'derived' } }], {
      token: 'run',
    });
    await patched;
    expect(
      (await getDocuments(ctx, [{ collection_id: collection.id, document_id: ids[0]! }]))[0]!.fields.topic,
    ).toBe('by hand');
    await expectSame(ctx, collection, ids);
  });
});

describe('long texts', () => {
  it('stay in the blob store, and the document holds the first kilobyte', async () => {
    const world = await makeWorld();
    const collection = await world.addCollection('all');
    await world.addObjects(['short']);
    const long = 'ä'.repeat(50_000);
    world.runner.behave = () => ({ columns: { transcript: long } });
    const { batch_id } = await triggerBucket(world.ctx, world.bucketId, undefined, {});
    await runBatch(world.ctx, await jobFor(world.ctx, world.bucketId, batch_id));
    const [id] = await indexedIds(world.ctx, collection.id);
    const [document] = await getDocuments(world.ctx, [{ collection_id: collection.id, document_id: id! }]);
    expect(document!.fields.transcript).toBe('ä'.repeat(512));
    const { s3_key, size_bytes } = document!.long_texts!.transcript!;
    expect(size_bytes).toBe(100_000);
    expect(Buffer.from(await world.ports.blobs.get(s3_key)).toString()).toBe(long);
  });

  it('beside each other that make a document too large fail its object alone', async () => {
    const world = await makeWorld();
    await world.addCollection('all');
    await world.addObjects([...Array.from({ length: 10 }, (_, i) => `fine ${i}`), 'large']);
    const columns = Object.fromEntries(
      Array.from({ length: 10 }, (_, i) => [`part_${i}`, 'x'.repeat(60_000)]),
    );
    world.runner.behave = (row) => (row.data === 'large' ? { columns } : {});
    const { batch_id } = await triggerBucket(world.ctx, world.bucketId, undefined, {});
    await runBatch(world.ctx, await jobFor(world.ctx, world.bucketId, batch_id));
    const batch = (await world.call('GET', `/v1/namespaces/{ns}/buckets/articles/batches/${batch_id}`)).body;
    expect(batch).toMatchObject({
      status: 'COMPLETED',
      progress: { processed: 10, failed: 1 },
      error_summary: { document_too_large: 1 },
    });
  });
});
