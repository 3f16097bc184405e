// LanceDB as data: what the function that runs it takes in one call, and where its files lie.
import { createHash } from 'node:crypto';
import { metrics } from '../vectors/vector.ts';
import type { BackendDescription, CopyIndex } from './backend.ts';

export const lancedb: BackendDescription = {
  title: 'LanceDB in the index bucket',
  stageSetting: 'lancedb',
  metrics,
  limits: {
    rowsPerPut: 500,
    // A call of a Lambda takes 6 MB, and base64 makes a third more of the bytes.
    vectorBytesPerPut: 3_500_000,
    idsPerRemove: 2_000,
    // Its own scans are 17 times slower than ours, but a table this large has an index.
    scanBytesMax: 512 * 2 ** 20,
    candidatesMax: 10_000,
    isCountCheap: true,
  },
};

/**
 * The folder of a namespace inside the index bucket. It lies beside the collections and not in one: what lies below a
 * collection and is named by no manifest is collected as garbage.
 */
export function folderOf(namespaceId: string): string {
  return `${namespaceId}/lance`;
}

/** The name of the table of a feature: begins with its collection, so that all of one can be found. */
export function tableNameOf(index: Pick<CopyIndex, 'collection_id' | 'feature_uri'>): string {
  const feature = createHash('sha256').update(index.feature_uri).digest('hex').slice(0, 24);
  return `${index.collection_id}-${feature}`;
}
