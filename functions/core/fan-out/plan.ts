// Whether a query function scans a feature by itself, or which scan functions do.
import type { FeatureManifest, SegmentRef } from '../vectors/manifest.ts';
import { isVectorSection, sectionGroups } from '../vectors/segment-format.ts';
import { functionFor } from './rendezvous.ts';

/** The segments that one scan function scans. */
export interface Shard {
  /** Place of the function among those of the stage. */
  readonly function: number;
  readonly segments: readonly string[];
}

/** Bytes of a segment that a scan holds in memory: codes where there are some, else vectors. */
export function residentBytes({ sections }: Pick<SegmentRef, 'sections'>): number {
  const wanted = sectionGroups[sections.some(({ name }) => name === 'i8') ? 'codes' : 'vectors'];
  return sections.reduce((sum, { name, len }) => (wanted.some((one) => one === name) ? sum + len : sum), 0);
}

/** Bytes of a segment with which nothing is read from the store any more: codes and vectors. */
function allBytes({ sections }: Pick<SegmentRef, 'sections'>): number {
  return sections.reduce((sum, { name, len }) => (isVectorSection(name) ? sum + len : sum), 0);
}

/**
 * The scan functions of a feature; undefined if it fits into the memory of the function that asks, which is then
 * faster by an invocation.
 *
 * One function does with the codes, and reads the vectors of the few rows that it must score. Where several are
 * needed anyway, as many take part as hold codes and vectors, if there are so many: those reads would take longer and
 * cost more than the invocations (`npm run bench:scale`).
 *
 * @param bytesEach what one function holds
 * @param functions how many there are; 0 for none
 */
export function planShards(
  feature: FeatureManifest,
  bytesEach: number,
  functions: number,
): readonly Shard[] | undefined {
  const data = feature.segments.filter(({ kind }) => kind === 'data');
  const bytes = data.reduce((sum, ref) => sum + residentBytes(ref), 0);
  if (functions === 0 || bytes <= bytesEach) return undefined;
  const all = data.reduce((sum, ref) => sum + allBytes(ref), 0);
  const least = Math.min(functions, Math.ceil(bytes / bytesEach));
  const both = Math.ceil(all / bytesEach);
  const taking = both <= functions ? both : least;
  const shards = new Map<number, string[]>();
  for (const { key } of data) {
    const one = functionFor(key, taking);
    const keys = shards.get(one) ?? [];
    shards.set(one, keys);
    keys.push(key);
  }
  return [...shards].sort(([a], [b]) => a - b).map(([one, segments]) => ({ function: one, segments }));
}
