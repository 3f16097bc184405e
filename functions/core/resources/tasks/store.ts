// How tasks are stored: a row in the organisation that points to the run it stands for; the run says how it goes.

import { isoTime } from '../../clock.ts';
import type { Ctx } from '../../context.ts';
import type { Item, Key, Write } from '../../store/table.ts';
import { queryAll } from '../../store/table.ts';

/** What a task stands for; its row holds the status. */
export type TaskTarget =
  | { readonly kind: 'batch'; readonly bucket_id: string; readonly batch_id: string }
  | { readonly kind: 'cluster_run'; readonly cluster_id: string; readonly run_id: string }
  | { readonly kind: 'taxonomy_run'; readonly taxonomy_id: string; readonly run_id: string }
  | { readonly kind: 'transfer'; readonly collection_id: string; readonly run_id: string }
  | { readonly kind: 'vector_migration'; readonly run_id: string };

export type TaskType =
  | 'api_buckets_batches_process'
  | 'api_buckets_batches_submit'
  | 'api_buckets_batches_retry'
  | 'api_collections_trigger'
  | 'api_collections_upgrade'
  | 'engine_cluster_build'
  | 'api_taxonomies_materialize'
  | 'api_collections_export'
  | 'api_collections_import'
  | 'api_namespaces_vector_index_migrate';

export interface StoredTask {
  readonly task_id: string;
  readonly task_type: TaskType;
  readonly namespace_id: string;
  readonly target: TaskTarget;
  readonly created_at: string;
}

/**
 * The write that makes a task, for the transaction that makes its run.
 *
 * Clusters and taxonomies keep their runs as children: `ctx.ns.child('CLUSTER' | 'TAXONOMY', id, 'RUN', runId)`, with
 * `status`, and `error_message` or `message` where they have one.
 */
export function createTask(
  ctx: Ctx,
  task: {
    readonly task_id: string;
    readonly task_type: TaskType;
    readonly namespace_id: string;
    readonly target: TaskTarget;
  },
): Write {
  return { put: { ...ctx.org.task(task.task_id), ...task, created_at: isoTime(ctx.ports.clock.now()) } };
}

function toTask(item: Item): StoredTask {
  return item as unknown as StoredTask;
}

export async function findTask(ctx: Ctx, taskId: string): Promise<StoredTask | undefined> {
  const item = await ctx.ports.table.get(ctx.org.task(taskId));
  return item && toTask(item);
}

/** Newest first, at most `max`. */
export async function listTaskRows(ctx: Ctx, max: number): Promise<StoredTask[]> {
  const { pk, prefix } = ctx.org.tasks();
  const found: StoredTask[] = [];
  for await (const item of queryAll(ctx.ports.table, pk, { prefix, descending: true })) {
    found.push(toTask(item));
    if (found.length >= max) break;
  }
  return found;
}

/** The key of the row that says how a task goes. */
export function targetKey(ctx: Ctx, task: StoredTask): Key {
  const ns = ctx.org.in(task.namespace_id);
  const { target } = task;
  if (target.kind === 'batch') return ns.batch(target.bucket_id, target.batch_id);
  if (target.kind === 'cluster_run') return ns.child('CLUSTER', target.cluster_id, 'RUN', target.run_id);
  if (target.kind === 'transfer') return ns.child('COLLECTION', target.collection_id, 'RUN', target.run_id);
  if (target.kind === 'vector_migration') return ns.migration(target.run_id);
  return ns.child('TAXONOMY', target.taxonomy_id, 'RUN', target.run_id);
}
