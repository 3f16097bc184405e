// The arena of segments: what is kept, what is given up, who waits, and what is refused.
import { describe, expect, it } from 'vitest';
import { VectorError } from '../../../functions/core/vectors/errors.ts';
import { Arena } from '../../../functions/core/vectors/kernel/arena.ts';

const arenaAt = 128;
const make = (arenaBytes: number) => {
  const bytes = new Uint8Array(arenaAt + arenaBytes + 64);
  return { bytes, arena: new Arena({ bytes, arenaAt, arenaBytes }) };
};
const fillWith = (value: number) => async (target: Uint8Array) => void target.fill(value);
const address = (at: number) => at;

/** A fill that ends when told to. */
function held(value: number) {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  let started = false;
  return {
    fill: async (target: Uint8Array) => {
      started = true;
      await promise;
      target.fill(value);
    },
    started: () => started,
    finish: resolve,
    fail: (why: string) => reject(new Error(why)),
  };
}
const turn = () => new Promise((resolve) => setImmediate(resolve));

describe('the arena', () => {
  it('fills a key once and works in place after that', async () => {
    const { bytes, arena } = make(1024);
    const [first, again] = [
      await arena.use('a', 100, fillWith(7), (at, cold) => ({ at, cold })),
      await arena.use('a', 100, fillWith(8), (at, cold) => ({ at, cold })),
    ];
    expect(first).toEqual({ at: arenaAt, cold: true });
    expect(again).toEqual({ at: arenaAt, cold: false });
    expect(bytes.subarray(arenaAt, arenaAt + 100).every((byte) => byte === 7)).toBe(true);
    expect(arena.has('a')).toBe(true);
    expect(arena.bytesUsed).toBe(128);
  });

  it('lets callers of one key wait for one fill, of which only the first is cold', async () => {
    const { arena } = make(1024);
    const one = held(1);
    const uses = [one.fill, fillWith(2), fillWith(3)].map((fill) =>
      arena.use('a', 64, fill, (_at, cold) => cold),
    );
    expect(arena.has('a')).toBe(false);
    one.finish();
    expect(await Promise.all(uses)).toEqual([true, false, false]);
  });

  it('gives up what was used longest ago, and no more than it must', async () => {
    const { arena } = make(4 * 64);
    for (const key of ['a', 'b', 'c', 'd']) await arena.use(key, 64, fillWith(1), address);
    await arena.use('a', 64, fillWith(1), address);
    await arena.use('e', 64, fillWith(1), address);
    expect(['a', 'b', 'c', 'd', 'e'].filter((key) => arena.has(key))).toEqual(['a', 'c', 'd', 'e']);
    // b lay at 64..128 and e does now; c and d are neighbours.
    await arena.use('f', 128, fillWith(1), address);
    expect(['a', 'c', 'd', 'e', 'f'].filter((key) => arena.has(key))).toEqual(['a', 'e', 'f']);
  });

  it('keeps a slot where it is while it is filled; who finds no room waits', async () => {
    const { arena } = make(3 * 64);
    const middle = held(2);
    await arena.use('a', 64, fillWith(1), address);
    const filling = arena.use('b', 64, middle.fill, address);
    await arena.use('c', 64, fillWith(3), address);
    const large = held(4);
    const waiting = arena.use('large', 128, large.fill, address);
    await turn();
    expect(large.started()).toBe(false);
    // Nothing was given up in vain: without b there is no hole of 128 bytes.
    expect([arena.has('a'), arena.has('c')]).toEqual([true, true]);
    middle.finish();
    await filling;
    await turn();
    expect(large.started()).toBe(true);
    large.finish();
    await waiting;
    expect(arena.has('large')).toBe(true);
  });

  it('wakes those who wait in their order, so that small slots cannot keep a large one out', async () => {
    const { arena } = make(2 * 64);
    const [a, b] = [held(1), held(2)];
    const order: string[] = [];
    const use = (key: string, bytes: number, fill: (target: Uint8Array) => Promise<void>) =>
      arena.use(key, bytes, fill, () => void order.push(key));
    const uses = [
      use('a', 64, a.fill),
      use('b', 64, b.fill),
      use('large', 128, fillWith(3)),
      use('small', 64, fillWith(4)),
    ];
    a.finish();
    await turn();
    expect(order).toEqual(['a']);
    b.finish();
    await Promise.all(uses);
    expect(order).toEqual(['a', 'b', 'large', 'small']);
  });

  it('does not keep a fill that failed: everybody who waited gets the error, the next caller fills again', async () => {
    const { arena } = make(128);
    const bad = held(1);
    const uses = [bad.fill, fillWith(2)].map((fill) => arena.use('a', 128, fill, address));
    bad.fail('the line broke');
    for (const use of uses) await expect(use).rejects.toThrow('the line broke');
    expect([arena.has('a'), arena.bytesUsed]).toEqual([false, 0]);
    expect(await arena.use('a', 128, fillWith(3), (_at, cold) => cold)).toBe(true);
  });

  it('gives room to who waits when a fill fails', async () => {
    const { arena } = make(64);
    const bad = held(1);
    const failing = arena.use('a', 64, bad.fill, address);
    const waiting = arena.use('b', 64, fillWith(2), address);
    bad.fail('no');
    await expect(failing).rejects.toThrow('no');
    expect(await waiting).toBe(arenaAt);
  });

  it('keeps a slot whose work failed, and passes the error on', async () => {
    const { arena } = make(64);
    const broken = arena.use('a', 64, fillWith(1), () => {
      throw new Error('work');
    });
    await expect(broken).rejects.toThrow('work');
    expect(arena.has('a')).toBe(true);
    expect(await arena.use('b', 64, fillWith(2), address)).toBe(arenaAt);
  });

  it('refuses what can never fit, by name, and says how much there is', async () => {
    const { arena } = make(1000);
    const refused = arena.use('ns/col/seg/x.vseg', 961, fillWith(1), address);
    await expect(refused).rejects.toThrow(VectorError);
    await expect(refused).rejects.toMatchObject({
      code: 'segment_too_large',
      objectName: 'ns/col/seg/x.vseg',
      message: expect.stringMatching(/961 bytes.*960.*memory/s),
    });
    expect(await arena.use('y', 960, fillWith(1), address)).toBe(arenaAt);
  });

  it('refuses another length for a key that it knows, and lengths that are none', async () => {
    const { arena } = make(1024);
    await arena.use('a', 64, fillWith(1), address);
    await expect(arena.use('a', 65, fillWith(1), address)).rejects.toMatchObject({
      code: 'segment_mismatch',
      objectName: 'a',
    });
    for (const bytes of [-1, 1.5, Number.NaN])
      await expect(arena.use('b', bytes, fillWith(1), address)).rejects.toThrow(RangeError);
    expect(arena.bytesUsed).toBe(64);
  });

  it('gives an empty slot an address of its own', async () => {
    const { arena } = make(128);
    expect(await arena.use('a', 0, fillWith(1), address)).not.toBe(
      await arena.use('b', 0, fillWith(1), address),
    );
  });
});
