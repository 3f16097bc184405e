// Measuring a taxonomy over HTTP, and classifying inside a retriever.
import { describe, expect, it } from 'vitest';
import { expectError, faults } from '../expect.ts';
import { searchStages } from '../retrievers/library.ts';
import { articles, create, makeTopics } from './topics.ts';

describe('evaluation', () => {
  it('sets the threshold aside, counts what is right, and suggests one that refuses what is out of scope', async () => {
    const library = await makeTopics(articles);
    await create(library, { execution_mode: 'on_demand', threshold: 0.99 });
    const reply = await library.post('taxonomies/article-topics/evaluate', {
      documents: [
        { fields: { text: 'quantum quantum quantum ball' }, expected: 'physics' },
        { inputs: { query: 'cook cook quantum' }, expected: 'kitchen' },
        { fields: { text: 'cook quantum quantum' }, expected: 'kitchen' },
        { fields: { text: 'ball ball quantum' }, expected: null },
        { fields: { text: 'no word' }, expected: null },
      ],
    });
    expect(reply.status, JSON.stringify(reply.body)).toBe(200);
    expect(reply.body).toMatchObject({
      target: 'auto_topic',
      evaluated: 5,
      in_scope: 3,
      out_of_scope: 2,
      accuracy: 0.666667,
      objective: 'balanced',
      at_threshold: { threshold: 0.99, coverage: 0, precision: null, out_of_scope_refused: 1 },
      suggested_threshold: 0.894427,
      at_suggested: { coverage: 1, precision: 0.666667, recall: 0.666667, out_of_scope_refused: 1 },
      confusions: [{ expected: 'kitchen', predicted: 'physics', count: 1 }],
    });
    expect(reply.body.per_class).toEqual([
      { value: 'kitchen', support: 2, predicted: 1, precision: 1, recall: 0.5, f1: 0.666667 },
      { value: 'physics', support: 1, predicted: 3, precision: 0.333333, recall: 1, f1: 0.5 },
    ]);
    expect(reply.body.curve.map((point: { threshold: number }) => point.threshold)).toEqual([
      0.447214, 0.894427, 0.948683,
    ]);
    const strict = await library.post('taxonomies/article-topics/evaluate', {
      documents: [{ fields: { text: 'cook quantum quantum' }, expected: 'kitchen' }],
      objective: 'precision',
      target_precision: 0.9,
    });
    expect(strict.body).toMatchObject({ suggested_threshold: null, at_suggested: null });
  });

  it('judges stored documents by a field, never by themselves', async () => {
    const library = await makeTopics([
      { text: 'quantum', metadata: { topic: 'physics' } },
      { text: 'quantum quantum ball', metadata: { topic: 'physics' } },
      { text: 'cook', metadata: { topic: 'kitchen' } },
      { text: 'seed' },
    ]);
    await create(library, { execution_mode: 'on_demand' });
    const reply = await library.post('taxonomies/article-topics/evaluate', {
      collection_id: 'articles',
      label_field: 'topic',
    });
    expect(reply.body).toMatchObject({ evaluated: 4, in_scope: 3, out_of_scope: 1, accuracy: 0.666667 });
    const some = await library.post('taxonomies/article-topics/evaluate', {
      collection_id: 'articles',
      label_field: 'topic',
      filters: { field: 'topic', operator: 'eq', value: 'physics' },
    });
    expect(some.body).toMatchObject({ evaluated: 2, accuracy: 1 });
  });

  it('says when examples cannot tell anything: no label, values that nobody predicts, fields that are not there', async () => {
    const library = await makeTopics(articles);
    await create(library, { execution_mode: 'on_demand' });
    const warned = async (body: object) =>
      (await library.post('taxonomies/article-topics/evaluate', body)).body.warnings;
    expect(await warned({ collection_id: 'articles', label_field: 'topicc' })).toEqual([
      'No document that was looked at has the field "topicc", so all of them count as out of scope and nothing can be right.',
    ]);
    const one = (fields: object, expected: string | null) => ({ documents: [{ fields, expected }] });
    expect(await warned(one({ text: 'quantum' }, null))).toEqual([
      'No example has an expected value, so all of them count as out of scope and nothing can be right.',
    ]);
    expect(await warned(one({ text: 'quantum' }, 'Physics'))).toEqual([
      'None of the expected values is one that was predicted as "auto_topic"; are they spelt as the references spell them?',
    ]);
    expect(await warned(one({ txt: 'quantum' }, 'physics'))).toEqual([
      'Nothing could be compared for documents without a text in the field "payload.text", which is the input "query".',
    ]);
    expect(await warned(one({ text: 'quantum' }, 'physics'))).toBeUndefined();
  });

  it('is refused without examples, for a target that nobody writes, and for a version that is not there', async () => {
    const library = await makeTopics(articles);
    await create(library);
    const path = 'taxonomies/article-topics/evaluate';
    const documents = [{ fields: { text: 'x' }, expected: null }];
    expectError(await library.post(path, {}), 'request_invalid');
    expectError(await library.post(path, { documents: [{ expected: 'a' }] }), 'request_invalid');
    const both = await library.post(path, { documents, collection_id: 'articles', label_field: 'topic' });
    expectError(both, 'request_invalid');
    expect(both.body.error.message).toBe(
      'body.documents: examples are named in two ways, here and by collection_id',
    );
    expect(faults(await library.post(path, { documents, target: 'other' }))).toEqual([
      'body.target: target_unknown',
    ]);
    expectError(
      await library.post(path, { collection_id: 'nowhere', label_field: 'a' }),
      'collection_not_found',
    );
    expectError(await library.post(`${path}?version=9`, { documents }), 'taxonomy_version_not_found');
    expectError(await library.post('taxonomies/nobody/evaluate', { documents }), 'taxonomy_not_found');
  });
});

describe('the retriever stage taxonomy_enrich', () => {
  const enrich = (parameters: Record<string, unknown>) => ({
    stage_name: 'topics',
    stage_type: 'enrich',
    config: { stage_id: 'taxonomy_enrich', parameters },
  });

  it('adds fields and assignments to what a search finds, where the condition holds, and stores nothing', async () => {
    const library = await makeTopics(articles);
    await create(library, { execution_mode: 'on_demand' });
    const stages = [
      ...searchStages(),
      enrich({
        taxonomy_id: '{{INPUT.taxonomy}}',
        fields: ['auto_topic'],
        top_k: 1,
        when: { field: 'topic', operator: 'exists', value: false },
      }),
      {
        stage_name: 'few',
        config: {
          stage_id: 'attribute_filter',
          parameters: { field: 'auto_topic', operator: 'eq', value: 'physics' },
        },
      },
    ];
    const made = await library.post('retrievers', { name: 'enriched', stages });
    expect(made.status, JSON.stringify(made.body)).toBe(200);
    const run = (body: Record<string, unknown>) =>
      library.post('retrievers/enriched/execute', {
        inputs: { query: 'quantum', taxonomy: 'article-topics' },
        ...body,
      });
    for (const body of [{}, { return_presigned_urls: true }]) {
      const reply = await run(body);
      expect(reply.status, JSON.stringify(reply.body)).toBe(200);
      expect(reply.body.documents).toHaveLength(1);
      expect(reply.body.documents[0]).toMatchObject({
        document_id: library.ids[2],
        auto_topic: 'physics',
        metadata: { auto_topic: 'physics' },
        _internal: {
          taxonomy_assignments: [{ matched_document_id: library.ids[0], score: 0.948683, value: 'physics' }],
        },
      });
      expect(reply.body.stage_statistics.stages.topics.metadata).toMatchObject({
        classified: 3,
        enriched: 2,
      });
    }
    const stored = await library.call(
      'GET',
      `/v1/namespaces/{ns}/collections/articles/documents/${library.ids[2]}`,
    );
    expect(stored.body).not.toHaveProperty('auto_topic');
    const unknown = await run({ inputs: { query: 'quantum', taxonomy: 'nobody' } });
    expectError(unknown, 'retriever_input_invalid');
    expect(unknown.body.error.message).toContain('nobody');
  });

  it('says why it could not classify what was found', async () => {
    const library = await makeTopics(articles);
    await create(library, {
      execution_mode: 'on_demand',
      input_mappings: [{ source: 'payload.txet', target: 'query' }],
    });
    const stages = [...searchStages(), enrich({ taxonomy_id: 'article-topics' })];
    await library.post('retrievers', { name: 'enriched', stages });
    const reply = await library.post('retrievers/enriched/execute', { inputs: { query: 'quantum' } });
    expect(reply.status, JSON.stringify(reply.body)).toBe(200);
    expect(reply.body.warnings).toEqual([
      'Nothing could be compared for documents without a text in the field "payload.txet", which is the input "query".',
    ]);
  });

  it('is refused with parameters that it does not have, or as the first stage', async () => {
    const library = await makeTopics();
    const refuse = async (stages: unknown[]) => library.post('retrievers', { name: 'x', stages });
    expectError(await refuse([enrich({ taxonomy_id: 'a' })]), 'retriever_invalid');
    expectError(
      await refuse([...searchStages(), enrich({ taxonomy_id: 'a', top_k: 51 })]),
      'retriever_invalid',
    );
    expectError(await refuse([...searchStages(), enrich({})]), 'retriever_invalid');
  });
});
