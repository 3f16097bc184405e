// Where the logs of plugins are listed: a row under the plugin for each call in a batch, for seven days. What was said
// is in the blob bucket; the receipts of a batch name the same files.
import type { NsCtx } from '../../context.ts';
import type { Attribute, Item, Write } from '../../store/table.ts';
import { queryAll } from '../../store/table.ts';
import type { ChunkLog, Receipt } from '../documents/service.ts';
import type { ChunkFile } from './files.ts';

const keepSeconds = 7 * 86_400;

/** A call of a plugin for one chunk of a batch. */
export interface LogRow {
  readonly batch_id: string;
  readonly attempt: number;
  readonly collection_id: string;
  readonly chunk: number;
  /** The plugin. */
  readonly feature_extractor_id: string;
  readonly created_at: string;
  readonly rows: number;
  readonly failed: number;
  /** Key of the log in the blob bucket. */
  readonly key: string;
  /** Key of the failures of the whole chunk; absent: there were none. */
  readonly failures_key?: string;
}

export function logRowOf(
  batch: { readonly batch_id: string; readonly attempt: number },
  receipt: Receipt,
  log: ChunkLog,
): LogRow {
  return {
    batch_id: batch.batch_id,
    attempt: batch.attempt,
    collection_id: receipt.collection_id,
    chunk: receipt.chunk,
    feature_extractor_id: log.feature_extractor_id,
    created_at: receipt.at,
    rows: log.rows,
    failed: log.failed,
    key: log.key,
    ...(receipt.failures_key === undefined ? {} : { failures_key: receipt.failures_key }),
  };
}

/** The row's id follows from attempt and chunk, and sorts by time. */
export function pluginLogWrite(ctx: NsCtx, file: ChunkFile, receipt: Receipt, log: ChunkLog): Write {
  const atMs = Date.parse(receipt.at);
  const { batch_id, attempt, chunk } = file;
  const id = `${atMs.toString(36).padStart(9, '0')}.${batch_id}.${attempt}.${String(chunk).padStart(6, '0')}`;
  return {
    put: {
      ...ctx.ns.child('PLUGIN', log.feature_extractor_id, 'LOG', id),
      ...(logRowOf(file, receipt, log) as unknown as Record<string, Attribute>),
      expires_at: Math.floor(atMs / 1000) + keepSeconds,
    },
  };
}

/** Members of the row that are not the log's. */
const rowMembers = new Set(['pk', 'sk', 'expires_at']);

function toLogRow(item: Item): LogRow {
  const own = Object.entries(item).filter(([name]) => !rowMembers.has(name));
  return Object.fromEntries(own) as unknown as LogRow;
}

/** The calls of a plugin in batches, newest first, at most `max`. */
export async function listLogRows(ctx: NsCtx, pluginId: string, max: number): Promise<LogRow[]> {
  const { pk, prefix } = ctx.ns.children('PLUGIN', pluginId, 'LOG');
  const nowSeconds = Math.floor(ctx.ports.clock.now() / 1000);
  const found: LogRow[] = [];
  for await (const item of queryAll(ctx.ports.table, pk, { prefix, descending: true })) {
    // The table removes what has expired in its own time.
    if (Number(item.expires_at) < nowSeconds) break;
    found.push(toLogRow(item));
    if (found.length >= max) break;
  }
  return found;
}
