// The deletion of a namespace: the same step again until nothing is left.
import type * as lambda from 'aws-cdk-lib/aws-lambda';
import type * as sfn from 'aws-cdk-lib/aws-stepfunctions';
import { Construct } from 'constructs';
import type { StageSettings } from '../stage.ts';
import type { Definition } from './states.ts';
import { copied, job, retries, step } from './states.ts';
import { Workflow } from './workflow.ts';

export interface NamespaceParts {
  readonly namespace: string;
  /** Timeout of the Lambda, in seconds. */
  readonly stepSeconds: number;
}

export function namespaceDefinition(parts: NamespaceParts): Definition {
  return {
    Comment:
      'Deletes all that a namespace holds. Each turn deletes what it can in its time and says whether it is done.',
    StartAt: 'Begin',
    States: {
      Begin: {
        Type: 'Pass',
        Parameters: { ...job('namespace_delete'), progress: { done: false } },
        Next: 'Delete',
      },
      Delete: step({
        functionArn: parts.namespace,
        payload: { step: 'delete', ...job('namespace_delete'), ...copied(['progress']) },
        resultPath: '$.progress',
        timeoutSeconds: parts.stepSeconds + 30,
        next: 'IsDone',
        // Half a namespace helps nobody, so this is tried for a long time and then left to an alarm.
        retry: [
          ...retries,
          {
            ErrorEquals: ['States.ALL'],
            IntervalSeconds: 10,
            BackoffRate: 2,
            MaxAttempts: 8,
            MaxDelaySeconds: 600,
          },
        ],
        catch: { next: 'Fail', resultPath: '$.error' },
      }),
      IsDone: {
        Type: 'Choice',
        Choices: [{ Variable: '$.progress.done', BooleanEquals: true, Next: 'Done' }],
        Default: 'Delete',
      },
      Done: { Type: 'Succeed' },
      Fail: { Type: 'Fail', ErrorPath: '$.error.Error', CausePath: '$.error.Cause' },
    },
  };
}

export interface NamespaceWorkflowProps {
  readonly settings: StageSettings;
  readonly namespace: lambda.IFunction;
}

export class NamespaceWorkflow extends Construct {
  readonly machine: sfn.StateMachine;

  constructor(scope: Construct, id: string, { settings, namespace }: NamespaceWorkflowProps) {
    super(scope, id);
    this.machine = new Workflow(this, 'Workflow', {
      settings,
      definition: namespaceDefinition({
        namespace: namespace.functionArn,
        stepSeconds: settings.sizing.namespace.timeoutSeconds,
      }),
      invokes: [namespace],
    }).machine;
  }
}
