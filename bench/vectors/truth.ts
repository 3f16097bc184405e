// Checks, before anything is timed, that every program finds the same.
import { assertIdentical, assertSameHits, hitsOf } from './check.ts';
import type { Contestant } from './contestant.ts';
import type { DataSet } from './data-file.ts';
import { readQueries } from './data-file.ts';
import { rowOf } from './make-data.ts';
import type { Hit } from './protocol.ts';
import { batchSize } from './settings.ts';

/** True scores by query for rows that somebody found instead of others. */
function scoreOf(set: DataSet, query: Float32Array): (row: number) => number {
  return (row) => {
    const vector = rowOf(set, row);
    let score = 0;
    for (let i = 0; i < vector.length; i += 1) score += query[i]! * vector[i]!;
    return score;
  };
}

/** The right answers by double-precision arithmetic, of a work of naive.ts. */
export interface Truth {
  readonly set: DataSet;
  readonly work: string;
  readonly hits: readonly (readonly Hit[])[];
}

export async function findTruth(
  naive: Contestant,
  set: DataSet,
  work: string,
  queries: number,
): Promise<Truth> {
  return { set, work, hits: hitsOf(await naive.measure(work, 0, queries)) };
}

/** @returns what was found, by query; @throws Error if it is not the truth */
export async function assertTrue(
  contestant: Contestant,
  work: string,
  { set, hits }: Truth,
): Promise<readonly (readonly Hit[])[]> {
  const found = hitsOf(await contestant.measure(work, 0, hits.length));
  const queries = readQueries(set);
  for (const [i, some] of found.entries())
    assertSameHits(`${contestant.name} (${work}), query ${i},`, some, hits[i]!, scoreOf(set, queries[i]!));
  return found;
}

/** Both ways of ours for a work: true, and the same to the last bit. */
export async function assertOurs(
  f32: Contestant,
  int8: Contestant,
  work: string,
  truth: Truth,
): Promise<readonly (readonly Hit[])[]> {
  const found = await assertTrue(f32, work, truth);
  const other = await assertTrue(int8, work, truth);
  for (const [i, hits] of found.entries()) assertIdentical(`${work}: int8, query ${i},`, other[i]!, hits);
  return found;
}

/** A batch finds what its queries find one by one. */
export async function assertBatch(
  contestant: Contestant,
  work: string,
  one: readonly (readonly Hit[])[],
  same: (who: string, found: readonly Hit[], expected: readonly Hit[], query: number) => void,
): Promise<void> {
  const [call] = await contestant.measure(work, 0, 1);
  const found = call!.found!;
  if (found.length !== batchSize)
    throw new Error(`${contestant.name} answered ${found.length} queries of a batch`);
  for (const [i, hits] of found.entries())
    same(`${contestant.name} (${work}), query ${i},`, hits, one[i]!, i);
}
