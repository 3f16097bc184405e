// Webhooks over HTTP: of a namespace, and of the whole organisation by the same operations.
import { describe, expect, it } from 'vitest';
import type { GranaryEvent } from '../../../functions/core/events.ts';
import { eventTypes } from '../../../functions/core/events.ts';
import { allRoutes } from '../../../functions/core/resources/contracts.ts';
import { routes } from '../../../functions/core/resources/webhooks/contract.ts';
import { validSecrets } from '../../../functions/core/resources/webhooks/service.ts';
import type { StoredWebhook } from '../../../functions/core/resources/webhooks/store.ts';
import type { App } from '../app.ts';
import { makeApp } from '../app.ts';
import { expectError, expectSameRefusal, faults } from '../expect.ts';

const ofNamespace = '/v1/namespaces/{ns}/webhooks';
const ofOrganization = '/v1/organizations/webhooks';
const hook = {
  webhook_name: 'pipeline',
  url: 'https://hooks.example.com/granary',
  events: ['batch.completed', 'batch.failed'],
};
const publicOnly = { settings: { allowLoopback: false } };

const outbox = (app: App) =>
  app.ports.table
    .dump()
    .filter((row) => row.pk.startsWith('OUTBOX#'))
    .map((row) => JSON.parse(String(row.message)).event as GranaryEvent)
    .filter(Boolean);
const secretsOf = async (app: App, id: string) => {
  const row = app.ports.table.dump().find((item) => item.sk === `WEBHOOK#${id}`) as unknown as StoredWebhook;
  return validSecrets(row, await app.ports.settings.pepper(), app.ports.clock.now());
};

describe.each([
  ['a namespace', ofNamespace],
  ['the organisation', ofOrganization],
])('webhooks of %s', (_, base) => {
  describe('201 and 200', () => {
    it('create makes a secret, shows it once, and keeps it sealed', async () => {
      const app = await makeApp();
      const made = await app.call('POST', base, hook);
      expect(made.status).toBe(201);
      expect(made.body.signing_secret).toMatch(/^whsec_[A-Za-z0-9+/]{43}=$/);
      expect(made.body).toMatchObject({
        webhook_name: 'pipeline',
        name: 'pipeline',
        events: hook.events,
        event_types: hook.events,
        is_active: true,
        disabled_reason: null,
      });
      expect(made.body.webhook_id).toMatch(/^wh_[0-9a-f]{16}$/);
      const later = await app.call('GET', `${base}/${made.body.webhook_id}`);
      expect(later.body.signing_secret).toBe('redacted');
      expect(JSON.stringify([later.body, app.ports.table.dump(), app.ports.logged])).not.toContain(
        made.body.signing_secret.slice(6),
      );
      expect(await secretsOf(app, made.body.webhook_id)).toEqual([made.body.signing_secret]);
    });

    it('create takes the form of clients, and names what the server sets by itself', async () => {
      const app = await makeApp();
      const reply = await app.call('POST', base, {
        webhook_name: 'w',
        event_types: ['alert.triggered'],
        channels: [
          {
            channel: 'webhook',
            configs: {
              url: hook.url,
              headers: { 'X-Team': 'a' },
              timeout: 5,
              signing_secret: 'x'.repeat(24),
            },
          },
        ],
        webhook_id: 'mine',
        created_at: 'now',
      });
      expect(reply.status).toBe(201);
      expect(reply.body.warnings).toEqual([expect.stringContaining('webhook_id, created_at')]);
      expect(reply.body).toMatchObject({
        url: hook.url,
        events: ['alert.triggered'],
        signing_secret: 'x'.repeat(24),
        channels: [{ channel: 'webhook', configs: { timeout: 5, headers: { 'X-Team': 'a' } } }],
      });
      expect(reply.body.webhook_id).not.toBe('mine');
    });

    it('an empty secret means unsigned deliveries', async () => {
      const app = await makeApp();
      const made = await app.call('POST', base, { ...hook, signing_secret: '' });
      expect(made.body.signing_secret).toBeNull();
      expect(await secretsOf(app, made.body.webhook_id)).toEqual([]);
    });

    it('change keeps the secret that a client sends back as "redacted"', async () => {
      const app = await makeApp();
      const made = (await app.call('POST', base, hook)).body;
      const changed = await app.call('PUT', `${base}/${made.webhook_id}`, {
        ...hook,
        events: ['plugin.failed', 'plugin.failed'],
        signing_secret: 'redacted',
      });
      expect(changed.body).toMatchObject({
        events: ['plugin.failed'],
        signing_secret: 'redacted',
        version: 2,
      });
      expect(await secretsOf(app, made.webhook_id)).toEqual([made.signing_secret]);
      const off = await app.call('PATCH', `${base}/pipeline`, { is_active: false });
      expect(off.body).toMatchObject({ is_active: false, disabled_reason: 'switched off by a request' });
      expect((await app.call('PATCH', `${base}/pipeline`, { is_active: true })).body).toMatchObject({
        is_active: true,
        disabled_reason: null,
      });
    });

    it('rotation: both secrets sign for a day, then the new one alone', async () => {
      const app = await makeApp();
      const made = (await app.call('POST', base, hook)).body;
      const rotated = await app.call('POST', `${base}/${made.webhook_id}/rotate-secret`);
      expect(rotated.status).toBe(201);
      expect(await secretsOf(app, made.webhook_id)).toEqual([
        rotated.body.signing_secret,
        made.signing_secret,
      ]);
      app.ports.clock.advance(24 * 3_600_000);
      expect(await secretsOf(app, made.webhook_id)).toEqual([rotated.body.signing_secret]);
    });

    it('test announces an event for this webhook alone and says which delivery it will be', async () => {
      const app = await makeApp();
      const made = (await app.call('POST', base, hook)).body;
      const reply = await app.call('POST', `${base}/${made.webhook_id}/test`, {});
      expect(reply.status).toBe(202);
      const [event] = outbox(app);
      expect(event).toMatchObject({
        event_type: 'webhook.test',
        event_id: reply.body.event_id,
        webhook_id: made.webhook_id,
        org_id: app.principal.orgId,
      });
      expect(reply.body.delivery_id).toMatch(/^dlv_[a-z0-9]{20}$/);
    });

    it('delete is 204, and the deliveries go out of reach', async () => {
      const app = await makeApp();
      const made = (await app.call('POST', base, hook)).body;
      expect((await app.call('GET', `${base}/${made.webhook_id}/deliveries`)).body.results).toEqual([]);
      expect((await app.call('DELETE', `${base}/${made.webhook_id}`)).status).toBe(204);
      for (const tail of ['', '/deliveries', '/deliveries/dlv_x'])
        expectError(await app.call('GET', `${base}/${made.webhook_id}${tail}`), 'webhook_not_found');
      expectError(await app.call('DELETE', `${base}/${made.webhook_id}`), 'webhook_not_found');
    });

    it('lists newest first', async () => {
      const app = await makeApp();
      const names = Array.from({ length: 8 }, (_, i) => `number ${i}`);
      for (const name of names) {
        app.ports.clock.advance(5);
        await app.call('POST', base, { ...hook, webhook_name: name });
      }
      const list = await app.call('GET', base);
      expect(list.body.results.map((one: { name: string }) => one.name)).toEqual(names.toReversed());
      expect((await app.call('POST', `${base}/list`, { search: 'BER 3' })).body.results).toHaveLength(1);
      expect(JSON.stringify(list.body)).not.toContain('whsec_');
    });
  });

  describe('401, 403 and 404', () => {
    it('need a key and its permission', async () => {
      const app = await makeApp();
      expectError(await app.as(undefined).call('GET', base), 'key_invalid');
      const worker = app.as({ ...app.principal, permissions: ['read', 'write', 'delete'] });
      const reply = await worker.call('POST', base, hook);
      if (base === ofOrganization) expectError(reply, 'key_not_permitted');
      else expect(reply.status).toBe(201);
      expectError(
        await app.as({ ...app.principal, permissions: ['read'] }).call('POST', base, hook),
        'key_not_permitted',
      );
    });

    it("another organisation's webhook is refused like a random one, by every operation", async () => {
      const app = await makeApp();
      const stranger = await makeApp({ ports: app.ports });
      const theirs = (await stranger.call('POST', base, hook)).body.webhook_id;
      const random = 'wh_0123456789abcdef';
      const since = '?since=2025-01-01T00:00:00Z';
      for (const [method, tail, body] of [
        ['GET', '', undefined],
        ['PUT', '', {}],
        ['PATCH', '', {}],
        ['DELETE', '', undefined],
        ['POST', '/rotate-secret', {}],
        ['POST', '/test', {}],
        ['GET', '/deliveries', undefined],
        ['GET', '/deliveries/dlv_0', undefined],
        ['POST', '/deliveries/dlv_0/replay', {}],
        ['POST', `/replay${since}`, {}],
      ] as const) {
        expectSameRefusal(
          await app.call(method, `${base}/${theirs}${tail}`, body),
          theirs,
          await app.call(method, `${base}/${random}${tail}`, body),
          random,
        );
      }
    });

    it('a delivery that does not exist is 404', async () => {
      const app = await makeApp();
      await app.call('POST', base, hook);
      expectError(
        await app.call('GET', `${base}/pipeline/deliveries/dlv_0123456789abcdefghij`),
        'delivery_not_found',
      );
      expectError(
        await app.call('POST', `${base}/pipeline/deliveries/dlv_0123456789abcdefghij/replay`),
        'delivery_not_found',
      );
    });

    it('20 webhooks at most', async () => {
      const app = await makeApp();
      for (let i = 0; i < 20; i++)
        expect((await app.call('POST', base, { ...hook, webhook_name: `w${i}` })).status).toBe(201);
      expectError(await app.call('POST', base, { ...hook, webhook_name: 'one more' }), 'quota_exceeded');
    });
  });

  describe('409, 412 and 422', () => {
    it('a name that is taken, and a stale version', async () => {
      const app = await makeApp();
      await app.call('POST', base, hook);
      expectError(await app.call('POST', base, hook), 'webhook_name_taken');
      await app.call('PATCH', `${base}/pipeline`, { timeout: 3 });
      for (const [method, body] of [
        ['PUT', {}],
        ['PATCH', {}],
        ['DELETE', undefined],
      ] as const) {
        expectError(await app.call(method, `${base}/pipeline`, body, { 'If-Match': '"1"' }), 'request_stale');
      }
    });

    it.each([
      [{}, ['body.webhook_name: missing', 'body.url: missing', 'body.events: missing']],
      [{ ...hook, events: [] }, ['body.events: too_small']],
      [{ ...hook, events: ['batch.done'] }, ['body.events.0: event_unknown']],
      [{ ...hook, events: Array.from({ length: 51 }, () => 'batch.failed') }, ['body.events: too_big']],
      [{ ...hook, event_types: ['plugin.failed'] }, ['body.event_types: wrong_value']],
      [{ ...hook, name: 'other' }, ['body.webhook_name: wrong_value']],
      [{ ...hook, timeout: 16 }, ['body.timeout: too_big']],
      [{ ...hook, timeout: 0 }, ['body.timeout: too_small']],
      [{ ...hook, signing_secret: 'short' }, ['body.signing_secret: wrong_value']],
      [
        { ...hook, signing_secret: `whsec_${Buffer.alloc(65).toString('base64')}` },
        ['body.signing_secret: wrong_value'],
      ],
      [{ ...hook, headers: { Host: 'evil' } }, ['body.headers.Host: wrong_value']],
      [{ ...hook, headers: { 'webhook-id': 'x' } }, ['body.headers.webhook-id: wrong_value']],
      [{ ...hook, headers: { 'X-A': 'line\r\nfeed' } }, ['body.headers.X-A: invalid_format']],
      [{ ...hook, colour: 'red' }, ['body.colour: extra_forbidden']],
      [
        { ...hook, channels: [{ channel: 'email', configs: {} }] },
        ['body.channels.0.channel: wrong_value', 'body.channels.0.configs.url: missing'],
      ],
    ])('%j', async (body, expected) => {
      const app = await makeApp();
      const reply = await app.call('POST', base, body);
      expectError(reply, 'request_invalid');
      expect(faults(reply)).toEqual(expected);
    });

    it('an unknown event comes with the list of those that are', async () => {
      const app = await makeApp();
      const reply = await app.call('POST', base, { ...hook, events: ['nothing'] });
      for (const type of eventTypes)
        expect(reply.body.error.details.validation_errors[0].fix).toContain(type);
    });

    it.each([
      'http://hooks.example.com/',
      'https://127.0.0.1/',
      'https://localhost:8443/',
      'https://user@hooks.example.com/',
      'https://hooks.example.com:22/',
      'ftp://hooks.example.com/',
      'not a url',
      '',
    ])('a URL that must not be called: %j', async (url) => {
      const app = await makeApp(publicOnly);
      const reply = await app.call('POST', base, { ...hook, url });
      expectError(reply, 'webhook_invalid');
      expect(faults(reply)).toEqual(['body.url: url_refused']);
      await app.call('POST', base, hook);
      expectError(await app.call('PATCH', `${base}/pipeline`, { url }), 'webhook_invalid');
    });

    it('a host that does not resolve is no fault at create', async () => {
      const app = await makeApp(publicOnly);
      expect(
        (await app.call('POST', base, { ...hook, url: 'https://nothing-here.invalid.example/' })).status,
      ).toBe(201);
    });

    it('a replay without a time says how to write one', async () => {
      const app = await makeApp();
      await app.call('POST', base, hook);
      const reply = await app.call('POST', `${base}/pipeline/replay`);
      expectError(reply, 'request_invalid');
      expect(faults(reply)).toEqual(['query.since: missing']);
      expect(
        (await app.call('POST', `${base}/pipeline/replay?since=2026-01-01T00:00:00Z`)).body,
      ).toMatchObject({ success: true, replayed: 0 });
    });
  });
});

describe('webhooks of both kinds', () => {
  it('do not see each other', async () => {
    const app = await makeApp();
    const [mine, all] = [
      (await app.call('POST', ofNamespace, hook)).body.webhook_id,
      (await app.call('POST', ofOrganization, hook)).body.webhook_id,
    ];
    expect(
      (await app.call('GET', ofNamespace)).body.results.map((w: { webhook_id: string }) => w.webhook_id),
    ).toEqual([mine]);
    expect(
      (await app.call('GET', ofOrganization)).body.results.map((w: { webhook_id: string }) => w.webhook_id),
    ).toEqual([all]);
    expectError(await app.call('GET', `${ofNamespace}/${all}`), 'webhook_not_found');
    expectError(await app.call('GET', `${ofOrganization}/${mine}`), 'webhook_not_found');
  });

  it('have the same operations, one for one, and those of the organisation are for admins', () => {
    const mirrored = allRoutes.filter((route) => route.path.startsWith('/v1/organizations/webhooks'));
    const shape = (path: string) =>
      path.replace('/v1/namespaces/{namespace}/', '').replace('/v1/organizations/', '');
    expect(mirrored.map((route) => `${route.method} ${shape(route.path)}`).sort()).toEqual(
      Object.values(routes)
        .map((route) => `${route.method} ${shape(route.path)}`)
        .sort(),
    );
    for (const route of mirrored) expect(route.permission).toBe('admin');
  });

  it("an organisation's id is no namespace that a request can name", async () => {
    const app = await makeApp();
    await app.call('POST', ofOrganization, hook);
    expectError(
      await app.call('GET', `/v1/namespaces/${app.principal.orgId}/webhooks`),
      'namespace_not_found',
    );
    expectError(
      await app.call('GET', '/v1/webhooks', undefined, { 'X-Namespace': app.principal.orgId }),
      'namespace_not_found',
    );
  });
});
