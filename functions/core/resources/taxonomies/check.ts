// What a taxonomy needs to make sense: at each node a retriever of one feature_search that reads the references, inputs
// that it has, targets that are the user's. Asked when a taxonomy is defined, and again whenever it is applied.

import { fieldFault } from '../../conditions/field.ts';
import { canonicalField } from '../../conditions/index.ts';
import type { NsCtx } from '../../context.ts';
import type { FieldFault } from '../../errors.ts';
import { isReserved } from '../../reserved-fields.ts';
import type { FeatureSearchParameters, InputSchema } from '../../retrieval/index.ts';
import type { StoredCollection } from '../collections/service.ts';
import { featureOf, findCollection } from '../collections/service.ts';
import type { StoredRetriever } from '../retrievers/service.ts';
import { definitionOf, findRetriever, listRetrievers, searchParametersOf } from '../retrievers/service.ts';
import type { EnrichmentField, InputMapping, TaxonomyConfig, TaxonomyNode } from './store.ts';
import { nodesOf } from './store.ts';

export type Place = readonly (string | number)[];

/** Adds a fault at a place of the request. */
export type Wrong = (type: string, at: Place, message: string, fix?: string) => void;

export function collectFaults(faults: FieldFault[]): Wrong {
  return (type, at, message, fix) => {
    faults.push({ type, location: ['body', ...at], message, ...(fix === undefined ? {} : { fix }) });
  };
}

/** Where the parts of a node stand in the request. */
export interface NodePlaces {
  readonly retriever: Place;
  readonly collection: Place;
  readonly input_mappings: Place;
  readonly enrichment_fields: Place;
  readonly threshold: Place;
  readonly link: Place;
}

/** What a sound node refers to. */
export interface ResolvedNode {
  /** With ids instead of names. */
  readonly node: TaxonomyNode;
  readonly retriever: StoredRetriever;
  readonly source: StoredCollection;
  readonly parameters: FeatureSearchParameters;
  readonly inputSchema: InputSchema;
  /** Of the only search; `fused`: there are several, whose scores are no similarities. */
  readonly metric: 'cosine' | 'dot' | 'euclid' | 'fused';
}

/**
 * Looks a node's retriever and collection up, by id or name, and checks that they fit.
 *
 * @param thresholded whether any threshold is compared with the node's scores
 * @returns undefined exactly if there are faults
 */
export async function resolveNode(
  ctx: NsCtx,
  node: TaxonomyNode,
  places: NodePlaces,
  thresholded: boolean,
  report: Wrong,
): Promise<ResolvedNode | undefined> {
  let sound = true;
  const wrong: Wrong = (...fault) => {
    sound = false;
    report(...fault);
  };
  const [retriever, source] = await Promise.all([
    findRetriever(ctx, node.retriever_id),
    findCollection(ctx, node.collection_id),
  ]);
  if (!retriever) {
    const names = (await listRetrievers(ctx)).slice(0, 10).map(({ name }) => name);
    const fix = names.length > 0 ? `retrievers here: ${names.join(', ')}` : 'make a retriever first';
    wrong(
      'retriever_unknown',
      places.retriever,
      `there is no retriever "${node.retriever_id}" in this namespace`,
      fix,
    );
  }
  if (!source)
    wrong(
      'collection_unknown',
      places.collection,
      `there is no collection "${node.collection_id}" in this namespace`,
    );
  const definition = retriever && definitionOf(retriever);
  if (definition) checkMappings(node.input_mappings, definition.input_schema, places.input_mappings, wrong);

  const [stage, second] = definition?.stages ?? [];
  const parameters = stage && !second ? searchParametersOf(stage) : undefined;
  if (definition && !parameters) {
    wrong(
      'retriever_unsuitable',
      places.retriever,
      `the retriever has ${definition.stages.length === 1 ? 'a stage that is no feature_search' : `${definition.stages.length} stages`}`,
      'use a retriever with one feature_search and nothing else',
    );
  }
  if (retriever && source && parameters)
    checkSearches(retriever, source, parameters, places, thresholded, wrong);
  if (!sound || !retriever || !source || !parameters || !definition) return undefined;
  const [first, other] = parameters.searches;
  return {
    node: { ...node, retriever_id: retriever.id, collection_id: source.id },
    retriever,
    source,
    parameters,
    inputSchema: definition.input_schema,
    metric: other ? 'fused' : featureOf(source, first!.feature_uri)!.metric,
  };
}

function checkSearches(
  retriever: StoredRetriever,
  source: StoredCollection,
  parameters: FeatureSearchParameters,
  places: NodePlaces,
  thresholded: boolean,
  wrong: Wrong,
): void {
  if (retriever.collection_ids.length > 0 && !retriever.collection_ids.includes(source.id)) {
    wrong(
      'retriever_unsuitable',
      places.collection,
      `the retriever "${retriever.name}" does not read the collection "${source.name}"`,
    );
  }
  if (thresholded && parameters.searches.length > 1) {
    wrong(
      'retriever_unsuitable',
      places.retriever,
      `the retriever fuses ${parameters.searches.length} searches, and a threshold is a cosine of one`,
      'use a retriever with one search, or leave the threshold out',
    );
  }
  for (const search of parameters.searches) {
    const narrowed = search.collection_identifiers ?? parameters.collection_identifiers;
    if (narrowed && !narrowed.includes(source.id)) {
      wrong(
        'retriever_unsuitable',
        places.collection,
        `a search of the retriever is restricted to other collections than "${source.name}"`,
      );
    }
    const feature = featureOf(source, search.feature_uri);
    if (!feature) {
      wrong(
        'retriever_unsuitable',
        places.collection,
        `the collection "${source.name}" has no vectors of ${search.feature_uri}, which the retriever searches`,
      );
    } else if (thresholded && feature.metric !== 'cosine') {
      wrong(
        'retriever_unsuitable',
        places.threshold,
        `${search.feature_uri} is compared by ${feature.metric}, and a threshold is a cosine`,
        'leave the threshold out, or use a feature with the metric cosine',
      );
    }
  }
}

function checkMappings(
  mappings: readonly InputMapping[],
  schema: InputSchema,
  place: Place,
  wrong: Wrong,
): void {
  const inputs = Object.keys(schema);
  const mapped = new Set<string>();
  for (const [i, { input_key, path }] of mappings.entries()) {
    const at = [...place, i];
    if (!Object.hasOwn(schema, input_key)) {
      wrong(
        'input_unknown',
        at,
        `the retriever has no input "${input_key}"`,
        inputs.length > 0 ? `its inputs: ${inputs.join(', ')}` : 'its search takes no inputs',
      );
    }
    if (mapped.has(input_key)) wrong('input_repeated', at, `the input "${input_key}" is mapped twice`);
    mapped.add(input_key);
    const fault = path === null ? undefined : fieldFault(canonicalField(path));
    if (fault !== undefined) wrong('field_invalid', at, fault);
  }
  for (const [name, field] of Object.entries(schema)) {
    if (!field.required || field.default !== undefined || mapped.has(name)) continue;
    wrong(
      'input_missing',
      place,
      `the retriever needs the input "${name}", and nothing is mapped to it`,
      `add {"source": "payload.<field>", "target": "${name}"}`,
    );
  }
}

const targetForm = /^[A-Za-z][A-Za-z0-9_-]{0,99}$/;
const prototypeNames = new Set(['constructor', 'prototype']);

/** Checks targets against what targets may be and against each other. */
export class TargetCheck {
  readonly #wrong: Wrong;
  /** Fields that references are known by. */
  readonly #sources = new Set<string>();
  /** Target -> level of the node that writes it. */
  readonly #taken = new Map<string, { readonly level: number; readonly node: number }>();

  constructor(wrong: Wrong) {
    this.#wrong = wrong;
  }

  /** A field of references. */
  source(field: string, at: Place): void {
    const name = canonicalField(field);
    const fault = fieldFault(name);
    if (fault !== undefined) this.#wrong('field_invalid', at, fault);
    this.#sources.add(name.split('.')[0]!);
  }

  /** A target of a node; nodes of one level may share targets, since a document keeps one of them. */
  target(field: string, at: Place, node: number, level: number): void {
    const target = canonicalField(field);
    const known = this.#taken.get(target);
    if (isReserved(target) || prototypeNames.has(target)) {
      this.#wrong(
        'field_reserved',
        at,
        `"${target}" is kept by the service and cannot be enriched`,
        'choose another target, such as "auto_topic"',
      );
    } else if (!targetForm.test(target)) {
      this.#wrong(
        'field_invalid',
        at,
        `"${target.slice(0, 60)}" cannot be a target: it must be one name of letters, digits, "_" and "-", without dots`,
      );
    } else if (this.#sources.has(target)) {
      this.#wrong(
        'field_loop',
        at,
        `"${target}" is a field that references are known by, so a document would become a reference by taking it over`,
        `name the target "auto_${target}"`,
      );
    } else if (known && (known.node === node || known.level !== level)) {
      this.#wrong('field_repeated', at, `the target "${target}" is written twice`);
    }
    this.#taken.set(target, { level, node });
  }

  fields(fields: readonly EnrichmentField[], at: Place, node: number, level: number): void {
    for (const [i, { field_path }] of fields.entries()) this.source(field_path, [...at, i]);
    this.targets(fields, at, node, level);
  }

  targets(fields: readonly EnrichmentField[], at: Place, node: number, level: number): void {
    for (const [i, { target_field }] of fields.entries()) this.target(target_field, [...at, i], node, level);
  }
}

/** Resolves the nodes of a stored definition anew; what does not fit any more is told by places of the definition. */
export async function resolveStored(
  ctx: NsCtx,
  config: TaxonomyConfig,
): Promise<{ readonly nodes: readonly ResolvedNode[]; readonly faults: readonly FieldFault[] }> {
  const faults: FieldFault[] = [];
  const wrong = collectFaults(faults);
  const nodes = await Promise.all(
    nodesOf(config).map((node, i) => {
      const at: Place = config.nodes ? ['config', 'hierarchical_nodes', i] : ['config'];
      const levels = config.path?.level_thresholds.length ?? 0;
      return resolveNode(
        ctx,
        node,
        {
          retriever: [...at, 'retriever_id'],
          collection: config.nodes ? [...at, 'collection_id'] : [...at, 'source_collection', 'collection_id'],
          input_mappings: [...at, 'input_mappings'],
          enrichment_fields: [...at, 'enrichment_fields'],
          threshold: [...at, 'threshold'],
          link: [...at, 'link'],
        },
        node.threshold !== null || levels > 0,
        wrong,
      );
    }),
  );
  return { nodes: nodes.filter((node) => node !== undefined), faults };
}
