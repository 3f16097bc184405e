// How collections are stored: one row each; buckets and plugins that they need are their parents.
import { idPrefixes } from '../../ids.ts';
import type { StoredResource } from '../../store/resource-store.ts';
import { resourceStore } from '../../store/resource-store.ts';
import type { Attribute } from '../../store/table.ts';

type Json = { readonly [name: string]: Attribute };

/** A vector column that an extractor gives to the documents of a collection. */
export interface CollectionFeature {
  /** `mixpeek://<name>@<version>/<feature>` */
  readonly feature_uri: string;
  readonly feature_name: string;
  /** Length of its vectors, 1-4096. */
  readonly dims: number;
  readonly metric: 'cosine' | 'dot' | 'euclid';
  readonly [name: string]: Attribute;
}

/** A plugin as one collection uses it. A plugin version never changes, so its features are copied here. */
export interface StoredExtractor {
  readonly feature_extractor_name: string;
  /** `d.d.d` */
  readonly version: string;
  readonly plugin_id: string;
  /** Input of the plugin -> property of the bucket; each property of an object gives one row. */
  readonly input_mappings: { readonly [input: string]: string };
  readonly parameters: Json;
  readonly features: readonly CollectionFeature[];
  /**
   * Digest of the plugin's content, the mappings and the parameters, and of the extractor whose place it took: equal
   * digest, equal results, and vectors that are still there.
   */
  readonly content_hash: string;
}

export interface StoredCollection extends StoredResource {
  readonly description: string | null;
  readonly enabled: boolean;
  readonly source: { readonly type: 'bucket'; readonly bucket_ids: readonly string[] };
  /** 1-8. */
  readonly feature_extractors: readonly StoredExtractor[];
  /** URIs of features that upgrades have replaced -> the feature that stands in their place. Absent: never upgraded. */
  readonly feature_aliases?: { readonly [featureUri: string]: string };
  /** Share of failed objects, 0-1, up to which a batch still commits. */
  readonly max_failure_share: number;
  readonly taxonomy_applications: readonly Json[];
  readonly cluster_applications: readonly Json[];
  readonly alert_applications: readonly Json[];
  /** Properties of the buckets when the collection was made: name -> type. */
  readonly input_schema: { readonly properties: { readonly [name: string]: Json } };
  readonly metadata: Json;
}

/** A namespace holds at most 100 collections (API rules, section 12). */
export const collectionStore = resourceStore<StoredCollection>({
  kind: 'COLLECTION',
  noun: 'collection',
  idPrefix: idPrefixes.collection,
  countMax: 100,
  events: { created: 'collection.created', updated: 'collection.updated', deleted: 'collection.deleted' },
});
