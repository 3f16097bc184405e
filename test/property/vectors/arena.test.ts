// The arena under any interleaving of uses, fills that end well or badly, and waiting: against a plain model of it.
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { Arena } from '../../../functions/core/vectors/kernel/arena.ts';

const arenaAt = 192;
const keys = 12;

interface Filling {
  readonly key: number;
  readonly target: Uint8Array;
  readonly end: (good: boolean) => void;
}

/** Lets everything that can go on without another event go on. */
const turn = () => new Promise((resolve) => setImmediate(resolve));
const alignedSize = (bytes: number) => Math.max(64, Math.ceil(bytes / 64) * 64);

const step = fc.oneof(
  { weight: 3, arbitrary: fc.record({ use: fc.nat(keys - 1) }) },
  { weight: 2, arbitrary: fc.record({ end: fc.nat(50), good: fc.boolean() }) },
  { weight: 2, arbitrary: fc.record({ end: fc.nat(50), good: fc.constant(true) }) },
);

test('slots never overlap, what is read is what was filled, the longest unused goes first, nobody waits for ever', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 64, max: 2500 }),
      fc.array(fc.oneof(fc.nat(400), fc.nat(2500)), { minLength: keys, maxLength: keys }),
      // Most events come alone, so that their effect is known; some come together.
      fc.array(
        fc.oneof({ weight: 6, arbitrary: step.map((one) => [one]) }, fc.array(step, { maxLength: 5 })),
        {
          maxLength: 60,
        },
      ),
      async (arenaBytes, lengths, batches) => {
        const room = arenaBytes - (arenaBytes % 64);
        const sizes = lengths.map((length) => length % (room + 1));
        const memory = new Uint8Array(arenaAt + arenaBytes + 128).fill(255);
        const arena = new Arena({ bytes: memory, arenaAt, arenaBytes });

        const filling: Filling[] = [];
        /** Resident keys, longest unused first. */
        let order: number[] = [];
        /** Keys whose slot was asked for, and those whose fill began, each in their order. */
        const asked: number[] = [];
        const began: number[] = [];
        /** Keys that are being filled or wait for room. */
        const pending = new Set<number>();
        let open = 0;

        const fill = (key: number) => (target: Uint8Array) => {
          expect(target.length).toBe(sizes[key]);
          expect(target.byteOffset % 64).toBe(0);
          expect(target.byteOffset).toBeGreaterThanOrEqual(arenaAt);
          expect(target.byteOffset + target.length).toBeLessThanOrEqual(arenaAt + arenaBytes);
          expect(filling.some((other) => other.key === key)).toBe(false);
          for (const { target: other } of filling) {
            const apart =
              other.byteOffset + alignedSize(other.length) <= target.byteOffset ||
              target.byteOffset + alignedSize(target.length) <= other.byteOffset;
            expect(apart).toBe(true);
          }
          began.push(key);
          target.fill(200);
          return new Promise<void>((resolve, reject) => {
            const end = (good: boolean) => {
              target.fill(good ? key : 201);
              if (good) resolve();
              else reject(new Error(`fill of ${key}`));
            };
            filling.push({ key, target, end });
          });
        };

        const use = (key: number) => {
          const cold = !pending.has(key) && !arena.has(String(key));
          if (cold) {
            pending.add(key);
            asked.push(key);
          }
          open += 1;
          arena
            .use(String(key), sizes[key]!, fill(key), (at, wasCold) => {
              pending.delete(key);
              expect(wasCold).toBe(cold);
              expect(memory.subarray(at, at + sizes[key]!).every((byte) => byte === key)).toBe(true);
              order = [...order.filter((other) => other !== key), key];
            })
            .catch((error: Error) => {
              pending.delete(key);
              if (error.message !== `fill of ${key}`) failures.push(error);
            })
            .finally(() => {
              open -= 1;
            });
        };
        const failures: Error[] = [];

        /** The longest run of bytes that no filling slot lies in. */
        const largestGap = () => {
          let [from, largest] = [arenaAt, 0];
          for (const { target } of filling.toSorted((a, b) => a.target.byteOffset - b.target.byteOffset)) {
            largest = Math.max(largest, target.byteOffset - from);
            from = target.byteOffset + alignedSize(target.length);
          }
          return Math.max(largest, arenaAt + room - from);
        };

        const check = (alone: boolean) => {
          expect(failures).toEqual([]);
          const kept = order.filter((key) => arena.has(String(key)));
          const gone = order.filter((key) => !arena.has(String(key)));
          // What went are the first ones, so that what stayed are the last ones.
          if (alone) expect([...gone, ...kept]).toEqual(order);
          order = kept;
          expect(began).toEqual(asked.slice(0, began.length));
          // Who is next in the queue waits for a reason: what is being filled leaves no room.
          const next = asked[began.length];
          if (next !== undefined) expect(largestGap()).toBeLessThan(alignedSize(sizes[next]!));
          const taken = [...kept, ...filling.map(({ key }) => key)];
          const used = taken.reduce((sum, key) => sum + alignedSize(sizes[key]!), 0);
          expect(arena.bytesUsed).toBe(used);
          expect(used).toBeLessThanOrEqual(arenaBytes);
          expect(memory.subarray(0, arenaAt).every((byte) => byte === 255)).toBe(true);
          expect(memory.subarray(arenaAt + arenaBytes).every((byte) => byte === 255)).toBe(true);
        };

        const end = (which: number, good: boolean) => {
          const [one] = filling.splice(which % filling.length, 1);
          if (!one) return;
          one.end(good);
        };

        for (const batch of batches) {
          for (const one of batch) {
            if ('use' in one) use(one.use);
            else end(one.end, one.good);
          }
          await turn();
          check(batch.length === 1);
        }
        while (open > 0) {
          // Somebody waits, so a fill must be under way: else a wake-up was lost.
          expect(filling.length).toBeGreaterThan(0);
          end(0, true);
          await turn();
          check(true);
        }
        expect(began).toEqual(asked);
        // Nothing leaked: the whole arena can be had by one key.
        await arena.use(
          'whole',
          room,
          async () => {},
          () => {},
        );
        expect(arena.bytesUsed).toBe(room);
      },
    ),
    { numRuns: 600 },
  );
});
