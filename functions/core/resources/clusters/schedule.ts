// When a definition runs by itself, and the run that a time which has come makes. Times are UTC.
import { Cron } from 'croner';
import { isoTime } from '../../clock.ts';
import type { NsCtx } from '../../context.ts';
import { now } from '../../context.ts';
import type { FieldFault } from '../../errors.ts';
import { derivedId } from '../../ids.ts';
import { ConditionFailed } from '../../store/table.ts';
import { chooseMode, enqueueRun, newRun } from './new-run.ts';
import type { StoredRun, StoredSchedule } from './store.ts';
import {
  clusterStore,
  definitionExists,
  findRun,
  putSchedule,
  readSchedules,
  readState,
  removeSchedule,
} from './store.ts';

/** Runs of one definition begin at least so far apart. */
export const intervalSecondsMin = 300;
/** So many times of a pattern are looked at: a pattern of minutes repeats within an hour. */
const timesLookedAt = 80;
const fields = /^[0-9*,/-]+ [0-9*,/-]+ [0-9*,/-]+ [0-9A-Za-z*,/-]+ [0-9A-Za-z*,/-]+$/;

const patternOf = (cron: string) =>
  new Cron(cron.trim().replaceAll(/\s+/g, ' '), { timezone: 'UTC', mode: '5-part', paused: true });

/** What is wrong with a pattern. @param afterMs from when on its times are looked at */
export function cronFaults(cron: string, location: FieldFault['location'], afterMs: number): FieldFault[] {
  const fault = (message: string): FieldFault[] => [
    {
      type: 'cron_invalid',
      location,
      message,
      fix: 'write minute, hour, day of month, month, day of week: "0 3 * * 1"',
    },
  ];
  if (!fields.test(cron.trim().replaceAll(/\s+/g, ' ')))
    return fault(`"${cron.slice(0, 80)}" is not a pattern of five fields`);
  let times: Date[];
  try {
    times = patternOf(cron).nextRuns(timesLookedAt, new Date(afterMs));
  } catch (error) {
    const why = String((error as Error).message).replace(/^CronPattern: /, '');
    return fault(`"${cron.slice(0, 80)}" cannot be read: ${why.slice(0, 200)}`);
  }
  if (times.length === 0) return fault(`"${cron.slice(0, 80)}" names a time that never comes`);
  const near = times.some(
    (time, i) => i > 0 && time.getTime() - times[i - 1]!.getTime() < intervalSecondsMin * 1000,
  );
  return near ? fault(`runs are at least ${intervalSecondsMin} seconds apart, and these are not`) : [];
}

/**
 * The first time after `afterMs` at which a schedule is due.
 *
 * @param beforeMs its time before: an interval goes on counting from there; undefined: it begins now
 * @returns milliseconds since the epoch; undefined: never again
 */
export function nextTime(
  schedule: Pick<StoredSchedule, 'cron' | 'interval_seconds'>,
  afterMs: number,
  beforeMs?: number,
): number | undefined {
  if (schedule.cron !== null) return patternOf(schedule.cron).nextRun(new Date(afterMs))?.getTime();
  const interval = schedule.interval_seconds! * 1000;
  if (beforeMs === undefined) return afterMs + interval;
  const passed = Math.max(0, Math.floor((afterMs - beforeMs) / interval));
  return beforeMs + (passed + 1) * interval;
}

const isRunning = (run: StoredRun | undefined) => run?.status === 'pending' || run?.status === 'processing';

/**
 * Makes the run of a schedule whose time has come, and sets the next time: for the consumer of the jobs queue. However
 * often the job comes, and however many times were missed, it makes one run. While a run of the definition goes on, no
 * other is made.
 *
 * @returns the run; undefined: there is none to make
 */
export async function startScheduled(
  ctx: NsCtx,
  job: { readonly cluster_id: string },
): Promise<StoredRun | undefined> {
  const [row] = await readSchedules(ctx, [job.cluster_id]);
  const dueMs = row && Date.parse(row.next_run_at);
  if (!row || dueMs! > now(ctx)) return undefined;
  const cluster = await clusterStore.find(ctx, job.cluster_id);
  if (!cluster?.schedule) {
    await ctx.ports.table.write([removeSchedule(ctx, job.cluster_id)]);
    return undefined;
  }
  const next = nextTime(cluster.schedule, now(ctx), dueMs);
  const state = await readState(ctx, cluster.id);
  const last = state && (await findRun(ctx, cluster.id, state.last_run_id));
  const skipped = isRunning(last) ? `${row.next_run_at}: the run ${last!.run_id} was still going on` : null;
  const advance =
    next === undefined
      ? removeSchedule(ctx, cluster.id)
      : putSchedule(ctx, cluster.id, { next_run_at: isoTime(next), skipped }, row);
  try {
    if (skipped !== null) {
      await ctx.ports.table.write([advance]);
      return undefined;
    }
    const { run, writes } = newRun(ctx, cluster.id, cluster, {
      trigger: 'schedule',
      batch_id: null,
      run_id: derivedId('run', cluster.id, 'schedule', row.next_run_at),
      ...(await chooseMode(ctx, cluster, cluster.schedule.mode)),
    });
    await ctx.ports.table.write([
      definitionExists(ctx, cluster.id),
      advance,
      ...writes,
      enqueueRun(ctx, run),
    ]);
    return run;
  } catch (error) {
    // Another delivery of the job was faster, or the definition changed: the row says when to come again.
    if (error instanceof ConditionFailed) return undefined;
    throw error;
  }
}
