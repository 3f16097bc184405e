// What figures belong to: the machine, and the commit.
import { execFileSync, spawnSync } from 'node:child_process';
import { cpus, platform, release, totalmem } from 'node:os';
import { projectFolder, projectPython } from '../local/emulator.ts';

/** Figures say little on another machine. */
export function machine(): Record<string, unknown> {
  const python = execFileSync(projectPython, ['--version'], { encoding: 'utf8' }).trim();
  return {
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    cores: cpus().length,
    memory_gb: Math.round(totalmem() / 1e9),
    os: `${platform()} ${release()}`,
    node: process.version,
    python,
  };
}

/** `unknown` outside a repository; `-changed` behind it if files differ from the commit. */
export function commit(): string {
  const git = (...args: string[]) => spawnSync('git', args, { cwd: projectFolder, encoding: 'utf8' });
  const head = git('rev-parse', 'HEAD');
  if (head.status !== 0) return 'unknown';
  return `${head.stdout.trim()}${git('status', '--porcelain').stdout === '' ? '' : '-changed'}`;
}
