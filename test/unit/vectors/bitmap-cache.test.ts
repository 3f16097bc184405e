// Bitmaps of filters are kept within their bound, per owner, and asked for again when they had to go.
import { expect, test } from 'vitest';
import { BitmapCache } from '../../../functions/core/vectors/bitmap-cache.ts';
import type { Bits } from '../../../functions/core/vectors/bits.ts';

const bits = (words: number) => new Uint32Array(words);

test('a bitmap is made once for its owner and key', () => {
  const cache = new BitmapCache<object, Bits>(100_000);
  const [one, other] = [{}, {}];
  const made = bits(4);
  expect(cache.get(one, 'a', () => made)).toBe(made);
  expect(cache.get(one, 'a', () => bits(4))).toBe(made);
  expect(cache.get(other, 'a', () => bits(4))).not.toBe(made);
  expect(cache.get(one, 'b', () => bits(4))).not.toBe(made);
});

test('what was used longest ago goes when the bound is reached, and the bound holds at every moment', () => {
  const cache = new BitmapCache<object, Bits>(10_000);
  const owner = {};
  let makes = 0;
  const ask = (key: string) =>
    cache.get(owner, key, () => {
      makes += 1;
      return bits(500);
    });
  for (const key of ['a', 'b', 'c', 'd']) ask(key);
  ask('a');
  expect(makes).toBe(4);
  ask('e');
  expect(cache.bytes).toBeLessThanOrEqual(10_000);
  ask('a');
  expect(makes).toBe(5);
  ask('b');
  expect(makes).toBe(6);
});

test('one that is larger than the bound is made each time and drives nothing out', () => {
  const cache = new BitmapCache<object, readonly Bits[]>(10_000);
  const owner = {};
  const small = cache.get(owner, 'small', () => [bits(10)]);
  const large = () => cache.get(owner, 'large', () => [bits(2_000), bits(2_000)]);
  expect(large()).not.toBe(large());
  expect(cache.get(owner, 'small', () => [])).toBe(small);
});

test('the length of a key counts too', () => {
  const cache = new BitmapCache<object, Bits>(10_000);
  for (let i = 0; i < 50; i += 1) cache.get({}, `${i}${'x'.repeat(2_000)}`, () => bits(1));
  expect(cache.bytes).toBeGreaterThan(4_000);
  expect(cache.bytes).toBeLessThanOrEqual(10_000);
});
