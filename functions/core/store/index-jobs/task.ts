// What a task of the index worker is, and how one that commits ask for by a row is run once at a time.
import type { NsCtx } from '../../context.ts';
import type { IndexJob } from '../../events.ts';
import { randomCharacters } from '../../ids.ts';
import { beginWork, type DueTask, endWork, type WorkOutcome } from '../index-work.ts';

/**
 * Runs one job. Jobs come at least once and in any order, so a task decides by what it reads whether there is
 * something to do. What it throws is tried again, then it goes to the dead-letter queue.
 *
 * @param untilMs when the Lambda ends, in milliseconds since 1970
 */
export type IndexTaskRun = (ctx: NsCtx, job: IndexJob, untilMs: number) => Promise<void>;

/** Time between the last piece of work and the end of the Lambda: what was begun must be committed. */
const endingMs = 120_000;

/**
 * A task behind a due row. A second job for the same collection does nothing while the first one works: not for
 * correctness, which the conditional update of the head gives, but since only one of both could commit.
 *
 * @param work begins nothing new after `untilMs`
 */
export function dueTask(
  task: DueTask,
  work: (ctx: NsCtx, collectionId: string, untilMs: number) => Promise<WorkOutcome>,
): IndexTaskRun {
  return async (ctx, { collection_id }, untilMs) => {
    const runId = randomCharacters(20, ctx.ports.random);
    if (!(await beginWork(ctx, collection_id, task, runId))) return;
    // A run that throws keeps its row: the sweeper sends the job again when the lease has ended.
    const outcome = await work(ctx, collection_id, untilMs - endingMs);
    await endWork(ctx, collection_id, task, runId, outcome);
  };
}
