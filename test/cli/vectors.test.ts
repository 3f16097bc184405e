// The program `granary vectors` as people run it, with the mistakes that people make.
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { run } from '../../cli/main.ts';
import type { StoredCollection } from '../../functions/core/resources/collections/service.ts';
import { dims, featureUri, seedBatch, seedCollection } from '../http/clusters/seed.ts';
import { apiKey, granary, type Server, startServer } from './server.ts';

let server: Server;
let from: StoredCollection;
let folder: string;
let env: Record<string, string>;

const vector = (first: number) => [first, ...new Array<number>(dims - 1).fill(0.5)];

beforeAll(async () => {
  server = await startServer();
  from = await seedCollection(server.app, 'from');
  await seedCollection(server.app, 'to');
  await seedBatch(
    server.app,
    from,
    ['a', 'b', 'c'].map((name, i) => ({
      id: `doc_${name}`,
      fields: { text: name, topic: i < 2 ? 'x' : 'y' },
      vector: vector(i),
    })),
  );
});
afterAll(() => server.close());
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'granary-cli-'));
  env = { GRANARY_URL: server.url, GRANARY_API_KEY: apiKey, GRANARY_NAMESPACE: server.app.namespace };
});
afterEach(() => {
  server.blobs.damage = undefined;
  rmSync(folder, { recursive: true, force: true });
});

const cli = (...args: string[]) => granary(['vectors', ...args], env);
const file = (name: string) => join(folder, name);

describe('export and import', () => {
  it.each(['articles.parquet', 'articles.jsonl'])(
    'take documents with their vectors from one collection to another by %s',
    async (name) => {
      const exported = await cli('export', 'from', '-o', file(name));
      expect(exported).toMatchObject({ code: 0, err: '' });
      expect(exported.out).toMatch(/^3 documents with their vectors of version \d+ in .*articles/);
      const to = await seedCollection(server.app, `to-${name.replace('.', '-')}`);
      const imported = await cli('import', to.id, file(name));
      expect(imported).toMatchObject({ code: 0, err: '' });
      expect(imported.out).toBe(`3 documents imported into ${to.id}: 3 new, 0 replaced\n`);
      const read = await server.app.call(
        'GET',
        `/v1/namespaces/{ns}/collections/${to.id}/documents/doc_b?return_vectors=true`,
      );
      expect(read.body).toMatchObject({ text: 'b', vectors: { [featureUri]: vector(1) } });
      const again = JSON.parse((await cli('import', to.id, file(name), '--json')).out);
      expect(again).toMatchObject({ status: 'COMPLETED', documents_added: 0, document_count: 3 });
    },
  );

  it('choose documents by a filter, leave vectors out, and print JSON', async () => {
    const filter = JSON.stringify({ field: 'topic', operator: 'eq', value: 'x' });
    const ended = await cli(
      'export',
      'from',
      '-o',
      file('x.jsonl'),
      '--filter',
      filter,
      '--no-vectors',
      '--json',
    );
    expect(ended.code, ended.err).toBe(0);
    expect(JSON.parse(ended.out)).toMatchObject({ document_count: 2, format: 'json', file: file('x.jsonl') });
    const lines = readFileSync(file('x.jsonl'), 'utf8')
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
    expect(lines.map((line) => [line.document_id, line.vectors])).toEqual([
      ['doc_a', undefined],
      ['doc_b', undefined],
    ]);
  });

  it('wait for what became a task', async () => {
    await server.app.ports.table.write([
      { update: server.app.ctx.ns.head(from.id), set: { document_count: 90_000 } },
    ]);
    const running = cli('export', 'from', '-o', file('large.parquet'));
    const begun = async () => (await server.app.call('GET', '/v1/tasks')).body.results.length > 0;
    while (!(await begun())) await new Promise((resolve) => setImmediate(resolve));
    await server.work();
    expect(await running).toMatchObject({ code: 0, err: '' });
    await server.app.ports.table.write([
      { update: server.app.ctx.ns.head(from.id), set: { document_count: 3 } },
    ]);
    expect(readFileSync(file('large.parquet')).subarray(0, 4).toString()).toBe('PAR1');
  });

  it('never leave half a file, nor replace one without being told to', async () => {
    server.blobs.damage = (bytes) => bytes.subarray(0, bytes.length / 2);
    const cut = await cli('export', 'from', '-o', file('cut.parquet'));
    expect(cut.code).toBe(6);
    expect(cut.err).toMatch(/the file was cut off: \d+ of \d+ bytes came/);
    expect(existsSync(file('cut.parquet'))).toBe(false);
    expect(existsSync(file('cut.parquet.part'))).toBe(false);
    server.blobs.damage = undefined;
    writeFileSync(file('mine.parquet'), 'mine');
    expect(await cli('export', 'from', '-o', file('mine.parquet'))).toMatchObject({
      code: 2,
      err: expect.stringContaining('--force replaces it'),
    });
    expect(readFileSync(file('mine.parquet'), 'utf8')).toBe('mine');
    expect((await cli('export', 'from', '-o', file('mine.parquet'), '--force')).code).toBe(0);
  });

  it('tell each row that is wrong, by its number, and import nothing', async () => {
    writeFileSync(
      file('bad.jsonl'),
      '{"document_id":"doc_n1"}\n{"document_id":"doc_n2","vectors":{"toy_embedding":[1,2]}}\n{"text":"x"}\n',
    );
    const ended = await cli('import', 'from', file('bad.jsonl'));
    expect(ended.code).toBe(3);
    expect(ended.err).toContain('row 2, toy_embedding: has 2 values; the feature has 4 dimensions');
    expect(ended.err).toContain('row 3, document_id: is missing');
    expect(ended.err).toMatch(/request [0-9a-f-]{36}/);
    const read = await server.app.call('GET', `/v1/namespaces/{ns}/collections/from/documents/doc_n1`);
    expect(read.status).toBe(404);
  });
});

describe('a mistake', () => {
  const cases: [
    string,
    (given: Record<string, string>) => [string[], Record<string, string>],
    number,
    RegExp,
  ][] = [
    [
      'no URL',
      ({ GRANARY_URL: _, ...rest }) => [['stats', 'from'], rest],
      2,
      /where is the service\? Set GRANARY_URL/,
    ],
    [
      'no key',
      ({ GRANARY_API_KEY: _, ...rest }) => [['stats', 'from'], rest],
      2,
      /which key\? Set GRANARY_API_KEY/,
    ],
    [
      'no namespace',
      ({ GRANARY_NAMESPACE: _, ...rest }) => [['stats', 'from'], rest],
      2,
      /which namespace\?/,
    ],
    [
      'a URL that is none',
      (e) => [['stats', 'from'], { ...e, GRANARY_URL: 'granary' }],
      2,
      /"granary" is no URL/,
    ],
    [
      'a URL where nobody listens',
      (e) => [['stats', 'from'], { ...e, GRANARY_URL: 'http://127.0.0.1:1' }],
      6,
      /cannot be reached: .*Is the stack running\? "npm start" starts it\./,
    ],
    [
      'a wrong key',
      (e) => [['stats', 'from'], { ...e, GRANARY_API_KEY: 'grn_wrong' }],
      4,
      /did not accept the API key\. Check GRANARY_API_KEY/,
    ],
    [
      'an unknown collection',
      (e) => [['stats', 'nothing'], e],
      5,
      /No collection "nothing"|no such collection/,
    ],
    [
      'an unknown namespace',
      (e) => [['-n', 'ns_nothing', 'stats', 'from'], e],
      5,
      /No namespace "ns_nothing"/,
    ],
    [
      'a file that is not there',
      (e) => [['import', 'from', '/nonexistent/x.parquet'], e],
      2,
      /cannot be read/,
    ],
    [
      'a file without a format',
      (e) => [['export', 'from', '-o', 'articles'], e],
      2,
      /does not say which format/,
    ],
    [
      'a filter that is no JSON',
      (e) => [['export', 'from', '-o', 'x.csv', '--filter', 'topic=x'], e],
      2,
      /Not JSON/,
    ],
    [
      'an unknown backend',
      (e) => [['migrate', '--to', 'faiss'], e],
      2,
      /One of: segments, s3_vectors, lancedb/,
    ],
    ['an unknown command', (e) => [['exprot', 'from'], e], 2, /unknown command/],
    ['a csv file to import', (e) => [['import', 'from', 'x.csv'], e], 2, /csv cannot be imported/],
  ];
  it.each(cases)('%s ends with a sentence and its exit code', async (_, make, code, message) => {
    const [args, environment] = make(env);
    const ended = await granary(['vectors', ...args], environment);
    expect(ended.err).toMatch(message);
    expect(ended.err).not.toMatch(/\n\s+at .*:\d+:\d+/);
    expect([ended.code, ended.out]).toEqual([code, '']);
  });

  it('of a truncated or foreign file is seen before anything is sent', async () => {
    await cli('export', 'from', '-o', file('whole.parquet'));
    const whole = readFileSync(file('whole.parquet'));
    writeFileSync(file('cut.parquet'), whole.subarray(0, -10));
    expect(await cli('import', 'from', file('cut.parquet'))).toMatchObject({
      code: 2,
      err: expect.stringContaining('was cut off'),
    });
    writeFileSync(file('text.parquet'), '{"document_id":"x"}\n');
    expect(await cli('import', 'from', file('text.parquet'))).toMatchObject({
      code: 2,
      err: expect.stringContaining('not a Parquet file'),
    });
    writeFileSync(file('empty.jsonl'), '');
    expect(await cli('import', 'from', file('empty.jsonl'))).toMatchObject({
      code: 2,
      err: expect.stringContaining('is empty'),
    });
    // Cut in the middle, with its end glued on: the service sees it.
    writeFileSync(file('glued.parquet'), Buffer.concat([whole.subarray(0, 200), whole.subarray(-300)]));
    expect(await cli('import', 'from', file('glued.parquet'))).toMatchObject({
      code: 3,
      err: expect.stringContaining('Parquet'),
    });
  });

  it('is told as JSON where JSON was asked for, with the id of the request', async () => {
    const ended = await granary(['--json', 'vectors', 'stats', 'nothing'], env);
    const { error } = JSON.parse(ended.err);
    expect(error).toMatchObject({ code: 'collection_not_found', exit: 'notFound' });
    expect(error.request_id).toMatch(/^[0-9a-f-]{36}$/);
  });

  it('of another service at the URL is told as that', async () => {
    server.answers.push({ status: 200, body: '<html>hello</html>' });
    expect(await cli('stats', 'from')).toMatchObject({
      code: 6,
      err: expect.stringContaining('not as Granary does'),
    });
  });
});

describe('settings', () => {
  it('come from a profile that only its owner may read', async () => {
    const { GRANARY_NAMESPACE: namespace, GRANARY_API_KEY: key, GRANARY_URL: url } = env;
    mkdirSync(join(folder, 'granary'));
    const config = join(folder, 'granary', 'config.json');
    writeFileSync(config, JSON.stringify({ profiles: { prod: { url: `${url}/v1/`, key, namespace } } }));
    chmodSync(config, 0o644);
    const own = { XDG_CONFIG_HOME: folder };
    const ask = (...args: string[]) => granary([...args, 'vectors', 'stats', 'from', '--live'], own);
    expect(await ask('--profile', 'prod')).toMatchObject({
      code: 2,
      err: expect.stringContaining('chmod 600'),
    });
    chmodSync(config, 0o600);
    expect(await ask('--profile', 'prod')).toMatchObject({ code: 0, err: '' });
    expect(await ask('--profile', 'other')).toMatchObject({
      code: 2,
      err: expect.stringContaining('it has prod'),
    });
    expect(await ask()).toMatchObject({ code: 2, err: expect.stringContaining('where is the service') });
  });
});

describe('stats', () => {
  it('shows versions, rows, files, bytes and the backend', async () => {
    const ended = await cli('stats', 'from', '--live');
    expect(ended).toMatchObject({ code: 0, err: '' });
    expect(ended.out).toMatch(/version \d+, 3 documents, backend segments/);
    expect(ended.out).toMatch(/feature +dims +metric +storage +segments +rows +live +size/);
    expect(JSON.parse((await cli('stats', 'from', '--json')).out)).toMatchObject({
      document_count: 3,
      backend: 'segments',
      copies: [],
    });
  });
});

describe('on a terminal', () => {
  const watch = async (args: string[], more: Record<string, string> = {}) => {
    const shown = { out: '', err: '' };
    const sink = (name: 'out' | 'err') => ({
      isTTY: true,
      write: (text: string) => {
        shown[name] += text;
      },
    });
    const code = await run(args, { out: sink('out'), err: sink('err'), env: { ...env, ...more } });
    return { code, ...shown };
  };

  it('shows progress in one line that goes away, and errors in colour, unless NO_COLOR is set', async () => {
    const ended = await watch(['vectors', 'export', 'from', '-o', file('tty.parquet')]);
    expect(ended.code).toBe(0);
    expect(ended.err).toContain('\r\u001b[Kexporting ...');
    expect(ended.err.endsWith('\r\u001b[K')).toBe(true);
    expect((await watch(['vectors', 'stats', 'nothing'])).err).toContain('\u001b[31merror\u001b[0m');
    expect((await watch(['vectors', 'stats', 'nothing'], { NO_COLOR: '1' })).err).not.toContain('\u001b[');
  });

  it('shows no control characters of what others wrote', async () => {
    const ended = await watch(['vectors', 'stats', 'x\u001b[2Jy']);
    expect(ended.err).not.toContain('\u001b[2J');
  });
});

describe('migrate', () => {
  const state = (backend: string, rows: number | null) => ({
    status: 200,
    body: JSON.stringify({
      namespace_id: 'ns_x',
      backend,
      storage: 'float32',
      state: 'ready',
      migration: null,
      enabled_backends: ['segments', 'lancedb'],
      features: [
        {
          collection_id: from.id,
          feature_uri: featureUri,
          dims,
          metric: 'cosine',
          version: 1,
          stored_rows: 3,
          copies: rows === null ? [] : [{ backend: 'lancedb', synced_version: 1, rows, error: null }],
        },
      ],
    }),
  });
  const index = () => ({
    status: 200,
    body: JSON.stringify({
      collection_id: from.id,
      version: 1,
      document_count: 3,
      features: [{ feature_uri: featureUri, live_rows: 3 }],
    }),
  });
  const begun = {
    status: 202,
    body: JSON.stringify({ task_id: 'task_x', from: 'segments', to: 'lancedb', state: 'migrating' }),
  };
  const task = (status: string, error: string | null = null) => ({
    status: 200,
    body: JSON.stringify({ status, error }),
  });

  it('waits, prints counts before and after, and ends well only if they are equal', async () => {
    server.answers.push(
      state('segments', null),
      index(),
      begun,
      task('PROCESSING'),
      task('COMPLETED'),
      state('lancedb', 3),
      index(),
    );
    const equal = await cli('migrate', '--to', 'lancedb', '--wait');
    expect(equal).toMatchObject({ code: 0, err: '' });
    expect(equal.out).toMatch(/3 +3 +equal/);
    server.answers.push(
      state('segments', null),
      index(),
      begun,
      task('COMPLETED'),
      state('lancedb', 2),
      index(),
    );
    const different = await cli('migrate', '--to', 'lancedb', '--wait');
    expect(different).toMatchObject({ code: 8, err: expect.stringContaining('differ') });
    expect(different.out).toMatch(/3 +2 +DIFFERENT/);
    server.answers.push(state('segments', null), index(), begun, task('FAILED', 'the copy differs'));
    expect(await cli('migrate', '--to', 'lancedb', '--wait')).toMatchObject({
      code: 7,
      err: expect.stringContaining('the copy differs'),
    });
    server.answers.push(state('segments', null), index(), begun);
    expect(await cli('migrate', '--to', 'lancedb')).toMatchObject({
      code: 0,
      out: expect.stringContaining('task task_x'),
    });
    expect(server.answers).toEqual([]);
  });

  it('to where the vectors are already, or to what the stage does not have, is refused by the service', async () => {
    expect(await cli('migrate', '--to', 'segments')).toMatchObject({
      code: 3,
      err: expect.stringContaining('segments'),
    });
    expect(await cli('migrate', '--to', 'lancedb')).toMatchObject({
      code: 4,
      err: expect.stringContaining('lancedb'),
    });
  });
});
