// What the compiler must refuse. Each `@ts-expect-error` is an error of its own when the line below it compiles, so
// the level "types" of the tests fails when one of these guarantees goes. Nothing here ever runs.
import * as z from 'zod';
import type { NsCtx } from '../../functions/core/context.ts';
import type { EnvironmentOf } from '../../functions/core/env.ts';
import { AppError } from '../../functions/core/errors.ts';
import type { EventType, Job } from '../../functions/core/events.ts';
import type { Handlers, RequestOf } from '../../functions/core/http/handler.ts';
import { route } from '../../functions/core/http/route.ts';
import type { Condition, Write } from '../../functions/core/store/table.ts';

const readThing = route({
  operation: 'readThing',
  method: 'GET',
  path: '/v1/namespaces/{namespace}/things/{thing}',
  tag: 'things',
  summary: 'Read a thing',
  reply: z.object({ thing_id: z.string() }),
});
const listOrganizations = route({
  operation: 'listOrganizations',
  method: 'GET',
  path: '/v1/organizations',
  tag: 'organizations',
  summary: 'List',
  query: z.strictObject({ limit: z.coerce.number() }),
  reply: z.object({ total: z.int() }),
});
const routes = { readThing, listOrganizations };

// @ts-expect-error a route without a handler
export const missing: Handlers<typeof routes> = { readThing: async () => ({ thing_id: 'a' }) };

export const wrongReply: Handlers<typeof routes> = {
  // @ts-expect-error a reply that is not the contract's
  readThing: async () => ({ thing: 'a' }),
  listOrganizations: async () => ({ total: 1 }),
};

export function contexts(inside: RequestOf<typeof readThing>, outside: RequestOf<typeof listOrganizations>) {
  const keys: NsCtx = inside.ctx;
  // @ts-expect-error a route of the organisation has no namespace, so no keys of one
  const none: NsCtx = outside.ctx;
  // @ts-expect-error a parameter that the query does not have
  const offset: number = outside.query.offset;
  return [keys, none, offset];
}

// @ts-expect-error an error code that is not in the table
export const unknownCode = new AppError('thing_exploded');

// @ts-expect-error an event that is not in the table
export const unknownEvent: EventType = 'thing.exploded';

// @ts-expect-error a job without the namespace that it is for
export const homelessJob: Job = {
  kind: 'cluster',
  org_id: 'o',
  cluster_id: 'c',
  run_id: 'r',
  request_id: 'q',
};

// @ts-expect-error an environment without a value that the Lambda reads
export const starved: EnvironmentOf<'relay'> = {
  STAGE: 's',
  LOG_LEVEL: 'INFO',
  TABLE_NAME: 't',
  EVENT_BUS: 'b',
};

// @ts-expect-error a path that is not under the API's version
route({ operation: 'x', method: 'GET', path: '/things', tag: 't', summary: 's', reply: z.object({}) });

// @ts-expect-error a condition that no table can check
export const likes: Condition = { attribute: 'name', like: 'a%' };

// @ts-expect-error a check without a condition would check nothing
export const blank: Write = { check: { pk: 'p', sk: 's' } };
