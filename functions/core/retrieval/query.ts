// The query of one feature search: every spelling in, four forms out (text, content, vector, document).
import * as z from 'zod';
import { type Fault, isObject, kindOf, type Path } from './faults.ts';
import { addFault } from './stages/parameters.ts';
import { hasTemplate, isExactTemplate } from './template.ts';

/** Longest query text, in UTF-8 bytes (api rules, section 12). */
export const queryBytesMax = 32 * 1024;

/** A query as it is stored. Texts may hold templates; a vector may be one template. */
export type Query =
  | { readonly input_mode: 'text'; readonly text: string }
  /** A text or a file, as the feature is made of; a file is an https URL, a `data:` URI, or base64. */
  | { readonly input_mode: 'content'; readonly content: string; readonly mime_type?: string }
  | { readonly input_mode: 'vector'; readonly vector: string | readonly number[] }
  | { readonly input_mode: 'document'; readonly document_id: string; readonly collection_id?: string };

const modes = ['text', 'content', 'vector', 'document'] as const;
type Mode = (typeof modes)[number];
const keysOf: Record<Mode, readonly string[]> = {
  text: ['text', 'value', 'content'],
  content: ['content', 'value', 'text', 'mime_type'],
  vector: ['vector', 'value'],
  document: ['document_id', 'collection_id', 'document_ref', 'value'],
};
const example = '{"input_mode": "text", "text": "{{INPUT.query}}"}';

class QueryFault {
  readonly fault: Fault;
  constructor(path: Path, message: string, fix?: string) {
    const type = 'query_invalid';
    this.fault = fix === undefined ? { type, path, message } : { type, path, message, fix };
  }
}

function modeOf(query: Record<string, unknown>): Mode {
  const { input_mode } = query;
  if (input_mode !== undefined) {
    const mode = modes.find((candidate) => candidate === input_mode);
    if (!mode) {
      const got =
        typeof input_mode === 'string' ? JSON.stringify(input_mode.slice(0, 60)) : kindOf(input_mode);
      throw new QueryFault(['input_mode'], `there is no input mode ${got}`, `one of: ${modes.join(', ')}`);
    }
    return mode;
  }
  if ('vector' in query || Array.isArray(query.value)) return 'vector';
  if ('document_id' in query || 'document_ref' in query) return 'document';
  if ('text' in query || 'content' in query || 'value' in query) return 'text';
  throw new QueryFault([], 'the query has neither a text, a vector nor a document', `write ${example}`);
}

/** The one value among the spellings of a fact; two spellings must agree. */
function oneOf(query: Record<string, unknown>, names: readonly string[]): { name: string; value: unknown } {
  const given = names.filter((name) => query[name] !== undefined);
  const [first] = given;
  if (first === undefined) throw new QueryFault([], `the query lacks "${names[0]}"`);
  const other = given.find((name) => JSON.stringify(query[name]) !== JSON.stringify(query[first]));
  if (other)
    throw new QueryFault([other], `"${other}" and "${first}" say different things; give one of them`);
  return { name: first, value: query[first] };
}

function documentOf(query: Record<string, unknown>): Query {
  const nested = query.document_ref ?? (isObject(query.value) ? query.value : undefined);
  const at = query.document_ref !== undefined ? 'document_ref' : 'value';
  if (nested !== undefined) {
    if (query.document_id !== undefined || query.collection_id !== undefined) {
      throw new QueryFault([at], `give either ${at} or document_id and collection_id`);
    }
    if (!isObject(nested))
      throw new QueryFault([at], `expected {document_id, collection_id}, got ${kindOf(nested)}`);
    const extra = Object.keys(nested).find((key) => key !== 'document_id' && key !== 'collection_id');
    if (extra !== undefined)
      throw new QueryFault([at, extra], 'unknown key; accepted are document_id, collection_id');
  }
  const source: Record<string, unknown> =
    nested ??
    (query.value === undefined ? query : { document_id: query.value, collection_id: query.collection_id });
  const { document_id, collection_id } = source;
  if (typeof document_id !== 'string' || document_id === '') {
    throw new QueryFault([], `document_id: expected an id, got ${kindOf(document_id)}`);
  }
  if (collection_id === undefined || collection_id === null) return { input_mode: 'document', document_id };
  if (typeof collection_id !== 'string') {
    throw new QueryFault([], `collection_id: expected an id, got ${kindOf(collection_id)}`);
  }
  return { input_mode: 'document', document_id, collection_id };
}

/** A vector as it is written: finite numbers, at least one, at most 4096. @returns what is wrong, if anything */
export function vectorFault(value: unknown): string | undefined {
  if (!Array.isArray(value)) return `expected a list of numbers, got ${kindOf(value)}`;
  if (value.length < 1 || value.length > 4096) return `expected 1 to 4096 numbers, got ${value.length}`;
  const bad = value.findIndex((item) => typeof item !== 'number' || !Number.isFinite(Math.fround(item)));
  return bad < 0 ? undefined : `number ${bad + 1} of the vector is not a finite float32`;
}

/** @throws QueryFault */
function readQuery(value: unknown): Query {
  if (typeof value === 'string') return { input_mode: 'text', text: value };
  if (!isObject(value)) {
    throw new QueryFault([], `expected a text or an object, got ${kindOf(value)}`, `write ${example}`);
  }
  const mode = modeOf(value);
  const accepted = ['input_mode', ...keysOf[mode]];
  const extra = Object.keys(value).find((key) => !accepted.includes(key));
  if (extra !== undefined) {
    throw new QueryFault([extra], `unknown key for the mode ${mode}; accepted are ${accepted.join(', ')}`);
  }
  if (mode === 'document') return documentOf(value);
  const { name, value: given } = oneOf(
    value,
    keysOf[mode].filter((key) => key !== 'mime_type'),
  );
  if (mode === 'vector') {
    if (typeof given === 'string' && isExactTemplate(given)) return { input_mode: 'vector', vector: given };
    const message = vectorFault(given);
    if (message !== undefined) throw new QueryFault([name], message);
    return { input_mode: 'vector', vector: given as number[] };
  }
  if (typeof given !== 'string') {
    throw new QueryFault([name], `expected a text, got ${kindOf(given)}`);
  }
  if (mode === 'text') return { input_mode: 'text', text: given };
  const { mime_type } = value;
  if (mime_type === undefined || mime_type === null) return { input_mode: 'content', content: given };
  const message = hasTemplate(String(mime_type)) ? undefined : mimeTypeFault(mime_type);
  if (message !== undefined) throw new QueryFault(['mime_type'], message, 'write one such as "image/png"');
  return { input_mode: 'content', content: given, mime_type: mime_type as string };
}

/** @returns what is wrong with a media type, if anything */
export function mimeTypeFault(value: unknown): string | undefined {
  if (typeof value !== 'string') return `expected a media type, got ${kindOf(value)}`;
  return /^[a-z]+\/[a-z0-9][a-z0-9.+-]{0,80}$/i.test(value)
    ? undefined
    : `${JSON.stringify(value.slice(0, 60))} is not a media type`;
}

/** Schema of `query`. */
export const querySchema = z
  .unknown()
  .transform((value, ctx): Query => {
    try {
      return readQuery(value);
    } catch (error) {
      if (!(error instanceof QueryFault)) throw error;
      addFault(ctx, error.fault, value);
      return z.NEVER;
    }
  })
  .meta({
    description: `A text (which may hold templates), or an object such as ${example}. For features that are made of images, sound or PDF: {"input_mode": "content", "value": an https URL, a data: URI or base64, "mime_type": "image/png"}`,
    type: ['string', 'object'],
  });
