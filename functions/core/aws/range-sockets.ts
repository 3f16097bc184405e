// Reads ranges of objects straight from the socket into memory of the caller. Node's HTTP client hands every 64 kB over
// in a buffer of its own, which costs more CPU than all the rest of a cold read.
import type { Socket } from 'node:net';
import { connect, isIP } from 'node:net';
import type { ConnectionOptions } from 'node:tls';
import { connect as connectTls } from 'node:tls';

/** A GET, signed and ready to be sent, as the SDK hands it to its transport. */
export interface SignedGet {
  readonly protocol: string;
  readonly hostname: string;
  readonly port?: number | undefined;
  /** Escaped. */
  readonly path: string;
  readonly query?: Readonly<Record<string, string | readonly string[] | null>> | undefined;
  readonly headers: Readonly<Record<string, string>>;
}

/** The head of an answer 206; names in lower case. */
export interface RangeHead {
  readonly headers: Readonly<Record<string, string>>;
  /** The bytes are in their place. If not, it is another range than the one asked for, and nothing was read of it. */
  readonly complete: boolean;
}

export interface RangeSocketsOptions {
  /** Open at once; further reads wait for their turn. */
  readonly connectionsMax?: number;
  readonly connectTimeoutMs?: number;
  /** Without a byte for this long an answer has broken off. */
  readonly stallTimeoutMs?: number;
  /** A connection that was idle for longer is not used again: the other side may have left it. */
  readonly idleMs?: number;
}

/** Bytes that the head of an answer may have. */
const headBytesMax = 16_384;

/** Keeps connections between reads, to any host over http or https. */
export class RangeSockets {
  readonly #connectionsMax: number;
  readonly #timeouts: Timeouts;
  readonly #idleMs: number;
  #idle: { readonly connection: Connection; readonly sinceMs: number }[] = [];
  #busy = 0;
  readonly #queue: (() => void)[] = [];

  constructor(options: RangeSocketsOptions = {}) {
    this.#connectionsMax = options.connectionsMax ?? 16;
    this.#timeouts = {
      connectMs: options.connectTimeoutMs ?? 5000,
      stallMs: options.stallTimeoutMs ?? 10_000,
    };
    this.#idleMs = options.idleMs ?? 4000;
  }

  /**
   * Sends one GET with a Range header. Once the promise is settled nothing writes to `target` any more.
   *
   * @param offset where the range begins in the object
   * @param target takes the body if that is exactly the range from `offset` on; else it is left alone
   * @returns undefined for any answer but a plain 206 of known length: it is for a full HTTP client to read
   * @throws Error with the `code` that Node gives to what became of the connection; AbortError
   */
  async read(
    request: SignedGet,
    offset: number,
    target: Uint8Array,
    signal: AbortSignal,
  ): Promise<RangeHead | undefined> {
    if (this.#busy >= this.#connectionsMax) await new Promise<void>((wake) => this.#queue.push(wake));
    else this.#busy += 1;
    try {
      signal.throwIfAborted();
      const connection = this.#take(originOf(request)) ?? new Connection(request, this.#timeouts);
      try {
        const head = await connection.read(request, offset, target, signal);
        if (connection.reusable) this.#idle.push({ connection, sinceMs: performance.now() });
        return head;
      } catch (error) {
        // What the others are connected to may be gone as well; the next try shall not find out one by one.
        this.close();
        throw error;
      }
    } finally {
      const next = this.#queue.shift();
      // Whoever is next takes over this place.
      if (next) next();
      else this.#busy -= 1;
    }
  }

  /** Ends the connections that are idle. */
  close(): void {
    for (const { connection } of this.#idle) connection.close();
    this.#idle = [];
  }

  /** The idle connection to an origin that was used last. Ends what has been idle for too long. */
  #take(origin: string): Connection | undefined {
    const since = performance.now() - this.#idleMs;
    for (const { connection, sinceMs } of this.#idle) if (sinceMs <= since) connection.close();
    this.#idle = this.#idle.filter(({ connection }) => connection.reusable);
    const at = this.#idle.findLastIndex(({ connection }) => connection.origin === origin);
    return at < 0 ? undefined : this.#idle.splice(at, 1)[0]!.connection;
  }
}

interface Timeouts {
  readonly connectMs: number;
  readonly stallMs: number;
}

/** One answer that a connection is reading. */
interface Reading {
  readonly offset: number;
  readonly target: Uint8Array;
  readonly resolve: (head: RangeHead | undefined) => void;
  readonly reject: (error: Error) => void;
}

/** A connection, which reads one answer at a time. */
class Connection {
  readonly origin: string;
  readonly #socket: Socket;
  readonly #timeouts: Timeouts;
  /** Takes heads, and whatever comes when nothing should. */
  readonly #scratch = Buffer.allocUnsafeSlow(headBytesMax);
  #scratchBytes = 0;
  #reading: Reading | undefined;
  /** The head whose body is being read. */
  #head: RangeHead | undefined;
  /** Bytes of the body that are in the target. */
  #bodyBytes = 0;
  #failure: Error | undefined;
  #spent = false;

  constructor(request: SignedGet, timeouts: Timeouts) {
    this.origin = originOf(request);
    this.#timeouts = timeouts;
    // The SDK writes an IPv6 address as URLs do.
    const host = request.hostname.replace(/^\[(.*)\]$/, '$1');
    const secure = request.protocol === 'https:';
    const options = {
      host,
      port: request.port ?? (secure ? 443 : 80),
      noDelay: true,
      // Node reads into what the first function returned last, and tells the second how much.
      onread: { buffer: () => this.#room(), callback: (bytes: number) => this.#took(bytes) },
    };
    const secureOptions: ConnectionOptions = {
      ...options,
      ALPNProtocols: ['http/1.1'],
      ...(isIP(host) ? {} : { servername: host }),
    };
    this.#socket = secure ? connectTls(secureOptions) : connect(options);
    this.#socket.setTimeout(timeouts.connectMs);
    this.#socket.on(secure ? 'secureConnect' : 'connect', () => this.#socket.setTimeout(timeouts.stallMs));
    this.#socket.on('timeout', () => this.#timedOut());
    this.#socket.on('error', (error) => this.#fail(error));
    this.#socket.on('end', () =>
      this.#fail(broken('ECONNRESET', `${this.origin} closed the connection early`)),
    );
    // Only now is it certain that nothing writes to the target any more.
    this.#socket.on('close', () => {
      this.#spent = true;
      const error = this.#failure ?? broken('ECONNRESET', `${this.origin} closed the connection early`);
      this.#settle()?.reject(error);
    });
  }

  get reusable(): boolean {
    return !this.#spent && this.#reading === undefined;
  }

  close(): void {
    this.#spent = true;
    this.#socket.destroy();
  }

  async read(
    request: SignedGet,
    offset: number,
    target: Uint8Array,
    signal: AbortSignal,
  ): Promise<RangeHead | undefined> {
    const abort = () => this.#fail(signal.reason as Error);
    signal.addEventListener('abort', abort, { once: true });
    try {
      return await new Promise((resolve, reject) => {
        this.#reading = { offset, target, resolve, reject };
        this.#socket.ref();
        // An idle connection has no timer.
        if (!this.#socket.connecting) this.#socket.setTimeout(this.#timeouts.stallMs);
        this.#socket.write(headOf(request));
      });
    } finally {
      signal.removeEventListener('abort', abort);
    }
  }

  #timedOut(): void {
    const { bytesRead, timeout } = this.#socket;
    // Timers come before sockets: when this process itself was busy, what arrived meanwhile is read after this.
    setImmediate(() => {
      if (this.#socket.bytesRead > bytesRead) return;
      const what = bytesRead === 0 ? 'no answer' : 'nothing more';
      this.#fail(broken('ETIMEDOUT', `${what} from ${this.origin} for ${timeout} ms`));
    });
  }

  #room(): Uint8Array {
    const { target } = this.#reading ?? {};
    if (this.#head && target) return target.subarray(this.#bodyBytes);
    // What comes while nothing is read, or after a failure, may overwrite anything here.
    return this.#scratchBytes < headBytesMax ? this.#scratch.subarray(this.#scratchBytes) : this.#scratch;
  }

  #took(bytes: number): boolean {
    try {
      if (this.#reading === undefined || this.#failure) this.close();
      else if (this.#head) this.#tookBody(bytes, this.#head, this.#reading);
      else this.#tookHead(bytes, this.#reading);
    } catch (error) {
      // Thrown from here it would end the process.
      this.#fail(error as Error);
    }
    return true;
  }

  #tookHead(bytes: number, reading: Reading): void {
    const from = Math.max(0, this.#scratchBytes - 3);
    this.#scratchBytes += bytes;
    const all = this.#scratch.subarray(0, this.#scratchBytes);
    const end = all.indexOf('\r\n\r\n', from, 'latin1');
    if (end < 0) {
      if (this.#scratchBytes === headBytesMax) this.#leave(undefined);
      return;
    }
    const headers = parseHead(all.toString('latin1', 0, end));
    const body = headers && bodyOf(headers);
    const rest = all.subarray(end + 4);
    if (headers === undefined || body === undefined) {
      this.#leave(undefined);
    } else if (body.length !== reading.target.length || body.offset !== reading.offset) {
      this.#leave({ headers, complete: false });
    } else if (rest.length > body.length) {
      this.#fail(broken('ECONNRESET', `${this.origin} sent more than it announced`));
    } else {
      this.#head = { headers, complete: true };
      reading.target.set(rest);
      this.#tookBody(rest.length, this.#head, reading);
    }
  }

  #tookBody(bytes: number, head: RangeHead, reading: Reading): void {
    this.#bodyBytes += bytes;
    if (this.#bodyBytes < reading.target.length) return;
    this.#settle();
    if (/\bclose\b/i.test(head.headers.connection ?? '')) this.close();
    else {
      this.#socket.setTimeout(0);
      this.#socket.unref();
    }
    reading.resolve(head);
  }

  /** Answers without reading on: what follows on this connection is of no use. */
  #leave(head: RangeHead | undefined): void {
    const reading = this.#settle();
    this.close();
    reading?.resolve(head);
  }

  /** Ends the connection; its end rejects the reading. */
  #fail(error: Error): void {
    this.#failure ??= error;
    this.close();
  }

  #settle(): Reading | undefined {
    const reading = this.#reading;
    this.#reading = undefined;
    this.#head = undefined;
    this.#scratchBytes = 0;
    this.#bodyBytes = 0;
    return reading;
  }
}

const originOf = ({ protocol, hostname, port }: SignedGet) => `${protocol}//${hostname}:${port ?? ''}`;

/** An error that says the same to the SDK, which tries again, as one of Node's sockets. */
function broken(code: 'ECONNRESET' | 'ETIMEDOUT', message: string): Error {
  return Object.assign(new Error(message), { name: 'TimeoutError', code });
}

/** As signatures count it: every character but the unreserved ones of RFC 3986. */
const escapeText = (text: string) =>
  encodeURIComponent(text).replace(/[!'()*]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`);

function headOf({ path, query = {}, headers }: SignedGet): string {
  const pairs = Object.entries(query).flatMap(([name, value]) =>
    (value === null || typeof value === 'string' ? [value] : value).map((one) =>
      one === null ? escapeText(name) : `${escapeText(name)}=${escapeText(one)}`,
    ),
  );
  const lines = [
    `GET ${path}${pairs.length === 0 ? '' : `?${pairs.join('&')}`} HTTP/1.1`,
    ...Object.entries(headers).map(([name, value]) => `${name}: ${value}`),
  ];
  for (const line of lines) {
    if (/[\r\n\0]/.test(line)) throw new Error('a request may not hold line breaks');
  }
  return `${lines.join('\r\n')}\r\n\r\n`;
}

/** The headers of an answer 206; undefined for any other. */
function parseHead(text: string): Record<string, string> | undefined {
  const [status = '', ...lines] = text.split('\r\n');
  if (!/^HTTP\/1\.1 206(?: |$)/.test(status)) return undefined;
  const headers: Record<string, string> = {};
  for (const line of lines) {
    const match = /^([\w!#$%&'*+.^`|~-]+):(.*)$/.exec(line);
    if (!match) return undefined;
    const name = match[1]!.toLowerCase();
    const value = match[2]!.trim();
    // Two lengths become one that is none.
    headers[name] = name in headers ? `${headers[name]}, ${value}` : value;
  }
  return headers;
}

/** What the body is; undefined when its length is not told. */
function bodyOf(headers: Readonly<Record<string, string>>): { length: number; offset: number } | undefined {
  const range = /^bytes (\d+)-(\d+)\//.exec(headers['content-range'] ?? '');
  const length = headers['content-length'] ?? '';
  if (headers['transfer-encoding'] !== undefined || !range || !/^\d+$/.test(length)) return undefined;
  const offset = Number(range[1]);
  return Number(range[2]) - offset + 1 === Number(length) ? { length: Number(length), offset } : undefined;
}
