// The manifest: which segments make up each feature of a collection, as immutable JSON; and how the next one is made.
import { jsonBytes, parseJson } from './column-codec.ts';
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
}

export interface FeatureManifest {
  /** 0 for `granary://documents`. */
  readonly dims: number;
  /** null if `dims` is 0. */
  readonly metric: Metric | null;
  readonly segments: readonly SegmentRef[];
}

/** A segment that no feature uses any more, to be deleted when no reader can still hold it. */
export interface RetiredSegment {
  readonly key: string;
  /** Milliseconds since 1970. */
  readonly since_ms: number;
}

/** One version of the index of one collection. Never changed, only followed by the next. */
export interface Manifest {
  /** Grows by one with each commit and never starts again. */
  readonly version: number;
  /** By feature URI. */
  readonly features: Readonly<Record<string, FeatureManifest>>;
  readonly retired: readonly RetiredSegment[];
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
  return { version, features: Object.fromEntries(features), retired: manifest.retired };
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

/**
 * The next manifest after a compaction: `removed` segments of one feature give way to `added` ones, whose rows carry
 * absolute sequence numbers. Removed keys that no other feature uses are retired.
 *
 * @throws VectorError compaction_stale if a removed segment is not there any more: start the compaction again;
 * compaction_partial if a removed deletion or patch is newer than rows that stay
 */
export function replaceSegments(
  manifest: Manifest,
  uri: string,
  removed: readonly string[],
  added: readonly StoredSegment[],
  nowMs: number,
): Manifest {
  const feature = Object.hasOwn(manifest.features, uri) ? manifest.features[uri] : undefined;
  const gone = new Set(removed);
  const present = new Set(feature?.segments.map(({ key }) => key));
  const lost = removed.find((key) => !present.has(key));
  if (feature === undefined || lost !== undefined) {
    throw new VectorError(
      'compaction_stale',
      `${uri} does not hold this segment any more.`,
      lost ?? removed[0],
    );
  }
  const kept = feature.segments.filter(({ key }) => !gone.has(key));
  for (const segment of feature.segments) {
    if (!gone.has(segment.key) || (segment.tombs === 0 && segment.kind !== 'columns')) continue;
    const needy = kept.find(({ kind, base_seq }) => kind === 'data' && base_seq < segment.base_seq);
    if (needy !== undefined) {
      const message = `Its deletions and patches still apply to ${needy.key}: compact both or neither.`;
      throw new VectorError('compaction_partial', message, segment.key);
    }
  }
  let next: FeatureManifest = { ...feature, segments: [] };
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
  next = { ...next, segments: [...next.segments, ...kept] };
  const features = { ...manifest.features, [uri]: next };
  const used = new Set(Object.values(features).flatMap(({ segments }) => segments.map(({ key }) => key)));
  const since_ms = nowMs;
  const retired = [
    ...manifest.retired,
    ...removed.filter((key) => !used.has(key)).map((key) => ({ key, since_ms })),
  ];
  return { version: manifest.version + 1, features, retired };
}

/** Retired segments whose last reader must be gone: retired at least `ageMs` before `nowMs`. */
export function collectableKeys(manifest: Manifest, nowMs: number, ageMs: number): string[] {
  return manifest.retired.filter(({ since_ms }) => since_ms <= nowMs - ageMs).map(({ key }) => key);
}

/** The next manifest without retired entries whose objects have been deleted. */
export function forgetRetired(manifest: Manifest, keys: readonly string[]): Manifest {
  const gone = new Set(keys);
  return {
    version: manifest.version + 1,
    features: manifest.features,
    retired: manifest.retired.filter(({ key }) => !gone.has(key)),
  };
}

/** Every key that the manifest names, in use or retired: garbage collection must spare these. */
export function keysOf(manifest: Manifest): Set<string> {
  const keys = new Set(manifest.retired.map(({ key }) => key));
  for (const { segments } of Object.values(manifest.features)) for (const { key } of segments) keys.add(key);
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
    )
  );
}

function isFeature(value: unknown): value is FeatureManifest {
  return (
    isObject(value) &&
    isCount(value.dims) &&
    value.dims <= dimsMax &&
    isMetricOf(value.dims, value.metric) &&
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
    value.sections.every(isSectionRef)
  );
}

function isMetricOf(dims: unknown, metric: unknown): boolean {
  return dims === 0 ? metric === null : metrics.some((known) => known === metric);
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
