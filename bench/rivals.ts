// The programs that are measured beside ours: installed apart from the project, at fixed versions. One environment for
// each bench: their packages need different versions of numpy.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { projectFolder, projectPython } from '../local/emulator.ts';

const vectorPackages = ['faiss-cpu==1.15.1', 'numpy==2.4.6'];
const mapPackages = ['umap-learn==0.5.12', 'numba==0.67.0', 'scikit-learn==1.9.1'];
/** Published with the figures. */
export const npmPackages = ['usearch@2.26.2', '@lancedb/lancedb@0.39.0', 'apache-arrow@18.1.0'];

const folder = join(projectFolder, '.local', 'bench-rivals');
const npmFolder = join(folder, 'npm');

/** Where something is, or why it is not there. */
export type Place = { readonly path: string } | { readonly missing: string };

export interface Rivals {
  /** The interpreter that has faiss and numpy. */
  readonly python: Place;
  /** The folder whose node_modules has usearch and LanceDB. */
  readonly npm: Place;
}

/** Installs what is not there yet, with a line for each. Nothing is fetched when all is there. */
export function installRivals(say: (line: string) => void): Rivals {
  return {
    python: installPython('venv', vectorPackages, say),
    npm: install(npmFolder, npmPackages, npmFolder, say, () => {
      rmSync(npmFolder, { recursive: true, force: true });
      mkdirSync(npmFolder, { recursive: true });
      writeFileSync(join(npmFolder, 'package.json'), '{ "private": true }\n');
      // Both bring their binaries as files; no script of theirs needs to run.
      const flags = ['--no-audit', '--no-fund', '--loglevel=error', '--ignore-scripts'];
      return [['npm', ['install', '--prefix', npmFolder, ...flags, ...npmPackages]]];
    }),
  };
}

/** The interpreter that has umap-learn. */
export function installMapRival(say: (line: string) => void): Place {
  return installPython('umap', mapPackages, say);
}

function installPython(name: string, packages: readonly string[], say: (line: string) => void): Place {
  const venv = join(folder, name);
  const python = join(venv, 'bin', 'python');
  return install(venv, packages, python, say, () => [
    [projectPython, ['-m', 'venv', '--clear', venv]],
    [python, ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', ...packages]],
  ]);
}

function install(
  place: string,
  packages: readonly string[],
  path: string,
  say: (line: string) => void,
  commands: () => readonly (readonly [string, readonly string[]])[],
): Place {
  // The stamp lies in the folder that it speaks of, so that removing the folder removes the stamp.
  const stamp = join(place, '.granary-stamp');
  const wanted = `${packages.join('\n')}\n`;
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === wanted) return { path };
  say(`installing ${packages.join(', ')} into ${place}`);
  for (const [command, args] of commands()) {
    const { status, error, stderr } = spawnSync(command, args, { encoding: 'utf8' });
    if (status !== 0) {
      const why = error?.message ?? stderr.trim().split('\n').slice(-3).join(' ');
      return { missing: `${packages.join(', ')} could not be installed: ${why}` };
    }
  }
  writeFileSync(stamp, wanted);
  return { path };
}
