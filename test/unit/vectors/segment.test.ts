// Segments: what the writer refuses, what the manifest must agree with, the layout on disk.
import { crc32 } from 'node:zlib';
import { describe, expect, test } from 'vitest';
import { flattenColumns } from '../../../functions/core/vectors/columns.ts';
import { encodeSegment, type SegmentInput } from '../../../functions/core/vectors/encode-segment.ts';
import { VectorError } from '../../../functions/core/vectors/errors.ts';
import { openSegment } from '../../../functions/core/vectors/open-segment.ts';
import { headerChecksum } from '../../../functions/core/vectors/segment-format.ts';
import { makeVectorMemory } from '../../../functions/core/vectors/vector-memory.ts';

const row = (id: string, vector: number[] = [1, 2]) => ({ id, vector });
const input = (change: Partial<SegmentInput>): SegmentInput => ({
  kind: 'data',
  dims: 2,
  metric: 'cosine',
  rows: [row('doc_a')],
  ...change,
});

describe('the writer refuses', () => {
  const cases: [string, Partial<SegmentInput>, string, RegExp][] = [
    [
      'a vector of another dimension',
      { rows: [row('doc_a', [1])] },
      'vector_invalid',
      /doc_a.*1 values.*needs 2/,
    ],
    [
      'a vector that is not finite',
      { rows: [row('doc_a', [1, Number.NaN])] },
      'vector_invalid',
      /doc_a.*Value 1.*NaN/,
    ],
    [
      'a value that float32 cannot hold',
      { rows: [row('doc_a', [1e39, 0])] },
      'vector_invalid',
      /Value 0.*1e\+39/,
    ],
    ['a row without vector', { rows: [{ id: 'doc_a' }] }, 'vector_invalid', /doc_a has no vector/],
    [
      'more than 4,096 dimensions',
      { dims: 4_097, rows: [] },
      'vector_invalid',
      /0 to 4096 dimensions, got 4097/,
    ],
    ['an empty id', { rows: [row('')] }, 'row_invalid', /1 to 256 bytes/],
    ['an id above 256 bytes', { rows: [row('é'.repeat(129))] }, 'row_invalid', /1 to 256 bytes/],
    ['an id that is not well-formed', { rows: [row('a\ud800')] }, 'row_invalid', /well-formed/],
    ['vectors without a metric', { metric: null }, 'row_invalid', /metric/],
    ['vectors in a patch', { kind: 'columns' }, 'row_invalid', /no vectors/],
    ['rows in a delta', { kind: 'delta', dims: 0, metric: null }, 'row_invalid', /no rows/],
    ['a seq among relative rows', { rows: [{ ...row('doc_a'), seq: 3 }] }, 'row_invalid', /doc_a has a seq/],
    ['compacted rows without seq', { absolute: true }, 'row_invalid', /doc_a.*needs a seq/],
    [
      'a number that is not finite in a column',
      { rows: [{ ...row('doc_a'), columns: new Map([['n', [1, Number.POSITIVE_INFINITY]]]) }] },
      'row_invalid',
      /Column n/,
    ],
  ];
  test.each(cases)('%s', (_, change, code, message) => {
    let caught: unknown;
    try {
      encodeSegment(input(change));
    } catch (error) {
      caught = error;
    }
    expect(caught).toBeInstanceOf(VectorError);
    expect(caught).toMatchObject({ code, message: expect.stringMatching(message) });
  });
});

test('4,096 dimensions and a 256-byte id are stored', async () => {
  const vector = Array.from({ length: 4_096 }, (_, i) => i % 7);
  const id = 'é'.repeat(128);
  const segment = openSegment(
    encodeSegment({ kind: 'data', dims: 4_096, metric: 'dot', rows: [{ id, vector }] }).bytes,
    's',
  );
  expect([segment.id(0), ...(await segment.vectors!.vector(makeVectorMemory(65_536), 0))]).toEqual([
    id,
    ...vector,
  ]);
});

test('the file follows its layout: magic, header, sections at 4096 and at multiples of 64, each with its crc32', () => {
  const rows = [0, 1, 2].map((i) => ({
    id: `doc_${i}`,
    vector: [3, 4],
    columns: flattenColumns({ t: ['x', i], n: i }),
  }));
  const { bytes, description } = encodeSegment(input({ rows }));
  const view = new DataView(bytes.buffer);
  expect(Buffer.from(bytes.subarray(0, 8)).toString('latin1')).toBe('VSEG0001');
  expect(view.getUint32(8, true)).toBe(description.header_len);
  expect(view.getUint32(12, true)).toBe(0);
  const header = JSON.parse(Buffer.from(bytes.subarray(16, 16 + description.header_len)).toString());
  expect(header).toMatchObject({ dim: 2, padDim: 16, rows: 3, padRows: 8, dtype: 'f32', metric: 'cosine' });
  expect(header.sections).toEqual(description.sections);
  expect(description.sections.map(({ name }) => name)).toEqual([
    'vec',
    'aux',
    'idh',
    'idp',
    'ido',
    'ids',
    'seq',
    'vecc',
    'col:n',
    'col:t',
    'col:t:dict',
    'col:t:list',
  ]);
  expect(description.sections[0]!.off).toBe(4_096);
  for (const { off, len, crc32: sum } of description.sections) {
    expect(off % 64).toBe(0);
    expect(crc32(bytes.subarray(off, off + len))).toBe(sum);
  }
  expect(description.bytes).toBe(bytes.length);
  const aux = new Float32Array(bytes.buffer, description.sections[1]!.off, 8);
  expect([...aux]).toEqual([Math.fround(0.2), Math.fround(0.2), Math.fround(0.2), 0, 0, 0, 0, 0]);
});

test('a long section table moves the sections to the next multiple of 4096', () => {
  const columns = new Map(Array.from({ length: 200 }, (_, i) => [`field_number_${i}`, i]));
  const { bytes, description } = encodeSegment({
    kind: 'data',
    dims: 0,
    metric: null,
    rows: [{ id: 'doc_a', columns }],
  });
  expect(description.sections[0]!.off).toBe(Math.ceil((16 + description.header_len) / 4_096) * 4_096);
  expect(description.header_len).toBeGreaterThan(4_096);
  expect(openSegment(bytes, 's').column('field_number_77')!.at(0)).toBe(77);
});

test('a sound segment under the wrong key is refused by the manifest entry', () => {
  const one = encodeSegment(input({}));
  const other = encodeSegment(input({ rows: [row('doc_b')] }));
  expect(() => openSegment(other.bytes, 'seg/one', one.description)).toThrow(
    expect.objectContaining({ code: 'segment_mismatch', objectName: 'seg/one' }),
  );
});

/** Rewrites one section of a segment and all checksums above it: a writer's mistake, not damage on the way. */
function forge(bytes: Uint8Array, section: string, change: (content: Uint8Array) => void): Uint8Array {
  const forged = new Uint8Array(bytes);
  const view = new DataView(forged.buffer);
  const header = JSON.parse(Buffer.from(forged.subarray(16, 16 + view.getUint32(8, true))).toString());
  const found = header.sections.find((each: { name: string }) => each.name === section);
  const content = forged.subarray(found.off, found.off + found.len);
  change(content);
  found.crc32 = crc32(content);
  const json = new TextEncoder().encode(JSON.stringify(header));
  forged.fill(0, 16, 4_096);
  forged.set(json, 16);
  view.setUint32(8, json.length, true);
  forged.set(new TextEncoder().encode(headerChecksum(forged, json.length)), 26);
  return forged;
}

test('well-formed bytes that make no sense are refused too', () => {
  const rows = [0, 1, 2].map((i) => ({
    id: `doc_${i}`,
    columns: flattenColumns({ t: ['x', i], s: `s${i}` }),
  }));
  const { bytes } = encodeSegment({ kind: 'data', dims: 0, metric: null, rows });
  const refuses = (section: string, change: (content: Uint8Array) => void, column?: string) => {
    const forged = forge(bytes, section, change);
    expect(() => {
      const segment = openSegment(forged, 'seg/bad');
      if (column !== undefined) segment.column(column);
    }).toThrow(expect.objectContaining({ code: 'segment_corrupt', objectName: 'seg/bad' }));
  };
  expect(
    openSegment(
      forge(bytes, 'ids', () => {}),
      'seg/same',
    ).id(2),
  ).toBe('doc_2');
  refuses('idp', (content) => content.fill(9, 0, 1));
  refuses('ido', (content) => content.fill(200, 4, 5));
  refuses('col:s', (content) => content.fill(9, 0, 1), 's');
  refuses('col:t:list', (content) => content.fill(9, 4, 5), 't');
  refuses('col:s:dict', (content) => content.fill(0x20), 's');
});
