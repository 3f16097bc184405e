// The rules for plugin archives, all checked on the central directory before anything is unpacked; every broken rule is
// reported, not only the first. yauzl reads the format; what is allowed in it is decided here.
import * as yauzl from 'yauzl';
import type { FieldFault } from '../../errors.ts';

const mebi = 1024 * 1024;
export const archiveLimits = {
  packedBytesMax: 50 * mebi,
  unpackedBytesMax: 250 * mebi,
  fileBytesMax: 100 * mebi,
  entriesMax: 1_000,
  depthMax: 10,
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
    yauzl.fromBuffer(bytes, { lazyEntries: true, decodeStrings: false, validateEntrySizes: true }, (error, zip) =>
      error || !zip ? reject(error ?? new Error('not a zip')) : resolve(zip),
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

function contentOf(zip: yauzl.ZipFile, entry: yauzl.Entry): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    zip.openReadStream(entry, (error, stream) => {
      if (error || !stream) return reject(error ?? new Error('no stream'));
      const chunks: Buffer[] = [];
      stream.on('data', (chunk: Buffer) => chunks.push(chunk));
      stream.on('end', () => resolve(Buffer.concat(chunks)));
      stream.on('error', reject);
    });
  });
}

/** UTF-8 or nothing: other encodings would let two readers see two names. */
function nameOf(entry: yauzl.Entry): string | undefined {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(entry.fileNameRaw);
  } catch {
    return undefined;
  }
}

type Report = (type: string, file: string, message: string, fix?: string) => void;

function checkName(name: string, report: Report): void {
  const say = (message: string, fix?: string) => report('archive_bad_name', name, message, fix);
  if (name.includes('\0')) say('the name holds a NUL character');
  if (name.includes('\\')) say('the name holds a backslash', 'use "/" between folders; zip tools do so by themselves');
  if (name.startsWith('/')) say('the name is absolute', 'pack paths relative to the plugin folder');
  if (/^[A-Za-z]:/.test(name)) say('the name begins with a drive letter', 'pack paths relative to the plugin folder');
  if (name.split('/').includes('..')) say('the name climbs out of the archive by ".."');
  if (name.split('/').filter(Boolean).length > archiveLimits.depthMax) say(`the name is deeper than ${archiveLimits.depthMax} folders`);
}

function checkEntry(entry: yauzl.Entry, name: string, report: Report): void {
  const mode = (entry.externalFileAttributes >>> 16) & s_ifmt;
  if (mode !== 0 && mode !== s_ifreg && mode !== s_ifdir) {
    report('archive_special_file', name, 'is a link or a device', 'pack plain files only (zip without -y)');
  }
  if (entry.isEncrypted()) report('archive_encrypted', name, 'is encrypted', 'pack without a password');
  if (entry.compressionMethod !== 0 && entry.compressionMethod !== 8) {
    report('archive_method', name, `uses the compression method ${entry.compressionMethod}`, 'use deflate or store');
  }
  if (entry.uncompressedSize > archiveLimits.fileBytesMax) {
    report('archive_file_too_large', name, `has ${entry.uncompressedSize} bytes unpacked; at most ${archiveLimits.fileBytesMax} are allowed`);
  }
  if (entry.uncompressedSize > mebi && entry.uncompressedSize > entry.compressedSize * archiveLimits.ratioMax) {
    report('archive_bomb', name, `grows to more than ${archiveLimits.ratioMax} times its packed size`);
  }
}

/** Entries whose bytes overlap are a known way to make a small archive unpack to petabytes. */
function checkOverlaps(entries: readonly { entry: yauzl.Entry; name: string }[], report: Report): void {
  const ordered = [...entries].sort((a, b) => a.entry.relativeOffsetOfLocalHeader - b.entry.relativeOffsetOfLocalHeader);
  for (const [i, { entry, name }] of ordered.entries()) {
    const next = ordered[i + 1];
    const end = entry.relativeOffsetOfLocalHeader + 30 + entry.fileNameLength + entry.compressedSize;
    if (next && end > next.entry.relativeOffsetOfLocalHeader) {
      report('archive_overlap', name, `overlaps with ${next.name}`);
    }
  }
}

function fault(type: string, file: string, message: string, fix?: string): FieldFault {
  return { type, location: [file.slice(0, 200), 0, 0], message: `${file.slice(0, 200)}: ${message}`, ...(fix === undefined ? {} : { fix }) };
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
    report('archive_too_large', 'archive', `has ${bytes.length} bytes; at most ${archiveLimits.packedBytesMax} are allowed`, 'leave out what the plugin does not need at run time');
    return { ok: false, faults };
  }
  let zip: yauzl.ZipFile;
  let all: yauzl.Entry[];
  try {
    zip = await open(bytes);
    all = await entriesOf(zip);
  } catch (error) {
    const text = (error as Error).message;
    report('archive_unreadable', 'archive', `is not a readable .zip: ${text}`, 'make it by: zip -r plugin.zip plugin_folder/');
    return { ok: false, faults };
  }
  if (all.length > archiveLimits.entriesMax) {
    report('archive_too_many_files', 'archive', `holds more than ${archiveLimits.entriesMax} entries`);
    return { ok: false, faults };
  }
  const named: { entry: yauzl.Entry; name: string }[] = [];
  const seen = new Map<string, string>();
  let unpacked = 0;
  for (const entry of all) {
    const name = nameOf(entry);
    if (name === undefined) {
      report('archive_bad_name', Buffer.from(entry.fileNameRaw).toString('latin1'), 'the name is not UTF-8');
      continue;
    }
    named.push({ entry, name });
    checkName(name, report);
    checkEntry(entry, name, report);
    unpacked += entry.uncompressedSize;
    const folded = name.normalize('NFC').toLowerCase().replace(/\/$/, '');
    const other = seen.get(folded);
    if (other !== undefined) report('archive_duplicate', name, `is the same file as ${other} on some systems`, 'rename one of them');
    seen.set(folded, name);
  }
  if (unpacked > archiveLimits.unpackedBytesMax) {
    report('archive_too_large', 'archive', `unpacks to ${unpacked} bytes; at most ${archiveLimits.unpackedBytesMax} are allowed`);
  }
  checkOverlaps(named, report);
  if (faults.length > 0) return { ok: false, faults };

  const files = named.filter(({ name }) => !name.endsWith('/') && !ignored.test(name));
  const root = rootOf(files.map(({ name }) => name));
  const sources = new Map<string, Buffer>();
  const otherFiles: string[] = [];
  let sourceBytes = 0;
  for (const { entry, name } of files) {
    if (!name.startsWith(root)) continue;
    const path = name.slice(root.length);
    if (!path.endsWith('.py')) {
      otherFiles.push(path);
      continue;
    }
    sourceBytes += entry.uncompressedSize;
    if (sourceBytes > archiveLimits.sourceBytesMax) {
      report('archive_too_much_code', path, `the .py files have more than ${archiveLimits.sourceBytesMax} bytes together`, 'leave out vendored packages that are not needed, or pack them as wheels');
      break;
    }
    try {
      sources.set(path, await contentOf(zip, entry));
    } catch (error) {
      report('archive_unreadable', path, `cannot be unpacked: ${(error as Error).message}`, 'pack the archive again');
    }
  }
  return faults.length > 0 ? { ok: false, faults } : { ok: true, archive: { root, sources, otherFiles } };
}
