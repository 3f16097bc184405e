// Events on their way to receivers, with every part real but the clock and the network: outbox, relay, fan-out,
// deliveries queue, attempts, sweeper. Receivers answer as a test says.
import type { Received, Sending } from '../../../functions/core/egress/send.ts';
import type { EventType, GranaryEvent } from '../../../functions/core/events.ts';
import type { DeliverPorts, DeliveryRef } from '../../../functions/core/resources/webhooks/deliver.ts';
import { attemptDelivery, fanOut } from '../../../functions/core/resources/webhooks/deliver.ts';
import { announce } from '../../../functions/core/store/outbox.ts';
import { sendOn } from '../../../functions/core/store/relay.ts';
import { sweep } from '../../../functions/core/store/sweep.ts';
import type { App } from '../../http/app.ts';
import { makeApp } from '../../http/app.ts';

export interface Post {
  readonly atMs: number;
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: string;
}

/** A status, or more of an answer; an Error is thrown as the network would. */
export type Behaviour = (post: Post, nth: number) => number | Partial<Received> | Error;

export interface World {
  readonly app: App;
  /** Everything that was sent, in order. */
  readonly posts: Post[];
  behaviour: Behaviour;
  readonly ports: DeliverPorts;
  /** Events that passed the bus, in order, repetitions too. */
  readonly bus: GranaryEvent[];
  /** Makes something happen in the app's namespace. */
  happen(type: EventType, subject?: string): Promise<GranaryEvent>;
  /** Lets time pass, doing what comes due, until nothing is left to do or `ms` have passed. */
  pass(ms: number): Promise<void>;
}

export const minuteMs = 60_000;
export const hourMs = 60 * minuteMs;
export const dayMs = 24 * hourMs;

/** @param repeat how often the bus and the queue bring each message; once if left out */
export async function makeWorld(options: { readonly repeat?: number } = {}): Promise<World> {
  const app = await makeApp();
  const { table, clock, random, log, settings } = app.ports;
  const repeat = options.repeat ?? 1;
  const posts: Post[] = [];
  const bus: GranaryEvent[] = [];
  let queue: { ref: DeliveryRef; atMs: number }[] = [];
  let happened = 0;
  const counts = new Map<string, number>();
  const enqueue = async (ref: DeliveryRef, delaySeconds = 0) => {
    for (let i = 0; i < repeat; i++) queue.push({ ref, atMs: clock.now() + delaySeconds * 1000 });
  };
  const world: World = {
    app,
    posts,
    bus,
    behaviour: () => 200,
    ports: {
      table,
      clock,
      random,
      log,
      settings,
      queue: { send: enqueue },
      send: async (sending: Sending) => {
        const post = {
          atMs: clock.now(),
          url: sending.url,
          headers: { ...sending.headers },
          body: sending.body ?? '',
        };
        posts.push(post);
        const nth = (counts.get(sending.url) ?? 0) + 1;
        counts.set(sending.url, nth);
        const answer = world.behaviour(post, nth);
        if (answer instanceof Error) throw answer;
        const parts = typeof answer === 'number' ? { status: answer } : answer;
        return {
          status: 200,
          headers: {},
          body: new TextEncoder().encode('thanks'),
          truncated: false,
          ...parts,
        };
      },
    },
    async happen(type, subject = `btch_made${happened++}`) {
      const write = announce(app.ctx, type, { type: 'batch', id: subject }, 1, { note: 'a test' });
      await table.write([write]);
      return JSON.parse(String('put' in write ? write.put.message : '')).event as GranaryEvent;
    },
    async pass(ms) {
      const endMs = clock.now() + ms;
      for (;;) {
        while (await work());
        const next = await nextTime();
        if (next === undefined || next > endMs) break;
        clock.advance(Math.max(0, next - clock.now()));
        await sweep({
          table,
          clock,
          log,
          jobs: { send: async () => {} },
          bus: { put: receive },
          deliveries: { send: (ref) => enqueue(ref as DeliveryRef) },
        });
      }
      clock.advance(Math.max(0, endMs - clock.now()));
    },
  };

  async function receive(event: GranaryEvent): Promise<void> {
    for (let i = 0; i < repeat; i++) {
      bus.push(event);
      await fanOut(world.ports, event);
    }
  }

  /** Relays the outbox and does what the queue holds for now. A worker that dies loses neither: both come again. */
  async function work(): Promise<boolean> {
    let did = false;
    for (const row of table.dump().filter((item) => item.pk.startsWith('OUTBOX#'))) {
      try {
        await sendOn({ table, jobs: { send: async () => {} }, bus: { put: receive } }, row);
        did = true;
      } catch (error) {
        if ((error as Error).message !== 'killed') throw error;
        return true;
      }
    }
    const now = clock.now();
    const ready = queue.filter(({ atMs }) => atMs <= now);
    queue = queue.filter(({ atMs }) => atMs > now);
    for (const message of ready) {
      did = true;
      try {
        await attemptDelivery(world.ports, message.ref);
      } catch (error) {
        if ((error as Error).message !== 'killed') throw error;
      }
    }
    return did;
  }

  async function nextTime(): Promise<number | undefined> {
    const due = table
      .dump()
      .filter((row) => typeof row.due_at === 'string')
      .map((row) => Date.parse(String(row.due_at)));
    const times = [...due, ...queue.map(({ atMs }) => atMs)];
    return times.length > 0 ? Math.min(...times) : undefined;
  }

  return world;
}

/** Registers a webhook of the app's namespace and answers it with its secret. */
export async function addHook(
  world: World,
  more: object = {},
  path = '/v1/namespaces/{ns}/webhooks',
): Promise<{ webhook_id: string; signing_secret: string; url: string }> {
  const reply = await world.app.call('POST', path, {
    webhook_name: 'hook',
    url: 'https://hooks.example.com/',
    events: ['batch.completed', 'webhook.exhausted', 'webhook.disabled'],
    ...more,
  });
  if (reply.status !== 201) throw new Error(JSON.stringify(reply.body));
  return reply.body;
}

/** The deliveries of a webhook as the API shows them, newest first. */
export async function deliveriesOf(world: World, id: string, path = '/v1/namespaces/{ns}/webhooks') {
  const found: {
    delivery_id: string;
    event_id: string;
    event_type: string;
    status: string;
    attempts: { at: string; status: number | null; error: string | null; answer: string | null }[];
  }[] = [];
  let cursor = '';
  do {
    const reply = await world.app.call(
      'GET',
      `${path}/${id}/deliveries?limit=100${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ''}`,
    );
    found.push(...reply.body.results);
    cursor = reply.body.pagination.next_cursor;
  } while (cursor);
  return found;
}
