// Where the objects of an index lie in the index bucket.
import type { NsCtx } from '../context.ts';
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
