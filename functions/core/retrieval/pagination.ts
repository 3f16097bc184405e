// Pages of a run's result: offset, cursor, scroll and keyset, all over one ordered list.
import { AppError } from '../errors.ts';
import { type Fault, isObject, kindOf } from './faults.ts';

export type Pagination =
  | { readonly method: 'offset'; readonly page_size: number; readonly page_number: number }
  | { readonly method: 'cursor'; readonly limit: number; readonly cursor?: string }
  | { readonly method: 'scroll'; readonly limit: number; readonly scroll_id?: string }
  | { readonly method: 'keyset'; readonly limit: number; readonly after?: KeysetMarker };

/** Where a keyset page ended. `position` (1-based) is used when the document is no longer in the result. */
export interface KeysetMarker {
  readonly document_id: string;
  readonly position: number;
}

/** Makes and opens cursors that nobody can forge; bound by the caller to tenant, retriever, inputs and filters. */
export interface PageTokens {
  seal(position: number): Promise<string>;
  /** @throws AppError request_bad_cursor */
  open(token: string): Promise<number>;
}

export const pageSizeDefault = 10;
export const pageSizeMax = 500;
const scrollSizeDefault = 100;
const scrollSizeMax = 1000;
const accepted = {
  offset: ['method', 'page_size', 'page_number'],
  cursor: ['method', 'limit', 'cursor'],
  scroll: ['method', 'limit', 'scroll_id', 'scroll_ttl'],
  keyset: ['method', 'limit', 'after'],
} as const;
type Method = keyof typeof accepted;
const methods = Object.keys(accepted) as Method[];

/**
 * Reads `pagination` and its shorthand `limit`.
 *
 * A scroll lives as long as a cursor does, so `scroll_ttl` is accepted and needs nothing.
 */
export function readPagination(value: unknown, limit: unknown): { pagination: Pagination; faults: Fault[] } {
  const faults: Fault[] = [];
  const wrong = (path: string[], message: string, type = 'value_error') =>
    faults.push({ type, path, message });
  const integer = (given: unknown, path: string[], min: number, max: number, otherwise: number): number => {
    if (given === undefined || given === null) return otherwise;
    if (typeof given === 'number' && Number.isInteger(given) && given >= min && given <= max) return given;
    const got = typeof given === 'number' ? given : kindOf(given);
    wrong(path, `expected a whole number from ${min} to ${max}, got ${got}`);
    return otherwise;
  };
  const text = (given: unknown, path: string[]): string | undefined => {
    if (given === undefined || given === null) return undefined;
    if (typeof given === 'string' && given.length <= 4096) return given;
    wrong(path, `expected a text of at most 4096 characters, got ${kindOf(given)}`);
    return undefined;
  };

  const short = integer(limit, ['limit'], 1, pageSizeMax, 0);
  const given = value ?? {};
  if (!isObject(given)) {
    wrong(['pagination'], `expected an object, got ${kindOf(given)}`);
    return { pagination: { method: 'offset', page_size: short || pageSizeDefault, page_number: 1 }, faults };
  }
  const guess: Method =
    given.cursor != null
      ? 'cursor'
      : given.scroll_id != null
        ? 'scroll'
        : given.after != null
          ? 'keyset'
          : 'offset';
  const method = given.method == null ? guess : methods.find((candidate) => candidate === given.method);
  if (!method) {
    wrong(['pagination', 'method'], `expected one of ${methods.join(', ')}`);
    return { pagination: { method: 'offset', page_size: short || pageSizeDefault, page_number: 1 }, faults };
  }
  for (const key of Object.keys(given)) {
    if ((accepted[method] as readonly string[]).includes(key)) continue;
    const message = `unknown key "${key}" for the method ${method}; accepted are ${accepted[method].join(', ')}`;
    wrong(['pagination', key], message, 'extra_forbidden');
  }
  const sizeKey = method === 'offset' ? 'page_size' : 'limit';
  const max = method === 'scroll' ? scrollSizeMax : pageSizeMax;
  const size = integer(
    given[sizeKey],
    ['pagination', sizeKey],
    1,
    max,
    short || (method === 'scroll' ? scrollSizeDefault : pageSizeDefault),
  );
  if (short && given[sizeKey] != null && given[sizeKey] !== short) {
    wrong(['limit'], `"limit" and "pagination.${sizeKey}" say different things; give one of them`);
  }
  if (method === 'offset') {
    const page_number = integer(given.page_number, ['pagination', 'page_number'], 1, 10_000, 1);
    return { pagination: { method, page_size: size, page_number }, faults };
  }
  if (method === 'cursor') {
    const cursor = text(given.cursor, ['pagination', 'cursor']);
    return {
      pagination: cursor === undefined ? { method, limit: size } : { method, limit: size, cursor },
      faults,
    };
  }
  if (method === 'scroll') {
    integer(given.scroll_ttl, ['pagination', 'scroll_ttl'], 60, 3600, 300);
    const scroll_id = text(given.scroll_id, ['pagination', 'scroll_id']);
    return {
      pagination: scroll_id === undefined ? { method, limit: size } : { method, limit: size, scroll_id },
      faults,
    };
  }
  if (given.after == null) return { pagination: { method, limit: size }, faults };
  const { document_id, position } = isObject(given.after) ? given.after : {};
  const rightPosition = typeof position === 'number' && Number.isInteger(position) && position >= 0;
  if (typeof document_id !== 'string' || !rightPosition || position > 1_000_000) {
    wrong(
      ['pagination', 'after'],
      'expected the marker that the previous page gave: {document_id, position}',
    );
    return { pagination: { method, limit: size }, faults };
  }
  return { pagination: { method, limit: size, after: { document_id, position } }, faults };
}

export const sizeOf = (pagination: Pagination) =>
  pagination.method === 'offset' ? pagination.page_size : pagination.limit;

/**
 * Position (from 0) of the page's first document.
 *
 * @param ids the ordered result, where it is in memory; a keyset page begins behind its document even if it moved
 * @throws AppError request_bad_cursor
 */
export async function offsetOf(
  pagination: Pagination,
  ids: readonly { readonly document_id: string }[] | undefined,
  tokens: PageTokens | undefined,
): Promise<number> {
  if (pagination.method === 'offset') return (pagination.page_number - 1) * pagination.page_size;
  if (pagination.method === 'keyset') {
    const { after } = pagination;
    if (!after) return 0;
    if (!ids) return after.position;
    const at = ids.findIndex(({ document_id }) => document_id === after.document_id);
    // Gone in the meantime: what followed it has moved up by one.
    return at < 0 ? Math.max(0, after.position - 1) : at + 1;
  }
  const token = pagination.method === 'cursor' ? pagination.cursor : pagination.scroll_id;
  if (token === undefined) return 0;
  if (!tokens) throw new AppError('request_bad_cursor', { detail: 'Cursors are not available here.' });
  return tokens.open(token);
}

/** The `pagination` of an answer: totals, and how to ask for the next page by the method that was used. */
export interface PageInfo {
  readonly method: Pagination['method'];
  readonly total: number | null;
  readonly page: number | null;
  readonly page_size: number;
  readonly total_pages: number | null;
  readonly has_more: boolean;
  readonly next_page: string | null;
  readonly previous_page: string | null;
  readonly next_cursor: string | null;
  readonly scroll_id?: string | null;
  readonly after?: KeysetMarker | null;
}

export async function pageInfo(
  pagination: Pagination,
  at: {
    readonly offset: number;
    readonly returned: number;
    readonly total: number | null;
    readonly lastId?: string;
  },
  tokens: PageTokens | undefined,
): Promise<PageInfo> {
  const { method } = pagination;
  const size = sizeOf(pagination);
  const end = at.offset + at.returned;
  const has_more = at.total === null ? at.returned === size : end < at.total;
  const page = at.offset % size === 0 ? at.offset / size + 1 : null;
  const token =
    has_more && (method === 'cursor' || method === 'scroll') ? ((await tokens?.seal(end)) ?? null) : null;
  return {
    method,
    total: at.total,
    page,
    page_size: size,
    total_pages: at.total === null ? null : Math.ceil(at.total / size),
    has_more,
    next_page: has_more && page !== null ? String(page + 1) : null,
    previous_page: page !== null && page > 1 ? String(page - 1) : null,
    next_cursor: method === 'cursor' ? token : null,
    ...(method === 'scroll' ? { scroll_id: token } : {}),
    ...(method === 'keyset'
      ? { after: has_more && at.lastId !== undefined ? { document_id: at.lastId, position: end } : null }
      : {}),
  };
}
