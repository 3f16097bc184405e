// From objects to documents: the rows that a plugin gets, its call, and a strict reading of what it gave back. What
// comes from a plugin is hostile: nothing in it is believed before it was checked here.
import { setTimeout as pause } from 'node:timers/promises';
import type { NsCtx } from '../../context.ts';
import { isAppError } from '../../errors.ts';
import { derivedId } from '../../ids.ts';
import { isReserved } from '../../reserved-fields.ts';
import { BlobMissing, getJson } from '../../store/blobs.ts';
import type { Attribute } from '../../store/table.ts';
import type { StoredExtractor } from '../collections/service.ts';
import type { Json, JsonObject } from '../documents/service.ts';
import type { StoredBlob } from '../objects/service.ts';
import { blobText, isBinary } from '../objects/service.ts';
import { callRunner } from '../plugins/run.ts';
import type { StoredPlugin } from '../plugins/service.ts';
import type { PlannedObject } from './files.ts';

/** One row of a plugin's table: one blob of one object. */
export interface PluginRow {
  readonly object: PlannedObject;
  readonly blob: StoredBlob;
  /** Place among the rows of its object for this extractor. */
  readonly place: number;
}

export interface RowFault {
  readonly code: string;
  readonly message: string;
  readonly retryable: boolean;
  /** The plugin's own frames, at most 4,000 characters; null where there are none. */
  readonly traceback: string | null;
}

/** What a plugin said while it ran: its output, findings, and how long which part took. */
export interface CallLog {
  /** Standard output and error, at most 64 kB. */
  readonly logs: string;
  readonly warnings: readonly string[];
  /** Names and milliseconds, as the runner gave them. */
  readonly timings: { readonly [name: string]: number };
}

/** One output that a plugin made of a row. */
export interface RowOutput {
  readonly columns: JsonObject;
  /** By feature name; a feature without a vector is left out. */
  readonly vectors: ReadonlyMap<string, Float32Array>;
}

/** What became of each row, in the order of the rows: its outputs (perhaps none), or a fault. */
export type RowResult = { readonly outputs: readonly RowOutput[] } | { readonly fault: RowFault };

/** The rows of an object for an extractor, in the order of its mappings. */
export function rowsOf(
  object: PlannedObject,
  extractor: Pick<StoredExtractor, 'input_mappings'>,
): PluginRow[] {
  const properties = [...new Set(Object.values(extractor.input_mappings))];
  const blobs = properties.flatMap((property) => object.blobs.filter((blob) => blob.property === property));
  return blobs.map((blob, place) => ({ object, blob, place }));
}

const messageBytesMax = 1_000;
const tracebackBytesMax = 4_000;
const logBytesMax = 64 * 1024;
const warningsMax = 100;
const timingsMax = 20;
const outputsPerRowMax = 100;
const columnsMax = 200;
const inlineRowsBytesMax = 4_000_000;
/** Texts above this are not given to plugins: the runner takes 64 MB a call. */
const textBytesMax = 16_000_000;
const presignSeconds = 3_600;
const callTries = 3;
/** A call takes this long at most, and leaves this much for writing its results. */
const callMsMax = 240_000;
const reserveMs = 30_000;

function cut(text: string, bytesMax = messageBytesMax): string {
  const bytes = Buffer.from(text.toWellFormed());
  return bytes.length <= bytesMax
    ? bytes.toString()
    : `${bytes
        .subarray(0, bytesMax - 4)
        .toString()
        .replace(/\uFFFD+$/, '')}...`;
}

export function fault(code: string, message: string, retryable = false, traceback?: unknown): RowFault {
  // A code becomes a key of the summary; what does not look like one is not repeated.
  return {
    code: /^[a-z][a-z0-9_]{2,60}$/.test(code) ? code : 'plugin_failed',
    message: cut(message),
    retryable,
    traceback: typeof traceback === 'string' && traceback !== '' ? cut(traceback, tracebackBytesMax) : null,
  };
}

/** What a reply says about the call itself; anything in it may be of any form. */
export function readLog(reply: unknown): CallLog {
  const { logs, warnings, timings } = isRecord(reply) ? reply : {};
  const named = Object.entries(isRecord(timings) ? timings : {}).filter(
    (entry): entry is [string, number] =>
      /^[a-z][a-z0-9_]{0,40}$/.test(entry[0]) && typeof entry[1] === 'number' && Number.isFinite(entry[1]),
  );
  return {
    logs: typeof logs === 'string' ? cut(logs, logBytesMax) : '',
    warnings: (Array.isArray(warnings) ? (warnings as unknown[]) : [])
      .filter((warning) => typeof warning === 'string')
      .slice(0, warningsMax)
      .map((warning) => cut(warning)),
    timings: Object.fromEntries(named.slice(0, timingsMax)),
  };
}

/** The value of the `data` column: text, or a URL for binary content. @throws BlobMissing */
async function inputOf(ctx: NsCtx, row: PluginRow, collectionId: string, pluginId: string, index: number) {
  const { object, blob } = row;
  const binary = isBinary(blob.type) && blob.s3_key !== undefined;
  const url = binary ? await ctx.ports.blobs.presignGet(blob.s3_key!, presignSeconds) : undefined;
  const base = {
    row: index,
    document_id: derivedId('document', collectionId, object.object_id, row.place),
    object_id: object.object_id,
    blob_id: blob.blob_id,
    blob_property: blob.property,
    blob_type: blob.type,
    collection_id: collectionId,
    feature_extractor_id: pluginId,
    mime_type: blob.mime_type,
    size_bytes: blob.size_bytes,
  };
  if (url !== undefined)
    return { ...base, data: url, blob_url: url, __s3_url: ctx.ports.blobs.uri(blob.s3_key!) };
  return { ...base, data: await blobText(ctx, blob) };
}

/**
 * Runs one extractor over rows.
 *
 * A failed call is tried again where that can help; when it cannot, every row has the call's fault. Never throws for
 * what a plugin does.
 *
 * @param untilMs on the context's clock: when the caller must have its answer
 * @param resultKey where the runner may put a large result, in the blob bucket; must be fresh
 * @returns one result per row, in order, and what the plugin said meanwhile; no log if it was not called
 * @throws AppError storage_* when our own stores cannot be reached
 */
export async function runExtractor(
  ctx: NsCtx,
  plugin: StoredPlugin,
  extractor: StoredExtractor,
  collectionId: string,
  rows: readonly PluginRow[],
  untilMs: number,
  resultKey: string,
): Promise<{ readonly results: RowResult[]; readonly log?: CallLog }> {
  const results = new Array<RowResult | undefined>(rows.length);
  const inputs: Record<string, unknown>[] = [];
  for (let i = 0; i < rows.length; i += 32) {
    const part = rows.slice(i, i + 32);
    const made = await Promise.all(
      part.map(async (row, j) => {
        const { blob } = row;
        if (!isBinary(blob.type) && blob.size_bytes > textBytesMax) {
          return fault(
            'blob_too_large',
            `the text of "${blob.property}" has ${blob.size_bytes} bytes; plugins get ${textBytesMax} at most`,
          );
        }
        try {
          return { input: await inputOf(ctx, row, collectionId, plugin.id, i + j) };
        } catch (error) {
          if (error instanceof BlobMissing || isAppError(error, 'object_invalid')) {
            return fault('blob_missing', `the content of "${blob.property}" (${blob.blob_id}) is gone`);
          }
          throw error;
        }
      }),
    );
    for (const [j, one] of made.entries()) {
      if ('input' in one) inputs.push(one.input);
      else results[i + j] = { fault: one };
    }
  }
  const log =
    inputs.length === 0 ? undefined : await call(ctx, plugin, extractor, inputs, results, untilMs, resultKey);
  return {
    results: results.map(
      (result) =>
        result ?? { fault: fault('plugin_protocol_error', 'the runner said nothing about this row', true) },
    ),
    ...(log ? { log } : {}),
  };
}

async function call(
  ctx: NsCtx,
  plugin: StoredPlugin,
  extractor: StoredExtractor,
  inputs: readonly Record<string, unknown>[],
  results: (RowResult | undefined)[],
  untilMs: number,
  resultKey: string,
): Promise<CallLog> {
  const { blobs, clock } = ctx.ports;
  const given = inputs.map((input) => Number(input.row));
  const failAll = (one: RowFault) => {
    for (const row of given) results[row] = { fault: one };
  };
  const text = JSON.stringify(inputs);
  const isLarge = Buffer.byteLength(text) > inlineRowsBytesMax;
  const rowsKey = `${resultKey.replace(/\.json$/, '')}-rows.json`;
  if (isLarge) await blobs.put(rowsKey, text, { contentType: 'application/json' });
  const batchSize = Number(plugin.compute_profile.batch_size ?? 64);
  /** Calls that were tried again, so that a log does not hide them. */
  const tried: string[] = [];
  const logOf = (reply: unknown): CallLog => {
    const log = readLog(reply);
    return { ...log, warnings: [...tried, ...log.warnings] };
  };
  for (let attempt = 1; ; attempt++) {
    const leftMs = untilMs - clock.now() - reserveMs;
    if (leftMs < 1_000) {
      failAll(fault('plugin_timeout', 'no time was left to run the plugin on these rows', true));
      return logOf(undefined);
    }
    const deadlineMs = Math.min(callMsMax, leftMs);
    const key = `${resultKey.replace(/\.json$/, '')}-${attempt}.json`;
    const event = {
      operation: 'run',
      features: extractor.features.map((feature) => ({ name: feature.feature_name, dims: feature.dims })),
      parameters: extractor.parameters,
      batch_size: Number.isInteger(batchSize) && batchSize >= 1 ? Math.min(1_000, batchSize) : 64,
      ...(isLarge ? { rows_url: await blobs.presignGet(rowsKey, presignSeconds) } : { rows: inputs }),
      result_url: await blobs.presignPut(key, presignSeconds, 'application/json'),
      deadline_ms: deadlineMs,
    };
    let problem: RowFault;
    let reply: unknown;
    try {
      reply = await callRunner(ctx, plugin, event, { timeoutMs: deadlineMs + reserveMs / 2 });
      if (isRecord(reply) && reply.result_at_url === true) reply = await getJson<unknown>(blobs, key);
      const refused = isRecord(reply) ? reply.error : undefined;
      if (refused === undefined) {
        readReply(reply, extractor, given, results);
        return logOf(reply);
      }
      const { code, message, retryable, traceback } = isRecord(refused) ? refused : {};
      problem = fault(String(code), String(message), retryable === true, traceback);
    } catch (error) {
      if (isAppError(error, 'plugin_unavailable', 'plugin_timeout'))
        problem = fault(error.code, error.detail, true);
      else if (isAppError(error, 'plugin_secret_missing', 'plugin_not_supported'))
        problem = fault(error.code, error.detail);
      else if (error instanceof BlobMissing || error instanceof SyntaxError) {
        problem = fault('plugin_protocol_error', 'the result that the runner announced cannot be read', true);
      } else throw error;
    }
    ctx.ports.log.warn('a plugin call failed', {
      plugin_id: plugin.id,
      code: problem.code,
      attempt,
      rows: given.length,
    });
    if (!problem.retryable || attempt >= callTries) {
      failAll(problem);
      return logOf(reply);
    }
    tried.push(cut(`call ${attempt} was tried again: ${problem.code}: ${problem.message}`));
    await pause(50 * attempt);
  }
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Fills `results` for the rows that were given, from a reply that may say anything. */
export function readReply(
  reply: unknown,
  extractor: Pick<StoredExtractor, 'features'>,
  given: readonly number[],
  results: (RowResult | undefined)[],
): void {
  const failAll = (message: string) => {
    for (const row of given) results[row] = { fault: fault('plugin_protocol_error', message) };
  };
  if (!isRecord(reply) || !Array.isArray(reply.outputs) || !isRecord(reply.vectors)) {
    failAll('the answer of the runner does not have the right form');
    return;
  }
  const tables = new Map<
    string,
    { readonly dims: number; readonly count: number; readonly values: Float32Array }
  >();
  for (const feature of extractor.features) {
    const table = Object.hasOwn(reply.vectors, feature.feature_name)
      ? reply.vectors[feature.feature_name]
      : undefined;
    if (table === undefined) continue;
    const read = readVectors(table, feature.dims);
    if (typeof read === 'string') {
      failAll(`vectors of ${feature.feature_name}: ${read}`);
      return;
    }
    tables.set(feature.feature_name, read);
  }
  const known = new Set(given);
  const outputs = new Map<number, { ordinal: number; output: RowOutput }[]>();
  const faults = new Map<number, RowFault>();
  for (const entry of Array.isArray(reply.failures) ? (reply.failures as unknown[]) : []) {
    if (!isRecord(entry) || !known.has(entry.row as number)) continue;
    faults.set(
      entry.row as number,
      fault(String(entry.code), String(entry.message), entry.retryable === true, entry.traceback),
    );
  }
  for (const entry of reply.outputs as unknown[]) {
    if (!isRecord(entry) || !known.has(entry.row as number)) {
      failAll('an output belongs to no row that was given');
      return;
    }
    const row = entry.row as number;
    const list = outputs.get(row) ?? [];
    outputs.set(row, list);
    const output = readOutput(entry, extractor, tables);
    if ('code' in output) faults.set(row, faults.get(row) ?? output);
    else list.push({ ordinal: Number(entry.ordinal), output });
    if (list.length > outputsPerRowMax) {
      faults.set(row, fault('too_many_outputs', `more than ${outputsPerRowMax} outputs of one row`));
    }
  }
  const dropped = Array.isArray(reply.dropped) ? new Set(reply.dropped as unknown[]) : undefined;
  for (const row of given) {
    const one = faults.get(row);
    const list = outputs.get(row);
    if (one) results[row] = { fault: one };
    else if (list)
      results[row] = { outputs: list.sort((a, b) => a.ordinal - b.ordinal).map(({ output }) => output) };
    else if (!dropped || dropped.has(row)) results[row] = { outputs: [] };
    // Else the caller reports that nothing was said about the row.
  }
}

function readVectors(
  table: unknown,
  dims: number,
): { dims: number; count: number; values: Float32Array } | string {
  if (!isRecord(table) || typeof table.data_base64 !== 'string') return 'not {dims, count, data_base64}';
  if (table.dims !== dims) return `expected ${dims} dimensions, got ${String(table.dims)}`;
  const bytes = Buffer.from(table.data_base64, 'base64');
  const count = Number(table.count);
  if (!Number.isInteger(count) || count < 0 || bytes.length !== count * dims * 4) {
    return `${bytes.length} bytes are not ${String(table.count)} vectors of ${dims} float32 numbers`;
  }
  // A copy of its own: the decoded buffer may be a slice of a shared one at any offset.
  const copy = new Uint8Array(bytes.length);
  copy.set(bytes);
  return { dims, count, values: new Float32Array(copy.buffer) };
}

function readOutput(
  entry: Record<string, unknown>,
  extractor: Pick<StoredExtractor, 'features'>,
  tables: ReadonlyMap<
    string,
    { readonly dims: number; readonly count: number; readonly values: Float32Array }
  >,
): RowOutput | RowFault {
  const vectors = new Map<string, Float32Array>();
  const places = isRecord(entry.features) ? entry.features : {};
  for (const { feature_name: name } of extractor.features) {
    const place = Object.hasOwn(places, name) ? places[name] : null;
    if (place === null || place === undefined) continue;
    const table = tables.get(name);
    if (!table || !Number.isInteger(place) || (place as number) < 0 || (place as number) >= table.count) {
      return fault('plugin_protocol_error', `the vector of ${name} is not among those that came`);
    }
    const vector = table.values.subarray(
      (place as number) * table.dims,
      ((place as number) + 1) * table.dims,
    );
    for (let i = 0; i < vector.length; i++) {
      if (!Number.isFinite(vector[i]!))
        return fault('vector_not_finite', `${name}: value ${i} is ${vector[i]}`);
    }
    vectors.set(name, vector);
  }
  return { columns: readColumns(entry.columns), vectors };
}

const forbiddenNames = new Set(['__proto__', 'constructor', 'prototype']);

/** Columns that can be fields of a document; names of ours get a prefix, so that nothing is lost. */
function readColumns(columns: unknown): JsonObject {
  const fields: Record<string, Json> = {};
  if (!isRecord(columns)) return fields;
  for (const [name, value] of Object.entries(columns).slice(0, columnsMax)) {
    if (name === '' || name.length > 200 || forbiddenNames.has(name)) continue;
    fields[isReserved(name) ? `field_${name.replace(/^_+/, '')}` : name] = value as Json;
  }
  return fields;
}

/** The fields that an object gives to each of its documents: metadata, and on top the values of its properties. */
export function objectFields(object: PlannedObject): Record<string, Json> {
  const fields: Record<string, Json> = {};
  const take = (name: string, value: Attribute | undefined) => {
    if (value !== undefined && !isReserved(name) && !forbiddenNames.has(name)) fields[name] = value as Json;
  };
  for (const [name, value] of Object.entries(object.metadata)) take(name, value);
  const seen = new Map<string, Attribute[]>();
  for (const blob of object.blobs) {
    if (blob.data === undefined) continue;
    seen.set(blob.property, [...(seen.get(blob.property) ?? []), blob.data]);
  }
  for (const [name, values] of seen) take(name, values.length === 1 ? values[0] : values);
  return fields;
}
