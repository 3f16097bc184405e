// Nodes that were copied out of cluster runs: their file, and the nearest of them to a vector, level by level.
import { createHash } from 'node:crypto';
import type { NsCtx } from '../../context.ts';
import { getJson } from '../../store/blobs.ts';
import { scorerOf } from '../../vectors/score.ts';
import type { Metric } from '../../vectors/vector.ts';
import { paddedDims } from '../../vectors/vector.ts';
import type { Json } from '../documents/service.ts';
import { toRows } from './reviewed-port.ts';
import type { CentroidSource } from './store.ts';
import { round } from './vote.ts';

/** Nodes that a taxonomy can have. */
export const centroidsMax = 5_000;

/** A cluster as a node. */
export interface CentroidNode {
  readonly node_id: string;
  readonly parent_node_id: string | null;
  /** From 1, the coarsest. */
  readonly level: number;
  readonly label: string;
  readonly summary: string | null;
  readonly keywords: readonly string[];
  readonly num_members: number;
  readonly cluster_id: string;
  readonly centroid: readonly number[];
}

/** Fields of a node that documents can take over. */
export function nodeFields(node: CentroidNode): { readonly [name: string]: Json } {
  const { centroid: _, level, node_id, num_members, cluster_id, label, summary, keywords } = node;
  return { node_id, level, num_members, cluster_id, label, summary, keywords };
}

/** Stores a list of nodes under a name that follows from its content; storing it again does no harm. @returns the key */
export async function writeNodes(ctx: NsCtx, nodes: readonly CentroidNode[]): Promise<string> {
  const text = JSON.stringify(nodes);
  const digest = createHash('sha256').update(text).digest('hex').slice(0, 40);
  const key = `taxonomies/${ctx.ns.namespaceId}/${digest}.json`;
  await ctx.ports.blobs.put(key, text, { contentType: 'application/json' });
  return key;
}

/** @throws BlobMissing */
export function readNodes(ctx: NsCtx, source: Pick<CentroidSource, 'key'>): Promise<CentroidNode[]> {
  return getJson(ctx.ports.blobs, source.key);
}

/** The nearest node of one level. */
export interface CentroidStep {
  readonly node: CentroidNode;
  /** Six decimals. */
  readonly score: number;
  readonly second: { readonly node: CentroidNode; readonly score: number } | undefined;
  readonly accepted: boolean;
}

/** Finds nearest nodes. */
export class CentroidMatcher {
  readonly #metric: Metric;
  readonly #width: number;
  readonly #byParent: ReadonlyMap<
    string | null,
    { readonly nodes: readonly CentroidNode[]; readonly rows: Float32Array }
  >;

  constructor(nodes: readonly CentroidNode[], metric: Metric, dims: number) {
    this.#metric = metric;
    this.#width = paddedDims(dims);
    const groups = Map.groupBy(nodes, (node) => node.parent_node_id);
    this.#byParent = new Map(
      [...groups].map(([parent, children]) => [
        parent,
        {
          nodes: children,
          rows: toRows(
            children.map(({ centroid }) => Float32Array.from(centroid)),
            dims,
          ),
        },
      ]),
    );
  }

  /**
   * The nearest node at the top, the nearest among its children, and so on; exact, in double precision, and of equal
   * scores the node that stands first. Ends behind a level whose score is below the threshold.
   */
  match(vector: Float32Array, threshold: number | null): CentroidStep[] {
    const steps: CentroidStep[] = [];
    const score = scorerOf(this.#metric, vector);
    let parent: string | null = null;
    for (;;) {
      const level = this.#byParent.get(parent);
      if (!level) return steps;
      let best = -1;
      let second = -1;
      const scores = level.nodes.map((_, i) => round(score(level.rows, i * this.#width)));
      for (const [i, value] of scores.entries()) {
        if (best < 0 || value > scores[best]!) {
          second = best;
          best = i;
        } else if (second < 0 || value > scores[second]!) second = i;
      }
      const accepted = threshold === null || scores[best]! >= threshold;
      steps.push({
        node: level.nodes[best]!,
        score: scores[best]!,
        second: second < 0 ? undefined : { node: level.nodes[second]!, score: scores[second]! },
        accepted,
      });
      if (!accepted) return steps;
      parent = level.nodes[best]!.node_id;
    }
  }
}
