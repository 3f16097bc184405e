// People decide: what is in doubt first, decisions that no run overwrites, and documents that become references.
import { afterEach, describe, expect, it } from 'vitest';
import { setCrashHook } from '../../../functions/core/crash.ts';
import { expectError, faults } from '../expect.ts';
import type { Library } from '../retrievers/library.ts';
import { materialize, runAll } from './runs.ts';
import { articles, create, makeTopics, read, topicsOf } from './topics.ts';

afterEach(() => setCrashHook(undefined));

const reviewPath = 'taxonomies/article-topics/review';
const decide = (library: Library, id: string, body: Record<string, unknown>) =>
  library.post(`${reviewPath}/${id}`, body);

async function applied(): Promise<Library & { readonly ids: string[] }> {
  const library = await makeTopics(articles);
  await create(library, { threshold: 0.5 });
  await runAll(library);
  return library;
}

/** Makes all documents of the library anew, as a forced batch does. */
async function again(library: Library): Promise<void> {
  library.ports.clock.advance(1_000);
  await library.call('PATCH', '/v1/namespaces/{ns}/taxonomies/article-topics', { threshold: 0.49 });
  await runAll(library);
}

describe('the list of doubts', () => {
  it('shows the smallest margin first, and can be narrowed', async () => {
    const library = await applied();
    const list = async (query = '') =>
      (await library.call('GET', `/v1/namespaces/{ns}/${reviewPath}${query}`)).body;
    const all = await list();
    expect(all.total).toBe(2);
    expect(all.results.map((one: { document_id: string }) => one.document_id)).toEqual([
      library.ids[3],
      library.ids[2],
    ]);
    expect(all.results[0]).toMatchObject({
      fields: { auto_topic: 'kitchen' },
      score: 0.948683,
      margin: 0.632455,
      matched_document_id: library.ids[1],
      runner_up: { document_id: library.ids[0], value: 'physics', score: 0.316228 },
    });
    expect((await list('?limit=1')).results).toHaveLength(1);
    expect((await list('?max_margin=0.7')).total).toBe(1);
    expect((await list('?max_score=0.5')).total).toBe(0);
    expectError(
      await library.call('GET', `/v1/namespaces/{ns}/${reviewPath}?collection_id=nowhere`),
      'collection_not_found',
    );
    await decide(library, library.ids[3]!, { action: 'accept' });
    expect((await list()).total).toBe(1);
  });
});

describe('a decision', () => {
  it('is written into the document with who and when, and survives every later run', async () => {
    const library = await applied();
    const reply = await decide(library, library.ids[3]!, {
      action: 'correct',
      values: { auto_topic: 'physics' },
    });
    expect(reply.status, JSON.stringify(reply.body)).toBe(200);
    expect(reply.body).toMatchObject({ action: 'correct', is_reference: true, by: 'testkey1', revision: 1 });
    await decide(library, library.ids[2]!, { action: 'reject' });
    const shown = async () => topicsOf(library, library.ids.slice(2, 4));
    expect(await shown()).toEqual([null, 'physics']);
    const [entry] = (await read(library, library.ids[3]!))._internal.enrichments;
    expect(entry).toMatchObject({
      value: 'physics',
      score: null,
      review: { action: 'correct', by: 'testkey1', at: reply.body.at },
    });
    const [rejected] = (await read(library, library.ids[2]!))._internal.enrichments;
    expect(rejected).toMatchObject({ value: null, review: { action: 'reject' } });
    await again(library);
    expect(await shown()).toEqual([null, 'physics']);
    const { matches } = (
      await library.post('taxonomies/article-topics/execute', { document_ids: [library.ids[3]] })
    ).body;
    expect(matches[0]).toMatchObject({
      fields: { auto_topic: 'physics' },
      decision: { action: 'correct', by: 'testkey1' },
    });
  });

  it('survives a batch that makes the document anew', async () => {
    const library = await applied();
    await decide(library, library.ids[3]!, { action: 'correct', values: { auto_topic: 'physics' } });
    const objects = (
      await library.call('GET', `/v1/namespaces/{ns}/buckets/${library.bucketId}/objects?limit=100`)
    ).body.results;
    const document = await read(library, library.ids[3]!);
    const object = objects.find(
      (one: { object_id: string }) => one.object_id === document._internal.lineage.object_id,
    );
    await library.call(
      'PATCH',
      `/v1/namespaces/{ns}/buckets/${library.bucketId}/objects/${object.object_id}`,
      {
        metadata: { note: 'changed' },
      },
    );
    await library.publish([]);
    expect((await read(library, library.ids[3]!)).auto_topic ?? null).toBeNull();
    await materialize(library);
    expect((await read(library, library.ids[3]!)).auto_topic).toBe('physics');
  });

  it('makes the document a reference for others, here and in documents that are not stored', async () => {
    const library = await applied();
    const ask = async (text: string) =>
      (await library.post('taxonomies/article-topics/execute', { documents: [{ text }] })).body.matches[0];
    expect((await ask('seed seed')).fields).toEqual({});
    await decide(library, library.ids[4]!, { action: 'correct', values: { auto_topic: 'gardening' } });
    expect(await ask('seed seed')).toMatchObject({
      fields: { auto_topic: 'gardening' },
      matched_document_id: library.ids[4],
      score: 1,
    });
    const [fresh] = await library.publish([{ text: 'seed seed seed' }]);
    await materialize(library);
    expect(await topicsOf(library, [fresh!])).toEqual(['gardening']);
    // Taken back, it is one no more.
    expect((await library.call('DELETE', `/v1/namespaces/{ns}/${reviewPath}/${library.ids[4]}`)).status).toBe(
      200,
    );
    expect((await ask('seed seed')).fields).toEqual({});
    expectError(
      await library.call('DELETE', `/v1/namespaces/{ns}/${reviewPath}/${library.ids[4]}`),
      'taxonomy_review_not_found',
    );
  });

  it('is found by new vectors where the plugin makes others by now', async () => {
    const library = await applied();
    await decide(library, library.ids[4]!, { action: 'correct', values: { auto_topic: 'gardening' } });
    const rows = () => library.ports.table.dump().filter((item) => item.sk.startsWith('REVIEW#'));
    const [row] = rows();
    const vectors = row!.vectors;
    // As an upgrade of the collection leaves it: vectors of a feature that is not searched any more.
    await library.ports.table.write([
      { update: { pk: row!.pk, sk: row!.sk }, set: { vectors: { 'root old': 'AAAA' } } },
    ]);
    const reply = await library.post('taxonomies/article-topics/execute', {
      documents: [{ text: 'seed seed' }],
    });
    expect(reply.body.matches[0]).toMatchObject({ fields: { auto_topic: 'gardening' }, score: 1 });
    expect(rows()[0]!.vectors).toEqual({ 'root old': 'AAAA' });
    await again(library);
    expect(rows()[0]!.vectors).toEqual(vectors);
  });

  it('counts as made when the process dies before the document is written', async () => {
    const library = await applied();
    setCrashHook((point) => {
      if (point === 'taxonomy.review.after_record') throw new Error('killed');
    });
    expect((await decide(library, library.ids[3]!, { action: 'reject' })).status).toBe(500);
    setCrashHook(undefined);
    expect((await topicsOf(library, [library.ids[3]!]))[0]).toBe('kitchen');
    await again(library);
    expect((await topicsOf(library, [library.ids[3]!]))[0]).toBeNull();
  });

  it('is refused where it makes no sense', async () => {
    const library = await applied();
    const [, , near, , far] = library.ids;
    expectError(await decide(library, far!, { action: 'accept' }), 'taxonomy_review_invalid');
    expect(
      faults(await decide(library, near!, { action: 'correct', values: { topic: 'x', auto_topic: null } })),
    ).toEqual(['body.values.topic: target_unknown', 'body.values.auto_topic: value_error']);
    expectError(await decide(library, near!, { action: 'correct' }), 'request_invalid');
    expectError(
      await decide(library, near!, { action: 'reject', values: { auto_topic: 'x' } }),
      'request_invalid',
    );
    expectError(await decide(library, 'doc_nobody', { action: 'reject' }), 'document_not_found');
    expectError(await library.post('taxonomies/nobody/review/x', { action: 'reject' }), 'taxonomy_not_found');
  });
});
