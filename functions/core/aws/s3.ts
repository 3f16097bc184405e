// A bucket over S3, and presigned URLs as browsers, curl and plugins use them.
import { randomBytes } from 'node:crypto';
import { setTimeout as pause } from 'node:timers/promises';
import {
  CompleteMultipartUploadCommand,
  CopyObjectCommand,
  CreateMultipartUploadCommand,
  DeleteObjectCommand,
  GetObjectCommand,
  HeadObjectCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  S3Client,
  UploadPartCommand,
} from '@aws-sdk/client-s3';
import { getSignedUrl } from '@aws-sdk/s3-request-presigner';
import type { BlobInfo, Blobs } from '../store/blobs.ts';
import { BlobConflict, BlobMissing, BlobTooShort } from '../store/blobs.ts';
import { toAppError } from './faults.ts';
import { RangeSockets, type RangeSocketsOptions } from './range-sockets.ts';
import { readRange } from './read-range.ts';

const missingNames = new Set(['NoSuchKey', 'NotFound', 'NoSuchBucket']);
const conflictNames = new Set(['PreconditionFailed', 'ConditionalRequestConflict']);

/** User metadata that says which call stored an object. */
const writeIdName = 'write-id';
/** Tries of a put that meets another one of the same key. */
const conflictTries = 5;

/** Bytes of a part of a streamed object; S3 takes 10,000 parts of 5 MiB or more. */
const partBytes = 8 * 2 ** 20;

const statusOf = (error: unknown) =>
  (error as { $metadata?: { httpStatusCode?: number } }).$metadata?.httpStatusCode;

export class S3Blobs implements Blobs {
  readonly #bucket: string;
  readonly #client: S3Client;
  readonly #signer: S3Client;
  readonly #sockets: RangeSockets;

  /** @param sockets how `readInto` connects; the default is for S3 */
  constructor(bucket: string, client?: S3Client, sockets: RangeSocketsOptions = {}) {
    this.#bucket = bucket;
    this.#sockets = new RangeSockets(sockets);
    // Without these a silent connection is waited for until the Lambda ends.
    const timeouts = { connectionTimeout: 5000, socketTimeout: 30_000 };
    this.#client = client ?? new S3Client({ requestHandler: timeouts });
    // By default the SDK signs the checksum of an empty body into a presigned PUT, which no upload matches.
    this.#signer = client ?? new S3Client({ requestChecksumCalculation: 'WHEN_REQUIRED' });
  }

  get bucket(): string {
    return this.#bucket;
  }

  async put(
    key: string,
    body: Uint8Array | string,
    options: { readonly contentType?: string; readonly ifAbsent?: boolean } = {},
  ): Promise<{ etag: string }> {
    const writeId = options.ifAbsent ? randomBytes(12).toString('hex') : undefined;
    const command = new PutObjectCommand({
      Bucket: this.#bucket,
      Key: key,
      // An empty text is no body to the SDK, which then warns of a stream without length.
      Body: typeof body === 'string' ? Buffer.from(body) : body,
      ...(options.contentType === undefined ? {} : { ContentType: options.contentType }),
      ...(writeId === undefined ? {} : { IfNoneMatch: '*', Metadata: { [writeIdName]: writeId } }),
    });
    for (let attempt = 1; ; attempt++) {
      try {
        const answer = await this.#client.send(command);
        return { etag: answer.ETag ?? '' };
      } catch (error) {
        // Somebody writes the key at this moment and nobody has won: perhaps our own first try, whose answer was lost.
        if (statusOf(error) === 409 && attempt < conflictTries) {
          await pause(20 * attempt);
          continue;
        }
        if (!conflictNames.has((error as Error).name) && statusOf(error) !== 412) throw toAppError(error);
        const mine = writeId === undefined ? undefined : await this.#etagOfWrite(key, writeId);
        if (mine !== undefined) return { etag: mine };
        throw new BlobConflict(key);
      }
    }
  }

  async putStream(
    key: string,
    chunks: AsyncIterable<Uint8Array>,
    options: { readonly contentType?: string } = {},
  ): Promise<{ etag: string; bytes: number }> {
    const contentType = options.contentType === undefined ? {} : { ContentType: options.contentType };
    const place = { Bucket: this.#bucket, Key: key };
    const parts: { PartNumber: number; ETag: string | undefined }[] = [];
    let uploadId: string | undefined;
    let bytes = 0;
    let last: Uint8Array | undefined;
    // What was begun and not completed is never seen, and a rule of the bucket removes it.
    for await (const part of inParts(chunks, partBytes)) {
      bytes += part.byteLength;
      if (last) {
        uploadId ??= await this.#beginParts(place, contentType);
        parts.push(await this.#putPart(place, uploadId, parts.length + 1, last));
      }
      last = part;
    }
    if (uploadId === undefined)
      return { ...(await this.put(key, last ?? new Uint8Array(0), options)), bytes };
    parts.push(await this.#putPart(place, uploadId, parts.length + 1, last!));
    try {
      const done = await this.#client.send(
        new CompleteMultipartUploadCommand({
          ...place,
          UploadId: uploadId,
          MultipartUpload: { Parts: parts },
        }),
      );
      return { etag: done.ETag ?? '', bytes };
    } catch (error) {
      throw toAppError(error);
    }
  }

  async #beginParts(place: { Bucket: string; Key: string }, more: { ContentType?: string }): Promise<string> {
    try {
      const begun = await this.#client.send(new CreateMultipartUploadCommand({ ...place, ...more }));
      return begun.UploadId!;
    } catch (error) {
      throw toAppError(error);
    }
  }

  async #putPart(
    place: { Bucket: string; Key: string },
    uploadId: string,
    number: number,
    body: Uint8Array,
  ): Promise<{ PartNumber: number; ETag: string | undefined }> {
    try {
      const put = await this.#client.send(
        new UploadPartCommand({ ...place, UploadId: uploadId, PartNumber: number, Body: body }),
      );
      return { PartNumber: number, ETag: put.ETag };
    } catch (error) {
      throw toAppError(error);
    }
  }

  /** The ETag of an object that carries our mark: a repeated put is refused by what its first try has stored. */
  async #etagOfWrite(key: string, writeId: string): Promise<string | undefined> {
    try {
      const found = await this.#client.send(new HeadObjectCommand({ Bucket: this.#bucket, Key: key }));
      return found.Metadata?.[writeIdName] === writeId ? (found.ETag ?? '') : undefined;
    } catch (error) {
      if (missingNames.has((error as Error).name) || statusOf(error) === 404) return undefined;
      throw toAppError(error);
    }
  }

  async get(key: string, range?: { readonly offset: number; readonly length: number }): Promise<Uint8Array> {
    try {
      const answer = await this.#client.send(
        new GetObjectCommand({
          Bucket: this.#bucket,
          Key: key,
          ...(range ? { Range: `bytes=${range.offset}-${range.offset + range.length - 1}` } : {}),
        }),
      );
      return await readAll(answer.Body as AsyncIterable<Uint8Array>, answer.ContentLength ?? 0, key);
    } catch (error) {
      if (missingNames.has((error as Error).name)) throw new BlobMissing(key);
      throw toAppError(error);
    }
  }

  async readInto(key: string, offset: number, target: Uint8Array): Promise<void> {
    if (target.length === 0) return;
    try {
      const [client, sockets] = [this.#client, this.#sockets];
      await readRange({ client, sockets, bucket: this.#bucket, key }, offset, target);
    } catch (error) {
      if (error instanceof BlobTooShort || error instanceof BlobConflict) throw error;
      if (missingNames.has((error as Error).name)) throw new BlobMissing(key);
      if (statusOf(error) === 416) throw new BlobTooShort(key, offset, target.length);
      throw toAppError(error);
    }
  }

  async head(key: string): Promise<BlobInfo | undefined> {
    try {
      const answer = await this.#client.send(new HeadObjectCommand({ Bucket: this.#bucket, Key: key }));
      return {
        key,
        bytes: answer.ContentLength ?? 0,
        etag: answer.ETag ?? '',
        modifiedMs: answer.LastModified?.getTime() ?? 0,
      };
    } catch (error) {
      if (missingNames.has((error as Error).name) || statusOf(error) === 404) return undefined;
      throw toAppError(error);
    }
  }

  async copyFrom(source: Blobs, sourceKey: string, key: string, etag: string): Promise<void> {
    if (!(source instanceof S3Blobs)) throw new Error('S3 copies from S3 only');
    try {
      await this.#client.send(
        new CopyObjectCommand({
          Bucket: this.#bucket,
          Key: key,
          CopySource: `${source.bucket}/${encodeURIComponent(sourceKey).replaceAll('%2F', '/')}`,
          CopySourceIfMatch: etag,
        }),
      );
    } catch (error) {
      if (conflictNames.has((error as Error).name) || statusOf(error) === 412)
        throw new BlobConflict(sourceKey);
      if (missingNames.has((error as Error).name)) throw new BlobMissing(sourceKey);
      throw toAppError(error);
    }
  }

  async delete(key: string): Promise<void> {
    try {
      await this.#client.send(new DeleteObjectCommand({ Bucket: this.#bucket, Key: key }));
    } catch (error) {
      throw toAppError(error);
    }
  }

  async list(prefix: string, after?: string): Promise<{ blobs: BlobInfo[]; next?: string }> {
    try {
      const answer = await this.#client.send(
        new ListObjectsV2Command({
          Bucket: this.#bucket,
          Prefix: prefix,
          ...(after === undefined ? {} : { StartAfter: after }),
        }),
      );
      const blobs = (answer.Contents ?? []).map((object) => ({
        key: object.Key!,
        bytes: object.Size ?? 0,
        etag: object.ETag ?? '',
        modifiedMs: object.LastModified?.getTime() ?? 0,
      }));
      const last = blobs.at(-1);
      return answer.IsTruncated && last ? { blobs, next: last.key } : { blobs };
    } catch (error) {
      throw toAppError(error);
    }
  }

  async presignGet(key: string, seconds: number): Promise<string> {
    return getSignedUrl(this.#signer, new GetObjectCommand({ Bucket: this.#bucket, Key: key }), {
      expiresIn: seconds,
    });
  }

  async presignPut(key: string, seconds: number, contentType: string): Promise<string> {
    return getSignedUrl(
      this.#signer,
      new PutObjectCommand({ Bucket: this.#bucket, Key: key, ContentType: contentType }),
      { expiresIn: seconds, signableHeaders: new Set(['content-type']) },
    );
  }

  uri(key: string): string {
    return `s3://${this.#bucket}/${key}`;
  }
}

/** Reads a body into one buffer of the announced size; concatenating chunks would cost a second copy. */
async function readAll(body: AsyncIterable<Uint8Array>, length: number, key: string): Promise<Uint8Array> {
  let bytes = new Uint8Array(length);
  let at = 0;
  for await (const chunk of body) {
    if (at + chunk.length > bytes.length) {
      const larger = new Uint8Array(Math.max(bytes.length * 2, at + chunk.length));
      larger.set(bytes);
      bytes = larger;
    }
    bytes.set(chunk, at);
    at += chunk.length;
  }
  if (at < length) throw new Error(`the body of ${key} ended after ${at} of ${length} bytes`);
  return at === bytes.length ? bytes : bytes.subarray(0, at);
}

/** The same bytes in pieces of exactly `size`, but for the last; none for no bytes. */
async function* inParts(chunks: AsyncIterable<Uint8Array>, size: number): AsyncGenerator<Uint8Array> {
  let part = new Uint8Array(size);
  let filled = 0;
  for await (const chunk of chunks) {
    for (let at = 0; at < chunk.length; ) {
      const taken = chunk.subarray(at, at + size - filled);
      part.set(taken, filled);
      filled += taken.length;
      at += taken.length;
      if (filled < size) continue;
      yield part;
      part = new Uint8Array(size);
      filled = 0;
    }
  }
  if (filled > 0) yield part.subarray(0, filled);
}
