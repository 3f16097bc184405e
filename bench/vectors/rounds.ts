// Works of several programs in turns: every round has each of them, so that what disturbs the machine disturbs all.
import { median } from '../measure.ts';
import type { Contestant } from './contestant.ts';

/** One row of the table: a work of a program. */
export interface Entry {
  readonly name: string;
  readonly contestant: Contestant;
  readonly work: string;
  /** Calls one after the other in each round, for as many queries. */
  readonly calls: number;
}

export interface Samples {
  /** CPU of a call, median of each round's calls, milliseconds. */
  readonly cpuMs: number[];
  /** Wall time of a call, median of each round's calls, milliseconds. */
  readonly wallMs: number[];
  /** Of all calls, milliseconds. */
  bestWallMs: number;
  /** How many calls were measured. */
  calls: number;
  /** Rows scored again, by call; empty for programs that do not say it. */
  readonly reranked: number[];
}

/** @returns samples by the entry's name */
export async function measureRounds(
  entries: readonly Entry[],
  { rounds, warmRounds }: { readonly rounds: number; readonly warmRounds: number },
): Promise<Map<string, Samples>> {
  const samples = new Map<string, Samples>(
    entries.map(({ name }) => [
      name,
      { cpuMs: [], wallMs: [], bestWallMs: Number.POSITIVE_INFINITY, calls: 0, reranked: [] },
    ]),
  );
  let query = 0;
  for (let round = 0; round < warmRounds + rounds; round += 1) {
    // The order turns, so that no work always follows the same other one; all have the same queries.
    const turned = [...entries.slice(round % entries.length), ...entries.slice(0, round % entries.length)];
    for (const { name, contestant, work, calls } of turned) {
      const done = await contestant.measure(work, query, calls);
      if (round < warmRounds) continue;
      const sample = samples.get(name)!;
      sample.cpuMs.push(median(done.map(({ cpu_ms }) => cpu_ms)));
      sample.wallMs.push(median(done.map(({ wall_ms }) => wall_ms)));
      sample.bestWallMs = Math.min(sample.bestWallMs, ...done.map(({ wall_ms }) => wall_ms));
      sample.calls += calls;
      for (const { reranked } of done) if (reranked !== undefined) sample.reranked.push(reranked);
    }
    query += Math.max(...entries.map(({ calls }) => calls));
  }
  return samples;
}

/** How many times the CPU of `other` that of `one` is: the median of the rounds, each compared with itself only. */
export function timesFaster(one: Samples, other: Samples): number {
  return median(one.cpuMs.map((cpu, round) => other.cpuMs[round]! / cpu));
}
