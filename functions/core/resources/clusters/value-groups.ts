// Groups of documents that have the same values in some fields; pure.
import { AppError } from '../../errors.ts';
import type { Json } from '../documents/service.ts';

/** More groups than this are no overview. */
export const groupsMax = 10_000;

const textLengthMax = 80;
const labelLengthMax = 200;

/** What a field of a document holds, as columns keep it. */
type Held = string | number | boolean | null | undefined | readonly (string | number | boolean | null)[];

/** One group: documents with the same values, of the first fields where groups have parents. */
export interface ValueGroup {
  /** Equal for equal values. */
  readonly key: string;
  /** One for each field of its level; null: no value. */
  readonly values: readonly Json[];
  /** 0 for the first field. */
  readonly level: number;
  /** Place of the group of one field less; undefined for the first level, and without parents. */
  readonly parent: number | undefined;
  members: number;
}

/** Null for nothing; a list as its distinct members in order, one of them as itself: order and repetition say nothing. */
export function groupingValue(held: Held): Json {
  if (held === undefined || held === null) return null;
  if (typeof held !== 'object') return held;
  const distinct = [...new Map(held.filter((one) => one !== null).map((one) => [JSON.stringify(one), one]))]
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([, one]) => one);
  return distinct.length === 0 ? null : distinct.length === 1 ? distinct[0]! : distinct;
}

export interface ValueGroupOptions {
  readonly attributes: readonly string[];
  /** Whether the groups of the first fields are there too, as parents. */
  readonly hierarchical: boolean;
  readonly missing: 'group' | 'skip';
}

/** Collects documents one by one; holds the groups, not the documents. */
export class ValueGroups {
  readonly groups: ValueGroup[] = [];
  /** Documents that lack a value. */
  missing = 0;
  readonly #options: ValueGroupOptions;
  readonly #byKey = new Map<string, number>();

  constructor(options: ValueGroupOptions) {
    this.#options = options;
  }

  /**
   * Puts a document into its group.
   *
   * @param held what it has in each field
   * @returns place of the group in `groups`; -1: it belongs to none
   * @throws AppError cluster_too_many_groups
   */
  add(held: readonly Held[]): number {
    const values = held.map(groupingValue);
    if (values.includes(null)) {
      this.missing += 1;
      if (this.#options.missing === 'skip') return -1;
    }
    const last = values.length - 1;
    let parent: number | undefined;
    for (let level = this.#options.hierarchical ? 0 : last; level <= last; level++) {
      const place = this.#group(values.slice(0, level + 1), level, parent);
      this.groups[place]!.members += 1;
      parent = place;
    }
    return parent!;
  }

  #group(values: readonly Json[], level: number, parent: number | undefined): number {
    const key = JSON.stringify(values);
    const known = this.#byKey.get(key);
    if (known !== undefined) return known;
    if (this.groups.length >= groupsMax) {
      throw new AppError('cluster_too_many_groups', {
        detail: `The documents have more than ${groupsMax} different values of ${this.#options.attributes.join(', ')}. Group by fields with fewer.`,
      });
    }
    this.groups.push({ key, values, level, parent, members: 0 });
    this.#byKey.set(key, this.groups.length - 1);
    return this.groups.length - 1;
  }
}

/** A value in words. */
function valueText(attribute: string, value: Json): string {
  if (value === null) return `no ${attribute}`;
  if (Array.isArray(value)) return value.map(String).join(', ').slice(0, textLengthMax);
  if (typeof value !== 'string') return `${attribute}: ${String(value)}`;
  return value.trim() === '' ? `empty ${attribute}` : value.trim().slice(0, textLengthMax);
}

/** Names of groups, all different, in their order. */
export function valueLabels(groups: readonly ValueGroup[], attributes: readonly string[]): string[] {
  const used = new Set<string>();
  return groups.map(({ values }) => {
    const plain = values
      .map((value, i) => valueText(attributes[i]!, value))
      .join(' / ')
      .slice(0, labelLengthMax);
    let label = plain;
    for (let n = 2; used.has(label); n++) label = `${plain} (${n})`;
    used.add(label);
    return label;
  });
}

/** What a group has in common, in a sentence. */
export function valueSummary(group: ValueGroup, attributes: readonly string[], documents: number): string {
  const facts = group.values.map((value, i) => {
    const name = attributes[i]!;
    if (value === null) return `no ${name}`;
    return `${name} ${JSON.stringify(value).slice(0, textLengthMax + 2)}`;
  });
  return `${group.members} of ${documents} documents have ${facts.join(' and ')}.`;
}

/** A group of an earlier run. */
export interface OldGroup {
  readonly cluster_id: string;
  readonly key: string;
  readonly parent_id: string | undefined;
}

/** Of the documents of both runs: how many a new group shares with an old one, and how many the old ones have. */
export interface Overlap {
  readonly shared: ReadonlyMap<number, ReadonlyMap<string, number>>;
  readonly oldSizes: ReadonlyMap<string, number>;
}

const sameShareMin = 0.5;

/** The number behind `cl_`. */
export const numberOf = (clusterId: string) => Number(clusterId.slice(3));

/**
 * Ids `cl_<n>` for groups. A group keeps the id of the earlier group with the same values; else that of the one with
 * which it shares most documents, if these are at least half of the smaller of the two; a parent, that of the parent
 * of most of its documents. All others get numbers from `nextNumber` on.
 *
 * @param overlap counts shared documents; only called if there is something to decide by it
 */
export async function keepIds(
  groups: readonly ValueGroup[],
  old: readonly OldGroup[],
  nextNumber: number,
  overlap: (wanted: ReadonlySet<number>, free: ReadonlySet<string>) => Promise<Overlap>,
): Promise<{ readonly ids: string[]; readonly nextNumber: number }> {
  const ids = new Array<string | undefined>(groups.length).fill(undefined);
  const byKey = new Map(old.map((group) => [group.key, group.cluster_id]));
  const free = new Set(old.map((group) => group.cluster_id));
  const take = (place: number, id: string) => {
    ids[place] = id;
    free.delete(id);
  };
  for (const [place, group] of groups.entries()) {
    const same = byKey.get(group.key);
    if (same !== undefined) take(place, same);
  }
  const isParent = new Set(groups.flatMap(({ parent }) => (parent === undefined ? [] : [parent])));
  const wanted = new Set(groups.flatMap((_, i) => (ids[i] === undefined && !isParent.has(i) ? [i] : [])));
  if (wanted.size > 0 && free.size > 0) {
    const { shared, oldSizes } = await overlap(wanted, free);
    const pairs = [...shared].flatMap(([place, counts]) =>
      [...counts].map(([id, count]) => ({ place, id, count })),
    );
    pairs.sort(
      (a, b) => b.count - a.count || numberOf(a.id) - numberOf(b.id) || (a.place < b.place ? -1 : 1),
    );
    for (const { place, id, count } of pairs) {
      const smaller = Math.min(groups[place]!.members, oldSizes.get(id)!);
      if (ids[place] === undefined && free.has(id) && count >= sameShareMin * smaller) take(place, id);
    }
  }
  keepParents(groups, ids, old, free, take);
  let next = nextNumber;
  return { ids: ids.map((id) => id ?? `cl_${next++}`), nextNumber: next };
}

function keepParents(
  groups: readonly ValueGroup[],
  ids: readonly (string | undefined)[],
  old: readonly OldGroup[],
  free: ReadonlySet<string>,
  take: (place: number, id: string) => void,
): void {
  const oldParent = new Map(old.map((group) => [group.cluster_id, group.parent_id]));
  const levels = Math.max(0, ...groups.map((group) => group.level));
  // Deepest first, so that a grandparent can follow its children.
  for (let level = levels; level > 0; level--) {
    const votes = new Map<number, Map<string, number>>();
    for (const [place, group] of groups.entries()) {
      const id = ids[place];
      const before = id === undefined ? undefined : oldParent.get(id);
      if (group.level !== level || group.parent === undefined || before === undefined) continue;
      const counts = votes.get(group.parent) ?? new Map<string, number>();
      votes.set(group.parent, counts.set(before, (counts.get(before) ?? 0) + group.members));
    }
    for (const [place, counts] of votes) {
      if (ids[place] !== undefined) continue;
      const [best] = [...counts].sort((a, b) => b[1] - a[1] || numberOf(a[0]) - numberOf(b[0]));
      if (best && free.has(best[0]) && best[1] >= sameShareMin * groups[place]!.members) take(place, best[0]);
    }
  }
}
