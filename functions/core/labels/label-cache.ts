// Names that a model gave before, kept for a week under a digest of what it was shown: a run over documents that hardly
// changed asks about the clusters that did.
import { createHash } from 'node:crypto';
import * as z from 'zod';
import type { ClusterName, ClusterSample, LabelOptions } from './label-model.ts';
import { shownOf } from './prompt.ts';

export const cachedNamesDays = 7;
const keptMs = cachedNamesDays * 24 * 3_600_000;
/** The newest; a run asks about 200 clusters. */
export const cachedNamesMax = 1_000;
/** Part of every digest: raise it when prompts change, so that old names are not taken for answers to new ones. */
const promptVersion = 1;

/** Where the names of one definition are kept, as one text. Two runs at once may each write; either text will do. */
export interface LabelCacheStore {
  /** undefined: nothing was kept yet. */
  read(): Promise<string | undefined>;
  write(text: string): Promise<void>;
}

export interface LabelCache {
  /** The name that the model gave when it was shown the same of a cluster. */
  find(cluster: ClusterSample): ClusterName | undefined;
  /** Keeps names that passed every check. */
  keep(named: readonly { readonly cluster: ClusterSample; readonly name: ClusterName }[]): Promise<void>;
}

const Kept = z.object({
  names: z.record(
    z.string(),
    z.object({
      label: z.string(),
      summary: z.string().optional(),
      keywords: z.array(z.string()).optional(),
      named_at_ms: z.number(),
    }),
  ),
});
type KeptNames = z.output<typeof Kept>['names'];

/**
 * Reads what is kept. A text that cannot be read counts as nothing, since all of it can be asked for again.
 *
 * @param modelName another model gives other names
 * @param nowMs milliseconds since the epoch
 */
export async function openLabelCache(
  store: LabelCacheStore,
  modelName: string,
  options: LabelOptions,
  nowMs: number,
): Promise<LabelCache> {
  const names = fresh(parse(await store.read()), nowMs);
  const digest = (cluster: ClusterSample) =>
    createHash('sha256')
      .update(JSON.stringify([promptVersion, modelName, shownOf(cluster, options), asked(options)]))
      .digest('hex');
  return {
    find(cluster) {
      const found = names.get(digest(cluster));
      return found && { label: found.label, summary: found.summary, keywords: found.keywords };
    },
    async keep(named) {
      for (const { cluster, name } of named) {
        names.set(digest(cluster), {
          label: name.label,
          ...(name.summary === undefined ? {} : { summary: name.summary }),
          ...(name.keywords === undefined ? {} : { keywords: [...name.keywords] }),
          named_at_ms: nowMs,
        });
      }
      const newest = [...names].sort(([, a], [, b]) => b.named_at_ms - a.named_at_ms);
      await store.write(JSON.stringify({ names: Object.fromEntries(newest.slice(0, cachedNamesMax)) }));
    },
  };
}

/** What else decides about an answer. */
function asked({ summaries, keywords, context }: LabelOptions): readonly unknown[] {
  return [summaries, keywords, context ?? null];
}

function parse(text: string | undefined): KeptNames {
  if (text === undefined) return {};
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return {};
  }
  const kept = Kept.safeParse(value);
  return kept.success ? kept.data.names : {};
}

function fresh(names: KeptNames, nowMs: number): Map<string, KeptNames[string]> {
  return new Map(Object.entries(names).filter(([, { named_at_ms }]) => nowMs - named_at_ms < keptMs));
}
