// Exports and imports over HTTP: what comes out of a collection goes into another, and nothing is lost or made up.
import { isDeepStrictEqual } from 'node:util';
import fc from 'fast-check';
import { parquetWriteBuffer } from 'hyparquet-writer';
import { describe, expect, it } from 'vitest';
import { setCrashHook } from '../../../functions/core/crash.ts';
import type { IndexJob } from '../../../functions/core/events.ts';
import { isReserved } from '../../../functions/core/reserved-fields.ts';
import type { StoredCollection } from '../../../functions/core/resources/collections/service.ts';
import { runTransfer } from '../../../functions/core/resources/transfers/service.ts';
import { openSequence, readHead } from '../../../functions/core/store/vector-index.ts';
import { hasBackslashKey } from '../../fixtures/json-keys.ts';
import type { App } from '../app.ts';
import { makeApp } from '../app.ts';
import type { SeedDocument } from '../clusters/seed.ts';
import { dims, featureUri, seedBatch, seedCollection } from '../clusters/seed.ts';
import { expectError } from '../expect.ts';

const ns = '/v1/namespaces/{ns}';
const of = (collection: StoredCollection) => `${ns}/collections/${collection.id}`;
const vector = (...values: number[]) => [...values, ...new Array<number>(dims - values.length).fill(0)];

const articles: SeedDocument[] = [
  { id: 'doc_a', fields: { text: 'one', topic: 'physics', tags: ['x', 'y'], n: 1 }, vector: vector(1, 0.25) },
  {
    id: 'doc_b',
    fields: { text: 'two', topic: 'music', n: 2.5, nested: { a: [1, { b: null }] } },
    vector: vector(0, 1),
  },
  { id: 'doc_c', fields: { text: 'three', topic: 'physics', n: null }, vector: vector(-1, 1e-30) },
  { id: 'doc_d', fields: { text: 'no vector' } },
];

async function makeTwo(documents: readonly SeedDocument[] = articles) {
  const app = await makeApp();
  const from = await seedCollection(app, 'from');
  const to = await seedCollection(app, 'to');
  if (documents.length > 0) await seedBatch(app, from, documents);
  return { app, from, to };
}

async function ok(app: Pick<App, 'call'>, method: string, path: string, body?: unknown) {
  const reply = await app.call(method, path, body);
  expect(reply.status, JSON.stringify(reply.body)).toBeLessThan(300);
  return reply.body;
}

const keyOf = (s3Path: string) => s3Path.replace('s3://blobs/', '');

async function fileOf(
  app: App,
  collection: StoredCollection,
  body: Record<string, unknown>,
): Promise<Uint8Array> {
  return app.ports.blobs.get(keyOf((await ok(app, 'POST', `${of(collection)}/export`, body)).s3_path));
}

/** Puts a file where a client puts it, and imports it. */
async function send(
  app: App,
  collection: StoredCollection,
  file: Uint8Array | string,
  format = 'json',
  more = {},
) {
  const upload = await ok(app, 'POST', `${of(collection)}/import/uploads`, { format });
  const key = /^memory:\/\/blobs\/([^?]+)/.exec(upload.presigned_url)![1]!;
  await app.ports.blobs.put(key, file, { contentType: upload.content_type });
  return app.call('POST', `${of(collection)}/import`, { upload_id: upload.upload_id, ...more });
}

/** Everything that readers see of a collection. The seed says of each document that it has the feature; an import looks. */
async function seen(app: App, collection: StoredCollection) {
  const body = await ok(app, 'POST', `${of(collection)}/documents/list`, {
    limit: 1000,
    return_vectors: true,
  });
  return (body.results as Record<string, never>[])
    .map(({ collection_id, ...document }: Record<string, unknown>) => {
      const {
        collection_id: _,
        version,
        features,
        ...internal
      } = document._internal as Record<string, unknown>;
      return { ...document, _internal: internal };
    })
    .sort((a, b) =>
      ((a as Record<string, unknown>).document_id as string) <
      ((b as Record<string, unknown>).document_id as string)
        ? -1
        : 1,
    );
}

async function search(app: App, collection: StoredCollection, query: readonly number[], filters?: unknown) {
  const body = await ok(app, 'POST', `${ns}/retrievers/execute`, {
    collection_identifiers: [collection.id],
    stages: [
      {
        stage_name: 'search',
        stage_type: 'filter',
        config: {
          stage_id: 'feature_search',
          parameters: {
            searches: [{ feature_uri: featureUri, query: { input_mode: 'vector', value: query }, top_k: 50 }],
            final_top_k: 50,
            ...(filters ? { filters } : {}),
          },
        },
      },
    ],
    inputs: {},
    limit: 50,
  });
  return (body.documents as { document_id: string; score: number }[]).map(({ document_id, score }) => [
    document_id,
    score,
  ]);
}

/** Calls `disturb` each time before documents are read, but for its own reads, with the first id that is asked for. */
function beforeDocuments(app: App, disturb: (pass: number, id: string) => Promise<unknown>): void {
  const { table } = app.ports;
  const getMany = table.getMany.bind(table);
  let pass = 0;
  let isBusy = false;
  table.getMany = async (keys) => {
    const id = /^DOC#(.+)$/.exec(keys[0]?.sk ?? '')?.[1];
    if (!isBusy && id !== undefined) {
      isBusy = true;
      await disturb(++pass, id);
      isBusy = false;
    }
    return getMany(keys);
  };
}

/** The jobs that wait in the outbox, and those that the sweeper would send now. */
function jobsOf(app: App): IndexJob[] {
  return app.ports.table
    .dump()
    .filter((item) => item.pk.startsWith('OUTBOX#'))
    .map((item) => JSON.parse(String(item.message)) as { to: string; job: IndexJob })
    .filter(({ to, job }) => to === 'jobs' && job.kind === 'index' && job.run_id !== undefined)
    .map(({ job }) => job);
}

describe('an export', () => {
  it.each(['parquet', 'json'])(
    'as %s, imported into an empty collection, gives the same documents and searches',
    async (format) => {
      const { app, from, to } = await makeTwo();
      const made = await ok(app, 'POST', `${of(from)}/export`, { format, include_vectors: true });
      expect(made).toMatchObject({
        status: 'COMPLETED',
        format,
        document_count: 4,
        documents_changed: 0,
        task_id: null,
        error: null,
      });
      expect(made.download_url).toContain(made.export_id);
      const bytes = await app.ports.blobs.get(keyOf(made.s3_path));
      expect(made.file_size_bytes).toBe(bytes.length);
      const reply = await send(app, to, bytes, format);
      expect(reply.status, JSON.stringify(reply.body)).toBe(200);
      expect(reply.body).toMatchObject({
        status: 'COMPLETED',
        row_count: 4,
        document_count: 4,
        documents_added: 4,
        documents_without_vectors: 1,
      });
      expect(await seen(app, to)).toEqual(await seen(app, from));
      for (const query of [vector(1, 1), vector(0.1, -3), vector(0)]) {
        expect(await search(app, to, query)).toEqual(await search(app, from, query));
        const filter = { field: 'topic', operator: 'eq', value: 'physics' };
        expect(await search(app, to, query, filter)).toEqual(await search(app, from, query, filter));
      }
      expect((await ok(app, 'GET', of(to))).document_count).toBe(4);
    },
  );

  it('of any documents, imported, gives back the same documents', async () => {
    const name = fc
      .string({ minLength: 1, maxLength: 6 })
      .filter((n) => !isReserved(n) && n.trim() !== '' && n !== '\\');
    const value = fc
      .jsonValue({ maxDepth: 2 })
      .filter((v) => !hasBackslashKey(v))
      .map((v) => JSON.parse(JSON.stringify(v)));
    const document = fc.record({
      fields: fc.dictionary(name, value, { maxKeys: 4, noNullPrototype: true }),
      vector: fc.option(
        fc.array(fc.float({ noNaN: true, noDefaultInfinity: true }), { minLength: dims, maxLength: dims }),
        { nil: undefined },
      ),
    });
    await fc.assert(
      fc.asyncProperty(
        fc.array(document, { maxLength: 6 }),
        fc.constantFrom('json', 'parquet'),
        async (given, format) => {
          const documents = given.map(
            (one, i): SeedDocument => ({
              id: `doc_${i}`,
              fields: one.fields,
              ...(one.vector ? { vector: one.vector } : {}),
            }),
          );
          const { app, from, to } = await makeTwo(documents);
          const file = await fileOf(app, from, { format, include_vectors: true });
          const reply = await send(app, to, file, format);
          expect(reply.status, JSON.stringify(reply.body)).toBe(200);
          const [expected, found] = [await seen(app, from), await seen(app, to)];
          expect(isDeepStrictEqual(found, expected), JSON.stringify([found, expected])).toBe(true);
        },
      ),
      { numRuns: 30 },
    );
  });

  it('holds the documents that a filter, a sample and a choice of fields select', async () => {
    const { app, from } = await makeTwo();
    const lines = async (body: Record<string, unknown>) => {
      const text = Buffer.from(await fileOf(app, from, { format: 'json', ...body })).toString();
      return text
        .split('\n')
        .filter(Boolean)
        .map((line) => JSON.parse(line));
    };
    const physics = await lines({ filters: { field: 'topic', operator: 'eq', value: 'physics' } });
    expect(physics.map((one) => one.document_id).sort()).toEqual(['doc_a', 'doc_c']);
    expect(physics[0].vectors).toBeUndefined();
    const sample = await lines({ sample_size: 2 });
    expect(sample).toHaveLength(2);
    expect((await lines({ sample_size: 2 })).map((one) => one.document_id)).toEqual(
      sample.map((one) => one.document_id),
    );
    for (const one of await lines({ select_fields: ['metadata.topic', 'n'] })) {
      expect(
        Object.keys(one)
          .filter((key) => !key.startsWith('_') && key !== 'document_id')
          .every((key) => ['topic', 'n'].includes(key)),
      ).toBe(true);
    }
    const unknown = await app.call('POST', `${of(from)}/export`, { select_fields: ['nothing'] });
    expect(unknown.body.warnings).toEqual(['No document has the field "nothing" of select_fields.']);
    expectError(
      await app.call('POST', `${of(from)}/export`, { filters: { field: 'n', operator: 'like', value: 1 } }),
      'request_invalid',
    );
  });

  it('as csv has a line a document, and cannot be imported', async () => {
    const { app, from, to } = await makeTwo();
    const made = await ok(app, 'POST', `${of(from)}/export`, { format: 'csv', include_vectors: true });
    const text = Buffer.from(await app.ports.blobs.get(keyOf(made.s3_path))).toString();
    expect(text.split('\r\n')).toHaveLength(6);
    expect(text).toContain(featureUri);
    expectError(await app.call('POST', `${of(to)}/import`, { s3_path: made.s3_path }), 'request_invalid');
  });

  it('of an empty collection is a file without rows, which can be imported', async () => {
    const { app, from, to } = await makeTwo([]);
    for (const format of ['parquet', 'json']) {
      const file = await fileOf(app, from, { format, include_vectors: true });
      const reply = await send(app, to, file, format);
      expect(reply.body).toMatchObject({ status: 'COMPLETED', row_count: 0, document_count: 0 });
    }
  });

  it('is of one version: what changes meanwhile makes it begin again', async () => {
    const { app, from } = await makeTwo();
    // Just before documents are read for the first time, somebody patches one and deletes another.
    beforeDocuments(app, async (pass) => {
      if (pass > 1) return;
      await ok(app, 'PATCH', `${of(from)}/documents/doc_a`, { topic: 'history' });
      await ok(app, 'DELETE', `${of(from)}/documents/doc_b`);
    });
    const made = await ok(app, 'POST', `${of(from)}/export`, { format: 'json' });
    expect(made).toMatchObject({ document_count: 3, documents_changed: 0 });
    const { version } = await readHead(app.ctx, from.id);
    expect(made.index_version).toBe(version);
  });

  it('says how many documents were changed when it is disturbed each time', async () => {
    const { app, from } = await makeTwo(
      Array.from({ length: 600 }, (_, i) => ({ id: `doc_${i}`, fields: { n: i }, vector: vector(i, 1) })),
    );
    beforeDocuments(app, (pass, id) => ok(app, 'PATCH', `${of(from)}/documents/${id}`, { changed: pass }));
    const made = await ok(app, 'POST', `${of(from)}/export`, { format: 'json' });
    expect(made.document_count).toBe(600);
    expect(made.documents_changed).toBeGreaterThan(0);
    expect(made.warnings[0]).toContain(`${made.documents_changed} documents were changed`);
  });

  it('too large for one answer becomes a task, which the worker ends', async () => {
    const { app, from } = await makeTwo();
    await app.ports.table.write([{ update: app.ctx.ns.head(from.id), set: { document_count: 50_000 } }]);
    const begun = await app.call('POST', `${of(from)}/export`, { format: 'parquet', include_vectors: true });
    expect(begun.status).toBe(202);
    expect(begun.body).toMatchObject({ status: 'PENDING', download_url: null });
    expect((await ok(app, 'GET', `/v1/tasks/${begun.body.task_id}`)).status).toBe('PENDING');
    const [job] = jobsOf(app);
    expect(job).toMatchObject({
      kind: 'index',
      task: 'export',
      collection_id: from.id,
      run_id: begun.body.export_id,
    });
    await runTransfer(app.ctx, job!, app.ports.clock.now() + 900_000);
    const done = await ok(app, 'GET', `${of(from)}/exports/${begun.body.export_id}`);
    expect(done).toMatchObject({ status: 'COMPLETED', document_count: 4, progress: { done: 4, total: 4 } });
    expect(await app.ports.blobs.head(keyOf(done.s3_path))).toMatchObject({ bytes: done.file_size_bytes });
    const task = await ok(app, 'GET', `/v1/tasks/${begun.body.task_id}`);
    expect(task).toMatchObject({
      status: 'COMPLETED',
      outputs: [{ export_id: begun.body.export_id, document_count: 4 }],
    });
    // A job that comes twice does nothing.
    await runTransfer(app.ctx, job!, app.ports.clock.now() + 900_000);
    expect(await ok(app, 'GET', `${of(from)}/exports/${begun.body.export_id}`)).toEqual(done);
  });
});

describe('an import', () => {
  const line = (id: string, more: Record<string, unknown> = {}) =>
    `${JSON.stringify({ document_id: id, ...more })}\n`;
  const withVector = (values: unknown) => ({ vectors: { [featureUri]: values } });

  it('replaces documents that are there, keeps the others, and takes the last of equal ids', async () => {
    const { app, from } = await makeTwo();
    const reply = await send(
      app,
      from,
      line('doc_a', { text: 'old', ...withVector(vector(9)) }) +
        line('doc_new', { text: 'new', ...withVector(vector(0, 0, 1)) }) +
        line('doc_a', { text: 'newest', ...withVector(vector(0, 0, 2)) }) +
        line('doc_b', { text: 'without a vector now' }),
    );
    expect(reply.body).toMatchObject({
      row_count: 4,
      document_count: 3,
      documents_added: 1,
      documents_without_vectors: 1,
    });
    const documents = await seen(app, from);
    expect(documents.map((one) => (one as Record<string, unknown>).text)).toEqual([
      'newest',
      'without a vector now',
      'three',
      'no vector',
      'new',
    ]);
    const found = await search(app, from, vector(0, 0, 1));
    expect(
      found
        .slice(0, 2)
        .map(([id]) => id)
        .sort(),
    ).toEqual(['doc_a', 'doc_new']);
    // The vector that doc_b had before is gone with it.
    expect(found.map(([id]) => id)).not.toContain('doc_b');
    expect((await ok(app, 'GET', of(from))).document_count).toBe(5);
  });

  it('with the same token again changes nothing, and refuses another file', async () => {
    const { app, from } = await makeTwo();
    const file = line('doc_a', { text: 'again' });
    const first = await send(app, from, file, 'json', { token: 'nightly' });
    await ok(app, 'PATCH', `${of(from)}/documents/doc_a`, { text: 'patched since' });
    const { version } = await readHead(app.ctx, from.id);
    const uploads = app.ports.table.dump().filter((item) => item.purpose === 'import');
    const again = await app.call('POST', `${of(from)}/import`, {
      upload_id: uploads[0]!.upload_id,
      token: 'nightly',
    });
    expect(again.body).toEqual(first.body);
    expect((await readHead(app.ctx, from.id)).version).toBe(version);
    expect((await ok(app, 'GET', `${of(from)}/documents/doc_a`)).text).toBe('patched since');
    expectError(await send(app, from, file, 'json', { token: 'nightly' }), 'import_token_reused');
    // Without a token the upload is the token.
    const byUpload = await send(app, from, line('doc_x'));
    expect(byUpload.body.import_id).not.toBe(first.body.import_id);
  });

  it.each([
    [
      'a value that is not finite',
      line('d', withVector([1, 2, 3, 1e39])),
      ['row', 2, featureUri],
      /1e\+39 at place 4/,
    ],
    [
      'NaN as a text',
      line('d', withVector([1, 2, 3, 'NaN'])),
      ['row', 2, featureUri],
      /no number at place 4/,
    ],
    [
      'too few dimensions',
      line('d', withVector([1, 2])),
      ['row', 2, featureUri],
      /has 2 values; the feature has 4/,
    ],
    [
      'an unknown feature',
      line('d', { vectors: { 'mixpeek://x@1.0.0/y': [1] } }),
      ['row', 2, 'mixpeek://x@1.0.0/y'],
      /is no feature/,
    ],
    ['a reserved name', line('d', { score: 1 }), ['row', 2, 'score'], /kept by the service/],
    ['no id', '{"text":"x"}\n', ['row', 2, 'document_id'], /is missing/],
    ['an id with a space', line('a b'), ['row', 2, 'document_id'], /1 to 200 printable/],
    ['a line that is no JSON', '{"document_id": "d"\n', ['row', 2], /not one line of JSON/],
    [
      'a metric of another feature',
      line('d', { ...withVector(vector(1)), _internal: { metrics: { [featureUri]: 'dot' } } }),
      ['row', 2, featureUri],
      /made for dot/,
    ],
    ['a document that is too large', line('d', { text: 'x'.repeat(256_001) }), ['row', 2], /at most 256000/],
    [
      'provenance of a wrong form',
      line('d', { _internal: { created_at: 'yesterday' } }),
      ['row', 2, '_internal'],
      /created_at/,
    ],
  ])('with %s is refused by row, and nothing is stored', async (_, bad, location, message) => {
    const { app, from } = await makeTwo();
    const before = await readHead(app.ctx, from.id);
    const reply = await send(app, from, line('doc_good', withVector(vector(1))) + bad);
    expectError(reply, 'import_invalid');
    expect(reply.body.error.details.validation_errors[0].location).toEqual(location);
    expect(reply.body.error.details.validation_errors[0].message).toMatch(message);
    expect(await readHead(app.ctx, from.id)).toEqual(before);
    expectError(await app.call('GET', `${of(from)}/documents/doc_good`), 'document_not_found');
  });

  it('of a Parquet file of another program takes its columns for fields and its lists for vectors', async () => {
    const { app, to } = await makeTwo();
    const file = new Uint8Array(
      parquetWriteBuffer({
        columnData: [
          { name: 'document_id', data: ['p1', 'p2'], type: 'STRING' },
          { name: 'title', data: ['first', null], type: 'STRING' },
          { name: 'year', data: [1999n, 2001n], type: 'INT64' },
          { name: 'toy_embedding', data: [vector(1), vector(0, 0.1)] },
        ],
      }),
    );
    const reply = await send(app, to, file, 'parquet');
    expect(reply.status, JSON.stringify(reply.body)).toBe(200);
    const [first, second] = (await seen(app, to)) as Record<string, unknown>[];
    expect(first).toMatchObject({ document_id: 'p1', title: 'first', year: 1999 });
    expect(second!.title).toBeUndefined();
    expect((second!.vectors as Record<string, number[]>)[featureUri]).toEqual([
      ...Float32Array.from(vector(0, 0.1)),
    ]);
    expect((await search(app, to, vector(1)))[0]).toEqual(['p1', 1]);
  });

  it.each([
    ['no file at all', new Uint8Array(0), /only 0 bytes/],
    ['a file of another kind', Buffer.from('{"document_id":"x"}\n'.repeat(10)), /does not begin with PAR1/],
    [
      'a file without ids',
      new Uint8Array(parquetWriteBuffer({ columnData: [{ name: 'id', data: ['a'], type: 'STRING' }] })),
      /no column "document_id"/,
    ],
  ])('of %s as Parquet says so', async (_, file, message) => {
    const { app, to } = await makeTwo();
    const reply = await send(app, to, file, 'parquet');
    expectError(reply, 'import_invalid');
    expect(reply.body.error.message).toMatch(message);
  });

  it('never makes the objects of others readable through a document', async () => {
    const { app, to } = await makeTwo();
    const blob = {
      field: 'f',
      role: 'source',
      type: 'image',
      blob_id: 'b',
      mime_type: 'image/png',
      size_bytes: 1,
    };
    const stolen = `objects/ns_ofsomebodyelse0000/bkt/obj/secret`;
    const own = `objects/${app.namespace}/bkt/obj/mine`;
    await send(
      app,
      to,
      line('d', {
        _internal: {
          blobs: [
            { ...blob, s3_key: stolen },
            { ...blob, s3_key: own },
          ],
        },
      }),
    );
    const shown = await ok(app, 'GET', `${of(to)}/documents/d?return_presigned_urls=true`);
    expect(JSON.stringify(shown)).not.toContain('ofsomebodyelse');
    expect(shown.document_blobs[1].presigned_url).toContain(own);
  });

  it('takes the file of an export of its own namespace, and of no other', async () => {
    const { app, from, to } = await makeTwo();
    const made = await ok(app, 'POST', `${of(from)}/export`, { include_vectors: true });
    expect(await ok(app, 'POST', `${of(to)}/import`, { s3_path: made.s3_path })).toMatchObject({
      document_count: 4,
    });
    const other = await makeApp({ ports: app.ports });
    const theirs = await seedCollection(other, 'theirs');
    expectError(
      await other.call('POST', `${of(theirs)}/import`, { s3_path: made.s3_path }),
      'request_invalid',
    );
    for (const path of [
      `${made.s3_path}/../../x`,
      's3://blobs/exports/',
      made.s3_path.replace('exports', 'objects'),
    ])
      expect(
        (await app.call('POST', `${of(to)}/import`, { s3_path: path, format: 'json' })).status,
      ).toBeGreaterThanOrEqual(400);
  });

  it('asks for exactly one file, and for one that was sent', async () => {
    const { app, from, to } = await makeTwo();
    expectError(await app.call('POST', `${of(to)}/import`, {}), 'request_invalid');
    const upload = await ok(app, 'POST', `${of(to)}/import/uploads`);
    expectError(
      await app.call('POST', `${of(to)}/import`, { upload_id: upload.upload_id }),
      'upload_missing',
    );
    expectError(
      await app.call('POST', `${of(from)}/import`, { upload_id: upload.upload_id }),
      'upload_not_found',
    );
    expectError(
      await app.call('POST', `${of(to)}/import`, { upload_id: 'upl_00000000000000000000' }),
      'upload_not_found',
    );
  });

  it('waits for a batch of the collection: busy in a request, again later in the worker', async () => {
    const { app, from } = await makeTwo();
    const until = new Date(app.ports.clock.now() + 60_000).toISOString();
    const lock = {
      ...app.ctx.ns.running(from.id),
      batch_id: 'btch_running',
      bucket_id: 'b',
      attempt: 1,
      until,
    };
    await app.ports.table.write([{ put: lock }]);
    const { write } = openSequence(app.ctx, await readHead(app.ctx, from.id), {
      batch_id: 'btch_running',
      attempt: 1,
    });
    await app.ports.table.write([write!]);
    const reply = await send(app, from, line('doc_z'), 'json', { token: 't' });
    expectError(reply, 'collection_busy');
    // The batch keeps its sequence.
    expect((await readHead(app.ctx, from.id)).open?.batch_id).toBe('btch_running');
    await app.ports.table.write([{ delete: app.ctx.ns.running(from.id) }]);
    const uploads = app.ports.table.dump().filter((item) => item.purpose === 'import');
    const again = await app.call('POST', `${of(from)}/import`, {
      upload_id: uploads[0]!.upload_id,
      token: 't',
    });
    expect(again.body).toMatchObject({ status: 'COMPLETED', document_count: 1 });
  });

  it('of many rows becomes a task; the worker may die at any step and goes on where it stopped', async () => {
    const points = [
      'import.after_begin',
      'import.slice.after_segments',
      'batch.chunk.between_rows',
      'import.slice.after_rows',
      'import.before_commit',
      'import.commit.after_manifest',
      'import.commit.after_head',
    ];
    const { app, from } = await makeTwo();
    const rows = Array.from({ length: 5_001 }, (_, i) =>
      line(`doc_${i}`, { n: i, ...withVector(vector(i, 1)) }),
    ).join('');
    const begun = await send(app, from, rows);
    expect(begun.status).toBe(202);
    const job = jobsOf(app).find((one) => one.task === 'import')!;
    expect(job).toMatchObject({ run_id: begun.body.import_id });
    for (const point of points) {
      setCrashHook((passed) => {
        if (passed === point) throw new Error(`died at ${point}`);
      });
      await expect(runTransfer(app.ctx, job, app.ports.clock.now() + 900_000)).rejects.toThrow(
        `died at ${point}`,
      );
      setCrashHook(undefined);
      const visible = (await readHead(app.ctx, from.id)).document_count;
      expect(visible).toBe(point === 'import.commit.after_head' ? 5_005 : 4);
    }
    await runTransfer(app.ctx, job, app.ports.clock.now() + 900_000);
    const done = await ok(app, 'GET', `${of(from)}/imports/${begun.body.import_id}`);
    expect(done).toMatchObject({
      status: 'COMPLETED',
      row_count: 5_001,
      documents_added: 5_001,
      progress: { done: 5_001, total: 5_001 },
    });
    expect(await app.ports.table.get(app.ctx.ns.running(from.id))).toBeUndefined();
    expect((await ok(app, 'GET', `/v1/tasks/${begun.body.task_id}`)).outputs[0]).toMatchObject({
      document_count: 5_001,
    });
    expect((await search(app, from, vector(0, 1))).length).toBe(50);
  }, 60_000);

  it('that the worker refuses shows its faults, and can be asked for again', async () => {
    const { app, from } = await makeTwo();
    const rows = Array.from({ length: 5_001 }, (_, i) =>
      line(`doc_${i}`, i === 4_000 ? withVector([1]) : {}),
    ).join('');
    const begun = await send(app, from, rows, 'json', { token: 'bad' });
    const [job] = jobsOf(app);
    await runTransfer(app.ctx, job!, app.ports.clock.now() + 900_000);
    const failed = await ok(app, 'GET', `${of(from)}/imports/${begun.body.import_id}`);
    expect(failed).toMatchObject({
      status: 'FAILED',
      validation_errors: [{ location: ['row', 4_001, featureUri] }],
    });
    expect(failed.error).toContain('Row 4001');
    const task = await ok(app, 'GET', `/v1/tasks/${begun.body.task_id}`);
    expect(task).toMatchObject({ status: 'FAILED', error: failed.error });
    expect(await app.ports.table.get(app.ctx.ns.running(from.id))).toBeUndefined();
    expect((await readHead(app.ctx, from.id)).open).toBeNull();
    const uploads = app.ports.table.dump().filter((item) => item.purpose === 'import');
    const again = await app.call('POST', `${of(from)}/import`, {
      upload_id: uploads[0]!.upload_id,
      token: 'bad',
    });
    expect(again.status).toBe(202);
    await runTransfer(app.ctx, jobsOf(app).at(-1)!, app.ports.clock.now() + 900_000);
    expect((await ok(app, 'GET', `${of(from)}/imports/${begun.body.import_id}`)).status).toBe('FAILED');
  }, 60_000);

  it('that did not end in its time fails and lets the collection go', async () => {
    const { app, from } = await makeTwo();
    const begun = await send(app, from, Array.from({ length: 5_001 }, (_, i) => line(`doc_${i}`)).join(''));
    app.ports.clock.advance(7 * 3600 * 1000);
    await runTransfer(app.ctx, jobsOf(app)[0]!, app.ports.clock.now() + 900_000);
    expect(await ok(app, 'GET', `${of(from)}/imports/${begun.body.import_id}`)).toMatchObject({
      status: 'FAILED',
    });
  }, 60_000);
});

describe('the index of a collection', () => {
  it('shows versions, files, rows and bytes by feature', async () => {
    const { app, from, to } = await makeTwo();
    const index = await ok(app, 'GET', `${of(from)}/index?live_rows=true`);
    expect(index).toMatchObject({
      collection_id: from.id,
      version: 1,
      document_count: 4,
      features: [
        {
          feature_uri: featureUri,
          dims,
          metric: 'cosine',
          segments: 1,
          rows: 3,
          live_rows: 3,
          storage: 'f32',
        },
      ],
    });
    expect(index.features[0].bytes).toBeGreaterThan(0);
    await ok(app, 'DELETE', `${of(from)}/documents/doc_a`);
    const after = await ok(app, 'GET', `${of(from)}/index?live_rows=true`);
    expect(after.features[0]).toMatchObject({ rows: 3, live_rows: 2 });
    expect(await ok(app, 'GET', `${of(to)}/index`)).toMatchObject({
      version: 0,
      features: [{ segments: 0, rows: 0, live_rows: null, bytes: 0, storage: null }],
    });
  });
});
