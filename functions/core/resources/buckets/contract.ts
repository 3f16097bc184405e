// Buckets: where objects are put, and the schema that every object must fit. Tutorial step 4.
import * as z from 'zod';
import { route } from '../../http/route.ts';
import {
  DeleteReply,
  Description,
  ListBody,
  ListQuery,
  listReply,
  Metadata,
  nameOf,
  Timestamp,
} from '../../http/schemas.ts';
import { agree } from '../../http/spellings.ts';
import { isReserved } from '../../reserved-fields.ts';

/** Types of a schema property. Binary ones come by upload or URL, the others inline. */
export const textTypes = ['text', 'string', 'url'] as const;
export const scalarTypes = [
  'number',
  'float',
  'integer',
  'boolean',
  'datetime',
  'date',
  'json',
  'object',
  'array',
] as const;
export const binaryTypes = ['image', 'audio', 'video', 'pdf', 'document', 'file', 'excel', 'binary'] as const;
export const propertyTypes = [...textTypes, ...scalarTypes, ...binaryTypes] as const;
export type PropertyType = (typeof propertyTypes)[number];

export const Property = z
  .strictObject({
    type: z.enum(propertyTypes),
    required: z.boolean().default(false),
    description: Description.optional(),
    enum: z
      .array(z.union([z.string(), z.number()]))
      .min(1)
      .max(100)
      .optional(),
    default: z.json().optional(),
  })
  .meta({ id: 'BucketProperty' });
export type Property = z.output<typeof Property>;

/** Properties become fields of documents, so the names of the service are not free. */
const PropertyName = z
  .string()
  .regex(
    /^[A-Za-z_][A-Za-z0-9_]{0,99}$/,
    'a property name has 1 to 100 letters, digits and "_", and begins with no digit',
  )
  .refine((name) => !isReserved(name), {
    error: (issue) =>
      `the property name ${JSON.stringify(issue.input)} is reserved: documents keep values of the service there`,
    params: {
      fix: 'choose another name, such as "rating" instead of "score"; names with a leading "_" are reserved too',
    },
  });

export const BucketSchema = z
  .strictObject({
    properties: z
      .record(PropertyName, Property)
      .refine(
        (p) => Object.keys(p).length >= 1 && Object.keys(p).length <= 100,
        'a schema has 1 to 100 properties',
      ),
  })
  .meta({ id: 'BucketSchema', example: { properties: { text: { type: 'text', required: true } } } });
export type BucketSchema = z.output<typeof BucketSchema>;

const Name = nameOf('bkt_');

/** The tutorial says `name`, clients say `bucket_name`; both at once must agree. */
const oneName = (
  body: { readonly name?: string | undefined; readonly bucket_name?: string | undefined },
  ctx: z.RefinementCtx,
): void => agree(ctx, body, 'bucket_name', 'name');

export const CreateBucketBody = z
  .strictObject({
    name: Name.optional(),
    bucket_name: Name.optional(),
    description: Description.nullish(),
    bucket_schema: BucketSchema,
    metadata: Metadata.optional(),
  })
  .superRefine((body, ctx) => {
    oneName(body, ctx);
    if (body.name === undefined && body.bucket_name === undefined) {
      ctx.addIssue({
        code: 'custom',
        path: ['name'],
        message: 'required, a name is expected',
        params: { type: 'missing' },
      });
    }
  })
  .transform(({ name, bucket_name, ...rest }) => ({ ...rest, name: (name ?? bucket_name)! }))
  .meta({ id: 'CreateBucket' });

/** PUT and PATCH alike: what is left out stays. Existing properties of the schema keep their type. */
export const UpdateBucketBody = z
  .strictObject({
    name: Name.optional(),
    bucket_name: Name.optional(),
    description: Description.nullish(),
    bucket_schema: BucketSchema.optional(),
    metadata: Metadata.optional(),
  })
  .superRefine(oneName)
  .transform(({ name, bucket_name, ...rest }) => ({ ...rest, name: name ?? bucket_name }))
  .meta({ id: 'UpdateBucket' });

export const Bucket = z
  .object({
    bucket_id: z.string(),
    bucket_name: z.string(),
    name: z.string(),
    description: z.string().nullable(),
    bucket_schema: BucketSchema,
    metadata: Metadata,
    version: z.int(),
    created_at: Timestamp,
    updated_at: Timestamp,
  })
  .meta({ id: 'Bucket' });
export type Bucket = z.output<typeof Bucket>;

const tag = 'buckets';
const base = '/v1/namespaces/{namespace}/buckets';

export const routes = {
  createBucket: route({
    operation: 'createBucket',
    method: 'POST',
    path: base,
    tag,
    summary: 'Make a bucket',
    body: CreateBucketBody,
    reply: Bucket,
    errors: ['bucket_name_taken', 'quota_exceeded'],
    example: {
      body: { name: 'articles', bucket_schema: { properties: { text: { type: 'text', required: true } } } },
    },
  }),
  listBuckets: route({
    operation: 'listBuckets',
    method: 'GET',
    path: base,
    tag,
    summary: 'List buckets, newest first',
    query: ListQuery,
    reply: listReply(Bucket),
  }),
  searchBuckets: route({
    operation: 'searchBuckets',
    method: 'POST',
    path: `${base}/list`,
    tag,
    summary: 'List buckets by search, filter and order',
    permission: 'read',
    query: ListQuery,
    body: ListBody,
    bodyOptional: true,
    reply: listReply(Bucket),
  }),
  getBucket: route({
    operation: 'getBucket',
    method: 'GET',
    path: `${base}/{bucket}`,
    tag,
    summary: 'Read a bucket by id or name',
    reply: Bucket,
    errors: ['bucket_not_found'],
  }),
  putBucket: route({
    operation: 'putBucket',
    method: 'PUT',
    path: `${base}/{bucket}`,
    tag,
    summary: 'Change a bucket',
    body: UpdateBucketBody,
    reply: Bucket,
    errors: ['bucket_not_found', 'bucket_name_taken', 'bucket_changed', 'request_stale'],
  }),
  patchBucket: route({
    operation: 'patchBucket',
    method: 'PATCH',
    path: `${base}/{bucket}`,
    tag,
    summary: 'Change parts of a bucket',
    body: UpdateBucketBody,
    reply: Bucket,
    errors: ['bucket_not_found', 'bucket_name_taken', 'bucket_changed', 'request_stale'],
  }),
  deleteBucket: route({
    operation: 'deleteBucket',
    method: 'DELETE',
    path: `${base}/{bucket}`,
    tag,
    summary: 'Delete an empty bucket that no collection reads',
    query: z.strictObject({
      force: z.stringbool().default(false).meta({ description: 'delete its objects too' }),
    }),
    reply: DeleteReply,
    errors: ['bucket_not_found', 'bucket_in_use', 'bucket_changed', 'request_stale'],
  }),
};
