// npm usearch: its exact search by inner product, on one thread.
//
//     node usearch.ts <data set> <folder with node_modules>
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { readDataSet, readQueries, readRows } from './data-file.ts';
import { serve } from './serve.ts';
import { k } from './settings.ts';

/** The part of the package that is used. */
interface Usearch {
  exactSearch(
    rows: Float32Array,
    queries: Float32Array,
    dims: number,
    count: number,
    metric: 'ip',
    threads: number,
  ): { readonly keys: BigUint64Array; readonly distances: Float32Array };
}

const [setFile, modules] = process.argv.slice(2);
const require = createRequire(join(modules!, 'package.json'));
const { exactSearch } = require('usearch') as Usearch;
const set = readDataSet(setFile!);
const queries = readQueries(set);
const vectors = readRows(set.rowsFile, set.dims);

await serve({
  one: (query) => {
    const { keys, distances } = exactSearch(vectors, queries[query % queries.length]!, set.dims, k, 'ip', 1);
    // Its distance is 1 minus the inner product.
    return { found: [Array.from(keys, (key, i) => [Number(key), 1 - distances[i]!] as const)] };
  },
});
