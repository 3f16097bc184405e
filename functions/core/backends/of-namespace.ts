// Which vector backend and which storage a namespace has: one row, read at most once a minute by each environment.
import type { NsCtx } from '../context.ts';
import { AppError } from '../errors.ts';
import type { Attribute, Item, Table } from '../store/table.ts';
import type { VectorBackend } from './backend.ts';
import type { BackendName, CopyBackendName, StorageFormat } from './registry.ts';
import { backendNames, describe, storageFormats } from './registry.ts';

/** A move to another backend that has begun. */
export interface Migration {
  readonly to: BackendName;
  readonly run_id: string;
  readonly task_id: string;
  readonly started_at: string;
}

/** The vector index of a namespace, as its row says it under `vector_index`. */
export interface VectorIndex {
  /** Gives the candidates of searches. */
  readonly backend: BackendName;
  /** How vectors are written into new segments. */
  readonly storage: StorageFormat;
  readonly migration: Migration | null;
  /** A backend whose copies are being removed; none can be made there until that has ended. */
  readonly dropping: CopyBackendName | null;
}

/** What a namespace has that was made without a choice. */
export const defaultVectorIndex: VectorIndex = {
  backend: 'segments',
  storage: 'float32',
  migration: null,
  dropping: null,
};

/**
 * How long an environment may act on an older setting. Harmless: a search by an older backend finds its copy, or finds
 * it gone and scans. Copies of the old backend are dropped only when this time is over.
 */
export const settingKeptMs = 60_000;

interface Kept {
  readonly until: number;
  readonly value: Promise<VectorIndex>;
}

const kept = new WeakMap<Table, Map<string, Kept>>();
const keptMax = 1_000;

/** Reads `vector_index` of a namespace's row; rows of older versions have none. */
export function toVectorIndex(row: Item | { readonly vector_index?: unknown } | undefined): VectorIndex {
  const stored = row?.vector_index as Partial<Record<keyof VectorIndex, unknown>> | undefined;
  return {
    backend: backendNames.find((name) => name === stored?.backend) ?? defaultVectorIndex.backend,
    storage: storageFormats.find((name) => name === stored?.storage) ?? defaultVectorIndex.storage,
    migration: (stored?.migration as Migration | null | undefined) ?? null,
    dropping: (stored?.dropping as CopyBackendName | null | undefined) ?? null,
  };
}

/** The setting as it is stored. */
export function fromVectorIndex(index: VectorIndex): { readonly [name: string]: Attribute } {
  return {
    backend: index.backend,
    storage: index.storage,
    migration: index.migration === null ? null : { ...index.migration },
    dropping: index.dropping,
  };
}

/** The vector index of the context's namespace; at most `settingKeptMs` old. The storage never changes. */
export function vectorIndexOf(ctx: NsCtx): Promise<VectorIndex> {
  const { table, clock } = ctx.ports;
  const known = kept.get(table) ?? new Map<string, Kept>();
  kept.set(table, known);
  const key = `${ctx.ns.orgId} ${ctx.ns.namespaceId}`;
  const found = known.get(key);
  if (found && found.until > clock.now()) return found.value;
  const value = readVectorIndex(ctx);
  known.delete(key);
  known.set(key, { until: clock.now() + settingKeptMs, value });
  if (known.size > keptMax) known.delete(known.keys().next().value!);
  // What could not be read is read again.
  value.catch(() => known.delete(key));
  return value;
}

/** As `vectorIndexOf`, always from the row. */
export async function readVectorIndex(ctx: NsCtx): Promise<VectorIndex> {
  return toVectorIndex(await ctx.ports.table.get(ctx.org.namespace(ctx.ns.namespaceId)));
}

/** The backends that this stage can use, `segments` among them. */
export function enabledBackends(ctx: Pick<NsCtx, 'ports'>): BackendName[] {
  return backendNames.filter((name) => name === 'segments' || ctx.ports.backends?.[name] !== undefined);
}

/** @throws AppError vector_backend_not_enabled, with the setting that enables it */
export function requireBackend(ctx: Pick<NsCtx, 'ports'>, name: BackendName): void {
  if (enabledBackends(ctx).includes(name)) return;
  const { title, stageSetting } = describe(name);
  throw new AppError('vector_backend_not_enabled', {
    detail: `The stage "${ctx.ports.settings.stage}" does not have ${title} ("${name}"). Set ${stageSetting}: true for it in infra/stage.ts and deploy, or choose one of: ${enabledBackends(ctx).join(', ')}.`,
    extra: { stage_setting: stageSetting },
  });
}

/** The backend ready to be called. @throws AppError vector_backend_not_enabled */
export function backendOf(ctx: Pick<NsCtx, 'ports'>, name: CopyBackendName): VectorBackend {
  requireBackend(ctx, name);
  return ctx.ports.backends![name]!;
}
