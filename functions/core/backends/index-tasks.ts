// Work on copies that commits and deletions ask for, as tasks of the index worker.
import { isoTime } from '../clock.ts';
import type { NsCtx } from '../context.ts';
import type { IndexJob, IndexTask } from '../events.ts';
import { dueTask, type IndexTaskRun } from '../store/index-jobs/task.ts';
import { dueAttributes } from '../store/keys.ts';
import { enqueue } from '../store/outbox.ts';
import type { Write } from '../store/table.ts';
import { dropCopies } from './drop.ts';
import { readVectorIndex, type VectorIndex, vectorIndexOf } from './of-namespace.ts';
import { type CopyBackendName, describe } from './registry.ts';
import { syncCollection } from './sync.ts';

/** A burst of commits is synced once; until then their rows are scanned. */
const syncDelayMs = 30_000;
/** Deletions can wait for more of their kind. */
const deletionDelayMs = 10 * 60_000;
/** When somebody else works on the copy. */
const busyMs = 60_000;

function jobOf(ctx: NsCtx, task: IndexTask, collectionId: string): IndexJob {
  return {
    kind: 'index',
    task,
    org_id: ctx.principal.orgId,
    namespace_id: ctx.ns.namespaceId,
    collection_id: collectionId,
    request_id: ctx.requestId,
  };
}

/** The backends that hold, or may hold, copies of the namespace. */
export function copyBackends({ backend, migration, dropping }: VectorIndex): CopyBackendName[] {
  const names = [backend, migration?.to, dropping].filter(
    (name): name is CopyBackendName => name !== undefined && name !== null && name !== 'segments',
  );
  return [...new Set(names)];
}

/**
 * The writes by which a commit asks for a sync, for its own transaction; none where the namespace has no copies.
 *
 * They replace a request that waits already, and keep its time: a stream of commits does not put the sync off. A run
 * that is under way finds its own request gone when it ends, so it leaves the new one, and nothing is missed.
 */
export async function requestSync(ctx: NsCtx, collectionIds: readonly string[]): Promise<Write[]> {
  const { backend } = await vectorIndexOf(ctx);
  return backend === 'segments' ? [] : syncRows(ctx, collectionIds, syncDelayMs);
}

/**
 * Asks for a sync after small commits, which share transactions and so cannot put the same row. Should it not be
 * asked, nothing is wrong: what the copy does not know of deletions is dropped from its candidates.
 */
export async function askForSync(ctx: NsCtx, collectionId: string): Promise<void> {
  const { backend } = await vectorIndexOf(ctx);
  if (backend === 'segments') return;
  await ctx.ports.table.write(await syncRows(ctx, [collectionId], deletionDelayMs));
}

/** As `requestSync`, whatever the namespace's backend. */
export async function syncRows(
  ctx: NsCtx,
  collectionIds: readonly string[],
  delayMs: number,
): Promise<Write[]> {
  const keys = collectionIds.map((id) => ctx.ns.indexWork(id, 'sync'));
  const waiting = await ctx.ports.table.getMany(keys);
  const wanted = isoTime(ctx.ports.clock.now() + delayMs);
  return collectionIds.map((id, i) => {
    const known = waiting[i]?.due_at;
    const due = typeof known === 'string' && known < wanted ? known : wanted;
    return {
      put: {
        ...keys[i]!,
        watch_job: JSON.stringify(jobOf(ctx, 'sync', id)),
        ...dueAttributes(`${id}.sync`, due),
      },
    };
  });
}

/** The writes by which the deletion of a collection asks for the removal of its copies. */
export async function requestDrop(ctx: NsCtx, collectionId: string): Promise<Write[]> {
  if (copyBackends(await vectorIndexOf(ctx)).length === 0) return [];
  return [enqueue(ctx, jobOf(ctx, 'drop_copies', collectionId), collectionId)];
}

/** Brings the copies of a collection up to date. */
export const sync: IndexTaskRun = dueTask('sync', async (ctx, collectionId, untilMs) => {
  const { backend } = await readVectorIndex(ctx);
  if (backend === 'segments') return {};
  const result = await syncCollection(ctx, collectionId, backend, { untilMs });
  ctx.ports.log.info('copies of a collection were synced', {
    collection_id: collectionId,
    backend: describe(backend).title,
    ...result,
  });
  if (result.done) return {};
  return { againMs: ctx.ports.clock.now() + (result.busy ? busyMs : 0) };
});

/** Removes the copies of a collection that was deleted. */
export const dropCollectionCopies: IndexTaskRun = async (ctx, { collection_id }) => {
  if (await ctx.ports.table.get(ctx.ns.resource('COLLECTION', collection_id))) return;
  for (const backend of copyBackends(await readVectorIndex(ctx)))
    await dropCopies(ctx, backend, { collectionId: collection_id });
};
