// When a delivery is tried again, and when an endpoint is given up. Reliability rules, section 7.

const second = 1000;
const minute = 60 * second;
const hour = 60 * minute;

/** Waits before attempts 2 to 10, each after the one before: 75 h 35 min 5 s in all. */
export const retryWaitsMs: readonly number[] = [
  5 * second,
  5 * minute,
  30 * minute,
  2 * hour,
  5 * hour,
  10 * hour,
  14 * hour,
  20 * hour,
  24 * hour,
];

export const attemptsMax = retryWaitsMs.length + 1;

/** An endpoint that has failed for this long without one success is switched off. */
export const disableAfterMs = 5 * 24 * hour;

/**
 * The wait until the next attempt.
 *
 * @param attempt the one that just failed, from 1.
 * @param spread 0..1, random: waits vary by up to 10 % so that a thousand deliveries do not come back at once.
 * @param askedSeconds what `Retry-After` of a 429 or 503 said; honoured when longer, up to a day.
 * @returns undefined after the last attempt.
 */
export function nextWaitMs(attempt: number, spread: number, askedSeconds?: number): number | undefined {
  const wait = retryWaitsMs[attempt - 1];
  if (wait === undefined) return undefined;
  const asked = Math.min(24 * hour, (askedSeconds ?? 0) * second);
  return Math.round(Math.max(wait * (1 + spread * 0.1), asked));
}
