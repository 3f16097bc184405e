// The vectors of some documents, by their ids: neighbours in a segment are read together.
import type { Snapshot } from './snapshot.ts';
import { type VectorMemory, vectorMemory } from './vector-memory.ts';

/**
 * Copies of the vectors, as they were given, in the order of the ids; undefined where no row of that id lives or the
 * feature has no vectors. Cheapest for ids whose rows lie side by side (`snapshot.rowOf`).
 */
export async function vectorsAt(
  snapshot: Snapshot,
  ids: readonly string[],
  memory: VectorMemory = vectorMemory(),
): Promise<(Float32Array | undefined)[]> {
  const { dims, parts } = snapshot;
  const found: (Float32Array | undefined)[] = ids.map(() => undefined);
  if (dims === 0) return found;
  const wanted = new Map<(typeof parts)[number], { readonly local: number; readonly i: number }[]>();
  for (const [i, id] of ids.entries()) {
    const row = snapshot.rowOf(id);
    if (row === undefined) continue;
    const part = snapshot.partOf(row);
    const place = { local: row - part.firstRow, i };
    const list = wanted.get(part);
    if (list) list.push(place);
    else wanted.set(part, [place]);
  }
  for (const [{ segment }, places] of wanted) {
    places.sort((a, b) => a.local - b.local);
    const rows = places.map(({ local }) => local);
    await segment.vectors!.visit(memory, rows, (values, at, n) => {
      found[places[n]!.i] = values.slice(at, at + dims);
    });
  }
  return found;
}
