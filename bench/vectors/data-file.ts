// Vectors in a file: float32 rows without a header, with what a program must know to read them beside it as JSON.
import { closeSync, fstatSync, openSync, readFileSync, readSync, writeFileSync, writeSync } from 'node:fs';
import type { Metric } from '../../functions/core/vectors/vector.ts';

/** What stands in `<name>.json`, beside `<name>.f32` (the rows) and `<name>.queries.f32`. */
export interface DataSet {
  /** @see make-data.ts */
  readonly kind: string;
  readonly rows: number;
  readonly dims: number;
  readonly queries: number;
  /** What the rows are searched by. All rows and queries have length 1, so cosine and dot rank alike. */
  readonly metric: Metric;
  /** Paths of the two files. */
  readonly rowsFile: string;
  readonly queriesFile: string;
}

export function writeDataSet(file: string, set: DataSet): void {
  writeFileSync(file, JSON.stringify(set));
}

export function readDataSet(file: string): DataSet {
  return JSON.parse(readFileSync(file, 'utf8')) as DataSet;
}

/** Writes rows that are made one at a time, without ever holding all of them. */
export function writeRows(
  file: string,
  rows: number,
  dims: number,
  make: (into: Float32Array, row: number) => void,
): void {
  const perChunk = Math.max(1, Math.floor(2 ** 22 / dims));
  const chunk = new Float32Array(perChunk * dims);
  const out = openSync(file, 'w');
  try {
    for (let row = 0; row < rows; row += perChunk) {
      const count = Math.min(perChunk, rows - row);
      for (let i = 0; i < count; i += 1) make(chunk.subarray(i * dims, (i + 1) * dims), row + i);
      writeSync(out, new Uint8Array(chunk.buffer, 0, count * dims * 4));
    }
  } finally {
    closeSync(out);
  }
}

/** Reads rows `first` to `first + count` (all without them). */
export function readRows(file: string, dims: number, first = 0, count?: number): Float32Array<ArrayBuffer> {
  const input = openSync(file, 'r');
  try {
    const wanted = count ?? fstatSync(input).size / 4 / dims - first;
    const rows = new Float32Array(wanted * dims);
    const bytes = new Uint8Array(rows.buffer);
    // One read gives at most 2 GB.
    for (let at = 0; at < bytes.length; ) {
      const length = Math.min(2 ** 28, bytes.length - at);
      const read = readSync(input, bytes, at, length, first * dims * 4 + at);
      if (read === 0) throw new Error(`${file} ends before row ${first + wanted}`);
      at += read;
    }
    return rows;
  } finally {
    closeSync(input);
  }
}

/** The queries of a data set, one by one. */
export function readQueries({ queriesFile, dims, queries }: DataSet): Float32Array[] {
  const all = readRows(queriesFile, dims);
  return Array.from({ length: queries }, (_, i) => all.slice(i * dims, (i + 1) * dims));
}

/** What a row belongs to under the filters: `tenth_0` to `tenth_9` and `hundredth_0` to `hundredth_99`, scattered. */
export function groupsOf(row: number): { tenth: number; hundredth: number } {
  let mixed = Math.imul(row + 1, 0x9e3779b1);
  mixed = Math.imul(mixed ^ (mixed >>> 15), 0x85ebca6b);
  mixed = (mixed ^ (mixed >>> 13)) >>> 0;
  return { tenth: mixed % 10, hundredth: Math.floor(mixed / 10) % 100 };
}
