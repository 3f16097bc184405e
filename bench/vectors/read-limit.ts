// How fast this machine reads memory: a C program, or where there is no compiler a loop in WebAssembly.
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { median } from '../measure.ts';
import type { Program } from './contestant.ts';
import { nodeProgram } from './contestant.ts';
import type { Samples } from './rounds.ts';

export interface ReadLimit {
  /** @param rowsFile what is read */
  program(rowsFile: string): Program;
  /** One stream: limit A. */
  readonly oneStream: string;
  /** Streams far apart, in registers of several widths: the best of them is limit B. */
  readonly manyStreams: readonly string[];
  /** Why there are no two threads to compare with; undefined if there are. */
  readonly withoutThreads: string | undefined;
  readonly how: string;
}

const streams = [1, 2, 4, 8, 16];

/** Compiles the reader for this very processor, into `folder`. */
export function prepareReadLimit(folder: string): ReadLimit {
  const program = join(folder, 'read-limit');
  const source = fileURLToPath(new URL('read-limit.c', import.meta.url));
  const flags = ['-O3', '-march=native', '-pthread', '-o', program, source];
  const compiled = spawnSync('gcc', flags, { encoding: 'utf8' });
  if (compiled.status === 0) {
    // Registers wider than the processor's are two of its own, which does no harm.
    const names = [16, 32, 64].flatMap((width) => streams.map((count) => `w${width}_s${count}`));
    return {
      program: (rowsFile) => ({ name: 'read-limit', command: program, args: [rowsFile] }),
      oneStream: 'w32_s1',
      manyStreams: names,
      withoutThreads: undefined,
      how: 'C, gcc -O3 -march=native',
    };
  }
  const why = compiled.error?.message ?? compiled.stderr.trim().split('\n')[0] ?? 'gcc failed';
  return {
    program: (rowsFile) => nodeProgram('read-limit-wasm.ts', [rowsFile]),
    oneStream: 's1',
    manyStreams: streams.map((count) => `s${count}`),
    withoutThreads: `the two reading threads are written in C, and there is no gcc (${why})`,
    how: `WebAssembly, since there is no gcc (${why})`,
  };
}

/** Limit B: the reader that needs the least CPU. */
export function bestReader(readers: readonly string[], samplesOf: (name: string) => Samples): string {
  const cpuOf = (name: string) => median(samplesOf(name).cpuMs);
  return readers.reduce((best, name) => (cpuOf(name) < cpuOf(best) ? name : best));
}
