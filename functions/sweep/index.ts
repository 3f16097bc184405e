// Every minute: sends on what the relay missed, wakes deliveries that are due, takes away what expired.
import middy from '@middy/core';
import { eventBridge } from '../core/aws/bus.ts';
import { DynamoTable } from '../core/aws/dynamo.ts';
import { sqsQueue } from '../core/aws/sqs.ts';
import { systemClock } from '../core/clock.ts';
import { readEnvironment } from '../core/env.ts';
import { makeLog } from '../core/log.ts';
import { sweep } from '../core/store/sweep.ts';

const env = readEnvironment('sweep');
const ports = {
  table: new DynamoTable(env.TABLE_NAME),
  clock: systemClock,
  log: makeLog('sweep'),
  jobs: sqsQueue(env.JOBS_QUEUE_URL),
  bus: eventBridge(env.EVENT_BUS),
  deliveries: sqsQueue(env.DELIVERIES_QUEUE_URL),
};

export const handler = middy(() => sweep(ports));
