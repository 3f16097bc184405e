// Parquet in: files of our own, and those that other programs wrote, within bounds of memory.
import { brotliDecompressSync, gunzipSync, zstdDecompressSync } from 'node:zlib';
import type { ColumnMetaData, FileMetaData, RowGroup, SchemaTree } from 'hyparquet';
import { parquetMetadata, parquetReadObjects, parquetSchema, snappyUncompress } from 'hyparquet';
import { checkPages, checkStructure } from './parquet-pages.ts';
import { layoutKey } from './parquet-writer.ts';
import type { ByteSource, FieldKind, FoundRow, Position, RowSource } from './row.ts';
import { collectionColumn, extraColumn, FileFault, idColumn, internalColumn } from './row.ts';

/** Bytes of the description of columns and row groups. */
const footerBytesMax = 16 * 2 ** 20;
const columnsMax = 2_000;
const magic = 0x31524150;

/** How many bytes the largest row group has when it is unpacked, as the file says; what a reader must hold. */
export interface ParquetRows extends RowSource {
  readonly rows: number;
  readonly rowGroupBytes: number;
}

const unpackers = (pageBytesMax: number) => {
  const within = (bytes: number) => {
    if (bytes > pageBytesMax)
      throw new FileFault(
        `A page of the file has ${bytes} bytes unpacked; at most ${pageBytesMax} are read.`,
      );
    return bytes;
  };
  const by =
    (unpack: (input: Uint8Array, options: { maxOutputLength: number }) => Uint8Array) =>
    (input: Uint8Array, bytes: number) =>
      bytes === 0 ? new Uint8Array(0) : unpack(input, { maxOutputLength: within(bytes) });
  return {
    SNAPPY: (input: Uint8Array, bytes: number) => {
      const output = new Uint8Array(within(bytes));
      snappyUncompress(input, output);
      return output;
    },
    GZIP: by(gunzipSync),
    BROTLI: by(brotliDecompressSync),
    ZSTD: by(zstdDecompressSync),
  };
};

async function readFooter(source: ByteSource): Promise<FileMetaData> {
  const refuse = (why: string, cause?: unknown) =>
    new FileFault(`This is not a whole Parquet file: ${why}.`, cause);
  if (source.bytes < 12) throw refuse(`it has only ${source.bytes} bytes`);
  const head = await source.read(0, 4);
  const tail = await source.read(source.bytes - 8, 8);
  const end = new DataView(tail.buffer, tail.byteOffset, 8);
  if (new DataView(head.buffer, head.byteOffset, 4).getUint32(0, true) !== magic)
    throw refuse('it does not begin with PAR1');
  if (end.getUint32(4, true) !== magic)
    throw refuse('it does not end with PAR1, so it was cut off or is another file');
  const length = end.getUint32(0, true);
  if (length > footerBytesMax) throw refuse(`its footer of ${length} bytes is larger than ${footerBytesMax}`);
  if (length + 12 > source.bytes) throw refuse(`its footer of ${length} bytes is longer than the file`);
  const footer = await source.read(source.bytes - 8 - length, length + 8);
  checkStructure(footer.subarray(0, length));
  try {
    return parquetMetadata(footer.buffer.slice(footer.byteOffset, footer.byteOffset + footer.byteLength), {
      geoparquet: false,
    });
  } catch (error) {
    throw refuse('its footer cannot be read', error);
  }
}

/** The kinds of our own columns; a file of others has none, and its values are what they are. */
function kindsOf(metadata: FileMetaData): ReadonlyMap<string, FieldKind> {
  const note = metadata.key_value_metadata?.find(({ key }) => key === layoutKey)?.value;
  if (note === undefined) return new Map();
  try {
    const { fields } = JSON.parse(note) as { fields: { name: string; kind: FieldKind }[] };
    return new Map(fields.map(({ name, kind }) => [String(name), kind]));
  } catch (error) {
    throw new FileFault(`The note "${layoutKey}" in the file's metadata cannot be read.`, error);
  }
}

/** Where the bytes of a column in one row group begin and end. */
function spanOf(column: ColumnMetaData): readonly [begin: number, end: number] {
  const begin = Number(column.dictionary_page_offset || column.data_page_offset);
  return [begin, begin + Number(column.total_compressed_size)];
}

const isSize = (value: unknown) =>
  typeof value === 'bigint' && value >= 0n && value <= Number.MAX_SAFE_INTEGER;

/** Refuses what the description itself shows to be wrong, before memory is given to it. */
function checkShape(metadata: FileMetaData, source: ByteSource, columns: readonly SchemaTree[]): void {
  if (columns.length > columnsMax)
    throw new FileFault(`The file has ${columns.length} columns; at most ${columnsMax} are read.`);
  const names = columns.map(({ element }) => element.name);
  const twice = names.find((name, i) => names.indexOf(name) !== i);
  if (twice !== undefined) throw new FileFault(`The file has two columns named "${twice.slice(0, 100)}".`);
  if (names.includes('__proto__')) throw new FileFault('A column may not be named "__proto__".');
  if (!names.includes(idColumn)) {
    throw new FileFault(
      `The file has no column "${idColumn}". It has ${names.slice(0, 20).join(', ')}: name the one that holds the ids "${idColumn}".`,
    );
  }
  let rows = 0n;
  for (const group of metadata.row_groups) {
    if (!isSize(group.num_rows)) throw new FileFault('A row group of the file has no number of rows.');
    rows += group.num_rows;
    let packed = 0;
    const spans = group.columns.map(({ meta_data: column }) => {
      const sizes = [
        column?.data_page_offset,
        column?.total_compressed_size,
        column?.total_uncompressed_size,
      ];
      if (
        !column ||
        !sizes.every(isSize) ||
        !isSize(column.num_values) ||
        !Array.isArray(column.path_in_schema)
      )
        throw new FileFault('A column of the file is not described.');
      packed += Number(column.total_compressed_size);
      return spanOf(column);
    });
    const begin = Math.min(...spans.map(([at]) => at));
    const end = Math.max(...spans.map(([, at]) => at));
    if (begin < 4 || end > source.bytes)
      throw new FileFault('The file was cut off: its footer names bytes behind its end.');
    // Read as one piece, so what lies between the columns must be little.
    if (end - begin > packed * 1.1 + 1_000_000)
      throw new FileFault('The columns of a row group do not lie together in the file.');
  }
  if (rows !== metadata.num_rows || rows > BigInt(Number.MAX_SAFE_INTEGER))
    throw new FileFault(
      `The file says that it has ${metadata.num_rows} rows, and its row groups have ${rows}.`,
    );
}

class NotJson extends Error {}

/** A value of any column as JSON has it. */
function toJson(value: unknown): unknown {
  if (typeof value === 'bigint') {
    if (value > BigInt(Number.MAX_SAFE_INTEGER) || value < BigInt(Number.MIN_SAFE_INTEGER))
      throw new NotJson(`holds ${value}, which no JSON number holds exactly; make it a text`);
    return Number(value);
  }
  if (typeof value === 'number') {
    if (!Number.isFinite(value)) throw new NotJson(`holds ${value}, which JSON does not have`);
    return value;
  }
  if (value === undefined) return null;
  if (value === null || typeof value !== 'object') return value;
  if (value instanceof Uint8Array) throw new NotJson('holds bytes; make them a text');
  if (ArrayBuffer.isView(value)) return Array.from(value as unknown as ArrayLike<unknown>, toJson);
  if (Array.isArray(value)) return value.map(toJson);
  return Object.fromEntries(Object.entries(value).map(([name, member]) => [name, toJson(member)]));
}

function parseJson(text: unknown): unknown {
  try {
    return JSON.parse(String(text));
  } catch {
    throw new NotJson('does not hold JSON');
  }
}

function parseObject(text: unknown): Record<string, unknown> {
  const value = parseJson(text);
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new NotJson('does not hold a JSON object');
  return value as Record<string, unknown>;
}

/** Names of the errors that a reader stumbling over bytes throws; what the store throws has a name of its own. */
const readerErrors: ReadonlySet<string> = new Set(['Error', 'RangeError', 'SyntaxError', 'TypeError']);

const iso = (ms: number) => new Date(ms).toISOString();
const parsers = {
  timestampFromMilliseconds: (value: bigint) => iso(Number(value)),
  timestampFromMicroseconds: (value: bigint) => iso(Number(value / 1000n)),
  timestampFromNanoseconds: (value: bigint) => iso(Number(value / 1_000_000n)),
  dateFromDays: (days: number) => iso(days * 86_400_000).slice(0, 10),
};

/** @throws FileFault for what a reader throws */
function orRefuse<T>(what: string, read: () => T): T {
  const refuse = (error: unknown): never => {
    if (!readerErrors.has((error as Error).name)) throw error;
    throw new FileFault(`${what}: ${(error as Error).message.slice(0, 200)}.`, error);
  };
  try {
    const found = read();
    return found instanceof Promise ? (found.catch(refuse) as T) : found;
  } catch (error) {
    return refuse(error);
  }
}

/** A list of numbers may be a vector or a field: whoever knows the features decides. */
function isList(value: unknown): boolean {
  return Array.isArray(value) || (ArrayBuffer.isView(value) && !(value instanceof Uint8Array));
}

/**
 * Opens a Parquet file.
 *
 * @param isVector whether a column of this name holds vectors
 * @throws FileFault
 */
export async function parquetSource(
  source: ByteSource,
  isVector: (column: string) => boolean,
): Promise<ParquetRows> {
  const metadata = await readFooter(source);
  const columns = orRefuse('The description of the Parquet file cannot be read', () => {
    const found = parquetSchema(metadata).children;
    checkShape(metadata, source, found);
    return found;
  });
  const kinds = kindsOf(metadata);
  const names = columns.map(({ element }) => element.name);
  const rowGroupBytes = metadata.row_groups.reduce(
    (most, group) =>
      Math.max(
        most,
        group.columns.reduce((sum, { meta_data: c }) => sum + Number(c?.total_uncompressed_size ?? 0), 0),
      ),
    0,
  );

  const found = (row: number, given: Record<string, unknown>): FoundRow => {
    const fields = new Map<string, unknown>();
    const vectors: Record<string, unknown> = {};
    const after = { rows: row, bytes: 0 };
    let internal: unknown;
    for (const column of names) {
      const value = given[column];
      if (column === idColumn || column === collectionColumn || value === null || value === undefined)
        continue;
      try {
        if (column === internalColumn) internal = parseJson(value);
        else if (column === extraColumn) {
          for (const [name, member] of Object.entries(parseObject(value))) fields.set(name, member);
        } else if (isVector(column)) vectors[column] = isList(value) ? value : toJson(value);
        else fields.set(column, kinds.get(column) === 'json' ? parseJson(value) : toJson(value));
      } catch (error) {
        if (!(error instanceof NotJson)) throw error;
        const fault = { column, message: error.message };
        return { row, after, id: undefined, fields: {}, vectors: {}, internal: undefined, fault };
      }
    }
    return { row, after, id: given[idColumn], fields: Object.fromEntries(fields), vectors, internal };
  };

  const flat = new Set(
    columns
      .filter(({ element, children }) => children.length === 0 && element.repetition_type !== 'REPEATED')
      .map(({ element }) => element.name),
  );
  /** The bytes of a row group, once, checked. */
  const loadGroup = async (group: RowGroup) => {
    const described = group.columns.map(({ meta_data }) => meta_data!);
    const begin = Math.min(...described.map((column) => spanOf(column)[0]));
    const end = Math.max(...described.map((column) => spanOf(column)[1]));
    const bytes = await source.read(begin, end - begin);
    for (const column of described) {
      const [from, to] = spanOf(column);
      const isFlat = column.path_in_schema.length === 1 && flat.has(column.path_in_schema[0]!);
      checkPages(bytes.subarray(from - begin, to - begin), column, Number(group.num_rows), isFlat);
    }
    return {
      byteLength: source.bytes,
      slice: async (from: number, to = source.bytes) => {
        if (from < begin || to > end) throw new FileFault('A column reaches behind its row group.');
        const at = bytes.byteOffset - begin;
        return bytes.buffer.slice(at + from, at + to);
      },
    };
  };

  return {
    rows: Number(metadata.num_rows),
    rowGroupBytes,
    async *read(from: Position): AsyncGenerator<readonly FoundRow[]> {
      const compressors = unpackers(Math.max(rowGroupBytes, 1) * 2 + 1_000_000);
      let first = 0;
      for (const group of metadata.row_groups) {
        const rowStart = Math.max(first, from.rows);
        const rowEnd = first + Number(group.num_rows);
        first = rowEnd;
        if (rowEnd <= rowStart) continue;
        const place = `The rows ${rowStart + 1} to ${rowEnd} of the Parquet file`;
        const given = await orRefuse(`${place} cannot be read`, async () =>
          parquetReadObjects({
            file: await loadGroup(group),
            metadata,
            rowStart,
            rowEnd,
            compressors,
            parsers,
            geoparquet: false,
          }),
        );
        if (given.length !== rowEnd - rowStart) throw new FileFault(`${place} are not all there.`);
        yield given.map((row, i) => found(rowStart + i + 1, row));
      }
    },
  };
}
