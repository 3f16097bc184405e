// The manifest: which segments make up each feature of a collection, as immutable JSON; and how the next one is made.
import { jsonBytes, parseJson } from './column-codec.ts';
import { type DeadRowsRef, isDeadRowsRef } from './dead-rows.ts';
import { VectorError } from './errors.ts';
import { isCount, isSectionRef, type SegmentDescription, seqsPerVersion } from './segment-format.ts';

import { dimsMax, type Metric, metrics } from './vector.ts';

/** The feature without vectors (dims 0) that holds the columns of every document: for lists and counts. */
export const documentsUri = 'granary://documents';

/** A segment with the key under which it is stored. */
export interface StoredSegment extends SegmentDescription {
  readonly key: string;
}

/** A segment as a manifest lists it. */
export interface SegmentRef extends StoredSegment {
  /** Added to every sequence number in the file. 0 for compacted segments. */
  readonly base_seq: number;
  /** Rows that count as deleted, whatever else there is: a compaction found them dead. Only beside `data`. */
  readonly dead?: DeadRowsRef;
}

export interface FeatureManifest {
  /** 0 for `granary://documents`. */
  readonly dims: number;
  /** null if `dims` is 0. */
  readonly metric: Metric | null;
  readonly segments: readonly SegmentRef[];
  /**
   * Set by a compaction: segments whose newest row is not newer than this have no row of the same id alive twice,
   * since what one replaces in another is in its list of dead rows.
   */
  readonly settled_seq?: number;
}

/** A segment or dead-row list that no feature uses any more, to be deleted when no reader can still hold it. */
export interface RetiredSegment {
  readonly key: string;
  /** Milliseconds since 1970. */
  readonly since_ms: number;
}

/** A version before the current one, which can still be read. */
export interface PastVersion {
  readonly version: number;
  /** Of its manifest. */
  readonly key: string;
  /** When the next version took its place, in milliseconds since 1970. */
  readonly since_ms: number;
}

/** One version of the index of one collection. Never changed, only followed by the next. */
export interface Manifest {
  /** Grows by one with each commit and never starts again. */
  readonly version: number;
  /** By feature URI. */
  readonly features: Readonly<Record<string, FeatureManifest>>;
  readonly retired: readonly RetiredSegment[];
  /** Oldest first; manifests of before versions could be read have none. */
  readonly history?: readonly PastVersion[];
  /** Features that a commit took out, and the last version that held them. */
  readonly dropped?: Readonly<Record<string, number>>;
}

/** A segment for one feature, which is made if it is new, or for all features (deletions, column patches). */
export type Addition =
  | {
      readonly uri: string;
      readonly dims: number;
      readonly metric: Metric | null;
      readonly segment: StoredSegment;
    }
  | { readonly every: true; readonly segment: StoredSegment };

/** The manifest of a collection that nothing was ever committed to. */
export function emptyManifest(): Manifest {
  return { version: 0, features: {}, retired: [] };
}

/**
 * The next manifest: new segments of one commit. Pure; when the commit loses its race, call it again on the newer
 * manifest with the same segments: only their bases change, so nothing is uploaded again.
 *
 * Within the commit later additions win over earlier ones. Segments for every feature also reach the features that
 * this commit makes.
 *
 * @throws VectorError feature_mismatch (dims, metric, a compacted segment, a key that is used), commit_too_large
 */
export function appendSegments(manifest: Manifest, additions: readonly Addition[]): Manifest {
  const version = manifest.version + 1;
  let base = version * seqsPerVersion;
  const end = base + seqsPerVersion;
  const features = new Map(Object.entries(manifest.features));
  for (const addition of additions) {
    if (!('uri' in addition)) continue;
    const known = features.get(addition.uri);
    if (known === undefined) {
      const { dims, metric } = addition;
      if (dims > 0 !== (metric !== null)) {
        throw new VectorError(
          'feature_mismatch',
          `${addition.uri} has a metric exactly if it has dimensions.`,
        );
      }
      features.set(addition.uri, { dims, metric, segments: [] });
    } else if (known.dims !== addition.dims || known.metric !== addition.metric) {
      const has = `${known.dims} dimensions and metric ${known.metric}`;
      const message = `${addition.uri} has ${has}, got ${addition.dims} and ${addition.metric}.`;
      throw new VectorError('feature_mismatch', message);
    }
  }
  for (const addition of additions) {
    const { segment } = addition;
    if (segment.absolute) {
      throw new VectorError(
        'feature_mismatch',
        'A compacted segment replaces others; it is not appended.',
        segment.key,
      );
    }
    if (base + segment.seq_max >= end) {
      throw new VectorError(
        'commit_too_large',
        `One commit holds at most ${seqsPerVersion} rows.`,
        segment.key,
      );
    }
    const ref: SegmentRef = { ...segment, base_seq: base };
    for (const uri of 'uri' in addition ? [addition.uri] : features.keys()) {
      features.set(uri, withSegment(uri, features.get(uri)!, ref));
    }
    base += segment.seq_max + 1;
  }
  return { ...manifest, version, features: Object.fromEntries(features) };
}

/**
 * The same version without some features; what only they used is retired. For a commit that puts others in their
 * place: call it before `appendSegments`.
 */
export function dropFeatures(manifest: Manifest, uris: readonly string[], nowMs: number): Manifest {
  const gone = uris.filter((uri) => Object.hasOwn(manifest.features, uri));
  if (gone.length === 0) return manifest;
  const features = Object.fromEntries(
    Object.entries(manifest.features).filter(([uri]) => !gone.includes(uri)),
  );
  const dropped = Object.fromEntries(gone.map((uri) => [uri, manifest.version]));
  return { ...retire(manifest, features, nowMs), dropped: { ...manifest.dropped, ...dropped } };
}

/**
 * The next manifest: segments that exist in every feature (deletions, column patches).
 *
 * @throws VectorError as `appendSegments`
 */
export function appendDeltas(manifest: Manifest, segments: readonly StoredSegment[]): Manifest {
  return appendSegments(
    manifest,
    segments.map((segment) => ({ every: true, segment })),
  );
}

/** What a compaction of one feature has made. */
export interface Compaction {
  /** The feature as it was when the compaction read it. */
  readonly from: FeatureManifest;
  /** Data segments of `from` whose live rows stand in `added`; all others of them stay. */
  readonly rewritten: readonly string[];
  /**
   * Rewritten rows and, for the data segments that stay, one segment with the column patches that concern them;
   * all with absolute sequence numbers. A row or patch has that of the newest change that is in it.
   */
  readonly added: readonly StoredSegment[];
  /** By key of a data segment that stays: all rows of it that were dead in `from`. None dead: not in the map. */
  readonly dead: ReadonlyMap<string, DeadRowsRef>;
}

/**
 * The next manifest after a compaction. Every search of it gives the answers of before: what came after `from` stays
 * and still applies, since all its sequence numbers are higher.
 *
 * Pure; when the commit loses its race, call it again on the newer manifest. Deletions and patches of `from` that have
 * been merged with newer ones meanwhile stay in their merged form: they repeat what `added` and `dead` say already.
 *
 * @throws VectorError compaction_stale if a data segment of `from` is gone, or its dead rows are others by now: start
 * the compaction again; feature_mismatch
 */
export function applyCompaction(
  manifest: Manifest,
  uri: string,
  compaction: Compaction,
  nowMs: number,
): Manifest {
  const feature = Object.hasOwn(manifest.features, uri) ? manifest.features[uri] : undefined;
  const { from, added, dead } = compaction;
  const before = new Map(from.segments.map((ref) => [ref.key, ref]));
  const present = new Map(feature?.segments.map((ref) => [ref.key, ref]));
  for (const { key, kind, dead: known } of from.segments) {
    if (kind !== 'data') continue;
    const now = present.get(key);
    if (feature === undefined || now === undefined || now.dead?.key !== known?.key) {
      throw new VectorError('compaction_stale', `${uri} does not hold this segment as it was read.`, key);
    }
  }
  const rewritten = new Set(compaction.rewritten);
  for (const key of [...rewritten, ...dead.keys()]) {
    if (before.get(key)?.kind !== 'data' || (rewritten.has(key) && dead.has(key))) {
      throw new VectorError('feature_mismatch', `This compaction of ${uri} did not read the segment.`, key);
    }
  }
  if (feature === undefined) throw new VectorError('compaction_stale', `There is no ${uri} any more.`);
  const settled_seq = from.segments.reduce((max, ref) => Math.max(max, ref.base_seq + ref.seq_max), -1);
  let next: FeatureManifest = { ...feature, segments: [], settled_seq };
  for (const segment of added) {
    if (!segment.absolute) {
      throw new VectorError(
        'feature_mismatch',
        'A compacted segment has absolute sequence numbers.',
        segment.key,
      );
    }
    next = withSegment(uri, next, { ...segment, base_seq: 0 });
  }
  for (const ref of feature.segments) {
    const read = before.has(ref.key);
    if (read && (ref.kind !== 'data' || rewritten.has(ref.key))) continue;
    const list = dead.get(ref.key) ?? ref.dead;
    next = withSegment(uri, next, list === undefined ? ref : { ...ref, dead: list });
  }
  return {
    ...retire(manifest, { ...manifest.features, [uri]: next }, nowMs),
    version: manifest.version + 1,
  };
}

/** The same with other features; what these do not use any more is retired. */
function retire(manifest: Manifest, features: Manifest['features'], nowMs: number): Manifest {
  const used = usedKeys(features);
  const gone = [...usedKeys(manifest.features)].filter((key) => !used.has(key));
  return {
    ...manifest,
    features,
    retired: [...manifest.retired, ...gone.map((key) => ({ key, since_ms: nowMs }))],
  };
}

/**
 * How long a version can be read after the next one took its place. Shorter than what retired objects are kept for, so
 * that a reader who begins at the last moment has an hour to finish.
 */
export const historyMs = 47 * 3600 * 1000;
/** Versions before the current one that can be read at most: streams of small writes make many. */
export const historyMax = 200;

/** The versions before this one that can be read now, oldest first. */
export function readableVersions(manifest: Manifest, nowMs: number): readonly PastVersion[] {
  return (manifest.history ?? []).filter(({ since_ms }) => since_ms > nowMs - historyMs);
}

/**
 * The same manifest, remembering the version that it follows. Every commit calls this, last.
 *
 * @param previous version and manifest key of the head that the commit replaces; key null: nothing was committed
 */
export function withHistory(
  manifest: Manifest,
  previous: { readonly version: number; readonly manifest_key: string | null },
  nowMs: number,
): Manifest {
  if (previous.manifest_key === null) return manifest;
  const entry = { version: previous.version, key: previous.manifest_key, since_ms: nowMs };
  return { ...manifest, history: [...readableVersions(manifest, nowMs), entry].slice(-historyMax) };
}

/** Retired segments whose last reader must be gone: retired at least `ageMs` before `nowMs`. */
export function collectableKeys(manifest: Manifest, nowMs: number, ageMs: number): string[] {
  return manifest.retired.filter(({ since_ms }) => since_ms <= nowMs - ageMs).map(({ key }) => key);
}

/** The next manifest without retired entries whose objects have been deleted. */
export function forgetRetired(manifest: Manifest, keys: readonly string[]): Manifest {
  const gone = new Set(keys);
  return {
    ...manifest,
    version: manifest.version + 1,
    retired: manifest.retired.filter(({ key }) => !gone.has(key)),
  };
}

/**
 * Every key that the manifest names: in use, retired, or the manifest of a version that can still be read. Garbage
 * collection must spare these.
 */
export function keysOf(manifest: Manifest): Set<string> {
  const keys = usedKeys(manifest.features);
  for (const { key } of manifest.retired) keys.add(key);
  for (const { key } of manifest.history ?? []) keys.add(key);
  return keys;
}

/** Segments and dead-row lists that features are read from. */
function usedKeys(features: Manifest['features']): Set<string> {
  const keys = new Set<string>();
  for (const { segments } of Object.values(features)) {
    for (const { key, dead } of segments) {
      keys.add(key);
      if (dead !== undefined) keys.add(dead.key);
    }
  }
  return keys;
}

/** The bytes to store. */
export function encodeManifest(manifest: Manifest): Uint8Array {
  return jsonBytes(manifest);
}

/**
 * Reads a stored manifest.
 *
 * @throws VectorError manifest_corrupt, naming `objectName`
 */
export function decodeManifest(bytes: Uint8Array, objectName: string): Manifest {
  const parsed = parseJson(bytes);
  if (!isManifest(parsed)) throw new VectorError('manifest_corrupt', 'This is not a manifest.', objectName);
  return parsed;
}

function withSegment(uri: string, feature: FeatureManifest, ref: SegmentRef): FeatureManifest {
  // Deletions and patches have no vectors and fit every feature.
  if (ref.kind === 'data' && (ref.dims !== feature.dims || ref.metric !== feature.metric)) {
    const message = `The segment has ${ref.dims} dimensions and metric ${ref.metric}, ${uri} ${feature.dims} and ${feature.metric}.`;
    throw new VectorError('feature_mismatch', message, ref.key);
  }
  if (feature.segments.some(({ key }) => key === ref.key)) {
    throw new VectorError('feature_mismatch', `${uri} holds this segment already.`, ref.key);
  }
  return { ...feature, segments: [...feature.segments, ref] };
}

function isManifest(value: unknown): value is Manifest {
  if (
    !isObject(value) ||
    !isCount(value.version) ||
    !isObject(value.features) ||
    !Array.isArray(value.retired)
  ) {
    return false;
  }
  return (
    Object.values(value.features).every(isFeature) &&
    value.retired.every(
      (entry) => isObject(entry) && typeof entry.key === 'string' && isCount(entry.since_ms),
    ) &&
    (value.history === undefined || (Array.isArray(value.history) && value.history.every(isPastVersion))) &&
    (value.dropped === undefined || (isObject(value.dropped) && Object.values(value.dropped).every(isCount)))
  );
}

function isPastVersion(value: unknown): value is PastVersion {
  return (
    isObject(value) && isCount(value.version) && typeof value.key === 'string' && isCount(value.since_ms)
  );
}

function isFeature(value: unknown): value is FeatureManifest {
  return (
    isObject(value) &&
    isCount(value.dims) &&
    value.dims <= dimsMax &&
    isMetricOf(value.dims, value.metric) &&
    (value.settled_seq === undefined || Number.isSafeInteger(value.settled_seq)) &&
    Array.isArray(value.segments) &&
    value.segments.every(isSegmentRef)
  );
}

function isSegmentRef(value: unknown): value is SegmentRef {
  return (
    isObject(value) &&
    typeof value.key === 'string' &&
    (value.kind === 'data' || value.kind === 'delta' || value.kind === 'columns') &&
    [value.bytes, value.rows, value.tombs, value.dims, value.seq_max, value.header_len, value.base_seq].every(
      isCount,
    ) &&
    isMetricOf(value.dims, value.metric) &&
    typeof value.absolute === 'boolean' &&
    typeof value.header_crc32 === 'string' &&
    Array.isArray(value.sections) &&
    value.sections.every(isSectionRef) &&
    (value.dead === undefined ||
      (value.kind === 'data' && isDeadRowsRef(value.dead) && value.dead.rows <= Number(value.rows)))
  );
}

function isMetricOf(dims: unknown, metric: unknown): boolean {
  return dims === 0 ? metric === null : metrics.some((known) => known === metric);
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
