// One audit row for every mutation, in the transaction of the mutation itself.
import { isoTime } from '../clock.ts';
import type { Ctx } from '../context.ts';
import { newId } from '../ids.ts';
import type { Attribute, Write } from './table.ts';

/** Audit rows are kept 400 days (reliability, section 8). */
const keepSeconds = 400 * 86_400;

/**
 * @param action `<noun>.<verb>`, for example `bucket.create`; `target` is the id of what was changed
 * @param more what an auditor needs besides, such as a reason
 */
export function audit(
  ctx: Ctx,
  action: string,
  target: string,
  more: Readonly<Record<string, Attribute | undefined>> = {},
): Write {
  const nowMs = ctx.ports.clock.now();
  const time = isoTime(nowMs);
  const id = newId('audit', ctx.ports.clock, ctx.ports.random);
  return {
    put: {
      ...more,
      ...ctx.org.audit(time, id),
      audit_id: id,
      action,
      target,
      actor: ctx.principal.keyId,
      request_id: ctx.requestId,
      at: time,
      expires_at: Math.floor(nowMs / 1000) + keepSeconds,
    },
  };
}
