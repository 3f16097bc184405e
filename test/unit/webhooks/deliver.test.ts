// Deliveries on a virtual clock: receivers that are down, slow, gone, busy or fine; replays, rotations, deaths of workers.
import * as fc from 'fast-check';
import { Webhook } from 'standardwebhooks';
import { afterEach, describe, expect, it } from 'vitest';
import { setCrashHook } from '../../../functions/core/crash.ts';
import { EgressFailure } from '../../../functions/core/egress/send.ts';
import { retryWaitsMs } from '../../../functions/core/resources/webhooks/schedule.ts';
import type { Behaviour } from './world.ts';
import { addHook, dayMs, deliveriesOf, hourMs, makeWorld, minuteMs } from './world.ts';

const base = '/v1/namespaces/{ns}/webhooks';
const waits = (atMs: readonly number[]) => atMs.slice(1).map((at, i) => at - atMs[i]!);

afterEach(() => setCrashHook(undefined));

describe('a delivery', () => {
  it('is one signed post of a small body, under an id that the log knows', async () => {
    const world = await makeWorld();
    const hook = await addHook(world, { headers: { 'X-Team': 'search' } });
    const event = await world.happen('batch.completed', 'btch_1');
    await world.pass(minuteMs);
    expect(world.posts).toHaveLength(1);
    const [post] = world.posts;
    const [delivery] = await deliveriesOf(world, hook.webhook_id);
    expect(delivery).toMatchObject({
      status: 'delivered',
      event_id: event.event_id,
      attempts: [{ status: 200, error: null, answer: 'thanks' }],
    });
    expect(post!.headers).toMatchObject({
      'Content-Type': 'application/json',
      'X-Team': 'search',
      'webhook-id': delivery!.delivery_id,
    });
    const seconds = Number(post!.headers['webhook-timestamp']);
    expect(post!.headers['webhook-signature']).toBe(
      new Webhook(hook.signing_secret).sign(delivery!.delivery_id, new Date(seconds * 1000), post!.body),
    );
    expect(JSON.parse(post!.body)).toMatchObject({
      event_id: event.event_id,
      event_type: 'batch.completed',
      type: 'batch.completed',
      namespace_id: world.app.namespace,
      subject: { type: 'batch', id: 'btch_1' },
      cache_scope: { scope: 'namespace' },
    });
    expect(Buffer.byteLength(post!.body)).toBeLessThan(20_000);
  });

  it('goes to every webhook that subscribed, of the namespace and of the organisation, and to no other', async () => {
    const world = await makeWorld();
    await addHook(world, { webhook_name: 'a', url: 'https://a.example.com/' });
    await addHook(world, { webhook_name: 'b', url: 'https://b.example.com/', events: ['plugin.failed'] });
    await addHook(world, { webhook_name: 'c', url: 'https://c.example.com/', is_active: false });
    await addHook(world, { webhook_name: 'o', url: 'https://o.example.com/' }, '/v1/organizations/webhooks');
    const other = (await world.app.call('POST', '/v1/namespaces', { name: 'other' })).body.namespace_id;
    await addHook(
      world,
      { webhook_name: 'x', url: 'https://x.example.com/' },
      `/v1/namespaces/${other}/webhooks`,
    );
    await world.happen('batch.completed');
    await world.pass(minuteMs);
    expect(world.posts.map((post) => post.url).sort()).toEqual([
      'https://a.example.com/',
      'https://o.example.com/',
    ]);
  });

  it('happens once although every message comes three times', async () => {
    const world = await makeWorld({ repeat: 3 });
    const hook = await addHook(world);
    for (let i = 0; i < 5; i++) await world.happen('batch.completed', `btch_${i}`);
    await world.pass(hourMs);
    expect(world.posts).toHaveLength(5);
    expect(await deliveriesOf(world, hook.webhook_id)).toHaveLength(5);
  });

  it.each(['/v1/namespaces/{ns}/webhooks', '/v1/organizations/webhooks'])(
    'of a test goes to that webhook alone, also when it is off (%s)',
    async (path) => {
      const world = await makeWorld();
      const hook = await addHook(world, { is_active: false }, path);
      await addHook(
        world,
        { webhook_name: 'second', url: 'https://second.example.com/', events: ['webhook.test'] },
        path,
      );
      const test = (await world.app.call('POST', `${path}/${hook.webhook_id}/test`)).body;
      await world.pass(minuteMs);
      expect(world.posts.map((post) => post.url)).toEqual([hook.url]);
      const log = await deliveriesOf(world, hook.webhook_id, path);
      expect(log).toMatchObject([
        {
          delivery_id: test.delivery_id,
          event_id: test.event_id,
          event_type: 'webhook.test',
          status: 'delivered',
        },
      ]);
    },
  );
});

const failures: [string, () => ReturnType<Behaviour>, string][] = [
  ['answers 500', () => 500, 'the receiver answered 500'],
  ['answers 404', () => 404, 'the receiver answered 404'],
  [
    'redirects',
    () => ({ status: 302, headers: { location: 'https://elsewhere.example.com/' } }),
    'the receiver answered 302',
  ],
  [
    'does not answer in time',
    () => new EgressFailure('timeout', 'hooks.example.com: no complete answer within 10 s'),
    'no complete answer',
  ],
  [
    'cannot be reached',
    () => new EgressFailure('unreachable', 'hooks.example.com: the connection was refused'),
    'refused',
  ],
  [
    'resolves to a private address',
    () => new EgressFailure('refused_target', 'hooks.example.com resolves to an address that is not public'),
    'not public',
  ],
];

describe('a receiver that is down', () => {
  it.each(failures)(
    'and %s is tried ten times by the schedule, then given up, and that is told',
    async (_, behaviour, cause) => {
      const world = await makeWorld();
      const hook = await addHook(world, { events: ['batch.completed'] });
      const watcher = await addHook(world, {
        webhook_name: 'watcher',
        url: 'https://watcher.example.com/',
        events: ['webhook.exhausted'],
      });
      world.behaviour = (post) => (post.url === hook.url ? behaviour() : 200);
      await world.happen('batch.completed');
      await world.pass(5 * dayMs);
      const tries = world.posts.filter((post) => post.url === hook.url);
      expect(tries).toHaveLength(10);
      for (const [i, wait] of waits(tries.map((post) => post.atMs)).entries()) {
        expect(wait).toBeGreaterThanOrEqual(retryWaitsMs[i]!);
        expect(wait).toBeLessThanOrEqual(retryWaitsMs[i]! * 1.1 + minuteMs);
      }
      expect(new Set(tries.map((post) => post.headers['webhook-id'])).size).toBe(1);
      expect(new Set(tries.map((post) => post.headers['webhook-timestamp'])).size).toBe(10);
      expect(new Set(tries.map((post) => post.body)).size).toBe(1);
      const [delivery] = await deliveriesOf(world, hook.webhook_id);
      expect(delivery!.status).toBe('exhausted');
      expect(delivery!.attempts).toHaveLength(10);
      expect(delivery!.attempts.at(-1)!.error).toContain(cause);
      const told = world.posts
        .filter((post) => post.url === watcher.url)
        .map((post) => JSON.parse(post.body));
      expect(told).toMatchObject([
        {
          event_type: 'webhook.exhausted',
          subject: { type: 'webhook', id: hook.webhook_id },
          metadata: { attempts: 10, delivery_id: delivery!.delivery_id },
        },
      ]);
      expect((await world.app.call('GET', `${base}/${hook.webhook_id}`)).body.delivery_health).toMatchObject({
        consecutive_failures: 10,
        last_failure_cause: expect.stringContaining(cause),
      });
    },
  );

  it('and comes back gets what it missed, once, and its failures are forgotten', async () => {
    const world = await makeWorld();
    const hook = await addHook(world);
    const until = world.app.ports.clock.now() + 3 * hourMs;
    world.behaviour = (post) => (post.atMs < until ? 503 : 204);
    const events = [await world.happen('batch.completed'), await world.happen('batch.completed')];
    await world.pass(2 * dayMs);
    const delivered = world.posts
      .filter((post) => post.atMs >= until)
      .map((post) => JSON.parse(post.body).event_id);
    expect(delivered.sort()).toEqual(events.map((event) => event.event_id).sort());
    expect((await world.app.call('GET', `${base}/${hook.webhook_id}`)).body.delivery_health).toMatchObject({
      consecutive_failures: 0,
      first_failure_at: null,
      last_failure_cause: null,
      last_delivered_at: expect.any(String),
    });
  });

  it('for five days is switched off and told so; then nothing is sent until somebody switches it on', async () => {
    const world = await makeWorld();
    const hook = await addHook(world, { events: ['batch.completed'] });
    const watcher = await addHook(world, {
      webhook_name: 'watcher',
      url: 'https://watcher.example.com/',
      events: ['webhook.disabled'],
    });
    world.behaviour = (post) => (post.url === hook.url ? 500 : 200);
    for (let day = 0; day < 6; day++) {
      await world.happen('batch.completed');
      await world.pass(dayMs);
    }
    const state = (await world.app.call('GET', `${base}/${hook.webhook_id}`)).body;
    expect(state).toMatchObject({ is_active: false, disabled_reason: expect.stringContaining('five days') });
    expect(world.posts.filter((post) => post.url === watcher.url)).toHaveLength(1);
    const before = world.posts.length;
    await world.happen('batch.completed');
    await world.pass(2 * dayMs);
    expect(world.posts.length).toBe(before);
    expect(
      (await deliveriesOf(world, hook.webhook_id)).filter(
        (d) => d.status === 'pending' || d.status === 'retrying',
      ),
    ).toEqual([]);
    world.behaviour = () => 200;
    await world.app.call('PATCH', `${base}/${hook.webhook_id}`, { is_active: true });
    await world.happen('batch.completed');
    await world.pass(minuteMs);
    expect(world.posts.length).toBe(before + 1);
  });

  it('that says 410 Gone is switched off at once', async () => {
    const world = await makeWorld();
    const hook = await addHook(world, { events: ['batch.completed'] });
    world.behaviour = () => 410;
    await world.happen('batch.completed');
    await world.pass(5 * dayMs);
    expect(world.posts).toHaveLength(1);
    expect((await deliveriesOf(world, hook.webhook_id))[0]!.status).toBe('exhausted');
    expect((await world.app.call('GET', `${base}/${hook.webhook_id}`)).body).toMatchObject({
      is_active: false,
      disabled_reason: expect.stringContaining('410'),
    });
    expect(world.bus.map((event) => event.event_type).sort()).toEqual([
      'batch.completed',
      'webhook.disabled',
      'webhook.exhausted',
    ]);
  });

  it.each([429, 503])('that answers %i with Retry-After is left alone for so long', async (status) => {
    const world = await makeWorld();
    await addHook(world);
    world.behaviour = (_, nth) => (nth === 1 ? { status, headers: { 'retry-after': '7200' } } : 200);
    await world.happen('batch.completed');
    await world.pass(dayMs);
    expect(world.posts).toHaveLength(2);
    expect(waits(world.posts.map((post) => post.atMs))[0]).toBeGreaterThanOrEqual(7_200_000);
  });

  it('does not make news of its own news', async () => {
    const world = await makeWorld();
    await addHook(world, { events: ['batch.completed', 'webhook.exhausted', 'webhook.disabled'] });
    world.behaviour = () => 410;
    await world.happen('batch.completed');
    await world.pass(30 * dayMs);
    expect(world.bus.length).toBeLessThanOrEqual(3);
    expect(world.posts.length).toBeLessThanOrEqual(3);
  });

  it('that takes everything but the news of a failure hears of it in one delivery, and not of that one failing', async () => {
    const world = await makeWorld();
    await addHook(world, { events: ['batch.completed', 'batch.failed', 'webhook.exhausted'] });
    world.behaviour = (post) => (JSON.parse(post.body).event_type === 'batch.completed' ? 200 : 500);
    await world.happen('batch.failed');
    for (let day = 0; day < 15; day++) {
      await world.happen('batch.completed');
      await world.pass(dayMs);
    }
    expect(world.bus.filter((event) => event.event_type === 'webhook.exhausted')).toHaveLength(1);
    expect(
      world.posts.filter((post) => JSON.parse(post.body).event_type === 'webhook.exhausted'),
    ).toHaveLength(10);
  });

  it('keeps 1,000 bytes of what a receiver said, however much that was', async () => {
    const world = await makeWorld();
    const hook = await addHook(world);
    world.behaviour = () => ({
      status: 200,
      body: new TextEncoder().encode('x'.repeat(64_000)),
      truncated: true,
    });
    await world.happen('batch.completed');
    await world.pass(minuteMs);
    expect((await deliveriesOf(world, hook.webhook_id))[0]!.attempts[0]!.answer).toHaveLength(1000);
  });
});

describe('a replay', () => {
  it('of one delivery sends it again under its old id, after it was delivered or given up', async () => {
    const world = await makeWorld();
    const hook = await addHook(world, { events: ['batch.completed'] });
    world.behaviour = () => 500;
    await world.happen('batch.completed');
    await world.pass(5 * dayMs);
    const [given] = await deliveriesOf(world, hook.webhook_id);
    world.behaviour = () => 200;
    for (let i = 0; i < 2; i++) {
      const reply = await world.app.call(
        'POST',
        `${base}/${hook.webhook_id}/deliveries/${given!.delivery_id}/replay`,
      );
      expect([reply.status, reply.body.status, reply.body.delivery_id]).toEqual([
        202,
        'pending',
        given!.delivery_id,
      ]);
      await world.pass(minuteMs);
    }
    const again = world.posts.slice(10);
    expect(again.map((post) => post.headers['webhook-id'])).toEqual([given!.delivery_id, given!.delivery_id]);
    expect(again.map((post) => post.body)).toEqual([world.posts[0]!.body, world.posts[0]!.body]);
    expect(await deliveriesOf(world, hook.webhook_id)).toMatchObject([{ status: 'delivered' }]);
  });

  it('to a receiver that is still down begins the schedule anew', async () => {
    const world = await makeWorld();
    const hook = await addHook(world, { events: ['batch.completed'] });
    world.behaviour = () => 500;
    await world.happen('batch.completed');
    await world.pass(4 * dayMs);
    const [given] = await deliveriesOf(world, hook.webhook_id);
    await world.app.call('POST', `${base}/${hook.webhook_id}/deliveries/${given!.delivery_id}/replay`);
    await world.pass(hourMs);
    expect(world.posts).toHaveLength(10 + 4);
    expect((await deliveriesOf(world, hook.webhook_id))[0]!.status).toBe('retrying');
  });

  it('since a time sends what was not delivered, and the rest only when asked', async () => {
    const world = await makeWorld();
    const hook = await addHook(world, { events: ['batch.completed'] });
    const old = await world.happen('batch.completed');
    await world.pass(hourMs);
    world.behaviour = () => 410;
    const since = new Date(world.app.ports.clock.now()).toISOString();
    const missed = await world.happen('batch.completed');
    await world.pass(minuteMs);
    await world.app.call('PATCH', `${base}/${hook.webhook_id}`, { is_active: true });
    world.behaviour = () => 200;
    const before = world.posts.length;
    const reply = await world.app.call(
      'POST',
      `${base}/${hook.webhook_id}/replay?since=${encodeURIComponent(since)}`,
    );
    expect(reply.body).toMatchObject({ success: true, replayed: 1 });
    await world.pass(minuteMs);
    expect(world.posts.slice(before).map((post) => JSON.parse(post.body).event_id)).toEqual([
      missed.event_id,
    ]);
    const all = await world.app.call(
      'POST',
      `${base}/${hook.webhook_id}/replay?since=2025-01-01T00:00:00Z&include_delivered=true`,
    );
    expect(all.body.replayed).toBe(2);
    await world.pass(minuteMs);
    expect(
      world.posts
        .slice(before + 1)
        .map((post) => JSON.parse(post.body).event_id)
        .sort(),
    ).toEqual([old.event_id, missed.event_id].sort());
  });
});

describe('a rotation', () => {
  it('signs with both secrets for a day, then with the new one', async () => {
    const world = await makeWorld();
    const hook = await addHook(world);
    const fresh = (await world.app.call('POST', `${base}/${hook.webhook_id}/rotate-secret`)).body
      .signing_secret;
    await world.happen('batch.completed');
    await world.pass(25 * hourMs);
    await world.happen('batch.completed');
    await world.pass(minuteMs);
    const signedBy = (secret: string) =>
      world.posts.map((post) => {
        const expected = new Webhook(secret).sign(
          post.headers['webhook-id']!,
          new Date(Number(post.headers['webhook-timestamp']) * 1000),
          post.body,
        );
        return post.headers['webhook-signature']!.split(' ').includes(expected);
      });
    expect(signedBy(fresh)).toEqual([true, true]);
    expect(signedBy(hook.signing_secret)).toEqual([true, false]);
  });
});

describe('a webhook that goes away', () => {
  it('while deliveries wait drops them, and nothing is sent', async () => {
    const world = await makeWorld();
    const hook = await addHook(world);
    world.behaviour = () => 500;
    await world.happen('batch.completed');
    await world.pass(minuteMs);
    const before = world.posts.length;
    await world.app.call('DELETE', `${base}/${hook.webhook_id}`);
    await world.pass(5 * dayMs);
    expect(world.posts.length).toBe(before);
    expect(
      world.app.ports.table
        .dump()
        .filter((row) => row.sk.startsWith('DLV#'))
        .map((row) => row.state),
    ).toEqual(['dropped']);
  });
});

describe('workers that die', () => {
  it.each(['relay.after_send', 'deliver.after_row', 'deliver.before_post', 'deliver.after_post'])(
    'at %s lose nothing; a receiver sees a repetition at most',
    async (point) => {
      const world = await makeWorld();
      const hook = await addHook(world);
      let deaths = 0;
      setCrashHook((at) => {
        if (at === point && deaths < 3) {
          deaths++;
          throw new Error('killed');
        }
      });
      const events = [await world.happen('batch.completed'), await world.happen('batch.completed')];
      await world.pass(hourMs);
      expect(deaths).toBe(3);
      const log = await deliveriesOf(world, hook.webhook_id);
      expect(log.map((delivery) => delivery.status)).toEqual(['delivered', 'delivered']);
      expect(new Set(world.posts.map((post) => JSON.parse(post.body).event_id))).toEqual(
        new Set(events.map((event) => event.event_id)),
      );
      for (const post of world.posts)
        expect(log.map((delivery) => delivery.delivery_id)).toContain(post.headers['webhook-id']);
    },
  );

  it('anywhere, with any answers of receivers, lose no event: each is delivered or given up after ten tries', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.constantFrom(200, 200, 500, 429, 0), { minLength: 1, maxLength: 30 }),
        fc.array(fc.boolean(), { minLength: 1, maxLength: 40 }),
        fc.integer({ min: 1, max: 8 }),
        fc.integer({ min: 1, max: 3 }),
        async (answers, deaths, count, repeat) => {
          const world = await makeWorld({ repeat });
          const hook = await addHook(world, { events: ['batch.completed'] });
          let post = 0;
          world.behaviour = () => {
            const status = answers[post++ % answers.length]!;
            return status === 0 ? new EgressFailure('unreachable', 'reset') : status;
          };
          let passed = 0;
          setCrashHook(() => {
            if (passed < deaths.length && deaths[passed++]) throw new Error('killed');
          });
          const events: string[] = [];
          for (let i = 0; i < count; i++)
            events.push((await world.happen('batch.completed', `btch_${i}`)).event_id);
          await world.pass(5 * dayMs);
          setCrashHook(undefined);
          const log = await deliveriesOf(world, hook.webhook_id);
          expect(log.map((delivery) => delivery.event_id).sort()).toEqual(events.sort());
          for (const delivery of log) {
            expect(['delivered', 'exhausted']).toContain(delivery.status);
            if (delivery.status === 'delivered') expect(delivery.attempts.at(-1)!.status).toBe(200);
            else expect(delivery.attempts.length).toBe(10);
          }
        },
      ),
      { numRuns: 30 },
    );
  });
});
