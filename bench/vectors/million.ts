// `npm run bench:million`: shows that a million vectors of 384 dimensions, behind the deployed API on an emulator, are
// searched exactly within the memory of one function. Prints what it saw and PASS or FAIL.
//
//   npm run bench:million                       a million rows: some minutes, 8 GB of memory
//   npm run bench:million -- --rows 20000       to try it
//   npm run bench:million -- --seed 2           other vectors
import { cpSync, mkdirSync, readFileSync, statfsSync, writeFileSync } from 'node:fs';
import { freemem, loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { DynamoDBClient } from '@aws-sdk/client-dynamodb';
import { GetFunctionConfigurationCommand, LambdaClient } from '@aws-sdk/client-lambda';
import { S3Client } from '@aws-sdk/client-s3';
import { DynamoTable } from '../../functions/core/aws/dynamo.ts';
import { S3Blobs } from '../../functions/core/aws/s3.ts';
import { systemClock, systemRandom } from '../../functions/core/clock.ts';
import { workflowContext } from '../../functions/core/context.ts';
import type { Ports } from '../../functions/core/ports.ts';
import { ownOrganization } from '../../functions/core/resources/keys/service.ts';
import { outputOf } from '../../local/bootstrap-key.ts';
import type { Json } from '../../local/demo/client.ts';
import { localAccessKey, localRegion, projectFolder } from '../../local/emulator.ts';
import { listProcesses } from '../../local/processes.js';
import type { Figure } from '../figures.ts';
import { rounded, tableOf } from '../figures.ts';
import { commit, machine } from '../machine.ts';
import { median, treeCpuMs } from '../measure.ts';
import type { BenchDeployment } from '../stack.ts';
import { installPlugin, makeDeployment, plugin, pluginFolder } from '../stack.ts';
import type { Asked, Hit, Written } from './write-million.ts';
import { writeMillion } from './write-million.ts';

const { values: given } = parseArgs({
  options: {
    rows: { type: 'string', default: '1000000' },
    seed: { type: 'string', default: '1' },
  },
});
const rows = Number(given.rows);
const seed = Number(given.seed);
const dims = 384;
const k = 10;
const queries = 6;
const warmRounds = 5;
const fullRows = 1_000_000;
/** The product keeps inverse lengths of rows in float32. */
const scoreTolerance = 1e-6;
const stage = 'search';

const started = performance.now();
const say = (line: string) =>
  console.log(`${((performance.now() - started) / 1000).toFixed(1).padStart(7)} s  ${line}`);
const megabytes = (bytes: number) => Math.round(bytes / 2 ** 20);

/** The emulator keeps objects in its memory, the query function takes up to what it is given; a little for us. */
function checkRoom(): void {
  const needed = rows * dims * 5 * 1.2 + 3008 * 2 ** 20 + 2 ** 30;
  const wrong = (what: string, free: number, wanted: number) =>
    new Error(
      `${rows} rows need about ${megabytes(wanted)} MB of ${what}, ${megabytes(free)} MB are free. ` +
        'Make room, or try fewer: npm run bench:million -- --rows 100000',
    );
  if (freemem() < needed) throw wrong('memory', freemem(), needed);
  const { bavail, bsize } = statfsSync(tmpdir());
  if (bavail * bsize < 2 ** 30) throw wrong(`disk in ${tmpdir()}`, bavail * bsize, 2 ** 30);
}

/** The sample plugin with more dimensions: the feature must be one that a plugin declares. */
function widerPlugin(folder: string): string {
  const wider = join(folder, plugin.name);
  cpSync(pluginFolder, wider, { recursive: true, filter: (path) => !path.includes('__pycache__') });
  for (const [name, line] of [
    ['manifest.py', '"embedding_dim": '],
    ['pipeline.py', 'DIMS = '],
  ] as const) {
    const file = join(wider, name);
    const text = readFileSync(file, 'utf8');
    const changed = text.replace(new RegExp(`(${line})\\d+`), `$1${dims}`);
    if (changed === text) throw new Error(`${file} does not say ${line} any more`);
    writeFileSync(file, changed);
  }
  return wider;
}

/** Ports of this process at the emulator, as far as writing an index needs them. */
function portsOf({ emulator, deployment }: BenchDeployment): Ports {
  const options = {
    endpoint: emulator.endpoint,
    region: localRegion,
    credentials: { accessKeyId: localAccessKey, secretAccessKey: 'test' },
  };
  const s3 = new S3Client({ ...options, forcePathStyle: true });
  const log = { info: say, warn: say, error: say };
  return {
    table: new DynamoTable(outputOf(deployment, 'TableName'), new DynamoDBClient(options)),
    index: new S3Blobs(outputOf(deployment, 'IndexBucketName'), s3),
    blobs: new S3Blobs(outputOf(deployment, 'BlobBucketName'), s3),
    clock: systemClock,
    random: systemRandom,
    log,
  } as unknown as Ports;
}

/** The processes in which the emulator runs a function. */
function workersOf(emulatorPid: number, functionName: string): number[] {
  return listProcesses()
    .filter(
      ({ parent, command }) =>
        parent === emulatorPid && command.includes(`ministack-lambda-${functionName}-`),
    )
    .map(({ pid }) => pid);
}

/** Bytes of a process by /proc; `VmHWM` is the most that it ever had resident. */
function memoryOf(pid: number, name: 'VmHWM' | 'VmRSS'): number {
  const kilobytes = new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(
    readFileSync(`/proc/${pid}/status`, 'utf8'),
  )?.[1];
  if (kilobytes === undefined) throw new Error(`/proc/${pid}/status does not say ${name}`);
  return Number(kilobytes) * 1024;
}

interface Answer {
  readonly ms: number;
  /** CPU of the function's process. */
  readonly cpuMs: number;
  readonly note: Json;
}

/** The deployed retriever, and the function that runs it. */
interface Target {
  readonly deployed: BenchDeployment;
  /** Of the execute request. */
  readonly path: string;
  readonly functionName: string;
}

/** @throws Error if it does not find the true neighbours */
async function ask(
  { deployed, path, functionName }: Target,
  asked: Asked,
  filtered: boolean,
): Promise<Answer> {
  const { client, emulator } = deployed;
  const cpu = () =>
    workersOf(emulator.pid, functionName).reduce((sum, pid) => sum + (treeCpuMs(pid) ?? 0), 0);
  const cpuBefore = cpu();
  const begin = performance.now();
  const reply: Json = await client.call('POST', path, {
    inputs: { vector: [...asked.vector] },
    limit: k,
    ...(filtered ? { filters: { field: 'group', operator: 'eq', value: asked.group } } : {}),
  });
  const ms = performance.now() - begin;
  const { output_count, metadata } = reply.stage_statistics.stages[stage];
  const hits: Hit[] = reply.results.map((hit: Json) => ({ id: hit.document_id, score: hit.score }));
  assertTrue(hits, filtered ? asked.ofGroup : asked.all, output_count);
  return { ms, cpuMs: cpu() - cpuBefore, note: metadata.searches[0] };
}

/** @throws Error if these are not the true neighbours in their order */
function assertTrue(found: readonly Hit[], expected: readonly Hit[], count: number): void {
  const same =
    count === expected.length &&
    found.length === expected.length &&
    found.every(
      ({ id, score }, i) => id === expected[i]!.id && Math.abs(score - expected[i]!.score) <= scoreTolerance,
    );
  if (same) return;
  const lines = expected.map(({ id, score }, i) => {
    const { [i]: other } = found;
    return `  ${id} ${score}   ${other ? `${other.id} ${other.score}` : 'nothing'}`;
  });
  throw new Error(`not the true neighbours; ${count} hits. Expected and found:\n${lines.join('\n')}`);
}

/** Makes everything that a search needs, by the API, but for the rows of the index. */
async function makeTarget(deployed: BenchDeployment): Promise<{ target: Target; written: Written }> {
  const { client, deployment, folder } = deployed;
  const { namespace_id }: Json = await client.call('POST', '/v1/namespaces', { namespace_name: 'million' });
  const namespace = `/v1/namespaces/${namespace_id}`;
  await installPlugin(deployed, namespace, { ...plugin, folder: widerPlugin(folder) });
  const { bucket_id }: Json = await client.call('POST', `${namespace}/buckets`, {
    name: 'texts',
    bucket_schema: { properties: { text: { type: 'text', required: true } } },
  });
  const collection: Json = await client.call('POST', `${namespace}/collections`, {
    name: 'million',
    feature_extractors: [{ feature_extractor_name: plugin.name, version: plugin.version }],
    source: { type: 'bucket', bucket_ids: [bucket_id] },
  });
  const [feature] = collection.features;
  if (feature.embedding_dim !== dims) throw new Error(`the plugin makes ${feature.embedding_dim} dimensions`);
  const ctx = workflowContext(portsOf(deployed), {
    org_id: ownOrganization,
    namespace_id,
    request_id: 'bench-million',
  });
  say(`writing ${rows} rows into the index`);
  const spec = {
    collectionId: collection.collection_id,
    bucketId: bucket_id,
    pluginId: plugin.id,
    featureUri: feature.feature_uri,
    rows,
    dims,
    seed,
    queries,
    k,
  };
  const written = await writeMillion(ctx, spec, say);
  const search = {
    feature_uri: feature.feature_uri,
    query: { input_mode: 'vector', vector: '{{INPUT.vector}}' },
  };
  const { retriever_id }: Json = await client.call('POST', `${namespace}/retrievers`, {
    name: 'nearest',
    collection_identifiers: ['million'],
    stages: [
      {
        stage_name: stage,
        stage_type: 'filter',
        config: {
          stage_id: 'feature_search',
          parameters: { searches: [{ ...search, top_k: k }], final_top_k: k },
        },
      },
    ],
  });
  const path = `${namespace}/retrievers/${retriever_id}/execute`;
  return { target: { deployed, path, functionName: outputOf(deployment, 'QueryFunctionName') }, written };
}

async function memoryLimit({ emulator }: BenchDeployment, functionName: string): Promise<number> {
  const lambda = new LambdaClient({
    endpoint: emulator.endpoint,
    region: localRegion,
    credentials: { accessKeyId: localAccessKey, secretAccessKey: 'test' },
  });
  const { MemorySize } = await lambda.send(
    new GetFunctionConfigurationCommand({ FunctionName: functionName }),
  );
  if (MemorySize === undefined) throw new Error(`${functionName} does not say what memory it has`);
  return MemorySize * 2 ** 20;
}

async function run(deployed: BenchDeployment): Promise<{ figures: Figure[]; faults: string[] }> {
  const { target, written } = await makeTarget(deployed);
  const { functionName } = target;
  say(
    `${written.segments} segments of ${megabytes(written.bytes / written.segments)} MB, ` +
      `${megabytes(written.bytes)} MB in all; document rows for the ${written.documentRows} true neighbours only`,
  );
  const answers = { first: [] as Answer[], all: [] as Answer[], filtered: [] as Answer[] };
  const tell = (what: string, { ms, cpuMs, note }: Answer) => {
    const resident = workersOf(deployed.emulator.pid, functionName).map((pid) => memoryOf(pid, 'VmRSS'));
    say(
      `${what}: ${Math.round(ms)} ms, CPU ${cpuMs} ms, shards ${note.shards}, cold ${note.cold}, ` +
        `${megabytes(note.bytes_scanned)} MB scanned, ${note.reranked} scored again, ` +
        `${note.rows_selected} rows selected, resident ${resident.map(megabytes).join(' + ')} MB`,
    );
  };
  for (const filtered of [false, true]) {
    for (const [q, asked] of written.asked.entries()) {
      const answer = await ask(target, asked, filtered);
      answers.first.push(answer);
      tell(`query ${q + 1}${filtered ? `, of ${asked.group}` : ''}`, answer);
    }
  }
  for (let round = 0; round < warmRounds; round += 1) {
    for (const asked of written.asked) {
      answers.all.push(await ask(target, asked, false));
      answers.filtered.push(await ask(target, asked, true));
    }
  }
  const workers = workersOf(deployed.emulator.pid, functionName);
  const peak = Math.max(...workers.map((pid) => memoryOf(pid, 'VmHWM')));
  const limit = await memoryLimit(deployed, functionName);
  const everything = [...answers.first, ...answers.all, ...answers.filtered];
  const notes = everything.map(({ note }) => note);
  say(
    `${everything.length} searches found the true neighbours; the query function had ${megabytes(peak)} MB ` +
      `of its ${megabytes(limit)} MB at most, in ${workers.length} process`,
  );
  const faults = [
    ...(workers.length === 1 ? [] : [`${workers.length} processes ran the query function, not one`]),
    ...(peak <= limit ? [] : [`it used ${megabytes(peak)} MB of ${megabytes(limit)} MB`]),
    ...(notes.every(({ shards }) => shards === 1) ? [] : ['other functions took part']),
    ...(notes.every(({ exact }) => exact === true) ? [] : ['an answer does not call itself exact']),
    ...(notes[0].cold === true ? [] : ['the first search says that it was not cold']),
  ];
  const figure = (
    name: string,
    value: number,
    unit: string,
    runs = 1,
    goal: number | null = null,
  ): Figure => ({
    name: `million_${name}`,
    value,
    unit,
    goal,
    better: 'lower',
    runs,
  });
  const of = (some: readonly Answer[], pick: (answer: Answer) => number) => median(some.map(pick));
  const warm = (name: string, some: readonly Answer[]) => [
    figure(
      `${name}_ms`,
      of(some, ({ ms }) => ms),
      'ms',
      some.length,
    ),
    figure(
      `${name}_cpu_ms`,
      of(some, ({ cpuMs }) => cpuMs),
      'ms CPU',
      some.length,
    ),
    figure(
      `${name}_bytes_scanned`,
      of(some, ({ note }) => note.bytes_scanned),
      'bytes',
      some.length,
    ),
    figure(
      `${name}_reranked`,
      of(some, ({ note }) => note.reranked),
      'rows',
      some.length,
    ),
  ];
  const figures: Figure[] = [
    figure('rows', rows, 'rows'),
    figure('segments', written.segments, 'segments'),
    figure('index_bytes', written.bytes, 'bytes'),
    { ...figure('recall', 1, 'ratio', everything.length, 1), better: 'higher' },
    figure('peak_memory_mb', peak / 2 ** 20, 'MB', 1, limit / 2 ** 20),
    figure('shards', Math.max(...notes.map(({ shards }) => shards)), 'functions', notes.length, 1),
    figure('cold_ms', answers.first[0]!.ms, 'ms'),
    figure('cold_cpu_ms', answers.first[0]!.cpuMs, 'ms CPU'),
    // It fetches what the first one did not keep: the vectors themselves, as far as there is room for them.
    figure('second_ms', answers.first[1]!.ms, 'ms'),
    ...warm('warm', answers.all),
    ...warm('filtered', answers.filtered),
  ];
  return { figures, faults };
}

if (![rows, seed].every((value) => Number.isSafeInteger(value) && value > 0) || rows < 1000)
  throw new Error(`--rows is a number from 1000, --seed one from 1; got ${given.rows} and ${given.seed}`);
checkRoom();
const deployed = await makeDeployment(say);
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
  process.once(signal, () => void deployed.close().finally(() => process.exit(130)));
try {
  const { figures, faults } = await run(deployed);
  console.log(`\n${tableOf(figures)}`);
  const folder = join(projectFolder, '.local');
  mkdirSync(folder, { recursive: true });
  const file = join(folder, rows === fullRows ? 'bench-million.json' : 'bench-million-quick.json');
  const rounding = figures.map((figure) => ({ ...figure, value: rounded(figure.value) }));
  const place = { machine: { ...machine(), load: loadavg().map(rounded) }, commit: commit() };
  writeFileSync(file, `${JSON.stringify({ figures: rounding, ...place }, null, 2)}\n`);
  console.log(`\nWritten to ${file}; bench/README.md says how to read it.`);
  for (const fault of faults) console.log(`FAIL: ${fault}`);
  if (faults.length === 0) console.log(`PASS: ${rows} x ${dims}, exact, within one function's memory`);
  process.exitCode = faults.length === 0 ? 0 : 1;
} catch (error) {
  console.log(`FAIL: ${(error as Error).stack}`);
  process.exitCode = 1;
} finally {
  await deployed.close();
}
