// Ends what `npm start` left running and nothing else; with --reset it also throws the local state away.
// Plain JavaScript on built-ins: it works before and without an install.
import { existsSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { stopRecorded } from './processes.js';

// What belongs to the install or is a result of a run stays after a reset.
const kept = new Set(['venv', 'install', 'bench.json']);

const stateFolder = fileURLToPath(new URL('../.local', import.meta.url));
if (['--help', '-h'].some((flag) => process.argv.includes(flag))) {
  console.log(
    'npm run local:stop     end what npm start left running; the state is kept\nnpm run local:reset    end it and throw the state away; installed packages stay',
  );
  process.exit(0);
}
const unknown = process.argv.slice(2).filter((argument) => argument !== '--reset');
if (unknown.length > 0) {
  console.error(`Unknown argument ${unknown[0]}. Right form: npm run local:stop, or npm run local:reset`);
  process.exit(2);
}

const results = await stopRecorded(stateFolder);
for (const { name, outcome, ended } of results) {
  console.log(
    outcome === 'was not running' ? `${name}: ${outcome}` : `${name}: ${outcome} (${ended} processes)`,
  );
}
if (results.length === 0) console.log('Nothing was running.');

if (process.argv.includes('--reset') && existsSync(stateFolder)) {
  const thrown = readdirSync(stateFolder).filter((name) => !kept.has(name));
  for (const name of thrown) rmSync(join(stateFolder, name), { recursive: true, force: true });
  console.log(
    thrown.length > 0 ? `Thrown away from .local: ${thrown.join(', ')}` : 'There was no local state.',
  );
}
