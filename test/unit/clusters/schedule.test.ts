// When schedules are due: patterns and intervals, the missed ones, and the patterns that are refused.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { cronFaults, nextTime } from '../../../functions/core/resources/clusters/schedule.ts';

const ms = (time: string) => Date.parse(time);
const cron = (pattern: string, after: string) => {
  const next = nextTime({ cron: pattern, interval_seconds: null }, ms(after));
  return next === undefined ? undefined : new Date(next).toISOString();
};
const at = ['body', 'schedule', 'cron'];

describe('a pattern', () => {
  it.each([
    ['0 3 * * *', '2026-02-28T03:00:00Z', '2026-03-01T03:00:00.000Z'],
    ['*/15 * * * *', '2026-01-01T00:14:59Z', '2026-01-01T00:15:00.000Z'],
    ['30 6 * * 1', '2026-01-01T00:00:00Z', '2026-01-05T06:30:00.000Z'],
    ['0 0 29 2 *', '2026-01-01T00:00:00Z', '2028-02-29T00:00:00.000Z'],
    ['0 12 1 JAN,JUL *', '2026-01-01T12:00:00Z', '2026-07-01T12:00:00.000Z'],
    // Of two days either will do, as in every crontab.
    ['0 0 13 * 5', '2026-01-01T00:00:00Z', '2026-01-02T00:00:00.000Z'],
  ])('%s comes after %s at %s, in UTC', (pattern, after, next) => {
    expect(cron(pattern, after)).toBe(next);
    expect(cronFaults(pattern, at, ms(after))).toEqual([]);
  });

  it.each([
    ['* * * * *', /at least 300 seconds apart/],
    ['0,2 * * * *', /at least 300 seconds apart/],
    ['58,1 * * * *', /at least 300 seconds apart/],
    ['0 0 30 2 *', /never comes/],
    ['60 * * * *', /cannot be read/],
    ['0 0 * *', /five fields/],
    ['0 0 0 * * *', /five fields/],
    ['@daily', /five fields/],
    ['0 0 L * *', /five fields/],
    ['0 0 * * 5#2', /five fields/],
    ['0 0 * * MOON', /cannot be read/],
    ['', /five fields/],
  ])('%s is refused in words', (pattern, says) => {
    const [fault] = cronFaults(pattern, at, ms('2026-01-01T00:00:00Z'));
    expect(fault).toMatchObject({ type: 'cron_invalid', location: at, message: expect.stringMatching(says) });
  });

  it('never throws for what is no pattern', () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.string({ maxLength: 60 }),
          fc
            .array(fc.stringMatching(/^[0-9*,/-]{1,5}$/), { minLength: 5, maxLength: 5 })
            .map((p) => p.join(' ')),
        ),
        (pattern) => {
          const faults = cronFaults(pattern, at, ms('2026-01-01T00:00:00Z'));
          for (const fault of faults) expect(fault.message.length).toBeLessThan(400);
          if (faults.length === 0) {
            const next = nextTime({ cron: pattern, interval_seconds: null }, ms('2026-01-01T00:00:00Z'));
            expect(next).toBeGreaterThan(ms('2026-01-01T00:00:00Z'));
          }
        },
      ),
      { numRuns: 300 },
    );
  });
});

describe('an interval', () => {
  it('goes on counting from its last time, whatever was missed, and is always later than now', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 300, max: 100_000 }),
        fc.integer({ min: 0, max: 1e9 }),
        fc.integer({ min: 0, max: 1e9 }),
        (seconds, before, passed) => {
          const next = nextTime({ cron: null, interval_seconds: seconds }, before + passed, before)!;
          expect(next).toBeGreaterThan(before + passed);
          expect(next - (before + passed)).toBeLessThanOrEqual(seconds * 1000);
          expect((next - before) % (seconds * 1000)).toBe(0);
        },
      ),
    );
    expect(nextTime({ cron: null, interval_seconds: 300 }, 1000)).toBe(301_000);
  });
});
