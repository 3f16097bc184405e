// What exports write and imports read, whatever the file: one document with its vectors, and the columns it is laid out in.

/** Any JSON value. */
export type Json = null | string | number | boolean | readonly Json[] | { readonly [name: string]: Json };
export type JsonObject = { readonly [name: string]: Json };

/** One document of a file. */
export interface ExchangeRow {
  readonly id: string;
  /** The user's fields, as they stand at the root of the document. */
  readonly fields: JsonObject;
  /** By feature URI; a feature of which the document has no vector is left out. */
  readonly vectors: ReadonlyMap<string, Float32Array>;
  /** Provenance, as the service keeps it; undefined in files of others. */
  readonly internal?: JsonObject | undefined;
}

/** How the values of a field are written: as they are, or as JSON text. */
export type FieldKind = 'text' | 'number' | 'boolean' | 'json';

export interface FieldColumn {
  readonly name: string;
  readonly kind: FieldKind;
}

/** The column of a feature's vectors is named by the feature's URI. */
export interface VectorColumn {
  readonly uri: string;
  readonly dims: number;
  readonly metric: 'cosine' | 'dot' | 'euclid';
}

/** The columns of one file. */
export interface Layout {
  readonly fields: readonly FieldColumn[];
  readonly vectors: readonly VectorColumn[];
}

export const idColumn = 'document_id';
/** JSON of the provenance. */
export const internalColumn = '_internal';
/** JSON of the fields that have no column of their own, or whose value is of another kind than their column. */
export const extraColumn = '_extra';
/** In files of lines: the vectors by feature URI. */
export const vectorsColumn = 'vectors';
/** Written for people; read and ignored. */
export const collectionColumn = 'collection_id';

const ownNames: ReadonlySet<string> = new Set([
  idColumn,
  collectionColumn,
  vectorsColumn,
  internalColumn,
  extraColumn,
]);

/** More fields than this go to `_extra`: a file with tens of thousands of columns is of no use to anybody. */
const fieldColumnsMax = 500;
const columnNameLengthMax = 200;

/** Whether a field can have a column of its own name in every format. */
function canBeColumn(name: string): boolean {
  return (
    name.length > 0 &&
    name.length <= columnNameLengthMax &&
    name.isWellFormed() &&
    !name.startsWith('_') &&
    !ownNames.has(name)
  );
}

function kindOf(values: readonly Json[]): FieldKind {
  const present = values.filter((value) => value !== null);
  if (present.length === 0) return 'json';
  if (present.every((value) => typeof value === 'string')) return 'text';
  if (present.every((value) => typeof value === 'number')) return 'number';
  if (present.every((value) => typeof value === 'boolean')) return 'boolean';
  return 'json';
}

/**
 * Chooses the columns of a file from its first rows. Rows to come need not keep to it: what does not fit a column goes
 * to `_extra`, so nothing is lost.
 *
 * @param names fields that later rows may have; they come after those that the rows have
 */
export function layoutOf(
  rows: readonly ExchangeRow[],
  names: Iterable<string>,
  vectors: readonly VectorColumn[],
): Layout {
  const values = new Map<string, Json[]>();
  for (const row of rows) {
    for (const [name, value] of Object.entries(row.fields)) {
      const list = values.get(name);
      if (list) list.push(value);
      else values.set(name, [value]);
    }
  }
  for (const name of names) if (!values.has(name)) values.set(name, []);
  const taken = new Set(vectors.map(({ uri }) => uri));
  const fields = [...values]
    .filter(([name]) => canBeColumn(name) && !taken.has(name))
    .slice(0, fieldColumnsMax)
    .map(([name, seen]) => ({ name, kind: kindOf(seen) }));
  return { fields, vectors };
}

export type Cell = string | number | boolean | undefined;

/** A row by the columns of a layout; undefined: the document does not have the field. */
export interface PlacedRow {
  readonly cells: readonly Cell[];
  /** JSON of what fits no column. */
  readonly extra: string | undefined;
}

function cellOf(kind: FieldKind, value: Json): Cell {
  switch (kind) {
    case 'json':
      return JSON.stringify(value);
    case 'text':
      // UTF-8 has no half pairs; JSON escapes them.
      return typeof value === 'string' && value.isWellFormed() ? value : undefined;
    case 'number':
      return typeof value === 'number' ? value : undefined;
    case 'boolean':
      return typeof value === 'boolean' ? value : undefined;
  }
}

export function placeRow(fields: JsonObject, layout: Layout): PlacedRow {
  const rest = new Map(Object.entries(fields));
  const cells = layout.fields.map(({ name, kind }) => {
    const value = rest.get(name);
    if (value === undefined) return undefined;
    const cell = cellOf(kind, value);
    if (cell !== undefined) rest.delete(name);
    return cell;
  });
  return { cells, extra: rest.size === 0 ? undefined : JSON.stringify(Object.fromEntries(rest)) };
}

/** A row of a file as it was found: nothing about it has been checked but what the format itself asks. */
export interface FoundRow {
  /** From 1: the line of a file of lines, the row of a table. */
  readonly row: number;
  readonly id: unknown;
  readonly fields: Readonly<Record<string, unknown>>;
  /** By the name of their column or member. */
  readonly vectors: Readonly<Record<string, unknown>>;
  readonly internal: unknown;
  /** Where the next row begins. */
  readonly after: Position;
  /** Why the row cannot be read at all; the rest is empty then. */
  readonly fault?: { readonly column?: string; readonly message: string };
}

/** A place between two rows of a file. */
export interface Position {
  /** Rows (lines) before it. */
  readonly rows: number;
  /** Bytes before it; 0 where the format does not need them. */
  readonly bytes: number;
}

export const beginning: Position = { rows: 0, bytes: 0 };

/** A file of exported documents, to be read from any place on, as often as wanted. */
export interface RowSource {
  /** Undefined where only reading tells. */
  readonly rows: number | undefined;
  /** Yields rows in order, some at a time; bounded in memory whatever the size of the file. @throws FileFault */
  read(from: Position): AsyncGenerator<readonly FoundRow[]>;
}

/** Bytes at a distance. */
export interface ByteSource {
  readonly bytes: number;
  /** Exactly `length` bytes from `offset` on. */
  read(offset: number, length: number): Promise<Uint8Array<ArrayBuffer>>;
}

/** The file is not what its format says: cut off, damaged, of another kind, or beyond our bounds. */
export class FileFault extends Error {
  constructor(message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = 'FileFault';
  }
}

/** Writes one file, group by group. Each call gives the bytes that come next. */
export interface RowWriter {
  readonly contentType: string;
  readonly extension: string;
  begin(): Uint8Array;
  write(rows: readonly ExchangeRow[]): Uint8Array;
  end(): Uint8Array;
}

/** Numbers of a vector as JSON; each is the exact value of its float32. */
export function vectorJson(vector: Float32Array): string {
  const parts = new Array<string>(vector.length);
  for (let i = 0; i < vector.length; i++) {
    const value = vector[i]!;
    // JSON.stringify drops the sign of zero.
    parts[i] = value === 0 && Object.is(value, -0) ? '-0' : String(value);
  }
  return `[${parts.join(',')}]`;
}
