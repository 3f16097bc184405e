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
import type { Classifier } from './classify.ts';
import type { Placement } from './placement.ts';
import { reasonOf, takenOf } from './placement.ts';
import type { StoredTaxonomy, TaxonomyConfig, Totals } from './store.ts';
import { noTotals, targetsOf, taxonomyStore } from './store.ts';

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

/** The elements of a list field; a single value counts as a list of one. */
function elementsOf(value: Json | undefined): readonly Json[] {
  if (value === undefined || value === null) return [];
  return Array.isArray(value) ? (value as readonly Json[]) : [value];
}

const without = (list: readonly Json[], gone: readonly Json[]) => {
  const keys = new Set(gone.map((value) => canonicalJson(value)));
  return list.filter((value) => !keys.has(canonicalJson(value)));
};

/** What a target shall hold, and which part of it is this taxonomy's. */
interface Wanted {
  readonly field: string;
  /** Undefined: the field shall not be there. */
  readonly value: Json | undefined;
  /** As the provenance states it. */
  readonly own: Json;
  readonly reason: Partial<Enrichment>;
}

/** What the field holds without what this taxonomy has added to it. */
function baseOf(document: StoredDocument, field: string, known: Enrichment | undefined): readonly Json[] {
  return without(elementsOf(document.fields[field]), elementsOf(known?.value));
}

/** Targets that are lists, to which the taxonomy adds. */
function appendedTargets(config: TaxonomyConfig): ReadonlySet<string> {
  return new Set(
    (config.nodes ?? [config])
      .flatMap(({ enrichment_fields }) => enrichment_fields)
      .filter(({ merge_mode }) => merge_mode === 'append')
      .map(({ target_field }) => canonicalField(target_field)),
  );
}

function wantedOf(
  { config }: Pick<Classifier, 'config'>,
  document: StoredDocument,
  placement: Placement,
  before: readonly Enrichment[],
): Wanted[] {
  const options = {
    votes: (config.vote?.top_k ?? 1) > 1,
    levels: config.nodes !== undefined || config.path !== undefined || config.centroids !== undefined,
  };
  const appended = appendedTargets(config);
  const wanted = [...takenOf(placement)].map(([field, { value }]): Wanted => {
    const reason = reasonOf(placement, field, options);
    if (!appended.has(field)) return { field, value, own: value, reason };
    const base = baseOf(
      document,
      field,
      before.find((entry) => entry.field === field),
    );
    const added = without(elementsOf(value), base);
    return { field, value: [...base, ...added], own: added, reason };
  });
  if (placement.decision?.action !== 'reject') return wanted;
  // That nothing is taken over is the decision, and has to be told from a document that nobody looked at.
  const field = targetsOf(config)[0]!;
  return [{ field, value: undefined, own: null, reason: reasonOf(placement, field, options) }];
}

/**
 * What has to change in a document so that it holds what its classification gives, and nothing that this taxonomy
 * gave it before; undefined if it does already.
 *
 * A field that somebody has changed since the taxonomy wrote it is not taken away; of a list that was appended to,
 * only what the taxonomy has added goes.
 */
export function changeFor(
  classifier: Pick<Classifier, 'config' | 'version'> & { readonly taxonomy: Pick<StoredTaxonomy, 'id'> },
  document: StoredDocument,
  placement: Placement,
  snapshot: Snapshot | undefined,
  at: string,
): DocumentEnrichment | undefined {
  const { taxonomy, config, version } = classifier;
  const appended = appendedTargets(config);
  const before = document.enrichments.filter((entry) => entry.taxonomy_id === taxonomy.id);
  const set: Record<string, Json> = {};
  const remove = new Set<string>();
  const provenance: Enrichment[] = [];
  const wanted = wantedOf(classifier, document, placement, before);
  const stays = new Map(wanted.map((one) => [one.field, one]));
  const isHeld = (field: string, value: Json | undefined) =>
    same(document.fields[field] ?? null, value ?? null) &&
    isIndexed(snapshot, document.document_id, field, value);
  for (const { field, value, own, reason } of wanted) {
    const known = before.find((entry) => entry.field === field);
    const entry: Enrichment = { taxonomy_id: taxonomy.id, version, field, value: own, ...reason, at };
    const unchanged = known && same({ ...known, version: 0, at: '' }, { ...entry, version: 0, at: '' });
    if (value !== undefined) {
      if (unchanged && isHeld(field, value)) continue;
      set[field] = value;
    } else if (unchanged) continue;
    else if (known && same(document.fields[field] ?? null, known.value)) remove.add(field);
    provenance.push(entry);
  }
  const gone = before.filter((entry) => !stays.has(entry.field));
  for (const entry of gone) {
    const now = document.fields[entry.field];
    if (appended.has(entry.field) && Array.isArray(now)) {
      const base = baseOf(document, entry.field, entry);
      if (base.length > 0) set[entry.field] = base;
      else remove.add(entry.field);
    } else if (same(now ?? null, entry.value)) remove.add(entry.field);
  }
  // Taken from the document already, but not from the index.
  for (const field of targetsOf(config)) {
    const absent = stays.get(field)?.value === undefined && document.fields[field] === undefined;
    if (absent && !isIndexed(snapshot, document.document_id, field, undefined)) remove.add(field);
  }
  if (provenance.length === 0 && gone.length === 0 && remove.size === 0) return undefined;
  return {
    document_id: document.document_id,
    set,
    remove: [...remove],
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
 * @returns `done`: how many of the ids, from the first, were dealt with; `warnings`: each once
 */
export async function applyTaxonomy(
  ctx: NsCtx,
  classifier: Classifier,
  collectionId: string,
  ids: readonly string[],
  stop: () => boolean,
): Promise<{ readonly done: number; readonly totals: Totals; readonly warnings: readonly string[] }> {
  const { clock } = ctx.ports;
  const warnings = new Set<string>();
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
      const answer = await classifier.classify(documents, clock.now() + searchTimeMsMax);
      const { placements, failed } = answer;
      for (const warning of answer.warnings) warnings.add(warning);
      const time = isoTime(clock.now());
      for (const [n, document] of documents.entries()) {
        const change = changeFor(classifier, document, placements[n]!, snapshot, time);
        if (change) changes.push(change);
      }
      const enriched = placements.filter((placement) => takenOf(placement).size > 0).length;
      totals = sum(totals, { processed: documents.length, enriched, changed: 0, failed });
    }
    // Deleted meanwhile: what it wrote may be on its way out, so nothing is added.
    if (!(await taxonomyStore.find(ctx, classifier.taxonomy.id)))
      return { done: ids.length, totals, warnings: [...warnings] };
    if (changes.length > 0) {
      // What was written before a repetition is no change any more, so a repetition commits something else.
      const token = `taxonomy-${newId('event', clock, ctx.ports.random)}`;
      const { enriched } = await enrichDocuments(ctx, collectionId, changes, { token });
      totals = sum(totals, { ...noTotals, changed: enriched });
    }
    done += block.length;
    if (stop()) break;
  }
  return { done, totals, warnings: [...warnings] };
}
