// Plugin archives: sound ones are read, hostile and odd ones are refused for the right reason, before anything runs.
import { randomBytes } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { archiveLimits, readArchive } from '../../../functions/core/resources/plugins/archive.ts';
import type { ZipEntry } from '../../fixtures/zip.ts';
import { zip, zipOf } from '../../fixtures/zip.ts';

const manifest: ZipEntry = { name: 'p/manifest.py', content: 'name = "p"\n' };
const pipeline: ZipEntry = { name: 'p/pipeline.py', content: 'def build_steps(): ...\n' };
const withMore = (...entries: ZipEntry[]) => zip([manifest, pipeline, ...entries]);
const mebi = 1024 * 1024;

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
  const big = Buffer.alloc(2 * mebi, 'a');
  const sound = zip([manifest, pipeline]);
  const bad: [string, () => Buffer, string][] = [
    ['with a name that climbs out', () => withMore({ name: '../evil.py', content: 'x' }), 'archive_bad_name'],
    [
      'with a name that climbs out in the middle',
      () => withMore({ name: 'p/../../evil.py', content: 'x' }),
      'archive_bad_name',
    ],
    [
      'with a name that climbs and comes back',
      () => withMore({ name: 'p/../p/x.py', content: 'x' }),
      'archive_bad_name',
    ],
    ['with an absolute name', () => withMore({ name: '/etc/passwd', content: 'x' }), 'archive_bad_name'],
    ['with a drive letter', () => withMore({ name: 'C:/x.py', content: 'x' }), 'archive_bad_name'],
    [
      'with a drive letter and no slash',
      () => withMore({ name: 'c:x.py', content: 'x' }),
      'archive_bad_name',
    ],
    ['with backslashes', () => withMore({ name: 'p\\x.py', content: 'x' }), 'archive_bad_name'],
    [
      'with a network path',
      () => withMore({ name: '\\\\host\\share\\x.py', content: 'x' }),
      'archive_bad_name',
    ],
    ['with a NUL in a name', () => withMore({ name: 'p/x.py\0.txt', content: 'x' }), 'archive_bad_name'],
    ['with a line feed in a name', () => withMore({ name: 'p/x\n.py', content: 'x' }), 'archive_bad_name'],
    [
      'with an escape character in a name',
      () => withMore({ name: 'p/\u001b[2J.py', content: 'x' }),
      'archive_bad_name',
    ],
    [
      'with a name that is not UTF-8',
      () => withMore({ name: Buffer.from([0x70, 0x2f, 0xff, 0xfe]), content: 'x' }),
      'archive_bad_name',
    ],
    [
      'with a name in overlong UTF-8',
      () => withMore({ name: Buffer.from([0x70, 0x2f, 0xc0, 0xae, 0xc0, 0xae]), content: 'x' }),
      'archive_bad_name',
    ],
    ['with an empty name', () => withMore({ name: '', content: 'x' }), 'archive_bad_name'],
    [
      'with a name of dots and slashes only',
      () => withMore({ name: './/.', content: 'x' }),
      'archive_bad_name',
    ],
    [
      'one folder too deep',
      () => withMore({ name: `p/${'d/'.repeat(archiveLimits.depthMax)}x.txt`, content: 'x' }),
      'archive_bad_name',
    ],
    [
      'with a part of a name that no file system takes',
      () => withMore({ name: `p/${'x'.repeat(256)}`, content: 'x' }),
      'archive_bad_name',
    ],
    [
      'with a name that is too long',
      () => withMore({ name: `p/${`${'x'.repeat(240)}/`.repeat(5)}x`, content: 'x' }),
      'archive_bad_name',
    ],
    [
      'with another name before the bytes',
      () => withMore({ name: 'p/x.py', localName: 'p/y.py', content: 'x' }),
      'archive_bad_name',
    ],
    [
      'with a symbolic link',
      () => withMore({ name: 'p/link.py', content: '/etc/passwd', mode: 0o120777 }),
      'archive_special_file',
    ],
    [
      'with a symbolic link to a folder',
      () => withMore({ name: 'p/link', content: '/', mode: 0o120777 }, { name: 'p/link2/x', content: 'x' }),
      'archive_special_file',
    ],
    ['with a device', () => withMore({ name: 'p/null', mode: 0o020666 }), 'archive_special_file'],
    ['with a pipe', () => withMore({ name: 'p/pipe', mode: 0o010666 }), 'archive_special_file'],
    ['with a socket', () => withMore({ name: 'p/sock', mode: 0o140666 }), 'archive_special_file'],
    ['with a name twice', () => withMore({ name: 'p/manifest.py', content: 'other' }), 'archive_duplicate'],
    [
      'with names that differ in case',
      () => withMore({ name: 'p/Manifest.PY', content: 'other' }),
      'archive_duplicate',
    ],
    [
      'with names that differ in how accents are written',
      () => withMore({ name: 'p/\u00e9.txt', content: 'a' }, { name: 'p/e\u0301.txt', content: 'b' }),
      'archive_duplicate',
    ],
    [
      'with names that differ in a long s',
      () => withMore({ name: 'p/stra\u00dfe.txt', content: 'a' }, { name: 'p/strasse.txt', content: 'b' }),
      'archive_duplicate',
    ],
    [
      'with names that differ in a dot and a slash',
      () => withMore({ name: 'p/./manifest.py', content: 'other' }),
      'archive_duplicate',
    ],
    [
      'with a file that is a folder too',
      () => withMore({ name: 'p/lib', content: 'x' }, { name: 'p/lib/x.py', content: 'x' }),
      'archive_duplicate',
    ],
    [
      'with a file and a folder of one name',
      () => withMore({ name: 'p/lib', content: 'x' }, { name: 'p/lib/', mode: 0o40755 }),
      'archive_duplicate',
    ],
    [
      'that grows a thousandfold',
      () => withMore({ name: 'p/zeros', content: Buffer.alloc(2 * mebi) }),
      'archive_bomb',
    ],
    [
      'that grows a thousandfold in a source file',
      () => withMore({ name: 'p/zeros.py', content: Buffer.alloc(2 * mebi, '#') }),
      'archive_bomb',
    ],
    [
      'whose entries share their bytes',
      () =>
        withMore(
          { name: 'p/a', content: big, method: 0 },
          { name: 'p/b', content: big, method: 0, sameBytesAs: 2 },
        ),
      'archive_bad_name archive_overlap',
    ],
    [
      'whose entries overlap in part',
      () =>
        withMore(
          { name: 'p/a', content: 'x'.repeat(200), method: 0, packedSize: 230, size: 230 },
          { name: 'p/b', content: 'x' },
        ),
      'archive_overlap',
    ],
    [
      'with a size that is too small',
      () => withMore({ name: 'p/a.py', content: 'x'.repeat(1000), size: 10 }),
      'archive_unreadable',
    ],
    [
      'with a size that is too large',
      () => withMore({ name: 'p/a.py', content: 'x'.repeat(10), size: 1000 }),
      'archive_unreadable',
    ],
    [
      'with a lying size of a file that nobody reads',
      () => withMore({ name: 'p/a.bin', content: 'x'.repeat(1000), size: 10 }),
      'archive_unreadable',
    ],
    [
      'with a wrong checksum of a source file',
      () => withMore({ name: 'p/a.py', content: 'x', crc: 1 }),
      'archive_unreadable',
    ],
    [
      'with a wrong checksum of another file',
      () => withMore({ name: 'p/a.bin', content: 'x', crc: 1 }),
      'archive_unreadable',
    ],
    [
      'with an entry that claims 5 GB',
      () => withMore({ name: 'p/a', content: 'x', size: 0xfffffff0 }),
      'archive_bomb archive_file_too_large archive_too_large',
    ],
    [
      'with a file above 100 MB',
      () => withMore({ name: 'p/a', content: 'x', size: archiveLimits.fileBytesMax + 1 }),
      'archive_bomb archive_file_too_large',
    ],
    [
      'that unpacks to more than 250 MB',
      () =>
        withMore(...['a', 'b', 'c'].map((name) => ({ name: `p/${name}`, content: 'x', size: 90 * mebi }))),
      'archive_bomb archive_too_large',
    ],
    [
      'with an encrypted entry',
      () => withMore({ name: 'p/a.py', content: 'x', flags: 0x801 }),
      'archive_encrypted',
    ],
    [
      'with strong encryption',
      () => withMore({ name: 'p/a.py', content: 'x', flags: 0x841 }),
      'archive_unreadable',
    ],
    ['packed by bzip2', () => withMore({ name: 'p/a.py', content: 'x', method: 12 }), 'archive_method'],
    ['packed by LZMA', () => withMore({ name: 'p/a.py', content: 'x', method: 14 }), 'archive_method'],
    [
      'with two methods for one entry',
      () => withMore({ name: 'p/a.py', content: 'x', method: 0, localMethod: 8 }),
      'archive_method',
    ],
    [
      'with one entry too many',
      () =>
        zip(
          Array.from({ length: archiveLimits.entriesMax + 1 }, (_, i) => ({
            name: `p/${i}.txt`,
            content: '',
          })),
        ),
      'archive_too_many_files',
    ],
    [
      'that says it has more entries than it has',
      () => zip([manifest, pipeline], { entryCount: 9 }),
      'archive_unreadable',
    ],
    [
      'with a program before it',
      () => zip([manifest, pipeline], { prefix: Buffer.from('#!/bin/sh\nexit 0\n') }),
      'archive_unreadable',
    ],
    [
      'with bytes before it that no offset knows',
      () => Buffer.concat([Buffer.from('junk'), sound]),
      'archive_unreadable',
    ],
    [
      'with bytes after it',
      () => zip([manifest, pipeline], { suffix: Buffer.from('junk') }),
      'archive_unreadable',
    ],
    [
      'that is two archives in a row',
      () => Buffer.concat([sound, zip([{ name: 'q/x.py', content: 'x' }])]),
      'archive_unreadable',
    ],
    ['in zip64', () => zip([manifest, pipeline], { zip64: true }), 'archive_unreadable'],
    [
      'whose directory lies outside',
      () => zip([manifest, pipeline], { directoryOffset: 1_000_000 }),
      'archive_unreadable',
    ],
    [
      'whose entry lies outside',
      () => withMore({ name: 'p/a.py', content: 'x', localOffset: 1_000_000 }),
      'archive_unreadable',
    ],
    [
      'whose entry lies in the middle of another',
      () => withMore({ name: 'p/a.py', content: 'x', localOffset: 7 }),
      'archive_overlap archive_unreadable',
    ],
    ['that is cut off', () => sound.subarray(0, sound.length - 30), 'archive_unreadable'],
    ['of no bytes', () => Buffer.alloc(0), 'archive_unreadable'],
    [
      'that is a tar',
      () => Buffer.concat([Buffer.from('manifest.py'), Buffer.alloc(1013)]),
      'archive_unreadable',
    ],
    ['that is text', () => Buffer.from('name = "p"\n'), 'archive_unreadable'],
    [
      'that is random bytes',
      () => Buffer.from(Array.from({ length: 5000 }, (_, i) => (i * 7919) & 0xff)),
      'archive_unreadable',
    ],
    ['above 50 MB', () => Buffer.alloc(archiveLimits.packedBytesMax + 1), 'archive_too_large'],
    [
      'with more code than the validator takes',
      () =>
        withMore({
          name: 'p/big.py',
          content: randomBytes(archiveLimits.sourceBytesMax)
            .toString('hex')
            .slice(0, archiveLimits.sourceBytesMax),
        }),
      'archive_too_much_code',
    ],
  ];

  it.each(bad)('%s', async (_, bytes, types) => {
    const read = await readArchive(bytes());
    expect(read.ok).toBe(false);
    if (read.ok) return;
    expect([...new Set(read.faults.map((fault) => fault.type))].sort().join(' ')).toBe(types);
    for (const fault of read.faults) {
      expect(fault.location).toHaveLength(3);
      expect(fault.message.length).toBeLessThan(600);
    }
  });

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

describe('an archive that says it is empty', () => {
  it('although entries follow has no source, so that no manifest is found in it', async () => {
    const read = await readArchive(zip([manifest, pipeline], { entryCount: 0 }));
    expect(read.ok ? [...read.archive.sources.keys()] : []).toEqual([]);
  });
});
