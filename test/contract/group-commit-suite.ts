// What small writes that meet each other promise, whatever table and buckets they stand on.
import { afterEach, describe, expect, it } from 'vitest';
import type { NsCtx } from '../../functions/core/context.ts';
import { setCrashHook } from '../../functions/core/crash.ts';
import { encodeChange, pendingRow, type SmallChange } from '../../functions/core/store/pending-change.ts';
import type { Table, Write } from '../../functions/core/store/table.ts';
import { ConditionFailed, queryAll } from '../../functions/core/store/table.ts';
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
} from '../../functions/core/store/vector-index.ts';
import { columnsOf } from '../../functions/core/vectors/snapshot.ts';

/** As many changes, each with two rows of its own, as one transaction holds with room to spare. */
const crowd = 12;

/** @param makeContext a fresh namespace each time; no collection rows need to be there */
export function groupCommitSuite(name: string, makeContext: () => Promise<NsCtx>): void {
  const collection = 'col_one';
  const ids = Array.from({ length: crowd }, (_, i) => `doc_${String(i).padStart(2, '0')}`);

  /** A collection of `ids`, each with `n = 0` in the index and a row of revision 1. */
  async function makeCollection(ctx: NsCtx): Promise<void> {
    const { table } = ctx.ports;
    await table.write([{ put: { ...ctx.ns.resource('COLLECTION', collection), id: collection } }]);
    await table.writeMany(ids.map((id) => ({ put: { ...ctx.ns.document(collection, id), revision: 1 } })));
    const rows = ids.map((id) => ({ id, columns: new Map([['n', 0]]) }));
    const segment = await putSegment(ctx, collection, { kind: 'data', dims: 0, metric: null, rows });
    const addition = { uri: documentsUri, dims: 0, metric: null, segment };
    const change = { collection_id: collection, additions: [addition], document_delta: ids.length };
    await commitIndex(ctx, [change], { token: 'first' });
  }

  const revise = (ctx: NsCtx, id: string, revision: number): Write => ({
    update: ctx.ns.document(collection, id),
    set: { revision: revision + 1 },
    if: [{ attribute: 'revision', eq: revision }],
  });

  const setN = (ctx: NsCtx, id: string, n: number, writes: readonly Write[] = [], token = `n-${id}-${n}`) =>
    patchColumns(ctx, collection, [{ id, columns: new Map([['n', n]]) }], { token, writes });

  /** The same context for several writers whose first transactions begin when all of them are ready: one can win. */
  function colliding(ctx: NsCtx, writers: number): NsCtx[] {
    let ready = 0;
    let open = () => {};
    const gate = new Promise<void>((resolve) => {
      open = resolve;
    });
    return Array.from({ length: writers }, () => {
      let isFirst = true;
      return withTable(ctx, async (table, writes, token) => {
        if (isFirst) {
          isFirst = false;
          ready += 1;
          if (ready === writers) open();
          await gate;
        }
        await table.write(writes, token);
      });
    });
  }

  /** A context whose transactions go through `write`. */
  function withTable(
    ctx: NsCtx,
    write: (table: Table, writes: readonly Write[], token?: string) => Promise<void>,
  ): NsCtx {
    const { table } = ctx.ports;
    const wrapped = Object.create(table, {
      write: { value: (writes: readonly Write[], token?: string) => write(table, writes, token) },
      get: { value: table.get.bind(table) },
      getMany: { value: table.getMany.bind(table) },
      query: { value: table.query.bind(table) },
      writeMany: { value: table.writeMany.bind(table) },
    }) as Table;
    return { ...ctx, ports: { ...ctx.ports, table: wrapped } };
  }

  /** Leaves a change waiting, as a writer that died at once would. */
  async function leave(ctx: NsCtx, place: string, change: Partial<SmallChange>, lateMs = 0): Promise<void> {
    const whole = {
      token: `left-${place}`,
      patches: [],
      deleted: [],
      document_delta: 0,
      writes: [],
      ...change,
    };
    const text = encodeChange(ctx, collection, whole)!;
    const clock = { now: () => ctx.ports.clock.now() - lateMs };
    const row = pendingRow({ ...ctx, ports: { ...ctx.ports, clock } }, collection, place, text);
    await ctx.ports.table.write([{ put: row }]);
  }

  const waiting = async (ctx: NsCtx) => {
    const { pk, prefix } = ctx.ns.pendingChanges(collection);
    const found: string[] = [];
    for await (const item of queryAll(ctx.ports.table, pk, { prefix })) found.push(item.sk);
    return found;
  };

  /** Makes the next small writes join a group at once instead of trying by themselves first. */
  const crowdIn = async (ctx: NsCtx) => {
    const head = await readHead(ctx, collection);
    await ctx.ports.table.write([headWrite(ctx, head, { grouped_at_ms: ctx.ports.clock.now() })]);
  };

  const nOf = async (ctx: NsCtx, id: string) =>
    columnsOf((await documentsSnapshot(ctx, collection))!, id)?.get('n');
  const revisionOf = async (ctx: NsCtx, id: string) =>
    (await ctx.ports.table.get(ctx.ns.document(collection, id)))?.revision;

  async function made(): Promise<NsCtx> {
    const ctx = await makeContext();
    await makeCollection(ctx);
    return ctx;
  }

  describe(`small writes in groups over ${name}`, () => {
    afterEach(() => setCrashHook(undefined));

    it('leaves no trace of groups while writers come one after the other', async () => {
      const ctx = await made();
      const sent: number[] = [];
      const alone = withTable(ctx, (table, writes, token) => {
        sent.push(writes.length);
        return table.write(writes, token);
      });
      await setN(alone, ids[0]!, 1, [revise(ctx, ids[0]!, 1)]);
      await deleteRows(alone, collection, [ids[1]!], -1, { token: 'd' });
      expect(sent).toHaveLength(2);
      const head = await readHead(ctx, collection);
      expect(head).toMatchObject({ version: 3, document_count: crowd - 1 });
      expect(head.grouped_at_ms).toBeUndefined();
    });

    it('commits what comes at once in few commits, and each change can be seen after its own answer', async () => {
      const ctx = await made();
      const writers = colliding(ctx, crowd);
      await Promise.all(
        ids.map(async (id, i) => {
          await setN(writers[i]!, id, i + 1, [revise(ctx, id, 1)]);
          expect([await nOf(ctx, id), await revisionOf(ctx, id)]).toEqual([i + 1, 2]);
        }),
      );
      const head = await readHead(ctx, collection);
      const commits = head.version - 1;
      expect(commits).toBeGreaterThan(1);
      expect(commits).toBeLessThanOrEqual(crowd / 2);
      // So that the next writers do not try by themselves first.
      expect(head.grouped_at_ms).toBe(ctx.ports.clock.now());
      expect(await waiting(ctx)).toEqual([]);
      const found = (await documentsSnapshot(ctx, collection))!;
      expect(ids.map((id) => columnsOf(found, id)?.get('n'))).toEqual(ids.map((_, i) => i + 1));
    });

    it('counts deletions of a group, and finds none of the documents any more', async () => {
      const ctx = await made();
      const writers = colliding(ctx, crowd);
      await Promise.all(
        ids.map((id, i) =>
          i % 2 === 0
            ? deleteRows(writers[i]!, collection, [id], -1, { token: `d-${id}` })
            : setN(writers[i]!, id, 7),
        ),
      );
      expect((await readHead(ctx, collection)).document_count).toBe(crowd / 2);
      const found = (await documentsSnapshot(ctx, collection))!;
      expect(ids.map((id) => columnsOf(found, id)?.get('n'))).toEqual(
        ids.map((_, i) => (i % 2 === 0 ? undefined : 7)),
      );
    });

    it('takes out a change whose own condition fails, and tells its caller alone which one', async () => {
      const ctx = await made();
      const writers = colliding(ctx, crowd);
      const wrong = new Set([2, 5]);
      const results = await Promise.allSettled(
        ids.map((id, i) => {
          const audit: Write = { put: { ...ctx.ns.document(collection, `audit_${id}`), id } };
          return setN(writers[i]!, id, i + 1, [audit, revise(ctx, id, wrong.has(i) ? 9 : 1)]);
        }),
      );
      for (const [i, result] of results.entries()) {
        expect(result.status).toBe(wrong.has(i) ? 'rejected' : 'fulfilled');
        if (result.status === 'fulfilled') continue;
        expect(result.reason).toBeInstanceOf(ConditionFailed);
        expect((result.reason as ConditionFailed).failures).toMatchObject([
          { index: 1, item: { revision: 1 } },
        ]);
      }
      for (const [i, id] of ids.entries()) {
        const audit = await ctx.ports.table.get(ctx.ns.document(collection, `audit_${id}`));
        expect([await nOf(ctx, id), audit !== undefined]).toEqual(wrong.has(i) ? [0, false] : [i + 1, true]);
      }
      expect(await waiting(ctx)).toEqual([]);
    });

    it('lets one of many changes to one row through and refuses the others', async () => {
      const ctx = await made();
      await crowdIn(ctx);
      const results = await Promise.allSettled(
        ids.map((_, i) => setN(ctx, ids[0]!, i + 1, [revise(ctx, ids[0]!, 1)])),
      );
      const through = results.flatMap(({ status }, i) => (status === 'fulfilled' ? [i + 1] : []));
      expect(through).toEqual([await nOf(ctx, ids[0]!)]);
      expect(await revisionOf(ctx, ids[0]!)).toBe(2);
      for (const result of results)
        if (result.status === 'rejected') expect(result.reason).toBeInstanceOf(ConditionFailed);
      expect(await waiting(ctx)).toEqual([]);
    });

    it('refuses a change when a batch has committed since its caller read the watermark', async () => {
      const ctx = await made();
      const batch = { batch_id: 'btch_one', attempt: 1 };
      await ctx.ports.table.write([openSequence(ctx, await readHead(ctx, collection), batch).write!]);
      const change = { collection_id: collection, additions: [], document_delta: 0, sequence: batch };
      await commitIndex(ctx, [change], { token: 'batch' });
      await crowdIn(ctx);
      const [stale, fresh] = await Promise.allSettled(
        [0, 1].map((committedSeq) =>
          patchColumns(ctx, collection, [{ id: ids[committedSeq]!, columns: new Map([['n', 5]]) }], {
            token: `t${committedSeq}`,
            committedSeq,
          }),
        ),
      );
      expect(stale).toMatchObject({ status: 'rejected', reason: { name: 'ConditionFailed', failures: [] } });
      expect(fresh?.status).toBe('fulfilled');
      expect([await nOf(ctx, ids[0]!), await nOf(ctx, ids[1]!)]).toEqual([0, 5]);
    });

    it('applies changes of one group in the order of their arrival', async () => {
      const ctx = await made();
      const id = ids[0]!;
      await leave(ctx, '000000001', {
        patches: [
          {
            id,
            columns: new Map([
              ['n', 1],
              ['m', 1],
            ]),
          },
        ],
      });
      await leave(ctx, '000000002', {
        patches: [
          {
            id,
            columns: new Map([
              ['n', 2],
              ['m', undefined],
            ]),
          },
        ],
      });
      await crowdIn(ctx);
      await setN(ctx, ids[1]!, 3);
      const found = (await documentsSnapshot(ctx, collection))!;
      expect(columnsOf(found, id)).toEqual(new Map([['n', 2]]));
      expect((await readHead(ctx, collection)).version).toBe(2);
    });

    it('neither applies nor keeps a change that has waited too long', async () => {
      const ctx = await made();
      await leave(ctx, '000000001', { patches: [{ id: ids[0]!, columns: new Map([['n', 1]]) }] }, 32_000);
      await crowdIn(ctx);
      await setN(ctx, ids[1]!, 2);
      expect([await nOf(ctx, ids[0]!), await nOf(ctx, ids[1]!)]).toEqual([0, 2]);
      expect(await waiting(ctx)).toEqual([]);
    });

    it('applies a change once whose writer died after leaving it, also when it is sent again', async () => {
      const ctx = await made();
      const id = ids[0]!;
      await crowdIn(ctx);
      setCrashHook((point) => {
        if (point === 'index.group.after_pending') throw new Error('killed');
      });
      const dead = withTable(ctx, async (table, writes, token) => {
        if ('delete' in writes[0]!) throw new Error('killed');
        await table.write(writes, token);
      });
      await expect(setN(dead, id, 1, [revise(ctx, id, 1)], 'same')).rejects.toThrow('killed');
      setCrashHook(undefined);
      expect(await waiting(ctx)).toHaveLength(1);
      await setN(ctx, ids[1]!, 2);
      expect([await nOf(ctx, id), await revisionOf(ctx, id)]).toEqual([1, 2]);
      await setN(ctx, id, 1, [revise(ctx, id, 1)], 'same');
      expect([await nOf(ctx, id), await revisionOf(ctx, id)]).toEqual([1, 2]);
      expect((await readHead(ctx, collection)).version).toBe(2);
    });

    it.each(['index.group.after_manifest', 'index.group.after_head'])(
      'applies all changes of a group once when its leader dies at %s',
      async (at) => {
        const ctx = await made();
        const { version } = await readHead(ctx, collection);
        await crowdIn(ctx);
        let isDead = false;
        const mortal = withTable(ctx, async (table, writes, token) => {
          if (isDead) throw new Error('killed');
          await table.write(writes, token);
        });
        setCrashHook((point) => {
          if (point !== at || isDead) return;
          isDead = true;
          throw new Error('killed');
        });
        await leave(ctx, '000000001', {
          token: 'left',
          patches: [{ id: ids[1]!, columns: new Map([['n', 2]]) }],
          writes: [revise(ctx, ids[1]!, 1)],
        });
        // Only the mortal one runs, so it leads; a group that it leads has both changes.
        await setN(mortal, ids[0]!, 1, [revise(ctx, ids[0]!, 1)], 'mortal').catch((error: unknown) => {
          expect(String(error)).toContain('killed');
        });
        setCrashHook(undefined);
        await setN(ctx, ids[0]!, 1, [revise(ctx, ids[0]!, 1)], 'mortal');
        await setN(ctx, ids[2]!, 3);
        expect([await nOf(ctx, ids[0]!), await nOf(ctx, ids[1]!)]).toEqual([1, 2]);
        expect([await revisionOf(ctx, ids[0]!), await revisionOf(ctx, ids[1]!)]).toEqual([2, 2]);
        expect((await readHead(ctx, collection)).version).toBeGreaterThan(version);
        expect(await waiting(ctx)).toEqual([]);
      },
    );

    it('tells every waiting writer when the collection is deleted', async () => {
      const ctx = await made();
      await crowdIn(ctx);
      await ctx.ports.table.write([{ delete: ctx.ns.resource('COLLECTION', collection) }]);
      const results = await Promise.allSettled(ids.map((id) => setN(ctx, id, 1)));
      for (const result of results)
        expect(result).toMatchObject({ status: 'rejected', reason: { code: 'collection_not_found' } });
      expect(await waiting(ctx)).toEqual([]);
    });

    it('commits changes by themselves that no row can hold', async () => {
      const ctx = await made();
      await crowdIn(ctx);
      const bytes: Write = { put: { ...ctx.ns.document(collection, 'bytes'), value: new Uint8Array([1]) } };
      await setN(ctx, ids[0]!, 1, [bytes]);
      const long = 'x'.repeat(120_000);
      const columns = new Map([['text', long]]);
      await patchColumns(ctx, collection, [{ id: ids[1]!, columns }], { token: 'long' });
      expect(await nOf(ctx, ids[0]!)).toBe(1);
      const found = (await documentsSnapshot(ctx, collection))!;
      expect(columnsOf(found, ids[1]!)?.get('text')).toBe(long);
      expect(await waiting(ctx)).toEqual([]);
    });
  });
}
