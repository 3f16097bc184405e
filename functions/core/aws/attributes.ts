// Values of a row <-> DynamoDB's typed attributes. By hand, because the SDK's converter refuses numbers beyond 2^53, and
// users and plugins send any number that JSON or a float can hold.
import type { AttributeValue } from '@aws-sdk/client-dynamodb';
import type { Attribute, Item } from '../store/table.ts';

/** The service keeps 38 digits between these magnitudes; a float has 17 digits, so only the magnitude can be too much. */
const magnitudeMin = 1e-130;
const magnitudeMax = 9e125;

/**
 * The typed form of a value; members of maps that are `undefined` are left out.
 *
 * A number beyond what the service's numbers hold travels as a set of one text: our rows have no sets of their own.
 *
 * @throws TypeError for what is no attribute (a Date, a Map, a function)
 */
export function toAttribute(value: Attribute): AttributeValue {
  if (value === null) return { NULL: true };
  switch (typeof value) {
    case 'string':
      return { S: value };
    case 'boolean':
      return { BOOL: value };
    case 'number': {
      const magnitude = Math.abs(value);
      const fits = value === 0 || (magnitude >= magnitudeMin && magnitude <= magnitudeMax);
      return fits ? { N: String(value) } : { SS: [String(value)] };
    }
    case 'object':
      break;
    default:
      throw new TypeError(`a row cannot hold a ${typeof value}`);
  }
  if (value instanceof Uint8Array) return { B: value };
  if (Array.isArray(value)) return { L: (value as readonly Attribute[]).map(toAttribute) };
  const prototype: unknown = Object.getPrototypeOf(value);
  if (prototype !== Object.prototype && prototype !== null)
    throw new TypeError(`a row cannot hold a ${value.constructor?.name}`);
  return { M: toAttributes(value as Readonly<Record<string, Attribute | undefined>>) };
}

/** The typed form of each member of a row or key. */
export function toAttributes(
  members: Readonly<Record<string, Attribute | undefined>>,
): Record<string, AttributeValue> {
  const typed: [string, AttributeValue][] = [];
  for (const [name, value] of Object.entries(members))
    if (value !== undefined) typed.push([name, toAttribute(value)]);
  // fromEntries makes own properties of every name, `__proto__` too.
  return Object.fromEntries(typed);
}

/** @throws Error for a type that we never write. */
export function fromAttribute(typed: AttributeValue): Attribute {
  if (typed.S !== undefined) return typed.S;
  if (typed.N !== undefined) return Number(typed.N);
  if (typed.BOOL !== undefined) return typed.BOOL;
  if (typed.NULL !== undefined) return null;
  if (typed.B !== undefined) return typed.B;
  if (typed.L !== undefined) return typed.L.map(fromAttribute);
  if (typed.M !== undefined) return fromAttributes(typed.M);
  if (typed.SS?.length === 1) return Number(typed.SS[0]);
  throw new Error(`a row holds an attribute of the type ${Object.keys(typed).join()}, which is not ours`);
}

export function fromAttributes(typed: Readonly<Record<string, AttributeValue>>): Record<string, Attribute> {
  return Object.fromEntries(Object.entries(typed).map(([name, value]) => [name, fromAttribute(value)]));
}

/** A row as the table's stream brings it; bytes come as base64 there, which no outbox row has. */
export function rowOfImage(image: Readonly<Record<string, unknown>>): Item {
  return fromAttributes(image as Readonly<Record<string, AttributeValue>>) as Item;
}
