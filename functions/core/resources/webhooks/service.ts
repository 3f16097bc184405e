// The rules of webhooks: what may be registered, secrets and their rotation, the log, tests and replays.
import type * as z from 'zod';
import { isoTime } from '../../clock.ts';
import type { NsCtx } from '../../context.ts';
import { findTargetFault } from '../../egress/target.ts';
import { AppError, invalid } from '../../errors.ts';
import type { EventType, GranaryEvent } from '../../events.ts';
import { checkVersion } from '../../http/version.ts';
import { newId, newWebhookId } from '../../ids.ts';
import type { ListInput, PageReply } from '../../page.ts';
import { pageReply, pageSize, readCursor } from '../../page.ts';
import { announce } from '../../store/outbox.ts';
import { seal, unseal } from '../../store/sealed.ts';
import type { Key, Write } from '../../store/table.ts';
import type { CreateWebhookBody, UpdateWebhookBody } from './contract.ts';
import { newSigningSecret } from './signature.ts';
import type { DeliveryState, StoredDelivery, StoredWebhook } from './store.ts';
import {
  deliveryId,
  findDelivery,
  pageOfDeliveries,
  replaceDelivery,
  timeNow,
  webhookStore,
  webhooksMax,
} from './store.ts';

export type { StoredDelivery, StoredWebhook } from './store.ts';

/** Both secrets sign for this long after a rotation. */
const rotationOverlapMs = 24 * 3600 * 1000;
const sealPurpose = 'webhook-secret';
const replayMax = 1000;

function checkUrl(ctx: NsCtx, url: string, location: readonly (string | number)[]): void {
  const fault = findTargetFault(url, ctx.ports.settings.allowLoopback);
  if (!fault) return;
  throw invalid('webhook_invalid', [
    {
      type: 'url_refused',
      location,
      message: fault.message,
      ...(fault.fix === undefined ? {} : { fix: fault.fix }),
    },
  ]);
}

export interface WebhookWithSecret {
  readonly webhook: StoredWebhook;
  /** Shown once; null: unsigned. */
  readonly secret: string | null;
}

async function sealSecret(ctx: NsCtx, secret: string): Promise<string> {
  return seal(secret, await ctx.ports.settings.pepper(), sealPurpose, ctx.ports.random);
}

/** The secrets that sign now: the current one, and the one before it while a rotation lasts. */
export function validSecrets(webhook: StoredWebhook, pepper: string, nowMs: number): string[] {
  const sealed = [
    webhook.secret,
    webhook.old_secret_until !== null && Date.parse(webhook.old_secret_until) > nowMs
      ? webhook.old_secret
      : null,
  ];
  return sealed.filter((text) => text !== null).map((text) => unseal(text, pepper, sealPurpose));
}

interface Endpoint {
  readonly name: string;
  readonly url: string;
  readonly event_types: readonly string[];
  readonly headers?: Readonly<Record<string, string>> | undefined;
  readonly timeout_seconds?: number | undefined;
  readonly signing_secret?: string | undefined;
  readonly is_active?: boolean | undefined;
}

async function fresh(ctx: NsCtx, endpoint: Endpoint, owner: string | null) {
  const given = endpoint.signing_secret;
  const secret =
    given === ''
      ? null
      : given === undefined || given === 'redacted'
        ? newSigningSecret(ctx.ports.random)
        : given;
  return {
    secret,
    row: {
      id: newWebhookId(ctx.ports.random),
      name: endpoint.name,
      parents: [],
      url: endpoint.url,
      event_types: [...new Set(endpoint.event_types)],
      headers: endpoint.headers ?? {},
      timeout_seconds: endpoint.timeout_seconds ?? 10,
      secret: secret === null ? null : await sealSecret(ctx, secret),
      old_secret: null,
      old_secret_until: null,
      is_active: endpoint.is_active ?? true,
      disabled_reason: null,
      owner,
      failures: 0,
      first_failure_at: null,
      last_failure_cause: null,
      last_delivered_at: null,
    },
  };
}

/** @throws AppError webhook_invalid, webhook_name_taken, quota_exceeded */
export async function createWebhook(
  ctx: NsCtx,
  body: z.output<typeof CreateWebhookBody>,
): Promise<WebhookWithSecret> {
  checkUrl(ctx, body.url, ['body', 'url']);
  if ((await listWebhooks(ctx)).length >= webhooksMax) {
    throw new AppError('quota_exceeded', {
      detail: `A namespace has at most ${webhooksMax} webhooks. Delete one first.`,
    });
  }
  warnIgnored(ctx, body.ignored);
  const { row, secret } = await fresh(ctx, body, null);
  return { webhook: await webhookStore.create(ctx, row), secret };
}

function warnIgnored(ctx: NsCtx, ignored: readonly string[]): void {
  if (ignored.length > 0) ctx.warnings.push(`set by the server and ignored: ${ignored.join(', ')}`);
}

/**
 * Makes the hidden endpoint of an alert's channel, with a secret of its own.
 *
 * @throws AppError webhook_invalid at `location` when the URL may not be called.
 */
export async function createOwnedEndpoint(
  ctx: NsCtx,
  owner: string,
  endpoint: {
    readonly url: string;
    readonly headers?: Readonly<Record<string, string>> | undefined;
    readonly signing_secret?: string | undefined;
  },
  location: readonly (string | number)[],
): Promise<WebhookWithSecret> {
  checkUrl(ctx, endpoint.url, location);
  const name = `${owner}-${newId('event', ctx.ports.clock, ctx.ports.random)}`;
  const { row, secret } = await fresh(ctx, { ...endpoint, name, event_types: ['alert.triggered'] }, owner);
  return { webhook: await webhookStore.create(ctx, row), secret };
}

/** Safe to repeat. */
export async function deleteOwnedEndpoint(ctx: NsCtx, webhookId: string): Promise<void> {
  const webhook = await webhookStore.find(ctx, webhookId);
  if (webhook) await webhookStore.remove(ctx, webhook);
}

/** Newest first, without the endpoints of alerts. */
export async function listWebhooks(ctx: NsCtx): Promise<StoredWebhook[]> {
  return (await webhookStore.list(ctx)).filter((webhook) => webhook.owner === null);
}

/** The endpoint of an alert's channel is changed and deleted with its alert. @throws AppError webhook_in_use */
function refuseOwned(webhook: StoredWebhook): void {
  if (webhook.owner === null) return;
  throw new AppError('webhook_in_use', {
    detail: `The webhook ${webhook.id} is the channel of the alert ${webhook.owner}. Change or delete that alert instead.`,
    extra: { dependants: [{ type: 'alert', id: webhook.owner, name: webhook.owner }], dependants_total: 1 },
  });
}

/** @throws AppError webhook_not_found */
export async function getWebhook(ctx: NsCtx, idOrName: string): Promise<StoredWebhook> {
  return webhookStore.get(ctx, idOrName);
}

/** @throws AppError webhook_not_found, webhook_changed, webhook_invalid, webhook_name_taken, request_stale */
export async function updateWebhook(
  ctx: NsCtx,
  idOrName: string,
  body: z.output<typeof UpdateWebhookBody>,
  ifMatch?: number,
): Promise<StoredWebhook> {
  const before = await webhookStore.get(ctx, idOrName);
  refuseOwned(before);
  checkVersion(ifMatch, before.revision);
  if (body.url !== undefined) checkUrl(ctx, body.url, ['body', 'url']);
  warnIgnored(ctx, body.ignored);
  const revived = body.is_active === true && !before.is_active;
  const secret =
    body.signing_secret === undefined || body.signing_secret === 'redacted'
      ? {}
      : {
          secret: body.signing_secret === '' ? null : await sealSecret(ctx, body.signing_secret),
          old_secret: null,
          old_secret_until: null,
        };
  return webhookStore.update(ctx, before, {
    ...(body.name === undefined ? {} : { name: body.name }),
    ...(body.url === undefined ? {} : { url: body.url }),
    ...(body.event_types === undefined ? {} : { event_types: [...new Set(body.event_types)] }),
    ...(body.headers === undefined ? {} : { headers: body.headers }),
    ...(body.timeout_seconds === undefined ? {} : { timeout_seconds: body.timeout_seconds }),
    ...(body.is_active === undefined
      ? {}
      : { is_active: body.is_active, disabled_reason: body.is_active ? null : 'switched off by a request' }),
    ...(revived ? { failures: 0, first_failure_at: null, last_failure_cause: null } : {}),
    ...secret,
  });
}

/** @throws AppError webhook_not_found, webhook_changed */
export async function deleteWebhook(ctx: NsCtx, idOrName: string, ifMatch?: number): Promise<void> {
  const webhook = await webhookStore.get(ctx, idOrName);
  refuseOwned(webhook);
  checkVersion(ifMatch, webhook.revision);
  await webhookStore.remove(ctx, webhook);
}

/** @throws AppError webhook_not_found, webhook_changed */
export async function rotateSecret(
  ctx: NsCtx,
  idOrName: string,
  given: string | undefined,
): Promise<WebhookWithSecret> {
  const before = await webhookStore.get(ctx, idOrName);
  const secret =
    given === undefined || given === '' || given === 'redacted' ? newSigningSecret(ctx.ports.random) : given;
  const webhook = await webhookStore.update(ctx, before, {
    secret: await sealSecret(ctx, secret),
    old_secret: before.secret,
    old_secret_until: before.secret === null ? null : isoTime(ctx.ports.clock.now() + rotationOverlapMs),
  });
  return { webhook, secret };
}

/** Sends `webhook.test` to this endpoint alone. @throws AppError webhook_not_found */
export async function testWebhook(
  ctx: NsCtx,
  idOrName: string,
): Promise<{ eventId: string; deliveryId: string }> {
  const webhook = await webhookStore.get(ctx, idOrName);
  const write = announce(
    ctx,
    'webhook.test',
    { type: 'webhook', id: webhook.id },
    newId('event', ctx.ports.clock, ctx.ports.random),
    { webhook_name: webhook.name },
    webhook.id,
  );
  await ctx.ports.table.write([write]);
  const { event } = JSON.parse(String('put' in write ? write.put.message : '')) as { event: GranaryEvent };
  return { eventId: event.event_id, deliveryId: deliveryId(event, webhook.id) };
}

/** The log, newest first. */
export async function listDeliveries(
  ctx: NsCtx,
  idOrName: string,
  input: ListInput & { readonly status?: DeliveryState | undefined },
): Promise<PageReply<StoredDelivery>> {
  const webhook = await webhookStore.get(ctx, idOrName);
  const list = `deliveries ${webhook.id} ${input.status ?? ''}`;
  const size = pageSize(input);
  let after = input.cursor ? ((await readCursor(ctx, list, input, input.cursor)) as Key) : undefined;
  const found: StoredDelivery[] = [];
  do {
    const page = await pageOfDeliveries(ctx, webhook.id, size, after);
    for (const delivery of page.deliveries) {
      if (input.status !== undefined && delivery.state !== input.status) continue;
      if (found.length === size) break;
      found.push(delivery);
      const key = ctx.ns.delivery(webhook.id, delivery.delivery_id);
      after = { pk: key.pk, sk: key.sk };
    }
    if (found.length === size) {
      const more = await pageOfDeliveries(ctx, webhook.id, 1, after);
      if (more.deliveries.length === 0) after = undefined;
      break;
    }
    after = page.next;
  } while (after);
  return pageReply(ctx, list, input, found, { offset: 0, total: null, nextPosition: after });
}

/** @throws AppError webhook_not_found, delivery_not_found */
export async function getDelivery(ctx: NsCtx, idOrName: string, id: string): Promise<StoredDelivery> {
  const webhook = await webhookStore.get(ctx, idOrName);
  const delivery = await findDelivery(ctx.ports.table, ctx.ns, webhook.id, id);
  if (!delivery)
    throw new AppError('delivery_not_found', {
      detail: `The webhook ${webhook.id} has no delivery ${id.slice(0, 60)}.`,
    });
  return delivery;
}

/** Makes a delivery due at once, in a new round of attempts, and wakes the deliverer by an event of its own. */
async function redeliver(ctx: NsCtx, delivery: StoredDelivery): Promise<StoredDelivery> {
  const wake: Write = announce(
    ctx,
    delivery.event_type as EventType,
    { type: 'delivery', id: delivery.delivery_id },
    `replay ${delivery.revision}`,
    { replay_of: delivery.delivery_id },
    delivery.webhook_id,
  );
  const after = await replaceDelivery(
    ctx.ports.table,
    ctx.ns,
    delivery,
    { state: 'pending', round_attempts: 0, next_attempt_at: timeNow(ctx), lease_until: null },
    [wake],
  );
  // Somebody else wrote it in this moment, so an attempt is under way: which is what was asked for.
  return (
    after ??
    (await findDelivery(ctx.ports.table, ctx.ns, delivery.webhook_id, delivery.delivery_id)) ??
    delivery
  );
}

/** @throws AppError webhook_not_found, delivery_not_found */
export async function replayDelivery(ctx: NsCtx, idOrName: string, id: string): Promise<StoredDelivery> {
  return redeliver(ctx, await getDelivery(ctx, idOrName, id));
}

/** Sends again what was not delivered since a time (everything, if asked), at most 1,000 deliveries a call. */
export async function replayWebhook(
  ctx: NsCtx,
  idOrName: string,
  sinceMs: number,
  all: boolean,
): Promise<{ replayed: number; more: boolean }> {
  const webhook = await webhookStore.get(ctx, idOrName);
  let after: Key | undefined;
  let replayed = 0;
  do {
    const page = await pageOfDeliveries(ctx, webhook.id, 100, after);
    for (const delivery of page.deliveries) {
      if (Date.parse(delivery.created_at) < sinceMs) return { replayed, more: false };
      if (!all && delivery.state === 'delivered') continue;
      if (replayed >= replayMax) return { replayed, more: true };
      await redeliver(ctx, delivery);
      replayed++;
    }
    after = page.next;
  } while (after);
  return { replayed, more: false };
}

/**
 * Whether any webhook of the namespace or the organisation subscribed to an event.
 *
 * Events of single objects and documents are announced only then: a million objects need not send a million messages
 * that nobody hears.
 */
export async function isHeard(ctx: NsCtx, type: EventType): Promise<boolean> {
  const scopes = [ctx, { ...ctx, ns: ctx.org.in(ctx.principal.orgId) }];
  const lists = await Promise.all(scopes.map((scope) => listWebhooks(scope)));
  return lists.flat().some((webhook) => webhook.is_active && webhook.event_types.includes(type));
}
