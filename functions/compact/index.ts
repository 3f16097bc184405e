// Consumes the queue of the indexes, one job at a time: compaction, garbage collection and what else takes minutes.
import { BatchProcessor, EventType, processPartialResponse } from '@aws-lambda-powertools/batch';
import middy from '@middy/core';
import type { Context, SQSEvent, SQSRecord } from 'aws-lambda';
import { makeBackends } from '../core/aws/backends.ts';
import { DynamoTable } from '../core/aws/dynamo.ts';
import { S3Blobs } from '../core/aws/s3.ts';
import { systemClock, systemRandom } from '../core/clock.ts';
import { workflowContext } from '../core/context.ts';
import { readEnvironment } from '../core/env.ts';
import type { IndexJob } from '../core/events.ts';
import { makeLog } from '../core/log.ts';
import type { Ports } from '../core/ports.ts';
import { tasks } from './tasks.ts';

const env = readEnvironment('compact');
// The worker has no right on archives, functions or secrets.
const ports = {
  table: new DynamoTable(env.TABLE_NAME),
  blobs: new S3Blobs(env.BLOB_BUCKET),
  index: new S3Blobs(env.INDEX_BUCKET),
  backends: makeBackends(env.VECTOR_BACKENDS),
  settings: { stage: env.STAGE },
  clock: systemClock,
  random: systemRandom,
  log: makeLog('compact'),
} as unknown as Ports;
const processor = new BatchProcessor(EventType.SQS);

async function work(record: SQSRecord, context: Context | undefined): Promise<void> {
  const job = JSON.parse(record.body) as IndexJob;
  const untilMs = ports.clock.now() + (context?.getRemainingTimeInMillis() ?? 0);
  await tasks[job.task](workflowContext(ports, job), job, untilMs);
}

export const handler = middy((event: SQSEvent, context: Context) =>
  processPartialResponse(event, (record: SQSRecord, lambda?: Context) => work(record, lambda), processor, {
    context,
    throwOnFullBatchFailure: false,
  }),
);
