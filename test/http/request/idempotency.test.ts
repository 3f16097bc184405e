// Idempotency-Key: one effect whatever is repeated, by whom and how often.
import { describe, expect, it } from 'vitest';
import type { App } from '../app.ts';
import { makeApp, makeTestPorts } from '../app.ts';
import { expectError } from '../expect.ts';

const path = '/v1/namespaces/{ns}/buckets';
const body = (name: string) => ({ name, bucket_schema: { properties: { t: { type: 'text' } } } });
const withKey = (key: string) => ({ 'Idempotency-Key': key });
const hook = { name: 'hook', url: 'https://hooks.example.com/a', event_types: ['batch.completed'] };
const buckets = async (app: App) => (await app.call('GET', path)).body.total as number;

describe('Idempotency-Key', () => {
  it('gives the first answer again, byte for byte, and says so', async () => {
    const app = await makeApp();
    const first = await app.call('POST', path, body('b'), withKey('k1'));
    app.ports.clock.advance(3_600_000);
    const again = await app.call('POST', path, body('b'), withKey('k1'));
    expect(first.headers).not.toHaveProperty('Idempotency-Replayed');
    expect(again.headers['Idempotency-Replayed']).toBe('true');
    expect([again.status, again.body]).toEqual([first.status, first.body]);
    expect(await buckets(app)).toBe(1);
  });

  it('16 requests at once have one effect; the others are replays or told to wait', async () => {
    const app = await makeApp();
    const replies = await Promise.all(
      Array.from({ length: 16 }, () => app.call('POST', path, body('b'), withKey('k'))),
    );
    const made = replies.filter(
      (reply) => reply.status === 200 && reply.headers['Idempotency-Replayed'] === undefined,
    );
    expect(made.length).toBe(1);
    for (const reply of replies) {
      if (reply.status === 200) expect(reply.body).toEqual(made[0]!.body);
      else {
        expectError(reply, 'idempotency_in_flight');
        expect(reply.headers['Retry-After']).toBe('1');
      }
    }
    expect(await buckets(app)).toBe(1);
    expect((await app.call('POST', path, body('b'), withKey('k'))).body).toEqual(made[0]!.body);
  });

  it('requests at once have one effect although their caller gives all of them one request id', async () => {
    const app = await makeApp();
    await app.call('POST', path, body('b'));
    const object = { blobs: [{ property: 't', type: 'text', data: 'x' }] };
    const headers = { ...withKey('k'), 'X-Request-Id': 'trace-1' };
    await Promise.all(
      Array.from({ length: 8 }, () => app.call('POST', `${path}/b/objects`, object, headers)),
    );
    expect((await app.call('GET', `${path}/b/objects`)).body.total).toBe(1);
  });

  it('keeps no key and no secret in clear, though it gives them again', async () => {
    const app = await makeApp();
    const key = { name: 'ingest', permissions: ['read'] };
    const first = await app.call('POST', '/v1/organizations/api-keys', key, withKey('k'));
    const secret = await app.call('POST', '/v1/namespaces/{ns}/webhooks', hook, withKey('k'));
    const stored = JSON.stringify(app.ports.table.dump());
    expect(first.body.key).toMatch(/^grn_test_/);
    expect(secret.body.signing_secret).toMatch(/^whsec_/);
    expect(stored).not.toContain(first.body.key);
    expect(stored).not.toContain(secret.body.signing_secret);
    expect((await app.call('POST', '/v1/organizations/api-keys', key, withKey('k'))).body).toEqual(
      first.body,
    );
  });

  it('refuses another body, path or query under the same key', async () => {
    const app = await makeApp();
    await app.call('POST', path, body('b'), withKey('k'));
    expectError(await app.call('POST', path, body('c'), withKey('k')), 'idempotency_key_reused');
    expectError(await app.call('POST', `${path}/`, body('b'), withKey('k')), 'idempotency_key_reused');
    expect(await buckets(app)).toBe(1);
  });

  it('means nothing to another key, namespace, organisation or operation', async () => {
    const app = await makeApp();
    const stranger = await makeApp({ ports: app.ports });
    const other = (await app.call('POST', '/v1/namespaces', { name: 'other' })).body.namespace_id;
    await app.call('POST', path, body('b'), withKey('k'));
    expect(
      (await app.as({ ...app.principal, keyId: 'second' }).call('POST', path, body('c'), withKey('k')))
        .status,
    ).toBe(200);
    expect((await app.call('POST', `/v1/namespaces/${other}/buckets`, body('b'), withKey('k'))).status).toBe(
      200,
    );
    expect((await stranger.call('POST', path, body('b'), withKey('k'))).status).toBe(200);
    expect((await app.call('POST', '/v1/namespaces', { name: 'third' }, withKey('k'))).status).toBe(200);
  });

  it('is free again after a 4xx, after our own error, and after a day', async () => {
    const ports = makeTestPorts();
    const app = await makeApp({ ports });
    expect((await app.call('POST', path, { name: 'b' }, withKey('k'))).status).toBe(422);
    expect((await app.call('POST', path, body('b'), withKey('k'))).status).toBe(200);

    const write = ports.table.write.bind(ports.table);
    let failing = true;
    ports.table.write = (writes, token) =>
      failing && writes.some((one) => 'put' in one && one.put.kind === 'BUCKET')
        ? Promise.reject(new Error('down'))
        : write(writes, token);
    expect((await app.call('POST', path, body('c'), withKey('k2'))).status).toBe(500);
    failing = false;
    expect((await app.call('POST', path, body('c'), withKey('k2'))).status).toBe(200);

    ports.clock.advance(24 * 3_600_000 + 2_000);
    expect((await app.call('POST', path, body('d'), withKey('k2'))).status).toBe(200);
    expect(await buckets(app)).toBe(3);
  });

  it('of a holder who died can be taken over after a minute, by the same request only', async () => {
    const app = await makeApp();
    const key = app.ctx.org.idempotency(`${app.namespace} ${app.principal.keyId} createBucket`, 'k');
    await app.call('POST', path, body('b'), withKey('k'));
    const row = (await app.ports.table.get(key))!;
    const seconds = Math.floor(app.ports.clock.now() / 1000);
    await app.call('DELETE', `${path}/b`);
    await app.ports.table.write([
      { put: { ...row, state: 'running', owner: 'dead', lease_until: seconds + 60 } },
    ]);
    expectError(await app.call('POST', path, body('b'), withKey('k')), 'idempotency_in_flight');
    app.ports.clock.advance(61_000);
    expectError(await app.call('POST', path, body('x'), withKey('k')), 'idempotency_key_reused');
    expect((await app.call('POST', path, body('b'), withKey('k'))).status).toBe(200);
    expect(await buckets(app)).toBe(1);
  });

  it('works as idempotency_key in the body of an object', async () => {
    const app = await makeApp();
    await app.call('POST', path, body('b'));
    const object = { blobs: [{ property: 't', type: 'text', data: 'x' }], idempotency_key: 'o1' };
    const first = await app.call('POST', `${path}/b/objects`, object);
    const again = await app.call('POST', `${path}/b/objects`, object);
    expect(again.body).toEqual(first.body);
    expect(again.headers['Idempotency-Replayed']).toBe('true');
  });

  it('keeps answers that are too large for a row', async () => {
    const app = await makeApp();
    await app.call('POST', path, body('b'));
    const objects = Array.from({ length: 20 }, (_, i) => ({
      blobs: [{ property: 't', type: 'text', data: `${i}`.repeat(10_000) }],
    }));
    const first = await app.call('POST', `${path}/b/objects/batch`, { objects }, withKey('big'));
    const again = await app.call('POST', `${path}/b/objects/batch`, { objects }, withKey('big'));
    expect(again.body).toEqual(first.body);
    expect((await app.call('GET', `${path}/b/objects`)).body.total).toBe(20);
    for (const row of app.ports.table.dump())
      expect(Buffer.byteLength(JSON.stringify(row))).toBeLessThan(400_000);
  });

  it.each(['', 'x'.repeat(256), 'tab\there', 'ümlaut'])('of the form %j is 400', async (key) => {
    const app = await makeApp();
    expectError(await app.call('POST', path, body('b'), withKey(key)), 'request_bad_header');
  });
});
