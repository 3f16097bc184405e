// Names that are kept for a week, and what naming may cost.
import { describe, expect, it } from 'vitest';
import type { LabelCacheStore } from '../../../functions/core/labels/label-cache.ts';
import {
  cachedNamesDays,
  cachedNamesMax,
  openLabelCache,
} from '../../../functions/core/labels/label-cache.ts';
import type {
  ClusterSample,
  LabelLimits,
  LabelModel,
  LabelOptions,
} from '../../../functions/core/labels/label-model.ts';
import { LabelModelFailure } from '../../../functions/core/labels/label-model.ts';
import { nameClusters } from '../../../functions/core/labels/name-clusters.ts';
import { fittingPrompt, labelPrompt, promptTokens } from '../../../functions/core/labels/prompt.ts';

const options: LabelOptions = { summaries: true, keywords: true, samplesMax: 20, sampleCharactersMax: 500 };
const noTime = { untilMs: Number.MAX_SAFE_INTEGER, now: () => 0, pause: async () => undefined };
const dayMs = 24 * 3_600_000;
const cluster = (i: number, text = `text ${i}`): ClusterSample & { label: string } => ({
  cluster_id: `cl_${i}`,
  num_members: 10,
  keywords: [`word${i}`],
  samples: [text],
  label: `words ${i}`,
});

function memory(text?: string): LabelCacheStore & { text: string | undefined; writes: number } {
  return {
    text,
    writes: 0,
    async read() {
      return this.text;
    },
    async write(next) {
      this.text = next;
      this.writes += 1;
    },
  };
}

/** Names every cluster that it is asked about after its first sample. */
function model(limits: Partial<LabelLimits> = {}): LabelModel & { asked: string[][]; tokens: number } {
  return {
    name: 'obedient',
    limits: { promptTokensMax: 20_000, runTokensMax: 10_000_000, ...limits },
    asked: [],
    tokens: 0,
    async complete(prompt) {
      const shown = prompt.user
        .split('\n')
        .filter((line) => line.startsWith('{'))
        .map((line) => JSON.parse(line) as { cluster_id: string; texts: string[] });
      this.asked.push(shown.map(({ cluster_id }) => cluster_id));
      this.tokens += promptTokens(prompt);
      return JSON.stringify({
        clusters: shown.map(({ cluster_id, texts }) => ({
          cluster_id,
          label: `About ${texts[0]!.slice(0, 20)}`,
        })),
      });
    },
  };
}

describe('names that were given before', () => {
  const run = async (
    store: LabelCacheStore,
    clusters: readonly ReturnType<typeof cluster>[],
    nowMs: number,
    more = {},
  ) => {
    const asked = model();
    const cache = await openLabelCache(store, asked.name, { ...options, ...more }, nowMs);
    const { names, faults } = await nameClusters(asked, clusters, { ...options, ...more }, noTime, cache);
    return {
      asked: asked.asked.flat(),
      labels: [...names].map(([id, { label }]) => `${id} ${label}`).sort(),
      faults,
    };
  };

  it('are not asked for again while the model would be shown the same, whatever the id and the size of the cluster', async () => {
    const store = memory();
    const first = await run(store, [cluster(0), cluster(1)], 0);
    expect(first).toEqual({
      asked: ['cl_0', 'cl_1'],
      labels: ['cl_0 About text 0', 'cl_1 About text 1'],
      faults: [],
    });
    const moved = [
      { ...cluster(0), cluster_id: 'cl_5', num_members: 99 },
      cluster(1, 'a new text'),
      cluster(2),
    ];
    const second = await run(store, moved, dayMs);
    expect(second.asked).toEqual(['cl_1', 'cl_2']);
    expect(second.labels).toEqual(['cl_1 About a new text', 'cl_2 About text 2', 'cl_5 About text 0']);
    expect(store.writes).toBe(2);
  });

  it('are asked for again after a week, of another model, and when more is wanted', async () => {
    const store = memory();
    await run(store, [cluster(0)], 0);
    expect((await run(store, [cluster(0)], cachedNamesDays * dayMs - 1)).asked).toEqual([]);
    expect((await run(memory(store.text), [cluster(0)], cachedNamesDays * dayMs)).asked).toEqual(['cl_0']);
    expect((await run(memory(store.text), [cluster(0)], 1, { summaries: false })).asked).toEqual(['cl_0']);
    expect((await run(memory(store.text), [cluster(0)], 1, { context: 'bank' })).asked).toEqual(['cl_0']);
    const other = await openLabelCache(store, 'another', options, 1);
    expect(other.find(cluster(0))).toBeUndefined();
  });

  it('are given to one cluster each, and the other is asked about', async () => {
    const store = memory();
    await run(store, [cluster(0)], 0);
    const twins = [cluster(0), { ...cluster(0), cluster_id: 'cl_1' }];
    const { asked, labels, faults } = await run(store, twins, 1);
    expect(asked).toEqual(['cl_1']);
    expect(labels).toEqual(['cl_0 About text 0']);
    expect(faults).toEqual(['cl_1: the label is that of another cluster.']);
  });

  it('are few enough to be read in one piece: the newest stay', async () => {
    const store = memory();
    for (let round = 0; round < 6; round++) {
      const cache = await openLabelCache(store, 'm', options, round);
      await cache.keep(
        Array.from({ length: 200 }, (_, i) => ({
          cluster: cluster(round * 200 + i),
          name: { label: 'x', summary: undefined, keywords: undefined },
        })),
      );
    }
    const cache = await openLabelCache(store, 'm', options, 6);
    expect(Object.keys((JSON.parse(store.text!) as { names: object }).names)).toHaveLength(cachedNamesMax);
    expect(cache.find(cluster(0))).toBeUndefined();
    expect(cache.find(cluster(1199))).toEqual({ label: 'x', summary: undefined, keywords: undefined });
  });

  it.each([
    '',
    'no JSON',
    '[]',
    '{"names":[]}',
    '{"names":{"a":{"label":5}}}',
    '{"names":{"a":{"label":"x"}}}',
  ])('that cannot be read, as in %j, are asked for again', async (text) => {
    const store = memory(text);
    expect((await run(store, [cluster(0)], 0)).asked).toEqual(['cl_0']);
    expect((await run(store, [cluster(0)], 1)).asked).toEqual([]);
  });

  it('that never were good are not kept', async () => {
    const store = memory();
    const bad: LabelModel = {
      ...model(),
      complete: async () => '{"clusters":[{"cluster_id":"cl_0","label":"<b>"}]}',
    };
    await nameClusters(bad, [cluster(0)], options, noTime, await openLabelCache(store, bad.name, options, 0));
    expect(store.text).toBeUndefined();
  });
});

describe('the cap on tokens', () => {
  const long = (i: number) => ({
    ...cluster(i),
    samples: Array.from({ length: 20 }, () => `${i} ${'wort '.repeat(100)}`),
  });

  it('of one prompt shows fewer clusters at once, then fewer and shorter samples, and never more than it allows', () => {
    const clusters = Array.from({ length: 20 }, (_, i) => long(i));
    const counts = [100_000, 40_000, 10_000, 3_000, 1_000].map((tokensMax) => {
      const { count, prompt } = fittingPrompt(clusters, options, [], tokensMax);
      expect(prompt && promptTokens(prompt)).toBeLessThanOrEqual(tokensMax);
      return count;
    });
    expect(counts).toEqual([20, 10, 2, 1, 1]);
    const { prompt } = fittingPrompt(clusters, options, [], 1_000);
    expect(prompt!.user).toContain('"word0"');
    expect(fittingPrompt(clusters, options, [], 100)).toEqual({ count: 0, prompt: undefined });
  });

  it('counts rather too many than too few: every script has at least a token for three bytes', () => {
    for (const text of ['plain English words', 'слова', '言葉の意味', '🙂🙂🙂']) {
      const { user, system, schema } = labelPrompt([cluster(0, text)], options, []);
      const bytes = Buffer.byteLength(system + user + JSON.stringify(schema));
      expect(promptTokens({ user, system, schema })).toBe(Math.ceil(bytes / 3));
    }
  });

  it('of one prompt is kept by every prompt of a run, and all clusters get their names', async () => {
    const asked = model({ promptTokensMax: 10_000 });
    const clusters = Array.from({ length: 20 }, (_, i) => long(i));
    const { names, faults } = await nameClusters(asked, clusters, options, noTime);
    expect([names.size, faults]).toEqual([20, []]);
    expect(asked.asked.length).toBeGreaterThan(4);
    expect(asked.tokens).toBeLessThanOrEqual(asked.asked.length * 10_000);
  });

  it('of a run ends the asking, with the reason, and what is asked again counts again', async () => {
    const asked = model({ promptTokensMax: 10_000, runTokensMax: 25_000 });
    const clusters = Array.from({ length: 20 }, (_, i) => long(i));
    const { names, faults } = await nameClusters(asked, clusters, options, noTime);
    expect(asked.tokens).toBeLessThanOrEqual(25_000);
    expect(names.size).toBe(asked.asked.flat().length);
    expect(names.size).toBeLessThan(20);
    expect(faults).toEqual([expect.stringContaining('may have 25000 tokens')]);

    let calls = 0;
    const busy: LabelModel = {
      name: 'busy',
      limits: {
        promptTokensMax: 10_000,
        runTokensMax: promptTokens(labelPrompt([cluster(0)], options, [])) * 2,
      },
      complete: async () => {
        calls += 1;
        throw new LabelModelFailure('busy', true);
      },
    };
    const gaveUp = await nameClusters(busy, [cluster(0)], options, noTime);
    expect([calls, gaveUp.faults]).toEqual([2, [expect.stringContaining('not asked about more')]]);
  });

  it('that not even one cluster meets leaves that one its words, and goes on', async () => {
    const enough = promptTokens(labelPrompt([cluster(1)], options, []));
    const asked = model({ promptTokensMax: enough + 50 });
    const wide = { ...cluster(0), keywords: Array.from({ length: 10 }, (_, i) => `${i}${'語'.repeat(39)}`) };
    const { names, faults } = await nameClusters(asked, [wide, cluster(1)], options, noTime);
    expect([...names.keys()]).toEqual(['cl_1']);
    expect(faults).toEqual(['cl_0: its words and samples are more than one prompt may hold.']);
  });
});
