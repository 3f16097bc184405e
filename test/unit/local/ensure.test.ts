// ensure.js and stop.js, run as a user runs them, in a copy of the project whose install is prepared.
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { processStarted } from '../../../local/processes.js';

const project = fileURLToPath(new URL('../../..', import.meta.url));
let root: string;

const stamp = (texts: string[]) => {
  const hash = createHash('sha256');
  for (const text of texts) hash.update(`${text.length}:`).update(text);
  return hash.digest('hex');
};

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'granary-ensure-'));
  cpSync(join(project, 'local'), join(root, 'local'), { recursive: true });
  writeFileSync(join(root, 'package.json'), '{"type":"module"}');
  mkdirSync(join(root, 'node_modules', 'node', 'bin'), { recursive: true });
  symlinkSync(process.execPath, join(root, 'node_modules', 'node', 'bin', 'node'));
  writeFileSync(join(root, 'node_modules', '.granary-stamp'), stamp(['{"type":"module"}', '']));
  mkdirSync(join(root, '.local', 'venv', 'bin'), { recursive: true });
  writeFileSync(join(root, '.local', 'venv', 'bin', 'python'), '');
  const requirements = readFileSync(join(root, 'local', 'requirements.txt'), 'utf8');
  writeFileSync(join(root, '.local', 'venv', '.granary-stamp'), stamp([requirements]));
});

afterEach(() => {
  rmSync(root, { recursive: true, force: true });
});

const run = (args: string[], env: Record<string, string> = {}) =>
  spawnSync(process.execPath, args, { cwd: root, encoding: 'utf8', env: { ...process.env, ...env } });

/** A program in a folder of its own that answers as another one would. */
function pretend(name: string, script: string): string {
  const folder = join(root, `pretend-${name}`);
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, name), `#!/bin/sh\n${script}\n`);
  chmodSync(join(folder, name), 0o755);
  return folder;
}

test('with everything installed it only runs the script, with its arguments and exit code', () => {
  writeFileSync(
    join(root, 'script.ts'),
    'const n: number = 7; console.log(process.argv.slice(2).join()); process.exitCode = n;',
  );
  const { status, stdout, stderr } = run(['local/ensure.js', 'script.ts', 'a', '--b=c d']);
  expect([status, stdout, stderr]).toEqual([7, 'a,--b=c d\n', '']);
  expect(existsSync(join(root, '.local', 'install.lock'))).toBe(false);
});

test('a signal reaches the script and its end is passed on', async () => {
  writeFileSync(join(root, 'script.ts'), 'console.log(process.pid); setInterval(() => {}, 1000);');
  const child = spawn(process.execPath, ['local/ensure.js', 'script.ts'], {
    cwd: root,
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const pid = await new Promise<number>((resolve) => {
    child.stdout.once('data', (data: Buffer) => resolve(Number(data.toString())));
  });
  const ended = new Promise((resolve) => child.once('exit', (code, signal) => resolve([code, signal])));
  child.kill('SIGTERM');
  expect(await ended).toEqual([null, 'SIGTERM']);
  expect(processStarted(pid)).toBeUndefined();
});

test('a Python that is too old is named, with how to get another', () => {
  rmSync(join(root, '.local'), { recursive: true });
  const python = join(pretend('python3', 'echo 3 10 4'), 'python3');
  const { status, stderr } = run(['local/ensure.js', 'script.ts'], { GRANARY_PYTHON: python });
  expect(status).toBe(1);
  expect(stderr).toMatch(/needs Python 3\.11 to 3\.13 \(.*python3 is 3\.10\.4\)/);
  expect(stderr).toContain('sudo apt install python3 python3-venv');
});

test('a Python without the module venv is named, with the package that brings it', () => {
  rmSync(join(root, '.local'), { recursive: true });
  const folder = pretend('python3', 'case "$2" in *version_info*) echo 3 12 1;; *) exit 1;; esac');
  const { status, stderr } = run(['local/ensure.js', 'script.ts'], {
    GRANARY_PYTHON: join(folder, 'python3'),
  });
  expect(status).toBe(1);
  expect(stderr).toContain('sudo apt install python3.12-venv');
});

test('an npm that fails is shown with the end of its log', () => {
  rmSync(join(root, 'node_modules', '.granary-stamp'));
  const folder = pretend('npm', 'echo "$@"; echo registry unreachable; exit 9');
  const { status, stderr } = run(['local/ensure.js', 'script.ts'], {
    PATH: `${folder}:${process.env.PATH}`,
    npm_execpath: '',
  });
  expect(status).toBe(1);
  expect(stderr).toMatch(/Installing the npm packages failed \(9\)[\s\S]*registry unreachable/);
});

test('packages are installed anew when package.json has changed, once, and the stamp follows', () => {
  writeFileSync(join(root, 'script.ts'), "console.log('ran');");
  writeFileSync(join(root, 'package.json'), '{"type":"module","version":"2"}');
  const folder = pretend('npm', 'echo "$@" >> calls.txt');
  const env = { PATH: `${folder}:${process.env.PATH}`, npm_execpath: '' };
  expect(run(['local/ensure.js', 'script.ts'], env)).toMatchObject({
    status: 0,
    stdout: expect.stringContaining('ran'),
  });
  expect(run(['local/ensure.js', 'script.ts'], env)).toMatchObject({ status: 0, stdout: 'ran\n' });
  expect(readFileSync(join(root, 'calls.txt'), 'utf8')).toBe(
    'install --no-audit --no-fund --loglevel=error\n',
  );
});

test('two runs at once install once', async () => {
  writeFileSync(join(root, 'script.ts'), "console.log('ran');");
  writeFileSync(join(root, 'package.json'), '{"type":"module","version":"3"}');
  const folder = pretend('npm', 'echo once >> calls.txt');
  const env = { ...process.env, PATH: `${folder}:${process.env.PATH}`, npm_execpath: '' };
  const ends = [1, 2, 3].map(
    () =>
      new Promise((resolve) => {
        spawn(process.execPath, ['local/ensure.js', 'script.ts'], { cwd: root, env, stdio: 'ignore' }).once(
          'exit',
          resolve,
        );
      }),
  );
  expect(await Promise.all(ends)).toEqual([0, 0, 0]);
  expect(readFileSync(join(root, 'calls.txt'), 'utf8')).toBe('once\n');
});

test('a stop with nothing running says so, and --reset throws the state away but not the install', () => {
  expect(run(['local/stop.js'])).toMatchObject({ status: 0, stdout: 'Nothing was running.\n' });
  writeFileSync(join(root, '.local', 'endpoint.json'), '{}');
  mkdirSync(join(root, '.local', 'emulator'));
  const { status, stdout } = run(['local/stop.js', '--reset']);
  expect([status, stdout]).toEqual([
    0,
    'Nothing was running.\nThrown away from .local: emulator, endpoint.json\n',
  ]);
  expect(existsSync(join(root, '.local', 'venv', 'bin', 'python'))).toBe(true);
  expect(run(['local/stop.js', '--rest'])).toMatchObject({
    status: 2,
    stderr: expect.stringContaining('--rest'),
  });
});
