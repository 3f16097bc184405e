// Runs taxonomy workflows in process as the state machine does: step by step, with everything between them as JSON.

import type { TaxonomyJob } from '../../../functions/core/resources/taxonomies/store.ts';
import type {
  BatchProgress,
  RunProgress,
  TaxonomyEvent,
} from '../../../functions/core/resources/taxonomies/workflow.ts';
import { taxonomyStep } from '../../../functions/core/resources/taxonomies/workflow.ts';
import { jobFor, jobsOf } from '../../unit/batches/world.ts';
import type { App } from '../app.ts';

const asJson = <T>(value: T): T => JSON.parse(JSON.stringify(value)) as T;

/** One call of the Lambda. */
export async function step(app: App, event: TaxonomyEvent): Promise<unknown> {
  return asJson(await taxonomyStep(app.ctx, asJson(event)));
}

/** The taxonomy jobs in the outbox, oldest first. */
export function taxonomyJobs(app: App): TaxonomyJob[] {
  return jobsOf(app).filter((job) => job.kind === 'taxonomy');
}

/** Carries out one run; an error goes to the step `fail`, as Step Functions catches it. @returns turns taken */
export async function runJob(app: App, job: TaxonomyJob): Promise<number> {
  let turns = 0;
  try {
    let progress: RunProgress;
    let cursor: RunProgress['cursor'] = null;
    do {
      progress = (await step(app, { ...job, step: 'run', cursor })) as RunProgress;
      cursor = progress.cursor;
      turns += 1;
    } while (cursor !== null);
    await step(app, { ...job, step: 'finish', progress });
  } catch (error) {
    const { name, message } = error as Error;
    await step(app, {
      ...job,
      step: 'fail',
      error: { Error: name, Cause: JSON.stringify({ errorType: name, errorMessage: message }) },
    });
  }
  return turns;
}

/** Carries out every run that was asked for and not carried out by this function before. */
export async function runAll(app: App, done = new Set<string>()): Promise<void> {
  for (const job of taxonomyJobs(app)) {
    if (done.has(job.run_id)) continue;
    done.add(job.run_id);
    await runJob(app, job);
  }
}

/** The step that follows the commit of a bucket's newest batch. */
export async function materialize(app: App & { readonly bucketId: string }): Promise<BatchProgress> {
  const listed = await app.call('GET', `/v1/namespaces/{ns}/buckets/${app.bucketId}/batches`);
  const job = await jobFor(app.ctx, app.bucketId, listed.body.results[0].batch_id);
  return (await step(app, { ...job, step: 'materialize' })) as BatchProgress;
}
