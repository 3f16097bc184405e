// Requests about API keys -> service calls -> replies.
import type { Ctx } from '../../context.ts';
import type { Handlers } from '../../http/handler.ts';
import type { ListInput } from '../../page.ts';
import { mergeListInput, pageOfAll } from '../../page.ts';
import type { ApiKey, routes } from './contract.ts';
import type { KeyWithToken, StoredKey } from './service.ts';
import { createKey, getKey, keyStatus, listKeys, revokeKey, rotateKey } from './service.ts';

function toApiKey(ctx: Ctx, key: StoredKey): ApiKey {
  return {
    key_id: key.key_id,
    name: key.name,
    description: key.description,
    key_prefix: key.key_prefix,
    permissions: [...key.permissions],
    scopes: key.namespace_ids === null ? null : { namespace_ids: [...key.namespace_ids] },
    status: keyStatus(key, ctx.ports.clock),
    created_at: key.created_at,
    created_by: key.created_by,
    expires_at: key.expires_at_time,
    revoked_at: key.revoked_at,
    rotated_to: key.rotated_to,
  };
}

const withToken = (ctx: Ctx, made: KeyWithToken) => ({
  ...toApiKey(ctx, made.key),
  key: made.token,
  api_key: made.token,
});

async function page(ctx: Ctx, input: ListInput) {
  const rows = (await listKeys(ctx)).map((key) => toApiKey(ctx, key));
  return pageOfAll(ctx, 'keys', rows, input, ['key_id', 'name', 'description']);
}

export const handlers: Handlers<typeof routes> = {
  createKey: async ({ ctx, body }) => withToken(ctx, await createKey(ctx, body)),
  listKeys: ({ ctx, query }) => page(ctx, query),
  searchKeys: ({ ctx, query, body }) => page(ctx, mergeListInput(query, body)),
  getKey: async ({ ctx, params }) => toApiKey(ctx, await getKey(ctx, params.key!)),
  rotateKey: async ({ ctx, params, body }) =>
    withToken(ctx, await rotateKey(ctx, params.key!, body.overlap_seconds)),
  revokeKey: async ({ ctx, params }) => {
    const key = await revokeKey(ctx, params.key!);
    return {
      success: true as const,
      message: `API key ${key.name} revoked; it is refused within 60 seconds.`,
    };
  },
};
