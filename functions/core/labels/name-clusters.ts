// Names all clusters of a run by a model: prompt after prompt, each answer checked, within a time that is given.
import { checkAnswer, labelKey } from './answer.ts';
import type { LabelCache } from './label-cache.ts';
import type { ClusterName, ClusterSample, LabelModel, LabelOptions, LabelPrompt } from './label-model.ts';
import { LabelModelFailure } from './label-model.ts';
import { fittingPrompt, promptTokens } from './prompt.ts';

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
 * @param cache names of clusters that a model was shown before just as they are now: it is not asked about them again
 */
export async function nameClusters(
  model: LabelModel,
  clusters: readonly (ClusterSample & { readonly label: string })[],
  options: LabelOptions,
  time: NamingTime,
  cache?: LabelCache,
): Promise<NamedClusters> {
  const names = new Map<string, ClusterName>();
  const faults: string[] = [];
  const asked = clusters.slice(0, clustersNamedMax);
  if (clusters.length > asked.length) {
    faults.push(`The model was asked about the ${asked.length} largest of ${clusters.length} clusters.`);
  }
  const known = takeKnown(asked, names, cache);
  const waiting = asked.filter((cluster) => !known.has(cluster.cluster_id));
  const budget = { tokens: model.limits.runTokensMax };
  while (waiting.length > 0) {
    const used = [...names.values()].map((name) => name.label);
    const { count, prompt } = fittingPrompt(waiting, options, used, model.limits.promptTokensMax);
    const group = waiting.splice(0, Math.max(count, 1));
    if (prompt === undefined) {
      faults.push(`${group[0]!.cluster_id}: its words and samples are more than one prompt may hold.`);
      continue;
    }
    try {
      const text = await ask(model, prompt, time, budget);
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
  await keepNew(asked, names, known, cache);
  return { names, faults: faults.slice(0, faultsKept) };
}

/** Puts the names that are known into `names`, each once. @returns the ids of their clusters */
function takeKnown(
  asked: readonly ClusterSample[],
  names: Map<string, ClusterName>,
  cache: LabelCache | undefined,
): ReadonlySet<string> {
  const taken = new Set<string>();
  for (const cluster of asked) {
    const name = cache?.find(cluster);
    if (!name || taken.has(labelKey(name.label))) continue;
    taken.add(labelKey(name.label));
    names.set(cluster.cluster_id, name);
  }
  return new Set(names.keys());
}

async function keepNew(
  asked: readonly ClusterSample[],
  names: ReadonlyMap<string, ClusterName>,
  known: ReadonlySet<string>,
  cache: LabelCache | undefined,
): Promise<void> {
  const fresh = asked.flatMap((cluster) => {
    const name = known.has(cluster.cluster_id) ? undefined : names.get(cluster.cluster_id);
    return name ? [{ cluster, name }] : [];
  });
  if (cache && fresh.length > 0) await cache.keep(fresh);
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
  prompt: LabelPrompt,
  time: NamingTime,
  budget: { tokens: number },
): Promise<string> {
  const tokens = promptTokens(prompt);
  for (let tries = 1; ; tries++) {
    const leftMs = time.untilMs - time.now();
    if (leftMs <= 0)
      throw new LabelModelFailure(
        'There was no time left to ask the labelling model about more clusters.',
        false,
      );
    if (tokens > budget.tokens)
      throw new LabelModelFailure(
        `The prompts of one run may have ${model.limits.runTokensMax} tokens; the model was not asked about more clusters.`,
        false,
      );
    budget.tokens -= tokens;
    try {
      return await model.complete(prompt, Math.min(callTimeoutMs, leftMs));
    } catch (error) {
      if (!(error instanceof LabelModelFailure) || !error.retryable || tries >= triesPerPrompt) throw error;
      await time.pause(firstPauseMs * 2 ** (tries - 1));
    }
  }
}
