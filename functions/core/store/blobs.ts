// The interface of a bucket of bytes, implemented over S3 and in memory (suite: test/contract/blobs).

export interface BlobInfo {
  readonly key: string;
  readonly bytes: number;
  readonly etag: string;
  readonly modifiedMs: number;
}

/** The object is not there. */
export class BlobMissing extends Error {
  constructor(key: string) {
    super(`no object ${key}`);
    this.name = 'BlobMissing';
  }
}

/** A write was refused since the key exists or the source changed. */
export class BlobConflict extends Error {
  constructor(key: string) {
    super(`object ${key} is there already or changed`);
    this.name = 'BlobConflict';
  }
}

/** An object ends before the bytes that were asked for. */
export class BlobTooShort extends Error {
  /** @param bytes the length of the object, where it is known */
  constructor(key: string, offset: number, length: number, bytes?: number) {
    const found = bytes === undefined ? 'it ends before' : `it has ${bytes}`;
    super(`object ${key} should have the bytes ${offset} to ${offset + length - 1}, but ${found}`);
    this.name = 'BlobTooShort';
  }
}

export interface Blobs {
  /** @throws BlobConflict when `ifAbsent` and the key exists. */
  put(
    key: string,
    body: Uint8Array | string,
    options?: { readonly contentType?: string; readonly ifAbsent?: boolean },
  ): Promise<{ readonly etag: string }>;
  /**
   * Stores bytes as they come, holding no more than two parts of them in memory. The object is there when this has
   * answered, or not at all.
   */
  putStream(
    key: string,
    chunks: AsyncIterable<Uint8Array>,
    options?: { readonly contentType?: string },
  ): Promise<{ readonly etag: string; readonly bytes: number }>;
  /** @throws BlobMissing */
  get(key: string, range?: { readonly offset: number; readonly length: number }): Promise<Uint8Array>;
  /**
   * Reads exactly `target.length` bytes of one version of an object straight into `target`. Checks their number, not
   * their content: the caller has a checksum. An empty target asks for nothing.
   *
   * Once the promise is settled, whichever way, nothing writes to `target` any more; after a failure its content is
   * undefined.
   *
   * @param offset of the first byte, 0 or more
   * @param target any memory, that of a kernel too as long as it does not grow meanwhile
   * @throws BlobMissing, BlobTooShort, BlobConflict (replaced by other content while it was read)
   */
  readInto(key: string, offset: number, target: Uint8Array): Promise<void>;
  head(key: string): Promise<BlobInfo | undefined>;
  /** Copies inside the store or from another one, only if the source still has `etag`. @throws BlobConflict, BlobMissing */
  copyFrom(source: Blobs, sourceKey: string, key: string, etag: string): Promise<void>;
  delete(key: string): Promise<void>;
  list(
    prefix: string,
    after?: string,
  ): Promise<{ readonly blobs: readonly BlobInfo[]; readonly next?: string }>;
  /** A URL that reads the object for `seconds` (60..86,400) without credentials. */
  presignGet(key: string, seconds: number): Promise<string>;
  /** A URL that writes the object; the content type is signed, the length is not (decisions, section 8 of the API rules). */
  presignPut(key: string, seconds: number, contentType: string): Promise<string>;
  /** `s3://bucket/key`: the permanent name of an object, which gives nobody access. */
  uri(key: string): string;
}

export async function getText(blobs: Blobs, key: string): Promise<string> {
  return Buffer.from(await blobs.get(key)).toString('utf8');
}

export async function getJson<T>(blobs: Blobs, key: string): Promise<T> {
  return JSON.parse(await getText(blobs, key)) as T;
}
