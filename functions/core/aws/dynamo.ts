// The table over DynamoDB: conditions, transactions and pages in sight, no mapper in between.

import type { AttributeValue, TransactWriteItem, WriteRequest } from '@aws-sdk/client-dynamodb';
import {
  BatchGetItemCommand,
  BatchWriteItemCommand,
  DeleteItemCommand,
  DynamoDBClient,
  GetItemCommand,
  PutItemCommand,
  QueryCommand,
  TransactWriteItemsCommand,
  UpdateItemCommand,
} from '@aws-sdk/client-dynamodb';
import type {
  Attribute,
  Condition,
  FailedWrite,
  Item,
  Key,
  Page,
  QueryOptions,
  Table,
  Write,
} from '../store/table.ts';
import { ConditionFailed } from '../store/table.ts';
import { fromAttributes, toAttribute, toAttributes } from './attributes.ts';
import { toAppError } from './faults.ts';

const toItem = (raw: Record<string, AttributeValue>): Item => fromAttributes(raw) as Item;
const keyOf = (key: Key) => toAttributes({ pk: key.pk, sk: key.sk });

/** Collects the placeholders of one expression: every name and value goes through `#n` and `:v`. */
class Expression {
  readonly names: Record<string, string> = {};
  readonly values: Record<string, AttributeValue> = {};
  #count = 0;

  name(attribute: string): string {
    const found = Object.entries(this.names).find(([, name]) => name === attribute);
    if (found) return found[0];
    const placeholder = `#n${this.#count++}`;
    this.names[placeholder] = attribute;
    return placeholder;
  }

  value(value: Attribute): string {
    const placeholder = `:v${this.#count++}`;
    this.values[placeholder] = toAttribute(value);
    return placeholder;
  }

  condition(condition: Condition): string {
    if ('absent' in condition) return `attribute_not_exists(${this.name('pk')})`;
    if ('present' in condition) return `attribute_exists(${this.name('pk')})`;
    if ('anyOf' in condition) return `(${condition.anyOf.map((c) => this.condition(c)).join(' OR ')})`;
    if ('allOf' in condition) return `(${condition.allOf.map((c) => this.condition(c)).join(' AND ')})`;
    const name = this.name(condition.attribute);
    if ('missing' in condition) return `attribute_not_exists(${name})`;
    if ('eq' in condition) return `${name} = ${this.value(condition.eq)}`;
    if ('ne' in condition) return `(attribute_not_exists(${name}) OR ${name} <> ${this.value(condition.ne)})`;
    if ('lt' in condition) return `${name} < ${this.value(condition.lt)}`;
    if ('gt' in condition) return `${name} > ${this.value(condition.gt)}`;
    return `${name} IN (${condition.in.map((v) => this.value(v)).join(', ')})`;
  }

  all(conditions: readonly Condition[] | undefined): { ConditionExpression?: string } {
    if (!conditions || conditions.length === 0) return {};
    return { ConditionExpression: conditions.map((c) => this.condition(c)).join(' AND ') };
  }

  maps(): {
    ExpressionAttributeNames?: Record<string, string>;
    ExpressionAttributeValues?: Record<string, AttributeValue>;
  } {
    return {
      ...(Object.keys(this.names).length > 0 ? { ExpressionAttributeNames: this.names } : {}),
      ...(Object.keys(this.values).length > 0 ? { ExpressionAttributeValues: this.values } : {}),
    };
  }
}

function updateExpression(expression: Expression, write: Extract<Write, { update: Key }>): string {
  const sets = Object.entries(write.set ?? {})
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => `${expression.name(name)} = ${expression.value(value!)}`);
  const removes = (write.remove ?? []).map((name) => expression.name(name));
  const adds = Object.entries(write.add ?? {}).map(
    ([name, value]) => `${expression.name(name)} ${expression.value(value)}`,
  );
  return [
    sets.length > 0 ? `SET ${sets.join(', ')}` : '',
    removes.length > 0 ? `REMOVE ${removes.join(', ')}` : '',
    adds.length > 0 ? `ADD ${adds.join(', ')}` : '',
  ]
    .filter((part) => part !== '')
    .join(' ');
}

function toTransactItem(tableName: string, write: Write): TransactWriteItem {
  const expression = new Expression();
  const shared = { TableName: tableName, ReturnValuesOnConditionCheckFailure: 'ALL_OLD' as const };
  if ('put' in write) {
    return {
      Put: { ...shared, Item: toAttributes(write.put), ...expression.all(write.if), ...expression.maps() },
    };
  }
  if ('update' in write) {
    const update = updateExpression(expression, write);
    const conditions = expression.all(write.if);
    return {
      Update: {
        ...shared,
        Key: keyOf(write.update),
        UpdateExpression: update,
        ...conditions,
        ...expression.maps(),
      },
    };
  }
  if ('delete' in write) {
    return {
      Delete: { ...shared, Key: keyOf(write.delete), ...expression.all(write.if), ...expression.maps() },
    };
  }
  const conditions = expression.all(write.if) as { ConditionExpression: string };
  return { ConditionCheck: { ...shared, Key: keyOf(write.check), ...conditions, ...expression.maps() } };
}

interface CancellationReason {
  readonly Code?: string;
  readonly Item?: Record<string, AttributeValue>;
}

function pause(attempt: number): Promise<void> {
  const ms = Math.min(2000, 20 * 2 ** attempt) * (0.5 + Math.random() / 2);
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Tries of a transaction that met another one on the same item; it did nothing, so trying again is right. */
const conflictTries = 8;
const unprocessedTries = 10;

/** A row that somebody waits for. */
interface AskedRow {
  readonly key: Key;
  readonly resolve: (item: Item | undefined) => void;
  readonly reject: (error: unknown) => void;
}

export class DynamoTable implements Table {
  readonly #client: DynamoDBClient;
  readonly #name: string;
  #asked: AskedRow[] = [];

  constructor(name: string, client: DynamoDBClient = new DynamoDBClient({})) {
    this.#name = name;
    this.#client = client;
  }

  get(key: Key): Promise<Item | undefined> {
    return new Promise((resolve, reject) => {
      this.#asked.push({ key, resolve, reject });
      if (this.#asked.length === 1) setImmediate(() => this.#readAsked());
    });
  }

  /** Rows that were asked for side by side are read by one call: each call costs more than the row that it reads. */
  async #readAsked(): Promise<void> {
    const asked = this.#asked;
    this.#asked = [];
    try {
      const items =
        asked.length === 1
          ? [await this.#getOne(asked[0]!.key)]
          : await this.getMany(asked.map(({ key }) => key));
      for (const [i, { resolve }] of asked.entries()) resolve(items[i]);
    } catch (error) {
      for (const { reject } of asked) reject(error);
    }
  }

  async #getOne(key: Key): Promise<Item | undefined> {
    try {
      const { Item: raw } = await this.#client.send(
        new GetItemCommand({ TableName: this.#name, Key: keyOf(key), ConsistentRead: true }),
      );
      return raw && toItem(raw);
    } catch (error) {
      throw toAppError(error);
    }
  }

  async getMany(keys: readonly Key[]): Promise<(Item | undefined)[]> {
    const found = new Map<string, Item>();
    const id = (key: Key) => `${key.pk}\u0000${key.sk}`;
    const unique = [...new Map(keys.map((key) => [id(key), key])).values()];
    const pages: Key[][] = [];
    for (let i = 0; i < unique.length; i += 100) pages.push(unique.slice(i, i + 100));
    await Promise.all(
      pages.map(async (page) => {
        let wanted: Record<string, AttributeValue>[] = page.map(keyOf);
        for (let attempt = 0; wanted.length > 0; attempt++) {
          if (attempt >= unprocessedTries)
            throw toAppError(Object.assign(new Error('keys left unread'), { name: 'ThrottlingException' }));
          if (attempt > 0) await pause(attempt);
          try {
            const answer = await this.#client.send(
              new BatchGetItemCommand({
                RequestItems: { [this.#name]: { Keys: wanted, ConsistentRead: true } },
              }),
            );
            for (const raw of answer.Responses?.[this.#name] ?? []) {
              const item = toItem(raw);
              found.set(id(item), item);
            }
            wanted = answer.UnprocessedKeys?.[this.#name]?.Keys ?? [];
          } catch (error) {
            throw toAppError(error);
          }
        }
      }),
    );
    return keys.map((key) => found.get(id(key)));
  }

  async query(pk: string, options: QueryOptions = {}): Promise<Page> {
    const expression = new Expression();
    const parts = [`${expression.name('pk')} = ${expression.value(pk)}`];
    if (options.prefix !== undefined)
      parts.push(`begins_with(${expression.name('sk')}, ${expression.value(options.prefix)})`);
    if (options.between) {
      const [from, to] = options.between;
      parts.push(`${expression.name('sk')} BETWEEN ${expression.value(from)} AND ${expression.value(to)}`);
    }
    try {
      const answer = await this.#client.send(
        new QueryCommand({
          TableName: this.#name,
          KeyConditionExpression: parts.join(' AND '),
          ...expression.maps(),
          ConsistentRead: true,
          ScanIndexForward: !options.descending,
          ...(options.limit === undefined ? {} : { Limit: options.limit }),
          ...(options.after === undefined ? {} : { ExclusiveStartKey: keyOf(options.after) }),
        }),
      );
      const items = (answer.Items ?? []).map(toItem);
      return answer.LastEvaluatedKey
        ? { items, next: fromAttributes(answer.LastEvaluatedKey) as unknown as Key }
        : { items };
    } catch (error) {
      throw toAppError(error);
    }
  }

  async write(writes: readonly Write[], token?: string): Promise<void> {
    if (writes.length === 0) return;
    if (writes.length > 100) throw new Error(`a transaction takes 100 writes at most, got ${writes.length}`);
    if (writes.length === 1 && token === undefined && !('check' in writes[0]!))
      return this.#writeAlone(writes[0]!);
    const items = writes.map((write) => toTransactItem(this.#name, write));
    for (let attempt = 0; ; attempt++) {
      try {
        await this.#client.send(
          new TransactWriteItemsCommand({
            TransactItems: items,
            ...(token === undefined ? {} : { ClientRequestToken: token }),
          }),
        );
        return;
      } catch (error) {
        const reasons = (error as { CancellationReasons?: readonly CancellationReason[] })
          .CancellationReasons;
        if ((error as Error).name !== 'TransactionCanceledException' || !reasons) throw toAppError(error);
        const failures = reasons
          .map((reason, index): FailedWrite | undefined =>
            reason.Code === 'ConditionalCheckFailed'
              ? { index, item: reason.Item && toItem(reason.Item) }
              : undefined,
          )
          .filter((failure) => failure !== undefined);
        if (failures.length > 0) throw new ConditionFailed(failures);
        const passing = reasons.some(
          (r) =>
            r.Code === 'TransactionConflict' ||
            r.Code === 'ThrottlingError' ||
            r.Code === 'ProvisionedThroughputExceeded',
        );
        if (!passing || attempt >= conflictTries) throw toAppError(error);
        await pause(attempt);
      }
    }
  }

  /** A single write, again while a transaction holds its row. */
  async #writeAlone(write: Write): Promise<void> {
    for (let attempt = 0; ; attempt++) {
      try {
        return await this.#writeOne(write);
      } catch (error) {
        if ((error as Error).name !== 'TransactionConflictException') throw error;
        if (attempt >= conflictTries) throw toAppError(error);
        await pause(attempt);
      }
    }
  }

  async #writeOne(write: Write): Promise<void> {
    const expression = new Expression();
    const shared = { TableName: this.#name, ReturnValuesOnConditionCheckFailure: 'ALL_OLD' as const };
    try {
      if ('put' in write) {
        await this.#client.send(
          new PutItemCommand({
            ...shared,
            Item: toAttributes(write.put),
            ...expression.all(write.if),
            ...expression.maps(),
          }),
        );
      } else if ('update' in write) {
        const update = updateExpression(expression, write);
        const conditions = expression.all(write.if);
        await this.#client.send(
          new UpdateItemCommand({
            ...shared,
            Key: keyOf(write.update),
            UpdateExpression: update,
            ...conditions,
            ...expression.maps(),
          }),
        );
      } else if ('delete' in write) {
        await this.#client.send(
          new DeleteItemCommand({
            ...shared,
            Key: keyOf(write.delete),
            ...expression.all(write.if),
            ...expression.maps(),
          }),
        );
      }
    } catch (error) {
      if ((error as Error).name === 'TransactionConflictException') throw error;
      if ((error as Error).name !== 'ConditionalCheckFailedException') throw toAppError(error);
      const raw = (error as { Item?: Record<string, AttributeValue> }).Item;
      throw new ConditionFailed([{ index: 0, item: raw && toItem(raw) }]);
    }
  }

  async writeMany(writes: readonly ({ readonly put: Item } | { readonly delete: Key })[]): Promise<void> {
    const requests: WriteRequest[] = writes.map((write) =>
      'put' in write
        ? { PutRequest: { Item: toAttributes(write.put) } }
        : { DeleteRequest: { Key: keyOf(write.delete) } },
    );
    const pages: WriteRequest[][] = [];
    for (let i = 0; i < requests.length; i += 25) pages.push(requests.slice(i, i + 25));
    for (let i = 0; i < pages.length; i += 8) {
      await Promise.all(pages.slice(i, i + 8).map((page) => this.#writePage(page)));
    }
  }

  async #writePage(page: WriteRequest[]): Promise<void> {
    let left = page;
    for (let attempt = 0; left.length > 0; attempt++) {
      if (attempt >= unprocessedTries)
        throw toAppError(Object.assign(new Error('items left unwritten'), { name: 'ThrottlingException' }));
      if (attempt > 0) await pause(attempt);
      try {
        const answer = await this.#client.send(
          new BatchWriteItemCommand({ RequestItems: { [this.#name]: left } }),
        );
        left = answer.UnprocessedItems?.[this.#name] ?? [];
      } catch (error) {
        throw toAppError(error);
      }
    }
  }

  async due(shard: string, until: string, limit: number): Promise<readonly Item[]> {
    try {
      const answer = await this.#client.send(
        new QueryCommand({
          TableName: this.#name,
          IndexName: 'due',
          KeyConditionExpression: '#p = :p AND #t <= :t',
          ExpressionAttributeNames: { '#p': 'due_pk', '#t': 'due_at' },
          ExpressionAttributeValues: { ':p': { S: shard }, ':t': { S: until } },
          Limit: limit,
        }),
      );
      return (answer.Items ?? []).map(toItem);
    } catch (error) {
      throw toAppError(error);
    }
  }
}
