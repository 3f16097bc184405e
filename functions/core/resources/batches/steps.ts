// The steps of the batch state machine by name: what its Lambdas are called with, and what each call does.
import type { NsCtx } from '../../context.ts';
import { workflowContext } from '../../context.ts';
import { errorTable } from '../../errors.ts';
import type { Ports } from '../../ports.ts';
import { collectGarbage } from '../../store/vector-index.ts';
import { clearAborted } from '../documents/service.ts';
import type { BatchJob, PostProcessing } from './store.ts';
import { findBatch } from './store.ts';
import type { ChunkPointer, Failure } from './workflow.ts';
import { commitBatch, failBatch, finishBatch, planBatch, runChunk } from './workflow.ts';

/** What a caught error looks like in the state: `Cause` is JSON for errors of Lambdas. */
export interface CaughtError {
  readonly Error?: string;
  readonly Cause?: string;
}

export type BatchEvent = BatchJob &
  (
    | { readonly step: 'plan'; readonly map_concurrency: number }
    | { readonly step: 'commit' }
    | ({ readonly step: 'finish' } & Outcomes)
    | { readonly step: 'fail'; readonly error?: CaughtError | null }
  );

/** What the steps after the commit left in the state. */
export interface Outcomes {
  /** Steps that failed as a whole. */
  readonly post_errors?: Readonly<Record<string, CaughtError>> | null;
  readonly cluster_runs?:
    | readonly {
        readonly cluster_id: string;
        readonly run_id: string;
        readonly succeeded: boolean;
        readonly error?: string;
      }[]
    | null;
  /** Answers of the steps; each may list what failed inside it. */
  readonly taxonomies?: StepAnswer | null;
  readonly clusters?: StepAnswer | null;
  readonly alerts?: StepAnswer | null;
}

interface StepAnswer {
  readonly failures?: readonly { readonly id?: string; readonly error?: string; readonly message?: string }[];
}

export interface ChunkEvent {
  readonly job: BatchJob;
  readonly item: ChunkPointer;
}

/** How a Lambda that ran out of time shows: ended by its middleware, or by the service. */
const outOfTime: ReadonlySet<string> = new Set(['TimeoutError', 'Sandbox.Timedout']);

/** What of a caught error may be told: its code and sentence where both are ours or the workflow service's own. */
function tellable(error: CaughtError | null | undefined): Failure {
  const name = error?.Error ?? 'internal_error';
  if (outOfTime.has(name)) return { reason: 'States.Timeout', detail: 'A step did not end in its time.' };
  const detail = messageOf(error) || 'The step ended without a reason.';
  const known = Object.hasOwn(errorTable, name) || (name.startsWith('States.') && !detail.includes('arn:'));
  return known
    ? { reason: name, detail }
    : { reason: 'internal_error', detail: errorTable.internal_error.title };
}

/** The sentence inside a caught error; never a stack. */
function messageOf(error: CaughtError | null | undefined): string {
  const cause = error?.Cause ?? '';
  try {
    const parsed = JSON.parse(cause) as { errorMessage?: unknown };
    if (typeof parsed.errorMessage === 'string') return parsed.errorMessage;
  } catch {
    // Errors of the state machine itself have a plain sentence.
  }
  return cause.slice(0, 500);
}

/** Everything that went wrong after the commit, in the order of the steps. */
export function postProcessingOf(outcomes: Outcomes): PostProcessing[] {
  const found: PostProcessing[] = [];
  const add = (step: string, id: string | null, error: string, message: string) =>
    found.push({ step, id, status: 'failed', error, message });
  for (const step of ['taxonomies', 'clusters', 'alerts'] as const) {
    const whole = outcomes.post_errors?.[step];
    if (whole) {
      const { reason, detail } = tellable(whole);
      add(step, null, reason, detail);
    }
    for (const failure of outcomes[step]?.failures ?? []) {
      add(step, failure.id ?? null, failure.error ?? 'internal_error', failure.message ?? '');
    }
    if (step !== 'clusters') continue;
    for (const run of outcomes.cluster_runs ?? []) {
      if (!run.succeeded)
        add(step, run.cluster_id, run.error ?? 'internal_error', `the run ${run.run_id} failed`);
    }
  }
  return found;
}

/** Old sequences of failed batches that are worth a look at every row. */
const abortedMax = 20;

/** After a batch, while nobody waits: removes what earlier ones left. What cannot be removed now is there next time. */
async function tidyCollections(ctx: NsCtx, job: BatchJob): Promise<{ readonly removed: number }> {
  const batch = await findBatch(ctx, job.bucket_id, job.batch_id);
  let removed = 0;
  for (const id of batch?.collection_ids ?? []) {
    try {
      removed += await collectGarbage(ctx, id);
      await clearAborted(ctx, id, abortedMax);
    } catch (error) {
      ctx.ports.log.warn('a collection could not be tidied', { collection_id: id, error: String(error) });
    }
  }
  return { removed };
}

/** Runs one step of the batch Lambda. */
export async function batchStep(ports: Ports, event: BatchEvent): Promise<unknown> {
  const ctx = workflowContext(ports, event);
  switch (event.step) {
    case 'plan':
      return planBatch(ctx, event, { mapConcurrency: event.map_concurrency });
    case 'commit':
      return commitBatch(ctx, event);
    case 'finish':
      await finishBatch(ctx, event, postProcessingOf(event));
      return tidyCollections(ctx, event);
    case 'fail': {
      const failure = tellable(event.error);
      if (failure.reason !== event.error?.Error) {
        const { Error: error, Cause: cause } = event.error ?? {};
        ctx.ports.log.error('a batch died of an unforeseen error', {
          batch_id: event.batch_id,
          error,
          cause,
        });
      }
      return failBatch(ctx, event, failure);
    }
  }
}

/** Runs one chunk. @param untilMs when the Lambda ends, in milliseconds since the epoch */
export async function chunkStep(ports: Ports, event: ChunkEvent, untilMs: number): Promise<unknown> {
  return runChunk(workflowContext(ports, event.item), event.item, { untilMs });
}
