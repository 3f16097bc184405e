// Histories with hundreds of real vectors per segment: what makes the kernel's windows, lists and bounds matter.
import { isDeepStrictEqual } from 'node:util';
import fc from 'fast-check';
import { parse } from '../../../functions/core/conditions/parse.ts';
import { mergeMatches, type SearchRequest, search } from '../../../functions/core/vectors/search.ts';
import type { VectorStorage } from '../../../functions/core/vectors/segment-format.ts';
import { type Metric, metrics } from '../../../functions/core/vectors/vector.ts';
import { makeVectorMemory, type VectorMemory } from '../../../functions/core/vectors/vector-memory.ts';
import { type Change, type Choice, choice, FeatureStore, type Meanwhile, type Row } from './feature-store.ts';
import { bell, generator } from './kernel-rows.ts';

/** Room for two segments of the largest, so that some are pushed out; and no row is spared the kernel. */
const memory: VectorMemory = { ...makeVectorMemory(2 * 2 ** 20), rowsWithoutScan: 0 };

const clouds = [
  'normal',
  'clustered',
  'outliers',
  'few distinct',
  'nearly equal',
  'far from the origin',
  'integers',
  'one direction',
  'many lengths',
  'out of float32 range',
] as const;
type Cloud = (typeof clouds)[number];

const askings = ['row', 'near', 'opposite', 'normal', 'one place', 'zero', 'huge', 'tiny'] as const;
type Asking = (typeof askings)[number];

interface Write {
  readonly kind: 'write';
  readonly rows: number;
  readonly cloud: Cloud;
  /** Of the rows, those that replace one that is there. */
  readonly againShare: number;
  /** Of the rows that are there, those that the same commit deletes. */
  readonly deletedShare: number;
  readonly storage: VectorStorage;
  readonly codes: boolean | undefined;
}

type Step =
  | Write
  | { readonly kind: 'delete' | 'patch'; readonly share: number }
  | {
      readonly kind: 'compact';
      readonly choice: Choice;
      readonly meanwhile: 'nothing' | 'delete' | 'patch' | 'rival';
    };

const share = fc.constantFrom(0.01, 0.1, 0.5, 0.9);

const write: fc.Arbitrary<Write> = fc.record({
  kind: fc.constant('write' as const),
  rows: fc.integer({ min: 100, max: 600 }),
  cloud: fc.constantFrom(...clouds),
  againShare: fc.constantFrom(0, 0, 0.3, 0.9),
  deletedShare: fc.constantFrom(0, 0, 0.2),
  storage: fc.constantFrom<VectorStorage>('f32', 'f32', 'bf16'),
  codes: fc.constantFrom(true, false, undefined),
});

const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 3, arbitrary: write },
  { weight: 1, arbitrary: fc.record({ kind: fc.constantFrom('delete', 'patch'), share }) },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant('compact' as const),
      choice,
      meanwhile: fc.constantFrom('nothing', 'delete', 'patch', 'rival'),
    }),
  },
);

/** Everything that one history needs; the numbers of its vectors follow from the seed. */
export type LargeHistory = typeof largeHistory extends fc.Arbitrary<infer T> ? T : never;

export const largeHistory = fc.record({
  seed: fc.integer({ min: 1, max: 2 ** 31 - 1 }),
  dims: fc.constantFrom(1, 3, 3, 16, 16, 17, 17, 100, 100, 384),
  metric: fc.constantFrom(...metrics),
  first: write,
  steps: fc.array(step, { maxLength: 4 }),
  queries: fc.array(fc.constantFrom(...askings), { minLength: 1, maxLength: 40 }),
  k: fc.oneof(
    { weight: 9, arbitrary: fc.integer({ min: 1, max: 50 }) },
    { weight: 1, arbitrary: fc.constant(10_000) },
  ),
  /** Of the rows, those that the filter lets through. */
  filtered: fc.option(share, { nil: undefined, freq: 3 }),
  included: fc.option(share, { nil: undefined, freq: 3 }),
  /** By query, how many ids are excluded, the best ones among them. */
  excluded: fc.array(fc.constantFrom(0, 1, 5, 60), { maxLength: 40 }),
  /** Place of the lowest score wanted among the scores of the first query, from the best at 0 to the worst at 1. */
  lowest: fc.option(fc.constantFrom(0, 0.01, 0.3, 1), { nil: undefined, freq: 2 }),
});

type Random = () => number;

interface Known {
  readonly vector: Float32Array;
  n: number;
}

/** What the store must behave like, by id. */
type Model = Map<string, Known>;

/** Rounds to the nearest bfloat16, which has 8 significant bits, by arithmetic; ties to the even one. */
export function rounded(value: number): number {
  if (value === 0) return value;
  // The smallest step is 2 ** -133, that of numbers too small for an exponent of their own.
  let place = 2 ** Math.max(-125, Math.floor(Math.log2(Math.abs(value))) + 1) / 256;
  if (Math.abs(value) / place < 128 && place > 2 ** -133) place /= 2;
  const steps = value / place;
  const down = Math.floor(steps);
  const isUp = steps - down > 0.5 || (steps - down === 0.5 && down % 2 !== 0);
  return (isUp ? down + 1 : down) * place;
}

/** A source of vectors of one kind, one in twenty of them zero. */
function drawing(cloud: Cloud, dims: number, random: Random): () => Float32Array {
  const normal = (size = 1) => Float32Array.from({ length: dims }, () => bell(random) * size);
  const around = (centre: Float32Array, size: number) => centre.map((value) => value + bell(random) * size);
  const some = Array.from({ length: 5 }, () => normal());
  const any = () => some[Math.floor(random() * some.length)]!;
  const scaled = (exponent: number) => {
    const size = 2 ** Math.round((random() * 2 - 1) * exponent);
    return normal().map((value) => value * size);
  };
  const kinds: Record<Cloud, () => Float32Array> = {
    normal: () => normal(),
    clustered: () => around(any(), 0.05),
    outliers: () => {
      const vector = normal();
      for (const place of [0, dims >> 1]) if (random() < 0.8) vector[place]! *= 300;
      return vector;
    },
    'few distinct': () => any().slice(),
    'nearly equal': () => around(some[0]!, 2e-7),
    'far from the origin': () => normal().map((value) => 1_000 + value),
    integers: () => normal().map((value) => Math.round(value)),
    // Codes of these are exact, so cosines that are cut to 1 could be told apart.
    'one direction': () => {
      const length = 127 * Math.ceil(random() * 40);
      return some[0]!.map((value) => Math.sign(value) * length);
    },
    'many lengths': () => scaled(35),
    'out of float32 range': () => (random() < 0.1 ? scaled(115) : normal()),
  };
  return () => (random() < 0.05 ? new Float32Array(dims) : kinds[cloud]());
}

function questionOf(
  asking: Asking,
  rows: readonly Float32Array[],
  dims: number,
  random: Random,
): Float32Array {
  const normal = (size: number) => Float32Array.from({ length: dims }, () => bell(random) * size);
  const row = rows[Math.floor(random() * rows.length)] ?? normal(1);
  switch (asking) {
    case 'row':
      return row.slice();
    case 'near':
      return row.map((value) => value * (1 + bell(random) * 1e-3));
    case 'opposite':
      return row.map((value) => -value);
    case 'normal':
      return normal(1);
    case 'one place':
      return normal(0).map((_, i) => (i === dims - 1 ? 1 : 0));
    case 'zero':
      return normal(0);
    case 'huge':
      return normal(2 ** 70);
    case 'tiny':
      return normal(2 ** -100);
  }
}

/** A sum as scores are defined: four running sums, one for each remainder of the place by 4, added from the left. */
function sum(count: number, term: (i: number) => number): number {
  const sums = [0, 0, 0, 0] as [number, number, number, number];
  for (let i = 0; i < count; i += 1) sums[(i % 4) as 0 | 1 | 2 | 3] += term(i);
  return sums[0] + sums[1] + sums[2] + sums[3];
}

const inverseOf = (squared: number) => (squared === 0 ? 0 : 1 / Math.sqrt(squared));

/** Scores of all rows for a query, in double precision. */
function scoresOf(metric: Metric, query: Float32Array, rows: readonly Float32Array[]): number[] {
  const dims = query.length;
  const ofQuery = inverseOf(sum(dims, (i) => query[i]! * query[i]!));
  return rows.map((row) => {
    if (metric === 'euclid') return -sum(dims, (i) => (query[i]! - row[i]!) ** 2) + 0;
    const product = sum(dims, (i) => query[i]! * row[i]!);
    if (metric === 'dot') return product + 0;
    const exact = inverseOf(sum(dims, (i) => row[i]! * row[i]!));
    const kept = Math.fround(exact);
    // A file keeps the inverse length as float32, unless it is so long or short that float32 has too few places.
    const ofRow = kept < 2 ** -100 || kept > 2 ** 100 ? exact : kept;
    return Math.min(1, Math.max(-1, product * ofRow * ofQuery)) + 0;
  });
}

function check(what: string, got: unknown, expected: unknown): void {
  if (isDeepStrictEqual(got, expected)) return;
  throw new Error(`${what}: got ${JSON.stringify(got)}, expected ${JSON.stringify(expected)}`);
}

/** A store and what it must be like, driven by one source of chance. */
class Play {
  readonly model: Model = new Map();
  readonly store: FeatureStore;
  readonly #random: Random;
  #count = 0;

  constructor(dims: number, metric: Metric, random: Random) {
    this.#random = random;
    this.store = new FeatureStore(dims, metric, {}, memory);
  }

  async run(what: Step): Promise<void> {
    if (what.kind === 'write') await this.#write(what);
    else if (what.kind === 'compact') {
      const { choice: own, meanwhile } = what;
      const others: Meanwhile[] = [];
      if (meanwhile === 'rival') others.push({ kind: 'rival', choice: own });
      if (meanwhile === 'delete' || meanwhile === 'patch') others.push(this.#change(meanwhile, 0.05));
      await this.store.compact({ choice: own, meanwhile: others });
    } else await this.store.commit(this.#change(what.kind, what.share), false);
  }

  /** About a share of the ids that are there. */
  some(part: number): string[] {
    return [...this.model.keys()].filter(() => this.#random() < part);
  }

  #change(kind: 'delete' | 'patch', part: number): Change {
    const ids = this.some(part);
    if (kind === 'delete') {
      for (const id of ids) this.model.delete(id);
      return { kind, ids };
    }
    const rows = ids.map((id) => ({ id, n: Math.floor(this.#random() * 100) }));
    for (const { id, n } of rows) this.model.get(id)!.n = n;
    return { kind, rows: rows.map(({ id, n }) => ({ id, columns: new Map([['n', n]]) })) };
  }

  async #write({ rows, cloud, againShare, deletedShare, storage, codes }: Write): Promise<void> {
    const random = this.#random;
    const draw = drawing(cloud, this.store.dims, random);
    const there = [...this.model.keys()];
    const deleted = this.some(deletedShare);
    for (const id of deleted) this.model.delete(id);
    const written: Row[] = [];
    for (let i = 0; i < rows; i += 1) {
      const isAgain = there.length > 0 && random() < againShare;
      const id = isAgain ? there[Math.floor(random() * there.length)]! : this.#newId();
      const vector = draw();
      const n = Math.floor(random() * 100);
      written.push({ id, vector, fields: { n } });
      this.model.set(id, { vector: storage === 'bf16' ? vector.map(rounded) : vector, n });
    }
    await this.store.commit({ kind: 'replace', deleted, rows: written }, false, { storage, codes });
  }

  /** In no order, so that ties are not decided by the order of rows. */
  #newId(): string {
    this.#count += 1;
    return `doc_${((this.#count * 7_919) % 99_991).toString(36)}`;
  }
}

/** Runs a history and searches it at its end. @throws Error that says what differs */
export async function checkLargeHistory(one: LargeHistory): Promise<void> {
  const { dims, metric, k, filtered, included, excluded, lowest } = one;
  const random = generator(one.seed);
  const play = new Play(dims, metric, random);
  const { model, store } = play;
  for (const each of [one.first, ...one.steps]) await play.run(each);

  const vectors = [...model.values()].map(({ vector }) => vector);
  const queries = one.queries.map((asking) => questionOf(asking, vectors, dims, random));
  const scores = queries.map((query) => scoresOf(metric, query, vectors));
  const ids = [...model.keys()];
  const include = included === undefined ? undefined : play.some(included);
  const wanted = new Set(include ?? ids);
  const limit = filtered === undefined ? 100 : filtered * 100;
  const candidates = ids.flatMap((id, i) => (wanted.has(id) && model.get(id)!.n < limit ? [i] : []));
  const ranked = scores.map((own) =>
    candidates.toSorted((a, b) => own[b]! - own[a]! || (ids[a]! < ids[b]! ? -1 : 1)),
  );
  const exclude = ranked.map((rows, q) => {
    const count = excluded[q] ?? 0;
    if (count === 1) return ids[rows[0] ?? 0];
    return rows.slice(0, count).map((row) => ids[row]!);
  });
  const at = ranked[0]!.length === 0 || lowest === undefined ? -1 : (ranked[0]!.length - 1) * lowest;
  const minScore = at < 0 ? undefined : scores[0]![ranked[0]![Math.floor(at)]!]!;
  const expected = ranked.map((rows, q) => {
    const without = new Set([exclude[q]].flat());
    return rows
      .filter((row) => !without.has(ids[row]!) && (minScore === undefined || scores[q]![row]! >= minScore))
      .slice(0, k)
      .map((row) => ({ id: ids[row]!, score: scores[q]![row]! }));
  });

  const filter =
    filtered === undefined ? undefined : parse({ field: 'n', operator: 'lt', value: filtered * 100 });
  const request: SearchRequest = { queries, k, filter, include, exclude, minScore };
  const snapshot = await store.snapshot();
  check('live rows', snapshot.liveCount, model.size);
  const answer = await search(snapshot, request, memory);
  check('rows selected', answer.rowsSelected, candidates.length);
  for (const [q, hits] of expected.entries()) {
    check(`hits of query ${q} (${one.queries[q]})`, answer.matches[q], hits);
  }
  const places = [...snapshot.parts.keys()];
  const halves = await Promise.all(
    [0, 1].map((rest) =>
      search(snapshot, { ...request, parts: places.filter((i) => i % 2 === rest) }, memory),
    ),
  );
  for (const [q, hits] of expected.entries()) {
    const merged = mergeMatches(
      halves.map(({ matches }) => matches[q]!),
      k,
    );
    check(`hits of query ${q} over two shards`, merged, hits);
  }
  check('ids that settled segments hold twice', await store.unsettledIds(store.manifest), []);
}
