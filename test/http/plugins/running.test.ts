// Where a plugin runs, under what limits, and the test of its realtime service; with a runner that remembers its calls.
import { describe, expect, it } from 'vitest';
import type { ErrorCode } from '../../../functions/core/errors.ts';
import { AppError } from '../../../functions/core/errors.ts';
import type { ImageFunction, Ports } from '../../../functions/core/ports.ts';
import { removeNamespace } from '../../../functions/core/resources/namespaces/workflow.ts';
import { zipOf } from '../../fixtures/zip.ts';
import type { App, Reply } from '../app.ts';
import { makeApp } from '../app.ts';
import { expectError } from '../expect.ts';

const base = '/v1/namespaces/{ns}/plugins';
const plugin = `${base}/net_embed_1_0_0`;
const feature = {
  feature_type: 'embedding',
  feature_name: 'vector',
  embedding_dim: 3,
  distance_metric: 'cosine',
} as const;

interface Call {
  readonly where: string;
  readonly event: Record<string, unknown>;
  readonly options: unknown;
}

interface Parts {
  readonly manifest?: object;
  readonly validation?: object;
  readonly has_realtime?: boolean;
  /** What the runner says, by operation. */
  readonly answers?: Record<string, unknown>;
  readonly variants?: readonly ('egress' | 'large')[];
  readonly images?: boolean;
  readonly ports?: App['ports'];
}

function refusal(reply: Reply, code: ErrorCode) {
  expectError(reply, code);
  return reply.body.error;
}

/** An app in a stage that has what `parts` says. */
async function stageWith(parts: Parts) {
  const calls: Call[] = [];
  const validations: Record<string, unknown>[] = [];
  const caller = (where: string) => ({
    call: async (event: unknown, options?: unknown) => {
      const given = event as Record<string, unknown>;
      calls.push({ where, event: given, options });
      const answer = parts.answers?.[String(given.operation)] ?? { ok: true };
      if (answer instanceof Error) throw answer;
      return answer;
    },
  });
  const made = new Map<string, ImageFunction & { asked: number }>();
  const removed: string[] = [];
  const imageFunctions: Ports['imageFunctions'] = {
    refusal: (namespaceId, image) =>
      image.includes(namespaceId) ? undefined : 'it is not of this namespace',
    ensure: async (wanted) => {
      const key = `${wanted.namespaceId} ${wanted.pluginId}`;
      const asked = (made.get(key)?.asked ?? 0) + 1;
      made.set(key, { ...wanted, asked });
      return asked > 1 ? 'ready' : 'pending';
    },
    remove: async (namespaceId, pluginId) => {
      removed.push(`${namespaceId} ${pluginId}`);
      made.delete(`${namespaceId} ${pluginId}`);
    },
    caller: (namespaceId, pluginId) => caller(`image ${namespaceId} ${pluginId}`),
  };
  const app = await makeApp({
    ...(parts.ports ? { ports: parts.ports } : {}),
    runner: caller('standard'),
    runners: Object.fromEntries((parts.variants ?? []).map((name) => [name, caller(name)])),
    ...(parts.images ? { imageFunctions } : {}),
    validator: {
      call: async (event) => {
        validations.push(event as Record<string, unknown>);
        return (
          parts.validation ?? {
            ok: true,
            errors: [],
            warnings: [],
            manifest: { features: [feature], input_mappings: {}, compute_profile: {}, ...parts.manifest },
            has_realtime: parts.has_realtime ?? false,
          }
        );
      },
    },
  });
  const install = async (version = '1.0.0') => {
    const upload = (await app.call('POST', `${base}/uploads`, { name: 'net_embed', version })).body;
    await app.ports.archives.put(upload.s3_key, zipOf({ 'manifest.py': version, 'pipeline.py': 'p' }));
    return app.call('POST', `${base}/uploads/${upload.upload_id}/confirm`);
  };
  return { app, calls, validations, made, removed, install };
}

describe('the function that a plugin runs in', () => {
  it.each([
    ['standard', {}, 1024],
    ['standard', { memory_class: 'small' }, 256],
    ['standard', { resource_type: 'cpu', memory_class: 'standard' }, 1024],
    ['large', { memory_class: 'large' }, 2048],
    ['egress', { resource_type: 'api', memory_class: 'small' }, 256],
  ])('is %s for %o, with the memory of its class', async (where, compute_profile, memory_mb) => {
    const { app, calls, install } = await stageWith({
      manifest: { compute_profile },
      variants: ['egress', 'large'],
    });
    await install();
    expect((await app.call('POST', `${plugin}/deploy`)).status).toBe(200);
    expect(calls).toHaveLength(1);
    expect(calls[0]).toMatchObject({
      where,
      event: {
        operation: 'check',
        limits: { memory_mb },
        secrets: {},
        plugin: { plugin_id: 'net_embed_1_0_0' },
      },
      options: { tenant: `${app.principal.orgId}/${app.namespace}` },
    });
  });

  it.each([
    [{ resource_type: 'api' }, /runnerEgress/],
    [{ memory_class: 'large' }, /runnerLarge/],
  ])('is refused with the setting that is off, for %o', async (compute_profile, why) => {
    const { app, calls, install } = await stageWith({ manifest: { compute_profile } });
    await install();
    expect(refusal(await app.call('POST', `${plugin}/deploy`), 'plugin_not_supported').message).toMatch(why);
    expect(calls).toEqual([]);
    expect((await app.call('GET', plugin)).body.deployment_status).toBe('not_deployed');
  });

  it('is refused for a large one with a way to the Internet, which no function is', async () => {
    const { app, install } = await stageWith({
      manifest: { compute_profile: { resource_type: 'api', memory_class: 'large' } },
      variants: ['egress', 'large'],
    });
    await install();
    expectError(await app.call('POST', `${plugin}/deploy`), 'plugin_not_supported');
  });

  it('is told to the validator, so that a confirm refuses what could never be deployed', async () => {
    const plain = await stageWith({});
    await plain.install();
    expect(plain.validations[0]!.allow).toEqual({
      egress: false,
      container_images: false,
      memory_classes: ['small', 'standard'],
    });
    const full = await stageWith({ variants: ['egress', 'large'], images: true });
    await full.install();
    expect(full.validations[0]!.allow).toEqual({
      egress: true,
      container_images: false,
      memory_classes: ['small', 'standard', 'large'],
    });
    await full.app.call('PATCH', '/v1/namespaces/{ns}', { plan: { container_images: true } });
    await full.install('1.0.1');
    expect(full.validations[1]!.allow).toMatchObject({ container_images: true });
  });
});

describe('a plugin in a container image', () => {
  const allow = (app: App) => app.call('PATCH', '/v1/namespaces/{ns}', { plan: { container_images: true } });
  /** The manifest is read before the namespace is known, so the image names it by a pattern of the stand-in. */
  async function withImage() {
    const parts: { manifest: { container_image?: string } } = { manifest: {} };
    const stage = await stageWith({ ...parts, images: true });
    parts.manifest.container_image = `registry/granary/${stage.app.namespace}:1`;
    return stage;
  }

  it('is deployed in two steps while its function is prepared, runs there, and goes with its undeployment', async () => {
    const { app, calls, made, removed, install } = await withImage();
    await allow(app);
    expect((await install()).status).toBe(200);
    const first = await app.call('POST', `${plugin}/deploy`);
    expect(first.body).toMatchObject({ status: 'queued', deployment_type: null });
    expect(calls).toEqual([]);
    expect((await app.call('GET', `${plugin}/status`)).body).toMatchObject({
      status: 'QUEUED',
      deployed: false,
    });
    const second = await app.call('POST', `${plugin}/deploy`);
    expect(second.body.status).toBe('batch_only');
    expect(calls.map(({ where }) => where)).toEqual([`image ${app.namespace} net_embed_1_0_0`]);
    expect([...made.values()]).toMatchObject([
      { image: `registry/granary/${app.namespace}:1`, memoryClass: 'standard' },
    ]);
    expect((await app.call('POST', `${plugin}/undeploy`)).status).toBe(200);
    expect(removed).toEqual([`${app.namespace} net_embed_1_0_0`]);
    // Again, for a first try that died in between.
    await app.call('POST', `${plugin}/undeploy`);
    expect(removed).toHaveLength(2);
  });

  it('takes its function with it when it is deleted, or its namespace is', async () => {
    const { app, removed, install } = await withImage();
    await allow(app);
    await install();
    expect((await app.call('DELETE', plugin)).status).toBe(200);
    expect(removed).toEqual([`${app.namespace} net_embed_1_0_0`]);
    await install();
    await app.call('DELETE', '/v1/namespaces/{ns}');
    const job = {
      kind: 'namespace_delete',
      org_id: app.principal.orgId,
      namespace_id: app.namespace,
      request_id: 'r',
    } as const;
    for (let done = false; !done; ) done = (await removeNamespace(app.ctx, job)).done;
    expect(removed.slice(1)).toEqual([`${app.namespace} net_embed_1_0_0`]);
  });

  it('is refused at confirm without the plan, with the way to it', async () => {
    const { app, install } = await withImage();
    const error = refusal(await install(), 'plugin_invalid');
    expect(error.message).toMatch(/plan .*container_images/s);
    expect((await app.call('GET', base)).body.total).toBe(0);
  });

  it('is refused by the validator with the reason that only the API knows', async () => {
    const { app, install } = await stageWith({
      images: true,
      validation: {
        ok: false,
        errors: [
          {
            type: 'container_image_not_supported',
            location: ['manifest.py', 9, 19],
            message: 'container_image is set, but here there are none',
            fix: 'remove it',
          },
        ],
        warnings: [],
        manifest: null,
        has_realtime: false,
      },
    });
    const [fault] = refusal(await install(), 'plugin_invalid').details.validation_errors;
    expect(fault).toMatchObject({ location: ['manifest.py', 9, 19], message: expect.stringMatching(/plan/) });
    expect(fault.fix).toContain(`PATCH /v1/namespaces/${app.namespace}`);
  });

  it('is refused at confirm in a stage without images, and for an image of another namespace', async () => {
    const none = await stageWith({ manifest: { container_image: 'registry/x:1' } });
    expect(refusal(await none.install(), 'plugin_invalid').message).toContain('containerImages');
    const strange = await stageWith({
      manifest: { container_image: 'registry/granary/ns_x:1' },
      images: true,
    });
    await allow(strange.app);
    expect(refusal(await strange.install(), 'plugin_invalid').message).toContain('not of this namespace');
  });

  it('is not deployed when it asks for the Internet, which no image has', async () => {
    const manifest = { container_image: '', compute_profile: { resource_type: 'api' } };
    const { app, made, install } = await stageWith({ manifest, images: true, variants: ['egress'] });
    manifest.container_image = `registry/granary/${app.namespace}:1`;
    await allow(app);
    expect((await install()).status).toBe(200);
    expect(refusal(await app.call('POST', `${plugin}/deploy`), 'plugin_not_supported').message).toContain(
      '"cpu"',
    );
    expect(made.size).toBe(0);
  });

  it('is not deployed any more once the plan is taken away', async () => {
    const { app, calls, install } = await withImage();
    await allow(app);
    await install();
    await app.call('PATCH', '/v1/namespaces/{ns}', { plan: { container_images: false } });
    expectError(await app.call('POST', `${plugin}/deploy`), 'plugin_not_supported');
    expect(calls).toEqual([]);
  });

  it('needs a plan that only an admin key can change, at creation too', async () => {
    const { app } = await stageWith({ images: true });
    const writer = app.as({ ...app.principal, permissions: ['read', 'write', 'delete'] });
    const plan = { container_images: true };
    for (const method of ['PATCH', 'PUT'])
      expectError(await writer.call(method, '/v1/namespaces/{ns}', { plan }), 'key_not_permitted');
    expectError(await writer.call('POST', '/v1/namespaces', { name: 'mine', plan }), 'key_not_permitted');
    expect((await writer.call('PATCH', '/v1/namespaces/{ns}', { description: 'd' })).body.plan).toEqual({
      container_images: false,
    });
    expect((await allow(app)).body.plan).toEqual(plan);
    expect((await writer.call('PATCH', '/v1/namespaces/{ns}', { description: 'e' })).body.plan).toEqual(plan);
    expect((await app.call('POST', '/v1/namespaces', { name: 'made', plan })).body.plan).toEqual(plan);
  });
});

describe('the realtime test', () => {
  const request = { inputs: { text: 'a query', n: [1, { a: null }] }, parameters: { top: 3 } };
  const test = (app: Pick<App, 'call'>, body: unknown = request) =>
    app.call('POST', `${plugin}/realtime/test`, body);
  const answering = (realtime: unknown) => stageWith({ has_realtime: true, answers: { realtime } });

  it('sends one request to the service and gives back what it says, with its logs', async () => {
    const { app, calls, install } = await answering({
      answer: { embedding: [1, 2, 3], note: null },
      logs: 'hello\n',
      timings: {},
    });
    await install();
    await app.call('POST', `${plugin}/deploy?deployment_type=realtime`);
    const reply = await test(app);
    expect(reply.status).toBe(200);
    expect(reply.body).toEqual({
      success: true,
      plugin_id: 'net_embed_1_0_0',
      outputs: { embedding: [1, 2, 3], note: null },
      latency_ms: expect.any(Number),
      logs: 'hello\n',
    });
    expect(calls[1]!.event).toMatchObject({
      operation: 'realtime',
      ...request,
      features: [{ name: 'vector', dims: 3 }],
      deadline_ms: expect.any(Number),
    });
    expect((await test(app, { inputs: {} })).status).toBe(200);
  });

  it('is refused for a plugin without realtime.py, and for one that is not deployed for it', async () => {
    const without = await stageWith({});
    await without.install();
    await without.app.call('POST', `${plugin}/deploy`);
    expect(refusal(await test(without.app), 'plugin_realtime_unavailable').message).toContain('realtime.py');
    const { app, install } = await answering({ answer: 1 });
    await install();
    expect(refusal(await test(app), 'plugin_not_deployed').message).toContain('deployment_type=realtime');
    await app.call('POST', `${plugin}/deploy?deployment_type=batch_only`);
    expectError(await test(app), 'plugin_not_deployed');
  });

  it('says what the service failed with', async () => {
    const { app, install } = await answering({
      error: { code: 'plugin_row_failed', message: "KeyError: 'image'", retryable: false },
      logs: 'trace',
    });
    await install();
    await app.call('POST', `${plugin}/deploy`);
    const error = refusal(await test(app), 'plugin_failed');
    expect(error.message).toContain("KeyError: 'image'");
    expect(error.details).toMatchObject({ plugin_error: 'plugin_row_failed', logs: 'trace' });
  });

  it.each([
    ['plugin_timeout', { error: { code: 'plugin_timeout', message: 'not finished after 20 s' } }],
    ['plugin_unavailable', { logs: 'neither answer nor error' }],
    ['plugin_failed', { answer: 'x'.repeat(1_000_001) }],
    ['plugin_unavailable', new AppError('plugin_unavailable')],
  ] as const)('is %s when the runner answers so', async (code, realtime) => {
    const { app, install } = await answering(realtime);
    await install();
    await app.call('POST', `${plugin}/deploy`);
    expectError(await test(app), code);
  });

  it.each([[{}], [{ inputs: 'text' }], [{ inputs: {}, parameters: [] }], [{ inputs: {}, more: 1 }]])(
    'refuses %j',
    async (body) => {
      const { app, calls, install } = await answering({ answer: 1 });
      await install();
      await app.call('POST', `${plugin}/deploy`);
      expectError(await test(app, body), 'request_invalid');
      expect(calls).toHaveLength(1);
    },
  );
});

describe('what a plugin says of itself', () => {
  it('shows the facts of its manifest, the findings with their places, and its versions', async () => {
    const { app, install } = await stageWith({
      validation: {
        ok: true,
        errors: [],
        warnings: [
          {
            type: 'dunder_attribute',
            location: ['pipeline.py', 12, 4],
            message: 'uses __class__',
            fix: 'leave it out',
          },
          { type: 'no_description', location: ['manifest.py', 0, 0], message: 'no description' },
        ],
        manifest: {
          features: [feature],
          input_mappings: {},
          compute_profile: { batch_size: 8, memory_class: 'small' },
          dependencies: ['numpy', 'pillow>=12'],
          secrets: ['MODEL_KEY'],
          container_image: null,
        },
        has_realtime: true,
      },
    });
    await install();
    app.ports.clock.advance(1000);
    await install('1.1.0');
    const { body } = await app.call('GET', plugin);
    expect(body).toMatchObject({
      dependencies: ['numpy', 'pillow>=12'],
      secrets: ['MODEL_KEY'],
      container_image: null,
      memory_class: 'small',
      realtime: true,
      compute_profile: { batch_size: 8, memory_class: 'small' },
      validation_warnings: ['pipeline.py:12:4: uses __class__', 'manifest.py:0:0: no description'],
      findings: [
        {
          type: 'dunder_attribute',
          file: 'pipeline.py',
          line: 12,
          column: 4,
          message: 'uses __class__',
          fix: 'leave it out',
        },
        { type: 'no_description', file: 'manifest.py', line: 0, column: 0, fix: null },
      ],
    });
    expect(body.versions).toMatchObject([
      { plugin_id: 'net_embed_1_1_0', version: '1.1.0', deployment_status: 'not_deployed' },
      { plugin_id: 'net_embed_1_0_0', version: '1.0.0', deployment_status: 'not_deployed' },
    ]);
  });
});
