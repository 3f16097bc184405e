// What both kinds of Lambda share: an own log group, and an own role that may at first only write to it.
import { Duration, RemovalPolicy } from 'aws-cdk-lib';
import * as iam from 'aws-cdk-lib/aws-iam';
import * as lambda from 'aws-cdk-lib/aws-lambda';
import * as logs from 'aws-cdk-lib/aws-logs';
import type { Construct } from 'constructs';
import type { FolderName, Sizing, StageSettings } from '../stage.ts';

export interface FunctionParts {
  readonly role: iam.Role;
  readonly properties: Pick<
    lambda.FunctionProps,
    | 'role'
    | 'logGroup'
    | 'loggingFormat'
    | 'applicationLogLevelV2'
    | 'systemLogLevelV2'
    | 'memorySize'
    | 'timeout'
    | 'reservedConcurrentExecutions'
    | 'description'
  >;
}

/**
 * No managed policy: that would allow writing to every log group of the account.
 *
 * @param size @default that of the stage; a function that only some stages have brings its own
 */
export function functionParts(
  scope: Construct,
  folder: FolderName | 'lance',
  settings: StageSettings,
  size: Sizing[FolderName] = settings.sizing[folder as FolderName],
): FunctionParts {
  const logGroup = new logs.LogGroup(scope, 'Logs', {
    retention: settings.logRetentionDays,
    removalPolicy: RemovalPolicy.DESTROY,
  });
  const role = new iam.Role(scope, 'Role', { assumedBy: new iam.ServicePrincipal('lambda.amazonaws.com') });
  role.addToPolicy(
    new iam.PolicyStatement({
      actions: ['logs:CreateLogStream', 'logs:PutLogEvents'],
      resources: [logGroup.logGroupArn],
    }),
  );
  const reserved = settings.reservedConcurrency[folder as FolderName];
  return {
    role,
    properties: {
      description: `Granary ${settings.stage}: ${folder}`,
      role,
      logGroup,
      loggingFormat: lambda.LoggingFormat.JSON,
      applicationLogLevelV2: lambda.ApplicationLogLevel[settings.logLevel],
      systemLogLevelV2: lambda.SystemLogLevel.WARN,
      memorySize: size.memoryMb,
      timeout: Duration.seconds(size.timeoutSeconds),
      ...(reserved === undefined ? {} : { reservedConcurrentExecutions: reserved }),
    },
  };
}
