// The shape of a hierarchy: one root, every parent there, no circle.

/** A node and the one above it, as they were named. */
export interface GraphNode {
  readonly id: string;
  readonly parent: string | null;
}

export interface GraphFault {
  /** Place of the node in the list; undefined: the list as a whole. */
  readonly index: number | undefined;
  readonly type: 'node_repeated' | 'parent_unknown' | 'roots_several' | 'root_missing' | 'cycle';
  readonly message: string;
  readonly fix?: string;
}

/**
 * What keeps a list of nodes from being one tree; empty if nothing does. A node that leads into a circle without being
 * part of it is not blamed.
 */
export function graphFaults(nodes: readonly GraphNode[]): GraphFault[] {
  const faults: GraphFault[] = [];
  const byId = new Map<string, GraphNode>();
  for (const [index, node] of nodes.entries()) {
    if (byId.has(node.id)) {
      faults.push({
        index,
        type: 'node_repeated',
        message: `another node is called "${node.id}" already`,
        fix: 'give each node a node_id of its own',
      });
    } else byId.set(node.id, node);
  }
  const roots = nodes.flatMap((node, index) => (node.parent === null ? [index] : []));
  for (const [index, node] of nodes.entries()) {
    // A repetition stands for the first of its name.
    if (byId.get(node.id) !== node) continue;
    if (node.parent !== null && !byId.has(node.parent)) {
      faults.push({
        index,
        type: 'parent_unknown',
        message: `there is no node "${node.parent}" that could be its parent`,
        fix: `nodes: ${[...byId.keys()].slice(0, 10).join(', ')}`,
      });
    } else if (isInCircle(node, byId)) {
      faults.push({
        index,
        type: 'cycle',
        message: `the parents of "${node.id}" lead back to it`,
        fix: 'leave the parent of the topmost node out',
      });
    }
  }
  for (const index of roots.slice(1)) {
    faults.push({
      index,
      type: 'roots_several',
      message: `it has no parent, and "${nodes[roots[0]!]!.id}" is the root already`,
      fix: 'name its parent, or make a taxonomy of its own',
    });
  }
  if (roots.length === 0 && faults.length === 0) {
    faults.push({ index: undefined, type: 'root_missing', message: 'no node is the root' });
  }
  return faults;
}

function isInCircle(start: GraphNode, byId: ReadonlyMap<string, GraphNode>): boolean {
  const seen = new Set<string>([start.id]);
  let node = start.parent === null ? undefined : byId.get(start.parent);
  while (node) {
    if (node.id === start.id) return true;
    if (seen.has(node.id)) return false;
    seen.add(node.id);
    node = node.parent === null ? undefined : byId.get(node.parent);
  }
  return false;
}

/** The places of the nodes by level, the root's first, each level in the order of the list; of a sound tree. */
export function levelsOf(nodes: readonly GraphNode[]): number[][] {
  const levels: number[][] = [];
  let above = new Set<string | null>([null]);
  for (;;) {
    const level = nodes.flatMap((node, index) => (above.has(node.parent) ? [index] : []));
    if (level.length === 0) return levels;
    levels.push(level);
    above = new Set(level.map((index) => nodes[index]!.id));
  }
}
