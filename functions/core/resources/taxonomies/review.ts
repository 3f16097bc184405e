// People look at what is in doubt and decide: which assignments to show first, and what a decision does.
import type * as z from 'zod';
import { isoTime } from '../../clock.ts';
import { canonicalField } from '../../conditions/index.ts';
import type { NsCtx } from '../../context.ts';
import { crash } from '../../crash.ts';
import type { FieldFault } from '../../errors.ts';
import { AppError, invalid } from '../../errors.ts';
import { newId } from '../../ids.ts';
import { scanRowsMax } from '../../page.ts';
import { ConditionFailed } from '../../store/table.ts';
import { documentsSnapshot } from '../../store/vector-index.ts';
import { listRows } from '../../vectors/list-rows.ts';
import type { Enrichment, Json, StoredDocument } from '../documents/service.ts';
import { enrichDocuments, getDocument, getDocuments } from '../documents/service.ts';
import { changeFor } from './apply.ts';
import type { ReviewBody } from './contract.ts';
import { readPath } from './paths.ts';
import { referenceVectors } from './reference-vectors.ts';
import type { StoredReview } from './reviews.ts';
import { findReview, listReviews, reviewsMax, reviewWrite, withdrawal } from './reviews.ts';
import { collectionOf, getTaxonomy } from './service.ts';
import type { StoredTaxonomy } from './store.ts';
import { targetsOf, versionOf } from './store.ts';

/** Time to embed the document anew. */
const embedMsMax = 20_000;
/** Rows stay far below the 400 kB that the table takes. */
const reviewBytesMax = 90_000;

/** An assignment that nobody has decided about. */
export interface Doubtful {
  readonly document_id: string;
  readonly collection_id: string;
  /** Target -> value. */
  readonly fields: Readonly<Record<string, Json>>;
  /** Of the least sure of its fields. */
  readonly score: number | null;
  readonly margin: number | null;
  readonly matched_document_id: string | null;
  readonly runner_up: NonNullable<Enrichment['runner_up']> | null;
  readonly at: string | null;
}

export interface ReviewListing {
  readonly taxonomy: StoredTaxonomy;
  readonly collectionId: string;
  readonly results: readonly Doubtful[];
  readonly total: number;
}

/** Above every margin and score: what has none comes last. */
const last = 1e9;

/** Smallest margin first, then lowest score, then id. */
function byDoubt(a: Doubtful, b: Doubtful): number {
  return (
    (a.margin ?? last) - (b.margin ?? last) ||
    (a.score ?? last) - (b.score ?? last) ||
    (a.document_id < b.document_id ? -1 : 1)
  );
}

function doubtOf(taxonomyId: string, document: StoredDocument): Doubtful | undefined {
  const own = document.enrichments.filter((entry) => entry.taxonomy_id === taxonomyId);
  if (own.length === 0 || own.some(({ review }) => review)) return undefined;
  // The least sure level is the one to look at.
  const [least] = own
    .map((entry) => ({ entry, margin: entry.margin ?? last, score: entry.score ?? last }))
    .sort((a, b) => a.margin - b.margin || a.score - b.score);
  const { entry } = least!;
  return {
    document_id: document.document_id,
    collection_id: document.collection_id,
    fields: Object.fromEntries(own.map(({ field, value }) => [field, value])),
    score: entry.score ?? null,
    margin: entry.margin ?? null,
    matched_document_id: entry.matched_document_id ?? null,
    runner_up: entry.runner_up ?? null,
    at: entry.at ?? null,
  };
}

/** @throws AppError taxonomy_not_found, collection_not_found, index_unavailable, index_corrupt */
export async function listDoubtful(
  ctx: NsCtx,
  idOrName: string,
  query: {
    readonly collection_id?: string | undefined;
    readonly max_score?: number | undefined;
    readonly max_margin?: number | undefined;
    readonly limit: number;
  },
): Promise<ReviewListing> {
  const taxonomy = await getTaxonomy(ctx, idOrName);
  const collection = await collectionOf(ctx, taxonomy, query.collection_id);
  const snapshot = await documentsSnapshot(ctx, collection.id);
  const ids = snapshot ? listRows(snapshot, { idOrder: 'asc', limit: scanRowsMax + 1 }) : [];
  if (ids.length > scanRowsMax) ctx.warnings.push(`Only the oldest ${scanRowsMax} documents were looked at.`);
  const found: Doubtful[] = [];
  for (let i = 0; i < Math.min(ids.length, scanRowsMax); i += 500) {
    const refs = ids
      .slice(i, Math.min(i + 500, scanRowsMax))
      .map((document_id) => ({ collection_id: collection.id, document_id }));
    for (const document of await getDocuments(ctx, refs)) {
      const doubt = document && doubtOf(taxonomy.id, document);
      if (!doubt) continue;
      const { max_score, max_margin } = query;
      if (max_score !== undefined && (doubt.score ?? last) > max_score) continue;
      if (max_margin !== undefined && (doubt.margin ?? last) > max_margin) continue;
      found.push(doubt);
    }
  }
  found.sort(byDoubt);
  return { taxonomy, collectionId: collection.id, results: found.slice(0, query.limit), total: found.length };
}

/** The values that a correction states, by target; of a path the levels follow from the path. */
function correctedValues(
  { config }: StoredTaxonomy,
  given: Readonly<Record<string, Json>>,
): Record<string, Json> {
  const targets = targetsOf(config);
  const faults: FieldFault[] = [];
  const values: Record<string, Json> = {};
  for (const [name, value] of Object.entries(given)) {
    const target = canonicalField(name);
    const location = ['body', 'values', name];
    if (!targets.includes(target)) {
      faults.push({
        type: 'target_unknown',
        location,
        message: `the taxonomy does not write "${target.slice(0, 100)}"`,
        fix: `its targets: ${targets.join(', ')}`,
      });
    } else if (value === null) {
      faults.push({
        type: 'value_error',
        location,
        message: 'null is no value',
        fix: 'send action "reject" where nothing fits',
      });
    } else values[target] = value;
  }
  const { path } = config;
  if (path && values[path.target] !== undefined) {
    const parts = readPath([values[path.target]], { ...path, fields: [path.target] });
    if (parts.length === 0)
      faults.push({
        type: 'value_error',
        location: ['body', 'values', path.target],
        message: 'it is no path',
        fix: `join the levels by "${path.separator}"`,
      });
    for (const [i, part] of parts.entries()) {
      const level = path.level_fields[i];
      if (level !== undefined) values[level] ??= part;
    }
    values[path.target] = parts.join(path.separator);
  }
  if (faults.length > 0) throw invalid('taxonomy_review_invalid', faults);
  return values;
}

/** What a document was given, as its provenance has it. */
function acceptedValues(taxonomy: StoredTaxonomy, document: StoredDocument): Record<string, Json> {
  const own = document.enrichments.filter(
    (entry) => entry.taxonomy_id === taxonomy.id && entry.review?.action !== 'reject',
  );
  if (own.length === 0) {
    throw invalid('taxonomy_review_invalid', [
      {
        type: 'nothing_to_accept',
        location: ['body', 'action'],
        message: `the taxonomy "${taxonomy.name}" has given this document nothing`,
        fix: 'send action "correct" with the right values',
      },
    ]);
  }
  return Object.fromEntries(own.map(({ field, value }) => [field, value]));
}

const changedMeanwhile = (documentId: string) =>
  new AppError('taxonomy_changed', {
    detail: `Somebody else decided about ${documentId} at the same moment; read the document again.`,
  });

/**
 * Records a decision and applies it to the document. The record comes first: after a crash between the two the next
 * run over the document, or the same request again, does the rest.
 *
 * @throws AppError taxonomy_not_found, taxonomy_invalid, taxonomy_review_invalid, taxonomy_changed,
 *   collection_not_found, document_not_found, document_changed, quota_exceeded, and what embedding throws
 */
export async function reviewDocument(
  ctx: NsCtx,
  idOrName: string,
  documentId: string,
  body: z.output<typeof ReviewBody>,
): Promise<{ readonly taxonomy: StoredTaxonomy; readonly review: StoredReview }> {
  const taxonomy = await getTaxonomy(ctx, idOrName);
  const collection = await collectionOf(ctx, taxonomy, body.collection_id);
  const document = await getDocument(ctx, collection, documentId);
  const before = await findReview(ctx, taxonomy.id, collection.id, documentId);
  if (!before && (await listReviews(ctx, taxonomy.id)).length >= reviewsMax) {
    throw new AppError('quota_exceeded', {
      detail: `A taxonomy holds at most ${reviewsMax} decisions, and this one has them. Put the documents into its source collection as references, and take decisions back.`,
    });
  }
  const values =
    body.action === 'reject'
      ? {}
      : body.action === 'accept'
        ? acceptedValues(taxonomy, document)
        : correctedValues(taxonomy, body.values as Readonly<Record<string, Json>>);
  const review: StoredReview = {
    document_id: documentId,
    collection_id: collection.id,
    action: body.action,
    values,
    vectors:
      body.action === 'reject'
        ? {}
        : (await referenceVectors(ctx, taxonomy.config, [document], ctx.ports.clock.now() + embedMsMax))[0]!,
    by: ctx.principal.keyId,
    at: isoTime(ctx.ports.clock.now()),
    revision: (before?.revision ?? 0) + 1,
  };
  if (Buffer.byteLength(JSON.stringify(review)) > reviewBytesMax) {
    throw invalid('taxonomy_review_invalid', [
      {
        type: 'too_large',
        location: ['body', 'values'],
        message: `the decision with the vectors of the document has more than ${reviewBytesMax} bytes`,
        fix: 'send shorter values',
      },
    ]);
  }
  try {
    await ctx.ports.table.write([
      { check: ctx.ns.resource('TAXONOMY', taxonomy.id), if: [{ present: true }] },
      reviewWrite(ctx, taxonomy.id, review, before),
    ]);
  } catch (error) {
    if (error instanceof ConditionFailed) throw changedMeanwhile(documentId);
    throw error;
  }
  crash('taxonomy.review.after_record');
  const change = changeFor(
    { taxonomy, config: taxonomy.config, version: versionOf(taxonomy) },
    document,
    { assignments: [], decision: review },
    undefined,
    review.at,
  );
  if (change) {
    const token = `taxonomy-${newId('event', ctx.ports.clock, ctx.ports.random)}`;
    await enrichDocuments(ctx, collection.id, [change], { token });
  }
  return { taxonomy, review };
}

/** @throws AppError taxonomy_not_found, taxonomy_review_not_found, taxonomy_changed, collection_not_found */
export async function withdrawReview(
  ctx: NsCtx,
  idOrName: string,
  documentId: string,
  collectionId: string | undefined,
): Promise<StoredReview> {
  const taxonomy = await getTaxonomy(ctx, idOrName);
  const collection = await collectionOf(ctx, taxonomy, collectionId);
  const review = await findReview(ctx, taxonomy.id, collection.id, documentId);
  if (!review) {
    throw new AppError('taxonomy_review_not_found', {
      detail: `Nobody has decided about the document "${documentId.slice(0, 120)}" of this collection.`,
    });
  }
  try {
    await ctx.ports.table.write([withdrawal(ctx, taxonomy.id, review)]);
  } catch (error) {
    if (error instanceof ConditionFailed) throw changedMeanwhile(documentId);
    throw error;
  }
  return review;
}
