// What happens to an index over time, on the deployed stack: many small writes are compacted by the worker that the timer
// wakes, an older version can still be searched, and the command line carries documents with their vectors elsewhere.
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { InvokeCommand, LambdaClient } from '@aws-sdk/client-lambda';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Json, Setup, Workspace } from './stack.ts';
import {
  listDocuments,
  makeCollection,
  makeKey,
  makeWorkspace,
  output,
  projectFolder,
  putTexts,
  runBatch,
  stack,
  until,
  usePlugin,
  wordFeature,
} from './stack.ts';

const lambda = new LambdaClient(stack.endpoint === undefined ? {} : { endpoint: stack.endpoint });
const folder = mkdtempSync(join(tmpdir(), 'granary-upkeep-'));

let space: Workspace;
let setup: Setup;
let documents: Json[];

const words = ['amber', 'basil', 'cedar', 'delta', 'ember', 'fjord'];
const texts = Array.from({ length: 60 }, (_, i) => ({
  text: `text ${i} of ${words[i % 6]} and ${words[(i * 5) % 6]}`,
  metadata: { i, colour: i % 2 === 0 ? 'red' : 'blue' },
}));

const find = (collection: string, versions?: Json): Promise<Json> =>
  space.client.call('POST', `${space.path}/retrievers/execute`, {
    stages: [
      {
        stage_name: 'search',
        stage_type: 'filter',
        config: {
          stage_id: 'feature_search',
          parameters: {
            searches: [
              { feature_uri: wordFeature, query: { input_mode: 'text', text: 'cedar and fjord' }, top_k: 20 },
            ],
            final_top_k: 20,
            facets: [{ key: 'colour' }],
          },
        },
      },
    ],
    collection_identifiers: [collection],
    limit: 20,
    ...(versions === undefined ? {} : { index_versions: versions }),
  });
const scores = (reply: Json) => reply.results.map((hit: Json) => [hit.document_id, hit.score]);
const indexOf = (collection: string): Promise<Json> => space.client.call('GET', `${collection}/index`);

beforeAll(async () => {
  space = await makeWorkspace('upkeep');
  await usePlugin(space);
  setup = await makeCollection(space, 'grown');
  await putTexts(space, setup, texts);
  await runBatch(space, setup);
  documents = await listDocuments(space, setup);
});
afterAll(async () => {
  rmSync(folder, { recursive: true, force: true });
  await space?.close();
});

describe('an index of many small writes', () => {
  it('is compacted when the timer has woken the worker, and answers as before', async () => {
    for (const [n, { document_id }] of documents.slice(0, 24).entries()) {
      await space.client.call('PATCH', `${setup.collection}/documents/${document_id}`, {
        colour: n % 3 === 0 ? 'green' : 'teal',
      });
    }
    // The timer of the stack may have come in between already.
    const before = await indexOf(setup.collection);
    expect(before.version).toBeGreaterThan(24);
    const found = await find(setup.collectionId);
    const after = await until(
      'the compaction',
      async () => {
        await lambda.send(new InvokeCommand({ FunctionName: output('SweepFunctionName') }));
        const now = await indexOf(setup.collection);
        // Fewer than the patches alone were.
        return now.features[0].segments <= 12 ? now : undefined;
      },
      { describe: () => before },
    );
    expect(after.version).toBeGreaterThanOrEqual(before.version);
    expect(after.document_count).toBe(before.document_count);
    const again = await find(setup.collectionId);
    expect(scores(again)).toEqual(scores(found));
    expect(again.facets).toEqual(found.facets);
    expect(again.facets[0].values.map(({ value }: Json) => value).sort()).toEqual([
      'blue',
      'green',
      'red',
      'teal',
    ]);
    // The version before is still there for who names it.
    expect(scores(await find(setup.collectionId, { [setup.collectionId]: before.version }))).toEqual(
      scores(found),
    );
  });
});

describe('the command line', () => {
  it('exports a collection and imports it into an empty one, which then gives the same answers', async () => {
    const { api_key } = await makeKey({ name: 'upkeep', permissions: ['read', 'write'] });
    const granary = (...args: string[]) =>
      promisify(execFile)(process.execPath, [join(projectFolder, 'cli', 'granary.js'), ...args], {
        env: {
          ...process.env,
          GRANARY_URL: stack.base_url,
          GRANARY_API_KEY: api_key,
          GRANARY_NAMESPACE: space.namespaceId,
          XDG_CONFIG_HOME: folder,
        },
      });
    const file = join(folder, 'grown.parquet');
    await granary('vectors', 'export', setup.collectionId, '-o', file);
    const empty = await makeCollection(space, 'copied');
    const { stdout } = await granary('vectors', 'import', empty.collectionId, file);
    expect(stdout).toContain('60');
    expect(scores(await find(empty.collectionId))).toEqual(scores(await find(setup.collectionId)));
    const stats = await granary('--json', 'vectors', 'stats', empty.collectionId);
    expect(JSON.parse(stats.stdout)).toMatchObject({ document_count: 60 });
  });
});
