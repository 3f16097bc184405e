// Deletes what no version of an index names any more: see collect-garbage.ts for what that is.
import { sweepIndex } from '../collect-garbage.ts';
import { dueTask } from './task.ts';

export const collect = dueTask('collect', async (ctx, collectionId, untilMs) => {
  const { removed, nextMs } = await sweepIndex(ctx, collectionId, { untilMs });
  ctx.ports.log.info('garbage of an index was collected', { collection_id: collectionId, removed });
  return nextMs === undefined ? {} : { againMs: nextMs };
});
