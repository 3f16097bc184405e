#!/usr/bin/env node
// The program `granary`, as npx and npm start it: plain JavaScript for the Node of the host (20 or later). The rest is
// TypeScript, which a newer Node runs as it is; an older one hands over to the Node that the project brings.
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const main = new URL('./main.ts', import.meta.url);
const [major, minor] = process.versions.node.split('.').map(Number);
const runsTypes = major > 23 || (major === 23 && minor >= 6) || (major === 22 && minor >= 18);

if (runsTypes) {
  const { run } = await import(main);
  process.exitCode = await run(process.argv.slice(2));
} else {
  const node = fileURLToPath(new URL('../node_modules/node/bin/node', import.meta.url));
  if (!existsSync(node)) {
    console.error(
      `granary needs Node 22.18 or later (this is ${process.versions.node}), or its own packages: run "npm install" in ${fileURLToPath(new URL('..', import.meta.url))}`,
    );
    process.exit(1);
  }
  const child = spawn(node, [fileURLToPath(import.meta.url), ...process.argv.slice(2)], { stdio: 'inherit' });
  child.once('error', (error) => {
    console.error(`granary could not be started: ${error.message}`);
    process.exit(1);
  });
  // A terminal sends Ctrl-C to both; any other signal is passed on.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'])
    process.on(signal, () => signal !== 'SIGINT' && child.kill(signal));
  child.once('exit', (code, signal) => {
    process.exitCode = signal === null ? (code ?? 1) : 130;
  });
}
