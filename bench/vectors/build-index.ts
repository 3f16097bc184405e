// A data set as an index: segments as a commit writes them, in files, and opened as the query function opens them.
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { join } from 'node:path';
import { encodeSegment } from '../../functions/core/vectors/encode-segment.ts';
import type { FeatureManifest, SegmentRef } from '../../functions/core/vectors/manifest.ts';
import { openStoredSegment, type Segment } from '../../functions/core/vectors/open-segment.ts';
import { segmentBytesTarget } from '../../functions/core/vectors/segment-format.ts';
import { openSnapshot, type Snapshot } from '../../functions/core/vectors/snapshot.ts';
import { paddedDims } from '../../functions/core/vectors/vector.ts';
import type { DataSet } from './data-file.ts';
import { groupsOf, readRows } from './data-file.ts';

export type Storage = 'f32' | 'int8';

export interface IndexOptions {
  /** `int8` has codes beside the vectors, `f32` only the vectors. */
  readonly storage: Storage;
  /** Columns `tenth` and `hundredth`, for filters. */
  readonly columns?: boolean;
  /** Only the first rows of the data set. */
  readonly rows?: number;
}

const idOf = (row: number) => `doc_${String(row).padStart(8, '0')}`;

/** The row that an id was made of. */
export const rowOfId = (id: string): number => Number(id.slice('doc_'.length));

/**
 * Writes the segments of a data set and the manifest's entry for them. An even number of segments of equal size, so
 * that two workers get one half each.
 *
 * @returns the file to open it by
 */
export function buildIndex(set: DataSet, folder: string, options: IndexOptions): string {
  const { storage, columns = false, rows = set.rows } = options;
  const { dims, metric } = set;
  const name = join(folder, `${set.kind}_${dims}_${rows}_${storage}`);
  mkdirSync(name, { recursive: true });
  const rowBytes = paddedDims(dims) * (storage === 'int8' ? 5 : 4);
  const count = 2 * Math.ceil((rows * rowBytes) / segmentBytesTarget / 2);
  const perSegment = Math.ceil(rows / count);
  const segments: SegmentRef[] = [];
  for (let first = 0; first < rows; first += perSegment) {
    const vectors = readRows(set.rowsFile, dims, first, Math.min(perSegment, rows - first));
    const { bytes, description } = encodeSegment({
      kind: 'data',
      dims,
      metric,
      codes: storage === 'int8',
      rows: Array.from({ length: vectors.length / dims }, (_, i) => ({
        id: idOf(first + i),
        vector: vectors.subarray(i * dims, (i + 1) * dims),
        columns: columns ? columnsOf(first + i) : undefined,
      })),
    });
    const key = join(name, `${segments.length}.vseg`);
    writeFileSync(key, bytes);
    segments.push({ ...description, key, base_seq: first });
  }
  const feature: FeatureManifest = { dims, metric, segments };
  writeFileSync(`${name}.json`, JSON.stringify(feature));
  return `${name}.json`;
}

function columnsOf(row: number): Map<string, string> {
  const { tenth, hundredth } = groupsOf(row);
  return new Map([
    ['tenth', `tenth_${tenth}`],
    ['hundredth', `hundredth_${hundredth}`],
  ]);
}

/** @param half only the first or the second half of the segments */
export async function openIndex(file: string, half?: 0 | 1): Promise<Snapshot> {
  const whole = JSON.parse(readFileSync(file, 'utf8')) as FeatureManifest;
  const middle = whole.segments.length / 2;
  const listed =
    half === undefined ? whole.segments : whole.segments.slice(half * middle, (half + 1) * middle);
  const segments = new Map<string, Segment>();
  for (const ref of listed) {
    const handle = await open(ref.key, 'r');
    const source = { readInto: (at: number, target: Uint8Array) => readExactly(handle, at, target) };
    segments.set(ref.key, await openStoredSegment(source, ref.key, ref));
  }
  return openSnapshot({ ...whole, segments: listed }, segments);
}

async function readExactly(handle: FileHandle, at: number, target: Uint8Array): Promise<void> {
  for (let done = 0; done < target.length; ) {
    const { bytesRead } = await handle.read(target, done, target.length - done, at + done);
    if (bytesRead === 0) throw new Error(`the file ends before byte ${at + target.length}`);
    done += bytesRead;
  }
}
