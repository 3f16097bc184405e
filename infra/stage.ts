// What differs between stages, checked before anything is synthesised. Code never asks which stage it runs in.
import * as z from 'zod';
import { LabelSettings } from '../functions/core/labels/settings.ts';

/** The TypeScript and Python Lambdas, by folder under `functions/`. */
export const lambdaNames = [
  'api',
  'query',
  'scan',
  'authorizer',
  'relay',
  'starter',
  'batch',
  'chunk',
  'taxonomy',
  'alert',
  'cluster',
  'namespace',
  'compact',
  'deliver',
  'sweep',
  'plugin-validator',
  'plugin-runner',
  'clusterer',
] as const;
export type FolderName = (typeof lambdaNames)[number];

/** Memory (which buys CPU: 1,769 MB is one vCPU) and the longest run of each Lambda. */
export type Sizing = Readonly<
  Record<FolderName, { readonly memoryMb: number; readonly timeoutSeconds: number }>
>;

const sizing: Sizing = {
  // The gateway waits 29 s at most, so a longer run would answer nobody.
  api: { memoryMb: 1024, timeoutSeconds: 29 },
  query: { memoryMb: 3008, timeoutSeconds: 29 },
  // As `query`, which waits for it.
  scan: { memoryMb: 3008, timeoutSeconds: 28 },
  authorizer: { memoryMb: 512, timeoutSeconds: 10 },
  relay: { memoryMb: 512, timeoutSeconds: 60 },
  starter: { memoryMb: 512, timeoutSeconds: 30 },
  batch: { memoryMb: 1769, timeoutSeconds: 300 },
  chunk: { memoryMb: 1769, timeoutSeconds: 300 },
  taxonomy: { memoryMb: 3008, timeoutSeconds: 300 },
  alert: { memoryMb: 1769, timeoutSeconds: 300 },
  cluster: { memoryMb: 1769, timeoutSeconds: 300 },
  namespace: { memoryMb: 1024, timeoutSeconds: 300 },
  // Half of the memory holds vectors that are rewritten, the rest ids, columns and the segment that is written.
  compact: { memoryMb: 3008, timeoutSeconds: 900 },
  deliver: { memoryMb: 512, timeoutSeconds: 120 },
  sweep: { memoryMb: 512, timeoutSeconds: 55 },
  // Called by `api` within one request. The tree of the densest file that is read takes 400 MB, and all code that may
  // come in one archive 6 seconds of one vCPU.
  'plugin-validator': { memoryMb: 1769, timeoutSeconds: 20 },
  // Ends before `chunk`, which must still write what came back.
  'plugin-runner': { memoryMb: 3008, timeoutSeconds: 270 },
  clusterer: { memoryMb: 3008, timeoutSeconds: 900 },
};

const Sizes = z.record(
  z.enum(lambdaNames),
  z.strictObject({
    memoryMb: z.int().min(128).max(10_240),
    timeoutSeconds: z.int().min(1).max(900),
  }),
);

const StageSettings = z
  .strictObject({
    stage: z.string().regex(/^[a-z][a-z0-9-]{1,15}$/, 'a stage has 2 to 16 small letters, digits and "-"'),
    /** The table and the buckets outlive the stack, and the table refuses deletion. */
    keepData: z.boolean(),
    /** On AWS: alarms, dashboard, gateway and bucket access logs. The emulator has no use for them. */
    observed: z.boolean(),
    /** Compiled Python packages come from Lambda layers; without, the interpreter has them. */
    layers: z.boolean(),
    /** An own execution environment of the plugin runner for each tenant. */
    tenancy: z.boolean(),
    /**
     * Where the plugin runner lives. `isolated` is in a network whose only way out is the S3 gateway endpoint, which
     * costs nothing; `open` is in none, and then only the kernel keeps plugins from the Internet.
     */
    runnerNetwork: z.enum(['open', 'isolated']),
    /**
     * A second plugin runner outside of any network, with a way to the Internet, for plugins whose compute_profile asks
     * for it (resource_type "api"). What users' code tells others is then theirs to answer for.
     */
    runnerEgress: z.boolean(),
    /** A plugin runner with the memory for plugins of the class "large"; the account must allow it 5,308 MB. */
    runnerLarge: z.boolean(),
    /** Plugins may bring container images, in namespaces whose plan allows it; see layers/runner-image. */
    containerImages: z.boolean(),
    /** Webhooks and blob URLs may reach loopback addresses. */
    allowLoopback: z.boolean(),
    realtimePlugins: z.boolean(),
    logLevel: z.enum(['DEBUG', 'INFO', 'WARN', 'ERROR']),
    logRetentionDays: z.int().min(1).max(3653),
    sizing: Sizes,
    /** Concurrent executions set aside, by Lambda; the account must have them (100 always stay unreserved). */
    reservedConcurrency: z.partialRecord(z.enum(lambdaNames), z.int().min(1)),
    /**
     * Functions that share the scan of an index too large for `query`: each holds half of its memory in codes. They
     * cost nothing while nobody searches such an index.
     */
    scanFunctions: z.int().min(0).max(64),
    /**
     * A bucket of Amazon S3 Vectors, for namespaces that choose the vector backend `s3_vectors`. It costs nothing while
     * it is empty; not every region has the service.
     */
    s3Vectors: z.boolean(),
    /** The function that runs LanceDB, for namespaces that choose `lancedb`. `npm run lance` must have been run. */
    lancedb: z.boolean(),
    /** Chunks of one batch at a time. */
    mapConcurrency: z.int().min(1).max(1000),
    /** Concurrent runs fed by each queue; the service allows no less than 2. */
    queueConcurrency: z.int().min(2).max(1000),
    throttling: z.strictObject({ requestsPerSecond: z.int().min(1), burst: z.int().min(1) }),
    /** Requests a minute and key by rate class; what is left out has the default of the API. */
    rateLimits: z.record(z.string(), z.int().min(1)),
    /** Gets the alarms. */
    alarmEmail: z.email().optional(),
    /** The model that names clusters: none (their words do), one behind an OpenAI-compatible URL, or one of Bedrock. */
    labels: LabelSettings,
  })
  .superRefine((settings, ctx) => {
    if (settings.allowLoopback && settings.stage !== 'local') {
      ctx.addIssue({
        code: 'custom',
        path: ['allowLoopback'],
        message: 'only the stage "local" may allow it',
      });
    }
    if (settings.tenancy !== (settings.stage !== 'local')) {
      // `core/aws/ports.ts` names the tenant of each call everywhere but in the local stage.
      ctx.addIssue({
        code: 'custom',
        path: ['tenancy'],
        message: 'must be on everywhere but in the stage "local"',
      });
    }
  });
export type StageSettings = z.output<typeof StageSettings>;

const base: StageSettings = {
  stage: 'base',
  keepData: false,
  observed: true,
  layers: true,
  tenancy: true,
  runnerNetwork: 'isolated',
  runnerEgress: false,
  runnerLarge: false,
  containerImages: false,
  allowLoopback: false,
  realtimePlugins: true,
  logLevel: 'INFO',
  logRetentionDays: 30,
  sizing,
  reservedConcurrency: {},
  scanFunctions: 4,
  s3Vectors: false,
  lancedb: false,
  mapConcurrency: 4,
  queueConcurrency: 2,
  throttling: { requestsPerSecond: 100, burst: 200 },
  rateLimits: {},
  labels: { provider: 'none' },
};

const unlimited = 10_000_000;

const stages: Readonly<Record<string, StageSettings>> = {
  /** An emulator on this machine. Every concurrent call is a process there, so there are few at a time. */
  local: {
    ...base,
    stage: 'local',
    observed: false,
    layers: false,
    tenancy: false,
    runnerNetwork: 'open',
    allowLoopback: true,
    scanFunctions: 2,
    mapConcurrency: 2,
    throttling: { requestsPerSecond: 10_000, burst: 5_000 },
    rateLimits: {
      metadata: unlimited,
      data: unlimited,
      search: unlimited,
      upload: unlimited,
      compute: unlimited,
    },
  },
  /** Fits a new AWS account: memory up to 3,008 MB, ten concurrent executions, nothing reserved. */
  dev: { ...base, stage: 'dev' },
  /** Needs from the account: 1,000 concurrent Lambda executions and Lambda memory of 10,240 MB. */
  prod: {
    ...base,
    stage: 'prod',
    keepData: true,
    sizing: {
      ...sizing,
      query: { ...sizing.query, memoryMb: 5308 },
      // As much as a query: what can be searched can be compacted.
      compact: { ...sizing.compact, memoryMb: 5308 },
      clusterer: { ...sizing.clusterer, memoryMb: 10_240 },
    },
    runnerLarge: true,
    // Requests keep answering while batches take all they can get.
    reservedConcurrency: { authorizer: 50, api: 100, query: 150, deliver: 20, compact: 10 },
    scanFunctions: 32,
    mapConcurrency: 40,
    queueConcurrency: 10,
    throttling: { requestsPerSecond: 1000, burst: 2000 },
  },
};

export const stageNames: readonly string[] = Object.keys(stages);

/**
 * The settings of a stage.
 *
 * @param name one of `stageNames`, from the context: `-c stage=dev`
 * @param overrides what the command line may set: `alarmEmail`, `labels`
 * @throws Error that names every wrong setting
 */
export function stageSettings(
  name: string,
  overrides: {
    readonly alarmEmail?: string | undefined;
    readonly labels?: unknown;
  } = {},
): StageSettings {
  const settings = stages[name];
  if (!settings) {
    throw new Error(
      `there is no stage ${JSON.stringify(name)}; choose one with -c stage=<${stageNames.join('|')}>`,
    );
  }
  const given = Object.fromEntries(Object.entries(overrides).filter(([, value]) => value !== undefined));
  return checkedSettings({ ...settings, ...given });
}

/** Checks settings that do not come from this file, as tests make them. @throws Error that names every wrong setting */
export function checkedSettings(settings: unknown): StageSettings {
  const checked = StageSettings.safeParse(settings);
  if (!checked.success)
    throw new Error(`settings of the stage are wrong:\n${z.prettifyError(checked.error)}`);
  return checked.data;
}
