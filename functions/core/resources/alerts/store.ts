// How alerts are stored: a row each, how they were evaluated under them, and once more for the list over all alerts.
import type { NsCtx } from '../../context.ts';
import { idPrefixes } from '../../ids.ts';
import type { StoredResource } from '../../store/resource-store.ts';
import { resourceStore } from '../../store/resource-store.ts';
import type { Attribute, Condition, Item, Key, Write } from '../../store/table.ts';

type Json = { readonly [name: string]: Attribute };

export interface StoredThreshold {
  readonly field: string;
  readonly operator: 'gt' | 'gte' | 'lt' | 'lte' | 'eq' | 'ne';
  readonly value: number | string | boolean;
  readonly [name: string]: Attribute;
}

/** A way by which an alert is delivered: a hidden webhook of its own. */
export interface StoredChannel {
  readonly webhook_id: string;
  readonly url: string;
  readonly signed: boolean;
  readonly [name: string]: Attribute;
}

export interface StoredAlert extends StoredResource {
  readonly alert_kind: 'condition' | 'retriever';
  readonly description: string | null;
  /** Whose batches it hears; empty (retrievers only): every collection. */
  readonly collection_ids: readonly string[];
  /** JSON of the filter tree; null: a retriever decides. */
  readonly condition: string | null;
  readonly retriever_id: string | null;
  /** JSON of the inputs of the retriever. */
  readonly inputs: string;
  readonly trigger_on: 'results' | 'no_results';
  readonly min_count: number;
  readonly threshold: StoredThreshold | null;
  readonly channels: readonly StoredChannel[];
  readonly include_matches: boolean;
  readonly include_scores: boolean;
  readonly cooldown_seconds: number;
  readonly renotify_interval_seconds: number | null;
  readonly enabled: boolean;
  readonly metadata: Json;
}

/** A namespace holds at most 200 alerts. */
export const alertStore = resourceStore<StoredAlert>({
  kind: 'ALERT',
  noun: 'alert',
  idPrefix: idPrefixes.alert,
  countMax: 200,
  events: { created: 'alert.created', updated: 'alert.updated', deleted: 'alert.deleted' },
});

export interface StoredMatch {
  readonly document_id: string;
  readonly collection_id: string;
  readonly score: number | null;
  readonly [name: string]: Attribute;
}

/** How an alert was evaluated over a batch. Never changed. */
export interface StoredExecution {
  readonly execution_id: string;
  readonly alert_id: string;
  readonly alert_name: string;
  /** Of the definition that was evaluated. */
  readonly alert_revision: number;
  readonly batch_id: string;
  readonly collection_ids: readonly string[];
  readonly status: 'completed' | 'failed';
  readonly triggered: boolean;
  readonly suppressed: 'cooldown' | 'renotify_interval' | null;
  readonly match_count: number;
  /** At most 100. */
  readonly matches: readonly StoredMatch[];
  readonly channel_ids: readonly string[];
  readonly error_message: string | null;
  readonly executed_at: string;
  readonly duration_ms: number;
}

/** When an alert last told somebody, beside its row so that telling does not change the alert's version. */
export interface AlertState {
  readonly last_fired_at: string | null;
  /** The last evaluation held. */
  readonly firing: boolean;
}

/** In the place of an alert's id: executions of all alerts, also of those that are gone. */
const anyAlert = '*';
/** Executions go after 90 days. */
const keepSeconds = 90 * 86_400;

const executionKey = (ctx: NsCtx, alertId: string, id: string) => ctx.ns.child('ALERT', alertId, 'EXEC', id);
const stateKey = (ctx: NsCtx, alertId: string) => ctx.ns.child('ALERT', alertId, 'RUN', 'state');

const rowMembers = new Set(['pk', 'sk', 'expires_at']);

function toExecution(item: Item): StoredExecution {
  return Object.fromEntries(
    Object.entries(item).filter(([name]) => !rowMembers.has(name)),
  ) as unknown as StoredExecution;
}

/** The writes that record an evaluation, once. */
export function insertExecution(ctx: NsCtx, execution: StoredExecution): Write[] {
  const expires = Math.floor(Date.parse(execution.executed_at) / 1000) + keepSeconds;
  return [execution.alert_id, anyAlert].map((owner) => ({
    put: {
      ...executionKey(ctx, owner, execution.execution_id),
      ...(execution as unknown as Json),
      expires_at: expires,
    },
    if: [{ absent: true }],
  }));
}

/** @param alertId undefined: of any alert */
export async function findExecution(
  ctx: NsCtx,
  alertId: string | undefined,
  id: string,
): Promise<StoredExecution | undefined> {
  const item = await ctx.ports.table.get(executionKey(ctx, alertId ?? anyAlert, id));
  return item && toExecution(item);
}

/** A page of executions, newest batch first. @param alertId undefined: of all alerts */
export async function pageOfExecutions(
  ctx: NsCtx,
  alertId: string | undefined,
  limit: number,
  after: Key | undefined,
): Promise<{ readonly executions: StoredExecution[]; readonly next?: Key }> {
  const { pk, prefix } = ctx.ns.children('ALERT', alertId ?? anyAlert, 'EXEC');
  const page = await ctx.ports.table.query(pk, { prefix, limit, descending: true, after });
  const executions = page.items.map(toExecution);
  return page.next ? { executions, next: page.next } : { executions };
}

/** Where a list goes on after an execution. */
export function positionOf(ctx: NsCtx, alertId: string | undefined, id: string): Key {
  const { pk, sk } = executionKey(ctx, alertId ?? anyAlert, id);
  return { pk, sk };
}

function toState(item: Item | undefined): AlertState {
  return {
    last_fired_at: (item?.last_fired_at as string | undefined) ?? null,
    firing: item?.firing === true,
  };
}

export async function readStates(ctx: NsCtx, alertIds: readonly string[]): Promise<AlertState[]> {
  return (await ctx.ports.table.getMany(alertIds.map((id) => stateKey(ctx, id)))).map(toState);
}

/** The write that moves an alert's state from the one that was read. */
export function changeState(ctx: NsCtx, alertId: string, before: AlertState, after: AlertState): Write {
  const unchanged: Condition =
    before.last_fired_at === null
      ? { attribute: 'last_fired_at', missing: true }
      : { attribute: 'last_fired_at', eq: before.last_fired_at };
  return {
    update: stateKey(ctx, alertId),
    set: {
      firing: after.firing,
      ...(after.last_fired_at === null ? {} : { last_fired_at: after.last_fired_at }),
    },
    if: [unchanged],
  };
}

/** The check that an alert exists still, in the version that was evaluated. */
export function alertIs(ctx: NsCtx, alert: StoredAlert): Write {
  return { check: ctx.ns.resource('ALERT', alert.id), if: [{ attribute: 'revision', eq: alert.revision }] };
}

/** Removes what hangs on an alert that is gone; the list over all alerts keeps its executions. Safe to repeat. */
export async function removeExecutions(ctx: NsCtx, alertId: string): Promise<void> {
  const { pk } = stateKey(ctx, alertId);
  for (;;) {
    const { items } = await ctx.ports.table.query(pk, { limit: 500 });
    if (items.length === 0) return;
    await ctx.ports.table.writeMany(items.map((item) => ({ delete: { pk: item.pk, sk: item.sk } })));
  }
}
