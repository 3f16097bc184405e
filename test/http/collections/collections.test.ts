// Collections: which plugins over which buckets; both spellings; what they need cannot be deleted under them.
import { describe, expect, it } from 'vitest';
import { makeWorld } from '../../unit/batches/world.ts';
import { makeApp } from '../app.ts';
import { expectError, expectSameRefusal, faults } from '../expect.ts';

const base = '/v1/namespaces/{ns}/collections';
const extractor = { feature_extractor_name: 'embedder', version: '1.0.0' };

describe('create', () => {
  it('takes the tutorial’s form and the client’s form to the same collection', async () => {
    const world = await makeWorld();
    const tutorial = await world.call('POST', base, {
      name: 'one',
      feature_extractors: [extractor],
      source: { type: 'bucket', bucket_ids: [world.bucketId] },
    });
    const client = await world.call('POST', base, {
      collection_name: 'two',
      feature_extractor: { ...extractor, params: {} },
      source: { type: 'bucket', bucket_ids: ['articles'] },
    });
    expect([tutorial.status, client.status]).toEqual([200, 200]);
    expect(tutorial.body.collection_id).toMatch(/^col_[a-z0-9]{20}$/);
    for (const body of [tutorial.body, client.body]) {
      expect(body).toMatchObject({
        source: { type: 'bucket', bucket_ids: [world.bucketId] },
        enabled: true,
        max_failure_share: 0.1,
        document_count: 0,
        feature_extractor: {
          ...extractor,
          feature_extractor_id: 'embedder_1_0_0',
          input_mappings: { text: 'text' },
        },
        features: [
          {
            feature_uri: 'mixpeek://embedder@1.0.0/embedder_embedding',
            embedding_dim: 4,
            distance_metric: 'cosine',
            primary: true,
          },
        ],
      });
      expect(body.feature_extractors[0]).toEqual(body.feature_extractor);
      expect(body.name).toBe(body.collection_name);
    }
  });

  it('completes a short version of a plugin, and reads mappings as a list too', async () => {
    const world = await makeWorld();
    const reply = await world.call('POST', base, {
      name: 'short',
      feature_extractor: {
        feature_extractor_name: 'embedder',
        version: 'v1',
        input_mappings: [{ input_key: 'text', path: 'title' }],
      },
      source: { type: 'bucket', bucket_ids: [world.bucketId] },
    });
    expect(reply.body.feature_extractor).toMatchObject({
      version: '1.0.0',
      input_mappings: { text: 'title' },
    });
  });

  it('names every fault at once: an unknown plugin with those that are there, an unknown property with those of the bucket', async () => {
    const world = await makeWorld();
    const reply = await world.call('POST', base, {
      name: 'wrong',
      feature_extractors: [
        { feature_extractor_name: 'nobody', version: '1.0.0' },
        { ...extractor, input_mappings: { text: 'body' } },
      ],
      source: { type: 'bucket', bucket_ids: [world.bucketId] },
    });
    expectError(reply, 'request_invalid');
    expect(faults(reply)).toEqual([
      'body.feature_extractors.0.feature_extractor_name: plugin_unknown',
      'body.feature_extractors.1.input_mappings.text: property_unknown',
    ]);
    const fixes = reply.body.error.details.validation_errors.map((fault: { fix: string }) => fault.fix);
    expect(fixes[0]).toContain('embedder@1.0.0');
    expect(fixes[1]).toContain('image, text, title');
  });

  it('refuses what is missing, what mixes spellings, and what it does not know', async () => {
    const world = await makeWorld();
    expect(faults(await world.call('POST', base, {}))).toEqual(
      expect.arrayContaining(['body.source: missing']),
    );
    const source = { type: 'bucket', bucket_ids: [world.bucketId] };
    expect(faults(await world.call('POST', base, { source }))).toEqual([
      'body.name: missing',
      'body.feature_extractors: missing',
    ]);
    expect(
      faults(
        await world.call('POST', base, {
          name: 'a',
          collection_name: 'b',
          feature_extractor: extractor,
          source,
        }),
      ),
    ).toEqual(['body.collection_name: wrong_value']);
    expect(
      faults(await world.call('POST', base, { name: 'a', feature_extractor: extractor, source, sorce: 1 })),
    ).toEqual(['body.sorce: extra_forbidden']);
    expect(
      faults(
        await world.call('POST', base, {
          name: 'a',
          feature_extractor: extractor,
          source,
          alert_applications: [{ alert_id: 'alt_none' }],
        }),
      ),
    ).toEqual(['body.alert_applications.0.alert_id: reference_unknown']);
    expect((await world.call('GET', base)).body.total_count).toBe(0);
  });

  it('answers 404 for a bucket that is not there or another’s, and 409 for a name that is taken', async () => {
    const world = await makeWorld();
    const other = await makeApp();
    const foreign = (
      await other.call('POST', '/v1/namespaces/{ns}/buckets', {
        name: 'b',
        bucket_schema: { properties: { text: { type: 'text' } } },
      })
    ).body.bucket_id;
    const make = (name: string, bucket: string) =>
      world.call('POST', base, {
        name,
        feature_extractor: extractor,
        source: { type: 'bucket', bucket_ids: [bucket] },
      });
    const random = 'bkt_00000000000000000000';
    expectSameRefusal(await make('x', foreign), foreign, await make('x', random), random);
    expect((await make('taken', world.bucketId)).status).toBe(200);
    expectError(await make('taken', world.bucketId), 'collection_name_taken');
  });
});

describe('read, change, delete', () => {
  it('finds it by id and by name in both path forms, and not from another namespace', async () => {
    const world = await makeWorld();
    const { id } = await world.addCollection('articles');
    const other = await makeApp();
    const replies = [
      await world.call('GET', `${base}/${id}`),
      await world.call('GET', `${base}/articles`),
      await world.call('GET', `/v1/collections/${id}`, undefined, { 'X-Namespace': world.namespace }),
    ];
    for (const reply of replies) expect(reply.body).toEqual(replies[0]!.body);
    const random = 'col_00000000000000000000';
    expectSameRefusal(
      await other.call('GET', `${base}/${id}`),
      id,
      await other.call('GET', `${base}/${random}`),
      random,
    );
    expect((await world.call('GET', `${base}/${id}/features`)).body.features).toHaveLength(1);
  });

  it('changes what may change, keeps what documents hang on, and tells a stale version', async () => {
    const world = await makeWorld();
    await world.addCollection('articles');
    const changed = await world.call(
      'PATCH',
      `${base}/articles`,
      { description: 'news', max_failure_share: 0.5, enabled: false },
      { 'If-Match': '"1"' },
    );
    expect(changed.body).toMatchObject({
      description: 'news',
      max_failure_share: 0.5,
      enabled: false,
      version: 2,
    });
    expectError(
      await world.call('PATCH', `${base}/articles`, { enabled: true }, { 'If-Match': '"1"' }),
      'request_stale',
    );
    expect(
      faults(await world.call('PATCH', `${base}/articles`, { feature_extractors: [extractor] })),
    ).toEqual(['body.feature_extractors: extra_forbidden']);
    expect(
      (
        await world.call('POST', `${base}/list`, {
          filters: { field: 'enabled', operator: 'eq', value: false },
        })
      ).body.total_count,
    ).toBe(1);
  });

  it('keeps its bucket and its plugin from being deleted, naming itself', async () => {
    const world = await makeWorld();
    const { id } = await world.addCollection('articles');
    const bucket = await world.call('DELETE', `/v1/namespaces/{ns}/buckets/${world.bucketId}`);
    expectError(bucket, 'bucket_in_use');
    expect(bucket.body.error.details.dependants).toEqual([{ type: 'collection', id, name: 'articles' }]);
    expectError(await world.call('DELETE', '/v1/namespaces/{ns}/plugins/embedder_1_0_0'), 'plugin_in_use');
    expect((await world.call('DELETE', `${base}/articles`)).body.success).toBe(true);
    expectError(await world.call('DELETE', `${base}/articles`), 'collection_not_found');
    expect((await world.call('DELETE', `/v1/namespaces/{ns}/buckets/${world.bucketId}`)).status).toBe(200);
  });

  it('needs the permission for what is asked', async () => {
    const world = await makeWorld();
    await world.addCollection('articles');
    const reader = world.as({ ...world.principal, permissions: ['read'] });
    expect((await reader.call('GET', `${base}/articles`)).status).toBe(200);
    expectError(await reader.call('DELETE', `${base}/articles`), 'key_not_permitted');
    expectError(await world.as(undefined).call('GET', base), 'key_invalid');
  });
});
