// The rules of taxonomies: what may be defined, which version counts, and when it is applied to what is there.
import type * as z from 'zod';
import { canonicalField } from '../../conditions/index.ts';
import type { NsCtx } from '../../context.ts';
import type { FieldFault } from '../../errors.ts';
import { AppError, invalid } from '../../errors.ts';
import { checkVersion } from '../../http/version.ts';
import { newId } from '../../ids.ts';
import { parseFilters } from '../../page.ts';
import type { Parent } from '../../store/resource-store.ts';
import type { Write } from '../../store/table.ts';
import { ConditionFailed, queryAll } from '../../store/table.ts';
import type { StoredCollection } from '../collections/service.ts';
import { canonicalJson, findCollection, getCollection, listCollections } from '../collections/service.ts';
import { resolveStored } from './check.ts';
import type {
  CloneTaxonomyBody,
  CreateTaxonomyBody,
  CreateVersionBody,
  ExecutionMode,
  FromClusterBody,
  TaxonomyInput,
  UpdateTaxonomyBody,
} from './contract.ts';
import { defineConfig, parentsOf } from './define.ts';
import type { Facts } from './definition.ts';
import { saysAnything } from './definition.ts';
import { beginRun, beginRuns, digestOf } from './runs.ts';
import type { Application, DefinedConfig, StoredRun, StoredTaxonomy, TaxonomyConfig } from './store.ts';
import { findLastRuns, targetsOf, taxonomyStore, versionOf } from './store.ts';
import type { StoredVersion } from './version-rows.ts';
import { findVersion, keepFirst, listVersions, newVersion, versionWrite } from './version-rows.ts';

export { digestOf, runDeadlineMs } from './runs.ts';
export type { StoredRun, StoredTaxonomy, TaxonomyConfig } from './store.ts';
export { targetsOf, versionOf } from './store.ts';
export type { StoredVersion } from './version-rows.ts';

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

/** A version by its number, or by what a path says it is. @throws AppError taxonomy_version_not_found */
export async function getVersion(
  ctx: NsCtx,
  taxonomy: StoredTaxonomy,
  version: number | string,
): Promise<StoredVersion> {
  const isNumber = /^[1-9][0-9]{0,5}$/.test(String(version));
  const found = isNumber ? await findVersion(ctx, taxonomy, Number(version)) : undefined;
  if (found) return found;
  throw new AppError('taxonomy_version_not_found', {
    detail: `The taxonomy "${taxonomy.name}" has no version "${String(version).slice(0, 60)}".`,
  });
}

/** The version that a request asks for; undefined: the one that counts. @throws AppError taxonomy_version_not_found */
export async function versionFor(
  ctx: NsCtx,
  taxonomy: StoredTaxonomy,
  version: number | undefined,
): Promise<{ readonly number: number; readonly config: TaxonomyConfig } | undefined> {
  if (version === undefined || version === versionOf(taxonomy)) return undefined;
  const { config } = await getVersion(ctx, taxonomy, version);
  return { number: version, config };
}

/** Newest first. @throws AppError taxonomy_not_found */
export async function versionsOf(
  ctx: NsCtx,
  idOrName: string,
): Promise<{ readonly taxonomy: StoredTaxonomy; readonly versions: readonly StoredVersion[] }> {
  const taxonomy = await getTaxonomy(ctx, idOrName);
  return { taxonomy, versions: await listVersions(ctx, taxonomy) };
}

interface Defined extends Pick<StoredTaxonomy, 'config' | 'taxonomy_type' | 'parents'> {
  readonly execution_mode: ExecutionMode;
  readonly applications: readonly Application[];
}

type Modes = Pick<TaxonomyInput, 'execution_mode' | 'applications'>;

/** Checks a whole definition. @throws AppError taxonomy_invalid with every fault */
async function define(
  ctx: NsCtx,
  own: StoredTaxonomy | undefined,
  facts: Facts,
  modes: Modes,
): Promise<Defined> {
  const faults: FieldFault[] = [];
  const defined = await defineConfig(ctx, facts, own?.config, faults);
  return place(ctx, own, defined, facts, modes, faults);
}

/** Each is two writes, an update may replace all of them, and begins runs in the same transaction of 100. */
const parentsMax = 15;

/** Where a configuration is applied. @throws AppError taxonomy_invalid with every fault, those given among them */
async function place(
  ctx: NsCtx,
  own: StoredTaxonomy | undefined,
  defined: (Omit<DefinedConfig, 'warnings'> & { readonly warnings?: readonly string[] }) | undefined,
  facts: Facts | undefined,
  modes: Modes,
  faults: FieldFault[],
): Promise<Defined> {
  const mode = modes.execution_mode ?? own?.execution_mode ?? 'on_demand';
  const applications = await resolveApplications(ctx, own, defined?.config, modes, mode, faults);
  if (defined) await checkOtherWriters(ctx, own, defined.config, facts, applications, faults);
  const needed = [
    ...(defined?.parents ?? []),
    ...applications.map(({ collection_id }): Parent => ({ kind: 'COLLECTION', id: collection_id })),
  ];
  const parents = [...new Map(needed.map((parent) => [parent.id, parent])).values()];
  if (parents.length > parentsMax) {
    faults.push({
      type: 'references_too_many',
      location: ['body', ...(facts?.nodes.value ? facts.nodes.at : ['applications'])],
      message: `the taxonomy names ${parents.length} retrievers and collections; at most ${parentsMax} are possible`,
    });
  }
  if (faults.length > 0 || !defined) throw invalid('taxonomy_invalid', faults);
  ctx.warnings.push(...(defined.warnings ?? []));
  return {
    config: defined.config,
    taxonomy_type: defined.taxonomy_type,
    execution_mode: mode,
    applications,
    parents,
  };
}

/** The collections to classify: those named, else the one with the references. */
async function resolveApplications(
  ctx: NsCtx,
  own: StoredTaxonomy | undefined,
  config: TaxonomyConfig | undefined,
  { execution_mode, applications }: Modes,
  mode: ExecutionMode,
  faults: FieldFault[],
): Promise<Application[]> {
  const source = config?.source_collection.collection_id;
  if (!applications || applications.length === 0) {
    const sameSource = own && source === own.config.source_collection.collection_id;
    if (!applications && sameSource) {
      return own.applications.map((entry) => ({
        ...entry,
        execution_mode: execution_mode ?? entry.execution_mode,
      }));
    }
    return source ? [{ collection_id: source, execution_mode: mode }] : [];
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
  config: TaxonomyConfig,
  facts: Facts | undefined,
  applications: readonly Application[],
  faults: FieldFault[],
): Promise<void> {
  const collections = new Set(
    applications
      .filter((entry) => entry.execution_mode === 'materialize')
      .map((entry) => entry.collection_id),
  );
  if (collections.size === 0) return;
  const inFields = (target: string) =>
    config.enrichment_fields.findIndex(({ target_field }) => canonicalField(target_field) === target);
  for (const other of await taxonomyStore.list(ctx)) {
    if (other.id === own?.id) continue;
    if (
      !other.applications.some(
        (entry) => entry.execution_mode === 'materialize' && collections.has(entry.collection_id),
      )
    )
      continue;
    const taken = new Set(targetsOf(other.config));
    for (const target of targetsOf(config)) {
      if (!taken.has(target)) continue;
      const at = config.nodes
        ? (facts?.nodes.at ?? ['hierarchical_nodes'])
        : (facts?.enrichment_fields.at ?? ['enrichment_fields']);
      const index = config.nodes ? -1 : inFields(target);
      faults.push({
        type: 'field_taken',
        location: ['body', ...at, ...(index < 0 ? [] : [index])],
        message: `the taxonomy "${other.name}" writes "${target}" into the same collection`,
        fix: 'choose another target, or delete that taxonomy',
      });
    }
  }
}

/** A taxonomy with the tasks of the runs that the request began. */
export interface ChangedTaxonomy {
  readonly taxonomy: StoredTaxonomy;
  readonly taskIds: readonly string[];
}

async function store(
  ctx: NsCtx,
  defined: Defined,
  parts: Pick<StoredTaxonomy, 'name' | 'description' | 'metadata'>,
  note: string | null = null,
): Promise<ChangedTaxonomy> {
  const id = newId('taxonomy', ctx.ports.clock, ctx.ports.random);
  const { runIds, taskIds, writes } = beginRuns(ctx, { id, ...defined });
  const { taxonomy_type, config } = defined;
  const version = newVersion(ctx, { version: 1, taxonomy_type, config, note });
  const taxonomy = await taxonomyStore.create(
    ctx,
    { id, ...parts, ...defined, version: 1, last_version: 1, run_ids: runIds },
    [...writes, versionWrite(ctx, id, version)],
  );
  return { taxonomy, taskIds };
}

const asMetadata = (metadata: unknown) => (metadata ?? {}) as StoredTaxonomy['metadata'];

/**
 * Makes a taxonomy. In the mode `materialize` runs over what is there begin with it: a document that is committed later
 * is classified after its batch, since that step looks for taxonomies after the commit. So none is missed.
 *
 * @throws AppError taxonomy_name_taken, taxonomy_invalid, quota_exceeded, cluster_not_found, cluster_run_not_found
 */
export async function createTaxonomy(
  ctx: NsCtx,
  body: z.output<typeof CreateTaxonomyBody>,
): Promise<ChangedTaxonomy> {
  return createBy(ctx, body.facts, body);
}

async function createBy(
  ctx: NsCtx,
  facts: Facts,
  body: z.output<typeof CreateTaxonomyBody> | z.output<typeof FromClusterBody>,
): Promise<ChangedTaxonomy> {
  return store(ctx, await define(ctx, undefined, facts, body), {
    name: body.name,
    description: body.description ?? null,
    metadata: asMetadata(body.metadata),
  });
}

/**
 * Makes a taxonomy out of the clusters of a run.
 *
 * @throws AppError as `createTaxonomy`
 */
export async function createFromCluster(
  ctx: NsCtx,
  cluster: string,
  body: z.output<typeof FromClusterBody>,
): Promise<ChangedTaxonomy> {
  const first = body.run_id === undefined ? cluster : `${cluster}@${body.run_id}`;
  const facts: Facts = {
    ...body.facts,
    cluster_ids: { at: ['cluster_ids'], value: [first, ...body.finer] },
  };
  return createBy(ctx, facts, body);
}

/**
 * Makes a taxonomy like another one, with changes. It is applied nowhere unless asked for: two that write the same
 * fields cannot be.
 *
 * @throws AppError taxonomy_not_found, taxonomy_version_not_found, and as `createTaxonomy`
 */
export async function cloneTaxonomy(
  ctx: NsCtx,
  idOrName: string,
  body: z.output<typeof CloneTaxonomyBody>,
  version: number | undefined,
): Promise<ChangedTaxonomy> {
  const origin = await getTaxonomy(ctx, idOrName);
  const { config } = (await versionFor(ctx, origin, version)) ?? origin;
  const faults: FieldFault[] = [];
  const defined = await defineConfig(ctx, body.facts, config, faults);
  const applications = origin.applications.map(({ collection_id }) => ({
    collection_id,
    execution_mode: body.execution_mode,
  }));
  const placed = await place(
    ctx,
    undefined,
    defined,
    body.facts,
    { execution_mode: body.execution_mode, applications },
    faults,
  );
  return store(
    ctx,
    placed,
    {
      name: body.name,
      description: body.description === undefined ? origin.description : body.description,
      metadata: origin.metadata,
    },
    `clone of ${origin.name}, version ${version ?? versionOf(origin)}`,
  );
}

/**
 * Changes a taxonomy. When that changes what documents take over it makes a version, which counts at once; and that, or
 * other places, applies it anew to what is there. A run of the definition before ends.
 *
 * @throws AppError taxonomy_not_found, taxonomy_name_taken, taxonomy_invalid, taxonomy_changed, request_stale,
 *   cluster_not_found, cluster_run_not_found
 */
export async function updateTaxonomy(
  ctx: NsCtx,
  idOrName: string,
  body: z.output<typeof UpdateTaxonomyBody>,
  ifMatch?: number,
): Promise<ChangedTaxonomy> {
  const before = await taxonomyStore.get(ctx, idOrName);
  checkVersion(ifMatch, before.revision);
  const plain = {
    ...(body.name === undefined ? {} : { name: body.name }),
    ...(body.description === undefined ? {} : { description: body.description }),
    ...(body.metadata === undefined ? {} : { metadata: asMetadata(body.metadata) }),
  };
  const defines =
    saysAnything(body.facts) || body.execution_mode !== undefined || body.applications !== undefined;
  if (!defines) return { taxonomy: await taxonomyStore.update(ctx, before, plain), taskIds: [] };
  return change(ctx, before, await define(ctx, before, body.facts, body), plain, null);
}

/** Writes a definition over the one before, as a version of its own where the configuration differs. */
async function change(
  ctx: NsCtx,
  before: StoredTaxonomy,
  defined: Defined,
  plain: Partial<Pick<StoredTaxonomy, 'name' | 'description' | 'metadata'>>,
  made: { readonly note: string | null } | { readonly version: number } | null,
): Promise<ChangedTaxonomy> {
  const { config, taxonomy_type } = defined;
  const sameConfig = digestOf(defined) === digestOf(before);
  const writes: Write[] = [];
  let versions: Partial<Pick<StoredTaxonomy, 'version' | 'last_version'>> = {};
  if (made && 'version' in made) versions = { version: made.version };
  else if (!sameConfig || made) {
    const version = (before.last_version ?? 1) + 1;
    versions = { version, last_version: version };
    const row = newVersion(ctx, { version, taxonomy_type, config, note: made?.note ?? null });
    writes.push(...(await keepFirst(ctx, before)), versionWrite(ctx, before.id, row));
  }
  const same = sameConfig && canonicalJson(defined.applications) === canonicalJson(before.applications);
  const runs = same
    ? { runIds: before.run_ids, taskIds: [], writes: [] }
    : beginRuns(ctx, { id: before.id, ...defined });
  const taxonomy = await taxonomyStore.update(
    ctx,
    before,
    { ...plain, ...defined, ...versions, run_ids: runs.runIds },
    [...writes, ...runs.writes],
  );
  return { taxonomy, taskIds: runs.taskIds };
}

/**
 * Makes a version. One that does not count at once changes nothing but what `?version=` can name.
 *
 * @throws AppError as `updateTaxonomy`
 */
export async function createVersion(
  ctx: NsCtx,
  idOrName: string,
  body: z.output<typeof CreateVersionBody>,
  ifMatch?: number,
): Promise<{ readonly taxonomy: StoredTaxonomy; readonly version: StoredVersion }> {
  const before = await taxonomyStore.get(ctx, idOrName);
  checkVersion(ifMatch, before.revision);
  if (body.activate) {
    const defined = await define(ctx, before, body.facts, {
      execution_mode: undefined,
      applications: undefined,
    });
    const { taxonomy } = await change(ctx, before, defined, {}, { note: body.note });
    return { taxonomy, version: await getVersion(ctx, taxonomy, versionOf(taxonomy)) };
  }
  const faults: FieldFault[] = [];
  const defined = await defineConfig(ctx, body.facts, before.config, faults);
  if (!defined) throw invalid('taxonomy_invalid', faults);
  const number = (before.last_version ?? 1) + 1;
  const { config, taxonomy_type } = defined;
  const version = newVersion(ctx, { version: number, taxonomy_type, config, note: body.note });
  const taxonomy = await taxonomyStore.update(
    ctx,
    before,
    { version: versionOf(before), last_version: number },
    [...(await keepFirst(ctx, before)), versionWrite(ctx, before.id, version)],
  );
  return { taxonomy, version };
}

/**
 * Lets a version count. What it needs must still be there.
 *
 * @throws AppError taxonomy_not_found, taxonomy_version_not_found, taxonomy_invalid, taxonomy_changed, request_stale
 */
export async function activateVersion(
  ctx: NsCtx,
  idOrName: string,
  version: string,
  ifMatch?: number,
): Promise<ChangedTaxonomy> {
  const before = await taxonomyStore.get(ctx, idOrName);
  checkVersion(ifMatch, before.revision);
  const { version: number, config, taxonomy_type } = await getVersion(ctx, before, version);
  if (number === versionOf(before)) return { taxonomy: before, taskIds: [] };
  const { nodes, faults } = await resolveStored(ctx, config);
  const source: Parent = { kind: 'COLLECTION', id: config.source_collection.collection_id };
  const found = await findCollection(ctx, source.id);
  const all = [...faults];
  if (!found && all.length === 0) {
    all.push({
      type: 'collection_unknown',
      location: ['config', 'source_collection', 'collection_id'],
      message: 'the collection of this version was deleted',
    });
  }
  const parents = [...parentsOf(nodes), source];
  const defined = await place(
    ctx,
    before,
    { config, taxonomy_type, parents },
    undefined,
    { execution_mode: undefined, applications: undefined },
    all,
  );
  return change(ctx, before, defined, {}, { version: number });
}

/**
 * Deletes a taxonomy with its versions and decisions. A run that is under way ends.
 *
 * @param removes take away what it wrote into documents, too; else that stays
 * @returns the tasks that take it away
 * @throws AppError taxonomy_not_found, taxonomy_in_use, taxonomy_changed, request_stale
 */
export async function deleteTaxonomy(
  ctx: NsCtx,
  idOrName: string,
  removes: boolean,
  ifMatch?: number,
): Promise<{ readonly taxonomy: StoredTaxonomy; readonly taskIds: readonly string[] }> {
  const taxonomy = await taxonomyStore.get(ctx, idOrName);
  checkVersion(ifMatch, taxonomy.revision);
  const runs = removes
    ? (await writtenCollections(ctx, taxonomy)).map((id) => beginRun(ctx, taxonomy, id, 'remove'))
    : [];
  await taxonomyStore.remove(
    ctx,
    taxonomy,
    runs.flatMap(({ writes }) => [...writes]),
  );
  for (const child of ['VER', 'REVIEW'] as const) {
    const { pk, prefix } = ctx.ns.children('TAXONOMY', taxonomy.id, child);
    const gone: { readonly delete: { readonly pk: string; readonly sk: string } }[] = [];
    for await (const { pk: itemPk, sk } of queryAll(ctx.ports.table, pk, { prefix }))
      gone.push({ delete: { pk: itemPk, sk } });
    await ctx.ports.table.writeMany(gone);
  }
  return { taxonomy, taskIds: runs.map(({ run }) => run.task_id) };
}

/** Collections that stand in one request's transaction, besides the taxonomy's own rows. */
const cleanedMax = 15;

/** The collections that a taxonomy may have written into. */
async function writtenCollections(ctx: NsCtx, taxonomy: StoredTaxonomy): Promise<string[]> {
  const there = await listCollections(ctx);
  const ids = new Set(taxonomy.applications.map(({ collection_id }) => collection_id));
  for (const { id, taxonomy_applications } of there)
    if (taxonomy_applications.some((entry) => entry.taxonomy_id === taxonomy.id)) ids.add(id);
  const { pk, prefix } = ctx.ns.children('TAXONOMY', taxonomy.id, 'RUN');
  for await (const item of queryAll(ctx.ports.table, pk, { prefix })) ids.add(String(item.collection_id));
  const written = there.map(({ id }) => id).filter((id) => ids.has(id));
  if (written.length <= cleanedMax) return written;
  ctx.warnings.push(
    `It was applied to ${written.length} collections; the first ${cleanedMax} are cleaned. Fields stay in the others.`,
  );
  return written.slice(0, cleanedMax);
}

/**
 * Classifies the documents of a collection once, whatever the taxonomy's applications say.
 *
 * @throws AppError collection_not_found, taxonomy_not_found, taxonomy_invalid (it cannot be applied; another taxonomy
 *   writes the same fields there), taxonomy_changed, request_invalid (the filter)
 */
export async function applyToCollection(
  ctx: NsCtx,
  collectionIdOrName: string,
  taxonomyIdOrName: string,
  filters: unknown,
): Promise<StoredRun> {
  const [collection, taxonomy] = [
    await getCollection(ctx, collectionIdOrName),
    await getTaxonomy(ctx, taxonomyIdOrName),
  ];
  // A wrong filter is refused now, not by the run that it is for.
  parseFilters(filters, false);
  const faults: FieldFault[] = [...(await resolveStored(ctx, taxonomy.config)).faults];
  const application = { collection_id: collection.id, execution_mode: 'materialize' as const };
  await checkOtherWriters(ctx, taxonomy, taxonomy.config, undefined, [application], faults);
  if (faults.length > 0) throw invalid('taxonomy_invalid', faults);
  const { run, writes } = beginRun(
    ctx,
    taxonomy,
    collection.id,
    'apply',
    filters == null ? null : JSON.stringify(filters),
  );
  try {
    await ctx.ports.table.write([
      { check: ctx.ns.resource('TAXONOMY', taxonomy.id), if: [{ present: true }] },
      ...writes,
    ]);
  } catch (error) {
    if (!(error instanceof ConditionFailed) || !error.of(0)) throw error;
    throw new AppError('taxonomy_not_found', {
      detail: `The taxonomy ${taxonomy.id} was deleted while this request ran.`,
    });
  }
  return run;
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
