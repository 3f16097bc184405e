// Installs LanceDB, pinned by functions/lance/package-lock.json; needs the package registry. Run by `npm run lance`.
//
//   npm run lance              for the function: .local/lance holds the zip's content (Linux, x86-64)
//   npm run lance -- --tests   for the tests of this machine: .local/lancedb
//
// What is installed already from the same files is left alone.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { buildSync } from 'esbuild';

const projectFolder = fileURLToPath(new URL('..', import.meta.url));
const source = join(projectFolder, 'functions', 'lance');
const isForTests = process.argv.includes('--tests');
const target = join(projectFolder, '.local', isForTests ? 'lancedb' : 'lance');

/** A function may unpack to this. @see AWS: Lambda quotas */
const unpackedBytesMax = 250 * 1024 * 1024;
/** Of Lambda's runtime; npm else takes the packages of the machine that it runs on. */
const platform = ['--os=linux', '--cpu=x64', '--libc=glibc'];

const ownFiles = ['index.ts', 'operations.ts', 'lance-module.ts', 'package.json', 'package-lock.json'];
const hash = createHash('sha256');
for (const name of ownFiles) hash.update(readFileSync(join(source, name)));
hash.update(readFileSync(fileURLToPath(import.meta.url)));
const digest = hash.digest('hex');

const note = join(target, 'built.json');
if (existsSync(note) && (JSON.parse(readFileSync(note, 'utf8')) as { hash: string }).hash === digest) {
  console.log(`${target} is up to date`);
} else {
  const partial = `${target}.partial`;
  rmSync(partial, { recursive: true, force: true });
  mkdirSync(partial, { recursive: true });
  for (const name of ['package.json', 'package-lock.json']) copyFileSync(join(source, name), join(partial, name));
  // Not `ci`: a lock lists the optional packages of the platform that it was written on only, and `ci` then stops.
  const args = ['install', ...(isForTests ? [] : platform)];
  const quiet = ['--ignore-scripts', '--no-audit', '--no-fund'];
  const result = spawnSync('npm', [...args, ...quiet], { cwd: partial, stdio: 'inherit' });
  if (result.error) throw new Error(`npm cannot be started: ${result.error.message}`);
  if (result.status !== 0) throw new Error(`npm ended with ${result.status ?? result.signal}; LanceDB is not installed`);
  prune(partial);
  if (!isForTests) {
    buildSync({
      absWorkingDir: projectFolder,
      entryPoints: [join(source, 'index.ts')],
      outfile: join(partial, 'index.mjs'),
      bundle: true,
      minify: true,
      keepNames: true,
      format: 'esm',
      platform: 'node',
      target: 'node24',
      legalComments: 'none',
      logLevel: 'error',
    });
  }
  const bytes = sizeOf(partial);
  if (!isForTests && bytes > unpackedBytesMax)
    throw new Error(`the function unpacks to ${megabytes(bytes)}, and Lambda takes ${megabytes(unpackedBytesMax)}`);
  writeFileSync(join(partial, 'built.json'), `${JSON.stringify({ hash: digest, bytes })}\n`);
  rmSync(target, { recursive: true, force: true });
  renameSync(partial, target);
  console.log(`${target}: ${megabytes(bytes)} unpacked`);
}

/** Packages are optional to LanceDB that only make embeddings; they would be half of the zip. Its own binary is too. */
function isNeeded(name: string, isOptional: boolean): boolean {
  return !isOptional || name.startsWith('@lancedb/');
}

/** Deletes the packages that nothing needed depends on. */
function prune(folder: string): void {
  const modules = join(folder, 'node_modules');
  const needed = new Set<string>();
  const read = (path: string) =>
    JSON.parse(readFileSync(join(path, 'package.json'), 'utf8')) as Record<
      'dependencies' | 'optionalDependencies',
      Record<string, string> | undefined
    >;
  const follow = (path: string) => {
    const { dependencies = {}, optionalDependencies = {} } = read(path);
    const names = [
      ...Object.keys(dependencies).filter((name) => !(name in optionalDependencies)),
      ...Object.keys(optionalDependencies).filter((name) => isNeeded(name, true)),
    ];
    for (const name of names) {
      const nested = join(path, 'node_modules', name);
      const found = existsSync(nested) ? nested : join(modules, name);
      // Binaries of other platforms are not there.
      if (!existsSync(found) || needed.has(found)) continue;
      needed.add(found);
      follow(found);
    }
  };
  follow(folder);
  for (const name of readdirSync(modules)) {
    const path = join(modules, name);
    const packages = name.startsWith('@') ? readdirSync(path).map((inner) => join(path, inner)) : [path];
    for (const one of packages) if (!needed.has(one)) rmSync(one, { recursive: true, force: true });
    if (existsSync(path) && readdirSync(path).length === 0) rmSync(path, { recursive: true });
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
