// Events and jobs leave by the outbox: a row in the transaction that changes the state. The relay and the sweeper send
// it on, at least once; so nothing is lost when a process dies between the write and the send.
import { isoTime } from '../clock.ts';
import type { Ctx, NsCtx } from '../context.ts';
import type { EventType, GranaryEvent, Job } from '../events.ts';
import { derivedId } from '../ids.ts';
import { dueAttributes, outboxKey } from './keys.ts';
import type { Attribute, Item, Write } from './table.ts';

/** What an outbox row carries. */
export type OutboxMessage =
  | { readonly to: 'bus'; readonly event: GranaryEvent }
  | { readonly to: 'jobs'; readonly job: Job };

/** A row that has not been relayed for this long is sent again by the sweeper. */
const relayGraceMs = 60_000;

function outboxWrite(ctx: Ctx, id: string, message: OutboxMessage): Write {
  const nowMs = ctx.ports.clock.now();
  return {
    put: {
      ...outboxKey(isoTime(nowMs), id),
      message: JSON.stringify(message),
      ...dueAttributes(id, isoTime(nowMs + relayGraceMs)),
    } satisfies Item,
  };
}

/** The message of an outbox row, as the stream or the sweeper found it. */
export function outboxMessage(item: Readonly<Record<string, Attribute | undefined>>): OutboxMessage {
  return JSON.parse(String(item.message)) as OutboxMessage;
}

/**
 * The write that announces an event, for the transaction that makes it true.
 *
 * @param cause what makes this event one of a kind (a version, an attempt): together with type and subject it gives
 *   the event's id, so a repeated transaction announces the same event and not a second one.
 */
export function announce(
  ctx: NsCtx,
  type: EventType,
  subject: { readonly type: string; readonly id: string },
  cause: string | number,
  metadata: Readonly<Record<string, unknown>> = {},
  webhookId?: string,
): Write {
  const eventId = derivedId('event', ctx.ns.namespaceId, type, subject.id, cause, webhookId ?? '');
  const event: GranaryEvent = {
    event_id: eventId,
    event_type: type,
    occurred_at: isoTime(ctx.ports.clock.now()),
    org_id: ctx.principal.orgId,
    namespace_id: ctx.ns.namespaceId,
    subject,
    metadata: { request_id: ctx.requestId, ...metadata },
    ...(webhookId === undefined ? {} : { webhook_id: webhookId }),
  };
  return outboxWrite(ctx, eventId, { to: 'bus', event });
}

/** The write that asks for a workflow to be started. `cause` as for `announce`. */
export function enqueue(ctx: Ctx, job: Job, cause: string | number): Write {
  const id = derivedId('event', 'job', job.kind, job.namespace_id, cause);
  return outboxWrite(ctx, id, { to: 'jobs', job });
}
