// What any store of bytes must do. Run over memory in `vitest run`, over S3 by the emulator's tests.
import { describe, expect, it } from 'vitest';
import type { Blobs } from '../../../functions/core/store/blobs.ts';
import { BlobConflict, BlobMissing, getJson, getText } from '../../../functions/core/store/blobs.ts';

export interface BlobsUnderTest {
  readonly name: string;
  /** The same store each time: tests use prefixes of their own. */
  make(): Promise<Blobs>;
  /** Another store of the same kind, to copy from. */
  makeOther(): Promise<Blobs>;
  /** How a URL is used; undefined where URLs are words only. */
  readonly fetch?: (url: string, init?: RequestInit) => Promise<Response>;
}

let prefixes = 0;
const fresh = () => `t/${Date.now().toString(36)}${process.pid}/${prefixes++}`;

export function blobsSuite({ name, make, makeOther, fetch }: BlobsUnderTest): void {
  describe(`a store of bytes: ${name}`, () => {
    it('gives back what was put: bytes, text, nothing at all', async () => {
      const blobs = await make();
      const key = fresh();
      const bytes = Uint8Array.from({ length: 70_000 }, (_, i) => (i * 31) & 0xff);
      await blobs.put(`${key}/bytes`, bytes);
      expect(Buffer.from(await blobs.get(`${key}/bytes`)).equals(Buffer.from(bytes))).toBe(true);
      await blobs.put(`${key}/text`, 'naïve 文', { contentType: 'text/plain' });
      expect(await getText(blobs, `${key}/text`)).toBe('naïve 文');
      await blobs.put(`${key}/empty`, '');
      expect((await blobs.get(`${key}/empty`)).byteLength).toBe(0);
      await blobs.put(`${key}/json`, '{"a":[1]}');
      expect(await getJson(blobs, `${key}/json`)).toEqual({ a: [1] });
    });

    it('takes keys with every character that we use', async () => {
      const blobs = await make();
      const key = `${fresh()}/a b+c=d@1.0.0/ü文#%25&?x`;
      await blobs.put(key, 'x');
      expect(await getText(blobs, key)).toBe('x');
      expect((await blobs.head(key))?.bytes).toBe(1);
      const copy = `${fresh()}/copy`;
      await blobs.copyFrom(blobs, key, copy, (await blobs.head(key))!.etag);
      expect(await getText(blobs, copy)).toBe('x');
    });

    it('reads ranges, also past the end', async () => {
      const blobs = await make();
      const key = fresh();
      await blobs.put(key, '0123456789');
      const range = async (offset: number, length: number) =>
        Buffer.from(await blobs.get(key, { offset, length })).toString();
      expect([await range(0, 3), await range(4, 1), await range(7, 100)]).toEqual(['012', '4', '789']);
    });

    it('says that a key is missing: get throws, head is undefined, delete is no fault', async () => {
      const blobs = await make();
      const key = fresh();
      await expect(blobs.get(key)).rejects.toBeInstanceOf(BlobMissing);
      expect(await blobs.head(key)).toBeUndefined();
      await blobs.delete(key);
      await blobs.put(key, 'x');
      await blobs.delete(key);
      await blobs.delete(key);
      expect(await blobs.head(key)).toBeUndefined();
    });

    it('replaces by default; with ifAbsent the first one stays, also of many at once', async () => {
      const blobs = await make();
      const key = fresh();
      await blobs.put(key, 'a');
      await blobs.put(key, 'b');
      expect(await getText(blobs, key)).toBe('b');
      await expect(blobs.put(key, 'c', { ifAbsent: true })).rejects.toBeInstanceOf(BlobConflict);
      const raced = fresh();
      const outcomes = await Promise.allSettled(
        Array.from({ length: 6 }, (_, i) => blobs.put(raced, String(i), { ifAbsent: true })),
      );
      const winner = outcomes.findIndex((outcome) => outcome.status === 'fulfilled');
      expect(outcomes.filter((outcome) => outcome.status === 'fulfilled')).toHaveLength(1);
      for (const outcome of outcomes)
        if (outcome.status === 'rejected') expect(outcome.reason).toBeInstanceOf(BlobConflict);
      expect(await getText(blobs, raced)).toBe(String(winner));
    });

    it('names content by its ETag: the same for the same bytes, another for others', async () => {
      const blobs = await make();
      const key = fresh();
      const first = await blobs.put(key, 'a');
      expect((await blobs.head(key))!.etag).toBe(first.etag);
      const second = await blobs.put(key, 'b');
      expect(second.etag).not.toBe(first.etag);
      expect((await blobs.put(key, 'a')).etag).toBe(first.etag);
      expect(first.etag).not.toBe('');
    });

    it('head tells size and time', async () => {
      const blobs = await make();
      const key = fresh();
      await blobs.put(key, '12345');
      const info = (await blobs.head(key))!;
      expect(info).toMatchObject({ key, bytes: 5 });
      expect(info.modifiedMs).toBeGreaterThan(Date.UTC(2020, 0, 1));
    });

    it('copies what still has the ETag, inside and between stores, and nothing else', async () => {
      const [blobs, other] = [await make(), await makeOther()];
      const [source, target] = [fresh(), fresh()];
      const { etag } = await other.put(source, 'one');
      await blobs.copyFrom(other, source, target, etag);
      expect(await getText(blobs, target)).toBe('one');
      await other.put(source, 'two');
      await expect(blobs.copyFrom(other, source, target, etag)).rejects.toBeInstanceOf(BlobConflict);
      expect(await getText(blobs, target)).toBe('one');
      await expect(blobs.copyFrom(other, `${source}-nothing`, target, etag)).rejects.toBeInstanceOf(
        BlobMissing,
      );
      await blobs.copyFrom(blobs, target, `${target}-again`, (await blobs.head(target))!.etag);
      expect(await getText(blobs, `${target}-again`)).toBe('one');
    });

    it('lists by prefix in the order of keys, from a key on', async () => {
      const blobs = await make();
      const prefix = fresh();
      for (const tail of ['b', 'a/2', 'a/10', 'a/1', 'c']) await blobs.put(`${prefix}/${tail}`, tail);
      const keys = async (below: string, after?: string) =>
        (await blobs.list(below, after)).blobs.map((blob) => blob.key.slice(prefix.length + 1));
      expect(await keys(`${prefix}/`)).toEqual(['a/1', 'a/10', 'a/2', 'b', 'c']);
      expect(await keys(`${prefix}/a/`)).toEqual(['a/1', 'a/10', 'a/2']);
      expect(await keys(`${prefix}/`, `${prefix}/a/2`)).toEqual(['b', 'c']);
      expect(await blobs.list(`${prefix}/nothing`)).toEqual({ blobs: [] });
      expect((await blobs.list(`${prefix}/b`)).blobs[0]).toMatchObject({
        bytes: 1,
        etag: (await blobs.head(`${prefix}/b`))!.etag,
      });
    });

    it('names an object for ever, and by URLs for a while', async () => {
      const blobs = await make();
      const key = fresh();
      expect(blobs.uri(key)).toMatch(new RegExp(`^s3://[^/]+/${key}$`));
      expect(await blobs.presignGet(key, 60)).toContain(key);
      expect(await blobs.presignPut(key, 60, 'text/plain')).toContain(key);
    });

    it('URLs work without credentials, for their own object and content type', async (test) => {
      if (fetch === undefined)
        return test.skip('nothing serves URLs of a store in memory; the emulator suite runs this');
      const blobs = await make();
      const key = `${fresh()}/file.txt`;
      const put = await fetch!(await blobs.presignPut(key, 300, 'text/plain'), {
        method: 'PUT',
        body: 'any size at all',
        headers: { 'Content-Type': 'text/plain' },
      });
      expect(put.status).toBe(200);
      expect(await getText(blobs, key)).toBe('any size at all');
      const get = await fetch!(await blobs.presignGet(key, 300));
      expect(await get.text()).toBe('any size at all');
    });
  });
}
