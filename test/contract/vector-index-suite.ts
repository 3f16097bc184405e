// What the index of a collection promises, whatever table and buckets it stands on.
import { afterEach, describe, expect, it } from 'vitest';
import { parseCondition } from '../../functions/core/conditions/index.ts';
import type { NsCtx } from '../../functions/core/context.ts';
import { setCrashHook } from '../../functions/core/crash.ts';
import { compactIndex } from '../../functions/core/store/compact-index.ts';
import { ConditionFailed } from '../../functions/core/store/table.ts';
import type { IndexChange } from '../../functions/core/store/vector-index.ts';
import {
  abortSequence,
  collectGarbage,
  commitIndex,
  deleteRows,
  documentsUri,
  headWrite,
  isCommitted,
  openIndex,
  openSequence,
  patchColumns,
  putSegment,
  readHead,
  SequenceLost,
  snapshot,
} from '../../functions/core/store/vector-index.ts';
import { flattenColumns } from '../../functions/core/vectors/columns.ts';
import { compactionRules } from '../../functions/core/vectors/compaction-plan.ts';
import { listRows } from '../../functions/core/vectors/list-rows.ts';
import { columnsOf, vectorOf } from '../../functions/core/vectors/snapshot.ts';

const uri = 'mixpeek://plugin@1.0.0/embedding';

/** The same as another process sees it, which has nothing of the index in memory. */
function cold(ctx: NsCtx): NsCtx {
  const index = new Proxy(ctx.ports.index, {
    get: (target, name) => {
      const value = Reflect.get(target, name, target) as unknown;
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
  return { ...ctx, ports: { ...ctx.ports, index } };
}

/**
 * @param makeContext a fresh namespace each time; no collection rows need to be there
 * @param options.compacts a worker may compact an index while it is being written
 */
export function vectorIndexSuite(
  name: string,
  makeContext: () => Promise<NsCtx>,
  options: { readonly compacts?: boolean } = {},
): void {
  /** A collection that exists, so that commits may go to it. */
  const collectionIn = async (ctx: NsCtx, id = 'col_one') => {
    await ctx.ports.table.write([{ put: { ...ctx.ns.resource('COLLECTION', id), id } }]);
    return id;
  };

  const documentsChange = async (
    ctx: NsCtx,
    collectionId: string,
    rows: Readonly<Record<string, unknown>>,
  ): Promise<IndexChange> => {
    const entries = Object.entries(rows).map(([id, fields]) => ({ id, columns: flattenColumns(fields) }));
    const data = { kind: 'data' as const, rows: entries, tombs: [] };
    return {
      collection_id: collectionId,
      document_delta: entries.length,
      additions: [
        {
          uri,
          dims: 2,
          metric: 'cosine',
          segment: await putSegment(ctx, collectionId, {
            ...data,
            dims: 2,
            metric: 'cosine',
            rows: entries.map((row, i) => ({ ...row, vector: [1, i] })),
          }),
        },
        {
          uri: documentsUri,
          dims: 0,
          metric: null,
          segment: await putSegment(ctx, collectionId, { ...data, dims: 0, metric: null }),
        },
      ],
    };
  };

  const idsIn = async (ctx: NsCtx, collectionId: string, filter?: unknown) => {
    const found = (await snapshot(ctx, collectionId, documentsUri)).snapshot;
    const parsed = filter === undefined ? undefined : parseCondition(filter);
    if (parsed && !parsed.ok) throw new Error('a wrong filter in a test');
    return found
      ? listRows(found, { limit: 10_000, idOrder: 'asc', ...(parsed ? { filter: parsed.condition } : {}) })
      : [];
  };

  describe(`the index over ${name}`, () => {
    afterEach(() => setCrashHook(undefined));

    it('is empty, with version 0, before anything was committed', async () => {
      const ctx = await makeContext();
      const view = await openIndex(ctx, 'col_none');
      expect(view.head).toMatchObject({
        version: 0,
        revision: 0,
        document_count: 0,
        next_seq: 1,
        open: null,
      });
      expect(await view.snapshot(uri)).toBeUndefined();
    });

    it('shows a commit to whoever reads after its answer, and not before', async () => {
      const ctx = await makeContext();
      const id = await collectionIn(ctx);
      const change = await documentsChange(ctx, id, { doc_a: { topic: 'x' }, doc_b: { topic: 'y' } });
      expect(await idsIn(ctx, id)).toEqual([]);
      const done = await commitIndex(ctx, [change], { token: 't1' });
      expect(done).toEqual({ repeated: false, versions: [1] });
      expect(await idsIn(ctx, id)).toEqual(['doc_a', 'doc_b']);
      expect(await idsIn(ctx, id, { field: 'topic', operator: 'eq', value: 'y' })).toEqual(['doc_b']);
      const vectors = (await snapshot(ctx, id, uri)).snapshot!;
      expect([...(await vectorOf(vectors, 'doc_b'))!]).toEqual([1, 1]);
      expect((await readHead(ctx, id)).document_count).toBe(2);
    });

    it('applies a token once, however often it is sent', async () => {
      const ctx = await makeContext();
      const id = await collectionIn(ctx);
      const change = await documentsChange(ctx, id, { doc_a: {} });
      await commitIndex(ctx, [change], { token: 'same' });
      expect(await commitIndex(ctx, [change], { token: 'same' })).toEqual({ repeated: true, versions: [1] });
      const head = await readHead(ctx, id);
      expect(head.version).toBe(1);
      expect(head.document_count).toBe(1);
    });

    it('loses none of many commits at once, and grows by one version for each', async () => {
      const ctx = await makeContext();
      const id = await collectionIn(ctx);
      const writers = 8;
      const each = 5;
      await Promise.all(
        Array.from({ length: writers }, async (_, w) => {
          for (let i = 0; i < each; i++) {
            const change = await documentsChange(ctx, id, { [`doc_${w}_${i}`]: { w } });
            await commitIndex(ctx, [change], { token: `${w}-${i}` });
          }
        }),
      );
      const head = await readHead(ctx, id);
      // On a deployed stack its own worker may have compacted meanwhile, which is a version too.
      if (options.compacts) expect(head.version).toBeGreaterThanOrEqual(writers * each);
      else expect(head.version).toBe(writers * each);
      expect(head.document_count).toBe(writers * each);
      expect(await idsIn(ctx, id)).toHaveLength(writers * each);
    });

    it('commits several collections together or not at all', async () => {
      const ctx = await makeContext();
      const one = await collectionIn(ctx, 'col_one');
      const changes = [
        await documentsChange(ctx, one, { doc_a: {} }),
        await documentsChange(ctx, 'col_gone', { doc_b: {} }),
      ];
      await expect(commitIndex(ctx, changes, { token: 't' })).rejects.toMatchObject({
        code: 'collection_not_found',
      });
      expect((await readHead(ctx, one)).version).toBe(0);
      await collectionIn(ctx, 'col_gone');
      await commitIndex(ctx, changes, { token: 't' });
      expect([await idsIn(ctx, one), await idsIn(ctx, 'col_gone')]).toEqual([['doc_a'], ['doc_b']]);
    });

    it("writes the caller's rows in the same transaction, and nothing when one of their conditions fails", async () => {
      const ctx = await makeContext();
      const id = await collectionIn(ctx);
      const key = ctx.ns.document(id, 'doc_a');
      const change = await documentsChange(ctx, id, { doc_a: {} });
      const refused = commitIndex(ctx, [change], {
        token: 't',
        writes: [{ put: { ...key, n: 1 }, if: [{ present: true }] }],
      });
      await expect(refused).rejects.toBeInstanceOf(ConditionFailed);
      expect((await readHead(ctx, id)).version).toBe(0);
      await commitIndex(ctx, [change], {
        token: 't',
        writes: [{ put: { ...key, n: 1 }, if: [{ absent: true }] }],
      });
      expect((await ctx.ports.table.get(key))?.n).toBe(1);
      expect(await idsIn(ctx, id)).toEqual(['doc_a']);
    });

    it('puts one feature in the place of another together with the row of its collection, or does neither', async () => {
      const ctx = await makeContext();
      const id = await collectionIn(ctx);
      await commitIndex(ctx, [await documentsChange(ctx, id, { a: { n: 1 }, b: { n: 2 } })], {
        token: 'old',
      });
      const next = 'mixpeek://plugin@2.0.0/embedding';
      const row = ctx.ns.resource('COLLECTION', id);
      const cutOver = async (token: string, expected: number) => {
        const segment = await putSegment(ctx, id, {
          kind: 'data',
          dims: 3,
          metric: 'dot',
          rows: [{ id: 'a', vector: [1, 2, 3], columns: flattenColumns({ n: 1 }) }],
        });
        const additions = [{ uri: next, dims: 3, metric: 'dot' as const, segment }];
        return commitIndex(ctx, [{ collection_id: id, additions, document_delta: 0, drop: [uri] }], {
          token,
          writes: [
            {
              update: row,
              set: { feature: next, revision: expected + 1 },
              if: [
                expected === 0
                  ? { attribute: 'revision', missing: true }
                  : { attribute: 'revision', eq: expected },
              ],
            },
          ],
        });
      };
      await expect(cutOver('late', 7)).rejects.toBeInstanceOf(ConditionFailed);
      expect(Object.keys((await openIndex(cold(ctx), id)).manifest.features)).toContain(uri);
      expect(await cutOver('new', 0)).toEqual({ repeated: false, versions: [2] });
      const view = await openIndex(cold(ctx), id);
      expect(Object.keys(view.manifest.features).toSorted()).toEqual([documentsUri, next].toSorted());
      expect(view.manifest.dropped).toEqual({ [uri]: 1 });
      expect(await ctx.ports.table.get(row)).toMatchObject({ feature: next, revision: 1 });
      expect(await idsIn(cold(ctx), id)).toEqual(['a', 'b']);
      const before = await openIndex(cold(ctx), id, { version: 1 });
      expect((await before.snapshot(uri))?.liveCount).toBe(2);
      const retired = new Set(view.manifest.retired.map(({ key }) => key));
      for (const { key } of before.manifest.features[uri]!.segments) expect(retired).toContain(key);
      // A repetition changes nothing, although the condition on the row would fail by now.
      expect(await cutOver('new', 0)).toEqual({ repeated: true, versions: [2] });
      await ctx.ports.table.write([{ delete: row }]);
      await expect(cutOver('gone', 1)).rejects.toBeInstanceOf(ConditionFailed);
      expect((await openIndex(cold(ctx), id)).head.version).toBe(2);
    });

    it('lets a batch commit only while its sequence is open, and makes exactly that sequence visible', async () => {
      const ctx = await makeContext();
      const id = await collectionIn(ctx);
      const dead = { batch_id: 'btch_dead', attempt: 1 };
      const next = { batch_id: 'btch_next', attempt: 1 };
      const first = openSequence(ctx, await readHead(ctx, id), dead);
      await ctx.ports.table.write([first.write!]);
      expect(openSequence(ctx, await readHead(ctx, id), dead)).toEqual({ seq: 1 });
      const second = openSequence(ctx, await readHead(ctx, id), next);
      await ctx.ports.table.write([second.write!]);
      expect([first.seq, second.seq]).toEqual([1, 2]);
      const change = await documentsChange(ctx, id, { doc_a: {} });
      await expect(
        commitIndex(ctx, [{ ...change, sequence: dead }], { token: 'dead' }),
      ).rejects.toBeInstanceOf(SequenceLost);
      await commitIndex(ctx, [{ ...change, sequence: next }], { token: 'next' });
      const head = await readHead(ctx, id);
      expect(head.open).toBeNull();
      expect([1, 2, 3].map((seq) => isCommitted(head, seq))).toEqual([false, true, false]);
      expect(abortSequence(ctx, head, next)).toBeUndefined();
      expect((await commitIndex(ctx, [{ ...change, sequence: next }], { token: 'next' })).repeated).toBe(
        true,
      );
    });

    it('refuses a head write when anything about the head changed since it was read', async () => {
      const ctx = await makeContext();
      const id = await collectionIn(ctx);
      const before = await readHead(ctx, id);
      await ctx.ports.table.write([headWrite(ctx, before, { next_seq: 5 })]);
      await expect(ctx.ports.table.write([headWrite(ctx, before, { next_seq: 9 })])).rejects.toBeInstanceOf(
        ConditionFailed,
      );
      expect((await readHead(ctx, id)).next_seq).toBe(5);
    });

    it('shows patched columns to a filter after the answer, in every feature, and keeps the vectors', async () => {
      const ctx = await makeContext();
      const id = await collectionIn(ctx);
      await commitIndex(
        ctx,
        [await documentsChange(ctx, id, { doc_a: { topic: 'x', n: 1 }, doc_b: { topic: 'x' } })],
        { token: 't' },
      );
      await patchColumns(
        ctx,
        id,
        [
          {
            id: 'doc_a',
            columns: new Map<string, string | undefined>([
              ['topic', 'z'],
              ['n', undefined],
            ]),
          },
        ],
        { token: 'p' },
      );
      expect(await idsIn(ctx, id, { field: 'topic', operator: 'eq', value: 'z' })).toEqual(['doc_a']);
      expect(await idsIn(ctx, id, { field: 'n', operator: 'exists', value: true })).toEqual([]);
      const vectors = (await snapshot(ctx, id, uri)).snapshot!;
      expect(columnsOf(vectors, 'doc_a')).toEqual(new Map([['topic', 'z']]));
      expect([...(await vectorOf(vectors, 'doc_a'))!]).toEqual([1, 0]);
    });

    it('finds a deleted document nowhere after the answer, until a later commit writes it again', async () => {
      const ctx = await makeContext();
      const id = await collectionIn(ctx);
      await commitIndex(ctx, [await documentsChange(ctx, id, { doc_a: {}, doc_b: {} })], { token: 't' });
      await deleteRows(ctx, id, ['doc_a'], -1, { token: 'd' });
      expect(await idsIn(ctx, id)).toEqual(['doc_b']);
      expect(await vectorOf((await snapshot(ctx, id, uri)).snapshot!, 'doc_a')).toBeUndefined();
      expect((await readHead(ctx, id)).document_count).toBe(1);
      await commitIndex(ctx, [await documentsChange(ctx, id, { doc_a: {} })], { token: 'again' });
      expect(await idsIn(ctx, id)).toEqual(['doc_a', 'doc_b']);
    });

    it('keeps few segments however many small changes come, and answers the same', async () => {
      const ctx = await makeContext();
      const id = await collectionIn(ctx);
      await commitIndex(
        ctx,
        [await documentsChange(ctx, id, { doc_a: { n: 0 }, doc_b: { n: 0 }, doc_c: { n: 0 } })],
        { token: 't' },
      );
      for (let i = 1; i <= 150; i++) {
        const columns = new Map<string, number | undefined>([
          ['n', i],
          ['odd', i % 2 ? 1 : undefined],
          [`last_${i % 3}`, i],
        ]);
        await patchColumns(ctx, id, [{ id: i % 5 ? 'doc_a' : 'doc_b', columns }], { token: `p${i}` });
      }
      await deleteRows(ctx, id, ['doc_c'], -1, { token: 'd' });
      for (let i = 151; i <= 200; i++)
        await patchColumns(ctx, id, [{ id: 'doc_b', columns: new Map([['n', i]]) }], { token: `p${i}` });
      const view = await openIndex(ctx, id);
      for (const feature of Object.values(view.manifest.features))
        expect(feature.segments.length).toBeLessThan(40);
      const found = (await view.snapshot(documentsUri))!;
      expect(columnsOf(found, 'doc_a')).toEqual(
        new Map([
          ['n', 149],
          ['odd', 1],
          ['last_0', 147],
          ['last_1', 148],
          ['last_2', 149],
        ]),
      );
      expect(columnsOf(found, 'doc_b')).toEqual(
        new Map([
          ['n', 200],
          ['last_0', 150],
          ['last_1', 145],
          ['last_2', 140],
        ]),
      );
      expect(columnsOf(found, 'doc_c')).toBeUndefined();
      // A commit of new rows starts afresh: what was patched before belongs to the rows before.
      await commitIndex(ctx, [await documentsChange(ctx, id, { doc_a: { n: 'new' }, doc_c: {} })], {
        token: 'again',
      });
      for (let i = 0; i < 80; i++)
        await patchColumns(ctx, id, [{ id: 'doc_c', columns: new Map([['n', i]]) }], { token: `q${i}` });
      const after = (await openIndex(ctx, id)).snapshot(documentsUri);
      expect(columnsOf((await after)!, 'doc_a')).toEqual(new Map([['n', 'new']]));
      expect(columnsOf((await after)!, 'doc_b')?.get('n')).toBe(200);
      expect(columnsOf((await after)!, 'doc_c')).toEqual(new Map([['n', 79]]));
    });

    it('answers a whole run from one version, whatever is committed meanwhile', async () => {
      const ctx = await makeContext();
      const id = await collectionIn(ctx);
      await commitIndex(ctx, [await documentsChange(ctx, id, { doc_a: {} })], { token: 't' });
      const view = await openIndex(ctx, id);
      await deleteRows(ctx, id, ['doc_a'], -1, { token: 'd' });
      expect((await view.snapshot(documentsUri))!.liveCount).toBe(1);
      expect((await view.snapshot(uri))!.liveCount).toBe(1);
    });

    it('leaves only objects that nothing names when a writer dies before the head moves', async () => {
      const ctx = await makeContext();
      const id = await collectionIn(ctx);
      const change = await documentsChange(ctx, id, { doc_a: {} });
      setCrashHook((point) => {
        if (point === 'index.commit.after_manifest') throw new Error('killed');
      });
      await expect(commitIndex(ctx, [change], { token: 't' })).rejects.toThrow('killed');
      setCrashHook(undefined);
      expect(await idsIn(ctx, id)).toEqual([]);
      expect((await commitIndex(ctx, [change], { token: 't' })).repeated).toBe(false);
      expect(await idsIn(ctx, id)).toEqual(['doc_a']);
    });

    it('knows a commit whose answer was lost', async () => {
      const ctx = await makeContext();
      const id = await collectionIn(ctx);
      const change = await documentsChange(ctx, id, { doc_a: {} });
      setCrashHook((point) => {
        if (point === 'index.commit.after_head') throw new Error('lost');
      });
      await expect(commitIndex(ctx, [change], { token: 't' })).rejects.toThrow('lost');
      setCrashHook(undefined);
      expect((await commitIndex(ctx, [change], { token: 't' })).repeated).toBe(true);
      expect((await readHead(ctx, id)).version).toBe(1);
    });

    it('answers from fewer segments what it answered before, after a compaction, and counts the same', async () => {
      const ctx = await makeContext();
      const id = await collectionIn(ctx);
      const names = Array.from({ length: 40 }, (_, i) => `doc_${String(i).padStart(2, '0')}`);
      const many = Object.fromEntries(names.map((name, i) => [name, { n: i }]));
      await commitIndex(ctx, [await documentsChange(ctx, id, many)], { token: 'many' });
      for (let i = 0; i < 6; i++) {
        await commitIndex(ctx, [await documentsChange(ctx, id, { [`doc_x${i}`]: { n: 'x' } })], {
          token: `x${i}`,
        });
      }
      await deleteRows(ctx, id, ['doc_03', 'doc_x2'], -2, { token: 'd' });
      await patchColumns(ctx, id, [{ id: 'doc_07', columns: new Map([['n', 'patched']]) }], { token: 'p' });
      const look = async (version?: number) => {
        const view = await openIndex(ctx, id, { version });
        const vectors = (await view.snapshot(uri))!;
        const documents = (await view.snapshot(documentsUri))!;
        const ids = listRows(documents, { limit: 1_000 });
        return {
          ids,
          count: vectors.liveCount,
          columns: ids.map((name) => columnsOf(documents, name)),
          vectors: await Promise.all(ids.map((name) => vectorOf(vectors, name))),
        };
      };
      const before = await look();
      const { version, document_count } = await readHead(ctx, id);
      // The first segment counts as full, so it stays and gets a list of its dead rows; the others become one.
      const { segments } = (await openIndex(ctx, id)).manifest.features[documentsUri]!;
      const rules = {
        ...compactionRules,
        looseSegmentsMax: 4,
        looseSegmentsKept: 1,
        segmentBytesTarget: 2 * segments[0]!.bytes - 1,
      };
      const { compactions } = await compactIndex(ctx, id, { rules });
      expect(compactions.map(({ listed, rewritten, written }) => ({ listed, rewritten, written }))).toEqual([
        { listed: 1, rewritten: 6, written: 1 },
        { listed: 1, rewritten: 6, written: 1 },
      ]);
      const after = (await openIndex(ctx, id)).manifest.features;
      // What was written, the patch of a row that stays, and the segment that stays.
      for (const feature of [uri, documentsUri]) {
        expect(after[feature]!.segments.map(({ kind }) => kind)).toEqual(['data', 'columns', 'data']);
        expect(after[feature]!.segments[2]!.dead?.rows).toBe(1);
      }
      expect(await look()).toEqual(before);
      expect(await readHead(ctx, id)).toMatchObject({ version: version + 2, document_count });
      expect(await look(version)).toEqual(before);
      expect(await collectGarbage(ctx, id)).toBe(0);
      expect(await compactIndex(ctx, id, { rules })).toEqual({ compactions: [], doneVersion: version + 2 });
    });

    it('shows versions before the current one as they were, and says which there are when one is gone', async () => {
      const ctx = await makeContext();
      const id = await collectionIn(ctx);
      await commitIndex(ctx, [await documentsChange(ctx, id, { doc_a: { n: 1 } })], { token: 't1' });
      await commitIndex(ctx, [await documentsChange(ctx, id, { doc_b: { n: 2 } })], { token: 't2' });
      await patchColumns(ctx, id, [{ id: 'doc_a', columns: new Map([['n', 5]]) }], { token: 't3' });
      await deleteRows(ctx, id, ['doc_a'], -1, { token: 't4' });
      const at = async (version?: number) => {
        const documents = (await (await openIndex(ctx, id, { version })).snapshot(documentsUri))!;
        return listRows(documents, { limit: 10, idOrder: 'asc' }).map((name) => [
          name,
          columnsOf(documents, name)!.get('n'),
        ]);
      };
      expect(await at(1)).toEqual([['doc_a', 1]]);
      expect(await at(2)).toEqual([
        ['doc_a', 1],
        ['doc_b', 2],
      ]);
      expect(await at(3)).toEqual([
        ['doc_a', 5],
        ['doc_b', 2],
      ]);
      expect(await at(4)).toEqual([['doc_b', 2]]);
      expect(await at()).toEqual([['doc_b', 2]]);
      for (const version of [0, 5]) {
        await expect(openIndex(ctx, id, { version })).rejects.toMatchObject({
          code: 'index_version_gone',
          detail: expect.stringContaining('versions 1 to 4 can be read'),
        });
      }
      await expect(openIndex(ctx, 'col_none', { version: 3 })).rejects.toMatchObject({
        code: 'index_version_gone',
      });
    });

    it('says that it cannot be read when a dead-row list is gone or damaged', async () => {
      const ctx = await makeContext();
      const id = await collectionIn(ctx);
      await commitIndex(ctx, [await documentsChange(ctx, id, { doc_a: {}, doc_b: {} })], { token: 't' });
      await deleteRows(ctx, id, ['doc_a'], -1, { token: 'd' });
      const rules = { ...compactionRules, looseSegmentsMax: 0, deadShareMax: 1, segmentBytesTarget: 1 };
      await compactIndex(ctx, id, { rules });
      const { dead } = (await openIndex(ctx, id)).manifest.features[uri]!.segments[0]!;
      const whole = await ctx.ports.index.get(dead!.key);
      const damaged = Uint8Array.from(whole);
      damaged[16]! ^= 2;
      await ctx.ports.index.put(dead!.key, damaged);
      await expect(snapshot(cold(ctx), id, uri)).rejects.toMatchObject({ code: 'index_corrupt' });
      await ctx.ports.index.delete(dead!.key);
      await expect(snapshot(cold(ctx), id, uri)).rejects.toMatchObject({ code: 'index_unavailable' });
      await ctx.ports.index.put(dead!.key, whole);
      expect((await snapshot(cold(ctx), id, uri)).snapshot!.liveCount).toBe(1);
    });

    it('says that it cannot be read, rather than showing less, when a segment is gone or damaged', async () => {
      const ctx = await makeContext();
      const id = await collectionIn(ctx);
      const change = await documentsChange(ctx, id, { doc_a: {}, doc_b: {} });
      await commitIndex(ctx, [change], { token: 't' });
      const { key } = change.additions[0]!.segment;
      const whole = await ctx.ports.index.get(key);
      const damaged = Uint8Array.from(whole);
      damaged[damaged.length - 200]! ^= 1;
      await ctx.ports.index.put(key, damaged);
      await expect(snapshot(ctx, id, uri)).rejects.toMatchObject({ code: 'index_corrupt' });
      await ctx.ports.index.delete(key);
      await expect(snapshot(ctx, id, uri)).rejects.toMatchObject({ code: 'index_unavailable' });
      await ctx.ports.index.put(key, whole);
      expect((await snapshot(ctx, id, uri)).snapshot!.liveCount).toBe(2);
    });
  });
}
