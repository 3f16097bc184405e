// Tenants on the deployed stack: what belongs to another namespace or organisation answers like what never existed.
import { randomBytes } from 'node:crypto';
import { GetSecretValueCommand, SecretsManagerClient } from '@aws-sdk/client-secrets-manager';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { DynamoTable } from '../../../functions/core/aws/dynamo.ts';
import { systemClock } from '../../../functions/core/clock.ts';
import { makeContext } from '../../../functions/core/context.ts';
import type { Ports } from '../../../functions/core/ports.ts';
import { createKey } from '../../../functions/core/resources/keys/service.ts';
import type { Client, Json, Method, Workspace } from '../stack.ts';
import {
  clientOf,
  makeCollection,
  makeWorkspace,
  output,
  putTexts,
  runBatch,
  searchStages,
  stack,
  usePlugin,
} from '../stack.ts';

let space: Workspace;
let other: Workspace;
/** A client of another organisation; the API makes keys of its own organisation only. */
let stranger: Client;
/** Kind of the path segment to the id of something of `space`. */
let ids: Record<string, string>;

/** A key of a second organisation, as a deployment that serves several would make it: by the service, in the table. */
async function strangerKey(): Promise<string> {
  const endpoint = stack.endpoint === undefined ? {} : { endpoint: stack.endpoint };
  const { SecretString } = await new SecretsManagerClient(endpoint).send(
    new GetSecretValueCommand({ SecretId: output('PepperSecretName') }),
  );
  const needed: Pick<Ports, 'table' | 'clock' | 'random'> & {
    settings: Pick<Ports['settings'], 'stage' | 'pepper'>;
  } = {
    table: new DynamoTable(output('TableName')),
    clock: systemClock,
    random: { bytes: (count) => new Uint8Array(randomBytes(count)) },
    settings: { stage: 'test', pepper: async () => SecretString! },
  };
  const ctx = makeContext(
    needed as Ports,
    { orgId: 'org_stranger000000000000', keyId: 'operator', permissions: ['admin'] },
    'tenancy-suite',
  );
  const { token } = await createKey(ctx, {
    name: 'stranger',
    permissions: ['admin'],
    description: null,
    scopes: null,
    expires_at: null,
  });
  return token;
}

beforeAll(async () => {
  [space, other] = [await makeWorkspace('mine'), await makeWorkspace('theirs')];
  stranger = clientOf(await strangerKey());
  const { client, path } = space;
  const plugin = await usePlugin(space);
  const setup = await makeCollection(space, 'texts');
  const [object] = await putTexts(space, setup, ['a secret of this namespace']);
  const batch = await runBatch(space, setup);
  const [document] = (await client.call('GET', `${setup.collection}/documents`)).results;
  const { retriever_id } = await client.call('POST', `${path}/retrievers`, {
    name: 'search',
    stages: searchStages(),
  });
  const { taxonomy_id } = await client.call('POST', `${path}/taxonomies`, {
    taxonomy_name: 'topics',
    retriever_id,
    collection_id: setup.collectionId,
    input_mappings: [{ source: 'text', target: 'query' }],
    enrichment_fields: [{ source: 'topic', target: 'auto_topic' }],
    execution_mode: 'on_demand',
  });
  const { cluster_id } = await client.call('POST', `${path}/clusters`, {
    cluster_name: 'themes',
    collection_id: setup.collectionId,
    feature_uri: 'mixpeek://word_embed@1.0.0/word_embed_v1_embedding',
    algorithm: { name: 'hdbscan', params: { min_cluster_size: 3 } },
  });
  const { webhook_id } = await client.call('POST', `${path}/webhooks`, {
    webhook_name: 'hook',
    url: 'https://example.com/hook',
    events: ['batch.completed'],
  });
  const { alert_id } = await client.call('POST', `${path}/alerts`, {
    alert_name: 'alert',
    collection_id: setup.collectionId,
    condition: { field: 'text', operator: 'exists', value: true },
    notification: { type: 'webhook', url: 'https://example.com/hook' },
  });
  ids = {
    namespace: space.namespaceId,
    bucket: setup.bucketId,
    object: object!,
    batch: batch.batch_id,
    collection: setup.collectionId,
    document: document.document_id,
    plugin,
    retriever: retriever_id,
    taxonomy: taxonomy_id,
    cluster: cluster_id,
    alert: alert_id,
    webhook: webhook_id,
    task: batch.task_id,
  };
});
afterAll(async () => {
  await space?.close();
  await other?.close();
});

const search = { input: { query: 'secret' } };

/** Everything that can be asked of one thing; `{x}` stands for an id, the last one for the one in question. */
const questions: readonly (readonly [Method, string, Json?])[] = [
  ['GET', '/v1/namespaces/{namespace}'],
  ['PATCH', '/v1/namespaces/{namespace}', { description: 'taken over' }],
  ['GET', '/v1/namespaces/{namespace}/buckets'],
  [
    'POST',
    '/v1/namespaces/{namespace}/buckets',
    { name: 'intruder', bucket_schema: { properties: { text: { type: 'text' } } } },
  ],
  ['GET', '/v1/namespaces/{namespace}/collections'],
  ['POST', '/v1/namespaces/{namespace}/retrievers/execute', { stages: [] }],
  ['DELETE', '/v1/namespaces/{namespace}'],
];

const inNamespace: readonly (readonly [Method, string, Json?])[] = [
  ['GET', 'buckets/{bucket}'],
  ['PATCH', 'buckets/{bucket}', { description: 'taken over' }],
  ['DELETE', 'buckets/{bucket}'],
  ['GET', 'buckets/{bucket}/objects'],
  ['POST', 'buckets/{bucket}/objects', { blobs: [{ property: 'text', type: 'text', data: 'x' }] }],
  ['GET', 'buckets/{bucket}/objects/{object}'],
  ['DELETE', 'buckets/{bucket}/objects/{object}'],
  ['POST', 'buckets/{bucket}/batches/trigger', {}],
  ['GET', 'buckets/{bucket}/batches/{batch}'],
  ['POST', 'buckets/{bucket}/batches/{batch}/cancel', {}],
  ['GET', 'collections/{collection}'],
  ['DELETE', 'collections/{collection}'],
  ['POST', 'collections/{collection}/documents/list', {}],
  ['GET', 'collections/{collection}/documents/{document}'],
  ['PATCH', 'collections/{collection}/documents/{document}', { topic: 'taken over' }],
  ['GET', 'plugins/{plugin}'],
  ['POST', 'plugins/{plugin}/deploy', {}],
  ['DELETE', 'plugins/{plugin}'],
  ['GET', 'retrievers/{retriever}'],
  ['POST', 'retrievers/{retriever}/execute', search],
  ['DELETE', 'retrievers/{retriever}'],
  ['GET', 'taxonomies/{taxonomy}'],
  ['POST', 'taxonomies/{taxonomy}/execute', {}],
  ['DELETE', 'taxonomies/{taxonomy}'],
  ['GET', 'clusters/{cluster}'],
  ['POST', 'clusters/{cluster}/execute', {}],
  ['GET', 'clusters/{cluster}/groups'],
  ['DELETE', 'clusters/{cluster}'],
  ['GET', 'alerts/{alert}'],
  ['DELETE', 'alerts/{alert}'],
  ['GET', 'webhooks/{webhook}'],
  ['GET', 'webhooks/{webhook}/deliveries'],
  ['POST', 'webhooks/{webhook}/test', {}],
  ['DELETE', 'webhooks/{webhook}'],
];

const noId = (id: string): string =>
  /_\d+_\d+_\d+$/.test(id) ? 'absent_9_9_9' : id.replace(/(?<=_).*$/, (rest) => '0'.repeat(rest.length));

/** Asks for something that is there for others and for something that never was. @returns both answers, told alike */
async function bothAnswers(client: Client, method: Method, path: string, body: Json): Promise<[Json, Json]> {
  const named = [...path.matchAll(/\{([a-z]+)\}/g)].map((match) => match[1]!);
  const answer = async (idOf: (name: string) => string) => {
    const used = named.map(idOf);
    const filled = named.reduce((text, name, i) => text.replace(`{${name}}`, used[i]!), path);
    const reply = await client.ask(method, filled, body);
    const text = used.reduce((all, id) => all.replaceAll(id, 'ID'), JSON.stringify(reply.body ?? null));
    return {
      status: reply.status,
      body: JSON.parse(text.replace(/"request_id":"[^"]*"/, '"request_id":"R"')) as Json,
    };
  };
  return [await answer((name) => ids[name]!), await answer((name) => noId(ids[name]!))];
}

describe('to another organisation, this one does not exist', () => {
  it.each([
    ...questions,
    ...inNamespace.map(
      ([method, path, body]) => [method, `/v1/namespaces/{namespace}/${path}`, body] as const,
    ),
  ])('%s %s answers 404, as for an id that never was', async (method, path, body) => {
    const [theirs, absent] = await bothAnswers(stranger, method, path, body);
    expect(theirs.status).toBe(404);
    expect(theirs).toEqual(absent);
  });

  it('its lists are empty', async () => {
    expect((await stranger.call('GET', '/v1/namespaces')).results).toEqual([]);
    expect((await stranger.call('GET', '/v1/tasks')).results).toEqual([]);
    expect((await stranger.ask('GET', `/v1/tasks/${ids.task}`)).status).toBe(404);
  });
});

describe('from another namespace of the same organisation, an id of this one does not exist', () => {
  it.each(inNamespace)('%s %s answers 404, as for an id that never was', async (method, path, body) => {
    const [theirs, absent] = await bothAnswers(other.client, method, `${other.path}/${path}`, body);
    expect(theirs.status).toBe(404);
    expect(theirs).toEqual(absent);
  });

  it('and cannot be named in a body', async () => {
    const { client, path } = other;
    const bucket = (
      await client.call('POST', `${path}/buckets`, {
        name: 'b',
        bucket_schema: { properties: { text: { type: 'text' } } },
      })
    ).bucket_id;
    await usePlugin(other);
    const extractors = [{ feature_extractor_name: 'word_embed', version: '1.0.0' }];
    expect(
      (
        await client.ask('POST', `${path}/collections`, {
          name: 'c',
          feature_extractors: extractors,
          source: { type: 'bucket', bucket_ids: [ids.bucket] },
        })
      ).status,
    ).toBe(404);
    expect(
      (
        await client.ask('POST', `${path}/buckets/${bucket}/batches/trigger`, {
          collection_ids: [ids.collection],
        })
      ).status,
    ).toBe(404);
    const reply = await client.ask('POST', `${path}/retrievers/execute`, {
      stages: searchStages(),
      inputs: { query: 'secret' },
      collection_identifiers: [ids.collection],
    });
    expect([404, 422]).toContain(reply.status);
    expect(
      (
        await client.call('POST', `${path}/retrievers/execute`, {
          stages: searchStages(),
          inputs: { query: 'secret' },
        })
      ).results,
    ).toEqual([]);
  });
});

describe('after all that', () => {
  it('everything is still there, unchanged', async () => {
    const at = (path: string) => space.client.ask('GET', `${space.path}/${path}`);
    for (const [method, path] of inNamespace) {
      if (method !== 'GET') continue;
      const filled = path.replaceAll(/\{([a-z]+)\}/g, (_, name: string) => ids[name]!);
      const { status } = await at(filled);
      // The groups of a run that has not ended yet are not there for anybody.
      if (!path.endsWith('groups')) expect({ path, status }).toEqual({ path, status: 200 });
    }
    expect((await at(`buckets/${ids.bucket}`)).body.description).toBeNull();
  });
});

describe('the two forms of a path', () => {
  const named: readonly (readonly [string, string, string])[] = [
    ['buckets', 'bucket', 'texts'],
    ['collections', 'collection', 'texts'],
    ['plugins', 'plugin', 'word_embed@1.0.0'],
    ['retrievers', 'retriever', 'search'],
    ['taxonomies', 'taxonomy', 'topics'],
    ['clusters', 'cluster', 'themes'],
    ['alerts', 'alert', 'alert'],
    ['webhooks', 'webhook', 'hook'],
  ];

  it.each(named)(
    'give %s the same, listed by GET and by POST, read by id and by name',
    async (noun, kind, name) => {
      const { client, namespaceId, namespaceName } = space;
      const idOf = (one: Json) => one[`${kind}_id`] as string;
      const lists = [
        await client.call('GET', `${space.path}/${noun}`),
        await client.call('POST', `${space.path}/${noun}/list`, {}),
        await client.call('GET', `/v1/${noun}`, undefined, { 'X-Namespace': namespaceId }),
        await client.call('POST', `/v1/${noun}/list`, {}, { 'X-Namespace': namespaceName }),
      ];
      for (const list of lists) expect(list.results.map(idOf)).toEqual([ids[kind]]);
      for (const word of [ids[kind], name]) {
        expect(idOf(await client.call('GET', `${space.path}/${noun}/${word}`))).toBe(ids[kind]);
        expect(
          idOf(await client.call('GET', `/v1/${noun}/${word}/`, undefined, { 'X-Namespace': namespaceName })),
        ).toBe(ids[kind]);
      }
    },
  );

  it('name the namespace by id or by name, in the path or in the header, and must not differ', async () => {
    const { client } = space;
    for (const namespace of [space.namespaceId, space.namespaceName]) {
      expect((await client.call('GET', `/v1/namespaces/${namespace}/buckets`)).results).toHaveLength(1);
      expect(
        (await client.call('GET', '/v1/buckets', undefined, { 'X-Namespace': namespace })).results,
      ).toHaveLength(1);
      expect(
        (await client.call('POST', '/v1/collections/texts/documents/list', {}, { 'X-Namespace': namespace }))
          .results,
      ).toHaveLength(1);
    }
    expect(await client.refused(400, 'GET', '/v1/buckets')).toMatchObject({
      code: 'request_namespace_missing',
    });
    expect(
      await client.refused(400, 'GET', `${space.path}/buckets`, undefined, {
        'X-Namespace': other.namespaceId,
      }),
    ).toMatchObject({ code: 'request_namespace_differs' });
    expect(
      (await client.ask('GET', '/v1/buckets', undefined, { 'X-Namespace': `ns_${'0'.repeat(20)}` })).status,
    ).toBe(404);
  });
});
