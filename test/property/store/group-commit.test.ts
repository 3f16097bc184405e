// Many writers of small changes, in any interleaving, with deaths, lost answers and failing conditions: what the table
// and the index say afterwards is what the same changes give one after the other, each applied once or not at all.
import fc from 'fast-check';
import { afterAll, describe, expect, it, vi } from 'vitest';
import { systemRandom } from '../../../functions/core/clock.ts';
import type { NsCtx } from '../../../functions/core/context.ts';
import { inNamespace, makeContext } from '../../../functions/core/context.ts';
import { AppError, isAppError } from '../../../functions/core/errors.ts';
import type { Table, Write } from '../../../functions/core/store/table.ts';
import { ConditionFailed } from '../../../functions/core/store/table.ts';
import {
  commitIndex,
  deleteRows,
  documentsSnapshot,
  documentsUri,
  headWrite,
  openSequence,
  patchColumns,
  putSegment,
  readHead,
} from '../../../functions/core/store/vector-index.ts';
import { columnsOf } from '../../../functions/core/vectors/snapshot.ts';
import { makeTestPorts } from '../../http/app.ts';

// Pauses end at the next turn: their length is counted by the code itself, and order comes from the schedule below.
vi.mock('node:timers/promises', () => ({
  setTimeout: () => new Promise<void>((resolve) => void setImmediate(resolve)),
}));

const collection = 'col_one';
const ids = ['doc_a', 'doc_b', 'doc_c', 'doc_d'];

type Kind = 'patch' | 'revise' | 'delete' | 'batch';
interface Step {
  readonly kind: Kind;
  readonly id: string;
  /** Whether the change holds only for the watermark that its writer read. */
  readonly pinned: boolean;
}
interface Writer {
  readonly steps: readonly Step[];
  /** The call of the table at which it dies; beyond the last one: never. */
  readonly diesAt: number;
  /** The call that works, but whose answer is lost. */
  readonly losesAt: number;
}

interface History {
  readonly writers: readonly Writer[];
  readonly seed: number;
  /** Whether they join a group at once instead of trying by themselves first. */
  readonly crowded: boolean;
  /** How often somebody else moves the head, so that the others lose their races. */
  readonly hogs: number;
  /** The turn of the hog at which half a minute passes; beyond the last one: never. */
  readonly jumpsAt: number;
}

const step: fc.Arbitrary<Step> = fc.record({
  kind: fc.oneof(
    { weight: 4, arbitrary: fc.constant<Kind>('patch') },
    { weight: 4, arbitrary: fc.constant<Kind>('revise') },
    { weight: 1, arbitrary: fc.constant<Kind>('delete') },
    { weight: 2, arbitrary: fc.constant<Kind>('batch') },
  ),
  id: fc.constantFrom(...ids),
  pinned: fc.boolean(),
});
const never = 1_000_000;
const sometimes = fc.oneof(
  { weight: 2, arbitrary: fc.constant(never) },
  { weight: 1, arbitrary: fc.nat({ max: 40 }) },
);
const history: fc.Arbitrary<History> = fc.record({
  writers: fc.array(
    fc.record({
      steps: fc.array(step, { minLength: 1, maxLength: 3 }),
      diesAt: sometimes,
      losesAt: sometimes,
    }),
    { minLength: 2, maxLength: 10 },
  ),
  seed: fc.integer(),
  crowded: fc.boolean(),
  hogs: fc.oneof({ weight: 4, arbitrary: fc.constant(0) }, { weight: 1, arbitrary: fc.nat({ max: 3000 }) }),
  jumpsAt: fc.oneof(
    { weight: 4, arbitrary: fc.constant(never) },
    { weight: 1, arbitrary: fc.nat({ max: 200 }) },
  ),
});

/** What a change does, for the model. */
interface Change {
  readonly n: number;
  readonly step: Step;
  readonly watermark: number;
  /** The revision that its row must have; undefined: it writes no row. */
  readonly revision: number | undefined;
}
interface Model {
  readonly documents: Map<string, number | undefined>;
  readonly revisions: Map<string, number>;
  watermark: number;
  count: number;
}

/** Applies a change that was committed; throws if it should not have been. */
function apply(model: Model, { n, step: { kind, id, pinned }, watermark, revision }: Change): void {
  if (pinned || kind === 'batch') expect(model.watermark).toBe(watermark);
  if (revision !== undefined) {
    expect(model.revisions.get(id)).toBe(revision);
    model.revisions.set(id, revision + 1);
  }
  if (kind === 'batch') {
    model.watermark += 1;
    model.documents.set(id, n);
    return;
  }
  if (kind === 'delete') {
    model.documents.set(id, undefined);
    model.count = Math.max(0, model.count - 1);
  } else if (model.documents.get(id) !== undefined) model.documents.set(id, n);
}

/** Numbers from a seed, the same in every run (mulberry32). */
function numbers(seed: number): () => number {
  let state = seed | 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

const turn = () => new Promise<void>((resolve) => void setImmediate(resolve));

class Killed extends Error {}

/** The table as one writer has it: calls take some turns, and it dies or loses an answer at some call. */
function tableOf(table: Table, { diesAt, losesAt }: Writer, next: () => number): Table {
  let calls = 0;
  const call = async <T>(work: () => Promise<T>): Promise<T> => {
    const number = calls++;
    for (let turns = Math.floor(next() * 4); turns > 0; turns--) await turn();
    // A death before or after what the call does.
    if (number > diesAt || (number === diesAt && next() < 0.5)) throw new Killed();
    const answer = await work();
    for (let turns = Math.floor(next() * 4); turns > 0; turns--) await turn();
    if (number === diesAt) throw new Killed();
    if (number === losesAt) throw new AppError('storage_unavailable');
    return answer;
  };
  return {
    get: (key) => call(() => table.get(key)),
    getMany: (keys) => call(() => table.getMany(keys)),
    query: (pk, options) => call(() => table.query(pk, options)),
    write: (writes, token) => call(() => table.write(writes, token)),
    writeMany: (writes) => call(() => table.writeMany(writes)),
    due: (shard, until, limit) => table.due(shard, until, limit),
  };
}

const columnN = (n: number) => new Map([['n', n]]);

async function sendBatch(ctx: NsCtx, id: string, n: number, token: string, batch_id: string): Promise<void> {
  const segment = await putSegment(ctx, collection, {
    kind: 'data',
    dims: 0,
    metric: null,
    rows: [{ id, columns: columnN(n) }],
  });
  const addition = { uri: documentsUri, dims: 0, metric: null, segment };
  const sequence = { batch_id, attempt: 1 };
  const change = { collection_id: collection, additions: [addition], document_delta: 0, sequence };
  await commitIndex(ctx, [change], { token });
}

const seen = { changes: 0, commits: 0, refused: 0, unknown: 0, contended: 0, repeated: 0 };

async function run({ writers, seed, crowded, hogs, jumpsAt }: History): Promise<void> {
  // The tests' own random repeats itself sooner than names of objects may.
  const ports = { ...makeTestPorts(), random: systemRandom };
  const table = ports.table;
  const principal = { orgId: 'org_one', keyId: 'key', permissions: ['admin' as const] };
  const contextOf = (own: Table) =>
    inNamespace(makeContext({ ...ports, table: own }, principal, 'req'), 'ns_one');
  const ctx = contextOf(table);
  const next = numbers(seed);

  await table.write([{ put: { ...ctx.ns.resource('COLLECTION', collection), id: collection } }]);
  for (const id of ids) await table.write([{ put: { ...ctx.ns.document(collection, id), revision: 1 } }]);
  const segment = await putSegment(ctx, collection, {
    kind: 'data',
    dims: 0,
    metric: null,
    rows: ids.map((id) => ({ id, columns: columnN(0) })),
  });
  const addition = { uri: documentsUri, dims: 0, metric: null, segment };
  const first = { collection_id: collection, additions: [addition], document_delta: ids.length };
  await commitIndex(ctx, [first], { token: 'first' });
  const crowd = async () => {
    const head = await readHead(ctx, collection);
    await table.write([headWrite(ctx, head, { grouped_at_ms: ports.clock.now() })]);
  };
  if (crowded) await crowd();

  // Every commit in the order in which the table took them, with the tokens of its changes.
  const changes = new Map<string, Change>();
  const log: string[] = [];
  let commits = 0;
  const write = table.write.bind(table);
  table.write = async (writes: readonly Write[], token?: string) => {
    await write(writes, token);
    const tokens = writes.flatMap((one) =>
      'put' in one && one.put.sk.startsWith('TOKEN#') ? [one.put.sk.slice('TOKEN#'.length)] : [],
    );
    log.push(...tokens.filter((one) => changes.has(one)));
    if (tokens.length > 0) commits += 1;
  };

  const ended = new Map<string, 'applied' | 'refused' | 'unknown'>();
  /** Changes that nobody can apply any more, as they were when that became so. */
  const over = new Map<string, boolean>();
  const { pk, prefix } = ctx.ns.pendingChanges(collection);
  const isWaiting = async (token: string) =>
    (await table.query(pk, { prefix })).items.some(({ change }) => String(change).includes(`"${token}"`));
  const isDisturbed = hogs > 0 || jumpsAt < never;

  /** Sends a change for the first time (by one who lives, or may die) or again, and checks what is answered. */
  const send = async (
    token: string,
    one: Change,
    own: NsCtx,
    how: 'living' | 'mortal' | 'again',
  ): Promise<void> => {
    const { n, step: what, watermark, revision } = one;
    const writes: Write[] =
      revision === undefined
        ? []
        : [
            {
              update: own.ns.document(collection, what.id),
              set: { revision: revision + 1 },
              if: [{ attribute: 'revision', eq: revision }],
            },
          ];
    const options = { token, writes, ...(what.pinned ? { committedSeq: watermark } : {}) };
    try {
      if (what.kind === 'batch') await sendBatch(own, what.id, n, token, token);
      else if (what.kind === 'delete') await deleteRows(own, collection, [what.id], -1, options);
      else await patchColumns(own, collection, [{ id: what.id, columns: columnN(n) }], options);
      // What has been answered is there.
      expect(log).toContain(token);
      ended.set(token, 'applied');
    } catch (error) {
      if (!(error instanceof Error) || error.name === 'AssertionError') throw error;
      if (error instanceof ConditionFailed) {
        const head = await readHead(ctx, collection);
        const row = await table.get(ctx.ns.document(collection, what.id));
        const hasMoved = what.pinned && head.committed_seq !== watermark;
        expect(hasMoved || (revision !== undefined && row?.revision !== revision)).toBe(true);
      }
      const isContended = isAppError(error, 'index_contended');
      if (isContended) seen.contended += 1;
      if (isContended && what.kind !== 'batch') expect(isDisturbed).toBe(true);
      // Of a change that is sent again the first try may still be applied.
      const isRefused = error instanceof ConditionFailed || (isContended && how !== 'again');
      ended.set(token, isRefused ? 'refused' : 'unknown');
      const waits = await isWaiting(token);
      // Who lives takes back what it has left.
      if (how === 'living') expect(waits).toBe(false);
      if (!waits) over.set(token, log.includes(token));
      if (error instanceof Killed) throw error;
    }
  };

  const work = async (writer: Writer, w: number) => {
    const own = contextOf(tableOf(table, writer, next));
    for (const [s, one] of writer.steps.entries()) {
      const token = `t${w}-${s}`;
      const head = await readHead(own, collection);
      const row = await own.ports.table.get(own.ns.document(collection, one.id));
      const revision = one.kind === 'revise' || one.kind === 'delete' ? Number(row?.revision) : undefined;
      const change: Change = { n: 1 + w * 10 + s, step: one, watermark: head.committed_seq, revision };
      if (one.kind === 'batch') {
        // A batch waits for its turn, as the lock of the collection makes it.
        if (head.open) continue;
        await own.ports.table.write([openSequence(own, head, { batch_id: token, attempt: 1 }).write!]);
      }
      changes.set(token, change);
      await send(token, change, own, writer.diesAt === never ? 'living' : 'mortal');
    }
  };
  let running = writers.length;
  const hog = async () => {
    for (let i = 0; i < hogs && running > 0; i++) {
      await turn();
      const head = await readHead(ctx, collection);
      await table.write([headWrite(ctx, head, {})]);
      if (i === jumpsAt) ports.clock.advance(32_000);
    }
  };
  await Promise.all([
    hog(),
    ...writers.map(async (writer, w) => {
      try {
        await work(writer, w);
      } catch (error) {
        const isExpected =
          error instanceof Killed || error instanceof AppError || error instanceof ConditionFailed;
        if (!isExpected) throw error;
      } finally {
        running -= 1;
      }
      // Somebody else repeats what has no answer, as a queue does.
      for (const [token, change] of changes) {
        if (!token.startsWith(`t${w}-`) || ended.get(token) !== 'unknown' || change.step.kind === 'batch')
          continue;
        if (next() < 0.5) continue;
        seen.repeated += 1;
        over.delete(token);
        await send(
          token,
          change,
          contextOf(tableOf(table, { ...writer, diesAt: never, losesAt: never }, next)),
          'again',
        );
      }
    }),
  ]);

  const check = async () => {
    expect(new Set(log).size).toBe(log.length);
    for (const [token, how] of ended) {
      if (how === 'applied') expect(log).toContain(token);
      if (how === 'refused') expect(log).not.toContain(token);
    }
    for (const [token, isApplied] of over) expect([token, log.includes(token)]).toEqual([token, isApplied]);
    const model: Model = {
      documents: new Map(ids.map((id) => [id, 0])),
      revisions: new Map(ids.map((id) => [id, 1])),
      watermark: 0,
      count: ids.length,
    };
    for (const token of log) apply(model, changes.get(token)!);
    const head = await readHead(ctx, collection);
    const found = (await documentsSnapshot(ctx, collection))!;
    for (const id of ids) {
      expect([id, columnsOf(found, id)?.get('n')]).toEqual([id, model.documents.get(id)]);
      const row = await table.get(ctx.ns.document(collection, id));
      expect([id, row?.revision]).toEqual([id, model.revisions.get(id)]);
    }
    expect(head).toMatchObject({ version: 1 + commits, document_count: model.count });
  };
  await check();

  // What the dead have left is applied now or never: nothing of it half a minute later.
  const before = log.length;
  ports.clock.advance(32_000);
  await crowd();
  changes.set('last', {
    n: 999,
    step: { kind: 'patch', id: ids[0]!, pinned: false },
    watermark: 0,
    revision: undefined,
  });
  await patchColumns(ctx, collection, [{ id: ids[0]!, columns: columnN(999) }], { token: 'last' });
  expect(log.slice(before)).toEqual(['last']);
  expect((await table.query(pk, { prefix })).items).toEqual([]);
  await check();

  seen.changes += log.length;
  seen.commits += commits;
  for (const how of ended.values()) {
    if (how === 'refused') seen.refused += 1;
    if (how === 'unknown') seen.unknown += 1;
  }
}

describe('small writes at once', () => {
  it('give what they give one after the other, each once or not at all, whoever dies', async () => {
    await fc.assert(fc.asyncProperty(history, run), { numRuns: 300 });
  });

  afterAll(() => {
    // Histories in which nothing happens would prove nothing.
    expect(seen.commits).toBeLessThan(seen.changes);
    for (const count of Object.values(seen)) expect(count).toBeGreaterThan(0);
  });
});
