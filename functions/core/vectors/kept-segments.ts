// What a compaction says about the data segments that it leaves alone: their dead rows, and the patches of live ones.
import { allBits, andNotInto, type Bits } from './bits.ts';
import { type EncodedSegment, encodeSegment, type SegmentRow } from './encode-segment.ts';
import type { Snapshot } from './snapshot.ts';

/** All rows of the i-th part that are dead. */
export function deadRowsOf(snapshot: Snapshot, i: number): Bits {
  const { segment, live } = snapshot.parts[i]!;
  return andNotInto(allBits(segment.rows), live);
}

/**
 * One absolute `columns` segment that leaves the live rows of these parts as all patches together left them; undefined
 * if nothing patched them. Each row carries the number of its newest patch, so a newer row of its id ignores it and a
 * newer patch goes on top.
 */
export function foldPatches(snapshot: Snapshot, parts: readonly number[]): EncodedSegment | undefined {
  const rows: SegmentRow[] = [];
  for (const i of parts) {
    const { firstRow } = snapshot.parts[i]!;
    for (const local of snapshot.patchedRowsOf(i)) {
      const row = firstRow + local;
      const columns = new Map(
        [...snapshot.patches].flatMap(([name, byRow]) =>
          byRow.has(row) ? [[name, byRow.get(row)] as const] : [],
        ),
      );
      rows.push({ id: snapshot.idOf(row), seq: snapshot.patchSeqOf(row)!, columns });
    }
  }
  if (rows.length === 0) return undefined;
  return encodeSegment({ kind: 'columns', dims: 0, metric: null, rows, absolute: true });
}
