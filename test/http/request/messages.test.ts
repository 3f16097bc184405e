// What a refused body is answered with: the field, what came, and what is right, in words that need no library.
import { describe, expect, it } from 'vitest';
import { makeApp } from '../app.ts';
import { expectError } from '../expect.ts';

const buckets = '/v1/namespaces/{ns}/buckets';
const schema = { properties: { text: { type: 'text' } } };

interface Case {
  readonly title: string;
  readonly method?: string;
  readonly path: string;
  readonly body?: unknown;
  readonly location: readonly (string | number)[];
  readonly message: string;
  readonly fix?: string;
}

const cases: readonly Case[] = [
  {
    title: 'a number below its bound',
    path: `${buckets}/list`,
    body: { limit: 0 },
    location: ['body', 'limit'],
    message: 'must be at least 1, got number 0',
  },
  {
    title: 'a number above its bound, in the query',
    method: 'GET',
    path: `${buckets}?limit=5000`,
    location: ['query', 'limit'],
    message: 'must be at most 1000, got the string "5000"',
  },
  {
    title: 'a list that is too short',
    path: '/v1/namespaces/{ns}/collections',
    body: {
      name: 'c',
      source: { type: 'bucket', bucket_ids: [] },
      feature_extractors: [{ feature_extractor_name: 'text_embed', version: '1.0.0' }],
    },
    location: ['body', 'source', 'bucket_ids'],
    message: 'must have at least 1 item, got 0',
  },
  {
    title: 'a text that is too long',
    path: buckets,
    body: { name: 'b', bucket_schema: schema, description: 'x'.repeat(1001) },
    location: ['body', 'description'],
    message: 'must have at most 1000 characters, got 1001',
  },
  {
    title: 'a name of wrong characters',
    path: '/v1/namespaces',
    body: { name: 'mine two' },
    location: ['body', 'name'],
    message: 'a name has 1 to 100 letters, digits, "_", "." or "-", got the string "mine two"',
  },
  {
    title: 'a time that is none',
    path: '/v1/organizations/api-keys',
    body: { name: 'k', permissions: ['read'], expires_at: 'tomorrow' },
    location: ['body', 'expires_at'],
    message: 'must be an ISO 8601 time, such as 2026-01-31T12:00:00Z, got the string "tomorrow"',
  },
  {
    title: 'a value that is none of those of a union',
    path: '/v1/namespaces/{ns}/clusters',
    body: {
      cluster_name: 'k',
      collection_id: 'c',
      feature_uri: 'mixpeek://text_embed@1.0.0/v',
      algorithm: { name: 'kmeans' },
      dimension_reduction: { method: 'umap', n_components: 4 },
    },
    location: ['body', 'dimension_reduction', 'n_components'],
    message: 'must be 2 or 3, got number 4',
  },
  {
    title: 'a type that is none of those of a union',
    path: buckets,
    body: { name: 'b', bucket_schema: { properties: { kind: { type: 'string', enum: [null] } } } },
    location: ['body', 'bucket_schema', 'properties', 'kind', 'enum', 0],
    message: 'must be a string or a number, got null',
  },
  {
    title: 'a key of a map with a wrong form',
    path: buckets,
    body: { name: 'b', bucket_schema: { properties: { 'a-b': { type: 'text' } } } },
    location: ['body', 'bucket_schema', 'properties', 'a-b'],
    message:
      'a property name has 1 to 100 letters, digits and "_", and begins with no digit, got the string "a-b"',
  },
  {
    title: 'a key of a map that is reserved',
    path: buckets,
    body: { name: 'b', bucket_schema: { properties: { score: { type: 'float' } } } },
    location: ['body', 'bucket_schema', 'properties', 'score'],
    message: 'the property name "score" is reserved: documents keep values of the service there',
    fix: 'choose another name, such as "rating" instead of "score"; names with a leading "_" are reserved too',
  },
];

describe('a refused request', () => {
  it.each(cases)(
    'names $title, and says what came',
    async ({ method = 'POST', path, body, location, message, fix }) => {
      const app = await makeApp();
      const reply = await app.call(method, path, body);
      expectError(reply, 'request_invalid');
      const [fault] = reply.body.error.details.validation_errors;
      expect(fault).toMatchObject({ location, message });
      if (fix !== undefined) expect(fault.fix).toBe(fix);
      expect(reply.body.error.message).toContain(`${location.join('.')}: ${message}`);
    },
  );

  it('never repeats a secret, not even a wrong one', async () => {
    const app = await makeApp();
    const reply = await app.call('POST', '/v1/namespaces/{ns}/webhooks', {
      webhook_name: 'w',
      url: 'https://example.com/w',
      events: ['batch.completed'],
      signing_secret: 'hunter2',
    });
    expectError(reply, 'request_invalid');
    expect(JSON.stringify(reply.body)).not.toContain('hunter2');
  });
});
