// Where the names that a model gave for one definition lie for a week: beside the inputs of its runs, whose lifecycle
// rule takes them away.
import type { NsCtx } from '../../context.ts';
import type { LabelCacheStore } from '../../labels/label-cache.ts';
import { BlobMissing } from '../../store/blobs.ts';
import { runKeys } from './store.ts';

export function knownNames(ctx: NsCtx, clusterId: string): LabelCacheStore {
  const { blobs } = ctx.ports;
  const key = runKeys.knownNames(ctx, clusterId);
  return {
    async read() {
      try {
        return Buffer.from(await blobs.get(key)).toString('utf8');
      } catch (error) {
        if (error instanceof BlobMissing) return undefined;
        throw error;
      }
    },
    async write(text) {
      await blobs.put(key, text, { contentType: 'application/json' });
    },
  };
}
