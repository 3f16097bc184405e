// URIs after upgrades: whatever versions followed each other, in whatever order, each old URI leads to what is there.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type {
  StoredCollection,
  StoredExtractor,
} from '../../../functions/core/resources/collections/service.ts';
import { featureOf, withExtractor } from '../../../functions/core/resources/collections/service.ts';

const names = ['first_one', 'second_one'];
const uriOf = (version: number, name: string) => `mixpeek://plug@${version}.0.0/${name}`;
const extractor = (version: number): StoredExtractor => ({
  feature_extractor_name: 'p',
  version: `${version}.0.0`,
  plugin_id: `p_${version}_0_0`,
  input_mappings: {},
  parameters: {},
  features: names.map((name) => ({
    feature_uri: uriOf(version, name),
    feature_name: name,
    dims: version,
    metric: 'cosine',
  })),
  content_hash: String(version),
});
const other = { ...extractor(1), feature_extractor_name: 'q', plugin_id: 'q_1_0_0', features: [] };

describe('the URIs of a collection', () => {
  it('lead to the feature that stands where theirs stood, after any row of upgrades', () => {
    const step = fc.record({ version: fc.integer({ min: 1, max: 5 }), swaps: fc.boolean() });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 12 }), (steps) => {
        let collection = {
          id: 'col_1',
          feature_extractors: [other, extractor(1)],
          parents: [
            { kind: 'BUCKET', id: 'bkt_1' },
            { kind: 'PLUGIN', id: 'q_1_0_0' },
            { kind: 'PLUGIN', id: 'p_1_0_0' },
          ],
        } as unknown as StoredCollection;
        /** By every URI that was ever used: the one that it means now. */
        const model = new Map(names.map((name) => [uriOf(1, name), uriOf(1, name)]));
        let now = 1;
        for (const { version, swaps } of steps) {
          if (version === now) continue;
          const target = (name: string) => uriOf(version, swaps ? names[1 - names.indexOf(name)]! : name);
          const renamed = Object.fromEntries(names.map((name) => [uriOf(now, name), target(name)]));
          const after = withExtractor(collection, {
            from_plugin_id: `p_${now}_0_0`,
            extractor: extractor(version),
            renamed,
          })!;
          for (const [uri, meant] of model) model.set(uri, renamed[meant]!);
          // What is there means itself, whatever it meant before.
          for (const name of names) model.set(uriOf(version, name), uriOf(version, name));
          collection = after;
          now = version;
        }
        for (const [uri, meant] of model) {
          expect(featureOf(collection, uri)).toMatchObject({
            feature_uri: meant,
            plugin_id: `p_${now}_0_0`,
            dims: now,
          });
        }
        const real = collection.feature_extractors.flatMap((one) => one.features.map((f) => f.feature_uri));
        for (const [from, to] of Object.entries(collection.feature_aliases ?? {})) {
          expect(real).not.toContain(from);
          expect(real).toContain(to);
        }
        expect(collection.parents).toEqual([
          { kind: 'BUCKET', id: 'bkt_1' },
          { kind: 'PLUGIN', id: 'q_1_0_0' },
          { kind: 'PLUGIN', id: `p_${now}_0_0` },
        ]);
        expect(collection.feature_extractors[0]).toBe(other);
      }),
    );
  });

  it('of an extractor that is not there any more cannot be replaced', () => {
    const collection = { feature_extractors: [extractor(2)], parents: [] } as unknown as StoredCollection;
    const change = { from_plugin_id: 'p_1_0_0', extractor: extractor(3), renamed: {} };
    expect(withExtractor(collection, change)).toBeUndefined();
  });
});
