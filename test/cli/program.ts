// Runs the program in this process, with streams of its own.
import { run } from '../../cli/main.ts';
import type { Ended } from './server.ts';

/** As `granary` does, without the time that a process takes; `tty` makes both streams a terminal. */
export async function program(
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
  tty = false,
): Promise<Ended> {
  const written = { out: '', err: '' };
  const sink = (name: 'out' | 'err') => ({
    isTTY: tty,
    write: (text: string) => {
      written[name] += text;
    },
  });
  const code = await run(args, { out: sink('out'), err: sink('err'), env: { HOME: '/nonexistent', ...env } });
  return { code, ...written };
}
