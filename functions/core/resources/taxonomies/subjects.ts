// What is classified: documents or bare inputs, and how the inputs of a retriever come out of a document.
import { canonicalField } from '../../conditions/index.ts';
import type { InputSchema } from '../../retrieval/index.ts';
import { queryBytesMax } from '../../retrieval/query.ts';
import type { Json, JsonObject } from '../documents/service.ts';
import type { InputMapping } from './store.ts';

/** Something to classify: a document, or inputs as they are. */
export interface Subject {
  /** Not a reference of itself. */
  readonly document_id?: string;
  /** Of a stored document. */
  readonly collection_id?: string;
  readonly fields?: JsonObject;
  readonly inputs?: JsonObject;
}

/** A field of a document by its path, own properties only; undefined if it is not there. */
export function readField(fields: JsonObject, path: string): Json | undefined {
  const name = canonicalField(path);
  if (Object.hasOwn(fields, name)) return fields[name];
  let value: Json | undefined = fields;
  for (const part of name.split('.')) {
    if (value === null || typeof value !== 'object' || Array.isArray(value) || !Object.hasOwn(value, part))
      return undefined;
    value = (value as JsonObject)[part];
  }
  return value;
}

/** The beginning of a text that a search accepts. */
export function clip(text: string): string {
  const bytes = Buffer.from(text);
  if (bytes.length <= queryBytesMax) return text;
  // A character that was cut through decodes as U+FFFD.
  return bytes
    .subarray(0, queryBytesMax)
    .toString('utf8')
    .replace(/\uFFFD+$/u, '');
}

/**
 * Which inputs subjects without any match lack, and where those would have come from: mostly a misspelt field.
 *
 * @param given what each of them was searched by
 * @returns a warning for each input that some of them lack; without their number, so that searches that make up one
 *   piece of work all say the same
 */
export function lackOfInputs(
  subjects: readonly Subject[],
  given: readonly JsonObject[],
  mappings: readonly InputMapping[],
  schema: InputSchema,
): string[] {
  return mappings.flatMap(({ input_key, source_type, path }) => {
    const ofText = ['string', 'text'].includes(schema[input_key]?.type ?? '');
    const lacking = subjects.filter((_, i) => {
      const value = given[i]![input_key] ?? null;
      return ofText ? typeof value !== 'string' || value.trim() === '' : value === null;
    });
    const isDocument = ({ inputs }: Subject) => !inputs;
    const name = JSON.stringify(input_key);
    return [
      ...(lacking.some(isDocument) && source_type === 'payload'
        ? [
            `Nothing could be compared for documents without ${ofText ? 'a text in ' : ''}the field ${JSON.stringify(path)}, which is the input ${name}.`,
          ]
        : []),
      ...(!lacking.every(isDocument)
        ? [`Nothing could be compared: the inputs lack ${ofText ? 'a text for ' : ''}${name}.`]
        : []),
    ];
  });
}

/** The retriever's inputs of one document; what the document does not have is left out. */
export function inputsOf(
  fields: JsonObject,
  mappings: readonly InputMapping[],
  schema: InputSchema,
): JsonObject {
  const inputs: Record<string, Json> = {};
  for (const [name, field] of Object.entries(schema)) {
    if (field.default !== undefined) inputs[name] = field.default as Json;
  }
  for (const { input_key, source_type, path, override } of mappings) {
    const value = source_type === 'literal' ? override : readField(fields, path!);
    if (value !== undefined && value !== null)
      inputs[input_key] = typeof value === 'string' ? clip(value) : value;
  }
  return inputs;
}
