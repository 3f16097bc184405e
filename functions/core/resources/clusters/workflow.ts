// The steps of a cluster run: prepare the input of the clusterer, name what it found, commit; and the runs that follow
// a batch. Every step may be repeated; a run that has ended, or whose definition is gone, changes nothing any more.
import { setTimeout as pause } from 'node:timers/promises';
import { isoTime } from '../../clock.ts';
import { parseCondition } from '../../conditions/index.ts';
import type { NsCtx } from '../../context.ts';
import { now } from '../../context.ts';
import { crash } from '../../crash.ts';
import { errorTable } from '../../errors.ts';
import { newId } from '../../ids.ts';
import type { LabelModel } from '../../labels/label-model.ts';
import { nameClusters } from '../../labels/name-clusters.ts';
import { BlobConflict, BlobMissing } from '../../store/blobs.ts';
import { announce } from '../../store/outbox.ts';
import { ConditionFailed } from '../../store/table.ts';
import { documentsUri, openIndex, readHeads, reading } from '../../store/vector-index.ts';
import { hashId } from '../../vectors/id-hash.ts';
import { vectorTable } from '../../vectors/list-rows.ts';
import { seqsPerVersion } from '../../vectors/segment-format.ts';
import type { Snapshot } from '../../vectors/snapshot.ts';
import type { StoredCollection } from '../collections/service.ts';
import { featureOf, findCollection } from '../collections/service.ts';
import type { BatchRef, DocumentEnrichment, Json, JsonObject } from '../documents/service.ts';
import { collectionsOfBatch, enrichDocuments } from '../documents/service.ts';
import type { RawResult, ResultDocument, ResultGroup, RunNames } from './results.ts';
import { noise, readNames, readRaw, writeResult } from './results.ts';
import type { StoredCluster } from './service.ts';
import { followBatch, runDeadlineMs } from './service.ts';
import type { ClusterJob, RunInput, RunRange, StoredRun } from './store.ts';
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

/** One run holds this many bytes of vectors: the step has them in memory once, and again while it sends them. */
const vectorBytesMax = 400_000_000;
const textCharactersMax = 2_000;
/** Longer than a run waits for its turn, shorter than its deadline. */
const urlSeconds = 2 * 3600;
/** Equal data gives equal results because of this number, so it never changes. */
const seed = 42;
/** Documents of one enrichment: each is one change of the index. */
const enrichRowsMax = 10_000;
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
  readonly map: { readonly method: 'umap' | 'pca'; readonly n_components: 2 | 3 };
  readonly labels: {
    readonly samples_per_cluster: number;
    readonly sample_chars: number;
    readonly keywords: boolean;
  };
  readonly seed: number;
  readonly previous?: { readonly result_url: string };
}

export interface Prepared {
  /** 0: there is nothing to cluster, and the run has ended with a sentence. */
  readonly rows: number;
  readonly request: ClustererEvent | null;
}

type Loaded =
  | { readonly run: StoredRun; readonly open: true }
  | { readonly run: StoredRun | undefined; readonly open: false };

async function load(ctx: NsCtx, job: Pick<ClusterJob, 'cluster_id' | 'run_id'>): Promise<Loaded> {
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

/** The chosen places of `count` in ascending order: those whose ids hash lowest, so that a sample is the same each time. */
function sample(ids: readonly string[], max: number): number[] {
  const all = ids.map((_, i) => i);
  if (ids.length <= max) return all;
  const hashes = ids.map((id) => {
    const bytes = new TextEncoder().encode(id);
    return hashId(bytes, 0, bytes.length)[0]!;
  });
  return all
    .sort((a, b) => hashes[a]! - hashes[b]! || (ids[a]! < ids[b]! ? -1 : 1))
    .slice(0, max)
    .sort((a, b) => a - b);
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
  const parsed = plan.filters === null ? undefined : parseCondition(JSON.parse(plan.filters));
  if (parsed && !parsed.ok) throw new Error('a stored filter does not parse any more');
  let dims = 0;
  let metric: RunInput['metric'] = 'cosine';
  const found: {
    collection: StoredCollection;
    version: number;
    ids: readonly string[];
    vectors: Float32Array;
    documents: Snapshot | undefined;
  }[] = [];
  for (const id of plan.collection_ids) {
    const collection = await findCollection(ctx, id);
    const feature = collection && featureOf(collection, plan.feature_uri);
    if (!collection || !feature) continue;
    dims = feature.dims;
    metric = feature.metric;
    const view = await openIndex(ctx, id);
    const vectors = await view.snapshot(feature.feature_uri);
    const documents = await view.snapshot(documentsUri);
    const table = vectors
      ? await reading(() => vectorTable(vectors, parsed?.condition))
      : { ids: [], vectors: new Float32Array(0) };
    found.push({ collection, version: view.head.version, ids: table.ids, vectors: table.vectors, documents });
  }
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
  for (const { collection, version, ids, vectors, documents } of found) {
    const fields =
      plan.llm_labeling.text_fields.length > 0
        ? plan.llm_labeling.text_fields.map(bareField)
        : textFields(collection);
    const rows = ids
      .map((id, from) => ({ id, from, text: '' }))
      .filter(({ from }) => chosen.has(first + from))
      .map((row) => ({ ...row, text: textOf(documents, row.id, fields) }))
      .sort(byText);
    first += ids.length;
    const kept = new Float32Array(rows.length * dims);
    for (const [to, { from }] of rows.entries())
      kept.set(vectors.subarray(from * dims, (from + 1) * dims), to * dims);
    parts.push({
      range: { collection_id: collection.id, version, rows: rows.length },
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
  if (run.input === null) {
    const { input, parts } = await readInput(ctx, run);
    if (input.rows > 0) await putInput(ctx, run.run_id, input, parts);
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
  if (run.input!.rows === 0) {
    await finishEmpty(ctx, job, run);
    return nothing;
  }
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

/** The newest completed run with a result, of which this one keeps cluster ids. */
async function previousRun(ctx: NsCtx, run: StoredRun): Promise<string | undefined> {
  const state = await readState(ctx, run.cluster_id);
  const id = state?.completed_run_id;
  if (!id || id === run.run_id) return undefined;
  return (await ctx.ports.blobs.head(runKeys.raw(ctx, id))) ? id : undefined;
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
        : `None of the ${documents} documents has a vector of the feature, so there are no clusters.`;
  await finishRun(ctx, job, run, {
    message,
    num_clusters: 0,
    num_points: 0,
    metrics: null,
    label_source: 'ctfidf',
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
  | 'label_source'
  | 'llm_labeling_errors'
  | 'degenerate_detail'
  | 'has_result'
>;

/** Ends a run as completed: row, newest result and event in one transaction, once. */
async function finishRun(ctx: NsCtx, job: ClusterJob, run: StoredRun, outcome: Outcome): Promise<void> {
  const time = isoTime(now(ctx));
  const state = await readState(ctx, run.cluster_id);
  const newest = !state?.completed_run_created_at || state.completed_run_created_at <= run.created_at;
  try {
    await ctx.ports.table.write([
      definitionExists(ctx, run.cluster_id),
      changeRun(ctx, run, { ...outcome, status: 'completed', completed_at: time, updated_at: time }),
      ...(newest
        ? [
            changeState(ctx, run.cluster_id, {
              completed_run_id: run.run_id,
              completed_run_created_at: run.created_at,
            }),
          ]
        : []),
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
  const { clusters } = await readRaw(ctx, run.run_id);
  if (clusters.length === 0) return { names: {}, errors: [] };
  const { names, faults } = await nameClusters(
    model,
    clusters,
    {
      summaries: labeling.include_summary,
      keywords: labeling.include_keywords,
      samplesMax: labeling.max_samples_per_cluster,
      sampleCharactersMax: labeling.sample_text_max_length,
      context: labeling.labeling_context ?? undefined,
    },
    { untilMs: now(ctx) + namingMs, now: () => now(ctx), pause },
  );
  ctx.ports.log.info('clusters named', {
    model: model.name,
    run_id: run.run_id,
    asked: clusters.length,
    named: names.size,
    faults: faults.length,
  });
  return {
    names: Object.fromEntries(
      [...names].map(([id, { label, summary, keywords }]) => [
        id,
        { label, ...(summary ? { summary } : {}), ...(keywords ? { keywords } : {}) },
      ]),
    ),
    errors: faults,
  };
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

function toGroups(
  raw: RawResult,
  names: RunNames['names'],
  labeling: StoredRun['plan']['llm_labeling'],
): ResultGroup[] {
  return raw.clusters.map(({ samples: _, ...cluster }) => {
    const name = Object.hasOwn(names, cluster.cluster_id) ? names[cluster.cluster_id] : undefined;
    return {
      ...cluster,
      label: name?.label ?? cluster.label,
      label_source: name ? ('model' as const) : ('ctfidf' as const),
      summary: name?.summary ?? (labeling.include_summary ? cluster.summary : null),
      keywords: name?.keywords ?? (labeling.include_keywords ? cluster.keywords : []),
    };
  });
}

/** The rows of a result with their collections: the clusterer keeps the order of its input. */
function toDocuments(raw: RawResult, input: RunInput): ResultDocument[] {
  const documents: ResultDocument[] = [];
  let first = 0;
  for (const range of input.ranges) {
    for (let i = first; i < first + range.rows; i++) {
      documents.push({ collection_id: range.collection_id, ...raw.members[i]!, ...raw.points[i]! });
    }
    first += range.rows;
  }
  return documents;
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
  const loaded = await load(ctx, job);
  if (!loaded.open) return;
  const { run } = loaded;
  if (!(await clusterStore.find(ctx, run.cluster_id))) return;
  if (!run.input || run.input.rows === 0) throw new Error('a run without input comes to its commit');
  const raw = await readRaw(ctx, run.run_id);
  checkResult(raw, run.input);
  const { names, errors } = await namesOf(ctx, run, labels, labelFailed);
  const groups = toGroups(raw, names, run.plan.llm_labeling);
  const documents = toDocuments(raw, run.input);
  const map = raw.pipeline.map as { readonly method?: string } | undefined;
  await writeResult(
    ctx,
    run.run_id,
    {
      groups,
      noise_members: documents.filter((document) => document.cluster_id === noise).length,
      method: map?.method ?? run.plan.vis_method,
      n_components: run.plan.vis_n_components,
    },
    documents,
  );
  crash('cluster.commit.after_files');
  const notes = [raw.message];
  if (run.input.rows < run.input.source_documents) {
    notes.push(`${run.input.rows} of ${run.input.source_documents} documents were chosen for this run.`);
  }
  if (run.plan.enrich_source) {
    const overtaken = await tellDocuments(ctx, run, groups, documents);
    if (overtaken) notes.push('A newer run has told the documents their clusters already.');
  }
  crash('cluster.commit.after_documents');
  await finishRun(ctx, job, run, {
    message: notes.join(' '),
    num_clusters: groups.length,
    num_points: documents.length,
    metrics: raw.metrics as StoredRun['metrics'],
    label_source: groups.some((group) => group.label_source === 'model') ? 'model' : 'ctfidf',
    llm_labeling_errors: errors,
    degenerate_detail: raw.degenerate_detail as StoredRun['degenerate_detail'],
    has_result: true,
  });
}

/** What a run before said about documents: by document id its cluster's id and label. */
async function toldBefore(
  ctx: NsCtx,
  run: StoredRun,
): Promise<Map<string, { readonly cluster_id: string; readonly collection_id: string }>> {
  const told = new Map<string, { cluster_id: string; collection_id: string }>();
  const state = await readState(ctx, run.cluster_id);
  const id = state?.completed_run_id;
  const before = id && id !== run.run_id ? await findRun(ctx, run.cluster_id, id) : undefined;
  if (!before?.has_result || !before.input) return told;
  let raw: RawResult;
  try {
    raw = await readRaw(ctx, before.run_id);
  } catch (error) {
    if (error instanceof BlobMissing) return told;
    throw error;
  }
  for (const { document_id, collection_id, cluster_id } of toDocuments(raw, before.input)) {
    if (cluster_id !== noise) told.set(document_id, { cluster_id, collection_id });
  }
  return told;
}

/**
 * Writes `cluster_id` and `cluster_label` into the documents of a run, and takes them away where the run before had
 * put them and this one does not. A document whose vector is newer than the run's input is left alone: what is known
 * about it is out of date.
 *
 * @returns whether a newer run was faster, so that nothing was written
 */
async function tellDocuments(
  ctx: NsCtx,
  run: StoredRun,
  groups: readonly ResultGroup[],
  documents: readonly ResultDocument[],
): Promise<boolean> {
  const state = await readState(ctx, run.cluster_id);
  if (state?.completed_run_created_at && state.completed_run_created_at > run.created_at) return true;
  const labels = new Map(groups.map((group) => [group.cluster_id, group.label]));
  const before = await toldBefore(ctx, run);
  const inRun = new Set(documents.map((document) => document.document_id));
  for (const range of run.input!.ranges) {
    const view = await openIndex(ctx, range.collection_id);
    const vectors = await view.snapshot(run.plan.feature_uri);
    const seen = await view.snapshot(documentsUri);
    if (!vectors || !seen) continue;
    const changes: DocumentEnrichment[] = [];
    for (const document of documents) {
      if (
        document.collection_id !== range.collection_id ||
        isNewer(vectors, document.document_id, range.version)
      )
        continue;
      const change = changeOf(
        run,
        document,
        labels.get(document.cluster_id),
        seen,
        before.get(document.document_id)?.cluster_id,
      );
      if (change) changes.push(change);
    }
    for (const [id, told] of before) {
      if (inRun.has(id) || told.collection_id !== range.collection_id) continue;
      const change = removal(run, id, seen, told.cluster_id);
      if (change) changes.push(change);
    }
    for (let i = 0; i < changes.length; i += enrichRowsMax) {
      // A repetition has other documents left to tell, so it must not go for the same change of the index.
      const token = `cluster-${run.run_id}-${newId('event', ctx.ports.clock, ctx.ports.random)}`;
      await enrichDocuments(ctx, range.collection_id, changes.slice(i, i + enrichRowsMax), { token });
    }
  }
  return false;
}

/** Whether the vector of a document is gone, or newer than a version of the index. */
function isNewer(vectors: Snapshot, documentId: string, version: number): boolean {
  const row = vectors.rowOf(documentId);
  if (row === undefined) return true;
  const part = vectors.partOf(row);
  return part.baseSeq + part.segment.seq(row - part.firstRow) >= (version + 1) * seqsPerVersion;
}

function provenance(run: StoredRun, id: Json, label: Json, probability: number | null) {
  const source = { cluster_id: run.cluster_id, run_id: run.run_id, score: probability };
  return [
    { ...source, field: 'cluster_id', value: id },
    { ...source, field: 'cluster_label', value: label },
  ];
}

function changeOf(
  run: StoredRun,
  document: ResultDocument,
  label: string | undefined,
  seen: Snapshot,
  toldBefore: string | undefined,
): DocumentEnrichment | undefined {
  const row = seen.rowOf(document.document_id);
  if (row === undefined) return undefined;
  if (label === undefined)
    return toldBefore === undefined ? undefined : removal(run, document.document_id, seen, toldBefore);
  const { cluster_id } = document;
  // What it says already need not be written again: a run that finds nothing new changes no document.
  if (seen.valueAt(row, 'cluster_id') === cluster_id && seen.valueAt(row, 'cluster_label') === label)
    return undefined;
  return {
    document_id: document.document_id,
    set: { cluster_id, cluster_label: label },
    provenance: provenance(run, cluster_id, label, document.probability),
  };
}

/** Takes away what the run before said, unless somebody else says something different by now. */
function removal(
  run: StoredRun,
  documentId: string,
  seen: Snapshot,
  told: string,
): DocumentEnrichment | undefined {
  const row = seen.rowOf(documentId);
  if (row === undefined || seen.valueAt(row, 'cluster_id') !== told) return undefined;
  return {
    document_id: documentId,
    set: {},
    remove: ['cluster_id', 'cluster_label'],
    provenance: provenance(run, null, null, null),
  };
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
  await endAsFailed(ctx, job, shown(error));
}

async function endAsFailed(ctx: NsCtx, job: ClusterJob, message: string): Promise<void> {
  const loaded = await load(ctx, job);
  if (!loaded.open) return;
  const time = isoTime(now(ctx));
  try {
    await ctx.ports.table.write([
      changeRun(ctx, loaded.run, {
        status: 'failed',
        error_message: message,
        completed_at: time,
        updated_at: time,
      }),
      announce(ctx, 'cluster.execution.failed', { type: 'cluster', id: job.cluster_id }, job.run_id, {
        run_id: job.run_id,
        error: message,
      }),
    ]);
  } catch (failure) {
    if (!(failure instanceof ConditionFailed) || (await load(ctx, job)).open) throw failure;
  }
}

/**
 * Whether a run should be started: for the consumer of the jobs queue. One that is past its deadline is failed here.
 */
export async function admitRun(ctx: NsCtx, job: ClusterJob): Promise<boolean> {
  const loaded = await load(ctx, job);
  if (!loaded.open) return false;
  if (now(ctx) - Date.parse(loaded.run.created_at) < runDeadlineMs) return true;
  await endAsFailed(ctx, job, 'The run did not end within its time. Start another one.');
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
