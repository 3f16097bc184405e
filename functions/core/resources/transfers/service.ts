// The rules of exports and imports: what is done before the answer and what becomes a task, one import of a collection
// at a time, the same token once only.
import type * as z from 'zod';
import { requestSync } from '../../backends/index-tasks.ts';
import { isoTime } from '../../clock.ts';
import type { NsCtx } from '../../context.ts';
import { now } from '../../context.ts';
import { crash } from '../../crash.ts';
import type { FieldFault } from '../../errors.ts';
import { AppError, errorTable, invalid, isAppError } from '../../errors.ts';
import type { IndexJob } from '../../events.ts';
import { derivedId, newId } from '../../ids.ts';
import { FileFault } from '../../interchange/row.ts';
import { parseFilters } from '../../page.ts';
import { audit } from '../../store/audit.ts';
import { BlobConflict, BlobMissing } from '../../store/blobs.ts';
import { announce, enqueue } from '../../store/outbox.ts';
import type { Write } from '../../store/table.ts';
import { ConditionFailed } from '../../store/table.ts';
import type { StoredUpload } from '../../store/upload-rows.ts';
import { getUpload, putUpload, uploadKeepSeconds } from '../../store/upload-rows.ts';
import {
  abortSequence,
  commitIndex,
  openSequence,
  readHead,
  SequenceLost,
} from '../../store/vector-index.ts';
import type { StoredCollection } from '../collections/service.ts';
import { featuresOf, findCollection, getCollection } from '../collections/service.ts';
import { createTask } from '../tasks/service.ts';
import type { RowRules } from './check-rows.ts';
import { rulesFor } from './check-rows.ts';
import type { ExportBody, ImportBody, ImportUploadBody } from './contract.ts';
import { importBytesMax } from './contract.ts';
import { writeExport } from './export.ts';
import type { Inspection, OpenFile } from './import.ts';
import { bytesOf, inspectFile, openFile, writeFile } from './import.ts';
import type { ImportFormat, StoredExport, StoredImport, StoredTransfer } from './store.ts';
import { findTransfer, jobOf, putTransfer, transferKeys } from './store.ts';

export type { StoredExport, StoredImport } from './store.ts';

/** What one call of the API can write within its 29 seconds; more is a task. */
const exportNow = { documents: 20_000, vectorBytes: 16 * 2 ** 20, passes: 3 } as const;
const importNow = { rows: 5_000, fileBytes: 32 * 2 ** 20, pieceBytes: 64 * 2 ** 20 } as const;
/** Unpacked bytes of one row group that the worker reads. */
const pieceBytesMax = 256 * 2 ** 20;
/** A run that is not over then never will be. */
const deadlineMs = 6 * 3600 * 1000;
/** A worker that says nothing for this long is dead; the sweeper sends the job again. */
const silentMs = 20 * 60_000;
const silentNowMs = 2 * 60_000;
/** How long a job that must wait for a batch stays away. */
const waitMs = 60_000;
/** Time between the last slice and the end of the worker. */
const endingMs = 90_000;
const tries = 10;

const time = (ctx: NsCtx) => isoTime(now(ctx));

/** Puts the next state of a run; fails its condition if somebody else has moved it. */
async function move<T extends StoredTransfer>(
  ctx: NsCtx,
  before: T,
  changes: Partial<T>,
  options: { readonly dueAtMs?: number; readonly writes?: readonly Write[] } = {},
): Promise<T> {
  // The time tells states apart, so it must grow.
  const updated = isoTime(Math.max(now(ctx), Date.parse(before.updated_at) + 1));
  const after = { ...before, ...changes, updated_at: updated };
  await ctx.ports.table.write([
    ...(options.writes ?? []),
    putTransfer(ctx, after, { before, dueAtMs: options.dueAtMs }),
  ]);
  return after;
}

const isOver = (run: StoredTransfer) => run.status === 'COMPLETED' || run.status === 'FAILED';

// ---- exports

/**
 * Begins an export, and ends it before it answers if it is small.
 *
 * @throws AppError collection_not_found, request_invalid (filter), index_unavailable, index_corrupt, index_contended
 */
export async function startExport(
  ctx: NsCtx,
  idOrName: string,
  body: z.output<typeof ExportBody>,
): Promise<StoredExport> {
  const collection = await getCollection(ctx, idOrName);
  parseFilters(body.filters, body.case_sensitive);
  const head = await readHead(ctx, collection.id);
  const documents = Math.min(head.document_count, body.sample_size ?? Number.MAX_SAFE_INTEGER);
  const dims = body.include_vectors
    ? featuresOf(collection).reduce((sum, feature) => sum + feature.dims, 0)
    : 0;
  const isSmall = documents <= exportNow.documents && documents * dims * 4 <= exportNow.vectorBytes;
  const runId = newId('export', ctx.ports.clock, ctx.ports.random);
  const begun = time(ctx);
  const run: StoredExport = {
    kind: 'export',
    run_id: runId,
    collection_id: collection.id,
    status: 'PENDING',
    task_id: isSmall ? null : newId('task', ctx.ports.clock, ctx.ports.random),
    request: {
      format: body.format,
      include_vectors: body.include_vectors,
      select_fields: body.select_fields ?? null,
      filters: body.filters === undefined || body.filters === null ? null : JSON.stringify(body.filters),
      case_sensitive: body.case_sensitive ?? false,
      sample_size: body.sample_size ?? null,
    },
    result: null,
    progress: { done: 0, total: null },
    failure_detail: null,
    warnings: [],
    request_id: ctx.requestId,
    created_at: begun,
    updated_at: begun,
    completed_at: null,
  };
  if (isSmall) {
    const result = await writeExport(ctx, collection, runId, run.request, { passes: exportNow.passes });
    const done = completedExport(ctx, run, result);
    await ctx.ports.table.write([putTransfer(ctx, done), audit(ctx, 'collection.export', collection.id)]);
    return done;
  }
  await ctx.ports.table.write([
    putTransfer(ctx, run, { dueAtMs: now(ctx) + silentMs }),
    createTask(ctx, {
      task_id: run.task_id!,
      task_type: 'api_collections_export',
      namespace_id: ctx.ns.namespaceId,
      target: { kind: 'transfer', collection_id: collection.id, run_id: runId },
    }),
    enqueue(ctx, jobOf(ctx, run), runId),
    audit(ctx, 'collection.export', collection.id),
  ]);
  return run;
}

function completedExport(
  ctx: NsCtx,
  run: StoredExport,
  result: NonNullable<StoredExport['result']>,
): StoredExport {
  const changed = result.documents_changed;
  const warnings = [
    ...ctx.warnings,
    ...(changed === 0
      ? []
      : [
          `${changed} documents were changed or deleted while the file was written: it has their newer fields, or leaves them out.`,
        ]),
  ];
  return {
    ...run,
    status: 'COMPLETED',
    result,
    progress: { done: result.document_count, total: result.document_count },
    warnings,
    completed_at: time(ctx),
  };
}

/** @throws AppError collection_not_found, export_not_found */
export async function getExport(ctx: NsCtx, idOrName: string, exportId: string): Promise<StoredExport> {
  const collection = await getCollection(ctx, idOrName);
  const run = await findTransfer(ctx, 'export', collection.id, exportId);
  if (!run)
    throw new AppError('export_not_found', {
      detail: `No export "${exportId.slice(0, 60)}" of this collection; exports are kept for 7 days.`,
    });
  return run;
}

async function workOnExport(ctx: NsCtx, run: StoredExport, collection: StoredCollection): Promise<void> {
  let current = await move(ctx, run, { status: 'PROCESSING' }, { dueAtMs: now(ctx) + silentMs });
  let noted = now(ctx);
  const result = await writeExport(ctx, collection, run.run_id, run.request, {
    passes: 1,
    note: async (done, total) => {
      if (now(ctx) - noted < 5_000) return;
      noted = now(ctx);
      current = await move(ctx, current, { progress: { done, total } }, { dueAtMs: noted + silentMs });
    },
  });
  await move(ctx, current, completedExport(ctx, current, result));
}

// ---- imports

/** A URL for a file to import. @throws AppError collection_not_found */
export async function createImportUpload(
  ctx: NsCtx,
  idOrName: string,
  body: z.output<typeof ImportUploadBody>,
): Promise<{ readonly upload: StoredUpload; readonly presignedUrl: string; readonly expiresAtMs: number }> {
  const collection = await getCollection(ctx, idOrName);
  const nowMs = now(ctx);
  const uploadId = newId('upload', ctx.ports.clock, ctx.ports.random);
  const upload: StoredUpload = {
    upload_id: uploadId,
    purpose: 'import',
    s3_key: `uploads/${ctx.ns.namespaceId}/${uploadId}`,
    content_type: body.format === 'parquet' ? 'application/vnd.apache.parquet' : 'application/x-ndjson',
    ends_at: Math.floor(nowMs / 1000) + uploadKeepSeconds,
    created_at: isoTime(nowMs),
    state: 'pending',
    facts: { collection_id: collection.id, format: body.format },
    result: null,
  };
  await putUpload(ctx, upload);
  const seconds = body.presigned_url_expiration;
  const presignedUrl = await ctx.ports.blobs.presignPut(upload.s3_key, seconds, upload.content_type);
  return { upload, presignedUrl, expiresAtMs: nowMs + seconds * 1000 };
}

interface NamedFile {
  readonly source: string;
  readonly key: string;
  readonly format: ImportFormat;
}

async function fileOf(
  ctx: NsCtx,
  collection: StoredCollection,
  body: z.output<typeof ImportBody>,
): Promise<NamedFile> {
  if (body.upload_id) {
    const upload = await getUpload(ctx, 'import', body.upload_id);
    if (upload.facts.collection_id !== collection.id) {
      throw new AppError('upload_not_found', {
        detail: `No upload "${body.upload_id.slice(0, 60)}" for an import into this collection.`,
      });
    }
    const format = body.format ?? (upload.facts.format as ImportFormat);
    return { source: `upload:${upload.upload_id}`, key: upload.s3_key, format };
  }
  const path = body.s3_path!;
  const base = ctx.ports.blobs.uri(transferKeys.exports(ctx));
  if (!path.startsWith(base)) {
    throw invalid('request_invalid', [
      {
        type: 'wrong_value',
        location: ['body', 's3_path'],
        message: 'is not the path of an export of this namespace',
        fix: 'take "s3_path" of an export, or send the file by POST .../import/uploads',
      },
    ]);
  }
  const key = transferKeys.exports(ctx) + path.slice(base.length);
  const byName = key.endsWith('.parquet') ? 'parquet' : key.endsWith('.jsonl') ? 'json' : undefined;
  const format = body.format ?? byName;
  if (!format) {
    throw invalid('request_invalid', [
      {
        type: 'wrong_value',
        location: ['body', 's3_path'],
        message: 'only exports in the formats parquet and json can be imported',
      },
    ]);
  }
  return { source: `path:${key}`, key, format };
}

/**
 * Begins an import, and ends it before it answers if it is small. The same token again gives the same import.
 *
 * @throws AppError collection_not_found, upload_not_found, upload_expired, upload_missing, upload_changed,
 *   upload_too_large, import_invalid (every fault with its row; nothing is stored), import_token_reused,
 *   collection_busy, index_contended
 */
export async function startImport(
  ctx: NsCtx,
  idOrName: string,
  body: z.output<typeof ImportBody>,
): Promise<StoredImport> {
  const collection = await getCollection(ctx, idOrName);
  const named = await fileOf(ctx, collection, body);
  const runId = derivedId('import', ctx.ns.namespaceId, collection.id, body.token ?? named.source);
  const known = await findTransfer(ctx, 'import', collection.id, runId);
  if (known && known.request.source !== named.source) {
    throw new AppError('import_token_reused', {
      detail: `The token was used on ${known.created_at} for another file. Use another token for this one.`,
    });
  }
  if (known && known.status !== 'FAILED')
    return known.task_id === null ? runNow(ctx, known, collection) : known;
  const run = await takeFile(ctx, collection, named, runId, known);
  const rules = rulesFor(ctx, collection, runId, run.created_at);
  let small: Inspection | undefined;
  if (run.request.file_size_bytes <= importNow.fileBytes) {
    const file = await openOrRefuse(ctx, run, rules);
    const few = file.source.rows === undefined || file.source.rows <= importNow.rows;
    if (few && file.pieceBytes <= importNow.pieceBytes)
      small = await inspectOrRefuse(file, rules, importNow.rows);
  }
  if (small) {
    await ctx.ports.table.write([
      putTransfer(ctx, run, { before: known, dueAtMs: now(ctx) + silentNowMs }),
      audit(ctx, 'collection.import', collection.id),
    ]);
    return runNow(ctx, run, collection);
  }
  const task_id = newId('task', ctx.ports.clock, ctx.ports.random);
  const queued: StoredImport = { ...run, task_id };
  await ctx.ports.table.write([
    putTransfer(ctx, queued, { before: known, dueAtMs: now(ctx) + silentMs }),
    createTask(ctx, {
      task_id,
      task_type: 'api_collections_import',
      namespace_id: ctx.ns.namespaceId,
      target: { kind: 'transfer', collection_id: collection.id, run_id: runId },
    }),
    enqueue(ctx, jobOf(ctx, queued), `${runId}.${queued.attempt}`),
    audit(ctx, 'collection.import', collection.id),
  ]);
  return queued;
}

/** Keeps the bytes that are there now where nobody can write. @throws AppError upload_missing, upload_changed, upload_too_large */
async function takeFile(
  ctx: NsCtx,
  collection: StoredCollection,
  named: NamedFile,
  runId: string,
  failed: StoredImport | undefined,
): Promise<StoredImport> {
  const { blobs } = ctx.ports;
  const info = await blobs.head(named.key);
  if (!info) {
    throw new AppError('upload_missing', {
      detail: named.source.startsWith('upload:')
        ? 'Nothing has been put to the presigned URL yet. PUT the file there, then import.'
        : 'There is no file under this path any more; exports are kept for 7 days.',
    });
  }
  if (info.bytes > importBytesMax) {
    throw new AppError('upload_too_large', {
      detail: `The file has ${info.bytes} bytes; at most ${importBytesMax} are accepted. Import it in parts.`,
    });
  }
  try {
    await blobs.copyFrom(blobs, named.key, transferKeys.file(ctx, runId), info.etag);
  } catch (error) {
    if (!(error instanceof BlobConflict || error instanceof BlobMissing)) throw error;
    throw new AppError('upload_changed', {
      detail: 'The file changed while it was taken over. Import again.',
      cause: error,
    });
  }
  crash('import.after_copy');
  const begun = time(ctx);
  return {
    kind: 'import',
    run_id: runId,
    collection_id: collection.id,
    status: 'PENDING',
    attempt: (failed?.attempt ?? 0) + 1,
    task_id: null,
    request: {
      format: named.format,
      source: named.source,
      source_key: named.key,
      source_etag: info.etag,
      file_size_bytes: info.bytes,
    },
    result: null,
    faults: [],
    progress: { done: 0, total: null },
    failure_detail: null,
    warnings: [],
    request_id: ctx.requestId,
    created_at: begun,
    updated_at: begun,
    completed_at: null,
  };
}

const fileFault = (error: FileFault) =>
  invalid('import_invalid', [{ type: 'file_invalid', location: ['file'], message: error.message }]);

async function openOrRefuse(ctx: NsCtx, run: StoredImport, rules: RowRules): Promise<OpenFile> {
  const { format, file_size_bytes: bytes } = run.request;
  try {
    const file = await openFile(bytesOf(ctx, transferKeys.file(ctx, run.run_id), bytes), format, rules);
    if (file.pieceBytes <= pieceBytesMax) return file;
    throw new FileFault(
      `A row group of the file has ${file.pieceBytes} bytes unpacked; at most ${pieceBytesMax} are read at once. Write it with smaller row groups, such as row_group_size=20000.`,
    );
  } catch (error) {
    if (error instanceof FileFault) throw fileFault(error);
    throw error;
  }
}

/** @returns undefined if there are more rows than `rowsMax` @throws AppError import_invalid */
async function inspectOrRefuse(
  file: OpenFile,
  rules: RowRules,
  rowsMax?: number,
): Promise<Inspection | undefined> {
  let found: Inspection | undefined;
  try {
    found = await inspectFile(file.source, rules, rowsMax);
  } catch (error) {
    if (error instanceof FileFault) throw fileFault(error);
    throw error;
  }
  if (!found || found.faultCount === 0) return found;
  const [first] = found.faults as [FieldFault];
  const [, row, column] = first.location;
  throw new AppError('import_invalid', {
    detail: `Row ${row}${column === undefined ? '' : `, ${column}`}: ${first.message}${found.faultCount > 1 ? ` (${found.faultCount} faults in all; nothing was stored)` : ' (nothing was stored)'}`,
    fields: found.faults,
    extra: { fault_count: found.faultCount },
  });
}

/** The lock that batches of the collection take too. */
function lockWrite(ctx: NsCtx, run: StoredImport): Write {
  const nowMs = now(ctx);
  return {
    put: {
      ...ctx.ns.running(run.collection_id),
      batch_id: run.run_id,
      bucket_id: '',
      attempt: run.attempt,
      until: isoTime(Date.parse(run.created_at) + deadlineMs),
    },
    if: [
      {
        anyOf: [
          { absent: true },
          {
            allOf: [
              { attribute: 'batch_id', eq: run.run_id },
              { attribute: 'attempt', eq: run.attempt },
            ],
          },
          { attribute: 'until', lt: isoTime(nowMs) },
        ],
      },
    ],
  };
}

/** Gives the lock back, if it is ours. */
async function unlockWrites(ctx: NsCtx, run: StoredImport): Promise<Write[]> {
  const key = ctx.ns.running(run.collection_id);
  const row = await ctx.ports.table.get(key);
  if (row?.batch_id !== run.run_id || row.attempt !== run.attempt) return [];
  return [
    {
      delete: key,
      if: [
        { attribute: 'batch_id', eq: run.run_id },
        { attribute: 'attempt', eq: run.attempt },
      ],
    },
  ];
}

/** Takes the lock and a sequence. @throws AppError collection_busy */
async function begin(
  ctx: NsCtx,
  run: StoredImport,
  silent: number,
): Promise<{ run: StoredImport; seq: number }> {
  for (let attempt = 0; attempt < tries; attempt++) {
    const head = await readHead(ctx, run.collection_id);
    const { seq, write } = openSequence(ctx, head, { batch_id: run.run_id, attempt: run.attempt });
    try {
      const begun = await move(
        ctx,
        run,
        { status: 'PROCESSING' },
        { dueAtMs: now(ctx) + silent, writes: [lockWrite(ctx, run), ...(write ? [write] : [])] },
      );
      crash('import.after_begin');
      return { run: begun, seq };
    } catch (error) {
      if (!(error instanceof ConditionFailed)) throw error;
      const busy = error.of(0);
      if (busy) {
        throw new AppError('collection_busy', {
          detail: `The collection is being written by ${String(busy.item?.batch_id ?? 'another batch')}. Import when it is done.`,
          retryAfterSeconds: 10,
        });
      }
      // Somebody wrote the collection, or the same import runs twice: look again.
      const known = await findTransfer(ctx, 'import', run.collection_id, run.run_id);
      if (!known || known.attempt !== run.attempt || isOver(known))
        throw new SequenceLost(run.collection_id, run.run_id);
      run = known;
    }
  }
  throw new AppError('index_contended', {
    detail: 'The collection is being written by too many at once.',
    retryAfterSeconds: 2,
  });
}

/** Does the whole import. @returns undefined when the time was over: the job must come again */
async function importFile(
  ctx: NsCtx,
  stored: StoredImport,
  collection: StoredCollection,
  untilMs: number,
  silent: number,
): Promise<StoredImport | undefined> {
  const rules = rulesFor(ctx, collection, stored.run_id, stored.created_at);
  const file = await openOrRefuse(ctx, stored, rules);
  const inspection = (await inspectOrRefuse(file, rules))!;
  const begun = await begin(ctx, stored, silent);
  const { seq } = begun;
  let run = begun.run;
  const written = await writeFile(ctx, rules, file.source, inspection, seq, {
    attempt: run.attempt,
    untilMs,
    note: async (done) => {
      run = await move(
        ctx,
        run,
        { progress: { done, total: inspection.lastRow.size } },
        { dueAtMs: now(ctx) + silent },
      );
    },
  });
  if (!written) return undefined;
  crash('import.before_commit');
  const head = await readHead(ctx, collection.id);
  const done: StoredImport = {
    ...run,
    status: 'COMPLETED',
    progress: { done: written.documents, total: written.documents },
    result: {
      row_count: inspection.rows,
      document_count: written.documents,
      documents_added: Math.max(0, written.document_delta),
      documents_without_vectors: written.without_vectors,
      // Put right below when others commit before us.
      index_version: written.documents === 0 ? null : head.version + 1,
    },
    updated_at: isoTime(Math.max(now(ctx), Date.parse(run.updated_at) + 1)),
    completed_at: time(ctx),
  };
  const { versions } = await commitIndex(
    ctx,
    [
      {
        collection_id: collection.id,
        additions: written.segments,
        document_delta: written.document_delta,
        sequence: { batch_id: run.run_id, attempt: run.attempt },
      },
    ],
    {
      token: `${run.run_id}.${run.attempt}`,
      crashPoint: 'import.commit',
      writes: [
        putTransfer(ctx, done, { before: run }),
        ...(await unlockWrites(ctx, run)),
        ...(await requestSync(ctx, [collection.id])),
        announce(
          ctx,
          'collection.documents.written',
          { type: 'collection', id: collection.id },
          `${run.run_id}.${run.attempt}`,
          {
            import_id: run.run_id,
            documents: written.documents,
          },
        ),
      ],
    },
  );
  if (done.result!.index_version === null || versions[0] === done.result!.index_version) return done;
  return move(ctx, done, { result: { ...done.result!, index_version: versions[0]! } });
}

/** What a failed import leaves: its reason, no lock, no open sequence, nothing visible. */
async function failImport(ctx: NsCtx, stored: StoredImport, error: AppError): Promise<void> {
  for (let attempt = 0; attempt < tries; attempt++) {
    const run = await findTransfer(ctx, 'import', stored.collection_id, stored.run_id);
    if (!run || run.attempt !== stored.attempt || isOver(run)) return;
    const abort = abortSequence(ctx, await readHead(ctx, run.collection_id), {
      batch_id: run.run_id,
      attempt: run.attempt,
    });
    try {
      await move(
        ctx,
        run,
        {
          status: 'FAILED',
          failure_detail: error.detail.slice(0, 1_000),
          faults: error.fields.slice(0, 20),
          completed_at: time(ctx),
        },
        { writes: [...(abort ? [abort] : []), ...(await unlockWrites(ctx, run))] },
      );
      return;
    } catch (failure) {
      if (!(failure instanceof ConditionFailed)) throw failure;
    }
  }
  throw new AppError('index_contended', { detail: 'The collection is being written by too many at once.' });
}

/** What an import ends with when another worker has ended it or taken it over. */
async function asItIs(ctx: NsCtx, run: StoredImport, cause: unknown): Promise<StoredImport> {
  const known = await findTransfer(ctx, 'import', run.collection_id, run.run_id);
  if (known && isOver(known)) return known;
  throw new AppError('collection_busy', {
    detail: 'The same import is being run by another request; ask for it again.',
    retryAfterSeconds: 5,
    cause,
  });
}

/** Runs a small import inside its request. */
async function runNow(ctx: NsCtx, run: StoredImport, collection: StoredCollection): Promise<StoredImport> {
  if (isOver(run)) return run;
  try {
    return (await importFile(ctx, run, collection, Number.POSITIVE_INFINITY, silentNowMs))!;
  } catch (error) {
    if (error instanceof SequenceLost || error instanceof ConditionFailed) return asItIs(ctx, run, error);
    if (error instanceof AppError && !error.retryable) await failImport(ctx, run, error);
    throw error;
  }
}

/** @throws AppError collection_not_found, import_not_found */
export async function getImport(ctx: NsCtx, idOrName: string, importId: string): Promise<StoredImport> {
  const collection = await getCollection(ctx, idOrName);
  const run = await findTransfer(ctx, 'import', collection.id, importId);
  if (!run)
    throw new AppError('import_not_found', {
      detail: `No import "${importId.slice(0, 60)}" into this collection; imports are kept for 7 days.`,
    });
  return run;
}

async function workOnImport(
  ctx: NsCtx,
  run: StoredImport,
  collection: StoredCollection,
  untilMs: number,
): Promise<void> {
  const again = async (dueAtMs: number, note: Partial<StoredImport> = {}) => {
    const current = await findTransfer(ctx, 'import', run.collection_id, run.run_id);
    if (current && current.attempt === run.attempt && !isOver(current))
      await move(ctx, current, note, { dueAtMs });
  };
  try {
    // The sweeper brings the job back.
    if (!(await importFile(ctx, run, collection, untilMs - endingMs, silentMs))) await again(now(ctx));
  } catch (error) {
    if (error instanceof SequenceLost || error instanceof ConditionFailed) return;
    if (isAppError(error, 'collection_busy')) return again(now(ctx) + waitMs);
    throw error;
  }
}

// ---- the worker

/** Ends a run that failed for good. */
async function fail(ctx: NsCtx, run: StoredTransfer, error: AppError): Promise<void> {
  if (run.kind === 'import') return failImport(ctx, run, error);
  const current = await findTransfer(ctx, 'export', run.collection_id, run.run_id);
  if (!current || isOver(current)) return;
  await move(ctx, current, {
    status: 'FAILED',
    failure_detail: error.detail.slice(0, 1_000),
    completed_at: time(ctx),
  });
}

/**
 * Works on an export or import that was too large for its request: the task `export` or `import` of the worker of the
 * indexes. A job that comes twice, late, or beside another of the same run does no harm.
 *
 * @param untilMs when the worker ends, on the context's clock
 * @throws what may be tried again
 */
export async function runTransfer(ctx: NsCtx, job: IndexJob, untilMs: number): Promise<void> {
  if ((job.task !== 'export' && job.task !== 'import') || job.run_id === undefined) return;
  const run: StoredTransfer | undefined = await findTransfer(ctx, job.task, job.collection_id, job.run_id);
  if (!run || isOver(run)) return;
  try {
    if (Date.parse(run.created_at) + deadlineMs < now(ctx)) {
      throw new AppError('transfer_deadline', {
        detail: `It did not end within ${deadlineMs / 3_600_000} hours.`,
      });
    }
    const collection = await findCollection(ctx, run.collection_id);
    if (!collection) throw new AppError('collection_not_found', { detail: 'The collection was deleted.' });
    if (run.kind === 'export') await workOnExport(ctx, run, collection);
    else await workOnImport(ctx, run, collection, untilMs);
  } catch (error) {
    // Another worker has moved the run.
    if (error instanceof ConditionFailed) return;
    if (!(error instanceof AppError) || error.retryable) throw error;
    const told =
      errorTable[error.code].type === 'InternalServerError' ? new AppError('internal_error') : error;
    await fail(ctx, run, told);
  }
}
