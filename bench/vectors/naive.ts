// What somebody writes in an afternoon: a loop over all numbers in JavaScript. Exact, in double precision: the reference.
//
//     node naive.ts <data set>
import { groupsOf, readDataSet, readQueries, readRows } from './data-file.ts';
import type { Hit } from './protocol.ts';
import type { Done } from './serve.ts';
import { serve } from './serve.ts';
import { hundredthsAsked, k } from './settings.ts';

const set = readDataSet(process.argv[2]!);
const { rows, dims } = set;
const queries = readQueries(set);
const vectors = readRows(set.rowsFile, dims);

/** @param wanted which rows count */
function find(query: Float32Array, wanted?: (row: number) => boolean): Done {
  const best: [row: number, score: number][] = [];
  for (let row = 0; row < rows; row += 1) {
    if (wanted !== undefined && !wanted(row)) continue;
    let score = 0;
    for (let i = 0; i < dims; i += 1) score += query[i]! * vectors[row * dims + i]!;
    if (best.length === k && score <= best[k - 1]![1]) continue;
    let at = best.length;
    while (at > 0 && best[at - 1]![1] < score) at -= 1;
    best.splice(at, 0, [row, score]);
    if (best.length > k) best.pop();
  }
  return { found: [best satisfies Hit[]] };
}

const queryOf = (query: number) => queries[query % queries.length]!;
await serve({
  one: (query) => find(queryOf(query)),
  tenth: (query) => find(queryOf(query), (row) => groupsOf(row).tenth === query % 10),
  hundredth: (query) => find(queryOf(query), (row) => groupsOf(row).hundredth === query % hundredthsAsked),
});
