// Columns of a segment: dictionary codes, float64 numbers or sparse pairs, and the bitmaps that filters ask for.
import type { CompareNode } from '../conditions/condition.ts';
import type { Scalar } from '../conditions/field.ts';
import { andNotInto, type Bits, clearBit, hasBit, noBits, orInto, rowsOf, setBit } from './bits.ts';
import type { ColumnPatch, ColumnValue } from './columns.ts';
import { VectorError } from './errors.ts';
import { columnSection, type SectionEncoding } from './segment-format.ts';

/** Columns with sections of their own in one segment; rarer ones share the `sparse` section. */
export const denseColumnsMax = 256;

export interface EncodedSection {
  readonly name: string;
  readonly enc: SectionEncoding;
  readonly bytes: Uint8Array;
}

/** What a comparison asks of one value. */
export type ValueTest = Pick<CompareNode, 'numbers' | 'test'>;

/** A column of an open segment. */
export interface Column {
  /** Rows that do not have the column; undefined if all have it. */
  readonly missing: Bits | undefined;
  /** Rows of a patch that take the column away; undefined if none does. */
  readonly cleared: Bits | undefined;
  /** @returns undefined if the row does not have the column */
  readonly at: (row: number) => ColumnValue | undefined;
  /** The rows of which any element passes. `test` is asked once per distinct value where there is a dictionary. */
  readonly select: (wanted: ValueTest) => Bits;
  /**
   * Calls `add` once for each distinct value of the rows in `selected`, in no order, with the number of those rows
   * that hold it; a list counts each of its distinct elements once.
   */
  readonly tally: (selected: Bits, add: (value: Scalar, rows: number) => void) => void;
}

interface Gathered {
  readonly rows: number[];
  readonly values: (ColumnValue | undefined)[];
}

/**
 * Encodes the columns of a segment's rows, ordered by name.
 *
 * @param rows one entry a row; an undefined value clears the column in a patch and is missing in a data segment
 */
export function encodeColumns(
  rows: readonly (ColumnPatch | undefined)[],
  kind: 'data' | 'columns' | 'delta',
): EncodedSection[] {
  const gathered = new Map<string, Gathered>();
  rows.forEach((columns, row) => {
    if (columns === undefined) return;
    for (const [name, value] of columns) {
      if (value === undefined && kind !== 'columns') continue;
      checkValue(name, value);
      const column = gathered.get(name) ?? { rows: [], values: [] };
      gathered.set(name, column);
      column.rows.push(row);
      column.values.push(value);
    }
  });
  const names = [...gathered.keys()].sort(compareText);
  const byUse = [...names].sort((a, b) => gathered.get(b)!.rows.length - gathered.get(a)!.rows.length);
  const dense = new Set(byUse.slice(0, denseColumnsMax));
  const sections: EncodedSection[] = [];
  const sparse: [string, number[], (ColumnValue | undefined)[]][] = [];
  for (const name of names) {
    const column = gathered.get(name)!;
    if (dense.has(name)) sections.push(...encodeDense(name, column, rows.length));
    else sparse.push([name, column.rows, column.values]);
  }
  if (sparse.length > 0) {
    // A cleared value is written as an empty object, which is no column value.
    const bytes = jsonBytes(
      sparse.map(([name, at, values]) => [name, at, values.map((v) => (v === undefined ? {} : v))]),
    );
    sections.push({ name: 'sparse', enc: 'json', bytes });
  }
  return sections;
}

/** JSON would turn these numbers into null without a word. */
function checkValue(name: string, value: ColumnValue | undefined): void {
  const elements = typeof value === 'object' && value !== null ? value : [value];
  if (elements.some((element) => typeof element === 'number' && !Number.isFinite(element))) {
    throw new VectorError('row_invalid', `Column ${name} holds a number that is not finite.`);
  }
}

function encodeDense(name: string, column: Gathered, rows: number): EncodedSection[] {
  const sections: EncodedSection[] = [];
  const missing = noBits(rows).fill(0xffffffff);
  for (let row = rows; row < missing.length * 32; row += 1) clearBit(missing, row);
  const cleared = noBits(rows);
  let clearedRows = 0;
  let presentRows = 0;
  column.rows.forEach((row, i) => {
    if (column.values[i] === undefined) {
      setBit(cleared, row);
      clearedRows += 1;
    } else {
      clearBit(missing, row);
      presentRows += 1;
    }
  });

  if (presentRows > 0 && column.values.every((value) => value === undefined || typeof value === 'number')) {
    const numbers = new Float64Array(rows);
    column.rows.forEach((row, i) => {
      const value = column.values[i];
      if (value !== undefined) numbers[row] = value as number;
    });
    sections.push({ name: columnSection(name), enc: 'f64', bytes: bytesOf(numbers) });
  } else {
    sections.push(...encodeDictionary(name, column, rows));
  }
  if (presentRows < rows) {
    sections.push({ name: columnSection(name, 'missing'), enc: 'bits', bytes: bytesOf(missing) });
  }
  if (clearedRows > 0) {
    sections.push({ name: columnSection(name, 'cleared'), enc: 'bits', bytes: bytesOf(cleared) });
  }
  return sections;
}

/** A row that holds a list has the code one past the dictionary; its elements stand in the list section. */
function encodeDictionary(name: string, column: Gathered, rows: number): EncodedSection[] {
  const codeOf = new Map<Scalar, number>();
  const dictionary: Scalar[] = [];
  const encode = (value: Scalar): number => {
    let code = codeOf.get(value);
    if (code === undefined) {
      code = dictionary.push(value) - 1;
      codeOf.set(value, code);
    }
    return code;
  };
  const scalars = new Uint32Array(rows);
  const isList = noBits(rows);
  const offsets = new Uint32Array(rows + 1);
  const elements: number[] = [];
  let lists = 0;
  let done = 0;
  column.rows.forEach((row, i) => {
    const value = column.values[i];
    if (value === undefined) return;
    offsets.fill(elements.length, done, row + 1);
    done = row + 1;
    if (typeof value === 'object' && value !== null) {
      for (const element of value) elements.push(encode(element));
      setBit(isList, row);
      lists += 1;
    } else {
      scalars[row] = encode(value);
    }
  });
  offsets.fill(elements.length, done);
  const listCode = dictionary.length;
  const Codes = listCode <= 0xff ? Uint8Array : listCode <= 0xffff ? Uint16Array : Uint32Array;
  const enc = listCode <= 0xff ? 'u8' : listCode <= 0xffff ? 'u16' : 'u32';
  const codes = new Codes(rows);
  for (let row = 0; row < rows; row += 1) codes[row] = hasBit(isList, row) ? listCode : scalars[row]!;
  const sections: EncodedSection[] = [
    { name: columnSection(name), enc, bytes: bytesOf(codes) },
    { name: columnSection(name, 'dict'), enc: 'json', bytes: jsonBytes(dictionary) },
  ];
  if (lists > 0) {
    const list = Codes.from(elements);
    const bytes = new Uint8Array(offsets.byteLength + list.byteLength);
    bytes.set(bytesOf(offsets), 0);
    bytes.set(bytesOf(list), offsets.byteLength);
    sections.push({ name: columnSection(name, 'list'), enc, bytes });
  }
  return sections;
}

/** A section of an open segment: its bytes, aligned to 64, and how they are encoded. */
export interface OpenSection {
  readonly enc: SectionEncoding;
  readonly bytes: Uint8Array;
}

/**
 * Opens a column with sections of its own.
 *
 * @param section gives a section of the column: no argument for its codes, else one of its parts
 * @param fail called with what is wrong; must throw
 */
export function openColumn(
  rows: number,
  section: (part?: 'dict' | 'list' | 'missing' | 'cleared') => OpenSection | undefined,
  fail: (what: string) => never,
): Column {
  const bitmap = (part: 'missing' | 'cleared'): Bits | undefined => {
    const found = section(part);
    if (found === undefined) return undefined;
    const bits = asU32(found.bytes);
    if (found.enc !== 'bits' || bits.length !== noBits(rows).length)
      fail(`its ${part} bitmap has a wrong length`);
    return bits;
  };
  const missing = bitmap('missing');
  const cleared = bitmap('cleared');
  const main = section() ?? fail('its values are missing');
  if (main.enc === 'f64') {
    if (main.bytes.byteLength !== rows * 8) fail('it has a wrong number of values');
    const numbers = new Float64Array(main.bytes.buffer, main.bytes.byteOffset, rows);
    return numberColumn(numbers, missing, cleared);
  }
  const codes = asCodes(main) ?? fail('its codes have an unknown encoding');
  if (codes.length !== rows) fail('it has a wrong number of codes');
  const dictionary = parseDictionary(section('dict')) ?? fail('its dictionary is not a list of values');
  const list = section('list');
  if (list === undefined) {
    checkCodes(codes, dictionary.length, missing, fail);
    return dictionaryColumn(codes, dictionary, undefined, missing, cleared);
  }
  if (list.bytes.byteLength < (rows + 1) * 4) fail('its lists are cut off');
  const offsets = asU32(list.bytes.subarray(0, (rows + 1) * 4));
  const elements =
    asCodes({ enc: list.enc, bytes: list.bytes.subarray((rows + 1) * 4) }) ??
    fail('its lists have an unknown encoding');
  if (offsets[0] !== 0 || offsets[rows] !== elements.length) fail('the offsets of its lists are wrong');
  for (let row = 0; row < rows; row += 1) {
    if (offsets[row]! > offsets[row + 1]!) fail('the offsets of its lists are wrong');
  }
  checkCodes(codes, dictionary.length + 1, missing, fail);
  checkCodes(elements, dictionary.length, undefined, fail);
  return dictionaryColumn(codes, dictionary, { offsets, elements }, missing, cleared);
}

/** Opens the columns of the `sparse` section. @param fail called with what is wrong; must throw */
export function openSparse(
  rows: number,
  bytes: Uint8Array,
  fail: (what: string) => never,
): Map<string, Column> {
  const columns = new Map<string, Column>();
  const parsed = parseJson(bytes);
  if (!Array.isArray(parsed)) return fail('the rare columns are not a list');
  for (const entry of parsed as unknown[]) {
    const [name, at, values] = Array.isArray(entry) ? (entry as unknown[]) : [];
    if (
      typeof name !== 'string' ||
      !Array.isArray(at) ||
      !Array.isArray(values) ||
      at.length !== values.length
    ) {
      return fail('a rare column is not [name, rows, values]');
    }
    const byRow = new Map<number, ColumnValue>();
    const missing = noBits(rows).fill(0xffffffff);
    for (let row = rows; row < missing.length * 32; row += 1) clearBit(missing, row);
    const cleared = noBits(rows);
    let anyCleared = false;
    for (let i = 0; i < at.length; i += 1) {
      const row: unknown = at[i];
      const value: unknown = values[i];
      if (typeof row !== 'number' || !Number.isInteger(row) || row < 0 || row >= rows) {
        return fail(`the rare column ${name} names a row that is not there`);
      }
      if (isScalar(value) || (Array.isArray(value) && value.every(isScalar))) {
        byRow.set(row, value);
        clearBit(missing, row);
      } else {
        setBit(cleared, row);
        anyCleared = true;
      }
    }
    columns.set(name, sparseColumn(rows, byRow, missing, anyCleared ? cleared : undefined));
  }
  return columns;
}

function numberColumn(numbers: Float64Array, missing: Bits | undefined, cleared: Bits | undefined): Column {
  return {
    missing,
    cleared,
    at: (row) => (missing !== undefined && hasBit(missing, row) ? undefined : numbers[row]!),
    select: ({ numbers: wanted }) => {
      const { lows, highs } = wanted;
      if (lows.length === 0) return noBits(numbers.length);
      const low = lows[0]!;
      const high = highs[0]!;
      const bits = lows.length === 1 ? withinBits(numbers, low, high) : memberBits(numbers, wanted);
      return missing === undefined ? bits : andNotInto(bits, missing);
    },
    tally: (selected, add) => {
      const rows = rowsOf(present(selected, missing));
      const values = Float64Array.from(rows, (row) => numbers[row]!).sort();
      for (let i = 0; i < values.length; ) {
        const value = values[i]!;
        const first = i;
        while (i < values.length && values[i] === value) i += 1;
        add(value, i - first);
      }
    },
  };
}

/** The selected rows that have the column. */
function present(selected: Bits, missing: Bits | undefined): Bits {
  return missing === undefined ? selected : andNotInto(selected.slice(), missing);
}

/** Whole words at a time: the comparisons of 32 rows make one number. */
function withinBits(numbers: Float64Array, low: number, high: number): Bits {
  const bits = noBits(numbers.length);
  for (let at = 0, w = 0; at < numbers.length; w += 1) {
    const end = Math.min(at + 32, numbers.length);
    let word = 0;
    for (let bit = 0; at < end; at += 1, bit += 1) {
      const value = numbers[at]!;
      word |= (+(value >= low) & +(value <= high)) << bit;
    }
    bits[w] = word;
  }
  return bits;
}

/** Whole numbers as near to each other as this are looked up in a table of so many bytes. */
const memberTableMax = 2 ** 16;

function memberBits(numbers: Float64Array, { lows, highs }: ValueTest['numbers']): Bits {
  if (lows.some((low, i) => low !== highs[i])) {
    return lows.reduce(
      (bits, low, i) => orInto(bits, withinBits(numbers, low, highs[i]!)),
      noBits(numbers.length),
    );
  }
  const first = lows[0]!;
  const span = lows.at(-1)! - first;
  const bits = noBits(numbers.length);
  if (span < memberTableMax && lows.every(Number.isSafeInteger)) {
    const isMember = new Uint8Array(span + 1);
    for (const member of lows) isMember[member - first] = 1;
    for (let row = 0; row < numbers.length; row += 1) {
      const value = numbers[row]!;
      const at = value - first;
      if (at >= 0 && at <= span && Math.trunc(value) === value && isMember[at] === 1) setBit(bits, row);
    }
    return bits;
  }
  const members = new Set(lows);
  for (let row = 0; row < numbers.length; row += 1) if (members.has(numbers[row]!)) setBit(bits, row);
  return bits;
}

type Codes = Uint8Array | Uint16Array | Uint32Array;

/** Where the elements of each row's list begin, and the codes of all elements. */
interface Lists {
  readonly offsets: Uint32Array;
  readonly elements: Codes;
}

function dictionaryColumn(
  codes: Codes,
  dictionary: readonly Scalar[],
  lists: Lists | undefined,
  missing: Bits | undefined,
  cleared: Bits | undefined,
): Column {
  return {
    missing,
    cleared,
    at: (row) => {
      if (missing !== undefined && hasBit(missing, row)) return undefined;
      const code = codes[row]!;
      if (code < dictionary.length || lists === undefined) return dictionary[code]!;
      const elements = lists.elements.subarray(lists.offsets[row]!, lists.offsets[row + 1]!);
      return Array.from(elements, (element) => dictionary[element]!);
    },
    select: ({ test }) => {
      // One more than the dictionary, for the code that says list; codes of missing rows may be anything.
      const passes = new Uint8Array(dictionary.length + 1);
      for (let code = 0; code < dictionary.length; code += 1) passes[code] = +test(dictionary[code]!);
      const bits = lists === undefined ? passingBits(codes, passes) : passingLists(codes, passes, lists);
      return missing === undefined ? bits : andNotInto(bits, missing);
    },
    tally: (selected, add) => {
      const counts = new Uint32Array(dictionary.length + 1);
      const rows = rowsOf(present(selected, missing));
      for (let i = 0; i < rows.length; i += 1) counts[codes[rows[i]!]!]! += 1;
      if (lists !== undefined && counts[dictionary.length]! > 0) {
        // The last row, plus one, that was counted for a code: an element that stands twice in a list counts once.
        const countedFor = new Uint32Array(dictionary.length);
        for (const row of rows) {
          if (codes[row] !== dictionary.length) continue;
          const end = lists.offsets[row + 1]!;
          for (let i = lists.offsets[row]!; i < end; i += 1) {
            const code = lists.elements[i]!;
            if (countedFor[code] === row + 1) continue;
            countedFor[code] = row + 1;
            counts[code]! += 1;
          }
        }
      }
      for (let code = 0; code < dictionary.length; code += 1) {
        if (counts[code]! > 0) add(dictionary[code]!, counts[code]!);
      }
    },
  };
}

/** Whole words at a time, without a branch. */
function passingBits(codes: Codes, passes: Uint8Array): Bits {
  const bits = noBits(codes.length);
  for (let at = 0, w = 0; at < codes.length; w += 1) {
    const end = Math.min(at + 32, codes.length);
    let word = 0;
    for (let bit = 0; at < end; at += 1, bit += 1) word |= passes[codes[at]!]! << bit;
    bits[w] = word;
  }
  return bits;
}

function passingLists(codes: Codes, passes: Uint8Array, { offsets, elements }: Lists): Bits {
  const bits = noBits(codes.length);
  const listCode = passes.length - 1;
  for (let row = 0; row < codes.length; row += 1) {
    const code = codes[row]!;
    if (code !== listCode) {
      if (passes[code] === 1) setBit(bits, row);
      continue;
    }
    const end = offsets[row + 1]!;
    for (let i = offsets[row]!; i < end; i += 1) {
      if (passes[elements[i]!] === 0) continue;
      setBit(bits, row);
      break;
    }
  }
  return bits;
}

function sparseColumn(
  rows: number,
  byRow: ReadonlyMap<number, ColumnValue>,
  missing: Bits,
  cleared: Bits | undefined,
): Column {
  return {
    missing,
    cleared,
    at: (row) => byRow.get(row),
    select: ({ test }) => {
      const bits = noBits(rows);
      for (const [row, value] of byRow) {
        if (typeof value === 'object' && value !== null ? value.some(test) : test(value)) setBit(bits, row);
      }
      return bits;
    },
    tally: (selected, add) => {
      const counts = new Map<Scalar, number>();
      for (const [row, value] of byRow) {
        if (!hasBit(selected, row)) continue;
        for (const scalar of distinctOf(value)) counts.set(scalar, (counts.get(scalar) ?? 0) + 1);
      }
      for (const [scalar, count] of counts) add(scalar, count);
    },
  };
}

/** The value itself, or the distinct elements of a list. */
export function distinctOf(value: ColumnValue): Iterable<Scalar> {
  return typeof value === 'object' && value !== null ? new Set(value) : [value];
}

function checkCodes(
  codes: Codes,
  end: number,
  missing: Bits | undefined,
  fail: (what: string) => never,
): void {
  for (let i = 0; i < codes.length; i += 1) {
    if (codes[i]! >= end && (missing === undefined || !hasBit(missing, i)))
      fail('a code is not in its dictionary');
  }
}

function parseDictionary(section: OpenSection | undefined): Scalar[] | undefined {
  const parsed = section === undefined ? undefined : parseJson(section.bytes);
  return Array.isArray(parsed) && parsed.every(isScalar) ? parsed : undefined;
}

/** @returns undefined if the bytes are not JSON */
export function parseJson(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes));
  } catch {
    return undefined;
  }
}

export function jsonBytes(value: unknown): Uint8Array {
  return new TextEncoder().encode(JSON.stringify(value));
}

export function bytesOf(array: ArrayBufferView): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}

/** @returns undefined for encodings that are no codes, and for lengths that do not fit */
function asCodes({ enc, bytes }: OpenSection): Codes | undefined {
  if (enc === 'u8') return bytes;
  const size = enc === 'u16' ? 2 : enc === 'u32' ? 4 : 0;
  if (size === 0 || bytes.byteLength % size !== 0) return undefined;
  const length = bytes.byteLength / size;
  return size === 2
    ? new Uint16Array(bytes.buffer, bytes.byteOffset, length)
    : new Uint32Array(bytes.buffer, bytes.byteOffset, length);
}

export function asU32(bytes: Uint8Array): Uint32Array {
  return new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength >>> 2);
}

function isScalar(value: unknown): value is Scalar {
  return (
    value === null || typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean'
  );
}

/** By UTF-16 units, the order of ids everywhere in the store. */
export function compareText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
