// What `granary plugin` makes of files: archives that are the same bytes for the same content, and rows of CSV.
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { parseCsv } from '../../cli/plugin/csv.ts';
import { readFolder } from '../../cli/plugin/folder.ts';
import { packFiles, zipOf } from '../../cli/plugin/pack.ts';
import { readRows } from '../../cli/plugin/rows.ts';
import { readArchive } from '../../functions/core/resources/plugins/archive.ts';

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'granary-cli-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

function write(files: Readonly<Record<string, string>>, below = folder): string {
  for (const [path, content] of Object.entries(files)) {
    mkdirSync(dirname(join(below, path)), { recursive: true });
    writeFileSync(join(below, path), content);
  }
  return below;
}

const pack = (dir: string, top = 'plug') => zipOf(packFiles(readFolder(dir).files), top);

describe('an archive', () => {
  it('is the same bytes for the same content, wherever and whenever it was written', () => {
    const files = { 'pipeline.py': 'x = 1\n'.repeat(100), 'a/b.npz': '\u0000\u0001', 'manifest.py': '' };
    const one = write(files, join(folder, 'one'));
    const two = write(Object.fromEntries(Object.entries(files).reverse()), join(folder, 'two'));
    utimesSync(join(two, 'pipeline.py'), 1, 1);
    expect(pack(one).equals(pack(two))).toBe(true);
    write({ 'pipeline.py': 'x = 2\n' }, two);
    expect(pack(one).equals(pack(two))).toBe(false);
  });

  it('keeps every rule for archives, and holds what was packed', async () => {
    const name = fc.stringMatching(/^[a-z]{1,8}$/);
    const file = fc.tuple(name, fc.string({ maxLength: 400 }));
    await fc.assert(
      fc.asyncProperty(fc.array(file, { maxLength: 12 }), async (drawn) => {
        const files = [
          ['manifest', 'x = 1'],
          ...new Map(drawn.map(([path, content]) => [path, content])),
        ].filter(([path], i, all) => all.findIndex(([other]) => other === path) === i) as [string, string][];
        const packed = files.map(([path, content]) => ({
          path: `${path}.py`,
          content: Buffer.from(content),
          kind: 0o100000,
        }));
        const read = await readArchive(zipOf(packFiles(packed), 'plug'));
        if (!read.ok) throw new Error(JSON.stringify(read.faults));
        expect(read.archive.root).toBe('plug/');
        expect(new Map([...read.archive.sources].map(([path, bytes]) => [path, bytes.toString()]))).toEqual(
          new Map(packed.map(({ path, content }) => [path, content.toString()])),
        );
      }),
      { numRuns: 40 },
    );
  });

  it('leaves out caches, version control, environments and what only its author needs, and says so', () => {
    const dir = write({
      'manifest.py': '',
      'pipeline.py': '',
      'models/w.npz': 'w',
      'processors/tests/kept.py': '',
      'vendor/fast.libs/.hidden.so': '',
      'vendor/venv/__init__.py': '',
      'vendor/venv/__pycache__/x.pyc': '',
      '__pycache__/manifest.cpython-313.pyc': '',
      'processors/__pycache__/x.pyc': '',
      '.git/config': '',
      '.env': 'KEY=secret',
      'venv/pyvenv.cfg': '',
      'tests/test_it.py': '',
      'samples/a.png': '',
      'sample.jsonl': '',
      'README.md': '',
    });
    const read = readFolder(dir);
    expect(read.files.map(({ path }) => path)).toEqual([
      'manifest.py',
      'models/w.npz',
      'pipeline.py',
      'processors/tests/kept.py',
      'vendor/fast.libs/.hidden.so',
      'vendor/venv/__init__.py',
    ]);
    expect(read.leftOut).toEqual([
      '.env',
      '.git',
      'README.md',
      '__pycache__',
      'processors/__pycache__',
      'sample.jsonl',
      'samples',
      'tests',
      'vendor/venv/__pycache__',
      'venv',
    ]);
  });

  it('is no bomb, however well a file would pack', async () => {
    const zeros = { path: 'weights.bin', content: Buffer.alloc(3_000_000), kind: 0o100000 };
    const code = { path: 'pipeline.py', content: Buffer.from(''), kind: 0o100000 };
    expect(await readArchive(zipOf(packFiles([code, zeros]), 'plug'))).toMatchObject({ ok: true });
  });

  it('holds a link as a link, which the rules refuse, and never what it leads to', async () => {
    write({ 'manifest.py': '', 'pipeline.py': '' });
    symlinkSync('/etc/hostname', join(folder, 'host.txt'));
    const read = await readArchive(pack(folder));
    expect(read).toMatchObject({
      ok: false,
      faults: [{ type: 'archive_special_file', location: ['plug/host.txt', 0, 0] }],
    });
  });
});

describe('CSV', () => {
  it('comes back as it was written, whatever the cells hold', () => {
    const cell = fc.string({ unit: fc.constantFrom('a', 'é', '"', ',', '\n', '\r\n', ' ', ';', '\t') });
    const records = fc
      .integer({ min: 1, max: 4 })
      .chain((width) =>
        fc.array(fc.array(cell, { minLength: width, maxLength: width }), { minLength: 1, maxLength: 8 }),
      );
    fc.assert(
      fc.property(records, fc.constantFrom('\n', '\r\n'), (rows, end) => {
        const text = rows
          .map((row) => row.map((one) => `"${one.replaceAll('"', '""')}"`).join(','))
          .join(end);
        // A record of one empty cell cannot be told from an empty line.
        const expected = rows.filter((row) => row.length > 1 || row[0] !== '');
        expect(parseCsv(text).map(({ cells }) => cells)).toEqual(expected);
      }),
    );
  });

  it('knows in which line a record begins', () => {
    expect(parseCsv('a,b\n"1\n2",3\n\n4,5\n').map(({ line }) => line)).toEqual([1, 2, 5]);
  });
});

describe('rows', () => {
  const rows = (name: string, content: string, properties = ['text'], column?: string, most = 100) => {
    write({ [name]: content });
    return readRows(join(folder, name), properties, { rows: most, ...(column ? { column } : {}) });
  };

  it('are those of the properties that the manifest maps, in its order, as in a batch', () => {
    const read = rows('a.jsonl', '{"title": "t", "text": "x", "topic": 1}\n\n{"text": "y"}\n', [
      'text',
      'title',
    ]);
    expect(read.rows.map(({ origin, property, data }) => [origin, property, data])).toEqual([
      ['line 1', 'text', 'x'],
      ['line 1', 'title', 't'],
      ['line 3', 'text', 'y'],
    ]);
  });

  it('are found under data, text or a file where the manifest maps something else', () => {
    expect(rows('a.jsonl', '{"data": 3}\n"bare"\n', ['body']).rows).toMatchObject([
      { property: 'data', data: 3, type: 'json' },
      { property: 'body', data: 'bare', type: 'text' },
    ]);
    write({ 'in/a.png': 'png', 'in/b.pdf': 'pdf' });
    const read = rows('in/a.jsonl', '{"image": "a.png"}\n{"scan": {"file": "b.pdf"}}\n', ['scan']);
    expect(read.rows).toMatchObject([
      { type: 'image', mimeType: 'image/png', file: join(folder, 'in/a.png'), bytes: 3 },
      { type: 'pdf', mimeType: 'application/pdf', property: 'scan', file: join(folder, 'in/b.pdf') },
    ]);
  });

  it('of CSV come from the mapped column, or from the one that is named', () => {
    const text = 'text,label\n"a, b",x\nc,y\n';
    expect(rows('a.csv', text).rows.map(({ data }) => data)).toEqual(['a, b', 'c']);
    expect(rows('a.csv', text, ['text'], 'label').rows.map(({ data }) => data)).toEqual(['x', 'y']);
    expect(rows('a.csv', text, ['text'], undefined, 1)).toMatchObject({
      isCut: true,
      rows: [{ data: 'a, b' }],
    });
  });

  it.each([
    ['a.jsonl', '{"text": "x"}\n{"text": \n', /line 2 is not JSON/],
    ['a.jsonl', '3\n', /line 1: neither an object nor a text/],
    ['a.jsonl', '{"titel": "x"}\n', /line 1 has no text, data, image; it has titel\. --column names/],
    [
      'a.jsonl',
      '{"image": "absent.png"}\n',
      /line 1, image: absent\.png cannot be read \(paths are relative to/,
    ],
    ['a.jsonl', '{"image": 3}\n', /3 is no path of a file/],
    ['a.csv', 'text,label\nx\n', /line 2 has 1 cell; the head has 2/],
    ['a.csv', 'text;label\nx;y\n', /is one column, "text;label": cells are separated by commas/],
    ['a.tsv', 'text,label\nx,y\n', /is one column, "text,label": cells are separated by tabs/],
    ['a.csv', 'text,text\nx,y\n', /line 1 names the column "text" twice/],
    ['a.csv', 'text,label\nx,y\n"open,y\nz,y\n', /line 3 opens a quote that is never closed/],
    ['a.csv', '\u0089PNG\r\n\u0000\u0001', /holds no text/],
    ['a.png', 'PNG', /is a file for a row; list such files in a \.jsonl: \{"image": "a\.png"\}/],
    [
      'a.jsonl',
      `{"image": "data:image/png;base64,${'A'.repeat(5000)}"}\n`,
      /line 1, image: expected the path of a file here, got "data:image.{1,80}…"/,
    ],
    ['a.jsonl', '{"image": "https://x.org/a.png"}\n', /expected the path of a file here, got "https:/],
    ['a.csv', '', /is empty/],
    ['a.txt', 'x', /named neither \.jsonl nor \.csv/],
  ])('of %s with a fault name the line (%#)', (name, content, says) => {
    expect(() => rows(name, content)).toThrow(says);
  });
});
