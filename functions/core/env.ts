// The environment of every Lambda: which values each one has, and how they are read. Infra supplies exactly these.

/** What each value is, for whoever wires a stack. */
export const environmentValues = {
  STAGE: 'name of the stage, for logs and metrics',
  LOG_LEVEL: 'DEBUG, INFO, WARN or ERROR',
  TABLE_NAME: 'the one table',
  BLOB_BUCKET: 'bucket of object bytes, chunk files and results',
  ARCHIVE_BUCKET: 'bucket of plugin archives',
  INDEX_BUCKET: 'bucket of index segments and manifests',
  RUNNER_FUNCTION: 'name of the plugin runner',
  RUNNER_VARIANTS: 'JSON: names of further plugin runners, {egress?, large?}',
  IMAGE_FUNCTIONS:
    'JSON: how plugins in container images are run, {} for not at all (see core/aws/image-functions.ts)',
  VALIDATOR_FUNCTION: 'name of the plugin validator',
  PEPPER_SECRET: 'ARN of the secret behind key hashes and cursors',
  BOOTSTRAP_SECRET: 'ARN of the secret that may create the first API key',
  RATE_LIMITS: 'JSON: requests a minute by rate class; empty object for the defaults',
  ALLOW_LOOPBACK: 'true in the local stage only: webhooks and blob URLs may reach loopback addresses',
  REALTIME_PLUGINS: 'true where plugins can be deployed for realtime inference',
  JOBS_QUEUE_URL: 'queue between relay and starter',
  INDEX_JOBS_QUEUE_URL: 'queue between starter and the worker of the indexes',
  EVENT_BUS: 'name of the event bus',
  DELIVERIES_QUEUE_URL: 'queue of webhook deliveries',
  BATCH_WORKFLOW: 'ARN of the batch state machine',
  CLUSTER_WORKFLOW: 'ARN of the cluster state machine',
  TAXONOMY_WORKFLOW: 'ARN of the taxonomy state machine',
  NAMESPACE_WORKFLOW: 'ARN of the namespace-delete state machine',
  SCAN_FUNCTIONS: 'JSON: names of the functions that share the scan of large indexes, [] for none',
  VECTOR_BACKENDS:
    'JSON: the vector backends of the stage and how to reach them, {} for none (see core/aws/backends.ts)',
  LABEL_MODEL:
    'JSON: the model that names clusters, {"provider": "none"} for none (see core/labels/settings.ts)',
} as const;

export type EnvironmentName = keyof typeof environmentValues;

const base = ['STAGE', 'LOG_LEVEL', 'TABLE_NAME'] as const;
const storage = [...base, 'BLOB_BUCKET', 'ARCHIVE_BUCKET', 'INDEX_BUCKET'] as const;
const services = [
  ...storage,
  'RUNNER_FUNCTION',
  'RUNNER_VARIANTS',
  'IMAGE_FUNCTIONS',
  'VALIDATOR_FUNCTION',
  'PEPPER_SECRET',
  'RATE_LIMITS',
  'ALLOW_LOOPBACK',
  'REALTIME_PLUGINS',
  'SCAN_FUNCTIONS',
  'VECTOR_BACKENDS',
] as const;

/** The names that each TypeScript Lambda reads: the folder's name -> its values. A test compares this with the templates. */
export const lambdaEnvironment = {
  api: services,
  query: services,
  authorizer: [...base, 'PEPPER_SECRET', 'BOOTSTRAP_SECRET'],
  relay: [...base, 'JOBS_QUEUE_URL', 'EVENT_BUS'],
  starter: [
    ...base,
    'JOBS_QUEUE_URL',
    'INDEX_JOBS_QUEUE_URL',
    'BATCH_WORKFLOW',
    'CLUSTER_WORKFLOW',
    'TAXONOMY_WORKFLOW',
    'NAMESPACE_WORKFLOW',
  ],
  batch: services,
  chunk: services,
  scan: ['STAGE', 'LOG_LEVEL', 'INDEX_BUCKET'],
  taxonomy: services,
  alert: services,
  cluster: [...services, 'LABEL_MODEL'],
  namespace: services,
  compact: [...base, 'BLOB_BUCKET', 'INDEX_BUCKET', 'VECTOR_BACKENDS'],
  deliver: [...base, 'BLOB_BUCKET', 'PEPPER_SECRET', 'ALLOW_LOOPBACK', 'DELIVERIES_QUEUE_URL'],
  sweep: [...base, 'JOBS_QUEUE_URL', 'EVENT_BUS', 'DELIVERIES_QUEUE_URL'],
} as const satisfies Record<string, readonly EnvironmentName[]>;

export type LambdaName = keyof typeof lambdaEnvironment;

/** The values of one Lambda, as infra must supply them. */
export type EnvironmentOf<L extends LambdaName> = Readonly<
  Record<(typeof lambdaEnvironment)[L][number], string>
>;

/**
 * Reads the environment of a Lambda once, at its start.
 *
 * @throws Error that names every missing value, so that a wiring fault shows on the first invocation.
 */
export function readEnvironment<L extends LambdaName>(
  lambda: L,
  source: Readonly<Record<string, string | undefined>> = process.env,
): EnvironmentOf<L> {
  const names: readonly EnvironmentName[] = lambdaEnvironment[lambda];
  const missing = names.filter((name) => source[name] === undefined || source[name] === '');
  if (missing.length > 0) {
    throw new Error(
      `the Lambda "${lambda}" lacks ${missing.map((n) => `${n} (${environmentValues[n]})`).join('; ')} in its environment`,
    );
  }
  return Object.fromEntries(names.map((name) => [name, source[name]])) as EnvironmentOf<L>;
}
