// Requests about buckets -> service calls -> replies.
import type { NsCtx } from '../../context.ts';
import type { Handlers } from '../../http/handler.ts';
import { Answer } from '../../http/handler.ts';
import type { ListInput } from '../../page.ts';
import { mergeListInput, pageOfAll } from '../../page.ts';
import type { Bucket, routes } from './contract.ts';
import type { StoredBucket } from './service.ts';
import { createBucket, deleteBucket, getBucket, listBuckets, updateBucket } from './service.ts';

function toBucket(stored: StoredBucket): Bucket {
  return {
    bucket_id: stored.id,
    bucket_name: stored.name,
    name: stored.name,
    description: stored.description,
    bucket_schema: stored.bucket_schema,
    metadata: stored.metadata as Bucket['metadata'],
    version: stored.revision,
    created_at: stored.created_at,
    updated_at: stored.updated_at,
  };
}

async function page(ctx: NsCtx, input: ListInput) {
  const rows = (await listBuckets(ctx)).map(toBucket);
  return pageOfAll(ctx, 'buckets', rows, input, ['bucket_id', 'bucket_name', 'description']);
}

const answer = (stored: StoredBucket) => new Answer(toBucket(stored), { etag: stored.revision });

export const handlers: Handlers<typeof routes> = {
  createBucket: async ({ ctx, body }) => answer(await createBucket(ctx, body)),
  listBuckets: ({ ctx, query }) => page(ctx, query),
  searchBuckets: ({ ctx, query, body }) => page(ctx, mergeListInput(query, body)),
  getBucket: async ({ ctx, params }) => answer(await getBucket(ctx, params.bucket!)),
  putBucket: async ({ ctx, params, body, ifMatch }) =>
    answer(await updateBucket(ctx, params.bucket!, body, ifMatch)),
  patchBucket: async ({ ctx, params, body, ifMatch }) =>
    answer(await updateBucket(ctx, params.bucket!, body, ifMatch)),
  deleteBucket: async ({ ctx, params, query, ifMatch }) => {
    const bucket = await deleteBucket(ctx, params.bucket!, query.force, ifMatch);
    return { success: true as const, message: `Bucket ${bucket.name} deleted.` };
  },
};
