// Requests about namespaces -> service calls -> replies.
import { toVectorIndex } from '../../backends/of-namespace.ts';
import type { Ctx } from '../../context.ts';
import type { Handlers } from '../../http/handler.ts';
import { Answer } from '../../http/handler.ts';
import type { ListInput } from '../../page.ts';
import { mergeListInput, pageOfAll } from '../../page.ts';
import type { Namespace, routes } from './contract.ts';
import type { StoredNamespace } from './service.ts';
import {
  createNamespace,
  deleteNamespace,
  getNamespace,
  listNamespaces,
  readVectorIndexState,
  requestMigration,
  updateNamespace,
} from './service.ts';

function toNamespace(stored: StoredNamespace): Namespace {
  const { backend, storage } = toVectorIndex(stored);
  return {
    namespace_id: stored.id,
    namespace_name: stored.name,
    name: stored.name,
    namespace_type: 'standard',
    description: stored.description,
    metadata: stored.metadata as Namespace['metadata'],
    vector_index: { backend, storage },
    plan: { container_images: stored.plan?.container_images ?? false },
    version: stored.revision,
    created_at: stored.created_at,
    updated_at: stored.updated_at,
  };
}

async function page(ctx: Ctx, input: ListInput) {
  const rows = (await listNamespaces(ctx)).map(toNamespace);
  return pageOfAll(ctx, 'namespaces', rows, input, ['namespace_id', 'namespace_name', 'description']);
}

const answer = (stored: StoredNamespace) => new Answer(toNamespace(stored), { etag: stored.revision });

export const handlers: Handlers<typeof routes> = {
  createNamespace: async ({ ctx, body }) => answer(await createNamespace(ctx, body)),
  listNamespaces: ({ ctx, query }) => page(ctx, query),
  searchNamespaces: ({ ctx, query, body }) => page(ctx, mergeListInput(query, body)),
  getNamespace: async ({ ctx, params }) => answer(await getNamespace(ctx, params.namespace!)),
  putNamespace: async ({ ctx, params, body, ifMatch }) =>
    answer(await updateNamespace(ctx, params.namespace!, body, ifMatch)),
  patchNamespace: async ({ ctx, params, body, ifMatch }) =>
    answer(await updateNamespace(ctx, params.namespace!, body, ifMatch)),
  deleteNamespace: async ({ ctx, params }) => {
    const namespace = await deleteNamespace(ctx, params.namespace!);
    return {
      success: true as const,
      message: `Namespace ${namespace.name} is deleted; its content is being removed.`,
      namespace_id: namespace.id,
    };
  },
  getVectorIndex: ({ ctx }) => readVectorIndexState(ctx),
  migrateVectorIndex: async ({ ctx, body }) => {
    const { from, to, task_id } = await requestMigration(ctx, body.backend);
    return { task_id, from, to, state: 'migrating' as const };
  },
};
