// How API keys are stored: a row that the authorizer finds by the key's public id, and an entry in the organisation's list.
import { isoTime } from '../../clock.ts';
import type { Ctx } from '../../context.ts';
import { AppError } from '../../errors.ts';
import type { KeyPermission } from '../../http/principal.ts';
import { audit } from '../../store/audit.ts';
import { apiKeyRow } from '../../store/keys.ts';
import type { Condition, Item, Table, Write } from '../../store/table.ts';
import { ConditionFailed, queryAll } from '../../store/table.ts';

export interface StoredKey {
  readonly key_id: string;
  readonly public_id: string;
  readonly org_id: string;
  readonly name: string;
  readonly description: string | null;
  readonly key_hash: string;
  readonly key_prefix: string;
  readonly permissions: readonly KeyPermission[];
  readonly namespace_ids: readonly string[] | null;
  readonly created_at: string;
  readonly created_by: string;
  readonly expires_at_time: string | null;
  readonly revoked_at: string | null;
  readonly rotated_to: string | null;
}

function toRow(ctx: Ctx, key: StoredKey): Item {
  return { ...ctx.org.apiKey(key.key_id), ...key };
}

/** Found by the public id, before any organisation is known. Consistent: a revoked key must not live on in a replica. */
export async function findKeyByPublicId(table: Table, publicId: string): Promise<StoredKey | undefined> {
  return (await table.get(apiKeyRow(publicId))) as StoredKey | undefined;
}

export async function findKey(ctx: Ctx, keyId: string): Promise<StoredKey | undefined> {
  return (await ctx.ports.table.get(ctx.org.apiKey(keyId))) as StoredKey | undefined;
}

/** Newest first. */
export async function listKeys(ctx: Ctx): Promise<StoredKey[]> {
  const { pk, prefix } = ctx.org.apiKeys();
  const keys: StoredKey[] = [];
  for await (const item of queryAll(ctx.ports.table, pk, { prefix, descending: true }))
    keys.push(item as unknown as StoredKey);
  return keys;
}

function putBoth(ctx: Ctx, key: StoredKey): Write[] {
  return [
    { put: { ...apiKeyRow(key.public_id), ...key }, if: [{ absent: true }] },
    { put: toRow(ctx, key), if: [{ absent: true }] },
  ];
}

function changeBoth(
  ctx: Ctx,
  key: StoredKey,
  set: Partial<StoredKey>,
  more: readonly Condition[] = [],
): Write[] {
  const changes = set as Record<string, string | null>;
  return [
    { update: apiKeyRow(key.public_id), set: changes, if: [{ present: true }, ...more] },
    { update: ctx.org.apiKey(key.key_id), set: changes, if: [{ present: true }] },
  ];
}

export async function putKey(ctx: Ctx, key: StoredKey): Promise<void> {
  await ctx.ports.table.write([...putBoth(ctx, key), audit(ctx, 'key.create', key.key_id)]);
}

export async function revokeKey(ctx: Ctx, key: StoredKey): Promise<void> {
  const time = isoTime(ctx.ports.clock.now());
  await ctx.ports.table.write([
    ...changeBoth(ctx, key, { revoked_at: time }),
    audit(ctx, 'key.revoke', key.key_id),
  ]);
}

/**
 * The new key and the old one's end in one transaction: there is never a moment without a valid key.
 *
 * @throws AppError key_already_revoked, so that nobody revokes a key and its successor lives on
 */
export async function replaceKey(
  ctx: Ctx,
  old: StoredKey,
  fresh: StoredKey,
  oldEndsAt: string,
): Promise<void> {
  try {
    await ctx.ports.table.write([
      ...changeBoth(ctx, old, { expires_at_time: oldEndsAt, rotated_to: fresh.key_id }, [
        { attribute: 'revoked_at', eq: null },
      ]),
      ...putBoth(ctx, fresh),
      audit(ctx, 'key.rotate', old.key_id),
    ]);
  } catch (error) {
    if (!(error instanceof ConditionFailed)) throw error;
    const found = error.of(0)?.item;
    // The write was ours and its answer was lost.
    if (found?.rotated_to === fresh.key_id) return;
    throw new AppError('key_already_revoked', {
      detail: `The API key ${old.key_id} was revoked meanwhile; make a new one instead.`,
    });
  }
}
