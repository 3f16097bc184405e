// Requests: a read, a write and searches, each in turns with the same request to the echo Lambda.
import type { Json } from '../local/demo/client.ts';
import type { Samples, Work } from './measure.ts';
import { interleave } from './measure.ts';
import type { BenchStack } from './stack.ts';
import { featureUri } from './stack.ts';
import { makeQueries, makeTexts } from './texts.ts';

export interface RequestSettings {
  readonly rounds: number;
  readonly warmRounds: number;
  readonly calls: number;
  readonly bucketId: string;
  /** Name in the result, such as `execute_1k`, to the collection that is searched. */
  readonly collections: Readonly<Record<string, string>>;
}

/** A retriever over one collection, as step 6 of the tutorial makes it. @returns its id */
async function makeRetriever(
  { client, namespace }: BenchStack,
  name: string,
  collectionId: string,
): Promise<string> {
  const { retriever_id }: Json = await client.call('POST', `${namespace}/retrievers`, {
    name,
    collection_ids: [collectionId],
    stages: [
      {
        stage_name: 'vector_search',
        stage_type: 'filter',
        config: {
          stage_id: 'feature_search',
          parameters: { searches: [{ feature_uri: featureUri, query: '{{INPUT.query}}' }] },
        },
      },
    ],
  });
  return retriever_id;
}

/**
 * Measures `get`, `create`, each of `collections`, and for each of them the same request to the echo: `get_echo`,
 * `create_echo`, `execute_echo`.
 */
export async function measureRequests(
  stack: BenchStack,
  settings: RequestSettings,
): Promise<Record<string, Samples>> {
  const { apiKey, deployment, echoUrl, namespace, emulator } = stack;
  const { rounds, warmRounds, calls, bucketId, collections } = settings;
  const authorization = `Bearer ${apiKey}`;
  const ask = async (base: string, path: string, body?: unknown): Promise<string> => {
    const response = await fetch(`${base}${path}`, {
      method: body === undefined ? 'GET' : 'POST',
      headers: {
        Authorization: authorization,
        ...(body === undefined ? {} : { 'Content-Type': 'application/json' }),
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    });
    const text = await response.text();
    // A refusal is quick, and would be a good figure for the wrong thing.
    if (!response.ok) throw new Error(`${base}${path} answered ${response.status}: ${text.slice(0, 500)}`);
    return text;
  };

  const total = (warmRounds + rounds) * calls;
  const texts = makeTexts(total, 3);
  const bucket = `${namespace}/buckets/${bucketId}`;
  const object = (call: number) => ({
    blobs: [{ property: 'text', type: 'text', data: texts[call]! }],
    metadata: { title: `request ${call}` },
  });
  const works: Record<string, Work> = {
    get_echo: async () => void (await ask(echoUrl, bucket)),
    get: async () => void (await ask(deployment.baseUrl, bucket)),
    create_echo: async (call) => void (await ask(echoUrl, `${bucket}/objects`, object(call))),
    create: async (call) => void (await ask(deployment.baseUrl, `${bucket}/objects`, object(call))),
  };
  let path = '';
  for (const [i, [name, collectionId]] of Object.entries(collections).entries()) {
    path = `${namespace}/retrievers/${await makeRetriever(stack, name, collectionId)}/execute`;
    const own = path;
    // Each query is asked once: neither an embedding nor a result may come from a store of earlier ones.
    const queries = makeQueries(total, 11 + i);
    works[name] = async (call) => {
      const { results } = JSON.parse(
        await ask(deployment.baseUrl, own, { input: { query: queries[call]! } }),
      ) as Json;
      if (results.length === 0) throw new Error(`the search for "${queries[call]}" found nothing`);
    };
  }
  const queries = makeQueries(total, 10);
  works.execute_echo = async (call) => void (await ask(echoUrl, path, { input: { query: queries[call]! } }));
  return interleave(works, { rounds, warmRounds, calls, cpuOf: emulator.pid });
}
