// One chunk of a batch: rows through the plugin runner, documents and segments out.
import middy from '@middy/core';
import type { Context } from 'aws-lambda';
import { makePorts } from '../core/aws/ports.ts';
import { readEnvironment } from '../core/env.ts';
import type { ChunkEvent } from '../core/resources/batches/steps.ts';
import { chunkStep } from '../core/resources/batches/steps.ts';

const ports = makePorts('chunk', readEnvironment('chunk'));

export const handler = middy((event: ChunkEvent, context: Context) =>
  chunkStep(ports, event, ports.clock.now() + context.getRemainingTimeInMillis()),
);
