// Small changes of an index: columns of documents, and deletions.
import type { NsCtx } from '../context.ts';
import type { ColumnPatch } from '../vectors/columns.ts';
import type { Addition } from '../vectors/manifest.ts';
import { type CommitOptions, commitIndex, putSegment } from './commit-index.ts';

/** A change of some columns of a document; names as `flattenColumns` makes them. */
export interface RowPatch {
  readonly id: string;
  readonly columns: ColumnPatch;
}

/**
 * Changes columns of documents without touching their vectors: when this has answered, a filtered search sees the new
 * values. Rows that the index does not hold are ignored by it.
 *
 * @throws as `commitIndex`
 */
export async function patchColumns(
  ctx: NsCtx,
  collectionId: string,
  rows: readonly RowPatch[],
  options: CommitOptions,
): Promise<void> {
  const changed = rows.filter((row) => row.columns.size > 0);
  const additions: Addition[] =
    changed.length === 0
      ? []
      : [
          {
            every: true,
            segment: await putSegment(ctx, collectionId, {
              kind: 'columns',
              dims: 0,
              metric: null,
              rows: changed,
            }),
          },
        ];
  await commitIndex(ctx, [{ collection_id: collectionId, additions, document_delta: 0 }], options);
}

/**
 * Deletes documents from every feature: when this has answered, no search finds them.
 *
 * @param documentDelta how many of them could be seen, negative
 * @throws as `commitIndex`
 */
export async function deleteRows(
  ctx: NsCtx,
  collectionId: string,
  ids: readonly string[],
  documentDelta: number,
  options: CommitOptions,
): Promise<void> {
  const tombs = ids.map((id) => ({ id }));
  const segment = await putSegment(ctx, collectionId, {
    kind: 'delta',
    dims: 0,
    metric: null,
    rows: [],
    tombs,
  });
  await commitIndex(
    ctx,
    [{ collection_id: collectionId, additions: [{ every: true, segment }], document_delta: documentDelta }],
    options,
  );
}
