// Requests about uploads -> service calls -> replies.
import { isoTime } from '../../clock.ts';
import type { NsCtx } from '../../context.ts';
import type { Handlers } from '../../http/handler.ts';
import type { ListInput } from '../../page.ts';
import { mergeListInput, pageOfAll } from '../../page.ts';
import type { routes, Upload } from './contract.ts';
import type { FileUpload } from './service.ts';
import {
  confirmUpload,
  createUpload,
  deleteUpload,
  getUpload,
  listUploads,
  presignAgain,
} from './service.ts';

function toUpload({ row, facts, result }: FileUpload, presignedUrl: string | null): Upload {
  return {
    upload_id: row.upload_id,
    bucket_id: facts.bucket_id,
    filename: facts.filename,
    content_type: row.content_type,
    file_size_bytes: result?.size_bytes ?? facts.file_size_bytes,
    presigned_url: presignedUrl,
    presigned_url_expiration: facts.presigned_url_expiration,
    s3_key: row.s3_key,
    status: result ? 'COMPLETED' : 'PENDING',
    metadata: facts.metadata as Upload['metadata'],
    create_object_on_confirm: facts.create_object_on_confirm,
    object_metadata: facts.object_metadata as Upload['object_metadata'],
    blob_property: facts.blob_property,
    blob_type: facts.blob_type,
    etag: result?.etag ?? null,
    object_id: result?.object_id ?? null,
    created_at: row.created_at,
    expires_at: isoTime(Date.parse(row.created_at) + facts.presigned_url_expiration * 1000),
    confirm_until: isoTime(row.ends_at * 1000),
    verified_at: result?.confirmed_at ?? null,
    completed_at: result?.confirmed_at ?? null,
  };
}

async function page(ctx: NsCtx, bucket: string, input: ListInput, withUrls: boolean) {
  const rows = (await listUploads(ctx, bucket)).map((upload) => ({ ...toUpload(upload, null), upload }));
  const found = await pageOfAll(ctx, `uploads ${bucket}`, rows, input, ['upload_id', 'filename']);
  const results = found.results.map(async ({ upload, ...shown }) => ({
    ...shown,
    presigned_url: withUrls ? await presignAgain(ctx, upload) : null,
  }));
  return { ...found, results: await Promise.all(results) };
}

export const handlers: Handlers<typeof routes> = {
  createUpload: async ({ ctx, params, body }) => {
    const { upload, presignedUrl } = await createUpload(ctx, params.bucket!, body);
    return toUpload(upload, presignedUrl);
  },
  listUploads: ({ ctx, params, query }) => page(ctx, params.bucket!, query, false),
  searchUploads: ({ ctx, params, query, body }) =>
    page(ctx, params.bucket!, mergeListInput(query, body), body.return_presigned_urls ?? false),
  getUpload: async ({ ctx, params, query }) => {
    const upload = await getUpload(ctx, params.bucket!, params.upload!);
    return toUpload(upload, query.return_presigned_urls ? await presignAgain(ctx, upload) : null);
  },
  confirmUpload: async ({ ctx, params, body }) => {
    const { row, facts, result } = await confirmUpload(ctx, params.bucket!, params.upload!, body);
    return {
      upload_id: row.upload_id,
      bucket_id: facts.bucket_id,
      status: 'COMPLETED' as const,
      etag: result.etag,
      file_size_bytes: result.size_bytes,
      object_id: result.object_id ?? null,
      verified_at: result.confirmed_at,
      completed_at: result.confirmed_at,
      message:
        result.object_id === undefined
          ? `The file is stored. Use "upload_id": "${row.upload_id}" in a blob of an object.`
          : `The file is stored as the object ${result.object_id}.`,
    };
  },
  deleteUpload: async ({ ctx, params, query }) => {
    await deleteUpload(ctx, params.bucket!, params.upload!, query.delete_s3_object);
    return undefined;
  },
};
