// API keys: shown once, kept as a hash, narrowed, rotated, revoked; and what the authorizer makes of a presented one.
import { describe, expect, it } from 'vitest';
import { bootstrapKeyId } from '../../../functions/core/http/principal.ts';
import { authenticate, ownOrganization } from '../../../functions/core/resources/keys/service.ts';
import { newToken, publicIdOf } from '../../../functions/core/resources/keys/token.ts';
import type { App } from '../app.ts';
import { makeApp } from '../app.ts';
import { expectError, expectSameRefusal, faults } from '../expect.ts';

const base = '/v1/organizations/api-keys';
const bootstrap = 'the secret that the stack made, 32 characters or more';

const check = async (app: App, token: string) =>
  authenticate(app.ports.table, app.ports.clock, await app.ports.settings.pepper(), bootstrap, token);

describe('200', () => {
  it('create shows the key once; the table holds a keyed hash and never the key', async () => {
    const app = await makeApp();
    const made = await app.call('POST', base, { name: 'ingest job', permissions: ['read', 'write', 'read'] });
    expect(made.status).toBe(200);
    expect(made.body.key).toMatch(/^grn_test_[0-9A-Za-z]{8}_[0-9A-Za-z]{36}$/);
    expect(made.body.api_key).toBe(made.body.key);
    expect(made.body).toMatchObject({
      key_prefix: made.body.key.slice(0, 13),
      permissions: ['read', 'write'],
      status: 'active',
      created_by: 'testkey1',
      scopes: null,
    });
    const later = await app.call('GET', `${base}/${made.body.key_id}`);
    expect(later.body).not.toHaveProperty('key');
    expect(JSON.stringify([later.body, app.ports.table.dump(), app.ports.logged])).not.toContain(
      made.body.key.slice(22),
    );
  });

  it('a key works from create until it is revoked, and carries its permissions and namespaces', async () => {
    const app = await makeApp();
    const made = (
      await app.call('POST', base, {
        key_name: 'narrow',
        permissions: ['read'],
        scopes: { namespace_ids: [app.namespace] },
      })
    ).body;
    expect(await check(app, made.key)).toEqual({
      orgId: app.principal.orgId,
      keyId: made.key_id,
      permissions: ['read'],
      namespaceIds: [app.namespace],
    });
    expect((await app.call('DELETE', `${base}/${made.key_id}`)).body).toEqual({
      success: true,
      message: expect.stringContaining('60 seconds'),
    });
    expect(await check(app, made.key)).toBeUndefined();
    expect((await app.call('GET', `${base}/${made.key_id}`)).body).toMatchObject({ status: 'revoked' });
  });

  it('a key with an end stops by itself', async () => {
    const app = await makeApp();
    const end = new Date(app.ports.clock.now() + 60_000).toISOString();
    const made = (await app.call('POST', base, { name: 'short', expires_at: end })).body;
    expect(await check(app, made.key)).toBeDefined();
    app.ports.clock.advance(60_000);
    expect(await check(app, made.key)).toBeUndefined();
    expect((await app.call('GET', `${base}/${made.key_id}`)).body.status).toBe('expired');
  });

  it('rotate makes a new key of the same kind; the old one works for the overlap and no longer', async () => {
    const app = await makeApp();
    const old = (
      await app.call('POST', base, {
        name: 'job',
        permissions: ['read'],
        scopes: { namespace_ids: [app.namespace] },
      })
    ).body;
    const fresh = (await app.call('POST', `${base}/${old.key_id}/rotate`, { overlap_seconds: 3600 })).body;
    expect(fresh.key).not.toBe(old.key);
    expect(fresh).toMatchObject({
      name: 'job',
      permissions: ['read'],
      scopes: { namespace_ids: [app.namespace] },
      status: 'active',
    });
    expect((await check(app, old.key))?.keyId).toBe(old.key_id);
    expect((await check(app, fresh.key))?.keyId).toBe(fresh.key_id);
    app.ports.clock.advance(3_600_000);
    expect(await check(app, old.key)).toBeUndefined();
    expect(await check(app, fresh.key)).toBeDefined();
    expect((await app.call('GET', `${base}/${old.key_id}`)).body.rotated_to).toBe(fresh.key_id);
  });

  it('rotate without an overlap ends the old key at once, and never gives it a longer life than it had', async () => {
    const app = await makeApp();
    const end = new Date(app.ports.clock.now() + 10_000).toISOString();
    const [a, b] = [
      (await app.call('POST', base, { name: 'a' })).body,
      (await app.call('POST', base, { name: 'b', expires_at: end })).body,
    ];
    await app.call('POST', `${base}/${a.key_id}/rotate`);
    await app.call('POST', `${base}/${b.key_id}/rotate`, { overlap_seconds: 86_400 });
    expect(await check(app, a.key)).toBeUndefined();
    app.ports.clock.advance(10_000);
    expect(await check(app, b.key)).toBeUndefined();
  });

  it('lists every key of the organisation, revoked ones too, and none of another', async () => {
    const app = await makeApp();
    const stranger = await makeApp({ ports: app.ports });
    await stranger.call('POST', base, { name: 'theirs' });
    const ids: string[] = [];
    for (const name of ['first', 'second', 'third']) {
      app.ports.clock.advance(5);
      ids.unshift((await app.call('POST', base, { name })).body.key_id);
    }
    await app.call('DELETE', `${base}/${ids[1]}`);
    const list = await app.call('GET', base);
    expect(list.body.results.map((key: { key_id: string }) => key.key_id)).toEqual(ids);
    expect(list.body.results.map((key: { status: string }) => key.status)).toEqual([
      'active',
      'revoked',
      'active',
    ]);
    expect((await app.call('POST', `${base}/list`, { search: 'econ' })).body.results).toHaveLength(1);
  });

  it('the bootstrap secret is a principal that may create, list and revoke', async () => {
    const app = await makeApp();
    expect(await check(app, bootstrap)).toEqual({
      orgId: ownOrganization,
      keyId: bootstrapKeyId,
      permissions: [],
    });
    const first = app.as({ orgId: app.principal.orgId, keyId: bootstrapKeyId, permissions: [] });
    const made = await first.call('POST', base, { name: 'first' });
    expect(made.status).toBe(200);
    expect((await first.call('GET', base)).status).toBe(200);
    expectError(await first.call('GET', `${base}/${made.body.key_id}`), 'key_bootstrap_only');
    expectError(await first.call('POST', `${base}/${made.body.key_id}/rotate`, {}), 'key_bootstrap_only');
    expect((await first.call('DELETE', `${base}/${made.body.key_id}`)).status).toBe(200);
  });

  it('revoking twice is no fault', async () => {
    const app = await makeApp();
    const { key_id } = (await app.call('POST', base, { name: 'x' })).body;
    expect((await app.call('DELETE', `${base}/${key_id}`)).status).toBe(200);
    expect((await app.call('DELETE', `${base}/${key_id}`)).status).toBe(200);
  });
});

describe('401', () => {
  it('nothing but a whole, known, live key is a principal', async () => {
    const app = await makeApp();
    const { key } = (await app.call('POST', base, { name: 'x' })).body;
    const unknown = newToken('test', app.ports.random).token;
    const flipped = (at: number) => key.slice(0, at) + (key[at] === 'a' ? 'b' : 'a') + key.slice(at + 1);
    const bad = [
      '',
      'x',
      key.slice(0, -1),
      `${key}a`,
      ` ${key}`,
      key.toUpperCase(),
      unknown,
      flipped(10),
      flipped(20),
      flipped(key.length - 1),
      key.replace('grn_test', 'grn_live'),
      bootstrap.slice(1),
      `${bootstrap} `,
    ];
    for (const token of bad) expect(await check(app, token), token).toBeUndefined();
  });

  it('the id of a known key with another secret and a sound checksum is nobody', async () => {
    const app = await makeApp();
    const { key } = (await app.call('POST', base, { name: 'x' })).body;
    const base62 = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';
    const publicId = publicIdOf(key)!;
    let calls = 0;
    const forged = newToken('test', {
      bytes: (count) =>
        calls++ === 0
          ? Uint8Array.from(publicId, (one) => base62.indexOf(one))
          : new Uint8Array(count).fill(7),
    });
    expect([forged.publicId, publicIdOf(forged.token)]).toEqual([publicId, publicId]);
    expect(await check(app, forged.token)).toBeUndefined();
    expect(await check(app, key)).toBeDefined();
  });

  it('a wrong checksum is found without a read', async () => {
    const app = await makeApp();
    const { key } = (await app.call('POST', base, { name: 'x' })).body;
    app.ports.table.get = () => Promise.reject(new Error('read'));
    expect(await check(app, `${key.slice(0, -1)}${key.endsWith('0') ? '1' : '0'}`)).toBeUndefined();
    await expect(check(app, key)).rejects.toThrow('read');
  });

  it('a short bootstrap secret (a stack that has none) opens nothing', async () => {
    const app = await makeApp();
    expect(
      await authenticate(app.ports.table, app.ports.clock, await app.ports.settings.pepper(), '', ''),
    ).toBeUndefined();
    expect(
      await authenticate(
        app.ports.table,
        app.ports.clock,
        await app.ports.settings.pepper(),
        'short',
        'short',
      ),
    ).toBeUndefined();
  });

  it('the checksum of a made key holds for every mode', () => {
    const random = {
      bytes: (count: number) => Uint8Array.from({ length: count }, (_, i) => (i * 37 + 11) & 0xff),
    };
    for (const mode of ['live', 'test'] as const) {
      const { token, publicId } = newToken(mode, random);
      expect(publicIdOf(token)).toBe(publicId);
    }
  });
});

describe('403', () => {
  it('keys are for admins: not even "write" and "delete" together suffice', async () => {
    const app = await makeApp();
    const worker = app.as({ ...app.principal, permissions: ['read', 'write', 'delete'] });
    for (const [method, path] of [
      ['GET', base],
      ['POST', base],
      ['GET', `${base}/key_x`],
      ['DELETE', `${base}/key_x`],
      ['POST', `${base}/key_x/rotate`],
      ['POST', `${base}/list`],
    ] as const) {
      expectError(await worker.call(method, path, method === 'POST' ? {} : undefined), 'key_not_permitted');
    }
  });
});

describe('404', () => {
  it("another organisation's key is refused like a random one", async () => {
    const app = await makeApp();
    const stranger = await makeApp({ ports: app.ports });
    const { key_id: theirs, key } = (await stranger.call('POST', base, { name: 'theirs' })).body;
    const random = 'key_0123456789abcdefghij';
    for (const [method, tail] of [
      ['GET', ''],
      ['DELETE', ''],
      ['POST', '/rotate'],
    ] as const) {
      const body = method === 'POST' ? {} : undefined;
      expectSameRefusal(
        await app.call(method, `${base}/${theirs}${tail}`, body),
        theirs,
        await app.call(method, `${base}/${random}${tail}`, body),
        random,
      );
    }
    expect(await check(app, key)).toBeDefined();
  });

  it("a scope that names another organisation's namespace is refused like one that does not exist", async () => {
    const app = await makeApp();
    const stranger = await makeApp({ ports: app.ports });
    const random = 'ns_0123456789abcdefghij';
    const scoped = (id: string) =>
      app.call('POST', base, { name: 'x', permissions: ['read'], scopes: { namespace_ids: [id] } });
    expectSameRefusal(await scoped(stranger.namespace), stranger.namespace, await scoped(random), random);
  });

  it('a namespace that is being deleted is no scope', async () => {
    const app = await makeApp();
    await app.call('DELETE', '/v1/namespaces/{ns}');
    expectError(
      await app.call('POST', base, {
        name: 'x',
        permissions: ['read'],
        scopes: { namespace_ids: [app.namespace] },
      }),
      'namespace_not_found',
    );
  });
});

describe('409', () => {
  it('a revoked, expired or already rotated key cannot be rotated', async () => {
    const app = await makeApp();
    const { key_id } = (await app.call('POST', base, { name: 'x' })).body;
    await app.call('POST', `${base}/${key_id}/rotate`, {});
    app.ports.clock.advance(1);
    expectError(await app.call('POST', `${base}/${key_id}/rotate`, {}), 'key_already_revoked');
    await app.call('DELETE', `${base}/${key_id}`);
    expectError(await app.call('POST', `${base}/${key_id}/rotate`, {}), 'key_already_revoked');
  });
});

describe('422', () => {
  it.each([
    [{}, ['body.name: missing']],
    [{ name: '' }, ['body.name: too_small']],
    [{ name: 'line\nfeed' }, ['body.name: invalid_format']],
    [{ name: 'x', permissions: [] }, ['body.permissions: too_small']],
    [{ name: 'x', permissions: ['owner'] }, ['body.permissions.0: wrong_value']],
    [
      { name: 'x', permissions: ['admin'], scopes: { namespace_ids: ['ns_00000000000000000000'] } },
      ['body.scopes: wrong_value'],
    ],
    [
      { name: 'x', permissions: ['read'], scopes: { namespace_ids: ['main'] } },
      ['body.scopes.namespace_ids.0: invalid_format'],
    ],
    [
      { name: 'x', permissions: ['read'], scopes: { namespace_ids: [] } },
      ['body.scopes.namespace_ids: too_small'],
    ],
    [{ name: 'x', expires_at: 'tomorrow' }, ['body.expires_at: invalid_format']],
    [{ name: 'x', key: 'grn_mine' }, ['body.key: extra_forbidden']],
    [{ name: 'x', org_id: 'org_other' }, ['body.org_id: extra_forbidden']],
  ])('%j', async (body, expected) => {
    const app = await makeApp();
    const reply = await app.call('POST', base, body);
    expectError(reply, 'request_invalid');
    expect(faults(reply)).toEqual(expected);
  });

  it('a key that would be born expired is refused', async () => {
    const app = await makeApp();
    const reply = await app.call('POST', base, { name: 'late', expires_at: '2001-01-01T00:00:00Z' });
    expectError(reply, 'request_invalid');
    expect(faults(reply)).toEqual(['body.expires_at: wrong_value']);
    expect((await app.call('GET', base)).body.results).toEqual([]);
  });

  it('an overlap longer than a day is refused', async () => {
    const app = await makeApp();
    const { key_id } = (await app.call('POST', base, { name: 'x' })).body;
    expectError(
      await app.call('POST', `${base}/${key_id}/rotate`, { overlap_seconds: 86_401 }),
      'request_invalid',
    );
    expect((await app.call('POST', `${base}/${key_id}/rotate`, { overlap_seconds: 86_400 })).status).toBe(
      200,
    );
  });
});
