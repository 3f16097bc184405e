// The environment values that many Lambdas share, put together once.
import { Stack } from 'aws-cdk-lib';
import type * as lambda from 'aws-cdk-lib/aws-lambda';
import type { EnvironmentOf } from '../../functions/core/env.ts';
import type { DataStack } from '../stacks/data-stack.ts';
import type { StageSettings } from '../stage.ts';
import type { ImageRunner } from './image-runner.ts';
import type { Runners } from './runners.ts';
import { vectorBackendsValue } from './vector-backends.ts';

export function baseEnvironment(data: DataStack, settings: StageSettings) {
  return { STAGE: settings.stage, LOG_LEVEL: settings.logLevel, TABLE_NAME: data.table.tableName };
}

export function storageEnvironment(data: DataStack, settings: StageSettings) {
  return {
    ...baseEnvironment(data, settings),
    BLOB_BUCKET: data.blobs.bucketName,
    ARCHIVE_BUCKET: data.archives.bucketName,
    INDEX_BUCKET: data.index.bucketName,
  };
}

/** The values of every Lambda that runs services: `api`, `query` and the steps of workflows. */
export function serviceEnvironment(
  data: DataStack,
  functions: {
    readonly runners: Runners;
    readonly imageRunner: ImageRunner | undefined;
    readonly validatorName: string;
    readonly scannerNames: readonly string[];
    readonly lance: lambda.IFunction | undefined;
  },
  settings: StageSettings,
): EnvironmentOf<'api'> {
  return {
    ...storageEnvironment(data, settings),
    RUNNER_FUNCTION: functions.runners.standard.function.functionName,
    RUNNER_VARIANTS: Stack.of(data).toJsonString({
      egress: functions.runners.egress?.function.functionName,
      large: functions.runners.large?.function.functionName,
    }),
    IMAGE_FUNCTIONS: Stack.of(data).toJsonString(functions.imageRunner?.environmentValue() ?? {}),
    VALIDATOR_FUNCTION: functions.validatorName,
    PEPPER_SECRET: data.pepper.secretArn,
    RATE_LIMITS: JSON.stringify(settings.rateLimits),
    ALLOW_LOOPBACK: String(settings.allowLoopback),
    REALTIME_PLUGINS: String(settings.realtimePlugins),
    SCAN_FUNCTIONS: Stack.of(data).toJsonString(functions.scannerNames),
    VECTOR_BACKENDS: vectorBackendsValue({ data, lance: functions.lance }),
  };
}
