// API keys of an organisation: shown once, stored hashed, narrowed, rotated, revoked. API rules, section 2.
import * as z from 'zod';
import { keyPermissions } from '../../http/principal.ts';
import { route } from '../../http/route.ts';
import {
  DeleteReply,
  Description,
  ListBody,
  ListQuery,
  listReply,
  Timestamp,
  TitleName,
} from '../../http/schemas.ts';
import { agree } from '../../http/spellings.ts';

const Permissions = z
  .array(z.enum(keyPermissions))
  .min(1)
  .transform((list) => [...new Set(list)]);

export const CreateKeyBody = z
  .strictObject({
    name: TitleName.optional(),
    key_name: TitleName.optional(),
    description: Description.nullish(),
    permissions: Permissions.default(['read', 'write', 'delete', 'admin']),
    scopes: z
      .strictObject({
        namespace_ids: z
          .array(z.string().regex(/^ns_[a-z0-9]{20}$/))
          .min(1)
          .max(20),
      })
      .nullish()
      .meta({ description: 'narrows the key to these namespaces' }),
    expires_at: Timestamp.nullish(),
  })
  .superRefine((body, ctx) => {
    if (body.name === undefined && body.key_name === undefined) {
      ctx.addIssue({
        code: 'custom',
        path: ['name'],
        message: 'required, a name is expected',
        params: { type: 'missing' },
      });
    }
    agree(ctx, body, 'key_name', 'name');
    if (body.scopes && body.permissions.includes('admin')) {
      ctx.addIssue({
        code: 'custom',
        path: ['scopes'],
        message: 'a key with the permission "admin" acts on the whole organisation and cannot be narrowed',
        params: { fix: 'leave "admin" out of permissions' },
      });
    }
  })
  .transform(({ name, key_name, ...rest }) => ({ ...rest, name: (name ?? key_name)! }))
  .meta({ id: 'CreateApiKey' });

export const RotateKeyBody = z.strictObject({ overlap_seconds: z.int().min(0).max(86_400).default(0) });

export const ApiKey = z
  .object({
    key_id: z.string(),
    name: z.string(),
    description: z.string().nullable(),
    key_prefix: z.string().meta({ description: 'the first 13 characters of the key' }),
    permissions: z.array(z.enum(keyPermissions)),
    scopes: z.object({ namespace_ids: z.array(z.string()) }).nullable(),
    status: z.enum(['active', 'revoked', 'expired']),
    created_at: Timestamp,
    created_by: z.string(),
    expires_at: Timestamp.nullable(),
    revoked_at: Timestamp.nullable(),
    rotated_to: z.string().nullable(),
  })
  .meta({ id: 'ApiKey' });
export type ApiKey = z.output<typeof ApiKey>;

/** The only answers that hold the key itself. */
export const NewApiKey = ApiKey.extend({ key: z.string(), api_key: z.string() }).meta({ id: 'NewApiKey' });

const tag = 'api-keys';
const base = '/v1/organizations/api-keys';
const permission = 'bootstrap';

export const routes = {
  createKey: route({
    operation: 'createKey',
    method: 'POST',
    path: base,
    tag,
    summary: 'Make an API key; the answer is the only place where it is shown',
    permission,
    body: CreateKeyBody,
    reply: NewApiKey,
    errors: ['namespace_not_found', 'quota_exceeded'],
    example: { body: { name: 'ingest job', permissions: ['read', 'write'] } },
  }),
  listKeys: route({
    operation: 'listKeys',
    method: 'GET',
    path: base,
    tag,
    summary: 'List API keys',
    permission,
    query: ListQuery,
    reply: listReply(ApiKey),
  }),
  searchKeys: route({
    operation: 'searchKeys',
    method: 'POST',
    path: `${base}/list`,
    tag,
    summary: 'List API keys by search, filter and order',
    permission,
    query: ListQuery,
    body: ListBody,
    bodyOptional: true,
    reply: listReply(ApiKey),
  }),
  getKey: route({
    operation: 'getKey',
    method: 'GET',
    path: `${base}/{key}`,
    tag,
    summary: 'Read an API key, without its secret',
    permission: 'admin',
    reply: ApiKey,
    errors: ['key_not_found'],
  }),
  rotateKey: route({
    operation: 'rotateKey',
    method: 'POST',
    path: `${base}/{key}/rotate`,
    tag,
    summary: 'Replace an API key; the old one works for the overlap',
    permission: 'admin',
    body: RotateKeyBody,
    bodyOptional: true,
    reply: NewApiKey,
    errors: ['key_not_found', 'key_already_revoked'],
  }),
  revokeKey: route({
    operation: 'revokeKey',
    method: 'DELETE',
    path: `${base}/{key}`,
    tag,
    summary: 'Revoke an API key; it is refused within 60 seconds',
    permission,
    reply: DeleteReply,
    errors: ['key_not_found'],
  }),
};
