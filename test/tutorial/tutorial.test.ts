// The tutorial as a reader follows it, by curl: the published text where it is at hand, our own words, and the README.
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Json, Workspace } from '../emulator/stack.ts';
import { fixturePlugin, makeWorkspace, projectFolder, stack, until } from '../emulator/stack.ts';
import type { Command, Outcome } from './script.ts';
import { bashBlocks, commandsOfScript, commandsOfText, missingTools, runCommands } from './script.ts';

const reference = join(projectFolder, '..', 'shared', 'reference');
const publishedText = join(reference, 'tutorial.txt');
const publishedHost = 'https://api.mixpeek.com';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'granary-tutorial-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

it('has every tool that the tutorial asks of its reader', () => {
  expect(missingTools()).toEqual([]);
});

/** Nothing of the user's but where programs are, and that loopback needs no proxy. */
function shellEnvironment(space: Workspace): Record<string, string> {
  return {
    PATH: process.env.PATH ?? '',
    HOME: folder,
    TMPDIR: folder,
    LANG: 'C.UTF-8',
    NO_PROXY: '127.0.0.1',
    no_proxy: '127.0.0.1',
    BASE_URL: stack.base_url,
    API_KEY: space.client.key,
    NS_ID: space.namespaceId,
  };
}

/** A folder with a copy of a plugin, where the reader would have made it in step 1. */
function withPlugin(name: string, plugin: string): string {
  const parent = join(folder, name);
  mkdirSync(parent);
  cpSync(plugin, join(parent, basename(plugin)), {
    recursive: true,
    filter: (path) => !path.includes('__pycache__'),
  });
  return parent;
}

interface WalkThrough {
  readonly outcome: Outcome;
  readonly commands: readonly Command[];
  readonly space: Workspace;
}

/** What a step printed, by the order of its commands that print something. */
function printed({ outcome, commands }: WalkThrough, step: number): string[] {
  return outcome.printed.filter((text, i) => commands[i]?.step === step && text !== '');
}

function jsonOf(walk: WalkThrough, step: number, place = 0): Json {
  const text = printed(walk, step)[place];
  try {
    return JSON.parse(text ?? '');
  } catch {
    throw new Error(
      `step ${step} printed no JSON at place ${place} but ${JSON.stringify(text)}; errors: ${walk.outcome.errors}`,
    );
  }
}

/** The nine steps by what each must yield; the same for every spelling of them. */
function itYieldsWhatEachStepShould(walked: () => WalkThrough, plugin: string, textPart: string): void {
  const at = () => `/v1/namespaces/${walked().space.namespaceId}`;
  const get = (path: string): Promise<Json> => walked().space.client.call('GET', `${at()}/${path}`);

  it('finds commands for each of the steps 2 to 9, and they run to the end', () => {
    const { commands, outcome } = walked();
    expect([...new Set(commands.map(({ step }) => step))]).toEqual([2, 3, 4, 5, 6, 7, 8, 9]);
    expect({ code: outcome.code, errors: outcome.errors }).toEqual({ code: 0, errors: '' });
  });

  it('step 2: the archive is uploaded and passes every check', async () => {
    const confirmed = jsonOf(walked(), 2, printed(walked(), 2).length - 1);
    expect(confirmed).toMatchObject({
      success: true,
      validation_status: 'passed',
      validation_errors: [],
      plugin_id: `${plugin}_1_0_0`,
    });
    expect(confirmed.feature_uri).toBe(`mixpeek://${plugin}@1.0.0/${plugin}_v1_embedding`);
  });

  it('step 3: the plugin is deployed for batches', async () => {
    expect(jsonOf(walked(), 3)).toMatchObject({
      success: true,
      status: 'batch_only',
      plugin_id: `${plugin}_1_0_0`,
    });
    expect(await get(`plugins/${plugin}_1_0_0/status`)).toMatchObject({
      status: 'DEPLOYED',
      deployment_type: 'batch_only',
    });
  });

  it('step 4: the bucket holds the object with its text', async () => {
    const { BUCKET_ID } = walked().outcome.variables;
    expect(BUCKET_ID).toMatch(/^bkt_[a-z0-9]{20}$/);
    const created = jsonOf(walked(), 4);
    expect(created.blobs).toHaveLength(1);
    const { results } = await get(`buckets/${BUCKET_ID}/objects`);
    expect(results.map((object: Json) => object.object_id)).toEqual([created.object_id]);
    expect(results[0].blobs[0].data).toContain(textPart);
  });

  it('step 5: the batch completes and its document carries text and lineage', async () => {
    const { COLLECTION_ID, BATCH_ID, BUCKET_ID, STATUS } = walked().outcome.variables;
    expect(STATUS).toBe('COMPLETED');
    expect(await get(`buckets/${BUCKET_ID}/batches/${BATCH_ID}`)).toMatchObject({
      progress: { total: 1, processed: 1, failed: 0 },
    });
    const { results } = await get(`collections/${COLLECTION_ID}/documents?return_vectors=true`);
    expect(results).toHaveLength(1);
    expect(results[0].text).toContain(textPart);
    expect(results[0]._internal.lineage).toMatchObject({ bucket_id: BUCKET_ID, batch_id: BATCH_ID });
    expect(Object.values(results[0].vectors)).toEqual([expect.objectContaining({ length: 128 })]);
  });

  it('step 6: the search finds the document with a score', async () => {
    const hits = jsonOf(walked(), 6);
    expect(hits).toHaveLength(1);
    expect(hits[0].text).toContain(textPart);
    expect(hits[0].score).toBeGreaterThan(-1);
    expect(hits[0].score).toBeLessThanOrEqual(1.000001);
  });

  it('step 7: the taxonomy runs over what is there and gives nothing a topic, since nothing is labelled', async () => {
    const made = jsonOf(walked(), 7);
    expect(made.taxonomy_id).toMatch(/^tax_/);
    const run = await until('the end of the taxonomy run', async () => {
      const { last_run } = await get(`taxonomies/${made.taxonomy_id}`);
      return last_run && ['COMPLETED', 'FAILED'].includes(last_run.status) ? last_run : undefined;
    });
    expect(run).toMatchObject({ status: 'COMPLETED', enriched: 0 });
    const { results } = await get(`collections/${walked().outcome.variables.COLLECTION_ID}/documents`);
    expect(results[0]).not.toHaveProperty('auto_topic');
  });

  it('step 8: the cluster run over a single document completes with no cluster and says why', async () => {
    const made = jsonOf(walked(), 8);
    expect(made.cluster_id).toMatch(/^clust_/);
    const run = await until('the end of the cluster run', async () => {
      const found = await get(`clusters/${made.cluster_id}/executions/${made.last_run_id}`);
      return ['completed', 'failed'].includes(found.status) ? found : undefined;
    });
    expect(run).toMatchObject({ status: 'completed', num_clusters: 0 });
    expect(run.message).toMatch(/\w+ \w+ \w+/);
  });

  it('step 9: the alert and the webhook are there, with secrets that are shown once', async () => {
    const alert = jsonOf(walked(), 9);
    const webhook = jsonOf(walked(), 9, 1);
    expect(alert.alert_id).toMatch(/^alt_/);
    expect(webhook).toMatchObject({
      signing_secret: expect.stringMatching(/^whsec_/),
      events: ['batch.completed', 'batch.failed'],
    });
    expect(await get(`webhooks/${webhook.webhook_id}`)).toMatchObject({
      signing_secret: 'redacted',
      is_active: true,
    });
    expect(await get(`alerts/${alert.alert_id}`)).toMatchObject({
      condition: { field: expect.stringContaining('auto_topic'), operator: 'eq' },
    });
  });
}

const published = existsSync(publishedText);

describe('the published tutorial, literally', () => {
  let walk: WalkThrough | undefined;
  beforeAll(async () => {
    if (!published) return;
    const parent = withPlugin('published', join(reference, 'text_embed'));
    const space = await makeWorkspace('tutorial');
    const commands = commandsOfText(readFileSync(publishedText, 'utf8'), 2).map((command) => ({
      ...command,
      // What its reader replaces: the host and the folder. The poll's pause only makes the test slow.
      text: command.text
        .replaceAll(publishedHost, stack.base_url)
        .replaceAll('/path/to/parent', parent)
        .replace('sleep 10', 'sleep 0.3'),
    }));
    const outcome = await runCommands(
      commands.map(({ text }) => text),
      { folder: parent, env: shellEnvironment(space) },
    );
    walk = { commands, outcome, space };
  });
  afterAll(() => walk?.space.close());

  it('is at hand, or the other two walk-throughs stand for it', (context) => {
    context.skip(!published, 'the published text, ../shared/reference/tutorial.txt, is not on this machine');
    expect(readFileSync(publishedText, 'utf8')).toContain(publishedHost);
  });

  if (published) {
    describe('step by step', () => {
      itYieldsWhatEachStepShould(() => walk!, 'text_embed', 'Quantum computing');
    });
  }
});

describe('the same wire formats in our own words', () => {
  let walk: WalkThrough | undefined;
  beforeAll(async () => {
    const space = await makeWorkspace('own-words');
    const commands = commandsOfScript(
      readFileSync(join(projectFolder, 'test', 'tutorial', 'own-words.sh'), 'utf8'),
    ).map((command) => ({
      ...command,
      text: command.text.replace('sleep 10', 'sleep 0.3'),
    }));
    const outcome = await runCommands(
      commands.map(({ text }) => text),
      {
        folder: withPlugin('own', fixturePlugin('word_embed')),
        env: shellEnvironment(space),
        strict: true,
      },
    );
    walk = { commands, outcome, space };
  });
  afterAll(() => walk?.space.close());

  itYieldsWhatEachStepShould(() => walk!, 'word_embed', 'Knead the dough');
});

describe("the README's tutorial", () => {
  let space: Workspace | undefined;
  beforeAll(async () => {
    space = await makeWorkspace('readme');
  });
  afterAll(() => space?.close());

  it('has bash blocks that run in their order, in one shell, without a failure', async () => {
    const blocks = bashBlocks(readFileSync(join(projectFolder, 'README.md'), 'utf8'), 'The tutorial');
    expect(blocks.length).toBeGreaterThan(0);
    // A clone as its reader has it after `npm start`, as far as the blocks may use it.
    const clone = join(folder, 'clone');
    cpSync(join(projectFolder, 'examples'), join(clone, 'examples'), {
      recursive: true,
      filter: (path) => !path.includes('__pycache__'),
    });
    mkdirSync(join(clone, '.local'));
    const endpoint = {
      base_url: stack.base_url,
      api_key: space!.client.key,
      namespace_id: space!.namespaceId,
    };
    writeFileSync(join(clone, '.local', 'endpoint.json'), JSON.stringify(endpoint, null, 2));
    const { BASE_URL: _, API_KEY: __, NS_ID: ___, ...env } = shellEnvironment(space!);
    const outcome = await runCommands(
      blocks.map((text) => text.replaceAll(/\bsleep [0-9.]+/g, 'sleep 0.3')),
      { folder: clone, env, strict: true },
    );
    // The namespace that the blocks made for themselves.
    if (outcome.variables.NS_ID)
      await space!.client.ask('DELETE', `/v1/namespaces/${outcome.variables.NS_ID}`);
    const last = outcome.printed.findLast((text) => text !== '') ?? '';
    expect({ code: outcome.code, errors: outcome.errors, last }).toMatchObject({ code: 0 });
    // An answer with an error is printed by curl like any other.
    for (const text of outcome.printed) expect(text).not.toMatch(/"success":\s*false/);
    expect(outcome.variables.STATUS).toBe('COMPLETED');
  });
});
