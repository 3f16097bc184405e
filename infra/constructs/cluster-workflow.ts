// One run of a cluster definition: prepare the vectors, cluster them, name the groups, commit.
import type * as lambda from 'aws-cdk-lib/aws-lambda';
import type * as sfn from 'aws-cdk-lib/aws-stepfunctions';
import { Construct } from 'constructs';
import type { StageSettings } from '../stage.ts';
import type { Definition } from './states.ts';
import { copied, job, step } from './states.ts';
import { Workflow } from './workflow.ts';

export interface ClusterParts {
  readonly cluster: string;
  readonly clusterer: string;
  /** Timeouts of the two Lambdas, in seconds. */
  readonly stepSeconds: number;
  readonly clustererSeconds: number;
}

export function clusterDefinition(parts: ClusterParts): Definition {
  const timeoutSeconds = parts.stepSeconds + 30;
  const payload = (name: string, fields: readonly string[] = []) => ({
    step: name,
    ...job('cluster'),
    ...copied(fields),
  });
  const failed = { next: 'Fail', resultPath: '$.error' };
  return {
    Comment: 'One cluster run. Vectors and labels are in S3; state holds pointers.',
    StartAt: 'Begin',
    TimeoutSeconds: 7200,
    States: {
      Begin: {
        Type: 'Pass',
        Parameters: { ...job('cluster'), prepared: null, clustered: null, labels: null, label_error: null },
        Next: 'Prepare',
      },
      Prepare: step({
        functionArn: parts.cluster,
        payload: payload('prepare'),
        resultPath: '$.prepared',
        timeoutSeconds,
        next: 'HasRows',
        catch: failed,
      }),
      HasRows: {
        Type: 'Choice',
        Choices: [{ Variable: '$.prepared.rows', NumericGreaterThan: 0, Next: 'Cluster' }],
        Default: 'Commit',
      },
      Cluster: step({
        functionArn: parts.clusterer,
        inputPath: '$.prepared.request',
        resultPath: '$.clustered',
        timeoutSeconds: parts.clustererSeconds + 30,
        next: 'Label',
        catch: failed,
      }),
      // Names are a comfort: without them the groups are kept and named by their words.
      Label: step({
        functionArn: parts.cluster,
        payload: payload('label', ['prepared', 'clustered']),
        resultPath: '$.labels',
        timeoutSeconds,
        next: 'Commit',
        catch: { next: 'Commit', resultPath: '$.label_error' },
      }),
      Commit: step({
        functionArn: parts.cluster,
        payload: payload('commit', ['prepared', 'clustered', 'labels', 'label_error']),
        resultPath: null,
        timeoutSeconds,
        next: null,
        catch: failed,
      }),
      Fail: step({
        functionArn: parts.cluster,
        payload: payload('fail', ['error']),
        resultPath: null,
        timeoutSeconds,
        next: 'Failed',
      }),
      // A batch that waits for this run must learn that it failed.
      Failed: { Type: 'Fail', Error: 'cluster_run_failed', Cause: 'The run is FAILED; its row says why.' },
    },
  };
}

export interface ClusterWorkflowProps {
  readonly settings: StageSettings;
  readonly cluster: lambda.IFunction;
  readonly clusterer: lambda.IFunction;
}

export class ClusterWorkflow extends Construct {
  readonly machine: sfn.StateMachine;

  constructor(scope: Construct, id: string, { settings, cluster, clusterer }: ClusterWorkflowProps) {
    super(scope, id);
    this.machine = new Workflow(this, 'Workflow', {
      settings,
      definition: clusterDefinition({
        cluster: cluster.functionArn,
        clusterer: clusterer.functionArn,
        stepSeconds: settings.sizing.cluster.timeoutSeconds,
        clustererSeconds: settings.sizing.clusterer.timeoutSeconds,
      }),
      invokes: [cluster, clusterer],
    }).machine;
  }
}
