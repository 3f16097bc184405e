// Documents: what batches made of objects. Read, list, change, delete. Tutorial step 5.
import * as z from 'zod';
import { route } from '../../http/route.ts';
import { DeleteReply, ListBody, ListQuery, listReply } from '../../http/schemas.ts';

const Lineage = z.object({
  bucket_id: z.string(),
  object_id: z.string(),
  object_version: z.int(),
  batch_id: z.string(),
  feature_extractor_id: z.string(),
  feature_extractor_ids: z.array(z.string()),
  ordinal: z.int(),
});

export const Document = z
  .looseObject({
    document_id: z.string(),
    collection_id: z.string(),
    metadata: z.record(z.string(), z.json()).meta({ description: 'the fields at the root once more' }),
    document_blobs: z.array(
      z.object({
        field: z.string(),
        role: z.literal('source'),
        type: z.string(),
        blob_id: z.string(),
        mime_type: z.string(),
        size_bytes: z.int(),
        url: z.string().optional(),
        presigned_url: z.string().optional(),
      }),
    ),
    vectors: z.record(z.string(), z.array(z.number())).optional().meta({ description: 'by feature URI' }),
    _internal: z.looseObject({
      lineage: Lineage,
      enrichments: z.array(z.looseObject({ field: z.string(), value: z.json() })),
      version: z.int(),
      created_at: z.string(),
      updated_at: z.string(),
    }),
  })
  .meta({ id: 'Document' });
export type Document = z.input<typeof Document>;

/** Any fields; `metadata.x` is `x`. */
export const DocumentFields = z.record(z.string().min(1).max(200), z.json());

const flags = {
  return_vectors: z.stringbool().default(false).meta({ description: 'add the vectors, by feature URI' }),
  return_presigned_urls: z
    .stringbool()
    .default(false)
    .meta({ description: 'add URLs that read the blobs for an hour' }),
};

export const DocumentListQuery = z.strictObject({ ...ListQuery.shape, ...flags });
export const DocumentListBody = z.strictObject({
  ...ListBody.shape,
  return_vectors: z.boolean().nullish(),
  return_presigned_urls: z.boolean().nullish(),
  return_url: z.boolean().nullish(),
});

const tag = 'documents';
const base = '/v1/namespaces/{namespace}/collections/{collection}/documents';

export const routes = {
  listDocuments: route({
    operation: 'listDocuments',
    method: 'GET',
    path: base,
    tag,
    summary: 'List the documents of a collection, newest first',
    rate: 'data',
    target: 'query',
    query: DocumentListQuery,
    reply: listReply(Document),
    errors: ['collection_not_found', 'request_bad_cursor', 'index_unavailable', 'index_corrupt'],
  }),
  searchDocuments: route({
    operation: 'searchDocuments',
    method: 'POST',
    path: `${base}/list`,
    tag,
    summary: 'List documents by search, filter and order',
    permission: 'read',
    rate: 'data',
    target: 'query',
    query: DocumentListQuery,
    body: DocumentListBody,
    bodyOptional: true,
    reply: listReply(Document),
    errors: ['collection_not_found', 'request_bad_cursor', 'index_unavailable', 'index_corrupt'],
    example: { body: { filters: { field: 'metadata.topic', operator: 'eq', value: 'physics' }, limit: 10 } },
  }),
  getDocument: route({
    operation: 'getDocument',
    method: 'GET',
    path: `${base}/{document}`,
    tag,
    summary: 'Read a document',
    rate: 'data',
    target: 'query',
    query: z.strictObject(flags),
    reply: Document,
    errors: ['collection_not_found', 'document_not_found', 'index_unavailable', 'index_corrupt'],
  }),
  putDocument: route({
    operation: 'putDocument',
    method: 'PUT',
    path: `${base}/{document}`,
    tag,
    summary: 'Replace the fields of a document',
    rate: 'data',
    body: DocumentFields,
    reply: Document,
    errors: [
      'collection_not_found',
      'document_not_found',
      'document_changed',
      'document_too_large',
      'request_stale',
      'index_contended',
    ],
  }),
  patchDocument: route({
    operation: 'patchDocument',
    method: 'PATCH',
    path: `${base}/{document}`,
    tag,
    summary: 'Set fields of a document',
    description: 'When this has answered, a filtered search sees the new values.',
    rate: 'data',
    body: DocumentFields,
    reply: Document,
    errors: [
      'collection_not_found',
      'document_not_found',
      'document_changed',
      'document_too_large',
      'request_stale',
      'index_contended',
    ],
    example: { body: { topic: 'physics' } },
  }),
  deleteDocument: route({
    operation: 'deleteDocument',
    method: 'DELETE',
    path: `${base}/{document}`,
    tag,
    summary: 'Delete a document',
    rate: 'data',
    reply: DeleteReply,
    errors: [
      'collection_not_found',
      'document_not_found',
      'document_changed',
      'request_stale',
      'index_contended',
    ],
  }),
};
