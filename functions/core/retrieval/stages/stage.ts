// What a stage is: its parameters, what can be checked before a run, and how it turns one working set into the next.
import type * as z from 'zod';
import type { Fault, Path } from '../faults.ts';
import type { Filter } from '../filter.ts';
import type {
  DocumentOptions,
  EnrichedDocument,
  FacetField,
  FacetRequest,
  ListRequest,
  RetrievedDocument,
  SearchPort,
  SortKey,
} from '../ports.ts';
import type { TemplateRoot, TemplateScope } from '../template.ts';

/** A document on its way through the stages; `document` once some stage needed its fields. */
export interface Hit {
  readonly document_id: string;
  readonly collection_id: string;
  /** Of the last search or fusion; 0 for documents that were listed, not searched. */
  readonly score: number;
  readonly document?: RetrievedDocument;
  /** What stages have added to the document; it stays when the document is read anew. */
  readonly added?: EnrichedDocument;
}

/** A hit whose document shows what a stage has found out about it, at the root and under `metadata`. */
export function withAdded(hit: Hit, added: EnrichedDocument): Hit {
  const all: EnrichedDocument = {
    fields: { ...hit.added?.fields, ...added.fields },
    assignments: [...(hit.added?.assignments ?? []), ...added.assignments],
  };
  const { document } = hit;
  return document ? { ...hit, added: all, document: showAdded(document, all) } : { ...hit, added: all };
}

const asObject = (value: unknown): Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null ? (value as Readonly<Record<string, unknown>>) : {};

/** A document as it was read, with what stages have added. */
export function showAdded(document: RetrievedDocument, added: EnrichedDocument): RetrievedDocument {
  return {
    ...document,
    ...added.fields,
    document_id: document.document_id,
    collection_id: document.collection_id,
    metadata: { ...asObject(document.metadata), ...added.fields },
    _internal: { ...asObject(document._internal), taxonomy_assignments: added.assignments },
  };
}

/**
 * What flows from stage to stage.
 *
 * A selection is not looked up yet: filters and orders before the first search are handed to the index, which sees all
 * documents, instead of to a list of the first few thousand. At the start it selects everything.
 */
export type WorkingSet =
  | { readonly kind: 'selection'; readonly filter?: Filter; readonly sort: readonly SortKey[] }
  | { readonly kind: 'hits'; readonly hits: readonly Hit[] };

/** Most documents that a stage looks at one by one. */
export const hitsMax = 5000;

/** The run, as a stage sees it. */
export interface StageContext {
  readonly port: SearchPort;
  readonly scope: TemplateScope;
  /** Where the stage's parameters stand in the request, for faults. */
  readonly path: Path;
  /** The request's own filter; goes into every search and list. */
  readonly requestFilter?: Filter;
  readonly allowPartial: boolean;
  readonly deadlineMs: number;
  /** Documents that no search may return, such as the one that a taxonomy classifies. */
  readonly excludeIds: readonly string[];
  /** @throws AppError retriever_timeout when the deadline has passed */
  checkDeadline(): void;
  /** @throws AppError retriever_input_invalid with every fault; nothing if there is none */
  fail(faults: readonly Fault[]): void;
  /**
   * The tree with its templates replaced.
   *
   * @param path where it stands in the parameters
   * @throws AppError retriever_input_invalid with every fault
   */
  resolve(tree: unknown, path: Path, more?: TemplateScope): unknown;
  /** Turns a selection into hits, at most `hitsMax`; the caller is told when there were more. */
  materialise(set: WorkingSet): Promise<readonly Hit[]>;
  /** Asks the port, with the request's filter, and takes its notes. */
  list(request: Pick<ListRequest, 'sort' | 'offset' | 'limit'> & { filter?: Filter }): Promise<{
    hits: Hit[];
    total: number | null;
  }>;
  /** The same hits with their documents, without those deleted in the meantime. */
  withDocuments(hits: readonly Hit[], options?: DocumentOptions): Promise<Hit[]>;
  /** Counts the values of fields for the answer's `facets`; takes the port's notes. Nothing happens without fields. */
  facets(
    fields: readonly FacetField[] | undefined,
    over: Pick<FacetRequest, 'scopes' | 'include'>,
  ): Promise<void>;
  warn(text: string): void;
  /** Adds to the stage's `metadata` in the statistics. */
  note(facts: Readonly<Record<string, unknown>>): void;
  degrade(entries: readonly { readonly resource: string; readonly reason: string }[]): void;
}

export interface Stage<Parameters = unknown> {
  readonly stage_id: string;
  readonly description: string;
  readonly category: 'filter' | 'sort' | 'reduce' | 'enrich' | 'apply';
  /** A Lucide icon, as clients show it. */
  readonly icon: string;
  /**
   * The parameters as they are written: strict, every accepted spelling in, one form out. Scalars may be templates.
   * Reading the form that comes out gives the same form.
   */
  readonly parameters: z.ZodType<Parameters>;
  /** Whether it can be the first stage: it brings documents, or selects them. */
  readonly canStart: boolean;
  /** Which roots its templates may use; `DOC` only for stages that look at one document at a time. */
  roots(first: boolean): readonly TemplateRoot[];
  /** What the schema cannot say. Paths are relative to the parameters. */
  check(parameters: Parameters): Fault[];
  /** The features that it searches, in order. */
  featureUris(parameters: Parameters): string[];
  /** Whether the template at `path` (within the parameters) may stay without a value. @default never */
  mayLack?(parameters: Parameters, path: Path): boolean;
  /** The most documents that can come out when `input` go in; null = as many as the collections hold. */
  outputMax(parameters: Parameters, input: number | null): number | null;
  run(ctx: StageContext, parameters: Parameters, input: WorkingSet): Promise<WorkingSet>;
}
