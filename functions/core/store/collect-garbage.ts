// Deletes what no version of an index names any more.
import type { NsCtx } from '../context.ts';
import { collectableKeys, forgetRetired, keysOf, type Manifest } from '../vectors/manifest.ts';
import { indexPrefix } from './index-keys.ts';
import { openIndex } from './open-index.ts';

/** What no version names any more is deleted after this: no reader can still hold it (decisions, section 1). */
const garbageMs = 48 * 3600 * 1000;

/** A manifest that does not list what was retired long ago: the collector deletes what nothing names. */
export function forgetOld(manifest: Manifest, nowMs: number): Manifest {
  const old = collectableKeys(manifest, nowMs, garbageMs);
  return old.length === 0 ? manifest : { ...forgetRetired(manifest, old), version: manifest.version };
}

/**
 * Deletes segments and manifests that were stored more than 48 hours ago and that nothing names: replaced, or left
 * behind by writers that died. Lists first and reads the head after, so what is committed meanwhile is named.
 *
 * @returns how many objects were deleted
 * @throws AppError index_unavailable, index_corrupt, storage_*
 */
export async function collectGarbage(ctx: NsCtx, collectionId: string): Promise<number> {
  const { index, clock } = ctx.ports;
  const before = clock.now() - garbageMs;
  const old: string[] = [];
  let after: string | undefined;
  do {
    const page = await index.list(indexPrefix(ctx, collectionId), after);
    for (const blob of page.blobs) if (blob.modifiedMs < before) old.push(blob.key);
    after = page.next;
  } while (after !== undefined);
  if (old.length === 0) return 0;
  const { head, manifest } = await openIndex(ctx, collectionId);
  const named = keysOf(forgetOld(manifest, clock.now()));
  if (head.manifest_key !== null) named.add(head.manifest_key);
  const gone = old.filter((key) => !named.has(key));
  for (let i = 0; i < gone.length; i += 16)
    await Promise.all(gone.slice(i, i + 16).map((key) => index.delete(key)));
  return gone.length;
}
