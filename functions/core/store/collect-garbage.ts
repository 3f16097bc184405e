// Deletes what no version of an index names any more.
import type { NsCtx } from '../context.ts';
import { crash } from '../crash.ts';
import { collectableKeys, forgetRetired, keysOf, type Manifest } from '../vectors/manifest.ts';
import { indexPrefix } from './index-keys.ts';
import { openIndex } from './open-index.ts';

/** What no version names any more is deleted after this: no reader can still hold it (decisions, section 1). */
export const garbageMs = 48 * 3600 * 1000;

/** A manifest that does not list what was retired or replaced long ago: the collector deletes what nothing names. */
export function forgetOld(manifest: Manifest, nowMs: number): Manifest {
  const { history } = manifest;
  const old = collectableKeys(manifest, nowMs, garbageMs);
  const kept = old.length === 0 ? manifest : forgetRetired(manifest, old);
  return {
    ...kept,
    version: manifest.version,
    ...(history ? { history: history.filter(({ since_ms }) => since_ms > nowMs - garbageMs) } : {}),
  };
}

export interface GarbageReport {
  /** Objects that were deleted. */
  readonly removed: number;
  /**
   * When the next objects that nothing names can be deleted, in milliseconds since 1970; undefined if there are none.
   * Says nothing of objects that are named now and may not be later.
   */
  readonly nextMs?: number;
}

/** Objects that are deleted at the same time. */
const parallelDeletes = 16;

/**
 * Deletes segments, dead-row lists and manifests that were stored more than 48 hours ago and that nothing names:
 * replaced, or left behind by writers that died. Lists first and reads the head after, so what is committed meanwhile
 * is named; what was stored more than 24 hours ago is never committed.
 *
 * Safe to repeat, to interrupt and to run twice at a time.
 *
 * @param options.untilMs ends early at this time, in milliseconds since 1970; then `nextMs` is now
 * @throws AppError index_unavailable, index_corrupt, storage_*
 */
export async function sweepIndex(
  ctx: NsCtx,
  collectionId: string,
  options: { readonly untilMs?: number } = {},
): Promise<GarbageReport> {
  const { index, clock } = ctx.ports;
  const { untilMs = Number.POSITIVE_INFINITY } = options;
  const before = clock.now() - garbageMs;
  const old: string[] = [];
  const young: { readonly key: string; readonly modifiedMs: number }[] = [];
  let after: string | undefined;
  do {
    const page = await index.list(indexPrefix(ctx, collectionId), after);
    for (const { key, modifiedMs } of page.blobs) {
      if (modifiedMs < before) old.push(key);
      else young.push({ key, modifiedMs });
    }
    after = page.next;
  } while (after !== undefined);
  if (old.length + young.length === 0) return { removed: 0 };
  crash('index.collect.after_list');
  const { head, manifest } = await openIndex(ctx, collectionId);
  const named = keysOf(forgetOld(manifest, clock.now()));
  if (head.manifest_key !== null) named.add(head.manifest_key);
  const gone = old.filter((key) => !named.has(key));
  let removed = 0;
  while (removed < gone.length) {
    if (clock.now() >= untilMs) return { removed, nextMs: clock.now() };
    const some = gone.slice(removed, removed + parallelDeletes);
    await Promise.all(some.map((key) => index.delete(key)));
    removed += some.length;
    crash('index.collect.after_delete');
  }
  let oldest = Number.POSITIVE_INFINITY;
  for (const { key, modifiedMs } of young) if (!named.has(key)) oldest = Math.min(oldest, modifiedMs);
  return oldest === Number.POSITIVE_INFINITY ? { removed } : { removed, nextMs: oldest + garbageMs };
}

/** As `sweepIndex`. @returns how many objects were deleted */
export async function collectGarbage(ctx: NsCtx, collectionId: string): Promise<number> {
  return (await sweepIndex(ctx, collectionId)).removed;
}
