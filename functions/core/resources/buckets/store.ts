// How buckets are stored: one row each, in their namespace's partition.
import { idPrefixes } from '../../ids.ts';
import type { StoredResource } from '../../store/resource-store.ts';
import { resourceStore } from '../../store/resource-store.ts';
import type { Attribute } from '../../store/table.ts';
import type { BucketSchema } from './contract.ts';

export interface StoredBucket extends StoredResource {
  readonly description: string | null;
  readonly bucket_schema: BucketSchema & { readonly [name: string]: Attribute };
  readonly metadata: { readonly [name: string]: Attribute };
}

/** A namespace holds at most 100 buckets (API rules, section 12). */
export const bucketStore = resourceStore<StoredBucket>({
  kind: 'BUCKET',
  noun: 'bucket',
  idPrefix: idPrefixes.bucket,
  countMax: 100,
});
