// The body of an execute request: `input` and `inputs`, both spellings of a page, and the mistakes people make.
import { type Fault, isObject, kindOf, throwFaults } from './faults.ts';
import { type Pagination, readPagination } from './pagination.ts';

/** An execute request in its one form. */
export interface ExecuteRequest {
  readonly inputs: Readonly<Record<string, unknown>>;
  readonly filters?: unknown;
  readonly pagination: Pagination;
  readonly stream: boolean;
  readonly return_vectors: boolean;
  readonly return_presigned_urls: boolean;
  readonly explain: boolean;
  /** By collection id: which version of its index to read; the current one of all others. */
  readonly index_versions?: Readonly<Record<string, number>>;
  readonly allow_partial: boolean;
  /** Members that belong to the route, such as `stages` of an ad hoc run: as they came. */
  readonly rest: Readonly<Record<string, unknown>>;
}

const flags = ['stream', 'return_vectors', 'return_presigned_urls', 'explain', 'allow_partial'] as const;
/** Asks for what always holds: nothing is cached, reads are consistent, `results` is always there. */
const withoutEffect = ['skip_cache', 'consistency', 'write_token', 'include_legacy_results'];
const own = [
  'inputs',
  'input',
  'filters',
  'limit',
  'pagination',
  'index_versions',
  ...flags,
  ...withoutEffect,
];
const versionsForm = 'send {"index_versions": {"<collection id>": 12}}';
const rightForm = '{"inputs": {"query": "…"}}';

/**
 * Reads an execute body.
 *
 * @param body parsed JSON; nothing counts as `{}`
 * @param alsoAccepted keys that the route reads itself (`stages`, `input_schema`, `collection_identifiers`…)
 * @throws AppError retriever_input_invalid with every fault; `{"query": {"input": …}}` is answered with the right form
 */
export function normaliseExecuteBody(body: unknown, alsoAccepted: readonly string[] = []): ExecuteRequest {
  const faults: Fault[] = [];
  const wrong = (path: string[], message: string, fix?: string, type = 'value_error') =>
    faults.push(fix === undefined ? { type, path, message } : { type, path, message, fix });
  const given = body ?? {};
  if (!isObject(given)) {
    throwFaults('retriever_input_invalid', [
      {
        type: 'value_error',
        path: [],
        message: `expected an object, got ${kindOf(body)}`,
        fix: `send ${rightForm}`,
      },
    ]);
    throw new Error('a body that is no object was not refused');
  }
  const rest: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(given)) {
    if (alsoAccepted.includes(key)) rest[key] = value;
    else if (key === 'query') {
      const nested = isObject(value) && ('input' in value || 'inputs' in value);
      const message = nested
        ? '"query" does not wrap the input'
        : '"query" is an input, not a part of the request';
      wrong([key], message, `send {"input": {"query": "…"}}, or ${rightForm}`, 'extra_forbidden');
    } else if (!own.includes(key)) {
      const accepted = [
        'inputs',
        ...own.filter((name) => name !== 'inputs' && name !== 'input'),
        ...alsoAccepted,
      ];
      const fix = `inputs go into ${rightForm}; accepted keys are ${accepted.join(', ')}`;
      wrong([key], `unknown key "${key.slice(0, 100)}"`, fix, 'extra_forbidden');
    }
  }
  const spellings = (['inputs', 'input'] as const).filter((name) => given[name] != null);
  for (const name of spellings) {
    if (!isObject(given[name]))
      wrong([name], `expected an object, got ${kindOf(given[name])}`, `send ${rightForm}`);
  }
  if (spellings.length === 2 && JSON.stringify(given.inputs) !== JSON.stringify(given.input)) {
    wrong(['input'], '"input" and "inputs" say different things', 'give one of them');
  }
  const flag = (name: (typeof flags)[number]): boolean => {
    const value = given[name] ?? false;
    if (typeof value !== 'boolean') wrong([name], `expected true or false, got ${kindOf(value)}`);
    return value === true;
  };
  const versions = given.index_versions ?? {};
  if (!isObject(versions))
    wrong(['index_versions'], `expected an object, got ${kindOf(versions)}`, versionsForm);
  else {
    for (const [id, version] of Object.entries(versions)) {
      if (!Number.isSafeInteger(version) || Number(version) < 1)
        wrong(['index_versions', id], `expected a version from 1, got ${kindOf(version)}`, versionsForm);
    }
  }
  const page = readPagination(given.pagination, given.limit);
  faults.push(...page.faults);
  const [name = 'inputs'] = spellings;
  const inputs = given[name];
  const request: ExecuteRequest = {
    inputs: isObject(inputs) ? inputs : {},
    ...(given.filters == null ? {} : { filters: given.filters }),
    pagination: page.pagination,
    ...(isObject(versions) && Object.keys(versions).length > 0
      ? { index_versions: versions as Record<string, number> }
      : {}),
    stream: flag('stream'),
    return_vectors: flag('return_vectors'),
    return_presigned_urls: flag('return_presigned_urls'),
    explain: flag('explain'),
    allow_partial: flag('allow_partial'),
    rest,
  };
  throwFaults('retriever_input_invalid', faults);
  return request;
}
