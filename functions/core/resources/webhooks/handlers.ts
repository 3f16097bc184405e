// Requests about webhooks -> service calls -> replies.
import type { Ctx, NsCtx } from '../../context.ts';
import { inNamespace } from '../../context.ts';
import { invalid } from '../../errors.ts';
import type { AnyHandler, Handlers } from '../../http/handler.ts';
import { Answer } from '../../http/handler.ts';
import type { ListInput } from '../../page.ts';
import { mergeListInput, pageOfAll } from '../../page.ts';
import type { Delivery, OrganizationName, routes, Webhook } from './contract.ts';
import { organizationName } from './contract.ts';
import type { StoredDelivery, StoredWebhook } from './service.ts';
import {
  createWebhook,
  deleteWebhook,
  getDelivery,
  getWebhook,
  listDeliveries,
  listWebhooks,
  replayDelivery,
  replayWebhook,
  rotateSecret,
  testWebhook,
  updateWebhook,
} from './service.ts';

/** @param shown the secret in clear, right after it was made; undefined: hidden. */
function toWebhook(stored: StoredWebhook, shown?: string | null): Webhook {
  const secret = shown !== undefined ? shown : stored.secret === null ? null : 'redacted';
  const configs = {
    url: stored.url,
    headers: stored.headers,
    timeout: stored.timeout_seconds,
    signing_secret: secret,
  };
  return {
    webhook_id: stored.id,
    webhook_name: stored.name,
    name: stored.name,
    url: stored.url,
    events: [...stored.event_types],
    event_types: [...stored.event_types],
    channels: [{ channel: 'webhook', configs }] as Webhook['channels'],
    is_active: stored.is_active,
    disabled_reason: stored.disabled_reason,
    signing_secret: secret,
    delivery_health: {
      consecutive_failures: stored.failures,
      first_failure_at: stored.first_failure_at,
      last_failure_cause: stored.last_failure_cause,
      last_delivered_at: stored.last_delivered_at,
    },
    version: stored.revision,
    created_at: stored.created_at,
    updated_at: stored.updated_at,
  };
}

function toDelivery(stored: StoredDelivery): Delivery {
  return {
    delivery_id: stored.delivery_id,
    webhook_id: stored.webhook_id,
    event_id: stored.event_id,
    event_type: stored.event_type,
    status: stored.state,
    attempts: [...stored.attempts],
    next_attempt_at: stored.next_attempt_at,
    created_at: stored.created_at,
    delivered_at: stored.delivered_at,
    payload: JSON.parse(stored.payload) as Delivery['payload'],
    request_id: stored.request_id,
  };
}

async function page(ctx: NsCtx, input: ListInput) {
  const rows = (await listWebhooks(ctx)).map((webhook) => toWebhook(webhook));
  return pageOfAll(ctx, 'webhooks', rows, input, ['webhook_id', 'webhook_name', 'url']);
}

const answer = (stored: StoredWebhook, shown?: string | null) =>
  new Answer(toWebhook(stored, shown), { etag: stored.revision });

export const handlers: Handlers<typeof routes> = {
  createWebhook: async ({ ctx, body }) => {
    const made = await createWebhook(ctx, body);
    return answer(made.webhook, made.secret);
  },
  listWebhooks: ({ ctx, query }) => page(ctx, query),
  searchWebhooks: ({ ctx, query, body }) => page(ctx, mergeListInput(query, body)),
  getWebhook: async ({ ctx, params }) => answer(await getWebhook(ctx, params.webhook!)),
  putWebhook: async ({ ctx, params, body, ifMatch }) =>
    answer(await updateWebhook(ctx, params.webhook!, body, ifMatch)),
  patchWebhook: async ({ ctx, params, body, ifMatch }) =>
    answer(await updateWebhook(ctx, params.webhook!, body, ifMatch)),
  deleteWebhook: async ({ ctx, params, ifMatch }) => {
    await deleteWebhook(ctx, params.webhook!, ifMatch);
    return undefined;
  },
  rotateWebhookSecret: async ({ ctx, params, body }) => {
    const made = await rotateSecret(ctx, params.webhook!, body.signing_secret);
    return answer(made.webhook, made.secret);
  },
  testWebhook: async ({ ctx, params }) => {
    const test = await testWebhook(ctx, params.webhook!);
    return {
      success: true as const,
      event_id: test.eventId,
      delivery_id: test.deliveryId,
      message: 'The test event is on its way; read its delivery to see what came back.',
    };
  },
  listDeliveries: async ({ ctx, params, query }) => {
    const found = await listDeliveries(ctx, params.webhook!, query);
    return { ...found, results: found.results.map(toDelivery) };
  },
  getDelivery: async ({ ctx, params }) =>
    toDelivery(await getDelivery(ctx, params.webhook!, params.delivery!)),
  replayDelivery: async ({ ctx, params }) =>
    toDelivery(await replayDelivery(ctx, params.webhook!, params.delivery!)),
  replayWebhook: async ({ ctx, params, query, body }) => {
    const since = body.since ?? query.since;
    if (since === undefined) {
      throw invalid('request_invalid', [
        {
          type: 'missing',
          location: ['query', 'since'],
          message: 'required, a time is expected',
          fix: '?since=2026-01-31T00:00:00Z',
        },
      ]);
    }
    const { replayed, more } = await replayWebhook(
      ctx,
      params.webhook!,
      Date.parse(since),
      query.include_delivered,
    );
    const rest = more ? ' There are more; repeat the call.' : '';
    return { success: true as const, replayed, message: `${replayed} deliveries are sent again.${rest}` };
  },
};

/** The same handlers for the whole organisation: its webhooks are stored as if its own id were a namespace. */
export const organizationHandlers: Readonly<Record<OrganizationName, AnyHandler>> = Object.fromEntries(
  Object.entries(handlers as Readonly<Record<string, AnyHandler>>).map(([name, handle]) => [
    organizationName(name as keyof typeof routes),
    (request: { readonly ctx: Ctx }) =>
      handle({ ...request, ctx: inNamespace(request.ctx, request.ctx.principal.orgId) }),
  ]),
) as Readonly<Record<OrganizationName, AnyHandler>>;
