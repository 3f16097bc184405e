// Random histories of a feature, and a check that it answers like a map with a naive scan after each of them.
import { isDeepStrictEqual } from 'node:util';
import fc from 'fast-check';
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
  type StoredSegment,
} from '../../../functions/core/vectors/manifest.ts';
import { openStoredSegment, type Segment } from '../../../functions/core/vectors/open-segment.ts';
import { search } from '../../../functions/core/vectors/search.ts';
import type { VectorStorage } from '../../../functions/core/vectors/segment-format.ts';
import { columnsOf, openSnapshot, vectorOf } from '../../../functions/core/vectors/snapshot.ts';
import { type Metric, metrics } from '../../../functions/core/vectors/vector.ts';
import { makeVectorMemory, type VectorMemory } from '../../../functions/core/vectors/vector-memory.ts';
import { conditionTree } from './model.ts';

export const uri = 'mixpeek://ngram_embed@1.0.0/ngram';
export const ids = Array.from({ length: 12 }, (_, i) => `doc_${'zyxwvutsrqpo'[i]}`);

/** What the store must behave like. */
export type Model = Map<string, { vector: number[]; fields: Record<string, unknown> }>;

export type Commit =
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

/** Everything that one history needs. */
export type History = typeof history extends fc.Arbitrary<infer T> ? T : never;

export const history = fc
  .tuple(fc.oneof(fc.integer({ min: 1, max: 5 }), fc.constantFrom(16, 17, 33)), fc.constantFrom(...metrics))
  .chain(([dims, metric]) =>
    fc.record({
      dims: fc.constant(dims),
      metric: fc.constant(metric),
      commits: fc.array(commit(dims), { minLength: 1, maxLength: 8 }),
      storage: fc.constantFrom<VectorStorage>('f32', 'f32', 'bf16'),
      codes: fc.boolean(),
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

/**
 * Room for a segment or two, so that most are pushed out between two uses; and no row is spared the kernel.
 */
export const memory: VectorMemory = { ...makeVectorMemory(65_536), rowsWithoutScan: 0 };

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

interface StoreOptions {
  readonly storage: VectorStorage;
  readonly codes: boolean;
}

export class Store {
  manifest: Manifest = emptyManifest();
  readonly objects = new Map<string, Uint8Array>();
  readonly dims: number;
  readonly metric: Metric;

  readonly options: StoreOptions;

  constructor(dims: number, metric: Metric, options: StoreOptions = { storage: 'f32', codes: false }) {
    this.dims = dims;
    this.metric = metric;
    this.options = options;
  }

  put({ bytes, description }: EncodedSegment) {
    const key = `seg/${this.objects.size}.vseg`;
    this.objects.set(key, bytes);
    return { ...description, key };
  }

  /** Segments are read as from a bucket: first what is not vectors, then what a search asks for. */
  async snapshot(of: Manifest = this.manifest) {
    const manifest = decodeManifest(encodeManifest(of), 'man/1.json');
    const feature = manifest.features[uri] ?? { dims: this.dims, metric: this.metric, segments: [] };
    const segments = new Map<string, Segment>();
    for (const ref of feature.segments) {
      const bytes = this.objects.get(ref.key)!;
      const readInto = async (at: number, target: Uint8Array) => {
        target.set(bytes.subarray(at, at + target.byteLength));
      };
      segments.set(ref.key, await openStoredSegment({ readInto }, ref.key, ref, 0));
    }
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

  async apply(change: Commit, lostRace: boolean) {
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
          ...this.options,
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
      const added: StoredSegment[] = [];
      for await (const segment of compactRows(await this.snapshot(), 2_000, memory))
        added.push(this.put(segment));
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

function check(what: string, got: unknown, expected: unknown): void {
  if (isDeepStrictEqual(got, expected)) return;
  const show = (value: unknown) => JSON.stringify(value, (_, v: unknown) => (v instanceof Map ? [...v] : v));
  throw new Error(`${what}: got ${show(got)}, expected ${show(expected)}`);
}

/** Searches, lists and reads one version of the store, and compares each answer with the model's. */
async function compare(
  store: Store,
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
  const { dims, metric, commits, lostRaces, storage, codes } = one;
  const store = new Store(dims, metric, { storage, codes });
  const model: Model = new Map();
  let middle: readonly [Manifest, Model] = [store.manifest, new Map()];
  for (const [i, change] of commits.entries()) {
    applyToModel(model, change, lostRaces[i]!, store.manifest.features[uri] !== undefined);
    await store.apply(change, lostRaces[i]!);
    if (i === Math.floor(commits.length / 2)) middle = [store.manifest, copyOf(model)];
  }
  await compare(store, store.manifest, model, one);
  await compare(store, middle[0], middle[1], { ...one, queries: one.queries.slice(0, 1) });
}
