// The adapter of Amazon S3 Vectors: what it sends, as the SDK puts it on the wire, and what becomes of each error. The
// other end is a fake server; that the service answers so is not proved here.
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { S3VectorsBackend } from '../../../functions/core/aws/s3-vectors.ts';
import type { CopyIndex } from '../../../functions/core/backends/backend.ts';
import { indexNameOf, indexPrefixOf, s3Vectors } from '../../../functions/core/backends/s3-vectors.ts';
import { S3VectorsServer } from '../../fixtures/s3-vectors-server.ts';

const bucket = 'granary-test-vectors';
const index: CopyIndex = {
  namespace_id: 'ns_0123456789abcdefghij',
  collection_id: 'col_abcdefghij0123456789',
  feature_uri: 'mixpeek://text@1.0.0/embedding',
  dims: 2,
  metric: 'cosine',
};
const indexName = '0123456789abcdefghij-abcdefghij0123456789-1c9bb766f7de9f4e';
const place = { vectorBucketName: bucket, indexName };

let server: S3VectorsServer;
let backend: S3VectorsBackend;

async function start(overlooks?: (key: string) => boolean): Promise<void> {
  server = await S3VectorsServer.start({ bucket, ...(overlooks ? { overlooks } : {}) });
  backend = new S3VectorsBackend(bucket, {
    endpoint: server.endpoint,
    region: 'eu-central-1',
    credentials: { accessKeyId: 'test', secretAccessKey: 'test' },
    maxAttempts: 1,
  });
}

beforeEach(() => start());
afterEach(() => server.stop());

const row = (id: string, ...values: number[]) => ({
  id,
  seq: 2 ** 52 + 1,
  vector: Float32Array.from(values),
});

describe('names', () => {
  it('of indexes fit the service, and begin with their namespace and collection', () => {
    expect(indexNameOf(index)).toBe(indexName);
    expect(indexName).toMatch(/^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/);
    expect(indexName.startsWith(indexPrefixOf({ namespace_id: index.namespace_id }))).toBe(true);
    expect(indexName.startsWith(indexPrefixOf(index))).toBe(true);
  });

  it('differ by feature, collection and namespace, whatever their form', () => {
    const names = [
      index,
      { ...index, feature_uri: 'mixpeek://text@1.0.1/embedding' },
      { ...index, collection_id: 'col_abcdefghij0123456780' },
      { ...index, namespace_id: 'ns_0123456789abcdefghi0' },
      { ...index, namespace_id: 'Other Form' },
      { ...index, collection_id: 'x'.repeat(200) },
    ].map(indexNameOf);
    expect(new Set(names).size).toBe(names.length);
    for (const name of names) expect(name).toMatch(/^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/);
  });
});

describe('on the wire', () => {
  /** What each call sends: operation and body, in order. */
  const recorded: readonly {
    readonly name: string;
    readonly work: () => Promise<unknown>;
    readonly sent: readonly (readonly [operation: string, body: object])[];
    readonly answer?: unknown;
  }[] = [
    {
      name: 'ensure makes the index, with the number of a row as metadata that is no filter',
      work: () => backend.ensure(index),
      sent: [
        [
          'CreateIndex',
          {
            ...place,
            dataType: 'float32',
            dimension: 2,
            distanceMetric: 'cosine',
            metadataConfiguration: { nonFilterableMetadataKeys: ['seq'] },
          },
        ],
      ],
    },
    {
      name: 'put sends float32 values and the number as a text',
      work: () => backend.put(index, [row('doc_ä', 0.5, -1)]),
      sent: [
        [
          'PutVectors',
          {
            ...place,
            vectors: [{ key: 'doc_ä', data: { float32: [0.5, -1] }, metadata: { seq: '4503599627370497' } }],
          },
        ],
      ],
    },
    {
      name: 'query asks for keys alone, which needs the least rights',
      work: () => backend.query(index, Float32Array.of(1, 0), 3),
      sent: [['QueryVectors', { ...place, topK: 3, queryVector: { float32: [1, 0] } }]],
      answer: ['doc_1', 'doc_2'],
    },
    {
      name: 'list asks for the numbers too',
      work: () => backend.list(index),
      sent: [['ListVectors', { ...place, returnMetadata: true, maxResults: 1000 }]],
      answer: {
        rows: [
          { id: 'doc_1', seq: 2 ** 52 + 1 },
          { id: 'doc_2', seq: 2 ** 52 + 1 },
        ],
      },
    },
    {
      name: 'count lists four shares of the keys',
      work: () => backend.count(index),
      sent: [0, 1, 2, 3].map(
        (segmentIndex) =>
          ['ListVectors', { ...place, segmentCount: 4, segmentIndex, maxResults: 1000 }] as const,
      ),
      answer: 2,
    },
    {
      name: 'remove names keys',
      work: () => backend.remove(index, ['doc_1', 'doc_none']),
      sent: [['DeleteVectors', { ...place, keys: ['doc_1', 'doc_none'] }]],
    },
    {
      name: 'drop deletes the index',
      work: () => backend.drop(index),
      sent: [['DeleteIndex', place]],
    },
  ];

  it.each(recorded)('$name', async ({ work, sent, answer, name }) => {
    if (!name.startsWith('ensure')) {
      await backend.ensure(index);
      if (!name.startsWith('put')) await backend.put(index, [row('doc_1', 1, 0), row('doc_2', 0, 1)]);
    }
    server.requests.length = 0;
    const found = await work();
    const seen = server.requests.map(({ operation, body }) => [operation, body]);
    // Shares are asked for side by side.
    expect(seen).toHaveLength(sent.length);
    expect(seen).toEqual(expect.arrayContaining(sent.map((one) => [...one])));
    if (answer !== undefined) expect(found).toEqual(answer);
    for (const { method, headers } of server.requests) {
      expect(method).toBe('POST');
      expect(headers['content-type']).toBe('application/json');
    }
  });

  it('dropAll deletes what begins with the scope, page by page, and nothing else', async () => {
    const other = { ...index, namespace_id: 'ns_other56789abcdefghij' };
    for (let i = 0; i < 5; i++) await backend.ensure({ ...index, feature_uri: `f${i}` });
    await backend.ensure({ ...index, collection_id: 'col_zzzzzzzzzz0123456789' });
    await backend.ensure(other);
    await backend.dropAll({ namespace_id: index.namespace_id, collection_id: index.collection_id });
    expect(server.indexNames.length).toBe(2);
    await backend.dropAll({ namespace_id: index.namespace_id });
    expect(server.indexNames).toEqual([indexNameOf(other)]);
  });

  it('query follows the pages of an answer up to what was asked for', async () => {
    await backend.ensure(index);
    const rows = Array.from({ length: 250 }, (_, i) => row(`doc_${i}`, Math.cos(i / 100), Math.sin(i / 100)));
    await backend.put(index, rows);
    server.requests.length = 0;
    const ids = await backend.query(index, Float32Array.of(1, 0), 230);
    expect(ids).toEqual(rows.slice(0, 230).map(({ id }) => id));
    expect(server.requests.map(({ operation }) => operation)).toEqual(Array(3).fill('QueryVectors'));
  });

  it('puts the most that the limits allow within the size of a request', async () => {
    const dims = 4096;
    const wide = { ...index, dims, metric: 'euclid' as const };
    await backend.ensure(wide);
    const count = Math.floor(s3Vectors.limits.vectorBytesPerPut / (dims * 4));
    // As many digits as a float32 can take in JSON.
    const values = new Float32Array(dims).fill(-1.1754943508222875e-38);
    const rows = Array.from({ length: count }, (_, i) => ({
      id: `${'x'.repeat(250)}${i}`,
      seq: i,
      vector: values,
    }));
    await backend.put(wide, rows);
    expect(await backend.count(wide)).toBe(count);
  });
});

describe('errors', () => {
  it.each([
    [404, 'NotFoundException', 'index_missing'],
    [429, 'TooManyRequestsException', 'throttled'],
    [400, 'ValidationException', 'refused'],
    [403, 'AccessDeniedException', 'forbidden'],
    [400, 'KmsDisabledException', 'forbidden'],
    [402, 'ServiceQuotaExceededException', 'quota'],
    [503, 'ServiceUnavailableException', 'unavailable'],
    [500, 'InternalServerException', 'unavailable'],
    [408, 'RequestTimeoutException', 'unavailable'],
    [500, 'SomethingNewException', 'unavailable'],
  ])('%i %s is %s, and says which call it was', async (status, type, code) => {
    await backend.ensure(index);
    server.failNext('QueryVectors', status, type);
    await expect(backend.query(index, Float32Array.of(1, 0), 3)).rejects.toMatchObject({
      name: 'BackendError',
      code,
      message: expect.stringMatching(/Amazon S3 Vectors: QueryVectors: /),
      retryable: code === 'unavailable' || code === 'throttled',
    });
  });

  it('a service that cannot be reached is unavailable', async () => {
    await server.stop();
    await expect(backend.count(index)).rejects.toMatchObject({ code: 'unavailable' });
    await start();
  });

  it('an index that is there already is fine if it is the same, and refused if it is another', async () => {
    await backend.ensure(index);
    await backend.ensure(index);
    await expect(backend.ensure({ ...index, dims: 3 })).rejects.toMatchObject({
      code: 'refused',
      message: expect.stringContaining('2 dimensions'),
    });
    await expect(backend.ensure({ ...index, metric: 'euclid' })).rejects.toMatchObject({ code: 'refused' });
    await expect(backend.ensure({ ...index, metric: 'dot' })).rejects.toMatchObject({ code: 'refused' });
  });
});

describe('the fake refuses what the service refuses', () => {
  const bad: readonly (readonly [string, () => Promise<unknown>])[] = [
    [
      '501 vectors a put',
      () =>
        backend.put(
          index,
          Array.from({ length: 501 }, (_, i) => row(`d${i}`, 1, 0)),
        ),
    ],
    ['no vector a put', () => backend.put(index, [])],
    ['a wrong dimension', () => backend.put(index, [row('d', 1, 0, 0)])],
    ['NaN', () => backend.put(index, [row('d', Number.NaN, 0)])],
    ['infinity', () => backend.put(index, [row('d', Number.POSITIVE_INFINITY, 0)])],
    ['a zero vector with cosine', () => backend.put(index, [row('d', 0, 0)])],
    ['a vector whose length vanishes in float32', () => backend.put(index, [row('d', 1e-30, 1e-30)])],
    ['a key of 1,025 characters', () => backend.put(index, [row('k'.repeat(1025), 1, 0)])],
    ['an empty key', () => backend.put(index, [row('', 1, 0)])],
    ['10,001 results', () => backend.query(index, Float32Array.of(1, 0), 10_001)],
    ['no result', () => backend.query(index, Float32Array.of(1, 0), 0)],
    [
      '501 keys a removal',
      () =>
        backend.remove(
          index,
          Array.from({ length: 501 }, (_, i) => `d${i}`),
        ),
    ],
  ];

  it.each(bad)('%s', async (_, work) => {
    await backend.ensure(index);
    await expect(work()).rejects.toMatchObject({ code: 'refused' });
  });
});
