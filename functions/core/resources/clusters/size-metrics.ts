// What the sizes of groups say about a run, where nothing was measured between vectors.
import type { JsonObject } from '../documents/service.ts';

/**
 * @param sizes members of each group
 * @param loose documents that belong to none
 */
export function sizeMetrics(sizes: readonly number[], loose: number): JsonObject {
  const members = sizes.reduce((sum, size) => sum + size, 0);
  const all = members + loose;
  const filled = sizes.filter((size) => size > 0);
  const entropy = filled.reduce((sum, size) => sum - (size / members) * Math.log(size / members), 0);
  const rounded = (value: number) => Math.round(value * 1e6) / 1e6;
  return {
    silhouette_score: null,
    davies_bouldin_index: null,
    calinski_harabasz_score: null,
    noise_ratio: all === 0 ? 0 : rounded(loose / all),
    avg_cluster_size: sizes.length === 0 ? 0 : rounded(members / sizes.length),
    cluster_size_entropy: rounded(Math.abs(entropy)),
  };
}
