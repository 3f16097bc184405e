// What a group of commands is: a file here and a line in main.ts.
import type { Command } from 'commander';
import type { Client } from '../client.ts';
import type { Output } from '../output.ts';

/** What a command works with that asks nothing of the service. */
export interface LocalSession {
  readonly output: Output;
  readonly env: Readonly<Record<string, string | undefined>>;
}

/** What a command works with; made from the options when it runs. */
export interface Session extends LocalSession {
  readonly client: Client;
}

type Wrap<S> = <A extends readonly unknown[]>(
  action: (session: S, ...args: A) => Promise<void>,
) => (...args: A) => Promise<void>;

/**
 * Adds its commands to the program. An action is wrapped by `run`, which makes the session and turns what is thrown into
 * an error message and an exit code; by `runLocally` where it needs neither a URL nor a key.
 */
export type CommandGroup = (program: Command, run: Wrap<Session>, runLocally: Wrap<LocalSession>) => void;
