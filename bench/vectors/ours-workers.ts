// Granary's search by worker threads, each with a kernel of its own: one over everything, or two over one half each.
//
//     node ours-workers.ts <data set> <index> <arena megabytes of the whole>
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import { type Match, mergeMatches } from '../../functions/core/vectors/search.ts';
import { rowOfId } from './build-index.ts';
import type { WorkerGiven } from './scan-worker.ts';
import type { Done } from './serve.ts';
import { serve } from './serve.ts';
import { k } from './settings.ts';

const [setFile, indexFile, megabytes] = process.argv.slice(2);
const arenaMegabytes = Number(megabytes);

/** The CPUs that this process may use. */
function allowedCpus(): number[] {
  const list = /^Cpus_allowed_list:\s*(.*)$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? '';
  return list.split(',').flatMap((part) => {
    const [from, to = from] = part.split('-').map(Number);
    return Array.from({ length: to! - from! + 1 }, (_, i) => from! + i);
  });
}

/** Puts the main thread on some CPUs; threads that it starts then stay there. @returns whether that works here */
function keepOn(cpus: readonly number[]): boolean {
  const done = spawnSync('taskset', ['-p', '-c', cpus.join(','), String(process.pid)], { stdio: 'ignore' });
  return done.status === 0;
}

// Some schedulers keep two short-lived loads on one CPU; threads that are compared by the clock get one each.
const cpus = process.platform === 'linux' ? allowedCpus() : [];
let pinned = cpus.length > 1;

async function start(
  given: Omit<WorkerGiven, 'setFile' | 'indexFile'>,
  cpu: number | undefined,
): Promise<Worker> {
  if (pinned && cpu !== undefined) pinned = keepOn([cpu]);
  const worker = new Worker(new URL('./scan-worker.ts', import.meta.url), {
    workerData: { setFile: setFile!, indexFile: indexFile!, ...given } satisfies WorkerGiven,
  });
  await new Promise((resolve, reject) => {
    worker.once('message', resolve);
    worker.once('error', reject);
  });
  return worker;
}

const whole = await start({ arenaMegabytes }, cpus[0]);
const first = await start({ arenaMegabytes: arenaMegabytes / 2, half: 0 }, cpus[0]);
const second = await start({ arenaMegabytes: arenaMegabytes / 2, half: 1 }, cpus[1]);
if (pinned) keepOn(cpus);

function ask(worker: Worker, query: number): Promise<readonly Match[]> {
  return new Promise((resolve, reject) => {
    const done = (matches: readonly Match[]) => {
      worker.off('error', reject);
      resolve(matches);
    };
    worker.once('message', done);
    worker.once('error', reject);
    worker.postMessage(query);
  });
}

const found = (matches: readonly Match[]): Done => ({
  found: [matches.map(({ id, score }) => [rowOfId(id), score] as const)],
});

await serve(
  {
    one_worker: async (query) => found(await ask(whole, query)),
    two_workers: async (query) =>
      found(mergeMatches(await Promise.all([ask(first, query), ask(second, query)]), k)),
  },
  { pinned },
);
process.exit(0);
