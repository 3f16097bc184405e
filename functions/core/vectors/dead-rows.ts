// The dead-row list: rows of a segment that a compaction found dead, so that the deletions that killed them can go.
import { crc32 } from 'node:zlib';
import { type Bits, countBits, wordsFor } from './bits.ts';
import { VectorError, type VectorErrorCode } from './errors.ts';
import { isCount } from './segment-format.ts';

/*
 *   0   8 bytes  ASCII VDEAD001
 *   8   u32      rows of the segment
 *   12  u32      how many of them are dead
 *   16  bitmap   u32 [ceil(rows / 32)], row 0 in the lowest bit, bits past the last row zero; little endian
 */
const magic = 'VDEAD001';
const headerBytes = 16;

/** A dead-row list as a manifest names it, beside the segment. The object never changes. */
export interface DeadRowsRef {
  readonly key: string;
  /** Length of the object. */
  readonly bytes: number;
  /** How many rows are dead: at least 1. */
  readonly rows: number;
  /** Of the whole object. */
  readonly crc32: number;
}

/**
 * Encodes the list of one segment.
 *
 * @param dead the dead rows
 * @param rows of the segment
 */
export function encodeDeadRows(
  dead: Bits,
  rows: number,
): { readonly bytes: Uint8Array<ArrayBuffer>; readonly description: Omit<DeadRowsRef, 'key'> } {
  const words = wordsFor(rows);
  const bytes = new Uint8Array(headerBytes + words * 4);
  bytes.set(new TextEncoder().encode(magic), 0);
  const view = new DataView(bytes.buffer);
  const count = countBits(dead);
  view.setUint32(8, rows, true);
  view.setUint32(12, count, true);
  for (let i = 0; i < words; i += 1) view.setUint32(headerBytes + i * 4, dead[i]!, true);
  return { bytes, description: { bytes: bytes.byteLength, rows: count, crc32: crc32(bytes) } };
}

/**
 * Opens the list of one segment.
 *
 * @param ref what the manifest says of it
 * @param rows of the segment
 * @returns the dead rows
 * @throws VectorError dead_rows_foreign, dead_rows_corrupt, naming the object
 */
export function openDeadRows(bytes: Uint8Array, ref: DeadRowsRef, rows: number): Bits {
  const fail = (code: VectorErrorCode, message: string): never => {
    throw new VectorError(code, message, ref.key);
  };
  const begin = new TextDecoder('latin1').decode(bytes.subarray(0, magic.length));
  if (begin !== magic) {
    return fail('dead_rows_foreign', `This is not a dead-row list: it does not begin with ${magic}.`);
  }
  if (bytes.byteLength !== ref.bytes) {
    return fail('dead_rows_corrupt', `The list has ${bytes.byteLength} of ${ref.bytes} bytes.`);
  }
  if (crc32(bytes) !== ref.crc32) return fail('dead_rows_corrupt', 'The list does not match its checksum.');
  const words = wordsFor(rows);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes.byteLength !== headerBytes + words * 4 || view.getUint32(8, true) !== rows) {
    return fail('dead_rows_corrupt', `The list is not one of a segment of ${rows} rows.`);
  }
  const dead = new Uint32Array(words);
  for (let i = 0; i < words; i += 1) dead[i] = view.getUint32(headerBytes + i * 4, true);
  if (countBits(dead) !== ref.rows) return fail('dead_rows_corrupt', 'The list does not hold as many rows.');
  return dead;
}

/** Whether a value is what a manifest says of a dead-row list. */
export function isDeadRowsRef(value: unknown): value is DeadRowsRef {
  if (typeof value !== 'object' || value === null) return false;
  const { key, bytes, rows, crc32: checksum } = value as Partial<Record<keyof DeadRowsRef, unknown>>;
  return typeof key === 'string' && isCount(bytes) && isCount(rows) && rows > 0 && isCount(checksum);
}
