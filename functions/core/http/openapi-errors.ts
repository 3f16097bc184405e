// Errors in the document: every code that an operation can answer with, by status, in the one envelope.
import type { ErrorCode } from '../errors.ts';
import { AppError, errorTable, wireTypes } from '../errors.ts';
import { errorHeaders } from './openapi-parameters.ts';
import { errorBody, problemBody } from './problem.ts';
import type { Route } from './route.ts';
import { isNamespaced } from './route.ts';

/** Codes that a route answers with whatever it does, beside those of its contract. */
function usualCodes(route: Route): ErrorCode[] {
  const codes: ErrorCode[] = [
    'request_invalid',
    'internal_error',
    'storage_throttled',
    'storage_unavailable',
  ];
  if (route.permission !== 'none')
    codes.push('key_invalid', 'key_not_permitted', 'key_bootstrap_only', 'request_rate_exceeded');
  if (isNamespaced(route.path))
    codes.push('namespace_not_found', 'request_namespace_missing', 'request_namespace_differs');
  if (route.body) codes.push('request_not_json', 'request_too_large', 'request_media_type');
  if (route.method === 'POST')
    codes.push('request_bad_header', 'idempotency_key_reused', 'idempotency_in_flight');
  if (route.errors.includes('request_stale')) codes.push('request_bad_header');
  if (hasCursor(route)) codes.push('request_bad_cursor');
  return codes;
}

/** Whether the route takes the cursor of a page. */
function hasCursor(route: Route): boolean {
  const { shape } = (route.query ?? {}) as { shape?: Readonly<Record<string, unknown>> };
  return shape !== undefined && 'cursor' in shape;
}

/** Every code that a route can answer with, in the order of the table, each once. */
export function errorCodesOf(route: Route): ErrorCode[] {
  const codes = new Set<ErrorCode>([...usualCodes(route), ...route.errors]);
  return (Object.keys(errorTable) as ErrorCode[]).filter((code) => codes.has(code));
}

const statusOf = (code: ErrorCode) => wireTypes[errorTable[code].type];

/** The codes of one status stand in one component, shared by every operation that has the same ones. */
function groupsOf(route: Route): Map<number, ErrorCode[]> {
  const groups = new Map<number, ErrorCode[]>();
  for (const code of errorCodesOf(route))
    groups.set(statusOf(code), [...(groups.get(statusOf(code)) ?? []), code]);
  return groups;
}

const componentName = (codes: readonly ErrorCode[]) => codes.join('.');

/** References to the error responses of a route, by status. */
export function errorResponses(route: Route): Record<string, { readonly $ref: string }> {
  const refs = [...groupsOf(route)].sort(([a], [b]) => a - b);
  return Object.fromEntries(
    refs.map(([status, codes]) => [
      String(status),
      { $ref: `#/components/responses/${componentName(codes)}` },
    ]),
  );
}

const exampleRequestId = '019b2f0e-6d1c-7c3a-9a57-1f0f4f2f8c11';

function response(status: number, codes: readonly ErrorCode[]) {
  const lines = codes.map((code) => `* \`${code}\`: ${errorTable[code].title}`);
  return {
    description: lines.join('\n'),
    headers: errorHeaders(status),
    content: {
      'application/json': {
        schema: { $ref: '#/components/schemas/Error' },
        examples: Object.fromEntries(codes.map((code) => [code, { $ref: `#/components/examples/${code}` }])),
      },
      'application/problem+json': { schema: { $ref: '#/components/schemas/Problem' } },
    },
  };
}

/** One example for each code. */
function examplesOf(codes: ReadonlySet<ErrorCode>): Record<string, unknown> {
  const all = [...codes]
    .sort()
    .map((code) => [
      code,
      { summary: errorTable[code].title, value: errorBody(new AppError(code), exampleRequestId) },
    ]);
  return Object.fromEntries(all);
}

const details = {
  code: {
    type: 'string',
    enum: Object.keys(errorTable),
    description: 'stable, never reused; see docs/errors.md',
  },
  request_id: { type: 'string' },
  retryable: { type: 'boolean', description: 'whether the same request may succeed later' },
  retry_after_seconds: { type: 'integer', minimum: 0 },
  validation_errors: {
    type: 'array',
    items: { $ref: '#/components/schemas/FieldFault' },
    description: 'every fault of the request at once',
  },
} as const;

const schemas = {
  Error: {
    type: 'object',
    required: ['success', 'status', 'error'],
    properties: {
      success: { type: 'boolean', const: false },
      status: { type: 'integer', minimum: 400, maximum: 599 },
      error: {
        type: 'object',
        required: ['message', 'type', 'details'],
        properties: {
          message: { type: 'string', description: 'what was wrong, what was got, what is right' },
          type: { type: 'string', enum: Object.keys(wireTypes) },
          details: { type: 'object', required: ['code', 'request_id', 'retryable'], properties: details },
        },
        additionalProperties: false,
      },
    },
    additionalProperties: false,
  },
  Problem: {
    description: 'The same facts as RFC 9457, for `Accept: application/problem+json`.',
    type: 'object',
    required: ['type', 'title', 'status', 'detail', 'code', 'request_id', 'retryable'],
    properties: {
      type: { type: 'string', format: 'uri' },
      title: { type: 'string' },
      status: { type: 'integer', minimum: 400, maximum: 599 },
      detail: { type: 'string' },
      ...details,
    },
    example: problemBody(new AppError('bucket_not_found'), exampleRequestId),
  },
  FieldFault: {
    type: 'object',
    required: ['type', 'location', 'message'],
    properties: {
      type: { type: 'string' },
      location: {
        type: 'array',
        items: { type: ['string', 'integer'] },
        description:
          'path to the field, such as `["body", "blobs", 0, "type"]`; `[file, line, column]` for archives',
      },
      message: { type: 'string' },
      fix: { type: 'string', description: 'what to write instead' },
    },
    additionalProperties: false,
  },
} as const;

/** Schemas and responses for the errors of all routes. */
export function errorComponents(routes: readonly Route[]): {
  readonly schemas: unknown;
  readonly responses: Record<string, unknown>;
  readonly examples: Record<string, unknown>;
} {
  const responses = new Map<string, unknown>();
  for (const route of routes) {
    for (const [status, codes] of groupsOf(route))
      responses.set(componentName(codes), response(status, codes));
  }
  const ordered = [...responses].sort(([a], [b]) => (a < b ? -1 : 1));
  return {
    schemas,
    responses: Object.fromEntries(ordered),
    examples: examplesOf(new Set(routes.flatMap(errorCodesOf))),
  };
}
