// The emulator as a process: found again, kept or lost state, and never left behind.
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { callAws, callJson } from '../../../local/aws-call.ts';
import { checkEndpoint, findEmulator, startEmulator, stopEmulator } from '../../../local/emulator.ts';
import { listProcesses, portIsFree, processStarted, readRecords } from '../../../local/processes.js';

let stateFolder: string;

beforeEach(() => {
  stateFolder = mkdtempSync(join(tmpdir(), 'granary-emulator-'));
});

afterEach(async () => {
  await stopEmulator(stateFolder, 2000);
  rmSync(stateFolder, { recursive: true, force: true });
});

const bucket = (endpoint: string, method: 'PUT' | 'GET') =>
  callAws({ endpoint, service: 's3', method, path: '/kept-bucket' });
const parameter = (endpoint: string, operation: string, more = {}) =>
  callJson(endpoint, 'ssm', `AmazonSSM.${operation}`, { Name: '/kept', ...more });

test('it answers on loopback only, is found again, and a second start returns the same one', async () => {
  const first = await startEmulator({ stateFolder, port: 0 });
  expect(first).toMatchObject({ endpoint: `http://127.0.0.1:${first.port}`, started: true, state: 'new' });
  const [second, third] = await Promise.all([
    startEmulator({ stateFolder, port: 0 }),
    startEmulator({ stateFolder, port: 0 }),
  ]);
  expect([second, third]).toMatchObject([
    { pid: first.pid, started: false },
    { pid: first.pid, started: false },
  ]);
  expect(await findEmulator(stateFolder)).toMatchObject({ pid: first.pid, port: first.port });
});

test('an endpoint that a person names must be a URL at which something answers, and the message says what to do', async () => {
  for (const given of ['notaurl', 'ftp://127.0.0.1', '127.0.0.1:4566']) {
    await expect(checkEndpoint(given)).rejects.toThrow(`such as http://127.0.0.1:4566, got "${given}"`);
  }
  // What answers may be any server: LocalStack's pages are not this emulator's.
  const server = createServer((_, response) => response.writeHead(404).end());
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
  const endpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  expect(await checkEndpoint(`${endpoint}//`)).toBe(endpoint);
  await new Promise((done) => server.close(done));
  await expect(checkEndpoint(endpoint)).rejects.toThrow(
    /Nothing answers at .*ECONNREFUSED.*leave --endpoint out/,
  );
});

test('two starts at once make one emulator', async () => {
  const [first, second] = await Promise.all([
    startEmulator({ stateFolder, port: 0 }),
    startEmulator({ stateFolder, port: 0 }),
  ]);
  expect(first.pid).toBe(second.pid);
  expect([first.started, second.started].sort()).toEqual([false, true]);
});

test('after a stop nothing runs and the port is free', async () => {
  const { pid, port } = await startEmulator({ stateFolder, port: 0 });
  await stopEmulator(stateFolder);
  expect(processStarted(pid)).toBeUndefined();
  expect(await portIsFree(port)).toBe(true);
  expect(readRecords(stateFolder)).toEqual([]);
  expect(await findEmulator(stateFolder)).toBeUndefined();
});

test('state is kept over an orderly stop, at the same port', async () => {
  const first = await startEmulator({ stateFolder, port: 0, persist: true });
  await bucket(first.endpoint, 'PUT');
  await parameter(first.endpoint, 'PutParameter', { Value: 'yes', Type: 'String' });
  await stopEmulator(stateFolder);
  const second = await startEmulator({ stateFolder, persist: true });
  expect(second).toMatchObject({ state: 'kept', port: first.port, started: true });
  await bucket(second.endpoint, 'GET');
  expect(await parameter(second.endpoint, 'GetParameter')).toMatchObject({ Parameter: { Value: 'yes' } });
});

test('after a crash the half-written state is thrown away and that is said', async () => {
  const first = await startEmulator({ stateFolder, port: 0, persist: true });
  await bucket(first.endpoint, 'PUT');
  process.kill(first.pid, 'SIGKILL');
  await expect.poll(() => processStarted(first.pid)).toBeUndefined();
  const second = await startEmulator({ stateFolder, port: 0, persist: true });
  expect(second.state).toBe('lost');
  await expect(bucket(second.endpoint, 'GET')).rejects.toMatchObject({ status: 404 });
});

test('it sees nothing of the environment of its starter but the search path', async () => {
  process.env.GRANARY_TEST_SECRET = 'do not pass on';
  const { pid } = await startEmulator({ stateFolder, port: 0 });
  delete process.env.GRANARY_TEST_SECRET;
  if (!existsSync('/proc/self/environ')) return;
  const environment = readFileSync(`/proc/${pid}/environ`, 'utf8');
  expect(environment).not.toContain('GRANARY_TEST_SECRET');
  expect(environment).toContain(`TMPDIR=${join(stateFolder, 'temp')}`);
});

test('a start that fails says why, with the end of the log, and leaves nothing', async () => {
  const start = startEmulator({ stateFolder, port: 0, python: '/bin/false' });
  await expect(start).rejects.toThrow(/did not start \(exit code 1\). Its log .*emulator.log ends/);
  expect(readRecords(stateFolder)).toEqual([]);
});

test('one that is too slow is given up and ended', async () => {
  const start = startEmulator({ stateFolder, port: 0, deadlineMs: 0 });
  await expect(start).rejects.toThrow(/did not answer at .* within 0 ms/);
  expect(readRecords(stateFolder)).toEqual([]);
});

test('one on a leash ends when its starter is killed', async () => {
  const module = fileURLToPath(new URL('../../../local/emulator.ts', import.meta.url));
  const code = `
    const { startEmulator } = await import(${JSON.stringify(module)});
    const emulator = await startEmulator({ stateFolder: ${JSON.stringify(stateFolder)}, port: 0, leash: true });
    console.log(emulator.pid);
    setInterval(() => {}, 1000);
  `;
  const starter = spawn(process.execPath, ['--input-type=module', '-e', code], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const pid = await new Promise<number>((resolve) => {
    starter.stdout.once('data', (data: Buffer) => resolve(Number(data.toString())));
  });
  expect(processStarted(pid)).toBeDefined();
  starter.kill('SIGKILL');
  await expect.poll(() => processStarted(pid), { timeout: 20_000 }).toBeUndefined();
  expect(listProcesses().filter((row) => row.command.includes(stateFolder))).toEqual([]);
});

test('a taken port is refused by number', async () => {
  const { port } = await startEmulator({ stateFolder, port: 0 });
  const other = mkdtempSync(join(tmpdir(), 'granary-emulator-'));
  await expect(startEmulator({ stateFolder: other, port })).rejects.toThrow(
    `Port ${port} of 127.0.0.1 is taken`,
  );
  rmSync(other, { recursive: true, force: true });
});
