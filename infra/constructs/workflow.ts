// A state machine with its log group and a role that may do what its definition names, nothing more.
import { RemovalPolicy, Stack } from 'aws-cdk-lib';
import * as iam from 'aws-cdk-lib/aws-iam';
import type * as lambda from 'aws-cdk-lib/aws-lambda';
import * as logs from 'aws-cdk-lib/aws-logs';
import * as sfn from 'aws-cdk-lib/aws-stepfunctions';
import { Construct } from 'constructs';
import type { StageSettings } from '../stage.ts';
import { allowInvoke } from './rights.ts';
import type { Definition } from './states.ts';

export interface WorkflowProps {
  readonly settings: StageSettings;
  readonly definition: Definition;
  /** The Lambdas that the definition calls. */
  readonly invokes: readonly lambda.IFunction[];
}

export class Workflow extends Construct {
  readonly machine: sfn.StateMachine;
  readonly role: iam.Role;

  constructor(scope: Construct, id: string, props: WorkflowProps) {
    super(scope, id);
    this.role = new iam.Role(this, 'Role', { assumedBy: new iam.ServicePrincipal('states.amazonaws.com') });
    allowInvoke(this.role, ...props.invokes);
    this.machine = new sfn.StateMachine(this, 'Machine', {
      stateMachineType: sfn.StateMachineType.STANDARD,
      definitionBody: sfn.DefinitionBody.fromString(Stack.of(this).toJsonString(props.definition)),
      role: this.role,
      tracingEnabled: true,
      logs: {
        level: sfn.LogLevel.ERROR,
        // Inputs hold no user data but ids; replies may hold presigned URLs, which are not for logs.
        includeExecutionData: false,
        destination: new logs.LogGroup(this, 'Logs', {
          retention: props.settings.logRetentionDays,
          removalPolicy: RemovalPolicy.DESTROY,
        }),
      },
    });
  }
}
