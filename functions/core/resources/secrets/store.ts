// How secrets are stored: one row for each in its namespace's partition, the value sealed.
import { isoTime } from '../../clock.ts';
import type { NsCtx } from '../../context.ts';
import { AppError } from '../../errors.ts';
import { randomCharacters } from '../../ids.ts';
import { audit } from '../../store/audit.ts';
import { isNameable } from '../../store/keys.ts';
import { ConditionFailed } from '../../store/table.ts';

/** A namespace holds at most this many. */
const secretsMax = 50;

export interface StoredSecret {
  readonly name: string;
  /** @see store/sealed.ts */
  readonly sealed: string;
  readonly revision: number;
  readonly created_at: string;
  readonly updated_at: string;
}

function toSecret(row: Readonly<Record<string, unknown>>): StoredSecret {
  const { name, sealed, revision, created_at, updated_at } = row as unknown as StoredSecret;
  return { name, sealed, revision, created_at, updated_at };
}

/** By name. */
export async function listSecretRows(ctx: NsCtx): Promise<StoredSecret[]> {
  const { pk, prefix } = ctx.ns.secrets();
  const { items } = await ctx.ports.table.query(pk, { prefix, limit: secretsMax });
  return items.map(toSecret);
}

/** In the order of the names; undefined where there is none. */
export async function findSecrets(
  ctx: NsCtx,
  names: readonly string[],
): Promise<(StoredSecret | undefined)[]> {
  const rows = await ctx.ports.table.getMany(names.map((name) => ctx.ns.secret(name)));
  return rows.map((row) => row && toSecret(row));
}

/** @throws AppError secret_not_found */
export async function getSecret(ctx: NsCtx, name: string): Promise<StoredSecret> {
  const [found] = isNameable(name) ? await findSecrets(ctx, [name]) : [];
  if (found) return found;
  throw new AppError('secret_not_found', {
    detail: `No secret "${name.slice(0, 120)}" in this namespace.`,
  });
}

/** @throws AppError secret_name_taken, quota_exceeded */
export async function createSecretRow(ctx: NsCtx, name: string, sealed: string): Promise<StoredSecret> {
  if ((await listSecretRows(ctx)).length >= secretsMax) {
    throw new AppError('quota_exceeded', {
      detail: `A namespace holds at most ${secretsMax} secrets, and this one has them. Delete one first.`,
    });
  }
  const time = isoTime(ctx.ports.clock.now());
  const secret: StoredSecret = { name, sealed, revision: 1, created_at: time, updated_at: time };
  const commit = randomCharacters(16, ctx.ports.random);
  try {
    await ctx.ports.table.write([
      { put: { ...ctx.ns.secret(name), ...secret, last_commit: commit }, if: [{ absent: true }] },
      audit(ctx, 'secret.create', name),
    ]);
  } catch (error) {
    if (!(error instanceof ConditionFailed)) throw error;
    // Our own first try may have been applied although its answer was lost.
    if (error.of(0)?.item?.last_commit !== commit) {
      throw new AppError('secret_name_taken', {
        detail: `A secret named "${name}" exists already. Give it a new value by PUT .../secrets/${name}.`,
      });
    }
  }
  return secret;
}

function changedMeanwhile(name: string): AppError {
  return new AppError('secret_changed', {
    detail: `The secret ${name} changed while this request ran. Send it again.`,
  });
}

/** @throws AppError secret_changed */
export async function updateSecretRow(
  ctx: NsCtx,
  before: StoredSecret,
  sealed: string,
): Promise<StoredSecret> {
  const after: StoredSecret = {
    ...before,
    sealed,
    revision: before.revision + 1,
    updated_at: isoTime(ctx.ports.clock.now()),
  };
  const commit = randomCharacters(16, ctx.ports.random);
  try {
    await ctx.ports.table.write([
      {
        put: { ...ctx.ns.secret(before.name), ...after, last_commit: commit },
        if: [{ attribute: 'revision', eq: before.revision }],
      },
      audit(ctx, 'secret.update', before.name),
    ]);
  } catch (error) {
    if (!(error instanceof ConditionFailed)) throw error;
    if (error.of(0)?.item?.last_commit !== commit) throw changedMeanwhile(before.name);
  }
  return after;
}

/** @throws AppError secret_changed */
export async function removeSecretRow(ctx: NsCtx, before: StoredSecret): Promise<void> {
  try {
    await ctx.ports.table.write([
      { delete: ctx.ns.secret(before.name), if: [{ attribute: 'revision', eq: before.revision }] },
      audit(ctx, 'secret.delete', before.name),
    ]);
  } catch (error) {
    if (!(error instanceof ConditionFailed)) throw error;
    // Gone already, by a first try of ours or by somebody else.
    if (error.of(0)?.item) throw changedMeanwhile(before.name);
  }
}
