// Parquet out: a column for each field and each feature, vectors as lists of float32, row groups as they come.

import type { SchemaElement } from 'hyparquet';
import { ByteWriter, ParquetWriter } from 'hyparquet-writer';
import type { FieldKind, Layout, RowWriter } from './row.ts';
import { extraColumn, idColumn, internalColumn, placeRow } from './row.ts';

/** Key of the file's own metadata under which the kinds of its columns stand. */
export const layoutKey = 'granary';

/** What the file says about itself. */
export interface FileNotes {
  readonly collection_id: string;
  readonly index_version: number;
  readonly exported_at: string;
}

/** A byte writer whose bytes can be taken away while the file goes on. */
class DrainedWriter extends ByteWriter {
  take(): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(this.buffer.slice(0, this.index));
    this.index = 0;
    return bytes;
  }
}

const text = (name: string, repetition: 'REQUIRED' | 'OPTIONAL' = 'OPTIONAL'): SchemaElement => ({
  name,
  type: 'BYTE_ARRAY',
  converted_type: 'UTF8',
  repetition_type: repetition,
});

function fieldElement(name: string, kind: FieldKind): SchemaElement {
  if (kind === 'number') return { name, type: 'DOUBLE', repetition_type: 'OPTIONAL' };
  if (kind === 'boolean') return { name, type: 'BOOLEAN', repetition_type: 'OPTIONAL' };
  return text(name);
}

function schemaOf(layout: Layout): SchemaElement[] {
  return [
    { name: 'schema', num_children: 3 + layout.fields.length + layout.vectors.length },
    text(idColumn, 'REQUIRED'),
    ...layout.fields.map(({ name, kind }) => fieldElement(name, kind)),
    ...layout.vectors.flatMap(({ uri }): SchemaElement[] => [
      { name: uri, repetition_type: 'OPTIONAL', converted_type: 'LIST', num_children: 1 },
      { name: 'list', repetition_type: 'REPEATED', num_children: 1 },
      { name: 'element', type: 'FLOAT', repetition_type: 'REQUIRED' },
    ]),
    text(extraColumn),
    text(internalColumn),
  ];
}

/**
 * Writes a Parquet file, a row group per call.
 *
 * All values are PLAIN: a dictionary would take 0 and -0 for one value, and vectors do not repeat themselves. Texts are
 * compressed by Snappy, vectors are not: they hardly shrink.
 */
export function parquetRowWriter(layout: Layout, notes: FileNotes): RowWriter {
  const writer = new DrainedWriter();
  const file = new ParquetWriter({
    writer,
    schema: schemaOf(layout),
    codec: 'SNAPPY',
    statistics: false,
    createdBy: 'granary',
    kvMetadata: [
      {
        key: layoutKey,
        value: JSON.stringify({ format: 1, ...notes, fields: layout.fields, features: layout.vectors }),
      },
    ],
  });
  return {
    contentType: 'application/vnd.apache.parquet',
    extension: 'parquet',
    begin: () => writer.take(),
    write: (rows) => {
      if (rows.length === 0) return new Uint8Array(0);
      const placed = rows.map((row) => placeRow(row.fields, layout));
      const plain = { encoding: 'PLAIN', offsetIndex: false } as const;
      file.write({
        rowGroupSize: rows.length,
        columnData: [
          { name: idColumn, data: rows.map(({ id }) => id), ...plain },
          ...layout.fields.map(({ name }, i) => ({
            name,
            data: placed.map(({ cells }) => cells[i]),
            ...plain,
          })),
          ...layout.vectors.map(({ uri }) => ({
            name: uri,
            data: rows.map(({ vectors }) => {
              const vector = vectors.get(uri);
              return vector && Array.from(vector);
            }),
            ...plain,
            codec: 'UNCOMPRESSED' as const,
          })),
          { name: extraColumn, data: placed.map(({ extra }) => extra), ...plain },
          {
            name: internalColumn,
            data: rows.map(({ internal }) => (internal === undefined ? undefined : JSON.stringify(internal))),
            ...plain,
          },
        ],
      });
      return writer.take();
    },
    end: () => {
      file.finish();
      return writer.take();
    },
  };
}
