// A collection on the deployed stack takes another version of its plugin while it is searched; and what both printed.
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Client, Json, Setup, Workspace } from '../stack.ts';
import {
  batchEnd,
  fixturePlugin,
  makeCollection,
  makeWorkspace,
  pluginFiles,
  putTexts,
  runBatch,
  searchStages,
  uploadPlugin,
  usePlugin,
  wordFeature,
  zip,
} from '../stack.ts';

let space: Workspace;
let client: Client;
let setup: Setup;

/** `word_embed` in a version of its own: half the numbers, words alike by three letters, one chunk at a time, a print. */
function nextVersion(): Buffer {
  const files: Record<string, string> = {};
  for (const [path, text] of Object.entries(pluginFiles(fixturePlugin('word_embed')))) {
    files[path] = text
      .replaceAll('1.0.0', '1.1.0')
      .replaceAll('DIMS = 128', 'DIMS = 64')
      .replaceAll('"embedding_dim": 128', '"embedding_dim": 64')
      .replaceAll('"resource_type": "cpu"', '"resource_type": "cpu", "max_concurrency": 1')
      .replaceAll(
        'seed = int.from_bytes(hashlib.sha256(word.',
        'seed = int.from_bytes(hashlib.sha256(word[:3].',
      )
      .replaceAll(
        '        batch = batch.reset_index(drop=True)\n',
        '        batch = batch.reset_index(drop=True)\n        print("embedding", len(batch), "texts by letters")\n',
      );
  }
  return zip(files);
}

beforeAll(async () => {
  space = await makeWorkspace('upgrade');
  client = space.client;
  await usePlugin(space);
  const reply = await uploadPlugin(space, 'word_embed', '1.1.0', nextVersion());
  if (reply.status !== 200) throw new Error(JSON.stringify(reply.body));
  await client.call('POST', `${space.path}/plugins/word_embed_1_1_0/deploy?deployment_type=batch_only`);
  setup = await makeCollection(space, 'upgraded');
  await putTexts(space, setup, ['catalogue', 'dog', 'cat sat', 'tree']);
  await runBatch(space, setup);
  await client.call('POST', `${space.path}/retrievers`, {
    name: 'words',
    collection_ids: [setup.collectionId],
    stages: searchStages(),
  });
});
afterAll(() => space?.close());

async function scoresOf(query: string): Promise<string> {
  const { results } = await client.call('POST', `${space.path}/retrievers/words/execute`, {
    inputs: { query },
  });
  return results.map((hit: Json) => `${hit.text} ${hit.score.toFixed(4)}`).join(', ');
}

describe('an upgrade of a collection', () => {
  it('is searched whole in the old version, then whole in the new one, and the old version may go', async () => {
    const old = await scoresOf('cat');
    expect(old.startsWith('cat sat')).toBe(true);
    const batch = await client.call('POST', `${setup.collection}/upgrade`, {
      feature_extractor_name: 'word_embed',
      version: '1.1.0',
    });
    let isOver = false;
    const ended = batchEnd(space, setup, batch.batch_id).finally(() => {
      isOver = true;
    });
    const seen: string[] = [];
    while (!isOver) seen.push(await scoresOf('cat'));
    expect(await ended).toMatchObject({ status: 'COMPLETED', progress: { processed: 4, failed: 0 } });
    const now = await scoresOf('cat');
    // The new version takes "catalogue" and "cat" for the same word.
    expect(now.startsWith('catalogue 1.0000')).toBe(true);
    const distinct = [...seen, now].filter((one, i, all) => i === 0 || one !== all[i - 1]);
    expect([[old, now], [now]]).toContainEqual(distinct);
    expect(await client.call('GET', setup.collection)).toMatchObject({
      document_count: 4,
      features: [{ embedding_dim: 64, version: '1.1.0' }],
      feature_aliases: { [wordFeature]: wordFeature.replace('1.0.0', '1.1.0') },
    });
    expect((await client.ask('DELETE', `${space.path}/plugins/word_embed_1_0_0`)).status).toBe(200);
    expect(await scoresOf('cat')).toBe(now);
  });

  it('leaves the output of its plugin to be read, by batch and by plugin', async () => {
    const { results } = await client.call('GET', `${space.path}/plugins/word_embed_1_1_0/logs`);
    const [entry] = results.filter((one: Json) => one.collection_id === setup.collectionId);
    expect(entry).toMatchObject({ rows: 4, failed: 0, failures: [] });
    expect(entry.logs).toContain('embedding 4 texts by letters');
    const ofBatch = await client.call('GET', `${setup.bucket}/batches/${entry.batch_id}/logs`);
    expect(ofBatch.results).toEqual([entry]);
  });
});
