// One chunk of a batch: rows through the plugins, documents and segments out, a receipt for the first who is done.

import { vectorIndexOf } from '../../backends/of-namespace.ts';
import { isoTime } from '../../clock.ts';
import type { NsCtx } from '../../context.ts';
import { crash } from '../../crash.ts';
import { derivedId, randomCharacters } from '../../ids.ts';
import { BlobMissing, getJson } from '../../store/blobs.ts';
import { ConditionFailed } from '../../store/table.ts';
import type { IndexHead } from '../../store/vector-index.ts';
import { documentsUri, putSegment, readHead, segmentKey } from '../../store/vector-index.ts';
import type { ColumnValue } from '../../vectors/columns.ts';
import { flattenColumns } from '../../vectors/columns.ts';
import type { SegmentRow } from '../../vectors/encode-segment.ts';
import type { StoredCollection } from '../collections/service.ts';
import { getCollection } from '../collections/service.ts';
import type {
  ChunkCounts,
  ChunkLog,
  ChunkOutcome,
  ChunkResult,
  ChunkSegment,
  DocumentBody,
  Json,
  Receipt,
  ResultDocument,
} from '../documents/service.ts';
import {
  createdColumn,
  documentBytesMax,
  readOutcome,
  toReceipt,
  toRow,
  visibleSlot,
  writeRows,
} from '../documents/service.ts';
import { blobText, isBinary } from '../objects/service.ts';
import { getPlugin } from '../plugins/service.ts';
import type { RowOutput, RowResult } from './extract.ts';
import { fault, objectFields, rowsOf, runExtractor } from './extract.ts';
import type { ChunkFile, ChunkPointer, LogFile, PlannedObject, RowFailure } from './files.ts';
import { batchKeys } from './files.ts';
import { pluginLogWrite } from './log-rows.ts';
import { contentHashOf } from './plan.ts';
import type { StoredBatch } from './store.ts';
import { findBatch } from './store.ts';
import { targetOf } from './upgrade.ts';

/** What a chunk answers: a few bytes, since the state machine keeps them. */
export interface ChunkAnswer {
  readonly chunk: number;
  readonly done: boolean;
}

/** Outcomes up to this stand in the receipt itself. */
const inlineOutcomeBytesMax = 60_000;
/** Texts above this stay in the blob store; the document has a pointer and the first kilobyte (decisions, section 3). */
const longTextBytesMax = 64_000;
const longTextShownBytes = 1_024;
const chunkMs = 280_000;
/** Longer than the files that a receipt names are kept. */
const receiptKeepSeconds = 40 * 86_400;

/**
 * Runs a chunk, or finishes what a worker before began: whoever takes the receipt first counts, and only the documents
 * of that worker are written. Safe to be called twice, at the same time or later.
 *
 * @param options.untilMs on the context's clock: when the function ends
 */
export async function runChunk(
  ctx: NsCtx,
  pointer: ChunkPointer,
  options: { readonly untilMs?: number } = {},
): Promise<ChunkAnswer> {
  const untilMs = options.untilMs ?? ctx.ports.clock.now() + chunkMs;
  const batch = await findBatch(ctx, pointer.bucket_id, pointer.batch_id);
  if (
    batch?.status !== 'PROCESSING' ||
    batch.attempt !== pointer.attempt ||
    batch.committed_attempt === pointer.attempt
  ) {
    return { chunk: pointer.chunk, done: false };
  }
  const key = ctx.ns.receipt(pointer.batch_id, pointer.attempt, pointer.chunk);
  const there = await ctx.ports.table.get(key);
  const file = await getJson<ChunkFile>(ctx.ports.blobs, pointer.key);
  const receipt = there ? toReceipt(there) : await produce(ctx, batch, file, untilMs);
  await finishChunk(ctx, pointer, receipt, file);
  return { chunk: pointer.chunk, done: true };
}

/** Writes the rows of a receipt that are not written yet. Called by the commit too, when a worker died in between. */
export async function finishChunk(
  ctx: NsCtx,
  pointer: ChunkPointer,
  receipt: Receipt,
  file?: ChunkFile,
): Promise<void> {
  if (receipt.rows_written) return;
  const { blobs, table } = ctx.ports;
  const { sequence, first } = file ?? (await getJson<ChunkFile>(blobs, pointer.key));
  const result = await getJson<ChunkResult>(blobs, receipt.result_key);
  const head = await readHead(ctx, result.collection_id);
  const delta = await writeRows(ctx, result, sequence, head, first);
  crash('batch.chunk.after_rows');
  await table.write([
    {
      update: ctx.ns.receipt(pointer.batch_id, pointer.attempt, pointer.chunk),
      set: { rows_written: true, document_delta: delta },
      if: [{ attribute: 'result_key', eq: receipt.result_key }],
    },
  ]);
}

/** Does the work and takes the receipt. @returns the receipt that counts: ours, or that of whoever was faster */
async function produce(ctx: NsCtx, batch: StoredBatch, file: ChunkFile, untilMs: number): Promise<Receipt> {
  const run = randomCharacters(8, ctx.ports.random);
  const collection = targetOf(batch, await getCollection(ctx, file.collection_id));
  const made =
    (file.carry && (await carryOver(ctx, collection, file, run))) ??
    (await extract(ctx, collection, file, run, untilMs));
  const { batch_id, attempt, chunk, collection_id } = file;
  const keyOf = (name: string) => batchKeys.result(ctx, batch_id, attempt, chunk, run, name);
  const { blobs, table } = ctx.ports;
  const outcome = JSON.stringify(made.outcome);
  const isInline = Buffer.byteLength(outcome) <= inlineOutcomeBytesMax;
  await Promise.all([
    blobs.put(keyOf('documents'), JSON.stringify(made.result), {
      contentType: 'application/json',
      ifAbsent: true,
    }),
    ...(isInline
      ? []
      : [blobs.put(keyOf('outcome'), outcome, { contentType: 'application/json', ifAbsent: true })]),
    ...(made.failures.length === 0
      ? []
      : [
          blobs.put(keyOf('failures'), JSON.stringify(made.failures), {
            contentType: 'application/json',
            ifAbsent: true,
          }),
        ]),
    ...made.logs.map(({ place, file: log }) =>
      blobs.put(keyOf(`log-${place}`), JSON.stringify(log), {
        contentType: 'application/json',
        ifAbsent: true,
      }),
    ),
  ]);
  crash('batch.chunk.after_results');
  const logs = made.logs.map(
    ({ place, plugin_id, rows, failed }): ChunkLog => ({
      feature_extractor_id: plugin_id,
      key: keyOf(`log-${place}`),
      rows,
      failed,
    }),
  );
  const errors: Record<string, number> = {};
  for (const failure of made.failures) errors[failure.code] = (errors[failure.code] ?? 0) + 1;
  const receipt: Receipt = {
    chunk,
    collection_id,
    counts: made.counts,
    errors,
    result_key: keyOf('documents'),
    ...(made.failures.length > 0 ? { failures_key: keyOf('failures') } : {}),
    ...(logs.length > 0 ? { logs } : {}),
    ...(isInline ? { outcome } : { outcome_key: keyOf('outcome') }),
    document_delta: 0,
    rows_written: false,
    at: isoTime(ctx.ports.clock.now()),
  };
  try {
    const expiresAt = Math.floor(ctx.ports.clock.now() / 1000) + receiptKeepSeconds;
    await table.write([
      {
        put: {
          ...ctx.ns.receipt(batch_id, attempt, chunk),
          ...receipt,
          counts: { ...made.counts },
          expires_at: expiresAt,
        },
        if: [{ absent: true }],
      },
      // In the same transaction, so that a log is listed once, by whoever's results count.
      ...logs.map((log) => pluginLogWrite(ctx, file, receipt, log)),
    ]);
  } catch (error) {
    if (!(error instanceof ConditionFailed)) throw error;
    // Ours, if only the answer was lost; else somebody was faster, and what we wrote is swept.
    return toReceipt(error.of(0)!.item!);
  }
  crash('batch.chunk.after_receipt');
  return receipt;
}

interface Made {
  readonly result: ChunkResult;
  readonly outcome: ChunkOutcome;
  readonly counts: ChunkCounts;
  readonly failures: readonly RowFailure[];
  readonly logs: readonly MadeLog[];
}

/** What one extractor said. */
interface MadeLog {
  /** Of the extractor in its collection. */
  readonly place: number;
  readonly plugin_id: string;
  readonly rows: number;
  readonly failed: number;
  readonly file: LogFile;
}

/**
 * Takes over the results of an attempt before.
 *
 * @returns undefined when they are not there any more, or the collection has been upgraded since: then it runs again
 */
async function carryOver(
  ctx: NsCtx,
  collection: StoredCollection,
  file: ChunkFile,
  run: string,
): Promise<Made | undefined> {
  const { carry, collection_id } = file;
  if (!carry) return undefined;
  const { blobs, index, table } = ctx.ports;
  const item = await table.get(ctx.ns.receipt(file.batch_id, carry.attempt, carry.chunk));
  if (!item) return undefined;
  const receipt = toReceipt(item);
  try {
    const result = await getJson<ChunkResult>(blobs, receipt.result_key);
    if (result.content_hash !== contentHashOf(collection)) return undefined;
    const outcome = await readOutcome(ctx, receipt);
    const segments: ChunkSegment[] = [];
    for (const one of outcome.segments) {
      // Fresh keys: segments that no commit names are swept by their age, and these may be days old.
      const key = segmentKey(ctx, collection_id);
      const kept = await blobs
        .get(batchKeys.kept(ctx, file.batch_id, carry.attempt, one.segment.key))
        .catch((error: unknown) => {
          if (error instanceof BlobMissing) return index.get(one.segment.key);
          throw error;
        });
      await index.put(key, kept, { contentType: 'application/octet-stream', ifAbsent: true });
      segments.push({ ...one, segment: { ...one.segment, key } });
    }
    const { processed, skipped, documents } = receipt.counts;
    ctx.ports.log.info('results of an earlier attempt are used', {
      batch_id: file.batch_id,
      chunk: file.chunk,
      run,
    });
    return {
      result,
      outcome: { ...outcome, segments },
      counts: { objects: file.objects.length, processed, skipped, failed: 0, documents },
      failures: [],
      logs: [],
    };
  } catch (error) {
    if (error instanceof BlobMissing) return undefined;
    throw error;
  }
}

/** A document before it has its place among the others. */
interface Draft {
  readonly id: string;
  readonly object: PlannedObject;
  readonly body: DocumentBody;
  readonly text: string;
  readonly columns: Map<string, ColumnValue>;
  readonly vectors: ReadonlyMap<string, Float32Array>;
}

async function extract(
  ctx: NsCtx,
  collection: StoredCollection,
  file: ChunkFile,
  run: string,
  untilMs: number,
): Promise<Made> {
  const { objects } = file;
  const failures: RowFailure[] = [];
  const logs: MadeLog[] = [];
  /** By object, by extractor: what each of its rows gave. */
  const results = objects.map((): RowResult[][] => []);
  for (const [x, extractor] of collection.feature_extractors.entries()) {
    const plugin = await getPlugin(ctx, extractor.plugin_id);
    const rows = objects.flatMap((object, i) => rowsOf(object, extractor).map((row) => ({ i, row })));
    const key = batchKeys.result(ctx, file.batch_id, file.attempt, file.chunk, run, `runner-${x}`);
    const given = rows.map(({ row }) => row);
    const found: Awaited<ReturnType<typeof runExtractor>> =
      given.length === 0
        ? { results: [] }
        : await runExtractor(ctx, plugin, extractor, collection.id, given, untilMs, key);
    if (found.log) {
      logs.push({
        place: x,
        plugin_id: plugin.id,
        rows: given.length,
        failed: found.results.filter((result) => 'fault' in result).length,
        file: { ...found.log, object_ids: [...new Set(given.map(({ object }) => object.object_id))] },
      });
    }
    for (const list of results) list.push([]);
    for (const [r, result] of found.results.entries()) {
      const { i, row } = rows[r]!;
      results[i]![x]!.push(result);
      if (!('fault' in result)) continue;
      const { code, message, retryable, traceback } = result.fault;
      failures.push({
        object_id: row.object.object_id,
        collection_id: collection.id,
        chunk: file.chunk,
        feature_extractor_id: plugin.id,
        property: row.blob.property,
        code,
        message,
        retryable,
        traceback,
      });
    }
  }
  crash('batch.chunk.after_run');
  const failed = new Set(failures.map((failure) => failure.object_id));
  const drafts: Draft[] = [];
  const outputs = new Map<string, number>();
  let skipped = 0;
  for (const [i, object] of objects.entries()) {
    if (failed.has(object.object_id)) continue;
    if (results[i]!.every((rows) => rows.length === 0)) {
      skipped++;
      // What it made of an earlier version, when it had an input, ends.
      outputs.set(object.object_id, 0);
      continue;
    }
    const made = await draftsOf(ctx, file, collection, object, results[i]!);
    if (Array.isArray(made)) {
      drafts.push(...made);
      outputs.set(object.object_id, made.length);
    } else {
      failed.add(object.object_id);
      failures.push(made);
    }
  }
  const { documents, segments } = await placeDrafts(ctx, file, collection, drafts, outputs);
  crash('batch.chunk.after_segments');
  return {
    result: { collection_id: collection.id, content_hash: contentHashOf(collection), documents },
    outcome: { segments, document_ids: drafts.map((draft) => draft.id) },
    counts: {
      objects: objects.length,
      processed: objects.length - failed.size - skipped,
      failed: failed.size,
      skipped,
      documents: drafts.length,
    },
    failures,
    logs,
  };
}

/** The documents of one object: one for each output, or one that joins the outputs of several extractors. */
async function draftsOf(
  ctx: NsCtx,
  file: ChunkFile,
  collection: StoredCollection,
  object: PlannedObject,
  byExtractor: readonly (readonly RowResult[])[],
): Promise<Draft[] | RowFailure> {
  const refuse = (x: number, code: string, message: string): RowFailure => ({
    object_id: object.object_id,
    collection_id: collection.id,
    chunk: file.chunk,
    feature_extractor_id: collection.feature_extractors[x]?.plugin_id ?? null,
    property: null,
    ...fault(code, message),
  });
  const outputs = byExtractor.map((rows) => rows.flatMap((row) => ('outputs' in row ? row.outputs : [])));
  let joined: {
    readonly columns: RowOutput['columns'];
    readonly vectors: Map<string, Float32Array>;
    readonly extractors: number[];
  }[];
  const withUris = (x: number, output: RowOutput) => {
    const uris = new Map<string, Float32Array>();
    for (const feature of collection.feature_extractors[x]!.features) {
      const vector = output.vectors.get(feature.feature_name);
      if (vector) uris.set(feature.feature_uri, vector);
    }
    return uris;
  };
  if (outputs.length === 1) {
    joined = outputs[0]!.map((output) => ({
      columns: output.columns,
      vectors: withUris(0, output),
      extractors: [0],
    }));
  } else {
    const columns: Record<string, Json> = {};
    const vectors = new Map<string, Float32Array>();
    const extractors: number[] = [];
    for (const [x, list] of outputs.entries()) {
      if (byExtractor[x]!.length === 0) continue;
      if (list.length !== 1) {
        return refuse(
          x,
          'outputs_not_one',
          `the extractor made ${list.length} outputs; several extractors of one collection must make one each`,
        );
      }
      Object.assign(columns, list[0]!.columns);
      for (const [uri, vector] of withUris(x, list[0]!)) vectors.set(uri, vector);
      extractors.push(x);
    }
    joined = [{ columns, vectors, extractors }];
  }
  const base = objectFields(object);
  const drafts: Draft[] = [];
  for (const [ordinal, { columns, vectors, extractors }] of joined.entries()) {
    const id = derivedId('document', collection.id, object.object_id, ordinal);
    const fields: Record<string, Json> = { ...base, ...columns };
    const longTexts = await shortenTexts(ctx, file, id, object, fields);
    const time = isoTime(ctx.ports.clock.now());
    const pluginIds = extractors.map((x) => collection.feature_extractors[x]!.plugin_id);
    const body: DocumentBody = {
      fields,
      lineage: {
        bucket_id: object.bucket_id ?? file.bucket_id,
        object_id: object.object_id,
        object_version: object.version,
        batch_id: file.batch_id,
        feature_extractor_id: pluginIds[0]!,
        feature_extractor_ids: pluginIds,
        ordinal,
      },
      enrichments: [],
      blobs: object.blobs
        .filter((blob) => blob.s3_key !== undefined && isBinary(blob.type))
        .map((blob) => ({
          field: blob.property,
          role: 'source' as const,
          type: blob.type,
          blob_id: blob.blob_id,
          s3_key: blob.s3_key!,
          mime_type: blob.mime_type,
          size_bytes: blob.size_bytes,
        })),
      ...(longTexts ? { long_texts: longTexts } : {}),
      features: [...vectors.keys()],
      created_at: time,
      updated_at: time,
    };
    const text = JSON.stringify(body);
    if (Buffer.byteLength(text) > documentBytesMax) {
      return refuse(
        0,
        'document_too_large',
        `output ${ordinal} makes a document of ${Buffer.byteLength(text)} bytes; at most ${documentBytesMax} are possible`,
      );
    }
    const flat = flattenColumns(fields);
    flat.set(createdColumn, time);
    // Every document shows these two, so a filter may name them.
    flat.set('document_id', id);
    flat.set('collection_id', collection.id);
    drafts.push({ id, object, body, text, columns: flat, vectors });
  }
  return drafts;
}

/** The first kilobyte of a text, cut between characters. */
function beginningOf(text: string): string {
  return Buffer.from(text)
    .subarray(0, longTextShownBytes)
    .toString('utf8')
    .replace(/\uFFFD+$/, '');
}

/** Replaces long texts by their beginnings, and says where the whole is. */
async function shortenTexts(
  ctx: NsCtx,
  file: ChunkFile,
  documentId: string,
  object: PlannedObject,
  fields: Record<string, Json>,
): Promise<DocumentBody['long_texts']> {
  const found: Record<string, { s3_key: string; size_bytes: number }> = {};
  for (const blob of object.blobs) {
    if (blob.s3_key === undefined || isBinary(blob.type) || Object.hasOwn(fields, blob.property)) continue;
    const text = await blobText(ctx, blob);
    fields[blob.property] = blob.size_bytes > longTextBytesMax ? beginningOf(text) : text;
    if (blob.size_bytes > longTextBytesMax)
      found[blob.property] = { s3_key: blob.s3_key, size_bytes: blob.size_bytes };
  }
  for (const [name, value] of Object.entries(fields)) {
    if (typeof value !== 'string' || value.length <= longTextBytesMax / 4) continue;
    const bytes = Buffer.byteLength(value);
    if (bytes <= longTextBytesMax) continue;
    const place = Buffer.from(name).toString('hex').slice(0, 80);
    const key = `documents/${ctx.ns.namespaceId}/${file.collection_id}/${documentId}/${file.sequence}-${place}.txt`;
    await ctx.ports.blobs.put(key, value, { contentType: 'text/plain; charset=utf-8' });
    fields[name] = beginningOf(value);
    found[name] = { s3_key: key, size_bytes: bytes };
  }
  return Object.keys(found).length > 0 ? found : undefined;
}

/** Finds the documents that objects made before and do not make any more: their ordinals follow the last new one. */
async function endedBy(
  ctx: NsCtx,
  collection: StoredCollection,
  head: IndexHead,
  objects: readonly PlannedObject[],
  outputs: ReadonlyMap<string, number>,
): Promise<ResultDocument[]> {
  const ended: ResultDocument[] = [];
  let asked = objects
    .filter((object) => outputs.has(object.object_id))
    .map((object) => ({ object, ordinal: outputs.get(object.object_id)! }));
  while (asked.length > 0) {
    const ids = asked.map(({ object, ordinal }) =>
      derivedId('document', collection.id, object.object_id, ordinal),
    );
    const items = await ctx.ports.table.getMany(ids.map((id) => ctx.ns.document(collection.id, id)));
    const further: typeof asked = [];
    for (const [i, { object, ordinal }] of asked.entries()) {
      const item = items[i];
      // A row stays when its document ends, so the first ordinal without a row is the last one that ever was.
      if (!item) continue;
      further.push({ object, ordinal: ordinal + 1 });
      if (!visibleSlot(toRow(item), head)) continue;
      ended.push({
        document_id: ids[i]!,
        object_id: object.object_id,
        object_version: object.version,
        body: null,
      });
    }
    asked = further;
  }
  return ended;
}

/** Stores the segments of a chunk: one for each feature, one with the columns of all documents. */
async function placeDrafts(
  ctx: NsCtx,
  file: ChunkFile,
  collection: StoredCollection,
  drafts: readonly Draft[],
  outputs: ReadonlyMap<string, number>,
): Promise<{ documents: ResultDocument[]; segments: ChunkSegment[] }> {
  const documents: ResultDocument[] = drafts.map(({ id, object, text }) => ({
    document_id: id,
    object_id: object.object_id,
    object_version: object.version,
    body: text,
  }));
  const ended = file.first
    ? []
    : await endedBy(ctx, collection, await readHead(ctx, collection.id), file.objects, outputs);
  documents.push(...ended);
  const goneIds = ended.map(({ document_id: id }) => ({ id }));
  const segments: Promise<ChunkSegment>[] = [];
  const storage = (await vectorIndexOf(ctx)).storage === 'bfloat16' ? 'bf16' : 'f32';
  const put = (
    uri: string,
    dims: number,
    metric: ChunkSegment['metric'],
    rows: SegmentRow[],
    tombs: { id: string }[],
  ) => {
    if (rows.length === 0 && tombs.length === 0) return;
    const stored = putSegment(ctx, collection.id, { kind: 'data', dims, metric, rows, tombs, storage });
    segments.push(stored.then((segment) => ({ uri, dims, metric, segment })));
  };
  for (const feature of collection.feature_extractors.flatMap((extractor) => extractor.features)) {
    const rows: SegmentRow[] = [];
    // A document that had a vector and has none now must not be found by the old one.
    const tombs = [...goneIds];
    for (const { id, columns, vectors } of drafts) {
      const vector = vectors.get(feature.feature_uri);
      if (vector) rows.push({ id, vector, columns });
      else if (!file.first) tombs.push({ id });
    }
    put(feature.feature_uri, feature.dims, feature.metric, rows, tombs);
  }
  put(
    documentsUri,
    0,
    null,
    drafts.map(({ id, columns }) => ({ id, columns })),
    goneIds,
  );
  return { documents, segments: await Promise.all(segments) };
}
