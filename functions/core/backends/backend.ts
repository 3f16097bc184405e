// What an outside vector backend must be able to do: hold a copy of the vectors of one feature and give candidates.
import type { Metric } from '../vectors/vector.ts';

/** Names one index of a backend: the copy of one feature of one collection. */
export interface CopyIndex {
  readonly namespace_id: string;
  readonly collection_id: string;
  readonly feature_uri: string;
  /** 1 to 4,096. */
  readonly dims: number;
  readonly metric: Metric;
}

/** What of it names it: enough to find what is to be removed. */
export type CopyName = Pick<CopyIndex, 'namespace_id' | 'collection_id' | 'feature_uri'>;

/** One vector as a backend holds it. */
export interface CopyRow {
  /** Of the document; 1 to 256 bytes. */
  readonly id: string;
  /** Absolute sequence number of the row in the manifest, below 2^53: tells a new vector of an id from an older one. */
  readonly seq: number;
  /** `dims` finite values. */
  readonly vector: Float32Array;
}

/** A row as `list` shows it. */
export interface HeldRow {
  readonly id: string;
  readonly seq: number;
}

/** What one call of a backend may hold. */
export interface BackendLimits {
  readonly rowsPerPut: number;
  /** Vector bytes of one put, as float32. */
  readonly vectorBytesPerPut: number;
  readonly idsPerRemove: number;
  /**
   * Rows whose vectors are no more than these bytes are scanned instead: a scan is exact, and up to here no dearer than
   * a query.
   */
  readonly scanBytesMax: number;
  /** Most candidates of one query. */
  readonly candidatesMax: number;
  /** Whether `count` is one quick call; else it lists everything, and is asked for seldom. */
  readonly isCountCheap: boolean;
}

/** A backend as data: what is known of it without asking it. */
export interface BackendDescription {
  /** For people. */
  readonly title: string;
  /** The setting in `infra/stage.ts` that deploys it; null: there on every stage. */
  readonly stageSetting: string | null;
  /** Features of other metrics are not copied; they are always scanned. */
  readonly metrics: readonly Metric[];
  readonly limits: BackendLimits;
}

/**
 * A store of copies. Every call may be repeated: putting a row that is there replaces it, removing one that is not
 * there is no error, and so are making an index again and dropping one that is gone.
 *
 * Whatever a backend answers, only ids of live rows become hits, and their scores come from the segments.
 *
 * @throws BackendError from every method
 */
export interface VectorBackend {
  readonly limits: BackendLimits;
  /** Makes the index if there is none. */
  ensure(index: CopyIndex): Promise<void>;
  /** At most `limits.rowsPerPut` rows and `limits.vectorBytesPerPut` bytes of vectors. */
  put(index: CopyIndex, rows: readonly CopyRow[]): Promise<void>;
  /** At most `limits.idsPerRemove` ids. */
  remove(index: CopyIndex, ids: readonly string[]): Promise<void>;
  /** At most `k` ids, the nearest first as far as the backend knows. `k` is at most `limits.candidatesMax`. */
  query(index: CopyIndex, vector: Float32Array, k: number): Promise<readonly string[]>;
  count(index: CopyIndex): Promise<number>;
  /** Every row, page by page; rows that change meanwhile may be missing or come twice. */
  list(
    index: CopyIndex,
    cursor?: string,
  ): Promise<{ readonly rows: readonly HeldRow[]; readonly next?: string }>;
  /** Called when a sync is done: the place for search structures that are built over many rows. */
  settle(index: CopyIndex): Promise<void>;
  drop(index: CopyName): Promise<void>;
  /** Drops every index of a collection, or of the whole namespace. */
  dropAll(scope: { readonly namespace_id: string; readonly collection_id?: string }): Promise<void>;
}

export type BackendErrorCode =
  /** Cannot be reached, or answered with an error of its own. */
  | 'unavailable'
  /** Too many calls. */
  | 'throttled'
  /** The index is not there. */
  | 'index_missing'
  /** The backend does not take this request: a fault of ours. */
  | 'refused'
  /** The role of this function may not do this. */
  | 'forbidden'
  /** The account's quota is used up. */
  | 'quota';

/** What went wrong in a backend; `retryable` says whether the same call may succeed later. */
export class BackendError extends Error {
  readonly code: BackendErrorCode;
  readonly backend: string;

  constructor(backend: string, code: BackendErrorCode, message: string, cause?: unknown) {
    super(`${backend}: ${message}`, cause === undefined ? undefined : { cause });
    this.name = 'BackendError';
    this.code = code;
    this.backend = backend;
  }

  get retryable(): boolean {
    return this.code === 'unavailable' || this.code === 'throttled';
  }
}
