// Alerts: told when a batch makes or changes documents that meet a condition, or that a retriever finds. Tutorial step 9.
import * as z from 'zod';
import { route } from '../../http/route.ts';
import {
  DeleteReply,
  Description,
  FilterTree,
  ListBody,
  ListQuery,
  listReply,
  Metadata,
  Timestamp,
  TitleName,
  Warnings,
} from '../../http/schemas.ts';
import { agree, refuseDifferent } from '../../http/spellings.ts';

const Id = z.string().min(1).max(200);
const Url = z.string().min(1).max(4000);
const Headers = z.record(z.string().min(1).max(100), z.string().max(1000));
/** 24 to 64 bytes, or `whsec_` and base64 of as many; left out: one is made. */
const SigningSecret = z
  .string()
  .max(200)
  .refine((s) => {
    if (s === '' || s === 'redacted') return true;
    const bytes = s.startsWith('whsec_') ? Buffer.from(s.slice(6), 'base64').length : Buffer.byteLength(s);
    return bytes >= 24 && bytes <= 64;
  }, 'a signing secret has 24 to 64 bytes, or is "whsec_" with base64 of as many; leave it out and one is made');

/** How deliveries of an alert can leave; others are refused with this list. */
export const channelTypes = ['webhook'] as const;

const target = { url: Url.optional(), headers: Headers.optional(), signing_secret: SigningSecret.optional() };
const Notification = z.strictObject({ type: z.string().max(100), ...target });
const ClientChannel = z.strictObject({
  channel_type: z.string().max(100),
  channel_id: z.string().max(200).nullish(),
  config: z.strictObject(target).nullish(),
});

const Threshold = z.strictObject({
  field: z.string().min(1).max(256),
  operator: z.enum(['gt', 'gte', 'lt', 'lte', 'eq', 'ne']),
  value: z.union([z.number(), z.string(), z.boolean()]),
});

const shape = {
  alert_name: TitleName.optional(),
  name: TitleName.optional(),
  description: Description.nullish(),
  collection_id: Id.optional(),
  collection_ids: z.array(Id).min(1).max(20).optional(),
  condition: FilterTree.optional(),
  retriever_id: Id.nullish(),
  source: z.literal('retriever').optional(),
  inputs: z.record(z.string().min(1).max(100), z.json()).nullish(),
  trigger_on: z.enum(['results', 'no_results']).nullish(),
  min_count: z.int().min(1).max(1_000_000).nullish(),
  threshold: Threshold.nullish(),
  notification: Notification.optional(),
  notification_config: z
    .strictObject({
      channels: z.array(ClientChannel).min(1).max(5),
      include_matches: z.boolean().optional(),
      include_scores: z.boolean().optional(),
    })
    .optional(),
  cooldown_seconds: z.int().min(0).max(2_592_000).nullish(),
  renotify_interval_seconds: z.int().min(60).max(2_592_000).nullish(),
  enabled: z.boolean().optional(),
  metadata: Metadata.nullish(),
};

/** A channel in its one form, with where the request says it. */
export interface ChannelInput {
  readonly type: string;
  readonly url: string | undefined;
  readonly headers: Readonly<Record<string, string>> | undefined;
  readonly signing_secret: string | undefined;
  /** Where the type and the URL stand. */
  readonly at: { readonly type: readonly (string | number)[]; readonly url: readonly (string | number)[] };
}

type Body = z.output<z.ZodObject<typeof shape>>;

function channelsOf(body: Body): ChannelInput[] | undefined {
  const { notification, notification_config: config } = body;
  const channels: ChannelInput[] = [];
  if (config) {
    for (const [i, channel] of config.channels.entries()) {
      const at = ['notification_config', 'channels', i];
      channels.push({
        type: channel.channel_type,
        url: channel.config?.url,
        headers: channel.config?.headers,
        signing_secret: channel.config?.signing_secret,
        at: { type: [...at, 'channel_type'], url: [...at, 'config', 'url'] },
      });
    }
  } else if (notification) {
    channels.push({
      ...notification,
      url: notification.url,
      headers: notification.headers,
      signing_secret: notification.signing_secret,
      at: { type: ['notification', 'type'], url: ['notification', 'url'] },
    });
  }
  return channels.length > 0 ? channels : undefined;
}

function normalise(body: Body, ctx: z.RefinementCtx) {
  agree(ctx, body, 'name', 'alert_name');
  if (
    body.collection_id !== undefined &&
    body.collection_ids &&
    JSON.stringify([body.collection_id]) !== JSON.stringify(body.collection_ids)
  ) {
    refuseDifferent(ctx, 'collection_ids', 'collection_id');
  }
  const [first] = body.notification_config?.channels ?? [];
  if (
    body.notification &&
    first &&
    (first.channel_type !== body.notification.type || first.config?.url !== body.notification.url)
  ) {
    refuseDifferent(ctx, 'notification_config', 'notification');
  }
  return {
    name: body.alert_name ?? body.name,
    description: body.description,
    collection_ids:
      body.collection_ids ?? (body.collection_id === undefined ? undefined : [body.collection_id]),
    collections_key: body.collection_ids ? 'collection_ids' : 'collection_id',
    condition: body.condition,
    retriever_id: body.retriever_id,
    inputs: body.inputs,
    trigger_on: body.trigger_on,
    min_count: body.min_count,
    threshold: body.threshold,
    channels: channelsOf(body),
    include_matches: body.notification_config?.include_matches,
    include_scores: body.notification_config?.include_scores,
    cooldown_seconds: body.cooldown_seconds,
    renotify_interval_seconds: body.renotify_interval_seconds,
    enabled: body.enabled,
    metadata: body.metadata,
  };
}

export const CreateAlertBody = z.strictObject(shape).transform((body, ctx) => {
  const need = (path: string, what: string) =>
    ctx.addIssue({
      code: 'custom',
      path: [path],
      message: `required, ${what} is expected`,
      params: { type: 'missing' },
    });
  const alert = normalise(body, ctx);
  if (alert.name === undefined) need('alert_name', 'a name');
  if (alert.condition === undefined && !alert.retriever_id)
    need('condition', 'a condition on documents, or a retriever_id,');
  if (alert.condition !== undefined && !alert.collection_ids)
    need('collection_id', 'the id or name of a collection');
  if (!alert.channels)
    need('notification', 'where to send it, such as {"type": "webhook", "url": "https://..."},');
  return { ...alert, name: alert.name ?? '', channels: alert.channels ?? [] };
});
export type CreateAlertBody = z.output<typeof CreateAlertBody>;

/** PUT and PATCH alike: what is left out stays. */
export const UpdateAlertBody = z.strictObject(shape).transform(normalise);
export type UpdateAlertBody = z.output<typeof UpdateAlertBody>;

const ChannelReply = z.object({
  channel_type: z.literal('webhook'),
  channel_id: z.string().meta({
    description: 'the endpoint behind the channel: its deliveries are at .../webhooks/{id}/deliveries',
  }),
  config: z.object({
    url: z.string(),
    signing_secret: z
      .string()
      .nullable()
      .meta({ description: 'shown whole once, when the channel is made; then "redacted"; null: unsigned' }),
  }),
});

export const Alert = z
  .object({
    alert_id: z.string(),
    alert_name: z.string(),
    name: z.string(),
    namespace_id: z.string(),
    description: z.string().nullable(),
    kind: z.enum(['condition', 'retriever']),
    collection_id: z.string().nullable(),
    collection_ids: z.array(z.string()),
    condition: z.json().nullable(),
    retriever_id: z.string().nullable(),
    inputs: z.record(z.string(), z.json()),
    trigger_on: z.enum(['results', 'no_results']),
    min_count: z.int(),
    threshold: Threshold.nullable(),
    notification: z.object({
      type: z.literal('webhook'),
      url: z.string(),
      signing_secret: z.string().nullable(),
    }),
    notification_config: z.object({
      channels: z.array(ChannelReply),
      include_matches: z.boolean(),
      include_scores: z.boolean(),
    }),
    cooldown_seconds: z.int(),
    renotify_interval_seconds: z.int().nullable(),
    enabled: z.boolean(),
    last_fired_at: Timestamp.nullable(),
    metadata: Metadata,
    version: z.int(),
    created_at: Timestamp,
    updated_at: Timestamp,
    warnings: Warnings,
  })
  .meta({ id: 'Alert' });
export type Alert = z.input<typeof Alert>;

export const AlertExecution = z
  .object({
    execution_id: z.string(),
    alert_id: z.string(),
    alert_name: z.string(),
    alert_version: z.int(),
    batch_id: z.string(),
    collection_id: z.string(),
    collection_ids: z.array(z.string()),
    status: z.enum(['completed', 'failed']),
    triggered: z.boolean(),
    suppressed: z
      .enum(['cooldown', 'renotify_interval'])
      .nullable()
      .meta({ description: 'the condition held, and why nobody was told' }),
    match_count: z.int(),
    matches: z
      .array(z.object({ document_id: z.string(), collection_id: z.string(), score: z.number().nullable() }))
      .meta({ description: 'at most 100' }),
    source_documents: z.array(z.string()),
    channel_ids: z.array(z.string()),
    error_message: z.string().nullable(),
    executed_at: Timestamp,
    duration_ms: z.int(),
  })
  .meta({ id: 'AlertExecution' });
export type AlertExecution = z.input<typeof AlertExecution>;

const tag = 'alerts';
const base = '/v1/namespaces/{namespace}/alerts';
const one = `${base}/{alert}` as const;
const changeErrors = [
  'alert_not_found',
  'alert_invalid',
  'alert_name_taken',
  'alert_changed',
  'request_stale',
  'quota_exceeded',
] as const;

export const routes = {
  createAlert: route({
    operation: 'createAlert',
    method: 'POST',
    path: base,
    tag,
    summary: 'Be told when a batch brings documents that meet a condition',
    body: CreateAlertBody,
    reply: Alert,
    errors: [
      'alert_invalid',
      'alert_name_taken',
      'quota_exceeded',
      'collection_not_found',
      'retriever_not_found',
    ],
    example: {
      body: {
        alert_name: 'quantum-articles',
        collection_id: 'articles',
        condition: { field: 'metadata.auto_topic', operator: 'eq', value: 'quantum' },
        notification: { type: 'webhook', url: 'https://example.com/webhook' },
      },
    },
  }),
  listAlerts: route({
    operation: 'listAlerts',
    method: 'GET',
    path: base,
    tag,
    summary: 'List alerts, newest first',
    query: ListQuery,
    reply: listReply(Alert),
  }),
  searchAlerts: route({
    operation: 'searchAlerts',
    method: 'POST',
    path: `${base}/list`,
    tag,
    summary: 'List alerts by search, filter and order',
    permission: 'read',
    query: ListQuery,
    body: ListBody,
    bodyOptional: true,
    reply: listReply(Alert),
  }),
  listAllAlertExecutions: route({
    operation: 'listAllAlertExecutions',
    method: 'GET',
    path: `${base}/executions`,
    tag,
    summary: 'List how all alerts were evaluated, newest batch first',
    query: ListQuery,
    reply: listReply(AlertExecution),
  }),
  getAlertExecution: route({
    operation: 'getAlertExecution',
    method: 'GET',
    path: `${base}/executions/{execution}`,
    tag,
    summary: 'Read how an alert was evaluated over a batch',
    reply: AlertExecution,
    errors: ['alert_execution_not_found'],
  }),
  getAlert: route({
    operation: 'getAlert',
    method: 'GET',
    path: one,
    tag,
    summary: 'Read an alert by id or name',
    reply: Alert,
    errors: ['alert_not_found'],
  }),
  putAlert: route({
    operation: 'putAlert',
    method: 'PUT',
    path: one,
    tag,
    summary: 'Change an alert',
    body: UpdateAlertBody,
    reply: Alert,
    errors: changeErrors,
  }),
  patchAlert: route({
    operation: 'patchAlert',
    method: 'PATCH',
    path: one,
    tag,
    summary: 'Change parts of an alert',
    body: UpdateAlertBody,
    reply: Alert,
    errors: changeErrors,
  }),
  deleteAlert: route({
    operation: 'deleteAlert',
    method: 'DELETE',
    path: one,
    tag,
    summary: 'Delete an alert; what it still owed is dropped',
    reply: DeleteReply,
    errors: ['alert_not_found', 'alert_changed', 'alert_in_use'],
  }),
  listAlertExecutions: route({
    operation: 'listAlertExecutions',
    method: 'GET',
    path: `${one}/executions`,
    tag,
    summary: 'List how an alert was evaluated, newest batch first',
    query: ListQuery,
    reply: listReply(AlertExecution),
    errors: ['alert_not_found'],
  }),
};
