// Objects: what fits the schema is stored, what does not is refused with every fault and the right form.
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { setCrashHook } from '../../../functions/core/crash.ts';
import type { App } from '../app.ts';
import { makeApp } from '../app.ts';
import { expectError, expectSameRefusal, faults } from '../expect.ts';

const buckets = '/v1/namespaces/{ns}/buckets';
const base = `${buckets}/b/objects`;
const properties = {
  text: { type: 'text', required: true },
  year: { type: 'integer' },
  kind: { type: 'string', enum: ['news', 'blog'] },
  image: { type: 'image' },
  extra: { type: 'json' },
};
const blob = (property: string, type: string, data: unknown) => ({ property, type, data });
const text = (data = 'Tomatoes want sun.') => blob('text', 'text', data);

async function withBucket(
  options: Parameters<typeof makeApp>[0] = {},
  schema: object = properties,
): Promise<App> {
  const app = await makeApp(options);
  const made = await app.call('POST', buckets, { name: 'b', bucket_schema: { properties: schema } });
  expect(made.status).toBe(200);
  return app;
}
const put = (app: Pick<App, 'call'>, body: unknown) => app.call('POST', base, body);

afterEach(() => setCrashHook(undefined));

describe('200', () => {
  it('create answers the object as it is stored, with ids of each blob', async () => {
    const app = await withBucket();
    const reply = await put(app, {
      blobs: [text(), blob('year', 'INTEGER', 2024), blob('extra', 'json', { a: [1, null] })],
      metadata: { topic: 'garden' },
      key_prefix: '/a',
    });
    expect(reply.status).toBe(200);
    expect(reply.headers.ETag).toBe('"1"');
    expect(reply.body).toMatchObject({
      version: 1,
      status: 'ACTIVE',
      metadata: { topic: 'garden' },
      key_prefix: '/a',
    });
    expect(reply.body.object_id).toMatch(/^obj_[a-z0-9]{20}$/);
    expect(
      reply.body.blobs.map((one: { property: string; data: unknown; size_bytes: number }) => [
        one.property,
        one.data,
        one.size_bytes,
      ]),
    ).toEqual([
      ['text', 'Tomatoes want sun.', 18],
      ['year', 2024, 4],
      ['extra', { a: [1, null] }, 14],
    ]);
    expect((await app.call('GET', `${base}/${reply.body.object_id}`)).body).toEqual(reply.body);
  });

  it('create takes the properties of the schema at the root too', async () => {
    const app = await withBucket();
    const reply = await put(app, { text: 'at the root', year: 7 });
    expect(
      reply.body.blobs.map((one: { property: string; data: unknown }) => [one.property, one.data]),
    ).toEqual([
      ['text', 'at the root'],
      ['year', 7],
    ]);
  });

  it('create fills defaults of the schema', async () => {
    const app = await withBucket(
      {},
      { text: { type: 'text', required: true }, lang: { type: 'string', default: 'en', required: true } },
    );
    expect((await put(app, { blobs: [text()] })).body.blobs[1]).toMatchObject({
      property: 'lang',
      data: 'en',
    });
  });

  it('text that is too long for a row is stored apart, whole', async () => {
    const app = await withBucket();
    const long = 'é'.repeat(50_000);
    const made = (await put(app, { blobs: [text(long)] })).body;
    expect(made.blobs[0]).toMatchObject({ data: null, size_bytes: 100_000, presigned_url: null });
    expect(made.blobs[0].url).toMatch(/^s3:\/\/blobs\/objects\//);
    const key = made.blobs[0].url.replace('s3://blobs/', '');
    expect(Buffer.from(await app.ports.blobs.get(key)).toString('utf8')).toBe(long);
    const read = await app.call('GET', `${base}/${made.object_id}?return_presigned_urls=true`);
    expect(read.body.blobs[0].presigned_url).toContain(key);
    for (const row of app.ports.table.dump()) expect(JSON.stringify(row).length).toBeLessThan(100_000);
  });

  it('bulk create stores the good ones, names the bad ones, and answers each in its place', async () => {
    const app = await withBucket();
    const objects = [
      { blobs: [text('one')] },
      { blobs: [] },
      { blobs: [text('three')] },
      { blobs: [blob('text', 'text', 4)] },
      'five',
    ];
    const reply = await app.call('POST', `${base}/batch`, { objects });
    expect(reply.status).toBe(200);
    expect(reply.body).toMatchObject({ total_requested: 5, succeeded_count: 2, failed_count: 3 });
    expect(reply.body.results.map((r: { index: number; status: string }) => [r.index, r.status])).toEqual([
      [0, 'created'],
      [1, 'failed'],
      [2, 'created'],
      [3, 'failed'],
      [4, 'failed'],
    ]);
    expect(reply.body.failed.map((f: { object_index: number }) => f.object_index)).toEqual([1, 3, 4]);
    expect(reply.body.failed[1].validation_errors[0].location).toEqual([
      'body',
      'objects',
      3,
      'blobs',
      0,
      'data',
    ]);
    expect((await app.call('GET', base)).body.total).toBe(2);
  });

  it('bulk create takes 100 objects, more than one transaction holds', async () => {
    const app = await withBucket();
    const reply = await app.call('POST', `${base}/batch`, {
      objects: Array.from({ length: 100 }, (_, i) => ({ blobs: [text(`n${i}`)] })),
    });
    expect(reply.body.succeeded_count).toBe(100);
    expect((await app.call('GET', base)).body.total).toBe(100);
    expect(
      (
        await app.call('POST', `${base}/batch`, {
          objects: Array.from({ length: 101 }, () => ({ blobs: [text()] })),
        })
      ).status,
    ).toBe(422);
  });

  it('PUT replaces the blobs, PATCH those it names; metadata is replaced or merged', async () => {
    const app = await withBucket();
    const { object_id: id } = (
      await put(app, { blobs: [text('a'), blob('year', 'integer', 1)], metadata: { a: 1, b: 2 } })
    ).body;
    const patched = await app.call('PATCH', `${base}/${id}`, {
      blobs: [text('b')],
      metadata: { b: null, c: 3 },
    });
    expect(patched.body).toMatchObject({ version: 2, metadata: { a: 1, c: 3 } });
    expect(patched.body.metadata).not.toHaveProperty('b');
    expect(
      patched.body.blobs.map((one: { property: string; data: unknown }) => [one.property, one.data]),
    ).toEqual([
      ['year', 1],
      ['text', 'b'],
    ]);
    const replaced = await app.call('PUT', `${base}/${id}`, { blobs: [text('c')], metadata: { d: 4 } });
    expect(replaced.body).toMatchObject({ version: 3, metadata: { d: 4 } });
    expect(replaced.body.blobs).toHaveLength(1);
    expectError(
      await app.call('PUT', `${base}/${id}`, { blobs: [blob('year', 'integer', 1)] }),
      'object_invalid',
    );
  });

  it('delete takes the object and its own content', async () => {
    const app = await withBucket();
    const { object_id: id } = (await put(app, { blobs: [text('x'.repeat(70_000))] })).body;
    const reply = await app.call('DELETE', `${base}/${id}`);
    expect([reply.status, reply.body]).toEqual([204, undefined]);
    expect((await app.ports.blobs.list('objects/')).blobs).toEqual([]);
    expectError(await app.call('GET', `${base}/${id}`), 'object_not_found');
    expectError(await app.call('DELETE', `${base}/${id}`), 'object_not_found');
  });

  it('lists newest first with a cursor; an object put meanwhile changes no page', async () => {
    const app = await withBucket();
    const ids: string[] = [];
    for (let i = 0; i < 7; i++) {
      app.ports.clock.advance(3);
      ids.unshift((await put(app, { blobs: [text(`n${i}`)] })).body.object_id);
    }
    const first = await app.call('GET', `${base}?limit=3`);
    expect(first.body.pagination.total).toBe(7);
    app.ports.clock.advance(3);
    await put(app, { blobs: [text('late')] });
    const seen = first.body.results.map((o: { object_id: string }) => o.object_id);
    let cursor = first.body.pagination.next_cursor;
    while (cursor) {
      const page = await app.call('GET', `${base}?limit=3&cursor=${encodeURIComponent(cursor)}`);
      seen.push(...page.body.results.map((o: { object_id: string }) => o.object_id));
      cursor = page.body.pagination.next_cursor;
    }
    expect(seen).toEqual(ids);
  });

  it('lists by filters on properties and metadata, by search and in an order', async () => {
    const app = await withBucket();
    for (const [word, year, topic] of [
      ['sun', 2020, 'a'],
      ['rain', 2022, 'b'],
      ['snow', 2021, 'a'],
    ] as const) {
      await put(app, { blobs: [text(word), blob('year', 'integer', year)], metadata: { topic } });
    }
    const words = async (body: unknown) =>
      (await app.call('POST', `${base}/list`, body)).body.results.map(
        (o: { blobs: { data: unknown }[] }) => o.blobs[0]!.data,
      );
    expect(
      await words({ filters: { field: 'year', operator: 'gt', value: 2020 }, sort: { field: 'year' } }),
    ).toEqual(['snow', 'rain']);
    expect(
      await words({
        filters: { field: 'metadata.topic', operator: 'eq', value: 'a' },
        sorts: [{ field: 'year', direction: 'desc' }],
      }),
    ).toEqual(['snow', 'sun']);
    expect(await words({ search: 'AI' })).toEqual(['rain']);
    expect(await words({ filters: { NOT: [{ field: 'year', operator: 'exists', value: true }] } })).toEqual(
      [],
    );
  });

  it('binary content by URL is fetched once and kept', async () => {
    let requests = 0;
    const server = createServer((_, response) => {
      requests++;
      response.writeHead(200, { 'Content-Type': 'image/png; x=y' }).end(Buffer.from([1, 2, 3]));
    });
    await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
    try {
      const app = await withBucket();
      const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/a.png`;
      const made = (await put(app, { blobs: [text(), blob('image', 'image', url)] })).body;
      expect(made.blobs[1]).toMatchObject({ data: null, mime_type: 'image/png', size_bytes: 3 });
      expect([...(await app.ports.blobs.get(made.blobs[1].url.replace('s3://blobs/', '')))]).toEqual([
        1, 2, 3,
      ]);
      expect(requests).toBe(1);
    } finally {
      server.close();
    }
  });

  it('announces what webhooks hear, and nothing that nobody hears', async () => {
    const app = await withBucket();
    const events = () =>
      app.ports.table
        .dump()
        .filter((row) => row.pk.startsWith('OUTBOX#'))
        .map((row) => JSON.parse(String(row.message)).event?.event_type)
        .filter((type) => type?.startsWith('object'));
    await put(app, { blobs: [text()] });
    expect(events()).toEqual([]);
    await app.call('POST', '/v1/namespaces/{ns}/webhooks', {
      webhook_name: 'w',
      url: 'http://127.0.0.1:9/',
      events: ['object.created'],
    });
    await app.call('POST', '/v1/organizations/webhooks', {
      webhook_name: 'o',
      url: 'http://127.0.0.1:9/',
      events: ['object.deleted'],
    });
    const { object_id: id } = (await put(app, { blobs: [text()] })).body;
    await app.call('PATCH', `${base}/${id}`, { metadata: { a: 1 } });
    await app.call('DELETE', `${base}/${id}`);
    expect(events().sort()).toEqual(['object.created', 'object.deleted']);
  });
});

describe('401, 403 and 404', () => {
  it('need a key and its permission', async () => {
    const app = await withBucket();
    expectError(await app.as(undefined).call('POST', base, { blobs: [text()] }), 'key_invalid');
    const reader = app.as({ ...app.principal, permissions: ['read'] });
    expectError(await put(reader, { blobs: [text()] }), 'key_not_permitted');
    expect((await reader.call('POST', `${base}/list`, {})).status).toBe(200);
  });

  it("another bucket's, namespace's and organisation's object is refused like a random one", async () => {
    const app = await withBucket();
    const stranger = await withBucket({ ports: app.ports });
    await app.call('POST', buckets, { name: 'second', bucket_schema: { properties } });
    const beside = (await app.call('POST', `${buckets}/second/objects`, { blobs: [text()] })).body.object_id;
    const theirs = (await put(stranger, { blobs: [text()] })).body.object_id;
    const random = 'obj_0123456789abcdefghij';
    for (const foreign of [beside, theirs]) {
      for (const [method, body] of [
        ['GET', undefined],
        ['PUT', {}],
        ['PATCH', {}],
        ['DELETE', undefined],
      ] as const) {
        expectSameRefusal(
          await app.call(method, `${base}/${foreign}`, body),
          foreign,
          await app.call(method, `${base}/${random}`, body),
          random,
        );
      }
    }
  });

  it('an upload of another namespace is no content here', async () => {
    const app = await withBucket();
    const stranger = await withBucket({ ports: app.ports });
    const theirs = (
      await stranger.call('POST', `${buckets}/b/uploads`, {
        filename: 'a',
        content_type: 'image/png',
        create_object_on_confirm: false,
      })
    ).body.upload_id;
    const random = 'upl_0123456789abcdefghij';
    const use = (id: string) =>
      put(app, { blobs: [text(), { property: 'image', type: 'image', upload_id: id }] });
    expectSameRefusal(await use(theirs), theirs, await use(random), random);
  });
});

describe('409 and 412', () => {
  it('If-Match is checked on PUT, PATCH and DELETE', async () => {
    const app = await withBucket();
    const { object_id: id } = (await put(app, { blobs: [text()] })).body;
    await app.call('PATCH', `${base}/${id}`, { metadata: { a: 1 } });
    for (const [method, body] of [
      ['PUT', { metadata: {} }],
      ['PATCH', { metadata: {} }],
      ['DELETE', undefined],
    ] as const) {
      expectError(await app.call(method, `${base}/${id}`, body, { 'If-Match': '"1"' }), 'request_stale');
    }
    expect((await app.call('DELETE', `${base}/${id}`, undefined, { 'If-Match': '"2"' })).status).toBe(204);
  });

  it('of changes at once none is lost: each that did not win says so', async () => {
    const app = await withBucket();
    const { object_id: id } = (await put(app, { blobs: [text()] })).body;
    const replies = await Promise.all(
      Array.from({ length: 8 }, (_, i) => app.call('PATCH', `${base}/${id}`, { metadata: { [`k${i}`]: i } })),
    );
    const won = replies.filter((reply) => reply.status === 200).length;
    for (const reply of replies) if (reply.status !== 200) expectError(reply, 'object_changed');
    const after = (await app.call('GET', `${base}/${id}`)).body;
    expect(after.version).toBe(1 + won);
    expect(Object.keys(after.metadata)).toHaveLength(won);
  });
});

describe('a crash', () => {
  it('after the content is stored leaves no object; doing it again makes one', async () => {
    const app = await withBucket();
    setCrashHook((point) => {
      if (point === 'object.create.after_blobs') throw new Error('killed');
    });
    expect((await put(app, { blobs: [text('x'.repeat(70_000))] })).status).toBe(500);
    setCrashHook(undefined);
    expect((await app.call('GET', base)).body.total).toBe(0);
    expect((await put(app, { blobs: [text('x'.repeat(70_000))] })).status).toBe(200);
    expect((await app.call('GET', base)).body.total).toBe(1);
  });
});

describe('422', () => {
  it.each([
    ['no blobs', {}, ['body.blobs: missing']],
    ['blobs as an object (a map by property)', { blobs: { text: 'x' } }, ['body.blobs: wrong_type']],
    ['blobs as text', { blobs: 'x' }, ['body.blobs: wrong_type']],
    ['a blob that is text', { blobs: ['x'] }, ['body.blobs.0: wrong_type', 'body.blobs: missing']],
    [
      'a blob without its property',
      { blobs: [{ type: 'text', data: 'x' }] },
      ['body.blobs.0.property: missing', 'body.blobs: missing'],
    ],
    ['a blob without its type', { blobs: [{ property: 'text', data: 'x' }] }, ['body.blobs.0.type: missing']],
    ['a blob without data', { blobs: [{ property: 'text', type: 'text' }] }, ['body.blobs.0.data: missing']],
    ['a blob with null data', { blobs: [blob('text', 'text', null)] }, ['body.blobs.0.data: missing']],
    ['the wrong type name', { blobs: [blob('text', 'string', 'x')] }, ['body.blobs.0.type: wrong_value']],
    [
      'a number where text is wanted',
      { blobs: [blob('text', 'text', 7)] },
      ['body.blobs.0.data: wrong_type'],
    ],
    [
      'a fraction where a whole number is wanted',
      { blobs: [text(), blob('year', 'integer', 1.5)] },
      ['body.blobs.1.data: wrong_type'],
    ],
    [
      'a number as text',
      { blobs: [text(), blob('year', 'integer', '7')] },
      ['body.blobs.1.data: wrong_type'],
    ],
    [
      'a value that is not in the list',
      { blobs: [text(), blob('kind', 'string', 'poem')] },
      ['body.blobs.1.data: wrong_value'],
    ],
    [
      'a property that the bucket has not',
      { blobs: [text(), blob('title', 'text', 'x')] },
      ['body.blobs.1.property: property_unknown'],
    ],
    [
      'a property of every object',
      { blobs: [text(), blob('toString', 'text', 'x')] },
      ['body.blobs.1.property: property_unknown'],
    ],
    [
      'base64 for an image',
      { blobs: [text(), blob('image', 'image', 'iVBORw0KGgo=')] },
      ['body.blobs.1.data: wrong_type'],
    ],
    [
      'data and an upload at once',
      {
        blobs: [
          text(),
          { ...blob('image', 'image', 'https://e.com/a'), upload_id: 'upl_0123456789abcdefghij' },
        ],
      },
      ['body.blobs.1.upload_id: wrong_value'],
    ],
    [
      'an upload id that is none',
      { blobs: [text(), { property: 'image', type: 'image', upload_id: 'x' }] },
      ['body.blobs.1.upload_id: wrong_value'],
    ],
    ['an unknown key at the root', { blobs: [text()], colour: 'red' }, ['body.colour: extra_forbidden']],
    [
      'an unknown key of a blob',
      { blobs: [{ ...text(), value: 'x' }] },
      ['body.blobs.0.value: extra_forbidden'],
    ],
    ['metadata that is a list', { blobs: [text()], metadata: [] }, ['body.metadata: wrong_type']],
    [
      'metadata with reserved names',
      { blobs: [text()], metadata: { document_id: 'x', _internal: 1 } },
      ['body.metadata.document_id: wrong_value', 'body.metadata._internal: wrong_value'],
    ],
    [
      'metadata that is too large',
      { blobs: [text()], metadata: { a: 'x'.repeat(32_000) } },
      ['body.metadata: too_large'],
    ],
    ['a key_prefix that is no text', { blobs: [text()], key_prefix: 7 }, ['body.key_prefix: wrong_type']],
    ['101 blobs', { blobs: Array.from({ length: 101 }, () => text()) }, ['body.blobs: too_large']],
    [
      'several faults',
      { blobs: [blob('text', 'text', 1), blob('year', 'integer', 'x')], colour: 1 },
      ['body.blobs.0.data: wrong_type', 'body.blobs.1.data: wrong_type', 'body.colour: extra_forbidden'],
    ],
  ])('%s', async (_, body, expected) => {
    const app = await withBucket();
    const reply = await put(app, body);
    expectError(reply, 'object_invalid');
    expect(faults(reply)).toEqual(expected);
    expect((await app.call('GET', base)).body.total).toBe(0);
  });

  it('no server-owned field can be set', async () => {
    const app = await withBucket();
    for (const field of [
      'object_id',
      'bucket_id',
      'version',
      'created_at',
      'updated_at',
      'status',
      'pk',
      'sk',
      'org_id',
    ]) {
      const reply = await put(app, { blobs: [text()], [field]: 'x' });
      expect(faults(reply)).toEqual([`body.${field}: extra_forbidden`]);
    }
  });

  it.each([
    'http://example.com/a.png',
    'https://127.0.0.1/a',
    'https://169.254.169.254/latest/meta-data',
    'https://localhost/a',
    'https://[::1]/',
    'https://10.0.0.1/',
    'https://user:pw@example.com/',
  ])('a blob URL that must not be called: %s', async (url) => {
    const app = await withBucket({ settings: { allowLoopback: false } });
    const reply = await put(app, { blobs: [text(), blob('image', 'image', url)] });
    expectError(reply, 'blob_url_refused');
    expect(faults(reply)).toEqual(['body.blobs.1.data: url_refused']);
  });

  it('metadata under a name that documents keep for the service, each named', async () => {
    const app = await withBucket();
    const names = [
      'score',
      'vectors',
      'document_blobs',
      'document_id',
      'collection_id',
      'metadata',
      'payload',
      '_own',
    ];
    const reply = await put(app, {
      blobs: [text()],
      metadata: Object.fromEntries(names.map((name) => [name, 1])),
    });
    expectError(reply, 'object_invalid');
    expect(faults(reply)).toEqual(names.map((name) => `body.metadata.${name}: wrong_value`));
  });
});
