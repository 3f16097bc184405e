// Another data set or dimension: float32 and int8 beside the read limit, faiss and numpy.
import { rmSync } from 'node:fs';
import { median } from '../measure.ts';
import { buildIndex } from './build-index.ts';
import { nodeProgram } from './contestant.ts';
import type { DataSet } from './data-file.ts';
import { fileOf } from './make-data.ts';
import { ourProgram, Programs } from './programs.ts';
import { bestReader } from './read-limit.ts';
import type { Bench } from './report.ts';
import type { Entry } from './rounds.ts';
import { measureRounds, timesFaster } from './rounds.ts';
import { assertOurs, assertTrue, findTruth } from './truth.ts';

const checkedQueries = 8;

export async function measureSet(bench: Bench, set: DataSet, rounds: number): Promise<void> {
  const { folder, limit, rivals, say, report } = bench;
  const name = `${set.kind}_${set.dims}`;
  say(`${name}: ${set.rows} rows`);
  const file = fileOf(set);
  const f32Index = buildIndex(set, folder, { storage: 'f32' });
  const int8Index = buildIndex(set, folder, { storage: 'int8' });
  const programs = new Programs();
  try {
    const reader = await programs.start(limit.program(set.rowsFile));
    const f32 = await programs.start(ourProgram(set, f32Index, 'f32'));
    const int8 = await programs.start(ourProgram(set, int8Index, 'int8'));
    const naive = await programs.start(nodeProgram('naive.ts', [file]));
    const truth = await findTruth(naive, set, 'one', checkedQueries);
    await naive.end();
    await assertOurs(f32, int8, 'one', truth);
    const entries: Entry[] = [
      ...limit.manyStreams.map((work) => ({ name: work, contestant: reader, work, calls: 2 })),
      { name: 'f32', contestant: f32, work: 'one', calls: 5 },
      { name: 'int8', contestant: int8, work: 'one', calls: 10 },
    ];
    if ('path' in rivals.python) {
      const script = new URL('rivals.py', import.meta.url).pathname;
      const args = [script, file];
      const python = await programs.start({ name: 'rivals.py', command: rivals.python.path, args });
      for (const work of ['faiss', 'numpy']) {
        await assertTrue(python, work, truth);
        entries.push({ name: work, contestant: python, work, calls: 5 });
      }
    }
    const samples = await measureRounds(entries, { rounds, warmRounds: 1 });
    const get = (one: string) => samples.get(one)!;
    const runs = get('f32').calls;
    const best = bestReader(limit.manyStreams, get);
    report.add(`${name}_f32_vs_read_limit`, timesFaster(get('f32'), get(best)), { runs });
    report.add(`${name}_int8_exact_vs_f32`, timesFaster(get('int8'), get('f32')), { runs });
    for (const rival of ['faiss', 'numpy'].filter((one) => samples.has(one)))
      report.add(`${name}_f32_vs_${rival}`, timesFaster(get('f32'), get(rival)), { runs });
    if (samples.has('faiss'))
      report.add(`${name}_int8_exact_vs_faiss`, timesFaster(get('int8'), get('faiss')), { runs });
    const bytes = set.rows * set.dims * 4;
    const unit = 'GB/s';
    report.add(`${name}_f32_gb_per_s`, bytes / get('f32').bestWallMs / 1e6, { unit, runs });
    report.add(`${name}_int8_gb_per_s`, bytes / 4 / get('int8').bestWallMs / 1e6, { unit, runs });
    const { reranked, calls } = get('int8');
    report.add(`${name}_rows_reranked`, median(reranked), { unit: 'rows', better: 'lower', runs: calls });
    for (const one of [best, 'f32', 'int8', 'faiss', 'numpy'].filter((known) => samples.has(known))) {
      report.addTimes({
        name: `${name} ${one === best ? `read_${best}` : one}`,
        samples: get(one),
        bytes: one === 'int8' ? bytes / 4 : bytes,
        queries: 1,
        rows: set.rows,
      });
    }
  } finally {
    await programs.end();
    for (const path of [set.rowsFile, ...[f32Index, int8Index].map((index) => index.replace(/\.json$/, ''))])
      rmSync(path, { recursive: true });
  }
}
