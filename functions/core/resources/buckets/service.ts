// The rules of buckets. Other slices call these functions, never the store.
import type * as z from 'zod';
import type { NsCtx } from '../../context.ts';
import type { FieldFault } from '../../errors.ts';
import { AppError, invalid } from '../../errors.ts';
import { checkVersion } from '../../http/version.ts';
import { newId } from '../../ids.ts';
import type { BucketSchema, CreateBucketBody, UpdateBucketBody } from './contract.ts';
import type { StoredBucket } from './store.ts';
import { bucketStore } from './store.ts';

export type { StoredBucket } from './store.ts';

/** @throws AppError bucket_name_taken, quota_exceeded */
export async function createBucket(
  ctx: NsCtx,
  body: z.output<typeof CreateBucketBody>,
): Promise<StoredBucket> {
  return bucketStore.create(ctx, {
    id: newId('bucket', ctx.ports.clock, ctx.ports.random),
    name: body.name,
    parents: [],
    description: body.description ?? null,
    bucket_schema: body.bucket_schema as StoredBucket['bucket_schema'],
    metadata: (body.metadata ?? {}) as StoredBucket['metadata'],
  });
}

/** By id or name. @throws AppError bucket_not_found */
export async function getBucket(ctx: NsCtx, idOrName: string): Promise<StoredBucket> {
  return bucketStore.get(ctx, idOrName);
}

/** All of the namespace, newest first; their number is bounded by the quota. */
export async function listBuckets(ctx: NsCtx): Promise<StoredBucket[]> {
  return bucketStore.list(ctx);
}

/** Objects that are there keep fitting: properties may be added, but neither removed, nor retyped, nor made required. */
function checkSchemaChange(before: BucketSchema, after: BucketSchema): void {
  const faults: FieldFault[] = [];
  const at = (name: string, ...more: string[]) => ['body', 'bucket_schema', 'properties', name, ...more];
  for (const [name, property] of Object.entries(before.properties)) {
    const next = after.properties[name];
    if (!next)
      faults.push({
        type: 'property_removed',
        location: at(name),
        message: `the property "${name}" exists and cannot be removed`,
        fix: 'send it together with the new properties',
      });
    else if (next.type !== property.type) {
      faults.push({
        type: 'property_retyped',
        location: at(name, 'type'),
        message: `"${name}" has the type "${property.type}" and keeps it, got "${next.type}"`,
        fix: 'add a property with another name',
      });
    }
  }
  for (const [name, property] of Object.entries(after.properties)) {
    if (property.required && !before.properties[name]?.required) {
      faults.push({
        type: 'property_required',
        location: at(name, 'required'),
        message: `objects without "${name}" may exist, so it cannot become required`,
      });
    }
  }
  if (faults.length > 0) throw invalid('request_invalid', faults);
}

/** @throws AppError bucket_not_found, bucket_name_taken, bucket_changed, request_stale, request_invalid */
export async function updateBucket(
  ctx: NsCtx,
  idOrName: string,
  body: z.output<typeof UpdateBucketBody>,
  ifMatch?: number,
): Promise<StoredBucket> {
  const before = await bucketStore.get(ctx, idOrName);
  checkVersion(ifMatch, before.revision);
  if (body.bucket_schema) checkSchemaChange(before.bucket_schema, body.bucket_schema);
  return bucketStore.update(ctx, before, {
    ...(body.name === undefined ? {} : { name: body.name }),
    ...(body.description === undefined ? {} : { description: body.description }),
    ...(body.bucket_schema === undefined
      ? {}
      : { bucket_schema: body.bucket_schema as StoredBucket['bucket_schema'] }),
    ...(body.metadata === undefined ? {} : { metadata: body.metadata as StoredBucket['metadata'] }),
  });
}

/** Objects that one forced delete removes, at most, so that the request ends well within its time. */
const forcedObjectsMax = 10_000;

/** Removes rows first, then their content: what is left over after a crash is invisible and goes with the namespace. */
async function emptyBucket(ctx: NsCtx, bucket: StoredBucket): Promise<boolean> {
  const { pk, prefix } = ctx.ns.objects(bucket.id);
  let removed = 0;
  for (;;) {
    const { items } = await ctx.ports.table.query(pk, { prefix, limit: 1000 });
    if (items.length === 0) break;
    if (removed >= forcedObjectsMax) return false;
    await ctx.ports.table.writeMany(items.map((item) => ({ delete: { pk: item.pk, sk: item.sk } })));
    removed += items.length;
  }
  const content = `objects/${ctx.ns.namespaceId}/${bucket.id}/`;
  for (;;) {
    const { blobs } = await ctx.ports.blobs.list(content);
    if (blobs.length === 0) return true;
    await Promise.all(blobs.map((blob) => ctx.ports.blobs.delete(blob.key)));
  }
}

/**
 * Deletes a bucket that holds no objects; with `force` its objects go first.
 *
 * @throws AppError bucket_not_found, bucket_in_use (collections read it, or objects are in it)
 */
export async function deleteBucket(
  ctx: NsCtx,
  idOrName: string,
  force: boolean,
  ifMatch?: number,
): Promise<StoredBucket> {
  const bucket = await bucketStore.get(ctx, idOrName);
  checkVersion(ifMatch, bucket.revision);
  const readers = await bucketStore.dependants(ctx, bucket.id);
  const { pk, prefix } = ctx.ns.objects(bucket.id);
  const { items } = await ctx.ports.table.query(pk, { prefix, limit: 1 });
  if (items.length > 0 && readers.total === 0) {
    if (!force) {
      throw new AppError('bucket_in_use', {
        detail: `The bucket "${bucket.name}" still holds objects. Delete them first, or delete the bucket with ?force=true.`,
      });
    }
    if (!(await emptyBucket(ctx, bucket))) {
      throw new AppError('bucket_in_use', {
        detail: `The bucket "${bucket.name}" held more than ${forcedObjectsMax} objects; that many are gone. Repeat the request for the rest.`,
      });
    }
  }
  // A reader that is there, or comes meanwhile, makes this refuse with its name.
  await bucketStore.remove(ctx, bucket);
  return bucket;
}
