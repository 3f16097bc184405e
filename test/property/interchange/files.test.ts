// What is written to a file of exported documents and what is read from it again.
import { isDeepStrictEqual } from 'node:util';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { csvWriter } from '../../../functions/core/interchange/csv.ts';
import { jsonLinesSource, jsonLinesWriter } from '../../../functions/core/interchange/json-lines.ts';
import { parquetSource } from '../../../functions/core/interchange/parquet-source.ts';
import { parquetRowWriter } from '../../../functions/core/interchange/parquet-writer.ts';
import type {
  ByteSource,
  ExchangeRow,
  FoundRow,
  Json,
  JsonObject,
  Position,
  RowSource,
  RowWriter,
  VectorColumn,
} from '../../../functions/core/interchange/row.ts';
import { beginning, FileFault, layoutOf } from '../../../functions/core/interchange/row.ts';
import { isReserved } from '../../../functions/core/reserved-fields.ts';
import { hasBackslashKey } from '../../fixtures/json-keys.ts';

const dims = 5;
const vectorColumns: readonly VectorColumn[] = [
  { uri: 'mixpeek://a@1.0.0/one', dims, metric: 'cosine' },
  { uri: 'mixpeek://b@1.0.0/two', dims, metric: 'dot' },
];
const isVector = (name: string) => vectorColumns.some(({ uri }) => uri === name);

/** Any JSON as it comes out of a store: made of text once. */
const json = fc
  .jsonValue({ maxDepth: 3, noUnicodeString: false } as never)
  .filter((v) => !hasBackslashKey(v))
  .map((v) => JSON.parse(JSON.stringify(v)) as Json);
const text = fc.oneof(
  fc.string({ unit: 'binary' }),
  fc.string(),
  fc.constantFrom('', '\ud800', '"', '\r\n', 'null', '=1+1'),
);
/** Few names, so that values of several kinds meet in one column. */
const name = fc
  .oneof(
    fc.constantFrom('title', 'n', 'ok', 'tags', 'a.b', 'constructor', 'x y', 'ü', '\ud800'),
    fc.string({ minLength: 1, maxLength: 8 }),
  )
  .filter((given) => !isReserved(given) && !isVector(given) && given !== '\\');
const value = fc.oneof(
  text,
  fc.double({ noNaN: true, noDefaultInfinity: true }).map((v) => (Object.is(v, -0) ? 0 : v)),
  fc.integer(),
  fc.boolean(),
  fc.constant(null),
  json,
);
const fields = fc
  .array(fc.tuple(name, value), { maxLength: 6 })
  .map((pairs) => Object.fromEntries(pairs) as JsonObject);
const vector = fc
  .array(fc.float({ noNaN: true, noDefaultInfinity: true }), { minLength: dims, maxLength: dims })
  .map((v) => Float32Array.from(v));
const row = fc.record({
  fields,
  one: fc.option(vector, { nil: undefined }),
  two: fc.option(vector, { nil: undefined }),
  internal: fc.option(fields, { nil: undefined }),
});
const rows = fc.array(row, { maxLength: 25 }).map((given) =>
  given.map(
    ({ fields: own, one, two, internal }, i): ExchangeRow => ({
      id: `doc_${i}`,
      fields: own,
      vectors: new Map(
        [one, two].flatMap((v, f): [string, Float32Array][] => (v ? [[vectorColumns[f]!.uri, v]] : [])),
      ),
      ...(internal ? { internal } : {}),
    }),
  ),
);

function write(writer: RowWriter, all: readonly ExchangeRow[], groupRows: number): Uint8Array<ArrayBuffer> {
  const parts = [writer.begin()];
  for (let i = 0; i < all.length; i += groupRows) parts.push(writer.write(all.slice(i, i + groupRows)));
  parts.push(writer.end());
  return new Uint8Array(Buffer.concat(parts));
}

function bytesOf(bytes: Uint8Array<ArrayBuffer>): ByteSource {
  return {
    bytes: bytes.length,
    read: async (offset, length) => {
      const found = bytes.slice(offset, offset + length);
      if (found.length !== length) throw new FileFault('too short');
      return found;
    },
  };
}

async function readAll(source: RowSource, from: Position = beginning): Promise<FoundRow[]> {
  const found: FoundRow[] = [];
  for await (const some of source.read(from)) found.push(...some);
  return found;
}

const formats = {
  parquet: {
    write: (all: readonly ExchangeRow[], group: number) =>
      write(
        parquetRowWriter(layoutOf(all.slice(0, 3), ['later', 'title'], vectorColumns), {
          collection_id: 'col_x',
          index_version: 1,
          exported_at: '2026-01-01T00:00:00.000Z',
        }),
        all,
        group,
      ),
    open: (bytes: Uint8Array<ArrayBuffer>): Promise<RowSource> => parquetSource(bytesOf(bytes), isVector),
  },
  json: {
    write: (all: readonly ExchangeRow[], group: number) => write(jsonLinesWriter(), all, group),
    open: async (bytes: Uint8Array<ArrayBuffer>): Promise<RowSource> => jsonLinesSource(bytesOf(bytes)),
  },
} as const;

function expectSame(found: readonly FoundRow[], all: readonly ExchangeRow[]): void {
  expect(found.map((one) => one.fault)).toEqual(all.map(() => undefined));
  expect(found.map(({ id }) => id)).toEqual(all.map(({ id }) => id));
  for (const [i, one] of found.entries()) {
    const given = all[i]!;
    // Not toStrictEqual, which takes a field named "constructor" for the type of the object.
    for (const part of ['fields', 'internal'] as const)
      expect(isDeepStrictEqual(one[part], given[part]), JSON.stringify([one[part], given[part]])).toBe(true);
    expect(Object.keys(one.vectors).sort()).toEqual([...given.vectors.keys()].sort());
    for (const [uri, expected] of given.vectors) {
      const bits = new Uint32Array(Float32Array.from(one.vectors[uri] as number[]).buffer);
      expect([...bits]).toEqual([...new Uint32Array(expected.buffer)]);
    }
  }
}

describe.each(['parquet', 'json'] as const)('a file of the format %s', (format) => {
  it('gives back any documents with any fields, and every bit of their vectors', async () => {
    await fc.assert(
      fc.asyncProperty(rows, fc.integer({ min: 1, max: 9 }), async (all, group) => {
        const source = await formats[format].open(formats[format].write(all, group));
        expectSame(await readAll(source), all);
      }),
      { numRuns: 200 },
    );
  });

  it('can be read on from behind every row', async () => {
    await fc.assert(
      fc.asyncProperty(rows, fc.nat(), async (all, pick) => {
        fc.pre(all.length > 0);
        const source = await formats[format].open(formats[format].write(all, 4));
        const found = await readAll(source);
        const at = pick % all.length;
        const rest = await readAll(source, found[at]!.after);
        expect(rest.map(({ id, row: number }) => [id, number])).toEqual(
          found.slice(at + 1).map(({ id, row: number }) => [id, number]),
        );
      }),
      { numRuns: 50 },
    );
  });

  it('says what is wrong when it was cut off or damaged, and never gives wrong rows without saying so', async () => {
    const all: ExchangeRow[] = Array.from({ length: 12 }, (_, i) => ({
      id: `doc_${i}`,
      fields: { title: `text number ${i}`, n: i },
      vectors: new Map([[vectorColumns[0]!.uri, Float32Array.from({ length: dims }, (__, k) => i + k / 8)]]),
    }));
    const whole = formats[format].write(all, 4);
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 0, max: whole.length - 1 }), async (length) => {
        const cut = whole.slice(0, length);
        try {
          const found = await readAll(await formats[format].open(cut));
          const sound = found.filter((one) => !one.fault);
          // A file of lines that was cut is a shorter file of lines; its last line is broken, or whole.
          expect(format).toBe('json');
          expectSame(sound, all.slice(0, sound.length));
          expect(found.length - sound.length).toBeLessThanOrEqual(1);
        } catch (error) {
          expect(error).toBeInstanceOf(FileFault);
        }
      }),
      { numRuns: 60 },
    );
    await fc.assert(
      fc.asyncProperty(fc.nat(whole.length - 1), fc.integer({ min: 1, max: 255 }), async (at, flip) => {
        const damaged = whole.slice();
        damaged[at]! ^= flip;
        try {
          await readAll(await formats[format].open(damaged));
        } catch (error) {
          expect(error, String((error as Error).stack)).toBeInstanceOf(FileFault);
        }
      }),
      { numRuns: 150 },
    );
  });
});

describe('comma-separated values', () => {
  it('have one record a document whatever its texts hold, and tell an empty text from none', () => {
    const all: ExchangeRow[] = [
      {
        id: 'd1',
        fields: { title: 'a "quoted", text\r\nof two lines', n: 1.5, tags: ['x', 'y'] },
        vectors: new Map(),
      },
      {
        id: 'd2',
        fields: { title: '' },
        vectors: new Map([[vectorColumns[0]!.uri, Float32Array.from([1, -0, 0.5, 0, 2])]]),
      },
    ];
    const text = Buffer.from(write(csvWriter(layoutOf(all, [], vectorColumns)), all, 10)).toString();
    expect(text).toBe(
      [
        'document_id,title,n,tags,mixpeek://a@1.0.0/one,mixpeek://b@1.0.0/two,_extra,_internal',
        'd1,"a ""quoted"", text\r\nof two lines",1.5,"[""x"",""y""]",,,,',
        'd2,"",,,"[1,-0,0.5,0,2]",,,',
        '',
      ].join('\r\n'),
    );
  });
});
