// Opens a segment: verifies that the bytes are the ones that were written, then gives rows, ids and columns.
import { crc32 } from 'node:zlib';
import { asU32, type Column, type OpenSection, openColumn, openSparse, parseJson } from './column-codec.ts';
import { VectorError, type VectorErrorCode } from './errors.ts';
import {
  alignUp,
  columnOfSection,
  columnSection,
  firstSectionAlign,
  fixedHeaderBytes,
  flagDelta,
  headerChecksum,
  isCount,
  isSectionRef,
  magic,
  type SegmentDescription,
  type SegmentHeader,
  sectionAlign,
} from './segment-format.ts';
import { inverseNorm, metrics, paddedDims, paddedRows, squaredNormAt } from './vector.ts';

/** A deleted id, with the sequence number that the segment itself knows (without the manifest's base). */
export interface Tomb {
  readonly id: string;
  readonly seq: number;
}

/**
 * Verifies and opens a segment.
 *
 * Every byte is covered: magic, length, a checksum of the header, one of each section, zeros between them. Columns
 * are opened when they are first asked for.
 *
 * @param bytes the whole file; kept, not copied, if its buffer is aligned to 8 bytes
 * @param objectName the key it was read from, for messages
 * @param expected what the manifest says; a sound segment that differs is refused
 * @throws VectorError segment_foreign, segment_truncated, segment_corrupt, segment_mismatch, naming `objectName`
 */
export function openSegment(bytes: Uint8Array, objectName: string, expected?: SegmentDescription): Segment {
  const fail = (code: VectorErrorCode, message: string): never => {
    throw new VectorError(code, message, objectName);
  };
  const begin = new TextDecoder('latin1').decode(bytes.subarray(0, magic.length));
  if (begin !== magic.slice(0, begin.length) || bytes.length === 0) {
    return fail('segment_foreign', `This is not a segment: it does not begin with ${magic}.`);
  }
  if (bytes.length < fixedHeaderBytes) {
    return fail('segment_truncated', `The segment ends after ${bytes.length} bytes, inside its header.`);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const headerLength = view.getUint32(8, true);
  if (headerLength > bytes.length - fixedHeaderBytes) {
    const message = `The segment ends after ${bytes.length} bytes, inside its header of ${headerLength}.`;
    return fail('segment_truncated', message);
  }
  const parsed = parseJson(bytes.subarray(fixedHeaderBytes, fixedHeaderBytes + headerLength));
  const checksum = headerChecksum(bytes, headerLength);
  if (!isHeader(parsed) || parsed.crc32 !== checksum) {
    return fail('segment_corrupt', 'The header of the segment does not match its checksum.');
  }
  const header = parsed;
  const last = header.sections.at(-1)!;
  const length = alignUp(last.off + last.len, sectionAlign);
  if (bytes.length < length) {
    return fail('segment_truncated', `The segment has ${bytes.length} of ${length} bytes.`);
  }
  if (bytes.length > length) {
    return fail('segment_corrupt', `The segment has ${bytes.length} bytes, ${length} belong to it.`);
  }
  // Typed arrays need aligned offsets; a slice of a pooled buffer may have any.
  const aligned = bytes.byteOffset % 8 === 0 ? bytes : new Uint8Array(bytes);
  const sections = new Map<string, OpenSection>();
  let end = fixedHeaderBytes + headerLength;
  for (const { name, off, len, crc32: expectedCrc, enc } of header.sections) {
    const earliest = sections.size === 0 ? alignUp(end, firstSectionAlign) : alignUp(end, sectionAlign);
    if (off !== earliest || sections.has(name))
      return fail('segment_corrupt', `Section ${name} is out of place.`);
    if (!isZero(aligned, end, off)) return fail('segment_corrupt', `There are bytes before section ${name}.`);
    const content = aligned.subarray(off, off + len);
    if (crc32(content) !== expectedCrc) {
      return fail('segment_corrupt', `Section ${name} does not match its checksum.`);
    }
    sections.set(name, { enc, bytes: content });
    end = off + len;
  }
  if (!isZero(aligned, end, length))
    return fail('segment_corrupt', 'There are bytes after the last section.');
  if (view.getUint32(12, true) !== (header.kind === 'data' ? 0 : flagDelta)) {
    return fail('segment_corrupt', 'The flags do not fit the kind of the segment.');
  }
  if (expected !== undefined) {
    const same =
      expected.bytes === length && expected.header_len === headerLength && expected.header_crc32 === checksum;
    if (!same) return fail('segment_mismatch', 'This is another segment than the manifest describes.');
  }
  return new Segment(objectName, header, sections);
}

/** An open, verified segment. Immutable; safe to share between snapshots and to keep in a cache by key. */
export class Segment {
  readonly objectName: string;
  readonly header: SegmentHeader;
  readonly rows: number;
  readonly dims: number;
  /** Values between two rows of `vectors`. */
  readonly padDims: number;
  /** Row-major, `padRows x padDims`, as given (not normalised); empty if the segment has no vectors. */
  readonly vectors: Float32Array;
  readonly tombs: readonly Tomb[];
  /** Id hashes in ascending order, low and high half in turn, and the rows they belong to. */
  readonly hashes: Uint32Array;
  readonly hashRows: Uint32Array;
  readonly ids: Uint8Array;
  readonly idOffsets: Uint32Array;
  readonly #seqs: Uint32Array;
  readonly #sections: ReadonlyMap<string, OpenSection>;
  readonly #columns = new Map<string, Column>();
  readonly #idCache: (string | undefined)[];
  #names: readonly string[] | undefined;
  #sparse: ReadonlyMap<string, Column> | undefined;
  #inverseNorms: Float64Array | undefined;

  /** Use `openSegment`: it verifies what this takes for granted. */
  constructor(objectName: string, header: SegmentHeader, sections: ReadonlyMap<string, OpenSection>) {
    this.objectName = objectName;
    this.header = header;
    this.#sections = sections;
    this.rows = header.rows;
    this.dims = header.dim;
    this.padDims = header.padDim;
    const { rows, padRows, padDim } = header;
    if (header.dim > 0) {
      const vec = this.#section('vec', 'f32', padRows * padDim * 4);
      this.#section('aux', 'f32', padRows * 4);
      this.vectors = new Float32Array(vec.buffer, vec.byteOffset, padRows * padDim);
    } else {
      this.vectors = new Float32Array(0);
    }
    this.hashes = asU32(this.#section('idh', 'u64', rows * 8));
    this.hashRows = asU32(this.#section('idp', 'u32', rows * 4));
    this.idOffsets = asU32(this.#section('ido', 'u32', (rows + 1) * 4));
    this.ids = this.#section('ids', 'utf8', this.idOffsets[rows]!);
    this.#seqs = asU32(this.#section('seq', 'u64', rows * 8));
    this.#idCache = new Array<string | undefined>(rows);
    if (this.hashRows.some((row) => row >= rows))
      this.#corrupt('Its id table names a row that is not there.');
    for (let row = 0; row < rows; row += 1) {
      if (this.idOffsets[row]! > this.idOffsets[row + 1]!) this.#corrupt('The offsets of its ids are wrong.');
    }
    this.tombs = this.#openTombs();
  }

  id(row: number): string {
    let id = this.#idCache[row];
    if (id === undefined) {
      id = new TextDecoder().decode(this.ids.subarray(this.idOffsets[row]!, this.idOffsets[row + 1]!));
      this.#idCache[row] = id;
    }
    return id;
  }

  /** The sequence number that the segment knows; the manifest's base is added to it. */
  seq(row: number): number {
    return this.#seqs[2 * row]! + this.#seqs[2 * row + 1]! * 2 ** 32;
  }

  /** A copy of one vector, without padding. */
  vector(row: number): Float32Array {
    return this.vectors.slice(row * this.padDims, row * this.padDims + this.dims);
  }

  /** Factor of each row for a cosine: 1 / length, 0 for a zero vector. */
  inverseNorms(): Float64Array {
    if (this.#inverseNorms === undefined) {
      const aux = this.#section('aux', 'f32', this.header.padRows * 4);
      const stored = new Float32Array(aux.buffer, aux.byteOffset, this.header.padRows);
      const factors = Float64Array.from(stored);
      // Very long and very short vectors have a factor that float32 cannot hold well.
      for (let row = 0; row < this.rows; row += 1) {
        const factor = factors[row]!;
        if (factor < 2 ** -100 || factor > 2 ** 100) {
          factors[row] = inverseNorm(squaredNormAt(this.vectors, row * this.padDims, this.padDims));
        }
      }
      this.#inverseNorms = factors;
    }
    return this.#inverseNorms;
  }

  /** Names of all columns, ascending. */
  columnNames(): readonly string[] {
    if (this.#names === undefined) {
      const names = new Set(this.#openSparse().keys());
      for (const section of this.#sections.keys()) {
        const name = columnOfSection(section);
        if (name !== undefined) names.add(name);
      }
      this.#names = [...names].sort();
    }
    return this.#names;
  }

  /**
   * A column, undefined if no row of the segment has it.
   *
   * @throws VectorError segment_corrupt if its sections do not fit together
   */
  column(name: string): Column | undefined {
    const open = this.#columns.get(name) ?? this.#openSparse().get(name);
    if (open !== undefined) return open;
    if (!this.#sections.has(columnSection(name))) return undefined;
    const column = openColumn(
      this.rows,
      (part) => this.#sections.get(columnSection(name, part)),
      (what) => this.#corrupt(`Column ${name}: ${what}.`),
    );
    this.#columns.set(name, column);
    return column;
  }

  #openSparse(): ReadonlyMap<string, Column> {
    if (this.#sparse === undefined) {
      const section = this.#sections.get('sparse');
      this.#sparse =
        section === undefined
          ? new Map()
          : openSparse(this.rows, section.bytes, (what) => this.#corrupt(`Rare columns: ${what}.`));
    }
    return this.#sparse;
  }

  #openTombs(): Tomb[] {
    const section = this.#sections.get('tomb');
    const parsed = section === undefined ? [] : parseJson(section.bytes);
    if (!Array.isArray(parsed) || parsed.length !== this.header.tombs) {
      return this.#corrupt('Its list of deleted ids has a wrong length.');
    }
    return parsed.map((entry: unknown) => {
      const [id, seq] = Array.isArray(entry) ? (entry as unknown[]) : [];
      if (typeof id !== 'string' || typeof seq !== 'number' || !Number.isSafeInteger(seq) || seq < 0) {
        return this.#corrupt('Its list of deleted ids has an entry that is not [id, seq].');
      }
      return { id, seq };
    });
  }

  #section(name: string, enc: string, length: number): Uint8Array {
    const section = this.#sections.get(name);
    if (section === undefined) return this.#corrupt(`Section ${name} is missing.`);
    if (section.enc !== enc || section.bytes.byteLength !== length) {
      return this.#corrupt(
        `Section ${name} has ${section.bytes.byteLength} bytes of ${section.enc}, needs ${length}.`,
      );
    }
    return section.bytes;
  }

  #corrupt(message: string): never {
    throw new VectorError('segment_corrupt', message, this.objectName);
  }
}

function isZero(bytes: Uint8Array, start: number, end: number): boolean {
  for (let i = start; i < end; i += 1) if (bytes[i] !== 0) return false;
  return true;
}

function isHeader(value: unknown): value is SegmentHeader {
  if (typeof value !== 'object' || value === null) return false;
  const header = value as Partial<Record<keyof SegmentHeader, unknown>>;
  const { dim, rows, kind, metric, sections } = header;
  return (
    typeof header.crc32 === 'string' &&
    (kind === 'data' || kind === 'delta' || kind === 'columns') &&
    isCount(dim) &&
    header.padDim === paddedDims(dim) &&
    isCount(rows) &&
    header.padRows === paddedRows(rows) &&
    isCount(header.tombs) &&
    header.dtype === 'f32' &&
    (dim === 0 ? metric === null : metrics.some((known) => known === metric)) &&
    typeof header.absolute === 'boolean' &&
    isCount(header.seqMin) &&
    isCount(header.seqMax) &&
    Array.isArray(sections) &&
    sections.length > 0 &&
    sections.every(isSectionRef)
  );
}
