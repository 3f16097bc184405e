// Taxonomies over HTTP and through their workflow: definitions, runs over what is there, batches, and on demand.
import { afterEach, describe, expect, it } from 'vitest';
import { setCrashHook } from '../../../functions/core/crash.ts';
import { admitRun } from '../../../functions/core/resources/taxonomies/workflow.ts';
import { documentsSnapshot } from '../../../functions/core/store/vector-index.ts';
import { expectError, faults } from '../expect.ts';
import { featureUri, searchStages } from '../retrievers/library.ts';
import { materialize, runAll, runJob, step, taxonomyJobs } from './runs.ts';
import {
  articles,
  create,
  documentsPath,
  makeTopics,
  read,
  taxonomy,
  topicsOf,
  tutorialBody,
} from './topics.ts';

afterEach(() => setCrashHook(undefined));

describe('definitions', () => {
  it('makes one configuration of both body forms', async () => {
    const library = await makeTopics();
    const flat = await library.post('taxonomies', { ...tutorialBody, execution_mode: 'on_demand' });
    const nested = await library.post('taxonomies', {
      taxonomy_name: 'nested',
      config: {
        taxonomy_type: 'flat',
        retriever_id: flat.body.retriever_id,
        input_mappings: [{ input_key: 'query', source_type: 'payload', path: 'payload.text' }],
        source_collection: {
          collection_id: library.collectionId,
          enrichment_fields: [
            { field_path: 'payload.topic', target_field: 'auto_topic', merge_mode: 'replace' },
          ],
        },
        threshold: 0.7,
      },
    });
    expect(nested.status, JSON.stringify(nested.body)).toBe(200);
    expect(flat.body.config).toEqual(nested.body.config);
    expect(flat.body.config).toMatchObject({
      input_mappings: [{ input_key: 'query', source_type: 'payload', path: 'payload.text' }],
      source_collection: { collection_id: library.collectionId },
      enrichment_fields: [{ field_path: 'payload.topic', target_field: 'auto_topic', merge_mode: 'replace' }],
      threshold: 0.7,
    });
    expect(flat.body.applications).toEqual([
      { collection_id: library.collectionId, execution_mode: 'on_demand' },
    ]);
    expect(flat.body).toMatchObject({
      taxonomy_name: 'article-topics',
      name: 'article-topics',
      version: 1,
      ready: true,
      last_run: null,
      task_ids: [],
    });
    const mixed = await library.post('taxonomies', {
      ...tutorialBody,
      name: 'other',
      config: { threshold: 0.5 },
    });
    expect(faults(mixed)).toEqual(['body.name: wrong_value', 'body.config.threshold: wrong_value']);
  });

  it('refuses what cannot work, with every reason at once', async () => {
    const library = await makeTopics();
    const refused = async (body: Record<string, unknown>) => {
      const reply = await library.post('taxonomies', { ...tutorialBody, ...body });
      expectError(reply, 'taxonomy_invalid');
      return faults(reply);
    };
    expect(await refused({ retriever_id: 'nobody', collection_id: 'nowhere' })).toEqual([
      'body.retriever_id: retriever_unknown',
      'body.collection_id: collection_unknown',
    ]);
    expect(await refused({ input_mappings: [{ source: 'text', target: 'question' }] })).toEqual([
      'body.input_mappings.0: input_unknown',
      'body.input_mappings: input_missing',
    ]);
    const targets = ['_internal', 'metadata.score', 'a.b', 'topic', 'auto_topic', 'payload.auto_topic'];
    expect(
      await refused({ enrichment_fields: targets.map((target) => ({ source: 'payload.topic', target })) }),
    ).toEqual([
      'body.enrichment_fields.0: field_reserved',
      'body.enrichment_fields.1: field_reserved',
      'body.enrichment_fields.2: field_invalid',
      'body.enrichment_fields.3: field_loop',
      'body.enrichment_fields.5: field_repeated',
    ]);
    expect(
      faults(await library.post('taxonomies', { ...tutorialBody, taxonomy_type: 'hierarchical' })),
    ).toEqual(['body.hierarchical_nodes: missing']);
    expect(await refused({ applications: [{ collection_id: 'nowhere' }] })).toEqual([
      'body.applications.0.collection_id: collection_unknown',
    ]);
    expect((await library.call('GET', '/v1/namespaces/{ns}/taxonomies')).body.total_count).toBe(0);
    expect(taxonomyJobs(library)).toEqual([]);
  });

  it('refuses a threshold on a retriever that fuses searches, and retrievers that do more than search', async () => {
    const library = await makeTopics();
    const [stage] = searchStages();
    const [search] = stage!.config.parameters.searches;
    const fused = [{ ...stage, config: { ...stage!.config, parameters: { searches: [search, search] } } }];
    await library.post('retrievers', { name: 'fused', stages: fused });
    const reply = await library.post('taxonomies', { ...tutorialBody, retriever_id: 'fused' });
    expectError(reply, 'taxonomy_invalid');
    expect(reply.body.error.message).toContain('fuses 2 searches');
    expect(
      (await library.post('taxonomies', { ...tutorialBody, retriever_id: 'fused', threshold: null })).status,
    ).toBe(200);
    const limited = [stage, { stage_name: 'few', config: { stage_id: 'limit', parameters: { limit: 1 } } }];
    await library.post('retrievers', { name: 'limited', stages: limited });
    expect(faults(await library.post('taxonomies', { ...tutorialBody, retriever_id: 'limited' }))).toEqual([
      'body.retriever_id: retriever_unsuitable',
    ]);
  });

  it('refuses a threshold on a metric that is not the cosine', async () => {
    const library = await makeTopics();
    const plugin = await library.addPlugin('far_embed');
    const features = plugin.features.map((feature) => ({ ...feature, distance_metric: 'euclid' as const }));
    await library.ports.table.write([
      { update: library.ctx.ns.resource('PLUGIN', plugin.id), set: { features } },
    ]);
    await library.addCollection('far', ['far_embed']);
    await library.post('retrievers', {
      name: 'far_search',
      stages: searchStages({}, 'mixpeek://far_embed@1.0.0/far_embed_embedding'),
    });
    const body = { ...tutorialBody, retriever_id: 'far_search', collection_id: 'far' };
    const reply = await library.post('taxonomies', body);
    expect(faults(reply)).toEqual(['body.threshold: retriever_unsuitable']);
    expect((await library.post('taxonomies', { ...body, threshold: null })).status).toBe(200);
  });

  it('refuses a second taxonomy that would write the same field into the same collection after every batch', async () => {
    const library = await makeTopics();
    await create(library);
    const reply = await library.post('taxonomies', { ...tutorialBody, taxonomy_name: 'again' });
    expect(faults(reply)).toEqual(['body.enrichment_fields.0: field_taken']);
    expect(
      (
        await library.post('taxonomies', {
          ...tutorialBody,
          taxonomy_name: 'again',
          execution_mode: 'on_demand',
        })
      ).status,
    ).toBe(200);
  });

  it('keeps its retriever and collection from being deleted', async () => {
    const library = await makeTopics();
    await create(library);
    expectError(
      await library.call('DELETE', '/v1/namespaces/{ns}/retrievers/text_search'),
      'retriever_in_use',
    );
    expectError(
      await library.call('DELETE', '/v1/namespaces/{ns}/collections/articles'),
      'collection_in_use',
    );
    expect((await library.call('DELETE', '/v1/namespaces/{ns}/taxonomies/article-topics')).body.success).toBe(
      true,
    );
    expect((await library.call('DELETE', '/v1/namespaces/{ns}/retrievers/text_search')).status).toBe(200);
  });
});

describe('a run over what is there', () => {
  it('gives each document the topic of its nearest reference, with its provenance, and nothing below the threshold', async () => {
    const library = await makeTopics(articles);
    const made = await library.post('taxonomies', tutorialBody);
    expect(made.body).toMatchObject({ ready: false, last_run: { status: 'PENDING' } });
    expect(made.body.task_ids).toEqual([made.body.task_id]);
    await runAll(library);
    expect(await topicsOf(library, library.ids)).toEqual([null, null, 'physics', 'kitchen', null, null]);
    const near = await read(library, library.ids[2]!);
    expect(near.metadata.auto_topic).toBe('physics');
    expect(near._internal.enrichments).toEqual([
      expect.objectContaining({
        taxonomy_id: made.body.taxonomy_id,
        version: 1,
        field: 'auto_topic',
        value: 'physics',
        score: 0.948683,
        matched_document_id: library.ids[0],
      }),
    ]);
    const after = await taxonomy(library);
    expect(after).toMatchObject({
      ready: true,
      last_run: { status: 'COMPLETED', processed: 6, enriched: 2, changed: 2, failed: 0, error: null },
    });
    const task = await library.call('GET', `/v1/tasks/${made.body.task_id}`);
    expect(task.body).toMatchObject({ status: 'COMPLETED', task_type: 'api_taxonomies_materialize' });
    const found = await library.post('collections/articles/documents/list', {
      filters: { field: 'metadata.auto_topic', operator: 'eq', value: 'physics' },
    });
    expect(found.body.results.map((document: { document_id: string }) => document.document_id)).toEqual([
      library.ids[2],
    ]);
  });

  it('never takes a document for its own reference, and looks for references before it takes the nearest', async () => {
    // The document's own vector is nearest, then 150 without a topic: more than a search returns by itself.
    const plain = Array.from({ length: 150 }, () => ({ text: 'quantum' }));
    const library = await makeTopics([
      { text: 'quantum', metadata: { topic: 'own' } },
      ...plain,
      { text: 'quantum ball', metadata: { topic: 'other' } },
    ]);
    await create(library);
    await runAll(library);
    const topics = await topicsOf(library, library.ids);
    expect(topics[0]).toBe('other');
    expect(topics.slice(1, -1).every((topic) => topic === 'own')).toBe(true);
    expect(topics.at(-1)).toBe('own');
  });

  it('counts an empty or missing source field as no reference', async () => {
    const library = await makeTopics([
      { text: 'quantum' },
      { text: 'quantum', metadata: { topic: '' } },
      { text: 'quantum ball', metadata: { topic: 'physics' } },
    ]);
    await create(library);
    await runAll(library);
    expect(await topicsOf(library, library.ids)).toEqual(['physics', 'physics', null]);
  });

  it('changes nothing when it runs again', async () => {
    const library = await makeTopics(articles);
    await create(library);
    const [job] = taxonomyJobs(library);
    await runJob(library, job!);
    const before = await Promise.all(library.ids.map((id) => read(library, id)));
    await library.ports.table.write([
      {
        update: library.ctx.ns.child('TAXONOMY', job!.taxonomy_id, 'RUN', job!.run_id),
        set: { status: 'PENDING' },
      },
    ]);
    library.ports.clock.advance(60_000);
    await runJob(library, job!);
    expect(await Promise.all(library.ids.map((id) => read(library, id)))).toEqual(before);
    expect((await taxonomy(library)).last_run).toMatchObject({
      status: 'COMPLETED',
      processed: 6,
      changed: 0,
    });
  });

  it('ends right when it died after writing rows and before the index knew', async () => {
    const library = await makeTopics(articles);
    await create(library);
    const [job] = taxonomyJobs(library);
    setCrashHook((point) => {
      if (point === 'document.enrich.after_rows') throw new Error('killed');
    });
    await expect(step(library, { ...job!, step: 'run' })).rejects.toThrow('killed');
    setCrashHook(undefined);
    await runJob(library, job!);
    const snapshot = (await documentsSnapshot(library.ctx, library.collectionId))!;
    const indexed = library.ids.map((id) => snapshot.valueAt(snapshot.rowOf(id)!, 'auto_topic') ?? null);
    expect(indexed).toEqual(await topicsOf(library, library.ids));
    expect(indexed).toEqual([null, null, 'physics', 'kitchen', null, null]);
  });

  it('takes its value away again from a document that no longer passes, but not a value that somebody else has set', async () => {
    const library = await makeTopics(articles);
    await create(library);
    const done = new Set<string>();
    await runAll(library, done);
    await library.call('PATCH', `${documentsPath}/${library.ids[3]}`, { auto_topic: 'by hand' });
    const patched = await library.call('PATCH', '/v1/namespaces/{ns}/taxonomies/article-topics', {
      threshold: 0.99,
    });
    expect(patched.body).toMatchObject({ version: 2, threshold: 0.99, ready: false });
    await runAll(library, done);
    expect(await topicsOf(library, library.ids)).toEqual([null, null, null, 'by hand', null, null]);
    for (const id of library.ids) expect((await read(library, id))._internal.enrichments).toEqual([]);
    const found = await library.post('collections/articles/documents/list', {
      filters: { field: 'auto_topic', operator: 'exists', value: true },
    });
    expect(found.body.total_count).toBe(1);
  });

  it('is applied anew when its definition changes, and not when its description does', async () => {
    const library = await makeTopics(articles);
    const id = await create(library);
    await library.call('PATCH', `/v1/namespaces/{ns}/taxonomies/${id}`, { description: 'topics' });
    expect(taxonomyJobs(library)).toHaveLength(1);
    await library.call('PATCH', `/v1/namespaces/{ns}/taxonomies/${id}`, { threshold: 0.7 });
    expect(taxonomyJobs(library)).toHaveLength(1);
    library.ports.clock.advance(1_000);
    await library.call('PUT', `/v1/namespaces/{ns}/taxonomies/${id}`, { threshold: 0 });
    const [old, fresh] = taxonomyJobs(library).sort((a, b) => (a.run_id < b.run_id ? -1 : 1));
    await runJob(library, old!);
    expect(await topicsOf(library, library.ids)).toEqual(library.ids.map(() => null));
    await runJob(library, fresh!);
    expect((await taxonomy(library)).version).toBe(2);
    const runs = library.ports.table
      .dump()
      .filter((item) => item.taxonomy_id === id && item.run_id !== undefined && item.status !== undefined);
    expect(runs.map((run) => run.status).sort()).toEqual(['CANCELED', 'COMPLETED']);
    expect((await topicsOf(library, library.ids))[4]).not.toBeNull();
  });

  it('goes on in turns, each where the one before ended, and counts each document once', async () => {
    const many = Array.from({ length: 2_100 }, (_, i) => ({
      text: `quantum ${i}`,
      ...(i === 0 ? { metadata: { topic: 'physics' } } : {}),
    }));
    const library = await makeTopics(many);
    await create(library);
    library.runner.answer = (event) => {
      if (event.operation === 'embed') library.ports.clock.advance(35_000);
      return undefined;
    };
    const before = library.embedded().length;
    expect(await runJob(library, taxonomyJobs(library)[0]!)).toBe(2);
    expect((await taxonomy(library)).last_run).toMatchObject({
      status: 'COMPLETED',
      processed: 2_100,
      changed: 2_099,
    });
    // One call for 500 documents.
    expect(library.embedded().length - before).toBe(5);
  });

  it('says why documents got nothing: a field that they lack, or one that no reference has', async () => {
    const library = await makeTopics(articles);
    const done = new Set<string>();
    await create(library, { input_mappings: [{ source: 'payload.txet', target: 'query' }] });
    await runAll(library, done);
    expect((await taxonomy(library)).last_run).toMatchObject({
      status: 'COMPLETED',
      enriched: 0,
      warnings: [
        'Nothing could be compared for documents without a text in the field "payload.txet", which is the input "query".',
      ],
    });
    await create(library, {
      taxonomy_name: 'other',
      enrichment_fields: [{ source: 'payload.topicc', target: 'auto_other' }],
    });
    await runAll(library, done);
    expect((await taxonomy(library, 'other')).last_run.warnings).toEqual([
      'No document has the field "topicc".',
    ]);
  });

  it('is FAILED with a sentence when it cannot be done, and the task says so', async () => {
    const library = await makeTopics(articles);
    const id = await create(library);
    const key = library.ctx.ns.resource('PLUGIN', 'embedder_1_0_0');
    await library.ports.table.write([{ update: key, set: { deployment: 'not_deployed' } }]);
    await runAll(library);
    const after = await taxonomy(library, id);
    expect(after.last_run.status).toBe('FAILED');
    expect(after.last_run.error).toContain('not deployed');
    expect((await library.call('GET', `/v1/tasks/${after.task_id}`)).body).toMatchObject({
      status: 'FAILED',
    });
  });

  it('is started while it is young, and ended when it is past its deadline or over', async () => {
    const library = await makeTopics(articles);
    await create(library);
    const [job] = taxonomyJobs(library);
    expect(await admitRun(library.ctx, job!)).toBe(true);
    const due = () => library.ports.table.dump().filter((item) => item.watch_job === JSON.stringify(job));
    expect(due()).toHaveLength(1);
    library.ports.clock.advance(7 * 3_600_000);
    expect(await admitRun(library.ctx, job!)).toBe(false);
    expect((await taxonomy(library)).last_run).toMatchObject({
      status: 'FAILED',
      error: expect.stringContaining('in time'),
    });
    expect(due()).toEqual([]);
    await runJob(library, job!);
    expect((await taxonomy(library)).last_run.status).toBe('FAILED');
    expect(await topicsOf(library, library.ids)).toEqual(library.ids.map(() => null));
  });

  it('goes on past a text that the plugin refuses for good, and stops for one that may pass later', async () => {
    const library = await makeTopics(articles);
    await create(library);
    const { behave } = library.runner;
    library.runner.behave = (row, event) =>
      row.data.startsWith('seed') ? { fail: 'plugin_row_failed' } : behave(row, event);
    const [job] = taxonomyJobs(library);
    await runJob(library, job!);
    expect((await taxonomy(library)).last_run).toMatchObject({ status: 'COMPLETED', enriched: 2, failed: 1 });
    await library.call('PATCH', '/v1/namespaces/{ns}/taxonomies/article-topics', { threshold: 0.1 });
    library.runner.behave = () => ({ fail: 'plugin_timeout', retryable: true });
    const later = taxonomyJobs(library).find((other) => other.run_id !== job!.run_id)!;
    await expect(step(library, { ...later, step: 'run' })).rejects.toMatchObject({ name: 'plugin_timeout' });
  });

  it('leaves a document alone that was made anew while it was being classified', async () => {
    const library = await makeTopics(articles);
    await create(library);
    const { behave } = library.runner;
    let remade = false;
    library.runner.answer = (event) => {
      if (event.operation !== 'embed' || remade) return undefined;
      remade = true;
      const key = library.ctx.ns.document(library.collectionId, library.ids[2]!);
      const row = library.ports.table.dump().find((item) => item.pk === key.pk && item.sk === key.sk)!;
      const slot = row.a as Record<string, unknown>;
      void library.ports.table.write([
        {
          update: key,
          set: { a: { ...slot, object_version: 7 } as never, revision: Number(row.revision) + 1 },
        },
      ]);
      return undefined;
    };
    library.runner.behave = behave;
    await runAll(library);
    expect(await topicsOf(library, library.ids)).toEqual([null, null, null, 'kitchen', null, null]);
  });
});

describe('after a batch', () => {
  it('classifies what the batch made, and nothing else', async () => {
    const library = await makeTopics(articles);
    await create(library);
    await runAll(library);
    const [fresh, other] = await library.publish([{ text: 'quantum' }, { text: 'seed' }]);
    expect(await topicsOf(library, [fresh!, other!])).toEqual([null, null]);
    const progress = await materialize(library);
    expect(progress).toEqual({
      cursor: null,
      totals: { processed: 2, enriched: 1, changed: 1, failed: 0 },
      failures: [],
    });
    expect(await topicsOf(library, [fresh!, other!])).toEqual(['physics', null]);
    expect((await materialize(library)).totals).toMatchObject({ processed: 2, changed: 0 });
  });

  it('misses no document when the taxonomy is made while a batch runs', async () => {
    const library = await makeTopics(articles);
    // The batch has committed, its taxonomy step has not run: the run at create covers it, and the step changes nothing.
    const [early] = await library.publish([{ text: 'quantum' }]);
    await create(library);
    await runAll(library);
    expect(await topicsOf(library, [early!])).toEqual(['physics']);
    expect((await materialize(library)).totals.changed).toBe(0);
    // The taxonomy was there before the commit, its run looked too early: the step covers the batch.
    const [late] = await library.publish([{ text: 'cook' }]);
    expect(await topicsOf(library, [late!])).toEqual([null]);
    await materialize(library);
    expect(await topicsOf(library, [late!])).toEqual(['kitchen']);
  });

  it('does nothing for a taxonomy on demand', async () => {
    const library = await makeTopics(articles);
    await create(library, { execution_mode: 'on_demand' });
    await library.publish([{ text: 'quantum' }]);
    expect((await materialize(library)).totals.processed).toBe(0);
    expect(taxonomyJobs(library)).toEqual([]);
  });

  it('applies taxonomies that the collection asks for', async () => {
    const library = await makeTopics(articles);
    const id = await create(library, { execution_mode: 'on_demand' });
    await library.call('PATCH', '/v1/namespaces/{ns}/collections/articles', {
      taxonomy_applications: [{ taxonomy_id: id, execution_mode: 'materialize' }],
    });
    const [fresh] = await library.publish([{ text: 'quantum' }]);
    await materialize(library);
    expect(await topicsOf(library, [fresh!])).toEqual(['physics']);
  });

  it('reports a taxonomy that cannot be applied and applies the others', async () => {
    const library = await makeTopics(articles);
    const broken = await create(library, {
      taxonomy_name: 'broken',
      enrichment_fields: [{ source: 'topic', target: 'one' }],
    });
    await library.post('retrievers', { name: 'second', stages: searchStages() });
    await create(library, {
      taxonomy_name: 'sound',
      retriever_id: 'second',
      enrichment_fields: [{ source: 'topic', target: 'two' }],
    });
    const [stage] = searchStages();
    const [search] = stage!.config.parameters.searches;
    const fused = [{ ...stage, config: { ...stage!.config, parameters: { searches: [search, search] } } }];
    expect(
      (await library.call('PATCH', '/v1/namespaces/{ns}/retrievers/text_search', { stages: fused })).status,
    ).toBe(200);
    const [fresh] = await library.publish([{ text: 'quantum' }]);
    const progress = await materialize(library);
    expect(progress.failures).toEqual([
      { id: broken, error: 'taxonomy_invalid', message: expect.stringContaining('fuses') },
    ]);
    const document = await read(library, fresh!);
    expect([document.one, document.two]).toEqual([undefined, 'physics']);
  });

  it('goes on where it stopped when the caller comes back, without counting twice', async () => {
    const library = await makeTopics(articles);
    await create(library, { taxonomy_name: 'a', enrichment_fields: [{ source: 'topic', target: 'one' }] });
    await create(library, { taxonomy_name: 'b', enrichment_fields: [{ source: 'topic', target: 'two' }] });
    const [fresh] = await library.publish([{ text: 'quantum' }]);
    setCrashHook((point) => {
      if (point === 'document.enrich.after_rows') library.ports.clock.advance(130_000);
    });
    const listed = await library.call('GET', `/v1/namespaces/{ns}/buckets/${library.bucketId}/batches`);
    const base = {
      kind: 'batch' as const,
      org_id: library.principal.orgId,
      namespace_id: library.namespace,
      bucket_id: library.bucketId,
      batch_id: String(listed.body.results[0].batch_id),
      attempt: 1,
      request_id: 'r',
      step: 'materialize' as const,
    };
    const first = (await step(library, { ...base, cursor: null })) as { cursor: never };
    expect(first.cursor).not.toBeNull();
    expect(await step(library, { ...base, cursor: first.cursor })).toMatchObject({
      cursor: null,
      totals: { processed: 2, changed: 2 },
    });
    const document = await read(library, fresh!);
    expect([document.one, document.two]).toEqual(['physics', 'physics']);
  });
});

describe('on demand', () => {
  it('says what documents would take over and stores nothing', async () => {
    const library = await makeTopics(articles);
    const id = await create(library, { execution_mode: 'on_demand' });
    const before = await Promise.all(library.ids.map((each) => read(library, each)));
    const byIds = await library.post(`taxonomies/${id}/execute`, {
      document_ids: [library.ids[2], library.ids[4]],
    });
    expect(byIds.status, JSON.stringify(byIds.body)).toBe(200);
    expect(byIds.body.stats).toEqual({ processed_docs: 2, enriched: 1, errors: 0 });
    expect(byIds.body.matches).toEqual([
      expect.objectContaining({
        document_id: library.ids[2],
        matched_document_id: library.ids[0],
        score: 0.948683,
        fields: { auto_topic: 'physics' },
      }),
      expect.objectContaining({ document_id: library.ids[4], score: 0, fields: {} }),
    ]);
    expect(byIds.body.results[0]).toMatchObject({
      document_id: library.ids[2],
      auto_topic: 'physics',
      metadata: { auto_topic: 'physics' },
    });
    const all = await library.post(`taxonomies/${id}/execute`, {
      collection_id: 'articles',
      limit: 3,
      filters: { field: 'topic', operator: 'exists', value: false },
    });
    expect(all.body.stats.processed_docs).toBe(3);
    expect(await Promise.all(library.ids.map((each) => read(library, each)))).toEqual(before);
  });

  it('classifies documents that are not stored, and bare inputs', async () => {
    const library = await makeTopics(articles);
    const id = await create(library, { execution_mode: 'on_demand' });
    const inline = await library.post(`taxonomies/${id}/execute`, {
      documents: [{ text: 'cook' }, { metadata: { text: 'quantum' } }, { title: 'no text' }],
    });
    expect(inline.status, JSON.stringify(inline.body)).toBe(200);
    expect(inline.body.results.map((result: { auto_topic?: string }) => result.auto_topic ?? null)).toEqual([
      'kitchen',
      'physics',
      null,
    ]);
    const bare = await library.post(`taxonomies/${id}/execute`, {
      inputs: { query: 'quantum cook cook cook' },
    });
    expect(bare.body.matches[0].fields).toEqual({ auto_topic: 'kitchen' });
    expectError(
      await library.post(`taxonomies/${id}/execute`, { document_ids: ['doc_nobody'] }),
      'document_not_found',
    );
    expectError(await library.post('taxonomies/nobody/execute', {}), 'taxonomy_not_found');
    expect(
      (await library.post(`taxonomies/${id}/execute`, { inputs: { query: 'x' }, documents: [{}] })).status,
    ).toBe(422);
  });

  it('needs no deployed plugin to be defined, and says that it needs one to be executed', async () => {
    const library = await makeTopics(articles);
    const id = await create(library, { execution_mode: 'on_demand' });
    const key = library.ctx.ns.resource('PLUGIN', 'embedder_1_0_0');
    await library.ports.table.write([{ update: key, set: { deployment: 'not_deployed' } }]);
    expectError(
      await library.post(`taxonomies/${id}/execute`, { inputs: { query: 'quantum' } }),
      'plugin_not_deployed',
    );
  });

  it('uses the feature of the retriever, whichever that is', async () => {
    const library = await makeTopics(articles);
    expect(featureUri).toContain('embedder');
    const id = await create(library, { execution_mode: 'on_demand', threshold: null });
    const reply = await library.post(`taxonomies/${id}/execute`, { inputs: { query: 'seed' } });
    expect(reply.body.matches[0].matched_document_id).not.toBeNull();
  });
});
