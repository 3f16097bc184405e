// Namespaces: the tenants of an organisation. Everything else lives in one.
import * as z from 'zod';
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

export const CreateNamespaceBody = z
  .strictObject({
    namespace_name: Name.optional(),
    name: Name.optional(),
    description: Description.nullish(),
    metadata: Metadata.optional(),
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
    errors: ['namespace_name_taken', 'quota_exceeded'],
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
};
