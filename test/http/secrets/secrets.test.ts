// Secrets: they go in, reach the plugins that declare them, and come out nowhere else.
import { describe, expect, it } from 'vitest';
import type { ErrorCode } from '../../../functions/core/errors.ts';
import { AppError } from '../../../functions/core/errors.ts';
import { zipOf } from '../../fixtures/zip.ts';
import type { App, Reply } from '../app.ts';
import { makeApp } from '../app.ts';
import { expectError, faults } from '../expect.ts';

const base = '/v1/namespaces/{ns}/secrets';
const value = 'sk-live-0123456789-never-shown';
const put = (app: Pick<App, 'call'>, name = 'MODEL_KEY', secret_value: unknown = value) =>
  app.call('POST', base, { secret_name: name, secret_value });

/** The error of a reply that must be this one. */
function refusal(reply: Reply, code: ErrorCode) {
  expectError(reply, code);
  return reply.body.error;
}

const feature = {
  feature_type: 'embedding',
  feature_name: 'vector',
  embedding_dim: 3,
  distance_metric: 'cosine',
} as const;

interface Call {
  readonly operation: string;
  readonly secrets: Record<string, string>;
}

/** An app with a plugin that declares secrets, and what its runner was called with. */
async function withPlugin(declared: readonly string[], ports?: App['ports']) {
  const calls: Call[] = [];
  const app = await makeApp({
    ...(ports ? { ports } : {}),
    validator: {
      call: async () => ({
        ok: true,
        errors: [],
        warnings: [],
        manifest: { features: [feature], input_mappings: {}, compute_profile: {}, secrets: declared },
        has_realtime: true,
      }),
    },
    runner: {
      call: async (event) => {
        calls.push(event as Call);
        return (event as Call).operation === 'realtime' ? { answer: { ok: true }, logs: '' } : { ok: true };
      },
    },
  });
  const install = async (within: Pick<App, 'call'> = app) => {
    const upload = (
      await within.call('POST', '/v1/namespaces/{ns}/plugins/uploads', {
        name: 'asks_model',
        version: '1.0.0',
      })
    ).body;
    await app.ports.archives.put(upload.s3_key, zipOf({ 'manifest.py': 'm', 'pipeline.py': 'p' }));
    const confirmed = await within.call(
      'POST',
      `/v1/namespaces/{ns}/plugins/uploads/${upload.upload_id}/confirm`,
    );
    expect(confirmed.status).toBe(200);
  };
  await install();
  return { app, calls, install };
}
const plugin = '/v1/namespaces/{ns}/plugins/asks_model_1_0_0';

describe('2xx', () => {
  it('a secret is made, listed by its name, replaced and deleted, and no answer shows its value', async () => {
    const app = await makeApp();
    const made = await put(app);
    expect(made.status).toBe(201);
    expect(made.body).toMatchObject({ secret_name: 'MODEL_KEY', version: 1, created: true, updated: null });
    const listed = await app.call('GET', base);
    expect(listed.body.results).toEqual([
      {
        secret_name: 'MODEL_KEY',
        version: 1,
        created_at: made.body.created_at,
        updated_at: made.body.updated_at,
      },
    ]);
    const changed = await app.call('PUT', `${base}/MODEL_KEY`, { secret_value: `${value}-2` });
    expect(changed.body).toMatchObject({ secret_name: 'MODEL_KEY', version: 2, updated: true });
    const searched = await app.call('POST', `${base}/list`, { search: 'MODEL*' });
    expect(searched.body.total).toBe(1);
    const gone = await app.call('DELETE', `${base}/MODEL_KEY`);
    expect(gone.body).toMatchObject({ secret_name: 'MODEL_KEY', deleted: true });
    expect((await app.call('GET', base)).body.results).toEqual([]);
    for (const reply of [made, listed, changed, searched, gone])
      expect(JSON.stringify(reply.body)).not.toContain('sk-live');
  });

  it('a plugin gets exactly the secrets that its manifest declares, with their latest values', async () => {
    const { app, calls } = await withPlugin(['MODEL_KEY', 'REGION']);
    await put(app);
    await put(app, 'REGION', 'eu');
    await put(app, 'OTHER', 'not for this plugin');
    expect((await app.call('POST', `${plugin}/deploy`)).status).toBe(200);
    await app.call('PUT', `${base}/REGION`, { secret_value: 'us' });
    expect((await app.call('POST', `${plugin}/realtime/test`, { inputs: {} })).status).toBe(200);
    expect(calls.map(({ secrets }) => secrets)).toEqual([
      { MODEL_KEY: value, REGION: 'eu' },
      { MODEL_KEY: value, REGION: 'us' },
    ]);
  });

  it('every byte of a value survives, and 8,192 of them fit', async () => {
    const { app, calls } = await withPlugin(['MODEL_KEY']);
    const exact = `\u0000 "quotes" \\ \n\u{1F511}${'é'.repeat(4_080)}`;
    const long = exact + 'x'.repeat(8_192 - Buffer.byteLength(exact));
    expect((await put(app, 'MODEL_KEY', long)).status).toBe(201);
    expectError(await put(app, 'LONGER', `${long}x`), 'request_invalid');
    await app.call('POST', `${plugin}/deploy`);
    expect(calls[0]!.secrets.MODEL_KEY).toBe(long);
  });
});

describe('the value', () => {
  it('is in no row, object, log line or event, also when the request is repeated under an idempotency key', async () => {
    const { app } = await withPlugin(['MODEL_KEY']);
    const keyed = { 'Idempotency-Key': 'once' };
    const body = { secret_name: 'MODEL_KEY', secret_value: value };
    const first = await app.call('POST', base, body, keyed);
    const again = await app.call('POST', base, body, keyed);
    expect(again.headers['Idempotency-Replayed']).toBe('true');
    expect(again.body).toEqual(first.body);
    await app.call('PUT', `${base}/MODEL_KEY`, { secret_value: value });
    await app.call('POST', `${plugin}/deploy`, undefined, { 'Idempotency-Key': 'deploy' });
    await app.call('POST', `${plugin}/realtime/test`, { inputs: {} }, { 'Idempotency-Key': 'test' });
    const everything = JSON.stringify([app.ports.table.dump(), app.ports.logged]);
    for (const form of [value, Buffer.from(value).toString('base64'), Buffer.from(value).toString('hex')])
      expect(everything).not.toContain(form);
    for (const store of [app.ports.blobs, app.ports.archives, app.ports.index]) {
      for (const { key } of (await store.list('')).blobs)
        expect(Buffer.from(await store.get(key)).includes(value), key).toBe(false);
    }
  });

  it('is not told by the digest of the request: equal requests of two deployments have different ones', async () => {
    const digests = [];
    for (const pepper of ['one pepper of 32 bytes or even more', 'two pepper of 32 bytes or even more']) {
      const app = await makeApp({ settings: { pepper: async () => pepper } });
      await app.call(
        'POST',
        '/v1/namespaces/main/secrets',
        { secret_name: 'PIN', secret_value: '1234' },
        {
          'Idempotency-Key': 'k',
        },
      );
      const row = app.ports.table.dump().find(({ pk }) => pk.startsWith('IDEM#'))!;
      digests.push(row.request_hash);
    }
    expect(digests[0]).toMatch(/^[0-9a-f]{64}$/);
    expect(digests[0]).not.toBe(digests[1]);
  });

  it('is not logged when the runner fails and quotes it', async () => {
    const app = await makeApp({
      validator: {
        call: async () => ({
          ok: true,
          errors: [],
          warnings: [],
          manifest: { features: [feature], input_mappings: {}, compute_profile: {}, secrets: ['MODEL_KEY'] },
          has_realtime: false,
        }),
      },
      runner: {
        call: async (event) => {
          throw new AppError('plugin_unavailable', { internal: `runner failed: ${JSON.stringify(event)}` });
        },
      },
    });
    await put(app);
    const upload = (
      await app.call('POST', '/v1/namespaces/{ns}/plugins/uploads', { name: 'asks_model', version: '1.0.0' })
    ).body;
    await app.ports.archives.put(upload.s3_key, zipOf({ 'manifest.py': 'm', 'pipeline.py': 'p' }));
    await app.call('POST', `/v1/namespaces/{ns}/plugins/uploads/${upload.upload_id}/confirm`);
    const reply = await app.call('POST', `${plugin}/deploy`);
    expectError(reply, 'plugin_unavailable');
    const lines = JSON.stringify(app.ports.logged);
    expect(lines).toContain('[secret]');
    expect(lines).not.toContain(value);
  });

  it('is audited as changed, without itself', async () => {
    const app = await makeApp();
    await put(app);
    await app.call('PUT', `${base}/MODEL_KEY`, { secret_value: 'x' });
    await app.call('DELETE', `${base}/MODEL_KEY`);
    const actions = app.ports.table
      .dump()
      .filter((row) => row.pk.startsWith('AUD#') && row.target === 'MODEL_KEY')
      .map((row) => row.action);
    expect(actions.sort()).toEqual(['secret.create', 'secret.delete', 'secret.update']);
  });

  it('does not open under another name or in another namespace: a row that was moved is of no use', async () => {
    const { app } = await withPlugin(['STOLEN']);
    await put(app);
    const row = app.ports.table.dump().find(({ sk }) => sk === 'SECRET#MODEL_KEY')!;
    await app.ports.table.writeMany([{ put: { ...row, sk: 'SECRET#STOLEN', name: 'STOLEN' } }]);
    expectError(await app.call('POST', `${plugin}/deploy`), 'internal_error');
  });
});

describe('4xx', () => {
  it('a declared secret that is missing fails the deployment with the way out, and nothing is called', async () => {
    const { app, calls } = await withPlugin(['MODEL_KEY', 'REGION']);
    await put(app, 'REGION', 'eu');
    const reply = await app.call('POST', `${plugin}/deploy`);
    const error = refusal(reply, 'plugin_secret_missing');
    expect(error.message).toContain('MODEL_KEY');
    expect(error.message).not.toContain('REGION');
    expect(error.message).toContain(`/v1/namespaces/${app.namespace}/secrets`);
    expect(error.details.missing_secrets).toEqual(['MODEL_KEY']);
    expect(calls).toEqual([]);
    await put(app);
    expect((await app.call('POST', `${plugin}/deploy`)).status).toBe(200);
  });

  it("another namespace's secret of the same name is never given, neither of the organisation nor of another", async () => {
    const { app, calls } = await withPlugin(['MODEL_KEY']);
    await app.call('POST', '/v1/namespaces', { name: 'beside' });
    await app.call('POST', '/v1/namespaces/beside/secrets', {
      secret_name: 'MODEL_KEY',
      secret_value: 'of the namespace beside',
    });
    const stranger = await makeApp({ ports: app.ports });
    await put(stranger, 'MODEL_KEY', 'of a stranger');
    expectError(await app.call('POST', `${plugin}/deploy`), 'plugin_secret_missing');
    expect(calls).toEqual([]);
    await put(app, 'MODEL_KEY', 'own');
    await app.call('POST', `${plugin}/deploy`);
    expect(calls.map(({ secrets }) => secrets)).toEqual([{ MODEL_KEY: 'own' }]);
  });

  it('a taken name says how to change the value, and the old value stays', async () => {
    const { app, calls } = await withPlugin(['MODEL_KEY']);
    await put(app);
    const error = refusal(await put(app, 'MODEL_KEY', 'second'), 'secret_name_taken');
    expect(error.message).toContain('PUT');
    await app.call('POST', `${plugin}/deploy`);
    expect(calls[0]!.secrets).toEqual({ MODEL_KEY: value });
  });

  it('a namespace holds 50 secrets', async () => {
    const app = await makeApp();
    for (let i = 0; i < 50; i++) expect((await put(app, `S${i}`)).status).toBe(201);
    expectError(await put(app, 'ONE_MORE'), 'quota_exceeded');
    expect((await app.call('GET', `${base}?limit=100`)).body.results).toHaveLength(50);
  });

  it.each([
    ['lower_case', 'x'],
    ['1ST', 'x'],
    ['WITH-DASH', 'x'],
    ['A'.repeat(65), 'x'],
    ['', 'x'],
  ])('the name %s is refused', async (name, secret_value) => {
    const app = await makeApp();
    const reply = await put(app, name, secret_value);
    expectError(reply, 'request_invalid');
    expect(faults(reply)).toEqual(['body.secret_name: invalid_format']);
  });

  it.each([
    ['a number', 918273645, 'wrong_type'],
    ['nothing', undefined, 'missing'],
    ['a list', ['sk-live'], 'wrong_type'],
    ['the empty string', '', 'too_small'],
    ['half a surrogate pair', '\ud800', 'wrong_value'],
    ['9,000 bytes', 'sk-live '.repeat(1_125), 'too_large'],
  ])('a value that is %s is refused without being repeated', async (_, secret_value, type) => {
    const app = await makeApp();
    const reply = await app.call('POST', base, { secret_name: 'NAME', secret_value });
    expectError(reply, 'request_invalid');
    expect(faults(reply)).toEqual([`body.secret_value: ${type}`]);
    expect(JSON.stringify([reply.body, app.ports.logged])).not.toMatch(/918273645|sk-live/);
  });

  it.each(['PUT', 'DELETE'])('%s of a secret that is not there is 404', async (method) => {
    const app = await makeApp();
    const body = method === 'PUT' ? { secret_value: 'x' } : undefined;
    expectError(await app.call(method, `${base}/NONE`, body), 'secret_not_found');
    expectError(await app.call(method, `${base}/not%20a%23name`, body), 'secret_not_found');
  });
});

describe('a lost answer', () => {
  it('of a create does not make the repetition a conflict, and a lost race of two creates is one', async () => {
    const app = await makeApp();
    const replies = await Promise.all(Array.from({ length: 8 }, (_, i) => put(app, 'RACE', `value ${i}`)));
    expect(replies.filter(({ status }) => status === 201)).toHaveLength(1);
    for (const reply of replies.filter(({ status }) => status !== 201))
      expectError(reply, 'secret_name_taken');
  });

  it('of two new values at once, each is stored or refused as changed', async () => {
    const app = await makeApp();
    await put(app);
    const replies = await Promise.all(
      Array.from({ length: 8 }, (_, i) =>
        app.call('PUT', `${base}/MODEL_KEY`, { secret_value: `value ${i}` }),
      ),
    );
    const stored = replies.filter(({ status }) => status === 200).length;
    expect(stored).toBeGreaterThan(0);
    for (const reply of replies.filter(({ status }) => status !== 200)) expectError(reply, 'secret_changed');
    expect((await app.call('GET', base)).body.results[0].version).toBe(1 + stored);
  });
});
