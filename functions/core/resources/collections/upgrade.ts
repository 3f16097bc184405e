// Another version of a plugin in a collection: whether it fits, and what of the collection changes when it takes over.

import type { NsCtx } from '../../context.ts';
import type { FieldFault } from '../../errors.ts';
import { AppError, invalid } from '../../errors.ts';
import type { Write } from '../../store/table.ts';
import { findPlugin, isDeployed, listPlugins, pluginId } from '../plugins/service.ts';
import { digestOf, extractorOf, fullVersion } from './extractor.ts';
import type { StoredCollection, StoredExtractor } from './store.ts';
import { collectionStore } from './store.ts';

/** An extractor of a collection and the one that takes its place. */
export interface ExtractorChange {
  readonly from_plugin_id: string;
  readonly extractor: StoredExtractor;
  /** URI of each feature that ends -> URI of the one that takes its place. */
  readonly renamed: { readonly [featureUri: string]: string };
}

export interface UpgradeRequest {
  readonly feature_extractor_name: string;
  /** In any spelling: `v2`, `2.0`, `2.0.0`. */
  readonly version: string;
  /** Which of several versions of the plugin in the collection ends. */
  readonly from_version?: string | undefined;
  /** Left out: those that the collection has. */
  readonly parameters?: StoredExtractor['parameters'] | undefined;
  /** Name of a feature that ends -> name in the new version, where they differ. */
  readonly feature_mapping?: { readonly [name: string]: string } | undefined;
}

const fault = (member: string, type: string, message: string, fix?: string): FieldFault => ({
  type,
  location: ['body', ...member.split('.')],
  message,
  ...(fix === undefined ? {} : { fix }),
});

const listed = (names: readonly string[]) => names.map((name) => `"${name.slice(0, 60)}"`).join(', ');

/** The extractor that ends. @throws AppError request_invalid */
function endingOf(collection: StoredCollection, request: UpgradeRequest): StoredExtractor {
  const { feature_extractor_name: name, from_version } = request;
  const named = collection.feature_extractors.filter((one) => one.feature_extractor_name === name);
  const from = from_version === undefined ? undefined : fullVersion(from_version);
  const found = from === undefined ? named : named.filter(({ version }) => version === from);
  if (found.length === 1) return found[0]!;
  const has = collection.feature_extractors.map((one) => `${one.feature_extractor_name} ${one.version}`);
  throw invalid('request_invalid', [
    found.length === 0
      ? fault(
          from !== undefined && named.length > 0 ? 'from_version' : 'feature_extractor_name',
          'extractor_unknown',
          `the collection "${collection.name}" has no extractor ${name.slice(0, 70)}${from === undefined ? '' : ` ${from}`}`,
          `its extractors: ${has.join(', ')}`,
        )
      : fault(
          'from_version',
          'extractor_ambiguous',
          `the collection uses ${name} in the versions ${found.map(({ version }) => version).join(' and ')}`,
          'say in from_version which of them ends',
        ),
  ]);
}

/**
 * What another version of a plugin would change in a collection.
 *
 * Dimensions and metric of a feature may change. Each feature of before must have one that takes its place: of the same
 * name, or as `feature_mapping` says.
 *
 * @throws AppError request_invalid (no such extractor or version, the same version, features that vanish),
 *   plugin_not_deployed
 */
export async function planUpgrade(
  ctx: NsCtx,
  collection: StoredCollection,
  request: UpgradeRequest,
): Promise<ExtractorChange> {
  const ending = endingOf(collection, request);
  const name = ending.feature_extractor_name;
  const version = fullVersion(request.version);
  const plugin = await findPlugin(ctx, pluginId(name, version));
  if (!plugin) {
    const versions = (await listPlugins(ctx)).filter((other) => other.plugin_name === name);
    throw invalid('request_invalid', [
      fault(
        'version',
        'plugin_unknown',
        `there is no plugin ${name} with version ${version} in this namespace`,
        `its versions here: ${versions.map((other) => other.version).join(', ')}`,
      ),
    ]);
  }
  if (collection.feature_extractors.some((one) => one.plugin_id === plugin.id)) {
    throw invalid('request_invalid', [
      fault(
        'version',
        'version_in_use',
        `the collection "${collection.name}" uses ${name} ${version} already`,
      ),
    ]);
  }
  if (!isDeployed(plugin)) {
    throw new AppError('plugin_not_deployed', {
      detail: `${plugin.id} is not deployed. Deploy it by POST .../plugins/${plugin.id}/deploy, then upgrade.`,
    });
  }
  const made = extractorOf(plugin, ending.input_mappings, request.parameters ?? ending.parameters);
  // A document that this version made before an upgrade away from it, and back, has lost its vectors meanwhile: what
  // it was made by must not pass for this.
  const extractor = { ...made, content_hash: digestOf([made.content_hash, ending.content_hash]) };
  const mapping = request.feature_mapping ?? {};
  const faults: FieldFault[] = [];
  const renamed: Record<string, string> = {};
  const names = listed(extractor.features.map((feature) => feature.feature_name));
  for (const before of ending.features) {
    const mapped = Object.hasOwn(mapping, before.feature_name);
    const wanted = mapped ? mapping[before.feature_name]! : before.feature_name;
    const after = extractor.features.find((feature) => feature.feature_name === wanted);
    if (after) {
      renamed[before.feature_uri] = after.feature_uri;
      continue;
    }
    const at = mapped ? `feature_mapping.${before.feature_name}` : 'feature_mapping';
    const message = mapped
      ? `${name} ${version} has no feature "${wanted.slice(0, 100)}"`
      : `the feature "${before.feature_name}" of ${ending.version} is not in ${version}, and what searches it would find nothing`;
    faults.push(
      fault(at, 'feature_vanishes', message, `map it to one of its features by feature_mapping: ${names}`),
    );
  }
  for (const strange of Object.keys(mapping)) {
    if (ending.features.some((feature) => feature.feature_name === strange)) continue;
    faults.push(
      fault(
        `feature_mapping.${strange.slice(0, 100)}`,
        'feature_unknown',
        `${name} ${ending.version} has no feature "${strange.slice(0, 100)}"`,
        `its features: ${listed(ending.features.map((feature) => feature.feature_name))}`,
      ),
    );
  }
  if (faults.length > 0) throw invalid('request_invalid', faults);
  return { from_plugin_id: ending.plugin_id, extractor, renamed };
}

/** The collection with the new extractor in the place of the old one; undefined if the old one is not there (any more). */
export function withExtractor(
  collection: StoredCollection,
  change: ExtractorChange,
): StoredCollection | undefined {
  if (!collection.feature_extractors.some((one) => one.plugin_id === change.from_plugin_id)) return undefined;
  const feature_extractors = collection.feature_extractors.map((one) =>
    one.plugin_id === change.from_plugin_id ? change.extractor : one,
  );
  const real = new Set(feature_extractors.flatMap((one) => one.features.map((f) => f.feature_uri)));
  // Each alias leads to a feature that is there, however many upgrades lie between.
  const aliases = Object.entries(collection.feature_aliases ?? {}).map(
    ([from, to]) => [from, change.renamed[to] ?? to] as const,
  );
  const all = [...aliases, ...Object.entries(change.renamed)];
  return {
    ...collection,
    feature_extractors,
    feature_aliases: Object.fromEntries(all.filter(([from]) => !real.has(from))),
    parents: collection.parents.map((parent) =>
      parent.kind === 'PLUGIN' && parent.id === change.from_plugin_id
        ? { kind: 'PLUGIN', id: change.extractor.plugin_id }
        : parent,
    ),
  };
}

/**
 * The writes that put the new extractor in the place of the old one, for the transaction that also puts the new vectors
 * in the place of the old ones. They fail when the collection has changed since it was read, or the plugin is gone.
 */
export function extractorWrites(ctx: NsCtx, before: StoredCollection, after: StoredCollection): Write[] {
  const { feature_extractors, feature_aliases, parents } = after;
  return collectionStore.updateWrites(ctx, before, { feature_extractors, feature_aliases, parents }).writes;
}
