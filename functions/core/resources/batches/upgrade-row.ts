// What the row of a batch says of the version that its collection changes to.
import type { ExtractorChange } from '../collections/service.ts';

/** What a batch changes in a collection at its commit. */
export interface BatchUpgrade extends ExtractorChange {
  readonly collection_id: string;
  /** The buckets of the collection; all of their objects are run. */
  readonly bucket_ids: readonly string[];
}
