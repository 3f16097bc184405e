// What plugins say in batches: kept once for each chunk that counts, listed by batch and by plugin, without secrets.
import { afterEach, describe, expect, it } from 'vitest';
import { setCrashHook } from '../../../functions/core/crash.ts';
import { batchKeys } from '../../../functions/core/resources/batches/files.ts';
import {
  admitBatch,
  commitBatch,
  finishBatch,
  planBatch,
  runChunk,
} from '../../../functions/core/resources/batches/workflow.ts';
import { createSecret } from '../../../functions/core/resources/secrets/service.ts';
import type { World } from '../../unit/batches/world.ts';
import { jobFor, makeWorld, pointersOf, runBatch } from '../../unit/batches/world.ts';
import { makeApp } from '../app.ts';
import { expectError, expectSameRefusal } from '../expect.ts';

const ns = '/v1/namespaces/{ns}';
const batches = `${ns}/buckets/articles/batches`;

class Killed extends Error {}

afterEach(() => setCrashHook(undefined));

async function triggered(world: World): Promise<string> {
  return (await world.call('POST', `${batches}/trigger`)).body.batch_id;
}

async function ran(world: World): Promise<string> {
  const id = await triggered(world);
  await runBatch(world.ctx, await jobFor(world.ctx, world.bucketId, id));
  return id;
}

const logRows = (world: World) => world.ports.table.dump().filter(({ sk }) => sk.startsWith('LOG#'));

/** Every byte that is stored anywhere, but for the rows of secrets. */
async function everythingStored(world: World): Promise<string> {
  const rows = world.ports.table.dump().filter(({ sk }) => !sk.startsWith('SECRET#'));
  const texts = [JSON.stringify(rows), JSON.stringify(world.ports.logged)];
  for (const store of [world.ports.blobs, world.ports.index]) {
    let cursor: string | undefined;
    do {
      const page = await store.list('', cursor);
      for (const { key } of page.blobs) texts.push(key, Buffer.from(await store.get(key)).toString('latin1'));
      cursor = page.next;
    } while (cursor !== undefined);
  }
  return texts.join('\n');
}

describe('the logs of a batch', () => {
  it('have for each chunk and plugin what was printed, found and measured, and which rows failed where', async () => {
    const world = await makeWorld();
    await world.addPlugin('second');
    const one = await world.addCollection('one');
    const two = await world.addCollection('two', ['second']);
    const ids = await world.addObjects(Array.from({ length: 20 }, (_, i) => `text ${i}`));
    world.runner.say = (event) => ({
      logs: `hello from ${event.plugin.plugin_id}\n`,
      warnings: ['RuntimeWarning: divide by zero (3 times)'],
      timings: { load_ms: 12, run_ms: 3.5 },
    });
    world.runner.behave = (row, event) =>
      row.data === 'text 5' && event.plugin.plugin_id === 'second_1_0_0'
        ? { fail: 'plugin_row_failed', traceback: '  File "pipeline.py", line 7, in embed\n    1 / 0' }
        : {};
    const id = await ran(world);
    const reply = await world.call('GET', `${batches}/${id}/logs`);
    expect(reply.status).toBe(200);
    // Chunks are in the order of the collections' ids.
    const [ofOne, ofTwo] = one.id < two.id ? [0, 1] : [1, 0];
    const entry = (collection: string, plugin: string, chunk: number) => ({
      batch_id: id,
      attempt: 1,
      collection_id: collection,
      chunk,
      feature_extractor_id: plugin,
      plugin_id: plugin,
      rows: 20,
      failed: 0,
      logs: `hello from ${plugin}\n`,
      warnings: ['RuntimeWarning: divide by zero (3 times)'],
      failures: [],
      timings: { load_ms: 12, run_ms: 3.5 },
    });
    const failure = {
      object_id: ids[5],
      property: 'text',
      code: 'plugin_row_failed',
      message: 'row 5 was refused',
      traceback: '  File "pipeline.py", line 7, in embed\n    1 / 0',
    };
    const wanted = [
      entry(one.id, 'embedder_1_0_0', ofOne!),
      { ...entry(two.id, 'second_1_0_0', ofTwo!), failed: 1, failures: [failure] },
    ];
    expect(reply.body.results).toMatchObject(wanted.toSorted((a, b) => a.chunk - b.chunk));
    const failures = await world.call('GET', `${batches}/${id}/failures`);
    expect(failures.body.results).toMatchObject([{ object_id: ids[5], traceback: failure.traceback }]);

    const chunks = async (query: string) =>
      (await world.call('GET', `${batches}/${id}/logs?${query}`)).body.results.map(
        (one: { chunk: number }) => one.chunk,
      );
    expect(await chunks('failed_only=true')).toEqual([ofTwo]);
    expect(await chunks(`object_id=${ids[5]}`)).toEqual([0, 1]);
    expect(await chunks(`object_id=${ids[5]}&failed_only=true`)).toEqual([ofTwo]);
    expect(await chunks('object_id=obj_none')).toEqual([]);
    const first = await world.call('GET', `${batches}/${id}/logs?limit=1`);
    expect(first.body).toMatchObject({ total_count: 2, results: [{ chunk: 0 }] });
    expect(await chunks(`limit=1&cursor=${first.body.pagination.next_cursor}`)).toEqual([1]);
  });

  it('show an object only its own failures', async () => {
    const world = await makeWorld();
    await world.addCollection('one', ['embedder'], { max_failure_share: 1 });
    const ids = await world.addObjects(Array.from({ length: 30 }, (_, i) => `text ${i}`));
    world.runner.behave = () => ({ fail: 'plugin_row_failed' });
    const id = await ran(world);
    const of = async (query: string) =>
      (await world.call('GET', `${batches}/${id}/logs?${query}`)).body.results[0].failures.map(
        (one: { object_id: string }) => one.object_id,
      );
    expect(await of('')).toEqual(ids.slice(0, 20));
    expect(await of(`object_id=${ids[25]}`)).toEqual([ids[25]]);
  });

  it('are there when the batch failed, with those of each attempt, and when it was cancelled', async () => {
    const world = await makeWorld();
    const { ctx } = world;
    await world.addCollection('one');
    await world.addObjects(['good', 'bad']);
    let attempt = 1;
    world.runner.say = () => ({ logs: `attempt ${attempt}` });
    world.runner.behave = (row) => (row.data === 'bad' ? { fail: 'plugin_row_failed' } : {});
    const failed = await ran(world);
    attempt = 2;
    await world.call('POST', `${batches}/${failed}/retry`);
    await runBatch(ctx, await jobFor(ctx, world.bucketId, failed));
    const of = async (id: string) =>
      (await world.call('GET', `${batches}/${id}/logs`)).body.results.map(
        (one: { attempt: number; logs: string; rows: number }) => [one.attempt, one.logs, one.rows],
      );
    // The good row of the first attempt was carried over, so nothing was said about it again.
    expect(await of(failed)).toEqual([
      [2, 'attempt 2', 1],
      [1, 'attempt 1', 2],
    ]);

    world.runner.say = () => ({ logs: 'before the end' });
    const canceled = await triggered(world);
    const job = await jobFor(ctx, world.bucketId, canceled);
    await admitBatch(ctx, job);
    const plan = await planBatch(ctx, job);
    for (const pointer of await pointersOf(ctx, plan.chunks_key)) await runChunk(ctx, pointer);
    await world.call('POST', `${batches}/${canceled}/cancel`);
    expect(await of(canceled)).toEqual([[1, 'before the end', 2]]);
  });

  it('name calls that were tried again, and hold what the last one said', async () => {
    const world = await makeWorld();
    await world.addCollection('one');
    await world.addObjects(['a']);
    let calls = 0;
    world.runner.say = () => ({ logs: 'at last' });
    world.runner.answer = () => {
      calls += 1;
      if (calls > 1) return undefined;
      return { error: { code: 'plugin_process_died', message: 'signal 9', retryable: true }, logs: 'lost' };
    };
    const id = await ran(world);
    const [entry] = (await world.call('GET', `${batches}/${id}/logs`)).body.results;
    expect(entry).toMatchObject({
      logs: 'at last',
      warnings: ['call 1 was tried again: plugin_process_died: signal 9'],
    });
  });

  it('hold what a call that failed whole said, with its traceback at each row', async () => {
    const world = await makeWorld();
    await world.addCollection('one');
    await world.addObjects(['a', 'b']);
    world.runner.answer = () => ({
      error: { code: 'plugin_load_failed', message: 'SyntaxError', retryable: false, traceback: 'line 1' },
      logs: 'importing',
    });
    const id = await ran(world);
    const [entry] = (await world.call('GET', `${batches}/${id}/logs`)).body.results;
    expect(entry).toMatchObject({ logs: 'importing', rows: 2, failed: 2 });
    expect(entry.failures).toMatchObject([
      { code: 'plugin_load_failed', traceback: 'line 1' },
      { code: 'plugin_load_failed', traceback: 'line 1' },
    ]);
  });

  it('take nothing from a runner that has another form or is too long', async () => {
    const world = await makeWorld();
    await world.addCollection('one');
    await world.addObjects(['a']);
    world.runner.say = () => ({
      logs: 'x'.repeat(1_000_000),
      warnings: [{ a: 1 }, 7, '\ud800', 'w'.repeat(5_000), ...Array.from({ length: 300 }, (_, i) => `${i}`)],
      timings: { run_ms: 'soon', 'DROP TABLE': 1, load_ms: Number.POSITIVE_INFINITY, fine_ms: 1 },
    });
    const id = await ran(world);
    const [entry] = (await world.call('GET', `${batches}/${id}/logs`)).body.results;
    expect(Buffer.byteLength(entry.logs)).toBe(64 * 1024 - 1);
    expect(entry.warnings).toHaveLength(100);
    expect(entry.warnings[0]).toBe('\ufffd');
    expect(Buffer.byteLength(entry.warnings[1])).toBeLessThanOrEqual(1_000);
    expect(entry.timings).toEqual({ fine_ms: 1 });
    world.runner.say = () => ({ logs: { text: 'x' }, warnings: 'no', timings: null });
    await world.addObjects(['b']);
    const other = await ran(world);
    expect((await world.call('GET', `${batches}/${other}/logs`)).body.results[0]).toMatchObject({
      logs: '',
      warnings: [],
      timings: {},
    });
  });

  it('come in pages that end before an answer grows too large, and go on behind it', async () => {
    const world = await makeWorld();
    const ids: string[] = [];
    // Control characters take six bytes each in JSON.
    world.runner.say = () => ({ logs: '\u0001'.repeat(60_000) });
    for (let i = 0; i < 15; i++) ids.push((await world.addCollection(`c${i}`)).id);
    await world.addObjects(['a']);
    const id = await ran(world);
    const seen: string[] = [];
    const sizes: number[] = [];
    let cursor: string | null = null;
    do {
      const path = `${batches}/${id}/logs?limit=100${cursor === null ? '' : `&cursor=${cursor}`}`;
      const reply = await world.call('GET', path);
      expect(Buffer.byteLength(JSON.stringify(reply.body))).toBeLessThan(4_500_000);
      expect(reply.body.total_count).toBe(15);
      seen.push(...reply.body.results.map((one: { collection_id: string }) => one.collection_id));
      sizes.push(reply.body.results.length);
      cursor = reply.body.pagination.next_cursor;
    } while (cursor !== null);
    expect(sizes).toEqual([11, 4]);
    expect(seen).toEqual(ids.toSorted());
  });

  it('say so when their files have expired', async () => {
    const world = await makeWorld();
    await world.addCollection('one');
    await world.addObjects(['a']);
    const id = await ran(world);
    const { blobs } = await world.ports.blobs.list(`batches/${world.namespace}/${id}/`);
    for (const { key } of blobs) await world.ports.blobs.delete(key);
    const reply = await world.call('GET', `${batches}/${id}/logs`);
    expect(reply.body).toMatchObject({ results: [{ logs: '', rows: 1 }] });
    expect(reply.body.warnings[0]).toContain('expired');
  });

  it('lie where the files of batches lie, so that they go with them', async () => {
    const { ctx } = await makeWorld();
    expect(batchKeys.result(ctx, 'b', 1, 0, 'run', 'log-0')).toMatch(/^batches\//);
  });
});

describe('a chunk', () => {
  for (const point of [
    'batch.chunk.after_run',
    'batch.chunk.after_results',
    'batch.chunk.after_receipt',
    'batch.chunk.between_rows',
    'batch.chunk.after_rows',
  ]) {
    it(`whose worker dies at ${point} has one log, that of the worker whose results count`, async () => {
      const world = await makeWorld();
      const { ctx } = world;
      await world.addCollection('one');
      await world.addObjects(['a', 'b']);
      let call = 0;
      world.runner.say = () => ({ logs: `call ${++call}` });
      const id = await triggered(world);
      const job = await jobFor(ctx, world.bucketId, id);
      await admitBatch(ctx, job);
      const plan = await planBatch(ctx, job);
      const [pointer] = await pointersOf(ctx, plan.chunks_key);
      let fired = false;
      setCrashHook((name) => {
        if (name !== point || fired) return;
        fired = true;
        throw new Killed(point);
      });
      await expect(runChunk(ctx, pointer!)).rejects.toThrow(Killed);
      await runChunk(ctx, pointer!);
      await commitBatch(ctx, job);
      await finishBatch(ctx, job);
      expect(fired).toBe(true);
      expect(logRows(world)).toHaveLength(1);
      const counted = point === 'batch.chunk.after_run' || point === 'batch.chunk.after_results' ? 2 : 1;
      for (const path of [`${batches}/${id}/logs`, `${ns}/plugins/embedder_1_0_0/logs`]) {
        const { results } = (await world.call('GET', path)).body;
        expect(results.map((one: { logs: string }) => one.logs)).toEqual([`call ${counted}`]);
      }
    });
  }

  it('that two workers run at once has one log', async () => {
    const world = await makeWorld();
    const { ctx } = world;
    await world.addCollection('one');
    await world.addObjects(['a']);
    const id = await triggered(world);
    const job = await jobFor(ctx, world.bucketId, id);
    await admitBatch(ctx, job);
    const plan = await planBatch(ctx, job);
    const [pointer] = await pointersOf(ctx, plan.chunks_key);
    await Promise.all([1, 2, 3].map(() => runChunk(ctx, pointer!)));
    expect(logRows(world)).toHaveLength(1);
  });
});

describe('the logs of a plugin', () => {
  it('are those of all batches, the newest first, for seven days', async () => {
    const world = await makeWorld();
    await world.addCollection('one');
    const path = `${ns}/plugins/embedder_1_0_0/logs`;
    const made: string[] = [];
    for (const text of ['a', 'b', 'c']) {
      await world.addObjects([text]);
      world.runner.behave = () => (text === 'b' ? { fail: 'plugin_row_failed' } : {});
      made.unshift(await ran(world));
      world.ports.clock.advance(60_000);
    }
    const of = async (query = '') =>
      (await world.call('GET', `${path}${query}`)).body.results.map(
        (one: { batch_id: string }) => one.batch_id,
      );
    expect(await of()).toEqual(made);
    const [newest] = (await world.call('GET', path)).body.results;
    const ofBatch = (await world.call('GET', `${batches}/${made[0]}/logs`)).body.results;
    expect(ofBatch).toEqual([newest]);
    expect(await of('?failed_only=true')).toEqual([made[1]]);
    expect(await of('?limit=2')).toEqual(made.slice(0, 2));
    world.ports.clock.advance(7 * 86_400_000 - 119_000);
    expect(await of()).toEqual(made.slice(0, 1));
    world.ports.clock.advance(86_400_000);
    expect(await of()).toEqual([]);
  });

  it('and those of batches are found by nobody else, and not of what is not there', async () => {
    const world = await makeWorld();
    await world.addCollection('one');
    await world.addObjects(['a']);
    const id = await ran(world);
    const other = await makeApp();
    expectError(await world.call('GET', `${ns}/plugins/none_embed_1_0_0/logs`), 'plugin_not_found');
    expectError(await world.call('GET', `${batches}/btch_00000000000000000000/logs`), 'batch_not_found');
    expectError(await world.call('GET', `${batches}/${id}/logs?failed_only=perhaps`), 'request_invalid');
    expectSameRefusal(
      await other.call('GET', `${ns}/plugins/embedder_1_0_0/logs`),
      'embedder_1_0_0',
      await other.call('GET', `${ns}/plugins/none_embed_1_0_0/logs`),
      'none_embed_1_0_0',
    );
    expectError(
      await other.call('GET', `${ns}/buckets/${world.bucketId}/batches/${id}/logs`),
      'bucket_not_found',
    );
  });
});

describe('the secrets of a plugin', () => {
  it('reach its calls, and nothing that is stored or logged of a batch, be it good, failed or refused', async () => {
    const world = await makeWorld();
    const value = 'a-very-secret-value-of-the-test';
    await world.addPlugin('keyed', undefined, { secrets: ['API_KEY'] });
    await world.addCollection('one', ['keyed']);
    await world.addObjects(Array.from({ length: 12 }, (_, i) => `text ${i}`));
    // Without the secret each row fails with the name of what is missing.
    const lacking = await ran(world);
    const failures = await world.call('GET', `${batches}/${lacking}/failures`);
    expect(failures.body.results[0]).toMatchObject({ code: 'plugin_secret_missing', retryable: false });
    await createSecret(world.ctx, 'API_KEY', value);
    world.runner.calls.length = 0;
    let turn = 0;
    world.runner.answer = () => {
      turn += 1;
      if (turn > 1) return undefined;
      throw Object.assign(new Error('the connection broke'), { name: 'plugin_unavailable' });
    };
    const id = await triggered(world);
    const job = await jobFor(world.ctx, world.bucketId, id);
    await admitBatch(world.ctx, job);
    const plan = await planBatch(world.ctx, job);
    const [pointer] = await pointersOf(world.ctx, plan.chunks_key);
    await runChunk(world.ctx, pointer!).catch(() => undefined);
    await runChunk(world.ctx, pointer!);
    world.runner.behave = () => ({ fail: 'plugin_row_failed' });
    await commitBatch(world.ctx, job);
    await finishBatch(world.ctx, job);
    expect(world.runner.calls.map((call) => (call as unknown as { secrets: unknown }).secrets)).toEqual([
      { API_KEY: value },
      { API_KEY: value },
    ]);
    expect(await everythingStored(world)).not.toContain(value);
  });
});
