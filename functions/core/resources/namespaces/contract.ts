// Namespaces: the tenants of an organisation. Everything else lives in one.
import * as z from 'zod';
import { backendNames, storageFormats } from '../../backends/registry.ts';
import { route } from '../../http/route.ts';
import {
  Description,
  ListBody,
  ListQuery,
  listReply,
  Metadata,
  nameOf,
  Timestamp,
} from '../../http/schemas.ts';
import { agree } from '../../http/spellings.ts';

const Name = nameOf('ns_');

const Backend = z.enum(backendNames).meta({
  id: 'VectorBackend',
  description:
    'segments: every search is an exact scan. s3_vectors, lancedb: candidates of large features come from a copy there, and their scores from the segments.',
});
const Storage = z.enum(storageFormats).meta({
  id: 'VectorStorage',
  description: 'How vectors are kept: bfloat16 halves their bytes and rounds them to 8 bits of precision.',
});

export const VectorIndexSettings = z
  .strictObject({ backend: Backend.default('segments'), storage: Storage.default('float32') })
  .meta({ id: 'VectorIndexSettings' });

const Plan = z.object({
  container_images: z
    .boolean()
    .meta({ description: 'plugins may bring container images, where the stage runs any' }),
});

/** What is left out stays as it is; only keys with the permission "admin" may name any of it. */
const PlanChange = z
  .strictObject({ container_images: z.boolean().optional() })
  .meta({ id: 'NamespacePlan', description: 'only for keys with the permission "admin"' });

export const CreateNamespaceBody = z
  .strictObject({
    namespace_name: Name.optional(),
    name: Name.optional(),
    description: Description.nullish(),
    metadata: Metadata.optional(),
    vector_index: VectorIndexSettings.optional(),
    plan: PlanChange.optional(),
    // Clients send these; plugins register themselves by their upload, and fields are indexed as they appear.
    feature_extractors: z.array(z.json()).max(100).optional(),
    payload_indexes: z.array(z.json()).max(100).nullish(),
    auto_create_indexes: z.boolean().nullish(),
    namespace_type: z.literal('standard').optional(),
  })
  .superRefine((body, ctx) => {
    if (body.name === undefined && body.namespace_name === undefined) {
      ctx.addIssue({
        code: 'custom',
        path: ['namespace_name'],
        message: 'required, a name is expected',
        params: { type: 'missing' },
      });
    }
    agree(ctx, body, 'name', 'namespace_name');
  })
  .transform(({ name, namespace_name, ...rest }) => ({ ...rest, name: (namespace_name ?? name)! }))
  .meta({ id: 'CreateNamespace' });

export const UpdateNamespaceBody = z
  .strictObject({
    namespace_name: Name.optional(),
    name: Name.optional(),
    description: Description.nullish(),
    metadata: Metadata.optional(),
    plan: PlanChange.optional(),
  })
  .superRefine((body, ctx) => agree(ctx, body, 'name', 'namespace_name'))
  .transform(({ name, namespace_name, ...rest }) => ({ ...rest, name: namespace_name ?? name }))
  .meta({ id: 'UpdateNamespace' });

export const Namespace = z
  .object({
    namespace_id: z.string(),
    namespace_name: z.string(),
    name: z.string(),
    namespace_type: z.literal('standard'),
    description: z.string().nullable(),
    metadata: Metadata,
    vector_index: z.object({ backend: Backend, storage: Storage }),
    plan: Plan,
    version: z.int(),
    created_at: Timestamp,
    updated_at: Timestamp,
    warnings: z.array(z.string()).optional(),
  })
  .meta({ id: 'Namespace' });
export type Namespace = z.output<typeof Namespace>;

export const NamespaceDeletion = z
  .object({ success: z.literal(true), message: z.string(), namespace_id: z.string() })
  .meta({ id: 'NamespaceDeletion' });

/** One feature of one collection: what the segments hold, and the copies of it. */
const FeatureIndex = z.object({
  collection_id: z.string(),
  feature_uri: z.string(),
  dims: z.int(),
  metric: z.string(),
  version: z.int().meta({ description: 'of the index of the collection; grows with each commit' }),
  stored_rows: z.int().meta({ description: 'rows in segments, replaced and deleted ones included' }),
  copies: z.array(
    z.object({
      backend: Backend,
      synced_version: z
        .int()
        .meta({ description: 'the copy holds what this version shows; newer rows are scanned' }),
      rows: z.int().meta({ description: 'live rows at that version, all of them in the copy' }),
      error: z.string().nullable(),
    }),
  ),
});

export const VectorIndexState = z
  .object({
    namespace_id: z.string(),
    backend: Backend,
    storage: Storage,
    state: z.enum(['ready', 'migrating']),
    migration: z
      .object({ to: Backend, task_id: z.string(), started_at: Timestamp })
      .nullable()
      .meta({ description: 'the move that is under way' }),
    enabled_backends: z.array(Backend).meta({ description: 'those that this stage can use' }),
    features: z.array(FeatureIndex),
  })
  .meta({ id: 'VectorIndexState' });

export const MigrateVectorIndexBody = z.strictObject({ backend: Backend }).meta({ id: 'MigrateVectorIndex' });

export const VectorIndexMigration = z
  .object({ task_id: z.string(), from: Backend, to: Backend, state: z.literal('migrating') })
  .meta({ id: 'VectorIndexMigration' });

const tag = 'namespaces';
const base = '/v1/namespaces';

export const routes = {
  createNamespace: route({
    operation: 'createNamespace',
    method: 'POST',
    path: base,
    tag,
    summary: 'Make a namespace',
    body: CreateNamespaceBody,
    reply: Namespace,
    errors: ['namespace_name_taken', 'quota_exceeded', 'vector_backend_not_enabled'],
    example: { body: { namespace_name: 'newsroom' } },
  }),
  listNamespaces: route({
    operation: 'listNamespaces',
    method: 'GET',
    path: base,
    tag,
    summary: 'List namespaces, newest first',
    query: ListQuery,
    reply: listReply(Namespace),
  }),
  searchNamespaces: route({
    operation: 'searchNamespaces',
    method: 'POST',
    path: `${base}/list`,
    tag,
    summary: 'List namespaces by search, filter and order',
    permission: 'read',
    query: ListQuery,
    body: ListBody,
    bodyOptional: true,
    reply: listReply(Namespace),
  }),
  getNamespace: route({
    operation: 'getNamespace',
    method: 'GET',
    path: `${base}/{namespace}`,
    tag,
    summary: 'Read a namespace by id or name',
    reply: Namespace,
    errors: ['namespace_not_found'],
  }),
  putNamespace: route({
    operation: 'putNamespace',
    method: 'PUT',
    path: `${base}/{namespace}`,
    tag,
    summary: 'Change a namespace',
    body: UpdateNamespaceBody,
    reply: Namespace,
    errors: ['namespace_not_found', 'namespace_name_taken', 'namespace_changed', 'request_stale'],
  }),
  patchNamespace: route({
    operation: 'patchNamespace',
    method: 'PATCH',
    path: `${base}/{namespace}`,
    tag,
    summary: 'Change parts of a namespace',
    body: UpdateNamespaceBody,
    reply: Namespace,
    errors: ['namespace_not_found', 'namespace_name_taken', 'namespace_changed', 'request_stale'],
  }),
  deleteNamespace: route({
    operation: 'deleteNamespace',
    method: 'DELETE',
    path: `${base}/{namespace}`,
    tag,
    summary: 'Delete a namespace with everything in it',
    description: 'It is gone for every request at once; its rows and objects are removed in the background.',
    reply: NamespaceDeletion,
    errors: ['namespace_not_found'],
  }),
  getVectorIndex: route({
    operation: 'getVectorIndex',
    method: 'GET',
    path: `${base}/{namespace}/vector-index`,
    tag,
    summary: 'Read where the vectors of a namespace are, and how far their copies are',
    reply: VectorIndexState,
    errors: ['namespace_not_found', 'index_unavailable', 'index_corrupt'],
  }),
  migrateVectorIndex: route({
    operation: 'migrateVectorIndex',
    method: 'POST',
    path: `${base}/{namespace}/vector-index/migrate`,
    tag,
    summary: 'Move a namespace to another vector backend',
    description:
      'Copies every feature, compares the counts, and switches when they match. Searches and writes go on meanwhile. Follow it by the task.',
    rate: 'compute',
    status: 202,
    body: MigrateVectorIndexBody,
    reply: VectorIndexMigration,
    errors: [
      'namespace_not_found',
      'namespace_changed',
      'vector_backend_not_enabled',
      'vector_index_migrating',
      'vector_index_unchanged',
    ],
    example: { body: { backend: 'segments' } },
  }),
};
