// Resources that need each other, under requests at once: no child without its parent, no name twice, counts that hold.
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { NsCtx } from '../../../functions/core/context.ts';
import { AppError } from '../../../functions/core/errors.ts';
import type { StoredResource } from '../../../functions/core/store/resource-store.ts';
import { resourceStore } from '../../../functions/core/store/resource-store.ts';
import { makeApp } from '../../http/app.ts';

const parents = resourceStore<StoredResource>({
  kind: 'BUCKET',
  noun: 'bucket',
  idPrefix: 'bkt_',
  countMax: 50,
});
const children = resourceStore<StoredResource>({
  kind: 'COLLECTION',
  noun: 'collection',
  idPrefix: 'col_',
  countMax: 50,
});

type Step =
  | { readonly do: 'makeParent' | 'dropParent' | 'dropChild'; readonly n: number; readonly name: number }
  | {
      readonly do: 'makeChild' | 'moveChild' | 'renameParent';
      readonly n: number;
      readonly of: number;
      readonly name: number;
    };

const n = fc.integer({ min: 0, max: 3 });
const step: fc.Arbitrary<Step> = fc.oneof(
  fc.record({
    do: fc.constantFrom('makeParent' as const, 'dropParent' as const, 'dropChild' as const),
    n,
    name: n,
  }),
  fc.record({
    do: fc.constantFrom('makeChild' as const, 'moveChild' as const, 'renameParent' as const),
    n,
    of: n,
    name: n,
  }),
);

/** Refusals are answers; anything else that is thrown is a fault. */
async function attempt(work: Promise<unknown>): Promise<void> {
  await work.catch((error: unknown) => {
    if (!(error instanceof AppError)) throw error;
    expect(error.code).toMatch(/_(not_found|name_taken|in_use|changed)$/);
  });
}

/** Ids that were given out in a run; a create always gets a fresh one, as in the services. */
class Ids {
  readonly #given = { bkt: 0, col: 0 };
  fresh(kind: 'bkt' | 'col'): string {
    return `${kind}_${this.#given[kind]++}`;
  }
  /** One of the latest four, which may be gone by now. */
  some(kind: 'bkt' | 'col', n: number): string {
    return `${kind}_${Math.max(0, this.#given[kind] - 1 - n)}`;
  }
}

async function run(ctx: NsCtx, ids: Ids, one: Step): Promise<void> {
  const parentOf = (of: number) => [{ kind: 'BUCKET' as const, id: ids.some('bkt', of) }];
  switch (one.do) {
    case 'makeParent':
      return void (await parents.create(ctx, { id: ids.fresh('bkt'), name: `p${one.name}`, parents: [] }));
    case 'dropParent':
      return parents.remove(ctx, await parents.get(ctx, ids.some('bkt', one.n)));
    case 'renameParent':
      return void (await parents.update(ctx, await parents.get(ctx, ids.some('bkt', one.n)), {
        name: `p${one.name}`,
      }));
    case 'makeChild':
      return void (await children.create(ctx, {
        id: ids.fresh('col'),
        name: `c${one.name}`,
        parents: parentOf(one.of),
      }));
    case 'moveChild':
      return void (await children.update(ctx, await children.get(ctx, ids.some('col', one.n)), {
        parents: parentOf(one.of),
      }));
    case 'dropChild':
      return children.remove(ctx, await children.get(ctx, ids.some('col', one.n)));
  }
}

async function assertSound(ctx: NsCtx): Promise<void> {
  const [stored, made] = [await parents.list(ctx), await children.list(ctx)];
  for (const child of made)
    for (const parent of child.parents) expect(stored.map(({ id }) => id)).toContain(parent.id);
  for (const parent of stored) {
    const { shown, total } = await parents.dependants(ctx, parent.id);
    const expected = made
      .filter((child) => child.parents.some(({ id }) => id === parent.id))
      .map(({ id }) => id);
    expect(shown.map(({ id }) => id).sort()).toEqual(expected.sort());
    expect(total).toBe(expected.length);
    const row = await ctx.ports.table.get(ctx.ns.resource('BUCKET', parent.id));
    expect(Number(row?.dependants ?? 0)).toBe(expected.length);
  }
  for (const [store, list] of [
    [parents, stored],
    [children, made],
  ] as const) {
    expect(new Set(list.map(({ name }) => name)).size).toBe(list.length);
    for (const one of list) expect((await store.find(ctx, one.name))?.id).toBe(one.id);
  }
  const guards = (await ctx.ports.table.query(ctx.ns.pk, { prefix: 'NAME#' })).items.length;
  expect(guards).toBe(stored.length + made.length);
}

describe('resources that need each other', () => {
  it('stay sound whatever is asked for one after the other', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 30 }), async (steps) => {
        const { ctx } = await makeApp();
        const ids = new Ids();
        for (const one of steps) await attempt(run(ctx, ids, one));
        await assertSound(ctx);
      }),
      { numRuns: 100 },
    );
  });

  it('stay sound whatever is asked for at once', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.array(step, { minLength: 1, maxLength: 6 }), { maxLength: 8 }),
        fc.scheduler(),
        async (rounds, scheduler) => {
          const { ctx, ports } = await makeApp();
          // Every call to the table may be overtaken by any other.
          const { get, query, write } = {
            get: ports.table.get.bind(ports.table),
            query: ports.table.query.bind(ports.table),
            write: ports.table.write.bind(ports.table),
          };
          const late =
            <A extends unknown[], R>(call: (...parts: A) => Promise<R>) =>
            async (...parts: A) => {
              await scheduler.schedule(Promise.resolve());
              return call(...parts);
            };
          Object.assign(ports.table, { get: late(get), query: late(query), write: late(write) });
          const ids = new Ids();
          for (const round of rounds) {
            const all = Promise.all(round.map((one) => attempt(run(ctx, ids, one))));
            await scheduler.waitFor(all);
          }
          Object.assign(ports.table, { get, query, write });
          await assertSound(ctx);
        },
      ),
      { numRuns: 60 },
    );
  });
});
