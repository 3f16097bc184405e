// Identifiers: prefix + 9 base-36 characters of milliseconds + 11 random ones, so that ids sort by creation time
// and a list needs no index (decisions, section 4).
import { createHash } from 'node:crypto';
import type { Clock, RandomSource } from './clock.ts';
import { systemClock, systemRandom } from './clock.ts';

/** What an id names, and the prefix that says so on the wire. */
export const idPrefixes = {
  namespace: 'ns_',
  bucket: 'bkt_',
  object: 'obj_',
  blob: 'blob_',
  upload: 'upl_',
  batch: 'btch_',
  collection: 'col_',
  document: 'doc_',
  retriever: 'ret_',
  execution: 'exec_',
  taxonomy: 'tax_',
  cluster: 'clust_',
  run: 'run_',
  alert: 'alt_',
  event: 'evt_',
  delivery: 'dlv_',
  task: 'task_',
  organization: 'org_',
  key: 'key_',
  audit: 'aud_',
  export: 'exp_',
  import: 'imp_',
} as const;

export type IdKind = keyof typeof idPrefixes;

const alphabet = '0123456789abcdefghijklmnopqrstuvwxyz';

/** `count` characters of `[a-z0-9]`, each uniform: bytes of 252 and above are thrown away, else some would be likelier. */
export function randomCharacters(count: number, random: RandomSource = systemRandom): string {
  let text = '';
  while (text.length < count) {
    for (const byte of random.bytes(count)) {
      if (byte < 252 && text.length < count) text += alphabet[byte % 36];
    }
  }
  return text;
}

/**
 * A new id of a kind: prefix and 20 characters that sort by time.
 *
 * Two ids of one millisecond sort arbitrarily; nothing may depend on their order.
 */
export function newId(kind: IdKind, clock: Clock = systemClock, random: RandomSource = systemRandom): string {
  const time = clock.now().toString(36).padStart(9, '0');
  return idPrefixes[kind] + time + randomCharacters(11, random);
}

/** A webhook's id has a form of its own, `wh_` and 16 hexadecimal digits, because clients check it. */
export function newWebhookId(random: RandomSource = systemRandom): string {
  return `wh_${Buffer.from(random.bytes(8)).toString('hex')}`;
}

/**
 * An id that follows from its parts, so that a repeated write meets itself instead of making a second row.
 *
 * @param parts joined with a character that no id contains; order matters.
 * @returns prefix and 20 characters of base 36 out of a SHA-256.
 */
export function derivedId(kind: IdKind, ...parts: readonly (string | number)[]): string {
  const digest = createHash('sha256').update(parts.join('\u0000')).digest();
  let value = BigInt(`0x${digest.subarray(0, 16).toString('hex')}`);
  let text = '';
  for (let i = 0; i < 20; i++) {
    text += alphabet[Number(value % 36n)];
    value /= 36n;
  }
  return idPrefixes[kind] + text;
}
