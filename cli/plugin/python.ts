// Finds a Python for plugins, and asks it to run the validator or the runner.
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { CliError } from '../errors.ts';

const projectFolder = fileURLToPath(new URL('../..', import.meta.url));
const driver = fileURLToPath(new URL('./run_local.py', import.meta.url));
const ownPython = fileURLToPath(new URL('../../.local/venv/bin/python', import.meta.url));

const howToMake =
  `one with everything in it is made by "npm start" in ${projectFolder}, or there by: ` +
  'python3 -m venv .local/venv && .local/venv/bin/pip install -r local/requirements.txt';

/**
 * The Python that runs plugins here: the option, then GRANARY_PYTHON, then the project's own.
 *
 * @throws CliError usage, with the command that makes one
 */
export function findPython(
  given: string | undefined,
  env: Readonly<Record<string, string | undefined>>,
): string {
  const named = given ?? (env.GRANARY_PYTHON || undefined);
  if (named !== undefined) return named;
  if (existsSync(ownPython)) return ownPython;
  throw new CliError(
    'usage',
    `which Python? There is none at ${ownPython}; ${howToMake}. Another one: --python or GRANARY_PYTHON`,
  );
}

/** The folder of a deployed function, whose handler the driver imports. */
export const functionFolder = (name: 'plugin-validator' | 'plugin-runner'): string =>
  fileURLToPath(new URL(`../../functions/${name}`, import.meta.url));

/**
 * Sends one request to the driver, run_local.py. @returns its answer
 *
 * @param env beside the variables of this process; plugins see neither
 * @throws CliError usage if this Python cannot do it, unforeseen if the driver ends without an answer
 */
export async function askPython<T>(
  python: string,
  request: Readonly<Record<string, unknown>>,
  env: Readonly<Record<string, string>> = {},
): Promise<T> {
  // -s: packages of the user's home are not there on AWS either. -B: nothing is written beside the sources.
  const child = spawn(python, ['-s', '-B', driver], {
    stdio: ['pipe', 'pipe', 'pipe'],
    env: { ...process.env, ...env },
  });
  const parts: Buffer[] = [];
  let errors = '';
  child.stdout.on('data', (part: Buffer) => parts.push(part));
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    errors = (errors + text).slice(-20_000);
  });
  // It may end before it has read all; how it ended says why.
  child.stdin.on('error', () => undefined);
  // Left open: its end tells the driver that this process is gone.
  child.stdin.write(`${JSON.stringify(request)}\n`);
  const end = await new Promise<number | NodeJS.Signals>((resolve, reject) => {
    child.once('error', (error) =>
      reject(
        new CliError('usage', `${python} cannot be started as a Python: ${error.message}; ${howToMake}`, {
          cause: error,
        }),
      ),
    );
    child.once('close', (code, signal) => resolve(signal ?? code ?? 0));
  });
  let answer: unknown;
  try {
    answer = JSON.parse(Buffer.concat(parts).toString());
  } catch {
    answer = undefined;
  }
  if (typeof answer !== 'object' || answer === null)
    throw new CliError('unforeseen', `${python} ended with ${end} and without an answer`, {
      faults: errors.trimEnd().split('\n').slice(-15),
    });
  const { problem } = answer as { readonly problem?: string };
  if (problem !== undefined)
    throw new CliError('usage', `${python} cannot run plugins: ${problem}; ${howToMake}`);
  return answer as T;
}
