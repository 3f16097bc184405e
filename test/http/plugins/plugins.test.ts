// Plugins: upload, confirm, deploy, and away again; the checks of the archive itself are in test/unit/plugins.
import { createHash } from 'node:crypto';
import { afterEach, describe, expect, it } from 'vitest';
import { setCrashHook } from '../../../functions/core/crash.ts';
import { AppError } from '../../../functions/core/errors.ts';
import { archiveLimits } from '../../../functions/core/resources/plugins/archive.ts';
import { zip, zipOf } from '../../fixtures/zip.ts';
import type { App } from '../app.ts';
import { makeApp } from '../app.ts';
import { expectError, expectSameRefusal, faults } from '../expect.ts';

const base = '/v1/namespaces/{ns}/plugins';
const archive = zipOf({
  'text_embed/manifest.py': 'manifest',
  'text_embed/pipeline.py': 'steps',
  'text_embed/words.txt': 'a b',
});
const feature = {
  feature_type: 'embedding',
  feature_name: 'vector',
  embedding_dim: 3,
  distance_metric: 'cosine',
} as const;
const passed = {
  ok: true,
  errors: [],
  warnings: [{ type: 'style', location: ['manifest.py', 3, 1], message: 'no description' }],
  manifest: {
    description: null,
    features: [feature],
    input_mappings: { text: 'text' },
    compute_profile: { batch_size: 8 },
  },
  has_realtime: false,
};

interface Calls {
  readonly app: App;
  readonly validations: {
    name: string;
    version: string;
    files: { path: string; content_base64: string }[];
    other_files: string[];
  }[];
  readonly checks: { payload: Record<string, unknown>; options: unknown }[];
}

/** An app whose validator and runner answer as told, and remember what they were asked. */
async function withPlugins(
  parts: { validation?: unknown; check?: unknown; settings?: object; ports?: App['ports'] } = {},
): Promise<Calls> {
  const validations: Calls['validations'] = [];
  const checks: Calls['checks'] = [];
  const answer = (what: unknown) => (what instanceof Error ? Promise.reject(what) : Promise.resolve(what));
  const app = await makeApp({
    ...(parts.ports ? { ports: parts.ports } : {}),
    validator: {
      call: (payload) => {
        validations.push(payload as never);
        return answer(parts.validation ?? passed);
      },
    },
    runner: {
      call: (payload, options) => {
        checks.push({ payload: payload as never, options });
        return answer(parts.check ?? { ok: true });
      },
    },
    ...(parts.settings ? { settings: parts.settings } : {}),
  });
  return { app, validations, checks };
}

const ask = async (app: Pick<App, 'call'>, version = '1.0.0', name = 'text_embed') =>
  (await app.call('POST', `${base}/uploads`, { name, version, file_size_bytes: 5000 })).body;
const confirm = (app: Pick<App, 'call'>, id: string, body?: unknown) =>
  app.call('POST', `${base}/uploads/${id}/confirm`, body);

/** Uploads and confirms a version. */
async function install(app: App, version = '1.0.0', bytes: Uint8Array = archive) {
  const upload = await ask(app, version);
  await app.ports.archives.put(upload.s3_key, bytes);
  return confirm(app, upload.upload_id);
}
const plugin = `${base}/text_embed_1_0_0`;
const events = (app: App) =>
  app.ports.table
    .dump()
    .filter((row) => row.pk.startsWith('OUTBOX#'))
    .map((row) => JSON.parse(String(row.message)).event?.event_type)
    .filter((type) => type?.startsWith('plugin.'));

afterEach(() => setCrashHook(undefined));

describe('200', () => {
  it('an upload takes any size: only the content type is part of the URL', async () => {
    const { app } = await withPlugins();
    const upload = await ask(app);
    expect(upload).toMatchObject({ name: 'text_embed', version: '1.0.0', namespace_id: app.namespace });
    expect(upload.presigned_url).toBe(`memory://archives/${upload.s3_key}?put=3600&type=application%2Fzip`);
  });

  it('confirm hands the sources to the validator, keeps the very bytes and makes the version', async () => {
    const { app, validations } = await withPlugins();
    const reply = await install(app);
    expect(reply.status).toBe(200);
    expect(reply.body).toMatchObject({
      success: true,
      plugin_id: 'text_embed_1_0_0',
      validation_status: 'passed',
      validation_errors: [],
      validation_warnings: ['manifest.py:3:1: no description'],
      deployment_status: 'not_deployed',
      feature_uri: 'mixpeek://text_embed@1.0.0/vector',
      feature_uris: ['mixpeek://text_embed@1.0.0/vector'],
    });
    expect(validations).toEqual([
      {
        name: 'text_embed',
        version: '1.0.0',
        files: [
          { path: 'manifest.py', content_base64: Buffer.from('manifest').toString('base64') },
          { path: 'pipeline.py', content_base64: Buffer.from('steps').toString('base64') },
        ],
        other_files: ['words.txt'],
        allow: { egress: false, container_images: false, memory_classes: ['small', 'standard'] },
      },
    ]);
    const sha256 = createHash('sha256').update(archive).digest('hex');
    expect(reply.body.s3_archive_url).toBe(`s3://archives/plugins/${app.namespace}/${sha256}.zip`);
    expect(
      Buffer.from(await app.ports.archives.get(`plugins/${app.namespace}/${sha256}.zip`)).equals(archive),
    ).toBe(true);
  });

  it('confirm repeated, and 16 at once, give one version and the same answer', async () => {
    const { app } = await withPlugins();
    const upload = await ask(app);
    await app.ports.archives.put(upload.s3_key, archive);
    const replies = await Promise.all(Array.from({ length: 16 }, () => confirm(app, upload.upload_id)));
    replies.push(await confirm(app, upload.upload_id, { message: 'again' }));
    for (const reply of replies) expect([reply.status, reply.body]).toEqual([200, replies[0]!.body]);
    expect((await app.call('GET', base)).body.total).toBe(1);
  });

  it('the presigned URL used again after the confirm changes nothing', async () => {
    const { app } = await withPlugins();
    const upload = await ask(app);
    await app.ports.archives.put(upload.s3_key, archive);
    const done = await confirm(app, upload.upload_id);
    await app.ports.archives.put(upload.s3_key, zipOf({ 'manifest.py': 'evil' }));
    expect((await confirm(app, upload.upload_id)).body).toEqual(done.body);
    const [, key] = done.body.s3_archive_url.split('s3://archives/');
    expect(Buffer.from(await app.ports.archives.get(key)).equals(archive)).toBe(true);
  });

  it('lists versions newest first, whatever their numbers', async () => {
    const { app } = await withPlugins();
    for (const version of ['2.0.0', '1.0.0', '10.0.0', '1.5.0']) {
      app.ports.clock.advance(5);
      await install(app, version);
    }
    const list = await app.call('GET', base);
    expect(list.body.results.map((one: { version: string }) => one.version)).toEqual([
      '1.5.0',
      '10.0.0',
      '1.0.0',
      '2.0.0',
    ]);
  });

  it('get finds a version by id and as name@version; the list holds it under both names', async () => {
    const { app } = await withPlugins();
    await install(app);
    const byId = await app.call('GET', plugin);
    expect((await app.call('GET', `${base}/text_embed@1.0.0`)).body).toEqual(byId.body);
    expect(byId.body).toMatchObject({
      success: true,
      plugin_id: 'text_embed_1_0_0',
      deployed: false,
      realtime: false,
      input_mappings: { text: 'text' },
      presigned_download_url: null,
    });
    expect(byId.body.plugin.plugin_id).toBe('text_embed_1_0_0');
    expect(
      (await app.call('GET', `${plugin}?return_presigned_urls=true`)).body.presigned_download_url,
    ).toContain(byId.body.code_hash);
    const list = await app.call('GET', base);
    expect(list.body.results).toEqual(list.body.plugins);
    expect(list.body).toMatchObject({ success: true, namespace_id: app.namespace, total: 1 });
    expect((await app.call('POST', `${base}/list`, { search: 'nothing' })).body.plugins).toEqual([]);
  });

  it('deploy loads the plugin once, by tenant, and marks it; doing it again does nothing', async () => {
    const { app, checks } = await withPlugins();
    await install(app);
    expect((await app.call('GET', `${plugin}/status`)).body).toMatchObject({
      status: 'NOT_DEPLOYED',
      deployed: false,
      deployment_type: null,
    });
    const reply = await app.call('POST', `${plugin}/deploy`);
    expect(reply.body).toMatchObject({
      success: true,
      status: 'batch_only',
      deployment_type: 'batch_only',
      feature_uri: 'mixpeek://text_embed@1.0.0/vector',
    });
    expect((await app.call('POST', `${plugin}/deploy`, {})).body).toEqual(reply.body);
    expect(checks).toHaveLength(1);
    expect(checks[0]).toMatchObject({
      payload: {
        operation: 'check',
        realtime: false,
        features: [{ name: 'vector', dims: 3 }],
        plugin: { plugin_id: 'text_embed_1_0_0', root: 'text_embed/' },
      },
      options: { tenant: `${app.principal.orgId}/${app.namespace}` },
    });
    expect((await app.call('GET', `${plugin}/status`)).body).toMatchObject({
      status: 'DEPLOYED',
      deployed: true,
      realtime_enabled: false,
    });
    expect(events(app)).toEqual(['plugin.deployed']);
  });

  it('without a type a plugin with realtime.py is deployed for realtime, where the stage can', async () => {
    const withRealtime = { validation: { ...passed, has_realtime: true } };
    const can = await withPlugins(withRealtime);
    await install(can.app);
    expect((await can.app.call('POST', `${plugin}/deploy`)).body).toMatchObject({
      status: 'deployed',
      deployment_type: 'realtime',
    });
    const cannot = await withPlugins({ ...withRealtime, settings: { realtimePlugins: false } });
    await install(cannot.app);
    expect((await cannot.app.call('POST', `${plugin}/deploy`)).body.deployment_type).toBe('batch_only');
    expectError(
      await cannot.app.call('POST', `${plugin}/deploy?deployment_type=realtime`),
      'plugin_realtime_unavailable',
    );
  });

  it('the type comes by query or body', async () => {
    const { app } = await withPlugins({ validation: { ...passed, has_realtime: true } });
    await install(app);
    expect(
      (await app.call('POST', `${plugin}/deploy`, { deployment_type: 'batch_only' })).body.deployment_type,
    ).toBe('batch_only');
    expect((await app.call('POST', `${plugin}/deploy?deployment_type=realtime`)).body.deployment_type).toBe(
      'realtime',
    );
  });

  it('undeploy and delete take it out of use; two versions of one content share an archive until the last is gone', async () => {
    const { app } = await withPlugins();
    await install(app);
    await install(app, '1.0.1');
    await app.call('POST', `${plugin}/deploy`);
    expect((await app.call('POST', `${plugin}/undeploy`)).body).toMatchObject({
      status: 'not_deployed',
      deployment_type: null,
    });
    const key = (await app.call('GET', plugin)).body.s3_archive_url.replace('s3://archives/', '');
    expect((await app.call('DELETE', plugin)).body).toMatchObject({
      success: true,
      plugin_id: 'text_embed_1_0_0',
      deployment_removed: false,
    });
    expect(await app.ports.archives.head(key)).toBeDefined();
    await app.call('DELETE', `${base}/text_embed_1_0_1`);
    expect(await app.ports.archives.head(key)).toBeUndefined();
    expectError(await app.call('DELETE', plugin), 'plugin_not_found');
  });

  it('a version that was deleted can be uploaded again', async () => {
    const { app } = await withPlugins();
    await install(app);
    await app.call('DELETE', plugin);
    expect((await install(app, '1.0.0', zipOf({ 'manifest.py': 'other' }))).status).toBe(200);
  });
});

describe('401, 403, 404 and 410', () => {
  it('need a key and its permission', async () => {
    const { app } = await withPlugins();
    await install(app);
    expectError(await app.as(undefined).call('POST', `${plugin}/deploy`), 'key_invalid');
    const reader = app.as({ ...app.principal, permissions: ['read'] });
    for (const [method, path] of [
      ['POST', `${base}/uploads`],
      ['POST', `${plugin}/deploy`],
      ['POST', `${plugin}/undeploy`],
      ['DELETE', plugin],
    ] as const) {
      expectError(await reader.call(method, path), 'key_not_permitted');
    }
    expect((await reader.call('GET', `${plugin}/status`)).status).toBe(200);
  });

  it("another namespace's plugin and upload are refused like random ones", async () => {
    const { app } = await withPlugins();
    const stranger = (await withPlugins()).app;
    const other = (await app.call('POST', '/v1/namespaces', { name: 'other' })).body.namespace_id;
    const upload = (
      await app.call('POST', `/v1/namespaces/${other}/plugins/uploads`, { name: 'hidden', version: '1.0.0' })
    ).body;
    await app.ports.archives.put(upload.s3_key, archive);
    const random = 'upl_0123456789abcdefghij';
    expectSameRefusal(
      await confirm(app, upload.upload_id),
      upload.upload_id,
      await confirm(app, random),
      random,
    );
    await app.call('POST', `/v1/namespaces/${other}/plugins/uploads/${upload.upload_id}/confirm`);
    for (const [method, tail] of [
      ['GET', ''],
      ['GET', '/status'],
      ['POST', '/deploy'],
      ['POST', '/undeploy'],
      ['DELETE', ''],
    ] as const) {
      const path = (id: string) => `${base}/${id}${tail}`;
      expectSameRefusal(
        await app.call(method, path('hidden_1_0_0')),
        'hidden_1_0_0',
        await app.call(method, path('random_1_0_0')),
        'random_1_0_0',
      );
      expectError(await stranger.call(method, path('hidden_1_0_0')), 'plugin_not_found');
    }
  });

  it('a name without a version is refused with the ids of its versions', async () => {
    const { app } = await withPlugins();
    await install(app);
    await install(app, '1.1.0');
    for (const [method, tail] of [
      ['GET', ''],
      ['POST', '/deploy'],
      ['DELETE', ''],
    ] as const) {
      const reply = await app.call(method, `${base}/text_embed${tail}`);
      expectError(reply, 'plugin_not_found');
      expect(reply.body.error.message).toContain('text_embed_1_1_0, text_embed_1_0_0');
    }
  });

  it('an upload that expired is 410', async () => {
    const { app } = await withPlugins();
    const upload = await ask(app);
    await app.ports.archives.put(upload.s3_key, archive);
    app.ports.clock.advance(3_601_000);
    expectError(await confirm(app, upload.upload_id), 'upload_expired');
  });

  it('a namespace holds 50 versions at most', async () => {
    const { app } = await withPlugins();
    for (let i = 0; i < 50; i++) expect((await install(app, `1.0.${i}`)).status).toBe(200);
    expectError(await install(app, '2.0.0'), 'quota_exceeded');
  });
});

describe('409', () => {
  it('confirm before the PUT says what to do', async () => {
    const { app } = await withPlugins();
    const reply = await confirm(app, (await ask(app)).upload_id);
    expectError(reply, 'upload_missing');
    expect(reply.body.error.message).toContain('application/zip');
  });

  it('a version has one content for ever', async () => {
    const { app } = await withPlugins();
    await install(app);
    const reply = await install(app, '1.0.0', zipOf({ 'manifest.py': 'other' }));
    expectError(reply, 'plugin_version_exists');
    expect(reply.body.error.details.existing_id).toBe('text_embed_1_0_0');
    expect((await install(app)).status).toBe(200);
  });

  it('bytes that are replaced between check and copy are not taken', async () => {
    const { app } = await withPlugins();
    const upload = await ask(app);
    await app.ports.archives.put(upload.s3_key, archive);
    const copy = app.ports.archives.copyFrom.bind(app.ports.archives);
    app.ports.archives.copyFrom = async (...args) => {
      await app.ports.archives.put(upload.s3_key, zipOf({ 'manifest.py': 'evil' }));
      return copy(...args);
    };
    expectError(await confirm(app, upload.upload_id), 'upload_changed');
    expect((await app.call('GET', base)).body.total).toBe(0);
  });

  it('bytes that are replaced between the look and the read are not taken under the wrong name', async () => {
    const { app } = await withPlugins();
    const upload = await ask(app);
    await app.ports.archives.put(upload.s3_key, archive);
    const head = app.ports.archives.head.bind(app.ports.archives);
    let first = true;
    app.ports.archives.head = async (key) => {
      const info = await head(key);
      if (first) await app.ports.archives.put(upload.s3_key, zipOf({ 'manifest.py': 'swapped' }));
      first = false;
      return info;
    };
    expectError(await confirm(app, upload.upload_id), 'upload_changed');
    expect((await app.call('GET', base)).body.total).toBe(0);
  });

  it('an ETag that the caller names must be that of the bytes', async () => {
    const { app } = await withPlugins();
    const upload = await ask(app);
    const { etag } = await app.ports.archives.put(upload.s3_key, archive);
    expectError(await confirm(app, upload.upload_id, { etag: 'other' }), 'upload_changed');
    expect((await confirm(app, upload.upload_id, { etag: etag.replaceAll('"', '') })).status).toBe(200);
  });
});

describe('a crash', () => {
  it('between copy and row is mended by the next confirm', async () => {
    const { app } = await withPlugins();
    setCrashHook((point) => {
      if (point === 'plugin.confirm.after_copy') throw new Error('killed');
    });
    expect((await install(app)).status).toBe(500);
    expect((await app.call('GET', base)).body.total).toBe(0);
    setCrashHook(undefined);
    expect((await install(app)).status).toBe(200);
  });

  it('between check and row leaves it undeployed, and the next deploy works', async () => {
    const { app } = await withPlugins();
    await install(app);
    setCrashHook((point) => {
      if (point === 'plugin.deploy.after_check') throw new Error('killed');
    });
    expect((await app.call('POST', `${plugin}/deploy`)).status).toBe(500);
    expect((await app.call('GET', `${plugin}/status`)).body.status).toBe('NOT_DEPLOYED');
    setCrashHook(undefined);
    expect((await app.call('POST', `${plugin}/deploy`)).status).toBe(200);
    expect(events(app)).toEqual(['plugin.deployed']);
  });
});

describe('422 and what the plugin does', () => {
  it.each([
    [{ version: '1.0.0' }, ['body.name: missing']],
    [{ name: 'ab', version: '1.0.0' }, ['body.name: invalid_format']],
    [{ name: '1abc', version: '1.0.0' }, ['body.name: invalid_format']],
    [{ name: 'has-dash', version: '1.0.0' }, ['body.name: invalid_format']],
    [{ name: 'text_embed', version: '1.0' }, ['body.version: invalid_format']],
    [{ name: 'text_embed', version: 'v1.0.0' }, ['body.version: invalid_format']],
    [{ name: 'text_embed', version: '1.0.0', file_size_bytes: 0 }, ['body.file_size_bytes: too_small']],
    [
      { name: 'text_embed', version: '1.0.0', presigned_url_expiration: 10 },
      ['body.presigned_url_expiration: too_small'],
    ],
    [{ name: 'text_embed', version: '1.0.0', s3_key: 'x' }, ['body.s3_key: extra_forbidden']],
  ])('%j', async (body, expected) => {
    const { app } = await withPlugins();
    const reply = await app.call('POST', `${base}/uploads`, body);
    expectError(reply, 'request_invalid');
    expect(faults(reply)).toEqual(expected);
  });

  it('a bad archive lists what is wrong, makes nothing, and may be replaced by a good one under the same upload', async () => {
    const { app, validations } = await withPlugins();
    const upload = await ask(app);
    await app.ports.archives.put(
      upload.s3_key,
      zip([
        { name: '../evil.py', content: 'x' },
        { name: 'link', mode: 0o120777 },
      ]),
    );
    const reply = await confirm(app, upload.upload_id);
    expectError(reply, 'plugin_invalid');
    expect(faults(reply)).toEqual(['../evil.py.0.0: archive_bad_name', 'link.0.0: archive_special_file']);
    expect(validations).toEqual([]);
    expect((await app.call('GET', base)).body.total).toBe(0);
    await app.ports.archives.put(upload.s3_key, archive);
    expect((await confirm(app, upload.upload_id)).status).toBe(200);
  });

  it('an archive above the cap is refused without being read', async () => {
    const { app } = await withPlugins();
    const upload = await ask(app);
    await app.ports.archives.put(upload.s3_key, archive);
    const head = app.ports.archives.head.bind(app.ports.archives);
    app.ports.archives.head = async (key) => ({
      ...(await head(key))!,
      bytes: archiveLimits.packedBytesMax + 1,
    });
    app.ports.archives.get = () => Promise.reject(new Error('read'));
    const reply = await confirm(app, upload.upload_id);
    expectError(reply, 'plugin_invalid');
    expect(faults(reply)).toEqual(['archive.0.0: archive_too_large']);
  });

  it("the validator's findings come with their file, line and column", async () => {
    const errors = [
      {
        type: 'manifest_wrong_key',
        location: ['manifest.py', 12, 5],
        message: '"dimensions" is no key',
        fix: 'use "embedding_dim"',
      },
    ];
    const { app } = await withPlugins({ validation: { ...passed, ok: false, errors, manifest: null } });
    const reply = await install(app);
    expectError(reply, 'plugin_invalid');
    expect(reply.body.error.details.validation_errors).toEqual(errors);
    expect(reply.body.error.message).toBe('manifest.py:12:5: "dimensions" is no key');
  });

  it('a validator that cannot be reached is 503, and nothing is made', async () => {
    const { app } = await withPlugins({
      validation: new AppError('plugin_unavailable', { internal: 'function error' }),
    });
    expectError(await install(app), 'plugin_unavailable');
    expect((await app.call('GET', base)).body.total).toBe(0);
  });

  it('a plugin that does not load is failed, with what it said; a mended one can be deployed later', async () => {
    const { app } = await withPlugins({
      check: {
        error: { code: 'plugin_load_failed', message: 'ImportError: no module named x' },
        logs: 'Traceback',
      },
    });
    await install(app);
    const reply = await app.call('POST', `${plugin}/deploy`);
    expectError(reply, 'plugin_failed');
    expect(reply.body.error.message).toContain('ImportError');
    expect(reply.body.error.details).toMatchObject({ plugin_error: 'plugin_load_failed', logs: 'Traceback' });
    expect((await app.call('GET', `${plugin}/status`)).body).toMatchObject({
      status: 'FAILED',
      deployed: false,
    });
    expect(events(app)).toEqual(['plugin.failed']);
  });

  it.each(['plugin_timeout', 'plugin_unavailable'] as const)(
    'a runner that answers %s changes nothing',
    async (code) => {
      const { app } = await withPlugins({ check: new AppError(code) });
      await install(app);
      expectError(await app.call('POST', `${plugin}/deploy`), code);
      expect((await app.call('GET', `${plugin}/status`)).body.status).toBe('NOT_DEPLOYED');
    },
  );

  it('realtime without a realtime.py is refused with the way out', async () => {
    const { app } = await withPlugins();
    await install(app);
    const reply = await app.call('POST', `${plugin}/deploy?deployment_type=realtime`);
    expectError(reply, 'plugin_realtime_unavailable');
    expect(reply.body.error.message).toContain('batch_only');
    expectError(await app.call('POST', `${plugin}/deploy?deployment_type=gpu`), 'request_invalid');
  });
});
