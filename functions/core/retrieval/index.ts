// The retrieval engine's face: define a retriever, read a request, run, plan, search for many inputs at once.
export {
  defineRetriever,
  type RetrieverDefinition,
  readDefinition,
  type StageConfig,
  stagesMax,
} from './definition.ts';
export { type ExecuteRequest, normaliseExecuteBody } from './execute-body.ts';
export { explainRetriever, type Plan, type StagePlan } from './explain.ts';
export type { Fault } from './faults.ts';
export { type FeatureUri, featureUriForm, formatFeatureUri, parseFeatureUri } from './feature-uri.ts';
export { type FusionMethod, fuse, fusionMethods, type ScoredId } from './fusion.ts';
export type { InputField, InputSchema } from './inputs.ts';
export { compareByKeys, compareFieldValues, type Sortable } from './order.ts';
export type { PageInfo, PageTokens, Pagination } from './pagination.ts';
export type {
  ContentFault,
  Degradation,
  DocumentOptions,
  DocumentRef,
  EnrichedDocument,
  EnrichRequest,
  Facet,
  FacetField,
  FacetReply,
  FacetRequest,
  FacetScope,
  ListReply,
  ListRequest,
  QueryContent,
  ResolvedFeature,
  RetrievedDocument,
  SearchPort,
  SearchReply,
  SearchRequest,
  SortKey,
} from './ports.ts';
export {
  type CountedFacet,
  type HitDocument,
  type RunRequest,
  type RunResult,
  runRetriever,
  runTimeMsMax,
  type StageEvent,
  type StageStatistics,
} from './run.ts';
export { type SearchManyRequest, type SearchManyResult, searchMany, singleSearchOf } from './search-many.ts';
export type { FeatureSearch, FeatureSearchParameters, SearchOutcome } from './stages/feature-search.ts';
export { type StageDefinition, stageDefinitions, stageIds } from './stages/index.ts';
