// Two spellings of one fact in one body: the same value is fine, different values are refused wherever both exist.
import { describe, expect, it } from 'vitest';
import { makeApp } from '../app.ts';
import { expectError } from '../expect.ts';

const schema = { properties: { text: { type: 'text' } } };

describe('both names of a resource', () => {
  it.each([
    ['POST', '/v1/namespaces', { name: 'a', namespace_name: 'b' }, 'name'],
    ['PATCH', '/v1/namespaces/{ns}', { name: 'a', namespace_name: 'b' }, 'name'],
    ['PUT', '/v1/namespaces/{ns}', { name: 'a', namespace_name: 'b' }, 'name'],
    ['POST', '/v1/organizations/api-keys', { name: 'a', key_name: 'b' }, 'key_name'],
    [
      'POST',
      '/v1/namespaces/{ns}/buckets',
      { name: 'a', bucket_name: 'b', bucket_schema: schema },
      'bucket_name',
    ],
  ] as const)('are refused when they differ: %s %s', async (method, path, body, field) => {
    const app = await makeApp();
    const reply = await app.call(method, path, body);
    expectError(reply, 'request_invalid');
    expect(reply.body.error.details.validation_errors).toEqual([
      expect.objectContaining({
        location: ['body', field],
        message: expect.stringContaining('mean the same and differ'),
        fix: 'send one of them',
      }),
    ]);
  });

  it('are taken when they agree', async () => {
    const app = await makeApp();
    const reply = await app.call('PATCH', '/v1/namespaces/{ns}', { name: 'same', namespace_name: 'same' });
    expect([reply.status, reply.body.name]).toEqual([200, 'same']);
    const key = await app.call('POST', '/v1/organizations/api-keys', { name: 'same', key_name: 'same' });
    expect([key.status, key.body.name]).toEqual([200, 'same']);
  });
});
