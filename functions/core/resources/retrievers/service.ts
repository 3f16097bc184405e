// The rules of retrievers: what a definition may name, and what it needs. Other slices call these functions.
import type * as z from 'zod';
import type { NsCtx } from '../../context.ts';
import type { FieldFault } from '../../errors.ts';
import { invalid } from '../../errors.ts';
import { checkVersion } from '../../http/version.ts';
import { newId } from '../../ids.ts';
import type { FeatureSearchParameters, RetrieverDefinition, StageConfig } from '../../retrieval/index.ts';
import { defineRetriever, parseFeatureUri } from '../../retrieval/index.ts';
import type { Parent } from '../../store/resource-store.ts';
import type { StoredCollection } from '../collections/service.ts';
import { featureOf, listCollections } from '../collections/service.ts';
import type { StoredPlugin } from '../plugins/service.ts';
import { featureUri, listPlugins, pluginId } from '../plugins/service.ts';
import type { CreateRetrieverBody, UpdateRetrieverBody } from './contract.ts';
import type { StoredRetriever } from './store.ts';
import { retrieverStore } from './store.ts';

export type { TextFailure } from './embed.ts';
export { embedFault } from './embed.ts';
export { provideEnrichment } from './enrichment.ts';
export { RunReads } from './run-reads.ts';
export { IndexSearchPort } from './search-port.ts';
export type { StoredRetriever } from './store.ts';

/** What the row keeps as text: the checked definition, and the inputs as they were declared, for later updates. */
interface StoredDefinition {
  readonly checked: RetrieverDefinition;
  readonly declared_inputs: unknown;
}

/** Bytes of the stored text; a row stays under 100 kB (decisions, section 1). */
const definitionBytesMax = 80_000;
/** Each parent is two writes, and an update may replace all of them in one transaction of 100. */
const parentsMax = 20;

function readStored(retriever: StoredRetriever): StoredDefinition {
  return JSON.parse(retriever.definition) as StoredDefinition;
}

/** The checked definition of a stored retriever, ready to be run. */
export function definitionOf(retriever: StoredRetriever): RetrieverDefinition {
  return readStored(retriever).checked;
}

/** By id or name. @throws AppError retriever_not_found */
export async function getRetriever(ctx: NsCtx, idOrName: string): Promise<StoredRetriever> {
  return retrieverStore.get(ctx, idOrName);
}

/** By id or name; undefined if there is none. */
export async function findRetriever(ctx: NsCtx, idOrName: string): Promise<StoredRetriever | undefined> {
  return retrieverStore.find(ctx, idOrName);
}

/** All of the namespace, newest first; their number is bounded by the quota. */
export async function listRetrievers(ctx: NsCtx): Promise<StoredRetriever[]> {
  return retrieverStore.list(ctx);
}

/** The parameters of a stage, if it is a feature_search; they were checked when the definition was made. */
export function searchParametersOf(stage: StageConfig): FeatureSearchParameters | undefined {
  return stage.config.stage_id === 'feature_search'
    ? (stage.config.parameters as FeatureSearchParameters)
    : undefined;
}

/** A definition whose references exist. */
export interface CheckedDefinition {
  /** Collections are named by ids in it. */
  readonly definition: RetrieverDefinition;
  readonly collectionIds: readonly string[];
  /** Collections and plugin versions that must stay while the definition is stored. */
  readonly parents: readonly Parent[];
  readonly warnings: readonly string[];
}

const matchesName = (identifier: string) => (collection: StoredCollection) =>
  collection.id === identifier || collection.name === identifier;

/**
 * Checks that what a definition names is there: collections, plugin versions with their features, and that a search
 * can find something at all.
 *
 * @param collectionsKey how the request spells the list of collections
 * @throws AppError retriever_invalid with every fault
 */
export async function checkDefinition(
  ctx: NsCtx,
  body: { readonly stages: unknown; readonly input_schema?: unknown },
  identifiers: readonly string[],
  collectionsKey: string,
): Promise<CheckedDefinition> {
  const definition = defineRetriever(body);
  const [plugins, all] = await Promise.all([listPlugins(ctx), listCollections(ctx)]);
  const faults: FieldFault[] = [];
  const warnings: string[] = [];
  const parents = new Map<string, Parent>();
  const find = (among: readonly StoredCollection[], identifier: string, at: readonly (string | number)[]) => {
    const found = among.find(matchesName(identifier));
    if (found) {
      parents.set(found.id, { kind: 'COLLECTION', id: found.id });
      return found;
    }
    const elsewhere = all.some(matchesName(identifier));
    const names = among.slice(0, 10).map((collection) => collection.name);
    faults.push({
      type: 'collection_unknown',
      location: ['body', ...at],
      message: elsewhere
        ? `"${identifier}" is not among the collections of this retriever`
        : `there is no collection "${identifier}" in this namespace`,
      ...(names.length > 0 ? { fix: `collections here: ${names.join(', ')}` } : {}),
    });
    return undefined;
  };
  const resolve = (
    among: readonly StoredCollection[],
    list: readonly string[],
    at: readonly (string | number)[],
  ) => {
    const found = list
      .map((identifier, i) => find(among, identifier, [...at, i]))
      .filter((c) => c !== undefined);
    return [...new Map(found.map((collection) => [collection.id, collection])).values()];
  };
  const named = resolve(all, identifiers, [collectionsKey]);
  const scope = identifiers.length > 0 ? named : all;

  const stages = definition.stages.map((stage, stageIndex): StageConfig => {
    const parameters = searchParametersOf(stage);
    if (!parameters) return stage;
    const at = ['stages', stageIndex, 'config', 'parameters'];
    const narrow = (list: readonly string[] | undefined, path: readonly (string | number)[]) =>
      list && resolve(scope, list, [...path, 'collection_identifiers']);
    const ofStage = narrow(parameters.collection_identifiers, at);
    const searches = parameters.searches.map((search, index) => {
      const path = [...at, 'searches', index];
      const ofSearch = narrow(search.collection_identifiers, path);
      const readable = ofSearch ?? ofStage ?? scope;
      const fixed = (ofSearch ?? ofStage) !== undefined || identifiers.length > 0;
      const isHeld = readable.some((collection) => featureOf(collection, search.feature_uri));
      // Collections hold on to their plugins, and an upgrade may let the version go that a search names.
      const plugin =
        isHeld && fixed
          ? undefined
          : checkFeature(search.feature_uri, plugins, [...path, 'feature_uri'], isHeld ? [] : faults);
      if (plugin) parents.set(plugin.id, { kind: 'PLUGIN', id: plugin.id });
      if (plugin && readable.length > 0 && !isHeld) {
        const holding = all.filter((collection) => featureOf(collection, search.feature_uri));
        // A collection gets no other features than those of its extractors, so this search could never find anything.
        if (fixed) {
          faults.push({
            type: 'feature_not_held',
            location: ['body', ...path, 'feature_uri'],
            message: `none of the collections that this search reads holds ${search.feature_uri}`,
            fix:
              holding.length > 0
                ? `collections that hold it: ${holding.map((c) => c.name).join(', ')}`
                : 'make a collection with this extractor',
          });
        }
      }
      return ofSearch
        ? { ...search, collection_identifiers: ofSearch.map((collection) => collection.id) }
        : search;
    });
    const narrowed = ofStage ? { collection_identifiers: ofStage.map((collection) => collection.id) } : {};
    return { ...stage, config: { ...stage.config, parameters: { ...parameters, searches, ...narrowed } } };
  });
  if (parents.size > parentsMax) {
    faults.push({
      type: 'references_too_many',
      location: ['body', 'stages'],
      message: `the retriever names ${parents.size} collections and plugin versions; at most ${parentsMax} are possible`,
    });
  }
  if (faults.length > 0) throw invalid('retriever_invalid', faults);
  for (const uri of definition.feature_uris) {
    if (scope.some((collection) => featureOf(collection, uri))) continue;
    warnings.push(`No collection holds ${uri} yet; until one does, a run finds nothing.`);
  }
  return {
    definition: { ...definition, stages },
    collectionIds: named.map((collection) => collection.id),
    parents: [...parents.values()],
    warnings,
  };
}

/** The plugin version behind a feature URI; a fault that lists the features that exist if there is none. */
function checkFeature(
  uri: string,
  plugins: readonly StoredPlugin[],
  at: readonly (string | number)[],
  faults: FieldFault[],
): StoredPlugin | undefined {
  const { uri: parts } = parseFeatureUri(uri);
  if (!parts) throw new Error(`the checked definition holds the feature URI ${uri}`);
  const id = pluginId(parts.extractor_name, parts.version);
  const plugin = plugins.find((candidate) => candidate.id === id);
  if (plugin?.features.some((feature) => feature.feature_name === parts.feature_name)) return plugin;
  const related = plugins.filter((candidate) => candidate.plugin_name === parts.extractor_name);
  const offered = (related.length > 0 ? related : plugins).flatMap((candidate) =>
    candidate.features.map((feature) => featureUri(candidate, feature.feature_name)),
  );
  faults.push({
    type: 'feature_unknown',
    location: ['body', ...at],
    message: plugin
      ? `${parts.extractor_name} ${parts.version} has no feature "${parts.feature_name}"`
      : `there is no plugin ${parts.extractor_name} with version ${parts.version} in this namespace`,
    fix:
      offered.length > 0
        ? `features here: ${offered.slice(0, 10).join(', ')}`
        : 'upload the plugin first, by POST .../plugins/uploads',
  });
  return undefined;
}

function storedText(definition: RetrieverDefinition, declared: unknown): string {
  const text = JSON.stringify({
    checked: definition,
    declared_inputs: declared ?? {},
  } satisfies StoredDefinition);
  const bytes = Buffer.byteLength(text);
  if (bytes > definitionBytesMax) {
    throw invalid('retriever_invalid', [
      {
        type: 'definition_too_large',
        location: ['body', 'stages'],
        message: `the definition has ${bytes} bytes; at most ${definitionBytesMax} are possible`,
        fix: 'give long vectors and texts as inputs of the run',
      },
    ]);
  }
  return text;
}

/** @throws AppError retriever_name_taken, retriever_invalid, quota_exceeded */
export async function createRetriever(
  ctx: NsCtx,
  body: z.output<typeof CreateRetrieverBody>,
): Promise<StoredRetriever> {
  const checked = await checkDefinition(ctx, body, body.collections, body.collections_key);
  ctx.warnings.push(...checked.warnings);
  return retrieverStore.create(ctx, {
    id: newId('retriever', ctx.ports.clock, ctx.ports.random),
    name: body.name,
    parents: checked.parents,
    description: body.description ?? null,
    collection_ids: checked.collectionIds,
    definition: storedText(checked.definition, body.input_schema),
    budget_limits: (body.budget_limits ?? {}) as StoredRetriever['budget_limits'],
    tags: body.tags ?? [],
    display_config: (body.display_config ?? null) as StoredRetriever['display_config'],
    metadata: (body.metadata ?? {}) as StoredRetriever['metadata'],
  });
}

/** @throws AppError retriever_not_found, retriever_name_taken, retriever_invalid, retriever_changed, request_stale */
export async function updateRetriever(
  ctx: NsCtx,
  idOrName: string,
  body: z.output<typeof UpdateRetrieverBody>,
  ifMatch?: number,
): Promise<StoredRetriever> {
  const before = await retrieverStore.get(ctx, idOrName);
  checkVersion(ifMatch, before.revision);
  let changes: Partial<StoredRetriever> = {};
  if (body.stages !== undefined || body.input_schema !== undefined || body.collections !== undefined) {
    const stored = readStored(before);
    const declared = body.input_schema === undefined ? stored.declared_inputs : body.input_schema;
    const checked = await checkDefinition(
      ctx,
      { stages: body.stages ?? stored.checked.stages, input_schema: declared },
      body.collections ?? before.collection_ids,
      body.collections_key,
    );
    ctx.warnings.push(...checked.warnings);
    changes = {
      collection_ids: checked.collectionIds,
      parents: checked.parents,
      definition: storedText(checked.definition, declared),
    };
  }
  return retrieverStore.update(ctx, before, {
    ...changes,
    ...(body.name === undefined ? {} : { name: body.name }),
    ...(body.description === undefined ? {} : { description: body.description }),
    ...(body.budget_limits === undefined
      ? {}
      : { budget_limits: (body.budget_limits ?? {}) as StoredRetriever['budget_limits'] }),
    ...(body.tags === undefined ? {} : { tags: body.tags ?? [] }),
    ...(body.display_config === undefined
      ? {}
      : { display_config: body.display_config as StoredRetriever['display_config'] }),
    ...(body.metadata === undefined
      ? {}
      : { metadata: (body.metadata ?? {}) as StoredRetriever['metadata'] }),
  });
}

/** @throws AppError retriever_not_found, retriever_in_use with the dependants, retriever_changed, request_stale */
export async function deleteRetriever(
  ctx: NsCtx,
  idOrName: string,
  ifMatch?: number,
): Promise<StoredRetriever> {
  const retriever = await retrieverStore.get(ctx, idOrName);
  checkVersion(ifMatch, retriever.revision);
  await retrieverStore.remove(ctx, retriever);
  return retriever;
}
