// 10,000 objects through one batch, of which one chunk dies in the middle and one is delivered twice: every object has
// its document, and no object has two.
import { DynamoDBClient, QueryCommand } from '@aws-sdk/client-dynamodb';
import { InvokeCommand, LambdaClient } from '@aws-sdk/client-lambda';
import { GetObjectCommand, S3Client } from '@aws-sdk/client-s3';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ProcessRow } from '../../local/processes.js';
import { listProcesses } from '../../local/processes.js';
import type { Json, Setup, Workspace } from './stack.ts';
import {
  batchEnd,
  listAll,
  makeCollection,
  makeWorkspace,
  output,
  putTexts,
  searchStages,
  stack,
  triggerBatch,
  until,
  usePlugin,
} from './stack.ts';

const count = 10_000;
const deadlineMs = 600_000;
const endpoint = stack.endpoint === undefined ? {} : { endpoint: stack.endpoint };
const dynamo = new DynamoDBClient(endpoint);
const lambda = new LambdaClient(endpoint);
const s3 = new S3Client({ ...endpoint, forcePathStyle: true });

/** The chunks that the plan of a batch wrote for the state machine; undefined before it is planned. */
async function plannedChunks(space: Workspace, batchId: string): Promise<Json[] | undefined> {
  const Key = `batches/${space.namespaceId}/${batchId}/1/chunks.json`;
  try {
    const { Body } = await s3.send(new GetObjectCommand({ Bucket: output('BlobBucketName'), Key }));
    return JSON.parse(await Body!.transformToString()) as Json[];
  } catch (error) {
    if ((error as Error).name === 'NoSuchKey') return undefined;
    throw error;
  }
}

/** Numbers of the chunks that are done, by their receipts. */
async function chunksDone(batchId: string): Promise<Set<number>> {
  const { Items = [] } = await dynamo.send(
    new QueryCommand({
      TableName: output('TableName'),
      ConsistentRead: true,
      KeyConditionExpression: 'pk = :pk',
      ExpressionAttributeValues: { ':pk': { S: `BTCH#${batchId}#1` } },
    }),
  );
  return new Set(Items.filter((item) => item.rows_written?.BOOL).map((item) => Number(item.chunk!.N)));
}

/** The processes in which the emulator of this test runs chunks. */
function chunkWorkers(): ProcessRow[] {
  const name = `ministack-lambda-${output('ChunkFunctionName')}-`;
  return listProcesses().filter((row) => row.parent === stack.emulator_pid && row.command.includes(name));
}

/** Delivers a chunk as the state machine does. @returns its answer, or the error that it ended with */
async function deliver(pointer: Json): Promise<Json> {
  const { org_id, namespace_id, bucket_id, batch_id, attempt, request_id } = pointer;
  const job = { kind: 'batch', org_id, namespace_id, bucket_id, batch_id, attempt, request_id };
  const { Payload, FunctionError } = await lambda.send(
    new InvokeCommand({
      FunctionName: output('ChunkFunctionName'),
      Payload: JSON.stringify({ step: 'chunk', job, item: pointer }),
    }),
  );
  const answer = JSON.parse(Buffer.from(Payload!).toString());
  if (FunctionError !== undefined) throw new Error(`the chunk failed: ${JSON.stringify(answer)}`);
  return answer;
}

/** Kills every process that runs chunks while none of the chunks that are left can end. @returns the chunks not done then */
async function killInMidFlight(batchId: string, planned: number): Promise<number> {
  const workers = chunkWorkers();
  expect(workers.length).toBeGreaterThan(0);
  for (const { pid } of workers) process.kill(pid, 'SIGSTOP');
  try {
    // Whatever they were doing now stands still; when no receipt comes any more, they hold what is being done.
    let last = -1;
    let same = 0;
    const done = await until('standstill', async () => {
      const { size } = await chunksDone(batchId);
      same = size === last ? same + 1 : 0;
      last = size;
      return same >= 5 ? size : undefined;
    });
    expect(done).toBeLessThan(planned);
    return planned - done;
  } finally {
    for (const { pid } of workers) process.kill(pid, 'SIGKILL');
  }
}

describe.runIf(stack.emulator_pid !== undefined)(`${count} objects in one batch`, () => {
  let space: Workspace;
  let setup: Setup;
  let ids: string[];

  beforeAll(async () => {
    space = await makeWorkspace('ten-thousand');
    await usePlugin(space);
    setup = await makeCollection(space, 'many');
    ids = await putTexts(
      space,
      setup,
      Array.from({ length: count }, (_, i) => ({
        text: `object ${i} of many, called word${i}`,
        metadata: { i },
      })),
    );
  }, deadlineMs);
  afterAll(() => space?.close());

  it('each make one document, although a chunk is killed and another is delivered twice', {
    timeout: deadlineMs,
  }, async () => {
    expect(new Set(ids).size).toBe(count);
    const { batch_id } = await triggerBatch(space, setup);
    const pointers = await until('the plan', () => plannedChunks(space, batch_id));
    expect(pointers.length).toBeGreaterThanOrEqual(10);

    // The last chunk, by hand, while the state machine is still at the first ones; it will deliver it once more.
    const early = pointers.at(-1)!;
    expect(await deliver(early)).toMatchObject({ chunk: early.chunk, done: true });
    const done = await until('a chunk that is done', async () => {
      const found = await chunksDone(batch_id);
      return found.size >= 2 ? found : undefined;
    });
    expect(done.size).toBeLessThan(pointers.length);
    expect(await killInMidFlight(batch_id, pointers.length)).toBeGreaterThan(0);

    const batch = await batchEnd(space, setup, batch_id, deadlineMs);
    expect(batch).toMatchObject({
      status: 'COMPLETED',
      attempt: 1,
      progress: { total: count, processed: count, failed: 0, skipped: 0 },
    });
    // And once more when all is over.
    await deliver(pointers[0]!);

    const documents = await listAll(space, `${setup.collection}/documents`, {}, 1000);
    const made = documents.map((document) => document._internal.lineage.object_id as string);
    expect(made).toHaveLength(count);
    expect(made.sort()).toEqual([...ids].sort());
    expect(new Set(documents.map((document) => document.document_id)).size).toBe(count);
    expect(await space.client.call('GET', setup.collection)).toMatchObject({ document_count: count });
  });

  it('are all in the index: a search finds each of a sample by its own words', async () => {
    const { retriever_id } = await space.client.call('POST', `${space.path}/retrievers`, {
      name: 'search',
      stages: searchStages(),
    });
    const sample = Array.from({ length: 20 }, (_, k) => k * 500 + 7);
    const reply = await space.client.call('POST', `${space.path}/retrievers/${retriever_id}/execute/batch`, {
      queries: sample.map((i) => ({ inputs: { query: `object ${i} of many, called word${i}` }, limit: 1 })),
    });
    expect(reply.results.map((one: Json) => one.results[0]?.i)).toEqual(sample);
  });
});
