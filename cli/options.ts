// Reads the values of options, and says the right form of those that are none.
import { InvalidArgumentError } from 'commander';

/** One of the names. @throws InvalidArgumentError */
export const oneOf =
  <T extends string>(names: readonly T[]) =>
  (text: string): T => {
    const found = names.find((name) => name === text);
    if (found === undefined) throw new InvalidArgumentError(`One of: ${names.join(', ')}.`);
    return found;
  };

/** A whole number from 1. @throws InvalidArgumentError */
export const wholeNumber =
  (most = Number.MAX_SAFE_INTEGER) =>
  (text: string): number => {
    const value = Number(text);
    if (!Number.isSafeInteger(value) || value < 1 || value > most)
      throw new InvalidArgumentError(
        most === Number.MAX_SAFE_INTEGER ? 'A whole number from 1.' : `A whole number from 1 to ${most}.`,
      );
    return value;
  };

/** A JSON object. @throws InvalidArgumentError */
export function jsonObject(text: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new InvalidArgumentError(`Not JSON: ${(error as Error).message}. Example: '{"words_max": 40}'`);
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new InvalidArgumentError(`Not a JSON object. Example: '{"words_max": 40}'`);
  return value as Record<string, unknown>;
}

/** Collects an option that may be given several times. */
export const several = (value: string, before: readonly string[] = []): string[] => [...before, value];
