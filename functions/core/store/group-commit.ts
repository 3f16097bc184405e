// Small writes that meet each other become one commit. A write that loses the race for the head leaves its change in a
// row; whoever commits next takes all changes that wait, in the order of their arrival: one segment, one manifest, one
// transaction that also holds every change's own writes and token. (Vector store design, section 8, item 6.)
import { setTimeout as pause } from 'node:timers/promises';
import type { NsCtx } from '../context.ts';
import { crash } from '../crash.ts';
import { AppError, isAppError } from '../errors.ts';
import { newId, randomCharacters } from '../ids.ts';
import { type EncodedSegment, encodeSegment } from '../vectors/encode-segment.ts';
import { commitIndex, type IndexChange, isApplied, tokenWrite, writesPerCollection } from './commit-index.ts';
import { toHead } from './index-head.ts';
import { segmentKey } from './index-keys.ts';
import {
  decodeChange,
  encodeChange,
  isExpired,
  type PendingChange,
  pendingRow,
  rowName,
  type SmallChange,
  writesMax,
  writesPerChange,
} from './pending-change.ts';
import { ConditionFailed, type FailedWrite, type Item, type Key, type Write } from './table.ts';
import { holds, keyOf } from './write-rules.ts';

/** Races that a write runs by itself before it lets others commit it. */
const directTries = 1;
/** For so long after writes were in each other's way, none tries by itself first. */
const contendedMs = 1000;
/** How often a waiting write looks. */
const lookMinMs = 8;
const lookMaxMs = 60;
/** The first that waits commits for all. If that takes longer than this, it has died, and the second does. */
const stalledMs = 400;
/** How long a write waits before it gives up; less than its row is kept. */
const patienceMs = 6000;
/** What a leader takes into one transaction: the service allows 4 MB, with the rows as they were before. */
const groupBytesMax = 1_000_000;
/** Rows that a leader looks at. */
const rowsPerLook = 60;
/** Races that a leader loses before it looks again who is first; one that was faster is seldom faster twice. */
const lossesMax = 3;
/** How often a writer leads in vain before it gives up. */
const leadsMax = 20;
/** Rounds of a leader: each ends with a commit, a lost race, or changes that fail and are taken out. */
const leaderRounds = 8;
/** How long the reason of a refusal is kept for who sent the change. */
const refusalKeepMs = 60_000;

/** How a change ended. */
type Outcome =
  | { readonly kind: 'applied' }
  | { readonly kind: 'refused'; readonly failures: readonly FailedWrite[] }
  | { readonly kind: 'collection_gone' }
  /** Nobody applied it, and nobody will. */
  | { readonly kind: 'dropped' };

/**
 * Commits a small change: by itself when nobody is in the way, else together with those that are. When this has
 * answered, the change can be seen.
 *
 * Alone it costs what `commitIndex` costs. It dies or fails as a commit does: the change is applied once or not at all,
 * and a repetition with the same token does no harm.
 *
 * @param crashPoint prefix of the crash points of a commit by itself; those in a group begin with `index.group`
 * @throws ConditionFailed as `commitIndex`; in a group the items are those found just after
 * @throws AppError collection_not_found, index_contended (not applied), index_unavailable, index_corrupt
 * @throws VectorError row_invalid, commit_too_large
 */
export async function commitSmall(
  ctx: NsCtx,
  collectionId: string,
  change: SmallChange,
  crashPoint?: string,
): Promise<void> {
  const { table, clock } = ctx.ports;
  const { token, writes, committed_seq } = change;
  const indexChange = toIndexChange(ctx, collectionId, [change]);
  const text = encodeChange(ctx, collectionId, change);
  const commit = (options: { readonly tries?: number; readonly read?: readonly (Item | undefined)[] }) =>
    commitIndex(ctx, [indexChange], {
      token,
      writes,
      ...(committed_seq === undefined ? {} : { committedSeq: committed_seq }),
      ...(crashPoint === undefined ? {} : { crashPoint }),
      ...options,
    });
  if (text === undefined) {
    await commit({});
    return;
  }
  const read = await table.getMany([ctx.ns.commitToken(collectionId, token), ctx.ns.head(collectionId)]);
  const { grouped_at_ms = Number.NEGATIVE_INFINITY } = toHead(collectionId, read[1]);
  const isAlone = clock.now() - grouped_at_ms > contendedMs;
  if (isAlone) {
    try {
      await commit({ tries: directTries, read });
      return;
    } catch (error) {
      if (!isAppError(error, 'index_contended')) throw error;
    }
  } else if (isApplied(read[0], clock.now())) return;
  await commitTogether(ctx, collectionId, change, text, isAlone);
}

/** The index's part of some changes, in their order. */
function toIndexChange(ctx: NsCtx, collectionId: string, changes: readonly SmallChange[]): IndexChange {
  const rows = changes.flatMap(({ patches }) => patches.filter(({ columns }) => columns.size > 0));
  const tombs = changes.flatMap(({ deleted }) => deleted.map((id) => ({ id })));
  const document_delta = changes.reduce((sum, change) => sum + change.document_delta, 0);
  if (rows.length === 0 && tombs.length === 0) {
    return { collection_id: collectionId, additions: [], document_delta };
  }
  // A patch does not bring a deleted row back, so deletions may stand before all patches.
  const kind = rows.length > 0 ? ('columns' as const) : ('delta' as const);
  const { bytes, description }: EncodedSegment = encodeSegment({ kind, dims: 0, metric: null, rows, tombs });
  const key = segmentKey(ctx, collectionId);
  return {
    collection_id: collectionId,
    additions: [{ every: true, segment: { ...description, key } }],
    document_delta,
    unstored: new Map([[key, bytes]]),
  };
}

/** Leaves the change where others find it, and waits until one of them, or this one as leader, has settled it. */
async function commitTogether(
  ctx: NsCtx,
  collectionId: string,
  change: SmallChange,
  text: string,
  raced: boolean,
): Promise<void> {
  const { table, clock, random } = ctx.ports;
  const id = clock.now().toString(36).padStart(9, '0') + randomCharacters(15, random);
  const row = pendingRow(ctx, collectionId, id, text);
  let outcome: Outcome | undefined;
  try {
    await table.write([{ put: row }]);
    crash('index.group.after_pending');
    outcome = await waitForOutcome(ctx, collectionId, row, change, raced);
  } catch (error) {
    // What made this fail may have failed only us: take the change back, so that the caller's error is true.
    const last = await withdraw(ctx, collectionId, row, change).catch(() => undefined);
    if (last?.kind !== 'applied') throw error;
    return;
  }
  outcome ??= await withdraw(ctx, collectionId, row, change);
  if (outcome.kind === 'applied') return;
  if (outcome.kind === 'refused') throw new ConditionFailed(outcome.failures);
  if (outcome.kind === 'collection_gone') {
    throw new AppError('collection_not_found', {
      detail: `The collection ${collectionId} was deleted meanwhile.`,
    });
  }
  throw new AppError('index_contended', {
    detail: `The index of ${collectionId} is being written by too many at once; this change waited in vain.`,
    retryAfterSeconds: 2,
  });
}

/** @returns undefined when patience has ended and the change still waits */
async function waitForOutcome(
  ctx: NsCtx,
  collectionId: string,
  row: Item,
  change: SmallChange,
  raced: boolean,
): Promise<Outcome | undefined> {
  const { table, clock } = ctx.ports;
  const { pk, prefix } = ctx.ns.pendingChanges(collectionId);
  let front = '';
  let frontMs = 0;
  let lookMs = lookMinMs;
  // When the second has died too, one of the others after a while, and not all of them at once.
  const abandonedMs = stalledMs * (2 + 4 * share(ctx));
  let leads = 0;
  for (let waitedMs = 0; waitedMs < patienceMs && leads < leadsMax; ) {
    const isLive = (item: Item) => item.sk === row.sk || !isExpired(item, clock.now());
    let { items } = await table.query(pk, { prefix, limit: 2 });
    if (!items.every(isLive)) ({ items } = await table.query(pk, { prefix, limit: rowsPerLook }));
    // None of many: whoever sees that clears them away.
    const [first = row, second] = items.filter(isLive);
    if (items.length === 0 || first.sk > row.sk) return readOutcome(ctx, collectionId, row, change);
    if (first.sk !== front) {
      front = first.sk;
      frontMs = waitedMs;
    }
    const isFirst = first.sk === row.sk;
    const isStalled = waitedMs - frontMs > (second?.sk === row.sk ? stalledMs : abandonedMs);
    if (isFirst || isStalled) {
      if (await lead(ctx, collectionId, row, raced)) return { kind: 'applied' };
      raced = true;
      leads += 1;
    }
    const ms = lookMs * (0.5 + share(ctx));
    lookMs = Math.min(lookMaxMs, lookMs * 1.5);
    waitedMs += ms;
    await pause(ms);
  }
  return undefined;
}

/** From 0 to 1. */
const share = (ctx: NsCtx): number => ctx.ports.random.bytes(1)[0]! / 255;

/** What became of a change whose row is gone. */
async function readOutcome(
  ctx: NsCtx,
  collectionId: string,
  row: Item,
  change: SmallChange,
): Promise<Outcome> {
  const { table, clock } = ctx.ports;
  const [token, refusal] = await table.getMany([
    ctx.ns.commitToken(collectionId, change.token),
    refusalKey(ctx, collectionId, row),
  ]);
  if (isApplied(token, clock.now())) return { kind: 'applied' };
  if (!refusal) return { kind: 'dropped' };
  if (refusal.collection_gone === true) return { kind: 'collection_gone' };
  const indices = refusal.failed as readonly number[];
  const items = await table.getMany(indices.map((index) => keyOf(change.writes[index]!)));
  return { kind: 'refused', failures: indices.map((index, i) => ({ index, item: items[i] })) };
}

/** Takes a waiting change back, unless it was settled before. */
async function withdraw(ctx: NsCtx, collectionId: string, row: Item, change: SmallChange): Promise<Outcome> {
  const key = { pk: row.pk, sk: row.sk };
  try {
    // With a token, as a transaction: a single delete would be refused while a leader's transaction names the row.
    await ctx.ports.table.write(
      [{ delete: key, if: [{ present: true }] }],
      newId('event', ctx.ports.clock, ctx.ports.random),
    );
    return { kind: 'dropped' };
  } catch (error) {
    if (!(error instanceof ConditionFailed)) throw error;
    return readOutcome(ctx, collectionId, row, change);
  }
}

function refusalKey(ctx: NsCtx, collectionId: string, { sk }: Key): Key {
  const { prefix } = ctx.ns.pendingChanges(collectionId);
  return ctx.ns.refusedChange(collectionId, sk.slice(prefix.length));
}

/** Why changes are taken out without being applied, by change. */
type Refusals = Map<
  PendingChange,
  /** Which of the change's own writes failed; none: the watermark has moved. */
  { readonly failed: readonly number[] } | { readonly collection_gone: true }
>;

/**
 * Commits what waits, as much as fits, and takes out what fails.
 *
 * @param own the leader's own row: when a group cannot be written at all, the leader writes its own change alone, so
 *   that nobody fails by what somebody else sent
 * @param raced whether the leader has lost a race before
 * @returns whether its own change was among those committed
 */
async function lead(ctx: NsCtx, collectionId: string, own: Key, raced: boolean): Promise<boolean> {
  const { table, clock, random } = ctx.ports;
  const { pk, prefix } = ctx.ns.pendingChanges(collectionId);
  const isOwn = ({ key }: PendingChange) => key.sk === own.sk;
  let alone = false;
  let losses = 0;
  for (let round = 0; round < leaderRounds; round++) {
    let [page, headRow] = await Promise.all([
      table.query(pk, { prefix, limit: rowsPerLook }),
      table.get(ctx.ns.head(collectionId)),
    ]);
    // Who was faster may have been another leader, with our change in its group.
    if (losses > 0 && !page.items.some(({ sk }) => sk === own.sk)) return false;
    const expired = page.items.filter((item) => isExpired(item, clock.now()));
    const waiting = page.items.filter((item) => !expired.includes(item)).map(decodeChange);
    const isAhead = ({ committed_seq = 0 }: SmallChange) =>
      committed_seq > toHead(collectionId, headRow).committed_seq;
    // Who sent it had read a newer head than ours: two reads side by side may end in any order.
    if (waiting.some(isAhead)) headRow = await table.get(ctx.ns.head(collectionId));
    const head = toHead(collectionId, headRow);
    const isStale = ({ committed_seq = head.committed_seq }: SmallChange) =>
      committed_seq !== head.committed_seq;
    const stale: Refusals = new Map(waiting.filter(isStale).map((change) => [change, { failed: [] }]));
    await takeOut(ctx, collectionId, stale, expired);
    const ready = waiting.filter((change) => !isStale(change));
    const group = alone ? ready.filter(isOwn) : pickGroup(ctx, collectionId, ready);
    if (group.length === 0) return false;
    const versions = { [collectionId]: head.version + 1 };
    const writes = group.flatMap((change) => change.writes);
    const tokensAt = writes.length;
    const rowsAt = tokensAt + group.length;
    writes.push(...group.map(({ token }) => tokenWrite(ctx, collectionId, token, versions)));
    writes.push(...group.map(({ key }): Write => ({ delete: key, if: [{ present: true }] })));
    const isCrowded = raced || losses > 0 || group.length > 1;
    try {
      const change = {
        ...toIndexChange(ctx, collectionId, group),
        ...(isCrowded ? { grouped_at_ms: clock.now() } : {}),
      };
      await commitIndex(ctx, [change], {
        token: newId('event', clock, random),
        writes,
        tries: 1,
        read: [undefined, headRow],
        crashPoint: 'index.group',
      });
      return group.some(isOwn);
    } catch (error) {
      if (isAppError(error, 'index_contended')) {
        losses += 1;
        if (losses === lossesMax) return false;
      } else if (isAppError(error, 'collection_not_found')) {
        await takeOut(ctx, collectionId, new Map(waiting.map((one) => [one, { collection_gone: true }])), []);
        return false;
      } else if (error instanceof ConditionFailed) {
        const failed: Refusals = new Map();
        const done: Key[] = [];
        let end = 0;
        for (const [i, change] of group.entries()) {
          const from = end;
          end += change.writes.length;
          // Committed by somebody else, or taken back: what its own writes met says nothing then.
          if (error.of(rowsAt + i)) continue;
          const places = error.failures
            .map(({ index }) => index - from)
            .filter((place) => place >= 0 && place < change.writes.length);
          if (error.of(tokensAt + i)) done.push(change.key);
          else if (places.length > 0) failed.set(change, { failed: places });
        }
        // What these rows hold fails others that wait too: one round for all of them instead of one for each.
        const found = new Map(
          error.failures.flatMap(({ item }) => (item ? [[rowName(item), item] as const] : [])),
        );
        for (const change of ready) {
          if (group.includes(change)) continue;
          const places = failingWrites(change, found);
          if (places.length > 0) failed.set(change, { failed: places });
        }
        await takeOut(ctx, collectionId, failed, done);
      } else if (alone || group.every(isOwn)) throw error;
      else alone = true;
    }
  }
  return false;
}

/** Changes that fit into one transaction, in the order of their arrival; of those that write one row only the first. */
function pickGroup(
  ctx: NsCtx,
  collectionId: string,
  ready: readonly PendingChange[],
): readonly PendingChange[] {
  const group: PendingChange[] = [];
  const written = new Set<string>();
  /** Documents of changes that were left: what comes later about them must not overtake. */
  const left = new Set<string>();
  let writes = writesPerCollection;
  let bytes = 0;
  for (const change of ready) {
    writes += change.writes.length + writesPerChange;
    bytes += change.bytes;
    if (group.length > 0 && (writes > writesMax || bytes > groupBytesMax)) break;
    const token = ctx.ns.commitToken(collectionId, change.token);
    const rows = [token, ...change.writes.map(keyOf)].map(rowName);
    const documents = [...change.deleted, ...change.patches.map(({ id }) => id)];
    if (rows.some((row) => written.has(row)) || documents.some((id) => left.has(id))) {
      for (const id of documents) left.add(id);
      writes -= change.writes.length + writesPerChange;
      bytes -= change.bytes;
    } else group.push(change);
    for (const row of rows) written.add(row);
  }
  return group;
}

/** Which writes of a change do not hold on rows as they were found, by `rowName`. */
function failingWrites({ writes }: SmallChange, found: ReadonlyMap<string, Item>): number[] {
  return writes.flatMap((write, index) => {
    const item = found.get(rowName(keyOf(write)));
    return item && !(write.if ?? []).every((condition) => holds(condition, item)) ? [index] : [];
  });
}

/**
 * Ends changes without applying them: says why, and removes their rows together with those of `over`.
 *
 * Without conditions: of a change that somebody else applied meanwhile the token is there, and counts for more.
 */
async function takeOut(
  ctx: NsCtx,
  collectionId: string,
  refusals: Refusals,
  over: readonly Key[],
): Promise<void> {
  const { table, clock, random } = ctx.ports;
  const expires_at = Math.floor((clock.now() + refusalKeepMs) / 1000);
  const writes: Write[] = [...refusals].flatMap(([{ key }, reason]) => [
    { put: { ...refusalKey(ctx, collectionId, key), ...reason, expires_at } },
    { delete: key },
  ]);
  for (const { pk, sk } of over) writes.push({ delete: { pk, sk } });
  // Pages hold whole pairs. With tokens, as transactions: see `withdraw`.
  for (let i = 0; i < writes.length; i += writesMax)
    await table.write(writes.slice(i, i + writesMax), newId('event', clock, random));
}
