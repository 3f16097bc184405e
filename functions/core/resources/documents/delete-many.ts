// Deletes many documents by their ids or by a filter: group by group, each group's rows and index in one transaction.
import { askForSync } from '../../backends/index-tasks.ts';
import type { Condition } from '../../conditions/index.ts';
import { fields as fieldsOf, matches, readerOf } from '../../conditions/index.ts';
import type { NsCtx } from '../../context.ts';
import { now } from '../../context.ts';
import { crash } from '../../crash.ts';
import { invalid } from '../../errors.ts';
import { newId } from '../../ids.ts';
import { parseFilters } from '../../page.ts';
import { audit } from '../../store/audit.ts';
import { guarded } from '../../store/guarded.ts';
import { announce } from '../../store/outbox.ts';
import type { Write } from '../../store/table.ts';
import { ConditionFailed } from '../../store/table.ts';
import type { IndexHead } from '../../store/vector-index.ts';
import { deleteRows, documentsSnapshot, readHead } from '../../store/vector-index.ts';
import { flattenColumns } from '../../vectors/columns.ts';
import { listRows } from '../../vectors/list-rows.ts';
import { count, unknownFields } from '../../vectors/select-rows.ts';
import type { StoredCollection } from '../collections/service.ts';

import { createdColumn } from './service.ts';
import type { DocumentRow, Slot } from './store.ts';
import { isBeingReplaced, readBody, rewriteSlot, toRow, visibleSlot } from './store.ts';

/** Documents of one call. */
export const deletedPerCallMax = 10_000;
/** Up to so many, each document has its own `document.deleted`; above, each transaction has one event for its documents. */
export const eventPerDocumentMax = 1_000;
/** Ids and failures that an answer lists. */
const listedMax = 1_000;
/** Items of a transaction, less eight that a commit may need beside its caller's, and less the audit row. */
const itemsMax = 100 - 8 - 1;
/** Tries of a group that meets others on the same documents. */
const groupTries = 12;
/** A call ends here with what it has done: the gateway answers for it after 29 s. */
const workMsMax = 20_000;

export interface DeleteManyInput {
  readonly document_ids?: readonly string[] | null | undefined;
  readonly filters?: unknown;
  readonly case_sensitive?: boolean | null | undefined;
  /** Kept in the audit row. */
  readonly reason?: string | null | undefined;
}

export interface DeleteFailure {
  readonly document_id: string;
  readonly code: 'document_not_found' | 'document_changed';
  readonly message: string;
}

export interface DeleteManyReply {
  readonly deleted_count: number;
  /** Ids of what was deleted, at most 1,000 of them. */
  readonly document_ids: string[];
  readonly failed_count: number;
  /** At most 1,000. */
  readonly failed: DeleteFailure[];
  /** Documents for which this call had no time: the same call again deletes them. */
  readonly remaining_count: number;
}

/**
 * Deletes the documents that are named, or that a filter selects in the current version of the index. When this has
 * answered, no read, list or search shows them.
 *
 * Groups are atomic, the whole call is not: after a failure the same call finishes the rest. A document that was
 * changed after it was selected is judged again by its own fields: what does not pass the filter any more stays.
 *
 * @throws AppError request_invalid (a wrong or empty filter, one that reaches documents by a field that none has, too
 *   many documents), collection_not_found, index_contended, index_unavailable, index_corrupt
 */
export async function deleteDocuments(
  ctx: NsCtx,
  collection: StoredCollection,
  input: DeleteManyInput,
): Promise<DeleteManyReply> {
  const untilMs = now(ctx) + workMsMax;
  const filter = input.document_ids ? undefined : readDeleteFilter(input);
  const ids = input.document_ids
    ? [...new Set(input.document_ids)]
    : await selectedBy(ctx, collection.id, filter!);
  const eventEach = ids.length <= eventPerDocumentMax;
  const size = eventEach ? Math.floor(itemsMax / 2) : itemsMax - 1;
  const deleted: string[] = [];
  const failed: DeleteFailure[] = [];
  let at = 0;
  for (; at < ids.length; at += size) {
    if (at > 0 && now(ctx) > untilMs) break;
    const group = { ids: ids.slice(at, at + size), filter, eventEach, reason: input.reason ?? undefined };
    const outcome = await deleteGroup(ctx, collection.id, group);
    deleted.push(...outcome.deleted);
    failed.push(...outcome.failed);
  }
  const remaining = Math.max(0, ids.length - at);
  if (remaining > 0) {
    ctx.warnings.push(`${remaining} documents are left: the call ran out of time; repeat it for the rest.`);
  }
  return {
    deleted_count: deleted.length,
    document_ids: deleted.slice(0, listedMax),
    failed_count: failed.length,
    failed: failed.slice(0, listedMax),
    remaining_count: remaining,
  };
}

function refuse(type: string, message: string, fix: string): never {
  throw invalid('request_invalid', [{ type, location: ['body', 'filters'], message, fix }]);
}

function readDeleteFilter(input: DeleteManyInput): Condition {
  const filter = parseFilters(input.filters, input.case_sensitive);
  if (!filter) throw new Error('neither ids nor a filter came through the contract');
  if (fieldsOf(filter).length > 0) return filter;
  return refuse(
    'filter_empty',
    'the filter names no field, so it would delete every document of the collection',
    'name at least one field; to remove everything, delete the collection',
  );
}

/** Ids in ascending order. A field that no document has may select nothing; it must never select by being absent. */
async function selectedBy(ctx: NsCtx, collectionId: string, filter: Condition): Promise<string[]> {
  const snapshot = await documentsSnapshot(ctx, collectionId);
  if (!snapshot) return [];
  return guarded(() => {
    const matched = count(snapshot, filter);
    const unknown = unknownFields(snapshot, filter);
    const named = unknown.map((field) => `"${field}"`).join(', ');
    if (unknown.length > 0 && matched > 0) {
      const plural = matched === 1 ? '1 document' : `${matched} documents`;
      refuse(
        'field_unknown',
        `no document has the field ${named}, and the filter would delete ${plural}`,
        'correct the name of the field, or leave its condition out',
      );
    }
    if (matched > deletedPerCallMax) {
      refuse(
        'too_many',
        `the filter selects ${matched} documents; one call deletes at most ${deletedPerCallMax}`,
        'narrow the filter and repeat the call for each part',
      );
    }
    for (const field of unknown) ctx.warnings.push(`No document has the field "${field}" of the filter.`);
    return matched === 0 ? [] : listRows(snapshot, { filter, idOrder: 'asc', limit: matched });
  });
}

interface Group {
  readonly ids: readonly string[];
  readonly filter: Condition | undefined;
  readonly eventEach: boolean;
  readonly reason: string | undefined;
}

/** A document as it is to be deleted. */
interface Seen {
  readonly row: DocumentRow;
  readonly slot: Slot;
}

interface GroupOutcome {
  readonly deleted: readonly string[];
  readonly failed: readonly DeleteFailure[];
}

async function deleteGroup(ctx: NsCtx, collectionId: string, group: Group): Promise<GroupOutcome> {
  let outcome: GroupOutcome = { deleted: [], failed: [] };
  for (let attempt = 0; attempt < groupTries; attempt++) {
    const head = await readHead(ctx, collectionId);
    const items = await ctx.ports.table.getMany(group.ids.map((id) => ctx.ns.document(collectionId, id)));
    const seen = await Promise.all(
      group.ids.map(async (id, i): Promise<Seen | 'kept' | 'absent'> => {
        const row = items[i] && toRow(items[i]);
        const slot = row && visibleSlot(row, head);
        if (!row || !slot) return 'absent';
        const goes = !group.filter || (await passes(ctx, collectionId, id, slot, group.filter));
        return goes ? { row, slot } : 'kept';
      }),
    );
    const found = seen.filter((one) => typeof one === 'object');
    // Of those that a filter selected, somebody else has just deleted it.
    const absent = group.filter ? [] : group.ids.filter((_, i) => seen[i] === 'absent');
    const failed = absent.map((document_id): DeleteFailure => {
      return { document_id, code: 'document_not_found', message: 'There is no such document.' };
    });
    outcome = { deleted: found.map(({ row }) => row.document_id), failed };
    if (found.length === 0) return outcome;
    try {
      crash('document.delete_many.before_commit');
      await commitGroup(ctx, head, found, group);
      return outcome;
    } catch (error) {
      if (!(error instanceof ConditionFailed)) throw error;
    }
  }
  const message = 'The document is being changed by others; try again.';
  const changed = outcome.deleted.map(
    (id): DeleteFailure => ({ document_id: id, code: 'document_changed', message }),
  );
  return { deleted: [], failed: [...outcome.failed, ...changed] };
}

/** Whether the document passes as its row says now, read as the index reads it. */
async function passes(
  ctx: NsCtx,
  collectionId: string,
  documentId: string,
  slot: Slot,
  filter: Condition,
): Promise<boolean> {
  const body = await readBody(ctx.ports.blobs, slot);
  const columns = flattenColumns(body.fields);
  columns.set(createdColumn, body.created_at);
  columns.set('document_id', documentId);
  columns.set('collection_id', collectionId);
  return matches(filter, readerOf(columns));
}

async function commitGroup(ctx: NsCtx, head: IndexHead, found: readonly Seen[], group: Group): Promise<void> {
  const { collection_id: collectionId } = head;
  const ids = found.map(({ row }) => row.document_id);
  const token = newId('event', ctx.ports.clock, ctx.ports.random);
  const writes: Write[] = found.map(({ row, slot }) => {
    const { body: _, body_key: __, ...place } = slot;
    return rewriteSlot(ctx, collectionId, row, slot, { ...place, gone: true });
  });
  if (group.eventEach) {
    for (const { row } of found) {
      const subject = { type: 'document', id: row.document_id };
      writes.push(
        announce(ctx, 'document.deleted', subject, row.revision + 1, { collection_id: collectionId }),
      );
    }
  } else {
    const subject = { type: 'collection', id: collectionId };
    const metadata = { count: ids.length, document_ids: ids };
    writes.push(announce(ctx, 'collection.documents.deleted', subject, token, metadata));
  }
  writes.push(audit(ctx, 'document.delete_many', collectionId, { reason: group.reason, document_ids: ids }));
  // A batch that rewrites a document counted it as there already; its commit will show it again.
  const going = found.filter(({ row }) => !isBeingReplaced(row, head)).length;
  await deleteRows(ctx, collectionId, ids, -going, {
    token,
    writes,
    committedSeq: head.committed_seq,
    crashPoint: 'document.delete_many',
  });
  await askForSync(ctx, collectionId);
}
