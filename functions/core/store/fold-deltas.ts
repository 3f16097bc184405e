// Keeps the number of small segments bounded: each PATCH and DELETE adds one, and a reader would have to fetch them
// all. When there are many, they become one, without touching the segments that hold vectors.
import type { ColumnValue } from '../vectors/columns.ts';
import { type EncodedSegment, encodeSegment } from '../vectors/encode-segment.ts';
import {
  type FeatureManifest,
  keysOf,
  type Manifest,
  type SegmentRef,
  type StoredSegment,
} from '../vectors/manifest.ts';
import type { Segment } from '../vectors/open-segment.ts';

/** Deletions and patches of one feature that are left as they are. */
export const deltasMax = 32;

export interface FoldPorts {
  readonly load: (ref: StoredSegment) => Promise<Segment>;
  readonly put: (segment: EncodedSegment) => Promise<StoredSegment>;
  readonly nowMs: number;
}

/** Highest sequence number of any row with vectors: what is newer applies to all of them alike. */
function newestDataSeq(feature: FeatureManifest): number {
  let newest = -1;
  for (const { kind, base_seq, seq_max } of feature.segments)
    if (kind === 'data') newest = Math.max(newest, base_seq + seq_max);
  return newest;
}

/** Whether a feature has so many small segments that they are worth rewriting. */
function isCrowded(feature: FeatureManifest): boolean {
  const newest = newestDataSeq(feature);
  return (
    feature.segments.filter((ref) => ref.kind !== 'data' && !ref.absolute && ref.base_seq > newest).length >
    deltasMax
  );
}

interface Patch {
  seq: number;
  readonly columns: Map<string, ColumnValue | undefined>;
  readonly order: [seq: number, name: string, value: ColumnValue | undefined][];
}

/** One segment that says what several say: of each id the newest deletion, and its columns as the last patch left them. */
function merge(parts: readonly { readonly ref: SegmentRef; readonly segment: Segment }[]): EncodedSegment {
  const patches = new Map<string, Patch>();
  const tombs = new Map<string, number>();
  for (const { ref, segment } of parts) {
    for (const { id, seq } of segment.tombs) tombs.set(id, Math.max(tombs.get(id) ?? -1, ref.base_seq + seq));
    for (let row = 0; row < segment.rows; row++) {
      const id = segment.id(row);
      const seq = ref.base_seq + segment.seq(row);
      const known: Patch = patches.get(id) ?? { seq, columns: new Map(), order: [] };
      patches.set(id, known);
      known.seq = Math.max(known.seq, seq);
      for (const name of segment.columnNames()) {
        const column = segment.column(name)!;
        const value = column.at(row);
        const isCleared =
          column.cleared !== undefined && ((column.cleared[row >>> 5]! >>> (row & 31)) & 1) === 1;
        if (value !== undefined || isCleared) known.order.push([seq, name, value]);
      }
    }
  }
  for (const { columns, order } of patches.values()) {
    for (const [, name, value] of order.sort((a, b) => a[0] - b[0])) columns.set(name, value);
  }
  return encodeSegment({
    kind: 'columns',
    dims: 0,
    metric: null,
    rows: [...patches].map(([id, { seq, columns }]) => ({ id, seq, columns })),
    tombs: [...tombs].map(([id, seq]) => ({ id, seq })),
    absolute: true,
  });
}

/**
 * The same index with fewer segments: every search and list gives the same answer from it. The manifest keeps its
 * version, so the caller must append to it and commit the result.
 *
 * Only what is newer than every row with vectors is merged, since a patch applies to rows that are older than it.
 *
 * @returns the manifest itself when there is nothing to do
 */
export async function foldDeltas(manifest: Manifest, ports: FoldPorts): Promise<Manifest> {
  const features = { ...manifest.features };
  const removed = new Set<string>();
  const made = new Map<string, Promise<StoredSegment>>();
  for (const [uri, feature] of Object.entries(manifest.features)) {
    if (!isCrowded(feature)) continue;
    const newest = newestDataSeq(feature);
    const parts: { readonly ref: SegmentRef; readonly segment: Segment }[] = [];
    for (const ref of feature.segments) {
      if (ref.kind === 'data' || (!ref.absolute && ref.base_seq <= newest)) continue;
      const segment = await ports.load(ref);
      if (ref.absolute && segment.header.seqMin <= newest) continue;
      parts.push({ ref, segment });
    }
    // Most of them stand in every feature alike; then the merged one does too.
    const keys = parts.map(({ ref }) => ref.key);
    const name = keys.join(' ');
    const merged = made.get(name) ?? ports.put(merge(parts));
    made.set(name, merged);
    const gone = new Set(keys);
    for (const key of keys) removed.add(key);
    const kept = feature.segments.filter(({ key }) => !gone.has(key));
    features[uri] = { ...feature, segments: [...kept, { ...(await merged), base_seq: 0 }] };
  }
  if (removed.size === 0) return manifest;
  const used = keysOf({ ...manifest, features });
  const retired = [...removed].filter((key) => !used.has(key)).map((key) => ({ key, since_ms: ports.nowMs }));
  return { ...manifest, features, retired: [...manifest.retired, ...retired] };
}
