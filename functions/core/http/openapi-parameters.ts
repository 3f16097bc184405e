// Path parameters and headers as the document names them: described once, referred to by every operation.
import type { Route } from './route.ts';
import { parameterNames } from './route.ts';

/** What a path parameter takes; one that is not listed is an id or a name. */
const parameterTexts: Readonly<Record<string, string>> = {
  namespace: 'Id (`ns_...`) or name of the namespace.',
  key: 'Id of the API key (`key_...`).',
  plugin: 'Id of the plugin version (`text_embed_1_0_0`), or `text_embed@1.0.0`.',
  secret: 'Name of the secret.',
  bucket: 'Id (`bkt_...`) or name of the bucket.',
  object: 'Id of the object (`obj_...`).',
  upload: 'Id of the upload (`upl_...`).',
  collection: 'Id (`col_...`) or name of the collection.',
  document: 'Id of the document (`doc_...`).',
  batch: 'Id of the batch (`btch_...`).',
  task: 'Id of the task (`task_...`).',
  retriever: 'Id (`ret_...`) or name of the retriever.',
  execution: 'Id of the execution (`exec_...`).',
  taxonomy: 'Id (`tax_...`) or name of the taxonomy.',
  version: 'Number of the version.',
  cluster: 'Id (`clust_...`) or name of the cluster definition.',
  run: 'Id of the run (`run_...`).',
  alert: 'Id (`alt_...`) or name of the alert.',
  webhook: 'Id (`wh_...`) or name of the webhook.',
  delivery: 'Id of the delivery (`dlv_...`).',
};

const text = { type: 'string' } as const;

/** Headers that requests may carry, by the name of their component. */
const requestHeaders = {
  IdempotencyKey: {
    name: 'Idempotency-Key',
    in: 'header',
    required: false,
    description:
      '1 to 255 printable characters, fresh for each request; a repetition within 24 hours gets the first answer again.',
    schema: { type: 'string', minLength: 1, maxLength: 255 },
  },
  IfMatch: {
    name: 'If-Match',
    in: 'header',
    required: false,
    description: 'The ETag of a GET; the change is refused with 412 when there is a newer version.',
    schema: text,
  },
  RequestId: {
    name: 'X-Request-Id',
    in: 'header',
    required: false,
    description: 'Your own id of the request; it comes back in the answer, in logs, events and webhooks.',
    schema: { type: 'string', pattern: '^[A-Za-z0-9_-]{1,64}$' },
  },
} as const;

/** Headers that answers carry, by the name of their component. */
export const headerComponents = {
  RequestId: { description: 'The id of the request, as in every log line about it.', schema: text },
  RateLimit: {
    description: 'Requests a minute that the key may make in this class.',
    schema: { type: 'integer' },
  },
  RateLimitRemaining: { description: 'Requests that are left in this minute.', schema: { type: 'integer' } },
  RateLimitReset: {
    description: 'Seconds since the epoch at which the minute ends.',
    schema: { type: 'integer' },
  },
  RateLimitWindow: { description: 'Length of the window in seconds.', schema: { type: 'integer' } },
  ETag: { description: 'The version, for If-Match.', schema: text },
  IdempotencyReplayed: {
    description: '"true" when this is the answer of an earlier request with the same Idempotency-Key.',
    schema: text,
  },
  RetryAfter: {
    description: 'Seconds after which the same request may succeed.',
    schema: { type: 'integer' },
  },
} as const;

const headerRef = (name: keyof typeof headerComponents) => ({ $ref: `#/components/headers/${name}` });
const parameterRef = (name: string) => ({ $ref: `#/components/parameters/${name}` });
const componentName = (parameter: string) => `path_${parameter}`;

/** The components for every parameter that any of the routes has. */
export function parameterComponents(routes: readonly Route[]): Record<string, unknown> {
  const names = [...new Set(routes.flatMap((route) => parameterNames(route.path)))].sort();
  const paths = names.map((name) => [
    componentName(name),
    {
      name,
      in: 'path',
      required: true,
      description: parameterTexts[name] ?? `Id or name of the ${name.replaceAll('_', ' ')}.`,
      schema: text,
    },
  ]);
  return { ...Object.fromEntries(paths), ...requestHeaders };
}

/** References to the parameters of a route, without its query. */
export function parametersOf(route: Route): { readonly $ref: string }[] {
  return [
    ...parameterNames(route.path).map((name) => parameterRef(componentName(name))),
    parameterRef('RequestId'),
    ...(route.method === 'POST' ? [parameterRef('IdempotencyKey')] : []),
    ...(route.errors.includes('request_stale') ? [parameterRef('IfMatch')] : []),
  ];
}

const rateHeaders = {
  'X-RateLimit-Limit': headerRef('RateLimit'),
  'X-RateLimit-Remaining': headerRef('RateLimitRemaining'),
  'X-RateLimit-Reset': headerRef('RateLimitReset'),
  'X-RateLimit-Window': headerRef('RateLimitWindow'),
};

/** @param versioned whether what the path names has versions, so that answers carry an ETag */
export function replyHeaders(route: Route, versioned: boolean): Record<string, { readonly $ref: string }> {
  return {
    'X-Request-Id': headerRef('RequestId'),
    ...(route.permission === 'none' ? {} : rateHeaders),
    ...(versioned && route.method !== 'DELETE' ? { ETag: headerRef('ETag') } : {}),
    ...(route.method === 'POST' ? { 'Idempotency-Replayed': headerRef('IdempotencyReplayed') } : {}),
  };
}

/** @param status of an error */
export function errorHeaders(status: number): Record<string, { readonly $ref: string }> {
  return {
    'X-Request-Id': headerRef('RequestId'),
    ...(status === 429 ? rateHeaders : {}),
    ...([409, 429, 503].includes(status) ? { 'Retry-After': headerRef('RetryAfter') } : {}),
  };
}
