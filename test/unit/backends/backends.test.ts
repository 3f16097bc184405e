// The parts of vector backends that stand alone: the form of vectors, names, the value that names a stage's backends,
// the operations of LanceDB's function.
import fc from 'fast-check';
import { afterEach, describe, expect, it } from 'vitest';
import { makeBackends } from '../../../functions/core/aws/backends.ts';
import { LanceBackend } from '../../../functions/core/aws/lance.ts';
import type { CopyIndex } from '../../../functions/core/backends/backend.ts';
import { folderOf, lancedb, tableNameOf } from '../../../functions/core/backends/lancedb.ts';
import { prepareVector } from '../../../functions/core/backends/prepare-vector.ts';
import { backendNames, backends } from '../../../functions/core/backends/registry.ts';
import { collectGarbage } from '../../../functions/core/store/collect-garbage.ts';
import { indexPrefix } from '../../../functions/core/store/vector-index.ts';
import { isLanceInstalled, type LanceUnderTest, startLance } from '../../fixtures/lance-fake.ts';
import { makeApp } from '../../http/app.ts';

const running: LanceUnderTest[] = [];
afterEach(() => {
  for (const one of running.splice(0)) one.stop();
});

describe('prepareVector', () => {
  const value = fc.float({ noNaN: true, noDefaultInfinity: true });
  const vector = fc.array(value, { minLength: 1, maxLength: 12 }).map((values) => Float32Array.from(values));

  it('gives cosine a vector of length 1 in the same direction, whatever its size', () => {
    fc.assert(
      fc.property(vector, (given) => {
        const prepared = prepareVector('cosine', given, 'doc');
        const length = Math.sqrt(prepared.reduce((sum, x) => sum + x * x, 0));
        expect(Math.abs(length - 1)).toBeLessThan(1e-6);
        const largest = Math.max(...given.map(Math.abs));
        if (largest === 0) return;
        const scaled = Array.from(given, (x) => x / largest);
        const norm = Math.sqrt(scaled.reduce((sum, x) => sum + x * x, 0));
        for (const [i, x] of scaled.entries()) expect(Math.abs(prepared[i]! - x / norm)).toBeLessThan(1e-6);
      }),
    );
  });

  it('leaves vectors of other metrics as they are', () => {
    const given = Float32Array.of(0, 2, 1e30);
    expect(prepareVector('dot', given, 'x')).toBe(given);
    expect(prepareVector('euclid', given, 'x')).toBe(given);
  });

  it('spreads zero vectors by their ids, the same each time', () => {
    const zero = new Float32Array(64);
    const some = Array.from({ length: 50 }, (_, i) => prepareVector('cosine', zero, `doc_${i}`));
    expect(prepareVector('cosine', zero, 'doc_7')).toEqual(some[7]);
    for (let i = 1; i < some.length; i++) {
      const cosine = some[i]!.reduce((sum, x, j) => sum + x * some[i - 1]![j]!, 0);
      expect(Math.abs(cosine)).toBeLessThan(0.6);
    }
    expect(prepareVector('cosine', new Float32Array(1), 'a').map(Math.abs)).toEqual(Float32Array.of(1));
  });
});

describe('the registry', () => {
  it('has segments first, a stage setting for each other backend, and limits within one call', () => {
    expect(backendNames[0]).toBe('segments');
    for (const name of backendNames) {
      const { title, stageSetting, limits } = backends[name];
      expect(title.length).toBeGreaterThan(5);
      expect(stageSetting === null).toBe(name === 'segments');
      if (name === 'segments') continue;
      expect(limits.rowsPerPut).toBeLessThanOrEqual(500);
      // One vector of the largest dimension must fit.
      expect(limits.vectorBytesPerPut).toBeGreaterThan(4096 * 4);
      expect(limits.candidatesMax).toBeLessThanOrEqual(10_000);
    }
  });
});

describe('makeBackends', () => {
  it('makes what the value names, and nothing for an empty one', () => {
    expect(makeBackends('{}')).toEqual({});
    expect(
      Object.keys(makeBackends('{"s3_vectors":{"bucket":"vectors"},"lancedb":{"function":"lance"}}')),
    ).toEqual(['s3_vectors', 'lancedb']);
  });

  it('refuses a value that infrastructure did not write', () => {
    for (const value of ['', '[]', '{"faiss":{}}', '{"s3_vectors":{}}', '{"lancedb":{"function":""}}'])
      expect(() => makeBackends(value), value).toThrow();
  });
});

const kinds = isLanceInstalled ? (['fake', 'real'] as const) : (['fake'] as const);

describe.each(kinds)('the function of LanceDB over the %s package', (kind) => {
  const index: CopyIndex = {
    namespace_id: 'ns_one',
    collection_id: 'col_one',
    feature_uri: 'f',
    dims: 3,
    metric: 'euclid',
  };
  const make = (options: { readonly indexRowsMin?: number } = {}) => {
    const lance = startLance(kind, options);
    running.push(lance);
    return { lance, backend: new LanceBackend(lance.caller) };
  };
  const rows = (count: number) =>
    Array.from({ length: count }, (_, i) => ({ id: `doc_${i}`, seq: i, vector: Float32Array.of(i, 1, 0) }));

  it('keeps ids of any letters as they are, and nobody else goes with them', async () => {
    const { backend } = make();
    await backend.ensure(index);
    const ids = ["it's", "''", "') OR ('1'='1", '%', '量子', 'a"b', 'back\\slash', 'new\nline'];
    await backend.put(
      index,
      ids.map((id, i) => ({ id, seq: 2 ** 53 - 1 - i, vector: Float32Array.of(i, 0, 0) })),
    );
    const { rows: held } = await backend.list(index);
    expect(held.map(({ id }) => id).sort()).toEqual([...ids].sort());
    expect(held.find(({ id }) => id === "it's")).toEqual({ id: "it's", seq: 2 ** 53 - 1 });
    for (const [i, id] of ids.entries()) {
      await backend.remove(index, [id]);
      expect(await backend.count(index), id).toBe(ids.length - 1 - i);
    }
  });

  it('stays in the folder of the namespace and finds the tables of one collection', async () => {
    const { backend, lance } = make();
    const other = { ...index, collection_id: 'col_other' };
    for (const one of [index, other, { ...index, feature_uri: 'g' }]) await backend.ensure(one);
    await backend.dropAll({ namespace_id: 'ns_one', collection_id: 'col_one' });
    await expect(backend.count(index)).rejects.toMatchObject({ code: 'index_missing' });
    expect(await backend.count(other)).toBe(0);
    for (const call of lance.calls) expect(call.folder).toBe('ns_one/lance');
  });

  it('says what went wrong as data', async () => {
    const { lance } = make();
    expect(await lance.caller.call({ op: 'count', folder: 'f', table: 't' })).toMatchObject({
      ok: false,
      code: 'index_missing',
    });
    expect(await lance.caller.call({ op: 'explode' })).toMatchObject({ ok: false });
  });

  it('indexes a table that has grown large, and still finds what came later', async () => {
    const { backend } = make({ indexRowsMin: 200 });
    await backend.ensure(index);
    await backend.put(index, rows(300));
    await backend.settle(index);
    await backend.put(index, [{ id: 'late', seq: 900, vector: Float32Array.of(150.4, 1, 0) }]);
    expect((await backend.query(index, Float32Array.of(150.4, 1, 0), 3))[0]).toBe('late');
    await backend.settle(index);
    const found = await backend.query(index, Float32Array.of(150.4, 1, 0), 3);
    expect(found[0]).toBe('late');
    expect(found.length).toBe(3);
    expect(await backend.count(index)).toBe(301);
  });

  it('takes the largest vectors in calls that a Lambda takes', async () => {
    const { backend, lance } = make();
    const wide = { ...index, dims: 4096 };
    await backend.ensure(wide);
    const count = Math.floor(lancedb.limits.vectorBytesPerPut / (4096 * 4));
    await backend.put(
      wide,
      Array.from({ length: count }, (_, i) => ({
        id: `${'x'.repeat(250)}${i}`,
        seq: 2 ** 52 + i,
        vector: new Float32Array(4096).fill(i),
      })),
    );
    expect(JSON.stringify(lance.calls.at(-1)).length).toBeLessThan(6_000_000);
    expect(await backend.count(wide)).toBe(count);
  });
});

describe('the files of LanceDB', () => {
  it('lie where neither a collection nor its garbage collector looks', async () => {
    const app = await makeApp();
    const { ctx, ports } = app;
    const folder = folderOf(ctx.ns.namespaceId);
    const key = `${folder}/${tableNameOf({ collection_id: 'col_one', feature_uri: 'f' })}.lance/data/x.lance`;
    await ports.index.put(key, 'bytes');
    expect(key.startsWith(indexPrefix(ctx, 'col_one'))).toBe(false);
    await ports.table.write([{ put: { ...ctx.ns.resource('COLLECTION', 'col_one'), id: 'col_one' } }]);
    ports.clock.advance(90 * 24 * 3_600_000);
    await collectGarbage(ctx, 'col_one');
    expect(await ports.index.head(key)).toBeDefined();
  });
});
