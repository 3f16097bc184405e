// The rules of namespaces.
import type * as z from 'zod';
import { defaultVectorIndex, fromVectorIndex, requireBackend } from '../../backends/of-namespace.ts';
import { isoTime } from '../../clock.ts';
import type { Ctx } from '../../context.ts';
import { AppError } from '../../errors.ts';
import { isPermitted } from '../../http/principal.ts';
import { checkVersion } from '../../http/version.ts';
import { newId } from '../../ids.ts';
import type { CreateNamespaceBody, UpdateNamespaceBody } from './contract.ts';
import type { StoredNamespace } from './store.ts';
import {
  changeNamespace,
  findNamespace,
  listNamespaces as listStored,
  markDeleting,
  putNamespace,
} from './store.ts';

export type { StoredNamespace } from './store.ts';
export { readVectorIndexState, requestMigration } from './vector-index.ts';

/** An organisation has at most 20 namespaces (API rules, section 12). */
const namespacesMax = 20;

/** @throws AppError namespace_name_taken, quota_exceeded, vector_backend_not_enabled */
export async function createNamespace(
  ctx: Ctx,
  body: z.output<typeof CreateNamespaceBody>,
): Promise<StoredNamespace> {
  if (ctx.principal.namespaceIds) {
    throw new AppError('key_not_permitted', {
      detail:
        'This key is narrowed to some namespaces, so it could not see a new one. Make it with a key of the whole organisation.',
    });
  }
  if ((await listStored(ctx)).length >= namespacesMax) {
    throw new AppError('quota_exceeded', {
      detail: `An organisation has at most ${namespacesMax} namespaces. Delete one first.`,
    });
  }
  const { backend, storage } = body.vector_index ?? { backend: 'segments', storage: 'float32' };
  requireBackend(ctx, backend);
  if (body.feature_extractors?.length || body.payload_indexes?.length) {
    ctx.warnings.push(
      'feature_extractors and payload_indexes are not needed: plugins register by their upload, and every field of a document can be filtered.',
    );
  }
  checkPlan(ctx, body.plan);
  const time = isoTime(ctx.ports.clock.now());
  const namespace: StoredNamespace = {
    id: newId('namespace', ctx.ports.clock, ctx.ports.random),
    name: body.name,
    state: 'active',
    description: body.description ?? null,
    metadata: (body.metadata ?? {}) as StoredNamespace['metadata'],
    ...(body.plan === undefined ? {} : { plan: { ...body.plan } }),
    vector_index: fromVectorIndex({ ...defaultVectorIndex, backend, storage }),
    revision: 1,
    created_at: time,
    updated_at: time,
  };
  await putNamespace(ctx, namespace);
  return namespace;
}

/** A plan costs the operator, so writing is not enough. @throws AppError key_not_permitted */
function checkPlan(ctx: Ctx, plan: object | undefined): void {
  if (plan === undefined || isPermitted(ctx.principal, 'admin')) return;
  throw new AppError('key_not_permitted', {
    detail: 'Changing the plan of a namespace needs the permission "admin".',
    extra: { needed: 'admin' },
  });
}

/** Those that the key may see, newest first. */
export async function listNamespaces(ctx: Ctx): Promise<StoredNamespace[]> {
  const allowed = ctx.principal.namespaceIds;
  return (await listStored(ctx)).filter((namespace) => !allowed || allowed.includes(namespace.id));
}

/** By id or name. @throws AppError namespace_not_found */
export async function getNamespace(ctx: Ctx, idOrName: string): Promise<StoredNamespace> {
  const namespace = await findNamespace(ctx, idOrName);
  const allowed = ctx.principal.namespaceIds;
  if (!namespace || (allowed && !allowed.includes(namespace.id))) {
    throw new AppError('namespace_not_found', { detail: `No namespace "${idOrName.slice(0, 120)}".` });
  }
  return namespace;
}

/** @throws AppError namespace_not_found, namespace_name_taken, namespace_changed, request_stale */
export async function updateNamespace(
  ctx: Ctx,
  idOrName: string,
  body: z.output<typeof UpdateNamespaceBody>,
  ifMatch?: number,
): Promise<StoredNamespace> {
  const before = await getNamespace(ctx, idOrName);
  checkVersion(ifMatch, before.revision);
  checkPlan(ctx, body.plan);
  return changeNamespace(ctx, before, {
    ...(body.plan === undefined ? {} : { plan: { ...before.plan, ...body.plan } }),
    ...(body.name === undefined ? {} : { name: body.name }),
    ...(body.description === undefined ? {} : { description: body.description }),
    ...(body.metadata === undefined ? {} : { metadata: body.metadata as StoredNamespace['metadata'] }),
  });
}

/** @throws AppError namespace_not_found */
export async function deleteNamespace(ctx: Ctx, idOrName: string): Promise<StoredNamespace> {
  const namespace = await getNamespace(ctx, idOrName);
  await markDeleting(ctx, namespace);
  return namespace;
}
