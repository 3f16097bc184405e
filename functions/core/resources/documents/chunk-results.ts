// What a chunk of a batch leaves behind: results in the blob bucket, and the receipt that says which attempt counts.
import type { NsCtx } from '../../context.ts';
import { getJson } from '../../store/blobs.ts';
import type { Attribute, Item } from '../../store/table.ts';
import { queryAll } from '../../store/table.ts';
import type { StoredSegment } from '../../vectors/manifest.ts';

/** A segment of one feature, or of `granary://documents`, that the commit will name. */
export interface ChunkSegment {
  readonly uri: string;
  readonly dims: number;
  readonly metric: 'cosine' | 'dot' | 'euclid' | null;
  readonly segment: StoredSegment;
}

/** The part of a chunk's result that the commit and the steps after it need. */
export interface ChunkOutcome {
  readonly segments: readonly ChunkSegment[];
  /** Documents that the chunk made or changed. */
  readonly document_ids: readonly string[];
}

/** How many objects ended how. */
export interface ChunkCounts {
  /** Objects in the chunk. */
  readonly objects: number;
  /** Objects whose documents are written (perhaps none, where the plugin gave no output). */
  readonly processed: number;
  readonly failed: number;
  /** Objects without any of the properties that the extractors read. */
  readonly skipped: number;
  readonly documents: number;
}

/** Where the log of one extractor's call is, and what it is about. */
export interface ChunkLog {
  /** The plugin. */
  readonly feature_extractor_id: string;
  /** Key in the blob bucket. */
  readonly key: string;
  readonly rows: number;
  readonly failed: number;
  readonly [name: string]: Attribute;
}

export interface Receipt {
  readonly chunk: number;
  readonly collection_id: string;
  readonly counts: ChunkCounts;
  /** Failed rows by error code. */
  readonly errors: { readonly [code: string]: number };
  /** Key of the documents in the blob bucket: what the rows are written from. */
  readonly result_key: string;
  /** Key of the failures; absent if there are none. */
  readonly failures_key?: string;
  /** What the plugins said, in the order of the extractors; absent if none was called. */
  readonly logs?: readonly ChunkLog[];
  /** JSON of the outcome, or where it is. */
  readonly outcome?: string;
  readonly outcome_key?: string;
  /** Documents that come with this chunk, less those that go. */
  readonly document_delta: number;
  /** Every document row of the chunk has been written. */
  readonly rows_written: boolean;
  readonly at: string;
}

export function toReceipt(item: Item): Receipt {
  return item as unknown as Receipt;
}

/** The receipts of one attempt, by chunk. */
export async function listReceipts(ctx: NsCtx, batchId: string, attempt: number): Promise<Receipt[]> {
  const { pk, prefix } = ctx.ns.receipts(batchId, attempt);
  const found: Receipt[] = [];
  for await (const item of queryAll(ctx.ports.table, pk, { prefix })) found.push(toReceipt(item));
  return found;
}

export async function readOutcome(ctx: NsCtx, receipt: Receipt): Promise<ChunkOutcome> {
  if (receipt.outcome !== undefined) return JSON.parse(receipt.outcome) as ChunkOutcome;
  if (receipt.outcome_key === undefined) throw new Error('a receipt without an outcome has been read');
  return getJson<ChunkOutcome>(ctx.ports.blobs, receipt.outcome_key);
}

/** Outcomes of many receipts, in their order, a few at a time. */
export async function readOutcomes(ctx: NsCtx, receipts: readonly Receipt[]): Promise<ChunkOutcome[]> {
  const outcomes: ChunkOutcome[] = [];
  for (let i = 0; i < receipts.length; i += 16) {
    outcomes.push(
      ...(await Promise.all(receipts.slice(i, i + 16).map((receipt) => readOutcome(ctx, receipt)))),
    );
  }
  return outcomes;
}
