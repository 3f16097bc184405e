// The service itself: whether it answers, and what it answers to. No key is needed.
import * as z from 'zod';
import { route } from '../../http/route.ts';
import { Timestamp } from '../../http/schemas.ts';

export const Health = z
  .object({
    status: z.literal('ok'),
    version: z.string().meta({ description: 'of Granary, as in package.json' }),
    stage: z.string(),
    time: Timestamp,
  })
  .meta({ id: 'Health' });
export type Health = z.output<typeof Health>;

/** Described loosely: the document is its own description. */
const Document = z.looseObject({
  openapi: z.string(),
  info: z.looseObject({ title: z.string(), version: z.string() }),
});

const tag = 'service';

export const routes = {
  getHealth: route({
    operation: 'getHealth',
    method: 'GET',
    path: '/v1/health',
    tag,
    summary: 'Whether the API answers, and which version it is',
    permission: 'none',
    reply: Health,
  }),
  getOpenApi: route({
    operation: 'getOpenApi',
    method: 'GET',
    path: '/v1/openapi.json',
    tag,
    summary: 'This document: OpenAPI 3.1, every path, field and error',
    permission: 'none',
    reply: Document,
  }),
};
