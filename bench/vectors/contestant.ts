// A program that is measured: a process of its own, so that its CPU time is its own and nothing else's.
import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { lastLines } from '../../local/emulator.ts';
import type { Answer, Call, Ready } from './protocol.ts';
import { encodeRequest } from './protocol.ts';

/** Every library that brings threads of its own is told to use one. */
const oneThread = {
  OMP_NUM_THREADS: '1',
  OPENBLAS_NUM_THREADS: '1',
  MKL_NUM_THREADS: '1',
  VECLIB_MAXIMUM_THREADS: '1',
  RAYON_NUM_THREADS: '1',
  TOKIO_WORKER_THREADS: '1',
  // Its threads for reading stay: with one of everything LanceDB waits for itself for ever.
  LANCE_CPU_THREADS: '1',
} as const;

/** A bound on hanging: what takes longer is broken, not slow. */
const deadlineMs = 180_000;

export interface Program {
  /** For messages. */
  readonly name: string;
  readonly command: string;
  readonly args: readonly string[];
}

/** A program of this folder that runs on the project's Node. */
export function nodeProgram(script: string, args: readonly string[], flags: readonly string[] = []): Program {
  const file = new URL(script, import.meta.url).pathname;
  return { name: script, command: process.execPath, args: [...flags, file, ...args] };
}

/** A running program. Asked for one thing at a time. */
export class Contestant {
  readonly name: string;
  readonly facts: Readonly<Record<string, unknown>>;
  readonly #child: ChildProcess;
  readonly #lines: Lines;

  private constructor(name: string, child: ChildProcess, lines: Lines, facts: Contestant['facts']) {
    this.name = name;
    this.#child = child;
    this.#lines = lines;
    this.facts = facts;
  }

  /** Starts a program and waits until its data is in memory. @throws Error with what it wrote, if it ends instead */
  static async start({ name, command, args }: Program): Promise<Contestant> {
    const child = spawn(command, args, {
      stdio: ['pipe', 'pipe', 'pipe'],
      env: { ...process.env, ...oneThread },
    });
    const lines = new Lines(name, child);
    const contestant = (facts: Contestant['facts']) => new Contestant(name, child, lines, facts);
    try {
      const { facts = {} } = (await lines.next()) as Ready;
      return contestant(facts);
    } catch (error) {
      await contestant({}).end();
      throw error;
    }
  }

  /** @throws Error if the program does not know the work or ended */
  async measure(work: string, first: number, calls: number): Promise<readonly Call[]> {
    this.#child.stdin!.write(encodeRequest({ work, first, calls }));
    const answer = (await this.#lines.next()) as Answer;
    if ('error' in answer) throw new Error(`${this.name}, ${work}: ${answer.error}`);
    return answer.calls;
  }

  /** Ends the program and waits until it is gone, so that its memory is free. */
  async end(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const gone = new Promise((resolve) => this.#child.once('exit', resolve));
    this.#child.kill('SIGKILL');
    await gone;
  }
}

/** The lines that a program writes, in order, and its end as an error. */
class Lines {
  readonly #waiting: { resolve: (value: unknown) => void; reject: (error: Error) => void }[] = [];
  readonly #read: unknown[] = [];
  #ended: Error | undefined;
  readonly #name: string;

  constructor(name: string, child: ChildProcess) {
    this.#name = name;
    let stderr = '';
    child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      stderr = (stderr + text).slice(-8_000);
    });
    const fail = (why: string) => {
      this.#ended ??= new Error(`${name} ${why}\n${lastLines(stderr, 20)}`);
      for (const { reject } of this.#waiting.splice(0)) reject(this.#ended);
    };
    child.once('error', (error) => fail(`could not be started: ${error.message}`));
    child.once('close', (code, signal) => fail(`ended (${signal ?? code})`));
    // A program that has just ended: `close` says so.
    child.stdin!.on('error', () => {});
    createInterface({ input: child.stdout! }).on('line', (line) => {
      const value: unknown = JSON.parse(line);
      const next = this.#waiting.shift();
      if (next === undefined) this.#read.push(value);
      else next.resolve(value);
    });
  }

  next(): Promise<unknown> {
    if (this.#read.length > 0) return Promise.resolve(this.#read.shift());
    if (this.#ended !== undefined) return Promise.reject(this.#ended);
    return new Promise((resolve, reject) => {
      const timer = setTimeout(
        () => reject(new Error(`${this.#name} has not answered for ${deadlineMs / 1000} s`)),
        deadlineMs,
      );
      const settled =
        <T>(settle: (value: T) => void) =>
        (value: T) => {
          clearTimeout(timer);
          settle(value);
        };
      this.#waiting.push({ resolve: settled(resolve), reject: settled(reject) });
    });
  }
}
