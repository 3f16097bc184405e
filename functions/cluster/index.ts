// Steps of a cluster run, and of the batch workflow where clusters follow a batch.
import middy from '@middy/core';
import { bedrockLabelModel } from '../core/aws/bedrock.ts';
import { makePorts } from '../core/aws/ports.ts';
import { secret } from '../core/aws/secrets.ts';
import { readEnvironment } from '../core/env.ts';
import type { LabelModel } from '../core/labels/label-model.ts';
import { openAiLabelModel } from '../core/labels/openai.ts';
import { readLabelSettings } from '../core/labels/settings.ts';
import { noteStep } from '../core/resources/batches/lifecycle.ts';
import type { ClusterEvent } from '../core/resources/clusters/steps.ts';
import { clusterStep } from '../core/resources/clusters/steps.ts';

const env = readEnvironment('cluster');
const ports = makePorts('cluster', env);
const model = labelModel();

function labelModel(): LabelModel | undefined {
  const settings = readLabelSettings(env.LABEL_MODEL);
  switch (settings.provider) {
    case 'none':
      return undefined;
    case 'openai':
      return openAiLabelModel(settings, {
        apiKey: settings.secret_name === undefined ? undefined : secret(settings.secret_name),
        allowLoopback: ports.settings.allowLoopback,
      });
    case 'bedrock':
      return bedrockLabelModel(settings);
  }
}

export const handler = middy(async (event: ClusterEvent) => {
  if (event.step === 'follow') await noteStep(ports, event, 'clustering');
  return clusterStep(ports, event, model);
});
