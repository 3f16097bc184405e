// Copies beside the life of a namespace: commits ask for syncs, the worker makes them, searches use them, and what is
// deleted goes.
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { LanceBackend } from '../../../functions/core/aws/lance.ts';
import { readCopies } from '../../../functions/core/backends/copy-state.ts';
import {
  askForSync,
  dropCollectionCopies,
  requestDrop,
  requestSync,
  sync,
} from '../../../functions/core/backends/index-tasks.ts';
import { inNamespace, type NsCtx } from '../../../functions/core/context.ts';
import { setCrashHook } from '../../../functions/core/crash.ts';
import type { IndexJob, IndexTask } from '../../../functions/core/events.ts';
import { RunReads } from '../../../functions/core/resources/retrievers/run-reads.ts';
import { searchFeature } from '../../../functions/core/resources/retrievers/search-feature.ts';
import { commitIndex, putSegment } from '../../../functions/core/store/vector-index.ts';
import { type LanceUnderTest, startLance } from '../../fixtures/lance-fake.ts';
import type { App } from '../../http/app.ts';
import { makeApp, makeTestPorts } from '../../http/app.ts';

const uri = 'mixpeek://plugin@1.0.0/embedding';
const collection = 'col_0123456789abcdefghij';
const minute = 60_000;

let lance: LanceUnderTest;
let app: App;
/** Inside a namespace whose candidates come from LanceDB. */
let ctx: NsCtx;
let backend: LanceBackend;
let commits = 0;

beforeEach(async () => {
  lance = startLance('fake');
  backend = new LanceBackend(lance.caller);
  app = await makeApp({ ports: makeTestPorts({ backends: { lancedb: backend } }) });
  const made = await app.call('POST', '/v1/namespaces', {
    name: 'copied',
    vector_index: { backend: 'lancedb' },
  });
  ctx = inNamespace(app.ctx, made.body.namespace_id);
  await ctx.ports.table.write([{ put: { ...ctx.ns.resource('COLLECTION', collection), id: collection } }]);
});
afterEach(() => {
  setCrashHook(undefined);
  lance.stop();
});

async function commit(rows: Readonly<Record<string, number[]>>): Promise<void> {
  commits += 1;
  const segment = await putSegment(ctx, collection, {
    kind: 'data',
    dims: 2,
    metric: 'cosine',
    rows: Object.entries(rows).map(([id, vector]) => ({ id, vector, columns: new Map() })),
  });
  const additions = [{ uri, dims: 2, metric: 'cosine' as const, segment }];
  await commitIndex(ctx, [{ collection_id: collection, additions, document_delta: 1 }], {
    token: `t${commits}`,
    writes: await requestSync(ctx, [collection]),
  });
}

const request = () => ctx.ports.table.get(ctx.ns.indexWork(collection, 'sync'));
const jobOf = (task: IndexTask): IndexJob => ({
  kind: 'index',
  task,
  org_id: ctx.principal.orgId,
  namespace_id: ctx.ns.namespaceId,
  collection_id: collection,
  request_id: 'req',
});
const run = () => sync(ctx, jobOf('sync'), ctx.ports.clock.now() + 15 * minute);

describe('a commit', () => {
  it('asks for a sync where the namespace has copies, and not where it has none', async () => {
    await commit({ doc_a: [1, 0] });
    const row = await request();
    expect(JSON.parse(String(row!.watch_job))).toMatchObject({ kind: 'index', task: 'sync' });
    expect(await requestSync(app.ctx, [collection])).toEqual([]);
    expect(await requestDrop(app.ctx, collection)).toEqual([]);
    await run();
    expect(await request()).toBeUndefined();
    expect((await readCopies(ctx, collection))[0]!.features[uri]).toMatchObject({ version: 1, rows: 1 });
  });

  it('that comes often does not put the sync off', async () => {
    await commit({ doc_a: [1, 0] });
    const due = (await request())!.due_at;
    app.ports.clock.advance(5_000);
    await commit({ doc_b: [1, 0] });
    await askForSync(ctx, collection);
    expect((await request())!.due_at).toBe(due);
  });

  it('that comes while a sync runs leaves another to be run', async () => {
    await commit({ doc_a: [1, 0] });
    let done = false;
    const commitNow: Promise<void>[] = [];
    setCrashHook((point) => {
      if (point !== 'index.sync.before_publish' || done) return;
      done = true;
      commitNow.push(commit({ doc_b: [0, 1] }));
    });
    await Promise.all([run()]);
    await Promise.all(commitNow);
    setCrashHook(undefined);
    expect(await request()).toBeDefined();
    app.ports.clock.advance(minute);
    await run();
    expect((await readCopies(ctx, collection))[0]!.features[uri]).toMatchObject({ version: 2, rows: 2 });
    expect(await request()).toBeUndefined();
  });
});

describe('the sync task', () => {
  it('fails when the backend is down, says so where it is seen, and is asked again', async () => {
    await commit({ doc_a: [1, 0] });
    const call = lance.caller.call;
    Object.assign(lance.caller, { call: () => Promise.reject(new Error('down')) });
    await expect(run()).rejects.toMatchObject({ code: 'vector_backend_unavailable' });
    const shown = await app.call('GET', `/v1/namespaces/${ctx.ns.namespaceId}/vector-index`);
    expect(JSON.stringify(shown.body)).not.toContain('down');
    expect((await readCopies(ctx, collection))[0]!.features[uri]!.error).toMatch(/LanceDB.*unavailable/);
    Object.assign(lance.caller, { call });
    // The lease of the run that failed must end, then the sweeper sends the job again.
    app.ports.clock.advance(17 * minute);
    await run();
    expect((await readCopies(ctx, collection))[0]!.features[uri]).toMatchObject({ rows: 1, error: null });
  });

  it('does nothing for a collection that was deleted meanwhile', async () => {
    await commit({ doc_a: [1, 0] });
    await ctx.ports.table.write([{ delete: ctx.ns.resource('COLLECTION', collection) }]);
    lance.calls.length = 0;
    await run();
    expect(lance.calls).toEqual([]);
  });
});

describe('a search', () => {
  const ask = (k: number) =>
    searchFeature(ctx, new RunReads(ctx), collection, uri, {
      queries: [Float32Array.of(1, 0)],
      k,
      filter: undefined,
      include: undefined,
      exclude: undefined,
      minScore: undefined,
      timeoutMs: 1_000,
    });

  it('scans a small feature, asks the backend for a large one, and says which and whether it is exact', async () => {
    await commit({ doc_a: [1, 0], doc_b: [0, 1], doc_c: [1, 1] });
    await run();
    expect(await ask(2)).toMatchObject({ backend: 'segments', exact: true });
    Object.assign(backend, { limits: { ...backend.limits, scanBytesMax: 0 } });
    const found = await ask(2);
    expect(found).toMatchObject({ backend: 'lancedb', exact: false, rowsSelected: 3, version: 1 });
    expect(found!.matches[0]!.map(({ id }) => id)).toEqual(['doc_a', 'doc_c']);
    Object.assign(lance.caller, { call: () => Promise.reject(new Error('down')) });
    expect(await ask(2)).toMatchObject({ backend: 'segments', exact: true });
  });

  it('does not ask for the setting of the namespace where the head tells of no copy', async () => {
    const { table } = app.ports;
    await commit({ doc_a: [1, 0] });
    app.ports.clock.advance(10 * minute);
    const read: string[] = [];
    const get = table.get.bind(table);
    table.get = (key) => {
      read.push(key.sk);
      return get(key);
    };
    await ask(1);
    expect(read.filter((sk) => sk.startsWith('NS#'))).toEqual([]);
  });
});

describe('the deletion of a collection', () => {
  it('asks for the removal of its copies, which waits until the collection is gone', async () => {
    await commit({ doc_a: [1, 0] });
    await run();
    expect(await requestDrop(ctx, collection)).toHaveLength(1);
    lance.calls.length = 0;
    await dropCollectionCopies(ctx, jobOf('drop_copies'), 0);
    expect(lance.calls).toEqual([]);
    await ctx.ports.table.write([{ delete: ctx.ns.resource('COLLECTION', collection) }]);
    await dropCollectionCopies(ctx, jobOf('drop_copies'), 0);
    expect(lance.calls).toMatchObject([{ op: 'drop_all', prefix: `${collection}-` }]);
    expect((await ctx.ports.index.list(`${ctx.ns.namespaceId}/copies/`)).blobs).toEqual([]);
    await dropCollectionCopies(ctx, jobOf('drop_copies'), 0);
  });
});
