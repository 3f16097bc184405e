// The rules of objects: checked against the schema, binary content stored first, the row last.
import { isoTime } from '../../clock.ts';
import type { NsCtx } from '../../context.ts';
import { crash } from '../../crash.ts';
import { EgressFailure, send } from '../../egress/send.ts';
import type { FieldFault } from '../../errors.ts';
import { AppError, invalid } from '../../errors.ts';
import { checkVersion } from '../../http/version.ts';
import { newId } from '../../ids.ts';
import type { ListInput, PageReply } from '../../page.ts';
import { pageOffset, pageReply, pageSize, readCursor, rowTest, scanRowsMax, sortRows } from '../../page.ts';
import { audit } from '../../store/audit.ts';
import { BlobMissing } from '../../store/blobs.ts';
import { announce } from '../../store/outbox.ts';
import type { Attribute, Key, Write } from '../../store/table.ts';
import { ConditionFailed } from '../../store/table.ts';
import { getUpload, uploadNotFound } from '../../store/upload-rows.ts';
import type { StoredBucket } from '../buckets/service.ts';
import { getBucket } from '../buckets/service.ts';
import { isHeard } from '../webhooks/service.ts';
import type { CheckedBlob, CheckedObject } from './check.ts';
import { checkObject, isBinary, objectLimits } from './check.ts';
import type { StoredBlob, StoredObject } from './store.ts';
import { findObject, objectItem, queryObjects } from './store.ts';

export type { StoredBlob, StoredObject } from './store.ts';
export { findObjects, queryObjects } from './store.ts';

/** Inline values of one object that stand in its row; longer ones go to the blob store (items stay under 100 kB). */
const rowBytesMax = 60_000;
const fetchBytesMax = 100 * 1024 * 1024;
/** Below the gateway's 29 s, so that the caller gets our answer and not its. */
const fetchTimeoutMs = 24_000;

function contentKey(ctx: NsCtx, bucketId: string, objectId: string, blobId: string): string {
  return `objects/${ctx.ns.namespaceId}/${bucketId}/${objectId}/${blobId}`;
}

/** Fetches binary content that was given by URL. @throws AppError blob_url_refused */
async function fetchContent(
  ctx: NsCtx,
  url: string,
  location: FieldFault['location'],
): Promise<{ body: Uint8Array; mimeType: string }> {
  const refuse = (why: string, cause?: unknown) =>
    new AppError('blob_url_refused', {
      detail: `The blob URL cannot be fetched: ${why}`,
      fields: [
        {
          type: 'url_refused',
          location,
          message: `cannot be fetched: ${why}`,
          fix: 'give an https URL that anybody can read, or upload the file and give its upload_id',
        },
      ],
      ...(cause === undefined ? {} : { cause }),
    });
  try {
    const received = await send({
      method: 'GET',
      url,
      connectTimeoutMs: 10_000,
      totalTimeoutMs: fetchTimeoutMs,
      answerBytesMax: fetchBytesMax,
      allowLoopback: ctx.ports.settings.allowLoopback,
    });
    if (received.status !== 200)
      throw refuse(`the server answered ${received.status}; redirects are not followed`);
    if (received.truncated) throw refuse(`it has more than ${fetchBytesMax} bytes`);
    const type = received.headers['content-type'];
    return {
      body: received.body,
      mimeType: (typeof type === 'string' ? type.split(';')[0]! : 'application/octet-stream').slice(0, 100),
    };
  } catch (error) {
    if (error instanceof EgressFailure) throw refuse(error.message, error);
    throw error;
  }
}

const textMime: Readonly<Record<string, string>> = {
  text: 'text/plain',
  string: 'text/plain',
  url: 'text/uri-list',
};

async function storeBlob(
  ctx: NsCtx,
  bucketId: string,
  objectId: string,
  blob: CheckedBlob,
  room: { left: number },
): Promise<StoredBlob> {
  const blobId = newId('blob', ctx.ports.clock, ctx.ports.random);
  const base = { blob_id: blobId, property: blob.property, type: blob.type };
  if (blob.upload_id !== undefined) {
    const upload = await getUpload(ctx, 'object', blob.upload_id);
    // Its content goes with its own bucket, so no object of another one may hang on it.
    if (upload.facts.bucket_id !== bucketId) throw uploadNotFound(blob.upload_id);
    if (upload.state !== 'confirmed' || !upload.result) {
      throw new AppError('upload_missing', {
        detail: `The upload ${blob.upload_id} is not confirmed yet. Confirm it, then create the object.`,
      });
    }
    return {
      ...base,
      s3_key: String(upload.result.s3_key),
      mime_type: upload.content_type,
      size_bytes: Number(upload.result.size_bytes),
    };
  }
  if (blob.source_url !== undefined) {
    const { body, mimeType } = await fetchContent(ctx, blob.source_url, blob.source_at ?? ['body']);
    const key = contentKey(ctx, bucketId, objectId, blobId);
    await ctx.ports.blobs.put(key, body, { contentType: mimeType });
    return { ...base, s3_key: key, mime_type: mimeType, size_bytes: body.byteLength };
  }
  const text = typeof blob.data === 'string' ? blob.data : JSON.stringify(blob.data);
  const bytes = Buffer.byteLength(text);
  const mimeType = textMime[blob.type] ?? 'application/json';
  if (bytes <= room.left) {
    room.left -= bytes;
    return { ...base, data: blob.data as Attribute, mime_type: mimeType, size_bytes: bytes };
  }
  const key = contentKey(ctx, bucketId, objectId, blobId);
  await ctx.ports.blobs.put(key, text, { contentType: mimeType });
  return { ...base, s3_key: key, mime_type: mimeType, size_bytes: bytes };
}

async function makeObject(
  ctx: NsCtx,
  bucket: StoredBucket,
  checked: CheckedObject,
  givenId?: string,
): Promise<StoredObject> {
  const objectId = givenId ?? newId('object', ctx.ports.clock, ctx.ports.random);
  const room = { left: rowBytesMax };
  const blobs: StoredBlob[] = [];
  for (const blob of checked.blobs) blobs.push(await storeBlob(ctx, bucket.id, objectId, blob, room));
  const time = isoTime(ctx.ports.clock.now());
  return {
    object_id: objectId,
    bucket_id: bucket.id,
    version: 1,
    blobs,
    metadata: (checked.metadata ?? {}) as StoredObject['metadata'],
    key_prefix: checked.key_prefix ?? null,
    created_at: time,
    updated_at: time,
  };
}

/** Why `createObject` would refuse a body, without making anything; locations begin with `body`. Empty: it would not. */
export function objectFaults(
  bucket: Pick<StoredBucket, 'bucket_schema'>,
  body: unknown,
): readonly FieldFault[] {
  const checked = checkObject(bucket.bucket_schema, body, ['body']);
  return checked.ok ? [] : checked.faults;
}

/**
 * @param once the object's id, reserved before, and the write that lets it be made one time only; its condition failing
 *   comes back as ConditionFailed.
 * @throws AppError bucket_not_found, object_invalid, blob_url_refused, upload_not_found, upload_missing
 */
export async function createObject(
  ctx: NsCtx,
  bucketName: string,
  body: unknown,
  once?: { readonly objectId: string; readonly write: Write },
): Promise<StoredObject> {
  const [bucket, heard] = await Promise.all([getBucket(ctx, bucketName), isHeard(ctx, 'object.created')]);
  const checked = checkObject(bucket.bucket_schema, body, ['body']);
  if (!checked.ok) throw invalid('object_invalid', checked.faults);
  const object = await makeObject(ctx, bucket, checked.object, once?.objectId);
  crash('object.create.after_blobs');
  await ctx.ports.table.write([
    { put: objectItem(ctx, object), if: [{ absent: true }] },
    audit(ctx, 'object.create', object.object_id),
    ...(once ? [once.write] : []),
    ...(heard
      ? [
          announce(ctx, 'object.created', { type: 'object', id: object.object_id }, 1, {
            bucket_id: bucket.id,
          }),
        ]
      : []),
  ]);
  return object;
}

export interface BulkResult {
  readonly created: readonly { readonly index: number; readonly object: StoredObject }[];
  readonly failed: readonly { readonly index: number; readonly error: AppError }[];
}

/** Puts of one transaction, at most; with the audit row and the event below the service's 100. */
const putsPerTransaction = 90;
const bytesPerTransaction = 3_000_000;
/** Objects that are made side by side: each may hold a fetched blob of 100 MB in memory. */
const parallelObjects = 3;

/**
 * Stores the good objects of a list and reports the bad ones.
 *
 * Objects go in groups of one transaction, each with its own audit row and event: a crash leaves whole groups.
 */
export async function createObjects(
  ctx: NsCtx,
  bucketName: string,
  bodies: readonly unknown[],
): Promise<BulkResult> {
  const [bucket, heard] = await Promise.all([
    getBucket(ctx, bucketName),
    isHeard(ctx, 'objects.created.batch'),
  ]);
  const created: { index: number; object: StoredObject }[] = [];
  const failed: { index: number; error: AppError }[] = [];
  const make = async (body: unknown, index: number) => {
    const checked = checkObject(bucket.bucket_schema, body, ['body', 'objects', index]);
    if (!checked.ok) {
      failed.push({ index, error: invalid('object_invalid', checked.faults) });
      return;
    }
    try {
      created.push({ index, object: await makeObject(ctx, bucket, checked.object) });
    } catch (error) {
      if (!(error instanceof AppError)) throw error;
      failed.push({ index, error });
    }
  };
  let next = 0;
  const lane = async () => {
    while (next < bodies.length) {
      const index = next++;
      await make(bodies[index], index);
    }
  };
  await Promise.all(Array.from({ length: parallelObjects }, lane));
  const byIndex = (a: { index: number }, b: { index: number }) => a.index - b.index;
  created.sort(byIndex);
  crash('object.create.after_blobs');
  const stored: { index: number; object: StoredObject }[] = [];
  let group: { index: number; object: StoredObject }[] = [];
  let bytes = 0;
  const flush = async () => {
    if (group.length === 0) return;
    const writes: Write[] = group.map(({ object }) => ({
      put: objectItem(ctx, object),
      if: [{ absent: true }],
    }));
    writes.push(audit(ctx, 'object.create', group[0]!.object.object_id));
    if (heard) {
      const ids = group.map(({ object }) => object.object_id);
      writes.push(
        announce(ctx, 'objects.created.batch', { type: 'bucket', id: bucket.id }, ids[0]!, {
          object_ids: ids,
          count: ids.length,
        }),
      );
    }
    try {
      await ctx.ports.table.write(writes);
      stored.push(...group);
    } catch (error) {
      // The groups before are there: the answer must name them, so this one's objects are failures among others.
      if (!(error instanceof AppError)) throw error;
      failed.push(...group.map(({ index }) => ({ index, error })));
    }
    group = [];
    bytes = 0;
  };
  for (const one of created) {
    const size = Buffer.byteLength(JSON.stringify(one.object));
    if (group.length >= putsPerTransaction || bytes + size > bytesPerTransaction) await flush();
    group.push(one);
    bytes += size;
  }
  await flush();
  failed.sort(byIndex);
  return { created: stored, failed };
}

/** @throws AppError bucket_not_found, object_not_found */
export async function getObject(ctx: NsCtx, bucketName: string, objectId: string): Promise<StoredObject> {
  const bucket = await getBucket(ctx, bucketName);
  const object = await findObject(ctx, bucket.id, objectId);
  if (!object)
    throw new AppError('object_not_found', {
      detail: `The bucket "${bucket.name}" has no object "${objectId.slice(0, 60)}".`,
    });
  return object;
}

/** Inline values that a list with a filter reads, at most: more would not fit into the function's memory. */
const scanBytesMax = 128_000_000;
/** A page of a list ends at this many bytes of inline values, with a cursor (decisions, section 2). */
const pageBytesMax = 4_000_000;

function inlineBytesOf(blobs: readonly StoredBlob[]): number {
  return blobs.reduce((sum, blob) => sum + (blob.data === undefined ? 0 : blob.size_bytes), 0);
}

/** As many objects of the beginning as fit into a page's bytes, and one at least. */
function pageOf(objects: readonly StoredObject[]): StoredObject[] {
  let bytes = 0;
  let taken = 0;
  for (const object of objects) {
    bytes += inlineBytesOf(object.blobs) + Buffer.byteLength(JSON.stringify(object.metadata)) + 1_000;
    if (taken > 0 && bytes > pageBytesMax) break;
    taken++;
  }
  return objects.slice(0, taken);
}

/** The inline values of an object by property, with its metadata: what filters and searches of lists look at. */
function searchedFields(object: StoredObject): Record<string, unknown> {
  const values = Object.fromEntries(
    object.blobs.filter((b) => b.data !== undefined).map((b) => [b.property, b.data]),
  );
  return {
    ...object.metadata,
    ...values,
    object_id: object.object_id,
    key_prefix: object.key_prefix,
    created_at: object.created_at,
    updated_at: object.updated_at,
  };
}

/**
 * A page of a bucket, newest first.
 *
 * With a filter, a search, an order or an offset it looks at 10,000 objects at most, and says so when there were more.
 */
export async function listObjects(
  ctx: NsCtx,
  bucketName: string,
  input: ListInput,
): Promise<PageReply<StoredObject>> {
  const bucket = await getBucket(ctx, bucketName);
  const list = `objects ${bucket.id}`;
  const size = pageSize(input);
  const looks = input.filters !== undefined && input.filters !== null;
  // A cursor goes on as its list began: from a key, or from an offset.
  const position = input.cursor ? await readCursor(ctx, list, input, input.cursor) : pageOffset(input);
  const plain =
    !looks &&
    !input.search &&
    !input.sort &&
    !input.sorts &&
    (position === 0 || typeof position === 'object');
  if (plain) {
    const after = position === 0 ? undefined : (position as Key);
    const page = await queryObjects(ctx, bucket.id, { after, limit: size, descending: true });
    const total = input.include_total === false || input.cursor ? null : await countObjects(ctx, bucket.id);
    return pageReply(ctx, list, input, [...page.objects], { offset: 0, total, nextPosition: page.next });
  }
  const rows: StoredObject[] = [];
  let bytes = 0;
  let after: Key | undefined;
  do {
    const page = await queryObjects(ctx, bucket.id, { after, limit: 1000, descending: true });
    rows.push(...page.objects);
    for (const object of page.objects) bytes += inlineBytesOf(object.blobs);
    after = page.next;
  } while (after && rows.length < scanRowsMax && bytes < scanBytesMax);
  if (after)
    ctx.warnings.push(`the bucket holds more objects; only the newest ${rows.length} were looked at`);
  const test = rowTest(input, ['object_id', 'key_prefix', ...Object.keys(bucket.bucket_schema.properties)]);
  // Made once for each object: the filter, and then every comparison of the order, look at them.
  const looked = rows
    .map((object) => ({ object, fields: searchedFields(object) }))
    .filter(({ fields }) => test(fields));
  sortRows(looked, input, ({ fields }, field) => fields[field.replace(/^(metadata|payload)\./, '')]);
  const kept = looked.map(({ object }) => object);
  const offset = Number(position);
  const results = pageOf(kept.slice(offset, offset + size));
  const next = offset + results.length;
  return pageReply(ctx, list, input, results, {
    offset,
    total: after ? null : kept.length,
    nextPosition: next < kept.length ? next : undefined,
  });
}

/** The number of objects, or null above 10,000: counting further would read the whole bucket. */
export async function countObjects(ctx: NsCtx, bucketId: string): Promise<number | null> {
  let count = 0;
  let after: Key | undefined;
  do {
    const page = await queryObjects(ctx, bucketId, { after, limit: 1000 });
    count += page.objects.length;
    after = page.next;
  } while (after && count < scanRowsMax);
  if (after) ctx.warnings.push(`the bucket holds more than ${scanRowsMax} objects, so they were not counted`);
  return after ? null : count;
}

/** @throws AppError bucket_not_found, object_not_found, object_invalid, object_changed, request_stale */
export async function updateObject(
  ctx: NsCtx,
  bucketName: string,
  objectId: string,
  body: unknown,
  mode: 'replace' | 'merge',
  ifMatch?: number,
): Promise<StoredObject> {
  const [bucket, before] = await Promise.all([
    getBucket(ctx, bucketName),
    getObject(ctx, bucketName, objectId),
  ]);
  checkVersion(ifMatch, before.version);
  const given = body as Readonly<Record<string, unknown>>;
  const replacesBlobs = mode === 'replace' && given.blobs !== undefined;
  const checked = checkObject(bucket.bucket_schema, body, ['body'], !replacesBlobs);
  if (!checked.ok) throw invalid('object_invalid', checked.faults);
  const named = new Set(checked.object.blobs.map((blob) => blob.property));
  const kept = replacesBlobs ? [] : before.blobs.filter((blob) => !named.has(blob.property));
  // What stays in the row takes its share, so that many small changes cannot make a large row.
  const room = { left: Math.max(0, rowBytesMax - inlineBytesOf(kept)) };
  const stored: StoredBlob[] = [];
  for (const blob of checked.object.blobs) stored.push(await storeBlob(ctx, bucket.id, objectId, blob, room));
  const blobs = [...kept, ...stored];
  if (blobs.length > objectLimits.blobsMax) {
    throw invalid('object_invalid', [
      {
        type: 'too_large',
        location: ['body', 'blobs'],
        message: `the object would have ${blobs.length} blobs; at most ${objectLimits.blobsMax} are accepted`,
      },
    ]);
  }
  const metadata =
    checked.object.metadata === undefined
      ? before.metadata
      : mode === 'replace'
        ? checked.object.metadata
        : withoutNulls({ ...before.metadata, ...checked.object.metadata });
  const metadataBytes = Buffer.byteLength(JSON.stringify(metadata));
  if (metadataBytes > objectLimits.metadataBytesMax) {
    throw invalid('object_invalid', [
      {
        type: 'too_large',
        location: ['body', 'metadata'],
        message: `would have ${metadataBytes} bytes with what is there; at most ${objectLimits.metadataBytesMax} are accepted`,
        fix: 'take fields out by setting them to null',
      },
    ]);
  }
  const after: StoredObject = {
    ...before,
    version: before.version + 1,
    blobs,
    metadata: metadata as StoredObject['metadata'],
    key_prefix: checked.object.key_prefix === undefined ? before.key_prefix : checked.object.key_prefix,
    updated_at: isoTime(ctx.ports.clock.now()),
  };
  const heard = await isHeard(ctx, 'object.updated');
  try {
    await ctx.ports.table.write([
      { put: objectItem(ctx, after), if: [{ attribute: 'version', eq: before.version }] },
      audit(ctx, 'object.update', objectId),
      ...(heard
        ? [
            announce(ctx, 'object.updated', { type: 'object', id: objectId }, after.version, {
              bucket_id: bucket.id,
            }),
          ]
        : []),
    ]);
  } catch (error) {
    if (!(error instanceof ConditionFailed)) throw error;
    throw new AppError('object_changed', {
      detail: `The object ${objectId} changed meanwhile; read it again.`,
    });
  }
  return after;
}

function withoutNulls(fields: Readonly<Record<string, unknown>>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== null));
}

async function deleteContent(ctx: NsCtx, object: StoredObject): Promise<void> {
  const own = `objects/${ctx.ns.namespaceId}/${object.bucket_id}/${object.object_id}/`;
  // Content of an upload may be shared by several objects; it goes with the upload.
  for (const blob of object.blobs)
    if (blob.s3_key?.startsWith(own)) await ctx.ports.blobs.delete(blob.s3_key);
}

/** The row goes first: what is left over then is invisible. @throws AppError bucket_not_found, object_not_found */
export async function deleteObject(
  ctx: NsCtx,
  bucketName: string,
  objectId: string,
  ifMatch?: number,
): Promise<void> {
  const object = await getObject(ctx, bucketName, objectId);
  checkVersion(ifMatch, object.version);
  const heard = await isHeard(ctx, 'object.deleted');
  try {
    await ctx.ports.table.write([
      {
        delete: ctx.ns.object(object.bucket_id, objectId),
        // Without If-Match the last write wins; gone already is what was asked for.
        if:
          ifMatch === undefined ? [] : [{ anyOf: [{ absent: true }, { attribute: 'version', eq: ifMatch }] }],
      },
      audit(ctx, 'object.delete', objectId),
      ...(heard
        ? [
            announce(ctx, 'object.deleted', { type: 'object', id: objectId }, 'deleted', {
              bucket_id: object.bucket_id,
            }),
          ]
        : []),
    ]);
  } catch (error) {
    if (!(error instanceof ConditionFailed)) throw error;
    checkVersion(ifMatch, Number(error.of(0)?.item?.version));
    throw error;
  }
  crash('object.delete.after_row');
  await deleteContent(ctx, object);
}

/** The value of a blob that a plugin gets as text, read from the blob store where it is stored apart. */
export async function blobText(
  ctx: NsCtx,
  blob: StoredBlob,
  location: readonly (string | number)[] = [],
): Promise<string> {
  if (blob.data !== undefined) return typeof blob.data === 'string' ? blob.data : JSON.stringify(blob.data);
  try {
    return Buffer.from(await ctx.ports.blobs.get(blob.s3_key ?? '')).toString('utf8');
  } catch (error) {
    if (!(error instanceof BlobMissing)) throw error;
    const fault: FieldFault = {
      type: 'content_missing',
      location,
      message: `the content of the blob ${blob.blob_id} is gone`,
    };
    throw invalid('object_invalid', [fault]);
  }
}

export { isBinary };
