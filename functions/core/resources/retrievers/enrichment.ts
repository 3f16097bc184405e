// How a run classifies documents: by a function that the taxonomies give, since they need retrievers themselves and
// nothing can import in both directions.
import type { NsCtx } from '../../context.ts';
import type { EnrichedDocument, EnrichRequest } from '../../retrieval/index.ts';

export type Enrich = (ctx: NsCtx, request: EnrichRequest) => Promise<readonly EnrichedDocument[]>;

let provided: Enrich | undefined;

/** Called once, when taxonomies are loaded; a Lambda that runs retrievers imports them. */
export function provideEnrichment(enrich: Enrich): void {
  provided = enrich;
}

/** @throws Error in a function that does not import taxonomies; and as `EnrichRequest` says */
export async function enrich(ctx: NsCtx, request: EnrichRequest): Promise<readonly EnrichedDocument[]> {
  if (!provided) throw new Error('this function runs retrievers and does not import taxonomies/enrich.ts');
  return provided(ctx, request);
}
