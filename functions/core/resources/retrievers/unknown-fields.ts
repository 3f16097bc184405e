// Fields that a request names and no document has, over several collections.

/** Names that are in every list: a field is unknown only if no collection knows it. */
export function unknownToAll(lists: readonly (readonly string[])[]): string[] {
  const [first = [], ...others] = lists;
  return [...new Set(first)].filter((name) => others.every((list) => list.includes(name)));
}
