// Health and the API document, which need no key.
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { makeApp } from '../app.ts';

describe('GET /v1/health', () => {
  it('answers without a key, with the version of the package', async () => {
    const app = await makeApp();
    const { version } = JSON.parse(
      readFileSync(new URL('../../../package.json', import.meta.url), 'utf8'),
    ) as { version: string };
    const reply = await app.as(undefined).call('GET', '/v1/health');
    expect(reply.status).toBe(200);
    expect(reply.body).toEqual({
      status: 'ok',
      version,
      stage: 'test',
      time: new Date(app.ports.clock.now()).toISOString(),
    });
    expect(reply.headers).not.toHaveProperty('X-RateLimit-Limit');
  });

  it('refuses parameters that it does not have', async () => {
    const app = await makeApp();
    expect((await app.as(undefined).call('GET', '/v1/health?deep=true')).status).toBe(422);
  });

  it('answers 405 with the methods that there are', async () => {
    const app = await makeApp();
    const reply = await app.call('POST', '/v1/health', {});
    expect(reply.status).toBe(405);
    expect(reply.headers.Allow).toBe('GET');
  });
});

describe('GET /v1/openapi.json', () => {
  it('answers the committed document without a key', async () => {
    const app = await makeApp();
    const reply = await app.as(undefined).call('GET', '/v1/openapi.json');
    expect(reply.status).toBe(200);
    expect(reply.body).toEqual(
      JSON.parse(readFileSync(new URL('../../../docs/openapi.json', import.meta.url), 'utf8')),
    );
  });
});
