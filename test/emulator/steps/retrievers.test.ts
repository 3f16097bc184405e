// Step 6 on the deployed stack: searches by text, vector and document, with filters, several features and stages.
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Client, Json, Setup, Workspace } from '../stack.ts';
import {
  listDocuments,
  makeCollection,
  makeWorkspace,
  putTexts,
  runBatch,
  searchStages,
  usePlugin,
  wordFeature,
} from '../stack.ts';

let space: Workspace;
let client: Client;
let setup: Setup;
let documents: Json[];
let retriever: string;

const texts = [
  { text: 'quantum computers use qubits', metadata: { topic: 'physics', year: 2021 } },
  { text: 'quantum physics is strange', metadata: { topic: 'physics', year: 2019 } },
  { text: 'the garden needs rain', metadata: { topic: 'garden', year: 2020 } },
  { text: 'roses in the garden', metadata: { topic: 'garden', year: 2022 } },
  { text: 'the train is late', metadata: { topic: 'travel', year: 2023 } },
];

beforeAll(async () => {
  space = await makeWorkspace('retrievers');
  client = space.client;
  await usePlugin(space);
  await usePlugin(space, 'word_realtime', 'realtime');
  setup = await makeCollection(space, 'texts', {
    collection: {
      feature_extractors: [
        { feature_extractor_name: 'word_embed', version: '1.0.0' },
        { feature_extractor_name: 'word_realtime', version: '1.0.0' },
      ],
    },
  });
  await putTexts(space, setup, texts);
  await runBatch(space, setup);
  documents = await listDocuments(space, setup, { return_vectors: true });
  retriever = (
    await client.call('POST', `${space.path}/retrievers`, { name: 'text_search', stages: searchStages() })
  ).retriever_id;
});
afterAll(() => space?.close());

const execute = (body: Json, name = retriever): Promise<Json> =>
  client.call('POST', `${space.path}/retrievers/${name}/execute`, body);
const adHoc = (stages: Json[], body: Json = {}): Promise<Json> =>
  client.call('POST', `${space.path}/retrievers/execute`, { stages, ...body });
const feature = (parameters: Json): Json => ({
  stage_name: 'search',
  stage_type: 'filter',
  config: { stage_id: 'feature_search', parameters },
});
const filter = (parameters: Json): Json => ({
  stage_name: 'filter',
  stage_type: 'filter',
  config: { stage_id: 'attribute_filter', parameters },
});
const textsOf = (reply: Json): string[] => reply.results.map((hit: Json) => hit.text);

describe('a search', () => {
  it('by text finds what is nearest first, with score, document and lineage', async () => {
    const reply = await execute({ input: { query: 'quantum computers' } });
    expect(reply).toMatchObject({
      status: 'completed',
      retriever_id: retriever,
      execution_id: expect.any(String),
    });
    expect(reply.documents).toEqual(reply.results);
    expect(textsOf(reply)[0]).toBe('quantum computers use qubits');
    const scores = reply.results.map((hit: Json) => hit.score);
    expect(scores).toEqual([...scores].sort((a, b) => b - a));
    expect(reply.results[0]).toMatchObject({
      collection_id: setup.collectionId,
      metadata: { topic: 'physics' },
    });
    expect(reply.results[0]._internal.lineage.object_id).toMatch(/^obj_/);
    expect(reply.stage_statistics.stages.vector_search).toMatchObject({
      output_count: expect.any(Number),
      duration_ms: expect.any(Number),
    });
    expect(reply.stage_statistics.total_time_ms).toBeGreaterThan(0);
  });

  it('by both spellings of its inputs, by name, and in the client form of the path gives the same', async () => {
    const [a, b, c] = [
      await execute({ input: { query: 'garden' } }),
      await execute({ inputs: { query: 'garden' } }, 'text_search'),
      await client.call(
        'POST',
        '/v1/retrievers/text_search/execute',
        { inputs: { query: 'garden' } },
        { 'X-Namespace': space.namespaceId },
      ),
    ];
    expect(textsOf(b)).toEqual(textsOf(a));
    expect(textsOf(c)).toEqual(textsOf(a));
  });

  it('by vector and by document gives the exact neighbours', async () => {
    const target = documents.find((one) => one.text.startsWith('roses'))!;
    const vector = target.vectors[wordFeature];
    const byVector = await adHoc([
      feature({ searches: [{ feature_uri: wordFeature, query: { input_mode: 'vector', vector } }] }),
    ]);
    expect(byVector.results[0]).toMatchObject({
      document_id: target.document_id,
      score: expect.closeTo(1, 4),
    });
    const byDocument = await adHoc([
      feature({
        searches: [
          {
            feature_uri: wordFeature,
            query: {
              input_mode: 'document',
              document_id: target.document_id,
              collection_id: setup.collectionId,
            },
          },
        ],
      }),
    ]);
    // Every score equals the product of the two unit vectors, computed here.
    for (const reply of [byVector, byDocument]) {
      for (const hit of reply.results) {
        const other: number[] = documents.find((one) => one.document_id === hit.document_id)!.vectors[
          wordFeature
        ];
        expect(hit.score).toBeCloseTo(
          other.reduce((sum, x, i) => sum + x * vector[i], 0),
          4,
        );
      }
    }
  });

  it('by text through a realtime plugin embeds the query by realtime.py', async () => {
    const uri = 'mixpeek://word_realtime@1.0.0/word_realtime_v1_embedding';
    const reply = await adHoc([feature({ searches: [{ feature_uri: uri, query: '{{INPUT.query}}' }] })], {
      inputs: { query: 'the train is late' },
    });
    expect(reply.results[0]).toMatchObject({ text: 'the train is late', score: expect.closeTo(1, 4) });
  });

  it('with several searches fuses their rankings', async () => {
    const search = (query: string) => ({ feature_uri: wordFeature, query });
    const reply = await adHoc([
      feature({
        searches: [search('quantum physics'), search('garden rain')],
        fusion: 'rrf',
        final_top_k: 2,
      }),
    ]);
    expect(textsOf(reply).sort()).toEqual(['quantum physics is strange', 'the garden needs rain']);
  });

  it.each([
    [
      'eq',
      { field: 'metadata.topic', operator: 'eq', value: 'garden' },
      ['roses in the garden', 'the garden needs rain'],
    ],
    [
      'a tree',
      {
        AND: [
          { field: 'year', operator: 'gte', value: 2020 },
          { NOT: [{ field: 'topic', operator: 'eq', value: 'garden' }] },
        ],
      },
      ['quantum computers use qubits', 'the train is late'],
    ],
    ['in', { field: 'payload.topic', operator: 'in', value: ['travel', 'none'] }, ['the train is late']],
    ['contains', { field: 'text', operator: 'contains', value: 'strange' }, ['quantum physics is strange']],
    ['a template', { field: 'topic', operator: 'eq', value: '{{INPUT.topic}}' }, ['the train is late']],
  ])('with a filter by %s sees only what passes it', async (_, filters, expected) => {
    const reply = await adHoc([...searchStages(), filter({ conditions: filters })], {
      inputs: { query: 'the', topic: 'travel' },
      limit: 10,
    });
    expect(textsOf(reply).sort()).toEqual(expected);
    if (!JSON.stringify(filters).includes('{{')) {
      expect(textsOf(await execute({ input: { query: 'the' }, filters, limit: 10 })).sort()).toEqual(
        expected,
      );
    }
  });

  it('can be sorted by a field and cut by stages', async () => {
    const stages = [
      ...searchStages(),
      {
        stage_name: 'sort',
        stage_type: 'sort',
        config: { stage_id: 'sort_attribute', parameters: { field: 'year', direction: 'asc' } },
      },
      { stage_name: 'cut', stage_type: 'reduce', config: { stage_id: 'limit', parameters: { limit: 2 } } },
    ];
    const known = (await client.call('GET', `${space.path}/retrievers/stages`)).map(
      (one: Json) => one.stage_id,
    );
    expect(known).toEqual(expect.arrayContaining(['feature_search', 'attribute_filter', 'limit']));
    const reply = await adHoc(stages, { inputs: { query: 'the' } });
    expect(reply.results.map((hit: Json) => hit.year)).toEqual([2019, 2020]);
  });

  it('over collections that have nothing answers 200 with no hits and says so', async () => {
    const other = await makeCollection(space, 'nothing');
    const reply = await adHoc(searchStages(), {
      inputs: { query: 'x' },
      collection_identifiers: [other.collectionId],
    });
    expect(reply.results).toEqual([]);
  });

  it('sees an object that a later batch adds, and not one whose document was deleted', async () => {
    await putTexts(space, setup, ['a zebra appears']);
    await runBatch(space, setup);
    const [hit] = (await execute({ input: { query: 'zebra appears' } })).results;
    expect(hit.text).toBe('a zebra appears');
    await client.call('DELETE', `${setup.collection}/documents/${hit.document_id}`);
    expect(textsOf(await execute({ input: { query: 'zebra appears' } }))).not.toContain('a zebra appears');
  });

  it('is explained without being run, and runs for many queries at once', async () => {
    expect(
      await client.call('POST', `${space.path}/retrievers/${retriever}/execute/explain`, {
        input: { query: 'x' },
      }),
    ).toMatchObject({ retriever_id: retriever, total_estimated_stages: 1 });
    const batch = await client.call('POST', `${space.path}/retrievers/${retriever}/execute/batch`, {
      queries: [{ inputs: { query: 'garden roses' } }, { inputs: { query: 'late train' } }],
    });
    expect(batch.results.map((one: Json) => one.results[0].text)).toEqual([
      'roses in the garden',
      'the train is late',
    ]);
  });
});

describe('a retriever', () => {
  it('is read, listed, changed and deleted', async () => {
    const { retriever_id: id } = await client.call(
      'POST',
      '/v1/retrievers',
      { retriever_name: 'life', stages: searchStages(), collection_identifiers: ['texts'] },
      { 'X-Namespace': space.namespaceName },
    );
    expect(await client.call('GET', `${space.path}/retrievers/life`)).toMatchObject({
      retriever_id: id,
      collection_ids: [setup.collectionId],
      feature_uris: [wordFeature],
    });
    expect(
      (await client.call('POST', `${space.path}/retrievers/list`, { search: 'life' })).results,
    ).toHaveLength(1);
    expect(
      await client.call('PATCH', `${space.path}/retrievers/${id}`, { description: 'changed' }),
    ).toMatchObject({ description: 'changed' });
    expect((await client.ask('DELETE', `${space.path}/retrievers/${id}`)).status).toBe(200);
    expect((await client.ask('GET', `${space.path}/retrievers/${id}`)).status).toBe(404);
    expect(
      (await client.ask('POST', `${space.path}/retrievers/${id}/execute`, { input: { query: 'x' } })).status,
    ).toBe(404);
  });

  it.each([
    ['a feature URI of no plugin', searchStages('mixpeek://absent@1.0.0/x'), /absent/],
    ['a feature URI that is none', searchStages('absent'), /mixpeek:\/\//],
    [
      'an unknown stage',
      [{ stage_name: 'x', config: { stage_id: 'teleport', parameters: {} } }],
      /feature_search/,
    ],
    [
      'an unknown template root',
      [feature({ searches: [{ feature_uri: wordFeature, query: '{{NOWHERE.query}}' }] })],
      /NOWHERE/,
    ],
  ])('is refused with %s', async (_, stages, says) => {
    const fault = await client.refused(422, 'POST', `${space.path}/retrievers`, { name: 'refused', stages });
    expect(`${fault.message}\n${fault.fields.join('\n')}`).toMatch(says);
  });

  it.each([
    ['{"query": {"input": ...}}', { query: { input: { query: 'x' } } }, /"?inputs?"?/],
    ['a missing input', { input: {} }, /query/],
    ['an unknown key', { input: { query: 'x' }, colour: 'red' }, /colour/],
    [
      'an unknown filter operator',
      { input: { query: 'x' }, filters: { field: 'a', operator: 'near', value: 1 } },
      /near/,
    ],
  ])('refuses to run with %s and says the right form', async (_, body, says) => {
    const fault = await client.refused(422, 'POST', `${space.path}/retrievers/${retriever}/execute`, body);
    expect(`${fault.message}\n${fault.fields.join('\n')}`).toMatch(says);
  });

  it('refuses a vector of the wrong dimension', async () => {
    const stages = [
      feature({
        searches: [{ feature_uri: wordFeature, query: { input_mode: 'vector', vector: [1, 2, 3] } }],
      }),
    ];
    const fault = await client.refused(422, 'POST', `${space.path}/retrievers/execute`, { stages });
    expect(`${fault.message}\n${fault.fields.join('\n')}`).toMatch(/128/);
  });
});
