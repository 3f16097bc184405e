// Bodies within bounds: size, depth, keys, strings, names that reach into prototypes, and what is not JSON.
import { describe, expect, it } from 'vitest';
import { bodyLimits } from '../../../functions/core/http/body.ts';
import type { App } from '../app.ts';
import { makeApp } from '../app.ts';
import { expectError, faults } from '../expect.ts';

const path = '/v1/namespaces/{ns}/buckets';
const good = { name: 'b', bucket_schema: { properties: { t: { type: 'text' } } } };

/** A JSON text that nests lists so deep that the innermost value stands at this level of the body. */
function nested(levels: number): string {
  return `{"name":"b","bucket_schema":{"properties":{"t":{"type":"json"}}},"metadata":{"x":${'['.repeat(levels)}${']'.repeat(levels)}}}`;
}

const post = (app: App, text: string, headers?: Readonly<Record<string, string>>) =>
  app.call('POST', path, text, headers);

describe('a body', () => {
  it.each([
    ['truncated', '{"name": "b"'],
    ['a comment', '{} // yes'],
    ['single quotes', "{'name': 'b'}"],
    ['NaN', '{"name": NaN}'],
    ['a trailing comma', '{"name": "b",}'],
    ['a byte order mark', '\ufeff{}'],
    ['two documents', '{}{}'],
    ['plain text', 'hello'],
  ])('that is not JSON (%s) is 400', async (_, text) => {
    expectError(await post(await makeApp(), text), 'request_not_json');
  });

  it('that is missing or blank where one is needed is 400', async () => {
    const app = await makeApp();
    expectError(await app.call('POST', path), 'request_not_json');
    expectError(await post(app, '  \n'), 'request_not_json');
  });

  it.each(['null', '[]', '"text"', '7', 'true'])('that is no object (%s) is 422', async (text) => {
    const reply = await post(await makeApp(), text);
    expectError(reply, 'request_invalid');
    expect(reply.body.error.details.validation_errors[0].location).toEqual(['body']);
  });

  it.each([
    'text/plain',
    'application/x-www-form-urlencoded',
    'multipart/form-data; boundary=x',
    'application/jsonx',
  ])('of the content type %s is 415', async (type) => {
    expectError(
      await post(await makeApp(), JSON.stringify(good), { 'Content-Type': type }),
      'request_media_type',
    );
  });

  it.each([
    'application/json',
    'application/json; charset=utf-8',
    'Application/JSON',
    'application/merge-patch+json',
  ])('of the content type %s is read', async (type) => {
    expect((await post(await makeApp(), JSON.stringify(good), { 'Content-Type': type })).status).toBe(200);
  });

  it('of the largest size passes, one byte more is 413', async () => {
    const app = await makeApp();
    const bodyOf = (pads: readonly string[]) => JSON.stringify({ name: 'large', feature_extractors: pads });
    const bare = Buffer.byteLength(bodyOf(['', '', '', '', '']));
    const fill = (bytes: number) => {
      const each = Math.floor((bytes - bare) / 5);
      const pads = Array.from({ length: 5 }, (_, i) => 'x'.repeat(i === 0 ? bytes - bare - each * 4 : each));
      return bodyOf(pads);
    };
    expect(Buffer.byteLength(fill(bodyLimits.bytesMax))).toBe(bodyLimits.bytesMax);
    expect((await app.call('POST', '/v1/namespaces', fill(bodyLimits.bytesMax))).status).toBe(200);
    const reply = await app.call('POST', '/v1/namespaces', fill(bodyLimits.bytesMax + 1));
    expectError(reply, 'request_too_large');
  });

  it('with the longest string passes, one byte more is 422 at the string', async () => {
    const app = await makeApp();
    const at = (bytes: number) => ({ name: 'long', feature_extractors: ['é'.repeat(bytes / 2)] });
    expect((await app.call('POST', '/v1/namespaces', at(bodyLimits.stringBytesMax))).status).toBe(200);
    const reply = await app.call('POST', '/v1/namespaces', at(bodyLimits.stringBytesMax + 2));
    expectError(reply, 'request_invalid');
    expect(faults(reply)).toEqual(['body.feature_extractors.0: too_large']);
  });

  it('with as many keys as allowed passes, one more is 422', async () => {
    const app = await makeApp();
    const at = (count: number) =>
      JSON.stringify({
        ...good,
        metadata: Object.fromEntries(Array.from({ length: count }, (_, i) => [`k${i}`, i])),
      });
    expect((await post(app, at(bodyLimits.keysMax))).status).toBe(200);
    const reply = await post(app, at(bodyLimits.keysMax + 1));
    expectError(reply, 'request_invalid');
    expect(faults(reply)).toEqual(['body.metadata: too_large']);
  });

  it('nested to the limit passes; deeper, up to 100,000 levels, is 422 and not a crash', async () => {
    const app = await makeApp();
    // The value of metadata.x stands at level 3; each list adds one.
    expect((await post(app, nested(bodyLimits.depthMax - 2))).status).toBe(200);
    for (const levels of [bodyLimits.depthMax - 1, 1_000, 100_000]) {
      const reply = await post(app, nested(levels));
      expectError(reply, 'request_invalid');
      expect(faults(reply)[0]).toMatch(/too_deep$/);
    }
  });

  it.each(['__proto__', 'constructor', 'prototype'])(
    'with the key "%s" at any depth is 422 and changes no prototype',
    async (key) => {
      const app = await makeApp();
      for (const text of [
        `{"name":"b","${key}":{"polluted":true},"bucket_schema":{"properties":{"t":{"type":"text"}}}}`,
        `{"name":"b","bucket_schema":{"properties":{"${key}":{"type":"text"}}}}`,
        `{"name":"b","bucket_schema":{"properties":{"t":{"type":"text"}}},"metadata":{"a":[{"${key}":{"polluted":true}}]}}`,
      ]) {
        const reply = await post(app, text);
        expectError(reply, 'request_invalid');
        expect(reply.body.error.message).toContain(key);
      }
      expect(({} as { polluted?: unknown }).polluted).toBeUndefined();
    },
  );

  it('with a key twice counts the last, as every JSON parser of ours', async () => {
    const app = await makeApp();
    const reply = await post(
      app,
      '{"name":"first","name":"second","bucket_schema":{"properties":{"t":{"type":"text"}}}}',
    );
    expect(reply.body.bucket_name).toBe('second');
  });

  it('with a number beyond what a float holds is 422', async () => {
    const reply = await post(
      await makeApp(),
      '{"name":"b","bucket_schema":{"properties":{"t":{"type":"text"}}},"metadata":{"n":1e400}}',
    );
    expectError(reply, 'request_invalid');
    expect(faults(reply)).toEqual(['body.metadata.n: wrong_value']);
  });

  it('keeps -0, long fractions and every character of Unicode but lone surrogates of names', async () => {
    const app = await makeApp();
    const metadata = { zero: 0, tiny: 5e-324, text: 'naïve 𝒳 \u0000 \u2028 end', list: [1.5, null, true] };
    const reply = await app.call('POST', path, { ...good, metadata });
    expect(reply.status).toBe(200);
    expect(reply.body.metadata).toEqual(metadata);
  });

  it('with unknown keys names each of them and what is accepted', async () => {
    const reply = await (await makeApp()).call('POST', path, {
      ...good,
      colour: 'red',
      bucket_schema: { properties: { t: { type: 'text', requird: true } } },
    });
    expectError(reply, 'request_invalid');
    expect(faults(reply)).toEqual([
      'body.bucket_schema.properties.t.requird: extra_forbidden',
      'body.colour: extra_forbidden',
    ]);
    expect(reply.body.error.details.validation_errors[1].fix).toContain('bucket_schema');
  });
});
