// Buckets: schemas that objects must fit, and that only grow.
import { describe, expect, it } from 'vitest';
import type { App } from '../app.ts';
import { makeApp } from '../app.ts';
import { expectError, expectSameRefusal, faults } from '../expect.ts';

const base = '/v1/namespaces/{ns}/buckets';
const schema = (properties: Record<string, unknown>) => ({ bucket_schema: { properties } });
const text = { type: 'text', required: true };
const make = (app: Pick<App, 'call'>, name: string, more: object = {}) =>
  app.call('POST', base, { name, ...schema({ text }), ...more });
const put = (app: Pick<App, 'call'>, bucket: string) =>
  app.call('POST', `${base}/${bucket}/objects`, { blobs: [{ property: 'text', type: 'text', data: 'x' }] });

describe('200', () => {
  it('create takes both spellings of the name and answers the schema with its defaults', async () => {
    const app = await makeApp();
    const reply = await app.call('POST', base, {
      bucket_name: 'articles',
      ...schema({ text, year: { type: 'integer' } }),
      metadata: { a: 1 },
    });
    expect(reply.status).toBe(200);
    expect(reply.body).toMatchObject({
      bucket_name: 'articles',
      name: 'articles',
      description: null,
      metadata: { a: 1 },
      version: 1,
      bucket_schema: {
        properties: { text: { type: 'text', required: true }, year: { type: 'integer', required: false } },
      },
    });
    expect(reply.body.bucket_id).toMatch(/^bkt_[a-z0-9]{20}$/);
  });

  it('get finds it by id and by name, in both path forms', async () => {
    const app = await makeApp();
    const id = (await make(app, 'b')).body.bucket_id;
    const replies = [
      await app.call('GET', `${base}/${id}`),
      await app.call('GET', `${base}/b`),
      await app.call('GET', `/v1/buckets/${id}`, undefined, { 'X-Namespace': app.namespace }),
      await app.call('GET', '/v1/buckets/b', undefined, { 'X-Namespace': 'main' }),
    ];
    for (const reply of replies) expect(reply.body).toEqual(replies[0]!.body);
    expect(replies[0]!.headers.ETag).toBe('"1"');
  });

  it('change may rename, describe and add optional properties', async () => {
    const app = await makeApp();
    await make(app, 'b');
    const reply = await app.call('PATCH', `${base}/b`, {
      name: 'c',
      ...schema({ text, topic: { type: 'string' } }),
    });
    expect(reply.status).toBe(200);
    expect(Object.keys(reply.body.bucket_schema.properties)).toEqual(['text', 'topic']);
    expectError(await app.call('GET', `${base}/b`), 'bucket_not_found');
    expect((await app.call('PUT', `${base}/c`, { description: 'words' })).body).toMatchObject({
      name: 'c',
      description: 'words',
      version: 3,
    });
  });

  it('delete of an empty one works; with force its objects and their content go first', async () => {
    const app = await makeApp();
    await make(app, 'empty');
    expect((await app.call('DELETE', `${base}/empty`)).body).toEqual({
      success: true,
      message: 'Bucket empty deleted.',
    });
    const { bucket_id: id } = (await make(app, 'full')).body;
    await app.call('POST', `${base}/full/objects`, {
      blobs: [{ property: 'text', type: 'text', data: 'long '.repeat(20_000) }],
    });
    for (let i = 0; i < 3; i++) await put(app, 'full');
    expect((await app.ports.blobs.list(`objects/${app.namespace}/${id}/`)).blobs).toHaveLength(1);
    expect((await app.call('DELETE', `${base}/full?force=true`)).status).toBe(200);
    expect((await app.ports.blobs.list(`objects/${app.namespace}/${id}/`)).blobs).toEqual([]);
    expect(app.ports.table.dump().filter((row) => row.sk.startsWith('OBJ#'))).toEqual([]);
  });

  it('lists newest first and filters by schema fields', async () => {
    const app = await makeApp();
    for (const name of ['first', 'second', 'third']) {
      app.ports.clock.advance(5);
      await make(app, name, { metadata: { n: name } });
    }
    const names = (body: { results: { name: string }[] }) => body.results.map((bucket) => bucket.name);
    expect(names((await app.call('GET', base)).body)).toEqual(['third', 'second', 'first']);
    expect(
      names(
        (
          await app.call('POST', `${base}/list`, {
            filters: { field: 'metadata.n', operator: 'in', value: ['first', 'third'] },
          })
        ).body,
      ),
    ).toEqual(['third', 'first']);
    expect(names((await app.call('POST', `${base}/list?limit=1`, { search: 'SECO' })).body)).toEqual([
      'second',
    ]);
  });
});

describe('401 and 403', () => {
  it('need a key and its permission', async () => {
    const app = await makeApp();
    expectError(await app.as(undefined).call('GET', base), 'key_invalid');
    const writer = app.as({ ...app.principal, permissions: ['write'] });
    expect((await make(writer, 'b')).status).toBe(200);
    expectError(await writer.call('GET', base), 'key_not_permitted');
    expectError(await writer.call('DELETE', `${base}/b`), 'key_not_permitted');
  });

  it('a namespace has 100 buckets at most', async () => {
    const app = await makeApp();
    for (let i = 0; i < 100; i++) expect((await make(app, `b${i}`)).status).toBe(200);
    expectError(await make(app, 'one-more'), 'quota_exceeded');
  });
});

describe('404', () => {
  it("another namespace's and another organisation's id are refused like a random one, by every operation", async () => {
    const app = await makeApp();
    const stranger = await makeApp({ ports: app.ports });
    const other = (await app.call('POST', '/v1/namespaces', { name: 'other' })).body.namespace_id;
    const beside = (
      await app.call('POST', `/v1/namespaces/${other}/buckets`, { name: 'b', ...schema({ text }) })
    ).body.bucket_id;
    const theirs = (await make(stranger, 'b')).body.bucket_id;
    const random = 'bkt_0123456789abcdefghij';
    for (const foreign of [beside, theirs]) {
      for (const [method, tail, body] of [
        ['GET', '', undefined],
        ['PUT', '', { name: 'x' }],
        ['PATCH', '', {}],
        ['DELETE', '', undefined],
        ['DELETE', '?force=true', undefined],
        ['POST', '/objects', {}],
        ['GET', '/objects', undefined],
      ] as const) {
        expectSameRefusal(
          await app.call(method, `${base}/${foreign}${tail}`, body),
          foreign,
          await app.call(method, `${base}/${random}${tail}`, body),
          random,
        );
      }
    }
    expect((await stranger.call('GET', `${base}/${theirs}`)).status).toBe(200);
  });

  it('a name of another namespace is no name here', async () => {
    const app = await makeApp();
    const other = (await app.call('POST', '/v1/namespaces', { name: 'other' })).body.namespace_id;
    await app.call('POST', `/v1/namespaces/${other}/buckets`, { name: 'hidden', ...schema({ text }) });
    expectError(await app.call('GET', `${base}/hidden`), 'bucket_not_found');
  });

  it('a second delete is 404', async () => {
    const app = await makeApp();
    await make(app, 'b');
    await app.call('DELETE', `${base}/b`);
    expectError(await app.call('DELETE', `${base}/b`), 'bucket_not_found');
  });
});

describe('409 and 412', () => {
  it('a name that is taken names the bucket that has it', async () => {
    const app = await makeApp();
    const id = (await make(app, 'b')).body.bucket_id;
    const reply = await make(app, 'b');
    expectError(reply, 'bucket_name_taken');
    expect(reply.body.error.details.existing_id).toBe(id);
    await make(app, 'c');
    expectError(await app.call('PATCH', `${base}/c`, { name: 'b' }), 'bucket_name_taken');
  });

  it('objects keep a bucket from being deleted', async () => {
    const app = await makeApp();
    await make(app, 'b');
    await put(app, 'b');
    expectError(await app.call('DELETE', `${base}/b`), 'bucket_in_use');
    expect((await app.call('GET', `${base}/b`)).status).toBe(200);
  });

  it('16 changes at once: those that met another say so, no update is lost', async () => {
    const app = await makeApp();
    await make(app, 'b');
    const replies = await Promise.all(
      Array.from({ length: 16 }, (_, i) => app.call('PATCH', `${base}/b`, { metadata: { i } })),
    );
    const won = replies.filter((reply) => reply.status === 200);
    expect(won.length).toBeGreaterThanOrEqual(1);
    for (const reply of replies) if (reply.status !== 200) expectError(reply, 'bucket_changed');
    expect((await app.call('GET', `${base}/b`)).body.version).toBe(1 + won.length);
  });

  it('If-Match is checked on PUT, PATCH and DELETE', async () => {
    const app = await makeApp();
    await make(app, 'b');
    await app.call('PATCH', `${base}/b`, { description: 'x' });
    for (const [method, body] of [
      ['PUT', { description: 'y' }],
      ['PATCH', { description: 'y' }],
      ['DELETE', undefined],
    ] as const) {
      expectError(await app.call(method, `${base}/b`, body, { 'If-Match': '"1"' }), 'request_stale');
    }
    expect((await app.call('DELETE', `${base}/b`, undefined, { 'If-Match': '"2"' })).status).toBe(200);
  });
});

describe('422', () => {
  it.each([
    [{ name: 'b' }, ['body.bucket_schema: missing']],
    [schema({ text }), ['body.name: missing']],
    [{ name: 'bkt_x', ...schema({ text }) }, ['body.name: wrong_value']],
    [{ name: 'b', ...schema({}) }, ['body.bucket_schema.properties: wrong_value']],
    [
      { name: 'b', ...schema({ text: { type: 'txt' } }) },
      ['body.bucket_schema.properties.text.type: wrong_value'],
    ],
    [{ name: 'b', ...schema({ text: 'text' }) }, ['body.bucket_schema.properties.text: wrong_type']],
    [
      { name: 'b', ...schema({ text: { required: true } }) },
      ['body.bucket_schema.properties.text.type: missing'],
    ],
    [
      { name: 'b', bucket_schema: { text } },
      ['body.bucket_schema.properties: missing', 'body.bucket_schema.text: extra_forbidden'],
    ],
    [
      {
        name: 'b',
        ...schema(Object.fromEntries(Array.from({ length: 101 }, (_, i) => [`p${i}`, { type: 'text' }]))),
      },
      ['body.bucket_schema.properties: wrong_value'],
    ],
    [{ name: 'a', bucket_name: 'b', ...schema({ text }) }, ['body.bucket_name: wrong_value']],
  ])('%j', async (body, expected) => {
    const reply = await (await makeApp()).call('POST', base, body);
    expectError(reply, 'request_invalid');
    expect(faults(reply)).toEqual(expected);
  });

  it('a property name with other characters is named', async () => {
    const reply = await (await makeApp()).call('POST', base, {
      name: 'b',
      ...schema({ 'has space': { type: 'text' }, '1st': { type: 'text' } }),
    });
    expectError(reply, 'request_invalid');
    expect(reply.body.error.details.validation_errors.map((f: { location: unknown }) => f.location)).toEqual([
      ['body', 'bucket_schema', 'properties', 'has space'],
      ['body', 'bucket_schema', 'properties', '1st'],
    ]);
  });

  it('a change that objects would not fit lists every reason', async () => {
    const app = await makeApp();
    await make(app, 'b', schema({ text, year: { type: 'integer' }, old: { type: 'text' } }));
    const reply = await app.call(
      'PATCH',
      `${base}/b`,
      schema({ text, year: { type: 'text', required: true }, fresh: { type: 'text', required: true } }),
    );
    expectError(reply, 'request_invalid');
    expect(faults(reply).sort()).toEqual([
      'body.bucket_schema.properties.fresh.required: property_required',
      'body.bucket_schema.properties.old: property_removed',
      'body.bucket_schema.properties.year.required: property_required',
      'body.bucket_schema.properties.year.type: property_retyped',
    ]);
  });
});
