// The rare ways of a group commit: full transactions, late views, giving up, changes that cannot be written at all.
import { describe, expect, it, vi } from 'vitest';
import { systemRandom } from '../../../functions/core/clock.ts';
import type { NsCtx } from '../../../functions/core/context.ts';
import { inNamespace, makeContext } from '../../../functions/core/context.ts';
import { AppError } from '../../../functions/core/errors.ts';
import { writesPerCollection } from '../../../functions/core/store/commit-index.ts';
import {
  encodeChange,
  pendingRow,
  type SmallChange,
  writesMax,
  writesPerChange,
} from '../../../functions/core/store/pending-change.ts';
import type { Item, Key, Table, Write } from '../../../functions/core/store/table.ts';
import {
  commitIndex,
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

// Pauses end at the next turn; the code counts their length itself.
vi.mock('node:timers/promises', () => ({
  setTimeout: () => new Promise<void>((resolve) => void setImmediate(resolve)),
}));

const collection = 'col_one';
const ids = Array.from({ length: 40 }, (_, i) => `doc_${String(i).padStart(2, '0')}`);
const [a, b] = ids as [string, string];

/** A collection whose documents have `n = 0` and rows of revision 1, and whose writers join a group at once. */
async function made() {
  // The tests' own random repeats itself sooner than names of objects may.
  const ports = { ...makeTestPorts(), random: systemRandom };
  const { table } = ports;
  const principal = { orgId: 'org_one', keyId: 'key', permissions: ['admin' as const] };
  const contextOf = (own: Table): NsCtx =>
    inNamespace(makeContext({ ...ports, table: own }, principal, 'req'), 'ns_one');
  const ctx = contextOf(table);
  await table.write([{ put: { ...ctx.ns.resource('COLLECTION', collection), id: collection } }]);
  await table.writeMany(ids.map((id) => ({ put: { ...ctx.ns.document(collection, id), revision: 1 } })));
  const rows = ids.map((id) => ({ id, columns: new Map([['n', 0]]) }));
  const segment = await putSegment(ctx, collection, { kind: 'data', dims: 0, metric: null, rows });
  const addition = { uri: documentsUri, dims: 0, metric: null, segment };
  await commitIndex(ctx, [{ collection_id: collection, additions: [addition], document_delta: ids.length }], {
    token: 'first',
  });
  await crowd(ctx);
  return { ctx, ports, table, contextOf };
}

/** Makes the next small writes join a group at once instead of trying by themselves first. */
async function crowd(ctx: NsCtx): Promise<void> {
  const head = await readHead(ctx, collection);
  await ctx.ports.table.write([headWrite(ctx, head, { grouped_at_ms: ctx.ports.clock.now() })]);
}

/** A table that does something else where it is told so. */
const changed = (table: Table, parts: Partial<Table>): Table => ({
  get: table.get.bind(table),
  getMany: table.getMany.bind(table),
  query: table.query.bind(table),
  write: table.write.bind(table),
  writeMany: table.writeMany.bind(table),
  due: table.due.bind(table),
  ...parts,
});

const setN = (ctx: NsCtx, id: string, n: number, writes: readonly Write[] = []) =>
  patchColumns(ctx, collection, [{ id, columns: new Map([['n', n]]) }], { token: `n-${id}-${n}`, writes });

const revise = (ctx: NsCtx, id: string, revision: number): Write => ({
  update: ctx.ns.document(collection, id),
  set: { revision: revision + 1 },
  if: [{ attribute: 'revision', eq: revision }],
});

/** Leaves a change waiting as a writer that died at once would; `place` is its place among those that wait. */
async function leave(ctx: NsCtx, place: number, id: string, n: number, more: Partial<SmallChange> = {}) {
  const patches = [{ id, columns: new Map([['n', n]]) }];
  const change = { token: `left-${place}`, patches, deleted: [], document_delta: 0, writes: [], ...more };
  const text = encodeChange(ctx, collection, change)!;
  const row = pendingRow(ctx, collection, String(place).padStart(9, '0'), text);
  await ctx.ports.table.write([{ put: row }]);
}

const nOf = async (ctx: NsCtx, id: string) =>
  columnsOf((await documentsSnapshot(ctx, collection))!, id)?.get('n');

const waiting = async (ctx: NsCtx) => {
  const { pk, prefix } = ctx.ns.pendingChanges(collection);
  return (await ctx.ports.table.query(pk, { prefix })).items.length;
};

const isDelete = (write: Write | undefined, key?: Key) =>
  write !== undefined && 'delete' in write && (key === undefined || write.delete.sk === key.sk);

describe('a group commit', () => {
  it('takes as many changes as a transaction holds, and the rest with the next one', async () => {
    const { ctx, table, contextOf } = await made();
    for (const [i, id] of ids.entries()) await leave(ctx, i, id, i + 1, { writes: [revise(ctx, id, 1)] });
    const sizes: number[] = [];
    const own = contextOf(
      changed(table, {
        write: async (writes, token) => {
          await table.write(writes, token);
          if (writes.length > 1) sizes.push(writes.length);
        },
      }),
    );
    await setN(own, a, 99);
    expect(sizes.length).toBeLessThanOrEqual(2);
    expect(Math.max(...sizes)).toBeGreaterThan(80);
    expect(await waiting(ctx)).toBe(0);
    const found = (await documentsSnapshot(ctx, collection))!;
    expect(ids.map((id) => columnsOf(found, id)?.get('n'))).toEqual(
      ids.map((_, i) => (i === 0 ? 99 : i + 1)),
    );
  });

  it('lets no change of a document overtake one that has to wait for the next group', async () => {
    const { ctx } = await made();
    await leave(ctx, 1, a, 1, { writes: [revise(ctx, a, 1)] });
    await leave(ctx, 2, a, 2, { writes: [revise(ctx, a, 2)] });
    await leave(ctx, 3, a, 3);
    await setN(ctx, b, 4);
    await setN(ctx, b, 5);
    expect(await waiting(ctx)).toBe(0);
    expect(await nOf(ctx, a)).toBe(3);
  });

  it('does not refuse a change whose writer had seen a newer watermark than the leader', async () => {
    const { ctx, table, contextOf } = await made();
    const batch = { batch_id: 'btch_one', attempt: 1 };
    await table.write([openSequence(ctx, await readHead(ctx, collection), batch).write!]);
    const old = await table.get(ctx.ns.head(collection));
    const change = { collection_id: collection, additions: [], document_delta: 0, sequence: batch };
    await commitIndex(ctx, [change], { token: 'batch' });
    await leave(ctx, 1, a, 1, { committed_seq: 1 });
    let views: (Item | undefined)[] = [old];
    const late = contextOf(
      changed(table, {
        get: async (key) => {
          const [view] = views;
          if (key.sk !== 'HEAD' || view === undefined) return table.get(key);
          views = [];
          return view;
        },
      }),
    );
    await setN(late, b, 2);
    expect(views).toEqual([]);
    expect([await nOf(ctx, a), await nOf(ctx, b)]).toEqual([1, 2]);
  });

  it('clears away however many changes have waited too long, and goes on with the others', async () => {
    const { ctx, ports } = await made();
    for (let place = 1; place <= 130; place++) await leave(ctx, place, a, place);
    ports.clock.advance(32_000);
    await crowd(ctx);
    await Promise.all([setN(ctx, b, 1), setN(ctx, ids[2]!, 2)]);
    expect(await waiting(ctx)).toBe(0);
    expect([await nOf(ctx, a), await nOf(ctx, b), await nOf(ctx, ids[2]!)]).toEqual([0, 1, 2]);
  });

  it('gives up when others always are faster, and is never applied then', async () => {
    const { ctx, table, contextOf } = await made();
    const slow = contextOf(
      changed(table, {
        write: async (writes, token) => {
          // Somebody moves the head before each of its commits.
          if (writes.length > 1) await table.write([headWrite(ctx, await readHead(ctx, collection), {})]);
          await table.write(writes, token);
        },
      }),
    );
    await expect(setN(slow, a, 1)).rejects.toMatchObject({ code: 'index_contended' });
    expect(await waiting(ctx)).toBe(0);
    await setN(ctx, b, 2);
    expect([await nOf(ctx, a), await nOf(ctx, b)]).toEqual([0, 2]);
  });

  it('answers that a change is done which was committed while its writer gave up', async () => {
    const { ctx, table, contextOf } = await made();
    const slow = contextOf(
      changed(table, {
        write: async (writes, token) => {
          if (writes.length > 1) await table.write([headWrite(ctx, await readHead(ctx, collection), {})]);
          // It takes its change back: somebody else commits it just before.
          if (isDelete(writes[0])) await setN(ctx, b, 2);
          await table.write(writes, token);
        },
      }),
    );
    await setN(slow, a, 1);
    expect([await nOf(ctx, a), await nOf(ctx, b)]).toEqual([1, 2]);
  });

  it('answers that a change is done which was committed while its writer could not look', async () => {
    const { ctx, table, contextOf } = await made();
    const blind = contextOf(
      changed(table, {
        query: async () => {
          await setN(ctx, b, 2);
          throw new AppError('storage_unavailable');
        },
      }),
    );
    await setN(blind, a, 1);
    expect([await nOf(ctx, a), await nOf(ctx, b)]).toEqual([1, 2]);
  });

  it('takes no change that its writer takes back at that moment', async () => {
    const { ctx, table, contextOf } = await made();
    await leave(ctx, 1, a, 1);
    const left = ctx.ns.pendingChange(collection, '000000001');
    const own = contextOf(
      changed(table, {
        write: async (writes, token) => {
          if (writes.some((write) => isDelete(write, left))) await table.write([{ delete: left }]);
          await table.write(writes, token);
        },
      }),
    );
    await setN(own, b, 2);
    expect([await nOf(ctx, a), await nOf(ctx, b)]).toEqual([0, 2]);
  });

  it("commits the leader's change alone when the group of others cannot be written at all", async () => {
    const { ctx, table, contextOf } = await made();
    const poison: Write = { put: { ...ctx.ns.document(collection, 'poison'), text: 'too large' } };
    await leave(ctx, 1, a, 1, { writes: [poison] });
    const own = contextOf(
      changed(table, {
        write: async (writes, token) => {
          if (writes.some((write) => 'put' in write && write.put.text === 'too large'))
            throw new Error('refused');
          await table.write(writes, token);
        },
      }),
    );
    await setN(own, b, 2);
    expect([await nOf(ctx, a), await nOf(ctx, b)]).toEqual([0, 2]);
    expect(await waiting(ctx)).toBe(1);
  });

  it('fails with the reason when its own change cannot be written, and leaves nothing waiting', async () => {
    const { ctx, table, contextOf } = await made();
    const own = contextOf(
      changed(table, {
        write: async (writes, token) => {
          if (writes.length > 1) throw new Error('refused');
          await table.write(writes, token);
        },
      }),
    );
    await expect(setN(own, a, 1)).rejects.toThrow('refused');
    expect(await waiting(ctx)).toBe(0);
  });
});

describe('the row of a waiting change', () => {
  const change = (more: Partial<SmallChange>): SmallChange => ({
    token: 't',
    patches: [],
    deleted: [],
    document_delta: 0,
    writes: [],
    ...more,
  });

  it('holds nothing that it could not give back as it was', async () => {
    const { ctx } = await made();
    const key = ctx.ns.document(collection, a);
    const encode = (more: Partial<SmallChange>) => encodeChange(ctx, collection, change(more));
    expect(encode({ writes: [{ put: { ...key, n: 1, gone: undefined } }] })).toBeDefined();
    expect(encode({ writes: [{ put: { ...key, n: -0 } }] })).toBeUndefined();
    expect(encode({ writes: [{ put: { ...key, n: new Uint8Array(1) } }] })).toBeUndefined();
    expect(encode({ writes: [{ put: { ...key, n: [1, { deep: Number.NaN }] } }] })).toBeUndefined();
    expect(encode({ patches: [{ id: a, columns: new Map([['n', -0]]) }] })).toBeUndefined();
    expect(encode({ patches: [{ id: a, columns: new Map([['n', 'x'.repeat(99_000)]]) }] })).toBeDefined();
    expect(encode({ patches: [{ id: a, columns: new Map([['n', 'x'.repeat(100_000)]]) }] })).toBeUndefined();
  });

  it('holds no writes that the transaction of a group could not', async () => {
    const { ctx } = await made();
    const encode = (writes: readonly Write[]) => encodeChange(ctx, collection, change({ writes }));
    const most = writesMax - writesPerChange - writesPerCollection;
    const put = (sk: string): Write => ({ put: { pk: 'pk', sk } });
    expect(encode(Array.from({ length: most }, (_, i) => put(`${i}`)))).toBeDefined();
    expect(encode(Array.from({ length: most + 1 }, (_, i) => put(`${i}`)))).toBeUndefined();
    expect(encode([put('1'), put('1')])).toBeUndefined();
    expect(encode([{ check: ctx.ns.head(collection), if: [{ present: true }] }])).toBeUndefined();
    expect(
      encode([{ check: ctx.ns.resource('COLLECTION', collection), if: [{ present: true }] }]),
    ).toBeUndefined();
  });
});
