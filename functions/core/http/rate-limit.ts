// Requests a minute per key and class. Each environment draws small leases from the shared row of the minute, so that
// most requests cost no write and the limit still holds over all environments together.
import { isoTime } from '../clock.ts';
import type { Ctx } from '../context.ts';
import { AppError } from '../errors.ts';
import { ConditionFailed } from '../store/table.ts';
import type { RateClass } from './route.ts';

/** Requests a minute and key where a stage says nothing else (API rules, section 3). */
export const defaultRateLimits: Readonly<Record<RateClass, number>> = {
  metadata: 600,
  data: 300,
  search: 120,
  upload: 60,
  compute: 20,
};

const windowMs = 60_000;
/** A lease is a twentieth of the limit: large enough to save writes, small enough that few tokens lie idle elsewhere. */
const leaseShare = 20;

interface Lease {
  windowStart: number;
  left: number;
  /** Taken from the shared row so far, by everybody, as last seen. */
  drawn: number;
}

const leases = new Map<string, Lease>();

export interface RateState {
  readonly limit: number;
  readonly remaining: number;
  /** Seconds since the epoch at which the window ends. */
  readonly resetSeconds: number;
}

export function rateHeaders(state: RateState): Record<string, string> {
  return {
    'X-RateLimit-Limit': String(state.limit),
    'X-RateLimit-Remaining': String(Math.max(0, state.remaining)),
    'X-RateLimit-Reset': String(state.resetSeconds),
    'X-RateLimit-Window': String(windowMs / 1000),
  };
}

/**
 * Takes one request from the budget of the caller's key.
 *
 * @throws AppError request_rate_exceeded with the seconds until the window ends. A store that is down lets reads pass
 *   and stops work that costs (class `compute`).
 */
export async function takeRequest(ctx: Ctx, rateClass: RateClass): Promise<RateState> {
  const limit = ctx.ports.settings.rateLimits[rateClass] ?? defaultRateLimits[rateClass];
  const nowMs = ctx.ports.clock.now();
  const windowStart = Math.floor(nowMs / windowMs) * windowMs;
  const resetSeconds = (windowStart + windowMs) / 1000;
  const id = `${ctx.principal.orgId} ${ctx.principal.keyId} ${rateClass}`;
  let lease = leases.get(id);
  if (!lease || lease.windowStart !== windowStart) {
    if (leases.size > 10_000) leases.clear();
    lease = { windowStart, left: 0, drawn: 0 };
    leases.set(id, lease);
  }
  const state = (): RateState => ({ limit, remaining: limit - lease.drawn + lease.left, resetSeconds });
  if (lease.left > 0) {
    lease.left--;
    return state();
  }
  const key = ctx.org.rate(ctx.principal.keyId, rateClass, isoTime(windowStart));
  // Near the limit a whole lease is no longer there, single requests may be.
  for (const count of new Set([Math.max(1, Math.ceil(limit / leaseShare)), 1])) {
    try {
      await ctx.ports.table.write([
        {
          update: key,
          add: { drawn: count },
          set: { expires_at: Math.floor(windowStart / 1000) + 3600 },
          if: [
            {
              anyOf: [
                { attribute: 'drawn', missing: true },
                { attribute: 'drawn', lt: limit - count + 1 },
              ],
            },
          ],
        },
      ]);
      lease.left += count - 1;
      lease.drawn += count;
      return state();
    } catch (error) {
      if (!(error instanceof ConditionFailed)) {
        if (rateClass === 'compute') throw error;
        ctx.ports.log.warn('rate limits cannot be read; the request passes', { error: String(error) });
        return { limit, remaining: limit, resetSeconds };
      }
      // Another request of this environment may have drawn more than it needed while this one waited.
      if (lease.left > 0) {
        lease.left--;
        return state();
      }
    }
  }
  throw exceeded(limit, rateClass, resetSeconds, nowMs);
}

function exceeded(limit: number, rateClass: RateClass, resetSeconds: number, nowMs: number): AppError {
  const waitSeconds = Math.max(1, Math.ceil(resetSeconds - nowMs / 1000));
  return new AppError('request_rate_exceeded', {
    detail: `This key may make ${limit} requests of class "${rateClass}" a minute. Try again in ${waitSeconds} s.`,
    retryAfterSeconds: waitSeconds,
  });
}
