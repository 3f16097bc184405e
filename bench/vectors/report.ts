// What a run collects: figures in the order of the goals, the table of times, what is missing and why.
import type { Figure } from '../figures.ts';
import { median } from '../measure.ts';
import type { Rivals } from '../rivals.ts';
import type { ReadLimit } from './read-limit.ts';
import type { Samples } from './rounds.ts';

/** What every measure of a run is given. */
export interface Bench {
  /** For files; gone at the end. */
  readonly folder: string;
  readonly limit: ReadLimit;
  readonly rivals: Rivals;
  readonly say: (line: string) => void;
  readonly report: Report;
}

/** The figures that the project has goals for, in the order in which they are shown. */
const goals: readonly (readonly [name: string, goal: number, better: Figure['better']])[] = [
  ['f32_vs_read_limit', 0.95, 'higher'],
  ['f32_vs_usearch', 1.6, 'higher'],
  ['f32_vs_naive_js', 6, 'higher'],
  ['f32_vs_faiss', 1, 'higher'],
  ['f32_vs_numpy', 1.05, 'higher'],
  ['f32_vs_lancedb', 15, 'higher'],
  ['int8_exact_vs_f32', 4, 'higher'],
  ['int8_exact_vs_faiss', 3.5, 'higher'],
  ['batch16_f32_gain', 3.5, 'higher'],
  ['batch16_int8_gain', 6, 'higher'],
  ['filter10_gain', 4.5, 'higher'],
  ['filter1_gain', 28, 'higher'],
  ['workers2_share', 0.95, 'higher'],
  ['load_cpu_ms_per_mb', 1, 'lower'],
  ['growth_1e6_vs_1e5', 1.05, 'lower'],
];

interface Row {
  readonly name: string;
  readonly samples: Samples;
  /** Bytes that one query reads, or a batch for each of its queries. */
  readonly bytes: number;
  readonly queries: number;
  readonly rows: number;
}

export class Report {
  /** Figure -> why it could not be measured. */
  readonly missing = new Map<string, string>();
  /** For `machine` in the file: versions, and which reader was the best. */
  readonly facts: Record<string, unknown> = {};
  readonly #figures = new Map<string, Figure>();
  readonly #rows: Row[] = [];

  /** Adds a figure; the goal is that of its name where the project has one. */
  add(
    name: string,
    value: number,
    { unit = 'ratio', better = 'higher', runs }: { unit?: string; better?: Figure['better']; runs: number },
  ): void {
    const [, goal = null, goalBetter = better] = goals.find(([known]) => known === name) ?? [];
    this.#figures.set(name, { name, value, unit, goal, better: goalBetter, runs });
  }

  /** Says why figures cannot be measured. */
  miss(names: readonly string[], why: string): void {
    for (const name of names) this.missing.set(name, why);
  }

  /** A row of the table of times. */
  addTimes(row: Row): void {
    this.#rows.push(row);
  }

  /** Those with goals first. @throws Error if one with a goal is neither there nor said to be missing */
  figures(): Figure[] {
    const forgotten = goals.find(([name]) => !this.#figures.has(name) && !this.missing.has(name));
    if (forgotten !== undefined) throw new Error(`the figure ${forgotten[0]} was not measured`);
    const first = goals.flatMap(([name]) => this.#figures.get(name) ?? []);
    const others = [...this.#figures.values()].filter(({ goal }) => goal === null);
    return [...first, ...others];
  }

  /** Times for a person: CPU is the median of the rounds, wall the best of all calls, both for one query. */
  table(): string {
    const lines = [
      ['what', 'CPU ms', 'best wall ms', 'GB/s', 'M rows/s', 'calls'],
      ...this.#rows.map(({ name, samples, bytes, queries, rows }) => {
        const wall = samples.bestWallMs / queries;
        return [
          name,
          (median(samples.cpuMs) / queries).toFixed(3),
          wall.toFixed(3),
          (bytes / wall / 1e6).toFixed(1),
          (rows / wall / 1e3).toFixed(1),
          String(samples.calls),
        ];
      }),
    ];
    const widths = lines[0]!.map((_, i) => Math.max(...lines.map((line) => line[i]!.length)));
    return lines
      .map((line) =>
        line.map((text, i) => (i === 0 ? text.padEnd(widths[i]!) : text.padStart(widths[i]!))).join('  '),
      )
      .join('\n');
  }
}
