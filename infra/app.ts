// Entry of the CDK app: cdk synth -c stage=local|dev|prod [-c alarmEmail=...] [-c labels='{"provider":"...",...}']
import { App } from 'aws-cdk-lib';
import { addGranary } from './granary-app.ts';
import { stageSettings } from './stage.ts';

const app = new App({ analyticsReporting: false });

function text(name: string): string | undefined {
  const value: unknown = app.node.tryGetContext(name);
  return typeof value === 'string' ? value : undefined;
}

const labels = text('labels');
addGranary(
  app,
  stageSettings(text('stage') ?? '', {
    alarmEmail: text('alarmEmail'),
    labels: labels === undefined ? undefined : JSON.parse(labels),
  }),
);
app.synth();
