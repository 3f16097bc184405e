// A bucket over S3, and presigned URLs as browsers, curl and plugins use them.
import { randomBytes } from 'node:crypto';
import { setTimeout as pause } from 'node:timers/promises';
import {
  CopyObjectCommand,
  DeleteObjectCommand,
  GetObjectCommand,
  HeadObjectCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  S3Client,
} from '@aws-sdk/client-s3';
import { getSignedUrl } from '@aws-sdk/s3-request-presigner';
import type { BlobInfo, Blobs } from '../store/blobs.ts';
import { BlobConflict, BlobMissing } from '../store/blobs.ts';
import { toAppError } from './faults.ts';

const missingNames = new Set(['NoSuchKey', 'NotFound', 'NoSuchBucket']);
const conflictNames = new Set(['PreconditionFailed', 'ConditionalRequestConflict']);

/** User metadata that says which call stored an object. */
const writeIdName = 'write-id';
/** Tries of a put that meets another one of the same key. */
const conflictTries = 5;

const statusOf = (error: unknown) =>
  (error as { $metadata?: { httpStatusCode?: number } }).$metadata?.httpStatusCode;

export class S3Blobs implements Blobs {
  readonly #bucket: string;
  readonly #client: S3Client;
  readonly #signer: S3Client;

  constructor(bucket: string, client?: S3Client) {
    this.#bucket = bucket;
    this.#client = client ?? new S3Client({});
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
