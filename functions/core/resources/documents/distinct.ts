// The distinct values of a field over the documents that a filter lets through, with how many documents hold each.
import type { NsCtx } from '../../context.ts';
import type { PageReply } from '../../page.ts';
import { pageOffset, pageReply, parseFilters, readCursor } from '../../page.ts';
import { guarded } from '../../store/guarded.ts';
import { documentsSnapshot } from '../../store/vector-index.ts';
import type { ValueCount } from '../../vectors/facets.ts';
import { distinct } from '../../vectors/facets.ts';
import type { StoredCollection } from '../collections/service.ts';
import { readField, warnOfUnknown } from './filter.ts';

/** A page ends at this many bytes of JSON, with a cursor (decisions, section 2). */
const pageBytesMax = 4_000_000;

export interface DistinctInput {
  readonly field: string;
  readonly filters?: unknown;
  readonly prefix?: string | null | undefined;
  readonly case_sensitive?: boolean | null | undefined;
  readonly order: 'value' | 'count';
  readonly limit: number;
  readonly offset?: number | null | undefined;
  readonly cursor?: string | null | undefined;
}

export interface DistinctReply {
  /** As it was asked for. */
  readonly field: string;
  readonly values: ValueCount[];
  /** Distinct values in all. */
  readonly total: number;
  /** Documents that pass the filter and do not have the field. */
  readonly missing_count: number;
  readonly pagination: PageReply<ValueCount>['pagination'];
  readonly warnings?: string[];
}

/**
 * A page of the values of one field, counted exactly over all documents that pass.
 *
 * @throws AppError request_invalid (field, filter), request_bad_cursor, index_unavailable, index_corrupt
 */
export async function distinctValues(
  ctx: NsCtx,
  collection: StoredCollection,
  input: DistinctInput,
): Promise<DistinctReply> {
  const { prefix, order, limit } = input;
  const field = readField(input.field, ['field']);
  const filter = parseFilters(input.filters, input.case_sensitive);
  const list = `distinct ${collection.id} ${field} ${order}`;
  const page = {
    filters: input.filters,
    search: prefix,
    case_sensitive: input.case_sensitive,
    limit,
    offset: input.offset,
  };
  const offset = input.cursor ? Number(await readCursor(ctx, list, page, input.cursor)) : pageOffset(page);
  const snapshot = await documentsSnapshot(ctx, collection.id);
  if (snapshot) guarded(() => warnOfUnknown(ctx, snapshot, filter, [field]));
  const { values, total, missing_count } = snapshot
    ? guarded(() =>
        distinct(snapshot, {
          field,
          filter,
          prefix: prefix ?? undefined,
          caseSensitive: input.case_sensitive ?? false,
          order,
          limit,
          offset,
        }),
      )
    : { values: [], total: 0, missing_count: 0 };
  let taken = 0;
  for (let bytes = 0; taken < values.length; taken += 1) {
    bytes += Buffer.byteLength(JSON.stringify(values[taken])) + 1;
    if (taken > 0 && bytes > pageBytesMax) break;
  }
  const next = offset + taken;
  const reply = await pageReply(ctx, list, page, values.slice(0, taken), {
    offset,
    total,
    nextPosition: next < total ? next : undefined,
  });
  return {
    field: input.field,
    values: reply.results,
    total,
    missing_count,
    pagination: reply.pagination,
    ...(reply.warnings ? { warnings: reply.warnings } : {}),
  };
}
