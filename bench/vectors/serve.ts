// The side of a measured Node program: holds its data, does what it is asked, measures itself.
import { createInterface } from 'node:readline';
import type { Answer, Call, Hit, Ready } from './protocol.ts';
import { decodeRequest } from './protocol.ts';

/** What one call found, and what else it tells. */
export interface Done {
  readonly found?: readonly (readonly Hit[])[];
  readonly reranked?: number;
  /** For work that other threads do: their CPU is in the process's own anyway, so this is rarely needed. */
  readonly wallMs?: number;
}

/** Does one call of a work for the query with this number. */
export type Work = (query: number) => Done | Promise<Done>;

/** Says that the data is there, then answers requests until its input ends. */
export async function serve(
  works: Readonly<Record<string, Work>>,
  facts: Readonly<Record<string, unknown>> = {},
): Promise<void> {
  const write = (value: Ready | Answer) => process.stdout.write(`${JSON.stringify(value)}\n`);
  write({ ready: true, facts });
  for await (const line of createInterface({ input: process.stdin })) {
    const { work, first, calls } = decodeRequest(line);
    const does = works[work];
    if (does === undefined) {
      write({ error: `no work ${work}; there is ${Object.keys(works).join(', ')}` });
      continue;
    }
    const done: Call[] = [];
    for (let call = 0; call < calls; call += 1) {
      const begin = performance.now();
      const before = process.cpuUsage();
      const { found, reranked, wallMs } = await does(first + call);
      const { user, system } = process.cpuUsage(before);
      const wall = wallMs ?? performance.now() - begin;
      done.push({
        cpu_ms: (user + system) / 1000,
        wall_ms: wall,
        ...(found === undefined ? {} : { found }),
        ...(reranked === undefined ? {} : { reranked }),
      });
    }
    write({ calls: done });
  }
}
