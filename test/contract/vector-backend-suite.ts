// What a namespace promises whatever backend gives its candidates. Held against each backend; answers that say
// `exact` must equal a reference in double precision, all others must hold true hits only.
import fc from 'fast-check';
import { afterEach, describe, expect, it } from 'vitest';
import type { CopyIndex, VectorBackend } from '../../functions/core/backends/backend.ts';
import { readCopies } from '../../functions/core/backends/copy-state.ts';
import { dropCopies } from '../../functions/core/backends/drop.ts';
import { fromVectorIndex } from '../../functions/core/backends/of-namespace.ts';
import { searchCopy } from '../../functions/core/backends/query.ts';
import type { BackendName, CopyBackendName } from '../../functions/core/backends/registry.ts';
import { describe as describeBackend } from '../../functions/core/backends/registry.ts';
import { syncCollection } from '../../functions/core/backends/sync.ts';
import { parseCondition } from '../../functions/core/conditions/index.ts';
import type { NsCtx } from '../../functions/core/context.ts';
import { inNamespace, makeContext } from '../../functions/core/context.ts';
import { setCrashHook } from '../../functions/core/crash.ts';
import { newId } from '../../functions/core/ids.ts';
import { compactIndex } from '../../functions/core/store/compact-index.ts';
import {
  commitIndex,
  deleteRows,
  openIndex,
  patchColumns,
  putSegment,
} from '../../functions/core/store/vector-index.ts';
import { flattenColumns } from '../../functions/core/vectors/columns.ts';
import { type SearchRequest, type SearchResult, search } from '../../functions/core/vectors/search.ts';
import type { Metric } from '../../functions/core/vectors/vector.ts';
import type { TestPorts } from '../http/app.ts';
import { makeTestPorts } from '../http/app.ts';

export interface BackendUnderTest {
  /** Undefined for segments. */
  readonly backend?: VectorBackend;
  stop(): Promise<void> | void;
}

export interface SuiteOptions {
  readonly name: BackendName;
  /** A backend that holds nothing. */
  readonly make: () => Promise<BackendUnderTest>;
}

const uri = 'mixpeek://plugin@1.0.0/embedding';
const collection = 'col_0123456789abcdefghij';

type Fields = Readonly<Record<string, string | number>>;
type Given = Readonly<Record<string, { readonly vector: readonly number[]; readonly fields?: Fields }>>;

/** What a search says of itself. */
interface Answer extends SearchResult {
  readonly backend: BackendName;
  readonly exact: boolean;
}

/** The rows as a map in memory, and the index that must answer like it. */
export class World {
  readonly ctx: NsCtx;
  readonly ports: TestPorts;
  readonly backend: VectorBackend | undefined;
  readonly metric: Metric;
  readonly dims: number;
  readonly rows = new Map<string, { vector: Float32Array; fields: Fields }>();
  readonly #name: BackendName;
  readonly #stop: () => Promise<void> | void;
  #commits = 0;

  private constructor(
    parts: Pick<World, 'ctx' | 'ports' | 'backend' | 'metric' | 'dims'>,
    name: BackendName,
    stop: () => Promise<void> | void,
  ) {
    this.ctx = parts.ctx;
    this.ports = parts.ports;
    this.backend = parts.backend;
    this.metric = parts.metric;
    this.dims = parts.dims;
    this.#name = name;
    this.#stop = stop;
  }

  static async make(
    { name, make }: SuiteOptions,
    shape: { readonly metric?: Metric; readonly dims?: number } = {},
  ): Promise<World> {
    const { metric = 'cosine', dims = 4 } = shape;
    const { backend, stop } = await make();
    const ports = makeTestPorts(backend ? { backends: { [name]: backend } } : {});
    const ctx = inNamespace(
      makeContext(ports, { orgId: 'org_one', keyId: 'key', permissions: ['admin'] }, 'req'),
      newId('namespace'),
    );
    const vector_index = fromVectorIndex({
      backend: name,
      storage: 'float32',
      migration: null,
      dropping: null,
    });
    await ports.table.write([
      { put: { ...ctx.org.namespace(ctx.ns.namespaceId), state: 'active', revision: 1, vector_index } },
      { put: { ...ctx.ns.resource('COLLECTION', collection), id: collection } },
    ]);
    return new World({ ctx, ports, backend, metric, dims }, name, stop);
  }

  get copyName(): CopyBackendName {
    return this.#name as CopyBackendName;
  }

  get index(): CopyIndex {
    return {
      namespace_id: this.ctx.ns.namespaceId,
      collection_id: collection,
      feature_uri: uri,
      dims: this.dims,
      metric: this.metric,
    };
  }

  #token(): string {
    this.#commits += 1;
    return `t${this.#commits}`;
  }

  async put(given: Given): Promise<void> {
    const entries = Object.entries(given);
    const { dims, metric } = this;
    const segment = await putSegment(this.ctx, collection, {
      kind: 'data',
      dims,
      metric,
      rows: entries.map(([id, { vector, fields = {} }]) => ({ id, vector, columns: flattenColumns(fields) })),
    });
    const addition = { uri, dims, metric, segment };
    await commitIndex(
      this.ctx,
      [{ collection_id: collection, additions: [addition], document_delta: entries.length }],
      { token: this.#token() },
    );
    for (const [id, { vector, fields = {} }] of entries)
      this.rows.set(id, { vector: Float32Array.from(vector), fields });
  }

  async remove(...ids: string[]): Promise<void> {
    await deleteRows(this.ctx, collection, ids, -ids.length, { token: this.#token() });
    for (const id of ids) this.rows.delete(id);
  }

  async patch(id: string, fields: Fields): Promise<void> {
    await patchColumns(this.ctx, collection, [{ id, columns: flattenColumns(fields) }], {
      token: this.#token(),
    });
    const row = this.rows.get(id);
    if (row) row.fields = { ...row.fields, ...fields };
  }

  sync(options: { readonly untilMs?: number; readonly everything?: boolean } = {}) {
    return syncCollection(this.ctx, collection, this.copyName, {
      untilMs: Number.POSITIVE_INFINITY,
      ...options,
    });
  }

  open() {
    return openIndex(this.ctx, collection);
  }

  /** By default nothing is small enough to be scanned. */
  async search(
    request: Omit<SearchRequest, 'queries' | 'filter'> & {
      readonly queries: readonly (readonly number[])[];
      readonly filter?: unknown;
    },
    options: { readonly scanBytesMax?: number; readonly view?: Awaited<ReturnType<World['open']>> } = {},
  ): Promise<Answer> {
    const { scanBytesMax = 0, view = await this.open() } = options;
    const { filter, ...rest } = request;
    const parsed = filter === undefined ? undefined : parseCondition(filter);
    if (parsed && !parsed.ok) throw new Error('a wrong filter in a test');
    const snapshot = (await view.snapshot(uri))!;
    const place = { collectionId: collection, featureUri: uri, head: view.head };
    const asked = { ...rest, ...(parsed ? { filter: parsed.condition } : {}) };
    if (this.backend) this.limit({ scanBytesMax });
    const found = await searchCopy(this.ctx, place, snapshot, asked);
    return found ?? { ...(await search(snapshot, asked)), backend: 'segments', exact: true };
  }

  /** As another process, which has read nothing yet. */
  forget(): void {
    const index = new Proxy(this.ports.index, {
      get: (target, name) => {
        const member: unknown = Reflect.get(target, name);
        return typeof member === 'function' ? member.bind(target) : member;
      },
    });
    Object.assign(this.ports, { index });
  }

  /** Other limits than those of the backend. */
  limit(limits: Partial<VectorBackend['limits']>): void {
    const backend = this.backend as { limits: VectorBackend['limits'] };
    backend.limits = { ...backend.limits, ...limits };
  }

  score(query: readonly number[], vector: Float32Array): number {
    let dot = 0;
    let square = 0;
    let qq = 0;
    let vv = 0;
    for (const [i, value] of vector.entries()) {
      const q = Math.fround(query[i]!);
      dot += q * value;
      square += (q - value) ** 2;
      qq += q * q;
      vv += value * value;
    }
    if (this.metric === 'dot') return dot;
    if (this.metric === 'euclid') return -square;
    return qq === 0 || vv === 0 ? 0 : dot / Math.sqrt(qq * vv);
  }

  /** The k best of the rows that pass, ties by id. */
  reference(query: readonly number[], k: number, passes: (fields: Fields) => boolean = () => true) {
    return [...this.rows]
      .filter(([, { fields }]) => passes(fields))
      .map(([id, { vector }]) => ({ id, score: this.score(query, vector) }))
      .sort((a, b) => b.score - a.score || (a.id < b.id ? -1 : 1))
      .slice(0, k);
  }

  /** Every hit is a live row that passes, with its true score, in order; an exact answer is the reference. */
  check(
    result: Answer,
    queries: readonly (readonly number[])[],
    k: number,
    passes: (fields: Fields) => boolean = () => true,
  ): void {
    for (const [q, query] of queries.entries()) {
      const hits = result.matches[q]!;
      const expected = this.reference(query, k, passes);
      expect(hits.length).toBe(expected.length);
      expect(new Set(hits.map(({ id }) => id)).size).toBe(hits.length);
      for (const [i, { id, score }] of hits.entries()) {
        const row = this.rows.get(id);
        expect(row, id).toBeDefined();
        expect(passes(row!.fields), id).toBe(true);
        const tolerance = 1e-6 * Math.max(1, Math.abs(score));
        expect(Math.abs(score - this.score(query, row!.vector)), id).toBeLessThanOrEqual(tolerance);
        if (i > 0) expect(score).toBeLessThanOrEqual(hits[i - 1]!.score);
      }
      if (!result.exact) continue;
      for (const [i, { id }] of expected.entries()) {
        if (hits[i]!.id === id) continue;
        // A cosine is right to 1e-7, so two that are equal by theory may stand the other way round.
        expect(this.metric, `${id} at ${i}`).toBe('cosine');
        const found = this.score(query, this.rows.get(hits[i]!.id)!.vector);
        expect(Math.abs(found - expected[i]!.score), `${id} at ${i}`).toBeLessThanOrEqual(3e-7);
      }
    }
    expect(result.backend === 'segments').toBe(result.exact);
  }

  async stop(): Promise<void> {
    await this.#stop();
  }
}

/** Numbers that look random and are the same in every run. */
function numbers(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 31 - 1;
  };
}

/** Rows `<prefix>_00000` and on, every tenth of the topic `rare`. */
export function randomRows(count: number, dims: number, seed = 1, prefix = 'doc'): Given {
  const next = numbers(seed);
  return Object.fromEntries(
    Array.from({ length: count }, (_, i) => [
      `${prefix}_${String(i).padStart(5, '0')}`,
      {
        vector: Array.from({ length: dims }, () => Math.fround(next())),
        fields: { topic: i % 10 === 0 ? 'rare' : 'common', n: i },
      },
    ]),
  );
}

const rare = { field: 'topic', operator: 'eq', value: 'rare' };
const isRare = ({ topic }: Fields) => topic === 'rare';

export function vectorBackendSuite(title: string, options: SuiteOptions): void {
  const { name } = options;
  const holdsCopies = name !== 'segments';
  const { metrics } = describeBackend(name);
  const worlds: World[] = [];
  const world = async (shape: { readonly metric?: Metric; readonly dims?: number } = {}) => {
    const made = await World.make(options, shape);
    worlds.push(made);
    return made;
  };

  describe(`vectors in ${title}`, () => {
    afterEach(async () => {
      setCrashHook(undefined);
      for (const one of worlds.splice(0)) await one.stop();
    });

    const sync = async (w: World) => {
      if (!holdsCopies) return;
      const { done } = await w.sync();
      expect(done).toBe(true);
      expect(await w.backend!.count(w.index)).toBe(w.rows.size);
    };
    /** What an answer says that nothing small enough to scan was asked for. */
    const answeredBy = (result: Answer) => {
      expect(result.backend).toBe(name);
      expect(result.exact).toBe(!holdsCopies);
    };

    // Segments alone are no copy of anything.
    if (holdsCopies)
      it('drops the copy of a feature that another has taken the place of, also after a death', async () => {
        const w = await world();
        await w.put(randomRows(20, 4));
        await sync(w);
        const next = 'mixpeek://plugin@2.0.0/embedding';
        const segment = await putSegment(w.ctx, collection, {
          kind: 'data',
          dims: 3,
          metric: w.metric,
          rows: [{ id: 'doc_00000', vector: [1, 2, 3], columns: new Map() }],
        });
        await commitIndex(
          w.ctx,
          [
            {
              collection_id: collection,
              additions: [{ uri: next, dims: 3, metric: w.metric, segment }],
              document_delta: 0,
              drop: [uri],
            },
          ],
          { token: 'cut-over' },
        );
        let fired = false;
        setCrashHook((point) => {
          if (point !== 'index.sync.after_drop' || fired) return;
          fired = true;
          throw new Error('killed');
        });
        await expect(w.sync()).rejects.toThrow('killed');
        w.ports.clock.advance(10 * 60_000);
        expect((await w.sync()).done).toBe(true);
        expect(fired).toBe(true);
        const { head } = await w.open();
        expect(Object.keys(head.copies[name]!)).toEqual([next]);
        expect(Object.keys((await readCopies(w.ctx, collection))[0]!.features)).toEqual([next]);
        // The index of the old one can be made anew in another form.
        const anew = { ...w.index, dims: 5 };
        await w.backend!.ensure(anew);
        expect(await w.backend!.count(anew)).toBe(0);
        await w.backend!.put(anew, [{ id: 'x', seq: 1, vector: Float32Array.of(1, 2, 3, 4, 5) }]);
        expect(await w.backend!.count({ ...w.index, feature_uri: next, dims: 3 })).toBe(1);
      });

    it.each(metrics)('finds the best rows and scores them right by %s', async (metric) => {
      const w = await world({ metric, dims: 17 });
      await w.put(randomRows(300, 17));
      await sync(w);
      const queries = Object.values(randomRows(5, 17, 99)).map(({ vector }) => vector);
      const result = await w.search({ queries, k: 10 });
      answeredBy(result);
      w.check(result, queries, 10);
      // The fakes and a small table are searched whole, so here the candidates must hold the truth.
      for (const [q, query] of queries.entries())
        expect(result.matches[q]!.map(({ id }) => id)).toEqual(w.reference(query, 10).map(({ id }) => id));
    });

    it('finds a row at once, before any sync, and after it', async () => {
      const w = await world();
      await w.put(randomRows(100, 4));
      const query = [0.3, -0.2, 0.9, 0.1];
      const before = await w.search({ queries: [query], k: 5 });
      expect(before).toMatchObject({ backend: 'segments', exact: true });
      w.check(before, [query], 5);
      await sync(w);
      await w.put({ doc_new: { vector: query } });
      const fresh = await w.search({ queries: [query], k: 5 });
      answeredBy(fresh);
      expect(fresh.matches[0]![0]).toMatchObject({ id: 'doc_new' });
      w.check(fresh, [query], 5);
      await sync(w);
      const after = await w.search({ queries: [query], k: 5 });
      answeredBy(after);
      expect(after.matches[0]![0]).toMatchObject({ id: 'doc_new' });
    });

    it('never finds an overwritten vector, nor a deleted row, whether or not the copy knows', async () => {
      const w = await world();
      await w.put({
        ...randomRows(50, 4),
        doc_a: { vector: [1, 0, 0, 0] },
        doc_b: { vector: [0.9, 0, 0, 0.1] },
      });
      await sync(w);
      await w.put({ doc_a: { vector: [-1, 0, 0, 0] } });
      await w.remove('doc_b');
      for (const isSynced of [false, true]) {
        if (isSynced) await sync(w);
        const queries = [
          [1, 0, 0, 0],
          [-1, 0, 0, 0],
        ];
        const result = await w.search({ queries, k: 10 });
        w.check(result, queries, 10);
        const ids = result.matches.map((hits) => hits.map(({ id }) => id));
        expect(ids.flat()).not.toContain('doc_b');
        expect(ids[1]![0]).toBe('doc_a');
      }
      await w.put({ doc_b: { vector: [0.9, 0, 0, 0.1] } });
      const again = await w.search({ queries: [[0.9, 0, 0, 0.1]], k: 1 });
      expect(again.matches[0]![0]!.id).toBe('doc_b');
    });

    it('filters before it takes the k best, by what patches have made of the fields', async () => {
      const w = await world();
      await w.put(randomRows(200, 4));
      await sync(w);
      const query = [0.5, 0.5, -0.5, 0.1];
      const k = 15;
      const filtered = await w.search({ queries: [query], k, filter: rare });
      answeredBy(filtered);
      w.check(filtered, [query], k, isRare);
      const [worst] = w.reference(query, 200).slice(-1);
      await w.patch(worst!.id, { topic: 'rare' });
      const [best] = w.reference(query, 1, isRare);
      await w.patch(best!.id, { topic: 'common' });
      for (const isSynced of [false, true]) {
        if (isSynced) await sync(w);
        w.check(await w.search({ queries: [query], k, filter: rare }), [query], k, isRare);
      }
      // Few enough rows are scanned, and then nothing is approximate.
      const few = await w.search({ queries: [query], k, filter: rare }, { scanBytesMax: 64 * 40 });
      expect(few).toMatchObject({ backend: 'segments', exact: true });
      w.check(few, [query], k, isRare);
    });

    it('finds the rows that pass where all near ones do not', async () => {
      const w = await world();
      const next = numbers(5);
      const near = (sign: number) => [sign, next() / 9, next() / 9, next() / 9];
      const rows = (prefix: string, count: number, sign: number, topic: string) =>
        Object.fromEntries(
          Array.from({ length: count }, (_, i) => [
            `${prefix}${i}`,
            { vector: near(sign), fields: { topic } },
          ]),
        );
      await w.put({ ...rows('near', 600, 1, 'common'), ...rows('far', 60, -1, 'rare') });
      await sync(w);
      const query = [1, 0, 0, 0];
      const result = await w.search({ queries: [query], k: 5, filter: rare });
      answeredBy(result);
      w.check(result, [query], 5, isRare);
      // Neither do rows that died, or have been written anew elsewhere, keep others from being found.
      await w.remove(...Array.from({ length: 300 }, (_, i) => `near${i}`));
      await w.put(rows('near', 600, -1, 'common'));
      w.check(await w.search({ queries: [query], k: 5, filter: rare }), [query], 5, isRare);
      w.check(await w.search({ queries: [query], k: 5 }), [query], 5);
    });

    it('scans where the copy cannot name enough rows that pass', async () => {
      const w = await world();
      await w.put({
        ...randomRows(400, 4),
        doc_far: { vector: [-1, -1, -1, -1], fields: { topic: 'lone' } },
      });
      await sync(w);
      const filter = { field: 'topic', operator: 'eq', value: 'lone' };
      if (holdsCopies) w.limit({ candidatesMax: 100 });
      const result = await w.search({ queries: [[1, 1, 1, 1]], k: 3, filter });
      expect(result).toMatchObject({ backend: 'segments', exact: true });
      expect(result.matches[0]!.map(({ id }) => id)).toEqual(['doc_far']);
      const none = await w.search({
        queries: [[1, 1, 1, 1]],
        k: 3,
        filter: { field: 'topic', operator: 'eq', value: 'x' },
      });
      expect(none.matches).toEqual([[]]);
    });

    it('answers an older version from what that version held', async () => {
      const w = await world();
      await w.put(randomRows(80, 4));
      await sync(w);
      const view = await w.open();
      const old = new Map(w.rows);
      await w.put({ ...randomRows(40, 4, 7), doc_more: { vector: [1, 1, 1, 1] } });
      await w.remove('doc_00070', 'doc_00071');
      await sync(w);
      const now = new Map(w.rows);
      w.rows.clear();
      for (const [id, row] of old) w.rows.set(id, row);
      const query = [1, 1, 1, 1];
      const result = await w.search({ queries: [query], k: 20 }, { view });
      w.check(result, [query], 20);
      w.rows.clear();
      for (const [id, row] of now) w.rows.set(id, row);
      w.check(await w.search({ queries: [query], k: 20 }), [query], 20);
    });

    it('breaks ties by id and leaves out what the caller excludes or scores too low', async () => {
      const w = await world();
      const same = { vector: [0.6, 0.8, 0, 0] };
      await w.put({ ...randomRows(60, 4), tie_c: same, tie_a: same, tie_b: same, "tie_'quoted'_ß": same });
      await sync(w);
      const query = [0.6, 0.8, 0, 0];
      const result = await w.search({ queries: [query, query], k: 4, exclude: [undefined, ['tie_a']] });
      expect(result.matches[0]!.map(({ id }) => id)).toEqual(["tie_'quoted'_ß", 'tie_a', 'tie_b', 'tie_c']);
      expect(result.matches[1]!.map(({ id }) => id).slice(0, 3)).toEqual([
        "tie_'quoted'_ß",
        'tie_b',
        'tie_c',
      ]);
      expect(result.matches[1]!.length).toBe(4);
      const high = await w.search({ queries: [query], k: 50, minScore: 0.999 });
      for (const { score } of high.matches[0]!) expect(score).toBeGreaterThanOrEqual(0.999);
      expect(high.matches[0]!.length).toBeGreaterThanOrEqual(4);
    });

    it.each([1, 2, 15, 4096])('takes vectors of %i dimensions', async (dims) => {
      const w = await world({ metric: 'euclid', dims });
      await w.put(randomRows(dims > 100 ? 12 : 70, dims));
      await sync(w);
      const query = Object.values(randomRows(1, dims, 5))[0]!.vector;
      const result = await w.search({ queries: [query], k: 6 });
      answeredBy(result);
      w.check(result, [query], 6);
    });

    it('holds zero vectors and vectors of any length', async () => {
      const w = await world();
      await w.put({
        ...randomRows(60, 4),
        zero: { vector: [0, 0, 0, 0] },
        tiny: { vector: [1e-30, 2e-30, 0, 0] },
        huge: { vector: [1e30, 2e30, 0, 0] },
      });
      await sync(w);
      const queries = [
        [1, 2, 0, 0],
        [1e-30, 2e-30, 0, 0],
        [0, 0, 0, 0],
      ];
      const result = await w.search({ queries, k: 5 });
      w.check(result, queries, 5);
      for (const q of [0, 1])
        expect(result.matches[q]!.slice(0, 2).map(({ id }) => id)).toEqual(['huge', 'tiny']);
      expect(result.matches[2]!.every(({ score }) => score === 0)).toBe(true);
    });

    if (!holdsCopies) return;

    it('changes nothing when a sync is repeated, and only what changed when something did', async () => {
      const w = await world();
      await w.put(randomRows(30, 4));
      expect(await w.sync()).toEqual({ done: true, busy: false, put: 30, removed: 0 });
      expect(await w.sync()).toEqual({ done: true, busy: false, put: 0, removed: 0 });
      await w.put({ doc_00001: { vector: [1, 1, 1, 1] }, doc_x: { vector: [1, 0, 1, 0] } });
      await w.remove('doc_00002', 'doc_00003', 'doc_none');
      await w.patch('doc_00004', { topic: 'other' });
      expect(await w.sync()).toEqual({ done: true, busy: false, put: 2, removed: 2 });
      expect(await w.backend!.count(w.index)).toBe(29);
      const [copies] = await readCopies(w.ctx, collection);
      expect(copies!.features[uri]).toMatchObject({
        version: (await w.open()).head.version,
        rows: 29,
        target: null,
        error: null,
      });
      const kept = await w.ports.index.list(`${w.ctx.ns.namespaceId}/copies/`);
      expect(kept.blobs.length).toBe(1);
    });

    it.each([
      'index.sync.after_put',
      'index.sync.after_remove',
      'index.sync.after_changes',
      'index.sync.before_publish',
      'index.sync.after_publish',
    ])('goes on after a worker died at %s, and answers in between', async (point) => {
      const w = await world();
      await w.put(randomRows(40, 4));
      await sync(w);
      await w.put(randomRows(20, 4, 3));
      await w.remove('doc_00030', 'doc_00031');
      setCrashHook((at) => {
        if (at === point) throw new Error('killed');
      });
      await expect(w.sync()).rejects.toThrow('killed');
      setCrashHook(undefined);
      const queries = [[0.1, 0.9, -0.3, 0.2]];
      w.check(await w.search({ queries, k: 10 }), queries, 10);
      // The dead worker's lease must run out first.
      expect(await w.sync()).toMatchObject({ done: false, busy: true });
      w.ports.clock.advance(6 * 60_000);
      // More was committed meanwhile.
      await w.put({ doc_00032: { vector: [0.1, 0.9, -0.3, 0.2] } });
      await w.remove('doc_00033');
      await sync(w);
      w.check(await w.search({ queries, k: 10 }), queries, 10);
      expect((await w.sync()).put).toBe(0);
    });

    it('asks the backend what it holds where the version of a dead worker is gone', async () => {
      const w = await world();
      await w.put(randomRows(40, 4));
      await sync(w);
      await w.put(randomRows(20, 4, 3, 'new'));
      setCrashHook((at) => {
        if (at === 'index.sync.after_put') throw new Error('killed');
      });
      await expect(w.sync()).rejects.toThrow('killed');
      setCrashHook(undefined);
      const { blobs } = await w.ports.index.list(`${w.ctx.ns.namespaceId}/copies/`);
      expect(blobs.map(({ key }) => key.split('/').at(-1))).toEqual(['1.json', '2.json']);
      await w.ports.index.delete(blobs[1]!.key);
      w.forget();
      w.ports.clock.advance(6 * 60_000);
      // What the dead worker put and nobody has any more.
      await w.remove('new_00000', 'doc_00001');
      await sync(w);
      const queries = [[0.1, 0.9, -0.3, 0.2]];
      w.check(await w.search({ queries, k: 10 }), queries, 10);
    });

    it('goes on comparing every row where that was interrupted', async () => {
      const w = await world();
      w.limit({ rowsPerPut: 5 });
      await w.put(randomRows(40, 4));
      await sync(w);
      const lost = [...w.rows.keys()].slice(0, 20);
      await w.backend!.remove(w.index, lost);
      await w.put(randomRows(12, 4, 3, 'new'));
      expect(await w.sync({ everything: true, untilMs: 0 })).toMatchObject({ done: false, put: 5 });
      await sync(w);
    });

    it('stops when its time is over and goes on at the next call', async () => {
      const w = await world();
      w.limit({ rowsPerPut: 7, idsPerRemove: 2 });
      await w.put(randomRows(30, 4));
      let turns = 0;
      let put = 0;
      for (let done = false; !done; turns++) {
        const result = await w.sync({ untilMs: 0 });
        put += result.put;
        done = result.done;
      }
      expect([turns, put]).toEqual([5, 30]);
      await w.put(randomRows(10, 4, 9));
      await w.remove('doc_00020', 'doc_00021', 'doc_00022');
      turns = 0;
      const totals = { put: 0, removed: 0 };
      for (let done = false; !done; turns++) {
        const result = await w.sync({ untilMs: 0 });
        totals.put += result.put;
        totals.removed += result.removed;
        done = result.done;
      }
      expect([turns, totals]).toEqual([4, { put: 10, removed: 3 }]);
      expect(await w.backend!.count(w.index)).toBe(27);
    });

    it('lets one worker at a time change a copy', async () => {
      const w = await world();
      await w.put(randomRows(30, 4));
      const results = await Promise.all([w.sync(), w.sync(), w.sync()]);
      expect(results.filter(({ done }) => done).length).toBe(1);
      expect(results.filter(({ busy }) => busy).length).toBe(2);
      expect(await w.backend!.count(w.index)).toBe(30);
    });

    it('publishes nothing when another worker has taken over', async () => {
      const w = await world();
      await w.put(randomRows(30, 4));
      const key = w.ctx.ns.copy(collection, name);
      setCrashHook((at) => {
        if (at !== 'index.sync.before_publish') return;
        void w.ports.table.write([{ update: key, set: { lease_id: 'other' } }]);
      });
      expect(await w.sync()).toMatchObject({ done: false, busy: true });
      setCrashHook(undefined);
      expect((await w.open()).head.copies).toEqual({});
      expect((await w.ports.table.get(key))!.lease_id).toBe('other');
    });

    it('repairs a copy that lost rows or has rows that nobody knows, when every row is compared', async () => {
      const w = await world();
      await w.put(randomRows(30, 4));
      await sync(w);
      await w.backend!.remove(w.index, ['doc_00005']);
      await w.backend!.put(w.index, [
        { id: 'stranger', seq: 1, vector: Float32Array.of(1, 0, 0, 0) },
        { id: 'doc_00006', seq: 2, vector: Float32Array.of(0, 0, 0, 1) },
      ]);
      // What a copy says of rows that are not there changes no answer.
      const queries = [[1, 0, 0, 0]];
      w.check(await w.search({ queries, k: 5 }), queries, 5);
      expect(await w.sync({ everything: true })).toEqual({ done: true, busy: false, put: 2, removed: 1 });
      await sync(w);
    });

    it('scans and says so when the backend fails, and a sync tells what failed and can be repeated', async () => {
      const w = await world();
      await w.put(randomRows(30, 4));
      await sync(w);
      await w.backend!.drop(w.index);
      const queries = [[1, 0, 0, 0]];
      const result = await w.search({ queries, k: 5 });
      expect(result).toMatchObject({ backend: 'segments', exact: true });
      w.check(result, queries, 5);
      expect(w.ports.logged).toContainEqual(
        expect.objectContaining({
          level: 'warn',
          fields: expect.objectContaining({ code: 'index_missing' }),
        }),
      );
      expect((await w.sync({ everything: true })).put).toBe(30);
      await sync(w);
    });

    it('drops what it holds of a collection and of a namespace, and dropping again is no error', async () => {
      const w = await world();
      await w.put(randomRows(10, 4));
      await sync(w);
      const other = { ...w.index, collection_id: 'col_zzzzzzzzzzzzzzzzzzzz' };
      await w.backend!.ensure(other);
      await w.backend!.put(other, [{ id: 'a', seq: 1, vector: Float32Array.of(1, 0, 0, 0) }]);
      await dropCopies(w.ctx, w.copyName, { collectionId: collection });
      await expect(w.backend!.count(w.index)).rejects.toMatchObject({ code: 'index_missing' });
      expect(await w.backend!.count(other)).toBe(1);
      await dropCopies(w.ctx, w.copyName, { collectionIds: [collection] });
      await dropCopies(w.ctx, w.copyName);
      await expect(w.backend!.count(other)).rejects.toMatchObject({ code: 'index_missing' });
      expect((await w.open()).head.copies).toEqual({});
      expect(await readCopies(w.ctx, collection)).toEqual([]);
    });

    it('does not copy again what a compaction has only moved', async () => {
      const w = await world();
      for (let i = 0; i < 20; i++) await w.put(randomRows(5, 4, i, `batch${i}`));
      await w.patch('batch3_00001', { topic: 'rare' });
      await w.remove('batch4_00001', 'batch5_00002');
      await sync(w);
      await w.put({ batch6_00001: { vector: [1, 1, 0, 0] } });
      const before = (await w.open()).head.version;
      await compactIndex(w.ctx, collection, { untilMs: Number.POSITIVE_INFINITY });
      expect((await w.open()).head.version).toBeGreaterThan(before);
      const queries = [[0.2, 0.4, -0.1, 0.9]];
      const result = await w.search({ queries, k: 10 });
      answeredBy(result);
      w.check(result, queries, 10);
      expect(await w.sync()).toMatchObject({ done: true, put: 1, removed: 0 });
      await sync(w);
      w.check(await w.search({ queries, k: 10 }), queries, 10);
    });

    it('lists every row with its number, page by page', async () => {
      const w = await world();
      await w.put(randomRows(2_300, 4));
      await sync(w);
      const held = new Map<string, number>();
      let cursor: string | undefined;
      do {
        const page = await w.backend!.list(w.index, cursor);
        for (const { id, seq } of page.rows) held.set(id, seq);
        cursor = page.next;
      } while (cursor !== undefined);
      expect(held.size).toBe(2_300);
      expect(held.get('doc_00000')).toBe(2 ** 24);
      expect(held.get('doc_02299')).toBe(2 ** 24 + 2_299);
    });

    it('answers any history of writes, syncs and deaths of workers with true hits', async () => {
      const dims = 3;
      const id = fc.integer({ min: 0, max: 11 }).map((n) => `d${n}`);
      const vector = fc.array(fc.constantFrom(-1, 0, 0.5, 1, 3), { minLength: dims, maxLength: dims });
      const row = fc.tuple(id, vector, fc.constantFrom('rare', 'common'));
      const step = fc.oneof(
        { weight: 4, arbitrary: fc.record({ put: fc.array(row, { minLength: 1, maxLength: 6 }) }) },
        { weight: 2, arbitrary: fc.record({ remove: fc.array(id, { minLength: 1, maxLength: 3 }) }) },
        { weight: 1, arbitrary: fc.record({ patch: id, topic: fc.constantFrom('rare', 'common') }) },
        { weight: 3, arbitrary: fc.record({ sync: fc.constantFrom('whole', 'late', 'everything') }) },
        { weight: 2, arbitrary: fc.record({ die: fc.integer({ min: 0, max: 4 }) }) },
        {
          weight: 5,
          arbitrary: fc.record({ query: vector, k: fc.integer({ min: 1, max: 15 }), filtered: fc.boolean() }),
        },
      );
      await fc.assert(
        fc.asyncProperty(
          fc.array(step, { minLength: 4, maxLength: 25 }),
          fc.constantFrom(...metrics),
          async (steps, metric) => {
            const w = await world({ metric, dims });
            try {
              await w.put({ d0: { vector: [1, 0, 0], fields: { topic: 'rare' } } });
              for (const one of steps) {
                if ('put' in one) {
                  await w.put(
                    Object.fromEntries(
                      one.put.map(([key, v, topic]) => [key, { vector: v, fields: { topic } }]),
                    ),
                  );
                } else if ('remove' in one) await w.remove(...new Set(one.remove));
                else if ('patch' in one) await w.patch(one.patch, { topic: one.topic });
                else if ('sync' in one) {
                  if (one.sync === 'late') await w.sync({ untilMs: 0 });
                  else expect((await w.sync({ everything: one.sync === 'everything' })).done).toBe(true);
                } else if ('die' in one) {
                  let left = one.die;
                  setCrashHook((at) => {
                    if (at.startsWith('index.sync.') && left-- === 0) throw new Error('killed');
                  });
                  await w.sync().catch((error: Error) => expect(error.message).toBe('killed'));
                  setCrashHook(undefined);
                  w.ports.clock.advance(6 * 60_000);
                } else {
                  const result = await w.search({
                    queries: [one.query],
                    k: one.k,
                    ...(one.filtered ? { filter: rare } : {}),
                  });
                  w.check(result, [one.query], one.k, one.filtered ? isRare : undefined);
                }
              }
              await sync(w);
            } finally {
              setCrashHook(undefined);
              worlds.splice(worlds.indexOf(w), 1);
              await w.stop();
            }
          },
        ),
        { numRuns: 25 },
      );
    });
  });
}
