// An index that several functions share gives each document the same references, reasons and values.
import { expect, it } from 'vitest';
import type { NsCtx } from '../../../functions/core/context.ts';
import { workflowContext } from '../../../functions/core/context.ts';
import { answerScan } from '../../../functions/core/fan-out/answer.ts';
import type { ScanRequest } from '../../../functions/core/fan-out/messages.ts';
import { openClassifier } from '../../../functions/core/resources/taxonomies/classify.ts';
import { getTaxonomy } from '../../../functions/core/resources/taxonomies/service.ts';
import { create, makeTopics } from './topics.ts';

const asJson = <T>(value: T): T => JSON.parse(JSON.stringify(value)) as T;

it('classification over several scan functions is that of one', async () => {
  const words = ['quantum', 'cook', 'ball', 'seed'];
  const textOf = (i: number) =>
    words.map((word, n) => `${word} `.repeat(Math.floor(i / 3 ** n) % 3)).join('') || 'ball';
  const library = await makeTopics();
  for (let batch = 0; batch < 3; batch += 1) {
    await library.publish(
      Array.from({ length: 30 }, (_, i) => ({
        text: textOf(batch * 30 + i),
        ...(i % 3 === 0 ? {} : { metadata: { topic: `topic ${(batch + i) % 4}` } }),
      })),
    );
  }
  await create(library, { execution_mode: 'on_demand', top_k: 5, vote: 'weighted', threshold: 0.5 });
  let calls = 0;
  const call = async (payload: unknown) => {
    calls += 1;
    const message = asJson(payload as ScanRequest);
    return asJson(await answerScan(workflowContext(library.ports, message), message));
  };
  const scanners = { bytesEach: 1, functions: [{ call }, { call }, { call }] };
  const sharded: NsCtx = { ...library.ctx, ports: { ...library.ports, scanners } };
  const taxonomy = await getTaxonomy(library.ctx, 'article-topics');
  const subjects = Array.from({ length: 40 }, (_, i) => ({ fields: { text: textOf(2 * i + 1) } }));
  const ask = async (ctx: NsCtx) =>
    (await openClassifier(ctx, taxonomy)).classify(subjects, library.ports.clock.now() + 10_000);
  const one = await ask(library.ctx);
  expect(calls).toBe(0);
  expect(await ask(sharded)).toEqual(one);
  expect(calls).toBeGreaterThan(1);
  const values = one.placements.map(({ assignments: [first] }) => first?.value);
  expect(new Set(values).size).toBeGreaterThan(3);
});
