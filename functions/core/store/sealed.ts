// Secrets of users at rest: AES-256-GCM under a key that is derived from the deployment's own secret, so that a read
// of the table shows nothing. Opened by `deliver` for signatures, and by whoever calls a plugin that declares some.
import { createCipheriv, createDecipheriv, hkdfSync } from 'node:crypto';
import type { RandomSource } from '../clock.ts';

const nonceBytes = 12;
const tagBytes = 16;

function keyFor(pepper: string, purpose: string): Buffer {
  return Buffer.from(hkdfSync('sha256', pepper, '', `granary:${purpose}`, 32));
}

/** @param purpose what the secret is for; a text sealed for one purpose does not open for another. */
export function seal(text: string, pepper: string, purpose: string, random: RandomSource): string {
  const nonce = Buffer.from(random.bytes(nonceBytes));
  const cipher = createCipheriv('aes-256-gcm', keyFor(pepper, purpose), nonce);
  const body = Buffer.concat([cipher.update(text, 'utf8'), cipher.final()]);
  return Buffer.concat([nonce, cipher.getAuthTag(), body]).toString('base64');
}

/** @throws Error when the text was changed or sealed under another key. */
export function unseal(sealed: string, pepper: string, purpose: string): string {
  const bytes = Buffer.from(sealed, 'base64');
  const decipher = createDecipheriv('aes-256-gcm', keyFor(pepper, purpose), bytes.subarray(0, nonceBytes));
  decipher.setAuthTag(bytes.subarray(nonceBytes, nonceBytes + tagBytes));
  return Buffer.concat([decipher.update(bytes.subarray(nonceBytes + tagBytes)), decipher.final()]).toString(
    'utf8',
  );
}
