// What the timer does: the second chance of everything that should have gone by itself.
import type { Clock } from '../clock.ts';
import { isoTime } from '../clock.ts';
import type { GranaryEvent, Job } from '../events.ts';
import type { Log } from '../ports.ts';
import { dueShards } from './keys.ts';
import { sendOn } from './relay.ts';
import type { Item, Table } from './table.ts';

export interface SweepPorts {
  readonly table: Table;
  readonly clock: Clock;
  readonly log: Log;
  readonly jobs: { send(job: Job): Promise<void> };
  readonly bus: { put(event: GranaryEvent): Promise<void> };
  readonly deliveries: { send(ref: unknown): Promise<void> };
}

export interface SweepReport {
  readonly relayed: number;
  readonly deliveries: number;
  readonly watched: number;
}

/** Rows a shard and minute, so that one run ends well within its time. */
const rowsPerShard = 200;

/**
 * Handles every row of the `due` index whose time has come, by what the row is.
 *
 * Each is sent to where it is worked on, and that place decides by conditions; so a sweep may run twice, or beside the
 * normal way, without effect.
 */
export async function sweep(ports: SweepPorts): Promise<SweepReport> {
  const until = isoTime(ports.clock.now());
  const count = { relayed: 0, deliveries: 0, watched: 0 };
  const handle = async (row: Item) => {
    if (row.pk.startsWith('OUTBOX#')) {
      await sendOn(ports, row);
      count.relayed++;
    } else if (row.sk.startsWith('DLV#')) {
      const { org_id, namespace_id, webhook_id, delivery_id } = row;
      await ports.deliveries.send({ org_id, namespace_id, webhook_id, delivery_id });
      count.deliveries++;
    } else if (typeof row.watch_job === 'string') {
      // A run past its deadline: its starter looks at it again and ends it.
      await ports.jobs.send(JSON.parse(row.watch_job) as Job);
      count.watched++;
    }
  };
  for (const shard of dueShards) {
    for (const row of await ports.table.due(shard, until, rowsPerShard)) {
      try {
        await handle(row);
      } catch (error) {
        // One row that cannot be sent must not keep the others; it stays due and comes back in a minute.
        ports.log.error('a due row could not be handled', { pk: row.pk, sk: row.sk, error: String(error) });
      }
    }
  }
  return count;
}
