// Takes away what a taxonomy has written into documents, after it was deleted.
import type { NsCtx } from '../../context.ts';
import { newId } from '../../ids.ts';
import { canonicalJson } from '../collections/service.ts';
import type { DocumentEnrichment, Enrichment, Json, StoredDocument } from '../documents/service.ts';
import { enrichDocuments, getDocuments } from '../documents/service.ts';
import type { Totals } from './store.ts';
import { noTotals } from './store.ts';

const documentsAtOnce = 500;

const same = (a: unknown, b: unknown) => canonicalJson(a) === canonicalJson(b);

/** What a field holds without what was written; undefined: the field goes; null: it is not as it was written. */
function withoutWritten(
  now: Json | undefined,
  { value, review }: Enrichment,
): readonly Json[] | undefined | null {
  if (now === undefined) return null;
  if (same(now, value)) return undefined;
  // A list that was appended to holds more than what was written.
  if (review || !Array.isArray(now) || !Array.isArray(value)) return null;
  const written = new Set(value.map((element) => canonicalJson(element)));
  const left = (now as readonly Json[]).filter((element) => !written.has(canonicalJson(element)));
  if (left.length + written.size !== now.length) return null;
  return left.length === 0 ? undefined : left;
}

/** The change that takes a taxonomy's fields and provenance from a document; undefined if it has none. */
export function removalFor(taxonomyId: string, document: StoredDocument): DocumentEnrichment | undefined {
  const own = document.enrichments.filter((entry) => entry.taxonomy_id === taxonomyId);
  if (own.length === 0) return undefined;
  const set: Record<string, Json> = {};
  const remove: string[] = [];
  for (const entry of own) {
    const left = withoutWritten(document.fields[entry.field], entry);
    if (left === undefined) remove.push(entry.field);
    else if (left !== null) set[entry.field] = left;
  }
  return {
    document_id: document.document_id,
    set,
    remove,
    provenance_removed: own.map(({ field }) => ({ taxonomy_id: taxonomyId, field })),
    if_source_version: document.source_version,
  };
}

/**
 * Removes what a taxonomy wrote from documents of one collection, in the order of the ids. Fields that somebody has
 * changed since stay. Safe to repeat.
 *
 * @param stop asked after each commit; true: enough for now
 */
export async function removeEnrichments(
  ctx: NsCtx,
  taxonomyId: string,
  collectionId: string,
  ids: readonly string[],
  stop: () => boolean,
): Promise<{ readonly done: number; readonly totals: Totals }> {
  let done = 0;
  let processed = 0;
  let changed = 0;
  while (done < ids.length) {
    const block = ids.slice(done, done + documentsAtOnce);
    const documents = (
      await getDocuments(
        ctx,
        block.map((document_id) => ({ collection_id: collectionId, document_id })),
      )
    ).filter((document) => document !== undefined);
    const changes = documents.flatMap((document) => removalFor(taxonomyId, document) ?? []);
    if (changes.length > 0) {
      const token = `taxonomy-${newId('event', ctx.ports.clock, ctx.ports.random)}`;
      changed += (await enrichDocuments(ctx, collectionId, changes, { token })).enriched;
    }
    processed += documents.length;
    done += block.length;
    if (stop()) break;
  }
  return { done, totals: { ...noTotals, processed, changed } };
}
