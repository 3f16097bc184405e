// Fusion: several ranked lists of one query become one list.

/** How lists are fused; `rrf` unless told otherwise. */
export const fusionMethods = ['rrf', 'weighted', 'max'] as const;
export type FusionMethod = (typeof fusionMethods)[number];

/** Damping of reciprocal rank fusion: the usual 60 (Cormack, Clarke and Büttcher, SIGIR 2009). */
const rankOffset = 60;

/** A document's place in a ranked list. Higher scores are better for every metric. */
export interface ScoredId {
  readonly document_id: string;
  readonly collection_id: string;
  readonly score: number;
}

export interface RankedList {
  readonly hits: readonly ScoredId[];
  /** 0 or more; relative to the other lists. */
  readonly weight: number;
}

/** Best score first; equal scores by ascending id, then collection, so that an order never depends on sharding. */
export function byScore(a: ScoredId, b: ScoredId): number {
  if (a.score !== b.score) return b.score - a.score;
  if (a.document_id !== b.document_id) return a.document_id < b.document_id ? -1 : 1;
  return a.collection_id < b.collection_id ? -1 : a.collection_id > b.collection_id ? 1 : 0;
}

/** Identity of a document across collections. */
export const keyOf = (ref: { document_id: string; collection_id: string }) =>
  `${ref.collection_id}\u0000${ref.document_id}`;

/**
 * Fuses ranked lists into one, best first, each document once.
 *
 * - `rrf`: sum of weight / (60 + rank), rank from 1. Looks at order only, so metrics may differ.
 * - `weighted`: each list's scores are stretched to 0..1 (all equal: 1), then averaged by weight; a document that a
 *   list lacks gets 0 from it. 0..1.
 * - `max`: the best score in any list, as it is, without weights. For lists of one metric.
 *
 * One list alone keeps its scores, whatever the method, because a threshold on them must stay meaningful.
 *
 * @param lists in any order; each list's hits in any order, without repeats
 */
export function fuse(lists: readonly RankedList[], method: FusionMethod): ScoredId[] {
  const [first] = lists;
  if (first && lists.length === 1) return first.hits.toSorted(byScore);
  const weightSum = lists.reduce((sum, list) => sum + list.weight, 0);
  const fused = new Map<string, { document_id: string; collection_id: string; score: number }>();
  for (const { hits, weight } of lists) {
    const ranked = hits.toSorted(byScore);
    const high = ranked[0]?.score ?? 0;
    const low = ranked.at(-1)?.score ?? 0;
    ranked.forEach((hit, index) => {
      let score = hit.score;
      if (method === 'rrf') score = weight / (rankOffset + index + 1);
      if (method === 'weighted') {
        const share = high > low ? (hit.score - low) / (high - low) : 1;
        score = weightSum > 0 ? (weight * share) / weightSum : 0;
      }
      const known = fused.get(keyOf(hit));
      if (!known)
        fused.set(keyOf(hit), { document_id: hit.document_id, collection_id: hit.collection_id, score });
      else known.score = method === 'max' ? Math.max(known.score, score) : known.score + score;
    });
  }
  return [...fused.values()].sort(byScore);
}
