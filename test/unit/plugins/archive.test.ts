// Plugin archives: sound ones are read, hostile and odd ones are refused for the right reason, before anything runs.
import { randomBytes } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { archiveLimits, readArchive } from '../../../functions/core/resources/plugins/archive.ts';
import type { ZipEntry } from '../../fixtures/zip.ts';
import { zip, zipOf } from '../../fixtures/zip.ts';

const manifest: ZipEntry = { name: 'p/manifest.py', content: 'name = "p"\n' };
const pipeline: ZipEntry = { name: 'p/pipeline.py', content: 'def build_steps(): ...\n' };
const withMore = (...entries: ZipEntry[]) => zip([manifest, pipeline, ...entries]);

describe('a sound archive', () => {
  const good: [string, Buffer, { root: string; sources: string[]; others: string[] }][] = [
    [
      'with one top folder',
      zip([manifest, pipeline]),
      { root: 'p/', sources: ['manifest.py', 'pipeline.py'], others: [] },
    ],
    [
      'with its files at the root',
      zipOf({ 'manifest.py': 'a', 'pipeline.py': 'b', 'lib/x.py': 'c' }),
      { root: '', sources: ['manifest.py', 'pipeline.py', 'lib/x.py'], others: [] },
    ],
    [
      'with entries for folders',
      zip([{ name: 'p/', mode: 0o40755 }, manifest, pipeline]),
      { root: 'p/', sources: ['manifest.py', 'pipeline.py'], others: [] },
    ],
    [
      'with stored entries',
      zip([
        { ...manifest, method: 0 },
        { ...pipeline, method: 0 },
      ]),
      { root: 'p/', sources: ['manifest.py', 'pipeline.py'], others: [] },
    ],
    [
      'with data files',
      withMore({ name: 'p/words.txt', content: 'a b' }, { name: 'p/data/x.json', content: '{}' }),
      { root: 'p/', sources: ['manifest.py', 'pipeline.py'], others: ['words.txt', 'data/x.json'] },
    ],
    [
      'with what systems leave behind',
      withMore(
        { name: '__MACOSX/p/._manifest.py', content: 'x' },
        { name: 'p/.DS_Store', content: 'x' },
        { name: 'p/__pycache__/m.pyc', content: 'x' },
      ),
      { root: 'p/', sources: ['manifest.py', 'pipeline.py'], others: [] },
    ],
    [
      'with two top folders (no root is guessed)',
      zipOf({ 'a/manifest.py': 'a', 'b/pipeline.py': 'b' }),
      { root: '', sources: ['a/manifest.py', 'b/pipeline.py'], others: [] },
    ],
    [
      'with names beginning with ./',
      zipOf({ './p/manifest.py': 'a', './p//pipeline.py': 'b' }),
      { root: 'p/', sources: ['manifest.py', 'pipeline.py'], others: [] },
    ],
    [
      'with names in other scripts',
      withMore({ name: 'p/données/été.txt', content: 'x' }, { name: 'p/データ.txt', content: 'x' }),
      { root: 'p/', sources: ['manifest.py', 'pipeline.py'], others: ['données/été.txt', 'データ.txt'] },
    ],
    [
      'with a zip inside',
      withMore({ name: 'p/inner.zip', content: zipOf({ '../evil.py': 'x' }) }),
      { root: 'p/', sources: ['manifest.py', 'pipeline.py'], others: ['inner.zip'] },
    ],
    [
      'with a comment',
      zip([manifest, pipeline], { comment: 'made by hand' }),
      { root: 'p/', sources: ['manifest.py', 'pipeline.py'], others: [] },
    ],
    ['that holds nothing', zip([]), { root: '', sources: [], others: [] }],
    [
      'of the greatest depth',
      withMore({ name: `p/${'d/'.repeat(archiveLimits.depthMax - 1)}x.txt`, content: 'x' }),
      {
        root: 'p/',
        sources: ['manifest.py', 'pipeline.py'],
        others: [`${'d/'.repeat(archiveLimits.depthMax - 1)}x.txt`],
      },
    ],
    [
      'with as many entries as allowed',
      zip([
        manifest,
        ...Array.from({ length: archiveLimits.entriesMax - 1 }, (_, i) => ({
          name: `p/${i}.pyc`,
          content: '',
        })),
      ]),
      { root: 'p/', sources: ['manifest.py'], others: [] },
    ],
  ];

  it.each(good)('%s is read', async (_, bytes, expected) => {
    const read = await readArchive(bytes);
    if (!read.ok) throw new Error(JSON.stringify(read.faults));
    expect({
      root: read.archive.root,
      sources: [...read.archive.sources.keys()],
      others: read.archive.otherFiles,
    }).toEqual(expected);
  });

  it('comes out byte for byte', async () => {
    const content = randomBytes(100_000);
    const read = await readArchive(zip([{ name: 'manifest.py', content }]));
    expect(read.ok && read.archive.sources.get('manifest.py')?.equals(content)).toBe(true);
  });
});

describe('an archive is refused', () => {
  it('when its bytes do not inflate', async () => {
    const bytes = withMore({ name: 'p/a.py', content: 'these bytes are no deflate stream', method: 0 });
    // Both headers of the last entry say "deflated" now.
    const local = bytes.lastIndexOf(Buffer.from('PK\x03\x04', 'latin1'));
    const central = bytes.lastIndexOf(Buffer.from('PK\x01\x02', 'latin1'));
    bytes.writeUInt16LE(8, local + 8);
    bytes.writeUInt16LE(8, central + 10);
    const read = await readArchive(bytes);
    expect(read.ok ? [] : read.faults.map((fault) => fault.type)).toEqual(['archive_unreadable']);
  });

  it('for every reason at once, at most 50 of them', async () => {
    const read = await readArchive(
      zip([
        { name: '../a', content: '' },
        { name: '/b', content: '' },
        { name: 'c', mode: 0o120777 },
        { name: 'd', flags: 0x801 },
      ]),
    );
    expect(read.ok ? [] : read.faults.map((fault) => `${fault.location[0]} ${fault.type}`)).toEqual([
      '../a archive_bad_name',
      '/b archive_bad_name',
      'c archive_special_file',
      'd archive_encrypted',
    ]);
    const many = await readArchive(
      zip(Array.from({ length: 200 }, (_, i) => ({ name: `../${i}`, content: '' }))),
    );
    expect(many.ok ? 0 : many.faults.length).toBe(50);
  });
});
