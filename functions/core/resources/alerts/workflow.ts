// The step of the batch workflow that evaluates alerts: after taxonomies and clusters, over what the batch made or
// changed. Each alert is evaluated once per batch, however often the step runs.
import type { NsCtx } from '../../context.ts';
import { now } from '../../context.ts';
import { crash } from '../../crash.ts';
import { isAppError } from '../../errors.ts';
import { derivedId, idPrefixes } from '../../ids.ts';
import { announce } from '../../store/outbox.ts';
import type { Write } from '../../store/table.ts';
import { ConditionFailed } from '../../store/table.ts';
import { findCollection } from '../collections/service.ts';
import type { BatchRef } from '../documents/service.ts';
import { collectionsOfBatch } from '../documents/service.ts';
import type { Evaluation } from './evaluate.ts';
import { BatchDocuments, evaluateAlert } from './evaluate.ts';
import { timeNow } from './service.ts';
import type { AlertState, StoredAlert, StoredExecution } from './store.ts';
import { alertIs, alertStore, changeState, findExecution, insertExecution, readStates } from './store.ts';

/** Writes of one evaluation that meet another of the same alert. */
const recordTries = 10;
/** A stored match in a notification: ids only, so that 100 of them stay under 20 kB. */
const messageCharactersMax = 500;

export interface AlertsResult {
  readonly evaluated: number;
  readonly triggered: number;
  /** Alerts that could not be evaluated: listed with the batch. */
  readonly failures: readonly { readonly id: string; readonly error: string; readonly message: string }[];
}

/**
 * The id of the evaluation of an alert over a batch: the same for every repetition, and sorting by the batch's time.
 */
export function executionId(alertId: string, batch: BatchRef): string {
  const time = batch.batch_id.slice(idPrefixes.batch.length, idPrefixes.batch.length + 9);
  const rest = derivedId('execution', alertId, batch.batch_id, batch.attempt).slice(
    idPrefixes.execution.length,
  );
  return `${idPrefixes.execution}${time}${rest.slice(0, 11)}`;
}

interface Application {
  readonly alert_id?: unknown;
  readonly execution_mode?: unknown;
}

/** Which of the batch's collections an alert watches: its own list, all if it has none, and those that name it. */
function watchedBy(
  alert: StoredAlert,
  touched: readonly string[],
  applied: ReadonlyMap<string, ReadonlySet<string>>,
): string[] {
  return touched.filter(
    (id) =>
      alert.collection_ids.includes(id) ||
      (alert.collection_ids.length === 0 && alert.alert_kind === 'retriever') ||
      applied.get(id)?.has(alert.id),
  );
}

/**
 * Evaluates every enabled alert on the collections of a batch, and announces those that hold.
 *
 * @throws AppError (retryable codes only) when an alert could not be evaluated now; the others are done by then
 */
export async function evaluateAlerts(ctx: NsCtx, batch: BatchRef): Promise<AlertsResult> {
  const touched: string[] = [];
  const applied = new Map<string, Set<string>>();
  for (const id of await collectionsOfBatch(ctx, batch)) {
    const collection = await findCollection(ctx, id);
    if (!collection) continue;
    touched.push(id);
    const applications = (collection.alert_applications as readonly Application[]).filter(
      (application) => (application.execution_mode ?? 'on_ingest') === 'on_ingest',
    );
    applied.set(id, new Set(applications.map((application) => String(application.alert_id))));
  }
  const documents = new BatchDocuments(ctx, batch);
  const failures: AlertsResult['failures'][number][] = [];
  let evaluated = 0;
  let triggered = 0;
  let retryable: unknown;
  for (const alert of touched.length === 0 ? [] : await alertStore.list(ctx)) {
    const collectionIds = watchedBy(alert, touched, applied);
    if (!alert.enabled || collectionIds.length === 0) continue;
    try {
      const execution = await evaluateOnce(ctx, batch, alert, documents, collectionIds);
      if (!execution) continue;
      evaluated += 1;
      if (execution.triggered && execution.suppressed === null) triggered += 1;
      if (execution.error_message !== null)
        failures.push({ id: alert.id, error: 'alert_execution_failed', message: execution.error_message });
    } catch (error) {
      // The other alerts must not wait for this one; the step is repeated for it alone.
      retryable ??= error;
    }
  }
  if (retryable !== undefined) throw retryable;
  return { evaluated, triggered, failures };
}

/** @returns undefined when the alert was changed or deleted meanwhile: then nobody is told by the old definition. */
async function evaluateOnce(
  ctx: NsCtx,
  batch: BatchRef,
  alert: StoredAlert,
  documents: BatchDocuments,
  collectionIds: readonly string[],
): Promise<StoredExecution | undefined> {
  const id = executionId(alert.id, batch);
  const there = await findExecution(ctx, alert.id, id);
  if (there) return there;
  const startedMs = now(ctx);
  let current: StoredAlert | undefined = alert;
  for (let attempt = 0; attempt < recordTries && current?.enabled; attempt++) {
    const outcome = await evaluateSafely(ctx, current, documents, collectionIds);
    const [state] = await readStates(ctx, [alert.id]);
    const execution = toExecution(ctx, id, current, batch, collectionIds, outcome, state!, startedMs);
    try {
      crash('alert.evaluate.before_record');
      await ctx.ports.table.write([
        alertIs(ctx, current),
        ...recordWrites(ctx, current, batch, execution, state!),
      ]);
      crash('alert.evaluate.after_record');
      return execution;
    } catch (error) {
      if (!(error instanceof ConditionFailed)) throw error;
      // Recorded by a repetition of this step, changed by a request, or another batch was told in this moment.
      const recorded = await findExecution(ctx, alert.id, id);
      if (recorded) return recorded;
      current = await alertStore.find(ctx, alert.id);
    }
  }
  return undefined;
}

type Outcome = { readonly evaluation: Evaluation } | { readonly error: string };

/** A fault of the definition is an outcome; one that may pass is thrown. */
async function evaluateSafely(
  ctx: NsCtx,
  alert: StoredAlert,
  documents: BatchDocuments,
  collectionIds: readonly string[],
): Promise<Outcome> {
  try {
    return { evaluation: await evaluateAlert(ctx, alert, documents, collectionIds) };
  } catch (error) {
    if (!isAppError(error) || error.retryable) throw error;
    return { error: error.detail.slice(0, messageCharactersMax) };
  }
}

/** Why an alert that holds is not told about now. */
function suppression(ctx: NsCtx, alert: StoredAlert, state: AlertState): StoredExecution['suppressed'] {
  if (state.last_fired_at === null) return null;
  const sinceMs = now(ctx) - Date.parse(state.last_fired_at);
  if (sinceMs < alert.cooldown_seconds * 1000) return 'cooldown';
  if (
    state.firing &&
    alert.renotify_interval_seconds !== null &&
    sinceMs < alert.renotify_interval_seconds * 1000
  )
    return 'renotify_interval';
  return null;
}

function toExecution(
  ctx: NsCtx,
  id: string,
  alert: StoredAlert,
  batch: BatchRef,
  collectionIds: readonly string[],
  outcome: Outcome,
  state: AlertState,
  startedMs: number,
): StoredExecution {
  const evaluation = 'evaluation' in outcome ? outcome.evaluation : undefined;
  const triggered = evaluation?.holds ?? false;
  return {
    execution_id: id,
    alert_id: alert.id,
    alert_name: alert.name,
    alert_revision: alert.revision,
    batch_id: batch.batch_id,
    collection_ids: collectionIds,
    status: evaluation ? 'completed' : 'failed',
    triggered,
    suppressed: triggered ? suppression(ctx, alert, state) : null,
    match_count: evaluation?.count ?? 0,
    matches: evaluation?.matches ?? [],
    channel_ids: alert.channels.map((channel) => channel.webhook_id),
    error_message: 'error' in outcome ? outcome.error : null,
    executed_at: timeNow(ctx),
    duration_ms: Math.max(0, now(ctx) - startedMs),
  };
}

/** What a receiver is told: ids, a count, and where to look further. */
function notification(
  alert: StoredAlert,
  batch: BatchRef,
  execution: StoredExecution,
): Record<string, unknown> {
  return {
    alert_id: alert.id,
    alert_name: alert.name,
    execution_id: execution.execution_id,
    batch_id: batch.batch_id,
    bucket_id: batch.bucket_id,
    collection_ids: execution.collection_ids,
    match_count: execution.match_count,
    ...(alert.include_matches
      ? {
          matches: execution.matches.map(({ document_id, collection_id, score }) => ({
            document_id,
            collection_id,
            ...(alert.include_scores && score !== null ? { score } : {}),
          })),
          matches_truncated: execution.match_count > execution.matches.length,
        }
      : {}),
  };
}

/** Row, state and events in one transaction: told exactly if recorded. */
function recordWrites(
  ctx: NsCtx,
  alert: StoredAlert,
  batch: BatchRef,
  execution: StoredExecution,
  state: AlertState,
): Write[] {
  const subject = { type: 'alert', id: alert.id };
  const tells = execution.triggered && execution.suppressed === null;
  const failed = execution.status === 'failed';
  const summary = {
    execution_id: execution.execution_id,
    batch_id: batch.batch_id,
    triggered: execution.triggered,
    match_count: execution.match_count,
  };
  const told = tells ? notification(alert, batch, execution) : {};
  return [
    ...insertExecution(ctx, execution),
    ...(failed
      ? [
          announce(ctx, 'alert.execution.failed', subject, execution.execution_id, {
            ...summary,
            error: execution.error_message,
          }),
        ]
      : [
          changeState(ctx, alert.id, state, {
            last_fired_at: tells ? execution.executed_at : state.last_fired_at,
            firing: execution.triggered,
          }),
          announce(ctx, 'alert.execution.completed', subject, execution.execution_id, {
            ...summary,
            suppressed: execution.suppressed,
          }),
        ]),
    ...(tells
      ? [
          // Once for whoever subscribed, and once for each channel of the alert.
          announce(ctx, 'alert.triggered', subject, execution.execution_id, told),
          ...alert.channels.map((channel) =>
            announce(ctx, 'alert.triggered', subject, execution.execution_id, told, channel.webhook_id),
          ),
        ]
      : []),
  ];
}
