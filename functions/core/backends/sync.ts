// Keeps the copy of a collection's vectors in step: what lives in the segments and is not in the copy is put, what
// lives no more is removed, and the count must match before searches may rely on it. Any part of it may be repeated.
import type { NsCtx } from '../context.ts';
import { crash } from '../crash.ts';
import { AppError } from '../errors.ts';
import { openIndex } from '../store/open-index.ts';
import { hasBit, noBits, rowsOf, setBit } from '../vectors/bits.ts';
import type { FeatureManifest, Manifest } from '../vectors/manifest.ts';
import { seqsPerVersion } from '../vectors/segment-format.ts';
import type { Snapshot } from '../vectors/snapshot.ts';
import { type VectorMemory, vectorMemory } from '../vectors/vector-memory.ts';
import { BackendError, type CopyIndex, type CopyRow, type VectorBackend } from './backend.ts';
import { CopyLease, type FeatureCopy, LeaseLost, type SyncTarget } from './copy-state.ts';
import { backendOf } from './of-namespace.ts';
import { type FeatureVersion, forgetManifests, keepManifest, openVersion } from './open-version.ts';
import { prepareVector } from './prepare-vector.ts';
import { type CopyBackendName, describe } from './registry.ts';

export interface SyncOptions {
  /** On the context's clock: stop soon after, and go on at the next call. */
  readonly untilMs: number;
  /** Compare every row with the copy, not only what changed since the last sync. */
  readonly everything?: boolean;
  /** Where vectors of segments are read. */
  readonly memory?: VectorMemory;
}

export interface SyncResult {
  /** False: there is more to do, or another worker is at it; call again. */
  readonly done: boolean;
  /** Another worker is at it. */
  readonly busy: boolean;
  readonly put: number;
  readonly removed: number;
}

/** A backend that counts only by listing everything is counted once in this time. */
const countEveryMs = 24 * 3600 * 1000;
/** Calls of the backend between two notes of how far a sync is. */
const callsPerNote = 20;
/** Rows whose vectors are read at once. */
const rowsAtOnce = 4_096;

/** The features of a manifest that a backend can hold: those with vectors, of a metric that it knows. */
export function copiedFeatures(manifest: Manifest, backend: CopyBackendName): [string, FeatureManifest][] {
  const { metrics } = describe(backend);
  return Object.entries(manifest.features).filter(
    ([, { dims, metric }]) => dims > 0 && metric !== null && metrics.includes(metric),
  );
}

/**
 * Brings the copies of all features of a collection up to the current version, or as far as the time allows.
 *
 * @throws AppError vector_copy_differs (the backend does not hold what was put), vector_backend_unavailable,
 *   vector_backend_not_enabled, index_unavailable, index_corrupt
 */
export async function syncCollection(
  ctx: NsCtx,
  collectionId: string,
  backend: CopyBackendName,
  options: SyncOptions,
): Promise<SyncResult> {
  const port = backendOf(ctx, backend);
  const totals = { put: 0, removed: 0 };
  const lease = await CopyLease.take(ctx, collectionId, backend);
  if (!lease) return { done: false, busy: true, ...totals };
  let uri = '';
  try {
    const { manifest } = await openIndex(ctx, collectionId);
    let done = true;
    for ([uri] of copiedFeatures(manifest, backend)) {
      const sync = new FeatureSync(ctx, collectionId, uri, backend, port, lease, options, totals);
      done = await sync.run(manifest);
      if (!done) break;
    }
    // What an upgrade of the collection has put aside; a URI can come back with vectors of another form.
    const ended = Object.keys(lease.features).filter((one) => !Object.hasOwn(manifest.features, one));
    for (uri of done ? ended : []) {
      const { namespaceId: namespace_id } = ctx.ns;
      await port.drop({ namespace_id, collection_id: collectionId, feature_uri: uri });
      crash('index.sync.after_drop');
      await lease.retract(uri);
    }
    if (done) await forgetManifests(ctx, collectionId, backend, manifestsOf(lease.features));
    await lease.release();
    return { done, busy: false, ...totals };
  } catch (error) {
    if (error instanceof LeaseLost) return { done: false, busy: true, ...totals };
    if (!(error instanceof BackendError) && !(error instanceof AppError)) throw error;
    const known = error instanceof BackendError ? backendFault(error) : error;
    await lease.save(uri, { ...lease.of(uri), error: known.detail.slice(0, 500) }).catch((lost: unknown) => {
      if (!(lost instanceof LeaseLost)) throw lost;
    });
    await lease.release();
    throw known;
  }
}

function manifestsOf(features: Readonly<Record<string, FeatureCopy>>): ReadonlySet<string> {
  const keys = Object.values(features).flatMap(({ manifest_key, target }) => [
    manifest_key,
    target?.manifest_key ?? null,
  ]);
  return new Set(keys.filter((key) => key !== null));
}

/** What a failure of a backend means to whoever called us. */
export function backendFault(error: BackendError): AppError {
  return new AppError('vector_backend_unavailable', {
    detail: `The vector backend ${error.backend} could not be used (${error.code}).`,
    internal: error.message,
    cause: error,
    retryAfterSeconds: error.retryable ? 5 : 60,
  });
}

/** What a sync has to do: rows of the target snapshot to put, ascending, and ids to remove. */
interface Plan {
  readonly puts: Uint32Array;
  readonly removals: readonly string[];
}

class FeatureSync {
  readonly #ctx: NsCtx;
  readonly #collectionId: string;
  readonly #uri: string;
  readonly #backendName: CopyBackendName;
  readonly #backend: VectorBackend;
  readonly #lease: CopyLease;
  readonly #options: SyncOptions;
  readonly #totals: { put: number; removed: number };
  #calls = 0;

  constructor(
    ctx: NsCtx,
    collectionId: string,
    uri: string,
    backendName: CopyBackendName,
    backend: VectorBackend,
    lease: CopyLease,
    options: SyncOptions,
    totals: { put: number; removed: number },
  ) {
    this.#ctx = ctx;
    this.#collectionId = collectionId;
    this.#uri = uri;
    this.#backendName = backendName;
    this.#backend = backend;
    this.#lease = lease;
    this.#options = options;
    this.#totals = totals;
  }

  /** @returns whether the copy is at the version of the manifest, or at a later one */
  async run(manifest: Manifest): Promise<boolean> {
    for (let everything = this.#options.everything === true; ; everything = false) {
      const copy = this.#lease.of(this.#uri);
      if (copy.target === null && copy.version >= manifest.version && !everything) return true;
      // What an interrupted sync was on its way to is finished first, since parts of it are in the copy. Where that
      // version is gone nobody knows which parts, and the backend is asked.
      const begun = copy.target && (await openVersion(this.#ctx, copy.target.manifest_key, this.#uri));
      const goal = begun ? copy.target! : await this.#goalOf(manifest, copy);
      const found = begun ?? (await openVersion(this.#ctx, goal.manifest_key, this.#uri));
      if (!found) return false; // Compacted and collected meanwhile: the next call reads a newer head.
      const ask = everything || (copy.target !== null && (!begun || copy.target.by === 'asking'));
      if (!(await this.#reach(found, copy, goal, ask))) return false;
    }
  }

  async #goalOf(manifest: Manifest, copy: FeatureCopy): Promise<SyncTarget> {
    const { version } = manifest;
    const manifest_key = await keepManifest(this.#ctx, this.#collectionId, this.#backendName, manifest);
    return { version, manifest_key, by: copy.version > 0 ? 'difference' : 'asking', done: 0 };
  }

  async #reach(
    { snapshot, feature }: FeatureVersion,
    copy: FeatureCopy,
    target: SyncTarget,
    ask: boolean,
  ): Promise<boolean> {
    const index: CopyIndex = {
      namespace_id: this.#ctx.ns.namespaceId,
      collection_id: this.#collectionId,
      feature_uri: this.#uri,
      dims: feature.dims,
      metric: feature.metric!,
    };
    await this.#backend.ensure(index);
    const base =
      copy.version > 0 && !ask ? await openVersion(this.#ctx, copy.manifest_key!, this.#uri) : undefined;
    const goal: SyncTarget = base ? target : { ...target, by: 'asking', done: 0 };
    const plan = base
      ? planFrom(base.snapshot, copy.version, snapshot)
      : await this.#planByAsking(index, snapshot);
    if (!(await this.#apply(index, snapshot, plan, copy, goal))) return false;
    crash('index.sync.after_changes');
    await this.#backend.settle(index);
    const nowMs = this.#ctx.ports.clock.now();
    const mustCount =
      !base || this.#backend.limits.isCountCheap || nowMs - copy.checked_at_ms >= countEveryMs;
    if (mustCount) {
      const held = await this.#backend.count(index);
      if (held !== snapshot.liveCount) {
        if (base) return this.#reach({ snapshot, feature }, copy, target, true);
        throw new AppError('vector_copy_differs', {
          detail: `The copy of ${this.#uri} in ${this.#collectionId} holds ${held} rows and should hold ${snapshot.liveCount}. The next sync compares every row again.`,
        });
      }
    }
    crash('index.sync.before_publish');
    await this.#lease.publish(this.#uri, {
      version: goal.version,
      manifest_key: goal.manifest_key,
      rows: snapshot.liveCount,
      checked_at_ms: mustCount ? nowMs : copy.checked_at_ms,
      target: null,
      error: null,
    });
    crash('index.sync.after_publish');
    return true;
  }

  /** Compares every row with what the backend lists. Changes come afterwards, so that they do not disturb the list. */
  async #planByAsking(index: CopyIndex, snapshot: Snapshot): Promise<Plan> {
    const same = snapshot.parts.map(({ segment }) => noBits(segment.rows));
    const removals: string[] = [];
    let cursor: string | undefined;
    do {
      const page = await this.#backend.list(index, cursor);
      for (const { id, seq } of page.rows) {
        const row = snapshot.rowOf(id);
        if (row === undefined) {
          removals.push(id);
          continue;
        }
        const part = snapshot.partOf(row);
        const local = row - part.firstRow;
        if (part.baseSeq + part.segment.seq(local) === seq)
          setBit(same[snapshot.parts.indexOf(part)]!, local);
      }
      cursor = page.next;
    } while (cursor !== undefined);
    return { puts: rowsWhere(snapshot, (part, local) => !hasBit(same[part]!, local)), removals };
  }

  /** @returns false when the time is over; how far it came is noted */
  async #apply(
    index: CopyIndex,
    snapshot: Snapshot,
    plan: Plan,
    copy: FeatureCopy,
    goal: SyncTarget,
  ): Promise<boolean> {
    const { idsPerRemove } = this.#backend.limits;
    let { done } = goal;
    const all = plan.puts.length + plan.removals.length;
    const note = async (count: number): Promise<boolean> => {
      done += count;
      this.#calls += 1;
      const isLate = this.#ctx.ports.clock.now() >= this.#options.untilMs;
      if (isLate || this.#calls % callsPerNote === 0)
        await this.#lease.save(this.#uri, { ...copy, target: { ...goal, done } });
      return !isLate;
    };
    if (done < all) await this.#lease.save(this.#uri, { ...copy, target: { ...goal, done } });
    if (done < plan.puts.length) {
      for await (const rows of this.#batches(index, snapshot, plan.puts.subarray(done))) {
        await this.#backend.put(index, rows);
        crash('index.sync.after_put');
        this.#totals.put += rows.length;
        if (!(await note(rows.length)) && done < all) return false;
      }
    }
    while (done < all) {
      const from = done - plan.puts.length;
      const ids = plan.removals.slice(from, from + idsPerRemove);
      await this.#backend.remove(index, ids);
      crash('index.sync.after_remove');
      this.#totals.removed += ids.length;
      if (!(await note(ids.length)) && done < all) return false;
    }
    return true;
  }

  /** Rows with their vectors, in lists that one call of the backend takes. */
  async *#batches(index: CopyIndex, snapshot: Snapshot, rows: Uint32Array): AsyncGenerator<CopyRow[]> {
    const { rowsPerPut, vectorBytesPerPut } = this.#backend.limits;
    const size = Math.max(1, Math.min(rowsPerPut, Math.floor(vectorBytesPerPut / (index.dims * 4))));
    for (let i = 0; i < rows.length; i += rowsAtOnce) {
      const some = await readRows(
        snapshot,
        rows.subarray(i, i + rowsAtOnce),
        this.#options.memory ?? vectorMemory(),
      );
      for (let j = 0; j < some.length; j += size) {
        yield some
          .slice(j, j + size)
          .map((row) => ({ ...row, vector: prepareVector(index.metric, row.vector, row.id) }));
      }
    }
  }
}

/** Rows of a snapshot, in its numbering, that live and that `test` wants; ascending. */
function rowsWhere(snapshot: Snapshot, test: (part: number, local: number) => boolean): Uint32Array {
  const found = snapshot.parts.map((part, i) => {
    const bits = noBits(part.segment.rows);
    for (const local of snapshot.liveRowsOf(i)) if (test(i, local)) setBit(bits, local);
    return rowsOf(bits).map((local) => part.firstRow + local);
  });
  const all = new Uint32Array(found.reduce((sum, rows) => sum + rows.length, 0));
  let at = 0;
  for (const rows of found) {
    all.set(rows, at);
    at += rows.length;
  }
  return all;
}

/** The first sequence number that a version does not know. */
export function seqAfter(version: number): number {
  return (version + 1) * seqsPerVersion;
}

/**
 * What changed between two versions. A live row with an older sequence number was alive in the base too: whatever
 * could have hidden it there would hide it now.
 */
function planFrom(base: Snapshot, baseVersion: number, target: Snapshot): Plan {
  const first = seqAfter(baseVersion);
  const puts = rowsWhere(target, (i, local) => {
    const part = target.parts[i]!;
    return part.baseSeq + part.segment.seq(local) >= first;
  });
  const removals: string[] = [];
  for (const [i, part] of base.parts.entries()) {
    for (const local of base.liveRowsOf(i)) {
      const id = part.segment.id(local);
      if (target.rowOf(id) === undefined) removals.push(id);
    }
  }
  return { puts, removals };
}

/** @param rows of the snapshot, ascending */
async function readRows(snapshot: Snapshot, rows: Uint32Array, memory: VectorMemory): Promise<CopyRow[]> {
  const found: CopyRow[] = [];
  for (let i = 0; i < rows.length; ) {
    const part = snapshot.partOf(rows[i]!);
    const { segment, firstRow, baseSeq } = part;
    let end = i;
    while (end < rows.length && rows[end]! < firstRow + segment.rows) end += 1;
    const locals = rows.slice(i, end).map((row) => row - firstRow);
    await segment.vectors!.visit(memory, locals, (values, at, n) => {
      const local = locals[n]!;
      found.push({
        id: segment.id(local),
        seq: baseSeq + segment.seq(local),
        vector: values.slice(at, at + snapshot.dims),
      });
    });
    i = end;
  }
  return found;
}
