// Errors of the AWS SDK -> errors that Granary answers with. A test walks this list.
import { AppError } from '../errors.ts';

/** SDK error names that mean "busy, try later". */
export const throttleNames: readonly string[] = [
  'ThrottlingException',
  'TransactionConflictException',
  'ThrottledException',
  'ProvisionedThroughputExceededException',
  'RequestLimitExceeded',
  'TooManyRequestsException',
  'TransactionInProgressException',
  'TransactionCanceledException',
  'LimitExceededException',
  'SlowDown',
];

/** SDK error names that mean "not reachable now". */
export const outageNames: readonly string[] = [
  'InternalServerError',
  'InternalError',
  'InternalFailure',
  'ServiceUnavailable',
  'ServiceUnavailableException',
  'ServiceException',
  'TimeoutError',
  'RequestTimeout',
  'RequestTimeoutException',
  'NetworkingError',
  'ECONNREFUSED',
  'ECONNRESET',
  'EPIPE',
  'ETIMEDOUT',
];

/** The AppError of an SDK error; anything unknown is an internal error, whose text stays in the log. */
export function toAppError(error: unknown): Error {
  if (error instanceof AppError) return error;
  const { name = '', code = '' } = (error ?? {}) as { name?: string; code?: string };
  if (throttleNames.includes(name))
    return new AppError('storage_throttled', { cause: error, retryAfterSeconds: 1 });
  if (outageNames.includes(name) || outageNames.includes(code))
    return new AppError('storage_unavailable', { cause: error, retryAfterSeconds: 5 });
  return new AppError('internal_error', {
    cause: error,
    internal: `${name}: ${(error as Error)?.message ?? ''}`,
  });
}
