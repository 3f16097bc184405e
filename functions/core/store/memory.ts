// The table and the blob store in memory, for tests that need no emulator. Same suites as the real ones.
import { createHash } from 'node:crypto';
import type { Clock } from '../clock.ts';
import { systemClock } from '../clock.ts';
import type { BlobInfo, Blobs } from './blobs.ts';
import { BlobConflict, BlobMissing, BlobTooShort } from './blobs.ts';
import type { Attribute, FailedWrite, Item, Key, Page, QueryOptions, Table, Write } from './table.ts';
import { ConditionFailed } from './table.ts';
import { holds, keyOf } from './write-rules.ts';

function copyAttribute(value: Attribute): Attribute {
  if (value === null || typeof value !== 'object') return value;
  if (value instanceof Uint8Array) return value.slice();
  if (Array.isArray(value)) return value.map((v: Attribute) => copyAttribute(v));
  const copy: Record<string, Attribute> = {};
  for (const [name, member] of Object.entries(value))
    if (member !== undefined) copy[name] = copyAttribute(member);
  return copy;
}
const copyItem = (item: Item): Item => copyAttribute(item) as Item;

/** The stream's view of a change, as the relay gets it. */
export interface TableChange {
  readonly kind: 'insert' | 'modify' | 'remove';
  readonly item: Item;
}

export class MemoryTable implements Table {
  readonly #items = new Map<string, Map<string, Item>>();
  readonly #tokens = new Map<string, string>();
  /** Called after each committed change, in order. */
  onChange: ((change: TableChange) => void) | undefined;

  #find(key: Key): Item | undefined {
    return this.#items.get(key.pk)?.get(key.sk);
  }

  #store(key: Key, item: Item | undefined): void {
    const partition = this.#items.get(key.pk) ?? new Map<string, Item>();
    this.#items.set(key.pk, partition);
    const before = partition.get(key.sk);
    if (item) partition.set(key.sk, item);
    else partition.delete(key.sk);
    if (item) this.onChange?.({ kind: before ? 'modify' : 'insert', item: copyItem(item) });
    else if (before) this.onChange?.({ kind: 'remove', item: before });
  }

  async get(key: Key): Promise<Item | undefined> {
    const item = this.#find(key);
    return item && copyItem(item);
  }

  async getMany(keys: readonly Key[]): Promise<(Item | undefined)[]> {
    return Promise.all(keys.map((key) => this.get(key)));
  }

  async query(pk: string, options: QueryOptions = {}): Promise<Page> {
    const { prefix, between, after, limit = 1000, descending = false } = options;
    const sks = [...(this.#items.get(pk)?.keys() ?? [])]
      .filter((sk) => (prefix === undefined ? true : sk.startsWith(prefix)))
      .filter((sk) => (between === undefined ? true : sk >= between[0] && sk <= between[1]))
      .sort((a, b) => (a < b ? -1 : 1) * (descending ? -1 : 1))
      .filter((sk) => after === undefined || (descending ? sk < after.sk : sk > after.sk));
    const items = sks.slice(0, limit).map((sk) => copyItem(this.#find({ pk, sk })!));
    const last = items.at(-1);
    return sks.length > limit && last ? { items, next: { pk, sk: last.sk } } : { items };
  }

  async write(writes: readonly Write[], token?: string): Promise<void> {
    if (writes.length > 100) throw new Error(`a transaction takes 100 writes at most, got ${writes.length}`);
    const names = writes.map(keyOf).map((key) => `${key.pk}\u0000${key.sk}`);
    if (new Set(names).size !== names.length) throw new Error('a transaction may name a key once only');
    if (token !== undefined) {
      const before = this.#tokens.get(token);
      if (before === JSON.stringify(writes)) return;
      if (before !== undefined) throw new Error('a transaction token may not be used for other writes');
    }
    const failures: FailedWrite[] = [];
    for (const [index, write] of writes.entries()) {
      const item = this.#find(keyOf(write));
      if (!(write.if ?? []).every((condition) => holds(condition, item))) {
        failures.push({ index, item: item && copyItem(item) });
      }
    }
    if (failures.length > 0) throw new ConditionFailed(failures);
    for (const write of writes) {
      if ('put' in write) this.#store(write.put, copyItem(write.put));
      else if ('delete' in write) this.#store(write.delete, undefined);
      else if ('update' in write) {
        const next: Record<string, Attribute | undefined> = { ...(this.#find(write.update) ?? write.update) };
        for (const [name, value] of Object.entries(write.set ?? {}))
          if (value !== undefined) next[name] = value;
        for (const name of write.remove ?? []) delete next[name];
        for (const [name, value] of Object.entries(write.add ?? {}))
          next[name] = Number(next[name] ?? 0) + value;
        this.#store(write.update, copyItem(next as Item));
      }
    }
    if (token !== undefined) this.#tokens.set(token, JSON.stringify(writes));
  }

  async writeMany(writes: readonly ({ readonly put: Item } | { readonly delete: Key })[]): Promise<void> {
    for (const write of writes) {
      if ('put' in write) this.#store(write.put, copyItem(write.put));
      else this.#store(write.delete, undefined);
    }
  }

  async due(shard: string, until: string, limit: number): Promise<readonly Item[]> {
    const found: Item[] = [];
    for (const partition of this.#items.values()) {
      for (const item of partition.values()) {
        if (item.due_pk === shard && typeof item.due_at === 'string' && item.due_at <= until)
          found.push(copyItem(item));
      }
    }
    return found.sort((a, b) => ((a.due_at as string) < (b.due_at as string) ? -1 : 1)).slice(0, limit);
  }

  /** Every item, for assertions on the whole state. */
  dump(): Item[] {
    return [...this.#items.values()].flatMap((partition) => [...partition.values()].map(copyItem));
  }
}

export class MemoryBlobs implements Blobs {
  readonly #name: string;
  readonly #clock: Clock;
  readonly #blobs = new Map<string, { body: Uint8Array; modifiedMs: number }>();

  constructor(name = 'memory', clock: Clock = systemClock) {
    this.#name = name;
    this.#clock = clock;
  }

  async put(
    key: string,
    body: Uint8Array | string,
    options: { readonly contentType?: string; readonly ifAbsent?: boolean } = {},
  ): Promise<{ etag: string }> {
    if (options.ifAbsent && this.#blobs.has(key)) throw new BlobConflict(key);
    const bytes = typeof body === 'string' ? new TextEncoder().encode(body) : body.slice();
    this.#blobs.set(key, { body: bytes, modifiedMs: this.#clock.now() });
    return { etag: this.#info(key)!.etag };
  }

  async putStream(
    key: string,
    chunks: AsyncIterable<Uint8Array>,
    options: { readonly contentType?: string } = {},
  ): Promise<{ etag: string; bytes: number }> {
    const parts: Uint8Array[] = [];
    for await (const chunk of chunks) parts.push(chunk.slice());
    const body = Buffer.concat(parts);
    return { ...(await this.put(key, body, options)), bytes: body.byteLength };
  }

  #info(key: string): BlobInfo | undefined {
    const blob = this.#blobs.get(key);
    if (!blob) return undefined;
    const etag = `"${createHash('md5').update(blob.body).digest('hex')}"`;
    return { key, bytes: blob.body.byteLength, etag, modifiedMs: blob.modifiedMs };
  }

  async get(key: string, range?: { readonly offset: number; readonly length: number }): Promise<Uint8Array> {
    const blob = this.#blobs.get(key);
    if (!blob) throw new BlobMissing(key);
    return range ? blob.body.slice(range.offset, range.offset + range.length) : blob.body.slice();
  }

  async readInto(key: string, offset: number, target: Uint8Array): Promise<void> {
    if (target.length === 0) return;
    const blob = this.#blobs.get(key);
    if (!blob) throw new BlobMissing(key);
    const found = blob.body.subarray(offset, offset + target.length);
    if (found.length < target.length)
      throw new BlobTooShort(key, offset, target.length, blob.body.byteLength);
    target.set(found);
  }

  async head(key: string): Promise<BlobInfo | undefined> {
    return this.#info(key);
  }

  async copyFrom(source: Blobs, sourceKey: string, key: string, etag: string): Promise<void> {
    const info = await source.head(sourceKey);
    if (!info) throw new BlobMissing(sourceKey);
    if (info.etag !== etag) throw new BlobConflict(sourceKey);
    await this.put(key, await source.get(sourceKey));
  }

  async delete(key: string): Promise<void> {
    this.#blobs.delete(key);
  }

  async list(prefix: string, after?: string): Promise<{ blobs: BlobInfo[]; next?: string }> {
    const keys = [...this.#blobs.keys()].filter((k) => k.startsWith(prefix)).sort();
    const rest = keys.filter((k) => after === undefined || k > after);
    const blobs = rest.slice(0, 1000).map((k) => this.#info(k)!);
    return rest.length > 1000 ? { blobs, next: blobs.at(-1)!.key } : { blobs };
  }

  async presignGet(key: string, seconds: number): Promise<string> {
    return `memory://${this.#name}/${key}?get=${seconds}`;
  }

  async presignPut(key: string, seconds: number, contentType: string): Promise<string> {
    return `memory://${this.#name}/${key}?put=${seconds}&type=${encodeURIComponent(contentType)}`;
  }

  uri(key: string): string {
    return `s3://${this.#name}/${key}`;
  }
}
