// How exports and imports are stored: a run row under their collection, kept for a week like the files.
import { isoTime } from '../../clock.ts';
import type { NsCtx } from '../../context.ts';
import { now } from '../../context.ts';
import type { FieldFault } from '../../errors.ts';
import type { IndexJob } from '../../events.ts';
import type { Position } from '../../interchange/row.ts';
import { dueAttributes } from '../../store/keys.ts';
import type { Attribute, Item, Write } from '../../store/table.ts';

export type TransferStatus = 'PENDING' | 'PROCESSING' | 'COMPLETED' | 'FAILED';
export type ExportFormat = 'json' | 'csv' | 'parquet';
export type ImportFormat = 'json' | 'parquet';

interface Run {
  readonly run_id: string;
  readonly collection_id: string;
  readonly status: TransferStatus;
  readonly task_id: string | null;
  readonly progress: { readonly done: number; readonly total: number | null };
  readonly failure_detail: string | null;
  readonly warnings: readonly string[];
  readonly request_id: string;
  readonly created_at: string;
  readonly updated_at: string;
  readonly completed_at: string | null;
}

export interface ExportRequest {
  readonly format: ExportFormat;
  readonly include_vectors: boolean;
  readonly select_fields: readonly string[] | null;
  /** JSON of the filter tree; null: all documents. */
  readonly filters: string | null;
  readonly case_sensitive: boolean;
  readonly sample_size: number | null;
}

export interface ExportResult {
  readonly key: string;
  readonly document_count: number;
  readonly file_size_bytes: number;
  readonly index_version: number;
  readonly documents_changed: number;
}

export interface StoredExport extends Run {
  readonly kind: 'export';
  readonly request: ExportRequest;
  readonly result: ExportResult | null;
}

export interface ImportRequest {
  readonly format: ImportFormat;
  /** `upload:<id>` or `path:<key>`: two requests of one token must name the same. */
  readonly source: string;
  /** Where the bytes are that the request found. */
  readonly source_key: string;
  readonly source_etag: string;
  readonly file_size_bytes: number;
}

export interface ImportResult {
  readonly row_count: number;
  readonly document_count: number;
  readonly documents_added: number;
  readonly documents_without_vectors: number;
  readonly index_version: number | null;
}

export interface StoredImport extends Run {
  readonly kind: 'import';
  /** Grows when a failed import is asked for again: sequences and commits belong to one attempt. */
  readonly attempt: number;
  readonly request: ImportRequest;
  readonly result: ImportResult | null;
  readonly faults: readonly FieldFault[];
}

export type StoredTransfer = StoredExport | StoredImport;

/** Rows and files go after this. */
const keepSeconds = 7 * 86_400;

const key = (ctx: NsCtx, run: Pick<Run, 'collection_id' | 'run_id'>) =>
  ctx.ns.child('COLLECTION', run.collection_id, 'RUN', run.run_id);

const watchMembers = ['due_pk', 'due_at', 'watch_job'] as const;
const rowMembers: ReadonlySet<string> = new Set([
  'pk',
  'sk',
  'expires_at',
  'task_outputs',
  'task_progress',
  ...watchMembers,
]);

function toTransfer(item: Item): StoredTransfer {
  return Object.fromEntries(
    Object.entries(item).filter(([name]) => !rowMembers.has(name)),
  ) as unknown as StoredTransfer;
}

export async function findTransfer<K extends StoredTransfer['kind']>(
  ctx: NsCtx,
  kind: K,
  collectionId: string,
  runId: string,
): Promise<Extract<StoredTransfer, { kind: K }> | undefined> {
  const item = await ctx.ports.table.get(key(ctx, { collection_id: collectionId, run_id: runId }));
  if (item?.kind !== kind) return undefined;
  return toTransfer(item) as Extract<StoredTransfer, { kind: K }>;
}

/** The job that works on a run. */
export function jobOf(ctx: NsCtx, run: StoredTransfer): IndexJob {
  return {
    kind: 'index',
    task: run.kind,
    org_id: ctx.principal.orgId,
    namespace_id: ctx.ns.namespaceId,
    collection_id: run.collection_id,
    run_id: run.run_id,
    request_id: run.request_id,
  };
}

/**
 * The write that puts a run as it is now.
 *
 * @param dueAtMs when the sweeper sends its job (again), unless the run is over before
 * @param before the state that was read; undefined: there must be none
 */
export function putTransfer(
  ctx: NsCtx,
  run: StoredTransfer,
  options: { readonly dueAtMs?: number | undefined; readonly before?: StoredTransfer | undefined } = {},
): Write {
  const { dueAtMs, before } = options;
  const watch =
    dueAtMs === undefined
      ? {}
      : { ...dueAttributes(run.run_id, isoTime(dueAtMs)), watch_job: JSON.stringify(jobOf(ctx, run)) };
  return {
    put: {
      ...key(ctx, run),
      ...(run as unknown as Record<string, Attribute>),
      // What the task that stands for the run shows.
      task_outputs: run.result === null ? [] : [taskOutput(ctx, run)],
      task_progress: { ...run.progress },
      ...watch,
      expires_at: Math.floor(now(ctx) / 1000) + keepSeconds,
    },
    if: before
      ? [
          { attribute: 'status', eq: before.status },
          { attribute: 'updated_at', eq: before.updated_at },
        ]
      : [{ absent: true }],
  };
}

function taskOutput(ctx: NsCtx, run: StoredTransfer): { readonly [name: string]: Attribute } {
  if (run.kind === 'import') return { import_id: run.run_id, ...run.result };
  const { key: _, ...result } = run.result!;
  return { export_id: run.run_id, s3_path: ctx.ports.blobs.uri(run.result!.key), ...result };
}

/** Where the files of exports and imports are. */
export const transferKeys = {
  /** @param name shown to whoever downloads the file */
  export: (ctx: NsCtx, exportId: string, name: string) => `exports/${ctx.ns.namespaceId}/${exportId}/${name}`,
  exports: (ctx: NsCtx) => `exports/${ctx.ns.namespaceId}/`,
  /** The file of an import as it was when it was asked for; nobody can write it. */
  file: (ctx: NsCtx, importId: string) => `imports/${ctx.ns.namespaceId}/${importId}/file`,
  state: (ctx: NsCtx, importId: string, attempt: number) =>
    `imports/${ctx.ns.namespaceId}/${importId}/state-${attempt}.json`,
};

/** How far an import has come: what a worker that takes over goes on from. */
export interface ImportState {
  readonly next: Position;
  readonly segments: readonly unknown[];
  readonly documents: number;
  readonly document_delta: number;
  readonly without_vectors: number;
}
