// Hierarchies that stand in the references: each carries a path, and documents go down it as far as the votes carry.
import type { Json } from '../documents/service.ts';
import type { PathRule, VoteRule } from './store.ts';
import type { Ballot, Election, Weigh } from './vote.ts';
import { elect, isAccepted } from './vote.ts';

/** Deeper parts of a path are left out. */
export const pathDepthMax = 10;

/**
 * The path of a reference: its parts without blanks around them, empty ones left out, at most 10; empty if it has
 * none. Of a field per level, the path ends before the first level without a value.
 *
 * @param values of the rule's fields, in order
 */
export function readPath(
  values: readonly (Json | undefined)[],
  rule: Pick<PathRule, 'fields' | 'separator'>,
): string[] {
  const textOf = (value: Json | undefined) =>
    typeof value === 'string' ? value.trim() : typeof value === 'number' ? String(value) : '';
  let parts: string[];
  if (rule.fields.length > 1) {
    parts = values.map(textOf);
    const end = parts.indexOf('');
    if (end >= 0) parts = parts.slice(0, end);
  } else {
    const [value] = values;
    parts = Array.isArray(value)
      ? (value as readonly Json[]).map(textOf)
      : textOf(value)
          .split(rule.separator)
          .map((part) => part.trim());
  }
  return parts.filter((part) => part !== '').slice(0, pathDepthMax);
}

/** A reference near a document, with its path. */
export interface PathBallot {
  readonly path: readonly string[];
  readonly score: number;
}

/** The vote at one level. Places are those of the ballots that were given. */
export interface PathStep extends Omit<Election, 'key'> {
  /** From the top to this level. */
  readonly prefix: readonly string[];
  readonly accepted: boolean;
}

/** The class of references that end at the level above. */
const endsHere = '\u0000';

/** The threshold of a level, from 0. */
export function thresholdAt(
  rule: Pick<PathRule, 'level_thresholds'>,
  level: number,
  fallback: number | null,
): number | null {
  const { level_thresholds: list } = rule;
  return list.length === 0 ? fallback : list[Math.min(level, list.length - 1)]!;
}

/**
 * Goes down level by level. At each level the voters that agree with the path so far vote by their next part (those
 * that end here vote for staying); the winner's part is added while the winner's best reference reaches the level's
 * threshold and the winner's share **of all voters** reaches `min_share`. So a document gets the deepest prefix that
 * passes at every level.
 *
 * @param ballots nearest first; those without a path do not vote
 * @returns the levels in order; only the last one can be not accepted, which is where the document stopped
 */
export function descend(
  ballots: readonly PathBallot[],
  vote: VoteRule,
  rule: Pick<PathRule, 'level_thresholds'>,
  threshold: number | null,
  weigh: Weigh,
): PathStep[] {
  const steps: PathStep[] = [];
  const voters = vote.mode === 'best' ? 1 : vote.top_k;
  let places = ballots.flatMap(({ path }, i) => (path.length > 0 ? [i] : []));
  /** Those that voted for every level above. */
  let voting = places.slice(0, voters);
  let total: number | undefined;
  for (let level = 0; level < pathDepthMax; level++) {
    const keyed = (i: number): Ballot => {
      const { path, score } = ballots[i]!;
      return { key: path.length > level ? path[level]! : endsHere, score };
    };
    const elected = elect(voting.map(keyed), { ...vote, top_k: Math.max(1, voting.length) }, weigh);
    if (!elected || elected.key === endsHere) return steps;
    total ??= elected.votes.total;
    const best = voting[elected.best]!;
    const share = total === 0 ? 0 : Math.round((elected.votes.winner / total) * 1e6) / 1e6;
    const second =
      elected.runnerUp === undefined
        ? places.find((i) => keyed(i).key !== elected.key)
        : voting[elected.runnerUp];
    const accepted = isAccepted(ballots[best]!.score, share, thresholdAt(rule, level, threshold), vote);
    steps.push({
      prefix: [...(steps.at(-1)?.prefix ?? []), elected.key],
      best,
      votes: { winner: elected.votes.winner, total, share },
      runnerUp: second,
      accepted,
    });
    if (!accepted) return steps;
    voting = voting.filter((i) => keyed(i).key === elected.key);
    places = places.filter((i) => keyed(i).key === elected.key);
  }
  return steps;
}
