// Every error that Granary can answer with: one closed table, one exception class.

/** Wire types and their HTTP status (api rules, section 3). Clients switch on the type; people read the message. */
export const wireTypes = {
  BadRequestError: 400,
  UnauthorizedError: 401,
  ForbiddenError: 403,
  NotEnabledError: 403,
  QuotaExceededError: 403,
  NotFoundError: 404,
  MethodNotAllowedError: 405,
  AlreadyExistsError: 409,
  ConflictError: 409,
  GoneError: 410,
  PreconditionFailedError: 412,
  PayloadTooLargeError: 413,
  UnsupportedMediaTypeError: 415,
  ValidationError: 422,
  TooManyRequestsError: 429,
  InternalServerError: 500,
  ProcessingError: 500,
  InferenceServiceUnavailableError: 503,
  ServiceUnavailableError: 503,
  TimeoutError: 504,
} as const;

export type WireType = keyof typeof wireTypes;

interface ErrorEntry {
  readonly type: WireType;
  readonly title: string;
  readonly retryable: boolean;
}

const entry = (type: WireType, title: string, retryable = false): ErrorEntry => ({ type, title, retryable });
const notFound = (noun: string) => entry('NotFoundError', `There is no such ${noun}, or it is not yours.`);
const nameTaken = (noun: string) => entry('AlreadyExistsError', `Another ${noun} already has this name.`);
const inUse = (noun: string) => entry('ConflictError', `The ${noun} is still used by others.`);
const changed = (noun: string) =>
  entry('ConflictError', `The ${noun} was changed by somebody else at the same moment.`, true);

/** The closed table: code -> wire type, title, whether the same request may succeed later. Codes are never reused. */
export const errorTable = {
  // The request itself
  request_not_json: entry('BadRequestError', 'The body is not valid JSON.'),
  request_bad_header: entry('BadRequestError', 'A header has a value that is not understood.'),
  request_bad_cursor: entry('BadRequestError', 'The cursor is damaged, expired or belongs to another list.'),
  request_namespace_missing: entry('BadRequestError', 'The request names no namespace.'),
  request_namespace_differs: entry(
    'BadRequestError',
    'The path and the X-Namespace header name different namespaces.',
  ),
  request_invalid: entry('ValidationError', 'Some fields of the request are wrong.'),
  request_too_large: entry('PayloadTooLargeError', 'The body is too large.'),
  request_media_type: entry('UnsupportedMediaTypeError', 'The body must be application/json.'),
  request_stale: entry('PreconditionFailedError', 'The If-Match version is not the current one.'),
  request_rate_exceeded: entry(
    'TooManyRequestsError',
    'Too many requests of this class in this minute.',
    true,
  ),
  route_not_found: entry('NotFoundError', 'There is no such path.'),
  route_method_not_allowed: entry('MethodNotAllowedError', 'The path exists, the method does not.'),
  idempotency_key_reused: entry('ValidationError', 'The idempotency key was used for a different request.'),
  idempotency_in_flight: entry(
    'ConflictError',
    'A request with this idempotency key is still running.',
    true,
  ),
  // Who asks
  key_invalid: entry('UnauthorizedError', 'The API key is missing, malformed, unknown, expired or revoked.'),
  key_not_permitted: entry('ForbiddenError', 'The API key does not have the permission that this needs.'),
  key_bootstrap_only: entry('ForbiddenError', 'The bootstrap key may only create, list and revoke API keys.'),
  key_not_found: notFound('API key'),
  key_already_revoked: entry('ConflictError', 'The API key is revoked already.'),
  quota_exceeded: entry('QuotaExceededError', 'A limit on the number of resources is reached.'),
  // Resources
  namespace_not_found: notFound('namespace'),
  namespace_name_taken: nameTaken('namespace'),
  namespace_changed: changed('namespace'),
  namespace_deleting: entry('ConflictError', 'The namespace is being deleted.'),
  plugin_not_found: notFound('plugin'),
  plugin_name_taken: nameTaken('plugin'),
  plugin_version_exists: entry('AlreadyExistsError', 'This plugin version exists with other content.'),
  plugin_in_use: inUse('plugin'),
  plugin_changed: changed('plugin'),
  plugin_invalid: entry('ValidationError', 'The plugin archive has faults.'),
  plugin_not_deployed: entry('ConflictError', 'The plugin is not deployed.'),
  plugin_realtime_unavailable: entry('NotEnabledError', 'Realtime deployment is not possible here.'),
  plugin_failed: entry('ProcessingError', 'The plugin failed.'),
  plugin_timeout: entry('TimeoutError', 'The plugin did not answer in time.', true),
  plugin_secret_missing: entry(
    'ConflictError',
    'The plugin declares a secret that the namespace does not have.',
  ),
  plugin_not_supported: entry('NotEnabledError', 'This stage cannot run the plugin.'),
  plugin_unavailable: entry('InferenceServiceUnavailableError', 'The plugin runner cannot be reached.', true),
  secret_not_found: notFound('secret'),
  secret_name_taken: nameTaken('secret'),
  secret_changed: changed('secret'),
  upload_not_found: notFound('upload'),
  upload_expired: entry('GoneError', 'The upload has expired.'),
  upload_missing: entry('ConflictError', 'Nothing has been uploaded to the presigned URL yet.', true),
  upload_too_large: entry('ValidationError', 'The uploaded file is too large.'),
  upload_changed: entry('ConflictError', 'The uploaded bytes changed while they were being confirmed.', true),
  bucket_not_found: notFound('bucket'),
  bucket_name_taken: nameTaken('bucket'),
  bucket_in_use: inUse('bucket'),
  bucket_changed: changed('bucket'),
  object_not_found: notFound('object'),
  object_invalid: entry('ValidationError', 'The object does not fit the bucket schema.'),
  object_changed: changed('object'),
  blob_url_refused: entry('ValidationError', 'The blob URL cannot be fetched.'),
  collection_not_found: notFound('collection'),
  collection_name_taken: nameTaken('collection'),
  collection_in_use: inUse('collection'),
  collection_changed: changed('collection'),
  collection_source_mismatch: entry('ValidationError', 'The collection does not read this bucket.'),
  collection_busy: entry('ConflictError', 'Another batch or import of the collection is running.', true),
  export_not_found: notFound('export'),
  import_not_found: notFound('import'),
  import_invalid: entry('ValidationError', 'The file of the import has faults.'),
  import_token_reused: entry('ConflictError', 'The token names an import of another file.'),
  transfer_deadline: entry('TimeoutError', 'The export or import did not end in its time.'),
  document_not_found: notFound('document'),
  document_changed: changed('document'),
  document_too_large: entry('PayloadTooLargeError', 'The document is too large.'),
  batch_not_found: notFound('batch'),
  batch_wrong_state: entry('ConflictError', 'The batch is in a state that does not allow this.'),
  batch_changed: changed('batch'),
  batch_too_large: entry('ValidationError', 'The batch has more objects than one batch may have.'),
  batch_chunks_missing: entry('ProcessingError', 'Some chunks of the batch left no result.'),
  batch_too_many_failures: entry('ProcessingError', 'More objects failed than the collection tolerates.'),
  batch_deadline: entry('TimeoutError', 'The batch did not finish in its time.'),
  task_not_found: notFound('task'),
  retriever_not_found: notFound('retriever'),
  retriever_name_taken: nameTaken('retriever'),
  retriever_in_use: inUse('retriever'),
  retriever_changed: changed('retriever'),
  retriever_invalid: entry('ValidationError', 'The retriever definition has faults.'),
  retriever_input_invalid: entry('ValidationError', 'The inputs of the execution have faults.'),
  retriever_timeout: entry('TimeoutError', 'The retriever did not finish in time.', true),
  index_unavailable: entry('ServiceUnavailableError', 'A part of the vector index cannot be read.', true),
  index_corrupt: entry('ServiceUnavailableError', 'A part of the vector index is damaged.'),
  vector_backend_not_enabled: entry('NotEnabledError', 'This stage does not have the vector backend.'),
  vector_backend_unavailable: entry('ServiceUnavailableError', 'The vector backend cannot be reached.', true),
  vector_index_migrating: entry(
    'ConflictError',
    'The vectors are being moved to another backend already.',
    true,
  ),
  vector_index_unchanged: entry('ConflictError', 'The vectors are in this backend already.'),
  vector_copy_differs: entry(
    'ProcessingError',
    'A copy of the vectors does not hold as many rows as the index.',
    true,
  ),
  index_version_gone: entry('GoneError', 'This version of the index cannot be read.'),
  index_upload_expired: entry('ConflictError', 'These vectors were stored too long ago to be committed.'),
  index_contended: entry(
    'ServiceUnavailableError',
    'The vector index is being written by too many at once.',
    true,
  ),
  taxonomy_not_found: notFound('taxonomy'),
  taxonomy_name_taken: nameTaken('taxonomy'),
  taxonomy_in_use: inUse('taxonomy'),
  taxonomy_changed: changed('taxonomy'),
  taxonomy_invalid: entry('ValidationError', 'The taxonomy definition has faults.'),
  taxonomy_version_not_found: notFound('version of the taxonomy'),
  taxonomy_review_not_found: notFound('decision about the document'),
  taxonomy_review_invalid: entry('ValidationError', 'The decision does not fit the taxonomy.'),
  cluster_not_found: notFound('cluster'),
  cluster_name_taken: nameTaken('cluster'),
  cluster_in_use: inUse('cluster'),
  cluster_changed: changed('cluster'),
  cluster_invalid: entry('ValidationError', 'The cluster definition has faults.'),
  cluster_run_not_found: notFound('cluster run'),
  cluster_run_wrong_state: entry('ConflictError', 'The cluster run is in a state that does not allow this.'),
  cluster_base_missing: entry('ConflictError', 'There is no completed full run that documents could join.'),
  cluster_too_many_groups: entry('ProcessingError', 'The documents have too many different values.'),
  cluster_too_many_documents: entry('ValidationError', 'There are too many documents to do this at once.'),
  alert_not_found: notFound('alert'),
  alert_name_taken: nameTaken('alert'),
  alert_in_use: inUse('alert'),
  alert_changed: changed('alert'),
  alert_execution_not_found: notFound('alert execution'),
  alert_invalid: entry('ValidationError', 'The alert definition has faults.'),
  webhook_not_found: notFound('webhook'),
  webhook_name_taken: nameTaken('webhook'),
  webhook_in_use: inUse('webhook'),
  webhook_changed: changed('webhook'),
  webhook_invalid: entry('ValidationError', 'The webhook definition has faults.'),
  delivery_not_found: notFound('delivery'),
  // Us
  internal_error: entry('InternalServerError', 'Something went wrong on our side.', true),
  storage_throttled: entry('ServiceUnavailableError', 'The storage is busy.', true),
  storage_unavailable: entry('ServiceUnavailableError', 'The storage cannot be reached.', true),
} as const satisfies Record<string, ErrorEntry>;

export type ErrorCode = keyof typeof errorTable;

/**
 * One fault of one field.
 *
 * `location` is the path to the field: `["body", "blobs", 0, "type"]`, or `[file, line, column]` for archives.
 * `fix` says what to write instead, where that is known.
 */
export interface FieldFault {
  readonly type: string;
  readonly location: readonly (string | number)[];
  readonly message: string;
  readonly fix?: string;
}

export interface ErrorParts {
  /** Shown to the caller: what was wrong, what was got, what is right. Never an ARN, a stack or a table name. */
  readonly detail?: string;
  /** Only for the log. */
  readonly internal?: string;
  readonly cause?: unknown;
  readonly fields?: readonly FieldFault[];
  /** Further public members of `details`, such as `dependants`. */
  readonly extra?: Readonly<Record<string, unknown>>;
  readonly retryAfterSeconds?: number;
}

/**
 * The one exception that Granary throws on purpose.
 *
 * `name` is the code, because Step Functions matches errors by name and minifying renames classes.
 *
 * @example throw new AppError('bucket_not_found', { detail: 'No bucket "articles" in this namespace.' });
 */
export class AppError extends Error {
  readonly code: ErrorCode;
  readonly detail: string;
  readonly internal: string | undefined;
  readonly fields: readonly FieldFault[];
  readonly extra: Readonly<Record<string, unknown>>;
  readonly retryAfterSeconds: number | undefined;

  constructor(code: ErrorCode, parts: ErrorParts = {}) {
    const detail = parts.detail ?? errorTable[code].title;
    super(detail, parts.cause === undefined ? undefined : { cause: parts.cause });
    this.name = code;
    this.code = code;
    this.detail = detail;
    this.internal = parts.internal;
    this.fields = parts.fields ?? [];
    this.extra = parts.extra ?? {};
    this.retryAfterSeconds = parts.retryAfterSeconds;
  }

  get type(): WireType {
    return errorTable[this.code].type;
  }

  get status(): number {
    return wireTypes[this.type];
  }

  get retryable(): boolean {
    return errorTable[this.code].retryable;
  }
}

/** Whether `error` is an AppError of one of the codes. By name, since bundling can make two copies of the class. */
export function isAppError(error: unknown, ...codes: readonly ErrorCode[]): error is AppError {
  if (!(error instanceof Error) || !('code' in error) || !Object.hasOwn(errorTable, error.name)) return false;
  return codes.length === 0 || codes.includes(error.name as ErrorCode);
}

/** `body.blobs.0.type`; in an archive `manifest.py:3:9`, or `archive` where there is no line. */
function placeOf(location: FieldFault['location']): string {
  const [file, line, column] = location;
  const isPlaceInFile = location.length === 3 && typeof line === 'number' && typeof column === 'number';
  if (!isPlaceInFile) return location.join('.');
  return line === 0 ? String(file) : `${file}:${line}:${column}`;
}

/** A 422 of one noun with all of its faults; the message counts them and quotes the first. */
export function invalid(code: ErrorCode, fields: readonly FieldFault[]): AppError {
  const [first] = fields;
  const place = first ? `${placeOf(first.location)}: ` : '';
  // Messages about archives may begin with the file themselves.
  const where = first
    ? (first.message.startsWith(place) ? '' : place) + first.message
    : errorTable[code].title;
  const more = fields.length > 1 ? ` (and ${fields.length - 1} more, see validation_errors)` : '';
  return new AppError(code, { detail: where + more, fields });
}
