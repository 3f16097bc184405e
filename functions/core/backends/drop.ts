// Takes copies away: of a collection that was deleted, of a backend that a namespace has left, of a whole namespace.
import type { NsCtx } from '../context.ts';
import { BackendError } from './backend.ts';
import { forgetCopy } from './copy-state.ts';
import { forgetManifests } from './open-version.ts';
import type { CopyBackendName } from './registry.ts';
import { backendFault } from './sync.ts';

/**
 * Removes what a backend holds of a namespace, or of one of its collections. Safe to repeat.
 *
 * @param collectionIds those that still exist, so that their searches stop to ask the backend first
 * @throws AppError vector_backend_unavailable
 */
export async function dropCopies(
  ctx: NsCtx,
  backend: CopyBackendName,
  scope: { readonly collectionId?: string; readonly collectionIds?: readonly string[] } = {},
): Promise<void> {
  const { collectionId, collectionIds = [] } = scope;
  for (const id of collectionIds) {
    await forgetCopy(ctx, id, backend);
    await forgetManifests(ctx, id, backend, new Set());
  }
  if (collectionId !== undefined) await forgetManifests(ctx, collectionId, backend, new Set());
  const port = ctx.ports.backends?.[backend];
  // A stage that had the backend and has it no more keeps nothing that we could reach.
  if (!port) {
    ctx.ports.log.warn('copies in a backend that this stage does not have any more are left to it', {
      backend,
    });
    return;
  }
  try {
    await port.dropAll({
      namespace_id: ctx.ns.namespaceId,
      ...(collectionId === undefined ? {} : { collection_id: collectionId }),
    });
  } catch (error) {
    throw error instanceof BackendError ? backendFault(error) : error;
  }
}
