// Who asks: what the authorizer found out about the key, as it travels through the gateway's context.
import type { Permission } from './route.ts';

/** Permissions that a key can be given; `admin` implies the others. */
export const keyPermissions = ['read', 'write', 'delete', 'admin'] as const;
export type KeyPermission = (typeof keyPermissions)[number];

export interface Principal {
  readonly orgId: string;
  /** The key's id, or `bootstrap` for the secret that the deployment generated. */
  readonly keyId: string;
  readonly permissions: readonly KeyPermission[];
  /** Namespaces (ids) that the key is narrowed to; undefined: all of the organisation. */
  readonly namespaceIds?: readonly string[];
}

/** Keys of the authorizer's context; API Gateway allows strings only. */
export interface AuthorizerContext {
  readonly org_id: string;
  readonly key_id: string;
  /** Comma separated. */
  readonly permissions: string;
  /** Comma separated ids, or empty for all. */
  readonly namespace_ids: string;
}

export const bootstrapKeyId = 'bootstrap';

export function toAuthorizerContext(principal: Principal): AuthorizerContext {
  return {
    org_id: principal.orgId,
    key_id: principal.keyId,
    permissions: principal.permissions.join(','),
    namespace_ids: principal.namespaceIds?.join(',') ?? '',
  };
}

export function fromAuthorizerContext(context: Readonly<Record<string, unknown>>): Principal | undefined {
  const { org_id, key_id, permissions, namespace_ids } = context as Partial<AuthorizerContext>;
  if (!org_id || !key_id) return undefined;
  const base = {
    orgId: org_id,
    keyId: key_id,
    permissions: (permissions ?? '')
      .split(',')
      .filter((p): p is KeyPermission => (keyPermissions as readonly string[]).includes(p)),
  };
  return namespace_ids ? { ...base, namespaceIds: namespace_ids.split(',') } : base;
}

/** Whether the principal may use a route that needs `permission`. */
export function isPermitted(principal: Principal, permission: Permission): boolean {
  if (permission === 'none') return true;
  if (principal.keyId === bootstrapKeyId) return permission === 'bootstrap';
  if (principal.permissions.includes('admin')) return true;
  return permission !== 'bootstrap' && permission !== 'admin' && principal.permissions.includes(permission);
}
