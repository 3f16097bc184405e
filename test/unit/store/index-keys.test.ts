// Objects that the sweeper may take away soon are not committed.
import { describe, expect, it } from 'vitest';
import { virtualClock } from '../../../functions/core/clock.ts';
import { workflowContext } from '../../../functions/core/context.ts';
import type { Ports } from '../../../functions/core/ports.ts';
import { compactIndex } from '../../../functions/core/store/compact-index.ts';
import { MemoryBlobs, MemoryTable } from '../../../functions/core/store/memory.ts';
import {
  commitIndex,
  documentsUri,
  putSegment,
  readHead,
} from '../../../functions/core/store/vector-index.ts';
import { compactionRules } from '../../../functions/core/vectors/compaction-plan.ts';

const hour = 3_600_000;
const id = 'col_one';

async function makeWorld() {
  const clock = virtualClock();
  const table = new MemoryTable();
  const index = new MemoryBlobs('index', clock);
  let drawn = 0;
  const random = {
    bytes: (count: number) => Uint8Array.from({ length: count }, () => (drawn = (drawn * 5 + 13) & 0xff)),
  };
  const ports = { table, index, clock, random } as unknown as Ports;
  const ctx = workflowContext(ports, { org_id: 'org_one', namespace_id: 'ns_one', request_id: 'req' });
  await table.write([{ put: { ...ctx.ns.resource('COLLECTION', id), id } }]);
  const stored = async (name: string) => {
    const segment = await putSegment(ctx, id, { kind: 'data', dims: 0, metric: null, rows: [{ id: name }] });
    const additions = [{ uri: documentsUri, dims: 0, metric: null, segment }];
    return { collection_id: id, document_delta: 1, additions };
  };
  return { clock, index, ctx, stored };
}

describe('a commit', () => {
  it('takes segments that were stored up to 24 hours ago, and names one that is older', async () => {
    const { clock, ctx, stored } = await makeWorld();
    const [early, late] = [await stored('doc_a'), await stored('doc_b')];
    clock.advance(24 * hour);
    await commitIndex(ctx, [early], { token: 'early' });
    clock.advance(1);
    await expect(commitIndex(ctx, [late], { token: 'late' })).rejects.toMatchObject({
      code: 'index_upload_expired',
      detail: expect.stringContaining(late.additions[0]!.segment.key),
    });
    expect(await readHead(ctx, id)).toMatchObject({ version: 1, document_count: 1 });
    // A repetition of what is done needs no segment.
    expect((await commitIndex(ctx, [early], { token: 'early' })).repeated).toBe(true);
  });

  it('of a compaction that slept for a day is refused likewise, and leaves the index as it is', async () => {
    const { clock, index, ctx, stored } = await makeWorld();
    for (const name of ['doc_a', 'doc_b', 'doc_c'])
      await commitIndex(ctx, [await stored(name)], { token: name });
    const put = index.put.bind(index);
    index.put = async (...given) => {
      const done = await put(...given);
      if (given[0].includes('/seg/')) clock.advance(25 * hour);
      return done;
    };
    const rules = { ...compactionRules, looseSegmentsMax: 1, looseSegmentsKept: 0 };
    await expect(compactIndex(ctx, id, { rules })).rejects.toMatchObject({ code: 'index_upload_expired' });
    expect(await readHead(ctx, id)).toMatchObject({ version: 3, document_count: 3 });
  });
});
