// A bucket over S3: refusals by name and by status, whole bodies, and URLs that allow one thing for a while.
import {
  CopyObjectCommand,
  GetObjectCommand,
  HeadObjectCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  S3Client,
} from '@aws-sdk/client-s3';
import { mockClient } from 'aws-sdk-client-mock';
import { beforeEach, describe, expect, it } from 'vitest';
import { S3Blobs } from '../../../functions/core/aws/s3.ts';
import { BlobConflict, BlobMissing } from '../../../functions/core/store/blobs.ts';
import { MemoryBlobs } from '../../../functions/core/store/memory.ts';

const aws = mockClient(S3Client);
const options = {
  region: 'eu-west-1',
  credentials: { accessKeyId: 'AKIDEXAMPLE', secretAccessKey: 'secret' },
} as const;
const blobs = new S3Blobs('bucket', new S3Client(options));
const failing = (name: string, status = 400) =>
  Object.assign(new Error('x'), { name, $metadata: { httpStatusCode: status } });
async function* body(...chunks: Uint8Array[]) {
  yield* chunks;
}

beforeEach(() => void aws.reset());

describe('put', () => {
  it('asks that nothing is there when told so', async () => {
    aws.on(PutObjectCommand).resolves({ ETag: '"e"' });
    expect(await blobs.put('k', 'x', { ifAbsent: true, contentType: 'text/plain' })).toEqual({ etag: '"e"' });
    await blobs.put('k', '');
    const [first, second] = aws.commandCalls(PutObjectCommand).map((call) => call.args[0].input);
    expect(first).toMatchObject({ IfNoneMatch: '*', ContentType: 'text/plain' });
    expect(second).not.toHaveProperty('IfNoneMatch');
    expect(second!.Body).toEqual(Buffer.alloc(0));
  });

  it.each([
    ['PreconditionFailed', 412],
    ['ConditionalRequestConflict', 409],
    ['Unknown', 412],
  ])('refused by %s (%i) is a conflict', async (name, status) => {
    aws.on(PutObjectCommand).rejects(failing(name, status));
    aws.on(HeadObjectCommand).rejects(failing('NotFound', 404));
    await expect(blobs.put('k', 'x', { ifAbsent: true })).rejects.toBeInstanceOf(BlobConflict);
  });

  it('whose first answer was lost knows its own object by the mark that it left, and another one not', async () => {
    let stored: Record<string, string> | undefined;
    aws.on(PutObjectCommand).callsFake((input) => {
      stored = input.Metadata;
      throw failing('PreconditionFailed', 412);
    });
    aws.on(HeadObjectCommand).callsFake(() => ({ ETag: '"mine"', Metadata: stored }));
    expect(await blobs.put('k', 'x', { ifAbsent: true })).toEqual({ etag: '"mine"' });
    aws.on(HeadObjectCommand).resolves({ ETag: '"theirs"', Metadata: { 'write-id': 'somebody' } });
    await expect(blobs.put('k', 'x', { ifAbsent: true })).rejects.toBeInstanceOf(BlobConflict);
  });

  it('beside another write of its key is tried again, since nobody has won yet', async () => {
    aws
      .on(PutObjectCommand)
      .rejectsOnce(failing('ConditionalRequestConflict', 409))
      .resolves({ ETag: '"e"' });
    expect(await blobs.put('k', 'x', { ifAbsent: true })).toEqual({ etag: '"e"' });
  });

  it('that is slowed down says busy', async () => {
    aws.on(PutObjectCommand).rejects(failing('SlowDown', 503));
    await expect(blobs.put('k', 'x')).rejects.toMatchObject({ code: 'storage_throttled' });
  });
});

describe('get and head', () => {
  it('put a body together from its parts, also when its length was not told', async () => {
    for (const ContentLength of [5, undefined, 3]) {
      aws
        .on(GetObjectCommand)
        .resolves({ Body: body(Uint8Array.of(1, 2, 3), Uint8Array.of(4, 5)) as never, ContentLength });
      expect([...(await blobs.get('k'))]).toEqual([1, 2, 3, 4, 5]);
    }
  });

  it('refuse a body that ends too soon', async () => {
    aws.on(GetObjectCommand).resolves({ Body: body(Uint8Array.of(1)) as never, ContentLength: 2 });
    await expect(blobs.get('k')).rejects.toThrow();
  });

  it('ask for a range with both ends included', async () => {
    aws.on(GetObjectCommand).resolves({ Body: body(Uint8Array.of(1)) as never, ContentLength: 1 });
    await blobs.get('k', { offset: 10, length: 5 });
    expect(aws.commandCalls(GetObjectCommand)[0]!.args[0].input.Range).toBe('bytes=10-14');
  });

  it('of nothing: get throws, head is undefined; a refusal of rights is neither', async () => {
    aws.on(GetObjectCommand).rejects(failing('NoSuchKey', 404));
    aws.on(HeadObjectCommand).rejects(failing('NotFound', 404));
    await expect(blobs.get('k')).rejects.toBeInstanceOf(BlobMissing);
    expect(await blobs.head('k')).toBeUndefined();
    aws.on(GetObjectCommand).rejects(failing('AccessDenied', 403));
    aws.on(HeadObjectCommand).rejects(failing('Forbidden', 403));
    await expect(blobs.get('k')).rejects.toMatchObject({ code: 'internal_error' });
    await expect(blobs.head('k')).rejects.toMatchObject({ code: 'internal_error' });
  });
});

describe('copy', () => {
  it('names its source, escaped, and the ETag that it must have', async () => {
    aws.on(CopyObjectCommand).resolves({});
    await blobs.copyFrom(new S3Blobs('other', new S3Client(options)), 'a/b c+d', 'k', '"e"');
    expect(aws.commandCalls(CopyObjectCommand)[0]!.args[0].input).toMatchObject({
      Bucket: 'bucket',
      Key: 'k',
      CopySource: 'other/a/b%20c%2Bd',
      CopySourceIfMatch: '"e"',
    });
  });

  it('of what changed is a conflict, of what is gone a miss', async () => {
    aws.on(CopyObjectCommand).rejects(failing('PreconditionFailed', 412));
    await expect(blobs.copyFrom(blobs, 's', 'k', '"e"')).rejects.toBeInstanceOf(BlobConflict);
    aws.on(CopyObjectCommand).rejects(failing('NoSuchKey', 404));
    await expect(blobs.copyFrom(blobs, 's', 'k', '"e"')).rejects.toBeInstanceOf(BlobMissing);
  });

  it('from another kind of store is refused', async () => {
    await expect(blobs.copyFrom(new MemoryBlobs(), 's', 'k', '"e"')).rejects.toThrow('S3');
  });
});

describe('list', () => {
  it('goes on after the last key', async () => {
    aws
      .on(ListObjectsV2Command)
      .resolvesOnce({
        Contents: [
          { Key: 'p/1', Size: 1, ETag: '"a"' },
          { Key: 'p/2', Size: 2, ETag: '"b"' },
        ],
        IsTruncated: true,
      })
      .resolves({ Contents: [{ Key: 'p/3', Size: 3, ETag: '"c"' }] });
    const first = await blobs.list('p/');
    expect(first.next).toBe('p/2');
    const second = await blobs.list('p/', first.next);
    expect(second).toEqual({ blobs: [{ key: 'p/3', bytes: 3, etag: '"c"', modifiedMs: 0 }] });
    expect(aws.commandCalls(ListObjectsV2Command)[1]!.args[0].input.StartAfter).toBe('p/2');
  });
});

describe('URLs', () => {
  const signer = new S3Blobs(
    'bucket',
    new S3Client({ ...options, requestChecksumCalculation: 'WHEN_REQUIRED' }),
  );

  it('to put sign host and content type, and neither length nor checksum, so that any size fits', async () => {
    const url = new URL(await signer.presignPut('uploads/ns_1/upl_1.zip', 3600, 'application/zip'));
    expect(url.pathname).toBe('/uploads/ns_1/upl_1.zip');
    expect(url.searchParams.get('X-Amz-SignedHeaders')).toBe('content-type;host');
    expect(url.searchParams.get('X-Amz-Expires')).toBe('3600');
    expect(
      [...url.searchParams.keys()].filter((name) => /checksum|content-length|sdk-checksum/i.test(name)),
    ).toEqual([]);
    expect(url.href).not.toContain('secret');
  });

  it('differ by content type, key, method and time', async () => {
    const signatures = await Promise.all(
      [
        signer.presignPut('a', 60, 'text/plain'),
        signer.presignPut('a', 60, 'image/png'),
        signer.presignPut('b', 60, 'text/plain'),
        signer.presignGet('a', 60),
        signer.presignGet('a', 61),
      ].map(async (url) => new URL(await url).searchParams.get('X-Amz-Signature')),
    );
    expect(new Set(signatures).size).toBe(5);
  });

  it('to get are for one object', async () => {
    const url = new URL(await signer.presignGet('objects/ns_1/a b', 60));
    expect(url.pathname).toBe('/objects/ns_1/a%20b');
    expect(url.searchParams.get('x-id')).toBe('GetObject');
  });

  it('by default (as in a Lambda) carry no checksum either', async () => {
    process.env.AWS_REGION ??= 'eu-west-1';
    process.env.AWS_ACCESS_KEY_ID ??= 'AKIDEXAMPLE';
    process.env.AWS_SECRET_ACCESS_KEY ??= 'secret';
    const url = new URL(await new S3Blobs('bucket').presignPut('k', 60, 'text/plain'));
    expect([...url.searchParams.keys()].filter((name) => /checksum/i.test(name))).toEqual([]);
  });
});
