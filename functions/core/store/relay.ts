// One outbox row goes out: to the jobs queue or to the bus, and then away. Used by the relay and by the sweeper.
import { crash } from '../crash.ts';
import type { GranaryEvent, Job } from '../events.ts';
import { outboxMessage } from './outbox.ts';
import type { Item, Table } from './table.ts';

export interface Outlets {
  readonly table: Table;
  readonly jobs: { send(job: Job): Promise<void> };
  readonly bus: { put(event: GranaryEvent): Promise<void> };
}

/** Sends, then deletes: dying in between sends again later, which receivers expect; the other order would lose it. */
export async function sendOn(outlets: Outlets, row: Item): Promise<void> {
  const message = outboxMessage(row);
  if (message.to === 'jobs') await outlets.jobs.send(message.job);
  else await outlets.bus.put(message.event);
  crash('relay.after_send');
  await outlets.table.write([{ delete: { pk: row.pk, sk: row.sk } }]);
}
