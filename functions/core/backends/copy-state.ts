// How far a copy is: one row for each collection and backend, written by the one worker that holds its lease, and the
// versions on the head of the collection, where searches find them without another read.
import type { NsCtx } from '../context.ts';
import type { Attribute, Item, Write } from '../store/table.ts';
import { ConditionFailed, queryAll } from '../store/table.ts';
import type { CopyBackendName } from './registry.ts';

/** Where a sync is going, and how far it has come. */
export interface SyncTarget {
  readonly version: number;
  /** Of the manifest that is kept for the copy. */
  readonly manifest_key: string;
  /** Whether the changes are the difference of two versions, in a fixed order, or were found by asking the backend. */
  readonly by: 'difference' | 'asking';
  /** Changes of a difference that are done. */
  readonly done: number;
}

/** The copy of one feature. */
export interface FeatureCopy {
  /** The copy holds the live rows of this version; 0: none yet. */
  readonly version: number;
  readonly manifest_key: string | null;
  /** Live rows at that version. */
  readonly rows: number;
  /** When the backend was last counted, or listed, and agreed; milliseconds since 1970. */
  readonly checked_at_ms: number;
  /** What a sync is on its way to. */
  readonly target: SyncTarget | null;
  /** What the last sync failed with. */
  readonly error: string | null;
}

export const noCopy: FeatureCopy = {
  version: 0,
  manifest_key: null,
  rows: 0,
  checked_at_ms: 0,
  target: null,
  error: null,
};

/** The copies of one collection in one backend, by feature URI. */
export interface CopyState {
  readonly backend: string;
  readonly features: Readonly<Record<string, FeatureCopy>>;
}

/** Longer than any call of a backend takes, retries included, so that a worker whose lease ran out is dead. */
const leaseMs = 5 * 60_000;
const headTries = 20;

/** Another worker has the lease, or the collection is gone: stop. */
export class LeaseLost extends Error {
  constructor(collectionId: string, backend: string) {
    super(`the lease on the copy of ${collectionId} in ${backend} is lost`);
    this.name = 'LeaseLost';
  }
}

function toState(item: Item): CopyState {
  return {
    backend: String(item.backend),
    features: (item.features as unknown as CopyState['features'] | undefined) ?? {},
  };
}

/** Every copy that a collection has, complete or not. */
export async function readCopies(ctx: NsCtx, collectionId: string): Promise<CopyState[]> {
  const { pk, prefix } = ctx.ns.copies(collectionId);
  const found: CopyState[] = [];
  for await (const item of queryAll(ctx.ports.table, pk, { prefix })) found.push(toState(item));
  return found;
}

/** The right to change a copy, for as long as it is used often enough. */
export class CopyLease {
  readonly #ctx: NsCtx;
  readonly #collectionId: string;
  readonly #backend: CopyBackendName;
  readonly #id: string;
  #features: Record<string, FeatureCopy>;

  private constructor(
    ctx: NsCtx,
    collectionId: string,
    backend: CopyBackendName,
    id: string,
    features: CopyState['features'],
  ) {
    this.#ctx = ctx;
    this.#collectionId = collectionId;
    this.#backend = backend;
    this.#id = id;
    this.#features = { ...features };
  }

  /** @returns undefined while another worker has it, or if the collection is gone */
  static async take(
    ctx: NsCtx,
    collectionId: string,
    backend: CopyBackendName,
  ): Promise<CopyLease | undefined> {
    const key = ctx.ns.copy(collectionId, backend);
    const nowMs = ctx.ports.clock.now();
    const id = Buffer.from(ctx.ports.random.bytes(12)).toString('hex');
    try {
      await ctx.ports.table.write([
        {
          update: key,
          set: { backend, lease_id: id, lease_until_ms: nowMs + leaseMs },
          if: [
            {
              anyOf: [
                { attribute: 'lease_id', missing: true },
                { attribute: 'lease_until_ms', lt: nowMs },
              ],
            },
          ],
        },
        { check: ctx.ns.resource('COLLECTION', collectionId), if: [{ present: true }] },
      ]);
    } catch (error) {
      if (!(error instanceof ConditionFailed)) throw error;
      return undefined;
    }
    const item = await ctx.ports.table.get(key);
    return new CopyLease(ctx, collectionId, backend, id, item ? toState(item).features : {});
  }

  get features(): CopyState['features'] {
    return this.#features;
  }

  of(uri: string): FeatureCopy {
    return this.#features[uri] ?? noCopy;
  }

  /** Notes how far a feature is and keeps the lease. @throws LeaseLost */
  async save(uri: string, copy: FeatureCopy): Promise<void> {
    await this.#write([this.#update(uri, copy)]);
  }

  /** As `save`, and lets searches use the copy. @throws LeaseLost */
  async publish(uri: string, copy: FeatureCopy): Promise<void> {
    return this.#announce(uri, copy);
  }

  /** Takes a feature that has ended out of the row and out of what searches know. @throws LeaseLost */
  async retract(uri: string): Promise<void> {
    return this.#announce(uri, undefined);
  }

  async #announce(uri: string, copy: FeatureCopy | undefined): Promise<void> {
    const head = this.#ctx.ns.head(this.#collectionId);
    for (let attempt = 0; attempt < headTries; attempt++) {
      const item = await this.#ctx.ports.table.get(head);
      const revision = item?.copies_revision as number | undefined;
      const copies = (item?.copies ?? {}) as Record<string, Record<string, number>>;
      const { [uri]: _, ...others } = copies[this.#backend] ?? {};
      const own = copy === undefined ? others : { ...others, [uri]: copy.version };
      const next = { ...copies, [this.#backend]: own };
      try {
        await this.#write([
          this.#update(uri, copy),
          {
            update: head,
            set: { copies: next, copies_revision: (revision ?? 0) + 1 },
            if: [
              { present: true },
              revision === undefined
                ? { attribute: 'copies_revision', missing: true }
                : { attribute: 'copies_revision', eq: revision },
            ],
          },
        ]);
        return;
      } catch (error) {
        // The copy in another backend was published at the same moment.
        if (!(error instanceof ConditionFailed)) throw error;
      }
    }
    throw new LeaseLost(this.#collectionId, this.#backend);
  }

  /** Gives the lease back. Without this it ends by itself. */
  async release(): Promise<void> {
    const key = this.#ctx.ns.copy(this.#collectionId, this.#backend);
    try {
      await this.#ctx.ports.table.write([
        {
          update: key,
          remove: ['lease_id', 'lease_until_ms'],
          if: [{ attribute: 'lease_id', eq: this.#id }],
        },
      ]);
    } catch (error) {
      if (!(error instanceof ConditionFailed)) throw error; // Somebody else has it: nothing to give back.
    }
  }

  #update(uri: string, copy: FeatureCopy | undefined): Write {
    const { [uri]: _, ...others } = this.#features;
    this.#features = copy === undefined ? others : { ...others, [uri]: copy };
    const features = Object.fromEntries(
      Object.entries(this.#features).map(([name, one]) => [
        name,
        { ...one, target: one.target === null ? null : { ...one.target } } satisfies Attribute,
      ]),
    );
    return {
      update: this.#ctx.ns.copy(this.#collectionId, this.#backend),
      set: { features, lease_until_ms: this.#ctx.ports.clock.now() + leaseMs },
      if: [{ attribute: 'lease_id', eq: this.#id }],
    };
  }

  /** The first write is that of the row. */
  async #write(writes: readonly Write[]): Promise<void> {
    const exists: Write = {
      check: this.#ctx.ns.resource('COLLECTION', this.#collectionId),
      if: [{ present: true }],
    };
    try {
      await this.#ctx.ports.table.write([...writes, exists]);
    } catch (error) {
      if (!(error instanceof ConditionFailed)) throw error;
      if (error.of(0) || error.of(writes.length)) throw new LeaseLost(this.#collectionId, this.#backend);
      throw error;
    }
  }
}

/** Takes a backend's copy out of the search of a collection and forgets its row. Safe to repeat. */
export async function forgetCopy(ctx: NsCtx, collectionId: string, backend: CopyBackendName): Promise<void> {
  const head = ctx.ns.head(collectionId);
  for (let attempt = 0; attempt < headTries; attempt++) {
    const item = await ctx.ports.table.get(head);
    const copies = { ...(item?.copies as Record<string, Attribute> | undefined) };
    const revision = item?.copies_revision as number | undefined;
    const isPublished = item !== undefined && copies[backend] !== undefined;
    delete copies[backend];
    try {
      await ctx.ports.table.write([
        { delete: ctx.ns.copy(collectionId, backend) },
        ...(isPublished
          ? [
              {
                update: head,
                set: { copies, copies_revision: (revision ?? 0) + 1 },
                if: [{ attribute: 'copies_revision', eq: revision! }],
              } satisfies Write,
            ]
          : []),
      ]);
      return;
    } catch (error) {
      if (!(error instanceof ConditionFailed)) throw error;
    }
  }
  throw new LeaseLost(collectionId, backend);
}
