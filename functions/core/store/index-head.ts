// The head item of a collection's index: which manifest is current, which batches count, and the writes that move it.
import type { NsCtx } from '../context.ts';
import type { Attribute, Condition, Item, Write } from './table.ts';

/** A batch that has a sequence number and is neither committed nor aborted. */
export interface OpenSequence {
  readonly seq: number;
  readonly batch_id: string;
  readonly attempt: number;
}

/** The head item of a collection: what of it can be seen. */
export interface IndexHead {
  readonly collection_id: string;
  /** Compare-and-set counter of the item; 0: there is no item yet. */
  readonly revision: number;
  /** Version of the manifest; 0: nothing was ever committed. */
  readonly version: number;
  readonly manifest_key: string | null;
  /** Document slots of this batch sequence and below are visible, but for the aborted ones. */
  readonly committed_seq: number;
  /** Sequences that ended without a commit, until `sweep` has removed their slots. */
  readonly aborted: readonly { readonly seq: number; readonly at_ms: number }[];
  readonly open: OpenSequence | null;
  /** The sequence that the next batch takes; starts at 1. */
  readonly next_seq: number;
  /** Documents that can be seen, as commits and deletions counted them. */
  readonly document_count: number;
  /** When writers were last in each other's way (group-commit.ts), in milliseconds since 1970. */
  readonly grouped_at_ms?: number;
  /** Backend -> feature URI -> the version up to which its copy is complete. Moved by syncs, not by commits. */
  readonly copies: Readonly<Record<string, Readonly<Record<string, number>>>>;
}

/** Whether a slot of this sequence can be seen. */
export function isCommitted(head: IndexHead, seq: number): boolean {
  return seq <= head.committed_seq && !head.aborted.some((entry) => entry.seq === seq);
}

/** What an item of the table says; without one, a collection that nothing was committed to. */
export function toHead(collectionId: string, item: Item | undefined): IndexHead {
  return {
    collection_id: collectionId,
    revision: Number(item?.revision ?? 0),
    version: Number(item?.version ?? 0),
    manifest_key: (item?.manifest_key as string | undefined) ?? null,
    committed_seq: Number(item?.committed_seq ?? 0),
    aborted: (item?.aborted as IndexHead['aborted'] | undefined) ?? [],
    open: (item?.open as unknown as OpenSequence | undefined) ?? null,
    next_seq: Number(item?.next_seq ?? 1),
    document_count: Number(item?.document_count ?? 0),
    ...(item?.grouped_at_ms === undefined ? {} : { grouped_at_ms: Number(item.grouped_at_ms) }),
    copies: (item?.copies as IndexHead['copies'] | undefined) ?? {},
  };
}

/** One consistent read. A collection without a head has version 0 and no documents. */
export async function readHead(ctx: NsCtx, collectionId: string): Promise<IndexHead> {
  return toHead(collectionId, await ctx.ports.table.get(ctx.ns.head(collectionId)));
}

/** As `readHead`, for several collections, in their order. */
export async function readHeads(ctx: NsCtx, collectionIds: readonly string[]): Promise<IndexHead[]> {
  const items = await ctx.ports.table.getMany(collectionIds.map((id) => ctx.ns.head(id)));
  return items.map((item, i) => toHead(collectionIds[i]!, item));
}

/**
 * The write that changes a head from the state that was read. `undefined` members stay.
 *
 * Fails its condition when anything about the head changed since.
 */
export function headWrite(
  ctx: NsCtx,
  head: IndexHead,
  changes: Partial<Omit<IndexHead, 'collection_id' | 'revision' | 'copies'>>,
): Write {
  const unchanged: Condition =
    head.revision === 0
      ? { attribute: 'revision', missing: true }
      : { attribute: 'revision', eq: head.revision };
  const { open, ...rest } = changes;
  return {
    update: ctx.ns.head(head.collection_id),
    set: {
      ...(rest as Record<string, Attribute>),
      ...(open ? { open: { ...open } } : {}),
      revision: head.revision + 1,
    },
    ...(open === null && head.open ? { remove: ['open'] } : {}),
    if: [unchanged],
  };
}

/**
 * The write that gives a batch its sequence. One that is still open belongs to a batch that died: it is aborted, so
 * that it can neither commit later nor become visible under a later watermark.
 *
 * @returns the write, and the sequence; the sequence that this attempt has already if it asks again (then no write).
 */
export function openSequence(
  ctx: NsCtx,
  head: IndexHead,
  batch: { readonly batch_id: string; readonly attempt: number },
): { readonly seq: number; readonly write?: Write } {
  if (head.open && head.open.batch_id === batch.batch_id && head.open.attempt === batch.attempt) {
    return { seq: head.open.seq };
  }
  const seq = head.next_seq;
  const aborted = head.open
    ? [...head.aborted, { seq: head.open.seq, at_ms: ctx.ports.clock.now() }]
    : head.aborted;
  return { seq, write: headWrite(ctx, head, { next_seq: seq + 1, open: { seq, ...batch }, aborted }) };
}

/** The write that ends a sequence without a commit; undefined if it is not open (any more). */
export function abortSequence(
  ctx: NsCtx,
  head: IndexHead,
  batch: { readonly batch_id: string; readonly attempt: number },
): Write | undefined {
  if (head.open?.batch_id !== batch.batch_id || head.open.attempt !== batch.attempt) return undefined;
  const entry = { seq: head.open.seq, at_ms: ctx.ports.clock.now() };
  return headWrite(ctx, head, { open: null, aborted: [...head.aborted, entry] });
}
