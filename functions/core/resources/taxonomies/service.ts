// The rules of taxonomies: what may be defined, and when a definition is applied to what is there.
import { createHash } from 'node:crypto';
import type * as z from 'zod';
import { isoTime } from '../../clock.ts';
import { canonicalField } from '../../conditions/index.ts';
import type { NsCtx } from '../../context.ts';
import type { FieldFault } from '../../errors.ts';
import { AppError, invalid } from '../../errors.ts';
import { checkVersion } from '../../http/version.ts';
import { newId } from '../../ids.ts';
import { enqueue } from '../../store/outbox.ts';
import type { Parent } from '../../store/resource-store.ts';
import type { Write } from '../../store/table.ts';
import type { StoredCollection } from '../collections/service.ts';
import { canonicalJson, findCollection } from '../collections/service.ts';
import { createTask } from '../tasks/service.ts';
import type { ConfigPlaces, GivenConfig, Resolved } from './check.ts';
import { resolveConfig } from './check.ts';
import type { CreateTaxonomyBody, ExecutionMode, TaxonomyInput, UpdateTaxonomyBody } from './contract.ts';
import type { Application, StoredRun, StoredTaxonomy, TaxonomyConfig } from './store.ts';
import { findLastRuns, jobOf, noTotals, runWrite, taxonomyStore } from './store.ts';

export type { StoredRun, StoredTaxonomy } from './store.ts';

/** A run that has not ended by then never will: its state machine gives up after six hours. */
export const runDeadlineMs = 6.25 * 3600 * 1000;

/** By id or name. @throws AppError taxonomy_not_found */
export async function getTaxonomy(ctx: NsCtx, idOrName: string): Promise<StoredTaxonomy> {
  return taxonomyStore.get(ctx, idOrName);
}

/** By id or name; undefined if there is none. */
export async function findTaxonomy(ctx: NsCtx, idOrName: string): Promise<StoredTaxonomy | undefined> {
  return taxonomyStore.find(ctx, idOrName);
}

/** All of the namespace, newest first; their number is bounded by the quota. */
export async function listTaxonomies(ctx: NsCtx): Promise<StoredTaxonomy[]> {
  return taxonomyStore.list(ctx);
}

/** The runs that the last change of each taxonomy began. */
export async function lastRunsOf(ctx: NsCtx, taxonomies: readonly StoredTaxonomy[]): Promise<StoredRun[][]> {
  return findLastRuns(ctx, taxonomies);
}

/** What decides the result of a run: it ends when this changes. Names and descriptions do not matter to it. */
export function digestOf(taxonomy: Pick<StoredTaxonomy, 'config'>): string {
  return createHash('sha256').update(canonicalJson(taxonomy.config)).digest('hex').slice(0, 32);
}

/** Whether the documents of a collection are classified by this taxonomy after each batch. */
export function materializesIn(taxonomy: StoredTaxonomy, collection: StoredCollection): boolean {
  const own = taxonomy.applications.some(
    ({ collection_id, execution_mode }) =>
      collection_id === collection.id && execution_mode === 'materialize',
  );
  return (
    own ||
    collection.taxonomy_applications.some(
      (entry) =>
        entry.taxonomy_id === taxonomy.id &&
        entry.execution_mode === 'materialize' &&
        (entry.target_collection_id == null || entry.target_collection_id === collection.id),
    )
  );
}

const notHierarchical = () =>
  invalid('taxonomy_invalid', [
    {
      type: 'not_supported',
      location: ['body', 'taxonomy_type'],
      message: 'hierarchical taxonomies are not built yet',
      fix: 'make one flat taxonomy for each level',
    },
  ]);

interface Defined {
  readonly config: TaxonomyConfig;
  readonly execution_mode: ExecutionMode;
  readonly applications: readonly Application[];
  readonly parents: readonly Parent[];
}

/** Checks a whole definition. @throws AppError taxonomy_invalid with every fault */
async function define(
  ctx: NsCtx,
  own: StoredTaxonomy | undefined,
  given: GivenConfig,
  places: ConfigPlaces,
  modes: Pick<TaxonomyInput, 'execution_mode' | 'applications'>,
): Promise<Defined> {
  const { resolved, faults } = await resolveConfig(ctx, given, places);
  const mode = modes.execution_mode ?? own?.execution_mode ?? 'on_demand';
  const applications = await resolveApplications(ctx, own, resolved, modes, mode, faults);
  await checkOtherWriters(ctx, own, given, places, applications, faults);
  if (faults.length > 0 || !resolved) throw invalid('taxonomy_invalid', faults);
  const { retriever, source } = resolved;
  const collections = new Set([source.id, ...applications.map(({ collection_id }) => collection_id)]);
  return {
    config: {
      retriever_id: retriever.id,
      input_mappings: given.input_mappings,
      source_collection: { collection_id: source.id },
      enrichment_fields: given.enrichment_fields,
      threshold: given.threshold,
    },
    execution_mode: mode,
    applications,
    parents: [
      { kind: 'RETRIEVER', id: retriever.id },
      ...[...collections].map((id): Parent => ({ kind: 'COLLECTION', id })),
    ],
  };
}

/** The collections to classify: those named, else the one with the references. */
async function resolveApplications(
  ctx: NsCtx,
  own: StoredTaxonomy | undefined,
  resolved: Resolved | undefined,
  { execution_mode, applications }: Pick<TaxonomyInput, 'execution_mode' | 'applications'>,
  mode: ExecutionMode,
  faults: FieldFault[],
): Promise<Application[]> {
  if (!applications || applications.length === 0) {
    const sameSource = own && resolved?.source.id === own.config.source_collection.collection_id;
    if (!applications && sameSource) {
      return own.applications.map((entry) => ({
        ...entry,
        execution_mode: execution_mode ?? entry.execution_mode,
      }));
    }
    return resolved ? [{ collection_id: resolved.source.id, execution_mode: mode }] : [];
  }
  const found: Application[] = [];
  for (const [i, entry] of applications.entries()) {
    const collection = await findCollection(ctx, entry.collection_id);
    const location = ['body', 'applications', i, 'collection_id'];
    if (!collection) {
      faults.push({
        type: 'collection_unknown',
        location,
        message: `there is no collection "${entry.collection_id}" in this namespace`,
      });
    } else if (found.some(({ collection_id }) => collection_id === collection.id)) {
      faults.push({
        type: 'collection_repeated',
        location,
        message: `the collection "${collection.name}" stands here twice`,
      });
    } else found.push({ collection_id: collection.id, execution_mode: entry.execution_mode ?? mode });
  }
  return found;
}

/** Two taxonomies that write one field of one collection would undo each other's work after every batch. */
async function checkOtherWriters(
  ctx: NsCtx,
  own: StoredTaxonomy | undefined,
  given: GivenConfig,
  places: ConfigPlaces,
  applications: readonly Application[],
  faults: FieldFault[],
): Promise<void> {
  const collections = new Set(
    applications
      .filter((entry) => entry.execution_mode === 'materialize')
      .map((entry) => entry.collection_id),
  );
  if (collections.size === 0) return;
  for (const other of await taxonomyStore.list(ctx)) {
    if (other.id === own?.id) continue;
    if (
      !other.applications.some(
        (entry) => entry.execution_mode === 'materialize' && collections.has(entry.collection_id),
      )
    )
      continue;
    const taken = new Set(
      other.config.enrichment_fields.map(({ target_field }) => canonicalField(target_field)),
    );
    for (const [i, { target_field }] of given.enrichment_fields.entries()) {
      if (!taken.has(canonicalField(target_field))) continue;
      faults.push({
        type: 'field_taken',
        location: ['body', ...places.enrichment_fields, i],
        message: `the taxonomy "${other.name}" writes "${target_field}" into the same collection`,
        fix: 'choose another target, or delete that taxonomy',
      });
    }
  }
}

/** Runs over what is there, one for each collection that is materialised, with the writes that begin them. */
function beginRuns(
  ctx: NsCtx,
  taxonomy: Pick<StoredTaxonomy, 'id' | 'config' | 'applications'>,
): { runIds: string[]; taskIds: string[]; writes: Write[] } {
  const runIds: string[] = [];
  const taskIds: string[] = [];
  const writes: Write[] = [];
  const { clock, random } = ctx.ports;
  const time = isoTime(clock.now());
  for (const { collection_id, execution_mode } of taxonomy.applications) {
    if (execution_mode !== 'materialize') continue;
    const run_id = newId('run', clock, random);
    const task_id = newId('task', clock, random);
    const run: StoredRun = {
      run_id,
      task_id,
      taxonomy_id: taxonomy.id,
      collection_id,
      digest: digestOf(taxonomy),
      status: 'PENDING',
      error_message: null,
      request_id: ctx.requestId,
      created_at: time,
      updated_at: time,
      completed_at: null,
      ...noTotals,
    };
    const target = { kind: 'taxonomy_run' as const, taxonomy_id: taxonomy.id, run_id };
    writes.push(
      runWrite(ctx, run, clock.now() + runDeadlineMs),
      createTask(ctx, {
        task_id,
        task_type: 'api_taxonomies_materialize',
        namespace_id: ctx.ns.namespaceId,
        target,
      }),
      enqueue(ctx, jobOf(ctx, run), run_id),
    );
    runIds.push(run_id);
    taskIds.push(task_id);
  }
  return { runIds, taskIds, writes };
}

/** A taxonomy with the tasks of the runs that the request began. */
export interface ChangedTaxonomy {
  readonly taxonomy: StoredTaxonomy;
  readonly taskIds: readonly string[];
}

/**
 * Makes a taxonomy. In the mode `materialize` runs over what is there begin with it: a document that is committed later
 * is classified after its batch, since that step looks for taxonomies after the commit. So none is missed.
 *
 * @throws AppError taxonomy_name_taken, taxonomy_invalid, quota_exceeded
 */
export async function createTaxonomy(
  ctx: NsCtx,
  body: z.output<typeof CreateTaxonomyBody>,
): Promise<ChangedTaxonomy> {
  if (body.hierarchical) throw notHierarchical();
  const { retriever, collection, input_mappings, enrichment_fields, threshold } = body;
  const defined = await define(
    ctx,
    undefined,
    {
      retriever: retriever.value!,
      collection: collection.value!,
      input_mappings: input_mappings.value!,
      enrichment_fields: enrichment_fields.value!,
      threshold: threshold.value ?? null,
    },
    placesOf(body),
    body,
  );
  const id = newId('taxonomy', ctx.ports.clock, ctx.ports.random);
  const { runIds, taskIds, writes } = beginRuns(ctx, { id, ...defined });
  const taxonomy = await taxonomyStore.create(
    ctx,
    {
      id,
      name: body.name,
      description: body.description ?? null,
      taxonomy_type: 'flat',
      ...defined,
      run_ids: runIds,
      metadata: (body.metadata ?? {}) as StoredTaxonomy['metadata'],
    },
    writes,
  );
  return { taxonomy, taskIds };
}

function placesOf(body: TaxonomyInput): ConfigPlaces {
  return {
    retriever: body.retriever.at,
    collection: body.collection.at,
    input_mappings: body.input_mappings.at,
    enrichment_fields: body.enrichment_fields.at,
    threshold: body.threshold.at,
  };
}

/**
 * Changes a taxonomy and raises its version. When that changes what documents take over, or where, it is applied anew
 * to what is there; a run of the definition before ends.
 *
 * @throws AppError taxonomy_not_found, taxonomy_name_taken, taxonomy_invalid, taxonomy_changed, request_stale
 */
export async function updateTaxonomy(
  ctx: NsCtx,
  idOrName: string,
  body: z.output<typeof UpdateTaxonomyBody>,
  ifMatch?: number,
): Promise<ChangedTaxonomy> {
  const before = await taxonomyStore.get(ctx, idOrName);
  checkVersion(ifMatch, before.revision);
  if (body.hierarchical) throw notHierarchical();
  const plain = {
    ...(body.name === undefined ? {} : { name: body.name }),
    ...(body.description === undefined ? {} : { description: body.description }),
    ...(body.metadata === undefined ? {} : { metadata: (body.metadata ?? {}) as StoredTaxonomy['metadata'] }),
  };
  const facts = [
    body.retriever,
    body.collection,
    body.input_mappings,
    body.enrichment_fields,
    body.threshold,
  ];
  const defines =
    facts.some(({ value }) => value !== undefined) ||
    body.execution_mode !== undefined ||
    body.applications !== undefined;
  if (!defines) return { taxonomy: await taxonomyStore.update(ctx, before, plain), taskIds: [] };

  const { config } = before;
  const defined = await define(
    ctx,
    before,
    {
      retriever: body.retriever.value ?? config.retriever_id,
      collection: body.collection.value ?? config.source_collection.collection_id,
      input_mappings: body.input_mappings.value ?? config.input_mappings,
      enrichment_fields: body.enrichment_fields.value ?? config.enrichment_fields,
      threshold: body.threshold.value === undefined ? config.threshold : body.threshold.value,
    },
    placesOf(body),
    body,
  );
  const same =
    digestOf(defined) === digestOf(before) &&
    canonicalJson(defined.applications) === canonicalJson(before.applications);
  const runs = same
    ? { runIds: before.run_ids, taskIds: [], writes: [] }
    : beginRuns(ctx, { id: before.id, ...defined });
  const taxonomy = await taxonomyStore.update(
    ctx,
    before,
    { ...plain, ...defined, run_ids: runs.runIds },
    runs.writes,
  );
  return { taxonomy, taskIds: runs.taskIds };
}

/**
 * Deletes a taxonomy. What it wrote into documents stays; a run that is under way ends.
 *
 * @throws AppError taxonomy_not_found, taxonomy_in_use, taxonomy_changed, request_stale
 */
export async function deleteTaxonomy(
  ctx: NsCtx,
  idOrName: string,
  ifMatch?: number,
): Promise<StoredTaxonomy> {
  const taxonomy = await taxonomyStore.get(ctx, idOrName);
  checkVersion(ifMatch, taxonomy.revision);
  await taxonomyStore.remove(ctx, taxonomy);
  return taxonomy;
}

/** The collection that an execution without a name means. @throws AppError collection_not_found */
export async function collectionOf(
  ctx: NsCtx,
  taxonomy: StoredTaxonomy,
  idOrName: string | null | undefined,
): Promise<StoredCollection> {
  const wanted = idOrName ?? taxonomy.config.source_collection.collection_id;
  const collection = await findCollection(ctx, wanted);
  if (!collection)
    throw new AppError('collection_not_found', {
      detail: `No collection "${wanted.slice(0, 120)}" in this namespace.`,
    });
  return collection;
}
