// A small change of an index as a row holds it while it waits to be committed together with others.
import type { NsCtx } from '../context.ts';
import type { ColumnPatch, ColumnValue } from '../vectors/columns.ts';
import { writesPerCollection } from './commit-index.ts';
import type { Item, Key, Write } from './table.ts';
import { keyOf } from './write-rules.ts';

/** A change of some columns of a document; names as `flattenColumns` makes them. */
export interface RowPatch {
  readonly id: string;
  readonly columns: ColumnPatch;
}

/** What a request does to the index of one collection, and to rows of the table in the same transaction. */
export interface SmallChange {
  /** Names the commit for ever: a repetition finds it applied and changes nothing. */
  readonly token: string;
  readonly patches: readonly RowPatch[];
  /** Ids of documents that go. */
  readonly deleted: readonly string[];
  /** Documents that come (positive) or go (negative). */
  readonly document_delta: number;
  readonly writes: readonly Write[];
  /** Only while no batch has committed since this watermark was read. */
  readonly committed_seq?: number | undefined;
}

/** A change as it was found waiting. */
export interface PendingChange extends SmallChange {
  readonly key: Key;
  /** Length of its text: what it adds to a transaction, about. */
  readonly bytes: number;
}

/** Writes that one waiting change adds to a transaction beside its own: its token, and the end of its row. */
export const writesPerChange = 2;
/** Writes of one transaction. */
export const writesMax = 100;
const changeBytesMax = 100_000;
/** After this nobody applies it any more; whoever sent it has long been told that it failed. */
const keepMs = 30_000;

type Wire = Omit<SmallChange, 'patches'> & {
  /** Columns as [name, value], or [name] for one that goes: JSON knows no maps and no undefined. */
  readonly patches: readonly (readonly [
    id: string,
    columns: readonly ([string] | [string, ColumnValue])[],
  ])[];
};

/**
 * The text that keeps a change in a row.
 *
 * @returns undefined for a change that must be committed by itself: too large, too many writes, writes on rows that
 *   the commit itself writes, or values that JSON does not give back as they were (bytes, -0)
 */
export function encodeChange(ctx: NsCtx, collectionId: string, change: SmallChange): string | undefined {
  if (change.writes.length + writesPerChange + writesPerCollection > writesMax) return undefined;
  const taken = new Set(
    [
      ctx.ns.head(collectionId),
      ctx.ns.resource('COLLECTION', collectionId),
      ctx.ns.commitToken(collectionId, change.token),
    ].map(rowName),
  );
  for (const write of change.writes) {
    const name = rowName(keyOf(write));
    if (taken.has(name) || !isJson(write)) return undefined;
    taken.add(name);
  }
  const patches = change.patches.map(
    ({ id, columns }) =>
      [id, [...columns].map(([name, value]) => (value === undefined ? [name] : [name, value]))] as const,
  );
  if (!isJson(patches)) return undefined;
  const text = JSON.stringify({ ...change, patches });
  return Buffer.byteLength(text) > changeBytesMax ? undefined : text;
}

/** The row of a waiting change. `id` sorts by arrival. */
export function pendingRow(ctx: NsCtx, collectionId: string, id: string, text: string): Item {
  return {
    ...ctx.ns.pendingChange(collectionId, id),
    change: text,
    expires_at: Math.floor((ctx.ports.clock.now() + keepMs) / 1000),
  };
}

/** Whether a waiting change came too long ago to be applied. */
export function isExpired(row: Item, nowMs: number): boolean {
  return Number(row.expires_at) < Math.floor(nowMs / 1000);
}

/** The change in a row of `pendingRow`. */
export function decodeChange({ pk, sk, change }: Item): PendingChange {
  const text = String(change);
  const { patches, ...rest } = JSON.parse(text) as Wire;
  return {
    ...rest,
    patches: patches.map(([id, columns]) => ({
      id,
      columns: new Map(columns.map(([name, value]) => [name, value] as const)),
    })),
    key: { pk, sk },
    bytes: text.length,
  };
}

/** One text for a key, to compare keys by. */
export const rowName = ({ pk, sk }: Key): string => `${pk}\u0000${sk}`;

/** Whether JSON gives a value back as it is. Members that are undefined are left out here and in the table alike. */
function isJson(value: unknown): boolean {
  if (value === null || value === undefined) return true;
  if (typeof value === 'number') return Number.isFinite(value) && !Object.is(value, -0);
  if (typeof value !== 'object') return typeof value === 'string' || typeof value === 'boolean';
  if (Array.isArray(value)) return value.every((element) => element !== undefined && isJson(element));
  const prototype: unknown = Object.getPrototypeOf(value);
  return (prototype === Object.prototype || prototype === null) && Object.values(value).every(isJson);
}
