// Deploys the CDK app to an emulator: synth, bootstrap, deploy, fill in; nothing if nothing has changed.
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  appendFileSync,
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { delimiter, join, relative } from 'node:path';
import { AwsCallError, callAws, callJson } from './aws-call.ts';
import { clientEnvironment, lastLines, localRegion, projectFolder } from './emulator.ts';
import { fillIn } from './fill-in.ts';

export interface DeployOptions {
  endpoint: string;
  /** Name of the stage in `infra/stage.ts`; default `local`. */
  stage?: string;
  /** Holds the outputs, the log and the note of what was deployed. Absolute. */
  stateFolder: string;
  /** Where the synth writes; default `<stateFolder>/cdk.out`. */
  outDir?: string;
  /** Called at the begin of each step with its name, for a person. */
  onStep?: (step: string) => void;
  /** Root of the app, with `cdk.json`; default this project. */
  appFolder?: string;
}

export interface Deployment {
  /** Stack name to its outputs. */
  outputs: Record<string, Record<string, string>>;
  restApiId: string;
  /** Without a slash at the end, so that `<baseUrl>/v1/...` answers. */
  baseUrl: string;
  /** False if what is deployed was up to date. */
  changed: boolean;
}

const account = '000000000000';
const apiStage = 'api';
const deployedPaths = ['infra', 'functions', 'layers', 'cdk.json', 'package-lock.json', 'local/fill-in.ts'];

/** Minutes are a bound on hanging, not an estimate. */
const timeoutsMs = { synth: 180_000, bootstrap: 120_000, deploy: 420_000 };

/**
 * Deploy the app to the emulator at `endpoint`, unless what is there was made from the same sources.
 *
 * @throws if a step fails or takes too long: the message has the end of its log
 */
export async function deploy(options: DeployOptions): Promise<Deployment> {
  const { endpoint, stage = 'local', stateFolder, onStep = () => {}, appFolder = projectFolder } = options;
  const outDir = options.outDir ?? join(stateFolder, 'cdk.out');
  mkdirSync(stateFolder, { recursive: true });
  const sources = hashOfSources(appFolder, stage);
  const last = await lastDeployment(stateFolder, endpoint, sources);
  if (last) return { ...last, changed: false };

  const logFile = join(stateFolder, 'deploy.log');
  const env = {
    ...clientEnvironment(endpoint),
    PATH: [join(projectFolder, 'node_modules', '.bin'), process.env.PATH ?? ''].join(delimiter),
    CDK_DISABLE_VERSION_CHECK: '1',
    CDK_DISABLE_CLI_TELEMETRY: 'true',
    CI: 'true',
  };
  const run: Run = (step, args, extra = {}) =>
    runNode({ step, args, cwd: appFolder, env: { ...env, ...extra }, logFile, timeoutMs: timeoutsMs[step] });

  rmSync(join(stateFolder, 'deployed.json'), { force: true });
  writeFileSync(logFile, '', { mode: 0o600 });
  onStep('synthesising the stacks');
  await synthesise(run, appFolder, stage, outDir);
  const cdk = [join(projectFolder, 'node_modules', 'aws-cdk', 'bin', 'cdk'), '--app', outDir, '--no-notices'];
  if (!(await isBootstrapped(endpoint))) {
    onStep('preparing the account');
    await run('bootstrap', [...cdk, 'bootstrap', `aws://${account}/${localRegion}`]);
  }
  onStep('deploying the stacks');
  const outputsFile = join(stateFolder, 'outputs.json');
  rmSync(outputsFile, { force: true });
  const direct = ['--method', 'direct', '--require-approval', 'never', '--progress', 'events'];
  await run('deploy', [...cdk, 'deploy', '--all', ...direct, '-O', outputsFile]);
  onStep('filling in what the emulator leaves out');
  for (const line of await fillIn(endpoint, outDir)) appendFileSync(logFile, `filled in: ${line}\n`);

  const outputs = JSON.parse(readFileSync(outputsFile, 'utf8')) as Deployment['outputs'];
  const restApiId = Object.values(outputs).flatMap(({ RestApiId }) => RestApiId ?? [])[0];
  if (restApiId === undefined) throw new Error(`No stack has an output RestApiId (see ${outputsFile})`);
  // A changed document makes a new API here, so the address is taken anew from each deploy.
  const baseUrl = `${endpoint}/_aws/execute-api/${restApiId}/${apiStage}`;
  const deployment = { outputs, restApiId, baseUrl };
  const note = JSON.stringify({ endpoint, sources, deployment }, null, 2);
  writeFileSync(join(stateFolder, 'deployed.json'), `${note}\n`, { mode: 0o600 });
  return { ...deployment, changed: true };
}

type Step = keyof typeof timeoutsMs;
type Run = (step: Step, args: string[], extra?: Record<string, string>) => Promise<void>;

// The app itself is run with what the CDK CLI would pass to it; that saves one start of the CLI.
async function synthesise(run: Run, appFolder: string, stage: string, outDir: string): Promise<void> {
  const settings = JSON.parse(readFileSync(join(appFolder, 'cdk.json'), 'utf8')) as {
    app: string;
    context?: Record<string, unknown>;
  };
  const [program, ...args] = settings.app.split(/\s+/);
  if (program !== 'node' || args.length === 0) {
    throw new Error(`cdk.json: "app" is ${JSON.stringify(settings.app)}; here it must be "node <file>"`);
  }
  rmSync(outDir, { recursive: true, force: true });
  await run('synth', args, {
    CDK_OUTDIR: outDir,
    CDK_CONTEXT_JSON: JSON.stringify({ ...settings.context, 'aws:cdk:enable-path-metadata': true, stage }),
    CDK_DEFAULT_ACCOUNT: account,
    CDK_DEFAULT_REGION: localRegion,
  });
}

async function isBootstrapped(endpoint: string): Promise<boolean> {
  try {
    await callJson(endpoint, 'ssm', 'AmazonSSM.GetParameter', { Name: '/cdk-bootstrap/hnb659fds/version' });
    return true;
  } catch (error) {
    if (error instanceof AwsCallError && error.body.includes('ParameterNotFound')) return false;
    throw error;
  }
}

async function lastDeployment(
  stateFolder: string,
  endpoint: string,
  sources: string,
): Promise<Omit<Deployment, 'changed'> | undefined> {
  const file = join(stateFolder, 'deployed.json');
  if (!existsSync(file)) return undefined;
  const note = JSON.parse(readFileSync(file, 'utf8')) as {
    endpoint: string;
    sources: string;
    deployment: Omit<Deployment, 'changed'>;
  };
  if (note.endpoint !== endpoint || note.sources !== sources) return undefined;
  try {
    const path = `/restapis/${note.deployment.restApiId}`;
    await callAws({ endpoint, service: 'apigateway', method: 'GET', path });
    return note.deployment;
  } catch (error) {
    // The emulator's state was thrown away meanwhile.
    if (error instanceof AwsCallError && error.status === 404) return undefined;
    throw error;
  }
}

function hashOfSources(appFolder: string, stage: string): string {
  const hash = createHash('sha256').update(`${stage}\n${process.version}\n`);
  const add = (path: string) => {
    if (!existsSync(path)) return;
    if (statSync(path).isDirectory()) {
      for (const name of readdirSync(path).sort()) {
        if (name !== '__pycache__' && name !== 'node_modules' && !name.startsWith('.')) add(join(path, name));
      }
      return;
    }
    const content = readFileSync(path);
    hash.update(`${relative(appFolder, path)}\n${content.length}\n`).update(content);
  };
  for (const path of deployedPaths) add(join(appFolder, path));
  return hash.digest('hex');
}

interface NodeRun {
  step: Step;
  args: string[];
  cwd: string;
  env: Record<string, string>;
  logFile: string;
  timeoutMs: number;
}

async function runNode({ step, args, cwd, env, logFile, timeoutMs }: NodeRun): Promise<void> {
  const begin = statSync(logFile).size;
  const log = openSync(logFile, 'a');
  const child = spawn(process.execPath, args, { cwd, env, stdio: ['ignore', log, log] });
  closeSync(log);
  let late = false;
  const timer = setTimeout(() => {
    late = true;
    child.kill('SIGKILL');
  }, timeoutMs);
  const outcome = await new Promise<string | undefined>((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', (code, signal) => resolve(code === 0 ? undefined : (signal ?? `exit code ${code}`)));
  }).finally(() => clearTimeout(timer));
  if (outcome === undefined) return;
  const text = readFileSync(logFile).subarray(begin).toString('utf8');
  const reason = late ? `took longer than ${timeoutMs / 1000} s` : `failed (${outcome})`;
  throw new Error(`The ${step} ${reason}. ${logFile} ends:\n${lastLines(text, 30)}`);
}
