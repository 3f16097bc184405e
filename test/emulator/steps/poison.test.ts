// Hostile plugins on the deployed stack: one batch holds a row for nearly every deed of the corpus beside sound rows.
// Only the hostile rows may fail, each with a code that the corpus names, and another plugin goes on as if nothing were.
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { projectPython } from '../../../local/emulator.ts';
import type { Client, Json, Setup, Workspace } from '../stack.ts';
import {
  listAll,
  listDocuments,
  makeCollection,
  makeWorkspace,
  projectFolder,
  putTexts,
  runBatch,
  searchStages,
  until,
  usePlugin,
  wordFeature,
} from '../stack.ts';

/** What must come of a row that names a deed; test/fixtures/plugins/poison_corpus/outcome.py says what each member is. */
interface Outcome {
  readonly kind: string;
  readonly group: string;
  readonly codes: readonly string[];
  readonly seconds: number | null;
  readonly needs: string | null;
}

/** Does none of the deeds: it imports the corpus and prints its table. */
function readOutcomes(): Outcome[] {
  const plugins = join(projectFolder, 'test', 'fixtures', 'plugins');
  return JSON.parse(
    execFileSync(projectPython, ['-B', '-m', 'poison_corpus'], { cwd: plugins, encoding: 'utf8' }),
  ) as Outcome[];
}

// A deed that hangs takes the time of its whole call, which is minutes here; one of them shows what becomes of the others.
const outcomes = readOutcomes().filter(({ seconds }) => seconds === null);
const sound = (i: number) => `sound words number ${i}`;

let space: Workspace;
let client: Client;
let hostile: Setup;
let batch: Json;
let failures: Json[];

beforeAll(async () => {
  space = await makeWorkspace('poison');
  client = space.client;
  await usePlugin(space, 'poison_corpus');
  await usePlugin(space);
  hostile = await makeCollection(space, 'hostile', {
    plugin: 'poison_corpus',
    collection: { max_failure_share: 1 },
  });
  await putTexts(
    space,
    hostile,
    outcomes.flatMap(({ kind }, i) => [
      { text: `do ${kind}`, metadata: { kind } },
      { text: sound(i), metadata: { kind: 'sound' } },
    ]),
  );
  batch = await runBatch(space, hostile);
  failures = (await client.call('GET', `${hostile.bucket}/batches/${batch.batch_id}/failures?limit=500`))
    .results;
});
afterAll(() => space?.close());

describe('a batch with a hostile row for each deed', () => {
  it('keeps the vector of every sound row', async () => {
    const documents = await listDocuments(space, hostile, {
      filters: { field: 'metadata.kind', operator: 'eq', value: 'sound' },
    });
    expect(documents).toHaveLength(outcomes.length);
    const found = await client.call('POST', `${space.path}/retrievers/execute`, {
      collection_identifiers: ['hostile'],
      stages: searchStages('mixpeek://poison_corpus@1.0.0/poison_corpus_v1_embedding', { final_top_k: 5 }),
      inputs: { query: sound(1) },
    });
    expect(found.documents.length).toBeGreaterThan(0);
  });

  it('fails no row but those, and each of those that must fail', async () => {
    const texts = new Map<string, string>();
    for (const one of await listAll(space, `${hostile.bucket}/objects`))
      texts.set(one.object_id, one.metadata?.kind ?? '');
    const codes = new Map<string, string>();
    for (const { object_id, code } of failures) codes.set(texts.get(object_id) ?? object_id, code);
    expect(failures.filter(({ object_id }) => texts.get(object_id) === 'sound')).toEqual([]);
    // Which code it is, one deed may change for the next in the same process; that none passes for good may not change.
    const passed = outcomes.filter((one) => !one.codes.includes('survives') && !codes.has(one.kind));
    expect(passed.map(({ kind }) => kind)).toEqual([]);
    expect(failures.find((one) => one.code === 'plugin_row_failed')?.message).toMatch(/\w/);
  });

  it('leaves other plugins of the namespace as they were', async () => {
    const setup = await makeCollection(space, 'beside');
    await putTexts(space, setup, ['plain words', 'other words']);
    const after = await runBatch(space, setup);
    expect(after.status).toBe('COMPLETED');
    const found = await until('the search', async () => {
      const reply = await client.call('POST', `${space.path}/retrievers/execute`, {
        collection_identifiers: ['beside'],
        stages: searchStages(wordFeature, { final_top_k: 1 }),
        inputs: { query: 'plain words' },
      });
      return reply.documents.length === 1 ? reply.documents : undefined;
    });
    expect(found[0].score).toBeGreaterThan(0.99);
  });

  it('leaves the hostile plugin itself usable', async () => {
    await putTexts(space, hostile, ['late but sound']);
    expect((await runBatch(space, hostile)).status).toBe('COMPLETED');
  });
});

it('a query that ends its process, or names no text that can be embedded, fails alone', async () => {
  const ask = (query: string) =>
    client.ask('POST', `${space.path}/retrievers/execute`, {
      collection_identifiers: ['hostile'],
      stages: searchStages('mixpeek://poison_corpus@1.0.0/poison_corpus_v1_embedding', { final_top_k: 1 }),
      inputs: { query },
    });
  for (const kind of ['end_the_process', 'kill_its_group', 'raise_an_error', 'vector_of_nan']) {
    expect((await ask(`do ${kind}`)).status).toBeGreaterThanOrEqual(400);
    expect((await ask('sound again')).status).toBe(200);
  }
});
