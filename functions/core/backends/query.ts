// Search with a copy: candidates from the backend, everything that decides from the segments. A hit is always a live
// row that the filter passes, with the score that a scan would give it; only whether all best rows are among the
// candidates is the backend's word, and then the answer says that it is not exact.
import type { NsCtx } from '../context.ts';
import type { IndexHead } from '../store/index-head.ts';
import { countBits, hasBit, noBits, rowsOf, setBit } from '../vectors/bits.ts';
import { type SearchRequest, type SearchResult, search } from '../vectors/search.ts';
import { count, selectRows } from '../vectors/select-rows.ts';
import type { Snapshot } from '../vectors/snapshot.ts';
import { paddedDims, validateVector } from '../vectors/vector.ts';
import type { VectorMemory } from '../vectors/vector-memory.ts';
import { BackendError, type CopyIndex, type VectorBackend } from './backend.ts';
import { vectorIndexOf } from './of-namespace.ts';
import { prepareVector } from './prepare-vector.ts';
import type { CopyBackendName } from './registry.ts';
import { seqAfter } from './sync.ts';

/** What is searched: a feature of one version of a collection. */
export interface SearchPlace {
  readonly collectionId: string;
  readonly featureUri: string;
  readonly head: Pick<IndexHead, 'copies' | 'version'>;
}

export interface CopySearchResult extends SearchResult {
  /** What gave the candidates. */
  readonly backend: CopyBackendName;
  /** Not every row that qualifies was compared. */
  readonly exact: false;
  /** Ids that the backend named, over all queries. */
  readonly candidates: number;
}

/** Candidates asked for per hit wanted: what a backend ranks by is not what we rank by, bit for bit. */
const oversampling = 4;
const candidatesMin = 50;
/** Queries of a backend at the same time. */
const parallelQueries = 8;

/** Whether a search of this feature asks a backend first. */
export async function hasCopy(ctx: NsCtx, place: SearchPlace): Promise<boolean> {
  return (await copyOf(ctx, place)) !== undefined;
}

/**
 * Searches a feature by the backend of the namespace, where that is cheaper than a scan.
 *
 * Rows that the copy cannot know, because they were written after the version up to which it is complete, are scored
 * all of them: an answer holds what was committed before it.
 *
 * @returns undefined where the segments must be scanned: few rows qualify, the backend cannot name enough that do, or
 *   it failed, which is logged
 * @throws as `search`, and AppError storage_* for the setting of the namespace
 */
export async function searchCopy(
  ctx: NsCtx,
  place: SearchPlace,
  snapshot: Snapshot,
  request: SearchRequest,
  memory?: VectorMemory,
): Promise<CopySearchResult | undefined> {
  const copy = await copyOf(ctx, place);
  // A list of ids, and a part of the segments, are smaller than any index.
  if (!copy || request.include !== undefined || request.parts !== undefined) return undefined;
  const selected = count(snapshot, request.filter);
  const rowBytes = paddedDims(snapshot.dims) * 4;
  if (selected * rowBytes <= copy.backend.limits.scanBytesMax) return undefined;
  const question = makeQuestion(snapshot, request, seqAfter(copy.version));
  if (question.covered === 0) return undefined;
  let found: Candidates | undefined;
  try {
    found = await findCandidates(copy, snapshot, request, question);
  } catch (error) {
    if (!(error instanceof BackendError)) throw error;
    ctx.ports.log.warn('a vector backend failed; the segments are scanned', {
      backend: copy.name,
      code: error.code,
      collection_id: place.collectionId,
      error: error.message,
    });
  }
  if (!found) return undefined;
  const include = [...found.ids, ...question.fresh];
  const result = await search(snapshot, { ...request, include }, memory);
  return { ...result, rowsSelected: selected, backend: copy.name, exact: false, candidates: found.asked };
}

interface Copy {
  readonly name: CopyBackendName;
  readonly version: number;
  readonly backend: VectorBackend;
  readonly index: Omit<CopyIndex, 'dims' | 'metric'>;
}

/** The copy to ask; undefined if the namespace has none, or this feature has none yet. */
async function copyOf(
  ctx: NsCtx,
  { collectionId, featureUri, head }: SearchPlace,
): Promise<Copy | undefined> {
  // Most namespaces have no copies, and then the head says so.
  if (Object.keys(head.copies).length === 0) return undefined;
  const { backend: name } = await vectorIndexOf(ctx);
  if (name === 'segments') return undefined;
  const copies = head.copies[name];
  const version = copies && Object.hasOwn(copies, featureUri) ? copies[featureUri] : undefined;
  const backend = ctx.ports.backends?.[name];
  if (version === undefined || backend === undefined) return undefined;
  // The copy has lost what an older version still shows.
  if (version > head.version) return undefined;
  return {
    name,
    version,
    backend,
    index: {
      namespace_id: ctx.ns.namespaceId,
      collection_id: collectionId,
      feature_uri: featureUri,
    },
  };
}

interface Question {
  /** Live rows that pass the filter and that the copy holds. */
  readonly covered: number;
  /** Whether an id is one of them. */
  readonly isCovered: (id: string) => boolean;
  /** Ids of the live rows that pass the filter and that the copy does not know yet. */
  readonly fresh: readonly string[];
}

/**
 * Splits the rows that qualify by the first sequence number that the copy does not know. Row by row only in the few
 * segments that hold both kinds, for this is done for each query.
 */
function makeQuestion(snapshot: Snapshot, request: SearchRequest, firstFresh: number): Question {
  const selected = selectRows(snapshot, request.filter);
  const fresh: string[] = [];
  let covered = 0;
  const coveredBits = snapshot.parts.map(({ segment, baseSeq, firstRow }, i) => {
    const qualifying = selected[i]!;
    if (baseSeq + segment.header.seqMax < firstFresh) {
      covered += countBits(qualifying);
      return { bits: qualifying, firstRow };
    }
    const bits = noBits(segment.rows);
    for (const local of rowsOf(qualifying)) {
      if (baseSeq + segment.seq(local) >= firstFresh) fresh.push(snapshot.idOf(firstRow + local));
      else {
        setBit(bits, local);
        covered += 1;
      }
    }
    return { bits, firstRow };
  });
  const partAt = new Map(snapshot.parts.map((part, i) => [part, coveredBits[i]!]));
  const isCovered = (id: string): boolean => {
    const row = snapshot.rowOf(id);
    if (row === undefined) return false;
    const { bits, firstRow } = partAt.get(snapshot.partOf(row))!;
    return hasBit(bits, row - firstRow);
  };
  return { covered, isCovered, fresh };
}

interface Candidates {
  readonly ids: ReadonlySet<string>;
  readonly asked: number;
}

/**
 * Candidates for every query: as many that qualify as hits are wanted, or all there are.
 *
 * @returns undefined if the backend cannot name so many
 */
async function findCandidates(
  copy: Copy,
  snapshot: Snapshot,
  request: SearchRequest,
  question: Question,
): Promise<Candidates | undefined> {
  const { candidatesMax } = copy.backend.limits;
  const index: CopyIndex = { ...copy.index, dims: snapshot.dims, metric: snapshot.metric! };
  const ids = new Set<string>();
  let asked = 0;
  let canFill = true;
  const ask = async (query: Float32Array, excluded: ReadonlySet<string>): Promise<void> => {
    // Of the rows that the copy holds, this share passes the filter; the copy may hold some that have died since.
    const share = question.covered / Math.max(1, snapshot.liveCount);
    const wanted = Math.min(request.k, question.covered);
    let k = Math.ceil(Math.max(candidatesMin, wanted * oversampling + excluded.size) / share);
    // Where even the most that the backend names would hardly hold enough, it is not asked at all.
    if ((wanted + excluded.size) / share > candidatesMax) {
      canFill = false;
      return;
    }
    const vector = prepareVector(index.metric, query, 'query');
    for (;;) {
      k = Math.min(k, candidatesMax);
      const named = await copy.backend.query(index, vector, k);
      asked += named.length;
      const good = named.filter((id) => question.isCovered(id));
      const hits = good.filter((id) => !excluded.has(id)).length;
      const excludedThere = [...excluded].filter((id) => question.isCovered(id)).length;
      if (hits >= Math.min(wanted, question.covered - excludedThere)) {
        for (const id of good) ids.add(id);
        return;
      }
      if (k === candidatesMax || named.length < k) {
        canFill = false;
        return;
      }
      k *= oversampling;
    }
  };
  const queries = request.queries.map((query) => validateVector(query, snapshot.dims));
  for (let i = 0; i < queries.length && canFill; i += parallelQueries) {
    await Promise.all(
      queries.slice(i, i + parallelQueries).map((query, j) => {
        const excluded = request.exclude?.[i + j];
        return ask(query, new Set(typeof excluded === 'string' ? [excluded] : (excluded ?? [])));
      }),
    );
  }
  return canFill ? { ids, asked } : undefined;
}
