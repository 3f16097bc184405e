// The state of one run: what stages share, what they tell the caller, and how they reach the port.
import type { Clock } from '../clock.ts';
import { AppError } from '../errors.ts';
import { type Fault, type Path, throwFaults, under } from './faults.ts';
import { allOf, type Filter } from './filter.ts';
import { keyOf } from './fusion.ts';
import type { Degradation, DocumentOptions, Facet, SearchPort } from './ports.ts';
import { type Hit, hitsMax, type StageContext, showAdded, type WorkingSet } from './stages/stage.ts';
import { resolve, type TemplateScope } from './template.ts';

/** What a run needs to know besides its stages. */
export interface RunOptions {
  readonly port: SearchPort;
  readonly clock: Clock;
  readonly scope: TemplateScope;
  readonly requestFilter?: Filter | undefined;
  readonly allowPartial: boolean;
  /** Milliseconds on `clock`. */
  readonly deadlineMs: number;
  readonly excludeIds: readonly string[];
}

/** Notes for the caller, each once, in order. At most 50: an answer is not a log. */
const warningsMax = 50;

/** All facets of an answer have this many bytes of JSON at most: texts can be long, and the hits need room too. */
const facetBytesMax = 400_000;

const noOptions: DocumentOptions = { return_vectors: false, return_presigned_urls: false };

export class RunContext {
  readonly options: RunOptions;
  readonly #warnings = new Set<string>();
  readonly #degraded = new Map<string, Degradation>();
  #facetBytes = 0;

  constructor(options: RunOptions) {
    this.options = options;
  }

  get warnings(): string[] {
    return [...this.#warnings];
  }

  get degraded(): Degradation[] {
    return [...this.#degraded.values()];
  }

  warn(text: string): void {
    if (this.#warnings.size < warningsMax) this.#warnings.add(text);
  }

  degrade(entries: readonly Degradation[]): void {
    for (const entry of entries) this.#degraded.set(`${entry.resource}\u0000${entry.reason}`, entry);
  }

  checkDeadline(): void {
    if (this.options.clock.now() > this.options.deadlineMs) throw new AppError('retriever_timeout');
  }

  async list(request: Parameters<StageContext['list']>[0]): Promise<{ hits: Hit[]; total: number | null }> {
    const { port, requestFilter, allowPartial, deadlineMs } = this.options;
    const { sort, offset, limit } = request;
    const filter = allOf(requestFilter, request.filter);
    const reply = await port.list({
      sort,
      offset,
      limit,
      allow_partial: allowPartial,
      deadline_ms: deadlineMs,
      ...(filter ? { filter } : {}),
    });
    this.checkDeadline();
    for (const field of reply.unknown_fields ?? [])
      this.warn(`No document has the field ${JSON.stringify(field)}.`);
    this.degrade(reply.degraded ?? []);
    const hits = reply.documents.map(({ document_id, collection_id }) => ({
      document_id,
      collection_id,
      score: 0,
    }));
    return { hits, total: reply.total };
  }

  async facets(...[fields, over]: Parameters<StageContext['facets']>): Promise<Facet[]> {
    if (fields === undefined || fields.length === 0) return [];
    const { port, allowPartial, deadlineMs } = this.options;
    const reply = await port.facets({
      ...over,
      fields,
      allow_partial: allowPartial,
      deadline_ms: deadlineMs,
    });
    this.checkDeadline();
    for (const field of reply.unknown_fields ?? [])
      this.warn(`No document has the field ${JSON.stringify(field)}.`);
    this.degrade(reply.degraded ?? []);
    return reply.facets.map((facet) => this.#within(facet));
  }

  /** The facet without those of its last values for which the answer has no room. */
  #within(facet: Facet): Facet {
    const { values } = facet;
    let kept = 0;
    for (; kept < values.length; kept += 1) {
      const bytes = Buffer.byteLength(JSON.stringify(values[kept])) + 1;
      if (this.#facetBytes + bytes > facetBytesMax) break;
      this.#facetBytes += bytes;
    }
    if (kept === values.length) return facet;
    this.warn(
      `The facet ${JSON.stringify(facet.key)} shows ${kept} of ${values.length} values: they are too long for one answer.`,
    );
    return { ...facet, values: values.slice(0, kept) };
  }

  async materialise(set: WorkingSet): Promise<readonly Hit[]> {
    if (set.kind === 'hits') return set.hits;
    const { hits, total } = await this.list({
      ...(set.filter ? { filter: set.filter } : {}),
      sort: set.sort,
      offset: 0,
      limit: hitsMax,
    });
    if (total === null ? hits.length === hitsMax : total > hits.length) {
      this.warn(`Only the first ${hitsMax} of the selected documents were looked at one by one.`);
    }
    return hits;
  }

  async withDocuments(hits: readonly Hit[], options?: DocumentOptions): Promise<Hit[]> {
    const lacking = options ? hits : hits.filter((hit) => !hit.document);
    if (lacking.length === 0) return [...hits];
    const refs = lacking.map(({ document_id, collection_id }) => ({ document_id, collection_id }));
    const documents = await this.options.port.documents(refs, options ?? noOptions);
    if (documents.length !== refs.length)
      throw new Error(`got ${documents.length} of ${refs.length} documents`);
    this.checkDeadline();
    const loaded = new Map(lacking.map((hit, index) => [keyOf(hit), documents[index]]));
    const found: Hit[] = [];
    for (const hit of hits) {
      const document = loaded.get(keyOf(hit)) ?? (options ? undefined : hit.document);
      if (!document) continue;
      const isFresh = hit.added && document !== hit.document;
      found.push({ ...hit, document: isFresh ? showAdded(document, hit.added!) : document });
    }
    const gone = hits.length - found.length;
    if (gone > 0) this.warn(`${gone} of the documents found were deleted during the run and are left out.`);
    return found;
  }

  /** The context as one stage sees it. `note` collects what goes into its statistics, `countedFacets` its facets. */
  forStage(
    path: Path,
    scope: TemplateScope,
    note: StageContext['note'],
    countedFacets: (facets: readonly Facet[]) => void = () => undefined,
  ): StageContext {
    const { port, requestFilter, allowPartial, deadlineMs, excludeIds } = this.options;
    const fail = (faults: readonly Fault[]) => throwFaults('retriever_input_invalid', faults);
    return {
      port,
      scope,
      path,
      allowPartial,
      deadlineMs,
      excludeIds,
      ...(requestFilter ? { requestFilter } : {}),
      checkDeadline: () => this.checkDeadline(),
      fail,
      resolve: (tree, relative, more) => {
        const { value, faults } = resolve(tree, { ...scope, ...more });
        fail(under([...path, ...relative], faults));
        return value;
      },
      materialise: (set) => this.materialise(set),
      list: (request) => this.list(request),
      withDocuments: (hits, options) => this.withDocuments(hits, options),
      facets: async (fields, over) => countedFacets(await this.facets(fields, over)),
      warn: (text) => this.warn(text),
      note,
      degrade: (entries) => this.degrade(entries),
    };
  }
}
