// What is wrong with a filter or condition tree: every fault at once, each with the way to it.

/** One fault in a condition tree. */
export interface ConditionFault {
  /** Stable word for the kind of fault, such as `condition_unknown_operator`. */
  readonly type: string;
  /** From the root of the parsed tree: keys and list positions; empty for the root itself. */
  readonly path: readonly (string | number)[];
  readonly message: string;
  /** The right form, where it is known. */
  readonly fix?: string;
}

/** A condition tree that cannot be used. Carries all of its faults, never only the first. */
export class ConditionError extends Error {
  readonly code = 'condition_invalid';
  readonly faults: readonly ConditionFault[];

  constructor(faults: readonly ConditionFault[]) {
    super(
      faults
        .map(({ path, message }) => `${path.length > 0 ? `${path.join('.')}: ` : ''}${message}`)
        .join(' '),
    );
    this.name = 'ConditionError';
    this.faults = faults;
  }
}
