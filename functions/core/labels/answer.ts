// Checks what a model answered. It has read texts of strangers, so its answer is trusted no more than they are.
import * as z from 'zod';
import type { ClusterName, ClusterSample, LabelOptions } from './label-model.ts';

export const labelLimits = {
  labelCharactersMax: 80,
  summaryCharactersMax: 400,
  keywordsMax: 10,
  keywordCharactersMax: 40,
  contextCharactersMax: 2000,
} as const;

/** Letters of any script with their marks, digits, spaces and the punctuation of names: no markup, braces, quotes of code. */
const labelText = /^[\p{L}\p{N}][\p{L}\p{M}\p{N} ,.:;&+'’()/–-]*$/u;
/** A sentence may also quote, ask and count; still nothing that a page or a template would read as its own. */
const summaryText = /^[\p{L}\p{N}"“„«(][\p{L}\p{M}\p{N} ,.:;&+'’()/–—!?%"“”„«»$€£#-]*$/u;
const hasLetter = /\p{L}/u;
const link = /(:\/\/|\bwww\.|\]\(|@)/i;

const Answer = z.strictObject({
  clusters: z
    .array(
      z.strictObject({
        cluster_id: z.string().max(40),
        label: z.string().max(2_000),
        summary: z.string().max(5_000).nullish(),
        keywords: z.array(z.string().max(500)).max(50).nullish(),
      }),
    )
    .max(200),
});

export interface CheckedAnswer {
  /** By cluster id; clusters that the answer did not name, or named badly, are missing. */
  readonly names: ReadonlyMap<string, ClusterName>;
  /** What was wrong, one sentence each. They quote no text of the answer, which may hold anything. */
  readonly faults: readonly string[];
}

/** A text as it may be shown, or why not. */
function fit(
  text: string,
  charactersMax: number,
  allowed: RegExp,
): { readonly text: string } | { readonly fault: string } {
  const cleaned = text.normalize('NFKC').replace(/\s+/g, ' ').trim();
  const characters = [...cleaned].length;
  if (characters === 0) return { fault: 'is empty' };
  if (characters > charactersMax)
    return { fault: `has ${characters} characters; at most ${charactersMax} are accepted` };
  if (!hasLetter.test(cleaned)) return { fault: 'has no letter' };
  if (link.test(cleaned)) return { fault: 'holds a link or an address' };
  if (!allowed.test(cleaned)) return { fault: 'holds characters that names do not have' };
  return { text: cleaned };
}

/** Equal labels for a reader are equal: letter case and punctuation make no difference. */
export function labelKey(label: string): string {
  return label
    .normalize('NFKC')
    .toLowerCase()
    .replace(/[^\p{L}\p{N}]+/gu, ' ')
    .trim();
}

/**
 * The names that an answer gives, each checked: form, length, characters, uniqueness.
 *
 * @param asked the clusters of the prompt; anything else in the answer is a fault
 * @param used labels that may not come again
 */
export function checkAnswer(
  text: string,
  asked: readonly ClusterSample[],
  options: Pick<LabelOptions, 'summaries' | 'keywords'>,
  used: readonly string[],
): CheckedAnswer {
  const none = (fault: string): CheckedAnswer => ({ names: new Map(), faults: [fault] });
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return none('The model did not answer with JSON.');
  }
  const parsed = Answer.safeParse(value);
  if (!parsed.success) return none('The answer of the model does not have the form that it was asked for.');

  const wanted = new Set(asked.map((cluster) => cluster.cluster_id));
  const taken = new Set(used.map(labelKey));
  const names = new Map<string, ClusterName>();
  const faults: string[] = [];
  for (const entry of parsed.data.clusters) {
    if (!wanted.has(entry.cluster_id)) {
      faults.push('The model named a cluster that it was not asked about.');
      continue;
    }
    if (names.has(entry.cluster_id)) {
      faults.push(`${entry.cluster_id}: the model named it twice; the first name counts.`);
      continue;
    }
    const label = fit(entry.label, labelLimits.labelCharactersMax, labelText);
    if ('fault' in label) {
      faults.push(`${entry.cluster_id}: the label ${label.fault}.`);
      continue;
    }
    if (taken.has(labelKey(label.text))) {
      faults.push(`${entry.cluster_id}: the label is that of another cluster.`);
      continue;
    }
    taken.add(labelKey(label.text));
    names.set(entry.cluster_id, { label: label.text, ...details(entry, options, faults) });
  }
  for (const id of wanted) {
    const known = names.has(id) || faults.some((fault) => fault.startsWith(`${id}:`));
    if (!known) faults.push(`${id}: the model did not name it.`);
  }
  return { names, faults };
}

function details(
  entry: z.output<typeof Answer>['clusters'][number],
  options: Pick<LabelOptions, 'summaries' | 'keywords'>,
  faults: string[],
): Pick<ClusterName, 'summary' | 'keywords'> {
  let summary: string | undefined;
  if (options.summaries && entry.summary) {
    const checked = fit(entry.summary, labelLimits.summaryCharactersMax, summaryText);
    if ('fault' in checked) faults.push(`${entry.cluster_id}: the summary ${checked.fault}.`);
    else summary = checked.text;
  }
  let keywords: string[] | undefined;
  if (options.keywords && entry.keywords) {
    const fitting = entry.keywords.map((word) => fit(word, labelLimits.keywordCharactersMax, labelText));
    const texts = fitting.flatMap((checked) => ('text' in checked ? [checked.text] : []));
    if (texts.length < fitting.length) faults.push(`${entry.cluster_id}: some keywords cannot be shown.`);
    if (texts.length > 0) keywords = [...new Set(texts)].slice(0, labelLimits.keywordsMax);
  }
  return { summary, keywords };
}
