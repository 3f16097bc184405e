// What a scan function does: the k best of its segments, in the version that it is told.
import { parse } from '../conditions/index.ts';
import type { NsCtx } from '../context.ts';
import { openShard } from '../store/open-shard.ts';
import { reading } from '../store/vector-index.ts';
import { search } from '../vectors/search.ts';
import { unknownFields } from '../vectors/select-rows.ts';
import { decodeVector, type ScanReply, type ScanRequest } from './messages.ts';

/** @throws AppError index_unavailable, index_corrupt */
export async function answerScan(ctx: NsCtx, request: ScanRequest): Promise<ScanReply> {
  const { collection_id, manifest_key, feature_uri, segments, k, include, exclude, min_score } = request;
  const filter = request.filter === undefined ? undefined : parse(request.filter, { unlimited: true });
  const shard = await openShard(ctx, collection_id, manifest_key, feature_uri, segments);
  const found = await reading(() =>
    search(shard, {
      queries: request.queries.map(decodeVector),
      k,
      filter,
      include,
      exclude,
      ...(min_score === undefined ? {} : { minScore: min_score }),
    }),
  );
  return {
    matches: found.matches.map((list) => list.map(({ id, score }) => [id, score] as const)),
    rows_selected: found.rowsSelected,
    bytes_scanned: found.bytesScanned,
    reranked: found.reranked,
    cold: found.cold,
    unknown_fields: filter ? unknownFields(shard, filter) : [],
  };
}
