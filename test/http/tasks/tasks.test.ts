// Tasks: one view over batches, cluster runs and taxonomy runs, each as its own row says.
import { describe, expect, it } from 'vitest';
import { createTask } from '../../../functions/core/resources/tasks/service.ts';
import type { App } from '../app.ts';
import { makeApp } from '../app.ts';
import { expectError, faults } from '../expect.ts';

async function addRun(
  app: App,
  taskId: string,
  runId: string,
  run: Record<string, string> | undefined,
): Promise<void> {
  const { ctx } = app;
  await ctx.ports.table.write([
    createTask(ctx, {
      task_id: taskId,
      task_type: 'engine_cluster_build',
      namespace_id: app.namespace,
      target: { kind: 'cluster_run', cluster_id: 'clust_1', run_id: runId },
    }),
    ...(run ? [{ put: { ...ctx.ns.child('CLUSTER', 'clust_1', 'RUN', runId), ...run } }] : []),
  ]);
}

describe('a task', () => {
  it('has the status of its run in upper case, its error, and the ids to look the run up', async () => {
    const app = await makeApp();
    await addRun(app, 'task_1', 'run_1', {
      status: 'failed',
      error_message: 'too few rows',
      updated_at: '2026-01-02T00:00:00.000Z',
    });
    const reply = await app.call('GET', '/v1/tasks/task_1');
    expect(reply.body).toEqual({
      task_id: 'task_1',
      task_type: 'engine_cluster_build',
      status: 'FAILED',
      namespace_id: app.namespace,
      inputs: [],
      outputs: [],
      additional_data: { kind: 'cluster_run', cluster_id: 'clust_1', run_id: 'run_1' },
      error: 'too few rows',
      created_at: '2026-01-01T00:00:00.000Z',
      updated_at: '2026-01-02T00:00:00.000Z',
    });
  });

  it('is UNKNOWN when its run is gone', async () => {
    const app = await makeApp();
    await addRun(app, 'task_1', 'run_1', undefined);
    expect((await app.call('GET', '/v1/tasks/task_1')).body).toMatchObject({
      status: 'UNKNOWN',
      error: null,
    });
  });
});

describe('the list of tasks', () => {
  it('is the newest first, by status, type and filter, page by page', async () => {
    const app = await makeApp();
    for (let i = 0; i < 5; i++)
      await addRun(app, `task_${i}`, `run_${i}`, { status: i % 2 ? 'completed' : 'processing' });
    const ids = (reply: { body: { results: { task_id: string }[] } }) =>
      reply.body.results.map((task) => task.task_id);
    expect(ids(await app.call('GET', '/v1/tasks?limit=2'))).toEqual(['task_4', 'task_3']);
    expect(ids(await app.call('POST', '/v1/tasks/list', { status: 'COMPLETED' }))).toEqual([
      'task_3',
      'task_1',
    ]);
    expect(
      ids(await app.call('POST', '/v1/tasks/list', { task_type: 'engine_cluster_build', limit: 1, page: 5 })),
    ).toEqual(['task_0']);
    expect(
      ids(
        await app.call('POST', '/v1/tasks/list', {
          filters: { field: 'status', operator: 'eq', value: 'processing' },
        }),
      ),
    ).toHaveLength(3);
    expect(faults(await app.call('POST', '/v1/tasks/list', { status: 'DONE' }))).toEqual([
      'body.status: wrong_value',
    ]);
  });

  it('needs a key that may read', async () => {
    const app = await makeApp();
    expectError(await app.as(undefined).call('GET', '/v1/tasks'), 'key_invalid');
    expectError(
      await app.as({ ...app.principal, permissions: ['write'] }).call('GET', '/v1/tasks'),
      'key_not_permitted',
    );
    expectError(await app.call('GET', '/v1/tasks/task_none'), 'task_not_found');
  });
});
