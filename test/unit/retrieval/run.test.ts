// Runs over a memory port: searching, filtering, ordering, paging, and what is said when inputs are wrong.
import { describe, expect, it } from 'vitest';
import { virtualClock } from '../../../functions/core/clock.ts';
import { AppError } from '../../../functions/core/errors.ts';
import { defineRetriever, readDefinition } from '../../../functions/core/retrieval/definition.ts';
import type { SearchPort } from '../../../functions/core/retrieval/ports.ts';
import { type RunRequest, runRetriever, type StageEvent } from '../../../functions/core/retrieval/run.ts';
import { type MemoryDocument, memoryPort } from './memory-port.ts';

const uri = 'mixpeek://text_embed@1.0.0/vec';
const other = 'mixpeek://text_embed@1.0.0/other';
const features = {
  [uri]: { dims: 2, embed: (text: string) => (text === 'mute' ? undefined : [text.length, 1]) },
  [other]: { dims: 2, metric: 'euclid' as const, embed: (text: string) => [text.length, 0] },
};
/** Documents d0…d7 on a quarter circle; even ones are German, years rise, d7 has no year. */
const documents: MemoryDocument[] = Array.from({ length: 8 }, (_, i) => ({
  document_id: `d${i}`,
  collection_id: i < 6 ? 'col_1' : 'col_2',
  fields: { lang: i % 2 === 0 ? 'de' : 'en', ...(i < 7 ? { year: 2000 + ((i * 3) % 7) } : {}), same: 'x' },
  vectors: {
    [uri]: [Math.cos((i * Math.PI) / 15), Math.sin((i * Math.PI) / 15)],
    ...(i < 3 ? { [other]: [i, 0] } : {}),
  },
}));
const stage = (stage_id: string, parameters: unknown, stage_name = stage_id) => ({
  stage_name,
  config: { stage_id, parameters },
});
const search = (parameters: object = {}, more: object = {}) =>
  stage('feature_search', {
    searches: [{ feature_uri: uri, query: '{{INPUT.query}}', ...more }],
    ...parameters,
  });
const leaf = (field: string, value: unknown, operator = 'eq') => ({ field, operator, value });

const setUp = () => ({ port: memoryPort(features, documents), clock: virtualClock() });
function run(
  stages: unknown[],
  request: Partial<RunRequest> = {},
  { port, clock }: { port: SearchPort; clock: ReturnType<typeof virtualClock> } = setUp(),
) {
  return runRetriever(
    {
      definition: request.definition ?? defineRetriever({ stages }),
      inputs: { query: 'q' },
      pagination: { method: 'offset', page_size: 100, page_number: 1 },
      ...request,
    },
    port,
    clock,
  );
}
const ids = ({ documents: found }: { documents: readonly { document_id: string }[] }) =>
  found.map(({ document_id }) => document_id);
const faultOf = async (promise: Promise<unknown>) => {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  expect(error).toBeInstanceOf(AppError);
  const { code, fields } = error as AppError;
  expect(code).toBe('retriever_input_invalid');
  return fields.map(({ location, type }) => `${location.slice(1).join('.')}: ${type}`);
};

describe('a search', () => {
  it('gives the nearest documents with id, collection, raw score, fields and lineage', async () => {
    const result = await run([search({ final_top_k: 2 })], { inputs: { query: 'q' } });
    expect(ids(result)).toEqual(['d4', 'd3']);
    expect(result.documents[0]).toMatchObject({
      document_id: 'd4',
      collection_id: 'col_1',
      lang: 'de',
      metadata: { lang: 'de' },
      _internal: { lineage: { object_id: 'obj_d4' } },
    });
    expect(result.documents[0]?.score).toBeCloseTo(Math.cos(Math.PI / 60), 6);
    expect(result.status).toBe('completed');
    expect(result.warnings).toEqual([]);
  });

  it('fetches documents once, and only those of the page', async () => {
    const context = setUp();
    await run([search()], { pagination: { method: 'offset', page_size: 3, page_number: 2 } }, context);
    expect(context.port.calls.documents.map((refs) => refs.length)).toEqual([3]);
  });

  it('pushes filters of the request, the stages before, the stage and the search into the index', async () => {
    const context = setUp();
    const result = await run(
      [
        stage('attribute_filter', leaf('lang', '{{INPUT.lang}}')),
        search({ filters: leaf('same', 'x') }, { filters: leaf('metadata.year', 2000, 'gte'), top_k: 2 }),
      ],
      { inputs: { query: 'q', lang: 'de' }, filters: leaf('document_id', 'd4', 'ne') },
      context,
    );
    expect(ids(result)).toEqual(['d2', 'd6']);
    expect(context.port.calls.list).toEqual([]);
    expect(context.port.calls.search).toHaveLength(1);
    expect(result.stage_statistics.stages.attribute_filter?.metadata).toEqual({ pushed_down: true });
  });

  it('restricts itself to the documents of an earlier search', async () => {
    const first = search({ final_top_k: 3 }, { query: '{{INPUT.query}}' });
    const second = stage(
      'feature_search',
      { searches: [{ feature_uri: uri, query: { vector: [1, 0] } }] },
      'again',
    );
    expect(ids(await run([first, second]))).toEqual(['d3', 'd4', 'd5']);
  });

  it('fuses several searches by reciprocal rank, with one embedding call and one scan per feature', async () => {
    const context = setUp();
    const searches = [
      { feature_uri: uri, query: '{{INPUT.query}}' },
      { feature_uri: uri, query: { vector: [1, 0] } },
      { feature_uri: other, query: '{{INPUT.query}}', weight: 0.5 },
    ];
    const result = await run([stage('feature_search', { searches, final_top_k: 3 })], {}, context);
    expect(context.port.calls.embed.map(({ feature_uri, texts }) => [feature_uri, texts])).toEqual([
      [uri, ['q']],
      [other, ['q']],
    ]);
    expect(context.port.calls.search.map(({ vectors }) => vectors.length)).toEqual([2, 1]);
    // Ranks: first search d4 d3 d5 d2 d6 d1 d7 d0 (ties by id), second d0 … d7, third d1 d0 d2.
    const expected = (ranks: [number, number][]) =>
      ranks.reduce((sum, [rank, w]) => sum + w / (60 + rank), 0);
    const byId = new Map(result.documents.map(({ document_id, score }) => [document_id, score]));
    expect(byId.get('d2')).toBeCloseTo(
      expected([
        [4, 1],
        [3, 1],
        [3, 0.5],
      ]),
      12,
    );
    expect(result.documents.map(({ score }) => score)).toEqual(
      result.documents.map(({ score }) => score).toSorted((a, b) => b - a),
    );
  });

  it('applies min_score to raw scores and leaves out excluded documents', async () => {
    const result = await run([search({}, { min_score: 0.95 })], { exclude_ids: ['d4'] });
    expect(ids(result)).toEqual(['d3', 'd5']);
  });

  it('keeps the thresholds of two searches of one feature apart', async () => {
    const query = { vector: [1, 0] };
    const searches = [
      { feature_uri: uri, query, min_score: 0.99 },
      { feature_uri: uri, query, min_score: 0.97 },
    ];
    const result = await run([stage('feature_search', { searches, fusion: 'max' })], { inputs: {} });
    // Angles of 12 degrees: d0 passes 0.99, d1 (0.978) only 0.97.
    expect(ids(result)).toEqual(['d0', 'd1']);
    const scores = await run([stage('feature_search', { searches, fusion: 'rrf' })], { inputs: {} });
    expect(scores.documents.map(({ score }) => score)).toEqual([2 / 61, 1 / 62]);
  });

  it('does not count the weight of a search that was left out', async () => {
    const searches = [
      { feature_uri: uri, query: { vector: [1, 0] } },
      { feature_uri: uri, query: '{{INPUT.absent}}', optional: true },
    ];
    const result = await run([stage('feature_search', { searches, fusion: 'weighted' })], { inputs: {} });
    expect(result.documents[0]).toMatchObject({ document_id: 'd0', score: 1 });
  });

  it('searches by a document, which is not its own hit', async () => {
    const query = { input_mode: 'document', document_id: '{{INPUT.like}}' };
    const context = setUp();
    const result = await run([search({ final_top_k: 2 }, { query })], { inputs: { like: 'd0' } }, context);
    expect(ids(result)).toEqual(['d1', 'd2']);
    expect(context.port.calls.embed).toEqual([]);
    const unknown = run([search({}, { query })], { inputs: { like: 'd99' } });
    expect(await faultOf(unknown)).toEqual([
      'stages.0.config.parameters.searches.0.query: query_document_unknown',
    ]);
  });

  it('is empty with a warning when no collection holds the feature', async () => {
    const missing = 'mixpeek://other_embed@1.0.0/vec';
    const result = await run([search({}, { feature_uri: missing })]);
    expect(result.documents).toEqual([]);
    expect(result.status).toBe('completed');
    expect(result.warnings[0]).toContain(missing);
  });

  it('fuses on the same scale when one of two features does not exist', async () => {
    const searches = [uri, 'mixpeek://other_embed@1.0.0/vec'].map((feature_uri) => ({
      feature_uri,
      query: 'q',
    }));
    const result = await run([stage('feature_search', { searches })]);
    expect(result.documents[0]?.score).toBeCloseTo(1 / 61, 12);
  });

  it('lets its input through when all of its searches are optional and have no query', async () => {
    const optional = stage('feature_search', {
      searches: [{ feature_uri: uri, query: '{{INPUT.q}}', on_empty: 'skip' }],
    });
    const context = setUp();
    const result = await run(
      [stage('attribute_filter', leaf('lang', 'en')), optional],
      { inputs: {} },
      context,
    );
    expect(ids(result)).toEqual(['d1', 'd3', 'd5', 'd7']);
    expect(result.warnings).toHaveLength(1);
    expect(context.port.calls.embed).toEqual([]);
  });

  it('takes numbers from inputs, within their ranges', async () => {
    const stages = [
      search({ final_top_k: '{{INPUT.k}}' }),
      stage('limit', { limit: '{{INPUT.n | default(2)}}' }),
    ];
    expect((await run(stages, { inputs: { query: 'q', k: 5 } })).documents).toHaveLength(2);
    expect((await run(stages, { inputs: { query: 'q', k: 1 } })).documents).toHaveLength(1);
    expect(await faultOf(run(stages, { inputs: { query: 'q', k: 5001 } }))).toEqual([
      'stages.0.config.parameters.final_top_k: value_error',
    ]);
    expect(await faultOf(run(stages, { inputs: { query: 'q', k: '5' } }))).toHaveLength(1);
  });
});

describe('wrong inputs', () => {
  it('are all reported: missing ones by name, before anything is searched', async () => {
    const context = setUp();
    const stages = [search({ filters: leaf('a', '{{INPUT.lang}}') })];
    expect(await faultOf(run(stages, { inputs: {} }, context))).toEqual([
      'inputs.query: input_missing',
      'inputs.lang: input_missing',
    ]);
    expect(context.port.calls).toEqual({ embed: [], search: [], list: [], facets: [], documents: [] });
  });

  it('are checked against declared types and choices, and filled by defaults', async () => {
    const definition = defineRetriever({
      stages: [search({ final_top_k: '{{INPUT.k}}' })],
      input_schema: {
        query: { type: 'text', required: true },
        k: { type: 'integer', default: 3 },
        lang: { type: 'string', enum: ['de', 'en'] },
      },
    });
    expect((await run([], { definition })).documents).toHaveLength(3);
    const wrong = run([], { definition, inputs: { query: 7, k: 1.5, lang: 'fr' } });
    expect(await faultOf(wrong)).toEqual([
      'inputs.query: input_wrong_type',
      'inputs.k: input_wrong_type',
      'inputs.lang: input_wrong_type',
    ]);
  });

  it.each([
    ['an empty query', { query: '  ' }, 'query_empty'],
    ['a query that is too long', { query: 'ä'.repeat(16 * 1024 + 1) }, 'query_too_long'],
    ['a text without vector', { query: 'mute' }, 'query_without_vector'],
  ])('%s is refused', async (_name, inputs, type) => {
    expect(await faultOf(run([search()], { inputs }))).toEqual([
      `stages.0.config.parameters.searches.0.query: ${type}`,
    ]);
  });

  it('take a query of exactly 32 kB', async () => {
    expect((await run([search()], { inputs: { query: 'ä'.repeat(16 * 1024) } })).documents).not.toEqual([]);
  });

  it('a vector of the wrong length is refused with both lengths', async () => {
    const vector = search({}, { query: { vector: '{{INPUT.v}}' } });
    const error = await run([vector], { inputs: { v: [1, 2, 3] } }).catch((reason: unknown) => reason);
    expect((error as AppError).fields[0]).toMatchObject({ type: 'query_wrong_dimension' });
    expect((error as AppError).detail).toMatch(/3 numbers.* has 2/);
    expect(await faultOf(run([vector], { inputs: { v: 'text' } }))).toEqual([
      'stages.0.config.parameters.searches.0.query: query_wrong_type',
    ]);
  });

  it('an unknown variable inside an object is refused with its place', async () => {
    const stages = [search({ filters: leaf('a', '{{INPUT.user.id}}') })];
    expect(await faultOf(run(stages, { inputs: { query: 'q', user: {} } }))).toEqual([
      'stages.0.config.parameters.filters.value: template_unknown_variable',
    ]);
  });

  it('an input that no stage uses is a warning', async () => {
    const { warnings } = await run([search()], { inputs: { query: 'q', qeury: 'x' } });
    expect(warnings).toEqual(['No stage uses the input "qeury".']);
  });

  it('text that looks like a template is a query like any other', async () => {
    const context = setUp();
    await run([search()], { inputs: { query: '{{SECRET.key}}' }, secrets: { key: 'hunter2' } }, context);
    expect(context.port.calls.embed[0]?.texts).toEqual(['{{SECRET.key}}']);
  });

  it('templates in the filters of a request are taken literally, with a warning', async () => {
    const result = await run([search()], {
      filters: leaf('lang', '{{INPUT.query}}'),
      inputs: { query: 'de' },
    });
    expect(result.documents).toEqual([]);
    expect(result.warnings[0]).toContain('literally');
    expect(await faultOf(run([search()], { filters: { OR: [] } }))).toEqual([
      'filters.OR: condition_empty_or',
    ]);
  });
});

describe('stages on documents', () => {
  it('attribute_filter after a search keeps order and scores', async () => {
    const result = await run([search({ final_top_k: 4 }), stage('attribute_filter', leaf('lang', 'en'))]);
    expect(ids(result)).toEqual(['d3', 'd5']);
    expect(result.stage_statistics.stages.attribute_filter).toMatchObject({
      input_count: 4,
      output_count: 2,
      efficiency: 0.5,
    });
  });

  it("attribute_filter compares with each document's own fields through DOC", async () => {
    const stages = [search(), stage('attribute_filter', leaf('lang', '{{DOC.metadata.lang}}'))];
    expect((await run(stages)).documents).toHaveLength(8);
    const never = [search(), stage('attribute_filter', leaf('lang', '{{DOC.same}}'))];
    expect((await run(never)).documents).toEqual([]);
  });

  it('a list without a search holds to the filter of the request too', async () => {
    const result = await run([stage('attribute_filter', leaf('lang', 'de'))], {
      inputs: {},
      filters: leaf('document_id', 'd4', 'gt'),
    });
    expect(ids(result)).toEqual(['d6']);
    expect(result.pagination.total).toBe(1);
  });

  it('attribute_filter first lists documents by id, with an exact total, through the index', async () => {
    const context = setUp();
    const pagination = { method: 'offset', page_size: 2, page_number: 2 } as const;
    const result = await run(
      [stage('attribute_filter', leaf('lang', 'de'))],
      { pagination, inputs: {} },
      context,
    );
    expect(ids(result)).toEqual(['d4', 'd6']);
    expect(result.pagination).toMatchObject({
      total: 4,
      page: 2,
      total_pages: 2,
      has_more: false,
      previous_page: '1',
    });
    expect(context.port.calls.list).toMatchObject([{ offset: 2, limit: 2, sort: [] }]);
    expect(result.stage_statistics.stages.attribute_filter?.output_count).toBe(4);
  });

  it('filter, sort and limit before any search go to the index together', async () => {
    const context = setUp();
    const stages = [
      stage('attribute_filter', leaf('lang', 'en')),
      stage('sort', { field: 'year', direction: 'desc' }),
      stage('limit', { limit: 2, offset: 1 }),
    ];
    const result = await run(stages, { inputs: {} }, context);
    // Years: d1 2003, d3 2002, d5 2001; d7 has none and comes last.
    expect(ids(result)).toEqual(['d3', 'd5']);
    expect(context.port.calls.list).toMatchObject([
      { offset: 1, limit: 2, sort: [{ field: 'year', direction: 'desc', missing: 'last' }] },
    ]);
  });

  it('sort orders by fields or score, missing values last in both directions unless told otherwise', async () => {
    const sorted = async (parameters: unknown, stage_id = 'sort') =>
      ids(await run([search(), stage(stage_id, parameters)]));
    expect((await sorted({ field: 'year' })).at(-1)).toBe('d7');
    expect((await sorted({ field: 'metadata.year', direction: 'desc' })).at(-1)).toBe('d7');
    expect((await sorted({ field: 'year', nulls_last: false }))[0]).toBe('d7');
    expect(await sorted({ field: 'score', direction: 'asc' })).toEqual([
      'd0',
      'd7',
      'd1',
      'd6',
      'd2',
      'd5',
      'd3',
      'd4',
    ]);
    expect(await sorted({}, 'sort_relevance')).toEqual(['d4', 'd3', 'd5', 'd2', 'd6', 'd1', 'd7', 'd0']);
    expect(await sorted({ field: 'same' })).toEqual(['d0', 'd1', 'd2', 'd3', 'd4', 'd5', 'd6', 'd7']);
    expect(await sorted({ sorts: [{ field: 'lang', direction: 'desc' }, { field: 'year' }] })).toEqual(
      ['d5', 'd3', 'd1', 'd7', 'd0', 'd6', 'd2', 'd4'].toSorted((a, b) =>
        orderKey(a).localeCompare(orderKey(b)),
      ),
    );
  });

  it('limit cuts what is there', async () => {
    expect(ids(await run([search(), stage('limit', { limit: 2, offset: 3 })]))).toEqual(['d2', 'd6']);
    expect(ids(await run([search(), stage('limit', { limit: 2, offset: 30 })]))).toEqual([]);
  });

  it('later stages see earlier ones through STAGE', async () => {
    const stages = [
      search({ final_top_k: 3 }),
      stage('limit', { limit: 1, offset: '{{STAGE.feature_search.output_count}}' }),
    ];
    expect(ids(await run(stages))).toEqual([]);
  });
});

/** Sorts English before German documents, years upwards, none last: the expectation written in another way. */
function orderKey(id: string): string {
  const { fields } = documents.find(({ document_id }) => document_id === id)!;
  return `${fields?.lang === 'en' ? 0 : 1} ${String(fields?.year ?? 9999)} ${id}`;
}

describe('pages', () => {
  const stages = [search()];
  const all = ['d4', 'd3', 'd5', 'd2', 'd6', 'd1', 'd7', 'd0'];
  const tokens = {
    seal: async (position: number) => `at-${position}`,
    open: async (token: string) => Number(token.slice(3)),
  };

  it('by offset cover the result without gaps or repeats', async () => {
    const seen: string[] = [];
    for (let page_number = 1; ; page_number += 1) {
      const result = await run(stages, { pagination: { method: 'offset', page_size: 3, page_number } });
      seen.push(...ids(result));
      expect(result.pagination).toMatchObject({ total: 8, total_pages: 3, page: page_number });
      if (!result.pagination.has_more) break;
    }
    expect(seen).toEqual(all);
  });

  it('by cursor and by scroll go on where the last one ended', async () => {
    const first = await run(stages, { pagination: { method: 'cursor', limit: 5 }, tokens });
    expect(first.pagination.next_cursor).toBe('at-5');
    const second = await run(stages, { pagination: { method: 'cursor', limit: 5, cursor: 'at-5' }, tokens });
    expect([...ids(first), ...ids(second)]).toEqual(all);
    expect(second.pagination.next_cursor).toBeNull();
    const scrolled = await run(stages, { pagination: { method: 'scroll', limit: 5 }, tokens });
    expect(scrolled.pagination.scroll_id).toBe('at-5');
  });

  it('by keyset go on behind the last document, also when it is gone', async () => {
    const first = await run(stages, { pagination: { method: 'keyset', limit: 3 } });
    const after = first.pagination.after!;
    expect(after).toEqual({ document_id: 'd5', position: 3 });
    const second = await run(stages, { pagination: { method: 'keyset', limit: 10, after } });
    expect(ids(second)).toEqual(all.slice(3));
    expect(second.pagination.after).toBeNull();
    const without = await run(stages, {
      pagination: { method: 'keyset', limit: 10, after },
      exclude_ids: ['d5'],
    });
    expect(ids(without)).toEqual(all.slice(3));
  });

  it('leave out documents deleted during the run, with a warning', async () => {
    const context = setUp();
    context.port.remove('d3');
    const result = await run(stages, {}, context);
    expect(ids(result)).toEqual(all.filter((id) => id !== 'd3'));
    expect(result.warnings[0]).toContain('deleted');
  });
});

describe('a run', () => {
  it("tells the stages' counts, times and events", async () => {
    const context = setUp();
    const slow: SearchPort = {
      ...context.port,
      async search(request) {
        context.clock.advance(40);
        return context.port.search(request);
      },
    };
    const events: StageEvent[] = [];
    const result = await run(
      [stage('attribute_filter', leaf('lang', 'de')), search()],
      { onEvent: (event) => events.push(event) },
      { port: slow, clock: context.clock },
    );
    expect(result.stage_statistics.total_time_ms).toBe(40);
    expect(result.stage_statistics.stages).toMatchObject({
      attribute_filter: { input_count: 0, output_count: 4, duration_ms: 0, cache_hit: false, error: null },
      feature_search: { input_count: null, output_count: 4, duration_ms: 40 },
    });
    expect(events.map(({ event_type, stage_name }) => `${event_type} ${stage_name}`)).toEqual([
      'stage_start attribute_filter',
      'stage_complete attribute_filter',
      'stage_start feature_search',
      'stage_complete feature_search',
    ]);
  });

  it('ends with a timeout when its deadline passes', async () => {
    const context = setUp();
    const slow: SearchPort = {
      ...context.port,
      async embed(...call) {
        context.clock.advance(25_001);
        return context.port.embed(...call);
      },
    };
    await expect(run([search()], {}, { port: slow, clock: context.clock })).rejects.toMatchObject({
      code: 'retriever_timeout',
    });
    expect(context.port.calls.search).toEqual([]);
  });

  it("throws what the index throws, and reports the stage's error as an event", async () => {
    const context = setUp();
    const broken: SearchPort = {
      ...context.port,
      search: () => Promise.reject(new AppError('index_unavailable')),
    };
    const events: StageEvent[] = [];
    const promise = run(
      [search()],
      { onEvent: (event) => events.push(event) },
      { port: broken, clock: context.clock },
    );
    await expect(promise).rejects.toMatchObject({ code: 'index_unavailable' });
    expect(events.at(-1)).toMatchObject({ event_type: 'stage_error', stage_name: 'feature_search' });
  });

  it('is degraded, not complete, when the port left something out', async () => {
    const context = setUp();
    const partial: SearchPort = {
      ...context.port,
      async search(request) {
        expect(request.allow_partial).toBe(true);
        return {
          ...(await context.port.search(request)),
          degraded: [{ resource: 'seg_1', reason: 'unreadable' }],
        };
      },
    };
    const result = await run([search()], { allow_partial: true }, { port: partial, clock: context.clock });
    expect(result.status).toBe('degraded');
    expect(result.degraded).toEqual([{ resource: 'seg_1', reason: 'unreadable' }]);
  });

  it('gives equal answers to equal questions', async () => {
    const stages = [search({ fusion: 'max' }), stage('sort', { field: 'same' })];
    expect(await run(stages)).toEqual(await run(stages));
  });

  it('fetches vectors for the page only when they are asked for', async () => {
    const context = setUp();
    const asked: unknown[] = [];
    const watching: SearchPort = {
      ...context.port,
      documents(refs, options) {
        asked.push([refs.length, options]);
        return context.port.documents(refs, options);
      },
    };
    const pagination = { method: 'offset', page_size: 2, page_number: 1 } as const;
    const stages = [search(), stage('attribute_filter', leaf('same', 'x'))];
    await run(stages, { return_vectors: true, pagination }, { port: watching, clock: context.clock });
    expect(asked).toEqual([
      [8, { return_vectors: false, return_presigned_urls: false }],
      [2, { return_vectors: true, return_presigned_urls: false }],
    ]);
  });
});

describe('facets', () => {
  const facets = [{ key: 'lang', limit: 1 }, { key: 'metadata.year' }];
  const german = { values: [{ value: 'de', count: 4 }], missing_count: 0, total_values: 2 };

  it('count everything that a search lets through, not only what it found', async () => {
    const result = await run([search({ final_top_k: 2, facets: [facets[0]] })]);
    expect(result.documents).toHaveLength(2);
    expect(result.facets).toEqual([{ key: 'lang', ...german, stage_name: 'feature_search', exact: true }]);
  });

  it('count under the filters of the request, of the stage before, of the stage and of the search together', async () => {
    const result = await run(
      [
        stage('attribute_filter', leaf('same', 'x')),
        search(
          { filters: leaf('year', 2002, 'gte'), facets: [{ key: 'lang' }] },
          { filters: leaf('lang', 'en') },
        ),
      ],
      { filters: leaf('year', 2005, 'lte') },
    );
    // Odd documents have the years 2003, 2002, 2001 and none.
    expect(result.facets[0]).toMatchObject({ values: [{ value: 'en', count: 2 }], total_values: 1 });
  });

  it('count a document once where several searches with other filters select it', async () => {
    const searches = ['de', 'en', 'de'].map((value) => ({
      feature_uri: uri,
      query: 'q',
      filters: leaf('lang', value, value === 'en' ? 'ne' : 'eq'),
    }));
    const result = await run([stage('feature_search', { searches, facets: [{ key: 'lang' }] })]);
    expect(result.facets[0]).toMatchObject({ values: [{ value: 'de', count: 4 }] });
  });

  it('of a filter count what it keeps, before a search as after one', async () => {
    const filter = (asked: unknown) => stage('attribute_filter', { ...leaf('lang', 'de'), facets: asked });
    const before = await run([filter([{ key: 'lang' }]), search({ final_top_k: 1 })]);
    expect(before.facets).toMatchObject([{ key: 'lang', values: [{ value: 'de', count: 4 }] }]);
    const after = await run([search({ final_top_k: 3 }), filter([{ key: 'lang' }])]);
    expect(after.facets).toMatchObject([{ values: [{ value: 'de', count: after.documents.length }] }]);
  });

  it('are cut, with a warning, where values are too long for one answer', async () => {
    const long = Array.from({ length: 9 }, (_, i) => ({
      document_id: `l${i}`,
      fields: { text: `${i}`.repeat(60_000) },
      vectors: { [uri]: [1, 0] },
    }));
    const port = memoryPort(features, long);
    const result = await run(
      [search({ facets: [{ key: 'text', limit: 9 }] })],
      {},
      { port, clock: virtualClock() },
    );
    expect(result.facets[0]).toMatchObject({ total_values: 9 });
    expect(result.facets[0]!.values).toHaveLength(6);
    expect(result.warnings.join()).toMatch(/"text" shows 6 of 9 values/);
  });

  it('are refused with a template, a wrong limit, a field twice or one that nobody may read', () => {
    const wrong = [
      { key: '{{INPUT.field}}' },
      { key: 'a', limit: 0 },
      { key: 'a', limit: 1001 },
      { key: '_internal.created_at' },
      { key: 'metadata.a', exact: false },
      { key: 'b', size: 3 },
    ];
    const { faults } = readDefinition({ stages: [search({ facets: wrong })] });
    expect(faults.map(({ path }) => path.slice(4).join('.'))).toEqual([
      'facets.0.key',
      'facets.1.limit',
      'facets.2.limit',
      'facets.3.key',
      'facets.5.size',
    ]);
    const twice = readDefinition({ stages: [search({ facets: [{ key: 'a' }, { key: 'payload.a' }] })] });
    expect(twice.faults.map(({ message }) => message)).toEqual(['the field "a" is counted already']);
    const { definition } = readDefinition({
      stages: [search({ facets: [{ key: 'a', limit: null, exact: false }] })],
    });
    expect(definition?.stages[0]?.config.parameters).toMatchObject({ facets: [{ key: 'a', limit: 10 }] });
  });
});
