// Checks the body of an object against its bucket's schema: every fault with its path, traps with the right form.
import type { FieldFault } from '../../errors.ts';
import { isReserved } from '../../reserved-fields.ts';
import type { BucketSchema, Property, PropertyType } from '../buckets/contract.ts';
import { binaryTypes } from '../buckets/contract.ts';

/** A blob that fits the schema. Either `data` or `upload_id` or `source_url` is set. */
export interface CheckedBlob {
  readonly property: string;
  readonly type: PropertyType;
  readonly data?: unknown;
  readonly upload_id?: string;
  /** Binary content to be fetched, and where in the request it was asked for. */
  readonly source_url?: string;
  readonly source_at?: Location;
}

export interface CheckedObject {
  readonly blobs: readonly CheckedBlob[];
  readonly metadata: Readonly<Record<string, unknown>> | undefined;
  readonly key_prefix: string | null | undefined;
}

export type CheckResult =
  | { readonly ok: true; readonly object: CheckedObject }
  | { readonly ok: false; readonly faults: readonly FieldFault[] };

export const objectLimits = { inlineBytesMax: 256_000, blobsMax: 100, metadataBytesMax: 32_000 } as const;

type Location = readonly (string | number)[];

const binary = new Set<string>(binaryTypes);
export const isBinary = (type: string): boolean => binary.has(type);

/** Keys of the body that are not properties of the schema. `skip_duplicates` and the like are client hints. */
const ownKeys = new Set(['blobs', 'metadata', 'key_prefix', 'idempotency_key']);
const hintKeys = new Set(['skip_duplicates', 'canonicalize_source', 'force_remirror', 'edges']);
const blobKeys = new Set([
  'property',
  'type',
  'data',
  'upload_id',
  'metadata',
  'key_prefix',
  'checksum',
  'canonicalize_source',
  'force_remirror',
]);

const rightForm = 'blobs is a list: [{"property": "text", "type": "text", "data": "..."}]';

function kindOf(value: unknown): string {
  if (value === null) return 'null';
  if (Array.isArray(value)) return 'a list';
  if (typeof value === 'object') return 'an object';
  return typeof value === 'string'
    ? `the string ${JSON.stringify(value.slice(0, 40))}`
    : `${typeof value} ${String(value).slice(0, 40)}`;
}

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** What is wrong with a value for a type; undefined: nothing. */
function valueFault(type: PropertyType, value: unknown): string | undefined {
  switch (type) {
    case 'text':
    case 'string':
      return typeof value === 'string' ? undefined : `must be a string, got ${kindOf(value)}`;
    case 'number':
    case 'float':
      return typeof value === 'number' ? undefined : `must be a number, got ${kindOf(value)}`;
    case 'integer':
      return Number.isSafeInteger(value) ? undefined : `must be a whole number, got ${kindOf(value)}`;
    case 'boolean':
      return typeof value === 'boolean' ? undefined : `must be true or false, got ${kindOf(value)}`;
    case 'datetime':
    case 'date':
      return typeof value === 'string' && /^\d{4}-\d{2}-\d{2}/.test(value) && !Number.isNaN(Date.parse(value))
        ? undefined
        : `must be an ISO 8601 ${type}, such as ${type === 'date' ? '2026-01-31' : '2026-01-31T12:00:00Z'}, got ${kindOf(value)}`;
    case 'array':
      return Array.isArray(value) ? undefined : `must be a list, got ${kindOf(value)}`;
    case 'object':
      return isRecord(value) ? undefined : `must be an object, got ${kindOf(value)}`;
    case 'json':
      return undefined;
    case 'url':
      return typeof value === 'string' && URL.canParse(value)
        ? undefined
        : `must be a URL, got ${kindOf(value)}`;
    default:
      return typeof value === 'string' && /^https?:\/\//.test(value)
        ? undefined
        : `must be the https URL of the content, got ${kindOf(value)}`;
  }
}

class Checker {
  readonly faults: FieldFault[] = [];
  readonly #schema: BucketSchema;
  readonly #at: Location;

  constructor(schema: BucketSchema, at: Location) {
    this.#schema = schema;
    this.#at = at;
  }

  report(type: string, path: Location, message: string, fix?: string): void {
    this.faults.push({
      type,
      location: [...this.#at, ...path],
      message,
      ...(fix === undefined ? {} : { fix }),
    });
  }

  property(name: string, path: Location): Property | undefined {
    const property = Object.hasOwn(this.#schema.properties, name) ? this.#schema.properties[name] : undefined;
    if (!property) {
      this.report(
        'property_unknown',
        path,
        `the bucket has no property "${name.slice(0, 60)}"`,
        `one of: ${Object.keys(this.#schema.properties).join(', ')}`,
      );
    }
    return property;
  }

  value(name: string, property: Property, value: unknown, path: Location): CheckedBlob | undefined {
    const wrong = valueFault(property.type, value);
    if (wrong !== undefined) {
      const fix = isBinary(property.type)
        ? 'upload the file and give its upload_id, or give an https URL'
        : undefined;
      this.report('wrong_type', path, wrong, fix);
      return undefined;
    }
    if (property.enum && !property.enum.includes(value as string | number)) {
      this.report(
        'wrong_value',
        path,
        `must be one of ${property.enum.map((v) => JSON.stringify(v)).join(', ')}, got ${kindOf(value)}`,
      );
      return undefined;
    }
    if (isBinary(property.type)) {
      return {
        property: name,
        type: property.type,
        source_url: value as string,
        source_at: [...this.#at, ...path],
      };
    }
    const bytes = Buffer.byteLength(typeof value === 'string' ? value : JSON.stringify(value));
    if (bytes > objectLimits.inlineBytesMax) {
      this.report(
        'too_large',
        path,
        `has ${bytes} bytes; at most ${objectLimits.inlineBytesMax} fit inline`,
        'send it by an upload',
      );
      return undefined;
    }
    return { property: name, type: property.type, data: value };
  }

  blob(value: unknown, index: number): CheckedBlob | undefined {
    const at: Location = ['blobs', index];
    if (!isRecord(value)) {
      this.report('wrong_type', at, `must be an object, got ${kindOf(value)}`, rightForm);
      return undefined;
    }
    for (const key of Object.keys(value)) {
      if (!blobKeys.has(key))
        this.report(
          'extra_forbidden',
          [...at, key],
          `unknown key "${key.slice(0, 60)}"`,
          `accepted keys: ${[...blobKeys].slice(0, 5).join(', ')}`,
        );
    }
    const name = value.property;
    if (typeof name !== 'string') {
      this.report(
        'missing',
        [...at, 'property'],
        name === undefined
          ? 'required: the property of the bucket schema that this blob fills'
          : `must be a string, got ${kindOf(name)}`,
      );
      return undefined;
    }
    const property = this.property(name, [...at, 'property']);
    if (typeof value.type !== 'string') {
      this.report(
        'missing',
        [...at, 'type'],
        value.type === undefined
          ? 'required: the type of the property'
          : `must be a string, got ${kindOf(value.type)}`,
        property ? `"type": "${property.type}"` : undefined,
      );
    } else if (property && value.type.toLowerCase() !== property.type) {
      this.report(
        'wrong_value',
        [...at, 'type'],
        `the property "${name}" has the type "${property.type}", got "${value.type.slice(0, 40)}"`,
        `"type": "${property.type}"`,
      );
    }
    if (!property) return undefined;
    const { data, upload_id: uploadId } = value;
    if (uploadId !== undefined && uploadId !== null) {
      if (data !== undefined && data !== null)
        this.report('wrong_value', [...at, 'upload_id'], 'give data or upload_id, not both');
      if (typeof uploadId !== 'string' || !/^upl_[a-z0-9]{20}$/.test(uploadId)) {
        this.report('wrong_value', [...at, 'upload_id'], 'is not the id of an upload');
        return undefined;
      }
      return { property: name, type: property.type, upload_id: uploadId };
    }
    if (data === undefined || data === null) {
      this.report(
        'missing',
        [...at, 'data'],
        'required: the value of the blob',
        isBinary(property.type) ? 'an https URL, or upload_id instead' : '"data": ...',
      );
      return undefined;
    }
    return this.value(name, property, data, [...at, 'data']);
  }

  blobs(value: unknown): CheckedBlob[] {
    if (!Array.isArray(value)) {
      this.report('wrong_type', ['blobs'], `must be a list, got ${kindOf(value)}`, rightForm);
      return [];
    }
    if (value.length > objectLimits.blobsMax)
      this.report(
        'too_large',
        ['blobs'],
        `holds ${value.length} blobs; at most ${objectLimits.blobsMax} are accepted`,
      );
    return value
      .slice(0, objectLimits.blobsMax)
      .map((blob, i) => this.blob(blob, i))
      .filter((blob) => blob !== undefined);
  }

  metadata(value: unknown): Readonly<Record<string, unknown>> | undefined {
    if (value === undefined || value === null) return undefined;
    if (!isRecord(value)) {
      this.report('wrong_type', ['metadata'], `must be an object, got ${kindOf(value)}`);
      return undefined;
    }
    if (Buffer.byteLength(JSON.stringify(value)) > objectLimits.metadataBytesMax) {
      this.report('too_large', ['metadata'], `has more than ${objectLimits.metadataBytesMax} bytes`);
    }
    for (const key of Object.keys(value)) {
      if (isReserved(key)) {
        this.report(
          'wrong_value',
          ['metadata', key],
          `the field name "${key.slice(0, 60)}" is reserved: documents keep values of the service there`,
          'choose another name',
        );
      }
    }
    return value;
  }

  /** Every required property has a value among `present`. */
  required(present: ReadonlySet<string>): void {
    for (const [name, property] of Object.entries(this.#schema.properties)) {
      if (property.required && !present.has(name)) {
        this.report(
          'missing',
          ['blobs'],
          `the property "${name}" is required`,
          `add {"property": "${name}", "type": "${property.type}", "data": ...}`,
        );
      }
    }
  }
}

/**
 * Checks the body of a create, or of an update with `partial` (nothing is required then).
 *
 * @param at where the object stands in the request: `["body"]`, or `["body", "objects", 3]`.
 */
export function checkObject(schema: BucketSchema, body: unknown, at: Location, partial = false): CheckResult {
  const checker = new Checker(schema, at);
  if (!isRecord(body)) {
    checker.report(
      'wrong_type',
      [],
      `must be an object, got ${kindOf(body)}`,
      `{${rightForm.replace('blobs is a list: ', '"blobs": ')}}`,
    );
    return { ok: false, faults: checker.faults };
  }
  const blobs = body.blobs === undefined ? [] : checker.blobs(body.blobs);
  const fromRoot: CheckedBlob[] = [];
  for (const [key, value] of Object.entries(body)) {
    if (ownKeys.has(key) || hintKeys.has(key)) continue;
    const property = Object.hasOwn(schema.properties, key) ? schema.properties[key] : undefined;
    if (!property) {
      checker.report(
        'extra_forbidden',
        [key],
        `"${key.slice(0, 60)}" is neither a key of objects nor a property of the bucket`,
        `put free fields under "metadata"; properties: ${Object.keys(schema.properties).join(', ')}`,
      );
      continue;
    }
    const blob = checker.value(key, property, value, [key]);
    if (blob) fromRoot.push(blob);
  }
  const all = [...blobs, ...fromRoot];
  const metadata = checker.metadata(body.metadata);
  const prefix = body.key_prefix;
  if (prefix !== undefined && prefix !== null && (typeof prefix !== 'string' || prefix.length > 500)) {
    checker.report('wrong_type', ['key_prefix'], 'must be a string of at most 500 characters');
  }
  if (!partial) {
    const named = new Set(all.map((blob) => blob.property));
    // A blob that is there with another fault is not missing too.
    if (Array.isArray(body.blobs))
      for (const blob of body.blobs)
        if (isRecord(blob) && typeof blob.property === 'string') named.add(blob.property);
    for (const key of Object.keys(body)) named.add(key);
    const defaults = Object.entries(schema.properties).filter(
      ([name, p]) => p.default !== undefined && !named.has(name),
    );
    for (const [name, property] of defaults) {
      all.push({ property: name, type: property.type, data: property.default });
      named.add(name);
    }
    if (!checker.faults.some((f) => f.location.length === at.length + 1 && f.location.at(-1) === 'blobs'))
      checker.required(named);
    if (all.length === 0 && checker.faults.length === 0)
      checker.report('missing', ['blobs'], 'an object needs at least one blob', rightForm);
  }
  if (checker.faults.length > 0) return { ok: false, faults: checker.faults };
  return { ok: true, object: { blobs: all, metadata, key_prefix: prefix as string | null | undefined } };
}
