// The program `granary`: options that all commands share, the groups of commands, and how everything ends.
import { Command, CommanderError } from 'commander';
import { Client } from './client.ts';
import type { CommandGroup } from './commands/command.ts';
import { plugin } from './commands/plugin.ts';
import { vectors } from './commands/vectors.ts';
import { CliError, type ExitName, exitCodes, exitMeanings } from './errors.ts';
import { Output, type Streams } from './output.ts';
import { readSettings, type SettingOptions } from './settings.ts';

/** One line for each group of commands. */
const groups: readonly CommandGroup[] = [plugin, vectors];

const codesHelp = Object.entries(exitMeanings)
  .map(([name, meaning]) => `  ${exitCodes[name as ExitName]}  ${meaning}`)
  .join('\n');

const help = `
Settings, the first that is there: options; GRANARY_URL, GRANARY_API_KEY, GRANARY_NAMESPACE; the profile (--profile or
GRANARY_PROFILE, else "default") in ~/.config/granary/config.json, which only you may read (chmod 600):
  {"profiles": {"default": {"url": "https://...", "key": "grn_...", "namespace": "..."}}}
The profile "local" is the stack that "npm start" runs.

Exit codes:
${codesHelp}`;

/**
 * Runs the program.
 *
 * @param args without the names of Node and script
 * @returns the exit code
 */
export async function run(
  args: readonly string[],
  streams: Streams = { out: process.stdout, err: process.stderr, env: process.env },
): Promise<number> {
  const program = new Command('granary')
    .description('Command line of Granary, the feature warehouse in your own AWS account.')
    .option('--url <url>', 'base URL of the service')
    .option(
      '--key <key>',
      'API key; better in GRANARY_API_KEY, where other users of the machine do not see it',
    )
    .option('-n, --namespace <namespace>', 'id or name')
    .option('--profile <name>', 'settings from the file of profiles')
    .option('--json', 'print results and errors as JSON')
    .addHelpText('after', help)
    .showHelpAfterError('(granary --help shows the right form)')
    .exitOverride()
    .configureOutput({
      writeOut: (text) => void streams.out.write(text),
      writeErr: (text) => void streams.err.write(text),
      getOutHasColors: () => false,
      getErrHasColors: () => false,
    });
  const outputOf = () => new Output(streams, program.opts<{ json?: boolean }>().json ?? false);
  let output: Output | undefined;
  const { env } = streams;
  for (const group of groups) {
    group(
      program,
      (action) =>
        async (...given) => {
          output = outputOf();
          const settings = readSettings(program.opts<SettingOptions>(), env);
          await action({ client: new Client(settings), output, env }, ...given);
        },
      (action) =>
        async (...given) => {
          output = outputOf();
          await action({ output, env }, ...given);
        },
    );
  }
  inherit(program);
  try {
    await program.parseAsync([...args], { from: 'user' });
    return exitCodes.ok;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? exitCodes.ok : exitCodes.usage;
    output ??= outputOf();
    if (error instanceof CliError) {
      output.error(error);
      return exitCodes[error.exit];
    }
    output.error(
      new CliError('unforeseen', `something unforeseen: ${(error as Error).message}`, { cause: error }),
    );
    if (streams.env.DEBUG) streams.err.write(`${(error as Error).stack}\n`);
    return exitCodes.unforeseen;
  }
}

/** Commands end and print as the program does, and take its options behind their name too. */
function inherit(command: Command): void {
  for (const child of command.commands) {
    child.copyInheritedSettings(command);
    inherit(child);
  }
}
