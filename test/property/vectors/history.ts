// Random histories of a feature, and a check that it answers like a map with a naive scan after each of them.
import { isDeepStrictEqual } from 'node:util';
import fc from 'fast-check';
import { evaluate } from '../../../functions/core/conditions/evaluate.ts';
import { parse } from '../../../functions/core/conditions/parse.ts';
import { deltasMax } from '../../../functions/core/store/fold-deltas.ts';
import { flattenColumns } from '../../../functions/core/vectors/columns.ts';
import { listRows, vectorTable } from '../../../functions/core/vectors/list-rows.ts';
import type { Manifest } from '../../../functions/core/vectors/manifest.ts';
import { search } from '../../../functions/core/vectors/search.ts';
import type { VectorStorage } from '../../../functions/core/vectors/segment-format.ts';
import { columnsOf, vectorOf } from '../../../functions/core/vectors/snapshot.ts';
import { type Metric, metrics } from '../../../functions/core/vectors/vector.ts';
import { type Change, type Choice, choice, FeatureStore, keysIn, memory } from './feature-store.ts';
import { conditionTree } from './model.ts';

const ids = Array.from({ length: 12 }, (_, i) => `doc_${'zyxwvutsrqpo'[i]}`);

/** What the store must behave like. */
type Model = Map<string, { vector: number[]; fields: Record<string, unknown> }>;

interface Row {
  readonly id: string;
  readonly vector: number[];
  readonly fields: Record<string, unknown>;
}

/** A commit over few ids, so that most of them meet rows that are there. */
type Commit =
  | { readonly kind: 'upsert'; readonly rows: readonly (readonly Row[])[] }
  | { readonly kind: 'delete'; readonly ids: readonly string[] }
  | { readonly kind: 'replace'; readonly deleted: readonly string[]; readonly rows: readonly Row[] }
  | { readonly kind: 'patch'; readonly rows: readonly Patch[] }
  | { readonly kind: 'storm'; readonly rows: readonly Patch[] };

interface Patch {
  readonly id: string;
  readonly a: string | number | undefined;
}

interface Rival {
  readonly kind: 'rival';
  readonly choice: Choice;
}

type Step =
  | Commit
  | { readonly kind: 'compact'; readonly choice: Choice; readonly meanwhile: readonly (Commit | Rival)[] };

const id = fc.constantFrom(...ids);
const fields = fc.record(
  {
    a: fc.constantFrom<string | number>('x', 'y', 1),
    n: fc.integer({ min: 0, max: 3 }),
    b: fc.array(fc.constantFrom('x', 'y')),
  },
  { requiredKeys: [] },
);

/** Small integers: every sum is exact in float64, so the store must agree to the last bit. */
function vectors(dims: number) {
  return fc.oneof(
    { weight: 8, arbitrary: fc.array(fc.integer({ min: -3, max: 3 }), { minLength: dims, maxLength: dims }) },
    { weight: 1, arbitrary: fc.constant(new Array<number>(dims).fill(0)) },
    { weight: 2, arbitrary: fc.constant(new Array<number>(dims).fill(1)) },
  );
}

function commit(dims: number): fc.Arbitrary<Commit> {
  const row = fc.record({ id, vector: vectors(dims), fields });
  return fc.oneof(
    {
      weight: 5,
      arbitrary: fc.record({
        kind: fc.constant('upsert'),
        rows: fc.array(fc.array(row, { maxLength: 6 }), { minLength: 1, maxLength: 3 }),
      }),
    },
    {
      weight: 2,
      arbitrary: fc.record({
        kind: fc.constant('delete'),
        ids: fc.array(id, { minLength: 1, maxLength: 4 }),
      }),
    },
    {
      weight: 2,
      arbitrary: fc.record({
        kind: fc.constant('replace'),
        deleted: fc.array(id, { minLength: 1, maxLength: 4 }),
        rows: fc.array(row, { maxLength: 4 }),
      }),
    },
    {
      weight: 3,
      arbitrary: fc.record({
        kind: fc.constant('patch'),
        rows: fc.array(fc.record({ id, a: fc.constantFrom('x', 'z', 2, undefined) }), {
          minLength: 1,
          maxLength: 5,
        }),
      }),
    },
    {
      weight: 1,
      arbitrary: fc
        .record({ id, other: id, a: fc.constantFrom('x', 3, undefined) })
        .map(({ id: one, other, a }) => ({
          kind: 'storm',
          rows: Array.from({ length: deltasMax + 1 }, (_, i) => {
            const isLast = i === deltasMax;
            return { id: i % 2 === 0 ? one : other, a: isLast ? a : i % 7 };
          }),
        })),
    },
  ) as fc.Arbitrary<Commit>;
}

function step(dims: number): fc.Arbitrary<Step> {
  return fc.oneof(
    { weight: 3, arbitrary: commit(dims) },
    {
      weight: 1,
      arbitrary: fc.record({
        kind: fc.constant('compact' as const),
        choice,
        meanwhile: fc.array(
          fc.oneof(
            { weight: 5, arbitrary: commit(dims) },
            { weight: 1, arbitrary: fc.record({ kind: fc.constant('rival' as const), choice }) },
          ),
          { maxLength: 2 },
        ),
      }),
    },
  );
}

/** Everything that one history needs. */
export type History = typeof history extends fc.Arbitrary<infer T> ? T : never;

export const history = fc
  .tuple(fc.oneof(fc.integer({ min: 1, max: 5 }), fc.constantFrom(16, 17, 33)), fc.constantFrom(...metrics))
  .chain(([dims, metric]) =>
    fc.record({
      dims: fc.constant(dims),
      metric: fc.constant(metric),
      steps: fc.array(step(dims), { minLength: 1, maxLength: 9 }),
      storage: fc.constantFrom<VectorStorage>('f32', 'f32', 'bf16'),
      codes: fc.boolean(),
      lostRaces: fc.array(fc.boolean(), { minLength: 9, maxLength: 9 }),
      queries: fc.array(vectors(dims), { minLength: 1, maxLength: 18 }),
      k: fc.integer({ min: 1, max: 15 }),
      filter: fc.option(fc.oneof(conditionTree, fc.constant({ field: 'a', value: 'X' })), { nil: undefined }),
      exclude: fc.array(fc.oneof(id, fc.constant(undefined), fc.array(id, { maxLength: 3 })), {
        maxLength: 18,
      }),
      include: fc.option(fc.array(id, { maxLength: 8 }), { nil: undefined }),
      minScore: fc.option(fc.constantFrom(-10, 0, 0.5, 1), { nil: undefined }),
    }),
  );

/** The score by its definition; for a cosine with the row's inverse length as the file keeps it, in float32. */
export function naiveScore(metric: Metric, query: readonly number[], row: readonly number[]): number {
  const dot = (a: readonly number[], b: readonly number[]) => a.reduce((sum, x, i) => sum + x * b[i]!, 0);
  if (metric === 'dot') return dot(query, row);
  if (metric === 'euclid') return 0 - query.reduce((sum, x, i) => sum + (x - row[i]!) ** 2, 0);
  const inverse = (v: readonly number[]) => (dot(v, v) === 0 ? 0 : 1 / Math.sqrt(dot(v, v)));
  return Math.max(-1, Math.min(1, dot(query, row) * Math.fround(inverse(row)) * inverse(query))) + 0;
}

/** The same without any float32, for vectors that are float32 already. */
export function trueScore(metric: Metric, query: readonly number[], row: readonly number[]): number {
  const dot = (a: readonly number[], b: readonly number[]) => a.reduce((sum, x, i) => sum + x * b[i]!, 0);
  if (metric !== 'cosine') return naiveScore(metric, query, row);
  const lengths = Math.sqrt(dot(query, query)) * Math.sqrt(dot(row, row));
  return lengths === 0 ? 0 : dot(query, row) / lengths;
}

/** The same commit for the store. */
function changeOf(commit: Commit): Change {
  if (commit.kind !== 'patch' && commit.kind !== 'storm') return commit;
  const rows = commit.rows.map(({ id: each, a }) => ({ id: each, columns: new Map([['a', a]]) }));
  return { kind: commit.kind, rows };
}

function applyToModel(model: Model, change: Commit): void {
  const put = (row: Row) => model.set(row.id, { vector: row.vector, fields: { ...row.fields } });
  if (change.kind === 'upsert') for (const rows of change.rows) for (const row of rows) put(row);
  if (change.kind === 'delete') for (const each of change.ids) model.delete(each);
  if (change.kind === 'replace') {
    for (const each of change.deleted) model.delete(each);
    for (const row of change.rows) put(row);
  }
  if (change.kind !== 'patch' && change.kind !== 'storm') return;
  for (const { id: each, a } of change.rows) {
    const row = model.get(each);
    if (row === undefined) continue;
    row.fields = { ...row.fields, a };
    if (a === undefined) delete row.fields.a;
  }
}

function check(what: string, got: unknown, expected: unknown): void {
  if (isDeepStrictEqual(got, expected)) return;
  const show = (value: unknown) => JSON.stringify(value, (_, v: unknown) => (v instanceof Map ? [...v] : v));
  throw new Error(`${what}: got ${show(got)}, expected ${show(expected)}`);
}

/** Searches, lists and reads one version of the store, and compares each answer with the model's. */
async function compare(
  store: FeatureStore,
  version: Manifest,
  model: Model,
  { metric, queries, k, filter: tree, exclude, include, minScore }: History,
): Promise<void> {
  const snapshot = await store.snapshot(version);
  const filter = tree === undefined ? undefined : parse(tree);
  const passing = [...model].filter(([, { fields: each }]) => filter === undefined || evaluate(filter, each));
  check('live rows', snapshot.liveCount, model.size);
  const newestFirst = passing
    .map(([each]) => each)
    .sort()
    .reverse();
  check('list', listRows(snapshot, { filter, limit: 100 }), newestFirst);
  check('page', listRows(snapshot, { filter, offset: 2, limit: 3 }), newestFirst.slice(2, 5));
  for (const each of ids) {
    const row = model.get(each);
    check(`columns of ${each}`, columnsOf(snapshot, each), row && flattenColumns(row.fields));
    check(`vector of ${each}`, await vectorOf(snapshot, each, memory), row && Float32Array.from(row.vector));
  }
  const table = await vectorTable(snapshot, filter, memory);
  check('ids of the table', table.ids, newestFirst.toReversed());
  check(
    'vectors of the table',
    [...table.vectors],
    table.ids.flatMap((each) => model.get(each)!.vector),
  );
  const answer = await search(snapshot, { queries, k, filter, exclude, include, minScore }, memory);
  const candidates = passing.filter(([each]) => include === undefined || include.includes(each));
  check('rows selected', answer.rowsSelected, candidates.length);
  queries.forEach((query, i) => {
    const expected = candidates
      .filter(([each]) => ![exclude[i]].flat().includes(each))
      .map(([each, row]) => ({ id: each, score: naiveScore(metric, query, row.vector) }))
      .filter(({ score }) => minScore === undefined || score >= minScore)
      .sort((a, b) => b.score - a.score || (a.id < b.id ? -1 : 1))
      .slice(0, k);
    check(`hits of query ${i}`, answer.matches[i], expected);
  });
}

const copyOf = (model: Model): Model =>
  new Map([...model].map(([each, { vector, fields: own }]) => [each, { vector, fields: { ...own } }]));

/** Runs a history; its end and one version on the way must answer like the model. @throws Error that says what differs */
export async function checkHistory(one: History): Promise<void> {
  const { dims, metric, steps, lostRaces, storage, codes } = one;
  const store = new FeatureStore(dims, metric, { storage, codes });
  const model: Model = new Map();
  let middle: readonly [Manifest, Model] = [store.manifest, new Map()];
  for (const [i, each] of steps.entries()) {
    if (each.kind === 'compact') {
      const { choice: own, meanwhile } = each;
      await store.compact({
        choice: own,
        meanwhile: meanwhile.map((other) => (other.kind === 'rival' ? other : changeOf(other))),
      });
      for (const other of meanwhile) if (other.kind !== 'rival') applyToModel(model, other);
    } else {
      await store.commit(changeOf(each), lostRaces[i]!);
      applyToModel(model, each);
    }
    if (i === Math.floor(steps.length / 2)) middle = [store.manifest, copyOf(model)];
  }
  await compare(store, store.manifest, model, one);
  await compare(store, middle[0], middle[1], { ...one, queries: one.queries.slice(0, 1) });
  check('ids that settled segments hold twice', await store.unsettledIds(store.manifest), []);
  // Nothing was collected yet, so all that was ever in use is in use or waits for the collector.
  const named = keysIn(store.manifest);
  const lost = [...keysIn(middle[0])].filter((key) => !named.has(key));
  check('keys that nobody knows any more', lost, []);
}
