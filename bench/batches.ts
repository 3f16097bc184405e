// Batches: how long they take, what they use, where their time goes; and the same plugin in a bare Python loop.
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { callJson } from '../local/aws-call.ts';
import { outputOf } from '../local/bootstrap-key.ts';
import type { Json } from '../local/demo/client.ts';
import { projectPython } from '../local/emulator.ts';
import { treeCpuMs } from './measure.ts';
import type { BenchStack } from './stack.ts';
import { plugin, pluginFolder } from './stack.ts';

const objectsPerCall = 100;
const pollMs = 50;
/** A bound on hanging: what takes longer is broken, not slow. */
const deadlineMs = 900_000;

/** Makes a bucket with one object for each text. @returns its id */
export async function fillBucket(
  { client, namespace }: BenchStack,
  name: string,
  texts: readonly string[],
): Promise<string> {
  const { bucket_id } = (await client.call('POST', `${namespace}/buckets`, {
    name,
    bucket_schema: { properties: { text: { type: 'text', required: true } } },
  })) as Json;
  for (let i = 0; i < texts.length; i += objectsPerCall) {
    const objects = texts.slice(i, i + objectsPerCall).map((data, k) => ({
      blobs: [{ property: 'text', type: 'text', data }],
      metadata: { title: `object ${i + k}` },
    }));
    const made: Json = await client.call('POST', `${namespace}/buckets/${bucket_id}/objects/batch`, {
      objects,
    });
    if (made.failed_count > 0)
      throw new Error(`objects were refused: ${JSON.stringify(made.failed).slice(0, 500)}`);
  }
  return bucket_id;
}

export async function makeCollection(
  { client, namespace }: BenchStack,
  name: string,
  bucketId: string,
): Promise<string> {
  const { collection_id } = (await client.call('POST', `${namespace}/collections`, {
    name,
    feature_extractors: [{ feature_extractor_name: plugin.name, version: plugin.version }],
    source: { type: 'bucket', bucket_ids: [bucketId] },
  })) as Json;
  return collection_id;
}

export interface BatchRun {
  readonly batchId: string;
  readonly objects: number;
  /** From the trigger to the first answer that says COMPLETED. */
  readonly wallMs: number;
  readonly cpuMs: number | undefined;
}

/** Triggers a batch and waits for its end. @throws Error unless every object was processed */
export async function runBatch(stack: BenchStack, bucketId: string, collectionId: string): Promise<BatchRun> {
  const { client, namespace, emulator } = stack;
  const cpuBefore = treeCpuMs(emulator.pid);
  const begin = performance.now();
  const { batch_id }: Json = await client.call('POST', `${namespace}/buckets/${bucketId}/batches/trigger`, {
    collection_ids: [collectionId],
  });
  for (;;) {
    const batch: Json = await client.call('GET', `${namespace}/buckets/${bucketId}/batches/${batch_id}`);
    if (batch.status === 'COMPLETED' || batch.status === 'FAILED') {
      const wallMs = performance.now() - begin;
      const cpuAfter = treeCpuMs(emulator.pid);
      const { total, processed } = batch.progress;
      if (batch.status === 'FAILED' || processed !== total) {
        throw new Error(
          `batch ${batch_id} is ${batch.status} with ${processed} of ${total} processed: ${batch.error ?? JSON.stringify(batch.error_summary)}`,
        );
      }
      return {
        batchId: batch_id,
        objects: total,
        wallMs,
        cpuMs: cpuBefore === undefined || cpuAfter === undefined ? undefined : cpuAfter - cpuBefore,
      };
    }
    if (performance.now() - begin > deadlineMs)
      throw new Error(
        `batch ${batch_id} did not end within ${deadlineMs / 1000} s; it is ${batch.status}, ${batch.lifecycle}`,
      );
    await new Promise((resolve) => setTimeout(resolve, pollMs));
  }
}

export interface StepTime {
  readonly step: string;
  readonly ms: number;
}

interface HistoryEvent {
  readonly type: string;
  readonly timestamp: number | string;
  readonly stateEnteredEventDetails?: { readonly name: string };
  readonly stateExitedEventDetails?: { readonly name: string };
}

const millisecondsOf = (time: number | string): number =>
  typeof time === 'number' ? time * 1000 : Date.parse(time);

/**
 * Where a batch spent its time, by the state machine's own record: before the workflow began, each state, and after it.
 *
 * @see https://docs.aws.amazon.com/step-functions/latest/apireference/API_GetExecutionHistory.html
 */
export async function stepTimes(stack: BenchStack, bucketId: string, batchId: string): Promise<StepTime[]> {
  const { client, namespace, emulator, deployment } = stack;
  const batch: Json = await client.call('GET', `${namespace}/buckets/${bucketId}/batches/${batchId}`);
  const machine = outputOf(deployment, 'BatchWorkflowArn');
  const executionArn = `${machine.replace(':stateMachine:', ':execution:')}:${batchId}-${batch.attempt}`;
  const { events } = (await callJson(emulator.endpoint, 'states', 'AWSStepFunctions.GetExecutionHistory', {
    executionArn,
    maxResults: 1000,
    includeExecutionData: false,
  })) as { events: HistoryEvent[] };
  const entered = new Map<string, number>();
  const times: StepTime[] = [
    {
      step: 'trigger, relay, queue, starter',
      ms: millisecondsOf(events[0]!.timestamp) - Date.parse(batch.created_at),
    },
  ];
  for (const event of events) {
    const at = millisecondsOf(event.timestamp);
    const begun = event.stateEnteredEventDetails?.name;
    if (begun !== undefined) entered.set(begun, at);
    const ended = event.stateExitedEventDetails?.name;
    const since = ended === undefined ? undefined : entered.get(ended);
    if (ended !== undefined && since !== undefined) times.push({ step: ended, ms: at - since });
  }
  return times;
}

export interface BareRun {
  readonly count: number;
  readonly wallMs: number;
  readonly cpuMs: number;
}

/** The plugin's steps in a plain loop over the same texts, in frames of the plugin's own batch size. */
export function runBare(texts: readonly string[], counts: readonly number[], rows: number): BareRun[] {
  const script = fileURLToPath(new URL('bare_loop.py', import.meta.url));
  const { status, stdout, stderr } = spawnSync(projectPython, [script, pluginFolder], {
    input: JSON.stringify({ texts, counts, rows }),
    encoding: 'utf8',
    maxBuffer: 64e6,
  });
  if (status !== 0) throw new Error(`the bare loop failed:\n${stderr.slice(-2000)}`);
  const { runs } = JSON.parse(stdout) as { runs: { count: number; wall_ms: number; cpu_ms: number }[] };
  return runs.map(({ count, wall_ms, cpu_ms }) => ({ count, wallMs: wall_ms, cpuMs: cpu_ms }));
}
