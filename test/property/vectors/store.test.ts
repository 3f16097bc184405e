// A feature under upserts, deletions, patches, lost races and compactions answers like a map with a naive scan.
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { mergeMatches, search } from '../../../functions/core/vectors/search.ts';
import { metrics } from '../../../functions/core/vectors/vector.ts';
import { FeatureStore, memory } from './feature-store.ts';
import { checkHistory, history, trueScore } from './history.ts';

/** `npm run fuzz:vectors` runs a million; these are for every test run. */
const histories = 10_000;

test('search, list, count and get answer like a naive scan after any history, at its end and on the way', async () => {
  await fc.assert(fc.asyncProperty(history, checkHistory), { numRuns: histories });
}, 300_000);

test('any real vectors are ranked as by double precision, up to the rounding of a stored length', async () => {
  const real = fc.float({ noNaN: true, noDefaultInfinity: true, min: -1_000, max: 1_000 });
  const shape = fc.tuple(
    fc.integer({ min: 1, max: 70 }),
    fc.constantFrom(...metrics),
    fc.integer({ min: 1, max: 30 }),
  );
  await fc.assert(
    fc.asyncProperty(
      shape.chain(([dims, metric, rows]) =>
        fc.tuple(
          fc.constant(metric),
          fc.array(fc.array(real, { minLength: dims, maxLength: dims }), {
            minLength: rows,
            maxLength: rows,
          }),
          fc.array(real, { minLength: dims, maxLength: dims }),
          fc.integer({ min: 1, max: 10 }),
        ),
      ),
      async ([metric, rows, query, k]) => {
        const dims = query.length;
        const store = new FeatureStore(dims, metric);
        const named = rows.map((vector, i) => ({ id: `doc_${i}`, vector, fields: {} }));
        await store.commit({ kind: 'upsert', rows: [named.slice(0, 7), named.slice(7)] }, false);
        const [matches] = (await search(await store.snapshot(), { queries: [query], k }, memory)).matches;
        const exact = new Map(named.map(({ id: each, vector }) => [each, trueScore(metric, query, vector)]));
        const size = metric === 'cosine' ? 1 : Math.max(1, ...[...exact.values()].map(Math.abs), dims * 1e6);
        const slack = size * (metric === 'cosine' ? 1e-6 : 1e-12);
        expect(matches).toHaveLength(Math.min(k, rows.length));
        for (const { id: each, score } of matches!)
          expect(Math.abs(score - exact.get(each)!)).toBeLessThanOrEqual(slack);
        const worst = matches!.at(-1)!.score;
        const taken = new Set(matches!.map(({ id: each }) => each));
        for (const [each, score] of exact)
          if (!taken.has(each)) expect(score).toBeLessThanOrEqual(worst + slack);
      },
    ),
    { numRuns: 150 },
  );
});

test('the answer does not depend on how rows are spread over segments or collections', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(...metrics),
      fc.array(fc.array(fc.double({ min: -1, max: 1, noNaN: true }), { minLength: 7, maxLength: 7 }), {
        minLength: 1,
        maxLength: 40,
      }),
      fc.integer({ min: 1, max: 40 }),
      async (metric, rows, cut) => {
        const named = rows.map((vector, i) => ({ id: `doc_${i % 10}${i}`, vector, fields: {} }));
        const request = { queries: rows.slice(0, 3), k: 6 };
        const one = new FeatureStore(7, metric);
        await one.commit({ kind: 'upsert', rows: [named] }, false);
        const many = new FeatureStore(7, metric);
        await many.commit({ kind: 'upsert', rows: [named.slice(cut), [], named.slice(0, cut)] }, false);
        const left = new FeatureStore(7, metric);
        await left.commit({ kind: 'upsert', rows: [named.slice(0, cut)] }, false);
        const right = new FeatureStore(7, metric);
        await right.commit({ kind: 'upsert', rows: [named.slice(cut)] }, false);
        const answer = async (store: FeatureStore) =>
          (await search(await store.snapshot(), request, memory)).matches;
        const whole = await answer(one);
        expect(await answer(many)).toEqual(whole);
        const halves = [await answer(left), await answer(right)];
        expect(whole.map((_, i) => mergeMatches([halves[0]![i]!, halves[1]![i]!], 6))).toEqual(whole);
      },
    ),
    { numRuns: 150 },
  );
});
