// `npm run fuzz:vectors`: random histories of a feature against the model, many more than the tests run.
//
//   npm run fuzz:vectors                               1,000,000 histories
//   npm run fuzz:vectors -- --runs 50000               fewer
//   npm run fuzz:vectors -- --seed 42                  the same ones again
//   npm run fuzz:vectors -- --seed 42 --runs 2000      only the slice of that seed
//
// Each slice has a seed of its own, which is printed: 2,000 short histories, or 200 with hundreds of rows per segment
// where the seed ends in 9. A failure prints the smallest history that shows it. Ctrl-C stops at the next history.
import { once } from 'node:events';
import { availableParallelism } from 'node:os';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import fc from 'fast-check';
import { checkHistory, history } from '../property/vectors/history.ts';
import { checkLargeHistory, largeHistory } from '../property/vectors/large-history.ts';

interface Slice {
  readonly seed: number;
  readonly runs: number;
}

interface Outcome {
  /** Histories that were looked at; fewer than asked for if the run was stopped. */
  readonly passed: number;
  readonly problem?: string | undefined;
}

const isLarge = (seed: number) => seed % 10 === 9;
const sliceRuns = (seed: number) => (isLarge(seed) ? 200 : 2_000);

/** @param stop shared with the main thread, which sets the first word when no more histories are wanted */
async function runSlice({ seed, runs }: Slice, stop: Int32Array): Promise<Outcome> {
  let passed = 0;
  async function check<T>(arbitrary: fc.Arbitrary<T>, checkOne: (one: T) => Promise<void>): Promise<Outcome> {
    const property = fc.asyncProperty(arbitrary, async (one) => {
      if (Atomics.load(stop, 0) !== 0) return;
      await checkOne(one);
      passed += 1;
    });
    const result = await fc.check(property, { numRuns: runs, seed });
    return { passed, problem: result.failed ? fc.defaultReportMessage(result) : undefined };
  }
  return isLarge(seed) ? check(largeHistory, checkLargeHistory) : check(history, checkHistory);
}

function readOptions(): { readonly runs: number; readonly firstSeed: number } {
  const { values } = parseArgs({
    options: { runs: { type: 'string', default: '1000000' }, seed: { type: 'string' } },
  });
  const runs = Number(values.runs);
  const firstSeed = values.seed === undefined ? Date.now() % 2 ** 31 : Number(values.seed);
  if (!Number.isSafeInteger(runs) || runs < 1 || !Number.isSafeInteger(firstSeed) || firstSeed < 0) {
    const got = `${values.runs} and ${values.seed}`;
    console.error(`--runs is a whole number from 1 and --seed one from 0, got ${got}`);
    process.exit(2);
  }
  return { runs, firstSeed };
}

async function main(): Promise<void> {
  const { runs, firstSeed } = readOptions();
  const slices: Slice[] = [];
  for (let planned = 0; planned < runs; ) {
    const seed = firstSeed + slices.length;
    const slice = { seed, runs: Math.min(sliceRuns(seed), runs - planned) };
    slices.push(slice);
    planned += slice.runs;
  }
  const stop = new Int32Array(new SharedArrayBuffer(4));
  process.on('SIGINT', () => {
    if (Atomics.exchange(stop, 0, 1) === 0) console.log('stopping');
  });
  const begun = performance.now();
  const shown = (count: number) => count.toLocaleString('en');
  let failures = 0;
  let passed = 0;
  /** Seeds of slices that were stopped half-way. */
  const cut: number[] = [];
  const work = async () => {
    const worker = new Worker(fileURLToPath(import.meta.url), { workerData: stop });
    while (Atomics.load(stop, 0) === 0) {
      const slice = slices.shift();
      if (slice === undefined) break;
      worker.postMessage(slice);
      const [outcome] = (await once(worker, 'message')) as [Outcome];
      passed += outcome.passed;
      if (outcome.problem === undefined && outcome.passed < slice.runs) cut.push(slice.seed);
      const seconds = (performance.now() - begun) / 1_000;
      const kind = isLarge(slice.seed) ? 'large histories' : 'histories';
      const all = `${shown(passed)} of ${shown(runs)}, ${shown(Math.round(passed / seconds))} a second`;
      if (outcome.problem === undefined)
        console.log(`seed ${slice.seed}: ${shown(outcome.passed)} ${kind} passed; ${all}`);
      else {
        failures += 1;
        console.log(`seed ${slice.seed}: FAILED\n${outcome.problem}`);
      }
    }
    await worker.terminate();
  };
  await Promise.all(Array.from({ length: availableParallelism() }, work));
  const isStopped = Atomics.load(stop, 0) !== 0;
  const seconds = Math.round((performance.now() - begun) / 1_000);
  console.log(
    `${shown(passed)} histories passed in ${seconds} s from seed ${firstSeed}, ${failures} slices failed`,
  );
  const next = Math.min(...cut, ...slices.map(({ seed }) => seed));
  if (Number.isFinite(next)) console.log(`stopped: --seed ${next} goes on`);
  process.exitCode = failures > 0 ? 1 : isStopped ? 130 : 0;
}

if (isMainThread) await main();
else if (workerData instanceof Int32Array) {
  const stop = workerData;
  parentPort!.on('message', async (slice: Slice) => parentPort!.postMessage(await runSlice(slice, stop)));
}
