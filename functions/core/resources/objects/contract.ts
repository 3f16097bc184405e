// Objects: what users put into buckets, a list of blobs each. Tutorial step 4.
import * as z from 'zod';
import { route } from '../../http/route.ts';
import { ListBody, ListQuery, listReply, Metadata, NoContent, Timestamp } from '../../http/schemas.ts';

/**
 * Bodies of objects are checked against their bucket's schema by the service, which reports every fault at once, traps
 * included; two checks one after the other would show the second half only once the first is mended. So the parser here
 * takes any JSON object, and the document gets the form in words.
 */
const blobForm = {
  type: 'object',
  required: ['property', 'type'],
  properties: {
    property: { type: 'string', description: 'a property of the bucket schema' },
    type: { type: 'string', description: 'the type of that property' },
    data: { description: 'the value: text, number, boolean, list or object; an https URL for binary types' },
    upload_id: { type: 'string', description: 'a confirmed upload, instead of data' },
    metadata: { type: 'object' },
  },
} as const;

const objectForm = (required: string[]) => ({
  type: 'object' as const,
  required,
  properties: {
    blobs: { type: 'array' as const, minItems: 1, maxItems: 100, items: blobForm },
    metadata: { type: 'object' as const, description: 'fields that every document of the object carries' },
    key_prefix: { type: 'string' as const },
    idempotency_key: { type: 'string' as const },
  },
  additionalProperties: { description: 'the value of a property of the bucket schema' },
});

// biome-ignore lint/suspicious/noExplicitAny: the override is a JSON schema, which zod-openapi types more narrowly than it reads.
const documented = (id: string, form: unknown) => ({ id, override: form as any });

export const CreateObjectBody = z
  .record(z.string(), z.unknown())
  .meta(documented('CreateObject', objectForm(['blobs'])));
export const UpdateObjectBody = z
  .record(z.string(), z.unknown())
  .meta(documented('UpdateObject', objectForm([])));

export const CreateObjectsBody = z.strictObject({ objects: z.array(z.unknown()).min(1).max(100) }).meta(
  documented('CreateObjects', {
    type: 'object',
    required: ['objects'],
    properties: { objects: { type: 'array', minItems: 1, maxItems: 100, items: objectForm(['blobs']) } },
  }),
);

export const Blob = z
  .object({
    blob_id: z.string(),
    property: z.string(),
    type: z.string(),
    data: z.json().nullable().meta({ description: 'inline value; null where the content is stored apart' }),
    url: z.string().nullable().meta({ description: 's3:// name of content that is stored apart' }),
    presigned_url: z.string().nullable(),
    mime_type: z.string(),
    size_bytes: z.int(),
  })
  .meta({ id: 'Blob' });

export const BucketObject = z
  .object({
    object_id: z.string(),
    bucket_id: z.string(),
    key_prefix: z.string().nullable(),
    blobs: z.array(Blob),
    metadata: Metadata,
    status: z.literal('ACTIVE'),
    version: z.int(),
    created_at: Timestamp,
    updated_at: Timestamp,
  })
  .meta({ id: 'Object' });
export type BucketObject = z.output<typeof BucketObject>;

export const CreatedObjects = z
  .object({
    succeeded: z.array(BucketObject),
    failed: z.array(
      z.object({
        object_index: z.int(),
        error: z.string(),
        error_type: z.string(),
        validation_errors: z.array(z.json()),
      }),
    ),
    results: z.array(
      z.object({ index: z.int(), status: z.enum(['created', 'failed']), object_id: z.string().nullable() }),
    ),
    total_requested: z.int(),
    succeeded_count: z.int(),
    failed_count: z.int(),
  })
  .meta({ id: 'CreatedObjects' });

const UrlsQuery = z.strictObject({ return_presigned_urls: z.stringbool().default(false) });
const tag = 'objects';
const base = '/v1/namespaces/{namespace}/buckets/{bucket}/objects';
const one = `${base}/{object}` as const;

export const routes = {
  createObject: route({
    operation: 'createObject',
    method: 'POST',
    path: base,
    tag,
    summary: 'Put an object into a bucket',
    rate: 'data',
    body: CreateObjectBody,
    reply: BucketObject,
    errors: ['bucket_not_found', 'object_invalid', 'blob_url_refused'],
    example: {
      body: {
        blobs: [{ property: 'text', type: 'text', data: 'Tomatoes want sun, and water at the root.' }],
        metadata: { topic: 'gardening' },
      },
    },
  }),
  createObjects: route({
    operation: 'createObjects',
    method: 'POST',
    path: `${base}/batch`,
    tag,
    summary: 'Put up to 100 objects into a bucket',
    description:
      'Good objects are stored, bad ones are listed with their faults; one bad object does not keep the others out.',
    rate: 'data',
    body: CreateObjectsBody,
    reply: CreatedObjects,
    errors: ['bucket_not_found'],
  }),
  listObjects: route({
    operation: 'listObjects',
    method: 'GET',
    path: base,
    tag,
    summary: 'List objects, newest first',
    rate: 'data',
    query: ListQuery,
    reply: listReply(BucketObject),
    errors: ['bucket_not_found'],
  }),
  searchObjects: route({
    operation: 'searchObjects',
    method: 'POST',
    path: `${base}/list`,
    tag,
    summary: 'List objects by search, filter and order',
    permission: 'read',
    rate: 'data',
    query: ListQuery,
    body: ListBody.extend({
      return_presigned_urls: z.boolean().nullish(),
      select: z.array(z.string()).nullish(),
    }),
    bodyOptional: true,
    reply: listReply(BucketObject),
    errors: ['bucket_not_found'],
  }),
  getObject: route({
    operation: 'getObject',
    method: 'GET',
    path: one,
    tag,
    summary: 'Read an object',
    rate: 'data',
    query: UrlsQuery,
    reply: BucketObject,
    errors: ['bucket_not_found', 'object_not_found'],
  }),
  putObject: route({
    operation: 'putObject',
    method: 'PUT',
    path: one,
    tag,
    summary: 'Replace the blobs or the metadata of an object',
    description: 'The next batch makes its documents anew.',
    rate: 'data',
    body: UpdateObjectBody,
    reply: BucketObject,
    errors: ['bucket_not_found', 'object_not_found', 'object_invalid', 'object_changed', 'request_stale'],
  }),
  patchObject: route({
    operation: 'patchObject',
    method: 'PATCH',
    path: one,
    tag,
    summary: 'Change single blobs or metadata fields of an object',
    description: 'Blobs replace those of the same property; metadata fields are merged, null removes one.',
    rate: 'data',
    body: UpdateObjectBody,
    reply: BucketObject,
    errors: ['bucket_not_found', 'object_not_found', 'object_invalid', 'object_changed', 'request_stale'],
  }),
  deleteObject: route({
    operation: 'deleteObject',
    method: 'DELETE',
    path: one,
    tag,
    summary: 'Delete an object; documents that were made from it stay',
    rate: 'data',
    reply: NoContent,
    status: 204,
    errors: ['bucket_not_found', 'object_not_found', 'request_stale'],
  }),
};
