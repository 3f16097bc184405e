// Reads the folder of a plugin: what an archive of it holds, and what is left out of it.
import { lstatSync, readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs';
import { basename, join, resolve } from 'node:path';
import { archiveLimits } from '../../functions/core/resources/plugins/archive.ts';
import { CliError } from '../errors.ts';

export interface PluginFile {
  /** Relative to the folder, with `/`. */
  readonly path: string;
  readonly content: Buffer;
  /** The kind of the file, as `stat` says; the rules for archives admit plain files alone. */
  readonly kind: number;
}

export interface PluginFolder {
  /** Absolute. */
  readonly dir: string;
  /** The folder's own name. */
  readonly name: string;
  /** Sorted by path. */
  readonly files: readonly PluginFile[];
  /** Paths of files and folders that serve the developer and not the plugin. */
  readonly leftOut: readonly string[];
}

const s_ifmt = 0o170000;
const s_iflnk = 0o120000;

const caches = /^(__pycache__|\.DS_Store)$|\.py[co]$/;
/** At any depth but below `vendor/`, where packages may need such names: version control, environments, settings. */
const neverPacked = /^(node_modules|venv|\..*)$/;
/** At the top: what a plugin is developed with. */
const forDevelopers = new Set([
  'tests',
  'test',
  'samples',
  'sample.jsonl',
  'sample.csv',
  'README.md',
  'LICENSE',
]);

/**
 * Reads a plugin's folder.
 *
 * Links stay links, so that the rules for archives can refuse them.
 *
 * @throws CliError usage if it is no folder, holds no plugin, or is larger than an archive may be
 */
export function readFolder(dir: string): PluginFolder {
  const whole = resolve(dir);
  let isFolder: boolean;
  try {
    isFolder = statSync(whole).isDirectory();
  } catch (error) {
    throw new CliError('usage', `${dir} cannot be read: ${(error as Error).message}`);
  }
  if (!isFolder) throw new CliError('usage', `${dir} is a file; name the folder that holds manifest.py`);
  const files: PluginFile[] = [];
  const leftOut: string[] = [];
  let bytes = 0;
  const walk = (above: string) => {
    for (const name of readdirSync(join(whole, above)).sort()) {
      const path = above === '' ? name : `${above}/${name}`;
      if (
        caches.test(name) ||
        (neverPacked.test(name) && !path.startsWith('vendor/')) ||
        (above === '' && forDevelopers.has(name))
      ) {
        leftOut.push(path);
        continue;
      }
      const stat = lstatSync(join(whole, path));
      if (stat.isDirectory()) {
        walk(path);
        continue;
      }
      bytes += stat.size;
      if (bytes > archiveLimits.unpackedBytesMax)
        throw new CliError(
          'usage',
          `${dir} holds more than ${archiveLimits.unpackedBytesMax} bytes (until ${path}); an archive may not. Is this the folder of a plugin?`,
        );
      if (files.length > archiveLimits.entriesMax)
        throw new CliError(
          'usage',
          `${dir} holds more than ${archiveLimits.entriesMax} files (until ${path}); an archive may not. Is this the folder of a plugin?`,
        );
      files.push({ path, content: contentOf(join(whole, path), stat.mode), kind: stat.mode & s_ifmt });
    }
  };
  walk('');
  if (!files.some(({ path }) => path === 'manifest.py' || path === 'pipeline.py'))
    throw new CliError(
      'usage',
      `${whole} holds neither manifest.py nor pipeline.py, so it is no plugin. A new one: granary plugin init NAME`,
    );
  return { dir: whole, name: basename(whole), files, leftOut };
}

function contentOf(file: string, mode: number): Buffer {
  const kind = mode & s_ifmt;
  if (kind === s_iflnk) return Buffer.from(readlinkSync(file));
  // A pipe or a device would block or never end.
  return kind === 0o100000 ? readFileSync(file) : Buffer.alloc(0);
}
