// Finds shell commands in a text, and runs them one after the other in one shell, keeping what each of them printed.
import { spawn, spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** One command of a walk-through, whole, with the step that it belongs to. */
export interface Command {
  readonly step: number;
  readonly text: string;
}

/** What a walk-through runs; without one of them it fails, since its readers would fail too. */
export const tools = ['bash', 'curl', 'jq', 'zip'] as const;

/** Those that this machine lacks. */
export function missingTools(): string[] {
  return tools.filter((tool) => spawnSync('bash', ['-c', `command -v ${tool}`]).status !== 0);
}

/** How a command begins: a comment, an assignment, or one of the programs and keywords that the tutorial uses. */
const beginning = /^(?:# |[A-Z][A-Z_]*=|export |curl |cd |zip |echo |while |for |if )/;

/** Prose that ran together with the command behind it, such as `Find groups:curl -s ...`. */
const joined = /^[A-Z][^`$"]*:(?=# |curl )/;

/** Whether bash reads the text as whole commands: quotes closed, loops done, no line continued. */
function isWhole(text: string): boolean {
  return !text.endsWith('\\') && spawnSync('bash', ['-n'], { input: text }).status === 0;
}

/**
 * The shell commands of a text that has lost its code fences, by "Step N: ..." headings.
 *
 * A line that begins like a command is one together with as many further lines as bash needs; all others are prose.
 *
 * @param firstStep headings before it hold no shell commands
 * @throws Error if a command is never whole
 */
export function commandsOfText(text: string, firstStep: number): Command[] {
  const commands: Command[] = [];
  let step = 0;
  let open: string | undefined;
  for (const line of text.split('\n')) {
    // Headings ran together with the prose before them.
    const heading = /Step (\d+): \w/.exec(line)?.[1];
    if (open === undefined && heading !== undefined) {
      step = Number(heading);
      continue;
    }
    const begin = line.replace(joined, '');
    if (step < firstStep || (open === undefined && !beginning.test(begin))) continue;
    open = open === undefined ? begin : `${open}\n${line}`;
    if (!isWhole(open)) continue;
    // A comment alone says nothing to run.
    if (!open.startsWith('#')) commands.push({ step, text: open });
    open = undefined;
  }
  if (open !== undefined) throw new Error(`step ${step} has a command that never ends:\n${open}`);
  return commands;
}

/** The commands of a script of our own, whose steps begin with lines `# Step N`. */
export function commandsOfScript(text: string): Command[] {
  return commandsOfText(text.replace(/^# (Step \d+: )/gm, '$1'), 1);
}

/**
 * The bash blocks below a heading of a Markdown text, up to the next heading of its level.
 *
 * @throws Error if there is no such heading
 */
export function bashBlocks(markdown: string, heading: string): string[] {
  const lines = markdown.split('\n');
  const begin = lines.findIndex((line) => /^#+ /.test(line) && line.replace(/^#+ /, '').trim() === heading);
  if (begin < 0) throw new Error(`there is no heading "${heading}"`);
  const level = /^#+/.exec(lines[begin]!)![0].length;
  const blocks: string[] = [];
  let block: string[] | undefined;
  let fenced = false;
  for (const line of lines.slice(begin + 1)) {
    if (/^\s*```/.test(line)) {
      if (block) blocks.push(block.join('\n'));
      block = !fenced && /^```bash\s*$/.test(line) ? [] : undefined;
      fenced = !fenced;
      continue;
    }
    const next = /^(#+) /.exec(line)?.[1];
    if (!fenced && next !== undefined && next.length <= level) break;
    block?.push(line);
  }
  return blocks;
}

export interface Outcome {
  /** Null if it was ended for taking too long. */
  readonly code: number | null;
  readonly errors: string;
  /** What each command printed, in their order. */
  readonly printed: readonly string[];
  /** The shell variables at the end, those of the environment too. */
  readonly variables: Readonly<Record<string, string>>;
}

export interface RunOptions {
  /** Working folder at the begin; the results are written beside it. */
  readonly folder: string;
  readonly env: Readonly<Record<string, string>>;
  readonly deadlineMs?: number;
  /** Stop at the first command that fails. */
  readonly strict?: boolean;
}

/** Runs commands in one shell without a terminal. */
export async function runCommands(commands: readonly string[], options: RunOptions): Promise<Outcome> {
  const { folder, env, deadlineMs = 180_000, strict = false } = options;
  const results = `${folder}-results`;
  mkdirSync(results);
  const place = (i: number) => join(results, String(i));
  const script = [
    ...(strict ? ['set -euo pipefail'] : []),
    // Braces, so that variables and the working folder stay for the next command.
    ...commands.map((text, i) => `{ :\n${text}\n} > '${place(i)}'`),
    `compgen -v | while read -r name; do printf '%s\\0%s\\0' "$name" "\${!name:-}"; done > '${join(results, 'variables')}'`,
  ].join('\n');
  writeFileSync(join(results, 'script.sh'), script);
  const child = spawn('bash', [join(results, 'script.sh')], {
    cwd: folder,
    detached: true,
    stdio: ['ignore', 'ignore', 'pipe'],
    env: { ...env },
  });
  let errors = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    errors += text;
  });
  const timer = setTimeout(() => process.kill(-child.pid!, 'SIGKILL'), deadlineMs);
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', resolve);
  }).finally(() => clearTimeout(timer));
  const written = new Set(readdirSync(results));
  const variables: Record<string, string> = {};
  if (written.has('variables')) {
    const parts = readFileSync(join(results, 'variables'), 'utf8').split('\0');
    for (let i = 0; i + 1 < parts.length; i += 2) variables[parts[i]!] = parts[i + 1]!;
  }
  return {
    code,
    errors,
    printed: commands.map((_, i) => (written.has(String(i)) ? readFileSync(place(i), 'utf8') : '')),
    variables,
  };
}
