// Recorded processes: exactly those are ended, with their children, and locks outlive no holder.
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import {
  isRunning,
  listProcesses,
  pickFreePort,
  portIsFree,
  processStarted,
  readRecords,
  recordProcess,
  stopRecorded,
  withLock,
} from '../../../local/processes.js';

let folder: string;
const children: ChildProcess[] = [];

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'granary-processes-'));
});

afterEach(() => {
  for (const child of children.splice(0)) child.kill('SIGKILL');
  rmSync(folder, { recursive: true, force: true });
});

const forever = 'setInterval(() => {}, 1000);';

/** Starts a script as the leader of a group and waits until it says that it is ready; returns what it said. */
async function launch(code: string): Promise<{ pid: number; said: string }> {
  const file = join(folder, `script-${children.length}.cjs`);
  writeFileSync(file, code);
  const child = spawn(process.execPath, [file], { detached: true, stdio: ['ignore', 'pipe', 'inherit'] });
  children.push(child);
  const said = await new Promise<string>((resolve, reject) => {
    child.stdout?.once('data', (data: Buffer) => resolve(data.toString().trim()));
    child.once('exit', () => reject(new Error('ended early')));
  });
  return { pid: child.pid as number, said };
}

/** A script with a child in its own group and one in a session of its own; says their process ids. */
const family = `
  const { spawn } = require('node:child_process');
  const code = "console.log('up'); ${forever}";
  const make = (detached) => spawn(process.execPath, ['-e', code, __dirname], { detached, stdio: ['ignore', 'pipe', 'ignore'] });
  const made = [make(false), make(true)];
  Promise.all(made.map((child) => new Promise((up) => child.stdout.once('data', up)))).then(() => {
    console.log(made.map((child) => child.pid).join(' '));
  });
  ${forever}
`;

test('the process table has this process, its parent and its group', () => {
  const own = listProcesses().find((row) => row.pid === process.pid);
  expect(own).toMatchObject({ parent: process.ppid, started: processStarted(process.pid) });
  expect(own?.command).toContain('node');
});

test('a stop ends the recorded process and all that descends from it, in whatever group', async () => {
  const { pid, said } = await launch(family);
  const pids = [pid, ...said.split(' ').map(Number)];
  recordProcess(folder, { name: 'family', pid });
  expect(pids.map((one) => processStarted(one) !== undefined)).toEqual([true, true, true]);
  const results = await stopRecorded(folder);
  expect(results).toEqual([{ name: 'family', outcome: 'stopped', ended: 3 }]);
  expect(pids.map(processStarted)).toEqual([undefined, undefined, undefined]);
  expect(readRecords(folder)).toEqual([]);
});

test('a process that ignores SIGTERM is killed after the grace time', async () => {
  const { pid } = await launch(`process.on('SIGTERM', () => {}); console.log('up'); ${forever}`);
  recordProcess(folder, { name: 'deaf', pid });
  expect(await stopRecorded(folder, { graceMs: 200 })).toEqual([
    { name: 'deaf', outcome: 'killed', ended: 1 },
  ]);
  expect(processStarted(pid)).toBeUndefined();
});

test('children are ended after their leader has crashed', async () => {
  const { pid, said } = await launch(family);
  const [inGroup, alone] = said.split(' ').map(Number) as [number, number];
  recordProcess(folder, { name: 'crashed', pid });
  process.kill(pid, 'SIGKILL');
  await expect.poll(() => processStarted(pid)).toBeUndefined();
  const results = await stopRecorded(folder);
  expect(results[0]?.outcome).toBe('stopped');
  expect(processStarted(inGroup)).toBeUndefined();
  // Nothing ties one with a session of its own to a parent that is gone: such a child must watch its parent.
  process.kill(alone, 'SIGKILL');
});

test('a stranger that has got the process id meanwhile is left alone', async () => {
  const { pid } = await launch(`console.log('up'); ${forever}`);
  const entry = recordProcess(folder, { name: 'gone', pid });
  const processes = [{ ...entry, started: 'another time' }];
  writeFileSync(join(folder, 'processes.json'), JSON.stringify({ processes }));
  expect(processes.map(isRunning)).toEqual([false]);
  expect(await stopRecorded(folder)).toEqual([{ name: 'gone', outcome: 'was not running', ended: 0 }]);
  expect(processStarted(pid)).toBe(entry.started);
});

test('a stop can be repeated and needs no record', async () => {
  expect(await stopRecorded(folder)).toEqual([]);
  const { pid } = await launch(`console.log('up'); ${forever}`);
  recordProcess(folder, { name: 'one', pid });
  await stopRecorded(folder);
  expect(await stopRecorded(folder)).toEqual([]);
});

test('a stop by name leaves the others running and recorded', async () => {
  const first = await launch(`console.log('up'); ${forever}`);
  const second = await launch(`console.log('up'); ${forever}`);
  recordProcess(folder, { name: 'first', pid: first.pid });
  recordProcess(folder, { name: 'second', pid: second.pid });
  await stopRecorded(folder, { name: 'first' });
  expect(processStarted(first.pid)).toBeUndefined();
  expect(readRecords(folder)).toMatchObject([{ name: 'second', pid: second.pid }]);
  expect(readRecords(folder).map(isRunning)).toEqual([true]);
});

test('a process that has ended cannot be recorded', async () => {
  const { pid } = await launch("console.log('up');");
  await expect.poll(() => processStarted(pid)).toBeUndefined();
  expect(() => recordProcess(folder, { name: 'brief', pid })).toThrow(/ended before it could be recorded/);
});

test('a port is free or not', async () => {
  const port = await pickFreePort();
  expect(await portIsFree(port)).toBe(true);
  const server = createServer();
  await new Promise<void>((up) => server.listen(port, '127.0.0.1', up));
  expect(await portIsFree(port)).toBe(false);
  await new Promise((down) => server.close(down));
});

test('a lock admits one at a time and is gone afterwards', async () => {
  const file = join(folder, 'deep', 'one.lock');
  let inside = 0;
  let most = 0;
  const work = async () => {
    inside += 1;
    most = Math.max(most, inside);
    await new Promise((done) => setImmediate(done));
    inside -= 1;
  };
  await Promise.all([1, 2, 3, 4].map(() => withLock(file, work)));
  expect(most).toBe(1);
  expect(existsSync(file)).toBe(false);
});

test('a lock is given back when the work fails', async () => {
  const file = join(folder, 'one.lock');
  await expect(withLock(file, () => Promise.reject(new Error('on purpose')))).rejects.toThrow('on purpose');
  expect(await withLock(file, () => 'again')).toBe('again');
});

test('a lock whose holder has died is taken over', async () => {
  const file = join(folder, 'one.lock');
  mkdirSync(folder, { recursive: true });
  writeFileSync(file, JSON.stringify({ pid: process.pid, started: 'before this one', token: 'old' }));
  expect(await withLock(file, () => JSON.parse(readFileSync(file, 'utf8')).pid)).toBe(process.pid);
});

test('a lock whose holder lives is waited for, and the wait is announced and bounded', async () => {
  const file = join(folder, 'one.lock');
  let announced = 0;
  await withLock(file, async () => {
    const second = withLock(file, () => 'never', { onWait: () => announced++, deadlineMs: 0 });
    await expect(second).rejects.toThrow(/still held by another run/);
  });
  expect(announced).toBe(1);
});
