// Which coarse group each fine group stands below: the one that holds most of its members.

/** A group and its members, by any names that both levels share. */
export interface Group {
  readonly id: string;
  readonly members: readonly string[];
}

/**
 * The parent of each fine group: the coarse group with the largest share of its members, if that is at least
 * `share`; of equal ones the first. A group without members has none.
 *
 * @param share 0 to 1
 * @returns ids of coarse groups in the order of the fine ones; null: no coarse group holds enough
 */
export function parentsByOverlap(
  coarse: readonly Group[],
  fine: readonly Group[],
  share: number,
): (string | null)[] {
  const homes = new Map<string, number[]>();
  for (const [i, { members }] of coarse.entries()) {
    for (const member of new Set(members)) {
      const list = homes.get(member);
      if (list) list.push(i);
      else homes.set(member, [i]);
    }
  }
  return fine.map(({ members }) => {
    const distinct = new Set(members);
    const counts = new Map<number, number>();
    for (const member of distinct)
      for (const home of homes.get(member) ?? []) counts.set(home, (counts.get(home) ?? 0) + 1);
    const [best] = [...counts].sort((a, b) => b[1] - a[1] || a[0] - b[0]);
    return best && best[1] / distinct.size >= share ? coarse[best[0]]!.id : null;
  });
}
