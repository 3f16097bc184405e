// The table over DynamoDB: what it sends, how it reads refusals, and that it tries again only where nothing was done.
import {
  BatchGetItemCommand,
  BatchWriteItemCommand,
  ConditionalCheckFailedException,
  DeleteItemCommand,
  DynamoDBClient,
  GetItemCommand,
  PutItemCommand,
  QueryCommand,
  TransactionCanceledException,
  TransactWriteItemsCommand,
  UpdateItemCommand,
} from '@aws-sdk/client-dynamodb';
import { mockClient } from 'aws-sdk-client-mock';
import { beforeEach, describe, expect, it } from 'vitest';
import { DynamoTable } from '../../../functions/core/aws/dynamo.ts';
import type { Write } from '../../../functions/core/store/table.ts';
import { ConditionFailed } from '../../../functions/core/store/table.ts';

const aws = mockClient(DynamoDBClient);
const table = new DynamoTable('granary', new DynamoDBClient({ region: 'eu-west-1' }));
const key = { pk: 'P', sk: 'S' };
const marshalledKey = { pk: { S: 'P' }, sk: { S: 'S' } };
const two: Write[] = [{ put: { ...key, n: 1 }, if: [{ absent: true }] }, { delete: { pk: 'P', sk: 'T' } }];
const metadata = { $metadata: {}, message: 'x' };
const cancelled = (...codes: string[]) =>
  new TransactionCanceledException({
    ...metadata,
    CancellationReasons: codes.map((Code) => ({
      Code,
      ...(Code === 'ConditionalCheckFailed' ? { Item: { ...marshalledKey, n: { N: '7' } } } : {}),
    })),
  });
const named = (name: string) => Object.assign(new Error('text of the service'), { name });

beforeEach(() => void aws.reset());

describe('reads', () => {
  it('of rows that are asked for side by side are one call, which each of them gets its row or the failure from', async () => {
    const other = { pk: 'P', sk: 'T' };
    aws
      .on(BatchGetItemCommand)
      .resolvesOnce({ Responses: { granary: [{ pk: { S: 'P' }, sk: { S: 'T' }, n: { N: '2' } }] } });
    expect(await Promise.all([table.get(key), table.get(other), table.get(key)])).toEqual([
      undefined,
      { ...other, n: 2 },
      undefined,
    ]);
    expect(aws.calls()).toHaveLength(1);
    expect(aws.call(0).args[0].input).toEqual({
      RequestItems: {
        granary: { Keys: [marshalledKey, { pk: { S: 'P' }, sk: { S: 'T' } }], ConsistentRead: true },
      },
    });
    aws.on(BatchGetItemCommand).rejects(named('ResourceNotFoundException'));
    const outcomes = await Promise.allSettled([table.get(key), table.get(other)]);
    expect(outcomes.map(({ status }) => status)).toEqual(['rejected', 'rejected']);
  });

  it('are consistent', async () => {
    aws.on(GetItemCommand).resolves({ Item: { ...marshalledKey, n: { N: '1' } } });
    aws.on(QueryCommand).resolves({ Items: [] });
    aws.on(BatchGetItemCommand).resolves({ Responses: {} });
    expect(await table.get(key)).toEqual({ ...key, n: 1 });
    await table.query('P');
    await table.getMany([key]);
    expect(aws.commandCalls(GetItemCommand)[0]!.args[0].input.ConsistentRead).toBe(true);
    expect(aws.commandCalls(QueryCommand)[0]!.args[0].input.ConsistentRead).toBe(true);
    expect(
      aws.commandCalls(BatchGetItemCommand)[0]!.args[0].input.RequestItems!.granary!.ConsistentRead,
    ).toBe(true);
  });

  it('ask again for keys that were left unread, and for those alone', async () => {
    aws
      .on(BatchGetItemCommand)
      .resolvesOnce({ Responses: { granary: [] }, UnprocessedKeys: { granary: { Keys: [marshalledKey] } } })
      .resolves({ Responses: { granary: [{ ...marshalledKey, n: { N: '2' } }] } });
    expect(await table.getMany([key, { pk: 'P', sk: 'T' }])).toEqual([{ ...key, n: 2 }, undefined]);
    expect(
      aws
        .commandCalls(BatchGetItemCommand)
        .map((call) => call.args[0].input.RequestItems!.granary!.Keys!.length),
    ).toEqual([2, 1]);
  });

  it('of the index ask for what is due up to a time', async () => {
    aws.on(QueryCommand).resolves({ Items: [marshalledKey] });
    expect(await table.due('DUE#1', '2026', 5)).toEqual([key]);
    expect(aws.commandCalls(QueryCommand)[0]!.args[0].input).toMatchObject({
      IndexName: 'due',
      Limit: 5,
      ExpressionAttributeValues: { ':p': { S: 'DUE#1' }, ':t': { S: '2026' } },
    });
  });

  it('that fail say busy or unreachable', async () => {
    aws.on(GetItemCommand).rejects(named('ProvisionedThroughputExceededException'));
    aws.on(QueryCommand).rejects(named('InternalServerError'));
    aws.on(BatchGetItemCommand).rejects(named('AccessDeniedException'));
    await expect(table.get(key)).rejects.toMatchObject({ code: 'storage_throttled' });
    await expect(table.query('P')).rejects.toMatchObject({ code: 'storage_unavailable' });
    await expect(table.due('P', 'x', 1)).rejects.toMatchObject({ code: 'storage_unavailable' });
    await expect(table.getMany([key])).rejects.toMatchObject({ code: 'internal_error' });
  });
});

describe('one write', () => {
  it('is a plain call that asks for the item it met', async () => {
    aws.on(PutItemCommand).resolves({});
    aws.on(UpdateItemCommand).resolves({});
    aws.on(DeleteItemCommand).resolves({});
    await table.write([{ put: { ...key, n: 1 }, if: [{ absent: true }] }]);
    await table.write([
      {
        update: key,
        set: { status: 'x' },
        remove: ['old'],
        add: { count: 1 },
        if: [{ attribute: 'version', eq: 1 }],
      },
    ]);
    await table.write([{ delete: key }]);
    expect(aws.commandCalls(TransactWriteItemsCommand)).toHaveLength(0);
    expect(aws.commandCalls(PutItemCommand)[0]!.args[0].input).toMatchObject({
      ConditionExpression: 'attribute_not_exists(#n0)',
      ExpressionAttributeNames: { '#n0': 'pk' },
      ReturnValuesOnConditionCheckFailure: 'ALL_OLD',
    });
    const update = aws.commandCalls(UpdateItemCommand)[0]!.args[0].input;
    expect(update.UpdateExpression).toMatch(/^SET #n\d+ = :v\d+ REMOVE #n\d+ ADD #n\d+ :v\d+$/);
    expect(Object.values(update.ExpressionAttributeNames!).sort()).toEqual([
      'count',
      'old',
      'status',
      'version',
    ]);
  });

  it('that is refused gives the item that it met', async () => {
    aws
      .on(PutItemCommand)
      .rejects(
        new ConditionalCheckFailedException({ ...metadata, Item: { ...marshalledKey, n: { N: '7' } } }),
      );
    const error = await table
      .write([{ put: key, if: [{ absent: true }] }])
      .catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(ConditionFailed);
    expect((error as ConditionFailed).failures).toEqual([{ index: 0, item: { ...key, n: 7 } }]);
  });

  it('that is refused where nothing was gives no item', async () => {
    aws.on(DeleteItemCommand).rejects(new ConditionalCheckFailedException(metadata));
    await expect(table.write([{ delete: key, if: [{ present: true }] }])).rejects.toMatchObject({
      failures: [{ index: 0, item: undefined }],
    });
  });
});

describe('a transaction', () => {
  it('names its token', async () => {
    aws.on(TransactWriteItemsCommand).resolves({});
    await table.write(two, 'token-1');
    await table.write([two[0]!], 'token-2');
    await table.write([{ check: key, if: [{ present: true }] }]);
    expect(
      aws.commandCalls(TransactWriteItemsCommand).map((call) => call.args[0].input.ClientRequestToken),
    ).toEqual(['token-1', 'token-2', undefined]);
  });

  it('that is refused names every write that failed, by its place, with what was there', async () => {
    aws
      .on(TransactWriteItemsCommand)
      .rejects(cancelled('None', 'ConditionalCheckFailed', 'ConditionalCheckFailed'));
    const error = (await table
      .write([...two, { check: { pk: 'P', sk: 'U' }, if: [{ present: true }] }])
      .catch((thrown: unknown) => thrown)) as ConditionFailed;
    expect(error).toBeInstanceOf(ConditionFailed);
    expect(error.failures.map((failure) => failure.index)).toEqual([1, 2]);
    expect(error.of(1)?.item).toEqual({ ...key, n: 7 });
    expect(error.of(0)).toBeUndefined();
    expect(aws.commandCalls(TransactWriteItemsCommand)).toHaveLength(1);
  });

  it('that met another one is tried again, with the same token, until it goes through', async () => {
    aws
      .on(TransactWriteItemsCommand)
      .rejectsOnce(cancelled('TransactionConflict', 'None'))
      .rejectsOnce(cancelled('None', 'ThrottlingError'))
      .resolves({});
    await table.write(two, 'token');
    expect(
      aws.commandCalls(TransactWriteItemsCommand).map((call) => call.args[0].input.ClientRequestToken),
    ).toEqual(['token', 'token', 'token']);
  });

  it('in which a condition failed is not tried again, whatever else went wrong', async () => {
    aws.on(TransactWriteItemsCommand).rejects(cancelled('ConditionalCheckFailed', 'TransactionConflict'));
    await expect(table.write(two)).rejects.toBeInstanceOf(ConditionFailed);
    expect(aws.commandCalls(TransactWriteItemsCommand)).toHaveLength(1);
  });

  it('that is wrong in itself is our fault, and not tried again', async () => {
    aws.on(TransactWriteItemsCommand).rejects(cancelled('ValidationError', 'None'));
    await expect(table.write(two)).rejects.toMatchObject({ code: 'storage_throttled' });
    expect(aws.commandCalls(TransactWriteItemsCommand)).toHaveLength(1);
    aws.on(TransactWriteItemsCommand).rejects(named('ValidationException'));
    await expect(table.write(two)).rejects.toMatchObject({ code: 'internal_error' });
  });
});

describe('a single write', () => {
  const put = [{ put: { pk: 'P', sk: 'S' } }];

  it('that meets a transaction on its row is tried again until it goes through', async () => {
    aws
      .on(PutItemCommand)
      .rejectsOnce(named('TransactionConflictException'))
      .rejectsOnce(named('TransactionConflictException'))
      .resolves({});
    await table.write(put);
    expect(aws.commandCalls(PutItemCommand)).toHaveLength(3);
  });

  it('that meets them without end may be repeated by the caller', async () => {
    aws.on(PutItemCommand).rejects(named('TransactionConflictException'));
    await expect(table.write(put)).rejects.toMatchObject({ code: 'storage_throttled' });
  });
});

describe('many writes', () => {
  it('go in pages of 25, and what is left unwritten is sent again', async () => {
    aws
      .on(BatchWriteItemCommand)
      .callsFakeOnce(({ RequestItems }) => ({
        UnprocessedItems: { granary: RequestItems.granary.slice(20) },
      }))
      .resolves({});
    await table.writeMany(Array.from({ length: 30 }, (_, i) => ({ put: { pk: 'P', sk: String(i) } })));
    const sizes = aws
      .commandCalls(BatchWriteItemCommand)
      .map((call) => call.args[0].input.RequestItems!.granary!.length);
    expect(sizes.sort((a, b) => b - a)).toEqual([25, 5, 5]);
  });
});
