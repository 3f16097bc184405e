// What plugins said in batches: output, findings, failures with their tracebacks; of one batch or of one plugin.
import type { NsCtx } from '../../context.ts';
import type { ListInput, PageReply } from '../../page.ts';
import { scanRowsMax } from '../../page.ts';
import { BlobMissing, getJson } from '../../store/blobs.ts';
import { listReceipts } from '../documents/service.ts';
import { getPlugin } from '../plugins/service.ts';
import { boundedPage } from './bounded-page.ts';
import type { LogFile, RowFailure } from './files.ts';
import type { LogRow } from './log-rows.ts';
import { listLogRows, logRowOf } from './log-rows.ts';
import type { StoredBatch } from './store.ts';

/** One call of a plugin with what it said. */
export interface LogEntry extends LogRow, Pick<LogFile, 'logs' | 'warnings' | 'timings'> {
  /** The first of them. */
  readonly failures: readonly RowFailure[];
}

export interface LogQuery extends ListInput {
  readonly failed_only?: boolean | undefined;
  readonly object_id?: string | undefined;
}

const failuresShown = 20;
/** Logs that are opened to find those of one object. */
const openedMax = 500;
/** Attempts of a batch, the newest ones, whose receipts are read. */
const attemptsMax = 20;

/** The calls of a batch: newest attempt first, in the order of its chunks. */
async function rowsOfBatch(ctx: NsCtx, batch: StoredBatch): Promise<LogRow[]> {
  const rows: LogRow[] = [];
  const last = Math.max(1, batch.attempt - attemptsMax + 1);
  for (let attempt = batch.attempt; attempt >= last && rows.length < scanRowsMax; attempt--) {
    for (const receipt of await listReceipts(ctx, batch.batch_id, attempt)) {
      const named = { batch_id: batch.batch_id, attempt };
      rows.push(...(receipt.logs ?? []).map((log) => logRowOf(named, receipt, log)));
    }
  }
  return rows;
}

/** @returns undefined when the file has been removed, as batch files are after a while */
async function readIfThere<T>(ctx: NsCtx, key: string): Promise<T | undefined> {
  try {
    return await getJson<T>(ctx.ports.blobs, key);
  } catch (error) {
    if (!(error instanceof BlobMissing)) throw error;
    return undefined;
  }
}

/** The rows whose calls got an object. */
async function withObject(ctx: NsCtx, rows: readonly LogRow[], objectId: string): Promise<LogRow[]> {
  if (rows.length > openedMax)
    ctx.warnings.push(`Only the first ${openedMax} logs were searched for the object.`);
  const found: LogRow[] = [];
  for (let i = 0; i < Math.min(rows.length, openedMax); i += 16) {
    const part = rows.slice(i, Math.min(i + 16, openedMax));
    const files = await Promise.all(part.map((row) => readIfThere<LogFile>(ctx, row.key)));
    found.push(...part.filter((_, j) => files[j]?.object_ids.includes(objectId)));
  }
  return found;
}

async function open(ctx: NsCtx, row: LogRow, objectId: string | undefined): Promise<LogEntry> {
  const [file, failures] = await Promise.all([
    readIfThere<LogFile>(ctx, row.key),
    row.failures_key === undefined || row.failed === 0
      ? undefined
      : readIfThere<readonly RowFailure[]>(ctx, row.failures_key),
  ]);
  if (!file) ctx.warnings.push(`The log of chunk ${row.chunk} of ${row.batch_id} has expired.`);
  return {
    ...row,
    logs: file?.logs ?? '',
    warnings: file?.warnings ?? [],
    timings: file?.timings ?? {},
    failures: (failures ?? [])
      .filter(
        (failure) =>
          failure.feature_extractor_id === row.feature_extractor_id &&
          (objectId === undefined || failure.object_id === objectId),
      )
      .slice(0, failuresShown),
  };
}

async function pageOfLogs(
  ctx: NsCtx,
  name: string,
  rows: readonly LogRow[],
  query: LogQuery,
): Promise<PageReply<LogEntry>> {
  const { failed_only, object_id } = query;
  const failed = failed_only ? rows.filter((row) => row.failed > 0) : rows;
  const kept = object_id === undefined ? failed : await withObject(ctx, failed, object_id);
  const list = `${name} ${failed_only ?? false} ${object_id ?? ''}`;
  const searched = ['batch_id', 'feature_extractor_id', 'collection_id'];
  return boundedPage(ctx, list, kept, query, searched, (row) => open(ctx, row, object_id));
}

/** Of every attempt, those that failed or were cancelled too; the newest attempt first, then by chunk. */
export async function listBatchLogs(
  ctx: NsCtx,
  batch: StoredBatch,
  query: LogQuery,
): Promise<PageReply<LogEntry>> {
  return pageOfLogs(ctx, `logs ${batch.batch_id}`, await rowsOfBatch(ctx, batch), query);
}

/** Of the last seven days, newest first; 10,000 at most. @throws AppError plugin_not_found */
export async function listPluginLogs(
  ctx: NsCtx,
  pluginName: string,
  query: LogQuery,
): Promise<PageReply<LogEntry>> {
  const plugin = await getPlugin(ctx, pluginName);
  const rows = await listLogRows(ctx, plugin.id, scanRowsMax);
  if (rows.length >= scanRowsMax) ctx.warnings.push(`Only the newest ${scanRowsMax} logs were looked at.`);
  return pageOfLogs(ctx, `logs ${plugin.id}`, rows, query);
}
