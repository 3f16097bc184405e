// Makes sure that everything the project needs is installed, then runs a script with the project's own Node.
//
//     node local/ensure.js <script.ts> [arguments]
//
// Plain JavaScript on built-ins, for the Node of the host (20 or later). It installs npm packages and the
// Python environment if they are absent or stale, and starts the project's Node by its path: a shell goes on
// using the `node` that it found first.
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { withLock } from './processes.js';

const nodeMajorMin = 20;
const pythonMinorMin = 11;
// The newest one that the pinned packages have been tried with.
const pythonMinorMax = 13;

const root = fileURLToPath(new URL('..', import.meta.url));
const modules = join(root, 'node_modules');
const projectNode = join(modules, 'node', 'bin', 'node');
const venv = join(root, '.local', 'venv');
const venvPython = join(venv, 'bin', 'python');
const logs = join(root, '.local', 'install');

function fail(message) {
  console.error(`\n${message}\n`);
  process.exit(1);
}

function hashOf(texts) {
  const hash = createHash('sha256');
  for (const text of texts) hash.update(`${text.length}:`).update(text);
  return hash.digest('hex');
}

const readIfThere = (file) => (existsSync(file) ? readFileSync(file, 'utf8') : '');

// The stamp lies in the folder that it speaks of, so that removing the folder removes the stamp.
const packagesStamp = join(modules, '.granary-stamp');
const packagesHash = () =>
  hashOf([readIfThere(join(root, 'package.json')), readIfThere(join(root, 'package-lock.json'))]);
const packagesAreFresh = () => existsSync(projectNode) && readIfThere(packagesStamp) === packagesHash();

const venvStamp = join(venv, '.granary-stamp');
const venvHash = () => hashOf([readFileSync(join(root, 'local', 'requirements.txt'), 'utf8')]);
const venvIsFresh = () => existsSync(venvPython) && readIfThere(venvStamp) === venvHash();

// Runs a program with its output in a log file; resolves to its exit code.
function run(command, args, logFile, flags) {
  return new Promise((resolve, reject) => {
    const log = openSync(logFile, flags);
    const child = spawn(command, args, { cwd: root, stdio: ['ignore', log, log] });
    closeSync(log);
    child.once('error', reject);
    child.once('exit', (code, signal) => resolve(signal ? `signal ${signal}` : code));
  });
}

// Says what is going on: one line that counts on a terminal, two plain lines elsewhere.
async function step(title, work) {
  const begin = Date.now();
  const seconds = () => Math.round((Date.now() - begin) / 1000);
  const terminal = process.stdout.isTTY;
  running.add(title);
  let timer;
  if (terminal) {
    timer = setInterval(() => {
      process.stdout.write(`\r${[...running].join(', ')} ... ${seconds()} s`);
    }, 1000);
  } else {
    console.log(`${title} ...`);
  }
  try {
    return await work();
  } finally {
    clearInterval(timer);
    running.delete(title);
    console.log(`${terminal ? '\r\u001b[K' : ''}${title} ... ${seconds()} s`);
  }
}
const running = new Set();

const endOf = (file) => readIfThere(file).trimEnd().split('\n').slice(-20).join('\n');

async function installPackages() {
  const logFile = join(logs, 'npm.log');
  // Started by npm itself there is a path to it; a bare `npm` may be another one.
  const own = process.env.npm_execpath;
  const [npm, first] = own && basename(own) === 'npm-cli.js' ? [process.execPath, [own]] : ['npm', []];
  const options = ['--no-audit', '--no-fund', '--loglevel=error'];
  const attempts = [];
  // `npm ci` throws node_modules away first, which another run may be using: only for the first install.
  if (existsSync(join(root, 'package-lock.json')) && !existsSync(modules)) attempts.push('ci');
  // A lock file written on another platform can lack this one's optional packages; `npm ci` stops there.
  attempts.push('install');
  let result;
  for (const [index, verb] of attempts.entries()) {
    try {
      result = await run(npm, [...first, verb, ...options], logFile, index === 0 ? 'w' : 'a');
    } catch (error) {
      fail(`npm could not be started (${error.message}). It comes with Node: https://nodejs.org/en/download`);
    }
    if (result === 0) break;
  }
  if (result !== 0) {
    fail(`Installing the npm packages failed (${result}). ${logFile} ends:\n${endOf(logFile)}`);
  }
  const version = spawnSync(projectNode, ['--version'], { encoding: 'utf8' });
  if (version.status !== 0) {
    fail(
      `The npm package "node", which is the Node that everything here runs on, has no program at ${projectNode}. ` +
        'Its install script fetches it: if your npm settings say ignore-scripts, allow it for this folder with ' +
        '`npm config set ignore-scripts false --location project`, remove node_modules and try again.',
    );
  }
  // `npm install` may have completed the lock file, so the hash is taken afterwards.
  writeFileSync(packagesStamp, packagesHash());
}

// The first interpreter that is new enough; one that the pinned packages have been tried with is preferred.
function findPython() {
  const seen = [];
  const names = process.env.GRANARY_PYTHON
    ? [process.env.GRANARY_PYTHON]
    : ['python3', 'python3.13', 'python3.12', 'python3.11', 'python'];
  for (const name of names) {
    const probe = spawnSync(name, ['-c', 'import sys; print(*sys.version_info[:3])'], { encoding: 'utf8' });
    const match = /^(\d+) (\d+) (\d+)/.exec(probe.stdout ?? '');
    if (probe.status !== 0 || !match) continue;
    seen.push({
      name,
      major: Number(match[1]),
      minor: Number(match[2]),
      version: match.slice(1, 4).join('.'),
    });
  }
  const able = seen.filter(({ major, minor }) => major === 3 && minor >= pythonMinorMin);
  const chosen = able.find(({ minor }) => minor <= pythonMinorMax) ?? able[0];
  if (!chosen) {
    const found = seen.map(({ name, version }) => `${name} is ${version}`).join(', ') || 'none was found';
    fail(
      `Granary needs Python 3.${pythonMinorMin} to 3.${pythonMinorMax} (${found}).\n` +
        'Debian, Ubuntu: sudo apt install python3 python3-venv. macOS: brew install python@3.13.\n' +
        'Others: https://www.python.org/downloads. One at another place: GRANARY_PYTHON=/path/to/python3 npm start',
    );
  }
  const parts = spawnSync(chosen.name, ['-c', 'import venv, ensurepip'], { encoding: 'utf8' });
  if (parts.status !== 0) {
    fail(
      `${chosen.name} (${chosen.version}) lacks the module venv or ensurepip, which make virtual environments.\n` +
        `Debian, Ubuntu: sudo apt install python3.${chosen.minor}-venv`,
    );
  }
  return chosen.name;
}

async function installPython(python) {
  const logFile = join(logs, 'python.log');
  const works = existsSync(venvPython) && spawnSync(venvPython, ['-m', 'pip', '--version']).status === 0;
  if (!works) {
    const made = await run(python, ['-m', 'venv', venv], logFile, 'w');
    if (made !== 0) fail(`Making ${venv} failed (${made}). ${logFile} ends:\n${endOf(logFile)}`);
  }
  const pip = ['-m', 'pip', 'install', '--disable-pip-version-check', '--no-input'];
  const requirements = join(root, 'local', 'requirements.txt');
  const result = await run(venvPython, [...pip, '-r', requirements], logFile, works ? 'w' : 'a');
  if (result !== 0)
    fail(`Installing the Python packages failed (${result}). ${logFile} ends:\n${endOf(logFile)}`);
  const fits = await run(venvPython, [join(root, 'local', 'emulator.py'), '--check'], logFile, 'a');
  if (fits !== 0) fail(endOf(logFile));
  writeFileSync(venvStamp, venvHash());
}

async function install() {
  if (packagesAreFresh() && venvIsFresh()) return;
  await withLock(
    join(root, '.local', 'install.lock'),
    async () => {
      mkdirSync(logs, { recursive: true });
      const jobs = [];
      if (!venvIsFresh()) {
        const python = findPython();
        jobs.push(step('installing Python packages', () => installPython(python)));
      }
      if (!packagesAreFresh()) jobs.push(step('installing npm packages', installPackages));
      await Promise.all(jobs);
    },
    { onWait: () => console.log('another run is installing; waiting for it ...') },
  );
}

function runScript(script, args) {
  const path = [join(modules, '.bin'), process.env.PATH ?? ''].join(delimiter);
  const child = spawn(projectNode, [script, ...args], {
    cwd: root,
    stdio: 'inherit',
    env: { ...process.env, PATH: path },
  });
  child.once('error', (error) => fail(`${projectNode} could not be started: ${error.message}`));
  const forward = (signal) => {
    // A terminal sends Ctrl-C to the whole group, so the child has it already.
    if (signal !== 'SIGINT' || !process.stdin.isTTY) child.kill(signal);
  };
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'];
  for (const signal of signals) process.on(signal, forward);
  child.once('exit', (code, signal) => {
    if (signal === null) process.exit(code ?? 1);
    for (const name of signals) process.removeListener(name, forward);
    // End as the child did, so that whoever waits for this process sees the same.
    process.kill(process.pid, signal);
  });
}

if (Number(process.versions.node.split('.')[0]) < nodeMajorMin) {
  fail(
    `Granary needs Node ${nodeMajorMin} or later to start (this is ${process.versions.node}); ` +
      'it brings the one that it runs on. Get it from https://nodejs.org/en/download',
  );
}
if (process.platform === 'win32')
  fail('On Windows, Granary runs inside WSL: https://learn.microsoft.com/windows/wsl');
const [script, ...args] = process.argv.slice(2);
if (script === undefined) fail('Which script? Right form: node local/ensure.js <script> [arguments]');
await install();
runScript(join(root, script), args);
