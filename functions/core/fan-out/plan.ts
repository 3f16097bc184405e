// Whether a query function scans a feature by itself, or which scan functions do.
import type { FeatureManifest, SegmentRef } from '../vectors/manifest.ts';
import { functionFor } from './rendezvous.ts';

/** The segments that one scan function scans. */
export interface Shard {
  /** Place of the function among those of the stage. */
  readonly function: number;
  readonly segments: readonly string[];
}

const codeSections = new Set(['i8', 'i8s', 'i8r', 'i8n', 'aux']);
const vectorSections = new Set(['vec', 'aux']);

/** Bytes of a segment that a scan holds in memory: codes where there are some, else vectors. */
export function residentBytes({ sections }: Pick<SegmentRef, 'sections'>): number {
  const wanted = sections.some(({ name }) => name === 'i8') ? codeSections : vectorSections;
  return sections.reduce((sum, { name, len }) => (wanted.has(name) ? sum + len : sum), 0);
}

/**
 * The scan functions of a feature; undefined if it fits into the memory of the function that asks, which is then
 * faster by an invocation.
 *
 * As few functions take part as can hold it all: each one more costs an invocation and a place where something can
 * go wrong.
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
  const taking = Math.min(functions, Math.ceil(bytes / bytesEach));
  const shards = new Map<number, string[]>();
  for (const { key } of data) {
    const one = functionFor(key, taking);
    const keys = shards.get(one) ?? [];
    shards.set(one, keys);
    keys.push(key);
  }
  return [...shards].sort(([a], [b]) => a - b).map(([one, segments]) => ({ function: one, segments }));
}
