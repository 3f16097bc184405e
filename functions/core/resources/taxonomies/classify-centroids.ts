// Classifies by nearest centroids: a stored document by the vector that it has, anything else by its text.

import { canonicalField } from '../../conditions/index.ts';
import type { NsCtx } from '../../context.ts';
import { invalid } from '../../errors.ts';
import { reading } from '../../store/vector-index.ts';
import { vectorsAt } from '../../vectors/read-vectors.ts';
import { featureOf, findCollection } from '../collections/service.ts';
import type { Json } from '../documents/service.ts';
import type { RunReads } from '../retrievers/service.ts';
import { embedFault, IndexSearchPort } from '../retrievers/service.ts';
import type { CentroidStep } from './centroids.ts';
import { CentroidMatcher, nodeFields, readNodes } from './centroids.ts';
import type { Assignment, Search, Taken } from './placement.ts';
import type { CentroidSource, TaxonomyConfig } from './store.ts';
import type { Subject } from './subjects.ts';
import { clip, readField } from './subjects.ts';
import { round } from './vote.ts';

/** @throws AppError taxonomy_invalid: the collection does not hold the feature any more */
export async function openCentroids(
  ctx: NsCtx,
  config: TaxonomyConfig,
  source: CentroidSource,
  reads: RunReads,
): Promise<Search> {
  const nodes = await readNodes(ctx, source);
  const matcher = new CentroidMatcher(nodes, source.metric, source.dims);
  const embedder = await findCollection(ctx, config.source_collection.collection_id);
  const feature = embedder && featureOf(embedder, source.feature_uri);
  if (!feature || feature.dims !== source.dims) {
    throw invalid('taxonomy_invalid', [
      {
        type: 'feature_unknown',
        location: ['config', 'source_collection', 'collection_id'],
        message: `the collection has no vectors of ${source.feature_uri} with ${source.dims} numbers, which the centroids are made of`,
        fix: 'copy the clusters again, by cluster_ids',
      },
    ]);
  }

  const warnings =
    feature.feature_uri === source.feature_uri
      ? []
      : [
          `The collection makes ${feature.feature_uri} by now, and the centroids are of ${source.feature_uri}. Cluster again and copy the clusters by cluster_ids.`,
        ];

  /** Vectors of stored documents, by subject. */
  const storedVectors = async (subjects: readonly Subject[], found: (Float32Array | undefined)[]) => {
    const places = Map.groupBy(subjects.keys(), (i) =>
      subjects[i]!.document_id === undefined ? undefined : subjects[i]!.collection_id,
    );
    for (const [collectionId, indices] of places) {
      if (collectionId === undefined) continue;
      const collection = await findCollection(ctx, collectionId);
      const own = collection && featureOf(collection, source.feature_uri);
      if (own?.feature_uri !== feature.feature_uri) continue;
      const snapshot = await reads.snapshot(collectionId, own.feature_uri);
      if (!snapshot) continue;
      const vectors = await reading(() =>
        vectorsAt(
          snapshot,
          indices.map((i) => subjects[i]!.document_id!),
        ),
      );
      for (const [n, i] of indices.entries()) found[i] = vectors[n];
    }
  };

  return async (subjects, deadlineMs) => {
    const vectors: (Float32Array | undefined)[] = subjects.map(({ inputs }) => vectorIn(inputs, source.dims));
    await storedVectors(subjects, vectors);
    const texts = new Map<string, number[]>();
    let lacks = false;
    for (const [i, subject] of subjects.entries()) {
      if (vectors[i]) continue;
      const text = textOf(subject, config);
      if (text === undefined) {
        lacks = true;
        continue;
      }
      const list = texts.get(text);
      if (list) list.push(i);
      else texts.set(text, [i]);
    }
    let failed = 0;
    if (texts.size > 0) {
      const port = new IndexSearchPort(ctx, {
        collections: [embedder],
        reads,
        onTextFailure: (failure, pluginId) => {
          if (failure.retryable) throw embedFault(pluginId, failure);
          failed += 1;
        },
      });
      await port.resolveFeature(source.feature_uri);
      const embedded = await port.embed(source.feature_uri, [...texts.keys()], deadlineMs);
      for (const [n, list] of [...texts.values()].entries()) for (const i of list) vectors[i] = embedded[n];
    }
    const assignments = vectors.map((vector) =>
      vector ? matcher.match(vector, config.threshold).map((step) => toAssignment(step, config)) : [],
    );
    // Only the deepest node's fields are taken over; labels of every level have targets of their own.
    return {
      assignments: assignments.map((list) => withDeepestFields(list, config)),
      failed,
      warnings: lacks ? [...warnings, lackOf(config)] : warnings,
    };
  };
}

function lackOf({ input_mappings: [mapping] }: TaxonomyConfig): string {
  const text = mapping?.path ? `a text in "${mapping.path}"` : 'an input mapping to "text"';
  return `Nothing could be compared for documents with neither a vector of the feature nor ${text}.`;
}

function vectorIn(inputs: Subject['inputs'], dims: number): Float32Array | undefined {
  const given = inputs?.vector;
  const isVector =
    Array.isArray(given) && given.length === dims && given.every((value) => typeof value === 'number');
  return isVector ? Float32Array.from(given as number[]) : undefined;
}

function textOf({ inputs, fields }: Subject, { input_mappings }: TaxonomyConfig): string | undefined {
  const [mapping] = input_mappings;
  const value =
    inputs?.text ??
    (mapping && (mapping.path === null ? mapping.override : readField(fields ?? {}, mapping.path)));
  return typeof value === 'string' && value.trim() !== '' ? clip(value) : undefined;
}

interface Step {
  readonly step: CentroidStep;
  readonly assignment: Assignment;
}

function toAssignment(step: CentroidStep, config: TaxonomyConfig): Step {
  const { node, score, second, accepted } = step;
  const target = config.centroids!.level_fields[node.level - 1];
  const values = new Map<string, Taken>();
  if (accepted && target !== undefined) values.set(target, { value: node.label, merge: 'replace' });
  return {
    step,
    assignment: {
      node_id: node.node_id,
      label: node.label,
      level: node.level,
      document_id: node.node_id,
      collection_id: null,
      score,
      value: node.label,
      accepted,
      runner_up: second
        ? { document_id: second.node.node_id, value: second.node.label, score: second.score }
        : null,
      margin: second ? round(score - second.score) : null,
      votes: { winner: 1, total: 1, share: 1 },
      values,
    },
  };
}

function withDeepestFields(steps: readonly Step[], config: TaxonomyConfig): Assignment[] {
  const deepest = steps.findLast(({ assignment }) => assignment.accepted);
  return steps.map((one) => {
    if (one !== deepest) return one.assignment;
    const fields: Readonly<Record<string, Json>> = nodeFields(one.step.node);
    const values = new Map(one.assignment.values);
    for (const { field_path, target_field, merge_mode } of config.enrichment_fields) {
      const value = fields[canonicalField(field_path)];
      if (value !== undefined && value !== null)
        values.set(canonicalField(target_field), { value, merge: merge_mode });
    }
    return { ...one.assignment, values };
  });
}
