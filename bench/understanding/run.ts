// `npm run bench:understanding`: measures the plugin runner, clusters and taxonomies; prints a table and writes
// .local/bench-understanding.json.
//
//   npm run bench:understanding                       everything, some minutes
//   npm run bench:understanding -- --quick            fewer rounds: to try the bench itself
//   npm run bench:understanding -- --data FOLDER      where banking77 and clinc150 are; ../shared/data if left out
//   npm run bench:understanding -- --allow-missing    succeed although a rival or a data set is not there
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { loadavg } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { projectFolder, projectPython } from '../../local/emulator.ts';
import type { Figure } from '../figures.ts';
import { rounded, tableOf } from '../figures.ts';
import { commit, machine } from '../machine.ts';
import { installMapRival } from '../rivals.ts';

const { values: asked } = parseArgs({
  options: {
    quick: { type: 'boolean', default: false },
    data: { type: 'string', default: join(projectFolder, '..', 'shared', 'data') },
    'allow-missing': { type: 'boolean', default: false },
  },
});

const minute = 60_000;
const started = performance.now();
const say = (line: string) =>
  console.log(`${((performance.now() - started) / 1000).toFixed(1).padStart(7)} s  ${line}`);

/** What a program measures: figures by name, and under other names facts that explain them. */
type Measured = Readonly<Record<string, unknown>>;

/** Figures of the issue's table, and beside them those that explain one. */
const wanted: readonly Omit<Figure, 'value' | 'runs'>[] = [
  { name: 'runner_vs_bare', unit: 'ratio', goal: 1.5, better: 'lower' },
  { name: 'plugin_first_call_cpu_ms', unit: 'ms CPU', goal: 100, better: 'lower' },
  { name: 'digits_ari', unit: 'ARI', goal: 0.93, better: 'higher' },
  { name: 'umap_cpu_gain', unit: 'ratio', goal: 8, better: 'higher' },
  { name: 'umap_knn_accuracy', unit: 'share', goal: null, better: 'higher' },
  { name: 'umap_learn_knn_accuracy', unit: 'share', goal: null, better: 'higher' },
  { name: 'banking77_nmi', unit: 'NMI', goal: 0.72, better: 'higher' },
  { name: 'blobs100k_cpu_s', unit: 's CPU', goal: 10, better: 'lower' },
  { name: 'blobs100k_peak_mb', unit: 'MB', goal: 500, better: 'lower' },
  { name: 'taxonomy_accuracy', unit: 'share', goal: 0.82, better: 'higher' },
  { name: 'out_of_scope_refused', unit: 'share', goal: 0.7, better: 'higher' },
  { name: 'in_scope_coverage', unit: 'share', goal: 0.8, better: 'higher' },
  { name: 'materialize_vs_kernel', unit: 'ratio', goal: 2, better: 'lower' },
];

interface Part {
  readonly name: string;
  readonly command: readonly string[];
  /** Whether it reads the texts beside the project. */
  readonly needsTexts: boolean;
}

const here = (file: string) => join(import.meta.dirname, file);
const options = (part: readonly string[]) => (asked.quick ? [...part, '--quick'] : part);

function partsOf(rivalPython: string | undefined): readonly Part[] {
  const data = ['--data', resolve(asked.data)];
  return [
    { name: 'runner', command: options([projectPython, here('runner.py')]), needsTexts: false },
    {
      name: 'clusters',
      command: options([
        projectPython,
        here('clusters.py'),
        ...data,
        ...(rivalPython === undefined ? [] : ['--umap-learn-python', rivalPython]),
      ]),
      needsTexts: false,
    },
    {
      name: 'taxonomies',
      command: options([process.execPath, here('taxonomy.ts'), ...data]),
      needsTexts: true,
    },
  ];
}

/** Runs a program that prints one JSON object as its last line. @throws Error with the end of what it printed */
function measure({ name, command }: Part): Measured {
  const [program, ...args] = command;
  const run = spawnSync(program!, args, {
    cwd: projectFolder,
    encoding: 'utf8',
    timeout: 30 * minute,
    maxBuffer: 64 * 2 ** 20,
    env: { ...process.env, PATH: `${dirname(process.execPath)}:${process.env.PATH ?? ''}` },
  });
  if (run.error) throw run.error;
  if (run.status !== 0) {
    throw new Error(
      `${name} ended with ${run.status ?? run.signal}:\n${`${run.stdout}${run.stderr}`.slice(-4_000)}`,
    );
  }
  return JSON.parse(run.stdout.trim().split('\n').at(-1)!) as Measured;
}

const loadBefore = loadavg()[0]!;
if (loadBefore > 0.5)
  say(`something else is running (load ${loadBefore.toFixed(2)}): times will be worse than they are`);
const missing = new Map<string, string>();
const rival = installMapRival(say);
if ('missing' in rival) missing.set('umap_cpu_gain', rival.missing);
const measured: Record<string, unknown> = {};
const facts: Record<string, Measured> = {};
for (const part of partsOf('path' in rival ? rival.path : undefined)) {
  if (part.needsTexts && !existsSync(asked.data)) {
    say(`${part.name}: skipped, there is no folder ${asked.data}`);
    continue;
  }
  say(`measuring: ${part.name}`);
  const found = measure(part);
  Object.assign(measured, found);
  facts[part.name] = found;
}

const isOwn = (name: string) => wanted.some((one) => one.name === name);
const figures = wanted.flatMap((one): Figure[] => {
  const value = measured[one.name];
  if (typeof value === 'number') {
    // The map must not be worse than the rival's in the same run.
    const rivalAccuracy = measured.umap_learn_knn_accuracy;
    const goal =
      one.name === 'umap_knn_accuracy' && typeof rivalAccuracy === 'number' ? rivalAccuracy : one.goal;
    const runs = measured[`${one.name}_runs`];
    return [{ ...one, goal, value, runs: typeof runs === 'number' ? runs : 1 }];
  }
  if (!missing.has(one.name)) missing.set(one.name, 'not measured: its data set or rival is not there');
  return [];
});

console.log(`\n${tableOf(figures)}`);
for (const [name, why] of missing) console.log(`missing: ${name}: ${why}`);
const local = join(projectFolder, '.local');
mkdirSync(local, { recursive: true });
/** A quick run's figures are named like those of a full one, so its file is another. */
const file = join(local, asked.quick ? 'bench-understanding-quick.json' : 'bench-understanding.json');
const explained = Object.fromEntries(
  Object.entries(facts).map(([name, all]) => [
    name,
    Object.fromEntries(Object.entries(all).filter(([key]) => !isOwn(key))),
  ]),
);
const written = {
  figures: figures.map((figure) => ({ ...figure, value: rounded(figure.value) })),
  machine: {
    ...machine(),
    load_before: loadBefore,
    ...explained,
    ...(missing.size > 0 ? { missing: Object.fromEntries(missing) } : {}),
  },
  commit: commit(),
};
writeFileSync(file, `${JSON.stringify(written, null, 2)}\n`);
console.log(`\nWritten to ${file}; bench/README.md says how to read it.`);
if (missing.size > 0 && !asked['allow-missing']) {
  console.log('Figures are missing; with --allow-missing this is no failure.');
  process.exitCode = 1;
}
