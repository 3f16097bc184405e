// The threshold of the demonstration's taxonomy, from the labelled articles alone (examples/README.md has the rule).

export interface LabelledHit {
  /** Cosine of a labelled article to the nearest other labelled one. */
  readonly score: number;
  /** Both carry the same topic. */
  readonly right: boolean;
}

/**
 * The score from which on a nearest reference's topic is taken over: it maximises right minus wrong, the lowest of
 * equally good ones, and lies halfway to the next lower score.
 *
 * @throws Error when no threshold gives more right than wrong topics.
 */
export function chooseThreshold(hits: readonly LabelledHit[]): number {
  const levels = [...new Set(hits.map((hit) => hit.score))].sort((a, b) => b - a);
  let best = 0;
  let threshold: number | undefined;
  for (const [i, level] of levels.entries()) {
    const passed = hits.filter((hit) => hit.score >= level);
    const gain = passed.reduce((sum, hit) => sum + (hit.right ? 1 : -1), 0);
    if (gain > 0 && gain >= best) {
      best = gain;
      threshold = (level + (levels[i + 1] ?? level)) / 2;
    }
  }
  if (threshold === undefined)
    throw new Error('no threshold gives more right than wrong topics; are the articles labelled correctly?');
  return threshold;
}
