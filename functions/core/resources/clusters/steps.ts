// The steps of the cluster Lambda by name: what the state machines call it with, and what each call does.
import { workflowContext } from '../../context.ts';
import type { Job } from '../../events.ts';
import type { LabelModel } from '../../labels/label-model.ts';
import type { Ports } from '../../ports.ts';
import type { ClusterJob } from './store.ts';
import type { CaughtError, Labels } from './workflow.ts';
import { commitRun, failRun, followRuns, labelRun, prepareRun } from './workflow.ts';

type BatchJob = Extract<Job, { kind: 'batch' }>;

export type ClusterEvent =
  | (ClusterJob & { readonly step: 'prepare' | 'label' })
  | (ClusterJob & {
      readonly step: 'commit';
      readonly labels?: Labels | null;
      readonly label_error?: CaughtError | null;
    })
  | (ClusterJob & { readonly step: 'fail'; readonly error?: CaughtError | null })
  | (BatchJob & { readonly step: 'follow' });

/** Runs one step. @param model names clusters; undefined: the stage has none */
export async function clusterStep(
  ports: Ports,
  event: ClusterEvent,
  model: LabelModel | undefined,
): Promise<unknown> {
  const ctx = workflowContext(ports, event);
  switch (event.step) {
    case 'prepare':
      return prepareRun(ctx, event);
    case 'label':
      return labelRun(ctx, event, model);
    case 'commit':
      return commitRun(ctx, event, event.labels ?? null, (event.label_error ?? null) !== null);
    case 'fail':
      return failRun(ctx, event, event.error);
    case 'follow':
      return followRuns(ctx, event);
  }
}
