// An index under writes, compactions and collections that die, repeat and race answers like a map, keeps the versions
// that it promises, and leaves nothing behind.
import { createHash } from 'node:crypto';
import fc from 'fast-check';
import { afterEach, expect, test, vi } from 'vitest';
import { virtualClock } from '../../../functions/core/clock.ts';
import type { NsCtx } from '../../../functions/core/context.ts';
import { inNamespace, makeContext } from '../../../functions/core/context.ts';
import { setCrashHook } from '../../../functions/core/crash.ts';
import type { Ports } from '../../../functions/core/ports.ts';
import type { Blobs } from '../../../functions/core/store/blobs.ts';
import { sweepIndex } from '../../../functions/core/store/collect-garbage.ts';
import { compactIndex } from '../../../functions/core/store/compact-index.ts';
import { MemoryBlobs, MemoryTable } from '../../../functions/core/store/memory.ts';
import { ConditionFailed } from '../../../functions/core/store/table.ts';
import type { IndexView } from '../../../functions/core/store/vector-index.ts';
import {
  commitIndex,
  deleteRows,
  documentsUri,
  openIndex,
  patchColumns,
  putSegment,
  readHead,
} from '../../../functions/core/store/vector-index.ts';
import type { ColumnPatch } from '../../../functions/core/vectors/columns.ts';
import type { CompactionRules } from '../../../functions/core/vectors/compaction-plan.ts';
import { keysOf } from '../../../functions/core/vectors/manifest.ts';
import { search } from '../../../functions/core/vectors/search.ts';
import { vectorOf } from '../../../functions/core/vectors/snapshot.ts';
import { makeVectorMemory } from '../../../functions/core/vectors/vector-memory.ts';

// Whoever lost a race waits before the next try; here everybody goes on at once.
vi.mock('node:timers/promises', () => ({
  setTimeout: () => new Promise((resolve) => setImmediate(resolve)),
}));

const uri = 'mixpeek://ngram_embed@1.0.0/ngram';
const collectionId = 'col_one';
const ids = Array.from({ length: 10 }, (_, i) => `doc_${'zyxwvutsrq'[i]}`);
const hour = 3_600_000;
const memory = makeVectorMemory(1 << 20);

afterEach(() => setCrashHook(undefined));

interface Row {
  readonly id: string;
  readonly n: number;
}

type Change =
  | { readonly kind: 'upsert'; readonly rows: readonly Row[]; readonly deleted: readonly string[] }
  | { readonly kind: 'delete'; readonly ids: readonly string[] }
  | { readonly kind: 'patch'; readonly rows: readonly (Row & { readonly clears: boolean })[] }
  /** More small commits than the index keeps apart: it merges them. */
  | { readonly kind: 'storm'; readonly ids: readonly string[] };

type Action =
  | Change
  /** A write that dies at its n-th crash point, and is repeated or not. */
  | { readonly kind: 'dying'; readonly change: Change; readonly at: number; readonly repeats: boolean }
  | {
      readonly kind: 'compact';
      readonly rules: CompactionRules;
      /** Dies at this crash point. */
      readonly dies?: number | undefined;
      /** Happen while it writes its n-th object. */
      readonly meanwhile: readonly { readonly at: number; readonly change: Change }[];
      /** Another one at the same time. */
      readonly rival: boolean;
      /** Its first commit is made, and its answer lost. */
      readonly unanswered: boolean;
    }
  | { readonly kind: 'collect'; readonly dies?: number | undefined; readonly meanwhile?: Change | undefined }
  | { readonly kind: 'wait'; readonly hours: number };

const id = fc.constantFrom(...ids);
const row = fc.record({ id, n: fc.integer({ min: 0, max: 3 }) });
const rows = fc.array(row, { minLength: 1, maxLength: 5 });

const change: fc.Arbitrary<Change> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant('upsert' as const),
      rows,
      deleted: fc.array(id, { maxLength: 2 }),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant('delete' as const),
      ids: fc.array(id, { minLength: 1, maxLength: 3 }),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant('patch' as const),
      rows: fc.array(fc.record({ id, n: fc.integer({ min: 4, max: 9 }), clears: fc.boolean() }), {
        minLength: 1,
        maxLength: 4,
      }),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constant('storm' as const),
      ids: fc.array(id, { minLength: 1, maxLength: 3 }),
    }),
  },
);

/** Limits around the size of segments that hold a few rows, which is 4 to 5 kB. */
const rules: fc.Arbitrary<CompactionRules> = fc.record({
  deltaBytesMax: fc.constantFrom(0, 5_000, 20_000, 1_000_000),
  looseSegmentsMax: fc.integer({ min: 1, max: 6 }),
  looseSegmentsKept: fc.integer({ min: 0, max: 3 }),
  deadShareMax: fc.constantFrom(0, 0.05, 0.3, 1),
  deadBytesMin: fc.constantFrom(0, 3_000),
  segmentBytesTarget: fc.constantFrom(1, 5_000, 12_000, 1_000_000),
  inputBytesMax: fc.constantFrom(1, 12_000, 30_000, 1_000_000),
});

const action: fc.Arbitrary<Action> = fc.oneof(
  { weight: 9, arbitrary: change },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant('dying' as const),
      change,
      at: fc.integer({ min: 1, max: 2 }),
      repeats: fc.boolean(),
    }),
  },
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant('compact' as const),
      rules,
      dies: fc.option(fc.integer({ min: 1, max: 9 }), { nil: undefined, freq: 2 }),
      meanwhile: fc.array(fc.record({ at: fc.integer({ min: 1, max: 5 }), change }), { maxLength: 2 }),
      rival: fc.boolean(),
      unanswered: fc.boolean(),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant('collect' as const),
      dies: fc.option(fc.integer({ min: 1, max: 3 }), { nil: undefined }),
      meanwhile: fc.option(change, { nil: undefined }),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant('wait' as const),
      hours: fc.constantFrom(1, 10, 23, 30, 47, 50),
    }),
  },
);

type Model = Map<string, { vector: readonly number[]; columns: Map<string, string | number> }>;

const vectorFor = ({ id: name, n }: Row) => [n - 1, (name.charCodeAt(4) % 5) - 2];

function applyTo(model: Model, what: Change): void {
  const patch = (name: string, set: ColumnPatch) => {
    const found = model.get(name);
    if (!found) return;
    for (const [column, value] of set) {
      if (value === undefined) found.columns.delete(column);
      else found.columns.set(column, value as string | number);
    }
  };
  if (what.kind === 'upsert') {
    for (const each of what.deleted) model.delete(each);
    for (const each of what.rows)
      model.set(each.id, {
        vector: vectorFor(each),
        columns: new Map<string, string | number>([
          ['n', each.n],
          ['a', `a${each.n}`],
        ]),
      });
  }
  if (what.kind === 'delete') for (const each of what.ids) model.delete(each);
  if (what.kind === 'patch') for (const each of what.rows) patch(each.id, patchFor(each));
  if (what.kind === 'storm') for (const [each, set] of stormOf(what.ids)) patch(each, set);
}

const patchFor = ({ n, clears }: { readonly n: number; readonly clears: boolean }): ColumnPatch =>
  new Map<string, string | number | undefined>([
    ['n', clears ? undefined : n],
    ['p', n],
  ]);

function stormOf(names: readonly string[]): [string, ColumnPatch][] {
  return Array.from({ length: 36 }, (_, i) => [
    names[i % names.length]!,
    new Map([[`s${i % 3}`, i], ...(i % 5 === 0 ? ([['n', i]] as const) : [])]),
  ]);
}

const copyOf = (model: Model): Model =>
  new Map([...model].map(([name, { vector, columns }]) => [name, { vector, columns: new Map(columns) }]));

class Died extends Error {}

/** Dies at the n-th crash point from now on that begins so. */
function dieAt(n: number | undefined, prefix: string): void {
  let left = n ?? Number.POSITIVE_INFINITY;
  setCrashHook((point) => {
    if (!point.startsWith(prefix)) return;
    left -= 1;
    if (left === 0) throw new Died(point);
  });
}

/** The same object with another method. */
function replaced<T extends object, K extends keyof T>(target: T, method: K, by: T[K]): T {
  return new Proxy(target, {
    get: (_, name) => {
      if (name === method) return by;
      const value = Reflect.get(target, name, target) as unknown;
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
}

/** One index and the map that it must be like. */
class World {
  readonly clock = virtualClock();
  readonly table = new MemoryTable();
  readonly index = new MemoryBlobs('index', this.clock);
  readonly ctx: NsCtx;
  model: Model = new Map();
  /** Versions with what they showed. */
  readonly versions = new Map<number, { model: Model; goneMs: number }>();
  #tokens = 0;
  #onPut: (() => Promise<void>) | undefined;

  /** How many writes from now on are made and then answered as if somebody had been faster. */
  #lostAnswers = 0;
  #drawn = 0;

  constructor() {
    this.ctx = this.#context(async (key, body, options) => {
      const hook = this.#onPut;
      if (hook) await hook();
      return this.index.put(key, body, options);
    });
  }

  /** As another process sees the index: nothing of it is in memory. */
  cold(): NsCtx {
    return this.#context((key, body, options) => this.index.put(key, body, options));
  }

  #context(put: Blobs['put']): NsCtx {
    const random = {
      // Distinct at every call, the same in every run.
      bytes: (count: number) => {
        this.#drawn += 1;
        const hash = createHash('shake256', { outputLength: count });
        return Uint8Array.from(hash.update(String(this.#drawn)).digest());
      },
    };
    const table = replaced(this.table, 'write', async (...given: Parameters<MemoryTable['write']>) => {
      await this.table.write(...given);
      const isHead = given[0].some((each) => 'update' in each && each.update.sk === 'HEAD');
      if (this.#lostAnswers === 0 || !isHead) return;
      this.#lostAnswers -= 1;
      throw new ConditionFailed([{ index: 0, item: undefined }]);
    });
    const index = replaced(this.index, 'put', put);
    const principal = { orgId: 'org_one', keyId: 'key', permissions: ['admin' as const] };
    const ports = { table, index, clock: this.clock, random } as unknown as Ports;
    return inNamespace(makeContext(ports, principal, 'req'), 'ns_one');
  }

  async begin(): Promise<void> {
    setCrashHook(undefined);
    await this.table.write([{ put: { ...this.ctx.ns.resource('COLLECTION', collectionId) } }]);
  }

  /** Runs the work, and the actions at the n-th object that it stores. */
  async #while(
    actions: readonly { readonly at: number; readonly change: Change }[],
    work: () => Promise<unknown>,
  ): Promise<void> {
    let puts = 0;
    this.#onPut = async () => {
      puts += 1;
      const now = actions.filter(({ at }) => at === puts);
      if (now.length === 0) return;
      const hook = this.#onPut;
      this.#onPut = undefined;
      for (const { change: each } of now) await this.write(each);
      this.#onPut = hook;
    };
    try {
      await work();
    } finally {
      this.#onPut = undefined;
    }
  }

  /** The commits of a change as calls that can be repeated. */
  async #commits(what: Change, tag: string): Promise<(() => Promise<unknown>)[]> {
    const { ctx } = this;
    const has = (name: string) => this.model.has(name);
    if (what.kind === 'patch') {
      const patches = what.rows.map((each) => ({ id: each.id, columns: patchFor(each) }));
      return [() => patchColumns(ctx, collectionId, patches, { token: tag })];
    }
    if (what.kind === 'storm') {
      return stormOf(what.ids).map(([name, columns], i) => {
        const token = `${tag}.${i}`;
        return () => patchColumns(ctx, collectionId, [{ id: name, columns }], { token });
      });
    }
    if (what.kind === 'delete') {
      const delta = -new Set(what.ids.filter(has)).size;
      return [() => deleteRows(ctx, collectionId, what.ids, delta, { token: tag })];
    }
    const after = copyOf(this.model);
    applyTo(after, what);
    const data = {
      kind: 'data' as const,
      tombs: what.deleted.map((each) => ({ id: each })),
    };
    const entries = what.rows.map((each) => ({
      id: each.id,
      vector: vectorFor(each),
      columns: new Map<string, string | number>([
        ['n', each.n],
        ['a', `a${each.n}`],
      ]),
    }));
    const withVectors = await putSegment(ctx, collectionId, {
      ...data,
      dims: 2,
      metric: 'dot',
      rows: entries,
    });
    const without = await putSegment(ctx, collectionId, {
      ...data,
      dims: 0,
      metric: null,
      rows: entries.map(({ id: name, columns }) => ({ id: name, columns })),
    });
    const document_delta = after.size - this.model.size;
    return [
      () =>
        commitIndex(
          ctx,
          [
            {
              collection_id: collectionId,
              document_delta,
              additions: [
                { uri, dims: 2, metric: 'dot', segment: withVectors },
                { uri: documentsUri, dims: 0, metric: null, segment: without },
              ],
            },
          ],
          { token: tag },
        ),
    ];
  }

  async #remember(): Promise<void> {
    const { version } = await readHead(this.ctx, collectionId);
    if (this.versions.has(version)) return;
    this.versions.set(version, { model: copyOf(this.model), goneMs: Number.POSITIVE_INFINITY });
    for (const [known, state] of this.versions)
      if (known < version && state.goneMs === Number.POSITIVE_INFINITY)
        state.goneMs = this.clock.now() + 47 * hour;
  }

  async write(what: Change, dies?: { readonly at: number; readonly repeats: boolean }): Promise<void> {
    this.#tokens += 1;
    const commits = await this.#commits(what, `t${this.#tokens}`);
    const before = (await readHead(this.ctx, collectionId)).version;
    let left = dies?.at ?? Number.POSITIVE_INFINITY;
    for (const commit of commits) {
      if (dies) dieAt(left, 'index.commit');
      try {
        await commit();
        left -= 2;
      } catch (error) {
        if (!(error instanceof Died)) throw error;
        setCrashHook(undefined);
        if (!dies!.repeats) {
          // A single commit: what the head says was made, was made.
          const { version } = await readHead(this.ctx, collectionId);
          if (commits.length > 1 || version > before) await commit();
          else return;
        } else await commit();
        left = Number.POSITIVE_INFINITY;
      }
      if (dies) setCrashHook(undefined);
      // A repetition changes nothing.
      if (dies) await commit();
    }
    applyTo(this.model, what);
    await this.#remember();
  }

  async run(what: Action): Promise<void> {
    const { ctx } = this;
    if (what.kind === 'wait') this.clock.advance(what.hours * hour);
    else if (what.kind === 'dying') await this.write(what.change, what);
    else if (what.kind === 'collect') {
      const actions = what.meanwhile ? [{ at: 0, change: what.meanwhile }] : [];
      dieAt(what.dies, 'index.collect');
      const sweeping = this.#while([], () => sweepIndex(ctx, collectionId));
      for (const each of actions) await this.write(each.change);
      await survive(sweeping);
      setCrashHook(undefined);
      await this.checkVersions();
    } else if (what.kind === 'compact') {
      const before = await readHead(ctx, collectionId);
      dieAt(what.dies, 'index.compact');
      let reported: number | undefined;
      const compact = async () => {
        const { compactions } = await compactIndex(ctx, collectionId, { rules: what.rules, memory });
        reported = compactions.length;
      };
      await this.#while(what.meanwhile, async () => {
        this.#lostAnswers = what.unanswered && what.meanwhile.length === 0 ? 1 : 0;
        await Promise.all([survive(compact()), ...(what.rival ? [survive(compact())] : [])]);
      });
      setCrashHook(undefined);
      this.#lostAnswers = 0;
      const after = await readHead(ctx, collectionId);
      expect(after.version).toBeGreaterThanOrEqual(before.version);
      // Alone, each compaction is one version, also when it did not hear that it was made.
      if (!what.rival && what.meanwhile.length === 0 && reported !== undefined)
        expect(after.version - before.version).toBe(reported);
      await this.#remember();
    } else await this.write(what);
    setCrashHook(undefined);
  }

  /** Everything that can be asked gives the answers of the map. */
  async check(view?: IndexView, model: Model = this.model): Promise<void> {
    const opened = view ?? (await openIndex(this.cold(), collectionId));
    if (!view) expect(opened.head.document_count).toBe(model.size);
    for (const feature of [uri, documentsUri]) {
      const snapshot = await opened.snapshot(feature);
      if (!snapshot) {
        expect(model.size).toBe(0);
        continue;
      }
      expect(snapshot.liveCount).toBe(model.size);
      for (const name of ids) {
        const at = snapshot.rowOf(name);
        const expected = model.get(name);
        expect(at === undefined ? undefined : snapshot.columnsAt(at)).toEqual(expected?.columns);
        if (feature !== uri || !expected) continue;
        expect([...(await vectorOf(snapshot, name, memory))!]).toEqual(expected.vector);
      }
      if (feature !== uri) continue;
      const query = [2, 1];
      const { matches } = await search(snapshot, { queries: [query], k: 4 }, memory);
      const best = [...model]
        .map(([name, { vector }]) => ({ id: name, score: 2 * vector[0]! + vector[1]! }))
        .sort((a, b) => b.score - a.score || (a.id < b.id ? -1 : 1))
        .slice(0, 4);
      expect(matches[0]).toEqual(best);
    }
  }

  /** Versions that must be readable show what they showed; older ones are refused or show it too. */
  async checkVersions(): Promise<void> {
    const now = this.clock.now();
    const head = await readHead(this.ctx, collectionId);
    const ctx = this.cold();
    for (const [version, { model, goneMs }] of [...this.versions].slice(-8)) {
      if (version === 0 || version < head.version - 150) continue;
      if (now < goneMs) {
        await this.check(await openIndex(ctx, collectionId, { version }), model);
      } else {
        await expect(openIndex(ctx, collectionId, { version })).rejects.toMatchObject({
          code: 'index_version_gone',
        });
      }
    }
  }

  /** After two days of peace nothing is stored that no version names. */
  async checkNothingLeft(): Promise<void> {
    this.clock.advance(49 * hour);
    await sweepIndex(this.ctx, collectionId);
    const { head, manifest } = await openIndex(this.ctx, collectionId);
    const named = keysOf({ ...manifest, retired: [], history: [] });
    if (head.manifest_key) named.add(head.manifest_key);
    const { blobs } = await this.index.list('');
    expect(blobs.map(({ key }) => key).sort()).toEqual([...named].sort());
    await this.check();
  }
}

/** Lets a worker die, or lose to others as often as it is allowed to. */
async function survive(work: Promise<unknown>): Promise<void> {
  try {
    await work;
  } catch (error) {
    const code = (error as { code?: string }).code ?? '';
    if (!(error instanceof Died) && code !== 'compaction_stale') throw error;
  }
}

test('an index answers like a map whatever dies, repeats or races, and two days later nothing is left over', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(action, { minLength: 1, maxLength: 14 }), async (actions) => {
      const world = new World();
      await world.begin();
      for (const each of actions) {
        await world.run(each);
        await world.check();
      }
      await world.checkVersions();
      await world.checkNothingLeft();
    }),
    { numRuns: 500 },
  );
}, 120_000);
