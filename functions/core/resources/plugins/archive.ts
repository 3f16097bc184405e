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
  /** All `.py` files together, since they travel to the validator in one call. */
  sourceBytesMax: 3 * mebi,
} as const;

export interface PluginArchive {
  /** The top folder with its slash, or '' when the files stand at the root. */
  readonly root: string;
  /** `.py` files below the root: path -> content. */
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
    method: bytes.readUInt16LE(at + 8),
    dataAt,
  };
}

/** UTF-8 or nothing: other encodings would let two readers see two names. */
function nameOf(entry: yauzl.Entry): string | undefined {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(entry.fileNameRaw);
  } catch {
    return undefined;
  }
}

/** Whether the archive has the records of large files; the runner takes none, since limits far below them hold. */
function isZip64(bytes: Buffer): boolean {
  const end = bytes.lastIndexOf(Buffer.from('PK\x05\x06', 'latin1'));
  return end >= 20 && bytes.readUInt32LE(end - 20) === 0x07064b50;
}

type Report = (type: string, file: string, message: string, fix?: string) => void;

function checkName(name: string, report: Report): void {
  const say = (message: string, fix?: string) => report('archive_bad_name', name, message, fix);
  const parts = partsOf(name);
  if (parts.length === 0) say('the entry has no name');
  if (name.includes('\0')) say('the name holds a NUL character');
  else if (/\p{Cc}/u.test(name)) say('the name holds a control character');
  if (name.includes('\\'))
    say('the name holds a backslash', 'use "/" between folders; zip tools do so by themselves');
  if (name.startsWith('/')) say('the name is absolute', 'pack paths relative to the plugin folder');
  if (/^[A-Za-z]:/.test(name))
    say('the name begins with a drive letter', 'pack paths relative to the plugin folder');
  if (parts.includes('..')) say('the name climbs out of the archive by ".."');
  if (parts.length > archiveLimits.depthMax + 1)
    say(`the name is deeper than ${archiveLimits.depthMax} folders`);
  if (Buffer.byteLength(name) > archiveLimits.nameBytesMax)
    say(`the name has more than ${archiveLimits.nameBytesMax} bytes`);
  else if (parts.some((one) => Buffer.byteLength(one) > archiveLimits.partBytesMax))
    say(`a part of the name has more than ${archiveLimits.partBytesMax} bytes`);
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
    );
  }
  if (
    entry.uncompressedSize > mebi &&
    entry.uncompressedSize > entry.compressedSize * archiveLimits.ratioMax
  ) {
    report('archive_bomb', name, `grows to more than ${archiveLimits.ratioMax} times its packed size`);
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
  const ordered = [...entries].sort(
    (a, b) => a.entry.relativeOffsetOfLocalHeader - b.entry.relativeOffsetOfLocalHeader,
  );
  for (const [i, { entry, name }] of ordered.entries()) {
    const local = localHeaderOf(bytes, entry);
    if (!local) {
      report('archive_unreadable', name, 'has no header where the directory says', 'pack the archive again');
      continue;
    }
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
    if (next && local.dataAt + entry.compressedSize > next.entry.relativeOffsetOfLocalHeader)
      report('archive_overlap', name, `overlaps with ${next.name}`);
  }
}

/** No two entries are the same file on any system, and none is both a file and a folder. */
function checkDoubles(entries: readonly Named[], report: Report): void {
  const files = new Map<string, string>();
  for (const { name, path, isFolder } of entries) {
    const key = folded(partsOf(path));
    const other = files.get(key);
    if (other !== undefined)
      report('archive_duplicate', name, `is the same file as ${other} on some systems`, 'rename one of them');
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
        report('archive_duplicate', name, `lies in ${file}, which is a file`, 'rename one of them');
    }
  }
}

function fault(type: string, file: string, message: string, fix?: string): FieldFault {
  return {
    type,
    location: [file.slice(0, 200), 0, 0],
    message: `${file.slice(0, 200)}: ${message}`,
    ...(fix === undefined ? {} : { fix }),
  };
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
  if (isZip64(bytes)) return unreadable('it is a zip64 file, which nothing within the limits needs');
  if (all.length > archiveLimits.entriesMax) {
    report('archive_too_many_files', 'archive', `holds more than ${archiveLimits.entriesMax} entries`);
    return { ok: false, faults };
  }
  const named: Named[] = [];
  let unpacked = 0;
  for (const entry of all) {
    const name = nameOf(entry);
    if (name === undefined) {
      report('archive_bad_name', Buffer.from(entry.fileNameRaw).toString('latin1'), 'the name is not UTF-8');
      continue;
    }
    named.push({ entry, name, path: partsOf(name).join('/'), isFolder: name.endsWith('/') });
    checkName(name, report);
    checkEntry(entry, name, report);
    unpacked += entry.uncompressedSize;
  }
  if (unpacked > archiveLimits.unpackedBytesMax) {
    report(
      'archive_too_large',
      'archive',
      `unpacks to ${unpacked} bytes; at most ${archiveLimits.unpackedBytesMax} are allowed`,
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
    const isSource = path.endsWith('.py');
    if (isSource) sourceBytes += entry.uncompressedSize;
    if (sourceBytes > archiveLimits.sourceBytesMax) {
      report(
        'archive_too_much_code',
        path,
        `the .py files have more than ${archiveLimits.sourceBytesMax} bytes together`,
        'leave out vendored packages that are not needed, or pack them as wheels',
      );
      break;
    }
    try {
      // Every file is unpacked once, so that what passes here can be unpacked where it runs.
      const content = await contentOf(zip, entry, isSource);
      if (isSource) sources.set(path, content);
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
