// The pages on the vector store: what they print, quote and point to is what the code makes, has and is.
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { crc32 } from 'node:zlib';
import { describe, expect, it } from 'vitest';
import { blocks, findBlock } from '../../docs/vectors/blocks.ts';
import { exampleSegment, readStart } from '../../docs/vectors/dump.ts';

const root = new URL('../../', import.meta.url);
const folder = new URL('docs/vectors/', root);
const names = ['kernel', 'bound', 'format', 'protocol'] as const;
const read = (name: string) => readFileSync(new URL(name, folder), 'utf8');

function printed(page: keyof typeof blocks, block: string): string {
  const text = read(page);
  const { from, to } = findBlock(text, block);
  return text.slice(from, to);
}

describe('what scripts print into the pages', () => {
  const all = Object.entries(blocks).flatMap(([page, makers]) =>
    Object.entries(makers).map(([block, make]) => ({ page: page as keyof typeof blocks, block, make })),
  );
  it.each(all)(
    'docs/vectors/$page shows the block "$block" as the code makes it',
    ({ page, block, make }) => {
      expect(printed(page, block), 'run "node docs/vectors/blocks.ts"').toBe(make());
    },
  );

  it('the example keeps a row that is no hit, and the kernel keeps what the numbers say', () => {
    const lines = printed('bound.md', 'example').split('\n');
    const tau = Number(/^tau = ([\d.]+)/.exec(lines.find((line) => line.startsWith('tau'))!)![1]);
    const kept = lines.flatMap((line) => {
      const match = /^(\d+) .* (-?[\d.]+) +-?[\d.]+ {2}(hit|candidate|left out)$/.exec(line);
      return match ? [{ row: match[1], upper: Number(match[2]), role: match[3] }] : [];
    });
    expect(kept).toHaveLength(8);
    for (const { upper, role } of kept) expect(role === 'left out').toBe(upper < tau);
    const rows = kept.filter(({ role }) => role !== 'left out').map(({ row }) => row);
    expect(lines).toContain(`the kernel keeps, by codes: ${rows.join(', ')}`);
    expect(kept.map(({ role }) => role)).toContain('candidate');
  });

  it('text and picture of the bound quote only numbers of the example', () => {
    const example = printed('bound.md', 'example');
    const text = read('bound.md').slice(read('bound.md').indexOf('Row 3 scores'));
    const quoted = `${text} ${read('bound.svg').replace(/<[^>]*>/g, ' ')}`.match(/\d\.\d{6}|\d\.\d+e-\d+/g)!;
    expect(quoted.length).toBeGreaterThan(8);
    for (const number of quoted) expect(example).toContain(number);
  });

  it('the offsets of the example segment are where its bytes are', () => {
    const bytes = exampleSegment();
    const view = new DataView(bytes.buffer);
    const text = (at: number, length: number) => Buffer.from(bytes).toString('latin1', at, at + length);
    expect(text(0, 8)).toBe('VSEG0001');
    const { headerLength, header } = readStart(bytes);
    expect(view.getUint32(8, true)).toBe(headerLength);
    expect(text(26, 8)).toBe(header.crc32);
    const zeroed = bytes.slice(0, 16 + headerLength).fill(0x30, 26, 34);
    expect(crc32(zeroed).toString(16).padStart(8, '0')).toBe(header.crc32);
    const rows = printed('format.md', 'segment')
      .split('\n')
      .flatMap((line) => {
        const match = /^ *(\d+) +(\d+) {2}(\S+) +([0-9a-f]{8}) {2}(\S+) /.exec(line);
        return match ? [match.slice(1)] : [];
      });
    expect(rows).toHaveLength(header.sections.length);
    const at: Record<string, number> = {};
    for (const [off, len, , crc, name] of rows) {
      const from = Number(off);
      expect(from % 64).toBe(0);
      expect(crc32(bytes.subarray(from, from + Number(len)))).toBe(Number.parseInt(crc!, 16));
      at[name!] = from;
    }
    expect(view.getFloat32(at.vec! + 4, true)).toBe(4);
    expect(view.getFloat32(at.aux!, true)).toBe(Math.fround(0.2));
    expect(view.getInt8(at.i8!)).toBe(95);
    expect(view.getUint32(at.ido! + 4, true)).toBe(5);
    expect(text(at.ids! + 5, 5)).toBe('doc_b');
    expect(view.getBigUint64(at.seq!, true)).toBe(1n);
    expect(view.getFloat64(at['col:price']!, true)).toBe(9.5);
    const drawn = [...read('format.svg').matchAll(/>(\d{4})</g)].map(([, offset]) => Number(offset));
    expect(drawn).toEqual(['vec', 'aux', 'i8', 'idh', 'col:category'].map((name) => at[name]));
  });
});

describe('what the pages say of the code', () => {
  const sources = readdirSync(new URL('functions/core/', root), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts'))
    .map((name) => readFileSync(new URL(`functions/core/${name}`, root), 'utf8'));

  it('constants have the values that are quoted', () => {
    const quoted = names.flatMap((name) =>
      [...read(`${name}.md`).matchAll(/`([A-Za-z_]+) = ([^`]+)`/g)].map(([, constant, value]) => ({
        constant: constant!,
        value: value!,
      })),
    );
    expect(quoted.length).toBeGreaterThan(5);
    for (const { constant, value } of quoted) {
      const definition = new RegExp(`const ${constant}(?:: \\w+)? = ([^;]+);`);
      const found = sources.flatMap((source) => definition.exec(source)?.[1]?.replaceAll('_', '') ?? []);
      expect(found, constant).toContain(value);
    }
  });

  it('every file and page that is named is there', () => {
    for (const name of names) {
      const page = read(`${name}.md`);
      for (const [, path] of page.matchAll(/`((?:functions|test|docs)\/[\w./-]+)`/g))
        expect(existsSync(new URL(path!, root)), `${name}.md: ${path}`).toBe(true);
      for (const [, link] of page.matchAll(/\]\(([\w./-]+)\)/g))
        expect(existsSync(new URL(link!, folder)), `${name}.md: ${link}`).toBe(true);
    }
  });

  it('every crash point that is named is one', () => {
    const points = [...read('protocol.md').matchAll(/crash\('([\w.]+)'\)/g)].map(([, point]) => point!);
    expect(points.length).toBeGreaterThan(0);
    for (const point of points) {
      const last = point.slice(point.lastIndexOf('.'));
      const isThere = sources.some(
        (source) =>
          source.includes(`crash('${point}')`) || source.includes(`crash(\`\${crashPoint}${last}\`)`),
      );
      expect(isThere, point).toBe(true);
    }
  });
});

describe('the pictures', () => {
  it.each(names)('%s.svg has a background of its own, text as text, and nothing from outside', (name) => {
    const svg = read(`${name}.svg`);
    const [, width, height] = /viewBox="0 0 (\d+) (\d+)"/.exec(svg)!;
    expect(svg).toContain(`<rect width="${width}" height="${height}" rx="10" fill="#fbfaf6"/>`);
    expect(svg.match(/<text /g)!.length).toBeGreaterThan(10);
    expect(svg).toMatch(/<title id="t">[^<]+<\/title>/);
    expect(svg).not.toMatch(/<image|<script|href=|<foreignObject/);
    const open: string[] = [];
    for (const [, close, tag, self] of svg.matchAll(/<(\/?)(\w+)[^>]*?(\/?)>/g)) {
      if (close) expect(open.pop()).toBe(tag);
      else if (!self) open.push(tag!);
    }
    expect(open).toEqual([]);
    expect(existsSync(fileURLToPath(new URL(`${name}.md`, folder)))).toBe(true);
    expect(read(`${name}.md`)).toContain(`(${name}.svg)`);
  });
});
