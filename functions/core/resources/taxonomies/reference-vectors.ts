// The vectors by which decided documents are found as references: made when the decision is, and made anew when the
// collection's plugin was upgraded since.
import type { NsCtx } from '../../context.ts';
import { invalid } from '../../errors.ts';
import { ConditionFailed } from '../../store/table.ts';
import { featureOf } from '../collections/service.ts';
import { getDocuments } from '../documents/service.ts';
import { RunReads } from '../retrievers/service.ts';
import type { ResolvedNode } from './check.ts';
import { resolveStored } from './check.ts';
import { openNode } from './classify-node.ts';
import type { StoredReview } from './reviews.ts';
import { encodeVector, vectorPlace, vectorsWrite } from './reviews.ts';
import type { TaxonomyConfig } from './store.ts';
import type { Subject } from './subjects.ts';

/** Time to embed what lacks vectors. */
const embedMsMax = 60_000;
const documentsAtOnce = 500;

/** @throws AppError taxonomy_invalid, and what embedding throws */
export async function referenceVectors(
  ctx: NsCtx,
  config: TaxonomyConfig,
  subjects: readonly Subject[],
  deadlineMs: number,
): Promise<Record<string, string>[]> {
  const { nodes, faults } = await resolveStored(ctx, config);
  if (faults.length > 0) throw invalid('taxonomy_invalid', faults);
  const reads = new RunReads(ctx);
  const found: Record<string, string>[] = subjects.map(() => ({}));
  for (const node of nodes) {
    // Linked nodes have no such references.
    if (node.node.link) continue;
    const vectors = await openNode(ctx, config, node, [], [], reads).vectorsOf(subjects, deadlineMs);
    for (const [i, own] of vectors.entries())
      for (const [place, vector] of own) found[i]![place] = encodeVector(vector);
  }
  return found;
}

/** Where vectors of this definition are kept. */
function placesOf(nodes: readonly ResolvedNode[]): string[] {
  return nodes
    .filter(({ node }) => !node.link)
    .flatMap(({ node, source, parameters }) =>
      parameters.searches.map(({ feature_uri }) =>
        vectorPlace(node.node_id, featureOf(source, feature_uri)?.feature_uri ?? feature_uri),
      ),
    );
}

/**
 * The decisions with the vectors that the definition needs now. Those of documents that are gone stay without.
 *
 * @param keeps store new vectors with their decisions, where the caller may write
 */
export async function withVectors(
  ctx: NsCtx,
  taxonomyId: string,
  config: TaxonomyConfig,
  nodes: readonly ResolvedNode[],
  reviews: readonly StoredReview[],
  keeps: boolean,
): Promise<readonly StoredReview[]> {
  const places = placesOf(nodes);
  const lacks = ({ action, vectors }: StoredReview) =>
    action !== 'reject' && places.every((place) => vectors[place] === undefined);
  const lacking = reviews.filter(lacks);
  if (lacking.length === 0 || places.length === 0) return reviews;
  const made = new Map<StoredReview, StoredReview>();
  for (let i = 0; i < lacking.length; i += documentsAtOnce) {
    const block = lacking.slice(i, i + documentsAtOnce);
    const documents = await getDocuments(ctx, block);
    const there = block.flatMap((review, n) => (documents[n] ? [{ review, document: documents[n] }] : []));
    const vectors = await referenceVectors(
      ctx,
      config,
      there.map(({ document }) => document),
      ctx.ports.clock.now() + embedMsMax,
    );
    for (const [n, { review }] of there.entries()) {
      const complete = { ...review, vectors: vectors[n]! };
      made.set(review, complete);
      if (!keeps || Object.keys(vectors[n]!).length === 0) continue;
      try {
        await ctx.ports.table.write([vectorsWrite(ctx, taxonomyId, complete)]);
      } catch (error) {
        // Somebody decided anew meanwhile, with vectors of its own.
        if (!(error instanceof ConditionFailed)) throw error;
      }
    }
  }
  return reviews.map((review) => made.get(review) ?? review);
}
