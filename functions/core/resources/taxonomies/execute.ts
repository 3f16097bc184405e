// Classifies documents on demand: the answer says what they would take over, and nothing is stored.

import type * as z from 'zod';
import type { NsCtx } from '../../context.ts';
import { AppError } from '../../errors.ts';
import { parseFilters } from '../../page.ts';
import { documentsSnapshot } from '../../store/vector-index.ts';
import { listRows } from '../../vectors/list-rows.ts';
import type { Json, JsonObject, StoredDocument } from '../documents/service.ts';
import { getDocuments, presentWithBlobs, userFields } from '../documents/service.ts';
import { openClassifier } from './classify.ts';
import type { ExecuteTaxonomyBody } from './contract.ts';
import type { Placement } from './placement.ts';
import { nowhere, takenOf } from './placement.ts';
import { collectionOf, getTaxonomy, versionFor } from './service.ts';
import type { StoredTaxonomy } from './store.ts';
import type { Subject } from './subjects.ts';

/** Time of one execution (API rules, section 12). */
const executionMsMax = 25_000;

export interface TaxonomyExecution {
  readonly taxonomy: StoredTaxonomy;
  readonly version: number;
  /** The documents with what they would take over; for bare inputs only what would be taken over. */
  readonly results: readonly Record<string, unknown>[];
  readonly subjects: readonly Subject[];
  readonly placements: readonly Placement[];
  readonly failed: number;
}

type Body = z.output<typeof ExecuteTaxonomyBody>;

async function storedDocuments(ctx: NsCtx, taxonomy: StoredTaxonomy, body: Body): Promise<StoredDocument[]> {
  const collection = await collectionOf(ctx, taxonomy, body.collection_id);
  const found = await getDocuments(
    ctx,
    (await idsOf(ctx, collection.id, body)).map((document_id) => ({
      collection_id: collection.id,
      document_id,
    })),
  );
  const lacking = body.document_ids?.find((_, i) => !found[i]);
  if (lacking !== undefined) {
    throw new AppError('document_not_found', {
      detail: `No document "${lacking.slice(0, 120)}" in the collection "${collection.name}".`,
    });
  }
  return found.filter((document) => document !== undefined);
}

async function idsOf(ctx: NsCtx, collectionId: string, body: Body): Promise<readonly string[]> {
  if (body.document_ids) return body.document_ids;
  const filter = parseFilters(body.filters, false);
  const snapshot = await documentsSnapshot(ctx, collectionId);
  return snapshot ? listRows(snapshot, { filter, limit: body.limit }) : [];
}

/** An inline document: fields at the root or under `metadata`, perhaps with the id of a stored one. */
function inlineSubject(document: Readonly<Record<string, unknown>>): Subject {
  const {
    document_id,
    collection_id: _,
    _internal: __,
    document_blobs: ___,
    score: ____,
    vectors: _____,
    ...rest
  } = document;
  return {
    fields: userFields(rest) as JsonObject,
    ...(typeof document_id === 'string' ? { document_id } : {}),
  };
}

/** An inline document that names a stored one by both ids is that one, so a decision about it counts. */
function placed(document: Readonly<Record<string, unknown>>): Subject {
  const { collection_id } = document;
  return {
    ...inlineSubject(document),
    ...(typeof collection_id === 'string' ? { collection_id } : {}),
  };
}

/**
 * @param version undefined: the one that counts
 * @throws AppError taxonomy_not_found, taxonomy_version_not_found, taxonomy_invalid (its retriever was changed),
 *   collection_not_found, document_not_found, and what a search throws
 */
export async function executeTaxonomy(
  ctx: NsCtx,
  idOrName: string,
  body: Body,
  version?: number,
): Promise<TaxonomyExecution> {
  const deadlineMs = ctx.ports.clock.now() + executionMsMax;
  const taxonomy = await getTaxonomy(ctx, idOrName);
  const chosen = await versionFor(ctx, taxonomy, version);
  const stored = body.documents || body.inputs ? [] : await storedDocuments(ctx, taxonomy, body);
  const subjects: readonly Subject[] = body.inputs
    ? [{ inputs: body.inputs as JsonObject }]
    : body.documents
      ? body.documents.map(placed)
      : stored;
  const classifier = await openClassifier(ctx, taxonomy, { version: chosen });
  const { placements, failed, warnings } =
    subjects.length > 0
      ? await classifier.classify(subjects, deadlineMs)
      : { placements: [], failed: 0, warnings: [] };
  ctx.warnings.push(...warnings);
  const results = await Promise.all(
    subjects.map(async (_, i): Promise<Record<string, unknown>> => {
      const taken = Object.fromEntries<Json>(
        [...takenOf(placements[i] ?? nowhere)].map(([field, { value }]) => [field, value]),
      );
      const document = stored[i];
      if (document)
        return presentWithBlobs(ctx, { ...document, fields: { ...document.fields, ...taken } }, {});
      return { ...(body.documents?.[i] ?? {}), ...taken };
    }),
  );
  return { taxonomy, version: classifier.version, results, subjects, placements, failed };
}
