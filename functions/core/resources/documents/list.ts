// Lists of documents: filter, search, order and offset run over the columns of the index; only the page's rows are read.
import type { Condition } from '../../conditions/index.ts';
import { canonicalField, conditionLimits, parseCondition } from '../../conditions/index.ts';
import type { NsCtx } from '../../context.ts';
import { invalid } from '../../errors.ts';
import type { ListInput, PageReply } from '../../page.ts';
import { pageOffset, pageReply, pageSize, parseFilters, readCursor } from '../../page.ts';
import { guarded } from '../../store/guarded.ts';
import { documentsSnapshot } from '../../store/vector-index.ts';
import { listRows } from '../../vectors/list-rows.ts';
import type { Snapshot } from '../../vectors/snapshot.ts';
import type { StoredCollection } from '../collections/service.ts';
import { featuresOf } from '../collections/service.ts';
import { warnOfUnknown } from './filter.ts';
import type { StoredDocument } from './service.ts';
import { createdColumn, getDocuments } from './service.ts';

/** A page of documents ends at this many bytes of JSON, with a cursor (decisions, section 2). */
const pageBytesMax = 4_000_000;
/** A float32 as JSON writes it, with its comma. */
const numberBytes = 22;

/** `search` as a condition: any field contains every part between the stars. */
function searchCondition(snapshot: Snapshot, search: string): Condition | undefined {
  const parts = search.split('*').filter((part) => part !== '');
  const fields = [...snapshot.fields()].filter((name) => !name.startsWith('_internal'));
  if (parts.length === 0) return undefined;
  const room = Math.floor((conditionLimits.nodesMax - 2) / (parts.length + 1));
  const anyField = fields.slice(0, room).map((field) => ({
    AND: parts.map((value) => ({ field, operator: 'contains', value })),
  }));
  if (anyField.length === 0) return { kind: 'any', nodes: [] };
  const parsed = parseCondition({ OR: anyField });
  if (!parsed.ok)
    throw invalid('request_invalid', [
      { type: 'search_invalid', location: ['body', 'search'], message: 'cannot be searched for' },
    ]);
  return parsed.condition;
}

/** Ids of the documents that a list asks for, in its order, all of them. */
function select(ctx: NsCtx, snapshot: Snapshot, input: ListInput): string[] {
  const filter = parseFilters(input.filters, input.case_sensitive);
  const sort = input.sorts ?? (input.sort ? [input.sort] : []);
  warnOfUnknown(
    ctx,
    snapshot,
    filter,
    sort.map(({ field }) => canonicalField(field)),
  );
  const search = input.search ? searchCondition(snapshot, input.search) : undefined;
  const both = [filter, search].filter((condition) => condition !== undefined);
  return listRows(snapshot, {
    ...(both.length === 0 ? {} : { filter: both.length === 1 ? both[0]! : { kind: 'all', nodes: both } }),
    sort: sort.length > 0 ? sort : [{ field: createdColumn, direction: 'desc' }],
    idOrder: 'asc',
    limit: Number.MAX_SAFE_INTEGER,
  });
}

const bytesOf = (value: unknown): number => Buffer.byteLength(JSON.stringify(value));

/**
 * A page of a collection's documents, newest batch first unless sorted, with an exact total.
 *
 * @param options.vectors the answer will hold every document's vectors, so that fewer fit
 * @throws AppError request_invalid (filter), request_bad_cursor, index_unavailable, index_corrupt
 */
export async function listDocuments(
  ctx: NsCtx,
  collection: StoredCollection,
  input: ListInput,
  options: { readonly vectors?: boolean } = {},
): Promise<PageReply<StoredDocument>> {
  const numbers = options.vectors
    ? featuresOf(collection).reduce((sum, feature) => sum + feature.dims, 0)
    : 0;
  const vectorBytes = numbers * numberBytes;
  const list = `documents ${collection.id}`;
  const offset = input.cursor ? Number(await readCursor(ctx, list, input, input.cursor)) : pageOffset(input);
  parseFilters(input.filters, input.case_sensitive); // A wrong filter is wrong on an empty collection too.
  const snapshot = await documentsSnapshot(ctx, collection.id);
  const ids = snapshot ? guarded(() => select(ctx, snapshot, input)) : [];
  const wanted = ids.slice(offset, offset + pageSize(input));
  const found = await getDocuments(
    ctx,
    wanted.map((document_id) => ({ collection_id: collection.id, document_id })),
  );
  const documents: StoredDocument[] = [];
  let bytes = 0;
  let taken = 0;
  for (const document of found) {
    // Fields stand at the root and again under metadata.
    if (document) bytes += bytesOf(document.fields) * 2 + bytesOf(document.enrichments) + 1_000 + vectorBytes;
    if (documents.length > 0 && bytes > pageBytesMax) break;
    taken++;
    if (document) documents.push(document);
  }
  const next = offset + taken;
  return pageReply(ctx, list, input, documents, {
    offset,
    total: ids.length,
    nextPosition: next < ids.length ? next : undefined,
  });
}
