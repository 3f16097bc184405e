// Ten times the rows: whether a query takes ten times as long, and not more.
import { rmSync } from 'node:fs';
import { median } from '../measure.ts';
import type { Storage } from './build-index.ts';
import { buildIndex } from './build-index.ts';
import { makeData } from './make-data.ts';
import { ourProgram, Programs } from './programs.ts';
import type { Bench } from './report.ts';
import type { Entry } from './rounds.ts';
import { measureRounds, timesFaster } from './rounds.ts';

const dims = 384;

/** @param rows of the larger index; the smaller has the first tenth of them */
export async function measureGrowth(
  { folder, say, report }: Bench,
  { rows, rounds }: { readonly rows: number; readonly rounds: number },
): Promise<void> {
  say(`growth: ${rows / 10} and ${rows} rows of ${dims}`);
  const set = makeData(folder, 'random', dims, rows)!;
  const programs = new Programs();
  const folders: string[] = [];
  try {
    const entries: Entry[] = [];
    for (const storage of ['int8', 'f32'] satisfies Storage[]) {
      for (const some of [rows / 10, rows]) {
        const index = buildIndex(set, folder, { storage, rows: some });
        folders.push(index.replace(/\.json$/, ''));
        // Codes alone are resident: a million rows then fit into one function.
        const contestant = await programs.start(ourProgram(set, index, storage, some, 'store'));
        // One call at a time: what the others read in between leaves no cache for the smaller index.
        entries.push({ name: `${storage}_${some}`, contestant, work: 'one', calls: 1 });
      }
    }
    const samples = await measureRounds(entries, { rounds: 2 * rounds, warmRounds: 4 });
    for (const storage of ['int8', 'f32'] satisfies Storage[]) {
      const [small, big] = [samples.get(`${storage}_${rows / 10}`)!, samples.get(`${storage}_${rows}`)!];
      const name = storage === 'int8' ? 'growth_1e6_vs_1e5' : 'growth_f32_1e6_vs_1e5';
      report.add(name, timesFaster(small, big) / 10, { better: 'lower', runs: big.calls });
      const bytesPerRow = dims * (storage === 'int8' ? 1 : 4);
      for (const [some, one] of [
        [rows / 10, small],
        [rows, big],
      ] as const) {
        const label = `growth ${storage} ${some}`;
        report.addTimes({ name: label, samples: one, bytes: some * bytesPerRow, queries: 1, rows: some });
      }
      if (storage === 'int8')
        report.add('growth_1e6_rows_reranked', median(big.reranked), {
          unit: 'rows',
          better: 'lower',
          runs: big.calls,
        });
    }
  } finally {
    await programs.end();
    for (const path of [set.rowsFile, ...folders]) rmSync(path, { recursive: true, force: true });
  }
}
