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
  flagsOf,
  headerChecksum,
  isCount,
  isSectionRef,
  isVectorSection,
  magic,
  type SectionRef,
  type SegmentDescription,
  type SegmentHeader,
  sectionAlign,
  vectorStorages,
} from './segment-format.ts';
import { type SegmentSource, SegmentVectors } from './segment-vectors.ts';
import { metrics, paddedDims, paddedRows } from './vector.ts';

/** A deleted id, with the sequence number that the segment itself knows (without the manifest's base). */
export interface Tomb {
  readonly id: string;
  readonly seq: number;
}

/**
 * Verifies and opens a segment that is in memory as a whole.
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
  const fail = failing(objectName);
  const header = readHeader(bytes, objectName, expected);
  const length = fileLength(header);
  if (bytes.length < length) {
    return fail('segment_truncated', `The segment has ${bytes.length} of ${length} bytes.`);
  }
  if (bytes.length > length) {
    return fail('segment_corrupt', `The segment has ${bytes.length} bytes, ${length} belong to it.`);
  }
  // Typed arrays need aligned offsets; a slice of a pooled buffer may have any.
  const aligned = bytes.byteOffset % 8 === 0 ? bytes : new Uint8Array(bytes);
  const sections = openSections(aligned, 0, header, header.sections, fail);
  const source = {
    bytes: aligned,
    readInto: (at: number, target: Uint8Array) => copyInto(aligned, at, target),
  };
  return new Segment(objectName, header, sections, source);
}

/** A second request takes longer than these bytes. */
const wholeBytes = 256 * 1024;

/**
 * Opens a stored segment without its vectors, which are read when somebody scans or asks for them.
 *
 * @param expected what the manifest says of it
 * @param objectName the key, for messages
 * @param wholeBytesMax smaller segments are read whole, vectors and all
 * @throws VectorError as `openSegment`; and what the source throws
 */
export async function openStoredSegment(
  source: SegmentSource,
  objectName: string,
  expected: SegmentDescription,
  wholeBytesMax: number = wholeBytes,
): Promise<Segment> {
  const fail = failing(objectName);
  const others = expected.sections.filter(({ name }) => !isVectorSection(name));
  const first = others[0];
  if (expected.bytes <= wholeBytesMax || expected.dims === 0 || first === undefined) {
    const bytes = new Uint8Array(expected.bytes);
    await source.readInto(0, bytes);
    return openSegment(bytes, objectName, expected);
  }
  const head = new Uint8Array(fixedHeaderBytes + expected.header_len);
  const rest = new Uint8Array(expected.bytes - first.off);
  await Promise.all([source.readInto(0, head), source.readInto(first.off, rest)]);
  const header = readHeader(head, objectName, expected);
  const own = header.sections.filter(({ name }) => !isVectorSection(name));
  if (own[0]?.off !== first.off) return fail('segment_corrupt', 'Its vectors do not stand before the rest.');
  return new Segment(objectName, header, openSections(rest, first.off, header, own, fail), source);
}

/** What a search needs to know of a segment that another process scans: which ids it holds, and how new each is. */
const idSections: ReadonlySet<string> = new Set(['idh', 'idp', 'ido', 'ids', 'seq', 'tomb']);

/**
 * Opens a stored segment without its vectors and columns: it has ids, sequence numbers and deletions only.
 *
 * @throws VectorError as `openSegment`; and what the source throws
 */
export async function openStoredIds(
  source: SegmentSource,
  objectName: string,
  expected: SegmentDescription,
): Promise<Segment> {
  const fail = failing(objectName);
  const wanted = expected.sections.filter(({ name }) => idSections.has(name));
  const first = wanted[0];
  const last = wanted.at(-1);
  if (first === undefined || last === undefined) return fail('segment_corrupt', 'It has no ids.');
  const head = new Uint8Array(fixedHeaderBytes + expected.header_len);
  const ids = new Uint8Array(last.off + last.len - first.off);
  await Promise.all([source.readInto(0, head), source.readInto(first.off, ids)]);
  const header = readHeader(head, objectName, expected);
  const own = header.sections.filter(({ name }) => idSections.has(name));
  if (own[0]?.off !== first.off || own.at(-1)!.off !== last.off)
    return fail('segment_corrupt', 'Its ids do not stand where the manifest says.');
  const sections = openSections(ids, first.off, header, own, fail, last.off + last.len);
  return new Segment(objectName, header, sections, source);
}

type Fail = (code: VectorErrorCode, message: string) => never;

function failing(objectName: string): Fail {
  return (code, message) => {
    throw new VectorError(code, message, objectName);
  };
}

async function copyInto(bytes: Uint8Array, at: number, target: Uint8Array): Promise<void> {
  target.set(bytes.subarray(at, at + target.byteLength));
}

/** Where the file ends, by its own table. */
function fileLength({ sections }: SegmentHeader): number {
  const last = sections.at(-1)!;
  return alignUp(last.off + last.len, sectionAlign);
}

/** @param bytes the file or at least all before its sections */
function readHeader(
  bytes: Uint8Array,
  objectName: string,
  expected: SegmentDescription | undefined,
): SegmentHeader {
  const fail = failing(objectName);
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
  const header = parseJson(bytes.subarray(fixedHeaderBytes, fixedHeaderBytes + headerLength));
  const checksum = headerChecksum(bytes, headerLength);
  if (!isHeader(header) || header.crc32 !== checksum) {
    return fail('segment_corrupt', 'The header of the segment does not match its checksum.');
  }
  let end = fixedHeaderBytes + headerLength;
  const names = new Set<string>();
  for (const { name, off, len } of header.sections) {
    const earliest = alignUp(end, names.size === 0 ? firstSectionAlign : sectionAlign);
    if (off !== earliest || names.has(name))
      return fail('segment_corrupt', `Section ${name} is out of place.`);
    names.add(name);
    end = off + len;
  }
  if (view.getUint32(12, true) !== flagsOf(header.kind, names.has('i8'), header.rotationSeed)) {
    return fail('segment_corrupt', 'The flags do not fit the kind of the segment.');
  }
  if (expected !== undefined) {
    const same =
      expected.bytes === fileLength(header) &&
      expected.header_len === headerLength &&
      expected.header_crc32 === checksum;
    if (!same) return fail('segment_mismatch', 'This is another segment than the manifest describes.');
  }
  return header;
}

/**
 * Verifies sections that stand one after the other.
 *
 * @param bytes the file from `start` on
 * @param until where the bytes end, in the file
 */
function openSections(
  bytes: Uint8Array,
  start: number,
  header: SegmentHeader,
  refs: readonly SectionRef[],
  fail: Fail,
  until: number = fileLength(header),
): Map<string, OpenSection> {
  const sections = new Map<string, OpenSection>();
  let end =
    start === 0 ? fixedHeaderBytes + new DataView(bytes.buffer, bytes.byteOffset).getUint32(8, true) : start;
  for (const { name, off, len, crc32: expected, enc } of refs) {
    if (!isZero(bytes, end - start, off - start)) {
      return fail('segment_corrupt', `There are bytes before section ${name}.`);
    }
    const content = bytes.subarray(off - start, off - start + len);
    if (crc32(content) !== expected) fail('segment_corrupt', `Section ${name} does not match its checksum.`);
    sections.set(name, { enc, bytes: content });
    end = off + len;
  }
  if (!isZero(bytes, end - start, until - start)) {
    return fail('segment_corrupt', 'There are bytes after the last section.');
  }
  return sections;
}

/** An open, verified segment. Immutable; safe to share between snapshots and to keep in a cache by key. */
export class Segment {
  readonly objectName: string;
  readonly header: SegmentHeader;
  readonly rows: number;
  readonly dims: number;
  /** undefined if the segment has none. */
  readonly vectors: SegmentVectors | undefined;
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

  /** Use `openSegment` or `openStoredSegment`: they verify what this takes for granted. */
  constructor(
    objectName: string,
    header: SegmentHeader,
    sections: ReadonlyMap<string, OpenSection>,
    source: SegmentSource,
  ) {
    this.objectName = objectName;
    this.header = header;
    this.#sections = sections;
    this.rows = header.rows;
    this.dims = header.dim;
    const { rows } = header;
    this.vectors =
      header.dim > 0 ? new SegmentVectors(objectName, header, source, this.#rowChecksums()) : undefined;
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

  /** undefined where the file has none, or where only its ids were read. */
  #rowChecksums(): Uint32Array | undefined {
    if (!this.#sections.has('vecc')) return undefined;
    return asU32(this.#section('vecc', 'u32', this.rows * 4));
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
    vectorStorages.some((known) => known === header.dtype) &&
    (header.rotationSeed === null || isCount(header.rotationSeed)) &&
    (header.normRange === undefined || isRange(header.normRange)) &&
    (dim === 0 ? metric === null : metrics.some((known) => known === metric)) &&
    typeof header.absolute === 'boolean' &&
    isCount(header.seqMin) &&
    isCount(header.seqMax) &&
    Array.isArray(sections) &&
    sections.length > 0 &&
    sections.every(isSectionRef)
  );
}

function isRange(value: unknown): boolean {
  const [min, max] = Array.isArray(value) && value.length === 2 ? (value as unknown[]) : [];
  return typeof min === 'number' && typeof max === 'number' && 0 <= min && min <= max;
}
