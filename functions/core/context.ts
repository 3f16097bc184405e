// What every service call carries: ports, who asks, in which namespace, under which request id.
import type { Principal } from './http/principal.ts';
import type { Ports } from './ports.ts';
import type { NamespaceScope, OrgScope } from './store/keys.ts';
import { namespaceScope, orgScope } from './store/keys.ts';

export interface Ctx {
  readonly ports: Ports;
  readonly principal: Principal;
  readonly requestId: string;
  readonly org: OrgScope;
  /** Notes for the caller, sent as `warnings` beside the answer. */
  readonly warnings: string[];
}

/** A context inside a namespace that exists and that the principal may see. */
export interface NsCtx extends Ctx {
  readonly ns: NamespaceScope;
  /**
   * There only while a reading request has begun and the check of its namespace still runs; rejects if the namespace
   * is not the caller's. The answer waits for it, and so does whatever does more than read.
   */
  readonly entered?: Promise<unknown>;
}

export function makeContext(ports: Ports, principal: Principal, requestId: string): Ctx {
  return { ports, principal, requestId, org: orgScope(principal.orgId), warnings: [] };
}

export function inNamespace(ctx: Ctx, namespaceId: string): NsCtx {
  return { ...ctx, ns: namespaceScope(ctx.principal.orgId, namespaceId) };
}

/** The context of a workflow step: no key asks, the job says for whom the work is done. */
export function workflowContext(
  ports: Ports,
  job: { readonly org_id: string; readonly namespace_id: string; readonly request_id: string },
): NsCtx {
  const principal: Principal = { orgId: job.org_id, keyId: 'workflow', permissions: ['admin'] };
  return inNamespace(makeContext(ports, principal, job.request_id), job.namespace_id);
}

/** Milliseconds since the epoch on the context's clock. */
export function now(ctx: Ctx): number {
  return ctx.ports.clock.now();
}
