// Gives roles what they need by named actions. No wildcard action, and no Scan for anybody.
import { Stack } from 'aws-cdk-lib';
import type * as dynamodb from 'aws-cdk-lib/aws-dynamodb';
import type * as events from 'aws-cdk-lib/aws-events';
import * as iam from 'aws-cdk-lib/aws-iam';
import type * as lambda from 'aws-cdk-lib/aws-lambda';
import type * as s3 from 'aws-cdk-lib/aws-s3';
import type * as secretsmanager from 'aws-cdk-lib/aws-secretsmanager';
import type * as sqs from 'aws-cdk-lib/aws-sqs';
import type { BedrockLabels, LabelSettings } from '../../functions/core/labels/settings.ts';
import { bedrockModel } from '../../functions/core/labels/settings.ts';

export const tableActions = {
  get: ['dynamodb:GetItem'],
  read: ['dynamodb:GetItem', 'dynamodb:BatchGetItem', 'dynamodb:Query'],
  write: [
    'dynamodb:PutItem',
    'dynamodb:UpdateItem',
    'dynamodb:DeleteItem',
    'dynamodb:BatchWriteItem',
    'dynamodb:ConditionCheckItem',
  ],
} as const;

const bucketActions = {
  read: 's3:GetObject',
  write: 's3:PutObject',
  delete: 's3:DeleteObject',
} as const;
/** `read` brings listing too: without it S3 answers 403 instead of 404 for what is not there. */
export type BucketAccess = keyof typeof bucketActions;

function allow(role: iam.IRole, actions: readonly string[], resources: readonly string[]): void {
  role.addToPrincipalPolicy(new iam.PolicyStatement({ actions: [...actions], resources: [...resources] }));
}

export function allowTable(role: iam.IRole, table: dynamodb.ITable, actions: readonly string[]): void {
  allow(role, actions, [table.tableArn]);
}

/** Reads of the sparse index of rows with a due time. */
export function allowDueIndex(role: iam.IRole, table: dynamodb.ITable, index: string): void {
  allow(role, ['dynamodb:Query'], [`${table.tableArn}/index/${index}`]);
}

export function allowBucket(role: iam.IRole, bucket: s3.IBucket, ...access: readonly BucketAccess[]): void {
  allow(
    role,
    access.map((name) => bucketActions[name]),
    [bucket.arnForObjects('*')],
  );
  if (access.includes('read')) allow(role, ['s3:ListBucket'], [bucket.bucketArn]);
}

export function allowSecret(role: iam.IRole, ...secrets: readonly secretsmanager.ISecret[]): void {
  allow(
    role,
    ['secretsmanager:GetSecretValue'],
    secrets.map((secret) => secret.secretArn),
  );
}

/** A secret that people keep beside the stacks. Secrets Manager ends its ARN with six characters of its own. */
function allowSecretNamed(role: iam.IRole, name: string): void {
  const { partition, region, account } = Stack.of(role);
  allow(
    role,
    ['secretsmanager:GetSecretValue'],
    [`arn:${partition}:secretsmanager:${region}:${account}:secret:${name}-??????`],
  );
}

/** What the model that names clusters needs: its key, or the model itself wherever Bedrock may run it. */
export function allowLabels(role: iam.IRole, labels: LabelSettings): void {
  if (labels.provider === 'openai' && labels.secret_name !== undefined)
    allowSecretNamed(role, labels.secret_name);
  if (labels.provider === 'bedrock') allowBedrockModel(role, labels);
}

/**
 * Converse needs the right to InvokeModel. An inference profile is a resource of its own, and the model must be allowed
 * in every region that it may choose; but then only by way of the profile. @see Bedrock guide: prerequisites for
 * inference profiles, global cross-region inference
 */
function allowBedrockModel(role: iam.IRole, labels: BedrockLabels): void {
  const stack = Stack.of(role);
  const region = labels.region ?? stack.region;
  const { model, profile, global } = bedrockModel(labels.model_id);
  const modelIn = (where: string) => `arn:${stack.partition}:bedrock:${where}::foundation-model/${model}`;
  if (profile === undefined) {
    allow(role, ['bedrock:InvokeModel'], [modelIn(region)]);
    return;
  }
  const profileArn = `arn:${stack.partition}:bedrock:${region}:${stack.account}:inference-profile/${profile}`;
  // A global profile has a model without a region; the call itself comes from our own.
  const regions = global ? [region, ''] : (labels.destination_regions ?? []);
  allow(role, ['bedrock:InvokeModel'], [profileArn]);
  role.addToPrincipalPolicy(
    new iam.PolicyStatement({
      actions: ['bedrock:InvokeModel'],
      resources: [...new Set(regions)].map(modelIn),
      conditions: { StringEquals: { 'bedrock:InferenceProfileArn': profileArn } },
    }),
  );
}

const vectorActions = {
  query: ['s3vectors:QueryVectors'],
  sync: [
    's3vectors:CreateIndex',
    's3vectors:GetIndex',
    's3vectors:DeleteIndex',
    's3vectors:PutVectors',
    's3vectors:GetVectors',
    's3vectors:ListVectors',
    's3vectors:DeleteVectors',
  ],
  drop: ['s3vectors:DeleteIndex'],
} as const;
/** `query` asks for candidates, `sync` keeps copies and counts them, `drop` removes them. */
export type VectorAccess = keyof typeof vectorActions;

/** Rights on the indexes of one vector bucket, whose names are made while the system runs. */
export function allowVectorIndexes(role: iam.IRole, bucketArn: string, access: VectorAccess): void {
  allow(role, vectorActions[access], [`${bucketArn}/index/*`]);
  // Removing all of a namespace needs their names.
  if (access !== 'query') allow(role, ['s3vectors:ListIndexes'], [bucketArn]);
}

/** The unqualified function only: the usual grant would allow every version and alias by a wildcard. */
export function allowInvoke(role: iam.IRole, ...functions: readonly lambda.IFunction[]): void {
  allow(
    role,
    ['lambda:InvokeFunction'],
    functions.map((one) => one.functionArn),
  );
}

export function allowSend(role: iam.IRole, ...queues: readonly sqs.IQueue[]): void {
  allow(
    role,
    ['sqs:SendMessage'],
    queues.map((queue) => queue.queueArn),
  );
}

export function allowPutEvents(role: iam.IRole, bus: events.IEventBus): void {
  allow(role, ['events:PutEvents'], [bus.eventBusArn]);
}

export function allowStart(role: iam.IRole, machineArns: readonly string[]): void {
  allow(role, ['states:StartExecution'], machineArns);
}

/** ARN of the executions of a state machine, whose physical name CloudFormation makes. */
export function executionsOf(scope: Stack, machineName: string, separator: ':' | '/' = ':'): string {
  return `arn:${scope.partition}:states:${scope.region}:${scope.account}:execution:${machineName}${separator}*`;
}
