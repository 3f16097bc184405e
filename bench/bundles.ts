// What each Lambda weighs: bytes of its code, and the CPU that a fresh process needs to import it.
import { spawnSync } from 'node:child_process';
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import type { LambdaName } from '../functions/core/env.ts';
import { environmentValues, lambdaEnvironment } from '../functions/core/env.ts';
import { bundleAll } from '../infra/constructs/bundle.ts';
import { localRegion, projectFolder, projectPython } from '../local/emulator.ts';
import { median } from './measure.ts';

export interface Weight {
  readonly lambda: string;
  readonly bytes: number;
  /** CPU of the import alone, median. */
  readonly importCpuMs: number;
  readonly runs: number;
}

const runs = 5;
const pythonLambdas = ['plugin-validator', 'plugin-runner', 'clusterer'] as const;

/** Values that no import looks at: what is read at the start must only be there, and JSON where JSON is expected. */
const environment: Record<string, string> = {
  ...Object.fromEntries(Object.keys(environmentValues).map((name) => [name, name.toLowerCase()])),
  RATE_LIMITS: '{}',
  LABEL_MODEL: '{"provider":"none"}',
  SCAN_FUNCTIONS: '[]',
  RUNNER_VARIANTS: '{}',
  IMAGE_FUNCTIONS: '{}',
  VECTOR_BACKENDS: '{}',
  ALLOW_LOOPBACK: 'false',
  REALTIME_PLUGINS: 'false',
  LOG_LEVEL: 'INFO',
  AWS_REGION: localRegion,
  AWS_ACCESS_KEY_ID: 'bench',
  AWS_SECRET_ACCESS_KEY: 'bench',
  PATH: process.env.PATH ?? '',
};

function cpuOfImport(lambda: string, program: string, args: readonly string[], cwd: string): number {
  const times = Array.from({ length: runs }, () => {
    const { status, stdout, stderr } = spawnSync(program, args, { cwd, env: environment, encoding: 'utf8' });
    const ms = Number(/import_cpu_ms=([0-9.]+)/.exec(stdout)?.[1]);
    if (status !== 0 || !Number.isFinite(ms))
      throw new Error(`the import of ${lambda} failed:\n${stderr.slice(-2000)}`);
    return ms;
  });
  return median(times);
}

const nodeScript = `
const before = process.cpuUsage();
await import(process.argv[1]);
const { user, system } = process.cpuUsage(before);
console.log('import_cpu_ms=' + (user + system) / 1000);
process.exit(0);`;

const pythonScript = `
import sys, time
sys.path.insert(0, sys.argv[1])
sys.dont_write_bytecode = True
before = time.process_time()
import handler
print("import_cpu_ms=%.3f" % ((time.process_time() - before) * 1000))`;

function bytesBelow(folder: string): number {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && !entry.parentPath.includes('__pycache__'))
    .reduce((sum, entry) => sum + statSync(join(entry.parentPath, entry.name)).size, 0);
}

/** The Lambdas as they are bundled for a deployment, biggest first. */
export function weighLambdas(): Weight[] {
  const names = Object.keys(lambdaEnvironment) as LambdaName[];
  const bundles = bundleAll(names, projectFolder);
  const typescript = names.map((lambda) => {
    const file = join(bundles, lambda, 'index.mjs');
    const args = ['--input-type=module', '--eval', nodeScript, file];
    return {
      lambda,
      bytes: statSync(file).size,
      importCpuMs: cpuOfImport(lambda, process.execPath, args, bundles),
      runs,
    };
  });
  const python = pythonLambdas.map((lambda) => {
    const folder = join(projectFolder, 'functions', lambda);
    return {
      lambda,
      bytes: bytesBelow(folder),
      importCpuMs: cpuOfImport(lambda, projectPython, ['-c', pythonScript, folder], folder),
      runs,
    };
  });
  return [...typescript, ...python].sort((a, b) => b.bytes - a.bytes);
}
