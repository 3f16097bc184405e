// One version of a collection's index by its manifest, and the manifests that copies are at: kept for as long as a copy
// needs them, while those of the index itself go with their versions.
import type { NsCtx } from '../context.ts';
import { BlobMissing } from '../store/blobs.ts';
import { loadManifest, openFeature } from '../store/open-index.ts';
import { VectorError } from '../vectors/errors.ts';
import { encodeManifest, type FeatureManifest, type Manifest } from '../vectors/manifest.ts';
import type { Snapshot } from '../vectors/snapshot.ts';

/** Beside the collections: what lies below one and is named by no head is collected as garbage. */
const folderOf = (ctx: NsCtx, collectionId: string, backend: string) =>
  `${ctx.ns.namespaceId}/copies/${collectionId}/${backend}/`;

/** Keeps a manifest for a copy. @returns its key; the same version has the same key */
export async function keepManifest(
  ctx: NsCtx,
  collectionId: string,
  backend: string,
  manifest: Manifest,
): Promise<string> {
  const key = `${folderOf(ctx, collectionId, backend)}${manifest.version}.json`;
  await ctx.ports.index.put(key, encodeManifest(manifest), { contentType: 'application/json' });
  return key;
}

/** Deletes the kept manifests of a copy that are not in `needed`. */
export async function forgetManifests(
  ctx: NsCtx,
  collectionId: string,
  backend: string,
  needed: ReadonlySet<string>,
): Promise<void> {
  const { blobs } = await ctx.ports.index.list(folderOf(ctx, collectionId, backend));
  for (const { key } of blobs) if (!needed.has(key)) await ctx.ports.index.delete(key);
}

/** A feature in one version, open. */
export interface FeatureVersion {
  readonly feature: FeatureManifest;
  readonly snapshot: Snapshot;
}

/**
 * Opens a feature as a manifest describes it.
 *
 * @returns undefined if the manifest or a segment has been deleted since, or the feature was not there yet
 * @throws VectorError if stored bytes are damaged
 */
export async function openVersion(
  ctx: NsCtx,
  manifestKey: string,
  uri: string,
): Promise<FeatureVersion | undefined> {
  try {
    const manifest = await loadManifest(ctx, manifestKey);
    const feature = Object.hasOwn(manifest.features, uri) ? manifest.features[uri]! : undefined;
    if (!feature) return undefined;
    return { feature, snapshot: await openFeature(ctx, feature) };
  } catch (error) {
    if (error instanceof BlobMissing) return undefined;
    if (error instanceof VectorError && error.code === 'segment_missing') return undefined;
    throw error;
  }
}
