// Hedged calls: asked twice only when late, answered by the first, failed only when all have failed.
import { describe, expect, test } from 'vitest';
import { hedge, Latencies, type Wait } from '../../../functions/core/fan-out/hedge.ts';

/** Latencies of which 95 % are 10 ms. */
function knownLatencies(): Latencies {
  const latencies = new Latencies();
  for (let i = 0; i < 100; i += 1) latencies.add(10);
  return latencies;
}

/** A clock that stands still, a wait that ends when the test says so, and calls that it answers. */
function stage() {
  const calls: { resolve: (value: string) => void; reject: (error: Error) => void }[] = [];
  let ring: (() => void) | undefined;
  const waits: number[] = [];
  const wait: Wait = (ms, then) => {
    waits.push(ms);
    ring = then;
    return () => {
      ring = undefined;
    };
  };
  const call = () => new Promise<string>((resolve, reject) => calls.push({ resolve, reject }));
  return { calls, call, wait, waits, ring: () => ring?.(), isWaiting: () => ring !== undefined };
}

describe('a hedged call', () => {
  test('is one call while too few answers are known to say what is late', async () => {
    const { calls, call, wait, waits } = stage();
    const answer = hedge(call, new Latencies(), () => 0, wait);
    calls[0]!.resolve('first');
    expect(await answer).toEqual({ value: 'first', hedged: false });
    expect(waits).toEqual([]);
  });

  test('asks again after the 95th of a hundred answers, and takes whichever is first', async () => {
    const { calls, call, wait, waits, ring } = stage();
    const latencies = new Latencies();
    for (let i = 1; i <= 100; i += 1) latencies.add(i);
    const answer = hedge(call, latencies, () => 0, wait);
    expect(waits).toEqual([96]);
    ring();
    expect(calls).toHaveLength(2);
    calls[1]!.resolve('second');
    expect(await answer).toEqual({ value: 'second', hedged: true });
    calls[0]!.resolve('late');
  });

  test('is asked once when it answers in time, and waits no longer', async () => {
    const { calls, call, wait, isWaiting } = stage();
    const answer = hedge(call, knownLatencies(), () => 0, wait);
    calls[0]!.resolve('first');
    expect(await answer).toEqual({ value: 'first', hedged: false });
    expect(isWaiting()).toBe(false);
  });

  test('survives the failure of one of two, not of both', async () => {
    const one = stage();
    const answer = hedge(one.call, knownLatencies(), () => 0, one.wait);
    one.ring();
    one.calls[0]!.reject(new Error('broken'));
    one.calls[1]!.resolve('whole');
    expect(await answer).toEqual({ value: 'whole', hedged: true });
    const two = stage();
    const failing = hedge(two.call, knownLatencies(), () => 0, two.wait);
    two.ring();
    two.calls[0]!.reject(new Error('first'));
    two.calls[1]!.reject(new Error('second'));
    await expect(failing).rejects.toThrow('second');
  });

  test('that fails before it is late is not asked again: the error is the answer', async () => {
    const { calls, call, wait, isWaiting } = stage();
    const answer = hedge(call, knownLatencies(), () => 0, wait);
    calls[0]!.reject(new Error('refused'));
    await expect(answer).rejects.toThrow('refused');
    expect(isWaiting()).toBe(false);
  });
});
