// How objects are stored: one row each, in their bucket's partition; ids sort by creation.
import type { NsCtx } from '../../context.ts';
import type { Attribute, Item, Key } from '../../store/table.ts';

/** One piece of an object: a value of one property of the bucket's schema. */
export interface StoredBlob {
  readonly blob_id: string;
  /** A property of the bucket's schema. */
  readonly property: string;
  /** The property's type in the schema. */
  readonly type: string;
  /** The value, where it is small enough to stand in the row: text, number, boolean, list or object. */
  readonly data?: Attribute;
  /** Key in the blob bucket, immutable: binary content, or text that is too long for the row. */
  readonly s3_key?: string;
  readonly mime_type: string;
  readonly size_bytes: number;
  readonly [name: string]: Attribute | undefined;
}

export interface StoredObject {
  readonly object_id: string;
  readonly bucket_id: string;
  /** Grows by one with each change; batches go by it. */
  readonly version: number;
  readonly blobs: readonly StoredBlob[];
  readonly metadata: { readonly [name: string]: Attribute };
  readonly key_prefix: string | null;
  readonly created_at: string;
  readonly updated_at: string;
}

/** Members of the row that are not the object's. */
const rowMembers = new Set(['pk', 'sk']);

export function toObject(item: Item): StoredObject {
  return Object.fromEntries(
    Object.entries(item).filter(([name]) => !rowMembers.has(name)),
  ) as unknown as StoredObject;
}

/** The row of an object, for the transaction that writes it. */
export function objectItem(ctx: NsCtx, object: StoredObject): Item {
  return {
    ...ctx.ns.object(object.bucket_id, object.object_id),
    ...(object as unknown as Record<string, Attribute>),
  };
}

export async function findObject(
  ctx: NsCtx,
  bucketId: string,
  objectId: string,
): Promise<StoredObject | undefined> {
  const item = await ctx.ports.table.get(ctx.ns.object(bucketId, objectId));
  return item && toObject(item);
}

/** In the order of the ids; undefined where there is none. */
export async function findObjects(
  ctx: NsCtx,
  bucketId: string,
  objectIds: readonly string[],
): Promise<(StoredObject | undefined)[]> {
  const items = await ctx.ports.table.getMany(objectIds.map((id) => ctx.ns.object(bucketId, id)));
  return items.map((item) => item && toObject(item));
}

export interface ObjectPage {
  readonly objects: readonly StoredObject[];
  /** Where to go on; undefined at the end. */
  readonly next?: Key;
}

/** A page of a bucket's objects by id: oldest first, or newest first with `descending`. */
export async function queryObjects(
  ctx: NsCtx,
  bucketId: string,
  options: { readonly after?: Key | undefined; readonly limit?: number; readonly descending?: boolean } = {},
): Promise<ObjectPage> {
  const { pk, prefix } = ctx.ns.objects(bucketId);
  const page = await ctx.ports.table.query(pk, { prefix, ...options });
  const objects = page.items.map(toObject);
  return page.next ? { objects, next: page.next } : { objects };
}
