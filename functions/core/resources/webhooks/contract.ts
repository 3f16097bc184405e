// Webhooks: who is told about what, and the log of what was delivered. Tutorial step 9; API rules, section 11.
import * as z from 'zod';
import { eventTypes } from '../../events.ts';
import type { Route } from '../../http/route.ts';
import { route } from '../../http/route.ts';
import { ListBody, ListQuery, listReply, NoContent, Timestamp, TitleName } from '../../http/schemas.ts';
import { agree, refuseDifferent } from '../../http/spellings.ts';

const EventName = z.string().superRefine((name, ctx) => {
  if (!(eventTypes as readonly string[]).includes(name)) {
    ctx.addIssue({
      code: 'custom',
      message: `unknown event "${name.slice(0, 60)}"`,
      params: { type: 'event_unknown', fix: `one of: ${eventTypes.join(', ')}` },
    });
  }
});

/** 24 to 64 bytes of the user's own, or one of ours; empty: deliveries are not signed. */
const SigningSecret = z
  .string()
  .refine(
    (s) =>
      s === '' ||
      s === 'redacted' ||
      s.startsWith('whsec_') ||
      (Buffer.byteLength(s) >= 24 && Buffer.byteLength(s) <= 64),
    'a signing secret has 24 to 64 bytes; leave it out and one is made, or send "" for unsigned deliveries',
  )
  .refine(
    (s) =>
      !s.startsWith('whsec_') ||
      (Buffer.from(s.slice(6), 'base64').length >= 24 && Buffer.from(s.slice(6), 'base64').length <= 64),
    'the part after "whsec_" must be base64 of 24 to 64 bytes',
  );

const forbiddenHeaders =
  /^(host|content-length|content-type|transfer-encoding|connection|webhook-.*|x-mixpeek-signature)$/i;
const HeaderMap = z
  .record(
    z
      .string()
      .regex(/^[A-Za-z0-9-]{1,100}$/, 'a header name has letters, digits and "-"')
      .refine((name) => !forbiddenHeaders.test(name), 'this header is set by the delivery itself'),
    z
      .string()
      .max(1000)
      .regex(/^[\x20-\x7e]*$/, 'a header value has printable ASCII characters only'),
  )
  .refine((headers) => Object.keys(headers).length <= 20, 'at most 20 headers');

const ChannelConfig = z.strictObject({
  url: z.string().min(1),
  headers: HeaderMap.optional(),
  timeout: z.number().min(1).max(15).default(10).meta({ description: 'seconds' }),
  signing_secret: SigningSecret.optional(),
});

const Channel = z.strictObject({ channel: z.literal('webhook'), configs: ChannelConfig });

/** Fields that client models declare and the server owns: read, not stored. */
const serverOwned = {
  webhook_id: z.json().optional(),
  internal_id: z.json().optional(),
  created_at: z.json().optional(),
  updated_at: z.json().optional(),
  delivery_health: z.json().optional(),
};

const webhookShape = {
  webhook_name: TitleName.optional(),
  name: TitleName.optional(),
  url: z.string().optional(),
  events: z.array(EventName).min(1).max(50).optional(),
  event_types: z.array(EventName).min(1).max(50).optional(),
  channels: z
    .array(Channel)
    .length(1, 'one webhook channel; make a second webhook for a second receiver')
    .optional(),
  headers: HeaderMap.optional(),
  timeout: z.number().min(1).max(15).optional(),
  signing_secret: SigningSecret.optional(),
  is_active: z.boolean().optional(),
};

type Issues = z.RefinementCtx;
const need = (ctx: Issues, name: string, what: string) =>
  ctx.addIssue({
    code: 'custom',
    path: [name],
    message: `required, ${what} is expected`,
    params: { type: 'missing' },
  });

interface Loose {
  readonly webhook_name?: string | undefined;
  readonly name?: string | undefined;
  readonly url?: string | undefined;
  readonly events?: readonly string[] | undefined;
  readonly event_types?: readonly string[] | undefined;
  readonly channels?: readonly z.output<typeof Channel>[] | undefined;
}

function bothAgree(body: Loose, ctx: Issues): void {
  agree(ctx, body, 'event_types', 'events');
  if (body.url !== undefined && body.channels && body.channels[0]?.configs.url !== body.url)
    refuseDifferent(ctx, 'channels', 'url');
  agree(ctx, body, 'webhook_name', 'name');
}

/** Both spellings -> the one that is stored. */
function normalise<T extends z.output<z.ZodObject<typeof webhookShape>>>(body: T) {
  const config = body.channels?.[0]?.configs;
  return {
    name: body.webhook_name ?? body.name,
    url: body.url ?? config?.url,
    event_types: (body.event_types ?? body.events) as string[] | undefined,
    headers: body.headers ?? config?.headers,
    timeout_seconds: body.timeout ?? config?.timeout,
    signing_secret: body.signing_secret ?? config?.signing_secret,
    is_active: body.is_active,
    ignored: Object.keys(serverOwned).filter((name) => (body as Record<string, unknown>)[name] !== undefined),
  };
}

export const CreateWebhookBody = z
  .strictObject({ ...webhookShape, ...serverOwned })
  .superRefine((body, ctx) => {
    if (body.webhook_name === undefined && body.name === undefined) need(ctx, 'webhook_name', 'a name');
    if (body.url === undefined && !body.channels) need(ctx, 'url', 'an https URL');
    if (!body.events && !body.event_types) need(ctx, 'events', 'a list of event names');
    bothAgree(body, ctx);
  })
  .transform((body) => {
    const { name, url, event_types, ...rest } = normalise(body);
    return { ...rest, name: name!, url: url!, event_types: event_types! };
  })
  .meta({ id: 'CreateWebhook' });

export const UpdateWebhookBody = z
  .strictObject({ ...webhookShape, ...serverOwned })
  .superRefine(bothAgree)
  .transform(normalise)
  .meta({ id: 'UpdateWebhook' });

export const Webhook = z
  .object({
    webhook_id: z.string(),
    webhook_name: z.string(),
    name: z.string(),
    url: z.string(),
    events: z.array(z.string()),
    event_types: z.array(z.string()),
    channels: z.array(z.json()),
    is_active: z.boolean(),
    disabled_reason: z.string().nullable(),
    signing_secret: z
      .string()
      .nullable()
      .meta({ description: 'shown whole once, at create and at rotation; then "redacted"; null: unsigned' }),
    delivery_health: z.object({
      consecutive_failures: z.int(),
      first_failure_at: Timestamp.nullable(),
      last_failure_cause: z.string().nullable(),
      last_delivered_at: Timestamp.nullable(),
    }),
    version: z.int(),
    created_at: Timestamp,
    updated_at: Timestamp,
    warnings: z.array(z.string()).optional(),
  })
  .meta({ id: 'Webhook' });
export type Webhook = z.output<typeof Webhook>;

export const deliveryStates = ['pending', 'delivered', 'retrying', 'exhausted', 'dropped'] as const;

export const Delivery = z
  .object({
    delivery_id: z.string(),
    webhook_id: z.string(),
    event_id: z.string(),
    event_type: z.string(),
    status: z.enum(deliveryStates),
    attempts: z.array(
      z.object({
        at: Timestamp,
        status: z.int().nullable(),
        error: z.string().nullable(),
        duration_ms: z.int(),
        answer: z
          .string()
          .nullable()
          .meta({ description: 'the first 1,000 bytes of what the receiver said' }),
      }),
    ),
    next_attempt_at: Timestamp.nullable(),
    created_at: Timestamp,
    delivered_at: Timestamp.nullable(),
    payload: z.json(),
    request_id: z.string().nullable(),
  })
  .meta({ id: 'Delivery' });
export type Delivery = z.output<typeof Delivery>;

const tag = 'webhooks';
const base = '/v1/namespaces/{namespace}/webhooks';
const one = `${base}/{webhook}` as const;

export const routes = {
  createWebhook: route({
    operation: 'createWebhook',
    method: 'POST',
    path: base,
    tag,
    summary: 'Be told about events',
    body: CreateWebhookBody,
    reply: Webhook,
    status: 201,
    errors: ['webhook_name_taken', 'webhook_invalid', 'quota_exceeded'],
    example: {
      body: {
        webhook_name: 'pipeline',
        url: 'https://example.com/hook',
        events: ['batch.completed', 'batch.failed'],
      },
    },
  }),
  listWebhooks: route({
    operation: 'listWebhooks',
    method: 'GET',
    path: base,
    tag,
    summary: 'List webhooks, newest first',
    query: ListQuery,
    reply: listReply(Webhook),
  }),
  searchWebhooks: route({
    operation: 'searchWebhooks',
    method: 'POST',
    path: `${base}/list`,
    tag,
    summary: 'List webhooks by search, filter and order',
    permission: 'read',
    query: ListQuery,
    body: ListBody,
    bodyOptional: true,
    reply: listReply(Webhook),
  }),
  getWebhook: route({
    operation: 'getWebhook',
    method: 'GET',
    path: one,
    tag,
    summary: 'Read a webhook by id or name',
    reply: Webhook,
    errors: ['webhook_not_found'],
  }),
  putWebhook: route({
    operation: 'putWebhook',
    method: 'PUT',
    path: one,
    tag,
    summary: 'Change a webhook; switching it on again clears its failures',
    body: UpdateWebhookBody,
    reply: Webhook,
    errors: [
      'webhook_not_found',
      'webhook_name_taken',
      'webhook_changed',
      'webhook_invalid',
      'webhook_in_use',
      'request_stale',
    ],
  }),
  patchWebhook: route({
    operation: 'patchWebhook',
    method: 'PATCH',
    path: one,
    tag,
    summary: 'Change parts of a webhook',
    body: UpdateWebhookBody,
    reply: Webhook,
    errors: [
      'webhook_not_found',
      'webhook_name_taken',
      'webhook_changed',
      'webhook_invalid',
      'webhook_in_use',
      'request_stale',
    ],
  }),
  deleteWebhook: route({
    operation: 'deleteWebhook',
    method: 'DELETE',
    path: one,
    tag,
    summary: 'Delete a webhook; what it still owed is dropped',
    reply: NoContent,
    status: 204,
    errors: ['webhook_not_found', 'webhook_changed', 'webhook_in_use', 'request_stale'],
  }),
  rotateWebhookSecret: route({
    operation: 'rotateWebhookSecret',
    method: 'POST',
    path: `${one}/rotate-secret`,
    tag,
    summary: 'Make a new signing secret; both sign for 24 hours',
    body: z.strictObject({ signing_secret: SigningSecret.optional() }),
    bodyOptional: true,
    reply: Webhook,
    status: 201,
    errors: ['webhook_not_found', 'webhook_changed'],
  }),
  testWebhook: route({
    operation: 'testWebhook',
    method: 'POST',
    path: `${one}/test`,
    tag,
    summary: 'Send a test event to this webhook',
    body: z.strictObject({}),
    bodyOptional: true,
    reply: z
      .object({
        success: z.literal(true),
        event_id: z.string(),
        delivery_id: z.string(),
        message: z.string(),
      })
      .meta({ id: 'WebhookTest' }),
    status: 202,
    errors: ['webhook_not_found'],
  }),
  listDeliveries: route({
    operation: 'listDeliveries',
    method: 'GET',
    path: `${one}/deliveries`,
    tag,
    summary: 'The delivery log of a webhook, newest first',
    query: ListQuery.extend({ status: z.enum(deliveryStates).optional() }),
    reply: listReply(Delivery),
    errors: ['webhook_not_found'],
  }),
  getDelivery: route({
    operation: 'getDelivery',
    method: 'GET',
    path: `${one}/deliveries/{delivery}`,
    tag,
    summary: 'Read one delivery',
    reply: Delivery,
    errors: ['webhook_not_found', 'delivery_not_found'],
  }),
  replayDelivery: route({
    operation: 'replayDelivery',
    method: 'POST',
    path: `${one}/deliveries/{delivery}/replay`,
    tag,
    summary: 'Send one delivery again, under its old id',
    body: z.strictObject({}),
    bodyOptional: true,
    reply: Delivery,
    status: 202,
    errors: ['webhook_not_found', 'delivery_not_found'],
  }),
  replayWebhook: route({
    operation: 'replayWebhook',
    method: 'POST',
    path: `${one}/replay`,
    tag,
    summary: 'Send every delivery since a time again that was not delivered',
    query: z.strictObject({ since: Timestamp.optional(), include_delivered: z.stringbool().default(false) }),
    body: z.strictObject({ since: Timestamp.optional() }),
    bodyOptional: true,
    reply: z
      .object({ success: z.literal(true), replayed: z.int(), message: z.string() })
      .meta({ id: 'WebhookReplay' }),
    status: 202,
    errors: ['webhook_not_found'],
  }),
};

type Names = keyof typeof routes & string;
export type OrganizationName<N extends string = Names> = `organization${Capitalize<N>}`;

/** `createWebhook` -> `organizationCreateWebhook`. */
export function organizationName<N extends Names>(name: N): OrganizationName<N> {
  return `organization${name[0]!.toUpperCase()}${name.slice(1)}` as OrganizationName<N>;
}

/**
 * The same operations for webhooks that hear every namespace of the organisation: same schemas, another path, and
 * `admin`, because such a webhook sees what a key for one namespace may not.
 */
export const organizationRoutes = Object.fromEntries(
  Object.entries(routes as Record<Names, Route>).map(([name, one]) => {
    const operation = organizationName(name as Names);
    const path = one.path.replace('/v1/namespaces/{namespace}/', '/v1/organizations/') as Route['path'];
    const summary = `${one.summary} (all namespaces of the organisation)`;
    return [
      operation,
      { ...one, operation, path, summary, tag: 'organization-webhooks', permission: 'admin' },
    ];
  }),
) as Readonly<Record<OrganizationName, Route>>;
