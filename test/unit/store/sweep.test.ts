// The second chance: rows whose time has come are sent where they belong, and one that cannot be sent keeps none behind.
import { describe, expect, it } from 'vitest';
import type { GranaryEvent, Job } from '../../../functions/core/events.ts';
import { dueAttributes, dueShards, shardOf } from '../../../functions/core/store/keys.ts';
import { announce, enqueue } from '../../../functions/core/store/outbox.ts';
import { sweep } from '../../../functions/core/store/sweep.ts';
import type { Item } from '../../../functions/core/store/table.ts';
import type { App } from '../../http/app.ts';
import { makeApp } from '../../http/app.ts';

function outlets(app: App, fails: (what: unknown) => boolean = () => false) {
  const sent = { jobs: [] as Job[], events: [] as GranaryEvent[], deliveries: [] as unknown[] };
  const take =
    <T>(list: T[]) =>
    async (what: T) => {
      if (fails(what)) throw new Error('cannot be sent');
      list.push(what);
    };
  const { table, clock, log } = app.ports;
  return {
    sent,
    ports: {
      table,
      clock,
      log,
      jobs: { send: take(sent.jobs) },
      bus: { put: take(sent.events) },
      deliveries: { send: take(sent.deliveries) },
    },
  };
}

const minute = 60_000;
const iso = (app: App, ms: number) => new Date(app.ports.clock.now() + ms).toISOString();
const jobFor = (app: App, id: string): Job => ({
  kind: 'namespace_delete',
  org_id: app.principal.orgId,
  namespace_id: id,
  request_id: 'r',
});

describe('the sweeper', () => {
  it('sends on what the relay missed for a minute, once, and takes the row away', async () => {
    const app = await makeApp();
    await app.ports.table.write([
      announce(app.ctx, 'batch.completed', { type: 'batch', id: 'b' }, 1),
      enqueue(app.ctx, jobFor(app, 'ns_1'), 1),
    ]);
    const { sent, ports } = outlets(app);
    expect(await sweep(ports)).toEqual({ relayed: 0, deliveries: 0, watched: 0 });
    app.ports.clock.advance(minute);
    expect(await sweep(ports)).toEqual({ relayed: 2, deliveries: 0, watched: 0 });
    expect(await sweep(ports)).toEqual({ relayed: 0, deliveries: 0, watched: 0 });
    expect(sent.events.map((event) => event.event_type)).toEqual(['batch.completed']);
    expect(sent.jobs).toEqual([jobFor(app, 'ns_1')]);
    expect(app.ports.table.dump().filter((row) => row.pk.startsWith('OUTBOX#'))).toEqual([]);
  });

  it('wakes deliveries that are due, and watched runs past their deadline, until somebody changes their rows', async () => {
    const app = await makeApp();
    const rows: Item[] = [
      {
        ...app.ctx.ns.delivery('wh_1', 'dlv_1'),
        org_id: 'o',
        namespace_id: 'n',
        webhook_id: 'wh_1',
        delivery_id: 'dlv_1',
        secret: 'x',
        ...dueAttributes('dlv_1', iso(app, -1)),
      },
      {
        ...app.ctx.ns.delivery('wh_1', 'dlv_2'),
        org_id: 'o',
        namespace_id: 'n',
        webhook_id: 'wh_1',
        delivery_id: 'dlv_2',
        ...dueAttributes('dlv_2', iso(app, 5)),
      },
      {
        ...app.ctx.ns.batch('bkt_1', 'btch_1'),
        watch_job: JSON.stringify(jobFor(app, 'ns_1')),
        ...dueAttributes('btch_1', iso(app, -1)),
      },
    ];
    await app.ports.table.writeMany(rows.map((put) => ({ put })));
    const { sent, ports } = outlets(app);
    for (let i = 1; i <= 2; i++) {
      expect(await sweep(ports)).toEqual({ relayed: 0, deliveries: 1, watched: 1 });
      expect(sent.deliveries).toHaveLength(i);
    }
    expect(sent.deliveries[0]).toEqual({
      org_id: 'o',
      namespace_id: 'n',
      webhook_id: 'wh_1',
      delivery_id: 'dlv_1',
    });
    expect(sent.jobs).toEqual([jobFor(app, 'ns_1'), jobFor(app, 'ns_1')]);
  });

  it('goes on past a row that cannot be sent, says so in the log, and tries it again the next time', async () => {
    const app = await makeApp();
    for (let i = 0; i < 40; i++)
      await app.ports.table.write([announce(app.ctx, 'batch.completed', { type: 'batch', id: `b${i}` }, 1)]);
    app.ports.clock.advance(minute);
    let broken = true;
    const { sent, ports } = outlets(app, (what) => broken && (what as GranaryEvent).subject.id === 'b7');
    expect((await sweep(ports)).relayed).toBe(39);
    expect(app.ports.logged.filter((line) => line.level === 'error')).toHaveLength(1);
    broken = false;
    expect((await sweep(ports)).relayed).toBe(1);
    expect(new Set(sent.events.map((event) => event.subject.id)).size).toBe(40);
  });

  it('looks at every shard that rows are spread over', () => {
    const shards = new Set(Array.from({ length: 2_000 }, (_, i) => `DUE#${shardOf(`evt_${i}`)}`));
    expect([...shards].sort()).toEqual([...dueShards].sort());
  });
});
