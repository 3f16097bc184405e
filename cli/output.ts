// What the program prints: JSON or words on standard output, a line of progress and errors on standard error.
import type { CliError } from './errors.ts';

/** A place to print to, and what it can show. */
export interface Sink {
  write(text: string): unknown;
  readonly isTTY?: boolean | undefined;
}

export interface Streams {
  readonly out: Sink;
  readonly err: Sink;
  readonly env: Readonly<Record<string, string | undefined>>;
}

/** Control characters of texts that others wrote could move the cursor or hide words. */
const harmless = (text: string) =>
  text.replace(/[\p{Cc}\p{Cf}]/gu, (c) => (c === '\n' || c === '\t' ? c : '\uFFFD'));

/** JSON in which such characters are escaped, those too that JSON itself would leave as they are. */
function harmlessJson(value: unknown, indent?: number): string {
  return JSON.stringify(value, null, indent).replace(/[\p{Cc}\p{Cf}]/gu, (c) =>
    c === '\n' ? c : c.split('').map(unicodeEscape).join(''),
  );
}

const unicodeEscape = (unit: string) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`;

export class Output {
  readonly json: boolean;
  readonly #streams: Streams;
  #hasProgress = false;

  constructor(streams: Streams, json: boolean) {
    this.#streams = streams;
    this.json = json;
  }

  #style(sink: Sink, code: number, text: string): string {
    const { NO_COLOR, TERM } = this.#streams.env;
    const isPlain = !sink.isTTY || (NO_COLOR !== undefined && NO_COLOR !== '') || TERM === 'dumb';
    return isPlain ? text : `\u001b[${code}m${text}\u001b[0m`;
  }

  /** The result: the object with --json, else the lines. */
  result(object: unknown, lines: readonly string[]): void {
    this.clear();
    const text = this.json ? harmlessJson(object, 2) : harmless(lines.join('\n'));
    this.#streams.out.write(`${text}\n`);
  }

  /** Something that should be known beside the result. */
  warn(text: string): void {
    this.clear();
    this.#streams.err.write(`${this.#style(this.#streams.err, 33, 'warning')}: ${harmless(text)}\n`);
  }

  /** Replaces the line of progress; silent where nobody watches. */
  progress(text: string): void {
    const { err } = this.#streams;
    if (!err.isTTY || this.json) return;
    err.write(`\r\u001b[K${harmless(text)}`);
    this.#hasProgress = true;
  }

  /** A step of longer work: replaces the line of progress, and is a line of its own where nobody watches. */
  step(text: string): void {
    const { err } = this.#streams;
    if (this.json) return;
    if (err.isTTY) this.progress(text);
    else err.write(`${harmless(text)}\n`);
  }

  /** Something beside the result that is no warning; nothing with --json. */
  note(text: string): void {
    if (this.json) return;
    this.clear();
    this.#streams.err.write(`${harmless(text)}\n`);
  }

  clear(): void {
    if (this.#hasProgress) this.#streams.err.write('\r\u001b[K');
    this.#hasProgress = false;
  }

  error(error: CliError): void {
    this.clear();
    const { err } = this.#streams;
    if (this.json) {
      const { message, code, requestId: request_id, exit, faults } = error;
      err.write(`${harmlessJson({ error: { message, code, request_id, exit, faults } })}\n`);
      return;
    }
    err.write(`${this.#style(err, 31, 'error')}: ${harmless(error.message)}\n`);
    for (const fault of error.faults) err.write(`  ${harmless(fault)}\n`);
    if (error.requestId !== undefined) err.write(`  request ${harmless(error.requestId)}\n`);
  }
}

/** Rows under a head, each column as wide as its widest cell; numbers to the right. */
export function table(
  head: readonly string[],
  rows: readonly (readonly (string | number | null)[])[],
): string[] {
  const cells = rows.map((row) => row.map((cell) => (cell === null ? '-' : String(cell))));
  const widths = head.map((name, i) => Math.max(name.length, ...cells.map((row) => row[i]!.length)));
  const isNumber = head.map((_, i) => rows.length > 0 && rows.every((row) => typeof row[i] !== 'string'));
  const line = (row: readonly string[]) =>
    row
      .map((cell, i) => (isNumber[i] ? cell.padStart(widths[i]!) : cell.padEnd(widths[i]!)))
      .join('  ')
      .trimEnd();
  return [line(head), ...cells.map(line)];
}

export function byteSize(bytes: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let value = bytes;
  let unit = 0;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit++;
  }
  return `${unit === 0 ? value : value.toFixed(1)} ${units[unit]}`;
}
