// Writes the documents of a batch or an import into their rows, each beside the version that readers see; and says how
// the number of documents changes with them.
import type { NsCtx } from '../../context.ts';
import { crash } from '../../crash.ts';
import { AppError } from '../../errors.ts';
import type { Write } from '../../store/table.ts';
import { ConditionFailed } from '../../store/table.ts';
import type { IndexHead } from '../../store/vector-index.ts';
import type { DocumentRow, Slot } from './store.ts';
import { insertRow, placeBody, stageRow, toRow, visibleSlot } from './store.ts';

/** One document of a chunk's result. */
export interface ResultDocument {
  readonly document_id: string;
  readonly object_id: string;
  readonly object_version: number;
  /** JSON of the body; null: the document ends with this batch. */
  readonly body: string | null;
}

/** What a worker stores of a chunk before it takes the receipt. */
export interface ChunkResult {
  readonly collection_id: string;
  readonly content_hash: string;
  readonly documents: readonly ResultDocument[];
}

/** A transaction takes 100 writes and 4 MB; the rest is room for keys and names. */
const rowsPerWrite = 100;
const bytesPerWrite = 3_000_000;
const parallelWrites = 4;
const tries = 20;

interface Staged {
  readonly document: ResultDocument;
  readonly slot: Slot;
}

async function stage(
  ctx: NsCtx,
  result: ChunkResult,
  document: ResultDocument,
  seq: number,
): Promise<Staged> {
  const place = {
    seq,
    object_id: document.object_id,
    object_version: document.object_version,
    content_hash: result.content_hash,
  };
  if (document.body === null) return { document, slot: { ...place, gone: true } };
  const body = await placeBody(ctx, result.collection_id, document.document_id, String(seq), document.body);
  return { document, slot: { ...place, ...body } };
}

function groupsOf(staged: readonly Staged[]): Staged[][] {
  const groups: Staged[][] = [];
  let bytes = 0;
  for (const one of staged) {
    const size = (one.slot.body === undefined ? 0 : Buffer.byteLength(one.slot.body)) + 500;
    const last = groups.at(-1);
    if (!last || last.length >= rowsPerWrite || bytes + size > bytesPerWrite) {
      groups.push([one]);
      bytes = size;
    } else {
      last.push(one);
      bytes += size;
    }
  }
  return groups;
}

/** How the number of visible documents changes when this slot is committed over what the row shows now. */
function deltaOf(row: DocumentRow | undefined, head: IndexHead, slot: Slot): number {
  return Number(!slot.gone) - Number(row !== undefined && visibleSlot(row, head) !== undefined);
}

async function writeGroup(
  ctx: NsCtx,
  collectionId: string,
  head: IndexHead,
  group: readonly Staged[],
  fresh: boolean,
): Promise<number> {
  for (let attempt = 0; attempt < tries; attempt++) {
    // Most documents are new: then nothing needs to be read.
    const blind = fresh && attempt === 0;
    const keys = group.map(({ document }) => ctx.ns.document(collectionId, document.document_id));
    const items = blind ? [] : await ctx.ports.table.getMany(keys);
    const writes: Write[] = [];
    let delta = 0;
    for (const [i, { document, slot }] of group.entries()) {
      const row = items[i] && toRow(items[i]);
      delta += deltaOf(row, head, slot);
      if (!row && slot.gone) continue;
      const write = row
        ? stageRow(ctx, collectionId, row, head, slot)
        : insertRow(ctx, collectionId, document.document_id, slot);
      if (write) writes.push(write);
    }
    try {
      if (writes.length > 0) await ctx.ports.table.write(writes);
      return delta;
    } catch (error) {
      if (!(error instanceof ConditionFailed)) throw error;
    }
  }
  // A code that the state machine waits for and tries again.
  throw new AppError('index_contended', {
    detail: 'Documents of the batch are being changed by too many at once.',
    retryAfterSeconds: 1,
  });
}

/**
 * Writes every document of a result under the sequence of its batch. Nothing of it is visible before the commit.
 *
 * Repeating, also late and beside a newer batch, changes nothing that is newer.
 *
 * @param fresh no document of the collection was ever visible, so rows are most likely not there
 * @returns documents that the commit adds, less those that it ends
 */
export async function writeRows(
  ctx: NsCtx,
  result: ChunkResult,
  seq: number,
  head: IndexHead,
  fresh: boolean,
): Promise<number> {
  const staged: Staged[] = [];
  for (let i = 0; i < result.documents.length; i += 64) {
    staged.push(
      ...(await Promise.all(
        result.documents.slice(i, i + 64).map((document) => stage(ctx, result, document, seq)),
      )),
    );
  }
  const groups = groupsOf(staged);
  let next = 0;
  let delta = 0;
  const lane = async () => {
    while (next < groups.length) {
      const group = groups[next++]!;
      // Not in one expression: the sum would be read before the wait, and lanes would overwrite each other's.
      const added = await writeGroup(ctx, result.collection_id, head, group, fresh);
      delta += added;
      crash('batch.chunk.between_rows');
    }
  };
  await Promise.all(Array.from({ length: Math.min(parallelWrites, groups.length) }, lane));
  return delta;
}
