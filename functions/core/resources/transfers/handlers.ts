// Requests about exports and imports -> service calls -> replies.
import { isoTime } from '../../clock.ts';
import type { NsCtx } from '../../context.ts';
import type { Handlers } from '../../http/handler.ts';
import { Answer } from '../../http/handler.ts';
import type { CollectionExport, CollectionImport, routes } from './contract.ts';
import { importBytesMax } from './contract.ts';
import type { StoredExport, StoredImport } from './service.ts';
import { createImportUpload, getExport, getImport, startExport, startImport } from './service.ts';

const downloadSeconds = 3600;

async function toExport(ctx: NsCtx, run: StoredExport): Promise<CollectionExport> {
  const { result } = run;
  const { blobs } = ctx.ports;
  for (const warning of run.warnings) if (!ctx.warnings.includes(warning)) ctx.warnings.push(warning);
  return {
    export_id: run.run_id,
    collection_id: run.collection_id,
    status: run.status,
    task_id: run.task_id,
    format: run.request.format,
    download_url: result && (await blobs.presignGet(result.key, downloadSeconds)),
    s3_path: result && blobs.uri(result.key),
    document_count: result?.document_count ?? 0,
    file_size_bytes: result?.file_size_bytes ?? 0,
    index_version: result?.index_version ?? null,
    documents_changed: result?.documents_changed ?? 0,
    exported_at: result ? run.completed_at : null,
    vectors_download_url: null,
    vectors_s3_path: null,
    progress: { ...run.progress },
    error: run.failure_detail,
  };
}

function toImport(run: StoredImport): CollectionImport {
  const { result } = run;
  return {
    import_id: run.run_id,
    collection_id: run.collection_id,
    status: run.status,
    task_id: run.task_id,
    format: run.request.format,
    row_count: result?.row_count ?? 0,
    document_count: result?.document_count ?? 0,
    documents_added: result?.documents_added ?? 0,
    documents_without_vectors: result?.documents_without_vectors ?? 0,
    index_version: result?.index_version ?? null,
    file_size_bytes: run.request.file_size_bytes,
    imported_at: result ? run.completed_at : null,
    progress: { ...run.progress },
    error: run.failure_detail,
    validation_errors: run.faults.map(({ location, ...fault }) => ({ ...fault, location: [...location] })),
  };
}

/** 202 while the work goes on elsewhere. */
const statusOf = (run: { readonly status: string }) =>
  run.status === 'PENDING' || run.status === 'PROCESSING' ? { status: 202 } : {};

export const handlers: Handlers<typeof routes> = {
  exportCollection: async ({ ctx, params, body }) => {
    const run = await startExport(ctx, params.collection!, body);
    return new Answer(await toExport(ctx, run), statusOf(run));
  },
  getExport: async ({ ctx, params }) =>
    toExport(ctx, await getExport(ctx, params.collection!, params.export!)),
  createImportUpload: async ({ ctx, params, body }) => {
    const { upload, presignedUrl, expiresAtMs } = await createImportUpload(ctx, params.collection!, body);
    return {
      upload_id: upload.upload_id,
      collection_id: String(upload.facts.collection_id),
      format: body.format,
      presigned_url: presignedUrl,
      content_type: upload.content_type,
      file_size_bytes_max: importBytesMax,
      expires_at: isoTime(expiresAtMs),
    };
  },
  importCollection: async ({ ctx, params, body }) => {
    const run = await startImport(ctx, params.collection!, body);
    return new Answer(toImport(run), statusOf(run));
  },
  getImport: async ({ ctx, params }) => toImport(await getImport(ctx, params.collection!, params.import!)),
};
