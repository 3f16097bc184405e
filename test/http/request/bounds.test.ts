// What comes back when a request is at the edge of what rows, keys and answers can hold: never a 500.
import { describe, expect, it } from 'vitest';
import { AppError } from '../../../functions/core/errors.ts';
import { makeApp } from '../app.ts';
import { expectError } from '../expect.ts';

const buckets = '/v1/namespaces/{ns}/buckets';
const schema = (names: readonly string[]) => ({
  properties: Object.fromEntries(names.map((name) => [name, { type: 'text' }])),
});
const text = (property: string, data: string) => ({ property, type: 'text', data });

/** Above it the service refuses an item; memory stores do not. */
const itemBytesMax = 400_000;

describe('names and ids in the path', () => {
  it.each([600, 3_000])('of %i characters name nothing', async (length) => {
    const app = await makeApp();
    const long = 'a'.repeat(length);
    for (const path of [`${buckets}/${long}`, `/v1/tasks/${long}`, `/v1/namespaces/${long}`]) {
      expect((await app.call('GET', path)).status, path.slice(0, 40)).toBe(404);
    }
  });

  it('of many bytes name nothing either', async () => {
    const app = await makeApp();
    const reply = await app.call('GET', `${buckets}/${encodeURIComponent('ü'.repeat(500))}`);
    expect(reply.status).toBe(404);
  });
});

describe('cursors of objects', () => {
  const fill = async () => {
    const app = await makeApp();
    await app.call('POST', buckets, { name: 'b', bucket_schema: schema(['t']) });
    for (let i = 0; i < 6; i++) {
      await app.call('POST', `${buckets}/b/objects`, { t: `${i}` });
      app.ports.clock.advance(1);
    }
    return app;
  };

  it('of a list that began with an offset go on without naming it again', async () => {
    const app = await fill();
    const first = await app.call('GET', `${buckets}/b/objects?offset=1&limit=2`);
    const cursor = encodeURIComponent(first.body.pagination.next_cursor);
    const second = await app.call('GET', `${buckets}/b/objects?limit=2&cursor=${cursor}`);
    expect(second.status).toBe(200);
    const ids = [...first.body.results, ...second.body.results].map((one) => one.blobs[0].data);
    expect(ids).toEqual(['4', '3', '2', '1']);
  });

  it('of a plain list go on although an offset is named beside them', async () => {
    const app = await fill();
    const first = await app.call('GET', `${buckets}/b/objects?limit=2`);
    const cursor = encodeURIComponent(first.body.pagination.next_cursor);
    const second = await app.call('GET', `${buckets}/b/objects?limit=2&offset=1&cursor=${cursor}`);
    expect(second.body.results.map((one: { blobs: { data: string }[] }) => one.blobs[0]!.data)).toEqual([
      '3',
      '2',
    ]);
  });
});

describe('a cursor', () => {
  it('of one namespace is refused by another', async () => {
    const app = await makeApp();
    const other = (await app.call('POST', '/v1/namespaces', { name: 'other' })).body.namespace_id;
    for (const name of ['a', 'b', 'c'])
      await app.call('POST', buckets, { name, bucket_schema: schema(['t']) });
    const { body } = await app.call('GET', `${buckets}?limit=1`);
    const cursor = encodeURIComponent(body.pagination.next_cursor);
    expect((await app.call('GET', `${buckets}?limit=1&cursor=${cursor}`)).status).toBe(200);
    expectError(
      await app.call('GET', `/v1/namespaces/${other}/buckets?limit=1&cursor=${cursor}`),
      'request_bad_cursor',
    );
  });
});

describe('rows', () => {
  it('of an object stay small however often one more property is patched in', async () => {
    const app = await makeApp();
    const names = Array.from({ length: 10 }, (_, i) => `t${i}`);
    await app.call('POST', buckets, { name: 'b', bucket_schema: schema(names) });
    const made = await app.call('POST', `${buckets}/b/objects`, { blobs: [text('t0', 'x'.repeat(50_000))] });
    const path = `${buckets}/b/objects/${made.body.object_id}`;
    for (const name of names) {
      const reply = await app.call('PATCH', path, { blobs: [text(name, name.repeat(25_000))] });
      expect(reply.status).toBe(200);
    }
    for (const row of app.ports.table.dump()) expect(JSON.stringify(row).length).toBeLessThan(100_000);
  });

  it.each(['namespace', 'bucket', 'batch'] as const)(
    'of a %s that would be too large are refused',
    async (kind) => {
      const app = await makeApp();
      await app.call('POST', buckets, { name: 'b', bucket_schema: schema(['t']) });
      const metadata = Object.fromEntries([0, 1, 2].map((i) => [`m${i}`, 'x'.repeat(200_000)]));
      const reply =
        kind === 'namespace'
          ? await app.call('POST', '/v1/namespaces', { name: 'big', metadata })
          : kind === 'bucket'
            ? await app.call('POST', buckets, { name: 'big', bucket_schema: schema(['t']), metadata })
            : await app.call('POST', `${buckets}/b/batches`, { object_ids: ['obj_x'], metadata });
      expect(reply.status).toBe(422);
      expect(reply.body.error.details.validation_errors[0].location).toEqual(['body', 'metadata']);
      for (const row of app.ports.table.dump()) expect(JSON.stringify(row).length).toBeLessThan(itemBytesMax);
    },
  );

  it('of a bucket with a very large schema are refused', async () => {
    const app = await makeApp();
    const properties = Object.fromEntries(
      Array.from({ length: 900 }, (_, i) => [`p${i}`, { type: 'text', description: 'x'.repeat(900) }]),
    );
    const reply = await app.call('POST', buckets, { name: 'big', bucket_schema: { properties } });
    expect([413, 422]).toContain(reply.status);
    for (const row of app.ports.table.dump()) expect(JSON.stringify(row).length).toBeLessThan(itemBytesMax);
  });

  it('of an object stay small however often metadata is patched in', async () => {
    const app = await makeApp();
    await app.call('POST', buckets, { name: 'b', bucket_schema: schema(['t']) });
    const made = await app.call('POST', `${buckets}/b/objects`, { t: 'x' });
    const path = `${buckets}/b/objects/${made.body.object_id}`;
    expect((await app.call('PATCH', path, { metadata: { a: 'x'.repeat(20_000) } })).status).toBe(200);
    const reply = await app.call('PATCH', path, { metadata: { b: 'x'.repeat(20_000) } });
    expectError(reply, 'object_invalid');
    expect((await app.call('PATCH', path, { metadata: { a: null, b: 'x'.repeat(20_000) } })).status).toBe(
      200,
    );
  });
});

describe('answers', () => {
  it('of a filtered list of large objects end at a size that the gateway takes, and go on by the cursor', async () => {
    const app = await makeApp();
    const names = Array.from({ length: 3 }, (_, i) => `t${i}`);
    await app.call('POST', buckets, { name: 'b', bucket_schema: schema(names) });
    for (let i = 0; i < 10; i++) {
      const objects = Array.from({ length: 12 }, () => ({
        blobs: names.map((name) => text(name, 'x'.repeat(19_000))),
      }));
      expect((await app.call('POST', `${buckets}/b/objects/batch`, { objects })).body.succeeded_count).toBe(
        12,
      );
    }
    let cursor = '';
    const seen = new Set<string>();
    for (let pages = 0; pages < 10; pages++) {
      const body = {
        sort: { field: 'created_at', direction: 'asc' },
        limit: 1000,
        ...(cursor ? { cursor } : {}),
      };
      const reply = await app.call('POST', `${buckets}/b/objects/list`, body);
      expect(JSON.stringify(reply.body).length).toBeLessThan(5_500_000);
      for (const { object_id } of reply.body.results) seen.add(object_id);
      cursor = reply.body.pagination.next_cursor;
      if (!cursor) break;
    }
    expect(seen.size).toBe(120);
  });

  it('of a bulk create name what is stored also when a later group could not be written', async () => {
    const app = await makeApp();
    await app.call('POST', buckets, { name: 'b', bucket_schema: schema(['t']) });
    const { table } = app.ports;
    const write = table.write.bind(table);
    let groups = 0;
    table.write = async (writes, token) => {
      const isGroup = writes.some((one) => 'put' in one && one.put.sk.startsWith('OBJ#'));
      if (isGroup && ++groups === 2) throw new AppError('storage_throttled');
      return write(writes, token);
    };
    const objects = Array.from({ length: 100 }, (_, i) => ({ t: `${i}` }));
    const { body } = await app.call('POST', `${buckets}/b/objects/batch`, { objects });
    expect([body.succeeded_count, body.failed_count]).toEqual([90, 10]);
    expect(body.results.map((one: { index: number }) => one.index)).toEqual(objects.map((_, i) => i));
    expect((await app.call('GET', `${buckets}/b/objects`)).body.total).toBe(90);
  });
});

describe('an upload of another bucket', () => {
  it('cannot be taken for an object, since its content goes with that bucket', async () => {
    const app = await makeApp();
    const files = { properties: { f: { type: 'file' } } };
    for (const name of ['a', 'b']) await app.call('POST', buckets, { name, bucket_schema: files });
    const ticket = await app.call('POST', `${buckets}/a/uploads`, {
      filename: 'x.bin',
      content_type: 'application/octet-stream',
      create_object_on_confirm: false,
    });
    const { upload_id, s3_key } = ticket.body;
    await app.ports.blobs.put(s3_key ?? `uploads/${app.namespace}/${upload_id}`, 'bytes');
    expect((await app.call('POST', `${buckets}/a/uploads/${upload_id}/confirm`, {})).status).toBe(200);
    const blobs = [{ property: 'f', type: 'file', upload_id }];
    expectError(await app.call('POST', `${buckets}/b/objects`, { blobs }), 'upload_not_found');
    expect((await app.call('POST', `${buckets}/a/objects`, { blobs })).status).toBe(200);
  });
});
