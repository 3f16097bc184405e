// The parts of a state machine in the Amazon States Language (JSONPath), as plain data.
import { errorTable, wireTypes } from '../../functions/core/errors.ts';
import type { Job } from '../../functions/core/events.ts';

export type State = Readonly<Record<string, unknown>> & { readonly Type: string };

export interface Definition {
  readonly Comment: string;
  readonly StartAt: string;
  readonly TimeoutSeconds?: number;
  readonly States: Readonly<Record<string, State>>;
}

/** Work on an index goes through a queue and no state machine; a schedule makes a job of its own. */
type StateJob = Exclude<Job, { kind: 'index' | 'cluster_schedule' }>;

type Fields<K extends StateJob['kind']> = readonly Exclude<keyof Extract<Job, { kind: K }>, 'kind'>[];

/** What each kind of job says; a field that `Job` does not have does not compile. */
export const jobFields = {
  batch: ['org_id', 'namespace_id', 'bucket_id', 'batch_id', 'attempt', 'request_id'],
  cluster: ['org_id', 'namespace_id', 'cluster_id', 'run_id', 'request_id'],
  taxonomy: ['org_id', 'namespace_id', 'taxonomy_id', 'collection_id', 'run_id', 'request_id'],
  namespace_delete: ['org_id', 'namespace_id', 'request_id'],
} as const satisfies { [K in StateJob['kind']]: Fields<K> };

/** Parameters that copy fields of the state: `{'org_id.$': '$.org_id', ...}`. */
export function copied(fields: readonly string[]): Record<string, string> {
  return Object.fromEntries(fields.map((field) => [`${field}.$`, `$.${field}`]));
}

/** The fields of a job of this kind, with the kind itself. */
export function job(kind: StateJob['kind']): Record<string, string> {
  return copied(['kind', ...jobFields[kind]]);
}

/** Faults of the services between a state machine and its Lambda. @see AWS: error handling in Step Functions */
const serviceFaults = [
  'Lambda.ClientExecutionTimeoutException',
  'Lambda.ServiceException',
  'Lambda.AWSLambdaException',
  'Lambda.SdkClientException',
  'Lambda.TooManyRequestsException',
];

/** Codes of ours after which the same step may well succeed: something was busy or away, nothing was refused. */
export const retryableCodes: readonly string[] = Object.entries(errorTable)
  .filter(([, { retryable, type }]) => retryable && wireTypes[type] >= 500)
  .map(([code]) => code);

/** A run that ended without saying why: out of time, out of memory, killed. */
const deaths = [
  'States.Timeout',
  // The middleware of our Lambdas ends them a few milliseconds before the service would.
  'TimeoutError',
  'Lambda.Unknown',
  'Sandbox.Timedout',
  'Runtime.ExitError',
  'Runtime.OutOfMemory',
];

/** Every step is safe to repeat. Faults of services are waited for; deaths are tried once more. */
export const retries: readonly unknown[] = [
  {
    ErrorEquals: [...serviceFaults, ...retryableCodes],
    IntervalSeconds: 1,
    BackoffRate: 2,
    MaxAttempts: 6,
    MaxDelaySeconds: 30,
    JitterStrategy: 'FULL',
  },
  { ErrorEquals: deaths, IntervalSeconds: 2, BackoffRate: 2, MaxAttempts: 1 },
];

export interface StepInput {
  readonly functionArn: string;
  /** The whole payload. @default the state as it is at `inputPath` */
  readonly payload?: Readonly<Record<string, unknown>>;
  /** @default '$' */
  readonly inputPath?: string;
  /** Where the reply goes; null drops it. */
  readonly resultPath: string | null;
  /** A little longer than the Lambda itself may run, so that its own timeout is what is seen. */
  readonly timeoutSeconds: number;
  readonly next: string | null;
  readonly catch?: { readonly next: string; readonly resultPath: string };
  readonly retry?: readonly unknown[];
}

/** Calls a Lambda and waits for its reply. */
export function step(input: StepInput): State {
  return {
    Type: 'Task',
    Resource: input.functionArn,
    ...(input.inputPath === undefined ? {} : { InputPath: input.inputPath }),
    ...(input.payload === undefined ? {} : { Parameters: input.payload }),
    ResultPath: input.resultPath,
    TimeoutSeconds: input.timeoutSeconds,
    Retry: input.retry ?? retries,
    ...(input.catch ? { Catch: catchAll(input.catch.next, input.catch.resultPath) } : {}),
    ...goTo(input.next),
  };
}

export function catchAll(next: string, resultPath: string | null): readonly unknown[] {
  return [{ ErrorEquals: ['States.ALL'], ResultPath: resultPath, Next: next }];
}

/** @param next null ends the machine */
export function goTo(next: string | null): { Next: string } | { End: true } {
  return next === null ? { End: true } : { Next: next };
}
