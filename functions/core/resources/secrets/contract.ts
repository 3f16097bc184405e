// Secrets: values that a namespace's plugins get by name, such as the key of a model elsewhere. They go in and never out.
import * as z from 'zod';
import { route } from '../../http/route.ts';
import { ListBody, ListQuery, listReply, Timestamp } from '../../http/schemas.ts';

/** Bytes of a value in UTF-8. */
const valueBytesMax = 8_192;

export const secretNamePattern = /^[A-Z][A-Z0-9_]{0,63}$/;

const SecretName = z
  .string()
  .regex(
    secretNamePattern,
    'the name of a secret begins with a capital letter and has 1 to 64 capital letters, digits and "_"',
  );

function faultOfValue(value: unknown): { readonly type: string; readonly message: string } | undefined {
  if (value === undefined) return { type: 'missing', message: 'required, a string is expected' };
  if (typeof value !== 'string') return { type: 'wrong_type', message: 'a string is expected' };
  if (!value.isWellFormed())
    return { type: 'wrong_value', message: 'holds half of a surrogate pair; text in UTF-8 is expected' };
  const bytes = Buffer.byteLength(value);
  if (bytes === 0) return { type: 'too_small', message: 'is empty; delete the secret instead' };
  if (bytes > valueBytesMax)
    return { type: 'too_large', message: `has ${bytes} bytes; at most ${valueBytesMax} are accepted` };
  return undefined;
}

/** Checked by hand, because the usual messages quote what they refuse. */
const SecretValue = z
  .unknown()
  .superRefine((value, ctx) => {
    const fault = faultOfValue(value);
    if (fault) ctx.addIssue({ code: 'custom', message: fault.message, params: { type: fault.type } });
  })
  .meta({
    type: 'string',
    description: `1 to ${valueBytesMax} bytes of UTF-8; kept encrypted, never shown again`,
    format: 'password',
  });

/** `secret_value` is a string: the schema makes sure, without repeating a wrong one. */
export const CreateSecretBody = z
  .strictObject({ secret_name: SecretName, secret_value: SecretValue })
  .meta({ id: 'CreateSecret' });

export const UpdateSecretBody = z.strictObject({ secret_value: SecretValue }).meta({ id: 'UpdateSecret' });

export const Secret = z
  .object({
    secret_name: z.string(),
    version: z.int().meta({ description: 'grows by one with each new value' }),
    created_at: Timestamp,
    updated_at: Timestamp,
  })
  .meta({ id: 'Secret' });
export type Secret = z.output<typeof Secret>;

const SecretChange = Secret.extend({
  created: z.boolean().nullable(),
  updated: z.boolean().nullable(),
  deleted: z.boolean().nullable(),
}).meta({ id: 'SecretChange' });

const tag = 'secrets';
const base = '/v1/namespaces/{namespace}/secrets';

export const routes = {
  createSecret: route({
    operation: 'createSecret',
    method: 'POST',
    path: base,
    tag,
    summary: 'Store a secret for the plugins of a namespace',
    description:
      'A plugin whose manifest lists the name in `secrets` gets the value by `container.secrets.get(name)`. No answer, event or log holds it.',
    body: CreateSecretBody,
    reply: SecretChange,
    status: 201,
    errors: ['secret_name_taken', 'quota_exceeded'],
    example: { body: { secret_name: 'MODEL_API_KEY', secret_value: 'the key itself' } },
  }),
  listSecrets: route({
    operation: 'listSecrets',
    method: 'GET',
    path: base,
    tag,
    summary: 'List the names of secrets',
    query: ListQuery,
    reply: listReply(Secret),
  }),
  searchSecrets: route({
    operation: 'searchSecrets',
    method: 'POST',
    path: `${base}/list`,
    tag,
    summary: 'List the names of secrets by search, filter and order',
    permission: 'read',
    query: ListQuery,
    body: ListBody,
    bodyOptional: true,
    reply: listReply(Secret),
  }),
  putSecret: route({
    operation: 'putSecret',
    method: 'PUT',
    path: `${base}/{secret}`,
    tag,
    summary: 'Give a secret a new value; the next call of a plugin has it',
    body: UpdateSecretBody,
    reply: SecretChange,
    errors: ['secret_not_found', 'secret_changed'],
    example: { body: { secret_value: 'another key' } },
  }),
  deleteSecret: route({
    operation: 'deleteSecret',
    method: 'DELETE',
    path: `${base}/{secret}`,
    tag,
    summary: 'Delete a secret; plugins that declare it fail from then on',
    reply: SecretChange,
    errors: ['secret_not_found', 'secret_changed'],
  }),
};
