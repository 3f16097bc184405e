// The index of a collection: immutable segments and manifests in the index bucket, one head item that names the
// current manifest, and the commit that moves the head. The parts are files of their own; others import this face.
export { documentsUri } from '../vectors/manifest.ts';
export { deleteRows, patchColumns, type RowPatch } from './change-rows.ts';
export { collectGarbage } from './collect-garbage.ts';
export {
  type CommitOptions,
  commitIndex,
  type IndexChange,
  putSegment,
  SequenceLost,
} from './commit-index.ts';
export {
  abortSequence,
  headWrite,
  type IndexHead,
  isCommitted,
  type OpenSequence,
  openSequence,
  readHead,
  readHeads,
} from './index-head.ts';
export { indexPrefix, segmentKey } from './index-keys.ts';
export { documentsSnapshot, type IndexView, openIndex, reading, snapshot } from './open-index.ts';
