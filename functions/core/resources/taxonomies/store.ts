// How taxonomies and their runs are stored: a row each; retrievers and collections are the taxonomy's parents.
import { isoTime } from '../../clock.ts';
import { canonicalField } from '../../conditions/index.ts';
import type { NsCtx } from '../../context.ts';
import type { Job } from '../../events.ts';
import { idPrefixes } from '../../ids.ts';
import { dueAttributes } from '../../store/keys.ts';
import type { Parent, StoredResource } from '../../store/resource-store.ts';
import { resourceStore } from '../../store/resource-store.ts';
import type { Attribute, Item, Write } from '../../store/table.ts';
import type { ExecutionMode, runStatuses } from './contract.ts';

/** What becomes an input of the retriever. */
export interface InputMapping {
  readonly input_key: string;
  readonly source_type: 'payload' | 'literal';
  /** Field of the document, as it was written; `payload.x`, `metadata.x` and `x` are the same. Null for a literal. */
  readonly path: string | null;
  readonly override: string | number | boolean | null;
  readonly [name: string]: Attribute;
}

/** What a document takes over from its reference. */
export interface EnrichmentField {
  /** Field of the reference, as it was written. */
  readonly field_path: string;
  readonly target_field: string;
  /** `append`: the target is a list that collects the distinct values of all references that count. */
  readonly merge_mode: 'replace' | 'append';
  readonly [name: string]: Attribute;
}

/** At a child only references with `field` equal to the matched parent's `parent_field` count. */
export interface NodeLink {
  readonly field: string;
  readonly parent_field: string;
  readonly [name: string]: Attribute;
}

/** One level of a hierarchy: references of one collection, searched by one retriever. */
export interface TaxonomyNode {
  readonly node_id: string;
  /** Null: the root. */
  readonly parent_node_id: string | null;
  readonly label: string | null;
  readonly summary: string | null;
  readonly keywords: readonly string[];
  readonly collection_id: string;
  readonly retriever_id: string;
  readonly input_mappings: readonly InputMapping[];
  readonly enrichment_fields: readonly EnrichmentField[];
  /** Lowest score, in units of the retriever's; null: none. */
  readonly threshold: number | null;
  readonly link: NodeLink | null;
  readonly [name: string]: Attribute;
}

/** How the nearest references decide (vote.ts). */
export interface VoteRule {
  readonly mode: 'best' | 'majority' | 'weighted';
  /** How many references vote, 1-50. */
  readonly top_k: number;
  /** Share of the votes, 0-1, that the winner needs; null: any. */
  readonly min_share: number | null;
  readonly [name: string]: Attribute;
}

/** A hierarchy that is read from the references themselves (paths.ts). */
export interface PathRule {
  /** One: the field with the whole path, a text or a list. Several: the fields of the levels, from the top. */
  readonly fields: readonly string[];
  readonly separator: string;
  /** Target of the whole path, joined by the separator. */
  readonly target: string;
  /** Targets of the levels, from the top. */
  readonly level_fields: readonly string[];
  /** Thresholds by level; deeper levels have the last one. Empty: the threshold of the taxonomy. */
  readonly level_thresholds: readonly number[];
  readonly [name: string]: Attribute;
}

/** Nodes that were copied out of cluster runs; the list itself is a file (centroids.ts). */
export interface CentroidSource {
  readonly key: string;
  readonly count: number;
  readonly levels: number;
  readonly feature_uri: string;
  readonly metric: 'cosine' | 'dot' | 'euclid';
  readonly dims: number;
  readonly runs: readonly { readonly cluster_id: string; readonly run_id: string }[];
  /** Targets of the levels' labels, from the coarsest. */
  readonly level_fields: readonly string[];
  readonly [name: string]: Attribute;
}

/** What decides which document gets which fields. Members that are absent in rows written before mean none. */
export interface TaxonomyConfig {
  /** Of the root, and of nodes without one of their own; null: nearest centroids need none. */
  readonly retriever_id: string | null;
  readonly input_mappings: readonly InputMapping[];
  /** Where the root's references are; for centroids, whose plugin embeds texts. */
  readonly source_collection: { readonly collection_id: string };
  readonly enrichment_fields: readonly EnrichmentField[];
  /** Lowest score, in units of the retriever's; null: none. */
  readonly threshold: number | null;
  readonly vote?: VoteRule;
  /** Explicit hierarchy, the root among them. */
  readonly nodes?: readonly TaxonomyNode[];
  readonly path?: PathRule;
  readonly centroids?: CentroidSource;
}

export const bestMatch: VoteRule = { mode: 'best', top_k: 1, min_share: null };

/** The nodes that references are searched at, parents anywhere; none for centroids. */
export function nodesOf(config: TaxonomyConfig): readonly TaxonomyNode[] {
  if (config.nodes) return config.nodes;
  if (config.retriever_id === null) return [];
  return [
    {
      node_id: 'root',
      parent_node_id: null,
      label: null,
      summary: null,
      keywords: [],
      collection_id: config.source_collection.collection_id,
      retriever_id: config.retriever_id,
      input_mappings: config.input_mappings,
      enrichment_fields: config.enrichment_fields,
      threshold: config.threshold,
      link: null,
    },
  ];
}

/** Every field that the taxonomy may write, the one that names the class first. */
export function targetsOf(config: TaxonomyConfig): string[] {
  const { path, centroids } = config;
  const own = config.nodes
    ? config.nodes.flatMap((node) => node.enrichment_fields)
    : config.enrichment_fields;
  const levels = path ? [path.target, ...path.level_fields] : (centroids?.level_fields ?? []);
  return [...new Set([...levels, ...own.map(({ target_field }) => canonicalField(target_field))])];
}

/** A collection whose documents are classified. */
export interface Application {
  readonly collection_id: string;
  readonly execution_mode: ExecutionMode;
  readonly [name: string]: Attribute;
}

/** A configuration that makes sense. */
export interface DefinedConfig {
  readonly config: TaxonomyConfig;
  readonly taxonomy_type: 'flat' | 'hierarchical';
  /** Retrievers and collections that it needs. */
  readonly parents: readonly Parent[];
  readonly warnings: readonly string[];
}

export interface StoredTaxonomy extends StoredResource {
  readonly description: string | null;
  readonly taxonomy_type: 'flat' | 'hierarchical';
  readonly config: TaxonomyConfig;
  /** Number of the version that counts; absent in rows from before versions: 1. */
  readonly version?: number;
  /** Highest number given out. */
  readonly last_version?: number;
  readonly execution_mode: ExecutionMode;
  readonly applications: readonly Application[];
  /** The runs that the last change began, one for each collection; empty: none. */
  readonly run_ids: readonly string[];
  readonly metadata: { readonly [name: string]: Attribute };
}

/** A namespace holds at most 100 taxonomies. */
export const taxonomyStore = resourceStore<StoredTaxonomy>({
  kind: 'TAXONOMY',
  noun: 'taxonomy',
  idPrefix: idPrefixes.taxonomy,
  countMax: 100,
  events: { created: 'taxonomy.created', updated: 'taxonomy.updated', deleted: 'taxonomy.deleted' },
});

export type RunStatus = (typeof runStatuses)[number];

/** How many documents a run has dealt with so far. */
export interface Totals {
  /** Looked at. */
  readonly processed: number;
  /** Of these, documents that have a reference. */
  readonly enriched: number;
  /** Of these, documents that were written. */
  readonly changed: number;
  /** Documents whose text the plugin refused. */
  readonly failed: number;
}

/** The version that counts. */
export function versionOf(taxonomy: Pick<StoredTaxonomy, 'version'>): number {
  return taxonomy.version ?? 1;
}

export const noTotals: Totals = { processed: 0, enriched: 0, changed: 0, failed: 0 };

/** A taxonomy applied to what is there in one collection. */
export interface StoredRun extends Totals {
  readonly run_id: string;
  readonly task_id: string;
  readonly taxonomy_id: string;
  readonly collection_id: string;
  /** Digest of what the run carries out; when the taxonomy says something else by now, the run ends. */
  readonly digest: string;
  /** materialize: as the taxonomy's applications say; apply: once, asked for; remove: takes away what it wrote. */
  readonly kind?: 'materialize' | 'apply' | 'remove';
  /** JSON of a condition; only documents that fulfil it. */
  readonly filters?: string | null;
  readonly status: RunStatus;
  readonly error_message: string | null;
  /** Why documents got nothing, where that is likely a mistake of the definition. */
  readonly warnings?: readonly string[];
  readonly request_id: string;
  readonly created_at: string;
  readonly updated_at: string;
  readonly completed_at: string | null;
}

export type TaxonomyJob = Extract<Job, { kind: 'taxonomy' }>;

const runKeepMs = 90 * 24 * 3600 * 1000;

/** The job that carries out a run. */
export function jobOf(
  ctx: NsCtx,
  run: Pick<StoredRun, 'taxonomy_id' | 'collection_id' | 'run_id' | 'request_id'>,
): TaxonomyJob {
  return {
    kind: 'taxonomy',
    org_id: ctx.principal.orgId,
    namespace_id: ctx.ns.namespaceId,
    taxonomy_id: run.taxonomy_id,
    collection_id: run.collection_id,
    run_id: run.run_id,
    request_id: run.request_id,
  };
}

/** The write that makes a run. From `deadlineMs` on the sweeper sends its job again, to be ended. */
export function runWrite(ctx: NsCtx, run: StoredRun, deadlineMs: number): Write {
  return {
    put: {
      ...ctx.ns.child('TAXONOMY', run.taxonomy_id, 'RUN', run.run_id),
      ...(run as unknown as Record<string, Attribute>),
      ...dueAttributes(run.run_id, isoTime(deadlineMs)),
      watch_job: JSON.stringify(jobOf(ctx, run)),
      expires_at: Math.floor((ctx.ports.clock.now() + runKeepMs) / 1000),
    },
    if: [{ absent: true }],
  };
}

/** Members of the row that are not the run's. */
const runMembers = new Set(['pk', 'sk', 'expires_at', 'due_pk', 'due_at', 'watch_job']);

function toRun(item: Item): StoredRun {
  return Object.fromEntries(
    Object.entries(item).filter(([name]) => !runMembers.has(name)),
  ) as unknown as StoredRun;
}

export async function findRun(ctx: NsCtx, taxonomyId: string, runId: string): Promise<StoredRun | undefined> {
  const item = await ctx.ports.table.get(ctx.ns.child('TAXONOMY', taxonomyId, 'RUN', runId));
  return item && toRun(item);
}

/** The runs that the last change of each taxonomy began, in the order of the taxonomies. */
export async function findLastRuns(
  ctx: NsCtx,
  taxonomies: readonly StoredTaxonomy[],
): Promise<StoredRun[][]> {
  const keys = taxonomies.flatMap(({ id, run_ids }) =>
    run_ids.map((runId) => ctx.ns.child('TAXONOMY', id, 'RUN', runId)),
  );
  const runs = (await ctx.ports.table.getMany(keys)).flatMap((item) => (item ? [toRun(item)] : []));
  return taxonomies.map(({ run_ids }) => runs.filter((run) => run_ids.includes(run.run_id)));
}

/** Changes a run that has not ended; its end takes it off the sweeper's list. @throws ConditionFailed if it has, or is not there */
export async function updateRun(
  ctx: NsCtx,
  job: Pick<TaxonomyJob, 'taxonomy_id' | 'run_id'>,
  changes: Partial<Totals & Pick<StoredRun, 'status' | 'error_message' | 'completed_at' | 'warnings'>>,
): Promise<void> {
  const ends =
    changes.status !== undefined && changes.status !== 'PENDING' && changes.status !== 'PROCESSING';
  await ctx.ports.table.write([
    {
      update: ctx.ns.child('TAXONOMY', job.taxonomy_id, 'RUN', job.run_id),
      set: { ...changes, updated_at: isoTime(ctx.ports.clock.now()) },
      ...(ends ? { remove: ['due_pk', 'due_at', 'watch_job'] } : {}),
      if: [{ attribute: 'status', in: ['PENDING', 'PROCESSING'] }],
    },
  ]);
}
