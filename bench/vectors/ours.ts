// Granary's own search over an index in files: what a query costs once its segments are in memory.
//
//     node ours.ts <data set> <index> <arena megabytes>
import type { Condition } from '../../functions/core/conditions/condition.ts';
import { parse } from '../../functions/core/conditions/parse.ts';
import { CandidateScan } from '../../functions/core/vectors/kernel/candidate-scan.ts';
import { search } from '../../functions/core/vectors/search.ts';
import { makeVectorMemory } from '../../functions/core/vectors/vector-memory.ts';
import { openIndex, rowOfId } from './build-index.ts';
import { readDataSet, readQueries } from './data-file.ts';
import type { Hit } from './protocol.ts';
import type { Done, Work } from './serve.ts';
import { serve } from './serve.ts';
import { batchSize, hundredthsAsked, k } from './settings.ts';

const [setFile, indexFile, arenaMegabytes] = process.argv.slice(2);
const queries = readQueries(readDataSet(setFile!));
const snapshot = await openIndex(indexFile!);
const memory = makeVectorMemory(Number(arenaMegabytes) * 2 ** 20);

const equals = (field: string, value: string): Condition => parse({ field, operator: 'eq', value });
const tenths = Array.from({ length: 10 }, (_, i) => equals('tenth', `tenth_${i}`));
const hundredths = Array.from({ length: hundredthsAsked }, (_, i) => equals('hundredth', `hundredth_${i}`));

let isWarm = false;

async function find(first: number, count: number, filter?: Condition): Promise<Done> {
  const asked = Array.from({ length: count }, (_, i) => queries[(first + i) % queries.length]!);
  const { matches, reranked, cold } = await search(snapshot, { queries: asked, k, filter }, memory);
  if (cold && isWarm) throw new Error('a segment was fetched again: the arena is too small for this measure');
  return { found: matches.map((hits) => hits.map(({ id, score }): Hit => [rowOfId(id), score])), reranked };
}

/** The kernel alone: no check of the request, no exact scores, no ids. */
async function scanOnly(query: number): Promise<Done> {
  const asked = [queries[query % queries.length]!];
  const scan = new CandidateScan(
    memory.kernel,
    snapshot.metric!,
    snapshot.dims,
    asked,
    [k],
    Number.NEGATIVE_INFINITY,
  );
  for (const [i, { segment }] of snapshot.parts.entries()) {
    await segment.vectors!.scan(memory, (resident) => scan.scan(i, resident!, undefined));
  }
  return { reranked: scan.candidates(0).length };
}

// What comes first loads segments and makes the bitmaps of the filters.
for (let query = 0; query < 4; query += 1) await find(query, 1);
// Vectors behind codes are fetched after some searches, where there is room; here they are from the beginning.
const vectorBytes = snapshot.parts.reduce((sum, { segment: { vectors } }) => {
  return sum + vectors!.padRows * (vectors!.rowBytes + 4) + 64;
}, 0);
if (memory.arena.bytesUsed + vectorBytes <= memory.kernel.arenaBytes) {
  for (const { segment } of snapshot.parts) await segment.vectors!.scan(memory, () => undefined, 'vectors');
}
isWarm = true;
const works: Record<string, Work> = {
  one: (query) => find(query, 1),
  batch: (query) => find(query, batchSize),
  kernel: scanOnly,
};
if (snapshot.fields().has('tenth')) {
  for (const filter of [...tenths, ...hundredths]) await find(0, 1, filter);
  works.tenth = (query) => find(query, 1, tenths[query % tenths.length]);
  works.hundredth = (query) => find(query, 1, hundredths[query % hundredths.length]);
}
await serve(works, { segments: snapshot.parts.length });
