// The rules for plugin archives, all checked on the central directory before anything is unpacked; every broken rule is
// reported, not only the first. yauzl reads the format; what is allowed in it is decided here.
import { crc32 } from 'node:zlib';
import * as yauzl from 'yauzl';
import type { FieldFault } from '../../errors.ts';

const mebi = 1024 * 1024;
export const archiveLimits = {
  packedBytesMax: 50 * mebi,
  unpackedBytesMax: 250 * mebi,
  fileBytesMax: 100 * mebi,
  entriesMax: 1_000,
  /** Folders above a file. */
  depthMax: 10,
  nameBytesMax: 1_000,
  /** One part of a path; file systems take no more. */
  partBytesMax: 255,
  /** Unpacked to packed size of one entry above 1 MiB; text reaches about 20. */
  ratioMax: 200,
  /** All that travels to the validator, together, since it does so in one call. */
  sourceBytesMax: 3 * mebi,
  /** Of METADATA and WHEEL of a vendored package: what counts stands at their beginning, a long description after it. */
  metadataBytesMax: 32 * 1024,
} as const;

export interface PluginArchive {
  /** The top folder with its slash, or '' when the files stand at the root. */
  readonly root: string;
  /** What the validator reads, below the root: path -> content. `.py` files, and what vendored packages say of themselves. */
  readonly sources: ReadonlyMap<string, Buffer>;
  /** Every other file below the root. */
  readonly otherFiles: readonly string[];
}

export type ReadArchive =
  | { readonly ok: true; readonly archive: PluginArchive }
  | { readonly ok: false; readonly faults: readonly FieldFault[] };

const s_ifmt = 0o170000;
const s_ifreg = 0o100000;
const s_ifdir = 0o040000;

/** Name, version and tags of a package that was unpacked into `vendor/`. */
const packageFacts = /^vendor\/[^/]+\.dist-info\/(METADATA|WHEEL)$/;

const ignored = /(^|\/)(__MACOSX|__pycache__)(\/|$)|(^|\/)\.DS_Store$|\.pyc$/;

function open(bytes: Buffer): Promise<yauzl.ZipFile> {
  return new Promise((resolve, reject) => {
    yauzl.fromBuffer(
      bytes,
      { lazyEntries: true, decodeStrings: false, validateEntrySizes: true },
      (error, zip) => (error || !zip ? reject(error ?? new Error('not a zip')) : resolve(zip)),
    );
  });
}

function entriesOf(zip: yauzl.ZipFile): Promise<yauzl.Entry[]> {
  return new Promise((resolve, reject) => {
    const entries: yauzl.Entry[] = [];
    zip.on('entry', (entry: yauzl.Entry) => {
      entries.push(entry);
      // One more than allowed shows that there are too many; a million names need not be read for that.
      if (entries.length > archiveLimits.entriesMax) resolve(entries);
      else zip.readEntry();
    });
    zip.on('end', () => resolve(entries));
    zip.on('error', reject);
    zip.readEntry();
  });
}

/**
 * Unpacks one entry and checks its size and checksum, which yauzl leaves to us.
 *
 * @param keep whether the bytes are wanted; else they are counted and let go.
 */
function contentOf(zip: yauzl.ZipFile, entry: yauzl.Entry, keep: boolean): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    zip.openReadStream(entry, (error, stream) => {
      if (error || !stream) return reject(error ?? new Error('no stream'));
      const chunks: Buffer[] = [];
      let sum = 0;
      stream.on('data', (chunk: Buffer) => {
        sum = crc32(chunk, sum);
        if (keep) chunks.push(chunk);
      });
      stream.on('end', () =>
        sum === entry.crc32 ? resolve(Buffer.concat(chunks)) : reject(new Error('the checksum is wrong')),
      );
      stream.on('error', reject);
    });
  });
}

/** What stands before the bytes of an entry; it says once more what the directory says, and readers differ in whom they believe. */
interface LocalHeader {
  readonly name: Buffer;
  readonly flags: number;
  readonly method: number;
  readonly dataAt: number;
}

const localHeaderBytes = 30;

function localHeaderOf(bytes: Buffer, entry: yauzl.Entry): LocalHeader | undefined {
  const at = entry.relativeOffsetOfLocalHeader;
  if (at + localHeaderBytes > bytes.length || bytes.readUInt32LE(at) !== 0x04034b50) return undefined;
  const nameBytes = bytes.readUInt16LE(at + 26);
  const dataAt = at + localHeaderBytes + nameBytes + bytes.readUInt16LE(at + 28);
  return {
    name: bytes.subarray(at + localHeaderBytes, at + localHeaderBytes + nameBytes),
    flags: bytes.readUInt16LE(at + 6),
    method: bytes.readUInt16LE(at + 8),
    dataAt,
  };
}

/** Of one entry in the directory. */
function directoryBytesOf(entry: yauzl.Entry): number {
  return 46 + entry.fileNameLength + entry.extraFieldLength + entry.fileCommentLength;
}

/** UTF-8 or nothing: other encodings would let two readers see two names. */
function nameOf(entry: yauzl.Entry): string | undefined {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(entry.fileNameRaw);
  } catch {
    return undefined;
  }
}

const endRecord = Buffer.from('PK\x05\x06', 'latin1');
const endRecordBytes = 22;
const zip64Locator = 0x07064b50;
/** The runner lists no longer directory. */
const directoryBytesMax = archiveLimits.entriesMax * 2048;

const otherFormats: readonly (readonly [magic: string, at: number, name: string])[] = [
  ['\x1f\x8b', 0, 'a gzip file, perhaps a .tar.gz'],
  ['7z\xbc\xaf\x27\x1c', 0, 'a 7z archive'],
  ['Rar!', 0, 'a RAR archive'],
  ['BZh', 0, 'a bzip2 file'],
  ['\xfd7zXZ', 0, 'an xz file'],
  ['ustar', 257, 'a tar archive'],
];

/**
 * Why the record at the end, from which everything else is found, cannot be believed. Some readers take the first that
 * they meet from behind and some look further, so only one that ends the file is taken.
 */
function findEndFault(bytes: Buffer): string | undefined {
  const end = bytes.lastIndexOf(endRecord);
  if (end < 0 || end + endRecordBytes > bytes.length) {
    const other = otherFormats.find(([magic, at]) =>
      bytes.subarray(at, at + magic.length).equals(Buffer.from(magic, 'latin1')),
    );
    if (other) return `it is ${other[2]}`;
    return end < 0 ? 'it has no end record; it may be cut off' : 'its end record is cut off';
  }
  if (end >= 20 && bytes.readUInt32LE(end - 20) === zip64Locator)
    return 'it is a zip64 file, which nothing within the limits needs';
  if (end + endRecordBytes + bytes.readUInt16LE(end + 20) !== bytes.length)
    return 'other bytes stand after its end';
  const directoryBytes = bytes.readUInt32LE(end + 12);
  if (directoryBytes > directoryBytesMax)
    return `its directory has ${directoryBytes} bytes; at most ${directoryBytesMax} are read`;
  if (bytes.readUInt32LE(end + 16) + directoryBytes !== end)
    return 'its directory is not where its end record says; it may be cut off';
  return undefined;
}

type Report = (type: string, file: string, message: string, fix: string) => void;

function checkName(name: string, report: Report): void {
  const say = (message: string, fix = 'rename the file, or leave it out') =>
    report('archive_bad_name', name, message, fix);
  const parts = partsOf(name);
  if (parts.length === 0) say('the entry has no name');
  if (name.includes('\0')) say('the name holds a NUL character');
  else if (/\p{Cc}/u.test(name)) say('the name holds a control character');
  if (name.includes('\\'))
    say('the name holds a backslash', 'use "/" between folders; zip tools do so by themselves');
  if (name.startsWith('/')) say('the name is absolute', 'pack paths relative to the plugin folder');
  if (/^[A-Za-z]:/.test(name))
    say('the name begins with a drive letter', 'pack paths relative to the plugin folder');
  if (parts.includes('..'))
    say('the name climbs out of the archive by ".."', 'pack paths relative to the plugin folder');
  if (parts.length > archiveLimits.depthMax + 1)
    say(`the name is deeper than ${archiveLimits.depthMax} folders`, 'put the file into fewer folders');
  if (Buffer.byteLength(name) > archiveLimits.nameBytesMax)
    say(`the name has more than ${archiveLimits.nameBytesMax} bytes`);
  else if (parts.some((one) => Buffer.byteLength(one) > archiveLimits.partBytesMax))
    say(`a part of the name has more than ${archiveLimits.partBytesMax} bytes`);
}

const utf8Flag = 0x800;
/** Encrypted (which has a message of its own), how well deflated, sizes after the bytes, UTF-8. */
const knownFlags = 0x1 | 0x2 | 0x4 | 0x8 | utf8Flag;
/** 6.3, the latest that the runner's reader knows. */
const versionNeededMax = 63;
const zip64Field = 0x0001;
const unicodePathField = 0x7075;

/** Whatever makes readers differ in what an entry is called, or how large it is. */
function checkMeaning(entry: yauzl.Entry, name: string, report: Report): void {
  const raw = Buffer.from(entry.fileNameRaw);
  if ((entry.generalPurposeBitFlag & utf8Flag) === 0 && raw.some((byte) => byte > 0x7f)) {
    report(
      'archive_bad_name',
      name,
      'the name has letters beyond ASCII and does not say in which encoding',
      'rename the file in plain letters, or pack by a tool that writes names as UTF-8 (python -m zipfile -c)',
    );
  }
  if ((entry.generalPurposeBitFlag & ~knownFlags) !== 0 || entry.versionNeededToExtract > versionNeededMax) {
    report(
      'archive_unreadable',
      name,
      'needs a reader of a later version, or one that patches files',
      'pack the archive again by a usual tool',
    );
  }
  for (const { id, data } of entry.extraFields) {
    // One byte of version and four of a checksum stand before the name.
    if (id === unicodePathField && !raw.equals(data.subarray(5)))
      report('archive_bad_name', name, 'has another name in an extra field', 'pack the archive again');
    if (id === zip64Field) {
      report(
        'archive_unreadable',
        name,
        'has sizes of a zip64 file, which nothing within the limits needs',
        'pack the archive again, from files and not from a stream',
      );
    }
  }
}

/** The parts of a path as every reader takes them: `./a//b` is `a/b`. */
function partsOf(name: string): string[] {
  return name.split('/').filter((part) => part !== '' && part !== '.');
}

/** One spelling for names that are the same file on some system: composed, without case (`ß` and `ss` too). */
function folded(parts: readonly string[]): string {
  return parts.join('/').normalize('NFC').toUpperCase().toLowerCase().normalize('NFC');
}

function checkEntry(entry: yauzl.Entry, name: string, report: Report): void {
  const mode = (entry.externalFileAttributes >>> 16) & s_ifmt;
  if (mode !== 0 && mode !== s_ifreg && mode !== s_ifdir) {
    report('archive_special_file', name, 'is a link or a device', 'pack plain files only (zip without -y)');
  }
  if (entry.isEncrypted()) report('archive_encrypted', name, 'is encrypted', 'pack without a password');
  if (entry.compressionMethod !== 0 && entry.compressionMethod !== 8) {
    report(
      'archive_method',
      name,
      `uses the compression method ${entry.compressionMethod}`,
      'use deflate or store',
    );
  }
  if (entry.uncompressedSize > archiveLimits.fileBytesMax) {
    report(
      'archive_file_too_large',
      name,
      `has ${entry.uncompressedSize} bytes unpacked; at most ${archiveLimits.fileBytesMax} are allowed`,
      'split the file, or store its numbers in a smaller type such as float16',
    );
  }
  if (
    entry.uncompressedSize > mebi &&
    entry.uncompressedSize > entry.compressedSize * archiveLimits.ratioMax
  ) {
    report(
      'archive_bomb',
      name,
      `grows to more than ${archiveLimits.ratioMax} times its packed size`,
      'leave the file out and make it in the code, or pack it without compression (zip -0)',
    );
  }
}

interface Named {
  readonly entry: yauzl.Entry;
  /** As the archive writes it. */
  readonly name: string;
  /** Without empty parts and dots; a folder has none at the end. */
  readonly path: string;
  readonly isFolder: boolean;
}

/** The headers before the bytes agree with the directory, and no two entries share bytes: a small archive would unpack to petabytes. */
function checkLayout(bytes: Buffer, entries: readonly Named[], report: Report): void {
  const directoryAt = bytes.readUInt32LE(bytes.lastIndexOf(endRecord) + 16);
  const ordered = [...entries].sort(
    (a, b) => a.entry.relativeOffsetOfLocalHeader - b.entry.relativeOffsetOfLocalHeader,
  );
  for (const [i, { entry, name }] of ordered.entries()) {
    const local = localHeaderOf(bytes, entry);
    if (!local) {
      report('archive_unreadable', name, 'has no header where the directory says', 'pack the archive again');
      continue;
    }
    if (local.name.some((byte) => byte > 0x7f) && (local.flags & utf8Flag) === 0)
      report(
        'archive_bad_name',
        name,
        'does not say the encoding of its name before its bytes',
        'pack the archive again',
      );
    if (!local.name.equals(entry.fileNameRaw)) {
      report(
        'archive_bad_name',
        name,
        `has another name before its bytes: ${JSON.stringify(local.name.toString('latin1').slice(0, 80))}`,
        'pack the archive again',
      );
    }
    if (local.method !== entry.compressionMethod)
      report('archive_method', name, 'names two compression methods', 'pack the archive again');
    const next = ordered[i + 1];
    const endsAt = local.dataAt + entry.compressedSize;
    if (next && endsAt > next.entry.relativeOffsetOfLocalHeader)
      report('archive_overlap', name, `overlaps with ${shown(next.name)}`, 'pack the archive again');
    else if (endsAt > directoryAt)
      report('archive_overlap', name, 'overlaps with the directory', 'pack the archive again');
  }
}

/** No two entries are the same file on any system, and none is both a file and a folder. */
function checkDoubles(entries: readonly Named[], report: Report): void {
  const files = new Map<string, string>();
  for (const { name, path, isFolder } of entries) {
    const key = folded(partsOf(path));
    const other = files.get(key);
    if (other !== undefined)
      report(
        'archive_duplicate',
        name,
        `is the same file as ${shown(other)} on some systems`,
        'rename one of them',
      );
    else files.set(key, isFolder ? `${name} (a folder)` : name);
  }
  const plain = new Map(
    entries.filter(({ isFolder }) => !isFolder).map(({ name, path }) => [folded(partsOf(path)), name]),
  );
  for (const { name, path } of entries) {
    const parts = partsOf(path);
    for (let i = 1; i < parts.length; i++) {
      const file = plain.get(folded(parts.slice(0, i)));
      if (file !== undefined)
        report('archive_duplicate', name, `lies in ${shown(file)}, which is a file`, 'rename one of them');
    }
  }
}

/** Names come from strangers and messages go to terminals, where control and invisible characters act. */
function shown(name: string): string {
  return name.slice(0, 200).replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Zl}\p{Zp}]/gu, '?');
}

function fault(type: string, file: string, message: string, fix: string): FieldFault {
  return { type, location: [shown(file), 0, 0], message: `${shown(file)}: ${message}`, fix };
}

/** The root is the archive's own, or its single top folder; `manifest.py` says which. */
function rootOf(files: readonly string[]): string {
  if (files.includes('manifest.py') || files.includes('pipeline.py')) return '';
  const tops = new Set(files.map((name) => name.split('/')[0]!));
  const [top] = [...tops];
  return tops.size === 1 && files.every((name) => name.includes('/')) ? `${top}/` : '';
}

/**
 * Reads a plugin archive.
 *
 * @param bytes the whole `.zip`.
 * @returns its sources, or every rule that it breaks, each with the file it is about.
 */
export async function readArchive(bytes: Buffer): Promise<ReadArchive> {
  const faults: FieldFault[] = [];
  const report: Report = (type, file, message, fix) => {
    if (faults.length < 50) faults.push(fault(type, file, message, fix));
  };
  if (bytes.length > archiveLimits.packedBytesMax) {
    report(
      'archive_too_large',
      'archive',
      `has ${bytes.length} bytes; at most ${archiveLimits.packedBytesMax} are allowed`,
      'leave out what the plugin does not need at run time',
    );
    return { ok: false, faults };
  }
  const unreadable = (text: string): ReadArchive => {
    report(
      'archive_unreadable',
      'archive',
      `is not a readable .zip: ${text}`,
      'make it by: zip -r plugin.zip plugin_folder/',
    );
    return { ok: false, faults };
  };
  const endFault = findEndFault(bytes);
  if (endFault !== undefined) return unreadable(endFault);
  let zip: yauzl.ZipFile;
  let all: yauzl.Entry[];
  try {
    zip = await open(bytes);
    all = await entriesOf(zip);
  } catch (error) {
    return unreadable((error as Error).message);
  }
  // Bytes before the first entry would make it two files in one: a program to some readers, an archive to others.
  if (all.length > 0 && bytes.readUInt32LE(0) !== 0x04034b50)
    return unreadable('other bytes stand before the first entry');
  if (all.length > archiveLimits.entriesMax) {
    report(
      'archive_too_many_files',
      'archive',
      `holds more than ${archiveLimits.entriesMax} entries`,
      'leave out what the plugin does not need at run time, such as the tests of vendored packages',
    );
    return { ok: false, faults };
  }
  // Readers that go by the length of the directory, as the runner does, would find entries that were not counted.
  const countedBytes = all.reduce((sum, entry) => sum + directoryBytesOf(entry), 0);
  if (countedBytes !== bytes.readUInt32LE(bytes.lastIndexOf(endRecord) + 12))
    return unreadable('its directory is longer than the entries that its end record counts');
  const named: Named[] = [];
  let unpacked = 0;
  for (const entry of all) {
    const name = nameOf(entry);
    if (name === undefined) {
      report(
        'archive_bad_name',
        Buffer.from(entry.fileNameRaw).toString('latin1'),
        'the name is not UTF-8',
        'rename the file in plain letters',
      );
      continue;
    }
    named.push({ entry, name, path: partsOf(name).join('/'), isFolder: name.endsWith('/') });
    checkName(name, report);
    checkMeaning(entry, name, report);
    checkEntry(entry, name, report);
    unpacked += entry.uncompressedSize;
  }
  if (unpacked > archiveLimits.unpackedBytesMax) {
    report(
      'archive_too_large',
      'archive',
      `unpacks to ${unpacked} bytes; at most ${archiveLimits.unpackedBytesMax} are allowed`,
      'leave out what the plugin does not need at run time',
    );
  }
  checkDoubles(named, report);
  checkLayout(bytes, named, report);
  if (faults.length > 0) return { ok: false, faults };

  const files = named.filter(({ path, isFolder }) => !isFolder && !ignored.test(path));
  const root = rootOf(files.map(({ path }) => path));
  const sources = new Map<string, Buffer>();
  const otherFiles: string[] = [];
  let sourceBytes = 0;
  for (const { entry, path: whole } of files) {
    const path = whole.slice(root.length);
    const isCode = path.endsWith('.py');
    const isSource = isCode || packageFacts.test(path);
    if (isSource)
      sourceBytes += isCode
        ? entry.uncompressedSize
        : Math.min(entry.uncompressedSize, archiveLimits.metadataBytesMax);
    if (sourceBytes > archiveLimits.sourceBytesMax) {
      report(
        'archive_too_much_code',
        path,
        `the .py files, with METADATA and WHEEL of vendored packages, have more than ${archiveLimits.sourceBytesMax} bytes together`,
        'leave out vendored packages that are not needed, and the tests of those that are',
      );
      break;
    }
    try {
      // Every file is unpacked once, so that what passes here can be unpacked where it runs.
      const content = await contentOf(zip, entry, isSource);
      if (isSource) sources.set(path, isCode ? content : content.subarray(0, archiveLimits.metadataBytesMax));
      else otherFiles.push(path);
    } catch (error) {
      report(
        'archive_unreadable',
        path,
        `cannot be unpacked: ${(error as Error).message}`,
        'pack the archive again',
      );
    }
  }
  return faults.length > 0 ? { ok: false, faults } : { ok: true, archive: { root, sources, otherFiles } };
}
