// Tasks: background work of the whole organisation, each with the status of the run behind it.
import * as z from 'zod';
import { route } from '../../http/route.ts';
import { ListBody, ListQuery, listReply, Timestamp } from '../../http/schemas.ts';

const Status = z.enum(['DRAFT', 'PENDING', 'PROCESSING', 'COMPLETED', 'FAILED', 'CANCELED', 'UNKNOWN']);

export const Task = z
  .object({
    task_id: z.string(),
    task_type: z.string(),
    status: Status,
    namespace_id: z.string(),
    inputs: z.array(z.record(z.string(), z.json())),
    outputs: z.array(z.record(z.string(), z.json())),
    additional_data: z
      .record(z.string(), z.json())
      .meta({ description: 'ids of the run that the task stands for' }),
    error: z.string().nullable(),
    created_at: Timestamp,
    updated_at: Timestamp,
  })
  .meta({ id: 'Task' });
export type Task = z.output<typeof Task>;

const TaskListBody = z.strictObject({
  ...ListBody.shape,
  status: Status.nullish(),
  task_type: z.string().max(100).nullish(),
});

const tag = 'tasks';
const base = '/v1/tasks';

export const routes = {
  listTasks: route({
    operation: 'listTasks',
    method: 'GET',
    path: base,
    tag,
    summary: 'List tasks, newest first',
    query: ListQuery,
    reply: listReply(Task),
  }),
  searchTasks: route({
    operation: 'searchTasks',
    method: 'POST',
    path: `${base}/list`,
    tag,
    summary: 'List tasks by status, type, filter and order',
    permission: 'read',
    query: ListQuery,
    body: TaskListBody,
    bodyOptional: true,
    reply: listReply(Task),
  }),
  getTask: route({
    operation: 'getTask',
    method: 'GET',
    path: `${base}/{task}`,
    tag,
    summary: 'Read a task',
    reply: Task,
    errors: ['task_not_found'],
  }),
};
