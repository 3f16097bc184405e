// What a runner answers is read strictly: whatever it says, each row ends with outputs that are sound or with a fault.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { RowResult } from '../../../functions/core/resources/batches/extract.ts';
import { fault, objectFields, readReply, rowsOf } from '../../../functions/core/resources/batches/extract.ts';

const extractor = {
  features: [{ feature_uri: 'mixpeek://p@1.0.0/f', feature_name: 'f', dims: 2, metric: 'cosine' as const }],
};
const encode = (values: readonly number[]) =>
  Buffer.from(Float32Array.from(values).buffer).toString('base64');
const vectors = (values: readonly number[]) => ({
  f: { dims: 2, count: values.length / 2, data_base64: encode(values) },
});
const output = (row: number, ordinal: number, place: number | null, columns: unknown = {}) => ({
  row,
  ordinal,
  columns,
  features: { f: place },
});

function read(reply: unknown, rows: number): (RowResult | undefined)[] {
  const results = new Array<RowResult | undefined>(rows);
  readReply(
    reply,
    extractor,
    Array.from({ length: rows }, (_, i) => i),
    results,
  );
  return results;
}

const codeOf = (result: RowResult | undefined) =>
  result && 'fault' in result ? result.fault.code : undefined;

describe('a reply of the runner', () => {
  it('gives each row its outputs in the order of their ordinals, with the right vectors', () => {
    const results = read(
      {
        outputs: [output(1, 1, 0), output(0, 0, 2), output(1, 0, 1)],
        vectors: vectors([1, 2, 3, 4, 5, 6]),
        failures: [],
        dropped: [],
      },
      2,
    );
    const found = results.map((result) =>
      'outputs' in result! ? result.outputs.map((one) => [...one.vectors.get('f')!]) : [],
    );
    expect(found).toEqual([
      [[5, 6]],
      [
        [3, 4],
        [1, 2],
      ],
    ]);
  });

  it('leaves a row unanswered that it neither answers, drops nor fails', () => {
    const results = read(
      {
        outputs: [output(0, 0, null)],
        vectors: {},
        failures: [{ row: 1, code: 'plugin_row_failed', message: 'x' }],
        dropped: [2],
      },
      4,
    );
    expect(results[0]).toMatchObject({ outputs: [{}] });
    expect(codeOf(results[1])).toBe('plugin_row_failed');
    expect(results[2]).toEqual({ outputs: [] });
    expect(results[3]).toBeUndefined();
  });

  it.each([
    ['nothing', null],
    ['a text', 'hello'],
    ['no outputs', { vectors: {} }],
    ['an output of a foreign row', { outputs: [output(9, 0, null)], vectors: {} }],
    ['too few bytes', { outputs: [], vectors: { f: { dims: 2, count: 2, data_base64: encode([1, 2]) } } }],
    [
      'other dimensions',
      { outputs: [], vectors: { f: { dims: 3, count: 1, data_base64: encode([1, 2, 3]) } } },
    ],
    ['a count that is none', { outputs: [], vectors: { f: { dims: 2, count: -1, data_base64: '' } } }],
  ])('that is %s fails every row', (_, reply) => {
    expect(read(reply, 2).map(codeOf)).toEqual(['plugin_protocol_error', 'plugin_protocol_error']);
  });

  it('fails alone the row whose vector is missing, not finite, or one of too many outputs', () => {
    const many = Array.from({ length: 101 }, (_, i) => output(2, i, null));
    const reply = {
      outputs: [output(0, 0, 7), output(1, 0, 1), ...many, output(3, 0, 0)],
      vectors: vectors([1, 2, Number.POSITIVE_INFINITY, 0]),
      failures: [],
      dropped: [],
    };
    expect(read(reply, 4).map(codeOf)).toEqual([
      'plugin_protocol_error',
      'vector_not_finite',
      'too_many_outputs',
      undefined,
    ]);
  });

  it('cannot set what is ours or reach into prototypes by its columns', () => {
    const columns = JSON.parse(
      '{"__proto__": {"x": 1}, "constructor": 1, "document_id": "mine", "_internal": {"a": 1}, "fine": 2}',
    ) as unknown;
    const [result] = read({ outputs: [output(0, 0, null, columns)], vectors: {} }, 1);
    const fields = 'outputs' in result! ? result.outputs[0]!.columns : {};
    expect(Object.keys(fields).toSorted()).toEqual(['field_document_id', 'field_internal', 'fine']);
    expect(Object.getPrototypeOf(fields)).toBe(Object.prototype);
  });

  it('never throws, whatever it is', () => {
    fc.assert(
      fc.property(fc.anything(), fc.anything(), fc.anything(), (outputs, given, failures) => {
        for (const reply of [
          outputs,
          { outputs, vectors: given, failures },
          { outputs: [outputs], vectors: { f: given }, failures: [failures] },
        ]) {
          for (const result of read(reply, 3))
            if (result) expect('fault' in result || 'outputs' in result).toBe(true);
        }
      }),
    );
  });

  it('has its messages cut to a kilobyte, and codes that are none replaced', () => {
    expect(Buffer.byteLength(fault('x', 'ä'.repeat(5_000)).message)).toBeLessThanOrEqual(1_000);
    expect(fault('DROP TABLE', 'm').code).toBe('plugin_failed');
    expect(fault('plugin_row_failed', '\ud800').message).toBe('\ufffd');
  });
});

describe('an object', () => {
  const blob = (property: string, data: string) => ({
    blob_id: `blob_${property}`,
    property,
    type: 'text',
    data,
    mime_type: 'text/plain',
    size_bytes: 1,
  });
  const object = {
    object_id: 'obj_1',
    version: 1,
    blobs: [blob('title', 't'), blob('text', 'x'), blob('text', 'y')],
    metadata: { title: 'of the metadata', score: 1, author: 'a' },
  };

  it('gives a row for each blob of the properties that are mapped, in their order', () => {
    expect(
      rowsOf(object, { input_mappings: { text: 'text', also: 'title' } }).map((row) => [
        row.blob.data,
        row.place,
      ]),
    ).toEqual([
      ['x', 0],
      ['y', 1],
      ['t', 2],
    ]);
    expect(rowsOf(object, { input_mappings: { a: 'none' } })).toEqual([]);
  });

  it('gives its fields, its properties before its metadata, and none that are kept', () => {
    expect(objectFields(object)).toEqual({ title: 't', text: ['x', 'y'], author: 'a' });
  });
});
