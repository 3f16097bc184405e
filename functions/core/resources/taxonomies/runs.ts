// Runs over what is there: the writes that begin them, for the transaction of whatever asks for them.
import { createHash } from 'node:crypto';
import { isoTime } from '../../clock.ts';
import type { NsCtx } from '../../context.ts';
import { newId } from '../../ids.ts';
import { enqueue } from '../../store/outbox.ts';
import type { Write } from '../../store/table.ts';
import { canonicalJson } from '../collections/service.ts';
import { createTask } from '../tasks/service.ts';
import type { StoredRun, StoredTaxonomy } from './store.ts';
import { jobOf, noTotals, runWrite } from './store.ts';

/** A run that has not ended by then never will: its state machine gives up after six hours. */
export const runDeadlineMs = 6.25 * 3600 * 1000;

/** What decides the result of a run: it ends when this changes. Names and descriptions do not matter to it. */
export function digestOf(taxonomy: Pick<StoredTaxonomy, 'config'>): string {
  return createHash('sha256').update(canonicalJson(taxonomy.config)).digest('hex').slice(0, 32);
}

export interface BegunRun {
  readonly run: StoredRun;
  readonly writes: readonly Write[];
}

/** One run with its task and its job. */
export function beginRun(
  ctx: NsCtx,
  taxonomy: Pick<StoredTaxonomy, 'id' | 'config'>,
  collectionId: string,
  kind: NonNullable<StoredRun['kind']>,
  filters: string | null = null,
): BegunRun {
  const { clock, random } = ctx.ports;
  const time = isoTime(clock.now());
  const run_id = newId('run', clock, random);
  const task_id = newId('task', clock, random);
  const run: StoredRun = {
    run_id,
    task_id,
    taxonomy_id: taxonomy.id,
    collection_id: collectionId,
    digest: digestOf(taxonomy),
    kind,
    filters,
    status: 'PENDING',
    error_message: null,
    request_id: ctx.requestId,
    created_at: time,
    updated_at: time,
    completed_at: null,
    ...noTotals,
  };
  const target = { kind: 'taxonomy_run' as const, taxonomy_id: taxonomy.id, run_id };
  return {
    run,
    writes: [
      runWrite(ctx, run, clock.now() + runDeadlineMs),
      createTask(ctx, {
        task_id,
        task_type: 'api_taxonomies_materialize',
        namespace_id: ctx.ns.namespaceId,
        target,
      }),
      enqueue(ctx, jobOf(ctx, run), run_id),
    ],
  };
}

/** One run for each collection that is materialised. */
export function beginRuns(
  ctx: NsCtx,
  taxonomy: Pick<StoredTaxonomy, 'id' | 'config' | 'applications'>,
): { readonly runIds: string[]; readonly taskIds: string[]; readonly writes: Write[] } {
  const begun = taxonomy.applications
    .filter(({ execution_mode }) => execution_mode === 'materialize')
    .map(({ collection_id }) => beginRun(ctx, taxonomy, collection_id, 'materialize'));
  return {
    runIds: begun.map(({ run }) => run.run_id),
    taskIds: begun.map(({ run }) => run.task_id),
    writes: begun.flatMap(({ writes }) => [...writes]),
  };
}
