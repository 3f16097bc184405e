// Alerts over HTTP and after a batch: definitions in both spellings, their faults, one notification per batch.
import { Webhook } from 'standardwebhooks';
import { describe, expect, it } from 'vitest';
import { setCrashHook } from '../../../functions/core/crash.ts';
import type { GranaryEvent } from '../../../functions/core/events.ts';
import { evaluateAlerts, executionId } from '../../../functions/core/resources/alerts/workflow.ts';
import { enrichDocuments } from '../../../functions/core/resources/documents/service.ts';
import type { DeliverPorts } from '../../../functions/core/resources/webhooks/deliver.ts';
import { attemptDelivery, fanOut } from '../../../functions/core/resources/webhooks/deliver.ts';
import type { App } from '../app.ts';
import { makeApp } from '../app.ts';
import { events } from '../clusters/run.ts';
import { axisDocuments, featureUri, seedBatch, seedCollection } from '../clusters/seed.ts';

const base = '/v1/namespaces/{ns}/alerts';

const tutorialBody = (collectionId: string, more: object = {}) => ({
  alert_name: 'quantum-articles',
  collection_id: collectionId,
  condition: { field: 'metadata.auto_topic', operator: 'eq', value: 'quantum' },
  notification: { type: 'webhook', url: 'https://example.com/webhook' },
  ...more,
});

const topicIs = (value: string) => ({ condition: { field: 'topic', operator: 'eq', value } });

async function seeded() {
  const app = await makeApp({ settings: { allowLoopback: false } });
  return { app, collection: await seedCollection(app) };
}

async function create(app: App, body: object) {
  const made = await app.call('POST', base, body);
  expect([made.status, made.body.error]).toEqual([200, undefined]);
  return made.body;
}

describe('definitions', () => {
  it('an alert in the words of the tutorial has an endpoint of its own, whose secret is shown once', async () => {
    const { app, collection } = await seeded();
    const made = await create(app, tutorialBody(collection.name));
    expect(made).toMatchObject({
      alert_name: 'quantum-articles',
      name: 'quantum-articles',
      kind: 'condition',
      collection_id: collection.id,
      condition: { field: 'metadata.auto_topic', operator: 'eq', value: 'quantum' },
      notification: { type: 'webhook', url: 'https://example.com/webhook' },
      enabled: true,
      last_fired_at: null,
    });
    expect(made.notification.signing_secret).toMatch(/^whsec_/);
    expect(made.notification_config.channels).toHaveLength(1);
    const read = await app.call('GET', `${base}/quantum-articles`);
    expect(read.body.notification.signing_secret).toBe('redacted');
    expect((await app.call('GET', '/v1/namespaces/{ns}/webhooks')).body.total).toBe(0);
    expect(JSON.stringify(app.ports.table.dump())).not.toContain(made.notification.signing_secret);
  });

  it('the endpoint of an alert is changed and deleted with its alert only', async () => {
    const { app, collection } = await seeded();
    const made = await create(app, tutorialBody(collection.id));
    const { items } = await app.ports.table.query(app.ctx.ns.pk, { prefix: 'WEBHOOK#' });
    const url = `/v1/namespaces/{ns}/webhooks/${items[0]!.id}`;
    for (const [method, body] of [
      ['PATCH', { is_active: false }],
      ['PUT', { url: 'https://example.com/other' }],
      ['DELETE', undefined],
    ] as const) {
      const reply = await app.call(method, url, body);
      expect([reply.status, reply.body.error.details.code]).toEqual([409, 'webhook_in_use']);
      expect(reply.body.error.message).toContain(made.alert_id);
    }
    expect((await app.call('DELETE', `${base}/${made.alert_id}`)).status).toBe(200);
    expect((await app.call('GET', url)).status).toBe(404);
  });

  it('the spelling of the client makes the same alert, with several channels', async () => {
    const { app, collection } = await seeded();
    const made = await app.call(
      'POST',
      '/v1/alerts',
      {
        name: 'two ways',
        collection_ids: [collection.id],
        condition: { AND: [{ field: 'topic', operator: 'in', value: ['a', 'b'] }] },
        notification_config: {
          channels: [
            { channel_type: 'webhook', config: { url: 'https://one.example.com/' } },
            { channel_type: 'webhook', config: { url: 'https://two.example.com/', signing_secret: '' } },
          ],
          include_matches: false,
        },
      },
      { 'X-Namespace': app.namespace },
    );
    expect(made.status).toBe(200);
    expect(made.body.notification_config.channels.map((c: { config: object }) => c.config)).toEqual([
      { url: 'https://one.example.com/', signing_secret: expect.stringMatching(/^whsec_/) },
      { url: 'https://two.example.com/', signing_secret: null },
    ]);
  });

  it('an alert with many faults is refused with all of them, and leaves nothing behind', async () => {
    const { app, collection } = await seeded();
    const stored = () => app.ports.table.dump().filter((item) => !item.pk.startsWith('RATE#'));
    const before = stored();
    const refused = await app.call('POST', base, {
      alert_name: 'wrong',
      collection_ids: [collection.id, 'nowhere'],
      condition: {
        OR: [
          { field: 'topic', operator: 'resembles', value: 'a' },
          { field: 'topic', operator: 'eq', value: 'b' },
        ],
      },
      threshold: { field: 'score', operator: 'gt', value: 0.5 },
      notification_config: {
        channels: [
          { channel_type: 'slack', config: { url: 'https://hooks.example.com/' } },
          { channel_type: 'webhook', config: { url: 'http://169.254.169.254/latest' } },
          { channel_type: 'webhook' },
        ],
      },
    });
    expect(refused.status).toBe(422);
    expect(refused.body.error.details.code).toBe('alert_invalid');
    const faults = refused.body.error.details.validation_errors;
    expect(faults.map((f: { type: string; location: unknown[] }) => [f.type, f.location.join('.')])).toEqual([
      ['condition_unknown_operator', 'body.condition.OR.0.operator'],
      ['kind_mismatch', 'body.threshold'],
      ['collection_unknown', 'body.collection_ids.1'],
      ['channel_unsupported', 'body.notification_config.channels.0.channel_type'],
      ['url_refused', 'body.notification_config.channels.1.config.url'],
      ['missing', 'body.notification_config.channels.2.config.url'],
    ]);
    expect(faults[3].fix).toBe('one of: webhook');
    expect(stored()).toEqual(before);
  });

  it.each([
    ['http://example.com/', /https/],
    ['https://localhost/', /not a public address/],
    ['https://10.0.0.1/', /not a public address/],
    ['https://[::1]/', /not a public address/],
    ['https://2130706433/', /not a public address/],
    ['https://user:secret@example.com/', /user name or password/],
    ['not a url', /./],
  ])('the URL %s is refused with the reason', async (url, reason) => {
    const { app, collection } = await seeded();
    const refused = await app.call(
      'POST',
      base,
      tutorialBody(collection.id, { notification: { type: 'webhook', url } }),
    );
    expect(refused.status).toBe(422);
    expect(refused.body.error.details.validation_errors[0]).toMatchObject({
      location: ['body', 'notification', 'url'],
      message: expect.stringMatching(reason),
    });
  });

  it('a name that is taken is refused, and the endpoints that were made for it are gone', async () => {
    const { app, collection } = await seeded();
    await create(app, tutorialBody(collection.id));
    const again = await app.call('POST', base, tutorialBody(collection.id));
    expect([again.status, again.body.error.details.code]).toEqual([409, 'alert_name_taken']);
    expect(app.ports.table.dump().filter((item) => item.sk.startsWith('WEBHOOK#'))).toHaveLength(1);
  });

  it('an update keeps the endpoint of a URL that stays, and makes one with its own secret for a URL that is new', async () => {
    const { app, collection } = await seeded();
    const made = await create(app, tutorialBody(collection.id));
    const [channel] = made.notification_config.channels;
    const same = await app.call('PATCH', `${base}/${made.alert_id}`, {
      enabled: false,
      notification: { type: 'webhook', url: 'https://example.com/webhook' },
    });
    expect(same.body).toMatchObject({ enabled: false, version: 2 });
    expect(same.body.notification_config.channels[0]).toEqual({
      ...channel,
      config: { ...channel.config, signing_secret: 'redacted' },
    });
    const moved = await app.call(
      'PATCH',
      `${base}/${made.alert_id}`,
      { notification: { type: 'webhook', url: 'https://other.example.com/' } },
      { 'If-Match': '"2"' },
    );
    expect(moved.body.notification.signing_secret).toMatch(/^whsec_/);
    expect(moved.body.notification_config.channels[0].channel_id).not.toBe(channel.channel_id);
    expect(app.ports.table.dump().filter((item) => item.sk.startsWith('WEBHOOK#'))).toHaveLength(1);
    expect(
      (await app.call('PATCH', `${base}/${made.alert_id}`, { enabled: true }, { 'If-Match': '"2"' })).status,
    ).toBe(412);
    expect(
      (await app.call('PATCH', `${base}/${made.alert_id}`, { retriever_id: 'x' })).body.error.details
        .validation_errors[0].type,
    ).toBe('kind_mismatch');
  });

  it('delete takes the endpoints with it, and the collection cannot go before the alert', async () => {
    const { app, collection } = await seeded();
    const made = await create(app, tutorialBody(collection.id));
    expect((await app.call('DELETE', `/v1/namespaces/{ns}/collections/${collection.id}`)).status).toBe(409);
    expect((await app.call('DELETE', `${base}/quantum-articles`)).body).toEqual({
      success: true,
      message: 'Alert quantum-articles deleted.',
    });
    expect((await app.call('DELETE', `${base}/${made.alert_id}`)).status).toBe(404);
    expect(app.ports.table.dump().filter((item) => item.sk.startsWith('WEBHOOK#'))).toEqual([]);
    expect((await app.call('POST', `${base}/list`, { search: 'quantum' })).body.total).toBe(0);
  });

  it("another namespace's alert is a 404 like a random id, on every route", async () => {
    const { app, collection } = await seeded();
    const made = await create(app, tutorialBody(collection.id));
    const execution = executionId(made.alert_id, {
      bucket_id: 'b',
      batch_id: `btch_${'0'.repeat(20)}`,
      attempt: 1,
    });
    const stranger = await makeApp({ ports: app.ports });
    for (const [method, path] of [
      ['GET', made.alert_id],
      ['PATCH', made.alert_id],
      ['PUT', made.alert_id],
      ['DELETE', made.alert_id],
      ['GET', `${made.alert_id}/executions`],
      ['GET', `executions/${execution}`],
    ]) {
      const reply = await stranger.call(
        method!,
        `${base}/${path}`,
        method === 'PATCH' || method === 'PUT' ? {} : undefined,
      );
      expect([method, path, reply.status]).toEqual([method, path, 404]);
    }
  });
});

describe('after a batch', () => {
  it('a batch that brings matches is told once, with their count and ids, to the channel and to subscribers', async () => {
    const { app, collection } = await seeded();
    const made = await create(app, tutorialBody(collection.id, topicIs('a')));
    const batch = await seedBatch(app, collection, axisDocuments({ a: 3, b: 2 }));
    expect(await evaluateAlerts(app.ctx, batch)).toEqual({ evaluated: 1, triggered: 1, failures: [] });
    await evaluateAlerts(app.ctx, batch);
    const [channel] = made.notification_config.channels;
    const told = events(app, 'alert.triggered');
    expect(told.map((event) => event.webhook_id).sort()).toEqual([undefined, channel.channel_id].sort());
    expect(told[0]).toMatchObject({
      subject: { type: 'alert', id: made.alert_id },
      metadata: {
        alert_name: 'quantum-articles',
        batch_id: batch.batch_id,
        match_count: 3,
        matches: ['doc_a0', 'doc_a1', 'doc_a2'].map((document_id) => ({
          document_id,
          collection_id: collection.id,
        })),
        matches_truncated: false,
      },
    });
    expect(new Set(told.map((event) => event.event_id)).size).toBe(2);
    expect(events(app, 'alert.execution.completed')).toHaveLength(1);
    const list = await app.call('GET', `${base}/quantum-articles/executions`);
    expect(list.body.results).toEqual([
      expect.objectContaining({
        triggered: true,
        suppressed: null,
        match_count: 3,
        source_documents: ['doc_a0', 'doc_a1', 'doc_a2'],
        batch_id: batch.batch_id,
      }),
    ]);
    expect((await app.call('GET', `${base}/executions/${list.body.results[0].execution_id}`)).body).toEqual(
      list.body.results[0],
    );
    expect((await app.call('GET', `${base}/${made.alert_id}`)).body.last_fired_at).not.toBeNull();
  });

  it('what a taxonomy wrote into the documents counts, as metadata.auto_topic, payload.auto_topic and auto_topic alike', async () => {
    const { app, collection } = await seeded();
    for (const [i, field] of ['metadata.auto_topic', 'payload.auto_topic', 'auto_topic'].entries()) {
      await create(
        app,
        tutorialBody(collection.id, {
          alert_name: `alert-${i}`,
          condition: { field, operator: 'eq', value: 'quantum' },
        }),
      );
    }
    const batch = await seedBatch(app, collection, axisDocuments({ a: 2 }));
    await enrichDocuments(
      app.ctx,
      collection.id,
      [{ document_id: 'doc_a1', set: { auto_topic: 'quantum' } }],
      { token: 't' },
    );
    expect(await evaluateAlerts(app.ctx, batch)).toMatchObject({ evaluated: 3, triggered: 3 });
    expect(events(app, 'alert.triggered').map((event) => event.metadata.match_count)).toEqual(
      Array(6).fill(1),
    );
  });

  it('only documents that the batch made or changed count: those of other batches never again', async () => {
    const { app, collection } = await seeded();
    await create(app, tutorialBody(collection.id, topicIs('a')));
    const first = await seedBatch(app, collection, axisDocuments({ a: 2 }));
    const second = await seedBatch(app, collection, axisDocuments({ b: 3 }));
    expect(await evaluateAlerts(app.ctx, second)).toEqual({ evaluated: 1, triggered: 0, failures: [] });
    // A document that a later batch made anew belongs to that one, even if the first one's alerts come late.
    const third = await seedBatch(app, collection, [axisDocuments({ a: 2 })[0]!]);
    await evaluateAlerts(app.ctx, third);
    await evaluateAlerts(app.ctx, first);
    const executions = (await app.call('GET', `${base}/executions`)).body.results;
    const counts = Object.fromEntries(
      executions.map((e: { batch_id: string; source_documents: string[] }) => [
        e.batch_id,
        e.source_documents,
      ]),
    );
    expect(counts).toEqual({
      [first.batch_id]: ['doc_a1'],
      [second.batch_id]: [],
      [third.batch_id]: ['doc_a0'],
    });
  });

  it('at most 100 matches are recorded and sent, the count has all, and the message stays under 20 kB', async () => {
    const { app, collection } = await seeded();
    await create(app, tutorialBody(collection.id, topicIs('a')));
    const batch = await seedBatch(app, collection, axisDocuments({ a: 130 }));
    await evaluateAlerts(app.ctx, batch);
    const [event] = events(app, 'alert.triggered');
    expect(event.metadata).toMatchObject({ match_count: 130, matches_truncated: true });
    expect(event.metadata.matches).toHaveLength(100);
    expect(JSON.stringify(event).length).toBeLessThan(20_000);
  });

  it('a switched-off alert, one of another collection and a condition that nothing meets tell nobody', async () => {
    const { app, collection } = await seeded();
    const other = await seedCollection(app, 'others');
    await create(app, tutorialBody(collection.id, { alert_name: 'off', enabled: false, ...topicIs('a') }));
    await create(app, tutorialBody(other.id, { alert_name: 'elsewhere', ...topicIs('a') }));
    await create(app, tutorialBody(collection.id, { alert_name: 'few', min_count: 4, ...topicIs('a') }));
    await create(
      app,
      tutorialBody(collection.id, {
        alert_name: 'mistyped',
        condition: { field: 'topic', operator: 'gt', value: 5 },
      }),
    );
    const batch = await seedBatch(app, collection, axisDocuments({ a: 3 }));
    expect(await evaluateAlerts(app.ctx, batch)).toEqual({ evaluated: 2, triggered: 0, failures: [] });
    expect(events(app, 'alert.triggered')).toEqual([]);
  });

  it('a cool-down and a renotify interval are kept, and recorded as the reason of the silence', async () => {
    const { app, collection } = await seeded();
    await create(
      app,
      tutorialBody(collection.id, { alert_name: 'cooling', cooldown_seconds: 600, ...topicIs('a') }),
    );
    await create(
      app,
      tutorialBody(collection.id, { alert_name: 'steady', renotify_interval_seconds: 3600, ...topicIs('a') }),
    );
    const silence: Record<string, unknown[]> = { cooling: [], steady: [] };
    const hear = async (documents: ReturnType<typeof axisDocuments>, minutes: number) => {
      app.ports.clock.advance(minutes * 60_000);
      const batch = await seedBatch(app, collection, documents);
      await evaluateAlerts(app.ctx, batch);
      const found = (await app.call('GET', `${base}/executions`)).body.results.filter(
        (e: { batch_id: string }) => e.batch_id === batch.batch_id,
      );
      for (const e of found) silence[e.alert_name]!.push(e.triggered ? (e.suppressed ?? 'told') : 'no match');
    };
    await hear(axisDocuments({ a: 1 }), 0);
    await hear(axisDocuments({ a: 1 }), 5);
    await hear(axisDocuments({ a: 1 }), 10);
    await hear(axisDocuments({ b: 1 }), 1);
    await hear(axisDocuments({ a: 1 }), 1);
    await hear(axisDocuments({ a: 1 }), 61);
    expect(silence).toEqual({
      cooling: ['told', 'cooldown', 'told', 'no match', 'cooldown', 'told'],
      steady: ['told', 'renotify_interval', 'renotify_interval', 'no match', 'told', 'told'],
    });
  });

  it('dying before or after the record and running again tells the same once', async () => {
    for (const point of ['alert.evaluate.before_record', 'alert.evaluate.after_record']) {
      const { app, collection } = await seeded();
      await create(app, tutorialBody(collection.id, topicIs('a')));
      const batch = await seedBatch(app, collection, axisDocuments({ a: 1 }));
      let died = false;
      setCrashHook((name) => {
        if (name !== point || died) return;
        died = true;
        throw new Error('died');
      });
      try {
        await expect(evaluateAlerts(app.ctx, batch)).rejects.toThrow('died');
      } finally {
        setCrashHook(undefined);
      }
      await evaluateAlerts(app.ctx, batch);
      expect(events(app, 'alert.triggered')).toHaveLength(2);
    }
  });

  it('an alert that is changed while it is evaluated is told by its new condition, a deleted one by none', async () => {
    const { app, collection } = await seeded();
    await create(app, tutorialBody(collection.id, { alert_name: 'changed', ...topicIs('a') }));
    await create(app, tutorialBody(collection.id, { alert_name: 'deleted', ...topicIs('a') }));
    const batch = await seedBatch(app, collection, axisDocuments({ a: 1, b: 2 }));
    const { table } = app.ports;
    const write = table.write.bind(table);
    let changed = false;
    table.write = async (writes, token) => {
      if (!changed && writes.some((one) => 'put' in one && one.put.sk.startsWith('EXEC#'))) {
        changed = true;
        await app.call('PATCH', `${base}/changed`, topicIs('b'));
        await app.call('DELETE', `${base}/deleted`);
      }
      return write(writes, token);
    };
    expect(await evaluateAlerts(app.ctx, batch)).toEqual({ evaluated: 1, triggered: 1, failures: [] });
    const executions = (await app.call('GET', `${base}/executions`)).body.results;
    expect(executions).toEqual([
      expect.objectContaining({ alert_name: 'changed', alert_version: 2, match_count: 2 }),
    ]);
  });

  it('the channel gets a delivery that its secret verifies, and a subscribed webhook gets one of its own', async () => {
    const { app, collection } = await seeded();
    const made = await create(app, tutorialBody(collection.id, topicIs('a')));
    const webhook = await app.call('POST', '/v1/namespaces/{ns}/webhooks', {
      webhook_name: 'all',
      url: 'https://sub.example.com/',
      events: ['alert.triggered'],
    });
    const batch = await seedBatch(app, collection, axisDocuments({ a: 2 }));
    await evaluateAlerts(app.ctx, batch);
    const posts: { url: string; headers: Record<string, string>; body: string }[] = [];
    const ports: DeliverPorts = {
      ...app.ports,
      queue: { send: async () => undefined },
      send: async ({ url, headers, body }) => {
        posts.push({ url, headers: { ...headers }, body: body ?? '' });
        return { status: 200, headers: {}, body: new Uint8Array(), truncated: false };
      },
    };
    for (const event of events(app, 'alert.triggered') as GranaryEvent[]) {
      for (const ref of await fanOut(ports, event)) await attemptDelivery(ports, ref);
    }
    expect(posts.map((post) => post.url).sort()).toEqual([
      'https://example.com/webhook',
      'https://sub.example.com/',
    ]);
    for (const { url, headers, body } of posts) {
      const secret = url.includes('sub') ? webhook.body.signing_secret : made.notification.signing_secret;
      const lower = Object.fromEntries(
        Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]),
      );
      // The library also compares the time with the machine's, and the clock here is a virtual one.
      const { sign } = {
        sign: new Webhook(secret).sign(
          lower['webhook-id']!,
          new Date(Number(lower['webhook-timestamp']) * 1000),
          body,
        ),
      };
      expect(lower['webhook-signature']!.split(' ')).toContain(sign);
      expect(JSON.parse(body)).toMatchObject({
        event_type: 'alert.triggered',
        metadata: { match_count: 2, batch_id: batch.batch_id },
      });
    }
  });

  it('executions come newest batch first, page by page, each once', async () => {
    const { app, collection } = await seeded();
    const made = await create(app, tutorialBody(collection.id, topicIs('a')));
    const batches = [];
    for (let i = 0; i < 5; i++) batches.push(await seedBatch(app, collection, axisDocuments({ a: 1 })));
    for (const batch of batches) await evaluateAlerts(app.ctx, batch);
    const expected = batches
      .map((batch) => executionId(made.alert_id, batch))
      .sort()
      .reverse();
    const seen: string[] = [];
    let cursor: string | null = '';
    while (cursor !== null) {
      const page: {
        body: { results: { execution_id: string }[]; pagination: { next_cursor: string | null } };
      } = await app.call(
        'GET',
        `${base}/${made.alert_id}/executions?limit=2${cursor ? `&cursor=${cursor}` : ''}`,
      );
      seen.push(...page.body.results.map((e) => e.execution_id));
      cursor = page.body.pagination.next_cursor;
    }
    expect(seen).toEqual(expected);
    expect((await app.call('GET', `${base}/executions?limit=10`)).body.total).toBe(5);
    expect(
      (await app.call('GET', `${base}/executions?limit=2&offset=4`)).body.results.map(
        (e: { execution_id: string }) => e.execution_id,
      ),
    ).toEqual(expected.slice(4));
  });
});

describe('with a retriever', () => {
  async function withRetriever() {
    const { app, collection } = await seeded();
    const retriever = await app.call('POST', '/v1/namespaces/{ns}/retrievers', {
      retriever_name: 'near-a',
      collection_identifiers: [collection.id],
      input_schema: { v: { type: 'array', required: true } },
      stages: [
        {
          stage_name: 'search',
          config: {
            stage_id: 'feature_search',
            parameters: {
              searches: [
                {
                  feature_uri: featureUri,
                  query: { input_mode: 'vector', value: '{{INPUT.v}}' },
                  top_k: 100,
                },
              ],
              final_top_k: 100,
            },
          },
        },
      ],
    });
    expect([retriever.status, retriever.body.error?.details]).toEqual([200, undefined]);
    return { app, collection, retrieverId: retriever.body.retriever_id as string };
  }
  const body = (retrieverId: string, more: object = {}) => ({
    name: 'semantic',
    retriever_id: retrieverId,
    inputs: { v: [1, 0, 0, 0] },
    notification_config: {
      channels: [{ channel_type: 'webhook', config: { url: 'https://example.com/webhook' } }],
    },
    ...more,
  });

  it('hits that the batch brought are told with their scores, if enough of them pass', async () => {
    const { app, collection, retrieverId } = await withRetriever();
    await create(
      app,
      body(retrieverId, { min_count: 2, threshold: { field: 'score', operator: 'gt', value: 0.9 } }),
    );
    await create(
      app,
      body(retrieverId, { name: 'strict', threshold: { field: 'score', operator: 'gt', value: 1.1 } }),
    );
    await seedBatch(app, collection, axisDocuments({ a: 1 }));
    const batch = await seedBatch(app, collection, axisDocuments({ a: 3 }).slice(1));
    expect(await evaluateAlerts(app.ctx, batch)).toEqual({ evaluated: 2, triggered: 1, failures: [] });
    const [event] = events(app, 'alert.triggered');
    expect(event.metadata.matches).toEqual([
      { document_id: 'doc_a1', collection_id: collection.id, score: expect.any(Number) },
      { document_id: 'doc_a2', collection_id: collection.id, score: expect.any(Number) },
    ]);
  });

  it('a retriever that is not there and inputs that do not fit are 422 with the place', async () => {
    const { app, retrieverId } = await withRetriever();
    const unknown = await app.call('POST', base, body('ret_nothing'));
    expect(unknown.body.error.details.validation_errors[0]).toMatchObject({
      type: 'retriever_unknown',
      location: ['body', 'retriever_id'],
    });
    const inputs = await app.call('POST', base, body(retrieverId, { inputs: {} }));
    expect(inputs.body.error.details.validation_errors[0]).toMatchObject({
      type: 'input_missing',
      location: ['body', 'inputs', 'v'],
    });
  });

  it('a retriever that fails for good is recorded as failed and does not keep the others', async () => {
    const { app, collection, retrieverId } = await withRetriever();
    await create(app, body(retrieverId, { inputs: { v: [1, 0] } }));
    await create(app, tutorialBody(collection.id, topicIs('a')));
    const batch = await seedBatch(app, collection, axisDocuments({ a: 1 }));
    const result = await evaluateAlerts(app.ctx, batch);
    expect(result).toMatchObject({
      evaluated: 2,
      triggered: 1,
      failures: [{ error: 'alert_execution_failed' }],
    });
    expect(events(app, 'alert.execution.failed')).toHaveLength(1);
    const executions = (await app.call('GET', `${base}/semantic/executions`)).body.results;
    expect(executions[0]).toMatchObject({
      status: 'failed',
      triggered: false,
      error_message: expect.stringContaining('the query vector has 2 numbers'),
    });
  });

  it('"no results" is told when the retriever finds nothing', async () => {
    const { app, collection, retrieverId } = await withRetriever();
    const other = await seedCollection(app, 'others');
    await create(app, body(retrieverId, { collection_ids: [other.id], trigger_on: 'no_results' }));
    const batch = await seedBatch(app, other, axisDocuments({ a: 1 }));
    expect(await evaluateAlerts(app.ctx, batch)).toMatchObject({ triggered: 1 });
    await seedBatch(app, collection, axisDocuments({ a: 1 }));
    const next = await seedBatch(app, other, axisDocuments({ b: 1 }));
    expect(await evaluateAlerts(app.ctx, next)).toMatchObject({ evaluated: 1, triggered: 0 });
  });
});
