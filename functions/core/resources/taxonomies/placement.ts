// What a classification says of one document: which reference it has at each level, why, and what it takes over.
import type { Enrichment, Json } from '../documents/service.ts';
import type { Subject } from './subjects.ts';

/** The vote at one node or level. */
export interface Assignment {
  readonly node_id: string;
  readonly label: string | null;
  /** From 1. */
  readonly level: number;
  /** The winner's nearest reference; for nearest centroids the node. */
  readonly document_id: string;
  /** Null for a centroid. */
  readonly collection_id: string | null;
  /** Of that reference: raw similarity (or fused score), six decimals. */
  readonly score: number;
  /** What the references voted about: the value of the first field, the path so far, or the label. */
  readonly value: Json;
  /** Score and share reach what the definition asks for. */
  readonly accepted: boolean;
  /** The nearest reference of the class that came second; null: none among those that were looked at. */
  readonly runner_up: { readonly document_id: string; readonly value: Json; readonly score: number } | null;
  /** Score minus the runner-up's: how clear it was. Negative where votes beat similarity. */
  readonly margin: number | null;
  readonly votes: { readonly winner: number; readonly total: number; readonly share: number };
  /** Target -> value; empty unless accepted. */
  readonly values: ReadonlyMap<string, Taken>;
}

/** A value that a document takes over. */
export interface Taken {
  readonly value: Json;
  readonly merge: 'replace' | 'append';
}

/** What a person decided about one document. */
export interface Decision {
  readonly action: 'accept' | 'correct' | 'reject';
  /** Target -> value; empty for a rejection. */
  readonly values: { readonly [target: string]: Json };
  /** Id of the key that decided. */
  readonly by: string;
  readonly at: string;
}

/** Everything about one document. */
export interface Placement {
  /** From the top; those of one level in the order of the nodes. Empty: nothing to compare, or no reference. */
  readonly assignments: readonly Assignment[];
  /** A person's word counts more than any assignment. */
  readonly decision: Decision | undefined;
}

export const nowhere: Placement = { assignments: [], decision: undefined };

/** What the document takes over, by target: a decision's values, else those of every level it passed. */
export function takenOf(placement: Placement): Map<string, Taken> {
  if (placement.decision) {
    return new Map(
      Object.entries(placement.decision.values).map(([target, value]) => [
        target,
        { value, merge: 'replace' as const },
      ]),
    );
  }
  return new Map(placement.assignments.flatMap(({ values }) => [...values]));
}

/** The assignment that an answer quotes where it has room for one: the deepest accepted, else the first. */
export function leading(placement: Placement): Assignment | undefined {
  return placement.assignments.findLast(({ accepted }) => accepted) ?? placement.assignments[0];
}

const provenanceTextMax = 200;

/** A value as provenance quotes it: documents shall not grow by what they did not take over. */
function quoted(value: Json): Json {
  if (typeof value === 'string')
    return value.length > provenanceTextMax ? `${value.slice(0, provenanceTextMax)}...` : value;
  return JSON.stringify(value).length > provenanceTextMax ? null : value;
}

/** What the stored provenance of one target says about its reason. */
export function reasonOf(
  placement: Placement,
  target: string,
  options: { readonly votes: boolean; readonly levels: boolean },
): Partial<Enrichment> {
  const { decision } = placement;
  if (decision) {
    const { action, by, at } = decision;
    return { score: null, matched_document_id: null, review: { action, by, at } };
  }
  const own = placement.assignments.find(({ values }) => values.has(target));
  if (!own) return {};
  return {
    score: own.score,
    matched_document_id: own.document_id,
    margin: own.margin,
    runner_up: own.runner_up && { ...own.runner_up, value: quoted(own.runner_up.value) },
    ...(options.levels ? { node_id: own.node_id, level: own.level } : {}),
    ...(options.votes ? { votes: own.votes } : {}),
  };
}

/** What all subjects got, in their order. */
export interface Searched {
  readonly assignments: readonly (readonly Assignment[])[];
  readonly failed: number;
  readonly warnings: readonly string[];
}

/** Classifies subjects that nobody has decided about. */
export type Search = (subjects: readonly Subject[], deadlineMs: number) => Promise<Searched>;
