// `npm test`: every level of the tests, the quick ones first, each with one line; then "N passed, N failed".
//
//   npm test                          all levels
//   npm test -- unit python           these levels only
//   npm test -- emulator webhooks     of the Vitest levels, only files whose path holds one of the other words
//
// The level "emulator" starts an emulator of its own on a free port and deploys to it. Where GRANARY_TEST_OUTPUTS names
// a file, the stack that it describes (test/emulator/stack.ts) is tested instead, be it on AWS.
import { spawn } from 'node:child_process';
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { bootstrapSecret } from '../local/bootstrap-key.ts';
import { deploy } from '../local/deploy.ts';
import type { Emulator } from '../local/emulator.ts';
import {
  clientEnvironment,
  lastLines,
  projectFolder,
  projectPython,
  startEmulator,
  stopEmulator,
} from '../local/emulator.ts';
import { listProcesses, portIsFree } from '../local/processes.js';
import type { DeployedStack } from './emulator/stack.ts';
import type { Counts } from './reporter.ts';

/** Everything that a run writes is in here, and is gone at its end unless something failed. */
const folder = mkdtempSync(join(tmpdir(), 'granary-test-'));
/** The temporary folder of all children: what is left in it at the end was forgotten by somebody. */
const scratch = join(folder, 'tmp');
mkdirSync(scratch);

const minute = 60_000;
const tool = (path: string) => join(projectFolder, 'node_modules', path);

interface Running {
  readonly name: string;
  readonly program: string;
  readonly args: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** A bound on hanging. */
  readonly deadlineMs: number;
}

const children = new Set<number>();

function endChildren(): void {
  for (const pid of children) {
    try {
      process.kill(-pid, 'SIGKILL');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
    }
  }
}

/** Runs a program with its output in a file. @returns what went wrong, if anything did, and the output */
async function run({
  name,
  program,
  args,
  env = {},
  deadlineMs,
}: Running): Promise<{ problem?: string; output: string }> {
  const logFile = join(folder, `${name}.log`);
  const log = openSync(logFile, 'a');
  const child = spawn(program, args, {
    cwd: projectFolder,
    // A group of its own, so that a test that hangs is ended together with what it started.
    detached: true,
    stdio: ['ignore', log, log],
    env: {
      ...process.env,
      PATH: [tool('.bin'), process.env.PATH ?? ''].join(delimiter),
      TMPDIR: scratch,
      NO_COLOR: '1',
      FORCE_COLOR: '0',
      PYTHONDONTWRITEBYTECODE: '1',
      // It would be of no use: the folder that it is in by default is new in each run.
      NODE_DISABLE_COMPILE_CACHE: '1',
      CDK_DISABLE_CLI_TELEMETRY: 'true',
      ...env,
    },
  });
  closeSync(log);
  let late = false;
  const timer = setTimeout(() => {
    late = true;
    if (child.pid !== undefined) process.kill(-child.pid, 'SIGKILL');
  }, deadlineMs);
  const problem = await new Promise<string | undefined>((resolve) => {
    child.once('spawn', () => children.add(child.pid!));
    child.once('error', (error) => resolve(error.message));
    child.once('exit', (code, signal) =>
      resolve(code === 0 ? undefined : signal ? `ended by ${signal}` : `exit code ${code}`),
    );
  });
  clearTimeout(timer);
  if (child.pid !== undefined) children.delete(child.pid);
  const output = readFileSync(logFile, 'utf8');
  if (problem === undefined) return { output };
  return { problem: late ? `took longer than ${deadlineMs / minute} minutes` : problem, output };
}

const one = (name: string, problem: string | undefined, output: string): Counts =>
  problem === undefined
    ? { passed: 1, failures: [], skipped: [] }
    : { passed: 0, failures: [{ name, message: `${problem}\n${lastLines(output, 40)}` }], skipped: [] };

/** A check that passes or fails as a whole. */
const check =
  (name: string, args: readonly string[], deadlineMs = 5 * minute) =>
  async (): Promise<Counts> => {
    const { problem, output } = await run({ name, program: process.execPath, args, deadlineMs });
    return one(name, problem, output);
  };

/** Adds a failure where a program ended badly although no test of it failed. */
function withProblem(counts: Counts, name: string, problem: string | undefined, output: string): Counts {
  if (problem === undefined || counts.failures.length > 0) return counts;
  return { ...counts, failures: [{ name, message: `${problem}\n${lastLines(output, 40)}` }] };
}

async function vitest(
  name: string,
  files: readonly string[],
  config: string,
  env: Record<string, string>,
  deadlineMs: number,
): Promise<Counts> {
  const report = join(folder, `${name}.json`);
  const args = [
    tool('vitest/vitest.mjs'),
    'run',
    '--config',
    config,
    '--reporter=default',
    `--reporter=${join(projectFolder, 'test', 'reporter.ts')}`,
    ...files,
  ];
  const { problem, output } = await run({
    name,
    program: process.execPath,
    args,
    deadlineMs,
    env: { ...env, GRANARY_TEST_REPORT: report },
  });
  const counts: Counts = existsSync(report)
    ? (JSON.parse(readFileSync(report, 'utf8')) as Counts)
    : {
        passed: 0,
        failures: [{ name, message: `${problem ?? 'no report was written'}\n${lastLines(output, 40)}` }],
        skipped: [],
      };
  return withProblem(counts, name, problem, output);
}

/** The unit tests, with LanceDB installed for its suite where the package registry answers. */
async function unitLevel(files: readonly string[]): Promise<Counts> {
  if (files.length === 0) {
    const { problem, output } = await run({
      name: 'lance',
      program: process.execPath,
      args: [join(projectFolder, 'layers', 'lance.ts'), '--tests'],
      deadlineMs: 3 * minute,
    });
    // Its suite is then skipped, and says so.
    if (problem !== undefined) print(`     LanceDB was not installed: ${problem}\n${lastLines(output, 3)}`);
  }
  return vitest('unit', files, join(projectFolder, 'vitest.config.ts'), {}, 15 * minute);
}

async function pytest(): Promise<Counts> {
  const report = join(folder, 'python.xml');
  const args = [
    '-m',
    'pytest',
    '-q',
    '--color=no',
    `--basetemp=${join(folder, 'pytest')}`,
    `--junitxml=${report}`,
    'test/python',
  ];
  const { problem, output } = await run({
    name: 'python',
    program: projectPython,
    args,
    deadlineMs: 10 * minute,
  });
  const counts = existsSync(report)
    ? readJunit(readFileSync(report, 'utf8'))
    : { passed: 0, failures: [], skipped: [] };
  return withProblem(counts, 'python', problem, output);
}

/** @see https://docs.pytest.org/en/stable/how-to/output.html: one `testcase` each, with a child where it did not pass */
function readJunit(xml: string): Counts {
  const plain = (text = '') =>
    text
      .replace(/&#10;/g, '\n')
      .replace(/&lt;/g, '<')
      .replace(/&gt;/g, '>')
      .replace(/&quot;/g, '"')
      .replace(/&apos;/g, "'")
      .replace(/&amp;/g, '&');
  let passed = 0;
  const failures: { name: string; message: string }[] = [];
  const skipped: { name: string; reason: string }[] = [];
  for (const [, attributes = '', inner = ''] of xml.matchAll(
    /<testcase\b([^>]*?)(?:\/>|>([\s\S]*?)<\/testcase>)/g,
  )) {
    const attribute = (text: string, key: string) => plain(new RegExp(`\\b${key}="([^"]*)"`).exec(text)?.[1]);
    const name = `${attribute(attributes, 'classname')} > ${attribute(attributes, 'name')}`;
    const bad = /<(?:failure|error)\b[^>]*?(?:\/>|>([\s\S]*?)<\/(?:failure|error)>)/.exec(inner);
    const left = /<skipped\b([^>]*)/.exec(inner);
    if (bad) failures.push({ name, message: plain(bad[1]) });
    else if (left) skipped.push({ name, reason: attribute(left[1] ?? '', 'message') || 'no reason given' });
    else passed++;
  }
  return { passed, failures, skipped };
}

let emulator: Emulator | undefined;
const emulatorFolder = join(folder, 'emulator');

/** Starts an emulator and deploys to it. @returns the file that describes the stack */
async function deployStack(note: (text: string) => void): Promise<string> {
  note('starting the emulator');
  emulator = await startEmulator({ stateFolder: emulatorFolder, port: 0, leash: true });
  const { endpoint } = emulator;
  // The synth of the deployment runs in this process's environment.
  process.env.TMPDIR = scratch;
  const deployment = await deploy({ endpoint, stateFolder: emulatorFolder, onStep: note });
  const described: DeployedStack = {
    endpoint,
    base_url: deployment.baseUrl,
    rest_api_id: deployment.restApiId,
    outputs: deployment.outputs,
    bootstrap_secret: await bootstrapSecret(endpoint, deployment),
    emulator_pid: emulator.pid,
  };
  const file = join(folder, 'stack.json');
  writeFileSync(file, JSON.stringify(described, null, 2), { mode: 0o600 });
  return file;
}

let stopping: Promise<string[]> | undefined;

/** Ends the emulator, once. @returns what it left behind */
function stopStack(): Promise<string[]> {
  stopping ??= stopEmulatorAndLook();
  return stopping;
}

async function stopEmulatorAndLook(): Promise<string[]> {
  if (!emulator) return [];
  const { port, pid } = emulator;
  await stopEmulator(emulatorFolder);
  const left = listProcesses()
    .filter((row) => row.pid !== process.pid && row.command.includes(emulatorFolder))
    .map((row) => `process ${row.pid}: ${row.command.slice(0, 200)}`);
  if (listProcesses().some((row) => row.pid === pid)) left.push(`the emulator, process ${pid}`);
  if (!(await portIsFree(port))) left.push(`something that listens on port ${port}`);
  return left;
}

async function emulatorLevel(files: readonly string[]): Promise<Counts> {
  const given = process.env.GRANARY_TEST_OUTPUTS;
  const config = join(projectFolder, 'test', 'emulator', 'vitest.config.ts');
  if (given !== undefined) return vitest('emulator', files, config, {}, 60 * minute);
  const begin = performance.now();
  try {
    const file = await deployStack(() => {});
    print(`     deployed to an emulator of its own (${seconds(performance.now() - begin)})`);
    const { endpoint } = JSON.parse(readFileSync(file, 'utf8')) as DeployedStack;
    const env = { ...clientEnvironment(endpoint!), GRANARY_TEST_OUTPUTS: file };
    const counts = await vitest('emulator', files, config, env, 30 * minute);
    const left = await stopStack();
    return {
      passed: counts.passed + (left.length === 0 ? 1 : 0),
      failures: [
        ...counts.failures,
        ...(left.length === 0
          ? []
          : [{ name: 'the emulator leaves nothing behind', message: left.join('\n') }]),
      ],
      skipped: counts.skipped,
    };
  } catch (error) {
    return {
      passed: 0,
      failures: [{ name: 'deployment to the emulator', message: (error as Error).stack ?? String(error) }],
      skipped: [],
    };
  } finally {
    await stopStack();
  }
}

/** `cdk synth` as before a deployment to AWS; a rule of cdk-nag that nothing acknowledges fails it. */
const synth = check('synth', [
  tool('aws-cdk/bin/cdk'),
  'synth',
  '--quiet',
  '--no-notices',
  '-c',
  'stage=prod',
  '--output',
  join(folder, 'cdk.out'),
]);

const levels: Readonly<Record<string, (files: readonly string[]) => Promise<Counts>>> = {
  types: check('types', [tool('typescript/bin/tsc'), '--noEmit', '-p', '.']),
  lint: check('lint', [tool('@biomejs/biome/bin/biome'), 'check', '--max-diagnostics=50']),
  unit: unitLevel,
  python: pytest,
  synth,
  emulator: emulatorLevel,
};

const print = (text: string) => process.stdout.write(`${text}\n`);
const seconds = (ms: number) => `${(ms / 1000).toFixed(1)} s`;
const indented = (text: string) => text.replaceAll(/^/gm, '       ');

async function main(): Promise<number> {
  const words = process.argv.slice(2);
  const chosen = words.filter((word) => Object.hasOwn(levels, word));
  const files = words.filter((word) => !Object.hasOwn(levels, word));
  const unknown = files.filter((word) => word.startsWith('-'));
  if (unknown.length > 0) {
    print(
      `Unknown option ${unknown[0]}. Right form: npm test -- [${Object.keys(levels).join('|')}]... [part of a test file's path]...`,
    );
    return 2;
  }
  let passed = 0;
  let failed = 0;
  const skips: string[] = [];
  for (const [name, level] of Object.entries(levels)) {
    if (
      chosen.length > 0 ? !chosen.includes(name) : files.length > 0 && name !== 'unit' && name !== 'emulator'
    )
      continue;
    const begin = performance.now();
    const counts = await level(files);
    if (interrupted) return 130;
    passed += counts.passed;
    failed += counts.failures.length;
    const skipped = counts.skipped.length > 0 ? `, ${counts.skipped.length} skipped` : '';
    const verdict = counts.failures.length > 0 ? 'FAIL' : 'ok  ';
    print(
      `${verdict} ${name}: ${counts.passed} passed, ${counts.failures.length} failed${skipped} (${seconds(performance.now() - begin)})`,
    );
    for (const { name: test, message } of counts.failures)
      print(`     failed: ${test}\n${indented(message)}`);
    for (const skip of counts.skipped) skips.push(`     skipped: ${skip.name}: ${skip.reason}`);
  }
  for (const line of skips) print(line);
  // The CDK library synthesises apps of template tests into folders of these names and leaves them.
  const left = readdirSync(scratch).filter((name) => !name.startsWith('cdk.out'));
  if (left.length === 0) passed++;
  else failed++;
  if (left.length > 0) print(`     failed: temporary files were left behind: ${left.join(', ')}`);
  if (failed === 0) rmSync(folder, { recursive: true, force: true });
  else print(`     The logs are in ${folder}`);
  print(`${passed} passed, ${failed} failed`);
  return failed === 0 ? 0 : 1;
}

let interrupted = false;
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.once(signal, () => {
    interrupted = true;
    endChildren();
    void stopStack().finally(() => {
      rmSync(folder, { recursive: true, force: true });
      process.exit(130);
    });
  });
}

process.exitCode = await main().catch((error: Error) => {
  endChildren();
  print(`The test run itself failed: ${error.stack}`);
  print('0 passed, 1 failed');
  return 1;
});
