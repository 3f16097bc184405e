// What the retriever stage taxonomy_enrich asks for: documents of a run, classified on the way.
import type { NsCtx } from '../../context.ts';
import type { AppError } from '../../errors.ts';
import { invalid, isAppError } from '../../errors.ts';
import type { EnrichedDocument, EnrichRequest } from '../../retrieval/index.ts';
import type { JsonObject } from '../documents/service.ts';
import { provideEnrichment } from '../retrievers/service.ts';
import { openClassifier } from './classify.ts';
import { takenOf } from './placement.ts';
import { findTaxonomy, targetsOf } from './service.ts';

/** Members of a hit that are no fields. */
const notFields = new Set([
  'document_id',
  'collection_id',
  'metadata',
  '_internal',
  'document_blobs',
  'score',
  'vectors',
]);

const unsuitable = (message: string): AppError =>
  invalid('retriever_input_invalid', [{ type: 'taxonomy_unsuitable', location: ['stages'], message }]);

/**
 * Classifies documents by a taxonomy.
 *
 * @returns in the order of the documents
 * @throws AppError retriever_input_invalid for a taxonomy or field that is not there, and what a search throws
 */
export async function enrichHits(ctx: NsCtx, request: EnrichRequest): Promise<readonly EnrichedDocument[]> {
  const taxonomy = await findTaxonomy(ctx, request.taxonomy_id);
  if (!taxonomy)
    throw unsuitable(`there is no taxonomy "${request.taxonomy_id.slice(0, 100)}" in this namespace`);
  const targets = targetsOf(taxonomy.config);
  const stray = request.fields?.find((field) => !targets.includes(field));
  if (stray !== undefined) {
    throw unsuitable(
      `the taxonomy "${taxonomy.name}" does not write "${stray.slice(0, 100)}"; its targets: ${targets.join(', ')}`,
    );
  }
  const classifier = await openClassifier(ctx, taxonomy).catch((error: unknown) => {
    throw isAppError(error, 'taxonomy_invalid') ? unsuitable(error.detail) : error;
  });
  const { placements, warnings } = await classifier.classify(
    request.documents.map((document) => ({
      document_id: document.document_id,
      collection_id: document.collection_id,
      fields: Object.fromEntries(
        Object.entries(document).filter(([name]) => !notFields.has(name)),
      ) as JsonObject,
    })),
    request.deadline_ms,
  );
  // The run of the retriever shows the warnings of its request beside its own.
  ctx.warnings.push(...warnings.filter((warning) => !ctx.warnings.includes(warning)));
  const isWanted = (field: string) => !request.fields || request.fields.includes(field);
  return placements.map((placement): EnrichedDocument => {
    const { min_score } = request;
    const kept = placement.assignments.filter(
      ({ accepted, score }) => accepted && (min_score === undefined || score >= min_score),
    );
    const taken = takenOf({ ...placement, assignments: kept });
    const fields = Object.fromEntries(
      [...taken].filter(([field]) => isWanted(field)).map(([f, t]) => [f, t.value]),
    );
    return {
      fields,
      assignments: kept.slice(0, request.top_k).map((one) => ({
        taxonomy_id: taxonomy.id,
        node_id: one.node_id,
        level: one.level,
        matched_document_id: one.document_id,
        value: one.value,
        score: one.score,
        margin: one.margin,
      })),
    };
  });
}

// Retrievers cannot call taxonomies, which need retrievers themselves; so the function is put into their hands.
provideEnrichment(enrichHits);
