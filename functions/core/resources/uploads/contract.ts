// Uploads: a presigned URL for a file, and the confirm that makes an object of it. API rules, sections 8 and 12.
import * as z from 'zod';
import { route } from '../../http/route.ts';
import { ListBody, ListQuery, listReply, Metadata, NoContent, Timestamp } from '../../http/schemas.ts';

/** A file above this is refused at confirm; the presigned URL itself takes any size. */
export const uploadBytesMax = 100 * 1024 * 1024;

export const CreateUploadBody = z.strictObject({
  filename: z
    .string()
    .min(1)
    .max(255)
    .regex(/^[^\p{Cc}\p{Cs}]+$/u, 'a file name has printable characters only'),
  content_type: z
    .string()
    .max(100)
    .regex(
      /^[a-z0-9!#$&^_.+-]+\/[a-z0-9!#$&^_.+-]+(; ?[a-z0-9_-]+=[a-z0-9_.-]+)*$/i,
      'a content type has the form type/subtype, such as image/png',
    )
    .meta({ description: 'MIME type; the PUT must send exactly this Content-Type' }),
  file_size_bytes: z
    .int()
    .min(1)
    .max(uploadBytesMax)
    .nullish()
    .meta({ description: 'a hint; the real size is checked at confirm' }),
  presigned_url_expiration: z.int().min(60).max(86_400).default(3600).meta({ description: 'seconds' }),
  metadata: Metadata.optional().meta({ description: 'notes on the upload itself' }),
  create_object_on_confirm: z.boolean().default(true),
  object_metadata: Metadata.nullish().meta({ description: 'metadata of the object that confirm makes' }),
  blob_property: z
    .string()
    .regex(/^[A-Za-z_][A-Za-z0-9_]{0,99}$/, 'a property name has letters, digits and "_"')
    .nullish()
    .meta({
      description:
        'the property of the bucket schema that the file fills; may be left out where only one can be meant',
    }),
  blob_type: z.string().max(40).nullish().meta({ description: 'the type of that property' }),
  // Clients send these; every file is stored.
  file_hash: z
    .string()
    .regex(/^[0-9a-fA-F]{64}$/, 'a SHA-256 in 64 hexadecimal digits')
    .nullish(),
  skip_duplicates: z.boolean().nullish(),
});

export const Upload = z
  .object({
    upload_id: z.string(),
    bucket_id: z.string(),
    filename: z.string(),
    content_type: z.string(),
    file_size_bytes: z.int().nullable().meta({ description: 'declared; after confirm the real size' }),
    presigned_url: z
      .string()
      .nullable()
      .meta({ description: 'PUT the file here; shown at create and on request' }),
    presigned_url_expiration: z.int(),
    s3_key: z.string(),
    status: z.enum(['PENDING', 'COMPLETED']),
    metadata: Metadata,
    create_object_on_confirm: z.boolean(),
    object_metadata: Metadata.nullable(),
    blob_property: z.string().nullable(),
    blob_type: z.string().nullable(),
    etag: z.string().nullable(),
    object_id: z.string().nullable(),
    created_at: Timestamp,
    expires_at: Timestamp.meta({ description: 'when the presigned URL ends' }),
    confirm_until: Timestamp,
    verified_at: Timestamp.nullable(),
    completed_at: Timestamp.nullable(),
    warnings: z.array(z.string()).optional(),
  })
  .meta({ id: 'Upload' });
export type Upload = z.output<typeof Upload>;

export const ConfirmUploadBody = z.strictObject({
  etag: z
    .string()
    .max(200)
    .nullish()
    .meta({ description: 'the ETag that the PUT answered; checked when given' }),
  file_size_bytes: z.int().min(1).nullish().meta({ description: 'checked when given' }),
});

export const ConfirmedUpload = z
  .object({
    upload_id: z.string(),
    bucket_id: z.string(),
    status: z.literal('COMPLETED'),
    etag: z.string(),
    file_size_bytes: z.int(),
    object_id: z.string().nullable(),
    verified_at: Timestamp,
    completed_at: Timestamp,
    message: z.string(),
  })
  .meta({ id: 'ConfirmedUpload' });

const tag = 'uploads';
const base = '/v1/namespaces/{namespace}/buckets/{bucket}/uploads';
const one = `${base}/{upload}` as const;
const rate = 'upload';

export const routes = {
  createUpload: route({
    operation: 'createUpload',
    method: 'POST',
    path: base,
    tag,
    summary: 'Ask for a URL to put a file to',
    rate,
    body: CreateUploadBody,
    reply: Upload,
    errors: ['bucket_not_found', 'object_invalid'],
    example: { body: { filename: 'invoice.pdf', content_type: 'application/pdf', blob_property: 'invoice' } },
  }),
  listUploads: route({
    operation: 'listUploads',
    method: 'GET',
    path: base,
    tag,
    summary: 'List uploads of a bucket that are not expired, newest first',
    rate: 'data',
    query: ListQuery,
    reply: listReply(Upload),
    errors: ['bucket_not_found'],
  }),
  searchUploads: route({
    operation: 'searchUploads',
    method: 'POST',
    path: `${base}/list`,
    tag,
    summary: 'List uploads by search, filter and order',
    permission: 'read',
    rate: 'data',
    query: ListQuery,
    body: ListBody.extend({ return_presigned_urls: z.boolean().nullish() }),
    bodyOptional: true,
    reply: listReply(Upload),
    errors: ['bucket_not_found'],
  }),
  getUpload: route({
    operation: 'getUpload',
    method: 'GET',
    path: one,
    tag,
    summary: 'Read an upload',
    rate: 'data',
    query: z.strictObject({ return_presigned_urls: z.stringbool().default(false) }),
    reply: Upload,
    errors: ['bucket_not_found', 'upload_not_found', 'upload_expired'],
  }),
  confirmUpload: route({
    operation: 'confirmUpload',
    method: 'POST',
    path: `${one}/confirm`,
    tag,
    summary: 'Take over the uploaded file and make an object of it',
    description:
      'Keeps an immutable copy of the bytes that are there now. Repeating it gives the same answer.',
    rate,
    query: z.strictObject({
      async: z
        .stringbool()
        .default(false)
        .meta({ description: 'accepted; the confirm is done when it answers' }),
    }),
    body: ConfirmUploadBody,
    bodyOptional: true,
    reply: ConfirmedUpload,
    errors: [
      'bucket_not_found',
      'upload_not_found',
      'upload_expired',
      'upload_missing',
      'upload_changed',
      'upload_too_large',
      'object_invalid',
    ],
  }),
  deleteUpload: route({
    operation: 'deleteUpload',
    method: 'DELETE',
    path: one,
    tag,
    summary: 'Forget an upload; objects that were made from it stay whole',
    rate: 'data',
    query: z.strictObject({
      delete_s3_object: z
        .stringbool()
        .default(true)
        .meta({ description: 'also delete what was put to the URL and not confirmed' }),
    }),
    reply: NoContent,
    status: 204,
    errors: ['bucket_not_found', 'upload_not_found'],
  }),
};
