// A feature cut into shards answers as one: also when newer rows in one shard replace rows of another.
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { conditionKey, parse, toTree } from '../../../functions/core/conditions/index.ts';
import { workflowContext } from '../../../functions/core/context.ts';
import { compactIndex } from '../../../functions/core/store/compact-index.ts';
import { openShard } from '../../../functions/core/store/open-shard.ts';
import {
  commitIndex,
  deleteRows,
  openIndex,
  patchColumns,
  putSegment,
} from '../../../functions/core/store/vector-index.ts';
import { type Match, mergeMatches, search } from '../../../functions/core/vectors/search.ts';
import { makeTestPorts } from '../../http/app.ts';
import { conditionTree } from '../vectors/model.ts';

const uri = 'mixpeek://toy@1.0.0/toy';
const id = fc.constantFrom(...'abcdefgh').map((letter) => `doc_${letter}`);
const vector = fc.array(fc.integer({ min: -2, max: 2 }), { minLength: 3, maxLength: 3 });

const step = fc.oneof(
  {
    weight: 5,
    arbitrary: fc.record({
      kind: fc.constant('upsert' as const),
      rows: fc.array(fc.record({ id, vector, colour: fc.constantFrom('red', 'blue') }), {
        minLength: 1,
        maxLength: 5,
      }),
      gone: fc.array(id, { maxLength: 2 }),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant('delete' as const),
      ids: fc.array(id, { minLength: 1, maxLength: 3 }),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant('patch' as const),
      id,
      colour: fc.constantFrom('red', 'green'),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('compact' as const) }) },
);

test('the shards of any version, each with the segments of any cut, merge to the answer of the whole', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(step, { minLength: 1, maxLength: 8 }),
      fc.array(vector, { minLength: 1, maxLength: 3 }),
      fc.integer({ min: 1, max: 10 }),
      fc.array(fc.integer({ min: 0, max: 2 }), { minLength: 8, maxLength: 8 }),
      fc.constantFrom(undefined, { field: 'colour', value: 'red' }),
      async (steps, queries, k, cut, tree) => {
        const ctx = workflowContext(makeTestPorts(), {
          org_id: 'org_a',
          namespace_id: 'ns_a',
          request_id: 'r',
        });
        const collection = 'col_a';
        await ctx.ports.table.write([
          { put: { ...ctx.ns.resource('COLLECTION', collection), id: collection } },
        ]);
        for (const [i, one] of steps.entries()) {
          const token = `t${i}`;
          if (one.kind === 'upsert') {
            const segment = await putSegment(ctx, collection, {
              kind: 'data',
              dims: 3,
              metric: 'dot',
              tombs: one.gone.map((each) => ({ id: each })),
              rows: one.rows.map((row) => ({
                id: row.id,
                vector: row.vector,
                columns: new Map([['colour', row.colour]]),
              })),
            });
            const additions = [{ uri, dims: 3, metric: 'dot' as const, segment }];
            await commitIndex(ctx, [{ collection_id: collection, additions, document_delta: 0 }], { token });
          }
          if (one.kind === 'delete') await deleteRows(ctx, collection, one.ids, 0, { token });
          if (one.kind === 'patch')
            await patchColumns(
              ctx,
              collection,
              [{ id: one.id, columns: new Map([['colour', one.colour]]) }],
              { token },
            );
          if (one.kind === 'compact') await compactIndex(ctx, collection);
        }
        const view = await openIndex(ctx, collection);
        const whole = await view.snapshot(uri);
        if (!whole) return;
        const data = view.manifest.features[uri]!.segments.filter(({ kind }) => kind === 'data').map(
          ({ key }) => key,
        );
        const filter = tree && parse(tree);
        const request = { queries, k, filter };
        const parts = [0, 1, 2].map((shard) => data.filter((_, i) => cut[i % cut.length] === shard));
        const answers: (readonly (readonly Match[])[])[] = [];
        for (const keys of parts) {
          if (keys.length === 0) continue;
          const shard = await openShard(ctx, collection, view.head.manifest_key!, uri, keys);
          answers.push((await search(shard, request)).matches);
        }
        const expected = (await search(whole, request)).matches;
        expect(
          queries.map((_, q) =>
            mergeMatches(
              answers.map((lists) => lists[q]!),
              k,
            ),
          ),
        ).toEqual(expected);
      },
    ),
    { numRuns: 150 },
  );
});

test('a condition that travels to another function is the same one there', () => {
  fc.assert(
    fc.property(conditionTree, (tree) => {
      const condition = parse(tree);
      const travelled = JSON.parse(JSON.stringify(toTree(condition)));
      expect(conditionKey(parse(travelled, { unlimited: true }))).toBe(conditionKey(condition));
    }),
    { numRuns: 300 },
  );
});
