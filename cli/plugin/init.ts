// `granary plugin init`: a working plugin from a template.
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { basename, dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { CliError } from '../errors.ts';
import type { Output } from '../output.ts';
import { checkName } from './name.ts';

/** Each is a folder below `templates/`: a plugin that works as it is, of the name below. */
export const templates = {
  text: 'a text becomes one vector; one step, NumPy only',
  image: 'an image becomes one vector; reads the file with pillow',
  pipeline: 'a long text becomes several vectors, one a passage; parameters, two steps, a package of its own',
} as const;

export type TemplateName = keyof typeof templates;

const templateName = 'my_plugin';
const templateFolder = (name: TemplateName) => fileURLToPath(new URL(`./templates/${name}`, import.meta.url));

export interface InitOptions {
  readonly template: TemplateName;
  readonly dir?: string;
  readonly realtime?: boolean;
}

function filesBelow(folder: string, above = ''): string[] {
  return readdirSync(join(folder, above), { withFileTypes: true })
    .filter(({ name }) => name !== '__pycache__' && !name.startsWith('.'))
    .flatMap((entry) => {
      const path = join(above, entry.name);
      return entry.isDirectory() ? filesBelow(folder, path) : [path];
    })
    .sort();
}

/**
 * Writes the folder. Nothing that is there is replaced, and what was begun is taken back when a write fails.
 *
 * @throws CliError usage
 */
export function initCommand(
  output: Output,
  env: Readonly<Record<string, string | undefined>>,
  name: string,
  options: InitOptions,
): void {
  checkName(name);
  const dir = resolve(options.dir ?? name);
  const from = templateFolder(options.template);
  const all = filesBelow(from);
  if (options.realtime && !all.includes('realtime.py')) {
    const others = Object.keys(templates).filter((one) =>
      filesBelow(templateFolder(one as TemplateName)).includes('realtime.py'),
    );
    throw new CliError(
      'usage',
      `the template ${options.template} has no realtime.py; ${others.join(', ')} has`,
    );
  }
  const files = all.filter((path) => options.realtime || path !== 'realtime.py');
  mkdirSync(dirname(dir), { recursive: true });
  try {
    mkdirSync(dir);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code !== 'EEXIST') throw new CliError('usage', `${dir} cannot be made: ${message}`);
    throw new CliError('usage', `${dir} is there already and is left as it is. Another place: --dir`);
  }
  try {
    for (const path of files) {
      const content = readFileSync(join(from, path));
      const isText = /\.(py|md|jsonl)$/.test(path);
      mkdirSync(dirname(join(dir, path)), { recursive: true });
      writeFileSync(join(dir, path), isText ? content.toString().replaceAll(templateName, name) : content, {
        flag: 'wx',
      });
    }
  } catch (error) {
    rmSync(dir, { recursive: true, force: true });
    throw new CliError('usage', `${dir} could not be written: ${(error as Error).message}`, { cause: error });
  }
  const shown = relative('', dir) || '.';
  // As the reader called it.
  const granary = env.npm_command === 'exec' ? 'npx granary' : 'granary';
  output.result({ name, template: options.template, dir, files }, [
    `${name} is in ${shown}: ${files.join(', ')}`,
    'Next:',
    `  ${granary} plugin validate ${quoted(shown)}`,
    `  ${granary} plugin test ${quoted(shown)} --data ${quoted(join(shown, 'sample.jsonl'))}`,
    `  ${granary} plugin push ${quoted(shown)}`,
    ...(basename(dir) === name ? [] : [`The plugin is named ${name} whatever its folder is named.`]),
  ]);
}

/** As a shell takes it. */
const quoted = (path: string) =>
  /^[\w@%+=:,./-]+$/.test(path) ? path : `'${path.replaceAll("'", "'\\''")}'`;
