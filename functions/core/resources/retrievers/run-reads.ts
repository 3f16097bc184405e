// The reads that the runs of one request share, each begun as early as somebody knows that it will be needed.
import type { NsCtx } from '../../context.ts';
import { AppError, isAppError } from '../../errors.ts';
import { BlobMissing } from '../../store/blobs.ts';
import type { IndexView } from '../../store/vector-index.ts';
import { documentsUri, openIndex } from '../../store/vector-index.ts';
import type { Snapshot } from '../../vectors/snapshot.ts';
import type { StoredPlugin } from '../plugins/service.ts';
import { getPlugin } from '../plugins/service.ts';

/** The last version that held a feature which a commit has taken out. */
function lastWith({ manifest }: IndexView, uri: string): number | undefined {
  const { dropped = {} } = manifest;
  return Object.hasOwn(dropped, uri) ? dropped[uri] : undefined;
}

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

  /**
   * The view of a collection in a version that holds a feature, where there is one: everything after it is read so too.
   *
   * The row of a collection and its index are two reads, and an upgrade may change both in between. A run that has
   * seen the old row reads the last index of before; one that has seen the new row, the new index.
   *
   * @throws AppError as `view`; index_version_gone also when an upgrade lies between the version that the run is to
   *   read and the feature
   */
  async viewWith(collectionId: string, uri: string): Promise<IndexView> {
    const view = await this.view(collectionId);
    if (uri === documentsUri || Object.hasOwn(view.manifest.features, uri) || view.head.version === 0)
      return view;
    const fixed = this.#versionOf(collectionId) !== undefined;
    const newest =
      !fixed && lastWith(view, uri) !== undefined ? view : await openIndex(this.#ctx, collectionId);
    if (fixed) {
      const ended = Object.keys(view.manifest.features).some((one) => lastWith(newest, one) !== undefined);
      if (!ended || !Object.hasOwn(newest.manifest.features, uri)) return view;
      throw new AppError('index_version_gone', {
        detail: `The version ${view.head.version} of the index of ${collectionId} is from before an upgrade and has no vectors of ${uri}. Leave the version out to read the current one.`,
      });
    }
    const last = lastWith(newest, uri);
    const isThere = Object.hasOwn(newest.manifest.features, uri);
    const found =
      isThere || last === undefined
        ? newest
        : await openIndex(this.#ctx, collectionId, { version: last }).catch((error: unknown) => {
            if (isAppError(error, 'index_version_gone')) return newest;
            throw error;
          });
    this.#views.set(collectionId, Promise.resolve(found));
    return found;
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
    const view = await this.viewWith(collectionId, uri);
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
