// Packs a plugin's files into a zip archive, always into the same bytes for the same files.
import { createHash } from 'node:crypto';
import { crc32, deflateRawSync } from 'node:zlib';
import { archiveLimits } from '../../functions/core/resources/plugins/archive.ts';
import type { PluginFile } from './folder.ts';

export interface PackedFile {
  readonly path: string;
  readonly kind: number;
  readonly crc: number;
  readonly bytes: number;
  /** Deflated, or as it is where that is not smaller. */
  readonly packed: Buffer;
  readonly method: 0 | 8;
}

/** Compresses files once; `zipOf` then puts them under any top folder. */
export function packFiles(files: readonly PluginFile[]): PackedFile[] {
  return files.map(({ path, kind, content }) => {
    const deflated = deflateRawSync(content, { level: 9 });
    // What packs better than any text is suspected of being a bomb; as it is, it is none.
    const isSmaller =
      deflated.length < content.length && content.length < deflated.length * (archiveLimits.ratioMax / 2);
    return {
      path,
      kind,
      crc: crc32(content),
      bytes: content.length,
      packed: isSmaller ? deflated : content,
      method: isSmaller ? 8 : 0,
    };
  });
}

/** 1 January 1980, the first day of the format: the time of packing would make each archive another one. */
const date = 0x0021;

/**
 * A zip archive.
 *
 * @param top the folder that everything is in, without a slash
 * @see APPNOTE.TXT of PKWARE, sections 4.3.7, 4.3.12 and 4.3.16
 */
export function zipOf(files: readonly PackedFile[], top: string): Buffer {
  const parts: Buffer[] = [];
  const directory: Buffer[] = [];
  let offset = 0;
  for (const file of files) {
    const name = Buffer.from(`${top}/${file.path}`);
    const common = Buffer.alloc(26);
    common.writeUInt16LE(20, 0);
    common.writeUInt16LE(0x0800, 2); // names are UTF-8
    common.writeUInt16LE(file.method, 4);
    common.writeUInt16LE(date, 8);
    common.writeUInt32LE(file.crc, 10);
    common.writeUInt32LE(file.packed.length, 14);
    common.writeUInt32LE(file.bytes, 18);
    common.writeUInt16LE(name.length, 22);
    const rest = Buffer.alloc(14);
    // The same permissions for all: those of a working copy differ from one to the next.
    rest.writeUInt32LE((file.kind | 0o644) * 0x10000, 6);
    rest.writeUInt32LE(offset, 10);
    const local = Buffer.concat([Buffer.from('PK\x03\x04', 'latin1'), common, name]);
    // Made on UNIX, by version 2.0: the kind of the file counts.
    directory.push(
      Buffer.concat([Buffer.from('PK\x01\x02', 'latin1'), Buffer.from([20, 3]), common, rest, name]),
    );
    parts.push(local, file.packed);
    offset += local.length + file.packed.length;
  }
  const list = Buffer.concat(directory);
  const end = Buffer.alloc(22);
  end.write('PK\x05\x06', 'latin1');
  end.writeUInt16LE(files.length, 8);
  end.writeUInt16LE(files.length, 10);
  end.writeUInt32LE(list.length, 12);
  end.writeUInt32LE(offset, 16);
  return Buffer.concat([...parts, list, end]);
}

export const sha256Of = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');
