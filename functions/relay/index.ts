// Sends new outbox rows on: jobs to their queue, events to the bus. Then the row goes. Seeing a row twice is harmless,
// because jobs are keyed by their work and events carry their own id.
import { BatchProcessor, EventType, processPartialResponse } from '@aws-lambda-powertools/batch';
import middy from '@middy/core';
import type { Context, DynamoDBRecord, DynamoDBStreamEvent } from 'aws-lambda';
import { rowOfImage } from '../core/aws/attributes.ts';
import { eventBridge } from '../core/aws/bus.ts';
import { DynamoTable } from '../core/aws/dynamo.ts';
import { sqsQueue } from '../core/aws/sqs.ts';
import { readEnvironment } from '../core/env.ts';
import { sendOn } from '../core/store/relay.ts';

const env = readEnvironment('relay');
const outlets = {
  table: new DynamoTable(env.TABLE_NAME),
  jobs: sqsQueue(env.JOBS_QUEUE_URL),
  bus: eventBridge(env.EVENT_BUS),
};
const processor = new BatchProcessor(EventType.DynamoDBStreams);

async function relay(record: DynamoDBRecord): Promise<void> {
  const row = rowOfImage(record.dynamodb?.NewImage ?? {});
  // The event source filters; a row that is no outbox row must still never be sent or deleted.
  if (record.eventName !== 'INSERT' || !row.pk?.startsWith('OUTBOX#')) return;
  await sendOn(outlets, row);
}

export const handler = middy((event: DynamoDBStreamEvent, context: Context) =>
  processPartialResponse(event, relay, processor, { context, throwOnFullBatchFailure: false }),
);
