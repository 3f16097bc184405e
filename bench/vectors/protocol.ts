// What the measured programs are asked and answer over their standard input and output: one line each.

/** `<work> <first query> <calls>`: does the work once for each of `calls` queries, one after the other. */
export interface Request {
  readonly work: string;
  /** Number of the first query; the next calls take the next ones, from the first again after the last. */
  readonly first: number;
  readonly calls: number;
}

/** One measured call. */
export interface Call {
  /** CPU of the whole process, with all its threads, milliseconds. */
  readonly cpu_ms: number;
  readonly wall_ms: number;
  /** By query of the call (one, or as many as a batch has): what was found, best first. Readers find nothing. */
  readonly found?: readonly (readonly Hit[])[];
  /** How many rows were scored again in double precision. */
  readonly reranked?: number;
}

/** Row number in the data set, and the score as the program gives it: higher is better. */
export type Hit = readonly [row: number, score: number];

export type Answer = { readonly calls: readonly Call[] } | { readonly error: string };

/** The first line of every program, when its data is in memory. `facts`: versions and the like. */
export interface Ready {
  readonly ready: true;
  readonly facts?: Readonly<Record<string, unknown>>;
}

export function encodeRequest({ work, first, calls }: Request): string {
  return `${work} ${first} ${calls}\n`;
}

/** @throws Error on a line that is no request */
export function decodeRequest(line: string): Request {
  const [work, first, calls] = line.trim().split(' ');
  if (work === undefined || !Number.isInteger(Number(first)) || !Number.isInteger(Number(calls)))
    throw new Error(`a request is "<work> <first query> <calls>", got ${JSON.stringify(line)}`);
  return { work, first: Number(first), calls: Number(calls) };
}
