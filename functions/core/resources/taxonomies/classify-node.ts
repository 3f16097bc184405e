// One node of a taxonomy: the nearest references of many documents, found together, and what their votes come to.
import type { Condition } from '../../conditions/index.ts';
import { canonicalField, parse } from '../../conditions/index.ts';
import type { NsCtx } from '../../context.ts';
import { keyOf } from '../../retrieval/fusion.ts';
import type { ScoredId, SearchPort, SearchReply, SearchRequest } from '../../retrieval/index.ts';
import { searchMany } from '../../retrieval/index.ts';
import { documentsUri } from '../../store/vector-index.ts';
import { canonicalJson, featureOf } from '../collections/service.ts';
import type { Json, JsonObject } from '../documents/service.ts';
import { getDocuments } from '../documents/service.ts';
import type { RunReads } from '../retrievers/service.ts';
import { embedFault, IndexSearchPort } from '../retrievers/service.ts';
import type { ResolvedNode } from './check.ts';
import type { PathStep } from './paths.ts';
import { descend, readPath } from './paths.ts';
import type { Assignment, Taken } from './placement.ts';
import type { ExtraReferences } from './reviewed-port.ts';
import { reviewedPort, toRows, withSearch } from './reviewed-port.ts';
import type { StoredReview } from './reviews.ts';
import { decodeVector, vectorPlace } from './reviews.ts';
import type { EnrichmentField, TaxonomyConfig } from './store.ts';
import { bestMatch } from './store.ts';
import type { Subject } from './subjects.ts';
import { inputsOf, lackOfInputs, readField } from './subjects.ts';
import { elect, isAccepted, round, weighFor } from './vote.ts';

/** References that are looked at beyond those that vote, to find the next best class. */
const hitsLookedAt = 10;

/** References whose rows are read one by one. */
const rowsRead = 100;

/** What one node says of one subject. */
export interface NodeOutcome {
  /** One; of a path, one for each level. */
  readonly assignments: readonly Assignment[];
  /** The subject goes on to the children. */
  readonly accepted: boolean;
  readonly score: number;
  /** Fields of the matched reference that children are linked by. */
  readonly links: ReadonlyMap<string, Json>;
}

export interface NodeAnswer {
  /** In the order of the subjects; undefined where there is nothing to compare or no reference. */
  readonly outcomes: readonly (NodeOutcome | undefined)[];
  /** Texts that the plugin refused for good. */
  readonly failed: number;
  readonly warnings: readonly string[];
}

export interface OpenNode {
  /**
   * @param filters by subject: only these references count
   * @param level of the node, from 1
   */
  search(
    subjects: readonly Subject[],
    filters: readonly (Condition | undefined)[],
    level: number,
    deadlineMs: number,
  ): Promise<NodeAnswer>;
  /** References under a parent that has this value; undefined if the value cannot be compared. */
  linkFilter(value: Json | undefined): Condition | undefined;
  /** The vectors that searches for these subjects ask with, by place; in the order of the subjects. */
  vectorsOf(subjects: readonly Subject[], deadlineMs: number): Promise<Map<string, Float32Array>[]>;
}

/** A reference with what it votes for. */
interface Reference extends ScoredId {
  /** Six decimals. */
  readonly score: number;
  readonly review: StoredReview | undefined;
  readonly value: Json;
  readonly path: readonly string[];
}

export function openNode(
  ctx: NsCtx,
  config: TaxonomyConfig,
  resolved: ResolvedNode,
  linkFields: readonly string[],
  reviews: readonly StoredReview[],
  reads: RunReads,
): OpenNode {
  const { node, retriever, source, inputSchema, metric } = resolved;
  const { path } = config;
  const vote = config.vote ?? bestMatch;
  const depth = Math.max(vote.top_k, hitsLookedAt);
  const weigh = weighFor(metric === 'euclid' ? 'euclid' : 'cosine');
  const { collection_identifiers: _, ...rest } = resolved.parameters;
  // The port reads the source collection alone, which every search of the retriever was found to read.
  const parameters = {
    ...rest,
    final_top_k: depth,
    searches: rest.searches.map(({ collection_identifiers: __, ...search }) => search),
  };
  /** What the references of this node are told apart by. */
  const voted = path ? path.fields : [canonicalField(node.enrichment_fields[0]!.field_path)];
  const filter = referenceFilter(path ? voted.slice(0, 1) : node.enrichment_fields.map((f) => f.field_path));
  const judged = reviewsFor(resolved, config, reviews);

  const canonicalUri = (uri: string) => featureOf(source, uri)?.feature_uri ?? uri;
  const extraByUri = new Map<string, ExtraReferences | undefined>();
  const extras = (uri: string): ExtraReferences | undefined => {
    if (!extraByUri.has(uri)) extraByUri.set(uri, extraReferences(resolved, canonicalUri(uri), uri, judged));
    return extraByUri.get(uri);
  };

  const portFor = (onTextFailure: () => void): SearchPort =>
    reviewedPort(
      new IndexSearchPort(ctx, {
        collections: [source],
        reads,
        onTextFailure: (failure, pluginId) => {
          // What may pass on another try is tried again; what the plugin refuses for good concerns its text alone.
          if (failure.retryable) throw embedFault(pluginId, failure);
          onTextFailure();
        },
      }),
      extras,
    );

  const askedBy = ({ fields, inputs }: Subject): JsonObject =>
    inputs ?? inputsOf(fields ?? {}, node.input_mappings, inputSchema);

  const ask = (
    subjects: readonly Subject[],
    filters: readonly (Condition | undefined)[],
    port: SearchPort,
    deadlineMs: number,
  ) =>
    searchMany(
      {
        parameters,
        queries: subjects.map((subject, i) => ({
          inputs: askedBy(subject),
          ...(subject.document_id === undefined ? {} : { exclude_ids: [subject.document_id] }),
          ...(filters[i] ? { filter: filters[i] } : {}),
        })),
        filter,
        context: { namespace_id: ctx.ns.namespaceId, retriever_id: retriever.id },
        // Fused rankings need the searches' own depth.
        ...(metric === 'fused' ? {} : { top_k: depth }),
        deadlineMs,
      },
      port,
      ctx.ports.clock,
    );

  /**
   * Values of the voted fields of documents of the source collection. Of a few documents their rows are read; of many
   * the columns of the version that was searched, which then is worth loading.
   */
  const votedValues = async (ids: readonly string[]): Promise<Map<string, (Json | undefined)[]>> => {
    const snapshot = ids.length > rowsRead ? await reads.snapshot(source.id, documentsUri) : undefined;
    const found = new Map<string, (Json | undefined)[]>();
    const lacking: string[] = [];
    for (const id of ids) {
      const row = snapshot?.rowOf(id);
      const values = row === undefined ? [] : voted.map((name) => snapshot!.valueAt(row, name) as Json);
      // Objects have no column of their own name.
      if (values[0] === undefined || values[0] === null) lacking.push(id);
      else found.set(id, values);
    }
    const documents = await getDocuments(
      ctx,
      lacking.map((document_id) => ({ collection_id: source.id, document_id })),
    );
    for (const [i, id] of lacking.entries()) {
      const fields = documents[i]?.fields;
      if (fields)
        found.set(
          id,
          voted.map((name) => asColumn(readField(fields, name))),
        );
    }
    return found;
  };

  const toReferences = async (hits: readonly (readonly ScoredId[])[]): Promise<Reference[][]> => {
    const plain = new Set(
      hits.flatMap((list) => list.filter((hit) => !judged.has(keyOf(hit))).map((hit) => hit.document_id)),
    );
    const values = await votedValues([...plain]);
    return hits.map((list) =>
      list.slice(0, depth).flatMap((hit): Reference[] => {
        const review = judged.get(keyOf(hit));
        const own = review ? reviewValues(review, resolved, config) : values.get(hit.document_id);
        const first = own?.[0];
        // Deleted since it was searched.
        if (own === undefined || first === undefined || first === null) return [];
        const parts = path ? readPath(own, review ? { ...path, fields: [path.target] } : path) : [];
        return [{ ...hit, score: round(hit.score), review, value: first, path: parts }];
      }),
    );
  };

  return {
    async search(subjects, filters, level, deadlineMs) {
      let failed = 0;
      const port = portFor(() => {
        failed += 1;
      });
      const { outcomes, warnings } = await ask(subjects, filters, port, deadlineMs);
      const unmatched = subjects.filter((_, i) => outcomes[i]!.hits.length === 0);
      const lacks = lackOfInputs(unmatched, unmatched.map(askedBy), node.input_mappings, inputSchema);
      const references = await toReferences(outcomes.map(({ hits }) => hits));
      const drafts = references.map((list) =>
        path ? draftPath(list, config, vote.mode === 'best' ? 1 : vote.top_k) : draftNode(list, resolved),
      );
      const needed = new Set<string>();
      for (const draft of drafts)
        for (const at of draft?.reads ?? []) if (!at.review) needed.add(at.document_id);
      const ids = [...needed];
      const found = await getDocuments(
        ctx,
        ids.map((document_id) => ({ collection_id: source.id, document_id })),
      );
      const fieldsOf = new Map(ids.map((id, i) => [id, found[i]?.fields]));
      return {
        outcomes: drafts.map((draft) => draft?.finish((id) => fieldsOf.get(id), level)),
        failed,
        warnings: [...warnings, ...lacks],
      };
    },
    linkFilter(value) {
      const comparable = ['string', 'number', 'boolean'].includes(typeof value);
      return comparable && node.link
        ? parse({ field: node.link.field, operator: 'eq', value }, { caseSensitive: true })
        : undefined;
    },
    async vectorsOf(subjects, deadlineMs) {
      const found = subjects.map(() => new Map<string, Float32Array>());
      const port = new IndexSearchPort(ctx, {
        collections: [source],
        reads,
        onTextFailure: (failure, pluginId) => {
          if (failure.retryable) throw embedFault(pluginId, failure);
        },
      });
      // What the searches would ask with is all that is wanted: the index itself is not read. Each query says by the
      // id that it excludes whose it is.
      const search = async ({ feature_uri, vectors, exclude }: SearchRequest): Promise<SearchReply> => {
        for (const [i, vector] of vectors.entries())
          found[Number(exclude![i]![0])]!.set(vectorPlace(node.node_id, canonicalUri(feature_uri)), vector);
        return {
          hits: vectors.map(() => []),
          stats: { bytes_scanned: 0, shards: 0, exact: true },
          unknown_fields: [],
        };
      };
      const numbered = subjects.map((subject, i) => ({ ...subject, document_id: String(i) }));
      await ask(numbered, [], withSearch(port, search), deadlineMs);
      return found;
    },
  };

  /** The vote at a node that is no path. */
  function draftNode(
    list: readonly Reference[],
    { node: { enrichment_fields, threshold, node_id, label } }: ResolvedNode,
  ) {
    const keys = list.map(({ value }) => canonicalJson(value));
    const elected = elect(
      list.map(({ score }, i) => ({ key: keys[i]!, score })),
      vote,
      weigh,
    );
    if (!elected) return undefined;
    const best = list[elected.best]!;
    const accepted = isAccepted(best.score, elected.votes.share, threshold, vote);
    const appends = enrichment_fields.some(({ merge_mode }) => merge_mode === 'append');
    const voters = list
      .slice(0, vote.mode === 'best' ? 1 : vote.top_k)
      .filter(({ score }) => threshold === null || score >= threshold);
    return {
      reads: accepted ? (appends ? [best, ...voters] : [best]) : [],
      finish(fieldsOf: (id: string) => JsonObject | undefined, level: number): NodeOutcome | undefined {
        const values = accepted
          ? takeFields(enrichment_fields, best, voters, fieldsOf)
          : new Map<string, Taken>();
        // Deleted or changed since it was searched: it is no reference now.
        if (!values) return undefined;
        const assignment: Assignment = {
          node_id,
          label,
          level,
          ...placeOf(list, elected),
          value: best.value,
          accepted,
          votes: elected.votes,
          values,
        };
        return { assignments: [assignment], accepted, score: best.score, links: linksOf(best, fieldsOf) };
      },
    };
  }

  /** The votes down a path. */
  function draftPath(
    list: readonly Reference[],
    { path: rule, threshold, enrichment_fields }: TaxonomyConfig,
    voters: number,
  ) {
    const steps = descend(list, { ...vote, top_k: voters }, rule!, threshold, weigh);
    if (steps.length === 0) return undefined;
    const last = steps.findLast(({ accepted }) => accepted);
    return {
      reads: last && enrichment_fields.length > 0 ? [list[last.best]!] : [],
      finish(fieldsOf: (id: string) => JsonObject | undefined, level: number): NodeOutcome | undefined {
        const assignments = steps.map((step, i): Assignment => {
          const values = new Map<string, Taken>();
          if (step.accepted) {
            const target = rule!.level_fields[i];
            if (target !== undefined) values.set(target, { value: step.prefix.at(-1)!, merge: 'replace' });
          }
          if (step === last) {
            values.set(rule!.target, { value: step.prefix.join(rule!.separator), merge: 'replace' });
            const best = list[step.best]!;
            const own = best.review ? undefined : fieldsOf(best.document_id);
            for (const field of enrichment_fields) {
              const value = best.review
                ? best.review.values[canonicalField(field.target_field)]
                : own && readField(own, field.field_path);
              if (value !== undefined && value !== null)
                values.set(canonicalField(field.target_field), { value, merge: field.merge_mode });
            }
          }
          return {
            node_id: step.prefix.join(rule!.separator),
            label: step.prefix.at(-1)!,
            level: level + i,
            ...placeOf(list, step, (reference) => reference.path.slice(0, i + 1).join(rule!.separator)),
            value: step.prefix.join(rule!.separator),
            accepted: step.accepted,
            votes: step.votes,
            values,
          };
        });
        return {
          assignments,
          accepted: last !== undefined,
          score: assignments[0]!.score,
          links: new Map(),
        };
      },
    };
  }

  function linksOf(best: Reference, fieldsOf: (id: string) => JsonObject | undefined): Map<string, Json> {
    const found = new Map<string, Json>();
    for (const name of linkFields) {
      const target = node.enrichment_fields.find(
        ({ field_path }) => canonicalField(field_path) === canonicalField(name),
      );
      const fields = fieldsOf(best.document_id);
      const value = best.review
        ? target && best.review.values[canonicalField(target.target_field)]
        : fields && readField(fields, name);
      if (value !== undefined) found.set(name, value);
    }
    return found;
  }
}

/** A value as columns have it: a list of lists is one list. */
function asColumn(value: Json | undefined): Json | undefined {
  return Array.isArray(value) ? (value.flat(Number.POSITIVE_INFINITY) as Json[]) : value;
}

/** The winner's nearest reference and the runner-up's. */
function placeOf(
  list: readonly Reference[],
  { best, runnerUp }: { readonly best: number; readonly runnerUp: number | undefined } | PathStep,
  shownAs: (reference: Reference) => Json = ({ value }) => value,
): Pick<Assignment, 'document_id' | 'collection_id' | 'score' | 'runner_up' | 'margin'> {
  const { document_id, collection_id, score } = list[best]!;
  const second = runnerUp === undefined ? undefined : list[runnerUp]!;
  return {
    document_id,
    collection_id,
    score,
    runner_up: second
      ? { document_id: second.document_id, value: shownAs(second), score: second.score }
      : null,
    margin: second ? round(score - second.score) : null,
  };
}

/** Fields that a reference must have: a value that is not null and not an empty text, in every one of them. */
function referenceFilter(fields: readonly string[]): Condition {
  const names = [...new Set(fields.map((field) => canonicalField(field)))];
  return parse({
    AND: names.flatMap((field) => [
      { field, operator: 'is_null', value: false },
      { field, operator: 'ne', value: '' },
    ]),
  });
}

/**
 * What a document takes over: of `replace` fields the winner's values, of `append` fields the distinct values of all
 * references that count, nearest first.
 *
 * @returns undefined if the winner lacks one of them
 */
function takeFields(
  fields: readonly EnrichmentField[],
  best: Reference,
  voters: readonly Reference[],
  fieldsOf: (id: string) => JsonObject | undefined,
): Map<string, Taken> | undefined {
  const valueIn = (reference: Reference, { field_path, target_field }: EnrichmentField): Json | undefined => {
    if (reference.review) return reference.review.values[canonicalField(target_field)];
    const own = fieldsOf(reference.document_id);
    return own && readField(own, field_path);
  };
  const values = new Map<string, Taken>();
  for (const field of fields) {
    const target = canonicalField(field.target_field);
    const own = valueIn(best, field);
    if (own === undefined || own === null) return undefined;
    if (field.merge_mode === 'replace') {
      values.set(target, { value: own, merge: 'replace' });
      continue;
    }
    const all = voters.flatMap((reference) => {
      const value = valueIn(reference, field);
      return value === undefined || value === null ? [] : Array.isArray(value) ? value : [value];
    }) as Json[];
    const distinct = [...new Map(all.map((value) => [canonicalJson(value), value])).values()];
    values.set(target, { value: distinct, merge: 'append' });
  }
  return values;
}

/** The decisions that are references of a node, by collection and document. */
function reviewsFor(
  { node }: ResolvedNode,
  config: TaxonomyConfig,
  reviews: readonly StoredReview[],
): Map<string, StoredReview> {
  // Which parent a decided document stands under is not known, so it is no reference of a linked node.
  if (node.link) return new Map();
  const needed = config.path
    ? [config.path.target]
    : node.enrichment_fields.map(({ target_field }) => canonicalField(target_field));
  return new Map(
    reviews
      .filter(
        // A rejection has no values.
        ({ values }) => needed.every((target) => values[target] !== undefined && values[target] !== null),
      )
      .map((review) => [keyOf(review), review]),
  );
}

function reviewValues(
  review: StoredReview,
  { node }: ResolvedNode,
  { path }: TaxonomyConfig,
): (Json | undefined)[] {
  return [review.values[path ? path.target : canonicalField(node.enrichment_fields[0]!.target_field)]];
}

function extraReferences(
  { node, source }: ResolvedNode,
  canonicalUri: string,
  uri: string,
  judged: ReadonlyMap<string, StoredReview>,
): ExtraReferences | undefined {
  const feature = featureOf(source, uri);
  if (!feature || judged.size === 0) return undefined;
  const place = vectorPlace(node.node_id, canonicalUri);
  const usable = [...judged.values()].flatMap((review) => {
    const text = review.vectors[place];
    const vector = text === undefined ? undefined : decodeVector(text);
    return vector?.length === feature.dims ? [{ review, vector }] : [];
  });
  return {
    metric: feature.metric,
    dims: feature.dims,
    ids: usable.map(({ review: { document_id, collection_id } }) => ({ document_id, collection_id })),
    rows: toRows(
      usable.map(({ vector }) => vector),
      feature.dims,
    ),
  };
}
