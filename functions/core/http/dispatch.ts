// From a gateway event to a service call and back: route, key, limits, validation, idempotency, envelope.
import type { APIGatewayProxyEvent, APIGatewayProxyResult } from 'aws-lambda';
import type { Clock, RandomSource } from '../clock.ts';
import type { Ctx, NsCtx } from '../context.ts';
import { inNamespace, makeContext } from '../context.ts';
import { AppError, invalid, isAppError } from '../errors.ts';
import { idPrefixes } from '../ids.ts';
import type { Ports } from '../ports.ts';
import { isNameable } from '../store/keys.ts';
import { parseBody } from './body.ts';
import { toFaults } from './faults.ts';
import type { AnyHandler } from './handler.ts';
import { Answer } from './handler.ts';
import { once } from './idempotency.ts';
import type { Match, Matcher } from './match.ts';
import { decodeSegment, makeMatcher } from './match.ts';
import { fromAuthorizerContext, isPermitted } from './principal.ts';
import { errorBody, problemBody } from './problem.ts';
import type { RateState } from './rate-limit.ts';
import { rateHeaders, takeRequest } from './rate-limit.ts';
import type { Route } from './route.ts';
import { clientForm, isNamespaced } from './route.ts';

export type Dispatcher = (event: APIGatewayProxyEvent) => Promise<APIGatewayProxyResult>;

export interface DispatchOptions {
  /** Tests set this: a reply that its own contract does not describe is then a failure, not an answer. */
  readonly checkReplies?: boolean;
}

/** @see RFC 9562, section 5.7: sorts by time, which helps whoever greps logs. */
function uuidV7(clock: Clock, random: RandomSource): string {
  const bytes = Buffer.alloc(16);
  bytes.writeUIntBE(clock.now(), 0, 6);
  Buffer.from(random.bytes(10)).copy(bytes, 6);
  bytes[6] = (bytes[6]! & 0x0f) | 0x70;
  bytes[8] = (bytes[8]! & 0x3f) | 0x80;
  const hex = bytes.toString('hex');
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join('-');
}

function headerOf(event: APIGatewayProxyEvent, name: string): string | undefined {
  for (const [key, value] of Object.entries(event.headers ?? {}))
    if (key.toLowerCase() === name) return value;
  return undefined;
}

export function makeDispatcher(
  routes: readonly Route[],
  handlers: Readonly<Record<string, AnyHandler>>,
  ports: Ports,
  options: DispatchOptions = {},
): Dispatcher {
  const matcher = makeMatcher(routes);
  const exact = new Map<string, Route>();
  for (const route of routes) {
    const client = clientForm(route.path);
    if (client !== undefined) exact.set(`${route.method} ${client}`, route);
  }
  for (const route of routes) exact.set(`${route.method} ${route.path}`, route);

  return async (event) => {
    const given = headerOf(event, 'x-request-id');
    const requestId =
      given && /^[A-Za-z0-9_-]{1,64}$/.test(given) ? given : uuidV7(ports.clock, ports.random);
    const headers: Record<string, string> = { 'X-Request-Id': requestId, 'Content-Type': 'application/json' };
    try {
      return await answer(event, requestId, headers);
    } catch (error) {
      return problem(event, error, requestId, headers);
    }
  };

  function problem(
    event: APIGatewayProxyEvent,
    error: unknown,
    requestId: string,
    headers: Record<string, string>,
  ): APIGatewayProxyResult {
    const known = isAppError(error) ? error : new AppError('internal_error', { cause: error });
    const level = known.status >= 500 ? 'error' : 'info';
    const cause = known.cause ?? (isAppError(error) ? undefined : error);
    ports.log[level]('request refused', {
      request_id: requestId,
      code: known.code,
      status: known.status,
      internal: known.internal,
      ...(known.status >= 500 && cause instanceof Error ? { cause: cause.message, stack: cause.stack } : {}),
    });
    if (known.retryAfterSeconds !== undefined) headers['Retry-After'] = String(known.retryAfterSeconds);
    if (Array.isArray(known.extra.allow)) headers.Allow = known.extra.allow.join(', ');
    const asProblem = (headerOf(event, 'accept') ?? '').includes('application/problem+json');
    if (asProblem) headers['Content-Type'] = 'application/problem+json';
    const body = asProblem ? problemBody(known, requestId) : errorBody(known, requestId);
    return { statusCode: known.status, headers, body: JSON.stringify(body) };
  }

  async function answer(
    event: APIGatewayProxyEvent,
    requestId: string,
    headers: Record<string, string>,
  ): Promise<APIGatewayProxyResult> {
    const { route, params } = findRoute(event);
    const ctx = contextOf(event, route, requestId);
    if (!isPermitted(ctx.principal, route.permission)) throw notPermitted(ctx, route);
    if (!Object.values(params).every(isNameable)) throw nothingThere(event.path);
    let rate: RateState | undefined;
    if (route.permission !== 'none') {
      rate = await takeRequest(ctx, route.rate);
      Object.assign(headers, rateHeaders(rate));
    }
    const query = readQuery(event, route);
    const body = readBody(event, route);
    const { scoped, checked } = isNamespaced(route.path)
      ? await enter(ctx, route, params, event)
      : { scoped: ctx, checked: undefined };
    const handler = handlers[route.operation];
    if (!handler) throw new Error(`no handler for ${route.operation}`);

    const run = async () => {
      const ifMatch = readIfMatch(event);
      const handled = (async () => handler({ ctx: scoped, params, query, body, ifMatch, route }))();
      // Its refusal comes first, and without waiting for what the handler finds: neither the answer nor its time says
      // anything about a namespace that is not the caller's.
      if (checked) handled.catch(() => undefined);
      await checked;
      const result = await handled;
      const reply = result instanceof Answer ? result : new Answer(result);
      if (options.checkReplies) checkReply(route, reply.body);
      if (reply.etag !== undefined) headers.ETag = `"${reply.etag}"`;
      return {
        status: reply.status ?? route.status,
        body: reply.body === undefined ? '' : withWarnings(reply.body, scoped),
      };
    };

    const idempotencyKey = route.method === 'POST' ? readIdempotencyKey(event, body) : undefined;
    if (idempotencyKey === undefined) {
      const reply = await run();
      return { statusCode: reply.status, headers, body: reply.body };
    }
    await checked;
    const namespaceId = 'ns' in scoped ? (scoped as { ns: { namespaceId: string } }).ns.namespaceId : '';
    const space = `${namespaceId} ${ctx.principal.keyId} ${route.operation}`;
    const request = JSON.stringify([event.httpMethod, event.path, event.queryStringParameters, event.body]);
    const reply = await once(ctx, space, idempotencyKey, request, run);
    if (reply.replayed) headers['Idempotency-Replayed'] = 'true';
    return { statusCode: reply.status, headers, body: reply.body };
  }

  function findRoute(event: APIGatewayProxyEvent): Match {
    const known = exact.get(`${event.httpMethod} ${event.resource}`);
    if (known) {
      const params: Record<string, string> = {};
      for (const [name, value] of Object.entries(event.pathParameters ?? {})) {
        if (value !== undefined) params[name] = decodeSegment(value);
      }
      return { route: known, params };
    }
    const found = (matcher as Matcher).find(event.httpMethod, event.path);
    if ('route' in found) return found;
    if (found.allow.length > 0) {
      throw new AppError('route_method_not_allowed', {
        detail: `${event.path} does not answer ${event.httpMethod}; it answers ${found.allow.join(', ')}.`,
        extra: { allow: found.allow },
      });
    }
    throw nothingThere(event.path);
  }

  function contextOf(event: APIGatewayProxyEvent, route: Route, requestId: string): Ctx {
    const principal = fromAuthorizerContext(event.requestContext?.authorizer ?? {});
    if (principal) return makeContext(ports, principal, requestId);
    if (route.permission !== 'none') throw new AppError('key_invalid');
    return makeContext(ports, { orgId: 'nobody', keyId: 'nobody', permissions: [] }, requestId);
  }
}

function nothingThere(path: string): AppError {
  return new AppError('route_not_found', {
    detail: `There is no ${path.slice(0, 200)}. The list of paths is at /v1/openapi.json.`,
  });
}

function notPermitted(ctx: Ctx, route: Route): AppError {
  if (ctx.principal.keyId === 'bootstrap') {
    return new AppError('key_bootstrap_only', {
      detail:
        'The bootstrap key of the deployment may only create, list and revoke API keys. Create a key and use that.',
    });
  }
  const needed = route.permission === 'bootstrap' ? 'admin' : route.permission;
  return new AppError('key_not_permitted', {
    detail: `${route.operation} needs the permission "${needed}"; this key has ${ctx.principal.permissions.join(', ') || 'none'}.`,
    extra: { needed },
  });
}

function readQuery(event: APIGatewayProxyEvent, route: Route): unknown {
  const given = { ...(event.queryStringParameters ?? {}) };
  if (!route.query) {
    const unknown = Object.keys(given);
    if (unknown.length === 0) return undefined;
    throw invalid(
      'request_invalid',
      unknown.map((name) => ({
        type: 'extra_forbidden',
        location: ['query', name],
        message: `unknown parameter "${name.slice(0, 60)}"; this path has none`,
      })),
    );
  }
  const parsed = route.query.safeParse(given);
  if (!parsed.success) throw invalid('request_invalid', toFaults(parsed.error, 'query', given, route.query));
  return parsed.data;
}

function readBody(event: APIGatewayProxyEvent, route: Route): unknown {
  const text =
    event.body === null || event.body === undefined
      ? ''
      : event.isBase64Encoded
        ? Buffer.from(event.body, 'base64').toString('utf8')
        : event.body;
  if (!route.body) return undefined;
  if (text.trim() === '') {
    if (!route.bodyOptional) {
      throw new AppError('request_not_json', {
        detail: `${route.method} ${route.path} needs a JSON body, and the request has none.`,
      });
    }
    const empty = route.body.safeParse({});
    if (!empty.success) throw invalid('request_invalid', toFaults(empty.error, 'body', {}, route.body));
    return empty.data;
  }
  const type = headerOf(event, 'content-type');
  if (type !== undefined && !/^application\/([a-z0-9.+-]+\+)?json\b/i.test(type)) {
    throw new AppError('request_media_type', {
      detail: `The body must be JSON with Content-Type: application/json; got ${type.slice(0, 80)}.`,
    });
  }
  const value = parseBody(text, route.bodyRoom);
  const parsed = route.body.safeParse(value);
  if (!parsed.success) throw invalid('request_invalid', toFaults(parsed.error, 'body', value, route.body));
  return parsed.data;
}

function readIfMatch(event: APIGatewayProxyEvent): number | undefined {
  const header = headerOf(event, 'if-match');
  if (header === undefined || header === '*') return undefined;
  const version = Number(/^(?:W\/)?"?(\d{1,15})"?$/.exec(header.trim())?.[1] ?? Number.NaN);
  if (Number.isNaN(version)) {
    throw new AppError('request_bad_header', {
      detail: `If-Match must be the ETag of a GET, such as "3"; got ${header.slice(0, 40)}.`,
    });
  }
  return version;
}

function readIdempotencyKey(event: APIGatewayProxyEvent, body: unknown): string | undefined {
  const inBody = (body as { idempotency_key?: unknown } | undefined)?.idempotency_key;
  const key = headerOf(event, 'idempotency-key') ?? (typeof inBody === 'string' ? inBody : undefined);
  if (key === undefined) return undefined;
  if (!/^[\x20-\x7e]{1,255}$/.test(key)) {
    throw new AppError('request_bad_header', {
      detail: 'An Idempotency-Key has 1 to 255 printable ASCII characters.',
    });
  }
  return key;
}

/**
 * The context inside the namespace that a request names, and the check that it exists and may be seen.
 *
 * What changes nothing may read while the check still runs: its answer waits for the check.
 */
async function enter(
  ctx: Ctx,
  route: Route,
  params: Readonly<Record<string, string>>,
  event: APIGatewayProxyEvent,
): Promise<{ readonly scoped: Ctx; readonly checked: Promise<unknown> | undefined }> {
  const checked = enterNamespace(ctx, params, event);
  const named = params.namespace ?? headerOf(event, 'x-namespace');
  const readsOnly = route.method === 'GET' || route.target === 'query';
  if (!readsOnly || !named?.startsWith(idPrefixes.namespace) || !isNameable(named))
    return { scoped: await checked, checked: undefined };
  // Whoever awaits it gets its failure.
  checked.catch(() => undefined);
  const scoped: NsCtx = { ...inNamespace(ctx, named), entered: checked };
  return { scoped, checked };
}

/** Resolves the namespace of the path or of `X-Namespace` (id or name); both must agree where both are there. */
async function enterNamespace(
  ctx: Ctx,
  params: Readonly<Record<string, string>>,
  event: APIGatewayProxyEvent,
) {
  const header = headerOf(event, 'x-namespace');
  const named = params.namespace ?? header;
  if (named === undefined || named === '') {
    throw new AppError('request_namespace_missing', {
      detail: 'Name the namespace in the path (/v1/namespaces/<id>/...) or in the header X-Namespace.',
    });
  }
  const namespaceId = await resolveNamespace(ctx, named);
  if (params.namespace !== undefined && header !== undefined && header !== params.namespace) {
    const other = await resolveNamespace(ctx, header).catch((error: unknown) => {
      if (isAppError(error, 'namespace_not_found')) return undefined;
      throw error;
    });
    if (other !== namespaceId) {
      throw new AppError('request_namespace_differs', {
        detail: `The path names the namespace ${params.namespace}, the header X-Namespace names ${header.slice(0, 80)}. Send one of them.`,
      });
    }
  }
  return inNamespace(ctx, namespaceId);
}

/** The id of a namespace that exists, belongs to the caller's organisation and is within the key's scope. */
async function resolveNamespace(ctx: Ctx, idOrName: string): Promise<string> {
  const { table } = ctx.ports;
  const notFound = () =>
    new AppError('namespace_not_found', { detail: `No namespace "${idOrName.slice(0, 120)}".` });
  if (!isNameable(idOrName)) throw notFound();
  let id = idOrName;
  if (!idOrName.startsWith(idPrefixes.namespace)) {
    const guard = await table.get(ctx.org.namespaceName(idOrName));
    if (!guard) throw notFound();
    id = String(guard.id);
  }
  const allowed = ctx.principal.namespaceIds;
  if (allowed && !allowed.includes(id)) throw notFound();
  const row = await table.get(ctx.org.namespace(id));
  if (!row || row.state === 'deleting') throw notFound();
  return id;
}

function withWarnings(body: unknown, ctx: Ctx): string {
  if (
    ctx.warnings.length === 0 ||
    body === null ||
    typeof body !== 'object' ||
    Array.isArray(body) ||
    'warnings' in body
  ) {
    return JSON.stringify(body);
  }
  return JSON.stringify({ ...body, warnings: ctx.warnings });
}

function checkReply(route: Route, body: unknown): void {
  const wire = body === undefined ? undefined : JSON.parse(JSON.stringify(body));
  const parsed = route.reply.safeParse(wire);
  if (!parsed.success)
    throw new Error(`the reply of ${route.operation} breaks its contract: ${parsed.error.message}`);
}
