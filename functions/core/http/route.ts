// A route as data: what the gateway, the dispatcher, the OpenAPI document and the tests all read.

import type * as z from 'zod';
import type { ErrorCode } from '../errors.ts';
import type { BodyRoom } from './body.ts';

export type Method = 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';

/** What a key must be allowed to do. `none`: no key at all; `bootstrap`: `admin`, or the first key of the stack. */
export type Permission = 'read' | 'write' | 'delete' | 'admin' | 'bootstrap' | 'none';

/** Rate classes; requests a minute per key are in `core/http/rate-limit.ts`. */
export type RateClass = 'metadata' | 'data' | 'search' | 'upload' | 'compute';

/** The Lambda that answers: split by permission on AWS resources, not by route. */
export type RouteTarget = 'api' | 'query';

export interface Route<
  Query extends z.ZodType = z.ZodType,
  Body extends z.ZodType = z.ZodType,
  Reply extends z.ZodType = z.ZodType,
  Path extends `/v1/${string}` = `/v1/${string}`,
> {
  /** Name of the operation in the document and in the handler table, for example `createBucket`. */
  readonly operation: string;
  readonly method: Method;
  /** Canonical path, with `{parameters}` named as in `parameters.ts`. */
  readonly path: Path;
  readonly tag: string;
  readonly summary: string;
  readonly description?: string;
  readonly permission: Permission;
  readonly rate: RateClass;
  readonly target: RouteTarget;
  readonly query?: Query;
  readonly body?: Body;
  /** The body may be left out; the handler then gets what the schema makes of `{}`. */
  readonly bodyOptional: boolean;
  /** Where a body may be larger than usual. */
  readonly bodyRoom?: BodyRoom;
  readonly reply: Reply;
  readonly status: number;
  /** Codes beyond those that every route can answer with. */
  readonly errors: readonly ErrorCode[];
  readonly example?: { readonly body?: unknown; readonly reply?: unknown };
}

type Defaulted = 'target' | 'bodyOptional' | 'status' | 'errors' | 'rate' | 'permission';

type RouteInput<
  Q extends z.ZodType,
  B extends z.ZodType,
  R extends z.ZodType,
  P extends `/v1/${string}`,
> = Omit<Route<Q, B, R, P>, Defaulted> & Partial<Pick<Route<Q, B, R, P>, Defaulted>>;

/** What a method usually needs; a contract states it where it differs. */
const usualPermission: Record<Method, Permission> = {
  GET: 'read',
  POST: 'write',
  PUT: 'write',
  PATCH: 'write',
  DELETE: 'delete',
};

/**
 * Declares a route of a contract.
 *
 * Defaults: permission by method, rate class `metadata`, Lambda `api`, status 200, body required where declared.
 *
 * @example
 * export const getBucket = route({
 *   operation: 'getBucket', method: 'GET', path: '/v1/namespaces/{namespace}/buckets/{bucket}',
 *   tag: 'buckets', summary: 'Read a bucket', reply: Bucket, errors: ['bucket_not_found'],
 * });
 */
export function route<
  Q extends z.ZodType = z.ZodType<Record<string, never>>,
  B extends z.ZodType = z.ZodType<undefined>,
  R extends z.ZodType = z.ZodType,
  const P extends `/v1/${string}` = `/v1/${string}`,
>(input: RouteInput<Q, B, R, P>): Route<Q, B, R, P> {
  return {
    target: 'api',
    rate: 'metadata',
    permission: usualPermission[input.method],
    status: 200,
    bodyOptional: false,
    errors: [],
    ...input,
  } as Route<Q, B, R, P>;
}

const namespacePrefix = '/v1/namespaces/{namespace}/';

/** Whether the route acts inside a namespace, so that it also answers the client form with `X-Namespace`. */
export function isNamespaced(path: string): boolean {
  return path.startsWith(namespacePrefix);
}

/**
 * The client form of a canonical path: `/v1/namespaces/{namespace}/buckets` also answers as `/v1/buckets`.
 *
 * @returns undefined where the canonical path has no second form.
 */
export function clientForm(path: string): string | undefined {
  return isNamespaced(path) ? `/v1/${path.slice(namespacePrefix.length)}` : undefined;
}

/** Parameter names of a path in order: `/v1/a/{b}/c/{d}` gives `['b', 'd']`. */
export function parameterNames(path: string): string[] {
  return [...path.matchAll(/\{([a-z_]+)\+?\}/g)].map((match) => match[1]!);
}
