// The data that is searched: made from a seed, so that every run has the same; texts only where they are there.
import { spawnSync } from 'node:child_process';
import { existsSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { projectFolder, projectPython } from '../../local/emulator.ts';
import { normalNumbers, randomNumbers } from '../random.ts';
import type { DataSet } from './data-file.ts';
import { readRows, writeDataSet, writeRows } from './data-file.ts';
import { makeRotation } from './rotation.ts';

export type Kind = 'random' | 'clusters' | 'outliers' | 'shifted' | 'ngrams';

/** Where the texts of the n-gram embeddings are expected: beside the project. */
const textFolder = join(projectFolder, '..', 'shared', 'data');

const queryCount = 64;

/**
 * Makes one data set in a folder.
 *
 * - `random`: directions of equal chance. The worst case: no row is much nearer than the others.
 * - `clusters`: 256 centres; around them and among them the spread falls with the coordinate's number to the power of
 *   -0.7, as eigenvalues of learned embeddings do; turned at random, since those are not aligned to the axes either.
 * - `outliers`: random, with two coordinates that are together about three times as long as all others: what codes of
 *   one scale per row bear worst.
 * - `shifted`: random around one direction, so that any two have a cosine near 0.7, as some models' embeddings have:
 *   what all rows share says nothing, but takes its part of the codes.
 * - `ngrams`: the sample plugin's embedding of the texts beside the project, at any dimension.
 *
 * Queries of `ngrams` are texts that are not among the rows; of `clusters`, points of the same clusters.
 *
 * @returns undefined if its texts are not there
 */
export function makeData(folder: string, kind: Kind, dims: number, rows: number): DataSet | undefined {
  const file = join(folder, `${kind}_${dims}_${rows}`);
  const rowsFile = `${file}.f32`;
  const queriesFile = `${file}.queries.f32`;
  if (kind === 'ngrams') {
    if (!existsSync(textFolder)) return undefined;
    embedTexts(dims, rows, queryCount, rowsFile, queriesFile);
  } else {
    // The queries go on where the rows ended: the same clusters, other points.
    const make = makerOf(kind, dims);
    writeRows(rowsFile, rows, dims, make);
    writeRows(queriesFile, queryCount, dims, make);
  }
  const set: DataSet = {
    kind,
    rows: statSync(rowsFile).size / 4 / dims,
    dims,
    queries: queryCount,
    metric: kind === 'random' ? 'dot' : 'cosine',
    rowsFile,
    queriesFile,
  };
  writeDataSet(`${file}.json`, set);
  return set;
}

/** The file that programs are given. */
export function fileOf(set: DataSet): string {
  return set.rowsFile.replace(/\.f32$/, '.json');
}

function makerOf(kind: Exclude<Kind, 'ngrams'>, dims: number): (into: Float32Array) => void {
  const normal = normalNumbers(dims);
  const unit = (into: Float32Array) => {
    let squared = 0;
    for (let i = 0; i < dims; i += 1) squared += into[i]! * into[i]!;
    const factor = 1 / Math.sqrt(squared);
    for (let i = 0; i < dims; i += 1) into[i]! *= factor;
  };
  const fill = (into: Float32Array) => {
    for (let i = 0; i < dims; i += 1) into[i] = normal();
  };
  if (kind === 'random') {
    return (into) => {
      fill(into);
      unit(into);
    };
  }
  if (kind === 'outliers') {
    return (into) => {
      fill(into);
      const length = 3 * Math.sqrt(dims / 2);
      into[3] = length * normal();
      into[dims >> 1] = length * normal();
      unit(into);
    };
  }
  if (kind === 'shifted') {
    const shared = new Float32Array(dims);
    fill(shared);
    // Of all of the length squared, 0.7 is shared.
    const share = Math.sqrt(0.7 / 0.3);
    return (into) => {
      for (let i = 0; i < dims; i += 1) into[i] = normal() + share * shared[i]!;
      unit(into);
    };
  }
  const clusters = 256;
  const pick = randomNumbers(dims + 1);
  const spread = Float64Array.from({ length: dims }, (_, i) => (i + 1) ** -0.7);
  const rotate = makeRotation(dims, 1);
  const draw = (into: Float32Array) => {
    for (let i = 0; i < dims; i += 1) into[i] = normal() * spread[i]!;
  };
  const centres = Array.from({ length: clusters }, () => {
    const centre = new Float32Array(dims);
    draw(centre);
    return centre;
  });
  return (into) => {
    const centre = centres[Math.floor(pick() * clusters)]!;
    draw(into);
    for (let i = 0; i < dims; i += 1) into[i] = centre[i]! + 0.5 * into[i]!;
    rotate(into);
    unit(into);
  };
}

function embedTexts(
  dims: number,
  rows: number,
  queries: number,
  rowsFile: string,
  queriesFile: string,
): void {
  const script = fileURLToPath(new URL('ngrams.py', import.meta.url));
  const plugin = join(projectFolder, 'examples', 'ngram_embed');
  const args = [
    script,
    plugin,
    textFolder,
    String(dims),
    String(rows),
    String(queries),
    rowsFile,
    queriesFile,
  ];
  const { status, stderr } = spawnSync(projectPython, args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`embedding the texts failed:\n${stderr.slice(-2000)}`);
}

/** One row of a data set, for scoring what somebody found. */
export function rowOf({ rowsFile, dims }: DataSet, row: number): Float32Array {
  return readRows(rowsFile, dims, row, 1);
}
