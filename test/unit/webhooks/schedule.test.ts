// Waits between attempts: as written down, spread a little, longer when the receiver asks.
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  attemptsMax,
  nextWaitMs,
  retryWaitsMs,
} from '../../../functions/core/resources/webhooks/schedule.ts';

const hour = 3_600_000;

describe('the schedule', () => {
  it('has ten attempts over 75 h 35 min 5 s', () => {
    expect(attemptsMax).toBe(10);
    expect(retryWaitsMs.reduce((sum, ms) => sum + ms, 0)).toBe((75 * 3600 + 35 * 60 + 5) * 1000);
    expect(nextWaitMs(attemptsMax, 0)).toBeUndefined();
    expect(nextWaitMs(attemptsMax, 0, 60)).toBeUndefined();
  });

  it('spreads each wait by a tenth at most, never below what it says', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 9 }),
        fc.double({ min: 0, max: 1, noNaN: true }),
        (attempt, spread) => {
          const base = retryWaitsMs[attempt - 1]!;
          const wait = nextWaitMs(attempt, spread)!;
          expect(wait).toBeGreaterThanOrEqual(base);
          expect(wait).toBeLessThanOrEqual(Math.ceil(base * 1.1));
        },
      ),
    );
  });

  it('waits as long as a receiver asks, when that is longer, up to a day', () => {
    expect(nextWaitMs(1, 0, 60)).toBe(60_000);
    expect(nextWaitMs(1, 0, 2)).toBe(5_000);
    expect(nextWaitMs(1, 0, 999_999)).toBe(24 * hour);
    expect(nextWaitMs(9, 0, 10)).toBe(24 * hour);
  });
});
