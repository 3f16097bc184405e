// Starts the emulator as a process of its own that outlives the starter, and finds it again.
import { spawn } from 'node:child_process';
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import {
  isRunning,
  pickFreePort,
  portIsFree,
  processStarted,
  readRecords,
  recordProcess,
  stopRecorded,
  withLock,
} from './processes.js';

export const projectFolder = fileURLToPath(new URL('..', import.meta.url));

/** The access key of everything that talks to the emulator; the CDK CLI caches the account under it. */
export const localAccessKey = 'granary-local';
export const localRegion = 'us-east-1';

const preferredPort = 4566;

export interface Emulator {
  /** `http://127.0.0.1:<port>`, without a slash at the end. */
  endpoint: string;
  port: number;
  pid: number;
  /** False if it ran already. */
  started: boolean;
  /** What is in it: nothing, the state of the last orderly stop, or nothing since the last run ended badly. */
  state: 'new' | 'kept' | 'lost';
  logFile: string;
}

export interface StartEmulatorOptions {
  /** Holds records, log, temporary files and, with `persist`, the state. Absolute. */
  stateFolder: string;
  /** A port of 127.0.0.1; 0 picks a free one. Default: that of the kept state, else 4566, else a free one. */
  port?: number;
  /** Keep buckets, tables, stacks and functions over a stop and start. */
  persist?: boolean;
  /** End the emulator when this process ends, however it ends. */
  leash?: boolean;
  /** How long it may take to answer, default 60,000. */
  deadlineMs?: number;
  /** Bound on processes of one function, default 8; further calls wait. */
  workersPerFunction?: number;
  /** Default: the one in the project's virtual environment. */
  python?: string;
}

/** The interpreter of the project's virtual environment. */
export const projectPython = join(projectFolder, '.local', 'venv', 'bin', 'python');

/** Environment of a client of the emulator: nothing of the user's own AWS settings is left in it. */
export function clientEnvironment(endpoint: string): Record<string, string> {
  const own = Object.entries(process.env).filter(
    (entry): entry is [string, string] => entry[1] !== undefined && !entry[0].startsWith('AWS_'),
  );
  return {
    ...Object.fromEntries(own),
    AWS_ENDPOINT_URL: endpoint,
    AWS_ENDPOINT_URL_S3: endpoint,
    AWS_ACCESS_KEY_ID: localAccessKey,
    AWS_SECRET_ACCESS_KEY: 'test',
    AWS_REGION: localRegion,
    AWS_DEFAULT_REGION: localRegion,
    AWS_EC2_METADATA_DISABLED: 'true',
    AWS_CONFIG_FILE: '/dev/null',
    AWS_SHARED_CREDENTIALS_FILE: '/dev/null',
    // The CDK CLI would ask a proxy for loopback addresses too.
    NO_PROXY: [process.env.NO_PROXY, '127.0.0.1'].filter(Boolean).join(','),
    no_proxy: [process.env.no_proxy, '127.0.0.1'].filter(Boolean).join(','),
  };
}

/**
 * The emulator that runs for this state folder, if one does and answers.
 *
 * @param stateFolder absolute
 */
export async function findEmulator(stateFolder: string): Promise<Emulator | undefined> {
  const record = readRecords(stateFolder).find((entry) => entry.name === 'emulator');
  if (record?.port === undefined || !isRunning(record)) return undefined;
  const endpoint = `http://127.0.0.1:${record.port}`;
  if (!(await answers(endpoint))) return undefined;
  const { port, pid } = record;
  return { endpoint, port, pid, started: false, state: 'kept', logFile: logFileOf(stateFolder) };
}

/**
 * Start the emulator for a state folder, or return the one that runs there.
 *
 * It binds 127.0.0.1 only, gets an environment of its own and is recorded in `<stateFolder>/processes.json`
 * before anything else happens; `stopEmulator` and `npm run local:stop` end it.
 * @throws if it does not answer in time or ends early: the message has the end of its log
 */
export async function startEmulator(options: StartEmulatorOptions): Promise<Emulator> {
  return withLock(join(options.stateFolder, 'start.lock'), async () => {
    const running = await findEmulator(options.stateFolder);
    if (running) return running;
    // What is left of a run that ended badly: a hung emulator, or workers without one.
    await stopRecorded(options.stateFolder, { name: 'emulator' });
    const state = prepareState(options);
    for (let attempt = 1; ; attempt++) {
      const port = await choosePort(options, state);
      const emulator = await launch(options, port, state);
      if (emulator) return emulator;
      // A picked port can be taken by someone else before the emulator binds it.
      if (options.port !== 0 || attempt === 3) throw new Error(`Port ${port} of 127.0.0.1 is taken`);
    }
  });
}

/** End the emulator of a state folder and all its children; safe to repeat. */
export async function stopEmulator(stateFolder: string, graceMs = 10_000): Promise<void> {
  await stopRecorded(stateFolder, { graceMs, name: 'emulator' });
}

const logFileOf = (stateFolder: string) => join(stateFolder, 'emulator.log');
const dataFolderOf = (stateFolder: string) => join(stateFolder, 'emulator');
const portFileOf = (stateFolder: string) => join(dataFolderOf(stateFolder), 'port');

// The launcher leaves `saved` after an orderly stop. Without it the objects on disk and the rest, which is
// written only at a stop, do not belong together: nothing of it can be used.
function prepareState({ stateFolder, persist }: StartEmulatorOptions): Emulator['state'] {
  const data = dataFolderOf(stateFolder);
  const kept = persist === true && existsSync(join(data, 'saved'));
  const lost = persist === true && !kept && existsSync(data);
  if (!kept) rmSync(data, { recursive: true, force: true });
  mkdirSync(join(data, 'state'), { recursive: true });
  mkdirSync(join(data, 's3'), { recursive: true });
  const temp = join(stateFolder, 'temp');
  rmSync(temp, { recursive: true, force: true });
  mkdirSync(temp, { recursive: true });
  // Node workers are CommonJS scripts in this folder; under a package of type "module" they would not start.
  writeFileSync(join(temp, 'package.json'), '{"type":"commonjs"}\n');
  return kept ? 'kept' : lost ? 'lost' : 'new';
}

async function choosePort(options: StartEmulatorOptions, state: Emulator['state']): Promise<number> {
  if (options.port) return options.port;
  if (state === 'kept') {
    // Queue addresses in the stored functions' environment name the port.
    const port = Number(readFileSync(portFileOf(options.stateFolder), 'utf8'));
    if (await portIsFree(port)) return port;
    throw new Error(
      `Port ${port} of 127.0.0.1, which the stored state was made for, is taken by another process. ` +
        'End that one, or throw the state away with `npm run local:reset`.',
    );
  }
  if (options.port === undefined && (await portIsFree(preferredPort))) return preferredPort;
  return pickFreePort();
}

async function launch(
  options: StartEmulatorOptions,
  port: number,
  state: Emulator['state'],
): Promise<Emulator | undefined> {
  const { stateFolder, deadlineMs = 60_000 } = options;
  if (!(await portIsFree(port))) return undefined;
  const data = dataFolderOf(stateFolder);
  const logFile = logFileOf(stateFolder);
  const log = openSync(logFile, 'w', 0o600);
  const child = spawn(options.python ?? projectPython, [join(projectFolder, 'local', 'emulator.py')], {
    cwd: stateFolder,
    detached: true,
    env: emulatorEnvironment(options, port),
    stdio: [options.leash ? 'pipe' : 'ignore', log, log],
  });
  closeSync(log);
  const ended = new Promise<string>((resolve) => {
    child.once('error', (error) => resolve(error.message));
    child.once('exit', (code, signal) => resolve(signal ? `ended by ${signal}` : `exit code ${code}`));
  });
  let early: string | undefined;
  void ended.then((reason) => {
    early = reason;
  });
  const { pid } = child;
  if (pid === undefined) throw new Error(`The emulator could not be started: ${await ended}`);
  if (processStarted(pid) !== undefined) recordProcess(stateFolder, { name: 'emulator', pid, port });
  else await ended;
  writeFileSync(portFileOf(stateFolder), `${port}\n`);
  const endpoint = `http://127.0.0.1:${port}`;
  const deadline = Date.now() + deadlineMs;
  while (!(await answers(endpoint))) {
    const text = readFileSync(logFile, 'utf8');
    if (early !== undefined) {
      await stopRecorded(stateFolder, { name: 'emulator' });
      if (/already in use/.test(text)) return undefined;
      throw new Error(
        `The emulator did not start (${early}). Its log ${logFile} ends:\n${lastLines(text, 20)}`,
      );
    }
    if (Date.now() > deadline) {
      await stopRecorded(stateFolder, { name: 'emulator', graceMs: 1000 });
      throw new Error(
        `The emulator did not answer at ${endpoint} within ${deadlineMs} ms. ` +
          `Its log ${logFile} ends:\n${lastLines(text, 20)}`,
      );
    }
    await delay(100);
  }
  // From here on the starter may end without waiting for it.
  child.unref();
  if (child.stdin && 'unref' in child.stdin) (child.stdin as unknown as { unref(): void }).unref();
  if (existsSync(join(data, 'saved'))) rmSync(join(data, 'saved'));
  return { endpoint, port, pid, started: true, state, logFile };
}

// Functions inherit all of it, so it holds nothing of the user's: no keys, no home folder, no proxy.
function emulatorEnvironment(options: StartEmulatorOptions, port: number): Record<string, string> {
  const { stateFolder } = options;
  const temp = join(stateFolder, 'temp');
  const data = dataFolderOf(stateFolder);
  const path = [join(projectFolder, 'node_modules', '.bin'), ...(process.env.PATH ?? '').split(delimiter)];
  return {
    PATH: path.filter((folder) => folder !== '').join(delimiter),
    HOME: temp,
    TMPDIR: temp,
    LANG: 'C.UTF-8',
    PYTHONUTF8: '1',
    BIND_HOST: '127.0.0.1',
    GATEWAY_PORT: String(port),
    MINISTACK_HOST: '127.0.0.1',
    LAMBDA_EXECUTOR: 'local',
    LAMBDA_ACCOUNT_CONCURRENCY: '1000',
    GRANARY_WORKERS_PER_FUNCTION: String(options.workersPerFunction ?? 8),
    GRANARY_LEASH: options.leash ? '1' : '',
    NODE_PATH: join(projectFolder, 'node_modules'),
    AWS_EC2_METADATA_DISABLED: 'true',
    ...(options.persist
      ? { PERSIST_STATE: '1', S3_PERSIST: '1', STATE_DIR: join(data, 'state'), S3_DATA_DIR: join(data, 's3') }
      : {}),
    ...(options.persist ? { GRANARY_SAVED_FILE: join(data, 'saved') } : {}),
  };
}

async function answers(endpoint: string): Promise<boolean> {
  try {
    const response = await fetch(`${endpoint}/_ministack/health`, { signal: AbortSignal.timeout(2000) });
    await response.arrayBuffer();
    return response.ok;
  } catch {
    // Refused or too slow: not up (yet).
    return false;
  }
}

/**
 * Makes sure that something answers at an endpoint that a person named.
 *
 * @returns the URL without slashes at its end
 * @throws Error that says what was got, and what to do
 */
export async function checkEndpoint(given: string): Promise<string> {
  const form = 'an address such as http://127.0.0.1:4566';
  const url = URL.canParse(given) ? new URL(given) : undefined;
  if (!url || !['http:', 'https:'].includes(url.protocol)) {
    throw new Error(`--endpoint is ${form}, got "${given}".`);
  }
  const endpoint = given.replace(/\/+$/, '');
  try {
    // Any answer will do: LocalStack has its health page elsewhere.
    const response = await fetch(`${endpoint}/_localstack/health`, { signal: AbortSignal.timeout(5000) });
    await response.arrayBuffer();
  } catch (error) {
    const { cause, message } = error as Error & { cause?: { code?: string; message?: string } };
    throw new Error(
      `Nothing answers at ${endpoint} (${cause?.code ?? cause?.message ?? message}). Start an emulator there, name the address of ` +
        'one that runs, or leave --endpoint out: npm start brings its own.',
      { cause: error },
    );
  }
  return endpoint;
}

/** The last lines of a text, for a message. */
export function lastLines(text: string, count: number): string {
  return text.trimEnd().split('\n').slice(-count).join('\n');
}
