// How the nearest references decide together which class a document belongs to.
import type { VoteRule } from './store.ts';

/** One reference near a document. */
export interface Ballot {
  /** The class that it stands for. */
  readonly key: string;
  /** In units of the retriever; higher is nearer. */
  readonly score: number;
}

/** What a vote came to. Places are those of the ballots. */
export interface Election {
  readonly key: string;
  /** The winner's nearest reference, whose fields are taken over and whose score thresholds are about. */
  readonly best: number;
  /** Votes of the winner and of all: counts, or for `weighted` the sums of the weights. */
  readonly votes: { readonly winner: number; readonly total: number; readonly share: number };
  /** Nearest reference of the class that came second; undefined: there is one class only. */
  readonly runnerUp: number | undefined;
}

/** The weight of a ballot in a weighted vote: its similarity, and nothing below zero. */
export type Weigh = (score: number) => number;

/** For cosines, inner products and fused scores; distances are negative, and count by 1 / (1 + squared distance). */
export function weighFor(metric: 'cosine' | 'dot' | 'euclid'): Weigh {
  return metric === 'euclid' ? (score) => 1 / (1 - score) : (score) => Math.max(0, score);
}

interface Tally {
  readonly key: string;
  readonly best: number;
  votes: number;
}

/**
 * The class that the ballots elect; undefined if there are none.
 *
 * Only the first `top_k` ballots vote (for `best` the first alone); those behind them can be the runner-up, no more.
 * - `best`: the class of the first ballot.
 * - `majority`: the class with most ballots.
 * - `weighted`: the class with the largest sum of weights, summed in the order of the ballots; when no ballot weighs
 *   anything, as `majority`.
 *
 * Of equal classes the one whose nearest reference stands first wins, so the answer depends on the order of the
 * ballots and on nothing else.
 *
 * The runner-up is the first ballot of the class that came second; where the voters know one class only, the first
 * ballot behind them of another.
 *
 * @param ballots nearest first, ties by ascending document id
 */
export function elect(ballots: readonly Ballot[], rule: VoteRule, weigh: Weigh): Election | undefined {
  const voters = ballots.slice(0, rule.mode === 'best' ? 1 : rule.top_k);
  if (voters.length === 0) return undefined;
  const weights = voters.map(({ score }) => (rule.mode === 'weighted' ? weigh(score) : 1));
  const flat = weights.every((weight) => weight === 0);
  const tallies = new Map<string, Tally>();
  let total = 0;
  for (const [i, { key }] of voters.entries()) {
    const weight = flat ? 1 : weights[i]!;
    total += weight;
    const known = tallies.get(key);
    if (known) known.votes += weight;
    else tallies.set(key, { key, best: i, votes: weight });
  }
  const [winner, second] = [...tallies.values()].sort((a, b) => b.votes - a.votes || a.best - b.best);
  const behind = ballots.findIndex(({ key }, i) => i >= voters.length && key !== winner!.key);
  const { key, best, votes } = winner!;
  return {
    key,
    best,
    votes: { winner: round(votes), total: round(total), share: round(votes / total) },
    runnerUp: second ? second.best : behind < 0 ? undefined : behind,
  };
}

/** Whether the winner may keep what it won. */
export function isAccepted(
  score: number,
  share: number,
  threshold: number | null,
  rule: Pick<VoteRule, 'min_share'>,
): boolean {
  return (threshold === null || score >= threshold) && (rule.min_share === null || share >= rule.min_share);
}

/** Six decimals: the last bits of a score depend on which texts are embedded together. */
export function round(value: number): number {
  return Math.round(value * 1e6) / 1e6 + 0;
}
