// Speaks to the API: one request, one answer, its errors as sentences. The types of answers are those of the contracts.
import { randomUUID } from 'node:crypto';
import { createWriteStream, openAsBlob } from 'node:fs';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { setTimeout as pause } from 'node:timers/promises';
import type { ExitName } from './errors.ts';
import { CliError } from './errors.ts';
import type { Settings } from './settings.ts';

interface ErrorBody {
  readonly error?: {
    readonly message?: string;
    readonly details?: {
      readonly code?: string;
      readonly request_id?: string;
      readonly retryable?: boolean;
      readonly retry_after_seconds?: number;
      /** What a plugin printed before it failed. */
      readonly logs?: string;
      readonly validation_errors?: readonly {
        readonly location: readonly (string | number)[];
        readonly message: string;
        readonly fix?: string;
      }[];
    };
  };
}

/** Tries of a request that may succeed later. */
const tries = 4;
const retryMs = 500;
const retryMsMax = 20_000;

function exitOf(status: number): ExitName {
  if (status === 401 || status === 403) return 'notPermitted';
  if (status === 404) return 'notFound';
  return status >= 500 || status === 429 ? 'unreachable' : 'refused';
}

/** Why a request got no answer at all. */
function whyUnreachable(error: unknown): string {
  const cause = (error as { cause?: { code?: string; message?: string } }).cause;
  const reasons: Readonly<Record<string, string>> = {
    ECONNREFUSED: 'nothing listens there',
    ENOTFOUND: 'there is no host of that name',
    EAI_AGAIN: 'its name could not be looked up',
    ECONNRESET: 'the connection was cut',
    ETIMEDOUT: 'it did not answer',
    UND_ERR_CONNECT_TIMEOUT: 'it did not answer',
  };
  return reasons[cause?.code ?? ''] ?? cause?.message ?? (error as Error).message;
}

/** `manifest.py:12:9` for a place in a plugin, which is a path, a line and a column; line 0: the file as a whole. */
function placeInFile(location: readonly (string | number)[]): string | undefined {
  const [path, line, column, ...more] = location;
  if (path === 'body' || more.length > 0 || typeof line !== 'number' || typeof column !== 'number')
    return undefined;
  return line === 0 ? String(path) : `${path}:${line}:${column}`;
}

/** One line for one fault: where, what, and what to write instead. */
export function faultLine(fault: {
  readonly location: readonly (string | number)[];
  readonly message: string;
  readonly fix?: string | undefined;
}): string {
  const [first, row, ...rest] = fault.location;
  const place =
    first === 'row'
      ? `row ${row}${rest.length > 0 ? `, ${rest.join('.')}` : ''}`
      : (placeInFile(fault.location) ?? fault.location.join('.'));
  return `${place}: ${fault.message}${fault.fix === undefined ? '' : ` (${fault.fix})`}`;
}

export class Client {
  readonly #settings: Settings;

  constructor(settings: Settings) {
    this.#settings = settings;
  }

  /** Without a slash at its end. */
  get url(): string {
    return this.#settings.url;
  }

  /** Whether the service runs on this machine. */
  get isLocal(): boolean {
    return ['127.0.0.1', 'localhost', '[::1]'].includes(new URL(this.url).hostname);
  }

  /** The path of something in the namespace. @throws CliError usage */
  path(...parts: readonly string[]): string {
    const { namespace } = this.#settings;
    if (namespace === undefined)
      throw new CliError(
        'usage',
        'which namespace? Set GRANARY_NAMESPACE, or --namespace, or "namespace" in a profile',
      );
    return `/v1/namespaces/${[namespace, ...parts].map(encodeURIComponent).join('/')}`;
  }

  async get<T>(path: string): Promise<T> {
    return this.#send<T>('GET', path);
  }

  /** Every call carries its own idempotency key, so that it may be sent again when its answer was lost. */
  async post<T>(path: string, body: unknown): Promise<T> {
    return this.#send<T>('POST', path, body, { 'Idempotency-Key': randomUUID() });
  }

  async #send<T>(
    method: string,
    path: string,
    body?: unknown,
    headers: Readonly<Record<string, string>> = {},
  ): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.#once<T>(method, path, body, headers);
      } catch (error) {
        if (!(error instanceof Retryable) || attempt >= tries)
          throw error instanceof Retryable ? error.end : error;
        await pause(Math.min(retryMsMax, error.afterMs ?? retryMs * 2 ** (attempt - 1)));
      }
    }
  }

  async #once<T>(
    method: string,
    path: string,
    body: unknown,
    headers: Readonly<Record<string, string>>,
  ): Promise<T> {
    const { url, key } = this.#settings;
    let answer: Response;
    let text: string;
    try {
      answer = await fetch(url + path, {
        method,
        redirect: 'error',
        headers: {
          Authorization: `Bearer ${key}`,
          Accept: 'application/json',
          ...(body === undefined ? {} : { 'Content-Type': 'application/json' }),
          ...headers,
        },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      });
      text = await answer.text();
    } catch (error) {
      throw new CliError(
        'unreachable',
        `${url} cannot be reached: ${whyUnreachable(error)}. ${
          this.isLocal ? 'Is the stack running? "npm start" starts it.' : 'Is this the URL of the service?'
        }`,
        { cause: error },
      );
    }
    let parsed: unknown;
    try {
      parsed = JSON.parse(text);
    } catch {
      parsed = undefined;
    }
    const requestId = answer.headers.get('x-request-id') ?? undefined;
    if (answer.ok && typeof parsed === 'object' && parsed !== null) return parsed as T;
    const { error } = (typeof parsed === 'object' && parsed !== null ? parsed : {}) as ErrorBody;
    if (error?.message === undefined) {
      throw new CliError(
        'unreachable',
        `${url} answered ${answer.status} and not as Granary does. Is this the URL of the service?`,
        {
          ...(requestId === undefined ? {} : { requestId }),
        },
      );
    }
    const {
      code,
      request_id,
      retryable,
      retry_after_seconds,
      logs = '',
      validation_errors = [],
    } = error.details ?? {};
    const id = request_id ?? requestId;
    // A key was sent; what the service says is for those who sent none.
    const message =
      answer.status === 401
        ? `${url} did not accept the API key. Check GRANARY_API_KEY, --key or the profile; "npm run keys:create" makes a key.`
        : error.message;
    const end = new CliError(exitOf(answer.status), message, {
      ...(id === undefined ? {} : { requestId: id }),
      ...(code === undefined ? {} : { code }),
      faults: [
        ...validation_errors.map(faultLine),
        ...(logs.trim() === ''
          ? []
          : logs
              .trimEnd()
              .split(/\r\n|[\n\r]/)
              .map((line) => `| ${line}`)),
      ],
    });
    const mayRetry = retryable && (answer.status === 429 || answer.status === 503);
    throw mayRetry
      ? new Retryable(end, retry_after_seconds === undefined ? undefined : retry_after_seconds * 1000)
      : end;
  }

  /**
   * Asks again and again until `isDone`.
   *
   * @param note called with each answer
   */
  async poll<T>(path: string, isDone: (answer: T) => boolean, note: (answer: T) => void): Promise<T> {
    for (let waitMs = 250; ; waitMs = Math.min(5_000, waitMs * 1.5)) {
      const answer = await this.get<T>(path);
      note(answer);
      if (isDone(answer)) return answer;
      await pause(waitMs);
    }
  }
}

/** An answer that says that the same request may succeed later. */
class Retryable extends Error {
  readonly end: CliError;
  readonly afterMs: number | undefined;

  constructor(end: CliError, afterMs: number | undefined) {
    super(end.message);
    this.end = end;
    this.afterMs = afterMs;
  }
}

/**
 * Reads a presigned URL into a file. @returns the bytes that came
 *
 * @param note called with the bytes so far
 * @throws CliError unreachable
 */
export async function download(url: string, file: string, note: (bytes: number) => void): Promise<number> {
  let bytes = 0;
  try {
    const answer = await fetch(url);
    if (!answer.ok || !answer.body)
      throw new CliError('unreachable', `the file could not be read: its store answered ${answer.status}`);
    await pipeline(
      Readable.fromWeb(answer.body as Parameters<typeof Readable.fromWeb>[0]),
      async function* (chunks: AsyncIterable<Uint8Array>) {
        for await (const chunk of chunks) {
          bytes += chunk.length;
          note(bytes);
          yield chunk;
        }
      },
      createWriteStream(file),
    );
    return bytes;
  } catch (error) {
    if (error instanceof CliError) throw error;
    throw new CliError('unreachable', `the file could not be read: ${whyUnreachable(error)}`, {
      cause: error,
    });
  }
}

/** Reads a presigned URL into memory; for files that are known to be small. @throws CliError unreachable */
export async function fetchBytes(url: string): Promise<Buffer> {
  try {
    const answer = await fetch(url);
    if (answer.ok) return Buffer.from(await answer.arrayBuffer());
    throw new CliError('unreachable', `the file could not be read: its store answered ${answer.status}`);
  } catch (error) {
    if (error instanceof CliError) throw error;
    throw new CliError('unreachable', `the file could not be read: ${whyUnreachable(error)}`, {
      cause: error,
    });
  }
}

/** Puts a file, or bytes, to a presigned URL. @throws CliError unreachable */
export async function upload(url: string, file: string | Uint8Array, contentType: string): Promise<void> {
  try {
    // A blob has a length, which the store insists on, and is read from the disk as it is sent.
    const body = typeof file === 'string' ? await openAsBlob(file) : new Blob([new Uint8Array(file)]);
    const answer = await fetch(url, { method: 'PUT', body, headers: { 'Content-Type': contentType } });
    if (answer.ok) return;
    throw new CliError('unreachable', `the file could not be sent: its store answered ${answer.status}`);
  } catch (error) {
    if (error instanceof CliError) throw error;
    throw new CliError('unreachable', `the file could not be sent: ${whyUnreachable(error)}`, {
      cause: error,
    });
  }
}
