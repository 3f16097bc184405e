// Distinct values of a field over HTTP.
import { describe, expect, it } from 'vitest';
import type { JsonObject } from '../../../functions/core/resources/documents/service.ts';
import type { App } from '../app.ts';
import { makeApp } from '../app.ts';
import { seedBatch, seedCollection } from '../clusters/seed.ts';
import { expectError, expectSameRefusal, faults } from '../expect.ts';

const base = '/v1/namespaces/{ns}/collections/articles/documents';

async function library(): Promise<{ app: App; post: (body: unknown) => ReturnType<App['call']> }> {
  const app = await makeApp();
  const collection = await seedCollection(app);
  const fields: JsonObject[] = [
    { topic: 'Physics', tags: ['a', 'b', 'a'], year: 2020 },
    { topic: 'physics', tags: ['b'], year: 2021 },
    { topic: 'Physics', tags: [], year: 2021 },
    { topic: 'art', year: null },
    { tags: 'a', year: '2021' },
  ];
  const documents = fields.map((own, i) => ({ id: `doc_${i}`, fields: own, vector: [1, i, 0, 0] }));
  await seedBatch(app, collection, documents);
  return { app, post: (body) => app.call('POST', `${base}/distinct`, body) };
}

describe('distinct values', () => {
  it('are counted by document, in the order of values or of counts, under a filter', async () => {
    const { post } = await library();
    const reply = await post({ field: 'metadata.topic' });
    expect(reply.status).toBe(200);
    expect(reply.body).toMatchObject({
      field: 'metadata.topic',
      values: [
        { value: 'Physics', count: 2 },
        { value: 'art', count: 1 },
        { value: 'physics', count: 1 },
      ],
      total: 3,
      missing_count: 1,
      pagination: { total: 3, next_cursor: null },
    });
    expect(reply.body.warnings).toBeUndefined();
    expect((await post({ field: 'tags', order: 'count' })).body.values).toEqual([
      { value: 'a', count: 2 },
      { value: 'b', count: 2 },
    ]);
    expect((await post({ field: 'year' })).body).toMatchObject({
      values: [
        { value: 2020, count: 1 },
        { value: 2021, count: 2 },
        { value: '2021', count: 1 },
        { value: null, count: 1 },
      ],
      missing_count: 0,
    });
    const filters = { field: 'year', operator: 'gte', value: 2021 };
    expect((await post({ field: 'topic', filters })).body).toMatchObject({ total: 2, missing_count: 0 });
  });

  it('can be narrowed by how they begin, in any case of letters unless that is asked for', async () => {
    const { post } = await library();
    expect((await post({ field: 'topic', prefix: 'PHY' })).body.total).toBe(2);
    const exact = await post({ field: 'topic', prefix: 'Phy', case_sensitive: true });
    expect(exact.body.values).toEqual([{ value: 'Physics', count: 2 }]);
  });

  it('come in pages by cursor, each once, with the exact total on every page', async () => {
    const { post } = await library();
    const seen: unknown[] = [];
    let cursor: string | null = null;
    do {
      const page = await post({ field: 'year', limit: 3, ...(cursor ? { cursor } : {}) });
      expect(page.body.total).toBe(4);
      seen.push(...page.body.values.map(({ value }: { value: unknown }) => value));
      cursor = page.body.pagination.next_cursor;
    } while (cursor);
    expect(seen).toEqual([2020, 2021, '2021', null]);
    const first = await post({ field: 'year', limit: 3 });
    expectError(
      await post({ field: 'topic', limit: 3, cursor: first.body.pagination.next_cursor }),
      'request_bad_cursor',
    );
  });

  it('see a change and a deletion as soon as that has answered', async () => {
    const { app, post } = await library();
    await app.call('PATCH', `${base}/doc_3`, { topic: 'biology' });
    await app.call('DELETE', `${base}/doc_1`);
    expect((await post({ field: 'topic' })).body.values).toEqual([
      { value: 'Physics', count: 2 },
      { value: 'biology', count: 1 },
    ]);
  });

  it('of a field that no document has are none, and a warning says so', async () => {
    const { post } = await library();
    const filters = { field: 'colour', operator: 'ne', value: 'red' };
    const reply = await post({ field: 'topik', filters });
    expect(reply.body).toMatchObject({ values: [], total: 0, missing_count: 5 });
    expect(reply.body.warnings).toEqual([
      'No document has the field "colour" of the filter.',
      'No document has the field "topik".',
    ]);
  });

  it('of an empty collection are none', async () => {
    const app = await makeApp();
    await seedCollection(app);
    expect((await app.call('POST', `${base}/distinct`, { field: 'topic' })).body).toMatchObject({
      values: [],
      total: 0,
      missing_count: 0,
    });
  });

  it('refuse a field that nobody may read, a wrong filter, a wrong limit', async () => {
    const { post } = await library();
    const refused = async (body: unknown) => {
      const reply = await post(body);
      expectError(reply, 'request_invalid');
      return faults(reply);
    };
    expect(await refused({ field: '_internal.created_at' })).toEqual(['body.field: wrong_value']);
    expect(await refused({ field: 'a..b' })).toEqual(['body.field: wrong_value']);
    expect(await refused({})).toEqual(['body.field: missing']);
    expect(await refused({ field: 'topic', limit: 1001 })).toEqual(['body.limit: too_big']);
    expect(await refused({ field: 'topic', filters: { field: 'a', operator: 'like' } })).toEqual([
      'body.filters.operator: filter_invalid',
    ]);
  });

  it("of another tenant's collection are not found, like those of none", async () => {
    const { app } = await library();
    const other = await makeApp({ ports: app.ports });
    const { collection_id } = (await app.call('GET', '/v1/namespaces/{ns}/collections/articles')).body;
    const ask = (id: string) =>
      other.call('POST', `/v1/namespaces/{ns}/collections/${id}/documents/distinct`, { field: 'topic' });
    const random = 'col_00000000000000000000';
    expectSameRefusal(await ask(collection_id), collection_id, await ask(random), random);
  });
});
