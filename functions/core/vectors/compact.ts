// Compaction: the live rows of a snapshot, rewritten as few segments without deletions and patches.
import { type EncodedSegment, encodeSegment, type SegmentRow } from './encode-segment.ts';
import type { Snapshot } from './snapshot.ts';
import { paddedDims } from './vector.ts';

/** Size of a segment that scans, loads and compactions are tuned for (vector store design, section 3). */
export const segmentBytesTarget = 64 * 2 ** 20;

/** What the columns and the id of a row take on average; only the number of segments depends on it. */
const columnBytesPerRow = 512;

/**
 * Encodes all live rows of a snapshot, patches applied, with absolute sequence numbers. Replaces every segment that
 * the snapshot was opened from: pass exactly those keys to `replaceSegments`.
 */
export function* compactRows(
  snapshot: Snapshot,
  bytesTarget = segmentBytesTarget,
): Generator<EncodedSegment> {
  const rowsMax = Math.max(1, Math.floor(bytesTarget / (paddedDims(snapshot.dims) * 4 + columnBytesPerRow)));
  let rows: SegmentRow[] = [];
  const encode = () => {
    const { dims, metric } = snapshot;
    return encodeSegment({ kind: 'data', dims, metric, rows, absolute: true });
  };
  for (const row of snapshot.liveRows()) {
    rows.push(row);
    if (rows.length < rowsMax) continue;
    yield encode();
    rows = [];
  }
  if (rows.length > 0) yield encode();
}
