// Names of plugins: the service's rule, and names that it admits and Python would not.
import { CreatePluginUploadBody } from '../../functions/core/resources/plugins/contract.ts';
import { CliError } from '../errors.ts';

/** The plugin's folder is a package of this name: these would hide one that it needs, or cannot be imported. */
const taken = new Set([
  ...['numpy', 'pandas', 'pipeline', 'manifest', 'realtime', 'shared', 'vendor', 'processors'],
  ...['json', 'math', 'hashlib', 'typing', 'random', 'string', 'pathlib', 'asyncio', 'collections', 'types'],
  ...[
    'and',
    'assert',
    'async',
    'await',
    'break',
    'class',
    'continue',
    'def',
    'del',
    'elif',
    'else',
    'except',
  ],
  ...['finally', 'for', 'from', 'global', 'import', 'lambda', 'nonlocal', 'not', 'pass', 'raise', 'return'],
  ...['try', 'while', 'with', 'yield', 'False', 'None', 'True'],
]);

/** The nearest name that would do. */
function rightForm(name: string): string {
  const plain = name
    .normalize('NFKD')
    .replaceAll(/\p{M}/gu, '')
    .replaceAll('ß', 'ss')
    .replaceAll(/[^A-Za-z0-9]+/g, '_')
    .replace(/^[^A-Za-z]+/, '')
    .replace(/_+$/, '')
    .slice(0, 64);
  return plain.length >= 3 ? plain : `${plain || 'my'}_plugin`;
}

/** @throws CliError usage with the rule, and a name that would do */
export function checkName(name: string): void {
  const read = CreatePluginUploadBody.shape.name.safeParse(name);
  if (!read.success)
    throw new CliError('usage', `"${name}" is no name for a plugin: ${read.error.issues[0]?.message}`, {
      faults: [`right form: granary plugin init ${rightForm(name)}`],
    });
  if (taken.has(name))
    throw new CliError(
      'usage',
      `"${name}" would hide the Python name ${name} from the plugin; it is a package of its own name`,
      { faults: [`right form: granary plugin init ${name}_embed`] },
    );
}
