// Where the objects of an index lie in the index bucket.
import { isoTime } from '../clock.ts';
import type { NsCtx } from '../context.ts';
import { AppError } from '../errors.ts';
import { randomCharacters } from '../ids.ts';

/** Everything that the index of a collection ever stored begins with this. */
export const indexPrefix = (ctx: NsCtx, collectionId: string): string =>
  `${ctx.ns.namespaceId}/${collectionId}/`;

/** A name that nobody has used: time, so that listings sort, and randomness. */
function freshName(ctx: NsCtx): string {
  return ctx.ports.clock.now().toString(36).padStart(9, '0') + randomCharacters(15, ctx.ports.random);
}

/** A fresh key for a segment of a collection. */
export function segmentKey(ctx: NsCtx, collectionId: string): string {
  return `${indexPrefix(ctx, collectionId)}seg/${freshName(ctx)}.vseg`;
}

/** A fresh key for the manifest of a version. */
export function manifestKey(ctx: NsCtx, collectionId: string, version: number): string {
  return `${indexPrefix(ctx, collectionId)}man/${String(version).padStart(10, '0')}-${freshName(ctx)}.json`;
}

/** A fresh key for a dead-row list. */
export function deadRowsKey(ctx: NsCtx, collectionId: string): string {
  return `${indexPrefix(ctx, collectionId)}dead/${freshName(ctx)}.dead`;
}

/** Objects that nothing names are swept after 48 hours: what is older than this may be gone before a commit ends. */
const commitWithinMs = 24 * 3600 * 1000;

/**
 * Refuses objects that were stored more than 24 hours ago, which their keys tell.
 *
 * @param keys as `segmentKey` and `deadRowsKey` made them
 * @throws AppError index_upload_expired naming the object
 */
export function checkFresh(keys: readonly string[], nowMs: number): void {
  for (const key of keys) {
    const name = key.slice(key.lastIndexOf('/') + 1);
    const storedMs = Number.parseInt(name.slice(0, 9), 36);
    if (nowMs - storedMs <= commitWithinMs) continue;
    throw new AppError('index_upload_expired', {
      detail: `${key} was stored ${isoTime(storedMs)}, more than 24 hours ago, and may be swept at any time: store it again.`,
    });
  }
}
