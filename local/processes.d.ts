// Types of processes.js, which is JavaScript so that it runs before anything is installed.

/** One row of the process table. `started` identifies the process together with its id, which is reused. */
export interface ProcessRow {
  pid: number;
  parent: number;
  group: number;
  started: string;
  command: string;
}

/** One process that was started under a state folder, the leader of its own group. */
export interface ProcessRecord {
  name: string;
  pid: number;
  group: number;
  started: string;
  port?: number;
}

export interface StopResult {
  name: string;
  outcome: 'was not running' | 'stopped' | 'killed';
  /** How many processes ended, children included. */
  ended: number;
}

/** All processes of the machine but zombies. */
export function listProcesses(): ProcessRow[];

/** When a process started, as an opaque text; undefined if there is none with this id. */
export function processStarted(pid: number): string | undefined;

/** Whether the recorded process itself still runs; another one under the same id does not count. */
export function isRunning(entry: ProcessRecord): boolean;

/** The records in `<stateFolder>/processes.json`; empty if there is none. */
export function readRecords(stateFolder: string): ProcessRecord[];

/**
 * Record a process that was just started as the leader of its own group.
 *
 * Replaces the record of the same name. Call it before anything can fail, so that a crash leaves a record.
 * @throws if the process has already ended
 */
export function recordProcess(
  stateFolder: string,
  entry: { name: string; pid: number; port?: number },
): ProcessRecord;

/**
 * End the recorded processes with all their children: SIGTERM, after `graceMs` SIGKILL.
 *
 * Safe to repeat. A process id that meanwhile belongs to someone else is left alone.
 * @param options.graceMs time to save state after SIGTERM, default 10,000
 * @param options.name only the record of this name
 * @throws if a process survives SIGKILL or something else holds the port
 */
export function stopRecorded(
  stateFolder: string,
  options?: { graceMs?: number; name?: string },
): Promise<StopResult[]>;

/** Whether nothing listens on this port of 127.0.0.1. */
export function portIsFree(port: number): Promise<boolean>;

/** A port of 127.0.0.1 that was free a moment ago. */
export function pickFreePort(): Promise<number>;

/**
 * Run `work` while holding a lock file; a lock whose holder has died is taken over.
 *
 * @param options.onWait called once if someone else holds it
 * @param options.deadlineMs how long to wait, default 900,000
 */
export function withLock<T>(
  file: string,
  work: () => Promise<T> | T,
  options?: { onWait?: () => void; deadlineMs?: number },
): Promise<T>;
