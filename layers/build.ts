// Builds the Lambda layers from layers/<name>/requirements.txt into .local/layers; needs the package index.
// Run by `npm run layers`. What is built already from the same requirements is left alone.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const projectFolder = fileURLToPath(new URL('..', import.meta.url));
const outputFolder = join(projectFolder, '.local', 'layers');
const python = join(projectFolder, '.local', 'venv', 'bin', 'python');

/** Which layer is built for which machine. Plugins bring wheels for x86-64; hdbscan has no others for Linux. */
const layers = [
  { name: 'python-science', architecture: 'x86_64', machine: 'x86_64' },
  { name: 'python-cluster', architecture: 'x86_64', machine: 'x86_64' },
] as const;

/** Of Lambda's runtime. */
const pythonVersion = '3.13';
/** glibc 2.34 of Amazon Linux 2023 runs wheels for all of these. */
const platforms = ['manylinux_2_28', 'manylinux_2_27', 'manylinux_2_24', 'manylinux_2_17', 'manylinux2014'];
/** A function with all its layers may unpack to this. @see AWS: Lambda quotas */
const unpackedBytesMax = 250 * 1024 * 1024;

/** Headers, sources and tests; never `*.libs` (their libraries break when stripped) nor `numpy/f2py` (scikit-learn imports it). */
const trimmedFolders = new Set(['tests', 'test', 'include', 'bin', 'share', '__pycache__']);
const trimmedFiles = /\.(pyi|pyx|pxd|c|h|cpp|hpp|pyc)$/;

for (const { name, architecture, machine } of layers) {
  const requirements = join(projectFolder, 'layers', name, 'requirements.txt');
  const hash = createHash('sha256')
    .update(readFileSync(requirements))
    .update(readFileSync(fileURLToPath(import.meta.url)))
    .digest('hex');
  const target = join(outputFolder, `${name}-${architecture}`);
  const note = join(target, 'built.json');
  if (existsSync(note) && (JSON.parse(readFileSync(note, 'utf8')) as { hash: string }).hash === hash) {
    console.log(`${name} (${architecture}) is up to date`);
    continue;
  }
  console.log(`building ${name} (${architecture})`);
  const partial = `${target}.partial`;
  rmSync(partial, { recursive: true, force: true });
  mkdirSync(join(partial, 'python'), { recursive: true });
  install(requirements, join(partial, 'python'), machine);
  trim(join(partial, 'python'));
  const bytes = sizeOf(join(partial, 'python'));
  if (bytes > unpackedBytesMax) {
    throw new Error(`${name} (${architecture}) unpacks to ${megabytes(bytes)}, and Lambda takes ${megabytes(unpackedBytesMax)} with the code`);
  }
  writeFileSync(join(partial, 'built.json'), `${JSON.stringify({ hash, bytes })}\n`);
  rmSync(target, { recursive: true, force: true });
  renameSync(partial, target);
  console.log(`${name} (${architecture}): ${megabytes(bytes)} unpacked`);
}

function install(requirements: string, target: string, machine: string): void {
  const args = ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', '--no-compile', '--requirement', requirements];
  // The requirements name every package, so nothing is resolved; pip else compares with the Python that runs it.
  args.push('--no-deps', '--ignore-requires-python');
  args.push('--target', target, '--python-version', pythonVersion, '--implementation', 'cp', '--only-binary=:all:');
  for (const platform of platforms) args.push('--platform', `${platform}_${machine}`);
  const result = spawnSync(python, args, { stdio: 'inherit' });
  if (result.error) throw new Error(`${python} cannot be started (${result.error.message}); "npm start" makes it`);
  if (result.status !== 0) throw new Error(`pip ended with ${result.status ?? result.signal}; the layer is not built`);
}

function trim(folder: string): void {
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) {
      if (trimmedFolders.has(entry.name)) rmSync(path, { recursive: true });
      else trim(path);
    } else if (trimmedFiles.test(entry.name)) rmSync(path);
  }
}

function sizeOf(folder: string): number {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .map((name) => statSync(join(folder, name)))
    .reduce((sum, stat) => sum + (stat.isFile() ? stat.size : 0), 0);
}

function megabytes(bytes: number): string {
  return `${(bytes / 1024 / 1024).toFixed(0)} MB`;
}
