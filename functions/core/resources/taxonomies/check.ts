// What a taxonomy needs to make sense: a retriever of one cosine search that reads the references, inputs that it has,
// targets that are the user's. Asked when a taxonomy is made, and again whenever it is applied.

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
import type { EnrichmentField, InputMapping } from './store.ts';

type Path = readonly (string | number)[];

/** A configuration as it was written: the retriever and the collection by id or name. */
export interface GivenConfig {
  readonly retriever: string;
  readonly collection: string;
  readonly input_mappings: readonly InputMapping[];
  readonly enrichment_fields: readonly EnrichmentField[];
  readonly threshold: number | null;
}

/** Where each part stands in the request. */
export type ConfigPlaces = { readonly [K in keyof GivenConfig]: Path };

/** What a sound configuration refers to. */
export interface Resolved {
  readonly retriever: StoredRetriever;
  readonly source: StoredCollection;
  readonly parameters: FeatureSearchParameters;
  readonly inputSchema: InputSchema;
}

/** Resolves a configuration. `resolved` is absent exactly if there are faults. */
export async function resolveConfig(
  ctx: NsCtx,
  config: GivenConfig,
  places: ConfigPlaces,
): Promise<{ readonly resolved?: Resolved; readonly faults: FieldFault[] }> {
  const faults: FieldFault[] = [];
  const wrong = (type: string, at: Path, message: string, fix?: string) =>
    faults.push({ type, location: ['body', ...at], message, ...(fix === undefined ? {} : { fix }) });
  const [retriever, source] = await Promise.all([
    findRetriever(ctx, config.retriever),
    findCollection(ctx, config.collection),
  ]);
  if (!retriever) {
    const names = (await listRetrievers(ctx)).slice(0, 10).map(({ name }) => name);
    const fix = names.length > 0 ? `retrievers here: ${names.join(', ')}` : 'make a retriever first';
    wrong(
      'retriever_unknown',
      places.retriever,
      `there is no retriever "${config.retriever}" in this namespace`,
      fix,
    );
  }
  if (!source)
    wrong(
      'collection_unknown',
      places.collection,
      `there is no collection "${config.collection}" in this namespace`,
    );
  checkTargets(config, places, wrong);
  const definition = retriever && definitionOf(retriever);
  if (definition) checkMappings(config, definition.input_schema, places, wrong);

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
  if (retriever && source && parameters) {
    if (retriever.collection_ids.length > 0 && !retriever.collection_ids.includes(source.id)) {
      wrong(
        'retriever_unsuitable',
        places.collection,
        `the retriever "${retriever.name}" does not read the collection "${source.name}"`,
      );
    }
    if (config.threshold !== null && parameters.searches.length > 1) {
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
      } else if (config.threshold !== null && feature.metric !== 'cosine') {
        wrong(
          'retriever_unsuitable',
          places.threshold,
          `${search.feature_uri} is compared by ${feature.metric}, and a threshold is a cosine`,
          'leave the threshold out, or use a feature with the metric cosine',
        );
      }
    }
  }
  if (faults.length > 0 || !retriever || !source || !parameters || !definition) return { faults };
  return { faults, resolved: { retriever, source, parameters, inputSchema: definition.input_schema } };
}

type Wrong = (type: string, at: Path, message: string, fix?: string) => void;

function checkMappings(config: GivenConfig, schema: InputSchema, places: ConfigPlaces, wrong: Wrong): void {
  const inputs = Object.keys(schema);
  const mapped = new Set<string>();
  for (const [i, { input_key, path }] of config.input_mappings.entries()) {
    const at = [...places.input_mappings, i];
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
      places.input_mappings,
      `the retriever needs the input "${name}", and nothing is mapped to it`,
      `add {"source": "payload.<field>", "target": "${name}"}`,
    );
  }
}

const targetForm = /^[A-Za-z][A-Za-z0-9_-]{0,99}$/;
const prototypeNames = new Set(['constructor', 'prototype']);

function checkTargets(config: GivenConfig, places: ConfigPlaces, wrong: Wrong): void {
  const sources = new Set(
    config.enrichment_fields.map(({ field_path }) => canonicalField(field_path).split('.')[0]!),
  );
  const targets = new Set<string>();
  for (const [i, { field_path, target_field }] of config.enrichment_fields.entries()) {
    const at = [...places.enrichment_fields, i];
    const fault = fieldFault(canonicalField(field_path));
    if (fault !== undefined) wrong('field_invalid', at, fault);
    const target = canonicalField(target_field);
    if (isReserved(target) || prototypeNames.has(target)) {
      wrong(
        'field_reserved',
        at,
        `"${target}" is kept by the service and cannot be enriched`,
        'choose another target, such as "auto_topic"',
      );
    } else if (!targetForm.test(target)) {
      wrong(
        'field_invalid',
        at,
        `"${target.slice(0, 60)}" cannot be a target: it must be one name of letters, digits, "_" and "-", without dots`,
      );
    } else if (sources.has(target)) {
      wrong(
        'field_loop',
        at,
        `"${target}" is a field that references are known by, so a document would become a reference by taking it over`,
        `name the target "auto_${target}"`,
      );
    } else if (targets.has(target)) {
      wrong('field_repeated', at, `the target "${target}" is written twice`);
    }
    targets.add(target);
  }
}
