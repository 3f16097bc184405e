// How namespaces are stored: a row and a name guard in their organisation's partition.
import { isoTime } from '../../clock.ts';
import type { Ctx } from '../../context.ts';
import { AppError } from '../../errors.ts';
import { audit } from '../../store/audit.ts';
import { enqueue } from '../../store/outbox.ts';
import type { Attribute, Write } from '../../store/table.ts';
import { ConditionFailed, queryAll } from '../../store/table.ts';

export interface StoredNamespace {
  readonly id: string;
  readonly name: string;
  readonly state: 'active' | 'deleting';
  readonly description: string | null;
  readonly metadata: { readonly [name: string]: Attribute };
  /** Read it by `toVectorIndex`: rows that were made before there was a choice have none. */
  readonly vector_index?: { readonly [name: string]: Attribute };
  /** What its users may do beyond the usual; rows without it have none of it. */
  readonly plan?: { readonly container_images?: boolean };
  readonly revision: number;
  readonly created_at: string;
  readonly updated_at: string;
}

const nameTaken = (name: string) =>
  new AppError('namespace_name_taken', { detail: `A namespace named "${name}" exists already.` });

/** Namespaces that are not being deleted, newest first. */
export async function listNamespaces(ctx: Ctx): Promise<StoredNamespace[]> {
  const { pk, prefix } = ctx.org.namespaces();
  const found: StoredNamespace[] = [];
  for await (const item of queryAll(ctx.ports.table, pk, { prefix, descending: true })) {
    const namespace = item as unknown as StoredNamespace;
    if (namespace.state === 'active') found.push(namespace);
  }
  return found;
}

/** By id or name; one that is being deleted is not there. */
export async function findNamespace(ctx: Ctx, idOrName: string): Promise<StoredNamespace | undefined> {
  const { table } = ctx.ports;
  let id = idOrName;
  if (!idOrName.startsWith('ns_')) {
    const guard = await table.get(ctx.org.namespaceName(idOrName));
    if (!guard) return undefined;
    id = String(guard.id);
  }
  const row = (await table.get(ctx.org.namespace(id))) as StoredNamespace | undefined;
  return row?.state === 'active' ? row : undefined;
}

/** @throws AppError namespace_name_taken */
export async function putNamespace(ctx: Ctx, namespace: StoredNamespace): Promise<void> {
  try {
    await ctx.ports.table.write([
      { put: { ...ctx.org.namespace(namespace.id), ...namespace }, if: [{ absent: true }] },
      { put: { ...ctx.org.namespaceName(namespace.name), id: namespace.id }, if: [{ absent: true }] },
      audit(ctx, 'namespace.create', namespace.id),
    ]);
  } catch (error) {
    if (!(error instanceof ConditionFailed)) throw error;
    // After a lost answer the guard names our own id: then the namespace is there as we wanted it.
    if (error.of(1)?.item?.id !== namespace.id) throw nameTaken(namespace.name);
  }
}

/** @throws AppError namespace_name_taken, namespace_changed */
export async function changeNamespace(
  ctx: Ctx,
  before: StoredNamespace,
  changes: Partial<Pick<StoredNamespace, 'name' | 'description' | 'metadata' | 'plan'>>,
): Promise<StoredNamespace> {
  const after = {
    ...before,
    ...changes,
    revision: before.revision + 1,
    updated_at: isoTime(ctx.ports.clock.now()),
  };
  const renamed: Write[] =
    after.name === before.name
      ? []
      : [
          { put: { ...ctx.org.namespaceName(after.name), id: before.id }, if: [{ absent: true }] },
          { delete: ctx.org.namespaceName(before.name) },
        ];
  try {
    await ctx.ports.table.write([
      {
        update: ctx.org.namespace(before.id),
        set: {
          name: after.name,
          description: after.description,
          metadata: after.metadata,
          ...(after.plan === undefined ? {} : { plan: after.plan }),
          revision: after.revision,
          updated_at: after.updated_at,
        },
        if: [
          { attribute: 'revision', eq: before.revision },
          { attribute: 'state', eq: 'active' },
        ],
      },
      audit(ctx, 'namespace.update', before.id),
      ...renamed,
    ]);
  } catch (error) {
    if (!(error instanceof ConditionFailed)) throw error;
    if (error.of(0))
      throw new AppError('namespace_changed', {
        detail: `The namespace ${before.id} changed meanwhile; read it again.`,
      });
    throw nameTaken(after.name);
  }
  return after;
}

/** From this write on the namespace is a 404 everywhere; a workflow removes what it held. */
export async function markDeleting(ctx: Ctx, namespace: StoredNamespace): Promise<void> {
  const job = {
    kind: 'namespace_delete',
    org_id: ctx.principal.orgId,
    namespace_id: namespace.id,
    request_id: ctx.requestId,
  } as const;
  try {
    await ctx.ports.table.write([
      {
        update: ctx.org.namespace(namespace.id),
        set: { state: 'deleting', updated_at: isoTime(ctx.ports.clock.now()) },
        if: [{ attribute: 'state', eq: 'active' }],
      },
      { delete: ctx.org.namespaceName(namespace.name) },
      enqueue(ctx, job, namespace.id),
      audit(ctx, 'namespace.delete', namespace.id),
    ]);
  } catch (error) {
    if (!(error instanceof ConditionFailed)) throw error; // Refused: it is being deleted already, which is what was asked.
  }
}
