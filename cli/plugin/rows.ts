// Reads rows for `granary plugin test` from JSON lines, CSV or the command line, as a batch would make them of objects.
import { readFileSync, statSync } from 'node:fs';
import { basename, dirname, extname, resolve } from 'node:path';
import { CliError } from '../errors.ts';
import { parseCsv } from './csv.ts';
import { block, count, cut } from './words.ts';

/** One row of a plugin's table. */
export interface TestRow {
  /** Where it came from: `line 3`. */
  readonly origin: string;
  /** Name of the property that it is the content of. */
  readonly property: string;
  readonly type: string;
  readonly mimeType: string;
  /** Text or another value; of a file its path. */
  readonly data: unknown;
  /** The absolute path of a binary content. */
  readonly file: string | undefined;
  readonly bytes: number;
}

/** Properties of these names hold paths of files. */
export const fileProperties: ReadonlySet<string> = new Set([
  'image',
  'audio',
  'video',
  'pdf',
  'file',
  'document',
  'blob',
]);

const mimeTypes: Readonly<Record<string, string>> = {
  '.png': 'image/png',
  '.jpg': 'image/jpeg',
  '.jpeg': 'image/jpeg',
  '.gif': 'image/gif',
  '.webp': 'image/webp',
  '.bmp': 'image/bmp',
  '.tif': 'image/tiff',
  '.tiff': 'image/tiff',
  '.svg': 'image/svg+xml',
  '.wav': 'audio/wav',
  '.mp3': 'audio/mpeg',
  '.flac': 'audio/flac',
  '.ogg': 'audio/ogg',
  '.mp4': 'video/mp4',
  '.webm': 'video/webm',
  '.pdf': 'application/pdf',
  '.txt': 'text/plain',
  '.json': 'application/json',
};

const typeOf = (mimeType: string): string =>
  mimeType === 'application/pdf' ? 'pdf' : (/^(image|audio|video)\//.exec(mimeType)?.[1] ?? 'document');

export interface RowOptions {
  /** The key or column whose values become `data`. */
  readonly column?: string;
  /** At most so many rows. */
  readonly rows: number;
}

export interface ReadRows {
  readonly rows: readonly TestRow[];
  /** Whether there are more than were asked for. */
  readonly isCut: boolean;
}

const pathCharsMax = 1024;
const dataBytesMax = 256 * 1024 * 1024;

/**
 * Rows of a file.
 *
 * Each object gives one row for each property that the plugin's `input_mappings` name and that it has, as in a batch;
 * where it has none of them, the first of `data`, `text` and the names of files.
 *
 * @param properties those that the manifest maps
 * @throws CliError usage with the line at fault
 */
export function readRows(file: string, properties: readonly string[], options: RowOptions): ReadRows {
  const ending = extname(file).toLowerCase();
  const fileType = typeOf(mimeTypes[ending] ?? '');
  if (fileType !== 'document')
    throw new CliError(
      'usage',
      `${file} is a file for a row; list such files in a .jsonl: {"${fileType}": ${JSON.stringify(basename(file))}}`,
    );
  let text: string;
  try {
    const { size } = statSync(file);
    if (size > dataBytesMax)
      throw new CliError(
        'usage',
        `${file} has ${size} bytes; at most ${dataBytesMax} are read. A part of it will do`,
      );
    text = readFileSync(file, 'utf8').replace(/^\uFEFF/, '');
  } catch (error) {
    if (error instanceof CliError) throw error;
    throw new CliError('usage', `${file} cannot be read: ${(error as Error).message}`);
  }
  if (text.includes('\0'))
    throw new CliError('usage', `${file} holds no text: it has NUL characters. Rows are read from UTF-8`);
  if (ending === '.csv' || ending === '.tsv')
    return fromCsv(file, text, ending === '.tsv' ? '\t' : ',', properties, options);
  if (['.jsonl', '.ndjson', '.json'].includes(ending)) return fromJson(file, text, properties, options);
  throw new CliError('usage', `${file} is named neither .jsonl nor .csv; which of the two is it?`);
}

/** Rows of texts from the command line. */
export function rowsOfTexts(texts: readonly string[], properties: readonly string[]): TestRow[] {
  return texts.map((text, i) => textRow(`text ${i + 1}`, properties[0] ?? 'text', text));
}

function fromJson(file: string, text: string, properties: readonly string[], options: RowOptions): ReadRows {
  const records = text.trimStart().startsWith('[') ? wholeArray(file, text) : lines(file, text);
  return collect(
    (function* () {
      for (const { origin, value } of records) {
        if (typeof value === 'string') yield [textRow(origin, properties[0] ?? 'text', value)];
        else if (typeof value === 'object' && value !== null && !Array.isArray(value))
          yield rowsOfRecord(file, origin, value as Record<string, unknown>, properties, options.column);
        else
          throw new CliError(
            'usage',
            `${file}, ${origin}: neither an object nor a text. Right form: {"text": "..."}`,
          );
      }
    })(),
    options.rows,
  );
}

interface JsonRecord {
  readonly origin: string;
  readonly value: unknown;
}

function wholeArray(file: string, text: string): JsonRecord[] {
  try {
    return (JSON.parse(text) as unknown[]).map((value, i) => ({ origin: `element ${i}`, value }));
  } catch (error) {
    throw new CliError('usage', `${file} is not JSON: ${(error as Error).message}`);
  }
}

function* lines(file: string, text: string): Generator<JsonRecord> {
  for (const [i, line] of text.split('\n').entries()) {
    if (line.trim() === '') continue;
    try {
      yield { origin: `line ${i + 1}`, value: JSON.parse(line) as unknown };
    } catch (error) {
      throw new CliError('usage', `${file}, line ${i + 1} is not JSON: ${(error as Error).message}`);
    }
  }
}

function fromCsv(
  file: string,
  text: string,
  separator: string,
  properties: readonly string[],
  options: RowOptions,
): ReadRows {
  const records = parseCsv(text, separator);
  const [head, ...rest] = records;
  if (head === undefined) throw new CliError('usage', `${file} is empty`);
  const openQuoteLine = records.at(-1)?.openQuoteLine;
  if (openQuoteLine !== undefined)
    throw new CliError('usage', `${file}, line ${openQuoteLine} opens a quote that is never closed`);
  const [only = ''] = head.cells;
  if (head.cells.length === 1 && /[,;\t|]/.test(only))
    throw new CliError(
      'usage',
      `${file} is one column, "${cut(block(only), 80)}": cells are separated by ${separator === ',' ? 'commas (by tabs in a .tsv)' : 'tabs'}`,
    );
  const twice = head.cells.find((name, i) => head.cells.indexOf(name) < i);
  if (twice !== undefined)
    throw new CliError('usage', `${file}, line ${head.line} names the column "${cut(twice, 80)}" twice`);
  return collect(
    (function* () {
      for (const { line, cells } of rest) {
        if (cells.length !== head.cells.length)
          throw new CliError(
            'usage',
            `${file}, line ${line} has ${count(cells.length, 'cell')}; the head has ${head.cells.length}`,
          );
        const record = Object.fromEntries(head.cells.map((name, i) => [name, cells[i]]));
        yield rowsOfRecord(file, `line ${line}`, record, properties, options.column);
      }
    })(),
    options.rows,
  );
}

function collect(records: Iterable<readonly TestRow[]>, rowsMax: number): ReadRows {
  const rows: TestRow[] = [];
  for (const made of records) {
    if (rows.length >= rowsMax) return { rows, isCut: true };
    rows.push(...made.slice(0, rowsMax - rows.length));
  }
  return { rows, isCut: false };
}

function rowsOfRecord(
  file: string,
  origin: string,
  record: Readonly<Record<string, unknown>>,
  properties: readonly string[],
  column: string | undefined,
): TestRow[] {
  const has = (name: string) => Object.hasOwn(record, name);
  const wanted =
    column === undefined
      ? (mapped(properties.filter(has)) ?? ['data', 'text', ...fileProperties].filter(has).slice(0, 1))
      : [column].filter(has);
  if (wanted.length === 0)
    throw new CliError(
      'usage',
      `${file}, ${origin} has no ${column ?? [...new Set([...properties, 'text', 'data', 'image'])].join(', ')}; it has ${Object.keys(record).join(', ') || 'nothing'}${column === undefined ? '. --column names the one to take' : ''}`,
    );
  return wanted.map((name) => rowOf(file, origin, name, record[name]));
}

const mapped = (found: readonly string[]) => (found.length > 0 ? found : undefined);

function rowOf(file: string, origin: string, name: string, value: unknown): TestRow {
  const path =
    typeof value === 'object' && value !== null && Object.keys(value).join() === 'file'
      ? (value as { readonly file: unknown }).file
      : fileProperties.has(name)
        ? value
        : undefined;
  if (path === undefined) return textRow(origin, name, value);
  if (typeof path !== 'string')
    throw new CliError('usage', `${file}, ${origin}, ${name}: ${JSON.stringify(path)} is no path of a file`);
  if (/^(data|https?):/i.test(path) || path.length > pathCharsMax)
    throw new CliError(
      'usage',
      `${file}, ${origin}, ${name}: expected the path of a file here, got ${JSON.stringify(cut(path, 60))}. Save the content and name its file`,
    );
  const whole = resolve(dirname(file), path);
  let bytes: number;
  try {
    const stat = statSync(whole);
    if (!stat.isFile()) throw new Error('it is no file');
    bytes = stat.size;
  } catch (error) {
    throw new CliError(
      'usage',
      `${file}, ${origin}, ${name}: ${path} cannot be read (paths are relative to ${dirname(resolve(file))}): ${(error as Error).message}`,
    );
  }
  const mimeType = mimeTypes[extname(path).toLowerCase()] ?? 'application/octet-stream';
  return { origin, property: name, type: typeOf(mimeType), mimeType, data: path, file: whole, bytes };
}

function textRow(origin: string, property: string, data: unknown): TestRow {
  const isText = typeof data === 'string';
  return {
    origin,
    property,
    type: isText ? 'text' : 'json',
    mimeType: isText ? 'text/plain' : 'application/json',
    data: data ?? null,
    file: undefined,
    bytes: Buffer.byteLength(isText ? data : JSON.stringify(data ?? null)),
  };
}
