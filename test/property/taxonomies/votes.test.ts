// Votes, paths, trees and overlaps against references that are written the long way.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { graphFaults, levelsOf } from '../../../functions/core/resources/taxonomies/hierarchy.ts';
import { parentsByOverlap } from '../../../functions/core/resources/taxonomies/overlap.ts';
import { descend, readPath } from '../../../functions/core/resources/taxonomies/paths.ts';
import type { VoteRule } from '../../../functions/core/resources/taxonomies/store.ts';
import type { Ballot } from '../../../functions/core/resources/taxonomies/vote.ts';
import { elect, round, weighFor } from '../../../functions/core/resources/taxonomies/vote.ts';

const score = fc.integer({ min: -4, max: 4 }).map((n) => n / 4);
const modes = fc.constantFrom<VoteRule['mode']>('best', 'majority', 'weighted');
const ballots = fc
  .array(fc.record({ key: fc.constantFrom('a', 'b', 'c'), score }), { maxLength: 12 })
  .map((list): Ballot[] => list.sort((x, y) => y.score - x.score));
const rules = fc.record({
  mode: modes,
  top_k: fc.integer({ min: 1, max: 6 }),
  min_share: fc.constant(null),
});
const weigh = weighFor('cosine');

/** Tries every class and keeps the best by the words of the definition. */
function naiveWinner(list: readonly Ballot[], { mode, top_k }: VoteRule) {
  if (mode === 'best') return list[0] && { key: list[0].key, votes: 1, total: 1 };
  const voters = list.slice(0, top_k);
  const weightless = mode === 'majority' || voters.every((ballot) => Math.max(0, ballot.score) === 0);
  const votesOf = (key: string) =>
    voters
      .filter((ballot) => ballot.key === key)
      .reduce((sum, ballot) => sum + (weightless ? 1 : Math.max(0, ballot.score)), 0);
  const classes = [...new Set(voters.map(({ key }) => key))];
  const total = classes.reduce((sum, key) => sum + votesOf(key), 0);
  let best: string | undefined;
  // Classes come in the order of their nearest references, so only more votes make another one the winner.
  for (const key of classes) if (best === undefined || votesOf(key) > votesOf(best)) best = key;
  return best === undefined ? undefined : { key: best, votes: votesOf(best), total };
}

describe('elect', () => {
  it('elects the class that the definition names, with its nearest reference and share', () => {
    fc.assert(
      fc.property(ballots, rules, (list, rule) => {
        const elected = elect(list, rule, weigh);
        const wanted = naiveWinner(list, rule);
        expect(elected?.key).toBe(wanted?.key);
        if (!elected || !wanted) return;
        expect(elected.best).toBe(list.findIndex(({ key }) => key === wanted.key));
        expect(elected.votes).toEqual({
          winner: round(wanted.votes),
          total: round(wanted.total),
          share: round(wanted.votes / wanted.total),
        });
        if (elected.runnerUp === undefined) expect(list.every(({ key }) => key === wanted.key)).toBe(true);
        else expect(list[elected.runnerUp]!.key).not.toBe(wanted.key);
      }),
      { numRuns: 2_000 },
    );
  });

  it('with one voter is the same for every kind of vote', () => {
    fc.assert(
      fc.property(ballots, modes, (list, mode) => {
        const one = elect(list, { mode, top_k: 1, min_share: null }, weigh);
        expect(one?.key).toBe(list[0]?.key);
        expect(one?.best).toBe(list.length > 0 ? 0 : undefined);
      }),
    );
  });
});

const path = fc.array(fc.constantFrom('x', 'y'), { maxLength: 3 });
const pathBallots = fc
  .array(fc.record({ path, score }), { maxLength: 10 })
  .map((list) => list.sort((a, b) => b.score - a.score));

describe('descend', () => {
  it('goes down only while share and threshold allow, and never beside the votes', () => {
    const share = fc.constantFrom(null, 0.4, 0.6);
    fc.assert(
      fc.property(
        pathBallots,
        fc.integer({ min: 1, max: 6 }),
        share,
        fc.array(score, { maxLength: 3 }),
        (list, top_k, min_share, level_thresholds) => {
          const rule: VoteRule = { mode: 'majority', top_k, min_share };
          const steps = descend(list, rule, { level_thresholds }, null, weigh);
          const voters = list.filter((ballot) => ballot.path.length > 0).slice(0, top_k);
          let prefix: string[] = [];
          for (const [level, step] of steps.entries()) {
            const inside = voters.filter((ballot) => prefix.every((part, i) => ballot.path[i] === part));
            const count = (part: string | undefined) =>
              inside.filter((ballot) => ballot.path[level] === part).length;
            const part = step.prefix[level]!;
            for (const other of ['x', 'y', undefined])
              expect(count(part)).toBeGreaterThanOrEqual(count(other));
            expect(step.votes.share).toBe(round(count(part) / voters.length));
            const best = inside.find((ballot) => ballot.path[level] === part)!;
            expect(list[step.best]).toBe(best);
            const threshold = level_thresholds[Math.min(level, level_thresholds.length - 1)] ?? null;
            expect(step.accepted).toBe(
              (threshold === null || best.score >= threshold) &&
                (min_share === null || step.votes.share >= min_share),
            );
            expect(step.accepted || level === steps.length - 1).toBe(true);
            prefix = [...step.prefix];
          }
          // Where it stopped although the last level was accepted, most of those that are left end here.
          if (steps.length > 0 && steps.at(-1)!.accepted) {
            const inside = voters.filter((ballot) => prefix.every((part, i) => ballot.path[i] === part));
            const ending = inside.filter((ballot) => ballot.path.length === prefix.length).length;
            const most = Math.max(
              ...['x', 'y'].map((p) => inside.filter((b) => b.path[prefix.length] === p).length),
            );
            expect(ending).toBeGreaterThanOrEqual(most);
          }
        },
      ),
      { numRuns: 2_000 },
    );
  });

  it('with the nearest reference alone takes over its path', () => {
    fc.assert(
      fc.property(pathBallots, (list) => {
        const steps = descend(
          list,
          { mode: 'best', top_k: 1, min_share: null },
          { level_thresholds: [] },
          null,
          weigh,
        );
        expect(steps.at(-1)?.prefix ?? []).toEqual(list.find((ballot) => ballot.path.length > 0)?.path ?? []);
      }),
    );
  });

  it('reads the same path from a text, a list and fields', () => {
    const parts = fc.array(fc.stringMatching(/^[a-z]{1,5}$/), { minLength: 2, maxLength: 6 });
    fc.assert(
      fc.property(parts, fc.constantFrom('/', ' > ', '|'), (list, separator) => {
        const one = { fields: ['f'], separator };
        expect(readPath([list.join(separator)], one)).toEqual(list);
        expect(readPath([list], one)).toEqual(list);
        expect(readPath(list, { fields: list, separator })).toEqual(list);
      }),
    );
  });
});

describe('graphFaults', () => {
  it('finds nothing exactly where following parents from every node ends at the one root', () => {
    const ids = ['a', 'b', 'c', 'd'];
    const nodes = fc.uniqueArray(
      fc.record({ id: fc.constantFrom(...ids), parent: fc.constantFrom(null, ...ids, 'nobody') }),
      { minLength: 1, maxLength: 4, selector: (node) => node.id },
    );
    fc.assert(
      fc.property(nodes, (list) => {
        const roots = list.filter(({ parent }) => parent === null);
        const endsAtRoot = (id: string | null, steps: number): boolean => {
          if (id === null) return true;
          const node = list.find((one) => one.id === id);
          return node !== undefined && steps > 0 && endsAtRoot(node.parent, steps - 1);
        };
        const sound = roots.length === 1 && list.every(({ id }) => endsAtRoot(id, 10));
        expect(graphFaults(list).length === 0).toBe(sound);
        if (!sound) return;
        const levels = levelsOf(list);
        expect(levels.flat().sort()).toEqual([...list.keys()].sort());
        for (const [depth, level] of levels.entries()) {
          for (const i of level) {
            let up: string | null = list[i]!.parent;
            let steps = 0;
            for (; up !== null; steps += 1) up = list.find(({ id }) => id === up)!.parent;
            expect(steps).toBe(depth);
          }
        }
      }),
      { numRuns: 2_000 },
    );
  });
});

describe('parentsByOverlap', () => {
  it('names the coarse group with most of the members, if it has enough of them', () => {
    const members = fc.uniqueArray(fc.constantFrom('m1', 'm2', 'm3', 'm4', 'm5', 'm6'), { maxLength: 6 });
    const groups = (prefix: string) =>
      fc
        .array(members, { maxLength: 4 })
        .map((lists) => lists.map((list, i) => ({ id: `${prefix}${i}`, members: list })));
    fc.assert(
      fc.property(groups('c'), groups('f'), fc.constantFrom(0.3, 0.5, 0.7, 1), (coarse, fine, share) => {
        const wanted = fine.map(({ members: own }) => {
          const shares = coarse.map(
            (group) => own.filter((m) => group.members.includes(m)).length / own.length,
          );
          const most = Math.max(...shares, 0);
          return own.length > 0 && most >= share ? coarse[shares.indexOf(most)]!.id : null;
        });
        expect(parentsByOverlap(coarse, fine, share)).toEqual(wanted);
      }),
      { numRuns: 1_000 },
    );
  });
});
