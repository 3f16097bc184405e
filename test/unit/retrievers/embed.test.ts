// Embedding query texts: calls that fit, one call for many, a cache that keeps results and forgets failures.
import { describe, expect, it } from 'vitest';
import { AppError } from '../../../functions/core/errors.ts';
import type { EmbedTarget } from '../../../functions/core/resources/retrievers/embed.ts';
import { embedFault, embedQueries } from '../../../functions/core/resources/retrievers/embed.ts';
import type { QueryContent } from '../../../functions/core/retrieval/index.ts';
import { makeWorld, vectorFor } from '../batches/world.ts';

async function setUp(dims = 4) {
  const world = await makeWorld();
  const plugin = await world.addPlugin('wide', [{ name: 'wide_embedding', dims }]);
  const target: EmbedTarget = { plugin, feature_name: 'wide_embedding', dims, parameters: {} };
  const deadlineMs = world.ports.clock.now() + 60_000;
  const embed = (texts: readonly (string | QueryContent)[], more: Partial<EmbedTarget> = {}) =>
    embedQueries(world.ctx, { ...target, ...more }, texts, deadlineMs);
  return { world, target, embed, deadlineMs };
}

const vectorsOf = (embedded: Awaited<ReturnType<typeof embedQueries>>) =>
  embedded.map((entry) => ('vector' in entry ? entry.vector && [...entry.vector] : entry.failure.code));
const expected = (text: string, dims = 4) => [...Float32Array.from(vectorFor(`${text} 0`, dims))];

describe('embedQueries', () => {
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

  it('gives the owner a vector while the same query of a refused request is under way', async () => {
    const { world, target, deadlineMs } = await setUp();
    const refusal = new AppError('namespace_not_found');
    let refuse: () => void = () => {};
    const entered = new Promise<never>((_, reject) => {
      refuse = () => reject(refusal);
    });
    const refused = embedQueries({ ...world.ctx, entered }, target, ['a'], deadlineMs);
    const own = embedQueries(world.ctx, target, ['a'], deadlineMs);
    refuse();
    await expect(refused).rejects.toBe(refusal);
    expect(vectorsOf(await own)).toEqual([expected('a')]);
    expect(world.runner.calls).toHaveLength(1);
  });

  it('takes files beside texts, equal bytes once, in calls that fit', async () => {
    const { world, embed } = await setUp();
    const file = (i: number, bytes: number): QueryContent => ({
      bytes: Buffer.alloc(bytes, i),
      mime_type: 'image/png',
      digest: `digest ${i} ${bytes}`,
    });
    const files = Array.from({ length: 12 }, (_, i) => file(i, 700_000));
    const embedded = await embed(['a text', ...files, file(3, 700_000), file(1, 9_000_000)]);
    expect(embedded).toHaveLength(15);
    for (const entry of embedded) expect(entry).toMatchObject({ vector: expect.any(Float32Array) });
    expect(world.runner.calls.flatMap(({ rows }) => rows)).toHaveLength(14);
    for (const call of world.runner.calls) expect(JSON.stringify(call).length).toBeLessThan(6_000_000);
    const before = world.runner.calls.length;
    await embed([file(5, 700_000), { ...file(5, 700_000), mime_type: 'image/gif' }]);
    expect(world.runner.calls.slice(before).map(({ rows }) => rows.length)).toEqual([1]);
  });

  it.each([
    ['nothing', null],
    ['no object', 'text'],
    ['no vectors', { outputs: [], failures: [] }],
    ['vectors of another length', { dims: 5 }],
    ['fewer bytes than vectors', { count: 2 }],
    ['a vector that is not there', { place: 1 }],
    ['half a place', { place: 0.5 }],
    ['a row that is not there', { row: 1 }],
    ['a failure of a row that is not there', { failures: [{ row: 2 ** 31, code: 'x', message: 'y' }] }],
    ['a number that is not finite', { first: Number.NaN }],
    ['outputs that are no list', { outputs: { 0: {} } }],
  ])('is told by an error when the runner answers with %s', async (_, wrong) => {
    const { world, embed } = await setUp();
    const parts = (typeof wrong === 'object' ? (wrong ?? {}) : {}) as Record<string, unknown>;
    const isWhole =
      wrong !== null && typeof wrong === 'object' && !('outputs' in parts && 'failures' in parts);
    world.runner.answer = () =>
      isWhole
        ? {
            outputs: parts.outputs ?? [
              {
                row: parts.row ?? 0,
                ordinal: 0,
                columns: {},
                features: { wide_embedding: parts.place ?? 0 },
              },
            ],
            failures: parts.failures ?? [],
            vectors: {
              wide_embedding: {
                dims: parts.dims ?? 4,
                count: parts.count ?? 1,
                data_base64: Buffer.from(
                  Float32Array.from([(parts.first as number) ?? 1, 0, 0, 0]).buffer,
                ).toString('base64'),
              },
            },
          }
        : Promise.resolve(wrong);
    await expect(embed(['a'])).rejects.toMatchObject({
      code: expect.stringMatching(/^plugin_(failed|unavailable)$/),
    });
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
    await expect(embedQueries(world.ctx, target, ['x'], deadlineMs)).rejects.toMatchObject({
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
