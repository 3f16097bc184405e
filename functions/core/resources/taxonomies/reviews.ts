// What people decided about documents: a row each under the taxonomy, which no run overwrites, and which serves as a
// reference from then on.
import type { NsCtx } from '../../context.ts';
import type { Item, Write } from '../../store/table.ts';
import { queryAll } from '../../store/table.ts';
import type { Json } from '../documents/service.ts';
import type { Decision } from './placement.ts';

/** Decisions that a taxonomy can hold: each is compared with every document. */
export const reviewsMax = 2_000;

export interface StoredReview extends Decision {
  readonly document_id: string;
  readonly collection_id: string;
  /** Vectors of the document as searches ask with them, by `vectorPlace`; base64 of little-endian float32. */
  readonly vectors: { readonly [place: string]: string };
  /** Grows with each decision about the document. */
  readonly revision: number;
}

/** Names the search that a vector belongs to: a node, and the URI of the feature as its collection has it. */
export const vectorPlace = (nodeId: string, featureUri: string) => `${nodeId} ${featureUri}`;

export const reviewKey = (collectionId: string, documentId: string) => `${collectionId}/${documentId}`;

const keyOf = (ctx: NsCtx, taxonomyId: string, collectionId: string, documentId: string) =>
  ctx.ns.child('TAXONOMY', taxonomyId, 'REVIEW', reviewKey(collectionId, documentId));

interface ReviewRow {
  readonly document_id: string;
  readonly collection_id: string;
  readonly action: StoredReview['action'];
  /** JSON, since values may be what the table keeps otherwise. */
  readonly values_json: string;
  readonly vectors: StoredReview['vectors'];
  readonly by: string;
  readonly at: string;
  readonly revision: number;
}

function toReview(item: Item): StoredReview {
  const row = item as unknown as ReviewRow;
  return {
    document_id: row.document_id,
    collection_id: row.collection_id,
    action: row.action,
    values: JSON.parse(row.values_json) as { [target: string]: Json },
    vectors: row.vectors,
    by: row.by,
    at: row.at,
    revision: row.revision,
  };
}

export async function findReview(
  ctx: NsCtx,
  taxonomyId: string,
  collectionId: string,
  documentId: string,
): Promise<StoredReview | undefined> {
  const item = await ctx.ports.table.get(keyOf(ctx, taxonomyId, collectionId, documentId));
  return item && toReview(item);
}

/** All decisions of a taxonomy, in the order of collections and documents. */
export async function listReviews(ctx: NsCtx, taxonomyId: string): Promise<StoredReview[]> {
  const { pk, prefix } = ctx.ns.children('TAXONOMY', taxonomyId, 'REVIEW');
  const found: StoredReview[] = [];
  for await (const item of queryAll(ctx.ports.table, pk, { prefix })) found.push(toReview(item));
  return found;
}

/** The write of a decision over the one that was read before. */
export function reviewWrite(
  ctx: NsCtx,
  taxonomyId: string,
  review: StoredReview,
  before: StoredReview | undefined,
): Write {
  const { values, ...rest } = review;
  return {
    put: {
      ...keyOf(ctx, taxonomyId, review.collection_id, review.document_id),
      ...rest,
      values_json: JSON.stringify(values),
    },
    if: [before ? { attribute: 'revision', eq: before.revision } : { absent: true }],
  };
}

/** The write that exchanges the vectors of a decision. */
export function vectorsWrite(ctx: NsCtx, taxonomyId: string, review: StoredReview): Write {
  return {
    update: keyOf(ctx, taxonomyId, review.collection_id, review.document_id),
    set: { vectors: review.vectors },
    if: [{ attribute: 'revision', eq: review.revision }],
  };
}

/** The write that takes a decision back. */
export function withdrawal(ctx: NsCtx, taxonomyId: string, before: StoredReview): Write {
  return {
    delete: keyOf(ctx, taxonomyId, before.collection_id, before.document_id),
    if: [{ attribute: 'revision', eq: before.revision }],
  };
}

/** Bytes as they are stored, for `StoredReview.vectors`. */
export function encodeVector(vector: Float32Array): string {
  const bytes = Buffer.alloc(vector.length * 4);
  for (const [i, value] of vector.entries()) bytes.writeFloatLE(value, i * 4);
  return bytes.toString('base64');
}

export function decodeVector(text: string): Float32Array {
  const bytes = Buffer.from(text, 'base64');
  return Float32Array.from({ length: bytes.length / 4 }, (_, i) => bytes.readFloatLE(i * 4));
}
