// `Idempotency-Key` on any POST: the first answer again for the same request, a refusal for a different one.
// By hand rather than by Powertools, because the in-memory table must run it too (docs/adr/0002).
import { createHash, createHmac } from 'node:crypto';
import type { Ctx } from '../context.ts';
import { AppError } from '../errors.ts';
import { randomCharacters } from '../ids.ts';
import { getText } from '../store/blobs.ts';
import { seal, unseal } from '../store/sealed.ts';
import type { Key } from '../store/table.ts';
import { ConditionFailed } from '../store/table.ts';

/** A crashed owner's key can be taken over after this long. */
const leaseSeconds = 60;
const keepSeconds = 24 * 3600;
/** Replies above this go to the blob store, with a pointer in the row (decisions, section 1). */
const inlineBytesMax = 100_000;
/** Replies are kept sealed: some hold what is shown once and stored nowhere, a new API key or a signing secret. */
const sealPurpose = 'idempotent-reply';

export interface StoredReply {
  readonly status: number;
  readonly body: string;
}

function replyKey(key: Key): string {
  return `idempotency/${createHash('sha256').update(`${key.pk}\u0000${key.sk}`).digest('hex')}`;
}

/**
 * Runs `work` once for an idempotency key.
 *
 * @param space who may see the reply again: namespace, key and route.
 * @param request what must be equal for the same key: method, path, query and body.
 * @returns the reply of the first run, with `replayed` set when it was not this one.
 * @throws AppError idempotency_key_reused, idempotency_in_flight; 5xx and 422 of `work` are not kept.
 */
export async function once(
  ctx: Ctx,
  space: string,
  idempotencyKey: string,
  request: string,
  work: () => Promise<StoredReply>,
): Promise<StoredReply & { readonly replayed: boolean }> {
  const { table, blobs } = ctx.ports;
  const key = ctx.org.idempotency(space, idempotencyKey);
  // Keyed, because a request may hold a short secret, which a plain hash would let somebody guess.
  const digest = createHmac('sha256', await ctx.ports.settings.pepper())
    .update(`idempotent-request\u0000${request}`)
    .digest('hex');
  const nowSeconds = Math.floor(ctx.ports.clock.now() / 1000);
  // Not the request id: callers choose that, and may give one to many requests.
  const owner = randomCharacters(20, ctx.ports.random);
  const mine = { request_hash: digest, owner };
  const row = {
    ...key,
    ...mine,
    state: 'running',
    lease_until: nowSeconds + leaseSeconds,
    expires_at: nowSeconds + keepSeconds,
  };
  try {
    await table.write([
      {
        put: row,
        if: [
          {
            anyOf: [
              { absent: true },
              { attribute: 'expires_at', lt: nowSeconds },
              {
                allOf: [
                  { attribute: 'state', eq: 'running' },
                  { attribute: 'lease_until', lt: nowSeconds },
                  { attribute: 'request_hash', eq: digest },
                ],
              },
            ],
          },
        ],
      },
    ]);
  } catch (error) {
    if (!(error instanceof ConditionFailed)) throw error;
    const found = error.of(0)?.item;
    if (found?.request_hash !== digest) {
      throw new AppError('idempotency_key_reused', {
        detail:
          'This Idempotency-Key was used within 24 hours for another request. Use a fresh key for each request.',
      });
    }
    if (found.state === 'done') return { ...(await readReply(ctx, key, found)), replayed: true };
    // Our own write can come back refused when its first answer was lost on the way.
    if (found.owner !== owner) {
      throw new AppError('idempotency_in_flight', {
        detail: 'The first request with this Idempotency-Key is still running.',
        retryAfterSeconds: 1,
      });
    }
  }
  let reply: StoredReply;
  try {
    reply = await work();
  } catch (error) {
    await table.write([
      { delete: key, if: [{ anyOf: [{ absent: true }, { attribute: 'owner', eq: owner }] }] },
    ]);
    throw error;
  }
  const sealed = seal(reply.body, await ctx.ports.settings.pepper(), sealPurpose, ctx.ports.random);
  const large = sealed.length > inlineBytesMax;
  if (large) await blobs.put(replyKey(key), sealed, { contentType: 'text/plain' });
  await table.write([
    {
      put: {
        ...key,
        ...mine,
        state: 'done',
        status: reply.status,
        ...(large ? { body_at_blob: true } : { body: sealed }),
        expires_at: nowSeconds + keepSeconds,
      },
    },
  ]);
  return { ...reply, replayed: false };
}

async function readReply(ctx: Ctx, key: Key, row: Readonly<Record<string, unknown>>): Promise<StoredReply> {
  const sealed = row.body_at_blob ? await getText(ctx.ports.blobs, replyKey(key)) : String(row.body ?? '');
  return { status: Number(row.status), body: unseal(sealed, await ctx.ports.settings.pepper(), sealPurpose) };
}
