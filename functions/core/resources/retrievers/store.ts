// How retrievers are stored: one row each; collections and plugins that they name are their parents.
import { idPrefixes } from '../../ids.ts';
import type { StoredResource } from '../../store/resource-store.ts';
import { resourceStore } from '../../store/resource-store.ts';
import type { Attribute } from '../../store/table.ts';

export interface StoredRetriever extends StoredResource {
  readonly description: string | null;
  /** Ids; empty: every collection of the namespace that holds the features. */
  readonly collection_ids: readonly string[];
  /** JSON of a `StoredDefinition`. As text, because vectors in it may hold numbers that the table cannot keep. */
  readonly definition: string;
  readonly budget_limits: { readonly max_time_ms?: number; readonly max_credits?: number };
  readonly tags: readonly string[];
  readonly display_config: Attribute;
  readonly metadata: { readonly [name: string]: Attribute };
}

/** A namespace holds at most 200 retrievers. */
export const retrieverStore = resourceStore<StoredRetriever>({
  kind: 'RETRIEVER',
  noun: 'retriever',
  idPrefix: idPrefixes.retriever,
  countMax: 200,
});
