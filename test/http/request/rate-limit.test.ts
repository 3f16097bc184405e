// Requests a minute: headers on every answer, 429 at the limit, budgets apart by key and class, leases over environments.
import { describe, expect, it } from 'vitest';
import type { Reply } from '../app.ts';
import { makeApp } from '../app.ts';
import { expectError } from '../expect.ts';

const limits = (metadata: number, others = 1000) => ({
  settings: { rateLimits: { metadata, data: others, search: others, upload: others, compute: others } },
});
const left = (reply: Reply) => Number(reply.headers['X-RateLimit-Remaining']);

describe('the rate limit', () => {
  it('is told on every answer, errors too, and counts down by one', async () => {
    const app = await makeApp(limits(100));
    const replies = [
      await app.call('GET', '/v1/namespaces'),
      await app.call('GET', '/v1/namespaces/nowhere'),
      await app.call('POST', '/v1/namespaces', 'no'),
    ];
    expect(replies.map((reply) => reply.headers['X-RateLimit-Limit'])).toEqual(['100', '100', '100']);
    expect(replies.map((reply) => reply.headers['X-RateLimit-Window'])).toEqual(['60', '60', '60']);
    expect(replies.map(left)).toEqual([98, 97, 96]); // The first of the hundred made the namespace.
    const reset = Number(replies[0]!.headers['X-RateLimit-Reset']);
    expect(reset * 1000).toBeGreaterThan(app.ports.clock.now());
    expect(reset * 1000 - app.ports.clock.now()).toBeLessThanOrEqual(60_000);
  });

  it.each([1, 3, 20, 45])(
    'lets exactly %i requests through in a minute, then 429 with the wait, then the next minute',
    async (limit) => {
      const app = await makeApp(limits(limit + 1));
      app.ports.clock.advance(15_000);
      for (let i = 0; i < limit; i++)
        expect((await app.call('GET', '/v1/namespaces')).status, `request ${i + 1}`).toBe(200);
      const refused = await app.call('GET', '/v1/namespaces');
      expectError(refused, 'request_rate_exceeded');
      expect(refused.headers['Retry-After']).toBe('45');
      expect(refused.body.error.details.retry_after_seconds).toBe(45);
      app.ports.clock.advance(45_000);
      expect((await app.call('GET', '/v1/namespaces')).status).toBe(200);
    },
  );

  it('holds for requests at once', async () => {
    const app = await makeApp(limits(31));
    const replies = await Promise.all(Array.from({ length: 60 }, () => app.call('GET', '/v1/namespaces')));
    expect(replies.filter((reply) => reply.status === 200).length).toBe(30);
    expect(replies.filter((reply) => reply.status === 429).length).toBe(30);
  });

  it('keeps keys and classes apart', async () => {
    const app = await makeApp(limits(2));
    await app.call('GET', '/v1/namespaces');
    expect((await app.call('GET', '/v1/namespaces')).status).toBe(429);
    expect((await app.as({ ...app.principal, keyId: 'another' }).call('GET', '/v1/namespaces')).status).toBe(
      200,
    );
    expect((await app.call('GET', '/v1/namespaces/{ns}/buckets/b/objects')).status).toBe(404);
  });

  it('is not asked of those who need no key, and not spent by those without permission', async () => {
    const app = await makeApp(limits(2));
    const nobody = app.as(undefined);
    for (let i = 0; i < 5; i++) expect((await nobody.call('GET', '/v1/health')).status).toBe(200);
    const weak = app.as({ ...app.principal, permissions: [] });
    for (let i = 0; i < 5; i++) expect((await weak.call('GET', '/v1/namespaces')).status).toBe(403);
    expect((await app.call('GET', '/v1/namespaces')).status).toBe(200);
  });

  it('lets reads pass when its row cannot be written, and stops work that costs', async () => {
    const app = await makeApp();
    const write = app.ports.table.write.bind(app.ports.table);
    app.ports.table.write = (writes, token) =>
      writes.some((one) => 'update' in one && one.update.pk.startsWith('RATE#'))
        ? Promise.reject(new Error('throttled'))
        : write(writes, token);
    const fresh = app.as({ ...app.principal, keyId: 'unseen' });
    expect((await fresh.call('GET', '/v1/namespaces')).status).toBe(200);
    expect((await fresh.call('POST', '/v1/namespaces/{ns}/plugins/text_embed_1_0_0/deploy')).status).toBe(
      500,
    );
  });
});
