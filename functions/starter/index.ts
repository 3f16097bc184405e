// Consumes the jobs queue and starts workflows, each under the name of its work, so that a job that comes twice runs
// once. A batch whose collection is busy goes back to the queue; work on an index goes on to the queue of its worker.
import { BatchProcessor, EventType, processPartialResponse } from '@aws-lambda-powertools/batch';
import middy from '@middy/core';
import type { Context, SQSEvent, SQSRecord } from 'aws-lambda';
import { DynamoTable } from '../core/aws/dynamo.ts';
import { sqsQueue } from '../core/aws/sqs.ts';
import { stepFunctions } from '../core/aws/states.ts';
import { systemClock, systemRandom } from '../core/clock.ts';
import { workflowContext } from '../core/context.ts';
import { readEnvironment } from '../core/env.ts';
import type { Job } from '../core/events.ts';
import { makeLog } from '../core/log.ts';
import type { Ports } from '../core/ports.ts';
import { admitBatch } from '../core/resources/batches/workflow.ts';
import { startScheduled } from '../core/resources/clusters/schedule.ts';
import { admitRun as admitClusterRun } from '../core/resources/clusters/workflow.ts';
import { admitRun as admitTaxonomyRun } from '../core/resources/taxonomies/workflow.ts';
import { claimWork, isDueTask } from '../core/store/index-work.ts';

/** How long a batch that must wait stays out of sight; short enough not to be noticed after the one before. */
const waitSeconds = 2;
/** Jobs for the same namespace within this time are one. */
const namespaceRoundMs = 600_000;

const env = readEnvironment('starter');
const jobs = sqsQueue(env.JOBS_QUEUE_URL);
const indexJobs = sqsQueue(env.INDEX_JOBS_QUEUE_URL);
const workflows = stepFunctions();
// Admission reads and writes rows only; the starter has no rights on buckets or functions.
const ports = {
  table: new DynamoTable(env.TABLE_NAME),
  clock: systemClock,
  random: systemRandom,
  log: makeLog('starter'),
} as unknown as Ports;
const processor = new BatchProcessor(EventType.SQS);

async function start(record: SQSRecord): Promise<void> {
  const job = JSON.parse(record.body) as Job;
  switch (job.kind) {
    case 'batch': {
      const admission = await admitBatch(workflowContext(ports, job), job);
      if (admission === 'start')
        await workflows.start(env.BATCH_WORKFLOW, `${job.batch_id}-${job.attempt}`, job);
      else if (admission === 'wait') await jobs.send(job, waitSeconds);
      return;
    }
    case 'cluster':
      if (await admitClusterRun(workflowContext(ports, job), job))
        await workflows.start(env.CLUSTER_WORKFLOW, job.run_id, job);
      return;
    case 'cluster_schedule':
      await startScheduled(workflowContext(ports, job), job);
      return;
    case 'taxonomy':
      if (await admitTaxonomyRun(workflowContext(ports, job), job))
        await workflows.start(env.TAXONOMY_WORKFLOW, job.run_id, job);
      return;
    case 'index':
      // The sweeper repeats what is due every minute; the worker gets it once.
      if (!isDueTask(job.task) || (await claimWork(workflowContext(ports, job), job.collection_id, job.task)))
        await indexJobs.send(job);
      return;
    case 'namespace_delete':
      // The sweeper asks a second time, an hour after the first; a name is taken for 90 days.
      return workflows.start(
        env.NAMESPACE_WORKFLOW,
        `${job.namespace_id}-${Math.floor(systemClock.now() / namespaceRoundMs)}`,
        job,
      );
  }
}

export const handler = middy((event: SQSEvent, context: Context) =>
  processPartialResponse(event, start, processor, { context, throwOnFullBatchFailure: false }),
);
