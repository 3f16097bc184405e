// Which documents of a batch meet an alert: by the alert's condition, or among what its retriever finds.

import { fieldValue } from '../../conditions/field.ts';
import { matches, parseCondition } from '../../conditions/index.ts';
import type { NsCtx } from '../../context.ts';
import { documentsSnapshot } from '../../store/vector-index.ts';
import type { BatchRef } from '../documents/service.ts';
import { documentsOfBatch, getDocuments } from '../documents/service.ts';
import { executeRetriever } from '../retrievers/execute.ts';
import type { StoredAlert, StoredMatch, StoredThreshold } from './store.ts';

/** Matches that are recorded and sent; the count has all of them. */
export const matchesMax = 100;
/** Hits of a retriever that are looked at: its largest page. */
const hitsMax = 500;

export interface Evaluation {
  /** Whether somebody is to be told. */
  readonly holds: boolean;
  readonly count: number;
  /** At most 100: best first for a retriever, else by id. */
  readonly matches: readonly StoredMatch[];
}

/** What a batch did in one collection, read once for all alerts. */
export class BatchDocuments {
  readonly #ctx: NsCtx;
  readonly #batch: BatchRef;
  readonly #ids = new Map<string, Promise<string[]>>();

  constructor(ctx: NsCtx, batch: BatchRef) {
    this.#ctx = ctx;
    this.#batch = batch;
  }

  /** Documents that the batch made or changed, each once, ascending; some may be gone or newer by now. */
  ids(collectionId: string): Promise<string[]> {
    let found = this.#ids.get(collectionId);
    if (!found) {
      found = documentsOfBatch(this.#ctx, this.#batch, collectionId).then((ids) => [...new Set(ids)].sort());
      this.#ids.set(collectionId, found);
    }
    return found;
  }

  /**
   * Those of `ids` that are still as this batch left them. One that a later batch has made anew belongs to that one's
   * alerts, so that each version of a document is reported once.
   */
  async own(collectionId: string, ids: readonly string[]): Promise<string[]> {
    const kept: string[] = [];
    for (let i = 0; i < ids.length; i += 500) {
      const slice = ids.slice(i, i + 500);
      const documents = await getDocuments(
        this.#ctx,
        slice.map((document_id) => ({ collection_id: collectionId, document_id })),
      );
      for (const [j, document] of documents.entries()) {
        if (document?.lineage.batch_id === this.#batch.batch_id) kept.push(slice[j]!);
      }
    }
    return kept;
  }
}

/** @param collectionIds those of the batch that the alert watches */
export async function evaluateAlert(
  ctx: NsCtx,
  alert: StoredAlert,
  documents: BatchDocuments,
  collectionIds: readonly string[],
): Promise<Evaluation> {
  return alert.alert_kind === 'condition'
    ? evaluateCondition(ctx, alert, documents, collectionIds)
    : evaluateRetriever(ctx, alert, documents, collectionIds);
}

/** The index holds the fields of every document under the names that conditions use, so only matches are read. */
async function evaluateCondition(
  ctx: NsCtx,
  alert: StoredAlert,
  documents: BatchDocuments,
  collectionIds: readonly string[],
): Promise<Evaluation> {
  const parsed = parseCondition(JSON.parse(alert.condition!));
  if (!parsed.ok) throw new Error('a stored condition does not parse any more');
  const found: StoredMatch[] = [];
  for (const collectionId of collectionIds) {
    const snapshot = await documentsSnapshot(ctx, collectionId);
    if (!snapshot) continue;
    const meeting = (await documents.ids(collectionId)).filter((id) => {
      const row = snapshot.rowOf(id);
      return row !== undefined && matches(parsed.condition, snapshot.readerAt(row));
    });
    for (const id of await documents.own(collectionId, meeting)) {
      found.push({ document_id: id, collection_id: collectionId, score: null });
    }
  }
  return { holds: found.length >= alert.min_count, count: found.length, matches: found.slice(0, matchesMax) };
}

function passes(threshold: StoredThreshold | null, hit: unknown): boolean {
  if (threshold === null) return true;
  const parsed = parseCondition(threshold, { caseSensitive: true });
  if (!parsed.ok) throw new Error('a stored threshold does not parse any more');
  const value = fieldValue(hit, threshold.field);
  return value !== undefined && matches(parsed.condition, { value: () => value, hasBelow: () => false });
}

/** Runs the retriever once for the whole batch; only hits that the batch made or changed count. */
async function evaluateRetriever(
  ctx: NsCtx,
  alert: StoredAlert,
  documents: BatchDocuments,
  collectionIds: readonly string[],
): Promise<Evaluation> {
  const result = await executeRetriever(ctx, alert.retriever_id!, {
    inputs: JSON.parse(alert.inputs) as Record<string, unknown>,
    pagination: { method: 'offset', page_size: hitsMax, page_number: 1 },
    stream: false,
    return_vectors: false,
    return_presigned_urls: false,
    explain: false,
    allow_partial: false,
    rest: {},
  });
  if (alert.trigger_on === 'no_results')
    return { holds: result.documents.length === 0, count: 0, matches: [] };
  const own = new Set<string>();
  for (const collectionId of collectionIds) {
    const ids = new Set(await documents.ids(collectionId));
    const hits = result.documents.filter(
      (hit) => hit.collection_id === collectionId && ids.has(hit.document_id),
    );
    for (const id of await documents.own(
      collectionId,
      hits.map((hit) => hit.document_id),
    ))
      own.add(`${collectionId} ${id}`);
  }
  const found = result.documents.filter((hit) => own.has(`${hit.collection_id} ${hit.document_id}`));
  return {
    holds: found.length >= alert.min_count && passes(alert.threshold, found[0]),
    count: found.length,
    matches: found
      .slice(0, matchesMax)
      .map(({ document_id, collection_id, score }) => ({ document_id, collection_id, score })),
  };
}
