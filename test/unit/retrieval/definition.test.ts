// Definitions: spellings in, one form out, every fault at once with its place.
import { describe, expect, it } from 'vitest';
import type { AppError } from '../../../functions/core/errors.ts';
import { defineRetriever, readDefinition } from '../../../functions/core/retrieval/definition.ts';
import { explainRetriever } from '../../../functions/core/retrieval/explain.ts';
import { stageDefinitions, stageIds } from '../../../functions/core/retrieval/stages/index.ts';

const uri = 'mixpeek://text_embed@1.0.0/text_embed_v1_embedding';
const stage = (stage_id: string, parameters: unknown, stage_name = stage_id) => ({
  stage_name,
  config: { stage_id, parameters },
});
const search = (parameters: object = {}) =>
  stage('feature_search', { searches: [{ feature_uri: uri, query: '{{INPUT.query}}' }], ...parameters });
const parametersOf = (...stages: unknown[]) =>
  defineRetriever({ stages }).stages.map(({ config }) => config.parameters);
const faultsOf = (body: { stages?: unknown; input_schema?: unknown }) =>
  readDefinition(body).faults.map(({ type, path }) => `${path.join('.')}: ${type}`);

describe('a definition', () => {
  it("takes the tutorial's stage and fills in every default", () => {
    const definition = defineRetriever({
      stages: [
        {
          stage_name: 'vector_search',
          stage_type: 'filter',
          config: {
            stage_id: 'feature_search',
            parameters: { searches: [{ feature_uri: uri, query: '{{INPUT.query}}' }] },
          },
        },
      ],
    });
    expect(definition).toEqual({
      stages: [
        {
          stage_name: 'vector_search',
          stage_type: 'filter',
          config: {
            stage_id: 'feature_search',
            parameters: {
              searches: [
                {
                  feature_uri: uri,
                  query: { input_mode: 'text', text: '{{INPUT.query}}' },
                  top_k: 100,
                  weight: 1,
                  optional: false,
                },
              ],
              fusion: 'rrf',
              final_top_k: 25,
            },
          },
        },
      ],
      input_schema: { query: { type: 'string', required: true } },
      input_names: ['query'],
      feature_uris: [uri],
    });
  });

  it('reads its own stored form to the same form', () => {
    const first = defineRetriever({
      stages: [
        stage('attribute_filter', {
          field: 'lang',
          operator: 'eq',
          value: { type: 'dynamic', field: 'inputs.lang' },
        }),
        search({
          filters: { NOT: { field: 'draft', operator: 'exists', value: true } },
          final_top_k: '{{INPUT.k}}',
        }),
        stage('sort', { by: [{ field: 'score' }, { by: 'year', order: 'DESC', nulls_last: false }] }),
        stage('sort_relevance', {}),
        stage('sort_attribute', { field: 'year' }),
        stage('limit', { limit: 3 }),
      ],
      input_schema: { lang: { type: 'string', required: false, default: 'en' } },
    });
    const again = defineRetriever(JSON.parse(JSON.stringify(first)) as typeof first);
    expect(again).toEqual(first);
    expect(first.input_names).toEqual(['k', 'lang', 'query']);
  });

  it.each([
    ['a bare text', '{{INPUT.q}}', { input_mode: 'text', text: '{{INPUT.q}}' }],
    ['mode text', { input_mode: 'text', text: 'a' }, { input_mode: 'text', text: 'a' }],
    ['mode text with value', { input_mode: 'text', value: 'a' }, { input_mode: 'text', text: 'a' }],
    ['mode content', { input_mode: 'content', value: 'a' }, { input_mode: 'content', content: 'a' }],
    ['a text without mode', { text: 'a' }, { input_mode: 'text', text: 'a' }],
    ['a vector', { input_mode: 'vector', value: [1, 2] }, { input_mode: 'vector', vector: [1, 2] }],
    ['a vector template', { vector: '{{INPUT.v}}' }, { input_mode: 'vector', vector: '{{INPUT.v}}' }],
    [
      'a document id',
      { input_mode: 'document', document_id: 'd' },
      { input_mode: 'document', document_id: 'd' },
    ],
    [
      'a document value',
      { input_mode: 'document', value: 'd' },
      { input_mode: 'document', document_id: 'd' },
    ],
    [
      'a document reference',
      { input_mode: 'document', document_ref: { document_id: 'd', collection_id: 'c' } },
      { input_mode: 'document', document_id: 'd', collection_id: 'c' },
    ],
  ])('takes a query as %s', (_name, query, normalised) => {
    const [parameters] = parametersOf(stage('feature_search', { searches: [{ feature_uri: uri, query }] }));
    expect(parameters).toMatchObject({ searches: [{ query: normalised }] });
  });

  it.each([
    ['a number', 5],
    ['a list', [1, 2]],
    ['nothing', {}],
    ['an unknown mode', { input_mode: 'image', value: 'x' }],
    ['an unknown key', { input_mode: 'text', text: 'a', lang: 'en' }],
    ['two texts', { input_mode: 'text', text: 'a', value: 'b' }],
    ['an empty vector', { vector: [] }],
    ['a vector of texts', { vector: ['1'] }],
    ['a vector beyond float32', { vector: [1e300] }],
    ['a vector as text', { vector: 'abc' }],
    ['a document without id', { input_mode: 'document', document_ref: { collection_id: 'c' } }],
    ['a document named twice', { document_id: 'd', document_ref: { document_id: 'd' } }],
  ])('refuses %s as a query, at its place', (_name, query) => {
    const body = { stages: [stage('feature_search', { searches: [{ feature_uri: uri, query }] })] };
    const { faults } = readDefinition(body);
    expect(faults).toHaveLength(1);
    expect(faults[0]?.type).toBe('query_invalid');
    expect(faults[0]?.path.slice(0, 7)).toEqual([
      'stages',
      0,
      'config',
      'parameters',
      'searches',
      0,
      'query',
    ]);
  });

  it('takes a condition in each spelling', () => {
    const leaf = { field: 'a', operator: 'eq', value: 1 };
    const forms = [
      leaf,
      { conditions: leaf },
      { filters: leaf },
      { conditions: leaf, filters: leaf, batch_size: 50 },
    ];
    for (const form of forms)
      expect(parametersOf(stage('attribute_filter', form))).toEqual([{ conditions: leaf }]);
    const tree = { AND: [leaf] };
    expect(parametersOf(stage('attribute_filter', tree))).toEqual([{ conditions: tree }]);
    expect(parametersOf(stage('attribute_filter', { ...leaf, case_insensitive: false }))).toEqual([
      { conditions: { AND: [leaf], case_sensitive: true } },
    ]);
  });

  it('refuses two different conditions and none', () => {
    const leaf = { field: 'a', operator: 'eq', value: 1 };
    for (const form of [{}, { conditions: leaf, filters: { ...leaf, value: 2 } }, { conditions: [leaf] }]) {
      expect(faultsOf({ stages: [stage('attribute_filter', form)] })).toHaveLength(1);
    }
  });

  it('reports every fault at once, each with its place', () => {
    expect(
      faultsOf({
        stages: [
          {
            stage_name: 'a',
            stage_type: 'magic',
            config: {
              stage_id: 'feature_search',
              parameters: {
                searches: [
                  { feature_uri: 'mixpeek://x', query: '{{INPUT.q}}', topk: 3 },
                  {
                    feature_uri: uri,
                    query: '{{query}}',
                    top_k: 5001,
                    filters: { field: 'a', operator: 'near', value: 1 },
                  },
                ],
                final_top_k: 0,
              },
            },
          },
          { stage_name: 'b', config: { stage_id: 'rerank', parameters: {} } },
          { stage_name: 'c', config: { stage_id: 'limit', parameters: { limit: 'ten' } }, color: 'red' },
        ],
        input_schema: { q: { type: 'strng' }, r: { type: 'integer', default: 'x' } },
      }).sort(),
    ).toEqual([
      'input_schema.q.type: value_error',
      'input_schema.r.default: value_error',
      'stages.0.config.parameters.final_top_k: value_error',
      'stages.0.config.parameters.searches.0.feature_uri: feature_uri_invalid',
      'stages.0.config.parameters.searches.0.topk: extra_forbidden',
      'stages.0.config.parameters.searches.1.query: template_unknown_root',
      'stages.0.config.parameters.searches.1.top_k: value_error',
      'stages.0.stage_type: value_error',
      'stages.1.config.stage_id: stage_unknown',
      'stages.2.color: extra_forbidden',
      'stages.2.config.parameters.limit: value_error',
    ]);
  });

  it('checks templates and conditions without values', () => {
    expect(
      faultsOf({
        stages: [
          search({
            filters: {
              AND: [
                { field: 'a', operator: 'in', value: '{{INPUT.list}}' },
                { field: '', value: 1 },
              ],
            },
          }),
          stage('attribute_filter', { field: 'a', operator: 'eq', value: '{{user}}' }),
          stage('sort', { field: '{{INPUT.f}}' }),
        ],
      }),
    ).toEqual([
      'stages.0.config.parameters.filters.AND.1.field: condition_bad_field',
      'stages.1.config.parameters.conditions.value: template_unknown_root',
      'stages.2.config.parameters.sorts.0.field: template_root_not_here',
    ]);
  });

  it('lists the accepted keys and the known stages in its messages', () => {
    const { faults } = readDefinition({ stages: [search({ topK: 1 }), stage('rerank', {})] });
    expect(faults[0]?.message).toContain('final_top_k');
    expect(faults[1]?.fix).toContain('feature_search');
  });

  it('throws one 422 whose locations begin with body', () => {
    expect(() => defineRetriever({ stages: [] })).toThrow(
      expect.objectContaining({ code: 'retriever_invalid', status: 422 }) as AppError,
    );
    try {
      defineRetriever({ stages: [stage('limit', {})] });
    } catch (error) {
      expect((error as AppError).fields).toMatchObject([
        { type: 'stage_order', location: ['body', 'stages', 0] },
      ]);
    }
  });

  it('bounds stages to 10 and searches to 10', () => {
    const many = (count: number) => Array.from({ length: count }, (_, i) => stage('limit', {}, `l${i}`));
    expect(faultsOf({ stages: [search(), ...many(9)] })).toEqual([]);
    expect(faultsOf({ stages: [search(), ...many(10)] })).toEqual(['stages: value_error']);
    const searches = (count: number) =>
      Array.from({ length: count }, () => ({ feature_uri: uri, query: 'x' }));
    expect(faultsOf({ stages: [stage('feature_search', { searches: searches(10) })] })).toEqual([]);
    expect(faultsOf({ stages: [stage('feature_search', { searches: searches(11) })] })).toEqual([
      'stages.0.config.parameters.searches: too_big',
    ]);
  });

  it('wants different stage names, an earlier stage behind STAGE, and DOC only where documents are', () => {
    expect(faultsOf({ stages: [search(), search()] })).toEqual(['stages.1.stage_name: value_error']);
    const later = stage('limit', { limit: '{{STAGE.nowhere.output_count}}' });
    expect(faultsOf({ stages: [search(), later] })).toEqual([
      'stages.1.config.parameters.limit: template_unknown_variable',
    ]);
    const byDocument = stage('attribute_filter', { field: 'a', operator: 'eq', value: '{{DOC.b}}' });
    expect(faultsOf({ stages: [search(), byDocument] })).toEqual([]);
    expect(faultsOf({ stages: [byDocument] })).toEqual([
      'stages.0.config.parameters.conditions.value: template_root_not_here',
    ]);
  });

  it('does not require inputs that have a default or belong to an optional search', () => {
    const searches = [
      { feature_uri: uri, query: '{{INPUT.a | default("x")}}' },
      { feature_uri: uri, query: '{{INPUT.b}}', optional: true },
      { feature_uri: uri, query: '{{INPUT.c}}', top_k: '{{INPUT.k}}' },
    ];
    const { input_schema } = defineRetriever({ stages: [stage('feature_search', { searches })] });
    const required = Object.entries(input_schema)
      .filter(([, field]) => field.required)
      .map(([name]) => name);
    expect(required.sort()).toEqual(['c', 'k']);
  });

  it('accepts a stage without config as some clients write it', () => {
    const [parameters] = parametersOf({
      stage_name: 's',
      stage_id: 'attribute_filter',
      parameters: { field: 'a', value: 1 },
    });
    expect(parameters).toEqual({ conditions: { field: 'a', value: 1 } });
  });
});

describe('the list of stages', () => {
  it('describes each stage with a JSON Schema of its parameters', () => {
    const definitions = stageDefinitions();
    expect(definitions.map(({ stage_id }) => stage_id)).toEqual([...stageIds]);
    for (const { parameter_schema } of definitions)
      expect(parameter_schema).toMatchObject({ type: 'object' });
    expect(JSON.stringify(definitions[0])).toContain('final_top_k');
  });
});

describe('a plan', () => {
  it('bounds what each stage passes on and says what the index does', () => {
    const definition = defineRetriever({
      stages: [stage('attribute_filter', { field: 'a', value: 1 }), search(), stage('limit', { limit: 5 })],
    });
    const { execution_plan } = explainRetriever(definition, 1000);
    expect(
      execution_plan.map(({ estimated_input, estimated_output }) => [estimated_input, estimated_output]),
    ).toEqual([
      [1000, 1000],
      [1000, 25],
      [25, 5],
    ]);
    expect(execution_plan[0]?.optimization_notes[0]).toContain('the search');
    expect(explainRetriever(definition).execution_plan[0]?.estimated_output).toBeNull();
  });
});
