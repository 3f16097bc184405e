// Groups of documents over HTTP: what the numbers are, how they are ordered and cut, what is refused.
import { describe, expect, it } from 'vitest';
import type { JsonObject } from '../../../functions/core/resources/documents/service.ts';
import type { App } from '../app.ts';
import { makeApp } from '../app.ts';
import { seedBatch, seedCollection } from '../clusters/seed.ts';
import { expectError, expectSameRefusal, faults } from '../expect.ts';

const base = '/v1/namespaces/{ns}/collections/articles/documents';
const count = { function: 'count', alias: 'documents' };

async function library(): Promise<{ app: App; post: (body: unknown) => ReturnType<App['call']> }> {
  const app = await makeApp();
  const collection = await seedCollection(app);
  const fields: JsonObject[] = [
    { topic: 'physics', tags: ['a', 'b'], year: 2020, price: 0.1 },
    { topic: 'physics', tags: ['b'], year: 2021, price: 0.2 },
    { topic: 'physics', tags: [], year: 2021, price: 0.3 },
    { topic: 'art', year: 2020, price: 'free' },
    { tags: 'a', year: 2021 },
    { topic: null, year: 2021 },
  ];
  const documents = fields.map((own, i) => ({ id: `doc_${i}`, fields: own, vector: [1, i, 0, 0] }));
  await seedBatch(app, collection, documents);
  return { app, post: (body) => app.call('POST', `${base}/aggregate`, body) };
}

describe('an aggregation', () => {
  it('gives the numbers of each group, largest first, a missing field left out', async () => {
    const { post } = await library();
    const reply = await post({
      group_by: [{ field: 'metadata.topic', alias: 'topic' }],
      aggregations: [
        count,
        { function: 'sum', field: 'price', alias: 'sum' },
        { function: 'avg', field: 'year', alias: 'year' },
        { function: 'min', field: 'price', alias: 'least' },
        { function: 'max', field: 'price', alias: 'most' },
        { function: 'count_distinct', distinct_field: 'year', alias: 'years' },
        { function: 'count', field: 'tags', alias: 'tagged' },
      ],
    });
    expect(reply.status, JSON.stringify(reply.body)).toBe(200);
    expect(reply.body).toEqual({
      results: [
        {
          group: { topic: 'physics' },
          metrics: {
            documents: 3,
            sum: 0.6,
            year: 6062 / 3,
            least: 0.1,
            most: 0.3,
            years: 2,
            tagged: 2,
          },
        },
        {
          group: { topic: 'art' },
          metrics: { documents: 1, sum: 0, year: 2020, least: 'free', most: 'free', years: 1, tagged: 0 },
        },
        {
          group: { topic: null },
          metrics: { documents: 1, sum: 0, year: 2021, least: null, most: null, years: 1, tagged: 0 },
        },
        {
          group: {},
          metrics: { documents: 1, sum: 0, year: 2021, least: null, most: null, years: 1, tagged: 1 },
        },
      ],
      total_groups: 4,
      query_info: { documents: 6, groups: 4 },
    });
  });

  it('groups by several fields, and a list by each of its elements', async () => {
    const { post } = await library();
    const reply = await post({
      group_by: [{ field: 'tags' }, { field: 'year' }],
      aggregations: [count],
      sort_by: 'tags',
      sort_direction: 'asc',
    });
    const rows = reply.body.results.map((one: { group: object; metrics: { documents: number } }) => [
      ...Object.values(one.group),
      one.metrics.documents,
    ]);
    expect(rows).toEqual([
      ['a', 2020, 1],
      ['a', 2021, 1],
      ['b', 2020, 1],
      ['b', 2021, 1],
      [2020, 1],
      [2021, 1],
    ]);
  });

  it('keeps what having keeps, sorts by any member, and says how many groups there are', async () => {
    const { post } = await library();
    const body = {
      group_by: [{ field: 'year' }],
      aggregations: [count, { function: 'max', field: 'price', alias: 'most' }],
    };
    const results = async (more: object) => (await post({ ...body, ...more })).body;
    const some = await results({ having: [{ field: 'documents', operator: 'gt', value: 2 }] });
    expect(some).toMatchObject({
      results: [{ group: { year: 2021 }, metrics: { documents: 4, most: 0.3 } }],
      total_groups: 1,
      query_info: { documents: 6, groups: 2 },
    });
    const first = await results({ sort_by: 'year', sort_direction: 'asc', limit: 1 });
    expect(first).toMatchObject({ results: [{ group: { year: 2020 } }], total_groups: 2 });
    const filtered = await results({ filters: { field: 'topic', operator: 'eq', value: 'physics' } });
    expect(filtered.query_info).toEqual({ documents: 3, groups: 2 });
  });

  it('of an empty collection has no groups; an unknown field is named', async () => {
    const app = await makeApp();
    await seedCollection(app);
    const body = { group_by: [{ field: 'topik' }], aggregations: [count] };
    expect((await app.call('POST', `${base}/aggregate`, body)).body).toMatchObject({
      results: [],
      total_groups: 0,
    });
    const { post } = await library();
    const unknown = await post(body);
    expect(unknown.body.results).toEqual([{ group: {}, metrics: { documents: 6 } }]);
    expect(unknown.body.warnings).toEqual(['No document has the field "topik".']);
  });

  it.each<[string, object, string]>([
    ['no group', { group_by: [] }, 'body.group_by: too_small'],
    ['no aggregation', { aggregations: [] }, 'body.aggregations: too_small'],
    [
      'a sum of nothing',
      { aggregations: [{ function: 'sum', alias: 's' }] },
      'body.aggregations.0.field: missing',
    ],
    [
      'a function that is not built',
      { aggregations: [{ function: 'median', field: 'year', alias: 's' }] },
      'body.aggregations.0.function: wrong_value',
    ],
    ['two members of one name', { aggregations: [count, count] }, 'body.aggregations.1.alias: wrong_value'],
    [
      'a field that nobody may read',
      { group_by: [{ field: '_internal.x' }] },
      'body.group_by.0.field: wrong_value',
    ],
    [
      'having on what is not there',
      { having: [{ field: 'x', operator: 'eq', value: 1 }] },
      'body.having.0.field: wrong_value',
    ],
    [
      'an operator that does not exist',
      { having: [{ field: 'documents', operator: 'like', value: 1 }] },
      'body.having.0.operator: filter_invalid',
    ],
    ['an order by what is not there', { sort_by: 'x' }, 'body.sort_by: wrong_value'],
    ['buckets of ranges', { range_buckets: [] }, 'body.range_buckets: extra_forbidden'],
  ])('is refused with %s', async (_, wrong, fault) => {
    const { post } = await library();
    const reply = await post({ group_by: [{ field: 'topic' }], aggregations: [count], ...wrong });
    expectError(reply, 'request_invalid');
    expect(faults(reply)).toContain(fault);
  });

  it("over another tenant's collection is not found, like one over none", async () => {
    const { app } = await library();
    const other = await makeApp({ ports: app.ports });
    const { collection_id } = (await app.call('GET', '/v1/namespaces/{ns}/collections/articles')).body;
    const body = { group_by: [{ field: 'topic' }], aggregations: [count] };
    const ask = (id: string) =>
      other.call('POST', `/v1/namespaces/{ns}/collections/${id}/documents/aggregate`, body);
    const random = 'col_00000000000000000000';
    expectSameRefusal(await ask(collection_id), collection_id, await ask(random), random);
  });
});
