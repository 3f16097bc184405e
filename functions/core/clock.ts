// The one source of time and randomness, so that tests can run schedules and expiry on a virtual clock.
import { randomBytes } from 'node:crypto';

/** Milliseconds since the epoch, and nothing else: code under test never calls `Date.now` itself. */
export interface Clock {
  now(): number;
}

/** Uniform random bytes; replaced by a seeded source in tests that compare whole answers. */
export interface RandomSource {
  bytes(count: number): Uint8Array;
}

export const systemClock: Clock = { now: () => Date.now() };
export const systemRandom: RandomSource = { bytes: (count) => randomBytes(count) };

/** A clock that only moves when told to. `advance` takes milliseconds. */
export function virtualClock(startMs = Date.UTC(2026, 0, 1)): Clock & { advance(ms: number): void } {
  let now = startMs;
  return {
    now: () => now,
    advance(ms) {
      now += ms;
    },
  };
}

/** ISO 8601 in UTC with milliseconds: the form of every `*_at` field on the wire and in the table. */
export function isoTime(ms: number): string {
  return new Date(ms).toISOString();
}
