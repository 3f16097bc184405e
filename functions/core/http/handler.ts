// The types between a contract's route and its handler: a route without a handler does not compile.
import type * as z from 'zod';
import type { Ctx, NsCtx } from '../context.ts';
import type { Route } from './route.ts';

// A route without the part has the schema of `undefined` there, so nothing is lost by dropping the `?`.
type Output<S> = NonNullable<S> extends z.ZodType ? z.output<NonNullable<S>> : undefined;

/** Inside a namespace the context has its key scope. */
type ContextOf<R extends Route> = R['path'] extends `/v1/namespaces/{namespace}/${string}` ? NsCtx : Ctx;

export interface RequestOf<R extends Route> {
  readonly ctx: ContextOf<R>;
  readonly params: Readonly<Record<string, string>>;
  readonly query: Output<R['query']>;
  readonly body: Output<R['body']>;
  /** Version that `If-Match` asked for; undefined: last write wins. */
  readonly ifMatch: number | undefined;
  readonly route: R;
}

/** A reply with more than a body: another status, or the version for the ETag. */
export class Answer<T> {
  readonly body: T;
  readonly status: number | undefined;
  readonly etag: number | undefined;
  constructor(body: T, parts: { readonly status?: number; readonly etag?: number } = {}) {
    this.body = body;
    this.status = parts.status;
    this.etag = parts.etag;
  }
}

export type ReplyOf<R extends Route> = z.input<R['reply']>;
export type Handler<R extends Route> = (request: RequestOf<R>) => Promise<ReplyOf<R> | Answer<ReplyOf<R>>>;

/** The handler table of a contract: one function for each of its routes. */
export type Handlers<Routes extends Readonly<Record<string, Route>>> = {
  readonly [K in keyof Routes]: Handler<Routes[K]>;
};

// biome-ignore lint/suspicious/noExplicitAny: the table mixes handlers of all routes; each was checked where it was written.
export type AnyHandler = (request: any) => Promise<unknown>;
