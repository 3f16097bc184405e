// Deleting many documents over HTTP: by ids, by filter, what is refused, and what a death in the middle leaves.
import { afterEach, describe, expect, it } from 'vitest';
import { setCrashHook } from '../../../functions/core/crash.ts';
import type { StoredCollection } from '../../../functions/core/resources/collections/service.ts';
import type { JsonObject } from '../../../functions/core/resources/documents/service.ts';
import { patchDocument } from '../../../functions/core/resources/documents/service.ts';
import { commitIndex, documentsUri, putSegment } from '../../../functions/core/store/vector-index.ts';
import { eventsOf, indexedIds } from '../../unit/batches/world.ts';
import type { App, Reply } from '../app.ts';
import { makeApp } from '../app.ts';
import { seedBatch, seedCollection } from '../clusters/seed.ts';
import { expectError, faults } from '../expect.ts';

const base = '/v1/namespaces/{ns}/collections/articles/documents';
const idOf = (i: number) => `doc_${String(i).padStart(5, '0')}`;

interface Shelf {
  readonly app: App;
  readonly collection: StoredCollection;
  readonly post: (body: unknown) => Promise<Reply>;
  /** Ids that rows show, and ids that the index shows. */
  readonly shown: () => Promise<[string[], string[]]>;
}

/** Documents with a number each; every third one is about physics, and one of three has no topic. */
async function shelf(size: number): Promise<Shelf> {
  const app = await makeApp();
  const collection = await seedCollection(app);
  const topics: JsonObject[] = [{ topic: 'physics' }, { topic: 'cooking' }, {}];
  await seedBatch(
    app,
    collection,
    Array.from({ length: size }, (_, i) => ({
      id: idOf(i),
      fields: { n: i, ...topics[i % 3] },
      vector: [1, i, 0, 0],
    })),
  );
  const shown = async (): Promise<[string[], string[]]> => {
    const ids = Array.from({ length: size }, (_, i) => idOf(i));
    const reads = await Promise.all(ids.map((id) => app.call('GET', `${base}/${id}`)));
    return [ids.filter((_, i) => reads[i]!.status === 200), await indexedIds(app.ctx, collection.id)];
  };
  return { app, collection, shown, post: (body) => app.call('POST', `${base}/batch-delete`, body) };
}

const physics = { field: 'topic', operator: 'eq', value: 'physics' };

afterEach(() => setCrashHook(undefined));

describe('by ids', () => {
  it('takes the documents out of reads, lists and searches before it answers, by either path', async () => {
    const { app, post, shown } = await shelf(6);
    const reply = await app.call('DELETE', `${base}/batch`, { document_ids: [idOf(1), idOf(2), idOf(1)] });
    expect(reply.status, JSON.stringify(reply.body)).toBe(200);
    expect(reply.body).toEqual({
      deleted_count: 2,
      document_ids: [idOf(1), idOf(2)],
      failed_count: 0,
      failed: [],
      remaining_count: 0,
    });
    expect((await post({ document_ids: [idOf(0)], reason: 'asked to' })).body.deleted_count).toBe(1);
    const left = [3, 4, 5].map(idOf);
    expect(await shown()).toEqual([left, left]);
    const listed = await app.call('GET', base);
    expect(listed.body.total_count).toBe(3);
    expect((await app.call('GET', '/v1/namespaces/{ns}/collections/articles')).body.document_count).toBe(3);
    expect(
      eventsOf(app, 'document.deleted')
        .map(({ subject }) => subject.id)
        .sort(),
    ).toEqual([0, 1, 2].map(idOf));
    const audits = app.ports.table.dump().filter((item) => item.action === 'document.delete_many');
    expect(audits.map(({ reason, document_ids }) => [reason, document_ids])).toEqual([
      [undefined, [idOf(1), idOf(2)]],
      ['asked to', [idOf(0)]],
    ]);
  });

  it('names those that are not there, and deletes the others', async () => {
    const { post } = await shelf(3);
    const again = { document_ids: [idOf(0), 'doc_00000000000000000000', 'a#b'] };
    expect((await post(again)).body).toMatchObject({ deleted_count: 1, failed_count: 2 });
    const second = await post(again);
    expect(second.status).toBe(200);
    expect(second.body).toMatchObject({ deleted_count: 0, document_ids: [], failed_count: 3 });
    expect(second.body.failed[0]).toEqual({
      document_id: idOf(0),
      code: 'document_not_found',
      message: 'There is no such document.',
    });
  });

  it('leaves a document of the same id in another collection and of another tenant alone', async () => {
    const { app, post } = await shelf(2);
    const beside = await seedCollection(app, 'beside');
    await seedBatch(app, beside, [{ id: idOf(0), fields: { n: 0 }, vector: [1, 0, 0, 0] }]);
    const other = await makeApp({ ports: app.ports });
    expectError(
      await other.call('POST', `/v1/namespaces/{ns}/collections/${beside.id}/documents/batch-delete`, {
        document_ids: [idOf(0)],
      }),
      'collection_not_found',
    );
    expect((await post({ document_ids: [idOf(0)] })).body.deleted_count).toBe(1);
    expect(await indexedIds(app.ctx, beside.id)).toEqual([idOf(0)]);
  });
});

describe('by filter', () => {
  it('deletes exactly what the filter selects, in several transactions', async () => {
    const { app, post, shown } = await shelf(300);
    const reply = await post({ filters: { AND: [physics, { field: 'n', operator: 'lt', value: 270 }] } });
    expect(reply.body).toMatchObject({ deleted_count: 90, failed: [], remaining_count: 0 });
    const left = Array.from({ length: 300 }, (_, i) => i)
      .filter((i) => i % 3 !== 0 || i >= 270)
      .map(idOf);
    expect(await shown()).toEqual([left, left]);
    expect((await app.call('GET', '/v1/namespaces/{ns}/collections/articles')).body.document_count).toBe(210);
    expect(eventsOf(app, 'document.deleted')).toHaveLength(90);
  });

  it('that selects nothing is an answer, with a warning where no document has the field', async () => {
    const { post } = await shelf(3);
    const none = await post({ filters: { field: 'topic', operator: 'eq', value: 'chess' } });
    expect(none.status).toBe(200);
    expect(none.body).toMatchObject({ deleted_count: 0, document_ids: [] });
    expect(none.body.warnings).toBeUndefined();
    const unknown = await post({ filters: { field: 'topik', operator: 'eq', value: 'physics' } });
    expect(unknown.body.deleted_count).toBe(0);
    expect(unknown.body.warnings.join()).toContain('topik');
  });

  it('can be repeated when what it deleted was all that had the field', async () => {
    const { post } = await shelf(3);
    const filters = { field: 'topic', operator: 'exists', value: true };
    expect((await post({ filters })).body.deleted_count).toBe(2);
    const again = await post({ filters });
    expect(again.status).toBe(200);
    expect(again.body.deleted_count).toBe(0);
  });

  it.each([
    ['ne', { field: 'topik', operator: 'ne', value: 'physics' }],
    ['nin', { field: 'topik', operator: 'nin', value: ['physics'] }],
    ['exists: false', { field: 'topik', operator: 'exists', value: false }],
    ['NOT', { NOT: [{ field: 'topik', operator: 'eq', value: 'physics' }] }],
    ['OR', { OR: [physics, { field: 'topik', operator: 'eq', value: 'physics' }] }],
  ])('that reaches documents by a field that none has (%s) is refused', async (_, filters) => {
    const { post, shown } = await shelf(3);
    const reply = await post({ filters });
    expectError(reply, 'request_invalid');
    expect(faults(reply)).toEqual(['body.filters: field_unknown']);
    expect(reply.body.error.message).toContain('"topik"');
    expect((await shown())[0]).toHaveLength(3);
  });

  it.each([
    ['{}', {}],
    ['an empty AND', { AND: [] }],
    ['an empty NOT', { NOT: [] }],
    ['nothing but empty groups', { AND: [{ NOT: [] }, { OR: [{ AND: [] }] }] }],
  ])('that is %s is refused: it would delete everything', async (_, filters) => {
    const { post, shown } = await shelf(2);
    const reply = await post({ filters });
    expectError(reply, 'request_invalid');
    expect(faults(reply)).toEqual(['body.filters: filter_empty']);
    expect((await shown())[0]).toHaveLength(2);
  });

  it('of more documents than one call may delete is refused with their number and the way out', async () => {
    const { app, collection, post } = await shelf(1);
    const rows = Array.from({ length: 10_001 }, (_, i) => ({
      id: `many_${i}`,
      columns: new Map([['many', true]]),
    }));
    const segment = await putSegment(app.ctx, collection.id, { kind: 'data', dims: 0, metric: null, rows });
    await commitIndex(
      app.ctx,
      [
        {
          collection_id: collection.id,
          additions: [{ uri: documentsUri, dims: 0, metric: null, segment }],
          document_delta: rows.length,
        },
      ],
      { token: 'many' },
    );
    const filters = { field: 'many', operator: 'eq', value: true };
    const reply = await post({ filters });
    expectError(reply, 'request_invalid');
    expect(reply.body.error.message).toContain('selects 10001 documents; one call deletes at most 10000');
    expect(reply.body.error.details.validation_errors[0].fix).toContain('narrow the filter');
    const fewer = { AND: [filters, { field: 'n', operator: 'exists', value: true }] };
    expect((await post({ filters: fewer })).status).toBe(200);
  });

  it('of more than a thousand documents tells it in one event a transaction', async () => {
    const { app, post } = await shelf(1_003);
    const reply = await post({ filters: { field: 'n', operator: 'gte', value: 2 } });
    expect(reply.body).toMatchObject({ deleted_count: 1_001 });
    expect(reply.body.document_ids).toHaveLength(1_000);
    expect(eventsOf(app, 'document.deleted')).toEqual([]);
    const events = eventsOf(app, 'collection.documents.deleted');
    expect(events.flatMap(({ metadata }) => metadata.document_ids as string[]).sort()).toEqual(
      Array.from({ length: 1_001 }, (_, i) => idOf(i + 2)),
    );
    for (const event of events) expect(JSON.stringify(event).length).toBeLessThan(20_000);
  });

  it('leaves a document that was changed meanwhile and does not pass any more', async () => {
    const { app, collection, post, shown } = await shelf(4);
    const { index } = app.ports;
    const put = index.put.bind(index);
    index.put = async (...parts) => {
      index.put = put;
      await patchDocument(app.ctx, collection, idOf(3), { topic: 'cooking' });
      return put(...parts);
    };
    expect((await post({ filters: physics })).body).toMatchObject({
      deleted_count: 1,
      document_ids: [idOf(0)],
    });
    const left = [1, 2, 3].map(idOf);
    expect(await shown()).toEqual([left, left]);
  });
});

describe('a call that does not come to its end', () => {
  it.each(['before_commit', 'after_manifest', 'after_head'])(
    'shows every document in rows and index alike, and the same call finishes the rest (%s)',
    async (point) => {
      const { post, shown } = await shelf(150);
      let passed = 0;
      setCrashHook((name) => {
        if (name !== `document.delete_many.${point}`) return;
        passed += 1;
        if (passed === 2) throw new Error('killed');
      });
      const filters = { field: 'n', operator: 'gte', value: 0 };
      expectError(await post({ filters }), 'internal_error');
      setCrashHook(undefined);
      const [rows, index] = await shown();
      expect(rows).toEqual(index);
      expect(rows.length).toBeGreaterThan(0);
      expect(rows.length).toBeLessThan(150);
      expect((await post({ filters })).body.deleted_count).toBe(rows.length);
      expect(await shown()).toEqual([[], []]);
    },
  );

  it('for want of time says how many are left, and the same call deletes those', async () => {
    const { app, post, shown } = await shelf(120);
    setCrashHook((name) => {
      if (name === 'document.delete_many.after_head') app.ports.clock.advance(15_000);
    });
    const filters = { field: 'n', operator: 'lt', value: 120 };
    const first = await post({ filters });
    expect(first.status).toBe(200);
    expect(first.body.deleted_count + first.body.remaining_count).toBe(120);
    expect(first.body.remaining_count).toBeGreaterThan(0);
    expect(first.body.warnings.join()).toContain('repeat it');
    expect((await post({ filters })).body).toMatchObject({
      deleted_count: first.body.remaining_count,
      remaining_count: 0,
    });
    expect(await shown()).toEqual([[], []]);
  });
});

describe('is refused', () => {
  it.each([
    ['neither ids nor a filter', {}, 'body.document_ids: missing'],
    ['both', { document_ids: [idOf(0)], filters: physics }, 'body.document_ids: wrong_value'],
    ['no id', { document_ids: [] }, 'body.document_ids: too_small'],
    [
      'more ids than one call may delete',
      { document_ids: Array(10_001).fill('d') },
      'body.document_ids: too_big',
    ],
    [
      'an operator that does not exist',
      { filters: { ...physics, operator: 'like' } },
      'body.filters.operator: filter_invalid',
    ],
    ['another key', { ids: [idOf(0)] }, 'body.ids: extra_forbidden'],
  ])('%s', async (_, body, fault) => {
    const { post } = await shelf(1);
    const reply = await post(body);
    expectError(reply, 'request_invalid');
    expect(faults(reply)).toContain(fault);
  });

  it('for a key that may not delete, by both methods', async () => {
    const { app } = await shelf(1);
    const writer = app.as({ ...app.principal, permissions: ['read', 'write'] });
    const body = { document_ids: [idOf(0)] };
    expectError(await writer.call('POST', `${base}/batch-delete`, body), 'key_not_permitted');
    expectError(await writer.call('DELETE', `${base}/batch`, body), 'key_not_permitted');
  });

  it('without a body', async () => {
    const { app } = await shelf(1);
    expectError(await app.call('DELETE', `${base}/batch`), 'request_not_json');
  });
});
