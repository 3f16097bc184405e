// The result files of a cluster run: what the clusterer writes, what commit makes of it, and how both are read.
import type { NsCtx } from '../../context.ts';
import { BlobMissing, getJson } from '../../store/blobs.ts';
import type { Json, JsonObject } from '../documents/service.ts';
import type { LabelSource } from './store.ts';
import { runKeys } from './store.ts';

/** A cluster as the clusterer describes it, largest first. */
export interface RawCluster {
  readonly cluster_id: string;
  readonly num_members: number;
  readonly label: string;
  readonly summary: string;
  readonly keywords: readonly string[];
  readonly centroid_vector: readonly number[];
  readonly representative_ids: readonly string[];
  /** Of members to the centroid; null where vectors have no direction. */
  readonly mean_cosine_similarity?: number | null;
  readonly min_cosine_similarity?: number | null;
  /** Texts near its centre; corpus text, so hostile. */
  readonly samples: readonly string[];
}

/** The result of the clusterer (functions/clusterer/_run.py). Members and points are in the order of the input. */
export interface RawResult {
  readonly num_clusters: number;
  readonly num_points: number;
  readonly metrics: JsonObject;
  readonly clusters: readonly RawCluster[];
  /** `cluster_id` is `cl_<n>` or `noise`. */
  readonly members: readonly {
    readonly document_id: string;
    readonly cluster_id: string;
    readonly probability: number;
  }[];
  readonly points: readonly {
    readonly document_id: string;
    readonly x: number;
    readonly y: number;
    readonly z?: number;
  }[];
  readonly message: string;
  /** How many rows were clustered and how many joined afterwards; older clusterers do not say. */
  readonly sampling?: JsonObject | null;
  readonly degenerate_detail: Json;
  readonly pipeline: JsonObject;
}

export const noise = 'noise';

/** A group as answers show it. */
export interface ResultGroup {
  readonly cluster_id: string;
  readonly num_members: number;
  readonly label: string;
  readonly label_source: LabelSource;
  readonly summary: string | null;
  readonly keywords: readonly string[];
  readonly representative_ids: readonly string[];
  /** Where the group lies among the vectors as they are stored; empty for groups by values. */
  readonly centroid_vector: readonly number[];
  readonly mean_cosine_similarity?: number | null;
  readonly min_cosine_similarity?: number | null;
  /** For the metric euclid: how far the furthest member is from the centroid. */
  readonly reach?: number;
  /** Of the members, those that joined after the full run. */
  readonly num_assigned?: number;
  /** Of groups by values: the group of the first of its values. */
  readonly parent_cluster_id?: string | null;
  readonly level?: number;
  readonly attributes?: Readonly<Record<string, Json>>;
}

export interface ResultGroups {
  readonly groups: readonly ResultGroup[];
  readonly noise_members: number;
  /** Of the map; `none` if there is no map. */
  readonly method: string;
  readonly n_components: number;
  /** Of groups by values: the number of the next new one, so that none is used twice. */
  readonly next_number?: number;
}

/** A line of the documents file. */
export interface ResultDocument {
  readonly document_id: string;
  readonly collection_id: string;
  readonly cluster_id: string;
  readonly probability: number;
  /** Without a place: the run has no map, or the document joined none of its groups after it was drawn. */
  readonly x?: number;
  readonly y?: number;
  readonly z?: number;
  /** It joined after the full run, and stands at the centre of its group. */
  readonly assigned?: true;
}

/** Names that a model gave to the clusters of a run. */
export interface RunNames {
  readonly names: Readonly<
    Record<
      string,
      { readonly label: string; readonly summary?: string; readonly keywords?: readonly string[] }
    >
  >;
  readonly errors: readonly string[];
}

/** @throws BlobMissing */
export function readRaw(ctx: NsCtx, runId: string): Promise<RawResult> {
  return getJson(ctx.ports.blobs, runKeys.raw(ctx, runId));
}

/** @throws BlobMissing */
export function readNames(ctx: NsCtx, runId: string): Promise<RunNames> {
  return getJson(ctx.ports.blobs, runKeys.names(ctx, runId));
}

/** @throws BlobMissing */
export function readGroups(ctx: NsCtx, runId: string): Promise<ResultGroups> {
  return getJson(ctx.ports.blobs, runKeys.groups(ctx, runId));
}

const readBytes = 4 * 2 ** 20;
const writeBytes = 2 ** 20;
const newline = 0x0a;

/** The documents of a result some thousands at a time, in the order of the file. @throws BlobMissing */
export async function* eachDocument(ctx: NsCtx, runId: string): AsyncGenerator<readonly ResultDocument[]> {
  const key = runKeys.documents(ctx, runId);
  const info = await ctx.ports.blobs.head(key);
  if (!info) throw new BlobMissing(key);
  let rest: Uint8Array = new Uint8Array(0);
  for (let offset = 0; offset < info.bytes; offset += readBytes) {
    const length = Math.min(readBytes, info.bytes - offset);
    const read = await ctx.ports.blobs.get(key, { offset, length });
    const end = read.lastIndexOf(newline);
    const whole = Buffer.concat([rest, read.subarray(0, end + 1)]).toString('utf8');
    rest = end < 0 ? Buffer.concat([rest, read]) : read.slice(end + 1);
    if (end < 0) continue;
    yield whole.split('\n').flatMap((line) => (line === '' ? [] : [JSON.parse(line) as ResultDocument]));
  }
}

/** All documents of a result, in the order of the file. @throws BlobMissing */
export async function readDocuments(ctx: NsCtx, runId: string): Promise<ResultDocument[]> {
  const found: ResultDocument[] = [];
  for await (const documents of eachDocument(ctx, runId)) for (const one of documents) found.push(one);
  return found;
}

/** Texts as they come -> bytes in pieces of some size. */
export async function* inPieces(texts: AsyncIterable<string> | Iterable<string>): AsyncGenerator<Uint8Array> {
  let piece: string[] = [];
  let length = 0;
  for await (const text of texts) {
    piece.push(text);
    length += text.length;
    if (length < writeBytes) continue;
    yield Buffer.from(piece.join(''));
    piece = [];
    length = 0;
  }
  if (length > 0) yield Buffer.from(piece.join(''));
}

async function* linesOf(
  documents: AsyncIterable<ResultDocument> | Iterable<ResultDocument>,
): AsyncGenerator<string> {
  for await (const document of documents) yield `${JSON.stringify(document)}\n`;
}

/** Writes the documents of a result as they come; writing them again with the same content does no harm. */
export async function writeDocuments(
  ctx: NsCtx,
  runId: string,
  documents: AsyncIterable<ResultDocument> | Iterable<ResultDocument>,
): Promise<void> {
  await ctx.ports.blobs.putStream(runKeys.documents(ctx, runId), inPieces(linesOf(documents)), {
    contentType: 'application/x-ndjson',
  });
}

/** Writes the groups of a result: what makes it readable, so after its documents. */
export async function writeGroups(ctx: NsCtx, runId: string, groups: ResultGroups): Promise<void> {
  await ctx.ports.blobs.put(runKeys.groups(ctx, runId), JSON.stringify(groups), {
    contentType: 'application/json',
  });
}

/** Groups with the names that users gave them. */
export function withOverrides(
  groups: readonly ResultGroup[],
  overrides: Readonly<Record<string, string>>,
): ResultGroup[] {
  return groups.map((group) =>
    Object.hasOwn(overrides, group.cluster_id)
      ? { ...group, label: overrides[group.cluster_id]!, label_source: 'user' as const }
      : group,
  );
}
