// What any store of bytes must do. Run over memory in `vitest run`, over S3 by the emulator's tests.
import { describe, expect, it } from 'vitest';
import type { Blobs } from '../../../functions/core/store/blobs.ts';
import {
  BlobConflict,
  BlobMissing,
  BlobTooShort,
  getJson,
  getText,
} from '../../../functions/core/store/blobs.ts';

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

    it('stores bytes as they come: none, few, and more than a part holds', async () => {
      const blobs = await make();
      const key = fresh();
      async function* chunks(sizes: readonly number[]) {
        for (const [i, size] of sizes.entries()) yield new Uint8Array(size).fill(i + 1);
      }
      for (const sizes of [[], [0], [5, 0, 7], [3_000_000, 6_000_000, 9_000_000, 1]]) {
        const whole = Buffer.concat(sizes.map((size, i) => new Uint8Array(size).fill(i + 1)));
        const { bytes } = await blobs.putStream(key, chunks(sizes), { contentType: 'text/plain' });
        expect(bytes).toBe(whole.length);
        expect(Buffer.compare(await blobs.get(key), whole)).toBe(0);
      }
    });

    it('stores nothing of bytes that end in an error', async () => {
      const blobs = await make();
      const key = fresh();
      async function* broken() {
        yield new Uint8Array(9_000_000);
        throw new Error('the source broke');
      }
      await expect(blobs.putStream(key, broken())).rejects.toThrow('the source broke');
      expect(await blobs.head(key)).toBeUndefined();
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

    it('reads exactly the bytes of a range into memory of the caller, and touches nothing beside it', async () => {
      const blobs = await make();
      const key = `${fresh()}/a b+c/ü#%25&?x`;
      const bytes = Uint8Array.from({ length: 300_000 }, (_, i) => (i * 31 + (i >> 8)) & 0xff);
      await blobs.put(key, bytes);
      const memory = new Uint8Array(new WebAssembly.Memory({ initial: 6, maximum: 6 }).buffer);
      for (const [offset, length] of [
        [0, 300_000],
        [0, 1],
        [299_999, 1],
        [65_537, 200_001],
      ] as const) {
        memory.fill(0xee);
        await blobs.readInto(key, offset, memory.subarray(64, 64 + length));
        expect(
          Buffer.compare(memory.subarray(64, 64 + length), bytes.subarray(offset, offset + length)),
        ).toBe(0);
        expect([memory[63], memory[64 + length]]).toEqual([0xee, 0xee]);
      }
    });

    it('reads a long range whole, in however many parts it is fetched', async () => {
      const blobs = await make();
      const key = fresh();
      const words = Uint32Array.from({ length: 5 << 20 }, (_, i) => Math.imul(i, 2_654_435_761));
      const bytes = new Uint8Array(words.buffer);
      await blobs.put(key, bytes);
      const target = new Uint8Array(bytes.length - 1001);
      await blobs.readInto(key, 1000, target);
      expect(Buffer.compare(target, bytes.subarray(1000, -1))).toBe(0);
    });

    it('reads several ranges of several objects at once', async () => {
      const blobs = await make();
      const key = fresh();
      for (const digit of [1, 2, 3, 4]) await blobs.put(`${key}/${digit}`, String(digit).repeat(5000));
      const memory = Buffer.alloc(40 * 100);
      await Promise.all(
        Array.from({ length: 40 }, (_, i) =>
          blobs.readInto(`${key}/${1 + (i % 4)}`, 100 * i, memory.subarray(100 * i, 100 * i + 100)),
        ),
      );
      const expected = Array.from({ length: 40 }, (_, i) => String(1 + (i % 4)).repeat(100)).join('');
      expect(memory.toString()).toBe(expected);
    });

    it('refuses a range past the end and names the object, wherever the range begins', async () => {
      const blobs = await make();
      const key = fresh();
      await blobs.put(key, '0123456789');
      await blobs.put(`${key}/empty`, '');
      for (const [name, offset, length] of [
        [key, 0, 11],
        [key, 9, 2],
        [key, 10, 1],
        [key, 1000, 20_000_000],
        [`${key}/empty`, 0, 1],
      ] as const) {
        const refused = blobs.readInto(name, offset, new Uint8Array(length));
        await expect(refused).rejects.toBeInstanceOf(BlobTooShort);
        await expect(refused).rejects.toThrow(name);
      }
      const exact = new Uint8Array(10);
      await blobs.readInto(key, 0, exact);
      expect(Buffer.from(exact).toString()).toBe('0123456789');
    });

    it('reads nothing when it is asked for nothing', async () => {
      const blobs = await make();
      const key = fresh();
      await blobs.put(key, 'x');
      await blobs.readInto(key, 0, new Uint8Array(0));
      await blobs.readInto(key, 1, new Uint8Array(0));
    });

    it('says that a key is missing also when it is read into memory', async () => {
      const blobs = await make();
      for (const length of [1, 20_000_000]) {
        await expect(blobs.readInto(fresh(), 0, new Uint8Array(length))).rejects.toBeInstanceOf(BlobMissing);
      }
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
