// The steps of a cluster run: prepare the input of the clusterer, name what it found, commit; and the runs that follow
// a batch. Every step may be repeated; a run that has ended, or whose definition is gone, changes nothing any more.
import { setTimeout as pause } from 'node:timers/promises';
import { isoTime } from '../../clock.ts';
import type { NsCtx } from '../../context.ts';
import { now } from '../../context.ts';
import { crash } from '../../crash.ts';
import { errorTable } from '../../errors.ts';
import { labelKey } from '../../labels/answer.ts';
import { openLabelCache } from '../../labels/label-cache.ts';
import type { LabelModel } from '../../labels/label-model.ts';
import { nameClusters } from '../../labels/name-clusters.ts';
import { BlobConflict } from '../../store/blobs.ts';
import { announce } from '../../store/outbox.ts';
import type { Condition } from '../../store/table.ts';
import { ConditionFailed } from '../../store/table.ts';
import { readHeads } from '../../store/vector-index.ts';
import type { Snapshot } from '../../vectors/snapshot.ts';
import type { StoredCollection } from '../collections/service.ts';
import { findCollection } from '../collections/service.ts';
import type { BatchRef, JsonObject } from '../documents/service.ts';
import { collectionsOfBatch } from '../documents/service.ts';
import { keptNames, withoutClashes } from './keep-labels.ts';
import { knownNames } from './known-names.ts';
import type { PlanCollection } from './plan-input.ts';
import { allRows, openPlan, sample } from './plan-input.ts';
import { measureReach } from './reach.ts';
import type { RawResult, ResultDocument, ResultGroup, ResultGroups, RunNames } from './results.ts';
import {
  eachDocument,
  noise,
  readGroups,
  readNames,
  readRaw,
  withOverrides,
  writeDocuments,
  writeGroups,
} from './results.ts';
import { runAssign } from './run-assign.ts';
import { countRows, runByValues } from './run-by-values.ts';
import type { StoredCluster } from './service.ts';
import { endRun, followBatch, runDeadlineMs } from './service.ts';
import type { ClusterJob, ClusterState, EnrichmentField, RunInput, RunRange, StoredRun } from './store.ts';
import {
  changeRun,
  changeState,
  clusterStore,
  definitionExists,
  findRun,
  jobOf,
  readState,
  runKeys,
} from './store.ts';
import type { Telling } from './tell-documents.ts';
import { readTold, takeAway, tellDocuments } from './tell-documents.ts';

/** One run holds this many bytes of vectors: the step has them in memory once, and again while it sends them. */
const vectorBytesMax = 400_000_000;
const textCharactersMax = 2_000;
/** Longer than a run waits for its turn, shorter than its deadline. */
const urlSeconds = 2 * 3600;
/** Equal data gives equal results because of this number, so it never changes. */
const seed = 42;
const commitTries = 5;
/** Time for the labelling model, well within the step's five minutes. */
const namingMs = 200_000;

/** What the clusterer is called with (functions/clusterer/handler.py). */
export interface ClustererEvent {
  readonly vectors_url: string;
  readonly rows: number;
  readonly dims: number;
  readonly texts_url: string;
  readonly result_url: string;
  readonly metric: 'cosine' | 'dot' | 'euclid';
  readonly algorithm: { readonly name: string; readonly params: JsonObject };
  /** Applied to the vectors in this order, before everything else. */
  readonly preprocessing: readonly { readonly step: string; readonly params: JsonObject }[];
  /** The space to cluster in. */
  readonly reduction: {
    readonly method: 'auto' | 'none' | 'umap' | 'pca';
    readonly n_components: number | null;
  };
  readonly map: { readonly method: 'umap' | 'pca' | 'tsne'; readonly n_components: 2 | 3 };
  readonly labels: {
    readonly samples_per_cluster: number;
    readonly sample_chars: number;
    readonly keywords: boolean;
  };
  readonly seed: number;
  readonly previous?: { readonly result_url: string };
}

export interface Prepared {
  /** 0: there is nothing for the clusterer to do, and the commit does what there is. */
  readonly rows: number;
  readonly request: ClustererEvent | null;
}

type Loaded =
  | { readonly run: StoredRun; readonly open: true }
  | { readonly run: StoredRun | undefined; readonly open: false };

async function load(ctx: NsCtx, job: ClusterJob): Promise<Loaded> {
  const run = await findRun(ctx, job.cluster_id, job.run_id);
  if (run && (run.status === 'pending' || run.status === 'processing')) return { run, open: true };
  return { run, open: false };
}

/** Whether a refused write means that the run ended, or its definition went away, meanwhile. */
async function hasEnded(ctx: NsCtx, job: ClusterJob): Promise<boolean> {
  return !(await load(ctx, job)).open || !(await clusterStore.find(ctx, job.cluster_id));
}

/** The fields of a collection that hold what its extractors read, else every text of its objects. */
function textFields(collection: StoredCollection): string[] {
  const types = collection.input_schema.properties;
  const isText = (name: string) => types[name]?.type === 'text' || types[name]?.type === 'string';
  const read = collection.feature_extractors.flatMap((extractor) => Object.values(extractor.input_mappings));
  const texts = [...new Set(read)].filter(isText);
  return texts.length > 0 ? texts : Object.keys(types).filter(isText);
}

function textOf(documents: Snapshot | undefined, id: string, fields: readonly string[]): string {
  const row = documents?.rowOf(id);
  if (!documents || row === undefined) return '';
  const values = fields.flatMap((field) => {
    const value = documents.valueAt(row, field);
    return typeof value === 'string'
      ? [value]
      : Array.isArray(value)
        ? value.filter((v) => typeof v === 'string')
        : [];
  });
  return values.join('\n').slice(0, textCharactersMax);
}

interface Part {
  readonly range: RunRange;
  readonly ids: readonly string[];
  readonly vectors: Float32Array;
  readonly texts: readonly string[];
}

/**
 * The layout of a run depends on the order of its rows, and ids are random: in the order of their texts the same
 * documents give the same clusters in any namespace.
 */
function byText(
  a: { readonly text: string; readonly id: string },
  b: { readonly text: string; readonly id: string },
): number {
  if (a.text !== b.text) return a.text < b.text ? -1 : 1;
  return a.id < b.id ? -1 : 1;
}

/** Reads what a plan is about, every collection at one version of its index. */
async function readInput(
  ctx: NsCtx,
  run: StoredRun,
): Promise<{ readonly input: RunInput; readonly parts: readonly Part[] }> {
  const { plan } = run;
  const open = await openPlan(ctx, plan);
  const { dims, metric } = open.space;
  const found: { one: PlanCollection; ids: readonly string[]; vectors: Float32Array }[] = [];
  for (const one of open.collections) found.push({ one, ...(await allRows(open, one)) });
  const total = found.reduce((sum, { ids }) => sum + ids.length, 0);
  const rowsMax = Math.min(
    plan.sample_size ?? Number.POSITIVE_INFINITY,
    Math.floor(vectorBytesMax / (4 * Math.max(dims, 1))),
  );
  const chosen = new Set(
    sample(
      found.flatMap(({ ids }) => ids),
      rowsMax,
    ),
  );
  const parts: Part[] = [];
  let first = 0;
  for (const { one, ids, vectors } of found) {
    const fields =
      plan.llm_labeling.text_fields.length > 0
        ? plan.llm_labeling.text_fields.map(bareField)
        : textFields(one.collection);
    const rows = ids
      .map((id, from) => ({ id, from, text: '' }))
      .filter(({ from }) => chosen.has(first + from))
      .map((row) => ({ ...row, text: textOf(one.documents, row.id, fields) }))
      .sort(byText);
    first += ids.length;
    const kept = new Float32Array(rows.length * dims);
    for (const [to, { from }] of rows.entries())
      kept.set(vectors.subarray(from * dims, (from + 1) * dims), to * dims);
    parts.push({
      range: rangeOf(one, rows.length),
      ids: rows.map(({ id }) => id),
      vectors: kept,
      texts: rows.map(({ text }) => text),
    });
  }
  const input = {
    rows: parts.reduce((sum, part) => sum + part.ids.length, 0),
    dims,
    metric,
    ranges: parts.map((part) => part.range),
    source_documents: total,
  };
  return { input, parts };
}

const rangeOf = ({ collection, version, feature_uris }: PlanCollection, rows: number): RunRange => ({
  collection_id: collection.id,
  version,
  rows,
  feature_uris,
});

/** The versions that a run without the clusterer works with, and how many documents it is about. */
async function pinInput(ctx: NsCtx, run: StoredRun): Promise<RunInput> {
  const open = await openPlan(ctx, run.plan);
  const ranges = open.collections.map((one) =>
    rangeOf(
      one,
      run.plan.cluster_type === 'attribute' ? countRows(open, one) : (one.features[0]?.liveCount ?? 0),
    ),
  );
  const rows = ranges.reduce((sum, range) => sum + range.rows, 0);
  const { dims, metric } = open.space;
  return { rows, dims, metric, ranges, source_documents: rows };
}

const bareField = (path: string) => path.replace(/^(payload|metadata)\./, '');

async function putInput(ctx: NsCtx, runId: string, input: RunInput, parts: readonly Part[]): Promise<void> {
  const matrix = new Float32Array(input.rows * input.dims);
  const lines: string[] = [];
  let row = 0;
  for (const part of parts) {
    matrix.set(part.vectors, row * input.dims);
    row += part.ids.length;
    for (const [i, id] of part.ids.entries())
      lines.push(`${JSON.stringify({ document_id: id, text: part.texts[i] })}\n`);
  }
  // Every machine that runs this is little-endian, and that is the order of the file.
  const bytes = new Uint8Array(matrix.buffer, matrix.byteOffset, matrix.byteLength);
  await ctx.ports.blobs.put(runKeys.vectors(ctx, runId), bytes, { contentType: 'application/octet-stream' });
  await ctx.ports.blobs.put(runKeys.texts(ctx, runId), lines.join(''), {
    contentType: 'application/x-ndjson',
  });
}

/**
 * Freezes the input of a run and gives the event for the clusterer.
 *
 * The first time decides which versions of the collections are used; a repetition signs new URLs for the same files.
 */
export async function prepareRun(ctx: NsCtx, job: ClusterJob): Promise<Prepared> {
  const nothing: Prepared = { rows: 0, request: null };
  const loaded = await load(ctx, job);
  if (!loaded.open) return nothing;
  let { run } = loaded;
  const isClustered = run.mode === 'full' && run.plan.cluster_type === 'vector';
  if (run.input === null) {
    let input: RunInput;
    if (isClustered) {
      const read = await readInput(ctx, run);
      input = read.input;
      if (input.rows > 0) await putInput(ctx, run.run_id, input, read.parts);
    } else input = await pinInput(ctx, run);
    crash('cluster.prepare.after_files');
    const time = isoTime(now(ctx));
    const changes = { status: 'processing', input, started_at: time, updated_at: time } as const;
    try {
      await ctx.ports.table.write([
        definitionExists(ctx, run.cluster_id),
        changeRun(ctx, run, changes),
        announce(ctx, 'cluster.execution.started', { type: 'cluster', id: run.cluster_id }, run.run_id, {
          run_id: run.run_id,
          num_points: input.rows,
        }),
      ]);
    } catch (error) {
      if (!(error instanceof ConditionFailed) || !(await hasEnded(ctx, job))) throw error;
      return nothing;
    }
    run = { ...run, ...changes };
  }
  if (run.input!.rows === 0 && run.mode === 'full') {
    await finishEmpty(ctx, job, run);
    return nothing;
  }
  if (!isClustered) return nothing;
  return { rows: run.input!.rows, request: await clustererEvent(ctx, run, run.input!) };
}

async function clustererEvent(ctx: NsCtx, run: StoredRun, input: RunInput): Promise<ClustererEvent> {
  const { blobs } = ctx.ports;
  const { plan } = run;
  const previous = await previousRun(ctx, run);
  return {
    vectors_url: await blobs.presignGet(runKeys.vectors(ctx, run.run_id), urlSeconds),
    rows: input.rows,
    dims: input.dims,
    texts_url: await blobs.presignGet(runKeys.texts(ctx, run.run_id), urlSeconds),
    result_url: await blobs.presignPut(runKeys.raw(ctx, run.run_id), urlSeconds, 'application/json'),
    metric: input.metric,
    algorithm: { name: plan.algorithm, params: plan.algorithm_params as JsonObject },
    preprocessing: plan.preprocessing_steps.map(({ step, params }) => ({
      step,
      params: params as JsonObject,
    })),
    reduction: { method: plan.cluster_space.method, n_components: plan.cluster_space.n_components },
    map: { method: plan.vis_method, n_components: plan.vis_n_components },
    labels: {
      samples_per_cluster: plan.llm_labeling.max_samples_per_cluster,
      sample_chars: plan.llm_labeling.sample_text_max_length,
      keywords: true,
    },
    seed,
    ...(previous
      ? { previous: { result_url: await blobs.presignGet(runKeys.raw(ctx, previous), urlSeconds) } }
      : {}),
  };
}

/** The newest full run that completed with a result, of which this one keeps cluster ids. */
async function previousRun(ctx: NsCtx, run: StoredRun): Promise<string | undefined> {
  const id = (await readState(ctx, run.cluster_id))?.base_run_id;
  if (!id || id === run.run_id) return undefined;
  const key = run.plan.cluster_type === 'vector' ? runKeys.raw(ctx, id) : runKeys.groups(ctx, id);
  return (await ctx.ports.blobs.head(key)) ? id : undefined;
}

async function documentCount(ctx: NsCtx, collectionIds: readonly string[]): Promise<number> {
  const heads = await readHeads(ctx, collectionIds);
  return heads.reduce((sum, head) => sum + head.document_count, 0);
}

/** A run over nothing is a success that says so. */
async function finishEmpty(ctx: NsCtx, job: ClusterJob, run: StoredRun): Promise<void> {
  const documents = await documentCount(ctx, run.plan.collection_ids);
  const message =
    documents === 0
      ? 'The collection holds no documents yet, so there are no clusters. Run it again after a batch.'
      : run.plan.filters !== null
        ? 'No document passes the filter of the definition, so there are no clusters.'
        : `None of the ${documents} documents has a vector of the feature${run.plan.feature_uris.length > 1 ? 's' : ''}, so there are no clusters.`;
  await finishRun(ctx, job, run, {
    message,
    num_clusters: 0,
    num_points: 0,
    metrics: null,
    sampling: null,
    assignment: null,
    label_source: run.plan.cluster_type === 'attribute' ? 'values' : 'ctfidf',
    llm_labeling_errors: [],
    degenerate_detail: { reason: documents === 0 ? 'no_documents' : 'no_vectors', rows: 0, usable_rows: 0 },
    has_result: false,
  });
}

type Outcome = Pick<
  StoredRun,
  | 'message'
  | 'num_clusters'
  | 'num_points'
  | 'metrics'
  | 'sampling'
  | 'assignment'
  | 'label_source'
  | 'llm_labeling_errors'
  | 'degenerate_detail'
  | 'has_result'
> &
  Partial<Pick<StoredRun, 'base_run_id'>>;

/** What the end of a run makes true of its definition beside the run itself. */
interface Ending {
  readonly state?: Partial<ClusterState>;
  /** What must still hold of the definition's state. */
  readonly if?: readonly Condition[];
}

/** Ids of the clusters to which users gave names, as far as the run has them. */
function keptOverrides(
  state: ClusterState | undefined,
  groups: readonly ResultGroup[],
): Record<string, string> {
  const ids = new Set(groups.map((group) => group.cluster_id));
  return Object.fromEntries(Object.entries(state?.label_overrides ?? {}).filter(([id]) => ids.has(id)));
}

const isNewest = (at: string | null | undefined, run: StoredRun) => !at || at <= run.created_at;

/** Ends a run as completed: row, newest result and event in one transaction, once. */
async function finishRun(
  ctx: NsCtx,
  job: ClusterJob,
  run: StoredRun,
  outcome: Outcome,
  groups: readonly ResultGroup[] = [],
  ending: Ending = {},
): Promise<void> {
  const time = isoTime(now(ctx));
  const state = await readState(ctx, run.cluster_id);
  const makesResult = run.mode === 'full' || run.mode === 'assign';
  const overrides = makesResult ? keptOverrides(state, groups) : {};
  const changes: Partial<ClusterState> = {
    // From now on the newest result says nothing of the base and of what was told, so the row must.
    ...(makesResult && state?.without_base
      ? {
          base_run_id: state.base_run_id,
          base_run_created_at: state.base_run_created_at,
          told_run_id: state.told_run_id,
          told_by_created_at: state.told_by_created_at,
        }
      : {}),
    ...(makesResult && isNewest(state?.completed_run_created_at, run)
      ? { completed_run_id: run.run_id, completed_run_created_at: run.created_at }
      : {}),
    // A name that was given to a cluster which is gone must not come up again with the next one of its number.
    ...(run.mode === 'full' && outcome.has_result && isNewest(state?.base_run_created_at, run)
      ? { base_run_id: run.run_id, base_run_created_at: run.created_at, label_overrides: overrides }
      : {}),
    ...ending.state,
  };
  // Between our look and this write a user may have given a name: then the step is tried again.
  const conditions: Condition[] = [
    ...(makesResult
      ? [
          state?.label_revision
            ? ({ attribute: 'label_revision', eq: state.label_revision } as const)
            : ({
                anyOf: [
                  { attribute: 'label_revision', missing: true },
                  { attribute: 'label_revision', eq: 0 },
                ],
              } as const),
        ]
      : []),
    ...(ending.if ?? []),
  ];
  try {
    await ctx.ports.table.write([
      definitionExists(ctx, run.cluster_id),
      changeRun(ctx, run, {
        ...outcome,
        label_overrides: overrides,
        status: 'completed',
        completed_at: time,
        updated_at: time,
      }),
      ...(Object.keys(changes).length > 0 ? [changeState(ctx, run.cluster_id, changes, conditions)] : []),
      announce(ctx, 'cluster.execution.completed', { type: 'cluster', id: run.cluster_id }, run.run_id, {
        run_id: run.run_id,
        num_clusters: outcome.num_clusters,
        num_points: outcome.num_points,
        label_source: outcome.label_source,
        message: outcome.message?.slice(0, 1000),
      }),
    ]);
  } catch (error) {
    // Our own first try, a cancelled run, a definition that is gone: the run has ended either way.
    if (!(error instanceof ConditionFailed) || !(await hasEnded(ctx, job))) throw error;
  }
}

/** Where the names of a run's clusters are; null: they keep the names from their words. */
export interface Labels {
  readonly key: string | null;
}

/**
 * Asks the configured model for names, if the plan wants that. The first answer that is stored counts, so a repetition
 * changes no name.
 *
 * @param model undefined: the stage configures none
 */
export async function labelRun(ctx: NsCtx, job: ClusterJob, model: LabelModel | undefined): Promise<Labels> {
  const { run, open } = await load(ctx, job);
  if (!open || !run.plan.llm_labeling.enabled) return { key: null };
  const key = runKeys.names(ctx, run.run_id);
  if (await ctx.ports.blobs.head(key)) return { key };
  const names = await askForNames(ctx, run, model);
  try {
    await ctx.ports.blobs.put(key, JSON.stringify(names), {
      contentType: 'application/json',
      ifAbsent: true,
    });
  } catch (error) {
    if (!(error instanceof BlobConflict)) throw error;
  }
  return { key };
}

async function askForNames(ctx: NsCtx, run: StoredRun, model: LabelModel | undefined): Promise<RunNames> {
  if (!model) {
    return {
      names: {},
      errors: [
        'No labelling model is configured in this deployment, so the names come from the words of the documents.',
      ],
    };
  }
  const labeling = run.plan.llm_labeling;
  const raw = await readRaw(ctx, run.run_id);
  const kept = new Map(
    [...(await namesBefore(ctx, run, raw))].filter(([, name]) => name.label_source === 'model'),
  );
  // A cluster that is what it was keeps its name, and is not asked about.
  const clusters = raw.clusters.filter((cluster) => !kept.has(cluster.cluster_id));
  if (clusters.length === 0) return { names: {}, errors: [] };
  const options = {
    summaries: labeling.include_summary,
    keywords: labeling.include_keywords,
    samplesMax: labeling.max_samples_per_cluster,
    sampleCharactersMax: labeling.sample_text_max_length,
    context: labeling.labeling_context ?? undefined,
  };
  const time = { untilMs: now(ctx) + namingMs, now: () => now(ctx), pause };
  const cache = await openLabelCache(knownNames(ctx, run.cluster_id), model.name, options, now(ctx));
  const { names, faults } = await nameClusters(model, clusters, options, time, cache);
  ctx.ports.log.info('clusters named', {
    model: model.name,
    run_id: run.run_id,
    asked: clusters.length,
    named: names.size,
    faults: faults.length,
  });
  const taken = new Set([...kept.values()].map((name) => labelKey(name.label)));
  const fresh = [...names].filter(([, { label }]) => !taken.has(labelKey(label)));
  return {
    names: Object.fromEntries(
      fresh.map(([id, { label, summary, keywords }]) => [
        id,
        { label, ...(summary ? { summary } : {}), ...(keywords ? { keywords } : {}) },
      ]),
    ),
    errors: [
      ...faults,
      ...[...names.keys()]
        .filter((id) => !fresh.some(([other]) => other === id))
        .map((id) => `${id}: the label is that of another cluster.`),
    ],
  };
}

async function namesBefore(ctx: NsCtx, run: StoredRun, raw: RawResult) {
  const before = await previousRun(ctx, run);
  return keptNames(ctx, run, raw, before ? await findRun(ctx, run.cluster_id, before) : undefined);
}

async function namesOf(
  ctx: NsCtx,
  run: StoredRun,
  labels: Labels | null,
  failed: boolean,
): Promise<RunNames> {
  if (labels?.key) return readNames(ctx, run.run_id);
  return {
    names: {},
    errors: failed ? ['The labelling step failed, so the names come from the words of the documents.'] : [],
  };
}

/** The groups with their names: the model's, else those of the run before, else their words. */
async function toGroups(
  ctx: NsCtx,
  run: StoredRun,
  raw: RawResult,
  names: RunNames['names'],
): Promise<ResultGroup[]> {
  const labeling = run.plan.llm_labeling;
  const reach = await measureReach(ctx, run, raw);
  const named = new Map(
    raw.clusters.flatMap(({ cluster_id }) =>
      Object.hasOwn(names, cluster_id) ? [[cluster_id, names[cluster_id]!] as const] : [],
    ),
  );
  const before = new Map([...(await namesBefore(ctx, run, raw))].filter(([id]) => !named.has(id)));
  const kept = withoutClashes(
    before,
    new Map(
      raw.clusters.map((cluster) => [
        cluster.cluster_id,
        named.get(cluster.cluster_id)?.label ?? cluster.label,
      ]),
    ),
  );
  return raw.clusters.map(({ samples: _, ...cluster }) => {
    const name = named.get(cluster.cluster_id);
    const old = kept.get(cluster.cluster_id);
    const words = {
      summary: labeling.include_summary ? cluster.summary : null,
      keywords: labeling.include_keywords ? cluster.keywords : [],
    };
    const said = name
      ? {
          label: name.label,
          label_source: 'model' as const,
          summary: name.summary ?? words.summary,
          keywords: name.keywords ?? words.keywords,
        }
      : old?.label_source === 'model'
        ? old
        : { label: old?.label ?? cluster.label, label_source: 'ctfidf' as const, ...words };
    const far = reach.get(cluster.cluster_id);
    return { ...cluster, ...said, ...(far === undefined ? {} : { reach: far }) };
  });
}

/** The rows of a result with their collections: the clusterer keeps the order of its input. */
function* toDocuments(raw: RawResult, input: RunInput): Generator<ResultDocument> {
  let first = 0;
  for (const range of input.ranges) {
    for (let i = first; i < first + range.rows; i++)
      yield { collection_id: range.collection_id, ...raw.members[i]!, ...raw.points[i]! };
    first += range.rows;
  }
}

function checkResult(raw: RawResult, input: RunInput): void {
  if (raw.members.length === input.rows && raw.points.length === input.rows) return;
  throw new Error(`the clusterer answered for ${raw.members.length} of ${input.rows} rows`);
}

/**
 * Makes the result of a run visible: files, then the documents, then the row that says completed.
 *
 * @param labels what the labelling step answered; null when it failed
 * @param labelFailed whether it failed
 */
export async function commitRun(
  ctx: NsCtx,
  job: ClusterJob,
  labels: Labels | null,
  labelFailed: boolean,
): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await commitOnce(ctx, job, labels, labelFailed);
    } catch (error) {
      // Another run ended, or a user gave a name, between our look and our write: both are looked at anew.
      if (!(error instanceof ConditionFailed) || attempt >= commitTries) throw error;
    }
  }
}

async function commitOnce(
  ctx: NsCtx,
  job: ClusterJob,
  labels: Labels | null,
  labelFailed: boolean,
): Promise<void> {
  const loaded = await load(ctx, job);
  if (!loaded.open) return;
  const { run } = loaded;
  const cluster = await clusterStore.find(ctx, run.cluster_id);
  if (!cluster) return;
  if (!run.input) throw new Error('a run without input comes to its commit');
  if (run.mode === 'assign') return commitAssigned(ctx, job, run, cluster);
  if (run.mode === 'enrich' || run.mode === 'remove') return commitTelling(ctx, job, run);
  if (run.input.rows === 0) throw new Error('a run without rows comes to its commit');
  if (run.plan.cluster_type === 'attribute') return commitValues(ctx, job, run);
  return commitClusters(ctx, job, run, run.input, labels, labelFailed);
}

/** What a full run says of the documents that it left out. */
function chosenNote({ input }: StoredRun, points: number): string[] {
  const all = input!.source_documents;
  return points < all ? [`${points} of ${all} documents were chosen for this run.`] : [];
}

async function commitClusters(
  ctx: NsCtx,
  job: ClusterJob,
  run: StoredRun,
  input: RunInput,
  labels: Labels | null,
  labelFailed: boolean,
): Promise<void> {
  const raw = await readRaw(ctx, run.run_id);
  checkResult(raw, input);
  const { names, errors } = await namesOf(ctx, run, labels, labelFailed);
  const groups = await toGroups(ctx, run, raw, names);
  const map = raw.pipeline.map as { readonly method?: string } | undefined;
  await writeDocuments(ctx, run.run_id, toDocuments(raw, input));
  await writeGroups(ctx, run.run_id, {
    groups,
    noise_members: raw.members.filter((member) => member.cluster_id === noise).length,
    method: map?.method ?? run.plan.vis_method,
    n_components: run.plan.vis_n_components,
  });
  crash('cluster.commit.after_files');
  const notes = [raw.message, ...chosenNote(run, input.rows)];
  const told = await tellResult(ctx, run, groups, notes);
  crash('cluster.commit.after_documents');
  await finishRun(
    ctx,
    job,
    run,
    {
      message: notes.join(' '),
      num_clusters: groups.length,
      num_points: input.rows,
      metrics: raw.metrics as StoredRun['metrics'],
      sampling: (raw.sampling ?? null) as StoredRun['sampling'],
      assignment: null,
      label_source: groups.some((group) => group.label_source === 'model') ? 'model' : 'ctfidf',
      llm_labeling_errors: errors,
      degenerate_detail: raw.degenerate_detail as StoredRun['degenerate_detail'],
      has_result: true,
    },
    groups,
    told,
  );
}

async function commitValues(ctx: NsCtx, job: ClusterJob, run: StoredRun): Promise<void> {
  const found = await runByValues(ctx, run, await previousRun(ctx, run));
  crash('cluster.commit.after_files');
  const notes = [found.message, ...chosenNote(run, found.num_points)];
  const told = await tellResult(ctx, run, found.groups.groups, notes);
  crash('cluster.commit.after_documents');
  await finishRun(
    ctx,
    job,
    run,
    {
      message: notes.join(' '),
      num_clusters: found.groups.groups.length,
      num_points: found.num_points,
      metrics: found.metrics as StoredRun['metrics'],
      sampling: null,
      assignment: null,
      label_source: 'values',
      llm_labeling_errors: [],
      degenerate_detail: null,
      has_result: true,
    },
    found.groups.groups,
    told,
  );
}

/** Tells the documents what a full run found, unless a newer run was faster. */
async function tellResult(
  ctx: NsCtx,
  run: StoredRun,
  groups: readonly ResultGroup[],
  notes: string[],
): Promise<Ending> {
  if (!run.plan.enrich_source) return {};
  const state = await readState(ctx, run.cluster_id);
  if (!isNewest(state?.told_by_created_at, run)) {
    notes.push('A newer run has told the documents their clusters already.');
    return {};
  }
  const telling: Telling = {
    run,
    of: run,
    ranges: run.input!.ranges,
    fields: run.plan.enrichment_fields,
    groups: withOverrides(groups, keptOverrides(state, groups)),
    before: await readTold(ctx, state, run.cluster_id),
  };
  await tellDocuments(ctx, telling, eachDocument(ctx, run.run_id));
  return { state: toldBy(run, run.run_id, null) };
}

const toldBy = (
  run: StoredRun,
  of: string | null,
  fields: readonly EnrichmentField[] | null,
): Partial<ClusterState> => ({
  told_run_id: of,
  told_by_created_at: run.created_at,
  told_fields: fields,
});

async function commitAssigned(
  ctx: NsCtx,
  job: ClusterJob,
  run: StoredRun,
  cluster: StoredCluster,
): Promise<void> {
  const state = await readState(ctx, run.cluster_id);
  if (!state) return;
  const found = await runAssign(ctx, run, cluster, state);
  const { groups } = found.groups;
  crash('cluster.commit.after_files');
  const notes = [found.message];
  let told: Ending = {};
  if (run.plan.enrich_source) {
    if (isNewest(state.told_by_created_at, run)) {
      const fresh = new Set(found.fresh.map((document) => document.document_id));
      const telling: Telling = {
        run,
        of: run,
        ranges: run.input!.ranges,
        fields: run.plan.enrichment_fields,
        groups: withOverrides(groups, keptOverrides(state, groups)),
        before: await readTold(ctx, state, run.cluster_id, found.continues ? fresh : undefined),
      };
      // Where documents carry the groups already, only the fresh ones are left to be told.
      await tellDocuments(ctx, telling, found.continues ? [found.fresh] : eachDocument(ctx, run.run_id));
      told = { state: toldBy(run, run.run_id, null) };
    } else notes.push('A newer run has told the documents their clusters already.');
  }
  crash('cluster.commit.after_documents');
  await finishRun(
    ctx,
    job,
    run,
    {
      message: notes.join(' '),
      base_run_id: found.base.run_id,
      num_clusters: groups.length,
      num_points: found.num_points,
      metrics: found.metrics as StoredRun['metrics'],
      sampling: null,
      assignment: { documents: found.fresh.length, assigned: found.assigned },
      label_source: found.base.label_source,
      llm_labeling_errors: [],
      degenerate_detail: null,
      has_result: true,
    },
    groups,
    // What was assigned holds of this base and of what was assigned before.
    {
      ...told,
      if: [
        {
          anyOf: [
            { attribute: 'base_run_id', eq: found.base.run_id },
            { attribute: 'base_run_id', missing: true },
          ],
        },
        { attribute: 'completed_run_id', eq: state.completed_run_id },
      ],
    },
  );
}

/** Tells the documents what the base run found, or takes away what they were told. */
async function commitTelling(ctx: NsCtx, job: ClusterJob, run: StoredRun): Promise<void> {
  const state = await readState(ctx, run.cluster_id);
  const base = run.base_run_id ? await findRun(ctx, run.cluster_id, run.base_run_id) : undefined;
  let message = 'A newer run has told the documents their clusters already.';
  let ending: Ending = {};
  let groups: ResultGroups | undefined;
  if (isNewest(state?.told_by_created_at, run)) {
    const common = {
      run,
      fields: run.plan.enrichment_fields,
      before: await readTold(ctx, state, run.cluster_id),
    };
    if (run.mode === 'remove') {
      const documents = [...common.before.clusters.values()].reduce((sum, told) => sum + told.size, 0);
      await takeAway(ctx, { ...common, of: run, ranges: [], groups: [] }, common.before.clusters);
      message = `What ${documents} documents were told was taken away, where they said it still.`;
      ending = { state: toldBy(run, null, null) };
    } else if (base?.has_result && base.input) {
      groups = await readGroups(ctx, base.run_id);
      const telling: Telling = {
        ...common,
        of: base,
        ranges: base.input.ranges,
        groups: withOverrides(groups.groups, base.label_overrides),
      };
      await tellDocuments(ctx, telling, eachDocument(ctx, base.run_id));
      message = `The documents say the clusters of the run ${base.run_id}.`;
      ending = { state: toldBy(run, base.run_id, run.plan.enrichment_fields) };
    }
  }
  crash('cluster.commit.after_documents');
  await finishRun(
    ctx,
    job,
    run,
    {
      message,
      num_clusters: groups?.groups.length ?? 0,
      num_points: base?.num_points ?? 0,
      metrics: null,
      sampling: null,
      assignment: null,
      label_source: null,
      llm_labeling_errors: [],
      degenerate_detail: null,
      has_result: false,
    },
    [],
    ending,
  );
}

/** Errors of the clusterer whose text is written for the user (functions/clusterer/_errors.py). */
const clustererErrors = new Set([
  'InvalidEvent',
  'UnknownAlgorithm',
  'InvalidParameter',
  'InputMismatch',
  'InputTooLarge',
  'TransferFailed',
  'ClusteringFailed',
]);

/** What Step Functions caught. */
export interface CaughtError {
  readonly Error?: string;
  /** JSON of the Lambda's error, or plain text. */
  readonly Cause?: string;
}

/** What may be shown of a caught error: texts that are written for users, else only that it was our fault. */
function shown(error: CaughtError | null | undefined): string {
  const name = error?.Error ?? '';
  let message = '';
  try {
    const cause = JSON.parse(error?.Cause ?? '') as { errorMessage?: unknown };
    if (typeof cause.errorMessage === 'string') message = cause.errorMessage.slice(0, 1000);
  } catch {
    // Not JSON: then it is text of the service, which is not for users.
  }
  if (
    message &&
    (clustererErrors.has(name) || (Object.hasOwn(errorTable, name) && name !== 'internal_error'))
  )
    return message;
  if (name === 'States.Timeout' || name === 'Sandbox.Timedout')
    return 'A step of the run took longer than it may. Cluster fewer documents: set sample_size or filters.';
  if (name === 'Runtime.OutOfMemory')
    return 'A step of the run had too little memory. Cluster fewer documents: set sample_size or filters.';
  return 'The run failed through a fault on our side; its log has the details.';
}

/** Ends a run as failed. A run that has ended stays as it is. */
export async function failRun(
  ctx: NsCtx,
  job: ClusterJob,
  error: CaughtError | null | undefined,
): Promise<void> {
  ctx.ports.log.error('cluster run failed', {
    run_id: job.run_id,
    error: error?.Error,
    cause: error?.Cause?.slice(0, 2000),
  });
  await endRun(ctx, job, { error_message: shown(error), failure_reason: null });
}

/**
 * Whether a run should be started: for the consumer of the jobs queue. One that is past its deadline is failed here.
 */
export async function admitRun(ctx: NsCtx, job: ClusterJob): Promise<boolean> {
  const loaded = await load(ctx, job);
  if (!loaded.open) return false;
  if (now(ctx) - Date.parse(loaded.run.created_at) < runDeadlineMs) return true;
  await endRun(ctx, job, {
    error_message: 'The run did not end within its time. Start another one.',
    failure_reason: null,
  });
  return false;
}

interface Application {
  readonly cluster_id?: unknown;
  readonly auto_execute_on_batch?: unknown;
  readonly min_document_threshold?: unknown;
  readonly cooldown_seconds?: unknown;
}

/** How a definition follows the batches of a collection: by its own settings, or as the collection says. */
function follows(
  cluster: StoredCluster,
  collections: readonly StoredCollection[],
): { minDocuments: number; cooldownSeconds: number } | undefined {
  const applications = collections
    .flatMap((collection) => collection.cluster_applications as readonly Application[])
    .filter(
      (application) => application.cluster_id === cluster.id && application.auto_execute_on_batch !== false,
    );
  const reads = collections.some((collection) => cluster.collection_ids.includes(collection.id));
  if (applications.length === 0 && !(reads && cluster.auto_execute_on_batch)) return undefined;
  const [first] = applications;
  return {
    minDocuments: Number(first?.min_document_threshold ?? cluster.auto_execute_min_documents ?? 0),
    cooldownSeconds: Number(first?.cooldown_seconds ?? cluster.auto_execute_cooldown_seconds),
  };
}

/**
 * The runs that follow a batch: of definitions that are set to follow the collections in which it made or changed
 * documents. A repetition gives the same runs.
 *
 * @returns jobs for the cluster workflow, which the batch's workflow starts
 */
export async function followRuns(
  ctx: NsCtx,
  batch: BatchRef,
): Promise<{ readonly runs: readonly ClusterJob[] }> {
  const touched = (
    await Promise.all((await collectionsOfBatch(ctx, batch)).map((id) => findCollection(ctx, id)))
  ).filter((collection) => collection !== undefined);
  if (touched.length === 0) return { runs: [] };
  const runs: ClusterJob[] = [];
  for (const cluster of (await clusterStore.list(ctx)).reverse()) {
    const how = follows(cluster, touched);
    if (!how) continue;
    if (how.minDocuments > 0 && (await documentCount(ctx, cluster.collection_ids)) < how.minDocuments)
      continue;
    const run = await followBatch(ctx, cluster, batch, how.cooldownSeconds);
    if (run && (run.status === 'pending' || run.status === 'processing')) runs.push(jobOf(ctx, run));
  }
  return { runs };
}
