// Prints the files that format.md shows: made by the encoders, read here byte by byte, without the code that opens them.
import { setBit, noBits } from '../../functions/core/vectors/bits.ts';
import type { ColumnValue } from '../../functions/core/vectors/columns.ts';
import { encodeDeadRows } from '../../functions/core/vectors/dead-rows.ts';
import { encodeSegment } from '../../functions/core/vectors/encode-segment.ts';
import { openSegment } from '../../functions/core/vectors/open-segment.ts';
import type { SectionRef } from '../../functions/core/vectors/segment-format.ts';

/** The example: four documents with three values each, a category, a price, tags; and one deleted id. */
export function exampleSegment(): Uint8Array<ArrayBuffer> {
  const columns = (values: Readonly<Record<string, ColumnValue>>) => new Map(Object.entries(values));
  return encodeSegment({
    kind: 'data',
    dims: 3,
    metric: 'cosine',
    codes: true,
    rows: [
      {
        id: 'doc_a',
        vector: [3, 4, 0],
        columns: columns({ category: 'news', price: 9.5, tags: ['x', 'y'] }),
      },
      { id: 'doc_b', vector: [0, 0, 2], columns: columns({ category: 'sport', tags: 'x' }) },
      { id: 'doc_c', vector: [0, 0, 0], columns: columns({ category: 'news', price: 2, tags: ['y'] }) },
      { id: 'doc_d', vector: [1, 1, 1], columns: columns({ category: 'art', price: -1, tags: 'z' }) },
    ],
    tombs: [{ id: 'doc_old' }],
  }).bytes;
}

/** A patch: `doc_a` gets another category and loses its price. */
function examplePatch(): Uint8Array<ArrayBuffer> {
  const columns = new Map<string, ColumnValue | undefined>([
    ['category', 'art'],
    ['price', undefined],
  ]);
  return encodeSegment({ kind: 'columns', dims: 0, metric: null, rows: [{ id: 'doc_a', columns }] }).bytes;
}

/** One row with a column too many to have a section of its own. */
function exampleOfManyColumns(): Uint8Array<ArrayBuffer> {
  const columns = new Map(
    Array.from({ length: 257 }, (_, i) => [`c${String(i).padStart(3, '0')}`, i] as const),
  );
  return encodeSegment({ kind: 'data', dims: 0, metric: null, rows: [{ id: 'doc_a', columns }] }).bytes;
}

interface Opened {
  readonly headerLength: number;
  readonly flags: number;
  readonly header: Readonly<Record<string, unknown>> & { readonly sections: readonly SectionRef[] };
}

/** Reads what stands before the sections, by the offsets that the page gives. */
export function readStart(bytes: Uint8Array): Opened {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const headerLength = view.getUint32(8, true);
  const text = new TextDecoder().decode(bytes.subarray(16, 16 + headerLength));
  return { headerLength, flags: view.getUint32(12, true), header: JSON.parse(text) as Opened['header'] };
}

const sizes = { f32: 4, i8: 1, f64: 8, u8: 1, u16: 2, u32: 4, u64: 8, bits: 4, bf16: 2 } as const;

/** The values of a section as numbers or text. */
function valuesOf(bytes: Uint8Array, { name, off, len, enc }: SectionRef): string[] {
  if (enc === 'utf8' || enc === 'json') return [new TextDecoder().decode(bytes.subarray(off, off + len))];
  const view = new DataView(bytes.buffer, bytes.byteOffset + off, len);
  const size = sizes[enc];
  return Array.from({ length: len / size }, (_, i) => {
    const at = i * size;
    if (enc === 'f32') return String(Number(view.getFloat32(at, true).toPrecision(6)));
    if (enc === 'f64') return String(view.getFloat64(at, true));
    if (enc === 'i8') return String(view.getInt8(at));
    if (enc === 'u8') return String(view.getUint8(at));
    if (enc === 'u16') return String(view.getUint16(at, true));
    if (enc === 'u64') return view.getBigUint64(at, true).toString(name === 'idh' ? 16 : 10);
    if (enc === 'bits') return `0b${view.getUint32(at, true).toString(2)}`;
    return String(view.getUint32(at, true));
  });
}

/** Characters of the values of one section; the rest is cut off. */
const shown = 56;

function table(bytes: Uint8Array, sections: readonly SectionRef[]): string[] {
  return sections.map((section) => {
    const text = valuesOf(bytes, section).join(' ');
    const value = text.length > shown ? `${text.slice(0, shown)}...` : text;
    const crc = section.crc32.toString(16).padStart(8, '0');
    return [
      String(section.off).padStart(5),
      String(section.len).padStart(5),
      section.enc.padEnd(5),
      crc,
      section.name.padEnd(20),
      value,
    ].join('  ');
  });
}

/** Every section of the example, and what stands before them. */
export function segmentDump(): string {
  const bytes = exampleSegment();
  const { headerLength, flags, header } = readStart(bytes);
  const { sections, ...rest } = header;
  // What the store makes of it: it must open, or the page shows a file that nobody could read.
  openSegment(bytes, 'docs/vectors/dump.ts');
  const ascii = new TextDecoder('latin1').decode(bytes.subarray(0, 8));
  return [
    `${bytes.byteLength} bytes`,
    `    0  ${ascii}`,
    `    8  ${headerLength} (bytes of header)`,
    `   12  ${flags} (flags)`,
    `   16  ${JSON.stringify(rest).replaceAll(',"', ',\n       "').slice(0, -1)},`,
    `       "sections":[${sections.length} of {"name","off","len","crc32","enc"}]}`,
    ...table(bytes, sections),
  ].join('\n');
}

/** The sections that the first example has none of: those of a patch, and the one of rare columns. */
export function otherSections(): string {
  const patch = examplePatch();
  const many = exampleOfManyColumns();
  const dead = noBits(4);
  setBit(dead, 1);
  const list = encodeDeadRows(dead, 4).bytes;
  const named = (bytes: Uint8Array, names: readonly string[]) =>
    table(
      bytes,
      readStart(bytes).header.sections.filter(({ name }) => names.includes(name)),
    );
  return [
    'columns of a patch',
    ...named(patch, [
      'col:category',
      'col:category:dict',
      'col:price',
      'col:price:dict',
      'col:price:missing',
      'col:price:cleared',
    ]),
    '',
    'rare columns of a segment that has 257',
    ...named(many, ['sparse']),
    '',
    'a dead-row list: row 1 of 4',
    Buffer.from(list)
      .toString('hex')
      .replace(/(.{8})/g, '$1 ')
      .trim(),
  ].join('\n');
}
