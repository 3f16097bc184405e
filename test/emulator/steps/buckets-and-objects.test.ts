// Step 4 on the deployed stack: buckets with a schema, objects with blobs that fit it, and every fault of those that do not.
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Client, Json, Workspace } from '../stack.ts';
import { listAll, makeWorkspace } from '../stack.ts';

let space: Workspace;
let client: Client;
let bucket: string;
let bucketId: string;

const schema = {
  properties: {
    text: { type: 'text', required: true },
    pages: { type: 'integer' },
    picture: { type: 'image' },
    kind: { type: 'string', enum: ['news', 'essay'] },
  },
};
const text = (data: unknown) => ({ property: 'text', type: 'text', data });

beforeAll(async () => {
  space = await makeWorkspace('objects');
  client = space.client;
  bucketId = (await client.call('POST', `${space.path}/buckets`, { name: 'articles', bucket_schema: schema }))
    .bucket_id;
  bucket = `${space.path}/buckets/${bucketId}`;
});
afterAll(() => space?.close());

describe('a bucket', () => {
  it('is read by id and by name, in both path forms, with both spellings of its name', async () => {
    for (const path of [bucket, `${space.path}/buckets/articles`]) {
      expect(await client.call('GET', path)).toMatchObject({
        bucket_id: bucketId,
        bucket_name: 'articles',
        name: 'articles',
      });
    }
    for (const name of [space.namespaceId, space.namespaceName]) {
      expect(
        await client.call('GET', '/v1/buckets/articles', undefined, { 'X-Namespace': name }),
      ).toMatchObject({ bucket_id: bucketId });
    }
    const made = await client.call(
      'POST',
      '/v1/buckets',
      { bucket_name: 'client-form', bucket_schema: schema },
      { 'X-Namespace': space.namespaceId },
    );
    expect(await client.call('GET', `${space.path}/buckets/client-form`)).toMatchObject({
      bucket_id: made.bucket_id,
    });
  });

  it('is changed, and a stale change is refused', async () => {
    const before = await client.ask('GET', `${space.path}/buckets/client-form`);
    const etag = before.headers.get('etag')!;
    expect(etag).toBeTruthy();
    const path = `${space.path}/buckets/client-form`;
    expect(await client.call('PATCH', path, { description: 'first' }, { 'If-Match': etag })).toMatchObject({
      description: 'first',
    });
    expect(
      await client.refused(412, 'PATCH', path, { description: 'second' }, { 'If-Match': etag }),
    ).toMatchObject({ type: 'PreconditionFailedError' });
  });

  it('is deleted when it is empty, and not before unless that is asked for', async () => {
    const { bucket_id } = await client.call('POST', `${space.path}/buckets`, {
      name: 'brief',
      bucket_schema: schema,
    });
    const path = `${space.path}/buckets/${bucket_id}`;
    await client.call('POST', `${path}/objects`, { blobs: [text('stays')] });
    expect(await client.refused(409, 'DELETE', path)).toMatchObject({ code: 'bucket_in_use' });
    expect((await client.ask('DELETE', `${path}?force=true`)).status).toBe(200);
    expect((await client.ask('GET', path)).status).toBe(404);
  });

  it('is refused with a name that is taken, and with every fault of its schema', async () => {
    expect(
      await client.refused(409, 'POST', `${space.path}/buckets`, { name: 'articles', bucket_schema: schema }),
    ).toMatchObject({ code: 'bucket_name_taken' });
    const fault = await client.refused(422, 'POST', `${space.path}/buckets`, {
      name: 'bkt_x',
      bucket_schema: { properties: { text: { type: 'words' }, '9lives': { type: 'text' } } },
      colour: 'red',
    });
    expect(fault.fields.join('\n')).toMatch(/body\.name/);
    expect(fault.fields.join('\n')).toMatch(/properties\.text\.type/);
    expect(fault.fields.join('\n')).toMatch(/colour/);
  });
});

describe('an object', () => {
  it('is stored with its text and metadata, read, changed, listed and deleted', async () => {
    const made = await client.call('POST', `${bucket}/objects`, {
      blobs: [text('Bees dance.')],
      metadata: { topic: 'biology' },
    });
    const path = `${bucket}/objects/${made.object_id}`;
    expect(made).toMatchObject({
      object_id: expect.stringMatching(/^obj_[a-z0-9]{20}$/),
      bucket_id: bucketId,
      metadata: { topic: 'biology' },
    });
    expect((await client.call('GET', path)).blobs).toEqual([
      expect.objectContaining({ property: 'text', type: 'text', data: 'Bees dance.' }),
    ]);
    expect(await client.call('PATCH', path, { metadata: { year: 2024 } })).toMatchObject({
      metadata: { topic: 'biology', year: 2024 },
    });
    expect((await client.call('PATCH', path, { blobs: [text('Bees sleep.')] })).blobs[0].data).toBe(
      'Bees sleep.',
    );
    const found = await client.call('POST', `${bucket}/objects/list`, {
      filters: { field: 'metadata.topic', operator: 'eq', value: 'biology' },
    });
    expect(found.results.map((one: Json) => one.object_id)).toEqual([made.object_id]);
    expect((await client.ask('DELETE', path)).status).toBe(204);
    expect((await client.ask('GET', path)).status).toBe(404);
    expect((await client.ask('DELETE', path)).status).toBe(404);
  });

  it('may be sent again under the same idempotency key without being made twice', async () => {
    const send = (data: string) =>
      client.ask('POST', `${bucket}/objects`, { blobs: [text(data)] }, { 'Idempotency-Key': 'once-only' });
    const first = await send('only once');
    const second = await send('only once');
    expect(second.status).toBe(first.status);
    expect(second.body).toEqual(first.body);
    expect((await send('something else')).status).toBe(422);
  });

  it('comes in bulk: the good ones are stored, each bad one is listed with its faults', async () => {
    const reply = await client.call('POST', `${bucket}/objects/batch`, {
      objects: [
        { blobs: [text('first')] },
        { blobs: [{ property: 'nothing', type: 'text', data: 'x' }] },
        { blobs: [text('third')] },
      ],
    });
    expect(reply).toMatchObject({ total_requested: 3, succeeded_count: 2, failed_count: 1 });
    expect(reply.results.map((one: Json) => one.status)).toEqual(['created', 'failed', 'created']);
    expect(reply.failed).toEqual([expect.objectContaining({ object_index: 1 })]);
    expect(reply.failed[0].validation_errors.length).toBeGreaterThan(0);
  });

  it('takes a binary blob from a presigned upload and gives a URL that reads it', async () => {
    const bytes = new Uint8Array([0x89, 0x50, 0x4e, 0x47, 1, 2, 3, 4]);
    const upload = await client.call('POST', `${bucket}/uploads`, {
      filename: 'a.png',
      content_type: 'image/png',
      create_object_on_confirm: false,
    });
    const put = await fetch(upload.presigned_url, {
      method: 'PUT',
      headers: { 'Content-Type': 'image/png' },
      body: bytes,
    });
    expect(put.status).toBe(200);
    await client.call('POST', `${bucket}/uploads/${upload.upload_id}/confirm`, {});
    const made = await client.call('POST', `${bucket}/objects`, {
      blobs: [text('with a picture'), { property: 'picture', type: 'image', upload_id: upload.upload_id }],
    });
    const read = await client.call('GET', `${bucket}/objects/${made.object_id}?return_presigned_urls=true`);
    const picture = read.blobs.find((blob: Json) => blob.property === 'picture');
    expect(picture).toMatchObject({ size_bytes: 8, mime_type: 'image/png' });
    expect(new Uint8Array(await (await fetch(picture.presigned_url)).arrayBuffer())).toEqual(bytes);
  });

  it('takes a binary blob from a URL', async () => {
    const server = createServer((_, response) =>
      response.writeHead(200, { 'content-type': 'image/png' }).end('picture'),
    );
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as AddressInfo;
    try {
      const made = await client.call('POST', `${bucket}/objects`, {
        blobs: [
          text('by URL'),
          { property: 'picture', type: 'image', data: `http://127.0.0.1:${port}/a.png` },
        ],
      });
      const read = await client.call('GET', `${bucket}/objects/${made.object_id}?return_presigned_urls=true`);
      const picture = read.blobs.find((blob: Json) => blob.property === 'picture');
      expect(await (await fetch(picture.presigned_url)).text()).toBe('picture');
    } finally {
      await new Promise((resolve) => server.close(resolve));
    }
  });

  it.each([
    ['blobs as a dict', { blobs: { text: 'hello' } }, [/body\.blobs/, /list/]],
    [
      'a missing required property',
      { blobs: [{ property: 'kind', type: 'string', data: 'news' }] },
      [/text/, /required/],
    ],
    [
      "a type that is not the property's",
      { blobs: [{ property: 'text', type: 'image', data: 'x' }] },
      [/body\.blobs\.0\.type/],
    ],
    [
      'a value of another type',
      { blobs: [text('x'), { property: 'pages', type: 'integer', data: 'many' }] },
      [/body\.blobs\.1\.data/],
    ],
    [
      'an unknown property',
      { blobs: [text('x'), { property: 'colour', type: 'text', data: 'red' }] },
      [/body\.blobs\.1\.property/, /colour/],
    ],
    [
      'a value that the schema does not list',
      { blobs: [text('x'), { property: 'kind', type: 'string', data: 'poem' }] },
      [/body\.blobs\.1/],
    ],
    ['a text above the limit', { blobs: [text('x'.repeat(262_145))] }, [/body\.blobs\.0\.data/]],
    [
      'several faults at once',
      {
        blobs: [
          { property: 'colour', type: 'text', data: 'red' },
          { property: 'pages', type: 'integer', data: 'many' },
        ],
        extra: 1,
      },
      [/body\.blobs\.0\.property/, /body\.blobs\.1\.data/, /extra/, /text/],
    ],
  ])('with %s is refused with 422 and the path of each fault', async (_, body, paths) => {
    const fault = await client.refused(422, 'POST', `${bucket}/objects`, body);
    expect(fault.type).toBe('ValidationError');
    const told = `${fault.message}\n${fault.fields.join('\n')}`;
    for (const path of paths) expect(told).toMatch(path);
  });

  it('in a body that is no JSON, or too large, is refused by what is wrong with it', async () => {
    expect((await client.ask('POST', `${bucket}/objects`, '{"blobs": [')).status).toBe(400);
    const huge = JSON.stringify({
      blobs: [text('x')],
      metadata: { filler: Array.from({ length: 5 }, () => 'y'.repeat(210_000)) },
    });
    expect(await client.refused(413, 'POST', `${bucket}/objects`, huge)).toMatchObject({
      type: 'PayloadTooLargeError',
    });
  });

  it('is listed page by page: every one once, newest first', async () => {
    const { bucket_id } = await client.call('POST', `${space.path}/buckets`, {
      name: 'many',
      bucket_schema: schema,
    });
    const path = `${space.path}/buckets/${bucket_id}`;
    const objects = Array.from({ length: 45 }, (_, i) => ({ blobs: [text(`number ${i}`)], metadata: { i } }));
    await client.call('POST', `${path}/objects/batch`, { objects });
    const seen = await listAll(space, `${path}/objects`, {}, 20);
    expect(new Set(seen.map((one) => one.metadata.i)).size).toBe(45);
    expect(seen).toHaveLength(45);
    const times = seen.map((one) => one.object_id as string);
    expect(times).toEqual([...times].sort().reverse());
    const page = await client.call('GET', `${path}/objects?limit=20`);
    const cursor = page.pagination.next_cursor as string;
    expect(
      await client.refused(400, 'GET', `${bucket}/objects?cursor=${encodeURIComponent(cursor)}`),
    ).toMatchObject({ code: 'request_bad_cursor' });
  });
});
