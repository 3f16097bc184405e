// The files of a result: read in pieces as they were written, whatever is in them.
import { expect, it } from 'vitest';
import type { ResultDocument } from '../../../functions/core/resources/clusters/results.ts';
import {
  eachDocument,
  readDocuments,
  writeDocuments,
} from '../../../functions/core/resources/clusters/results.ts';
import { runKeys } from '../../../functions/core/resources/clusters/store.ts';
import { makeApp } from '../app.ts';

/** Lines of every length from some to some thousand bytes, with characters of several bytes each. */
function* documents(count: number): Generator<ResultDocument> {
  for (let i = 0; i < count; i++)
    yield {
      document_id: `doc_${i}_${'é語😀'.repeat(i % 97)}`,
      collection_id: 'col_1',
      cluster_id: i % 3 === 0 ? 'noise' : `cl_${i % 3}`,
      probability: i / count,
      ...(i % 2 === 0 ? { x: i, y: -i - 0.5 } : {}),
    };
}

it('a result of many megabytes is read as it was written, some at a time', async () => {
  const { ctx } = await makeApp();
  const count = 20_000;
  await writeDocuments(ctx, 'run_1', documents(count));
  expect((await ctx.ports.blobs.head(runKeys.documents(ctx, 'run_1')))!.bytes).toBeGreaterThan(9_000_000);
  const wanted = documents(count);
  let pieces = 0;
  for await (const some of eachDocument(ctx, 'run_1')) {
    pieces += 1;
    for (const document of some) expect(document).toEqual(wanted.next().value);
  }
  expect(wanted.next().done).toBe(true);
  expect(pieces).toBeGreaterThan(2);
});

it('a result without documents is an empty file, and one that is not there is said', async () => {
  const { ctx } = await makeApp();
  await writeDocuments(ctx, 'run_1', []);
  expect(await readDocuments(ctx, 'run_1')).toEqual([]);
  await expect(readDocuments(ctx, 'run_2')).rejects.toThrow('no object');
});
