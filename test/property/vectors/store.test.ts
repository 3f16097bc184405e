// A feature under upserts, deletions, patches, lost races and compactions answers like a map with a naive scan.
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { evaluate } from '../../../functions/core/conditions/evaluate.ts';
import { parse } from '../../../functions/core/conditions/parse.ts';
import { flattenColumns } from '../../../functions/core/vectors/columns.ts';
import { compactRows } from '../../../functions/core/vectors/compact.ts';
import { type EncodedSegment, encodeSegment } from '../../../functions/core/vectors/encode-segment.ts';
import { listRows, vectorTable } from '../../../functions/core/vectors/list-rows.ts';
import {
  type Addition,
  appendSegments,
  decodeManifest,
  emptyManifest,
  encodeManifest,
  type Manifest,
  replaceSegments,
} from '../../../functions/core/vectors/manifest.ts';
import { openSegment, type Segment } from '../../../functions/core/vectors/open-segment.ts';
import { mergeMatches, search } from '../../../functions/core/vectors/search.ts';
import { columnsOf, openSnapshot, vectorOf } from '../../../functions/core/vectors/snapshot.ts';
import { type Metric, metrics } from '../../../functions/core/vectors/vector.ts';
import { conditionTree } from './model.ts';

const uri = 'mixpeek://ngram_embed@1.0.0/ngram';
const ids = Array.from({ length: 12 }, (_, i) => `doc_${'zyxwvutsrqpo'[i]}`);

/** What the store must behave like. */
type Model = Map<string, { vector: number[]; fields: Record<string, unknown> }>;

type Commit =
  | { kind: 'upsert'; rows: { id: string; vector: number[]; fields: Record<string, unknown> }[][] }
  | { kind: 'delete'; ids: string[] }
  | {
      kind: 'replace';
      deleted: string[];
      rows: { id: string; vector: number[]; fields: Record<string, unknown> }[];
    }
  | { kind: 'patch'; rows: { id: string; a: string | number | undefined }[] }
  | { kind: 'compact' };

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
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('compact') }) },
  ) as fc.Arbitrary<Commit>;
}

const history = fc
  .tuple(fc.oneof(fc.integer({ min: 1, max: 5 }), fc.constantFrom(16, 17, 33)), fc.constantFrom(...metrics))
  .chain(([dims, metric]) =>
    fc.record({
      dims: fc.constant(dims),
      metric: fc.constant(metric),
      commits: fc.array(commit(dims), { minLength: 1, maxLength: 8 }),
      lostRaces: fc.array(fc.boolean(), { minLength: 8, maxLength: 8 }),
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
function naiveScore(metric: Metric, query: readonly number[], row: readonly number[]): number {
  const dot = (a: readonly number[], b: readonly number[]) => a.reduce((sum, x, i) => sum + x * b[i]!, 0);
  if (metric === 'dot') return dot(query, row);
  if (metric === 'euclid') return 0 - query.reduce((sum, x, i) => sum + (x - row[i]!) ** 2, 0);
  const inverse = (v: readonly number[]) => (dot(v, v) === 0 ? 0 : 1 / Math.sqrt(dot(v, v)));
  return Math.max(-1, Math.min(1, dot(query, row) * Math.fround(inverse(row)) * inverse(query))) + 0;
}

/** The same without any float32, for vectors that are float32 already. */
function trueScore(metric: Metric, query: readonly number[], row: readonly number[]): number {
  const dot = (a: readonly number[], b: readonly number[]) => a.reduce((sum, x, i) => sum + x * b[i]!, 0);
  if (metric !== 'cosine') return naiveScore(metric, query, row);
  const lengths = Math.sqrt(dot(query, query)) * Math.sqrt(dot(row, row));
  return lengths === 0 ? 0 : dot(query, row) / lengths;
}

class Store {
  manifest: Manifest = emptyManifest();
  readonly objects = new Map<string, Uint8Array>();
  readonly dims: number;
  readonly metric: Metric;

  constructor(dims: number, metric: Metric) {
    this.dims = dims;
    this.metric = metric;
  }

  put({ bytes, description }: EncodedSegment) {
    const key = `seg/${this.objects.size}.vseg`;
    this.objects.set(key, bytes);
    return { ...description, key };
  }

  snapshot() {
    const manifest = decodeManifest(encodeManifest(this.manifest), 'man/1.json');
    const feature = manifest.features[uri] ?? { dims: this.dims, metric: this.metric, segments: [] };
    const segments = new Map<string, Segment>();
    for (const ref of feature.segments)
      segments.set(ref.key, openSegment(this.objects.get(ref.key)!, ref.key, ref));
    return openSnapshot(feature, segments);
  }

  /** Commits; with a lost race the next manifest was first made from an outdated one and is made again. */
  append(additions: readonly Addition[], lostRace: boolean) {
    if (lostRace) {
      appendSegments(this.manifest, additions);
      const other = this.put(
        encodeSegment({ kind: 'data', dims: 1, metric: 'dot', rows: [{ id: 'doc_other', vector: [1] }] }),
      );
      this.manifest = appendSegments(this.manifest, [
        { uri: 'mixpeek://other@1.0.0/f', dims: 1, metric: 'dot', segment: other },
      ]);
    }
    this.manifest = appendSegments(this.manifest, additions);
  }

  apply(change: Commit, lostRace: boolean) {
    const { dims, metric } = this;
    const toFeature = (segment: EncodedSegment) => ({ uri, dims, metric, segment: this.put(segment) });
    const data = (
      rows: readonly { id: string; vector: number[]; fields: Record<string, unknown> }[],
      tombs: string[],
    ) =>
      toFeature(
        encodeSegment({
          kind: 'data',
          dims,
          metric,
          rows: rows.map((row) => ({ id: row.id, vector: row.vector, columns: flattenColumns(row.fields) })),
          tombs: tombs.map((each) => ({ id: each })),
        }),
      );
    if (change.kind === 'upsert')
      this.append(
        change.rows.map((rows) => data(rows, [])),
        lostRace,
      );
    if (change.kind === 'replace') this.append([data(change.rows, change.deleted)], lostRace);
    if (change.kind === 'delete') {
      const tombs = change.ids.map((each) => ({ id: each }));
      const segment = this.put(encodeSegment({ kind: 'delta', dims: 0, metric: null, rows: [], tombs }));
      this.append([{ every: true, segment }], lostRace);
    }
    if (change.kind === 'patch') {
      const rows = change.rows.map((row) => ({ id: row.id, columns: new Map([['a', row.a]]) }));
      const segment = this.put(encodeSegment({ kind: 'columns', dims: 0, metric: null, rows }));
      this.append([{ every: true, segment }], lostRace);
    }
    if (change.kind === 'compact' && this.manifest.features[uri] !== undefined) {
      const inputs = this.manifest.features[uri].segments.map(({ key }) => key);
      const added = [...compactRows(this.snapshot(), 2_000)].map((segment) => this.put(segment));
      if (lostRace) {
        const late = encodeSegment({
          kind: 'columns',
          dims: 0,
          metric: null,
          rows: [{ id: ids[0]!, columns: new Map([['a', 'late']]) }],
        });
        this.append([{ every: true, segment: this.put(late) }], false);
      }
      this.manifest = replaceSegments(this.manifest, uri, inputs, added, 0);
    }
  }
}

function applyToModel(model: Model, change: Commit, lostRace: boolean, exists: boolean) {
  const put = (row: { id: string; vector: number[]; fields: Record<string, unknown> }) =>
    model.set(row.id, { vector: row.vector, fields: { ...row.fields } });
  const patch = (each: string, a: unknown) => {
    const row = model.get(each);
    if (row === undefined) return;
    row.fields = { ...row.fields, a };
    if (a === undefined) delete row.fields.a;
  };
  if (change.kind === 'upsert') for (const rows of change.rows) for (const row of rows) put(row);
  if (change.kind === 'delete') for (const each of change.ids) model.delete(each);
  if (change.kind === 'replace') {
    for (const each of change.deleted) model.delete(each);
    for (const row of change.rows) put(row);
  }
  if (change.kind === 'patch') for (const row of change.rows) patch(row.id, row.a);
  if (change.kind === 'compact' && lostRace && exists) patch(ids[0]!, 'late');
}

test('search, list, count and get answer like a naive scan after any history', () => {
  fc.assert(
    fc.property(
      history,
      ({ dims, metric, commits, lostRaces, queries, k, filter: tree, exclude, include, minScore }) => {
        const store = new Store(dims, metric);
        const model: Model = new Map();
        commits.forEach((change, i) => {
          applyToModel(model, change, lostRaces[i]!, store.manifest.features[uri] !== undefined);
          store.apply(change, lostRaces[i]!);
        });
        const snapshot = store.snapshot();
        const filter = tree === undefined ? undefined : parse(tree);
        const passing = [...model].filter(
          ([, { fields: each }]) => filter === undefined || evaluate(filter, each),
        );

        expect(snapshot.liveCount).toBe(model.size);
        const newestFirst = passing
          .map(([each]) => each)
          .sort()
          .reverse();
        expect(listRows(snapshot, { filter, limit: 100 })).toEqual(newestFirst);
        expect(listRows(snapshot, { filter, offset: 2, limit: 3 })).toEqual(newestFirst.slice(2, 5));
        for (const each of ids) {
          const row = model.get(each);
          expect(columnsOf(snapshot, each)).toEqual(row && flattenColumns(row.fields));
          expect(vectorOf(snapshot, each)).toEqual(row && Float32Array.from(row.vector));
        }
        const table = vectorTable(snapshot, filter);
        expect(table.ids).toEqual(newestFirst.toReversed());
        expect([...table.vectors]).toEqual(table.ids.flatMap((each) => model.get(each)!.vector));

        const answer = search(snapshot, { queries, k, filter, exclude, include, minScore });
        const candidates = passing.filter(([each]) => include === undefined || include.includes(each));
        expect(answer.rowsSelected).toBe(candidates.length);
        queries.forEach((query, i) => {
          const expected = candidates
            .filter(([each]) => ![exclude[i]].flat().includes(each))
            .map(([each, row]) => ({ id: each, score: naiveScore(metric, query, row.vector) }))
            .filter(({ score }) => minScore === undefined || score >= minScore)
            .sort((a, b) => b.score - a.score || (a.id < b.id ? -1 : 1))
            .slice(0, k);
          expect(answer.matches[i]).toEqual(expected);
        });
      },
    ),
    { numRuns: 400 },
  );
});

test('any real vectors are ranked as by double precision, up to the rounding of a stored length', () => {
  const real = fc.float({ noNaN: true, noDefaultInfinity: true, min: -1_000, max: 1_000 });
  const shape = fc.tuple(
    fc.integer({ min: 1, max: 70 }),
    fc.constantFrom(...metrics),
    fc.integer({ min: 1, max: 30 }),
  );
  fc.assert(
    fc.property(
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
      ([metric, rows, query, k]) => {
        const dims = query.length;
        const store = new Store(dims, metric);
        const named = rows.map((vector, i) => ({ id: `doc_${i}`, vector, fields: {} }));
        store.apply({ kind: 'upsert', rows: [named.slice(0, 7), named.slice(7)] }, false);
        const [matches] = search(store.snapshot(), { queries: [query], k }).matches;
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

test('the answer does not depend on how rows are spread over segments or collections', () => {
  fc.assert(
    fc.property(
      fc.constantFrom(...metrics),
      fc.array(fc.array(fc.double({ min: -1, max: 1, noNaN: true }), { minLength: 7, maxLength: 7 }), {
        minLength: 1,
        maxLength: 40,
      }),
      fc.integer({ min: 1, max: 40 }),
      (metric, rows, cut) => {
        const named = rows.map((vector, i) => ({ id: `doc_${i % 10}${i}`, vector, fields: {} }));
        const request = { queries: rows.slice(0, 3), k: 6 };
        const one = new Store(7, metric);
        one.apply({ kind: 'upsert', rows: [named] }, false);
        const many = new Store(7, metric);
        many.apply({ kind: 'upsert', rows: [named.slice(cut), [], named.slice(0, cut)] }, false);
        const left = new Store(7, metric);
        left.apply({ kind: 'upsert', rows: [named.slice(0, cut)] }, false);
        const right = new Store(7, metric);
        right.apply({ kind: 'upsert', rows: [named.slice(cut)] }, false);
        const whole = search(one.snapshot(), request).matches;
        expect(search(many.snapshot(), request).matches).toEqual(whole);
        const halves = [left, right].map((store) => search(store.snapshot(), request).matches);
        expect(whole.map((_, i) => mergeMatches([halves[0]![i]!, halves[1]![i]!], 6))).toEqual(whole);
      },
    ),
    { numRuns: 150 },
  );
});
