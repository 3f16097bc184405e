// The rules of collections: which plugins run over which buckets. Other slices call these functions.
import type * as z from 'zod';
import { requestDrop } from '../../backends/index-tasks.ts';
import { isoTime } from '../../clock.ts';
import type { NsCtx } from '../../context.ts';
import type { FieldFault } from '../../errors.ts';
import { AppError, invalid } from '../../errors.ts';
import { checkVersion } from '../../http/version.ts';
import { newId } from '../../ids.ts';
import { formatFeatureUri, parseFeatureUri } from '../../retrieval/feature-uri.ts';
import type { ResourceKind } from '../../store/keys.ts';
import type { Parent } from '../../store/resource-store.ts';
import type { Attribute } from '../../store/table.ts';
import { indexPrefix, openIndex, readHeads } from '../../store/vector-index.ts';
import { binaryTypes } from '../buckets/contract.ts';
import type { StoredBucket } from '../buckets/service.ts';
import { getBucket } from '../buckets/service.ts';
import type { StoredPlugin } from '../plugins/service.ts';
import { findPlugin, listPlugins, pluginId } from '../plugins/service.ts';
import type {
  CollectionIndex,
  CreateCollectionBody,
  ExtractorBody,
  UpdateCollectionBody,
} from './contract.ts';
import { extractorOf, fullVersion } from './extractor.ts';
import type { CollectionFeature, StoredCollection, StoredExtractor } from './store.ts';
import { collectionStore } from './store.ts';

export { canonicalJson } from './extractor.ts';
export type { CollectionFeature, StoredCollection, StoredExtractor } from './store.ts';
export type { ExtractorChange, UpgradeRequest } from './upgrade.ts';
export { extractorWrites, planUpgrade, withExtractor } from './upgrade.ts';

/** Batches of a collection fail when more than this share of their objects fails (decisions, section 1). */
const defaultFailureShare = 0.1;

/** By id or name. @throws AppError collection_not_found */
export async function getCollection(ctx: NsCtx, idOrName: string): Promise<StoredCollection> {
  return collectionStore.get(ctx, idOrName);
}

/** By id or name; undefined if there is none. */
export async function findCollection(ctx: NsCtx, idOrName: string): Promise<StoredCollection | undefined> {
  return collectionStore.find(ctx, idOrName);
}

/** All of the namespace, newest first; their number is bounded by the quota. */
export async function listCollections(ctx: NsCtx): Promise<StoredCollection[]> {
  return collectionStore.list(ctx);
}

/** How many documents of each collection can be seen. */
export async function countDocuments(
  ctx: NsCtx,
  collections: readonly StoredCollection[],
): Promise<number[]> {
  const heads = await readHeads(
    ctx,
    collections.map((collection) => collection.id),
  );
  return heads.map((head) => head.document_count);
}

/**
 * What the index of a collection consists of, all of one version.
 *
 * @param countLive also counts the rows that nothing has replaced or deleted, for which all ids are read
 * @throws AppError index_unavailable, index_corrupt
 */
export async function describeIndex(
  ctx: NsCtx,
  collection: StoredCollection,
  countLive: boolean,
): Promise<z.output<typeof CollectionIndex>> {
  const view = await openIndex(ctx, collection.id);
  const features: z.output<typeof CollectionIndex>['features'] = [];
  for (const { feature_uri, dims, metric } of featuresOf(collection)) {
    const segments = Object.hasOwn(view.manifest.features, feature_uri)
      ? view.manifest.features[feature_uri]!.segments
      : [];
    const data = segments.filter(({ kind, rows }) => kind === 'data' && rows > 0);
    const storages = new Set(
      data.map(({ sections }) => sections.find(({ name }) => name === 'vec')?.enc ?? 'f32'),
    );
    const storage = storages.size > 1 ? 'mixed' : storages.has('bf16') ? 'bf16' : 'f32';
    features.push({
      feature_uri,
      dims,
      metric,
      segments: segments.length,
      rows: data.reduce((sum, { rows }) => sum + rows, 0),
      live_rows: countLive ? ((await view.snapshot(feature_uri))?.liveCount ?? 0) : null,
      bytes: segments.reduce((sum, { bytes }) => sum + bytes, 0),
      storage: data.length === 0 ? null : storage,
    });
  }
  return {
    collection_id: collection.id,
    version: view.head.version,
    document_count: view.head.document_count,
    features,
  };
}

/** A feature of a collection with the plugin that makes it. */
export interface FeatureOf extends CollectionFeature {
  readonly plugin_id: string;
  readonly parameters: StoredExtractor['parameters'];
}

/**
 * The feature that a URI names, in any of its spellings (`@v1`, `@1.0.0`); undefined if the collection has none such.
 *
 * A URI of a version that an upgrade has replaced names the feature that stands in its place, so use the
 * `feature_uri` of the answer from here on, never the one that was asked for.
 */
export function featureOf(collection: StoredCollection, featureUri: string): FeatureOf | undefined {
  const { uri } = parseFeatureUri(featureUri);
  if (!uri) return undefined;
  const asked = formatFeatureUri(uri);
  const aliases = collection.feature_aliases ?? {};
  const canonical = Object.hasOwn(aliases, asked) ? aliases[asked] : asked;
  for (const extractor of collection.feature_extractors) {
    const feature = extractor.features.find((candidate) => candidate.feature_uri === canonical);
    if (feature) return { ...feature, plugin_id: extractor.plugin_id, parameters: extractor.parameters };
  }
  return undefined;
}

/** What the documents of a feature are made of, by the types of the properties that its extractor reads. */
export function madeOf(
  collection: StoredCollection,
  feature: Pick<CollectionFeature, 'feature_uri'>,
): 'text' | 'binary' | 'both' {
  const extractor = collection.feature_extractors.find(({ features }) =>
    features.some(({ feature_uri }) => feature_uri === feature.feature_uri),
  );
  const { properties } = collection.input_schema;
  const kinds = Object.values(extractor?.input_mappings ?? {}).map((property) => {
    const type = Object.hasOwn(properties, property) ? properties[property]?.type : undefined;
    return binaryTypes.some((binary) => binary === type) ? 'binary' : 'text';
  });
  const [first = 'text'] = kinds;
  return kinds.every((kind) => kind === first) ? first : 'both';
}

/** Every feature of a collection, in the order of its extractors. */
export function featuresOf(collection: StoredCollection): FeatureOf[] {
  return collection.feature_extractors.flatMap((extractor) =>
    extractor.features.map((feature) => ({
      ...feature,
      plugin_id: extractor.plugin_id,
      parameters: extractor.parameters,
    })),
  );
}

/** The collections of the namespace that hold a feature, found anew at each call; newest first. */
export async function collectionsWithFeature(ctx: NsCtx, featureUri: string): Promise<StoredCollection[]> {
  return (await collectionStore.list(ctx)).filter((collection) => featureOf(collection, featureUri));
}

/** The enabled collections that read a bucket, oldest first. */
export async function collectionsReading(ctx: NsCtx, bucketId: string): Promise<StoredCollection[]> {
  const all = await collectionStore.list(ctx);
  return all
    .filter((collection) => collection.enabled && collection.source.bucket_ids.includes(bucketId))
    .reverse();
}

/** The properties that feed an extractor: those of the body, else those of its manifest that the buckets have. */
function mappingsOf(
  body: z.output<typeof ExtractorBody>,
  plugin: StoredPlugin,
  buckets: readonly StoredBucket[],
  at: readonly (string | number)[],
  faults: FieldFault[],
): StoredExtractor['input_mappings'] {
  const properties = new Set(buckets.flatMap((bucket) => Object.keys(bucket.bucket_schema.properties)));
  const known = [...properties].sort().join(', ');
  if (body.input_mappings && Object.keys(body.input_mappings).length > 0) {
    for (const [input, property] of Object.entries(body.input_mappings)) {
      if (!properties.has(property)) {
        faults.push({
          type: 'property_unknown',
          location: [...at, 'input_mappings', input],
          message: `the source buckets have no property "${property.slice(0, 100)}"`,
          fix: `their properties: ${known}`,
        });
      }
    }
    return body.input_mappings;
  }
  const declared = Object.entries(plugin.input_mappings).filter(([, property]) => properties.has(property));
  if (declared.length > 0) return Object.fromEntries(declared);
  if (properties.size === 1) {
    const [only] = properties as unknown as [string];
    return { [Object.keys(plugin.input_mappings)[0] ?? only]: only };
  }
  const wanted = Object.values(plugin.input_mappings).join(', ') || 'none';
  faults.push({
    type: 'input_mappings_needed',
    location: [...at, 'input_mappings'],
    message: `${plugin.name} reads the properties ${wanted}, and the source buckets have ${known}`,
    fix: 'send input_mappings: {"<input>": "<property of the bucket>"}',
  });
  return {};
}

async function resolveExtractors(
  ctx: NsCtx,
  bodies: readonly z.output<typeof ExtractorBody>[],
  buckets: readonly StoredBucket[],
  key: string,
): Promise<StoredExtractor[]> {
  const faults: FieldFault[] = [];
  const resolved: StoredExtractor[] = [];
  for (const [i, body] of bodies.entries()) {
    const at = key === 'feature_extractor' ? ['body', key] : ['body', key, i];
    const version = fullVersion(body.version);
    const plugin = await findPlugin(ctx, pluginId(body.feature_extractor_name, version));
    if (!plugin) {
      const others = (await listPlugins(ctx)).map((other) => other.name);
      faults.push({
        type: 'plugin_unknown',
        location: [...at, 'feature_extractor_name'],
        message: `there is no plugin ${body.feature_extractor_name} with version ${version} in this namespace`,
        fix:
          others.length > 0
            ? `plugins here: ${others.slice(0, 10).join(', ')}`
            : 'upload it by POST .../plugins/uploads',
      });
      continue;
    }
    if (resolved.some((other) => other.plugin_id === plugin.id)) {
      faults.push({
        type: 'plugin_repeated',
        location: [...at, 'feature_extractor_name'],
        message: `${plugin.name} stands in this collection twice`,
      });
      continue;
    }
    const mappings = mappingsOf(body, plugin, buckets, at, faults);
    const parameters = (body.parameters ?? {}) as StoredExtractor['parameters'];
    resolved.push(extractorOf(plugin, mappings, parameters));
  }
  if (resolved.length > 1) {
    for (const [i, extractor] of resolved.entries()) {
      if (Object.keys(extractor.input_mappings).length <= 1) continue;
      faults.push({
        type: 'extractor_not_alone',
        location: ['body', key, i, 'input_mappings'],
        message:
          'an extractor that reads several properties makes several documents of an object, so it must be alone in its collection',
        fix: 'map one property, or make a collection of its own for it',
      });
    }
  }
  if (faults.length > 0) throw invalid('request_invalid', faults);
  return resolved;
}

const applicationKinds: readonly {
  readonly list: 'taxonomy_applications' | 'cluster_applications' | 'alert_applications';
  readonly id: string;
  readonly kind: ResourceKind;
}[] = [
  { list: 'taxonomy_applications', id: 'taxonomy_id', kind: 'TAXONOMY' },
  { list: 'cluster_applications', id: 'cluster_id', kind: 'CLUSTER' },
  { list: 'alert_applications', id: 'alert_id', kind: 'ALERT' },
];

/** Each application names a taxonomy, cluster or alert that exists in this namespace. */
async function checkApplications(
  ctx: NsCtx,
  body: { readonly [list in (typeof applicationKinds)[number]['list']]?: unknown },
): Promise<void> {
  const faults: FieldFault[] = [];
  for (const { list, id, kind } of applicationKinds) {
    const entries = (body[list] ?? []) as readonly Record<string, unknown>[];
    const rows = await ctx.ports.table.getMany(
      entries.map((entry) => ctx.ns.resource(kind, String(entry[id]))),
    );
    for (const [i, row] of rows.entries()) {
      if (row) continue;
      faults.push({
        type: 'reference_unknown',
        location: ['body', list, i, id],
        message: `there is no ${kind.toLowerCase()} "${String(entries[i]![id]).slice(0, 60)}" in this namespace`,
      });
    }
  }
  if (faults.length > 0) throw invalid('request_invalid', faults);
}

/** @throws AppError collection_name_taken, quota_exceeded, bucket_not_found, request_invalid (plugins, properties) */
export async function createCollection(
  ctx: NsCtx,
  body: z.output<typeof CreateCollectionBody>,
): Promise<StoredCollection> {
  const buckets: StoredBucket[] = [];
  for (const idOrName of body.source.bucket_ids) {
    const bucket = await getBucket(ctx, idOrName);
    if (!buckets.some((other) => other.id === bucket.id)) buckets.push(bucket);
  }
  const extractors = await resolveExtractors(ctx, body.feature_extractors, buckets, body.extractors_key);
  await checkApplications(ctx, body);
  const parents: Parent[] = [
    ...buckets.map((bucket): Parent => ({ kind: 'BUCKET', id: bucket.id })),
    ...extractors.map((extractor): Parent => ({ kind: 'PLUGIN', id: extractor.plugin_id })),
  ];
  const properties: Record<string, { readonly [name: string]: Attribute }> = {};
  for (const bucket of buckets) {
    for (const [name, property] of Object.entries(bucket.bucket_schema.properties)) {
      properties[name] ??= { type: property.type, required: property.required };
    }
  }
  const list = (entries: unknown) => (entries ?? []) as StoredCollection['taxonomy_applications'];
  return collectionStore.create(ctx, {
    id: newId('collection', ctx.ports.clock, ctx.ports.random),
    name: body.name,
    parents,
    description: body.description ?? null,
    enabled: body.enabled ?? true,
    source: { type: 'bucket', bucket_ids: buckets.map((bucket) => bucket.id) },
    feature_extractors: extractors,
    max_failure_share: body.max_failure_share ?? defaultFailureShare,
    taxonomy_applications: list(body.taxonomy_applications),
    cluster_applications: list(body.cluster_applications),
    alert_applications: list(body.alert_applications),
    input_schema: { properties },
    metadata: (body.metadata ?? {}) as StoredCollection['metadata'],
  });
}

/** What an update may not touch is not in its body: source and extractors stay. @throws AppError as for resources */
export async function updateCollection(
  ctx: NsCtx,
  idOrName: string,
  body: z.output<typeof UpdateCollectionBody>,
  ifMatch?: number,
): Promise<StoredCollection> {
  const before = await collectionStore.get(ctx, idOrName);
  checkVersion(ifMatch, before.revision);
  await checkApplications(ctx, body);
  const changes: Record<string, Attribute> = {};
  for (const [name, value] of Object.entries(body))
    if (value !== undefined) changes[name] = value as Attribute;
  return collectionStore.update(ctx, before, changes as Partial<StoredCollection>);
}

/**
 * Deletes a collection. From its answer on nothing of it can be seen; its documents and index are removed at once as
 * far as they are few. What is left (there were many, or a batch still ran) is removed with the namespace: the purge
 * row tells where.
 *
 * @throws AppError collection_not_found, collection_in_use (retrievers, taxonomies ... read it), collection_changed
 */
export async function deleteCollection(
  ctx: NsCtx,
  idOrName: string,
  ifMatch?: number,
): Promise<StoredCollection> {
  const collection = await collectionStore.get(ctx, idOrName);
  checkVersion(ifMatch, collection.revision);
  await collectionStore.remove(ctx, collection, [
    {
      put: {
        ...ctx.ns.purge(collection.id),
        kind: 'purge_collection',
        collection_id: collection.id,
        deleted_at: isoTime(ctx.ports.clock.now()),
      },
    },
    ...(await requestDrop(ctx, collection.id)),
  ]);
  try {
    await purgeCollection(ctx, collection.id, { rowsMax: 20_000 });
  } catch (error) {
    // The collection is gone for everybody; what is left of it is listed under its purge row.
    ctx.ports.log.warn('a deleted collection could not be purged', {
      collection_id: collection.id,
      error: String(error),
    });
  }
  return collection;
}

/**
 * Removes what a deleted collection left: rows of its partition, segments and manifests.
 *
 * Safe to repeat and to interrupt. Does nothing while the collection exists.
 *
 * @returns whether nothing was left; workers that die late may still add rows, so the purge row stays
 */
export async function purgeCollection(
  ctx: NsCtx,
  collectionId: string,
  options: { readonly rowsMax: number },
): Promise<boolean> {
  const { table, index, blobs } = ctx.ports;
  if (await table.get(ctx.ns.resource('COLLECTION', collectionId))) return false;
  let left = options.rowsMax;
  for (;;) {
    const { items } = await table.query(ctx.ns.head(collectionId).pk, { limit: Math.min(left, 500) });
    if (items.length === 0) break;
    await table.writeMany(items.map((item) => ({ delete: { pk: item.pk, sk: item.sk } })));
    left -= items.length;
    if (left <= 0) return false;
  }
  for (const [store, prefix] of [
    [index, indexPrefix(ctx, collectionId)],
    [blobs, `documents/${ctx.ns.namespaceId}/${collectionId}/`],
  ] as const) {
    for (;;) {
      const { blobs: found } = await store.list(prefix);
      if (found.length === 0) break;
      for (let i = 0; i < found.length; i += 16) {
        await Promise.all(found.slice(i, i + 16).map((blob) => store.delete(blob.key)));
      }
      left -= found.length;
      if (left <= 0) return false;
    }
  }
  return true;
}

/** @throws AppError collection_source_mismatch with the buckets that the collection does read */
export function checkReads(collection: StoredCollection, bucketId: string): void {
  if (collection.source.bucket_ids.includes(bucketId)) return;
  throw new AppError('collection_source_mismatch', {
    detail: `The collection "${collection.name}" does not read the bucket ${bucketId}; it reads ${collection.source.bucket_ids.join(', ')}.`,
    fields: [
      {
        type: 'collection_source_mismatch',
        location: ['body', 'collection_ids'],
        message: `"${collection.name}" (${collection.id}) does not read this bucket`,
        fix: `trigger it at one of its buckets: ${collection.source.bucket_ids.join(', ')}`,
      },
    ],
  });
}
