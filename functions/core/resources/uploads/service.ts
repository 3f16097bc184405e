// The rules of uploads: the URL first, the bytes next, and a confirm that trusts neither what was declared nor that the
// bytes stay as they are.
import type * as z from 'zod';
import { isoTime } from '../../clock.ts';
import type { NsCtx } from '../../context.ts';
import { crash } from '../../crash.ts';
import { AppError, invalid } from '../../errors.ts';
import { newId } from '../../ids.ts';
import { scanRowsMax } from '../../page.ts';
import { BlobConflict, BlobMissing } from '../../store/blobs.ts';
import { ConditionFailed } from '../../store/table.ts';
import type { StoredUpload } from '../../store/upload-rows.ts';
import {
  deleteUpload as deleteRow,
  findUpload,
  getUpload as getRow,
  listUploads as listRows,
  markConfirmed,
  objectMade,
  putUpload,
  uploadKeepSeconds,
} from '../../store/upload-rows.ts';
import { binaryTypes } from '../buckets/contract.ts';
import type { StoredBucket } from '../buckets/service.ts';
import { getBucket } from '../buckets/service.ts';
import { createObject, objectFaults } from '../objects/service.ts';
import type { ConfirmUploadBody, CreateUploadBody } from './contract.ts';
import { uploadBytesMax } from './contract.ts';

/** What a create declared, as the row's `facts` hold it. */
export interface UploadFacts {
  readonly bucket_id: string;
  readonly filename: string;
  readonly file_size_bytes: number | null;
  readonly presigned_url_expiration: number;
  readonly metadata: Readonly<Record<string, unknown>>;
  readonly create_object_on_confirm: boolean;
  readonly object_metadata: Readonly<Record<string, unknown>> | null;
  readonly blob_property: string | null;
  readonly blob_type: string | null;
  /** The id that the object will have: two confirms cannot make two. */
  readonly object_id: string;
}

/** What confirm found, as the row's `result` holds it. */
export interface UploadResult {
  readonly s3_key: string;
  readonly size_bytes: number;
  readonly etag: string;
  readonly confirmed_at: string;
  readonly object_id?: string;
}

export interface FileUpload {
  readonly row: StoredUpload;
  readonly facts: UploadFacts;
  /** Undefined before the confirm. */
  readonly result: UploadResult | undefined;
}

function toUpload(row: StoredUpload): FileUpload {
  return {
    row,
    facts: row.facts as unknown as UploadFacts,
    result: (row.result ?? undefined) as UploadResult | undefined,
  };
}

/** The property that the file fills: the one named, or the only one that can be meant. */
function propertyOf(bucket: StoredBucket, named: string | null | undefined): string {
  const { properties } = bucket.bucket_schema;
  if (named !== undefined && named !== null) return named;
  const names = Object.keys(properties);
  const binary = names.filter((name) => (binaryTypes as readonly string[]).includes(properties[name]!.type));
  const only = binary.length === 1 ? binary[0] : names.length === 1 ? names[0] : undefined;
  if (only !== undefined) return only;
  throw invalid('object_invalid', [
    {
      type: 'missing',
      location: ['body', 'blob_property'],
      message: `required: the bucket "${bucket.name}" has several properties that the file could fill`,
      fix: `one of: ${(binary.length > 0 ? binary : names).join(', ')}; or "create_object_on_confirm": false`,
    },
  ]);
}

/** The body of the object that confirm makes. */
function objectBody(
  facts: Pick<UploadFacts, 'blob_property' | 'blob_type' | 'object_metadata'>,
  uploadId: string,
) {
  return {
    blobs: [{ property: facts.blob_property, type: facts.blob_type, upload_id: uploadId }],
    ...(facts.object_metadata === null ? {} : { metadata: facts.object_metadata }),
  };
}

/** Where the parts of the future object stand in the request for its upload. */
const whereInRequest: Readonly<Record<string, readonly string[]>> = {
  'body.blobs.0.property': ['body', 'blob_property'],
  'body.blobs.0.type': ['body', 'blob_type'],
  'body.metadata': ['body', 'object_metadata'],
};

/** @throws AppError object_invalid, with the fields as the request for the upload names them */
function assertObjectFits(bucket: StoredBucket, facts: UploadFacts, uploadId: string): void {
  const faults = objectFaults(bucket, objectBody(facts, uploadId));
  if (faults.length === 0) return;
  throw invalid(
    'object_invalid',
    faults.map((fault) => {
      const known = Object.entries(whereInRequest).find(([at]) =>
        `${fault.location.join('.')}.`.startsWith(`${at}.`),
      );
      if (known)
        return { ...fault, location: [...known[1], ...fault.location.slice(known[0].split('.').length)] };
      // What the object lacks beside the file, such as a required text: an upload has no place for it.
      return {
        ...fault,
        location: ['body', 'create_object_on_confirm'],
        message: `the file alone makes no object of this bucket: ${fault.message}`,
        fix: 'send "create_object_on_confirm": false, confirm the upload, then create the object with a blob of this upload_id',
      };
    }),
  );
}

export interface UploadTicket {
  readonly upload: FileUpload;
  readonly presignedUrl: string;
}

/** An object that could not be made at confirm is refused here already. @throws AppError bucket_not_found, object_invalid */
export async function createUpload(
  ctx: NsCtx,
  bucketName: string,
  body: z.output<typeof CreateUploadBody>,
): Promise<UploadTicket> {
  const bucket = await getBucket(ctx, bucketName);
  const { clock, random } = ctx.ports;
  const uploadId = newId('upload', clock, random);
  const property = body.create_object_on_confirm
    ? propertyOf(bucket, body.blob_property)
    : (body.blob_property ?? null);
  const { properties } = bucket.bucket_schema;
  const schemaType =
    property !== null && Object.hasOwn(properties, property) ? properties[property]?.type : undefined;
  const facts: UploadFacts = {
    bucket_id: bucket.id,
    filename: body.filename,
    file_size_bytes: body.file_size_bytes ?? null,
    presigned_url_expiration: body.presigned_url_expiration,
    metadata: body.metadata ?? {},
    create_object_on_confirm: body.create_object_on_confirm,
    object_metadata: body.object_metadata ?? null,
    blob_property: property,
    blob_type: body.blob_type ?? schemaType ?? null,
    object_id: newId('object', clock, random),
  };
  if (body.create_object_on_confirm) assertObjectFits(bucket, facts, uploadId);
  if (body.skip_duplicates || body.file_hash) {
    ctx.warnings.push('skip_duplicates and file_hash have no effect: every file is stored');
  }
  const nowMs = clock.now();
  const row: StoredUpload = {
    upload_id: uploadId,
    purpose: 'object',
    s3_key: `uploads/${ctx.ns.namespaceId}/${uploadId}`,
    content_type: body.content_type,
    ends_at: Math.floor(nowMs / 1000) + uploadKeepSeconds,
    created_at: isoTime(nowMs),
    state: 'pending',
    facts: facts as unknown as StoredUpload['facts'],
    result: null,
  };
  await putUpload(ctx, row);
  const presignedUrl = await ctx.ports.blobs.presignPut(
    row.s3_key,
    body.presigned_url_expiration,
    body.content_type,
  );
  return { upload: toUpload(row), presignedUrl };
}

/** A fresh URL for an upload that waits for its file; null once it is confirmed. */
export async function presignAgain(ctx: NsCtx, upload: FileUpload): Promise<string | null> {
  if (upload.row.state === 'confirmed') return null;
  const left = Math.floor(upload.row.ends_at - ctx.ports.clock.now() / 1000);
  const seconds = Math.max(60, Math.min(upload.facts.presigned_url_expiration, left));
  return ctx.ports.blobs.presignPut(upload.row.s3_key, seconds, upload.row.content_type);
}

/** An upload belongs to one bucket; through another it does not exist. */
function assertOfBucket(upload: FileUpload, bucket: StoredBucket): FileUpload {
  if (upload.facts.bucket_id === bucket.id) return upload;
  throw new AppError('upload_not_found', {
    detail: `The bucket "${bucket.name}" has no upload "${upload.row.upload_id}".`,
  });
}

/** @throws AppError bucket_not_found, upload_not_found, upload_expired */
export async function getUpload(ctx: NsCtx, bucketName: string, uploadId: string): Promise<FileUpload> {
  const bucket = await getBucket(ctx, bucketName);
  return assertOfBucket(toUpload(await getRow(ctx, 'object', uploadId)), bucket);
}

/** Of one bucket, newest first; among the newest 10,000 uploads of the namespace. @throws AppError bucket_not_found */
export async function listUploads(ctx: NsCtx, bucketName: string): Promise<FileUpload[]> {
  const bucket = await getBucket(ctx, bucketName);
  const { uploads, complete } = await listRows(ctx, 'object', scanRowsMax);
  if (!complete) ctx.warnings.push(`only the newest ${scanRowsMax} uploads of the namespace were looked at`);
  return uploads.map(toUpload).filter((upload) => upload.facts.bucket_id === bucket.id);
}

/**
 * Copies the bytes that are there now, by their ETag, to a key that nobody can write, and records what they are.
 *
 * A PUT to the presigned URL afterwards changes nothing.
 */
async function takeBytes(
  ctx: NsCtx,
  bucket: StoredBucket,
  upload: FileUpload,
  declared: z.output<typeof ConfirmUploadBody>,
): Promise<FileUpload> {
  const { blobs } = ctx.ports;
  const { upload_id: uploadId, s3_key: source } = upload.row;
  const info = await blobs.head(source);
  if (!info) {
    // Somebody else's confirm may just have finished and cleaned up.
    const now = await findUpload(ctx, 'object', uploadId);
    if (now.state === 'confirmed') return toUpload(now);
    throw new AppError('upload_missing', {
      detail: `Nothing has been put to the presigned URL yet. PUT the file there with Content-Type: ${upload.row.content_type}, then confirm.`,
    });
  }
  if (info.bytes > uploadBytesMax) {
    throw new AppError('upload_too_large', {
      detail: `The file has ${info.bytes} bytes; at most ${uploadBytesMax} are accepted.`,
    });
  }
  const bare = (etag: string) => etag.replace(/^W\//, '').replaceAll('"', '');
  if (declared.etag && bare(declared.etag) !== bare(info.etag)) {
    throw new AppError('upload_changed', {
      detail: `The uploaded bytes have the ETag ${info.etag}, the confirm names ${declared.etag}. Upload again.`,
    });
  }
  if (declared.file_size_bytes && declared.file_size_bytes !== info.bytes) {
    throw new AppError('upload_changed', {
      detail: `The uploaded file has ${info.bytes} bytes, the confirm names ${declared.file_size_bytes}. Upload again.`,
    });
  }
  const key = `objects/${ctx.ns.namespaceId}/${bucket.id}/uploads/${uploadId}-${bare(info.etag).replace(/[^A-Za-z0-9-]/g, '')}`;
  try {
    await blobs.copyFrom(blobs, source, key, info.etag);
  } catch (error) {
    if (!(error instanceof BlobConflict || error instanceof BlobMissing)) throw error;
    const now = await findUpload(ctx, 'object', uploadId);
    if (now.state === 'confirmed') return toUpload(now);
    throw new AppError('upload_changed', {
      detail: 'The uploaded bytes changed while they were being confirmed. Confirm again.',
      cause: error,
    });
  }
  crash('upload.confirm.after_copy');
  const result: UploadResult = {
    s3_key: key,
    size_bytes: info.bytes,
    etag: bare(info.etag),
    confirmed_at: isoTime(ctx.ports.clock.now()),
  };
  const confirmed = toUpload(
    await markConfirmed(ctx, upload.row, result as unknown as NonNullable<StoredUpload['result']>),
  );
  // Two confirms over different bytes: the copy of the one that came second is nobody's.
  if (confirmed.result?.s3_key !== key) await blobs.delete(key);
  await blobs.delete(source);
  return confirmed;
}

/** Makes the object of a confirmed upload, once. @throws AppError object_invalid when the schema changed meanwhile */
async function makeObject(ctx: NsCtx, bucket: StoredBucket, upload: FileUpload): Promise<FileUpload> {
  const { facts, row } = upload;
  try {
    await createObject(ctx, bucket.id, objectBody(facts, row.upload_id), {
      objectId: facts.object_id,
      write: objectMade(ctx, row, facts.object_id),
    });
  } catch (error) {
    if (!(error instanceof ConditionFailed)) throw error;
  }
  return toUpload(await findUpload(ctx, 'object', row.upload_id));
}

/**
 * Takes over the uploaded file. Repeating it, also after a crash in between, goes on where it stopped.
 *
 * @throws AppError bucket_not_found, upload_not_found, upload_expired, upload_missing, upload_changed, upload_too_large, object_invalid
 */
export async function confirmUpload(
  ctx: NsCtx,
  bucketName: string,
  uploadId: string,
  declared: z.output<typeof ConfirmUploadBody>,
): Promise<FileUpload & { readonly result: UploadResult }> {
  const bucket = await getBucket(ctx, bucketName);
  let upload = assertOfBucket(toUpload(await getRow(ctx, 'object', uploadId)), bucket);
  if (upload.row.state === 'pending') upload = await takeBytes(ctx, bucket, upload, declared);
  if (upload.facts.create_object_on_confirm && upload.result?.object_id === undefined)
    upload = await makeObject(ctx, bucket, upload);
  if (!upload.result)
    throw new AppError('internal_error', {
      internal: `the upload ${uploadId} is confirmed without a result`,
    });
  return { ...upload, result: upload.result };
}

/** Forgets an upload. Its confirmed content stays, since objects may use it; it goes with its bucket. */
export async function deleteUpload(
  ctx: NsCtx,
  bucketName: string,
  uploadId: string,
  withBytes: boolean,
): Promise<void> {
  const bucket = await getBucket(ctx, bucketName);
  const { row } = assertOfBucket(toUpload(await findUpload(ctx, 'object', uploadId)), bucket);
  await deleteRow(ctx, uploadId);
  if (withBytes) await ctx.ports.blobs.delete(row.s3_key);
}
