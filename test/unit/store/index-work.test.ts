// Work on indexes that commits ask for: it is found by its row, runs once at a time, and is asked for until it is done.
import { beforeEach, describe, expect, it } from 'vitest';
import { tasks } from '../../../functions/compact/tasks.ts';
import { isoTime, virtualClock } from '../../../functions/core/clock.ts';
import type { NsCtx } from '../../../functions/core/context.ts';
import { workflowContext } from '../../../functions/core/context.ts';
import type { IndexJob, Job } from '../../../functions/core/events.ts';
import type { Ports } from '../../../functions/core/ports.ts';
import { beginWork, claimWork, endWork, wantedWork } from '../../../functions/core/store/index-work.ts';
import { MemoryBlobs, MemoryTable } from '../../../functions/core/store/memory.ts';
import { sweep } from '../../../functions/core/store/sweep.ts';
import {
  commitIndex,
  deleteRows,
  documentsUri,
  openIndex,
  putSegment,
  readHead,
} from '../../../functions/core/store/vector-index.ts';
import { emptyManifest } from '../../../functions/core/vectors/manifest.ts';

const minute = 60_000;
const hour = 60 * minute;
const id = 'col_one';
const silent = { info: () => undefined, warn: () => undefined, error: () => undefined };

function makeWorld() {
  const clock = virtualClock();
  const table = new MemoryTable();
  let drawn = 0;
  const random = {
    bytes: (count: number) => Uint8Array.from({ length: count }, () => (drawn = (drawn * 5 + 13) & 0xff)),
  };
  const ports = {
    table,
    index: new MemoryBlobs('index', clock),
    clock,
    random,
    log: silent,
  } as unknown as Ports;
  const ctx = workflowContext(ports, { org_id: 'org_one', namespace_id: 'ns_one', request_id: 'req' });
  let commits = 0;
  const write = async (name: string) => {
    commits += 1;
    const segment = await putSegment(ctx, id, { kind: 'data', dims: 0, metric: null, rows: [{ id: name }] });
    const change = { collection_id: id, document_delta: 1 };
    const additions = [{ uri: documentsUri, dims: 0, metric: null, segment }];
    await commitIndex(ctx, [{ ...change, additions }], { token: `t${commits}` });
  };
  /** What the sweeper sends now: jobs as they travel over the queue. */
  const due = async () => {
    const sent: Job[] = [];
    const nothing = { put: async () => undefined, send: async () => undefined };
    await sweep({
      table,
      clock,
      log: silent,
      bus: nothing,
      deliveries: nothing,
      jobs: { send: async (job) => void sent.push(job) },
    });
    return JSON.parse(JSON.stringify(sent)) as IndexJob[];
  };
  const run = (job: IndexJob) => tasks[job.task](workflowContext(ports, job), job, clock.now() + 15 * minute);
  const row = (task: string) => table.get(ctx.ns.indexWork(id, task));
  return { clock, table, ctx, ports, write, due, run, row };
}

let world: ReturnType<typeof makeWorld>;
let ctx: NsCtx;

beforeEach(async () => {
  world = makeWorld();
  ctx = world.ctx;
  await world.table.write([{ put: { ...ctx.ns.resource('COLLECTION', id) } }]);
});

const segmentsIn = async () => (await openIndex(ctx, id)).manifest.features[documentsUri]!.segments.length;
/** One more loose segment than are left alone. */
const crowd = async () => {
  for (let i = 0; i < 17; i++) await world.write(`doc_${i}`);
};

describe('compaction', () => {
  it('is asked for by the commit that makes it needed, done a minute later, and not asked for again', async () => {
    for (let i = 0; i < 16; i++) await world.write(`doc_${i}`);
    expect(await world.row('compact')).toBeUndefined();
    await world.write('doc_16');
    expect(await world.row('compact')).toBeDefined();
    expect(await world.due()).toEqual([]);
    world.clock.advance(minute);
    const [job, ...others] = await world.due();
    expect(others).toEqual([]);
    expect(job).toEqual({
      kind: 'index',
      task: 'compact',
      org_id: 'org_one',
      namespace_id: 'ns_one',
      collection_id: id,
      request_id: 'req',
    });
    const before = await readHead(ctx, id);
    await world.run(job!);
    expect(await segmentsIn()).toBe(1);
    expect(await readHead(ctx, id)).toMatchObject({ version: before.version + 1, document_count: 17 });
    expect(await world.row('compact')).toBeUndefined();
    expect((await (await openIndex(ctx, id)).snapshot(documentsUri))!.liveCount).toBe(17);
  });

  it('is sent on once, however often the sweeper finds it', async () => {
    await crowd();
    world.clock.advance(minute);
    expect(await world.due()).toHaveLength(1);
    const claims = await Promise.all([1, 2, 3].map(() => claimWork(ctx, id, 'compact')));
    expect(claims.filter(Boolean)).toHaveLength(1);
    world.clock.advance(10 * minute);
    expect(await world.due()).toEqual([]);
    expect(await claimWork(ctx, id, 'compact')).toBe(false);
  });

  it('runs once when its job comes twice at a time, and not at all when it comes again later', async () => {
    await crowd();
    world.clock.advance(minute);
    const [job] = await world.due();
    await Promise.all([world.run(job!), world.run(job!), world.run(job!)]);
    const { version } = await readHead(ctx, id);
    expect(version).toBe(18);
    await world.run(job!);
    expect((await readHead(ctx, id)).version).toBe(version);
  });

  it('is sent again when the worker died, after its lease', async () => {
    await crowd();
    expect(await beginWork(ctx, id, 'compact', 'dies')).toBe(true);
    world.clock.advance(15 * minute);
    expect(await world.due()).toEqual([]);
    expect(await beginWork(ctx, id, 'compact', 'other')).toBe(false);
    world.clock.advance(2 * minute);
    const [job] = await world.due();
    await world.run(job!);
    expect(await segmentsIn()).toBe(1);
    // The dead one wakes up, and has nothing to say any more.
    await crowd();
    const row = await world.row('compact');
    await endWork(ctx, id, 'compact', 'dies', { doneVersion: (await readHead(ctx, id)).version });
    expect(await world.row('compact')).toEqual(row);
  });

  it('stays asked for when a commit makes it needed while a run ends', async () => {
    await crowd();
    expect(await beginWork(ctx, id, 'compact', 'run')).toBe(true);
    const { version } = await readHead(ctx, id);
    await world.write('doc_late');
    await endWork(ctx, id, 'compact', 'run', { doneVersion: version });
    const row = await world.row('compact');
    expect(row).toMatchObject({ due_at: isoTime(world.clock.now() + minute) });
    expect(row?.run_id).toBeUndefined();
  });

  it('is asked for anew by a commit that had seen the row which was taken away meanwhile', async () => {
    await crowd();
    expect(await beginWork(ctx, id, 'compact', 'run')).toBe(true);
    const { version } = await readHead(ctx, id);
    // Between the commit's look at the row and its own write, the run ends: nothing to do, it says.
    const { table } = world;
    const write = table.write.bind(table);
    let interposed = false;
    table.write = async (...given) => {
      if (!interposed) {
        interposed = true;
        await endWork(ctx, id, 'compact', 'run', { doneVersion: version });
        expect(await world.row('compact')).toBeUndefined();
      }
      return write(...given);
    };
    await world.write('doc_late');
    expect(interposed).toBe(true);
    expect(await world.row('compact')).toBeDefined();
  });

  it('is not repeated for counts that turned out to be wrong', async () => {
    await crowd();
    expect(await beginWork(ctx, id, 'compact', 'run')).toBe(true);
    const { version } = await readHead(ctx, id);
    await endWork(ctx, id, 'compact', 'run', { doneVersion: version });
    expect(await world.row('compact')).toBeUndefined();
  });
});

describe('collection of garbage', () => {
  it('is asked for by every commit, comes when something can be deleted, and ends when nothing is left', async () => {
    await crowd();
    world.clock.advance(minute);
    await world.run((await world.due())[0]!);
    const stored = async () => (await world.ports.index.list('')).blobs.length;
    expect(await stored()).toBe(2 * 17 + 2);
    world.clock.advance(47 * hour);
    expect(await world.due()).toEqual([]);
    world.clock.advance(2 * hour);
    for (let i = 0; i < 3; i++) {
      for (const job of await world.due()) {
        expect(job.task).toBe('collect');
        await world.run(job);
      }
      world.clock.advance(49 * hour);
    }
    expect(await stored()).toBe(2);
    expect(await world.row('collect')).toBeUndefined();
    expect(await world.due()).toEqual([]);
  });

  it('comes back for what a dead worker left behind', async () => {
    await world.write('doc_a');
    await world.write('doc_b');
    world.clock.advance(30 * hour);
    await putSegment(ctx, id, { kind: 'data', dims: 0, metric: null, rows: [{ id: 'orphan' }] });
    world.clock.advance(19 * hour);
    for (const job of await world.due()) await world.run(job);
    expect((await world.ports.index.list('')).blobs).toHaveLength(4);
    world.clock.advance(30 * hour);
    for (const job of await world.due()) await world.run(job);
    expect((await world.ports.index.list('')).blobs).toHaveLength(3);
  });
});

describe('a job', () => {
  it('for a collection that was deleted does nothing', async () => {
    await crowd();
    world.clock.advance(minute);
    const jobs = await world.due();
    const rows = world.table.dump().map((item) => ({ delete: { pk: item.pk, sk: item.sk } }));
    await world.table.writeMany(rows);
    for (const job of jobs) await world.run(job);
    expect(world.table.dump()).toEqual([]);
  });
});

describe('what a manifest leaves to be done', () => {
  it('is nothing for a collection without commits', () => {
    expect(wantedWork(emptyManifest(), 0, 5)).toEqual({});
  });

  it('is compaction for too many deletions too', async () => {
    await world.write('doc_a');
    for (let i = 0; i < 17; i++) await deleteRows(ctx, id, [`doc_${i}`], 0, { token: `d${i}` });
    expect(await world.row('compact')).toBeDefined();
  });
});

describe('a commit of as many collections as a batch may have', () => {
  it('asks for the work of each, though one transaction has no room for all', async () => {
    const ids = Array.from({ length: 20 }, (_, i) => `col_${i}`);
    for (const each of ids)
      await world.table.write([{ put: { ...ctx.ns.resource('COLLECTION', each), id: each } }]);
    const writes = ids.map((each) => ({ put: { ...ctx.ns.object('bkt', each), n: 1 } }));
    const commit = async (token: string) => {
      const changes = await Promise.all(
        ids.map(async (each) => {
          const segment = await putSegment(ctx, each, {
            kind: 'data',
            dims: 0,
            metric: null,
            rows: [{ id: token }],
          });
          const additions = [{ uri: documentsUri, dims: 0, metric: null, segment }];
          return { collection_id: each, document_delta: 1, additions };
        }),
      );
      await commitIndex(ctx, changes, { token, writes });
    };
    await commit('first');
    await commit('second');
    for (const each of ids) expect(await world.table.get(ctx.ns.indexWork(each, 'collect'))).toBeDefined();
  });
});
