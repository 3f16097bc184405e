// Optimistic concurrency for callers: `If-Match` with the version that a GET returned as ETag.
import { AppError } from '../errors.ts';

/** @throws AppError request_stale when `ifMatch` is given and is not the current version. */
export function checkVersion(ifMatch: number | undefined, current: number): void {
  if (ifMatch === undefined || ifMatch === current) return;
  throw new AppError('request_stale', {
    detail: `If-Match asks for version ${ifMatch}; the current one is ${current}. Read it again and repeat the change.`,
    extra: { current_version: current },
  });
}
