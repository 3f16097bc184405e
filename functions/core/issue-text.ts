// Zod's issues in words: what is expected and what came, never the library's own sentences about types.
import type * as z from 'zod';

type Issue = z.core.$ZodIssue;

/** What came, for messages: "a list", "number 7", `the string "x"`. Long values are cut. */
export function received(input: unknown): string {
  if (input === undefined) return 'nothing';
  if (input === null) return 'null';
  if (Array.isArray(input)) return 'a list';
  if (typeof input === 'object') return 'an object';
  if (typeof input === 'string') return `the string ${JSON.stringify(input.slice(0, 60))}`;
  return `${typeof input} ${String(input).slice(0, 60)}`;
}

/** The value at a path of a parsed JSON tree; undefined where the path leads nowhere. */
export function valueAt(root: unknown, path: readonly PropertyKey[]): unknown {
  let value = root;
  for (const part of path) {
    if (value === null || typeof value !== 'object') return undefined;
    value = (value as Record<PropertyKey, unknown>)[part];
  }
  return value;
}

const articles: Readonly<Record<string, string>> = {
  array: 'a list',
  object: 'an object',
  record: 'an object',
  string: 'a string',
  number: 'a number',
  int: 'a whole number',
  boolean: 'true or false',
};

const formats: Readonly<Record<string, string>> = {
  datetime: 'an ISO 8601 time, such as 2026-01-31T12:00:00Z',
  date: 'an ISO 8601 date, such as 2026-01-31',
  email: 'an e-mail address',
  url: 'a URL',
};

/** Fields whose values no message may repeat. */
const secret = /secret|password|token|api_key/i;

function count(limit: number | bigint, origin: string): string {
  const nouns: Readonly<Record<string, string>> = {
    string: 'character',
    array: 'item',
    set: 'item',
    map: 'key',
  };
  const noun = nouns[origin] ?? 'entry';
  const many = noun === 'entry' ? 'entries' : `${noun}s`;
  return `${limit} ${Number(limit) === 1 ? noun : many}`;
}

const sizeOf = (value: unknown): number | undefined =>
  typeof value === 'string' || Array.isArray(value) ? value.length : undefined;

function sizeText(issue: z.core.$ZodIssueTooSmall | z.core.$ZodIssueTooBig, value: unknown): string {
  const [limit, atLeast] = issue.code === 'too_small' ? [issue.minimum, true] : [issue.maximum, false];
  if (['number', 'int', 'bigint'].includes(issue.origin)) {
    const bound =
      issue.inclusive === false ? (atLeast ? 'more than' : 'less than') : atLeast ? 'at least' : 'at most';
    return `must be ${bound} ${limit}, got ${received(value)}`;
  }
  const size = sizeOf(value);
  const got = size === undefined ? '' : `, got ${size}`;
  return `must have ${atLeast ? 'at least' : 'at most'} ${count(limit, issue.origin)}${got}`;
}

/** What an issue of a type or of fixed values asks for. */
function wantedBy(issue: z.core.$ZodIssueInvalidType | z.core.$ZodIssueInvalidValue): string {
  if (issue.code === 'invalid_value') return issue.values.map((one) => JSON.stringify(one)).join(', ');
  return articles[issue.expected] ?? issue.expected;
}

/**
 * The text for a union whose every branch refused the value as a whole: "must be a string or a number, got null".
 *
 * @returns undefined where a branch looked inside the value, and so has more to say
 */
export function unionText(branches: readonly (readonly Issue[])[], value: unknown): string | undefined {
  const wanted: string[] = [];
  for (const [issue, ...more] of branches) {
    const whole = issue?.code === 'invalid_type' || issue?.code === 'invalid_value' ? issue : undefined;
    if (!whole || more.length > 0 || whole.path.length > 0) return undefined;
    wanted.push(wantedBy(whole));
  }
  const text = [...new Set(wanted)].join(' or ');
  return value === undefined ? `required, ${text} is expected` : `must be ${text}, got ${received(value)}`;
}

/**
 * One issue in words. A message that the schema's author wrote stands, with what came after it.
 *
 * @param value what stands at the issue's path
 */
export function issueText(issue: Issue, value: unknown): string {
  switch (issue.code) {
    case 'invalid_type':
      return value === undefined
        ? `required, ${wantedBy(issue)} is expected`
        : `must be ${wantedBy(issue)}, got ${received(value)}`;
    case 'invalid_value':
      return `must be ${issue.values.length > 1 ? 'one of ' : ''}${wantedBy(issue)}, got ${received(value)}`;
    case 'too_small':
    case 'too_big':
      return /^Too (small|big):/.test(issue.message) ? sizeText(issue, value) : issue.message;
    case 'not_multiple_of':
      return `must be a multiple of ${issue.divisor}, got ${received(value)}`;
    case 'invalid_format': {
      const got = issue.path.some((part) => secret.test(String(part))) ? '' : `, got ${received(value)}`;
      if (!issue.message.startsWith('Invalid ')) return issue.message + got;
      const wanted = formats[issue.format];
      return (wanted === undefined ? 'has not the right form' : `must be ${wanted}`) + got;
    }
    default:
      return issue.message;
  }
}
