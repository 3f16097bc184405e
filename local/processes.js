// Records the processes that were started under a state folder, and ends exactly those: never by name.
// Plain JavaScript on built-ins, because `npm run local:stop` must work before anything is installed.
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import {
  existsSync,
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { connect, createServer } from 'node:net';
import { dirname, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

const linux = existsSync('/proc/self/stat');

/** @param {number} pid @returns {import('./processes.js').ProcessRow | undefined} */
function readProc(pid) {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, 'utf8');
    // The command name stands in parentheses and may hold spaces and parentheses of its own.
    const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
    const [state, parent, group] = fields;
    if (state === 'Z' || state === 'X') return undefined;
    return {
      pid,
      parent: Number(parent),
      group: Number(group),
      started: `${bootId()}:${fields[19]}`,
      command: readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ').trim(),
    };
  } catch (error) {
    // It ended between the listing and the reading.
    if (error.code === 'ENOENT' || error.code === 'ESRCH') return undefined;
    throw error;
  }
}

let knownBootId;
// Start times on Linux count from boot, so the boot belongs to the identity.
function bootId() {
  knownBootId ??= readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  return knownBootId;
}

export function listProcesses() {
  if (linux) {
    return readdirSync('/proc')
      .filter((name) => /^\d+$/.test(name))
      .map((name) => readProc(Number(name)))
      .filter((row) => row !== undefined);
  }
  const output = execFileSync('ps', ['-axo', 'pid=,ppid=,pgid=,stat=,lstart=,command='], {
    encoding: 'utf8',
    env: { PATH: process.env.PATH, LC_ALL: 'C' },
    maxBuffer: 64 * 1024 * 1024,
  });
  return output.split('\n').flatMap((line) => {
    const match = /^\s*(\d+)\s+(\d+)\s+(\d+)\s+(\S+)\s+(\w+\s+\w+\s+\d+\s+\S+\s+\d+)\s+(.*)$/.exec(line);
    if (!match || match[4].startsWith('Z')) return [];
    const [pid, parent, group] = match.slice(1, 4).map(Number);
    return [{ pid, parent, group, started: match[5], command: match[6] }];
  });
}

export function processStarted(pid) {
  if (linux) return readProc(pid)?.started;
  return listProcesses().find((row) => row.pid === pid)?.started;
}

export function isRunning(entry) {
  return processStarted(entry.pid) === entry.started;
}

const recordFile = (stateFolder) => join(stateFolder, 'processes.json');

export function readRecords(stateFolder) {
  const file = recordFile(stateFolder);
  if (!existsSync(file)) return [];
  return JSON.parse(readFileSync(file, 'utf8')).processes;
}

function writeRecords(stateFolder, processes) {
  mkdirSync(stateFolder, { recursive: true });
  const draft = `${recordFile(stateFolder)}.${process.pid}`;
  writeFileSync(draft, `${JSON.stringify({ processes }, null, 2)}\n`, { mode: 0o600 });
  renameSync(draft, recordFile(stateFolder));
}

export function recordProcess(stateFolder, { name, pid, port }) {
  const started = processStarted(pid);
  if (started === undefined) throw new Error(`${name} (process ${pid}) ended before it could be recorded`);
  const entry = { name, pid, group: pid, started, ...(port === undefined ? {} : { port }) };
  writeRecords(stateFolder, [...readRecords(stateFolder).filter((other) => other.name !== name), entry]);
  return entry;
}

function forgetProcess(stateFolder, entry) {
  const kept = readRecords(stateFolder).filter(
    (other) => !(other.name === entry.name && other.started === entry.started),
  );
  if (kept.length > 0) writeRecords(stateFolder, kept);
  else rmSync(recordFile(stateFolder), { force: true });
}

// What runs for an entry: its group, and what descends from the group under another (a plugin's own session).
function familyOf(entry, stateFolder, rows) {
  const leader = rows.find((row) => row.pid === entry.pid);
  const group = rows.filter((row) => row.group === entry.group);
  if (leader && leader.started !== entry.started) return [];
  // Without its leader, the group's number may have been given to strangers: ours run code from our folder.
  if (!leader && !group.some((row) => row.command.includes(stateFolder))) return [];
  const family = new Map(group.map((row) => [row.pid, row]));
  for (let grew = true; grew; ) {
    grew = false;
    for (const row of rows) {
      if (family.has(row.pid) || !family.has(row.parent)) continue;
      family.set(row.pid, row);
      grew = true;
    }
  }
  family.delete(process.pid);
  return [...family.values()];
}

function signalEach(rows, signal) {
  for (const row of rows) {
    if (processStarted(row.pid) !== row.started) continue;
    try {
      process.kill(row.pid, signal);
    } catch (error) {
      if (error.code !== 'ESRCH') throw error;
    }
  }
}

export function portIsFree(port) {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: '127.0.0.1', port });
    socket.once('connect', () => {
      socket.destroy();
      resolve(false);
    });
    socket.once('error', (error) => {
      if (error.code === 'ECONNREFUSED') resolve(true);
      else reject(error);
    });
  });
}

export function pickFreePort() {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

async function stopOne(stateFolder, entry, graceMs) {
  const seen = new Map();
  const family = () => {
    const rows = listProcesses();
    for (const row of familyOf(entry, stateFolder, rows)) seen.set(row.pid, row);
    // Members keep counting after their parent has gone and `init` has adopted them.
    return rows.filter((row) => seen.get(row.pid)?.started === row.started);
  };
  let left = family();
  if (left.length === 0) return { name: entry.name, outcome: 'was not running', ended: 0 };
  // The leader saves its state on SIGTERM; the others of the group end with it.
  const leader = left.filter((row) => row.pid === entry.pid);
  signalEach(leader.length > 0 ? leader : left, 'SIGTERM');
  let signalled = leader.length === 0;
  const deadline = Date.now() + graceMs;
  while (left.length > 0 && Date.now() < deadline) {
    await delay(50);
    left = family();
    if (!signalled && !left.some((row) => row.pid === entry.pid)) {
      signalEach(left, 'SIGTERM');
      signalled = true;
    }
  }
  const forced = left.length > 0;
  for (let attempt = 0; left.length > 0 && attempt < 100; attempt++) {
    signalEach(left, 'SIGKILL');
    await delay(20);
    left = family();
  }
  if (left.length > 0) {
    throw new Error(`${entry.name}: these processes did not end: ${left.map((row) => row.pid).join(', ')}`);
  }
  return { name: entry.name, outcome: forced ? 'killed' : 'stopped', ended: seen.size };
}

export async function stopRecorded(stateFolder, { graceMs = 10_000, name } = {}) {
  const results = [];
  for (const entry of readRecords(stateFolder)) {
    if (name !== undefined && entry.name !== name) continue;
    const result = await stopOne(stateFolder, entry, graceMs);
    if (result.outcome !== 'was not running' && entry.port !== undefined && !(await portIsFree(entry.port))) {
      throw new Error(`${entry.name} has ended, but something else now listens on port ${entry.port}`);
    }
    forgetProcess(stateFolder, entry);
    results.push(result);
  }
  return results;
}

export async function withLock(file, work, { onWait = () => {}, deadlineMs = 900_000 } = {}) {
  mkdirSync(dirname(file), { recursive: true });
  const token = randomBytes(8).toString('hex');
  const draft = `${file}.${token}`;
  writeFileSync(draft, JSON.stringify({ pid: process.pid, started: processStarted(process.pid), token }));
  try {
    const deadline = Date.now() + deadlineMs;
    for (let waited = false; !tryLink(draft, file); ) {
      if (breakStaleLock(file, token)) continue;
      if (!waited) onWait();
      waited = true;
      if (Date.now() > deadline)
        throw new Error(`${file} is still held by another run; remove it if none is`);
      await delay(200);
    }
  } finally {
    unlinkSync(draft);
  }
  try {
    return await work();
  } finally {
    if (readHolder(file)?.token === token) unlinkSync(file);
  }
}

// A link appears with its content or not at all, so nobody reads a half-written lock.
function tryLink(draft, file) {
  try {
    linkSync(draft, file);
    return true;
  } catch (error) {
    if (error.code === 'EEXIST') return false;
    throw error;
  }
}

function readHolder(file) {
  try {
    return JSON.parse(readFileSync(file, 'utf8'));
  } catch (error) {
    if (error.code === 'ENOENT' || error instanceof SyntaxError) return undefined;
    throw error;
  }
}

function breakStaleLock(file, token) {
  const holder = readHolder(file);
  if (holder === undefined || processStarted(holder.pid) === holder.started) return false;
  const aside = `${file}.stale.${token}`;
  try {
    renameSync(file, aside);
  } catch (error) {
    if (error.code === 'ENOENT') return true;
    throw error;
  }
  // Another run may have broken the same lock and taken it since: then what was moved goes back.
  if (readHolder(aside)?.token !== holder.token) tryLink(aside, file);
  unlinkSync(aside);
  return true;
}
