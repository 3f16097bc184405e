// Background work on an index that commits ask for: one row per collection and task, which the sweeper sends to the
// jobs queue when its time has come. No row, no work: nothing looks through collections.
import { isoTime } from '../clock.ts';
import type { NsCtx } from '../context.ts';
import type { IndexJob } from '../events.ts';
import { compactionReasons } from '../vectors/compaction-plan.ts';
import { documentsUri, type Manifest } from '../vectors/manifest.ts';
import { garbageMs } from './collect-garbage.ts';
import { headWrite, type IndexHead, readHead } from './index-head.ts';
import { dueAttributes } from './keys.ts';
import { loadManifest } from './open-index.ts';
import type { Item, Write } from './table.ts';
import { ConditionFailed } from './table.ts';

/** Tasks that commits ask for. */
export const dueTasks = ['compact', 'collect', 'sync'] as const;
export type DueTask = (typeof dueTasks)[number];

export function isDueTask(task: string): task is DueTask {
  return dueTasks.some((one) => one === task);
}

/** When work should begin, in milliseconds since 1970; undefined: there is none. */
export type WantedWork = Readonly<Partial<Record<DueTask, number>>>;

/** Objects have become collectable for certain when the collector comes. */
const collectDelayMs = 10 * 60 * 1000;
/** A burst of small commits is compacted once. */
const compactDelayMs = 60 * 1000;
/** Dead rows are estimated from counts and hurt nobody at once. */
const deadRowsDelayMs = 15 * 60 * 1000;

/**
 * The work that a manifest leaves to be done. Pure: the manifest and the counts of the head alone tell.
 *
 * @param documentCount how many documents can be seen: those that live in the feature of all documents
 */
export function wantedWork(manifest: Manifest, documentCount: number, nowMs: number): WantedWork {
  const reasons = new Set(
    Object.entries(manifest.features).flatMap(([uri, feature]) =>
      compactionReasons(feature, uri === documentsUri ? documentCount : undefined),
    ),
  );
  const isUrgent = reasons.has('deltas') || reasons.has('segments');
  const compact = reasons.size > 0 ? nowMs + (isUrgent ? compactDelayMs : deadRowsDelayMs) : undefined;
  const since = [...manifest.retired, ...(manifest.history ?? [])].map(({ since_ms }) => since_ms);
  const waiting = since.filter((ms) => ms + garbageMs + collectDelayMs > nowMs);
  return {
    ...(compact === undefined ? {} : { compact }),
    ...(waiting.length === 0 ? {} : { collect: Math.min(...waiting) + garbageMs + collectDelayMs }),
  };
}

/** The row of a task, which the sweeper reads as a job to send. */
function workRow(ctx: NsCtx, collectionId: string, task: DueTask, dueMs: number): Item {
  const job: IndexJob = {
    kind: 'index',
    task,
    org_id: ctx.principal.orgId,
    namespace_id: ctx.ns.namespaceId,
    collection_id: collectionId,
    request_id: ctx.requestId,
  };
  return {
    ...ctx.ns.indexWork(collectionId, task),
    watch_job: JSON.stringify(job),
    ...dueAttributes(`${collectionId}.${task}`, isoTime(dueMs)),
  };
}

/**
 * The writes by which a commit asks for work, for its own transaction.
 *
 * A row that is there stays as it is. That loses nothing: whoever takes a row away moves the head in the same
 * transaction, so a commit that saw the row in vain loses its race and looks again.
 *
 * @param present the rows of `dueTasks`, in that order, as they were read **after** the head
 */
export function requestWork(
  ctx: NsCtx,
  collectionId: string,
  wanted: WantedWork,
  present: readonly (Item | undefined)[],
): Write[] {
  return dueTasks.flatMap((task, i) => {
    const dueMs = wanted[task];
    return dueMs === undefined || present[i] ? [] : [{ put: workRow(ctx, collectionId, task, dueMs) }];
  });
}

/** Makes requests that had no room in the commit's transaction, unless somebody else has made them since. */
export async function requestAfterwards(ctx: NsCtx, requests: readonly Write[]): Promise<void> {
  for (const request of requests) await holds(ctx, [{ ...request, if: [{ absent: true }] } as Write]);
}

/** How long a job that was sent is not sent again: longer than any run of the worker. */
export const workLeaseMs = 16 * 60 * 1000;

/**
 * Takes a due row for sending its job on: of the sweeper's repetitions only the first is sent.
 *
 * @returns false if there is no such row, somebody works on it, or its time has not come
 */
export async function claimWork(ctx: NsCtx, collectionId: string, task: DueTask): Promise<boolean> {
  const nowMs = ctx.ports.clock.now();
  return holds(ctx, [
    {
      update: ctx.ns.indexWork(collectionId, task),
      set: { due_at: isoTime(nowMs + workLeaseMs) },
      if: [{ present: true }, { attribute: 'due_at', lt: isoTime(nowMs + 1) }, isFree(nowMs)],
    },
  ]);
}

/**
 * Begins a run, which nobody else begins for `workLeaseMs`. When it dies, the sweeper sends its job again after that.
 *
 * @param runId distinct for each run
 * @returns false if nothing is wanted any more or somebody works on it
 */
export async function beginWork(
  ctx: NsCtx,
  collectionId: string,
  task: DueTask,
  runId: string,
): Promise<boolean> {
  const nowMs = ctx.ports.clock.now();
  const untilMs = nowMs + workLeaseMs;
  return holds(ctx, [
    {
      update: ctx.ns.indexWork(collectionId, task),
      set: { run_id: runId, run_until_ms: untilMs, due_at: isoTime(untilMs) },
      if: [{ present: true }, isFree(nowMs)],
    },
  ]);
}

const isFree = (nowMs: number) =>
  ({
    anyOf: [
      { attribute: 'run_until_ms', missing: true },
      { attribute: 'run_until_ms', lt: nowMs },
    ],
  }) as const;

/** How a run ended. */
export interface WorkOutcome {
  /** Everything was done, as far as this version of the index goes; a newer one is looked at anew. */
  readonly doneVersion?: number;
  /** There is more to do, from this time on. */
  readonly againMs?: number;
}

/** Lost races before a row is left to the next run. */
const endTries = 5;

/**
 * Ends a run: the row goes if nothing is left to do, else it becomes due again. A run that lost its lease changes
 * nothing.
 */
export async function endWork(
  ctx: NsCtx,
  collectionId: string,
  task: DueTask,
  runId: string,
  outcome: WorkOutcome,
): Promise<void> {
  const key = ctx.ns.indexWork(collectionId, task);
  const ours = [{ attribute: 'run_id', eq: runId }] as const;
  const nowMs = ctx.ports.clock.now();
  let dueMs = outcome.againMs;
  for (let i = 0; i < endTries && dueMs === undefined; i++) {
    const head = await readHead(ctx, collectionId);
    dueMs = await nextDue(ctx, head, task, outcome, nowMs);
    if (dueMs !== undefined) break;
    // Moves the head as well: see `requestWork`.
    if (await holds(ctx, [{ delete: key, if: ours }, headWrite(ctx, head, {})])) return;
    const row = await ctx.ports.table.get(key);
    if (row?.run_id !== runId) return;
  }
  await holds(ctx, [
    {
      update: key,
      set: { due_at: isoTime(dueMs ?? nowMs + compactDelayMs) },
      remove: ['run_id', 'run_until_ms'],
      if: ours,
    },
  ]);
}

async function nextDue(
  ctx: NsCtx,
  head: IndexHead,
  task: DueTask,
  outcome: WorkOutcome,
  nowMs: number,
): Promise<number | undefined> {
  // What was counted exactly holds against an estimate.
  if (task === 'compact' && head.version === outcome.doneVersion) return undefined;
  return wantedWork(await loadManifest(ctx, head.manifest_key), head.document_count, nowMs)[task];
}

/** Whether the writes were made; false if a condition did not hold. */
async function holds(ctx: NsCtx, writes: readonly Write[]): Promise<boolean> {
  try {
    await ctx.ports.table.write(writes);
    return true;
  } catch (error) {
    if (error instanceof ConditionFailed) return false;
    throw error;
  }
}
