// Searching with a file: from a URL, a data: URI or base64, by a plugin stand-in that reads four bytes as a vector.
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { World } from '../../unit/batches/world.ts';
import { jobFor, makeWorld, runBatch } from '../../unit/batches/world.ts';
import type { Reply } from '../app.ts';
import { expectError, faults } from '../expect.ts';
import { idsOf } from './library.ts';

const uri = 'mixpeek://pixels@1.0.0/pixels_embedding';
const signature = Buffer.from('\x89PNG\r\n\x1a\n', 'latin1');

/** An "image" that is near others with like bytes; `more` bytes behind them change nothing. */
const picture = (vector: readonly number[], more = 0) =>
  Buffer.concat([signature, Buffer.from(vector), Buffer.alloc(more, 7)]);
const base64 = (bytes: Uint8Array) => Buffer.from(bytes).toString('base64');

let server: Server;
let respond: (request: IncomingMessage, response: ServerResponse) => void;
let asked: (string | undefined)[];
const at = (path: string) => `http://127.0.0.1:${(server.address() as AddressInfo).port}/${path}`;

beforeEach(async () => {
  asked = [];
  respond = (_, response) => response.writeHead(404).end();
  server = createServer((request, response) => {
    asked.push(request.url);
    respond(request, response);
  });
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
});

afterEach(async () => {
  server.closeAllConnections();
  await new Promise((done) => server.close(done));
});

interface Row {
  readonly row: number;
  readonly data: string | null;
  readonly blob_base64?: string;
  readonly blob_url?: string;
  readonly mime_type: string;
  readonly blob_type: string;
  readonly size_bytes: number;
}

/** A collection of pictures; `queries` are the rows that the plugin got for queries, call by call. */
async function gallery(pictures: readonly Buffer[], settings?: { readonly allowLoopback: boolean }) {
  const world = await makeWorld();
  const queries: { rows: Row[]; realtime: boolean }[] = [];
  const bytesOf = async (row: Row): Promise<Buffer> => {
    if (row.blob_base64 !== undefined) return Buffer.from(row.blob_base64, 'base64');
    if (row.blob_url === undefined) return Buffer.from(String(row.data));
    const key = new URL(row.blob_url).pathname.slice(1);
    return Buffer.from(await world.ports.blobs.get(key));
  };
  world.runner.answer = async (event) => {
    const rows = event.rows as unknown as Row[];
    if (event.operation === 'embed')
      queries.push({ rows, realtime: (event as unknown as { realtime: boolean }).realtime });
    const read = await Promise.all(rows.map(bytesOf));
    // What is no picture has no vector.
    const vectors = read.map((bytes) => Array.from({ length: 4 }, (_, i) => (bytes[8 + i] ?? 0) / 255));
    return {
      outputs: rows.map(({ row }, i) => ({
        row,
        ordinal: 0,
        columns: {},
        features: { pixels_embedding: read[i]!.length < 12 ? null : i },
      })),
      dropped: [],
      failures: [],
      vectors: {
        pixels_embedding: {
          dims: 4,
          count: rows.length,
          data_base64: Buffer.from(Float32Array.from(vectors.flat()).buffer).toString('base64'),
        },
      },
      warnings: [],
      logs: '',
      timings: {},
    };
  };
  await world.addPlugin('pixels');
  const collection = await world.addCollection('pictures', [], {
    feature_extractors: [
      { feature_extractor_name: 'pixels', version: '1.0.0', input_mappings: { image: 'image' } },
    ],
  });
  respond = (request, response) =>
    response.writeHead(200, { 'content-type': 'image/png' }).end(pictures[Number(request.url!.slice(1))]);
  const post = (path: string, body?: unknown) => world.call('POST', `/v1/namespaces/{ns}/${path}`, body);
  const objects: string[] = [];
  for (const i of pictures.keys()) {
    const reply = await post(`buckets/${world.bucketId}/objects`, {
      blobs: [{ property: 'image', type: 'image', data: at(String(i)) }],
    });
    if (reply.status !== 200) throw new Error(JSON.stringify(reply.body));
    objects.push(reply.body.object_id);
  }
  if (pictures.length > 0) {
    const batch = (await post(`buckets/${world.bucketId}/batches/trigger`, {})).body.batch_id;
    await runBatch(world.ctx, await jobFor(world.ctx, world.bucketId, batch));
  }
  const listed = await post(`collections/${collection.id}/documents/list`, {});
  const documentOf = new Map<string, string>(
    listed.body.results.map((one: { document_id: string; _internal: { lineage: { object_id: string } } }) => [
      one._internal.lineage.object_id,
      one.document_id,
    ]),
  );
  asked = [];
  const stages = (query: unknown, more: object = {}) => [
    {
      stage_name: 'find',
      stage_type: 'filter',
      config: {
        stage_id: 'feature_search',
        parameters: { searches: [{ feature_uri: uri, query, ...more }] },
      },
    },
  ];
  if (settings) Object.assign(world.ports.settings, settings);
  return {
    world,
    queries,
    /** In the order of the pictures. */
    documents: objects.map((id) => documentOf.get(id)!),
    search: (query: unknown, inputs: object = {}, more: object = {}): Promise<Reply> =>
      post('retrievers/execute', { stages: stages(query, more), inputs, collection_ids: [collection.id] }),
    post,
    stages,
  };
}

const [red, green, blue] = [
  [250, 10, 10, 0],
  [10, 250, 10, 0],
  [10, 10, 250, 0],
] as const;
const pictures = [picture(red), picture(green), picture(blue)];

describe('a search with a picture', () => {
  it.each([
    ['base64', (bytes: Buffer) => base64(bytes), 'image/png'],
    [
      'base64 with white space, in the alphabet of URLs',
      (bytes: Buffer) => ` ${bytes.toString('base64url')}\n`,
      'image/png',
    ],
    ['a data: URI', (bytes: Buffer) => `data:image/x-own;base64,${base64(bytes)}`, 'image/x-own'],
  ])('given as %s finds the pictures nearest to it', async (_, write, mime_type) => {
    const { documents, queries, search } = await gallery(pictures);
    const bytes = picture([20, 240, 30, 0]);
    const reply = await search({ input_mode: 'content', value: write(bytes) });
    expect(reply.status, JSON.stringify(reply.body)).toBe(200);
    expect(idsOf(reply)[0]).toBe(documents[1]);
    expect(idsOf(reply)).toHaveLength(3);
    expect(queries).toHaveLength(1);
    expect(queries[0]!.rows).toEqual([
      expect.objectContaining({
        row: 0,
        blob_base64: base64(bytes),
        data: `data:${mime_type};base64,${base64(bytes)}`,
        mime_type,
        blob_type: 'image',
        size_bytes: bytes.length,
      }),
    ]);
  });

  it('given as a URL is fetched once for all searches that name it, and the plugin gets the URL too', async () => {
    const { documents, queries, search } = await gallery(pictures);
    respond = (_, response) =>
      response.writeHead(200, { 'content-type': 'image/webp; q=1' }).end(picture(blue, 9));
    const url = at('query.webp');
    const reply = await search({ input_mode: 'content', value: url });
    expect(idsOf(reply)[0]).toBe(documents[2]);
    expect(asked).toEqual(['/query.webp']);
    expect(queries[0]!.rows[0]).toMatchObject({ data: url, mime_type: 'image/webp', blob_type: 'image' });
  });

  it('takes the media type of the request before that of the source, and by the first bytes where nobody says', async () => {
    const { queries, search } = await gallery([]);
    respond = (_, response) => response.writeHead(200).end(picture(red));
    await search({ input_mode: 'content', value: base64(picture(red)), mime_type: 'image/TIFF' });
    await search({ input_mode: 'content', value: at('x') });
    await search({ input_mode: 'content', value: base64(Buffer.from('no signature')) });
    expect(queries.map(({ rows }) => [rows[0]!.mime_type, rows[0]!.blob_type])).toEqual([
      ['image/tiff', 'image'],
      ['image/png', 'image'],
      ['application/octet-stream', 'binary'],
    ]);
  });

  it('is stored in a retriever as a template and given with each run', async () => {
    const { documents, post, stages } = await gallery(pictures);
    const made = await post('retrievers', {
      name: 'by_picture',
      stages: stages({ input_mode: 'content', value: '{{INPUT.image}}', mime_type: '{{INPUT.type}}' }),
      input_schema: {
        image: { type: 'image', required: true },
        type: { type: 'string', default: 'image/png' },
      },
    });
    expect(made.status, JSON.stringify(made.body)).toBe(200);
    for (const [i, one] of pictures.entries()) {
      const reply = await post('retrievers/by_picture/execute', { inputs: { image: base64(one) } });
      expect(idsOf(reply)[0]).toBe(documents[i]);
    }
    expectError(await post('retrievers/by_picture/execute', { inputs: {} }), 'retriever_input_invalid');
    expectError(
      await post('retrievers/by_picture/execute', { inputs: { image: base64(pictures[0]!), type: 'png' } }),
      'retriever_input_invalid',
    );
  });

  it('is embedded once for equal bytes, wherever they came from, and again for other ones', async () => {
    const { queries, search } = await gallery(pictures);
    respond = (_, response) => response.writeHead(200, { 'content-type': 'image/png' }).end(pictures[0]);
    for (let i = 0; i < 2; i++) await search({ input_mode: 'content', value: base64(pictures[0]!) });
    await search({ input_mode: 'content', value: at('same') });
    expect(queries).toHaveLength(1);
    await search({ input_mode: 'content', value: base64(pictures[1]!) });
    expect(queries).toHaveLength(2);
  });

  it('goes by a temporary object when it is too large for the call, up to 3.6 MB of base64 in a request', async () => {
    const { world, documents, queries, search } = await gallery(pictures);
    const large = picture(green, 3_500_000);
    const reply = await search({ input_mode: 'content', value: '{{INPUT.image}}' }, { image: base64(large) });
    expect(reply.status, JSON.stringify(reply.body).slice(0, 500)).toBe(200);
    expect(idsOf(reply)[0]).toBe(documents[1]);
    const [row] = queries[0]!.rows;
    expect(row!.blob_base64).toBeUndefined();
    expect(row!.blob_url).toContain(`queries/${world.namespace}/`);
    expect(row!.data).toBe(row!.blob_url);
    expect(JSON.stringify(queries[0]).length).toBeLessThan(10_000);
  });

  it('goes through the steps that read files, also where texts go through realtime.py', async () => {
    const { world, queries, search } = await gallery(pictures);
    await world.ports.table.write([
      { update: world.ctx.ns.resource('PLUGIN', 'pixels_1_0_0'), set: { deployment: 'deployed' } },
    ]);
    await search({ input_mode: 'content', value: base64(pictures[0]!) });
    await search({ input_mode: 'text', text: 'a red picture' });
    expect(queries.map(({ realtime }) => realtime)).toEqual([false, true]);
  });

  it('is left out where it is optional and empty', async () => {
    const { queries, search } = await gallery(pictures);
    const reply = await search(
      { input_mode: 'content', value: '{{INPUT.image | default("")}}' },
      {},
      { optional: true },
    );
    expect(reply.status).toBe(200);
    expect(queries).toEqual([]);
  });
});

describe('content of a feature that is made of texts', () => {
  it('stays a text, whatever it looks like, unless its media type says otherwise', async () => {
    const world = await makeWorld();
    const collection = await world.addCollection('articles');
    const embedded: unknown[] = [];
    world.runner.behave = (row) => {
      embedded.push(row);
      return {};
    };
    for (const content of ['some words', 'https://example.com/page']) {
      const reply = await world.call('POST', '/v1/namespaces/{ns}/retrievers/execute', {
        collection_ids: [collection.id],
        stages: [
          {
            stage_name: 'find',
            stage_type: 'filter',
            config: {
              stage_id: 'feature_search',
              parameters: {
                searches: [
                  {
                    feature_uri: 'mixpeek://embedder@1.0.0/embedder_embedding',
                    query: { input_mode: 'content', content },
                  },
                ],
              },
            },
          },
        ],
      });
      expect(reply.status, JSON.stringify(reply.body)).toBe(200);
    }
    expect(embedded).toMatchObject([
      { data: 'some words', mime_type: 'text/plain' },
      { data: 'https://example.com/page', mime_type: 'text/plain' },
    ]);
  });
});

describe('what cannot be searched with', () => {
  const messageOf = (reply: Reply) => reply.body.error.details.validation_errors[0];

  it.each([
    ['a text', 'a red picture, please', 'query_content_invalid'],
    ['half of base64', 'abcde', 'query_content_invalid'],
    ['a data: URI in another encoding', 'data:image/png,%89PNG', 'query_content_invalid'],
    ['a data: URI with no base64 behind it', 'data:image/png;base64,*', 'query_content_invalid'],
    ['no bytes', 'data:image/png;base64,', 'query_content_invalid'],
    ['an address in a bucket', 's3://bucket/key.png', 'query_content_invalid'],
    ['nothing', '   ', 'query_empty'],
  ])('%s is refused with what would be right', async (_, value, type) => {
    const { queries, search } = await gallery([]);
    const reply = await search({ input_mode: 'content', value });
    expectError(reply, 'retriever_input_invalid');
    expect(faults(reply)).toEqual([`body.stages.0.config.parameters.searches.0.query: ${type}`]);
    if (type === 'query_content_invalid' && value.length > 25)
      expect(`${messageOf(reply).message} ${messageOf(reply).fix}`).toMatch(/base64/);
    expect(queries).toEqual([]);
  });

  it('a text, where the plugin makes no vector of texts: the answer says how a file is given', async () => {
    const { search } = await gallery(pictures);
    const reply = await search('a cat');
    expect(faults(reply)).toEqual(['body.stages.0.config.parameters.searches.0.query: query_without_vector']);
    expect(reply.body.error.message).toContain('{"input_mode": "content", "value": "<base64 or URL>"}');
  });

  it('a number, and a media type that is none, are refused when they come in by an input', async () => {
    const { search } = await gallery([]);
    for (const [value, type] of [
      [7, undefined],
      [base64(pictures[0]!), 'png'],
    ]) {
      const query = {
        input_mode: 'content',
        value: '{{INPUT.image}}',
        mime_type: '{{INPUT.type | default("image/png")}}',
      };
      const reply = await search(query, { image: value, ...(type ? { type } : {}) });
      expectError(reply, 'retriever_input_invalid');
    }
  });

  it.each([
    ['answers 404', (response: ServerResponse) => response.writeHead(404).end(), /404/],
    [
      'leads elsewhere',
      (response: ServerResponse) => response.writeHead(302, { location: '/other' }).end(),
      /redirects are not followed/,
    ],
    ['breaks off', (response: ServerResponse) => response.destroy(), /reset/],
  ])('a URL that %s is refused with the reason', async (_, answer, why) => {
    const { queries, search } = await gallery([]);
    respond = (__, response) => answer(response);
    const reply = await search({ input_mode: 'content', value: at('x.png') });
    expectError(reply, 'retriever_input_invalid');
    expect(messageOf(reply)).toMatchObject({
      type: 'query_url_refused',
      message: expect.stringMatching(why),
    });
    expect(queries).toEqual([]);
    expect(asked).toHaveLength(1);
  });

  it('a URL with more than 10 MB is read no further', async () => {
    const { search } = await gallery([]);
    respond = (_, response) => response.writeHead(200).end(picture(red, 10 * 1024 * 1024));
    const reply = await search({ input_mode: 'content', value: at('huge.png') });
    expectError(reply, 'retriever_input_invalid');
    expect(messageOf(reply).type).toBe('query_content_too_large');
  });

  it.each([
    'http://127.0.0.1:1/x.png',
    'https://169.254.169.254/latest/meta-data',
    'https://10.0.0.1/x',
    'http://example.com/x.png',
  ])('%s is not called outside of the local stage', async (value) => {
    const { search } = await gallery([], { allowLoopback: false });
    const reply = await search({ input_mode: 'content', value });
    expectError(reply, 'retriever_input_invalid');
    expect(messageOf(reply).type).toBe('query_url_refused');
  });

  it("another namespace's retriever runs no URL: the check of the namespace comes first", async () => {
    const { world, stages } = await gallery([]);
    const stranger: World['principal'] = { ...world.principal, orgId: 'org_stranger' };
    const reply = await world.as(stranger).call('POST', '/v1/namespaces/{ns}/retrievers/execute', {
      stages: stages({ input_mode: 'content', value: at('canary.png') }),
      inputs: {},
    });
    expectError(reply, 'namespace_not_found');
    expect(asked).toEqual([]);
  });
});
