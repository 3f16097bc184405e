// The API document as API Gateway gets it: OpenAPI 3.0.1 with paths, methods, authorizer and integrations; no schemas,
// since our own code checks requests. Made from the contracts, so no path is written twice.
import type { ErrorCode } from '../../functions/core/errors.ts';
import { errorTable, wireTypes } from '../../functions/core/errors.ts';
import type { Route, RouteTarget } from '../../functions/core/http/route.ts';
import { clientForm } from '../../functions/core/http/route.ts';

/** All methods that the gateway knows: an emulator ignores any-method, so each path lists each of them. */
export const gatewayMethods = ['get', 'post', 'put', 'patch', 'delete', 'options', 'head'] as const;

/** Takes the client form of control routes, and every path below /v1 that does not exist. */
export const greedyPath = '/v1/{proxy+}';

export interface GatewayTargets {
  /** Integration URI of each Lambda that answers routes. */
  readonly uris: Readonly<Record<RouteTarget, unknown>>;
  readonly authorizerUri: unknown;
  readonly title: string;
}

export interface GatewayDocument {
  readonly openapi: '3.0.1';
  readonly info: { readonly title: string; readonly version: string };
  readonly paths: Readonly<Record<string, PathItem>>;
  readonly components: { readonly securitySchemes: Readonly<Record<string, unknown>> };
  readonly 'x-amazon-apigateway-gateway-responses': Readonly<Record<string, GatewayResponse>>;
}

export type PathItem = Readonly<Record<string, Operation | readonly unknown[]>>;

export interface Operation {
  readonly security?: readonly Readonly<Record<string, readonly string[]>>[];
  readonly responses: Readonly<Record<string, unknown>>;
  readonly 'x-amazon-apigateway-integration': Readonly<Record<string, unknown>>;
}

export interface GatewayResponse {
  readonly statusCode: number;
  readonly responseParameters: Readonly<Record<string, string>>;
  readonly responseTemplates: Readonly<Record<string, string>>;
}

/** Revocation must hold within a minute; the authorizer itself keeps nothing. */
const authorizerTtlSeconds = 30;

const schemeName = 'key';

/**
 * @param routes every route of the API
 * @returns the document; parts of `targets` may be CloudFormation references
 * @throws Error if two names stand at one position of a path, which the gateway refuses
 */
export function gatewayDocument(routes: readonly Route[], targets: GatewayTargets): GatewayDocument {
  const byPath = new Map<string, Map<string, Route>>();
  const pathOf = (path: string) => {
    const known = byPath.get(path) ?? new Map<string, Route>();
    byPath.set(path, known);
    return known;
  };
  for (const route of routes) pathOf(route.path).set(route.method.toLowerCase(), route);
  addClientForms(routes, pathOf);
  // A node of the gateway's tree without methods would not fall back to the greedy path for sure.
  for (const path of [...byPath.keys()]) for (const node of nodesOf(path)) pathOf(node);
  assertOneNameAPosition([...byPath.keys()]);

  const paths: Record<string, PathItem> = {};
  for (const path of [...byPath.keys()].sort()) paths[path] = pathItem(path, byPath.get(path)!, targets);
  paths[greedyPath] = pathItem(greedyPath, new Map(), targets);
  return {
    openapi: '3.0.1',
    info: { title: targets.title, version: '1' },
    paths,
    components: {
      securitySchemes: {
        [schemeName]: {
          type: 'apiKey',
          name: 'Authorization',
          in: 'header',
          'x-amazon-apigateway-authtype': 'custom',
          'x-amazon-apigateway-authorizer': {
            type: 'token',
            authorizerUri: targets.authorizerUri,
            authorizerResultTtlInSeconds: authorizerTtlSeconds,
          },
        },
      },
    },
    'x-amazon-apigateway-gateway-responses': gatewayResponses,
  };
}

/** The path and all that lead to it below `/v1`. */
function nodesOf(path: string): string[] {
  const nodes: string[] = [];
  for (let node = path; node !== '/v1' && node !== ''; node = node.slice(0, node.lastIndexOf('/')))
    nodes.push(node);
  return nodes;
}

/**
 * Adds `/v1/<noun>...` for what `query` answers, and the client forms of other routes where that path is a node now;
 * the rest of the client form comes by the greedy path.
 */
function addClientForms(routes: readonly Route[], pathOf: (path: string) => Map<string, Route>): void {
  const explicit = new Set<string>();
  for (const route of routes) {
    const form = clientForm(route.path);
    if (form === undefined || route.target !== 'query') continue;
    for (const node of nodesOf(form)) explicit.add(node);
  }
  for (const path of explicit) pathOf(path);
  for (const route of routes) {
    const form = clientForm(route.path);
    if (form === undefined || !explicit.has(form)) continue;
    const methods = pathOf(form);
    const method = route.method.toLowerCase();
    // A canonical route of the same path wins, as it does in the dispatcher.
    if (!methods.has(method)) methods.set(method, route);
  }
}

function pathItem(path: string, routes: ReadonlyMap<string, Route>, targets: GatewayTargets): PathItem {
  // Without a key only where no method of the path asks for one, so that 405 tells a stranger nothing.
  const open = routes.size > 0 && [...routes.values()].every((route) => route.permission === 'none');
  const operations = gatewayMethods.map((method) => {
    const route = routes.get(method);
    return [method, operation(targets.uris[route?.target ?? 'api'], !open && route?.permission !== 'none')];
  });
  return { ...parametersOf(path), ...Object.fromEntries(operations) };
}

function operation(uri: unknown, secured: boolean): Operation {
  return {
    ...(secured ? { security: [{ [schemeName]: [] }] } : {}),
    responses: {},
    'x-amazon-apigateway-integration': { type: 'aws_proxy', httpMethod: 'POST', uri },
  };
}

function parametersOf(path: string): { parameters?: readonly unknown[] } {
  const names = [...path.matchAll(/\{([a-z_]+)\+?\}/g)].map((match) => match[1]!);
  if (names.length === 0) return {};
  return {
    parameters: names.map((name) => ({ name, in: 'path', required: true, schema: { type: 'string' } })),
  };
}

/** The gateway allows one parameter below each node: `/a/{x}` and `/a/{y}/b` cannot both be. */
function assertOneNameAPosition(paths: readonly string[]): void {
  const seen = new Map<string, { segment: string; path: string }>();
  for (const path of paths) {
    const segments = path.split('/').slice(1);
    for (const [i, segment] of segments.entries()) {
      if (!segment.startsWith('{')) continue;
      const parent = segments.slice(0, i).join('/');
      const known = seen.get(parent);
      if (known && known.segment !== segment) {
        throw new Error(
          `below /${parent} stand ${known.segment} (${known.path}) and ${segment} (${path}); a position has one name`,
        );
      }
      seen.set(parent, { segment, path });
    }
  }
}

/** Nodes of the gateway's tree that the paths need; the quota is 300 for an API. */
export function resourceCount(paths: readonly string[]): number {
  const nodes = new Set<string>();
  for (const path of paths) {
    const segments = path.split('/').slice(1);
    for (let i = 1; i <= segments.length; i++) nodes.add(segments.slice(0, i).join('/'));
  }
  return nodes.size + 1;
}

/** What the gateway itself refuses wears our envelope too; `code` decides status and type. */
function refusal(
  code: ErrorCode,
  message: string = errorTable[code].title,
  retryAfterSeconds?: number,
): GatewayResponse {
  const { type, retryable } = errorTable[code];
  const status = wireTypes[type];
  // The request id goes in by the gateway; everything else is plain text, so that an emulator can be told the same.
  const body = {
    success: false,
    status,
    error: { message, type, details: { code, request_id: '$context.requestId', retryable } },
  };
  return {
    statusCode: status,
    responseParameters: {
      'gatewayresponse.header.X-Request-Id': 'context.requestId',
      ...(retryAfterSeconds === undefined
        ? {}
        : { 'gatewayresponse.header.Retry-After': `'${retryAfterSeconds}'` }),
    },
    responseTemplates: { 'application/json': JSON.stringify(body) },
  };
}

const noSuchPath = 'There is no such path. The list of paths is at /v1/openapi.json.';

/** @see API Gateway: gateway response types */
export const gatewayResponses: Readonly<Record<string, GatewayResponse>> = {
  UNAUTHORIZED: refusal('key_invalid', 'Send your API key as "Authorization: Bearer <key>".'),
  ACCESS_DENIED: refusal('key_invalid'),
  INVALID_API_KEY: refusal('key_invalid'),
  EXPIRED_TOKEN: refusal('key_invalid'),
  INVALID_SIGNATURE: refusal('key_invalid'),
  // What the gateway says to a path it does not know.
  MISSING_AUTHENTICATION_TOKEN: refusal('route_not_found', noSuchPath),
  RESOURCE_NOT_FOUND: refusal('route_not_found', noSuchPath),
  BAD_REQUEST_PARAMETERS: refusal('request_bad_header', 'A parameter of the request is not understood.'),
  BAD_REQUEST_BODY: refusal('request_not_json'),
  REQUEST_TOO_LARGE: refusal('request_too_large', 'The body is larger than 10 MB.'),
  UNSUPPORTED_MEDIA_TYPE: refusal('request_media_type'),
  THROTTLED: refusal('request_rate_exceeded', 'Too many requests at once. Try again in a second.', 1),
  QUOTA_EXCEEDED: refusal('request_rate_exceeded', undefined, 60),
  WAF_FILTERED: refusal('key_not_permitted', 'The request was refused by the firewall.'),
  AUTHORIZER_FAILURE: refusal('internal_error', 'The key could not be checked. Try again.'),
  AUTHORIZER_CONFIGURATION_ERROR: refusal('internal_error', 'The key could not be checked. Try again.'),
  API_CONFIGURATION_ERROR: refusal('internal_error'),
  INTEGRATION_FAILURE: refusal('internal_error'),
  INTEGRATION_TIMEOUT: refusal('retriever_timeout', 'The request took longer than 29 s and was given up.'),
  DEFAULT_4XX: refusal('request_bad_header', 'The request was refused.'),
  DEFAULT_5XX: refusal('internal_error'),
};
