// Decides whether a row of an imported file can become a document of a collection, and why not.
import * as z from 'zod';
import type { NsCtx } from '../../context.ts';
import type { FieldFault } from '../../errors.ts';
import type { FoundRow, JsonObject } from '../../interchange/row.ts';
import { idColumn, internalColumn } from '../../interchange/row.ts';
import { isReserved } from '../../reserved-fields.ts';
import type { FeatureOf, StoredCollection } from '../collections/service.ts';
import { featureOf, featuresOf } from '../collections/service.ts';
import type { DocumentBlob, DocumentBody, Enrichment, Lineage } from '../documents/service.ts';
import { documentBytesMax } from '../documents/service.ts';

const idForm = /^[!-~]{1,200}$/;
const fieldNameLengthMax = 200;
const depthMax = 32;
const membersMax = 20_000;

const text = z.string().max(1_000);
const Internal = z.object({
  lineage: z
    .object({
      bucket_id: text,
      object_id: text,
      object_version: z.int().min(0),
      batch_id: text,
      feature_extractor_id: text,
      feature_extractor_ids: z.array(text).max(20),
      ordinal: z.int().min(0),
    })
    .optional(),
  enrichments: z
    .array(z.looseObject({ field: z.string().max(200), value: z.json() }))
    .max(1_000)
    .optional(),
  blobs: z
    .array(
      z.object({
        field: text,
        role: z.literal('source'),
        type: text,
        blob_id: text,
        s3_key: text.optional(),
        mime_type: text,
        size_bytes: z.int().min(0),
      }),
    )
    .max(1_000)
    .optional(),
  long_texts: z
    .record(z.string().max(200), z.object({ s3_key: text, size_bytes: z.int().min(0) }))
    .optional(),
  object_version: z.int().min(0).optional(),
  created_at: z.iso.datetime().optional(),
  updated_at: z.iso.datetime().optional(),
  metrics: z.record(z.string(), z.string()).optional(),
});

/** A row that can be stored. */
export interface CheckedRow {
  readonly row: number;
  readonly id: string;
  readonly body: DocumentBody;
  /** JSON of the body. */
  readonly text: string;
  readonly vectors: ReadonlyMap<string, Float32Array>;
  readonly object_version: number;
}

/** What rows of one import have in common. */
export interface RowRules {
  readonly collection: StoredCollection;
  /** The feature that a column or member of a file names: by its URI, or by its bare name if only one has it. */
  feature(name: string): FeatureOf | undefined;
  readonly importId: string;
  /** Of documents whose row does not say when they were made. */
  readonly startedAt: string;
  readonly isOwnKey: (key: string) => boolean;
}

export function rulesFor(
  ctx: NsCtx,
  collection: StoredCollection,
  importId: string,
  startedAt: string,
): RowRules {
  const features = featuresOf(collection);
  // Vectors that another version of a plugin has made are none of the feature that took its place.
  const asNamed: StoredCollection = { ...collection, feature_aliases: {} };
  const known = new Map<string, FeatureOf | undefined>();
  const own = [`objects/${ctx.ns.namespaceId}/`, `documents/${ctx.ns.namespaceId}/`];
  return {
    collection,
    importId,
    startedAt,
    // A file may name any key; those of others must not become readable through a document.
    isOwnKey: (key) => own.some((prefix) => key.startsWith(prefix)),
    feature(name) {
      if (!known.has(name)) {
        const named = features.filter((feature) => feature.feature_name === name);
        known.set(name, featureOf(asNamed, name) ?? (named.length === 1 ? named[0] : undefined));
      }
      return known.get(name);
    },
  };
}

const looksLikeFeature = (name: string) => /^[a-z][a-z0-9+.-]*:\/\//i.test(name);

/** Why a JSON value cannot be kept, undefined if it can. */
function jsonFault(root: unknown): string | undefined {
  const pending: { value: unknown; depth: number }[] = [{ value: root, depth: 1 }];
  let members = 0;
  while (pending.length > 0) {
    const { value, depth } = pending.pop()!;
    if (value === null || typeof value !== 'object') continue;
    if (depth > depthMax) return `is nested deeper than ${depthMax} levels`;
    for (const member of Array.isArray(value) ? value : Object.values(value)) {
      if (++members > membersMax) return `has more than ${membersMax} values`;
      pending.push({ value: member, depth: depth + 1 });
    }
  }
  return undefined;
}

type Outcome =
  | { readonly ok: true; readonly row: CheckedRow }
  | { readonly ok: false; readonly faults: FieldFault[] };

function vectorFault(value: unknown, dims: number): string | undefined {
  if (!Array.isArray(value) && !ArrayBuffer.isView(value)) return 'is not a list of numbers';
  const list = value as ArrayLike<unknown>;
  if (list.length !== dims) return `has ${list.length} values; the feature has ${dims} dimensions`;
  for (let i = 0; i < list.length; i++) {
    const one = list[i];
    if (typeof one !== 'number') return `holds something that is no number at place ${i + 1}`;
    if (!Number.isFinite(Math.fround(one)))
      return `holds ${one} at place ${i + 1}; vectors have finite float32 values`;
  }
  return undefined;
}

/** Checks one row; every fault of it, each with the row's number. */
export function checkRow(found: FoundRow, rules: RowRules): Outcome {
  const faults: FieldFault[] = [];
  const refuse = (column: string | undefined, type: string, message: string, fix?: string) =>
    faults.push({
      type,
      location: ['row', found.row, ...(column === undefined ? [] : [column.slice(0, 120)])],
      message,
      ...(fix === undefined ? {} : { fix }),
    });
  if (found.fault) {
    refuse(found.fault.column, 'row_unreadable', found.fault.message);
    return { ok: false, faults };
  }
  const { id } = found;
  if (typeof id !== 'string' || !idForm.test(id)) {
    const got = id === undefined ? 'is missing' : `is ${JSON.stringify(String(id).slice(0, 60))}`;
    refuse(idColumn, 'id_invalid', `${got}; an id has 1 to 200 printable characters without spaces`);
  }
  const { collection } = rules;
  const uris = () =>
    featuresOf(collection)
      .map((feature) => feature.feature_uri)
      .join(', ');
  for (const [name, value] of Object.entries(found.fields)) {
    if (looksLikeFeature(name))
      refuse(name, 'feature_unknown', 'is no feature of this collection', `it has ${uris()}`);
    else if (isReserved(name))
      refuse(name, 'field_reserved', 'is kept by the service; rename or leave it out');
    else if (name.length === 0 || name.length > fieldNameLengthMax)
      refuse(name, 'field_invalid', `a field name has 1 to ${fieldNameLengthMax} characters`);
    else {
      const fault = jsonFault(value);
      if (fault !== undefined) refuse(name, 'field_invalid', fault);
    }
  }
  const parsed = Internal.safeParse(found.internal ?? {});
  if (!parsed.success) {
    const issue = parsed.error.issues[0]!;
    refuse(internalColumn, 'internal_invalid', `at ${issue.path.join('.') || 'its root'}: ${issue.message}`);
  }
  const internal = parsed.success ? parsed.data : {};
  const vectors = new Map<string, Float32Array>();
  for (const [name, value] of Object.entries(found.vectors)) {
    const feature = rules.feature(name);
    if (!feature) {
      refuse(name, 'feature_unknown', 'is no feature of this collection', `it has ${uris()}`);
      continue;
    }
    if (value === null) continue;
    const metric = internal.metrics?.[name];
    if (metric !== undefined && metric !== feature.metric) {
      refuse(
        name,
        'metric_differs',
        `was made for ${metric}; the feature of this collection is compared by ${feature.metric}`,
      );
      continue;
    }
    const fault = vectorFault(value, feature.dims);
    if (fault !== undefined) refuse(name, 'vector_invalid', fault);
    else if (vectors.has(feature.feature_uri))
      refuse(name, 'feature_repeated', 'names a feature that stands in this row twice');
    else vectors.set(feature.feature_uri, Float32Array.from(value as ArrayLike<number>));
  }
  if (faults.length > 0) return { ok: false, faults };
  const body = bodyOf(found.fields as JsonObject, internal, [...vectors.keys()], rules);
  const json = JSON.stringify(body);
  const bytes = Buffer.byteLength(json);
  if (bytes > documentBytesMax) {
    refuse(
      undefined,
      'document_too_large',
      `makes a document of ${bytes} bytes; at most ${documentBytesMax} are possible`,
    );
    return { ok: false, faults };
  }
  const objectVersion = internal.object_version ?? internal.lineage?.object_version ?? 0;
  return {
    ok: true,
    row: { row: found.row, id: id as string, body, text: json, vectors, object_version: objectVersion },
  };
}

function bodyOf(
  fields: JsonObject,
  internal: z.output<typeof Internal>,
  features: readonly string[],
  rules: RowRules,
): DocumentBody {
  const pluginIds = rules.collection.feature_extractors.map((extractor) => extractor.plugin_id);
  const lineage: Lineage = internal.lineage ?? {
    bucket_id: '',
    object_id: '',
    object_version: 0,
    batch_id: rules.importId,
    feature_extractor_id: pluginIds[0]!,
    feature_extractor_ids: pluginIds,
    ordinal: 0,
  };
  const blobs = (internal.blobs ?? []).map(
    ({ s3_key, ...blob }): DocumentBlob => ({
      ...blob,
      ...(s3_key !== undefined && rules.isOwnKey(s3_key) ? { s3_key } : {}),
    }),
  );
  const longTexts = Object.entries(internal.long_texts ?? {}).filter(([, { s3_key }]) =>
    rules.isOwnKey(s3_key),
  );
  return {
    fields,
    lineage,
    enrichments: (internal.enrichments ?? []) as unknown as readonly Enrichment[],
    blobs,
    ...(longTexts.length > 0 ? { long_texts: Object.fromEntries(longTexts) } : {}),
    features,
    created_at: internal.created_at ?? rules.startedAt,
    updated_at: internal.updated_at ?? rules.startedAt,
  };
}
