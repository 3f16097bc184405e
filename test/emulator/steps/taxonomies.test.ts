// Step 7 on the deployed stack: labelled documents give their labels to similar ones, at create, after batches, on demand.
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Client, Json, Setup, Workspace } from '../stack.ts';
import {
  listDocuments,
  makeCollection,
  makeWorkspace,
  putTexts,
  runBatch,
  searchStages,
  until,
  usePlugin,
} from '../stack.ts';

let space: Workspace;
let client: Client;
let setup: Setup;
let retriever: string;

beforeAll(async () => {
  space = await makeWorkspace('taxonomies');
  client = space.client;
  await usePlugin(space);
  setup = await makeCollection(space, 'articles');
  await putTexts(space, setup, [
    { text: 'quantum qubits entangle', metadata: { topic: 'physics', name: 'p' } },
    { text: 'roses bloom in spring', metadata: { topic: 'garden', name: 'g' } },
    { text: 'quantum qubits', metadata: { name: 'p2' } },
    { text: 'roses bloom', metadata: { name: 'g2' } },
    { text: 'nothing like the others', metadata: { name: 'x' } },
  ]);
  await runBatch(space, setup);
  retriever = (
    await client.call('POST', `${space.path}/retrievers`, { name: 'text_search', stages: searchStages() })
  ).retriever_id;
});
afterAll(() => space?.close());

const flat = (name: string, more: Json = {}): Json => ({
  taxonomy_name: name,
  taxonomy_type: 'flat',
  retriever_id: retriever,
  collection_id: setup.collectionId,
  input_mappings: [{ source: 'payload.text', target: 'query' }],
  enrichment_fields: [{ source: 'payload.topic', target: 'auto_topic' }],
  threshold: 0.6,
  execution_mode: 'materialize',
  ...more,
});

async function byName(): Promise<Record<string, Json>> {
  return Object.fromEntries((await listDocuments(space, setup)).map((one) => [one.name, one]));
}

const runEnd = (id: string) =>
  until('the end of the taxonomy run', async () => {
    const { last_run: last } = await client.call('GET', `${space.path}/taxonomies/${id}`);
    return last && ['COMPLETED', 'FAILED'].includes(last.status) ? last : undefined;
  });

describe('a taxonomy that is materialised', () => {
  let taxonomyId: string;

  it('gives topics to what is there, above the threshold alone, and records match and confidence', async () => {
    taxonomyId = (await client.call('POST', `${space.path}/taxonomies`, flat('topics'))).taxonomy_id;
    expect(await runEnd(taxonomyId)).toMatchObject({ status: 'COMPLETED', failed: 0 });
    const found = await byName();
    expect(found.p2).toMatchObject({ auto_topic: 'physics', metadata: { auto_topic: 'physics' } });
    expect(found.g2).toMatchObject({ auto_topic: 'garden' });
    expect(found.x).not.toHaveProperty('auto_topic');
    const [enrichment] = found.p2._internal.enrichments;
    expect(enrichment).toMatchObject({
      taxonomy_id: taxonomyId,
      field: 'auto_topic',
      value: 'physics',
      matched_document_id: found.p.document_id,
    });
    expect(enrichment.score).toBeGreaterThan(0.6);
    expect(enrichment.score).toBeLessThan(1);
  });

  it('never matches a document with itself', async () => {
    const found = await byName();
    for (const reference of [found.p, found.g]) {
      for (const { matched_document_id } of reference._internal.enrichments ?? [])
        expect(matched_document_id).not.toBe(reference.document_id);
    }
    // The only other reference is about something else, so nothing was near enough.
    expect(found.p).not.toHaveProperty('auto_topic');
  });

  it('gives topics to the documents of a later batch before that batch is done', async () => {
    await putTexts(space, setup, [{ text: 'qubits entangle', metadata: { name: 'late' } }]);
    await runBatch(space, setup);
    expect((await byName()).late).toMatchObject({ auto_topic: 'physics' });
    const filtered = await listDocuments(space, setup, {
      filters: { field: 'metadata.auto_topic', operator: 'eq', value: 'physics' },
    });
    expect(filtered.map((one) => one.name).sort()).toEqual(['late', 'p2']);
  });

  it('is read by name, listed, and keeps its retriever from being deleted', async () => {
    expect(await client.call('GET', `${space.path}/taxonomies/topics`)).toMatchObject({
      taxonomy_id: taxonomyId,
      threshold: 0.6,
      execution_mode: 'materialize',
    });
    expect(
      (await client.call('GET', `${space.path}/taxonomies`)).results.map((one: Json) => one.taxonomy_id),
    ).toContain(taxonomyId);
    expect(await client.refused(409, 'DELETE', `${space.path}/retrievers/${retriever}`)).toMatchObject({
      code: 'retriever_in_use',
    });
    expect((await client.ask('DELETE', `${space.path}/taxonomies/${taxonomyId}`)).status).toBe(200);
    expect((await client.ask('GET', `${space.path}/taxonomies/${taxonomyId}`)).status).toBe(404);
  });
});

describe('a taxonomy on demand', () => {
  it("classifies when it is asked, stores nothing, and takes the client's form of the body", async () => {
    const made = await client.call(
      'POST',
      '/v1/taxonomies',
      {
        taxonomy_name: 'asked',
        config: {
          taxonomy_type: 'flat',
          retriever_id: 'text_search',
          input_mappings: [{ input_key: 'query', source_type: 'payload', path: 'text' }],
          source_collection: {
            collection_id: 'articles',
            enrichment_fields: [{ field_path: 'topic', target_field: 'asked_topic', merge_mode: 'replace' }],
          },
          threshold: 0.5,
        },
        execution_mode: 'on_demand',
      },
      { 'X-Namespace': space.namespaceId },
    );
    const { matches } = await client.call('POST', `${space.path}/taxonomies/${made.taxonomy_id}/execute`, {
      documents: [{ text: 'roses bloom in may' }, { text: 'unheard' }],
    });
    expect(matches.map((one: Json) => one.fields)).toEqual([{ asked_topic: 'garden' }, {}]);
    expect(Object.values(await byName()).some((one) => 'asked_topic' in one)).toBe(false);
  });
});

describe('a taxonomy with levels, looked after by people', () => {
  it('places documents in a path, keeps decisions, is measured and versioned, and takes away what it wrote', async () => {
    const path = `${space.path}/taxonomies`;
    const made = await client.call('POST', path, {
      taxonomy_name: 'paths',
      retriever_id: retriever,
      collection_id: setup.collectionId,
      input_mappings: [{ source: 'payload.text', target: 'query' }],
      path_field: 'topic',
      path_target: 'area',
      level_fields: ['area_top'],
      threshold: 0.6,
      top_k: 3,
      execution_mode: 'materialize',
    });
    expect(made).toMatchObject({ taxonomy_type: 'hierarchical', version: 1 });
    expect(await runEnd(made.taxonomy_id)).toMatchObject({ status: 'COMPLETED' });
    const before = await byName();
    expect(before.p2).toMatchObject({ area: 'physics', area_top: 'physics' });
    const decided = await client.call('POST', `${path}/paths/review/${before.x.document_id}`, {
      action: 'correct',
      values: { area: 'odd/things' },
    });
    expect(decided).toMatchObject({ is_reference: true, values: { area: 'odd/things', area_top: 'odd' } });
    const { matches } = await client.call('POST', `${path}/paths/execute`, {
      documents: [{ text: 'nothing like the others' }],
    });
    expect(matches[0]).toMatchObject({
      matched_document_id: before.x.document_id,
      fields: { area_top: 'odd' },
    });
    const judged = await client.call('POST', `${path}/paths/evaluate`, {
      collection_id: setup.collectionId,
      label_field: 'topic',
    });
    expect(judged).toMatchObject({ target: 'area', objective: 'balanced' });
    await client.call('POST', `${path}/paths/versions`, { threshold: 0.99, note: 'strict' });
    expect(await runEnd(made.taxonomy_id)).toMatchObject({ status: 'COMPLETED' });
    expect((await byName()).x).toMatchObject({ area: 'odd/things' });
    const back = await client.call('POST', `${path}/paths/versions/1/activate`);
    expect(back).toMatchObject({ version: 1, latest_version: 2 });
    // A run that is under way may still write.
    expect(await runEnd(made.taxonomy_id)).toMatchObject({ status: 'COMPLETED' });
    const gone = await client.call('DELETE', `${path}/paths?remove_enrichments=true`);
    await until('the end of the removal', async () => {
      const task = await client.call('GET', `/v1/tasks/${gone.task_ids[0]}`);
      return ['COMPLETED', 'FAILED'].includes(task.status) ? task : undefined;
    });
    expect(Object.values(await byName()).some((one) => 'area' in one || 'area_top' in one)).toBe(false);
  });
});

describe('a taxonomy is refused', () => {
  it.each([
    ['a retriever that does not exist', () => ({ retriever_id: `ret_${'0'.repeat(20)}` }), /retriever/],
    ['a collection that does not exist', () => ({ collection_id: `col_${'0'.repeat(20)}` }), /collection/],
    [
      'a mapping to an input that the retriever does not have',
      () => ({ input_mappings: [{ source: 'payload.text', target: 'question' }] }),
      /question[\s\S]*query|query[\s\S]*question/,
    ],
    ['a threshold that no cosine reaches', () => ({ threshold: 7 }), /threshold/],
    ['no field to take over', () => ({ enrichment_fields: [] }), /enrichment_fields/],
  ])('with %s', async (_, change, says) => {
    const fault = await client.refused(422, 'POST', `${space.path}/taxonomies`, flat('refused', change()));
    expect(`${fault.message}\n${fault.fields.join('\n')}`).toMatch(says);
    expect((await client.ask('GET', `${space.path}/taxonomies/refused`)).status).toBe(404);
  });
});
