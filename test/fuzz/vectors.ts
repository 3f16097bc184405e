// `npm run fuzz:vectors`: random histories of a feature against the model, many more than the tests run.
//
//   npm run fuzz:vectors                      1,000,000 histories
//   npm run fuzz:vectors -- --runs 50000      fewer
//   npm run fuzz:vectors -- --seed 42         the same ones again
//
// Each slice of 2,000 has a seed of its own, which is printed; a failure prints the smallest history that shows it.
import { once } from 'node:events';
import { cpus } from 'node:os';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import fc from 'fast-check';
import { checkHistory, history } from '../property/vectors/history.ts';

const sliceRuns = 2_000;

interface Slice {
  readonly seed: number;
  readonly runs: number;
}

/** What is wrong, undefined if nothing is. */
async function runSlice({ seed, runs }: Slice): Promise<string | undefined> {
  const result = await fc.check(fc.asyncProperty(history, checkHistory), { numRuns: runs, seed });
  return result.failed ? fc.defaultReportMessage(result) : undefined;
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: { runs: { type: 'string', default: '1000000' }, seed: { type: 'string' } },
  });
  const runs = Number(values.runs);
  const firstSeed = values.seed === undefined ? Date.now() % 2 ** 31 : Number(values.seed);
  if (!Number.isSafeInteger(runs) || runs < 1 || !Number.isSafeInteger(firstSeed)) {
    console.error(
      `--runs is a number from 1 and --seed a whole number, got ${values.runs} and ${values.seed}`,
    );
    process.exit(2);
  }
  const slices: Slice[] = [];
  for (let done = 0; done < runs; done += sliceRuns) {
    slices.push({ seed: firstSeed + slices.length, runs: Math.min(sliceRuns, runs - done) });
  }
  let failures = 0;
  let finished = 0;
  const work = async () => {
    const worker = new Worker(fileURLToPath(import.meta.url), { workerData: 'slices' });
    for (let slice = slices.shift(); slice !== undefined; slice = slices.shift()) {
      const { seed, runs: own } = slice;
      worker.postMessage(slice);
      const [problem] = (await once(worker, 'message')) as [string | undefined];
      finished += own;
      if (problem === undefined) console.log(`seed ${seed}: ${own} histories passed, ${finished} in all`);
      else {
        failures += 1;
        console.log(`seed ${seed}: FAILED\n${problem}`);
      }
    }
    await worker.terminate();
  };
  await Promise.all(Array.from({ length: Math.max(1, cpus().length) }, work));
  console.log(failures === 0 ? `${finished} histories passed` : `${failures} slices failed`);
  process.exitCode = failures === 0 ? 0 : 1;
}

if (isMainThread) await main();
else if (workerData === 'slices') {
  parentPort!.on('message', async (slice: Slice) => parentPort!.postMessage(await runSlice(slice)));
}
