// Steps of a cluster run, and of the batch workflow where clusters follow a batch.
import middy from '@middy/core';
import { makePorts } from '../core/aws/ports.ts';
import { secret } from '../core/aws/secrets.ts';
import { readEnvironment } from '../core/env.ts';
import { openAiLabelModel } from '../core/labels/openai.ts';
import { readLabelModel } from '../core/labels/settings.ts';
import { noteStep } from '../core/resources/batches/lifecycle.ts';
import type { ClusterEvent } from '../core/resources/clusters/steps.ts';
import { clusterStep } from '../core/resources/clusters/steps.ts';

const env = readEnvironment('cluster');
const ports = makePorts('cluster', env);
const settings = readLabelModel(JSON.parse(env.LABEL_MODEL));
const model =
  settings &&
  openAiLabelModel(settings, {
    apiKey: settings.secret_name === undefined ? undefined : secret(settings.secret_name),
    allowLoopback: ports.settings.allowLoopback,
  });

export const handler = middy(async (event: ClusterEvent) => {
  if (event.step === 'follow') await noteStep(ports, event, 'clustering');
  return clusterStep(ports, event, model);
});
