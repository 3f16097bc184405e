// Amazon S3 Vectors as data: limits of the service, and the names under which copies are kept there.
import { createHash } from 'node:crypto';
import type { BackendDescription, CopyIndex } from './backend.ts';

/** @see Amazon S3 user guide, "S3 Vectors: limitations and restrictions" */
export const s3Vectors: BackendDescription = {
  title: 'Amazon S3 Vectors',
  stageSetting: 's3Vectors',
  // The service has no inner product.
  metrics: ['cosine', 'euclid'],
  limits: {
    rowsPerPut: 500,
    // The service takes 20 MiB of JSON, in which a float32 has up to 24 characters with its comma.
    vectorBytesPerPut: 3_200_000,
    idsPerRemove: 500,
    // A query costs as much as a scan of 0.75 GB (vector store design, section 11), and 100 ms more.
    scanBytesMax: 512 * 2 ** 20,
    // In pages, since June 2026; it was 100 before.
    candidatesMax: 10_000,
    isCountCheap: false,
  },
};

/**
 * The name of an index: 3 to 63 small letters, digits and hyphens. Begins with the namespace, then the collection,
 * so that all of one can be found; ids are distinct without their prefixes.
 */
export function indexNameOf(
  index: Pick<CopyIndex, 'namespace_id' | 'collection_id' | 'feature_uri'>,
): string {
  const feature = createHash('sha256').update(index.feature_uri).digest('hex').slice(0, 16);
  return `${indexPrefixOf(index)}${feature}`;
}

/** The beginning of the names of all indexes of a namespace, or of one of its collections. */
export function indexPrefixOf(scope: {
  readonly namespace_id: string;
  readonly collection_id?: string;
}): string {
  const namespace = `${withoutPrefix(scope.namespace_id)}-`;
  return scope.collection_id === undefined ? namespace : `${namespace}${withoutPrefix(scope.collection_id)}-`;
}

/** Ids are a prefix, `_`, and 20 small letters and digits; another form is replaced by its digest. */
function withoutPrefix(id: string): string {
  const plain = /^[a-z]+_([a-z0-9]{20})$/.exec(id)?.[1];
  return plain ?? createHash('sha256').update(id).digest('hex').slice(0, 20);
}
