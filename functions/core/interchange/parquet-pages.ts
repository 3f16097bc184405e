// Looks at the descriptions inside a Parquet file before a reader acts on them: sizes that go backwards, lists without
// end and pages with more values than the file could hold would keep it busy for ever, or take all memory.
import type { ColumnMetaData } from 'hyparquet';
import { deserializeTCompactProtocol } from 'hyparquet/src/thrift.js';
import { FileFault } from './row.ts';

/** A structure of the file's descriptions may be nested this deeply. */
const depthMax = 24;

class Walker {
  readonly #view: DataView;
  offset: number;

  constructor(view: DataView, offset: number) {
    this.#view = view;
    this.offset = offset;
  }

  #byte(): number {
    if (this.offset >= this.#view.byteLength)
      throw new FileFault('A description in the Parquet file is cut off.');
    return this.#view.getUint8(this.offset++);
  }

  #varint(): number {
    let value = 0;
    for (let i = 0; i < 10; i++) {
      const byte = this.#byte();
      value += (byte & 0x7f) * 2 ** (7 * i);
      if (byte < 0x80) return value;
    }
    throw new FileFault('A number in the Parquet file has no end.');
  }

  #skip(bytes: number): void {
    if (bytes > this.#view.byteLength - this.offset)
      throw new FileFault('A description in the Parquet file is longer than the file.');
    this.offset += bytes;
  }

  /** Passes over one structure of Thrift's compact protocol. */
  struct(depth = 0): void {
    if (depth > depthMax) throw new FileFault('The descriptions in the Parquet file are nested too deeply.');
    for (;;) {
      const byte = this.#byte();
      const type = byte & 0x0f;
      if (type === 0) return;
      if (byte >> 4 === 0) this.#varint();
      this.#element(type, depth);
    }
  }

  #element(type: number, depth: number): void {
    if (type === 3) this.#skip(1);
    else if (type >= 4 && type <= 6) this.#varint();
    else if (type === 7) this.#skip(8);
    else if (type === 8) this.#skip(this.#varint());
    else if (type === 9) this.#list(depth);
    else if (type === 12) this.struct(depth + 1);
    // 1 and 2 are true and false, which take no bytes.
    else if (type > 2)
      throw new FileFault(`A description in the Parquet file has an unknown type (${type}).`);
  }

  #list(depth: number): void {
    const byte = this.#byte();
    const size = byte >> 4 === 15 ? this.#varint() : byte >> 4;
    // Each element takes a byte at least; those of type boolean none in some readers, so none may outnumber the bytes.
    if (size > this.#view.byteLength - this.offset)
      throw new FileFault('A list in the Parquet file is longer than the file.');
    for (let i = 0; i < size; i++) this.#element(byte & 0x0f, depth + 1);
  }
}

const viewOf = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

/** @throws FileFault unless the bytes begin with a sound structure */
export function checkStructure(bytes: Uint8Array): void {
  new Walker(viewOf(bytes), 0).struct();
}

type Header = Readonly<Record<`field_${number}`, unknown>>;

const isCount = (value: unknown, max: number): value is number =>
  typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= max;

/**
 * Checks the pages of one column in one row group.
 *
 * @param bytes of the column
 * @param rows of the row group
 * @param isFlat whether each row has one value
 * @throws FileFault
 */
export function checkPages(bytes: Uint8Array, column: ColumnMetaData, rows: number, isFlat: boolean): void {
  const name = column.path_in_schema.join('.').slice(0, 100);
  const refuse = (why: string) => new FileFault(`The column "${name}" of the Parquet file ${why}.`);
  const unpacked = Number(column.total_uncompressed_size);
  const values = Number(column.num_values);
  // Even a packed level takes a bit, and a page takes a header.
  const valuesMax = isFlat ? rows : Math.max(unpacked, bytes.length) * 8 + rows;
  if (!isCount(values, valuesMax)) throw refuse(`says that it has ${values} values in ${rows} rows`);
  const view = viewOf(bytes);
  let at = 0;
  let seen = 0;
  while (at < bytes.length - 1) {
    const walker = new Walker(view, at);
    walker.struct();
    const header = deserializeTCompactProtocol({ view, offset: at }) as Header;
    at = walker.offset;
    if (!isCount(header.field_3, bytes.length - at)) throw refuse('has a page that ends behind it');
    if (!isCount(header.field_2, unpacked + bytes.length))
      throw refuse('has a page that is larger than the whole');
    const data = (header.field_5 ?? header.field_8) as Header | undefined;
    if (data) {
      if (!isCount(data.field_1, values - seen)) throw refuse('has pages with more values than it says');
      seen += data.field_1;
      if (header.field_8) {
        const pages = header.field_8 as Header;
        const levels = [pages.field_5, pages.field_6];
        if (!isCount(pages.field_2, data.field_1) || !isCount(pages.field_3, rows))
          throw refuse('counts its rows wrongly');
        if (!levels.every((length) => isCount(length, header.field_3 as number)))
          throw refuse('has levels that end behind their page');
      }
    }
    const dictionary = header.field_7 as Header | undefined;
    if (dictionary && !isCount(dictionary.field_1, Math.max(unpacked, 1)))
      throw refuse('has a dictionary larger than the whole');
    at += header.field_3;
  }
  if (seen !== values) throw refuse(`should have ${values} values and has ${seen}`);
}
