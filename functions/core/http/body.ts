// Reads a JSON body within bounds: size, depth, keys, string length, and names that would reach into prototypes.
import type { FieldFault } from '../errors.ts';
import { AppError, invalid } from '../errors.ts';

/** What one route accepts where that is more than `bodyLimits`. The service ends a request at 6 MB. */
export interface BodyRoom {
  readonly bytesMax: number;
  readonly stringBytesMax: number;
}

export const bodyLimits = {
  bytesMax: 1_000_000,
  depthMax: 32,
  keysMax: 1_000,
  stringBytesMax: 256_000,
} as const;
const forbiddenNames = new Set(['__proto__', 'constructor', 'prototype']);

/**
 * Parses the text of a request body.
 *
 * @throws AppError request_too_large, request_not_json, request_invalid
 */
export function parseBody(text: string, room: BodyRoom = bodyLimits): unknown {
  const bytes = Buffer.byteLength(text);
  if (bytes > room.bytesMax) {
    throw new AppError('request_too_large', {
      detail: `The body has ${bytes} bytes; at most ${room.bytesMax} are accepted. Send large data by an upload.`,
    });
  }
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new AppError('request_not_json', {
      detail: `The body is not valid JSON: ${(cause as Error).message}`,
      cause,
    });
  }
  const faults: FieldFault[] = [];
  checkBounds(value, room.stringBytesMax, faults);
  if (faults.length > 0) throw invalid('request_invalid', faults);
  return value;
}

function checkBounds(root: unknown, stringBytesMax: number, faults: FieldFault[]): void {
  let keys = 0;
  const pending: { value: unknown; path: (string | number)[] }[] = [{ value: root, path: ['body'] }];
  const report = (path: (string | number)[], type: string, message: string) => {
    if (faults.length < 20) faults.push({ type, location: path, message });
  };
  while (pending.length > 0) {
    const { value, path } = pending.pop()!;
    if (typeof value === 'string' && Buffer.byteLength(value) > stringBytesMax) {
      report(path, 'too_large', `has more than ${stringBytesMax} bytes; send it by an upload`);
    }
    if (typeof value === 'number' && !Number.isFinite(value))
      report(path, 'wrong_value', 'is not a finite number');
    if (value === null || typeof value !== 'object') continue;
    if (path.length > bodyLimits.depthMax) {
      report(path.slice(0, 6), 'too_deep', `is nested deeper than ${bodyLimits.depthMax} levels`);
      return;
    }
    if (Array.isArray(value)) {
      for (const [i, member] of value.entries())
        if (typeof member !== 'number') pending.push({ value: member, path: [...path, i] });
      continue;
    }
    for (const [name, member] of Object.entries(value)) {
      keys++;
      if (forbiddenNames.has(name))
        report([...path, name], 'extra_forbidden', `the key "${name}" is not allowed`);
      else pending.push({ value: member, path: [...path, name] });
    }
    if (keys > bodyLimits.keysMax * 20) {
      report(['body'], 'too_large', `has more than ${bodyLimits.keysMax * 20} keys`);
      return;
    }
    if (Object.keys(value).length > bodyLimits.keysMax) {
      report(path, 'too_large', `has more than ${bodyLimits.keysMax} keys`);
    }
  }
}
