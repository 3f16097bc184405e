// Applies a taxonomy to stored documents: what changes is written with its provenance, what does not is left alone, so
// that a run that is repeated changes nothing.
import { isoTime } from '../../clock.ts';
import { canonicalField } from '../../conditions/index.ts';
import type { NsCtx } from '../../context.ts';
import { newId } from '../../ids.ts';
import { documentsSnapshot } from '../../store/vector-index.ts';
import { flattenColumns } from '../../vectors/columns.ts';
import type { Snapshot } from '../../vectors/snapshot.ts';
import { canonicalJson } from '../collections/service.ts';
import type { DocumentEnrichment, Enrichment, Json, StoredDocument } from '../documents/service.ts';
import { enrichDocuments, getDocuments } from '../documents/service.ts';
import type { Classifier, Nearest } from './classify.ts';
import type { StoredTaxonomy, Totals } from './store.ts';
import { noTotals } from './store.ts';

/** Documents of one embedding call and one scan. */
const documentsPerSearch = 500;
/** Documents of one commit of the index: each commit leaves a segment behind that readers open. */
const documentsPerCommit = 2_000;
const searchTimeMsMax = 100_000;

/** Whether the index shows a field as the document has it; a run that died between the two left it otherwise. */
function isIndexed(
  snapshot: Snapshot | undefined,
  documentId: string,
  field: string,
  value: Json | undefined,
): boolean {
  const row = snapshot?.rowOf(documentId);
  // Not in this version of the index: it was committed since, or deleted.
  if (!snapshot || row === undefined) return true;
  if (value === undefined) {
    const reader = snapshot.readerAt(row);
    return reader.value(field) === undefined && !reader.hasBelow(field);
  }
  for (const [name, wanted] of flattenColumns({ [field]: value })) {
    if (canonicalJson(snapshot.valueAt(row, name) ?? null) !== canonicalJson(wanted)) return false;
  }
  return true;
}

const same = (a: unknown, b: unknown) => canonicalJson(a) === canonicalJson(b);

/**
 * What has to change in a document so that it holds what its nearest reference gives, and nothing that this taxonomy
 * gave it before; undefined if it does already.
 *
 * A field that somebody has changed since the taxonomy wrote it is not taken away.
 */
export function changeFor(
  taxonomy: Pick<StoredTaxonomy, 'id' | 'revision' | 'config'>,
  document: StoredDocument,
  nearest: Nearest | undefined,
  snapshot: Snapshot | undefined,
  at: string,
): DocumentEnrichment | undefined {
  const before = document.enrichments.filter((entry) => entry.taxonomy_id === taxonomy.id);
  const set: Record<string, Json> = {};
  const provenance: Enrichment[] = [];
  for (const [field, value] of nearest?.values ?? []) {
    const { document_id: matched_document_id, score } = nearest!;
    const known = before.find((entry) => entry.field === field);
    const unchanged =
      known !== undefined &&
      same(known.value, value) &&
      known.score === score &&
      known.matched_document_id === matched_document_id &&
      same(document.fields[field] ?? null, value) &&
      isIndexed(snapshot, document.document_id, field, value);
    if (unchanged) continue;
    set[field] = value;
    provenance.push({
      taxonomy_id: taxonomy.id,
      version: taxonomy.revision,
      field,
      value,
      score,
      matched_document_id,
      at,
    });
  }
  const gone = before.filter((entry) => !nearest?.values?.has(entry.field));
  const remove = gone
    .filter((entry) => same(document.fields[entry.field] ?? null, entry.value))
    .map((entry) => entry.field);
  // Taken from the document already, but not from the index.
  const left = taxonomy.config.enrichment_fields
    .map(({ target_field }) => canonicalField(target_field))
    .filter((field) => !nearest?.values?.has(field) && document.fields[field] === undefined)
    .filter((field) => !isIndexed(snapshot, document.document_id, field, undefined));
  if (provenance.length === 0 && gone.length === 0 && left.length === 0) return undefined;
  return {
    document_id: document.document_id,
    set,
    remove: [...new Set([...remove, ...left])],
    provenance,
    provenance_removed: gone.map(({ field }) => ({ taxonomy_id: taxonomy.id, field })),
    if_source_version: document.source_version,
  };
}

/** Totals of two parts of one piece of work. */
export function sum(a: Totals, b: Totals): Totals {
  return {
    processed: a.processed + b.processed,
    enriched: a.enriched + b.enriched,
    changed: a.changed + b.changed,
    failed: a.failed + b.failed,
  };
}

/**
 * Classifies documents of one collection in the order of the ids and writes what changed.
 *
 * Ids of documents that are not there (any more) are passed over.
 *
 * @param stop asked after each commit; true: enough for now
 * @returns `done`: how many of the ids, from the first, were dealt with
 */
export async function applyTaxonomy(
  ctx: NsCtx,
  classifier: Classifier,
  collectionId: string,
  ids: readonly string[],
  stop: () => boolean,
): Promise<{ readonly done: number; readonly totals: Totals }> {
  const { taxonomy } = classifier;
  const { clock } = ctx.ports;
  let totals = noTotals;
  let done = 0;
  const snapshot = await documentsSnapshot(ctx, collectionId);
  while (done < ids.length) {
    const block = ids.slice(done, done + documentsPerCommit);
    const changes: DocumentEnrichment[] = [];
    for (let i = 0; i < block.length; i += documentsPerSearch) {
      const refs = block
        .slice(i, i + documentsPerSearch)
        .map((document_id) => ({ collection_id: collectionId, document_id }));
      const documents = (await getDocuments(ctx, refs)).filter((document) => document !== undefined);
      if (documents.length === 0) continue;
      const { nearest, failed } = await classifier.classify(documents, clock.now() + searchTimeMsMax);
      const time = isoTime(clock.now());
      for (const [n, document] of documents.entries()) {
        const change = changeFor(taxonomy, document, nearest[n], snapshot, time);
        if (change) changes.push(change);
      }
      const enriched = nearest.filter((entry) => entry?.values !== undefined).length;
      totals = sum(totals, { processed: documents.length, enriched, changed: 0, failed });
    }
    if (changes.length > 0) {
      // What was written before a repetition is no change any more, so a repetition commits something else.
      const token = `taxonomy-${newId('event', clock, ctx.ports.random)}`;
      const { enriched } = await enrichDocuments(ctx, collectionId, changes, { token });
      totals = sum(totals, { ...noTotals, changed: enriched });
    }
    done += block.length;
    if (stop()) break;
  }
  return { done, totals };
}
