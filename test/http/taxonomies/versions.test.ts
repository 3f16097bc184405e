// Versions, clones, runs that are asked for, and taking everything away again.
import { describe, expect, it } from 'vitest';
import { expectError } from '../expect.ts';
import type { Library } from '../retrievers/library.ts';
import { runAll, runJob, taxonomyJobs } from './runs.ts';
import { articles, create, makeTopics, read, taxonomy, topicsOf } from './topics.ts';

const path = '/v1/namespaces/{ns}/taxonomies/article-topics';
const versions = async (library: Library) =>
  (await library.call('GET', `${path}/versions`)).body.results.map(
    (one: { version: number; is_current: boolean; config: { threshold: number }; note: string | null }) => [
      one.version,
      one.is_current,
      one.config.threshold,
      one.note,
    ],
  );

describe('versions', () => {
  it('are made by changes and by request, never change, and can count again', async () => {
    const library = await makeTopics(articles);
    await create(library);
    const done = new Set<string>();
    await runAll(library, done);
    library.ports.clock.advance(1_000);
    await library.call('PATCH', path, { threshold: 0.99 });
    await library.call('PATCH', path, { description: 'no version of its own' });
    const made = await library.post('taxonomies/article-topics/versions', {
      threshold: 0.2,
      note: 'generous',
      activate: false,
    });
    expect(made.status, JSON.stringify(made.body)).toBe(201);
    expect(made.body).toMatchObject({ version: 3, is_current: false, created_by: library.principal.keyId });
    expect(await versions(library)).toEqual([
      [3, false, 0.2, 'generous'],
      [2, true, 0.99, null],
      [1, false, 0.7, null],
    ]);
    await runAll(library, done);
    expect(await topicsOf(library, library.ids)).toEqual([null, null, null, null, null, null]);

    const ask = async (version: number) =>
      (
        await library.post(`taxonomies/article-topics/execute?version=${version}`, {
          inputs: { query: 'quantum ball' },
        })
      ).body;
    expect(await ask(3)).toMatchObject({ version: 3, matches: [{ fields: { auto_topic: 'physics' } }] });
    expect(await ask(2)).toMatchObject({ version: 2, matches: [{ fields: {} }] });
    expect((await library.call('GET', `${path}?version=1`)).body).toMatchObject({
      version: 1,
      latest_version: 3,
      threshold: 0.7,
    });

    library.ports.clock.advance(1_000);
    const back = await library.post('taxonomies/article-topics/versions/1/activate');
    expect(back.status, JSON.stringify(back.body)).toBe(200);
    expect(back.body).toMatchObject({ version: 1, latest_version: 3, threshold: 0.7, ready: false });
    await runAll(library, done);
    expect(await topicsOf(library, library.ids)).toEqual([null, null, 'physics', 'kitchen', null, null]);
    const [entry] = (await read(library, library.ids[2]!))._internal.enrichments;
    expect(entry).toMatchObject({ version: 1 });
    // The next change goes on counting behind the highest.
    await library.call('PATCH', path, { threshold: 0.6 });
    expect(await taxonomy(library)).toMatchObject({ version: 4, latest_version: 4 });
  });

  it('are refused where they do not exist, are out of date, or cannot work any more', async () => {
    const library = await makeTopics(articles);
    await create(library);
    const first = await library.call('GET', path);
    expectError(
      await library.post('taxonomies/article-topics/versions/7/activate'),
      'taxonomy_version_not_found',
    );
    expectError(await library.call('GET', `${path}?version=7`), 'taxonomy_version_not_found');
    expectError(
      await library.post('taxonomies/article-topics/execute?version=7', { inputs: { query: 'x' } }),
      'taxonomy_version_not_found',
    );
    await library.call('PATCH', path, { threshold: 0.5 });
    expectError(
      await library.call('POST', `${path}/versions`, { threshold: 0.4 }, { 'If-Match': first.headers.ETag! }),
      'request_stale',
    );
    expectError(
      await library.post('taxonomies/article-topics/versions', { collection_id: 'nowhere' }),
      'taxonomy_invalid',
    );
    expect((await versions(library)).length).toBe(2);
    const all = library.ports.table.dump().filter((item) => item.sk.startsWith('VER#'));
    expect(all).toHaveLength(2);
    await library.call('DELETE', path);
    expect(library.ports.table.dump().filter((item) => item.sk.startsWith('VER#'))).toEqual([]);
  });
});

describe('a clone', () => {
  it('is like the version it was made of, with changes, and is applied nowhere', async () => {
    const library = await makeTopics(articles);
    await create(library);
    await library.call('PATCH', path, { threshold: 0.9 });
    const made = await library.post('taxonomies/article-topics/clone?version=1', {
      taxonomy_name: 'copy',
      top_k: 3,
    });
    expect(made.status, JSON.stringify(made.body)).toBe(201);
    expect(made.body).toMatchObject({
      taxonomy_name: 'copy',
      threshold: 0.7,
      execution_mode: 'on_demand',
      config: { top_k: 3, vote: 'weighted' },
      version: 1,
      task_ids: [],
    });
    expectError(
      await library.post('taxonomies/article-topics/clone', { taxonomy_name: 'copy' }),
      'taxonomy_name_taken',
    );
    expectError(
      await library.post('taxonomies/article-topics/clone', {
        taxonomy_name: 'b',
        execution_mode: 'materialize',
      }),
      'taxonomy_invalid',
    );
  });
});

describe('a run that is asked for', () => {
  it('classifies what passes the filter, once, whatever the mode', async () => {
    const library = await makeTopics(articles);
    await create(library, { execution_mode: 'on_demand' });
    const reply = await library.post('collections/articles/apply-taxonomy', {
      taxonomy_id: 'article-topics',
      filter: { field: 'text', operator: 'contains', value: 'ball' },
    });
    expect(reply.status, JSON.stringify(reply.body)).toBe(202);
    expect(reply.body.run).toMatchObject({ status: 'PENDING', collection_id: library.collectionId });
    await runAll(library);
    expect(await topicsOf(library, library.ids)).toEqual([null, null, 'physics', null, null, null]);
    expect((await library.call('GET', `/v1/tasks/${reply.body.task_id}`)).body).toMatchObject({
      status: 'COMPLETED',
    });
    expectError(
      await library.post('collections/articles/apply-taxonomy', { taxonomy_id: 'nobody' }),
      'taxonomy_not_found',
    );
    expectError(
      await library.post('collections/nowhere/apply-taxonomy', { taxonomy_id: 'article-topics' }),
      'collection_not_found',
    );
    expectError(
      await library.post('collections/articles/apply-taxonomy', {
        taxonomy_id: 'article-topics',
        filters: { field: 1 },
      }),
      'request_invalid',
    );
    expect(taxonomyJobs(library)).toHaveLength(1);
  });
});

describe('deleting with remove_enrichments', () => {
  it('takes away what the taxonomy wrote, and leaves what somebody has changed since', async () => {
    const library = await makeTopics(articles);
    await create(library);
    const done = new Set<string>();
    await runAll(library, done);
    await library.call('PATCH', `/v1/namespaces/{ns}/collections/articles/documents/${library.ids[3]}`, {
      auto_topic: 'by hand',
    });
    const reply = await library.call('DELETE', `${path}?remove_enrichments=true`);
    expect(reply.status, JSON.stringify(reply.body)).toBe(200);
    expect(reply.body.task_ids).toHaveLength(1);
    expect(await topicsOf(library, library.ids)).toEqual([null, null, 'physics', 'by hand', null, null]);
    await runAll(library, done);
    expect(await topicsOf(library, library.ids)).toEqual([null, null, null, 'by hand', null, null]);
    for (const id of library.ids) expect((await read(library, id))._internal.enrichments).toEqual([]);
    const found = await library.post('collections/articles/documents/list', {
      filters: { field: 'auto_topic', operator: 'exists', value: true },
    });
    expect(found.body.total_count).toBe(1);
    expect((await library.call('GET', `/v1/tasks/${reply.body.task_ids[0]}`)).body.status).toBe('COMPLETED');
  });

  it('is not undone by a run that was under way', async () => {
    const library = await makeTopics(articles);
    await create(library);
    const [job] = taxonomyJobs(library);
    // The taxonomy goes, and everything is taken away, while its run waits for the plugin.
    const { call } = library.runner;
    let gone: Promise<void> | undefined;
    library.ports.runner.call = async (...args) => {
      gone ??= library
        .call('DELETE', `${path}?remove_enrichments=true`)
        .then(() => runAll(library, new Set([job!.run_id])));
      await gone;
      return call(...args);
    };
    await runJob(library, job!);
    expect(gone).toBeDefined();
    expect(await topicsOf(library, library.ids)).toEqual(library.ids.map(() => null));
  });

  it('leaves fields where it is not asked for', async () => {
    const library = await makeTopics(articles);
    await create(library);
    await runAll(library);
    expect((await library.call('DELETE', path)).body.task_ids).toEqual([]);
    expect((await topicsOf(library, library.ids))[2]).toBe('physics');
  });
});
