// Where a running batch is, in one word, for whoever polls it. Only shown: no step decides by it.

import type { NsCtx } from '../../context.ts';
import { workflowContext } from '../../context.ts';
import type { Ports } from '../../ports.ts';
import { ConditionFailed } from '../../store/table.ts';
import type { BatchJob, Lifecycle } from './store.ts';

/** Leaves the revision alone, so that it does not get into the way of a step's own write. */
export async function noteLifecycle(ctx: NsCtx, job: BatchJob, lifecycle: Lifecycle): Promise<void> {
  try {
    await ctx.ports.table.write([
      {
        update: ctx.ns.batch(job.bucket_id, job.batch_id),
        set: { lifecycle },
        if: [
          { attribute: 'status', eq: 'PROCESSING' },
          { attribute: 'attempt', eq: job.attempt },
        ],
      },
    ]);
  } catch (error) {
    if (!(error instanceof ConditionFailed)) throw error; // It ended meanwhile, and says so itself.
  }
}

/** The same for a step of the workflow that belongs to another noun. */
export async function noteStep(ports: Ports, job: BatchJob, lifecycle: Lifecycle): Promise<void> {
  await noteLifecycle(workflowContext(ports, job), job, lifecycle);
}
