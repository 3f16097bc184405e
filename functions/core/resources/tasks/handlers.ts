// Requests about tasks -> service calls -> replies.
import type { Ctx } from '../../context.ts';
import type { Handlers } from '../../http/handler.ts';
import type { ListInput } from '../../page.ts';
import { mergeListInput, pageOfAll } from '../../page.ts';
import type { routes, Task } from './contract.ts';
import type { TaskView } from './service.ts';
import { getTask, listTasks } from './service.ts';

function toTask({ task, status, error, outputs, progress, updated_at }: TaskView): Task {
  return {
    task_id: task.task_id,
    task_type: task.task_type,
    status,
    namespace_id: task.namespace_id,
    inputs: [],
    outputs: outputs as Task['outputs'],
    additional_data: {
      ...task.target,
      ...(progress ? { progress: progress as Task['outputs'][number] } : {}),
    },
    error,
    created_at: task.created_at,
    updated_at,
  };
}

async function page(
  ctx: Ctx,
  input: ListInput,
  wanted: { status?: string | null | undefined; task_type?: string | null | undefined } = {},
) {
  const rows = (await listTasks(ctx))
    .map(toTask)
    .filter((task) => !wanted.status || task.status === wanted.status)
    .filter((task) => !wanted.task_type || task.task_type === wanted.task_type);
  return pageOfAll(ctx, `tasks ${wanted.status ?? ''} ${wanted.task_type ?? ''}`, rows, input, [
    'task_id',
    'task_type',
  ]);
}

export const handlers: Handlers<typeof routes> = {
  listTasks: ({ ctx, query }) => page(ctx, query),
  searchTasks: ({ ctx, query, body }) => page(ctx, mergeListInput(query, body), body),
  getTask: async ({ ctx, params }) => toTask(await getTask(ctx, params.task!)),
};
