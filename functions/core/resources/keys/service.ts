// The rules of API keys: making, checking, rotating, revoking.
import type * as z from 'zod';
import type { Clock } from '../../clock.ts';
import { isoTime } from '../../clock.ts';
import type { Ctx } from '../../context.ts';
import { AppError, invalid } from '../../errors.ts';
import type { Principal } from '../../http/principal.ts';
import { bootstrapKeyId } from '../../http/principal.ts';
import { newId } from '../../ids.ts';
import type { Table } from '../../store/table.ts';
import type { CreateKeyBody } from './contract.ts';
import type { StoredKey } from './store.ts';
import {
  findKey,
  findKeyByPublicId,
  listKeys as listStored,
  putKey,
  replaceKey,
  revokeKey as revokeStored,
} from './store.ts';
import { newToken, publicIdOf, sameText, tokenHash } from './token.ts';

export type { StoredKey } from './store.ts';

const keysMax = 200;

/** An organisation's own deployment: one per stack, since Granary is deployed by those who use it. */
export const ownOrganization = 'org_self0000000000000000';

export interface KeyWithToken {
  readonly key: StoredKey;
  /** Shown once and never stored. */
  readonly token: string;
}

async function makeKey(
  ctx: Ctx,
  parts: Pick<StoredKey, 'name' | 'description' | 'permissions' | 'namespace_ids' | 'expires_at_time'>,
): Promise<KeyWithToken> {
  const { clock, random, settings } = ctx.ports;
  const { token, publicId } = newToken(settings.stage === 'prod' ? 'live' : 'test', random);
  return {
    token,
    key: {
      key_id: newId('key', clock, random),
      public_id: publicId,
      org_id: ctx.principal.orgId,
      ...parts,
      key_hash: tokenHash(token, await settings.pepper()),
      key_prefix: token.slice(0, 13),
      created_at: isoTime(clock.now()),
      created_by: ctx.principal.keyId,
      revoked_at: null,
      rotated_to: null,
    },
  };
}

/** @throws AppError namespace_not_found for a scope that names none of ours, quota_exceeded */
export async function createKey(ctx: Ctx, body: z.output<typeof CreateKeyBody>): Promise<KeyWithToken> {
  const live = (await listStored(ctx)).filter((key) => keyStatus(key, ctx.ports.clock) === 'active');
  if (live.length >= keysMax) {
    throw new AppError('quota_exceeded', {
      detail: `An organisation has at most ${keysMax} active API keys. Revoke some first.`,
    });
  }
  const time = ctx.ports.clock.now();
  if (body.expires_at && Date.parse(body.expires_at) <= time) {
    throw invalid('request_invalid', [
      {
        type: 'wrong_value',
        location: ['body', 'expires_at'],
        message: `must lie in the future, got ${body.expires_at}; it is ${isoTime(time)} now`,
        fix: 'leave it out for a key without an end',
      },
    ]);
  }
  for (const id of body.scopes?.namespace_ids ?? []) {
    const namespace = await ctx.ports.table.get(ctx.org.namespace(id));
    if (!namespace || namespace.state === 'deleting') {
      throw new AppError('namespace_not_found', {
        detail: `scopes.namespace_ids names ${id}, which does not exist.`,
      });
    }
  }
  const made = await makeKey(ctx, {
    name: body.name,
    description: body.description ?? null,
    permissions: body.permissions,
    namespace_ids: body.scopes?.namespace_ids ?? null,
    expires_at_time: body.expires_at ?? null,
  });
  await putKey(ctx, made.key);
  return made;
}

export function keyStatus(key: StoredKey, clock: Clock): 'active' | 'revoked' | 'expired' {
  if (key.revoked_at !== null) return 'revoked';
  if (key.expires_at_time !== null && Date.parse(key.expires_at_time) <= clock.now()) return 'expired';
  return 'active';
}

export async function listKeys(ctx: Ctx): Promise<StoredKey[]> {
  return listStored(ctx);
}

/** @throws AppError key_not_found */
export async function getKey(ctx: Ctx, keyId: string): Promise<StoredKey> {
  const key = await findKey(ctx, keyId);
  if (!key) throw new AppError('key_not_found', { detail: `No API key "${keyId.slice(0, 60)}".` });
  return key;
}

/** @throws AppError key_not_found, key_already_revoked */
export async function rotateKey(ctx: Ctx, keyId: string, overlapSeconds: number): Promise<KeyWithToken> {
  const old = await getKey(ctx, keyId);
  const status = keyStatus(old, ctx.ports.clock);
  if (status !== 'active') {
    throw new AppError('key_already_revoked', {
      detail: `The API key ${keyId} is ${status}; make a new one instead.`,
    });
  }
  const made = await makeKey(ctx, {
    name: old.name,
    description: old.description,
    permissions: old.permissions,
    namespace_ids: old.namespace_ids,
    expires_at_time: old.expires_at_time,
  });
  const overlapEnd = ctx.ports.clock.now() + overlapSeconds * 1000;
  const oldEnd =
    old.expires_at_time === null ? overlapEnd : Math.min(overlapEnd, Date.parse(old.expires_at_time));
  await replaceKey(ctx, old, made.key, isoTime(oldEnd));
  return made;
}

/** Safe to repeat. @throws AppError key_not_found */
export async function revokeKey(ctx: Ctx, keyId: string): Promise<StoredKey> {
  const key = await getKey(ctx, keyId);
  if (key.revoked_at === null) await revokeStored(ctx, key);
  return key;
}

/**
 * Who a presented key belongs to; what the authorizer asks.
 *
 * One answer (undefined) for malformed, unknown, wrong, revoked and expired: the caller learns nothing from it.
 *
 * @param bootstrap the secret that the deployment generated; it may only manage keys.
 */
export async function authenticate(
  table: Table,
  clock: Clock,
  pepper: string,
  bootstrap: string,
  token: string,
): Promise<Principal | undefined> {
  if (bootstrap.length >= 32 && sameText(token, bootstrap)) {
    return { orgId: ownOrganization, keyId: bootstrapKeyId, permissions: [] };
  }
  const publicId = publicIdOf(token);
  if (publicId === undefined) return undefined;
  const key = await findKeyByPublicId(table, publicId);
  if (!key || !sameText(key.key_hash, tokenHash(token, pepper))) return undefined;
  if (keyStatus(key, clock) !== 'active') return undefined;
  const base = { orgId: key.org_id, keyId: key.key_id, permissions: key.permissions };
  return key.namespace_ids === null ? base : { ...base, namespaceIds: key.namespace_ids };
}
