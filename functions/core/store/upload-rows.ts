// Uploads under way: a row each, from the presigned URL to the confirm. A row that is never confirmed expires.
import type { NsCtx } from '../context.ts';
import { AppError } from '../errors.ts';
import { audit } from './audit.ts';
import type { Attribute, Key, Write } from './table.ts';
import { ConditionFailed } from './table.ts';

export interface StoredUpload {
  readonly upload_id: string;
  readonly purpose: 'plugin' | 'object' | 'import';
  /** Where the caller puts the bytes; quarantine, nothing reads it but confirm. */
  readonly s3_key: string;
  readonly content_type: string;
  /** Seconds since the epoch; the confirm is refused after it. */
  readonly ends_at: number;
  readonly created_at: string;
  readonly state: 'pending' | 'confirmed';
  /** What the caller declared, and what confirm found. */
  readonly facts: { readonly [name: string]: Attribute };
  /** The answer of the confirm, to be given again. */
  readonly result: { readonly [name: string]: Attribute } | null;
}

/** Rows and quarantined bytes go after this (API rules, section 12). */
export const uploadKeepSeconds = 24 * 3600;

export async function putUpload(ctx: NsCtx, upload: StoredUpload): Promise<void> {
  const row = {
    ...ctx.ns.resource('UPLOAD', upload.upload_id),
    ...(upload as unknown as Record<string, Attribute>),
  };
  await ctx.ports.table.write([
    { put: { ...row, expires_at: upload.ends_at + uploadKeepSeconds } },
    audit(ctx, upload.state === 'pending' ? 'upload.create' : 'upload.confirm', upload.upload_id),
  ]);
}

/** Whether the time to confirm it is over. */
export function isExpired(ctx: NsCtx, upload: StoredUpload): boolean {
  return upload.state === 'pending' && upload.ends_at < ctx.ports.clock.now() / 1000;
}

/** The same for what never was and for what is not to be seen here. */
export function uploadNotFound(uploadId: string): AppError {
  return new AppError('upload_not_found', {
    detail: `No upload "${uploadId.slice(0, 60)}" in this namespace.`,
  });
}

/** An upload of this purpose, expired or not. @throws AppError upload_not_found */
export async function findUpload(
  ctx: NsCtx,
  purpose: StoredUpload['purpose'],
  uploadId: string,
): Promise<StoredUpload> {
  const row = (await ctx.ports.table.get(ctx.ns.resource('UPLOAD', uploadId))) as StoredUpload | undefined;
  if (row?.purpose !== purpose) throw uploadNotFound(uploadId);
  return row;
}

/**
 * An upload of this purpose that may still be confirmed (or was).
 *
 * @throws AppError upload_not_found, upload_expired
 */
export async function getUpload(
  ctx: NsCtx,
  purpose: StoredUpload['purpose'],
  uploadId: string,
): Promise<StoredUpload> {
  const upload = await findUpload(ctx, purpose, uploadId);
  if (isExpired(ctx, upload)) {
    throw new AppError('upload_expired', { detail: `The upload ${uploadId} expired; ask for a new one.` });
  }
  return upload;
}

/**
 * Marks an upload as confirmed, once: of two confirms the second gets the row of the first.
 *
 * @throws AppError upload_not_found when it was deleted meanwhile.
 */
export async function markConfirmed(
  ctx: NsCtx,
  upload: StoredUpload,
  result: NonNullable<StoredUpload['result']>,
): Promise<StoredUpload> {
  try {
    await ctx.ports.table.write([
      {
        update: ctx.ns.resource('UPLOAD', upload.upload_id),
        set: { state: 'confirmed', result },
        if: [{ attribute: 'state', eq: 'pending' }],
      },
      audit(ctx, 'upload.confirm', upload.upload_id),
    ]);
  } catch (error) {
    if (!(error instanceof ConditionFailed)) throw error;
    return findUpload(ctx, upload.purpose, upload.upload_id);
  }
  return { ...upload, state: 'confirmed', result };
}

/** The write that records the object made from an upload, for the transaction that makes the object: there is one only. */
export function objectMade(ctx: NsCtx, upload: StoredUpload, objectId: string): Write {
  return {
    update: ctx.ns.resource('UPLOAD', upload.upload_id),
    set: { result: { ...upload.result, object_id: objectId }, object_id: objectId },
    if: [
      { attribute: 'state', eq: 'confirmed' },
      { attribute: 'object_id', missing: true },
    ],
  };
}

/** Takes the row away. Safe to repeat. */
export async function deleteUpload(ctx: NsCtx, uploadId: string): Promise<void> {
  await ctx.ports.table.write([
    { delete: ctx.ns.resource('UPLOAD', uploadId) },
    audit(ctx, 'upload.delete', uploadId),
  ]);
}

/** Uploads of this purpose that are not expired, newest first, looking at `rowsMax` rows at most. */
export async function listUploads(
  ctx: NsCtx,
  purpose: StoredUpload['purpose'],
  rowsMax: number,
): Promise<{ readonly uploads: StoredUpload[]; readonly complete: boolean }> {
  const { pk, prefix } = ctx.ns.resources('UPLOAD');
  const uploads: StoredUpload[] = [];
  let looked = 0;
  let after: Key | undefined;
  do {
    const page = await ctx.ports.table.query(pk, {
      prefix,
      after,
      limit: Math.min(1000, rowsMax - looked),
      descending: true,
    });
    looked += page.items.length;
    for (const item of page.items) {
      const upload = item as unknown as StoredUpload;
      if (upload.purpose === purpose && !isExpired(ctx, upload)) uploads.push(upload);
    }
    after = page.next;
  } while (after && looked < rowsMax);
  return { uploads, complete: after === undefined };
}
