// What a group of commands is: a file here and a line in main.ts.
import type { Command } from 'commander';
import type { Client } from '../client.ts';
import type { Output } from '../output.ts';

/** What a command works with; made from the options when it runs. */
export interface Session {
  readonly client: Client;
  readonly output: Output;
}

/**
 * Adds its commands to the program. An action is wrapped by `run`, which makes the session and turns what is thrown into
 * an error message and an exit code.
 */
export type CommandGroup = (
  program: Command,
  run: <A extends readonly unknown[]>(
    action: (session: Session, ...args: A) => Promise<void>,
  ) => (...args: A) => Promise<void>,
) => void;
