// Faults in retriever definitions and requests: collected with their paths, thrown all at once.
import type * as z from 'zod';
import { type ErrorCode, type FieldFault, invalid } from '../errors.ts';
import { issueText, valueAt } from '../issue-text.ts';

/** The way to a value in a parsed JSON tree: keys and list positions. */
export type Path = readonly (string | number)[];

/** One thing that is wrong, where it is, and what to write instead where that is known. */
export interface Fault {
  /** Stable word for the kind of fault, such as `template_unknown_root`. */
  readonly type: string;
  readonly path: Path;
  readonly message: string;
  readonly fix?: string;
}

/** Puts `path` before the paths of `faults`. */
export function under(path: Path, faults: readonly Fault[]): Fault[] {
  return faults.map((fault) => ({ ...fault, path: [...path, ...fault.path] }));
}

/** Most faults that one answer lists: enough to mend a request, small enough to read. */
const faultsMax = 100;

/**
 * Throws one 422 with every fault (the first hundred), or does nothing when there is none.
 *
 * @throws `code`, with locations that begin with `body`
 */
export function throwFaults(code: ErrorCode, faults: readonly Fault[]): void {
  if (faults.length === 0) return;
  const fields: FieldFault[] = faults.slice(0, faultsMax).map(({ type, path, message, fix }) => {
    const location = ['body', ...path];
    return fix === undefined ? { type, location, message } : { type, location, message, fix };
  });
  throw invalid(code, fields);
}

/** What kind of JSON value this is, for messages: "got a list". Never shows the value itself. */
export function kindOf(value: unknown): string {
  if (value === null) return 'null';
  if (value === undefined) return 'nothing';
  if (Array.isArray(value)) return 'a list';
  if (typeof value === 'object') return 'an object';
  return `a ${typeof value}`;
}

/** Whether `value` is a JSON object: not null, not a list. */
export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/**
 * The faults of a failed zod parse. `fix` of an unknown key comes from the issue's `params.fix`, if it has one.
 *
 * @param input what was parsed, so that messages can say what came
 */
export function faultsOfZod(error: z.ZodError, input: unknown): Fault[] {
  return error.issues.flatMap((issue): Fault[] => {
    const path = issue.path.map((step) => (typeof step === 'symbol' ? String(step) : step));
    if (issue.code === 'unrecognized_keys') {
      return issue.keys.map((key) => ({
        type: 'extra_forbidden',
        path: [...path, key],
        message: `unknown key ${JSON.stringify(key)}; ${issue.message}`,
      }));
    }
    const fix =
      issue.code === 'custom' && typeof issue.params?.fix === 'string' ? issue.params.fix : undefined;
    const value = valueAt(input, issue.path);
    const isMissing = issue.code === 'invalid_type' && value === undefined;
    const type =
      issue.code === 'custom'
        ? ((issue.params?.type as string | undefined) ?? 'value_error')
        : isMissing
          ? 'missing'
          : issue.code;
    const message = issueText(issue, value);
    return [fix === undefined ? { type, path, message } : { type, path, message, fix }];
  });
}
