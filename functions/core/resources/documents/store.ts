// How documents are stored: one row each with two slots, so that the documents of a batch that runs can be written
// while readers go on seeing the ones before; the collection's head says which slot counts (decisions, section 1).
import type { NsCtx } from '../../context.ts';
import type { Blobs } from '../../store/blobs.ts';
import { getJson } from '../../store/blobs.ts';
import type { Attribute, Item, Write } from '../../store/table.ts';
import type { IndexHead } from '../../store/vector-index.ts';
import { isCommitted } from '../../store/vector-index.ts';

/** Any JSON value. */
export type Json = null | string | number | boolean | readonly Json[] | { readonly [name: string]: Json };
export type JsonObject = { readonly [name: string]: Json };

/** Where a document comes from. */
export interface Lineage {
  readonly bucket_id: string;
  readonly object_id: string;
  readonly object_version: number;
  readonly batch_id: string;
  /** The plugin; the first one of several. */
  readonly feature_extractor_id: string;
  readonly feature_extractor_ids: readonly string[];
  /** Place among the outputs of its object. */
  readonly ordinal: number;
}

/** Which taxonomy or cluster wrote a field, and from what. */
export interface Enrichment {
  readonly taxonomy_id?: string;
  readonly cluster_id?: string;
  readonly run_id?: string;
  readonly version?: number;
  readonly field: string;
  readonly value: Json;
  readonly score?: number | null;
  readonly matched_document_id?: string | null;
  /** Of a hierarchy: the node or level that the field belongs to, levels from 1. */
  readonly node_id?: string;
  readonly level?: number;
  /** Score minus that of the best reference for another value; null: none was near. */
  readonly margin?: number | null;
  readonly runner_up?: {
    readonly document_id: string;
    readonly value: Json;
    readonly score: number;
  } | null;
  /** Of the references that voted. */
  readonly votes?: { readonly winner: number; readonly total: number; readonly share: number };
  /** A person decided this. `by` is the id of the key; a rejection has the value null. */
  readonly review?: { readonly action: string; readonly by: string; readonly at: string };
  readonly at?: string;
}

/** A blob of the object behind a document. */
export interface DocumentBlob {
  readonly field: string;
  readonly role: 'source';
  readonly type: string;
  readonly blob_id: string;
  readonly s3_key?: string;
  readonly mime_type: string;
  readonly size_bytes: number;
}

/** What a slot says: everything of a document but its place. */
export interface DocumentBody {
  /** User fields, as they stand at the root of the wire form. */
  readonly fields: JsonObject;
  readonly lineage: Lineage;
  readonly enrichments: readonly Enrichment[];
  readonly blobs: readonly DocumentBlob[];
  /** Long texts: the field holds the first kilobyte, here is the key of the whole in the blob bucket. */
  readonly long_texts?: {
    readonly [field: string]: { readonly s3_key: string; readonly size_bytes: number };
  };
  /** URIs of the features of which it has a vector. */
  readonly features: readonly string[];
  readonly created_at: string;
  readonly updated_at: string;
}

/** One of the two versions in a row. */
export interface Slot {
  /** Sequence of the batch that wrote it. */
  readonly seq: number;
  /** The document ends with this sequence. */
  readonly gone?: true;
  readonly object_id: string;
  readonly object_version: number;
  /** Digest of plugins, mappings and parameters: with the object's version it tells whether the work was done before. */
  readonly content_hash: string;
  /** JSON of the body; absent where it is gone or large. */
  readonly body?: string;
  /** Key in the blob bucket of a body that is too large for the row. */
  readonly body_key?: string;
}

/** A row as it is stored. */
export interface DocumentRow {
  readonly document_id: string;
  /** Grows with each write; every write is conditional on it. */
  readonly revision: number;
  readonly a?: Slot;
  readonly b?: Slot;
}

/** Bodies above this go to the blob store, so that a row with two of them stays under 100 kB (decisions, section 1). */
const inlineBytesMax = 40_000;

export function toRow(item: Item): DocumentRow {
  return item as unknown as DocumentRow;
}

/** The slot that readers see: the newest committed one; undefined if there is none or it says that the document is gone. */
export function visibleSlot(row: DocumentRow, head: IndexHead): Slot | undefined {
  const slot = newestCommitted(row, head);
  return slot?.gone ? undefined : slot;
}

/** As `visibleSlot`, but also a slot that says that the document is gone. */
export function newestCommitted(row: DocumentRow, head: IndexHead): Slot | undefined {
  const seen = [row.a, row.b].filter(
    (slot): slot is Slot => slot !== undefined && isCommitted(head, slot.seq),
  );
  return seen.length === 2 ? (seen[0]!.seq > seen[1]!.seq ? seen[0] : seen[1]) : seen[0];
}

/** Whether the open batch has written this row, so that its commit will show the document again. */
export function isBeingReplaced(row: DocumentRow, head: IndexHead): boolean {
  return [row.a, row.b].some((slot) => slot !== undefined && slot.seq === head.open?.seq && !slot.gone);
}

function asAttribute(slot: Slot): Attribute {
  return slot as unknown as Attribute;
}

/** The first write of a document that no row exists of. */
export function insertRow(ctx: NsCtx, collectionId: string, documentId: string, slot: Slot): Write {
  return {
    put: {
      ...ctx.ns.document(collectionId, documentId),
      document_id: documentId,
      revision: 1,
      a: asAttribute(slot),
    },
    if: [{ absent: true }],
  };
}

/**
 * Writes a batch's slot beside the one that readers see.
 *
 * @returns undefined where the row holds this sequence or a newer one already: a late duplicate changes nothing.
 */
export function stageRow(
  ctx: NsCtx,
  collectionId: string,
  row: DocumentRow,
  head: IndexHead,
  slot: Slot,
): Write | undefined {
  if ([row.a, row.b].some((other) => other !== undefined && other.seq >= slot.seq)) return undefined;
  const kept = newestCommitted(row, head);
  const free = row.a === undefined || row.a !== kept ? 'a' : 'b';
  return {
    update: ctx.ns.document(collectionId, row.document_id),
    set: { [free]: asAttribute(slot), revision: row.revision + 1 },
    if: [{ attribute: 'revision', eq: row.revision }],
  };
}

/** Replaces the slot that readers see (a change by a request or an enrichment). */
export function rewriteSlot(
  ctx: NsCtx,
  collectionId: string,
  row: DocumentRow,
  before: Slot,
  after: Slot,
): Write {
  return {
    update: ctx.ns.document(collectionId, row.document_id),
    set: { [row.a === before ? 'a' : 'b']: asAttribute(after), revision: row.revision + 1 },
    if: [{ attribute: 'revision', eq: row.revision }],
  };
}

/** Takes the slots of some sequences out of a row, or the row away when none is left; undefined: it has none of them. */
export function withoutSlots(
  ctx: NsCtx,
  collectionId: string,
  row: DocumentRow,
  sequences: ReadonlySet<number>,
): Write | undefined {
  const remove = (['a', 'b'] as const).filter(
    (name) => row[name] !== undefined && sequences.has(row[name].seq),
  );
  if (remove.length === 0) return undefined;
  const key = ctx.ns.document(collectionId, row.document_id);
  const unchanged = [{ attribute: 'revision', eq: row.revision }];
  const isEmpty = (['a', 'b'] as const).every((name) => row[name] === undefined || remove.includes(name));
  return isEmpty
    ? { delete: key, if: unchanged }
    : { update: key, set: { revision: row.revision + 1 }, remove, if: unchanged };
}

/** The key of a body that is too large for its row; never overwritten. */
function bodyKey(ctx: NsCtx, collectionId: string, documentId: string, stamp: string): string {
  return `documents/${ctx.ns.namespaceId}/${collectionId}/${documentId}/${stamp}.json`;
}

/**
 * The members of a slot that hold a body; a large one is stored first.
 *
 * @param stamp names this version of the document: a sequence, or a sequence and a revision.
 */
export async function placeBody(
  ctx: NsCtx,
  collectionId: string,
  documentId: string,
  stamp: string,
  body: string,
): Promise<Pick<Slot, 'body' | 'body_key'>> {
  if (body.length <= inlineBytesMax && Buffer.byteLength(body) <= inlineBytesMax) return { body };
  const key = bodyKey(ctx, collectionId, documentId, stamp);
  await ctx.ports.blobs.put(key, body, { contentType: 'application/json' });
  return { body_key: key };
}

/** @throws BlobMissing when a large body was removed under a reader: read the row again. */
export async function readBody(blobs: Blobs, slot: Slot): Promise<DocumentBody> {
  if (slot.body !== undefined) return JSON.parse(slot.body) as DocumentBody;
  if (slot.body_key === undefined) throw new Error('a slot without a body has been read');
  return getJson<DocumentBody>(blobs, slot.body_key);
}
