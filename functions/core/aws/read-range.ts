// A long range of an object, by several GETs at once, each straight to its place in the caller's memory.
import { addAbortSignal, Readable } from 'node:stream';
import { GetObjectCommand, type S3Client } from '@aws-sdk/client-s3';
import { BlobConflict, BlobTooShort } from '../store/blobs.ts';
import type { RangeSockets, SignedGet } from './range-sockets.ts';

/** Where a range is read, and by what. */
export interface RangeSource {
  readonly client: S3Client;
  readonly sockets: RangeSockets;
  readonly bucket: string;
  readonly key: string;
}

/** S3 gives each connection a share of the bandwidth only: 64 MB come by eight. */
const partBytes = 8 << 20;
const partsMax = 8;

/**
 * Fills `target` with the bytes of an object from `offset` on. Returns when nothing writes to it any more.
 *
 * Address, signature, retries and errors are the SDK's. Parts can not be of different versions: each answer carries the
 * ETag of what it was read from, and they must agree.
 *
 * @param target not empty
 * @throws BlobTooShort, BlobConflict, and what the SDK throws
 */
export async function readRange(source: RangeSource, offset: number, target: Uint8Array): Promise<void> {
  const count = Math.min(partsMax, Math.ceil(target.length / partBytes));
  const bounds = Array.from({ length: count + 1 }, (_, i) => Math.floor((i * target.length) / count));
  const abort = new AbortController();
  const etags = new Set<string | undefined>();
  let failure: { readonly error: unknown } | undefined;
  const read = async (from: number, to: number) => {
    try {
      etags.add(await readPart(source, offset + from, target.subarray(from, to), abort.signal));
    } catch (error) {
      // The others are told to stop, and fail for that reason: what counts is the first.
      failure ??= { error };
      abort.abort();
    }
  };
  await Promise.all(bounds.slice(1).map((to, i) => read(bounds[i]!, to)));
  if (failure) throw failure.error;
  if (etags.size !== 1 || etags.has(undefined)) throw new BlobConflict(source.key);
}

/** Headers of an answer that the SDK gets to see. */
const told = ['etag', 'content-length', 'content-range', 'x-amz-request-id', 'x-amz-id-2'];

const pairOf = (name: string, value: string | undefined): [string, string][] =>
  value === undefined ? [] : [[name, value]];

/** @returns the ETag of the object that the bytes are of */
async function readPart(
  { client, sockets, bucket, key }: RangeSource,
  offset: number,
  target: Uint8Array,
  signal: AbortSignal,
): Promise<string | undefined> {
  const range = `${offset}-${offset + target.length - 1}`;
  const command = new GetObjectCommand({ Bucket: bucket, Key: key, Range: `bytes=${range}` });
  let inPlace = false;
  // Takes the place of the SDK's transport for this command. What it cannot read, an error above all, is asked for again
  // by the SDK's own.
  command.middlewareStack.add(
    (next) => async (args) => {
      const head = await sockets.read(args.request as SignedGet, offset, target, signal);
      if (head === undefined) return next(args);
      inPlace = head.complete;
      // Other headers would mislead the SDK: by a checksum of the body, which S3 adds at times, it would judge this one.
      const headers = Object.fromEntries(told.flatMap((name) => pairOf(name, head.headers[name])));
      return { response: { statusCode: 206, headers, body: Readable.from([]) } };
    },
    { step: 'deserialize', priority: 'low', name: 'readIntoTarget' },
  );
  const answer = await client.send(command, { abortSignal: signal });
  const body = answer.Body as Readable;
  const bytes = Number(/\/(\d+)$/.exec(answer.ContentRange ?? '')?.[1] ?? Number.NaN);
  if (bytes < offset + target.length) {
    body.destroy();
    throw new BlobTooShort(key, offset, target.length, bytes);
  }
  if (answer.ContentRange !== `bytes ${range}/${bytes}`) {
    body.destroy();
    throw new Error(`${bucket}/${key}: asked for bytes ${range}, got ${answer.ContentRange ?? 'no range'}`);
  }
  if (!inPlace) await readBody(addAbortSignal(signal, body), target, key);
  return answer.ETag;
}

async function readBody(body: Readable, target: Uint8Array, key: string): Promise<void> {
  let at = 0;
  for await (const chunk of body as AsyncIterable<Uint8Array>) {
    if (at + chunk.length > target.length) throw new Error(`the body of ${key} is longer than announced`);
    target.set(chunk, at);
    at += chunk.length;
  }
  if (at < target.length) throw new Error(`the body of ${key} ended after ${at} of ${target.length} bytes`);
}
