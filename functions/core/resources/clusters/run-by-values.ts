// A run that groups documents by the values of fields: the columns are read twice, and only the groups are held.
import { canonicalField } from '../../conditions/index.ts';
import type { NsCtx } from '../../context.ts';
import { reading } from '../../store/vector-index.ts';
import { rowsOf } from '../../vectors/bits.ts';
import { selectRows } from '../../vectors/select-rows.ts';
import type { Json } from '../documents/service.ts';
import type { OpenPlan, PlanCollection } from './plan-input.ts';
import { idHash, openPlan } from './plan-input.ts';
import type { ResultDocument, ResultGroup, ResultGroups } from './results.ts';
import { eachDocument, noise, readGroups, writeDocuments, writeGroups } from './results.ts';
import { sizeMetrics } from './size-metrics.ts';
import type { StoredRun } from './store.ts';
import type { OldGroup, Overlap, ValueGroup } from './value-groups.ts';
import { keepIds, numberOf, ValueGroups, valueLabels, valueSummary } from './value-groups.ts';

/** What a run by values found, as its row says it. */
export interface ValueRun {
  readonly groups: ResultGroups;
  readonly metrics: ReturnType<typeof sizeMetrics>;
  readonly message: string;
  readonly num_points: number;
}

/** The documents that a plan is about, those of a sample alone if there is one. */
function* chosenRows(
  { filter }: OpenPlan,
  { documents }: PlanCollection,
  isChosen: (id: string) => boolean,
): Generator<{ readonly id: string; readonly row: number }> {
  if (!documents) return;
  for (const [i, bits] of selectRows(documents, filter).entries()) {
    const { segment, firstRow } = documents.parts[i]!;
    for (const local of rowsOf(bits)) {
      const id = segment.id(local);
      if (isChosen(id)) yield { id, row: firstRow + local };
    }
  }
}

/** How many documents a plan is about in one collection. */
export function countRows(plan: OpenPlan, collection: PlanCollection): number {
  let count = 0;
  for (const _ of chosenRows(plan, collection, () => true)) count += 1;
  return count;
}

/** Those whose ids hash lowest, so that a sample is the same each time; all if they are not too many. */
function sampleOf(plan: OpenPlan, max: number | null): (id: string) => boolean {
  if (max === null) return () => true;
  const hashes: number[] = [];
  for (const collection of plan.collections)
    for (const { id } of chosenRows(plan, collection, () => true)) hashes.push(idHash(id));
  if (hashes.length <= max) return () => true;
  const limit = Float64Array.from(hashes).sort()[max - 1]!;
  return (id) => idHash(id) <= limit;
}

/**
 * Groups the documents of a run at the versions that it was prepared with, and writes its result.
 *
 * @param previousId the run whose ids are kept
 * @throws AppError cluster_too_many_groups, index_version_gone, index_unavailable
 */
export async function runByValues(
  ctx: NsCtx,
  run: StoredRun,
  previousId: string | undefined,
): Promise<ValueRun> {
  const { plan } = run;
  const open = await openPlan(ctx, plan, run.input!.ranges);
  const isChosen = sampleOf(open, plan.sample_size);
  const fields = plan.attributes.map(canonicalField);
  const found = new ValueGroups({
    attributes: plan.attributes,
    hierarchical: plan.hierarchical_grouping,
    missing: plan.missing_values,
  });
  const representatives = new Representatives(plan.llm_labeling.max_samples_per_cluster);
  // The place of each document's group, in the order in which documents are read.
  const places: Int32Array[] = [];
  let total = 0;
  for (const collection of open.collections) {
    const own: number[] = [];
    await reading(async () => {
      for (const { id, row } of chosenRows(open, collection, isChosen)) {
        const place = found.add(fields.map((field) => collection.documents!.valueAt(row, field)));
        own.push(place);
        representatives.see(found.groups, place, id);
      }
    });
    total += own.length;
    places.push(Int32Array.from(own));
  }
  const ids = await namesOf(ctx, open, plan.attributes, isChosen, found.groups, places, previousId);
  const { groups } = found;
  async function* documents(): AsyncGenerator<ResultDocument> {
    for (const [c, collection] of open.collections.entries()) {
      let n = 0;
      for (const { id } of chosenRows(open, collection, isChosen)) {
        const place = places[c]![n++]!;
        yield {
          document_id: id,
          collection_id: collection.collection.id,
          cluster_id: place < 0 ? noise : ids.ids[place]!,
          probability: place < 0 ? 0 : 1,
        };
      }
    }
  }
  await writeDocuments(ctx, run.run_id, documents());
  const labels = valueLabels(groups, plan.attributes);
  const shown = groups.map(
    (group, i): ResultGroup => ({
      cluster_id: ids.ids[i]!,
      num_members: group.members,
      label: labels[i]!,
      label_source: 'values',
      summary: plan.llm_labeling.include_summary ? valueSummary(group, plan.attributes, total) : null,
      keywords: plan.llm_labeling.include_keywords
        ? group.values.flatMap((value) => (value === null ? [] : [String(value).slice(0, 100)]))
        : [],
      representative_ids: representatives.of(i),
      centroid_vector: [],
      attributes: Object.fromEntries(group.values.map((value, at) => [plan.attributes[at]!, value])),
      ...(plan.hierarchical_grouping
        ? {
            level: group.level,
            parent_cluster_id: group.parent === undefined ? null : ids.ids[group.parent]!,
          }
        : {}),
    }),
  );
  shown.sort(
    (a, b) =>
      (a.level ?? 0) - (b.level ?? 0) ||
      b.num_members - a.num_members ||
      numberOf(a.cluster_id) - numberOf(b.cluster_id),
  );
  const loose = plan.missing_values === 'skip' ? found.missing : 0;
  const result: ResultGroups = {
    groups: shown,
    noise_members: loose,
    method: 'none',
    n_components: plan.vis_n_components,
    next_number: ids.nextNumber,
  };
  await writeGroups(ctx, run.run_id, result);
  const isParent = new Set(groups.map(({ parent }) => parent));
  const leaves = groups.filter((_, i) => !isParent.has(i));
  return {
    groups: result,
    metrics: sizeMetrics(
      leaves.map((group) => group.members),
      loose,
    ),
    message: messageOf(run, total, groups, leaves.length, found.missing),
    num_points: total,
  };
}

const counted = (count: number, noun: string) => `${count} ${noun}${count === 1 ? '' : 's'}`;

function messageOf(
  { plan }: StoredRun,
  total: number,
  groups: readonly ValueGroup[],
  leaves: number,
  missing: number,
): string {
  const parents = groups.length - leaves;
  const names = plan.attributes.join(', ');
  const sentences = [
    `Found ${counted(leaves, 'group')} by ${names} in ${counted(total, 'document')}${parents > 0 ? `, under ${counted(parents, 'parent')}` : ''}.`,
  ];
  if (missing > 0) {
    const lack = missing === 1 ? '1 document lacks' : `${missing} documents lack`;
    sentences.push(
      plan.missing_values === 'skip'
        ? `${lack} a value and ${missing === 1 ? 'belongs' : 'belong'} to none.`
        : `${lack} a value, which counts as a value of its own.`,
    );
  }
  sentences.push('Groups by values have no map.');
  return sentences.join(' ');
}

/** The ids of the groups: those of the run before where they are the same. */
async function namesOf(
  ctx: NsCtx,
  open: OpenPlan,
  attributes: readonly string[],
  isChosen: (id: string) => boolean,
  groups: readonly ValueGroup[],
  places: readonly Int32Array[],
  previousId: string | undefined,
): Promise<{ readonly ids: string[]; readonly nextNumber: number }> {
  const inOrder = bySize(groups);
  const before = previousId === undefined ? undefined : await readGroups(ctx, previousId);
  const old = (before?.groups ?? []).flatMap((group): OldGroup[] =>
    group.attributes
      ? [
          {
            cluster_id: group.cluster_id,
            key: keyOf(Object.entries(group.attributes)),
            parent_id: group.parent_cluster_id ?? undefined,
          },
        ]
      : [],
  );
  const next = before?.next_number ?? 1 + Math.max(-1, ...old.map((group) => numberOf(group.cluster_id)));
  // Numbers are given from the largest group down, so the groups are looked at in that order.
  const placeAt = new Map(inOrder.map((place, i) => [place, i]));
  const ordered = inOrder.map((place) => {
    const { parent, ...group } = groups[place]!;
    return {
      ...group,
      key: keyOf(group.values.map((value, i) => [attributes[i]!, value])),
      parent: parent === undefined ? undefined : placeAt.get(parent)!,
    };
  });
  const kept = await keepIds(ordered, old, next, (wanted, free) =>
    overlapOf(ctx, open, isChosen, places, placeAt, previousId!, wanted, free),
  );
  return { ids: groups.map((_, place) => kept.ids[placeAt.get(place)!]!), nextNumber: kept.nextNumber };
}

/** Equal for equal values of the same fields, whatever the order of the fields. */
const keyOf = (values: readonly (readonly [string, Json])[]) =>
  JSON.stringify([...values].sort(([a], [b]) => (a < b ? -1 : 1)));

function bySize(groups: readonly ValueGroup[]): number[] {
  return groups
    .map((_, i) => i)
    .sort(
      (a, b) =>
        groups[a]!.level - groups[b]!.level ||
        groups[b]!.members - groups[a]!.members ||
        (groups[a]!.key < groups[b]!.key ? -1 : 1),
    );
}

/** Reads the documents of the run before, and counts those that are in a wanted group now. */
async function overlapOf(
  ctx: NsCtx,
  open: OpenPlan,
  isChosen: (id: string) => boolean,
  places: readonly Int32Array[],
  placeAt: ReadonlyMap<number, number>,
  previousId: string,
  wanted: ReadonlySet<number>,
  free: ReadonlySet<string>,
): Promise<Overlap> {
  const now = new Map<string, number>();
  for (const [c, collection] of open.collections.entries()) {
    let n = 0;
    for (const { id } of chosenRows(open, collection, isChosen)) {
      const place = places[c]![n++]!;
      now.set(id, place < 0 ? -1 : placeAt.get(place)!);
    }
  }
  const shared = new Map<number, Map<string, number>>();
  const oldSizes = new Map<string, number>();
  for await (const documents of eachDocument(ctx, previousId)) {
    for (const { document_id, cluster_id } of documents) {
      const place = now.get(document_id);
      // Documents that are gone cannot be shared.
      if (place === undefined || !free.has(cluster_id)) continue;
      oldSizes.set(cluster_id, (oldSizes.get(cluster_id) ?? 0) + 1);
      if (!wanted.has(place)) continue;
      const counts = shared.get(place) ?? new Map<string, number>();
      shared.set(place, counts.set(cluster_id, (counts.get(cluster_id) ?? 0) + 1));
    }
  }
  return { shared, oldSizes };
}

/** Some documents of each group, the same ones each time: those whose ids hash lowest. */
class Representatives {
  readonly #max: number;
  readonly #byGroup = new Map<number, { readonly id: string; readonly hash: number }[]>();

  constructor(max: number) {
    this.#max = max;
  }

  see(groups: readonly ValueGroup[], place: number, id: string): void {
    const hash = idHash(id);
    for (let at: number | undefined = place; at !== undefined && at >= 0; at = groups[at]!.parent) {
      const own = this.#byGroup.get(at) ?? [];
      this.#byGroup.set(at, own);
      if (own.length >= this.#max && hash > own.at(-1)!.hash) continue;
      own.push({ id, hash });
      own.sort((a, b) => a.hash - b.hash || (a.id < b.id ? -1 : 1));
      if (own.length > this.#max) own.pop();
    }
  }

  of(place: number): string[] {
    return (this.#byGroup.get(place) ?? []).map(({ id }) => id);
  }
}
