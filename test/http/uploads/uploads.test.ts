// Uploads of files: the URL, the bytes, the confirm that keeps what is there now, and the one object made of it.
import { afterEach, describe, expect, it } from 'vitest';
import { setCrashHook } from '../../../functions/core/crash.ts';
import { uploadBytesMax } from '../../../functions/core/resources/uploads/contract.ts';
import type { App } from '../app.ts';
import { makeApp } from '../app.ts';
import { expectError, expectSameRefusal, faults } from '../expect.ts';

const buckets = '/v1/namespaces/{ns}/buckets';
const base = `${buckets}/b/uploads`;
const file = { filename: 'plan.pdf', content_type: 'application/pdf' };

async function withBucket(
  properties: object = { plan: { type: 'pdf' } },
  options: Parameters<typeof makeApp>[0] = {},
): Promise<App> {
  const app = await makeApp(options);
  expect((await app.call('POST', buckets, { name: 'b', bucket_schema: { properties } })).status).toBe(200);
  return app;
}
const ask = async (app: Pick<App, 'call'>, more: object = {}) =>
  (await app.call('POST', base, { ...file, ...more })).body;
/** What a PUT to the presigned URL does. */
const putBytes = (app: App, upload: { s3_key: string }, bytes: string) =>
  app.ports.blobs.put(upload.s3_key, bytes);
const confirm = (app: Pick<App, 'call'>, id: string, body?: unknown) =>
  app.call('POST', `${base}/${id}/confirm`, body);
const objects = async (app: App) => (await app.call('GET', `${buckets}/b/objects`)).body;

afterEach(() => setCrashHook(undefined));

describe('200', () => {
  it('create answers a URL for exactly this content type, and when it ends', async () => {
    const app = await withBucket();
    const upload = await ask(app, {
      presigned_url_expiration: 600,
      file_size_bytes: 12,
      metadata: { ticket: 7 },
    });
    expect(upload).toMatchObject({
      ...file,
      status: 'PENDING',
      file_size_bytes: 12,
      blob_property: 'plan',
      blob_type: 'pdf',
      create_object_on_confirm: true,
      object_id: null,
      etag: null,
      metadata: { ticket: 7 },
    });
    expect(upload.presigned_url).toBe(`memory://blobs/${upload.s3_key}?put=600&type=application%2Fpdf`);
    expect(Date.parse(upload.expires_at) - app.ports.clock.now()).toBe(600_000);
    expect(Date.parse(upload.confirm_until) - app.ports.clock.now()).toBe(86_400_000);
    const read = await app.call('GET', `${base}/${upload.upload_id}`);
    expect(read.body).toEqual({ ...upload, presigned_url: null });
    expect(
      (await app.call('GET', `${base}/${upload.upload_id}?return_presigned_urls=true`)).body.presigned_url,
    ).toContain(upload.s3_key);
  });

  it('confirm keeps the bytes and makes the object, once', async () => {
    const app = await withBucket();
    const upload = await ask(app, { object_metadata: { project: 'x' } });
    await putBytes(app, upload, 'the plan');
    const done = await confirm(app, upload.upload_id);
    expect(done.body).toMatchObject({
      status: 'COMPLETED',
      file_size_bytes: 8,
      object_id: expect.stringMatching(/^obj_/),
    });
    const again = await confirm(app, upload.upload_id, {});
    expect(again.body).toEqual(done.body);
    const { results, total } = await objects(app);
    expect(total).toBe(1);
    expect(results[0]).toMatchObject({
      object_id: done.body.object_id,
      metadata: { project: 'x' },
      blobs: [{ property: 'plan', type: 'pdf', mime_type: 'application/pdf', size_bytes: 8, data: null }],
    });
    const key = results[0].blobs[0].url.replace('s3://blobs/', '');
    expect(Buffer.from(await app.ports.blobs.get(key)).toString()).toBe('the plan');
    expect((await app.call('GET', `${base}/${upload.upload_id}`)).body).toMatchObject({
      status: 'COMPLETED',
      object_id: done.body.object_id,
      file_size_bytes: 8,
    });
  });

  it('a PUT to the URL after the confirm changes nothing', async () => {
    const app = await withBucket();
    const upload = await ask(app);
    await putBytes(app, upload, 'first');
    const done = await confirm(app, upload.upload_id);
    await putBytes(app, upload, 'second');
    expect((await confirm(app, upload.upload_id)).body).toEqual(done.body);
    const key = (await objects(app)).results[0].blobs[0].url.replace('s3://blobs/', '');
    expect(Buffer.from(await app.ports.blobs.get(key)).toString()).toBe('first');
  });

  it('16 confirms at once make one object and answer the same', async () => {
    const app = await withBucket();
    const upload = await ask(app);
    await putBytes(app, upload, 'the plan');
    const replies = await Promise.all(Array.from({ length: 16 }, () => confirm(app, upload.upload_id)));
    expect(replies.map((reply) => reply.status)).toEqual(Array.from({ length: 16 }, () => 200));
    for (const reply of replies) expect(reply.body).toEqual(replies[0]!.body);
    expect((await objects(app)).total).toBe(1);
    expect((await app.ports.blobs.list('')).blobs).toHaveLength(1);
  });

  it('without an object the upload is content for an object made by hand', async () => {
    const app = await withBucket({ plan: { type: 'pdf' }, title: { type: 'text', required: true } });
    const upload = await ask(app, { create_object_on_confirm: false });
    const body = { blobs: [{ property: 'plan', type: 'pdf', upload_id: upload.upload_id }], title: 'x' };
    expectError(await app.call('POST', `${buckets}/b/objects`, body), 'upload_missing');
    await putBytes(app, upload, 'the plan');
    expect((await confirm(app, upload.upload_id)).body).toMatchObject({
      object_id: null,
      message: expect.stringContaining(upload.upload_id),
    });
    const made = await app.call('POST', `${buckets}/b/objects`, body);
    expect(made.body.blobs[0]).toMatchObject({
      property: 'plan',
      mime_type: 'application/pdf',
      size_bytes: 8,
    });
    expect((await objects(app)).total).toBe(1);
  });

  it('confirm checks what it is told of the bytes', async () => {
    const app = await withBucket();
    const upload = await ask(app);
    const { etag } = await putBytes(app, upload, 'the plan');
    expectError(
      await confirm(app, upload.upload_id, { etag: '"00000000000000000000000000000000"' }),
      'upload_changed',
    );
    expectError(await confirm(app, upload.upload_id, { file_size_bytes: 9 }), 'upload_changed');
    expect(
      (await confirm(app, upload.upload_id, { etag: etag.replaceAll('"', ''), file_size_bytes: 8 })).status,
    ).toBe(200);
  });

  it('delete forgets it and its unconfirmed bytes; an object made from it stays whole', async () => {
    const app = await withBucket();
    const [waiting, done] = [await ask(app), await ask(app)];
    await putBytes(app, waiting, 'a');
    await putBytes(app, done, 'b');
    await confirm(app, done.upload_id);
    for (const { upload_id: id } of [waiting, done]) {
      expect((await app.call('DELETE', `${base}/${id}`)).status).toBe(204);
      expectError(await app.call('GET', `${base}/${id}`), 'upload_not_found');
      expectError(await app.call('DELETE', `${base}/${id}`), 'upload_not_found');
    }
    const { results } = await objects(app);
    expect(
      Buffer.from(await app.ports.blobs.get(results[0].blobs[0].url.replace('s3://blobs/', ''))).toString(),
    ).toBe('b');
    expect((await app.ports.blobs.list('uploads/')).blobs).toEqual([]);
  });

  it("lists the bucket's uploads, newest first, by search and with fresh URLs on request", async () => {
    const app = await withBucket();
    await app.call('POST', buckets, {
      name: 'other',
      bucket_schema: { properties: { plan: { type: 'pdf' } } },
    });
    await app.call('POST', `${buckets}/other/uploads`, file);
    await app.call('POST', '/v1/namespaces/{ns}/plugins/uploads', { name: 'text_embed', version: '1.0.0' });
    for (const filename of ['one.pdf', 'two.pdf', 'three.pdf']) {
      app.ports.clock.advance(5);
      await ask(app, { filename });
    }
    const names = (reply: { body: { results: { filename: string }[] } }) =>
      reply.body.results.map((upload) => upload.filename);
    expect(names(await app.call('GET', base))).toEqual(['three.pdf', 'two.pdf', 'one.pdf']);
    expect(names(await app.call('GET', `${base}?limit=1&offset=1`))).toEqual(['two.pdf']);
    const found = await app.call('POST', `${base}/list`, {
      search: 'T*.pdf',
      return_presigned_urls: true,
      sort: { field: 'filename' },
    });
    expect(names(found)).toEqual(['three.pdf', 'two.pdf']);
    for (const upload of found.body.results) expect(upload.presigned_url).toContain(upload.s3_key);
  });

  it('the property is inferred from the only one that can be meant', async () => {
    const one = await withBucket({ body: { type: 'text' } });
    expect(await ask(one)).toMatchObject({ blob_property: 'body', blob_type: 'text' });
    const mixed = await withBucket({ title: { type: 'text' }, photo: { type: 'image' } });
    expect(await ask(mixed)).toMatchObject({ blob_property: 'photo', blob_type: 'image' });
  });
});

describe('401, 403, 404 and 410', () => {
  it('need a key and its permission', async () => {
    const app = await withBucket();
    const upload = await ask(app);
    expectError(await app.as(undefined).call('POST', base, file), 'key_invalid');
    const reader = app.as({ ...app.principal, permissions: ['read'] });
    expectError(await reader.call('POST', base, file), 'key_not_permitted');
    expectError(await confirm(reader, upload.upload_id), 'key_not_permitted');
    expect((await reader.call('GET', base)).status).toBe(200);
  });

  it('an upload of another bucket, namespace, organisation, or of a plugin is refused like a random one', async () => {
    const app = await withBucket();
    const stranger = await withBucket(undefined, { ports: app.ports });
    await app.call('POST', buckets, {
      name: 'other',
      bucket_schema: { properties: { plan: { type: 'pdf' } } },
    });
    const beside = (await app.call('POST', `${buckets}/other/uploads`, file)).body.upload_id;
    const plugin = (
      await app.call('POST', '/v1/namespaces/{ns}/plugins/uploads', { name: 'text_embed', version: '1.0.0' })
    ).body.upload_id;
    const theirs = (await ask(stranger)).upload_id;
    const random = 'upl_0123456789abcdefghij';
    for (const [method, tail] of [
      ['GET', ''],
      ['DELETE', ''],
      ['POST', '/confirm'],
    ] as const) {
      const refused = await app.call(method, `${base}/${random}${tail}`);
      for (const foreign of [theirs, plugin])
        expectSameRefusal(await app.call(method, `${base}/${foreign}${tail}`), foreign, refused, random);
      expectError(await app.call(method, `${base}/${beside}${tail}`), 'upload_not_found');
    }
    expectError(
      await app.call('POST', `/v1/namespaces/{ns}/plugins/uploads/${beside}/confirm`),
      'upload_not_found',
    );
  });

  it('after a day the confirm is too late, the list is empty, and delete still works', async () => {
    const app = await withBucket();
    const upload = await ask(app);
    await putBytes(app, upload, 'late');
    app.ports.clock.advance(86_401_000);
    expectError(await confirm(app, upload.upload_id), 'upload_expired');
    expectError(await app.call('GET', `${base}/${upload.upload_id}`), 'upload_expired');
    expect((await app.call('GET', base)).body.results).toEqual([]);
    expect((await app.call('DELETE', `${base}/${upload.upload_id}`)).status).toBe(204);
  });
});

describe('409', () => {
  it('confirm before the PUT says what to do', async () => {
    const app = await withBucket();
    const reply = await confirm(app, (await ask(app)).upload_id);
    expectError(reply, 'upload_missing');
    expect(reply.body.error.message).toContain('application/pdf');
  });

  it('bytes that change while they are confirmed are not taken', async () => {
    const app = await withBucket();
    const upload = await ask(app);
    await putBytes(app, upload, 'first');
    const copy = app.ports.blobs.copyFrom.bind(app.ports.blobs);
    app.ports.blobs.copyFrom = async (...args) => {
      await putBytes(app, upload, 'second');
      return copy(...args);
    };
    expectError(await confirm(app, upload.upload_id), 'upload_changed');
    app.ports.blobs.copyFrom = copy;
    expect((await confirm(app, upload.upload_id)).body.file_size_bytes).toBe(6);
  });
});

describe('a crash', () => {
  it.each(['upload.confirm.after_copy', 'object.create.after_blobs'])(
    'at %s is mended by the next confirm, with one object',
    async (point) => {
      const app = await withBucket();
      const upload = await ask(app);
      await putBytes(app, upload, 'the plan');
      setCrashHook((at) => {
        if (at === point) throw new Error('killed');
      });
      expect((await confirm(app, upload.upload_id)).status).toBe(500);
      setCrashHook(undefined);
      const done = await confirm(app, upload.upload_id);
      expect(done.body).toMatchObject({
        status: 'COMPLETED',
        file_size_bytes: 8,
        object_id: expect.any(String),
      });
      expect((await objects(app)).total).toBe(1);
    },
  );

  it('of nobody: a confirm that is overtaken by another one and by a delete makes no second object', async () => {
    const app = await withBucket();
    const upload = await ask(app);
    await putBytes(app, upload, 'the plan');
    const write = app.ports.table.write.bind(app.ports.table);
    let overtaken = false;
    app.ports.table.write = async (writes, token) => {
      if (!overtaken && writes.some((one) => 'put' in one && one.put.sk.startsWith('OBJ#'))) {
        overtaken = true;
        const { object_id: id } = (await confirm(app, upload.upload_id)).body;
        await app.call('DELETE', `${buckets}/b/objects/${id}`);
      }
      return write(writes, token);
    };
    expect((await confirm(app, upload.upload_id)).status).toBe(200);
    expect(overtaken).toBe(true);
    expect((await objects(app)).total).toBe(0);
  });

  it('does not bring back an object that was deleted after its confirm', async () => {
    const app = await withBucket();
    const upload = await ask(app);
    await putBytes(app, upload, 'the plan');
    const { object_id: id } = (await confirm(app, upload.upload_id)).body;
    await app.call('DELETE', `${buckets}/b/objects/${id}`);
    expect((await confirm(app, upload.upload_id)).body.object_id).toBe(id);
    expect((await objects(app)).total).toBe(0);
  });
});

describe('422', () => {
  it.each([
    [{ content_type: 'application/pdf' }, ['body.filename: missing']],
    [{ filename: 'a' }, ['body.content_type: missing']],
    [{ ...file, filename: 'a\nb' }, ['body.filename: invalid_format']],
    [{ ...file, content_type: 'pdf' }, ['body.content_type: invalid_format']],
    [{ ...file, content_type: 'text/html\r\nX-Evil: 1' }, ['body.content_type: invalid_format']],
    [{ ...file, file_size_bytes: uploadBytesMax + 1 }, ['body.file_size_bytes: too_big']],
    [{ ...file, presigned_url_expiration: 59 }, ['body.presigned_url_expiration: too_small']],
    [{ ...file, presigned_url_expiration: 86_401 }, ['body.presigned_url_expiration: too_big']],
    [{ ...file, s3_key: 'objects/mine' }, ['body.s3_key: extra_forbidden']],
  ])('%j', async (body, expected) => {
    const reply = await (await withBucket()).call('POST', base, body);
    expectError(reply, 'request_invalid');
    expect(faults(reply)).toEqual(expected);
  });

  it('an object that confirm could not make is refused at create, in the words of the request', async () => {
    const app = await withBucket({ plan: { type: 'pdf' }, photo: { type: 'image' } });
    const refused = async (more: object) => {
      const reply = await app.call('POST', base, { ...file, ...more });
      expectError(reply, 'object_invalid');
      return faults(reply);
    };
    expect(await refused({})).toEqual(['body.blob_property: missing']);
    expect(await refused({ blob_property: 'nothing' })).toContain('body.blob_property: property_unknown');
    expect(await refused({ blob_property: 'constructor' })).toContain('body.blob_property: property_unknown');
    expect(await refused({ blob_property: 'plan', blob_type: 'image' })).toEqual([
      'body.blob_type: wrong_value',
    ]);
    expect(await refused({ blob_property: 'plan', object_metadata: { _internal: 1 } })).toEqual([
      'body.object_metadata._internal: wrong_value',
    ]);
    expect(await ask(app, { blob_property: 'plan', blob_type: 'PDF' })).toMatchObject({
      blob_property: 'plan',
    });
    expect(await ask(app, { create_object_on_confirm: false })).toMatchObject({ blob_property: null });
  });

  it('a bucket that requires more than the file says how to make the object by hand', async () => {
    const app = await withBucket({ plan: { type: 'pdf' }, title: { type: 'text', required: true } });
    const reply = await app.call('POST', base, file);
    expectError(reply, 'object_invalid');
    expect(faults(reply)).toEqual(['body.create_object_on_confirm: missing']);
    expect(reply.body.error.message).toContain('the property "title" is required');
    expect(reply.body.error.details.validation_errors[0].fix).toContain('"create_object_on_confirm": false');
  });

  it('a file above 100 MB is refused at confirm, at the limit it passes', async () => {
    const app = await withBucket();
    const upload = await ask(app);
    await putBytes(app, upload, 'x');
    const head = app.ports.blobs.head.bind(app.ports.blobs);
    app.ports.blobs.head = async (key) => ({ ...(await head(key))!, bytes: uploadBytesMax + 1 });
    expectError(await confirm(app, upload.upload_id), 'upload_too_large');
    app.ports.blobs.head = async (key) => ({ ...(await head(key))!, bytes: uploadBytesMax });
    expect((await confirm(app, upload.upload_id)).body.file_size_bytes).toBe(uploadBytesMax);
  });
});
