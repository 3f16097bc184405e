// Assertions on replies that every HTTP suite shares.
import { expect } from 'vitest';
import type { ErrorCode } from '../../functions/core/errors.ts';
import { errorTable, wireTypes } from '../../functions/core/errors.ts';
import type { Reply } from './app.ts';

/** The reply is this error, in the one envelope, with nothing in it that callers must not see. */
export function expectError(reply: Reply, code: ErrorCode): void {
  const { type, retryable } = errorTable[code];
  expect(reply.body, JSON.stringify(reply.body)).toMatchObject({
    success: false,
    status: wireTypes[type],
    error: {
      type,
      message: expect.any(String),
      details: { code, retryable, request_id: reply.headers['X-Request-Id'] },
    },
  });
  expect(reply.status).toBe(wireTypes[type]);
  expect(Object.keys(reply.body).sort()).toEqual(['error', 'status', 'success']);
  expect(Object.keys(reply.body.error).sort()).toEqual(['details', 'message', 'type']);
  expect(reply.body.error.message).not.toBe('');
  expect(JSON.stringify(reply.body)).not.toMatch(
    /arn:aws|\.ts:\d+|node_modules|TABLE_NAME|\bat [A-Za-z.]+ \(/,
  );
}

/** The faults of a 422 as `body.blobs.0.type: wrong_value`, in their order. */
export function faults(reply: Reply): string[] {
  const found = (reply.body?.error?.details?.validation_errors ?? []) as {
    type: string;
    location: (string | number)[];
  }[];
  return found.map(({ type, location }) => `${location.join('.')}: ${type}`);
}

/** The body of an error without what differs from one request to the next: the id of the request, and the ids asked for. */
export function withoutIds(reply: Reply, ...ids: readonly string[]): unknown {
  let text = JSON.stringify({
    ...reply.body,
    error: { ...reply.body.error, details: { ...reply.body.error.details, request_id: 'R' } },
  });
  for (const id of ids) text = text.replaceAll(id, 'ID');
  return JSON.parse(text);
}

/** Both ids are refused alike: nothing tells that one of them exists elsewhere. */
export function expectSameRefusal(foreign: Reply, foreignId: string, random: Reply, randomId: string): void {
  expect(foreign.status).toBe(404);
  expect(withoutIds(foreign, foreignId)).toEqual(withoutIds(random, randomId));
}
