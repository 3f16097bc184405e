// Texts of plugins and their data, made fit for one line or an indented block.

/** At most so many characters, the last of them an ellipsis where something was cut. */
export function cut(text: string, charsMax: number): string {
  const chars = [...text];
  return chars.length <= charsMax ? text : `${chars.slice(0, charsMax - 1).join('')}…`;
}

/** A value as the cell of a table: one line. */
export function shown(value: unknown, charsMax: number): string {
  if (value === undefined) return '';
  // Cut before it is looked at: a cell may hold megabytes.
  const text = typeof value === 'string' ? value.slice(0, charsMax * 8) : (JSON.stringify(value) ?? '');
  return cut(block(text), charsMax);
}

/** On one line: what others wrote must not look like a line of ours. */
export const block = (text: string): string =>
  text.replaceAll(/\s*[\n\r\t\v\f\u0085\u2028\u2029]+\s*/g, ' ').trim();

/** Each line behind the mark, so that it cannot be taken for one of ours. */
export const indented = (text: string, mark: string): string[] =>
  text
    .replace(/\s+$/, '')
    .split(/\r\n|[\n\r\u0085\u2028\u2029]/)
    .map((line) => mark + line);

/** `1 row`, `2 rows`. */
export const count = (n: number, one: string): string => `${n} ${one}${n === 1 ? '' : 's'}`;
