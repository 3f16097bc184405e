// A taxonomy applied to documents that were there before it: page after page, then the end.
import type * as lambda from 'aws-cdk-lib/aws-lambda';
import type * as sfn from 'aws-cdk-lib/aws-stepfunctions';
import { Construct } from 'constructs';
import type { StageSettings } from '../stage.ts';
import type { Definition } from './states.ts';
import { copied, job, step } from './states.ts';
import { Workflow } from './workflow.ts';

export interface TaxonomyParts {
  readonly taxonomy: string;
  /** Timeout of the Lambda, in seconds. */
  readonly stepSeconds: number;
}

export function taxonomyDefinition(parts: TaxonomyParts): Definition {
  const timeoutSeconds = parts.stepSeconds + 30;
  const payload = (name: string, fields: Readonly<Record<string, string>> = {}) => ({
    step: name,
    ...job('taxonomy'),
    ...fields,
  });
  const failed = { next: 'Fail', resultPath: '$.error' };
  return {
    Comment:
      'One run of a taxonomy over a collection; each turn handles a page and says where the next begins.',
    StartAt: 'Begin',
    TimeoutSeconds: 6 * 3600,
    States: {
      Begin: { Type: 'Pass', Parameters: { ...job('taxonomy'), progress: { cursor: null } }, Next: 'Run' },
      Run: step({
        functionArn: parts.taxonomy,
        payload: payload('run', { 'cursor.$': '$.progress.cursor' }),
        resultPath: '$.progress',
        timeoutSeconds,
        next: 'HasMore',
        catch: failed,
      }),
      HasMore: {
        Type: 'Choice',
        Choices: [
          {
            And: [
              { Variable: '$.progress.cursor', IsPresent: true },
              { Variable: '$.progress.cursor', IsNull: false },
            ],
            Next: 'Run',
          },
        ],
        Default: 'Finish',
      },
      Finish: step({
        functionArn: parts.taxonomy,
        payload: payload('finish', copied(['progress'])),
        resultPath: null,
        timeoutSeconds,
        next: null,
        catch: failed,
      }),
      Fail: step({
        functionArn: parts.taxonomy,
        payload: payload('fail', copied(['error'])),
        resultPath: null,
        timeoutSeconds,
        next: 'Failed',
      }),
      Failed: { Type: 'Fail', Error: 'taxonomy_run_failed', Cause: 'The run is FAILED; its row says why.' },
    },
  };
}

export interface TaxonomyWorkflowProps {
  readonly settings: StageSettings;
  readonly taxonomy: lambda.IFunction;
}

export class TaxonomyWorkflow extends Construct {
  readonly machine: sfn.StateMachine;

  constructor(scope: Construct, id: string, { settings, taxonomy }: TaxonomyWorkflowProps) {
    super(scope, id);
    this.machine = new Workflow(this, 'Workflow', {
      settings,
      definition: taxonomyDefinition({
        taxonomy: taxonomy.functionArn,
        stepSeconds: settings.sizing.taxonomy.timeoutSeconds,
      }),
      invokes: [taxonomy],
    }).machine;
  }
}
