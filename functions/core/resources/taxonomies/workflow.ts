// The steps of the taxonomy workflow, and the step of a batch that classifies what the batch made.
import { isoTime } from '../../clock.ts';
import { parse } from '../../conditions/index.ts';
import type { NsCtx } from '../../context.ts';
import { crash } from '../../crash.ts';
import type { ErrorCode } from '../../errors.ts';
import { errorTable, isAppError } from '../../errors.ts';
import type { Job } from '../../events.ts';
import { ConditionFailed } from '../../store/table.ts';
import { documentsSnapshot } from '../../store/vector-index.ts';
import { listRows } from '../../vectors/list-rows.ts';
import { findCollection } from '../collections/service.ts';
import { collectionsOfBatch, documentsOfBatch } from '../documents/service.ts';
import { applyTaxonomy, sum } from './apply.ts';
import { openClassifier } from './classify.ts';
import { removeEnrichments } from './remove.ts';
import { digestOf, findTaxonomy, listTaxonomies, materializesIn, runDeadlineMs } from './service.ts';
import type { StoredRun, StoredTaxonomy, TaxonomyJob, Totals } from './store.ts';
import { findRun, noTotals, updateRun } from './store.ts';

type BatchJob = Extract<Job, { kind: 'batch' }>;

/** Where a run goes on: behind the document `after`. */
export interface RunCursor {
  readonly after: string;
  readonly totals: Totals;
}

/** What a turn of `run` says: go on at `cursor`, or, when it is null, finish. */
export interface RunProgress {
  readonly cursor: RunCursor | null;
  readonly totals: Totals;
  /** The taxonomy was deleted or says something else by now, so the rest of the run is not needed. */
  readonly superseded: boolean;
}

/** Where a batch goes on: with the pair `key` of taxonomy and collection, behind `done` documents. */
export interface BatchCursor {
  readonly key: string;
  readonly done: number;
  readonly totals: Totals;
}

/** A taxonomy that could not be applied to the documents of a batch; the batch is completed all the same. */
export interface FailedTaxonomy {
  readonly id: string;
  /** Error code. */
  readonly error: string;
  readonly message: string;
}

export interface BatchProgress {
  readonly cursor: BatchCursor | null;
  readonly totals: Totals;
  readonly failures: readonly FailedTaxonomy[];
}

/** What Step Functions calls the Lambda with. */
export type TaxonomyEvent =
  | (TaxonomyJob & { readonly step: 'run'; readonly cursor?: RunCursor | null })
  | (TaxonomyJob & { readonly step: 'finish'; readonly progress: RunProgress })
  | (TaxonomyJob & {
      readonly step: 'fail';
      readonly error?: { readonly Error?: string; readonly Cause?: string } | null;
    })
  // Without the member `cursor` the caller does not come back, so everything is done at once.
  | (BatchJob & {
      readonly step: 'materialize';
      readonly cursor?: BatchCursor | null;
      /** What earlier turns could not apply; the answer of the last turn lists everything. */
      readonly failures?: readonly FailedTaxonomy[];
    });

/**
 * Whether the starter shall start a run's workflow. A run past its deadline is ended here instead: the sweeper sends
 * such jobs again. Needs no rights but those on the table.
 */
export async function admitRun(ctx: NsCtx, job: TaxonomyJob): Promise<boolean> {
  const run = await findRun(ctx, job.taxonomy_id, job.run_id);
  if (!run || !isOpen(run)) return false;
  if (ctx.ports.clock.now() < Date.parse(run.created_at) + runDeadlineMs) return true;
  await endRun(ctx, job, {
    status: 'FAILED',
    error_message: 'The run did not end in time. Change the taxonomy, or make it anew, to begin another.',
  });
  return false;
}

/** Warnings that a run keeps. */
const warningsMax = 10;

/** A turn ends here, so that a last commit of 2,000 documents still fits into the Lambda's time. */
const turnMs = 120_000;

export async function taxonomyStep(
  ctx: NsCtx,
  event: TaxonomyEvent,
): Promise<RunProgress | BatchProgress | Record<string, never>> {
  switch (event.step) {
    case 'run':
      return runTurn(ctx, event, event.cursor ?? null);
    case 'finish':
      await finishRun(ctx, event, event.progress);
      return {};
    case 'fail':
      await failRun(ctx, event, event.error ?? {});
      return {};
    case 'materialize':
      return materializeBatch(ctx, event, event.cursor, event.failures ?? []);
  }
}

const isOpen = (run: StoredRun) => run.status === 'PENDING' || run.status === 'PROCESSING';

/** Whether the taxonomy still says what the run was begun for. */
function isCurrent(taxonomy: StoredTaxonomy | undefined, run: StoredRun): taxonomy is StoredTaxonomy {
  if (taxonomy === undefined || digestOf(taxonomy) !== run.digest) return false;
  return (
    run.kind === 'apply' ||
    taxonomy.applications.some(
      (entry) => entry.collection_id === run.collection_id && entry.execution_mode === 'materialize',
    )
  );
}

/** The documents that a run is about, by ascending id. */
async function documentsOf(ctx: NsCtx, run: StoredRun): Promise<string[]> {
  const snapshot = await documentsSnapshot(ctx, run.collection_id);
  const filter = run.filters == null ? undefined : parse(JSON.parse(run.filters));
  return snapshot ? listRows(snapshot, { filter, idOrder: 'asc', limit: Number.MAX_SAFE_INTEGER }) : [];
}

async function runTurn(ctx: NsCtx, job: TaxonomyJob, cursor: RunCursor | null): Promise<RunProgress> {
  const { clock } = ctx.ports;
  const startedMs = clock.now();
  const before = cursor?.totals ?? noTotals;
  const [taxonomy, run] = await Promise.all([
    findTaxonomy(ctx, job.taxonomy_id),
    findRun(ctx, job.taxonomy_id, job.run_id),
  ]);
  if (!run || !isOpen(run)) return { cursor: null, totals: before, superseded: true };
  const removes = run.kind === 'remove';
  if (!removes && !isCurrent(taxonomy, run)) return { cursor: null, totals: before, superseded: true };
  await updateRun(ctx, job, { ...before, status: 'PROCESSING' });
  const all = await documentsOf(ctx, run);
  const ids = cursor === null ? all : all.filter((id) => id > cursor.after);
  const stop = () => clock.now() - startedMs > turnMs;
  const { done, totals, warnings } = removes
    ? { ...(await removeEnrichments(ctx, job.taxonomy_id, job.collection_id, ids, stop)), warnings: [] }
    : await applyTaxonomy(
        ctx,
        await openClassifier(ctx, taxonomy!, { keeps: true }),
        job.collection_id,
        ids,
        stop,
      );
  crash('taxonomy.run.after_apply');
  const sofar = sum(before, totals);
  const next = done < ids.length ? { after: ids[done - 1]!, totals: sofar } : null;
  const known = new Set([...(run.warnings ?? []), ...warnings]);
  await updateRun(ctx, job, {
    ...sofar,
    ...(known.size > 0 ? { warnings: [...known].slice(0, warningsMax) } : {}),
  });
  return { cursor: next, totals: sofar, superseded: false };
}

/** Ends a run; one that has ended already stays as it is. */
async function endRun(ctx: NsCtx, job: TaxonomyJob, changes: Parameters<typeof updateRun>[2]): Promise<void> {
  try {
    await updateRun(ctx, job, { ...changes, completed_at: isoTime(ctx.ports.clock.now()) });
  } catch (error) {
    if (!(error instanceof ConditionFailed)) throw error;
  }
}

async function finishRun(ctx: NsCtx, job: TaxonomyJob, progress: RunProgress): Promise<void> {
  if (!progress.superseded) return endRun(ctx, job, { ...progress.totals, status: 'COMPLETED' });
  const error_message =
    'The taxonomy was changed or deleted while the run was under way; a newer run does the work of one that is materialised.';
  await endRun(ctx, job, { ...progress.totals, status: 'CANCELED', error_message });
}

async function failRun(
  ctx: NsCtx,
  job: TaxonomyJob,
  error: { readonly Error?: string; readonly Cause?: string },
): Promise<void> {
  await endRun(ctx, job, { status: 'FAILED', error_message: messageOf(error) });
}

/** What the owner may read of an error that Step Functions caught: our own words, never a stack. */
export function messageOf({
  Error: name = '',
  Cause: cause = '',
}: {
  readonly Error?: string;
  readonly Cause?: string;
}): string {
  if (!Object.hasOwn(errorTable, name))
    return 'The run ended without saying why; it was probably out of time or memory.';
  const { title } = errorTable[name as ErrorCode];
  try {
    const { errorMessage } = JSON.parse(cause) as { errorMessage?: unknown };
    return typeof errorMessage === 'string' ? errorMessage.slice(0, 1000) : title;
  } catch {
    // Not the JSON of a Lambda's error; the code is all that is known.
    return title;
  }
}

interface Pair {
  /** Sorts by the taxonomies' creation, so that a later one can read what an earlier one wrote. */
  readonly key: string;
  readonly taxonomy: StoredTaxonomy;
  readonly collectionId: string;
}

/** Every materialised taxonomy of every collection that the batch made documents in. */
async function pairsOf(ctx: NsCtx, batch: BatchJob): Promise<Pair[]> {
  const [collectionIds, taxonomies] = await Promise.all([
    collectionsOfBatch(ctx, batch),
    listTaxonomies(ctx),
  ]);
  if (taxonomies.length === 0) return [];
  const collections = await Promise.all(collectionIds.map((id) => findCollection(ctx, id)));
  const pairs = collections.flatMap((collection) =>
    // Deleted since the commit: there is nothing left to classify.
    !collection
      ? []
      : taxonomies
          .filter((taxonomy) => materializesIn(taxonomy, collection))
          .map((taxonomy) => ({
            key: `${taxonomy.id} ${collection.id}`,
            taxonomy,
            collectionId: collection.id,
          })),
  );
  return pairs.sort((a, b) => (a.key < b.key ? -1 : 1));
}

/**
 * Classifies the documents that a batch made or changed. Taxonomies are looked up now, after the commit, so one that
 * was made while the batch ran is applied too.
 *
 * A taxonomy that cannot be applied is reported and does not stop the others; what may pass on another try is thrown.
 */
async function materializeBatch(
  ctx: NsCtx,
  batch: BatchJob,
  cursor: BatchCursor | null | undefined,
  before: readonly FailedTaxonomy[],
): Promise<BatchProgress> {
  const { clock } = ctx.ports;
  const startedMs = clock.now();
  const stop = () => cursor !== undefined && clock.now() - startedMs > turnMs;
  const failures: FailedTaxonomy[] = [...before];
  let totals = cursor?.totals ?? noTotals;
  const pairs = (await pairsOf(ctx, batch)).filter(({ key }) => !cursor || key >= cursor.key);
  for (const { key, taxonomy, collectionId } of pairs) {
    const from = cursor?.key === key ? cursor.done : 0;
    try {
      const ids = await documentsOfBatch(ctx, batch, collectionId);
      const applied = await applyTaxonomy(
        ctx,
        await openClassifier(ctx, taxonomy, { keeps: true }),
        collectionId,
        ids.slice(from),
        stop,
      );
      totals = sum(totals, applied.totals);
      const done = from + applied.done;
      if (done < ids.length || (stop() && key !== pairs.at(-1)!.key))
        return { cursor: { key, done, totals }, totals, failures };
    } catch (error) {
      if (!isAppError(error) || error.retryable) throw error;
      ctx.ports.log.warn('taxonomy not applied to a batch', {
        taxonomy_id: taxonomy.id,
        batch_id: batch.batch_id,
        code: error.code,
      });
      failures.push({ id: taxonomy.id, error: error.code, message: error.detail.slice(0, 1000) });
    }
  }
  return { cursor: null, totals, failures };
}
