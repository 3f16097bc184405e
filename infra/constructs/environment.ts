// The environment values that many Lambdas share, put together once.
import type { EnvironmentOf } from '../../functions/core/env.ts';
import type { DataStack } from '../stacks/data-stack.ts';
import type { StageSettings } from '../stage.ts';

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
  plugins: { readonly runnerName: string; readonly validatorName: string },
  settings: StageSettings,
): EnvironmentOf<'api'> {
  return {
    ...storageEnvironment(data, settings),
    RUNNER_FUNCTION: plugins.runnerName,
    VALIDATOR_FUNCTION: plugins.validatorName,
    PEPPER_SECRET: data.pepper.secretArn,
    RATE_LIMITS: JSON.stringify(settings.rateLimits),
    ALLOW_LOOPBACK: String(settings.allowLoopback),
    REALTIME_PLUGINS: String(settings.realtimePlugins),
  };
}
