// Reads CSV with a head, quotes, and line breaks within quotes (RFC 4180).

export interface CsvRecord {
  /** In which line of the file it begins, from 1. */
  readonly line: number;
  readonly cells: readonly string[];
  /** In which line a quote was opened that nothing closes: it took everything up to the end. */
  readonly openQuoteLine?: number;
}

/** Records in their order; empty lines are left out. */
export function parseCsv(text: string, separator = ','): CsvRecord[] {
  const records: CsvRecord[] = [];
  let cells: string[] = [];
  let cell = '';
  let isQuoted = false;
  let line = 1;
  let began = 1;
  let quotedAt = 1;
  const endCell = () => {
    cells.push(cell);
    cell = '';
  };
  const endRecord = () => {
    if (cells.length > 0 || cell !== '') {
      endCell();
      records.push({ line: began, cells, ...(isQuoted ? { openQuoteLine: quotedAt } : {}) });
    }
    cells = [];
    began = line;
  };
  for (let i = 0; i < text.length; i++) {
    const c = text[i]!;
    if (c === '\n') line++;
    if (isQuoted) {
      if (c !== '"') cell += c;
      else if (text[i + 1] === '"') {
        cell += '"';
        i++;
      } else isQuoted = false;
    } else if (c === '"' && cell === '') {
      isQuoted = true;
      quotedAt = line;
    } else if (c === separator) endCell();
    else if (c === '\n') endRecord();
    else if (c !== '\r' || text[i + 1] !== '\n') cell += c;
  }
  endRecord();
  return records;
}
