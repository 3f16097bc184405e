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
    const add = async (
      name: string,
      storage: Storage,
      index: string,
      some: number,
      from: 'memory' | 'store',
    ) => {
      const contestant = await programs.start(ourProgram(set, index, storage, some, from));
      entries.push({ name, contestant, work: 'one', calls: 3 });
    };
    for (const storage of ['int8', 'f32'] satisfies Storage[]) {
      for (const some of [rows / 10, rows]) {
        const index = buildIndex(set, folder, { storage, rows: some });
        folders.push(index.replace(/\.json$/, ''));
        await add(`${storage} ${some}`, storage, index, some, 'memory');
        // Codes alone are resident, so that a million rows take little of a function's memory.
        if (storage === 'int8' && some === rows) await add('int8 from store', storage, index, some, 'store');
      }
    }
    const samples = await measureRounds(entries, { rounds, warmRounds: 2 });
    const get = (name: string) => samples.get(name)!;
    for (const storage of ['int8', 'f32'] satisfies Storage[]) {
      const [small, big] = [get(`${storage} ${rows / 10}`), get(`${storage} ${rows}`)];
      const name = storage === 'int8' ? 'growth_1e6_vs_1e5' : 'growth_f32_1e6_vs_1e5';
      report.add(name, timesFaster(small, big) / 10, { better: 'lower', runs: big.calls });
    }
    const [memory, store] = [get(`int8 ${rows}`), get('int8 from store')];
    report.add('rerank_from_files_vs_memory', timesFaster(memory, store), {
      better: 'lower',
      runs: store.calls,
    });
    report.add('growth_1e6_rows_reranked', median(memory.reranked), {
      unit: 'rows',
      better: 'lower',
      runs: memory.calls,
    });
    for (const [name, one] of samples) {
      const some = name.endsWith(String(rows)) || name.endsWith('store') ? rows : rows / 10;
      const bytes = some * dims * (name.startsWith('int8') ? 1 : 4);
      report.addTimes({ name: `growth ${name}`, samples: one, bytes, queries: 1, rows: some });
    }
  } finally {
    await programs.end();
    for (const path of [set.rowsFile, ...folders]) rmSync(path, { recursive: true, force: true });
  }
}
