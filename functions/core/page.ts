// Lists: what a request asked for, a page of it, and cursors that nobody can forge or carry to another list.
import { createHash, createHmac, timingSafeEqual } from 'node:crypto';
import type { Condition } from './conditions/condition.ts';
import { evaluate } from './conditions/evaluate.ts';
import { parseCondition } from './conditions/parse.ts';
import type { Ctx, NsCtx } from './context.ts';
import { AppError, invalid } from './errors.ts';

/** Query and body of a list request, as the shared schemas leave them. */
export interface ListInput {
  readonly limit?: number | null | undefined;
  readonly page_size?: number | null | undefined;
  readonly offset?: number | null | undefined;
  readonly page?: number | null | undefined;
  readonly cursor?: string | null | undefined;
  readonly search?: string | null | undefined;
  readonly filters?: unknown;
  readonly sort?: { readonly field: string; readonly direction: 'asc' | 'desc' } | null | undefined;
  readonly sorts?:
    | readonly { readonly field: string; readonly direction: 'asc' | 'desc' }[]
    | null
    | undefined;
  readonly case_sensitive?: boolean | null | undefined;
  readonly include_total?: boolean | null | undefined;
}

export interface PageReply<T> {
  readonly results: T[];
  readonly pagination: {
    readonly total: number | null;
    readonly page: number | null;
    readonly page_size: number;
    readonly total_pages: number | null;
    readonly next_page: string | null;
    readonly previous_page: string | null;
    readonly next_cursor: string | null;
  };
  readonly total_count: number | null;
  readonly total: number | null;
  readonly warnings?: string[];
}

const defaultLimit = 20;
const cursorSeconds = 24 * 3600;
/** Rows that a list with a filter or an offset looks at, at most; beyond, it says so (decisions, section 2). */
export const scanRowsMax = 10_000;

/** Query parameters and body together; the body wins. */
export function mergeListInput(query: ListInput, body: ListInput | undefined): ListInput {
  const given = Object.entries(body ?? {}).filter(([, value]) => value !== null && value !== undefined);
  return { ...query, ...Object.fromEntries(given) };
}

/** A digest of everything that must not change between the pages of one list. */
function listShape(ctx: Ctx, list: string, input: ListInput): string {
  const { filters, search, sort, sorts, case_sensitive } = input;
  const namespace = 'ns' in ctx ? (ctx as NsCtx).ns.namespaceId : '';
  const shape = JSON.stringify([
    ctx.principal.orgId,
    namespace,
    list,
    filters,
    search,
    sort,
    sorts,
    case_sensitive,
  ]);
  return createHash('sha256').update(shape).digest('base64url').slice(0, 16);
}

async function seal(ctx: Ctx, payload: string): Promise<string> {
  const mac = createHmac('sha256', await ctx.ports.settings.pepper())
    .update(`cursor:${payload}`)
    .digest();
  return `${Buffer.from(payload).toString('base64url')}.${mac.subarray(0, 16).toString('base64url')}`;
}

/** A cursor for the next page of `list`, good for 24 h, for this organisation and this filter only. */
export async function makeCursor(
  ctx: Ctx,
  list: string,
  input: ListInput,
  position: unknown,
): Promise<string> {
  const until = Math.floor(ctx.ports.clock.now() / 1000) + cursorSeconds;
  return seal(ctx, JSON.stringify([until, listShape(ctx, list, input), position]));
}

/** The position that a cursor holds. @throws AppError request_bad_cursor */
export async function readCursor(ctx: Ctx, list: string, input: ListInput, cursor: string): Promise<unknown> {
  const refuse = (why: string) =>
    new AppError('request_bad_cursor', {
      detail: `The cursor ${why}. Start the list again without a cursor.`,
    });
  const payload = Buffer.from(cursor.split('.')[0] ?? '', 'base64url').toString('utf8');
  const expected = Buffer.from(await seal(ctx, payload));
  const got = Buffer.from(cursor);
  if (expected.length !== got.length || !timingSafeEqual(expected, got))
    throw refuse('is not one that was given out here');
  const [until, shape, position] = JSON.parse(payload) as [number, string, unknown];
  if (until < ctx.ports.clock.now() / 1000) throw refuse('has expired after 24 hours');
  if (shape !== listShape(ctx, list, input))
    throw refuse('belongs to a list with other filters or another path');
  return position;
}

export function pageSize(input: ListInput): number {
  return input.limit ?? input.page_size ?? defaultLimit;
}

export function pageOffset(input: ListInput): number {
  return input.offset ?? ((input.page ?? 1) - 1) * pageSize(input);
}

function valueAt(row: unknown, path: string): unknown {
  let value = row;
  for (const name of path.split('.')) {
    if (value === null || typeof value !== 'object' || !Object.hasOwn(value, name)) return undefined;
    value = (value as Record<string, unknown>)[name];
  }
  return value;
}

/** Order of two field values: missing last, numbers before strings before the rest, never an exception. */
export function compareValues(a: unknown, b: unknown): number {
  const rank = (v: unknown) =>
    typeof v === 'number' ? 0 : typeof v === 'string' ? 1 : typeof v === 'boolean' ? 2 : 3;
  const difference = rank(a) - rank(b);
  if (difference !== 0) return difference;
  if (typeof a === 'number' || typeof a === 'string' || typeof a === 'boolean') {
    const other = b as typeof a;
    return a < other ? -1 : a > other ? 1 : 0;
  }
  return 0;
}

/** A test of rows from `search` (a part of any of `searched` fields, `*` matches anything) and `filters`. */
export function rowTest(input: ListInput, searched: readonly string[]): (row: unknown) => boolean {
  const condition = parseFilters(input.filters, input.case_sensitive);
  const parts = (input.search ?? '').toLowerCase().split('*');
  const found = (text: string) => {
    let from = 0;
    for (const part of parts) {
      const at = text.indexOf(part, from);
      if (at < 0) return false;
      from = at + part.length;
    }
    return true;
  };
  return (row) => {
    if (condition && !evaluate(condition, row)) return false;
    if (!input.search) return true;
    return searched.some((field) => {
      const value = valueAt(row, field);
      return typeof value === 'string' && found(value.toLowerCase());
    });
  };
}

/**
 * The filter of a body; undefined if it has none.
 *
 * @throws AppError request_invalid, with every fault under `body.filters`
 */
export function parseFilters(
  filters: unknown,
  caseSensitive: boolean | null | undefined,
): Condition | undefined {
  if (filters === undefined || filters === null) return undefined;
  const parsed = parseCondition(filters, { caseSensitive: caseSensitive ?? false });
  if (parsed.ok) return parsed.condition;
  throw invalid(
    'request_invalid',
    parsed.faults.map((fault) => ({
      type: 'filter_invalid',
      location: ['body', 'filters', ...fault.path],
      message: fault.message,
      ...(fault.fix === undefined ? {} : { fix: fault.fix }),
    })),
  );
}

/** Sorts rows in place by what a list asks for; the first field weighs most, equal rows keep their order. */
export function sortRows<T>(rows: T[], input: ListInput, fieldOf: (row: T, field: string) => unknown): void {
  for (const { field, direction } of [...(input.sorts ?? (input.sort ? [input.sort] : []))].reverse()) {
    rows.sort(
      (a, b) => compareValues(fieldOf(a, field), fieldOf(b, field)) * (direction === 'desc' ? -1 : 1),
    );
  }
}

/** A page over rows that are all in memory (kinds that are bounded by a quota), with exact totals. */
export async function pageOfAll<T>(
  ctx: Ctx,
  list: string,
  rows: readonly T[],
  input: ListInput,
  searched: readonly string[],
): Promise<PageReply<T>> {
  const test = rowTest(input, searched);
  const kept = rows.filter((row) => test(row));
  sortRows(kept, input, valueAt);
  const limit = pageSize(input);
  const offset = input.cursor ? Number(await readCursor(ctx, list, input, input.cursor)) : pageOffset(input);
  return pageReply(ctx, list, input, kept.slice(offset, offset + limit), {
    offset,
    total: kept.length,
    nextPosition: offset + limit < kept.length ? offset + limit : undefined,
  });
}

/** Wraps the rows of a page. `total` null: unknown. `nextPosition` undefined: this is the last page. */
export async function pageReply<T>(
  ctx: Ctx,
  list: string,
  input: ListInput,
  results: T[],
  at: { readonly offset: number; readonly total: number | null; readonly nextPosition: unknown },
): Promise<PageReply<T>> {
  const size = pageSize(input);
  const page = at.offset % size === 0 ? at.offset / size + 1 : null;
  const next = at.nextPosition === undefined ? null : await makeCursor(ctx, list, input, at.nextPosition);
  return {
    results,
    pagination: {
      total: at.total,
      page,
      page_size: size,
      total_pages: at.total === null ? null : Math.ceil(at.total / size),
      next_page: next !== null && page !== null ? String(page + 1) : null,
      previous_page: page !== null && page > 1 ? String(page - 1) : null,
      next_cursor: next,
    },
    total_count: at.total,
    total: at.total,
    ...(ctx.warnings.length > 0 ? { warnings: [...ctx.warnings] } : {}),
  };
}
