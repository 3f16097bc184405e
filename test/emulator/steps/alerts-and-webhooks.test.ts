// Step 9 on the deployed stack: alerts over what a batch brought, webhooks for its events, signed, retried and logged.
import {
  GetQueueAttributesCommand,
  ReceiveMessageCommand,
  SendMessageCommand,
  SetQueueAttributesCommand,
  SQSClient,
} from '@aws-sdk/client-sqs';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Receiver } from '../receiver.ts';
import { startReceiver, verify } from '../receiver.ts';
import type { Client, Json, Setup, Workspace } from '../stack.ts';
import {
  makeCollection,
  makeWorkspace,
  output,
  putTexts,
  runBatch,
  searchStages,
  stack,
  triggerBatch,
  until,
  usePickyPlugin,
  usePlugin,
} from '../stack.ts';

let space: Workspace;
let client: Client;
let setup: Setup;
let receiver: Receiver;

beforeAll(async () => {
  receiver = await startReceiver();
  space = await makeWorkspace('events');
  client = space.client;
  await usePlugin(space);
  setup = await makeCollection(space, 'news');
});
afterAll(async () => {
  await space?.close();
  await receiver?.close();
});

const hook = (name: string, more: Json = {}): Promise<Json> =>
  client.call('POST', `${space.path}/webhooks`, {
    webhook_name: name,
    url: `${receiver.url}/${name}`,
    events: ['batch.completed', 'batch.failed'],
    ...more,
  });

const heard = (path: string, count = 1) =>
  until(
    `${count} deliveries to ${path}`,
    () => (receiver.at(path).length >= count ? receiver.at(path) : undefined),
    {
      describe: () => receiver.received.map((one) => [one.path, one.status]),
    },
  );

const deliveries = async (webhook: string): Promise<Json[]> =>
  (await client.call('GET', `${space.path}/webhooks/${webhook}/deliveries`)).results;

describe('a webhook', () => {
  it('hears of a completed batch, once, signed in both ways, with the request that caused it', async () => {
    const made = await hook('batches');
    expect(made.signing_secret).toMatch(/^whsec_/);
    await putTexts(space, setup, ['first news']);
    const triggered = await client.ask(
      'POST',
      `${setup.bucket}/batches/trigger`,
      { collection_ids: [setup.collectionId] },
      { 'X-Request-Id': 'request-of-the-test' },
    );
    const [one, ...more] = await heard('/batches');
    expect(more).toEqual([]);
    verify(one!, made.signing_secret);
    expect(one!.body).toMatchObject({
      event_type: 'batch.completed',
      type: 'batch.completed',
      namespace_id: space.namespaceId,
      subject: { type: 'batch', id: triggered.body.batch_id },
      metadata: { request_id: 'request-of-the-test' },
    });
    expect(() =>
      verify({ ...one!, text: one!.text.replace('completed', 'forgotten') }, made.signing_secret),
    ).toThrow();
    const [delivery] = await until('the log of the delivery', async () => {
      const log = await deliveries(made.webhook_id);
      return log[0]?.status === 'delivered' ? log : undefined;
    });
    expect(delivery).toMatchObject({
      event_type: 'batch.completed',
      event_id: one!.body.event_id,
      attempts: [expect.objectContaining({ status: 204 })],
    });
  });

  it('hears of a failed batch', async () => {
    const made = await hook('failures', { events: ['batch.failed'] });
    await usePickyPlugin(space);
    const bad = await makeCollection(space, 'bad-news', { plugin: 'picky_embed' });
    await putTexts(space, bad, ['nothing but poison']);
    const { batch_id } = await triggerBatch(space, bad);
    const [one] = await heard('/failures');
    verify(one!, made.signing_secret);
    expect(one!.body).toMatchObject({ event_type: 'batch.failed', subject: { id: batch_id } });
  });

  it('is tried again after a failure, under the same id and a new time, and the log shows both attempts', async () => {
    const made = await hook('flaky', { events: ['webhook.test'] });
    receiver.answer('/flaky', 500);
    const { delivery_id } = await client.call('POST', `${space.path}/webhooks/${made.webhook_id}/test`);
    const [first, second] = await heard('/flaky', 2);
    expect(second!.headers['webhook-id']).toBe(first!.headers['webhook-id']);
    expect(Number(second!.headers['webhook-timestamp'])).toBeGreaterThan(
      Number(first!.headers['webhook-timestamp']),
    );
    verify(second!, made.signing_secret);
    const delivery = await until('the delivery in the log', async () => {
      const found = await client.call(
        'GET',
        `${space.path}/webhooks/${made.webhook_id}/deliveries/${delivery_id}`,
      );
      return found.status === 'delivered' ? found : undefined;
    });
    expect(delivery.attempts.map((one: Json) => one.status)).toEqual([500, 204]);
  });

  it('can be tested, and a delivery can be sent again under its old id', async () => {
    const made = await hook('tested');
    const test = await client.call('POST', `${space.path}/webhooks/${made.webhook_id}/test`);
    const [one] = await heard('/tested');
    expect(one!.body).toMatchObject({ event_type: 'webhook.test', event_id: test.event_id });
    await until('the delivery in the log', async () =>
      (await deliveries(made.webhook_id))[0]?.status === 'delivered' ? true : undefined,
    );
    await client.call(
      'POST',
      `${space.path}/webhooks/${made.webhook_id}/deliveries/${test.delivery_id}/replay`,
    );
    const [, again] = await heard('/tested', 2);
    expect(again!.headers['webhook-id']).toBe(one!.headers['webhook-id']);
    verify(again!, made.signing_secret);
    await client.call(
      'POST',
      `${space.path}/webhooks/${made.webhook_id}/replay?include_delivered=true&since=${new Date(0).toISOString()}`,
    );
    await heard('/tested', 3);
  });

  it('of the organisation hears of every namespace, in the spelling of clients', async () => {
    const { webhook_id } = await client.call('POST', '/v1/organizations/webhooks', {
      webhook_name: `all-${space.namespaceName}`,
      event_types: ['batch.completed'],
      channels: [{ channel: 'webhook', configs: { url: `${receiver.url}/organisation` } }],
    });
    try {
      await putTexts(space, setup, ['news for everybody']);
      const { batch_id } = await triggerBatch(space, setup);
      await until('the event of this batch', () =>
        receiver.at('/organisation').find((one) => one.body.subject.id === batch_id),
      );
    } finally {
      await client.call('DELETE', `/v1/organizations/webhooks/${webhook_id}`);
    }
  });

  it('signs with both secrets while a rotation lasts', async () => {
    const made = await hook('rotated', { events: ['webhook.test'] });
    const rotated = await client.call('POST', `${space.path}/webhooks/${made.webhook_id}/rotate-secret`);
    expect(rotated.signing_secret).not.toBe(made.signing_secret);
    await client.call('POST', `${space.path}/webhooks/${made.webhook_id}/test`);
    const [one] = await heard('/rotated');
    const { headers, text } = one!;
    expect(String(headers['webhook-signature']).split(' ')).toHaveLength(2);
    const { Webhook } = await import('standardwebhooks');
    for (const secret of [made.signing_secret, rotated.signing_secret]) {
      new Webhook(secret).verify(
        text,
        Object.fromEntries(Object.entries(headers).map(([name, value]) => [name, String(value)])),
      );
    }
  });

  it('is read without its secret, listed, changed and deleted; then it hears nothing more', async () => {
    const made = await hook('brief', { events: ['webhook.test'] });
    const path = `${space.path}/webhooks/brief`;
    expect(await client.call('GET', path)).toMatchObject({
      webhook_id: made.webhook_id,
      signing_secret: 'redacted',
    });
    expect(
      (await client.call('POST', `${space.path}/webhooks/list`, {})).results.map(
        (one: Json) => one.webhook_id,
      ),
    ).toContain(made.webhook_id);
    expect(await client.call('PATCH', path, { is_active: false })).toMatchObject({ is_active: false });
    expect((await client.ask('DELETE', path)).status).toBe(204);
    expect((await client.ask('GET', path)).status).toBe(404);
    expect((await client.ask('DELETE', path)).status).toBe(404);
  });

  it.each([
    ['an unknown event', { events: ['batch.exploded'] }, /batch\.completed/],
    ['a private address', { url: 'http://10.0.0.1/hook' }, /url/],
    ['the address of the metadata service', { url: 'http://169.254.169.254/latest/meta-data' }, /url/],
    ['something that is no URL', { url: 'my server' }, /url/],
    ['another scheme', { url: 'ftp://example.com/hook' }, /url/],
    ['no event', { events: [] }, /events/],
    ['a secret that is too short', { signing_secret: 'short' }, /signing_secret/],
  ])('is refused with %s', async (_, change, says) => {
    const fault = await client.refused(422, 'POST', `${space.path}/webhooks`, {
      webhook_name: 'refused',
      url: 'https://example.com/hook',
      events: ['batch.completed'],
      ...change,
    });
    expect(`${fault.message}\n${fault.fields.join('\n')}`).toMatch(says);
    expect((await client.ask('GET', `${space.path}/webhooks/refused`)).status).toBe(404);
  });
});

describe('an alert', () => {
  const labelled = { field: 'metadata.auto_topic', operator: 'eq', value: 'space' };

  it('tells once about a batch, with the documents that meet its condition after the taxonomies ran', async () => {
    await putTexts(space, setup, [{ text: 'rockets fly into orbit', metadata: { topic: 'space' } }]);
    await runBatch(space, setup);
    await client.call('POST', `${space.path}/retrievers`, { name: 'text_search', stages: searchStages() });
    const taxonomy = await client.call('POST', `${space.path}/taxonomies`, {
      taxonomy_name: 'topics',
      taxonomy_type: 'flat',
      retriever_id: 'text_search',
      collection_id: setup.collectionId,
      input_mappings: [{ source: 'payload.text', target: 'query' }],
      enrichment_fields: [{ source: 'payload.topic', target: 'auto_topic' }],
      threshold: 0.5,
      execution_mode: 'materialize',
    });
    await until('the end of the taxonomy run', async () =>
      (await client.call('GET', `${space.path}/taxonomies/${taxonomy.taxonomy_id}`)).ready ? true : undefined,
    );
    const alert = await client.call('POST', `${space.path}/alerts`, {
      alert_name: 'space-news',
      collection_id: setup.collectionId,
      condition: labelled,
      notification: { type: 'webhook', url: `${receiver.url}/alert` },
    });
    expect(alert.notification.signing_secret).toMatch(/^whsec_/);

    await putTexts(space, setup, [
      'rockets fly today',
      'tomatoes ripen slowly',
      'rockets fly into orbit soon',
    ]);
    const batch = await runBatch(space, setup);
    const [one, ...more] = await heard('/alert');
    expect(more).toEqual([]);
    verify(one!, alert.notification.signing_secret);
    expect(one!.body).toMatchObject({ event_type: 'alert.triggered', subject: { id: alert.alert_id } });
    const { results } = await client.call('GET', `${space.path}/alerts/${alert.alert_id}/executions`);
    expect(results[0]).toMatchObject({
      batch_id: batch.batch_id,
      triggered: true,
      match_count: 2,
      status: 'completed',
    });

    // Nothing new meets the condition, so nobody is told again about what was reported.
    await putTexts(space, setup, ['tomatoes again']);
    const quiet = await runBatch(space, setup);
    const after = await client.call('GET', `${space.path}/alerts/${alert.alert_id}/executions`);
    expect(
      after.results.find((execution: Json) => execution.batch_id === quiet.batch_id) ?? { triggered: false },
    ).toMatchObject({ triggered: false });
    expect(receiver.at('/alert')).toHaveLength(1);
  });

  it('may ask a retriever instead of a condition, in the spelling of clients', async () => {
    const alert = await client.call(
      'POST',
      '/v1/alerts',
      {
        name: 'like-rockets',
        retriever_id: 'text_search',
        inputs: { query: 'rockets fly' },
        threshold: { field: 'score', operator: 'gte', value: 0.7 },
        notification_config: {
          channels: [{ channel_type: 'webhook', config: { url: `${receiver.url}/alike` } }],
          include_matches: true,
        },
      },
      { 'X-Namespace': space.namespaceId },
    );
    expect(alert).toMatchObject({ kind: 'retriever', alert_name: 'like-rockets' });
    await putTexts(space, setup, ['rockets fly high', 'potatoes grow']);
    const batch = await runBatch(space, setup);
    const [one] = await heard('/alike');
    verify(one!, alert.notification_config.channels[0].config.signing_secret);
    const { results } = await client.call('GET', `${space.path}/alerts/${alert.alert_id}/executions`);
    expect(results[0]).toMatchObject({ batch_id: batch.batch_id, triggered: true });
    expect(results[0].matches[0]).toMatchObject({
      collection_id: setup.collectionId,
      score: expect.any(Number),
    });
    await client.call('DELETE', `${space.path}/alerts/${alert.alert_id}`);
  });

  it('is read by name, listed, changed and deleted', async () => {
    const found = await client.call('GET', `${space.path}/alerts/space-news`);
    expect(found).toMatchObject({ kind: 'condition', notification: { signing_secret: 'redacted' } });
    expect(
      (await client.call('GET', `${space.path}/alerts`)).results.map((one: Json) => one.alert_id),
    ).toEqual([found.alert_id]);
    expect(
      await client.call('PATCH', `${space.path}/alerts/${found.alert_id}`, { enabled: false }),
    ).toMatchObject({ enabled: false });
    expect((await client.ask('DELETE', `${space.path}/alerts/${found.alert_id}`)).status).toBe(200);
    expect((await client.ask('GET', `${space.path}/alerts/${found.alert_id}`)).status).toBe(404);
  });

  it.each([
    ['an unknown operator', { condition: { field: 'x', operator: 'near', value: 1 } }, /near/],
    ['a private URL', { notification: { type: 'webhook', url: 'http://192.168.1.1/hook' } }, /url/],
    ['no URL', { notification: { type: 'webhook' } }, /url/],
    ['an unknown channel', { notification: { type: 'pigeon', url: 'https://example.com' } }, /webhook/],
    ['a condition that is none', { condition: { MAYBE: [] } }, /condition/],
  ])('is refused with %s', async (_, change, says) => {
    const fault = await client.refused(422, 'POST', `${space.path}/alerts`, {
      alert_name: 'refused',
      collection_id: setup.collectionId,
      condition: labelled,
      notification: { type: 'webhook', url: 'https://example.com/hook' },
      ...change,
    });
    expect(`${fault.message}\n${fault.fields.join('\n')}`).toMatch(says);
  });

  it('over a collection that does not exist is refused', async () => {
    const reply = await client.ask('POST', `${space.path}/alerts`, {
      alert_name: 'refused',
      collection_id: `col_${'0'.repeat(20)}`,
      condition: labelled,
      notification: { type: 'webhook', url: 'https://example.com/hook' },
    });
    expect([404, 422]).toContain(reply.status);
  });
});

describe('what cannot be delivered', () => {
  it('ends in the dead-letter queue, where somebody finds it', async () => {
    const sqs = new SQSClient(stack.endpoint === undefined ? {} : { endpoint: stack.endpoint });
    const [queue, dead] = [output('DeliveriesQueueUrl'), output('DeliveriesDlqUrl')];
    const { Attributes } = await sqs.send(
      new GetQueueAttributesCommand({ QueueUrl: queue, AttributeNames: ['VisibilityTimeout'] }),
    );
    const patience = (seconds: string) =>
      sqs.send(
        new SetQueueAttributesCommand({ QueueUrl: queue, Attributes: { VisibilityTimeout: seconds } }),
      );
    // The queue waits minutes between two tries; the five tries are what is looked at here.
    await patience('1');
    try {
      const mark = `no event ${Date.now()}`;
      await sqs.send(new SendMessageCommand({ QueueUrl: queue, MessageBody: mark }));
      const found = await until('the message in the dead-letter queue', async () => {
        const { Messages = [] } = await sqs.send(
          new ReceiveMessageCommand({ QueueUrl: dead, VisibilityTimeout: 0, MaxNumberOfMessages: 10 }),
        );
        return Messages.find(({ Body }) => Body === mark);
      });
      expect(found.Body).toBe(mark);
    } finally {
      await patience(Attributes?.VisibilityTimeout ?? '720');
    }
  });
});
