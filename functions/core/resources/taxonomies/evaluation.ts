// Measures a taxonomy on labelled examples: classifies them with thresholds set aside, and judges what comes out.
import type * as z from 'zod';
import { canonicalField } from '../../conditions/index.ts';
import type { NsCtx } from '../../context.ts';
import { invalid } from '../../errors.ts';
import { parseFilters } from '../../page.ts';
import { documentsSnapshot } from '../../store/vector-index.ts';
import { listRows } from '../../vectors/list-rows.ts';
import { getCollection } from '../collections/service.ts';
import type { Json, JsonObject } from '../documents/service.ts';
import { getDocuments, userFields } from '../documents/service.ts';
import { openClassifier } from './classify.ts';
import type { EvaluateTaxonomyBody } from './contract.ts';
import type { EvaluationResult, Judged, Point } from './evaluate.ts';
import { judge, pointAt } from './evaluate.ts';
import type { Placement } from './placement.ts';
import { getTaxonomy, targetsOf, versionFor, versionOf } from './service.ts';
import type { StoredTaxonomy, TaxonomyConfig } from './store.ts';
import type { Subject } from './subjects.ts';
import { readField } from './subjects.ts';

const evaluationMsMax = 25_000;

export interface TaxonomyEvaluation extends EvaluationResult {
  readonly taxonomy: StoredTaxonomy;
  readonly version: number;
  readonly target: string;
  readonly evaluated: number;
  readonly errors: number;
  readonly at_threshold: Point;
}

type Body = z.output<typeof EvaluateTaxonomyBody>;

interface Examples {
  readonly subjects: readonly Subject[];
  readonly expected: readonly (string | null)[];
}

const labelOf = (value: Json | undefined): string | null =>
  value === undefined || value === null || value === ''
    ? null
    : typeof value === 'string'
      ? value
      : JSON.stringify(value);

async function examplesOf(ctx: NsCtx, body: Body): Promise<Examples> {
  if (body.documents) {
    return {
      subjects: body.documents.map(({ fields, inputs }) =>
        inputs ? { inputs: inputs as JsonObject } : { fields: userFields(fields ?? {}) as JsonObject },
      ),
      expected: body.documents.map(({ expected }) => labelOf(expected)),
    };
  }
  const collection = await getCollection(ctx, body.collection_id!);
  const filter = parseFilters(body.filters, false);
  const snapshot = await documentsSnapshot(ctx, collection.id);
  const ids = snapshot ? listRows(snapshot, { filter, idOrder: 'asc', limit: body.limit }) : [];
  const found = await getDocuments(
    ctx,
    ids.map((document_id) => ({ collection_id: collection.id, document_id })),
  );
  const documents = found.filter((document) => document !== undefined);
  return {
    subjects: documents,
    expected: documents.map(({ fields }) => labelOf(readField(fields, body.label_field!))),
  };
}

/** The threshold that an assignment to this target is held against now; of paths that of the first level. */
function thresholdOf(config: TaxonomyConfig, target: string): number | null {
  const node = config.nodes?.find(({ enrichment_fields }) =>
    enrichment_fields.some(({ target_field }) => canonicalField(target_field) === target),
  );
  if (node) return node.threshold;
  const level = config.path?.level_fields.indexOf(target) ?? -1;
  const { level_thresholds = [] } = config.path ?? {};
  return level_thresholds[Math.max(0, Math.min(level, level_thresholds.length - 1))] ?? config.threshold;
}

/** What a placement says about one target, and how near that was. */
function predictionOf(placement: Placement, target: string): Pick<Judged, 'predicted' | 'score'> {
  const own = placement.assignments.find(({ values }) => values.has(target));
  const predicted = own ? labelOf(own.values.get(target)!.value) : null;
  return predicted === null ? { predicted: null, score: null } : { predicted, score: own!.score };
}

/** Examples that can say nothing, mostly because of a misspelt field or value: the figures alone do not show it. */
function doubts(
  body: Body,
  expected: readonly (string | null)[],
  placements: readonly Placement[],
  target: string,
): string[] {
  if (expected.length === 0) return ['There are no examples, so there is nothing to measure.'];
  const wanted = new Set(expected.filter((value) => value !== null));
  if (wanted.size === 0) {
    return [
      body.documents
        ? 'No example has an expected value, so all of them count as out of scope and nothing can be right.'
        : `No document that was looked at has the field ${JSON.stringify(body.label_field)}, so all of them count as out of scope and nothing can be right.`,
    ];
  }
  const seen = new Set(placements.map((placement) => predictionOf(placement, target).predicted));
  return [...wanted].some((value) => seen.has(value)) || !placements.some((one) => one.assignments.length > 0)
    ? []
    : [
        `None of the expected values is one that was predicted as ${JSON.stringify(target)}; are they spelt as the references spell them?`,
      ];
}

/**
 * @throws AppError taxonomy_not_found, taxonomy_version_not_found, taxonomy_invalid, collection_not_found,
 *   request_invalid, and what a search throws
 */
export async function evaluateTaxonomy(
  ctx: NsCtx,
  idOrName: string,
  body: Body,
  version: number | undefined,
): Promise<TaxonomyEvaluation> {
  const deadlineMs = ctx.ports.clock.now() + evaluationMsMax;
  const taxonomy = await getTaxonomy(ctx, idOrName);
  const chosen = await versionFor(ctx, taxonomy, version);
  const config = chosen?.config ?? taxonomy.config;
  const targets = targetsOf(config);
  const target = body.target == null ? targets[0]! : canonicalField(body.target);
  if (!targets.includes(target)) {
    throw invalid('request_invalid', [
      {
        type: 'target_unknown',
        location: ['body', 'target'],
        message: `the taxonomy does not write "${target.slice(0, 100)}"`,
        fix: `its targets: ${targets.join(', ')}`,
      },
    ]);
  }
  const { subjects, expected } = await examplesOf(ctx, body);
  const classifier = await openClassifier(ctx, taxonomy, { version: chosen, evaluating: true });
  const { placements, failed, warnings } = await classifier.classify(subjects, deadlineMs);
  ctx.warnings.push(...warnings);
  ctx.warnings.push(...doubts(body, expected, placements, target));
  const judged = placements.map(
    (placement, i): Judged => ({
      expected: expected[i]!,
      ...predictionOf(placement, target),
    }),
  );
  const result = judge(judged, {
    objective: body.objective ?? undefined,
    targetPrecision: body.target_precision ?? undefined,
  });
  return {
    ...result,
    taxonomy,
    version: chosen?.number ?? versionOf(taxonomy),
    target,
    evaluated: judged.length,
    errors: failed,
    at_threshold: pointAt(judged, thresholdOf(config, target)),
  };
}
