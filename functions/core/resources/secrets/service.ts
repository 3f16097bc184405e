// The rules of secrets: sealed before they are stored, opened only for a call of a plugin that declares them.
import type { NsCtx } from '../../context.ts';
import { seal, unseal } from '../../store/sealed.ts';
import type { StoredSecret } from './store.ts';
import {
  createSecretRow,
  findSecrets,
  getSecret,
  listSecretRows,
  removeSecretRow,
  updateSecretRow,
} from './store.ts';

export type { StoredSecret } from './store.ts';

/** A value that was moved to another namespace or name does not open there. */
function purposeOf(ctx: NsCtx, name: string): string {
  return `plugin-secret ${ctx.ns.orgId} ${ctx.ns.namespaceId} ${name}`;
}

async function sealed(ctx: NsCtx, name: string, value: string): Promise<string> {
  return seal(value, await ctx.ports.settings.pepper(), purposeOf(ctx, name), ctx.ports.random);
}

/** @throws AppError secret_name_taken, quota_exceeded */
export async function createSecret(ctx: NsCtx, name: string, value: string): Promise<StoredSecret> {
  return createSecretRow(ctx, name, await sealed(ctx, name, value));
}

/** By name. */
export async function listSecrets(ctx: NsCtx): Promise<StoredSecret[]> {
  return listSecretRows(ctx);
}

/** @throws AppError secret_not_found, secret_changed */
export async function updateSecret(ctx: NsCtx, name: string, value: string): Promise<StoredSecret> {
  const before = await getSecret(ctx, name);
  return updateSecretRow(ctx, before, await sealed(ctx, name, value));
}

/** @throws AppError secret_not_found, secret_changed */
export async function deleteSecret(ctx: NsCtx, name: string): Promise<StoredSecret> {
  const before = await getSecret(ctx, name);
  await removeSecretRow(ctx, before);
  return before;
}

/**
 * The values of those of `names` that this namespace has; the others are left out.
 *
 * Nothing but a call of the runner may have them: they must not get into rows, answers, events or logs.
 */
export async function openSecrets(ctx: NsCtx, names: readonly string[]): Promise<Record<string, string>> {
  const unique = [...new Set(names)];
  const [found, pepper] = await Promise.all([findSecrets(ctx, unique), ctx.ports.settings.pepper()]);
  return Object.fromEntries(
    found.flatMap((secret) =>
      secret ? [[secret.name, unseal(secret.sealed, pepper, purposeOf(ctx, secret.name))]] : [],
    ),
  );
}
