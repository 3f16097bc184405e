// Consumes the deliveries queue: an event becomes one delivery per listening webhook, a delivery becomes one signed post.
import { BatchProcessor, EventType, processPartialResponse } from '@aws-lambda-powertools/batch';
import middy from '@middy/core';
import type { Context, SQSEvent, SQSRecord } from 'aws-lambda';
import { DynamoTable } from '../core/aws/dynamo.ts';
import { secret } from '../core/aws/secrets.ts';
import { sqsQueue } from '../core/aws/sqs.ts';
import { systemClock, systemRandom } from '../core/clock.ts';
import { send } from '../core/egress/send.ts';
import { readEnvironment } from '../core/env.ts';
import type { GranaryEvent } from '../core/events.ts';
import { makeLog } from '../core/log.ts';
import type { DeliveryRef } from '../core/resources/webhooks/deliver.ts';
import { attemptDelivery, fanOut } from '../core/resources/webhooks/deliver.ts';

const env = readEnvironment('deliver');
const ports = {
  table: new DynamoTable(env.TABLE_NAME),
  clock: systemClock,
  random: systemRandom,
  log: makeLog('deliver'),
  settings: {
    stage: env.STAGE,
    pepper: secret(env.PEPPER_SECRET),
    allowLoopback: env.ALLOW_LOOPBACK === 'true',
  },
  queue: sqsQueue(env.DELIVERIES_QUEUE_URL),
  send,
};
const processor = new BatchProcessor(EventType.SQS);

async function consume(record: SQSRecord): Promise<void> {
  const message = JSON.parse(record.body) as { detail?: GranaryEvent } | DeliveryRef;
  if ('delivery_id' in message) await attemptDelivery(ports, message);
  else if ('detail' in message && message.detail) await fanOut(ports, message.detail);
  else throw new Error('a message of the deliveries queue holds neither an event nor a delivery');
}

export const handler = middy((event: SQSEvent, context: Context) =>
  processPartialResponse(event, consume, processor, { context, throwOnFullBatchFailure: false }),
);
