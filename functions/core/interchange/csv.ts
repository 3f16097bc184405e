// Comma-separated values, for spreadsheets: written, not read. RFC 4180, UTF-8, CRLF.
import type { Cell, ExchangeRow, Layout, RowWriter } from './row.ts';
import { extraColumn, idColumn, internalColumn, placeRow, vectorJson } from './row.ts';

const needsQuotes = /[",\r\n]|^\s|\s$/;

/** What is absent is an empty cell; an empty text is a pair of quotes. */
function csvCell(cell: Cell): string {
  if (cell === undefined) return '';
  const text = String(cell);
  return text === '' || needsQuotes.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

const csvLine = (cells: readonly Cell[]) => `${cells.map(csvCell).join(',')}\r\n`;

/**
 * Writes a table with a header line. Vectors, lists and objects are JSON in their cell.
 *
 * Cells are what documents say, unchanged: open the file as data, not as a sheet that computes.
 */
export function csvWriter(layout: Layout): RowWriter {
  const lineOf = (row: ExchangeRow) => {
    const { cells, extra } = placeRow(row.fields, layout);
    const vectors = layout.vectors.map(({ uri }) => {
      const vector = row.vectors.get(uri);
      return vector && vectorJson(vector);
    });
    const internal = row.internal === undefined ? undefined : JSON.stringify(row.internal);
    return csvLine([row.id, ...cells, ...vectors, extra, internal]);
  };
  return {
    contentType: 'text/csv; charset=utf-8',
    extension: 'csv',
    begin: () =>
      Buffer.from(
        csvLine([
          idColumn,
          ...layout.fields.map(({ name }) => name),
          ...layout.vectors.map(({ uri }) => uri),
          extraColumn,
          internalColumn,
        ]),
      ),
    write: (rows) => Buffer.from(rows.map(lineOf).join('')),
    end: () => new Uint8Array(0),
  };
}
