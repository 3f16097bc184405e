// The vector index of a namespace: chosen at create, shown, and moved to another backend by a task.
import { afterEach, describe, expect, it } from 'vitest';
import { LanceBackend } from '../../../functions/core/aws/lance.ts';
import { sync } from '../../../functions/core/backends/index-tasks.ts';
import { readVectorIndex, vectorIndexOf } from '../../../functions/core/backends/of-namespace.ts';
import { workflowContext } from '../../../functions/core/context.ts';
import { setCrashHook } from '../../../functions/core/crash.ts';
import type { IndexJob } from '../../../functions/core/events.ts';
import { migrationJob } from '../../../functions/core/resources/namespaces/migrate.ts';
import {
  type NamespaceJob,
  removeNamespace,
  runMigration,
} from '../../../functions/core/resources/namespaces/workflow.ts';
import { queryAll } from '../../../functions/core/store/table.ts';
import { commitIndex, openIndex, putSegment } from '../../../functions/core/store/vector-index.ts';
import { type LanceUnderTest, startLance } from '../../fixtures/lance-fake.ts';
import type { App } from '../app.ts';
import { makeApp, makeTestPorts } from '../app.ts';
import { expectError, faults } from '../expect.ts';

const uri = 'mixpeek://plugin@1.0.0/embedding';
const collection = 'col_0123456789abcdefghij';
const minute = 60_000;
const stopped: LanceUnderTest[] = [];

afterEach(() => {
  setCrashHook(undefined);
  for (const lance of stopped.splice(0)) lance.stop();
});

async function appWithLance(): Promise<App & { readonly lance: LanceUnderTest }> {
  const lance = startLance('fake');
  stopped.push(lance);
  const app = await makeApp({
    ports: makeTestPorts({ backends: { lancedb: new LanceBackend(lance.caller) } }),
  });
  return { ...app, lance };
}

/** A collection with rows, as batches leave it. */
async function fill(app: App, rows: Readonly<Record<string, number[]>>, token = 't1'): Promise<void> {
  const { ctx } = app;
  await ctx.ports.table.writeMany([
    { put: { ...ctx.ns.resource('COLLECTION', collection), id: collection } },
  ]);
  const segment = await putSegment(ctx, collection, {
    kind: 'data',
    dims: 2,
    metric: 'cosine',
    rows: Object.entries(rows).map(([id, vector]) => ({ id, vector, columns: new Map() })),
  });
  const additions = [{ uri, dims: 2, metric: 'cosine' as const, segment }];
  await commitIndex(ctx, [{ collection_id: collection, additions, document_delta: 2 }], { token });
}

/** The jobs that the sweeper would send now. */
async function dueJobs(app: App): Promise<IndexJob[]> {
  const jobs: IndexJob[] = [];
  const until = new Date(app.ports.clock.now()).toISOString();
  for (let shard = 0; shard < 16; shard++) {
    for (const row of await app.ports.table.due(`DUE#${shard}`, until, 100)) {
      const job = row.watch_job === undefined ? undefined : (JSON.parse(String(row.watch_job)) as IndexJob);
      if (job?.kind === 'index') jobs.push(job);
    }
  }
  return jobs;
}

const far = (app: App) => app.ports.clock.now() + 15 * minute;

/** What the queue and the worker do with a move until nothing is due. */
async function work(app: App, minutes = 30): Promise<void> {
  for (let i = 0; i < minutes; i++) {
    for (const job of await dueJobs(app)) {
      const ctx = workflowContext(app.ports, job);
      if (job.task === 'migrate') await runMigration(ctx, job, far(app));
      if (job.task === 'sync') await sync(ctx, job, far(app));
    }
    app.ports.clock.advance(minute);
  }
}

/** The job that the request put into the outbox. */
async function firstJob(app: App): Promise<IndexJob> {
  for (let shard = 0; shard < 16; shard++) {
    for await (const row of queryAll(app.ports.table, `OUTBOX#${shard}`)) {
      const message = JSON.parse(String(row.message)) as { to: string; job?: IndexJob };
      if (message.job?.kind === 'index') return message.job;
    }
  }
  throw new Error('no job was sent');
}

describe('200', () => {
  it('create keeps the choice and shows it; without one vectors are scanned and kept as they are', async () => {
    const app = await appWithLance();
    const plain = await app.call('POST', '/v1/namespaces', { name: 'plain' });
    expect(plain.body.vector_index).toEqual({ backend: 'segments', storage: 'float32' });
    const chosen = await app.call('POST', '/v1/namespaces', {
      name: 'chosen',
      vector_index: { backend: 'lancedb', storage: 'bfloat16' },
    });
    expect(chosen.body.vector_index).toEqual({ backend: 'lancedb', storage: 'bfloat16' });
    const read = await app.call('GET', '/v1/namespaces/chosen');
    expect(read.body.vector_index).toEqual({ backend: 'lancedb', storage: 'bfloat16' });
    const half = await app.call('POST', '/v1/namespaces', {
      name: 'half',
      vector_index: { storage: 'bfloat16' },
    });
    expect(half.body.vector_index).toEqual({ backend: 'segments', storage: 'bfloat16' });
    const ctx = { ...app.ctx, ns: app.ctx.org.in(chosen.body.namespace_id) };
    expect(await vectorIndexOf(ctx)).toMatchObject({
      backend: 'lancedb',
      storage: 'bfloat16',
      migration: null,
    });
  });

  it('shows an empty index, in both forms of the path', async () => {
    const app = await appWithLance();
    const reply = await app.call('GET', '/v1/namespaces/{ns}/vector-index');
    expect(reply.body).toEqual({
      namespace_id: app.namespace,
      backend: 'segments',
      storage: 'float32',
      state: 'ready',
      migration: null,
      enabled_backends: ['segments', 'lancedb'],
      features: [],
    });
    const client = await app.call('GET', '/v1/vector-index', undefined, { 'X-Namespace': app.namespace });
    expect(client.body).toEqual(reply.body);
  });

  it('reads the setting of a namespace once a minute', async () => {
    const app = await appWithLance();
    const { table } = app.ports;
    let reads = 0;
    const get = table.get.bind(table);
    table.get = (key) => {
      reads += 1;
      return get(key);
    };
    for (let i = 0; i < 5; i++) await vectorIndexOf(app.ctx);
    expect(reads).toBe(1);
    app.ports.clock.advance(minute + 1);
    await vectorIndexOf(app.ctx);
    expect(reads).toBe(2);
  });
});

describe('refusals', () => {
  it('names the setting of the stage that enables a backend', async () => {
    const app = await appWithLance();
    for (const send of [
      () => app.call('POST', '/v1/namespaces', { name: 'x', vector_index: { backend: 's3_vectors' } }),
      () => app.call('POST', '/v1/namespaces/{ns}/vector-index/migrate', { backend: 's3_vectors' }),
    ]) {
      const reply = await send();
      expectError(reply, 'vector_backend_not_enabled');
      expect(reply.status).toBe(403);
      expect(reply.body.error.message).toMatch(/s3Vectors: true.*infra\/stage\.ts.*segments, lancedb/);
    }
    expectError(await app.call('GET', '/v1/namespaces/x'), 'namespace_not_found');
  });

  it('takes no unknown backend, storage or member', async () => {
    const app = await appWithLance();
    for (const vector_index of [
      { backend: 'faiss' },
      { storage: 'int8' },
      { backend: 'segments', shards: 2 },
      'segments',
    ]) {
      const reply = await app.call('POST', '/v1/namespaces', { name: 'x', vector_index });
      expectError(reply, 'request_invalid');
      expect(JSON.stringify(faults(reply))).toContain('vector_index');
    }
    expectError(
      await app.call('POST', '/v1/namespaces/{ns}/vector-index/migrate', { backend: 'faiss' }),
      'request_invalid',
    );
  });

  it('moves nothing to where it is, and not twice at once', async () => {
    const app = await appWithLance();
    const path = '/v1/namespaces/{ns}/vector-index/migrate';
    expectError(await app.call('POST', path, { backend: 'segments' }), 'vector_index_unchanged');
    const moved = await app.call('POST', path, { backend: 'lancedb' });
    expect(moved.status).toBe(202);
    const again = await app.call('POST', path, { backend: 'lancedb' });
    expectError(again, 'vector_index_migrating');
    expect(again.body.error.message).toContain(moved.body.task_id);
  });
});

describe('a move', () => {
  const move = async (app: App, backend: string): Promise<string> => {
    const reply = await app.call('POST', '/v1/namespaces/{ns}/vector-index/migrate', { backend });
    expect([reply.status, reply.body.error]).toEqual([202, undefined]);
    return reply.body.task_id;
  };
  /** One turn of the move that is under way. */
  const turn = async (app: App, runId?: string): Promise<string> => {
    const id = runId ?? (await readVectorIndex(app.ctx)).migration!.run_id;
    await runMigration(app.ctx, migrationJob(app.ctx, id), far(app));
    return id;
  };
  const state = async (app: App) => (await app.call('GET', '/v1/namespaces/{ns}/vector-index')).body;
  const task = async (app: App, id: string) => (await app.call('GET', `/v1/tasks/${id}`)).body;

  it('copies every row, compares the counts, switches, and can go back, which removes the copies', async () => {
    const app = await appWithLance();
    await fill(app, { doc_a: [1, 0], doc_b: [0, 1], doc_c: [1, 1] });
    const taskId = await move(app, 'lancedb');
    expect(await task(app, taskId)).toMatchObject({
      status: 'PENDING',
      task_type: 'api_namespaces_vector_index_migrate',
    });
    expect(await state(app)).toMatchObject({
      backend: 'segments',
      state: 'migrating',
      migration: { to: 'lancedb', task_id: taskId },
    });
    const job = await firstJob(app);
    await runMigration(workflowContext(app.ports, job), job, far(app));
    expect(await task(app, taskId)).toMatchObject({ status: 'COMPLETED', error: null });
    expect(await state(app)).toMatchObject({
      backend: 'lancedb',
      state: 'ready',
      migration: null,
      features: [
        {
          collection_id: collection,
          feature_uri: uri,
          version: 1,
          stored_rows: 3,
          copies: [{ backend: 'lancedb', synced_version: 1, rows: 3, error: null }],
        },
      ],
    });
    await work(app);
    const back = await move(app, 'segments');
    await work(app);
    expect(await task(app, back)).toMatchObject({ status: 'COMPLETED' });
    expect(await state(app)).toMatchObject({ backend: 'segments', features: [{ copies: [] }] });
    expect(app.lance.calls.at(-1)).toMatchObject({ op: 'drop_all', prefix: '' });
    expect((await openIndex(app.ctx, collection)).head.copies).toEqual({});
    expect((await readVectorIndex(app.ctx)).dropping).toBeNull();
  });

  it('keeps the old copies until no environment can ask them, and makes none meanwhile', async () => {
    const app = await appWithLance();
    await fill(app, { doc_a: [1, 0], doc_b: [0, 1] });
    await move(app, 'lancedb');
    await turn(app);
    await move(app, 'segments');
    const runId = await turn(app);
    const before = app.lance.calls.length;
    // A repetition comes too early to drop anything.
    await turn(app, runId);
    expect((await readVectorIndex(app.ctx)).dropping).toBe('lancedb');
    expect(app.lance.calls.slice(before).map(({ op }) => op)).not.toContain('drop_all');
    expectError(
      await app.call('POST', '/v1/namespaces/{ns}/vector-index/migrate', { backend: 'lancedb' }),
      'vector_index_migrating',
    );
    await work(app, 5);
    expect(app.lance.calls.map(({ op }) => op)).toContain('drop_all');
    expect((await readVectorIndex(app.ctx)).dropping).toBeNull();
  });

  it.each([
    'index.sync.after_put',
    'index.sync.before_publish',
    'vector_index.migrate.after_copy',
    'vector_index.migrate.before_switch',
    'vector_index.migrate.after_switch',
    'vector_index.migrate.after_drop',
  ])('ends as if nothing had happened when its worker dies at %s', async (point) => {
    const app = await appWithLance();
    await fill(app, { doc_a: [1, 0], doc_b: [0, 1], doc_c: [1, 1] });
    const taskId = await move(app, 'lancedb');
    let deaths = 0;
    setCrashHook((at) => {
      if (at !== point || deaths > 0) return;
      deaths += 1;
      throw new Error('killed');
    });
    const stubborn = async (minutes: number) => {
      for (let i = 0; i < minutes; i++) {
        await work(app, 1).catch((error: Error) => expect(error.message).toBe('killed'));
        app.ports.clock.advance(minute);
      }
    };
    await stubborn(40);
    expect(await task(app, taskId)).toMatchObject({ status: 'COMPLETED' });
    if (point.endsWith('after_drop')) {
      const back = await move(app, 'segments');
      await stubborn(60);
      expect(await task(app, back)).toMatchObject({ status: 'COMPLETED' });
      expect(await state(app)).toMatchObject({ backend: 'segments', features: [{ copies: [] }] });
    } else {
      expect(await state(app)).toMatchObject({
        backend: 'lancedb',
        state: 'ready',
        features: [{ copies: [{ synced_version: 1, rows: 3 }] }],
      });
    }
    expect(deaths).toBe(1);
    expect((await readVectorIndex(app.ctx)).dropping).toBeNull();
  });

  it('switches nothing when the backend does not hold what was put, and says so', async () => {
    const app = await appWithLance();
    await fill(app, { doc_a: [1, 0], doc_b: [0, 1], doc_c: [1, 1] });
    const { caller } = app.lance;
    const call = caller.call.bind(caller);
    // A backend that forgets one row of each put.
    Object.assign(caller, {
      call: async (payload: { op: string; ids: string[]; seqs: number[]; dims: number; vectors: string }) => {
        if (payload.op !== 'put') return call(payload);
        const bytes = Buffer.from(payload.vectors, 'base64').subarray(payload.dims * 4);
        return call({
          ...payload,
          ids: payload.ids.slice(1),
          seqs: payload.seqs.slice(1),
          vectors: bytes.toString('base64'),
        });
      },
    });
    const taskId = await move(app, 'lancedb');
    await work(app, 40);
    const failed = await task(app, taskId);
    expect(failed.status).toBe('FAILED');
    expect(failed.error).toMatch(/holds 2 rows and should hold 3/);
    expect(await state(app)).toMatchObject({ backend: 'segments', state: 'ready', migration: null });
  });

  it('waits for a backend that is down, and goes on when it is up again', async () => {
    const app = await appWithLance();
    await fill(app, { doc_a: [1, 0], doc_b: [0, 1] });
    const { caller } = app.lance;
    const call = caller.call.bind(caller);
    let isDown = true;
    Object.assign(caller, {
      call: (payload: unknown) => (isDown ? Promise.reject(new Error('down')) : call(payload)),
    });
    const taskId = await move(app, 'lancedb');
    const job = await firstJob(app);
    await expect(runMigration(workflowContext(app.ports, job), job, far(app))).rejects.toMatchObject({
      code: 'vector_backend_unavailable',
    });
    expect(await state(app)).toMatchObject({ state: 'migrating' });
    isDown = false;
    await work(app, 10);
    expect(await task(app, taskId)).toMatchObject({ status: 'COMPLETED' });
  });

  it('takes a commit that comes while it copies: its rows are copied by the sync after it', async () => {
    const app = await appWithLance();
    await fill(app, { doc_a: [1, 0], doc_b: [0, 1] });
    await move(app, 'lancedb');
    setCrashHook((at) => {
      if (at !== 'vector_index.migrate.after_copy') return;
      setCrashHook(undefined);
      throw new Error('killed');
    });
    await work(app, 1).catch((error: Error) => expect(error.message).toBe('killed'));
    const job = await firstJob(app);
    await runMigration(workflowContext(app.ports, job), job, far(app)).catch((error: Error) =>
      expect(error.message).toBe('killed'),
    );
    await fill(app, { doc_c: [1, 1] }, 't2');
    app.ports.clock.advance(20 * minute);
    await work(app, 10);
    expect(await state(app)).toMatchObject({
      backend: 'lancedb',
      features: [{ version: 2, copies: [{ synced_version: 2, rows: 3 }] }],
    });
  });
});

describe('the removal of a namespace', () => {
  it('drops its copies', async () => {
    const app = await appWithLance();
    const made = await app.call('POST', '/v1/namespaces', {
      name: 'gone',
      vector_index: { backend: 'lancedb' },
    });
    const id = made.body.namespace_id as string;
    await app.call('DELETE', `/v1/namespaces/${id}`);
    const job: NamespaceJob = {
      kind: 'namespace_delete',
      org_id: app.principal.orgId,
      namespace_id: id,
      request_id: 'req',
    };
    await removeNamespace(workflowContext(app.ports, job), job);
    expect(app.lance.calls).toEqual([{ op: 'drop_all', folder: `${id}/lance`, prefix: '' }]);
  });
});
