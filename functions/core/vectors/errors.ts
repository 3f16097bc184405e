// What can go wrong in the vector store: one exception class, its codes, the stored object that is to blame.

export type VectorErrorCode =
  /** A vector cannot be stored or searched for: dimension, type, not finite. */
  | 'vector_invalid'
  /** A row, an id or a column cannot be stored. */
  | 'row_invalid'
  /** A search or list asks for something outside its bounds. */
  | 'query_invalid'
  /** The object is not a segment at all. */
  | 'segment_foreign'
  /** The object is a segment, but shorter or longer than its own header says. */
  | 'segment_truncated'
  /** The bytes of the segment are not those that were written. */
  | 'segment_corrupt'
  /** A sound segment, but not the one that the manifest describes under this key. */
  | 'segment_mismatch'
  /** The vectors of a segment do not fit into the memory that this function keeps for them. */
  | 'segment_too_large'
  /** The manifest names a segment that was not given. */
  | 'segment_missing'
  /** The object is not a dead-row list at all. */
  | 'dead_rows_foreign'
  /** A dead-row list whose bytes are not those that were written, or that belongs to another segment. */
  | 'dead_rows_corrupt'
  /** The manifest is not what `encodeManifest` writes. */
  | 'manifest_corrupt'
  /** A segment does not fit the feature it should be added to. */
  | 'feature_mismatch'
  /** One commit has more rows than its share of sequence numbers. */
  | 'commit_too_large'
  /** Segments that were compacted are no longer in the manifest: start the compaction again. */
  | 'compaction_stale';

/** An error of the vector store; `objectName` is the stored object to blame, where there is one. */
export class VectorError extends Error {
  readonly code: VectorErrorCode;
  readonly objectName: string | undefined;

  constructor(code: VectorErrorCode, message: string, objectName?: string) {
    super(objectName === undefined ? message : `${objectName}: ${message}`);
    this.name = 'VectorError';
    this.code = code;
    this.objectName = objectName;
  }
}
