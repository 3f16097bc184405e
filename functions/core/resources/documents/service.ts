// The rules of documents: reading what is visible, changing fields, deleting, enriching. Others call these functions.

import { askForSync } from '../../backends/index-tasks.ts';
import { isoTime } from '../../clock.ts';
import type { NsCtx } from '../../context.ts';
import { now } from '../../context.ts';
import { crash } from '../../crash.ts';
import type { FieldFault } from '../../errors.ts';
import { AppError, invalid } from '../../errors.ts';
import { checkVersion } from '../../http/version.ts';
import { newId, randomCharacters } from '../../ids.ts';
import { isReserved } from '../../reserved-fields.ts';
import { audit } from '../../store/audit.ts';
import { announce } from '../../store/outbox.ts';
import type { Write } from '../../store/table.ts';
import { ConditionFailed, queryAll } from '../../store/table.ts';
import type { IndexHead, RowPatch } from '../../store/vector-index.ts';
import {
  deleteRows,
  headWrite,
  openIndex,
  patchColumns,
  readHead,
  readHeads,
  reading,
} from '../../store/vector-index.ts';
import { diffColumns, flattenColumns } from '../../vectors/columns.ts';
import { vectorOf } from '../../vectors/snapshot.ts';
import type { StoredCollection } from '../collections/service.ts';
import { listReceipts, readOutcomes } from './chunk-results.ts';
import type { DocumentBody, DocumentRow, Enrichment, Json, JsonObject, Slot } from './store.ts';
import {
  isBeingReplaced,
  newestCommitted,
  placeBody,
  readBody,
  rewriteSlot,
  toRow,
  visibleSlot,
  withoutSlots,
} from './store.ts';

export type { ChunkCounts, ChunkLog, ChunkOutcome, ChunkSegment, Receipt } from './chunk-results.ts';
export { listReceipts, readOutcome, readOutcomes, toReceipt } from './chunk-results.ts';
export type {
  DocumentBlob,
  DocumentBody,
  DocumentRow,
  Enrichment,
  Json,
  JsonObject,
  Lineage,
  Slot,
} from './store.ts';
export { insertRow, newestCommitted, placeBody, stageRow, toRow, visibleSlot } from './store.ts';
export type { ChunkResult, ResultDocument } from './write-rows.ts';
export { writeRows } from './write-rows.ts';

/** Column of the index that holds when a document was made; users cannot filter by it, only lists order by it. */
export const createdColumn = '_internal.created_at';

/** A document that can be seen. */
export interface StoredDocument extends DocumentBody {
  readonly document_id: string;
  readonly collection_id: string;
  /** Grows with each change of its row; the ETag. */
  readonly revision: number;
  /** Version of the object that it was made from. */
  readonly source_version: number;
}

export interface DocumentRef {
  readonly collection_id: string;
  readonly document_id: string;
}

/** A document may have this many bytes of JSON (API rules, section 12). */
export const documentBytesMax = 256_000;

async function loadVisible(
  ctx: NsCtx,
  collectionId: string,
  row: DocumentRow,
  head: IndexHead,
): Promise<{ readonly slot: Slot; readonly document: StoredDocument } | undefined> {
  const slot = visibleSlot(row, head);
  if (!slot) return undefined;
  const body = await readBody(ctx.ports.blobs, slot);
  const document = {
    ...body,
    document_id: row.document_id,
    collection_id: collectionId,
    revision: row.revision,
    source_version: slot.object_version,
  };
  return { slot, document };
}

const notFound = (documentId: string) =>
  new AppError('document_not_found', {
    detail: `No document "${documentId.slice(0, 120)}" in this collection.`,
  });

/** @throws AppError document_not_found */
export async function getDocument(
  ctx: NsCtx,
  collection: StoredCollection,
  documentId: string,
): Promise<StoredDocument> {
  const [found] = await getDocuments(ctx, [{ collection_id: collection.id, document_id: documentId }]);
  if (!found) throw notFound(documentId);
  return found;
}

/**
 * Documents by reference, in the order of the references; undefined for one that is not there or not visible yet.
 *
 * Heads are read before rows, so the answer never shows less than what was committed when it began.
 *
 * @param known heads by collection id that the caller has read; a document that was replaced since is then undefined
 */
export async function getDocuments(
  ctx: NsCtx,
  refs: readonly DocumentRef[],
  known?: ReadonlyMap<string, IndexHead>,
): Promise<(StoredDocument | undefined)[]> {
  if (refs.length === 0) return [];
  const collectionIds = [...new Set(refs.map((ref) => ref.collection_id))];
  const readAll = async () =>
    new Map((await readHeads(ctx, collectionIds)).map((head) => [head.collection_id, head]));
  let heads = known ?? (await readAll());
  const items = await ctx.ports.table.getMany(
    refs.map((ref) => ctx.ns.document(ref.collection_id, ref.document_id)),
  );
  // When commits came between the two reads, a row may hold only what is newer than the head that we have.
  const unclear = items.some(
    (item, i) => item && !newestCommitted(toRow(item), heads.get(refs[i]!.collection_id)!),
  );
  if (unclear && !known) heads = await readAll();
  return Promise.all(
    items.map(async (item, i) => {
      if (!item) return undefined;
      const { collection_id } = refs[i]!;
      return (await loadVisible(ctx, collection_id, toRow(item), heads.get(collection_id)!))?.document;
    }),
  );
}

/** A document's vectors by feature URI, as the plugin gave them. Features without a vector are left out. */
export async function vectorsOf(
  ctx: NsCtx,
  collection: StoredCollection,
  documentId: string,
): Promise<Record<string, number[]>> {
  const view = await openIndex(ctx, collection.id);
  const found: Record<string, number[]> = {};
  for (const uri of collection.feature_extractors.flatMap((e) => e.features.map((f) => f.feature_uri))) {
    const snapshot = await view.snapshot(uri);
    const vector = snapshot && (await reading(() => vectorOf(snapshot, documentId)));
    if (vector) found[uri] = [...vector];
  }
  return found;
}

/**
 * The wire form: fields at the root and under `metadata`, provenance and lineage under `_internal`.
 *
 * @param vectors by feature URI, where they were asked for
 */
export function presentDocument(
  document: StoredDocument,
  vectors?: Readonly<Record<string, readonly number[]>>,
): { document_id: string; collection_id: string } & Record<string, unknown> {
  const { fields } = document;
  return {
    ...fields,
    document_id: document.document_id,
    collection_id: document.collection_id,
    metadata: fields,
    document_blobs: document.blobs.map(({ s3_key, ...blob }) => blob),
    ...(vectors ? { vectors } : {}),
    _internal: {
      document_id: document.document_id,
      collection_id: document.collection_id,
      lineage: document.lineage,
      enrichments: document.enrichments,
      features: document.features,
      ...(document.long_texts ? { long_texts: Object.keys(document.long_texts) } : {}),
      version: document.revision,
      created_at: document.created_at,
      updated_at: document.updated_at,
    },
  };
}

/**
 * As `presentDocument`, with the permanent names of blobs, and URLs that read them for an hour if asked for.
 */
export async function presentWithBlobs(
  ctx: NsCtx,
  document: StoredDocument,
  options: {
    readonly presigned?: boolean;
    readonly vectors?: Readonly<Record<string, readonly number[]>> | undefined;
  },
): Promise<ReturnType<typeof presentDocument>> {
  const { blobs } = ctx.ports;
  const documentBlobs = await Promise.all(
    document.blobs.map(async ({ s3_key, ...blob }) => ({
      ...blob,
      ...(s3_key === undefined ? {} : { url: blobs.uri(s3_key) }),
      ...(s3_key !== undefined && options.presigned
        ? { presigned_url: await blobs.presignGet(s3_key, 3600) }
        : {}),
    })),
  );
  return { ...presentDocument(document, options.vectors), document_blobs: documentBlobs };
}

/** Tries of a change that meets others on the same document. */
const changeTries = 12;

/** Holds while no batch has committed since the head was read: what was visible then is what is visible now. */
function sameWatermark(ctx: NsCtx, head: IndexHead): Write {
  return {
    check: ctx.ns.head(head.collection_id),
    if: [{ attribute: 'committed_seq', eq: head.committed_seq }],
  };
}

/** Applies `change` to what is visible now, writes row and index in one transaction, and repeats if it was overtaken. */
async function changeDocument(
  ctx: NsCtx,
  collectionId: string,
  documentId: string,
  ifMatch: number | undefined,
  change: (document: StoredDocument) => DocumentBody,
): Promise<StoredDocument> {
  const key = ctx.ns.document(collectionId, documentId);
  for (let attempt = 0; attempt < changeTries; attempt++) {
    const head = await readHead(ctx, collectionId);
    const item = await ctx.ports.table.get(key);
    const row = item && toRow(item);
    const seen = row && (await loadVisible(ctx, collectionId, row, head));
    if (!row || !seen) throw notFound(documentId);
    checkVersion(ifMatch, row.revision);
    const body = { ...change(seen.document), updated_at: isoTime(now(ctx)) };
    const text = JSON.stringify(body);
    if (Buffer.byteLength(text) > documentBytesMax) {
      throw new AppError('document_too_large', {
        detail: `The document would have ${Buffer.byteLength(text)} bytes; at most ${documentBytesMax} are possible.`,
      });
    }
    // Not the request id: callers choose that, and two changes at once must never share a stored body.
    const stamp = `${seen.slot.seq}-${row.revision + 1}-${randomCharacters(8, ctx.ports.random)}`;
    const { body: _, body_key: __, ...place } = seen.slot;
    const slot: Slot = { ...place, ...(await placeBody(ctx, collectionId, documentId, stamp, text)) };
    const columns = diffColumns(flattenColumns(seen.document.fields), flattenColumns(body.fields));
    const writes: Write[] = [
      rewriteSlot(ctx, collectionId, row, seen.slot, slot),
      announce(ctx, 'document.updated', { type: 'document', id: documentId }, row.revision + 1, {
        collection_id: collectionId,
      }),
      audit(ctx, 'document.update', documentId),
    ];
    try {
      crash('document.patch.before_commit');
      if (columns.size === 0) await ctx.ports.table.write([...writes, sameWatermark(ctx, head)]);
      else {
        const token = newId('event', ctx.ports.clock, ctx.ports.random);
        await patchColumns(ctx, collectionId, [{ id: documentId, columns }], {
          token,
          writes,
          committedSeq: head.committed_seq,
          crashPoint: 'document.patch',
        });
      }
      return { ...seen.document, ...body, revision: row.revision + 1 };
    } catch (error) {
      if (!(error instanceof ConditionFailed)) throw error;
    }
  }
  throw new AppError('document_changed', {
    detail: `The document ${documentId} is being changed by too many at once; read it again.`,
    retryAfterSeconds: 1,
  });
}

/** The user fields of a body as it was sent: at the root or under `metadata`; ours are refused. */
export function userFields(body: Readonly<Record<string, unknown>>): {
  readonly [name: string]: Json | undefined;
} {
  const faults: FieldFault[] = [];
  const fields: Record<string, Json | undefined> = {};
  const take = (name: string, value: unknown, at: readonly string[]) => {
    if (isReserved(name)) {
      faults.push({
        type: 'field_reserved',
        location: ['body', ...at, name],
        message: `"${name.slice(0, 60)}" is kept by the service and cannot be set`,
      });
    } else fields[name] = value as Json;
  };
  for (const [name, value] of Object.entries(body)) {
    const nested = name === 'metadata' || name === 'payload';
    if (nested && value !== null && typeof value === 'object' && !Array.isArray(value)) {
      for (const [inner, member] of Object.entries(value)) take(inner, member, [name]);
    } else take(name, value, []);
  }
  if (faults.length > 0) throw invalid('request_invalid', faults);
  return fields;
}

/**
 * Sets fields of a document; those that are not named stay. When this has answered, a filtered search sees them.
 *
 * @throws AppError document_not_found, request_stale, document_too_large, document_changed, request_invalid
 */
export async function patchDocument(
  ctx: NsCtx,
  collection: StoredCollection,
  documentId: string,
  body: Readonly<Record<string, unknown>>,
  ifMatch?: number,
): Promise<StoredDocument> {
  const fields = userFields(body);
  return changeDocument(ctx, collection.id, documentId, ifMatch, (document) =>
    withFields(document, { ...document.fields, ...(fields as JsonObject) }),
  );
}

/** Replaces all fields of a document. @throws as `patchDocument` */
export async function putDocument(
  ctx: NsCtx,
  collection: StoredCollection,
  documentId: string,
  body: Readonly<Record<string, unknown>>,
  ifMatch?: number,
): Promise<StoredDocument> {
  const fields = userFields(body);
  return changeDocument(ctx, collection.id, documentId, ifMatch, (document) =>
    withFields(document, fields as JsonObject),
  );
}

function withFields(document: StoredDocument, fields: JsonObject): DocumentBody {
  const {
    document_id: _,
    collection_id: __,
    revision: ___,
    source_version: ____,
    long_texts,
    ...body
  } = document;
  // A long text that was overwritten is not long any more.
  const kept = Object.entries(long_texts ?? {}).filter(([name]) => fields[name] === document.fields[name]);
  return { ...body, fields, ...(kept.length > 0 ? { long_texts: Object.fromEntries(kept) } : {}) };
}

/**
 * Deletes a document: gone for reads, lists and searches when this has answered.
 *
 * It stays away until its object is processed again with another version, or by `replace` or `force`.
 *
 * @throws AppError document_not_found, request_stale, document_changed
 */
export async function deleteDocument(
  ctx: NsCtx,
  collection: StoredCollection,
  documentId: string,
  ifMatch?: number,
): Promise<void> {
  const key = ctx.ns.document(collection.id, documentId);
  for (let attempt = 0; attempt < changeTries; attempt++) {
    const head = await readHead(ctx, collection.id);
    const item = await ctx.ports.table.get(key);
    const row = item && toRow(item);
    const slot = row && visibleSlot(row, head);
    if (!row || !slot) throw notFound(documentId);
    checkVersion(ifMatch, row.revision);
    const { body: _, body_key: __, ...place } = slot;
    const writes: Write[] = [
      rewriteSlot(ctx, collection.id, row, slot, { ...place, gone: true }),
      announce(ctx, 'document.deleted', { type: 'document', id: documentId }, row.revision + 1, {
        collection_id: collection.id,
      }),
      audit(ctx, 'document.delete', documentId),
    ];
    // A batch that rewrites the document counted it as there already; its commit will show it again.
    const delta = isBeingReplaced(row, head) ? 0 : -1;
    try {
      crash('document.delete.before_commit');
      const token = newId('event', ctx.ports.clock, ctx.ports.random);
      await deleteRows(ctx, collection.id, [documentId], delta, {
        token,
        writes,
        committedSeq: head.committed_seq,
        crashPoint: 'document.delete',
      });
      await askForSync(ctx, collection.id);
      return;
    } catch (error) {
      if (!(error instanceof ConditionFailed)) throw error;
    }
  }
  throw new AppError('document_changed', {
    detail: `The document ${documentId} is being changed by others; try again.`,
    retryAfterSeconds: 1,
  });
}

/** What an enrichment does to one document. */
export interface DocumentEnrichment {
  readonly document_id: string;
  readonly set: JsonObject;
  readonly remove?: readonly string[];
  /** Entries for `_internal.enrichments`; they take the place of those of the same source and field. */
  readonly provenance?: readonly Enrichment[];
  /** Entries that go, by source and field: what they say does not hold any more. */
  readonly provenance_removed?: readonly Pick<Enrichment, 'taxonomy_id' | 'cluster_id' | 'field'>[];
  /** Only if the document was made from this version of its object; else it is left as it is. */
  readonly if_source_version?: number;
}

const enrichRowsPerWrite = 50;
const enrichTries = 20;

function mergeProvenance(
  before: readonly Enrichment[],
  added: readonly Enrichment[],
  removed: readonly Pick<Enrichment, 'taxonomy_id' | 'cluster_id' | 'field'>[],
): Enrichment[] {
  const source = (entry: Pick<Enrichment, 'taxonomy_id' | 'cluster_id' | 'field'>) =>
    `${entry.taxonomy_id ?? ''}\u0000${entry.cluster_id ?? ''}\u0000${entry.field}`;
  const replaced = new Set([...added, ...removed].map(source));
  return [...before.filter((entry) => !replaced.has(source(entry))), ...added];
}

/** Runs `work` over all items, a few at a time. */
async function inParallel<T>(
  items: readonly T[],
  atOnce: number,
  work: (item: T) => Promise<void>,
): Promise<void> {
  let next = 0;
  const lane = async () => {
    while (next < items.length) await work(items[next++]!);
  };
  await Promise.all(Array.from({ length: Math.min(atOnce, items.length) }, lane));
}

/** The columns that an enrichment is about, from what the document says now; undefined where it says nothing. */
function columnsUnder(
  fields: JsonObject,
  names: ReadonlySet<string>,
): Map<string, ReturnType<RowPatch['columns']['get']>> {
  const columns = new Map<string, ReturnType<RowPatch['columns']['get']>>();
  for (const name of names) columns.set(name, undefined);
  for (const [column, value] of flattenColumns(fields)) {
    const root = column.split('.', 1)[0]!;
    if (names.has(root)) columns.set(column, value);
  }
  return columns;
}

/**
 * Writes derived fields into documents and makes them searchable: what taxonomies and clusters do.
 *
 * Row by row on top of what others write at the same time; a document that is deleted, or was made anew from another
 * version of its object, is left alone. Then one column patch of the index. Safe to repeat with the same token.
 *
 * @param options.token names this run of this enrichment
 * @returns how many documents were enriched
 * @throws AppError document_changed, index_contended, collection_not_found
 */
export async function enrichDocuments(
  ctx: NsCtx,
  collectionId: string,
  changes: readonly DocumentEnrichment[],
  options: { readonly token: string },
): Promise<{ readonly enriched: number }> {
  const groups: DocumentEnrichment[][] = [];
  for (let i = 0; i < changes.length; i += enrichRowsPerWrite)
    groups.push(changes.slice(i, i + enrichRowsPerWrite));
  const names = new Map<string, Set<string>>();
  const revisions = new Map<string, Written>();
  const fieldsNow = new Map<string, JsonObject>();
  await inParallel(groups, 4, async (group) => {
    for (let attempt = 0; ; attempt++) {
      if (attempt >= enrichTries) {
        throw new AppError('document_changed', {
          detail: 'Documents are being changed by too many at once.',
          retryAfterSeconds: 2,
        });
      }
      const head = await readHead(ctx, collectionId);
      const items = await ctx.ports.table.getMany(
        group.map((change) => ctx.ns.document(collectionId, change.document_id)),
      );
      const writes: Write[] = [];
      const done: (() => void)[] = [];
      for (const [i, change] of group.entries()) {
        const row = items[i] && toRow(items[i]);
        const seen = row && (await loadVisible(ctx, collectionId, row, head));
        if (!row || !seen) continue;
        if (change.if_source_version !== undefined && change.if_source_version !== seen.slot.object_version)
          continue;
        const fields: Record<string, Json> = { ...seen.document.fields };
        for (const name of change.remove ?? []) delete fields[name];
        for (const [name, value] of Object.entries(change.set)) if (!isReserved(name)) fields[name] = value;
        const enrichments = mergeProvenance(
          seen.document.enrichments,
          change.provenance ?? [],
          change.provenance_removed ?? [],
        );
        const body = { ...withFields(seen.document, fields), enrichments, updated_at: isoTime(now(ctx)) };
        const text = JSON.stringify(body);
        if (Buffer.byteLength(text) > documentBytesMax) continue;
        const { body: _, body_key: __, ...place } = seen.slot;
        const stamp = `${seen.slot.seq}-${row.revision + 1}-${options.token}`;
        const slot: Slot = {
          ...place,
          ...(await placeBody(ctx, collectionId, change.document_id, stamp, text)),
        };
        writes.push(rewriteSlot(ctx, collectionId, row, seen.slot, slot));
        done.push(() => {
          names.set(
            change.document_id,
            new Set([...Object.keys(change.set), ...(change.remove ?? [])].filter((n) => !isReserved(n))),
          );
          revisions.set(change.document_id, { revision: row.revision + 1, seq: seen.slot.seq });
          fieldsNow.set(change.document_id, fields);
        });
      }
      try {
        if (writes.length > 0) await ctx.ports.table.write(writes);
        for (const note of done) note();
        return;
      } catch (error) {
        if (!(error instanceof ConditionFailed)) throw error;
      }
    }
  });
  crash('document.enrich.after_rows');
  await patchUntilEqual(ctx, collectionId, names, revisions, fieldsNow, options.token);
  return { enriched: revisions.size };
}

/** Which version of a document the columns of the index were last patched from. */
interface Written {
  readonly revision: number;
  /** Sequence of the slot; undefined: the document was not to be seen. */
  readonly seq: number | undefined;
}

/**
 * Patches the index from rows that were written before. A request may have changed a row and its columns in between;
 * then our patch would put the older value on top. So rows are read again afterwards, and those that moved are patched
 * once more from what they say now, until none did.
 */
async function patchUntilEqual(
  ctx: NsCtx,
  collectionId: string,
  names: ReadonlyMap<string, ReadonlySet<string>>,
  revisions: Map<string, Written>,
  fieldsNow: Map<string, JsonObject>,
  token: string,
): Promise<void> {
  let pending = [...revisions.keys()];
  for (let round = 0; pending.length > 0; round++) {
    if (round >= enrichTries) {
      throw new AppError('document_changed', {
        detail: 'Documents are being changed by too many at once.',
        retryAfterSeconds: 2,
      });
    }
    const patches = pending.map(
      (id): RowPatch => ({ id, columns: columnsUnder(fieldsNow.get(id)!, names.get(id)!) }),
    );
    // Later rounds put right what this run did, and a repetition of the run does everything again.
    const roundToken = round === 0 ? token : newId('event', ctx.ports.clock, ctx.ports.random);
    await patchColumns(ctx, collectionId, patches, { token: roundToken, crashPoint: 'document.enrich' });
    const head = await readHead(ctx, collectionId);
    const items = await ctx.ports.table.getMany(pending.map((id) => ctx.ns.document(collectionId, id)));
    const moved: string[] = [];
    for (const [i, id] of pending.entries()) {
      const row = items[i] && toRow(items[i]);
      if (!row) continue;
      const before = revisions.get(id)!;
      // A commit shows another slot of the row without writing the row.
      const seq = visibleSlot(row, head)?.seq;
      if (row.revision === before.revision && seq === before.seq) continue;
      const seen = await loadVisible(ctx, collectionId, row, head);
      revisions.set(id, { revision: row.revision, seq });
      if (!seen) continue;
      fieldsNow.set(id, seen.document.fields);
      moved.push(id);
    }
    pending = moved;
  }
}

/** Names a batch. */
export interface BatchRef {
  readonly bucket_id: string;
  readonly batch_id: string;
  readonly attempt: number;
}

/**
 * The documents that a batch made or changed in one collection, from the receipts of its chunks. Some may have been
 * deleted or changed since.
 */
export async function documentsOfBatch(ctx: NsCtx, batch: BatchRef, collectionId: string): Promise<string[]> {
  const receipts = await listReceipts(ctx, batch.batch_id, batch.attempt);
  const outcomes = await readOutcomes(
    ctx,
    receipts.filter((receipt) => receipt.collection_id === collectionId),
  );
  return outcomes.flatMap((outcome) => [...outcome.document_ids]);
}

/** The collections in which a batch made or changed documents, from the receipts of its chunks, in order of their ids. */
export async function collectionsOfBatch(ctx: NsCtx, batch: BatchRef): Promise<string[]> {
  const receipts = await listReceipts(ctx, batch.batch_id, batch.attempt);
  const touched = receipts.filter((receipt) => receipt.counts.documents > 0 || receipt.document_delta !== 0);
  return [...new Set(touched.map((receipt) => receipt.collection_id))].sort();
}

/** A worker of an aborted batch may still write under its sequence for this long. */
const lateWriterMs = 24 * 3600 * 1000;

/**
 * Removes what aborted batches left in rows, and then the sequences from the head's list, which would grow for ever.
 *
 * Looks at every row of the collection, so it does nothing before there are `atLeast` old sequences.
 *
 * @returns how many sequences were removed from the list
 */
export async function clearAborted(ctx: NsCtx, collectionId: string, atLeast: number): Promise<number> {
  const { table } = ctx.ports;
  const before = now(ctx) - lateWriterMs;
  const old = new Set(
    (await readHead(ctx, collectionId)).aborted.filter(({ at_ms }) => at_ms < before).map(({ seq }) => seq),
  );
  if (old.size < atLeast) return 0;
  const { pk, prefix } = ctx.ns.documents(collectionId);
  for await (const item of queryAll(table, pk, { prefix })) {
    const write = withoutSlots(ctx, collectionId, toRow(item), old);
    if (!write) continue;
    try {
      await table.write([write]);
    } catch (error) {
      // Somebody wrote the row just now; the sequence stays in the list, and the next run comes back to it.
      if (error instanceof ConditionFailed) return 0;
      throw error;
    }
  }
  const head = await readHead(ctx, collectionId);
  try {
    await table.write([headWrite(ctx, head, { aborted: head.aborted.filter(({ seq }) => !old.has(seq)) })]);
  } catch (error) {
    if (error instanceof ConditionFailed) return 0;
    throw error;
  }
  return old.size;
}
