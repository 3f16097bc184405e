// What any table must do, whatever keeps its rows. Run over memory in `vitest run`, over DynamoDB by the emulator's tests.
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Attribute, Condition, Item, Key, Table, Write } from '../../../functions/core/store/table.ts';
import { ConditionFailed, queryAll } from '../../../functions/core/store/table.ts';

export interface TableUnderTest {
  readonly name: string;
  /** A table, shared by all tests of the suite: each uses partitions of its own. */
  make(): Promise<Table>;
  /** Runs of each property; fewer where a call costs. */
  readonly runs: number;
}

let partitions = 0;
/** A partition key that no other test uses, in this run or another. */
const fresh = (): string => `T#${Date.now().toString(36)}${process.pid}#${partitions++}`;

async function failed(attempt: Promise<unknown>): Promise<ConditionFailed> {
  try {
    await attempt;
  } catch (error) {
    if (error instanceof ConditionFailed) return error;
    throw error;
  }
  throw new Error('the write went through');
}

const attribute: fc.Arbitrary<Attribute> = fc.letrec<{ value: Attribute }>((tie) => ({
  value: fc.oneof(
    { depthSize: 'small', withCrossShrink: true },
    fc.string({ unit: 'grapheme' }),
    fc.integer(),
    fc.double({ noNaN: true, noDefaultInfinity: true }),
    fc.constantFrom(2 ** 53, -(2 ** 60), 1e21, 1e125, 1e126, -1.7e308, 1e-130, 1e-131, 5e-324, 0.1 + 0.2),
    fc.boolean(),
    fc.constant(null),
    fc.uint8Array({ maxLength: 20 }),
    fc.array(tie('value'), { maxLength: 4 }),
    fc.dictionary(
      fc.string({ minLength: 1, maxLength: 8 }).filter((name) => name !== '__proto__'),
      tie('value'),
      { maxKeys: 4 },
    ),
  ),
})).value;

/** -0 and 0 are the same number in a table. */
const normal = (value: unknown): unknown =>
  typeof value === 'number'
    ? value + 0
    : value instanceof Uint8Array
      ? Buffer.from(value).toString('hex')
      : Array.isArray(value)
        ? value.map(normal)
        : value !== null && typeof value === 'object'
          ? Object.fromEntries(
              Object.entries(value)
                .sort(([a], [b]) => (a < b ? -1 : 1))
                .map(([k, v]) => [k, normal(v)]),
            )
          : value;

export function tableSuite({ name, make, runs }: TableUnderTest): void {
  describe(`a table: ${name}`, () => {
    describe('rows', () => {
      it('come back as they were put, whatever they hold', async () => {
        const table = await make();
        await fc.assert(
          fc.asyncProperty(
            fc.dictionary(
              fc
                .string({ minLength: 1, maxLength: 12 })
                .filter((n) => !['pk', 'sk', '__proto__'].includes(n)),
              attribute,
              { maxKeys: 6 },
            ),
            async (members) => {
              const key = { pk: fresh(), sk: 'x' };
              await table.write([{ put: { ...members, ...key } }]);
              expect(normal(await table.get(key))).toEqual(normal({ ...members, ...key }));
            },
          ),
          { numRuns: runs },
        );
      });

      it('leave out members that are undefined, and keep empty text, lists and maps', async () => {
        const table = await make();
        const key = { pk: fresh(), sk: 'x' };
        await table.write([
          {
            put: {
              ...key,
              gone: undefined,
              text: '',
              list: [],
              map: {},
              deep: { gone: undefined, kept: null },
            },
          },
        ]);
        expect(await table.get(key)).toEqual({ ...key, text: '', list: [], map: {}, deep: { kept: null } });
      });

      it('that are not there are undefined', async () => {
        const table = await make();
        expect(await table.get({ pk: fresh(), sk: 'x' })).toBeUndefined();
      });

      it('read are copies: changing one changes nothing', async () => {
        const table = await make();
        const key = { pk: fresh(), sk: 'x' };
        const put = { ...key, list: [1], map: { a: 1 } };
        await table.write([{ put }]);
        put.list.push(2);
        const read = (await table.get(key)) as unknown as typeof put;
        read.map.a = 9;
        expect(await table.get(key)).toEqual({ ...key, list: [1], map: { a: 1 } });
      });
    });

    describe('getMany', () => {
      it('answers in the order of the keys, with gaps, and twice for a key asked twice, over more than a page', async () => {
        const table = await make();
        const pk = fresh();
        const keys = Array.from({ length: 230 }, (_, i) => ({ pk, sk: String(i).padStart(4, '0') }));
        await table.writeMany(
          keys.filter((_, i) => i % 3 !== 0).map((key) => ({ put: { ...key, n: key.sk } })),
        );
        const asked = [...keys.toReversed(), keys[1]!];
        const found = await table.getMany(asked);
        expect(found.map((item) => item?.n)).toEqual(
          asked.map((key) => (Number(key.sk) % 3 === 0 ? undefined : key.sk)),
        );
        expect(await table.getMany([])).toEqual([]);
      });
    });

    describe('query', () => {
      const sks = ['A#1', 'A#10', 'A#2', 'A$', 'B#1', 'a#1', 'É#1', '文#1'];
      const ordered = [...sks].sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
      async function filled(): Promise<{ table: Table; pk: string }> {
        const table = await make();
        const pk = fresh();
        await table.writeMany(sks.map((sk) => ({ put: { pk, sk } })));
        await table.writeMany([{ put: { pk: `${pk}x`, sk: 'A#1' } }]);
        return { table, pk };
      }
      const found = (items: readonly Item[]) => items.map((item) => item.sk);

      it('answers one partition in the order of bytes, up or down', async () => {
        const { table, pk } = await filled();
        expect(found((await table.query(pk)).items)).toEqual(ordered);
        expect(found((await table.query(pk, { descending: true })).items)).toEqual(ordered.toReversed());
        expect((await table.query(fresh())).items).toEqual([]);
      });

      it('selects by prefix and by range, both ends included', async () => {
        const { table, pk } = await filled();
        expect(found((await table.query(pk, { prefix: 'A#' })).items)).toEqual(['A#1', 'A#10', 'A#2']);
        expect(found((await table.query(pk, { between: ['A#10', 'B#1'] })).items)).toEqual([
          'A#10',
          'A#2',
          'A$',
          'B#1',
        ]);
        expect(found((await table.query(pk, { prefix: 'zz' })).items)).toEqual([]);
      });

      it.each([false, true])(
        'goes page by page over everything once (descending: %s)',
        async (descending) => {
          const { table, pk } = await filled();
          for (const limit of [1, 2, 3, 100]) {
            const seen: string[] = [];
            let after: Key | undefined;
            do {
              const page = await table.query(pk, { limit, after, descending });
              expect(page.items.length).toBeLessThanOrEqual(limit);
              seen.push(...found(page.items));
              after = page.next;
            } while (after);
            expect(seen).toEqual(descending ? ordered.toReversed() : ordered);
          }
        },
      );

      it('goes on after a row that is gone, and sees rows that came meanwhile behind the cursor only', async () => {
        const { table, pk } = await filled();
        const first = await table.query(pk, { limit: 2 });
        await table.write([{ delete: { pk, sk: 'A#10' } }]);
        await table.write([{ put: { pk, sk: 'A#0' } }]);
        await table.write([{ put: { pk, sk: 'A#11' } }]);
        expect(found((await table.query(pk, { after: first.next })).items)).toEqual([
          'A#11',
          ...ordered.slice(2),
        ]);
      });

      it('with queryAll reaches every row of a partition that holds megabytes', async () => {
        const table = await make();
        const pk = fresh();
        const text = 'x'.repeat(50_000);
        await table.writeMany(
          Array.from({ length: 60 }, (_, i) => ({ put: { pk, sk: String(i).padStart(3, '0'), text } })),
        );
        let count = 0;
        for await (const item of queryAll(table, pk, { limit: 1000 })) {
          expect(item.sk).toBe(String(count).padStart(3, '0'));
          count++;
        }
        expect(count).toBe(60);
      });
    });

    describe('conditions', () => {
      const row = { n: 5, text: 'b', flag: true, nothing: null, list: [1] };
      const cases: [Condition, boolean, boolean][] = [
        // condition, holds of the row, holds where there is none
        [{ absent: true }, false, true],
        [{ present: true }, true, false],
        [{ attribute: 'n', eq: 5 }, true, false],
        [{ attribute: 'n', eq: 6 }, false, false],
        [{ attribute: 'n', eq: '5' }, false, false],
        [{ attribute: 'text', eq: 'b' }, true, false],
        [{ attribute: 'flag', eq: true }, true, false],
        [{ attribute: 'nothing', eq: null }, true, false],
        [{ attribute: 'missing', eq: null }, false, false],
        [{ attribute: 'n', ne: 6 }, true, true],
        [{ attribute: 'n', ne: 5 }, false, true],
        [{ attribute: 'missing', ne: 5 }, true, true],
        [{ attribute: 'n', lt: 6 }, true, false],
        [{ attribute: 'n', lt: 5 }, false, false],
        [{ attribute: 'n', gt: 4 }, true, false],
        [{ attribute: 'n', gt: 5 }, false, false],
        [{ attribute: 'n', lt: 'x' }, false, false],
        [{ attribute: 'text', lt: 'c' }, true, false],
        [{ attribute: 'text', gt: 'a' }, true, false],
        [{ attribute: 'text', gt: 3 }, false, false],
        [{ attribute: 'missing', lt: 9 }, false, false],
        [{ attribute: 'n', in: [1, 5] }, true, false],
        [{ attribute: 'n', in: [1, '5'] }, false, false],
        [{ attribute: 'missing', missing: true }, true, true],
        [{ attribute: 'n', missing: true }, false, true],
        [{ attribute: 'nothing', missing: true }, false, true],
        [{ anyOf: [{ absent: true }, { attribute: 'n', eq: 5 }] }, true, true],
        [
          {
            anyOf: [
              { attribute: 'n', eq: 1 },
              { attribute: 'text', eq: 'x' },
            ],
          },
          false,
          false,
        ],
        [{ allOf: [{ present: true }, { attribute: 'n', gt: 1 }, { attribute: 'n', lt: 9 }] }, true, false],
        [
          {
            allOf: [
              { attribute: 'n', eq: 5 },
              {
                anyOf: [
                  { attribute: 'text', eq: 'x' },
                  { attribute: 'flag', eq: true },
                ],
              },
            ],
          },
          true,
          false,
        ],
      ];

      it.each(cases)('%j', async (condition, ofRow, ofNothing) => {
        const table = await make();
        for (const [there, expected] of [
          [true, ofRow],
          [false, ofNothing],
        ] as const) {
          const key = { pk: fresh(), sk: 'x' };
          const beside = { pk: key.pk, sk: 'beside' };
          if (there) await table.write([{ put: { ...key, ...row } }]);
          const writes: Write[] = [{ check: key, if: [condition] }, { put: { ...beside, seen: true } }];
          if (expected) await table.write(writes);
          else {
            const failure = await failed(table.write(writes));
            expect(failure.failures).toEqual([{ index: 0, item: there ? { ...key, ...row } : undefined }]);
          }
          expect(await table.get(beside)).toEqual(expected ? { ...beside, seen: true } : undefined);
        }
      });

      it('hold for put, update and delete alike, and all of a write must hold', async () => {
        const table = await make();
        const key = { pk: fresh(), sk: 'x' };
        await table.write([{ put: { ...key, n: 1 }, if: [{ absent: true }] }]);
        const again = await failed(table.write([{ put: { ...key, n: 2 }, if: [{ absent: true }] }]));
        expect(again.of(0)?.item).toEqual({ ...key, n: 1 });
        expect(again.of(1)).toBeUndefined();
        await failed(
          table.write([
            {
              update: key,
              set: { n: 3 },
              if: [
                { attribute: 'n', eq: 1 },
                { attribute: 'n', gt: 1 },
              ],
            },
          ]),
        );
        await failed(table.write([{ delete: key, if: [{ attribute: 'n', ne: 1 }] }]));
        expect(await table.get(key)).toEqual({ ...key, n: 1 });
        await table.write([{ delete: key, if: [{ attribute: 'n', eq: 1 }] }]);
        await failed(table.write([{ update: key, set: { n: 3 }, if: [{ present: true }] }]));
        expect(await table.get(key)).toBeUndefined();
      });

      it('a single failed check says what it found', async () => {
        const table = await make();
        const key = { pk: fresh(), sk: 'x' };
        expect((await failed(table.write([{ check: key, if: [{ present: true }] }]))).failures).toEqual([
          { index: 0, item: undefined },
        ]);
      });

      it('of a transaction: every one that failed is named, and nothing is written', async () => {
        const table = await make();
        const pk = fresh();
        await table.write([{ put: { pk, sk: 'a', n: 1 } }]);
        const failure = await failed(
          table.write(
            [
              { put: { pk, sk: 'new' } },
              { put: { pk, sk: 'a', n: 2 }, if: [{ absent: true }] },
              { update: { pk, sk: 'b' }, set: { n: 1 }, if: [{ present: true }] },
              { delete: { pk, sk: 'a' }, if: [{ attribute: 'n', eq: 1 }] },
            ].slice(0, 3) as Write[],
          ),
        );
        expect(failure.failures).toEqual([
          { index: 1, item: { pk, sk: 'a', n: 1 } },
          { index: 2, item: undefined },
        ]);
        expect((await table.query(pk)).items).toEqual([{ pk, sk: 'a', n: 1 }]);
      });
    });

    describe('update', () => {
      it('sets, removes and adds, and makes the row where there is none', async () => {
        const table = await make();
        const key = { pk: fresh(), sk: 'x' };
        await table.write([{ update: key, set: { a: 1, skipped: undefined }, add: { count: 2 } }]);
        expect(await table.get(key)).toEqual({ ...key, a: 1, count: 2 });
        await table.write([
          { update: key, set: { b: { c: [1] } }, remove: ['a', 'never'], add: { count: -3, other: 0.5 } },
        ]);
        expect(await table.get(key)).toEqual({ ...key, b: { c: [1] }, count: -1, other: 0.5 });
      });

      it('takes names that are words of the query language or hold odd characters', async () => {
        const table = await make();
        const key = { pk: fresh(), sk: 'x' };
        const names = ['size', 'name', 'status', 'a.b', 'a-b', '#n', ':v', 'with space', 'ü'];
        await table.write([
          {
            update: key,
            set: Object.fromEntries(names.map((one) => [one, 1])),
            if: [{ attribute: 'status', missing: true }],
          },
        ]);
        expect(await table.get(key)).toEqual({ ...key, ...Object.fromEntries(names.map((one) => [one, 1])) });
        await failed(table.write([{ update: key, set: { size: 2 }, if: [{ attribute: 'a.b', eq: 2 }] }]));
      });

      it('of one counter by many at once loses none', async () => {
        const table = await make();
        const key = { pk: fresh(), sk: 'x' };
        await Promise.all(Array.from({ length: 12 }, () => table.write([{ update: key, add: { n: 1 } }])));
        expect(await table.get(key)).toEqual({ ...key, n: 12 });
      });

      it('by version: of many at once one wins', async () => {
        const table = await make();
        const key = { pk: fresh(), sk: 'x' };
        await table.write([{ put: { ...key, version: 1 } }]);
        const outcomes = await Promise.allSettled(
          Array.from({ length: 8 }, (_, i) =>
            table.write([
              { update: key, set: { version: 2, by: i }, if: [{ attribute: 'version', eq: 1 }] },
              { put: { pk: key.pk, sk: `won${i}` } },
            ]),
          ),
        );
        expect(outcomes.filter((outcome) => outcome.status === 'fulfilled').length).toBe(1);
        for (const outcome of outcomes)
          if (outcome.status === 'rejected') expect(outcome.reason).toBeInstanceOf(ConditionFailed);
        expect((await table.query(key.pk, { prefix: 'won' })).items).toHaveLength(1);
      });
    });

    describe('transactions', () => {
      it('take 100 writes and no more, and a key once', async () => {
        const table = await make();
        const pk = fresh();
        const puts = (count: number): Write[] =>
          Array.from({ length: count }, (_, i) => ({ put: { pk, sk: String(i).padStart(3, '0') } }));
        await table.write(puts(100));
        expect((await table.query(pk)).items).toHaveLength(100);
        await expect(table.write(puts(101))).rejects.toThrow();
        await expect(
          table.write([{ put: { pk, sk: 'twice' } }, { delete: { pk, sk: 'twice' } }]),
        ).rejects.toThrow();
        expect(await table.get({ pk, sk: 'twice' })).toBeUndefined();
        await table.write([]);
      });

      it('repeated under a token have one effect', async () => {
        const table = await make();
        const key = { pk: fresh(), sk: 'x' };
        const token = `token-${Date.now()}-${partitions++}`.slice(0, 36);
        const writes: Write[] = [{ update: key, add: { n: 1 } }];
        await table.write(writes, token);
        await table.write(writes, token);
        expect(await table.get(key)).toEqual({ ...key, n: 1 });
        await expect(table.write([{ update: key, add: { n: 5 } }], token)).rejects.toThrow();
      });
    });

    describe('writeMany', () => {
      it('puts and deletes any number', async () => {
        const table = await make();
        const pk = fresh();
        const keys = Array.from({ length: 130 }, (_, i) => ({ pk, sk: String(i).padStart(4, '0') }));
        await table.writeMany(keys.map((key) => ({ put: { ...key, n: 1 } })));
        await table.writeMany([
          ...keys.slice(0, 100).map((key) => ({ delete: key })),
          { put: { pk, sk: 'more' } },
        ]);
        expect((await table.query(pk)).items).toHaveLength(31);
        await table.writeMany([]);
      });
    });

    describe('due', () => {
      it('answers rows of a shard whose time has come, oldest first, as far as asked; rows without a time never', async () => {
        const table = await make();
        const pk = fresh();
        const shard = `DUE#${pk}`;
        const time = (minute: number) => `2026-01-01T00:${String(minute).padStart(2, '0')}:00.000Z`;
        await table.writeMany(
          [3, 1, 2, 9].map((minute) => ({
            put: { pk, sk: String(minute), due_pk: shard, due_at: time(minute) },
          })),
        );
        await table.writeMany([
          { put: { pk, sk: 'other', due_pk: `${shard}x`, due_at: time(1) } },
          { put: { pk, sk: 'none' } },
        ]);
        const due = async (until: string, limit = 10) =>
          (await table.due(shard, until, limit)).map((item) => item.sk);
        expect(await due(time(3))).toEqual(['1', '2', '3']);
        expect(await due(time(3), 2)).toEqual(['1', '2']);
        expect(await due(time(0))).toEqual([]);
        await table.write([{ update: { pk, sk: '1' }, remove: ['due_pk', 'due_at'] }]);
        expect(await due(time(3))).toEqual(['2', '3']);
      });
    });

    describe('against a model', () => {
      it('any sequence of writes leaves what a map would hold', async () => {
        const table = await make();
        const sk = fc.constantFrom('a', 'b', 'c');
        const number = fc.integer({ min: -3, max: 3 });
        const condition = fc.constantFrom<readonly Condition[] | undefined>(
          undefined,
          [{ absent: true }],
          [{ present: true }],
          [{ attribute: 'n', lt: 1 }],
          [{ attribute: 'n', missing: true }],
        );
        const step = fc.record({
          kind: fc.constantFrom('put', 'update', 'delete', 'add'),
          sk,
          number,
          condition,
        });
        await fc.assert(
          fc.asyncProperty(fc.array(step, { maxLength: 12 }), async (steps) => {
            const pk = fresh();
            const model = new Map<string, Record<string, unknown>>();
            for (const { kind, sk: name, number: n, condition: tests } of steps) {
              const key = { pk, sk: name };
              const before = model.get(name);
              const [test] = tests ?? [];
              const holds =
                !test ||
                ('absent' in test
                  ? !before
                  : 'present' in test
                    ? !!before
                    : 'missing' in test
                      ? before?.n === undefined
                      : before?.n !== undefined && (before.n as number) < 1);
              const guard = tests ? { if: tests } : {};
              const write: Write =
                kind === 'put'
                  ? { put: { ...key, n }, ...guard }
                  : kind === 'delete'
                    ? { delete: key, ...guard }
                    : kind === 'add'
                      ? { update: key, add: { n }, ...guard }
                      : { update: key, set: { m: n }, remove: ['n'], ...guard };
              if (!holds) {
                expect((await failed(table.write([write]))).of(0)?.item).toEqual(before);
                continue;
              }
              await table.write([write]);
              if (kind === 'put') model.set(name, { ...key, n });
              else if (kind === 'delete') model.delete(name);
              else if (kind === 'add') model.set(name, { ...(before ?? key), n: Number(before?.n ?? 0) + n });
              else {
                const { n: _dropped, ...kept } = before ?? (key as Record<string, unknown>);
                model.set(name, { ...kept, m: n });
              }
            }
            expect((await table.query(pk)).items).toEqual(
              [...model.values()].sort((a, b) => (String(a.sk) < String(b.sk) ? -1 : 1)),
            );
          }),
          { numRuns: runs },
        );
      });
    });
  });
}
