// Definitions that run by themselves: the sweeper finds those whose time has come, and each time makes one run.
import { describe, expect, it } from 'vitest';
import { workflowContext } from '../../../functions/core/context.ts';
import type { Job } from '../../../functions/core/events.ts';
import { startScheduled } from '../../../functions/core/resources/clusters/schedule.ts';
import { sweep } from '../../../functions/core/store/sweep.ts';
import type { App } from '../app.ts';
import { makeApp } from '../app.ts';
import { jobFor, queuedJobs, runCluster } from './run.ts';
import { axisDocuments, featureUri, seedBatch, seedCollection } from './seed.ts';

const base = '/v1/namespaces/{ns}/clusters';

async function scheduled(schedule: object, more: object = {}) {
  const app = await makeApp();
  const collection = await seedCollection(app);
  await seedBatch(app, collection, axisDocuments({ a: 4, b: 3 }));
  const made = await app.call('POST', base, {
    cluster_name: 'themes',
    collection_id: collection.id,
    feature_uri: featureUri,
    algorithm: { name: 'hdbscan', params: { min_cluster_size: 3 } },
    schedule,
    ...more,
  });
  expect(made.status, JSON.stringify(made.body)).toBe(200);
  await runCluster(app, jobFor(app, made.body.cluster_id, made.body.last_run_id));
  return { app, collection, made: made.body };
}

type ScheduleJob = Extract<Job, { kind: 'cluster_schedule' }>;

/** What the sweeper sends to the queue now, of schedules. */
async function swept(app: App): Promise<ScheduleJob[]> {
  const jobs: Job[] = [];
  await sweep({
    ...app.ports,
    jobs: { send: async (job: Job) => void jobs.push(job) },
    bus: { put: async () => {} },
    deliveries: { send: async () => {} },
  });
  return jobs.filter((job) => job.kind === 'cluster_schedule');
}

const start = (app: App, job: ScheduleJob) => startScheduled(workflowContext(app.ports, job), job);
const read = async (app: App) => (await app.call('GET', `${base}/themes`)).body;
const runIds = async (app: App): Promise<string[]> =>
  (await app.call('GET', `${base}/themes/executions`)).body.results.map(
    (run: { run_id: string }) => run.run_id,
  );
const minutes = (count: number) => count * 60_000;

describe('a schedule', () => {
  it('shows when it runs next, is found by the sweeper then and not before, and makes one run however often', async () => {
    const { app, made } = await scheduled({ interval_seconds: 600 });
    const first = Date.parse(made.created_at) + minutes(10);
    expect(made.schedule).toEqual({
      mode: 'full',
      interval_seconds: 600,
      cron: null,
      timezone: 'UTC',
      next_run_at: new Date(first).toISOString(),
      last_skipped: null,
    });
    app.ports.clock.advance(minutes(10) - 1);
    expect(await swept(app)).toEqual([]);
    app.ports.clock.advance(1);
    const [job] = await swept(app);
    expect(job).toMatchObject({ cluster_id: made.cluster_id, org_id: app.principal.orgId });
    expect(await swept(app)).toHaveLength(1);
    const run = await start(app, job!);
    expect(run).toMatchObject({ trigger: 'schedule', mode: 'full', status: 'pending' });
    expect(await start(app, job!)).toBeUndefined();
    expect(await swept(app)).toEqual([]);
    expect(queuedJobs(app, 'cluster').map((one) => one.run_id)).toContain(run!.run_id);
    expect(await runIds(app)).toEqual([run!.run_id, made.last_run_id]);
    expect((await read(app)).schedule.next_run_at).toBe(new Date(first + minutes(10)).toISOString());
    await runCluster(app, jobFor(app, made.cluster_id, run!.run_id));
    expect(await read(app)).toMatchObject({ status: 'COMPLETED', last_run_id: run!.run_id });
  });

  it('two deliveries of the job at once make one run', async () => {
    const { app } = await scheduled({ interval_seconds: 600 });
    app.ports.clock.advance(minutes(10));
    const [job] = await swept(app);
    const runs = await Promise.all([start(app, job!), start(app, job!), start(app, job!)]);
    expect(runs.filter((run) => run !== undefined)).toHaveLength(1);
    expect(await runIds(app)).toHaveLength(2);
  });

  it('times that were missed are made up for by one run, and the count goes on from where it was', async () => {
    const { app, made } = await scheduled({ interval_seconds: 600 });
    const first = Date.parse(made.created_at) + minutes(10);
    app.ports.clock.advance(minutes(47));
    const [job] = await swept(app);
    expect(await start(app, job!)).toBeDefined();
    expect((await read(app)).schedule.next_run_at).toBe(new Date(first + minutes(40)).toISOString());
    expect(await swept(app)).toEqual([]);
  });

  it('while a run goes on no other is made, and that is said', async () => {
    const { app, made } = await scheduled({ interval_seconds: 600 });
    app.ports.clock.advance(minutes(10));
    const [job] = await swept(app);
    const slow = await start(app, job!);
    app.ports.clock.advance(minutes(10));
    const [next] = await swept(app);
    expect(await start(app, next!)).toBeUndefined();
    expect((await read(app)).schedule).toMatchObject({
      last_skipped: expect.stringContaining(`${slow!.run_id} was still going on`),
    });
    expect(await runIds(app)).toHaveLength(2);
    await runCluster(app, jobFor(app, made.cluster_id, slow!.run_id));
    app.ports.clock.advance(minutes(10));
    const [third] = await swept(app);
    expect(await start(app, third!)).toBeDefined();
    expect((await read(app)).schedule.last_skipped).toBeNull();
  });

  it('by pattern runs at the times of the pattern, in UTC', async () => {
    const { app, made } = await scheduled({ cron: '30 3 * * *' });
    const next = new Date(made.schedule.next_run_at);
    expect([next.getUTCHours(), next.getUTCMinutes(), next.getUTCSeconds()]).toEqual([3, 30, 0]);
    app.ports.clock.advance(next.getTime() - app.ports.clock.now());
    const [job] = await swept(app);
    expect(await start(app, job!)).toBeDefined();
    expect(Date.parse((await read(app)).schedule.next_run_at)).toBe(next.getTime() + 24 * minutes(60));
  });

  it('that assigns does so, and the new documents are told', async () => {
    const { app, collection, made } = await scheduled({ interval_seconds: 600, mode: 'assign' });
    await seedBatch(app, collection, [{ id: 'doc_new', fields: { text: 'new' }, vector: [0, 1, 0, 0] }]);
    app.ports.clock.advance(minutes(10));
    const [job] = await swept(app);
    const run = await start(app, job!);
    expect(run).toMatchObject({ mode: 'assign', base_run_id: made.last_run_id, assignment_threshold: 0.5 });
    await runCluster(app, jobFor(app, made.cluster_id, run!.run_id));
    const document = await app.call(
      'GET',
      `/v1/namespaces/{ns}/collections/${collection.id}/documents/doc_new`,
    );
    expect(document.body.cluster_id).toBe('cl_1');
  });

  it('null pauses it, a new one begins anew, and a change of something else leaves it as it is', async () => {
    const { app, made } = await scheduled({ interval_seconds: 600 });
    app.ports.clock.advance(minutes(1));
    const renamed = await app.call('PATCH', `${base}/themes`, { description: 'x' });
    expect(renamed.body.schedule.next_run_at).toBe(made.schedule.next_run_at);
    app.ports.clock.advance(minutes(10));
    const [job] = await swept(app);
    expect((await app.call('PATCH', `${base}/themes`, { schedule: null })).body.schedule).toBeNull();
    // The job was sent before, and comes after.
    expect(await start(app, job!)).toBeUndefined();
    expect(await swept(app)).toEqual([]);
    const resumed = await app.call('PATCH', `${base}/themes`, { schedule: { interval_seconds: 3600 } });
    expect(Date.parse(resumed.body.schedule.next_run_at)).toBe(app.ports.clock.now() + minutes(60));
  });

  it('goes with its definition', async () => {
    const { app } = await scheduled({ interval_seconds: 600 });
    app.ports.clock.advance(minutes(10));
    const [job] = await swept(app);
    expect((await app.call('DELETE', `${base}/themes`)).status).toBe(200);
    expect(await start(app, job!)).toBeUndefined();
    expect(await swept(app)).toEqual([]);
    expect(app.ports.table.dump().filter((item) => item.pk.includes('#CLUSTER#'))).toEqual([]);
  });

  it.each([
    [{}, 'body.schedule.interval_seconds'],
    [{ interval_seconds: 299 }, 'body.schedule.interval_seconds'],
    [{ interval_seconds: 600, cron: '0 3 * * *' }, 'body.schedule.cron'],
    [{ cron: '* * * * *' }, 'body.schedule.cron'],
    [{ cron: '0 3 * *' }, 'body.schedule.cron'],
    [{ cron: '0 25 * * *' }, 'body.schedule.cron'],
    [{ cron: '0 3 * * *', timezone: 'Europe/Berlin' }, 'body.schedule.timezone'],
    [{ interval_seconds: 600, mode: 'enrich' }, 'body.schedule.mode'],
  ])('%j is refused', async (schedule, location) => {
    const app = await makeApp();
    const collection = await seedCollection(app);
    const refused = await app.call('POST', base, {
      collection_id: collection.id,
      feature_uri: featureUri,
      algorithm: { name: 'hdbscan' },
      schedule,
    });
    expect(refused.status).toBe(422);
    const { validation_errors: faults } = refused.body.error.details;
    expect(faults.map((fault: { location: string[] }) => fault.location.join('.'))).toEqual([location]);
    // In our own words, not in those of the library that reads patterns.
    expect(refused.body.error.message).not.toContain('CronPattern');
  });
});
