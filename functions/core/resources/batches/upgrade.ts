// A batch that runs a collection anew with another version of a plugin, and puts it in the place of the old one at its
// commit: documents, vectors and the collection's row in one transaction. Until then nothing of it can be seen.
import { isoTime } from '../../clock.ts';
import type { NsCtx } from '../../context.ts';
import { now } from '../../context.ts';
import { crash } from '../../crash.ts';
import { AppError } from '../../errors.ts';
import { audit } from '../../store/audit.ts';
import type { Write } from '../../store/table.ts';
import { ConditionFailed } from '../../store/table.ts';
import type { StoredCollection, UpgradeRequest } from '../collections/service.ts';
import {
  canonicalJson,
  extractorWrites,
  getCollection,
  planUpgrade,
  withExtractor,
} from '../collections/service.ts';
import { findPlugin } from '../plugins/service.ts';
import type { BatchOptions } from './new-batch.ts';
import { newBatch, submission, taskOf } from './new-batch.ts';
import type { StoredBatch } from './store.ts';
import { batchItem, findBatch, isActive, isCommitted, jobOf, watchAttributes, watchUntil } from './store.ts';
import type { BatchUpgrade } from './upgrade-row.ts';

/**
 * The collection as a batch makes documents for it.
 *
 * @throws AppError batch_wrong_state when the extractor that the batch replaces is not there any more
 */
export function targetOf(
  batch: Pick<StoredBatch, 'upgrade'>,
  collection: StoredCollection,
): StoredCollection {
  const { upgrade } = batch;
  if (upgrade?.collection_id !== collection.id) return collection;
  const after = withExtractor(collection, upgrade);
  if (after) return after;
  throw new AppError('batch_wrong_state', {
    detail: `The collection "${collection.name}" does not use ${upgrade.from_plugin_id} any more, which this batch was to replace by ${upgrade.extractor.plugin_id}.`,
  });
}

/** The batch that upgrades a collection, or did last, as the row of its collection names it. */
async function guardOf(ctx: NsCtx, collectionId: string) {
  const guard = await ctx.ports.table.get(ctx.ns.upgrading(collectionId));
  const batch = guard && (await findBatch(ctx, String(guard.bucket_id), String(guard.batch_id)));
  return { guard, batch };
}

const busy = (collection: StoredCollection, what: string) =>
  new AppError('collection_busy', {
    detail: `The collection "${collection.name}" cannot be upgraded now: ${what}. Try again when it has ended.`,
    retryAfterSeconds: 30,
  });

/** The write that makes this batch the one that upgrades its collection. @throws AppError collection_busy */
export async function claimUpgrade(
  ctx: NsCtx,
  collection: StoredCollection,
  batch: Pick<StoredBatch, 'batch_id' | 'bucket_id'>,
): Promise<Write> {
  const { guard, batch: other } = await guardOf(ctx, collection.id);
  if (other && other.batch_id !== batch.batch_id && isActive(other))
    throw busy(collection, `the upgrade ${other.batch_id} is under way`);
  return {
    put: { ...ctx.ns.upgrading(collection.id), batch_id: batch.batch_id, bucket_id: batch.bucket_id },
    if: [guard ? { attribute: 'batch_id', eq: String(guard.batch_id) } : { absent: true }],
  };
}

/**
 * Asks for the upgrade of a collection. A repetition while it runs is answered by the same batch.
 *
 * @throws AppError collection_not_found, request_invalid, plugin_not_deployed, collection_busy (a batch or import of the
 *   collection runs, or an upgrade to something else)
 */
export async function upgradeCollection(
  ctx: NsCtx,
  collectionName: string,
  request: UpgradeRequest,
  options: BatchOptions,
): Promise<StoredBatch> {
  for (;;) {
    const collection = await getCollection(ctx, collectionName);
    const change = await planUpgrade(ctx, collection, request);
    const { batch: other } = await guardOf(ctx, collection.id);
    if (other && isActive(other) && !isCommitted(other)) {
      if (other.upgrade && canonicalJson(other.upgrade.extractor) === canonicalJson(change.extractor))
        return other;
    } else {
      const lock = await ctx.ports.table.get(ctx.ns.running(collection.id));
      if (lock && String(lock.until) > isoTime(now(ctx)))
        throw busy(collection, `${String(lock.batch_id)} runs over it`);
    }
    const { bucket_ids } = collection.source;
    const base = newBatch(ctx, bucket_ids[0]!, [collection.id], options);
    const batch: StoredBatch = {
      ...base,
      // What was done by the old version is done again, even where a document of the new one is there from before.
      dedup_strategy: 'force',
      upgrade: { ...change, collection_id: collection.id, bucket_ids },
    };
    const claim = await claimUpgrade(ctx, collection, batch);
    crash('batch.upgrade.before_write');
    try {
      await ctx.ports.table.write([
        {
          put: { ...batchItem(ctx, batch), ...watchAttributes(jobOf(ctx, batch), watchUntil(ctx)) },
          if: [{ absent: true }],
        },
        claim,
        taskOf(ctx, batch, 'api_collections_upgrade'),
        ...submission(ctx, batch),
        audit(ctx, 'collection.upgrade', collection.id),
      ]);
      crash('batch.upgrade.after_write');
      return batch;
    } catch (error) {
      if (!(error instanceof ConditionFailed)) throw error;
      // Our own write whose answer was lost, or somebody else's upgrade: the next look tells which.
      if (error.of(0)?.item) return (await findBatch(ctx, batch.bucket_id, batch.batch_id))!;
    }
  }
}

/** What the commit of an upgrade does beside adding segments. */
export interface CutOver {
  /** Features that end. */
  readonly drop: readonly string[];
  readonly writes: readonly Write[];
}

/** @throws AppError collection_not_found, plugin_not_found (deleted meanwhile), batch_wrong_state */
export async function cutOverOf(ctx: NsCtx, upgrade: BatchUpgrade): Promise<CutOver> {
  const [collection, plugin] = await Promise.all([
    getCollection(ctx, upgrade.collection_id),
    findPlugin(ctx, upgrade.extractor.plugin_id),
  ]);
  if (!plugin) {
    throw new AppError('plugin_not_found', {
      detail: `The plugin ${upgrade.extractor.plugin_id} was deleted while the upgrade to it ran.`,
    });
  }
  const after = targetOf({ upgrade }, collection);
  return { drop: Object.keys(upgrade.renamed), writes: extractorWrites(ctx, collection, after) };
}
