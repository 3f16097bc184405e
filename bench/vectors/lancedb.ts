// @lancedb/lancedb: a flat search of a table on the local disk, which the system keeps in memory.
//
//     node lancedb.ts <data set> <folder with node_modules> <empty folder for the table>
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { readDataSet, readQueries, readRows } from './data-file.ts';
import type { Hit } from './protocol.ts';
import { serve } from './serve.ts';
import { k } from './settings.ts';

/** The parts of the two packages that are used. */
interface LanceTable {
  add(data: unknown): Promise<unknown>;
  vectorSearch(query: Float32Array): {
    distanceType(type: 'dot'): LanceQuery;
  };
}
interface LanceQuery {
  limit(count: number): LanceQuery;
  select(columns: readonly string[]): LanceQuery;
  toArray(): Promise<{ readonly row: number; readonly _distance: number }[]>;
}
interface Lance {
  connect(folder: string): Promise<{ createTable(name: string, data: unknown): Promise<LanceTable> }>;
}
interface Arrow {
  Table: new (columns: Record<string, unknown>) => unknown;
  Vector: new (data: readonly unknown[]) => unknown;
  Field: new (name: string, type: unknown, nullable: boolean) => unknown;
  FixedSizeList: new (size: number, child: unknown) => unknown;
  Float32: new () => unknown;
  Int32: new () => unknown;
  makeData(parts: Record<string, unknown>): unknown;
}

const [setFile, modules, folder] = process.argv.slice(2);
const require = createRequire(join(modules!, 'package.json'));
const { connect } = require('@lancedb/lancedb') as Lance;
const arrow = require('apache-arrow') as Arrow;
const set = readDataSet(setFile!);
const { dims } = set;
const queries = readQueries(set);

/** Columns as they are in memory: objects row by row would take minutes. */
function tableOf(first: number, count: number): unknown {
  const floats = new arrow.Float32();
  const data = readRows(set.rowsFile, dims, first, count);
  const values = arrow.makeData({ type: floats, length: data.length, data });
  const list = new arrow.FixedSizeList(dims, new arrow.Field('item', floats, false));
  const ids = Int32Array.from({ length: count }, (_, i) => first + i);
  return new arrow.Table({
    row: new arrow.Vector([arrow.makeData({ type: new arrow.Int32(), length: count, data: ids })]),
    vector: new arrow.Vector([arrow.makeData({ type: list, length: count, nullCount: 0, child: values })]),
  });
}

const rowsPerPart = 50_000;
const database = await connect(folder!);
const table = await database.createTable('rows', tableOf(0, Math.min(rowsPerPart, set.rows)));
for (let first = rowsPerPart; first < set.rows; first += rowsPerPart)
  await table.add(tableOf(first, Math.min(rowsPerPart, set.rows - first)));

await serve({
  one: async (query) => {
    const asked = table.vectorSearch(queries[query % queries.length]!).distanceType('dot');
    const hits = await asked.limit(k).select(['row', '_distance']).toArray();
    // Its distance is 1 minus the inner product.
    return { found: [hits.map(({ row, _distance }): Hit => [row, 1 - _distance])] };
  },
});
