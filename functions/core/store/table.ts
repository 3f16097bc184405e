// The interface of the one table, small enough to be implemented over DynamoDB and in memory alike.
// Both implementations run the suite in test/contract/table.

/** Scalars, lists and maps as DynamoDB keeps them; bytes as Uint8Array; `undefined` members are left out. */
export type Attribute =
  | string
  | number
  | boolean
  | null
  | Uint8Array
  | readonly Attribute[]
  | { readonly [name: string]: Attribute | undefined };

export interface Key {
  readonly pk: string;
  readonly sk: string;
}

export type Item = Key & { readonly [name: string]: Attribute | undefined };

/** What must hold of the item at a key. All of the tests must pass; `absent` passes when there is no item. */
export type Condition =
  | { readonly absent: true }
  | { readonly present: true }
  | { readonly attribute: string; readonly eq: string | number | boolean | null }
  | { readonly attribute: string; readonly ne: string | number | boolean | null }
  | { readonly attribute: string; readonly lt: string | number }
  | { readonly attribute: string; readonly gt: string | number }
  | { readonly attribute: string; readonly in: readonly (string | number)[] }
  | { readonly attribute: string; readonly missing: true }
  | { readonly anyOf: readonly Condition[] }
  | { readonly allOf: readonly Condition[] };

export type Write =
  | { readonly put: Item; readonly if?: readonly Condition[] }
  | {
      readonly update: Key;
      readonly set?: Readonly<Record<string, Attribute | undefined>>;
      readonly remove?: readonly string[];
      /** Numbers to add; a missing attribute counts as 0. */
      readonly add?: Readonly<Record<string, number>>;
      readonly if?: readonly Condition[];
    }
  | { readonly delete: Key; readonly if?: readonly Condition[] }
  | { readonly check: Key; readonly if: readonly Condition[] };

export interface QueryOptions {
  /** Only sort keys with this beginning. */
  readonly prefix?: string;
  /** Only sort keys in this range, both ends included. Not together with `prefix`. */
  readonly between?: readonly [string, string];
  /** Start after this key (exclusive), as a page before returned it. */
  readonly after?: Key | undefined;
  /** Items at most; a page may hold fewer, and only a missing `next` means the end. */
  readonly limit?: number;
  /** Largest sort key first. */
  readonly descending?: boolean;
}

export interface Page {
  readonly items: readonly Item[];
  /** Where to go on; undefined at the end. */
  readonly next?: Key;
}

/** A write whose condition did not hold, with the item that was found there (undefined: none). */
export interface FailedWrite {
  readonly index: number;
  readonly item: Item | undefined;
}

/** Thrown by `write` when conditions fail: nothing of the whole call has been written. */
export class ConditionFailed extends Error {
  readonly failures: readonly FailedWrite[];
  constructor(failures: readonly FailedWrite[]) {
    super(`condition of write ${failures.map((f) => f.index).join(', ')} did not hold`);
    this.name = 'ConditionFailed';
    this.failures = failures;
  }
  /** The failure of one write, by its position in the call. */
  of(index: number): FailedWrite | undefined {
    return this.failures.find((failure) => failure.index === index);
  }
}

/** All reads are strongly consistent, except `due`, which is an index. */
export interface Table {
  get(key: Key): Promise<Item | undefined>;
  /** Items in the order of the keys, undefined where there is none; any number of keys. */
  getMany(keys: readonly Key[]): Promise<(Item | undefined)[]>;
  query(pk: string, options?: QueryOptions): Promise<Page>;
  /**
   * All or nothing, up to 100 writes, no two of one key.
   *
   * A repeated call with the same `token` within ten minutes is a success without effect.
   *
   * @throws ConditionFailed
   */
  write(writes: readonly Write[], token?: string): Promise<void>;
  /** Unconditional puts and deletes in no order, any number; each by itself, not atomic. */
  writeMany(writes: readonly ({ readonly put: Item } | { readonly delete: Key })[]): Promise<void>;
  /** Items with `due_pk = shard` and `due_at <= until`, oldest first (the one sparse index). */
  due(shard: string, until: string, limit: number): Promise<readonly Item[]>;
}

/** All items of a partition that `options` selects, page after page. */
export async function* queryAll(table: Table, pk: string, options: QueryOptions = {}): AsyncGenerator<Item> {
  let after = options.after;
  do {
    const page: Page = await table.query(pk, { ...options, after });
    yield* page.items;
    after = page.next;
  } while (after);
}
