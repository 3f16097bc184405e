// The removal of a namespace that was deleted: its batches stopped, its rows, its objects in the three buckets, its
// tasks; in bounded turns that may be repeated and interrupted. A tombstone stays for 30 days.
import { dropCopies } from '../../backends/drop.ts';
import { copyBackends } from '../../backends/index-tasks.ts';
import { toVectorIndex } from '../../backends/of-namespace.ts';
import { isoTime } from '../../clock.ts';
import type { NsCtx } from '../../context.ts';
import { now } from '../../context.ts';
import { crash } from '../../crash.ts';
import { isAppError } from '../../errors.ts';
import type { Job } from '../../events.ts';
import type { Blobs } from '../../store/blobs.ts';
import { dueAttributes, type ResourceKind, resourceKinds } from '../../store/keys.ts';
import type { Item, Key } from '../../store/table.ts';
import { ConditionFailed, queryAll } from '../../store/table.ts';
import { cancelBatch, listBatches } from '../batches/service.ts';

export { runMigration } from './migrate.ts';

export type NamespaceJob = Extract<Job, { kind: 'namespace_delete' }>;

/** Rows and objects that one turn removes: well within the step's five minutes. */
const itemsPerTurn = 5_000;
/** A chunk that ran when the namespace was deleted may still write for as long as its Lambda lives. */
const lateWorkMs = 3_600_000;
const tombstoneSeconds = 30 * 86_400;

/** Where objects of a namespace are; a test compares this with the keys that the slices make. */
export const objectPrefixes = {
  blobs: [
    'objects/',
    'uploads/',
    'documents/',
    'batches/',
    'runs/',
    'runinputs/',
    'exports/',
    'imports/',
    'taxonomies/',
    'queries/',
  ],
  archives: ['uploads/', 'plugins/'],
  index: [''],
} as const;

export interface DeletionProgress {
  /** False: there is more, call again. */
  readonly done: boolean;
  readonly removed: number;
}

/** Counts what a turn removes and says when it has done enough. */
class Budget {
  #left: number;
  readonly #size: number;

  constructor(size: number) {
    this.#left = size;
    this.#size = size;
  }

  get spent(): boolean {
    return this.#left <= 0;
  }

  get removed(): number {
    return this.#size - this.#left;
  }

  /** At most this many more, and no more than `max`. */
  room(max: number): number {
    return Math.max(1, Math.min(this.#left, max));
  }

  take(count: number): void {
    this.#left -= count;
  }
}

/** What has to be looked at once more when late work has ended. */
interface LateWork {
  readonly collection_ids: readonly string[];
  readonly receipts: readonly { readonly batch_id: string; readonly attempt: number }[];
}

/**
 * One turn of the removal.
 *
 * The first turn stops batches and notes what they may still write; when everything is gone the row becomes a
 * tombstone, which the sweeper brings back here an hour later, for whatever came in between.
 *
 * @returns whether nothing is left
 */
export async function removeNamespace(
  ctx: NsCtx,
  job: NamespaceJob,
  options: { readonly itemsPerTurn?: number } = {},
): Promise<DeletionProgress> {
  const key = ctx.org.namespace(ctx.ns.namespaceId);
  const row = await ctx.ports.table.get(key);
  // Active: nobody deleted it, whatever the job says. Missing: it never was, or its tombstone is gone.
  if (row?.state !== 'deleting') return { done: true, removed: 0 };
  const budget = new Budget(options.itemsPerTurn ?? itemsPerTurn);
  const late = await noteLateWork(ctx, job, key, row);
  const finished = () => ({ done: false, removed: budget.removed });
  if (!(await dropLateRows(ctx, late, budget))) return finished();
  if (!(await dropResources(ctx, budget))) return finished();
  crash('namespace.delete.after_rows');
  for (const backend of copyBackends(toVectorIndex(row))) await dropCopies(ctx, backend);
  crash('namespace.delete.after_copies');
  if (!(await dropObjects(ctx, budget))) return finished();
  crash('namespace.delete.after_objects');
  if (!(await dropTasks(ctx, budget))) return finished();
  await bury(ctx, job, key, row);
  return { done: true, removed: budget.removed };
}

/** Stops what runs, and writes down once which partitions late workers may still write to. */
async function noteLateWork(ctx: NsCtx, job: NamespaceJob, key: Key, row: Item): Promise<LateWork> {
  if (row.late_work !== undefined) return JSON.parse(String(row.late_work)) as LateWork;
  const receipts: LateWork['receipts'][number][] = [];
  for (const bucketId of await idsOf(ctx, 'BUCKET')) {
    for (const batch of await listBatches(ctx, bucketId)) {
      if (batch.status !== 'PENDING' && batch.status !== 'PROCESSING' && batch.status !== 'DRAFT') continue;
      receipts.push({ batch_id: batch.batch_id, attempt: batch.attempt });
      await stop(ctx, bucketId, batch.batch_id);
    }
  }
  const late: LateWork = {
    collection_ids: await idsOf(ctx, 'COLLECTION'),
    receipts: receipts.slice(0, 1_000),
  };
  // Should the workflow die for good, the sweeper starts another.
  const again = dueAttributes(ctx.ns.namespaceId, isoTime(now(ctx) + lateWorkMs));
  await ctx.ports.table.write([
    {
      update: key,
      set: { late_work: JSON.stringify(late), watch_job: JSON.stringify(job), ...again },
      if: [{ attribute: 'state', eq: 'deleting' }],
    },
  ]);
  return late;
}

async function stop(ctx: NsCtx, bucketId: string, batchId: string): Promise<void> {
  try {
    await cancelBatch(ctx, bucketId, batchId);
  } catch (error) {
    // It ended by itself, or its documents are visible and go like all others.
    if (!isAppError(error, 'batch_wrong_state', 'batch_not_found')) throw error;
  }
}

async function idsOf(ctx: NsCtx, kind: ResourceKind): Promise<string[]> {
  const { pk, prefix } = ctx.ns.resources(kind);
  const ids: string[] = [];
  for await (const item of queryAll(ctx.ports.table, pk, { prefix })) ids.push(String(item.id));
  return ids;
}

/** Removes rows of one partition until none is left or the turn is over. @returns whether none is left */
async function dropRows(ctx: NsCtx, pk: string, budget: Budget, prefix?: string): Promise<boolean> {
  while (!budget.spent) {
    const { items } = await ctx.ports.table.query(pk, {
      limit: budget.room(500),
      ...(prefix === undefined ? {} : { prefix }),
    });
    if (items.length === 0) return true;
    await ctx.ports.table.writeMany(items.map((item) => ({ delete: { pk: item.pk, sk: item.sk } })));
    budget.take(items.length);
  }
  return false;
}

/** Partitions that hang on no row any more, because the row went first or the work came late. */
async function dropLateRows(ctx: NsCtx, late: LateWork, budget: Budget): Promise<boolean> {
  for (const { batch_id, attempt } of late.receipts) {
    if (!(await dropRows(ctx, ctx.ns.receipts(batch_id, attempt).pk, budget))) return false;
  }
  for (const id of late.collection_ids) {
    if (!(await dropRows(ctx, ctx.ns.head(id).pk, budget))) return false;
  }
  return dropRows(ctx, ctx.ns.children('ALERT', '*', 'EXEC').pk, budget);
}

/** The partitions that belong to one resource. */
async function partitionsOf(ctx: NsCtx, kind: ResourceKind, id: string): Promise<string[]> {
  switch (kind) {
    case 'BUCKET': {
      const receipts: string[] = [];
      const { pk, prefix } = ctx.ns.batches(id);
      for await (const item of queryAll(ctx.ports.table, pk, { prefix })) {
        for (let attempt = 1; attempt <= Number(item.attempt ?? 1); attempt++) {
          receipts.push(ctx.ns.receipts(String(item.batch_id), attempt).pk);
        }
      }
      // Batches name their receipts, so they go after them.
      return [...receipts, pk];
    }
    case 'COLLECTION':
      return [ctx.ns.head(id).pk, ctx.ns.children(kind, id, 'RUN').pk];
    case 'WEBHOOK':
      return [ctx.ns.deliveries(id).pk];
    default:
      return [ctx.ns.children(kind, id, 'RUN').pk];
  }
}

/** Every resource with what hangs on it, the resource's own row last: until then a repetition finds the way to it. */
async function dropResources(ctx: NsCtx, budget: Budget): Promise<boolean> {
  for (const kind of resourceKinds) {
    if (kind === 'UPLOAD') continue; // Nothing hangs on an upload.
    for (const id of await idsOf(ctx, kind)) {
      for (const pk of await partitionsOf(ctx, kind, id)) {
        if (!(await dropRows(ctx, pk, budget))) return false;
      }
      // The name of a function of its own follows from the id, so it need not be known whether there is one.
      if (kind === 'PLUGIN') await ctx.ports.imageFunctions?.remove(ctx.ns.namespaceId, id);
      await ctx.ports.table.writeMany([{ delete: ctx.ns.resource(kind, id) }]);
      budget.take(1);
      if (budget.spent) return false;
    }
  }
  for await (const item of queryAll(ctx.ports.table, ctx.ns.pk, { prefix: 'PURGE#' })) {
    if (!(await dropRows(ctx, ctx.ns.head(String(item.collection_id)).pk, budget))) return false;
  }
  // Names, edges and uploads.
  return dropRows(ctx, ctx.ns.pk, budget);
}

async function dropObjects(ctx: NsCtx, budget: Budget): Promise<boolean> {
  const { blobs, archives, index } = ctx.ports;
  const stores: readonly (readonly [Blobs, readonly string[]])[] = [
    [blobs, objectPrefixes.blobs],
    [archives, objectPrefixes.archives],
    [index, objectPrefixes.index],
  ];
  for (const [store, prefixes] of stores) {
    for (const prefix of prefixes) {
      if (!(await dropUnder(store, `${prefix}${ctx.ns.namespaceId}/`, budget))) return false;
    }
  }
  return true;
}

async function dropUnder(store: Blobs, prefix: string, budget: Budget): Promise<boolean> {
  while (!budget.spent) {
    const { blobs } = await store.list(prefix);
    if (blobs.length === 0) return true;
    const some = blobs.slice(0, budget.room(blobs.length));
    for (let i = 0; i < some.length; i += 16) {
      await Promise.all(some.slice(i, i + 16).map((blob) => store.delete(blob.key)));
    }
    budget.take(some.length);
  }
  return false;
}

/** Tasks are the organisation's; those of the namespace go with it. */
async function dropTasks(ctx: NsCtx, budget: Budget): Promise<boolean> {
  const { pk, prefix } = ctx.org.tasks();
  let after: Key | undefined;
  do {
    const page = await ctx.ports.table.query(pk, { prefix, limit: 500, after });
    const own = page.items.filter((item) => item.namespace_id === ctx.ns.namespaceId);
    if (own.length > 0)
      await ctx.ports.table.writeMany(own.map((item) => ({ delete: { pk: item.pk, sk: item.sk } })));
    budget.take(own.length);
    after = page.next;
  } while (after && !budget.spent);
  return after === undefined;
}

/** The row becomes a tombstone; the second time, after late work has ended, it is left to expire. */
async function bury(ctx: NsCtx, job: NamespaceJob, key: Key, row: Item): Promise<void> {
  const nowMs = now(ctx);
  const deletedAt = row.deleted_at as string | undefined;
  if (deletedAt !== undefined && Date.parse(deletedAt) + lateWorkMs > nowMs) return;
  const set = {
    deleted_at: isoTime(nowMs),
    expires_at: Math.floor(nowMs / 1000) + tombstoneSeconds,
    watch_job: JSON.stringify(job),
    ...dueAttributes(ctx.ns.namespaceId, isoTime(nowMs + lateWorkMs)),
  };
  try {
    await ctx.ports.table.write([
      deletedAt === undefined
        ? {
            update: key,
            set,
            if: [
              { attribute: 'deleted_at', missing: true },
              { attribute: 'state', eq: 'deleting' },
            ],
          }
        : {
            update: key,
            remove: ['due_pk', 'due_at', 'watch_job', 'late_work'],
            if: [{ attribute: 'deleted_at', eq: deletedAt }],
          },
    ]);
  } catch (error) {
    if (!(error instanceof ConditionFailed)) throw error; // A repetition of this turn was faster.
  }
}
