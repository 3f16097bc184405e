// What a run writes into documents, and takes away again: the fields of the definition, by the groups that it found.
import type { NsCtx } from '../../context.ts';
import { newId } from '../../ids.ts';
import { BlobMissing } from '../../store/blobs.ts';
import { documentsUri, openIndex } from '../../store/vector-index.ts';
import type { Snapshot } from '../../vectors/snapshot.ts';
import { featureOf, findCollection } from '../collections/service.ts';
import type { DocumentEnrichment, Json } from '../documents/service.ts';
import { enrichDocuments } from '../documents/service.ts';
import { isNewer } from './plan-input.ts';
import type { ResultDocument, ResultGroup } from './results.ts';
import { eachDocument, noise } from './results.ts';
import type { ClusterState, EnrichmentField, EnrichmentSource, RunRange, StoredRun } from './store.ts';
import { findRun } from './store.ts';

/** Documents of one enrichment: each is one change of the index. */
const enrichRowsMax = 10_000;

/** What documents were told before: cluster id by document, for each collection, and in which fields. */
export interface Told {
  readonly clusters: Map<string, Map<string, string>>;
  readonly fields: readonly EnrichmentField[];
}

const nothingTold = (): Told => ({ clusters: new Map(), fields: [] });

/**
 * What the run told that the documents carry now.
 *
 * @param wanted only these documents; undefined: all
 */
export async function readTold(
  ctx: NsCtx,
  state: ClusterState | undefined,
  clusterId: string,
  wanted?: ReadonlySet<string>,
): Promise<Told> {
  const id = state?.told_run_id;
  const run = id ? await findRun(ctx, clusterId, id) : undefined;
  if (!run?.has_result) return nothingTold();
  const clusters = new Map<string, Map<string, string>>();
  // One text for each cluster, not one for each document.
  const shared = new Map<string, string>();
  try {
    for await (const documents of eachDocument(ctx, run.run_id)) {
      for (const { document_id, collection_id, cluster_id } of documents) {
        if (cluster_id === noise || (wanted && !wanted.has(document_id))) continue;
        const text = shared.get(cluster_id) ?? cluster_id;
        shared.set(text, text);
        const own = clusters.get(collection_id) ?? new Map<string, string>();
        clusters.set(collection_id, own.set(document_id, text));
      }
    }
  } catch (error) {
    if (error instanceof BlobMissing) return nothingTold();
    throw error;
  }
  return { clusters, fields: state?.told_fields ?? run.plan.enrichment_fields };
}

/** What is told, by whom, and how it was before. */
export interface Telling {
  /** The run that tells. */
  readonly run: StoredRun;
  /** The run of which the groups are; the same one, but where documents are told once more. */
  readonly of: StoredRun;
  readonly ranges: readonly RunRange[];
  readonly fields: readonly EnrichmentField[];
  readonly groups: readonly ResultGroup[];
  readonly before: Told;
}

/**
 * Writes the fields into documents, and takes them away where the telling before had put them and this one does not.
 * A document whose vector is newer than the input of the run is left alone: what is known about it is out of date.
 *
 * @param telling `before` is used up by this
 */
export async function tellDocuments(
  ctx: NsCtx,
  telling: Telling,
  documents: AsyncIterable<readonly ResultDocument[]> | Iterable<readonly ResultDocument[]>,
): Promise<void> {
  const groups = new Map(telling.groups.map((group) => [group.cluster_id, group]));
  const left = telling.before.clusters;
  let collection: CollectionChanges | undefined;
  for await (const some of documents) {
    for (const document of some) {
      const { collection_id, document_id } = document;
      if (collection?.id !== collection_id) {
        await collection?.flush();
        collection = await CollectionChanges.open(ctx, telling, collection_id);
      }
      const told = left.get(collection_id)?.get(document_id);
      left.get(collection_id)?.delete(document_id);
      if (!collection.seen || collection.isOutOfDate(document_id)) continue;
      const group = groups.get(document.cluster_id);
      await collection.add(
        group
          ? changeOf(telling, document, group, collection.seen, told)
          : removal(telling, document_id, collection.seen, told),
      );
    }
  }
  await collection?.flush();
  await takeAway(ctx, telling, left);
}

/** Takes away what documents were told, where they say it still. */
export async function takeAway(
  ctx: NsCtx,
  telling: Telling,
  told: ReadonlyMap<string, ReadonlyMap<string, string>>,
): Promise<void> {
  for (const [id, documents] of told) {
    if (documents.size === 0) continue;
    const collection = await CollectionChanges.open(ctx, telling, id);
    if (!collection.seen) continue;
    for (const [documentId, cluster] of documents)
      await collection.add(removal(telling, documentId, collection.seen, cluster));
    await collection.flush();
  }
}

/** The changes of one collection, sent on when there are enough. */
class CollectionChanges {
  readonly id: string;
  readonly seen: Snapshot | undefined;
  readonly #ctx: NsCtx;
  readonly #run: StoredRun;
  readonly #features: readonly Snapshot[];
  readonly #version: number | undefined;
  #changes: DocumentEnrichment[] = [];

  private constructor(
    ctx: NsCtx,
    run: StoredRun,
    id: string,
    seen: Snapshot | undefined,
    features: readonly Snapshot[],
    version: number | undefined,
  ) {
    this.#ctx = ctx;
    this.#run = run;
    this.id = id;
    this.seen = seen;
    this.#features = features;
    this.#version = version;
  }

  static async open(ctx: NsCtx, { run, of, ranges }: Telling, id: string): Promise<CollectionChanges> {
    const collection = await findCollection(ctx, id);
    if (!collection) return new CollectionChanges(ctx, run, id, undefined, [], undefined);
    const view = await openIndex(ctx, id);
    const features: Snapshot[] = [];
    for (const uri of of.plan.feature_uris) {
      const feature = featureOf(collection, uri);
      const snapshot = feature && (await view.snapshot(feature.feature_uri));
      if (snapshot) features.push(snapshot);
    }
    const version = ranges.find((range) => range.collection_id === id)?.version;
    return new CollectionChanges(ctx, run, id, await view.snapshot(documentsUri), features, version);
  }

  /** Whether the document is gone, or was made anew after the run looked at it. */
  isOutOfDate(documentId: string): boolean {
    if (this.#version === undefined) return false;
    const snapshots = this.#features.length > 0 ? this.#features : [this.seen!];
    return isNewer(snapshots, documentId, this.#version);
  }

  async add(change: DocumentEnrichment | undefined): Promise<void> {
    if (!change) return;
    this.#changes.push(change);
    if (this.#changes.length >= enrichRowsMax) await this.flush();
  }

  async flush(): Promise<void> {
    const changes = this.#changes;
    if (changes.length === 0) return;
    this.#changes = [];
    const { clock, random } = this.#ctx.ports;
    // A repetition has other documents left to tell, so it must not go for the same change of the index.
    const token = `cluster-${this.#run.run_id}-${newId('event', clock, random)}`;
    await enrichDocuments(this.#ctx, this.id, changes, { token });
  }
}

function valueFor(
  source: EnrichmentSource,
  of: StoredRun,
  document: ResultDocument,
  group: ResultGroup,
): Json {
  switch (source) {
    case 'cluster_id':
      return group.cluster_id;
    case 'cluster_label':
      return group.label;
    case 'cluster_summary':
      return group.summary;
    case 'cluster_keywords':
      return group.keywords;
    case 'cluster_probability':
      return document.probability;
    case 'parent_cluster_id':
      return group.parent_cluster_id ?? null;
    case 'run_id':
      return of.run_id;
  }
}

function provenance(telling: Telling, fields: Readonly<Record<string, Json>>, probability: number | null) {
  const { run, of } = telling;
  const source = { cluster_id: run.cluster_id, run_id: of.run_id, score: probability };
  return Object.entries(fields).map(([field, value]) => ({ ...source, field, value }));
}

/** Columns keep no empty lists. */
const kept = (value: unknown) => (Array.isArray(value) && value.length === 0 ? null : (value ?? null));
const equal = (a: unknown, b: unknown) => JSON.stringify(kept(a)) === JSON.stringify(kept(b));

function changeOf(
  telling: Telling,
  document: ResultDocument,
  group: ResultGroup,
  seen: Snapshot,
  told: string | undefined,
): DocumentEnrichment | undefined {
  const row = seen.rowOf(document.document_id);
  if (row === undefined) return undefined;
  const set = Object.fromEntries(
    telling.fields.map(({ source, target }) => [target, valueFor(source, telling.of, document, group)]),
  );
  // Fields of the telling before that are not used any more.
  const old =
    told === undefined || !saysStill(telling.before, row, seen, told)
      ? []
      : telling.before.fields
          .map(({ target }) => target)
          .filter((target) => !Object.hasOwn(set, target) && seen.valueAt(row, target) !== undefined);
  // What it says already need not be written again: a run that finds nothing new changes no document.
  if (
    old.length === 0 &&
    Object.entries(set).every(([target, value]) => equal(seen.valueAt(row, target), value))
  )
    return undefined;
  return {
    document_id: document.document_id,
    set,
    ...(old.length === 0
      ? {}
      : {
          remove: old,
          provenance_removed: old.map((field) => ({ cluster_id: telling.run.cluster_id, field })),
        }),
    provenance: provenance(telling, set, document.probability),
  };
}

/** Whether a document has still what it was told: where its id is among the fields, that decides. */
function saysStill(before: Told, row: number, seen: Snapshot, told: string): boolean {
  const anchor = before.fields.find(({ source }) => source === 'cluster_id');
  if (anchor) return seen.valueAt(row, anchor.target) === told;
  return before.fields.some(({ target }) => seen.valueAt(row, target) !== undefined);
}

/** Takes away what the telling before said, unless somebody else says something different by now. */
function removal(
  telling: Telling,
  documentId: string,
  seen: Snapshot,
  told: string | undefined,
): DocumentEnrichment | undefined {
  const row = seen.rowOf(documentId);
  if (told === undefined || row === undefined || !saysStill(telling.before, row, seen, told))
    return undefined;
  const remove = telling.before.fields.map(({ target }) => target);
  return {
    document_id: documentId,
    set: {},
    remove,
    provenance: provenance(telling, Object.fromEntries(remove.map((target) => [target, null])), null),
  };
}
