// A search port that also finds what people have decided: documents of any collection, compared as exactly as rows of
// the index, under the same order of scores and ids.

import { byScore, keyOf } from '../../retrieval/fusion.ts';
import type { ScoredId, SearchPort, SearchReply, SearchRequest } from '../../retrieval/index.ts';
import { scorerOf } from '../../vectors/score.ts';
import type { Metric } from '../../vectors/vector.ts';
import { paddedDims } from '../../vectors/vector.ts';

/** Documents that count as references beside those of the index. */
export interface ExtraReferences {
  readonly metric: Metric;
  readonly ids: readonly { readonly document_id: string; readonly collection_id: string }[];
  /** One row each, padded as rows of segments are. */
  readonly rows: Float32Array;
  readonly dims: number;
}

/** Pads vectors to rows. */
export function toRows(vectors: readonly Float32Array[], dims: number): Float32Array {
  const width = paddedDims(dims);
  const rows = new Float32Array(vectors.length * width);
  for (const [i, vector] of vectors.entries()) rows.set(vector, i * width);
  return rows;
}

/**
 * Wraps a port. The hits of each search are those of the index and of the extra references together, cut to k; a
 * document that is both is there once, with the score of the extra reference.
 *
 * @param extras by feature URI, as searches name it
 */
export function reviewedPort(
  port: SearchPort,
  extras: (featureUri: string) => ExtraReferences | undefined,
): SearchPort {
  const search = async (request: SearchRequest): Promise<SearchReply> => {
    const extra = extras(request.feature_uri);
    if (!extra || extra.ids.length === 0) return port.search(request);
    const twice = extra.ids.filter(({ collection_id }) => request.collection_ids.includes(collection_id));
    const reply = await port.search({ ...request, k: request.k + twice.length });
    const known = new Set(extra.ids.map(keyOf));
    const width = paddedDims(extra.dims);
    const hits = request.vectors.map((vector, i): ScoredId[] => {
      const excluded = new Set(request.exclude?.[i]);
      const score = scorerOf(extra.metric, vector);
      const own = extra.ids.flatMap((id, row) =>
        excluded.has(id.document_id) ? [] : [{ ...id, score: score(extra.rows, row * width) }],
      );
      const passing =
        request.min_score === undefined ? own : own.filter((hit) => hit.score >= request.min_score!);
      const rest = reply.hits[i]!.filter((hit) => !known.has(keyOf(hit)));
      return [...rest, ...passing].sort(byScore).slice(0, request.k);
    });
    return { ...reply, hits };
  };
  return withSearch(port, search);
}

/** A port with another search; everything else is its own, whatever else ports come to have. */
export function withSearch(port: SearchPort, search: SearchPort['search']): SearchPort {
  return new Proxy(port, {
    get: (target, name) => {
      if (name === 'search') return search;
      const member: unknown = Reflect.get(target, name, target);
      return typeof member === 'function' ? member.bind(target) : member;
    },
  });
}
