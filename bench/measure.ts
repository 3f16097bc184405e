// Times and CPU of things done round by round, so that what disturbs the machine disturbs all of them alike.
import { readFileSync } from 'node:fs';
import { listProcesses } from '../local/processes.js';

/** The middle value; of an even number, the mean of the middle two. */
export function median(values: readonly number[]): number {
  if (values.length === 0) throw new Error('nothing was measured');
  const sorted = [...values].sort((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[half]! : (sorted[half - 1]! + sorted[half]!) / 2;
}

/** One clock tick of /proc in milliseconds: USER_HZ is 100 on every Linux that Node runs on. */
const tickMs = 10;

/**
 * CPU that a process and all below it have used since their start, in milliseconds; undefined without /proc.
 *
 * What ended below it counts too, since Linux adds it to the process that waited for it.
 */
export function treeCpuMs(root: number): number | undefined {
  const parents = new Map(listProcesses().map((row) => [row.pid, row.parent]));
  const below = (pid: number): boolean =>
    pid === root || (parents.has(pid) && pid > 1 && below(parents.get(pid)!));
  let ticks: number | undefined;
  for (const pid of parents.keys()) {
    if (!below(pid)) continue;
    try {
      // Field 2, the command, may hold blanks; user, system, and the same of ended children are fields 14 to 17.
      const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
        .replace(/^.*\) /s, '')
        .split(' ');
      ticks = (ticks ?? 0) + [11, 12, 13, 14].reduce((sum, i) => sum + Number(fields[i]), 0);
    } catch (error) {
      // It ended meanwhile, or there is no /proc here.
      if (
        (error as NodeJS.ErrnoException).code !== 'ENOENT' &&
        (error as NodeJS.ErrnoException).code !== 'ESRCH'
      )
        throw error;
    }
  }
  return ticks === undefined ? undefined : ticks * tickMs;
}

/** What is measured: does its work once; the number tells the calls of a round apart. */
export type Work = (call: number) => Promise<void>;

export interface Samples {
  /** Median wall time of a call in each round, milliseconds. */
  readonly wallMs: readonly number[];
  /** All calls, milliseconds. */
  readonly calls: readonly number[];
  /** CPU of the emulator with all its workers for each call, milliseconds; undefined where it cannot be read. */
  readonly cpuMs: number | undefined;
}

export interface Rounds {
  readonly rounds: number;
  /** Rounds before those, which do not count: a Lambda's code gets faster with its first calls. */
  readonly warmRounds: number;
  /** Calls of each work in one round, one after the other. */
  readonly calls: number;
  /** Process whose CPU is read, with all below it. */
  readonly cpuOf: number;
}

/**
 * Does every work in every round, in turns.
 *
 * @param works by name
 */
export async function interleave(
  works: Readonly<Record<string, Work>>,
  { rounds, warmRounds, calls, cpuOf }: Rounds,
): Promise<Record<string, Samples>> {
  const names = Object.keys(works);
  const wallMs = Object.fromEntries(names.map((name) => [name, [] as number[]]));
  const all = Object.fromEntries(names.map((name) => [name, [] as number[]]));
  const cpu = Object.fromEntries(names.map((name) => [name, undefined as number | undefined]));
  for (let round = 0; round < warmRounds + rounds; round++) {
    // The order turns, so that no work always follows the same other one.
    for (const name of [...names.slice(round % names.length), ...names.slice(0, round % names.length)]) {
      const times: number[] = [];
      const cpuBefore = treeCpuMs(cpuOf);
      for (let call = 0; call < calls; call++) {
        const begin = performance.now();
        await works[name]!(round * calls + call);
        times.push(performance.now() - begin);
      }
      const cpuAfter = treeCpuMs(cpuOf);
      if (round < warmRounds) continue;
      wallMs[name]!.push(median(times));
      all[name]!.push(...times);
      if (cpuBefore !== undefined && cpuAfter !== undefined)
        cpu[name] = (cpu[name] ?? 0) + cpuAfter - cpuBefore;
    }
  }
  return Object.fromEntries(
    names.map((name) => [
      name,
      {
        wallMs: wallMs[name]!,
        calls: all[name]!,
        cpuMs: cpu[name] === undefined ? undefined : cpu[name] / (rounds * calls),
      },
    ]),
  );
}

/** The median of the rounds' ratios: each round is compared with itself only. */
export function ratioOf(one: Samples, other: Samples): number {
  return median(one.wallMs.map((value, round) => value / other.wallMs[round]!));
}
