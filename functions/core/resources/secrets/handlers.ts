// Requests about secrets -> service calls -> replies, none of which holds a value.
import type { NsCtx } from '../../context.ts';
import type { Handlers } from '../../http/handler.ts';
import type { ListInput } from '../../page.ts';
import { mergeListInput, pageOfAll } from '../../page.ts';
import type { routes, Secret } from './contract.ts';
import type { StoredSecret } from './service.ts';
import { createSecret, deleteSecret, listSecrets, updateSecret } from './service.ts';

function toSecret({ name, revision, created_at, updated_at }: StoredSecret): Secret {
  return { secret_name: name, version: revision, created_at, updated_at };
}

function toChange(stored: StoredSecret, change: 'created' | 'updated' | 'deleted') {
  return { ...toSecret(stored), created: null, updated: null, deleted: null, [change]: true };
}

async function page(ctx: NsCtx, input: ListInput) {
  return pageOfAll(ctx, 'secrets', (await listSecrets(ctx)).map(toSecret), input, ['secret_name']);
}

export const handlers: Handlers<typeof routes> = {
  createSecret: async ({ ctx, body }) =>
    toChange(await createSecret(ctx, body.secret_name, body.secret_value as string), 'created'),
  listSecrets: ({ ctx, query }) => page(ctx, query),
  searchSecrets: ({ ctx, query, body }) => page(ctx, mergeListInput(query, body)),
  putSecret: async ({ ctx, params, body }) =>
    toChange(await updateSecret(ctx, params.secret!, body.secret_value as string), 'updated'),
  deleteSecret: async ({ ctx, params }) => toChange(await deleteSecret(ctx, params.secret!), 'deleted'),
};
