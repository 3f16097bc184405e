// A collection in memory, with one feature: commits, lost races and compactions as the index makes them, without tables.
import fc from 'fast-check';
import { foldDeltas } from '../../../functions/core/store/fold-deltas.ts';
import { type Bits, countBits, hasBit } from '../../../functions/core/vectors/bits.ts';
import { type ColumnPatch, flattenColumns } from '../../../functions/core/vectors/columns.ts';
import { compactRows } from '../../../functions/core/vectors/compact.ts';
import {
  type CompactionRules,
  planCompaction,
  segmentStates,
} from '../../../functions/core/vectors/compaction-plan.ts';
import { type DeadRowsRef, encodeDeadRows, openDeadRows } from '../../../functions/core/vectors/dead-rows.ts';
import { type EncodedSegment, encodeSegment } from '../../../functions/core/vectors/encode-segment.ts';
import { VectorError } from '../../../functions/core/vectors/errors.ts';
import { deadRowsOf, foldPatches } from '../../../functions/core/vectors/kept-segments.ts';
import {
  type Addition,
  appendSegments,
  applyCompaction,
  type Compaction,
  decodeManifest,
  emptyManifest,
  encodeManifest,
  type FeatureManifest,
  type Manifest,
  type SegmentRef,
  type StoredSegment,
} from '../../../functions/core/vectors/manifest.ts';
import {
  openSegment,
  openStoredSegment,
  type Segment,
} from '../../../functions/core/vectors/open-segment.ts';
import type { VectorStorage } from '../../../functions/core/vectors/segment-format.ts';
import { openSnapshot, type Snapshot } from '../../../functions/core/vectors/snapshot.ts';
import type { Metric } from '../../../functions/core/vectors/vector.ts';
import { makeVectorMemory, type VectorMemory } from '../../../functions/core/vectors/vector-memory.ts';

const uri = 'mixpeek://ngram_embed@1.0.0/ngram';

/**
 * Room for a segment or two, so that most are pushed out between two uses; and no row is spared the kernel.
 */
export const memory: VectorMemory = { ...makeVectorMemory(65_536), rowsWithoutScan: 0 };

/** One row as it is written. */
export interface Row {
  readonly id: string;
  readonly vector: ArrayLike<number>;
  readonly fields: Record<string, unknown>;
}

/** One commit. Within it deletions come before rows. */
export type Change =
  | { readonly kind: 'upsert'; readonly rows: readonly (readonly Row[])[] }
  | { readonly kind: 'delete'; readonly ids: readonly string[] }
  | { readonly kind: 'replace'; readonly deleted: readonly string[]; readonly rows: readonly Row[] }
  | { readonly kind: 'patch'; readonly rows: readonly Patch[] }
  /** So many patches, each in a segment of its own, that the next commit merges them first. */
  | { readonly kind: 'storm'; readonly rows: readonly Patch[] };

interface Patch {
  readonly id: string;
  readonly columns: ColumnPatch;
}

/** Which data segments a compaction rewrites; the others get dead-row lists and one segment of folded patches. */
export type Choice =
  | { readonly by: 'plan'; readonly rules: CompactionRules }
  /** By place among the data segments, again from the start where there are more of them. */
  | { readonly by: 'place'; readonly rewritten: readonly boolean[]; readonly segmentBytesTarget: number };

/** What others do between the reading of a compaction and its commit: a change, or a compaction of their own. */
export type Meanwhile = Change | { readonly kind: 'rival'; readonly choice: Choice };

export interface CompactStep {
  readonly choice: Choice;
  readonly meanwhile: readonly Meanwhile[];
}

/** Limits around the size of segments of a few rows, which is 3 to 5 kB, so that plans differ. */
const rules: fc.Arbitrary<CompactionRules> = fc.record({
  deltaBytesMax: fc.constantFrom(0, 5_000, 1_000_000),
  looseSegmentsMax: fc.integer({ min: 0, max: 3 }),
  looseSegmentsKept: fc.integer({ min: 0, max: 3 }),
  deadShareMax: fc.constantFrom(0, 0.05, 0.3, 1),
  deadBytesMin: fc.constantFrom(0, 1_000),
  segmentBytesTarget: fc.constantFrom(1, 2_000, 6_000, 100_000, 1_000_000),
  inputBytesMax: fc.constantFrom(1, 12_000, 300_000, 10_000_000),
});

export const choice: fc.Arbitrary<Choice> = fc.oneof(
  fc.record({ by: fc.constant('plan' as const), rules }),
  fc.record({
    by: fc.constant('place' as const),
    rewritten: fc.array(fc.boolean(), { minLength: 1, maxLength: 6 }),
    segmentBytesTarget: fc.constantFrom(1, 2_000, 1_000_000),
  }),
);

/** How vectors are written; what is left out is as `encodeSegment` chooses. */
export interface Writing {
  readonly storage?: VectorStorage | undefined;
  readonly codes?: boolean | undefined;
}

/** Keys that a version names anywhere: in use, or waiting to be collected. */
export function keysIn({ features, retired }: Manifest): ReadonlySet<string> {
  const keys = new Set(retired.map(({ key }) => key));
  for (const { segments } of Object.values(features)) {
    for (const { key, dead } of segments) for (const each of [key, dead?.key ?? key]) keys.add(each);
  }
  return keys;
}

export class FeatureStore {
  manifest: Manifest = emptyManifest();
  readonly objects = new Map<string, Uint8Array>();
  readonly dims: number;
  readonly metric: Metric;
  readonly #writing: Writing;
  readonly #memory: VectorMemory;

  /** @param workspace where compactions read vectors */
  constructor(
    dims: number,
    metric: Metric,
    writing: Writing = { storage: 'f32', codes: false },
    workspace: VectorMemory = memory,
  ) {
    this.dims = dims;
    this.metric = metric;
    this.#writing = writing;
    this.#memory = workspace;
  }

  /** The feature of a version, opened. */
  async snapshot(of: Manifest = this.manifest): Promise<Snapshot> {
    return this.#open(this.#featureOf(of));
  }

  /** Commits a change. A lost race: it was first put on top of an older version. */
  async commit(change: Change, lostRace: boolean, writing: Writing = this.#writing): Promise<void> {
    const additions = this.#additionsOf(change, writing);
    if (lostRace) {
      appendSegments(await this.#folded(), additions);
      const rows = [{ id: 'doc_other', vector: [1] }];
      const segment = this.#put(encodeSegment({ kind: 'data', dims: 1, metric: 'dot', rows }));
      const other: Addition = { uri: 'mixpeek://other@1.0.0/f', dims: 1, metric: 'dot', segment };
      this.manifest = appendSegments(this.manifest, [other]);
    }
    this.manifest = appendSegments(await this.#folded(), additions);
  }

  /**
   * Compacts, with commits of others in between.
   *
   * @returns what became of it: there was nothing to do, it was committed, or a rival had replaced what it read
   */
  async compact({ choice: own, meanwhile }: CompactStep): Promise<'nothing' | 'done' | 'stale'> {
    const compaction = await this.#begin(own);
    let isReplaced = false;
    for (const each of meanwhile) {
      // The first try loses its race against each of them; nothing of it may stay.
      if (compaction) this.#tryCompaction(compaction);
      if (each.kind !== 'rival') {
        await this.commit(each, false);
        continue;
      }
      const rival = await this.#begin(each.choice);
      if (rival === undefined) continue;
      this.manifest = applyCompaction(this.manifest, uri, rival, 0);
      isReplaced ||= rival.rewritten.length > 0 || rival.dead.size > 0;
    }
    if (compaction === undefined) return 'nothing';
    const next = this.#tryCompaction(compaction);
    if (next === undefined && !isReplaced)
      throw new Error('A compaction was stale though nobody replaced what it had read.');
    this.manifest = next ?? this.manifest;
    return next ? 'done' : 'stale';
  }

  /**
   * What a version promises to those who open only some of its segments: rows of settled segments that are not listed
   * as dead have ids of their own.
   *
   * @returns ids that break it
   */
  async unsettledIds(of: Manifest): Promise<string[]> {
    const feature = this.#featureOf(of);
    const settled = feature.segments.filter(
      (ref) => ref.kind === 'data' && ref.base_seq + ref.seq_max <= (feature.settled_seq ?? -1),
    );
    const seen = new Set<string>();
    const twice: string[] = [];
    for (const ref of settled) {
      const { parts } = await this.#open({ ...feature, segments: [ref] });
      const { segment } = parts[0]!;
      const dead = this.#deadRows(ref);
      for (let row = 0; row < segment.rows; row += 1) {
        if (dead && hasBit(dead, row)) continue;
        const id = segment.id(row);
        if (seen.has(id)) twice.push(id);
        seen.add(id);
      }
    }
    return twice;
  }

  /** The manifest with many small deltas merged, as every commit starts from. */
  async #folded(): Promise<Manifest> {
    return foldDeltas(this.manifest, {
      load: async ({ key }) => openSegment(this.objects.get(key)!, key),
      put: async (segment) => this.#put(segment),
      nowMs: 0,
    });
  }

  #featureOf(of: Manifest): FeatureManifest {
    const { features } = decodeManifest(encodeManifest(of), 'man/1.json');
    return features[uri] ?? { dims: this.dims, metric: this.metric, segments: [] };
  }

  /** Segments are read as from a bucket: first what is not vectors, then what a search asks for. */
  async #open(feature: FeatureManifest): Promise<Snapshot> {
    const segments = new Map<string, Segment>();
    const dead = new Map<string, Bits>();
    for (const ref of feature.segments) {
      const bytes = this.objects.get(ref.key)!;
      const readInto = async (at: number, target: Uint8Array) => {
        target.set(bytes.subarray(at, at + target.byteLength));
      };
      segments.set(ref.key, await openStoredSegment({ readInto }, ref.key, ref, 0));
      const list = this.#deadRows(ref);
      if (list) dead.set(ref.dead!.key, list);
    }
    return openSnapshot(feature, segments, dead);
  }

  #deadRows({ dead, rows }: SegmentRef): Bits | undefined {
    return dead && openDeadRows(this.objects.get(dead.key)!, dead, rows);
  }

  #key(bytes: Uint8Array): string {
    const key = `obj/${this.objects.size}`;
    this.objects.set(key, bytes);
    return key;
  }

  #put({ bytes, description }: EncodedSegment): StoredSegment {
    return { ...description, key: this.#key(bytes) };
  }

  #additionsOf(change: Change, writing: Writing): Addition[] {
    const { dims, metric } = this;
    const data = (rows: readonly Row[], deleted: readonly string[]): Addition => {
      const input = {
        kind: 'data' as const,
        dims,
        metric,
        rows: rows.map(({ id, vector, fields }) => ({ id, vector, columns: flattenColumns(fields) })),
        tombs: deleted.map((id) => ({ id })),
        ...(writing.storage === undefined ? {} : { storage: writing.storage }),
        ...(writing.codes === undefined ? {} : { codes: writing.codes }),
      };
      return { uri, dims, metric, segment: this.#put(encodeSegment(input)) };
    };
    if (change.kind === 'upsert') return change.rows.map((rows) => data(rows, []));
    if (change.kind === 'replace') return [data(change.rows, change.deleted)];
    const none = { dims: 0, metric: null, rows: [] };
    const deltas =
      change.kind === 'delete'
        ? [encodeSegment({ ...none, kind: 'delta', tombs: change.ids.map((id) => ({ id })) })]
        : (change.kind === 'patch' ? [change.rows] : change.rows.map((row) => [row])).map((rows) =>
            encodeSegment({ ...none, kind: 'columns', rows }),
          );
    return deltas.map((delta) => ({ every: true, segment: this.#put(delta) }));
  }

  #tryCompaction(compaction: Compaction): Manifest | undefined {
    try {
      return applyCompaction(this.manifest, uri, compaction, 0);
    } catch (error) {
      if (error instanceof VectorError && error.code === 'compaction_stale') return undefined;
      throw error;
    }
  }

  /** Reads the feature and writes what a compaction of it puts in its place, but commits nothing. */
  async #begin(how: Choice): Promise<Compaction | undefined> {
    const from = this.manifest.features[uri];
    if (from === undefined) return undefined;
    const snapshot = await this.snapshot();
    const data = from.segments.filter(({ kind }) => kind === 'data');
    const rewritten =
      how.by === 'plan'
        ? planCompaction(from, segmentStates(from, snapshot), how.rules)?.rewrite
        : data.filter((_, i) => how.rewritten[i % how.rewritten.length]).map(({ key }) => key);
    if (rewritten === undefined) return undefined;
    const { segmentBytesTarget } = how.by === 'plan' ? how.rules : how;
    const places = [...data.keys()];
    const parts = places.filter((i) => rewritten.includes(data[i]!.key));
    const kept = places.filter((i) => !parts.includes(i));
    const added: StoredSegment[] = [];
    for await (const segment of compactRows(snapshot, segmentBytesTarget, this.#memory, { parts }))
      added.push(this.#put(segment));
    const patches = foldPatches(snapshot, kept);
    if (patches) added.push(this.#put(patches));
    const dead = new Map<string, DeadRowsRef>();
    for (const i of kept) {
      const bits = deadRowsOf(snapshot, i);
      const { key, rows, dead: known } = data[i]!;
      if (countBits(bits) === (known?.rows ?? 0)) continue;
      const { bytes, description } = encodeDeadRows(bits, rows);
      dead.set(key, { ...description, key: this.#key(bytes) });
    }
    return { from, rewritten, added, dead };
  }
}
