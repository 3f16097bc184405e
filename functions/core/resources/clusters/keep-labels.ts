// Names that stay: a cluster that the run before had too, and whose texts near the centre are the same, is not given
// another name.
import type { NsCtx } from '../../context.ts';
import { labelKey } from '../../labels/answer.ts';
import { BlobMissing } from '../../store/blobs.ts';
import type { RawResult, ResultGroup } from './results.ts';
import { readGroups, readRaw } from './results.ts';
import type { StoredLabeling, StoredRun } from './store.ts';

/** What a cluster was called. */
export type KeptName = Pick<ResultGroup, 'label' | 'label_source' | 'summary' | 'keywords'>;

/** What changes the form of a name. */
const form = ({ enabled, include_summary, include_keywords, labeling_context }: StoredLabeling) =>
  JSON.stringify([enabled, include_summary, include_keywords, labeling_context]);

/**
 * Names by cluster id, of the clusters that are what they were.
 *
 * @param before the run by which the ids were kept
 */
export async function keptNames(
  ctx: NsCtx,
  run: StoredRun,
  raw: RawResult,
  before: StoredRun | undefined,
): Promise<ReadonlyMap<string, KeptName>> {
  const kept = new Map<string, KeptName>();
  if (!before?.has_result || form(before.plan.llm_labeling) !== form(run.plan.llm_labeling)) return kept;
  try {
    const samples = new Map(
      (await readRaw(ctx, before.run_id)).clusters.map((c) => [c.cluster_id, c.samples]),
    );
    const names = new Map((await readGroups(ctx, before.run_id)).groups.map((g) => [g.cluster_id, g]));
    for (const cluster of raw.clusters) {
      const name = names.get(cluster.cluster_id);
      const same = JSON.stringify(samples.get(cluster.cluster_id)) === JSON.stringify(cluster.samples);
      if (!name || !same || cluster.samples.length === 0) continue;
      const { label, label_source, summary, keywords } = name;
      kept.set(cluster.cluster_id, { label, label_source, summary, keywords });
    }
  } catch (error) {
    // Files of the run before that are gone have nothing to keep.
    if (!(error instanceof BlobMissing)) throw error;
  }
  return kept;
}

/** Leaves out those kept names that other clusters of the run bear now. */
export function withoutClashes(
  kept: ReadonlyMap<string, KeptName>,
  labels: ReadonlyMap<string, string>,
): ReadonlyMap<string, KeptName> {
  const taken = new Set([...labels].flatMap(([id, label]) => (kept.has(id) ? [] : [labelKey(label)])));
  return new Map([...kept].filter(([, name]) => !taken.has(labelKey(name.label))));
}
