// How webhooks and their deliveries are stored.
import { createHash } from 'node:crypto';
import { isoTime } from '../../clock.ts';
import type { Ctx, NsCtx } from '../../context.ts';
import type { EventType, GranaryEvent } from '../../events.ts';
import { randomCharacters } from '../../ids.ts';
import type { NamespaceScope } from '../../store/keys.ts';
import { dueAttributes } from '../../store/keys.ts';
import type { StoredResource } from '../../store/resource-store.ts';
import { resourceStore } from '../../store/resource-store.ts';
import type { Attribute, Item, Page, Table, Write } from '../../store/table.ts';
import { ConditionFailed } from '../../store/table.ts';
import type { deliveryStates } from './contract.ts';

export interface StoredWebhook extends StoredResource {
  readonly url: string;
  readonly event_types: readonly string[];
  readonly headers: { readonly [name: string]: string };
  readonly timeout_seconds: number;
  /** Sealed; null: deliveries are not signed. */
  readonly secret: string | null;
  /** The secret before the last rotation, and until when it signs too. */
  readonly old_secret: string | null;
  readonly old_secret_until: string | null;
  readonly is_active: boolean;
  readonly disabled_reason: string | null;
  /** The alert whose channel this is: hidden from lists, reached by its alert only. */
  readonly owner: string | null;
  readonly failures: number;
  readonly first_failure_at: string | null;
  readonly last_failure_cause: string | null;
  readonly last_delivered_at: string | null;
}

/** 20 for people (API rules, section 12), and room for one hidden endpoint per alert. */
export const webhooksMax = 20;
export const webhookStore = resourceStore<StoredWebhook>({
  kind: 'WEBHOOK',
  noun: 'webhook',
  idPrefix: 'wh_',
  countMax: 220,
});

export type DeliveryState = (typeof deliveryStates)[number];

export interface DeliveryAttempt {
  readonly at: string;
  readonly status: number | null;
  readonly error: string | null;
  readonly duration_ms: number;
  readonly answer: string | null;
}

export interface StoredDelivery {
  readonly delivery_id: string;
  readonly webhook_id: string;
  readonly event_id: string;
  readonly event_type: EventType;
  readonly state: DeliveryState;
  readonly attempts: readonly DeliveryAttempt[];
  /** Attempts so far in this round; a replay starts a new round. */
  readonly round_attempts: number;
  /** Grows with every write, so that two workers cannot both record the same attempt. */
  readonly revision: number;
  readonly next_attempt_at: string | null;
  readonly created_at: string;
  readonly delivered_at: string | null;
  /** The exact bytes that are signed and sent. */
  readonly payload: string;
  readonly request_id: string | null;
  readonly org_id: string;
  readonly namespace_id: string;
  readonly lease_until: string | null;
}

/** Rows go after 30 days. */
const keepSeconds = 30 * 86_400;

/**
 * The id of the delivery of an event to an endpoint; it is the `webhook-id` on the wire.
 *
 * It follows from both, so a repeated event makes no second delivery, and it sorts by the time of the event.
 */
export function deliveryId(event: GranaryEvent, webhookId: string): string {
  const time = Date.parse(event.occurred_at).toString(36).padStart(9, '0');
  const digest = createHash('sha256').update(`${event.event_id} ${webhookId}`).digest();
  return `dlv_${time}${randomCharacters(11, { bytes: () => Uint8Array.from(digest) })}`;
}

function toDelivery(item: Item): StoredDelivery {
  const { pk: _pk, sk: _sk, due_pk: _duePk, due_at: _dueAt, expires_at: _expires, ...delivery } = item;
  return delivery as unknown as StoredDelivery;
}

function toRow(scope: NamespaceScope, delivery: StoredDelivery): Item {
  const waiting = delivery.next_attempt_at !== null;
  return {
    ...scope.delivery(delivery.webhook_id, delivery.delivery_id),
    ...(delivery as unknown as Record<string, Attribute>),
    expires_at: Math.floor(Date.parse(delivery.created_at) / 1000) + keepSeconds,
    ...(waiting ? dueAttributes(delivery.delivery_id, delivery.next_attempt_at) : {}),
  };
}

/** @returns false when the delivery was there already. */
export async function putDelivery(
  table: Table,
  scope: NamespaceScope,
  delivery: StoredDelivery,
): Promise<boolean> {
  try {
    await table.write([{ put: toRow(scope, delivery), if: [{ absent: true }] }]);
    return true;
  } catch (error) {
    if (error instanceof ConditionFailed) return false;
    throw error;
  }
}

/** Replaces a delivery if nobody else did since it was read. @returns the new row, or undefined when somebody was faster. */
export async function replaceDelivery(
  table: Table,
  scope: NamespaceScope,
  before: StoredDelivery,
  changes: Partial<StoredDelivery>,
  alongside: readonly Write[] = [],
): Promise<StoredDelivery | undefined> {
  const after = { ...before, ...changes, revision: before.revision + 1 };
  try {
    await table.write([
      { put: toRow(scope, after), if: [{ attribute: 'revision', eq: before.revision }] },
      ...alongside,
    ]);
    return after;
  } catch (error) {
    if (error instanceof ConditionFailed) return undefined;
    throw error;
  }
}

export async function findDelivery(
  table: Table,
  scope: NamespaceScope,
  webhookId: string,
  id: string,
): Promise<StoredDelivery | undefined> {
  const item = await table.get(scope.delivery(webhookId, id));
  return item && toDelivery(item);
}

/** A page of the log, newest first. */
export async function pageOfDeliveries(
  ctx: NsCtx,
  webhookId: string,
  limit: number,
  after: Page['next'],
): Promise<{ deliveries: StoredDelivery[]; next?: Page['next'] }> {
  const { pk, prefix } = ctx.ns.deliveries(webhookId);
  const page = await ctx.ports.table.query(pk, { prefix, limit, descending: true, after });
  const deliveries = page.items.map(toDelivery);
  return page.next ? { deliveries, next: page.next } : { deliveries };
}

/** Marks what a webhook went through, beside its revision: health is not a change that a person made. */
export async function markHealth(
  table: Table,
  scope: NamespaceScope,
  webhookId: string,
  set: Partial<
    Pick<
      StoredWebhook,
      | 'failures'
      | 'first_failure_at'
      | 'last_failure_cause'
      | 'last_delivered_at'
      | 'is_active'
      | 'disabled_reason'
    >
  >,
  alongside: readonly Write[] = [],
): Promise<void> {
  try {
    await table.write([
      { update: scope.resource('WEBHOOK', webhookId), set: { ...set }, if: [{ present: true }] },
      ...alongside,
    ]);
  } catch (error) {
    if (!(error instanceof ConditionFailed)) throw error; // Deleted meanwhile: there is nothing left to mark.
  }
}

export function timeNow(ctx: Ctx): string {
  return isoTime(ctx.ports.clock.now());
}
