// The step of the batch workflow that evaluates alerts.
import middy from '@middy/core';
import { makePorts } from '../core/aws/ports.ts';
import { workflowContext } from '../core/context.ts';
import { readEnvironment } from '../core/env.ts';
import type { Job } from '../core/events.ts';
import { evaluateAlerts } from '../core/resources/alerts/workflow.ts';
import { noteLifecycle } from '../core/resources/batches/lifecycle.ts';
// Retrievers of alerts may classify documents.
import '../core/resources/taxonomies/enrich.ts';

const ports = makePorts('alert', readEnvironment('alert'));

type AlertEvent = Extract<Job, { kind: 'batch' }> & { readonly step: 'evaluate' };

export const handler = middy(async (event: AlertEvent) => {
  const ctx = workflowContext(ports, event);
  await noteLifecycle(ctx, event, 'alerting');
  return evaluateAlerts(ctx, event);
});
