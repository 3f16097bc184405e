// The real ports of a Lambda, made once per environment from its environment values.
import { systemClock, systemRandom } from '../clock.ts';
import type { EnvironmentOf, LambdaName } from '../env.ts';
import { makeLog } from '../log.ts';
import type { Ports, Settings } from '../ports.ts';
import { arenaBytes } from '../vectors/vector-memory.ts';
import { makeBackends } from './backends.ts';
import { DynamoTable } from './dynamo.ts';
import type { ImageFunctionSettings } from './image-functions.ts';
import { LambdaImageFunctions } from './image-functions.ts';
import { LambdaCaller } from './invoke.ts';
import { S3Blobs } from './s3.ts';
import { secret } from './secrets.ts';

/** More is not scanned by one function, however large its memory: about 120 ms (vector store design, section 7). */
const scanBytesMax = 1.2e9;

/** Lambdas that have the values of every port. */
type ServiceLambda = Extract<
  LambdaName,
  'api' | 'query' | 'batch' | 'chunk' | 'taxonomy' | 'alert' | 'cluster' | 'namespace'
>;

export function readSettings(
  env: Pick<
    EnvironmentOf<'api'>,
    'STAGE' | 'PEPPER_SECRET' | 'RATE_LIMITS' | 'ALLOW_LOOPBACK' | 'REALTIME_PLUGINS'
  >,
): Settings {
  return {
    stage: env.STAGE,
    pepper: secret(env.PEPPER_SECRET),
    rateLimits: JSON.parse(env.RATE_LIMITS) as Record<string, number>,
    allowLoopback: env.ALLOW_LOOPBACK === 'true',
    realtimePlugins: env.REALTIME_PLUGINS === 'true',
  };
}

/** @param env what `readEnvironment(lambda)` returned. */
export function makePorts<L extends ServiceLambda>(lambda: L, env: EnvironmentOf<L>): Ports {
  const values = env as EnvironmentOf<'api'>;
  // Every call names its tenant where functions have environments per tenant: everywhere but on the emulator.
  const runner = (name: string) => new LambdaCaller(name, values.STAGE !== 'local');
  const { egress, large } = JSON.parse(values.RUNNER_VARIANTS) as { egress?: string; large?: string };
  const images = JSON.parse(values.IMAGE_FUNCTIONS) as Partial<ImageFunctionSettings>;
  return {
    table: new DynamoTable(values.TABLE_NAME),
    blobs: new S3Blobs(values.BLOB_BUCKET),
    archives: new S3Blobs(values.ARCHIVE_BUCKET),
    index: new S3Blobs(values.INDEX_BUCKET),
    runner: runner(values.RUNNER_FUNCTION),
    runners: {
      ...(egress === undefined ? {} : { egress: runner(egress) }),
      ...(large === undefined ? {} : { large: runner(large) }),
    },
    ...(images.name_prefix === undefined
      ? {}
      : { imageFunctions: new LambdaImageFunctions(images as ImageFunctionSettings) }),
    validator: new LambdaCaller(values.VALIDATOR_FUNCTION, false),
    scanners: {
      functions: (JSON.parse(values.SCAN_FUNCTIONS) as string[]).map((name) => new LambdaCaller(name, false)),
      bytesEach: Math.min(arenaBytes() * 0.9, scanBytesMax),
    },
    backends: makeBackends(values.VECTOR_BACKENDS),
    clock: systemClock,
    random: systemRandom,
    log: makeLog(lambda),
    settings: readSettings(values),
  };
}
