// Facets and distinct values are what counting document by document gives: over segments, deletions, patches, filters.
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { parse } from '../../../functions/core/conditions/parse.ts';
import { distinct, facets, mergeTallies, tallyValues } from '../../../functions/core/vectors/facets.ts';
import { count, selectRows } from '../../../functions/core/vectors/select-rows.ts';
import { history, play } from './document-history.ts';
import { conditionTree, type Document, type Json, lookUp, naiveEvaluate, naiveOrder } from './model.ts';

const keys = ['a', 'b', 'n', 'metadata.m', 'payload.a', 'a.x', 'nowhere'];

interface Naive {
  readonly counts: Map<Json, number>;
  readonly missing: number;
}

function naiveCounts(documents: Iterable<Document>, key: string, tree: Document | undefined): Naive {
  const counts = new Map<Json, number>();
  let missing = 0;
  for (const each of documents) {
    if (tree !== undefined && !naiveEvaluate(tree, each)) continue;
    const { values } = lookUp(each, key);
    if (values === undefined) missing += 1;
    for (const value of new Set(values)) counts.set(value, (counts.get(value) ?? 0) + 1);
  }
  return { counts, missing };
}

const listed = ({ counts }: Naive) => [...counts].map(([value, n]) => ({ value, count: n }));

test('facets count each distinct value of the filtered documents, most frequent first, and who lacks the field', () => {
  fc.assert(
    fc.property(
      history,
      fc.option(conditionTree, { nil: undefined }),
      fc.integer({ min: 1, max: 4 }),
      (steps, tree, limit) => {
        const { snapshots, now } = play(steps);
        const snapshot = snapshots.at(-1)!;
        const filter = tree && parse(tree);
        // An older version that is asked first must leave nothing behind that the newest one would take for its own.
        for (const older of snapshots) count(older, filter);
        const found = facets(snapshot, { fields: keys.map((key) => ({ key, limit })), filter });
        expect(found).toEqual(
          keys.map((key) => {
            const naive = naiveCounts(now.values(), key, tree);
            const values = listed(naive).sort((a, b) => b.count - a.count || naiveOrder(a.value, b.value));
            return {
              key,
              values: values.slice(0, limit),
              missing_count: naive.missing,
              total_values: naive.counts.size,
            };
          }),
        );
      },
    ),
    { numRuns: 300 },
  );
});

test('pages of distinct values have no gap and no repetition, a prefix means what starts_with does, totals are exact', () => {
  const prefix = fc.constantFrom('', 'a', 'A', 'st', 'ΣΑ', 'fox', '1');
  fc.assert(
    fc.property(history, conditionTree, prefix, fc.boolean(), (steps, tree, beginning, caseSensitive) => {
      const { snapshots, now } = play(steps);
      const snapshot = snapshots.at(-1)!;
      const filter = parse(tree);
      for (const field of keys) {
        const naive = naiveCounts(now.values(), field, tree);
        const begins = (value: Json) =>
          beginning === '' ||
          naiveEvaluate(
            { field: 'v', operator: 'starts_with', value: beginning },
            { v: value },
            caseSensitive,
          );
        const expected = listed(naive).filter(({ value }) => begins(value));
        expected.sort((a, b) => naiveOrder(a.value, b.value));
        const request = { field, filter, prefix: beginning, caseSensitive };
        const paged: unknown[] = [];
        for (let offset = 0; offset <= expected.length; offset += 2) {
          const page = distinct(snapshot, { ...request, limit: 2, offset });
          expect(page.total).toBe(expected.length);
          expect(page.missing_count).toBe(naive.missing);
          paged.push(...page.values);
        }
        expect(paged).toEqual(expected);
        const byCount = distinct(snapshot, { ...request, order: 'count', limit: 100, offset: 0 });
        expect(byCount.values).toEqual(
          expected.toSorted((a, b) => b.count - a.count || naiveOrder(a.value, b.value)),
        );
      }
    }),
    { numRuns: 150 },
  );
});

test('tallies of several collections add up to the tally of their documents together', () => {
  fc.assert(
    fc.property(fc.array(history, { minLength: 1, maxLength: 3 }), (histories) => {
      const played = histories.map(play);
      const all = played.flatMap(({ now }) => [...now.values()]);
      for (const key of keys) {
        const merged = mergeTallies(
          played.map(({ snapshots }) => {
            const snapshot = snapshots.at(-1)!;
            return tallyValues(snapshot, key, selectRows(snapshot, undefined));
          }),
        );
        const naive = naiveCounts(all, key, undefined);
        expect(new Map(merged.counts)).toEqual(naive.counts);
        expect(merged).toMatchObject({ missing: naive.missing, rows: all.length });
      }
    }),
    { numRuns: 60 },
  );
});
