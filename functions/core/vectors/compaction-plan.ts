// When a feature is worth compacting, and which of its segments are rewritten then.
import { segmentRowsMax } from './compact.ts';
import type { FeatureManifest, SegmentRef } from './manifest.ts';
import { segmentBytesTarget } from './segment-format.ts';
import type { Snapshot } from './snapshot.ts';

/** The limits of compaction; tests lower them. */
export interface CompactionRules {
  /** Deletions and column patches that every reader has to load and resolve. */
  readonly deltaBytesMax: number;
  /** Segments that a cold reader has to fetch beside the full ones: deltas, and data segments under half the target. */
  readonly looseSegmentsMax: number;
  /** Loose segments that a compaction may leave; the smallest are merged first. */
  readonly looseSegmentsKept: number;
  /** Share of dead rows from which on a data segment is rewritten, 0 to 1. */
  readonly deadShareMax: number;
  /** Fewer bytes in dead rows than this are no reason to begin; they go when there is another. */
  readonly deadBytesMin: number;
  /** Size of the segments that are written; with `segmentRowsMax` rows they are full however small. */
  readonly segmentBytesTarget: number;
  /** Size of the data segments that one run reads. The first one is always taken. */
  readonly inputBytesMax: number;
}

/** The limits as the design has them (vector store design, section 8.7). */
export const compactionRules: CompactionRules = {
  deltaBytesMax: 64 * 2 ** 20,
  looseSegmentsMax: 16,
  looseSegmentsKept: 8,
  deadShareMax: 0.05,
  deadBytesMin: 2 ** 20,
  segmentBytesTarget,
  inputBytesMax: 512 * 2 ** 20,
};

export type CompactionReason = 'deltas' | 'segments' | 'dead_rows';

/** What is known of one data segment inside a snapshot. */
export interface SegmentState {
  readonly key: string;
  readonly bytes: number;
  readonly rows: number;
  readonly liveRows: number;
  /** Live rows that column patches change. */
  readonly patchedRows: number;
}

/** Which data segments are rewritten; all others keep their rows, and all deltas go. */
export interface CompactionPlan {
  readonly reasons: readonly CompactionReason[];
  /** Keys of data segments, in the order of the manifest; may be empty. */
  readonly rewrite: readonly string[];
  /** Size of the segments in `rewrite`. */
  readonly inputBytes: number;
  /** Size of the deltas that are resolved. */
  readonly deltaBytes: number;
}

const isDelta = ({ kind }: SegmentRef) => kind !== 'data';
const bytesOf = (segments: readonly { readonly bytes: number }[]) =>
  segments.reduce((sum, { bytes }) => sum + bytes, 0);

/** Under half of what a written segment has. */
function isSmall(
  { bytes, rows }: { readonly bytes: number; readonly rows: number },
  rules: CompactionRules,
): boolean {
  return bytes < rules.segmentBytesTarget / 2 && rows < segmentRowsMax / 2;
}

/**
 * Why a feature should be compacted; nothing if it need not.
 *
 * Full segments do not count as too many: merging them would change nothing.
 *
 * @param liveRows how many rows of the feature live, where that is known; without it only the dead rows that the
 *   manifest lists are counted
 */
export function compactionReasons(
  feature: FeatureManifest,
  liveRows?: number,
  rules: CompactionRules = compactionRules,
): CompactionReason[] {
  const deltas = feature.segments.filter(isDelta);
  const data = feature.segments.filter((ref) => !isDelta(ref));
  const reasons: CompactionReason[] = [];
  if (bytesOf(deltas) > rules.deltaBytesMax) reasons.push('deltas');
  if (deltas.length + data.filter((ref) => isSmall(ref, rules)).length > rules.looseSegmentsMax)
    reasons.push('segments');
  const rows = data.reduce((sum, ref) => sum + ref.rows, 0);
  const isWorthIt = (share: number, bytes: number) =>
    share > rules.deadShareMax && share * bytes >= rules.deadBytesMin;
  const hasDeadSegment = data.some((ref) => isWorthIt((ref.dead?.rows ?? 0) / ref.rows, ref.bytes));
  // When more than the share is dead in all, more than the share is dead in one of them.
  const isDead = liveRows !== undefined && rows > 0 && isWorthIt((rows - liveRows) / rows, bytesOf(data));
  if (hasDeadSegment || isDead) reasons.push('dead_rows');
  return reasons;
}

/** The state of each data segment, in the order of the manifest. @param snapshot opened from `feature` */
export function segmentStates(feature: FeatureManifest, snapshot: Snapshot): SegmentState[] {
  const data = feature.segments.filter((ref) => !isDelta(ref));
  return data.map(({ key, bytes, rows }, i) => ({
    key,
    bytes,
    rows,
    liveRows: snapshot.liveRowsOf(i).length,
    patchedRows: snapshot.patchedRowsOf(i).length,
  }));
}

/**
 * What one compaction of a feature does, undefined if it is not worth one.
 *
 * Rewritten are, as far as the input of one run goes: segments with too many dead rows, deadest first; those that most
 * patches concern, if the patches would fill a segment too large to be carried along; and small ones, smallest first,
 * until few are left and the next one is larger than what was taken, so that a row is rewritten only when its segment
 * has grown a good deal. Every reason is gone afterwards, or less is left of it.
 *
 * @param states from `segmentStates`
 */
export function planCompaction(
  feature: FeatureManifest,
  states: readonly SegmentState[],
  rules: CompactionRules = compactionRules,
): CompactionPlan | undefined {
  const liveRows = states.reduce((sum, state) => sum + state.liveRows, 0);
  const reasons = compactionReasons(feature, liveRows, rules);
  if (reasons.length === 0) return undefined;
  const taken = new Set<SegmentState>();
  let inputBytes = 0;
  const take = (state: SegmentState): boolean => {
    if (taken.has(state)) return true;
    if (taken.size > 0 && inputBytes + state.bytes > rules.inputBytesMax) return false;
    taken.add(state);
    inputBytes += state.bytes;
    return true;
  };
  const deadShare = ({ rows, liveRows: live }: SegmentState) => (rows === 0 ? 1 : (rows - live) / rows);
  const dead = states.filter((state) => deadShare(state) > rules.deadShareMax);
  for (const state of dead.sort((a, b) => deadShare(b) - deadShare(a))) take(state);

  const deltas = feature.segments.filter(isDelta);
  const patches = deltas.filter(({ kind }) => kind === 'columns');
  const patchBytes = bytesOf(patches) / Math.max(1, sumOf(patches, 'rows'));
  // What has been merged already and is still too large becomes smaller only with the rows that it concerns.
  const isMerged = deltas.length === 1 && deltas[0]!.absolute && reasons.includes('deltas');
  const carriedBytesMax = isMerged ? 0 : rules.deltaBytesMax / 2;
  let carried = states.filter((state) => !taken.has(state)).reduce((sum, one) => sum + one.patchedRows, 0);
  for (const state of states.toSorted((a, b) => b.patchedRows / b.rows - a.patchedRows / a.rows)) {
    if (carried * patchBytes <= carriedBytesMax) break;
    if (taken.has(state) || state.patchedRows === 0) continue;
    if (take(state)) carried -= state.patchedRows;
  }

  const small = states
    .filter((state) => isSmall(state, rules) && !taken.has(state))
    .sort((a, b) => a.bytes - b.bytes);
  let left = small.length;
  let merged = 0;
  for (const state of small) {
    const isEnough = left < rules.looseSegmentsKept && (state.bytes > merged || merged === 0);
    if (isEnough || !take(state)) break;
    left -= 1;
    merged += state.bytes;
  }
  if (taken.size === 0 && deltas.length === 0) return undefined;
  const chosen = states.filter((state) => taken.has(state));
  return {
    reasons,
    rewrite: chosen.map(({ key }) => key),
    inputBytes,
    deltaBytes: bytesOf(deltas),
  };
}

function sumOf<K extends string>(list: readonly Readonly<Record<K, number>>[], name: K): number {
  return list.reduce((sum, one) => sum + one[name], 0);
}
