// The move of a namespace to another vector backend, in turns that may be repeated and interrupted: copy every
// feature, compare the counts, switch by one conditional write, remove the copies that nobody asks any more.
import type { VectorBackend } from '../../backends/backend.ts';
import { BackendError } from '../../backends/backend.ts';
import { readCopies } from '../../backends/copy-state.ts';
import { dropCopies } from '../../backends/drop.ts';
import { syncRows } from '../../backends/index-tasks.ts';
import {
  backendOf,
  fromVectorIndex,
  settingKeptMs,
  toVectorIndex,
  type VectorIndex,
} from '../../backends/of-namespace.ts';
import type { BackendName, CopyBackendName } from '../../backends/registry.ts';
import { backendFault, copiedFeatures, syncCollection } from '../../backends/sync.ts';
import { isoTime } from '../../clock.ts';
import type { NsCtx } from '../../context.ts';
import { now } from '../../context.ts';
import { crash } from '../../crash.ts';
import { AppError, isAppError } from '../../errors.ts';
import type { IndexJob } from '../../events.ts';
import { audit } from '../../store/audit.ts';
import { dueAttributes } from '../../store/keys.ts';
import type { Attribute, Item, Write } from '../../store/table.ts';
import { ConditionFailed, queryAll } from '../../store/table.ts';
import { openIndex } from '../../store/vector-index.ts';

/** How long a job about a migration may be lost before it is sent again; longer than a run of the worker. */
export const migrationWatchMs = 16 * 60_000;
/** Time between the last piece of work and the end of the Lambda. */
const endingMs = 120_000;
const writeTries = 20;
const keepSeconds = 30 * 86_400;

export function migrationJob(ctx: NsCtx, runId: string): IndexJob {
  return {
    kind: 'index',
    task: 'migrate',
    org_id: ctx.principal.orgId,
    namespace_id: ctx.ns.namespaceId,
    collection_id: '*',
    run_id: runId,
    request_id: ctx.requestId,
  };
}

/** The row of a move; its task shows `status` and `error_message`. */
interface Run {
  readonly run_id: string;
  readonly from: BackendName;
  readonly to: BackendName;
  readonly status: 'PENDING' | 'PROCESSING' | 'COMPLETED' | 'FAILED';
}

/**
 * One turn of a move. Where it is not done the row is due again, and the sweeper sends the next turn.
 *
 * @param untilMs when the Lambda ends
 */
export async function runMigration(ctx: NsCtx, job: IndexJob, untilMs: number): Promise<void> {
  const key = ctx.ns.migration(job.run_id!);
  const row = (await ctx.ports.table.get(key)) as (Item & Run) | undefined;
  if (!row) return;
  const stopMs = untilMs - endingMs;
  const { index } = await readNamespace(ctx);
  if (!index) return; // The namespace is deleted, and its copies go with it.
  if (index.migration?.run_id === row.run_id) {
    await note(ctx, row, { status: 'PROCESSING' }, migrationWatchMs);
    try {
      if (!(await copyAll(ctx, row.to, stopMs))) return await note(ctx, row, {}, 0);
      crash('vector_index.migrate.before_switch');
      await leave(ctx, row, { ...index, backend: row.to, migration: null, dropping: copyOrNone(row.from) });
    } catch (error) {
      // A backend that is down or throttles will be up again: the next turn goes on where this one stopped.
      if (!isAppError(error, 'vector_copy_differs', 'vector_backend_not_enabled')) {
        await note(ctx, row, {}, 60_000);
        throw error;
      }
      const back = { ...index, migration: null, dropping: copyOrNone(row.to) };
      await leave(ctx, row, back, error);
    }
    crash('vector_index.migrate.after_switch');
    return;
  }
  if (row.due_at === undefined) return;
  await dropLeft(ctx, row, index);
}

function copyOrNone(name: BackendName): CopyBackendName | null {
  return name === 'segments' ? null : name;
}

async function collectionIds(ctx: NsCtx): Promise<string[]> {
  const { pk, prefix } = ctx.ns.resources('COLLECTION');
  const ids: string[] = [];
  for await (const item of queryAll(ctx.ports.table, pk, { prefix })) ids.push(String(item.id));
  return ids;
}

/** Copies and counts every feature. @returns false if the time is over or somebody else works on a copy */
async function copyAll(ctx: NsCtx, to: BackendName, stopMs: number): Promise<boolean> {
  if (to === 'segments') return true;
  const backend = backendOf(ctx, to);
  for (const id of await collectionIds(ctx)) {
    if (!(await syncCollection(ctx, id, to, { untilMs: stopMs })).done) return false;
  }
  crash('vector_index.migrate.after_copy');
  for (const id of await collectionIds(ctx)) {
    if (await isComplete(ctx, id, to, backend)) continue;
    const again = await syncCollection(ctx, id, to, { untilMs: stopMs, everything: true });
    if (!again.done) return false;
    if (!(await isComplete(ctx, id, to, backend))) {
      throw new AppError('vector_copy_differs', {
        detail: `After two comparisons ${to} still does not hold as many rows of ${id} as the index; nothing was switched.`,
      });
    }
  }
  return true;
}

/** Whether the backend holds as many rows of each feature as the index had when it was copied. */
async function isComplete(
  ctx: NsCtx,
  collectionId: string,
  to: CopyBackendName,
  backend: VectorBackend,
): Promise<boolean> {
  const { manifest } = await openIndex(ctx, collectionId);
  const copies = (await readCopies(ctx, collectionId)).find((copy) => copy.backend === to);
  for (const [uri, { dims, metric }] of copiedFeatures(manifest, to)) {
    const copy = copies?.features[uri];
    // A feature that came with a commit just now is copied by the sync after it, and scanned until then.
    if (!copy || copy.version === 0) continue;
    const index = {
      namespace_id: ctx.ns.namespaceId,
      collection_id: collectionId,
      feature_uri: uri,
      dims,
      metric: metric!,
    };
    try {
      if ((await backend.count(index)) !== copy.rows) return false;
    } catch (error) {
      throw error instanceof BackendError ? backendFault(error) : error;
    }
  }
  return true;
}

async function readNamespace(
  ctx: NsCtx,
): Promise<{ readonly index: VectorIndex | undefined; readonly revision: number }> {
  const row = await ctx.ports.table.get(ctx.org.namespace(ctx.ns.namespaceId));
  const isActive = row?.state === 'active';
  return { index: isActive ? toVectorIndex(row) : undefined, revision: Number(row?.revision ?? 0) };
}

/** The change of the namespace's setting, from the state that was read. */
function settingWrite(ctx: NsCtx, next: VectorIndex, revision: number): Write {
  return {
    update: ctx.org.namespace(ctx.ns.namespaceId),
    set: {
      vector_index: fromVectorIndex(next),
      revision: revision + 1,
      updated_at: isoTime(now(ctx)),
    },
    if: [
      { attribute: 'revision', eq: revision },
      { attribute: 'state', eq: 'active' },
    ],
  };
}

/** Ends a move, well or badly: setting, run and what is left to do in one transaction. */
async function leave(ctx: NsCtx, row: Item & Run, next: VectorIndex, failure?: AppError): Promise<void> {
  const time = isoTime(now(ctx));
  const ended: Record<string, Attribute> = {
    status: failure ? 'FAILED' : 'COMPLETED',
    error_message: failure?.detail ?? null,
    completed_at: time,
    updated_at: time,
    expires_at: Math.floor(now(ctx) / 1000) + keepSeconds,
  };
  const ids = failure || row.to === 'segments' ? [] : (await collectionIds(ctx)).slice(0, 90);
  for (let attempt = 0; attempt < writeTries; attempt++) {
    const { index, revision } = await readNamespace(ctx);
    if (index?.migration?.run_id !== row.run_id) return; // Somebody else ended it, or the namespace is deleted.
    // Environments that still act on the older setting find its copies until their memory of it has run out.
    const dropDue = dueAttributes(row.run_id, isoTime(now(ctx) + 2 * settingKeptMs));
    try {
      await ctx.ports.table.write([
        settingWrite(ctx, next, revision),
        {
          update: ctx.ns.migration(row.run_id),
          set: { ...ended, ...(next.dropping === null ? {} : dropDue) },
          ...(next.dropping === null ? { remove: ['due_pk', 'due_at', 'watch_job'] } : {}),
          if: [{ present: true }],
        },
        audit(
          ctx,
          failure ? 'namespace.vector_index.stay' : 'namespace.vector_index.switch',
          ctx.ns.namespaceId,
        ),
        // What environments with the older setting commit meanwhile asks for no sync.
        ...(await syncRows(ctx, ids, 2 * settingKeptMs)),
      ]);
      return;
    } catch (error) {
      if (!(error instanceof ConditionFailed)) throw error;
    }
  }
  throw new AppError('index_contended', {
    detail: `The namespace ${ctx.ns.namespaceId} is being changed by too many at once.`,
    retryAfterSeconds: 5,
  });
}

/** Removes the copies in the backend that was left, then its name from the setting. */
async function dropLeft(ctx: NsCtx, row: Item & Run, index: VectorIndex): Promise<void> {
  const left = index.dropping;
  if (left !== null) {
    if (String(row.due_at) > isoTime(now(ctx))) return; // Too early: some environment may still ask it.
    await note(ctx, row, {}, migrationWatchMs);
    await dropCopies(ctx, left, { collectionIds: await collectionIds(ctx) });
    crash('vector_index.migrate.after_drop');
  }
  for (let attempt = 0; attempt < writeTries; attempt++) {
    const { index: current, revision } = await readNamespace(ctx);
    if (!current) return;
    try {
      await ctx.ports.table.write([
        ...(current.dropping === left && left !== null
          ? [settingWrite(ctx, { ...current, dropping: null }, revision)]
          : []),
        {
          update: ctx.ns.migration(row.run_id),
          remove: ['due_pk', 'due_at', 'watch_job'],
          if: [{ present: true }],
        },
      ]);
      return;
    } catch (error) {
      if (!(error instanceof ConditionFailed)) throw error;
    }
  }
}

/** Notes the state of a run and when it is looked at next. */
async function note(
  ctx: NsCtx,
  row: Item & Run,
  set: Readonly<Record<string, Attribute>>,
  inMs: number,
): Promise<void> {
  await ctx.ports.table.write([
    {
      update: ctx.ns.migration(row.run_id),
      set: { ...set, updated_at: isoTime(now(ctx)), due_at: isoTime(now(ctx) + inMs) },
      if: [{ present: true }],
    },
  ]);
}
