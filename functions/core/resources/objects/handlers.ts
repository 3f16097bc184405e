// Requests about objects -> service calls -> replies.
import type { NsCtx } from '../../context.ts';
import type { Handlers } from '../../http/handler.ts';
import { Answer } from '../../http/handler.ts';
import type { ListInput } from '../../page.ts';
import { mergeListInput } from '../../page.ts';
import type { BucketObject, routes } from './contract.ts';
import type { StoredObject } from './service.ts';
import {
  createObject,
  createObjects,
  deleteObject,
  getObject,
  listObjects,
  updateObject,
} from './service.ts';

const urlSeconds = 3600;

async function toObject(ctx: NsCtx, object: StoredObject, withUrls = false): Promise<BucketObject> {
  const blobs = await Promise.all(
    object.blobs.map(async (blob) => ({
      blob_id: blob.blob_id,
      property: blob.property,
      type: blob.type,
      data: (blob.data ?? null) as BucketObject['blobs'][number]['data'],
      url: blob.s3_key === undefined ? null : ctx.ports.blobs.uri(blob.s3_key),
      presigned_url:
        withUrls && blob.s3_key !== undefined
          ? await ctx.ports.blobs.presignGet(blob.s3_key, urlSeconds)
          : null,
      mime_type: blob.mime_type,
      size_bytes: blob.size_bytes,
    })),
  );
  return {
    object_id: object.object_id,
    bucket_id: object.bucket_id,
    key_prefix: object.key_prefix,
    blobs,
    metadata: object.metadata as BucketObject['metadata'],
    status: 'ACTIVE',
    version: object.version,
    created_at: object.created_at,
    updated_at: object.updated_at,
  };
}

async function page(ctx: NsCtx, bucket: string, input: ListInput, withUrls = false) {
  const found = await listObjects(ctx, bucket, input);
  return {
    ...found,
    results: await Promise.all(found.results.map((object) => toObject(ctx, object, withUrls))),
  };
}

async function answer(ctx: NsCtx, object: StoredObject, withUrls = false) {
  return new Answer(await toObject(ctx, object, withUrls), { etag: object.version });
}

export const handlers: Handlers<typeof routes> = {
  createObject: async ({ ctx, params, body }) => answer(ctx, await createObject(ctx, params.bucket!, body)),
  createObjects: async ({ ctx, params, body }) => {
    const { created, failed } = await createObjects(ctx, params.bucket!, body.objects);
    const results = [
      ...created.map(({ index, object }) => ({
        index,
        status: 'created' as const,
        object_id: object.object_id,
      })),
      ...failed.map(({ index }) => ({ index, status: 'failed' as const, object_id: null })),
    ];
    return {
      succeeded: await Promise.all(created.map(({ object }) => toObject(ctx, object))),
      failed: failed.map(({ index, error }) => ({
        object_index: index,
        error: error.detail,
        error_type: error.type,
        validation_errors: error.fields as unknown as BucketObject['metadata'][string][],
      })),
      results: results.sort((a, b) => a.index - b.index),
      total_requested: body.objects.length,
      succeeded_count: created.length,
      failed_count: failed.length,
    };
  },
  listObjects: ({ ctx, params, query }) => page(ctx, params.bucket!, query),
  searchObjects: ({ ctx, params, query, body }) =>
    page(ctx, params.bucket!, mergeListInput(query, body), body.return_presigned_urls ?? false),
  getObject: async ({ ctx, params, query }) =>
    answer(ctx, await getObject(ctx, params.bucket!, params.object!), query.return_presigned_urls),
  putObject: async ({ ctx, params, body, ifMatch }) =>
    answer(ctx, await updateObject(ctx, params.bucket!, params.object!, body, 'replace', ifMatch)),
  patchObject: async ({ ctx, params, body, ifMatch }) =>
    answer(ctx, await updateObject(ctx, params.bucket!, params.object!, body, 'merge', ifMatch)),
  deleteObject: async ({ ctx, params, ifMatch }) => {
    await deleteObject(ctx, params.bucket!, params.object!, ifMatch);
    return undefined;
  },
};
