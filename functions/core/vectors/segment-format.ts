/*
 * The `.vseg` file: what one immutable segment of a feature's rows looks like on disk (little endian).
 *
 *   0   8 bytes  ASCII VSEG0001
 *   8   u32      header length H
 *   12  u32      flags: 1 = int8 codes, 4 = a delta (tombstones or a column patch), 8 = the codes are rotated
 *   16  H bytes  JSON header; its first member is the crc32 of bytes 0..16+H, computed with its own 8 digits zero
 *   ..  sections, the first at a multiple of 4096, each at a multiple of 64; gaps and the tail up to 64 are zero
 *
 * Sections: vec f32 or bf16 [padRows][padDim] as given; aux f32 [padRows] (cosine: inverse length, euclid: squared
 * length); i8 int8 [padRows][padDim] with i8s, i8r, i8n f32 [padRows]: scale, residual length, decoded length;
 * idh u64 [rows] sorted id hashes with idp u32 [rows] their rows; ido u32 [rows + 1] offsets into ids (UTF-8);
 * seq u64 [rows]; tomb JSON [[id, seq]...]; vecc u32 [rows] the crc32 of each row of vec; for a column `col:<name>` (f64, or u8, u16, u32 codes),
 * `col:<name>:dict` (JSON list of values), `col:<name>:list` (u32 [rows + 1] offsets, then codes),
 * `col:<name>:missing` and `col:<name>:cleared` (bitmaps); `sparse` JSON for rare columns.
 * A segment without vectors (rows of documents, patches, tombstones) has dim 0 and neither vec nor aux.
 */
import { crc32 } from 'node:zlib';
import type { Metric } from './vector.ts';

export const magic = 'VSEG0001';
export const fixedHeaderBytes = 16;
export const sectionAlign = 64;
export const firstSectionAlign = 4_096;
const flagCodes = 1;
const flagDelta = 4;
const flagRotated = 8;

/** The sections that scans read and nothing else does; they stand first, so that all others are one range. */
export const vectorSections = ['vec', 'aux', 'i8', 'i8s', 'i8r', 'i8n'] as const;
export type VectorSection = (typeof vectorSections)[number];

/** What is in the memory of the kernel as one piece. `aux` is in both, since scans of both need it. */
export type SectionGroup = 'codes' | 'vectors';
export const sectionGroups: Readonly<Record<SectionGroup, readonly VectorSection[]>> = {
  codes: ['aux', 'i8', 'i8s', 'i8r', 'i8n'],
  vectors: ['vec', 'aux'],
};

/** How the values of vectors are stored: as given, or rounded to the upper half of their bits. */
export type VectorStorage = 'f32' | 'bf16';
export const vectorStorages: readonly VectorStorage[] = ['f32', 'bf16'];

/** Size of a segment that scans, loads and compactions are tuned for (vector store design, section 3). */
export const segmentBytesTarget = 64 * 2 ** 20;

/** Sequence numbers of one commit: `version * 2^24` is its first (vector store design, section 8.3). */
export const seqsPerVersion = 2 ** 24;

/** `data`: rows replace older rows of their id. `delta`: ids are deleted. `columns`: columns of rows change. */
export type SegmentKind = 'data' | 'delta' | 'columns';

export type SectionEncoding =
  | 'f32'
  | 'bf16'
  | 'i8'
  | 'f64'
  | 'u8'
  | 'u16'
  | 'u32'
  | 'u64'
  | 'bits'
  | 'utf8'
  | 'json';

/** One line of the section table, in the header and again in the manifest. */
export interface SectionRef {
  readonly name: string;
  /** From the start of the file, in bytes; a multiple of 64. */
  readonly off: number;
  readonly len: number;
  readonly crc32: number;
  readonly enc: SectionEncoding;
}

/** What is known about a segment before it has a key: given back by `encodeSegment`. */
export interface SegmentDescription {
  readonly kind: SegmentKind;
  /** Length of the file. */
  readonly bytes: number;
  readonly rows: number;
  /** Deleted ids. */
  readonly tombs: number;
  /** 0 for segments without vectors. */
  readonly dims: number;
  readonly metric: Metric | null;
  /** Its sequence numbers count from 0 (compacted), not from `base_seq`. */
  readonly absolute: boolean;
  /** Highest sequence number in the file, without the base. */
  readonly seq_max: number;
  readonly header_len: number;
  readonly header_crc32: string;
  readonly sections: readonly SectionRef[];
}

/** The JSON header of a segment. */
export interface SegmentHeader {
  /** Eight hexadecimal digits; must stay the first member. */
  readonly crc32: string;
  readonly kind: SegmentKind;
  /** 0 for a segment without vectors. */
  readonly dim: number;
  readonly padDim: number;
  readonly rows: number;
  readonly padRows: number;
  /** Deleted ids in `tomb`. */
  readonly tombs: number;
  readonly dtype: VectorStorage;
  /** null for a segment without vectors. */
  readonly metric: Metric | null;
  /** Whether `seq` counts from 0 in the index (compacted rows), not from the base in the manifest. */
  readonly absolute: boolean;
  readonly seqMin: number;
  readonly seqMax: number;
  /** Seed of the rotation behind the int8 codes; null if there are none or they are not rotated. */
  readonly rotationSeed: number | null;
  /** Shortest and longest length of a row that is not zero; missing in files of the first version, and without vectors. */
  readonly normRange?: readonly [min: number, max: number] | undefined;
  readonly sections: readonly SectionRef[];
}

export function alignUp(value: number, align: number): number {
  return Math.ceil(value / align) * align;
}

/** The section name of a column: `:` in the name would look like the beginning of a suffix. */
export function columnSection(column: string, part?: 'dict' | 'list' | 'missing' | 'cleared'): string {
  const escaped = column.replaceAll('%', '%25').replaceAll(':', '%3A');
  return part === undefined ? `col:${escaped}` : `col:${escaped}:${part}`;
}

/** The column of a section name `col:<name>`, undefined for all other sections and for a column's parts. */
export function columnOfSection(section: string): string | undefined {
  if (!section.startsWith('col:')) return undefined;
  const escaped = section.slice(4);
  return escaped.includes(':') ? undefined : escaped.replaceAll('%3A', ':').replaceAll('%25', '%');
}

/** Where the eight digits of the header's checksum stand in the file: after `{"crc32":"`. */
export const headerChecksumAt = fixedHeaderBytes + 10;

/**
 * The crc32 of everything before the sections, taken with its own eight digits as zeros.
 *
 * @returns eight hexadecimal digits
 */
export function headerChecksum(bytes: Uint8Array, headerLength: number): string {
  // Not `slice`: a Buffer's would share the memory and be written to.
  const copy = new Uint8Array(bytes.subarray(0, fixedHeaderBytes + headerLength));
  copy.fill(0x30, headerChecksumAt, headerChecksumAt + 8);
  return crc32(copy).toString(16).padStart(8, '0');
}

/** Whether a value is one line of a section table. */
export function isSectionRef(value: unknown): value is SectionRef {
  if (typeof value !== 'object' || value === null) return false;
  const { name, off, len, crc32: checksum, enc } = value as Partial<Record<keyof SectionRef, unknown>>;
  return (
    typeof name === 'string' && isCount(off) && isCount(len) && isCount(checksum) && typeof enc === 'string'
  );
}

export function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}

/** The flags word of a segment. */
export function flagsOf(kind: SegmentKind, coded: boolean, rotationSeed: number | null): number {
  return (
    (kind === 'data' ? 0 : flagDelta) | (coded ? flagCodes : 0) | (rotationSeed === null ? 0 : flagRotated)
  );
}

/** Whether only scans read this section. */
export function isVectorSection(name: string): boolean {
  return vectorSections.some((one) => one === name);
}
