// The reads that the runs of one request share, each begun as early as somebody knows that it will be needed.
import type { NsCtx } from '../../context.ts';
import { AppError } from '../../errors.ts';
import { BlobMissing } from '../../store/blobs.ts';
import type { IndexView } from '../../store/vector-index.ts';
import { openIndex } from '../../store/vector-index.ts';
import type { Snapshot } from '../../vectors/snapshot.ts';
import type { StoredPlugin } from '../plugins/service.ts';
import { getPlugin } from '../plugins/service.ts';

/** Lets a read begin now and be awaited later, or never: whoever awaits it still gets its failure. */
function begun<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => undefined);
  return promise;
}

/**
 * The reads that the runs of one request share: each collection is seen in one version throughout.
 *
 * Every method begins the read at its first call and gives the same promise afterwards.
 */
export class RunReads {
  readonly #ctx: NsCtx;
  readonly #versions: Readonly<Record<string, number>>;
  readonly #views = new Map<string, Promise<IndexView>>();
  readonly #snapshots = new Map<string, Promise<Snapshot | undefined>>();
  readonly #plugins = new Map<string, Promise<StoredPlugin>>();

  /** @param versions by collection id: which version to read; the current one of all others */
  constructor(ctx: NsCtx, versions: Readonly<Record<string, number>> = {}) {
    this.#ctx = ctx;
    this.#versions = versions;
  }

  #versionOf(collectionId: string): number | undefined {
    return Object.hasOwn(this.#versions, collectionId) ? this.#versions[collectionId] : undefined;
  }

  /** @throws AppError index_version_gone, index_unavailable, index_corrupt */
  view(collectionId: string): Promise<IndexView> {
    const version = this.#versionOf(collectionId);
    const known = this.#views.get(collectionId) ?? begun(openIndex(this.#ctx, collectionId, { version }));
    this.#views.set(collectionId, known);
    return known;
  }

  /** @throws AppError plugin_not_found */
  plugin(pluginId: string): Promise<StoredPlugin> {
    const known = this.#plugins.get(pluginId) ?? begun(getPlugin(this.#ctx, pluginId));
    this.#plugins.set(pluginId, known);
    return known;
  }

  /**
   * The rows of a feature, or of `documentsUri`; undefined if the collection has none yet.
   *
   * @throws AppError index_unavailable, index_corrupt
   */
  snapshot(collectionId: string, uri: string): Promise<Snapshot | undefined> {
    const key = `${collectionId} ${uri}`;
    const known = this.#snapshots.get(key) ?? begun(this.#load(collectionId, uri));
    this.#snapshots.set(key, known);
    return known;
  }

  async #load(collectionId: string, uri: string): Promise<Snapshot | undefined> {
    const view = await this.view(collectionId);
    try {
      return await view.snapshot(uri);
    } catch (error) {
      // Segments stay for 48 h after a compaction, so one that is gone means that this environment slept in between.
      if (!(error instanceof AppError && error.cause instanceof BlobMissing)) throw error;
      if (this.#versionOf(collectionId) !== undefined) throw error;
      const newer = await openIndex(this.#ctx, collectionId);
      if (newer.head.version === view.head.version) throw error;
      this.#views.set(collectionId, Promise.resolve(newer));
      return newer.snapshot(uri);
    }
  }
}
