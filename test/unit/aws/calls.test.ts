// Queues, bus, workflows, functions and secrets: what is sent, what counts as done, and what is refused.
import { EventBridgeClient, PutEventsCommand } from '@aws-sdk/client-eventbridge';
import { InvokeCommand, LambdaClient } from '@aws-sdk/client-lambda';
import { GetSecretValueCommand, SecretsManagerClient } from '@aws-sdk/client-secrets-manager';
import { SFNClient, StartExecutionCommand } from '@aws-sdk/client-sfn';
import { SendMessageCommand, SQSClient } from '@aws-sdk/client-sqs';
import { mockClient } from 'aws-sdk-client-mock';
import { beforeEach, describe, expect, it } from 'vitest';
import { eventBridge } from '../../../functions/core/aws/bus.ts';
import { LambdaCaller } from '../../../functions/core/aws/invoke.ts';
import { secret } from '../../../functions/core/aws/secrets.ts';
import { sqsQueue } from '../../../functions/core/aws/sqs.ts';
import { stepFunctions } from '../../../functions/core/aws/states.ts';
import type { GranaryEvent } from '../../../functions/core/events.ts';

const region = { region: 'eu-west-1' };
const [sqs, bus, states, lambda, secrets] = [
  mockClient(SQSClient),
  mockClient(EventBridgeClient),
  mockClient(SFNClient),
  mockClient(LambdaClient),
  mockClient(SecretsManagerClient),
];
const named = (name: string) => Object.assign(new Error('x'), { name });
const event: GranaryEvent = {
  event_id: 'evt_1',
  event_type: 'batch.completed',
  occurred_at: 'now',
  org_id: 'org',
  namespace_id: 'ns',
  subject: { type: 'batch', id: 'b' },
  metadata: {},
};

beforeEach(() => {
  for (const client of [sqs, bus, states, lambda, secrets]) client.reset();
});

describe('a queue', () => {
  it('takes a body and a delay', async () => {
    sqs.on(SendMessageCommand).resolves({});
    await sqsQueue('url', new SQSClient(region)).send({ a: 1 }, 30);
    expect(sqs.commandCalls(SendMessageCommand)[0]!.args[0].input).toEqual({
      QueueUrl: 'url',
      MessageBody: '{"a":1}',
      DelaySeconds: 30,
    });
  });

  it('that does not answer is an outage', async () => {
    sqs.on(SendMessageCommand).rejects(named('TimeoutError'));
    await expect(sqsQueue('url', new SQSClient(region)).send({})).rejects.toMatchObject({
      code: 'storage_unavailable',
    });
  });
});

describe('the bus', () => {
  it('gets the event under its name', async () => {
    bus.on(PutEventsCommand).resolves({ FailedEntryCount: 0, Entries: [{ EventId: '1' }] });
    await eventBridge('granary', new EventBridgeClient(region)).put(event);
    expect(bus.commandCalls(PutEventsCommand)[0]!.args[0].input.Entries).toEqual([
      {
        EventBusName: 'granary',
        Source: 'granary',
        DetailType: 'batch.completed',
        Detail: JSON.stringify(event),
      },
    ]);
  });

  it('that refuses the entry although the call succeeds has not taken it', async () => {
    bus
      .on(PutEventsCommand)
      .resolves({ FailedEntryCount: 1, Entries: [{ ErrorCode: 'InternalFailure', ErrorMessage: 'x' }] });
    await expect(eventBridge('granary', new EventBridgeClient(region)).put(event)).rejects.toMatchObject({
      code: 'storage_unavailable',
    });
  });
});

describe('a workflow', () => {
  it('starts under a name; one that runs already under it is the one that was asked for', async () => {
    states
      .on(StartExecutionCommand)
      .resolvesOnce({})
      .rejectsOnce(named('ExecutionAlreadyExists'))
      .rejects(named('StateMachineDoesNotExist'));
    const workflows = stepFunctions(new SFNClient(region));
    await workflows.start('arn', 'btch_1-1', { a: 1 });
    await workflows.start('arn', 'btch_1-1', { a: 1 });
    expect(states.commandCalls(StartExecutionCommand)[0]!.args[0].input).toEqual({
      stateMachineArn: 'arn',
      name: 'btch_1-1',
      input: '{"a":1}',
    });
    await expect(workflows.start('arn', 'btch_1-1', {})).rejects.toMatchObject({ code: 'internal_error' });
  });
});

describe('another function', () => {
  const caller = (perTenant: boolean) => new LambdaCaller('runner', perTenant, new LambdaClient(region));
  const payload = (value: unknown) => Buffer.from(JSON.stringify(value)) as never;

  it('is called with its tenant where it has tenants, and answers its reply', async () => {
    lambda.on(InvokeCommand).resolves({ Payload: payload({ ok: true }) });
    expect(await caller(true).call({ a: 1 }, { tenant: 'org/ns' })).toEqual({ ok: true });
    await caller(false).call({ a: 1 }, { tenant: 'org/ns' });
    expect(lambda.commandCalls(InvokeCommand).map((call) => call.args[0].input.TenantId)).toEqual([
      'org/ns',
      undefined,
    ]);
  });

  it('that failed, cannot be reached or gives no JSON is unavailable, without its words', async () => {
    lambda
      .on(InvokeCommand)
      .resolvesOnce({ FunctionError: 'Unhandled', Payload: payload({ errorMessage: 'secret' }) })
      .rejectsOnce(named('TooManyRequestsException'))
      .resolves({ Payload: Buffer.from('no json') as never });
    for (let i = 0; i < 3; i++) {
      const error = await caller(false)
        .call({})
        .catch((thrown: unknown) => thrown);
      expect(error).toMatchObject({ code: 'plugin_unavailable' });
      expect((error as Error).message).not.toContain('secret');
    }
  });

  it('that takes too long is given up', async () => {
    lambda
      .on(InvokeCommand)
      .callsFake(() => new Promise((_, reject) => setTimeout(() => reject(named('AbortError')), 30)));
    await expect(caller(false).call({}, { timeoutMs: 5 })).rejects.toMatchObject({ code: 'plugin_timeout' });
  });

  it('is not called with more than it takes', async () => {
    await expect(caller(false).call({ text: 'x'.repeat(6_000_001) })).rejects.toMatchObject({
      code: 'internal_error',
    });
    expect(lambda.commandCalls(InvokeCommand)).toHaveLength(0);
  });
});

describe('a secret', () => {
  it('is read once, also by many at once', async () => {
    secrets.on(GetSecretValueCommand).resolves({ SecretString: 'pepper' });
    const read = secret('arn', new SecretsManagerClient(region));
    expect(await Promise.all([read(), read(), read()])).toEqual(['pepper', 'pepper', 'pepper']);
    expect(secrets.commandCalls(GetSecretValueCommand)).toHaveLength(1);
  });

  it('that could not be read is read again the next time; an empty one is a fault', async () => {
    secrets
      .on(GetSecretValueCommand)
      .rejectsOnce(named('InternalServiceError'))
      .resolvesOnce({})
      .resolves({ SecretString: 'pepper' });
    const read = secret('arn', new SecretsManagerClient(region));
    await expect(read()).rejects.toMatchObject({ code: 'internal_error' });
    await expect(read()).rejects.toMatchObject({ code: 'internal_error' });
    expect(await read()).toBe('pepper');
  });
});
