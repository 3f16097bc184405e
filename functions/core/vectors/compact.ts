// Compaction: the live rows of a snapshot, rewritten as few segments without deletions and patches.
import { type EncodedSegment, encodeSegment, type SegmentRow } from './encode-segment.ts';
import { isVectorSection, segmentBytesTarget } from './segment-format.ts';
import type { Snapshot } from './snapshot.ts';
import { paddedDims } from './vector.ts';
import { type VectorMemory, vectorMemory } from './vector-memory.ts';

/** Rows of a segment that is written: while it is made each of them is an object in memory. */
export const segmentRowsMax = 2 ** 18;

export interface CompactOptions {
  /** Places in `snapshot.parts`. @default all of them */
  readonly parts?: readonly number[];
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
  const parts = options.parts ?? [...snapshot.parts.keys()];
  const rowsMax = rowsPerSegment(snapshot, parts, bytesTarget);
  let rows: SegmentRow[] = [];
  const encode = () => {
    const { dims, metric } = snapshot;
    return encodeSegment({ kind: 'data', dims, metric, rows, absolute: true, storage: snapshot.storage });
  };
  for (const part of parts) {
    for await (const row of snapshot.liveRowsOfPart(part, memory)) {
      rows.push(row);
      if (rows.length < rowsMax) continue;
      yield encode();
      rows = [];
    }
  }
  if (rows.length > 0) yield encode();
}

/** Values of a row in float32 and as codes; the latter have three numbers beside them, the former one. */
const vectorBytesPerValue = 5;
const vectorBytesPerRow = 16;

/** How many rows make a segment of this size, if ids and columns take as much as in the input. */
function rowsPerSegment(snapshot: Snapshot, parts: readonly number[], bytesTarget: number): number {
  let rows = 0;
  let bytes = 0;
  for (const part of parts) {
    const { segment } = snapshot.parts[part]!;
    rows += segment.rows;
    // Rows of vectors are padded to eight, which would count for much where segments are small.
    for (const { name, len } of segment.header.sections) if (!isVectorSection(name)) bytes += len;
  }
  const { dims } = snapshot;
  const vector = dims === 0 ? 0 : paddedDims(dims) * vectorBytesPerValue + vectorBytesPerRow;
  const bytesPerRow = vector + bytes / Math.max(1, rows);
  return Math.min(segmentRowsMax, Math.max(1, Math.floor(bytesTarget / Math.max(1, bytesPerRow))));
}
