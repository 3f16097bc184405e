// `npm run bench:vectors`: measures the vector store beside other exact searches and the machine's own read limit.
//
//   npm run bench:vectors                       everything, under ten minutes on two cores
//   npm run bench:vectors -- --quick            fewer rounds and rows: to try the bench itself
//   npm run bench:vectors -- --allow-missing    succeed although a rival could not be installed
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { projectFolder } from '../../local/emulator.ts';
import type { Figure } from '../figures.ts';
import { rounded, tableOf } from '../figures.ts';
import { commit, machine } from '../machine.ts';
import { installRivals } from '../rivals.ts';
import { measureGrowth } from './growth.ts';
import { measureHeadline } from './headline.ts';
import { measureLoad } from './load.ts';
import type { Kind } from './make-data.ts';
import { makeData } from './make-data.ts';
import { prepareReadLimit } from './read-limit.ts';
import type { Bench } from './report.ts';
import { Report } from './report.ts';
import { measureSet } from './set.ts';

const { values: asked } = parseArgs({
  options: {
    quick: { type: 'boolean', default: false },
    'allow-missing': { type: 'boolean', default: false },
  },
});

/** A quick run's figures are named like those of a full one, so its file is another. */
const settings = asked.quick
  ? {
      headlineRows: 65_000,
      setBytes: 5e7,
      growthRows: 100_000,
      rounds: 6,
      setRounds: 4,
      file: 'bench-vectors-quick.json',
    }
  : {
      headlineRows: 260_000,
      setBytes: 2e8,
      growthRows: 1_000_000,
      rounds: 24,
      setRounds: 12,
      file: 'bench-vectors.json',
    };

/** Beside the headline, which is random at 384. */
const sets: readonly (readonly [Kind, number])[] = [
  ['random', 128],
  ['random', 768],
  ['clusters', 128],
  ['clusters', 384],
  ['clusters', 768],
  ['outliers', 384],
  ['shifted', 384],
  ['ngrams', 128],
  ['ngrams', 384],
  ['ngrams', 768],
];

const started = performance.now();
const say = (line: string) =>
  console.log(`${((performance.now() - started) / 1000).toFixed(1).padStart(7)} s  ${line}`);

/** Caches and large pages decide much of what is measured; where Linux does not tell, it is left out. */
function memoryFacts(): Record<string, unknown> {
  const read = (path: string) => {
    try {
      return readFileSync(path, 'utf8').trim();
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
      throw error;
    }
  };
  const flags = /^flags\s*:(.*)$/m.exec(read('/proc/cpuinfo') ?? '')?.[1]?.split(' ') ?? [];
  return {
    vector_extensions: flags.filter((flag) => /^(avx2|avx512f|fma)$/.test(flag)).join(' ') || undefined,
    l3_cache: read('/sys/devices/system/cpu/cpu0/cache/index3/size'),
    large_pages: read('/sys/kernel/mm/transparent_hugepage/enabled'),
  };
}

const loadBefore = loadavg()[0]!;
if (loadBefore > 0.5)
  say(`something else is running (load ${loadBefore.toFixed(2)}): figures will be worse than they are`);
const folder = mkdtempSync(join(tmpdir(), 'granary-bench-vectors-'));
const end = (signal: NodeJS.Signals) => {
  rmSync(folder, { recursive: true, force: true });
  process.kill(process.pid, signal);
};
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, end);
try {
  const report = new Report();
  const limit = prepareReadLimit(folder);
  say(`the read limit is measured in ${limit.how}`);
  const bench: Bench = { folder, limit, rivals: installRivals(say), say, report };

  await measureHeadline(bench, { rows: settings.headlineRows, rounds: settings.rounds });
  for (const [kind, dims] of sets) {
    const made = makeData(folder, kind, dims, Math.floor(settings.setBytes / 4 / dims));
    if (made === undefined) say(`${kind}_${dims}: skipped, the texts are not in ../shared/data`);
    else await measureSet(bench, made, settings.setRounds);
  }
  await measureGrowth(bench, { rows: settings.growthRows, rounds: settings.setRounds });
  say('loading a segment from the emulator');
  const load = await measureLoad();
  report.add('load_cpu_ms_per_mb', load.cpuMsPerMb, { unit: 'ms CPU', runs: load.runs });
  report.add('load_recycled_cpu_ms_per_mb', load.recycledCpuMsPerMb, {
    unit: 'ms CPU',
    better: 'lower',
    runs: load.runs,
  });
  report.add('load_wall_ms', load.wallMs, { unit: 'ms', better: 'lower', runs: load.runs });

  const figures: readonly Figure[] = report.figures();
  console.log(`\n${report.table()}\n\n${tableOf(figures)}`);
  for (const [name, why] of report.missing) console.log(`missing: ${name}: ${why}`);
  const local = join(projectFolder, '.local');
  mkdirSync(local, { recursive: true });
  const file = join(local, settings.file);
  const written = {
    figures: figures.map((figure) => ({ ...figure, value: rounded(figure.value) })),
    machine: {
      ...machine(),
      ...memoryFacts(),
      load_before: loadBefore,
      read_limit: limit.how,
      ...report.facts,
      ...(report.missing.size > 0 ? { missing: Object.fromEntries(report.missing) } : {}),
    },
    commit: commit(),
  };
  writeFileSync(file, `${JSON.stringify(written, null, 2)}\n`);
  console.log(`\nWritten to ${file}; bench/README.md says how to read it.`);
  if (report.missing.size > 0 && !asked['allow-missing']) {
    console.log('Figures are missing; with --allow-missing this is no failure.');
    process.exitCode = 1;
  }
} finally {
  rmSync(folder, { recursive: true, force: true });
}
