// Exports of a collection to a file, and imports of such a file: documents with their vectors.
import * as z from 'zod';
import { route } from '../../http/route.ts';
import { FilterTree, Timestamp, Warnings } from '../../http/schemas.ts';

/** Above this an import is refused; it is what one copy inside the store may have. */
export const importBytesMax = 5_000_000_000;

const Format = z.enum(['json', 'csv', 'parquet']);
const Status = z.enum(['PENDING', 'PROCESSING', 'COMPLETED', 'FAILED']);
const Progress = z.object({
  done: z.int().meta({ description: 'rows that are written' }),
  total: z.int().nullable().meta({ description: 'null until it is known' }),
});

export const ExportBody = z.strictObject({
  format: Format.default('parquet').meta({
    description: 'json: one document a line; csv: for spreadsheets, cannot be imported again; parquet',
  }),
  include_vectors: z.boolean().default(false).meta({ description: 'needed if the file is to be imported' }),
  select_fields: z
    .array(z.string().min(1).max(200))
    .min(1)
    .max(500)
    .nullish()
    .meta({ description: 'only these fields at the root of documents; all if left out' }),
  filters: FilterTree.nullish(),
  case_sensitive: z.boolean().nullish(),
  sample_size: z
    .int()
    .min(1)
    .max(1_000_000)
    .nullish()
    .meta({ description: 'so many documents, chosen evenly; the same ones each time' }),
  // Clients ask for it; provenance is always in the file.
  include_lineage: z.boolean().nullish(),
});

export const CollectionExport = z
  .object({
    export_id: z.string(),
    collection_id: z.string(),
    status: Status,
    task_id: z.string().nullable().meta({ description: 'where the export runs in the background' }),
    format: Format,
    download_url: z
      .string()
      .nullable()
      .meta({ description: 'reads the file for an hour; null until it is there' }),
    s3_path: z.string().nullable(),
    document_count: z.int(),
    file_size_bytes: z.int(),
    index_version: z
      .int()
      .nullable()
      .meta({ description: 'the one version of the index that all ids and vectors of the file are of' }),
    documents_changed: z.int().meta({
      description:
        'documents that were changed or deleted while the file was written; it has their newer fields, or leaves them out',
    }),
    exported_at: Timestamp.nullable(),
    vectors_download_url: z.null().meta({ description: 'vectors are columns of the file itself' }),
    vectors_s3_path: z.null(),
    progress: Progress,
    error: z.string().nullable(),
    warnings: Warnings,
  })
  .meta({ id: 'CollectionExport' });
export type CollectionExport = z.output<typeof CollectionExport>;

const ImportFormat = z.enum(['parquet', 'json']);

export const ImportUploadBody = z.strictObject({
  format: ImportFormat.default('parquet'),
  presigned_url_expiration: z.int().min(60).max(86_400).default(3600).meta({ description: 'seconds' }),
});

export const ImportUpload = z
  .object({
    upload_id: z.string(),
    collection_id: z.string(),
    format: ImportFormat,
    presigned_url: z.string().meta({ description: 'PUT the file here' }),
    content_type: z.string().meta({ description: 'the Content-Type that the PUT must send' }),
    file_size_bytes_max: z.int(),
    expires_at: Timestamp,
  })
  .meta({ id: 'ImportUpload' });

export const ImportBody = z
  .strictObject({
    upload_id: z.string().min(1).max(200).nullish().meta({ description: 'of POST .../import/uploads' }),
    s3_path: z
      .string()
      .min(1)
      .max(1000)
      .nullish()
      .meta({ description: 'of an export of this namespace, instead of an upload' }),
    format: ImportFormat.nullish().meta({ description: 'as the upload or the file name says, if left out' }),
    token: z
      .string()
      .regex(/^[!-~]{1,200}$/, 'a token has 1 to 200 printable characters without spaces')
      .nullish()
      .meta({
        description: 'names this import: repeating it changes nothing. The upload or path if left out',
      }),
  })
  .superRefine((body, ctx) => {
    if ((body.upload_id ?? null) !== null && (body.s3_path ?? null) === null) return;
    if ((body.upload_id ?? null) === null && (body.s3_path ?? null) !== null) return;
    ctx.addIssue({
      code: 'custom',
      path: ['upload_id'],
      message: 'either "upload_id" or "s3_path" is needed, and not both',
      params: {
        type: 'missing',
        fix: 'ask POST .../import/uploads for a URL, PUT the file there, send its upload_id',
      },
    });
  });

export const CollectionImport = z
  .object({
    import_id: z.string(),
    collection_id: z.string(),
    status: Status,
    task_id: z.string().nullable(),
    format: ImportFormat,
    row_count: z.int().meta({ description: 'rows of the file' }),
    document_count: z.int().meta({ description: 'documents that were written: rows without repeated ids' }),
    documents_added: z.int().meta({ description: 'of them, those that were not there before' }),
    documents_without_vectors: z
      .int()
      .meta({ description: 'of them, those that lack a vector of at least one feature' }),
    index_version: z.int().nullable().meta({ description: 'from this version on the documents can be seen' }),
    file_size_bytes: z.int(),
    imported_at: Timestamp.nullable(),
    progress: Progress,
    error: z.string().nullable(),
    validation_errors: z.array(
      z.object({
        type: z.string(),
        location: z.array(z.union([z.string(), z.number()])),
        message: z.string(),
        fix: z.string().optional(),
      }),
    ),
    warnings: Warnings,
  })
  .meta({ id: 'CollectionImport' });
export type CollectionImport = z.output<typeof CollectionImport>;

const tag = 'transfers';
const base = '/v1/namespaces/{namespace}/collections/{collection}';

export const routes = {
  exportCollection: route({
    operation: 'exportCollection',
    method: 'POST',
    path: `${base}/export`,
    tag,
    summary: 'Export documents, with their vectors if asked for, to a file',
    description:
      'Up to 20,000 documents and 16 MB of vectors are written before the answer (200). More become a task (202): ask for the export, or the task, until it is done. Files are kept for 7 days.',
    permission: 'read',
    rate: 'compute',
    body: ExportBody,
    bodyOptional: true,
    reply: CollectionExport,
    errors: ['collection_not_found', 'index_unavailable', 'index_corrupt', 'index_contended'],
    example: { body: { format: 'parquet', include_vectors: true } },
  }),
  getExport: route({
    operation: 'getExport',
    method: 'GET',
    path: `${base}/exports/{export}`,
    tag,
    summary: 'Read an export: how far it is, and a fresh URL of its file',
    reply: CollectionExport,
    errors: ['collection_not_found', 'export_not_found'],
  }),
  createImportUpload: route({
    operation: 'createImportUpload',
    method: 'POST',
    path: `${base}/import/uploads`,
    tag,
    summary: 'Ask for a URL to put a file to that will be imported',
    rate: 'upload',
    body: ImportUploadBody,
    bodyOptional: true,
    reply: ImportUpload,
    errors: ['collection_not_found'],
    example: { body: { format: 'parquet' } },
  }),
  importCollection: route({
    operation: 'importCollection',
    method: 'POST',
    path: `${base}/import`,
    tag,
    summary: 'Restore documents with their vectors from a file',
    description:
      'Ids are kept, and a document that is there already is replaced. Every row is checked before anything is stored; all documents become visible at once. Taxonomies, clusters and alerts do not run. Up to 5,000 rows and 32 MB are imported before the answer (200), more become a task (202).',
    rate: 'compute',
    body: ImportBody,
    reply: CollectionImport,
    errors: [
      'collection_not_found',
      'upload_not_found',
      'upload_expired',
      'upload_missing',
      'upload_changed',
      'upload_too_large',
      'import_invalid',
      'import_token_reused',
      'collection_busy',
      'index_contended',
    ],
    example: { body: { upload_id: 'upl_0mk2xq3c0a1b2c3d4e5f' } },
  }),
  getImport: route({
    operation: 'getImport',
    method: 'GET',
    path: `${base}/imports/{import}`,
    tag,
    summary: 'Read an import: how far it is, or why it was refused',
    reply: CollectionImport,
    errors: ['collection_not_found', 'import_not_found'],
  }),
};
