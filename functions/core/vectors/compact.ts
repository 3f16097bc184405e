// Compaction: the live rows of a snapshot, rewritten as few segments without deletions and patches.
import { type EncodedSegment, encodeSegment, type SegmentRow } from './encode-segment.ts';
import type { Snapshot } from './snapshot.ts';
import { paddedDims } from './vector.ts';
import { type VectorMemory, vectorMemory } from './vector-memory.ts';

/** Size of a segment that scans, loads and compactions are tuned for (vector store design, section 3). */
export const segmentBytesTarget = 64 * 2 ** 20;

/** Rows of a segment that is written: while it is made each of them is an object in memory. */
export const segmentRowsMax = 2 ** 18;

/** What the columns and the id of a row take on average; only the number of segments depends on it. */
const columnBytesPerRow = 512;

export interface CompactOptions {
  /** Places in `snapshot.parts`. @default all of them */
  readonly parts?: Iterable<number>;
  /** What a row takes in the file, where that is known of the input. */
  readonly bytesPerRow?: number;
}

/**
 * Encodes live rows of a snapshot, patches applied, with absolute sequence numbers: what a compaction puts in the place
 * of these segments. One output segment is in memory at a time.
 *
 * @param bytesTarget about how large a segment becomes
 */
export async function* compactRows(
  snapshot: Snapshot,
  bytesTarget: number = segmentBytesTarget,
  memory: VectorMemory = vectorMemory(),
  options: CompactOptions = {},
): AsyncGenerator<EncodedSegment> {
  const bytesPerRow = options.bytesPerRow ?? paddedDims(snapshot.dims) * 4 + columnBytesPerRow;
  const rowsMax = Math.min(segmentRowsMax, Math.max(1, Math.floor(bytesTarget / bytesPerRow)));
  let rows: SegmentRow[] = [];
  const encode = () => {
    const { dims, metric } = snapshot;
    return encodeSegment({ kind: 'data', dims, metric, rows, absolute: true, storage: snapshot.storage });
  };
  for (const part of options.parts ?? snapshot.parts.keys()) {
    for await (const row of snapshot.liveRowsOfPart(part, memory)) {
      rows.push(row);
      if (rows.length < rowsMax) continue;
      yield encode();
      rows = [];
    }
  }
  if (rows.length > 0) yield encode();
}
