// Pages of entries that may be large each: one ends before an answer grows too large, and its cursor goes on behind it.
import type { NsCtx } from '../../context.ts';
import type { ListInput, PageReply } from '../../page.ts';
import { pageOffset, pageReply, pageSize, readCursor, rowTest } from '../../page.ts';

/** What an answer may hold, so that it stays below what a function can answer. */
const pageBytesMax = 4_000_000;
/** Entries that are opened at the same time. */
const openedAtOnce = 8;

/**
 * @param list names the list: its cursors are good for nothing else
 * @param rows all of it, in order
 * @param searched fields in which `search` looks
 * @param open makes an entry of a row; called for rows of the page, and a few behind it
 */
export async function boundedPage<R, T>(
  ctx: NsCtx,
  list: string,
  rows: readonly R[],
  input: ListInput,
  searched: readonly string[],
  open: (row: R) => Promise<T> | T,
): Promise<PageReply<T>> {
  const test = rowTest(input, searched);
  const kept = rows.filter((row) => test(row));
  const offset = input.cursor ? Number(await readCursor(ctx, list, input, input.cursor)) : pageOffset(input);
  const wanted = kept.slice(offset, offset + pageSize(input));
  const results: T[] = [];
  let bytes = 0;
  for (let i = 0; i < wanted.length && results.length === i; i += openedAtOnce) {
    const opened = await Promise.all(wanted.slice(i, i + openedAtOnce).map((row) => open(row)));
    for (const entry of opened) {
      bytes += Buffer.byteLength(JSON.stringify(entry));
      if (bytes > pageBytesMax && results.length > 0) break;
      results.push(entry);
    }
  }
  const end = offset + results.length;
  return pageReply(ctx, list, input, results, {
    offset,
    total: kept.length,
    nextPosition: end < kept.length ? end : undefined,
  });
}
