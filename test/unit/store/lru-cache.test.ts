// The cache of immutable values: its memory is bounded, what was used longest ago goes first, failures are not kept.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { LruCache } from '../../../functions/core/store/lru-cache.ts';

const made = (value: string, bytes: number) => async () => ({ value, bytes });
const never = async (): Promise<never> => {
  throw new Error('it was made again');
};

describe('the cache', () => {
  it('makes a value once, also for callers that come while it is being made', async () => {
    const cache = new LruCache<string>(100);
    let makings = 0;
    const make = async () => {
      makings += 1;
      return { value: 'v', bytes: 10 };
    };
    expect(await Promise.all([cache.get('a', make), cache.get('a', make)])).toEqual(['v', 'v']);
    expect(await cache.get('a', never)).toBe('v');
    expect([makings, cache.bytes]).toEqual([1, 10]);
  });

  it('gives up what was used longest ago', async () => {
    const cache = new LruCache<string>(30);
    for (const key of ['a', 'b', 'c']) await cache.get(key, made(key, 10));
    await cache.get('a', never);
    await cache.get('d', made('d', 10));
    expect(cache.bytes).toBe(30);
    for (const key of ['a', 'c', 'd']) expect(await cache.get(key, never)).toBe(key);
    await expect(cache.get('b', never)).rejects.toThrow('again');
  });

  it('keeps a newest value that is larger than everything, alone, until the next one', async () => {
    const cache = new LruCache<string>(30);
    await cache.get('a', made('a', 10));
    await cache.get('large', made('large', 1000));
    expect(cache.bytes).toBe(1000);
    expect(await cache.get('large', never)).toBe('large');
    await cache.get('b', made('b', 10));
    expect(cache.bytes).toBe(10);
  });

  it('does not keep a failure: all who waited get it, the next caller makes the value again', async () => {
    const cache = new LruCache<string>(30);
    const waiting = [cache.get('a', never), cache.get('a', made('other', 1))];
    for (const one of waiting) await expect(one).rejects.toThrow('again');
    expect(cache.bytes).toBe(0);
    expect(await cache.get('a', made('a', 10))).toBe('a');
  });

  it('does not give up what is being made', async () => {
    const cache = new LruCache<string>(10);
    const { promise, resolve } = Promise.withResolvers<{ value: string; bytes: number }>();
    const slow = cache.get('slow', () => promise);
    for (const key of ['a', 'b', 'c']) await cache.get(key, made(key, 10));
    const joined = cache.get('slow', never);
    resolve({ value: 'slow', bytes: 10 });
    expect(await Promise.all([slow, joined])).toEqual(['slow', 'slow']);
    expect(cache.bytes).toBe(10);
  });

  it('never holds more than its bound and one value, whatever comes in whatever order', async () => {
    const event = fc.record({
      key: fc.nat(9),
      bytes: fc.integer({ min: 1, max: 60 }),
      fails: fc.boolean(),
      waits: fc.boolean(),
    });
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 1, max: 100 }), fc.array(event), async (bytesMax, events) => {
        const cache = new LruCache<number>(bytesMax);
        const pending: Promise<unknown>[] = [];
        for (const { key, bytes, fails, waits } of events) {
          const got = cache
            .get(String(key), async () => {
              if (fails) throw new Error('fails');
              return { value: key, bytes };
            })
            .then(
              (value) => expect(value).toBe(key),
              (error: Error) => expect(error.message).toBe('fails'),
            );
          pending.push(got);
          if (waits) await Promise.all(pending);
          expect(cache.bytes).toBeLessThanOrEqual(Math.max(bytesMax, 60));
        }
        await Promise.all(pending);
        expect(cache.bytes).toBeLessThanOrEqual(Math.max(bytesMax, 60));
        expect(cache.bytes).toBeGreaterThanOrEqual(0);
      }),
    );
  });
});
