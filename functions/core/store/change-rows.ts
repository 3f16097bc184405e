// Small changes of an index: columns of documents, and deletions.
import type { NsCtx } from '../context.ts';
import type { CommitOptions } from './commit-index.ts';
import { commitSmall } from './group-commit.ts';
import type { RowPatch } from './pending-change.ts';

export type { RowPatch } from './pending-change.ts';

type SmallCommitOptions = Pick<CommitOptions, 'token' | 'writes' | 'committedSeq' | 'crashPoint'>;

/**
 * Changes columns of documents without touching their vectors: when this has answered, a filtered search sees the new
 * values. Rows that the index does not hold are ignored by it. Writers in each other's way are committed together.
 *
 * @throws as `commitSmall`
 */
export async function patchColumns(
  ctx: NsCtx,
  collectionId: string,
  rows: readonly RowPatch[],
  { token, writes = [], committedSeq, crashPoint }: SmallCommitOptions,
): Promise<void> {
  const change = {
    token,
    patches: rows,
    deleted: [],
    document_delta: 0,
    writes,
    committed_seq: committedSeq,
  };
  await commitSmall(ctx, collectionId, change, crashPoint);
}

/**
 * Deletes documents from every feature: when this has answered, no search finds them.
 *
 * @param documentDelta how many of them could be seen, negative
 * @throws as `commitSmall`
 */
export async function deleteRows(
  ctx: NsCtx,
  collectionId: string,
  ids: readonly string[],
  documentDelta: number,
  { token, writes = [], committedSeq, crashPoint }: SmallCommitOptions,
): Promise<void> {
  const change = {
    token,
    patches: [],
    deleted: ids,
    document_delta: documentDelta,
    writes,
    committed_seq: committedSeq,
  };
  await commitSmall(ctx, collectionId, change, crashPoint);
}
