// Writes a segment: rows with their vectors and columns, deleted ids, or changes of columns.
import { crc32 } from 'node:zlib';
import { bytesOf, type EncodedSection, encodeColumns, jsonBytes } from './column-codec.ts';
import type { ColumnPatch } from './columns.ts';
import { VectorError } from './errors.ts';
import { hashId } from './id-hash.ts';
import { fromBfloat16, toBfloat16 } from './kernel/bfloat16.ts';
import { encodeCodes } from './kernel/codes.ts';
import {
  alignUp,
  firstSectionAlign,
  fixedHeaderBytes,
  flagsOf,
  headerChecksum,
  headerChecksumAt,
  magic,
  type SectionRef,
  type SegmentDescription,
  type SegmentHeader,
  type SegmentKind,
  sectionAlign,
  seqsPerVersion,
  type VectorStorage,
} from './segment-format.ts';
import {
  dimsMax,
  inverseNorm,
  isKernelSafe,
  type Metric,
  paddedDims,
  paddedRows,
  squaredNormAt,
  validateVector,
} from './vector.ts';

/** Longest id, in bytes of UTF-8. */
export const idBytesMax = 256;

/** One row of a segment. */
export interface SegmentRow {
  readonly id: string;
  /** Needed in a data segment with `dims` above 0, not allowed elsewhere. */
  readonly vector?: ArrayLike<number> | undefined;
  /** For `columns` segments only what changes: undefined takes a column away. */
  readonly columns?: ColumnPatch | undefined;
  /** Only with `absolute`. */
  readonly seq?: number | undefined;
}

export interface SegmentInput {
  readonly kind: SegmentKind;
  /** 0: no vectors. */
  readonly dims: number;
  /** null if `dims` is 0. */
  readonly metric: Metric | null;
  /** If an id stands there twice, the last one wins. */
  readonly rows: readonly SegmentRow[];
  /** Deleted before the rows are written, so a row of the same segment survives. */
  readonly tombs?: readonly { readonly id: string; readonly seq?: number | undefined }[];
  /** Rows carry their own `seq` (compaction) instead of the order in which they stand. @default false */
  readonly absolute?: boolean;
  /** `bf16` rounds every value to 8 significant bits: half the bytes, and exact search over the rounded values. @default 'f32' */
  readonly storage?: VectorStorage;
  /** Whether int8 codes are written beside the vectors: scans read a quarter of the bytes. @default from 256 rows */
  readonly codes?: boolean;
}

/** Below this many rows a scan of the vectors themselves takes no noticeable time. */
const codedRowsMin = 256;

export interface EncodedSegment {
  /** The whole file. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** What the manifest says about it, once it has a key. */
  readonly description: SegmentDescription;
}

/**
 * Encodes a segment. The same input gives the same bytes.
 *
 * @example
 * const { bytes, description } = encodeSegment({
 *   kind: 'data', dims: 2, metric: 'cosine',
 *   rows: [{ id: 'doc_a', vector: [1, 0], columns: flattenColumns({ category: 'technology' }) }],
 * });
 * @throws VectorError vector_invalid, row_invalid (naming the id), commit_too_large
 */
export function encodeSegment(input: SegmentInput): EncodedSegment {
  const { kind, dims, metric, rows } = input;
  const tombs = input.tombs ?? [];
  const absolute = input.absolute ?? false;
  checkShape(input);
  const rowCount = rows.length;
  const tombSeqs = seqsOf(tombs, absolute, 0);
  const seqs = seqsOf(rows, absolute, tombs.length);

  const sections: EncodedSection[] = [];
  const padDim = paddedDims(dims);
  const padRows = paddedRows(rowCount);
  const storage = input.storage ?? 'f32';
  const vectors =
    dims > 0
      ? encodeVectors(
          rows,
          { dims, padDim, padRows, metric: metric!, storage },
          input.codes ?? rowCount >= codedRowsMin,
        )
      : undefined;
  if (vectors) sections.push(...vectors.sections);
  sections.push(...encodeIds(rows));
  sections.push({ name: 'seq', enc: 'u64', bytes: bytesOf(u64(seqs)) });
  if (tombs.length > 0) {
    for (const { id } of tombs) checkId(id);
    sections.push({
      name: 'tomb',
      enc: 'json',
      bytes: jsonBytes(tombs.map(({ id }, i) => [id, tombSeqs[i]])),
    });
  }
  if (vectors) sections.push({ name: 'vecc', enc: 'u32', bytes: bytesOf(vectors.rowChecksums) });
  sections.push(
    ...encodeColumns(
      rows.map((row) => row.columns),
      kind,
    ),
  );

  const all = [...seqs, ...tombSeqs];
  let seqMin = all.length === 0 ? 0 : Number.POSITIVE_INFINITY;
  let seqMax = 0;
  for (const seq of all) {
    if (seq < seqMin) seqMin = seq;
    if (seq > seqMax) seqMax = seq;
  }
  const header = {
    crc32: '00000000',
    kind,
    dim: dims,
    padDim,
    rows: rowCount,
    padRows,
    tombs: tombs.length,
    dtype: storage,
    metric,
    absolute,
    seqMin,
    seqMax,
    rotationSeed: vectors?.rotationSeed ?? null,
    ...(vectors ? { normRange: vectors.normRange } : {}),
  };
  return assemble(header, sections);
}

function checkShape({ kind, dims, metric, rows, tombs = [], absolute }: SegmentInput): void {
  if (!Number.isInteger(dims) || dims < 0 || dims > dimsMax) {
    throw new VectorError('vector_invalid', `A segment has 0 to ${dimsMax} dimensions, got ${dims}.`);
  }
  if (dims > 0 !== (metric !== null)) {
    throw new VectorError('row_invalid', 'A segment has a metric exactly if it has vectors.');
  }
  if (kind !== 'data' && dims > 0) throw new VectorError('row_invalid', `A ${kind} segment has no vectors.`);
  if (kind === 'delta' && rows.length > 0)
    throw new VectorError('row_invalid', 'A delta segment has no rows.');
  if (absolute !== true && rows.length + tombs.length > seqsPerVersion) {
    const message = `A segment has at most ${seqsPerVersion} rows, got ${rows.length + tombs.length}.`;
    throw new VectorError('commit_too_large', message);
  }
}

function seqsOf(
  rows: readonly { id: string; seq?: number | undefined }[],
  absolute: boolean,
  first: number,
): number[] {
  return rows.map(({ id, seq }, i) => {
    if (!absolute) {
      if (seq !== undefined)
        throw new VectorError('row_invalid', `Row ${id} has a seq in a segment that is relative.`);
      return first + i;
    }
    if (seq === undefined || !Number.isSafeInteger(seq) || seq < 0) {
      throw new VectorError(
        'row_invalid',
        `Row ${id} of a compacted segment needs a seq from 0 to 2^53 - 1.`,
      );
    }
    return seq;
  });
}

interface VectorShape {
  readonly dims: number;
  readonly padDim: number;
  readonly padRows: number;
  readonly metric: Metric;
  readonly storage: VectorStorage;
}

interface EncodedVectors {
  readonly sections: readonly EncodedSection[];
  readonly rotationSeed: number | null;
  readonly normRange: readonly [min: number, max: number];
  /** By row: the crc32 of its bytes in `vec`, for rows that are read by themselves. */
  readonly rowChecksums: Uint32Array;
}

function encodeVectors(
  rows: readonly SegmentRow[],
  { dims, padDim, padRows, metric, storage }: VectorShape,
  coded: boolean,
): EncodedVectors {
  const given = new Float32Array(padRows * padDim);
  rows.forEach(({ id, vector }, row) => {
    if (vector === undefined) throw new VectorError('vector_invalid', `Row ${id} has no vector.`);
    try {
      given.set(validateVector(vector, dims), row * padDim);
    } catch (error) {
      if (error instanceof VectorError) throw new VectorError(error.code, `Row ${id}: ${error.message}`);
      throw error;
    }
  });
  const rounded = storage === 'bf16' ? toBfloat16(given) : undefined;
  // Everything below describes what is stored, so that scans are exact over it.
  const vectors = rounded ? fromBfloat16(rounded) : given;
  const aux = new Float32Array(padRows);
  let min = Number.POSITIVE_INFINITY;
  let max = 0;
  rows.forEach(({ id }, row) => {
    const squared = squaredNormAt(vectors, row * padDim, padDim);
    if (!Number.isFinite(squared)) {
      throw new VectorError('vector_invalid', `Row ${id}: a value is too large for bfloat16.`);
    }
    if (metric === 'cosine') aux[row] = inverseNorm(squared);
    if (metric === 'euclid') aux[row] = squared;
    if (squared === 0) return;
    min = Math.min(min, Math.sqrt(squared));
    max = Math.max(max, Math.sqrt(squared));
  });
  const normRange = [max === 0 ? 0 : min, max] as const;
  const stored = bytesOf(rounded ?? vectors);
  const rowBytes = padDim * (rounded ? 2 : 4);
  const rowChecksums = Uint32Array.from(rows, (_, row) =>
    crc32(stored.subarray(row * rowBytes, (row + 1) * rowBytes)),
  );
  const sections: EncodedSection[] = [
    rounded
      ? { name: 'vec', enc: 'bf16', bytes: bytesOf(rounded) }
      : { name: 'vec', enc: 'f32', bytes: bytesOf(vectors) },
    { name: 'aux', enc: 'f32', bytes: bytesOf(aux) },
  ];
  // Codes of lengths that a float32 cannot square would be of no use: such segments are scanned in double precision.
  if (!coded || !isKernelSafe(normRange)) return { sections, rotationSeed: null, normRange, rowChecksums };
  const { codes, scales, residuals, norms, rotationSeed } = encodeCodes(vectors, rows.length, dims, padDim);
  sections.push(
    { name: 'i8', enc: 'i8', bytes: bytesOf(codes) },
    { name: 'i8s', enc: 'f32', bytes: bytesOf(scales) },
    { name: 'i8r', enc: 'f32', bytes: bytesOf(residuals) },
    { name: 'i8n', enc: 'f32', bytes: bytesOf(norms) },
  );
  return { sections, rotationSeed, normRange, rowChecksums };
}

function encodeIds(rows: readonly SegmentRow[]): EncodedSection[] {
  const encoder = new TextEncoder();
  const encoded = rows.map(({ id }) => encoder.encode(checkId(id)));
  const offsets = new Uint32Array(rows.length + 1);
  encoded.forEach((id, row) => {
    offsets[row + 1] = offsets[row]! + id.length;
  });
  const ids = new Uint8Array(offsets[rows.length]!);
  for (const [row, id] of encoded.entries()) ids.set(id, offsets[row]!);
  const low = new Uint32Array(rows.length);
  const high = new Uint32Array(rows.length);
  encoded.forEach((id, row) => {
    [low[row], high[row]] = hashId(id, 0, id.length) as [number, number];
  });
  const order = Uint32Array.from(rows, (_, row) => row);
  order.sort((a, b) => high[a]! - high[b]! || low[a]! - low[b]! || a - b);
  const hashes = new Uint32Array(rows.length * 2);
  order.forEach((row, i) => {
    hashes[2 * i] = low[row]!;
    hashes[2 * i + 1] = high[row]!;
  });
  return [
    { name: 'idh', enc: 'u64', bytes: bytesOf(hashes) },
    { name: 'idp', enc: 'u32', bytes: bytesOf(order) },
    { name: 'ido', enc: 'u32', bytes: bytesOf(offsets) },
    { name: 'ids', enc: 'utf8', bytes: ids },
  ];
}

function checkId(id: string): string {
  if (typeof id !== 'string' || id.length === 0 || !id.isWellFormed() || Buffer.byteLength(id) > idBytesMax) {
    const shown = typeof id === 'string' ? JSON.stringify(id.slice(0, 40)) : typeof id;
    throw new VectorError(
      'row_invalid',
      `An id is a well-formed text of 1 to ${idBytesMax} bytes, got ${shown}.`,
    );
  }
  return id;
}

function u64(values: readonly number[]): Uint32Array {
  const words = new Uint32Array(values.length * 2);
  values.forEach((value, i) => {
    words[2 * i] = value % 2 ** 32;
    words[2 * i + 1] = Math.floor(value / 2 ** 32);
  });
  return words;
}

function assemble(
  header: Omit<SegmentHeader, 'sections'>,
  sections: readonly EncodedSection[],
): EncodedSegment {
  const names = new Set(sections.map(({ name }) => name));
  if (names.size !== sections.length) throw new VectorError('row_invalid', 'Two columns have the same name.');
  const checksums = sections.map(({ bytes }) => crc32(bytes));
  const layout = (start: number): SectionRef[] => {
    let off = start;
    return sections.map(({ name, enc, bytes }, i) => {
      const ref = { name, off, len: bytes.byteLength, crc32: checksums[i]!, enc };
      off = alignUp(off + bytes.byteLength, sectionAlign);
      return ref;
    });
  };
  // Offsets are part of the header, whose length moves the offsets: grow the room until the header fits.
  let start = firstSectionAlign;
  let refs = layout(start);
  let json = jsonBytes({ ...header, sections: refs });
  while (fixedHeaderBytes + json.byteLength > start) {
    start = alignUp(fixedHeaderBytes + json.byteLength, firstSectionAlign);
    refs = layout(start);
    json = jsonBytes({ ...header, sections: refs });
  }
  const last = refs.at(-1)!;
  const bytes = new Uint8Array(alignUp(last.off + last.len, sectionAlign));
  bytes.set(new TextEncoder().encode(magic), 0);
  const view = new DataView(bytes.buffer);
  view.setUint32(8, json.byteLength, true);
  view.setUint32(12, flagsOf(header.kind, names.has('i8'), header.rotationSeed), true);
  bytes.set(json, fixedHeaderBytes);
  const headerCrc = headerChecksum(bytes, json.byteLength);
  bytes.set(new TextEncoder().encode(headerCrc), headerChecksumAt);
  for (const [i, section] of sections.entries()) bytes.set(section.bytes, refs[i]!.off);
  return {
    bytes,
    description: {
      kind: header.kind,
      bytes: bytes.byteLength,
      rows: header.rows,
      tombs: header.tombs,
      dims: header.dim,
      metric: header.metric,
      absolute: header.absolute,
      seq_max: header.seqMax,
      header_len: json.byteLength,
      header_crc32: headerCrc,
      sections: refs,
    },
  };
}
