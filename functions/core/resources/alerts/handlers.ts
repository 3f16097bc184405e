// Requests about alerts -> service calls -> replies.
import type { NsCtx } from '../../context.ts';
import type { Handlers } from '../../http/handler.ts';
import { Answer } from '../../http/handler.ts';
import type { ListInput } from '../../page.ts';
import { mergeListInput, pageOfAll } from '../../page.ts';
import type { Alert, AlertExecution, routes } from './contract.ts';
import type { AlertView, StoredExecution } from './service.ts';
import {
  createAlert,
  deleteAlert,
  getAlert,
  getExecution,
  listAlerts,
  listExecutions,
  updateAlert,
} from './service.ts';

type Json = Alert['metadata'];

function toAlert(ctx: NsCtx, { alert, state, secrets }: AlertView): Alert {
  const channels = alert.channels.map(({ webhook_id, url, signed }) => {
    const made = secrets.get(webhook_id);
    const secret = made !== undefined ? made : signed ? 'redacted' : null;
    return {
      channel_type: 'webhook' as const,
      channel_id: webhook_id,
      config: { url, signing_secret: secret },
    };
  });
  const [first] = channels;
  return {
    alert_id: alert.id,
    alert_name: alert.name,
    name: alert.name,
    namespace_id: ctx.ns.namespaceId,
    description: alert.description,
    kind: alert.alert_kind,
    collection_id: alert.collection_ids[0] ?? null,
    collection_ids: [...alert.collection_ids],
    condition: alert.condition === null ? null : (JSON.parse(alert.condition) as Json),
    retriever_id: alert.retriever_id,
    inputs: JSON.parse(alert.inputs) as Json,
    trigger_on: alert.trigger_on,
    min_count: alert.min_count,
    threshold: alert.threshold,
    notification: { type: 'webhook', url: first!.config.url, signing_secret: first!.config.signing_secret },
    notification_config: {
      channels,
      include_matches: alert.include_matches,
      include_scores: alert.include_scores,
    },
    cooldown_seconds: alert.cooldown_seconds,
    renotify_interval_seconds: alert.renotify_interval_seconds,
    enabled: alert.enabled,
    last_fired_at: state.last_fired_at,
    metadata: alert.metadata as Json,
    version: alert.revision,
    created_at: alert.created_at,
    updated_at: alert.updated_at,
  };
}

function toExecution(stored: StoredExecution): AlertExecution {
  const { alert_revision, matches, collection_ids, channel_ids, ...rest } = stored;
  return {
    ...rest,
    alert_version: alert_revision,
    collection_id: collection_ids[0] ?? '',
    collection_ids: [...collection_ids],
    matches: matches.map(({ document_id, collection_id, score }) => ({ document_id, collection_id, score })),
    source_documents: matches.map((match) => match.document_id),
    channel_ids: [...channel_ids],
  };
}

async function page(ctx: NsCtx, input: ListInput) {
  const rows = (await listAlerts(ctx)).map((view) => toAlert(ctx, view));
  return pageOfAll(ctx, 'alerts', rows, input, ['alert_id', 'alert_name', 'description']);
}

async function executions(ctx: NsCtx, idOrName: string | undefined, input: ListInput) {
  const found = await listExecutions(ctx, idOrName, input);
  return { ...found, results: found.results.map(toExecution) };
}

const answer = (ctx: NsCtx, view: AlertView) => new Answer(toAlert(ctx, view), { etag: view.alert.revision });

export const handlers: Handlers<typeof routes> = {
  createAlert: async ({ ctx, body }) => answer(ctx, await createAlert(ctx, body)),
  listAlerts: ({ ctx, query }) => page(ctx, query),
  searchAlerts: ({ ctx, query, body }) => page(ctx, mergeListInput(query, body)),
  listAllAlertExecutions: ({ ctx, query }) => executions(ctx, undefined, query),
  getAlertExecution: async ({ ctx, params }) => toExecution(await getExecution(ctx, params.execution!)),
  getAlert: async ({ ctx, params }) => answer(ctx, await getAlert(ctx, params.alert!)),
  putAlert: async ({ ctx, params, body, ifMatch }) =>
    answer(ctx, await updateAlert(ctx, params.alert!, body, ifMatch)),
  patchAlert: async ({ ctx, params, body, ifMatch }) =>
    answer(ctx, await updateAlert(ctx, params.alert!, body, ifMatch)),
  deleteAlert: async ({ ctx, params, ifMatch }) => {
    const alert = await deleteAlert(ctx, params.alert!, ifMatch);
    return { success: true as const, message: `Alert ${alert.name} deleted.` };
  },
  listAlertExecutions: ({ ctx, params, query }) => executions(ctx, params.alert!, query),
};
