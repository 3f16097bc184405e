// The batch: plan, chunks side by side, commit; then what follows a commit, which can no longer change its outcome.
import { Stack } from 'aws-cdk-lib';
import * as iam from 'aws-cdk-lib/aws-iam';
import type * as lambda from 'aws-cdk-lib/aws-lambda';
import type * as s3 from 'aws-cdk-lib/aws-s3';
import type * as sfn from 'aws-cdk-lib/aws-stepfunctions';
import { Construct } from 'constructs';
import type { StageSettings } from '../stage.ts';
import { allowStart, executionsOf } from './rights.ts';
import type { Definition } from './states.ts';
import { catchAll, copied, job, retries, step } from './states.ts';
import { Workflow } from './workflow.ts';

const hours = 3600;

export interface BatchParts {
  readonly partition: string;
  readonly blobBucket: string;
  readonly batch: string;
  readonly chunk: string;
  readonly taxonomy: string;
  readonly cluster: string;
  readonly alert: string;
  readonly clusterMachine: string;
  readonly mapConcurrency: number;
  /** Timeouts of the Lambdas, in seconds. */
  readonly stepSeconds: number;
}

/** What later steps are told about earlier ones; `Begin` sets each, so that every path exists. */
const outcomes = [
  'plan',
  'commit',
  'taxonomies',
  'clusters',
  'cluster_runs',
  'alerts',
  'post_errors',
] as const;

/** @param parts names and ARNs, which may be CloudFormation references */
export function batchDefinition(parts: BatchParts): Definition {
  const timeoutSeconds = parts.stepSeconds + 30;
  const payload = (name: string, fields: readonly string[] = []) => ({
    step: name,
    ...job('batch'),
    ...copied(fields),
  });
  const beforeCommit = { next: 'Fail', resultPath: '$.error' };

  return {
    Comment: 'One batch of one attempt. State holds ids and pointers only; rows are in S3.',
    StartAt: 'Begin',
    TimeoutSeconds: 6 * hours,
    States: {
      Begin: {
        Type: 'Pass',
        Parameters: {
          ...job('batch'),
          plan: null,
          commit: null,
          taxonomies: { cursor: null, failures: [] },
          clusters: null,
          cluster_runs: [],
          alerts: null,
          post_errors: {},
        } satisfies Record<(typeof outcomes)[number], unknown> & Record<string, unknown>,
        Next: 'Plan',
      },
      Plan: step({
        functionArn: parts.batch,
        payload: { ...payload('plan'), map_concurrency: parts.mapConcurrency },
        resultPath: '$.plan',
        timeoutSeconds,
        next: 'HasChunks',
        catch: beforeCommit,
      }),
      HasChunks: {
        Type: 'Choice',
        Choices: [{ Variable: '$.plan.chunks', NumericGreaterThan: 0, Next: 'Chunks' }],
        Default: 'Commit',
      },
      Chunks: {
        Type: 'Map',
        // What the plan found: at most `mapConcurrency`, and less where a plugin wants less.
        MaxConcurrencyPath: '$.plan.max_concurrency',
        ItemReader: {
          Resource: `arn:${parts.partition}:states:::s3:getObject`,
          ReaderConfig: { InputType: 'JSON' },
          Parameters: { Bucket: parts.blobBucket, 'Key.$': '$.plan.chunks_key' },
        },
        ItemSelector: { job: job('batch'), 'item.$': '$$.Map.Item.Value' },
        ItemProcessor: {
          ProcessorConfig: { Mode: 'DISTRIBUTED', ExecutionType: 'STANDARD' },
          StartAt: 'Chunk',
          States: {
            // A child never fails the map: a chunk without receipt is what the commit step counts.
            Chunk: step({
              functionArn: parts.chunk,
              payload: { step: 'chunk', ...copied(['job', 'item']) },
              resultPath: null,
              timeoutSeconds,
              next: 'Done',
              catch: { next: 'Done', resultPath: '$.error' },
            }),
            // The map collects what its children return, so they return next to nothing.
            Done: { Type: 'Pass', Result: {}, End: true },
          },
        },
        ResultPath: null,
        Catch: catchAll('Fail', '$.error'),
        Next: 'Commit',
      },
      Commit: step({
        functionArn: parts.batch,
        payload: payload('commit', ['plan']),
        resultPath: '$.commit',
        timeoutSeconds,
        next: 'Taxonomies',
        catch: beforeCommit,
      }),
      Taxonomies: step({
        functionArn: parts.taxonomy,
        // One turn does what fits into the Lambda's time; the next begins at its cursor and keeps its failures.
        payload: {
          ...payload('materialize', ['plan', 'commit']),
          'cursor.$': '$.taxonomies.cursor',
          'failures.$': '$.taxonomies.failures',
        },
        resultPath: '$.taxonomies',
        timeoutSeconds,
        next: 'MoreTaxonomies',
        catch: { next: 'Clusters', resultPath: '$.post_errors.taxonomies' },
      }),
      MoreTaxonomies: {
        Type: 'Choice',
        Choices: [{ Variable: '$.taxonomies.cursor', IsNull: false, Next: 'Taxonomies' }],
        Default: 'Clusters',
      },
      Clusters: step({
        functionArn: parts.cluster,
        payload: payload('follow', ['plan', 'commit']),
        resultPath: '$.clusters',
        timeoutSeconds,
        next: 'ClustersFollow',
        catch: { next: 'Alerts', resultPath: '$.post_errors.clusters' },
      }),
      ClustersFollow: {
        Type: 'Choice',
        Choices: [{ Variable: '$.clusters.runs[0]', IsPresent: true, Next: 'ClusterRuns' }],
        Default: 'Alerts',
      },
      ClusterRuns: {
        Type: 'Map',
        ItemsPath: '$.clusters.runs',
        MaxConcurrency: 2,
        ItemProcessor: {
          ProcessorConfig: { Mode: 'INLINE' },
          StartAt: 'ClusterRun',
          States: {
            ClusterRun: {
              Type: 'Task',
              Resource: `arn:${parts.partition}:states:::states:startExecution.sync:2`,
              Parameters: { StateMachineArn: parts.clusterMachine, 'Name.$': '$.run_id', 'Input.$': '$' },
              ResultPath: null,
              TimeoutSeconds: 2 * hours,
              Catch: catchAll('ClusterRunFailed', '$.error'),
              Next: 'ClusterRunDone',
            },
            ClusterRunDone: {
              Type: 'Pass',
              Parameters: { ...copied(['cluster_id', 'run_id']), succeeded: true },
              End: true,
            },
            ClusterRunFailed: {
              Type: 'Pass',
              Parameters: {
                ...copied(['cluster_id', 'run_id']),
                succeeded: false,
                'error.$': '$.error.Error',
              },
              End: true,
            },
          },
        },
        ResultPath: '$.cluster_runs',
        Catch: catchAll('Alerts', '$.post_errors.clusters'),
        Next: 'Alerts',
      },
      Alerts: step({
        functionArn: parts.alert,
        payload: payload('evaluate', ['plan', 'commit']),
        resultPath: '$.alerts',
        timeoutSeconds,
        next: 'Finish',
        catch: { next: 'Finish', resultPath: '$.post_errors.alerts' },
      }),
      // Not caught: what is committed must not be called failed. It is tried for minutes, and then an alarm rings.
      Finish: step({
        functionArn: parts.batch,
        payload: payload('finish', outcomes),
        resultPath: null,
        timeoutSeconds,
        next: null,
        retry: [
          ...retries,
          {
            ErrorEquals: ['States.ALL'],
            IntervalSeconds: 5,
            BackoffRate: 2,
            MaxAttempts: 5,
            MaxDelaySeconds: 60,
          },
        ],
      }),
      // The batch is then FAILED and has said why, which is a good end for the machine: only a broken one fails.
      Fail: step({
        functionArn: parts.batch,
        payload: payload('fail', ['error']),
        resultPath: null,
        timeoutSeconds,
        next: null,
        retry: [
          ...retries,
          {
            ErrorEquals: ['States.ALL'],
            IntervalSeconds: 5,
            BackoffRate: 2,
            MaxAttempts: 5,
            MaxDelaySeconds: 60,
          },
        ],
      }),
    },
  };
}

export interface BatchWorkflowProps {
  readonly settings: StageSettings;
  readonly blobs: s3.IBucket;
  readonly batch: lambda.IFunction;
  readonly chunk: lambda.IFunction;
  readonly taxonomy: lambda.IFunction;
  readonly cluster: lambda.IFunction;
  readonly alert: lambda.IFunction;
  readonly clusterMachine: sfn.StateMachine;
}

export class BatchWorkflow extends Construct {
  readonly machine: sfn.StateMachine;

  constructor(scope: Construct, id: string, props: BatchWorkflowProps) {
    super(scope, id);
    const stack = Stack.of(this);
    const { batch, chunk, taxonomy, cluster, alert, clusterMachine, settings } = props;
    const workflow = new Workflow(this, 'Workflow', {
      settings,
      definition: batchDefinition({
        partition: stack.partition,
        blobBucket: props.blobs.bucketName,
        batch: batch.functionArn,
        chunk: chunk.functionArn,
        taxonomy: taxonomy.functionArn,
        cluster: cluster.functionArn,
        alert: alert.functionArn,
        clusterMachine: clusterMachine.stateMachineArn,
        mapConcurrency: settings.mapConcurrency,
        stepSeconds: settings.sizing.chunk.timeoutSeconds,
      }),
      invokes: [batch, chunk, taxonomy, cluster, alert],
    });
    this.machine = workflow.machine;

    workflow.role.addToPolicy(
      new iam.PolicyStatement({
        actions: ['s3:GetObject'],
        resources: [props.blobs.arnForObjects('batches/*')],
      }),
    );
    allowStart(workflow.role, [clusterMachine.stateMachineArn]);
    workflow.role.addToPolicy(
      new iam.PolicyStatement({
        actions: ['states:DescribeExecution', 'states:StopExecution'],
        resources: [executionsOf(stack, clusterMachine.stateMachineName)],
      }),
    );
    // How Step Functions learns that a nested execution has ended.
    workflow.role.addToPolicy(
      new iam.PolicyStatement({
        actions: ['events:PutTargets', 'events:PutRule', 'events:DescribeRule'],
        resources: [
          `arn:${stack.partition}:events:${stack.region}:${stack.account}:rule/StepFunctionsGetEventsForStepFunctionsExecutionRule`,
        ],
      }),
    );
    // A policy of its own: the machine cannot wait for a policy that names the machine.
    const children = new iam.Policy(this, 'Children', { roles: [workflow.role] });
    children.addStatements(
      new iam.PolicyStatement({
        actions: ['states:StartExecution'],
        resources: [this.machine.stateMachineArn],
      }),
      new iam.PolicyStatement({
        actions: ['states:DescribeExecution', 'states:StopExecution'],
        resources: [
          executionsOf(stack, this.machine.stateMachineName),
          executionsOf(stack, this.machine.stateMachineName, '/'),
        ],
      }),
    );
  }
}
