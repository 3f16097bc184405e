// Entry of the CDK app: cdk synth -c stage=local|dev|prod [-c alarmEmail=...] [-c labelModel='{"...":"..."}']
import { App } from 'aws-cdk-lib';
import { addGranary } from './granary-app.ts';
import { stageSettings } from './stage.ts';

const app = new App({ analyticsReporting: false });

function text(name: string): string | undefined {
  const value: unknown = app.node.tryGetContext(name);
  return typeof value === 'string' ? value : undefined;
}

const labelModel = text('labelModel');
addGranary(
  app,
  stageSettings(text('stage') ?? '', {
    alarmEmail: text('alarmEmail'),
    labelModel: labelModel === undefined ? undefined : (JSON.parse(labelModel) as Record<string, unknown>),
  }),
);
app.synth();
