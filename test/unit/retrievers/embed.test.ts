// Embedding query texts: calls that fit, one call for many, a cache that keeps results and forgets failures.
import { describe, expect, it } from 'vitest';
import type { EmbedTarget } from '../../../functions/core/resources/retrievers/embed.ts';
import { embedFault, embedTexts } from '../../../functions/core/resources/retrievers/embed.ts';
import { makeWorld, vectorFor } from '../batches/world.ts';

async function setUp(dims = 4) {
  const world = await makeWorld();
  const plugin = await world.addPlugin('wide', [{ name: 'wide_embedding', dims }]);
  const target: EmbedTarget = { plugin, feature_name: 'wide_embedding', dims, parameters: {} };
  const deadlineMs = world.ports.clock.now() + 60_000;
  const embed = (texts: readonly string[], more: Partial<EmbedTarget> = {}) =>
    embedTexts(world.ctx, { ...target, ...more }, texts, deadlineMs);
  return { world, embed, deadlineMs };
}

const vectorsOf = (embedded: Awaited<ReturnType<typeof embedTexts>>) =>
  embedded.map((entry) => ('vector' in entry ? entry.vector && [...entry.vector] : entry.failure.code));
const expected = (text: string, dims = 4) => [...Float32Array.from(vectorFor(`${text} 0`, dims))];

describe('embedTexts', () => {
  it('gives one vector per text, in order, from as few calls as fit into payload and reply', async () => {
    const { world, embed } = await setUp(1000);
    const texts = Array.from({ length: 500 }, (_, i) => `text ${i}`);
    const embedded = vectorsOf(await embed(texts));
    expect(embedded).toEqual(texts.map((text) => expected(text, 1000)));
    const sizes = world.runner.calls.map((call) => call.rows.length);
    expect(sizes.reduce((sum, size) => sum + size, 0)).toBe(500);
    expect(sizes).toHaveLength(2);
    expect(Math.max(...sizes) * 1000 * (16 / 3)).toBeLessThan(4 * 2 ** 20);
    const long = Array.from({ length: 100 }, (_, i) => `${i}`.padEnd(32_000, 'x'));
    world.runner.calls.length = 0;
    await embed(long);
    for (const call of world.runner.calls) expect(JSON.stringify(call).length).toBeLessThan(6_000_000);
  });

  it('asks for a text once, however many ask for it at the same time', async () => {
    const { world, embed } = await setUp();
    const [one, two] = await Promise.all([embed(['a', 'b']), embed(['b', 'a', 'c'])]);
    expect(vectorsOf(one)).toEqual([expected('a'), expected('b')]);
    expect(vectorsOf(two)).toEqual([expected('b'), expected('a'), expected('c')]);
    expect(world.runner.calls.map((call) => call.rows.map((row) => row.data))).toEqual([['a', 'b'], ['c']]);
    await embed(['a'], { parameters: { other: true } });
    expect(world.runner.calls).toHaveLength(3);
  });

  it('keeps what one text failed with to that text, and tries it again next time', async () => {
    const { world, embed } = await setUp();
    world.runner.behave = (row) =>
      row.data === 'bad' ? { fail: 'plugin_row_failed' } : row.data === 'blank' ? { vector: null } : {};
    expect(vectorsOf(await embed(['good', 'bad', 'blank']))).toEqual([
      expected('good'),
      'plugin_row_failed',
      undefined,
    ]);
    world.runner.behave = () => ({});
    expect(vectorsOf(await embed(['good', 'bad', 'blank']))).toEqual([
      expected('good'),
      expected('bad'),
      undefined,
    ]);
    expect(world.runner.calls.map((call) => call.rows.map((row) => row.data))).toEqual([
      ['good', 'bad', 'blank'],
      ['bad'],
    ]);
  });

  it('refuses a reply that cannot be true', async () => {
    const { world, embed } = await setUp();
    const block = { dims: 4, count: 1, data_base64: Buffer.alloc(16).toString('base64') };
    const output = { row: 0, ordinal: 0, features: { wide_embedding: 0 } };
    for (const reply of [
      {},
      { outputs: [output], vectors: { other: block } },
      { outputs: [output], vectors: { wide_embedding: { ...block, count: 2 } } },
      { outputs: [{ ...output, row: 7 }], vectors: { wide_embedding: block } },
      { outputs: [{ ...output, features: { wide_embedding: 1 } }], vectors: { wide_embedding: block } },
    ]) {
      world.runner.answer = () => reply;
      await expect(embed(['x'])).rejects.toMatchObject({ code: 'plugin_failed' });
    }
  });

  it('does not begin a call when there is no time left', async () => {
    const { world, deadlineMs } = await setUp();
    world.ports.clock.advance(60_000);
    const plugin = await world.addPlugin('other');
    const target = { plugin, feature_name: 'other_embedding', dims: 4, parameters: {} };
    await expect(embedTexts(world.ctx, target, ['x'], deadlineMs)).rejects.toMatchObject({
      code: 'retriever_timeout',
    });
    expect(world.runner.calls).toEqual([]);
  });
});

describe('embedFault', () => {
  it('tells apart a plugin that failed, one that was too slow, a runner that is away, and a fault of ours', () => {
    const fault = (code: string, retryable: boolean) =>
      embedFault('p_1_0_0', { code, message: 'why', retryable });
    expect(fault('plugin_row_failed', false)).toMatchObject({
      code: 'plugin_failed',
      status: 500,
      extra: { plugin_error: 'plugin_row_failed' },
    });
    expect(fault('plugin_not_probed', true)).toMatchObject({ code: 'plugin_timeout', status: 504 });
    expect(fault('archive_download_failed', true)).toMatchObject({
      code: 'plugin_unavailable',
      status: 503,
      retryAfterSeconds: 5,
    });
    expect(fault('bad_request', false).detail).not.toContain('why');
  });
});
