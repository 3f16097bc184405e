// From an event to signed posts: who hears it, one delivery row each, attempts with back-off, and an end in any case.

import type { Clock, RandomSource } from '../../clock.ts';
import { isoTime } from '../../clock.ts';
import { inNamespace, makeContext } from '../../context.ts';
import { crash } from '../../crash.ts';
import type { Received, Sending } from '../../egress/send.ts';
import { EgressFailure } from '../../egress/send.ts';
import type { GranaryEvent } from '../../events.ts';
import type { Log, Ports, Settings } from '../../ports.ts';
import { namespaceScope } from '../../store/keys.ts';
import { announce } from '../../store/outbox.ts';
import type { Table, Write } from '../../store/table.ts';
import { attemptsMax, disableAfterMs, nextWaitMs } from './schedule.ts';
import { validSecrets } from './service.ts';
import { signatureHeaders } from './signature.ts';
import type { DeliveryAttempt, StoredDelivery, StoredWebhook } from './store.ts';
import { deliveryId, findDelivery, markHealth, putDelivery, replaceDelivery, webhookStore } from './store.ts';

/** Which delivery a worker should try now. */
export interface DeliveryRef {
  readonly org_id: string;
  readonly namespace_id: string;
  readonly webhook_id: string;
  readonly delivery_id: string;
}

export interface DeliverPorts {
  readonly table: Table;
  readonly clock: Clock;
  readonly random: RandomSource;
  readonly log: Log;
  readonly settings: Pick<Settings, 'pepper' | 'allowLoopback' | 'stage'>;
  /** Asks for an attempt later; at most 900 s, longer waits are the sweeper's. */
  readonly queue: { send(ref: DeliveryRef, delaySeconds?: number): Promise<void> };
  readonly send: (sending: Sending) => Promise<Received>;
}

const answerBytesMax = 64_000;
const keptAnswerBytes = 1_000;
const queueDelaySecondsMax = 900;
/** Longer than the longest attempt (15 s): a worker that died lets go of its delivery after this. */
const leaseMs = 60_000;

/** The body that is signed and sent: small, ids instead of rows. */
function envelope(event: GranaryEvent): string {
  return JSON.stringify({
    event_id: event.event_id,
    event_type: event.event_type,
    type: event.event_type,
    occurred_at: event.occurred_at,
    timestamp: event.occurred_at,
    namespace_id: event.namespace_id,
    subject: event.subject,
    metadata: event.metadata,
    cache_scope: { scope: 'namespace', namespace_id: event.namespace_id },
  });
}

/** The context that the webhook store wants; deliveries are made for the organisation that the event names. */
function contextFor(ports: DeliverPorts, orgId: string, namespaceId: string, requestId: string) {
  const base = makeContext(
    ports as unknown as Ports,
    { orgId, keyId: 'deliver', permissions: [] },
    requestId,
  );
  return inNamespace(base, namespaceId);
}

/**
 * Writes a delivery row for every webhook that hears the event and asks for its first attempt.
 *
 * Repeating an event repeats nothing: the rows are there, and attempts under way hold a lease.
 */
export async function fanOut(ports: DeliverPorts, event: GranaryEvent): Promise<readonly DeliveryRef[]> {
  const requestId = String(event.metadata.request_id ?? '');
  const refs: DeliveryRef[] = [];
  // Webhooks of the namespace, and those of the organisation, which live under its own id.
  // An event of the organisation itself names it twice.
  for (const scopeId of new Set([event.namespace_id, event.org_id])) {
    const ctx = contextFor(ports, event.org_id, scopeId, requestId);
    const replayed = event.metadata.replay_of;
    const webhooks =
      event.webhook_id === undefined
        ? (await webhookStore.list(ctx)).filter((webhook) => webhook.owner === null)
        : [await webhookStore.find(ctx, event.webhook_id)].filter((webhook) => webhook !== undefined);
    for (const webhook of webhooks) {
      const heard = event.webhook_id === webhook.id || webhook.event_types.includes(event.event_type);
      if (!heard || (!webhook.is_active && event.event_type !== 'webhook.test')) continue;
      const id = typeof replayed === 'string' ? replayed : deliveryId(event, webhook.id);
      const ref = { org_id: event.org_id, namespace_id: scopeId, webhook_id: webhook.id, delivery_id: id };
      if (replayed === undefined) {
        const time = isoTime(ports.clock.now());
        await putDelivery(ports.table, ctx.ns, {
          delivery_id: id,
          webhook_id: webhook.id,
          event_id: event.event_id,
          event_type: event.event_type,
          state: 'pending',
          attempts: [],
          round_attempts: 0,
          revision: 1,
          next_attempt_at: time,
          created_at: time,
          delivered_at: null,
          payload: envelope(event),
          request_id: requestId || null,
          org_id: event.org_id,
          namespace_id: scopeId,
          lease_until: null,
        });
      }
      crash('deliver.after_row');
      await ports.queue.send(ref);
      refs.push(ref);
    }
  }
  return refs;
}

interface Outcome {
  readonly attempt: DeliveryAttempt;
  readonly delivered: boolean;
  /** 410: the receiver says that it is gone for good. */
  readonly gone: boolean;
  readonly askedSeconds: number | undefined;
}

async function post(ports: DeliverPorts, webhook: StoredWebhook, delivery: StoredDelivery): Promise<Outcome> {
  const startedMs = ports.clock.now();
  const secrets = validSecrets(webhook, await ports.settings.pepper(), startedMs);
  const record = (status: number | null, error: string | null, answer: string | null): DeliveryAttempt => ({
    at: isoTime(startedMs),
    status,
    error,
    duration_ms: Math.max(0, Math.round(ports.clock.now() - startedMs)),
    answer,
  });
  try {
    const received = await ports.send({
      method: 'POST',
      url: webhook.url,
      headers: {
        ...webhook.headers,
        'Content-Type': 'application/json',
        'User-Agent': 'Granary-Webhooks/1',
        ...(delivery.request_id ? { 'X-Request-Id': delivery.request_id } : {}),
        ...signatureHeaders(secrets, delivery.delivery_id, Math.floor(startedMs / 1000), delivery.payload),
      },
      body: delivery.payload,
      connectTimeoutMs: 10_000,
      totalTimeoutMs: webhook.timeout_seconds * 1000,
      answerBytesMax,
      allowLoopback: ports.settings.allowLoopback,
    });
    const delivered = received.status >= 200 && received.status < 300;
    const text = Buffer.from(received.body.subarray(0, keptAnswerBytes)).toString('utf8');
    const asked = Number(received.headers['retry-after']);
    return {
      attempt: record(received.status, delivered ? null : `the receiver answered ${received.status}`, text),
      delivered,
      gone: received.status === 410,
      askedSeconds: Number.isFinite(asked) && asked > 0 ? asked : undefined,
    };
  } catch (error) {
    if (!(error instanceof EgressFailure)) throw error;
    return {
      attempt: record(null, error.message, null),
      delivered: false,
      gone: false,
      askedSeconds: undefined,
    };
  }
}

/** Attempts that a row remembers, newest last; the count is exact whatever is forgotten. */
const attemptsKept = 20;

/**
 * Tries one delivery, if it is due and nobody else is at it.
 *
 * @returns the delivery afterwards; undefined when there was nothing to do.
 */
export async function attemptDelivery(
  ports: DeliverPorts,
  ref: DeliveryRef,
): Promise<StoredDelivery | undefined> {
  const scope = namespaceScope(ref.org_id, ref.namespace_id);
  const nowMs = ports.clock.now();
  const found = await findDelivery(ports.table, scope, ref.webhook_id, ref.delivery_id);
  if (!found || found.state === 'delivered' || found.state === 'exhausted' || found.state === 'dropped')
    return undefined;
  if (found.next_attempt_at !== null && Date.parse(found.next_attempt_at) > nowMs) return undefined;
  if (found.lease_until !== null && Date.parse(found.lease_until) > nowMs) return undefined;

  const ctx = contextFor(ports, ref.org_id, ref.namespace_id, found.request_id ?? '');
  const webhook = await webhookStore.find(ctx, ref.webhook_id);
  if (!webhook || (!webhook.is_active && found.event_type !== 'webhook.test')) {
    return replaceDelivery(ports.table, scope, found, { state: 'dropped', next_attempt_at: null });
  }
  // The lease keeps a second worker off, and the due time brings the delivery back should this one die.
  const lease = isoTime(nowMs + leaseMs);
  const leased = await replaceDelivery(ports.table, scope, found, {
    lease_until: lease,
    next_attempt_at: lease,
  });
  if (!leased) return undefined;
  crash('deliver.before_post');
  const outcome = await post(ports, webhook, leased);
  crash('deliver.after_post');
  return settle(ports, ref, webhook, leased, outcome);
}

async function settle(
  ports: DeliverPorts,
  ref: DeliveryRef,
  webhook: StoredWebhook,
  leased: StoredDelivery,
  outcome: Outcome,
): Promise<StoredDelivery | undefined> {
  const scope = namespaceScope(ref.org_id, ref.namespace_id);
  const ctx = contextFor(ports, ref.org_id, ref.namespace_id, leased.request_id ?? '');
  const time = isoTime(ports.clock.now());
  const round = leased.round_attempts + 1;
  const attempts = [...leased.attempts, outcome.attempt].slice(-attemptsKept);
  if (outcome.delivered) {
    const done = await replaceDelivery(ports.table, scope, leased, {
      state: 'delivered',
      attempts,
      round_attempts: round,
      next_attempt_at: null,
      lease_until: null,
      delivered_at: time,
    });
    await markHealth(ports.table, scope, webhook.id, {
      failures: 0,
      first_failure_at: null,
      last_failure_cause: null,
      last_delivered_at: time,
    });
    return done;
  }

  const spread = (ports.random.bytes(1)[0] ?? 0) / 255;
  const waitMs = outcome.gone ? undefined : nextWaitMs(round, spread, outcome.askedSeconds);
  const cause = outcome.attempt.error ?? 'failed';
  const firstFailure = webhook.first_failure_at ?? time;
  const failingMs = ports.clock.now() - Date.parse(firstFailure);
  const disable = webhook.is_active && (outcome.gone || failingMs > disableAfterMs);
  const tell = (
    type: 'webhook.exhausted' | 'webhook.disabled',
    metadata: Record<string, unknown>,
  ): Write[] =>
    // News of a failing endpoint must not fail into news of its own.
    leased.event_type === 'webhook.exhausted' || leased.event_type === 'webhook.disabled'
      ? []
      : [
          announce(
            ctx,
            type,
            { type: 'webhook', id: webhook.id },
            `${leased.delivery_id} ${leased.revision}`,
            metadata,
          ),
        ];

  const exhausted = waitMs === undefined;
  const nextAt = exhausted ? null : isoTime(ports.clock.now() + waitMs);
  const after = await replaceDelivery(
    ports.table,
    scope,
    leased,
    {
      state: exhausted ? 'exhausted' : 'retrying',
      attempts,
      round_attempts: round,
      next_attempt_at: nextAt,
      lease_until: null,
    },
    exhausted
      ? tell('webhook.exhausted', {
          delivery_id: leased.delivery_id,
          event_type: leased.event_type,
          attempts: round,
          attempts_max: attemptsMax,
          cause,
        })
      : [],
  );
  await markHealth(
    ports.table,
    scope,
    webhook.id,
    {
      failures: webhook.failures + 1,
      first_failure_at: firstFailure,
      last_failure_cause: cause,
      ...(disable
        ? {
            is_active: false,
            disabled_reason: outcome.gone
              ? 'the receiver answered 410 Gone'
              : 'failed for five days without a success',
          }
        : {}),
    },
    disable ? tell('webhook.disabled', { cause }) : [],
  );
  if (waitMs !== undefined && waitMs <= queueDelaySecondsMax * 1000)
    await ports.queue.send(ref, Math.ceil(waitMs / 1000));
  return after;
}
