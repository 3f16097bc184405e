// Many inputs at once: the answers of single runs, in one embedding call and one scan.
import { describe, expect, it } from 'vitest';
import { virtualClock } from '../../../functions/core/clock.ts';
import { parse } from '../../../functions/core/conditions/index.ts';
import { defineRetriever } from '../../../functions/core/retrieval/definition.ts';
import { searchMany, singleSearchOf } from '../../../functions/core/retrieval/search-many.ts';
import { memoryPort } from './memory-port.ts';

const uri = 'mixpeek://text_embed@1.0.0/vec';
const embed = (text: string) => (text === 'mute' ? undefined : [text.length, 1]);
const documents = Array.from({ length: 6 }, (_, i) => ({
  document_id: `d${i}`,
  fields: { topic: i < 4 ? `t${i}` : null, text: 'x'.repeat(i + 1) },
  vectors: { [uri]: [i + 1, 1] },
}));
const definitionOf = (search: object = {}, more: unknown[] = []) =>
  defineRetriever({
    stages: [
      {
        stage_name: 's',
        config: {
          stage_id: 'feature_search',
          parameters: { searches: [{ feature_uri: uri, query: '{{INPUT.query}}', ...search }] },
        },
      },
      ...more,
    ],
  });
const { parameters } = singleSearchOf(definitionOf())!;

describe('many searches', () => {
  it('classify each input by the nearest reference that is not itself, in one call each', async () => {
    const port = memoryPort({ [uri]: { dims: 2, embed } }, documents);
    const result = await searchMany(
      {
        parameters,
        queries: documents.map(({ document_id, fields }) => ({
          inputs: { query: fields.text },
          exclude_ids: [document_id],
        })),
        filter: parse({ field: 'topic', operator: 'is_null', value: false }),
        top_k: 1,
        deadlineMs: Number.MAX_SAFE_INTEGER,
      },
      port,
      virtualClock(),
    );
    expect(result.outcomes.map(({ hits }) => hits.map(({ document_id }) => document_id))).toEqual([
      ['d1'],
      ['d2'],
      ['d3'],
      ['d2'],
      ['d3'],
      ['d3'],
    ]);
    expect(port.calls.embed).toHaveLength(1);
    expect(port.calls.search).toMatchObject([
      { k: 1, exclude: documents.map(({ document_id }) => [document_id]) },
    ]);
    expect(port.calls.documents).toEqual([]);
  });

  it('embed equal texts once and keep the fault of one input to itself', async () => {
    const port = memoryPort({ [uri]: { dims: 2, embed } }, documents);
    const inputs = [{ query: 'a' }, {}, { query: 'mute' }, { query: 'a' }, { query: 7 }];
    const { outcomes } = await searchMany(
      { parameters, queries: inputs.map((each) => ({ inputs: each })), deadlineMs: Number.MAX_SAFE_INTEGER },
      port,
      virtualClock(),
    );
    expect(port.calls.embed).toEqual([{ feature_uri: uri, texts: ['a', 'mute'] }]);
    expect(outcomes.map(({ faults }) => faults[0]?.type)).toEqual([
      undefined,
      'template_unknown_variable',
      'query_without_vector',
      undefined,
      'query_wrong_type',
    ]);
    expect(outcomes[0]?.hits).toEqual(outcomes[3]?.hits);
    expect(outcomes[0]?.hits).toHaveLength(6);
    expect(outcomes[2]?.hits).toEqual([]);
  });

  it('share a scan among inputs whose filters come out equal', async () => {
    const port = memoryPort({ [uri]: { dims: 2, embed } }, documents);
    const filtered = singleSearchOf(
      definitionOf({ filters: { field: 'topic', operator: 'eq', value: '{{INPUT.topic}}' } }),
    )!;
    const topics = ['t0', 't1', 't0', 't1'];
    const { outcomes } = await searchMany(
      {
        parameters: filtered.parameters,
        queries: topics.map((topic) => ({ inputs: { query: 'a', topic } })),
        deadlineMs: Number.MAX_SAFE_INTEGER,
      },
      port,
      virtualClock(),
    );
    expect(port.calls.search.map(({ vectors }) => vectors.length)).toEqual([2, 2]);
    expect(outcomes.map(({ hits }) => hits[0]?.document_id)).toEqual(['d0', 'd1', 'd0', 'd1']);
  });

  it('give no outcome for no input and ask nothing', async () => {
    const port = memoryPort({ [uri]: { dims: 2, embed } }, documents);
    const { outcomes } = await searchMany(
      { parameters, queries: [], deadlineMs: 1e15 },
      port,
      virtualClock(),
    );
    expect(outcomes).toEqual([]);
    expect(port.calls.search).toEqual([]);
  });
});

describe('a retriever with raw scores', () => {
  it('is one feature_search with one search, nothing else', () => {
    expect(singleSearchOf(definitionOf())?.search.feature_uri).toBe(uri);
    const limit = { stage_name: 'l', config: { stage_id: 'limit', parameters: {} } };
    expect(singleSearchOf(definitionOf({}, [limit]))).toBeUndefined();
    const searches = [uri, uri].map((feature_uri) => ({ feature_uri, query: 'x' }));
    const fused = { stage_name: 'f', config: { stage_id: 'feature_search', parameters: { searches } } };
    expect(singleSearchOf(defineRetriever({ stages: [fused] }))).toBeUndefined();
  });
});
