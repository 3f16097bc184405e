// Documents over HTTP: what a batch made, read, listed, changed and deleted.
import { describe, expect, it } from 'vitest';
import { triggerBucket } from '../../../functions/core/resources/batches/service.ts';
import type { World } from '../../unit/batches/world.ts';
import { indexedIds, jobFor, makeWorld, runBatch } from '../../unit/batches/world.ts';
import { makeApp } from '../app.ts';
import { expectError, expectSameRefusal, faults } from '../expect.ts';

const base = '/v1/namespaces/{ns}/collections/articles/documents';

async function withDocuments(
  texts: readonly string[] = ['one', 'two', 'three'],
): Promise<{ world: World; ids: string[]; collectionId: string }> {
  const world = await makeWorld();
  const { id: collectionId } = await world.addCollection('articles');
  await world.addObjects(texts, { metadata: { source: 'wire', topic: 'physics' } });
  const { batch_id } = await triggerBucket(world.ctx, world.bucketId, undefined, {});
  await runBatch(world.ctx, await jobFor(world.ctx, world.bucketId, batch_id));
  return { world, ids: await indexedIds(world.ctx, collectionId), collectionId };
}

describe('read', () => {
  it('gives the fields at the root and under metadata, with lineage to object and batch', async () => {
    const { world, ids, collectionId } = await withDocuments(['one']);
    const reply = await world.call('GET', `${base}/${ids[0]}`);
    expect(reply.status).toBe(200);
    expect(reply.headers.ETag).toBe('"1"');
    expect(reply.body).toMatchObject({
      document_id: ids[0],
      collection_id: collectionId,
      text: 'one',
      topic: 'physics',
      metadata: { text: 'one', topic: 'physics', source: 'wire' },
      _internal: {
        lineage: {
          bucket_id: world.bucketId,
          feature_extractor_id: 'embedder_1_0_0',
          ordinal: 0,
          object_version: 1,
        },
        enrichments: [],
      },
    });
    expect(reply.body._internal.lineage.object_id).toMatch(/^obj_/);
    expect(reply.body._internal.lineage.batch_id).toMatch(/^btch_/);
    expect(reply.body.vectors).toBeUndefined();
    const withVectors = await world.call('GET', `${base}/${ids[0]}?return_vectors=true`);
    expect(withVectors.body.vectors['mixpeek://embedder@1.0.0/embedder_embedding']).toHaveLength(4);
  });

  it('answers a foreign, a random and a wrong id alike', async () => {
    const { world, ids } = await withDocuments(['one']);
    const other = await makeApp();
    const random = 'doc_00000000000000000000';
    expectError(await world.call('GET', `${base}/${random}`), 'document_not_found');
    expectSameRefusal(
      await other.call('GET', `${base}/${ids[0]}`),
      ids[0]!,
      await other.call('GET', `${base}/${random}`),
      random,
    );
  });
});

describe('list', () => {
  it('can be filtered by the ids that every document shows, without a warning', async () => {
    const { world, ids, collectionId } = await withDocuments(['one', 'two', 'three']);
    const list = (filters: unknown) => world.call('POST', `${base}/list`, { filters });
    const some = await list({ field: 'document_id', operator: 'in', value: [ids[0], ids[2]] });
    expect(some.body.results.map((d: { document_id: string }) => d.document_id).sort()).toEqual(
      [ids[0], ids[2]].sort(),
    );
    expect(some.body.warnings ?? []).toEqual([]);
    const all = await list({ field: 'collection_id', operator: 'eq', value: collectionId });
    expect(all.body.total_count).toBe(3);
  });

  it('pages with an exact total, without gaps and repetitions', async () => {
    const { world, ids } = await withDocuments(Array.from({ length: 45 }, (_, i) => `text ${i}`));
    const seen: string[] = [];
    let cursor: string | null = null;
    do {
      const reply = await world.call('POST', `${base}/list`, { limit: 20, ...(cursor ? { cursor } : {}) });
      expect(reply.body.total_count).toBe(45);
      seen.push(...reply.body.results.map((document: { document_id: string }) => document.document_id));
      cursor = reply.body.pagination.next_cursor;
    } while (cursor);
    expect(seen.toSorted()).toEqual(ids);
    const second = await world.call('GET', `${base}?limit=20&page=2`);
    expect(second.body.results.map((document: { document_id: string }) => document.document_id)).toEqual(
      seen.slice(20, 40),
    );
  });

  it('filters by any spelling of a field, sorts, searches, and warns of a field that nobody has', async () => {
    const { world } = await withDocuments(['b', 'a', 'c']);
    const texts = async (body: unknown) => {
      const reply = await world.call('POST', `${base}/list`, body);
      return reply.body.results.map((document: { text: string }) => document.text);
    };
    for (const field of ['text', 'metadata.text', 'payload.text']) {
      expect(await texts({ filters: { field, operator: 'eq', value: 'a' } })).toEqual(['a']);
    }
    expect(await texts({ sort: { field: 'text', direction: 'desc' } })).toEqual(['c', 'b', 'a']);
    expect(await texts({ search: 'c' })).toEqual(expect.arrayContaining(['c']));
    expect(
      await texts({
        filters: {
          AND: [
            { field: 'topic', operator: 'eq', value: 'physics' },
            { field: 'text', operator: 'in', value: ['a', 'c'] },
          ],
        },
        sort: { field: 'text' },
      }),
    ).toEqual(['a', 'c']);
    const unknown = await world.call('POST', `${base}/list`, {
      filters: { field: 'colour', operator: 'eq', value: 'red' },
    });
    expect(unknown.body.results).toEqual([]);
    expect(unknown.body.warnings.join()).toContain('colour');
    expectError(
      await world.call('POST', `${base}/list`, { filters: { field: 'text', operator: 'like', value: 'a' } }),
      'request_invalid',
    );
    expectError(await world.call('POST', `${base}/list`, { cursor: 'made.up' }), 'request_bad_cursor');
  });

  it('refuses a wrong filter on an empty collection too', async () => {
    const world = await makeWorld();
    await world.addCollection('articles');
    expect((await world.call('GET', base)).body).toMatchObject({ results: [], total_count: 0 });
    expectError(
      await world.call('POST', `${base}/list`, { filters: { field: 'a', operator: 'between', value: 1 } }),
      'request_invalid',
    );
  });
});

describe('change', () => {
  it('is seen by a filtered list as soon as it has answered, and by every read', async () => {
    const { world, ids } = await withDocuments();
    const reply = await world.call('PATCH', `${base}/${ids[1]}`, {
      topic: 'biology',
      tags: ['a', 'b'],
      metadata: { year: 2026 },
    });
    expect(reply.status).toBe(200);
    expect(reply.body).toMatchObject({ topic: 'biology', tags: ['a', 'b'], year: 2026, source: 'wire' });
    const found = await world.call('POST', `${base}/list`, {
      filters: {
        AND: [
          { field: 'topic', operator: 'eq', value: 'biology' },
          { field: 'tags', operator: 'eq', value: 'b' },
        ],
      },
    });
    expect(found.body.results.map((document: { document_id: string }) => document.document_id)).toEqual([
      ids[1],
    ]);
    const before = await world.call('POST', `${base}/list`, {
      filters: { field: 'topic', operator: 'eq', value: 'physics' },
    });
    expect(before.body.total_count).toBe(2);
    expect((await world.call('GET', `${base}/${ids[1]}`)).body._internal.version).toBe(2);
  });

  it('replaces all fields with PUT', async () => {
    const { world, ids } = await withDocuments();
    const reply = await world.call('PUT', `${base}/${ids[0]}`, { title: 'new' });
    expect(reply.body.metadata).toEqual({ title: 'new' });
    expect(
      (
        await world.call('POST', `${base}/list`, {
          filters: { field: 'source', operator: 'exists', value: true },
        })
      ).body.total_count,
    ).toBe(2);
  });

  it('refuses names that are kept, a stale version, a foreign document and a document that grows too large', async () => {
    const { world, ids } = await withDocuments();
    const reserved = await world.call('PATCH', `${base}/${ids[0]}`, {
      document_id: 'x',
      _internal: {},
      metadata: { collection_id: 'y' },
      ok: 1,
    });
    expectError(reserved, 'request_invalid');
    expect(faults(reserved)).toEqual([
      'body.document_id: field_reserved',
      'body._internal: field_reserved',
      'body.metadata.collection_id: field_reserved',
    ]);
    expectError(
      await world.call('PATCH', `${base}/${ids[0]}`, { a: 1 }, { 'If-Match': '"7"' }),
      'request_stale',
    );
    expectError(
      await world.call('PATCH', `${base}/doc_00000000000000000000`, { a: 1 }),
      'document_not_found',
    );
    const large = Object.fromEntries(Array.from({ length: 3 }, (_, i) => [`part${i}`, 'x'.repeat(100_000)]));
    expectError(await world.call('PATCH', `${base}/${ids[0]}`, large), 'document_too_large');
    expect((await world.call('GET', `${base}/${ids[0]}`)).body._internal.version).toBe(1);
  });

  it('keeps a document whose body is too large for its row, and reads it back whole', async () => {
    const { world, ids } = await withDocuments();
    const body = 'y'.repeat(120_000);
    expect((await world.call('PATCH', `${base}/${ids[0]}`, { body })).status).toBe(200);
    expect((await world.call('GET', `${base}/${ids[0]}`)).body.body).toBe(body);
    const row = await world.ports.table.get(
      world.ctx.ns.document(
        (await world.call('GET', '/v1/namespaces/{ns}/collections/articles')).body.collection_id,
        ids[0]!,
      ),
    );
    expect(JSON.stringify(row).length).toBeLessThan(10_000);
  });
});

describe('delete', () => {
  it('takes the document out of reads and lists before it answers, and a second time is a 404', async () => {
    const { world, ids, collectionId } = await withDocuments();
    expect((await world.call('DELETE', `${base}/${ids[0]}`)).body.success).toBe(true);
    expectError(await world.call('GET', `${base}/${ids[0]}`), 'document_not_found');
    expect((await world.call('GET', base)).body.total_count).toBe(2);
    expect(await indexedIds(world.ctx, collectionId)).toEqual([ids[1], ids[2]]);
    expectError(await world.call('DELETE', `${base}/${ids[0]}`), 'document_not_found');
    expect((await world.call('GET', '/v1/namespaces/{ns}/collections/articles')).body.document_count).toBe(2);
  });

  it('stays deleted when the bucket is run again, and comes back when that is forced', async () => {
    const { world, ids, collectionId } = await withDocuments();
    await world.call('DELETE', `${base}/${ids[0]}`);
    for (const [dedup_strategy, count] of [
      ['skip', 2],
      ['force', 3],
    ] as const) {
      const { batch_id } = await triggerBucket(world.ctx, world.bucketId, undefined, { dedup_strategy });
      await runBatch(world.ctx, await jobFor(world.ctx, world.bucketId, batch_id));
      expect(await indexedIds(world.ctx, collectionId)).toHaveLength(count);
      expect((await world.call('GET', base)).body.results).toHaveLength(count);
    }
    expect((await world.call('GET', '/v1/namespaces/{ns}/collections/articles')).body.document_count).toBe(3);
  });

  it('needs the permission to delete', async () => {
    const { world, ids } = await withDocuments();
    const writer = world.as({ ...world.principal, permissions: ['read', 'write'] });
    expectError(await writer.call('DELETE', `${base}/${ids[0]}`), 'key_not_permitted');
    expectError(
      await world
        .as({ ...world.principal, permissions: ['read'] })
        .call('PATCH', `${base}/${ids[0]}`, { a: 1 }),
      'key_not_permitted',
    );
    expectError(await world.as(undefined).call('GET', base), 'key_invalid');
  });
});
