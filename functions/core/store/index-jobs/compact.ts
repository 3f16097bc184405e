// Compacts the index of a collection: see compact-index.ts for what that is.
import { compactIndex } from '../compact-index.ts';
import { dueTask } from './task.ts';

export const compact = dueTask('compact', async (ctx, collectionId, untilMs) => {
  const { compactions, doneVersion } = await compactIndex(ctx, collectionId, { untilMs });
  for (const compaction of compactions)
    ctx.ports.log.info('an index was compacted', { collection_id: collectionId, ...compaction });
  return doneVersion === undefined ? { againMs: ctx.ports.clock.now() } : { doneVersion };
});
