// The deployed scan functions, asked one by one: merged, their answers are those of the query function, which scans all.
import { DynamoDBClient, GetItemCommand } from '@aws-sdk/client-dynamodb';
import { InvokeCommand, LambdaClient } from '@aws-sdk/client-lambda';
import { GetObjectCommand, S3Client } from '@aws-sdk/client-s3';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parse, toTree } from '../../functions/core/conditions/index.ts';
import { encodeVector, type ScanReply, type ScanRequest } from '../../functions/core/fan-out/messages.ts';
import { ownOrganization } from '../../functions/core/resources/keys/service.ts';
import { namespaceScope } from '../../functions/core/store/keys.ts';
import { decodeManifest } from '../../functions/core/vectors/manifest.ts';
import { type Match, mergeMatches } from '../../functions/core/vectors/search.ts';
import type { Json, Setup, Workspace } from './stack.ts';
import {
  listDocuments,
  makeCollection,
  makeWorkspace,
  output,
  putTexts,
  runBatch,
  stack,
  usePlugin,
  wordFeature,
} from './stack.ts';

const endpoint = stack.endpoint === undefined ? {} : { endpoint: stack.endpoint };
const dynamo = new DynamoDBClient(endpoint);
const lambda = new LambdaClient(endpoint);
const s3 = new S3Client({ ...endpoint, forcePathStyle: true });

const functionNames = Object.values(stack.outputs)
  .flatMap((outputs) => Object.entries(outputs))
  .filter(([name]) => /^Scan\d+FunctionName$/.test(name))
  .sort(([a], [b]) => Number(a.replace(/\D/g, '')) - Number(b.replace(/\D/g, '')))
  .map(([, name]) => name);

/** What of an index a scan function is asked for. */
interface Index {
  readonly namespaceId: string;
  readonly collectionId: string;
  readonly version: number;
  readonly manifestKey: string;
  /** Of data segments of the feature, oldest first. */
  readonly segments: readonly string[];
}

async function readIndex(space: Workspace, setup: Setup): Promise<Index> {
  const { namespaceId } = space;
  const { collectionId } = setup;
  const { pk, sk } = namespaceScope(ownOrganization, namespaceId).head(collectionId);
  const { Item } = await dynamo.send(
    new GetItemCommand({
      TableName: output('TableName'),
      Key: { pk: { S: pk }, sk: { S: sk } },
      ConsistentRead: true,
    }),
  );
  const manifestKey = Item!.manifest_key!.S!;
  const { Body } = await s3.send(
    new GetObjectCommand({ Bucket: output('IndexBucketName'), Key: manifestKey }),
  );
  const manifest = decodeManifest(await Body!.transformToByteArray(), manifestKey);
  const segments = manifest.features[wordFeature]!.segments;
  return {
    namespaceId,
    collectionId,
    version: Number(Item!.version!.N),
    manifestKey,
    segments: segments.filter(({ kind }) => kind === 'data').map(({ key }) => key),
  };
}

interface Question {
  readonly vectors: readonly Float32Array[];
  readonly k: number;
  readonly filters?: Json;
}

function messageOf(
  index: Index,
  segments: readonly string[],
  { vectors, k, filters }: Question,
): ScanRequest {
  return {
    org_id: ownOrganization,
    namespace_id: index.namespaceId,
    request_id: 'scan-test',
    collection_id: index.collectionId,
    manifest_key: index.manifestKey,
    feature_uri: wordFeature,
    segments,
    queries: vectors.map(encodeVector),
    k,
    ...(filters === undefined ? {} : { filter: toTree(parse(filters)) }),
  };
}

/** Calls a scan function as the query function does, whatever comes back. */
async function invoke(name: string, message: ScanRequest): Promise<{ fault?: string; body: Json }> {
  const { Payload, FunctionError } = await lambda.send(
    new InvokeCommand({ FunctionName: name, Payload: JSON.stringify(message) }),
  );
  const body: Json = JSON.parse(Buffer.from(Payload!).toString());
  return FunctionError === undefined ? { body } : { fault: FunctionError, body };
}

async function scan(name: string, message: ScanRequest): Promise<ScanReply> {
  const { fault, body } = await invoke(name, message);
  if (fault !== undefined) throw new Error(`the scan failed: ${JSON.stringify(body).slice(0, 2000)}`);
  return body as ScanReply;
}

/** Each function scans every second segment. @returns what they answer, and by query their merged hits */
async function scanAll(
  index: Index,
  question: Question,
): Promise<{ replies: ScanReply[]; merged: Match[][] }> {
  const replies = await Promise.all(
    functionNames.map((name, one) => {
      const mine = index.segments.filter((_, i) => i % functionNames.length === one);
      return scan(name, messageOf(index, mine, question));
    }),
  );
  const merged = question.vectors.map((_, q) =>
    mergeMatches(
      replies.map(({ matches }) => matches[q]!.map(([id, score]) => ({ id, score }))),
      question.k,
    ),
  );
  return { replies, merged };
}

let space: Workspace;
let other: Workspace;
let setup: Setup;
let index: Index;
let strange: Index;
let vectors: Float32Array[];

const topics = ['physics', 'garden', 'travel'];
const textOf = (i: number) => `text ${i} tells of ${topics[i % 3]} and of word${i % 7} and word${i % 11}`;
const texts = (from: number, to: number) =>
  Array.from({ length: to - from }, (_, i) => ({
    text: textOf(from + i),
    metadata: { topic: topics[(from + i) % 3], i: from + i },
  }));

/** What the query function answers, with the statistics of its one search. */
async function ask(vector: Float32Array, k: number, filters?: Json): Promise<{ hits: Match[]; note: Json }> {
  const search = { feature_uri: wordFeature, query: { input_mode: 'vector', vector: [...vector] }, top_k: k };
  const reply = await space.client.call('POST', `${space.path}/retrievers/execute`, {
    stages: [
      {
        stage_name: 'search',
        stage_type: 'filter',
        config: { stage_id: 'feature_search', parameters: { searches: [search], final_top_k: k } },
      },
    ],
    collection_identifiers: [setup.collectionId],
    // Whatever is compacted meanwhile, both see the same version.
    index_versions: { [setup.collectionId]: index.version },
    limit: k,
    ...(filters === undefined ? {} : { filters }),
  });
  return {
    hits: reply.results.map((hit: Json) => ({ id: hit.document_id, score: hit.score })),
    note: reply.stage_statistics.stages.search.metadata.searches[0],
  };
}

beforeAll(async () => {
  [space, other] = [await makeWorkspace('scan'), await makeWorkspace('scan-other')];
  await Promise.all([usePlugin(space), usePlugin(other)]);
  setup = await makeCollection(space, 'parts');
  // Four segments: the third one replaces rows of the first two, the fourth is new.
  await putTexts(space, setup, texts(0, 50));
  await runBatch(space, setup);
  await putTexts(space, setup, texts(50, 100));
  await runBatch(space, setup);
  await runBatch(space, setup, { dedup_strategy: 'force' });
  await putTexts(space, setup, texts(100, 150));
  await runBatch(space, setup);
  const documents = await listDocuments(space, setup, { return_vectors: true });
  const sorted = documents.sort((a, b) => a.i - b.i);
  vectors = [3, 60, 111].map((i) => Float32Array.from(sorted[i].vectors[wordFeature] as number[]));
  vectors.push(Float32Array.from({ length: 128 }, (_, i) => Math.sin(i * i)));
  // What hits by far may be gone or changed: in whichever segments the rows lie, all functions must know.
  await space.client.call('DELETE', `${setup.collection}/documents/${sorted[4].document_id}`);
  await space.client.call('PATCH', `${setup.collection}/documents/${sorted[8].document_id}`, {
    topic: 'garden!',
  });
  index = await readIndex(space, setup);

  const foreign = await makeCollection(other, 'foreign');
  await putTexts(other, foreign, texts(0, 40));
  await runBatch(other, foreign);
  strange = await readIndex(other, foreign);
});
afterAll(async () => {
  await space?.close();
  await other?.close();
});

describe('the scan functions', () => {
  it('are there, and every one of them has segments to scan', () => {
    expect(functionNames.length).toBeGreaterThanOrEqual(2);
    expect(index.segments.length).toBeGreaterThanOrEqual(2 * functionNames.length - 1);
  });

  it.each([
    ['all rows', undefined, 149],
    ['the rows of a topic', { field: 'metadata.topic', operator: 'eq', value: 'garden' }, 49],
    [
      'rows by a tree of conditions',
      {
        AND: [
          { field: 'i', operator: 'gte', value: 20 },
          { NOT: [{ field: 'topic', operator: 'in', value: ['garden', 'garden!'] }] },
        ],
      },
      87,
    ],
    ['a patched row', { field: 'topic', operator: 'eq', value: 'garden!' }, 1],
  ])('find, merged, exactly what the query function finds among %s', async (_, filters, selected) => {
    const k = 12;
    const { replies, merged } = await scanAll(index, { vectors, k, filters });
    expect(replies.reduce((sum, { rows_selected }) => sum + rows_selected, 0)).toBe(selected);
    for (const [q, vector] of vectors.entries()) {
      const { hits, note } = await ask(vector, k, filters);
      expect(note.rows_selected).toBe(selected);
      expect(merged[q]).toEqual(hits);
      expect(hits).toHaveLength(Math.min(k, selected));
    }
  });

  it('say which fields of a filter none of their rows has', async () => {
    const filters = { field: 'absent', operator: 'eq', value: 1 };
    const { replies } = await scanAll(index, { vectors, k: 5, filters });
    for (const reply of replies)
      expect(reply).toMatchObject({ rows_selected: 0, unknown_fields: ['absent'] });
  });

  it.each([
    ['another namespace, all of it', () => ({ ...messageOf(strange, strange.segments, { vectors, k: 5 }) })],
    ['a manifest of another namespace', () => ({ manifest_key: strange.manifestKey })],
    ['a segment of another namespace', () => ({ segments: strange.segments })],
    ['one such segment among its own', () => ({ segments: [...index.segments, ...strange.segments] })],
    [
      'a segment of another namespace by a detour',
      () => ({
        segments: strange.segments.map((key) => `${index.namespaceId}/${index.collectionId}/../../${key}`),
      }),
    ],
  ])('refuse %s: an error without data', async (_, change) => {
    const message: ScanRequest = {
      ...messageOf(index, index.segments, { vectors, k: 5 }),
      ...change(),
      namespace_id: index.namespaceId,
      collection_id: index.collectionId,
    };
    for (const name of functionNames) {
      const { fault, body } = await invoke(name, message);
      expect(fault).toBeTruthy();
      expect(Object.keys(body)).not.toContain('matches');
      expect(JSON.stringify(body)).not.toMatch(/doc_[A-Za-z0-9]/);
    }
  });

  it.runIf(stack.endpoint !== undefined)(
    'read nothing again when the same environment is asked again',
    async () => {
      // One call after the other: the emulator gives them to the same process. No other test asks one function for
      // all segments, so the first call has to read some.
      for (const name of functionNames) {
        const message = messageOf(index, index.segments, { vectors, k: 7 });
        const first = await scan(name, message);
        const second = await scan(name, message);
        expect(first.cold).toBe(true);
        expect(second).toEqual({ ...first, cold: false });
        expect(second.bytes_scanned).toBeGreaterThan(0);
      }
    },
  );
});

describe('a retriever', () => {
  it('says in its statistics how it searched', async () => {
    const { note } = await ask(vectors[0]!, 5);
    expect(note).toMatchObject({
      shards: 1,
      exact: true,
      hedged: 0,
      cold: expect.any(Boolean),
      backends: ['segments'],
      versions: { [setup.collectionId]: index.version },
    });
    expect(note.bytes_scanned).toBeGreaterThan(0);
  });
});
