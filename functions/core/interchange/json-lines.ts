// Lines of JSON: one document a line, its fields at the root, its vectors by feature URI.
import type { ByteSource, ExchangeRow, FoundRow, Position, RowSource, RowWriter } from './row.ts';
import {
  collectionColumn,
  extraColumn,
  FileFault,
  idColumn,
  internalColumn,
  layoutOf,
  placeRow,
  vectorJson,
  vectorsColumn,
} from './row.ts';

/** Eight features of 4,096 dimensions, in decimal, and the largest document. */
export const lineBytesMax = 4 * 2 ** 20;
/** Bytes of one read; at least a line. */
const readBytes = 8 * 2 ** 20;
const newline = 0x0a;

function lineOf(row: ExchangeRow): string {
  // Every field that may stand at the root has a column of the kind json; the others are left for `_extra`.
  const layout = layoutOf([row], [], []);
  const { extra } = placeRow(row.fields, {
    fields: layout.fields.map(({ name }) => ({ name, kind: 'json' as const })),
    vectors: [],
  });
  const members = [`"${idColumn}":${JSON.stringify(row.id)}`];
  for (const { name } of layout.fields)
    members.push(`${JSON.stringify(name)}:${JSON.stringify(row.fields[name])}`);
  if (extra !== undefined) members.push(`"${extraColumn}":${extra}`);
  if (row.vectors.size > 0) {
    const vectors = [...row.vectors].map(([uri, vector]) => `${JSON.stringify(uri)}:${vectorJson(vector)}`);
    members.push(`"${vectorsColumn}":{${vectors.join(',')}}`);
  }
  if (row.internal !== undefined) members.push(`"${internalColumn}":${JSON.stringify(row.internal)}`);
  return `{${members.join(',')}}\n`;
}

/** Writes lines of JSON. */
export function jsonLinesWriter(): RowWriter {
  return {
    contentType: 'application/x-ndjson',
    extension: 'jsonl',
    begin: () => new Uint8Array(0),
    write: (rows) => Buffer.from(rows.map(lineOf).join('')),
    end: () => new Uint8Array(0),
  };
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

const unreadable = (row: number, after: Position, message: string, column?: string): FoundRow => ({
  row,
  after,
  id: undefined,
  fields: {},
  vectors: {},
  internal: undefined,
  fault: { message, ...(column === undefined ? {} : { column }) },
});

function parseLine(
  bytes: Uint8Array,
  row: number,
  after: Position,
  decode: (bytes: Uint8Array) => string,
): FoundRow {
  let value: unknown;
  try {
    value = JSON.parse(decode(bytes));
  } catch (error) {
    return unreadable(
      row,
      after,
      `is not one line of JSON in UTF-8: ${(error as Error).message.slice(0, 120)}`,
    );
  }
  if (!isObject(value)) return unreadable(row, after, 'is not a JSON object');
  const fields = new Map(Object.entries(value));
  const take = (name: string) => {
    const member = fields.get(name);
    fields.delete(name);
    return member;
  };
  const id = take(idColumn);
  const vectors = take(vectorsColumn) ?? {};
  const internal = take(internalColumn);
  const extra = take(extraColumn) ?? {};
  take(collectionColumn);
  if (!isObject(vectors))
    return unreadable(row, after, 'is not an object of lists by feature', vectorsColumn);
  if (!isObject(extra)) return unreadable(row, after, 'is not an object of fields', extraColumn);
  for (const [name, member] of Object.entries(extra)) fields.set(name, member);
  return { row, after, id, fields: Object.fromEntries(fields), vectors, internal };
}

const isBlank = (bytes: Uint8Array) => bytes.every((byte) => byte === 0x20 || byte === 0x0d || byte === 0x09);

/** Reads lines of JSON. Blank lines count as lines and say nothing. */
export function jsonLinesSource(source: ByteSource): RowSource {
  return {
    rows: undefined,
    async *read(from: Position): AsyncGenerator<readonly FoundRow[]> {
      const decoder = new TextDecoder('utf-8', { fatal: true });
      const decode = (bytes: Uint8Array) => decoder.decode(bytes);
      let at = from.bytes;
      let line = from.rows;
      while (at < source.bytes) {
        const block = await source.read(at, Math.min(readBytes, source.bytes - at));
        const isLast = at + block.length >= source.bytes;
        const rows: FoundRow[] = [];
        let begin = 0;
        while (begin < block.length) {
          let end = block.indexOf(newline, begin);
          if (end < 0) {
            if (!isLast) break;
            end = block.length;
          }
          line++;
          const bytes = block.subarray(begin, end);
          const after = { rows: line, bytes: Math.min(at + end + 1, source.bytes) };
          if (bytes.length > lineBytesMax)
            rows.push(unreadable(line, after, `has ${bytes.length} bytes; a line may have ${lineBytesMax}`));
          else if (!isBlank(bytes)) rows.push(parseLine(bytes, line, after, decode));
          begin = end + 1;
        }
        if (begin === 0)
          throw new FileFault(
            `Line ${line + 1} has more than ${readBytes} bytes; a line may have ${lineBytesMax}.`,
          );
        at += Math.min(begin, block.length);
        yield rows;
      }
    },
  };
}
