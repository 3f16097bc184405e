// Names all clusters of a run by a model: prompt after prompt, each answer checked, within a time that is given.
import { checkAnswer, labelKey } from './answer.ts';
import type { ClusterName, ClusterSample, LabelModel, LabelOptions } from './label-model.ts';
import { LabelModelFailure } from './label-model.ts';
import { clustersPerPrompt, labelPrompt } from './prompt.ts';

/** Clusters beyond this keep the names from their words: each prompt costs time and money. */
export const clustersNamedMax = 200;
const triesPerPrompt = 3;
const firstPauseMs = 1_000;
const callTimeoutMs = 60_000;
const faultsKept = 50;

export interface NamingTime {
  /** Milliseconds since the epoch, as `now` counts them: no call begins after it. */
  readonly untilMs: number;
  readonly now: () => number;
  readonly pause: (ms: number) => Promise<void>;
}

export interface NamedClusters {
  readonly names: ReadonlyMap<string, ClusterName>;
  /** Why some clusters, or all of them, have no name from the model; at most 50 sentences. */
  readonly faults: readonly string[];
}

/**
 * Asks `model` for the names of `clusters`, largest first as they come. Never throws for what a model does: clusters
 * without a good answer are missing from the names, with the reason in `faults`.
 *
 * @param clusters with the labels that they keep if the model gives none
 */
export async function nameClusters(
  model: LabelModel,
  clusters: readonly (ClusterSample & { readonly label: string })[],
  options: LabelOptions,
  time: NamingTime,
): Promise<NamedClusters> {
  const names = new Map<string, ClusterName>();
  const faults: string[] = [];
  const asked = clusters.slice(0, clustersNamedMax);
  if (clusters.length > asked.length) {
    faults.push(`The model was asked about the ${asked.length} largest of ${clusters.length} clusters.`);
  }
  for (let i = 0; i < asked.length; i += clustersPerPrompt) {
    const group = asked.slice(i, i + clustersPerPrompt);
    const used = [...names.values()].map((name) => name.label);
    try {
      const text = await ask(model, labelPrompt(group, options, used), time);
      const checked = checkAnswer(text, group, options, used);
      for (const [id, name] of checked.names) names.set(id, name);
      faults.push(...checked.faults);
    } catch (error) {
      if (!(error instanceof LabelModelFailure)) throw error;
      faults.push(error.message);
      // A model that refuses the first prompt refuses the next; what it said before is kept.
      break;
    }
  }
  dropClashes(clusters, names, faults);
  return { names, faults: faults.slice(0, faultsKept) };
}

/**
 * A name from the model may equal the words of a cluster that keeps them: then both keep their words. That may make
 * the next clash, so it goes on until there is none.
 */
function dropClashes(
  clusters: readonly (ClusterSample & { readonly label: string })[],
  names: Map<string, ClusterName>,
  faults: string[],
): void {
  for (;;) {
    const kept = new Set(clusters.filter((c) => !names.has(c.cluster_id)).map((c) => labelKey(c.label)));
    const clash = [...names].find(([, name]) => kept.has(labelKey(name.label)));
    if (!clash) return;
    names.delete(clash[0]);
    faults.push(`${clash[0]}: the label is that of another cluster.`);
  }
}

async function ask(
  model: LabelModel,
  prompt: ReturnType<typeof labelPrompt>,
  time: NamingTime,
): Promise<string> {
  for (let tries = 1; ; tries++) {
    const leftMs = time.untilMs - time.now();
    if (leftMs <= 0)
      throw new LabelModelFailure(
        'There was no time left to ask the labelling model about more clusters.',
        false,
      );
    try {
      return await model.complete(prompt, Math.min(callTimeoutMs, leftMs));
    } catch (error) {
      if (!(error instanceof LabelModelFailure) || !error.retryable || tries >= triesPerPrompt) throw error;
      await time.pause(firstPauseMs * 2 ** (tries - 1));
    }
  }
}
