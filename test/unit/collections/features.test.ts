// Which collections hold a feature, by any spelling of its address.
import { describe, expect, it } from 'vitest';
import {
  collectionsReading,
  collectionsWithFeature,
  featureOf,
  featuresOf,
} from '../../../functions/core/resources/collections/service.ts';
import { makeWorld } from '../batches/world.ts';

describe('the features of collections', () => {
  it('are found by every spelling of their address, with the plugin that makes them', async () => {
    const world = await makeWorld();
    const collection = await world.addCollection('all');
    for (const version of ['1.0.0', 'v1', '1', 'v1.0']) {
      expect(featureOf(collection, `mixpeek://embedder@${version}/embedder_embedding`)).toMatchObject({
        dims: 4,
        metric: 'cosine',
        plugin_id: 'embedder_1_0_0',
      });
    }
    for (const wrong of [
      'mixpeek://embedder@1.0.0/other',
      'mixpeek://other@1.0.0/embedder_embedding',
      'embedder',
      '',
    ]) {
      expect(featureOf(collection, wrong)).toBeUndefined();
    }
    expect(featuresOf(collection).map((feature) => feature.feature_uri)).toEqual([
      'mixpeek://embedder@1.0.0/embedder_embedding',
    ]);
  });

  it('tell which collections hold one, anew at each call', async () => {
    const world = await makeWorld();
    const uri = 'mixpeek://second@1.0.0/second_embedding';
    await world.addCollection('one');
    expect(await collectionsWithFeature(world.ctx, uri)).toEqual([]);
    await world.addPlugin('second');
    const two = await world.addCollection('two', ['embedder', 'second']);
    expect((await collectionsWithFeature(world.ctx, uri)).map(({ id }) => id)).toEqual([two.id]);
  });

  it('read a bucket only while they are enabled', async () => {
    const world = await makeWorld();
    const { id } = await world.addCollection('one');
    expect((await collectionsReading(world.ctx, world.bucketId)).map((c) => c.id)).toEqual([id]);
    await world.call('PATCH', '/v1/namespaces/{ns}/collections/one', { enabled: false });
    expect(await collectionsReading(world.ctx, world.bucketId)).toEqual([]);
  });

  it('have a digest that changes with the plugin’s content, the mappings and the parameters only', async () => {
    const world = await makeWorld();
    const make = async (name: string, more: object = {}) =>
      (
        await world.addCollection(name, ['embedder'], {
          feature_extractors: [{ feature_extractor_name: 'embedder', version: '1.0.0', ...more }],
        })
      ).feature_extractors[0]!.content_hash;
    const plain = await make('a');
    expect(await make('b')).toBe(plain);
    expect(await make('c', { parameters: { k: 1 } })).not.toBe(plain);
    expect(await make('d', { input_mappings: { text: 'title' } })).not.toBe(plain);
  });
});
