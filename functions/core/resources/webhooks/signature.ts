// How a delivery proves where it comes from: Standard Webhooks headers, and the header that clients of the reference
// API check. By hand on purpose, three lines each; the `standardwebhooks` package is the tests' oracle.
// @see https://www.standardwebhooks.com and the API rules, section 11.
import { createHmac } from 'node:crypto';
import type { RandomSource } from '../../clock.ts';

const secretPrefix = 'whsec_';

/** A fresh secret: `whsec_` and 32 random bytes in base64. */
export function newSigningSecret(random: RandomSource): string {
  return secretPrefix + Buffer.from(random.bytes(32)).toString('base64');
}

/** The key of the HMAC: the decoded part after `whsec_`, or the bytes of a secret that the user chose. */
function keyOf(secret: string): Buffer {
  return secret.startsWith(secretPrefix)
    ? Buffer.from(secret.slice(secretPrefix.length), 'base64')
    : Buffer.from(secret);
}

/** `v1,<base64>` for one secret. */
export function standardSignature(
  secret: string,
  id: string,
  timestampSeconds: number,
  body: string,
): string {
  return `v1,${createHmac('sha256', keyOf(secret)).update(`${id}.${timestampSeconds}.${body}`).digest('base64')}`;
}

/**
 * The headers of one delivery.
 *
 * @param id the same over all attempts, so that receivers can drop repetitions.
 * @param secrets every valid secret (two during a rotation); none: an unsigned delivery.
 */
export function signatureHeaders(
  secrets: readonly string[],
  id: string,
  timestampSeconds: number,
  body: string,
): Record<string, string> {
  const headers: Record<string, string> = { 'webhook-id': id, 'webhook-timestamp': String(timestampSeconds) };
  if (secrets.length === 0) return headers;
  headers['webhook-signature'] = secrets
    .map((secret) => standardSignature(secret, id, timestampSeconds, body))
    .join(' ');
  const older = secrets.map(
    (secret) => `v1=${createHmac('sha256', secret).update(`${timestampSeconds}.${body}`).digest('hex')}`,
  );
  headers['X-Mixpeek-Signature'] = [`t=${timestampSeconds}`, ...older].join(',');
  return headers;
}
