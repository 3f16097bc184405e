// Storing a resource (bucket, collection, alert ...) as one row: name guard, dependency edges, version, audit and
// event in one transaction. Every slice's store.ts is an instance of this; none repeats it.
import { isoTime } from '../clock.ts';
import type { NsCtx } from '../context.ts';
import type { ErrorCode } from '../errors.ts';
import { AppError } from '../errors.ts';
import type { EventType } from '../events.ts';
import { randomCharacters } from '../ids.ts';
import { audit } from './audit.ts';
import type { ResourceKind } from './keys.ts';
import { isNameable } from './keys.ts';
import { announce } from './outbox.ts';
import type { Attribute, Item, Write } from './table.ts';
import { ConditionFailed, queryAll } from './table.ts';

/** What every stored resource has; slices add their own members. */
export interface StoredResource {
  readonly id: string;
  readonly name: string;
  /** Grows by one with each change; the ETag. */
  readonly revision: number;
  readonly created_at: string;
  readonly updated_at: string;
  /** Resources that this one needs; they cannot be deleted before it. */
  readonly parents: readonly Parent[];
}

export interface Parent {
  readonly kind: ResourceKind;
  readonly id: string;
}

export interface ResourceDefinition {
  readonly kind: ResourceKind;
  /** Beginning of the error codes: `bucket` gives `bucket_not_found`, `bucket_name_taken`, `bucket_in_use`, `bucket_changed`. */
  readonly noun:
    | 'bucket'
    | 'collection'
    | 'plugin'
    | 'retriever'
    | 'taxonomy'
    | 'cluster'
    | 'alert'
    | 'webhook';
  /** Prefix of ids, to tell an id from a name. Undefined: ids and names are looked up alike, the id first. */
  readonly idPrefix?: string;
  /** Resources of this kind in a namespace, at most. */
  readonly countMax: number;
  readonly events?: {
    readonly created?: EventType;
    readonly updated?: EventType;
    readonly deleted?: EventType;
  };
}

export interface Dependant {
  readonly type: string;
  readonly id: string;
  readonly name: string;
}

type Fresh<T extends StoredResource> = Omit<T, 'revision' | 'created_at' | 'updated_at'>;

/** Rows stay far below the 400 kB that the table takes (decisions, section 1). */
const rowBytesMax = 100_000;

/** @throws AppError request_too_large */
function checkSize(noun: string, resource: unknown): void {
  const bytes = Buffer.byteLength(JSON.stringify(resource));
  if (bytes <= rowBytesMax) return;
  throw new AppError('request_too_large', {
    detail: `The ${noun} would have ${bytes} bytes; at most ${rowBytesMax} can be stored. Shorten its definition or its metadata.`,
  });
}

/** Members of the row that are ours and not the resource's. */
const rowMembers = new Set(['pk', 'sk', 'kind', 'dependants', 'last_commit']);

/** Marks a write, so that a repetition of it knows what its first try has stored. */
function newCommit(ctx: NsCtx): string {
  return randomCharacters(16, ctx.ports.random);
}

function toResource<T>(item: Item): T {
  return Object.fromEntries(Object.entries(item).filter(([name]) => !rowMembers.has(name))) as T;
}

export interface ResourceStore<T extends StoredResource> {
  /** By id or by name. */
  find(ctx: NsCtx, idOrName: string): Promise<T | undefined>;
  /** @throws `<noun>_not_found` */
  get(ctx: NsCtx, idOrName: string): Promise<T>;
  /** Newest first. */
  list(ctx: NsCtx): Promise<T[]>;
  /** @throws `<noun>_name_taken`, `quota_exceeded`, `<parent>_not_found` when a parent went away meanwhile. */
  create(ctx: NsCtx, resource: Fresh<T>, alongside?: readonly Write[]): Promise<T>;
  /**
   * Writes `changes` over the version that `before` holds.
   *
   * @throws `<noun>_changed` when somebody else was faster, `<noun>_name_taken`.
   */
  update(ctx: NsCtx, before: T, changes: Partial<Fresh<T>>, alongside?: readonly Write[]): Promise<T>;
  /**
   * The writes of such an update, for a transaction of somebody else's. The first one holds the condition that the
   * version is that of `before`; a further one can fail when a new parent is gone.
   *
   * @throws AppError request_too_large
   */
  updateWrites(
    ctx: NsCtx,
    before: T,
    changes: Partial<Fresh<T>>,
  ): { readonly after: T; readonly writes: Write[] };
  /** @throws `<noun>_in_use` with the dependants, `<noun>_changed`. */
  remove(ctx: NsCtx, before: T, alongside?: readonly Write[]): Promise<void>;
  /** At most 20 of the resources that need this one, and how many there are. */
  dependants(ctx: NsCtx, id: string): Promise<{ readonly shown: Dependant[]; readonly total: number }>;
}

export function resourceStore<T extends StoredResource>(definition: ResourceDefinition): ResourceStore<T> {
  const { kind, noun, idPrefix, events = {} } = definition;
  const code = (outcome: string) => `${noun}_${outcome}` as ErrorCode;

  const byId = async (ctx: NsCtx, id: string): Promise<T | undefined> => {
    const item = await ctx.ports.table.get(ctx.ns.resource(kind, id));
    return item && toResource<T>(item);
  };

  const find = async (ctx: NsCtx, idOrName: string): Promise<T | undefined> => {
    if (!isNameable(idOrName)) return undefined;
    if (idPrefix !== undefined) {
      if (idOrName.startsWith(idPrefix)) return byId(ctx, idOrName);
    } else {
      const direct = await byId(ctx, idOrName);
      if (direct) return direct;
    }
    const guard = await ctx.ports.table.get(ctx.ns.name(kind, idOrName));
    return guard && byId(ctx, String(guard.id));
  };

  const addEdges = (ctx: NsCtx, child: Fresh<T>, parents: readonly Parent[]): Write[] =>
    parents.flatMap((parent) => [
      { update: ctx.ns.resource(parent.kind, parent.id), add: { dependants: 1 }, if: [{ present: true }] },
      {
        put: { ...ctx.ns.dependency(parent.id, child.id), type: noun, id: child.id, name: child.name },
      },
    ]);

  const removeEdges = (ctx: NsCtx, childId: string, parents: readonly Parent[]): Write[] =>
    parents.flatMap((parent) => [
      { update: ctx.ns.resource(parent.kind, parent.id), add: { dependants: -1 }, if: [{ present: true }] },
      { delete: ctx.ns.dependency(parent.id, childId) },
    ]);

  /** A failed condition on a parent's row means that the parent was deleted between the check and the write. */
  const parentGone = (writes: readonly Write[], failure: ConditionFailed): AppError | undefined => {
    for (const { index } of failure.failures) {
      const write = writes[index]!;
      if (!('update' in write) || write.add?.dependants !== 1) continue;
      const [parentKind, id] = write.update.sk.split('#') as [string, string];
      return new AppError(`${parentKind.toLowerCase()}_not_found` as ErrorCode, {
        detail: `${parentKind.toLowerCase()} ${id} was deleted while this request ran.`,
      });
    }
    return undefined;
  };

  const dependants: ResourceStore<T>['dependants'] = async (ctx, id) => {
    const { pk, prefix } = ctx.ns.dependencies(id);
    const shown: Dependant[] = [];
    let total = 0;
    for await (const item of queryAll(ctx.ports.table, pk, { prefix })) {
      total++;
      if (shown.length < 20)
        shown.push({ type: String(item.type), id: String(item.id), name: String(item.name) });
    }
    return { shown, total };
  };

  /** What an update writes; `commit` marks the row, so that a repetition knows its own write. */
  const prepareUpdate = (ctx: NsCtx, before: T, changes: Partial<Fresh<T>>) => {
    const after = {
      ...before,
      ...changes,
      revision: before.revision + 1,
      updated_at: isoTime(ctx.ports.clock.now()),
    } as T;
    checkSize(noun, after);
    const commit = newCommit(ctx);
    const names = new Set([...Object.keys(before), ...Object.keys(changes)]);
    const set: Record<string, Attribute> = {};
    const remove: string[] = [];
    for (const name of names) {
      if (name === 'id') continue;
      const value = (after as unknown as Record<string, Attribute | undefined>)[name];
      if (value === undefined) remove.push(name);
      else set[name] = value;
    }
    const has = (list: readonly Parent[], parent: Parent) =>
      list.some((p) => p.id === parent.id && p.kind === parent.kind);
    const writes: Write[] = [
      {
        update: ctx.ns.resource(kind, before.id),
        set: { ...set, last_commit: commit },
        remove,
        if: [{ attribute: 'revision', eq: before.revision }],
      },
      audit(ctx, `${noun}.update`, before.id),
      ...(after.name === before.name
        ? []
        : ([
            { put: { ...ctx.ns.name(kind, after.name), id: before.id }, if: [{ absent: true }] },
            { delete: ctx.ns.name(kind, before.name) },
          ] satisfies Write[])),
      ...addEdges(
        ctx,
        after,
        after.parents.filter((p) => !has(before.parents, p)),
      ),
      ...removeEdges(
        ctx,
        before.id,
        before.parents.filter((p) => !has(after.parents, p)),
      ),
      ...(events.updated
        ? [announce(ctx, events.updated, { type: noun, id: before.id }, after.revision)]
        : []),
    ];
    return { after, writes, commit };
  };

  return {
    find,
    dependants,

    updateWrites(ctx, before, changes) {
      const { after, writes } = prepareUpdate(ctx, before, changes);
      return { after, writes };
    },

    async get(ctx, idOrName) {
      const found = await find(ctx, idOrName);
      if (!found)
        throw new AppError(code('not_found'), {
          detail: `No ${noun} "${idOrName.slice(0, 120)}" in this namespace.`,
        });
      return found;
    },

    async list(ctx) {
      const { pk, prefix } = ctx.ns.resources(kind);
      const found: T[] = [];
      for await (const item of queryAll(ctx.ports.table, pk, { prefix, descending: true }))
        found.push(toResource<T>(item));
      // Most ids sort by creation; those of plugins and webhooks do not.
      return found.sort((a, b) => (a.created_at === b.created_at ? 0 : a.created_at < b.created_at ? 1 : -1));
    },

    async create(ctx, resource, alongside = []) {
      const { pk, prefix } = ctx.ns.resources(kind);
      const there = await ctx.ports.table.query(pk, { prefix, limit: definition.countMax });
      if (there.items.length >= definition.countMax) {
        throw new AppError('quota_exceeded', {
          detail: `A namespace holds at most ${definition.countMax} ${noun}s, and this one has them. Delete one first.`,
        });
      }
      const time = isoTime(ctx.ports.clock.now());
      const stored = { ...resource, revision: 1, created_at: time, updated_at: time } as unknown as T;
      checkSize(noun, stored);
      const commit = newCommit(ctx);
      const row = {
        ...ctx.ns.resource(kind, resource.id),
        kind,
        dependants: 0,
        last_commit: commit,
        ...(stored as unknown as Record<string, Attribute>),
      };
      const writes: Write[] = [
        { put: row, if: [{ absent: true }] },
        { put: { ...ctx.ns.name(kind, resource.name), id: resource.id }, if: [{ absent: true }] },
        ...addEdges(ctx, resource, resource.parents),
        audit(ctx, `${noun}.create`, resource.id),
        ...(events.created ? [announce(ctx, events.created, { type: noun, id: resource.id }, 1)] : []),
        ...alongside,
      ];
      try {
        await ctx.ports.table.write(writes);
      } catch (error) {
        if (!(error instanceof ConditionFailed)) throw error;
        // Our own first try may have been applied although its answer was lost. The id alone does not tell: some ids
        // follow from names, and then another writer has the same.
        if (error.of(0)?.item?.last_commit === commit) return stored;
        const guard = error.of(1)?.item;
        if (error.of(1)) {
          throw new AppError(code('name_taken'), {
            detail: `A ${noun} named "${resource.name}" exists already (${guard?.id}). Choose another name, or update that one.`,
            extra: { existing_id: guard?.id },
          });
        }
        throw parentGone(writes, error) ?? error;
      }
      return stored;
    },

    async update(ctx, before, changes, alongside = []) {
      const { after, writes: own, commit } = prepareUpdate(ctx, before, changes);
      const writes = [...own, ...alongside];
      try {
        await ctx.ports.table.write(writes);
      } catch (error) {
        if (!(error instanceof ConditionFailed)) throw error;
        if (error.of(0)?.item?.last_commit === commit) return after;
        if (error.of(0))
          throw new AppError(code('changed'), {
            detail: `The ${noun} ${before.id} changed meanwhile; read it again.`,
          });
        const gone = parentGone(writes, error);
        if (gone) throw gone;
        if (after.name !== before.name && error.of(2)) {
          throw new AppError(code('name_taken'), {
            detail: `A ${noun} named "${after.name}" exists already.`,
          });
        }
        throw error;
      }
      return after;
    },

    async remove(ctx, before, alongside = []) {
      const writes: Write[] = [
        {
          delete: ctx.ns.resource(kind, before.id),
          if: [
            { attribute: 'revision', eq: before.revision },
            {
              anyOf: [
                { attribute: 'dependants', missing: true },
                { attribute: 'dependants', eq: 0 },
              ],
            },
          ],
        },
        { delete: ctx.ns.name(kind, before.name) },
        ...removeEdges(ctx, before.id, before.parents),
        audit(ctx, `${noun}.delete`, before.id),
        ...(events.deleted ? [announce(ctx, events.deleted, { type: noun, id: before.id }, 'deleted')] : []),
        ...alongside,
      ];
      try {
        await ctx.ports.table.write(writes);
      } catch (error) {
        if (!(error instanceof ConditionFailed)) throw error;
        const failure = error.of(0);
        if (failure && !failure.item) return; // Deleted already, by us or by somebody else.
        if (failure?.item && Number(failure.item.dependants ?? 0) > 0) {
          const { shown, total } = await dependants(ctx, before.id);
          const names = shown
            .slice(0, 3)
            .map((d) => `${d.type} "${d.name}"`)
            .join(', ');
          throw new AppError(code('in_use'), {
            detail: `The ${noun} "${before.name}" is used by ${total} other resource${total === 1 ? '' : 's'}: ${names}. Delete those first.`,
            extra: { dependants: shown, dependants_total: total },
          });
        }
        throw new AppError(code('changed'), {
          detail: `The ${noun} ${before.id} changed meanwhile; read it again.`,
        });
      }
    },
  };
}
