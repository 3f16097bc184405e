// Documents: what batches made of objects. Read, list, change, delete. Tutorial step 5.
import * as z from 'zod';
import { route } from '../../http/route.ts';
import {
  DeleteReply,
  FilterTree,
  ListBody,
  ListQuery,
  listReply,
  Pagination,
  Warnings,
} from '../../http/schemas.ts';

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

const scalar = z.union([z.string(), z.number(), z.boolean(), z.null()]);
const counted = z.object({
  value: scalar,
  count: z.int().meta({ description: 'documents that hold it; a list holds each of its elements' }),
});

const Field = z.string().min(1).max(256).meta({ description: '`metadata.x` is `x`' });

export const DistinctBody = z
  .strictObject({
    field: Field,
    filters: FilterTree.nullish(),
    prefix: z.string().max(200).nullish().meta({ description: 'only texts that begin so' }),
    case_sensitive: z
      .boolean()
      .nullish()
      .meta({ description: 'whether letter case counts, in the prefix and in the filter' }),
    order: z
      .enum(['value', 'count'])
      .default('value')
      .meta({ description: 'by value (numbers, texts, booleans, null), or most frequent first' }),
    limit: z.int().min(1).max(1000).default(100),
    offset: z.int().min(0).max(10_000).nullish(),
    cursor: z.string().max(4000).nullish(),
  })
  .meta({ id: 'DistinctValuesRequest' });

export const DistinctReply = z
  .object({
    field: z.string(),
    values: z.array(counted),
    total: z.int().meta({ description: 'distinct values in all' }),
    missing_count: z.int().meta({ description: 'documents that pass the filter and do not have the field' }),
    pagination: Pagination,
    warnings: Warnings,
  })
  .meta({ id: 'DistinctValuesResponse' });

export const DeleteManyBody = z
  .strictObject({
    document_ids: z
      .array(z.string().min(1).max(100))
      .min(1)
      .max(10_000)
      .nullish()
      .meta({ description: 'either these or `filters`' }),
    filters: FilterTree.nullish().meta({
      description:
        'deletes what matches; a filter that names no field, or reaches documents by one that none has, is refused',
    }),
    case_sensitive: z.boolean().nullish().meta({ description: 'whether letter case counts in the filter' }),
    reason: z.string().max(500).nullish().meta({ description: 'kept in the audit trail' }),
  })
  .superRefine((body, ctx) => {
    const given = [body.document_ids, body.filters].filter((part) => part !== undefined && part !== null);
    if (given.length === 1) return;
    ctx.addIssue({
      code: 'custom',
      path: ['document_ids'],
      message:
        given.length === 0
          ? 'nothing is named: send document_ids or filters'
          : 'document_ids and filters cannot be sent together: send one of them',
      params: { type: given.length === 0 ? 'missing' : 'wrong_value' },
    });
  })
  .meta({ id: 'BatchDeleteDocumentsRequest' });

export const DeleteManyReply = z
  .object({
    deleted_count: z.int(),
    document_ids: z.array(z.string()).meta({ description: 'of what was deleted; at most 1,000' }),
    failed_count: z.int(),
    failed: z
      .array(
        z.object({
          document_id: z.string(),
          code: z.enum(['document_not_found', 'document_changed']),
          message: z.string(),
        }),
      )
      .meta({ description: 'at most 1,000' }),
    remaining_count: z
      .int()
      .meta({ description: 'documents for which the call had no time: repeat it to delete them' }),
    warnings: Warnings,
  })
  .meta({ id: 'BatchDeleteDocumentsResponse' });

const Alias = z
  .string()
  .regex(/^[A-Za-z][A-Za-z0-9_]{0,63}$/, 'an alias has 1 to 64 letters, digits and "_", a letter first');

export const AggregateBody = z
  .strictObject({
    group_by: z
      .array(z.strictObject({ field: Field, alias: Alias.nullish() }))
      .min(1)
      .max(5)
      .meta({ description: 'a list puts a document into the group of each of its elements' }),
    aggregations: z
      .array(
        z.strictObject({
          function: z.enum(['count', 'count_distinct', 'sum', 'avg', 'min', 'max']),
          field: Field.nullish().meta({ description: 'not needed for `count`, which then counts documents' }),
          distinct_field: Field.nullish().meta({ description: 'as `field`, for `count_distinct`' }),
          alias: Alias,
        }),
      )
      .min(1)
      .max(20),
    filters: FilterTree.nullish(),
    case_sensitive: z.boolean().nullish(),
    having: z
      .array(z.strictObject({ field: z.string().max(64), operator: z.string().max(40), value: z.json() }))
      .max(20)
      .nullish()
      .meta({ description: 'conditions on aggregations by their alias, all of which must hold' }),
    sort_by: z
      .string()
      .max(256)
      .nullish()
      .meta({ description: 'alias of an aggregation (the first, if left out) or a group field' }),
    sort_direction: z.enum(['asc', 'desc']).default('desc'),
    limit: z.int().min(1).max(1000).default(100),
  })
  .superRefine((body, ctx) => {
    const seen = new Set<string>();
    const check = (name: string, path: (string | number)[]) => {
      if (seen.has(name)) {
        ctx.addIssue({
          code: 'custom',
          path,
          message: `"${name}" names two members of the result`,
          params: { type: 'wrong_value' },
        });
      }
      seen.add(name);
    };
    for (const [i, { field, alias }] of body.group_by.entries())
      check(alias ?? field, ['group_by', i, alias == null ? 'field' : 'alias']);
    for (const [i, one] of body.aggregations.entries()) {
      check(one.alias, ['aggregations', i, 'alias']);
      if (one.function === 'count' || one.field != null || one.distinct_field != null) continue;
      const message = `\`${one.function}\` needs a field`;
      ctx.addIssue({
        code: 'custom',
        path: ['aggregations', i, 'field'],
        message,
        params: { type: 'missing' },
      });
    }
  })
  .meta({ id: 'DocumentAggregationRequest' });

export const AggregateReply = z
  .object({
    results: z.array(
      z.object({
        group: z
          .record(z.string(), scalar)
          .meta({ description: 'by alias or field; a field that the documents do not have is left out' }),
        metrics: z
          .record(z.string(), scalar)
          .meta({ description: 'by alias; null where there is nothing to take it from' }),
      }),
    ),
    total_groups: z.int().meta({ description: 'groups that `having` lets through' }),
    query_info: z.object({ documents: z.int(), groups: z.int() }),
    warnings: Warnings,
  })
  .meta({ id: 'DocumentAggregationResponse' });

const deleteMany = {
  permission: 'delete',
  rate: 'data',
  body: DeleteManyBody,
  reply: DeleteManyReply,
  errors: ['collection_not_found', 'index_contended', 'index_unavailable', 'index_corrupt'],
} as const;

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
  distinctDocuments: route({
    operation: 'distinctDocuments',
    method: 'POST',
    path: `${base}/distinct`,
    tag,
    summary: 'List the distinct values of a field, with the number of documents that hold each',
    description: 'Exact, over every document that the filter lets through.',
    permission: 'read',
    rate: 'data',
    target: 'query',
    body: DistinctBody,
    reply: DistinctReply,
    errors: ['collection_not_found', 'request_bad_cursor', 'index_unavailable', 'index_corrupt'],
    example: {
      body: {
        field: 'metadata.topic',
        filters: { field: 'metadata.year', operator: 'gte', value: 2020 },
        prefix: 'ph',
        limit: 20,
      },
    },
  }),
  aggregateDocuments: route({
    operation: 'aggregateDocuments',
    method: 'POST',
    path: `${base}/aggregate`,
    tag,
    summary: 'Group documents by fields, with counts, sums, averages and extremes',
    description: 'Exact, over every document that the filter lets through.',
    permission: 'read',
    rate: 'data',
    target: 'query',
    body: AggregateBody,
    reply: AggregateReply,
    errors: ['collection_not_found', 'index_unavailable', 'index_corrupt'],
    example: {
      body: {
        group_by: [{ field: 'metadata.topic' }],
        aggregations: [
          { function: 'count', alias: 'documents' },
          { function: 'avg', field: 'metadata.year', alias: 'average_year' },
        ],
        having: [{ field: 'documents', operator: 'gte', value: 2 }],
        sort_by: 'documents',
        limit: 10,
      },
    },
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
  deleteDocuments: route({
    ...deleteMany,
    operation: 'deleteDocuments',
    method: 'DELETE',
    path: `${base}/batch`,
    tag,
    summary: 'Delete documents by their ids or by a filter, at most 10,000',
    description:
      'For clients that cannot send a body with DELETE there is `POST .../documents/batch-delete`.',
    example: { body: { filters: { field: 'metadata.topic', operator: 'eq', value: 'physics' } } },
  }),
  batchDeleteDocuments: route({
    ...deleteMany,
    operation: 'batchDeleteDocuments',
    method: 'POST',
    path: `${base}/batch-delete`,
    tag,
    summary: 'Delete documents by their ids or by a filter, at most 10,000',
    description: 'Groups of documents go at once; after a failure the same call finishes the rest.',
    example: { body: { document_ids: ['doc_0123456789abcdefghij'] } },
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
