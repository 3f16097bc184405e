// How the program ends: exit codes, and the one exception that carries one.

/** What each exit code says; shown by `granary --help`. */
export const exitCodes = {
  ok: 0,
  unforeseen: 1,
  // As other tools that check files; the faults themselves were printed.
  faulty: 1,
  usage: 2,
  refused: 3,
  notPermitted: 4,
  notFound: 5,
  unreachable: 6,
  failed: 7,
  mismatch: 8,
} as const satisfies Record<string, number>;

export type ExitName = keyof typeof exitCodes;

export const exitMeanings: Readonly<Record<ExitName, string>> = {
  ok: 'done',
  unforeseen: 'something unforeseen',
  faulty: 'plugin validate found faults, or a row of plugin test failed',
  usage: 'wrong arguments, settings or local file; nothing was asked of the service',
  refused: 'the service refused the request',
  notPermitted: 'the key is missing, wrong, or not allowed to do this',
  notFound: 'there is no such thing, or it is not yours',
  unreachable: 'the service could not be reached, or did not answer as it should',
  failed: 'the work began and failed',
  mismatch: 'counts that must be equal are not',
};

/** An end that the program foresees: a sentence for people, the exit code, and where it has them, the API's own words. */
export class CliError extends Error {
  readonly exit: ExitName;
  /** Of the answer that said so. */
  readonly requestId: string | undefined;
  /** The API's stable code. */
  readonly code: string | undefined;
  /** Further lines: one fault each. */
  readonly faults: readonly string[];

  constructor(
    exit: ExitName,
    message: string,
    parts: {
      readonly requestId?: string;
      readonly code?: string;
      readonly faults?: readonly string[];
      readonly cause?: unknown;
    } = {},
  ) {
    super(message, parts.cause === undefined ? undefined : { cause: parts.cause });
    this.name = 'CliError';
    this.exit = exit;
    this.requestId = parts.requestId;
    this.code = parts.code;
    this.faults = parts.faults ?? [];
  }
}
