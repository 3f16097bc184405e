// The form of an API key: `grn_<live|test>_<id 8>_<30 base62><6 base62 CRC32>`. The checksum finds typing errors and
// invented keys before anything is read.
import { createHmac, timingSafeEqual } from 'node:crypto';
import { crc32 } from 'node:zlib';
import type { RandomSource } from '../../clock.ts';

const base62 = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';

function randomBase62(count: number, random: RandomSource): string {
  let text = '';
  while (text.length < count) {
    for (const byte of random.bytes(count)) if (byte < 248 && text.length < count) text += base62[byte % 62];
  }
  return text;
}

function checksum(body: string): string {
  let value = crc32(body);
  let text = '';
  for (let i = 0; i < 6; i++) {
    text = base62[value % 62] + text;
    value = Math.floor(value / 62);
  }
  return text;
}

export interface NewToken {
  /** The whole key, shown once. */
  readonly token: string;
  /** 8 characters that find its row. */
  readonly publicId: string;
}

export function newToken(mode: 'live' | 'test', random: RandomSource): NewToken {
  const publicId = randomBase62(8, random);
  const body = `grn_${mode}_${publicId}_${randomBase62(30, random)}`;
  return { token: body + checksum(body), publicId };
}

/** The public id in a key of the right form and checksum; undefined for anything else. */
export function publicIdOf(token: string): string | undefined {
  const match = /^(grn_(?:live|test)_([0-9A-Za-z]{8})_[0-9A-Za-z]{30})([0-9A-Za-z]{6})$/.exec(token);
  if (!match) return undefined;
  return sameText(checksum(match[1]!), match[3]!) ? match[2] : undefined;
}

/** What is stored instead of the key. */
export function tokenHash(token: string, pepper: string): string {
  return createHmac('sha256', pepper).update(`api-key:${token}`).digest('base64url');
}

/** Compares in a time that does not depend on where the texts differ. */
export function sameText(a: string, b: string): boolean {
  const left = Buffer.from(a);
  const right = Buffer.from(b);
  return left.length === right.length && timingSafeEqual(left, right);
}
