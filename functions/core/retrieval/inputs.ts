// Inputs of a retriever: which ones its templates need, and whether a request gives them in the right types.
import { type Fault, isObject, kindOf, type Path } from './faults.ts';

/** One declared input, as the client's `input_schema` has it. */
export interface InputField {
  readonly type: string;
  readonly required: boolean;
  readonly default?: unknown;
  readonly description?: string;
  readonly enum?: readonly unknown[];
  readonly [key: string]: unknown;
}

export type InputSchema = Readonly<Record<string, InputField>>;

/** JSON kind behind each type name; the many kinds of media and dates travel as texts. */
const kinds: Readonly<
  Record<string, 'string' | 'number' | 'integer' | 'boolean' | 'array' | 'object' | 'any'>
> = {
  any: 'any',
  string: 'string',
  text: 'string',
  url: 'string',
  email: 'string',
  date: 'string',
  datetime: 'string',
  image: 'string',
  video: 'string',
  audio: 'string',
  pdf: 'string',
  document: 'string',
  document_id: 'string',
  number: 'number',
  float: 'number',
  integer: 'integer',
  boolean: 'boolean',
  array: 'array',
  vector: 'array',
  object: 'object',
  json: 'any',
};

const fieldKeys = ['type', 'required', 'default', 'description', 'enum', 'items', 'properties', 'examples'];
const nameForm = /^[^\s.|[\](){}'",%\\]{1,100}$/u;

/** Reads an `input_schema`; anything that is not one becomes faults under `path`. */
export function readInputSchema(value: unknown, path: Path): { schema: InputSchema; faults: Fault[] } {
  const faults: Fault[] = [];
  const schema: Record<string, InputField> = {};
  const wrong = (at: Path, message: string, type = 'value_error') =>
    faults.push({ type, path: [...path, ...at], message });
  if (value === undefined || value === null) return { schema, faults };
  if (!isObject(value)) {
    wrong([], `expected an object of inputs by name, got ${kindOf(value)}`);
    return { schema, faults };
  }
  for (const [name, field] of Object.entries(value)) {
    if (!nameForm.test(name) || ['__proto__', 'constructor', 'prototype'].includes(name)) {
      wrong([name], 'this cannot be the name of an input');
      continue;
    }
    if (!isObject(field)) {
      wrong([name], `expected {type, required, …}, got ${kindOf(field)}`);
      continue;
    }
    for (const key of Object.keys(field)) {
      if (!fieldKeys.includes(key)) {
        wrong([name, key], `unknown key "${key}"; accepted are ${fieldKeys.join(', ')}`, 'extra_forbidden');
      }
    }
    const { type, required, enum: choices } = field;
    if (typeof type !== 'string' || !Object.hasOwn(kinds, type)) {
      wrong([name, 'type'], `unknown type; there are ${Object.keys(kinds).join(', ')}`);
      continue;
    }
    if (required !== undefined && required !== null && typeof required !== 'boolean') {
      wrong([name, 'required'], `expected true or false, got ${kindOf(required)}`);
    }
    if (choices !== undefined && choices !== null && !Array.isArray(choices)) {
      wrong([name, 'enum'], `expected a list, got ${kindOf(choices)}`);
    }
    const present = Object.entries(field).filter(([, part]) => part !== null && part !== undefined);
    schema[name] = { ...Object.fromEntries(present), type, required: required === true };
    const message = field.default == null ? undefined : valueFault(schema[name], field.default);
    if (message !== undefined) wrong([name, 'default'], message);
  }
  return { schema, faults };
}

function valueFault(field: InputField, value: unknown): string | undefined {
  const kind = Object.hasOwn(kinds, field.type) ? kinds[field.type] : 'any';
  const right =
    kind === 'any' ||
    (kind === 'integer' && Number.isInteger(value)) ||
    (kind === 'array' && Array.isArray(value)) ||
    (kind === 'object' && isObject(value)) ||
    (kind !== 'object' && typeof value === kind);
  if (!right) return `expected ${field.type}, got ${kindOf(value)}`;
  if (!Array.isArray(field.enum)) return undefined;
  const found = field.enum.some((choice: unknown) => JSON.stringify(choice) === JSON.stringify(value));
  return found ? undefined : `expected one of ${JSON.stringify(field.enum).slice(0, 300)}`;
}

/**
 * Checks the inputs of a run and fills in defaults.
 *
 * Nothing is coerced. An input that is null counts as not given. Inputs that no stage reads become warnings, because
 * they are mostly typos.
 *
 * @returns inputs with own properties only; faults under `inputs`
 */
export function checkInputs(
  schema: InputSchema,
  used: readonly string[],
  inputs: Readonly<Record<string, unknown>>,
): { inputs: Record<string, unknown>; faults: Fault[]; warnings: string[] } {
  const faults: Fault[] = [];
  const given = new Map(Object.entries(inputs).filter(([, value]) => value !== null && value !== undefined));
  for (const [name, field] of Object.entries(schema)) {
    const value = given.get(name);
    if (value !== undefined) {
      const message = valueFault(field, value);
      if (message !== undefined) faults.push({ type: 'input_wrong_type', path: ['inputs', name], message });
    } else if (field.default !== undefined) given.set(name, field.default);
    else if (field.required) {
      const message = `the input "${name}" is missing`;
      const fix = `send {"inputs": {${JSON.stringify(name)}: …}}`;
      faults.push({ type: 'input_missing', path: ['inputs', name], message, fix });
    }
  }
  const warnings = Object.keys(inputs)
    .filter((name) => !used.includes(name) && !Object.hasOwn(schema, name))
    .map((name) => `No stage uses the input ${JSON.stringify(name.slice(0, 100))}.`);
  return { inputs: Object.fromEntries(given), faults, warnings };
}
