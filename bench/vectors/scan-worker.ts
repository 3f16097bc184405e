// One worker thread of ours-workers.ts: searches its part of an index, query by query.
import { parentPort, workerData } from 'node:worker_threads';
import { search } from '../../functions/core/vectors/search.ts';
import { makeVectorMemory } from '../../functions/core/vectors/vector-memory.ts';
import { openIndex } from './build-index.ts';
import { readDataSet, readQueries } from './data-file.ts';
import { k } from './settings.ts';

export interface WorkerGiven {
  readonly setFile: string;
  readonly indexFile: string;
  readonly arenaMegabytes: number;
  /** Which half of the segments; without it all. */
  readonly half?: 0 | 1;
}

const { setFile, indexFile, arenaMegabytes, half } = workerData as WorkerGiven;
const queries = readQueries(readDataSet(setFile));
const snapshot = await openIndex(indexFile, half);
const memory = makeVectorMemory(Math.ceil(arenaMegabytes) * 2 ** 20);

async function find(query: number) {
  const { matches } = await search(snapshot, { queries: [queries[query % queries.length]!], k }, memory);
  return matches[0]!;
}

for (let query = 0; query < 8; query += 1) await find(query);
parentPort!.on('message', (query: number) => {
  find(query).then(
    (matches) => parentPort!.postMessage(matches),
    (error: unknown) =>
      setImmediate(() => {
        throw error;
      }),
  );
});
parentPort!.postMessage('ready');
