// `granary plugin push | logs` against the whole API behind a port, with the real validator.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { askPython, findPython, functionFolder } from '../../cli/plugin/python.ts';
import { zip } from '../fixtures/zip.ts';
import { jobFor, runBatch } from '../unit/batches/world.ts';
import { program } from './program.ts';
import { apiKey, granary, type Server, startServer } from './server.ts';

let server: Server;
let folder: string;
let env: Record<string, string>;
/** What the runner answers to the one call of a deployment. */
let deployReply: unknown;

/** The real runner, with the archive that the event points to. */
async function runLocally(event: Readonly<Record<string, unknown>>): Promise<unknown> {
  const plugin = event.plugin as { readonly archive_url: string };
  const archive = Buffer.from(await (await fetch(plugin.archive_url)).arrayBuffer());
  const { replies } = await askPython<{ readonly replies: readonly unknown[] }>(findPython(undefined, {}), {
    operation: 'run',
    folder: functionFolder('plugin-runner'),
    archive_base64: archive.toString('base64'),
    blobs: {},
    events: [event],
  });
  return replies[0];
}

beforeAll(async () => {
  server = await startServer({
    validator: {
      call: async (event) => {
        const answer = await askPython<{ readonly validation: unknown }>(findPython(undefined, {}), {
          operation: 'validate',
          folder: functionFolder('plugin-validator'),
          fallback_name: '',
          event,
        });
        return answer.validation;
      },
    },
    runner: {
      call: async (event) => {
        const given = event as Readonly<Record<string, unknown>>;
        return given.operation === 'check' ? deployReply : runLocally(given);
      },
    },
  });
});
afterAll(() => server.close());
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'granary-cli-'));
  env = { GRANARY_URL: server.url, GRANARY_API_KEY: apiKey, GRANARY_NAMESPACE: server.app.namespace };
  deployReply = { ok: true, load_ms: 1, isolation: {}, logs: '' };
});
afterEach(() => {
  server.answers.length = 0;
  rmSync(folder, { recursive: true, force: true });
});

let plugins = 0;
/** A plugin that no other test has pushed. */
async function makePlugin(): Promise<{ readonly name: string; readonly dir: string }> {
  const name = `pushed_${++plugins}`;
  const dir = join(folder, name);
  expect((await program(['plugin', 'init', name, '--dir', dir])).code).toBe(0);
  return { name, dir };
}

const edit = (dir: string, path: string, change: (text: string) => string) =>
  writeFileSync(join(dir, path), change(readFileSync(join(dir, path), 'utf8')));
const push = (dir: string, ...args: string[]) => program(['plugin', 'push', dir, ...args], env);
const requests = async () => server.app.ports.table.dump().length;

describe('push', () => {
  it('checks, uploads, confirms and deploys, and prints the feature and a body that makes a collection', async () => {
    const { name, dir } = await makePlugin();
    const ended = await push(dir);
    expect(ended.code, ended.err).toBe(0);
    expect(ended.err).toMatch(
      /^\[1\/4\] checking\n\[2\/4\] sending 2 files, .* kB\n\[3\/4\] .*\n\[4\/4\] deploying\n$/,
    );
    expect(ended.out).toContain(`mixpeek://${name}@1.0.0/${name}_v1_embedding`);
    const { body: stored } = await server.app.call('GET', `/v1/namespaces/{ns}/plugins/${name}_1_0_0`);
    expect(stored).toMatchObject({ name, version: '1.0.0', deployed: true, deployment_status: 'batch_only' });
    const bucket = await server.app.call('POST', '/v1/namespaces/{ns}/buckets', {
      name: `bucket_${name}`,
      bucket_schema: { properties: { text: { type: 'text' } } },
    });
    const printed = /-d '(.*)'/.exec(ended.out)![1]!.replace('BUCKET_ID', bucket.body.bucket_id);
    const made = await server.app.call('POST', '/v1/namespaces/{ns}/collections', JSON.parse(printed));
    expect(made.status, JSON.stringify(made.body)).toBeLessThan(300);
  });

  it('changes nothing when it is repeated, nor when the same files were packed by another program', async () => {
    const { name, dir } = await makePlugin();
    expect(JSON.parse((await push(dir, '--json')).out)).toMatchObject({ state: 'uploaded' });
    const rows = await requests();
    const again = await push(dir, '--json');
    expect(again).toMatchObject({ code: 0, err: '' });
    expect(JSON.parse(again.out)).toMatchObject({
      plugin_id: `${name}_1_0_0`,
      state: 'unchanged',
      deployment_type: 'batch_only',
      feature_uris: [`mixpeek://${name}@1.0.0/${name}_v1_embedding`],
    });
    // Idempotency keys of the deployments aside, not a row was added.
    expect((await requests()) - rows).toBeLessThanOrEqual(1);

    const other = await makePlugin();
    const read = (path: string) => readFileSync(join(other.dir, path));
    const packed = zip([
      { name: 'pipeline.py', content: read('pipeline.py') },
      { name: 'manifest.py', content: read('manifest.py') },
    ]);
    const place = await server.app.call('POST', '/v1/namespaces/{ns}/plugins/uploads', {
      name: other.name,
      version: '1.0.0',
    });
    await server.archives.put(place.body.s3_key, packed);
    const confirmed = await server.app.call(
      'POST',
      `/v1/namespaces/{ns}/plugins/uploads/${place.body.upload_id}/confirm`,
    );
    expect(confirmed.status, JSON.stringify(confirmed.body)).toBe(200);
    expect(JSON.parse((await push(other.dir, '--json')).out)).toMatchObject({ state: 'unchanged' });
  });

  it('says what differs from the version that is there, and how to raise the version', async () => {
    const { name, dir } = await makePlugin();
    await push(dir);
    edit(dir, 'pipeline.py', (text) => `${text}\n# changed\n`);
    writeFileSync(join(dir, 'words.txt'), 'new');
    const ended = await push(dir);
    expect(ended).toMatchObject({ code: 8, out: '' });
    expect(ended.err).toContain(
      `${name} 1.0.0 is there already with other content (pipeline.py differs, words.txt is new)`,
    );
    expect(ended.err).toContain('granary plugin push --bump patch');
    expect(readFileSync(join(dir, 'manifest.py'), 'utf8')).toContain('version = "1.0.0"');
  });

  it.each([
    ['patch', '1.0.1'],
    ['minor', '1.1.0'],
    ['major', '2.0.0'],
  ])('raises the version by --bump %s to %s only where the content is new', async (part, version) => {
    const { name, dir } = await makePlugin();
    edit(dir, 'manifest.py', (text) => text.replace('"""What', '"""Für alle: what'));
    expect(JSON.parse((await push(dir, '--bump', part, '--json')).out)).toMatchObject({ version: '1.0.0' });
    expect(JSON.parse((await push(dir, '--bump', part, '--json')).out)).toMatchObject({ version: '1.0.0' });
    const before = readFileSync(join(dir, 'manifest.py'), 'utf8');
    edit(dir, 'pipeline.py', (text) => `${text}\n# changed\n`);
    const ended = await push(dir, '--bump', part);
    expect(ended.code, ended.err).toBe(0);
    expect(ended.err).toContain(`manifest.py: version 1.0.0 -> ${version}`);
    expect(ended.out).toContain(
      `/COLLECTION/upgrade \\\n    -d '{"feature_extractor_name":"${name}","version":"${version}"}'`,
    );
    expect(readFileSync(join(dir, 'manifest.py'), 'utf8')).toBe(before.replace('"1.0.0"', `"${version}"`));
    expect(JSON.parse((await push(dir, '--json')).out)).toMatchObject({
      plugin_id: `${name}_${version.replaceAll('.', '_')}`,
      state: 'unchanged',
    });
  });

  it('does not raise a version that stands in the manifest as no plain text', async () => {
    const { dir } = await makePlugin();
    edit(dir, 'manifest.py', (text) =>
      text.replace('version = "1.0.0"', 'MAJOR = "1"\nversion = MAJOR + ".0.0"'),
    );
    await push(dir);
    edit(dir, 'pipeline.py', (text) => `${text}\n# changed\n`);
    expect(await push(dir, '--bump', 'patch')).toMatchObject({
      code: 2,
      err: expect.stringContaining('write version = "1.0.1"'),
    });
  });

  it('sends nothing of a plugin with a fault, and shows each fault', async () => {
    const { name, dir } = await makePlugin();
    edit(dir, 'manifest.py', (text) => text.replace('"embedding_dim": 256', '"embedding_dim": "many"'));
    const rows = await requests();
    const ended = await push(dir);
    expect(ended).toMatchObject({ code: 1, out: '' });
    expect(ended.err).toContain(`${name} 1.0.0 has 1 fault; nothing was sent`);
    expect(ended.err).toMatch(/ {2}manifest\.py:\d+:\d+: features\[0\]\.embedding_dim: got 'many'/);
    expect(await requests()).toBe(rows);
  });

  it('shows what the service finds as file, line and column', async () => {
    const { dir } = await makePlugin();
    server.answers.push(
      {
        status: 404,
        body: JSON.stringify({ error: { message: 'none', details: { code: 'plugin_not_found' } } }),
      },
      {
        status: 200,
        body: JSON.stringify({ upload_id: 'upl_x', presigned_url: `${server.url}/_archives/x` }),
      },
      {
        status: 422,
        body: JSON.stringify({
          error: {
            message: 'The plugin archive has faults.',
            details: {
              code: 'plugin_invalid',
              validation_errors: [
                { location: ['manifest.py', 12, 9], message: 'not \u001b[2J allowed here', fix: 'remove it' },
                { location: ['a.bin', 0, 0], message: 'too large' },
              ],
            },
          },
        }),
      },
    );
    const ended = await push(dir);
    expect(ended.code).toBe(3);
    expect(ended.err).toContain(
      '  manifest.py:12:9: not \uFFFD[2J allowed here (remove it)\n  a.bin: too large\n',
    );
  });

  it('shows what a plugin that cannot be loaded printed, and can be repeated', async () => {
    const { name, dir } = await makePlugin();
    deployReply = {
      error: { code: 'plugin_load_failed', message: 'no weights' },
      logs: 'looking for weights\n',
    };
    const ended = await push(dir);
    expect(ended.code).not.toBe(0);
    expect(ended.err).toContain(
      `error: ${name}_1_0_0 could not be loaded: no weights\n  | looking for weights\n`,
    );
    deployReply = { ok: true };
    expect(await push(dir)).toMatchObject({
      code: 0,
      out: expect.stringContaining('is unchanged and deployed'),
    });
  });

  it('goes on deploying while the service prepares the plugin', async () => {
    const { name, dir } = await makePlugin();
    const { archive } = JSON.parse((await push(dir, '--json')).out);
    const answer = (body: Record<string, unknown>) =>
      server.answers.push({ status: 200, body: JSON.stringify(body) });
    answer({ code_hash: archive.sha256, presigned_download_url: null });
    answer({ status: 'queued', deployment_type: null, message: 'The image is being prepared.' });
    answer({ status: 'queued', deployment_type: null, message: 'The image is being prepared.' });
    const ended = await push(dir);
    expect(ended.code, ended.err).toBe(0);
    expect(ended.err.match(/its image is being prepared/g)).toHaveLength(1);
    expect(ended.out).toContain(`${name} 1.0.0 is unchanged and deployed (batch_only)`);
    expect(server.answers).toEqual([]);
  });

  it('is deployed for realtime only with a realtime.py', async () => {
    const { dir } = await makePlugin();
    const ended = await push(dir, '--deploy', 'realtime');
    expect(ended.err).toContain('has no realtime.py');
    expect(ended.code).not.toBe(0);
    expect(await push(dir, '--deploy', 'sometimes')).toMatchObject({
      code: 2,
      err: expect.stringContaining('One of: batch_only, realtime.'),
    });
  });

  it('tells a wrong key, a namespace that is not there, and a service that is gone, each in its own way', async () => {
    const { dir } = await makePlugin();
    const ask = (more: Record<string, string>) => program(['plugin', 'push', dir], { ...env, ...more });
    expect((await ask({ GRANARY_API_KEY: 'grn_wrong' })).code).toBe(4);
    expect((await ask({ GRANARY_NAMESPACE: 'ns_00000000000000000000' })).code).toBe(5);
    expect((await ask({ GRANARY_NAMESPACE: '' })).err).toContain('which namespace?');
    expect((await ask({ GRANARY_URL: 'http://127.0.0.1:9' })).code).toBe(6);
  });

  it('shows its steps in one line that goes away on a terminal', async () => {
    const { dir } = await makePlugin();
    const ended = await program(['plugin', 'push', dir], env, true);
    expect(ended.err).toContain('\r\u001b[K[1/4] checking\r\u001b[K[2/4] sending');
    expect(ended.err).not.toContain('\n');
    expect(ended.err.endsWith('\r\u001b[K')).toBe(true);
  });

  it('prints no line of progress with --json', async () => {
    const { dir } = await makePlugin();
    expect(await program(['plugin', 'push', dir, '--json'], env, true)).toMatchObject({ code: 0, err: '' });
  });

  it('works as a program', async () => {
    const { dir } = await makePlugin();
    const ended = await granary(['plugin', 'push', dir], env);
    expect(ended.code, ended.err).toBe(0);
  });
});

describe('logs', () => {
  const entry = (more: Record<string, unknown> = {}) => ({
    batch_id: 'btch_1',
    attempt: 1,
    collection_id: 'col_1',
    chunk: 0,
    feature_extractor_id: 'wordy_1_0_0',
    plugin_id: 'wordy_1_0_0',
    created_at: '2026-01-02T03:04:05.000Z',
    rows: 64,
    failed: 0,
    logs: '',
    warnings: [],
    failures: [],
    timings: { run_ms: 12.4 },
    ...more,
  });
  const page = (results: readonly unknown[], next_cursor: string | null = null) =>
    server.answers.push({ status: 200, body: JSON.stringify({ results, pagination: { next_cursor } }) });
  const logs = (...args: string[]) => program(['plugin', 'logs', ...args], env);

  it('show each call with what it printed, warned of and failed at', async () => {
    page([
      entry({
        failed: 22,
        logs: 'loading\nrow 9 (line 9): forged\n',
        warnings: ['overflow in exp (3 times)'],
        failures: [
          {
            object_id: 'obj_1',
            property: 'text',
            code: 'plugin_row_failed',
            message: 'ValueError: no\nerror: forged \u001b[2J',
            traceback: 'pipeline.py:8 in __call__\n  raise ValueError',
          },
        ],
      }),
      entry({ chunk: 1, rows: 1, plugin_id: 'other_1_0_0' }),
    ]);
    const ended = await logs('--batch', 'btch_1', '--bucket', 'docs');
    expect(ended).toMatchObject({ code: 0, err: '' });
    expect(ended.out).toBe(
      [
        '2026-01-02T03:04:05.000Z  wordy_1_0_0  batch btch_1, attempt 1, collection col_1, chunk 0: 64 rows, 22 failed, 12 ms',
        '  warning: overflow in exp (3 times)',
        '  obj_1 (text): plugin_row_failed: ValueError: no error: forged \uFFFD[2J',
        '      pipeline.py:8 in __call__',
        '        raise ValueError',
        '  ... 21 further failed rows: GET .../batches/btch_1/failures',
        '  | loading',
        '  | row 9 (line 9): forged',
        '',
        '2026-01-02T03:04:05.000Z  other_1_0_0  batch btch_1, attempt 1, collection col_1, chunk 1: 1 row, 0 failed, 12 ms',
        '',
      ].join('\n'),
    );
  });

  it('of a batch hold what the plugin printed and the traceback of each row that failed', async () => {
    const { name, dir } = await makePlugin();
    edit(dir, 'pipeline.py', (text) =>
      text.replace(
        '        vectors = ',
        '        print("got", len(rows))\n        if any("poison" in t for t in rows["data"]):\n            raise ValueError("will not eat this")\n        vectors = ',
      ),
    );
    expect((await push(dir)).code).toBe(0);
    const call = async (method: string, path: string, body?: unknown) => {
      const reply = await server.app.call(method, `/v1/namespaces/{ns}/${path}`, body);
      expect(reply.status, JSON.stringify(reply.body)).toBeLessThan(300);
      return reply.body;
    };
    const { bucket_id } = await call('POST', 'buckets', {
      name: 'fed',
      bucket_schema: { properties: { text: { type: 'text' } } },
    });
    const texts = [...Array(19).keys()].map((i) => `bread ${i}`).concat('poison');
    await call('POST', 'buckets/fed/objects/batch', {
      objects: texts.map((text) => ({ blobs: [{ property: 'text', type: 'text', data: text }] })),
    });
    await call('POST', 'collections', {
      name: 'fed',
      feature_extractors: [{ feature_extractor_name: name, version: '1.0.0' }],
      source: { type: 'bucket', bucket_ids: [bucket_id] },
    });
    const { batch_id } = await call('POST', 'buckets/fed/batches/trigger');
    await runBatch(server.app.ctx, await jobFor(server.app.ctx, bucket_id, batch_id));
    expect((await call('GET', `buckets/fed/batches/${batch_id}`)).status).toBe('COMPLETED');

    for (const args of [
      [`${name}@1.0.0`, '--failed'],
      ['--batch', batch_id, '--bucket', 'fed'],
    ]) {
      const ended = await logs(...args);
      expect(ended).toMatchObject({ code: 0, err: '' });
      expect(ended.out).toMatch(
        new RegExp(
          `^\\S+Z {2}${name}_1_0_0 {2}batch ${batch_id}, attempt 1, .*: 20 rows, 1 failed, \\d+ ms$`,
          'm',
        ),
      );
      expect(ended.out).toMatch(/^ {2}obj_\w+ \(text\): plugin_row_failed: ValueError: will not eat this/m);
      expect(ended.out).toMatch(/^ {6}.*pipeline\.py/m);
      expect(ended.out).toMatch(/^ {2}\| got \d+$/m);
    }
    expect(JSON.parse((await logs(`${name}_1_0_0`, '--object', 'obj_none', '--json')).out)).toEqual([]);
  });

  it('are read page by page until there are enough, of one plugin of a batch where both are named', async () => {
    page([entry(), entry({ plugin_id: 'other_1_0_0' })], 'next');
    page([entry({ chunk: 1 }), entry({ chunk: 2 })], 'more');
    const args = ['wordy@1.0.0', '--batch', 'btch_1', '--bucket', 'docs', '--limit', '2', '--json'];
    const read = JSON.parse((await logs(...args)).out);
    expect(read.map(({ chunk }: { chunk: number }) => chunk)).toEqual([0, 1]);
  });

  it('of a plugin that no batch has run, or that is not there, are told as that', async () => {
    const { name, dir } = await makePlugin();
    await push(dir);
    expect(await logs(`${name}_1_0_0`)).toMatchObject({
      code: 0,
      out: expect.stringMatching(/^no entry: no batch/),
    });
    expect(await logs(`${name}_1_0_0`, '--failed', '--object', 'obj_x')).toMatchObject({
      code: 0,
      out: 'no entry with a failed row\n',
    });
    expect(await logs('absent_1_0_0')).toMatchObject({ code: 5, out: '' });
    expect(await logs('--batch', 'btch_1', '--bucket', 'absent')).toMatchObject({ code: 5, out: '' });
  });

  it.each([
    [[], /whose logs\? granary plugin logs/],
    [['--batch', 'btch_1'], /--batch BATCH --bucket BUCKET/],
    [['x', '--bucket', 'docs'], /--batch BATCH --bucket BUCKET/],
    [['x', '--limit', '0'], /A whole number from 1/],
  ])('need a plugin, or a batch with its bucket: %j', async (args, says) => {
    expect(await logs(...args)).toMatchObject({ code: 2, out: '', err: expect.stringMatching(says) });
  });
});
