// What becomes of an error of the AWS SDK: busy, unreachable, or our own fault; never its text.
import { describe, expect, it } from 'vitest';
import { outageNames, throttleNames, toAppError } from '../../../functions/core/aws/faults.ts';
import { AppError } from '../../../functions/core/errors.ts';
import { errorBody } from '../../../functions/core/http/problem.ts';

const named = (name: string) =>
  Object.assign(new Error('secret: arn:aws:dynamodb:eu-west-1:1:table/granary'), { name });

describe('errors of the SDK', () => {
  it.each(throttleNames)('%s means busy', (name) => {
    expect(toAppError(named(name))).toMatchObject({
      code: 'storage_throttled',
      status: 503,
      retryable: true,
      retryAfterSeconds: 1,
    });
  });

  it.each(outageNames)('%s means unreachable, as a name and as a code', (name) => {
    expect(toAppError(named(name))).toMatchObject({
      code: 'storage_unavailable',
      status: 503,
      retryable: true,
      retryAfterSeconds: 5,
    });
    expect(toAppError(Object.assign(new Error('x'), { code: name }))).toMatchObject({
      code: 'storage_unavailable',
    });
  });

  it('no name is in both lists', () => {
    expect(throttleNames.filter((name) => outageNames.includes(name))).toEqual([]);
  });

  it.each([
    'AccessDeniedException',
    'ValidationException',
    'ResourceNotFoundException',
    'UnrecognizedClientException',
    'TypeError',
    '',
  ])('%j is our own fault', (name) => {
    expect(toAppError(named(name))).toMatchObject({ code: 'internal_error', status: 500 });
  });

  it.each([undefined, null, 'text', 7, {}])('even %j is an error', (thrown) => {
    expect(toAppError(thrown)).toMatchObject({ code: 'internal_error' });
  });

  it('keep their text to the log', () => {
    for (const name of ['ThrottlingException', 'InternalServerError', 'AccessDeniedException']) {
      const error = toAppError(named(name)) as AppError;
      expect(JSON.stringify(errorBody(error, 'r'))).not.toMatch(/secret|arn:/);
      expect(error.cause).toBeInstanceOf(Error);
    }
  });

  it('that are ours already stay as they are', () => {
    const error = new AppError('bucket_not_found');
    expect(toAppError(error)).toBe(error);
  });
});
