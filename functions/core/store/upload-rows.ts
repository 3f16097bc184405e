// Uploads under way: a row each, from the presigned URL to the confirm. A row that is never confirmed expires.
import type { NsCtx } from '../context.ts';
import { AppError } from '../errors.ts';
import type { Attribute } from './table.ts';

export interface StoredUpload {
  readonly upload_id: string;
  readonly purpose: 'plugin' | 'object';
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
  const row = { ...ctx.ns.resource('UPLOAD', upload.upload_id), ...(upload as unknown as Record<string, Attribute>) };
  await ctx.ports.table.write([{ put: { ...row, expires_at: upload.ends_at + uploadKeepSeconds } }]);
}

/**
 * An upload of this purpose that may still be confirmed (or was).
 *
 * @throws AppError upload_not_found, upload_expired
 */
export async function getUpload(ctx: NsCtx, purpose: StoredUpload['purpose'], uploadId: string): Promise<StoredUpload> {
  const row = (await ctx.ports.table.get(ctx.ns.resource('UPLOAD', uploadId))) as StoredUpload | undefined;
  if (row?.purpose !== purpose) {
    throw new AppError('upload_not_found', { detail: `No upload "${uploadId.slice(0, 60)}" in this namespace.` });
  }
  if (row.state === 'pending' && row.ends_at < ctx.ports.clock.now() / 1000) {
    throw new AppError('upload_expired', { detail: `The upload ${uploadId} expired; ask for a new one.` });
  }
  return row;
}
