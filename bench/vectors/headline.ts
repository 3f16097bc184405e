// The main measure: random vectors of 384 dimensions, everything and everybody in the same rounds.
import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { median } from '../measure.ts';
import { npmPackages } from '../rivals.ts';
import { buildIndex } from './build-index.ts';
import { assertIdentical, assertSameHits, hitsOf } from './check.ts';
import type { Contestant } from './contestant.ts';
import { nodeProgram } from './contestant.ts';
import { fileOf, makeData } from './make-data.ts';
import { arenaMegabytes, ourProgram, Programs } from './programs.ts';
import { bestReader } from './read-limit.ts';
import type { Bench } from './report.ts';
import type { Entry, Samples } from './rounds.ts';
import { measureRounds, timesFaster } from './rounds.ts';
import { batchSize, hundredthsAsked } from './settings.ts';
import { assertBatch, assertOurs, assertTrue, findTruth } from './truth.ts';

const dims = 384;

/** @param rows at 260,000 a scan reads 400 MB, which no cache holds */
export async function measureHeadline(
  bench: Bench,
  { rows, rounds }: { readonly rows: number; readonly rounds: number },
): Promise<void> {
  const { folder, limit, rivals, say, report } = bench;
  say(`random_${dims}: making ${rows} rows and two indexes of them`);
  const set = makeData(folder, 'random', dims, rows)!;
  const file = fileOf(set);
  const f32Index = buildIndex(set, folder, { storage: 'f32', columns: true });
  const int8Index = buildIndex(set, folder, { storage: 'int8', columns: true });
  const programs = new Programs();
  try {
    const reader = await programs.start(limit.program(set.rowsFile));
    const f32 = await programs.start(ourProgram(set, f32Index, 'f32'));
    const int8 = await programs.start(ourProgram(set, int8Index, 'int8'));
    const workers = await programs.start(
      nodeProgram('ours-workers.ts', [file, f32Index, String(2 * arenaMegabytes(rows / 2, dims, 'f32'))]),
    );
    const naive = await programs.start(nodeProgram('naive.ts', [file]));
    const npm = await startNpm(bench, programs, file);
    let python: Contestant | undefined;
    if ('path' in rivals.python) {
      const script = new URL('rivals.py', import.meta.url).pathname;
      python = await programs.start({ name: 'rivals.py', command: rivals.python.path, args: [script, file] });
      Object.assign(report.facts, python.facts);
    } else {
      report.miss(['f32_vs_faiss', 'f32_vs_numpy', 'int8_exact_vs_faiss'], rivals.python.missing);
    }
    report.facts.compiler = reader.facts.compiler;
    report.facts.workers_pinned = workers.facts.pinned;

    say('comparing what everybody finds');
    const one = await findTruth(naive, set, 'one', batchSize);
    const found = await assertOurs(f32, int8, 'one', one);
    await assertOurs(f32, int8, 'tenth', await findTruth(naive, set, 'tenth', 10));
    await assertOurs(f32, int8, 'hundredth', await findTruth(naive, set, 'hundredth', hundredthsAsked));
    for (const contestant of [f32, int8]) await assertBatch(contestant, 'batch', found, assertIdentical);
    for (const work of ['one_worker', 'two_workers']) {
      const hits = hitsOf(await workers.measure(work, 0, batchSize));
      for (const [i, some] of hits.entries()) assertIdentical(`${work}, query ${i},`, some, found[i]!);
    }
    for (const rival of npm) await assertTrue(rival.contestant, 'one', one);
    if (python) {
      await assertTrue(python, 'faiss', one);
      await assertTrue(python, 'numpy', one);
      await assertBatch(python, 'faiss_batch', one.hits, (who, hits, truth) => {
        assertSameHits(who, hits, truth, () => Number.NaN);
      });
    }

    say(`${rounds} rounds`);
    const entry = (name: string, contestant: Contestant, work: string, calls: number): Entry => ({
      name,
      contestant,
      work,
      calls,
    });
    const readers = [...new Set([limit.oneStream, ...limit.manyStreams])];
    const entries = [
      ...readers.map((work) => entry(`read_${work}`, reader, work, 2)),
      entry('f32', f32, 'one', 4),
      entry('f32_kernel', f32, 'kernel', 2),
      entry('f32_batch16', f32, 'batch', 1),
      entry('f32_filter10', f32, 'tenth', 5),
      entry('f32_filter1', f32, 'hundredth', 20),
      entry('int8', int8, 'one', 8),
      entry('int8_kernel', int8, 'kernel', 4),
      entry('int8_batch16', int8, 'batch', 2),
      entry('int8_filter10', int8, 'tenth', 5),
      entry('int8_filter1', int8, 'hundredth', 20),
      entry('naive_js', naive, 'one', 1),
      ...npm.map(({ name, contestant, calls }) => entry(name, contestant, 'one', calls)),
      ...(python
        ? [
            entry('faiss', python, 'faiss', 4),
            entry('numpy', python, 'numpy', 4),
            entry('faiss_batch16', python, 'faiss_batch', 1),
          ]
        : []),
      entry('one_worker', workers, 'one_worker', 4),
      entry('two_workers', workers, 'two_workers', 4),
      ...(limit.withoutThreads === undefined
        ? ['s4', 's8'].flatMap((streams) => [
            entry(`one_reader_${streams}`, reader, `single_w64_${streams}`, 4),
            entry(`two_readers_${streams}`, reader, `pair_w64_${streams}`, 4),
          ])
        : []),
    ];
    const samples = await measureRounds(entries, { rounds, warmRounds: 2 });
    addFigures(bench, samples, readers, rows);
  } finally {
    await programs.end();
    for (const path of [set.rowsFile, ...[f32Index, int8Index].map((index) => index.replace(/\.json$/, ''))])
      rmSync(path, { recursive: true });
  }
}

interface NpmRival {
  readonly name: string;
  readonly contestant: Contestant;
  readonly calls: number;
}

/** usearch and LanceDB; one that does not start here is missing, which does not stop the others. */
async function startNpm(
  { rivals, report, folder, say }: Bench,
  programs: Programs,
  file: string,
): Promise<NpmRival[]> {
  if ('missing' in rivals.npm) {
    report.miss(['f32_vs_usearch', 'f32_vs_lancedb'], rivals.npm.missing);
    return [];
  }
  const modules = rivals.npm.path;
  report.facts.npm = npmPackages.join(' ');
  const table = join(folder, 'lancedb');
  mkdirSync(table, { recursive: true });
  const started: NpmRival[] = [];
  for (const { name, program, calls } of [
    { name: 'usearch', program: nodeProgram('usearch.ts', [file, modules]), calls: 4 },
    { name: 'lancedb', program: nodeProgram('lancedb.ts', [file, modules, table]), calls: 1 },
  ]) {
    try {
      started.push({ name, contestant: await programs.start(program), calls });
    } catch (error) {
      say(`${name} does not start here: ${(error as Error).message}`);
      report.miss([`f32_vs_${name}`], (error as Error).message);
    }
  }
  return started;
}

function addFigures(
  { report, limit }: Bench,
  samples: Map<string, Samples>,
  readers: readonly string[],
  rows: number,
) {
  const get = (name: string): Samples => {
    const found = samples.get(name);
    if (found === undefined) throw new Error(`nothing was measured as ${name}`);
    return found;
  };
  const f32 = get('f32');
  const int8 = get('int8');
  const best = bestReader(readers, (name) => get(`read_${name}`));
  report.facts.best_reader = best;
  const limitA = get(`read_${limit.oneStream}`);
  const limitB = get(`read_${best}`);
  const add = (name: string, one: Samples, other: Samples, factor = 1) =>
    report.add(name, factor * timesFaster(one, other), { runs: one.calls });

  add('f32_vs_read_limit', f32, limitB);
  // Plain SIMD loads 16 bytes at a time, which reads less than the 64 that this CPU may have.
  const narrow = readers.filter((name) => name.startsWith('w16'));
  if (narrow.length > 0)
    add('f32_vs_read_limit_16_bytes', f32, get(`read_${bestReader(narrow, (name) => get(`read_${name}`))}`));
  add('f32_vs_naive_js', f32, get('naive_js'));
  for (const rival of ['usearch', 'lancedb', 'faiss', 'numpy'])
    if (samples.has(rival)) add(`f32_vs_${rival}`, f32, get(rival));
  add('int8_exact_vs_f32', int8, f32);
  if (samples.has('faiss')) {
    add('int8_exact_vs_faiss', int8, get('faiss'));
    add('batch16_f32_vs_faiss_batch16', get('f32_batch16'), get('faiss_batch16'));
    add('batch16_int8_vs_faiss_batch16', get('int8_batch16'), get('faiss_batch16'));
  }
  add('batch16_f32_gain', get('f32_batch16'), f32, batchSize);
  add('batch16_int8_gain', get('int8_batch16'), f32, batchSize);
  add('filter10_gain', get('f32_filter10'), f32);
  add('filter1_gain', get('f32_filter1'), f32);
  add('int8_filter10_gain', get('int8_filter10'), int8);
  add('int8_filter1_gain', get('int8_filter1'), int8);
  add('f32_kernel_vs_read_limit', get('f32_kernel'), limitB);
  add('int8_kernel_vs_f32_kernel', get('int8_kernel'), get('f32_kernel'));
  add('read_limit_b_vs_a', limitB, limitA);

  // By the clock: the CPU of two threads is that of both.
  const gain = (one: string, two: string) => {
    const [single, double] = [get(one).wallMs, get(two).wallMs];
    return single.map((wall, round) => wall / double[round]!);
  };
  const ours = gain('one_worker', 'two_workers');
  report.add('workers2_gain', median(ours), { runs: get('two_workers').calls });
  if (limit.withoutThreads === undefined) {
    // Of the two ways of reading the one that gains more.
    const readersGain = ['s4', 's8'].map((streams) =>
      gain(`one_reader_${streams}`, `two_readers_${streams}`),
    );
    const most = readersGain.reduce((a, b) => (median(a) >= median(b) ? a : b));
    report.add('readers2_gain', median(most), { runs: get('two_readers_s4').calls });
    report.add('workers2_share', median(ours.map((one, round) => one / most[round]!)), {
      runs: get('two_workers').calls,
    });
  } else {
    report.miss(['workers2_share'], limit.withoutThreads);
  }

  const f32Bytes = rows * dims * 4;
  const gigabytesPerSecond = (name: string, one: Samples, bytes: number) =>
    report.add(name, bytes / one.bestWallMs / 1e6, { unit: 'GB/s', runs: one.calls });
  gigabytesPerSecond('read_limit_a_gb_per_s', limitA, f32Bytes);
  gigabytesPerSecond('read_limit_b_gb_per_s', limitB, f32Bytes);
  gigabytesPerSecond(`random_${dims}_f32_gb_per_s`, f32, f32Bytes);
  gigabytesPerSecond(`random_${dims}_int8_gb_per_s`, int8, f32Bytes / 4);
  report.add(`random_${dims}_rows_reranked`, median(int8.reranked), {
    unit: 'rows',
    better: 'lower',
    runs: int8.calls,
  });
  for (const [name, one] of samples) {
    const queries = name.endsWith('batch16') ? batchSize : 1;
    const kept = name.endsWith('filter10') ? 0.1 : name.endsWith('filter1') ? 0.01 : 1;
    const bytes = kept * (name.startsWith('int8') ? f32Bytes / 4 : f32Bytes);
    report.addTimes({ name: `random_${dims} ${name}`, samples: one, bytes, queries, rows: rows * kept });
  }
}
