// Retrievers over HTTP: definitions and their faults, runs over what batches made, and what runs answer when parts fail.
import { describe, expect, it } from 'vitest';
import { BlobMissing } from '../../../functions/core/store/blobs.ts';
import type { Reply } from '../app.ts';
import { expectError, faults } from '../expect.ts';
import type { Library } from './library.ts';
import { featureUri, idsOf, makeLibrary, searchStages } from './library.ts';

async function withSearch(library: Library, body: Record<string, unknown> = {}): Promise<string> {
  const reply = await library.post('retrievers', { name: 'text_search', stages: searchStages(), ...body });
  expect(reply.status, JSON.stringify(reply.body)).toBe(200);
  return reply.body.retriever_id;
}

const articles = [
  { text: 'quantum quantum quantum', metadata: { lang: 'en' } },
  { text: 'quantum quantum cook', metadata: { lang: 'de' } },
  { text: 'cook', metadata: { lang: 'en' } },
  { text: 'ball', metadata: { lang: 'en' } },
];

describe('definitions', () => {
  it('answers with both spellings of names, whichever was sent', async () => {
    const library = await makeLibrary();
    const tutorial = await library.post('retrievers', { name: 'one', stages: searchStages() });
    const client = await library.post('retrievers', {
      retriever_name: 'two',
      collection_identifiers: ['articles'],
      stages: searchStages(),
      input_schema: { query: { type: 'text', required: true } },
    });
    expect(tutorial.body).toMatchObject({
      retriever_name: 'one',
      name: 'one',
      collection_ids: [],
      collection_identifiers: [],
      version: 1,
    });
    expect(tutorial.body.input_schema).toEqual({ query: { type: 'string', required: true } });
    expect(client.body).toMatchObject({
      retriever_name: 'two',
      collection_ids: [library.collectionId],
      collection_identifiers: [library.collectionId],
    });
    expect(client.body.feature_uris).toEqual([featureUri]);
    expect(client.body.feature_dependencies).toEqual([
      { scheme: 'mixpeek', extractor: 'embedder', version: '1.0.0', output: 'embedder_embedding' },
    ]);
    expect(tutorial.body.stages[0].config.parameters.searches[0].query).toEqual({
      input_mode: 'text',
      text: '{{INPUT.query}}',
    });
  });

  it('is read, listed, changed and deleted by id and by name, in both path forms', async () => {
    const library = await makeLibrary();
    const id = await withSearch(library);
    const byName = await library.call('GET', '/v1/retrievers/text_search', undefined, {
      'X-Namespace': library.namespace,
    });
    expect(byName.body.retriever_id).toBe(id);
    expect((await library.call('GET', '/v1/namespaces/{ns}/retrievers')).body.results).toHaveLength(1);
    expect((await library.post('retrievers/list', { search: 'text_*' })).body.total_count).toBe(1);
    const changed = await library.call('PATCH', `/v1/namespaces/{ns}/retrievers/${id}`, {
      description: 'by words',
    });
    expect(changed.body).toMatchObject({ description: 'by words', version: 2, stages: byName.body.stages });
    const replaced = await library.call('PUT', '/v1/namespaces/{ns}/retrievers/text_search', {
      stages: searchStages({ top_k: 3 }),
      name: 'renamed',
    });
    expect(replaced.body).toMatchObject({ name: 'renamed', version: 3, description: 'by words' });
    expectError(
      await library.call(
        'PATCH',
        `/v1/namespaces/{ns}/retrievers/${id}`,
        { name: 'x' },
        { 'If-Match': '"1"' },
      ),
      'request_stale',
    );
    expect((await library.call('DELETE', '/v1/namespaces/{ns}/retrievers/renamed')).body.success).toBe(true);
    expectError(await library.call('GET', `/v1/namespaces/{ns}/retrievers/${id}`), 'retriever_not_found');
  });

  it('names every fault of a definition at once, and the features that do exist', async () => {
    const library = await makeLibrary();
    const stages = [
      ...searchStages({}, 'mixpeek://embedder@2.0.0/embedder_embedding'),
      {
        stage_name: 'other',
        config: {
          stage_id: 'feature_search',
          parameters: {
            searches: [{ feature_uri: featureUri, query: 'x', collection_identifiers: ['nowhere'] }],
          },
        },
      },
    ];
    const reply = await library.post('retrievers', { name: 'bad', stages, collection_ids: ['missing'] });
    expectError(reply, 'retriever_invalid');
    expect(faults(reply)).toEqual([
      'body.collection_ids.0: collection_unknown',
      'body.stages.0.config.parameters.searches.0.feature_uri: feature_unknown',
      'body.stages.1.config.parameters.searches.0.collection_identifiers.0: collection_unknown',
    ]);
    expect(reply.body.error.details.validation_errors[1].fix).toContain(featureUri);
    const shape = await library.post('retrievers', {
      name: 'bad',
      stages: [{ stage_name: 'x', config: { stage_id: 'magic' } }],
    });
    expectError(shape, 'retriever_invalid');
    expect(faults(shape)).toEqual(['body.stages.0.config.stage_id: stage_unknown']);
    expect(shape.body.error.message).toContain('there is no stage "magic"');
  });

  it('asks for what is missing in each stage by its name, and once', async () => {
    const library = await makeLibrary();
    const limit = { config: { stage_id: 'limit', parameters: { limit: 3 } } };
    const search = { stage_name: 's', config: { stage_id: 'feature_search', parameters: { search: [] } } };
    const reply = await library.post('retrievers', { name: 'bad', stages: [search, limit, limit] });
    expectError(reply, 'retriever_invalid');
    expect(faults(reply)).toEqual([
      'body.stages.0.config.parameters.searches: missing',
      'body.stages.0.config.parameters.search: extra_forbidden',
      'body.stages.1.stage_name: missing',
      'body.stages.2.stage_name: missing',
    ]);
    const [searches, , name] = reply.body.error.details.validation_errors;
    expect(searches.message).toBe('required, a list is expected');
    expect(name.message).toBe('expected a name of 1 to 100 characters, got nothing');
    expect(name.fix).toContain('"stage_name"');
  });

  it('refuses a search that could never find anything, because its collections do not hold the feature', async () => {
    const library = await makeLibrary();
    await library.addPlugin('other_embed');
    const reply = await library.post('retrievers', {
      name: 'never',
      collection_ids: ['articles'],
      stages: searchStages({}, 'mixpeek://other_embed@1.0.0/other_embed_embedding'),
    });
    expectError(reply, 'retriever_invalid');
    expect(faults(reply)).toEqual([
      'body.stages.0.config.parameters.searches.0.feature_uri: feature_not_held',
    ]);
  });

  it('keeps its collections and plugins from being deleted, and frees them when it is deleted', async () => {
    const library = await makeLibrary();
    await withSearch(library, { collection_ids: ['articles'] });
    const refused = await library.call('DELETE', '/v1/namespaces/{ns}/collections/articles');
    expectError(refused, 'collection_in_use');
    expect(refused.body.error.details.dependants).toEqual([
      expect.objectContaining({ type: 'retriever', name: 'text_search' }),
    ]);
    expectError(await library.call('DELETE', '/v1/namespaces/{ns}/plugins/embedder_1_0_0'), 'plugin_in_use');
    await library.call('DELETE', '/v1/namespaces/{ns}/retrievers/text_search');
    expect((await library.call('DELETE', '/v1/namespaces/{ns}/collections/articles')).status).toBe(200);
  });

  it('lists the stages with the schemas of their parameters', async () => {
    const library = await makeLibrary();
    const reply = await library.call('GET', '/v1/namespaces/{ns}/retrievers/stages');
    expect(reply.body.map((stage: { stage_id: string }) => stage.stage_id)).toContain('feature_search');
    expect(reply.body[0].parameter_schema).toMatchObject({ type: 'object' });
  });
});

describe('runs', () => {
  it('finds the nearest documents, best first, and shows them as their GET does', async () => {
    const library = await makeLibrary();
    const [first, second, third] = await library.publish(articles);
    const id = await withSearch(library);
    const reply = await library.post(`retrievers/${id}/execute`, { input: { query: 'quantum' } });
    expect(reply.status, JSON.stringify(reply.body)).toBe(200);
    expect(idsOf(reply).slice(0, 2)).toEqual([first, second]);
    expect(reply.body.documents).toEqual(reply.body.results);
    expect(reply.body).toMatchObject({
      retriever_id: id,
      status: 'completed',
      error: null,
      facets: [],
      warnings: [],
    });
    expect(reply.body.execution_id).toMatch(/^exec_/);
    expect(reply.body.pagination).toMatchObject({ method: 'offset', total: 4, page_size: 10 });
    expect(reply.body.stage_statistics.stages.vector_search).toMatchObject({
      output_count: 4,
      cache_hit: false,
      error: null,
    });
    const [hit] = reply.body.results;
    expect(hit.score).toBeCloseTo(1, 6);
    const { score, ...document } = hit;
    expect(document).toEqual(
      (await library.call('GET', `/v1/namespaces/{ns}/collections/articles/documents/${first}`)).body,
    );
    expect(hit._internal.lineage.bucket_id).toBe(library.bucketId);
    const filtered = await library.post(`retrievers/${id}/execute`, {
      inputs: { query: 'cook' },
      filters: { field: 'metadata.lang', operator: 'eq', value: 'en' },
      limit: 1,
    });
    expect(idsOf(filtered)).toEqual([third]);
  });

  it('says what is the right form when the input is wrapped in "query"', async () => {
    const library = await makeLibrary();
    const id = await withSearch(library);
    const reply = await library.post(`retrievers/${id}/execute`, { query: { input: { query: 'quantum' } } });
    expectError(reply, 'retriever_input_invalid');
    expect(reply.body.error.details.validation_errors[0].fix).toContain('{"input": {"query"');
    expectError(await library.post(`retrievers/${id}/execute`), 'retriever_input_invalid');
  });

  it('answers with nothing and a warning while no collection holds the feature, and finds one that is made later', async () => {
    const library = await makeLibrary();
    await library.addPlugin('late_embed');
    const uri = 'mixpeek://late_embed@1.0.0/late_embed_embedding';
    const made = await library.post('retrievers', { name: 'late', stages: searchStages({}, uri) });
    expect(made.body.warnings[0]).toContain(uri);
    const empty = await library.post('retrievers/late/execute', { inputs: { query: 'quantum' } });
    expect(empty.status).toBe(200);
    expect(empty.body).toMatchObject({ status: 'completed', results: [] });
    expect(empty.body.warnings[0]).toContain(uri);
    expect(library.embedded()).toEqual([]);
    await library.addCollection('late', ['late_embed']);
    await library.publish([{ text: 'quantum' }]);
    const found = await library.post('retrievers/late/execute', { inputs: { query: 'quantum' } });
    expect(found.body.results).toHaveLength(1);
    expect(found.body.warnings).toEqual([]);
  });

  it('searches several collections as if they were one', async () => {
    const library = await makeLibrary();
    await library.addCollection('copies');
    await library.publish(articles);
    const id = await withSearch(library);
    const reply = await library.post(`retrievers/${id}/execute`, { inputs: { query: 'quantum cook' } });
    const hits = reply.body.results as { score: number; document_id: string; collection_id: string }[];
    expect(hits).toHaveLength(8);
    expect(new Set(hits.map((hit) => hit.collection_id)).size).toBe(2);
    const sorted = [...hits].sort((a, b) => b.score - a.score || (a.document_id < b.document_id ? -1 : 1));
    expect(hits.map((hit) => hit.document_id)).toEqual(sorted.map((hit) => hit.document_id));
    const narrowed = await library.post('retrievers/execute', {
      stages: searchStages(),
      collection_identifiers: ['copies'],
      inputs: { query: 'quantum cook' },
    });
    expect(narrowed.body.retriever_id).toBeNull();
    expect(narrowed.body.results).toHaveLength(4);
  });

  it('lists, filters and sorts without a search', async () => {
    const library = await makeLibrary();
    await library.addCollection('copies');
    await library.publish(articles);
    const stages = [
      {
        stage_name: 'keep',
        config: {
          stage_id: 'attribute_filter',
          parameters: { field: 'lang', operator: 'eq', value: '{{INPUT.lang}}' },
        },
      },
      { stage_name: 'order', config: { stage_id: 'sort', parameters: { field: 'text', direction: 'desc' } } },
    ];
    const reply = await library.post('retrievers/execute', { stages, inputs: { lang: 'en' } });
    expect(reply.status, JSON.stringify(reply.body)).toBe(200);
    expect(reply.body.results.map((hit: { text: string }) => hit.text)).toEqual([
      'quantum quantum quantum',
      'quantum quantum quantum',
      'cook',
      'cook',
      'ball',
      'ball',
    ]);
    expect(reply.body.pagination.total).toBe(6);
  });

  it('pages by cursor through one order, and refuses a cursor of other inputs', async () => {
    const library = await makeLibrary();
    await library.publish(articles);
    const id = await withSearch(library);
    const page = (cursor?: string, query = 'quantum') =>
      library.post(`retrievers/${id}/execute`, {
        inputs: { query },
        pagination: { method: 'cursor', limit: 3, ...(cursor ? { cursor } : {}) },
      });
    const one = await page();
    const two = await page(one.body.pagination.next_cursor);
    expect(new Set([...idsOf(one), ...idsOf(two)]).size).toBe(4);
    expect(two.body.pagination.next_cursor).toBeNull();
    expectError(await page(one.body.pagination.next_cursor, 'cook'), 'request_bad_cursor');
  });

  it('embeds a query once, however often it is asked', async () => {
    const library = await makeLibrary();
    await library.publish(articles);
    const id = await withSearch(library);
    for (let i = 0; i < 3; i++)
      await library.post(`retrievers/${id}/execute`, { inputs: { query: 'quantum' } });
    await library.post(`retrievers/${id}/execute`, { inputs: { query: 'cook' } });
    expect(library.embedded()).toEqual([['quantum'], ['cook']]);
  });

  it('embeds by realtime.py where the plugin is deployed for it', async () => {
    const library = await makeLibrary();
    await library.publish(articles);
    const key = library.ctx.ns.resource('PLUGIN', 'embedder_1_0_0');
    await library.ports.table.write([{ update: key, set: { deployment: 'deployed' } }]);
    const id = await withSearch(library);
    await library.post(`retrievers/${id}/execute`, { inputs: { query: 'quantum' } });
    const call = library.runner.calls.at(-1) as unknown as { realtime: boolean; features: unknown };
    expect(call.realtime).toBe(true);
    expect(call.features).toEqual([{ name: 'embedder_embedding', dims: 4 }]);
  });

  it('adds vectors where they are asked for', async () => {
    const library = await makeLibrary();
    await library.publish(articles);
    const id = await withSearch(library);
    const reply = await library.post(`retrievers/${id}/execute?return_vectors=true`, {
      inputs: { query: 'quantum' },
      limit: 1,
    });
    expect(reply.body.results[0].vectors).toEqual({ [featureUri]: [3, 0, 0, 0] });
  });

  it('explains what it would do, by itself and beside an answer', async () => {
    const library = await makeLibrary();
    await library.publish(articles);
    const id = await withSearch(library);
    const plan = await library.post(`retrievers/${id}/execute/explain`, { inputs: { query: 'x' } });
    expect(plan.body).toMatchObject({
      retriever_id: id,
      total_estimated_stages: 1,
      collection_ids: [library.collectionId],
    });
    expect(plan.body.execution_plan[0]).toMatchObject({
      stage_name: 'vector_search',
      estimated_input: 4,
      estimated_output: 4,
    });
    const run = await library.post(`retrievers/${id}/execute`, {
      inputs: { query: 'quantum' },
      explain: true,
    });
    expect(run.body.explain_plan.execution_plan).toEqual(plan.body.execution_plan);
  });

  it('runs a batch of queries, of which one may fail by itself', async () => {
    const library = await makeLibrary();
    const [first] = await library.publish(articles);
    const id = await withSearch(library);
    const reply = await library.post(`retrievers/${id}/execute/batch`, {
      queries: [{ inputs: { query: 'quantum' } }, { inputs: {} }, { inputs: { query: 'ball' } }],
      settings: { limit: 1 },
    });
    expect(reply.status, JSON.stringify(reply.body)).toBe(200);
    expect(reply.body).toMatchObject({ total_queries: 3, failed_queries: 1 });
    expect(reply.body.results[0].results[0].document_id).toBe(first);
    expect(reply.body.results[1]).toMatchObject({
      query_index: 1,
      status: 'failed',
      error_details: { code: 'retriever_input_invalid' },
    });
    expect(reply.body.results[2].results).toHaveLength(1);
    expectError(await library.post(`retrievers/${id}/execute/batch`, { queries: [] }), 'request_invalid');
  });

  it('refuses to stream instead of answering in another form than was asked for', async () => {
    const library = await makeLibrary();
    const id = await withSearch(library);
    expect(
      faults(await library.post(`retrievers/${id}/execute`, { inputs: { query: 'x' }, stream: true })),
    ).toEqual(['body.stream: not_supported']);
  });
});

describe('runs over an earlier version of an index', () => {
  const versionsIn = (reply: Reply): Record<string, number> =>
    reply.body.stage_statistics.stages.vector_search.metadata.searches[0].versions;

  it('find what was found then, by vectors and columns of then, and tell which version they read', async () => {
    const library = await makeLibrary();
    const [first, second, third] = await library.publish(articles.slice(0, 3));
    const id = await withSearch(library);
    const inputs = { query: 'quantum' };
    const run = (more: object = {}) => library.post(`retrievers/${id}/execute`, { inputs, ...more });
    const before = await run();
    const versions = versionsIn(before);
    expect(versions).toEqual({ [library.collectionId]: expect.any(Number) });
    expect(idsOf(before)).toEqual([first, second, third]);

    await library.publish([{ text: 'quantum' }]);
    const document = `/v1/namespaces/{ns}/collections/articles/documents/${first}`;
    expect((await library.call('PATCH', document, { topic: 'physics' })).status).toBe(200);
    const now = await run();
    expect(idsOf(now)).toHaveLength(4);
    expect(versionsIn(now)[library.collectionId]).toBeGreaterThan(versions[library.collectionId]!);

    const then = await run({ index_versions: versions });
    expect(then.status, JSON.stringify(then.body)).toBe(200);
    expect(idsOf(then)).toEqual(idsOf(before));
    expect(versionsIn(then)).toEqual(versions);
    const filters = { field: 'topic', operator: 'eq', value: 'physics' };
    expect(idsOf(await run({ filters }))).toEqual([first]);
    expect(idsOf(await run({ filters, index_versions: versions }))).toEqual([]);

    const batch = await library.post(`retrievers/${id}/execute/batch`, {
      queries: [{ inputs }, { inputs, index_versions: versions }],
    });
    expect(batch.body.results.map((one: { documents: unknown[] }) => one.documents.length)).toEqual([4, 3]);
  });

  it('are 410 for a version that cannot be read any more, which says those that can', async () => {
    const library = await makeLibrary();
    await library.publish(articles.slice(0, 2));
    const id = await withSearch(library);
    const run = (index_versions: unknown) =>
      library.post(`retrievers/${id}/execute`, { inputs: { query: 'quantum' }, index_versions });
    const versions = versionsIn(await run({}));
    await library.publish([{ text: 'quantum' }]);
    library.ports.clock.advance(46 * 3_600_000);
    expect((await run(versions)).status).toBe(200);
    library.ports.clock.advance(2 * 3_600_000);
    const gone = await run(versions);
    expectError(gone, 'index_version_gone');
    expect(gone.status).toBe(410);
    const current = versions[library.collectionId]! + 1;
    expect(gone.body.error.message).toContain(`only its current version, ${current}, can be read`);
    expectError(await run({ [library.collectionId]: 99 }), 'index_version_gone');
  });

  it('are 422 for another collection, and for what is no version', async () => {
    const library = await makeLibrary();
    const id = await withSearch(library);
    const run = (index_versions: unknown) =>
      library.post(`retrievers/${id}/execute`, { inputs: { query: 'quantum' }, index_versions });
    const wrong = [
      { col_other: 1 },
      { [library.collectionId]: 0 },
      { [library.collectionId]: '1' },
      [1],
      'x',
    ];
    for (const versions of wrong) expectError(await run(versions), 'retriever_input_invalid');
  });
});

describe('reads of a warm run', () => {
  it('waits for the table three times at most: namespace, everything that names what to read, documents', async () => {
    const library = await makeLibrary();
    await library.publish(articles);
    const id = await withSearch(library);
    const run = () => library.post(`retrievers/${id}/execute`, { inputs: { query: 'quantum' } });
    await run();
    // Each read answers only when the event loop has nothing else to do, so reads that are begun together count once.
    const { table } = library.ports;
    let rounds = 0;
    let pending = false;
    const delayed =
      <A extends unknown[], R>(read: (...args: A) => Promise<R>) =>
      async (...args: A): Promise<R> => {
        if (!pending) {
          pending = true;
          rounds += 1;
          setImmediate(() => {
            pending = false;
          });
        }
        await new Promise((resolve) => setImmediate(resolve));
        return read(...args);
      };
    table.get = delayed(table.get.bind(table));
    table.query = delayed(table.query.bind(table));
    table.getMany = delayed((keys) =>
      Promise.all(keys.map((key) => Object.getPrototypeOf(table).get.call(table, key))),
    );
    const reply = await run();
    expect(reply.body.results).toHaveLength(4);
    expect(rounds).toBeLessThanOrEqual(3);
  });

  it('reads no segment twice', async () => {
    const library = await makeLibrary();
    await library.publish(articles);
    const id = await withSearch(library);
    const { index } = library.ports;
    const read: string[] = [];
    const get = index.get.bind(index);
    const readInto = index.readInto.bind(index);
    index.get = (key, range) => {
      read.push(key);
      return get(key, range);
    };
    index.readInto = (key, offset, target) => {
      read.push(key);
      return readInto(key, offset, target);
    };
    await library.post(`retrievers/${id}/execute`, { inputs: { query: 'quantum' } });
    const cold = read.length;
    await library.post(`retrievers/${id}/execute`, { inputs: { query: 'cook' } });
    expect(new Set(read).size).toBe(read.length);
    expect(read.length).toBe(cold);
  });
});

describe('failures', () => {
  it('is 503 when a segment cannot be read, never fewer hits; degraded only where that is allowed', async () => {
    const library = await makeLibrary();
    await library.publish(articles);
    await library.addCollection('copies');
    await library.publish([{ text: 'quantum' }]);
    const id = await withSearch(library);
    const { index } = library.ports;
    const readInto = index.readInto.bind(index);
    index.readInto = async (key, offset, target) => {
      if (key.includes(`/${library.collectionId}/seg/`)) throw new BlobMissing(key);
      return readInto(key, offset, target);
    };
    const body = { inputs: { query: 'quantum' } };
    expectError(await library.post(`retrievers/${id}/execute`, body), 'index_unavailable');
    const partial = await library.post(`retrievers/${id}/execute`, { ...body, allow_partial: true });
    expect(partial.body).toMatchObject({
      status: 'degraded',
      degraded: [{ resource: library.collectionId, reason: 'index_unavailable' }],
    });
    expect(partial.body.results.length).toBeGreaterThan(0);
    index.readInto = readInto;
    expect((await library.post(`retrievers/${id}/execute`, body)).status).toBe(200);
  });

  it("answers with the plugin's own error when it fails on the query, and forgets that failure", async () => {
    const library = await makeLibrary();
    await library.publish(articles);
    const id = await withSearch(library);
    const good = library.runner.behave;
    const run = () => library.post(`retrievers/${id}/execute`, { inputs: { query: 'quantum' } });
    library.runner.behave = () => ({ fail: 'plugin_row_failed' });
    const failed = await run();
    expectError(failed, 'plugin_failed');
    expect(failed.body.error.details.plugin_error).toBe('plugin_row_failed');
    library.runner.behave = () => ({ fail: 'plugin_timeout', retryable: true });
    expectError(await run(), 'plugin_timeout');
    library.runner.answer = () => ({
      error: { code: 'runner_unavailable', message: 'no process', retryable: true },
    });
    expectError(await run(), 'plugin_unavailable');
    library.runner.answer = () => ({
      error: { code: 'plugin_load_failed', message: 'SyntaxError', retryable: false },
    });
    expectError(await run(), 'plugin_failed');
    library.runner.answer = undefined;
    library.runner.behave = good;
    expect((await run()).status).toBe(200);
  });

  it('is 422 for a text that the plugin makes no vector of', async () => {
    const library = await makeLibrary();
    await library.publish(articles);
    const id = await withSearch(library);
    const reply = await library.post(`retrievers/${id}/execute`, { inputs: { query: 'nothing known' } });
    expect(faults(reply)).toEqual(['body.stages.0.config.parameters.searches.0.query: query_without_vector']);
  });

  it('is 409 when the plugin of the query is not deployed, even for a query that was embedded before', async () => {
    const library = await makeLibrary();
    await library.publish(articles);
    const id = await withSearch(library);
    const run = () => library.post(`retrievers/${id}/execute`, { inputs: { query: 'quantum' } });
    expect((await run()).status).toBe(200);
    const key = library.ctx.ns.resource('PLUGIN', 'embedder_1_0_0');
    await library.ports.table.write([{ update: key, set: { deployment: 'not_deployed' } }]);
    expectError(await run(), 'plugin_not_deployed');
  });

  it('asks for one collection when two embed a text differently', async () => {
    const library = await makeLibrary();
    await library.addCollection('tuned', ['embedder'], {
      feature_extractors: [
        { feature_extractor_name: 'embedder', version: '1.0.0', parameters: { scale: 2 } },
      ],
    });
    await library.publish(articles);
    const id = await withSearch(library);
    const reply = await library.post(`retrievers/${id}/execute`, { inputs: { query: 'quantum' } });
    expect(faults(reply)).toEqual(['body.inputs: query_ambiguous']);
    const one = await library.post('retrievers/execute', {
      stages: searchStages(),
      collection_ids: ['tuned'],
      inputs: { query: 'quantum' },
    });
    expect(one.status).toBe(200);
    expect(library.runner.calls.at(-1)!.parameters).toEqual({ scale: 2 });
  });

  it('shows the retrievers of a namespace to nobody else', async () => {
    const library = await makeLibrary();
    const id = await withSearch(library);
    const stranger = library.as({
      orgId: 'org_stranger',
      keyId: 'k2',
      permissions: ['read', 'write', 'delete', 'admin'],
    });
    const made = await stranger.call('POST', '/v1/namespaces', { namespace_name: 'mine' });
    const headers = { 'X-Namespace': made.body.namespace_id };
    expectError(
      await stranger.call('GET', `/v1/retrievers/${id}`, undefined, headers),
      'retriever_not_found',
    );
    expectError(
      await stranger.call('POST', `/v1/retrievers/${id}/execute`, { inputs: { query: 'x' } }, headers),
      'retriever_not_found',
    );
    expectError(
      await stranger.call('POST', `/v1/namespaces/${library.namespace}/retrievers/${id}/execute`, {
        inputs: { query: 'x' },
      }),
      'namespace_not_found',
    );
  });
});

describe('facets', () => {
  it('stand in the answer, counted over every document that the filters let through', async () => {
    const library = await makeLibrary();
    await library.publish(articles);
    const stages = searchStages({ top_k: 1 });
    Object.assign(stages[0]!.config.parameters, {
      facets: [{ key: 'metadata.lang' }, { key: 'colour', limit: 5 }],
    });
    const id = await withSearch(library, { stages });
    const run = (body: object = {}) =>
      library.post(`retrievers/${id}/execute`, { inputs: { query: 'quantum' }, ...body });
    const all = await run();
    expect(all.body.results).toHaveLength(1);
    expect(all.body.facets).toEqual([
      {
        key: 'metadata.lang',
        stage_name: 'vector_search',
        values: [
          { value: 'en', count: 3 },
          { value: 'de', count: 1 },
        ],
        missing_count: 0,
        total_values: 2,
        exact: true,
      },
      {
        key: 'colour',
        stage_name: 'vector_search',
        values: [],
        missing_count: 4,
        total_values: 0,
        exact: true,
      },
    ]);
    expect(all.body.warnings).toEqual(['No document has the field "colour".']);
    const some = await run({ filters: { field: 'text', operator: 'contains', value: 'quantum' } });
    expect(some.body.facets[0].values).toEqual([
      { value: 'de', count: 1 },
      { value: 'en', count: 1 },
    ]);
    const listed = await library.post('retrievers/execute', {
      stages: [
        {
          stage_name: 'german',
          config: {
            stage_id: 'attribute_filter',
            parameters: { field: 'lang', operator: 'eq', value: 'de', facets: [{ key: 'text' }] },
          },
        },
      ],
    });
    expect(listed.body.facets).toMatchObject([
      { key: 'text', stage_name: 'german', values: [{ value: 'quantum quantum cook', count: 1 }] },
    ]);
  });

  it('that are wrong are faults of the definition', async () => {
    const library = await makeLibrary();
    const stages = searchStages();
    Object.assign(stages[0]!.config.parameters, { facets: [{ key: 'lang', limit: 1001 }] });
    const refused = await library.post('retrievers', { name: 'x', stages });
    expectError(refused, 'retriever_invalid');
    expect(faults(refused)[0]).toContain('body.stages.0.config.parameters.facets.0.limit');
  });
});
