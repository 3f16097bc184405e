// Steps of the batch workflow that look at a batch as a whole: plan, commit, finish, fail.
import middy from '@middy/core';
import { makePorts } from '../core/aws/ports.ts';
import { readEnvironment } from '../core/env.ts';
import type { BatchEvent } from '../core/resources/batches/steps.ts';
import { batchStep } from '../core/resources/batches/steps.ts';

const ports = makePorts('batch', readEnvironment('batch'));

export const handler = middy((event: BatchEvent) => batchStep(ports, event));
