// How far the members of each group are from its centroid, from the file that the clusterer was given. Under the metric
// euclid that is the scale by which new documents are near or far.
import type { NsCtx } from '../../context.ts';
import type { RawResult } from './results.ts';
import type { StoredRun } from './store.ts';
import { runKeys } from './store.ts';

const bytesAtOnce = 8 * 2 ** 20;

/** The largest distance of a member by cluster id; empty for other metrics. @throws BlobMissing */
export async function measureReach(
  ctx: NsCtx,
  run: StoredRun,
  raw: RawResult,
): Promise<ReadonlyMap<string, number>> {
  const { rows, dims, metric } = run.input!;
  const reach = new Map<string, number>();
  if (metric !== 'euclid' || raw.clusters.length === 0) return reach;
  const centroids = new Map(raw.clusters.map((cluster) => [cluster.cluster_id, cluster.centroid_vector]));
  const rowsAtOnce = Math.max(1, Math.floor(bytesAtOnce / (4 * dims)));
  for (let first = 0; first < rows; first += rowsAtOnce) {
    const count = Math.min(rowsAtOnce, rows - first);
    const bytes = await ctx.ports.blobs.get(runKeys.vectors(ctx, run.run_id), {
      offset: first * dims * 4,
      length: count * dims * 4,
    });
    // A buffer of its own, since numbers must begin at a multiple of four bytes.
    const values = new Float32Array(bytes.slice().buffer);
    for (let i = 0; i < count; i++) {
      const { cluster_id } = raw.members[first + i]!;
      const centroid = centroids.get(cluster_id);
      if (!centroid) continue;
      let square = 0;
      for (let d = 0; d < dims; d++) square += (values[i * dims + d]! - centroid[d]!) ** 2;
      reach.set(cluster_id, Math.max(reach.get(cluster_id) ?? 0, Math.sqrt(square)));
    }
  }
  return reach;
}
