// The rules of tasks: one view over everything that runs in the background.
import type { Ctx } from '../../context.ts';
import { AppError } from '../../errors.ts';
import { scanRowsMax } from '../../page.ts';
import type { Attribute, Item } from '../../store/table.ts';
import type { StoredTask } from './store.ts';
import { findTask, listTaskRows, targetKey } from './store.ts';

export type { StoredTask, TaskTarget, TaskType } from './store.ts';
export { createTask } from './store.ts';

export const taskStatuses = [
  'DRAFT',
  'PENDING',
  'PROCESSING',
  'COMPLETED',
  'FAILED',
  'CANCELED',
  'UNKNOWN',
] as const;
export type TaskStatus = (typeof taskStatuses)[number];

export interface TaskView {
  readonly task: StoredTask;
  /** UNKNOWN: the run was deleted, or has expired. */
  readonly status: TaskStatus;
  readonly error: string | null;
  /** What the run says that it has made, and how far it is, where it says so. */
  readonly outputs: readonly { readonly [name: string]: Attribute }[];
  readonly progress: { readonly [name: string]: Attribute } | null;
  readonly updated_at: string;
}

function view(task: StoredTask, run: Item | undefined): TaskView {
  const given = String(run?.status ?? 'UNKNOWN').toUpperCase();
  const status = taskStatuses.find((known) => known === given) ?? 'UNKNOWN';
  const error =
    status === 'FAILED' ? (run?.failure_detail ?? run?.error_message ?? run?.message ?? null) : null;
  return {
    task,
    status,
    error: error === null ? null : String(error),
    outputs: (run?.task_outputs ?? []) as TaskView['outputs'],
    progress: (run?.task_progress ?? null) as TaskView['progress'],
    updated_at: String(run?.updated_at ?? run?.completed_at ?? task.created_at),
  };
}

function isAllowed(ctx: Ctx, task: StoredTask): boolean {
  return !ctx.principal.namespaceIds || ctx.principal.namespaceIds.includes(task.namespace_id);
}

/** @throws AppError task_not_found */
export async function getTask(ctx: Ctx, taskId: string): Promise<TaskView> {
  const task = await findTask(ctx, taskId);
  if (!task || !isAllowed(ctx, task))
    throw new AppError('task_not_found', { detail: `No task "${taskId.slice(0, 120)}".` });
  return view(task, await ctx.ports.table.get(targetKey(ctx, task)));
}

/** Those that the key may see, newest first; 10,000 at most, with a warning beyond. */
export async function listTasks(ctx: Ctx): Promise<TaskView[]> {
  const rows = await listTaskRows(ctx, scanRowsMax);
  if (rows.length >= scanRowsMax) ctx.warnings.push(`Only the newest ${scanRowsMax} tasks were looked at.`);
  const tasks = rows.filter((task) => isAllowed(ctx, task));
  const runs = await ctx.ports.table.getMany(tasks.map((task) => targetKey(ctx, task)));
  return tasks.map((task, i) => view(task, runs[i]));
}
