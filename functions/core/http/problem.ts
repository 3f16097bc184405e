// The only writer of error bodies: the envelope that clients parse, or RFC 9457 for those who ask for it.
import type { AppError } from '../errors.ts';
import { errorTable } from '../errors.ts';

export interface ErrorBody {
  readonly success: false;
  readonly status: number;
  readonly error: {
    readonly message: string;
    readonly type: string;
    readonly details: Record<string, unknown>;
  };
}

/** The error as clients read it: `{success, status, error: {message, type, details}}`. */
export function errorBody(error: AppError, requestId: string): ErrorBody {
  const details: Record<string, unknown> = {
    code: error.code,
    request_id: requestId,
    retryable: error.retryable,
    ...error.extra,
  };
  if (error.fields.length > 0) details.validation_errors = error.fields;
  if (error.retryAfterSeconds !== undefined) details.retry_after_seconds = error.retryAfterSeconds;
  return {
    success: false,
    status: error.status,
    error: { message: error.detail, type: error.type, details },
  };
}

/** The same facts as `application/problem+json`. @see RFC 9457 */
export function problemBody(error: AppError, requestId: string): Record<string, unknown> {
  const { details } = errorBody(error, requestId).error;
  return {
    type: `urn:granary:error:${error.code}`,
    title: errorTable[error.code].title,
    status: error.status,
    detail: error.detail,
    ...details,
  };
}
