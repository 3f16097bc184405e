// The rules of alerts: what may be watched, where it may be sent, and how evaluations are read.
import { isoTime } from '../../clock.ts';
import { parseCondition } from '../../conditions/index.ts';
import type { NsCtx } from '../../context.ts';
import { now } from '../../context.ts';
import { findTargetFault } from '../../egress/target.ts';
import type { FieldFault } from '../../errors.ts';
import { AppError, invalid, isAppError } from '../../errors.ts';
import { checkVersion } from '../../http/version.ts';
import { newId } from '../../ids.ts';
import type { ListInput, PageReply } from '../../page.ts';
import { pageOffset, pageReply, pageSize, readCursor } from '../../page.ts';
import { checkInputs } from '../../retrieval/inputs.ts';
import type { Parent } from '../../store/resource-store.ts';
import type { Key } from '../../store/table.ts';
import { findCollection } from '../collections/service.ts';
import type { StoredRetriever } from '../retrievers/service.ts';
import { definitionOf, findRetriever } from '../retrievers/service.ts';
import { createOwnedEndpoint, deleteOwnedEndpoint } from '../webhooks/service.ts';
import type { ChannelInput, CreateAlertBody, UpdateAlertBody } from './contract.ts';
import { channelTypes } from './contract.ts';
import type { AlertState, StoredAlert, StoredChannel, StoredExecution, StoredThreshold } from './store.ts';
import {
  alertStore,
  findExecution,
  pageOfExecutions,
  positionOf,
  readStates,
  removeExecutions,
} from './store.ts';

export type { AlertState, StoredAlert, StoredExecution } from './store.ts';

export interface AlertView {
  readonly alert: StoredAlert;
  readonly state: AlertState;
  /** Secrets that were made by this request, by channel: shown once. */
  readonly secrets: ReadonlyMap<string, string | null>;
}

type Path = readonly (string | number)[];

function channelFaults(ctx: NsCtx, channels: readonly ChannelInput[]): FieldFault[] {
  return channels.flatMap((channel): FieldFault[] => {
    if (!(channelTypes as readonly string[]).includes(channel.type)) {
      return [
        {
          type: 'channel_unsupported',
          location: ['body', ...channel.at.type],
          message: `alerts cannot be sent by "${channel.type.slice(0, 60)}"`,
          fix: `one of: ${channelTypes.join(', ')}`,
        },
      ];
    }
    const location = ['body', ...channel.at.url];
    if (channel.url === undefined)
      return [{ type: 'missing', location, message: 'required, an https URL is expected' }];
    const fault = findTargetFault(channel.url, ctx.ports.settings.allowLoopback);
    if (!fault) return [];
    return [
      {
        type: 'url_refused',
        location,
        message: fault.message,
        ...(fault.fix === undefined ? {} : { fix: fault.fix }),
      },
    ];
  });
}

function conditionFaults(condition: unknown): FieldFault[] {
  const parsed = parseCondition(condition);
  if (parsed.ok) return [];
  return parsed.faults.map((fault) => ({
    type: fault.type,
    location: ['body', 'condition', ...fault.path],
    message: fault.message,
    ...(fault.fix === undefined ? {} : { fix: fault.fix }),
  }));
}

/** Ids of the collections that a request names; unknown ones are added to `faults`. */
async function resolveCollections(
  ctx: NsCtx,
  named: readonly string[],
  key: string,
  faults: FieldFault[],
): Promise<string[]> {
  const ids: string[] = [];
  for (const [i, idOrName] of named.entries()) {
    const collection = await findCollection(ctx, idOrName);
    if (collection) {
      if (!ids.includes(collection.id)) ids.push(collection.id);
      continue;
    }
    faults.push({
      type: 'collection_unknown',
      location: key === 'collection_ids' ? ['body', key, i] : ['body', key],
      message: `there is no collection "${idOrName.slice(0, 100)}" in this namespace`,
    });
  }
  return ids;
}

/** The retriever of an alert, with inputs that it can run with. */
async function resolveRetriever(
  ctx: NsCtx,
  idOrName: string,
  inputs: Readonly<Record<string, unknown>>,
  faults: FieldFault[],
): Promise<StoredRetriever | undefined> {
  const retriever = await findRetriever(ctx, idOrName);
  if (!retriever) {
    faults.push({
      type: 'retriever_unknown',
      location: ['body', 'retriever_id'],
      message: `there is no retriever "${idOrName.slice(0, 100)}" in this namespace`,
    });
    return undefined;
  }
  const definition = definitionOf(retriever);
  const checked = checkInputs(definition.input_schema, definition.input_names, inputs);
  for (const { type, path, message, fix } of checked.faults) {
    faults.push({
      type,
      location: ['body', ...(path as Path)],
      message,
      ...(fix === undefined ? {} : { fix }),
    });
  }
  ctx.warnings.push(...checked.warnings);
  return retriever;
}

/** What of a body only makes sense for a retriever. */
function retrieverOnly(body: UpdateAlertBody, faults: FieldFault[]): void {
  for (const key of ['inputs', 'trigger_on', 'threshold'] as const) {
    if (body[key] === undefined || body[key] === null) continue;
    faults.push({
      type: 'kind_mismatch',
      location: ['body', key],
      message: `"${key}" belongs to alerts with a retriever_id; this one has a condition`,
    });
  }
}

function parentsOf(collectionIds: readonly string[], retrieverId: string | null): Parent[] {
  return [
    ...collectionIds.map((id): Parent => ({ kind: 'COLLECTION', id })),
    ...(retrieverId === null ? [] : [{ kind: 'RETRIEVER', id: retrieverId } as const]),
  ];
}

interface MadeChannels {
  readonly channels: StoredChannel[];
  readonly secrets: Map<string, string | null>;
}

/** Makes the hidden endpoints; should one of them fail, those before it are taken away again. */
async function makeChannels(
  ctx: NsCtx,
  alertId: string,
  inputs: readonly ChannelInput[],
): Promise<MadeChannels> {
  const channels: StoredChannel[] = [];
  const secrets = new Map<string, string | null>();
  try {
    for (const input of inputs) {
      const endpoint = { url: input.url!, headers: input.headers, signing_secret: input.signing_secret };
      const { webhook, secret } = await createOwnedEndpoint(ctx, alertId, endpoint, [
        'body',
        ...input.at.url,
      ]);
      channels.push({ webhook_id: webhook.id, url: webhook.url, signed: secret !== null });
      secrets.set(webhook.id, secret);
    }
  } catch (error) {
    await dropChannels(ctx, channels);
    throw error;
  }
  return { channels, secrets };
}

async function dropChannels(ctx: NsCtx, channels: readonly StoredChannel[]): Promise<void> {
  for (const channel of channels) await deleteOwnedEndpoint(ctx, channel.webhook_id);
}

/**
 * Makes an alert with an endpoint and a secret for each channel.
 *
 * @throws AppError alert_invalid (with every fault), alert_name_taken, quota_exceeded
 */
export async function createAlert(ctx: NsCtx, body: CreateAlertBody): Promise<AlertView> {
  const faults: FieldFault[] = [];
  const isCondition = body.condition !== undefined;
  if (isCondition && body.retriever_id) {
    faults.push({
      type: 'kind_mismatch',
      location: ['body', 'retriever_id'],
      message: 'an alert has a condition or a retriever, not both',
      fix: 'make an alert for each',
    });
  }
  if (isCondition) {
    faults.push(...conditionFaults(body.condition));
    retrieverOnly(body, faults);
  }
  const collectionIds = await resolveCollections(
    ctx,
    body.collection_ids ?? [],
    body.collections_key,
    faults,
  );
  const inputs = body.inputs ?? {};
  const retriever =
    !isCondition && body.retriever_id
      ? await resolveRetriever(ctx, body.retriever_id, inputs, faults)
      : undefined;
  faults.push(...channelFaults(ctx, body.channels));
  if (faults.length > 0) throw invalid('alert_invalid', faults);

  const id = newId('alert', ctx.ports.clock, ctx.ports.random);
  if (await alertStore.find(ctx, body.name)) throw nameTaken(body.name);
  const { channels, secrets } = await makeChannels(ctx, id, body.channels);
  const watched = collectionIds.length > 0 ? collectionIds : [...(retriever?.collection_ids ?? [])];
  try {
    const alert = await alertStore.create(ctx, {
      id,
      name: body.name,
      parents: parentsOf(watched, retriever?.id ?? null),
      alert_kind: isCondition ? 'condition' : 'retriever',
      description: body.description ?? null,
      collection_ids: watched,
      condition: isCondition ? JSON.stringify(body.condition) : null,
      retriever_id: retriever?.id ?? null,
      inputs: JSON.stringify(inputs),
      trigger_on: body.trigger_on ?? 'results',
      min_count: body.min_count ?? 1,
      threshold: (body.threshold ?? null) as StoredThreshold | null,
      channels,
      include_matches: body.include_matches ?? true,
      include_scores: body.include_scores ?? true,
      cooldown_seconds: body.cooldown_seconds ?? 0,
      renotify_interval_seconds: body.renotify_interval_seconds ?? null,
      enabled: body.enabled ?? true,
      metadata: (body.metadata ?? {}) as StoredAlert['metadata'],
    });
    return { alert, state: { last_fired_at: null, firing: false }, secrets };
  } catch (error) {
    // The row was refused for good, so nothing names these endpoints. After any other failure it may be there.
    if (
      isAppError(error, 'alert_name_taken', 'quota_exceeded', 'collection_not_found', 'retriever_not_found')
    )
      await dropChannels(ctx, channels);
    throw error;
  }
}

const nameTaken = (name: string) =>
  new AppError('alert_name_taken', {
    detail: `An alert named "${name}" exists already. Choose another name, or update that one.`,
  });

async function view(
  ctx: NsCtx,
  alert: StoredAlert,
  secrets: AlertView['secrets'] = new Map(),
): Promise<AlertView> {
  const [state] = await readStates(ctx, [alert.id]);
  return { alert, state: state!, secrets };
}

/** By id or name. @throws AppError alert_not_found */
export async function getAlert(ctx: NsCtx, idOrName: string): Promise<AlertView> {
  return view(ctx, await alertStore.get(ctx, idOrName));
}

/** All of the namespace, newest first; their number is bounded by the quota. */
export async function listAlerts(ctx: NsCtx): Promise<AlertView[]> {
  const alerts = await alertStore.list(ctx);
  const states = await readStates(
    ctx,
    alerts.map((alert) => alert.id),
  );
  return alerts.map((alert, i) => ({ alert, state: states[i]!, secrets: new Map() }));
}

/** Channels after an update: those whose URL stays keep their endpoint and secret, unless a new secret is given. */
async function changedChannels(
  ctx: NsCtx,
  alert: StoredAlert,
  inputs: readonly ChannelInput[],
): Promise<MadeChannels & { readonly dropped: StoredChannel[] }> {
  const kept: StoredChannel[] = [];
  const fresh: ChannelInput[] = [];
  for (const input of inputs) {
    const same = alert.channels.find((channel) => channel.url === input.url && !kept.includes(channel));
    const keeps =
      same &&
      input.headers === undefined &&
      (input.signing_secret === undefined || input.signing_secret === 'redacted');
    if (keeps) kept.push(same);
    else fresh.push(input);
  }
  const made = await makeChannels(ctx, alert.id, fresh);
  return {
    channels: [...kept, ...made.channels],
    secrets: made.secrets,
    dropped: alert.channels.filter((channel) => !kept.includes(channel)),
  };
}

/** @throws AppError alert_not_found, alert_invalid, alert_name_taken, alert_changed, request_stale, quota_exceeded */
export async function updateAlert(
  ctx: NsCtx,
  idOrName: string,
  body: UpdateAlertBody,
  ifMatch?: number,
): Promise<AlertView> {
  const before = await alertStore.get(ctx, idOrName);
  checkVersion(ifMatch, before.revision);
  const faults: FieldFault[] = [];
  const other =
    before.alert_kind === 'condition'
      ? body.retriever_id
        ? 'retriever_id'
        : undefined
      : body.condition === undefined
        ? undefined
        : 'condition';
  if (other) {
    faults.push({
      type: 'kind_mismatch',
      location: ['body', other],
      message: `this alert has a ${before.alert_kind} and keeps it`,
      fix: 'make another alert',
    });
  } else if (before.alert_kind === 'condition') {
    if (body.condition !== undefined) faults.push(...conditionFaults(body.condition));
    retrieverOnly(body, faults);
  }
  const inputs =
    body.inputs === undefined ? (JSON.parse(before.inputs) as Record<string, unknown>) : (body.inputs ?? {});
  const retriever =
    before.alert_kind === 'retriever' && !other
      ? await resolveRetriever(ctx, body.retriever_id ?? before.retriever_id!, inputs, faults)
      : undefined;
  const collectionIds = body.collection_ids
    ? await resolveCollections(ctx, body.collection_ids, body.collections_key, faults)
    : before.collection_ids;
  if (body.channels) faults.push(...channelFaults(ctx, body.channels));
  if (faults.length > 0) throw invalid('alert_invalid', faults);

  const made = body.channels ? await changedChannels(ctx, before, body.channels) : undefined;
  const retrieverId = retriever?.id ?? before.retriever_id;
  let alert: StoredAlert;
  try {
    alert = await alertStore.update(ctx, before, {
      ...(body.name === undefined ? {} : { name: body.name }),
      ...(body.description === undefined ? {} : { description: body.description }),
      parents: parentsOf(collectionIds, retrieverId),
      collection_ids: collectionIds,
      ...(body.condition === undefined ? {} : { condition: JSON.stringify(body.condition) }),
      retriever_id: retrieverId,
      inputs: JSON.stringify(inputs),
      ...(body.trigger_on ? { trigger_on: body.trigger_on } : {}),
      ...(body.min_count ? { min_count: body.min_count } : {}),
      ...(body.threshold === undefined ? {} : { threshold: body.threshold as StoredThreshold | null }),
      ...(made ? { channels: made.channels } : {}),
      ...(body.include_matches === undefined ? {} : { include_matches: body.include_matches }),
      ...(body.include_scores === undefined ? {} : { include_scores: body.include_scores }),
      ...(body.cooldown_seconds === undefined ? {} : { cooldown_seconds: body.cooldown_seconds ?? 0 }),
      ...(body.renotify_interval_seconds === undefined
        ? {}
        : { renotify_interval_seconds: body.renotify_interval_seconds }),
      ...(body.enabled === undefined ? {} : { enabled: body.enabled }),
      ...(body.metadata === undefined ? {} : { metadata: (body.metadata ?? {}) as StoredAlert['metadata'] }),
    });
  } catch (error) {
    if (made && isAppError(error))
      await dropChannels(
        ctx,
        made.channels.filter((channel) => made.secrets.has(channel.webhook_id)),
      );
    throw error;
  }
  if (made) await dropChannels(ctx, made.dropped);
  return view(ctx, alert, made?.secrets);
}

/** @throws AppError alert_not_found, alert_changed, request_stale */
export async function deleteAlert(ctx: NsCtx, idOrName: string, ifMatch?: number): Promise<StoredAlert> {
  const alert = await alertStore.get(ctx, idOrName);
  checkVersion(ifMatch, alert.revision);
  await alertStore.remove(ctx, alert);
  await dropChannels(ctx, alert.channels);
  await removeExecutions(ctx, alert.id);
  return alert;
}

/** @throws AppError alert_execution_not_found */
export async function getExecution(ctx: NsCtx, id: string): Promise<StoredExecution> {
  const execution = await findExecution(ctx, undefined, id);
  if (execution) return execution;
  throw new AppError('alert_execution_not_found', {
    detail: `No alert execution "${id.slice(0, 100)}" in this namespace.`,
  });
}

/**
 * How alerts were evaluated, newest batch first.
 *
 * @param idOrName undefined: all alerts
 * @throws AppError alert_not_found, request_bad_cursor
 */
export async function listExecutions(
  ctx: NsCtx,
  idOrName: string | undefined,
  input: ListInput,
): Promise<PageReply<StoredExecution>> {
  const alertId = idOrName === undefined ? undefined : (await alertStore.get(ctx, idOrName)).id;
  const list = `alert executions ${alertId ?? ''}`;
  const size = pageSize(input);
  const offset = pageOffset(input);
  let after = input.cursor ? ((await readCursor(ctx, list, input, input.cursor)) as Key) : undefined;
  let skip = input.cursor ? 0 : offset;
  const search = input.search?.toLowerCase();
  const found: StoredExecution[] = [];
  for (;;) {
    const page = await pageOfExecutions(ctx, alertId, Math.min(1000, skip + size + 1), after);
    for (const execution of page.executions) {
      if (
        search &&
        ![execution.alert_name, execution.batch_id, execution.alert_id].some((text) =>
          text.toLowerCase().includes(search),
        )
      )
        continue;
      if (skip > 0) {
        skip -= 1;
        continue;
      }
      if (found.length === size) {
        const last = found.at(-1)!;
        return pageReply(ctx, list, input, found, {
          offset,
          total: null,
          nextPosition: positionOf(ctx, alertId, last.execution_id),
        });
      }
      found.push(execution);
    }
    if (!page.next) break;
    after = page.next;
  }
  // The whole list has been seen from its start, so its length is known.
  const total = input.cursor || (found.length === 0 && offset > 0) ? null : offset + found.length;
  return pageReply(ctx, list, input, found, { offset, total, nextPosition: undefined });
}

/** The time of an evaluation, for rows and events. */
export function timeNow(ctx: NsCtx): string {
  return isoTime(now(ctx));
}
